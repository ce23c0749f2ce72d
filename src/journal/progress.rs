//! How far an output is: written by its thread, read by the journal's and by whoever asks.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::position::PositionFile;

/// What an output does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Condition {
    /// The last attempt succeeded.
    Working,
    /// The last attempt failed, and it is made again.
    Retrying,
    /// It will never work again, and nothing is kept for it.
    Closed,
    /// An attempt lasts: whoever is written to takes nothing.
    Hanging,
}

/// An attempt that lasts so long hangs.
const HANGING_AFTER_NS: u64 = 5_000_000_000;

impl Condition {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Condition::Working => "working",
            Condition::Retrying => "retrying",
            Condition::Closed => "closed",
            Condition::Hanging => "hanging",
        }
    }
}

/// How far an output is.
#[derive(Debug)]
pub struct Progress {
    name: String,
    /// Keeps its position over a restart.
    keeps: bool,
    /// All records up to this one were sent, or will never be.
    position: AtomicU64,
    /// When the record was made that it is about to send, in nanoseconds since 1970; 0 if there is none.
    sending_ns: AtomicU64,
    written: AtomicU64,
    lost: AtomicU64,
    condition: AtomicU8,
    /// Since when an attempt lasts, in nanoseconds of the monotonic clock; 0 if none does.
    attempt_since_ns: AtomicU64,
    /// What failed last, and when, in nanoseconds since 1970.
    error: Mutex<Option<(String, u64)>>,
    file: Mutex<Option<PositionFile>>,
    said_unkept: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Progress {
    /// An output that has sent nothing; where it begins is set later.
    pub fn new(name: String, keeps: bool) -> Self {
        Progress {
            name,
            keeps,
            position: AtomicU64::new(0),
            sending_ns: AtomicU64::new(0),
            written: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            condition: AtomicU8::new(Condition::Working as u8),
            attempt_since_ns: AtomicU64::new(0),
            error: Mutex::new(None),
            file: Mutex::new(None),
            said_unkept: AtomicBool::new(false),
        }
    }

    /// The output's name and place.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its position is kept over a restart.
    pub fn keeps(&self) -> bool {
        self.keeps
    }

    /// The file in which its position is kept, once there is one.
    pub fn set_file(&self, file: PositionFile) {
        *lock(&self.file) = Some(file);
        self.keep();
    }

    /// Its position is being kept.
    pub fn has_file(&self) -> bool {
        lock(&self.file).is_some()
    }

    /// All records up to this one were sent, or will never be.
    pub fn position(&self) -> u64 {
        self.position.load(Relaxed)
    }

    /// Takes the position and writes it down.
    pub fn advance(&self, number: u64) {
        if self.position.swap(number, Relaxed) != number {
            self.keep();
        }
    }

    fn keep(&self) {
        let file = lock(&self.file);
        let Some(file) = &*file else { return };
        match file.keep(self.position()) {
            Ok(()) => self.said_unkept.store(false, Relaxed),
            Err(error) if !self.said_unkept.swap(true, Relaxed) => log::warn!(
                "the position of output {} cannot be kept: {error}; after a restart it repeats records, with the same ids",
                self.name
            ),
            Err(_) => {}
        }
    }

    /// The record that it is about to send was made at this time; 0 if there is none.
    pub fn set_sending(&self, time_ns: u64) {
        self.sending_ns.store(time_ns, Relaxed);
    }

    /// When the record was made that it is about to send; 0 if there is none.
    pub fn sending_ns(&self) -> u64 {
        self.sending_ns.load(Relaxed)
    }

    /// Records written, and lost.
    pub fn counts(&self) -> (u64, u64) {
        (self.written.load(Relaxed), self.lost.load(Relaxed))
    }

    /// Counts records that were written.
    pub fn add_written(&self, count: u64) {
        self.written.fetch_add(count, Relaxed);
    }

    /// Counts records that will never be written.
    pub fn add_lost(&self, count: u64) {
        self.lost.fetch_add(count, Relaxed);
    }

    /// An attempt begins at this time of the monotonic clock, in nanoseconds; 0 if it has ended.
    pub fn set_attempt(&self, since_ns: u64) {
        self.attempt_since_ns.store(since_ns, Relaxed);
    }

    /// What it does, as somebody else sees it at this time of the monotonic clock, in nanoseconds.
    pub fn condition_at(&self, now_ns: u64) -> Condition {
        let since_ns = self.attempt_since_ns.load(Relaxed);
        match self.condition() {
            Condition::Working if since_ns != 0 && now_ns.saturating_sub(since_ns) > HANGING_AFTER_NS => {
                Condition::Hanging
            }
            condition => condition,
        }
    }

    /// What became of its last attempt that has ended.
    pub fn condition(&self) -> Condition {
        match self.condition.load(Relaxed) {
            0 => Condition::Working,
            1 => Condition::Retrying,
            _ => Condition::Closed,
        }
    }

    /// Notes what it does.
    pub fn set_condition(&self, condition: Condition) {
        self.condition.store(condition as u8, Relaxed);
    }

    /// Notes what failed.
    pub fn set_error(&self, message: String, time_ns: u64) {
        *lock(&self.error) = Some((message, time_ns));
    }

    /// What failed last, and when, in nanoseconds since 1970.
    pub fn last_error(&self) -> Option<(String, u64)> {
        lock(&self.error).clone()
    }
}
