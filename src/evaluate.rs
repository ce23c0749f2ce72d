//! From an exec to its alert: rules, exceptions and thresholds in one place, for the worker and for `replay`.

use std::sync::Arc;

use crate::alert::{Alert, Clock};
use crate::calendar::Date;
use crate::process::exec::Exec;
use crate::rules::model::Rule;
use crate::rules::ruleset::RuleSet;
use crate::rules::subject::Surroundings;
use crate::rules::threshold::Counts;

/// Evaluates execs, and remembers what thresholds need.
#[derive(Debug)]
pub struct Evaluator {
    ruleset: Arc<RuleSet>,
    counts: Counts,
}

/// What came of an exec.
#[derive(Debug, Default)]
pub struct Verdict {
    /// The alert, if a rule matched that no exception silences and no threshold holds back.
    pub alert: Option<Alert>,
    /// Rules that matched but were silenced by an exception.
    pub silenced: u64,
}

impl Evaluator {
    /// An evaluator that has seen nothing.
    pub fn new(ruleset: Arc<RuleSet>) -> Self {
        Evaluator { ruleset, counts: Counts::default() }
    }

    /// The rules.
    pub fn ruleset(&self) -> &Arc<RuleSet> {
        &self.ruleset
    }

    /// Evaluates an exec.
    pub fn evaluate(&mut self, exec: &Exec, surroundings: &Surroundings, clock: &dyn Clock) -> Verdict {
        let time_ns = clock.wall_from_monotonic(exec.timestamp_ns);
        let seconds = time_ns / 1_000_000_000;
        let subject = self.ruleset.subject(exec, surroundings, clock);
        let mut verdict = Verdict::default();
        let mut rules: Vec<&Rule> = Vec::new();
        for found in self.ruleset.matching(&subject, Date::of_unix_time(seconds)) {
            if let Some(exception) = found.exception {
                exception.hit();
                verdict.silenced += 1;
                continue;
            }
            found.rule.hit();
            if self.counts.reached(found.rule, &subject, exec.timestamp_ns) {
                rules.push(found.rule);
            }
        }
        verdict.alert = Alert::new(exec, &rules, &subject, &self.ruleset, surroundings, clock, time_ns);
        verdict
    }
}
