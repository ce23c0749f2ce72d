//! The worker: the one thread that takes execs from the queue, evaluates the rules and gives records to the outputs.
//!
//! It also drains forks and exits on a timer, and says in the stream of records what was lost.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use crate::alert::{Alert, HostClock, Notice, Record};
use crate::clock;
use crate::evaluate::Evaluator;
use crate::event::recorder::Recorder;
use crate::fold::{Admission, Folder};
use crate::followup::desk::Desk;
use crate::followup::record::FollowUp;
use crate::health::hits::HitKeeper;
use crate::health::reports::Reports;
use crate::health::status::Health;
use crate::health::{Counters, canary};
use crate::identity::settle::Executables;
use crate::incident;
use crate::incident::kept::KeptException;
use crate::lineage::follow::Follower;
use crate::output::delivery::Delivery;
use crate::process::capture::Prefilter;
use crate::process::details::Scratch;
use crate::process::exec::{Certainty, Exec};
use crate::process::overlay;
use crate::process::proc_dir::ProcRoot;
use crate::process::queue::ExecReceiver;
use crate::response;
use crate::response::act::{Responder, Said};
use crate::response::{Outcome, RuleName};
use crate::rules::action::Action;
use crate::rules::current::Current;
use crate::rules::model::Severity;
use crate::rules::subject::Surroundings;
use crate::seen::Seen;
use crate::sys::sched::set_nice;

/// How often forks and exits are drained; more often while many come.
const TICK: Duration = Duration::from_secs(1);
/// The pause after a drain that found many.
const BUSY_TICK: Duration = Duration::from_millis(100);
/// What «many» is: the default receive buffer holds about twenty times as much.
const MANY: u64 = 1000;
/// Execs handled between two looks at the clock.
const BATCH: usize = 64;
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
    /// No look at running processes is under way.
    pub snapshot_done: AtomicBool,
    /// Open the outputs' places anew.
    pub reopen: AtomicBool,
    /// Grows as long as the worker goes round.
    pub beat: AtomicU64,
    /// Since when execs, and forks and exits, were missed (CLOCK_MONOTONIC, plus one); 0 for not at all.
    execs_missed: AtomicU64,
    events_missed: AtomicU64,
    notices: Mutex<Vec<Notice>>,
    /// `[response]` as it was reloaded, until the worker takes it; and who is told when it is in force.
    responses: Mutex<Option<(response::Settings, Sender<Configured>)>>,
}

/// Settings of responses are in force, or why they are not.
pub type Configured = Result<(), String>;

/// Notices of other threads that wait for the worker; what is more is only logged.
const MOST_NOTICES: usize = 256;

impl Signals {
    /// Has the worker write a notice, when it is woken.
    pub fn notify(&self, notice: Notice) {
        let mut notices = self.notices();
        if notices.len() < MOST_NOTICES {
            notices.push(notice);
        }
    }

    /// Has the worker respond by these settings, when it is woken. It says when they are in force, for listeners too, or why
    /// they are not.
    pub fn configure_responses(&self, settings: response::Settings) -> Receiver<Configured> {
        let (taken, in_force) = crossbeam_channel::bounded(1);
        *self.responses.lock().unwrap_or_else(PoisonError::into_inner) = Some((settings, taken));
        in_force
    }

    fn notices(&self) -> MutexGuard<'_, Vec<Notice>> {
        self.notices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Execs were missed from this moment on.
    pub fn execs_missed(&self, since_ns: u64) {
        note(&self.execs_missed, since_ns);
    }

    /// Forks and exits were missed from this moment on.
    pub fn events_missed(&self, since_ns: u64) {
        note(&self.events_missed, since_ns);
    }
}

/// Keeps the earliest moment.
fn note(cell: &AtomicU64, since_ns: u64) {
    let earliest = |before| Some(if before == 0 { since_ns + 1 } else { (since_ns + 1).min(before) });
    // The closure always gives a value.
    let _ = cell.fetch_update(Relaxed, Relaxed, earliest);
}

/// The moment that was noted, once.
fn noted(cell: &AtomicU64) -> Option<u64> {
    cell.swap(0, Relaxed).checked_sub(1)
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
    /// Evaluates the rules.
    pub evaluator: Evaluator,
    /// The rules in force.
    pub rules: Arc<Current>,
    /// Which of them the evaluator has.
    pub generation: u64,
    /// Names, namespaces and other processes of this host.
    pub surroundings: Surroundings,
    /// Folds repeated alerts.
    pub folder: Folder,
    /// Where records go.
    pub delivery: Delivery,
    /// Follows what alerted programs do; `None` if switched off.
    pub follow_up: Option<Desk>,
    /// Makes incidents of alerts; `None` if switched off.
    pub incidents: Option<incident::desk::Desk>,
    /// Acts on programs, where rules ask for it.
    pub responder: Responder,
    /// Where execs are recorded.
    pub recorder: Option<Recorder>,
    /// Remembers which rules and exceptions took effect.
    pub hits: HitKeeper,
    /// What was evaluated already.
    pub seen: Seen,
    /// What the daemon says about itself.
    pub reports: Reports,
    /// Tells whoever asks which rules are in force.
    pub health: Arc<Health>,
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
        self.seen.listens_since(clock::start_ticks_from_monotonic(clock::monotonic_ns()));
        self.follower.scan();
        if let Some(desk) = &mut self.incidents {
            desk.resume(self.follower.table());
        }
        let mut next_drain = Instant::now();
        let mut next_keeping = Instant::now();
        loop {
            let stopping = self.signals.stop.load(Relaxed);
            let snapshot_done = self.signals.snapshot_done.load(Relaxed);
            let mut handled = 0;
            while handled < BATCH && self.handle_next() {
                handled += 1;
            }
            let idle = handled < BATCH;
            self.responder.obey();
            if idle && snapshot_done {
                for exec in self.seen.complete() {
                    self.handle(exec);
                }
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
                for notice in self.reports.due(&self.counters, now, stopping) {
                    self.write(Record::Notice(notice));
                }
                self.write_folded(stopping && idle);
                self.tend_responses(stopping && idle);
                self.tend_baseline(stopping && idle);
                self.tend_incidents();
            }
            // Before the hits are kept: those of rules that are no longer there are forgotten.
            self.take_rules();
            self.take_response_settings();
            let notices = std::mem::take(&mut *self.signals.notices());
            for notice in notices {
                self.write(Record::Notice(notice));
            }
            self.signals.beat.fetch_add(1, Relaxed);
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
                if let Some(desk) = self.incidents.take() {
                    desk.close(self.follower.table());
                }
                return self.delivery;
            }
            if idle {
                self.receiver.wait(Some(next_drain.saturating_duration_since(Instant::now())));
            }
        }
    }

    /// Takes one exec from the queue; false if there is none.
    fn handle_next(&mut self) -> bool {
        let Some(exec) = self.receiver.receive() else { return false };
        if canary::is_own(&exec) {
            self.counters.worker.canaries.fetch_add(1, Relaxed);
        } else if let Some(exec) = self.seen.take(exec) {
            self.handle(exec);
        }
        true
    }

    /// Evaluates an exec and hands its alert to the outputs.
    fn handle(&mut self, mut exec: Exec) {
        self.take_rules();
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
            let message = self.responder.abandon(&exec, response);
            log::warn!("{message}");
            self.write(notice("response", Severity::High, message));
        }
        if let Some(mut alert) = verdict.alert {
            let exceptions = KeptException::all(verdict.silenced, verdict.expired);
            self.respond(&mut alert, &verdict.actions, &exec);
            let counters = &self.counters.worker;
            // What was done is told each time: it happens as often as `[response] per-minute` allows.
            let acted = alert.exec.response.is_some_and(|response| response.outcome.acted());
            let admitted =
                if acted { Admission::Told } else { self.folder.admit(&alert, clock::monotonic_ns()) };
            if let Some(desk) = &mut self.incidents {
                let told = admitted == Admission::Told;
                let (table, recent) = (self.follower.table(), self.follower.recent());
                let notice = desk.alert((&mut alert, exceptions), told, table, recent);
                // Before the alert that caused it: who reads it knows then what the alert belongs to.
                notice.into_iter().for_each(|notice| self.delivery.offer(Record::Notice(notice)));
            }
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
            if alert.exec.certainty == Certainty::Missed {
                counters.found_late.fetch_add(1, Relaxed);
            }
            if let Some(desk) = &mut self.follow_up {
                desk.follow(&alert, self.follower.table());
            }
            self.write(Record::Alert(Box::new(alert)));
        }
    }

    /// Completes an alert with what is done about its program.
    fn respond(&mut self, alert: &mut Alert, wanted: &[(Action, RuleName)], exec: &Exec) {
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

    /// Responds by newer settings, if there are some.
    fn take_response_settings(&mut self) {
        let newer = self.signals.responses.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((settings, taken)) = newer {
            let result = self.responder.configure(settings).map_err(|error| error.to_string());
            // Who reloaded may have given up.
            let _ = taken.try_send(result);
            self.tend_responses(false);
        }
    }

    /// Goes on with newer rules, if there are some. What was queued before is judged by them too: an exec carries no
    /// number of a rule, and what was not read of it because no rule asked for it is unknown.
    fn take_rules(&mut self) {
        let generation = self.rules.generation();
        if generation != self.generation {
            self.generation = generation;
            self.evaluator.replace(self.rules.ruleset());
            // Not before their hits go on from those of the rules before.
            self.health.set_rules(Arc::clone(self.evaluator.ruleset()));
        }
    }

    fn write_follow_ups(&mut self, records: Vec<FollowUp>) {
        for record in records {
            self.counters.worker.follow_ups.fetch_add(1, Relaxed);
            if let Some(desk) = &mut self.incidents {
                desk.follow_up(&record);
            }
            self.write(Record::FollowUp(Box::new(record)));
        }
    }

    /// Tells what was folded in windows that are over.
    fn write_folded(&mut self, at_end: bool) {
        for record in self.folder.due(clock::monotonic_ns(), at_end) {
            if let Some(desk) = &mut self.incidents {
                desk.folded(&record);
            }
            self.write(Record::Folded(Box::new(record)));
        }
    }

    /// Looks at the execs that were drained, and hands over what is to be written.
    fn tend_incidents(&mut self) {
        let Some(desk) = &mut self.incidents else { return };
        if let Some(recent) = self.follower.recent() {
            desk.execs(self.follower.table(), recent);
        }
        desk.tick(self.follower.table());
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
        if let Some(since_ns) = noted(&self.signals.execs_missed) {
            self.follower.execs_missed(since_ns);
        }
        if let Some(since_ns) = noted(&self.signals.events_missed) {
            self.follower.events_missed(since_ns);
        }
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
