//! Tests of text: values and how they are compared.

use std::collections::HashSet;

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use regex::bytes::{Regex, RegexBuilder};

/// How a text is compared with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// The whole text.
    Equals,
    /// Anywhere in it.
    Contains,
    /// At its beginning.
    StartsWith,
    /// At its end.
    EndsWith,
    /// The whole text, with `*`, `?` and `[...]`.
    Glob,
    /// The whole path, where `*` and `?` stay between slashes, and `**` does not.
    PathGlob,
    /// A regular expression, anywhere in it.
    Regex,
}

impl Comparison {
    /// Compares two texts, neither of which is a pattern.
    pub fn compare(self, text: &[u8], value: &[u8], cased: bool) -> bool {
        let same = |a: &[u8], b: &[u8]| if cased { a == b } else { a.eq_ignore_ascii_case(b) };
        match self {
            Comparison::Contains => {
                value.is_empty() || text.windows(value.len()).any(|window| same(window, value))
            }
            Comparison::StartsWith => text.get(..value.len()).is_some_and(|head| same(head, value)),
            Comparison::EndsWith => {
                text.len().checked_sub(value.len()).is_some_and(|start| same(&text[start..], value))
            }
            Comparison::Equals | Comparison::Glob | Comparison::PathGlob | Comparison::Regex => {
                same(text, value)
            }
        }
    }
}

/// Lists of equal values longer than this are hashed.
const SHORT_LIST: usize = 8;
/// Bound on the memory of one compiled regular expression, in bytes.
const REGEX_SIZE: usize = 256 * 1024;
/// Regular expressions in one test; each costs time and memory of its own.
const MOST_REGEXES: usize = 1000;
/// Values in one test.
const MOST_VALUES: usize = 100_000;

/// Compiled values: a text matches if it fulfils one of them.
#[derive(Debug, Clone)]
pub struct Pattern {
    matcher: Matcher,
    cased: bool,
}

#[derive(Debug, Clone)]
enum Matcher {
    Equals(Vec<Vec<u8>>),
    EqualsOneOf(HashSet<Vec<u8>>),
    Contains(AhoCorasick),
    StartsWith(Vec<Vec<u8>>),
    EndsWith(Vec<Vec<u8>>),
    Glob(Vec<Glob>),
    Regex(Vec<Regex>),
}

impl Pattern {
    /// Compiles values. Regular expressions are case-sensitive whatever `cased` says.
    ///
    /// The error is a sentence about the value it names by index.
    pub fn new(comparison: Comparison, values: &[&str], cased: bool) -> Result<Self, (usize, String)> {
        if values.len() > MOST_VALUES {
            return Err((MOST_VALUES, format!("a test takes {MOST_VALUES} values at most")));
        }
        if comparison == Comparison::Regex && values.len() > MOST_REGEXES {
            let message =
                format!("a test takes {MOST_REGEXES} regular expressions at most; join some with `|`");
            return Err((MOST_REGEXES, message));
        }
        let bytes = || values.iter().map(|value| fold(value.as_bytes(), cased)).collect::<Vec<_>>();
        let matcher = match comparison {
            Comparison::Equals if values.len() > SHORT_LIST => {
                Matcher::EqualsOneOf(bytes().into_iter().collect())
            }
            Comparison::Equals => Matcher::Equals(bytes()),
            Comparison::StartsWith => Matcher::StartsWith(bytes()),
            Comparison::EndsWith => Matcher::EndsWith(bytes()),
            Comparison::Contains => Matcher::Contains(
                AhoCorasick::builder()
                    .ascii_case_insensitive(!cased)
                    // Arguments are short: a faster automaton would not pay for its time and memory.
                    .kind(Some(AhoCorasickKind::ContiguousNFA))
                    .build(values)
                    .map_err(|error| (0, format!("too many or too long values: {error}")))?,
            ),
            Comparison::Glob | Comparison::PathGlob => {
                let compile = if comparison == Comparison::Glob { Glob::new } else { Glob::of_path };
                let globs = values.iter().enumerate().map(|(index, value)| {
                    compile(value.as_bytes()).map_err(|error| (index, error.to_owned()))
                });
                Matcher::Glob(globs.collect::<Result<_, _>>()?)
            }
            Comparison::Regex => Matcher::Regex(
                values
                    .iter()
                    .enumerate()
                    .map(|(index, value)| regex(value).map_err(|error| (index, error)))
                    .collect::<Result<_, _>>()?,
            ),
        };
        Ok(Pattern { matcher, cased })
    }

    /// True if the text fulfils one of the values.
    pub fn matches(&self, text: &[u8]) -> bool {
        let any = |values: &[Vec<u8>], comparison: Comparison| {
            values.iter().any(|value| comparison.compare(text, value, self.cased))
        };
        match &self.matcher {
            Matcher::Equals(values) => any(values, Comparison::Equals),
            Matcher::EqualsOneOf(values) if self.cased => values.contains(text),
            Matcher::EqualsOneOf(values) => values.contains(&text.to_ascii_lowercase()),
            Matcher::Contains(automaton) => automaton.is_match(text),
            Matcher::StartsWith(values) => any(values, Comparison::StartsWith),
            Matcher::EndsWith(values) => any(values, Comparison::EndsWith),
            Matcher::Glob(globs) => globs.iter().any(|glob| glob.matches(text, self.cased)),
            Matcher::Regex(expressions) => expressions.iter().any(|expression| expression.is_match(text)),
        }
    }
}

impl Pattern {
    /// True if a text that begins so fulfils one of the values, however it goes on.
    pub fn matches_beginning(&self, text: &[u8]) -> bool {
        match &self.matcher {
            Matcher::Contains(_) | Matcher::StartsWith(_) => self.matches(text),
            Matcher::Equals(_) | Matcher::EqualsOneOf(_) | Matcher::EndsWith(_) => false,
            Matcher::Glob(globs) => {
                globs.iter().any(|glob| glob.0.last() == Some(&Token::Many) && glob.matches(text, self.cased))
            }
            // Assertions such as `$` look one byte ahead at most: a match with one more behind it stays one.
            Matcher::Regex(expressions) => expressions
                .iter()
                .any(|expression| expression.find_iter(text).any(|found| found.end() < text.len())),
        }
    }
}

fn fold(bytes: &[u8], cased: bool) -> Vec<u8> {
    if cased { bytes.to_vec() } else { bytes.to_ascii_lowercase() }
}

fn regex(expression: &str) -> Result<Regex, String> {
    RegexBuilder::new(expression).unicode(false).size_limit(REGEX_SIZE).dfa_size_limit(REGEX_SIZE).build().map_err(|error| {
        match error {
            regex::Error::CompiledTooBig(limit) => {
                format!("regular expression needs more than {limit} bytes when compiled; use smaller repetitions")
            }
            // The crate's message is a drawing over several lines whose last one says what is wrong.
            error => {
                let text = error.to_string();
                let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
                format!("not a regular expression: {reason}")
            }
        }
    })
}

/// A shell-like pattern over the whole text: `*` any bytes, `?` one byte, `[a-z]` one of these, `[!a-z]` one other;
/// a backslash takes the next character as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob(Vec<Token>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Byte(u8),
    Any,
    Many,
    /// Any byte but a slash.
    AnyInFolder,
    /// Any number of bytes but slashes.
    ManyInFolder,
    Class {
        negated: bool,
        ranges: Vec<(u8, u8)>,
    },
}

impl Glob {
    /// Compiles a pattern.
    pub fn new(pattern: &[u8]) -> Result<Self, &'static str> {
        Glob::compile(pattern, false)
    }

    /// Compiles a pattern over paths: `*` and `?` stop at slashes, and `**` does not.
    pub fn of_path(pattern: &[u8]) -> Result<Self, &'static str> {
        Glob::compile(pattern, true)
    }

    fn compile(pattern: &[u8], path: bool) -> Result<Self, &'static str> {
        let mut tokens = Vec::new();
        let mut rest = pattern;
        while let Some((&byte, tail)) = rest.split_first() {
            rest = tail;
            let token = match byte {
                b'*' if tokens.last() == Some(&Token::Many) => continue,
                b'*' if path && tokens.last() == Some(&Token::ManyInFolder) => {
                    tokens.pop();
                    Token::Many
                }
                b'*' if path => Token::ManyInFolder,
                b'*' => Token::Many,
                b'?' if path => Token::AnyInFolder,
                b'?' => Token::Any,
                b'[' => {
                    let (class, tail) = class(rest)?;
                    rest = tail;
                    class
                }
                b'\\' => {
                    let (&byte, tail) = rest.split_first().ok_or("the pattern ends with a lone backslash")?;
                    rest = tail;
                    Token::Byte(byte)
                }
                byte => Token::Byte(byte),
            };
            tokens.push(token);
        }
        Ok(Glob(tokens))
    }

    /// True if the whole text fits. Takes time proportional to the product of both lengths at worst.
    pub fn matches(&self, text: &[u8], cased: bool) -> bool {
        // Most patterns begin with a byte, and most texts with another: a listener asks the catalogue's for each program.
        if let Some(first @ Token::Byte(_)) = self.0.first()
            && !text.first().is_some_and(|&byte| first.takes(byte, cased))
        {
            return false;
        }
        if self.0.contains(&Token::ManyInFolder) {
            self.matches_path(text, cased)
        } else {
            self.matches_text(text, cased)
        }
    }

    /// Without `*` that stop at slashes the last `*` is the only one worth trying again, and no memory is needed.
    fn matches_text(&self, text: &[u8], cased: bool) -> bool {
        let (mut at, mut token) = (0, 0);
        // Where to go on if the last `*` has to take one byte more.
        let mut retry: Option<(usize, usize)> = None;
        loop {
            match self.0.get(token) {
                Some(Token::Many) => {
                    token += 1;
                    retry = Some((at, token));
                    continue;
                }
                Some(one) if text.get(at).is_some_and(|&byte| one.takes(byte, cased)) => {
                    at += 1;
                    token += 1;
                    continue;
                }
                None if at == text.len() => return true,
                _ => {}
            }
            match retry {
                Some((from, after)) if from < text.len() => {
                    at = from + 1;
                    token = after;
                    retry = Some((at, after));
                }
                _ => return false,
            }
        }
    }

    fn matches_path(&self, text: &[u8], cased: bool) -> bool {
        // The tokens before which the text read so far may have come to: a set of states, so that no pattern can make
        // it try again and again.
        let mut states = vec![false; self.0.len() + 1];
        states[0] = true;
        self.skip_empty(&mut states);
        let mut next = states.clone();
        for &byte in text {
            next.fill(false);
            for (at, token) in self.0.iter().enumerate().filter(|&(at, _)| states[at]) {
                if token.takes(byte, cased) {
                    // One that takes many stays where it is.
                    next[if token.is_many() { at } else { at + 1 }] = true;
                }
            }
            self.skip_empty(&mut next);
            std::mem::swap(&mut states, &mut next);
            if !states.contains(&true) {
                return false;
            }
        }
        states[self.0.len()]
    }

    /// A token that takes many may take none.
    fn skip_empty(&self, states: &mut [bool]) {
        for (at, token) in self.0.iter().enumerate() {
            if states[at] && token.is_many() {
                states[at + 1] = true;
            }
        }
    }

    /// The pieces of literal text in it.
    pub fn literals(&self) -> Vec<Vec<u8>> {
        let mut pieces = vec![Vec::new()];
        for token in &self.0 {
            match (token, pieces.last_mut()) {
                (Token::Byte(byte), Some(piece)) => piece.push(*byte),
                _ => pieces.push(Vec::new()),
            }
        }
        pieces.retain(|piece| !piece.is_empty());
        pieces
    }
}

impl Token {
    fn is_many(&self) -> bool {
        matches!(self, Token::Many | Token::ManyInFolder)
    }

    fn takes(&self, byte: u8, cased: bool) -> bool {
        match self {
            Token::Byte(own) => *own == byte || !cased && own.eq_ignore_ascii_case(&byte),
            Token::Any | Token::Many => true,
            Token::AnyInFolder | Token::ManyInFolder => byte != b'/',
            Token::Class { negated, ranges } => {
                let holds = |byte: u8| ranges.iter().any(|&(first, last)| (first..=last).contains(&byte));
                let found = holds(byte)
                    || !cased && (holds(byte.to_ascii_lowercase()) || holds(byte.to_ascii_uppercase()));
                found != *negated
            }
        }
    }
}

/// Parses a class after its opening bracket.
fn class(pattern: &[u8]) -> Result<(Token, &[u8]), &'static str> {
    const OPEN: &str = "a `[` without its `]`";
    let (negated, body) = match pattern.strip_prefix(b"!").or_else(|| pattern.strip_prefix(b"^")) {
        Some(body) => (true, body),
        None => (false, pattern),
    };
    // A `]` that comes first is one of the characters.
    let end = body.iter().skip(1).position(|&byte| byte == b']').ok_or(OPEN)? + 1;
    let (members, tail) = (&body[..end], &body[end + 1..]);
    let mut ranges = Vec::new();
    let mut at = 0;
    while let Some(&first) = members.get(at) {
        match (members.get(at + 1), members.get(at + 2)) {
            (Some(b'-'), Some(&last)) => {
                if last < first {
                    return Err("a range in `[...]` runs backwards");
                }
                ranges.push((first, last));
                at += 3;
            }
            _ => {
                ranges.push((first, first));
                at += 1;
            }
        }
    }
    Ok((Token::Class { negated, ranges }, tail))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const COMPARISONS: &[Comparison] = &[
        Comparison::Equals,
        Comparison::Contains,
        Comparison::StartsWith,
        Comparison::EndsWith,
        Comparison::Glob,
        Comparison::PathGlob,
    ];

    fn matches(comparison: Comparison, value: &str, text: &str) -> bool {
        Pattern::new(comparison, &[value], false).unwrap().matches(text.as_bytes())
    }

    #[test]
    fn comparisons_ignore_case_unless_told() {
        assert!(matches(Comparison::Equals, "NC", "nc"));
        assert!(matches(Comparison::StartsWith, "/Tmp/", "/tmp/x"));
        assert!(matches(Comparison::EndsWith, "/NC", "/bin/nc"));
        assert!(matches(Comparison::Contains, "-E ", "nc -e x"));
        assert!(!matches(Comparison::StartsWith, "/tmp/x", "/tmp"));
        assert!(!matches(Comparison::EndsWith, "/tmp/x", "x"));
        let cased = |comparison| Pattern::new(comparison, &["NC"], true).unwrap().matches(b"nc");
        assert!(!cased(Comparison::Equals) && !cased(Comparison::Contains) && !cased(Comparison::Glob));
        assert!(!matches(Comparison::Regex, "NC", "nc"));
        assert!(matches(Comparison::Regex, "(?i)N.$", "nnc"));
    }

    #[test]
    fn a_text_that_was_cut() {
        let certain = |comparison, value: &str, text: &str| {
            Pattern::new(comparison, &[value], false).unwrap().matches_beginning(text.as_bytes())
        };
        assert!(certain(Comparison::Contains, "nc -e", "nc -e /bin"));
        assert!(certain(Comparison::StartsWith, "nc", "nc -e /bin"));
        assert!(!certain(Comparison::Equals, "nc", "nc") && !certain(Comparison::EndsWith, "nc", "nc"));
        assert!(certain(Comparison::Glob, "nc*", "nc -e") && !certain(Comparison::Glob, "*nc", "nc"));
        assert!(
            certain(Comparison::PathGlob, "/a/**", "/a/b") && !certain(Comparison::PathGlob, "/a/*", "/a/b")
        );
        assert!(certain(Comparison::Regex, r"-e(\s|$)", "nc -e /bin"));
        assert!(!certain(Comparison::Regex, r"-e(\s|$)", "nc -e"));
    }

    #[test]
    fn many_values() {
        let values: Vec<String> = (0..100_001).map(|number| format!("/opt/Tool{number}x")).collect();
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        for comparison in COMPARISONS {
            let pattern = Pattern::new(*comparison, &values[..100_000], false).unwrap();
            assert!(pattern.matches(b"/opt/tool99999x") && !pattern.matches(b"/opt/tool"), "{comparison:?}");
            let (index, message) = Pattern::new(*comparison, &values, false).unwrap_err();
            assert!(index == 100_000 && message.contains("100000 values at most"), "{message}");
        }
        let (_, message) = Pattern::new(Comparison::Regex, &values[..1_001], false).unwrap_err();
        assert!(message.contains("1000 regular expressions at most"), "{message}");
    }

    #[test]
    fn long_lists() {
        let values: Vec<String> = (0..100).map(|number| format!("Tool{number}")).collect();
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        let list = Pattern::new(Comparison::Equals, &values, false).unwrap();
        assert!(list.matches(b"tOOL42") && !list.matches(b"tool100"));
    }

    #[test]
    fn globs() {
        let glob =
            |pattern: &str, text: &str| Glob::new(pattern.as_bytes()).unwrap().matches(text.as_bytes(), true);
        assert!(glob("python3.*", "python3.11") && !glob("python3.*", "python3"));
        assert!(glob("*", "") && glob("**", "x") && glob("", "") && !glob("", "x"));
        assert!(glob("a*b*c", "aXbXbc") && !glob("a*b*c", "acb"));
        assert!(glob("php[0-9]", "php8") && !glob("php[0-9]", "phpx") && glob("[!0-9]", "x"));
        assert!(glob("[]a]", "]") && glob("\\*", "*") && !glob("\\*", "x") && glob("?", "x"));
        assert!(Glob::new(b"[a").is_err() && Glob::new(b"\\").is_err() && Glob::new(b"[z-a]").is_err());
        let path = |pattern: &str, text: &str| {
            Glob::of_path(pattern.as_bytes()).unwrap().matches(text.as_bytes(), true)
        };
        assert!(path("/usr/*/nc", "/usr/bin/nc") && !path("/usr/*/nc", "/usr/local/bin/nc"));
        assert!(
            path("/usr/**/nc", "/usr/local/bin/nc")
                && path("/tmp/**", "/tmp/a/b")
                && !path("/tmp/*", "/tmp/a/b")
        );
        assert!(
            path("/*/?c", "/x/nc")
                && !path("/x?nc", "/x/nc")
                && path("**/*", "/a/b")
                && path("/**/*.so*", "/a/b/c.so.1")
        );
        assert_eq!(
            Glob::new(b"ab*c?de").unwrap().literals(),
            [b"ab".to_vec(), b"c".to_vec(), b"de".to_vec()]
        );
    }

    #[test]
    fn bad_expressions_say_why() {
        let error = Pattern::new(Comparison::Regex, &["ok", "a(b"], false).unwrap_err();
        assert_eq!(error.0, 1);
        assert!(error.1.contains("unclosed group"), "{}", error.1);
        let error = Pattern::new(Comparison::Regex, &["(.{1000}){1000}"], false).unwrap_err();
        assert!(error.1.contains("bytes when compiled"), "{}", error.1);
    }

    proptest! {
        #[test]
        fn a_glob_is_the_regex_it_stands_for(pattern in "[ab*?]{0,8}", text in "[ab]{0,10}") {
            let expression = format!("(?s-u)^{}$", pattern.replace('*', ".*").replace('?', "."));
            let expected = Regex::new(&expression).unwrap().is_match(text.as_bytes());
            prop_assert_eq!(Glob::new(pattern.as_bytes()).unwrap().matches(text.as_bytes(), true), expected);
        }

        #[test]
        fn a_glob_of_a_path_is_the_regex_it_stands_for(pattern in "[ab/*?]{0,8}", text in "[ab/]{0,10}") {
            // Of three and more the first two stand for all.
            let mut expression = pattern.clone();
            while expression.contains("***") {
                expression = expression.replace("***", "**");
            }
            let expression = expression.replace("**", "\u{1}").replace('*', "[^/]*").replace('?', "[^/]");
            let expression = format!("(?s-u)^{}$", expression.replace('\u{1}', ".*"));
            let expected = Regex::new(&expression).unwrap().is_match(text.as_bytes());
            prop_assert_eq!(Glob::of_path(pattern.as_bytes()).unwrap().matches(text.as_bytes(), true), expected);
        }

        #[test]
        fn case_of_ascii_letters_alone_is_ignored(
            comparison in proptest::sample::select(COMPARISONS), value in "[aBéÉ/*]{1,4}", text in "[aAbBéÉ/]{0,6}",
        ) {
            let pattern = |value: &str, cased| Pattern::new(comparison, &[value], cased).unwrap();
            let folded = |text: &str| text.to_ascii_lowercase();
            let found = pattern(&value, false).matches(text.as_bytes());
            prop_assert_eq!(found, pattern(&value.to_ascii_uppercase(), false).matches(folded(&text).as_bytes()));
            prop_assert_eq!(found, pattern(&folded(&value), true).matches(folded(&text).as_bytes()));
        }

        #[test]
        fn what_a_beginning_fulfils_the_whole_does(
            comparison in proptest::sample::select(COMPARISONS), value in "[ab*]{1,4}", text in "[ab]{0,6}", rest in "[ab\n]{0,4}",
        ) {
            let pattern = Pattern::new(comparison, &[&value], false).unwrap();
            let whole = text.clone() + &rest;
            prop_assert!(!pattern.matches_beginning(text.as_bytes()) || pattern.matches(whole.as_bytes()));
        }

        #[test]
        fn what_a_beginning_fulfils_the_whole_does_of_expressions(
            value in proptest::sample::select(&["a", "a$", "(?m)a$", r"a\b", r"a\B", "^a", "a*$", "a|b$", "(?s)a.", "^$", r"\z", "ab?"][..]),
            text in "[ab\n]{0,6}", rest in "[ab\n]{0,4}",
        ) {
            let pattern = Pattern::new(Comparison::Regex, &[value], false).unwrap();
            let whole = text.clone() + &rest;
            prop_assert!(!pattern.matches_beginning(text.as_bytes()) || pattern.matches(whole.as_bytes()));
        }

        #[test]
        fn any_pattern_ends(pattern in proptest::collection::vec(any::<u8>(), 0..20), text in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(glob) = Glob::new(&pattern) {
                let _ = (glob.matches(&text, false), glob.literals());
            }
        }
    }
}
