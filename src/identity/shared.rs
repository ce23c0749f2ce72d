//! How the index reaches the listeners: whole, and without a wait.
//!
//! A listener has its own reference to the index and looks, for each program, only at a number that tells whether there
//! is a newer one. It takes that under a lock that it merely tries: a keeper that was preempted while it held the lock
//! would otherwise hold up a listener of real-time priority, which nothing else on its CPU could end. And a listener
//! never frees an index: the keeper does, when nobody else has it any more.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};

use super::index::Index;
use super::mounts::Learned;

/// What keeper, listeners and worker share.
#[derive(Debug, Default)]
pub struct Shared {
    generation: AtomicU64,
    current: Mutex<Arc<Index>>,
    /// What the worker learned of file systems.
    pub learned: Learned,
}

impl Shared {
    /// Shares an index.
    pub fn new(index: Index) -> Self {
        let shared = Shared::default();
        drop(shared.replace(Arc::new(index)));
        shared
    }

    /// The index of now. Not for a listener: it may wait.
    pub fn current(&self) -> Arc<Index> {
        Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Shares another index; returns the last one, which listeners still use. It must be kept until they do not.
    pub fn replace(&self, index: Arc<Index>) -> Arc<Index> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let last = std::mem::replace(&mut *current, index);
        self.generation.fetch_add(1, Ordering::Release);
        last
    }
}

/// A listener's reference.
#[derive(Debug)]
pub struct Reader {
    shared: Arc<Shared>,
    generation: u64,
    index: Arc<Index>,
}

impl Reader {
    /// A reader of the index of now.
    pub fn new(shared: Arc<Shared>) -> Self {
        // Read first: an index that is replaced meanwhile is only taken once more.
        let generation = shared.generation.load(Ordering::Acquire);
        let index = shared.current();
        Reader { shared, generation, index }
    }

    /// Takes a newer index if there is one and nobody holds the lock; true if it did.
    pub fn refresh(&mut self) -> bool {
        let generation = self.shared.generation.load(Ordering::Acquire);
        if generation == self.generation {
            return false;
        }
        let current = match self.shared.current.try_lock() {
            Ok(current) => current,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // The next program finds it free.
            Err(TryLockError::WouldBlock) => return false,
        };
        self.index = Arc::clone(&current);
        self.generation = generation;
        true
    }

    /// The index.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// What the worker learned.
    pub fn learned(&self) -> &Learned {
        &self.shared.learned
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_index_is_taken_unless_the_lock_is_held() {
        let shared = Arc::new(Shared::default());
        let mut reader = Reader::new(Arc::clone(&shared));
        assert!(!reader.refresh());
        let last = shared.replace(Arc::new(Index::default()));
        assert_eq!(Arc::strong_count(&last), 2, "the reader still has it");
        let held = shared.current.lock().unwrap();
        assert!(!reader.refresh());
        drop(held);
        assert!(reader.refresh() && !reader.refresh());
        assert_eq!(Arc::strong_count(&last), 1);
    }
}
