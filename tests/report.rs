//! What shows an incident: the text, the report and the ticket, compared with files in `tests/golden/incident`.
//!
//! `EXECWATCH_TESTS_WRITE_GOLDEN=1 cargo test --test report` writes the files anew; look at the difference before
//! committing it.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::path::{Path, PathBuf};

use execwatch::alert::escape::{Escaped, is_unprintable, of_json};
use execwatch::incident::story::Story;
use execwatch::incident::{report, show};
use proptest::prelude::*;
use pulldown_cmark::{Event, Options, Parser};
use scraper::{ElementRef, Html, Node};
use serde_json::Value;
use unicode_width::UnicodeWidthStr;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/incident")
}

fn story() -> Story {
    serde_json::from_str(&std::fs::read_to_string(folder().join("webshell.json")).unwrap()).unwrap()
}

fn records() -> Vec<String> {
    let records = std::fs::read_to_string(folder().join("webshell.records")).unwrap();
    records.lines().map(str::to_owned).collect()
}

/// Compares with a file, or writes it.
fn compare(name: &str, found: &str) {
    let path = folder().join(name);
    if std::env::var_os("EXECWATCH_TESTS_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, found).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(expected == found, "{} differs\n--- found\n{found}", path.display());
}

#[test]
fn the_page() {
    compare("webshell.html", &report::html(&story(), &records()));
}

#[test]
fn the_text() {
    compare("webshell.text", &show::text(&story(), 100, false));
    compare("webshell.narrow", &show::text(&story(), 60, false));
    compare("webshell.colour", &show::text(&story(), 100, true));
}

#[test]
fn the_ticket() {
    compare("webshell.md", &report::markdown(&story()));
}

/// The golden story with another text in the place of each text; each has a number, so that none is mistaken for another.
fn story_of(text: &str) -> (Story, Vec<String>) {
    let mut value = serde_json::to_value(story()).unwrap();
    let mut texts = Vec::new();
    replace(&mut value, "", text, &mut texts);
    (serde_json::from_value(value).unwrap(), texts)
}

fn replace(value: &mut Value, key: &str, text: &str, texts: &mut Vec<String>) {
    match value {
        // These are words of the program's own, not text.
        Value::String(_) if ["severity", "state", "verdict", "sure", "kind", "uses"].contains(&key) => {}
        Value::String(old) => {
            *old = format!("{}{text}{}", texts.len(), texts.len());
            texts.push(old.clone());
        }
        Value::Array(values) => values.iter_mut().for_each(|value| replace(value, key, text, texts)),
        Value::Object(values) => {
            values.iter_mut().for_each(|(key, value)| replace(value, key, text, texts));
        }
        _ => {}
    }
}

/// As people are shown a text.
fn shown(text: &[u8]) -> String {
    Escaped::new(text).as_str().replace("\\\"", "\"").replace("\\\\", "\\")
}

/// Every text is somewhere, as it was or as a shell would need it.
fn assert_all_shown(texts: &[String], found: &str) {
    for text in texts {
        let expected = shown(&of_json(text));
        let quoted = expected.replace('\'', "'\\''");
        // What stands in rules is no text of a story, and shown as it is; the lines of it each for itself.
        let mut lines = text.split('\n').map(|line| shown(line.as_bytes()));
        let found =
            found.contains(&expected) || found.contains(&quoted) || lines.all(|line| found.contains(&line));
        assert!(found, "{expected} is not shown");
    }
}

/// What means something to some reader.
const PIECES: &[&str] = &[
    "<script>",
    "</script>",
    "</code>",
    "</td>",
    "</title>",
    "</style>",
    "</pre>",
    "</svg>",
    "</textarea>",
    "<!--",
    "-->",
    "]]>",
    "<![CDATA[",
    "<?x",
    "<a@b.c>",
    "\"",
    "'",
    "`",
    "```",
    "~~~",
    "|",
    "\\|",
    "\\",
    "\\x",
    "\n",
    "\r\n",
    "\n\n# ",
    "\n- ",
    "\n|",
    "\n    ",
    "1. ",
    "  ",
    " ",
    "\t",
    "\0",
    "\x1b[2J",
    "\u{9b}",
    "\u{202e}",
    "\u{61c}",
    "\u{2028}",
    "\u{feff}",
    "&lt;",
    "&#60;",
    "&amp",
    "&",
    "[a](b)",
    "![a](b)",
    "[^1]",
    "http://a.b",
    "www.a.b",
    "@a",
    ":a:",
    "**",
    "__",
    "$a$",
    "{{a}}",
    "\\xff",
    "\\x3cscript\\x3e",
    "=",
    "on=",
    "javascript:",
    "\u{4e2d}",
    "\u{5d0}",
    "e\u{301}",
    "\u{d7ff}",
    "\u{10ffff}",
];

/// What an attacker would write.
fn hostile() -> impl Strategy<Value = String> {
    let piece = prop_oneof![4 => proptest::sample::select(PIECES).prop_map(str::to_owned), 1 => any::<char>().prop_map(String::from)];
    proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

/// Elements and their attributes in the order of the document, without those that mark escapes; and all text.
fn skeleton(element: ElementRef<'_>, elements: &mut Vec<String>, text: &mut String) {
    let name = element.value().name();
    let attributes: Vec<(&str, &str)> = element.value().attrs().collect();
    let marks_escape = ["i", "tspan"].contains(&name) && attributes.is_empty();
    if !marks_escape {
        elements.push(format!("<{name} {attributes:?}>"));
    }
    for child in element.children() {
        match child.value() {
            Node::Text(own) if ["script", "style"].contains(&name) => elements.push(own.to_string()),
            Node::Text(own) => text.push_str(own),
            Node::Element(_) => skeleton(ElementRef::wrap(child).unwrap(), elements, text),
            other => panic!("{other:?}"),
        }
    }
    if !marks_escape {
        elements.push(format!("</{name}>"));
    }
}

fn read_page(page: &str) -> (Vec<String>, String) {
    let document = Html::parse_document(page);
    assert_eq!(document.errors, Vec::<std::borrow::Cow<'static, str>>::new());
    let (mut elements, mut text) = (Vec::new(), String::new());
    skeleton(document.root_element(), &mut elements, &mut text);
    (elements, text)
}

/// Structure of Markdown, where code and words are the same, and all text.
fn read_ticket(ticket: &str) -> (Vec<String>, String) {
    let (mut structure, mut text) = (Vec::new(), String::new());
    for event in Parser::new_ext(ticket, Options::all()) {
        match event {
            Event::Text(own) | Event::Code(own) => {
                text.push_str(&own);
                if structure.last().is_none_or(|last| last != "text") {
                    structure.push("text".to_owned());
                }
            }
            other => structure.push(format!("{other:?}")),
        }
    }
    (structure, text)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_breaks_out_of_the_page(text in hostile()) {
        let (tame, _) = story_of("a");
        let (story, texts) = story_of(&text);
        let records = |text: &str| vec![format!("{{\"a\":\"{text}\"}}").replace('\n', "")];
        let (expected, _) = read_page(&report::html(&tame, &records("a")));
        let (elements, found) = read_page(&report::html(&story, &records(&text)));
        prop_assert_eq!(elements, expected);
        prop_assert!(!found.replace('\n', "").contains(is_unprintable));
        assert_all_shown(&texts, &found);
    }

    #[test]
    fn nothing_breaks_out_of_the_ticket(text in hostile()) {
        let (tame, _) = story_of("a");
        let (story, _) = story_of(&text);
        let ticket = report::markdown(&story);
        prop_assert!(!ticket.replace('\n', "").contains(is_unprintable));
        let (structure, _) = read_ticket(&ticket);
        prop_assert_eq!(structure, read_ticket(&report::markdown(&tame)).0);
    }

    #[test]
    fn nothing_breaks_out_of_the_text(text in hostile(), width in 0usize..200) {
        let (story, texts) = story_of(&text);
        let shown = show::text(&story, width, false);
        prop_assert!(!shown.replace('\n', "").contains(is_unprintable));
        for line in shown.lines().filter(|line| !line.starts_with("  $ ")) {
            prop_assert!(line.width() <= width.max(40), "{line}");
        }
        let coloured = show::text(&story, width, true);
        // Only the sequences for colours, and without them it is the same.
        let mut plain = coloured;
        for code in ["0", "1", "2", "35", "36", "33", "31;1", "97;41;1"] {
            plain = plain.replace(&format!("\x1b[{code}m"), "");
        }
        prop_assert_eq!(plain, shown);
        prop_assert!(texts.len() > 100);
    }
}

/// A story as large as one may get: every list is long, and every text hostile.
fn large() -> Story {
    let mut story = story();
    let bad = "\u{1b}\"<&\u{202e}'".repeat(100);
    let process = story.processes[10].clone();
    story.processes = (0..1_000u32)
        .map(|key| {
            let mut process = process.clone();
            (process.key, process.parent) = (key, key.checked_sub(1 + key % 7));
            for program in &mut process.programs {
                program.args = vec![bad.clone(); 20];
            }
            process
        })
        .collect();
    let moments = story.timeline.clone();
    story.timeline = moments.iter().cycle().take(100_000).cloned().collect();
    for (number, moment) in story.timeline.iter_mut().enumerate() {
        moment.time_ns += number as u64 * 1_000_000;
        moment.text.clone_from(&bad);
    }
    let file = story.files[2].clone();
    story.files = vec![file; 10_000];
    story.files.iter_mut().for_each(|file| file.path.clone_from(&bad));
    let rule = story.rules[0].clone();
    story.rules = vec![rule; 10_000];
    story.tools[0].paths = vec![bad.clone(); 1_000];
    let tool = story.tools[0].clone();
    story.tools = vec![tool; 1_000];
    story.remotes[0].processes = (0..1_000).collect();
    let remote = story.remotes[0].clone();
    story.remotes = vec![remote; 10_000];
    story.names = vec![bad.clone(); 10_000];
    let answer = story.who[0].clone();
    story.who = vec![answer; 10_000];
    story
}

#[test]
fn what_is_large_is_cut_and_that_is_said() {
    let story = large();
    let records = vec!["{\"a\":\"<\"}".repeat(1_000); 10_000];
    let begin = std::time::Instant::now();
    let page = report::html(&story, &records);
    println!("the page: {:?}, {} bytes", begin.elapsed(), page.len());
    let (_, text) = read_page(&page);
    assert!(page.len() < 32 << 20, "{}", page.len());
    for said in [
        "600 processes are not shown here",
        "96000 moments are not shown here: ",
        "9500 more rows are not shown here",
        "9500 more answers are not shown here",
        "9500 more names are not shown here",
        "9900 more rules are not shown here",
        "990 more are not shown here",
        "9790 more records are not shown here",
    ] {
        assert!(text.contains(said), "{said}");
    }
    let begin = std::time::Instant::now();
    let ticket = report::markdown(&story);
    println!("the ticket: {:?}, {} bytes", begin.elapsed(), ticket.len());
    assert!(ticket.len() < 8 << 20, "{}", ticket.len());
    for said in ["99800 moments are not shown here", "9900 more are not shown here"] {
        assert!(ticket.contains(said), "{said}");
    }
    let begin = std::time::Instant::now();
    let shown = show::text(&story, 100, true);
    println!("the text: {:?}, {} bytes", begin.elapsed(), shown.len());
    assert!(shown.len() < 24 << 20, "{}", shown.len());
    for said in [
        "500 more processes are not shown here",
        "98000 moments are not shown here",
        "9800 more rows are not shown",
    ] {
        assert!(shown.contains(said), "{said}");
    }
}
