//! Alerts that belong together, and what is kept of them.

use std::collections::{BTreeSet, HashMap};

use crate::incident::kept::{Head, Item, KeptAlert};
use crate::incident::keys::Key;
use crate::incident::score::Evidence;
use crate::incident::story::Cut;
use crate::lineage::table::fate::Handle;

/// Bytes of things that an incident keeps.
pub const MOST_BYTES: usize = 4 << 20;

/// A thing to keep: what it is, and the record as it was sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Thing {
    /// What it is.
    pub item: Item,
    /// The line of JSON of an alert, a follow-up or a folded record.
    pub record: Option<String>,
}

impl Thing {
    /// Bytes, roughly.
    pub(super) fn weight(&self) -> usize {
        let own = match &self.item {
            Item::Alert(alert) => {
                600 + 80 * alert.keys.len() + alert.args.iter().map(String::len).sum::<usize>()
            }
            Item::Program(program) => 120 + program.args.iter().map(String::len).sum::<usize>(),
            Item::FollowUp(record) => 300 + 150 * record.peers.len() + 60 * record.files.len(),
            Item::Process(_) | Item::End(_) | Item::Folded(_) | Item::Note(_) => 150,
        };
        own + self.record.as_ref().map_or(0, String::len)
    }
}

/// Alerts that belong together.
#[derive(Debug)]
pub struct Group {
    /// What the list shows, once it is open.
    pub head: Head,
    /// It is an incident.
    pub open: bool,
    /// Below these processes everything belongs to it.
    pub anchors: Vec<Handle>,
    /// Its processes by their numbers, once it is open.
    pub processes: HashMap<Handle, u32>,
    /// The number of the next process.
    pub next_process: u32,
    /// Those of which no end was told.
    pub alive: Vec<(Handle, u32)>,
    /// The head has changed since it was handed over.
    pub changed: bool,
    pub(super) keys: Vec<Key>,
    pub(super) evidence: Evidence,
    pub(super) tools: BTreeSet<String>,
    pub(super) way: String,
    /// When its last alert was, on CLOCK_MONOTONIC.
    pub last_at_ns: u64,
    /// The ids of alerts that are kept.
    pub(super) alerts: Vec<String>,
    pub(super) bytes: usize,
    pub(super) waiting: Vec<Thing>,
}

impl Group {
    /// With nothing but its head.
    pub(super) fn new(head: Head) -> Group {
        Group {
            head,
            open: false,
            anchors: Vec::new(),
            processes: HashMap::new(),
            next_process: 0,
            alive: Vec::new(),
            changed: false,
            keys: Vec::new(),
            evidence: Evidence::default(),
            tools: BTreeSet::new(),
            way: String::new(),
            last_at_ns: 0,
            alerts: Vec::new(),
            bytes: 0,
            waiting: Vec::new(),
        }
    }

    /// Counts something that was not kept.
    pub fn cut(&mut self, what: &str) {
        self.changed = true;
        match self.head.cut.iter_mut().find(|cut| cut.what == what) {
            Some(cut) => cut.count += 1,
            None => self.head.cut.push(Cut { what: what.to_owned(), count: 1 }),
        }
    }

    /// True if there is room for a thing of an incident; else it is counted.
    pub fn admit(&mut self, thing: &Thing) -> bool {
        let weight = thing.weight();
        if self.bytes + weight > MOST_BYTES {
            self.cut(match thing.item {
                Item::Alert(_) => "alerts",
                Item::Process(_) | Item::Program(_) | Item::End(_) => "programs",
                Item::FollowUp(_) => "follow-ups",
                Item::Folded(_) | Item::Note(_) => "notes",
            });
            return false;
        }
        self.bytes += weight;
        true
    }

    pub(super) fn title(&self) -> String {
        let tools: Vec<&str> = self.tools.iter().map(String::as_str).collect();
        let tools = if tools.is_empty() { "programs that match rules".to_owned() } else { tools.join(", ") };
        let user = self.head.user.as_deref().unwrap_or("somebody");
        format!("{user} {}: {tools}", self.way)
    }
}

/// Where an alert's program runs, for the list.
pub(super) fn place(alert: &KeptAlert) -> Option<String> {
    let container = alert.container_name.clone().or_else(|| {
        let id = alert.container.as_ref()?;
        Some(id.get(..12).unwrap_or(id).to_owned())
    });
    container
        .map(|name| format!("container {name}"))
        .or_else(|| alert.unit.clone())
        .or_else(|| alert.tty.as_ref().map(|tty| format!("terminal {tty}")))
}

/// How the way to it began, for the title.
pub(super) fn way(alert: &KeptAlert) -> String {
    let leader = || {
        let command = alert.leader.as_ref().map(|(_, command)| command.as_str()).unwrap_or_default();
        let program = command.split(' ').next().unwrap_or_default();
        program.rsplit('/').next().unwrap_or_default().to_owned()
    };
    match (alert.entry.as_deref(), &alert.ssh_client) {
        (Some("ssh"), Some(client)) => format!("by ssh from {client}"),
        (Some("container"), _) => format!("in {}", place(alert).unwrap_or_else(|| "a container".to_owned())),
        (Some("service"), _) if alert.unit.is_some() => {
            format!("below service {}", alert.unit.as_deref().unwrap_or_default())
        }
        (Some("service" | "init"), _) => format!("below {}", leader()),
        (Some(other), _) => format!("by {other}"),
        (None, _) => "by an unknown way".to_owned(),
    }
}
