//! Values of fields.

use std::borrow::Cow;

use crate::process::exec::Argv;
use crate::process::parse::cgroup_paths;

/// A field's value.
#[derive(Debug, Clone)]
pub enum Value<'a> {
    /// It could not be read, or has not been read yet.
    Unknown,
    /// It is known that there is none.
    Absent,
    /// A text.
    Text(Cow<'a, [u8]>),
    /// Texts.
    Texts(Vec<Cow<'a, [u8]>>),
    /// Arguments.
    Arguments(Argv<'a>),
    /// The content of /proc/PID/cgroup.
    Cgroups(&'a [u8]),
    /// Words.
    Words(&'a [String]),
    /// A number.
    Number(i64),
    /// True or false.
    Flag(bool),
}

impl<'a> Value<'a> {
    /// Calls `judge` with each text; true as soon as one call is.
    pub fn any_text(&self, mut judge: impl FnMut(&[u8]) -> bool) -> bool {
        match self {
            Value::Text(text) => judge(text),
            Value::Texts(texts) => texts.iter().any(|text| judge(text)),
            Value::Arguments(arguments) => arguments.clone().any(judge),
            Value::Cgroups(lines) => cgroup_paths(lines).any(judge),
            Value::Words(words) => words.iter().any(|word| judge(word.as_bytes())),
            Value::Unknown | Value::Absent | Value::Number(_) | Value::Flag(_) => false,
        }
    }

    /// As [`any_text`](Self::any_text), of arguments that were cut: `judge` is told too whether it sees a whole text.
    pub fn any_text_of_cut(&self, mut judge: impl FnMut(&[u8], bool) -> bool) -> bool {
        match self {
            Value::Arguments(arguments) => {
                let mut arguments = arguments.clone().peekable();
                while let Some(argument) = arguments.next() {
                    if judge(argument, arguments.peek().is_some()) {
                        return true;
                    }
                }
                false
            }
            // Flags and options are taken from whole arguments alone.
            Value::Texts(texts) => texts.iter().any(|text| judge(text, true)),
            _ => self.any_text(|text| judge(text, false)),
        }
    }

    /// It is known that there is none; an empty list is none.
    pub fn is_none(&self) -> bool {
        match self {
            Value::Absent => true,
            Value::Texts(_) | Value::Arguments(_) | Value::Cgroups(_) | Value::Words(_) => {
                !self.any_text(|_| true)
            }
            Value::Unknown | Value::Text(_) | Value::Number(_) | Value::Flag(_) => false,
        }
    }

    /// As text, for people and for keys: list elements with commas between.
    pub fn display(&self) -> Cow<'_, [u8]> {
        match self {
            Value::Unknown => Cow::Borrowed(b"unknown"),
            Value::Absent => Cow::Borrowed(b"none"),
            Value::Text(text) => Cow::Borrowed(text),
            Value::Number(number) => Cow::Owned(number.to_string().into_bytes()),
            Value::Flag(flag) => Cow::Owned(flag.to_string().into_bytes()),
            Value::Texts(_) | Value::Arguments(_) | Value::Cgroups(_) | Value::Words(_) => {
                let mut joined = Vec::new();
                self.any_text(|text| {
                    if !joined.is_empty() {
                        joined.extend_from_slice(b", ");
                    }
                    joined.extend_from_slice(text);
                    false
                });
                Cow::Owned(joined)
            }
        }
    }

    pub(super) fn text(bytes: Option<&'a [u8]>) -> Self {
        bytes.map_or(Value::Unknown, |bytes| Value::Text(bytes.into()))
    }

    pub(super) fn name(name: String) -> Self {
        Value::Text(name.into_bytes().into())
    }

    pub(super) fn number(number: Option<impl Into<i64>>) -> Self {
        number.map_or(Value::Unknown, |number| Value::Number(number.into()))
    }

    pub(super) fn flag(flag: Option<bool>) -> Self {
        flag.map_or(Value::Unknown, Value::Flag)
    }

    /// Of what is known: a text, or that there is none.
    pub(super) fn optional(value: Option<Option<Cow<'a, [u8]>>>) -> Self {
        match value {
            Some(Some(text)) => Value::Text(text),
            Some(None) => Value::Absent,
            None => Value::Unknown,
        }
    }
}
