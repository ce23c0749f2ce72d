//! Macros: named lists of values, which rules use through the modifier `expand` and administrators extend.
//!
//! ```toml
//! [[macro]]
//! name = "shells"
//! values = ["sh", "bash"]
//! ```
//!
//! A macro of the same name in a later file takes the place of an earlier one, or adds to it with `extend = true`.

use std::collections::BTreeMap;

use crate::diagnostics::Diagnostics;
use crate::document::{Document, Section};

/// All macros.
#[derive(Debug, Clone, Default)]
pub struct Macros(BTreeMap<String, Vec<String>>);

impl Macros {
    /// The name in a value such as `%shells%`.
    pub fn name(value: &str) -> Option<&str> {
        value.strip_prefix('%')?.strip_suffix('%').filter(|name| !name.is_empty() && !name.contains('%'))
    }

    /// A macro's values.
    pub fn get(&self, name: &str) -> Option<&[String]> {
        self.0.get(name).map(Vec::as_slice)
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Adds a file's macros.
    pub fn read(&mut self, document: &Document<'_>, diagnostics: &Diagnostics) {
        for section in document.root(diagnostics).sections("macro", "a macro") {
            self.add(section);
        }
    }

    fn add(&mut self, section: Section<'_>) {
        let name = section.required_string("name").filter(|name| {
            let good = name.value.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
            if !good {
                section
                    .error(name.span.clone(), "a macro's name holds letters, digits, `-`, `_` and `.` only");
            }
            good
        });
        let extend = section.flag("extend");
        let values = section.required_strings("values");
        if let (Some(name), Some(values)) = (name, values) {
            let values = values.into_iter().map(|value| value.value.to_owned());
            match (self.0.get_mut(name.value), extend) {
                (Some(present), Some(extend)) if extend.value => present.extend(values),
                (None, Some(extend)) if extend.value => {
                    section.error(name.span, format!("there is no macro `{}` to extend", name.value));
                }
                _ => {
                    self.0.insert(name.value.to_owned(), values.collect());
                }
            }
        }
        section.finish();
    }
}
