//! How often a rule may act: an atomic that listeners and worker share.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const NS_PER_MINUTE: u64 = 60_000_000_000;

/// A minute, by number since the start of the host, and how often the rule acted in it.
#[derive(Debug, Default)]
pub struct Rate(AtomicU64);

impl Rate {
    /// Takes one of the minute's `limit` turns, at `now_ns` (CLOCK_MONOTONIC); false if none is left.
    pub fn take(&self, limit: u32, now_ns: u64) -> bool {
        let minute = (now_ns / NS_PER_MINUTE) & 0xffff_ffff;
        let next = |packed: u64| {
            let used = if packed >> 32 == minute { packed & 0xffff_ffff } else { 0 };
            (used < u64::from(limit)).then(|| minute << 32 | (used + 1))
        };
        // Only so many threads compete as there are CPUs, and each wins in its turn.
        self.0.fetch_update(Relaxed, Relaxed, next).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_often_in_a_minute_and_no_more() {
        let rate = Rate::default();
        let taken = |at_s: u64| (0..10).filter(|_| rate.take(3, at_s * 1_000_000_000)).count();
        assert_eq!((taken(0), taken(59), taken(60), taken(119), taken(120)), (3, 0, 3, 0, 3));
        assert!(!rate.take(0, 1 << 60));
    }

    #[test]
    fn threads_share_the_turns() {
        let rate = Rate::default();
        let taken: usize = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..4).map(|_| scope.spawn(|| (0..1000).filter(|_| rate.take(1500, 7)).count())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(taken, 1500);
    }
}
