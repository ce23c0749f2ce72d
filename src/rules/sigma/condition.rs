//! Conditions of Sigma, and their translation where selections fold away or change their names.

use super::yaml::{Mistake, Place, mistake};
use crate::diagnostics::suggestion;

/// A condition over things of type `T`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Condition<T> {
    /// It is known.
    Certain(bool),
    /// This holds.
    Of(T),
    /// The opposite.
    Not(Box<Condition<T>>),
    /// All hold.
    All(Vec<Condition<T>>),
    /// One holds.
    Any(Vec<Condition<T>>),
    /// `1 of`, `all of` a pattern: what it was written as, and what it means.
    Quantity(String, Box<Condition<T>>),
}

/// Conditions nest at most this deep.
const DEPTH: usize = 30;

/// Parses a condition over the selections called `names`.
pub(super) fn parse(text: &str, place: Place, names: &[&str]) -> Result<Condition<usize>, Mistake> {
    let mut parser = Parser { words: words(text), at: 0, names };
    let condition = parser.or(0).and_then(|condition| match parser.peek() {
        None => Ok(condition),
        Some("|") => {
            Err("`|`: counting over events has no counterpart; execwatch's rules have `threshold`".into())
        }
        Some(word) => Err(format!("expected `and` or `or` before `{word}`")),
    });
    condition.map_err(|message: String| mistake(place, format!("condition: {message}")))
}

fn words(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    for word in text.split_whitespace() {
        let mut rest = word;
        while let Some(at) = rest.find(['(', ')', '|']) {
            words.extend(Some(&rest[..at]).filter(|word| !word.is_empty()));
            words.push(&rest[at..=at]);
            rest = &rest[at + 1..];
        }
        words.extend(Some(rest).filter(|word| !word.is_empty()));
    }
    words
}

struct Parser<'t> {
    words: Vec<&'t str>,
    at: usize,
    names: &'t [&'t str],
}

type Parsed = Result<Condition<usize>, String>;

impl<'t> Parser<'t> {
    fn peek(&self) -> Option<&'t str> {
        self.words.get(self.at).copied()
    }

    fn take(&mut self, word: &str) -> bool {
        let found = self.peek().is_some_and(|next| next.eq_ignore_ascii_case(word));
        self.at += usize::from(found);
        found
    }

    fn or(&mut self, depth: usize) -> Parsed {
        let mut parts = vec![self.and(depth)?];
        while self.take("or") {
            parts.push(self.and(depth)?);
        }
        Ok(if parts.len() == 1 { parts.swap_remove(0) } else { Condition::Any(parts) })
    }

    fn and(&mut self, depth: usize) -> Parsed {
        let mut parts = vec![self.not(depth)?];
        while self.take("and") {
            parts.push(self.not(depth)?);
        }
        Ok(if parts.len() == 1 { parts.swap_remove(0) } else { Condition::All(parts) })
    }

    fn not(&mut self, depth: usize) -> Parsed {
        if depth > DEPTH {
            return Err(format!("it nests more than {DEPTH} levels deep"));
        }
        if self.take("not") {
            return Ok(Condition::Not(Box::new(self.not(depth + 1)?)));
        }
        let word = self.peek().ok_or("it ends where a selection is expected")?;
        self.at += 1;
        if word == "(" {
            let inner = self.or(depth + 1)?;
            return if self.take(")") { Ok(inner) } else { Err("a `(` has no `)`".into()) };
        }
        if self.take("of") {
            return self.quantity(word);
        }
        if let Some(index) = self.names.iter().position(|name| *name == word) {
            return Ok(Condition::Of(index));
        }
        if matches!(word, ")" | "|")
            || ["and", "or", "of"].iter().any(|known| word.eq_ignore_ascii_case(known))
        {
            return Err(format!("a selection is expected before `{word}`"));
        }
        if word.eq_ignore_ascii_case("near") {
            return Err("`near` joins several events, which has no counterpart".into());
        }
        Err(format!("there is no selection `{word}`{}", suggestion(word, self.names.iter().copied())))
    }

    fn quantity(&mut self, word: &str) -> Parsed {
        let all = match word.to_ascii_lowercase().as_str() {
            "1" | "any" => false,
            "all" => true,
            _ => return Err(format!("only `1 of` and `all of` have a counterpart, not `{word} of`")),
        };
        let target = self.peek().ok_or("`of` needs `them` or a name such as `selection_*`")?;
        self.at += 1;
        let them = target.eq_ignore_ascii_case("them");
        let pattern = if them { "*" } else { target };
        let fits = |name: &str| {
            // What begins with an underscore is only meant if the pattern says so.
            (pattern.starts_with('_') || !name.starts_with('_')) && fits(pattern.as_bytes(), name.as_bytes())
        };
        let parts: Vec<_> =
            (0..self.names.len()).filter(|&index| fits(self.names[index])).map(Condition::Of).collect();
        if parts.is_empty() {
            return Err(format!("no selection's name fits `{target}`"));
        }
        let written = format!("{} of {}", if all { "all" } else { "1" }, if them { "them" } else { target });
        let meaning = if all { Condition::All(parts) } else { Condition::Any(parts) };
        Ok(Condition::Quantity(written, Box::new(meaning)))
    }
}

/// Whether a name fits a pattern with `*`. Takes time proportional to the product of both lengths at worst.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut from) = (0, 0);
    let mut retry = None;
    while at < name.len() {
        match pattern.get(from) {
            Some(b'*') => {
                from += 1;
                retry = Some((at, from));
            }
            Some(byte) if *byte == name[at] => (at, from) = (at + 1, from + 1),
            _ => match retry {
                Some((last, after)) => {
                    (at, from) = (last + 1, after);
                    retry = Some((at, after));
                }
                None => return false,
            },
        }
    }
    pattern[from..].iter().all(|byte| *byte == b'*')
}

impl<T: Clone> Condition<T> {
    /// Puts conditions in the place of what this one is about, and folds what is certain away.
    pub(super) fn replace<U: Clone>(&self, by: &impl Fn(&T) -> Condition<U>) -> Condition<U> {
        let each = |parts: &[Condition<T>]| -> Vec<Condition<U>> {
            parts.iter().map(|part| part.replace(by)).collect()
        };
        match self {
            Condition::Certain(certain) => Condition::Certain(*certain),
            Condition::Of(one) => by(one),
            Condition::Not(inner) => match inner.replace(by) {
                Condition::Certain(certain) => Condition::Certain(!certain),
                inner => Condition::Not(Box::new(inner)),
            },
            Condition::All(parts) => join(each(parts), false, Condition::All),
            Condition::Any(parts) => join(each(parts), true, Condition::Any),
            Condition::Quantity(written, meaning) => match meaning.replace(by) {
                certain @ Condition::Certain(_) => certain,
                // A single one stays a quantity: the administrator may add another.
                meaning => Condition::Quantity(written.clone(), Box::new(meaning)),
            },
        }
    }

    /// Everything it is about.
    pub(super) fn leaves(&self) -> Vec<&T> {
        match self {
            Condition::Certain(_) => Vec::new(),
            Condition::Of(one) => vec![one],
            Condition::Not(inner) | Condition::Quantity(_, inner) => inner.leaves(),
            Condition::All(parts) | Condition::Any(parts) => {
                parts.iter().flat_map(Condition::leaves).collect()
            }
        }
    }
}

/// `absorbing` makes the whole so, and its opposite makes no difference.
fn join<T>(
    parts: Vec<Condition<T>>,
    absorbing: bool,
    whole: fn(Vec<Condition<T>>) -> Condition<T>,
) -> Condition<T> {
    let mut kept = Vec::new();
    for part in parts {
        match part {
            Condition::Certain(certain) if certain == absorbing => return part,
            Condition::Certain(_) => {}
            part => kept.push(part),
        }
    }
    match kept.len() {
        0 => Condition::Certain(!absorbing),
        1 => kept.swap_remove(0),
        _ => whole(kept),
    }
}

impl Condition<String> {
    /// The text of the condition in a rule that has these selections.
    pub(super) fn write(&self, names: &[&str]) -> String {
        self.text(names, 0)
    }

    /// `tight` is 1 inside of `and` and 2 behind `not`.
    fn text(&self, names: &[&str], tight: u8) -> String {
        let joined = |parts: &[Condition<String>], word: &str, own: u8| {
            let parts: Vec<String> = parts.iter().map(|part| part.text(names, own)).collect();
            let text = parts.join(word);
            if tight >= own { format!("({text})") } else { text }
        };
        match self {
            // A rule of which nothing is left is refused before.
            Condition::Certain(certain) => certain.to_string(),
            Condition::Of(name) => name.clone(),
            Condition::Not(inner) => format!("not {}", inner.text(names, 2)),
            Condition::All(parts) => joined(parts, " and ", 2),
            Condition::Any(parts) => joined(parts, " or ", 1),
            Condition::Quantity(written, meaning) if same_in_a_rule(written, meaning, names) => {
                written.clone()
            }
            Condition::Quantity(_, meaning) => meaning.text(names, tight),
        }
    }
}

/// In rules of execwatch a pattern is the beginning of names, and underscores are nothing special.
fn same_in_a_rule(written: &str, meaning: &Condition<String>, names: &[&str]) -> bool {
    let target = written.rsplit(' ').next().unwrap_or_default();
    let prefix = match target.strip_suffix('*') {
        Some(prefix) if !prefix.contains('*') => prefix,
        None if target == "them" => "",
        _ => return false,
    };
    let parts = match meaning {
        Condition::All(parts) if written.starts_with("all") => parts.as_slice(),
        Condition::Any(parts) if written.starts_with('1') => parts.as_slice(),
        one @ Condition::Of(_) => std::slice::from_ref(one),
        _ => return false,
    };
    let meant: Option<Vec<&str>> = parts
        .iter()
        .map(|part| match part {
            Condition::Of(name) => Some(name.as_str()),
            _ => None,
        })
        .collect();
    let found: Vec<&str> = names.iter().copied().filter(|name| name.starts_with(prefix)).collect();
    meant.is_some_and(|mut meant| {
        let mut found = found;
        meant.sort_unstable();
        found.sort_unstable();
        meant == found
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NAMES: &[&str] = &["selection", "selection_img", "filter_a", "filter_b", "_hidden"];

    fn rewritten(text: &str) -> Result<String, String> {
        let condition = parse(text, Place::default(), NAMES).map_err(|mistake| mistake.message)?;
        let by = |&index: &usize| match NAMES[index] {
            "filter_b" => Condition::Certain(false),
            name => Condition::Of(name.to_owned()),
        };
        Ok(condition
            .replace(&by)
            .write(&NAMES.iter().copied().filter(|name| *name != "filter_b").collect::<Vec<_>>()))
    }

    #[test]
    fn conditions_are_kept_as_they_were_where_they_can_be() {
        let is = |text: &str, written: &str| assert_eq!(rewritten(text).as_deref(), Ok(written), "{text}");
        is("selection", "selection");
        is("selection AND NOT 1 Of filter_*", "selection and not 1 of filter_*");
        is("all of selection*", "all of selection*");
        is("1 of them", "(selection or selection_img or filter_a)".trim_matches(['(', ')']));
        is("all of *_img and not (selection or filter_a)", "selection_img and not (selection or filter_a)");
        is("not (selection and selection_img)", "not (selection and selection_img)");
        is("(selection or _hidden) and selection_img", "(selection or _hidden) and selection_img");
        is("not 1 of them", "not (selection or selection_img or filter_a)");
        is("1 of _*", "1 of _*");
        is("selection or filter_b", "selection");
        is("selection and filter_b", "false");
        is("not filter_b", "true");
        is("not not selection", "not not selection");
    }

    #[test]
    fn mistakes() {
        let is = |text: &str, part: &str| {
            let message = rewritten(text).unwrap_err();
            assert!(message.contains(part), "{text}: {message}");
        };
        is("", "ends where a selection is expected");
        is("selection | count() > 5", "counting over events");
        is("2 of them", "only `1 of` and `all of`");
        is("1 of x*", "no selection's name fits `x*`");
        is("selektion", "did you mean `selection`?");
        is("selection near filter_a", "expected `and` or `or`");
        is("(selection", "has no `)`");
        is("selection )", "before `)`");
        is(&"(".repeat(10_000), "levels deep");
        is(&"not ".repeat(10_000), "levels deep");
    }

    proptest! {
        #[test]
        fn any_text_ends(text in "(selection|filter_a|not|and|or|\\(|\\)|1 of|all of|them|s*|\\*| |é){0,20}") {
            let _ = rewritten(&text);
        }

        #[test]
        fn what_is_written_means_the_same(text in "(selection|not filter_a|\\(_hidden or selection_img\\)|1 of sel\\*)( (and|or|and not) (selection|not filter_a|\\(filter_a or selection_img\\)|all of s\\*|1 of them)){0,5}", bits in 0u8..32) {
            let parsed = parse(&text, Place::default(), NAMES).unwrap();
            fn truth(condition: &Condition<usize>, bits: u8) -> bool {
                match condition {
                    Condition::Certain(certain) => *certain,
                    Condition::Of(index) => bits >> index & 1 == 1,
                    Condition::Not(inner) => !truth(inner, bits),
                    Condition::All(parts) => parts.iter().all(|part| truth(part, bits)),
                    Condition::Any(parts) => parts.iter().any(|part| truth(part, bits)),
                    Condition::Quantity(_, inner) => truth(inner, bits),
                }
            }
            let written = parsed.replace(&|&index| Condition::Of(NAMES[index].to_owned())).write(NAMES);
            let own = crate::rules::condition::Condition::parse(&written, NAMES).unwrap();
            let found = own.evaluate(&|index| (bits >> index & 1 == 1).into());
            prop_assert_eq!(found == crate::rules::condition::Truth::True, truth(&parsed, bits), "{}", written);
        }
    }
}
