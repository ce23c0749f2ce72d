//! A process in the table.

use std::sync::Arc;

use crate::lineage::image::Image;
use crate::process::relatives::Learnt;

/// The end of a process that lives.
pub(super) const ALIVE: u64 = u64::MAX;

/// A place in the table and its occupant: the id of a process that was given up finds nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Id {
    pub(super) index: u32,
    pub(super) generation: u32,
}

/// Who made a process, and what it was then.
#[derive(Debug, Clone, Default)]
pub(super) struct Maker {
    pub(super) id: Option<Id>,
    /// 0 for none; `None` if nobody told.
    pub(super) pid: Option<u32>,
    pub(super) uids: Option<[u32; 2]>,
    pub(super) image: Option<Arc<Image>>,
    pub(super) learnt: Learnt,
}

/// How a start time was learnt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// From the fork.
    Exact,
    /// From /proc, to a tick.
    Ticks,
    /// It is the time of the first exec that was seen.
    Guessed,
}

/// Where an entry waits to be given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Queue {
    None,
    Ended,
    /// Its time is over, but not its descendants'.
    Ancestors,
}

#[derive(Debug)]
pub(super) struct Exec {
    pub(super) since_ns: u64,
    pub(super) image: Arc<Image>,
    pub(super) learnt: Learnt,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) pid: u32,
    pub(super) start_ns: u64,
    pub(super) start: Start,
    pub(super) end_ns: u64,
    /// The wait status, if its end was seen.
    pub(super) status: Option<u32>,
    pub(super) queue: Queue,
    /// Processes in the table that it made.
    pub(super) children: u32,
    pub(super) uids: Option<[u32; 2]>,
    pub(super) maker: Maker,
    /// In the order of time; the last is the present one.
    pub(super) execs: Vec<Exec>,
}

impl Entry {
    pub(super) fn new(pid: u32, start_ns: u64, start: Start) -> Self {
        Entry {
            pid,
            start_ns,
            start,
            end_ns: ALIVE,
            status: None,
            queue: Queue::None,
            children: 0,
            uids: None,
            maker: Maker::default(),
            execs: Vec::new(),
        }
    }

    pub(super) fn key(&self) -> (u32, u64) {
        (self.pid, self.start_ns)
    }

    /// What the process shows at a moment, how that was learnt and since when it does.
    pub(super) fn image_at(&self, time_ns: u64) -> (Option<&Arc<Image>>, Learnt, u64) {
        match self.execs.iter().rev().find(|exec| exec.since_ns <= time_ns) {
            Some(exec) => (Some(&exec.image), exec.learnt, exec.since_ns),
            // Whom /proc names as the parent may only have adopted it.
            None if self.maker.image.is_some() && self.start == Start::Exact => {
                (self.maker.image.as_ref(), Learnt::Inherited, self.start_ns)
            }
            None => (None, Learnt::Unknown, self.start_ns),
        }
    }

    pub(super) fn weight(&self) -> usize {
        /// A node of the tree holds eleven keys and is two thirds full.
        const IN_TREE: usize = 40;
        size_of::<Place>() + IN_TREE + self.execs.capacity() * size_of::<Exec>()
    }
}

#[derive(Debug, Default)]
pub(super) struct Place {
    pub(super) generation: u32,
    pub(super) entry: Option<Entry>,
}
