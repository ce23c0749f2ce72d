//! What the daemon knows about itself: what is counted, what was lost, whether it sees, and how that is told.

pub mod canary;
pub mod fingerprint;
pub mod hits;
pub mod losses;
pub mod metrics;
pub mod reports;
pub mod settings;
pub mod sight;
pub mod status;

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::baseline;

/// Counts of one listener. One per thread and cache line, so that listeners do not slow each other.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ListenerCounters {
    /// The CPU whose execs are counted; `None` for those of CPUs without a listener of their own.
    pub cpu: Option<u32>,
    /// The listener has ended, and the next of its CPU may count here.
    free: AtomicBool,
    /// When the last program was executed (CLOCK_MONOTONIC); 0 before the first.
    pub last_event_ns: AtomicU64,
    /// Grows by one when the listener receives something and by one when it is done with that: odd while it works.
    pub rounds: AtomicU64,
    /// The listener's thread, as the kernel numbers it.
    pub thread: AtomicI32,
    /// Programs executed.
    pub execs: AtomicU64,
    /// Of these, read while the program was certainly held.
    pub exact: AtomicU64,
    /// Read by an exact listener, but so late that the scheduler might have moved the program to another CPU.
    pub likely: AtomicU64,
    /// Read without holding the program.
    pub best_effort: AtomicU64,
    /// Ended before its executable or arguments were read.
    pub gone: AtomicU64,
    /// Argument lists cut at the limit.
    pub cut: AtomicU64,
    /// Execs a rule could match, handed to the worker.
    pub candidates: AtomicU64,
    /// Candidates that found the queue to the worker full.
    pub queue_full: AtomicU64,
    /// Times the socket's queue overflowed.
    pub overruns: AtomicU64,
    /// Events the kernel discarded for want of room in the queue; 0 on kernels before 4.12, which do not tell.
    pub dropped: AtomicU64,
    /// Datagrams that did not come from the kernel.
    pub forged: AtomicU64,
    /// Datagrams that were no process events.
    pub malformed: AtomicU64,
    /// Events of another kind than exec.
    pub unexpected: AtomicU64,
    /// Files of which it could not be told whether they are a utility's.
    pub unidentified: AtomicU64,
    /// Programs killed, stopped or let go on at once whose alert found the queue to the worker full.
    pub unrecorded: AtomicU64,
    /// Longest time a program was held, in nanoseconds.
    pub longest_hold_ns: AtomicU64,
    /// The longest time from the exec of a program that had [gone](Self::gone) to the look at it, in nanoseconds, since it
    /// was [taken](Counters::take_gone_after).
    pub gone_after_ns: AtomicU64,
}

impl ListenerCounters {
    /// The listener begins with something it received, or is done with it.
    #[inline]
    pub fn turn(&self) {
        // Only this listener writes here.
        self.rounds.store(self.rounds.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// The listener's thread has ended: nobody counts here any more.
    pub fn free(&self) {
        // One that was told to end may have done so in the middle of a round.
        self.rounds.store(0, Relaxed);
        self.free.store(true, Release);
    }

    /// Datagrams that were forged, malformed or of another kind.
    pub fn strange(&self) -> u64 {
        self.forged.load(Relaxed) + self.malformed.load(Relaxed) + self.unexpected.load(Relaxed)
    }

    /// Notes the time a program was held.
    pub fn note_hold(&self, nanoseconds: u64) {
        // Only this listener writes here, so no compare-and-swap is needed.
        if nanoseconds > self.longest_hold_ns.load(Relaxed) {
            self.longest_hold_ns.store(nanoseconds, Relaxed);
        }
    }
}

/// Counts of the worker and of the event socket.
#[derive(Debug, Default)]
pub struct WorkerCounters {
    /// Alerts written to the outputs' queues.
    pub alerts: AtomicU64,
    /// Of these, for programs that already ran at the start.
    pub already_running: AtomicU64,
    /// Of these, for programs whose execution was missed and that were found running.
    pub found_late: AtomicU64,
    /// Canaries that came to the worker, which leaves them alone.
    pub canaries: AtomicU64,
    /// Matches of rules that an exception silenced.
    pub silenced: AtomicU64,
    /// Alerts counted in the record of an earlier one that is the same.
    pub repeated: AtomicU64,
    /// Alerts counted in a record, because there were too many of their rule and subject.
    pub held_back: AtomicU64,
    /// Files of which the worker could not tell either whether they are a utility's.
    pub unidentified: AtomicU64,
    /// Processes made since the start.
    pub forks: AtomicU64,
    /// Processes ended since the start.
    pub exits: AtomicU64,
    /// Times the event socket's queue overflowed.
    pub event_overruns: AtomicU64,
    /// Forks and exits the kernel discarded for want of room in the queue; 0 on kernels before 4.12.
    pub events_dropped: AtomicU64,
    /// Processes in the table now.
    pub processes: AtomicU64,
    /// Processes that the table gave up for want of room.
    pub evicted: AtomicU64,
    /// Light records of execs that found no room on the way to the table.
    pub execs_unfollowed: AtomicU64,
    /// Datagrams at the event socket that were forged or no forks and exits.
    pub strange: AtomicU64,
    /// Records of what programs did after their alerts.
    pub follow_ups: AtomicU64,
    /// Alerts that should have been followed and were not, for want of room.
    pub not_followed: AtomicU64,
    /// Alerts that were followed no longer, because others needed their place.
    pub let_go: AtomicU64,
    /// Programs killed or stopped before their first instruction.
    pub prevented: AtomicU64,
    /// Programs killed, stopped or frozen after they had begun to run.
    pub contained: AtomicU64,
    /// Responses that a guard rail refused.
    pub refused: AtomicU64,
    /// Responses that would have been given.
    pub dry_run: AtomicU64,
    /// Responses that came too late or failed.
    pub missed: AtomicU64,
    /// Incidents that opened.
    pub incidents: AtomicU64,
    /// Parts of incidents that could not be written, for want of room or because the disk refused them.
    pub incidents_unsaved: AtomicU64,
    /// What the baseline counts.
    pub baseline: Mutex<baseline::Counts>,
}

/// Everything that is counted.
#[derive(Debug, Default)]
pub struct Counters {
    listeners: Mutex<Vec<Arc<ListenerCounters>>>,
    /// The worker's part.
    pub worker: WorkerCounters,
    /// Listeners that were stuck and replaced.
    pub listeners_stuck: AtomicU64,
}

/// A sum over all listeners, and the worker's part, at one moment.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// See [`ListenerCounters`].
    pub execs: u64,
    /// See [`ListenerCounters`].
    pub exact: u64,
    /// See [`ListenerCounters`].
    pub likely: u64,
    /// See [`ListenerCounters`].
    pub best_effort: u64,
    /// See [`ListenerCounters`].
    pub gone: u64,
    /// See [`ListenerCounters`].
    pub cut: u64,
    /// See [`ListenerCounters`].
    pub candidates: u64,
    /// Alerts that could not be made because the queue to the worker was full.
    pub lost: u64,
    /// See [`ListenerCounters`].
    pub overruns: u64,
    /// See [`ListenerCounters`].
    pub dropped: u64,
    /// Forged, malformed and unexpected datagrams.
    pub strange: u64,
    /// Files of which it is not known whether they are a utility's.
    pub unidentified: u64,
    /// See [`ListenerCounters`].
    pub longest_hold_ns: u64,
    /// See [`Counters`].
    pub listeners_stuck: u64,
    /// See [`WorkerCounters`].
    pub alerts: u64,
    /// See [`WorkerCounters`].
    pub already_running: u64,
    /// See [`WorkerCounters`].
    pub found_late: u64,
    /// See [`WorkerCounters`].
    pub canaries: u64,
    /// See [`WorkerCounters`].
    pub silenced: u64,
    /// See [`WorkerCounters`].
    pub repeated: u64,
    /// See [`WorkerCounters`].
    pub held_back: u64,
    /// See [`WorkerCounters`].
    pub forks: u64,
    /// See [`WorkerCounters`].
    pub exits: u64,
    /// See [`WorkerCounters`].
    pub event_overruns: u64,
    /// See [`WorkerCounters`].
    pub events_dropped: u64,
    /// See [`WorkerCounters`].
    pub processes: u64,
    /// See [`WorkerCounters`].
    pub evicted: u64,
    /// See [`WorkerCounters`].
    pub execs_unfollowed: u64,
    /// See [`WorkerCounters`].
    pub follow_ups: u64,
    /// See [`WorkerCounters`].
    pub not_followed: u64,
    /// See [`WorkerCounters`].
    pub let_go: u64,
    /// See [`WorkerCounters`].
    pub prevented: u64,
    /// See [`WorkerCounters`].
    pub contained: u64,
    /// See [`WorkerCounters`].
    pub refused: u64,
    /// See [`WorkerCounters`].
    pub dry_run: u64,
    /// See [`WorkerCounters`].
    pub missed: u64,
    /// See [`ListenerCounters`].
    pub unrecorded: u64,
    /// See [`WorkerCounters`].
    pub incidents: u64,
    /// See [`WorkerCounters`].
    pub incidents_unsaved: u64,
    /// See [`WorkerCounters`].
    pub baseline: baseline::Counts,
}

impl Counters {
    /// Counters for one more listener. They stay in the sums when the listener ends, and the next one of that CPU goes on
    /// with them: so there are no more than there were listeners at once, however often CPUs go and come.
    pub fn listener(&self, cpu: Option<u32>) -> Arc<ListenerCounters> {
        let mut all = self.lock();
        let free =
            |counters: &&Arc<ListenerCounters>| counters.cpu == cpu && counters.free.swap(false, Acquire);
        if let Some(counters) = all.iter().find(free) {
            return Arc::clone(counters);
        }
        let counters = Arc::new(ListenerCounters { cpu, ..ListenerCounters::default() });
        all.push(Arc::clone(&counters));
        counters
    }

    /// The sums.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals {
            listeners_stuck: self.listeners_stuck.load(Relaxed),
            alerts: self.worker.alerts.load(Relaxed),
            already_running: self.worker.already_running.load(Relaxed),
            found_late: self.worker.found_late.load(Relaxed),
            canaries: self.worker.canaries.load(Relaxed),
            silenced: self.worker.silenced.load(Relaxed),
            repeated: self.worker.repeated.load(Relaxed),
            held_back: self.worker.held_back.load(Relaxed),
            unidentified: self.worker.unidentified.load(Relaxed),
            forks: self.worker.forks.load(Relaxed),
            exits: self.worker.exits.load(Relaxed),
            event_overruns: self.worker.event_overruns.load(Relaxed),
            events_dropped: self.worker.events_dropped.load(Relaxed),
            processes: self.worker.processes.load(Relaxed),
            evicted: self.worker.evicted.load(Relaxed),
            execs_unfollowed: self.worker.execs_unfollowed.load(Relaxed),
            strange: self.worker.strange.load(Relaxed),
            follow_ups: self.worker.follow_ups.load(Relaxed),
            not_followed: self.worker.not_followed.load(Relaxed),
            let_go: self.worker.let_go.load(Relaxed),
            prevented: self.worker.prevented.load(Relaxed),
            contained: self.worker.contained.load(Relaxed),
            refused: self.worker.refused.load(Relaxed),
            dry_run: self.worker.dry_run.load(Relaxed),
            missed: self.worker.missed.load(Relaxed),
            incidents: self.worker.incidents.load(Relaxed),
            incidents_unsaved: self.worker.incidents_unsaved.load(Relaxed),
            baseline: *self.worker.baseline.lock().unwrap_or_else(PoisonError::into_inner),
            ..Totals::default()
        };
        for listener in self.lock().iter() {
            totals.execs += listener.execs.load(Relaxed);
            totals.exact += listener.exact.load(Relaxed);
            totals.likely += listener.likely.load(Relaxed);
            totals.best_effort += listener.best_effort.load(Relaxed);
            totals.gone += listener.gone.load(Relaxed);
            totals.cut += listener.cut.load(Relaxed);
            totals.candidates += listener.candidates.load(Relaxed);
            totals.lost += listener.queue_full.load(Relaxed);
            totals.unrecorded += listener.unrecorded.load(Relaxed);
            totals.overruns += listener.overruns.load(Relaxed);
            totals.dropped += listener.dropped.load(Relaxed);
            totals.strange += listener.strange();
            totals.unidentified += listener.unidentified.load(Relaxed);
            totals.longest_hold_ns = totals.longest_hold_ns.max(listener.longest_hold_ns.load(Relaxed));
        }
        totals
    }

    /// The longest time from the exec of a program that had ended before it was read to the look at it, since this was
    /// asked last; `None` if there was none.
    pub fn take_gone_after(&self) -> Option<Duration> {
        let longest = self.lock().iter().map(|listener| listener.gone_after_ns.swap(0, Relaxed)).max()?;
        (longest > 0).then(|| Duration::from_nanos(longest))
    }

    /// The counters of all listeners that there are or were.
    pub fn listeners(&self) -> Vec<Arc<ListenerCounters>> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<ListenerCounters>>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Display for Totals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "totals: execs={} exact={} likely={} best-effort={} gone={} lost={} alerts={} already-running={} found-late={} canaries={} silenced={} repeated={} held-back={} \
             candidates={} args-cut={} unidentified={} overruns={} dropped={} strange={} longest-hold-us={} listeners-stuck={} forks={} exits={} event-overruns={} events-dropped={} \
             processes={} evicted={} execs-unfollowed={} follow-ups={} not-followed={} let-go={} \
             baseline-silenced={} baseline-lowered={} baseline-raised={} baseline-rows={} baseline-evicted={} baseline-unsaved={} \
             prevented={} contained={} refused={} dry-run={} missed={} unrecorded={} \
             incidents={} incidents-unsaved={}",
            self.execs,
            self.exact,
            self.likely,
            self.best_effort,
            self.gone,
            self.lost,
            self.alerts,
            self.already_running,
            self.found_late,
            self.canaries,
            self.silenced,
            self.repeated,
            self.held_back,
            self.candidates,
            self.cut,
            self.unidentified,
            self.overruns,
            self.dropped,
            self.strange,
            self.longest_hold_ns / 1000,
            self.listeners_stuck,
            self.forks,
            self.exits,
            self.event_overruns,
            self.events_dropped,
            self.processes,
            self.evicted,
            self.execs_unfollowed,
            self.follow_ups,
            self.not_followed,
            self.let_go,
            self.baseline.silenced,
            self.baseline.lowered,
            self.baseline.raised,
            self.baseline.rows,
            self.baseline.evicted,
            self.baseline.unsaved,
            self.prevented,
            self.contained,
            self.refused,
            self.dry_run,
            self.missed,
            self.unrecorded,
            self.incidents,
            self.incidents_unsaved,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_goes_on_where_one_of_its_cpu_ended_and_nothing_grows() {
        let all = Counters::default();
        for cpu in [Some(0), Some(1), None] {
            for _ in 0..1000 {
                let counters = all.listener(cpu);
                counters.execs.fetch_add(1, Relaxed);
                counters.turn();
                counters.free();
            }
        }
        assert_eq!((all.listeners().len(), all.totals().execs), (3, 3000));
        // One that hangs keeps its own.
        let hanging = all.listener(Some(1));
        let next = all.listener(Some(1));
        assert!(!Arc::ptr_eq(&hanging, &next));
        assert_eq!(all.listeners().len(), 4);
        hanging.free();
        assert!(Arc::ptr_eq(&hanging, &all.listener(Some(1))));
        assert_eq!(next.rounds.load(Relaxed), 0);
    }
}
