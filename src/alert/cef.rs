//! The Common Event Format (ArcSight, version 0): one line, `CEF:0|vendor|product|version|rule|title|severity|extension`.
//!
//! The extension's keys are those of the format's dictionary: `s` is the parent and the user who acted, `d` the program and
//! the user with whose rights it runs. What the dictionary has no key for stands in its custom strings, with labels.

use std::net::SocketAddr;

use super::escape::{cut, printable};
use super::{Host, Record, RecordId, text};
use crate::process::exec::base_name;
use crate::rules::model::Severity;

/// Values are not cut below this.
const SHORTEST: usize = 32;
/// The dictionary's longest value of a custom string; of a name or path it is [`NAME`]. It counts characters, we bytes.
const CUSTOM: usize = 4000;
const NAME: usize = 1023;
const NS_PER_MS: u64 = 1_000_000;

/// A key that takes its value from the text form's facts.
struct Key {
    key: &'static str,
    /// What a custom string means; empty for keys that say so themselves.
    label: &'static str,
    /// The facts that have the value, the best first.
    facts: &'static [&'static str],
    longest: usize,
}

const fn key(key: &'static str, facts: &'static [&'static str], longest: usize) -> Key {
    Key { key, label: "", facts, longest }
}

const fn custom(
    key: &'static str,
    label: &'static str,
    facts: &'static [&'static str],
    longest: usize,
) -> Key {
    Key { key, label, facts, longest }
}

const KEYS: [Key; 24] = [
    key("externalId", &["record"], 40),
    key("msg", &["message"], NAME),
    key("act", &["response"], 63),
    key("outcome", &["outcome", "followup", "folded"], 63),
    key("cnt", &["count"], 20),
    key("dproc", &["exe"], NAME),
    key("dpid", &["pid"], 20),
    key("duser", &["euser", "user"], NAME),
    key("duid", &["euid", "uid"], NAME),
    key("sproc", &["parent"], NAME),
    key("spid", &["ppid"], 20),
    key("suser", &["user"], NAME),
    key("suid", &["uid"], NAME),
    key("filePath", &["exe"], NAME),
    key("fileHash", &["sha256"], 255),
    key("reason", &["notice"], NAME),
    custom("cs1", "commandLine", &["cmdline"], CUSTOM),
    custom("cs2", "lineage", &["lineage", "parent-cmdline"], CUSTOM),
    custom("cs3", "utility", &["utility"], CUSTOM),
    custom("cs4", "attack", &["attack"], CUSTOM),
    custom("cs5", "place", &["container", "unit", "cgroup"], CUSTOM),
    custom("cs6", "login", &["login", "loginuid"], CUSTOM),
    custom("flexString1", "baseline", &["baseline"], NAME),
    custom("flexString2", "alertId", &["alert", "id"], NAME),
];

/// A key of the extension with its value, printable but not escaped.
struct Field {
    key: &'static str,
    label: &'static str,
    value: String,
    longest: usize,
}

/// The line, without a newline: of at most `longest` bytes, as long as those are some thousands.
pub fn line(record: &Record, id: Option<RecordId>, host: &Host, longest: usize) -> String {
    let head = head(record);
    let fields = extension(record, id, host);
    let mut limit = CUSTOM;
    loop {
        let line = write(&head, &fields, limit);
        if line.len() <= longest || limit == SHORTEST {
            return line;
        }
        limit = (limit / 2).max(SHORTEST);
    }
}

/// The seven parts before the extension.
fn head(record: &Record) -> String {
    let (id, title) = match record {
        Record::Alert(alert) => (alert.rule.id.as_str(), alert.rule.title.as_str()),
        Record::FollowUp(record) => (record.alerted.rule.id.as_str(), record.alerted.rule.title.as_str()),
        Record::Folded(record) => (record.rule.id.as_str(), record.rule.title.as_str()),
        Record::Notice(notice) => (notice.kind, "execwatch says of itself"),
    };
    // 0 to 3 is low, 4 to 6 medium, 7 and 8 high, 9 and 10 very high.
    let severity = match record.severity() {
        Severity::Info => 1,
        Severity::Low => 3,
        Severity::Medium => 5,
        Severity::High => 8,
        Severity::Critical => 10,
    };
    let part = |text: &str| printable(cut(text, NAME).as_bytes()).replace('\\', "\\\\").replace('|', "\\|");
    let (version, id, title) = (env!("CARGO_PKG_VERSION"), part(id), part(title));
    format!("CEF:0|execwatch|execwatch|{version}|{id}|{title}|{severity}|")
}

fn extension(record: &Record, id: Option<RecordId>, host: &Host) -> Vec<Field> {
    let facts = text::facts(record, id);
    let fact = |name: &str| facts.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_slice());
    let mut fields = Vec::new();
    let mut add = |key, label, value: &[u8], longest| {
        fields.push(Field { key, label, value: printable(value), longest });
    };
    let (time_ns, category) = match record {
        Record::Alert(alert) => (alert.time_ns, "execwatch.alert"),
        Record::FollowUp(record) => (record.time_ns, "execwatch.followup"),
        Record::Folded(record) => (record.last_ns, "execwatch.folded"),
        Record::Notice(notice) => (notice.time_ns, "execwatch.notice"),
    };
    add("rt", "", (time_ns / NS_PER_MS).to_string().as_bytes(), 20);
    add("cat", "", category.as_bytes(), NAME);
    add("dvchost", "", host.name.as_bytes(), 100);
    if !host.id.is_empty() {
        add("deviceExternalId", "", host.id.as_bytes(), 255);
    }
    for Key { key, label, facts, longest } in &KEYS {
        if let Some(value) = facts.iter().find_map(|name| fact(name)) {
            add(key, label, value, *longest);
        }
    }
    if let Some(exe) = fact("exe") {
        add("fname", "", base_name(exe), NAME);
    }
    let mut ends = [None, None];
    match record {
        Record::Alert(alert) => ends[0] = alert.origin.ssh_client,
        Record::FollowUp(record) => {
            if let Some(connection) = record.connection() {
                ends = [Some(connection.source), Some(connection.destination)];
                add("proto", "", connection.transport.to_uppercase().as_bytes(), 31);
                add("deviceDirection", "", if connection.inbound { b"0" } else { b"1" }, 1);
                for (key, bytes) in [("out", connection.bytes_out), ("in", connection.bytes_in)] {
                    if let Some(bytes) = bytes {
                        add(key, "", bytes.to_string().as_bytes(), 20);
                    }
                }
            }
        }
        Record::Folded(_) | Record::Notice(_) => {}
    }
    // An address of IPv6 has a key of its own.
    let keys =
        [("src", "spt", "c6a2", "Source IPv6 Address"), ("dst", "dpt", "c6a3", "Destination IPv6 Address")];
    for (end, (address, port, v6, label)) in ends.into_iter().zip(keys) {
        let Some(end) = end else { continue };
        match end {
            SocketAddr::V4(_) => add(address, "", end.ip().to_string().as_bytes(), 64),
            SocketAddr::V6(_) => add(v6, label, end.ip().to_string().as_bytes(), 64),
        }
        add(port, "", end.port().to_string().as_bytes(), 5);
    }
    fields
}

/// The line with values of at most `limit` bytes before they are escaped.
fn write(head: &str, fields: &[Field], limit: usize) -> String {
    let mut line = head.to_owned();
    for (at, field) in fields.iter().enumerate() {
        if at > 0 {
            line.push(' ');
        }
        if !field.label.is_empty() {
            line.push_str(field.key);
            line.push_str("Label=");
            line.push_str(field.label);
            line.push(' ');
        }
        line.push_str(field.key);
        line.push('=');
        let value = cut(&field.value, field.longest.min(limit));
        line.push_str(&value.replace('\\', "\\\\").replace('=', "\\="));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::Notice;
    use crate::alert::escape::{is_unprintable, of_json};
    use proptest::prelude::*;

    fn notice(kind: &'static str, message: &str) -> Record {
        Record::Notice(Notice {
            kind,
            severity: Severity::High,
            time_ns: 1_767_225_600_123_456_789,
            message: message.to_owned(),
        })
    }

    /// Reads a line as the specification says: the parts of the head, and the extension's pairs.
    fn read(line: &str) -> (Vec<String>, Vec<(String, String)>) {
        let (mut parts, mut part, mut characters) = (Vec::new(), String::new(), line.chars());
        while parts.len() < 7 {
            match characters.next().expect("seven parts") {
                '|' => parts.push(std::mem::take(&mut part)),
                '\\' => part.extend(characters.next()),
                other => part.push(other),
            }
        }
        // A key begins behind a space and ends at an equals sign that is not escaped.
        let (mut pairs, mut key, mut value) = (Vec::<(String, String)>::new(), String::new(), String::new());
        let (mut in_key, mut escaped) = (true, false);
        for character in characters.as_str().chars() {
            match character {
                '=' if in_key => in_key = false,
                other if in_key => key.push(other),
                other if escaped => {
                    value.push(other);
                    escaped = false;
                }
                '\\' => escaped = true,
                '=' => {
                    let (before, next) = value.rsplit_once(' ').expect("a key behind a space");
                    let next = next.to_owned();
                    pairs.push((std::mem::replace(&mut key, next), before.to_owned()));
                    value.clear();
                }
                other => value.push(other),
            }
        }
        pairs.push((key, value));
        (parts, pairs)
    }

    #[test]
    fn a_notice() {
        let host = Host { name: "web1".into(), id: "0a".into(), kernel: String::new() };
        assert_eq!(
            line(&notice("a|b\\c", "x=1 act=\\ |\n\x1b[2J"), None, &host, 8000),
            format!(
                "CEF:0|execwatch|execwatch|{}|a\\|b\\\\c|execwatch says of itself|8|rt=1767225600123 \
                 cat=execwatch.notice dvchost=web1 deviceExternalId=0a msg=x\\=1 act\\=\\\\ |\\\\x0a\\\\x1b[2J \
                 reason=a|b\\\\c",
                env!("CARGO_PKG_VERSION")
            )
        );
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_was_said(message in r"[ =|\\a\n\x1b\]\PC]{0,80}") {
            let line = line(&notice("loss", &message), None, &Host::default(), 8000);
            prop_assert!(!line.contains(is_unprintable));
            let (parts, pairs) = read(&line);
            prop_assert_eq!(&parts[..4], ["CEF:0", "execwatch", "execwatch", env!("CARGO_PKG_VERSION")]);
            let said = pairs.iter().find(|(key, _)| key == "msg").expect("a message");
            prop_assert_eq!(of_json(&said.1), message.into_bytes());
            prop_assert_eq!(pairs.len(), 5);
        }
    }
}
