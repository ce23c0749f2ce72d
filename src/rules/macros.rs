//! Macros: named lists of values, which rules use through the modifier `expand` and administrators extend.
//!
//! ```toml
//! [[macro]]
//! name = "shells"
//! values = ["sh", "bash"]
//! ```
//!
//! A macro of the same name in a later file takes the place of an earlier one, or adds to it with `extend = true`.
//!
//! A selection may be shared in the same way, and any rule's condition may name it:
//!
//! ```toml
//! [[selection]]
//! name = "under-web-server"
//! [selection.match]
//! "parent.name|expand" = "%web-servers%"
//! ```

use std::cell::Cell;
use std::collections::BTreeMap;

use super::selection::{Selection, checks};
use crate::diagnostics::Diagnostics;
use crate::document::{Document, Located, Section};

/// All macros, and the selections that rules share.
#[derive(Debug, Clone, Default)]
pub struct Macros {
    lists: BTreeMap<String, Vec<String>>,
    selections: BTreeMap<String, Selection>,
    /// Values that tests hold so far.
    values: Cell<usize>,
}

/// Values that the tests of all rules may hold, those of macros counted for each test that uses them. Each takes some
/// hundred bytes, and one that is searched for up to 0.1 ms until it is compiled.
const MOST_VALUES: usize = 250_000;

impl Macros {
    /// The name in a value such as `%shells%`.
    pub fn name(value: &str) -> Option<&str> {
        value.strip_prefix('%')?.strip_suffix('%').filter(|name| !name.is_empty() && !name.contains('%'))
    }

    /// A macro's values.
    pub fn get(&self, name: &str) -> Option<&[String]> {
        self.lists.get(name).map(Vec::as_slice)
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.lists.keys().map(String::as_str)
    }

    /// Counts the values of one more test; the error is a sentence.
    pub(super) fn count(&self, values: usize) -> Result<(), String> {
        self.values.update(|sum| sum.saturating_add(values));
        match self.values.get() > MOST_VALUES {
            true => Err(format!(
                "all rules together hold more than {MOST_VALUES} values, those of macros counted wherever they are used"
            )),
            false => Ok(()),
        }
    }

    /// A shared selection.
    pub fn selection(&self, name: &str) -> Option<&Selection> {
        self.selections.get(name)
    }

    /// Adds a file's shared selections, after all files' macros.
    pub fn read_selections(&mut self, document: &Document<'_>, diagnostics: &Diagnostics) {
        for section in document.root(diagnostics).sections("selection", "a selection") {
            self.add_selection(section);
        }
    }

    fn add_selection(&mut self, section: Section<'_>) {
        let name = name(&section, "a selection");
        let extend = section.flag("extend").is_some_and(|extend| extend.value);
        let tables = section.section_or_list("match", "match");
        if tables.is_none() {
            section.error(section.span(), "a shared selection needs [selection.match]");
        }
        let read: Vec<_> = tables
            .into_iter()
            .flatten()
            .map(|table| checks(table, self))
            .collect::<Option<_>>()
            .unwrap_or_default();
        if let Some(name) = name.filter(|_| !read.is_empty()) {
            match self.selections.get_mut(name.value) {
                Some(present) if extend => present.alternatives.extend(read),
                None if extend => {
                    section.error(name.span, format!("there is no selection `{}` to extend", name.value));
                }
                _ => {
                    let selection = Selection { name: name.value.to_owned(), alternatives: read };
                    self.selections.insert(name.value.to_owned(), selection);
                }
            }
        }
        section.finish();
    }

    /// Adds a file's macros.
    pub fn read(&mut self, document: &Document<'_>, diagnostics: &Diagnostics) {
        for section in document.root(diagnostics).sections("macro", "a macro") {
            self.add(section);
        }
    }

    fn add(&mut self, section: Section<'_>) {
        let name = name(&section, "a macro");
        let extend = section.flag("extend");
        let values = section.required_strings("values");
        if let (Some(name), Some(values)) = (name, values) {
            let values = values.into_iter().map(|value| value.value.to_owned());
            match (self.lists.get_mut(name.value), extend) {
                (Some(present), Some(extend)) if extend.value => present.extend(values),
                (None, Some(extend)) if extend.value => {
                    section.error(name.span, format!("there is no macro `{}` to extend", name.value));
                }
                _ => {
                    self.lists.insert(name.value.to_owned(), values.collect());
                }
            }
        }
        section.finish();
    }
}

fn name<'d>(section: &Section<'d>, whose: &str) -> Option<Located<&'d str>> {
    section.required_string("name").filter(|name| {
        let good = name.value.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
            && !matches!(name.value, "and" | "or" | "not" | "of" | "them");
        if !good {
            section.error(
                name.span.clone(),
                format!("{whose}'s name holds letters, digits, `-`, `_` and `.` only"),
            );
        }
        good
    })
}
