//! execwatch-rules(5): docs/rules.md, with the tables of the program itself in the place of those that are written there.

use execwatch::rules::fields::{ATTRIBUTES, RELATIVES};
use execwatch::rules::selection::MODIFIERS;

use super::roff::{Page, bold, escape};
use super::{markdown, see_also};

const GUIDE: &str = include_str!("../../../docs/rules.md");

pub(super) fn page(date: &str) -> String {
    let purpose = "rules, exceptions, utilities and macros of execwatch";
    let mut page = Page::new("execwatch-rules", 5, date, "File Formats", purpose);
    markdown::write(&mut page, GUIDE, &mut |page, name| {
        match name {
            "fields" => fields(page),
            "relatives" => {
                RELATIVES.iter().for_each(|(name, text)| page.term(&bold(&format!("{name}.")), text));
            }
            "modifiers" => MODIFIERS.iter().for_each(|(name, text)| page.term(&bold(name), text)),
            _ => return false,
        }
        true
    });
    see_also(&mut page, &[("execwatch", 8), ("execwatch.toml", 5)]);
    page.finish()
}

fn fields(page: &mut Page) {
    for field in ATTRIBUTES {
        let names: Vec<String> = [Some(field.name), field.short].into_iter().flatten().map(bold).collect();
        let marks = [(field.relatives, " †"), (field.hot, " ‡")];
        let marks: String = marks.into_iter().filter(|(on, _)| *on).map(|(_, mark)| mark).collect();
        page.term(
            &format!("{} ({}){}", names.join(", "), escape(field.kind.as_str()), escape(&marks)),
            field.description,
        );
    }
}
