//! Lines of a terminal: runs of text, each in its style, wrapped at words so that no line is wider than it may be.

use unicode_width::UnicodeWidthStr;

use super::shown::{Piece, pieces, pieces_of_bytes, room};
use crate::rules::model::Severity;

/// Nothing is wrapped to fewer columns: words would be unreadable.
pub(super) const NARROWEST: usize = 40;

/// How a run looks on a terminal with colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Bold,
    Dim,
    /// What stands for something that cannot be shown.
    Escape,
    Severity(Severity),
}

impl Style {
    /// The parameters of the sequence that switches it on. Severities look as those of alerts do.
    fn code(self) -> &'static str {
        match self {
            Style::Plain => "",
            Style::Bold => "1",
            Style::Dim | Style::Severity(Severity::Info) => "2",
            Style::Escape => "35",
            Style::Severity(Severity::Low) => "36",
            Style::Severity(Severity::Medium) => "33",
            Style::Severity(Severity::High) => "31;1",
            Style::Severity(Severity::Critical) => "97;41;1",
        }
    }
}

/// A text in one style, without anything unprintable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run {
    text: String,
    style: Style,
}

/// Text of the program's own.
pub(super) fn own(text: impl Into<String>, style: Style) -> Run {
    Run { text: text.into(), style }
}

/// Text of a story, of which at most `limit` bytes are kept.
pub(super) fn runs(text: &str, limit: usize, style: Style) -> Vec<Run> {
    styled(pieces(text, limit), style)
}

/// The same for text that is no text of a story.
pub(super) fn runs_of_bytes(text: &str, limit: usize, style: Style) -> Vec<Run> {
    styled(pieces_of_bytes(text.as_bytes(), limit), style)
}

fn styled(pieces: Vec<Piece>, style: Style) -> Vec<Run> {
    let styled = |escape| if escape { Style::Escape } else { style };
    pieces.into_iter().map(|piece| own(piece.text, styled(piece.escape))).collect()
}

/// Lines that are being written.
#[derive(Debug)]
pub(super) struct Lines {
    text: String,
    width: usize,
    colour: bool,
    /// The style of what was written last.
    last: Style,
}

/// Ends a style.
const RESET: &str = "\x1b[0m";

impl Lines {
    pub(super) fn new(width: usize, colour: bool) -> Lines {
        Lines { text: String::new(), width: width.max(NARROWEST), colour, last: Style::Plain }
    }

    pub(super) fn width(&self) -> usize {
        self.width
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }

    /// An empty line.
    pub(super) fn blank(&mut self) {
        self.text.push('\n');
    }

    /// A heading, with an empty line above.
    pub(super) fn heading(&mut self, text: &str) {
        self.blank();
        self.wrapped("", "", &[own(text, Style::Bold)]);
    }

    /// A line that is not wrapped: what is to be copied must stay whole.
    pub(super) fn whole(&mut self, first: &str, runs: &[Run]) {
        self.push(first, Style::Dim);
        for run in runs {
            self.push(&run.text, run.style);
        }
        self.blank();
    }

    /// Runs as one or more lines; `first` stands before the first of them, `next` before the others.
    pub(super) fn wrapped(&mut self, first: &str, next: &str, runs: &[Run]) {
        self.push(first, Style::Dim);
        let mut left = self.width.saturating_sub(first.width());
        // Blanks are written only when something follows them in the same line.
        let mut blanks = 0;
        let mut begun = false;
        for (word, style) in runs.iter().flat_map(|run| words(&run.text).map(move |word| (word, run.style))) {
            if word == " " {
                blanks += usize::from(begun);
                continue;
            }
            let mut word = word;
            while !word.is_empty() {
                let fits = word.width() + blanks <= left;
                // A word that is wider than a whole line is broken where the line ends.
                let whole = self.width.saturating_sub(next.width());
                let taken = match (fits, word.width() > whole) {
                    (true, _) => word.len(),
                    (false, true) if left > blanks => room(word, left - blanks),
                    _ => 0,
                };
                if taken > 0 {
                    let (now, later) = word.split_at(taken);
                    if self.last == style {
                        self.push(&format!("{}{now}", " ".repeat(blanks)), style);
                    } else {
                        self.push(&" ".repeat(blanks), Style::Plain);
                        self.push(now, style);
                    }
                    left -= blanks + now.width();
                    (word, blanks, begun) = (later, 0, true);
                }
                if !word.is_empty() {
                    self.blank();
                    self.push(next, Style::Dim);
                    (left, blanks, begun) = (whole.max(2), 0, false);
                }
            }
        }
        // A terminal's line has no blanks at its end.
        self.text.truncate(self.text.trim_end_matches(' ').len());
        self.blank();
    }

    fn push(&mut self, text: &str, style: Style) {
        let code = style.code();
        if !self.colour || code.is_empty() || text.trim_start().is_empty() {
            self.text.push_str(text);
        } else if self.last == style && self.text.ends_with(RESET) {
            // What goes on in the same style is one run: nothing else than this ends with a reset.
            self.text.truncate(self.text.len() - RESET.len());
            self.text.push_str(text);
            self.text.push_str(RESET);
        } else {
            self.text.push_str(&format!("\x1b[{code}m{text}{RESET}"));
        }
        if !text.is_empty() {
            self.last = style;
        }
    }
}

/// The words of a text, and the blanks between them one by one.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive(' ').flat_map(|part| {
        let (word, blank) = part.strip_suffix(' ').map_or((part, ""), |word| (word, " "));
        [word, blank].into_iter().filter(|part| !part.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wrapped(width: usize, colour: bool, text: &str) -> String {
        let mut lines = Lines::new(width, colour);
        lines.wrapped("- ", "  ", &runs(text, 1000, Style::Bold));
        lines.into_text()
    }

    #[test]
    fn lines_are_wrapped_at_words() {
        let text = "one two three four five six seven eight nine ten";
        assert_eq!(wrapped(40, false, text), "- one two three four five six seven\n  eight nine ten\n");
        let long = "x".repeat(50);
        assert_eq!(wrapped(40, false, &long), format!("- {}\n  {}\n", "x".repeat(38), "x".repeat(12)));
        assert_eq!(wrapped(40, false, ""), "-\n");
    }

    #[test]
    fn colours_mark_escapes() {
        assert_eq!(
            wrapped(40, true, "a\x1bb"),
            "\x1b[2m- \x1b[0m\x1b[1ma\x1b[0m\x1b[35m\\x1b\x1b[0m\x1b[1mb\x1b[0m\n"
        );
        assert_eq!(wrapped(40, true, "a  b c"), "\x1b[2m- \x1b[0m\x1b[1ma  b c\x1b[0m\n");
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_no_line_is_too_wide(text in r"(\PC{0,60}| {0,3}|x{30,60}|\u{4e2d}{20,50}){0,4}", width in 0usize..90) {
            let wrapped = wrapped(width, false, &text);
            for line in wrapped.lines() {
                prop_assert!(line.width() <= width.max(NARROWEST), "{line}");
            }
            let without = |text: &str| text.replace([' ', '\n'], "");
            let shown = super::super::shown::shown(&text, 1000);
            prop_assert_eq!(without(&wrapped), "-".to_owned() + &without(&shown));
        }
    }
}
