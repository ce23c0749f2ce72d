//! A compiled set of rules, and its two questions: could one match, and which do.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::catalogue::{Catalogue, Hints, Utility};
use super::condition::Truth;
use super::exception::Exception;
use super::fields::Attribute;
use super::model::Rule;
use super::prefilter::Index;
use super::selection::Written;
use super::subject::{Subject, Surroundings};
use crate::alert::Clock;
use crate::calendar::Date;
use crate::process::capture::{Prefilter, Wants};
use crate::process::exec::{Exec, Image};

/// Rules, exceptions, catalogue and their index.
#[derive(Debug, Default)]
pub struct RuleSet {
    catalogue: Catalogue,
    rules: Vec<Counted<Rule>>,
    exceptions: Vec<Counted<Exception>>,
    index: Index,
    wants: Wants,
}

/// A rule or exception, and how often it took effect.
#[derive(Debug)]
pub struct Counted<T> {
    entry: T,
    hits: AtomicU64,
}

impl<T> std::ops::Deref for Counted<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.entry
    }
}

impl<T> Counted<T> {
    fn new(entry: T) -> Self {
        Counted { entry, hits: AtomicU64::new(0) }
    }

    /// How often it took effect since the start.
    pub fn hits(&self) -> u64 {
        self.hits.load(Relaxed)
    }

    /// Counts one more time.
    pub fn hit(&self) {
        self.hits.fetch_add(1, Relaxed);
    }
}

/// A rule that matches, and the exception that silences it.
#[derive(Debug, Clone, Copy)]
pub struct Match<'r> {
    /// The rule.
    pub rule: &'r Counted<Rule>,
    /// The exception, if one does.
    pub exception: Option<&'r Counted<Exception>>,
}

impl RuleSet {
    /// Compiles the set; rules that are switched off are listed but not evaluated.
    pub fn new(utilities: Vec<Utility>, mut rules: Vec<Rule>, exceptions: Vec<Exception>) -> Self {
        let catalogue = Catalogue::new(utilities);
        // Those switched off come last, so that the index numbers the rest.
        rules.sort_by_key(|rule| !rule.enabled);
        let enabled = rules.partition_point(|rule| rule.enabled);
        let index = Index::new(&rules[..enabled], &catalogue);
        let tests = rules[..enabled].iter().flat_map(Rule::tests);
        let in_exceptions = exceptions.iter().flat_map(|exception| exception.selection.tests());
        let of_thresholds = rules[..enabled]
            .iter()
            .filter_map(|rule| rule.threshold.as_ref())
            .flat_map(|threshold| threshold.by.iter().chain(&threshold.distinct));
        let mut wants = Wants::default();
        for field in tests.chain(in_exceptions).flat_map(Written::fields).chain(of_thresholds) {
            match field.info.attribute {
                Attribute::Env | Attribute::Environment => wants.environment = true,
                Attribute::ExeUpperLayer => wants.upper_layer = true,
                Attribute::ExeSha256 => wants.content = true,
                Attribute::ExePackageManaged => wants.packages = true,
                _ => {}
            }
        }
        RuleSet {
            catalogue,
            rules: rules.into_iter().map(Counted::new).collect(),
            exceptions: exceptions.into_iter().map(Counted::new).collect(),
            index,
            wants,
        }
    }

    /// The catalogue.
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// All rules.
    pub fn rules(&self) -> &[Counted<Rule>] {
        &self.rules
    }

    /// All exceptions.
    pub fn exceptions(&self) -> &[Counted<Exception>] {
        &self.exceptions
    }

    /// The rules whose conditions name no program and no text that the prefilter could look for.
    pub fn unguarded(&self) -> impl Iterator<Item = &Rule> {
        self.index.always().iter().filter_map(|&number| self.rules.get(number)).map(|counted| &counted.entry)
    }

    /// The exec with all that is needed to read its fields.
    pub fn subject<'a>(
        &'a self,
        exec: &'a Exec,
        surroundings: &'a Surroundings,
        clock: &'a dyn Clock,
    ) -> Subject<'a> {
        Subject::whole(exec, &self.catalogue, surroundings, clock)
    }

    /// The rules that match, the most severe first and otherwise in the order of the files, each with the exception that
    /// silences it on that day.
    pub fn matching(&self, subject: &Subject<'_>, today: Date) -> Vec<Match<'_>> {
        let mut candidates = Vec::new();
        self.index.visit(subject.image(), subject.utility().map(|found| found.utility), |number| {
            candidates.push(number);
            false
        });
        candidates.sort_unstable();
        candidates.dedup();
        let mut matching: Vec<Match<'_>> = candidates
            .into_iter()
            .filter_map(|number| self.rules.get(number))
            .filter(|rule| evaluate(&rule.entry, subject) == Truth::True)
            .map(|rule| Match { rule, exception: self.exception(&rule.entry, subject, today) })
            .collect();
        matching.sort_by_key(|found| std::cmp::Reverse(found.rule.entry.severity));
        matching
    }

    fn exception(&self, rule: &Rule, subject: &Subject<'_>, today: Date) -> Option<&Counted<Exception>> {
        self.exceptions.iter().find(|counted| {
            let exception = &counted.entry;
            exception.is_about(rule) && !exception.expired(today) && exception.covers(subject)
        })
    }
}

impl Prefilter for RuleSet {
    fn could_match(&self, image: &Image, hints: Hints<'_>) -> bool {
        let subject = Subject::on_hot_path(image, &self.catalogue, hints);
        self.index.visit(image, subject.utility().map(|found| found.utility), |number| {
            self.rules.get(number).is_some_and(|rule| evaluate(&rule.entry, &subject) != Truth::False)
        })
    }

    fn wants_utilities(&self) -> bool {
        self.index.of_utilities()
    }

    fn wants_comm(&self, image: &Image) -> bool {
        self.catalogue.leaves_name_open(image)
    }

    fn wants(&self) -> Wants {
        self.wants
    }
}

/// Whether a rule matches a subject.
pub fn evaluate(rule: &Rule, subject: &Subject<'_>) -> Truth {
    rule.condition.evaluate(&|index| {
        rule.selections.get(index).map_or(Truth::Unknown, |selection| selection.evaluate(subject))
    })
}
