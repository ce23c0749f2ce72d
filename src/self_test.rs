//! Tests of rules as data: `[[test]]` tables name a rule, events that it must match, and near misses.
//!
//! ```toml
//! [[test]]
//! rule = "netcat-listener"
//! matches = [{ exe = "/usr/bin/nc.openbsd", args = ["nc", "-lp", "4444"] }]
//! misses = [{ exe = "/usr/bin/nc.openbsd", args = ["nc", "-z", "db", "5432"] }]
//! ```
//!
//! In: the sources of rules and a rule set. Out: messages about tests that fail. The daemon reads none of this: `check`
//! does, and a test over the shipped rules. The tables stand in any file of rules, those of the shipped rules in files
//! of their own that are compiled in.
//!
//! `rule = "*"` is for what no rule may match: ordinary operation.
//!
//! A near miss must be refused for what the event says: where a rule cannot be decided because the event says too little,
//! the test proves nothing, and fails. Exceptions and thresholds play no part. Each event also goes through the
//! prefilter, which must not stop what a rule matches.

use std::collections::BTreeMap;

use toml::Spanned;

use crate::calendar::Date;
use crate::diagnostics::{Diagnostic, Diagnostics, Level, Source};
use crate::document::{Document, Section};
use crate::event::Event;
use crate::process::capture::Prefilter;
use crate::rules::condition::Truth;
use crate::rules::explain::why_not;
use crate::rules::load::{self, Places};
use crate::rules::model::Rule;
use crate::rules::ruleset::{RuleSet, evaluate};

/// In the place of a rule's id: none of them matches.
const ALL: &str = "*";

/// Tests of rules, with the files they stand in.
#[derive(Debug)]
pub struct SelfTest {
    files: Vec<(Source, Vec<Test>)>,
    places: Places,
}

/// A `[[test]]` table.
#[derive(Debug)]
struct Test {
    rule: Spanned<String>,
    matches: Vec<Spanned<Event>>,
    misses: Vec<Spanned<Event>>,
}

/// What came of a run.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Events that were judged as they should be.
    pub passed: usize,
    /// Events that were not.
    pub failed: usize,
    /// Events of the package's tests that were left out, because their rule was changed or switched off.
    pub skipped: usize,
    /// Rules that were tested.
    pub rules: usize,
    /// A message for each failure, and for each rule without a test.
    pub messages: Vec<Diagnostic>,
}

impl SelfTest {
    /// Reads the tests from where the rules come from; a mistake is reported, and what holds it is left out.
    ///
    /// What is wrong with the files themselves is for the reader of rules to tell.
    pub fn read(places: &Places, diagnostics: &Diagnostics) -> SelfTest {
        let sources = load::sources(places, load::Kind::Tests, &Diagnostics::default());
        SelfTest::of_sources(sources, places, diagnostics)
    }

    /// Reads the tests in these files.
    pub fn of_sources(sources: Vec<Source>, places: &Places, diagnostics: &Diagnostics) -> SelfTest {
        let unheard = Diagnostics::default();
        let files = sources.into_iter().map(|source| {
            let document = Document::parse(&source, &unheard);
            let tests = document.root(diagnostics).sections("test", "a test").into_iter().filter_map(test);
            let tests = tests.collect();
            drop(document);
            (source, tests)
        });
        SelfTest { files: files.collect(), places: places.clone() }
    }

    /// The events that rules must match.
    pub fn matches(&self) -> impl Iterator<Item = &Event> {
        let tests = self.files.iter().flat_map(|(_, tests)| tests);
        tests.flat_map(|test| &test.matches).map(Spanned::get_ref)
    }

    /// Tries every rule on its events.
    pub fn run(&self, ruleset: &RuleSet) -> Outcome {
        let mut outcome = Outcome::default();
        // For each rule, whether an event that it matches and one that it does not were seen.
        let mut covered: BTreeMap<&str, (bool, bool)> = BTreeMap::new();
        let mut as_shipped: Option<Option<RuleSet>> = None;
        for (source, test) in
            self.files.iter().flat_map(|(source, tests)| tests.iter().map(move |test| (source, test)))
        {
            let id: &str = test.rule.get_ref();
            let events = test.matches.len() + test.misses.len();
            let from_package = load::is_builtin(&source.name);
            if id == ALL {
                for event in &test.misses {
                    match strangers(ruleset, event.get_ref(), from_package) {
                        Ok(()) => outcome.passed += 1,
                        Err(mistake) => {
                            outcome.failed += 1;
                            outcome.messages.push(Diagnostic::at(
                                Level::Error,
                                source,
                                event.span(),
                                mistake,
                            ));
                        }
                    }
                }
                continue;
            }
            let Some(rule) = ruleset.rules().iter().find(|rule| rule.id == id) else {
                let hint =
                    crate::diagnostics::suggestion(id, ruleset.rules().iter().map(|rule| rule.id.as_str()));
                // A file of the administrator's may have taken the place of the one that held the rule.
                if from_package && !self.places.folders.is_empty() {
                    outcome.skipped += events;
                } else {
                    let message = format!("there is no rule `{id}`{hint}");
                    outcome.messages.push(Diagnostic::at(Level::Error, source, test.rule.span(), message));
                }
                continue;
            };
            if !rule.enabled || from_package && !load::is_builtin(&rule.origin) {
                outcome.skipped += events;
                continue;
            }
            let (matches, misses) = covered.entry(id).or_default();
            *matches |= !test.matches.is_empty();
            *misses |= !test.misses.is_empty();
            let wanted = test.matches.iter().map(|event| (event, true));
            for (event, wanted) in wanted.chain(test.misses.iter().map(|event| (event, false))) {
                let Err(mistake) = judge(ruleset, rule, event.get_ref(), wanted) else {
                    outcome.passed += 1;
                    continue;
                };
                // A shipped rule that holds its own tests among shipped rules alone was changed through a macro, or a
                // utility: that is the administrator's right.
                let changed = from_package && {
                    let shipped = as_shipped.get_or_insert_with(|| load::builtin(&Diagnostics::default()));
                    shipped.as_ref().is_some_and(|shipped| {
                        let rule = shipped.rules().iter().find(|rule| rule.id == id);
                        rule.is_some_and(|rule| judge(shipped, rule, event.get_ref(), wanted).is_ok())
                    })
                };
                let (level, because) = if changed {
                    outcome.skipped += 1;
                    (Level::Warning, ", because of utilities or macros of your own")
                } else {
                    outcome.failed += 1;
                    (Level::Error, "")
                };
                let message = format!("rule `{id}` {mistake}{because}");
                outcome.messages.push(Diagnostic::at(level, source, event.span(), message));
            }
        }
        outcome.rules = covered.len();
        for rule in ruleset.rules().iter().filter(|rule| rule.enabled) {
            let missing = match covered.get(rule.id.as_str()).copied().unwrap_or_default() {
                (true, true) => continue,
                (false, true) => "no test of an exec that it matches",
                (true, false) => "no test of a near miss, which it must not match",
                (false, false) => "no test",
            };
            let level = if load::is_builtin(&rule.origin) { Level::Error } else { Level::Warning };
            let message = format!("rule `{}` has {missing}; write a [[test]] for it", rule.id);
            outcome.messages.push(Diagnostic::whole(level, &rule.origin, message));
        }
        outcome
    }
}

/// Errs if any rule matches; of the package's tests, any of the package's rules.
fn strangers(ruleset: &RuleSet, event: &Event, from_package: bool) -> Result<(), String> {
    let case = event.case(0);
    let seconds = case.exec.timestamp_ns / 1_000_000_000;
    let subject = ruleset.subject(&case.exec, &case.surroundings, &case.clock);
    let matching = ruleset.matching(&subject, Date::of_unix_time(seconds));
    let ids: Vec<&str> = matching
        .iter()
        .filter(|found| !from_package || load::is_builtin(&found.rule.origin))
        .map(|found| found.rule.id.as_str())
        .collect();
    if ids.is_empty() {
        Ok(())
    } else {
        Err(format!("`{}` matches this exec, and no rule should", ids.join("`, `")))
    }
}

fn test(section: Section<'_>) -> Option<Test> {
    let rule = section.required_string("rule");
    let matches = section.deserialize::<Vec<Spanned<Event>>>("matches");
    let misses = section.deserialize::<Vec<Spanned<Event>>>("misses");
    let (matches, misses) = (
        matches.map(|list| list.value).unwrap_or_default(),
        misses.map(|list| list.value).unwrap_or_default(),
    );
    if let Some(rule) = &rule {
        if matches.is_empty() && misses.is_empty() {
            section.error(rule.span.clone(), "a test needs events in `matches`, `misses` or both");
        } else if rule.value == ALL && !matches.is_empty() {
            section.error(rule.span.clone(), "a test of all rules takes `misses` only");
        }
    }
    section.finish();
    let rule = rule?;
    Some(Test { rule: Spanned::new(rule.span, rule.value.to_owned()), matches, misses })
}

/// Tries a rule on an event; the error says what is wrong, as the end of a sentence about the rule.
fn judge(ruleset: &RuleSet, rule: &Rule, event: &Event, wanted: bool) -> Result<(), String> {
    let case = event.case(0);
    let seconds = case.exec.timestamp_ns / 1_000_000_000;
    let subject = ruleset.subject(&case.exec, &case.surroundings, &case.clock);
    match (evaluate(rule, &subject), wanted) {
        (Truth::True, false) => return Err("matches this exec, and should not".to_owned()),
        (Truth::True, true) => {}
        (truth, true) => {
            let reason = why_not(rule, &subject).map_or(String::new(), |reason| format!(": {reason}"));
            let how =
                if truth == Truth::Unknown { "cannot tell whether it matches" } else { "does not match" };
            return Err(format!("{how} this exec, and should match{reason}"));
        }
        (Truth::Unknown, false) => {
            let reason = why_not(rule, &subject).map_or(String::new(), |reason| format!(": {reason}"));
            return Err(format!("cannot tell whether it matches this exec, and should not{reason}"));
        }
        (Truth::False, false) => return Ok(()),
    }
    // Found by the index, and let through on the listener's thread?
    if !ruleset.matching(&subject, Date::of_unix_time(seconds)).iter().any(|found| found.rule.id == rule.id) {
        return Err("matches this exec, but the prefilter's index does not lead to it".to_owned());
    }
    let hints = case.exec.details.hints(case.exec.details.comm());
    if !ruleset.could_match(&case.exec.image, hints) {
        return Err("matches this exec, but the prefilter lets it go".to_owned());
    }
    Ok(())
}
