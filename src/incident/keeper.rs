//! The thread that writes incidents down, so that nothing else waits for a disk.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::Settings;
use super::collect::{Earlier, Thing};
use super::kept::Head;
use super::numbered::{Numbered, Sent};
use super::open::{Board, MOST_SHOWN, Rows, Watcher};
use super::store::{Decision, SCHEMA, Store};
use super::story::State;
use crate::clock;
use crate::database::{DatabaseError, create_anew_if_damaged};
use crate::diagnostics::counted;
use crate::harden;
use crate::harden::roles::Role;
use crate::health::Counters;

/// How often age and size are looked at, and a failed batch is tried again.
const TEND_EVERY: Duration = Duration::from_secs(30);
const RETRY_EVERY: Duration = Duration::from_secs(3);
/// How often it is looked whether records were sent that are awaited.
const NUMBER_EVERY: Duration = Duration::from_millis(500);
/// How long the end waits for the last batch.
const CLOSING_TIME: Duration = Duration::from_secs(3);
/// How long a decision may take: the control socket's thread waits for it.
const DECIDING_TIME: Duration = Duration::from_secs(5);
/// Incidents of the last run that go on.
const MOST_RESUMED: usize = 32;
/// Parts that wait while the disk refuses them.
const MOST_WAITING: usize = 20_000;
/// Bytes of their file system that incidents leave free for the records of alerts and for the baseline, and what part of a
/// small one.
const LEFT_FREE: u64 = 16 << 20;
const LEFT_PART: u64 = 8;
/// What part of its file system the database may take.
const OWN_PART: u64 = 4;

/// What is to be written.
#[derive(Debug, Default)]
pub struct Batch {
    /// Incidents whose heads have changed.
    pub heads: Vec<Head>,
    /// Parts, with the ids of their incidents.
    pub things: Vec<(String, Thing)>,
}

impl Batch {
    /// There is nothing to be written.
    pub fn is_empty(&self) -> bool {
        self.heads.is_empty() && self.things.is_empty()
    }
}

enum Order {
    Write(Batch),
    Decide(String, Decision, Sender<Result<bool, String>>),
    /// Somebody has begun to look on.
    Show,
}

/// The thread, seen from the worker.
#[derive(Debug)]
pub struct Keeper {
    orders: Sender<Order>,
    closed: Closed,
    board: Arc<Board>,
    done: Receiver<()>,
}

/// Ids of incidents that an administrator closed.
type Closed = Arc<Mutex<Vec<String>>>;

/// The thread, seen from who decides about incidents.
#[derive(Debug, Clone)]
pub struct Decider {
    orders: Sender<Order>,
    closed: Closed,
    board: Arc<Board>,
}

impl Decider {
    /// Looks on at what is not closed.
    pub fn watch(&self) -> Watcher {
        let watcher = Watcher::new(&self.board);
        // With no room for it there is another order, after which they are shown too.
        let _ = self.orders.try_send(Order::Show);
        watcher
    }

    /// Has a decision written down; false if there is no such incident.
    pub fn decide(&self, id: &str, decision: Decision) -> Result<bool, String> {
        let (tell, told) = bounded(1);
        let closes = decision.state == State::Closed;
        let slow = || "the decision is not written: the disk does not answer in time".to_owned();
        let order = Order::Decide(id.to_owned(), decision, tell);
        self.orders.send_timeout(order, DECIDING_TIME).map_err(|_| slow())?;
        let found = told.recv_timeout(DECIDING_TIME).map_err(|_| slow())??;
        if found && closes {
            self.closed.lock().unwrap_or_else(PoisonError::into_inner).push(id.to_owned());
        }
        Ok(found)
    }
}

impl Keeper {
    /// Opens the database in `folder` and starts the thread. Where nothing can be written, that is said, and tried again.
    /// Also returns the number of the last id that was given, and the incidents that may go on.
    pub fn start(
        settings: &Settings,
        folder: &Path,
        counters: Arc<Counters>,
        sent: Receiver<Sent>,
    ) -> std::io::Result<(Keeper, u64, Vec<Earlier>)> {
        let store = match open(folder) {
            Ok(store) => Some(store),
            Err(error) => {
                log::warn!(
                    "incidents cannot be kept: {error}; alerts are told all the same, and it is tried again every few \
                     seconds. See to the folder of [state], or set [incident] enabled = false"
                );
                None
            }
        };
        let last = store.as_ref().and_then(|store| store.last_id().ok().flatten());
        let last_id = last.as_deref().and_then(super::collect::id_number).unwrap_or(0);
        let since_ns = clock::realtime_ns().saturating_sub(settings.window_ns);
        let earlier = store.as_ref().map(|store| store.earlier(since_ns, MOST_RESUMED)).transpose();
        let earlier = earlier.unwrap_or_else(|error| {
            log::warn!("the incidents of the last run cannot go on: {error}; what follows is another");
            None
        });
        let board = Arc::new(Board::default());
        let (orders, taken) = bounded(4);
        let (ended, done) = bounded(1);
        let mut writing = Writing {
            failed: store.is_none(),
            store,
            folder: folder.to_owned(),
            keep_ns: settings.keep_s.saturating_mul(1_000_000_000),
            max_size: settings.max_size,
            waiting: Batch::default(),
            board: Arc::clone(&board),
            numbered: Numbered::new(sent),
            counters,
        };
        std::thread::Builder::new().name("incidents".to_owned()).spawn(move || {
            harden::enter(Role::Incidents);
            writing.run(&taken);
            // Nobody waits for it any more.
            let _ = ended.send(());
        })?;
        Ok((Keeper { orders, closed: Closed::default(), board, done }, last_id, earlier.unwrap_or_default()))
    }

    /// The way to decide about incidents.
    pub fn decider(&self) -> Decider {
        Decider {
            orders: self.orders.clone(),
            closed: Arc::clone(&self.closed),
            board: Arc::clone(&self.board),
        }
    }

    /// A batch would be taken now.
    pub fn has_room(&self) -> bool {
        !self.orders.is_full()
    }

    /// Hands a batch over; does not wait. What is not taken comes back.
    pub fn write(&self, batch: Batch) -> Option<Batch> {
        match self.orders.try_send(Order::Write(batch)) {
            Ok(()) => None,
            Err(error) => match error.into_inner() {
                Order::Write(batch) => Some(batch),
                Order::Decide(..) | Order::Show => None,
            },
        }
    }

    /// The incidents that were closed since this was asked last.
    pub fn closed(&self) -> Vec<String> {
        std::mem::take(&mut *self.closed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until the last batch is written, but not for long. Deciders must be gone by then.
    pub fn close(self, last: Batch) {
        let deadline = Instant::now() + CLOSING_TIME;
        let sent = self.orders.send_deadline(Order::Write(last), deadline).is_ok();
        drop(self.orders);
        if !sent || self.done.recv_deadline(deadline) == Err(RecvTimeoutError::Timeout) {
            log::warn!("the last part of the incidents is not written: the disk does not answer");
        }
    }
}

/// Opens the database; one that is damaged is moved aside and begun anew.
fn open(folder: &Path) -> Result<Store, DatabaseError> {
    create_anew_if_damaged(folder, &SCHEMA, || Store::create(folder))
}

struct Writing {
    store: Option<Store>,
    folder: PathBuf,
    keep_ns: u64,
    max_size: u64,
    waiting: Batch,
    board: Arc<Board>,
    numbered: Numbered,
    failed: bool,
    counters: Arc<Counters>,
}

impl Writing {
    fn run(&mut self, orders: &Receiver<Order>) {
        let mut next_tending = Instant::now();
        loop {
            let pause = match (self.failed, self.numbered.awaited()) {
                (true, _) => RETRY_EVERY,
                (_, true) => NUMBER_EVERY,
                _ => TEND_EVERY,
            };
            match orders.recv_timeout(pause) {
                Ok(Order::Write(batch)) => {
                    self.take(batch);
                    self.write();
                }
                Ok(Order::Decide(id, decision, tell)) => {
                    // Who asked may have given up.
                    let _ = tell.send(self.decide(&id, &decision));
                }
                Ok(Order::Show) => {}
                Err(RecvTimeoutError::Timeout) => {
                    if self.failed {
                        self.write();
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return self.number(),
            }
            if Instant::now() >= next_tending {
                next_tending = Instant::now() + TEND_EVERY;
                self.tend();
            }
            self.number();
            self.show();
        }
    }

    fn take(&mut self, batch: Batch) {
        for head in batch.heads {
            self.waiting.heads.retain(|other| other.id != head.id);
            self.waiting.heads.push(head);
        }
        let room = MOST_WAITING.saturating_sub(self.waiting.things.len());
        let lost = batch.things.len().saturating_sub(room) as u64;
        self.counters.worker.incidents_unsaved.fetch_add(lost, Relaxed);
        self.waiting.things.extend(batch.things.into_iter().take(room));
    }

    /// Puts records into the places of things that waited for them.
    fn number(&mut self) {
        let late = self.numbered.take();
        if let Some(store) = self.store.as_mut().filter(|_| !late.is_empty())
            && let Err(error) = store.set_records(&late)
        {
            log::debug!("records of incidents stay without numbers: {error}");
        }
    }

    fn write(&mut self) {
        self.number();
        self.numbered.number(self.waiting.things.iter_mut().map(|(_, thing)| thing));
        match self.try_to_write() {
            Ok(()) => {
                if std::mem::take(&mut self.failed) {
                    log::info!("the incidents are written again");
                }
            }
            Err(error) => {
                // Said once: it is no reason to fill the log.
                if !self.failed {
                    log::warn!(
                        "the incidents cannot be written: {error}; it is tried again every few seconds"
                    );
                }
                self.failed = true;
            }
        }
    }

    /// Writes what waits: at once where the disk has room, else as much as it leaves.
    fn try_to_write(&mut self) -> Result<(), DatabaseError> {
        loop {
            let mut store = match self.store.take() {
                Some(store) => store,
                None => open(&self.folder)?,
            };
            let disk = Disk::of(&self.folder);
            if disk.room() == 0 {
                self.store = Some(store);
                // What may be removed makes room.
                self.tend();
                return Err(DatabaseError::File(self.folder.join(SCHEMA.file), disk.short()));
            }
            // After an error it is opened anew: it may have been removed, and is moved aside if it is damaged.
            let places = store.write(&self.waiting.heads, &self.waiting.things, disk.room())?;
            self.store = Some(store);
            for (place, (_, thing)) in places.iter().zip(self.waiting.things.drain(..places.len())) {
                self.numbered.wait(&thing, *place);
            }
            if self.waiting.things.is_empty() {
                self.waiting = Batch::default();
                return Ok(());
            }
        }
    }

    /// Shows what is not closed to those who look on.
    fn show(&self) {
        if !self.board.watched() {
            return;
        }
        let Some(store) = &self.store else { return self.board.put(Rows::default()) };
        match store.not_closed(MOST_SHOWN) {
            Ok((count, rows)) => self.board.put(Rows { count, rows }),
            Err(error) => log::debug!("open incidents cannot be shown: {error}"),
        }
    }

    fn decide(&mut self, id: &str, decision: &Decision) -> Result<bool, String> {
        let Some(store) = &mut self.store else { return Err("the database cannot be written".to_owned()) };
        store.decide(id, decision, clock::realtime_ns()).map_err(|error| error.to_string())
    }

    fn tend(&mut self) {
        let Some(store) = &mut self.store else { return };
        let before = clock::realtime_ns().saturating_sub(self.keep_ns);
        match store.trim(before, self.max_size.min(Disk::of(&self.folder).all / OWN_PART)) {
            Ok(0) => {}
            Ok(count) => {
                let them = counted(count, "incident was", "incidents were");
                log::info!("{them} removed, by age or because the database was full");
            }
            Err(error) => log::debug!("old incidents cannot be removed: {error}"),
        }
    }
}

/// Bytes of a file system.
struct Disk {
    all: u64,
    free: u64,
}

impl Disk {
    /// One that does not tell has room; writing says what is wrong with it.
    fn of(folder: &Path) -> Disk {
        let found = nix::sys::statvfs::statvfs(folder);
        found.map_or(Disk { all: u64::MAX, free: u64::MAX }, |found| {
            let bytes = |blocks: u64| blocks.saturating_mul(found.fragment_size());
            Disk { all: bytes(found.blocks()), free: bytes(found.blocks_available()) }
        })
    }

    /// Bytes of texts that the database may take now. As much again is for its pages and its journal.
    fn room(&self) -> u64 {
        self.free.saturating_sub(LEFT_FREE.min(self.all / LEFT_PART)) / 2
    }

    fn short(&self) -> std::io::Error {
        let message = format!(
            "{} KiB of {} are left of the file system, which incidents leave to alerts",
            self.free >> 10,
            self.all >> 10
        );
        std::io::Error::new(std::io::ErrorKind::StorageFull, message)
    }
}
