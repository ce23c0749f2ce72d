//! A second look at rules that act on programs: which of them might hit what an administrator needs, and how sure they are.

use std::fmt::Write as _;

use super::{Mode, Settings};
use crate::connector::listeners::Arrangement;
use crate::diagnostics::{Diagnostic, Level, counted};
use crate::process::exec::Image;
use crate::rules::action::Action;
use crate::rules::catalogue::Hints;
use crate::rules::condition::Truth;
use crate::rules::model::Rule;
use crate::rules::ruleset::{RuleSet, evaluate};
use crate::rules::subject::Subject;

/// Programs without which a host does not start, or cannot be repaired.
const BASE_SYSTEM: [&str; 22] = [
    "/usr/bin/bash",
    "/usr/bin/cat",
    "/usr/bin/cp",
    "/usr/bin/dash",
    "/usr/bin/grep",
    "/usr/bin/kill",
    "/usr/bin/ls",
    "/usr/bin/mount",
    "/usr/bin/mv",
    "/usr/bin/ps",
    "/usr/bin/rm",
    "/usr/bin/sed",
    "/usr/bin/sleep",
    "/usr/bin/systemctl",
    "/usr/bin/udevadm",
    "/usr/bin/umount",
    "/usr/lib/systemd/systemd",
    "/usr/lib/systemd/systemd-journald",
    "/usr/sbin/agetty",
    "/usr/sbin/cron",
    "/usr/sbin/init",
    "/usr/sbin/sshd",
];

fn acting(ruleset: &RuleSet) -> impl Iterator<Item = &Rule> {
    ruleset.rules().iter().map(|rule| &**rule).filter(|rule| rule.enabled && rule.action != Action::Alert)
}

/// What an administrator should look at before rules act.
pub fn review(ruleset: &RuleSet) -> Vec<Diagnostic> {
    let unguarded: Vec<&str> = ruleset.unguarded().map(|rule| rule.id.as_str()).collect();
    let mut found = Vec::new();
    for rule in acting(ruleset) {
        let (id, action) = (&rule.id, rule.action.as_str());
        let mut warn = |message: String| {
            found.push(Diagnostic::whole(Level::Warning, rule.origin.as_str(), message));
        };
        let hit: Vec<&str> = BASE_SYSTEM.into_iter().filter(|path| may_match(rule, path, ruleset)).collect();
        if unguarded.contains(&id.as_str()) {
            warn(format!(
                "rule `{id}` has the action `{action}` and names no program and no text that its arguments must hold, so it \
                 may hit anything"
            ));
        } else if let Some(first) = hit.first() {
            let others = match hit.len() {
                1 => String::new(),
                count => format!(" and {}", counted(count - 1, "other", "others")),
            };
            warn(format!(
                "rule `{id}` has the action `{action}` and may hit programs of the base system: {first}{others}"
            ));
        }
        if rule.action.of_held() {
            let late = ruleset.undecidable_when_held(rule);
            if !late.is_empty() {
                warn(format!(
                    "rule `{id}` may be decided only after the program has begun to run: {} cannot be known while it is held",
                    late.join(", ")
                ));
            }
        }
    }
    found
}

/// The rule may match the program, run without arguments.
fn may_match(rule: &Rule, path: &str, ruleset: &RuleSet) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let image = Image::new(Some(path.as_bytes()), Some(&[name]));
    let subject = Subject::on_hot_path(&image, ruleset.catalogue(), Hints::default());
    evaluate(rule, &subject) != Truth::False
}

/// What `check` says of responses: a line or more.
pub fn summary(ruleset: &RuleSet, settings: &Settings, listeners: Arrangement, priority: u8) -> String {
    let count = acting(ruleset).count();
    let rules = counted(count, "rule has an action", "rules have an action");
    let mut text = match settings.mode {
        Mode::Off if count == 0 => return String::new(),
        Mode::Off => {
            format!("responses: off; {rules}, which only alerts until [response] mode says otherwise\n")
        }
        Mode::DryRun => format!("responses: dry run; {rules}, and alerts say what would be done\n"),
        Mode::Enforce => format!("responses: enforced; {rules}\n"),
    };
    if settings.mode == Mode::Off {
        return text;
    }
    let held = acting(ruleset).filter(|rule| rule.action.of_held()).count();
    if held > 0 {
        let certainty = if listeners == Arrangement::Single || priority == 0 {
            "as soon as possible, after the program has begun to run: [capture] listens without holding programs"
        } else {
            "before the first instruction, where the host lets execwatch hold programs (`execwatch run` says so)"
        };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  deny and hold: {certainty}");
    }
    let _ = writeln!(text, "  each rule acts at most {} times a minute", settings.per_minute);
    let _ = writeln!(
        text,
        "  never touched: the first process and the init system, kernel threads, execwatch and its ancestors, the ssh \
         server, what package managers of root's run, and {}",
        if settings.protected.is_empty() { "nothing else".to_owned() } else { settings.protected.join(" ") }
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostics::{Diagnostics, Source};
    use crate::rules::load;

    fn ruleset(text: &str) -> RuleSet {
        let diagnostics = Diagnostics::default();
        let source = Source { name: "test.toml".into(), text: text.into() };
        let found = load::compile(vec![source], &diagnostics);
        found.unwrap_or_else(|| panic!("{:?}", diagnostics.into_list()))
    }

    fn rule(id: &str, action: &str, select: &str) -> String {
        format!(
            "[[rule]]\nid = '{id}'\ntitle = 'x'\nseverity = 'low'\naction = '{action}'\n[rule.select.s]\n{select}\n"
        )
    }

    #[test]
    fn broad_and_late_rules_are_pointed_out_and_others_are_not() {
        let found = |text: &str| -> Vec<String> {
            review(&ruleset(text)).into_iter().map(|found| found.to_string()).collect()
        };
        assert_eq!(found(&rule("a", "deny", "'exe.name' = 'nc'\n'user' = 'www-data'")), Vec::<String>::new());
        assert_eq!(found(&rule("a", "alert", "'user' = 'www-data'")), Vec::<String>::new());
        let broad = found(&rule("a", "kill-tree", "'exe|startswith' = '/usr/bin/'"));
        assert!(broad.len() == 1 && broad[0].contains("/usr/bin/bash and 15 others"), "{broad:?}");
        let unbounded = found(&rule("a", "freeze", "'user' = 'www-data'"));
        assert!(unbounded.len() == 1 && unbounded[0].contains("may hit anything"), "{unbounded:?}");
        let late = found(&rule("a", "deny", "'exe.name' = 'nc'\n'parent.cmdline|contains' = 'x'"));
        assert!(late.len() == 1 && late[0].contains("`parent.cmdline`"), "{late:?}");
        let excepted = rule("a", "hold", "'exe.name' = 'nc'")
            + "[[exception]]\nid = 'e'\nreason = 'x'\nrules = ['*']\n[exception.match]\n'container.image' = 'x'\n";
        let late = found(&excepted);
        assert!(late.len() == 1 && late[0].contains("`container.image` in exception `e`"), "{late:?}");
        let ancestors = rule("a", "deny", "'exe.name' = 'nc'\n'ancestor.exe' = '/usr/sbin/nginx'");
        assert_eq!(found(&ancestors), Vec::<String>::new());
    }

    #[test]
    fn the_summary_says_mode_certainty_and_what_is_protected() {
        let rules = ruleset(&rule("a", "deny", "'exe.name' = 'nc'"));
        let say = |mode, priority| {
            let settings = Settings { mode, ..Settings::default() };
            summary(&rules, &settings, Arrangement::Auto, priority)
        };
        assert!(say(Mode::Off, 90).contains("off; 1 rule has an action"));
        let enforced = say(Mode::Enforce, 90);
        assert!(enforced.contains("before the first instruction") && enforced.contains("/usr/sbin/sshd*"));
        assert!(say(Mode::DryRun, 0).contains("as soon as possible"));
    }
}
