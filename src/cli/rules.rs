//! `execwatch rules`

use std::collections::BTreeMap;
use std::fmt::Write;

use clap::Args;

use super::{Files, exit, print, report, show};
use crate::diagnostics::{Diagnostics, suggestion};
use crate::health::hits::{Hit, Hits};
use crate::rules::fields::{ATTRIBUTES, RELATIVES};
use crate::rules::ruleset::RuleSet;
use crate::rules::selection::MODIFIERS;

#[derive(Args, Debug)]
#[group(skip)]
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
    let (config, ruleset) = arguments.files.load(&diagnostics);
    if let Some(code) = report(&diagnostics.into_list()) {
        return code;
    }
    let Some(ruleset) = ruleset else { return exit::CONFIG };
    match &arguments.name {
        Some(name) => match show(&ruleset, name) {
            Some(text) => print(&text),
            None => {
                let utilities = ruleset.catalogue().utilities().iter();
                let known =
                    utilities.flat_map(|utility| std::iter::once(&utility.name).chain(&utility.aliases));
                let known = ruleset.rules().iter().map(|rule| &rule.id).chain(known).map(String::as_str);
                let hint = match suggestion(name, known) {
                    hint if hint.is_empty() => {
                        "; `execwatch rules` lists the rules, and with --utilities the utilities".to_owned()
                    }
                    hint => hint,
                };
                eprintln!("execwatch: there is no rule and no utility called `{name}`{hint}");
                exit::USAGE
            }
        },
        None if arguments.utilities => print(&utilities(&ruleset)),
        None => {
            // Only root can read the daemon's count.
            let hits = Hits::load(&config.state_folder).unwrap_or_default();
            print(&list(&ruleset, &hits))
        }
    }
}

/// Rules, then exceptions, with how often each took effect if the daemon's count can be read.
fn list(ruleset: &RuleSet, hits: &Hits) -> String {
    let ids = ruleset.rules().iter().map(|rule| rule.id.len());
    let width =
        ids.chain(ruleset.exceptions().iter().map(|exception| exception.id.len())).max().unwrap_or_default();
    let count = |kept: &BTreeMap<String, Hit>, id: &str| {
        kept.get(id).map_or("-".to_owned(), |hit| hit.count.to_string())
    };
    let mut text = String::new();
    for rule in ruleset.rules() {
        let off = if rule.enabled { "" } else { " (off)" };
        let (severity, hits) = (rule.severity.as_str(), count(&hits.rules, &rule.id));
        let _ = writeln!(text, "{:width$}  {severity:8}  {hits:>8}  {}{off}", rule.id, rule.title);
    }
    for exception in ruleset.exceptions() {
        let hits = count(&hits.exceptions, &exception.id);
        let _ = writeln!(text, "{:width$}  exception {hits:>8}  {}", exception.id, exception.reason);
    }
    text
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
    let mut text = String::new();
    for field in ATTRIBUTES {
        let short = field.short.map(|name| format!(" (also {name})")).unwrap_or_default();
        let _ = writeln!(text, "{:26} {:14} {}{short}", field.name, field.kind.as_str(), field.description);
    }
    let names: Vec<&str> =
        ATTRIBUTES.iter().filter(|field| field.relatives).map(|field| field.name).collect();
    let _ = writeln!(text, "\nOf other processes, with one of these in front: {}", names.join(" "));
    for (prefix, description) in RELATIVES {
        let _ = writeln!(text, "{:26} {description}", format!("{prefix}."));
    }
    let _ = writeln!(
        text,
        "{:26} a table of such fields that one and the same ancestor fulfils",
        "ancestor = { ... }"
    );
    let _ = writeln!(text, "\nModifiers, as in \"args|contains|all\":");
    for (name, description) in MODIFIERS {
        let _ = writeln!(text, "{name:26} {description}");
    }
    text
}

fn show(ruleset: &RuleSet, name: &str) -> Option<String> {
    if let Some(rule) = ruleset.rules().iter().find(|rule| rule.id == name) {
        return Some(show::rule(rule));
    }
    let number = ruleset.catalogue().look_up(name.as_bytes())?;
    ruleset.catalogue().utilities().get(number).map(show::utility)
}
