//! What /proc says of ancestors that live, remembered for a moment.
//!
//! Working directory, terminal, cgroup and the like are read when an exec asks for its ancestors. Execs come in bursts
//! from the same few ancestors, so what was read a moment ago is good enough, and after a process ended it is all there
//! is.

use std::collections::HashMap;

use super::Ancestor;
use crate::clock;
use crate::process::relatives::{Processes, Relative};

/// How long what was read counts as present, in nanoseconds.
const FRESH_NS: u64 = 1_000_000_000;
/// Processes remembered; when there are more, all but the fresh ones are forgotten.
const MOST: usize = 1024;
/// A start time in /proc is exact to a tick, and so is its conversion.
const SAME_START_TICKS: u64 = 2;

/// The memory.
#[derive(Debug, Default)]
pub(super) struct Facts {
    known: HashMap<(u32, u64), (u64, Relative)>,
}

impl Facts {
    /// What is known of a living ancestor; `None` if it cannot be found, or not under this start time.
    pub(super) fn get(&mut self, processes: &dyn Processes, ancestor: &Ancestor) -> Option<Relative> {
        let now_ns = clock::monotonic_ns();
        let fresh = |read_ns: u64| now_ns.saturating_sub(read_ns) < FRESH_NS;
        let key = (ancestor.pid, ancestor.start_ns?);
        if let Some((read_ns, known)) = self.known.get(&key)
            && fresh(*read_ns)
        {
            return Some(known.clone());
        }
        let ticks = clock::start_ticks_from_monotonic(key.1);
        let same = |found: &Relative| {
            found.start_ticks.is_some_and(|start| start.abs_diff(ticks) <= SAME_START_TICKS)
        };
        let found = processes.find(ancestor.pid, None).filter(same)?;
        if self.known.len() >= MOST {
            self.known.retain(|_, (read_ns, _)| fresh(*read_ns));
        }
        if self.known.len() < MOST {
            self.known.insert(key, (now_ns, found.clone()));
        }
        Some(found)
    }

    /// What was last known of an ancestor.
    pub(super) fn last(&self, ancestor: &Ancestor) -> Option<Relative> {
        Some(self.known.get(&(ancestor.pid, ancestor.start_ns?))?.1.clone())
    }
}
