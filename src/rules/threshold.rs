//! Thresholds: a rule that alerts only when it matches often enough in a time.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};

use super::fields::{Field, Role};
use super::model::Rule;
use super::subject::Subject;
use crate::diagnostics::suggestion;
use crate::document::{Located, Section};

/// `threshold = { count = 20, window = "60s", by = ["user"], distinct = "args" }`
#[derive(Debug, Clone)]
pub struct Threshold {
    /// Matches, or different values of `distinct`, that are needed.
    pub count: usize,
    /// Within this many nanoseconds.
    pub window_ns: u64,
    /// Matches are counted apart for each combination of these fields' values.
    pub by: Vec<Field>,
    /// Only matches with a value that has not been seen in the window count.
    pub distinct: Option<Field>,
}

/// The largest count that a rule may ask for.
const MOST: i64 = 1000;
/// Combinations of values that are remembered over all rules; beyond, the one that was quiet longest is forgotten.
const MOST_KEYS: usize = 4096;

impl Threshold {
    pub(super) fn read(section: Section<'_>) -> Option<Threshold> {
        let count = section.integer("count", 2..=MOST);
        if count.is_none() {
            section.require("count");
        }
        let window = section.seconds("window");
        if window.is_none() {
            section.require("window");
        }
        let mut good = true;
        let mut field = |name: Located<&str>| {
            let names: Vec<String> = Field::names().collect();
            let mistake = match Field::find(name.value) {
                Some(field) if field.role != Role::Ancestor => return Some(field),
                Some(_) => "a threshold needs fields of one process: any ancestor is many".to_owned(),
                None => {
                    let hint = suggestion(name.value, names.iter().map(String::as_str));
                    format!("unknown field `{}`{hint}", name.value)
                }
            };
            section.error(name.span, mistake);
            good = false;
            None
        };
        let by: Vec<Field> = section.strings("by").into_iter().filter_map(&mut field).collect();
        let distinct = section.string("distinct").and_then(&mut field);
        section.finish();
        let threshold = Threshold {
            count: usize::try_from(count?.value).ok()?,
            window_ns: window?.value.checked_mul(1_000_000_000)?,
            by,
            distinct,
        };
        good.then_some(threshold)
    }
}

/// Matches that count towards thresholds.
#[derive(Debug, Default)]
pub struct Counts {
    by_key: HashMap<u64, VecDeque<(u64, u64)>>,
    hasher: RandomState,
}

impl Counts {
    /// Notes a match at a time (CLOCK_MONOTONIC, nanoseconds). True if the rule alerts now: it has no threshold, or
    /// reaches it, after which it begins to count anew.
    pub fn reached(&mut self, rule: &Rule, subject: &Subject<'_>, now_ns: u64) -> bool {
        let Some(threshold) = &rule.threshold else { return true };
        let values = |fields: &[Field]| -> Vec<Vec<u8>> {
            fields.iter().map(|field| subject.value(field).display().into_owned()).collect()
        };
        let key = self.hasher.hash_one((&rule.id, values(&threshold.by)));
        let distinct = threshold.distinct.as_ref().map(|field| values(std::slice::from_ref(field)));
        let value = self.hasher.hash_one(distinct);
        if !self.by_key.contains_key(&key) && self.by_key.len() >= MOST_KEYS {
            let quiet = self
                .by_key
                .iter()
                .min_by_key(|(_, seen)| seen.back().map(|&(time, _)| time))
                .map(|(&key, _)| key);
            quiet.map(|key| self.by_key.remove(&key));
        }
        let seen = self.by_key.entry(key).or_default();
        while seen.front().is_some_and(|&(time, _)| now_ns.saturating_sub(time) > threshold.window_ns) {
            seen.pop_front();
        }
        if threshold.distinct.is_some() && seen.iter().any(|&(_, other)| other == value) {
            return false;
        }
        seen.push_back((now_ns, value));
        let reached = seen.len() >= threshold.count;
        if reached {
            self.by_key.remove(&key);
        }
        reached
    }
}
