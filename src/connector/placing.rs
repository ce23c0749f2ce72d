//! Putting listeners onto their CPUs, and keeping them there: others may move the threads of a machine (taskset, chrt, tuned, cpusets), and a
//! listener that is not on its CPU, or not before all others there, holds nobody.

use std::sync::atomic::Ordering::Relaxed;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use super::listeners::{Listeners, Running};
use crate::{cpus, sys};

/// The nice value of listeners without real-time priority.
const BEST_EFFORT_NICE: i32 = -20;

impl Listeners {
    /// Looks, once a tick, whether exact listeners are still pinned and scheduled as they were, and puts them back. The CPUs of
    /// those that were not: what was executed there since the last look may have been called exact wrongly.
    pub fn put_back(&self) -> Vec<u32> {
        let Some(priority) = self.settings.priority else { return Vec::new() };
        // A listener whose CPU has just gone is ended soon.
        let online = cpus::online();
        let is_online = |cpu: u32| online.as_ref().is_none_or(|online| online.contains(&cpu));
        let moved = |(&cpu, running): (&u32, &Running)| {
            // One that does not come back was scheduled otherwise on purpose.
            let watched = running.exact && !running.watch.stands_still() && !running.thread.is_finished();
            let thread = running.counters.thread.load(Relaxed);
            (watched && thread != 0 && is_online(cpu) && place_again(thread, cpu, priority)).then_some(cpu)
        };
        self.per_cpu.iter().filter_map(moved).collect()
    }
}

/// Pins the calling thread and gives it its priority.
pub(super) fn place(cpu: Option<u32>, priority: Option<u8>) -> Result<(), String> {
    // The priority first: without it the thread might never run where another real-time thread spins.
    let result = priority.map_or(Ok(()), |priority| {
        sys::sched::set_fifo(0, priority)
            .map_err(|error| format!("SCHED_FIFO priority {priority} refused: {error}"))
    });
    let result = result.and_then(|()| {
        let Some(cpu) = cpu else { return Ok(()) };
        only(cpu)
            .and_then(|set| sched_setaffinity(Pid::from_raw(0), &set))
            .map_err(|error| format!("pinning to CPU {cpu} refused: {error}"))
    });
    if priority.is_none() || result.is_err() {
        // Not worth a failure: it only narrows a race that best effort has anyway.
        if let Err(error) = sys::sched::set_nice(BEST_EFFORT_NICE) {
            log::debug!("nice {BEST_EFFORT_NICE} refused: {error}");
        }
    }
    result
}

/// True if the thread was elsewhere or scheduled otherwise, and was put back. Where that fails it is tried at the next look.
fn place_again(thread: i32, cpu: u32, priority: u8) -> bool {
    let Ok(own) = only(cpu) else { return false };
    let id = Pid::from_raw(thread);
    let strayed = sched_getaffinity(id).is_ok_and(|allowed| allowed != own);
    let demoted = sys::sched::fifo(thread).is_ok_and(|has| has != Some(priority));
    let pinned = strayed && sched_setaffinity(id, &own).is_ok();
    let promoted = demoted && sys::sched::set_fifo(thread, priority).is_ok();
    pinned || promoted
}

fn only(cpu: u32) -> nix::Result<CpuSet> {
    let mut set = CpuSet::new();
    set.set(cpu as usize)?;
    Ok(set)
}
