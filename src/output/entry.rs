//! A record in the forms that outputs ask for.

use super::short_json;
use crate::alert::{Host, Record, ecs, people, text};
use crate::config::Format;
use crate::rules::model::Severity;

/// How a record is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One line of `key=value`, under 1 KB.
    Text,
    /// One line of JSON, as long as it takes.
    Json,
    /// One line of JSON that fits a syslog message: see [`short_json::LONGEST`].
    ShortJson,
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
        }
    }
}

impl Form {
    /// Writes a record, without the newline at its end.
    pub fn of(self, record: &Record, host: &Host) -> String {
        match self {
            Form::Text => text::line(record),
            Form::Json => ecs::line(record, host),
            Form::ShortJson => short_json::line(record, host),
            Form::People { colour } => {
                let mut lines = people::lines(record, colour);
                lines.truncate(lines.trim_end_matches('\n').len());
                lines
            }
        }
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
        let wanted = self.forms.iter().find(|(written, _)| *written == form);
        wanted.or(self.forms.first()).map_or("", |(_, text)| text)
    }
}
