//! How long a server that failed is left alone.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, Instant};

/// The first pause, and the longest: a fleet must not call a server back every second.
const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(30);

/// The failures of a server since it last worked.
#[derive(Debug, Default)]
pub struct Pause {
    failures: u32,
    until: Option<Instant>,
}

impl Pause {
    /// It failed once more.
    pub fn failed(&mut self, now: Instant) {
        self.until = Some(now + after(self.failures, random()));
        self.failures = self.failures.saturating_add(1);
    }

    /// It works.
    pub fn worked(&mut self) {
        *self = Pause::default();
    }

    /// It may be tried.
    pub fn is_over(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now >= until)
    }
}

/// The pause after so many failures before: twice as long each time, and of that between a half and all, so that hosts
/// which lost a server at the same moment do not all come back at another.
fn after(failures: u32, random: u32) -> Duration {
    let whole = FIRST.saturating_mul(1 << failures.min(16)).min(LONGEST);
    whole / 2 + (whole / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
}

/// Not good enough for keys.
fn random() -> u32 {
    (RandomState::new().build_hasher().finish() >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses() {
        let ms = |failures, random| after(failures, random).as_millis();
        assert_eq!([ms(0, 0), ms(0, u32::MAX), ms(1, 0), ms(3, u32::MAX)], [125, 250, 250, 2000]);
        assert_eq!([ms(7, 0), ms(7, u32::MAX), ms(u32::MAX, u32::MAX)], [15_000, 30_000, 30_000]);
        let different: std::collections::HashSet<u32> = (0..16).map(|_| random()).collect();
        assert!(different.len() > 1);
        let now = Instant::now();
        let mut pause = Pause::default();
        assert!(pause.is_over(now));
        pause.failed(now);
        assert!(!pause.is_over(now) && pause.is_over(now + FIRST));
        pause.worked();
        assert!(pause.is_over(now));
    }
}
