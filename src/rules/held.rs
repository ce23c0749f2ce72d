//! Rules that a listener decides while it holds the program: those with the actions `deny` and `hold`.
//!
//! They have an index of their own, so that a program which only other rules could match costs one look-up more, and
//! nothing where there are none.

use super::action::Action;
use super::catalogue::{Catalogue, Hints};
use super::condition::Truth;
use super::fields::Role;
use super::model::Rule;
use super::prefilter::Index;
use super::ruleset::{Counted, RuleSet, evaluate};
use super::selection::Written;
use super::subject::Subject;
use crate::calendar::Date;
use crate::process::exec::Image;

/// The index of the rules that are decided while the program is held.
#[derive(Debug, Default)]
pub(super) struct HeldRules {
    /// `None` if there are none.
    index: Option<Index>,
    /// One of them, or an exception, asks for other processes than the program itself.
    relatives: bool,
}

impl HeldRules {
    /// Indexes those among the rules, which come with their numbers.
    pub(super) fn new<'r>(
        rules: impl Iterator<Item = (usize, &'r Rule)>,
        in_exceptions: impl Iterator<Item = &'r Written>,
        catalogue: &'r Catalogue,
    ) -> Self {
        let held: Vec<(usize, &Rule)> = rules.filter(|(_, rule)| rule.action.of_held()).collect();
        if held.is_empty() {
            return HeldRules::default();
        }
        let tests = held.iter().flat_map(|(_, rule)| rule.tests()).chain(in_exceptions);
        let relatives = tests.flat_map(Written::fields).any(|field| field.role != Role::Own);
        HeldRules { index: Some(Index::new(held.into_iter(), catalogue)), relatives }
    }
}

/// What a listener can say of a held program.
#[derive(Debug, Clone, Copy)]
pub enum Decision<'r> {
    /// No rule that acts on held programs matches it.
    No,
    /// One may, which the worker finds out.
    Open,
    /// This one does, by its number, and no exception covers the program.
    Yes(usize, &'r Counted<Rule>),
}

impl RuleSet {
    /// There are rules that act on held programs.
    pub fn acts_on_held(&self) -> bool {
        self.held.index.is_some()
    }

    /// To decide on a held program, other processes may have to be looked at.
    pub fn held_wants_relatives(&self) -> bool {
        self.held.relatives
    }

    /// False if no rule that acts on held programs can match, by executable and arguments.
    pub fn could_act_on_held(&self, image: &Image, hints: Hints<'_>) -> bool {
        let Some(index) = &self.held.index else { return false };
        let subject = Subject::on_hot_path(image, self.catalogue(), hints);
        index.visit(image, subject.utility().map(|found| found.utility), |number| {
            self.rules().get(number).is_some_and(|rule| evaluate(rule, &subject) != Truth::False)
        })
    }

    /// Decides on a held program. Whether an exception covers it must be known for certain, and a threshold is counted
    /// by the worker: otherwise the decision is open.
    pub fn decide_on_held(&self, subject: &Subject<'_>, today: Date) -> Decision<'_> {
        let Some(index) = &self.held.index else { return Decision::No };
        let mut decision = Decision::No;
        let utility = subject.utility().map(|found| found.utility);
        index.visit(subject.image(), utility, |number| {
            let Some(rule) = self.rules().get(number) else { return false };
            let matches = match evaluate(rule, subject) {
                Truth::False => return false,
                Truth::True if rule.threshold.is_none() => self.uncovered(rule, subject, today),
                Truth::True | Truth::Unknown => Truth::Unknown,
            };
            decision = match (decision, matches) {
                (decided, Truth::False) => decided,
                (Decision::No, Truth::Unknown) => Decision::Open,
                (decided, Truth::Unknown) => decided,
                (Decision::Yes(_, first), Truth::True) if weight(first) >= weight(rule) => decision,
                (_, Truth::True) => Decision::Yes(number, rule),
            };
            false
        });
        decision
    }

    /// No exception covers the subject; false if one does.
    fn uncovered(&self, rule: &Rule, subject: &Subject<'_>, today: Date) -> Truth {
        let about = self
            .exceptions()
            .iter()
            .filter(|exception| exception.is_about(rule) && !exception.expired(today));
        match Truth::any(about.map(|exception| exception.selection.evaluate(subject))) {
            Truth::True => Truth::False,
            Truth::False => Truth::True,
            Truth::Unknown => Truth::Unknown,
        }
    }

    /// What keeps the decision on a rule's programs from being made while they are held: fields of the rule, or of an
    /// exception by its id. Empty if nothing does.
    pub fn undecidable_when_held(&self, rule: &Rule) -> Vec<String> {
        let late = |written: &&Written| !written.test.can_be_held();
        let mut found: Vec<String> =
            rule.tests().filter(late).map(|written| format!("`{}`", field_of(written))).collect();
        if rule.threshold.is_some() {
            found.push("its threshold".to_owned());
        }
        for exception in self.exceptions().iter().filter(|exception| exception.is_about(rule)) {
            let in_exception = exception.selection.tests().filter(late);
            found.extend(
                in_exception
                    .map(|written| format!("`{}` in exception `{}`", field_of(written), exception.id)),
            );
        }
        found.dedup();
        found
    }
}

fn field_of(written: &Written) -> &str {
    written.key.split('|').next().unwrap_or_default()
}

fn weight(rule: &Rule) -> (u8, super::model::Severity) {
    let action: Action = rule.action;
    (action.precedence(), rule.severity)
}
