//! Which rules are in force, and how newer ones reach the listeners and the worker.
//!
//! In: rule sets, compiled aside by whoever reloads. Out: each listener's own reference to the set of now.
//!
//! A listener holds a program while it works, so it waits for nobody and frees nothing. It has a mailbox of its own and
//! looks, for each program, only at a flag in it; nobody but the one who reloads ever puts anything there, so the lock is
//! free as soon as [`Current::replace`] has returned: every program that is executed after that is judged by the new set.
//! What a listener lets go of, the reloading thread keeps until nobody else has it, and frees it there: memory that one
//! thread gets and another frees makes the two share a lock of the allocator.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use super::ruleset::RuleSet;
use crate::process::capture::{Everything, Prefilter, Wants};

/// The rule set of now.
pub struct Current {
    /// Grows with each set.
    generation: AtomicU64,
    /// Every program is let through to the worker, to be recorded.
    everything: bool,
    state: Mutex<State>,
}

struct State {
    in_force: InForce,
    mailboxes: Vec<Arc<Mailbox>>,
    /// Sets that somebody may still use.
    retired: Vec<InForce>,
}

/// A set, and what the listeners use of it.
#[derive(Clone)]
struct InForce {
    ruleset: Arc<RuleSet>,
    filter: Arc<dyn Prefilter>,
}

impl InForce {
    fn new(ruleset: Arc<RuleSet>, everything: bool) -> Self {
        let filter: Arc<dyn Prefilter> = match everything {
            true => Arc::new(Everything(Arc::clone(&ruleset) as _)),
            false => Arc::clone(&ruleset) as _,
        };
        InForce { ruleset, filter }
    }

    /// Nobody else has it. The count cannot grow again: only the set in force is handed out.
    fn is_let_go(&self, everything: bool) -> bool {
        // Of the set itself there are two references here: its own, and the filter, which is it or holds it.
        Arc::strong_count(&self.ruleset) == 2
            && Arc::strong_count(&self.filter) == if everything { 1 } else { 2 }
    }
}

/// Where a newer set waits for one listener.
struct Mailbox {
    full: AtomicBool,
    newer: Mutex<Option<Arc<dyn Prefilter>>>,
}

impl Mailbox {
    fn put(&self, filter: Arc<dyn Prefilter>) {
        let mut newer = self.newer.lock().unwrap_or_else(PoisonError::into_inner);
        // One that was never fetched is dropped here, not by the listener.
        *newer = Some(filter);
        self.full.store(true, Ordering::Release);
    }

    fn take(&self) -> Option<Arc<dyn Prefilter>> {
        let mut newer = match self.newer.try_lock() {
            Ok(newer) => newer,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // It is being put there: the next program will find it.
            Err(TryLockError::WouldBlock) => return None,
        };
        self.full.store(false, Ordering::Relaxed);
        newer.take()
    }
}

impl State {
    /// Listeners end with their CPUs, and when others take their place.
    fn forget_ended(&mut self) {
        self.mailboxes.retain(|mailbox| Arc::strong_count(mailbox) > 1);
    }
}

impl Current {
    /// The first set; with `everything`, every program is let through to the worker.
    pub fn new(ruleset: Arc<RuleSet>, everything: bool) -> Self {
        let in_force = InForce::new(ruleset, everything);
        Current {
            generation: AtomicU64::new(0),
            everything,
            state: Mutex::new(State { in_force, mailboxes: Vec::new(), retired: Vec::new() }),
        }
    }

    /// The set in force. Not for a listener: it may wait.
    pub fn ruleset(&self) -> Arc<RuleSet> {
        Arc::clone(&self.lock().in_force.ruleset)
    }

    /// Changes whenever the set does.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// A listener's reference. Not to be called on a listener's thread.
    pub fn subscribe(&self) -> Subscription {
        let mut state = self.lock();
        state.forget_ended();
        let mailbox = Arc::new(Mailbox { full: AtomicBool::new(false), newer: Mutex::new(None) });
        state.mailboxes.push(Arc::clone(&mailbox));
        let filter = Arc::clone(&state.in_force.filter);
        Subscription { mailbox, wants: filter.wants(), filter }
    }

    /// Puts another set in force: from the return on, every program that is executed is judged by it.
    pub fn replace(&self, ruleset: Arc<RuleSet>) {
        let next = InForce::new(ruleset, self.everything);
        let mut state = self.lock();
        // First: whoever is told of a program by the next set waits for the lock, and has that set.
        self.generation.fetch_add(1, Ordering::Release);
        state.forget_ended();
        state.mailboxes.iter().for_each(|mailbox| mailbox.put(Arc::clone(&next.filter)));
        let last = std::mem::replace(&mut state.in_force, next);
        state.retired.push(last);
    }

    /// Frees the sets that nobody uses any more; how many are left. For the thread that made them.
    pub fn free(&self) -> usize {
        let mut state = self.lock();
        let (free, used) =
            std::mem::take(&mut state.retired).into_iter().partition(|set| set.is_let_go(self.everything));
        state.retired = used;
        let left = state.retired.len();
        drop(state);
        // After the lock, which the worker and those who start listeners take.
        drop::<Vec<InForce>>(free);
        left
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A listener's reference to the set in force.
pub struct Subscription {
    mailbox: Arc<Mailbox>,
    filter: Arc<dyn Prefilter>,
    wants: Wants,
}

impl Subscription {
    /// Takes a newer set if there is one.
    #[inline]
    pub fn refresh(&mut self) {
        if self.mailbox.full.load(Ordering::Acquire)
            && let Some(filter) = self.mailbox.take()
        {
            self.wants = filter.wants();
            // Only counted down: `Current` keeps what was in force before.
            self.filter = filter;
        }
    }

    /// What decides whether a rule could match.
    pub fn filter(&self) -> &dyn Prefilter {
        &*self.filter
    }

    /// What it wants to be read.
    pub fn wants(&self) -> Wants {
        self.wants
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::exec::Image;
    use crate::rules::catalogue::Hints;

    fn set() -> Arc<RuleSet> {
        Arc::new(RuleSet::default())
    }

    #[test]
    fn a_set_is_freed_when_every_listener_has_let_go_of_it() {
        for everything in [false, true] {
            let (first, second) = (set(), set());
            let current = Current::new(Arc::clone(&first), everything);
            let (mut busy, mut idle) = (current.subscribe(), current.subscribe());
            let first = Arc::downgrade(&{ first });
            current.replace(Arc::clone(&second));
            let second = Arc::downgrade(&{ second });
            busy.refresh();
            assert_eq!(current.free(), 1, "the idle one still has it");
            // It never saw the second: that is let go of by whoever puts the third.
            current.replace(set());
            busy.refresh();
            assert_eq!((current.free(), second.strong_count()), (1, 0));
            idle.refresh();
            assert_eq!((current.free(), first.strong_count()), (0, 0));
            assert_eq!(current.generation(), 2);
            assert_eq!(busy.filter().could_match(&Image::default(), Hints::default()), everything);
        }
    }

    #[test]
    fn a_newer_set_is_never_waited_for_and_never_missed() {
        let current = Current::new(set(), false);
        let mut listener = current.subscribe();
        let before = Arc::downgrade(&listener.filter);
        current.replace(set());
        let held = Arc::clone(&listener.mailbox);
        let lock = held.newer.lock().unwrap();
        listener.refresh();
        assert!(Arc::ptr_eq(&before.upgrade().unwrap(), &listener.filter));
        drop(lock);
        listener.refresh();
        assert!(!Arc::ptr_eq(&before.upgrade().unwrap(), &listener.filter));
        drop(held);
        drop(listener);
        current.replace(set());
        assert_eq!(current.lock().mailboxes.len(), 0, "of a listener that has ended nothing is left");
        assert_eq!(current.free(), 0);
    }

    #[test]
    fn listeners_and_reloads_at_the_same_time() {
        let current = Current::new(set(), false);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                let (mut listener, stop) = (current.subscribe(), &stop);
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        listener.refresh();
                        assert!(!listener.filter().could_match(&Image::default(), Hints::default()));
                    }
                });
            }
            for _ in 0..2000 {
                current.replace(set());
                assert!(current.free() <= 3, "each listener has one, and may be about to take another");
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert_eq!(current.free(), 0);
    }
}
