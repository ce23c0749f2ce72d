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
/// A condition has at most this many bytes, and stands for at most so many selections, each time it names one counted.
const LONGEST: usize = 16 * 1024;
const MOST_SELECTIONS: usize = 16 * 1024;

impl Condition {
    /// Parses `text` over the selections called `names`. An error is a sentence and its place in the text, in bytes.
    pub fn parse(text: &str, names: &[&str]) -> Result<Self, (Range<usize>, String)> {
        Condition::parse_with_shared(text, names, names.len())
    }

    /// As [`parse`](Self::parse), where `1 of` and `all of` mean only the first `own` of the names.
    pub fn parse_with_shared(text: &str, names: &[&str], own: usize) -> Result<Self, (Range<usize>, String)> {
        if text.len() > LONGEST {
            return Err((0..0, format!("a condition may have {LONGEST} bytes at most")));
        }
        let mut parser = Parser { words: words(text), at: 0, end: text.len(), names, own, named: 0 };
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

    /// The words of a condition that may be names of selections.
    pub fn names(text: &str) -> impl Iterator<Item = &str> {
        let text = if text.len() > LONGEST { "" } else { text };
        words(text).into_iter().map(|(word, _)| word)
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
    /// How many of the names `of` chooses from.
    own: usize,
    /// Selections named so far.
    named: usize,
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
                Some(index) => self.count(1, span).map(|()| Condition::Selection(index)),
                None => {
                    let hint = crate::diagnostics::suggestion(name, self.names.iter().copied());
                    Err((span, format!("the rule has no selection `{name}`{hint}")))
                }
            },
        }
    }

    fn count(&mut self, selections: usize, span: Range<usize>) -> Result<(), (Range<usize>, String)> {
        self.named += selections;
        if self.named > MOST_SELECTIONS {
            return Err((span, format!("the condition names selections more than {MOST_SELECTIONS} times")));
        }
        Ok(())
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
            .take(self.own)
            .enumerate()
            .filter(|(_, name)| name.starts_with(prefix))
            .map(|(index, _)| Condition::Selection(index))
            .collect();
        if parts.is_empty() {
            return Err((span, format!("no selection's name begins with `{prefix}`")));
        }
        self.count(parts.len(), span)?;
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

    #[test]
    fn limits() {
        let says = |text: &str, message: &str| {
            let error = Condition::parse(text, NAMES).unwrap_err().1;
            assert!(error.contains(message), "{error}");
        };
        says(&format!("tool{}", " or tool".repeat(125_000)), "16384 bytes at most");
        says(&"(".repeat(10_000), "nests more than 32");
        says(&"not ".repeat(4_000), "nests more than 32");
        says(&format!("{}tool{}", "(".repeat(33), ")".repeat(33)), "nests more than 32");
        assert!(Condition::parse(&format!("{}tool{}", "(".repeat(32), ")".repeat(32)), NAMES).is_ok());
        let names: Vec<String> = (0..100).map(|number| format!("s{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let error = Condition::parse(&format!("1 of s*{}", " or 1 of s*".repeat(200)), &names).unwrap_err();
        assert!(error.1.contains("more than 16384 times"), "{}", error.1);
        let long = format!("tool{}", " and tool".repeat(1_800));
        assert_eq!(Condition::parse(&long, NAMES).unwrap().evaluate(&|_| Truth::True), Truth::True);
    }

    /// A condition as a tree, its text, and its value by definition.
    #[derive(Debug, Clone)]
    enum Tree {
        Name(usize),
        Of(bool, &'static str, Vec<usize>),
        Not(Box<Tree>),
        Both(Box<Tree>, Box<Tree>),
        Either(Box<Tree>, Box<Tree>),
    }

    fn trees() -> impl Strategy<Value = Tree> {
        let leaf = prop_oneof![
            (0..NAMES.len()).prop_map(Tree::Name),
            any::<bool>().prop_map(|all| Tree::Of(all, "them", vec![0, 1, 2, 3])),
            any::<bool>().prop_map(|all| Tree::Of(all, "filter_*", vec![2, 3])),
        ];
        leaf.prop_recursive(5, 40, 2, |inner| {
            let pair = || (inner.clone(), inner.clone());
            prop_oneof![
                inner.clone().prop_map(|tree| Tree::Not(tree.into())),
                pair().prop_map(|(a, b)| Tree::Both(a.into(), b.into())),
                pair().prop_map(|(a, b)| Tree::Either(a.into(), b.into())),
            ]
        })
    }

    impl Tree {
        /// As text, with parentheses only where precedence needs them: 0 for or, 1 for and, 2 for not.
        fn text(&self, around: u8) -> String {
            let (own, text) = match self {
                Tree::Name(index) => (3, NAMES[*index].to_owned()),
                Tree::Of(all, what, _) => (3, format!("{} of {what}", if *all { "all" } else { "1" })),
                Tree::Not(inner) => (2, format!("not {}", inner.text(2))),
                Tree::Both(a, b) => (1, format!("{} and {}", a.text(1), b.text(1))),
                Tree::Either(a, b) => (0, format!("{} or {}", a.text(0), b.text(0))),
            };
            if own < around { format!("({text})") } else { text }
        }

        /// By the tables of Kleene's logic: false is 0, unknown 1, true 2.
        fn value(&self, truths: &[u8]) -> u8 {
            match self {
                Tree::Name(index) => truths[*index],
                Tree::Of(true, _, names) => names.iter().map(|&name| truths[name]).min().unwrap(),
                Tree::Of(false, _, names) => names.iter().map(|&name| truths[name]).max().unwrap(),
                Tree::Not(inner) => 2 - inner.value(truths),
                Tree::Both(a, b) => a.value(truths).min(b.value(truths)),
                Tree::Either(a, b) => a.value(truths).max(b.value(truths)),
            }
        }
    }

    proptest! {
        #[test]
        fn a_condition_means_what_its_tree_does(tree in trees(), truths in proptest::array::uniform4(0u8..3)) {
            const TRUTHS: [Truth; 3] = [Truth::False, Truth::Unknown, Truth::True];
            let text = tree.text(0);
            let condition = Condition::parse(&text, NAMES).unwrap();
            let value = condition.evaluate(&|index| TRUTHS[usize::from(truths[index])]);
            prop_assert_eq!(value, TRUTHS[usize::from(tree.value(&truths))], "{}", text);
        }

        #[test]
        fn any_text_ends(text in "(tool|shell|not|and|or|\\(|\\)|1 of|all of|them|x\\*| |é){0,20}") {
            if let Ok(condition) = Condition::parse(&text, NAMES) {
                let _ = condition.evaluate(&|_| Truth::Unknown);
                prop_assert!(condition.selections().iter().all(|index| *index < NAMES.len()));
            }
        }
    }
}
