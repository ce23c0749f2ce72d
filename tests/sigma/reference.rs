//! An evaluator of Sigma rules, written from the specification (version 2) and as plainly as can be: it walks the YAML
//! for each event. It shares neither code nor parser with the importer, and speed is no aim.

use std::collections::BTreeMap;

use serde_yaml_ng::Value;

/// An event: fields and their values. What is not in it is missing.
pub(crate) type Event = BTreeMap<&'static str, String>;

/// Whether the rule matches the event.
pub(crate) fn matches(rule: &Value, event: &Event) -> bool {
    let detection = rule["detection"].as_mapping().unwrap();
    let condition = &rule["detection"]["condition"];
    let selections: BTreeMap<&str, bool> = detection
        .iter()
        .map(|(name, value)| (name.as_str().unwrap(), value))
        .filter(|(name, _)| *name != "condition")
        .map(|(name, value)| (name, selection(value, event)))
        .collect();
    match condition {
        Value::Sequence(list) => list.iter().any(|text| self::condition(text.as_str().unwrap(), &selections)),
        text => self::condition(text.as_str().unwrap(), &selections),
    }
}

/// Maps of a list: one must hold. Entries of a map: all must.
fn selection(value: &Value, event: &Event) -> bool {
    match value {
        Value::Sequence(maps) => maps.iter().any(|map| selection(map, event)),
        Value::Mapping(map) => map.iter().all(|(key, value)| item(key.as_str().unwrap(), value, event)),
        other => panic!("keywords: {other:?}"),
    }
}

fn item(key: &str, value: &Value, event: &Event) -> bool {
    let (field, modifiers) = key.split_once('|').unwrap_or((key, ""));
    let modifiers: Vec<&str> = modifiers.split('|').filter(|word| !word.is_empty()).collect();
    let has = |name: &str| modifiers.contains(&name);
    let values = match value {
        Value::Sequence(list) => list.clone(),
        one => vec![one.clone()],
    };
    let holds = |value: &Value| one(event.get(field), &modifiers, value, event);
    let holds = if has("all") { values.iter().all(holds) } else { values.iter().any(holds) };
    holds != has("neq")
}

fn one(text: Option<&String>, modifiers: &[&str], value: &Value, event: &Event) -> bool {
    let has = |name: &str| modifiers.contains(&name);
    if has("exists") {
        return value.as_bool().unwrap() == text.is_some();
    }
    let value = match value {
        Value::Null => return text.is_none(),
        Value::String(value) => value.clone(),
        Value::Number(value) => value.to_string(),
        Value::Bool(value) => value.to_string(),
        other => panic!("{other:?}"),
    };
    let Some(text) = text else { return false };
    if has("re") {
        let flags: String = modifiers.iter().filter(|word| word.len() == 1).copied().collect();
        let flags = if flags.is_empty() { flags } else { format!("(?{flags})") };
        return regex::Regex::new(&format!("{flags}{value}")).unwrap().is_match(text);
    }
    for (name, compare) in
        [("lt", i64::lt as fn(&i64, &i64) -> bool), ("lte", i64::le), ("gt", i64::gt), ("gte", i64::ge)]
    {
        if has(name) {
            return compare(&text.parse().unwrap(), &value.parse().unwrap());
        }
    }
    let mut patterns = vec![tokens(&value)];
    if has("fieldref") {
        let Some(other) = event.get(value.as_str()) else { return false };
        patterns = vec![other.chars().map(Token::Character).collect()];
    }
    let mut bytes: Option<Vec<u8>> = None;
    for modifier in modifiers {
        match *modifier {
            "windash" => patterns = patterns.iter().flat_map(|pattern| dashes(pattern)).collect(),
            "wide" | "utf16le" => bytes = Some(value.encode_utf16().flat_map(u16::to_le_bytes).collect()),
            "utf16be" => bytes = Some(value.encode_utf16().flat_map(u16::to_be_bytes).collect()),
            "base64" => {
                let plain = bytes.take().unwrap_or_else(|| value.clone().into_bytes());
                patterns = vec![tokens(&encoded(&plain))];
            }
            "base64offset" => {
                let plain = bytes.take().unwrap_or_else(|| value.clone().into_bytes());
                patterns = (0..3).map(|offset| tokens(&certain(&plain, offset))).collect();
            }
            _ => {}
        }
    }
    patterns.into_iter().any(|mut pattern| {
        if has("contains") || has("endswith") {
            pattern.insert(0, Token::Many);
        }
        if has("contains") || has("startswith") {
            pattern.push(Token::Many);
        }
        let text: Vec<char> = text.chars().collect();
        fits(&pattern, &text, has("cased"))
    })
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Token {
    Character(char),
    One,
    Many,
}

fn tokens(value: &str) -> Vec<Token> {
    let characters: Vec<char> = value.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < characters.len() {
        tokens.push(match (characters[at], characters.get(at + 1)) {
            ('\\', Some(&next @ ('*' | '?' | '\\'))) => {
                at += 1;
                Token::Character(next)
            }
            ('*', _) => Token::Many,
            ('?', _) => Token::One,
            (character, _) => Token::Character(character),
        });
        at += 1;
    }
    tokens
}

fn fits(pattern: &[Token], text: &[char], cased: bool) -> bool {
    match (pattern.first(), text.first()) {
        (None, None) => true,
        (Some(Token::Many), _) => (0..=text.len()).any(|taken| fits(&pattern[1..], &text[taken..], cased)),
        (Some(Token::One), Some(_)) => fits(&pattern[1..], &text[1..], cased),
        (Some(Token::Character(own)), Some(other)) => {
            let same = own == other || !cased && own.to_lowercase().eq(other.to_lowercase());
            same && fits(&pattern[1..], &text[1..], cased)
        }
        _ => false,
    }
}

fn dashes(pattern: &[Token]) -> Vec<Vec<Token>> {
    let word = |token: Option<&Token>| matches!(token, Some(Token::Character(character)) if character.is_alphanumeric() || *character == '_');
    let Some(at) = pattern.iter().enumerate().position(|(at, token)| {
        matches!(token, Token::Character('-' | '/'))
            && !(at > 0 && word(pattern.get(at - 1)))
            && word(pattern.get(at + 1))
    }) else {
        return vec![pattern.to_vec()];
    };
    let mut all = Vec::new();
    for dash in ['-', '/', '–', '—', '―'] {
        for rest in dashes(&pattern[at + 1..]) {
            let mut variant = pattern[..at].to_vec();
            variant.push(Token::Character(dash));
            variant.extend(rest);
            all.push(variant);
        }
    }
    all
}

/// Base64 by bits.
fn encoded(bytes: &[u8]) -> String {
    const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bits: Vec<u8> =
        bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
    while !bits.len().is_multiple_of(6) {
        bits.push(0);
    }
    let index = |six: &[u8]| six.iter().fold(0, |value, bit| value * 2 + usize::from(*bit));
    let mut text: String = bits.chunks(6).map(|six| ALPHABET.chars().nth(index(six)).unwrap()).collect();
    while !text.len().is_multiple_of(4) {
        text.push('=');
    }
    text
}

/// The characters that do not depend on what stands before and behind, found by trying.
fn certain(bytes: &[u8], offset: usize) -> String {
    let around = |before: u8, after: u8| {
        let mut all = vec![before; offset];
        all.extend(bytes);
        all.extend([after; 3]);
        encoded(&all)
    };
    let (one, other) = (around(0, 0), around(255, 255));
    let length = (offset + bytes.len()) * 8 / 6;
    one.chars().zip(other.chars()).take(length).filter(|(a, b)| a == b).map(|(a, _)| a).collect()
}

fn condition(text: &str, selections: &BTreeMap<&str, bool>) -> bool {
    let spaced = text.replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let result = or(&words, &mut at, selections);
    assert_eq!(at, words.len(), "{text}");
    result
}

fn next_is(words: &[&str], at: &mut usize, word: &str) -> bool {
    let found = words.get(*at).is_some_and(|next| next.to_lowercase() == word);
    *at += usize::from(found);
    found
}

fn or(words: &[&str], at: &mut usize, selections: &BTreeMap<&str, bool>) -> bool {
    let mut result = and(words, at, selections);
    while next_is(words, at, "or") {
        result |= and(words, at, selections);
    }
    result
}

fn and(words: &[&str], at: &mut usize, selections: &BTreeMap<&str, bool>) -> bool {
    let mut result = not(words, at, selections);
    while next_is(words, at, "and") {
        result &= not(words, at, selections);
    }
    result
}

fn not(words: &[&str], at: &mut usize, selections: &BTreeMap<&str, bool>) -> bool {
    if next_is(words, at, "not") {
        return !not(words, at, selections);
    }
    if next_is(words, at, "(") {
        let result = or(words, at, selections);
        assert!(next_is(words, at, ")"));
        return result;
    }
    let word = words[*at];
    *at += 1;
    if !next_is(words, at, "of") {
        return selections[word];
    }
    let target = words[*at];
    *at += 1;
    let pattern = if target.to_lowercase() == "them" { "*" } else { target };
    let meant: Vec<bool> = selections
        .iter()
        .filter(|(name, _)| pattern.starts_with('_') || !name.starts_with('_'))
        .filter(|(name, _)| fits(&tokens(pattern), &name.chars().collect::<Vec<_>>(), true))
        .map(|(_, holds)| *holds)
        .collect();
    assert!(!meant.is_empty(), "{target}");
    match word.to_lowercase().as_str() {
        "1" | "any" => meant.contains(&true),
        "all" => !meant.contains(&false),
        other => panic!("{other} of"),
    }
}
