//! Bytes of a process's choosing as text that cannot forge anything.
//!
//! Kept as they are: printable characters of valid UTF-8. Everything else is written as an escape: control characters
//! (also those of 8 bits, which some terminals obey), characters that change the direction of text, line and paragraph
//! separators, and bytes that are no UTF-8.

use std::fmt::Write;

use serde::Serialize;
use serde_json::ser::Formatter;

/// Text with escapes, and where it may be cut without splitting one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Escaped {
    text: String,
    /// Where each character or escape begins.
    starts: Vec<usize>,
}

impl Escaped {
    /// Escapes bytes for a quoted value: quotation marks and backslashes too.
    pub fn new(bytes: &[u8]) -> Self {
        let mut escaped = Escaped::default();
        for chunk in bytes.utf8_chunks() {
            for character in chunk.valid().chars() {
                escaped.starts.push(escaped.text.len());
                push(&mut escaped.text, character);
            }
            for byte in chunk.invalid() {
                escaped.starts.push(escaped.text.len());
                push_byte(&mut escaped.text, *byte);
            }
        }
        escaped
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Cuts it in the middle so that it has at most `limit` bytes, with a mark that says how many bytes are missing.
    /// Returns whether anything was cut.
    pub fn shorten(&mut self, limit: usize) -> bool {
        if self.text.len() <= limit {
            return false;
        }
        // The mark is longest for the whole text.
        let mark = |missing: usize| format!("[...{missing} bytes...]");
        let room = limit.saturating_sub(mark(self.text.len()).len());
        let head = self.floor(room.div_ceil(2));
        let tail = self.ceil(self.text.len() - (room - room.div_ceil(2)));
        let shortened = format!("{}{}{}", &self.text[..head], mark(tail - head), &self.text[tail..]);
        *self = Escaped { starts: vec![0], text: shortened };
        true
    }

    /// The last place at or before `index` where a character begins.
    fn floor(&self, index: usize) -> usize {
        let after = self.starts.partition_point(|&start| start <= index);
        after.checked_sub(1).map_or(0, |at| self.starts[at])
    }

    /// The first place at or after `index` where a character begins, or the end.
    fn ceil(&self, index: usize) -> usize {
        let at = self.starts.partition_point(|&start| start < index);
        self.starts.get(at).copied().unwrap_or(self.text.len())
    }
}

/// True for characters that must not reach a terminal or a log as they are.
pub fn is_unprintable(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            // The soft hyphen, which is not seen, and the Arabic letter mark, which changes the direction.
            '\u{ad}' | '\u{61c}'
            // Zero-width and direction marks, line and paragraph separator, isolates, byte order mark, tags.
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'
        )
}

fn push(text: &mut String, character: char) {
    match character {
        '"' => text.push_str("\\\""),
        '\\' => text.push_str("\\\\"),
        '\n' => text.push_str("\\n"),
        '\r' => text.push_str("\\r"),
        '\t' => text.push_str("\\t"),
        character if character.is_ascii_control() => push_byte(text, character as u8),
        character if is_unprintable(character) => {
            // Writing to a string cannot fail.
            let _ = write!(text, "\\u{{{:x}}}", u32::from(character));
        }
        character => text.push(character),
    }
}

fn push_byte(text: &mut String, byte: u8) {
    let _ = write!(text, "\\x{byte:02x}");
}

/// Bytes as a string for JSON: valid UTF-8 as it is (the writer escapes what is unprintable), other bytes as `\xNN`. A
/// text that looks like such an escape has its backslash written as `\x5c`, so that [`of_json`] gives the bytes back.
pub fn for_json(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        let mut rest = chunk.valid();
        while let Some(at) = rest.find("\\x") {
            let (before, escape) = rest.split_at(at);
            text.push_str(before);
            rest = &escape[1..];
            if byte_escape(escape.as_bytes()).is_some() {
                push_byte(&mut text, b'\\');
            } else {
                text.push('\\');
            }
        }
        text.push_str(rest);
        for byte in chunk.invalid() {
            push_byte(&mut text, *byte);
        }
    }
    text
}

/// Bytes as printable text for forms that have an escape of their own for their delimiters: what is unprintable, and bytes
/// that are no UTF-8, as `\xNN`, byte by byte. [`of_json`] gives the bytes back.
pub fn printable(bytes: &[u8]) -> String {
    let mut text = for_json(bytes);
    if text.contains(is_unprintable) {
        let escaped = text.chars().fold(String::with_capacity(text.len() + 16), |mut text, character| {
            if is_unprintable(character) {
                character.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| push_byte(&mut text, byte));
            } else {
                text.push(character);
            }
            text
        });
        text = escaped;
    }
    text
}

/// The first bytes of a printable text, at most `limit` of them, without a part of a character or of an escape `\xNN` at
/// the end, and a mark that says how many bytes are missing.
pub fn cut(text: &str, limit: usize) -> std::borrow::Cow<'_, str> {
    if text.len() <= limit {
        return text.into();
    }
    let mark = |missing: usize| format!("[...{missing} bytes]");
    // The mark is longest for the whole text.
    let mut end = limit.saturating_sub(mark(text.len()).len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    // An escape that began up to three bytes before the end would be split.
    let begun = text.as_bytes()[..end].iter().rev().take(3).position(|&byte| byte == b'\\');
    if let Some(back) = begun.filter(|&back| byte_escape(&text.as_bytes()[end - back - 1..]).is_some()) {
        end -= back + 1;
    }
    format!("{}{}", &text[..end], mark(text.len() - end)).into()
}

/// The bytes that [`for_json`] wrote as `text`. Any text is readable: a backslash that begins no escape is itself.
pub fn of_json(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|&byte| byte == b'\\') {
        bytes.extend_from_slice(&rest[..at]);
        rest = &rest[at..];
        match byte_escape(rest) {
            Some(byte) => {
                bytes.push(byte);
                rest = &rest[4..];
            }
            None => {
                bytes.push(b'\\');
                rest = &rest[1..];
            }
        }
    }
    bytes.extend_from_slice(rest);
    bytes
}

/// The byte that an escape `\xNN` at the beginning stands for.
fn byte_escape(text: &[u8]) -> Option<u8> {
    let digit = |digit: &u8| char::from(*digit).to_digit(16);
    match text {
        [b'\\', b'x', high, low, ..] => Some((digit(high)? << 4 | digit(low)?) as u8),
        _ => None,
    }
}

/// A value as one line of JSON, without a newline: what is unprintable is written as `\uNNNN`.
pub fn json_line(value: &impl Serialize) -> String {
    let mut line = Vec::with_capacity(1024);
    let mut serializer = serde_json::Serializer::with_formatter(&mut line, Printable);
    // Neither a map with keys that are no strings nor a failing writer is involved.
    if value.serialize(&mut serializer).is_err() {
        log::error!("a record could not be written as JSON");
    }
    String::from_utf8(line).unwrap_or_default()
}

/// Writes what is unprintable as `\uNNNN`.
struct Printable;

impl Formatter for Printable {
    fn write_string_fragment<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> std::io::Result<()> {
        let mut rest = fragment;
        while let Some((at, character)) =
            rest.char_indices().find(|&(_, character)| is_unprintable(character))
        {
            writer.write_all(&rest.as_bytes()[..at])?;
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                write!(writer, "\\u{unit:04x}")?;
            }
            rest = &rest[at + character.len_utf8()..];
        }
        writer.write_all(rest.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_escaped() {
        let escaped = |bytes: &[u8]| Escaped::new(bytes).text;
        assert_eq!(escaped(b"nc -e /bin/sh"), "nc -e /bin/sh");
        assert_eq!(escaped("h\u{e9} \u{1f600}".as_bytes()), "h\u{e9} \u{1f600}");
        assert_eq!(escaped(b"a\n\"b\\\x1b[2J\x07\x7f"), "a\\n\\\"b\\\\\\x1b[2J\\x07\\x7f");
        assert_eq!(escaped("\u{9b}2J\u{202e}x".as_bytes()), "\\u{9b}2J\\u{202e}x");
        assert_eq!(escaped("\u{61c}a\u{ad}b".as_bytes()), "\\u{61c}a\\u{ad}b");
        assert_eq!(escaped(b"\xff\xc3("), "\\xff\\xc3(");
        assert_eq!(for_json(b"a\xff\n\\"), "a\\xff\n\\");
        assert_eq!(for_json(b"\\xff \\x4 \\\\x41"), "\\x5cxff \\x4 \\\\x5cx41");
    }

    #[test]
    fn cut_in_the_middle() {
        let mut escaped = Escaped::new(&[b'x'; 100]);
        assert!(!escaped.shorten(100));
        assert!(escaped.shorten(40));
        assert_eq!(escaped.text, format!("{}[...77 bytes...]{}", "x".repeat(12), "x".repeat(11)));
    }

    #[test]
    fn printable_and_cut() {
        assert_eq!(printable(b"a=\"b]|\\c\n\x1b[2J\xff"), "a=\"b]|\\c\\x0a\\x1b[2J\\xff");
        assert_eq!(printable("\u{202e}h\u{e9}".as_bytes()), "\\xe2\\x80\\xaeh\u{e9}");
        assert_eq!(cut("short", 5), "short");
        // The mark takes 14 bytes; an escape stays whole.
        let long = "ab\\x1b".repeat(20);
        assert_eq!(cut(&long, 20), "ab\\x1b[...114 bytes]");
        assert_eq!(cut(&long, 19), "ab[...118 bytes]");
        assert_eq!(cut(&"\u{e9}".repeat(50), 17), "\u{e9}[...98 bytes]");
    }

    proptest! {
        #[test]
        fn printable_bytes_come_back(bytes in proptest::collection::vec(any::<u8>(), 0..100), text in r"[\\x4aF\PC]{0,40}", limit in 20usize..60) {
            for bytes in [bytes, text.into_bytes()] {
                let text = printable(&bytes);
                prop_assert!(!text.contains(is_unprintable));
                prop_assert_eq!(&of_json(&text), &bytes);
                let cut = cut(&text, limit);
                prop_assert!(cut.len() <= limit.max(text.len().min(limit)));
                if let Some((kept, _)) = cut.split_once("[...").filter(|_| cut.len() < text.len()) {
                    prop_assert!(bytes.starts_with(&of_json(kept)));
                }
            }
        }

        #[test]
        fn bytes_come_back(bytes in proptest::collection::vec(any::<u8>(), 0..100), text in r"[\\x4aF\PC]{0,40}") {
            prop_assert_eq!(of_json(&for_json(&bytes)), bytes);
            prop_assert_eq!(of_json(&for_json(text.as_bytes())), text.into_bytes());
        }

        #[test]
        fn nothing_forged_and_never_too_long(bytes in proptest::collection::vec(any::<u8>(), 0..300), limit in 24usize..200) {
            let mut escaped = Escaped::new(&bytes);
            escaped.shorten(limit);
            prop_assert!(escaped.text.len() <= limit);
            prop_assert!(!escaped.text.chars().any(is_unprintable));
            // Quotation marks only behind a backslash that is not itself escaped.
            let bytes = escaped.text.as_bytes();
            let mut at = 0;
            while at < bytes.len() {
                prop_assert!(bytes[at] != b'"');
                at += if bytes[at] == b'\\' { 2 } else { 1 };
            }
        }
    }
}
