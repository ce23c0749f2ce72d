//! `execwatch check`

use super::{Files, exit, print, report};
use crate::clock;
use crate::diagnostics::{Diagnostics, Level};
use crate::health::hits::Hits;
use crate::rules::review::review;

pub(super) fn check(files: &Files) -> u8 {
    let diagnostics = Diagnostics::default();
    let (config, ruleset) = files.load(&diagnostics);
    if let Some(ruleset) = &ruleset {
        // Only root can read the file; without it nothing is known of hits, which is said nowhere because it is usual.
        let hits = Hits::load(&config.state_folder).unwrap_or_default();
        let now = clock::realtime_ns() / 1_000_000_000;
        review(ruleset, &hits, now).into_iter().for_each(|found| diagnostics.push(found));
    }
    let list = diagnostics.into_list();
    if let Some(code) = report(&list) {
        let mistakes = list.iter().filter(|diagnostic| diagnostic.level == Level::Error).count();
        eprintln!("execwatch: {} found", counted(mistakes, "mistake", "mistakes"));
        return code;
    }
    let (rules, utilities) =
        ruleset.map_or((0, 0), |set| (set.rules().len(), set.catalogue().utilities().len()));
    let rules = counted(rules, "rule", "rules");
    let utilities = counted(utilities, "utility", "utilities");
    match print(&format!("execwatch: {rules} and {utilities}, no mistake found\n")) {
        0 => exit::OK,
        code => code,
    }
}

pub(super) fn counted(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}
