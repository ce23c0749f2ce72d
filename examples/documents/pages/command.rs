//! execwatch(8).

use clap::{Arg, Command};

use super::roff::{Page, bold, escape, italic};
use super::{markdown, see_also};

/// What the definition of the command line does not tell.
const FRAME: &str = include_str!("../../../packaging/man/execwatch.8.md");

pub(super) fn page(date: &str) -> String {
    let mut command = execwatch::cli::command();
    command.build();
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let mut page = Page::new("execwatch", 8, date, "System Administration", about.trim_end_matches('.'));
    page.section("SYNOPSIS");
    page.raw_paragraph(&format!("{} {} [{}]", bold("execwatch"), italic("COMMAND"), italic("OPTIONS")));
    let codes = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    markdown::write(&mut page, FRAME, &mut |page, name| {
        match name {
            "commands" => subcommands(page, &command, "execwatch"),
            "exit-codes" => exit_codes(page, &codes),
            _ => return false,
        }
        true
    });
    see_also(&mut page, &[("execwatch.toml", 5), ("execwatch-rules", 5), ("systemctl", 1), ("logrotate", 8)]);
    page.finish()
}

fn subcommands(page: &mut Page, command: &Command, path: &str) {
    for subcommand in command.get_subcommands().filter(|own| own.get_name() != "help" && !own.is_hide_set()) {
        let path = format!("{path} {}", subcommand.get_name());
        if subcommand.has_subcommands() {
            page.subsection(&format!("{path} COMMAND"));
        } else {
            let usage = subcommand.clone().render_usage().to_string();
            page.subsection(usage.trim_start_matches("Usage: "));
        }
        let about = subcommand.get_long_about().or(subcommand.get_about());
        for paragraph in about.map(ToString::to_string).unwrap_or_default().split("\n\n") {
            page.paragraph(&paragraph.replace('\n', " "));
        }
        // What all commands below have is told with each of them.
        if !subcommand.has_subcommands() {
            subcommand.get_arguments().filter(|own| shown(own)).for_each(|own| argument(page, own));
        }
        subcommands(page, subcommand, &path);
    }
}

fn shown(argument: &Arg) -> bool {
    !argument.is_hide_set() && !matches!(argument.get_id().as_str(), "help" | "version")
}

fn argument(page: &mut Page, argument: &Arg) {
    let takes_value = argument.get_action().takes_values();
    let value = argument
        .get_value_names()
        .map(|names| names.iter().map(|name| italic(name)).collect::<Vec<_>>().join(" "));
    let mut names = Vec::new();
    names.extend(argument.get_short().map(|short| bold(&format!("-{short}"))));
    names.extend(argument.get_long().map(|long| bold(&format!("--{long}"))));
    let mut term = names.join(", ");
    if let Some(value) = value.filter(|_| takes_value) {
        let more =
            if argument.get_num_args().is_some_and(|range| range.max_values() > 1) { "..." } else { "" };
        let space = if term.is_empty() { "" } else { " " };
        term = format!("{term}{space}{value}{more}");
    }
    let help = argument.get_long_help().or(argument.get_help());
    let help = help.map(ToString::to_string).unwrap_or_default();
    let mut paragraphs = help.split("\n\n").map(|paragraph| paragraph.replace('\n', " "));
    let mut first = paragraphs.next().unwrap_or_default();
    if takes_value {
        let choices: Vec<String> =
            argument.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
        if !choices.is_empty() {
            first = format!("{first} [one of {}]", choices.join(", "));
        }
        let defaults: Vec<String> =
            argument.get_default_values().iter().map(|value| value.display().to_string()).collect();
        if !defaults.is_empty() {
            first = format!("{first} [default: {}]", defaults.join(" "));
        }
    }
    page.term(&term, first.trim());
    paragraphs.for_each(|paragraph| page.more(&paragraph));
}

/// The program's own list: `Exit codes: 0 well, 64 wrong command line.`
fn exit_codes(page: &mut Page, text: &str) {
    let list = text.split_once(": ").map_or(text, |(_, list)| list);
    for code in list.trim_end().trim_end_matches('.').split(", ") {
        let (number, meaning) = code.split_once(' ').unwrap_or((code, ""));
        page.term(&escape(number), meaning);
    }
}
