//! Errors and warnings about files that an administrator writes: with file, line, column and the line quoted, and all of
//! a run at once.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::ops::Range;

use crate::order;

/// A text and where it comes from.
#[derive(Debug, Clone)]
pub struct Source {
    /// The file's path, or a name in angle brackets for what is compiled in.
    pub name: String,
    /// Its content.
    pub text: String,
}

impl Source {
    /// The number of the line, from 1, that a byte of the text stands in.
    pub fn line(&self, at: usize) -> usize {
        self.text.as_bytes().iter().take(at).filter(|&&byte| byte == b'\n').count() + 1
    }
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Accepted, but probably not meant.
    Warning,
    /// Refused.
    Error,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub level: Level,
    /// The source's name.
    pub file: String,
    /// Line and column, both from 1, the column in characters; `None` for a message about the whole file.
    pub place: Option<(usize, usize)>,
    /// What is wrong and what to do.
    pub message: String,
    /// The line, and how many of its characters are meant.
    quote: Option<(String, usize)>,
}

/// Longest piece of a line that is quoted, in characters.
const QUOTE: usize = 160;

impl Diagnostic {
    /// A message about `span` (in bytes) of a source.
    pub fn at(level: Level, source: &Source, span: Range<usize>, message: impl Into<String>) -> Self {
        let text = &source.text;
        let start = floor_boundary(text, span.start);
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |newline| start + newline);
        let line = source.line(line_start);
        let column = text[line_start..start].chars().count() + 1;
        let end = floor_boundary(text, span.end.min(line_end)).max(start);
        let marked = text[start..end].chars().count().max(1);
        let quote: String = text[line_start..line_end].trim_end().chars().take(QUOTE).collect();
        Diagnostic {
            level,
            file: source.name.clone(),
            place: Some((line, column)),
            message: message.into(),
            quote: (column <= QUOTE).then_some((quote, marked)),
        }
    }

    /// A message about a whole file.
    pub fn whole(level: Level, file: impl Into<String>, message: impl Into<String>) -> Self {
        Diagnostic { level, file: file.into(), place: None, message: message.into(), quote: None }
    }
}

fn floor_boundary(text: &str, index: usize) -> usize {
    let mut index = index.min(text.len());
    while !text.is_char_boundary(index) {
        index -= 1;
    }
    index
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if let Some((line, column)) = self.place {
            write!(f, ":{line}:{column}")?;
        }
        let level = if self.level == Level::Warning { "warning: " } else { "" };
        write!(f, ": {level}{}", self.message)?;
        if let (Some((line, column)), Some((quote, marked))) = (self.place, &self.quote) {
            // A tab in front of the mark stays a tab, so that the mark stands right in any terminal.
            let indent: String =
                quote.chars().take(column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
            let marked = (*marked).min(quote.chars().count().saturating_sub(column - 1)).max(1);
            let shown: String =
                quote.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect();
            let number = line.to_string();
            write!(
                f,
                "\n  {number} | {shown}\n  {:width$} | {indent}{}",
                "",
                "^".repeat(marked),
                width = number.len()
            )?;
        }
        Ok(())
    }
}

/// Messages of a run that are kept; the others are counted. Each costs the time to find its line.
const MOST: usize = 500;

/// The messages of a run, in the order they were found.
#[derive(Debug, Default)]
pub struct Diagnostics {
    list: RefCell<Vec<Diagnostic>>,
    errors: Cell<usize>,
    left_out: Cell<usize>,
}

impl Diagnostics {
    /// Adds a message.
    pub fn push(&self, diagnostic: Diagnostic) {
        self.add(diagnostic.level, || diagnostic);
    }

    /// Adds an error about `span` of a source.
    pub fn error(&self, source: &Source, span: Range<usize>, message: impl Into<String>) {
        self.add(Level::Error, || Diagnostic::at(Level::Error, source, span, message));
    }

    /// Adds a warning about `span` of a source.
    pub fn warning(&self, source: &Source, span: Range<usize>, message: impl Into<String>) {
        self.add(Level::Warning, || Diagnostic::at(Level::Warning, source, span, message));
    }

    fn add(&self, level: Level, make: impl FnOnce() -> Diagnostic) {
        self.errors.update(|errors| errors + usize::from(level == Level::Error));
        let mut list = self.list.borrow_mut();
        if list.len() < MOST {
            list.push(make());
        } else {
            self.left_out.update(|number| number + 1);
        }
    }

    /// How many errors were found.
    pub fn errors(&self) -> usize {
        self.errors.get()
    }

    /// True if anything was refused.
    pub fn any_error(&self) -> bool {
        self.errors() > 0
    }

    /// All messages, file by file in the order of the lines; the last says how many were left out.
    pub fn into_list(self) -> Vec<Diagnostic> {
        let (errors, left_out) = (self.errors.get(), self.left_out.get());
        let mut list = self.list.into_inner();
        let mut files: Vec<String> = Vec::new();
        for diagnostic in &list {
            if !files.contains(&diagnostic.file) {
                files.push(diagnostic.file.clone());
            }
        }
        order::by_key(&mut list, |diagnostic| {
            (files.iter().position(|file| *file == diagnostic.file), diagnostic.place)
        });
        if left_out > 0 {
            let level = if errors > 0 { Level::Error } else { Level::Warning };
            list.push(Diagnostic::whole(
                level,
                "execwatch",
                format!("{left_out} more like these are not shown"),
            ));
        }
        list
    }
}

/// «; did you mean `x`?» if one of `known` is close to `given`, else nothing.
pub fn suggestion<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let most = |name: &str| 1 + name.len() / 4;
    // Names whose lengths differ by more are not close, and `given` may have any length.
    let length = given.chars().count();
    let similar = known.into_iter().filter(|name| name.chars().count().abs_diff(length) <= most(name));
    let closest = similar.map(|name| (distance(given, name), name)).min();
    match closest {
        Some((distance, name)) if distance <= most(name) => format!("; did you mean `{name}`?"),
        _ => String::new(),
    }
}

/// A number with its unit.
pub fn counted<N: PartialEq + From<u8> + fmt::Display>(number: N, one: &str, many: &str) -> String {
    let unit = if number == N::from(1) { one } else { many };
    format!("{number} {unit}")
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_message_quotes_and_marks() {
        let source = Source { name: "a.toml".into(), text: "x = 1\n\té = \"hgh\" # no\n".into() };
        let start = source.text.find('"').unwrap();
        let shown = Diagnostic::at(Level::Error, &source, start..start + 5, "no such thing").to_string();
        assert_eq!(shown, "a.toml:2:6: no such thing\n  2 | \té = \"hgh\" # no\n    | \t    ^^^^^");
    }

    #[test]
    fn suggestions() {
        assert_eq!(suggestion("severty", ["title", "severity"]), "; did you mean `severity`?");
        assert_eq!(suggestion("zzz", ["title", "severity"]), "");
        assert_eq!(suggestion(&"title".repeat(1 << 20), ["title", "severity"]), "");
    }

    #[test]
    fn of_very_many_messages_some_are_kept_and_all_are_counted() {
        let source = Source { name: "a.toml".into(), text: "x\n".repeat(100_000) };
        let diagnostics = Diagnostics::default();
        for line in 0..100_000 {
            diagnostics.warning(&source, 2 * line..2 * line + 1, "too much");
        }
        diagnostics.error(&source, 0..1, "too much");
        assert!(diagnostics.any_error(), "what is not shown is refused all the same");
        let list = diagnostics.into_list();
        assert_eq!((list.len(), list[1].place), (MOST + 1, Some((2, 1))));
        let last = list.last().unwrap();
        assert_eq!(last.to_string(), "execwatch: 99501 more like these are not shown");
        assert_eq!(last.level, Level::Error);
    }

    proptest! {
        #[test]
        fn any_place_in_any_text(text in ".{0,80}", start in 0usize..100, length in 0usize..100) {
            let source = Source { name: "x".into(), text };
            let _ = Diagnostic::at(Level::Error, &source, start..start + length, "m").to_string();
        }
    }
}
