//! A record in the forms that outputs ask for.

use std::ops::Range;

use super::{journald, rfc5424, short_json};
use crate::alert::{Host, Record, RecordId, cef, ecs, people, text};
use crate::config::Format;
use crate::rules::model::Severity;

/// Longest JSON in bytes. A longer line, which takes argument lists of megabytes, is written as [`Form::ShortJson`].
const LONGEST_JSON: usize = 8 << 20;
/// By this the modules of rsyslog and syslog-ng know a message that is JSON (the CEE project's syslog transport).
pub const CEE_COOKIE: &str = "@cee: ";

/// How a record is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One line of `key=value`, under 1 KB.
    Text,
    /// One line of JSON, as long as it takes up to [`LONGEST_JSON`].
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
    const ALL: [Form; 15] = [
        Form::Text,
        Form::Json,
        Form::ShortJson,
        Form::Cef,
        Form::Cee,
        Form::Structured(Format::Text),
        Form::Structured(Format::Json),
        Form::Structured(Format::Cef),
        Form::Structured(Format::Cee),
        Form::Fields(Format::Text),
        Form::Fields(Format::Json),
        Form::Fields(Format::Cef),
        Form::Fields(Format::Cee),
        Form::People { colour: false },
        Form::People { colour: true },
    ];

    /// Its name in the journal, where it stays what it is for ever.
    pub fn name(self) -> &'static str {
        match self {
            Form::Text => "text",
            Form::Json => "json",
            Form::ShortJson => "short-json",
            Form::Cef => "cef",
            Form::Cee => "cee",
            Form::Structured(Format::Text) => "structured-text",
            Form::Structured(Format::Json) => "structured-json",
            Form::Structured(Format::Cef) => "structured-cef",
            Form::Structured(Format::Cee) => "structured-cee",
            Form::Fields(Format::Text) => "fields-text",
            Form::Fields(Format::Json) => "fields-json",
            Form::Fields(Format::Cef) => "fields-cef",
            Form::Fields(Format::Cee) => "fields-cee",
            Form::People { colour: false } => "people",
            Form::People { colour: true } => "people-colour",
        }
    }

    /// The form of that name.
    pub fn named(name: &str) -> Option<Form> {
        Form::ALL.into_iter().find(|form| form.name() == name)
    }

    /// The form for a syslog message, which has an end.
    pub fn in_syslog(format: Format) -> Self {
        match format {
            Format::Json => Form::ShortJson,
            other => other.into(),
        }
    }

    /// Writes a record, without the newline at its end. `id` is that of a record which the daemon sends; people at a
    /// terminal are not shown it.
    pub fn of(self, record: &Record, id: Option<RecordId>, host: &Host) -> String {
        let short = |format, longest| short(format, record, id, host, longest);
        match self {
            Form::Text => text::line(record, id),
            Form::Json => ecs::line(record, id, host),
            Form::ShortJson => short(Format::Json, short_json::LONGEST),
            Form::Cef => short(Format::Cef, short_json::LONGEST),
            Form::Cee => short(Format::Cee, short_json::LONGEST),
            Form::Structured(format) => {
                let longest = short_json::LONGEST - rfc5424::ROOM;
                format!("{}] {}", rfc5424::parameters(record, id), short(format, longest))
            }
            Form::Fields(format) => journald::fields(record, id, &short(format, short_json::LONGEST)),
            Form::People { colour } => {
                let mut lines = people::lines(record, colour);
                lines.truncate(lines.trim_end_matches('\n').len());
                lines
            }
        }
    }

    /// It is one line that can be read without anything before it.
    fn stands_alone(self) -> bool {
        !matches!(self, Form::Structured(_) | Form::Fields(_) | Form::People { .. })
    }
}

/// A line of at most `longest` bytes.
fn short(format: Format, record: &Record, id: Option<RecordId>, host: &Host, longest: usize) -> String {
    match format {
        // That is always shorter.
        Format::Text => text::line(record, id),
        Format::Json => short_json::line(record, id, host, longest),
        Format::Cef => cef::line(record, id, host, longest),
        Format::Cee => {
            CEE_COOKIE.to_owned() + &short_json::line(record, id, host, longest - CEE_COOKIE.len())
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

impl Kind {
    /// All, in their order, by which the journal knows them.
    pub const ALL: [Kind; 4] = [Kind::Alert, Kind::FollowUp, Kind::Folded, Kind::Notice];
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
    /// By what a repeat is recognised.
    pub id: RecordId,
    /// When it was made: nanoseconds since 1970.
    pub time_ns: u64,
    /// How serious it is.
    pub severity: Severity,
    /// What kind it is.
    pub kind: Kind,
    /// The forms it was written in, and their places in the text.
    forms: Vec<(Form, Range<usize>)>,
    text: Box<str>,
}

impl Entry {
    /// Writes a record in these forms.
    pub fn new(record: &Record, id: RecordId, forms: &[Form], host: &Host) -> Self {
        let (time_ns, kind) = match record {
            Record::Alert(alert) => (alert.time_ns, Kind::Alert),
            Record::FollowUp(record) => (record.time_ns, Kind::FollowUp),
            Record::Folded(record) => (record.last_ns, Kind::Folded),
            Record::Notice(notice) => (notice.time_ns, Kind::Notice),
        };
        let mut places: Vec<(Form, Range<usize>)> = Vec::with_capacity(forms.len());
        let mut text = String::new();
        let json = || {
            let json = Form::Json.of(record, Some(id), host);
            if json.len() > LONGEST_JSON { Form::ShortJson.of(record, Some(id), host) } else { json }
        };
        // Most JSON is short, and then it is written and kept once for both.
        let any_json = forms.iter().any(|form| matches!(form, Form::Json | Form::ShortJson));
        let json = if any_json { json() } else { String::new() };
        for &form in forms {
            let place = match form {
                Form::Json => push_once(&mut text, &json),
                Form::ShortJson if json.len() <= short_json::LONGEST => push_once(&mut text, &json),
                _ => push_once(&mut text, &form.of(record, Some(id), host)),
            };
            places.push((form, place));
        }
        Entry { id, time_ns, severity: record.severity(), kind, forms: places, text: text.into() }
    }

    /// An entry that was kept elsewhere; `None` if the places are not in the text.
    pub fn of_parts(
        id: RecordId,
        time_ns: u64,
        severity: Severity,
        kind: Kind,
        forms: Vec<(Form, Range<usize>)>,
        text: &str,
    ) -> Option<Self> {
        let inside = forms.iter().all(|(_, place)| text.get(place.clone()).is_some());
        inside.then(|| Entry { id, time_ns, severity, kind, forms, text: text.into() })
    }

    /// The record in a form; in another one if it was not written in that, because the configuration was changed since.
    pub fn form(&self, form: Form) -> &str {
        let found = self.written_in(form);
        let alone = || self.forms.iter().find(|(form, _)| form.stands_alone());
        let other = || alone().or(self.forms.first()).and_then(|(_, place)| self.text.get(place.clone()));
        found.or_else(other).unwrap_or_default()
    }

    /// The record in this form and no other.
    pub fn written_in(&self, form: Form) -> Option<&str> {
        let wanted = self.forms.iter().find(|(written, _)| *written == form);
        wanted.and_then(|(_, place)| self.text.get(place.clone()))
    }

    /// The forms it was written in, and their places in the [text](Self::text).
    pub fn forms(&self) -> &[(Form, Range<usize>)] {
        &self.forms
    }

    /// All forms, one after another.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Bytes of memory, roughly.
    pub fn size(&self) -> usize {
        self.text.len() + size_of::<Entry>() + self.forms.len() * size_of::<(Form, Range<usize>)>()
    }
}

/// Appends a piece, unless it stands there; its place.
fn push_once(text: &mut String, piece: &str) -> Range<usize> {
    let start = text.find(piece).unwrap_or_else(|| {
        text.push_str(piece);
        text.len() - piece.len()
    });
    start..start + piece.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::Notice;

    #[test]
    fn forms_have_names() {
        for form in Form::ALL {
            assert_eq!(Form::named(form.name()), Some(form));
        }
        assert_eq!(Form::named("poem"), None);
    }

    #[test]
    fn a_form_that_was_not_written_is_given_in_another() {
        let record =
            Record::Notice(Notice { kind: "test", severity: Severity::Low, time_ns: 1, message: "x".into() });
        let id = RecordId { run: 1, number: 2 };
        let entry = Entry::new(&record, id, &[Form::Text, Form::Json, Form::ShortJson], &Host::default());
        assert_eq!(entry.form(Form::Text), Form::Text.of(&record, Some(id), &Host::default()));
        assert_eq!(entry.form(Form::Json), Form::Json.of(&record, Some(id), &Host::default()));
        assert_eq!(entry.form(Form::ShortJson), entry.form(Form::Json));
        assert_eq!(entry.form(Form::People { colour: false }), entry.form(Form::Text));
        // Lines for people would be several messages.
        let entry = Entry::new(&record, id, &[Form::People { colour: true }, Form::Json], &Host::default());
        assert_eq!(entry.form(Form::Text), entry.form(Form::Json));
        let text = entry.text();
        let outside = vec![(Form::Text, 5..text.len() + 1)];
        assert_eq!(Entry::of_parts(id, 1, Severity::Low, Kind::Notice, outside, text), None);
    }
}
