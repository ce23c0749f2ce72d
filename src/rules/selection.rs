//! Selections as they are written in TOML: tables of `"field|modifier" = value`.

use std::ops::Range;

use toml::Spanned;
use toml::de::DeValue;

use super::address::Network;
use super::condition::Truth;
use super::fields::{Attribute, Field, Kind, Role};
use super::macros::Macros;
use super::pattern::{Comparison, Pattern};
use super::question::{Order, Question, Test};
use super::subject::{Person, Subject};
use crate::diagnostics::suggestion;
use crate::document::{Section, describe, integer};

/// A test with the words it was written with, from which the prefilter derives its guard.
#[derive(Debug, Clone)]
pub struct Written {
    /// Field and modifiers.
    pub key: String,
    /// The compiled test.
    pub test: Test,
    /// How texts are compared; `None` for other kinds of field.
    pub comparison: Option<Comparison>,
    /// The texts.
    pub values: Vec<String>,
    /// All of them are needed, not one.
    pub all: bool,
}

impl Written {
    /// The fields that are read for it.
    pub fn fields(&self) -> impl Iterator<Item = &Field> {
        let others = match &self.test.question {
            Question::Field(_, _, others) => others.as_slice(),
            _ => &[],
        };
        std::iter::once(&self.test.field).chain(others)
    }

    /// No value fails it.
    pub fn always_true(&self) -> bool {
        let numeric = match &self.test.question {
            Question::Number(Order::GreaterOrEqual, numbers) => numbers.iter().any(|&number| number <= 0),
            _ => false,
        };
        let pattern = |value: &String| match self.comparison {
            Some(Comparison::Glob) => value.bytes().all(|byte| byte == b'*'),
            Some(Comparison::PathGlob) => value == "**",
            Some(Comparison::Regex) => matches!(value.as_str(), ".*" | ".+" | "^.*$" | "."),
            Some(Comparison::StartsWith) => value == "/" && self.test.field.info.attribute == Attribute::Exe,
            _ => false,
        };
        let textual =
            if self.all { self.values.iter().all(pattern) } else { self.values.iter().any(pattern) };
        numeric || textual && !self.values.is_empty()
    }

    /// What fulfils this test fulfils `other` too, as far as their words show.
    pub fn implies(&self, other: &Written) -> bool {
        if self.key != other.key {
            return false;
        }
        match (&self.test.question, &other.test.question) {
            (Question::Text(_), Question::Text(_)) if !self.all => {
                self.values.iter().all(|value| other.values.contains(value))
            }
            (Question::Number(own_order, own), Question::Number(order, numbers)) => {
                own_order == order && own.iter().all(|number| numbers.contains(number))
            }
            (Question::Flag(own), Question::Flag(flag)) => own == flag,
            (Question::Exists(own), Question::Exists(exists)) => own == exists,
            _ => false,
        }
    }
}

/// An entry of a selection.
#[derive(Debug, Clone)]
pub enum Check {
    /// A test.
    Test(Box<Written>),
    /// One and the same ancestor fulfils all of these.
    SameAncestor(Vec<Written>),
}

impl Check {
    /// Whether it holds.
    pub fn evaluate(&self, subject: &Subject<'_>) -> Truth {
        match self {
            Check::Test(written) => written.test.evaluate(subject),
            Check::SameAncestor(tests) => {
                if subject.hot() {
                    return Truth::Unknown;
                }
                let ancestors = subject.ancestors();
                let any = Truth::any(ancestors.processes.iter().map(|ancestor| {
                    Truth::all(
                        tests.iter().map(|written| written.test.of(subject, Person::Relative(ancestor))),
                    )
                }));
                if any == Truth::False && !ancestors.complete { Truth::Unknown } else { any }
            }
        }
    }

    /// The tests in it.
    pub fn tests(&self) -> &[Written] {
        match self {
            Check::Test(written) => std::slice::from_ref(written),
            Check::SameAncestor(tests) => tests,
        }
    }
}

/// A named selection: one of the alternatives must hold, each with all its entries.
#[derive(Debug, Clone)]
pub struct Selection {
    /// Its name.
    pub name: String,
    /// The alternatives.
    pub alternatives: Vec<Vec<Check>>,
}

impl Selection {
    /// Whether it holds.
    pub fn evaluate(&self, subject: &Subject<'_>) -> Truth {
        Truth::any(
            self.alternatives
                .iter()
                .map(|checks| Truth::all(checks.iter().map(|check| check.evaluate(subject)))),
        )
    }

    /// All tests in it.
    pub fn tests(&self) -> impl Iterator<Item = &Written> {
        self.alternatives.iter().flatten().flat_map(Check::tests)
    }
}

/// The entries of one alternative; `None` if one has a mistake.
pub(super) fn checks(section: Section<'_>, macros: &Macros) -> Option<Vec<Check>> {
    let entries = section.entries();
    if entries.is_empty() {
        section.error(section.span(), "a selection without a test would match every program");
        return None;
    }
    let mut checks = Vec::new();
    let mut good = true;
    for (key, value) in entries {
        let check = match value.get_ref() {
            DeValue::Table(table) if key.value == "ancestor" => same_ancestor(table, value, macros),
            _ => test(key.value, value, macros)
                .map(|written| Check::Test(Box::new(written)))
                .map_err(|mistake| (key.span.clone(), mistake)),
        };
        match check {
            Ok(check) => checks.push(check),
            Err((key, Mistake { at_value, message })) => {
                section.error(at_value.unwrap_or(key), message);
                good = false;
            }
        }
    }
    good.then_some(checks)
}

type Place = Range<usize>;

fn same_ancestor(
    table: &toml::de::DeTable<'_>,
    whole: &Spanned<DeValue<'_>>,
    macros: &Macros,
) -> Result<Check, (Place, Mistake)> {
    if table.is_empty() {
        return Err((
            whole.span(),
            value_mistake(whole, "`ancestor` without a test would match every ancestor"),
        ));
    }
    let mut tests = Vec::new();
    for (key, value) in table {
        let name: &str = key.get_ref();
        let mut written = test(name, value, macros).map_err(|mistake| (key.span(), mistake))?;
        let field = &mut written.test.field;
        if field.role != Role::Own || !field.info.relatives {
            return Err((key.span(), key_mistake(format!("`{name}` is no field of an ancestor"))));
        }
        if matches!(written.test.question, Question::Field(..)) {
            return Err((key.span(), key_mistake("`fieldref` does not fit here")));
        }
        field.role = Role::Ancestor;
        tests.push(written);
    }
    Ok(Check::SameAncestor(tests))
}

/// What is wrong with a test, in its key or at a place of its value.
struct Mistake {
    at_value: Option<Place>,
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
    every: bool,
    exists: bool,
    known: bool,
    cidr: bool,
    fieldref: bool,
    expand: bool,
}

/// Modifiers, with what each does.
pub const MODIFIERS: &[(&str, &str)] = &[
    ("contains", "the value stands anywhere in the text"),
    ("startswith", "the text begins with the value"),
    ("endswith", "the text ends with the value"),
    ("glob", "the whole text fits a pattern with * ? [a-z]"),
    ("pathglob", "as glob, but * and ? stop at slashes and ** does not"),
    ("re", "a regular expression is found in the text, case-sensitive"),
    ("cidr", "an internet address in the text is in a network such as 10.0.0.0/8"),
    ("cased", "upper and lower case differ"),
    ("any", "one value suffices (the default)"),
    ("all", "every value is needed"),
    ("every", "every element of the list fulfils one of the values"),
    ("exists", "there is a value (true) or none (false); an empty list is none"),
    ("known", "the field could be read (true) or not (false)"),
    ("fieldref", "the value is the name of another field"),
    ("expand", "values written %NAME% stand for the values of that macro"),
    ("gt", "greater than the number"),
    ("gte", "greater than the number or equal"),
    ("lt", "less than the number"),
    ("lte", "less than the number or equal"),
    ("bits", "all bits of the number are set"),
];

fn modifiers<'k>(words: impl Iterator<Item = &'k str>) -> Result<Modifiers, Mistake> {
    let mut modifiers = Modifiers::default();
    for word in words {
        let comparison = match word {
            "contains" => Some(Comparison::Contains),
            "startswith" => Some(Comparison::StartsWith),
            "endswith" => Some(Comparison::EndsWith),
            "glob" => Some(Comparison::Glob),
            "pathglob" => Some(Comparison::PathGlob),
            "re" => Some(Comparison::Regex),
            _ => None,
        };
        let order = match word {
            "gt" => Some(Order::Greater),
            "gte" => Some(Order::GreaterOrEqual),
            "lt" => Some(Order::Less),
            "lte" => Some(Order::LessOrEqual),
            "bits" => Some(Order::Bits),
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
            "every" => modifiers.every = true,
            "exists" => modifiers.exists = true,
            "known" => modifiers.known = true,
            "cidr" => modifiers.cidr = true,
            "fieldref" => modifiers.fieldref = true,
            "expand" => modifiers.expand = true,
            _ if comparison.is_some() || order.is_some() => {}
            _ => {
                let hint = suggestion(word, MODIFIERS.iter().map(|&(name, _)| name));
                return Err(key_mistake(format!("unknown modifier `{word}`{hint}")));
            }
        }
    }
    if modifiers.all && modifiers.any {
        return Err(key_mistake("`all` and `any` contradict each other"));
    }
    if modifiers.every && (modifiers.all || modifiers.any) {
        return Err(key_mistake("`every` is about the elements, `any` and `all` about the values: take one"));
    }
    Ok(modifiers)
}

impl Modifiers {
    /// Any modifier of text.
    fn textual(&self) -> bool {
        self.comparison.is_some() || self.cased || self.cidr || self.expand || self.every
    }
}

fn test(key: &str, value: &Spanned<DeValue<'_>>, macros: &Macros) -> Result<Written, Mistake> {
    let mut words = key.split('|');
    let name = words.next().unwrap_or_default();
    let field = field(name)?;
    let modifiers = modifiers(words)?;
    let reader = Reader { key, name, field, modifiers };
    if reader.modifiers.exists || reader.modifiers.known {
        return reader.exists(value);
    }
    if reader.modifiers.fieldref {
        return reader.other_field(value);
    }
    match reader.field.info.kind {
        Kind::Text | Kind::List => reader.text(value, macros),
        Kind::Number => reader.number(value),
        Kind::Flag => reader.flag(value),
    }
}

fn field(name: &str) -> Result<Field, Mistake> {
    Field::find(name).ok_or_else(|| {
        let names: Vec<String> = Field::names().collect();
        let hint = suggestion(name, names.iter().map(String::as_str));
        key_mistake(format!("unknown field `{name}`{hint}"))
    })
}

struct Reader<'k> {
    key: &'k str,
    name: &'k str,
    field: Field,
    modifiers: Modifiers,
}

impl Reader<'_> {
    fn plain(self, question: Question) -> Written {
        Written {
            key: self.key.to_owned(),
            test: Test { field: self.field, question },
            comparison: None,
            values: Vec::new(),
            all: false,
        }
    }

    fn exists(self, value: &Spanned<DeValue<'_>>) -> Result<Written, Mistake> {
        let other = &self.modifiers;
        let name = if other.known { "known" } else { "exists" };
        let more = other.textual() || other.order.is_some() || other.all || other.any || other.fieldref;
        if more || other.known && other.exists {
            return Err(key_mistake(format!("`{name}` takes no other modifier")));
        }
        let wanted = value
            .get_ref()
            .as_bool()
            .ok_or_else(|| value_mistake(value, format!("`{name}` needs true or false")))?;
        Ok(self.plain(if name == "known" { Question::Known(wanted) } else { Question::Exists(wanted) }))
    }

    fn other_field(self, value: &Spanned<DeValue<'_>>) -> Result<Written, Mistake> {
        let modifiers = &self.modifiers;
        let comparison = modifiers.comparison.unwrap_or(Comparison::Equals);
        let pattern = matches!(comparison, Comparison::Glob | Comparison::PathGlob | Comparison::Regex);
        if pattern
            || modifiers.every
            || modifiers.order.is_some()
            || modifiers.all
            || modifiers.cidr
            || modifiers.expand
        {
            return Err(key_mistake(
                "`fieldref` takes only `contains`, `startswith`, `endswith`, `cased` and `any` beside it",
            ));
        }
        let mut others = Vec::new();
        for item in items(value)? {
            let name = item
                .get_ref()
                .as_str()
                .ok_or_else(|| value_mistake(item, "`fieldref` needs the name of a field"))?;
            let other = field(name).map_err(|mistake| value_mistake(item, mistake.message))?;
            let textual = |kind| matches!(kind, Kind::Text | Kind::List);
            let fits = self.field.info.kind == other.info.kind
                || textual(self.field.info.kind) && textual(other.info.kind);
            if !fits {
                return Err(value_mistake(
                    item,
                    format!(
                        "`{}` is {} and `{name}` is {}: they cannot be equal",
                        self.name,
                        self.field.info.kind.as_str(),
                        other.info.kind.as_str()
                    ),
                ));
            }
            if self.field.role == Role::Ancestor || other.role == Role::Ancestor {
                return Err(value_mistake(item, "`fieldref` needs one process: any ancestor is many"));
            }
            others.push(other);
        }
        let cased = modifiers.cased;
        Ok(self.plain(Question::Field(comparison, cased, others)))
    }

    fn flag(self, value: &Spanned<DeValue<'_>>) -> Result<Written, Mistake> {
        let name = self.name;
        if self.modifiers.textual() || self.modifiers.order.is_some() || self.modifiers.all {
            return Err(key_mistake(format!(
                "`{name}` is true or false and takes no modifier but `exists` and `fieldref`"
            )));
        }
        let wanted = value
            .get_ref()
            .as_bool()
            .ok_or_else(|| value_mistake(value, format!("`{name}` is compared with true or false")))?;
        Ok(self.plain(Question::Flag(wanted)))
    }

    fn number(self, value: &Spanned<DeValue<'_>>) -> Result<Written, Mistake> {
        let name = self.name;
        if self.modifiers.textual() || self.modifiers.all {
            return Err(key_mistake(format!(
                "`{name}` is a number; only `gt`, `gte`, `lt`, `lte`, `bits`, `any`, `exists` and `fieldref` fit"
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
        let order = self.modifiers.order.unwrap_or(Order::Equal);
        Ok(self.plain(Question::Number(order, numbers)))
    }

    fn text(self, value: &Spanned<DeValue<'_>>, macros: &Macros) -> Result<Written, Mistake> {
        let name = self.name;
        let modifiers = &self.modifiers;
        if modifiers.order.is_some() {
            return Err(key_mistake(format!(
                "`{name}` is text; `gt`, `gte`, `lt`, `lte` and `bits` compare numbers"
            )));
        }
        if modifiers.every && (self.field.info.kind != Kind::List || modifiers.cidr) {
            return Err(key_mistake(format!(
                "`every` is for the texts of a list, and `{name}` is no list of them"
            )));
        }
        if modifiers.cidr && (modifiers.comparison.is_some() || modifiers.cased) {
            return Err(key_mistake("`cidr` takes no other comparison beside it"));
        }
        let comparison = modifiers.comparison.unwrap_or(Comparison::Equals);
        if comparison == Comparison::Regex && modifiers.cased {
            return Err(key_mistake(
                "`re` is case-sensitive anyway; write `(?i)` into the expression for the opposite",
            ));
        }
        // Each value with the place it is written at; a macro's values all have that of its name.
        let mut values: Vec<(String, Place)> = Vec::new();
        for item in items(value)? {
            let text = item.get_ref().as_str().ok_or_else(|| {
                value_mistake(
                    item,
                    format!("`{name}` is compared with strings, not {}", describe(item.get_ref())),
                )
            })?;
            match Macros::name(text).filter(|_| modifiers.expand) {
                Some(macro_name) => {
                    let expanded = macros.get(macro_name).ok_or_else(|| {
                        let hint = suggestion(macro_name, macros.names());
                        value_mistake(item, format!("there is no macro `{macro_name}`{hint}"))
                    })?;
                    macros.count(expanded.len()).map_err(|message| value_mistake(item, message))?;
                    values.extend(expanded.iter().map(|value| (value.clone(), item.span())));
                }
                None => {
                    macros.count(1).map_err(|message| value_mistake(item, message))?;
                    values.push((text.to_owned(), item.span()));
                }
            }
        }
        let mistake = |index: usize, message: String| Mistake {
            at_value: Some(values.get(index).map_or_else(|| value.span(), |(_, place)| place.clone())),
            message,
        };
        if let Some(empty) = values.iter().position(|(text, _)| text.is_empty())
            && (comparison != Comparison::Equals || modifiers.cidr)
        {
            return Err(mistake(empty, "an empty string would match everything".to_owned()));
        }
        let texts: Vec<&str> = values.iter().map(|(text, _)| text.as_str()).collect();
        let question = if modifiers.cidr {
            let networks = texts.iter().enumerate().map(|(index, text)| {
                Network::parse(text).map_err(|message| mistake(index, message.to_owned()))
            });
            Question::Address(networks.collect::<Result<_, _>>()?)
        } else if modifiers.all {
            let patterns = texts.iter().enumerate().map(|(index, text)| {
                Pattern::new(comparison, &[text], modifiers.cased)
                    .map_err(|(_, message)| mistake(index, message))
            });
            Question::Text(patterns.collect::<Result<_, _>>()?)
        } else {
            let pattern = Pattern::new(comparison, &texts, modifiers.cased)
                .map_err(|(index, message)| mistake(index, message))?;
            if modifiers.every { Question::Every(pattern) } else { Question::Text(vec![pattern]) }
        };
        Ok(Written {
            key: self.key.to_owned(),
            comparison: Some(comparison).filter(|_| !modifiers.cidr),
            values: values.into_iter().map(|(text, _)| text).collect(),
            all: modifiers.all,
            test: Test { field: self.field, question },
        })
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
