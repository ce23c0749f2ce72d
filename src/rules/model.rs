//! Rules, exceptions and utilities as they are written in TOML.

use super::action::{ACTIONS, Action};
use super::catalogue::{LONGEST_NAME, Utility, is_glob};
use super::condition::Condition;
use super::exception::Exception;
use super::macros::Macros;
use super::pattern::Glob;
use super::selection::{Check, Selection, Written, checks};
use super::threshold::Threshold;
use crate::diagnostics::Diagnostics;
use crate::document::{Document, Located, Section};

/// How serious a match is.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth a record.
    #[default]
    Info,
    /// Usually harmless.
    Low,
    /// Worth a look.
    Medium,
    /// Probably an attack.
    High,
    /// Certainly wrong.
    Critical,
}

/// Severities by their words.
pub const SEVERITIES: [(&str, Severity); 5] = [
    ("info", Severity::Info),
    ("low", Severity::Low),
    ("medium", Severity::Medium),
    ("high", Severity::High),
    ("critical", Severity::Critical),
];

impl Severity {
    /// The word used in rules and alerts.
    pub fn as_str(self) -> &'static str {
        SEVERITIES[self as usize].0
    }
}

/// A rule has at most this many selections.
const MOST_SELECTIONS: usize = 256;

/// A rule.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Unique name.
    pub id: String,
    /// One line for people.
    pub title: String,
    /// What it finds.
    pub description: String,
    /// How serious it is.
    pub severity: Severity,
    /// What is done about a match besides the alert.
    pub action: Action,
    /// ATT&CK techniques.
    pub attack: Vec<String>,
    /// Honest uses that match too.
    pub false_positives: Vec<String>,
    /// What to look at first.
    pub triage: String,
    /// Where to read more.
    pub references: Vec<String>,
    /// Who wrote it, where a licence wants that to be said.
    pub author: String,
    /// False keeps it from being evaluated.
    pub enabled: bool,
    /// The file it comes from.
    pub origin: String,
    /// Its selections, in the order of the file.
    pub selections: Vec<Selection>,
    /// When it matches.
    pub condition: Condition,
    /// How often it must match before it alerts.
    pub threshold: Option<Threshold>,
}

impl Rule {
    /// The entries that hold whenever the rule matches.
    pub fn required_checks(&self) -> Vec<&Check> {
        fn of<'r>(condition: &Condition, rule: &'r Rule) -> Vec<&'r Check> {
            match condition {
                Condition::Selection(index) => {
                    match rule.selections.get(*index).map(|it| it.alternatives.as_slice()) {
                        Some([only]) => only.iter().collect(),
                        _ => Vec::new(),
                    }
                }
                Condition::All(parts) => parts.iter().flat_map(|part| of(part, rule)).collect(),
                Condition::Any(_) | Condition::Not(_) => Vec::new(),
            }
        }
        of(&self.condition, self)
    }

    /// All tests in its selections.
    pub fn tests(&self) -> impl Iterator<Item = &Written> {
        self.selections.iter().flat_map(Selection::tests)
    }
}

/// What a file holds, each with its place.
#[derive(Debug, Default)]
pub struct Tables {
    /// `[[utility]]`
    pub utilities: Vec<Located<Utility>>,
    /// `[[rule]]`
    pub rules: Vec<Located<Rule>>,
    /// `[[exception]]`
    pub exceptions: Vec<Located<Exception>>,
}

/// Reads a file's tables; every mistake is reported, and what holds one is left out.
///
/// Macros have been read before, from all files.
pub fn read(document: &Document<'_>, macros: &Macros, diagnostics: &Diagnostics) -> Tables {
    let root = document.root(diagnostics);
    root.skip("macro");
    root.skip("selection");
    // The daemon has no use for tests: `self_test` reads them.
    root.skip("test");
    let tables = Tables {
        utilities: root.sections("utility", "a utility").into_iter().filter_map(utility).collect(),
        rules: root
            .sections("rule", "a rule")
            .into_iter()
            .filter_map(|section| rule(section, macros))
            .collect(),
        exceptions: root
            .sections("exception", "an exception")
            .into_iter()
            .filter_map(|section| Exception::read(section, macros))
            .collect(),
    };
    root.finish();
    tables
}

fn utility(section: Section<'_>) -> Option<Located<Utility>> {
    let span = section.span();
    let is_name = |name: &Located<&str>| {
        let good = valid_word(name.value, "._+-");
        if !good {
            section.error(
                name.span.clone(),
                "a utility's name holds letters, digits, `.`, `_`, `+` and `-` only",
            );
        }
        good
    };
    let name = section.required_string("name").filter(is_name);
    let aliases = section.strings("aliases");
    for alias in &aliases {
        let mistake = match alias.value {
            "" => Some("an alias must not be empty".to_owned()),
            alias if alias.len() > LONGEST_NAME => {
                Some(format!("an alias may have {LONGEST_NAME} bytes at most"))
            }
            alias if alias.contains('/') => Some("an alias is a base name, without `/`".to_owned()),
            alias if is_glob(alias) => match Glob::new(alias.as_bytes()) {
                Ok(glob) if glob.literals().is_empty() => {
                    Some("this alias would match every program".to_owned())
                }
                Ok(_) => None,
                Err(error) => Some(error.to_owned()),
            },
            _ => None,
        };
        if let Some(mistake) = mistake {
            section.error(alias.span.clone(), mistake);
        }
    }
    let category = section.required_string("category").filter(|category| {
        let good = valid_word(category.value, "-");
        if !good {
            section.error(category.span.clone(), "a category is one word of letters, digits and `-`");
        }
        good
    });
    let attack = techniques(&section);
    let everyday = section.flag("everyday").is_some_and(|everyday| everyday.value);
    let mut stands_for = section.strings("stands-for");
    stands_for.retain(is_name);
    let note = section.string("note").map_or("", |note| note.value).to_owned();
    section.finish();
    let value = Utility {
        name: name?.value.to_owned(),
        aliases: aliases.into_iter().map(|alias| alias.value.to_owned()).collect(),
        category: category?.value.to_owned(),
        attack,
        everyday,
        stands_for: stands_for.into_iter().map(|name| name.value.to_owned()).collect(),
        note,
    };
    Some(Located { value, span })
}

/// The id of a rule or exception.
pub(super) fn id<'d>(section: &Section<'d>) -> Option<Located<&'d str>> {
    section.required_string("id").filter(|id| {
        let good = valid_word(id.value, "-") && !id.value.contains(|c: char| c.is_ascii_uppercase());
        if !good {
            section.error(id.span.clone(), "an id holds small letters, digits and `-` only");
        }
        good
    })
}

fn rule(section: Section<'_>, macros: &Macros) -> Option<Located<Rule>> {
    let id = id(&section);
    let title = section.required_string("title");
    let severity = match section.choice("severity", &SEVERITIES) {
        Some(severity) => Some(severity.value),
        None => {
            // A wrong word has been reported by `choice`; a missing key is reported here.
            section.required_string("severity");
            None
        }
    };
    let action = section.choice("action", &ACTIONS).map_or(Action::default(), |action| action.value);
    let description = section.string("description").map_or("", |text| text.value).trim().to_owned();
    let triage = section.string("triage").map_or("", |text| text.value).trim().to_owned();
    let attack = techniques(&section);
    let false_positives =
        section.strings("false-positives").into_iter().map(|text| text.value.to_owned()).collect();
    let enabled = section.flag("enabled").is_none_or(|enabled| enabled.value);
    let references = section.strings("references").into_iter().map(|text| text.value.to_owned()).collect();
    let author = section.string("author").map_or("", |text| text.value).trim().to_owned();
    let threshold = section.section("threshold", "threshold").map(Threshold::read);
    let (selections, good) = selections(&section, macros);
    let (condition, selections) = condition(&section, selections, macros);
    let condition = condition.filter(|_| good);
    let span = id.as_ref().map_or_else(|| section.span(), |id| id.span.clone());
    let origin = section.source().name.clone();
    section.finish();
    let value = Rule {
        id: id?.value.to_owned(),
        title: title?.value.to_owned(),
        description,
        severity: severity?,
        action,
        attack,
        false_positives,
        triage,
        references,
        author,
        enabled,
        origin,
        selections,
        condition: condition?,
        threshold: match threshold {
            Some(threshold) => Some(threshold?),
            None => None,
        },
    };
    Some(Located { value, span })
}

/// The rule's selections, and whether all of them are good. A bad one is listed too, so that the condition may name it.
fn selections(section: &Section<'_>, macros: &Macros) -> (Vec<Selection>, bool) {
    let Some(select) = section.section("select", "select") else {
        section.error(section.span(), "a rule needs at least one selection: [rule.select.NAME]");
        return (Vec::new(), false);
    };
    let mut selections = Vec::new();
    let mut good = true;
    for (name, alternatives) in select.named_sections("a selection") {
        if !valid_word(name.value, "._-") || matches!(name.value, "and" | "or" | "not" | "of" | "them") {
            section.error(
                name.span.clone(),
                "a selection's name holds letters, digits, `.`, `_` and `-`, and is no word of the condition",
            );
            good = false;
        }
        let read: Vec<_> = alternatives.into_iter().map(|alternative| checks(alternative, macros)).collect();
        good &= !read.is_empty() && read.iter().all(Option::is_some);
        selections.push(Selection {
            name: name.value.to_owned(),
            alternatives: read.into_iter().flatten().collect(),
        });
    }
    if selections.len() > MOST_SELECTIONS {
        section.error(select.span(), format!("a rule may have {MOST_SELECTIONS} selections at most"));
        good = false;
    }
    if selections.is_empty() {
        section.error(select.span(), "a rule needs at least one selection: [rule.select.NAME]");
        good = false;
    }
    (selections, good)
}

/// The condition, and the selections with the shared ones that it names after them.
fn condition(
    section: &Section<'_>,
    mut selections: Vec<Selection>,
    macros: &Macros,
) -> (Option<Condition>, Vec<Selection>) {
    let written = section.string("condition");
    if selections.is_empty() {
        // Every name in it would seem wrong.
        return (None, selections);
    }
    let own = selections.len();
    let text = written.as_ref().map_or("all of them", |text| text.value);
    for name in Condition::names(text) {
        if let Some(shared) = macros.selection(name)
            && selections.iter().all(|selection| selection.name != name)
        {
            let values = shared.tests().map(|test| test.values.len()).sum();
            if let Err(message) = macros.count(values) {
                section.error(section.span(), message);
                return (None, selections);
            }
            selections.push(shared.clone());
        }
    }
    let names: Vec<&str> = selections.iter().map(|selection| selection.name.as_str()).collect();
    let condition = match Condition::parse_with_shared(text, &names, own) {
        Ok(condition) => Some(condition),
        Err((place, message)) => {
            let span = written.map_or_else(
                || section.span(),
                |written| {
                    // The quote before the text is one byte, as long as it is a plain string.
                    let plain = written.span.len() == text.len() + 2;
                    if plain {
                        written.span.start + 1 + place.start..written.span.start + 1 + place.end
                    } else {
                        written.span
                    }
                },
            );
            section.error(span, message);
            None
        }
    };
    (condition, selections)
}

fn techniques(section: &Section<'_>) -> Vec<String> {
    let mut techniques = Vec::new();
    for technique in section.strings("attack") {
        let digits =
            |text: &str, count| text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
        let good = technique.value.strip_prefix('T').is_some_and(|number| match number.split_once('.') {
            Some((technique, sub)) => digits(technique, 4) && digits(sub, 3),
            None => digits(number, 4),
        });
        if good {
            techniques.push(technique.value.to_owned());
        } else {
            section.error(technique.span, "not an ATT&CK technique such as T1095 or T1059.004");
        }
    }
    techniques
}

fn valid_word(word: &str, also: &str) -> bool {
    !word.is_empty()
        && word.len() <= LONGEST_NAME
        && word.chars().all(|character| character.is_ascii_alphanumeric() || also.contains(character))
}
