//! execwatch.toml(5), from the comments of the shipped configuration.

use super::roff::{Page, bold, escape};
use super::see_also;

const INTRODUCTION: &str = "execwatch reads `/etc/execwatch/execwatch.toml`, or the file that is named with --config. \
    Without a file every key has its default. The file is written in TOML: tables in square brackets, and in them a line \
    `key = value` for each key. Keys are shown here with their defaults; what is unknown or wrong is refused with its \
    place, and `execwatch check` shows all mistakes at once. A running daemon takes a changed file over at `execwatch \
    reload` or SIGHUP, and keeps the old configuration if the new one has a mistake.";

pub(super) fn page(date: &str) -> String {
    let purpose = "configuration of execwatch";
    let mut page = Page::new("execwatch.toml", 5, date, "File Formats", purpose);
    page.section("DESCRIPTION");
    page.paragraph(INTRODUCTION);
    let mut comment: Vec<&str> = Vec::new();
    let mut lines = execwatch::config::SHIPPED.lines();
    while let Some(line) = lines.next() {
        let live = uncommented(line);
        if let Some(title) = live.filter(|line| line.starts_with('[')) {
            page.section(title);
            about(&mut page, &comment);
            comment.clear();
        } else if let Some(text) = line.strip_prefix('#').filter(|_| live.is_none()) {
            comment.push(text.strip_prefix(' ').unwrap_or(text));
        } else if let Some(key) = live {
            let mut value = key.to_owned();
            // An array over several lines ends with a bracket of its own.
            while value.ends_with('[') || value.ends_with(',') {
                let Some(next) = lines.next() else { break };
                value = format!("{value} {}", next.trim_start_matches('#').trim());
            }
            let value = value.replace("[ ", "[").replace(", ]", "]");
            let (key, default) = value.split_once(" = ").unwrap_or((&value, ""));
            explain(&mut page, &format!("{} = {}", bold(key), escape(default)), &comment);
            comment.clear();
        } else {
            // The text above the first table is about the file; DESCRIPTION has it in other words.
            comment.clear();
        }
    }
    page.section("FILES");
    page.term(&bold(execwatch::config::DEFAULT_PATH), "the configuration");
    for folder in execwatch::config::DEFAULT_FOLDERS {
        page.term(&bold(folder), "tables of your own, each in a file `*.toml`; see execwatch-rules(5)");
    }
    see_also(&mut page, &[("execwatch", 8), ("execwatch-rules", 5)]);
    page.finish()
}

/// A line with a table or key, also one that is to be uncommented: a `#`, and no space after it.
fn uncommented(line: &str) -> Option<&str> {
    match line.strip_prefix('#') {
        Some(rest) => {
            Some(rest).filter(|rest| rest.starts_with(|c: char| c == '[' || c.is_ascii_lowercase()))
        }
        None => Some(line).filter(|line| !line.is_empty()),
    }
}

/// Comment lines: paragraphs of text, and lists whose lines are indented.
enum Part {
    Text(String),
    List(Vec<(String, String)>),
}

fn parts(comment: &[&str]) -> Vec<Part> {
    let mut parts = Vec::new();
    for line in comment {
        let indented = line.starts_with("  ");
        let entry = line.trim().split_once("  ").filter(|_| indented);
        match (parts.last_mut(), entry) {
            (Some(Part::List(list)), Some((term, text))) if !line.starts_with("    ") => {
                list.push((term.to_owned(), text.trim().to_owned()));
            }
            (Some(Part::List(list)), _) if indented => {
                if let Some((_, text)) = list.last_mut() {
                    *text = format!("{text} {}", line.trim());
                }
            }
            (_, Some((term, text))) => {
                parts.push(Part::List(vec![(term.to_owned(), text.trim().to_owned())]))
            }
            (Some(Part::Text(text)), None) => *text = format!("{text} {}", line.trim()),
            (_, None) => parts.push(Part::Text(line.trim().to_owned())),
        }
    }
    parts
}

fn about(page: &mut Page, comment: &[&str]) {
    for part in parts(comment) {
        match part {
            Part::Text(text) => page.paragraph(&text),
            Part::List(list) => list.iter().for_each(|(term, text)| page.term(&bold(term), text)),
        }
    }
}

fn explain(page: &mut Page, term: &str, comment: &[&str]) {
    let mut parts = parts(comment);
    let first = match parts.first() {
        Some(Part::Text(text)) => text.clone(),
        _ => String::new(),
    };
    if !first.is_empty() {
        parts.remove(0);
    }
    page.term(term, &first);
    for part in parts {
        match part {
            Part::Text(text) => page.more(&text),
            Part::List(list) => page.nested(&list),
        }
    }
}
