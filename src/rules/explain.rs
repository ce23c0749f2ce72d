//! Why a rule matches or does not.

use super::condition::{Condition, Truth};
use super::exception::Exception;
use super::model::Rule;
use super::ruleset::{RuleSet, evaluate};
use super::selection::{Check, Selection};
use super::subject::Subject;
use crate::alert::escape::Escaped;
use crate::calendar::Date;

/// What every enabled rule says of one subject.
#[derive(Debug, Default)]
pub struct Explanation<'r> {
    /// Rules that match, the most severe first, each with the exception that silences it.
    pub matched: Vec<(&'r Rule, Option<&'r Exception>)>,
    /// Rules that do not, with the reason.
    pub unmatched: Vec<(&'r Rule, Reason)>,
}

/// Why a condition does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// The selection.
    pub selection: String,
    /// The test in it, as it is written; empty if the selection holds and the condition excludes it.
    pub test: String,
    /// The value seen.
    pub seen: Vec<u8>,
    /// The value is not known, so that nobody can tell.
    pub unknown: bool,
}

/// Bytes of a value that are shown.
const SHOWN: usize = 120;

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let selection = &self.selection;
        if self.test.is_empty() {
            return write!(f, "selection `{selection}` holds, which the condition excludes");
        }
        if self.unknown {
            return write!(f, "selection `{selection}`: {} is unknown", self.test);
        }
        let mut seen = Escaped::new(&self.seen);
        seen.shorten(SHOWN);
        write!(f, "selection `{selection}`: {} does not fit {}", self.test, seen.as_str())
    }
}

/// Why a rule does not match; `None` if it does.
pub fn why_not(rule: &Rule, subject: &Subject<'_>) -> Option<Reason> {
    if evaluate(rule, subject) == Truth::True { None } else { reason(&rule.condition, rule, subject) }
}

/// Evaluates every enabled rule.
pub fn explain<'r>(ruleset: &'r RuleSet, subject: &Subject<'_>, today: Date) -> Explanation<'r> {
    let mut explanation = Explanation::default();
    for found in ruleset.matching(subject, today) {
        let exception: Option<&Exception> = found.exception.map(|exception| &**exception);
        explanation.matched.push((found.rule, exception));
    }
    for rule in ruleset.rules().iter().filter(|rule| rule.enabled) {
        explanation.unmatched.extend(why_not(rule, subject).map(|reason| (&**rule, reason)));
    }
    explanation
}

/// Why a condition that is not true is not.
fn reason(condition: &Condition, rule: &Rule, subject: &Subject<'_>) -> Option<Reason> {
    let truth = |condition: &Condition| {
        condition.evaluate(&|index| {
            rule.selections.get(index).map_or(Truth::Unknown, |selection| selection.evaluate(subject))
        })
    };
    match condition {
        Condition::Selection(index) => Some(of_selection(rule.selections.get(*index)?, subject)),
        // What is false counts more than what is unknown: it would stay so if more were known.
        Condition::All(parts) => {
            let part = parts
                .iter()
                .find(|part| truth(part) == Truth::False)
                .or_else(|| parts.iter().find(|part| truth(part) == Truth::Unknown))?;
            reason(part, rule, subject)
        }
        // Any of them would do; the last that is unknown, or else the first, speaks for all.
        Condition::Any(parts) => {
            let part = parts.iter().find(|part| truth(part) == Truth::Unknown).or(parts.first())?;
            reason(part, rule, subject)
        }
        Condition::Not(inner) => match truth(inner) {
            Truth::Unknown => reason(inner, rule, subject),
            _ => {
                let name = inner
                    .selections()
                    .into_iter()
                    .filter_map(|index| rule.selections.get(index))
                    .find(|selection| selection.evaluate(subject) == Truth::True)
                    .map(|selection| selection.name.clone());
                Some(Reason {
                    selection: name.unwrap_or_default(),
                    test: String::new(),
                    seen: Vec::new(),
                    unknown: false,
                })
            }
        },
    }
}

/// The test that keeps a selection from holding, in the alternative that comes nearest.
fn of_selection(selection: &Selection, subject: &Subject<'_>) -> Reason {
    let nearest = selection.alternatives.iter().max_by_key(|checks| {
        checks.iter().filter(|check| check.evaluate(subject) == Truth::True).count() * 100
            / checks.len().max(1)
    });
    let checks = nearest.map(Vec::as_slice).unwrap_or_default();
    let failing = checks
        .iter()
        .find(|check| check.evaluate(subject) == Truth::False)
        .or_else(|| checks.iter().find(|check| check.evaluate(subject) == Truth::Unknown));
    let (test, seen) = match failing {
        Some(Check::Test(written)) => (written.key.clone(), subject.display(&written.test.field)),
        Some(Check::SameAncestor(tests)) => {
            let keys: Vec<&str> = tests.iter().map(|written| written.key.as_str()).collect();
            let seen: Vec<Vec<u8>> =
                tests.iter().map(|written| subject.display(&written.test.field)).collect();
            (format!("ancestor with {}", keys.join(" and ")), seen.join(&b"; "[..]))
        }
        None => (String::new(), Vec::new()),
    };
    let unknown = failing.is_some_and(|check| check.evaluate(subject) == Truth::Unknown);
    Reason { selection: selection.name.clone(), test, seen, unknown }
}
