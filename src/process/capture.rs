//! The sink of the listeners: reads the program that was just executed, while it is held.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::details::Scratch;
use super::exec::{Certainty, Exec, Image};
use super::overlay;
use super::pin::Pinned;
use super::proc_dir::{ProcDir, ProcRoot};
use super::queue::{Claimed, ExecSender};
use super::relatives::{Ancestors, HostProcesses, Processes};
use super::ring::{LightExec, Pushed, RingWriter};
use crate::clock;
use crate::connector::listener::{ExecNotice, ExecSink};
use crate::cpus;
use crate::health::ListenerCounters;
use crate::identity::Unsettled;
use crate::identity::identify::{Identifier, Possible};
use crate::response::decide::{Decider, Room};
use crate::rules::catalogue::{Hints, KnownFile};
use crate::rules::current::Subscription;
use crate::rules::ruleset::RuleSet;
use crate::sys;

/// Decides on the hot path whether any rule could match.
pub trait Prefilter: Send + Sync {
    /// False only if no rule can match, whatever else there is to know.
    fn could_match(&self, image: &Image, hints: Hints<'_>) -> bool;

    /// Some rule asks for a utility.
    fn wants_utilities(&self) -> bool;

    /// The names in an image leave open what it is called, so that the kernel's name should be read too.
    fn wants_comm(&self, image: &Image) -> bool;

    /// What it wants to be read besides.
    fn wants(&self) -> Wants;

    /// The rules.
    fn ruleset(&self) -> &RuleSet;
}

/// Lets every program through, so that all can be recorded.
pub struct Everything(pub Arc<dyn Prefilter>);

impl Prefilter for Everything {
    fn could_match(&self, _: &Image, _: Hints<'_>) -> bool {
        true
    }

    fn wants_utilities(&self) -> bool {
        self.0.wants_utilities()
    }

    fn wants_comm(&self, _: &Image) -> bool {
        false
    }

    fn wants(&self) -> Wants {
        self.0.wants()
    }

    fn ruleset(&self) -> &RuleSet {
        self.0.ruleset()
    }
}

/// What is read only if a rule asks for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wants {
    /// Environment variables.
    pub environment: bool,
    /// Whether the executable lies in an upper layer.
    pub upper_layer: bool,
    /// The content of the executable.
    pub content: bool,
    /// Which files belong to packages.
    pub packages: bool,
    /// What the baseline knows of the program by itself.
    pub baseline: bool,
}

/// For so long after a program whose details were read, the scheduler counts the listener's time against its CPU: the
/// average that it keeps of real-time tasks halves every 32 ms (PELT).
const PRESSURE_NS: u64 = 100_000_000;
/// Longest path that the kernel gives for a link, with the mark of a deleted file.
const LONGEST_PATH: usize = 4096 + 16;
/// Bytes kept of an argument list, and of an environment, when the queue is short of memory.
const SHORT_ARGUMENTS: usize = 1024;

/// Limits and facts shared by all captures.
#[derive(Debug, Clone)]
pub struct CaptureSettings {
    /// Bytes kept of an argument list.
    pub arguments_limit: usize,
    /// A hold up to this many nanoseconds is certain; see [`hold_limit_ns`].
    pub hold_limit_ns: u64,
    /// The listeners' SCHED_FIFO priority.
    pub priority: u8,
}

/// An event that has waited for so long was not followed at once by its listener, whose thread was stopped, throttled
/// (`sched_rt_runtime_us`; 50 ms a second by default), or is the successor of one that hung.
const LATE_NS: u64 = 20_000_000;

/// How long a held program certainly stays on its CPU, in nanoseconds: half of the time for which the scheduler takes a
/// preempted task to be cache-hot (`sched_migration_cost`). An idle CPU does not pull such a task. With one CPU there is
/// nowhere to go.
pub fn hold_limit_ns() -> u64 {
    /// The kernel's default since 2.6.32 (kernel/sched/fair.c).
    const DEFAULT_NS: u64 = 500_000;
    // Not what this process may use: the program may go where it may not.
    if cpus::only_one() {
        return u64::MAX;
    }
    ["/proc/sys/kernel/sched_migration_cost_ns", "/sys/kernel/debug/sched/migration_cost_ns"]
        .iter()
        .find_map(|path| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok())
        .unwrap_or(DEFAULT_NS)
        / 2
}

/// Reads programs for one listener.
pub struct Capture {
    proc: Arc<ProcRoot>,
    rules: Subscription,
    identifier: Identifier,
    sender: ExecSender,
    settings: CaptureSettings,
    buffers: Buffers,
    /// The slot of the next event: most events match nothing and leave it free.
    claimed: Option<Claimed>,
    /// Takes the event when there is no slot.
    spare: Exec,
    /// Takes a light record of every exec.
    ring: Option<RingWriter>,
    /// Decides on rules that act on held programs.
    decider: Option<Decider>,
    /// The host's CPUs when this was made; none if that is unknown.
    online: Vec<u32>,
    /// When a program was executed last whose details were read (CLOCK_MONOTONIC).
    last_candidate_ns: u64,
    /// Since when nothing but an event is waited for (CLOCK_MONOTONIC).
    free_since_ns: u64,
    /// How often this thread had slept by then.
    sleeps: i64,
    counters: Arc<ListenerCounters>,
}

/// What files are read into.
struct Buffers {
    exe: Box<[u8]>,
    cmdline: Box<[u8]>,
    details: Scratch,
}

impl Buffers {
    fn new(arguments_limit: usize) -> Self {
        /// Not zero: such memory would come into being only while a program is held, for which the lock of the process's
        /// memory may have to be waited for.
        const TOUCHED: u8 = 0xff;
        Buffers {
            exe: vec![TOUCHED; LONGEST_PATH].into_boxed_slice(),
            cmdline: vec![TOUCHED; arguments_limit + 1].into_boxed_slice(),
            details: Scratch::default(),
        }
    }
}

impl Capture {
    /// A capture that hands what could match to `sender`.
    pub fn new(
        proc: Arc<ProcRoot>,
        rules: Subscription,
        identifier: Identifier,
        sender: ExecSender,
        settings: CaptureSettings,
        counters: Arc<ListenerCounters>,
    ) -> Self {
        let buffers = Buffers::new(settings.arguments_limit);
        Capture {
            proc,
            rules,
            identifier,
            sender,
            settings,
            buffers,
            claimed: None,
            spare: Exec::default(),
            ring: None,
            decider: None,
            online: cpus::online().unwrap_or_default(),
            last_candidate_ns: 0,
            free_since_ns: 0,
            sleeps: 0,
            counters,
        }
    }

    /// Puts a light record of every exec into `ring`.
    pub fn with_ring(mut self, ring: RingWriter) -> Self {
        self.ring = Some(ring);
        self
    }

    /// Lets rules that act on held programs do so.
    pub fn with_decider(mut self, decider: Decider) -> Self {
        self.decider = Some(decider);
        self
    }

    /// Reads a process that runs, for the given reason. It waits for a slot, so it is not for a listener.
    pub(super) fn running(&mut self, pid: u32, certainty: Certainty) {
        let claimed = loop {
            self.claim();
            match self.claimed.take() {
                Some(claimed) => break claimed,
                None => std::thread::sleep(std::time::Duration::from_millis(1)),
            }
        };
        self.rules.refresh();
        let mut exec = self.sender.exec(&claimed);
        start(&mut exec, pid, 0, clock::monotonic_ns());
        let limit = self.settings.arguments_limit;
        let mut reading = Reading {
            proc: &self.proc,
            prefilter: self.rules.filter(),
            identifier: &mut self.identifier,
            // What runs already is not stopped before its first instruction.
            decider: None,
            room: Room::Left,
            limit,
            environment: usize::MAX,
        };
        let candidate = reading.unheld(&mut self.buffers, Some(self.rules.wants()), &mut exec);
        exec.certainty = certainty;
        drop(exec);
        if candidate {
            // If the worker has ended, so will this.
            let _ = self.sender.send(claimed);
            self.sender.tidy();
        } else {
            self.claimed = Some(claimed);
        }
    }

    /// Claims the slot of the next event, if there is one. Called when one program was read, and not only when the next
    /// waits to be.
    fn claim(&mut self) {
        if self.claimed.is_none() {
            self.claimed = self.sender.claim();
        }
    }
}

impl ExecSink for Capture {
    fn exec(&mut self, notice: ExecNotice) {
        self.rules.refresh();
        if let Some(decider) = &mut self.decider
            && decider.refresh(self.rules.filter().ruleset())
        {
            // A policy that allows more is put in force after the rules it belongs to.
            self.rules.refresh();
        }
        self.claim();
        let claimed = self.claimed.take();
        let mut guard = claimed.as_ref().map(|claimed| self.sender.exec(claimed));
        let exec = guard.as_deref_mut().unwrap_or(&mut self.spare);
        start(exec, notice.pid, notice.cpu, notice.timestamp_ns);
        let (limit, environment) = if self.sender.short_of_memory() {
            (SHORT_ARGUMENTS.min(self.settings.arguments_limit), SHORT_ARGUMENTS)
        } else {
            (self.settings.arguments_limit, usize::MAX)
        };
        // Without a slot the details would reach nobody, but a rule that acts on held programs needs them.
        let rules = self.rules.filter().ruleset();
        let decider = self.decider.as_mut().and_then(|decider| decider.active(rules).then_some(decider));
        let wants = (claimed.is_some() || decider.is_some()).then_some(self.rules.wants());
        let mut reading = Reading {
            proc: &self.proc,
            prefilter: self.rules.filter(),
            identifier: &mut self.identifier,
            decider,
            room: if claimed.is_some() { Room::Left } else { Room::None },
            limit,
            environment,
        };
        // A listener that comes so late was kept from its CPU, and the program was not; nor was one that was executed before
        // the listener was done with what came before.
        let found_after_ns = clock::monotonic_ns().saturating_sub(notice.timestamp_ns);
        let mut held = notice.held && found_after_ns < LATE_NS && notice.timestamp_ns >= self.free_since_ns;
        let candidate = if held {
            let pin = || Pinned::new(notice.pid, notice.cpu, &self.online);
            // Where the last programs took long, this one may be pushed away before it is known whether it will.
            let busy = notice.timestamp_ns.saturating_sub(self.last_candidate_ns) < PRESSURE_NS;
            let mut pinned = if busy { pin() } else { None };
            let program = self.proc.held(notice.pid);
            let candidate = reading.is_candidate(&program, &mut self.buffers, exec);
            // Many files are read then, for which opening the folder pays.
            if candidate
                && let Some(wants) = wants
                && let Ok(dir) = self.proc.process(notice.pid)
            {
                let stopped = reading.stop_early(exec);
                if !busy {
                    pinned = pin();
                }
                reading.details(&dir, &mut self.buffers, wants, exec);
                held = exec.details.gives_way_to(self.settings.priority);
                reading.respond(&dir, exec, held, stopped);
            }
            drop(pinned);
            if candidate {
                self.last_candidate_ns = notice.timestamp_ns;
            }
            candidate
        } else {
            reading.unheld(&mut self.buffers, wants, exec)
        };
        exec.hold_ns = clock::monotonic_ns().saturating_sub(notice.timestamp_ns);
        // Once for the event, unless that was there already. Whoever sleeps between lets go of the program, and who pins one
        // sleeps if it runs on another CPU by then. If it waits there for something, that CPU is still the one it ran on.
        let sleeps = sys::sched::sleeps();
        let slept = sleeps - std::mem::replace(&mut self.sleeps, sleeps) > 1;
        let stayed = !slept && exec.details.processor.is_none_or(|processor| processor == notice.cpu);
        judge(exec, held, stayed, self.settings.hold_limit_ns);
        count(&self.counters, exec, found_after_ns);
        let unrecorded = claimed.is_none() && exec.response.is_some_and(|response| response.outcome.acted());
        if let Some(ring) = &self.ring {
            let light = LightExec {
                pid: exec.pid,
                time_ns: exec.timestamp_ns,
                exe: exec.image.link(),
                arguments: exec.image.cmdline(),
                cut: exec.image.cut(),
            };
            if ring.push(&light) == Pushed::HalfFull {
                self.sender.wake();
            }
        }
        drop(guard);
        match claimed {
            Some(claimed) if candidate => {
                self.counters.candidates.fetch_add(1, Relaxed);
                if !self.sender.send(claimed) {
                    self.counters.queue_full.fetch_add(1, Relaxed);
                }
                self.sender.tidy();
                self.claim();
                // What that may have waited for is no business of the next program's.
                self.sleeps = sys::sched::sleeps();
            }
            Some(claimed) => self.claimed = Some(claimed),
            None if candidate => {
                self.counters.candidates.fetch_add(1, Relaxed);
                self.counters.queue_full.fetch_add(1, Relaxed);
                self.counters.unrecorded.fetch_add(unrecorded.into(), Relaxed);
            }
            None => {}
        }
        self.free_since_ns = clock::monotonic_ns();
    }

    fn idle(&mut self) {
        // So that no old rule set is kept for a CPU on which nothing is executed.
        self.rules.refresh();
        self.sender.tidy();
        self.claim();
        self.sleeps = sys::sched::sleeps();
        self.free_since_ns = clock::monotonic_ns();
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        if let Some(claimed) = self.claimed.take() {
            self.sender.release(claimed);
        }
    }
}

/// Says how sure it is that a program was read, and killed or stopped, before its first instruction. `held`: its listener had its
/// CPU; `stayed`: nothing speaks for its having run on another one.
fn judge(exec: &mut Exec, held: bool, stayed: bool, limit_ns: u64) {
    exec.certainty = match held {
        true if exec.hold_ns <= limit_ns && stayed && !exec.details.traced => Certainty::Exact,
        true => Certainty::Likely,
        false => Certainty::BestEffort,
    };
    // The signal may have been sent before the reading took too long.
    if !stayed
        && let Some(response) = &mut exec.response
        && response.certainty == Certainty::Exact
    {
        response.certainty = Certainty::Likely;
    }
}

fn count(counters: &ListenerCounters, exec: &Exec, found_after_ns: u64) {
    let read = exec.image.exe().is_some() && exec.image.argv().is_some();
    let counter = match exec.certainty {
        _ if !read => &counters.gone,
        Certainty::Exact => &counters.exact,
        Certainty::Likely => &counters.likely,
        Certainty::BestEffort | Certainty::AlreadyRunning | Certainty::Missed | Certainty::Reported => {
            &counters.best_effort
        }
    };
    if !read {
        // Before the count, with which it is told.
        counters.gone_after_ns.fetch_max(found_after_ns, Relaxed);
    }
    counter.fetch_add(1, Relaxed);
    if exec.image.cut() {
        counters.cut.fetch_add(1, Relaxed);
    }
    if exec.details.unsettled == Some(Unsettled::Unreadable) {
        counters.unidentified.fetch_add(1, Relaxed);
    }
    if exec.certainty != Certainty::BestEffort {
        counters.note_hold(exec.hold_ns);
    }
}

fn start(exec: &mut Exec, pid: u32, cpu: u32, timestamp_ns: u64) {
    exec.image.clear();
    exec.details.clear();
    exec.file = None;
    exec.sha256.take();
    exec.descriptor.close();
    exec.pid = pid;
    exec.cpu = cpu;
    exec.timestamp_ns = timestamp_ns;
    exec.hold_ns = 0;
    exec.ancestors = Ancestors::default();
    exec.response = None;
}

/// What the reading of one program needs.
struct Reading<'c> {
    proc: &'c ProcRoot,
    prefilter: &'c dyn Prefilter,
    identifier: &'c mut Identifier,
    /// Where rules act on held programs.
    decider: Option<&'c mut Decider>,
    /// Whether the event has a slot.
    room: Room,
    /// Bytes kept of the argument list.
    limit: usize,
    /// Bytes kept of the environment, if a rule wants it.
    environment: usize,
}

impl Reading<'_> {
    /// Reads a process that may end meanwhile, through its opened folder. Returns whether a rule could match.
    fn unheld(&mut self, buffers: &mut Buffers, wants: Option<Wants>, exec: &mut Exec) -> bool {
        let Ok(dir) = self.proc.process(exec.pid) else { return false };
        let candidate = self.is_candidate(&dir, buffers, exec);
        if candidate && let Some(wants) = wants {
            self.details(&dir, buffers, wants, exec);
            self.respond(&dir, exec, false, None);
        }
        candidate
    }

    /// Reads what everything about a program depends on. Returns whether a rule could match: by executable, arguments and
    /// file, and by the kernel's name of the process where these leave open what it was called.
    fn is_candidate(&mut self, dir: &ProcDir<'_>, buffers: &mut Buffers, exec: &mut Exec) -> bool {
        read_image(dir, buffers, self.limit, &mut exec.image);
        let possible = self.identifier.identify(dir, exec);
        let (image, details) = (&exec.image, &exec.details);
        if self.prefilter.could_match(image, details.hints(None))
            || could_be_utility(self.prefilter, image, &possible)
        {
            return true;
        }
        if !self.prefilter.wants_comm(image) {
            return false;
        }
        let Some(comm) = dir.file(c"comm", &mut buffers.exe) else { return false };
        let comm = comm.strip_suffix(b"\n").unwrap_or(comm);
        self.prefilter.could_match(image, details.hints(Some(comm)))
    }

    /// Reads the rest, which the worker needs.
    fn details(&self, dir: &ProcDir<'_>, buffers: &mut Buffers, wants: Wants, exec: &mut Exec) {
        let environment = if wants.environment { self.environment } else { 0 };
        exec.details.read(self.proc, dir, &mut buffers.details, environment);
        if exec.file.is_none() {
            exec.file = dir.status(c"exe");
        }
        self.identifier.hold(dir, wants.content, exec);
        exec.details.read_cgroup(dir, &mut buffers.details);
    }

    /// Stops the program that a rule acts on by executable and arguments alone; when, if it did.
    fn stop_early(&mut self, exec: &Exec) -> Option<u64> {
        let rules = self.prefilter.ruleset();
        self.decider.as_mut()?.stop_early(rules, exec)
    }

    /// Lets a rule act on the program that asks for it. After everything was read: what was killed may have gone.
    fn respond(&mut self, dir: &ProcDir<'_>, exec: &mut Exec, held: bool, stopped_early: Option<u64>) {
        if let Some(decider) = &mut self.decider {
            let rules = self.prefilter.ruleset();
            exec.response = decider.decide(rules, dir, exec, (held, self.room), stopped_early);
        }
    }
}

/// Whether a rule could match if the worker finds out that the file is a utility's.
fn could_be_utility(prefilter: &dyn Prefilter, image: &Image, possible: &Possible<'_>) -> bool {
    if possible.any() {
        return prefilter.wants_utilities();
    }
    possible.utilities().any(|installed| {
        let file = KnownFile {
            utility: &installed.utility,
            path: installed.path(),
            at_its_place: false,
            loaded: possible.loaded(),
        };
        prefilter.could_match(image, Hints { file: Some(file), ..Hints::default() })
    })
}

/// Reads a process that runs, for whoever asks about it later. `None` if there is none.
pub fn read_running(
    proc: &Arc<ProcRoot>,
    pid: u32,
    identifier: &mut Identifier,
    settings: &CaptureSettings,
    wants: Wants,
) -> Option<Exec> {
    let mut buffers = Buffers::new(settings.arguments_limit);
    let mut exec = Exec::default();
    start(&mut exec, pid, 0, clock::monotonic_ns());
    let dir = proc.process(pid).ok()?;
    read_image(&dir, &mut buffers, settings.arguments_limit, &mut exec.image);
    identifier.identify(&dir, &mut exec);
    exec.file = exec.file.or_else(|| dir.status(c"exe"));
    identifier.hold(&dir, wants.content, &mut exec);
    let environment = if wants.environment { usize::MAX } else { 0 };
    exec.details.read(proc, &dir, &mut buffers.details, environment);
    exec.details.read_cgroup(&dir, &mut buffers.details);
    exec.details.read_parent_arguments(proc, &mut buffers.details);
    exec.ancestors = HostProcesses::new(Arc::clone(proc)).ancestors(&exec.details);
    if wants.upper_layer {
        exec.details.upper_layer = overlay::of_executable(proc, &exec);
    }
    exec.certainty = Certainty::AlreadyRunning;
    (!exec.details.is_empty()).then_some(exec)
}

/// Reads executable and arguments. The executable comes first: on PREEMPT_RT kernels the arguments' lock may be held by
/// the preempted program, so that reading them lets it run.
fn read_image(dir: &ProcDir<'_>, buffers: &mut Buffers, limit: usize, image: &mut Image) {
    if let Some(exe) = dir.link(c"exe", &mut buffers.exe) {
        image.set_exe(exe);
    }
    let Some(cmdline) = dir.file(c"cmdline", &mut buffers.cmdline[..=limit]) else { return };
    if cmdline.is_empty() && dir.link(c"exe", &mut buffers.exe).is_none() {
        // An ended program shows no arguments either; one that was started without any still has its executable.
        return;
    }
    image.set_arguments(&cmdline[..cmdline.len().min(limit)], cmdline.len() > limit);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::response::{Outcome, Response, RuleName};
    use crate::rules::action::Action;

    #[test]
    fn what_may_have_run_is_not_exact() {
        use Certainty::{Exact, Likely};
        for (hold_ns, stayed, traced, expected) in [
            (100, true, false, (Exact, Exact)),
            (101, true, false, (Likely, Exact)),
            (100, true, true, (Likely, Exact)),
            (100, false, false, (Likely, Likely)),
        ] {
            let mut exec = Exec { hold_ns, ..Exec::default() };
            exec.details.traced = traced;
            let rule = RuleName::new("a-rule");
            let response =
                Response { action: Action::Deny, rule, outcome: Outcome::Prevented, certainty: Exact };
            exec.response = Some(response);
            judge(&mut exec, true, stayed, 100);
            let found = (exec.certainty, exec.response.unwrap().certainty);
            assert_eq!(found, expected, "{hold_ns} {stayed} {traced}");
            judge(&mut exec, false, stayed, 100);
            assert_eq!(exec.certainty, Certainty::BestEffort);
        }
    }
}
