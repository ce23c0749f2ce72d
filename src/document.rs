//! Strict reading of TOML tables: every mistake is reported with its place, none stops the reading of the rest.
//!
//! serde stops at the first error, so tables are walked by hand: a [`Section`] hands out values by key and type, and
//! what nobody asked for is an unknown key.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::Range;

use serde::de::IntoDeserializer;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::calendar::Date;
use crate::diagnostics::{Diagnostics, Source, suggestion};
use crate::order;

/// A value and its place in the source, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Its place.
    pub span: Range<usize>,
}

/// A parsed file.
#[derive(Debug)]
pub struct Document<'s> {
    source: &'s Source,
    table: Spanned<DeTable<'s>>,
}

impl<'s> Document<'s> {
    /// Parses a file and reports its syntax errors. What could be parsed in spite of them is read, so that its mistakes
    /// are reported in the same run.
    pub fn parse(source: &'s Source, diagnostics: &Diagnostics) -> Self {
        let (table, errors) = DeTable::parse_recoverable(&source.text);
        for error in errors {
            diagnostics.error(source, error.span().unwrap_or(0..0), error.message());
        }
        Document { source, table }
    }

    /// The top table.
    pub fn root<'d>(&'d self, diagnostics: &'d Diagnostics) -> Section<'d> {
        Section {
            source: self.source,
            table: self.table.get_ref(),
            span: 0..0,
            what: "the file",
            asked: RefCell::default(),
            diagnostics,
        }
    }
}

/// A table that is being read.
#[derive(Debug)]
pub struct Section<'d> {
    source: &'d Source,
    table: &'d DeTable<'d>,
    span: Range<usize>,
    what: &'d str,
    asked: RefCell<BTreeSet<&'d str>>,
    diagnostics: &'d Diagnostics,
}

impl<'d> Section<'d> {
    /// Where the table stands.
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// The file it stands in.
    pub fn source(&self) -> &'d Source {
        self.source
    }

    /// Reports an error about a place of this file.
    pub fn error(&self, span: Range<usize>, message: impl Into<String>) {
        self.diagnostics.error(self.source, span, message);
    }

    fn value(&self, key: &'d str) -> Option<&'d Spanned<DeValue<'d>>> {
        self.asked.borrow_mut().insert(key);
        self.table.get(key)
    }

    fn typed<T>(
        &self,
        key: &'d str,
        wanted: &str,
        read: impl Fn(&'d DeValue<'d>) -> Option<T>,
    ) -> Option<Located<T>> {
        let value = self.value(key)?;
        match read(value.get_ref()) {
            Some(read) => Some(Located { value: read, span: value.span() }),
            None => {
                self.error(
                    value.span(),
                    format!("`{key}` must be {wanted}, not {}", describe(value.get_ref())),
                );
                None
            }
        }
    }

    /// A string.
    pub fn string(&self, key: &'d str) -> Option<Located<&'d str>> {
        self.typed(key, "a string", DeValue::as_str)
    }

    /// A string that must be there and not be empty.
    pub fn required_string(&self, key: &'d str) -> Option<Located<&'d str>> {
        if self.table.get(key).is_none() {
            self.asked.borrow_mut().insert(key);
            self.error(self.span(), format!("{} needs `{key}`", self.what));
            return None;
        }
        let string = self.string(key)?;
        if string.value.trim().is_empty() {
            self.error(string.span, format!("`{key}` must not be empty"));
            return None;
        }
        Some(string)
    }

    /// True or false.
    pub fn flag(&self, key: &'d str) -> Option<Located<bool>> {
        self.typed(key, "true or false", DeValue::as_bool)
    }

    /// A whole number in `range`.
    pub fn integer(&self, key: &'d str, range: std::ops::RangeInclusive<i64>) -> Option<Located<i64>> {
        // One that does not fit 64 bits is a whole number all the same, and outside of any range.
        let whole = |value: &'d DeValue<'d>| value.as_integer().map(|_| integer(value));
        let number = self.typed(key, "a whole number", whole)?;
        let Some(value) = number.value.filter(|value| range.contains(value)) else {
            let (least, most) = range.into_inner();
            self.error(number.span, format!("`{key}` must be between {least} and {most}"));
            return None;
        };
        Some(Located { value, span: number.span })
    }

    /// One of `choices`, by its word.
    pub fn choice<T: Copy>(&self, key: &'d str, choices: &[(&str, T)]) -> Option<Located<T>> {
        let word = self.string(key)?;
        match choices.iter().find(|(name, _)| *name == word.value) {
            Some(&(_, value)) => Some(Located { value, span: word.span }),
            None => {
                let names: Vec<&str> = choices.iter().map(|&(name, _)| name).collect();
                let hint = suggestion(word.value, names.iter().copied());
                self.error(word.span, format!("`{key}` must be one of {}{hint}", names.join(", ")));
                None
            }
        }
    }

    /// A list of strings; empty if it is not there.
    pub fn strings(&self, key: &'d str) -> Vec<Located<&'d str>> {
        self.list(key).unwrap_or_default()
    }

    /// A list of strings that may stand there empty; `None` if it is not there.
    pub fn list(&self, key: &'d str) -> Option<Vec<Located<&'d str>>> {
        let list = self.typed(key, "a list of strings", DeValue::as_array)?;
        let mut strings = Vec::new();
        for value in list.value {
            match value.get_ref().as_str() {
                Some(string) => strings.push(Located { value: string, span: value.span() }),
                None => {
                    self.error(
                        value.span(),
                        format!("`{key}` must hold strings, not {}", describe(value.get_ref())),
                    );
                }
            }
        }
        Some(strings)
    }

    /// A list of strings that may be left out but not be empty: `remedy` is what to do instead.
    pub fn filled(&self, key: &'d str, remedy: &str) -> Option<Vec<Located<&'d str>>> {
        let value = self.table.get(key)?;
        if value.get_ref().as_array().is_some_and(|list| list.is_empty()) {
            self.asked.borrow_mut().insert(key);
            self.error(value.span(), format!("`{key}` must not be empty: {remedy}"));
            return None;
        }
        self.list(key)
    }

    /// A list of strings that must be there and not be empty.
    pub fn required_strings(&self, key: &'d str) -> Option<Vec<Located<&'d str>>> {
        let Some(value) = self.table.get(key) else {
            self.asked.borrow_mut().insert(key);
            self.error(self.span(), format!("{} needs `{key}`", self.what));
            return None;
        };
        if value.get_ref().as_array().is_some_and(|list| list.is_empty()) {
            self.asked.borrow_mut().insert(key);
            self.error(value.span(), format!("`{key}` must not be empty"));
            return None;
        }
        Some(self.strings(key)).filter(|list| !list.is_empty())
    }

    /// Reports that a key is missing, unless it is there with a mistake that was reported already.
    pub fn require(&self, key: &'d str) {
        self.asked.borrow_mut().insert(key);
        if self.table.get(key).is_none() {
            self.error(self.span(), format!("{} needs `{key}`", self.what));
        }
    }

    /// A date such as `2027-06-30`: `Some(None)` if it is there but no date.
    pub fn date(&self, key: &'d str) -> Option<Option<Date>> {
        let value = self.value(key)?;
        let date = match value.get_ref() {
            DeValue::Datetime(moment) if moment.time.is_none() => moment.date,
            _ => None,
        };
        if date.is_none() {
            self.error(
                value.span(),
                format!("`{key}` must be a date such as 2027-06-30, without quotation marks"),
            );
        }
        Some(date.map(|date| Date { year: date.year, month: date.month, day: date.day }))
    }

    /// A table, or a list of them.
    pub fn section_or_list(&self, key: &'d str, what: &'d str) -> Option<Vec<Section<'d>>> {
        let value = self.value(key)?;
        Some(match value.get_ref() {
            DeValue::Table(table) => vec![self.inner(table, value.span(), what)],
            _ => self.tables(key, value, what),
        })
    }

    /// Leaves a key to another reader.
    pub fn skip(&self, key: &'d str) {
        self.asked.borrow_mut().insert(key);
    }

    /// A time span such as `"30s"`, `"10m"`, `"2h"` or `"7d"`, in seconds; at least one.
    pub fn seconds(&self, key: &'d str) -> Option<Located<u64>> {
        let text = self.string(key)?;
        let unit = |unit: &str| match unit {
            "s" => Some(1),
            "m" => Some(60),
            "h" => Some(3600),
            "d" => Some(86_400),
            _ => None,
        };
        let seconds = text.value.trim().split_at_checked(text.value.trim().len().saturating_sub(1)).and_then(
            |(number, letter)| {
                number.parse::<u64>().ok().filter(|&number| number > 0)?.checked_mul(unit(letter)?)
            },
        );
        match seconds {
            Some(value) => Some(Located { value, span: text.span }),
            None => {
                self.error(
                    text.span,
                    format!("`{key}` must be a time span of more than nothing, such as \"30s\", \"10m\", \"2h\" or \"7d\""),
                );
                None
            }
        }
    }

    /// A table.
    pub fn section(&self, key: &'d str, what: &'d str) -> Option<Section<'d>> {
        let table = self.typed(key, "a table", DeValue::as_table)?;
        Some(self.inner(table.value, table.span, what))
    }

    /// A table that serde reads, which stops at the first mistake.
    pub fn deserialize<T: serde::de::DeserializeOwned>(&self, key: &'d str) -> Option<Located<T>> {
        let value = self.value(key)?;
        let span = value.span();
        match T::deserialize(value.clone().into_deserializer()) {
            Ok(value) => Some(Located { value, span }),
            Err(error) => {
                let message = in_short(error.message());
                self.error(error.span().unwrap_or(span), format!("in `{key}`: {message}"));
                None
            }
        }
    }

    /// A list of tables, written as `[[key]]`; empty if it is not there.
    pub fn sections(&self, key: &'d str, what: &'d str) -> Vec<Section<'d>> {
        let Some(value) = self.value(key) else { return Vec::new() };
        self.tables(key, value, what)
    }

    /// Every entry of this table as a list of tables, where a single table is a list of one.
    pub fn named_sections(&self, what: &'d str) -> Vec<(Located<&'d str>, Vec<Section<'d>>)> {
        let mut sections = Vec::new();
        for (key, value) in self.entries() {
            let tables = match value.get_ref() {
                DeValue::Table(table) => vec![self.inner(table, value.span(), what)],
                _ => self.tables(key.value, value, what),
            };
            sections.push((key, tables));
        }
        sections
    }

    /// Every entry of this table, in the order of the file.
    pub fn entries(&self) -> Vec<(Located<&'d str>, &'d Spanned<DeValue<'d>>)> {
        let mut entries: Vec<_> = self
            .table
            .iter()
            .map(|(key, value)| (Located { value: key.get_ref().as_ref(), span: key.span() }, value))
            .collect();
        order::by_key(&mut entries, |(key, _)| key.span.start);
        self.asked.borrow_mut().extend(entries.iter().map(|(key, _)| key.value));
        entries
    }

    fn tables(&self, key: &str, value: &'d Spanned<DeValue<'d>>, what: &'d str) -> Vec<Section<'d>> {
        let Some(list) = value.get_ref().as_array() else {
            // A table in another is called by its whole name.
            let written = if what.starts_with("[[") { what.to_owned() } else { format!("[[{key}]]") };
            self.error(
                value.span(),
                format!("`{key}` must be written as {written}, not as {}", describe(value.get_ref())),
            );
            return Vec::new();
        };
        let mut sections = Vec::new();
        for value in list {
            match value.get_ref() {
                DeValue::Table(table) => sections.push(self.inner(table, value.span(), what)),
                other => {
                    self.error(value.span(), format!("`{key}` must hold tables, not {}", describe(other)))
                }
            }
        }
        sections
    }

    fn inner(&self, table: &'d DeTable<'d>, span: Range<usize>, what: &'d str) -> Section<'d> {
        Section {
            source: self.source,
            table,
            span,
            what,
            asked: RefCell::default(),
            diagnostics: self.diagnostics,
        }
    }

    /// Reports the keys that nobody asked for.
    pub fn finish(self) {
        let asked = self.asked.borrow();
        for (key, _) in self.table.iter() {
            let name: &str = key.get_ref();
            if !asked.contains(name) {
                let hint = suggestion(name, asked.iter().copied());
                self.error(key.span(), format!("unknown key `{name}` in {}{hint}", self.what));
            }
        }
    }
}

/// serde's message about an unknown key without its list of all known ones, but with the one that is most like it.
pub fn in_short(message: &str) -> String {
    let Some((unknown, known)) = message.split_once(", expected one of ") else { return message.to_owned() };
    let Some(key) = unknown.strip_prefix("unknown field `").and_then(|key| key.strip_suffix('`')) else {
        return message.to_owned();
    };
    format!("unknown key `{key}`{}", suggestion(key, known.split('`').skip(1).step_by(2)))
}

/// A whole number, if the value is one that fits 64 bits.
pub fn integer(value: &DeValue<'_>) -> Option<i64> {
    let number = value.as_integer()?;
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

/// The value's type in words.
pub fn describe(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
