//! The worker's side: which alerts are followed, and what the process table tells of them.
//!
//! It hands over to the [thread](super::follow) and never waits for it: what finds no room is counted.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::Settings;
use super::follow::{Follow, Order, Report};
use super::known::{Child, MOST_CHILDREN};
use super::record::{Alerted, FollowUp};
use crate::alert::Alert;
use crate::harden;
use crate::harden::roles::Role;
use crate::health::Counters;
use crate::lineage::table::Table;
use crate::lineage::table::fate::{self, Fate, Handle};
use crate::process::proc_dir::ProcRoot;

/// Orders, and reports, that wait. A report is some KB.
const QUEUE: usize = 256;
/// How long the thread may take to write its last records at the end.
const CLOSING_TIME: Duration = Duration::from_secs(2);

/// Someone who is followed.
#[derive(Debug)]
struct Watched {
    number: u64,
    /// `None` if the process table does not have it, or its end was told.
    handle: Option<Handle>,
    executed_ns: u64,
    /// Children that were told, and of how many a program was known.
    told: (usize, usize),
}

/// The desk.
#[derive(Debug)]
pub struct Desk {
    settings: Settings,
    orders: Option<Sender<Order>>,
    reports: Receiver<Report>,
    watched: Vec<Watched>,
    next: u64,
    counters: Arc<Counters>,
    thread: Option<JoinHandle<()>>,
}

impl Desk {
    /// Starts the thread. `wake` makes the worker look for reports.
    pub fn start(
        settings: Settings,
        proc: Arc<ProcRoot>,
        counters: Arc<Counters>,
        wake: impl Fn() + Send + 'static,
    ) -> std::io::Result<Desk> {
        let (orders, taken) = crossbeam_channel::bounded(QUEUE);
        let (given, reports) = crossbeam_channel::bounded(QUEUE);
        let follow = Follow::new(&settings.after, proc, taken, given, Box::new(wake));
        let thread = std::thread::Builder::new().name("follow-up".to_owned()).stack_size(512 * 1024).spawn(
            move || {
                harden::enter(Role::FollowUp);
                follow.run();
            },
        )?;
        Ok(Desk {
            settings,
            orders: Some(orders),
            reports,
            watched: Vec::new(),
            next: 0,
            counters,
            thread: Some(thread),
        })
    }

    /// Follows an alert from now on, if it is severe enough and there is room.
    pub fn follow(&mut self, alert: &Alert, table: &Table) {
        if alert.rule.severity < self.settings.severity || alert.exec.pid == 0 {
            return;
        }
        let alerted = Alerted::new(alert);
        let room = self.watched.len() < self.settings.at_once || self.let_go(alerted.executed_ns);
        let (number, executed_ns) = (self.next, alerted.executed_ns);
        let handle = table.handle(alerted.pid, executed_ns);
        if room && self.send(Order::Follow(number, Box::new(alerted))) {
            self.next += 1;
            self.watched.push(Watched { number, handle, executed_ns, told: (0, 0) });
        } else {
            self.counters.worker.not_followed.fetch_add(1, Relaxed);
        }
    }

    /// Gives up the one that is followed longest, if all moments of its plan are over.
    fn let_go(&mut self, now_ns: u64) -> bool {
        let planned =
            self.settings.after.last().map_or(0, |last| last.as_nanos().try_into().unwrap_or(u64::MAX));
        let oldest = self.watched.iter().enumerate().min_by_key(|(_, watched)| watched.executed_ns);
        let Some((at, oldest)) = oldest else { return false };
        if now_ns.saturating_sub(oldest.executed_ns) <= planned || !self.send(Order::LetGo(oldest.number)) {
            return false;
        }
        self.watched.swap_remove(at);
        self.counters.worker.let_go.fetch_add(1, Relaxed);
        true
    }

    /// Tells the thread what the process table has learnt, after it was brought up to date.
    pub fn tell(&mut self, table: &Table) {
        if self.watched.is_empty() {
            return;
        }
        self.tell_children(table);
        let mut watched = std::mem::take(&mut self.watched);
        for watched in &mut watched {
            let Some(handle) = watched.handle else { continue };
            match table.fate(handle) {
                Fate::Lives => {}
                Fate::Ended { end_ns, status } => {
                    let how = status.map(|status| (end_ns, status));
                    // If there is no room for it, it is told the next time.
                    if self.send(Order::Ended(watched.number, how)) {
                        watched.handle = None;
                    }
                }
                // The thread notices itself that it has ended.
                Fate::Forgotten => watched.handle = None,
            }
        }
        self.watched = watched;
    }

    fn tell_children(&mut self, table: &Table) {
        let parents: Vec<(usize, Handle)> = self
            .watched
            .iter()
            .enumerate()
            .filter_map(|(at, watched)| Some((at, watched.handle?)))
            .filter(|&(_, handle)| table.has_children(handle))
            .collect();
        if parents.is_empty() {
            return;
        }
        let handles: Vec<Handle> = parents.iter().map(|&(_, handle)| handle).collect();
        for ((at, _), children) in parents.into_iter().zip(table.children(&handles)) {
            let watched = &self.watched[at];
            // What the process made before it executed this program is not of this program.
            let children: Vec<_> =
                children.into_iter().filter(|child| child.start_ns >= watched.executed_ns).collect();
            let told = (children.len(), children.iter().filter(|child| child.image.is_some()).count());
            // The table forgets children, the record does not.
            if told.0 < watched.told.0 || told == watched.told {
                continue;
            }
            let more = children.len().saturating_sub(MOST_CHILDREN);
            let kept = children.into_iter().take(MOST_CHILDREN).map(child).collect();
            if self.send(Order::Children(watched.number, kept, more)) {
                self.watched[at].told = told;
            }
        }
    }

    /// Records that are ready.
    pub fn records(&mut self) -> Vec<FollowUp> {
        let mut records = Vec::new();
        for report in self.reports.try_iter() {
            match report {
                Report::Record(record) => records.push(*record),
                Report::Done(number) => self.watched.retain(|watched| watched.number != number),
            }
        }
        records
    }

    /// Ends the thread, after [`tell`](Self::tell) has told the last; what it still had to say.
    pub fn close(mut self) -> Vec<FollowUp> {
        self.orders = None;
        let deadline = Instant::now() + CLOSING_TIME;
        let mut records = Vec::new();
        loop {
            match self.reports.recv_deadline(deadline) {
                Ok(Report::Record(record)) => records.push(*record),
                Ok(Report::Done(_)) => {}
                Err(RecvTimeoutError::Timeout) => {
                    log::warn!("the last follow-ups were not ready in time");
                    return records;
                }
                // The thread has let go of its end.
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has ended the process already.
            let _ = thread.join();
        }
        records
    }

    fn send(&self, order: Order) -> bool {
        self.orders.as_ref().is_some_and(|orders| orders.try_send(order).is_ok())
    }
}

fn child(child: fate::Child) -> Child {
    Child { pid: child.pid, image: child.image.map(|image| image.image()).unwrap_or_default() }
}
