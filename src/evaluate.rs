//! From an exec to its alert: rules, exceptions and thresholds in one place, for the worker and for `replay`.

use std::sync::Arc;

use crate::alert::{Alert, Clock};
use crate::calendar::Date;
use crate::event::Event;
use crate::process::exec::Exec;
use crate::rules::model::Rule;
use crate::rules::ruleset::RuleSet;
use crate::rules::subject::Surroundings;
use crate::rules::threshold::Counts;

/// Evaluates execs, and remembers what thresholds need.
#[derive(Debug)]
pub struct Evaluator {
    ruleset: Arc<RuleSet>,
    recording: bool,
    counts: Counts,
}

/// What came of an exec.
#[derive(Debug, Default)]
pub struct Verdict {
    /// The alert, if a rule matched that no exception silences and no threshold holds back.
    pub alert: Option<Alert>,
    /// Rules that matched, with the exception that silenced each, by their ids.
    pub silenced: Vec<(String, String)>,
    /// Rules that matched but whose threshold was not reached, by their ids.
    pub held_back: Vec<String>,
    /// The exec written down, if the evaluator [records](Evaluator::record).
    pub event: Option<Event>,
}

impl Evaluator {
    /// An evaluator that has seen nothing.
    pub fn new(ruleset: Arc<RuleSet>) -> Self {
        Evaluator { ruleset, recording: false, counts: Counts::default() }
    }

    /// From now on each exec is also written down, which needs its ancestors.
    pub fn record(&mut self) {
        self.recording = true;
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
                verdict.silenced.push((found.rule.id.clone(), exception.id.clone()));
                continue;
            }
            found.rule.hit();
            if self.counts.reached(found.rule, &subject, exec.timestamp_ns) {
                rules.push(found.rule);
            } else {
                verdict.held_back.push(found.rule.id.clone());
            }
        }
        verdict.alert = Alert::new(exec, &rules, &subject, &self.ruleset, surroundings, clock, time_ns);
        if self.recording {
            verdict.event = Some(Event::of_subject(exec, &subject, surroundings, clock, time_ns));
        }
        verdict
    }
}
