//! Conditions over selections: Sigma's grammar, in three-valued logic.
//!
//! ```text
//! or    = and { "or" and }
//! and   = not { "and" not }
//! not   = [ "not" ] ( "(" or ")" | quantity "of" ( "them" | PREFIX* ) | NAME )
//! quantity = "1" | "all"
//! ```

use std::ops::Range;

/// The outcome of a test whose subject may be unknown (Kleene's logic).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truth {
    /// It holds.
    True,
    /// It does not.
    False,
    /// It cannot be told.
    Unknown,
}

impl From<bool> for Truth {
    fn from(value: bool) -> Self {
        if value { Truth::True } else { Truth::False }
    }
}

impl Truth {
    /// True if all are; false as soon as one is.
    pub fn all(truths: impl IntoIterator<Item = Truth>) -> Truth {
        let mut result = Truth::True;
        for truth in truths {
            match truth {
                Truth::False => return Truth::False,
                Truth::Unknown => result = Truth::Unknown,
                Truth::True => {}
            }
        }
        result
    }

    /// True as soon as one is; false if all are.
    pub fn any(truths: impl IntoIterator<Item = Truth>) -> Truth {
        Truth::all(truths.into_iter().map(Truth::negated)).negated()
    }

    /// The opposite; of the unknown, the unknown.
    pub fn negated(self) -> Truth {
        match self {
            Truth::True => Truth::False,
            Truth::False => Truth::True,
            Truth::Unknown => Truth::Unknown,
        }
    }
}

/// A parsed condition. Selections are numbered as in the rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// The selection holds.
    Selection(usize),
    /// The opposite.
    Not(Box<Condition>),
    /// All hold.
    All(Vec<Condition>),
    /// One holds.
    Any(Vec<Condition>),
}

/// Conditions nest at most this deep, so that no file can exhaust the stack.
const DEPTH: usize = 32;

impl Condition {
    /// Parses `text` over the selections called `names`. An error is a sentence and its place in the text, in bytes.
    pub fn parse(text: &str, names: &[&str]) -> Result<Self, (Range<usize>, String)> {
        let mut parser = Parser { words: words(text), at: 0, end: text.len(), names };
        let condition = parser.or(0)?;
        match parser.peek() {
            None => Ok(condition),
            Some((word, span)) => Err((span, format!("expected `and` or `or` before `{word}`"))),
        }
    }

    /// Evaluates the condition; `selection` gives the truth of each selection.
    pub fn evaluate(&self, selection: &impl Fn(usize) -> Truth) -> Truth {
        match self {
            Condition::Selection(index) => selection(*index),
            Condition::Not(inner) => inner.evaluate(selection).negated(),
            Condition::All(parts) => Truth::all(parts.iter().map(|part| part.evaluate(selection))),
            Condition::Any(parts) => Truth::any(parts.iter().map(|part| part.evaluate(selection))),
        }
    }

    /// The numbers of the selections it uses.
    pub fn selections(&self) -> Vec<usize> {
        match self {
            Condition::Selection(index) => vec![*index],
            Condition::Not(inner) => inner.selections(),
            Condition::All(parts) | Condition::Any(parts) => {
                parts.iter().flat_map(Condition::selections).collect()
            }
        }
    }
}

type Word<'t> = (&'t str, Range<usize>);

/// Words and parentheses with their places.
fn words(text: &str) -> Vec<Word<'_>> {
    let mut words = Vec::new();
    let mut start = None;
    for (at, character) in text.char_indices().chain([(text.len(), ' ')]) {
        let separates = character.is_whitespace() || matches!(character, '(' | ')');
        if separates && let Some(from) = start.take() {
            words.push((&text[from..at], from..at));
        }
        if matches!(character, '(' | ')') {
            words.push((&text[at..=at], at..at + 1));
        } else if !separates && start.is_none() {
            start = Some(at);
        }
    }
    words
}

struct Parser<'t> {
    words: Vec<Word<'t>>,
    at: usize,
    end: usize,
    names: &'t [&'t str],
}

type Parsed = Result<Condition, (Range<usize>, String)>;

impl<'t> Parser<'t> {
    fn peek(&self) -> Option<Word<'t>> {
        self.words.get(self.at).cloned()
    }

    fn take(&mut self, word: &str) -> bool {
        let found = self.peek().is_some_and(|(next, _)| next.eq_ignore_ascii_case(word));
        self.at += usize::from(found);
        found
    }

    fn chain(
        &mut self,
        depth: usize,
        word: &str,
        part: impl Fn(&mut Self, usize) -> Parsed,
        join: fn(Vec<Condition>) -> Condition,
    ) -> Parsed {
        let first = part(self, depth)?;
        let mut parts = vec![first];
        while self.take(word) {
            parts.push(part(self, depth)?);
        }
        Ok(if parts.len() == 1 { parts.swap_remove(0) } else { join(parts) })
    }

    fn or(&mut self, depth: usize) -> Parsed {
        self.chain(depth, "or", Self::and, Condition::Any)
    }

    fn and(&mut self, depth: usize) -> Parsed {
        self.chain(depth, "and", Self::not, Condition::All)
    }

    fn not(&mut self, depth: usize) -> Parsed {
        if depth > DEPTH {
            let place = self.peek().map_or(self.end..self.end, |(_, span)| span);
            return Err((place, format!("the condition nests more than {DEPTH} levels deep")));
        }
        if self.take("not") {
            return Ok(Condition::Not(Box::new(self.not(depth + 1)?)));
        }
        let Some((word, span)) = self.peek() else {
            return Err((self.end..self.end, "the condition ends where a selection is expected".to_owned()));
        };
        self.at += 1;
        match word {
            "(" => {
                let inner = self.or(depth + 1)?;
                if self.take(")") { Ok(inner) } else { Err((span, "this `(` has no `)`".to_owned())) }
            }
            ")" => Err((span, "a selection is expected before this `)`".to_owned())),
            "and" | "or" | "of" | "them" => Err((span, format!("a selection is expected before `{word}`"))),
            _ if self.take("of") => self.quantity(word, span),
            name => match self.names.iter().position(|known| *known == name) {
                Some(index) => Ok(Condition::Selection(index)),
                None => {
                    let hint = crate::diagnostics::suggestion(name, self.names.iter().copied());
                    Err((span, format!("the rule has no selection `{name}`{hint}")))
                }
            },
        }
    }

    fn quantity(&mut self, word: &str, span: Range<usize>) -> Parsed {
        let join = match word.to_ascii_lowercase().as_str() {
            "1" | "any" => Condition::Any,
            "all" => Condition::All,
            _ => return Err((span, format!("expected `1 of` or `all of`, not `{word} of`"))),
        };
        let Some((target, span)) = self.peek() else {
            return Err((self.end..self.end, "`of` needs `them` or a name such as `tool_*`".to_owned()));
        };
        self.at += 1;
        let prefix = match target.strip_suffix('*') {
            Some(prefix) => prefix,
            None if target.eq_ignore_ascii_case("them") => "",
            None => return Err((span, format!("`of` needs `them` or a name such as `{target}*`"))),
        };
        let parts: Vec<Condition> = self
            .names
            .iter()
            .enumerate()
            .filter(|(_, name)| name.starts_with(prefix))
            .map(|(index, _)| Condition::Selection(index))
            .collect();
        if parts.is_empty() {
            return Err((span, format!("no selection's name begins with `{prefix}`")));
        }
        Ok(join(parts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NAMES: &[&str] = &["tool", "shell", "filter_a", "filter_b.conf"];

    fn truth(text: &str, truths: [Truth; 4]) -> Truth {
        Condition::parse(text, NAMES).unwrap().evaluate(&|index| truths[index])
    }

    #[test]
    fn precedence_and_quantities() {
        use Truth::{False as F, True as T, Unknown as U};
        assert_eq!(truth("tool or shell and not tool", [T, F, F, F]), T);
        assert_eq!(truth("(tool or shell) and not tool", [T, F, F, F]), F);
        assert_eq!(truth("tool and not 1 of filter_*", [T, F, F, F]), T);
        assert_eq!(truth("tool and not 1 of filter_*", [T, F, F, T]), F);
        assert_eq!(truth("all of them", [T, T, T, T]), T);
        assert_eq!(truth("ALL of filter_* OR shell", [T, F, T, F]), F);
        assert_eq!(truth("not not tool", [T, F, F, F]), T);
        assert_eq!(truth("filter_b.conf", [F, F, F, T]), T);
        // The unknown satisfies neither a test nor its negation, and yields to what is certain.
        assert_eq!(truth("tool", [U, F, F, F]), U);
        assert_eq!(truth("not tool", [U, F, F, F]), U);
        assert_eq!(truth("tool or shell", [U, T, F, F]), T);
        assert_eq!(truth("tool and shell", [U, F, F, F]), F);
    }

    #[test]
    fn mistakes_are_placed() {
        for (text, start, message) in [
            ("", 0, "the condition ends where a selection is expected"),
            ("tool shell", 5, "expected `and` or `or` before `shell`"),
            ("tool and", 8, "the condition ends where a selection is expected"),
            ("(tool", 0, "this `(` has no `)`"),
            ("tool)", 4, "expected `and` or `or` before `)`"),
            ("tol", 0, "the rule has no selection `tol`; did you mean `tool`?"),
            ("2 of them", 0, "expected `1 of` or `all of`, not `2 of`"),
            ("1 of x*", 5, "no selection's name begins with `x`"),
            ("1 of tool", 5, "`of` needs `them` or a name such as `tool*`"),
            ("and tool", 0, "a selection is expected before `and`"),
        ] {
            let (span, said) = Condition::parse(text, NAMES).unwrap_err();
            assert_eq!((span.start, said.as_str()), (start, message), "{text}");
        }
        assert!(Condition::parse(&"(".repeat(100_000), NAMES).is_err());
        assert!(Condition::parse(&"not ".repeat(100_000), NAMES).is_err());
    }

    proptest! {
        #[test]
        fn any_text_ends(text in "(tool|shell|not|and|or|\\(|\\)|1 of|all of|them|x\\*| |é){0,20}") {
            if let Ok(condition) = Condition::parse(&text, NAMES) {
                let _ = condition.evaluate(&|_| Truth::Unknown);
                prop_assert!(condition.selections().iter().all(|index| *index < NAMES.len()));
            }
        }
    }
}
