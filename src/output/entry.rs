//! A record in the forms that outputs ask for.

use super::{journald, rfc5424, short_json};
use crate::alert::{Host, Record, cef, ecs, people, text};
use crate::config::Format;
use crate::rules::model::Severity;

/// By this the modules of rsyslog and syslog-ng know a message that is JSON (the CEE project's syslog transport).
pub const CEE_COOKIE: &str = "@cee: ";

/// How a record is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One line of `key=value`, under 1 KB.
    Text,
    /// One line of JSON, as long as it takes.
    Json,
    /// One line of JSON that fits a syslog message: see [`short_json::LONGEST`].
    ShortJson,
    /// One line of the Common Event Format that fits a syslog message.
    Cef,
    /// [`CEE_COOKIE`] and one line of JSON that fit a syslog message.
    Cee,
    /// Structured data and one of the lines above: see [`rfc5424::parameters`].
    Structured(Format),
    /// Pairs of key and value, among them one of the lines above: see [`journald::fields`].
    Fields(Format),
    /// Several lines for people at a terminal.
    People {
        /// With colours.
        colour: bool,
    },
}

impl From<Format> for Form {
    fn from(format: Format) -> Self {
        match format {
            Format::Text => Form::Text,
            Format::Json => Form::Json,
            Format::Cef => Form::Cef,
            Format::Cee => Form::Cee,
        }
    }
}

impl Form {
    /// The form for a syslog message, which has an end.
    pub fn in_syslog(format: Format) -> Self {
        match format {
            Format::Json => Form::ShortJson,
            other => other.into(),
        }
    }

    /// Writes a record, without the newline at its end.
    pub fn of(self, record: &Record, host: &Host) -> String {
        match self {
            Form::Text => text::line(record),
            Form::Json => ecs::line(record, host),
            Form::ShortJson => short(Format::Json, record, host, short_json::LONGEST),
            Form::Cef => short(Format::Cef, record, host, short_json::LONGEST),
            Form::Cee => short(Format::Cee, record, host, short_json::LONGEST),
            Form::Structured(format) => {
                let longest = short_json::LONGEST - rfc5424::ROOM;
                format!("{}] {}", rfc5424::parameters(record), short(format, record, host, longest))
            }
            Form::Fields(format) => {
                journald::fields(record, &short(format, record, host, short_json::LONGEST))
            }
            Form::People { colour } => {
                let mut lines = people::lines(record, colour);
                lines.truncate(lines.trim_end_matches('\n').len());
                lines
            }
        }
    }

    /// It is a line that can be read without anything before it.
    fn stands_alone(self) -> bool {
        !matches!(self, Form::Structured(_) | Form::Fields(_))
    }
}

/// A line of at most `longest` bytes.
fn short(format: Format, record: &Record, host: &Host, longest: usize) -> String {
    match format {
        // That is always shorter.
        Format::Text => text::line(record),
        Format::Json => short_json::line(record, host, longest),
        Format::Cef => cef::line(record, host, longest),
        Format::Cee => CEE_COOKIE.to_owned() + &short_json::line(record, host, longest - CEE_COOKIE.len()),
    }
}

/// What kind of record it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A program matched a rule.
    Alert,
    /// What a program did after its alert.
    FollowUp,
    /// Alerts that were not told by themselves.
    Folded,
    /// The daemon has something to say about itself.
    Notice,
}

impl Kind {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Alert => "alert",
            Kind::FollowUp => "followup",
            Kind::Folded => "folded",
            Kind::Notice => "notice",
        }
    }
}

/// A record as outputs are given it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// When it was made: nanoseconds since 1970.
    pub time_ns: u64,
    /// How serious it is.
    pub severity: Severity,
    /// What kind it is.
    pub kind: Kind,
    /// The forms it was written in.
    forms: Vec<(Form, String)>,
}

impl Entry {
    /// Writes a record in these forms.
    pub fn new(record: &Record, forms: &[Form], host: &Host) -> Self {
        let (time_ns, kind) = match record {
            Record::Alert(alert) => (alert.time_ns, Kind::Alert),
            Record::FollowUp(record) => (record.time_ns, Kind::FollowUp),
            Record::Folded(record) => (record.last_ns, Kind::Folded),
            Record::Notice(notice) => (notice.time_ns, Kind::Notice),
        };
        let forms = forms.iter().map(|&form| (form, form.of(record, host))).collect();
        Entry { time_ns, severity: record.severity(), kind, forms }
    }

    /// The record in a form; in another one if it was not written in that, because the configuration was changed since.
    pub fn form(&self, form: Form) -> &str {
        let found = self.written_in(form);
        let alone = || self.forms.iter().find(|(form, _)| form.stands_alone());
        let other = || alone().or(self.forms.first()).map_or("", |(_, text)| text);
        found.unwrap_or_else(other)
    }

    /// The record in this form and no other.
    pub fn written_in(&self, form: Form) -> Option<&str> {
        let wanted = self.forms.iter().find(|(written, _)| *written == form);
        wanted.map(|(_, text)| text.as_str())
    }
}
