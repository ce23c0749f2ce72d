//! Keeps the table up to date: the only part of this stage that does I/O.
//!
//! Records of execs are taken out of the rings before forks and exits are taken from their socket: a fork is sent before
//! the child can execute anything, so then no exec comes without the fork that led to it. What was taken is applied in
//! the order of time.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use crossbeam_channel::Receiver;

use super::facts::Facts;
use super::image::Shown;
use super::recent::Recent;
use super::table::{Limits, Running, Table};
use super::{Ancestor, Lineage, table};
use crate::clock;
use crate::connector::events::{Change, Drained, EventSocket, ProcessChange};
use crate::process::details::UNSET;
use crate::process::exec::{Exec, Image};
use crate::process::proc_dir::ProcRoot;
use crate::process::relatives::{Ancestors, HostProcesses, Learnt, Processes, Relative};
use crate::process::ring::{EXE, RingReader};

/// Events taken before any is applied; more wait in the socket.
const MOST_TAKEN: usize = 1 << 17;
/// Rounds of that in a row, so that alerts and the watchdog have their turn.
const MOST_ROUNDS: usize = 4;
/// Events for which room is kept.
const BATCH_KEPT: usize = 4096;
/// All of /proc is read at most once in this time, in nanoseconds, however often events are lost: it would starve the
/// worker while somebody forks without end. What it has to confirm is unknown until then.
const SCAN_EVERY_NS: u64 = 1_000_000_000;

/// What happened, to be applied in the order of time.
#[derive(Debug)]
enum Happened {
    Exec(Shown),
    Change(Change),
}

#[derive(Debug)]
struct Event {
    time_ns: u64,
    pid: u32,
    happened: Happened,
}

/// Follows the processes of this host.
#[derive(Debug)]
pub struct Follower {
    events: EventSocket,
    rings: Vec<RingReader>,
    new_rings: Receiver<RingReader>,
    table: Table,
    /// The last execs, if anybody wants them.
    recent: Option<Recent>,
    processes: HostProcesses,
    facts: Facts,
    batch: Vec<Event>,
    drained: Drained,
    /// Everything up to this moment has been applied.
    applied_ns: u64,
    /// Records of execs that rings refused, as far as the table has been told; and those of rings that are no more.
    refused: u64,
    refused_before: u64,
    /// The queue of forks and exits has overflowed, and was not found empty since.
    overrun: bool,
    /// Something was lost since the last look at /proc, which was at that moment.
    outdated: bool,
    scanned_ns: u64,
}

impl Follower {
    /// Follows what comes from the socket and from the rings that `new_rings` gives.
    pub fn new(
        events: EventSocket,
        new_rings: Receiver<RingReader>,
        proc: Arc<ProcRoot>,
        limits: Limits,
    ) -> Self {
        Follower {
            events,
            rings: Vec::new(),
            new_rings,
            table: Table::new(limits),
            recent: None,
            processes: HostProcesses::new(proc),
            facts: Facts::default(),
            batch: Vec::new(),
            drained: Drained::default(),
            applied_ns: 0,
            refused: 0,
            refused_before: 0,
            overrun: false,
            outdated: false,
            scanned_ns: 0,
        }
    }

    /// Applies what has come; not all of it where forks come faster than they are applied.
    pub fn drain(&mut self) -> io::Result<()> {
        for _ in 0..MOST_ROUNDS {
            if !self.drain_once()? {
                break;
            }
        }
        Ok(())
    }

    /// Applies a part of it; true if there may be more.
    fn drain_once(&mut self) -> io::Result<bool> {
        let begun_ns = clock::monotonic_ns();
        self.rings.extend(self.new_rings.try_iter());
        for ring in &mut self.rings {
            while let Some(exec) = ring.pop() {
                let shown = Shown::new(exec.exe, exec.arguments, exec.cut);
                let happened = Happened::Exec(shown);
                self.batch.push(Event { time_ns: exec.time_ns, pid: exec.pid, happened });
            }
        }
        // After an overrun the kernel discards until the queue is found empty, so only then is the loss over.
        let mut more = true;
        while more && self.batch.len() < MOST_TAKEN {
            let batch = &mut self.batch;
            let drained = self.events.drain(|ProcessChange { time_ns, pid, change }| {
                batch.push(Event { time_ns, pid, happened: Happened::Change(change) });
            })?;
            let total = &mut self.drained;
            total.forks += drained.forks;
            total.exits += drained.exits;
            total.overruns += drained.overruns;
            total.strange += drained.strange;
            self.overrun |= drained.overruns > 0;
            more = drained.more;
        }
        let before = &mut self.refused_before;
        self.rings.retain(|ring| {
            let is_over = ring.is_over();
            if is_over {
                *before += ring.refused();
            }
            !is_over
        });
        let refused = self.refused_before + self.rings.iter().map(RingReader::refused).sum::<u64>();
        let now_ns = clock::monotonic_ns();
        if refused > self.refused {
            self.refused = refused;
            self.table.execs_lost(self.applied_ns, now_ns);
            self.outdated = true;
        }
        if self.overrun {
            self.table.events_lost(self.applied_ns, now_ns);
            self.overrun = more;
            self.outdated = true;
        }
        let scan_due = self.outdated && now_ns.saturating_sub(self.scanned_ns) >= SCAN_EVERY_NS;
        let running = scan_due.then(|| self.scan());
        self.batch.sort_by_key(|event| event.time_ns);
        for Event { time_ns, pid, happened } in self.batch.drain(..) {
            match happened {
                Happened::Exec(shown) => {
                    let image = self.table.exec(pid, time_ns, shown);
                    if let Some(recent) = &mut self.recent {
                        recent.add(pid, time_ns, image);
                    }
                }
                Happened::Change(Change::MadeBy(parent)) => self.table.fork(parent, pid, time_ns),
                Happened::Change(Change::Ended(status)) => self.table.exit(pid, time_ns, status),
                Happened::Change(Change::User(uids)) => self.table.set_user(pid, time_ns, uids),
            }
        }
        if let Some(running) = running {
            // The ends of those that the batch told of may be among what was lost.
            self.table.absent(&running, self.scanned_ns);
        }
        self.batch.shrink_to(BATCH_KEPT);
        if !more {
            self.applied_ns = begun_ns;
        }
        Ok(more)
    }

    /// Execs from this moment on were missed until now; what processes show is read from /proc with the next drain.
    pub fn execs_missed(&mut self, since_ns: u64) {
        self.table.execs_lost(since_ns, clock::monotonic_ns());
        self.outdated = true;
    }

    /// Forks and exits from this moment on were missed until now, as well.
    pub fn events_missed(&mut self, since_ns: u64) {
        self.table.events_lost(since_ns, clock::monotonic_ns());
        self.outdated = true;
    }

    /// What was drained since the start.
    pub fn drained(&self) -> Drained {
        self.drained
    }

    /// Takes all processes from /proc, at the start and after losses; returns their pids.
    pub fn scan(&mut self) -> HashSet<u32> {
        let now_ns = clock::monotonic_ns();
        self.scanned_ns = now_ns;
        self.outdated = false;
        let mut pids = HashSet::new();
        match procfs::process::all_processes() {
            Ok(all) => {
                let listed =
                    all.filter_map(|process| process.ok().map(|process| process.pid().unsigned_abs()));
                pids.extend(listed);
                let found = pids.iter().filter_map(|&pid| self.processes.find(pid, None)).filter_map(running);
                let found = found.collect();
                self.table.snapshot(found, true, now_ns);
            }
            Err(error) => log::warn!("the processes that run cannot be listed: {error}"),
        }
        pids
    }

    /// Where an executed program comes from, as far as it is known.
    fn lineage(&mut self, exec: &Exec) -> Lineage {
        if self.applied_ns <= exec.timestamp_ns
            && let Err(error) = self.drain()
        {
            log::debug!("forks and exits cannot be read now: {error}");
        }
        let details = &exec.details;
        if !self.table.knows(exec.pid, exec.timestamp_ns)
            && let (Some(ppid), Some(ticks)) = (details.ppid, details.start_ticks)
        {
            // Its fork was lost: what was read while it was held is better than nothing.
            let running = Running {
                pid: exec.pid,
                ppid,
                start_ns: clock::monotonic_from_start_ticks(ticks),
                uids: details.uids.map(|uids| [uids[0], uids[1]]),
                shown: Shown::default(),
            };
            self.table.snapshot(vec![running], false, exec.timestamp_ns);
        }
        self.table.lineage(exec.pid, exec.timestamp_ns).unwrap_or_default()
    }

    /// The same, with what /proc says of ancestors that live.
    pub fn ancestors(&mut self, exec: &Exec) -> Ancestors {
        let lineage = self.lineage(exec);
        let mut processes: Vec<Relative> = Vec::with_capacity(lineage.ancestors.len());
        for ancestor in &lineage.ancestors {
            let relative = self.relative(ancestor);
            if let Some(child) = processes.last_mut() {
                child.ppid = Some(relative.pid);
            }
            processes.push(relative);
        }
        if lineage.complete
            && let Some(first) = processes.last_mut()
        {
            first.ppid = Some(0);
        }
        let earlier = lineage.earlier.iter().map(|shown| shown.image()).collect();
        Ancestors { processes, complete: lineage.complete, earlier }
    }

    fn relative(&mut self, ancestor: &Ancestor) -> Relative {
        let now = if ancestor.ended {
            self.facts.last(ancestor)
        } else {
            self.facts.get(&self.processes, ancestor)
        };
        let mut relative = now.unwrap_or_default();
        relative.pid = ancestor.pid;
        relative.ended = ancestor.ended;
        relative.ppid = None;
        if let Some(image) = &ancestor.image {
            relative.earlier = ancestor.earlier.iter().map(|shown| shown.image()).collect();
            // A list that was cut can be read whole while the process shows the same, and so can a path that is too long to be
            // kept.
            let same = relative.image.link() == image.exe.as_deref();
            let too_long = image.exe.is_none() && relative.image.link().is_some_and(|link| link.len() > EXE);
            if !(image.cut && same || too_long) {
                relative.image = image.image();
            }
            relative.learnt = ancestor.learnt;
        } else if ancestor.ended {
            relative.image = Image::default();
            relative.learnt = Learnt::Unknown;
        }
        if let Some([real, effective]) = ancestor.uids {
            relative.uids = Some([real, effective, UNSET, UNSET]);
        }
        relative.start_ticks =
            relative.start_ticks.or(ancestor.start_ns.map(clock::start_ticks_from_monotonic));
        relative
    }

    /// The processes.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// From now on the last execs are remembered.
    pub fn remember_execs(&mut self) {
        self.recent = Some(Recent::default());
    }

    /// The last execs, if they are remembered.
    pub fn recent(&self) -> Option<&Recent> {
        self.recent.as_ref()
    }

    /// Events that the kernel discarded since the start, if it tells.
    pub fn dropped(&self) -> Option<u64> {
        self.events.dropped()
    }

    /// Records of execs that were lost on the way from the listeners.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// What the table counts.
    pub fn counts(&self) -> table::Counts {
        self.table.counts()
    }
}

fn running(process: Relative) -> Option<Running> {
    let image = &process.image;
    Some(Running {
        pid: process.pid,
        ppid: process.ppid?,
        start_ns: clock::monotonic_from_start_ticks(process.start_ticks?),
        uids: process.uids.map(|uids| [uids[0], uids[1]]),
        shown: match (image.link(), image.cmdline()) {
            // It has ended and waits to be reaped, or is a thread of the kernel.
            (None, Some([])) => Shown::default(),
            (exe, cmdline) => Shown::new(exe, cmdline, image.cut()),
        },
    })
}
