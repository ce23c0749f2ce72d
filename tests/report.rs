//! What shows an incident: the text, the report and the ticket, compared with files in `tests/golden/incident`.
//!
//! `EXECWATCH_TESTS_WRITE_GOLDEN=1 cargo test --test report` writes the files anew; look at the difference before
//! committing it.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use execwatch::alert::escape::{Escaped, is_unprintable, of_json};
use execwatch::incident::collect::Thing;
use execwatch::incident::kept::{Head, Item, KeptAlert, KeptProcess, KeptProgram};
use execwatch::incident::store::Store;
use execwatch::incident::story::Story;
use execwatch::incident::{report, show};
use execwatch::rules::model::Severity;
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
        // What stands in rules and commands is no text of a story, and shown as it is; of rules each line for itself.
        let raw = shown(text.as_bytes());
        let mut lines = text.split('\n').map(|line| shown(line.as_bytes()));
        let found = [&expected, &quoted, &raw].into_iter().any(|text| found.contains(text.as_str()))
            || lines.all(|line| found.contains(&line));
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
        "9767 more records are not shown here",
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

/// What an intruder gave a program as an argument.
const ARGUMENT: &str = "<script>alert(1)</script>\u{1b}[2J";

/// A state folder with one incident, and the configuration that names it.
fn state() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display();
    let config = format!("[state]\nfolder = \"{path}/state\"\nruntime-folder = \"{path}/run\"\n");
    std::fs::write(folder.path().join("config.toml"), config).unwrap();
    folder
}

fn fill(folder: &Path) {
    const TIME_NS: u64 = 1_773_454_267_042_000_000;
    let args = vec!["sh".to_owned(), "-c".to_owned(), ARGUMENT.to_owned()];
    let exe = Some("/usr/bin/dash".to_owned());
    let alert = KeptAlert {
        id: "0123456789abcdef-7".to_owned(),
        time_ns: TIME_NS,
        at_ns: 5,
        pid: 4321,
        rule: "webserver-shell".to_owned(),
        title: "A web server started a shell".to_owned(),
        severity: Severity::High,
        exe: exe.clone(),
        args: args.clone(),
        ..KeptAlert::default()
    };
    let process = KeptProcess {
        key: 1,
        parent: None,
        pid: 4321,
        start_ns: TIME_NS,
        one: None,
        uid: Some(33),
        entry: true,
        exe: None,
        args: Vec::new(),
    };
    let program = KeptProgram { process: 1, time_ns: TIME_NS, at_ns: 5, exe, args };
    let record = Some("{\"a\":\"record of the alert\"}".to_owned());
    let things = [
        (Item::Process(process), None),
        (Item::Program(program), None),
        (Item::Alert(Box::new(alert)), record),
    ];
    let head = Head {
        id: "k7f3a".to_owned(),
        first_ns: TIME_NS,
        last_ns: TIME_NS,
        severity: Severity::High,
        score: 70,
        title: "www-data: sh".to_owned(),
        alerts: 1,
        execs: 1,
        ..Head::default()
    };
    let things = things.map(|(item, record)| ("k7f3a".to_owned(), Thing { item, record }));
    Store::create(&folder.join("state")).unwrap().write(&[head], &things, u64::MAX).unwrap();
}

fn execwatch(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_execwatch"));
    command
        .arg("report")
        .args(arguments)
        .args(["--config", "config.toml"])
        .current_dir(folder)
        .output()
        .unwrap()
}

fn ended(output: &Output) -> (i32, &str) {
    (output.status.code().unwrap(), std::str::from_utf8(&output.stderr).unwrap())
}

#[test]
fn the_command() {
    let state = state();
    let folder = state.path();
    fill(folder);
    let output = execwatch(folder, &["k7f", "-o", "report.html"]);
    assert_eq!(ended(&output), (0, ""));
    let path = folder.join("report.html");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    let page = std::fs::read_to_string(&path).unwrap();
    let (_, text) = read_page(&page);
    for shown in
        ["<script>alert(1)</script>\\x1b[2J", "record of the alert", "A web server started a shell", "4321"]
    {
        assert!(text.contains(shown), "{shown}");
    }
    assert!(!page.contains("<script>alert(1)"));

    // Nothing is overwritten unless that is asked for.
    std::fs::write(&path, "kept").unwrap();
    let output = execwatch(folder, &["k7f3a", "-o", "report.html"]);
    let (code, error) = ended(&output);
    assert_eq!(code, 74);
    assert!(error.contains("report.html is there already") && error.contains("--force"), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "kept");
    assert_eq!(ended(&execwatch(folder, &["k7f3a", "-o", "report.html", "--force"])), (0, ""));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), page);

    // Without a file it goes to standard output.
    let ticket = execwatch(folder, &["k7f3a", "--markdown"]);
    assert_eq!(ended(&ticket), (0, ""));
    let ticket = String::from_utf8(ticket.stdout).unwrap();
    assert!(
        ticket.starts_with("# Incident `k7f3a` on ") && ticket.contains("sh -c '<script>alert(1)</script>"),
        "{ticket}"
    );
}

#[test]
fn what_the_command_cannot_do() {
    let state = state();
    let folder = state.path();
    let none = execwatch(folder, &["k7f3a"]);
    assert_eq!(ended(&none).0, 66, "{}", ended(&none).1);
    assert!(ended(&none).1.contains("incidents.db"), "{}", ended(&none).1);
    fill(folder);
    let unknown = execwatch(folder, &["zz"]);
    assert_eq!(ended(&unknown).0, 64);
    assert!(ended(&unknown).1.contains("there is no incident `zz`"), "{}", ended(&unknown).1);
    let nowhere = execwatch(folder, &["k7f3a", "-o", "nowhere/report.html"]);
    assert_eq!(ended(&nowhere).0, 74);
    assert!(ended(&nowhere).1.contains("cannot write nowhere/report.html"), "{}", ended(&nowhere).1);
    assert_eq!(execwatch(folder, &["k7f3a", "--force"]).status.code(), Some(64));
    std::fs::write(folder.join("state/incidents.db"), [0x55; 5000]).unwrap();
    let damaged = execwatch(folder, &["k7f3a"]);
    assert_eq!(ended(&damaged).0, 71, "{}", ended(&damaged).1);
    assert!(ended(&damaged).1.contains("incidents.db"), "{}", ended(&damaged).1);
}
