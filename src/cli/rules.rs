//! `execwatch rules`

use std::fmt::Write;

use clap::Args;

use super::{Files, exit, print, report};
use crate::diagnostics::Diagnostics;
use crate::rules::catalogue::Utility;
use crate::rules::fields::FIELDS;
use crate::rules::model::Rule;
use crate::rules::ruleset::RuleSet;

#[derive(Args, Debug)]
pub(super) struct RulesArguments {
    #[command(flatten)]
    files: Files,
    /// List the utilities of the catalogue
    #[arg(long, conflicts_with_all = ["fields", "name"])]
    utilities: bool,
    /// List the fields that rules can test
    #[arg(long, conflicts_with = "name")]
    fields: bool,
    /// Show this rule, or the utility of this name
    name: Option<String>,
}

pub(super) fn rules(arguments: &RulesArguments) -> u8 {
    if arguments.fields {
        return print(&fields());
    }
    let diagnostics = Diagnostics::default();
    let (_, ruleset) = arguments.files.load(&diagnostics);
    if let Some(code) = report(&diagnostics.into_list()) {
        return code;
    }
    let Some(ruleset) = ruleset else { return exit::CONFIG };
    match &arguments.name {
        Some(name) => match show(&ruleset, name) {
            Some(text) => print(&text),
            None => {
                eprintln!("execwatch: there is no rule and no utility called `{name}`");
                exit::USAGE
            }
        },
        None if arguments.utilities => print(&utilities(&ruleset)),
        None => print(&list(&ruleset)),
    }
}

fn list(ruleset: &RuleSet) -> String {
    let width = ruleset.rules().iter().map(|rule| rule.id.len()).max().unwrap_or_default();
    ruleset.rules().iter().fold(String::new(), |mut text, rule| {
        let off = if rule.enabled { "" } else { " (off)" };
        let _ = writeln!(text, "{:width$}  {:8}  {}{off}", rule.id, rule.severity.as_str(), rule.title);
        text
    })
}

fn utilities(ruleset: &RuleSet) -> String {
    ruleset.catalogue().utilities().iter().fold(String::new(), |mut text, utility| {
        let aliases = utility.aliases.join(" ");
        let line = format!("{:24} {:14} {aliases}", utility.name, utility.category);
        let _ = writeln!(text, "{}", line.trim_end());
        text
    })
}

fn fields() -> String {
    FIELDS.iter().fold(String::new(), |mut text, field| {
        let _ = writeln!(text, "{:18} {:14} {}", field.name, field.kind.as_str(), field.description);
        text
    })
}

fn show(ruleset: &RuleSet, name: &str) -> Option<String> {
    if let Some(rule) = ruleset.rules().iter().find(|rule| rule.id == name) {
        return Some(show_rule(rule));
    }
    let number = ruleset.catalogue().look_up(name.as_bytes())?;
    ruleset.catalogue().utilities().get(number).map(show_utility)
}

fn show_rule(rule: &Rule) -> String {
    let mut text = String::new();
    let mut add = |key: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(text, "{key:16} {}", value.replace('\n', &format!("\n{:17}", "")));
        }
    };
    add("rule", &rule.id);
    add("title", &rule.title);
    add("severity", rule.severity.as_str());
    add("enabled", if rule.enabled { "yes" } else { "no" });
    add("attack", &rule.attack.join(" "));
    add("description", &rule.description);
    add("false positives", &rule.false_positives.join("\n"));
    add("triage", &rule.triage);
    add("file", &rule.origin);
    text
}

fn show_utility(utility: &Utility) -> String {
    let mut text = String::new();
    let mut add = |key: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(text, "{key:16} {value}");
        }
    };
    add("utility", &utility.name);
    add("aliases", &utility.aliases.join(" "));
    add("category", &utility.category);
    add("attack", &utility.attack.join(" "));
    add("everyday", if utility.everyday { "yes" } else { "no" });
    add("note", &utility.note);
    text
}
