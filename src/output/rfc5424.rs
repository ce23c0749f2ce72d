//! Syslog messages of RFC 5424: header, structured data, message.
//!
//! The structured data are two elements of the RFC and one of execwatch's own: `meta` with a sequence number, by whose gaps
//! a server sees what it missed, `origin` with the program's version, and the element of the configured SD-ID with what
//! most filters ask for. The message is UTF-8 without a byte order mark, which servers would keep before the JSON.

use crate::alert::escape::{cut, printable};
use crate::alert::{Record, RecordId, text};
use crate::calendar;

/// Bytes that header and structured data take at most, with the space behind them.
pub const ROOM: usize = 1200;
/// Bytes of all parameters together. With them, a header of an ordinary host's name and a line of text, a message has less
/// than the 2,048 bytes that every receiver should take (RFC 5424 6.1).
const PARAMETERS: usize = 700;
/// Values are not cut below this.
const SHORTEST: usize = 24;
/// The longest HOSTNAME (RFC 5424 6).
const LONGEST_HOST: usize = 255;

/// The facts that are parameters, by their keys in the text form.
const NAMES: [&str; 24] = [
    "record",
    "id",
    "rule",
    "severity",
    "utility",
    "category",
    "user",
    "uid",
    "euser",
    "login",
    "pid",
    "exe",
    "parent",
    "container",
    "unit",
    "attack",
    "baseline",
    "response",
    "outcome",
    "followup",
    "folded",
    "count",
    "alert",
    "notice",
];

/// The parameters of execwatch's element, each as ` name="value"`.
pub fn parameters(record: &Record, id: Option<RecordId>) -> String {
    let facts = text::facts(record, id);
    let named = facts.iter().filter(|(key, _)| NAMES.contains(key));
    let values: Vec<(&str, String)> = named.map(|(key, value)| (*key, printable(value))).collect();
    let mut limit = PARAMETERS;
    loop {
        let text: String =
            values.iter().map(|(key, value)| format!(" {key}=\"{}\"", escape(&cut(value, limit)))).collect();
        if text.len() <= PARAMETERS || limit == SHORTEST {
            return text;
        }
        limit = (limit / 2).max(SHORTEST);
    }
}

/// A value between quotation marks (RFC 5424 6.3.3).
fn escape(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len() + 8);
    for character in value.chars() {
        if matches!(character, '"' | '\\' | ']') {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

/// What stands before the structured data that [`parameters`] continues.
#[derive(Debug)]
pub struct Head<'a> {
    /// PRI.
    pub priority: u8,
    /// Nanoseconds since 1970.
    pub time_ns: u64,
    /// The host's name; what no HOSTNAME may hold is left out.
    pub host: &'a str,
    /// APP-NAME.
    pub tag: &'a str,
    /// PROCID.
    pub pid: u32,
    /// MSGID.
    pub kind: &'a str,
    /// The number of the message (RFC 5424 7.3.1), from 1.
    pub sequence: u32,
}

impl Head<'_> {
    /// Header and the two elements of the RFC.
    pub fn write(&self) -> String {
        let host: String = self.host.chars().filter(char::is_ascii_graphic).take(LONGEST_HOST).collect();
        format!(
            "<{}>1 {} {} {} {} {} [meta sequenceId=\"{}\"][origin software=\"execwatch\" swVersion=\"{}\"]",
            self.priority,
            calendar::rfc3339(self.time_ns),
            if host.is_empty() { "-" } else { &host },
            self.tag,
            self.pid,
            self.kind,
            self.sequence,
            env!("CARGO_PKG_VERSION"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::Notice;
    use crate::alert::escape::is_unprintable;
    use crate::rules::model::Severity;
    use proptest::prelude::*;

    #[test]
    fn a_head() {
        let head = Head {
            priority: 85,
            time_ns: 1_767_225_600_123_456_789,
            host: "web 1\n",
            tag: "execwatch",
            pid: 7,
            kind: "alert",
            sequence: 3,
        };
        assert_eq!(
            head.write(),
            format!(
                "<85>1 2026-01-01T00:00:00.123456Z web1 execwatch 7 alert [meta sequenceId=\"3\"]\
                 [origin software=\"execwatch\" swVersion=\"{}\"]",
                env!("CARGO_PKG_VERSION")
            )
        );
        let nameless = Head { host: " ", ..head }.write();
        assert!(nameless.contains("Z - execwatch"), "{nameless}");
    }

    #[test]
    fn the_longest_head_leaves_room() {
        let head = Head {
            priority: 191,
            time_ns: u64::MAX,
            host: &"h".repeat(300),
            tag: &"t".repeat(32),
            pid: u32::MAX,
            kind: "followup",
            sequence: u32::MAX,
        };
        let marks = "[] ".len();
        assert!(head.write().len() + 32 + PARAMETERS + marks <= ROOM, "{}", head.write().len());
    }

    proptest! {
        #[test]
        fn values_are_closed_where_they_end(value in r#"[\]"\\= \PC\x1b\n]{0,2000}"#) {
            let notice = Notice { kind: "loss", severity: Severity::Low, time_ns: 0, message: value.clone() };
            let text = parameters(&Record::Notice(notice), None);
            prop_assert_eq!(text, " severity=\"low\" notice=\"loss\"");
            let escaped = escape(&printable(value.as_bytes()));
            prop_assert!(!escaped.contains(is_unprintable));
            // As RFC 5424 6.3.3 says: a backslash before anything else is itself.
            let (mut read, mut rest) = (String::new(), escaped.chars());
            while let Some(character) = rest.next() {
                prop_assert!(!matches!(character, '"' | ']'));
                read.push(if character == '\\' { rest.next().expect("something escaped") } else { character });
            }
            prop_assert_eq!(read, printable(value.as_bytes()));
        }
    }
}
