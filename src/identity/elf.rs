//! The build-id of an ELF file: the note that the linker makes from the content, and that a renamed, signed, or lengthened
//! copy keeps.
//!
//! Format: elf(5). Only the beginning of the file is looked at, and every offset in it is the file's own word, so each is
//! checked against what is there.

/// Bytes of a file's beginning that are looked at. Linkers place the note right behind the headers, and this is the page
/// that the kernel itself has just read to execute the file, so that reading it waits for no disk.
pub const HEAD: usize = 4096;
/// Program headers looked at; linkers make about a dozen.
const MOST_SEGMENTS: usize = 64;
/// Notes looked at in a segment.
const MOST_NOTES: usize = 16;

/// A build-id: 20 bytes by default, up to 32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BuildId {
    bytes: [u8; BuildId::LONGEST],
    length: u8,
}

impl BuildId {
    /// Longer ones are no build-ids of any linker.
    const LONGEST: usize = 32;
    /// Shorter ones do not tell programs apart.
    const SHORTEST: usize = 8;

    fn new(own: &[u8]) -> Option<Self> {
        let mut bytes = [0; Self::LONGEST];
        bytes.get_mut(..own.len())?.copy_from_slice(own);
        // A wiped id is the same in many files.
        let telling = own.len() >= Self::SHORTEST && own.iter().any(|&byte| byte != own[0]);
        telling.then_some(BuildId { bytes, length: own.len() as u8 })
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length.into()).unwrap_or(&self.bytes)
    }
}

/// Whether a file that begins so is an ELF file.
pub fn is_elf(head: &[u8]) -> bool {
    head.starts_with(b"\x7fELF")
}

/// The build-id of a file that begins with `head`; `None` if it has none there.
pub fn build_id(head: &[u8]) -> Option<BuildId> {
    let file = Elf::new(head)?;
    let count = usize::from(file.half(file.layout.segments_count)?).min(MOST_SEGMENTS);
    let size = usize::from(file.half(file.layout.segment_size)?);
    let table = file.word(file.layout.segments)?;
    (0..count).find_map(|number| {
        let at = table.checked_add(number.checked_mul(size)?)?;
        /// `PT_NOTE`
        const NOTE: u32 = 4;
        if file.int(at)? != NOTE {
            return None;
        }
        let offset = file.word(at.checked_add(file.layout.offset)?)?;
        let length = file.word(at.checked_add(file.layout.length)?)?;
        let end = offset.checked_add(length)?.min(head.len());
        file.note(head.get(offset..end)?)
    })
}

/// Where members stand in the headers of a class.
struct Layout {
    wide: bool,
    segments: usize,
    segment_size: usize,
    segments_count: usize,
    offset: usize,
    length: usize,
}

const NARROW: Layout =
    Layout { wide: false, segments: 28, segment_size: 42, segments_count: 44, offset: 4, length: 16 };
const WIDE: Layout =
    Layout { wide: true, segments: 32, segment_size: 54, segments_count: 56, offset: 8, length: 32 };

struct Elf<'h> {
    head: &'h [u8],
    layout: &'static Layout,
    big_endian: bool,
}

impl<'h> Elf<'h> {
    fn new(head: &'h [u8]) -> Option<Self> {
        let layout = match head.get(4)? {
            1 => &NARROW,
            2 => &WIDE,
            _ => return None,
        };
        let big_endian = match head.get(5)? {
            1 => false,
            2 => true,
            _ => return None,
        };
        is_elf(head).then_some(Elf { head, layout, big_endian })
    }

    fn bytes<const N: usize>(&self, from: &[u8], at: usize) -> Option<[u8; N]> {
        let mut bytes: [u8; N] = from.get(at..at.checked_add(N)?)?.try_into().ok()?;
        if self.big_endian {
            bytes.reverse();
        }
        Some(bytes)
    }

    fn half(&self, at: usize) -> Option<u16> {
        self.bytes(self.head, at).map(u16::from_le_bytes)
    }

    fn int(&self, at: usize) -> Option<u32> {
        self.bytes(self.head, at).map(u32::from_le_bytes)
    }

    /// An offset or size of the file's class.
    fn word(&self, at: usize) -> Option<usize> {
        let word = if self.layout.wide {
            u64::from_le_bytes(self.bytes(self.head, at)?)
        } else {
            u32::from_le_bytes(self.bytes(self.head, at)?).into()
        };
        word.try_into().ok()
    }

    /// The build-id among the notes of a segment.
    fn note(&self, notes: &[u8]) -> Option<BuildId> {
        /// `NT_GNU_BUILD_ID`
        const BUILD_ID: u32 = 3;
        let mut at = 0usize;
        for _ in 0..MOST_NOTES {
            let int = |at: usize| self.bytes(notes, at).map(u32::from_le_bytes);
            let name_length = usize::try_from(int(at)?).ok()?;
            let length = usize::try_from(int(at.checked_add(4)?)?).ok()?;
            let kind = int(at.checked_add(8)?)?;
            let name = at.checked_add(12)?;
            let content = name.checked_add(name_length)?.checked_next_multiple_of(4)?;
            let end = content.checked_add(length)?;
            if kind == BUILD_ID && notes.get(name..name.checked_add(name_length)?)? == b"GNU\0" {
                return BuildId::new(notes.get(content..end)?);
            }
            at = end.checked_next_multiple_of(4)?;
        }
        None
    }
}

/// A build-id for tests of other modules.
#[cfg(test)]
pub(super) fn tests_build_id() -> Option<BuildId> {
    BuildId::new(b"0123456789abcdefghij")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An ELF file of one note segment.
    fn file(wide: bool, big_endian: bool, notes: &[u8]) -> Vec<u8> {
        let number = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            if big_endian {
                bytes.reverse();
            }
            bytes
        };
        let word = |value: u64| {
            if wide { number(&value.to_le_bytes()) } else { number(&(value as u32).to_le_bytes()) }
        };
        let layout = if wide { &WIDE } else { &NARROW };
        let mut bytes = vec![0; 128];
        let mut put = |at: usize, value: Vec<u8>| bytes[at..at + value.len()].copy_from_slice(&value);
        put(0, b"\x7fELF".to_vec());
        put(4, vec![if wide { 2 } else { 1 }, if big_endian { 2 } else { 1 }]);
        put(layout.segments, word(64));
        put(layout.segment_size, number(&56u16.to_le_bytes()));
        put(layout.segments_count, number(&1u16.to_le_bytes()));
        put(64, number(&4u32.to_le_bytes()));
        put(64 + layout.offset, word(128));
        put(64 + layout.length, word(notes.len() as u64));
        bytes.extend(notes);
        bytes
    }

    fn note(big_endian: bool, name: &[u8], kind: u32, content: &[u8]) -> Vec<u8> {
        let numbers = [name.len() as u32, content.len() as u32, kind];
        let mut note: Vec<u8> = numbers
            .iter()
            .flat_map(|number| if big_endian { number.to_be_bytes() } else { number.to_le_bytes() })
            .collect();
        for part in [name, content] {
            note.extend(part);
            note.resize(note.len().next_multiple_of(4), 0);
        }
        note
    }

    const ID: [u8; 20] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20];

    #[test]
    fn the_note_is_found_in_every_class_and_order() {
        for (wide, big_endian) in [(false, false), (false, true), (true, false), (true, true)] {
            let notes = [note(big_endian, b"GNU\0", 5, &[0; 7]), note(big_endian, b"GNU\0", 3, &ID)].concat();
            let found = build_id(&file(wide, big_endian, &notes));
            assert_eq!(found.unwrap().as_bytes(), ID, "{wide} {big_endian}");
        }
    }

    #[test]
    fn what_is_no_build_id() {
        let of = |notes: &[u8]| build_id(&file(true, false, notes));
        assert_eq!(of(&note(false, b"Go\0\0", 3, &ID)), None);
        assert_eq!(of(&note(false, b"GNU\0", 4, &ID)), None);
        assert_eq!(of(&note(false, b"GNU\0", 3, &[0; 20])), None);
        assert_eq!(of(&note(false, b"GNU\0", 3, &ID[..4])), None);
        assert_eq!(of(&note(false, b"GNU\0", 3, &[ID, ID].concat())), None);
        assert_eq!(of(&note(false, b"GNU\0", 3, &ID)[..30]), None);
        assert_eq!(build_id(b"#!/bin/sh\n"), None);
        assert_eq!(build_id(b"\x7fELF"), None);
    }

    #[test]
    fn a_file_of_this_host() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        assert!(is_elf(&own));
        // Whether it has one is the linker's choice.
        let _ = build_id(&own[..HEAD]);
    }

    proptest! {
        #[test]
        fn any_bytes_end(mut head in proptest::collection::vec(any::<u8>(), 0..300), wide: bool, big_endian: bool) {
            let start = file(wide, big_endian, &[]);
            let _ = build_id(&head);
            // The same behind a good beginning, where it is taken for headers and notes.
            for (byte, own) in head.iter_mut().zip(&start[..6]) {
                *byte = *own;
            }
            let _ = build_id(&head);
            let _ = build_id(&file(wide, big_endian, &head));
        }

        #[test]
        fn any_change_of_a_header_ends(at in 6usize..180, value: u8) {
            let mut bytes = file(true, false, &note(false, b"GNU\0", 3, &ID));
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
            if let Some(found) = build_id(&bytes) {
                prop_assert!((8..=32).contains(&found.as_bytes().len()));
            }
        }
    }
}
