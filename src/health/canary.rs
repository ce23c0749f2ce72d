//! A program of execwatch's own, executed to see whether it is seen.
//!
//! The kernel tells nobody that it has stopped to send events, nor does a thread that hangs. So where nothing was seen
//! for a while, the daemon executes itself with an argument that makes it wait and end, pinned to the CPU in question.
//! The kernel sends the event from within execve; the listener keeps the time of the last event, and that alone is
//! compared, so that it does no work for this. The child waits until it was seen, so that it can be read also where
//! programs are not held.

use std::io::{self, Read};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use super::ListenerCounters;
use crate::clock;
use crate::process::exec::Exec;

/// The argument that makes execwatch a canary.
pub const ARGUMENT: &str = "canary";
/// Within this time after its execve a canary must have been seen.
pub const PATIENCE: Duration = Duration::from_secs(1);
/// How often it is looked whether it was.
const GLANCE: Duration = Duration::from_millis(2);

/// What the child does: it waits until nobody holds the other end of its standard input.
pub fn sing() {
    // Whatever comes, it is over then.
    let _ = io::stdin().lock().read_to_end(&mut Vec::new());
}

/// True for the exec of a canary of this daemon: nobody else can make a child of it.
pub fn is_own(exec: &Exec) -> bool {
    exec.details.ppid == Some(std::process::id()) && exec.image.argument(1) == Some(ARGUMENT.as_bytes())
}

/// A listener to be tried.
#[derive(Debug, Clone)]
pub struct Probe {
    /// Its CPU; `None` is the listener of all CPUs that have none of their own.
    pub listener: Option<u32>,
    /// Where the canary is executed.
    pub cpu: u32,
    /// What the listener counts.
    pub counters: Arc<ListenerCounters>,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The listener saw it, or something else since.
    Seen,
    /// It did not, within [`PATIENCE`].
    Unseen,
    /// The canary could not be executed.
    NotRun(String),
}

/// The outcome for a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// The listener.
    pub listener: Option<u32>,
    /// What came of it.
    pub outcome: Outcome,
}

/// The thread that executes canaries: what is pinned to a CPU that others keep busy may wait for long.
#[derive(Debug)]
pub struct Cage {
    orders: Sender<Vec<Probe>>,
    tried: Receiver<Vec<Tried>>,
    /// Since when an order is not answered.
    busy: Option<Instant>,
}

impl Cage {
    /// Starts the thread.
    pub fn open() -> io::Result<Cage> {
        let (orders, ordered) = crossbeam_channel::bounded::<Vec<Probe>>(1);
        let (tell, tried) = crossbeam_channel::bounded(1);
        std::thread::Builder::new().name("canary".to_owned()).stack_size(128 * 1024).spawn(move || {
            let everywhere = sched_getaffinity(Pid::from_raw(0));
            for probes in ordered {
                let results = try_all(probes);
                if let Ok(everywhere) = &everywhere {
                    // Only this thread is moved, and the next canary pins it again.
                    let _ = sched_setaffinity(Pid::from_raw(0), everywhere);
                }
                if tell.send(results).is_err() {
                    return;
                }
            }
        })?;
        Ok(Cage { orders, tried, busy: None })
    }

    /// Since when an order is being carried out.
    pub fn busy(&self) -> Option<Instant> {
        self.busy
    }

    /// Has listeners tried. Nothing happens while others are.
    pub fn order(&mut self, probes: Vec<Probe>) {
        if self.busy.is_none() && !probes.is_empty() && self.orders.try_send(probes).is_ok() {
            self.busy = Some(Instant::now());
        }
    }

    /// What came of the last order, once.
    pub fn results(&mut self) -> Option<Vec<Tried>> {
        let results = self.tried.try_recv().ok()?;
        self.busy = None;
        Some(results)
    }
}

/// A canary that was let out.
struct Flown {
    child: Child,
    since_ns: u64,
}

fn try_all(probes: Vec<Probe>) -> Vec<Tried> {
    let flown: Vec<(Probe, io::Result<Flown>)> = probes
        .into_iter()
        .map(|probe| {
            let flown = fly(probe.cpu);
            (probe, flown)
        })
        .collect();
    let deadline = Instant::now() + PATIENCE;
    let is_seen = |probe: &Probe, flown: &Flown| probe.counters.last_event_ns.load(Relaxed) >= flown.since_ns;
    let all_seen = || flown.iter().all(|(probe, flown)| flown.as_ref().map_or(true, |it| is_seen(probe, it)));
    while !all_seen() && Instant::now() < deadline {
        std::thread::sleep(GLANCE);
    }
    flown
        .into_iter()
        .map(|(probe, flown)| {
            let outcome = match flown {
                Ok(mut flown) => {
                    let seen = is_seen(&probe, &flown);
                    drop(flown.child.stdin.take());
                    // It ends by itself, unless somebody stopped it.
                    end(&mut flown.child);
                    if seen { Outcome::Seen } else { Outcome::Unseen }
                }
                Err(error) => Outcome::NotRun(error.to_string()),
            };
            Tried { listener: probe.listener, outcome }
        })
        .collect()
}

fn fly(cpu: u32) -> io::Result<Flown> {
    let mut here = CpuSet::new();
    here.set(cpu as usize)?;
    // The child inherits it.
    sched_setaffinity(Pid::from_raw(0), &here)?;
    let since_ns = clock::monotonic_ns();
    let child = Command::new("/proc/self/exe")
        .arg(ARGUMENT)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    Ok(Flown { child, since_ns })
}

fn end(child: &mut Child) {
    let deadline = Instant::now() + PATIENCE;
    while let Ok(None) = child.try_wait() {
        if Instant::now() > deadline {
            // One that has ended meanwhile cannot be killed and need not be.
            let _ = child.kill();
            let _ = child.wait();
            return;
        }
        std::thread::sleep(GLANCE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::exec::Image;

    #[test]
    fn only_a_child_of_this_process_is_a_canary() {
        let mut exec = Exec { image: Image::new(Some(b"/x"), Some(&["x", ARGUMENT])), ..Exec::default() };
        exec.details.ppid = Some(std::process::id());
        assert!(is_own(&exec));
        exec.image = Image::new(Some(b"/x"), Some(&["x", "run"]));
        assert!(!is_own(&exec));
        exec.image = Image::new(Some(b"/x"), Some(&["x", ARGUMENT]));
        exec.details.ppid = Some(1);
        assert!(!is_own(&exec));
        exec.details.ppid = None;
        assert!(!is_own(&exec));
    }
}
