//! Rules as TOML that is pleasant to read and edit.

use std::fmt::Write;

use super::detection::{Alternatives, Test, Values};

/// A translated rule.
#[derive(Debug, Clone, Default)]
pub(super) struct Translated {
    /// Lines of comment before it.
    pub comments: Vec<String>,
    /// Its id.
    pub id: String,
    /// Its title.
    pub title: String,
    /// The word of its severity.
    pub severity: &'static str,
    /// ATT&CK techniques.
    pub attack: Vec<String>,
    /// What it finds.
    pub description: String,
    /// Honest uses that match too.
    pub false_positives: Vec<String>,
    /// Where to read more.
    pub references: Vec<String>,
    /// Who wrote it.
    pub author: String,
    /// The condition.
    pub condition: String,
    /// The selections.
    pub selections: Vec<(String, Alternatives)>,
}

/// A line of a list longer than this gets lines of its own, in characters.
const WIDTH: usize = 110;

/// The rule as TOML.
pub(super) fn toml(rule: &Translated) -> String {
    let mut text = String::new();
    for comment in &rule.comments {
        let shown: String = comment.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let _ = writeln!(text, "# {}", shown.trim());
    }
    text.push_str("[[rule]]\n");
    entry(&mut text, "id", &string(&rule.id));
    entry(&mut text, "title", &string(&rule.title));
    entry(&mut text, "severity", &string(rule.severity));
    let mut list_unless_empty = |key: &str, values: &[String]| {
        if !values.is_empty() {
            entry(&mut text, key, &list(key, values));
        }
    };
    list_unless_empty("attack", &rule.attack);
    list_unless_empty("false-positives", &rule.false_positives);
    list_unless_empty("references", &rule.references);
    for (key, value) in [("author", &rule.author), ("description", &rule.description)] {
        if !value.is_empty() {
            entry(&mut text, key, &string(value));
        }
    }
    entry(&mut text, "condition", &string(&rule.condition));
    for (name, alternatives) in &rule.selections {
        for alternative in alternatives {
            let (open, close) = if alternatives.len() == 1 { ("[", "]") } else { ("[[", "]]") };
            let _ = writeln!(text, "{open}rule.select.{}{close}", key(name));
            for (key, value) in entries(alternative) {
                entry(&mut text, &string(&key), &value);
            }
        }
    }
    text
}

fn entry(text: &mut String, key: &str, value: &str) {
    let _ = writeln!(text, "{key} = {value}");
}

/// A key of a table.
fn key(name: &str) -> String {
    let bare = !name.is_empty()
        && name.chars().all(|character| character.is_ascii_alphanumeric() || matches!(character, '_' | '-'));
    if bare { name.to_owned() } else { string(name) }
}

/// Keys and values of the tests that must all hold. Where two would have the same key, their values are joined if all
/// are needed; if not, `any`, which changes nothing, makes another key.
fn entries(tests: &[Test]) -> Vec<(String, String)> {
    let mut joined: Vec<Test> = Vec::new();
    for test in tests {
        let conjunctive = |test: &Test| match &test.values {
            Values::Texts(texts) => texts.len() == 1 || test.all,
            _ => false,
        };
        let like = joined.iter_mut().find(|other| {
            other.field == test.field
                && other.modifiers == test.modifiers
                && (*other == test
                    || conjunctive(other) && conjunctive(test) && !test.modifiers.ends_with("fieldref"))
        });
        match (like, &test.values) {
            (Some(other), Values::Texts(more)) => {
                if let Values::Texts(own) = &mut other.values
                    && own != more
                {
                    own.extend(more.iter().filter(|text| !own.contains(text)).cloned().collect::<Vec<_>>());
                    other.all = true;
                }
            }
            (Some(_), _) => {}
            (None, _) => joined.push(test.clone()),
        }
    }
    let mut entries: Vec<(String, String)> = Vec::new();
    for test in joined {
        let mut key = format!("{}{}{}", test.field, test.modifiers, if test.all { "|all" } else { "" });
        while entries.iter().any(|(other, _)| *other == key) {
            key.push_str("|any");
        }
        let value = match &test.values {
            Values::Flag(flag) => flag.to_string(),
            Values::Numbers(numbers) if numbers.len() == 1 => numbers[0].to_string(),
            Values::Numbers(numbers) => format!("{numbers:?}"),
            Values::Texts(texts) if texts.len() == 1 => string(&texts[0]),
            Values::Texts(texts) => list(&key, texts),
        };
        entries.push((key, value));
    }
    entries
}

fn list(key: &str, values: &[String]) -> String {
    let strings: Vec<String> = values.iter().map(|value| string(value)).collect();
    let line = format!("[{}]", strings.join(", "));
    if key.chars().count() + line.chars().count() <= WIDTH && !line.contains('\n') {
        return line;
    }
    let mut lines = "[\n".to_owned();
    for string in strings {
        let _ = writeln!(lines, "    {string},");
    }
    lines.push(']');
    lines
}

/// A TOML string of any text (toml.io, v1.0.0, section String).
fn string(text: &str) -> String {
    let control = |character: char| {
        character.is_control()
            || matches!(character, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    let special = text.contains(['\\', '"']);
    if special && !text.contains(control) {
        if !text.contains('\'') {
            return format!("'{text}'");
        }
        if !text.contains("'''") && !text.ends_with('\'') {
            return format!("'''{text}'''");
        }
    }
    // Several lines are kept as such.
    let lines = text.contains('\n') && text.lines().count() > 1;
    let mut written = if lines { "\"\"\"\n" } else { "\"" }.to_owned();
    for character in text.chars() {
        match character {
            '\\' => written.push_str(r"\\"),
            '"' => written.push_str("\\\""),
            '\n' if lines => written.push('\n'),
            '\n' => written.push_str(r"\n"),
            '\t' => written.push_str(r"\t"),
            '\r' => written.push_str(r"\r"),
            character if control(character) => {
                let _ = write!(written, "\\u{:04X}", u32::from(character));
            }
            character => written.push(character),
        }
    }
    written.push_str(if lines { "\"\"\"" } else { "\"" });
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> ::toml::Spanned<::toml::de::DeTable<'_>> {
        ::toml::de::DeTable::parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
    }

    #[test]
    fn strings_are_plain_where_they_can_be() {
        for (text, written) in [
            ("/nc", "\"/nc\""),
            (r"\s-O\s", r"'\s-O\s'"),
            ("'x:0:'", "\"'x:0:'\""),
            ("\"'\\", r#"'''"'\'''"#),
            ("\"'", r#""\"'""#),
            ("a\nb", "\"\"\"\na\nb\"\"\""),
            ("a\n", r#""a\n""#),
            ("\u{202e}\u{7}", r#""\u202E\u0007""#),
        ] {
            assert_eq!(string(text), written);
        }
    }

    #[test]
    fn like_keys() {
        let test = |modifiers: &str, all, values: &[&str]| Test {
            field: "cmdline",
            modifiers: modifiers.into(),
            all,
            values: Values::Texts(values.iter().map(|value| (*value).to_owned()).collect()),
        };
        let keys = |tests: &[Test]| {
            entries(tests).into_iter().map(|(key, value)| key + " " + &value).collect::<Vec<_>>()
        };
        let (one, two) = (test("|contains", false, &["a"]), test("|contains", false, &["b", "c"]));
        assert_eq!(
            keys(&[one.clone(), test("|contains", true, &["b", "d"])]),
            [r#"cmdline|contains|all ["a", "b", "d"]"#]
        );
        assert_eq!(
            keys(&[one, two.clone(), test("|contains", false, &["x", "y"])]),
            [
                r#"cmdline|contains "a""#,
                r#"cmdline|contains|any ["b", "c"]"#,
                r#"cmdline|contains|any|any ["x", "y"]"#
            ]
        );
        assert_eq!(keys(&[two.clone(), two]).len(), 1);
    }

    proptest! {
        #[test]
        fn any_text_comes_back(text in "(.|\\PC|[\\n\\r\\t\\x00-\\x1f'\"\\\\#]|\u{202e}){0,30}") {
            let written = format!("a = {}\nb = {}\n", string(&text), list("b", std::slice::from_ref(&text)));
            let table = read(&written);
            prop_assert_eq!(table.get_ref()["a"].get_ref().as_str(), Some(text.as_str()), "{}", &written);
            let list = table.get_ref()["b"].get_ref().as_array().unwrap();
            prop_assert_eq!(list[0].get_ref().as_str(), Some(text.as_str()));
        }

        #[test]
        fn any_comment_is_one(text in "(.|[\\n\\r]){0,30}") {
            let rule = Translated { comments: vec![text], id: "x".into(), ..Translated::default() };
            let written = toml(&rule);
            let table = read(&written);
            prop_assert_eq!(table.get_ref().iter().count(), 1);
            prop_assert_eq!(table.get_ref()["rule"].get_ref().as_array().unwrap().len(), 1);
        }
    }
}
