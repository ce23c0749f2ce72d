//! The manual pages as texts: execwatch(8) from the definition of the command line, execwatch.toml(5) from the commented
//! configuration, execwatch-rules(5) from the tables of fields and modifiers and docs/rules.md.

mod command;
mod configuration;
mod markdown;
mod roff;
mod rules;

use roff::Page;

/// A manual page.
pub(crate) struct Document {
    /// Name of its file.
    pub(crate) file: &'static str,
    /// Its source, for man(7).
    pub(crate) text: String,
}

/// All pages, with their date.
pub(crate) fn all(date: &str) -> Vec<Document> {
    vec![
        Document { file: "execwatch.8", text: command::page(date) },
        Document { file: "execwatch.toml.5", text: configuration::page(date) },
        Document { file: "execwatch-rules.5", text: rules::page(date) },
    ]
}

/// The day of a moment in seconds since 1970, as a page shows it.
pub(crate) fn date(seconds: u64) -> String {
    execwatch::calendar::Date::of_unix_time(seconds).to_string()
}

/// The end of every page.
fn see_also(page: &mut Page, others: &[(&str, u8)]) {
    page.section("SEE ALSO");
    let references: Vec<String> =
        others.iter().map(|(name, section)| format!("{}({section})", roff::bold(name))).collect();
    page.raw_paragraph(&references.join(", "));
    page.paragraph("More, with examples, stands in /usr/share/doc/execwatch/.");
}
