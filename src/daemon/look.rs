//! Looks at all running programs: at the start, and after programs were missed.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::harden;
use crate::harden::roles::Role;
use crate::health::status::Health;
use crate::health::{Counters, ListenerCounters};
use crate::process::capture::Capture;
use crate::process::exec::Certainty;
use crate::process::snapshot;
use crate::worker::Signals;

/// At most one look in this time: /proc has a folder for each process, and whoever causes losses should not cause that.
const EVERY: Duration = Duration::from_secs(10);

/// Makes what reads programs, counting there.
pub(super) type NewCapture = Box<dyn Fn(Arc<ListenerCounters>) -> Capture>;

/// What was counted of a listener when it was looked at last.
struct Before {
    counters: Arc<ListenerCounters>,
    lost: u64,
    overruns: u64,
    last_event_ns: u64,
}

/// Looks when it is time to.
pub(super) struct Look {
    new_capture: NewCapture,
    counters: Arc<Counters>,
    health: Arc<Health>,
    signals: Arc<Signals>,
    before: Vec<Before>,
    wanted: bool,
    running: Option<JoinHandle<()>>,
    last: Option<Instant>,
}

impl Look {
    pub(super) fn new(
        new_capture: NewCapture,
        counters: Arc<Counters>,
        health: Arc<Health>,
        signals: Arc<Signals>,
    ) -> Self {
        Look {
            new_capture,
            counters,
            health,
            signals,
            before: Vec::new(),
            wanted: false,
            running: None,
            last: None,
        }
    }

    /// Something was missed.
    pub(super) fn want(&mut self) {
        self.wanted = true;
    }

    /// Looks if listeners lost something, or somebody wants it.
    pub(super) fn tick(&mut self) {
        self.notice_losses();
        let is_running = self.running.as_ref().is_some_and(|thread| !thread.is_finished());
        let is_early = self.last.is_some_and(|last| last.elapsed() < EVERY);
        if !self.wanted || is_running || is_early {
            return;
        }
        match self.begin(Certainty::Missed) {
            Ok(()) => {
                self.wanted = false;
                self.last = Some(Instant::now());
                self.health.canary.looks.fetch_add(1, Relaxed);
            }
            Err(error) => log::warn!("running programs cannot be looked at, which is tried again: {error}"),
        }
    }

    fn notice_losses(&mut self) {
        for counters in self.counters.listeners() {
            let at = self.before.iter().position(|before| Arc::ptr_eq(&before.counters, &counters));
            let at = at.unwrap_or_else(|| {
                self.before.push(Before {
                    counters: Arc::clone(&counters),
                    lost: 0,
                    overruns: 0,
                    last_event_ns: 0,
                });
                self.before.len() - 1
            });
            let Some(before) = self.before.get_mut(at) else { continue };
            let overruns = counters.overruns.load(Relaxed);
            let lost = counters.queue_full.load(Relaxed);
            if overruns > before.overruns {
                // Events of a CPU come in order: what was lost came after the last that was taken.
                self.signals.execs_missed(before.last_event_ns);
            }
            if overruns > before.overruns || lost > before.lost {
                self.wanted = true;
            }
            let last_event_ns = counters.last_event_ns.load(Relaxed);
            *before = Before { counters, lost, overruns, last_event_ns };
        }
    }

    /// Begins a look on a thread of its own.
    pub(super) fn begin(&mut self, certainty: Certainty) -> std::io::Result<()> {
        // Its counters are its own: these processes were not executed under our eyes.
        let mut capture = (self.new_capture)(Arc::default());
        let signals = Arc::clone(&self.signals);
        self.signals.snapshot_done.store(false, Relaxed);
        let thread = std::thread::Builder::new().name("snapshot".to_owned()).spawn(move || {
            harden::enter(Role::Snapshot);
            match snapshot::take(&mut capture, certainty) {
                Ok(seen) => log::debug!("{seen} running processes were looked at"),
                Err(error) => log::warn!("the processes that run could not be listed: {error}"),
            }
            drop(capture);
            signals.snapshot_done.store(true, Relaxed);
        });
        match thread {
            Ok(thread) => {
                self.running = Some(thread);
                Ok(())
            }
            Err(error) => {
                self.signals.snapshot_done.store(true, Relaxed);
                Err(error)
            }
        }
    }
}
