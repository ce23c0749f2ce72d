//! Text of a story as people may see it: nothing in it can move a cursor, change a direction or hide.
//!
//! In: text as a [story](super::story) has it. Out: pieces, each of which is text as it was or an escape that stands for
//! what cannot be shown. Where escapes can be marked, a text that only looks like one is told apart.

use std::borrow::Cow;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::story::Program;
use crate::alert::escape::{Escaped, is_unprintable, of_json};

/// Longest command shown, in bytes.
pub(super) const COMMAND: usize = 1200;
/// Longest other value shown, in bytes.
pub(super) const VALUE: usize = 600;
/// Arguments of a command that are looked at; the last ones are worth less than the first.
const ARGUMENTS: usize = 400;
/// No argument is added to a command that is so long, in bytes.
const LINE: usize = 16 * COMMAND;

/// A part of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    /// What to show.
    pub(super) text: String,
    /// It stands for something that cannot be shown, or for what was cut.
    pub(super) escape: bool,
}

/// The pieces of a text, of which at most `limit` bytes are kept. What is cut is cut in the middle, and said.
pub(super) fn pieces(text: &str, limit: usize) -> Vec<Piece> {
    pieces_of_bytes(&of_json(text), limit)
}

/// The same for text that is no text of a story: records, rules, and command lines for a shell, in which nothing was written
/// as an escape of a byte. In the names of units `\x2d` stands for itself.
pub(super) fn pieces_of_bytes(bytes: &[u8], limit: usize) -> Vec<Piece> {
    let mut pieces = Pieces::default();
    if bytes.len() <= limit {
        pieces.add(bytes);
        return pieces.0;
    }
    let third = limit / 3;
    let head = character_boundary(bytes, limit - third);
    let tail = character_boundary(bytes, bytes.len() - third);
    pieces.add(&bytes[..head]);
    pieces.push(&format!("[...{} bytes...]", tail - head), true);
    pieces.add(&bytes[tail..]);
    pieces.0
}

/// The same as one text.
pub(crate) fn shown(text: &str, limit: usize) -> String {
    joined(&pieces(text, limit))
}

/// Pieces as one text.
pub(super) fn joined(pieces: &[Piece]) -> String {
    pieces.iter().map(|piece| piece.text.as_str()).collect()
}

/// The pieces that fit in so many columns, with an ellipsis if any did not.
pub(super) fn fit(pieces: Vec<Piece>, columns: usize) -> Vec<Piece> {
    if joined(&pieces).width() <= columns {
        return pieces;
    }
    let mut left = columns.saturating_sub(1);
    let mut fitting = Pieces::default();
    for piece in &pieces {
        let taken = room(&piece.text, left);
        // An escape is whole or not there.
        let taken = if piece.escape && taken < piece.text.len() { 0 } else { taken };
        let (text, rest) = piece.text.split_at(taken);
        fitting.push(text, piece.escape);
        if !rest.is_empty() {
            break;
        }
        left -= text.width();
    }
    fitting.push("\u{2026}", true);
    fitting.0
}

/// How many bytes of a text fit in so many columns.
pub(super) fn room(text: &str, columns: usize) -> usize {
    let mut used = 0;
    for (at, character) in text.char_indices() {
        used += character.width().unwrap_or(0);
        if used > columns {
            return at;
        }
    }
    text.len()
}

/// The last place at or before `index` where a character may begin.
fn character_boundary(bytes: &[u8], index: usize) -> usize {
    let continues = |&at: &usize| bytes.get(at).is_some_and(|byte| byte & 0xc0 == 0x80);
    // A character has at most three bytes behind its first; more of them are no UTF-8.
    let begin = (index.saturating_sub(3)..=index).rev().find(|at| !continues(at));
    begin.unwrap_or(index)
}

#[derive(Default)]
struct Pieces(Vec<Piece>);

impl Pieces {
    fn add(&mut self, bytes: &[u8]) {
        for chunk in bytes.utf8_chunks() {
            let mut rest = chunk.valid();
            while let Some(found) = rest.find(is_unprintable) {
                let (before, behind) = rest.split_at(found);
                self.push(before, false);
                let size = behind.chars().next().map_or(behind.len(), char::len_utf8);
                let (unprintable, behind) = behind.split_at(size);
                self.push(Escaped::new(unprintable.as_bytes()).as_str(), true);
                rest = behind;
            }
            self.push(rest, false);
            if !chunk.invalid().is_empty() {
                self.push(Escaped::new(chunk.invalid()).as_str(), true);
            }
        }
    }

    fn push(&mut self, text: &str, escape: bool) {
        match self.0.last_mut() {
            _ if text.is_empty() => {}
            Some(last) if last.escape == escape => last.text.push_str(text),
            _ => self.0.push(Piece { text: text.to_owned(), escape }),
        }
    }
}

/// The command line of a program as text of a story, with quotation marks where a shell would need them; the executable
/// if there are no arguments.
pub(super) fn command(program: &Program) -> String {
    if program.args.is_empty() {
        return program.exe.as_deref().map_or("(unknown)".to_owned(), |exe| quoted(exe).into_owned());
    }
    let mut line = String::new();
    let mut taken = 0;
    for argument in program.args.iter().take(ARGUMENTS) {
        if line.len() > LINE {
            break;
        }
        if taken > 0 {
            line.push(' ');
        }
        line.push_str(&quoted(argument));
        taken += 1;
    }
    let more = program.args.len() - taken;
    if more > 0 {
        line.push_str(&format!(" [...{more} arguments]"));
    }
    line
}

fn quoted(argument: &str) -> Cow<'_, str> {
    let needs = |character: char| {
        character.is_ascii() && !character.is_ascii_alphanumeric() && !"_@%+=:,./-".contains(character)
    };
    // An escape of a byte is no character that a shell would see.
    if argument.is_empty() || argument.replace("\\x", "").contains(needs) {
        format!("'{}'", argument.replace('\'', "'\\''")).into()
    } else {
        argument.into()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::alert::escape::for_json;

    fn plain(text: &str) -> Piece {
        Piece { text: text.to_owned(), escape: false }
    }

    fn escape(text: &str) -> Piece {
        Piece { text: text.to_owned(), escape: true }
    }

    #[test]
    fn escapes_are_told_apart_from_what_looks_like_one() {
        let text = for_json(b"a\x1b[2J \\x1b \xff\"\\");
        assert_eq!(
            pieces(&text, 100),
            [plain("a"), escape("\\x1b"), plain("[2J \\x1b "), escape("\\xff"), plain("\"\\")]
        );
        assert_eq!(pieces("h\u{e9}\u{202e}\n", 100), [plain("h\u{e9}"), escape("\\u{202e}\\n")]);
        assert_eq!(pieces("", 100), []);
    }

    #[test]
    fn long_text_is_cut_in_the_middle() {
        let long = "x".repeat(100);
        assert_eq!(
            pieces(&long, 30),
            [plain(&"x".repeat(20)), escape("[...70 bytes...]"), plain(&"x".repeat(10))]
        );
        // Neither a character nor the escape of a byte is split.
        assert_eq!(shown(&"\u{20ac}".repeat(9), 10), "\u{20ac}\u{20ac}[...18 bytes...]\u{20ac}");
        assert_eq!(shown(&"\\xff".repeat(9), 3), "\\xff\\xff[...6 bytes...]\\xff");
    }

    #[test]
    fn what_does_not_fit_ends_with_an_ellipsis() {
        let fitting = |text: &str, columns| joined(&fit(pieces(text, 100), columns));
        assert_eq!(fitting("abcd", 4), "abcd");
        assert_eq!(fitting("abcde", 4), "abc\u{2026}");
        // Wide characters take two columns, and an escape is not split.
        assert_eq!(fitting("\u{4e2d}\u{6587}\u{4e2d}", 4), "\u{4e2d}\u{2026}");
        assert_eq!(fitting("a\x1bbcdefg", 6), "a\\x1b\u{2026}");
        assert_eq!(fitting("a\x1bbcdefg", 5), "a\u{2026}");
        assert_eq!(fitting("abc", 0), "\u{2026}");
    }

    #[test]
    fn commands_are_quoted_for_reading() {
        let program = |args: &[&str]| Program {
            time_ns: 0,
            exe: Some("/bin/sh".to_owned()),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            alert: None,
        };
        assert_eq!(command(&program(&[])), "/bin/sh");
        assert_eq!(
            command(&program(&["sh", "-c", "id; echo 'a'", "", "h\u{e9}", "\\xff"])),
            "sh -c 'id; echo '\\''a'\\''' '' h\u{e9} \\xff"
        );
        let many = command(&program(&vec!["a"; 1000]));
        assert!(many.ends_with("a [...600 arguments]"), "{many}");
        let large = "b".repeat(COMMAND);
        let cut = command(&program(&vec![large.as_str(); 1000]));
        assert!(cut.len() < LINE + 2 * COMMAND && cut.ends_with("b [...984 arguments]"), "{}", cut.len());
    }

    proptest! {
        #[test]
        fn never_wider(text in r"\PC{0,30}", columns in 1usize..40) {
            prop_assert!(joined(&fit(pieces(&text, 200), columns)).width() <= columns);
        }

        #[test]
        fn nothing_unprintable_is_left(bytes in proptest::collection::vec(any::<u8>(), 0..200), limit in 0usize..250) {
            let pieces = pieces(&for_json(&bytes), limit);
            prop_assert!(!joined(&pieces).contains(is_unprintable));
            // The end may begin three bytes earlier, where a character does.
            prop_assert!(joined(&pieces).len() <= 4 * (limit + 3) + 24);
        }
    }
}
