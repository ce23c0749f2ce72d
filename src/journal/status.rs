//! What `execwatch status` can ask of journal and outputs, at any time and from any thread.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::progress::{Condition, Progress};
use super::shared::Shared;
use crate::clock;

/// The journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalStatus {
    /// Records are written to files; otherwise they are in memory only.
    pub on_disk: bool,
    /// Bytes of all segments.
    pub bytes: u64,
    /// Their number.
    pub segments: usize,
    /// Records in memory, and their bytes.
    pub in_memory: (usize, usize),
    /// The oldest record that can still be had; `None` if there is none.
    pub oldest: Option<u64>,
    /// The newest record; 0 before the first.
    pub newest: u64,
    /// Records that were not taken for want of room.
    pub dropped: u64,
}

/// An output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputStatus {
    /// Its name and place.
    pub name: String,
    /// What it does.
    pub condition: Condition,
    /// All records up to this one were sent, or will never be.
    pub position: u64,
    /// Records that wait for it.
    pub lag: u64,
    /// How long the one it is about to send has waited, in seconds; 0 if none waits.
    pub lag_s: u64,
    /// Records written since the start.
    pub written: u64,
    /// Records that it will never send.
    pub lost: u64,
    /// What failed last, and when, in nanoseconds since 1970.
    pub last_error: Option<(String, u64)>,
}

/// Where the answers come from.
#[derive(Debug, Clone)]
pub struct Status {
    pub(super) shared: Arc<Shared>,
    pub(super) outputs: Vec<Arc<Progress>>,
}

impl Status {
    /// The journal now.
    pub fn journal(&self) -> JournalStatus {
        let state = self.shared.lock();
        JournalStatus {
            on_disk: self.shared.on_disk.load(Relaxed),
            bytes: state.segments.iter().map(|segment| segment.bytes).sum(),
            segments: state.segments.len(),
            in_memory: (state.tail.len(), state.tail_bytes),
            oldest: Some(state.oldest()).filter(|&oldest| oldest < state.next),
            newest: state.next.saturating_sub(1),
            dropped: self.shared.dropped.load(Relaxed),
        }
    }

    /// The outputs now, in the order of the configuration. `now_ns` is the time since 1970.
    pub fn outputs(&self, now_ns: u64) -> Vec<OutputStatus> {
        let newest = self.shared.lock().next.saturating_sub(1);
        let status = |progress: &Arc<Progress>| {
            let (position, (written, lost)) = (progress.position(), progress.counts());
            let sending_ns = progress.sending_ns();
            OutputStatus {
                name: progress.name().to_owned(),
                condition: progress.condition_at(clock::monotonic_ns()),
                position,
                lag: newest.saturating_sub(position),
                lag_s: if sending_ns == 0 { 0 } else { now_ns.saturating_sub(sending_ns) / 1_000_000_000 },
                written,
                lost,
                last_error: progress.last_error(),
            }
        };
        self.outputs.iter().map(status).collect()
    }

    /// Records that were numbered until now.
    pub fn newest(&self) -> u64 {
        self.shared.lock().next.saturating_sub(1)
    }
}
