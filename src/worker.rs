//! The worker: the one thread that takes execs from the queue, evaluates the rules and gives records to the outputs.
//!
//! It also drains forks and exits on a timer, and says in the stream of records what was lost.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use crate::alert::{Alert, HostClock, Notice, Record};
use crate::clock;
use crate::evaluate::Evaluator;
use crate::event::recorder::Recorder;
use crate::fold::{Admission, Folder};
use crate::followup::desk::Desk;
use crate::followup::record::FollowUp;
use crate::health::hits::HitKeeper;
use crate::health::{Counters, Totals};
use crate::identity::settle::Executables;
use crate::lineage::follow::Follower;
use crate::output::delivery::Delivery;
use crate::process::capture::Prefilter;
use crate::process::details::Scratch;
use crate::process::exec::{Certainty, Exec};
use crate::process::overlay;
use crate::process::proc_dir::ProcRoot;
use crate::process::queue::ExecReceiver;
use crate::response::act::{Responder, Said};
use crate::response::{Outcome, RuleName};
use crate::rules::action::Action;
use crate::rules::model::Severity;
use crate::rules::subject::Surroundings;
use crate::sys::sched::set_nice;

/// How often forks and exits are drained; more often while many come.
const TICK: Duration = Duration::from_secs(1);
/// The pause after a drain that found many.
const BUSY_TICK: Duration = Duration::from_millis(100);
/// What «many» is: the default receive buffer holds about twenty times as much.
const MANY: u64 = 1000;
/// Execs handled between two looks at the clock.
const BATCH: usize = 64;
/// At most one notice about losses in this time.
const LOSS_NOTICE_EVERY: Duration = Duration::from_secs(60);
/// Starts remembered to recognise what both an event and the snapshot saw.
const MOST_STARTS: usize = 100_000;
/// Programs of the snapshot that wait until it is complete; more are handled at once.
const MOST_WAITING: usize = 1000;

/// The worker's nice value: before ordinary programs, after what the administrator put first.
const NICE: i32 = -10;
/// How often hits of rules and exceptions are written to the state folder.
const KEEP_EVERY: Duration = Duration::from_secs(60);

/// What others tell the worker.
#[derive(Debug, Default)]
pub struct Signals {
    /// Take what is queued and end.
    pub stop: AtomicBool,
    /// The listeners miss no exec any more.
    pub listening: AtomicBool,
    /// The snapshot of running processes is complete.
    pub snapshot_done: AtomicBool,
    /// Open the outputs' places anew.
    pub reopen: AtomicBool,
}

/// The worker's state.
pub struct Worker {
    /// Where execs come from.
    pub receiver: ExecReceiver,
    /// Where programs come from.
    pub follower: Follower,
    /// Where the arguments of parents are read.
    pub proc: Arc<ProcRoot>,
    /// The buffer for these.
    pub scratch: Scratch,
    /// What is known of files.
    pub files: Arc<Executables>,
    /// The rules.
    pub evaluator: Evaluator,
    /// Names, namespaces and other processes of this host.
    pub surroundings: Surroundings,
    /// Folds repeated alerts.
    pub folder: Folder,
    /// Where records go.
    pub delivery: Delivery,
    /// Follows what alerted programs do; `None` if switched off.
    pub follow_up: Option<Desk>,
    /// Acts on programs, where rules ask for it.
    pub responder: Responder,
    /// Where execs are recorded.
    pub recorder: Option<Recorder>,
    /// Remembers which rules and exceptions took effect.
    pub hits: HitKeeper,
    /// What is counted.
    pub counters: Arc<Counters>,
    /// What others say.
    pub signals: Arc<Signals>,
}

impl Worker {
    /// Works until told to stop and the queue is empty. Returns the outputs, which may still be sending.
    pub fn run(mut self) -> Delivery {
        // The listeners' rings hold a fraction of a second's execs, and those who execute so many all want the CPU.
        if let Err(error) = set_nice(NICE) {
            log::debug!("the worker keeps its priority: {error}");
        }
        // Only from then on is every exec seen that could make what /proc shows now out of date.
        while !self.signals.listening.load(Relaxed) && !self.signals.stop.load(Relaxed) {
            self.receiver.wait(Some(TICK));
        }
        self.follower.scan();
        let mut losses = Losses::default();
        let mut twice = SeenTwice::default();
        let mut next_drain = Instant::now();
        let mut next_keeping = Instant::now();
        loop {
            let stopping = self.signals.stop.load(Relaxed);
            let snapshot_done = self.signals.snapshot_done.load(Relaxed);
            let mut handled = 0;
            while handled < BATCH && self.handle_next(&mut twice) {
                handled += 1;
            }
            let idle = handled < BATCH;
            self.responder.obey();
            if idle && snapshot_done {
                for exec in std::mem::take(&mut twice.waiting) {
                    if twice.first_time(&exec) {
                        self.handle(exec);
                    }
                }
                twice.end();
            }
            let records = self.follow_up.as_mut().map(Desk::records);
            self.write_follow_ups(records.unwrap_or_default());
            let now = Instant::now();
            if now >= next_drain || stopping {
                let many = self.drain_events();
                if let Some(desk) = &mut self.follow_up {
                    desk.tell(self.follower.table());
                }
                next_drain = now + if many { BUSY_TICK } else { TICK };
                if let Some(notice) = losses.notice(self.counters.totals(), now, stopping) {
                    self.write(Record::Notice(notice));
                }
                self.write_folded(stopping && idle);
                self.tend_responses(stopping && idle);
                self.tend_baseline(stopping && idle);
            }
            if now >= next_keeping || stopping && idle {
                self.hits.update(self.evaluator.ruleset(), clock::realtime_ns() / 1_000_000_000);
                next_keeping = now + KEEP_EVERY;
            }
            if self.signals.reopen.swap(false, Relaxed) {
                self.delivery.reopen();
                self.recorder.iter_mut().for_each(Recorder::reopen);
            }
            if idle && let Some(recorder) = &mut self.recorder {
                recorder.flush();
                if stopping {
                    let (written, lost) = recorder.counts();
                    log::info!("recorded: written={written} lost={lost}");
                }
            }
            if idle && stopping {
                let records = self.follow_up.take().map(Desk::close);
                self.write_follow_ups(records.unwrap_or_default());
                return self.delivery;
            }
            if idle {
                self.receiver.wait(Some(next_drain.saturating_duration_since(Instant::now())));
            }
        }
    }

    /// Takes one exec from the queue; false if there is none.
    fn handle_next(&mut self, twice: &mut SeenTwice) -> bool {
        let Some(exec) = self.receiver.receive() else { return false };
        if exec.certainty == Certainty::AlreadyRunning && twice.waiting.len() < MOST_WAITING {
            twice.waiting.push(exec);
        } else if twice.first_time(&exec) {
            self.handle(exec);
        }
        true
    }

    /// Evaluates an exec and hands its alert to the outputs.
    fn handle(&mut self, mut exec: Exec) {
        exec.ancestors = self.follower.ancestors(&exec);
        exec.take_maker();
        if exec.details.parent.argv().is_none() || exec.details.parent.cut() {
            exec.details.read_parent_arguments(&self.proc, &mut self.scratch);
        }
        if self.files.settle(&mut exec) {
            self.counters.worker.unidentified.fetch_add(1, Relaxed);
        }
        if self.evaluator.ruleset().wants().upper_layer {
            exec.details.upper_layer = overlay::of_executable(&self.proc, &exec);
        }
        let verdict = self.evaluator.evaluate(&exec, &self.surroundings, &HostClock);
        if let (Some(recorder), Some(event)) = (&mut self.recorder, verdict.event) {
            recorder.write(event);
        }
        let counters = &self.counters.worker;
        counters.silenced.fetch_add(verdict.silenced.len() as u64, Relaxed);
        if verdict.alert.is_none()
            && let Some(response) = exec.response.filter(|response| response.outcome.acted())
        {
            // Only a rule that was taken away meanwhile has no alert.
            let rule = response.rule.as_str();
            let message =
                format!("pid {} was {} by rule `{rule}`, which is gone", exec.pid, response.outcome.as_str());
            self.write(notice("response", Severity::High, message));
        }
        if let Some(mut alert) = verdict.alert {
            self.respond(&mut alert, verdict.action, &exec);
            let counters = &self.counters.worker;
            // What was done is told each time: it happens as often as `[response] per-minute` allows.
            let acted = alert.exec.response.is_some_and(|response| response.outcome.acted());
            let admitted =
                if acted { Admission::Told } else { self.folder.admit(&alert, clock::monotonic_ns()) };
            let not_told = match admitted {
                Admission::Told => None,
                Admission::Repeated => Some(&counters.repeated),
                Admission::HeldBack => Some(&counters.held_back),
            };
            if let Some(count) = not_told {
                count.fetch_add(1, Relaxed);
                return;
            }
            counters.alerts.fetch_add(1, Relaxed);
            if alert.already_running() {
                counters.already_running.fetch_add(1, Relaxed);
            }
            if let Some(desk) = &mut self.follow_up {
                desk.follow(&alert, self.follower.table());
            }
            self.write(Record::Alert(Box::new(alert)));
        }
    }

    /// Completes an alert with what is done about its program.
    fn respond(&mut self, alert: &mut Alert, wanted: Option<(Action, RuleName)>, exec: &Exec) {
        let rules = self.evaluator.ruleset();
        let follower = &mut self.follower;
        self.responder.complete(alert, wanted, exec, rules, |pid| {
            if let Err(error) = follower.drain() {
                log::debug!("forks and exits cannot be read now: {error}");
            }
            follower.table().lineage(pid, clock::monotonic_ns())
        });
        let counters = &self.counters.worker;
        let counter = match alert.exec.response.map(|response| response.outcome) {
            None => return,
            Some(Outcome::Prevented | Outcome::Held) => &counters.prevented,
            Some(Outcome::Refused(_)) => &counters.refused,
            Some(Outcome::DryRun) => &counters.dry_run,
            Some(Outcome::Gone | Outcome::Failed(_)) => &counters.missed,
            Some(_) => &counters.contained,
        };
        counter.fetch_add(1, Relaxed);
    }

    /// Follows what responses depend on, and says what there is to say of them.
    fn tend_responses(&mut self, at_end: bool) {
        let mut said = self.responder.tick();
        if at_end {
            said.extend(self.responder.close());
        }
        for Said { severity, message } in said {
            log::warn!("{message}");
            self.write(notice("response", severity, message));
        }
    }

    fn write_follow_ups(&mut self, records: Vec<FollowUp>) {
        for record in records {
            self.counters.worker.follow_ups.fetch_add(1, Relaxed);
            self.write(Record::FollowUp(Box::new(record)));
        }
    }

    /// Tells what was folded in windows that are over.
    fn write_folded(&mut self, at_end: bool) {
        for record in self.folder.due(clock::monotonic_ns(), at_end) {
            self.write(Record::Folded(Box::new(record)));
        }
    }

    /// Follows the days and what an administrator changed, and hands over what is to be written.
    fn tend_baseline(&mut self, at_end: bool) {
        let Some(baseline) = self.evaluator.baseline() else { return };
        let said = baseline.tick(clock::now());
        if at_end {
            baseline.close(clock::now());
        }
        *self.counters.worker.baseline.lock().unwrap_or_else(PoisonError::into_inner) = baseline.counts();
        if let Some(message) = said {
            log::info!("{message}");
            self.write(notice("baseline", Severity::Info, message));
        }
    }

    fn write(&mut self, record: Record) {
        self.delivery.offer(record);
    }

    /// Drains forks and exits; true if there were many.
    fn drain_events(&mut self) -> bool {
        let worker = &self.counters.worker;
        let before = worker.forks.load(Relaxed) + worker.exits.load(Relaxed);
        if let Err(error) = self.follower.drain() {
            log::error!("forks and exits cannot be read: {error}");
        }
        let (drained, counts) = (self.follower.drained(), self.follower.counts());
        worker.forks.store(drained.forks, Relaxed);
        worker.exits.store(drained.exits, Relaxed);
        worker.event_overruns.store(drained.overruns, Relaxed);
        worker.strange.store(drained.strange, Relaxed);
        worker.processes.store(counts.processes as u64, Relaxed);
        worker
            .evicted
            .store(counts.evicted_ended + counts.evicted_ancestors + counts.evicted_living, Relaxed);
        worker.execs_unfollowed.store(self.follower.refused(), Relaxed);
        if drained.overruns > 0
            && let Some(dropped) = self.follower.dropped()
        {
            worker.events_dropped.store(dropped, Relaxed);
        }
        drained.forks + drained.exits > before + MANY
    }
}

fn notice(kind: &'static str, severity: Severity, message: String) -> Record {
    Record::Notice(Notice { kind, severity, time_ns: clock::realtime_ns(), message })
}

/// Recognises a program that both its exec event and the snapshot at the start reported.
#[derive(Default)]
struct SeenTwice {
    /// What the snapshot reported, until it is complete: what an event told tells more.
    waiting: Vec<Exec>,
    by_event: HashSet<u64>,
    by_snapshot: HashSet<u64>,
    hasher: RandomState,
    ended: bool,
}

impl SeenTwice {
    /// False if the same process with the same executable was reported before by the other way.
    fn first_time(&mut self, exec: &Exec) -> bool {
        let Some(start) = exec.details.start_ticks.filter(|_| !self.ended) else { return true };
        let key = self.hasher.hash_one((exec.pid, start, exec.image.exe(), exec.image.raw_arguments()));
        if exec.certainty == Certainty::AlreadyRunning {
            self.by_snapshot.insert(key);
            return !self.by_event.contains(&key);
        }
        if self.by_event.len() < MOST_STARTS {
            self.by_event.insert(key);
        }
        // A process may execute the same program again and again, and each time counts: the snapshot's mark, which
        // stands for one time, is taken away.
        !self.by_snapshot.remove(&key)
    }

    fn end(&mut self) {
        *self = SeenTwice { ended: true, ..SeenTwice::default() };
    }
}

/// Says from time to time what was lost since.
#[derive(Default)]
struct Losses {
    said: Totals,
    last: Option<Instant>,
}

impl Losses {
    /// A notice if something was lost that has not been said, at most one a minute, or at the end.
    fn notice(&mut self, totals: Totals, now: Instant, at_end: bool) -> Option<Notice> {
        if !at_end && self.last.is_some_and(|last| now.duration_since(last) < LOSS_NOTICE_EVERY) {
            return None;
        }
        let parts = [
            (totals.gone - self.said.gone, "programs ended before they were read"),
            (totals.lost - self.said.lost, "programs a rule could match found the queue full"),
            (totals.overruns - self.said.overruns, "times exec events overflowed a listener's buffer"),
            (totals.dropped - self.said.dropped, "exec events discarded by the kernel for that"),
            (
                totals.event_overruns - self.said.event_overruns,
                "times forks and exits overflowed their buffer",
            ),
            (
                totals.events_dropped - self.said.events_dropped,
                "forks and exits discarded by the kernel for that",
            ),
            (totals.execs_unfollowed - self.said.execs_unfollowed, "programs that lineage does not know of"),
            (
                totals.unrecorded - self.said.unrecorded,
                "programs were killed or stopped without an alert, for which the queue was full",
            ),
            (
                totals.not_followed - self.said.not_followed,
                "alerted programs that were not followed because [follow] at-once were",
            ),
        ];
        let said: Vec<String> = parts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        if said.is_empty() {
            return None;
        }
        self.said = totals;
        self.last = Some(now);
        let message = format!("not everything was seen: {}", said.join(", "));
        log::warn!("{message}");
        Some(Notice { kind: "loss", severity: Severity::Medium, time_ns: clock::realtime_ns(), message })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::exec::Image;

    fn exec(certainty: Certainty, argument: &str) -> Exec {
        let mut exec = Exec { pid: 7, certainty, ..Exec::default() };
        exec.details.start_ticks = Some(5);
        exec.image = Image::new(Some(b"/bin/nc"), Some(&["nc", argument]));
        exec
    }

    #[test]
    fn a_program_seen_by_event_and_snapshot_is_reported_once() {
        use Certainty::{AlreadyRunning, Exact};
        for (first, second) in [(AlreadyRunning, Exact), (Exact, AlreadyRunning)] {
            let mut twice = SeenTwice::default();
            assert!(twice.first_time(&exec(first, "a")));
            assert!(!twice.first_time(&exec(second, "a")));
            // The same process executes another program, and that again.
            assert!(twice.first_time(&exec(Exact, "b")));
            assert!(twice.first_time(&exec(Exact, "b")));
        }
        let mut twice = SeenTwice::default();
        assert!(twice.first_time(&exec(AlreadyRunning, "a")));
        twice.end();
        assert!(twice.first_time(&exec(Exact, "a")));
    }

    #[test]
    fn losses_are_said_once_and_not_too_often() {
        let start = Instant::now();
        let mut losses = Losses::default();
        let totals = |gone, lost| Totals { gone, lost, ..Totals::default() };
        assert_eq!(losses.notice(totals(0, 0), start, false), None);
        let said = losses.notice(totals(2, 1), start, false).unwrap().message;
        assert!(said.contains("2 programs ended") && said.contains("1 programs a rule"), "{said}");
        assert_eq!(losses.notice(totals(3, 1), start + Duration::from_secs(59), false), None);
        let said = losses.notice(totals(3, 1), start + Duration::from_secs(60), false).unwrap().message;
        assert!(said.contains("1 programs ended") && !said.contains("a rule"), "{said}");
        assert!(losses.notice(totals(4, 1), start + Duration::from_secs(61), true).is_some());
    }
}
