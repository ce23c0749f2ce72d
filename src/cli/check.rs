//! `execwatch check`

use clap::Args;

use super::{Files, exit, print, report};
use crate::clock;
use crate::diagnostics::{Diagnostics, counted};
use crate::health::hits::Hits;
use crate::response;
use crate::rules::review::review;
use crate::self_test::{Outcome, SelfTest};
use crate::trust::Trust;

#[derive(Args, Debug)]
#[group(skip)]
pub(super) struct CheckArguments {
    #[command(flatten)]
    files: Files,
    /// Try every rule on the execs that its [[test]] tables describe
    ///
    /// Each must match what it should, and no near miss. The tests of a shipped rule that you changed are left out.
    #[arg(long)]
    self_test: bool,
}

pub(super) fn check(arguments: &CheckArguments) -> u8 {
    let diagnostics = Diagnostics::default();
    let (config, ruleset) = arguments.files.load_trusted(&Trust::told(), &diagnostics);
    let mut outcome = None;
    if let Some(ruleset) = &ruleset {
        // Only root can read the file; without it nothing is known of hits, which is said nowhere because it is usual.
        let hits = Hits::load(&config.state_folder).unwrap_or_default();
        let now = clock::realtime_ns() / 1_000_000_000;
        review(ruleset, &hits, now).into_iter().for_each(|found| diagnostics.push(found));
        response::review::review(ruleset).into_iter().for_each(|found| diagnostics.push(found));
        let tests = SelfTest::read(&config.rules, &diagnostics);
        if arguments.self_test {
            let mut found = tests.run(ruleset);
            found.messages.drain(..).for_each(|message| diagnostics.push(message));
            outcome = Some(found);
        }
    }
    let mistakes = diagnostics.errors();
    if let Some(code) = report(&diagnostics.into_list()) {
        if let Some(outcome) = &outcome {
            eprintln!("execwatch: {}", told(outcome));
        }
        eprintln!("execwatch: {} found", counted(mistakes, "mistake", "mistakes"));
        return code;
    }
    let responses = ruleset.as_ref().map_or(String::new(), |ruleset| {
        let capture = &config.capture;
        response::review::summary(ruleset, &config.response, capture.listeners, capture.realtime_priority)
    });
    let (rules, utilities) =
        ruleset.map_or((0, 0), |set| (set.rules().len(), set.catalogue().utilities().len()));
    let rules = counted(rules, "rule", "rules");
    let utilities = counted(utilities, "utility", "utilities");
    let tests = outcome.map_or(String::new(), |outcome| format!("execwatch: {}\n", told(&outcome)));
    match print(&format!("{responses}{tests}execwatch: {rules} and {utilities}, no mistake found\n")) {
        0 => exit::OK,
        code => code,
    }
}

fn told(outcome: &Outcome) -> String {
    let rules = counted(outcome.rules, "rule", "rules");
    let execs = counted(outcome.passed + outcome.failed, "exec", "execs");
    let skipped = match outcome.skipped {
        0 => String::new(),
        skipped => format!(", {skipped} left out because you changed or switched off what they test"),
    };
    format!(
        "{rules} tried on {execs}: {} judged rightly, {} wrongly{skipped}",
        outcome.passed, outcome.failed
    )
}
