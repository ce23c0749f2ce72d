//! Selections: maps of tests with modifiers, as alternatives of tests in execwatch's language.

use super::super::pattern::{Comparison, Pattern};
use super::fields::{Counterpart, counterpart};
use super::text::{MOST_VARIANTS, Text, base64, base64_at_any_offset};
use super::yaml::{Mistake, Node, Place, Value, mistake};
use crate::diagnostics::suggestion;

/// A test of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Test {
    /// The field.
    pub field: &'static str,
    /// The modifiers that say how it is compared, each with its `|`.
    pub modifiers: String,
    /// Every value is needed, not one.
    pub all: bool,
    /// The values.
    pub values: Values,
}

/// The values of a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Values {
    /// Texts, or names of fields.
    Texts(Vec<String>),
    /// Numbers.
    Numbers(Vec<i64>),
    /// True or false.
    Flag(bool),
}

/// Tests that must all hold; without any it always does.
pub(super) type Alternative = Vec<Test>;

/// One of the alternatives must hold; without any it never does.
pub(super) type Alternatives = Vec<Alternative>;

/// The most alternatives of one selection.
pub(super) const MOST_ALTERNATIVES: usize = 64;

/// A map of a selection: it holds if `tests` holds and `excluded` does not.
#[derive(Debug, Default)]
pub(super) struct Map {
    /// What must hold.
    pub tests: Alternatives,
    /// What must not.
    pub excluded: Alternatives,
}

/// Translates a selection; one of the maps must hold. What will never hold is noted in `warnings`.
pub(super) fn selection(node: &Node, warnings: &mut Vec<Mistake>) -> Result<Vec<Map>, Vec<Mistake>> {
    const KEYWORDS: &str = "keywords are searched for in a whole log line, and an exec is none; name a field such as CommandLine";
    let one = |place, message: &str| vec![mistake(place, message)];
    match &node.value {
        Value::Map(_) => Ok(vec![map(node, warnings)?]),
        Value::List(list) if list.is_empty() => Err(one(node.place, "the selection is empty")),
        Value::List(list) => {
            let (mut maps, mut mistakes) = (Vec::new(), Vec::new());
            for item in list {
                let translated = match &item.value {
                    Value::Map(_) => map(item, warnings),
                    Value::List(_) => Err(one(item.place, "a list in a list is not known in selections")),
                    Value::Scalar(..) | Value::Null => Err(one(item.place, KEYWORDS)),
                };
                translated.map_or_else(|wrong| mistakes.extend(wrong), |map| maps.push(map));
            }
            if mistakes.is_empty() { Ok(maps) } else { Err(mistakes) }
        }
        Value::Scalar(..) => Err(one(node.place, KEYWORDS)),
        Value::Null => Err(one(node.place, "the selection is empty")),
    }
}

fn map(node: &Node, warnings: &mut Vec<Mistake>) -> Result<Map, Vec<Mistake>> {
    let Value::Map(entries) = &node.value else { return Ok(Map::default()) };
    if entries.is_empty() {
        return Err(vec![mistake(node.place, "the selection is empty")]);
    }
    let mut map = Map { tests: vec![Vec::new()], excluded: Vec::new() };
    let mut mistakes = Vec::new();
    for (key, value) in entries {
        match Item::read(&key.text, key.place, value, warnings) {
            Err(mistake) => mistakes.push(mistake),
            Ok((alternatives, true)) => map.excluded.extend(alternatives),
            Ok((alternatives, false)) => match product(&map.tests, &alternatives) {
                Some(tests) => map.tests = tests,
                None => mistakes.push(too_many(key.place)),
            },
        }
    }
    if mistakes.is_empty() { Ok(map) } else { Err(mistakes) }
}

fn too_many(place: Place) -> Mistake {
    mistake(place, format!("lists of unlike values make more than {MOST_ALTERNATIVES} alternatives"))
}

/// One of each holds.
fn product(one: &Alternatives, other: &Alternatives) -> Option<Alternatives> {
    if one.len() * other.len() > MOST_ALTERNATIVES {
        return None;
    }
    Some(one.iter().flat_map(|a| other.iter().map(|b| [a.as_slice(), b].concat())).collect())
}

/// How values are looked at, as far as the modifiers before have made them.
#[derive(Default)]
struct Modifiers<'k> {
    before: bool,
    behind: bool,
    all: bool,
    cased: bool,
    regex: bool,
    /// `(?ims)` of `re`.
    flags: String,
    order: Option<&'static str>,
    fieldref: bool,
    exists: bool,
    differs: bool,
    /// Those that change the text, in their order.
    transforming: Vec<&'k str>,
}

/// Sigma's modifiers.
const KNOWN: [&str; 32] = [
    "contains",
    "startswith",
    "endswith",
    "all",
    "cased",
    "re",
    "i",
    "m",
    "s",
    "windash",
    "base64",
    "base64offset",
    "wide",
    "utf16",
    "utf16le",
    "utf16be",
    "exists",
    "fieldref",
    "neq",
    "lt",
    "lte",
    "gt",
    "gte",
    "cidr",
    "expand",
    "minute",
    "hour",
    "day",
    "week",
    "month",
    "year",
    "ignorecase",
];

impl<'k> Modifiers<'k> {
    fn read(words: impl Iterator<Item = &'k str>) -> Result<Self, String> {
        let mut modifiers = Modifiers::default();
        for word in words {
            match word {
                "contains" => (modifiers.before, modifiers.behind) = (true, true),
                "startswith" => modifiers.behind = true,
                "endswith" => modifiers.before = true,
                "all" => modifiers.all = true,
                "cased" => modifiers.cased = true,
                "re" => modifiers.regex = true,
                "i" | "m" | "s" if modifiers.regex => modifiers.flags.push_str(word),
                "i" | "m" | "s" => return Err(format!("`{word}` belongs behind `re`")),
                "windash" | "base64" | "base64offset" => modifiers.transforming.push(word),
                "wide" | "utf16" | "utf16le" | "utf16be" => modifiers.transforming.push(word),
                "exists" => modifiers.exists = true,
                "fieldref" => modifiers.fieldref = true,
                "neq" => modifiers.differs = true,
                "lt" => modifiers.order = Some("|lt"),
                "lte" => modifiers.order = Some("|lte"),
                "gt" => modifiers.order = Some("|gt"),
                "gte" => modifiers.order = Some("|gte"),
                "cidr" => {
                    return Err("`cidr`: no field of an exec is an internet address; execwatch's own `cidr` looks for \
                                addresses in a text"
                        .into());
                }
                "expand" => {
                    return Err(
                        "`expand`: what the placeholder stands for is not in the rule; write the values"
                            .into(),
                    );
                }
                "minute" | "hour" | "day" | "week" | "month" | "year" => {
                    return Err(format!("`{word}`: no field of an exec is a date"));
                }
                _ => {
                    let hint = suggestion(word, KNOWN);
                    return Err(format!("unknown modifier `{word}`{hint}"));
                }
            }
        }
        let shape = modifiers.before || modifiers.behind;
        let shaped = shape || modifiers.regex || modifiers.cased || !modifiers.transforming.is_empty();
        if modifiers.regex && !modifiers.transforming.is_empty() {
            return Err(format!("`{}` and `re` do not fit together", modifiers.transforming[0]));
        }
        if modifiers.regex && modifiers.before != modifiers.behind {
            return Err("`startswith` and `endswith` do not fit beside `re`: write `^` or `$`".into());
        }
        if modifiers.exists && (shaped || modifiers.all || modifiers.order.is_some() || modifiers.fieldref) {
            return Err("`exists` takes no other modifier".into());
        }
        if modifiers.order.is_some() && (shaped || modifiers.all || modifiers.fieldref) {
            return Err("`lt`, `lte`, `gt` and `gte` take no other modifier".into());
        }
        if modifiers.fieldref && (modifiers.all || modifiers.regex || !modifiers.transforming.is_empty()) {
            return Err(
                "`fieldref` takes only `contains`, `startswith`, `endswith`, `cased` and `neq` beside it"
                    .into(),
            );
        }
        Ok(modifiers)
    }

    fn shape(&self) -> &'static str {
        match (self.before, self.behind) {
            (true, true) => "|contains",
            (true, false) => "|endswith",
            (false, true) => "|startswith",
            (false, false) => "",
        }
    }
}

struct Item<'k> {
    field: &'static str,
    modifiers: Modifiers<'k>,
}

impl<'k> Item<'k> {
    /// Translates an entry; the flag says that it must not hold.
    fn read(
        key: &'k str,
        place: Place,
        value: &Node,
        warnings: &mut Vec<Mistake>,
    ) -> Result<(Alternatives, bool), Mistake> {
        let mut words = key.split('|');
        let name = words.next().unwrap_or_default();
        if name.is_empty() {
            return Err(mistake(
                place,
                "keywords are searched for in a whole log line, and an exec is none; name a field such as CommandLine",
            ));
        }
        let counterpart = counterpart(name).map_err(|message| mistake(place, message))?;
        let modifiers = Modifiers::read(words).map_err(|message| mistake(place, message))?;
        let differs = modifiers.differs;
        let values: &[Node] = match &value.value {
            Value::List(list) if list.is_empty() => return Err(mistake(value.place, "the list is empty")),
            Value::List(list) => list,
            Value::Map(_) => {
                return Err(mistake(
                    value.place,
                    format!("`{name}` is compared with values, not with a map"),
                ));
            }
            _ => std::slice::from_ref(value),
        };
        if let Some(wrong) = values.iter().find(|value| matches!(value.value, Value::List(_) | Value::Map(_)))
        {
            return Err(mistake(
                wrong.place,
                format!("`{name}` is compared with values, not with {}", wrong.describe()),
            ));
        }
        let alternatives = match counterpart {
            Counterpart::Text(field) => Item { field, modifiers }.texts(values)?,
            Counterpart::Number(field) => Item { field, modifiers }.numbers(values)?,
            Counterpart::Missing | Counterpart::None(_) => {
                let holds = |value: &Node| match modifiers.exists {
                    true => value.flag() == Some(false),
                    false => matches!(value.value, Value::Null),
                };
                let always = if modifiers.all { values.iter().all(holds) } else { values.iter().any(holds) };
                let never = if always == differs { "never holds" } else { "always holds" };
                warnings
                    .push(mistake(place, format!("no program on Linux has `{name}`, so this test {never}")));
                if always { vec![Vec::new()] } else { Vec::new() }
            }
        };
        Ok((alternatives, differs))
    }

    fn test(&self, modifiers: impl Into<String>, values: Values) -> Test {
        Test { field: self.field, modifiers: modifiers.into(), all: false, values }
    }

    fn exists(&self, exists: bool) -> Test {
        self.test("|exists", Values::Flag(exists))
    }

    fn texts(&self, values: &[Node]) -> Result<Alternatives, Mistake> {
        let modifiers = &self.modifiers;
        if modifiers.order.is_some() {
            let place = values.first().map_or(Place::default(), |value| value.place);
            return Err(mistake(
                place,
                "`lt`, `lte`, `gt` and `gte` compare numbers, and this field is text",
            ));
        }
        // For each value the tests of which one must hold.
        let mut each: Vec<Vec<Test>> = Vec::new();
        for value in values {
            each.push(self.value(value)?);
        }
        let place = values.first().map_or(Place::default(), |value| value.place);
        if modifiers.all {
            each.into_iter().try_fold(vec![Vec::new()], |alternatives, tests| {
                let tests = gather(tests).into_iter().map(|test| vec![test]).collect();
                product(&alternatives, &tests).ok_or_else(|| too_many(place))
            })
        } else {
            Ok(gather(each.into_iter().flatten().collect()).into_iter().map(|test| vec![test]).collect())
        }
    }

    fn value(&self, node: &Node) -> Result<Vec<Test>, Mistake> {
        let modifiers = &self.modifiers;
        let wrong = |message: String| Err(mistake(node.place, message));
        if modifiers.exists {
            return match node.flag() {
                Some(flag) => Ok(vec![self.exists(flag)]),
                None => wrong("`exists` needs true or false".into()),
            };
        }
        let Some(text) = node.text() else {
            if modifiers.shape().is_empty() && !modifiers.regex && !modifiers.fieldref {
                return Ok(vec![self.exists(false)]);
            }
            return wrong("null takes no modifier".into());
        };
        let cased = if modifiers.cased { "|cased" } else { "" };
        if modifiers.fieldref {
            return match counterpart(text) {
                Ok(Counterpart::Text(other)) => {
                    let words = format!("{}{cased}|fieldref", modifiers.shape());
                    Ok(vec![self.test(words, Values::Texts(vec![other.into()]))])
                }
                Ok(_) => wrong(format!("`{text}` is no field that holds text")),
                Err(message) => wrong(message),
            };
        }
        if modifiers.regex {
            let flags =
                if modifiers.flags.is_empty() { String::new() } else { format!("(?{})", modifiers.flags) };
            let expression = format!("{flags}{text}");
            super::regex::check(text).map_err(|message| mistake(node.place, message))?;
            if let Err((_, message)) = Pattern::new(Comparison::Regex, &[&expression], true) {
                return wrong(message);
            }
            return Ok(vec![self.test("|re", Values::Texts(vec![expression]))]);
        }
        let mut tests = Vec::new();
        for text in transformed(Text::parse(text), &modifiers.transforming)
            .map_err(|message| mistake(node.place, message))?
        {
            tests.push(match text.open(modifiers.before, modifiers.behind).comparison(modifiers.cased) {
                None => self.exists(true),
                Some((comparison, value)) => {
                    let words = match comparison {
                        Comparison::Equals => "",
                        Comparison::Contains => "|contains",
                        Comparison::StartsWith => "|startswith",
                        Comparison::EndsWith => "|endswith",
                        Comparison::Glob | Comparison::PathGlob => "|glob",
                        Comparison::Regex => "|re",
                    };
                    let cased = if comparison == Comparison::Regex { "" } else { cased };
                    self.test(format!("{words}{cased}"), Values::Texts(vec![value]))
                }
            });
        }
        Ok(tests)
    }

    fn numbers(&self, values: &[Node]) -> Result<Alternatives, Mistake> {
        /// The audit system's mark of a process that nobody's login started.
        const NO_LOGIN: i64 = u32::MAX as i64;
        let modifiers = &self.modifiers;
        let mut tests = Vec::new();
        for value in values {
            let wrong = |message: String| Err(mistake(value.place, message));
            if modifiers.exists {
                match value.flag() {
                    Some(flag) => tests.push(self.exists(flag)),
                    None => return wrong("`exists` needs true or false".into()),
                }
                continue;
            }
            let shaped = !modifiers.shape().is_empty() || modifiers.regex || modifiers.fieldref;
            if shaped || modifiers.all || !modifiers.transforming.is_empty() {
                return wrong(format!("`{}` is a number and compared as one", self.field));
            }
            let Some(text) = value.text() else {
                tests.push(self.exists(false));
                continue;
            };
            match (text.parse::<i64>(), modifiers.order) {
                (Ok(NO_LOGIN), None) if self.field == "loginuid" => tests.push(self.exists(false)),
                (Ok(number), order) => {
                    tests.push(self.test(order.unwrap_or_default(), Values::Numbers(vec![number])));
                }
                (Err(_), _) => {
                    return wrong(format!(
                        "`{}` is compared with whole numbers, not with `{text}`",
                        self.field
                    ));
                }
            }
        }
        Ok(gather(tests).into_iter().map(|test| vec![test]).collect())
    }
}

/// Joins tests, of which one must hold, that differ in their values only.
fn gather(tests: Vec<Test>) -> Vec<Test> {
    let mut gathered: Vec<Test> = Vec::new();
    for test in tests {
        let like =
            gathered.iter_mut().find(|other| other.field == test.field && other.modifiers == test.modifiers);
        match (like.map(|other| &mut other.values), test.values) {
            (Some(Values::Texts(own)), Values::Texts(more)) => own.extend(more),
            (Some(Values::Numbers(own)), Values::Numbers(more)) => own.extend(more),
            (Some(Values::Flag(own)), Values::Flag(more)) if *own == more => {}
            (_, values) => gathered.push(Test { values, ..test }),
        }
    }
    gathered
}

/// What the modifiers that change a text make of it.
fn transformed(text: Text, modifiers: &[&str]) -> Result<Vec<Text>, String> {
    let mut texts = vec![text];
    // Bytes that wait for Base64.
    let mut encoding = None;
    for &modifier in modifiers {
        match modifier {
            "windash" => {
                let variants: Option<Vec<Vec<Text>>> = texts.iter().map(Text::dashes).collect();
                texts = variants
                    .map(|variants| variants.concat())
                    .filter(|texts| texts.len() <= MOST_VARIANTS)
                    .ok_or_else(|| format!("`windash` makes more than {MOST_VARIANTS} texts of this one"))?;
            }
            "base64" | "base64offset" => {
                let mut encoded = Vec::new();
                let encoding = encoding.take();
                for text in &texts {
                    let plain = text
                        .plain()
                        .ok_or_else(|| format!("`{modifier}` of a text with wildcards is not defined"))?;
                    let bytes = match encoding {
                        Some(encoding) => utf16(plain, encoding),
                        None => plain.as_bytes().to_vec(),
                    };
                    let pieces = match modifier {
                        "base64" => vec![base64(&bytes)],
                        _ => base64_at_any_offset(&bytes).to_vec(),
                    };
                    if pieces.iter().any(String::is_empty) {
                        return Err(format!("`{modifier}` leaves nothing certain of a text this short"));
                    }
                    // Base64 has neither wildcards nor backslashes.
                    encoded.extend(pieces.iter().map(|piece| Text::parse(piece)));
                }
                texts = encoded;
            }
            _ => encoding = Some(modifier),
        }
    }
    match encoding {
        Some(encoding) => Err(format!(
            "`{encoding}` without `base64` behind it puts NULs into the text, which no argument can hold"
        )),
        None => Ok(texts),
    }
}

fn utf16(text: &str, encoding: &str) -> Vec<u8> {
    let mark = (encoding == "utf16").then_some(0xfeff);
    let units = mark.into_iter().chain(text.encode_utf16());
    units
        .flat_map(|unit| if encoding == "utf16be" { unit.to_be_bytes() } else { unit.to_le_bytes() })
        .collect()
}
