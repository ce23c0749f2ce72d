//! How long a server that failed is left alone.

use std::time::{Duration, Instant};

use crate::output::backoff::Backoff;

/// The first pause, and the longest: a fleet must not call a server back every second.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));

/// The pauses of a server since it last worked.
#[derive(Debug)]
pub struct Pause {
    backoff: Backoff,
    until: Option<Instant>,
}

impl Default for Pause {
    fn default() -> Self {
        Pause { backoff: Backoff::new(PAUSES), until: None }
    }
}

impl Pause {
    /// It failed once more.
    pub fn failed(&mut self, now: Instant) {
        self.until = Some(now + self.backoff.pause());
    }

    /// It works.
    pub fn worked(&mut self) {
        self.backoff.reset();
        self.until = None;
    }

    /// It may be tried.
    pub fn is_over(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now >= until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses() {
        let now = Instant::now();
        let mut pause = Pause::default();
        assert!(pause.is_over(now));
        pause.failed(now);
        assert!(!pause.is_over(now + PAUSES.0 / 4) && pause.is_over(now + PAUSES.0));
        pause.failed(now);
        assert!(!pause.is_over(now + PAUSES.0 * 3 / 4) && pause.is_over(now + PAUSES.0 * 2));
        (0..20).for_each(|_| pause.failed(now));
        assert!(!pause.is_over(now + PAUSES.1 / 4) && pause.is_over(now + PAUSES.1));
        pause.worked();
        assert!(pause.is_over(now));
        pause.failed(now);
        assert!(pause.is_over(now + PAUSES.0));
    }
}
