//! What the daemon says about itself in the stream of records: losses and heartbeats.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Counters;
use super::losses::Losses;
use super::status::{Health, Said, Status};
use crate::alert::Notice;
use crate::clock;
use crate::rules::model::Severity;

/// Gathers notices for the worker.
pub struct Reports {
    health: Arc<Health>,
    losses: Losses,
    heartbeat: Option<Duration>,
    next_heartbeat: Instant,
}

impl Reports {
    /// Losses, and a heartbeat in this period, the first at once.
    pub fn new(health: Arc<Health>, heartbeat: Option<Duration>) -> Self {
        Reports { health, losses: Losses::default(), heartbeat, next_heartbeat: Instant::now() }
    }

    /// What is to be said now.
    pub fn due(&mut self, counters: &Counters, now: Instant, at_end: bool) -> Vec<Notice> {
        let mut notices = Vec::new();
        if let Some(loss) = self.losses.look(
            &counters.totals(),
            counters.take_gone_after(),
            now,
            clock::realtime_ns(),
            at_end,
        ) {
            self.health.set_last_loss(Said::new(loss.time_ns, &loss.message));
            notices.push(loss);
        }
        if let Some(period) = self.heartbeat
            && now >= self.next_heartbeat
        {
            self.next_heartbeat = now + period;
            notices.push(heartbeat(&self.health.status()));
        }
        notices
    }
}

fn heartbeat(status: &Status) -> Notice {
    let totals = &status.totals;
    let state = match (status.blind.is_empty(), status.untried.is_empty()) {
        (false, _) => "is blind on some CPUs",
        (true, false) => "does not know of some CPUs whether it sees",
        (true, true) => "sees",
    };
    let message = format!(
        "execwatch {} {state}: uptime-s={} configuration={} cpu-s={:.2} memory-bytes={} {totals}",
        status.version, status.uptime_s, status.configuration, status.cost.cpu_s, status.cost.memory_bytes,
    );
    Notice { kind: "heartbeat", severity: Severity::Info, time_ns: clock::realtime_ns(), message }
}
