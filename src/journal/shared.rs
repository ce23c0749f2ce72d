//! What the journal's thread and the outputs share: the newest records in memory, and which segments hold the others.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Take};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use crossbeam_channel::Sender;

use super::feed::Feed;
use super::folder::Folder;
use super::scan::Scanner;
use super::segment_name;
use crate::output::entry::Entry;

/// Bytes of records that an output takes at a time.
const BATCH_BYTES: usize = 256 * 1024;

/// A segment, as far as it may be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Segment {
    /// Its name; no record in it has a lower number.
    pub first: u64,
    /// The last record's number.
    pub last: u64,
    /// Up to the end of the last record.
    pub bytes: u64,
    /// Some records and their places, in order: where to begin to look for one.
    pub marks: Vec<(u64, u64)>,
    /// When the last record was made, in seconds since the host was started; before that it is negative.
    pub newest_s: i64,
}

/// What all see.
#[derive(Debug, Default)]
pub struct State {
    /// The number of the next record.
    pub next: u64,
    /// The newest records, without a gap.
    pub tail: VecDeque<Arc<Entry>>,
    /// Bytes of these.
    pub tail_bytes: usize,
    /// The segments in order.
    pub segments: VecDeque<Segment>,
    /// No more records come.
    pub closed: bool,
}

impl State {
    /// The lowest number that is still to be had; the next one if there is none.
    pub fn oldest(&self) -> u64 {
        let kept = self.segments.front().map(|segment| segment.first);
        let tail = self.tail.front().map(|entry| entry.id.number);
        kept.into_iter().chain(tail).min().unwrap_or(self.next)
    }

    /// Takes the oldest record out of memory.
    pub fn shorten_tail(&mut self) {
        if let Some(entry) = self.tail.pop_front() {
            self.tail_bytes -= entry.size();
        }
    }

    fn holds(&self, number: u64) -> bool {
        self.tail.front().is_some_and(|entry| entry.id.number <= number)
            || self.segments.iter().any(|segment| (segment.first..=segment.last).contains(&number))
    }
}

/// The meeting place.
#[derive(Debug, Default)]
pub struct Shared {
    state: Mutex<State>,
    more: Condvar,
    /// Set once, if records are kept in a folder.
    folder: Mutex<Option<Arc<Folder>>>,
    /// Records are being written to the folder.
    pub on_disk: AtomicBool,
    /// Records that were not taken for want of room.
    pub dropped: AtomicU64,
    /// Of these, not said yet.
    pub unsaid: AtomicU64,
    /// The end has begun: nobody waits for room any more.
    pub ending: AtomicBool,
    /// For those who look on.
    pub feed: Arc<Feed>,
    /// Who wants to know each record that is no notice as it was written, by its key. What finds no room is not sent.
    pub sent: OnceLock<Sender<(String, Arc<Entry>)>>,
}

impl Shared {
    /// The state, for a moment.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes all who wait for records.
    pub fn wake(&self) {
        // Whoever looked before the change has not let go of the lock before it waits.
        drop(self.lock());
        self.more.notify_all();
    }

    /// Sets the folder in which the segments are.
    pub fn set_folder(&self, folder: Arc<Folder>) {
        *self.folder.lock().unwrap_or_else(PoisonError::into_inner) = Some(folder);
    }

    /// A record was not taken.
    pub fn drop_records(&self, count: u64) {
        self.dropped.fetch_add(count, Relaxed);
        self.unsaid.fetch_add(count, Relaxed);
    }

    fn open(&self, first: u64) -> io::Result<File> {
        let folder = self.folder.lock().unwrap_or_else(PoisonError::into_inner).clone();
        folder.ok_or(io::ErrorKind::NotFound)?.open(&segment_name(first))
    }
}

/// Where an output reads.
#[derive(Debug)]
pub struct Cursor {
    shared: Arc<Shared>,
    /// The number wanted next.
    next: u64,
    reader: Option<Reader>,
}

/// What came of an attempt to take records.
#[derive(Debug, Default)]
pub struct Taken {
    /// Records that cannot be had any more.
    pub lost: u64,
    /// Why the next records cannot be read now. They count as lost only when they are [given up](Cursor::give_up).
    pub failed: Option<io::Error>,
}

impl Taken {
    fn with(lost: u64) -> Self {
        Taken { lost, failed: None }
    }
}

/// Why a wait for records ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woken {
    /// There is something to be taken, or something else to be looked at.
    Look,
    /// All was taken and no more will come.
    AtEnd,
}

/// Where the next records are.
enum Place {
    Nowhere,
    Memory,
    Segment { first: u64, last: u64, bytes: u64, mark: (u64, u64) },
}

impl Cursor {
    /// Reads from the record after this one on.
    pub fn after(shared: Arc<Shared>, number: u64) -> Cursor {
        Cursor { shared, next: number.saturating_add(1), reader: None }
    }

    /// The number wanted next.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Appends up to `most` records to `into`.
    pub fn take(&mut self, most: usize, into: &mut Vec<Arc<Entry>>) -> Taken {
        let mut lost = 0;
        loop {
            let place = {
                let state = self.shared.lock();
                let place = self.find(&state);
                if let Place::Memory = place {
                    let first = state.tail.front().map_or(state.next, |entry| entry.id.number);
                    lost += first.saturating_sub(self.next);
                    let from = usize::try_from(self.next.saturating_sub(first)).unwrap_or(usize::MAX);
                    let mut bytes = 0;
                    for entry in state.tail.iter().skip(from).take(most) {
                        if bytes > BATCH_BYTES {
                            break;
                        }
                        bytes += entry.size();
                        self.next = entry.id.number + 1;
                        into.push(Arc::clone(entry));
                    }
                    if state.tail.is_empty() {
                        self.next = state.next;
                    }
                }
                place
            };
            match place {
                Place::Nowhere => return Taken::with(lost),
                Place::Memory => {
                    self.reader = None;
                    return Taken::with(lost);
                }
                Place::Segment { first, last, bytes, mark } => {
                    lost += first.saturating_sub(self.next);
                    self.next = self.next.max(first);
                    let (missing, outcome) = self.read(first, bytes, mark, most, into);
                    lost += missing;
                    if !into.is_empty() {
                        return Taken::with(lost);
                    }
                    self.reader = None;
                    match outcome {
                        // A segment that was given up meanwhile is no error: what is missing is counted.
                        Err(error) if error.kind() != io::ErrorKind::NotFound => {
                            return Taken { lost, failed: Some(error) };
                        }
                        // Nothing more can be read of it, although there was something.
                        _ => lost += self.pass(last),
                    }
                }
            }
        }
    }

    /// Passes over what is left of the segment that cannot be read; how many records that are.
    pub fn give_up(&mut self) -> u64 {
        let place = self.find(&self.shared.lock());
        self.reader = None;
        match place {
            Place::Segment { last, .. } => self.pass(last),
            Place::Memory | Place::Nowhere => 0,
        }
    }

    fn pass(&mut self, last: u64) -> u64 {
        let lost = (last + 1).saturating_sub(self.next);
        self.next = self.next.max(last + 1);
        lost
    }

    fn find(&self, state: &State) -> Place {
        if self.next >= state.next {
            return Place::Nowhere;
        }
        let tail = state.tail.front().map(|entry| entry.id.number);
        if tail.is_some_and(|first| first <= self.next) {
            return Place::Memory;
        }
        let at = state.segments.partition_point(|segment| segment.last < self.next);
        match state.segments.get(at) {
            Some(segment) if tail.is_none_or(|first| segment.first.max(self.next) < first) => {
                let before = segment.marks.partition_point(|&(number, _)| number <= self.next);
                let mark = before.checked_sub(1).and_then(|at| segment.marks.get(at)).copied();
                Place::Segment {
                    first: segment.first,
                    last: segment.last,
                    bytes: segment.bytes,
                    mark: mark.unwrap_or_default(),
                }
            }
            _ => Place::Memory,
        }
    }

    /// Reads on in a segment, in which the first number that is wanted may be; how many are missing between, and whether it
    /// could be read.
    fn read(
        &mut self,
        first: u64,
        bytes: u64,
        mark: (u64, u64),
        most: usize,
        into: &mut Vec<Arc<Entry>>,
    ) -> (u64, io::Result<()>) {
        let mut lost = 0;
        let mut attempt = || -> io::Result<()> {
            let going_on = self.reader.take().filter(|it| it.segment == first && it.next <= self.next);
            let mut reader = match going_on {
                Some(reader) => reader,
                None => Reader::open(self.shared.open(first)?, first, mark)?,
            };
            reader.allow(bytes);
            let mut size = 0;
            while into.len() < most && size <= BATCH_BYTES {
                let Some(found) = reader.scanner.next_entry()? else { break };
                let number = found.entry.id.number;
                reader.next = number + 1;
                if number < self.next {
                    continue;
                }
                lost += number - self.next;
                self.next = number + 1;
                size += found.entry.size();
                into.push(Arc::new(found.entry));
            }
            self.reader = Some(reader);
            Ok(())
        };
        let outcome = attempt();
        (lost, outcome)
    }

    /// Waits until there may be something to take, or `interrupted` says so after a [`Shared::wake`], or for a time.
    pub fn wait(&self, time: Option<Duration>, interrupted: impl Fn() -> bool) -> Woken {
        let mut state = self.shared.lock();
        let mut waited = false;
        while self.next >= state.next && !interrupted() {
            if state.closed {
                return Woken::AtEnd;
            }
            if waited && time.is_some() {
                break;
            }
            waited = true;
            state = match time {
                Some(time) => {
                    let result = self.shared.more.wait_timeout(state, time);
                    result.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.shared.more.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
        Woken::Look
    }

    /// Waits for a time, but not longer than until `interrupted` says so after a [`Shared::wake`].
    pub fn pause(&self, time: Duration, interrupted: impl Fn() -> bool) {
        let deadline = std::time::Instant::now() + time;
        let mut state = self.shared.lock();
        while !interrupted() {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() {
                return;
            }
            let result = self.shared.more.wait_timeout(state, left);
            state = result.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The record can still be had: it was not given up meanwhile.
    pub fn holds(&self, number: u64) -> bool {
        self.shared.lock().holds(number)
    }
}

/// A segment that is being read.
#[derive(Debug)]
struct Reader {
    segment: u64,
    next: u64,
    scanner: Scanner<Take<File>>,
    /// Bytes that it may read, from the beginning of the segment.
    allowed: u64,
}

impl Reader {
    fn open(mut file: File, segment: u64, (number, offset): (u64, u64)) -> io::Result<Reader> {
        file.seek(SeekFrom::Start(offset))?;
        let before = number.max(segment).saturating_sub(1);
        let mut scanner = Scanner::new(file.take(0), offset, before, u64::MAX);
        if offset == 0 {
            scanner.source().set_limit(super::format::SEGMENT_HEAD as u64);
            scanner.segment_head()?;
            scanner.source().set_limit(0);
        }
        let allowed = if offset == 0 { super::format::SEGMENT_HEAD as u64 } else { offset };
        Ok(Reader { segment, next: number.max(segment), scanner, allowed })
    }

    /// Lets it read up to there. What is behind is still being written.
    fn allow(&mut self, bytes: u64) {
        let more = bytes.saturating_sub(self.allowed);
        let left = self.scanner.source().limit();
        self.scanner.source().set_limit(left + more);
        self.allowed += more;
    }
}
