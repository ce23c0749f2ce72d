//! The thread of an output: takes records from the journal and tries until each is written.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender as Orders;
use nix::errno::Errno;

use super::Destination;
use super::backoff::Backoff;
use super::entry::Entry;
use super::message::SMALLEST;
use crate::alert::Record;
use crate::clock;
use crate::diagnostics::counted;
use crate::journal::progress::{Condition, Progress};
use crate::journal::shared::{Cursor, Shared, Woken};
use crate::journal::thread::{Order, notice};
use crate::rules::model::Severity;

/// Records taken at a time: so many at most are repeated after kill -9.
const BATCH: usize = 64;
/// First and last pause between attempts at a broken output.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));
/// How long it is tried to read records that the disk does not give.
const READ_PATIENCE: Duration = Duration::from_secs(300);
/// At most one notice about losses, and one about cuts, in this time.
const LOSS_NOTICE_EVERY: Duration = Duration::from_secs(60);
/// How often it is looked whether the end of that time has come.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long the end waits for what a receiver has been given and has not read.
const LAST_LOOK: Duration = Duration::from_secs(1);

/// What others tell the thread, followed by [`Shared::wake`].
#[derive(Debug, Default)]
pub struct Signals {
    /// Open the place anew.
    pub reopen: AtomicBool,
    /// The end has begun: a broken output gives up, and one that is only slow goes on.
    pub ending: AtomicBool,
    /// Every output gives up.
    pub over: AtomicBool,
}

/// The thread's state.
pub struct Sender {
    destination: Box<dyn Destination>,
    cursor: Cursor,
    progress: Arc<Progress>,
    signals: Arc<Signals>,
    orders: Orders<Order>,
    backoff: Backoff,
    /// Since when the journal cannot be read.
    unread: Option<Instant>,
    /// All up to this record were given to the destination, or will never be.
    given: u64,
    /// The last of these, as many as the destination may hold back.
    held: VecDeque<u64>,
    /// The last one before them, until it is kept as the position.
    sent: Option<u64>,
    /// Lost since that was said last, and when.
    unsaid: u64,
    said: Option<Instant>,
    /// Cut since that was said last, and when.
    unsaid_cut: u64,
    said_cut: Option<Instant>,
}

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Written,
    /// The journal gave it up meanwhile.
    Gone,
    /// There is no more time, or the output will never work.
    GivenUp,
}

impl Sender {
    /// Goes on where the output's progress says.
    pub fn new(
        destination: Box<dyn Destination>,
        shared: Arc<Shared>,
        progress: Arc<Progress>,
        signals: Arc<Signals>,
        orders: Orders<Order>,
    ) -> Self {
        let given = progress.position();
        Sender {
            destination,
            cursor: Cursor::after(shared, given),
            progress,
            signals,
            orders,
            backoff: Backoff::new(PAUSES),
            unread: None,
            given,
            held: VecDeque::new(),
            sent: None,
            unsaid: 0,
            said: None,
            unsaid_cut: 0,
            said_cut: None,
        }
    }

    /// Sends until the journal has ended and everything was sent, or there is no more time.
    pub fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            if self.signals.reopen.swap(false, Relaxed) {
                self.destination.reopen();
                // The new place is there at once.
                if self.persist(None, |destination| destination.flush()) == Outcome::GivenUp {
                    break;
                }
            }
            if self.signals.over.load(Relaxed) {
                break;
            }
            batch.clear();
            let taken = self.cursor.take(BATCH, &mut batch);
            if taken.lost > 0 {
                self.lose(taken.lost);
            }
            if let Some(error) = taken.failed {
                if !self.wait_for_journal(&error) {
                    break;
                }
                continue;
            }
            self.unread = None;
            if batch.is_empty() {
                self.given = self.cursor.next() - 1;
                self.keep_position();
                self.say_losses();
                // With nothing to say and nothing held back, nothing wakes this thread but a record.
                let early =
                    (self.unsaid + self.unsaid_cut > 0 || !self.held.is_empty()).then_some(LOOK_EVERY);
                let look = self.destination.next_look();
                let time = early.or(look);
                let signals = Arc::clone(&self.signals);
                let interrupted = move || signals.reopen.load(Relaxed) || signals.over.load(Relaxed);
                let at_end = self.cursor.wait(time, interrupted) == Woken::AtEnd;
                if at_end {
                    self.wait_for_held();
                }
                if (!self.held.is_empty() || look.is_some())
                    && self.persist(None, |destination| destination.flush()) == Outcome::GivenUp
                    || at_end
                {
                    self.keep_position();
                    break;
                }
                continue;
            }
            if !self.send(&batch) {
                break;
            }
        }
        self.count_written();
        self.progress.set_sending(0);
    }

    /// The next records cannot be read now, which is no reason to lose them: waits until it is tried again. What the disk
    /// does not give for long is given up, or else nothing behind it would be sent either. False at the end, where they
    /// wait for the next start.
    fn wait_for_journal(&mut self, error: &io::Error) -> bool {
        let since = *self.unread.get_or_insert_with(|| {
            log::warn!(
                "output {} cannot read its next records from the journal: {error}; trying again, records wait",
                self.progress.name()
            );
            Instant::now()
        });
        self.given = self.cursor.next() - 1;
        self.keep_position();
        self.say_losses();
        self.progress.set_error(format!("the journal cannot be read: {error}"), clock::realtime_ns());
        self.progress.set_condition(Condition::Retrying);
        if !is_shortage(error) && since.elapsed() > READ_PATIENCE {
            let count = self.cursor.give_up();
            log::error!(
                "output {} gives up {}, which cannot be read from the journal: {error}",
                self.progress.name(),
                counted(count, "record", "records")
            );
            self.lose(count);
            self.progress.set_condition(Condition::Working);
            self.unread = None;
            return true;
        }
        let signals = Arc::clone(&self.signals);
        let is_over = || signals.over.load(Relaxed) || signals.ending.load(Relaxed);
        self.cursor.pause(self.backoff.pause(), || is_over() || signals.reopen.load(Relaxed));
        !is_over()
    }

    /// At the end gives the receiver a moment to take what it has.
    fn wait_for_held(&mut self) {
        let deadline = Instant::now() + LAST_LOOK;
        while !self.held.is_empty() && Instant::now() < deadline && !self.signals.over.load(Relaxed) {
            if self.destination.flush().is_err() {
                return;
            }
            self.keep_position();
            if !self.held.is_empty() {
                std::thread::sleep(PAUSES.0);
            }
        }
    }

    /// Writes a batch; false if the output has given up.
    fn send(&mut self, batch: &[Arc<Entry>]) -> bool {
        for entry in batch {
            self.progress.set_sending(entry.time_ns);
            match self.persist(Some(entry.id.number), |destination| destination.write(entry)) {
                Outcome::Written => {
                    self.held.push_back(entry.id.number);
                    self.count_written();
                }
                Outcome::Gone => self.lose(1),
                Outcome::GivenUp => return false,
            }
            self.given = entry.id.number;
        }
        if self.persist(None, |destination| destination.flush()) == Outcome::GivenUp {
            return false;
        }
        self.keep_position();
        self.progress.set_sending(0);
        self.say_losses();
        true
    }

    /// Counts what the destination holds back no longer, and nothing before: what was counted stays true. True if it holds
    /// back nothing.
    fn count_written(&mut self) -> bool {
        let held = usize::try_from(self.destination.held()).unwrap_or(usize::MAX);
        let count = self.held.len().saturating_sub(held);
        if let Some(sent) = self.held.drain(..count).next_back() {
            self.sent = Some(sent);
            self.progress.add_written(count as u64);
        }
        held == 0
    }

    /// Writes down where the output is: before what it holds back.
    fn keep_position(&mut self) {
        let all = self.count_written();
        let sent = self.sent.take();
        if let Some(sent) = if all { Some(self.given) } else { sent } {
            self.progress.advance(sent);
        }
    }

    /// Tries until it works, or the record of that number is in the journal no more.
    fn persist(
        &mut self,
        number: Option<u64>,
        mut attempt: impl FnMut(&mut dyn Destination) -> io::Result<()>,
    ) -> Outcome {
        loop {
            self.progress.set_attempt(clock::monotonic_ns());
            let result = attempt(&mut *self.destination);
            self.progress.set_attempt(0);
            let error = match result {
                Ok(()) => {
                    self.backoff.reset();
                    if self.progress.condition() == Condition::Retrying {
                        self.progress.set_condition(Condition::Working);
                        log::info!("output {} works again", self.progress.name());
                    }
                    return Outcome::Written;
                }
                Err(error) => error,
            };
            let is_final = self.destination.is_final(&error);
            if self.progress.condition() == Condition::Working || is_final {
                let what = if is_final { "it is closed" } else { "trying again, records wait" };
                log::warn!("output {} failed: {error}; {what}", self.progress.name());
            }
            // What was sent before this record is not repeated, and what was lost is said, however long this takes.
            self.keep_position();
            self.say_losses();
            self.progress.set_error(error.to_string(), clock::realtime_ns());
            self.progress.set_condition(if is_final { Condition::Closed } else { Condition::Retrying });
            let ending = self.signals.ending.load(Relaxed) && error.kind() != io::ErrorKind::WouldBlock;
            if is_final || ending || self.signals.over.load(Relaxed) {
                return Outcome::GivenUp;
            }
            if number.is_some_and(|number| !self.cursor.holds(number)) {
                return Outcome::Gone;
            }
            let signals = Arc::clone(&self.signals);
            let pause = self.backoff.pause();
            let pause = if signals.ending.load(Relaxed) { pause.min(PAUSES.0) } else { pause };
            let begun = signals.ending.load(Relaxed);
            self.cursor.pause(pause, || {
                signals.over.load(Relaxed)
                    || signals.reopen.load(Relaxed)
                    || signals.ending.load(Relaxed) != begun
            });
            if self.signals.reopen.swap(false, Relaxed) {
                self.destination.reopen();
            }
        }
    }

    fn lose(&mut self, count: u64) {
        self.progress.add_lost(count);
        self.unsaid += count;
    }

    /// Has the journal write down how many records were lost or cut here, at once and then at most every minute.
    fn say_losses(&mut self) {
        self.unsaid_cut += self.destination.take_cut();
        let recently = |said: Option<Instant>| said.is_some_and(|said| said.elapsed() < LOSS_NOTICE_EVERY);
        if self.unsaid > 0 && !recently(self.said) {
            let what = format!(
                "lost at output {}: the journal held them no longer when their turn came",
                self.progress.name()
            );
            if self.say("output-lost-records", self.unsaid, &what) {
                (self.unsaid, self.said) = (0, Some(Instant::now()));
            }
        }
        if self.unsaid_cut > 0 && !recently(self.said_cut) {
            let what = format!(
                "cut to {SMALLEST} bytes at output {}: this host sends no datagram of their length; a larger \
                 net.core.wmem_default may help at a local socket, and TCP at a remote one",
                self.progress.name()
            );
            if self.say("output-cut-records", self.unsaid_cut, &what) {
                (self.unsaid_cut, self.said_cut) = (0, Some(Instant::now()));
            }
        }
    }

    /// Without room it is said later: false.
    fn say(&self, kind: &'static str, count: u64, what: &str) -> bool {
        let were = if count == 1 { "was" } else { "were" };
        let message = format!("{} {were} {what}", counted(count, "record", "records"));
        let record = Record::Notice(notice(kind, Severity::Medium, message.clone()));
        let said = self.orders.try_send(Order::Write(Box::new(record))).is_ok();
        if said {
            log::warn!("{message}");
        }
        said
    }
}

/// Something was wanting that others hold: it will be there again, and says nothing of the disk.
fn is_shortage(error: &io::Error) -> bool {
    let number = error.raw_os_error().map(Errno::from_raw);
    matches!(number, Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::EINTR | Errno::EAGAIN))
}
