//! Lines of a stream, in bounded memory.

use std::io::{self, BufRead};

use super::LONGEST_LINE;

/// A buffer larger than this is given back after its line.
const KEPT: usize = 1 << 20;

/// A line.
#[derive(Debug, PartialEq, Eq)]
pub enum Line<'l> {
    /// Without its newline.
    Whole(&'l [u8]),
    /// It was longer than [`LONGEST_LINE`] and has been passed over.
    TooLong,
}

/// Lines of a stream.
#[derive(Debug)]
pub struct Lines<R> {
    input: R,
    buffer: Vec<u8>,
    /// Bytes read.
    read: u64,
    /// The number of the last line.
    number: u64,
}

impl<R: BufRead> Lines<R> {
    /// The lines of `input`.
    pub fn new(input: R) -> Self {
        Lines { input, buffer: Vec::new(), read: 0, number: 0 }
    }

    /// The number of the last line, from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// How many bytes have been read.
    pub fn bytes_read(&self) -> u64 {
        self.read
    }

    /// The next line; `None` at the end. The last line needs no newline.
    pub fn next_line(&mut self) -> io::Result<Option<Line<'_>>> {
        self.buffer.clear();
        self.buffer.shrink_to(KEPT);
        let mut too_long = false;
        let mut anything = false;
        loop {
            let available = match self.input.fill_buf() {
                Ok(available) => available,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let newline = available.iter().position(|&byte| byte == b'\n');
            let part = &available[..newline.unwrap_or(available.len())];
            let used = part.len() + usize::from(newline.is_some());
            if self.buffer.len() + part.len() > LONGEST_LINE {
                too_long = true;
                self.buffer.clear();
            }
            if !too_long {
                self.buffer.extend_from_slice(part);
            }
            anything |= used > 0;
            self.input.consume(used);
            self.read += used as u64;
            if newline.is_some() || used == 0 {
                break;
            }
        }
        if !anything {
            return Ok(None);
        }
        self.number += 1;
        Ok(Some(if too_long { Line::TooLong } else { Line::Whole(&self.buffer) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufReader, Read};

    #[test]
    fn lines_with_and_without_an_end() {
        let mut lines = Lines::new(BufReader::with_capacity(3, &b"first\n\nlast"[..]));
        for expected in [&b"first"[..], b"", b"last"] {
            assert_eq!(lines.next_line().unwrap(), Some(Line::Whole(expected)));
        }
        assert_eq!(lines.next_line().unwrap(), None);
        assert_eq!((lines.number(), lines.bytes_read()), (3, 11));
    }

    #[test]
    fn a_line_too_long_loses_only_itself() {
        let long = io::repeat(b'x').take(LONGEST_LINE as u64 + 1);
        let mut lines = Lines::new(BufReader::new((&b"a\n"[..]).chain(long).chain(&b"\nb\n"[..])));
        assert_eq!(lines.next_line().unwrap(), Some(Line::Whole(b"a")));
        assert_eq!(lines.next_line().unwrap(), Some(Line::TooLong));
        assert!(lines.buffer.capacity() <= LONGEST_LINE * 2);
        assert_eq!(lines.next_line().unwrap(), Some(Line::Whole(b"b")));
        assert!(lines.buffer.capacity() <= KEPT);
    }

    #[test]
    fn the_longest_line_is_read() {
        let long = io::repeat(b'x').take(LONGEST_LINE as u64);
        let mut lines = Lines::new(BufReader::new(long));
        assert!(matches!(lines.next_line().unwrap(), Some(Line::Whole(line)) if line.len() == LONGEST_LINE));
    }
}
