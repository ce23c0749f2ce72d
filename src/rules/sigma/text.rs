//! Texts of Sigma rules: wildcards, escapes, and the modifiers that transform them.

use super::super::pattern::Comparison;

/// A part of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// These characters.
    Literal(String),
    /// `?`: one character.
    One,
    /// `*`: any characters.
    Many,
}

/// A text with wildcards.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Text(Vec<Part>);

/// The most texts that one may be expanded to.
pub(super) const MOST_VARIANTS: usize = 1000;

impl Text {
    /// Reads a value: `*` and `?` are wildcards unless a backslash stands before them, and a backslash is one unless it
    /// stands before a wildcard or another backslash.
    pub(super) fn parse(value: &str) -> Text {
        let mut text = Text::default();
        let mut characters = value.chars().peekable();
        while let Some(character) = characters.next() {
            match character {
                '\\' => {
                    let escaped = characters.next_if(|next| matches!(next, '*' | '?' | '\\'));
                    text.push(escaped.unwrap_or('\\'));
                }
                '*' if text.0.last() == Some(&Part::Many) => {}
                '*' => text.0.push(Part::Many),
                '?' => text.0.push(Part::One),
                character => text.push(character),
            }
        }
        text
    }

    fn push(&mut self, character: char) {
        match self.0.last_mut() {
            Some(Part::Literal(literal)) => literal.push(character),
            _ => self.0.push(Part::Literal(character.into())),
        }
    }

    /// The characters, if there is no wildcard.
    pub(super) fn plain(&self) -> Option<&str> {
        match self.0.as_slice() {
            [] => Some(""),
            [Part::Literal(literal)] => Some(literal),
            _ => None,
        }
    }

    /// `contains` puts wildcards around a text, `startswith` behind and `endswith` before it.
    pub(super) fn open(mut self, before: bool, behind: bool) -> Text {
        if before && self.0.first() != Some(&Part::Many) {
            self.0.insert(0, Part::Many);
        }
        if behind && self.0.last() != Some(&Part::Many) {
            self.0.push(Part::Many);
        }
        self
    }

    /// `windash`: each dash or slash that begins a word stands for each of five characters.
    pub(super) fn dashes(&self) -> Option<Vec<Text>> {
        const DASHES: [char; 5] = ['-', '/', '\u{2013}', '\u{2014}', '\u{2015}'];
        let mut variants = vec![Text::default()];
        for part in &self.0 {
            let Part::Literal(literal) = part else {
                variants.iter_mut().for_each(|variant| variant.0.push(part.clone()));
                continue;
            };
            let word = |character: char| character.is_alphanumeric() || character == '_';
            let characters: Vec<char> = literal.chars().collect();
            for (at, &character) in characters.iter().enumerate() {
                let begins = matches!(character, '-' | '/')
                    && !at.checked_sub(1).is_some_and(|before| word(characters[before]))
                    && characters.get(at + 1).is_some_and(|&next| word(next));
                if !begins {
                    variants.iter_mut().for_each(|variant| variant.push(character));
                    continue;
                }
                if variants.len() * DASHES.len() > MOST_VARIANTS {
                    return None;
                }
                variants = variants
                    .iter()
                    .flat_map(|variant| {
                        DASHES.map(|dash| {
                            let mut variant = variant.clone();
                            variant.push(dash);
                            variant
                        })
                    })
                    .collect();
            }
        }
        Some(variants)
    }

    /// As a value of a rule: how it is compared, and the value. `None` if any text fits.
    pub(super) fn comparison(&self, cased: bool) -> Option<(Comparison, String)> {
        let (mut parts, mut before, mut behind) = (self.0.as_slice(), false, false);
        if let [Part::Many, rest @ ..] = parts {
            (parts, before) = (rest, true);
        }
        if let [rest @ .., Part::Many] = parts {
            (parts, behind) = (rest, true);
        }
        let folds = |character: char| {
            !character.is_ascii()
                && (character.to_lowercase().ne([character]) || character.to_uppercase().ne([character]))
        };
        let wide = parts.iter().any(|part| match part {
            // One character may be several bytes.
            Part::One => true,
            Part::Literal(literal) => !cased && literal.chars().any(folds),
            Part::Many => false,
        });
        match parts {
            [] if before || behind => None,
            _ if wide => Some((Comparison::Regex, expression(parts, before, behind, cased))),
            [] => Some((Comparison::Equals, String::new())),
            [Part::Literal(literal)] => Some((
                match (before, behind) {
                    (true, true) => Comparison::Contains,
                    (true, false) => Comparison::EndsWith,
                    (false, true) => Comparison::StartsWith,
                    (false, false) => Comparison::Equals,
                },
                literal.clone(),
            )),
            _ => Some((Comparison::Glob, glob(&self.0))),
        }
    }
}

fn glob(parts: &[Part]) -> String {
    let mut glob = String::new();
    for part in parts {
        match part {
            Part::Many => glob.push('*'),
            Part::One => glob.push('?'),
            Part::Literal(literal) => {
                for character in literal.chars() {
                    if matches!(character, '*' | '?' | '[' | '\\') {
                        glob.push('\\');
                    }
                    glob.push(character);
                }
            }
        }
    }
    glob
}

/// A regular expression over characters, for what the other comparisons, which are over bytes, cannot say.
fn expression(parts: &[Part], before: bool, behind: bool, cased: bool) -> String {
    let mut expression = if cased { "(?su)" } else { "(?isu)" }.to_owned();
    if !before {
        expression.push_str(r"\A");
    }
    for part in parts {
        match part {
            Part::Many => expression.push_str("(?-u:.*)"),
            Part::One => expression.push('.'),
            Part::Literal(literal) => expression.push_str(&regex::escape(literal)),
        }
    }
    if !behind {
        expression.push_str(r"\z");
    }
    expression
}

/// Base64 with padding (RFC 4648 section 4).
pub(crate) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let byte = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let word = byte(0) << 16 | byte(1) << 8 | byte(2);
        for index in 0..4 {
            let six = word >> (18 - 6 * index) & 63;
            text.push(if index > chunk.len() { '=' } else { char::from(ALPHABET[six as usize]) });
        }
    }
    text
}

/// What of the Base64 of any text that holds these bytes is certain, by how many bytes stand before them, modulo three.
pub(super) fn base64_at_any_offset(bytes: &[u8]) -> [String; 3] {
    [0, 1, 2].map(|offset| {
        let mut padded = vec![b' '; offset];
        padded.extend_from_slice(bytes);
        let encoded = base64(&padded);
        // Characters that depend on a byte outside are cut off.
        let start = [0, 2, 3][offset];
        let end = encoded.len() - [0, 3, 2][padded.len() % 3];
        encoded.get(start..end).unwrap_or_default().to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(value: &str) -> (Comparison, String) {
        Text::parse(value).comparison(false).unwrap()
    }

    #[test]
    fn wildcards_and_escapes() {
        use Comparison::{Contains, EndsWith, Equals, Glob, Regex, StartsWith};
        let is = |value: &str, comparison, text: &str| {
            assert_eq!(written(value), (comparison, text.to_owned()), "{value}");
        };
        is("a", Equals, "a");
        is("", Equals, "");
        is("*a", EndsWith, "a");
        is("a**", StartsWith, "a");
        is("*a*", Contains, "a");
        is(r"\*a\?", Equals, "*a?");
        is(r"C:\x", Equals, r"C:\x");
        is(r"a\\b", Equals, r"a\b");
        is(r"\\\\", Equals, r"\\");
        is(r"\\\", Equals, r"\\");
        is(r"a\\*", StartsWith, r"a\");
        is(r"a\\\*", Equals, r"a\*");
        is("/etc/*.conf", Glob, "/etc/*.conf");
        is("*[a]*b*", Glob, r"*\[a]*b*");
        is("a?b", Regex, r"(?isu)\Aa.b\z");
        is("*\u{c9}", Regex, "(?isu)\u{c9}\\z");
        is("*\u{20ac}", EndsWith, "\u{20ac}");
        assert_eq!(Text::parse("*").comparison(false), None);
        assert_eq!(Text::parse("").open(true, true).comparison(false), None);
    }

    #[test]
    fn encodings() {
        assert_eq!(
            base64(b"f") + &base64(b"fo") + &base64(b"foo") + &base64(b"foob"),
            "Zg==Zm8=Zm9vZm9vYg=="
        );
        // The values that the rule about miners lists.
        assert_eq!(
            base64_at_any_offset(b"--donate-level="),
            ["LS1kb25hdGUtbGV2ZWw9", "0tZG9uYXRlLWxldmVsP", "tLWRvbmF0ZS1sZXZlbD"]
        );
        let dashes = |value: &str| Text::parse(value).dashes().map(|variants| variants.len());
        assert_eq!(dashes(" -a b-c --d"), Some(25));
        assert_eq!(dashes("no dash - here"), Some(1));
        assert_eq!(dashes(&"-a ".repeat(20)), None);
    }

    proptest! {
        #[test]
        fn base64_holds_what_is_certain(before in "[a-z]{0,5}", text in "[a-z]{3,9}", after in "[a-z]{0,5}") {
            let encoded = base64(format!("{before}{text}{after}").as_bytes());
            let pieces = base64_at_any_offset(text.as_bytes());
            prop_assert!(encoded.contains(&pieces[before.len() % 3]));
        }
    }
}
