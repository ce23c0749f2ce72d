//! How one rule and one utility are shown, by `execwatch rules NAME`.

use std::fmt::Write;

use crate::alert::escape::Escaped;
use crate::rules::action::Action;
use crate::rules::catalogue::Utility;
use crate::rules::condition::Condition;
use crate::rules::fields::{Attribute, Field, Role};
use crate::rules::model::Rule;
use crate::rules::question::Question;
use crate::rules::selection::{Check, Selection, Written};
use crate::rules::threshold::Threshold;

/// Width of the names in front.
const WIDTH: usize = 17;
/// Columns of a line, after which a list of values goes on in the next one.
const COLUMNS: usize = 120;

/// Everything that a rule says, its selections as they are tested: macros stand with their values.
pub(super) fn rule(rule: &Rule) -> String {
    let mut text = String::new();
    let mut add = |key: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(text, "{key:16} {}", value.replace('\n', &format!("\n{:WIDTH$}", "")));
        }
    };
    add("rule", &rule.id);
    add("title", &rule.title);
    add("severity", rule.severity.as_str());
    if rule.action != Action::Alert {
        add("action", rule.action.as_str());
    }
    add("enabled", if rule.enabled { "yes" } else { "no" });
    add("attack", &rule.attack.join(" "));
    add("description", &rule.description);
    add("false positives", &rule.false_positives.join("\n"));
    add("triage", &rule.triage);
    add("references", &rule.references.join("\n"));
    add("author", &rule.author);
    add("file", &rule.origin);
    if let Some(threshold) = &rule.threshold {
        add("threshold", &rate(threshold));
    }
    add("condition", &condition(&rule.condition, &rule.selections, false));
    let used = rule.condition.selections();
    for (_, selection) in rule.selections.iter().enumerate().filter(|(number, _)| used.contains(number)) {
        for (number, checks) in selection.alternatives.iter().enumerate() {
            let name = if number == 0 { selection.name.clone() } else { "  or".to_owned() };
            let lines: Vec<String> = checks.iter().map(check).collect();
            add(&name, &lines.join("\n"));
        }
    }
    text
}

/// Everything that the catalogue says of a utility.
pub(super) fn utility(utility: &Utility) -> String {
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

fn rate(threshold: &Threshold) -> String {
    let what = match &threshold.distinct {
        Some(field) => format!("{} different values of {}", threshold.count, name(field)),
        None => format!("{} matches", threshold.count),
    };
    let by: Vec<String> = threshold.by.iter().map(name).collect();
    let each = if by.is_empty() { String::new() } else { format!(", for each {}", by.join(" and ")) };
    format!("{what} within {} s{each}", threshold.window_ns / 1_000_000_000)
}

/// The condition with only the parentheses that it needs.
fn condition(whole: &Condition, selections: &[Selection], inner: bool) -> String {
    let join = |parts: &[Condition], word: &str| {
        let parts: Vec<String> = parts.iter().map(|part| condition(part, selections, true)).collect();
        let joined = parts.join(word);
        if inner && parts.len() > 1 { format!("({joined})") } else { joined }
    };
    match whole {
        Condition::Selection(number) => {
            selections.get(*number).map_or("?", |selection| &selection.name).to_owned()
        }
        Condition::Not(negated) => format!("not {}", condition(negated, selections, true)),
        Condition::All(parts) => join(parts, " and "),
        Condition::Any(parts) => join(parts, " or "),
    }
}

fn check(check: &Check) -> String {
    match check {
        Check::Test(written) => test(written),
        Check::SameAncestor(tests) => {
            let tests: Vec<String> = tests.iter().map(test).collect();
            format!("one ancestor with\n  {}", tests.join("\n  "))
        }
    }
}

/// A test in one or more lines.
fn test(written: &Written) -> String {
    let values = match &written.test.question {
        Question::Number(_, numbers) => numbers.iter().map(i64::to_string).collect(),
        Question::Flag(value) | Question::Exists(value) | Question::Known(value) => vec![value.to_string()],
        Question::Field(_, _, fields) => fields.iter().map(name).collect(),
        Question::Text(_) | Question::Every(_) | Question::Address(_) => written
            .values
            .iter()
            .map(|value| Escaped::new(value.as_bytes()).as_str().to_owned())
            .collect::<Vec<_>>(),
    };
    let mut text = format!("{} =", written.key);
    let mut column = text.len();
    for value in values {
        if column + value.len() >= COLUMNS - WIDTH && column > 4 {
            text.push_str("\n   ");
            column = 3;
        }
        let _ = write!(text, " {value}");
        column += value.len() + 1;
    }
    text
}

/// A field as rules name it.
fn name(field: &Field) -> String {
    let own = match (&field.argument, field.info.attribute) {
        (Some(variable), Attribute::Env) => format!("env.{variable}"),
        _ => field.info.name.to_owned(),
    };
    match field.role {
        Role::Own => own,
        Role::Parent => format!("parent.{own}"),
        Role::Ancestor => format!("ancestor.{own}"),
        Role::AncestorAt(number) => format!("ancestor.{number}.{own}"),
        Role::SessionLeader => format!("session-leader.{own}"),
        Role::GroupLeader => format!("group-leader.{own}"),
        Role::EntryLeader => format!("entry-leader.{own}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

    use super::*;
    use crate::diagnostics::{Diagnostics, Source};
    use crate::document::Document;
    use crate::rules::macros::Macros;
    use crate::rules::model;

    #[test]
    fn a_rule_is_shown_whole() {
        let text = r#"
[[rule]]
id = "a"
title = "t"
severity = "low"
action = "hold"
author = "A. Uthor"
references = ["https://www.example.org/a", "https://www.example.org/b"]
threshold = { count = 3, window = "2m", by = ["uid"], distinct = "ancestor.1.args" }
condition = "x and (y or not z) and not (x and z)"
[[rule.select.x]]
"args|re" = ['^a b$', 'c']
"uid|gte" = 5
[[rule.select.x]]
"cwd|fieldref" = "parent.cwd"
[rule.select.y]
ancestor = { name = "sshd", "tty|exists" = false }
[rule.select.z]
"env.HOME" = ["/", "/root"]
"#;
        let source = Source { name: "a.toml".into(), text: text.into() };
        let diagnostics = Diagnostics::default();
        let document = Document::parse(&source, &diagnostics);
        let tables = model::read(&document, &Macros::default(), &diagnostics);
        assert_eq!(diagnostics.into_list(), []);
        assert_eq!(
            rule(&tables.rules.first().unwrap().value),
            "\
rule             a
title            t
severity         low
action           hold
enabled          yes
references       https://www.example.org/a
                 https://www.example.org/b
author           A. Uthor
file             a.toml
threshold        3 different values of ancestor.1.args within 120 s, for each uid
condition        x and (y or not z) and not (x and z)
x                args|re = ^a b$ c
                 uid|gte = 5
  or             cwd|fieldref = parent.cwd
y                one ancestor with
                   name = sshd
                   tty|exists = false
z                env.HOME = / /root
"
        );
    }
}
