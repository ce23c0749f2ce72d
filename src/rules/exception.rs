//! Exceptions: what is normal here. Looked at after the rules, so that what they silence is counted.

use super::condition::Truth;
use super::macros::Macros;
use super::model::{self, Rule};
use super::selection::{Check, Selection, checks};
use super::subject::Subject;
use crate::calendar::Date;
use crate::document::{Located, Section};

/// An exception.
#[derive(Debug, Clone)]
pub struct Exception {
    /// Unique name.
    pub id: String,
    /// Why this is normal.
    pub reason: String,
    /// The ids of the rules it silences; `None` for all.
    pub rules: Option<Vec<String>>,
    /// The last day on which it holds.
    pub expires: Option<Date>,
    /// The file it comes from.
    pub origin: String,
    /// What it silences.
    pub selection: Selection,
}

impl Exception {
    /// True if the exception is about this rule.
    pub fn is_about(&self, rule: &Rule) -> bool {
        self.rules.as_ref().is_none_or(|ids| ids.contains(&rule.id))
    }

    /// True if its day has passed.
    pub fn expired(&self, today: Date) -> bool {
        self.expires.is_some_and(|last| last < today)
    }

    /// Whether it silences alerts for a subject. What is unknown is not silenced.
    pub fn covers(&self, subject: &Subject<'_>) -> bool {
        self.selection.evaluate(subject) == Truth::True
    }

    /// Why the exception takes everything away from a rule, if it does.
    ///
    /// It does if each of its tests is one that the rule itself requires, or one that nothing fails.
    pub fn swallows(&self, rule: &Rule) -> bool {
        let required: Vec<&Check> = rule.required_checks();
        self.selection.alternatives.iter().any(|checks| {
            checks.iter().all(|check| match check {
                Check::Test(own) => {
                    own.always_true()
                        || required.iter().any(|other| match other {
                            Check::Test(other) => other.implies(own),
                            Check::SameAncestor(_) => false,
                        })
                }
                Check::SameAncestor(tests) => tests.iter().all(|test| test.always_true()),
            })
        })
    }

    pub(super) fn read(section: Section<'_>, macros: &Macros) -> Option<Located<Exception>> {
        let id = model::id(&section);
        let reason = section.required_string("reason");
        let rules = section.required_strings("rules");
        let expires = section.date("expires");
        let match_sections = section.section_or_list("match", "match");
        if match_sections.is_none() {
            section.error(section.span(), "an exception needs [exception.match]");
        }
        let read: Vec<_> =
            match_sections.into_iter().flatten().map(|section| checks(section, macros)).collect();
        let good = !read.is_empty() && read.iter().all(Option::is_some);
        let span = id.as_ref().map_or_else(|| section.span(), |id| id.span.clone());
        let origin = section.source().name.clone();
        section.finish();
        let rules = rules?;
        let value = Exception {
            id: id?.value.to_owned(),
            reason: reason?.value.trim().to_owned(),
            rules: (!rules.iter().any(|rule| rule.value == "*"))
                .then(|| rules.iter().map(|rule| rule.value.to_owned()).collect()),
            expires: match expires {
                Some(expires) => Some(expires?),
                None => None,
            },
            origin,
            selection: Selection {
                name: "match".to_owned(),
                alternatives: read.into_iter().flatten().collect(),
            },
        };
        good.then_some(Located { value, span })
    }
}
