//! Rules and utilities as they are written in TOML.

use super::catalogue::{LONGEST_NAME, Utility, is_glob};
use super::condition::Condition;
use super::fields::{FIELDS, Field, FieldInfo, Kind, Order, Question, Test};
use super::pattern::{Comparison, Glob, Pattern};
use crate::diagnostics::{Diagnostics, suggestion};
use crate::document::{Document, Located, Section, describe, integer};
use toml::Spanned;
use toml::de::DeValue;

/// How serious a match is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Worth a record.
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

/// A test with the words it was written with, from which the prefilter derives its guard.
#[derive(Debug, Clone)]
pub struct Written {
    /// The compiled test.
    pub test: Test,
    /// How texts are compared; `None` for other kinds of field.
    pub comparison: Option<Comparison>,
    /// The texts.
    pub values: Vec<String>,
    /// All of them are needed, not one.
    pub all: bool,
}

/// A named selection: one of the alternatives must hold, each with all its tests.
#[derive(Debug, Clone)]
pub struct Selection {
    /// Its name.
    pub name: String,
    /// The alternatives.
    pub alternatives: Vec<Vec<Written>>,
}

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
    /// ATT&CK techniques.
    pub attack: Vec<String>,
    /// Honest uses that match too.
    pub false_positives: Vec<String>,
    /// What to look at first.
    pub triage: String,
    /// False keeps it from being evaluated.
    pub enabled: bool,
    /// The file it comes from.
    pub origin: String,
    /// Its selections, in the order of the file.
    pub selections: Vec<Selection>,
    /// When it matches.
    pub condition: Condition,
}

/// What a file holds, each with its place.
#[derive(Debug, Default)]
pub struct Tables {
    /// `[[utility]]`
    pub utilities: Vec<Located<Utility>>,
    /// `[[rule]]`
    pub rules: Vec<Located<Rule>>,
}

/// Reads a file's tables; every mistake is reported, and what holds one is left out.
pub fn read(document: &Document<'_>, diagnostics: &Diagnostics) -> Tables {
    let root = document.root(diagnostics);
    let tables = Tables {
        utilities: root.sections("utility", "a utility").into_iter().filter_map(utility).collect(),
        rules: root.sections("rule", "a rule").into_iter().filter_map(rule).collect(),
    };
    root.finish();
    tables
}

fn utility(section: Section<'_>) -> Option<Located<Utility>> {
    let span = section.span();
    let name = section.required_string("name").filter(|name| {
        let good = valid_word(name.value, "._+-");
        if !good {
            section.error(
                name.span.clone(),
                "a utility's name holds letters, digits, `.`, `_`, `+` and `-` only",
            );
        }
        good
    });
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
    let note = section.string("note").map_or("", |note| note.value).to_owned();
    section.finish();
    let value = Utility {
        name: name?.value.to_owned(),
        aliases: aliases.into_iter().map(|alias| alias.value.to_owned()).collect(),
        category: category?.value.to_owned(),
        attack,
        everyday,
        note,
    };
    Some(Located { value, span })
}

fn rule(section: Section<'_>) -> Option<Located<Rule>> {
    let id = section.required_string("id").filter(|id| {
        let good = valid_word(id.value, "-") && !id.value.contains(|c: char| c.is_ascii_uppercase());
        if !good {
            section.error(id.span.clone(), "an id holds small letters, digits and `-` only");
        }
        good
    });
    let title = section.required_string("title");
    let severity = match section.choice("severity", &SEVERITIES) {
        Some(severity) => Some(severity.value),
        None => {
            // A wrong word has been reported by `choice`; a missing key is reported here.
            section.required_string("severity");
            None
        }
    };
    let description = section.string("description").map_or("", |text| text.value).trim().to_owned();
    let triage = section.string("triage").map_or("", |text| text.value).trim().to_owned();
    let attack = techniques(&section);
    let false_positives =
        section.strings("false-positives").into_iter().map(|text| text.value.to_owned()).collect();
    let enabled = section.flag("enabled").is_none_or(|enabled| enabled.value);
    let (selections, good) = selections(&section);
    let condition = condition(&section, &selections).filter(|_| good);
    let span = id.as_ref().map_or_else(|| section.span(), |id| id.span.clone());
    let origin = section.source().name.clone();
    section.finish();
    let value = Rule {
        id: id?.value.to_owned(),
        title: title?.value.to_owned(),
        description,
        severity: severity?,
        attack,
        false_positives,
        triage,
        enabled,
        origin,
        selections,
        condition: condition?,
    };
    Some(Located { value, span })
}

/// The rule's selections, and whether all of them are good. A bad one is listed too, so that the condition may name it.
fn selections(section: &Section<'_>) -> (Vec<Selection>, bool) {
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
        let read: Vec<Option<Vec<Written>>> = alternatives.into_iter().map(tests).collect();
        good &= !read.is_empty() && read.iter().all(Option::is_some);
        selections.push(Selection {
            name: name.value.to_owned(),
            alternatives: read.into_iter().flatten().collect(),
        });
    }
    if selections.is_empty() {
        section.error(select.span(), "a rule needs at least one selection: [rule.select.NAME]");
        good = false;
    }
    (selections, good)
}

fn condition(section: &Section<'_>, selections: &[Selection]) -> Option<Condition> {
    let written = section.string("condition");
    if selections.is_empty() {
        // Every name in it would seem wrong.
        return None;
    }
    let names: Vec<&str> = selections.iter().map(|selection| selection.name.as_str()).collect();
    let text = written.as_ref().map_or("all of them", |text| text.value);
    match Condition::parse(text, &names) {
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
    }
}

/// The tests of one alternative; `None` if one has a mistake.
fn tests(section: Section<'_>) -> Option<Vec<Written>> {
    let entries = section.entries();
    if entries.is_empty() {
        section.error(section.span(), "a selection without a test would match every program");
        return None;
    }
    let mut tests = Vec::new();
    let mut good = true;
    for (key, value) in entries {
        match test(key.value, value) {
            Ok(test) => tests.push(test),
            Err(Mistake { at_value, message }) => {
                let span = if let Some(at) = at_value { at } else { key.span };
                section.error(span, message);
                good = false;
            }
        }
    }
    good.then_some(tests)
}

/// What is wrong with a test, in its key or at a place of its value.
struct Mistake {
    at_value: Option<std::ops::Range<usize>>,
    message: String,
}

fn key_mistake(message: impl Into<String>) -> Mistake {
    Mistake { at_value: None, message: message.into() }
}

fn value_mistake(value: &Spanned<DeValue<'_>>, message: impl Into<String>) -> Mistake {
    Mistake { at_value: Some(value.span()), message: message.into() }
}

#[derive(Default)]
struct Modifiers {
    comparison: Option<Comparison>,
    order: Option<Order>,
    all: bool,
    any: bool,
    cased: bool,
    exists: bool,
}

const MODIFIERS: &[&str] = &[
    "contains",
    "startswith",
    "endswith",
    "glob",
    "re",
    "all",
    "any",
    "cased",
    "exists",
    "gt",
    "gte",
    "lt",
    "lte",
];

fn modifiers<'k>(words: impl Iterator<Item = &'k str>) -> Result<Modifiers, Mistake> {
    let mut modifiers = Modifiers::default();
    for word in words {
        let comparison = match word {
            "contains" => Some(Comparison::Contains),
            "startswith" => Some(Comparison::StartsWith),
            "endswith" => Some(Comparison::EndsWith),
            "glob" => Some(Comparison::Glob),
            "re" => Some(Comparison::Regex),
            _ => None,
        };
        let order = match word {
            "gt" => Some(Order::Greater),
            "gte" => Some(Order::GreaterOrEqual),
            "lt" => Some(Order::Less),
            "lte" => Some(Order::LessOrEqual),
            _ => None,
        };
        if comparison.is_some() && modifiers.comparison.is_some()
            || order.is_some() && modifiers.order.is_some()
        {
            return Err(key_mistake(format!("`{word}` contradicts the modifier before it")));
        }
        modifiers.comparison = modifiers.comparison.or(comparison);
        modifiers.order = modifiers.order.or(order);
        match word {
            "all" => modifiers.all = true,
            "any" => modifiers.any = true,
            "cased" => modifiers.cased = true,
            "exists" => modifiers.exists = true,
            _ if comparison.is_some() || order.is_some() => {}
            _ => {
                let hint = suggestion(word, MODIFIERS.iter().copied());
                return Err(key_mistake(format!("unknown modifier `{word}`{hint}")));
            }
        }
    }
    if modifiers.all && modifiers.any {
        return Err(key_mistake("`all` and `any` contradict each other"));
    }
    Ok(modifiers)
}

fn test(key: &str, value: &Spanned<DeValue<'_>>) -> Result<Written, Mistake> {
    let mut words = key.split('|');
    let name = words.next().unwrap_or_default();
    let field = Field::find(name).ok_or_else(|| {
        let hint = suggestion(name, FIELDS.iter().map(|field| field.name));
        key_mistake(format!("unknown field `{name}`{hint}"))
    })?;
    let modifiers = modifiers(words)?;
    if modifiers.exists {
        let alone =
            modifiers.comparison.is_none() && modifiers.order.is_none() && !modifiers.all && !modifiers.any;
        if !alone {
            return Err(key_mistake("`exists` takes no other modifier"));
        }
        let wanted =
            value.get_ref().as_bool().ok_or_else(|| value_mistake(value, "`exists` needs true or false"))?;
        return Ok(plain(field, Question::Exists(wanted)));
    }
    match field.kind {
        Kind::Text | Kind::List => text_test(field, &modifiers, value),
        Kind::Number => number_test(field, &modifiers, value),
        Kind::Flag => {
            if modifiers.comparison.is_some() || modifiers.order.is_some() || modifiers.all || modifiers.cased
            {
                return Err(key_mistake(format!(
                    "`{name}` is true or false and takes no modifier but `exists`"
                )));
            }
            let wanted = value
                .get_ref()
                .as_bool()
                .ok_or_else(|| value_mistake(value, format!("`{name}` is compared with true or false")))?;
            Ok(plain(field, Question::Flag(wanted)))
        }
    }
}

fn plain(field: &'static FieldInfo, question: Question) -> Written {
    Written {
        test: Test { field, question, at_end: false },
        comparison: None,
        values: Vec::new(),
        all: false,
    }
}

/// A value, or the values of a list, which must not be empty.
fn items<'v>(value: &'v Spanned<DeValue<'v>>) -> Result<Vec<&'v Spanned<DeValue<'v>>>, Mistake> {
    match value.get_ref() {
        DeValue::Array(list) if list.is_empty() => {
            Err(value_mistake(value, "an empty list would never match"))
        }
        DeValue::Array(list) => Ok(list.iter().collect()),
        _ => Ok(vec![value]),
    }
}

fn text_test(
    field: &'static FieldInfo,
    modifiers: &Modifiers,
    value: &Spanned<DeValue<'_>>,
) -> Result<Written, Mistake> {
    let name = field.name;
    if modifiers.order.is_some() {
        return Err(key_mistake(format!("`{name}` is text; `gt`, `gte`, `lt` and `lte` compare numbers")));
    }
    let comparison = modifiers.comparison.unwrap_or(Comparison::Equals);
    if comparison == Comparison::Regex && modifiers.cased {
        return Err(key_mistake(
            "`re` is case-sensitive anyway; write `(?i)` into the expression for the opposite",
        ));
    }
    let items = items(value)?;
    let mut values = Vec::new();
    for item in &items {
        let text = item.get_ref().as_str().ok_or_else(|| {
            value_mistake(
                item,
                format!("`{name}` is compared with strings, not {}", describe(item.get_ref())),
            )
        })?;
        if text.is_empty() && comparison != Comparison::Equals {
            return Err(value_mistake(item, "an empty string would match everything"));
        }
        values.push(text);
    }
    let compile = |values: &[&str]| {
        Pattern::new(comparison, values, modifiers.cased).map_err(|(index, message)| Mistake {
            at_value: Some(items.get(index).map_or_else(|| value.span(), |item| item.span())),
            message,
        })
    };
    let patterns = if modifiers.all {
        values.iter().map(|value| compile(&[value])).collect::<Result<_, _>>()?
    } else {
        vec![compile(&values)?]
    };
    let at_end = matches!(
        comparison,
        Comparison::Equals | Comparison::EndsWith | Comparison::Glob | Comparison::Regex
    );
    Ok(Written {
        test: Test { field, question: Question::Text(patterns), at_end },
        comparison: Some(comparison),
        values: values.into_iter().map(str::to_owned).collect(),
        all: modifiers.all,
    })
}

fn number_test(
    field: &'static FieldInfo,
    modifiers: &Modifiers,
    value: &Spanned<DeValue<'_>>,
) -> Result<Written, Mistake> {
    let name = field.name;
    if modifiers.comparison.is_some() || modifiers.cased || modifiers.all {
        return Err(key_mistake(format!(
            "`{name}` is a number; only `gt`, `gte`, `lt`, `lte`, `any` and `exists` fit"
        )));
    }
    let mut numbers = Vec::new();
    for item in items(value)? {
        numbers.push(integer(item.get_ref()).ok_or_else(|| {
            value_mistake(
                item,
                format!("`{name}` is compared with whole numbers, not {}", describe(item.get_ref())),
            )
        })?);
    }
    Ok(plain(field, Question::Number(modifiers.order.unwrap_or(Order::Equal), numbers)))
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
