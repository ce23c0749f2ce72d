//! Syslog messages: a record with the head that the configured protocol wants.

use std::borrow::Cow;

use super::entry::{Entry, Form};
use super::{rfc5424, short_json};
use crate::alert::escape::cut;
use crate::calendar::Date;
use crate::config::{Format, Header, Protocol};
use crate::sys;

/// The sequence number after which they begin anew (RFC 5424 7.3.1).
const LAST: u32 = i32::MAX as u32;

/// Where messages go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A socket of this host. In RFC 3164 time and host are left out there: the server adds its own, and those that are
    /// not expected are taken for text.
    Local,
    /// The network.
    Network,
}

/// Writes the messages of one output.
#[derive(Debug)]
pub struct Messages {
    header: Header,
    format: Format,
    place: Place,
    host: String,
    /// The number of the last message.
    sequence: u32,
}

/// What every receiver of datagrams must take (RFC 5426 3.2).
pub const SMALLEST: usize = 480;

/// A message that the host refused to send in a datagram (EMSGSIZE), so short that it is taken: it would be refused whenever
/// it is tried, and nothing behind it would be sent. A mark at its end says how much is missing.
pub fn smallest(message: &[u8]) -> Vec<u8> {
    cut(&String::from_utf8_lossy(message), SMALLEST).into_owned().into_bytes()
}

impl Messages {
    /// For records in `format` from the host of this name.
    pub fn new(header: Header, format: Format, place: Place, host: &str) -> Self {
        Messages { header, format, place, host: host.to_owned(), sequence: 0 }
    }

    /// The form in which records are wanted.
    pub fn form(&self) -> Form {
        match self.header.protocol {
            Protocol::Rfc3164 => Form::in_syslog(self.format),
            Protocol::Rfc5424 => Form::Structured(self.format),
        }
    }

    /// The message of a record. It has the same number again until [`sent`](Self::sent) is called.
    pub fn write(&self, entry: &Entry) -> String {
        let Header { protocol, priorities, tag, sd_id } = &self.header;
        let (priority, pid) = (priorities.priority(entry.severity), std::process::id());
        match (protocol, self.place) {
            (Protocol::Rfc3164, Place::Local) => {
                format!("<{priority}>{tag}[{pid}]: {}", self.text(entry))
            }
            (Protocol::Rfc3164, Place::Network) => {
                let seconds = entry.time_ns / 1_000_000_000;
                let time = rfc3164_time(seconds, sys::time::offset(seconds));
                let host: String = self.host.chars().filter(char::is_ascii_graphic).collect();
                let host = if host.is_empty() { "-" } else { &host };
                format!("<{priority}>{time} {host} {tag}[{pid}]: {}", self.text(entry))
            }
            (Protocol::Rfc5424, _) => {
                let head = rfc5424::Head {
                    priority,
                    time_ns: entry.time_ns,
                    host: &self.host,
                    tag,
                    pid,
                    kind: entry.kind.as_str(),
                    sequence: self.sequence % LAST + 1,
                };
                match entry.written_in(self.form()) {
                    Some(rest) => format!("{}[{sd_id}{rest}", head.write()),
                    // Written before the configuration was changed: there are no parameters.
                    None => format!("{} {}", head.write(), self.text(entry)),
                }
            }
        }
    }

    /// The record's line, of at most [`short_json::LONGEST`] bytes.
    fn text<'a>(&self, entry: &'a Entry) -> Cow<'a, str> {
        // Structured data is no text that can stand alone.
        let text = entry.form(Form::in_syslog(self.format));
        // Written before the configuration was changed, in a form that needs no end.
        if text.len() > short_json::LONGEST && entry.written_in(Form::Json) == Some(text) {
            return short_json::fitted(text, short_json::LONGEST).into();
        }
        cut(text, short_json::LONGEST)
    }

    /// The last message was sent.
    pub fn sent(&mut self) {
        self.sequence = self.sequence % LAST + 1;
    }
}

/// `Jan  2 03:04:05` (RFC 3164 4.1.2) in a zone so many seconds ahead of UTC.
fn rfc3164_time(seconds: u64, offset: i32) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let seconds = seconds.saturating_add_signed(offset.into());
    let date = Date::of_unix_time(seconds);
    let month = MONTHS.get(usize::from(date.month).wrapping_sub(1)).unwrap_or(&"Jan");
    format!("{month} {:2} {:02}:{:02}:{:02}", date.day, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::{Host, Notice, Record, RecordId};
    use crate::rules::model::Severity;

    fn entry(forms: &[Form]) -> Entry {
        let notice = Notice {
            kind: "test",
            severity: Severity::High,
            time_ns: 1_767_225_600_000_000_000,
            message: "m".into(),
        };
        Entry::new(&Record::Notice(notice), RecordId { run: 1, number: 2 }, forms, &Host::default())
    }

    #[test]
    fn heads() {
        let messages = |protocol, place| Messages::new(Header::new(protocol), Format::Text, place, "web1");
        let pid = std::process::id();
        let text =
            "severity=high notice=test message=m time=2026-01-01T00:00:00.000000Z record=0000000000000001-2";
        let local = messages(Protocol::Rfc3164, Place::Local);
        assert_eq!(local.write(&entry(&[local.form()])), format!("<83>execwatch[{pid}]: {text}"));
        let network = messages(Protocol::Rfc3164, Place::Network);
        let message = network.write(&entry(&[network.form()]));
        assert!(message.ends_with(&format!(" web1 execwatch[{pid}]: {text}")), "{message}");
        let mut structured = messages(Protocol::Rfc5424, Place::Network);
        let entry_of_it = entry(&[structured.form()]);
        let message = structured.write(&entry_of_it);
        let end = format!(
            "\"][execwatch@32473 severity=\"high\" notice=\"test\" record=\"0000000000000001-2\"] {text}"
        );
        assert!(message.starts_with("<83>1 2026-01-01T") && message.ends_with(&end), "{message}");
        assert!(message.contains("sequenceId=\"1\""), "{message}");
        assert_eq!(structured.write(&entry_of_it), message);
        structured.sent();
        assert!(structured.write(&entry_of_it).contains("sequenceId=\"2\""));
        structured.sequence = LAST;
        assert!(structured.write(&entry_of_it).contains("sequenceId=\"1\""));
        // An entry of another configuration.
        let message = structured.write(&entry(&[Form::Fields(Format::Text), Form::Text]));
        assert!(message.ends_with(&format!("\"] {text}")), "{message}");
    }

    /// A record that was written for a file, before the configuration was changed.
    #[test]
    fn json_for_a_file_is_cut_to_json() {
        let notice = Notice {
            kind: "test",
            severity: Severity::High,
            time_ns: 1_767_225_600_000_000_000,
            message: "\u{1}".repeat(100_000),
        };
        let id = RecordId { run: 1, number: 2 };
        let entry = Entry::new(&Record::Notice(notice), id, &[Form::Json], &Host::default());
        for (protocol, format) in [Protocol::Rfc3164, Protocol::Rfc5424]
            .into_iter()
            .flat_map(|protocol| [Format::Json, Format::Text].map(|format| (protocol, format)))
        {
            let messages = Messages::new(Header::new(protocol), format, Place::Local, "web1");
            let message = messages.write(&entry);
            let (head, json) = message.split_at(message.find('{').unwrap());
            assert!(head.len() < rfc5424::ROOM && json.len() <= short_json::LONGEST, "{}", message.len());
            let json: serde_json::Value = serde_json::from_str(json).unwrap();
            assert_eq!(json["execwatch"]["record"], "0000000000000001-2");
        }
    }

    #[test]
    fn times() {
        assert_eq!(rfc3164_time(1_767_323_045, 0), "Jan  2 03:04:05");
        assert_eq!(rfc3164_time(1_767_323_045, 3600), "Jan  2 04:04:05");
        assert_eq!(rfc3164_time(1_767_225_600, -1), "Dec 31 23:59:59");
    }
}
