//! From an exec to its alert: rules, exceptions, thresholds and the baseline in one place, for the worker and for
//! `replay`, which has no baseline.

use std::sync::Arc;

use crate::alert::{Alert, Clock, Standing};
use crate::baseline::Baseline;
use crate::baseline::decision::{Effect, Past};
use crate::baseline::tuple::Tuple;
use crate::calendar::Date;
use crate::event::Event;
use crate::process::capture::Prefilter;
use crate::process::exec::Exec;
use crate::response::RuleName;
use crate::rules::action::Action;
use crate::rules::model::{Rule, Severity};
use crate::rules::ruleset::RuleSet;
use crate::rules::subject::Surroundings;
use crate::rules::threshold::Counts;

/// Evaluates execs, and remembers what thresholds need.
#[derive(Debug)]
pub struct Evaluator {
    ruleset: Arc<RuleSet>,
    recording: bool,
    counts: Counts,
    baseline: Option<Baseline>,
}

/// What came of an exec.
#[derive(Debug, Default)]
pub struct Verdict {
    /// The alert, if a rule matched that no exception silences and no threshold holds back.
    pub alert: Option<Alert>,
    /// Rules that matched, with the exception that silenced each, by their ids.
    pub silenced: Vec<(String, String)>,
    /// Rules that matched, with the exception that would have silenced each and has expired, by their ids.
    pub expired: Vec<(String, String)>,
    /// Rules that matched but whose threshold was not reached, by their ids.
    pub held_back: Vec<String>,
    /// Rules that matched but whose match is known to the baseline, which silences it, by their ids.
    pub known: Vec<String>,
    /// What the rules in the alert ask for, and their ids, the strongest first.
    pub actions: Vec<(Action, RuleName)>,
    /// The exec written down, if the evaluator [records](Evaluator::record).
    pub event: Option<Event>,
}

impl Evaluator {
    /// An evaluator that has seen nothing.
    pub fn new(ruleset: Arc<RuleSet>) -> Self {
        Evaluator { ruleset, recording: false, counts: Counts::default(), baseline: None }
    }

    /// From now on each exec is also written down, which needs its ancestors.
    pub fn record(&mut self) {
        self.recording = true;
    }

    /// From now on alerts are compared with what is normal here.
    pub fn compare_with(&mut self, baseline: Baseline) {
        self.baseline = Some(baseline);
    }

    /// What is normal here, if alerts are compared with it.
    pub fn baseline(&mut self) -> Option<&mut Baseline> {
        self.baseline.as_mut()
    }

    /// The rules.
    pub fn ruleset(&self) -> &Arc<RuleSet> {
        &self.ruleset
    }

    /// Goes on with other rules: what thresholds, hits and the baseline know of a rule belongs to its id and stays.
    pub fn replace(&mut self, ruleset: Arc<RuleSet>) {
        if !Arc::ptr_eq(&ruleset, &self.ruleset) {
            ruleset.count_on(&self.ruleset);
            self.ruleset = ruleset;
        }
    }

    /// Evaluates an exec.
    pub fn evaluate(&mut self, exec: &Exec, surroundings: &Surroundings, clock: &dyn Clock) -> Verdict {
        let time_ns = clock.wall_from_monotonic(exec.timestamp_ns);
        let seconds = time_ns / 1_000_000_000;
        let ruleset = Arc::clone(&self.ruleset);
        let mut subject = ruleset.subject(exec, surroundings, clock);
        if ruleset.wants().baseline
            && let Some(baseline) = &mut self.baseline
        {
            // Whether a rule matches or not: these fields tell of the program by itself.
            subject.set_past(Tuple::of_program(&subject).map(|tuple| baseline.see(&tuple, seconds)));
        }
        let mut verdict = Verdict::default();
        let mut rules: Vec<&Rule> = Vec::new();
        let today = Date::of_unix_time(seconds);
        for found in ruleset.matching(&subject, today) {
            if let Some(exception) = found.exception {
                exception.hit();
                verdict.silenced.push((found.rule.id.clone(), exception.id.clone()));
                continue;
            }
            found.rule.hit();
            if let Some(exception) = ruleset.expired_exception(found.rule, &subject, today) {
                verdict.expired.push((found.rule.id.clone(), exception.id.clone()));
            }
            if self.counts.reached(found.rule, &subject, exec.timestamp_ns) {
                rules.push(found.rule);
            } else {
                verdict.held_back.push(found.rule.id.clone());
            }
        }
        // Who was acted on is told, even if the worker, who knows more, finds no match or an exception.
        let acted = exec.response.filter(|response| response.outcome.acted()).map(|response| response.rule);
        if let Some(acted) = &acted
            && !rules.iter().any(|rule| rule.id == acted.as_str())
            && let Some((_, rule)) = ruleset.find(acted.as_str())
        {
            rules.push(rule);
        }
        let program = || Tuple::of_program(&subject);
        let mut judged = Judged::all(rules, acted.as_ref(), self.baseline.as_mut(), program, seconds);
        judged.retain(|judged| {
            let known = judged.effect == Effect::Silenced;
            if known {
                verdict.known.push(judged.rule.id.clone());
            }
            !known
        });
        judged.sort_by_key(|judged| std::cmp::Reverse(judged.severity()));
        let rules: Vec<&Rule> = judged.iter().map(|judged| judged.rule).collect();
        let acting = rules.iter().filter(|rule| rule.action != Action::Alert);
        verdict.actions = acting.map(|rule| (rule.action, RuleName::new(&rule.id))).collect();
        // Of two alike, the more severe.
        verdict.actions.sort_by_key(|(action, _)| std::cmp::Reverse(action.precedence()));
        verdict.alert = Alert::new(exec, &rules, &subject, &ruleset, surroundings, clock, time_ns);
        if let (Some(alert), Some(first)) = (&mut verdict.alert, judged.first()) {
            alert.rule.severity = first.severity();
            alert.baseline = self.baseline.is_some().then(|| first.standing());
        }
        if self.recording {
            verdict.event = Some(Event::of_subject(exec, &subject, surroundings, clock, time_ns));
        }
        verdict
    }
}

/// A match, and what the baseline makes of it.
struct Judged<'r> {
    rule: &'r Rule,
    past: Option<Past>,
    effect: Effect,
}

impl<'r> Judged<'r> {
    /// Asks the baseline of each match. A program of which too little is known to compare it is left as it is, and so is
    /// the match of the rule that `acted`, which may ask for nothing any more since a reload.
    fn all(
        rules: Vec<&'r Rule>,
        acted: Option<&RuleName>,
        baseline: Option<&mut Baseline>,
        program: impl FnOnce() -> Option<Tuple>,
        time_s: u64,
    ) -> Vec<Judged<'r>> {
        let unjudged = |rule| Judged { rule, past: None, effect: Effect::None };
        let Some(baseline) = baseline.filter(|_| !rules.is_empty()) else {
            return rules.into_iter().map(unjudged).collect();
        };
        let Some(program) = program() else {
            return rules.into_iter().map(unjudged).collect();
        };
        let judge = |rule: &'r Rule| {
            // Nothing is done about a program without an alert, and no match of such a rule is normal.
            if rule.action != Action::Alert || acted.is_some_and(|acted| acted.as_str() == rule.id) {
                return unjudged(rule);
            }
            let (past, effect) = baseline.judge(&program.with_rule(&rule.id), rule.severity, time_s);
            Judged { rule, past: Some(past), effect }
        };
        rules.into_iter().map(judge).collect()
    }

    fn severity(&self) -> Severity {
        match self.effect {
            Effect::Raised(severity) | Effect::Lowered(severity) => severity,
            Effect::None | Effect::Silenced => self.rule.severity,
        }
    }

    fn standing(&self) -> Standing {
        let changed = self.severity() != self.rule.severity;
        Standing { past: self.past, severity_was: changed.then_some(self.rule.severity) }
    }
}
