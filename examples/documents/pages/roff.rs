//! The source of a manual page, in the macros of man(7).

use std::fmt::Write;

/// A page being written.
pub(super) struct Page {
    text: String,
    /// The last line was a heading, after which a paragraph begins by itself.
    headed: bool,
}

impl Page {
    /// Begins the page `name`(`section`), which is about `purpose`.
    pub(super) fn new(name: &str, section: u8, date: &str, manual: &str, purpose: &str) -> Page {
        let version = env!("CARGO_PKG_VERSION");
        let title = escape(&name.to_uppercase());
        let mut text = String::from(".\\\" Made from the sources of execwatch; do not edit.\n");
        let _ = writeln!(text, ".TH \"{title}\" {section} \"{date}\" \"execwatch {version}\" \"{manual}\"");
        let mut page = Page { text, headed: false };
        page.section("NAME");
        page.line(&format!("{} \\- {}", escape(name), escape(purpose)));
        page
    }

    /// The source.
    pub(super) fn finish(self) -> String {
        self.text
    }

    pub(super) fn section(&mut self, title: &str) {
        let title = escape(title);
        let _ = writeln!(self.text, ".SH \"{title}\"");
        self.headed = true;
    }

    pub(super) fn subsection(&mut self, title: &str) {
        let title = escape(title);
        let _ = writeln!(self.text, ".SS \"{title}\"");
        self.headed = true;
    }

    /// A paragraph; marks of Markdown inside a line are taken over.
    pub(super) fn paragraph(&mut self, text: &str) {
        self.raw_paragraph(&inline(text));
    }

    /// A paragraph that is escaped already.
    pub(super) fn raw_paragraph(&mut self, text: &str) {
        self.begin_paragraph();
        self.line(text);
    }

    /// An entry of a list of terms: `term` is escaped already, `text` is not.
    pub(super) fn term(&mut self, term: &str, text: &str) {
        self.text.push_str(".TP\n");
        self.line(term);
        self.line(&if text.is_empty() { "\\&".to_owned() } else { inline(text) });
    }

    /// Another paragraph of the last entry.
    pub(super) fn more(&mut self, text: &str) {
        self.text.push_str(".IP\n");
        self.line(&inline(text));
    }

    /// A list inside the last entry.
    pub(super) fn nested(&mut self, terms: &[(String, String)]) {
        self.text.push_str(".RS\n");
        for (term, text) in terms {
            self.term(&bold(term), text);
        }
        self.text.push_str(".RE\n");
    }

    /// An entry of a list: `mark` is a bullet or a number.
    pub(super) fn item(&mut self, mark: &str, text: &str) {
        let mark = if mark == "-" { "\\(bu".to_owned() } else { escape(mark) };
        let _ = writeln!(self.text, ".IP \"{mark}\" 3");
        self.line(&inline(text));
    }

    /// Lines as they are.
    pub(super) fn code(&mut self, lines: &[&str]) {
        self.begin_paragraph();
        self.text.push_str(".RS 4\n.nf\n");
        for line in lines {
            if line.is_empty() {
                self.text.push_str("\\&\n");
            } else {
                self.line(&escape(line));
            }
        }
        self.text.push_str(".fi\n.RE\n");
    }

    fn begin_paragraph(&mut self) {
        if !self.headed {
            self.text.push_str(".PP\n");
        }
    }

    fn line(&mut self, text: &str) {
        self.headed = false;
        // A line that begins so would be a request.
        if text.starts_with(['.', '\'']) {
            self.text.push_str("\\&");
        }
        self.text.push_str(text);
        self.text.push('\n');
    }
}

/// `text` in bold, escaped.
pub(super) fn bold(text: &str) -> String {
    format!("\\fB{}\\fR", escape(text))
}

/// `text` in italics, escaped.
pub(super) fn italic(text: &str) -> String {
    format!("\\fI{}\\fR", escape(text))
}

/// Text as the formatter shall show it: ASCII, and no character that it would take for another (groff_char(7)).
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\\' => escaped.push_str("\\e"),
            '-' => escaped.push_str("\\-"),
            '\'' => escaped.push_str("\\(aq"),
            '`' => escaped.push_str("\\(ga"),
            '^' => escaped.push_str("\\(ha"),
            '~' => escaped.push_str("\\(ti"),
            '"' => escaped.push_str("\\(dq"),
            ' '..='~' => escaped.push(c),
            '\n' | '\t' => escaped.push(' '),
            c => {
                let _ = write!(escaped, "\\[u{:04X}]", u32::from(c));
            }
        }
    }
    escaped
}

/// Escapes a text with the marks of Markdown: `code` and **strong** become bold, of [text](link) the text stays.
pub(super) fn inline(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['`', '*', '[']) {
        let (plain, marked) = rest.split_at(at);
        out.push_str(&escape(plain));
        let taken = enclosed(marked, "`", "`")
            .map(|(inner, after)| (bold(inner), after))
            .or_else(|| enclosed(marked, "**", "**").map(|(inner, after)| (strong(inner), after)))
            .or_else(|| link(marked).map(|(inner, after)| (inline(inner), after)));
        rest = match taken {
            Some((shown, after)) => {
                out.push_str(&shown);
                after
            }
            None => {
                let mut characters = marked.chars();
                out.push_str(&escape(&characters.by_ref().take(1).collect::<String>()));
                characters.as_str()
            }
        };
    }
    out.push_str(&escape(rest));
    out
}

/// What stands between `open` and `close` at the beginning of `text`, and what comes after.
fn enclosed<'t>(text: &'t str, open: &str, close: &str) -> Option<(&'t str, &'t str)> {
    let (inner, after) = text.strip_prefix(open)?.split_once(close)?;
    (!inner.is_empty() && !inner.starts_with(' ')).then_some((inner, after))
}

/// Bold, with code inside.
fn strong(text: &str) -> String {
    bold(&text.replace('`', ""))
}

fn link(text: &str) -> Option<(&str, &str)> {
    let (inner, after) = text.strip_prefix('[')?.split_once("](")?;
    let (_, after) = after.split_once(')')?;
    (!inner.contains(']')).then_some((inner, after))
}
