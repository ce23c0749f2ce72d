//! What becomes of chosen processes: whether they live, how they ended, whom they made.
//!
//! They are asked for by a [`Handle`], which names one process for ever: another that is given its pid is a stranger.

use std::sync::Arc;

use super::Table;
use super::entry::{ALIVE, Id};
use crate::lineage::image::Image;
use crate::process::relatives::MOST_ANCESTORS;

/// A process of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Handle(Id);

/// What the table knows of it now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It lives, as far as is known.
    Lives,
    /// It has ended.
    Ended {
        /// When, on CLOCK_MONOTONIC in nanoseconds; if nobody saw it, when that was noticed.
        end_ns: u64,
        /// The wait status; `None` if nobody saw it.
        status: Option<u32>,
    },
    /// The table gave it up for want of room.
    Forgotten,
}

/// A process that another made.
#[derive(Debug, Clone)]
pub struct Child {
    /// Process id.
    pub pid: u32,
    /// When it was made, on CLOCK_MONOTONIC in nanoseconds.
    pub start_ns: u64,
    /// What it executed last; `None` if nothing was seen.
    pub image: Option<Arc<Image>>,
}

/// A process on the way from another up to an ancestor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// The process.
    pub handle: Handle,
    /// Process id.
    pub pid: u32,
    /// When it was made, on CLOCK_MONOTONIC in nanoseconds.
    pub start_ns: u64,
    /// The real user.
    pub uid: Option<u32>,
}

impl Table {
    /// The first of `ancestors` that is the process itself or an ancestor of it, as far as the table has them.
    pub fn reaches(&self, process: Handle, ancestors: impl Fn(Handle) -> bool) -> Option<Handle> {
        self.upwards(process).find(|&ancestor| ancestors(ancestor))
    }

    /// The process itself and its ancestors, the nearest first, as far as the table has them.
    pub fn upwards(&self, process: Handle) -> impl Iterator<Item = Handle> + '_ {
        let up = |id: &Id| self.entry(*id)?.maker.id;
        std::iter::successors(Some(process.0), up).take(MOST_ANCESTORS + 1).map(Handle)
    }

    /// The process and its ancestors up to one of them, which is the last.
    pub fn path(&self, process: Handle, ancestor: Handle) -> Vec<Step> {
        let mut path = Vec::new();
        let mut next = Some(process.0);
        while let Some(id) = next
            && let Some(entry) = self.entry(id)
            && path.len() <= MOST_ANCESTORS
        {
            let (pid, start_ns) = entry.key();
            path.push(Step { handle: Handle(id), pid, start_ns, uid: entry.uids.map(|uids| uids[0]) });
            if id == ancestor.0 {
                break;
            }
            next = entry.maker.id;
        }
        path
    }

    /// What a process shows now, or what its maker showed if it has executed nothing.
    pub fn shows(&self, process: Handle) -> Option<Arc<Image>> {
        let entry = self.entry(process.0)?;
        entry.execs.last().map(|exec| &exec.image).or(entry.maker.image.as_ref()).cloned()
    }

    /// The process that has this pid at this moment.
    pub fn handle(&self, pid: u32, time_ns: u64) -> Option<Handle> {
        self.find(pid, time_ns).map(Handle)
    }

    /// Pid and start of a process, on CLOCK_MONOTONIC in nanoseconds.
    pub fn identity(&self, handle: Handle) -> Option<(u32, u64)> {
        Some(self.entry(handle.0)?.key())
    }

    /// What became of a process.
    pub fn fate(&self, handle: Handle) -> Fate {
        match self.entry(handle.0) {
            None => Fate::Forgotten,
            Some(entry) if entry.end_ns == ALIVE => Fate::Lives,
            Some(entry) => Fate::Ended { end_ns: entry.end_ns, status: entry.status },
        }
    }

    /// True if the process made others that are in the table.
    pub fn has_children(&self, handle: Handle) -> bool {
        self.entry(handle.0).is_some_and(|entry| entry.children > 0)
    }

    /// Whom each of these processes made, in the order of time. This walks through the whole table.
    pub fn children(&self, handles: &[Handle]) -> Vec<Vec<Child>> {
        let mut all = vec![Vec::new(); handles.len()];
        for entry in self.places.iter().filter_map(|place| place.entry.as_ref()) {
            let Some(maker) = entry.maker.id else { continue };
            for (handle, children) in handles.iter().zip(&mut all) {
                if handle.0 == maker {
                    let image = entry.execs.last().map(|exec| Arc::clone(&exec.image));
                    children.push(Child { pid: entry.pid, start_ns: entry.start_ns, image });
                }
            }
        }
        for children in &mut all {
            children.sort_by_key(|child: &Child| (child.start_ns, child.pid));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lineage::image::Shown;
    use crate::lineage::table::Limits;

    const LIMITS: Limits = Limits { processes: 100, bytes: 1 << 20, keep_ended_ns: 1_000_000_000 };

    #[test]
    fn an_end_and_its_status() {
        let mut table = Table::new(LIMITS);
        table.fork(1, 20, 100);
        let handle = table.handle(20, 150).unwrap();
        assert_eq!(table.fate(handle), Fate::Lives);
        table.exit(20, 200, 3 << 8);
        assert_eq!(table.fate(handle), Fate::Ended { end_ns: 200, status: Some(3 << 8) });
        // Another process with its pid is a stranger.
        table.fork(1, 20, 300);
        table.exit(20, 400, 9);
        assert_eq!(table.fate(handle), Fate::Ended { end_ns: 200, status: Some(3 << 8) });
        // It is forgotten when its time is over.
        table.exit(999, 3_000_000_000, 0);
        assert_eq!(table.fate(handle), Fate::Forgotten);
    }

    #[test]
    fn an_end_that_nobody_saw() {
        let mut table = Table::new(LIMITS);
        table.fork(1, 20, 100);
        let handle = table.handle(20, 150).unwrap();
        table.fork(1, 20, 300);
        assert_eq!(table.fate(handle), Fate::Ended { end_ns: 300, status: None });
        table.fork(1, 21, 400);
        let handle = table.handle(21, 450).unwrap();
        table.snapshot(Vec::new(), true, 500);
        assert_eq!(table.fate(handle), Fate::Ended { end_ns: 500, status: None });
    }

    #[test]
    fn the_way_up_to_an_ancestor() {
        let mut table = Table::new(LIMITS);
        table.fork(1, 20, 100);
        table.fork(20, 21, 200);
        table.fork(21, 22, 300);
        table.fork(1, 30, 300);
        let handle = |pid| table.handle(pid, 350).unwrap();
        assert_eq!(table.reaches(handle(22), |it| it == handle(20)), Some(handle(20)));
        assert_eq!(table.reaches(handle(20), |it| it == handle(20)), Some(handle(20)));
        assert_eq!(table.reaches(handle(30), |it| it == handle(20)), None);
        let path = table.path(handle(22), handle(20));
        let pids: Vec<(u32, u64)> = path.iter().map(|step| (step.pid, step.start_ns)).collect();
        assert_eq!(pids, [(22, 300), (21, 200), (20, 100)]);
    }

    #[test]
    fn children_with_what_they_executed() {
        let mut table = Table::new(LIMITS);
        table.fork(1, 20, 100);
        let handle = table.handle(20, 150).unwrap();
        assert!(!table.has_children(handle));
        table.fork(20, 22, 210);
        table.fork(20, 21, 200);
        table.fork(21, 23, 220);
        table.exec(21, 230, Shown::new(Some(b"/bin/id"), Some(b"id\0"), false));
        table.exit(21, 240, 0);
        assert!(table.has_children(handle));
        let children = &table.children(&[handle])[0];
        let pids: Vec<u32> = children.iter().map(|child| child.pid).collect();
        assert_eq!(pids, [21, 22]);
        let exe = |at: usize| children[at].image.as_ref().and_then(|image| image.exe.as_deref());
        assert_eq!((exe(0), exe(1)), (Some(&b"/bin/id"[..]), None));
    }
}
