//! `[output.syslog]`, `[output.journald]`, and what they and `[[output.remote]]` have in common.

use std::path::PathBuf;

use super::output::{FORMATS, Format};
use super::{absolute_path, set};
use crate::document::Section;
use crate::rules::model::{SEVERITIES, Severity};

/// How a syslog message begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// RFC 3164: priority, time, host, tag.
    Rfc3164,
    /// RFC 5424: besides, structured data.
    Rfc5424,
}

/// Facility and severities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Priorities {
    /// Facility number (RFC 5424 table 1).
    pub facility: u8,
    /// Syslog severity for each of ours, in their order (RFC 5424 table 2).
    pub severities: [u8; 5],
}

/// What stands at the head of syslog messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// How they begin.
    pub protocol: Protocol,
    /// Facility and severities.
    pub priorities: Priorities,
    /// The program's name in the log.
    pub tag: String,
    /// The SD-ID of the structured data (RFC 5424 6.3.2).
    pub sd_id: String,
}

/// `[output.syslog]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Syslog {
    /// Path of the local syslog socket.
    pub socket: PathBuf,
    /// The head of messages.
    pub header: Header,
    /// How a record is written.
    pub format: Format,
}

/// `[output.journald]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Journald {
    /// Path of journald's socket.
    pub socket: PathBuf,
    /// Facility and severities.
    pub priorities: Priorities,
    /// The program's name in the journal.
    pub tag: String,
    /// How MESSAGE is written.
    pub format: Format,
}

const FACILITIES: [(&str, u8); 20] = [
    ("kern", 0),
    ("user", 1),
    ("mail", 2),
    ("daemon", 3),
    ("auth", 4),
    ("syslog", 5),
    ("lpr", 6),
    ("news", 7),
    ("uucp", 8),
    ("cron", 9),
    ("authpriv", 10),
    ("ftp", 11),
    ("local0", 16),
    ("local1", 17),
    ("local2", 18),
    ("local3", 19),
    ("local4", 20),
    ("local5", 21),
    ("local6", 22),
    ("local7", 23),
];

const SYSLOG_SEVERITIES: [(&str, u8); 8] = [
    ("emerg", 0),
    ("alert", 1),
    ("crit", 2),
    ("err", 3),
    ("warning", 4),
    ("notice", 5),
    ("info", 6),
    ("debug", 7),
];

const PROTOCOLS: [(&str, Protocol); 2] = [("rfc3164", Protocol::Rfc3164), ("rfc5424", Protocol::Rfc5424)];

const TAG: &str = "execwatch";
/// 32473 is the enterprise number for documentation (RFC 5612): execwatch has none of its own.
const SD_ID: &str = "execwatch@32473";

impl Default for Priorities {
    fn default() -> Self {
        Priorities { facility: 10, severities: [6, 5, 4, 3, 2] }
    }
}

impl Priorities {
    fn read<'d>(&mut self, section: &Section<'d>, severity_table: &'d str) {
        set(&mut self.facility, section.choice("facility", &FACILITIES).map(|choice| choice.value));
        let Some(table) = section.section("severity", severity_table) else { return };
        for (word, severity) in SEVERITIES {
            set(
                &mut self.severities[severity as usize],
                table.choice(word, &SYSLOG_SEVERITIES).map(|choice| choice.value),
            );
        }
        table.finish();
    }

    /// The syslog severity of a record.
    pub fn severity(&self, severity: Severity) -> u8 {
        self.severities[severity as usize]
    }

    /// The PRI of a record (RFC 5424 6.2.1).
    pub fn priority(&self, severity: Severity) -> u8 {
        self.facility * 8 + self.severity(severity)
    }
}

impl Header {
    /// The defaults with this protocol.
    pub fn new(protocol: Protocol) -> Self {
        Header { protocol, priorities: Priorities::default(), tag: TAG.to_owned(), sd_id: SD_ID.to_owned() }
    }

    pub(super) fn read<'d>(&mut self, section: &Section<'d>, severity_table: &'d str) {
        set(&mut self.protocol, section.choice("protocol", &PROTOCOLS).map(|choice| choice.value));
        self.priorities.read(section, severity_table);
        set(&mut self.tag, tag(section, "tag"));
        if let Some(id) = section.string("sd-id") {
            if is_sd_id(id.value) {
                self.sd_id = id.value.to_owned();
            } else {
                let message = "`sd-id` is a name, `@` and an enterprise number, such as \"execwatch@32473\", \
                               in at most 32 characters (RFC 5424, 6.3.2)";
                section.error(id.span, message);
            }
        }
    }
}

/// A name of letters, digits and a few marks, as it can stand before `[pid]:` in any syslog message.
pub(super) fn tag<'d>(section: &Section<'d>, key: &'d str) -> Option<String> {
    let tag = section.string(key)?;
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    // RFC 3164 5.3: 32 characters at most; what follows the tag must not look like a part of it.
    if tag.value.is_empty() || tag.value.len() > 32 || !tag.value.bytes().all(good) {
        section.error(tag.span, format!("`{key}` holds 1 to 32 letters, digits, `-`, `_` and `.`"));
        return None;
    }
    Some(tag.value.to_owned())
}

fn is_sd_id(text: &str) -> bool {
    let Some((name, number)) = text.split_once('@') else { return false };
    let in_name = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'=' | b']' | b'"' | b'@');
    // Private numbers may be followed by numbers that their owner gave out.
    let in_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    text.len() <= 32 && !name.is_empty() && name.bytes().all(in_name) && number.split('.').all(in_number)
}

impl Default for Syslog {
    fn default() -> Self {
        Syslog {
            socket: PathBuf::from("/dev/log"),
            header: Header::new(Protocol::Rfc3164),
            format: Format::Text,
        }
    }
}

impl Syslog {
    pub(super) fn read(mut self, section: Section<'_>) -> Option<Self> {
        let enabled = section.flag("enabled").is_none_or(|flag| flag.value);
        set(&mut self.socket, absolute_path(&section, "socket"));
        self.header.read(&section, "[output.syslog.severity]");
        set(&mut self.format, section.choice("format", &FORMATS).map(|choice| choice.value));
        section.finish();
        enabled.then_some(self)
    }
}

impl Default for Journald {
    fn default() -> Self {
        Journald {
            socket: PathBuf::from("/run/systemd/journal/socket"),
            priorities: Priorities::default(),
            tag: TAG.to_owned(),
            format: Format::Text,
        }
    }
}

impl Journald {
    pub(super) fn read(mut self, section: Section<'_>) -> Option<Self> {
        let enabled = section.flag("enabled").is_none_or(|flag| flag.value);
        set(&mut self.socket, absolute_path(&section, "socket"));
        self.priorities.read(&section, "[output.journald.severity]");
        set(&mut self.tag, tag(&section, "tag"));
        set(&mut self.format, section.choice("format", &FORMATS).map(|choice| choice.value));
        section.finish();
        enabled.then_some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::is_sd_id;

    #[test]
    fn ids_of_structured_data() {
        for good in ["execwatch@32473", "a@1.2.3", "x.y-z@0"] {
            assert!(is_sd_id(good), "{good}");
        }
        let long = format!("{}@32473", "x".repeat(30));
        for wrong in
            ["", "execwatch", "@1", "a@", "a b@1", "a]@1", "a=@1", "a\"@1", "a@x", "a@1@2", "\u{e9}@1", &long]
        {
            assert!(!is_sd_id(wrong), "{wrong}");
        }
    }
}
