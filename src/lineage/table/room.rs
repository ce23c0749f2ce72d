//! What the table gives up, and when.

use super::Table;
use super::entry::{ALIVE, Entry, Id, Queue};

impl Table {
    /// Gives up ended processes whose time is over.
    pub(super) fn expire(&mut self, now_ns: u64) {
        while let Some(&id) = self.ended.front() {
            if self.entry(id).is_some_and(|entry| self.kept(entry, now_ns)) {
                break;
            }
            self.ended.pop_front();
            self.let_go(id);
        }
    }

    fn kept(&self, entry: &Entry, now_ns: u64) -> bool {
        entry.end_ns != ALIVE && entry.end_ns.saturating_add(self.limits.keep_ended_ns) > now_ns
    }

    /// Removes an ended process that has left its queue, unless it has descendants. True if it went.
    fn let_go(&mut self, id: Id) -> bool {
        let Some(entry) = self.entry_mut(id) else { return false };
        if entry.end_ns == ALIVE {
            entry.queue = Queue::None;
            return false;
        }
        if entry.children > 0 {
            entry.queue = Queue::Ancestors;
            self.ancestors.push_back(id);
            self.forget_stale();
            return false;
        }
        // An ancestor that was only waiting for it comes to the front of the queue.
        self.remove(id.index);
        true
    }

    /// Ids of ancestors that went with their last descendant stay in the queue; they are cleared out when they prevail.
    fn forget_stale(&mut self) {
        if self.ancestors.len() > 2 * self.by_pid.len() + 16 {
            let mut queue = std::mem::take(&mut self.ancestors);
            queue.retain(|&id| self.entry(id).is_some());
            self.ancestors = queue;
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.weight + self.images.weight()
    }

    /// Gives up what is missed least, until so many more fit: ended processes, then those with descendants, then living
    /// ones without.
    pub(super) fn make_room(&mut self, more: usize, now_ns: u64) {
        while self.by_pid.len() + more > self.limits.processes || self.bytes() > self.limits.bytes {
            if let Some(id) = self.ended.pop_front() {
                let early = self.entry(id).is_some_and(|entry| self.kept(entry, now_ns));
                if self.let_go(id) && early {
                    self.counts.evicted_ended += 1;
                }
            } else if let Some(id) = self.ancestors.pop_front() {
                if self.entry(id).is_some() {
                    self.remove(id.index);
                    self.counts.evicted_ancestors += 1;
                }
            } else if let Some(index) = self.next_living() {
                self.remove(index);
                self.counts.evicted_living += 1;
            } else {
                break;
            }
        }
    }

    /// The next process in the order of places that made none in the table; any if all did.
    fn next_living(&mut self) -> Option<u32> {
        let count = self.places.len();
        let order = (0..count).map(|step| (self.hand + step) % count);
        let occupied = |&index: &usize| self.places[index].entry.is_some();
        let leaf =
            |&index: &usize| self.places[index].entry.as_ref().is_some_and(|entry| entry.children == 0);
        let found = order.clone().find(leaf).or_else(|| order.clone().find(occupied))?;
        self.hand = found + 1;
        u32::try_from(found).ok()
    }
}
