//! The report for tickets: Markdown, of which nothing can be forged by what programs wrote.
//!
//! Text of a story is written as code, between more backticks than it has in a row; only a text of plain words stands as it
//! is. The dialect is that of CommonMark with tables, and where readers of tables differ, in backslashes before a pipe, the
//! pipe is written as an escape.

use crate::incident::lines::Lines;
use crate::incident::show;
use crate::incident::shown::{joined, pieces_of_bytes, shown};
use crate::incident::span::{bytes, length, moment};
use crate::incident::story::{Answer, Story};

/// Most moments in the timeline.
const MOMENTS: usize = 200;
/// Most rows of a table.
const ROWS: usize = 100;
/// Longest value, in bytes.
const VALUE: usize = 400;
/// Most values in a cell.
const FEW: usize = 10;
/// Columns of tree and timeline.
const COLUMNS: usize = 110;

/// The ticket.
pub fn markdown(story: &Story) -> String {
    let incident = &story.incident;
    let mut text = format!("# Incident {} on {}\n\n", code(&incident.id), code(&incident.host));
    text += &format!("{}\n", words(&incident.title));
    let mut figures = vec![
        ["Severity".to_owned(), incident.severity.as_str().to_owned()],
        ["Score".to_owned(), format!("{} of 100", incident.score)],
        ["State".to_owned(), incident.state.as_str().to_owned()],
    ];
    let mut figure = |name: &str, value: Option<String>| {
        figures.extend(value.map(|value| [name.to_owned(), value]));
    };
    figure("Verdict", incident.verdict.map(|verdict| verdict.as_str().to_owned()));
    figure("Note", incident.note.as_deref().map(cell));
    figure("First alert", Some(cell(&moment(&incident.first))));
    figure("Last alert", Some(cell(&moment(&incident.last))));
    figure("From first to last", length(story));
    figure("Alerts", Some(incident.alerts.to_string()));
    figure("Programs executed", Some(incident.execs.to_string()));
    figure("User", incident.user.as_deref().map(cell));
    figure("Where", incident.place.as_deref().map(cell));
    table(&mut text, ["What", "Value"], &figures);
    if !story.cut.is_empty() {
        let cut: Vec<String> =
            story.cut.iter().take(ROWS).map(|cut| format!("{} {}", cut.count, words(&cut.what))).collect();
        text += &format!("\nNot kept, for there was too much of it: {}.\n", cut.join(", "));
    }
    answers(&mut text, "Who, and is it normal?", &story.who);
    answers(&mut text, "Can it be contained?", &story.contain);
    answers(&mut text, "What else belongs to it?", &story.what_else);
    answers(&mut text, "What was the way in?", &story.way_in);
    if !story.commands.is_empty() {
        text += "\n## What can be done now\n\n";
        for command in story.commands.iter().take(ROWS) {
            let line = span(&joined(&pieces_of_bytes(command.line.as_bytes(), VALUE)));
            text += &format!("- {line}: {}\n", words(&command.effect));
        }
        more(&mut text, story.commands.len());
    }
    let mut tree = Lines::new(COLUMNS, false);
    show::processes(&mut tree, story);
    fenced(&mut text, "Processes", &tree.into_text());
    let mut timeline = Lines::new(COLUMNS, false);
    show::timeline(&mut timeline, story, MOMENTS);
    fenced(&mut text, "Timeline (UTC)", &timeline.into_text());
    tables(&mut text, story);
    text
}

fn answers(text: &mut String, question: &str, answers: &[Answer]) {
    *text += &format!("\n## {question}\n");
    if answers.is_empty() {
        *text += "\nNothing is known.\n";
        return;
    }
    let row = |answer: &Answer| {
        [cell(&answer.what), cell(&answer.answer), answer.sure.as_str().to_owned(), cell(&answer.source)]
    };
    let rows: Vec<_> = answers.iter().take(ROWS).map(row).collect();
    table(text, ["What", "Answer", "How sure", "Source"], &rows);
    more(text, answers.len());
}

fn tables(text: &mut String, story: &Story) {
    let seen = |count: Option<u64>| count.map_or("not seen".to_owned(), bytes);
    if !story.tools.is_empty() {
        *text += "\n## Tools\n";
        let rows = story.tools.iter().take(ROWS).map(|tool| {
            let disguised = if tool.disguised { ", disguised" } else { "" };
            let name = format!("{}{disguised}", cell(&tool.name));
            [name, cell(&tool.category), tool.count.to_string(), few(&tool.attack), few(&tool.paths)]
        });
        table(text, ["Tool", "Category", "Times", "ATT&CK", "Executables"], &rows.collect::<Vec<_>>());
        more(text, story.tools.len());
    }
    if !story.remotes.is_empty() {
        *text += "\n## Remotes\n";
        let rows = story.remotes.iter().take(ROWS).map(|remote| {
            let direction = if remote.inbound { "from there" } else { "to there" };
            let (sent, received) = (seen(remote.bytes_out), seen(remote.bytes_in));
            [cell(&remote.address), cell(&remote.transport), direction.to_owned(), sent, received]
        });
        table(text, ["Address", "Transport", "Direction", "Sent", "Received"], &rows.collect::<Vec<_>>());
        more(text, story.remotes.len());
    }
    if !story.names.is_empty() {
        let names: Vec<String> = story.names.iter().take(ROWS).map(|name| code(name)).collect();
        *text += &format!("\nNames of hosts in arguments: {}.\n", names.join(", "));
        more(text, story.names.len());
    }
    if !story.files.is_empty() {
        *text += "\n## Files\n";
        let rows = story.files.iter().take(ROWS).map(|file| {
            let uses: Vec<&str> = file.uses.iter().take(3).map(|used| used.as_str()).collect();
            let (now, sum) = match &file.now {
                None => ("not there".to_owned(), String::new()),
                Some(now) => (
                    format!(
                        "{}, {}, {}, {}",
                        bytes(now.size),
                        cell(&now.owner),
                        cell(&now.mode),
                        cell(&now.modified)
                    ),
                    now.sha256.as_deref().map_or("too large".to_owned(), cell),
                ),
            };
            [cell(&file.path), uses.join(", "), now, sum]
        });
        table(text, ["File", "Use", "Now", "SHA-256"], &rows.collect::<Vec<_>>());
        more(text, story.files.len());
    }
    if !story.rules.is_empty() {
        let rules: Vec<String> = story.rules.iter().take(ROWS).map(|rule| code(&rule.id)).collect();
        *text += &format!("\n## Rules that matched\n\n{}\n", rules.join(", "));
        more(text, story.rules.len());
    }
}

fn more(text: &mut String, count: usize) {
    if count > ROWS {
        *text += &format!("\n{} more are not shown here.\n", count - ROWS);
    }
}

fn table<const COLUMNS: usize>(text: &mut String, head: [&str; COLUMNS], rows: &[[String; COLUMNS]]) {
    *text += &format!("\n| {} |\n|{}\n", head.join(" | "), " --- |".repeat(COLUMNS));
    for row in rows {
        *text += &format!("| {} |\n", row.join(" | "));
    }
}

/// Lines as they are, between fences that are longer than what looks like one in them.
fn fenced(text: &mut String, heading: &str, lines: &str) {
    let fence = "`".repeat(backticks(lines).max(2) + 1);
    *text += &format!("\n## {heading}\n\n{fence}text\n{lines}{fence}\n");
}

/// The most backticks in a row.
fn backticks(text: &str) -> usize {
    text.split(|character| character != '`').map(str::len).max().unwrap_or_default()
}

/// Text of a story as code.
fn code(text: &str) -> String {
    span(&shown(text, VALUE))
}

fn span(text: &str) -> String {
    if text.is_empty() {
        return "(empty)".to_owned();
    }
    // A span ends where as many backticks stand in a row as before it.
    let fence = "`".repeat(backticks(text) + 1);
    // One blank at both ends is taken away if there is one at both, unless there is nothing else.
    let outer = |end: Option<char>| end.is_some_and(|end| end == '`' || end == ' ');
    let blank =
        !text.trim_matches(' ').is_empty() && (outer(text.chars().next()) || outer(text.chars().next_back()));
    let blank = if blank { " " } else { "" };
    format!("{fence}{blank}{text}{blank}{fence}")
}

/// Text of a story as it is, if it is made of words that mean nothing to any reader of Markdown; otherwise as code.
fn words(text: &str) -> String {
    let text = shown(text, VALUE);
    if plain(&text) { text } else { span(&text) }
}

fn plain(text: &str) -> bool {
    let inert = |character: char| character.is_ascii_alphanumeric() || " ,.;:()/%-'".contains(character);
    text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && !text.ends_with(' ')
        && text.chars().all(inert)
        // Blanks that would be joined; addresses that would become links; words between colons, which become pictures; what
        // begins a list.
        && !["  ", "//", "www."].iter().any(|part| text.contains(part))
        && text.split(':').skip(1).all(|rest| !rest.starts_with(|next: char| next.is_ascii_alphabetic()))
        && !numbers_a_list(text)
}

fn numbers_a_list(text: &str) -> bool {
    let behind = text.trim_start_matches(|digit: char| digit.is_ascii_digit());
    behind.strip_prefix(['.', ')']).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
}

/// The same in a table, where a pipe has to be escaped, also in code.
fn cell(text: &str) -> String {
    let text = shown(text, VALUE);
    if plain(&text) {
        return text;
    }
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            // Readers do not agree on what a backslash before the escape of a pipe means.
            '|' if escaped.ends_with('\\') => escaped.push_str("\\x7c"),
            '|' => escaped.push_str("\\|"),
            character => escaped.push(character),
        }
    }
    span(&escaped)
}

fn few(texts: &[String]) -> String {
    let mut cells: Vec<String> = texts.iter().take(FEW).map(|text| cell(text)).collect();
    if texts.len() > FEW {
        cells.push(format!("{} more", texts.len() - FEW));
    }
    cells.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_cannot_be_left() {
        assert_eq!(code("a"), "`a`");
        assert_eq!(code("a``b`c"), "```a``b`c```");
        assert_eq!(code("`a"), "`` `a ``");
        assert_eq!(code(" a "), "`  a  `");
        assert_eq!(code("  "), "`  `");
        assert_eq!(code(""), "(empty)");
        assert_eq!(code("a\n# b"), "`a\\n# b`");
        assert_eq!(cell("a|b\\|c"), "`a\\|b\\\\x7cc`");
        let mut text = String::new();
        fenced(&mut text, "a", "```\n````\n");
        assert_eq!(text, "\n## a\n\n`````text\n```\n````\n`````\n");
    }

    #[test]
    fn only_words_stand_as_they_are() {
        for text in [
            "www-data (33)",
            "41.3 MiB to 198.51.100.7:443",
            "1 killed: it's over",
            "/proc now, 5% of it; a-b",
        ] {
            assert_eq!(words(text), if text.starts_with('/') { code(text) } else { text.to_owned() });
        }
        for text in [
            "1. a", "12) a", "- a", "a  b", "a ", "@a", "a://b", "www.a", ":a:", "a:b", "*a*", "a_b", "#1",
            "h\u{e9}", "",
        ] {
            assert_ne!(words(text), text);
        }
    }
}
