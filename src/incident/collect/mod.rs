//! Which alerts belong together, and since when they are an incident: without I/O and without a clock.
//!
//! A [`Group`] is made by an alert that has no key of another one. Its things wait in memory until its score makes it an
//! incident; most never do, and go with their window. Everything is bounded: what an open incident does not keep is
//! counted in it, and a group that has to go for want of room was no incident.

mod group;
mod ids;
mod resume;

use std::collections::HashMap;

pub use group::{Group, MOST_BYTES, Thing};
use group::{place, way};
pub use ids::{id_number, id_text};
pub use resume::{Earlier, Present};

use super::Settings;
use super::kept::{Head, Item, KeptAlert};
use super::keys::Key;
use crate::lineage::table::fate::Handle;

/// Groups at once, open incidents included.
pub const MOST_GROUPS: usize = 1024;
/// Keys of a group.
const MOST_KEYS: usize = 64;
/// Processes below which everything belongs to a group.
const MOST_ANCHORS: usize = 16;
/// Alerts whose follow-ups are known to belong to a group.
pub const MOST_ALERTS: usize = 500;
/// Bytes of things that wait in all groups that are no incidents.
const MOST_WAITING: usize = 2 << 20;
/// Things that wait in one of them.
const MOST_WAITING_EACH: usize = 64;
/// Tools that a title names.
const MOST_TOOLS: usize = 8;

/// What came of an alert.
#[derive(Debug, Default, PartialEq)]
pub struct Joined {
    /// The number of its group.
    pub group: u64,
    /// The id of the incident, if it is one.
    pub incident: Option<String>,
    /// The incident opened with this alert.
    pub opened: bool,
    /// Its severity has risen.
    pub raised: bool,
    /// Everything below this process belongs to it from now on.
    pub anchor: Option<Handle>,
    /// Things to keep, of an incident.
    pub things: Vec<Thing>,
}

/// The groups.
#[derive(Debug)]
pub struct Collector {
    settings: Settings,
    groups: HashMap<u64, Group>,
    by_key: HashMap<Key, u64>,
    by_alert: HashMap<String, u64>,
    next: u64,
    waiting_bytes: usize,
    /// The last id that was given.
    last_id: u64,
}

impl Collector {
    /// Nothing has happened. `last_id` is the number behind the last id that was ever given.
    pub fn new(settings: Settings, last_id: u64) -> Self {
        Collector {
            settings,
            groups: HashMap::new(),
            by_key: HashMap::new(),
            by_alert: HashMap::new(),
            next: 0,
            waiting_bytes: 0,
            last_id,
        }
    }

    /// Takes an alert. `programs` are the names of the programs above it up to the entry; `record` is its line of JSON, if
    /// it is told by itself.
    pub fn alert(
        &mut self,
        (keys, anchor): (Vec<Key>, Option<Handle>),
        alert: &KeptAlert,
        programs: &[String],
        record: Option<String>,
    ) -> Joined {
        let now_ns = alert.at_ns;
        let number = self.find(&keys, now_ns).unwrap_or_else(|| self.make(alert));
        let anchor = self.attach(number, keys, anchor, now_ns);
        let Some(group) = self.groups.get_mut(&number) else { return Joined::default() };
        let head = &mut group.head;
        let before = head.severity;
        group.last_at_ns = group.last_at_ns.max(now_ns);
        head.first_ns = head.first_ns.min(alert.time_ns);
        head.last_ns = head.last_ns.max(alert.time_ns);
        head.severity = head.severity.max(alert.severity);
        head.alerts += 1;
        group.changed = true;
        group.evidence.add(alert, programs);
        head.score = head.score.max(group.evidence.score());
        if let Some(utility) = &alert.utility
            && group.tools.len() < MOST_TOOLS
        {
            group.tools.insert(utility.name.clone());
        }
        group.head.title = group.title();
        let raised = group.open && group.head.severity > before;
        let mut joined = Joined { group: number, raised, anchor, ..Joined::default() };
        if let Some(record) = record {
            let thing = Thing { item: Item::Alert(Box::new(alert.clone())), record: Some(record) };
            let kept = if group.alerts.len() < MOST_ALERTS {
                group.alerts.push(alert.id.clone());
                self.by_alert.insert(alert.id.clone(), number);
                group.admit(&thing)
            } else {
                group.cut("alerts");
                false
            };
            if kept && group.open {
                joined.things.push(thing);
            } else if kept {
                self.wait(number, thing);
            }
        }
        self.open(number, &mut joined);
        joined
    }

    /// Makes an incident of a group, once its score is high enough.
    fn open(&mut self, number: u64, joined: &mut Joined) {
        let Some(group) = self.groups.get_mut(&number) else { return };
        if !group.open && group.head.score >= self.settings.score {
            // The time makes an id unique, and a number of its own where two open in a second.
            self.last_id = (group.head.last_ns / 1_000_000_000).max(self.last_id + 1);
            group.head.id = id_text(self.last_id);
            group.open = true;
            joined.opened = true;
            let waiting = std::mem::take(&mut group.waiting);
            self.waiting_bytes -= waiting.iter().map(Thing::weight).sum::<usize>();
            joined.things.extend(waiting);
        }
        joined.incident = group.open.then(|| group.head.id.clone());
    }

    /// Has a thing wait until its group is an incident.
    fn wait(&mut self, number: u64, thing: Thing) {
        let Some(group) = self.groups.get_mut(&number) else { return };
        if group.waiting.len() >= MOST_WAITING_EACH {
            group.cut("alerts");
            return;
        }
        self.waiting_bytes += thing.weight();
        group.waiting.push(thing);
        while self.waiting_bytes > MOST_WAITING {
            let others = self.groups.iter().filter(|&(&other, group)| other != number && !group.open);
            let Some((&stalest, _)) = others.min_by_key(|(_, group)| group.last_at_ns) else { break };
            self.remove(stalest);
        }
    }

    /// The group that has one of these keys, the most exact first.
    fn find(&self, keys: &[Key], now_ns: u64) -> Option<u64> {
        keys.iter().find_map(|key| self.holder(key, now_ns))
    }

    /// The group that has this key, if its window is not over.
    fn holder(&self, key: &Key, now_ns: u64) -> Option<u64> {
        let number = *self.by_key.get(key)?;
        let group = self.groups.get(&number)?;
        (now_ns.saturating_sub(group.last_at_ns) <= self.settings.window_ns).then_some(number)
    }

    fn make(&mut self, alert: &KeptAlert) -> u64 {
        if self.groups.len() >= MOST_GROUPS {
            // What is no incident goes first, then what has not been heard of for longest.
            let stalest = self.groups.iter().min_by_key(|(_, group)| (group.open, group.last_at_ns));
            if let Some((&stalest, _)) = stalest {
                self.remove(stalest);
            }
        }
        let number = self.next;
        self.next += 1;
        let head = Head {
            first_ns: alert.time_ns,
            last_ns: alert.time_ns,
            user: alert.user.clone(),
            place: place(alert),
            ..Head::default()
        };
        let group = Group { way: way(alert), last_at_ns: alert.at_ns, ..Group::new(head) };
        self.groups.insert(number, group);
        number
    }

    /// Gives a group more keys, but for those that another one has, and an anchor, which is returned if it is new.
    fn attach(&mut self, number: u64, keys: Vec<Key>, anchor: Option<Handle>, now_ns: u64) -> Option<Handle> {
        let is_free = |key: &Key| self.holder(key, now_ns).is_none_or(|holder| holder == number);
        let (keys, taken): (Vec<Key>, Vec<Key>) = keys.into_iter().partition(is_free);
        let anchor = anchor.filter(|&anchor| !taken.contains(&Key::Entry(anchor)));
        let group = self.groups.get_mut(&number)?;
        for key in keys {
            if group.keys.len() >= MOST_KEYS || group.keys.contains(&key) {
                continue;
            }
            group.keys.push(key.clone());
            self.by_key.insert(key, number);
        }
        let new =
            anchor.filter(|anchor| !group.anchors.contains(anchor) && group.anchors.len() < MOST_ANCHORS);
        group.anchors.extend(new);
        new
    }

    /// The incident that an alert belongs to.
    pub fn of_alert(&mut self, alert: &str) -> Option<&mut Group> {
        let number = self.by_alert.get(alert)?;
        self.groups.get_mut(number).filter(|group| group.open)
    }

    /// A group.
    pub fn group(&mut self, number: u64) -> Option<&mut Group> {
        self.groups.get_mut(&number)
    }

    /// The open incidents.
    pub fn incidents(&mut self) -> impl Iterator<Item = &mut Group> {
        self.groups.values_mut().filter(|group| group.open)
    }

    /// The processes below which everything belongs to an open incident, and to which.
    pub fn anchors(&self) -> HashMap<Handle, Vec<u64>> {
        let mut anchors: HashMap<Handle, Vec<u64>> = HashMap::new();
        for (&number, group) in self.groups.iter().filter(|(_, group)| group.open) {
            group.anchors.iter().for_each(|&anchor| anchors.entry(anchor).or_default().push(number));
        }
        anchors
    }

    /// Ends an incident: what follows is another.
    pub fn end(&mut self, id: &str) {
        let found = self.groups.iter().find(|(_, group)| group.open && group.head.id == id);
        if let Some(number) = found.map(|(&number, _)| number) {
            self.remove(number);
        }
    }

    /// Lets go of groups whose window is over.
    pub fn expire(&mut self, now_ns: u64) {
        let over = |group: &Group| now_ns.saturating_sub(group.last_at_ns) > self.settings.window_ns;
        let gone: Vec<u64> =
            self.groups.iter().filter(|(_, group)| over(group)).map(|(&number, _)| number).collect();
        gone.into_iter().for_each(|number| self.remove(number));
    }

    fn remove(&mut self, number: u64) {
        let Some(group) = self.groups.remove(&number) else { return };
        self.waiting_bytes -= group.waiting.iter().map(Thing::weight).sum::<usize>();
        for key in group.keys {
            if self.by_key.get(&key) == Some(&number) {
                self.by_key.remove(&key);
            }
        }
        for alert in group.alerts {
            self.by_alert.remove(&alert);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::incident::story::Cut;
    use crate::lineage::table::{Limits, Table};
    use crate::rules::model::Severity;

    const S: u64 = 1_000_000_000;

    fn alert(second: u64, severity: Severity) -> KeptAlert {
        KeptAlert {
            id: format!("a{second}"),
            time_ns: (1_800_000_000 + second) * S,
            at_ns: second * S,
            severity,
            rule: format!("rule-{second}"),
            user: Some("root".to_owned()),
            ..KeptAlert::default()
        }
    }

    fn take(collector: &mut Collector, unit: &str, alert: &KeptAlert) -> Joined {
        let keys = vec![Key::Unit(unit.to_owned())];
        collector.alert((keys, None), alert, &[], Some("{}".to_owned()))
    }

    fn collector() -> Collector {
        Collector::new(Settings::default(), 0)
    }

    #[test]
    fn an_incident_opens_with_what_waited_and_takes_what_follows() {
        let mut collector = collector();
        let first = take(&mut collector, "a", &alert(1, Severity::Medium));
        assert_eq!((first.incident, first.things.len()), (None, 0));
        let second = take(&mut collector, "a", &alert(2, Severity::High));
        assert!(second.opened && !second.raised);
        assert_eq!(second.things.len(), 2);
        let third = take(&mut collector, "a", &alert(3, Severity::Critical));
        assert_eq!((third.opened, third.raised, third.things.len()), (false, true, 1));
        assert_eq!(second.incident, third.incident);
        let group = collector.group(third.group).unwrap();
        assert_eq!((group.head.alerts, group.head.severity), (3, Severity::Critical));
        assert!(collector.of_alert("a1").is_some() && collector.of_alert("a9").is_none());
    }

    #[test]
    fn what_shares_no_key_and_what_comes_too_late_is_another() {
        let mut collector = collector();
        let one = take(&mut collector, "a", &alert(1, Severity::Critical)).incident.unwrap();
        let other = take(&mut collector, "b", &alert(1, Severity::Critical)).incident.unwrap();
        assert_ne!(one, other);
        let within = take(&mut collector, "a", &alert(901, Severity::Low)).incident;
        assert_eq!(within, Some(one.clone()));
        let later = take(&mut collector, "a", &alert(1802, Severity::Critical)).incident.unwrap();
        assert_ne!(later, one);
        collector.end(&later);
        let after = take(&mut collector, "a", &alert(1803, Severity::Critical)).incident.unwrap();
        assert_ne!(after, later);
        collector.expire(4000 * S);
        assert!(collector.groups.is_empty() && collector.by_key.is_empty() && collector.by_alert.is_empty());
    }

    #[test]
    fn what_has_keys_of_two_joins_one_and_takes_nothing_from_the_other() {
        let mut collector = collector();
        let of = |joined: Joined| joined.incident.unwrap();
        let one = of(take(&mut collector, "a", &alert(1, Severity::Critical)));
        let other = of(take(&mut collector, "b", &alert(2, Severity::Critical)));
        let mut table = Table::new(Limits { processes: 10, bytes: 1 << 20, keep_ended_ns: S });
        table.fork(1, 20, 100);
        let anchor = table.handle(20, 150).unwrap();
        let unit = |name: &str| Key::Unit(name.to_owned());
        let mut join = |keys: &[Key]| {
            collector.alert((keys.to_vec(), Some(anchor)), &alert(3, Severity::Low), &[], None)
        };
        let joined = join(&[unit("b"), Key::Entry(anchor)]);
        assert_eq!((joined.incident.as_ref(), joined.anchor), (Some(&other), Some(anchor)));
        let both = join(&[unit("a"), Key::Entry(anchor), unit("b")]);
        assert_eq!((both.incident.as_ref(), both.anchor), (Some(&one), None));
        assert_eq!(of(take(&mut collector, "b", &alert(4, Severity::Low))), other);
        assert_eq!(of(take(&mut collector, "a", &alert(5, Severity::Low))), one);
    }

    #[test]
    fn everything_has_a_bound_and_what_is_cut_is_counted() {
        let mut collector = collector();
        for number in 0..2 * MOST_GROUPS as u64 {
            take(&mut collector, &number.to_string(), &alert(number, Severity::Low));
            assert!(collector.groups.len() <= MOST_GROUPS && collector.waiting_bytes <= MOST_WAITING);
        }
        for number in 0..700 {
            take(&mut collector, "many", &alert(3000 + number / 10, Severity::Critical));
        }
        let number = collector.by_key[&Key::Unit("many".to_owned())];
        let group = collector.group(number).unwrap();
        assert_eq!(group.head.alerts, 700);
        assert_eq!(group.head.cut, [Cut { what: "alerts".to_owned(), count: 200 }]);
        let large = Thing { item: Item::Alert(Box::default()), record: Some("x".repeat(MOST_BYTES)) };
        assert!(!group.admit(&large));
        assert_eq!(group.head.cut[0].count, 201);
    }

    #[test]
    fn ids_are_short_and_never_the_same() {
        let mut collector = collector();
        let mut ids = BTreeSet::new();
        for number in 0..50 {
            let id =
                take(&mut collector, &number.to_string(), &alert(1, Severity::Critical)).incident.unwrap();
            assert_eq!((id.len(), id_text(id_number(&id).unwrap())), (7, id.clone()));
            assert!(ids.insert(id));
        }
    }
}
