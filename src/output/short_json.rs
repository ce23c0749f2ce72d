//! JSON that fits a syslog message.
//!
//! What is least missed is cut first: arguments, then long strings, then the farthest ancestors, then whatever is long. A
//! last form that holds nothing of a process's choosing is always short enough.

use serde_json::{Map, Value, json};

use crate::alert::escape::{self, cut};
use crate::alert::{Alert, Host, Record, RecordId, ecs};
use crate::process::ring::ARGUMENTS;

/// Longest line in bytes for a syslog message with a short header. rsyslog cuts one at 8 KB by default, which would leave
/// broken JSON.
pub const LONGEST: usize = 8000;
/// The limits of a string in bytes of JSON, where a control character has six, and of a list: one after another until the
/// line is short enough. Times, addresses and hashes are shorter than the last, so that no database refuses them.
const LIMITS: [(usize, usize); 6] = [(1024, 1024), (256, 256), (64, 64), (64, 16), (64, 4), (64, 1)];
/// No string is cut below so many bytes before it is escaped: the mark that says what is missing takes most of them.
const SHORTEST: usize = 16;
/// So many of the nearest ancestors are left out only at last.
const NEAREST: usize = 3;
/// What is never cut: by these a record is found, told from others and put in its order. None is of a process's choosing.
const KEPT: [&str; 9] = [
    "/@timestamp",
    "/event/id",
    "/event/action",
    "/event/dataset",
    "/rule/id",
    "/process/start",
    "/execwatch/record",
    "/execwatch/notice",
    "/execwatch/incident",
];
/// What else the last form has.
const ESSENTIAL: [&str; 7] = [
    "/ecs/version",
    "/event/kind",
    "/event/module",
    "/event/severity",
    "/event/sequence",
    "/process/pid",
    "/execwatch/severity",
];
/// Bytes of each of its strings. With all of them it has less than 3000 bytes.
const LONGEST_ESSENTIAL: usize = 64;

/// The line, of at most `longest` bytes if those are some thousands. If strings and lists had to be cut, it has
/// `execwatch.shortened`.
pub fn line(record: &Record, id: Option<RecordId>, host: &Host, longest: usize) -> String {
    let line = ecs::line(record, id, host);
    let whole = |record: Record| ecs::line(&record, id, host);
    let line = match record {
        Record::Alert(alert) => alert_line(line, alert.clone(), longest, whole),
        Record::FollowUp(record) => {
            say_less(line, record.clone(), |it| it.shorten(), |it| whole(Record::FollowUp(it)), longest)
        }
        Record::Folded(record) => {
            say_less(line, record.clone(), |it| it.shorten(), |it| whole(Record::Folded(it)), longest)
        }
        Record::Notice(_) => line,
    };
    if line.len() <= longest { line } else { fitted(&line, longest) }
}

/// Cuts strings, ancestors and lists of a line of JSON until it is short enough.
pub fn fitted(line: &str, longest: usize) -> String {
    // What was written as JSON can be read.
    let mut whole: Value = serde_json::from_slice(line.as_bytes()).unwrap_or_default();
    for (at, (string, list)) in LIMITS.into_iter().enumerate() {
        let mut value = whole.clone();
        limit_to(&mut value, string, list);
        for pointer in KEPT {
            if let (Some(place), Some(kept)) = (value.pointer_mut(pointer), whole.pointer(pointer)) {
                place.clone_from(kept);
            }
        }
        mark(&mut value);
        let before = ancestors(&mut whole).map_or(0, |ancestors| ancestors.len());
        let mut line = escape::json_line(&value);
        if line.len() > longest {
            let least = if at + 1 < LIMITS.len() { NEAREST } else { 0 };
            drop_farthest(&mut value, line.len() - longest, least);
        }
        if let Some(kept) = ancestors(&mut value).map(|ancestors| ancestors.len())
            && kept < before
        {
            // These are not all any more.
            for value in [&mut whole, &mut value] {
                ancestors(value).into_iter().for_each(|ancestors| ancestors.truncate(kept));
                if let Some(complete) = value.pointer_mut("/execwatch/ancestors_complete") {
                    *complete = false.into();
                }
            }
            line = escape::json_line(&value);
        }
        if line.len() <= longest {
            return line;
        }
    }
    escape::json_line(&last_form(&whole))
}

/// Cuts all strings and lists below.
fn limit_to(value: &mut Value, string: usize, list: usize) {
    match value {
        Value::String(text) => limit_string(text, string),
        Value::Array(values) => {
            values.truncate(list);
            values.iter_mut().for_each(|value| limit_to(value, string, list));
        }
        Value::Object(fields) => fields.values_mut().for_each(|value| limit_to(value, string, list)),
        _ => {}
    }
}

/// Cuts a string that takes more bytes in JSON.
fn limit_string(text: &mut String, limit: usize) {
    let mut kept = limit;
    let mut short = cut(text, kept);
    while kept > SHORTEST && bytes_in_json(&short) > limit {
        kept /= 2;
        short = cut(text, kept);
    }
    if short.len() < text.len() {
        *text = short.into_owned();
    }
}

/// Bytes that a string takes in JSON without its quotation marks, or a few more.
fn bytes_in_json(text: &str) -> usize {
    let bytes = |character: char| match character {
        '"' | '\\' => 2,
        character if escape::is_unprintable(character) => 6 * character.len_utf16(),
        character => character.len_utf8(),
    };
    text.chars().map(bytes).sum()
}

/// The list of the ancestors, the parent first.
fn ancestors(value: &mut Value) -> Option<&mut Vec<Value>> {
    value.pointer_mut("/execwatch/ancestors").and_then(Value::as_array_mut)
}

/// Drops ancestors until the line is so many bytes shorter, the farthest first, and keeps at least so many.
fn drop_farthest(value: &mut Value, excess: usize, least: usize) {
    let Some(ancestors) = ancestors(value) else { return };
    let mut saved = 0;
    while saved < excess
        && ancestors.len() > least
        && let Some(farthest) = ancestors.pop()
    {
        // The comma before it is not there if it was the only one.
        saved += escape::json_line(&farthest).len() + usize::from(!ancestors.is_empty());
    }
}

fn mark(value: &mut Value) {
    if let Some(own) = value.get_mut("execwatch").and_then(Value::as_object_mut) {
        own.insert("shortened".to_owned(), true.into());
    }
}

/// What a record is found by, and nothing else.
fn last_form(whole: &Value) -> Value {
    let mut last = json!({ "execwatch": {} });
    for pointer in KEPT.iter().chain(&ESSENTIAL) {
        let Some(mut value) = whole.pointer(pointer).cloned() else { continue };
        // A list is not among them.
        limit_to(&mut value, LONGEST_ESSENTIAL, 1);
        let Some(fields) = last.as_object_mut() else { continue };
        let names: Vec<&str> = pointer.split('/').skip(1).collect();
        match names[..] {
            [name] => drop(fields.insert(name.to_owned(), value)),
            [part, name] => {
                let part = fields.entry(part).or_insert_with(|| Map::new().into());
                part.as_object_mut().map(|part| part.insert(name.to_owned(), value));
            }
            _ => {}
        }
    }
    mark(&mut last);
    last
}

/// Lets a record say less until its line is short enough.
fn say_less<R: Clone>(
    mut line: String,
    mut record: R,
    shorten: fn(&mut R) -> bool,
    write: impl Fn(R) -> String,
    longest: usize,
) -> String {
    while line.len() > longest && shorten(&mut record) {
        line = write(record.clone());
    }
    line
}

/// First the arguments of ancestors are cut, then the program's own.
fn alert_line(
    mut line: String,
    mut alert: Box<Alert>,
    longest: usize,
    whole: impl Fn(Record) -> String,
) -> String {
    /// Ancestors keep at least this many bytes of arguments.
    const SHORTEST: usize = 32;
    let mut of_ancestors = ARGUMENTS;
    while line.len() > longest {
        if of_ancestors > SHORTEST {
            of_ancestors /= 2;
            alert.origin.cut_arguments(of_ancestors);
        } else {
            let kept = alert.exec.image.raw_arguments().map_or(0, <[u8]>::len) / 2;
            let parent = alert.exec.details.parent.raw_arguments().map_or(0, <[u8]>::len) / 2;
            if kept + parent == 0 {
                break;
            }
            alert.exec.image.cut_arguments(kept);
            alert.exec.details.parent.cut_arguments(parent);
        }
        line = whole(Record::Alert(alert.clone()));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::escape::is_unprintable;
    use crate::alert::origin::{Ancestor, Origin};
    use crate::alert::{Matched, Notice};
    use crate::process::exec::{Exec, Image};
    use crate::rules::model::Severity;
    use proptest::prelude::*;

    const ID: RecordId = RecordId { run: 7, number: 8 };

    fn alert(exe: &[u8], argv: &[&[u8]], ancestors: usize) -> Box<Alert> {
        let image = Image::new(Some(exe), Some(argv));
        let mut exec = Exec { pid: 4242, image: image.clone(), ..Exec::default() };
        exec.details.parent = image.clone();
        exec.details.set_cwd(exe);
        exec.details.set_comm(exe);
        let ancestor = |pid| Ancestor {
            pid,
            image: image.clone(),
            start_ns: Some(1_767_225_600_000_000_000),
            ..Ancestor::default()
        };
        let origin = Origin {
            complete: true,
            ancestors: (1..).map(ancestor).take(ancestors).collect(),
            earlier: vec![image.clone(); 8],
            ..Origin::default()
        };
        Box::new(Alert {
            id: "1886c0e686a4cd15-1092".to_owned(),
            time_ns: 1_767_225_600_000_000_000,
            rule: Matched { id: "netcat-shell".to_owned(), title: "t".to_owned(), severity: Severity::High },
            rules: vec!["netcat-shell".to_owned()],
            attack: Vec::new(),
            utility: None,
            sha256: None,
            file_names: [None, None],
            exec,
            origin,
            start_ns: Some(1_767_225_600_000_000_000),
            users: [None, None, None],
            namespaces: Vec::new(),
            baseline: None,
            incident: None,
        })
    }

    /// What must be there however much was cut.
    fn read(line: &str) -> Value {
        let value: Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(value["event"]["id"], "1886c0e686a4cd15-1092");
        assert_eq!(value["rule"]["id"], "netcat-shell");
        assert_eq!(value["execwatch"]["record"], ID.to_string());
        assert_eq!(value["execwatch"]["severity"], "high");
        assert_eq!(value["process"]["pid"], 4242);
        assert_eq!(value["@timestamp"], "2026-01-01T00:00:00.000000Z");
        value
    }

    #[test]
    fn what_is_cut_first() {
        let line = |exe: &[u8], longest| {
            line(&Record::Alert(alert(exe, &[b"nc"], 32)), Some(ID), &Host::default(), longest)
        };
        // Nothing, as long as it fits.
        let short = read(&line(b"/usr/bin/nc", 100_000));
        assert_eq!(short["execwatch"]["shortened"], Value::Null);
        let path = [b"/usr/bin/".to_vec(), vec![b'x'; 150]].concat();
        let value = read(&line(&path, LONGEST));
        let ancestors = value["execwatch"]["ancestors"].as_array().expect("the nearest are kept");
        assert!((1..32).contains(&ancestors.len()) && ancestors[0]["pid"] == 1, "{ancestors:?}");
        assert_eq!(value["process"]["executable"], String::from_utf8(path).expect("ASCII"));
        assert_eq!(value["execwatch"]["shortened"], true);
        assert_eq!(value["execwatch"]["ancestors_complete"], false);
        // Six bytes for each: what is longest is cut, and the nearest ancestors stay.
        let value = read(&line(&[1; 4000], LONGEST));
        let ancestors = value["execwatch"]["ancestors"].as_array().expect("the nearest are kept");
        assert!(ancestors.len() >= NEAREST, "{}", ancestors.len());
        assert!(value["process"]["executable"].as_str().is_some_and(|exe| exe.ends_with(" bytes]")));
    }

    #[test]
    fn the_last_form_is_short_whatever_it_is_made_of() {
        let mut whole = json!({});
        for pointer in KEPT.iter().chain(&ESSENTIAL) {
            let names: Vec<&str> = pointer.split('/').skip(1).collect();
            let text = "\u{1}".repeat(4096);
            match names[..] {
                [name] => whole[name] = text.into(),
                [part, name] => whole[part][name] = text.into(),
                _ => panic!("{pointer}"),
            }
        }
        let line = escape::json_line(&last_form(&whole));
        assert!(line.len() < 3000, "{}", line.len());
        for pointer in KEPT.iter().chain(&ESSENTIAL) {
            assert!(last_form(&whole).pointer(pointer).is_some(), "{pointer}");
        }
        // Too much of everything, in a place where no limit helps.
        let many: Map<String, Value> = (0..2000).map(|number| (number.to_string(), 1.into())).collect();
        let line =
            fitted(&json!({ "process": { "pid": 1 }, "many": many, "execwatch": {} }).to_string(), LONGEST);
        assert_eq!(line, r#"{"execwatch":{"shortened":true},"process":{"pid":1}}"#);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn never_too_long(
            byte in prop_oneof![Just(1u8), Just(0xffu8), Just(b'"'), any::<u8>()],
            pattern in proptest::collection::vec(any::<u8>(), 0..20),
            length in 0usize..4096,
            ancestors in 0usize..=32,
            longest in 4000usize..LONGEST,
        ) {
            let path: Vec<u8> = pattern.iter().copied().chain(std::iter::repeat(byte)).take(length).collect();
            let record = Record::Alert(alert(&path, &[&path, &path], ancestors));
            let line = line(&record, Some(ID), &Host::default(), longest);
            prop_assert!(line.len() <= longest, "{} of {}", line.len(), longest);
            prop_assert!(!line.contains(is_unprintable));
            let value = read(&line);
            let (kept, own) = (value["execwatch"]["ancestors"].as_array().map_or(0, Vec::len), &value["execwatch"]);
            prop_assert!(kept == ancestors || own["ancestors_complete"] != true, "{} of {}", kept, ancestors);
            // Whatever is cut, times and addresses are what they were.
            for time in ["/process/start", "/process/parent/start", "/execwatch/ancestors/0/start"] {
                let time = value.pointer(time).and_then(Value::as_str);
                prop_assert!(time.is_none_or(|time| time == "2026-01-01T00:00:00.000000Z"), "{:?}", time);
            }
        }

        #[test]
        fn a_notice_is_never_too_long(character in any::<char>(), length in 0usize..40_000) {
            let message = character.to_string().repeat(length);
            let notice = Notice { kind: "test", severity: Severity::High, time_ns: 1, message };
            let line = line(&Record::Notice(notice), Some(ID), &Host::default(), LONGEST);
            prop_assert!(line.len() <= LONGEST);
            let value: Value = serde_json::from_str(&line).expect("JSON");
            prop_assert_eq!(&value["execwatch"]["notice"], "test");
        }
    }
}
