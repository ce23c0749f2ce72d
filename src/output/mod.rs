//! Stage six: where records go.
//!
//! Each output has a thread and a bounded queue of its own: one that is slow, full or gone delays neither the others nor
//! the worker. What an output could not take is counted and said, at that output itself once it works again.

pub mod datagram;
pub mod entry;
pub mod file;
pub mod journald;
pub mod message;
pub mod remote;
pub mod rfc5424;
pub mod short_json;
pub mod stdout;
pub mod syslog;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, SendTimeoutError, Sender, TryRecvError, TrySendError};

use crate::alert::{Host, Notice, Record};
use crate::clock;
use crate::diagnostics::counted;
use crate::rules::model::Severity;
use entry::{Entry, Form};

/// Records that wait at an output; at about 2 KB each.
const QUEUE: usize = 4096;
/// How long the worker waits for a full queue before it gives the output up until it moves again.
const PATIENCE: Duration = Duration::from_millis(200);
/// First and last pause between attempts at a broken output.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));

/// How long an attempt at writing may take to notice that there is no more time.
const GIVING_UP: Duration = Duration::from_millis(500);

/// How often a quiet output is looked at while it may still lose something that was written.
const LOOK: Duration = Duration::from_secs(5);

/// Something records are written to.
pub trait Destination: Send {
    /// The output's name and place, for messages.
    fn name(&self) -> String;
    /// The form in which it wants records.
    fn form(&self) -> Form;
    /// Writes a record, or nothing of it.
    fn write(&mut self, entry: &Entry) -> io::Result<()>;
    /// Hands on what was held back.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
    /// Records that were taken but not handed on yet.
    fn held(&self) -> u64 {
        0
    }
    /// How many of the last records that [`write`](Self::write) took may not have arrived, and would be lost if this
    /// process ended now. While it lives the destination itself writes them again where needed; a position kept on disk
    /// must stay before them.
    fn unsure(&self) -> u64 {
        0
    }
    /// After how long without a record [`flush`](Self::flush) wants to be called, because something that was written may
    /// turn out to be lost; `None`: not at all.
    fn next_look(&self) -> Option<Duration> {
        None
    }
    /// Opens the place anew, because it was moved away.
    fn reopen(&mut self) {}
    /// True if this error will never go away.
    fn is_final(&self, _error: &io::Error) -> bool {
        false
    }
}

enum Order {
    Write(Arc<Record>),
    Reopen,
}

#[derive(Debug, Default)]
struct Counts {
    written: AtomicU64,
    lost: AtomicU64,
    /// Lost since the output last said so.
    unsaid: AtomicU64,
}

/// An output: its thread, its queue and its counts.
pub struct Output {
    name: String,
    orders: Option<Sender<Order>>,
    counts: Arc<Counts>,
    /// Dropped when the end begins: then a broken output gives up, and one that is only slow goes on.
    open: Option<Sender<()>>,
    /// Then every output gives up.
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// Records given to [`offer`](Self::offer).
    offered: u64,
    stalled: bool,
}

impl Output {
    /// Starts an output's thread.
    pub fn start(destination: impl Destination + 'static, host: &Host) -> io::Result<Output> {
        let name = destination.name();
        let (sender, receiver) = crossbeam_channel::bounded(QUEUE);
        let counts = Arc::new(Counts::default());
        let (open, closed) = crossbeam_channel::bounded(0);
        let over = Arc::new(AtomicBool::new(false));
        let writer = Writer {
            destination,
            host: host.clone(),
            counts: Arc::clone(&counts),
            closed,
            over: Arc::clone(&over),
            broken: false,
        };
        let thread = std::thread::Builder::new()
            .name("output".to_owned())
            .stack_size(256 * 1024)
            .spawn(move || writer.run(&receiver))?;
        Ok(Output {
            name,
            orders: Some(sender),
            counts,
            open: Some(open),
            over,
            thread: Some(thread),
            offered: 0,
            stalled: false,
        })
    }

    /// Queues a record. If the queue is full and stays so for a moment, the record is lost here, and counted.
    pub fn offer(&mut self, record: &Arc<Record>) {
        let Some(orders) = &self.orders else { return };
        self.offered += 1;
        let order = match orders.try_send(Order::Write(Arc::clone(record))) {
            Ok(()) => {
                self.stalled = false;
                return;
            }
            Err(TrySendError::Full(order)) => order,
            // The thread has ended for good and has said why.
            Err(TrySendError::Disconnected(_)) => return self.lose(),
        };
        if self.stalled {
            return self.lose();
        }
        match orders.send_timeout(order, PATIENCE) {
            Ok(()) => {}
            Err(SendTimeoutError::Timeout(_) | SendTimeoutError::Disconnected(_)) => {
                self.stalled = true;
                self.lose();
            }
        }
    }

    fn lose(&self) {
        self.counts.lost.fetch_add(1, Relaxed);
        self.counts.unsaid.fetch_add(1, Relaxed);
    }

    /// Makes the output open its place anew.
    pub fn reopen(&self) {
        if let Some(orders) = &self.orders
            && orders.try_send(Order::Reopen).is_err()
        {
            log::warn!("output {} is too busy to be opened anew", self.name);
        }
    }

    /// Records written, and lost.
    pub fn counts(&self) -> (u64, u64) {
        (self.counts.written.load(Relaxed), self.counts.lost.load(Relaxed))
    }

    /// The output's name and place.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Lets the output write what is queued, until `deadline`.
    pub fn close(&mut self, deadline: Instant) {
        self.orders = None;
        self.open = None;
        let Some(thread) = self.thread.take() else { return };
        if !finished_by(&thread, deadline) {
            log::warn!("output {} did not take everything in time", self.name);
            // It gives up at its next attempt and counts what is left.
            self.over.store(true, Relaxed);
            if !finished_by(&thread, Instant::now() + GIVING_UP) {
                // It hangs in a system call and ends with the process: what it did not write is lost.
                let written = self.counts.written.load(Relaxed);
                self.counts.lost.store(self.offered.saturating_sub(written), Relaxed);
                return;
            }
        }
        // A panic of the thread has ended the process already.
        let _ = thread.join();
    }
}

fn finished_by(thread: &JoinHandle<()>, deadline: Instant) -> bool {
    while !thread.is_finished() {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}

/// The thread's part.
struct Writer<D> {
    destination: D,
    host: Host,
    counts: Arc<Counts>,
    closed: Receiver<()>,
    over: Arc<AtomicBool>,
    /// The last attempt failed.
    broken: bool,
}

impl<D: Destination> Writer<D> {
    fn run(mut self, orders: &Receiver<Order>) {
        loop {
            let order = match orders.try_recv() {
                Ok(order) => order,
                Err(_) => {
                    // Nothing is waiting, so what was held back for a larger write goes out.
                    if !self.persist(|destination| destination.flush()) {
                        return self.abandon(orders);
                    }
                    match orders.recv() {
                        Ok(order) => order,
                        Err(_) => return,
                    }
                }
            };
            match order {
                Order::Reopen => self.destination.reopen(),
                Order::Write(record) => {
                    let entry = self.entry(&record);
                    if !self.persist(|destination| destination.write(&entry)) {
                        self.counts.lost.fetch_add(1, Relaxed);
                        return self.abandon(orders);
                    }
                    self.counts.written.fetch_add(1, Relaxed);
                    self.say_losses();
                }
            }
        }
    }

    fn entry(&self, record: &Record) -> Entry {
        Entry::new(record, &[self.destination.form()], &self.host)
    }

    /// Tries until it works. False if it never will, or there is no more time.
    fn persist(&mut self, mut attempt: impl FnMut(&mut D) -> io::Result<()>) -> bool {
        let mut pause = PAUSES.0;
        loop {
            match attempt(&mut self.destination) {
                Ok(()) => {
                    if std::mem::take(&mut self.broken) {
                        log::info!("output {} works again", self.destination.name());
                    }
                    return true;
                }
                Err(error) => {
                    let is_final = self.destination.is_final(&error);
                    if !std::mem::replace(&mut self.broken, true) || is_final {
                        let what = if is_final {
                            "it is closed".to_owned()
                        } else {
                            format!("trying again, up to {QUEUE} records wait")
                        };
                        log::warn!("output {} failed: {error}; {what}", self.destination.name());
                    }
                    if is_final || self.gives_up(&error) {
                        return false;
                    }
                }
            }
            self.pause(pause);
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    fn gives_up(&self, error: &io::Error) -> bool {
        let ending = self.closed.try_recv() == Err(TryRecvError::Disconnected);
        self.over.load(Relaxed) || ending && error.kind() != io::ErrorKind::WouldBlock
    }

    /// Sleeps, but only a moment once the end has begun.
    fn pause(&self, pause: Duration) {
        if self.closed.recv_timeout(pause) == Err(RecvTimeoutError::Disconnected) {
            std::thread::sleep(PAUSES.0.min(pause));
        }
    }

    /// Writes how many records were lost here, in the stream of records.
    fn say_losses(&mut self) {
        let lost = self.counts.unsaid.swap(0, Relaxed);
        if lost == 0 {
            return;
        }
        let name = self.destination.name();
        let (records, were) = (counted(lost, "record", "records"), if lost == 1 { "was" } else { "were" });
        log::warn!("output {name} lost {records}, not taken in time");
        let notice = Record::Notice(Notice {
            kind: "output-lost-records",
            severity: Severity::Medium,
            time_ns: clock::realtime_ns(),
            message: format!("{records} {were} lost at output {name}: not taken in time"),
        });
        // If it fails now, the count was logged and stands in the totals.
        let _ = self.destination.write(&self.entry(&notice));
    }

    /// Counts what is held back or still queued as lost.
    fn abandon(&mut self, orders: &Receiver<Order>) {
        let held = self.destination.held();
        self.counts.written.fetch_sub(held, Relaxed);
        self.counts.lost.fetch_add(held, Relaxed);
        let left = orders.try_iter().filter(|order| matches!(order, Order::Write(_))).count();
        self.counts.lost.fetch_add(left as u64, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// Fails `failures` times, then takes records.
    struct Flaky {
        failures: usize,
        is_final: bool,
        taken: Arc<Mutex<Vec<String>>>,
    }

    impl Destination for Flaky {
        fn name(&self) -> String {
            "flaky".into()
        }

        fn form(&self) -> Form {
            Form::Text
        }

        fn write(&mut self, entry: &Entry) -> io::Result<()> {
            if self.failures > 0 {
                self.failures -= 1;
                return Err(io::Error::other("not now"));
            }
            self.taken.lock().unwrap().push(entry.form(Form::Text).to_owned());
            Ok(())
        }

        fn is_final(&self, _: &io::Error) -> bool {
            self.is_final
        }
    }

    fn notice(number: u64) -> Arc<Record> {
        Arc::new(Record::Notice(Notice {
            kind: "test",
            severity: Severity::Info,
            time_ns: number,
            message: number.to_string(),
        }))
    }

    fn wait_for(output: &Output, counts: (u64, u64)) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while output.counts() != counts {
            assert!(Instant::now() < deadline, "{:?}", output.counts());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_failing_output_is_tried_again_in_order() {
        let taken = Arc::new(Mutex::new(Vec::new()));
        let mut output = Output::start(
            Flaky { failures: 3, is_final: false, taken: Arc::clone(&taken) },
            &Host::default(),
        )
        .unwrap();
        (0..10).for_each(|number| output.offer(&notice(number)));
        wait_for(&output, (10, 0));
        output.close(Instant::now() + Duration::from_secs(20));
        let expected: Vec<String> =
            (0..10).map(|number| Form::Text.of(&notice(number), &Host::default())).collect();
        assert_eq!(*taken.lock().unwrap(), expected);
    }

    #[test]
    fn what_a_stuck_output_loses_is_counted() {
        let taken = Arc::new(Mutex::new(Vec::new()));
        let mut output =
            Output::start(Flaky { failures: usize::MAX, is_final: false, taken }, &Host::default()).unwrap();
        let offered = QUEUE as u64 + 100;
        (0..offered).for_each(|number| output.offer(&notice(number)));
        output.close(Instant::now());
        // The writer counts what it abandons within one pause.
        wait_for(&output, (0, offered));
    }

    #[test]
    fn a_closed_output_ends() {
        let taken = Arc::new(Mutex::new(Vec::new()));
        let mut output =
            Output::start(Flaky { failures: 1, is_final: true, taken }, &Host::default()).unwrap();
        output.offer(&notice(1));
        output.close(Instant::now() + Duration::from_secs(20));
        assert_eq!(output.counts(), (0, 1));
    }
}
