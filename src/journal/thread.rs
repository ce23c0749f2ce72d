//! The journal's thread: numbers, renders and writes down what waits, and keeps the journal within its bounds.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, TryRecvError};

use super::feed::Feed;
use super::progress::{Condition, Progress};
use super::shared::Shared;
use super::start::{Attempt, Place};
use super::store::{Clocks, Store};
use super::{Settings, WhenFull};
use crate::alert::{Host, Notice, Record, RecordId};
use crate::clock;
use crate::diagnostics::counted;
use crate::output::backoff::Backoff;
use crate::output::entry::{Entry, Form};
use crate::rules::model::Severity;
use crate::sys::sched::set_nice;

/// Records written down at a time: the first of them waits for the rendering of the others.
const BATCH: usize = 64;
/// Bytes of records that stay in memory although they are in files: room for outputs that are a little behind.
const TAIL: usize = 4 << 20;
/// Files of a journal: each start may leave one.
const MOST_SEGMENTS: usize = 4096;
/// How often ages are looked at while records wait.
const AGES: Duration = Duration::from_secs(60);
/// How often it is looked whether there is room again.
const ROOM: Duration = Duration::from_millis(50);
/// Pauses between attempts at a disk that cannot be written to.
pub(super) const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How often it is said that the disk did not take what was written.
const UNSYNCHRONISED_EVERY: Duration = Duration::from_secs(3600);
/// As the worker: before ordinary programs, after what the administrator put first.
const NICE: i32 = -10;

/// What the thread is told.
#[derive(Debug)]
pub enum Order {
    /// Write this down and give it to the outputs.
    Write(Box<Record>),
    /// The disk did not take what was written.
    NotSynchronised(std::io::Error),
    /// Write down what waits and end.
    Close,
}

/// Where records are kept.
#[derive(Debug)]
pub(super) enum Disk {
    /// In memory only, until the end.
    Off,
    /// In files.
    Works(Store),
    /// In memory until there is a folder, or it can be written to again.
    Fails {
        /// Where to; `None` if there is no folder.
        store: Option<Store>,
        /// When it is tried again.
        next: Instant,
    },
}

/// The thread's state.
pub(super) struct Thread {
    pub(super) orders: Receiver<Order>,
    pub(super) shared: Arc<Shared>,
    pub(super) outputs: Vec<Arc<Progress>>,
    pub(super) settings: Settings,
    pub(super) place: Place,
    pub(super) disk: Disk,
    pub(super) forms: Vec<Form>,
    pub(super) host: Host,
    pub(super) run: u64,
    /// What the journal itself has to say.
    pub(super) notices: VecDeque<Notice>,
    /// Pauses between attempts at the disk.
    pub(super) pause: Backoff,
    /// When it failed last.
    pub(super) failed: Option<Instant>,
    /// When it was said last that the disk did not take what was written.
    pub(super) unsynchronised: Option<Instant>,
    /// That it is full was said.
    pub(super) full_said: bool,
    pub(super) closing: bool,
}

impl Thread {
    pub(super) fn run(mut self) {
        if let Err(error) = set_nice(NICE) {
            log::debug!("the journal keeps its priority: {error}");
        }
        while !self.closing {
            self.tend();
            let records = self.gather();
            self.commit(records);
        }
        self.end();
    }

    /// Says something in the log and in the stream of records.
    pub(super) fn say(&mut self, kind: &'static str, severity: Severity, message: String) {
        match severity {
            Severity::Info => log::info!("{message}"),
            _ => log::warn!("{message}"),
        }
        self.notices.push_back(notice(kind, severity, message));
    }

    /// Waits for records, and takes all that wait, up to a batch.
    fn gather(&mut self) -> Vec<Record> {
        let full = self.is_full();
        if full && self.settings.when_full == WhenFull::StopReading && !self.shared.ending.load(Relaxed) {
            std::thread::sleep(ROOM);
            return Vec::new();
        }
        let mut records: Vec<Record> = Vec::new();
        if !full {
            self.say_dropped();
            records.extend(self.notices.drain(..).map(Record::Notice));
        }
        while records.len() < BATCH {
            let order = match self.orders.try_recv() {
                Ok(order) => order,
                Err(TryRecvError::Disconnected) => {
                    self.closing = true;
                    break;
                }
                Err(TryRecvError::Empty) if !records.is_empty() => break,
                Err(TryRecvError::Empty) => match self.wait(full) {
                    Some(order) => order,
                    None => break,
                },
            };
            match order {
                Order::Write(record) => records.push(*record),
                Order::NotSynchronised(error) => self.say_not_synchronised(&error),
                Order::Close => {
                    self.closing = true;
                    break;
                }
            }
        }
        records
    }

    /// The disk did not take what was written. The record that says so is written too, so it is not said each time.
    fn say_not_synchronised(&mut self, error: &std::io::Error) {
        if self.unsynchronised.is_some_and(|said| said.elapsed() < UNSYNCHRONISED_EVERY) {
            return;
        }
        self.unsynchronised = Some(Instant::now());
        let message = format!(
            "the disk did not take what the journal wrote: {error}; a power cut would lose it, kill -9 would not"
        );
        self.say("journal-failed", Severity::Medium, message);
    }

    /// The next order; `None` if it is time to look at other things.
    fn wait(&mut self, full: bool) -> Option<Order> {
        let unsaid = self.shared.unsaid.load(Relaxed) > 0;
        let time = match &self.disk {
            _ if full || unsaid => Some(AGES.min(Duration::from_secs(1))),
            Disk::Fails { next, store, .. } if self.waits_for_disk(store.as_ref()) => {
                Some(next.saturating_duration_since(Instant::now()))
            }
            Disk::Works(_) if self.sent() < self.shared.lock().next.saturating_sub(1) => Some(AGES),
            _ => None,
        };
        match time {
            None => self.orders.recv().ok().or(Some(Order::Close)),
            Some(time) => match self.orders.recv_timeout(time) {
                Ok(order) => Some(order),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => Some(Order::Close),
            },
        }
    }

    /// A record that waits for an output is in memory alone.
    fn waits_for_disk(&self, store: Option<&Store>) -> bool {
        let saved = store.map_or(0, Store::saved);
        self.shared.lock().tail.back().is_some_and(|entry| entry.id.number > saved)
    }

    /// Writes records down, and only then shows them to the outputs.
    fn commit(&mut self, records: Vec<Record>) {
        if records.is_empty() {
            self.try_disk_again();
            return;
        }
        // Nobody waits for room at the end.
        if self.is_full() {
            self.shared.drop_records(records.len() as u64);
            return;
        }
        let first = self.shared.lock().next;
        let watched = self.shared.feed.watched();
        let asked = self.shared.sent.get().cloned();
        let (mut shown, mut sent) = (Vec::new(), Vec::new());
        let entry = |(number, record)| {
            let id = RecordId { run: self.run, number };
            let entry = Entry::new(&record, id, &self.forms, &self.host);
            if watched {
                shown.push(Feed::show(&record, id, &entry, &self.host));
            }
            let entry = Arc::new(entry);
            sent.extend(record.key().filter(|_| asked.is_some()).map(|key| (key, Arc::clone(&entry))));
            entry
        };
        let entries: Vec<Arc<Entry>> = (first..).zip(records).map(entry).collect();
        self.save(&entries);
        let mut state = self.shared.lock();
        state.next = first + entries.len() as u64;
        for entry in entries {
            state.tail_bytes += entry.size();
            state.tail.push_back(entry);
        }
        drop(state);
        self.shared.wake();
        for record in sent {
            // Who lacks it does with less.
            let _ = asked.as_ref().map(|asked| asked.try_send(record));
        }
        // After the outputs, which are not to wait for it.
        if watched {
            self.shared.feed.push(shown);
        }
    }

    fn save(&mut self, entries: &[Arc<Entry>]) {
        match &mut self.disk {
            Disk::Off => {}
            Disk::Works(store) => {
                if let Err(error) = store.append(entries, &self.shared, Clocks::now().boot_s) {
                    self.fail(&error);
                }
            }
            Disk::Fails { next, .. } if Instant::now() < *next => {}
            Disk::Fails { .. } => self.attempt(entries),
        }
    }

    /// The disk cannot be written to: memory takes its place.
    fn fail(&mut self, error: &std::io::Error) {
        let Disk::Works(store) = std::mem::replace(&mut self.disk, Disk::Off) else { return };
        // A disk that works for moments only is not tried every second for ever.
        if self.failed.replace(Instant::now()).is_none_or(|failed| failed.elapsed() > PAUSES.1) {
            self.pause.reset();
        }
        self.disk = Disk::Fails { store: Some(store), next: Instant::now() + self.pause.pause() };
        self.shared.on_disk.store(false, Relaxed);
        let message = format!(
            "the journal cannot be written in {}: {error}; records are kept in memory (up to {} bytes of them), where \
             neither kill -9 nor a reboot leaves them, until it can",
            self.place.path().display(),
            self.settings.memory
        );
        self.say("journal-failed", Severity::High, message);
    }

    fn try_disk_again(&mut self) {
        if let Disk::Fails { next, store, .. } = &self.disk
            && Instant::now() >= *next
            && self.waits_for_disk(store.as_ref())
        {
            self.attempt(&[]);
        }
    }

    /// Tries to write what is in memory alone, and new records behind it.
    fn attempt(&mut self, new: &[Arc<Entry>]) {
        let Disk::Fails { store, .. } = std::mem::replace(&mut self.disk, Disk::Off) else {
            return;
        };
        let store = match store {
            Some(store) => Some(store),
            None => match self.place.open_late(&self.settings, &self.shared) {
                Attempt::Opened(store) => Some(*store),
                Attempt::NotYet => None,
                Attempt::Never(why) => {
                    self.say("journal-failed", Severity::High, format!("{why}; records stay in memory only"));
                    return;
                }
            },
        };
        let Some(mut store) = store else {
            self.disk = Disk::Fails { store: None, next: Instant::now() + self.pause.pause() };
            return;
        };
        let before = store.saved();
        let mut entries: Vec<Arc<Entry>> = self.shared.lock().tail.iter().cloned().collect();
        entries.extend(new.iter().cloned());
        let gone = entries.first().map_or(0, |entry| entry.id.number.saturating_sub(before + 1));
        match store.append(&entries, &self.shared, Clocks::now().boot_s) {
            Ok(()) => {
                let written = entries.iter().filter(|entry| entry.id.number > before).count() as u64;
                self.disk = Disk::Works(store);
                self.shared.on_disk.store(true, Relaxed);
                self.place.keep_positions(&self.outputs);
                let message = format!(
                    "the journal in {} can be written again: {} from memory {} in it now, {gone} are not",
                    self.place.path().display(),
                    counted(written, "record", "records"),
                    if written == 1 { "is" } else { "are" },
                );
                self.say("journal-works-again", Severity::Info, message);
            }
            Err(error) => {
                log::debug!("the journal still cannot be written: {error}");
                self.disk = Disk::Fails { store: Some(store), next: Instant::now() + self.pause.pause() };
            }
        }
    }

    /// All outputs have sent the records up to this one.
    fn sent(&self) -> u64 {
        let open = self.outputs.iter().filter(|output| output.condition() != Condition::Closed);
        open.map(|output| output.position()).min().unwrap_or(u64::MAX)
    }

    /// Gives up what every output has sent, and what there is no room for.
    fn tend(&mut self) {
        let sent = self.sent();
        let now_s = Clocks::now().boot_s;
        let keeps_oldest = self.settings.when_full != WhenFull::DropOldest;
        let limit = if matches!(self.disk, Disk::Works(_)) { TAIL } else { self.settings.memory };
        let mut state = self.shared.lock();
        let in_files = matches!(self.disk, Disk::Works(_));
        let mut out_of_memory = 0;
        while let Some(first) = state.tail.front() {
            let unsent = first.id.number > sent;
            if unsent && (state.tail_bytes <= limit || keeps_oldest && !in_files) {
                break;
            }
            out_of_memory += u64::from(unsent && !in_files);
            state.shorten_tail();
        }
        drop(state);
        if let Disk::Works(store) | Disk::Fails { store: Some(store), .. } = &mut self.disk {
            if sent != u64::MAX {
                store.skip_to(sent);
            }
            let max_age_s = i64::try_from(self.settings.max_age.as_secs()).unwrap_or(i64::MAX);
            loop {
                let (first, bytes, count) = {
                    let state = self.shared.lock();
                    let bytes: u64 = state.segments.iter().map(|segment| segment.bytes).sum();
                    let first = state.segments.front();
                    let Some(first) = first.map(|it| (it.last <= sent, it.newest_s)) else { break };
                    (first, bytes, state.segments.len())
                };
                let (all_sent, newest_s) = first;
                let too_old = now_s.saturating_sub(newest_s) > max_age_s;
                let too_much = bytes > self.settings.max_size || count > MOST_SEGMENTS;
                if all_sent && !store.writes_to_first(&self.shared) {
                    store.remove_first(&self.shared);
                } else if !all_sent && (too_old || too_much && !keeps_oldest) {
                    if too_old || !std::mem::replace(&mut self.full_said, true) {
                        log::warn!(
                            "the journal gives up its oldest records, which an output has not sent: {}",
                            if too_old {
                                "they are older than max-age"
                            } else {
                                "they are more than max-size"
                            }
                        );
                    }
                    store.remove_first(&self.shared);
                } else {
                    // Not with each segment anew while as much comes as goes.
                    self.full_said &= keeps_oldest || bytes > self.settings.max_size / 2;
                    break;
                }
            }
        }
        if out_of_memory > 0 && !std::mem::replace(&mut self.full_said, true) {
            log::warn!(
                "more records wait than there is memory for ([journal] memory); the oldest are given up"
            );
        }
        if keeps_oldest {
            let full = self.is_full();
            if full && !self.full_said {
                log::warn!(
                    "the journal is full: {}",
                    match self.settings.when_full {
                        WhenFull::StopReading => "no record is taken until an output has moved",
                        _ => "new records are dropped until an output has moved",
                    }
                );
            }
            self.full_said = full;
        }
    }

    /// There is no room, and the oldest do not give way.
    fn is_full(&self) -> bool {
        let state = self.shared.lock();
        self.settings.when_full != WhenFull::DropOldest
            && match &self.disk {
                Disk::Works(_) => {
                    let bytes: u64 = state.segments.iter().map(|segment| segment.bytes).sum();
                    bytes >= self.settings.max_size || state.segments.len() > MOST_SEGMENTS
                }
                _ => state.tail_bytes >= self.settings.memory,
            }
    }

    fn say_dropped(&mut self) {
        let count = self.shared.unsaid.swap(0, Relaxed);
        if count > 0 {
            let (records, were) =
                (counted(count, "record", "records"), if count == 1 { "was" } else { "were" });
            let message = format!("{records} {were} not taken: the journal had no room or was too slow");
            self.say("journal-dropped-records", Severity::Medium, message);
        }
    }

    /// The last records are shown; none come any more.
    fn end(mut self) {
        let left: Vec<Record> = self.notices.drain(..).map(Record::Notice).collect();
        self.commit(left);
        if matches!(self.disk, Disk::Fails { .. }) {
            self.attempt(&[]);
        }
        self.shared.lock().closed = true;
        self.shared.wake();
        if let Disk::Works(store) | Disk::Fails { store: Some(store), .. } = self.disk {
            store.close();
        }
    }
}

/// A notice of now.
pub(crate) fn notice(kind: &'static str, severity: Severity, message: String) -> Notice {
    Notice { kind, severity, time_ns: clock::realtime_ns(), message }
}
