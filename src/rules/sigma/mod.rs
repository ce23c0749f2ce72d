//! Sigma rules of process creation on Linux, translated into rules of execwatch with the same meaning.
//!
//! In: the text of a YAML file. Out: TOML, or messages about what cannot be translated, each with its place. `yaml` reads
//! the tree, `rule` what is known about a rule, `fields` says what Sigma's fields are here, `detection` translates
//! selections, `text` and `regex` their values, `condition` the condition, and `write` makes TOML of it. All of it is
//! free of I/O.
//!
//! Promise: of an event whose fields are all known, the translated rule and the Sigma rule say the same. Where a field
//! could not be read, evaluators of Sigma take it as missing, so that its negation holds; execwatch knows that it does
//! not know, and neither holds.

mod condition;
mod detection;
mod fields;
mod regex;
mod rule;
mod text;
mod write;
mod yaml;

use super::macros::Macros;
use super::model;
use crate::diagnostics::{Diagnostic, Diagnostics, Level, Source};
use crate::document::Document;
use crate::order;
use yaml::Mistake;

pub use fields::{Counterpart, FIELDS};
pub(crate) use text::base64;

/// The most messages about one file.
pub const MOST_MESSAGES: usize = 50;

/// What came of a file.
#[derive(Debug, Default)]
pub struct Import {
    /// Its rules.
    pub rules: Vec<Imported>,
    /// Errors, of which each keeps a document from being translated, and warnings.
    pub messages: Vec<Diagnostic>,
}

/// A translated rule.
#[derive(Debug, Clone)]
pub struct Imported {
    /// Its id in execwatch.
    pub id: String,
    /// Its id in Sigma; empty if it has none.
    pub sigma_id: String,
    /// The rule as TOML.
    pub toml: String,
}

impl Import {
    /// Nothing was refused.
    pub fn complete(&self) -> bool {
        self.messages.iter().all(|message| message.level != Level::Error)
    }
}

/// Translates the documents of a file, each for itself.
pub fn import(source: &Source) -> Import {
    let mut import = Import::default();
    let mut found: Vec<(Level, Mistake)> = Vec::new();
    let (documents, broken) = yaml::documents(&source.text);
    // An empty document, as behind a last `---`, is none.
    let rules = documents.iter().filter(|document| !matches!(document.value, yaml::Value::Null));
    match broken {
        Some(mistake) => found.push((Level::Error, mistake)),
        None if rules.clone().next().is_none() => {
            import.messages.push(Diagnostic::whole(
                Level::Error,
                &source.name,
                "the file holds no Sigma rule",
            ));
        }
        None => {
            for document in rules {
                let mut warnings = Vec::new();
                match imported(document, &mut warnings) {
                    Ok(rule) => import.rules.push(rule),
                    Err(mistakes) => {
                        found.extend(mistakes.into_iter().map(|mistake| (Level::Error, mistake)))
                    }
                }
                found.extend(warnings.into_iter().map(|warning| (Level::Warning, warning)));
            }
        }
    }
    // Errors come first, so that none is lost for warnings.
    order::by_key(&mut found, |(level, _)| std::cmp::Reverse(*level));
    let more = found.len().saturating_sub(MOST_MESSAGES);
    for (level, mistake) in found.into_iter().take(MOST_MESSAGES) {
        let place = mistake.place.in_bytes(&source.text);
        import.messages.push(Diagnostic::at(level, source, place, mistake.message));
    }
    if more > 0 {
        let message = format!("{more} more messages about this file are left out");
        import.messages.push(Diagnostic::whole(Level::Warning, &source.name, message));
    }
    import
}

fn imported(document: &yaml::Node, warnings: &mut Vec<Mistake>) -> Result<Imported, Vec<Mistake>> {
    let (translated, sigma_id) = rule::translate(document, warnings)?;
    let toml = write::toml(&translated);
    match readable(&toml) {
        Ok(()) => Ok(Imported { id: translated.id, sigma_id, toml }),
        Err(reason) => {
            let message = format!("no rule of execwatch can say this: {reason}");
            Err(vec![yaml::mistake(document.place, message)])
        }
    }
}

/// What is written is read again: a limit of the rules may forbid what could be translated.
fn readable(toml: &str) -> Result<(), String> {
    let source = Source { name: String::new(), text: toml.to_owned() };
    let diagnostics = Diagnostics::default();
    let tables = model::read(&Document::parse(&source, &diagnostics), &Macros::default(), &diagnostics);
    match diagnostics.into_list().into_iter().next() {
        Some(first) => Err(first.message),
        None if tables.rules.len() == 1 => Ok(()),
        None => Err("it is no single rule".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RULE: &str =
        "title: T\nlogsource:\n  product: linux\n  category: process_creation\nlevel: low\ndetection:\n";

    fn imported(detection: &str) -> Result<String, String> {
        let source = Source { name: "x.yml".into(), text: format!("{RULE}{detection}") };
        let import = import(&source);
        match import.rules.first() {
            Some(rule) if import.complete() => {
                Ok(rule.toml.split_once("condition = ").unwrap().1.trim_end().to_owned())
            }
            _ => Err(import.messages.first().map(|message| message.message.clone()).unwrap_or_default()),
        }
    }

    fn is(detection: &str, toml: &str) {
        assert_eq!(imported(detection).as_deref(), Ok(toml), "{detection}");
    }

    fn refused(detection: &str, part: &str) {
        let message = imported(detection).unwrap_err();
        assert!(message.contains(part), "{detection}\n{message}");
    }

    #[test]
    fn selections() {
        is(
            "  s:\n    Image|endswith: ['/nc', '/ncat']\n    CommandLine|contains|all: [a, b]\n  condition: s",
            "\"s\"\n[rule.select.s]\n\"exe|endswith\" = [\"/nc\", \"/ncat\"]\n\"cmdline|contains|all\" = [\"a\", \"b\"]",
        );
        is(
            "  s:\n    - Image: a\n    - User: b\n  condition: s",
            "\"s\"\n[[rule.select.s]]\n\"exe\" = \"a\"\n[[rule.select.s]]\n\"user\" = \"b\"",
        );
        // Unlike values become alternatives.
        is(
            "  s:\n    CommandLine|contains: ['a', 'b*c']\n  condition: s",
            "\"s\"\n[[rule.select.s]]\n\"cmdline|contains\" = \"a\"\n[[rule.select.s]]\n\"cmdline|glob\" = \"*b*c*\"",
        );
        is(
            "  s:\n    CommandLine|contains|all: ['a', 'b*c']\n  condition: s",
            "\"s\"\n[rule.select.s]\n\"cmdline|contains\" = \"a\"\n\"cmdline|glob\" = \"*b*c*\"",
        );
        is(
            "  s:\n    CurrentDirectory: null\n  condition: s",
            "\"s\"\n[rule.select.s]\n\"cwd|exists\" = false",
        );
        is(
            "  s:\n    CurrentDirectory: '*'\n  condition: s",
            "\"s\"\n[rule.select.s]\n\"cwd|exists\" = true",
        );
        is(
            "  s:\n    LogonId: [0, 1000]\n  condition: s",
            "\"s\"\n[rule.select.s]\n\"loginuid\" = [0, 1000]",
        );
        is(
            "  s:\n    LogonId: 4294967295\n  condition: s",
            "\"s\"\n[rule.select.s]\n\"loginuid|exists\" = false",
        );
        is("  s:\n    ProcessId|lt: 5\n  condition: s", "\"s\"\n[rule.select.s]\n\"pid|lt\" = 5");
        is(
            "  s:\n    CommandLine|re|i: 'a\\d'\n  condition: s",
            "\"s\"\n[rule.select.s]\n\"cmdline|re\" = '(?i)a\\d'",
        );
        is(
            "  s:\n    Image|fieldref: ParentImage\n  condition: s",
            "\"s\"\n[rule.select.s]\n\"exe|fieldref\" = \"parent.exe\"",
        );
        is(
            "  s:\n    CommandLine|contains|cased: nC\n  condition: s",
            "\"s\"\n[rule.select.s]\n\"cmdline|contains|cased\" = \"nC\"",
        );
        is(
            "  s:\n    CommandLine|base64offset|contains: /bin/sh\n  condition: s",
            "\"s\"\n[rule.select.s]\n\"cmdline|contains\" = [\"L2Jpbi9za\", \"9iaW4vc2\", \"vYmluL3No\"]",
        );
        is(
            "  s:\n    CommandLine|wide|base64: ab\n  condition: s",
            "\"s\"\n[rule.select.s]\n\"cmdline\" = \"YQBiAA==\"",
        );
        is(
            "  s:\n    Image: a\n    CommandLine|neq: b\n  condition: s",
            "\"s and not s.neq\"\n[rule.select.s]\n\"exe\" = \"a\"\n[rule.select.\"s.neq\"]\n\"cmdline\" = \"b\"",
        );
    }

    #[test]
    fn conditions() {
        is(
            "  s: {Image: a}\n  f_a: {User: b}\n  condition: [s, f_a]",
            "\"s or f_a\"\n[rule.select.s]\n\"exe\" = \"a\"\n[rule.select.f_a]\n\"user\" = \"b\"",
        );
        // A field that no program on Linux has.
        is(
            "  s: {Image: a}\n  o: {OriginalFileName: b}\n  condition: s or o",
            "\"s\"\n[rule.select.s]\n\"exe\" = \"a\"",
        );
        is(
            "  s: {Image: a}\n  o: {OriginalFileName: b}\n  condition: s and not 1 of o*",
            "\"s\"\n[rule.select.s]\n\"exe\" = \"a\"",
        );
        is(
            "  s:\n    - Image: a\n    - OriginalFileName: b\n  condition: s",
            "\"s\"\n[rule.select.s]\n\"exe\" = \"a\"",
        );
        refused("  s: {Image: a, OriginalFileName: b}\n  condition: s", "could never match");
        refused("  s: {OriginalFileName: null}\n  condition: s", "would match every exec");
        // Names that rules of execwatch do not take.
        is("  é s: {Image: a}\n  condition: 1 of *", "\"1 of *\"\n[rule.select.__s]\n\"exe\" = \"a\"");
    }

    #[test]
    fn what_cannot_be_translated_is_named() {
        refused("  s: [nc, ncat]\n  condition: s", "keywords");
        refused("  s: {'|all': [nc, ncat]}\n  condition: s", "keywords");
        refused("  s: nc\n  condition: s", "keywords");
        refused("  s: {Hashes|contains: x}\n  condition: s", "`Hashes` has no counterpart");
        refused("  s: {Foo: x}\n  condition: s", "`Foo` has no counterpart");
        refused("  s: {Image|cidr: 10.0.0.0/8}\n  condition: s", "`cidr`");
        refused("  s: {Image|expand: '%x%'}\n  condition: s", "`expand`");
        refused("  s: {Image|hour: 3}\n  condition: s", "`hour`");
        refused("  s: {Image|contain: 3}\n  condition: s", "did you mean `contains`?");
        refused("  s: {Image|wide: a}\n  condition: s", "puts NULs");
        refused("  s: {Image|gt: 3}\n  condition: s", "this field is text");
        refused("  s: {LogonId: '0x3e7'}\n  condition: s", "whole numbers");
        refused("  s: {LogonId|contains: 3}\n  condition: s", "is a number");
        refused("  s: {CommandLine|re: 'a(?=b)'}\n  condition: s", "look-around");
        refused("  s: {CommandLine|re: 'a(b'}\n  condition: s", "not a regular expression");
        refused("  s: {CommandLine|re: '(.{1000}){1000}'}\n  condition: s", "bytes when compiled");
        refused("  s: {CommandLine|re|endswith: a}\n  condition: s", "beside `re`");
        refused("  s: {}\n  condition: s", "empty");
        refused("  s: []\n  condition: s", "empty");
        refused("  s: {Image: []}\n  condition: s", "empty");
        refused("  s: {Image: {a: b}}\n  condition: s", "not with a map");
        refused("  s: {Image: [[a]]}\n  condition: s", "not with a list");
        refused("  s: {Image: a}\n", "needs `condition`");
        refused("  s: {Image: a}\n  timeframe: 5m\n  condition: s", "timeframe");
        refused("  s: {Image: a}\n  condition: s | count() > 3", "counting");
    }

    #[test]
    fn documents_that_are_no_rules_of_this_kind() {
        let message = |text: &str| {
            let import = import(&Source { name: "x.yml".into(), text: text.into() });
            assert!(import.rules.is_empty() && !import.complete(), "{text}");
            import.messages[0].to_string()
        };
        assert!(message("title: T\ncorrelation:\n  type: event_count\n").contains("correlation"));
        assert!(message("title: T\nfilter:\n  rules: [a]\n").contains("filter"));
        assert!(message("title: T\naction: global\n").contains("action"));
        assert!(
            message("title: T\nlogsource: {product: windows, category: process_creation}\n")
                .contains("windows")
        );
        assert!(message("title: T\nlogsource: {product: linux, service: auditd}\n").contains("auditd"));
        assert!(message("- a\n").contains("a map"));
        assert!(message("").contains("holds no Sigma rule"));
        assert!(message("a: 'b").contains("not YAML"));
        let text =
            format!("{RULE}  s: {{Image: a}}\n  condition: s\n---\ntitle: T\ncorrelation: {{}}\n---\n");
        let both = import(&Source { name: "x.yml".into(), text });
        assert_eq!((both.rules.len(), both.messages.len()), (1, 1));
    }

    #[test]
    fn limits() {
        let many =
            |count: usize| (0..count).map(|number| format!("v{number}")).collect::<Vec<_>>().join(", ");
        let list = |count| format!("  s: {{CommandLine|contains|all: [{}]}}\n  condition: s", many(count));
        assert!(imported(&list(detection::MOST_VALUES)).is_ok());
        refused(&list(detection::MOST_VALUES + 1), "more than 5000 values");
        let dashes = "' -a -b -c -d', ".repeat(10);
        refused(
            &format!("  s: {{CommandLine|windash: [{dashes}]}}\n  condition: s"),
            "more than 5000 values",
        );
        let unlike = "    CommandLine|contains|K: [a, 'b*c']\n";
        let unlike: String = [
            "cased",
            "windash",
            "windash|cased",
            "cased|windash",
            "cased|cased",
            "windash|windash",
            "contains",
        ]
        .map(|word| unlike.replace('K', word))
        .concat();
        refused(&format!("  s:\n{unlike}  condition: s"), "more than 64 alternatives");
        let text = format!("{RULE}  s:\n{}  condition: s", "    - [x]\n".repeat(1000));
        let import = import(&Source { name: "x.yml".into(), text });
        assert_eq!(import.messages.len(), MOST_MESSAGES + 1);
        assert!(import.messages[MOST_MESSAGES].message.starts_with("950 more messages"));
    }

    proptest! {
        /// Any bytes end in rules that can be read or in messages.
        #[test]
        fn any_text_ends(text in proptest::collection::vec(any::<u8>(), 0..300)) {
            let text = String::from_utf8_lossy(&text).into_owned();
            let _ = import(&Source { name: "x".into(), text });
        }

        #[test]
        fn any_detection_ends(
            key in "(Image|CommandLine|LogonId|OriginalFileName|User)(\\|(contains|startswith|endswith|all|re|i|windash|base64offset|wide|cased|neq|exists|fieldref|gt)){0,4}",
            values in proptest::collection::vec("[a-c*?\\\\\\[\\]().+{}|/ '\"-]{0,8}|null|5|true", 0..5),
            condition in "(s|not s|1 of s\\*|all of them|s or t|t and not s|\\(s\\)){1,2}",
        ) {
            let values: Vec<String> = values.iter().map(|value| format!("'{}'", value.replace('\'', "''"))).collect();
            let text = format!("{RULE}  s:\n    {key}: [{}]\n  t:\n    Image: x\n  condition: '{condition}'\n", values.join(", "));
            let import = import(&Source { name: "x".into(), text: text.clone() });
            prop_assert_eq!(import.rules.len(), usize::from(import.complete()), "{}", text);
        }
    }
}
