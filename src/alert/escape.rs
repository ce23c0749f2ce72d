//! Bytes of a process's choosing as text that cannot forge anything.
//!
//! Kept as they are: printable characters of valid UTF-8. Everything else is written as an escape: control characters
//! (also those of 8 bits, which some terminals obey), characters that change the direction of text, line and paragraph
//! separators, and bytes that are no UTF-8.

use std::fmt::Write;

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
            // Zero-width and direction marks, line and paragraph separator, isolates, byte order mark, tags.
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
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

/// Bytes as a string for JSON: valid UTF-8 as it is (the writer escapes what is unprintable), other bytes as `\xNN`.
pub fn for_json(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            push_byte(&mut text, *byte);
        }
    }
    text
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
        assert_eq!(escaped(b"\xff\xc3("), "\\xff\\xc3(");
        assert_eq!(for_json(b"a\xff\n\\"), "a\\xff\n\\");
    }

    #[test]
    fn cut_in_the_middle() {
        let mut escaped = Escaped::new(&[b'x'; 100]);
        assert!(!escaped.shorten(100));
        assert!(escaped.shorten(40));
        assert_eq!(escaped.text, format!("{}[...77 bytes...]{}", "x".repeat(12), "x".repeat(11)));
    }

    proptest! {
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
