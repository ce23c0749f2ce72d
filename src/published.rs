//! How something that one thread makes reaches the listeners: whole, and without a wait.
//!
//! A listener has its own reference and looks, for each program, only at a number that tells whether there is something
//! newer. It takes that under a lock that it merely tries: a maker that was preempted while it held the lock would
//! otherwise hold up a listener of real-time priority, which nothing else on its CPU could end. And a listener never frees
//! anything: the maker does, when nobody else has it any more.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};

/// What the maker and those who read share.
#[derive(Debug, Default)]
pub struct Published<T> {
    generation: AtomicU64,
    current: Mutex<Arc<T>>,
}

impl<T> Published<T> {
    /// Shares the first one.
    pub fn new(first: T) -> Self {
        Published { generation: AtomicU64::new(0), current: Mutex::new(Arc::new(first)) }
    }

    /// What is shared now. Not for a listener: it may wait.
    pub fn current(&self) -> Arc<T> {
        Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Shares another; returns the last one, which listeners still use. It must be kept until they do not.
    pub fn replace(&self, next: Arc<T>) -> Arc<T> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let last = std::mem::replace(&mut *current, next);
        self.generation.fetch_add(1, Ordering::Release);
        last
    }
}

/// A listener's reference.
#[derive(Debug)]
pub struct Reader<T> {
    published: Arc<Published<T>>,
    generation: u64,
    current: Arc<T>,
}

impl<T> Reader<T> {
    /// A reference to what is shared now.
    pub fn new(published: Arc<Published<T>>) -> Self {
        // Read first: what is replaced meanwhile is only taken once more.
        let generation = published.generation.load(Ordering::Acquire);
        let current = published.current();
        Reader { published, generation, current }
    }

    /// Takes a newer one if there is one and nobody holds the lock; true if it did.
    pub fn refresh(&mut self) -> bool {
        let generation = self.published.generation.load(Ordering::Acquire);
        if generation == self.generation {
            return false;
        }
        let current = match self.published.current.try_lock() {
            Ok(current) => current,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // The next program finds it free.
            Err(TryLockError::WouldBlock) => return false,
        };
        self.current = Arc::clone(&current);
        self.generation = generation;
        true
    }

    /// What was taken last is what is shared now.
    pub fn is_current(&self) -> bool {
        self.published.generation.load(Ordering::Acquire) == self.generation
    }

    /// What was taken last.
    pub fn get(&self) -> &T {
        &self.current
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_one_is_taken_unless_the_lock_is_held() {
        let published = Arc::new(Published::new(1));
        let mut reader = Reader::new(Arc::clone(&published));
        assert!(!reader.refresh());
        let last = published.replace(Arc::new(2));
        assert_eq!((Arc::strong_count(&last), *reader.get()), (2, 1), "the reader still has it");
        let held = published.current.lock().unwrap();
        assert!(!reader.refresh() && !reader.is_current());
        drop(held);
        assert!(reader.refresh() && !reader.refresh() && reader.is_current());
        assert_eq!((Arc::strong_count(&last), *reader.get()), (1, 2));
    }
}
