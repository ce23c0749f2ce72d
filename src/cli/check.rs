//! `execwatch check`

use super::{Files, exit, print, report};
use crate::diagnostics::{Diagnostic, Diagnostics, Level};
use crate::rules::ruleset::RuleSet;

pub(super) fn check(files: &Files) -> u8 {
    let diagnostics = Diagnostics::default();
    let (_, ruleset) = files.load(&diagnostics);
    for rule in ruleset.iter().flat_map(RuleSet::unguarded) {
        diagnostics.push(Diagnostic::whole(
            Level::Warning,
            &rule.origin,
            format!(
                "rule `{}` names no program and no text that its arguments must hold, so every exec on this host is \
                 examined for it in full",
                rule.id
            ),
        ));
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

fn counted(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}
