//! Between alert and output: repeats of the same alert, and floods of different ones, become one record each.
//!
//! In: an alert and the time. Out: whether it is told by itself, and, when a window is over, records that say how many
//! were not. Nothing is left out without being counted in such a record.
//!
//! - **Repeats**: the first alert is told at once. Those that have the same rules, executable, users, parent, place and
//!   arguments apart from numbers are counted for as long as the window lasts, and then told in one record.
//! - **Floods**: of one rule and one subject (user and place), only so many different alerts are told in a window; the
//!   others are counted and told in one record. The limit is for each rule and subject by itself, so nobody can hide his
//!   alerts behind those of others.

mod json;
pub mod record;

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};

pub use json::line;
pub use record::{Folded, Why};

use crate::alert::Alert;
use crate::order;
use crate::process::exec::Image;

/// Groups remembered at once, at about 150 bytes and, once something was folded, up to 2 KB. Alerts of further groups
/// are told one by one.
const MOST_GROUPS: usize = 4096;

/// `[fold]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Anything is folded.
    pub enabled: bool,
    /// How long alerts are collected, in nanoseconds.
    pub window_ns: u64,
    /// Different alerts of one rule and subject that are told within a window.
    pub at_most: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { enabled: true, window_ns: 60_000_000_000, at_most: 60 }
    }
}

/// Folds alerts.
#[derive(Debug)]
pub struct Folder {
    settings: Settings,
    hasher: RandomState,
    repeats: HashMap<u64, Group>,
    floods: HashMap<u64, Group>,
}

/// Alerts that have the same key.
#[derive(Debug)]
struct Group {
    /// When the window began, on the monotonic clock.
    opened_ns: u64,
    /// The alert that was told first.
    first_id: String,
    /// Records there were of this group.
    records: u32,
    /// Alerts told within the window.
    told: u32,
    /// What was not told within the window.
    folded: Option<Box<Folded>>,
}

impl Group {
    fn new(alert: &Alert, now_ns: u64) -> Self {
        Group { opened_ns: now_ns, first_id: alert.id.clone(), records: 0, told: 1, folded: None }
    }

    fn fold(&mut self, why: Why, alert: &Alert) {
        match &mut self.folded {
            Some(folded) => folded.add(alert),
            none => {
                self.records += 1;
                *none = Some(Box::new(Folded::new(why, alert, &self.first_id, self.records)));
            }
        }
    }
}

impl Folder {
    /// Nothing has been told yet.
    pub fn new(settings: Settings) -> Self {
        Folder { settings, hasher: RandomState::new(), repeats: HashMap::new(), floods: HashMap::new() }
    }

    /// Changes the settings; windows that have begun go on.
    pub fn set(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// Takes an alert; whether it is to be told by itself. `now_ns` is the time on a clock that does not jump.
    pub fn admit(&mut self, alert: &Alert, now_ns: u64) -> Admission {
        if !self.settings.enabled {
            return Admission::Told;
        }
        let key = self.key(alert);
        if let Some(group) = self.repeats.get_mut(&key) {
            group.fold(Why::Repeated, alert);
            return Admission::Repeated;
        }
        let subject = self.subject(alert);
        let room = self.floods.len() < MOST_GROUPS;
        match self.floods.get_mut(&subject) {
            Some(group) if group.told >= self.settings.at_most => {
                group.fold(Why::HeldBack, alert);
                return Admission::HeldBack;
            }
            Some(group) => group.told += 1,
            None if room => {
                self.floods.insert(subject, Group::new(alert, now_ns));
            }
            None => {}
        }
        if self.repeats.len() < MOST_GROUPS {
            self.repeats.insert(key, Group::new(alert, now_ns));
        }
        Admission::Told
    }

    /// The records of windows that are over, or of all if `at_end`, in the order in which their alerts began.
    pub fn due(&mut self, now_ns: u64, at_end: bool) -> Vec<Folded> {
        let window_ns = self.settings.window_ns;
        let mut due = Vec::new();
        for groups in [&mut self.repeats, &mut self.floods] {
            groups.retain(|_, group| {
                if !at_end && now_ns.saturating_sub(group.opened_ns) < window_ns {
                    return true;
                }
                group.opened_ns = now_ns;
                let went_on = group.folded.is_some();
                due.extend(group.folded.take().map(|folded| *folded));
                group.told = 0;
                // What goes on is told once for each window; what has stopped begins anew with its next alert.
                went_on
            });
            groups.shrink_to(groups.len() * 2);
        }
        order::by_key(&mut due, |folded| folded.first_ns);
        due
    }

    fn key(&self, alert: &Alert) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        let exec = &alert.exec;
        (&alert.rules, alert.rule.severity as u8, exec.image.exe()).hash(&mut hasher);
        (exec.details.uid(0), exec.details.uid(1), exec.details.parent.exe()).hash(&mut hasher);
        place(alert).hash(&mut hasher);
        exec.image.raw_arguments().map(|raw| hash_without_numbers(raw, &mut hasher)).hash(&mut hasher);
        hasher.finish()
    }

    fn subject(&self, alert: &Alert) -> u64 {
        self.hasher.hash_one((&alert.rule.id, alert.exec.details.uid(0), place(alert)))
    }
}

/// What becomes of an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It is told by itself.
    Told,
    /// It is one of many that are the same.
    Repeated,
    /// It is one of too many of its rule and subject.
    HeldBack,
}

/// Where the program runs, as far as that tells subjects apart.
fn place(alert: &Alert) -> [Option<&str>; 2] {
    let place = &alert.origin.place;
    [place.container_id.as_deref(), place.unit.as_deref()]
}

/// Hashes bytes with every run of digits taken for the same.
fn hash_without_numbers(bytes: &[u8], hasher: &mut impl Hasher) {
    for part in bytes.chunk_by(|a, b| a.is_ascii_digit() == b.is_ascii_digit()) {
        match part.first() {
            Some(byte) if byte.is_ascii_digit() => hasher.write_u8(b'0'),
            _ => hasher.write(part),
        }
    }
}

/// An argument list as samples keep it.
fn command(image: &Image) -> Vec<u8> {
    let mut command = match image.raw_arguments().filter(|raw| !raw.is_empty()) {
        Some(raw) => crate::rules::subject::join(raw),
        None => image.exe().unwrap_or(b"?").to_vec(),
    };
    command.truncate(record::LONGEST_SAMPLE);
    command
}
