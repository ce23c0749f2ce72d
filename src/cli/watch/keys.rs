//! From the bytes of a terminal to keys.

/// A key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    Letter(char),
}

/// Bytes of a sequence: a longer one is none.
const LONGEST: usize = 8;

/// Takes the keys out of what was received; the beginning of a sequence stays for the rest of it.
pub(super) fn take(received: &mut Vec<u8>) -> Vec<Key> {
    let mut keys = Vec::new();
    let mut rest = received.as_slice();
    while let [first, after @ ..] = rest {
        match (first, after) {
            (0x1b, [b'[' | b'O', sequence @ ..]) => {
                let Some(end) = sequence.iter().position(|byte| (0x40..=0x7e).contains(byte)) else {
                    if sequence.len() < LONGEST {
                        break;
                    }
                    rest = &[];
                    continue;
                };
                keys.extend(key(&sequence[..=end]));
                rest = &sequence[end + 1..];
            }
            // The escape key by itself, or with another.
            (0x1b, []) => break,
            (0x1b, _) => rest = after,
            // ^C and ^D end a program that does not take the terminal for itself.
            (3 | 4, _) => {
                keys.push(Key::Letter('q'));
                rest = after;
            }
            (byte, _) => {
                keys.extend((0x20..0x7f).contains(byte).then(|| Key::Letter(char::from(*byte))));
                rest = after;
            }
        }
    }
    *received = rest.to_vec();
    keys
}

/// The key of what follows the introducer.
fn key(sequence: &[u8]) -> Option<Key> {
    match sequence {
        b"A" => Some(Key::Up),
        b"B" => Some(Key::Down),
        b"5~" => Some(Key::PageUp),
        b"6~" => Some(Key::PageDown),
        b"H" | b"1~" | b"7~" => Some(Key::Home),
        b"F" | b"4~" | b"8~" => Some(Key::End),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_are_keys_also_in_parts() {
        let mut received = b"a\x1b[A\x1bOB\x1b[5~\x1b[1;5C\x03\xc3\x1b[".to_vec();
        let keys = [Key::Letter('a'), Key::Up, Key::Down, Key::PageUp, Key::Letter('q')];
        assert_eq!(take(&mut received), keys);
        assert_eq!(received, b"\x1b[");
        received.extend(b"Fq");
        assert_eq!(take(&mut received), [Key::End, Key::Letter('q')]);
        received.extend(b"\x1b[0000000000000");
        assert_eq!(take(&mut received), []);
        assert!(received.is_empty());
        received.extend(b"\x1b");
        assert_eq!(take(&mut received), []);
        received.extend(b"r");
        assert_eq!(take(&mut received), [Key::Letter('r')]);
    }
}
