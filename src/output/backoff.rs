//! Pauses between attempts: twice as long each time, up to a limit, and none quite like another's.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// The pauses of one thing that is tried again and again.
#[derive(Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
    random: RandomState,
    count: u64,
}

impl Backoff {
    /// Pauses from the first to the longest.
    pub fn new((first, longest): (Duration, Duration)) -> Self {
        Backoff { first, longest, next: first, random: RandomState::new(), count: 0 }
    }

    /// It worked: begins anew.
    pub fn reset(&mut self) {
        self.next = self.first;
    }

    /// How long to wait before the next attempt: between half and all of the pause whose turn it is. So a hundred hosts
    /// whose receiver comes back do not all call it at the same moment.
    pub fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.longest);
        self.count += 1;
        let share = self.random.hash_one(self.count) % 1024;
        pause / 2 + pause * u32::try_from(share).unwrap_or(0) / 2048
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_differ() {
        let (first, longest) = (Duration::from_millis(100), Duration::from_millis(900));
        let mut backoff = Backoff::new((first, longest));
        for expected in [100, 200, 400, 800, 900, 900] {
            let pause = backoff.pause();
            let expected = Duration::from_millis(expected);
            assert!(pause >= expected / 2 && pause < expected, "{pause:?} of {expected:?}");
        }
        backoff.reset();
        assert!(backoff.pause() < first);
        let firsts: std::collections::HashSet<Duration> =
            (0..20).map(|_| Backoff::new((first, longest)).pause()).collect();
        assert!(firsts.len() > 10, "{firsts:?}");
    }
}
