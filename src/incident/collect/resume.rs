//! Goes on with the incidents of a daemon before this one, so that its restart does not make two of an intrusion.
//!
//! Processes are known again by boot, pid and start. What ended while nobody looked is told when that is noticed.

use std::collections::{BTreeMap, BTreeSet};

use super::group::{Group, Thing, way};
use super::{Collector, MOST_ALERTS, MOST_ANCHORS, MOST_KEYS, MOST_TOOLS};
use crate::incident::kept::{Head, Item, KeptAlert, KeptEnd, KeptKey, KeptOne};
use crate::incident::keys::Key;
use crate::incident::score::Evidence;
use crate::lineage::table::Table;
use crate::lineage::table::fate::Handle;

/// Start times within this distance are the same: /proc is exact to a tick.
const SAME_START_NS: u64 = 50_000_000;

/// An incident of a daemon before this one, as far as going on with it takes.
#[derive(Debug, Default)]
pub struct Earlier {
    head: Head,
    way: Option<String>,
    alerts: Vec<String>,
    keys: Vec<KeptKey>,
    evidence: Evidence,
    tools: BTreeSet<String>,
    /// Those of which no end was told.
    processes: BTreeMap<u32, Option<KeptOne>>,
    next_process: u32,
    bytes: usize,
}

impl Earlier {
    /// Of an incident, before its things are taken.
    pub fn new(head: Head) -> Earlier {
        Earlier { head, ..Earlier::default() }
    }

    /// Takes a thing that was kept, in the order in which they came, and the length of its record.
    pub fn take(&mut self, item: Item, record: usize) {
        match &item {
            Item::Alert(alert) => self.alert(alert),
            Item::Process(process) => {
                self.processes.insert(process.key, process.one.clone());
                self.next_process = self.next_process.max(process.key + 1);
            }
            Item::End(end) => {
                self.processes.remove(&end.process);
            }
            _ => {}
        }
        self.bytes += Thing { item, record: None }.weight() + record;
    }

    fn alert(&mut self, alert: &KeptAlert) {
        self.way.get_or_insert_with(|| way(alert));
        if self.alerts.len() < MOST_ALERTS {
            self.alerts.push(alert.id.clone());
        }
        for key in &alert.keys {
            if self.keys.len() < MOST_KEYS && !self.keys.contains(key) {
                self.keys.push(key.clone());
            }
        }
        // Of the programs above it nothing was kept; what they were worth is in the score already.
        self.evidence.add(alert, &[]);
        if let Some(utility) = &alert.utility
            && self.tools.len() < MOST_TOOLS
        {
            self.tools.insert(utility.name.clone());
        }
    }
}

/// The present, in which processes are looked for.
#[derive(Debug, Clone, Copy)]
pub struct Present<'t> {
    /// What runs.
    pub table: &'t Table,
    /// Which boot this is.
    pub boot: &'t str,
    /// Now, since 1970.
    pub now_ns: u64,
    /// The same on CLOCK_MONOTONIC.
    pub now_at_ns: u64,
}

impl Present<'_> {
    /// The process, if it runs.
    fn find(&self, one: &KeptOne) -> Option<Handle> {
        if one.boot != self.boot {
            return None;
        }
        let handle = self.table.handle(one.pid, self.now_at_ns)?;
        let (_, start_ns) = self.table.identity(handle)?;
        (start_ns.abs_diff(one.start_ns) <= SAME_START_NS).then_some(handle)
    }

    fn key(&self, kept: &KeptKey) -> Option<Key> {
        Some(match kept {
            KeptKey::Container(id) => Key::Container(id.clone()),
            KeptKey::Ssh(client) => Key::Ssh(*client),
            KeptKey::Login { boot, session } if boot == self.boot => Key::Login(*session),
            KeptKey::Login { .. } => return None,
            KeptKey::Session(leader) => Key::Session(self.find(leader)?),
            KeptKey::Entry(leader) => Key::Entry(self.find(leader)?),
            KeptKey::Unit(unit) => Key::Unit(unit.clone()),
        })
    }
}

impl Collector {
    /// Goes on with incidents. The ends of processes that ended meanwhile, by the incidents' ids.
    pub fn resume(&mut self, earlier: Vec<Earlier>, present: &Present<'_>) -> Vec<(String, Thing)> {
        let mut things = Vec::new();
        for earlier in earlier {
            let id = earlier.head.id.clone();
            let ends = self.resume_one(earlier, present);
            things.extend(ends.into_iter().map(|thing| (id.clone(), thing)));
        }
        things
    }

    fn resume_one(&mut self, earlier: Earlier, present: &Present<'_>) -> Vec<Thing> {
        let number = self.next;
        self.next += 1;
        let age_ns = present.now_ns.saturating_sub(earlier.head.last_ns);
        let mut group = Group {
            last_at_ns: present.now_at_ns.saturating_sub(age_ns),
            open: true,
            way: earlier.way.unwrap_or_default(),
            evidence: earlier.evidence,
            tools: earlier.tools,
            next_process: earlier.next_process,
            bytes: earlier.bytes,
            ..Group::new(earlier.head)
        };
        for id in earlier.alerts {
            self.by_alert.insert(id.clone(), number);
            group.alerts.push(id);
        }
        for key in earlier.keys.iter().filter_map(|kept| present.key(kept)) {
            if let Key::Entry(anchor) = key
                && group.anchors.len() < MOST_ANCHORS
            {
                group.anchors.push(anchor);
            }
            group.keys.push(key.clone());
            // The one that was heard of last is taken first, and keeps the key.
            self.by_key.entry(key).or_insert(number);
        }
        let mut ends = Vec::new();
        for (process, one) in earlier.processes {
            match one.and_then(|one| present.find(&one)) {
                Some(handle) => {
                    group.processes.insert(handle, process);
                    group.alive.push((handle, process));
                }
                None => {
                    let end = KeptEnd { process, time_ns: present.now_ns, status: None };
                    let thing = Thing { item: Item::End(end), record: None };
                    if group.admit(&thing) {
                        ends.push(thing);
                    }
                }
            }
        }
        self.groups.insert(number, group);
        ends
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::Settings;
    use crate::incident::kept::KeptProcess;
    use crate::lineage::table::Limits;
    use crate::rules::model::Severity;

    const S: u64 = 1_000_000_000;
    const NOW: u64 = 1_800_000_000 * S;

    fn process(key: u32, one: Option<KeptOne>) -> Item {
        let (exe, args) = (None, Vec::new());
        Item::Process(KeptProcess {
            key,
            parent: None,
            pid: 7,
            start_ns: 1,
            one,
            uid: None,
            entry: key == 0,
            exe,
            args,
        })
    }

    #[test]
    fn what_belongs_to_an_earlier_incident_joins_it_and_what_ended_meanwhile_is_told() {
        let boot = |boot: &str| KeptKey::Login { boot: boot.to_owned(), session: 3 };
        let alert = KeptAlert {
            id: "before".to_owned(),
            severity: Severity::Critical,
            keys: vec![KeptKey::Unit("a.service".to_owned()), boot("this"), boot("before")],
            ..KeptAlert::default()
        };
        let head =
            Head { id: "1abc".to_owned(), last_ns: NOW - 60 * S, score: 70, alerts: 1, ..Head::default() };
        let mut earlier = Earlier::new(Head { severity: Severity::Critical, ..head });
        earlier.take(Item::Alert(Box::new(alert)), 500);
        let gone = KeptOne { boot: "this".to_owned(), pid: 7, start_ns: 5 };
        earlier.take(process(0, Some(gone)), 0);
        earlier.take(process(4, None), 0);
        earlier.take(Item::End(KeptEnd { process: 4, time_ns: 1, status: Some(0) }), 0);

        let table = Table::new(Limits { processes: 10, bytes: 1 << 20, keep_ended_ns: S });
        let present = Present { table: &table, boot: "this", now_ns: NOW, now_at_ns: 1000 * S };
        let mut collector = Collector::new(Settings::default(), 0);
        let things = collector.resume(vec![earlier], &present);
        let end = Item::End(KeptEnd { process: 0, time_ns: NOW, status: None });
        assert_eq!(things, [("1abc".to_owned(), Thing { item: end, record: None })]);
        let group = collector.of_alert("before").unwrap();
        assert_eq!((group.last_at_ns, group.next_process, group.anchors.len()), (940 * S, 5, 0));
        assert_eq!(group.keys, [Key::Unit("a.service".to_owned()), Key::Login(3)]);

        let mut next = |key: Key, second: u64| {
            let alert = KeptAlert { id: second.to_string(), at_ns: second * S, ..KeptAlert::default() };
            collector.alert((vec![key], None), &alert, &[], None)
        };
        let joined = next(Key::Login(3), 1001);
        assert_eq!((joined.incident.as_deref(), joined.opened, joined.raised), (Some("1abc"), false, false));
        assert_eq!(next(Key::Unit("b.service".to_owned()), 1002).incident, None);
        // The window is counted from the last alert, whichever daemon saw it.
        assert_eq!(next(Key::Unit("a.service".to_owned()), 1902).incident, None);
    }
}
