//! The incidents that are not closed, for those who look on: the keeper puts them here while anybody does, so that no
//! viewer opens the database, and a stopped one cannot keep it locked.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use super::store::Row;

/// Incidents that are shown; all are counted.
pub const MOST_SHOWN: usize = 50;

/// Those that are not closed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rows {
    /// How many there are.
    pub count: u64,
    /// Those of which something was heard last.
    pub rows: Vec<Row>,
}

/// Where the keeper puts them.
#[derive(Debug, Default)]
pub struct Board {
    watchers: AtomicUsize,
    rows: Mutex<Rows>,
}

impl Board {
    /// Somebody looks.
    pub(super) fn watched(&self) -> bool {
        self.watchers.load(Relaxed) > 0
    }

    pub(super) fn put(&self, rows: Rows) {
        *self.rows.lock().unwrap_or_else(PoisonError::into_inner) = rows;
    }
}

/// Somebody who looks.
#[derive(Debug)]
pub struct Watcher(Arc<Board>);

impl Watcher {
    pub(super) fn new(board: &Arc<Board>) -> Watcher {
        board.watchers.fetch_add(1, Relaxed);
        Watcher(Arc::clone(board))
    }

    /// What was put there last.
    pub fn rows(&self) -> Rows {
        self.0.rows.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.0.watchers.fetch_sub(1, Relaxed);
    }
}
