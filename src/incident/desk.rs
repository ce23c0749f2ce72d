//! The worker's side: from alerts and execs to what is kept, told and noticed.
//!
//! It never waits for the [keeper](super::keeper): what finds no room is counted.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crossbeam_channel::bounded;

use super::Settings;
use super::collect::{Collector, Earlier, Group, Present, Thing};
use super::keeper::{Batch, Decider, Keeper};
use super::kept::{
    Item, KeptAlert, KeptEnd, KeptException, KeptFolded, KeptFollowUp, KeptProcess, KeptProgram, arguments,
    path,
};
use super::keys;
use super::notify::{Event, Message, Notifier, Say};
use super::store::Row;
use super::story::State;
use super::tell;
use crate::alert::{Alert, Host, Notice, Record, ecs};
use crate::clock;
use crate::diagnostics::counted;
use crate::fold::Folded;
use crate::followup::record::FollowUp;
use crate::health::Counters;
use crate::journal::shared::Shared;
use crate::lineage::recent::{Light, Recent};
use crate::lineage::table::Table;
use crate::lineage::table::fate::{Fate, Handle};

/// Processes of an incident.
const MOST_PROCESSES: u32 = 1000;
/// Programs of an incident.
const MOST_PROGRAMS: u64 = 2000;
/// Things that wait for the keeper.
const MOST_WAITING: usize = 20_000;
/// Records that wait until the keeper looks at them.
const MOST_SENT: usize = 1024;
/// Incidents that take what was executed before, between two ticks: each costs some milliseconds.
const MOST_CAUGHT_UP: usize = 20;
/// How long after its last alert an incident still takes programs, in nanoseconds.
const AFTERWARDS_NS: u64 = 300_000_000_000;

/// The desk.
#[derive(Debug)]
pub struct Desk {
    collector: Collector,
    keeper: Keeper,
    host: Host,
    batch: Batch,
    /// The number of the next exec to be looked at.
    next_exec: u64,
    /// Which boot this is: processes and sessions of others are strangers.
    boot: String,
    /// Incidents of a daemon before this one, until it is known what runs.
    earlier: Vec<Earlier>,
    /// Incidents that took what was executed before, since the last tick.
    caught_up: usize,
    counters: Arc<Counters>,
    notifier: Option<Notifier>,
}

impl Desk {
    /// Opens the database in `folder` and starts the thread that writes it.
    pub fn start(
        settings: Settings,
        folder: &Path,
        host: Host,
        counters: Arc<Counters>,
        say: Say,
        journal: &Shared,
    ) -> std::io::Result<Desk> {
        let (sender, sent) = bounded(MOST_SENT);
        // It is nobody else's: there is one desk.
        let _ = journal.sent.set(sender);
        let (keeper, last_id, earlier) = Keeper::start(&settings, folder, Arc::clone(&counters), sent)?;
        let notifier = settings.notify.clone().map(|notify| Notifier::start(notify, say)).transpose()?;
        let collector = Collector::new(settings, last_id);
        Ok(Desk {
            collector,
            keeper,
            host,
            batch: Batch::default(),
            next_exec: 0,
            boot: boot(),
            earlier,
            caught_up: 0,
            counters,
            notifier,
        })
    }

    /// The way to decide about incidents.
    pub fn decider(&self) -> Decider {
        self.keeper.decider()
    }

    /// Goes on with the incidents of a daemon before this one, once it is known what runs.
    pub fn resume(&mut self, table: &Table) {
        let present = Present {
            table,
            boot: &self.boot,
            now_ns: clock::realtime_ns(),
            now_at_ns: clock::monotonic_ns(),
        };
        let earlier = std::mem::take(&mut self.earlier);
        if !earlier.is_empty() {
            log::info!("{}", counted(earlier.len() as u64, "incident goes on", "incidents go on"));
        }
        self.batch.things.extend(self.collector.resume(earlier, &present));
    }

    /// Takes an alert, with the exceptions that are about it, and gives it the id of its incident, if it belongs to one. `told`: it has a record of its own. The
    /// notice is for an incident that has opened or has become more severe.
    pub fn alert(
        &mut self,
        (alert, exceptions): (&mut Alert, Vec<KeptException>),
        told: bool,
        table: &Table,
        recent: Option<&Recent>,
    ) -> Option<Notice> {
        let own = std::process::id();
        // What the daemon itself starts, to tell somebody of an incident, is none.
        if alert.origin.ancestors.iter().any(|ancestor| ancestor.pid == own) {
            return None;
        }
        let mut kept = KeptAlert { exceptions, ..KeptAlert::new(alert) };
        let above = alert.origin.up_to_entry().iter().map(|ancestor| &ancestor.image);
        let programs: Vec<String> = above
            .chain([&alert.exec.image])
            .filter_map(|image| Some(String::from_utf8_lossy(image.name()?).into_owned()))
            .collect();
        let (keys, anchor) = keys::of(alert, table);
        kept.keys = keys.iter().filter_map(|key| keys::kept(key, table, &self.boot)).collect();
        let record = told.then(|| ecs::line(&Record::Alert(Box::new(alert.clone())), None, &self.host));
        let joined = self.collector.alert((keys, anchor), &kept, &programs, record);
        alert.incident.clone_from(&joined.incident);
        let id = joined.incident?;
        self.keep(&id, joined.things);
        if let Some(recent) = recent
            && (joined.opened || joined.anchor.is_some())
        {
            self.catch_up(joined.group, joined.anchor.filter(|_| !joined.opened), table, recent);
        }
        let group = self.collector.group(joined.group)?;
        if !joined.opened && !joined.raised {
            return None;
        }
        let head = &group.head;
        let what = if joined.opened { "opened" } else { "has become more severe" };
        let (severity, score, title) = (head.severity, head.score, &head.title);
        let message = format!(
            "incident {id} {what}: {title}; severity {}, score {score}; see execwatch incidents show {id}",
            severity.as_str()
        );
        if joined.opened {
            self.counters.worker.incidents.fetch_add(1, Relaxed);
        }
        if let Some(notifier) = &self.notifier {
            let event = if joined.opened { Event::Opened } else { Event::Raised };
            let row = Row { head: head.clone(), state: State::Open, verdict: None, note: None };
            let incident = tell::incident(&row, &self.host.name);
            if !notifier.notify(&Message { event, incident }) {
                log::warn!("nobody is notified of incident {id}: the command takes too long for so many");
            }
        }
        Some(Notice { kind: "incident", severity, time_ns: clock::realtime_ns(), message })
    }

    /// Takes the execs that are remembered: those below a new anchor, or all of an incident that opens. Later ones are
    /// taken as they are drained.
    fn catch_up(&mut self, number: u64, anchor: Option<Handle>, table: &Table, recent: &Recent) {
        let Some(group) = self.collector.group(number) else { return };
        let (wanted, have): (HashSet<Handle>, HashSet<Handle>) = match anchor {
            Some(anchor) => {
                ([anchor].into(), group.anchors.iter().copied().filter(|&other| other != anchor).collect())
            }
            None => (group.anchors.iter().copied().collect(), HashSet::new()),
        };
        // What is below another anchor has been taken.
        if wanted.iter().any(|&anchor| table.reaches(anchor, |it| have.contains(&it)).is_some()) {
            return;
        }
        self.caught_up += 1;
        if self.caught_up > MOST_CAUGHT_UP {
            return group.cut("earlier programs, at least");
        }
        let mut things = Vec::new();
        for light in recent.between(0, self.next_exec) {
            if let Some(handle) = table.handle(light.pid, light.time_ns)
                && let Some(anchor) = table.reaches(handle, |it| wanted.contains(&it))
            {
                take(group, light, handle, anchor, (table, &self.boot), &mut things);
            }
        }
        let id = group.head.id.clone();
        self.keep(&id, things);
    }

    /// Looks at the execs that were drained since, whether they belong to an open incident.
    pub fn execs(&mut self, table: &Table, recent: &Recent) {
        let from = std::mem::replace(&mut self.next_exec, recent.next());
        if from == self.next_exec {
            return;
        }
        // One walk for each exec, however many incidents are open.
        let anchors = self.collector.anchors();
        if anchors.is_empty() {
            return;
        }
        for light in recent.between(from, self.next_exec) {
            let Some(handle) = table.handle(light.pid, light.time_ns) else { continue };
            // The nearest anchor of each incident counts.
            let mut taken: Vec<u64> = Vec::new();
            for anchor in table.upwards(handle) {
                for &number in anchors.get(&anchor).into_iter().flatten() {
                    if taken.contains(&number) {
                        continue;
                    }
                    taken.push(number);
                    let Some(group) = self.collector.group(number) else { continue };
                    let mut things = Vec::new();
                    take(group, light, handle, anchor, (table, &self.boot), &mut things);
                    let id = group.head.id.clone();
                    self.keep(&id, things);
                }
            }
        }
    }

    /// Takes a follow-up of one of its alerts.
    pub fn follow_up(&mut self, record: &FollowUp) {
        let Some(group) = self.collector.of_alert(&record.alerted.id) else { return };
        let line = ecs::line(&Record::FollowUp(Box::new(record.clone())), None, &self.host);
        let thing = Thing { item: Item::FollowUp(Box::new(KeptFollowUp::new(record))), record: Some(line) };
        if group.admit(&thing) {
            let id = group.head.id.clone();
            self.keep(&id, vec![thing]);
        }
    }

    /// Takes a record of alerts that were folded into one of its alerts.
    pub fn folded(&mut self, record: &Folded) {
        let Some(group) = self.collector.of_alert(&record.alert_id) else { return };
        let line = ecs::line(&Record::Folded(Box::new(record.clone())), None, &self.host);
        let thing = Thing { item: Item::Folded(KeptFolded::new(record)), record: Some(line) };
        if group.admit(&thing) {
            let id = group.head.id.clone();
            self.keep(&id, vec![thing]);
        }
    }

    /// Tells of processes that have ended, lets go of what is over, and hands everything over.
    pub fn tick(&mut self, table: &Table) {
        self.caught_up = 0;
        for id in self.keeper.closed() {
            self.collector.end(&id);
        }
        let mut kept = Vec::new();
        for group in self.collector.incidents() {
            let things = ends(group, table);
            if !things.is_empty() {
                kept.push((group.head.id.clone(), things));
            }
        }
        for (id, things) in kept {
            self.keep(&id, things);
        }
        self.hand_over();
        self.collector.expire(clock::monotonic_ns());
    }

    fn hand_over(&mut self) {
        // Heads stay marked as changed while nobody takes them.
        if !self.keeper.has_room() {
            return;
        }
        for group in self.collector.incidents() {
            if std::mem::take(&mut group.changed) {
                self.batch.heads.push(group.head.clone());
            }
        }
        if !self.batch.is_empty()
            && let Some(back) = self.keeper.write(std::mem::take(&mut self.batch))
        {
            self.batch = back;
        }
    }

    /// Ends the thread after it has written the last.
    pub fn close(mut self, table: &Table) {
        self.tick(table);
        self.keeper.close(self.batch);
    }

    fn keep(&mut self, id: &str, things: Vec<Thing>) {
        for thing in things {
            if self.batch.things.len() >= MOST_WAITING {
                self.counters.worker.incidents_unsaved.fetch_add(1, Relaxed);
                continue;
            }
            self.batch.things.push((id.to_owned(), thing));
        }
    }
}

/// Takes an exec of a process below an anchor.
fn take(
    group: &mut Group,
    light: &Light,
    handle: Handle,
    anchor: Handle,
    (table, boot): (&Table, &str),
    things: &mut Vec<Thing>,
) {
    if light.time_ns > group.last_at_ns.saturating_add(AFTERWARDS_NS) {
        return;
    }
    group.head.execs += 1;
    group.changed = true;
    if group.head.execs > MOST_PROGRAMS {
        return group.cut("programs");
    }
    let Some(process) = process(group, handle, anchor, (table, boot), things) else {
        return group.cut("programs");
    };
    let thing = Thing { item: Item::Program(KeptProgram::new(process, light)), record: None };
    if group.admit(&thing) {
        things.push(thing);
    }
}

/// The number of a process, which it is given with its ancestors up to the anchor if it has none.
fn process(
    group: &mut Group,
    handle: Handle,
    anchor: Handle,
    (table, boot): (&Table, &str),
    things: &mut Vec<Thing>,
) -> Option<u32> {
    if let Some(&known) = group.processes.get(&handle) {
        return Some(known);
    }
    let mut parent = None;
    for step in table.path(handle, anchor).into_iter().rev() {
        if let Some(&known) = group.processes.get(&step.handle) {
            parent = Some(known);
            continue;
        }
        let next = group.next_process;
        if next >= MOST_PROCESSES {
            return None;
        }
        let entry = step.handle == anchor;
        let shows = if entry { table.shows(step.handle) } else { None };
        let kept = KeptProcess {
            key: next,
            parent,
            pid: step.pid,
            start_ns: clock::wall_from_monotonic(step.start_ns),
            one: keys::one(step.handle, table, boot),
            uid: step.uid,
            entry,
            exe: shows.as_ref().and_then(|image| image.exe.as_deref()).map(path),
            args: arguments(shows.as_ref().and_then(|image| image.arguments.as_deref())),
        };
        let thing = Thing { item: Item::Process(kept), record: None };
        if !group.admit(&thing) {
            return None;
        }
        things.push(thing);
        group.next_process += 1;
        group.processes.insert(step.handle, next);
        group.alive.push((step.handle, next));
        parent = Some(next);
    }
    parent
}

/// The ends of processes that have ended.
fn ends(group: &mut Group, table: &Table) -> Vec<Thing> {
    let mut things = Vec::new();
    let mut alive = std::mem::take(&mut group.alive);
    alive.retain(|&(handle, process)| match table.fate(handle) {
        Fate::Lives => true,
        Fate::Forgotten => false,
        Fate::Ended { end_ns, status } => {
            let end = KeptEnd { process, time_ns: clock::wall_from_monotonic(end_ns), status };
            let thing = Thing { item: Item::End(end), record: None };
            if group.admit(&thing) {
                things.push(thing);
            }
            false
        }
    });
    group.alive = alive;
    things
}

/// Which boot this is, as short as is enough to tell it from others.
fn boot() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.chars().filter(char::is_ascii_hexdigit).take(16).collect()
}
