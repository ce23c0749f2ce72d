//! How much speaks for an intrusion: 0 to 100, by a sum that can be followed with a pencil. `docs/incidents.md` shows it.
//!
//! An alert that the baseline knows as normal counts by a third of its severity and with nothing else.

use std::collections::BTreeSet;

use super::kept::KeptAlert;

/// What the highest severity is worth.
const HIGHEST: [u32; 5] = [0, 8, 20, 45, 65];
/// What each further rule is worth, by its severity, and all of them together.
const FURTHER: [u32; 5] = [0, 2, 5, 10, 15];
const MOST_FURTHER: u32 = 30;
/// Each further utility, category and technique, and all of them together.
const BREADTH: u32 = 3;
const MOST_BREADTH: u32 = 20;
/// A utility under another name than its own.
const DISGUISED: u32 = 15;
/// Something was never seen here before.
const NEW: u32 = 10;
/// A shell below a service or in a container.
const SERVICE_SHELL: u32 = 20;
/// A person who logged in, at a terminal.
const INTERACTIVE: u32 = 15;

/// Names of programs that are shells.
const SHELLS: &[&str] = &["ash", "bash", "busybox", "dash", "fish", "ksh", "mksh", "sh", "tcsh", "zsh"];

/// What a score is made from.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    highest: u32,
    known: u32,
    rules: BTreeSet<String>,
    further: u32,
    breadth: BTreeSet<String>,
    disguised: bool,
    new: bool,
    service_shell: bool,
    /// All alerts so far came from a person at a terminal.
    interactive: Option<bool>,
}

/// Rules, utilities, categories and techniques remembered of one incident: far more than what counts.
const MOST_REMEMBERED: usize = 64;

impl Evidence {
    /// Takes an alert; `programs` are the names of the programs above it, up to the entry.
    pub fn add(&mut self, alert: &KeptAlert, programs: &[String]) {
        let level = alert.severity as usize;
        let person =
            matches!(alert.entry.as_deref(), Some("ssh" | "login" | "remote")) && alert.tty.is_some();
        self.interactive = Some(self.interactive.unwrap_or(true) && person);
        if alert.baseline.as_deref() == Some("known") {
            self.known = self.known.max(HIGHEST[level] / 3);
            return;
        }
        self.highest = self.highest.max(HIGHEST[level]);
        if self.rules.len() < MOST_REMEMBERED && self.rules.insert(alert.rule.clone()) {
            self.further += FURTHER[level];
        }
        if let Some(utility) = &alert.utility {
            self.remember(format!("utility {}", utility.name));
            self.remember(format!("category {}", utility.category));
            self.disguised |= utility.disguised;
        }
        alert.attack.iter().for_each(|technique| self.remember(technique.clone()));
        self.new |= alert.baseline.as_deref() == Some("new");
        let is_shell = |name: &String| SHELLS.contains(&name.as_str());
        // Orphans and services of System V init are below init; a job of cron always has a shell.
        let service = matches!(alert.entry.as_deref(), Some("service" | "container" | "init"));
        self.service_shell |= service && programs.iter().any(is_shell);
    }

    fn remember(&mut self, word: String) {
        if self.breadth.len() < MOST_REMEMBERED {
            self.breadth.insert(word);
        }
    }

    /// The score.
    pub fn score(&self) -> u8 {
        // The first rule counts by its severity, and one utility with its category and technique is no breadth.
        let first = FURTHER[HIGHEST.iter().position(|&worth| worth == self.highest).unwrap_or(0)];
        let breadth = u32::try_from(self.breadth.len().saturating_sub(3)).unwrap_or(u32::MAX);
        let yes = |is: bool, worth: u32| if is { worth } else { 0 };
        let sum = self.highest.max(self.known)
            + self.further.saturating_sub(first).min(MOST_FURTHER)
            + breadth.saturating_mul(BREADTH).min(MOST_BREADTH)
            + yes(self.disguised, DISGUISED)
            + yes(self.new, NEW)
            + yes(self.service_shell, SERVICE_SHELL);
        let less = yes(self.interactive == Some(true) && !self.disguised, INTERACTIVE);
        u8::try_from(sum.saturating_sub(less).min(100)).unwrap_or(100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::kept::KeptUtility;
    use crate::rules::model::Severity;

    fn alert(severity: Severity, rule: &str, tool: &str, entry: &str, baseline: &str) -> KeptAlert {
        KeptAlert {
            severity,
            rule: rule.to_owned(),
            utility: Some(KeptUtility { name: tool.into(), category: tool.into(), disguised: false }),
            attack: vec![format!("T-{tool}")],
            entry: Some(entry.to_owned()),
            tty: Some("pts/0".to_owned()).filter(|_| entry == "ssh"),
            baseline: Some(baseline.to_owned()),
            ..KeptAlert::default()
        }
    }

    fn score(alerts: &[KeptAlert], programs: &[&str]) -> u8 {
        let programs: Vec<String> = programs.iter().map(|&name| name.to_owned()).collect();
        let mut evidence = Evidence::default();
        alerts.iter().for_each(|alert| evidence.add(alert, &programs));
        evidence.score()
    }

    #[test]
    fn a_shell_of_a_service_counts_and_a_known_admin_does_not() {
        use Severity::{Critical, High, Low, Medium};
        assert_eq!(score(&[alert(Medium, "a", "curl", "service", "seen")], &["sh", "httpd"]), 40);
        assert_eq!(score(&[alert(Medium, "a", "curl", "service", "seen")], &["httpd"]), 20);
        // What is known is worth little, however much of it there is.
        let known: Vec<KeptAlert> = ["curl", "nc", "nmap", "dig", "ssh"]
            .iter()
            .map(|&tool| alert(Medium, tool, tool, "ssh", "known"))
            .collect();
        assert_eq!(score(&known, &["bash"]), 0);
        // A high alert that is new counts also from a person, one that was seen does not.
        assert_eq!(score(&[alert(High, "a", "nc", "ssh", "new")], &["bash"]), 40);
        assert_eq!(score(&[alert(High, "a", "nc", "ssh", "seen")], &["bash"]), 30);
        assert_eq!(score(&[alert(Low, "a", "dig", "init", "new")], &["bash"]), 38);
        assert_eq!(score(&[alert(Critical, "a", "nc", "service", "new")], &["sh"]), 95);
        let disguised = KeptAlert {
            utility: Some(KeptUtility { name: "nc".into(), category: "netcat".into(), disguised: true }),
            ..alert(Medium, "a", "nc", "ssh", "seen")
        };
        assert_eq!(score(&[disguised], &["bash"]), 35);
    }

    #[test]
    fn breadth_has_an_end() {
        let many: Vec<KeptAlert> = (0..200)
            .map(|number| {
                alert(Severity::Medium, &format!("r{number}"), &format!("t{number}"), "cron", "seen")
            })
            .collect();
        assert_eq!(score(&many[..2], &[]), 20 + 5 + 9);
        assert_eq!(score(&many, &[]), 20 + 30 + 20);
    }
}
