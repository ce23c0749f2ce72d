//! Markup, written so that text cannot become markup.
//!
//! Only text that stands in the program can be written as it is, and numbers; everything else goes through [`Page::text`] or
//! [`Page::attribute`], which show what is unprintable as escapes and escape what markup is made of. That is the same for
//! HTML and for SVG inside HTML. Nothing is ever written into a script or a style.

use std::fmt::Write;

use crate::incident::shown::{Piece, fit, pieces, pieces_of_bytes};

/// A page that is being written.
#[derive(Debug, Default)]
pub(super) struct Page {
    markup: String,
}

/// Numbers, which hold no markup.
pub(super) trait Number: std::fmt::Display {}

impl Number for u8 {}
impl Number for u32 {}
impl Number for u64 {}
impl Number for usize {}
impl Number for f64 {}

impl Page {
    /// Markup of the program's own.
    pub(super) fn raw(&mut self, markup: &'static str) -> &mut Page {
        self.markup.push_str(markup);
        self
    }

    /// A number.
    pub(super) fn number(&mut self, number: impl Number) -> &mut Page {
        // Writing to a string cannot fail.
        let _ = write!(self.markup, "{number}");
        self
    }

    /// A number with at most two digits behind the point, as places in pictures are.
    pub(super) fn place(&mut self, number: f64) -> &mut Page {
        self.number((number * 100.0).round() / 100.0)
    }

    /// Text of anybody, of which at most `limit` bytes are kept. Escapes are marked.
    pub(super) fn text(&mut self, text: &str, limit: usize) -> &mut Page {
        self.pieces(&pieces(text, limit), "<i>", "</i>")
    }

    /// The same inside of a `<text>` of SVG, as much as fits in so many columns.
    pub(super) fn svg_text(&mut self, text: &str, columns: usize) -> &mut Page {
        self.pieces(&fit(pieces(text, 4 * columns), columns), "<tspan>", "</tspan>")
    }

    /// Text of anybody where no element may stand: in `<title>` and in attributes.
    pub(super) fn plain_text(&mut self, text: &str, limit: usize) -> &mut Page {
        self.pieces(&pieces(text, limit), "", "")
    }

    /// The value of an attribute, with quotation marks around it.
    pub(super) fn attribute(&mut self, name: &'static str, value: &str, limit: usize) -> &mut Page {
        self.raw(" ").raw(name).raw("=\"").plain_text(value, limit).raw("\"")
    }

    /// Text of anybody as code: in a font with fixed width, always from left to right.
    pub(super) fn code(&mut self, text: &str, limit: usize) -> &mut Page {
        self.raw("<code>").text(text, limit).raw("</code>")
    }

    /// The same for text that is no text of a story.
    pub(super) fn code_of_bytes(&mut self, text: &str, limit: usize) -> &mut Page {
        self.raw("<code>").pieces(&pieces_of_bytes(text.as_bytes(), limit), "<i>", "</i>").raw("</code>")
    }

    /// The same line by line.
    pub(super) fn lines(&mut self, text: &str, limit: usize) -> &mut Page {
        self.raw("<pre>");
        for (number, line) in text.split('\n').enumerate() {
            // A newline right behind `<pre>` would be none.
            self.raw(if number > 0 { "\n" } else { "" });
            self.pieces(&pieces_of_bytes(line.as_bytes(), limit), "<i>", "</i>");
        }
        self.raw("</pre>")
    }

    fn pieces(&mut self, pieces: &[Piece], begin: &'static str, end: &'static str) -> &mut Page {
        for piece in pieces {
            if piece.escape {
                self.raw(begin).escaped(&piece.text).raw(end);
            } else {
                self.escaped(&piece.text);
            }
        }
        self
    }

    /// The same for elements and for attributes, so that there is one place to get it right.
    fn escaped(&mut self, text: &str) -> &mut Page {
        let mut rest = text;
        while let Some(at) = rest.find(['&', '<', '>', '"', '\'']) {
            let (before, behind) = rest.split_at(at);
            self.markup.push_str(before);
            self.markup.push_str(match behind.as_bytes().first() {
                Some(b'&') => "&amp;",
                Some(b'<') => "&lt;",
                Some(b'>') => "&gt;",
                Some(b'"') => "&#34;",
                _ => "&#39;",
            });
            rest = &behind[1..];
        }
        self.markup.push_str(rest);
        self
    }

    /// The markup.
    pub(super) fn into_markup(self) -> String {
        self.markup
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_no_markup() {
        let mut page = Page::default();
        page.code("<b a='1'>&\"`\u{1b}\\xff]]>--> \\x5cx1b", 100);
        page.raw("<p").attribute("title", "\"><script>", 100).raw(">").number(3u32).place(1.234567);
        assert_eq!(
            page.into_markup(),
            "<code>&lt;b a=&#39;1&#39;&gt;&amp;&#34;`<i>\\x1b\\xff</i>]]&gt;--&gt; \\x1b</code>\
             <p title=\"&#34;&gt;&lt;script&gt;\">31.23"
        );
    }
}
