//! The thread that writes the baseline down, so that nothing else waits for a disk.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::MOST_WAITING;
use super::days::Kept;
use super::memory::{Change, Row};
use super::store::{Content, SCHEMA, Store};
use super::tuple::{Key, Tuple};
use crate::database::{DatabaseError, create_anew_if_damaged};
use crate::harden;
use crate::harden::roles::Role;

/// How often it is looked whether `execwatch baseline` changed something.
const LOOK_EVERY: Duration = Duration::from_secs(3);
/// How long the end waits for the last batch.
const CLOSING_TIME: Duration = Duration::from_secs(3);

/// What is to be written.
#[derive(Debug)]
pub struct Batch {
    /// Tuples and their numbers.
    pub rows: Vec<(Key, Tuple, Row)>,
    /// The days.
    pub days: Kept,
    /// Tuples were forgotten for want of room, and so must be here.
    pub full: bool,
    /// The last change from the command line that these rows know of.
    pub applied: u64,
}

/// The thread, seen from the worker.
#[derive(Debug)]
pub struct Keeper {
    batches: Sender<Batch>,
    changes: Receiver<Vec<(u64, Change)>>,
    done: Receiver<()>,
    lost: Arc<AtomicU64>,
}

/// What was kept, and the last change from the command line that it knows of.
pub type Found = (Content, u64);

impl Keeper {
    /// Opens the database in `folder` and starts the thread; `None` if nothing can be written, which is said.
    pub fn start(folder: &Path, rows: usize) -> (Option<Keeper>, Found) {
        let boot_id = boot_id();
        let (store, found) = match open(folder, &boot_id) {
            Ok(opened) => opened,
            Err(error) => {
                log::warn!(
                    "the baseline cannot be kept: {error}; what is seen is remembered until execwatch ends. See to the \
                     folder of [state], or set [baseline] mode = \"off\""
                );
                // What was learnt counts all the same.
                let kept = Store::open(folder, false).and_then(|store| read(&store, &boot_id));
                return (None, kept.unwrap_or_default());
            }
        };
        let (batches, to_write) = bounded(1);
        let (tell, changes) = bounded(4);
        let (ended, done) = bounded(1);
        let lost = Arc::new(AtomicU64::new(0));
        let mut writing = Writing {
            store,
            folder: folder.to_owned(),
            boot_id,
            most: rows,
            pending: HashMap::new(),
            days: Kept::default(),
            applied: found.1,
            full: false,
            failed: false,
            lost: Arc::clone(&lost),
        };
        let told = found.1;
        let run = move || {
            harden::enter(Role::Baseline);
            writing.run(&to_write, &tell, told);
            // Nobody waits for it any more.
            let _ = ended.send(());
        };
        match std::thread::Builder::new().name("baseline".to_owned()).spawn(run) {
            Ok(_) => (Some(Keeper { batches, changes, done, lost }), found),
            Err(error) => {
                log::warn!("the baseline cannot be kept, because no thread can be started: {error}");
                (None, found)
            }
        }
    }

    /// A batch would be taken now.
    pub fn has_room(&self) -> bool {
        !self.batches.is_full()
    }

    /// Hands a batch over; does not wait.
    pub fn write(&self, batch: Batch) {
        // There was room a moment ago, and nobody else hands over.
        if let Err(error) = self.batches.try_send(batch) {
            self.lost.fetch_add(error.into_inner().rows.len() as u64, Relaxed);
        }
    }

    /// What was changed from the command line since this was asked last, with numbers.
    pub fn changes(&self) -> impl Iterator<Item = (u64, Change)> {
        self.changes.try_iter().flatten()
    }

    /// Rows that could not be written for long, and were given up.
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    /// Waits until what was handed over is written, but not for long.
    pub fn close(self) {
        drop(self.batches);
        if self.done.recv_timeout(CLOSING_TIME) == Err(RecvTimeoutError::Timeout) {
            log::warn!("the last part of the baseline is not written: the disk does not answer");
        }
    }
}

fn boot_id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

fn read(store: &Store, boot_id: &str) -> Result<Found, DatabaseError> {
    // Before the rows: a change that comes between is found again.
    let applied = store.last_change()?;
    Ok((store.load(boot_id)?, applied))
}

/// Opens the database; one that is damaged is moved aside and begun anew.
fn open(folder: &Path, boot_id: &str) -> Result<(Store, Found), DatabaseError> {
    create_anew_if_damaged(folder, &SCHEMA, || {
        let store = Store::create(folder)?;
        let found = read(&store, boot_id)?;
        Ok((store, found))
    })
}

struct Writing {
    store: Store,
    folder: PathBuf,
    boot_id: String,
    most: usize,
    /// What is to be written; more than the last batch after writing failed.
    pending: HashMap<Key, (Tuple, Row)>,
    days: Kept,
    /// The last change that all of that knows of.
    applied: u64,
    full: bool,
    failed: bool,
    lost: Arc<AtomicU64>,
}

impl Writing {
    fn run(&mut self, batches: &Receiver<Batch>, tell: &Sender<Vec<(u64, Change)>>, mut told: u64) {
        let mut stamp = None;
        loop {
            match batches.recv_timeout(LOOK_EVERY) {
                Ok(batch) => {
                    self.take(batch);
                    self.write();
                }
                Err(RecvTimeoutError::Timeout) => {
                    if self.failed {
                        self.write();
                    }
                }
                Err(RecvTimeoutError::Disconnected) => {
                    if self.failed {
                        self.write();
                    }
                    return;
                }
            }
            // An error has been said by `write`, or comes again there.
            let Ok(now) = self.store.stamp() else { continue };
            if stamp == Some(now) {
                continue;
            }
            let Ok(changes) = self.store.changes(told) else { continue };
            let last = changes.last().map(|&(number, _)| number);
            if changes.is_empty() || tell.try_send(changes).is_ok() {
                told = last.unwrap_or(told);
                stamp = Some(now);
            }
        }
    }

    fn take(&mut self, batch: Batch) {
        // Rows that are still here from an earlier batch know less.
        self.applied = if self.pending.is_empty() { batch.applied } else { self.applied.min(batch.applied) };
        self.full |= batch.full;
        self.days = batch.days;
        for (key, tuple, row) in batch.rows {
            if self.pending.len() < MOST_WAITING || self.pending.contains_key(&key) {
                self.pending.insert(key, (tuple, row));
            } else {
                self.lost.fetch_add(1, Relaxed);
            }
        }
    }

    fn write(&mut self) {
        let trim = self.full.then_some(self.most);
        match self.store.write(&self.pending, &self.days, &self.boot_id, trim, self.applied) {
            Ok(()) => {
                self.pending = HashMap::new();
                self.full = false;
                if std::mem::take(&mut self.failed) {
                    log::info!("the baseline is written again");
                }
            }
            Err(error) => {
                // Said once: it is no reason to fill the log.
                if !self.failed {
                    log::warn!(
                        "the baseline cannot be written: {error}; it is tried again every few seconds"
                    );
                }
                self.failed = true;
                if matches!(error, DatabaseError::Corrupt(..))
                    && let Ok((store, _)) = open(&self.folder, &self.boot_id)
                {
                    self.store = store;
                }
            }
        }
    }
}
