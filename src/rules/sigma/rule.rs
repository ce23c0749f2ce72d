//! A document of a Sigma file as a rule: its kind, what is known about it, its selections and its condition.

use super::condition::{Condition, parse};
use super::detection::{Alternatives, Map, selection};
use super::write::Translated;
use super::yaml::{Mistake, Node, Place, Value, mistake};
use crate::rules::catalogue::LONGEST_NAME;

/// Translates a document. Gives the rule and its Sigma id, or all that keeps it from being translated.
pub(super) fn translate(
    document: &Node,
    warnings: &mut Vec<Mistake>,
) -> Result<(Translated, String), Vec<Mistake>> {
    let Value::Map(entries) = &document.value else {
        return Err(vec![mistake(
            document.place,
            format!(
                "a Sigma rule is a map with `title`, `logsource` and `detection`, not {}",
                document.describe()
            ),
        )]);
    };
    for (key, _) in entries {
        let reason = match key.text.as_str() {
            "correlation" => {
                "a correlation rule joins several events; execwatch has `threshold`, which is not the same"
            }
            "filter" => "a filter changes other rules; write an exception",
            "action" => "joining documents to one rule has been given up by Sigma; write rules of their own",
            _ => continue,
        };
        return Err(vec![mistake(key.place, format!("`{}`: {reason}", key.text))]);
    }
    of_this_kind(document).map_err(|wrong| vec![wrong])?;
    let mut mistakes = Vec::new();
    let mut rule = about(document, &mut mistakes, warnings);
    let sigma_id = scalar(document, "id", &mut mistakes).unwrap_or_default();
    match detection(document, warnings) {
        Ok((condition, selections)) => (rule.condition, rule.selections) = (condition, selections),
        Err(wrong) => mistakes.extend(wrong),
    }
    if mistakes.is_empty() { Ok((rule, sigma_id)) } else { Err(mistakes) }
}

fn of_this_kind(document: &Node) -> Result<(), Mistake> {
    let Some(source) = document.get("logsource") else {
        return Err(mistake(document.place, "the rule needs `logsource`"));
    };
    let part = |key| source.get(key).and_then(Node::text);
    let (category, product, service) = (part("category"), part("product"), part("service"));
    if category == Some("process_creation") && matches!(product, None | Some("linux")) && service.is_none() {
        return Ok(());
    }
    let parts = [("category", category), ("product", product), ("service", service)];
    let written: Vec<String> =
        parts.iter().filter_map(|(key, value)| value.map(|value| format!("{key} {value}"))).collect();
    Err(mistake(
        source.place,
        format!(
            "a rule about other events ({}): only category process_creation, product linux is about execs",
            written.join(", ")
        ),
    ))
}

fn scalar(node: &Node, key: &str, mistakes: &mut Vec<Mistake>) -> Option<String> {
    let value = node.get(key)?;
    match &value.value {
        Value::Scalar(text, _) => Some(text.trim().to_owned()),
        Value::Null => None,
        _ => {
            mistakes.push(mistake(value.place, format!("`{key}` must be a text, not {}", value.describe())));
            None
        }
    }
}

/// Texts of a list; one text is a list of one.
fn texts(node: &Node, key: &str, mistakes: &mut Vec<Mistake>) -> Vec<(String, Place)> {
    let Some(value) = node.get(key) else { return Vec::new() };
    let items = match &value.value {
        Value::List(list) => list.as_slice(),
        _ => std::slice::from_ref(value),
    };
    let mut texts = Vec::new();
    for item in items {
        match &item.value {
            Value::Scalar(text, _) => texts.push((text.trim().to_owned(), item.place)),
            Value::Null => {}
            _ => mistakes.push(mistake(item.place, format!("`{key}` holds texts, not {}", item.describe()))),
        }
    }
    texts
}

/// All but the detection.
fn about(document: &Node, mistakes: &mut Vec<Mistake>, warnings: &mut Vec<Mistake>) -> Translated {
    let mut of = |key| scalar(document, key, mistakes).unwrap_or_default();
    let (title, description, sigma_id, status, level) =
        (of("title"), of("description"), of("id"), of("status"), of("level"));
    let origin: Vec<String> = ["id", "status", "date", "modified", "license"]
        .into_iter()
        .map(|key| (key, of(key)))
        .filter(|(_, value)| !value.is_empty())
        .map(|(key, value)| format!("{key} {value}"))
        .collect();
    if title.is_empty() {
        mistakes.push(mistake(document.place, "the rule needs `title`"));
    }
    let place_of = |key| document.get(key).map_or(document.place, |value| value.place);
    if matches!(status.as_str(), "deprecated" | "unsupported") {
        warnings.push(mistake(place_of("status"), format!("the rule's status is {status}")));
    }
    let severity = match level.as_str() {
        "informational" => "info",
        "low" => "low",
        "medium" => "medium",
        "high" => "high",
        "critical" => "critical",
        "" => {
            warnings.push(mistake(document.place, "the rule has no `level`; its severity is medium"));
            "medium"
        }
        level => {
            let message = format!("`level` is informational, low, medium, high or critical, not `{level}`");
            mistakes.push(mistake(place_of("level"), message));
            "medium"
        }
    };
    let mut list = |key| texts(document, key, mistakes);
    let (mut attack, mut tags): (Vec<String>, Vec<String>) = Default::default();
    for (tag, _) in list("tags") {
        match tag.strip_prefix("attack.").map(str::to_ascii_uppercase).filter(|tag| technique(tag)) {
            Some(technique) if !attack.contains(&technique) => attack.push(technique),
            Some(_) => {}
            None => tags.push(tag),
        }
    }
    let plain = |texts: Vec<(String, Place)>| texts.into_iter().map(|(text, _)| text).collect::<Vec<_>>();
    let mut references = plain(list("references"));
    if !sigma_id.is_empty() {
        references.insert(0, format!("Sigma rule {sigma_id}"));
    }
    let mut comments = vec![if origin.is_empty() {
        "Translated from a Sigma rule.".to_owned()
    } else {
        format!("Translated from a Sigma rule: {}.", origin.join(", "))
    }];
    if !tags.is_empty() {
        comments.push(format!("Tags: {}.", tags.join(", ")));
    }
    Translated {
        comments,
        id: id(&title, &sigma_id),
        severity,
        attack,
        description,
        false_positives: plain(list("falsepositives")),
        references,
        author: plain(list("author")).join(", "),
        title,
        ..Translated::default()
    }
}

/// An ATT&CK technique such as T1059.004.
fn technique(tag: &str) -> bool {
    let digits = |text: &str, count| text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    tag.strip_prefix('T').is_some_and(|number| match number.split_once('.') {
        Some((technique, sub)) => digits(technique, 4) && digits(sub, 3),
        None => digits(number, 4),
    })
}

/// Letters and digits of the Sigma id that go into the id.
const OF_SIGMA_ID: usize = 8;

/// An id that can be read: the words of the title, and the beginning of the Sigma id, which makes it unique.
fn id(title: &str, sigma_id: &str) -> String {
    let suffix: String = sigma_id
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .take(OF_SIGMA_ID)
        .map(|character| character.to_ascii_lowercase())
        .collect();
    let mut slug = String::new();
    for word in
        title.split(|character: char| !character.is_ascii_alphanumeric()).filter(|word| !word.is_empty())
    {
        // Room for a dash before the word, and for the suffix with its dash.
        if slug.len() + 1 + word.len() + 1 + OF_SIGMA_ID > LONGEST_NAME {
            break;
        }
        if !slug.is_empty() {
            slug.push('-');
        }
        slug.push_str(&word.to_ascii_lowercase());
    }
    match (slug.is_empty(), suffix.is_empty()) {
        (false, true) => slug,
        (false, false) => format!("{slug}-{suffix}"),
        (true, false) => format!("sigma-{suffix}"),
        (true, true) => "sigma-rule".to_owned(),
    }
}

type Detection = (String, Vec<(String, Alternatives)>);

fn detection(document: &Node, warnings: &mut Vec<Mistake>) -> Result<Detection, Vec<Mistake>> {
    let one = |place, message: &str| vec![mistake(place, message)];
    let Some(detection) = document.get("detection") else {
        return Err(one(document.place, "the rule needs `detection`"));
    };
    let Value::Map(entries) = &detection.value else {
        return Err(one(detection.place, "`detection` must be a map of selections and `condition`"));
    };
    if let Some((key, _)) = entries.iter().find(|(key, _)| key.text == "timeframe") {
        return Err(one(
            key.place,
            "`timeframe` belongs to counting over events, which has no counterpart; execwatch's rules have `threshold`",
        ));
    }
    let selections: Vec<_> = entries.iter().filter(|(key, _)| key.text != "condition").collect();
    let names: Vec<&str> = selections.iter().map(|(key, _)| key.text.as_str()).collect();
    let mut mistakes = Vec::new();
    let conditions: Vec<Condition<usize>> = texts(detection, "condition", &mut mistakes)
        .iter()
        .filter_map(|(text, place)| parse(text, *place, &names).map_err(|wrong| mistakes.push(wrong)).ok())
        .collect();
    if conditions.is_empty() && mistakes.is_empty() {
        return Err(one(detection.place, "`detection` needs `condition`"));
    }
    let condition = Condition::Any(conditions);
    let used: Vec<usize> = condition.leaves().into_iter().copied().collect();
    let mut written = Written::default();
    let mut meanings: Vec<Condition<String>> = Vec::new();
    for (index, (key, node)) in selections.iter().enumerate() {
        if !used.contains(&index) {
            meanings.push(Condition::Certain(false));
            if mistakes.is_empty() {
                warnings.push(mistake(
                    key.place,
                    format!("the condition does not use `{}`; it is left out", key.text),
                ));
            }
            continue;
        }
        match selection(node, warnings) {
            Ok(maps) => meanings.push(written.selection(&key.text, maps, &names)),
            Err(wrong) => {
                mistakes.extend(wrong);
                meanings.push(Condition::Certain(false));
            }
        }
    }
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    let place = detection.get("condition").map_or(detection.place, |node| node.place);
    match condition.replace(&|&index| meanings[index].clone()) {
        Condition::Certain(true) => {
            Err(one(place, "the rule would match every exec, for what it tests is missing in all of them"))
        }
        Condition::Certain(false) => {
            Err(one(place, "the rule could never match, for it tests what no program on Linux has"))
        }
        condition => {
            // What folding has left over.
            let left: Vec<&String> = condition.leaves();
            let selections: Vec<_> =
                written.selections.into_iter().filter(|(name, _)| left.contains(&name)).collect();
            let names: Vec<&str> = selections.iter().map(|(name, _)| name.as_str()).collect();
            Ok((condition.write(&names), selections))
        }
    }
}

/// The selections as they are written.
#[derive(Default)]
struct Written {
    selections: Vec<(String, Alternatives)>,
}

impl Written {
    /// Adds what a selection needs, and tells what it means in terms of that.
    fn selection(&mut self, name: &str, maps: Vec<Map>, names: &[&str]) -> Condition<String> {
        if maps.iter().all(|map| map.excluded.is_empty()) {
            let alternatives = maps.into_iter().flat_map(|map| map.tests).collect();
            return self.add(name, alternatives, names);
        }
        let single = maps.len() == 1;
        let each = maps.into_iter().enumerate().map(|(index, map)| {
            let name = if single { name.to_owned() } else { format!("{name}.{}", index + 1) };
            let tests = self.add(&name, map.tests, names);
            let excluded = self.add(&format!("{name}.neq"), map.excluded, names);
            Condition::All(vec![tests, Condition::Not(Box::new(excluded))])
        });
        // Folds what is certain.
        Condition::Any(each.collect()).replace(&|name: &String| Condition::Of(name.clone()))
    }

    fn add(&mut self, name: &str, alternatives: Alternatives, names: &[&str]) -> Condition<String> {
        if alternatives.iter().any(Vec::is_empty) {
            return Condition::Certain(true);
        }
        if alternatives.is_empty() {
            return Condition::Certain(false);
        }
        let mut safe: String = name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '_' })
            .take(LONGEST_NAME)
            .collect();
        let word = ["and", "or", "not", "of", "them"].iter().any(|word| safe.eq_ignore_ascii_case(word));
        if word || safe.is_empty() {
            safe.push('_');
        }
        let taken = |safe: &str, written: &[(String, Alternatives)]| {
            written.iter().any(|(other, _)| other == safe) || safe != name && names.contains(&safe)
        };
        let mut number = 2;
        while taken(&safe, &self.selections) {
            safe = format!("selection_{number}");
            number += 1;
        }
        self.selections.push((safe.clone(), alternatives));
        Condition::Of(safe)
    }
}
