//! What the main thread tells the service manager at each tick: that the daemon is alive, if it is.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::notify::Notifier;
use crate::worker::Signals;

/// How often the status line is told anew.
const STATUS_EVERY: Duration = Duration::from_secs(60);
/// How long the worker may take for a round before it counts as dead. Outputs that are full hold it up for a moment each.
const WORKER_LIMIT: Duration = Duration::from_secs(15);

/// The pulse.
pub(super) struct Pulse {
    notifier: Arc<Notifier>,
    next_alive: Instant,
    next_status: Instant,
    beat: u64,
    beaten: Instant,
}

impl Pulse {
    pub(super) fn new(notifier: Arc<Notifier>, now: Instant) -> Self {
        Pulse { notifier, next_alive: now, next_status: now, beat: 0, beaten: now }
    }

    /// How long the main thread may wait at most.
    pub(super) fn tick(&self, longest: Duration) -> Duration {
        self.notifier.watchdog_every().map_or(longest, |every| every.min(longest))
    }

    /// Tells that the daemon is alive, unless the worker or a listener is not. `status` makes the line that
    /// `systemctl status` shows.
    pub(super) fn beat(&mut self, signals: &Signals, listening: bool, status: impl FnOnce() -> String) {
        let now = Instant::now();
        let beat = signals.beat.load(Relaxed);
        if beat != self.beat {
            (self.beat, self.beaten) = (beat, now);
        }
        let alive = listening && now.duration_since(self.beaten) < WORKER_LIMIT;
        if alive
            && now >= self.next_alive
            && let Some(every) = self.notifier.watchdog_every()
        {
            self.notifier.alive();
            self.next_alive = now + every;
        }
        if now >= self.next_status {
            self.notifier.status(&status());
            self.next_status = now + STATUS_EVERY;
        }
    }
}
