//! `[output]`: where alerts go.

use std::path::PathBuf;

use super::{absolute_path, set};
use crate::document::Section;
use crate::rules::model::{SEVERITIES, Severity};

/// How a record is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One line of `key=value`.
    Text,
    /// One line of JSON.
    Json,
}

/// `[output]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// `[output.syslog]`; `None` if switched off.
    pub syslog: Option<Syslog>,
    /// `[output.file]`; `None` if switched off.
    pub file: Option<File>,
    /// `[output.stdout]`
    pub stdout: Stdout,
}

/// `[output.syslog]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Syslog {
    /// Path of the local syslog socket.
    pub socket: PathBuf,
    /// Facility number (RFC 5424 table 1).
    pub facility: u8,
    /// The program's name in the log.
    pub tag: String,
    /// How a record is written.
    pub format: Format,
    /// Syslog severity for each of ours, in their order (RFC 5424 table 2).
    pub severities: [u8; 5],
}

/// `[output.file]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// The file.
    pub path: PathBuf,
    /// How a record is written.
    pub format: Format,
}

/// `[output.stdout]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stdout {
    /// `None`: if it is a terminal.
    pub enabled: Option<bool>,
    /// `None`: for people on a terminal, text elsewhere.
    pub format: Option<Format>,
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

const FORMATS: [(&str, Format); 2] = [("text", Format::Text), ("json", Format::Json)];

impl Default for Output {
    fn default() -> Self {
        Output { syslog: Some(Syslog::default()), file: None, stdout: Stdout { enabled: None, format: None } }
    }
}

impl Default for Syslog {
    fn default() -> Self {
        Syslog {
            socket: PathBuf::from("/dev/log"),
            facility: 10,
            tag: "execwatch".to_owned(),
            format: Format::Text,
            severities: [6, 5, 4, 3, 2],
        }
    }
}

impl Output {
    pub(super) fn read(&mut self, section: Section<'_>) {
        if let Some(part) = section.section("syslog", "[output.syslog]") {
            self.syslog = self.syslog.take().and_then(|syslog| syslog.read(part));
        }
        if let Some(part) = section.section("file", "[output.file]") {
            self.file = File::read(part);
        }
        if let Some(part) = section.section("stdout", "[output.stdout]") {
            self.stdout.enabled = part.flag("enabled").map(|flag| flag.value);
            self.stdout.format = part.choice("format", &FORMATS).map(|choice| choice.value);
            part.finish();
        }
        section.finish();
    }
}

impl Syslog {
    fn read(mut self, section: Section<'_>) -> Option<Self> {
        let enabled = section.flag("enabled").is_none_or(|flag| flag.value);
        set(&mut self.socket, absolute_path(&section, "socket"));
        set(&mut self.facility, section.choice("facility", &FACILITIES).map(|choice| choice.value));
        set(&mut self.format, section.choice("format", &FORMATS).map(|choice| choice.value));
        if let Some(tag) = section.string("tag") {
            let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
            // RFC 3164 5.3: 32 characters at most; what follows the tag must not look like a part of it.
            if tag.value.is_empty() || tag.value.len() > 32 || !tag.value.bytes().all(good) {
                section.error(tag.span, "`tag` holds 1 to 32 letters, digits, `-`, `_` and `.`");
            } else {
                self.tag = tag.value.to_owned();
            }
        }
        if let Some(table) = section.section("severity", "[output.syslog.severity]") {
            for (word, severity) in SEVERITIES {
                set(
                    &mut self.severities[severity as usize],
                    table.choice(word, &SYSLOG_SEVERITIES).map(|choice| choice.value),
                );
            }
            table.finish();
        }
        section.finish();
        enabled.then_some(self)
    }

    /// The PRI of a record (RFC 5424 6.2.1).
    pub fn priority(&self, severity: Severity) -> u8 {
        self.facility * 8 + self.severities[severity as usize]
    }
}

impl File {
    fn read(section: Section<'_>) -> Option<Self> {
        let enabled = section.flag("enabled").is_none_or(|flag| flag.value);
        let path = absolute_path(&section, "path");
        let format = section.choice("format", &FORMATS).map_or(Format::Json, |choice| choice.value);
        if enabled && section.string("path").is_none() {
            section.required_string("path");
        }
        section.finish();
        path.filter(|_| enabled).map(|path| File { path, format })
    }
}
