//! `kill-tree`: a process and its descendants by lineage, also those that were adopted meanwhile.
//!
//! All are stopped first, round after round until no new one is found, so that none makes another while it is looked for;
//! then all are killed.

use std::collections::{BTreeMap, HashMap};

use nix::sys::signal::Signal;

use super::running::Asking;
use super::signal::{self, Miss, Target};
use super::{Guard, Guards};
use crate::clock;
use crate::lineage::Lineage;
use crate::process::parse;
use crate::process::proc_dir::ProcRoot;

/// Processes beyond this many are not looked for.
const MOST: usize = 4096;
/// Rounds after which nobody new is looked for: who forks faster than it can be stopped has been stopped mostly.
const ROUNDS: usize = 16;
/// Longest /proc/PID/stat.
const BUFFER: usize = 2048;
/// Processes that are named when it is said who was left.
const MOST_NAMED: usize = 8;

/// What became of them.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Felled {
    /// Processes that were killed.
    pub(super) killed: u32,
    /// Processes that a guard rail keeps, and which one.
    pub(super) spared: BTreeMap<u32, Guard>,
}

impl Felled {
    /// Which guard rails kept somebody.
    pub(super) fn spared_by(&self) -> Guards {
        self.spared.values().copied().collect()
    }

    /// Who was left, for people; `None` if nobody was.
    pub(super) fn spared_for_people(&self) -> Option<String> {
        let named = self.spared.iter().take(MOST_NAMED);
        let named: Vec<String> = named.map(|(pid, guard)| format!("pid {pid}: {}", guard.reason())).collect();
        let rest = self.spared.len().saturating_sub(MOST_NAMED);
        let rest = if rest > 0 { format!("; and {rest} more") } else { String::new() };
        (!named.is_empty()).then(|| format!("{}{rest}", named.join("; ")))
    }
}

/// A process as /proc shows it.
#[derive(Debug, Clone, Copy)]
struct Shown {
    ppid: u32,
    start_ticks: u64,
}

/// Kills the process `pid`, which was started at `start_ticks`, and its descendants, but for those that a guard rail keeps:
/// each is asked about by itself, as it is now. `lineage` tells where a process comes from, as events told until now.
pub(super) fn fell(
    asking: &mut Asking<'_>,
    (pid, start_ticks): (u32, u64),
    mut lineage: impl FnMut(u32) -> Option<Lineage>,
) -> Result<Felled, Miss> {
    let proc = asking.proc;
    Target::find(proc, pid, start_ticks)?.send(proc, Signal::SIGSTOP)?;
    let mut found: HashMap<u32, u64> = HashMap::from([(pid, start_ticks)]);
    let mut spared = BTreeMap::new();
    for _ in 0..ROUNDS {
        let shown = all(proc);
        asking.afresh();
        // Who was spared in the round before may have executed something else.
        spared.clear();
        let mut any_new = false;
        for (&child, process) in &shown {
            if found.contains_key(&child) || found.len() >= MOST {
                continue;
            }
            // Who is older is no descendant, whatever the table still has under this number.
            if process.start_ticks.saturating_add(SLACK) < start_ticks {
                continue;
            }
            let told = lineage(child);
            if !descends(child, &shown, &found)
                && !told.as_ref().is_some_and(|told| descended(process.start_ticks, told, &found))
            {
                continue;
            }
            match kept(asking, (child, process.start_ticks), told.as_ref()) {
                Ok(None) => {}
                Ok(Some(guard)) => {
                    spared.insert(child, guard);
                    continue;
                }
                Err(Gone) => continue,
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
    asking.afresh();
    let mut felled = Felled { killed: 0, spared };
    for (pid, start_ticks) in found {
        // It may have executed something after it was asked about and before it stopped.
        let told = lineage(pid);
        let (signal, guard) = match kept(asking, (pid, start_ticks), told.as_ref()) {
            Ok(None) => (Signal::SIGKILL, None),
            Ok(Some(guard)) => (Signal::SIGCONT, Some(guard)),
            Err(Gone) => continue,
        };
        let sent = Target::find(proc, pid, start_ticks).and_then(|target| target.send(proc, signal));
        match guard {
            Some(guard) => drop(felled.spared.insert(pid, guard)),
            None => felled.killed += u32::from(sent.is_ok()),
        }
    }
    Ok(felled)
}

/// It has ended.
struct Gone;

/// Why a member is left alone. One that cannot be read may be anybody.
fn kept(
    asking: &mut Asking<'_>,
    (pid, start_ticks): (u32, u64),
    told: Option<&Lineage>,
) -> Result<Option<Guard>, Gone> {
    match asking.about(pid, Some(start_ticks), told) {
        Ok(now) => Ok(now.kept),
        Err(Miss::Gone) => Err(Gone),
        Err(Miss::Failed(_)) => Ok(Some(Guard::Unreadable)),
    }
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
        // One of them may have ended meanwhile, and another may have got its number.
        let start = shown.get(&process.ppid).map(|parent| parent.start_ticks);
        if start.is_some() && found.get(&process.ppid) == start.as_ref() {
            return true;
        }
        at = process.ppid;
    }
    false
}

/// Ticks by which start times of the table, which are those of events, may differ from what /proc says.
const SLACK: u64 = 2;

/// One of those found made it, or made who made it, as events told. `start_ticks` is its own start.
///
/// The table may have given up when a maker was started. Its number alone says nothing, which another may have got since;
/// but then the other was started after what the maker made.
fn descended(start_ticks: u64, lineage: &Lineage, found: &HashMap<u32, u64>) -> bool {
    let mut below = Some(start_ticks);
    lineage.ancestors.iter().any(|ancestor| {
        let start = ancestor.start_ns.map(clock::start_ticks_from_monotonic);
        let made = std::mem::replace(&mut below, start);
        found.get(&ancestor.pid).is_some_and(|&found| match start {
            Some(start) => start.abs_diff(found) <= SLACK,
            None => made.is_some_and(|made| made >= found),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lineage::Ancestor;
    use crate::process::relatives::Learnt;

    /// The ancestors of a process, the nearest first, by pid and start in ticks.
    fn lineage(ancestors: &[(u32, Option<u64>)]) -> Lineage {
        let ancestors = ancestors.iter().map(|&(pid, start)| Ancestor {
            pid,
            start_ns: start.map(clock::monotonic_from_start_ticks),
            uids: None,
            image: None,
            learnt: Learnt::Unknown,
            earlier: Vec::new(),
            ended: true,
        });
        Lineage { ancestors: ancestors.collect(), ..Lineage::default() }
    }

    #[test]
    fn a_maker_of_unknown_start_is_not_who_got_its_number_later() {
        // The launcher 5000 made a daemon at 1000 and ended; the table gave it up. Another 5000 was started at 2000.
        let reused = HashMap::from([(5000, 2000)]);
        let daemon = lineage(&[(5000, None)]);
        assert!(!descended(1000, &daemon, &reused));
        // What the daemon made later is its own, and no more of the other.
        let of_daemon = lineage(&[(6000, Some(1000)), (5000, None)]);
        assert!(!descended(3000, &of_daemon, &reused));
        // Between them somebody else was given up too: when it was made is unknown, and so nothing is known.
        assert!(!descended(3000, &lineage(&[(6000, None), (5000, None)]), &reused));

        // Whoever was made under this number after the found one was started was made by it.
        assert!(descended(2000, &daemon, &reused));
        assert!(descended(3000, &lineage(&[(6000, Some(2500)), (5000, None)]), &reused));
        // A known start decides by itself, up to what events and /proc differ by.
        assert!(descended(3000, &lineage(&[(5000, Some(2001))]), &reused));
        assert!(!descended(3000, &lineage(&[(5000, Some(1000))]), &reused));
    }

    #[test]
    fn who_was_spared_is_named_up_to_a_number() {
        let of =
            |count| Felled { killed: 1, spared: (1..=count).map(|pid| (pid, Guard::Protected)).collect() };
        assert_eq!(of(0).spared_for_people(), None);
        assert_eq!(of(1).spared_for_people().unwrap(), "pid 1: its executable is protected");
        let many = of(20).spared_for_people().unwrap();
        assert!(
            many.contains("pid 8: ") && !many.contains("pid 9: ") && many.ends_with("and 12 more"),
            "{many}"
        );
    }

    #[test]
    fn a_parent_in_proc_counts_only_if_it_is_the_one_that_was_found() {
        let shown = HashMap::from([
            (10, Shown { ppid: 1, start_ticks: 100 }),
            (11, Shown { ppid: 10, start_ticks: 200 }),
            (12, Shown { ppid: 11, start_ticks: 300 }),
        ]);
        assert!(descends(12, &shown, &HashMap::from([(10, 100)])));
        assert!(!descends(12, &shown, &HashMap::from([(10, 99)])));
        assert!(!descends(10, &shown, &HashMap::from([(10, 100)])));
    }
}
