//! The listeners of all CPUs.
//!
//! The kernel sends an exec event from within execve, on the CPU of the exec'ing task. A listener that is pinned to that
//! CPU and runs in SCHED_FIFO preempts the task before the first instruction of the new image, and until the listener
//! blocks, /proc shows the program as it was started. So there is one such listener per CPU, and one more, the
//! catch-all, for the events of every CPU that has none: because the host refuses SCHED_FIFO or pinning, because the
//! administrator wants a single listener, or because the CPU has just come.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::thread::JoinHandleExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sched::sched_getaffinity;
use nix::sys::pthread::{Pthread, pthread_kill};
use nix::unistd::Pid;

use super::listener::{ExecSink, Listener, Ownership};
use super::stuck::Watch;
use super::subscription::{ConnectorSocket, SubscriptionError};
use super::wire::what;
use super::{filter, placing};
use crate::clock;
use crate::cpus;
use crate::harden;
use crate::harden::roles::Role;
use crate::health::{Counters, ListenerCounters};

/// How many listeners there should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrangement {
    /// One per CPU where the host allows real-time scheduling, else a single one.
    Auto,
    /// One per CPU, even where real-time scheduling is refused.
    PerCpu,
    /// A single one for all CPUs.
    Single,
}

/// How to listen.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How many listeners.
    pub arrangement: Arrangement,
    /// Priority in SCHED_FIFO, 1 to 99; `None` for best effort by choice.
    pub priority: Option<u8>,
    /// Receive buffer of each listener's socket in bytes.
    pub receive_buffer: usize,
}

/// The signal that makes a blocked listener look at its stop flag.
pub const WAKE_SIGNAL: nix::sys::signal::Signal = nix::sys::signal::Signal::SIGURG;

/// Stack of a listener; its buffers are on the heap.
const STACK: usize = 256 * 1024;
/// How long a new thread may take to get to its CPU.
const PLACED_WITHIN: Duration = Duration::from_secs(5);
/// How long no listener is tried again for a CPU that got none.
const REFUSED_FOR: Duration = Duration::from_secs(60);
/// How long a listener may take to end; it only finishes what is queued.
const END_DEADLINE: Duration = Duration::from_secs(5);
/// How far ahead of the present a listener takes over.
const HAND_OVER_NS: u64 = 10_000_000;
/// How long after a hand-over both sides still take what the kernel sends late: an event has its time before it is sent.
const LINGER_NS: u64 = 20_000_000;
/// CPU numbers above this are left to the catch-all.
const MOST_CPUS: usize = 8192;

/// A moment that does not come.
const NEVER: u64 = u64::MAX;

/// Who owns which event, by CPU and event time: settled without a lock and without losing or doubling an event while a
/// per-CPU listener takes over from the catch-all, or hands back to it.
#[derive(Debug)]
pub(super) struct HandOver {
    reigns: Box<[Reign]>,
}

/// From when on, and until when, the listener of a CPU owns its events.
#[derive(Debug)]
struct Reign {
    since: AtomicU64,
    until: AtomicU64,
}

impl HandOver {
    fn new(cpus: usize) -> Self {
        let reign = || Reign { since: AtomicU64::new(NEVER), until: AtomicU64::new(NEVER) };
        HandOver { reigns: (0..cpus).map(|_| reign()).collect() }
    }

    fn is_pinned(&self, cpu: u32, timestamp_ns: u64) -> bool {
        self.reigns.get(cpu as usize).is_some_and(|reign| {
            // In this order: whoever sees that it lasts sees since when.
            let until = reign.until.load(Ordering::Acquire);
            reign.since.load(Ordering::Acquire) <= timestamp_ns && timestamp_ns < until
        })
    }

    /// The CPU's own listener owns its events from a moment to come.
    fn begin(&self, cpu: u32, since: u64) {
        if let Some(reign) = self.reigns.get(cpu as usize) {
            reign.since.store(since, Ordering::Release);
            reign.until.store(NEVER, Ordering::Release);
        }
    }

    /// It owns them until a moment to come.
    fn end(&self, cpu: u32, until: u64) {
        if let Some(reign) = self.reigns.get(cpu as usize) {
            reign.until.store(until, Ordering::Release);
        }
    }

    /// It owns none, at once: what it has in its queue is lost.
    pub(super) fn take_away(&self, cpu: u32) {
        if let Some(reign) = self.reigns.get(cpu as usize) {
            reign.since.store(NEVER, Ordering::Release);
        }
    }
}

/// What one listener owns.
pub(super) struct Owned {
    pub(super) hand_over: Arc<HandOver>,
    /// `None` is the catch-all.
    pub(super) cpu: Option<u32>,
}

impl Ownership for Owned {
    fn owns(&self, cpu: u32, timestamp_ns: u64) -> bool {
        let pinned_listener_owns = self.hand_over.is_pinned(cpu, timestamp_ns);
        match self.cpu {
            Some(own) => own == cpu && pinned_listener_owns,
            None => !pinned_listener_owns,
        }
    }
}

/// A listener's thread and how to end it.
pub(super) struct Running {
    pub(super) thread: JoinHandle<()>,
    pub(super) stop: Arc<AtomicBool>,
    /// Another thread has its place.
    pub(super) replaced: Arc<AtomicBool>,
    pub(super) watch: Watch,
    pub(super) socket: Arc<ConnectorSocket>,
    pub(super) counters: Arc<ListenerCounters>,
    /// What those had discarded who counted there before it.
    pub(super) dropped_before: u64,
    pub(super) exact: bool,
}

impl Running {
    pub(super) fn count_drops(&self) {
        // Without an overrun there is nothing to ask for.
        if self.counters.overruns.load(Ordering::Relaxed) > 0
            && let Some(dropped) = self.socket.dropped()
        {
            self.counters.dropped.store(self.dropped_before + dropped, Ordering::Relaxed);
        }
    }

    /// Its thread has ended.
    pub(super) fn ended(self) {
        self.count_drops();
        // A panic of the thread has ended the process already.
        let _ = self.thread.join();
        self.counters.free();
    }
}

/// Makes the sink of a listener, which counts where the listener does.
pub type NewSink = Box<dyn FnMut(Arc<ListenerCounters>) -> Box<dyn ExecSink>>;

/// All listeners.
pub struct Listeners {
    pub(super) settings: Settings,
    pub(super) counters: Arc<Counters>,
    pub(super) new_sink: NewSink,
    pub(super) hand_over: Arc<HandOver>,
    pub(super) per_cpu: BTreeMap<u32, Running>,
    pub(super) catch_all: Running,
    /// Listeners that were replaced and have not ended yet.
    pub(super) replaced: Vec<Running>,
    /// CPUs for which a listener was tried in vain, and when.
    refused: BTreeMap<u32, Instant>,
    /// Why SCHED_FIFO was refused.
    refusal: Option<String>,
}

impl Listeners {
    /// Starts the listeners. The subscription must stand already. From the return on no exec is missed.
    pub fn start(
        settings: Settings,
        counters: Arc<Counters>,
        mut new_sink: NewSink,
    ) -> Result<Self, SubscriptionError> {
        let hand_over = Arc::new(HandOver::new(MOST_CPUS));
        let socket = ConnectorSocket::open(&filter::execs_except(&[]), settings.receive_buffer)?;
        socket.narrow(what::EXEC)?;
        let owned = Owned { hand_over: Arc::clone(&hand_over), cpu: None };
        let (catch_all, placed) =
            spawn(socket, owned, None, settings.priority, counters.listener(None), &mut new_sink)
                .map_err(|error| SubscriptionError::Call("starting a listener", error))?;
        let refusal = match (settings.priority, placed) {
            (Some(_), Err(error)) => Some(error),
            _ => None,
        };
        let mut listeners = Listeners {
            settings,
            counters,
            new_sink,
            hand_over,
            per_cpu: BTreeMap::new(),
            catch_all,
            replaced: Vec::new(),
            refused: BTreeMap::new(),
            refusal,
        };
        listeners.follow_cpus();
        Ok(listeners)
    }

    /// Brings the listeners into line with the CPUs that are online now. True if anything changed.
    pub fn follow_cpus(&mut self) -> bool {
        let wanted = match self.settings.arrangement {
            Arrangement::Single => Vec::new(),
            Arrangement::Auto if self.settings.priority.is_none() || self.refusal.is_some() => Vec::new(),
            Arrangement::Auto | Arrangement::PerCpu => cpus(),
        };
        let gone: Vec<u32> = self.per_cpu.keys().copied().filter(|cpu| !wanted.contains(cpu)).collect();
        self.refused.retain(|cpu, _| wanted.contains(cpu));
        let new: Vec<u32> = wanted
            .into_iter()
            .filter(|cpu| !self.per_cpu.contains_key(cpu))
            .filter(|cpu| self.refused.get(cpu).is_none_or(|refused| refused.elapsed() > REFUSED_FOR))
            .collect();
        if gone.is_empty() && new.is_empty() {
            return false;
        }
        // The catch-all takes the events of leaving CPUs before their listeners end, and keeps those of new CPUs until
        // their listeners own them; in between both receive them and event time decides.
        self.set_catch_all(&gone);
        if !gone.is_empty() {
            // A CPU that is only no longer allowed to this process executes programs all the while.
            let until = clock::monotonic_ns() + HAND_OVER_NS;
            gone.iter().for_each(|&cpu| self.hand_over.end(cpu, until));
            std::thread::sleep(Duration::from_nanos(HAND_OVER_NS + LINGER_NS));
        }
        let mut changed = !gone.is_empty();
        for cpu in gone {
            if let Some(running) = self.per_cpu.remove(&cpu) {
                end(running);
                let online = cpus::online().is_some_and(|online| online.contains(&cpu));
                let why = if online { "is not allowed to execwatch any more" } else { "went offline" };
                log::info!("CPU {cpu} {why}; its listener ended");
            }
        }
        for cpu in new {
            match self.add(cpu) {
                Ok(()) => {
                    self.refused.remove(&cpu);
                    changed = true;
                }
                Err(error) => {
                    // Said once: it may stay like that.
                    if self.refused.insert(cpu, Instant::now()).is_none() {
                        log::warn!(
                            "CPU {cpu} gets no listener of its own ({error}); the catch-all listener takes its execs, and it \
                             is tried again every minute"
                        );
                        changed = true;
                    }
                }
            }
        }
        // Until the hand-over the catch-all owns the events of new CPUs, so its filter lets them through till then.
        std::thread::sleep(Duration::from_nanos(HAND_OVER_NS + LINGER_NS));
        self.set_catch_all(&[]);
        changed
    }

    fn add(&mut self, cpu: u32) -> Result<(), String> {
        let socket = ConnectorSocket::open(&filter::execs_of(cpu), self.settings.receive_buffer)
            .map_err(|error| error.to_string())?;
        socket.narrow(what::EXEC).map_err(|error| error.to_string())?;
        let owned = Owned { hand_over: Arc::clone(&self.hand_over), cpu: Some(cpu) };
        let counters = self.counters.listener(Some(cpu));
        let (priority, receiver) = (self.settings.priority, Arc::clone(&socket));
        let spawned = spawn(receiver, owned, Some(cpu), priority, counters, &mut self.new_sink);
        let (running, placed) = spawned.map_err(|error| {
            socket.ignore();
            error.to_string()
        })?;
        if let Err(error) = placed {
            let insists = self.settings.arrangement == Arrangement::PerCpu;
            if !insists {
                end(running);
                return Err(error);
            }
        }
        // A moment in the future: no event of it exists yet, so both listeners judge each event alike.
        self.hand_over.begin(cpu, clock::monotonic_ns() + HAND_OVER_NS);
        self.per_cpu.insert(cpu, running);
        Ok(())
    }

    /// Lets the catch-all take the execs of every CPU without a listener, and those of `leaving`.
    pub(super) fn set_catch_all(&self, leaving: &[u32]) {
        let covered: Vec<u32> = self.per_cpu.keys().copied().filter(|cpu| !leaving.contains(cpu)).collect();
        if let Err(error) = self.catch_all.socket.set_filter(&filter::execs_except(&covered)) {
            // The old filter stays. If it lets through more, an event is received twice, and event time decides who owns it.
            log::warn!(
                "the filter of the catch-all listener cannot be set, so execs of CPUs that go may be missed: {error}"
            );
        }
    }

    /// The CPUs whose execs are held while they are read.
    pub fn exact_cpus(&self) -> Vec<u32> {
        self.per_cpu.iter().filter(|(_, running)| running.exact).map(|(&cpu, _)| cpu).collect()
    }

    /// Why SCHED_FIFO was refused, if it was.
    pub fn refusal(&self) -> Option<&str> {
        self.refusal.as_deref()
    }

    /// Size of a listener's receive buffer, as the kernel counts it.
    pub fn receive_buffer(&self) -> usize {
        self.catch_all.socket.receive_buffer
    }

    /// Asks the kernel what it discarded at sockets that had overflowed.
    pub fn count_drops(&self) {
        self.per_cpu.values().chain([&self.catch_all]).for_each(Running::count_drops);
    }

    /// Ends the subscription and the threads, after they have taken what was queued.
    pub fn stop(self) {
        let all: Vec<Running> = self.per_cpu.into_values().chain([self.catch_all]).collect();
        for running in &all {
            running.socket.ignore();
            running.stop.store(true, Ordering::Relaxed);
        }
        all.into_iter().for_each(end);
    }
}

/// Threads that were not placed in time and that nobody waits for any more.
static UNPLACED: AtomicUsize = AtomicUsize::new(0);
/// More are not started: each has its memory.
const MOST_UNPLACED: usize = 8;

/// Starts a listener's thread and waits until it is placed. The second result says whether it got its place: an error is
/// the reason for best effort, if another was asked for.
pub(super) fn spawn(
    socket: Arc<ConnectorSocket>,
    ownership: Owned,
    cpu: Option<u32>,
    priority: Option<u8>,
    counters: Arc<ListenerCounters>,
    new_sink: &mut NewSink,
) -> io::Result<(Running, Result<(), String>)> {
    let (stop, replaced) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let name = cpu.map_or("listen-any".to_owned(), |cpu| format!("listen-{cpu}"));
    if UNPLACED.load(Ordering::Relaxed) >= MOST_UNPLACED {
        counters.free();
        return Err(io::Error::other(format!(
            "{MOST_UNPLACED} threads still wait for the CPUs they were given"
        )));
    }
    let (report, reported) = crossbeam_channel::bounded(1);
    // Whoever is first, the thread that has its place or its starter who gives up, decides what becomes of it. Not a channel
    // without room, for which a sender may spin, here with a priority that keeps its receiver from the CPU.
    let settled = Arc::new(AtomicBool::new(false));
    let sink = new_sink(Arc::clone(&counters));
    let started = std::thread::Builder::new().name(name).stack_size(STACK).spawn({
        let (socket, counters) = (Arc::clone(&socket), Arc::clone(&counters));
        let (stop, replaced, settled) = (Arc::clone(&stop), Arc::clone(&replaced), Arc::clone(&settled));
        move || {
            let placed = placing::place(cpu, priority);
            let exact_cpu = cpu.filter(|_| priority.is_some() && placed.is_ok());
            harden::enter(Role::Listener);
            if settled.swap(true, Ordering::AcqRel) {
                UNPLACED.fetch_sub(1, Ordering::Relaxed);
                counters.free();
                return;
            }
            // There is room, and its starter waits.
            let _ = report.send(placed);
            let listener = Listener { socket, stop, replaced, counters, sink, ownership, exact_cpu };
            if let Err(error) = listener.run() {
                log::error!("a listener ended: receiving process events failed: {error}");
            }
        }
    });
    let thread = started.inspect_err(|_| counters.free())?;
    // A thread that spins at a higher priority may keep it from its CPU for ever.
    let placed = reported.recv_timeout(PLACED_WITHIN).or_else(|_| {
        UNPLACED.fetch_add(1, Ordering::Relaxed);
        if settled.swap(true, Ordering::AcqRel) {
            UNPLACED.fetch_sub(1, Ordering::Relaxed);
            // It has just got there.
            return reported.recv().map_err(io::Error::other);
        }
        Err(io::Error::other(
            "the listener's thread does not get the CPU; does a real-time program spin there?",
        ))
    })?;
    let exact = cpu.is_some() && priority.is_some() && placed.is_ok();
    let (watch, dropped_before) = (Watch::default(), counters.dropped.load(Ordering::Relaxed));
    Ok((Running { thread, stop, replaced, watch, socket, counters, dropped_before, exact }, placed))
}

/// Ends a listener. Signals are repeated because one that comes just before the thread blocks has no effect.
fn end(running: Running) {
    running.socket.ignore();
    running.stop.store(true, Ordering::Relaxed);
    let deadline = Instant::now() + END_DEADLINE;
    while !running.thread.is_finished() {
        if Instant::now() > deadline {
            log::error!("a listener did not end within {} s and is left behind", END_DEADLINE.as_secs());
            return;
        }
        wake(&running);
        std::thread::sleep(Duration::from_millis(1));
    }
    running.ended();
}

/// Makes a listener look at what it is told.
pub(super) fn wake(running: &Running) {
    #[allow(clippy::unnecessary_cast, reason = "the types differ between C libraries")]
    let thread = running.thread.as_pthread_t() as Pthread;
    // ESRCH: it has just ended.
    let _ = pthread_kill(thread, WAKE_SIGNAL);
}

/// The CPUs that are online and allowed to this process.
pub(super) fn cpus() -> Vec<u32> {
    // Without sysfs the affinity mask is all there is.
    let online = cpus::online().unwrap_or_else(|| (0..MOST_CPUS as u32).collect());
    let allowed = sched_getaffinity(Pid::from_raw(0));
    online
        .into_iter()
        .filter(|&cpu| (cpu as usize) < MOST_CPUS)
        .filter(|&cpu| allowed.as_ref().map_or(true, |set| set.is_set(cpu as usize).unwrap_or(false)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_has_one_owner_at_any_time() {
        let hand_over = Arc::new(HandOver::new(4));
        let pinned = Owned { hand_over: Arc::clone(&hand_over), cpu: Some(2) };
        let catch_all = Owned { hand_over: Arc::clone(&hand_over), cpu: None };
        let own = |stamps: [u64; 6]| {
            stamps.map(|stamp| {
                assert_ne!(pinned.owns(2, stamp), catch_all.owns(2, stamp), "{stamp}");
                pinned.owns(2, stamp)
            })
        };
        const LAST: u64 = u64::MAX - 1;
        assert_eq!(own([0, 99, 100, 199, 200, LAST]), [false; 6]);
        hand_over.begin(2, 100);
        assert_eq!(own([0, 99, 100, 199, 200, LAST]), [false, false, true, true, true, true]);
        // What it owned stays its own after it has handed back.
        hand_over.end(2, 200);
        assert_eq!(own([0, 99, 100, 199, 200, LAST]), [false, false, true, true, false, false]);
        hand_over.begin(2, 300);
        assert_eq!(own([0, 100, 200, 299, 300, LAST]), [false, false, false, false, true, true]);
        hand_over.take_away(2);
        assert_eq!(own([0, 99, 100, 199, 300, LAST]), [false; 6]);
        assert!(!pinned.owns(3, 100) && catch_all.owns(3, 100));
        // A CPU beyond the table belongs to the catch-all.
        assert!(catch_all.owns(u32::MAX, 1));
    }
}
