//! A compiled set of rules, and its two questions: could one match, and which do.

use super::catalogue::{Catalogue, Utility};
use super::condition::Truth;
use super::fields::{Subject, Surroundings};
use super::model::Rule;
use super::prefilter::Index;
use crate::process::capture::Prefilter;
use crate::process::exec::{Exec, Image};

/// Rules, catalogue and their index.
#[derive(Debug, Default)]
pub struct RuleSet {
    catalogue: Catalogue,
    rules: Vec<Rule>,
    index: Index,
}

impl RuleSet {
    /// Compiles utilities and rules; rules that are switched off are listed but not evaluated.
    pub fn new(utilities: Vec<Utility>, mut rules: Vec<Rule>) -> Self {
        let catalogue = Catalogue::new(utilities);
        // Those switched off come last, so that the index numbers the rest.
        rules.sort_by_key(|rule| !rule.enabled);
        let enabled = rules.partition_point(|rule| rule.enabled);
        let index = Index::new(&rules[..enabled], &catalogue);
        RuleSet { catalogue, rules, index }
    }

    /// The catalogue.
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// All rules.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The rules whose conditions name no program and no text that the prefilter could look for.
    pub fn unguarded(&self) -> impl Iterator<Item = &Rule> {
        self.index.always().iter().filter_map(|&number| self.rules.get(number))
    }

    /// The exec with all that is needed to read its fields.
    pub fn subject<'a>(&'a self, exec: &'a Exec, surroundings: &'a Surroundings) -> Subject<'a> {
        Subject::whole(exec, &self.catalogue, surroundings)
    }

    /// The rules that match, the most severe first and otherwise in the order of the files.
    pub fn matching(&self, subject: &Subject<'_>) -> Vec<&Rule> {
        let mut candidates = Vec::new();
        self.index.visit(subject.image(), subject.utility().map(|found| found.utility), |number| {
            candidates.push(number);
            false
        });
        candidates.sort_unstable();
        candidates.dedup();
        let mut matching: Vec<&Rule> = candidates
            .into_iter()
            .filter_map(|number| self.rules.get(number))
            .filter(|rule| evaluate(rule, subject) == Truth::True)
            .collect();
        matching.sort_by_key(|rule| std::cmp::Reverse(rule.severity));
        matching
    }
}

impl Prefilter for RuleSet {
    fn could_match(&self, image: &Image) -> bool {
        let subject = Subject::hot(image, &self.catalogue);
        self.index.visit(image, subject.utility().map(|found| found.utility), |number| {
            self.rules.get(number).is_some_and(|rule| evaluate(rule, &subject) != Truth::False)
        })
    }
}

/// Whether a rule matches a subject.
pub fn evaluate(rule: &Rule, subject: &Subject<'_>) -> Truth {
    rule.condition.evaluate(&|index| match rule.selections.get(index) {
        Some(selection) => Truth::any(
            selection
                .alternatives
                .iter()
                .map(|tests| Truth::all(tests.iter().map(|written| written.test.evaluate(subject)))),
        ),
        None => Truth::Unknown,
    })
}
