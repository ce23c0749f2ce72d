//! `kill-tree`: a process and its descendants by lineage, also those that were adopted meanwhile.
//!
//! All are stopped first, round after round until no new one is found, so that none makes another while it is looked for;
//! then all are killed.

use std::collections::{HashMap, HashSet};

use nix::sys::signal::Signal;

use super::guard::{Candidate, Rails};
use super::signal::{self, Miss, Target};
use crate::clock;
use crate::lineage::Lineage;
use crate::process::parse;
use crate::process::proc_dir::ProcRoot;

/// Processes beyond this many are not looked for.
const MOST: usize = 4096;
/// Rounds after which nobody new is looked for: who forks faster than it can be stopped has been stopped mostly.
const ROUNDS: usize = 16;
/// Longest /proc/PID/stat, and longest path of an executable.
const BUFFER: usize = 4096 + 16;

/// What became of them.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Felled {
    /// Processes that were killed.
    pub(super) killed: u32,
    /// Processes that a guard rail keeps.
    pub(super) spared: u32,
}

/// A process as /proc shows it.
#[derive(Debug, Clone, Copy)]
struct Shown {
    ppid: u32,
    start_ticks: u64,
}

/// Kills the process `pid`, which was started at `start_ticks`, and its descendants. `lineage` tells where a process comes
/// from, as events told until now.
pub(super) fn fell(
    proc: &ProcRoot,
    rails: &Rails,
    (pid, start_ticks, on_host): (u32, u64, bool),
    mut lineage: impl FnMut(u32) -> Option<Lineage>,
) -> Result<Felled, Miss> {
    Target::find(proc, pid, start_ticks)?.send(proc, Signal::SIGSTOP)?;
    let mut found: HashMap<u32, u64> = HashMap::from([(pid, start_ticks)]);
    let mut spared: HashSet<u32> = HashSet::new();
    for _ in 0..ROUNDS {
        let shown = all(proc);
        let mut any_new = false;
        for (&child, process) in &shown {
            if found.contains_key(&child) || spared.contains(&child) || found.len() >= MOST {
                continue;
            }
            if !descends(child, &shown, &found)
                && !lineage(child).is_some_and(|lineage| descended(&lineage, &found))
            {
                continue;
            }
            let mut buffer = [0; BUFFER];
            let exe =
                proc.process(child).ok().and_then(|dir| dir.link(c"exe", &mut buffer).map(<[u8]>::to_vec));
            let candidate = Candidate {
                pid: child,
                ppid: Some(process.ppid),
                start_ticks: Some(process.start_ticks),
                exe: exe.as_deref(),
                on_host,
                ancestors: &[],
            };
            if rails.keeps(&candidate).is_some() {
                spared.insert(child);
                continue;
            }
            any_new = true;
            if let Ok(target) = Target::find(proc, child, process.start_ticks) {
                // One that ends at this moment has nobody to make any more.
                let _ = target.send(proc, Signal::SIGSTOP);
            }
            found.insert(child, process.start_ticks);
        }
        if !any_new {
            break;
        }
    }
    let mut felled = Felled { killed: 0, spared: spared.len() as u32 };
    for (pid, start_ticks) in found {
        let sent = Target::find(proc, pid, start_ticks).and_then(|target| target.send(proc, Signal::SIGKILL));
        felled.killed += u32::from(sent.is_ok());
    }
    Ok(felled)
}

/// All processes that live.
fn all(proc: &ProcRoot) -> HashMap<u32, Shown> {
    let Ok(list) = procfs::process::all_processes() else { return HashMap::new() };
    let pids = list.filter_map(|process| process.ok().map(|process| process.pid().unsigned_abs()));
    let shown = pids.filter_map(|pid| {
        let mut buffer = [0; BUFFER];
        let dir = proc.process(pid).ok()?;
        let stat = parse::stat(dir.file(c"stat", &mut buffer)?)?;
        let lives = !signal::ended(stat.state);
        lives.then_some((pid, Shown { ppid: stat.ppid, start_ticks: stat.start_ticks }))
    });
    shown.collect()
}

/// One of those found is above it in /proc.
fn descends(pid: u32, shown: &HashMap<u32, Shown>, found: &HashMap<u32, u64>) -> bool {
    let mut at = pid;
    // A circle could only come from processes that changed while they were read.
    for _ in 0..shown.len() {
        let Some(process) = shown.get(&at).filter(|process| process.ppid != 0) else { return false };
        if found.contains_key(&process.ppid) {
            return true;
        }
        at = process.ppid;
    }
    false
}

/// One of those found made it, or made who made it, as events told.
fn descended(lineage: &Lineage, found: &HashMap<u32, u64>) -> bool {
    lineage.ancestors.iter().any(|ancestor| {
        // Start times of the table are those of events, which differ by a tick from what /proc says.
        let same = |start: u64| {
            ancestor.start_ns.is_none_or(|ns| clock::start_ticks_from_monotonic(ns).abs_diff(start) <= 2)
        };
        found.get(&ancestor.pid).is_some_and(|&start| same(start))
    })
}
