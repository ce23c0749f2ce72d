//! How records lie in a segment file.
//!
//! A header, then entries one after another. An entry says its own length and number, and has two checksums: one of its
//! head, so that the length can be trusted when the body cannot, and one of the body. It begins with bytes that occur in
//! no text, so that behind a damaged place the next entry can be found. All numbers are little-endian.
//!
//! Pure: no I/O. Reading is total: any bytes are answered with an entry or with `None`.

use super::crc::crc32c;
use crate::alert::RecordId;
use crate::output::entry::{Entry, Form, Kind};
use crate::rules::model::{SEVERITIES, Severity};

const MAGIC: [u8; 8] = *b"execwjnl";
/// Version of what follows the magic bytes.
pub const VERSION: u32 = 1;
/// Bytes of a segment's header: magic bytes, version, checksum of both.
pub const SEGMENT_HEAD: usize = 16;

/// Where an entry begins: not UTF-8, which all the rest of a body is.
pub const MARK: [u8; 4] = [0xf7, 0xe3, 0xff, 0xc1];
/// Bytes before an entry's body: mark, length of the body, run, number, time, severity, kind, two zeros, checksum of the
/// body, checksum of all before.
pub const HEAD: usize = 44;
/// Longest body. [`Entry::new`] keeps records far below.
pub const LARGEST: usize = 64 << 20;

/// A segment's header.
pub fn segment_head() -> [u8; SEGMENT_HEAD] {
    let mut head = [0; SEGMENT_HEAD];
    head[..8].copy_from_slice(&MAGIC);
    head[8..12].copy_from_slice(&VERSION.to_le_bytes());
    let sum = crc32c(&head[..12]);
    head[12..].copy_from_slice(&sum.to_le_bytes());
    head
}

/// The version of a segment, if this is an undamaged header.
pub fn segment_version(bytes: &[u8]) -> Option<u32> {
    let head = bytes.first_chunk::<SEGMENT_HEAD>()?;
    let (front, sum) = head.split_at(12);
    if front[..8] != MAGIC || crc32c(front).to_le_bytes() != sum {
        return None;
    }
    u32_at(front, 8)
}

/// What an entry says before its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Bytes of the body.
    pub length: usize,
    /// The record's id.
    pub id: RecordId,
    time_ns: u64,
    severity: Severity,
    kind: Kind,
    body_sum: u32,
}

impl Head {
    /// Reads a head; `None` if this is none, or a damaged one.
    pub fn read(bytes: &[u8]) -> Option<Head> {
        let head = bytes.first_chunk::<HEAD>()?;
        if head[..4] != MARK || crc32c(&head[..HEAD - 4]) != u32_at(head, HEAD - 4)? {
            return None;
        }
        let length = usize::try_from(u32_at(head, 4)?).ok().filter(|&length| length <= LARGEST)?;
        Some(Head {
            length,
            id: RecordId { run: u64_at(head, 8)?, number: u64_at(head, 16)? },
            time_ns: u64_at(head, 24)?,
            severity: SEVERITIES.get(usize::from(head[32]))?.1,
            kind: Kind::ALL.get(usize::from(head[33])).copied()?,
            body_sum: u32_at(head, 36)?,
        })
    }

    /// Reads the body that belongs to this head; `None` if it is damaged.
    pub fn entry(&self, body: &[u8]) -> Option<Entry> {
        if body.len() != self.length || crc32c(body) != self.body_sum {
            return None;
        }
        let (count, mut table) = body.split_first()?;
        let mut forms = Vec::new();
        for _ in 0..*count {
            let (name, rest) = split(table)?;
            let (start, rest) = (u32_at(rest, 0)?, rest.get(4..)?);
            let (length, rest) = (u32_at(rest, 0)?, rest.get(4..)?);
            table = rest;
            // A form of a later version is of no use here.
            if let Some(form) = std::str::from_utf8(name).ok().and_then(Form::named) {
                let start = usize::try_from(start).ok()?;
                forms.push((form, start..start.checked_add(usize::try_from(length).ok()?)?));
            }
        }
        let text = std::str::from_utf8(table).ok()?;
        Entry::of_parts(self.id, self.time_ns, self.severity, self.kind, forms, text)
    }
}

/// A part with its length before it.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&length, rest) = bytes.split_first()?;
    rest.split_at_checked(length.into())
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Appends an entry to `out`.
pub fn write(entry: &Entry, out: &mut Vec<u8>) {
    // Forms are few and texts bounded, so none of these numbers is cut.
    let short = |number: usize| u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes();
    let begin = out.len();
    out.extend_from_slice(&[0; HEAD]);
    out.push(u8::try_from(entry.forms().len()).unwrap_or(u8::MAX));
    for (form, place) in entry.forms().iter().take(u8::MAX.into()) {
        let name = form.name();
        out.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(&short(place.start));
        out.extend_from_slice(&short(place.len()));
    }
    out.extend_from_slice(entry.text().as_bytes());
    let body = &out[begin + HEAD..];
    let mut head = [0; HEAD];
    head[..4].copy_from_slice(&MARK);
    head[4..8].copy_from_slice(&short(body.len()));
    head[8..16].copy_from_slice(&entry.id.run.to_le_bytes());
    head[16..24].copy_from_slice(&entry.id.number.to_le_bytes());
    head[24..32].copy_from_slice(&entry.time_ns.to_le_bytes());
    head[32] = entry.severity as u8;
    head[33] = entry.kind as u8;
    head[36..40].copy_from_slice(&crc32c(body).to_le_bytes());
    let sum = crc32c(&head[..HEAD - 4]);
    head[40..].copy_from_slice(&sum.to_le_bytes());
    out[begin..begin + HEAD].copy_from_slice(&head);
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::alert::{Host, Notice, Record};

    /// An entry for tests, with some forms.
    pub(in crate::journal) fn entry(number: u64, message: &str) -> Entry {
        let record = Record::Notice(Notice {
            kind: "test",
            severity: Severity::High,
            time_ns: number * 1000,
            message: message.to_owned(),
        });
        let forms = [Form::Text, Form::ShortJson, Form::Json];
        Entry::new(&record, RecordId { run: 7, number }, &forms, &Host::default())
    }

    #[test]
    fn what_is_written_is_read() {
        let entry = entry(5, "hello «world»");
        let mut bytes = Vec::new();
        write(&entry, &mut bytes);
        let head = Head::read(&bytes).unwrap();
        assert_eq!((head.id, head.length), (RecordId { run: 7, number: 5 }, bytes.len() - HEAD));
        assert_eq!(head.entry(&bytes[HEAD..]), Some(entry.clone()));
        // The same text is kept once.
        assert_eq!(entry.form(Form::Json), entry.form(Form::ShortJson));
        assert!(bytes.len() < entry.form(Form::Text).len() + entry.form(Form::Json).len() + 150);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            let read = Head::read(&damaged).and_then(|head| head.entry(&damaged[HEAD..]));
            assert_eq!(read, None, "a change of byte {at} was not noticed");
        }
    }

    #[test]
    fn segment_heads() {
        let head = segment_head();
        assert_eq!(segment_version(&head), Some(VERSION));
        for at in 0..head.len() {
            let mut damaged = head;
            damaged[at] ^= 1;
            assert_eq!(segment_version(&damaged), None);
            assert_eq!(segment_version(&head[..at]), None);
        }
    }
}
