//! Entries out of a segment, past whatever is damaged.

use std::io::{self, Read};

use super::format::{HEAD, Head, MARK, SEGMENT_HEAD, segment_version};
use crate::output::entry::Entry;

/// Bytes read at a time.
const CHUNK: usize = 64 * 1024;

/// What could not be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Damage {
    /// Places where something else stood than an entry.
    pub places: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of an entry at the end that was not written to its end: somebody was killed meanwhile.
    pub torn: u64,
}

/// An entry and its place.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    /// The entry.
    pub entry: Entry,
    /// Where it begins, in bytes from the beginning of the segment.
    pub offset: u64,
}

/// Reads a segment from one of its entries on. It takes time in proportion to the bytes, whatever they are: where a
/// head is right, its length is believed, and elsewhere each byte is looked at once.
#[derive(Debug)]
pub struct Scanner<R> {
    source: R,
    buffer: Vec<u8>,
    /// Where in the buffer that begins which was not looked at.
    start: usize,
    /// Its place in the segment.
    offset: u64,
    /// Entries have ascending numbers above this one.
    last: u64,
    /// Before this number another segment begins.
    limit: u64,
    damage: Damage,
    damaged_now: bool,
}

impl<R: Read> Scanner<R> {
    /// Reads from `offset`, at which the source must stand, entries with numbers above `last` and below `limit`.
    pub fn new(source: R, offset: u64, last: u64, limit: u64) -> Self {
        Scanner {
            source,
            buffer: Vec::new(),
            start: 0,
            offset,
            last,
            limit,
            damage: Damage::default(),
            damaged_now: false,
        }
    }

    /// What was damaged until here.
    pub fn damage(&self) -> Damage {
        self.damage
    }

    /// Where it stands, in bytes from the beginning of the segment.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Where the bytes come from, to let more of them be read.
    pub fn source(&mut self) -> &mut R {
        &mut self.source
    }

    /// Passes over the segment's header; the version, if it is undamaged. A damaged one is passed over with the first
    /// entry that is looked for.
    pub fn segment_head(&mut self) -> io::Result<Option<u32>> {
        self.fill(SEGMENT_HEAD)?;
        let version = segment_version(self.rest());
        if version.is_some() {
            self.advance(SEGMENT_HEAD);
        }
        Ok(version)
    }

    /// The next entry; `None` at the end.
    pub fn next_entry(&mut self) -> io::Result<Option<Found>> {
        loop {
            let have = self.fill(HEAD)?;
            if have < HEAD {
                // What is left of a damaged place is part of that.
                let what = if self.damaged_now { &mut self.damage.bytes } else { &mut self.damage.torn };
                *what += have as u64;
                self.advance(have);
                return Ok(None);
            }
            let Some(head) = Head::read(self.rest()) else {
                self.skip_to_mark();
                continue;
            };
            let whole = HEAD + head.length;
            let have = self.fill(whole)?;
            if have < whole {
                self.damage.torn += have as u64;
                self.advance(have);
                return Ok(None);
            }
            let offset = self.offset;
            let body = self.rest().get(HEAD..whole).unwrap_or_default();
            let in_order = head.id.number > self.last && head.id.number < self.limit;
            match head.entry(body).filter(|_| in_order) {
                Some(entry) => {
                    self.last = head.id.number;
                    self.damaged_now = false;
                    self.advance(whole);
                    return Ok(Some(Found { entry, offset }));
                }
                None => self.skip(whole),
            }
        }
    }

    fn rest(&self) -> &[u8] {
        self.buffer.get(self.start..).unwrap_or_default()
    }

    /// Makes sure that so many bytes can be looked at, if there are; how many can.
    fn fill(&mut self, wanted: usize) -> io::Result<usize> {
        while self.rest().len() < wanted {
            self.buffer.drain(..self.start);
            self.start = 0;
            let before = self.buffer.len();
            // Not all at once of what a head promises: the file may be shorter.
            self.buffer.resize(before + CHUNK, 0);
            let read = self.source.read(&mut self.buffer[before..]);
            let count = *read.as_ref().unwrap_or(&0);
            self.buffer.truncate(before + count);
            match read {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.rest().len())
    }

    fn advance(&mut self, bytes: usize) {
        self.start += bytes;
        self.offset += bytes as u64;
    }

    fn skip(&mut self, bytes: usize) {
        if !std::mem::replace(&mut self.damaged_now, true) {
            self.damage.places += 1;
        }
        self.damage.bytes += bytes as u64;
        self.advance(bytes);
    }

    fn skip_to_mark(&mut self) {
        let rest = self.rest();
        let found = rest.windows(MARK.len()).skip(1).position(|window| window == MARK);
        // A mark may begin in the last bytes.
        let bytes = found.map_or_else(|| rest.len() - (MARK.len() - 1), |at| at + 1);
        self.skip(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::format::{self, segment_head};

    fn segment(numbers: std::ops::Range<u64>) -> Vec<u8> {
        let mut bytes = segment_head().to_vec();
        for number in numbers {
            format::write(&format::tests::entry(number, &"x".repeat(number as usize * 7)), &mut bytes);
        }
        bytes
    }

    fn scanned(bytes: &[u8]) -> (Vec<u64>, Damage) {
        let mut scanner = Scanner::new(bytes, 0, 0, u64::MAX);
        scanner.segment_head().unwrap();
        let mut numbers = Vec::new();
        while let Some(found) = scanner.next_entry().unwrap() {
            let mut written = Vec::new();
            format::write(&found.entry, &mut written);
            assert!(bytes[found.offset as usize..].starts_with(&written));
            numbers.push(found.entry.id.number);
        }
        assert_eq!(scanner.offset(), bytes.len() as u64);
        (numbers, scanner.damage())
    }

    #[test]
    fn a_whole_segment() {
        assert_eq!(scanned(&segment(1..20)), ((1..20).collect(), Damage::default()));
        assert_eq!(scanned(&segment(1..1)), (vec![], Damage::default()));
        assert_eq!(scanned(b""), (vec![], Damage::default()));
    }

    #[test]
    fn a_torn_tail_takes_only_itself() {
        let (whole, shorter) = (segment(1..4), segment(1..3));
        for end in shorter.len()..whole.len() {
            let (numbers, damage) = scanned(&whole[..end]);
            assert_eq!(numbers, [1, 2]);
            assert_eq!(damage, Damage { torn: (end - shorter.len()) as u64, ..Damage::default() });
        }
    }

    #[test]
    fn one_flipped_bit_takes_one_entry_at_most() {
        let whole = segment(1..5);
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x20;
            let (numbers, damage) = scanned(&damaged);
            assert!(numbers.len() >= 3 && numbers.is_sorted(), "byte {at}: {numbers:?}");
            assert_eq!(damage.places + u64::from(damage.torn > 0), 1, "byte {at}: {damage:?}");
        }
    }

    #[test]
    fn what_stands_between_is_skipped() {
        let mut bytes = segment(1..3);
        let more = segment(3..5);
        bytes.extend(std::iter::repeat_n(0, 100_000));
        bytes.extend(MARK);
        bytes.extend(&more[SEGMENT_HEAD..]);
        let (numbers, damage) = scanned(&bytes);
        assert_eq!((numbers, damage.places, damage.bytes), (vec![1, 2, 3, 4], 1, 100_004));
    }

    #[test]
    fn numbers_ascend_and_stay_in_their_segment() {
        let mut bytes = segment(4..6);
        bytes.extend(&segment(2..5)[SEGMENT_HEAD..]);
        bytes.extend(&segment(6..9)[SEGMENT_HEAD..]);
        let mut scanner = Scanner::new(&bytes[..], 0, 3, 7);
        scanner.segment_head().unwrap();
        let mut numbers = Vec::new();
        while let Some(found) = scanner.next_entry().unwrap() {
            numbers.push(found.entry.id.number);
        }
        assert_eq!((numbers, scanner.damage().places), (vec![4, 5, 6], 2));
    }
}
