//! When a process is looked at.
//!
//! At the configured moments, where a record is written if there is something to say; and between and after them, ever
//! more seldom, so that what is known is not too old when the process ends without warning.

use std::sync::Arc;

const NS_PER_S: u64 = 1_000_000_000;
/// The pause between looks is this part of the process's age,
const PART: u64 = 4;
/// but within these bounds.
const PAUSES: (u64, u64) = (NS_PER_S, 60 * NS_PER_S);

/// Why a look is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// A configured moment.
    Moment,
    /// To keep what is known fresh.
    Between,
    /// The same, before the first moment: nothing is said so early.
    Early,
}

/// The plan of one process. Times are nanoseconds since its exec.
#[derive(Debug, Clone)]
pub struct Plan {
    moments: Arc<[u64]>,
    passed: usize,
    between_ns: u64,
}

impl Plan {
    /// A look at once, then at the moments, which are ascending.
    pub fn new(moments: Arc<[u64]>) -> Self {
        Plan { moments, passed: 0, between_ns: 0 }
    }

    /// The next look.
    pub fn next_ns(&self) -> u64 {
        self.moments.get(self.passed).map_or(self.between_ns, |&moment| moment.min(self.between_ns))
    }

    /// Whether a look is due at this age. Moments that were missed are made up for by one look.
    pub fn take(&mut self, age_ns: u64) -> Option<Due> {
        if self.next_ns() > age_ns {
            return None;
        }
        let passed = self.moments.partition_point(|&moment| moment <= age_ns);
        let due = match passed {
            0 if !self.moments.is_empty() => Due::Early,
            _ if passed > self.passed => Due::Moment,
            _ => Due::Between,
        };
        self.passed = passed.max(self.passed);
        self.between_ns = age_ns.saturating_add((age_ns / PART).clamp(PAUSES.0, PAUSES.1));
        Some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_and_ever_longer_pauses() {
        let second = NS_PER_S;
        let mut plan = Plan::new([second / 10, second, 10 * second].into());
        assert_eq!(plan.take(0), Some(Due::Early));
        assert_eq!(plan.take(second / 20), None);
        assert_eq!(plan.take(second / 10), Some(Due::Moment));
        assert_eq!(plan.next_ns(), second);
        assert_eq!(plan.take(second), Some(Due::Moment));
        assert_eq!(plan.next_ns(), 2 * second);
        assert_eq!(plan.take(2 * second), Some(Due::Between));
        // A late look counts for the moments before it.
        assert_eq!(plan.take(20 * second), Some(Due::Moment));
        assert_eq!(plan.next_ns(), 25 * second);
        assert_eq!(plan.take(10_000 * second), Some(Due::Between));
        assert_eq!(plan.next_ns(), 10_060 * second);
    }

    #[test]
    fn no_moments() {
        let mut plan = Plan::new([].into());
        assert_eq!(plan.take(0), Some(Due::Between));
        assert_eq!(plan.take(1), None);
        assert_eq!(plan.take(u64::MAX), Some(Due::Between));
        assert_eq!(plan.next_ns(), u64::MAX);
    }
}
