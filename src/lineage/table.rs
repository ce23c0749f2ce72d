//! The process table: every process by pid and start time, with who made it.
//!
//! A pid alone names nobody for long, so entries are found by pid *and* moment: the one that had started last by then.
//! Events of different CPUs may come in any order; each carries its time, and what comes late still finds its process,
//! because processes that ended are kept for a while, and as long as a descendant is there.
//!
//! Of its maker each process keeps what that was at the moment of the fork: pid, image and user. So the chain through an
//! ancestor that executed something else later stays true, and one that had to be given up is still named by whom it
//! made.

mod entry;
pub mod fate;
mod room;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

use super::image::{Image, Images, Shown};
use super::{Ancestor, Lineage};
use crate::process::relatives::{Learnt, MOST_ANCESTORS};
use entry::{ALIVE, Entry, Exec, Id, Maker, Place, Queue, Start};

/// Images remembered of one process: the first go, because the last say what it became.
const MOST_EXECS: usize = 8;
/// Gaps in what was seen of execs that are remembered apart; older ones are joined.
const MOST_GAPS: usize = 8;
/// A start time in /proc has a resolution of a tick, mostly 10 ms; two within this distance are the same.
const SAME_START_NS: u64 = 20_000_000;

/// Bounds of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Processes.
    pub processes: usize,
    /// Bytes, roughly.
    pub bytes: usize,
    /// How long an ended process without descendants is kept, in nanoseconds.
    pub keep_ended_ns: u64,
}

/// A process as /proc shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Running {
    /// Process id.
    pub pid: u32,
    /// The parent's process id; 0 for none.
    pub ppid: u32,
    /// Start on CLOCK_MONOTONIC in nanoseconds, as exact as /proc has it.
    pub start_ns: u64,
    /// Real and effective user id.
    pub uids: Option<[u32; 2]>,
    /// What it shows.
    pub shown: Shown,
}

/// What is counted: of the present, and of what was given up since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Processes in the table.
    pub processes: usize,
    /// Bytes in use, roughly.
    pub bytes: usize,
    /// Ended processes that were given up before their time, for want of room.
    pub evicted_ended: u64,
    /// Ended processes with descendants in the table that were given up.
    pub evicted_ancestors: u64,
    /// Living processes that were given up.
    pub evicted_living: u64,
}

/// The table.
#[derive(Debug)]
pub struct Table {
    limits: Limits,
    places: Vec<Place>,
    free: Vec<u32>,
    by_pid: BTreeMap<(u32, u64), u32>,
    images: Images,
    /// Bytes of the entries.
    weight: usize,
    /// Ended processes, the first to end first.
    ended: VecDeque<Id>,
    /// Those whose time is over but not their descendants'. Some ids find nobody any more.
    ancestors: VecDeque<Id>,
    /// Times in which execs were lost.
    gaps: VecDeque<(u64, u64)>,
    /// Between which moments forks and exits were lost last: whoever ended then, and when, is not known.
    blind: (u64, u64),
    /// No snapshot has told since then who is still there.
    unsure: bool,
    /// Where the next living process to be given up is looked for.
    hand: usize,
    /// When /proc was read last.
    scanned_ns: u64,
    counts: Counts,
}

impl Table {
    /// An empty table.
    pub fn new(limits: Limits) -> Self {
        Table {
            limits,
            places: Vec::new(),
            free: Vec::new(),
            by_pid: BTreeMap::new(),
            images: Images::default(),
            weight: 0,
            ended: VecDeque::new(),
            ancestors: VecDeque::new(),
            gaps: VecDeque::new(),
            blind: (0, 0),
            unsure: false,
            hand: 0,
            scanned_ns: 0,
            counts: Counts::default(),
        }
    }

    /// What is counted.
    pub fn counts(&self) -> Counts {
        Counts { processes: self.by_pid.len(), bytes: self.bytes(), ..self.counts }
    }

    /// A process made another.
    pub fn fork(&mut self, parent: u32, child: u32, time_ns: u64) {
        let mut maker = self.maker(parent, time_ns);
        // Nobody makes another in the nanosecond he was made himself. Such events are wrong, and would join processes in
        // a ring that keeps itself in the table.
        maker.id = maker.id.filter(|&id| self.entry(id).is_some_and(|entry| entry.start_ns < time_ns));
        match self.same(child, time_ns, Start::Exact) {
            // Its exec came first, or it is in the snapshot.
            Some(index) => self.born(index, maker, time_ns),
            None => {
                self.end_unseen(child, time_ns);
                let uids = maker.uids;
                self.insert(Entry { maker, uids, ..Entry::new(child, time_ns, Start::Exact) });
            }
        }
    }

    /// A process executed a program; the shared copy of what it shows.
    pub fn exec(&mut self, pid: u32, time_ns: u64, shown: Shown) -> Arc<Image> {
        let index = match self.find(pid, time_ns) {
            Some(id) => id.index,
            None => self.insert(Entry::new(pid, time_ns, Start::Guessed)),
        };
        let image = self.images.share(shown);
        let shared = Arc::clone(&image);
        let Some(entry) = self.places[index as usize].entry.as_mut() else {
            self.images.release(&image);
            return shared;
        };
        if entry.end_ns < time_ns {
            // Another thread than the first may execute after the first has ended.
            entry.end_ns = ALIVE;
            entry.status = None;
        }
        let before = entry.weight();
        let (start_ns, scanned_ns) = (entry.start_ns, self.scanned_ns);
        // What /proc showed was this exec or a later one that is about to be told, and not what it was from the start on.
        let told = |exec: &Exec| exec.learnt == Learnt::Snapshot && exec.since_ns == start_ns;
        let older = entry.execs.first().is_some_and(told) && time_ns < scanned_ns;
        let replaced = older.then(|| entry.execs.remove(0));
        let at = entry.execs.partition_point(|exec| exec.since_ns <= time_ns);
        entry.execs.insert(at, Exec { since_ns: time_ns, image, learnt: Learnt::Seen });
        let dropped = replaced.or((entry.execs.len() > MOST_EXECS).then(|| entry.execs.remove(0)));
        self.weight = self.weight + entry.weight() - before;
        if let Some(dropped) = dropped {
            self.images.release(&dropped.image);
        }
        self.make_room(0, time_ns);
        shared
    }

    /// A process has other user ids from this moment on: real and effective.
    pub fn set_user(&mut self, pid: u32, time_ns: u64, uids: [u32; 2]) {
        if let Some(entry) = self.find(pid, time_ns).and_then(|id| self.entry_mut(id)) {
            entry.uids = Some(uids);
        }
    }

    /// A process ended, with this wait status.
    pub fn exit(&mut self, pid: u32, time_ns: u64, status: u32) {
        if let Some(id) = self.find(pid, time_ns) {
            self.end(id, time_ns);
            if let Some(entry) = self.entry_mut(id) {
                entry.status = Some(status);
            }
        }
        self.expire(time_ns);
    }

    /// Takes processes that /proc showed at this moment. `whole` says that these are all, so that whoever is not among
    /// them has ended.
    pub fn snapshot(&mut self, running: Vec<Running>, whole: bool, now_ns: u64) {
        self.scanned_ns = self.scanned_ns.max(now_ns);
        let mut motherless = Vec::new();
        let mut seen = HashSet::new();
        for process in running {
            seen.insert(process.pid);
            let index = self.same(process.pid, process.start_ns, Start::Ticks).unwrap_or_else(|| {
                self.end_unseen(process.pid, process.start_ns);
                self.insert(Entry::new(process.pid, process.start_ns, Start::Ticks))
            });
            let id = self.id(index);
            let Some(entry) = self.places[index as usize].entry.as_mut() else { continue };
            // What events told is more exact; only what they did not is taken.
            entry.uids = entry.uids.or(process.uids);
            if entry.maker.pid.is_none() {
                motherless.push((id, process.ppid));
            }
            let (image, _, since_ns) = entry.image_at(now_ns);
            if image.is_none() {
                let start_ns = entry.start_ns;
                self.show(index, process.shown, start_ns);
            } else if lost(&self.gaps, since_ns, now_ns) {
                self.show(index, process.shown, now_ns);
            }
        }
        if whole {
            self.unsure = false;
            self.absent(&seen, now_ns);
        }
        // Parents can be found only now that all are there.
        for (id, ppid) in motherless {
            // One that was given up for another since has left its place to that.
            if self.entry(id).is_none() {
                continue;
            }
            let maker = match ppid {
                0 => Maker { pid: Some(0), ..Maker::default() },
                ppid => self.maker(ppid, now_ns),
            };
            let learnt = if maker.image.is_some() { Learnt::Snapshot } else { Learnt::Unknown };
            self.adopt(id.index, Maker { learnt, ..maker });
        }
        self.expire(now_ns);
    }

    /// Ends whoever is not among the processes that were running at a moment.
    ///
    /// When it ended is not known, but that its pid may have been another's from the loss on: so it counts as ended since.
    pub fn absent(&mut self, running: &HashSet<u32>, now_ns: u64) {
        let gone = self.by_pid.iter().filter(|((pid, start), _)| *start < now_ns && !running.contains(pid));
        let gone: Vec<Id> = gone.map(|(_, &index)| self.id(index)).collect();
        let (from, until) = self.blind;
        for id in gone {
            if self.entry(id).is_some_and(|entry| entry.end_ns == ALIVE) {
                self.end(id, if until > 0 { from.min(now_ns) } else { now_ns });
            }
        }
    }

    /// Execs between these moments were lost: what a process shows that lived through them may be out of date, until a
    /// [`snapshot`](Self::snapshot) or another exec tells.
    pub fn execs_lost(&mut self, from_ns: u64, to_ns: u64) {
        self.gaps.push_back((from_ns, to_ns));
        if self.gaps.len() > MOST_GAPS
            && let Some((first, _)) = self.gaps.pop_front()
            && let Some(next) = self.gaps.front_mut()
        {
            next.0 = next.0.min(first);
        }
    }

    /// Forks and exits between these moments were lost. Until a whole [`snapshot`](Self::snapshot) follows, processes that
    /// were there before are unknown.
    pub fn events_lost(&mut self, from_ns: u64, until_ns: u64) {
        // Before a snapshot nobody has been ended for the loss before.
        let from_ns = if self.unsure { self.blind.0.min(from_ns) } else { from_ns };
        self.blind = (from_ns, self.blind.1.max(until_ns));
        self.unsure = true;
    }

    /// Where the process comes from that has this pid at this moment; `None` if the table does not have it.
    pub fn lineage(&self, pid: u32, time_ns: u64) -> Option<Lineage> {
        let mut entry = self.find(pid, time_ns).and_then(|id| self.entry(id))?;
        let before = entry.execs.iter().rev().filter(|exec| exec.since_ns < time_ns);
        let mut lineage =
            Lineage { earlier: before.map(|exec| Arc::clone(&exec.image)).collect(), ..Lineage::default() };
        while let Some(pid) = entry.maker.pid {
            if pid == 0 {
                lineage.complete = true;
                break;
            }
            if lineage.ancestors.len() == MOST_ANCESTORS {
                break;
            }
            let maker = &entry.maker;
            let parent = maker.id.and_then(|id| self.entry(id));
            let (image, learnt, since_ns) = self.maker_showed(entry);
            let before = parent
                .iter()
                .flat_map(|parent| parent.execs.iter().rev())
                .filter(|exec| exec.since_ns < since_ns);
            lineage.ancestors.push(Ancestor {
                pid,
                start_ns: parent
                    .filter(|parent| parent.start != Start::Guessed)
                    .map(|parent| parent.start_ns),
                uids: maker.uids,
                image: image.cloned(),
                learnt,
                earlier: before.map(|exec| Arc::clone(&exec.image)).collect(),
                ended: parent.is_none_or(|parent| parent.end_ns != ALIVE),
            });
            match parent {
                Some(parent) => entry = parent,
                None => break,
            }
        }
        Some(lineage)
    }

    /// True if the table has the process that this pid names at this moment, and knows who made it.
    pub fn knows(&self, pid: u32, time_ns: u64) -> bool {
        self.find(pid, time_ns).and_then(|id| self.entry(id)).is_some_and(|entry| entry.maker.pid.is_some())
    }

    /// What a process's maker showed when it made it, how that was learnt, and since when it did if it had executed that
    /// itself (else 0).
    ///
    /// What was noted at the fork stands, unless an exec of before it was told later: a listener that holds nobody is
    /// overtaken by the forks of the program that it reads.
    fn maker_showed<'t>(&'t self, entry: &'t Entry) -> (Option<&'t Arc<Image>>, Learnt, u64) {
        let maker = &entry.maker;
        let (mut child, mut inherited) = (entry, false);
        for _ in 0..MOST_ANCESTORS {
            let Some(parent) = child.maker.id.and_then(|id| self.entry(id)) else { break };
            if child.start != Start::Exact {
                break;
            }
            let exec = parent.execs.iter().rev().find(|exec| exec.since_ns <= child.start_ns);
            if let Some(exec) = exec {
                let doubtful = maker.image.is_none() || lost(&self.gaps, exec.since_ns, entry.start_ns);
                if exec.learnt != Learnt::Seen || doubtful {
                    break;
                }
                return match inherited {
                    true => (Some(&exec.image), Learnt::Inherited, 0),
                    false => (Some(&exec.image), Learnt::Seen, exec.since_ns),
                };
            }
            (child, inherited) = (parent, true);
        }
        (maker.image.as_ref(), maker.learnt, 0)
    }

    fn entry(&self, id: Id) -> Option<&Entry> {
        let place = self.places.get(id.index as usize)?;
        place.entry.as_ref().filter(|_| place.generation == id.generation)
    }

    fn entry_mut(&mut self, id: Id) -> Option<&mut Entry> {
        let place = self.places.get_mut(id.index as usize)?;
        place.entry.as_mut().filter(|_| place.generation == id.generation)
    }

    fn id(&self, index: u32) -> Id {
        Id { index, generation: self.places[index as usize].generation }
    }

    /// The process that had the pid at a moment: the one that had started last by then. One that had ended may be meant
    /// too, unless forks were lost since, one of which may have given its pid to another; and one that is only believed to
    /// live is nobody until a snapshot shows it.
    fn find(&self, pid: u32, time_ns: u64) -> Option<Id> {
        let (_, &index) = self.by_pid.range((pid, 0)..=(pid, time_ns)).next_back()?;
        let entry = self.places[index as usize].entry.as_ref()?;
        let (from, until) = self.blind;
        let doubtful = entry.end_ns < time_ns && entry.end_ns < until
            || self.unsure && from < time_ns && entry.start_ns < until;
        (!doubtful).then(|| self.id(index))
    }

    /// The entry of the process that has this pid and start, if it is there under a start that is less exact, or is given
    /// one.
    fn same(&self, pid: u32, start_ns: u64, start: Start) -> Option<u32> {
        let from = start_ns.saturating_sub(SAME_START_NS);
        self.by_pid.range((pid, from)..=(pid, ALIVE)).find_map(|(_, &index)| {
            let entry = self.places[index as usize].entry.as_ref()?;
            let same = match (entry.start, start) {
                (Start::Exact, Start::Exact) => entry.start_ns == start_ns,
                // Executed before anybody told that it had been made.
                (Start::Guessed, _) => entry.start_ns >= start_ns,
                _ => entry.start_ns.abs_diff(start_ns) <= SAME_START_NS && entry.end_ns >= start_ns,
            };
            same.then_some(index)
        })
    }

    /// A process is made, so the one that had its pid has ended, whether that was seen or not.
    fn end_unseen(&mut self, pid: u32, time_ns: u64) {
        if let Some(id) = self.find(pid, time_ns) {
            self.end(id, time_ns);
        }
    }

    /// A process as the maker of another at a moment.
    fn maker(&self, pid: u32, time_ns: u64) -> Maker {
        let unknown = Maker { pid: Some(pid), ..Maker::default() };
        let Some(id) = self.find(pid, time_ns) else { return unknown };
        let Some(entry) = self.entry(id) else { return unknown };
        let (image, learnt, since) = entry.image_at(time_ns);
        let doubtful = lost(&self.gaps, since, time_ns);
        Maker {
            id: Some(id),
            uids: entry.uids,
            image: image.filter(|_| !doubtful).cloned(),
            learnt: if doubtful { Learnt::Unknown } else { learnt },
            ..unknown
        }
    }

    /// The fork of a process that is already there.
    fn born(&mut self, index: u32, maker: Maker, time_ns: u64) {
        let Some(entry) = self.places[index as usize].entry.as_mut() else { return };
        if entry.start == Start::Guessed {
            self.by_pid.remove(&entry.key());
            entry.start_ns = time_ns;
            entry.start = Start::Exact;
            let key = entry.key();
            self.by_pid.insert(key, index);
        }
        self.adopt(index, maker);
    }

    /// Gives a process its maker. The first word counts: a fork tells better than /proc, which only knows who is the
    /// parent now.
    fn adopt(&mut self, index: u32, maker: Maker) {
        let Some(entry) = self.places[index as usize].entry.as_mut() else { return };
        if entry.maker.pid.is_some() {
            return;
        }
        entry.uids = entry.uids.or(maker.uids);
        entry.maker = maker.clone();
        self.count_child(&maker);
    }

    fn count_child(&mut self, maker: &Maker) {
        if let Some(image) = &maker.image {
            self.images.hold(image);
        }
        if let Some(parent) = maker.id.and_then(|id| self.entry_mut(id)) {
            parent.children += 1;
        }
    }

    /// What /proc shows of a process of which no exec was seen since this moment.
    fn show(&mut self, index: u32, shown: Shown, since_ns: u64) {
        if shown.exe.is_none() && shown.arguments.is_none() {
            return;
        }
        let image = self.images.share(shown);
        let Some(entry) = self.places[index as usize].entry.as_mut() else {
            return self.images.release(&image);
        };
        let before = entry.weight();
        let at = entry.execs.partition_point(|exec| exec.since_ns <= since_ns);
        entry.execs.insert(at, Exec { since_ns, image, learnt: Learnt::Snapshot });
        self.weight = self.weight + entry.weight() - before;
    }

    fn insert(&mut self, entry: Entry) -> u32 {
        self.make_room(1, entry.start_ns);
        self.count_child(&entry.maker);
        self.weight += entry.weight();
        let key = entry.key();
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place::default());
            self.places.len() as u32 - 1
        });
        self.places[index as usize].entry = Some(entry);
        if let Some(other) = self.by_pid.insert(key, index) {
            // The same pid in the same nanosecond: the second one counts.
            self.remove(other);
            self.by_pid.insert(key, index);
        }
        index
    }

    fn end(&mut self, id: Id, time_ns: u64) {
        let Some(entry) = self.entry_mut(id) else { return };
        entry.end_ns = entry.end_ns.min(time_ns.max(entry.start_ns));
        if entry.queue == Queue::None {
            entry.queue = Queue::Ended;
            self.ended.push_back(id);
        }
    }

    fn remove(&mut self, index: u32) {
        let place = &mut self.places[index as usize];
        let Some(entry) = place.entry.take() else { return };
        place.generation = place.generation.wrapping_add(1);
        self.free.push(index);
        self.by_pid.remove(&entry.key());
        self.weight -= entry.weight();
        if let Some(id) = entry.maker.id
            && let Some(parent) = self.entry_mut(id)
        {
            parent.children = parent.children.saturating_sub(1);
            if parent.children == 0 && parent.queue == Queue::Ancestors {
                // It only waited for this one, and its own time is over.
                parent.queue = Queue::Ended;
                self.ended.push_front(id);
            }
        }
        let images = entry.execs.iter().map(|exec| &exec.image).chain(&entry.maker.image);
        images.for_each(|image| self.images.release(image));
    }
}

/// Execs were lost between these moments.
fn lost(gaps: &VecDeque<(u64, u64)>, since_ns: u64, until_ns: u64) -> bool {
    gaps.iter().any(|&(from, to)| from < until_ns && to > since_ns)
}

#[cfg(test)]
mod tests;
