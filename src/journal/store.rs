//! The segment files: what is found in them at the start, and how records are appended.
//!
//! A segment of an earlier run is only read: what is written begins a new one. So nothing that a crash left is ever
//! touched, and a folder that can only be read can still be sent from.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::folder::Folder;
use super::format::{self, SEGMENT_HEAD, VERSION, segment_head};
use super::scan::{Damage, Scanner};
use super::shared::{Segment, Shared};
use super::sync::Synchroniser;
use super::{number_of_segment, segment_name};
use crate::output::entry::Entry;

/// A place is remembered every so many bytes, so that an output need not read a segment from its beginning.
const MARK_EVERY: u64 = 256 * 1024;
/// Numbers in names of files above this one are not counted on from.
const LAST_NUMBER: u64 = u64::MAX / 2;
/// The buffer of a batch is given back if it was larger.
const KEPT_BUFFER: usize = 1 << 20;

/// The two clocks in seconds: since 1970, and since the host was started.
#[derive(Debug, Clone, Copy)]
pub struct Clocks {
    /// CLOCK_REALTIME.
    pub wall_s: i64,
    /// CLOCK_BOOTTIME.
    pub boot_s: i64,
}

impl Clocks {
    /// Now.
    pub fn now() -> Self {
        let now = crate::clock::now();
        let seconds = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        Clocks { wall_s: seconds(now.wall_s), boot_s: seconds(now.boot_s) }
    }
}

/// What the folder held at the start.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Segments with something in them that an output still wants.
    pub segments: VecDeque<Segment>,
    /// The highest number found, also in the name of a segment that cannot be read.
    pub last: u64,
    /// What was damaged.
    pub damage: Damage,
    /// What else is to be said.
    pub messages: Vec<String>,
}

/// Looks through the folder, and removes what every output has sent: all up to the record `sent`.
pub fn recover(folder: &Folder, sent: u64, clocks: Clocks) -> io::Result<Recovered> {
    let mut found = Recovered::default();
    let firsts: Vec<u64> = folder.names()?.iter().filter_map(|name| number_of_segment(name)).collect();
    for (at, &first) in firsts.iter().enumerate() {
        let name = segment_name(first);
        let limit = firsts.get(at + 1).copied();
        if limit.is_some_and(|limit| limit - 1 <= sent) && !is_of_another_version(folder, &name) {
            // If it cannot be removed, it is tried again at the next start.
            let _ = folder.remove(&name);
            continue;
        }
        match look_through(folder, &name, first, limit.unwrap_or(u64::MAX), clocks) {
            Ok(Looked::Later(version)) => {
                found.pass_by(first);
                found.messages.push(format!(
                    "the journal's segment {name} is left alone: it is of a later version of execwatch ({version}, {VERSION} is known here)"
                ));
            }
            Ok(Looked::Segment(segment, damage)) => {
                found.count(&segment, damage, limit);
                found.last = found.last.max(segment.last);
                if segment.last <= sent || segment.last == 0 {
                    let _ = folder.remove(&name);
                } else {
                    found.segments.push_back(segment);
                }
            }
            Err(error) => {
                found.pass_by(first);
                found.messages.push(format!(
                    "the journal's segment {name} is left alone, and what it holds is not sent: it cannot be read: {error}"
                ));
            }
        }
    }
    Ok(found)
}

impl Recovered {
    /// A segment stays where it is without being read: neither its number nor its name is given again.
    fn pass_by(&mut self, first: u64) {
        // No run comes so far. Whoever puts such a name there must not bring the counting to its end.
        if first <= LAST_NUMBER {
            self.last = self.last.max(first);
        }
    }

    /// What is torn at the end of a segment was being written when somebody was killed, and the next run began with the
    /// same number. If the next segment begins with another, whole records are missing there: that is damage.
    fn count(&mut self, segment: &Segment, damage: Damage, limit: Option<u64>) {
        let Damage { places, bytes, torn } = damage;
        let next = segment.last.max(segment.first.saturating_sub(1)).saturating_add(1);
        self.damage.places += places;
        self.damage.bytes += bytes;
        if torn > 0 && limit.is_some_and(|limit| limit > next) {
            self.damage.places += 1;
            self.damage.bytes += torn;
        } else {
            self.damage.torn += torn;
        }
    }
}

enum Looked {
    Segment(Segment, Damage),
    Later(u32),
}

/// What it holds, and whether that was sent, only the version knows that wrote it.
fn is_of_another_version(folder: &Folder, name: &str) -> bool {
    let mut head = [0; SEGMENT_HEAD];
    let read = folder.open(name).and_then(|file| file.read_exact_at(&mut head, 0));
    read.is_ok() && format::segment_version(&head).is_some_and(|version| version != VERSION)
}

/// Reads a whole segment. Its `last` is 0 if it holds no record.
fn look_through(folder: &Folder, name: &str, first: u64, limit: u64, clocks: Clocks) -> io::Result<Looked> {
    let mut scanner = Scanner::new(folder.open(name)?, 0, first.saturating_sub(1), limit);
    if let Some(version) = scanner.segment_head()?.filter(|&version| version != VERSION) {
        return Ok(Looked::Later(version));
    }
    let mut segment = Segment { first, ..Segment::default() };
    while let Some(found) = scanner.next_entry()? {
        segment.note(found.entry.id.number, found.offset, scanner.offset());
        let made_s = i64::try_from(found.entry.time_ns / 1_000_000_000).unwrap_or(i64::MAX);
        // A record from the future is of today: the clock was set since.
        segment.newest_s = clocks.boot_s.saturating_sub(clocks.wall_s.saturating_sub(made_s).max(0));
    }
    Ok(Looked::Segment(segment, scanner.damage()))
}

impl Segment {
    fn note(&mut self, number: u64, offset: u64, end: u64) {
        if self.marks.last().is_none_or(|&(_, last)| offset >= last + MARK_EVERY) {
            self.marks.push((number, offset));
        }
        self.last = number;
        self.bytes = end;
    }
}

/// The segment that is written to.
#[derive(Debug)]
struct Current {
    file: Arc<File>,
    segment: Segment,
    began_s: i64,
}

/// The writing end.
#[derive(Debug)]
pub struct Store {
    folder: Arc<Folder>,
    /// Bytes of a segment, roughly.
    segment_size: u64,
    /// Seconds after which a new segment is begun.
    segment_age_s: i64,
    current: Option<Current>,
    /// A file without records that this run made and could not remove.
    left: Option<u64>,
    buffer: Vec<u8>,
    synchroniser: Synchroniser,
    /// All up to this record were written, or will never be.
    saved: u64,
}

impl Store {
    /// Writes to a folder.
    pub fn new(
        folder: Arc<Folder>,
        segment_size: u64,
        segment_age_s: i64,
        saved: u64,
        synchroniser: Synchroniser,
    ) -> Store {
        Store {
            folder,
            segment_size,
            segment_age_s,
            current: None,
            left: None,
            buffer: Vec::new(),
            synchroniser,
            saved,
        }
    }

    /// All up to this record were written, or will never be.
    pub fn saved(&self) -> u64 {
        self.saved
    }

    /// Appends those records that are not written yet, and tells the readers. If it fails, what was written before stays.
    pub fn append(&mut self, entries: &[Arc<Entry>], shared: &Shared, now_s: i64) -> io::Result<()> {
        let from = entries.partition_point(|entry| entry.id.number <= self.saved);
        let mut rest = entries.get(from..).unwrap_or_default();
        while let Some(first) = rest.first() {
            let number = first.id.number;
            let current = match self.current.take() {
                Some(current) if !self.is_full(&current, now_s) => self.current.insert(current),
                _ => {
                    let file = self.begin(number)?;
                    let segment = Segment { first: number, bytes: SEGMENT_HEAD as u64, ..Segment::default() };
                    self.current.insert(Current { file: Arc::new(file), segment, began_s: now_s })
                }
            };
            let mut segment = current.segment.clone();
            let before = segment.bytes;
            self.buffer.clear();
            let mut count = 0;
            for entry in rest {
                let offset = before + self.buffer.len() as u64;
                if count > 0 && offset >= self.segment_size {
                    break;
                }
                format::write(entry, &mut self.buffer);
                segment.note(entry.id.number, offset, before + self.buffer.len() as u64);
                count += 1;
            }
            segment.newest_s = now_s;
            if let Err(error) = current.file.write_all_at(&self.buffer, before) {
                // What is behind the end is not read, and the next attempt writes over it; if it can, the room is given
                // back, because the disk may be full.
                if current.file.set_len(before).is_err() || before == SEGMENT_HEAD as u64 {
                    self.abandon();
                }
                return Err(error);
            }
            current.segment = segment;
            self.saved = current.segment.last;
            self.synchroniser.note(&current.file);
            let published = current.segment.clone();
            let mut state = shared.lock();
            match state.segments.back_mut() {
                Some(last) if last.first == published.first => *last = published,
                _ => state.segments.push_back(published),
            }
            drop(state);
            rest = rest.get(count..).unwrap_or_default();
        }
        self.buffer.clear();
        self.buffer.shrink_to(KEPT_BUFFER);
        Ok(())
    }

    fn is_full(&self, current: &Current, now_s: i64) -> bool {
        current.segment.bytes >= self.segment_size || now_s - current.began_s >= self.segment_age_s
    }

    /// Makes the file of a segment that begins with this record. A file that has its name already is replaced only if this
    /// run made it, in an attempt that failed; another's stays, and that is an error.
    fn begin(&mut self, first: u64) -> io::Result<File> {
        let name = segment_name(first);
        if self.left == Some(first) {
            self.remove_empty(first);
        }
        let file = self.folder.create(&name)?;
        if let Err(error) = file.write_all_at(&segment_head(), 0) {
            self.remove_empty(first);
            return Err(error);
        }
        Ok(file)
    }

    /// Removes a file of this run that holds no record; if it cannot be, that is remembered.
    fn remove_empty(&mut self, first: u64) {
        let is_there = match self.folder.remove(&segment_name(first)) {
            Ok(()) => false,
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        };
        self.left = is_there.then_some(first);
    }

    /// Lets go of a segment that cannot be written to; if it holds no record, it is removed.
    fn abandon(&mut self) {
        if let Some(current) = self.current.take()
            && current.segment.last == 0
        {
            self.remove_empty(current.segment.first);
        }
    }

    /// Records up to this one will not be written any more, because nobody wants them.
    pub fn skip_to(&mut self, number: u64) {
        self.saved = self.saved.max(number);
    }

    /// Removes the first segment.
    pub fn remove_first(&mut self, shared: &Shared) {
        let Some(segment) = shared.lock().segments.pop_front() else { return };
        if self.current.as_ref().is_some_and(|current| current.segment.first == segment.first) {
            self.current = None;
        }
        if let Err(error) = self.folder.remove(&segment_name(segment.first)) {
            log::debug!("the journal's segment {} cannot be removed: {error}", segment_name(segment.first));
        }
    }

    /// True for the first segment if it is being written to.
    pub fn writes_to_first(&self, shared: &Shared) -> bool {
        let first = shared.lock().segments.front().map(|segment| segment.first);
        self.current.as_ref().is_some_and(|current| first == Some(current.segment.first))
    }

    /// Writes everything to the disk, and waits for it.
    pub fn close(self) {
        self.synchroniser.close();
    }
}
