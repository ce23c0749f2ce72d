//! What is normal here: which programs have alerted before, by whom and from where, and on how many days.
//!
//! In: the tuples of an exec's alerts and the time. Out: what is known of each, and what becomes of its severity. The
//! decisions ([`mod@tuple`], [`days`], [`memory`], [`decision`]) do no I/O and have no clock; [`store`] is the database, and
//! [`keeper`] the thread that writes to it, so that no alert waits for a disk. Days, not counts, make a tuple known, and
//! a day takes at least half a day of the clock that nobody can set: see [`days`].

pub mod days;
pub mod decision;
pub mod keeper;
pub mod memory;
pub mod store;
pub mod tuple;

use std::collections::HashMap;
use std::path::Path;

use days::{Days, Now};
use decision::{Effect, Knowledge, Past, Settings, effect};
use keeper::{Batch, Keeper};
use memory::{Change, Memory};
use tuple::{Key, Tuple};

use crate::rules::model::Severity;

/// How often what was seen is handed to the thread that writes it down, in seconds.
const HAND_OVER_EVERY_S: u64 = 5;
/// Tuples that may wait to be handed over. What finds no room is written when it is seen again, and counted.
const MOST_WAITING: usize = 8192;
/// How often the day is written down even if nothing was seen, in seconds.
const KEEP_DAY_EVERY_S: u64 = 600;

/// What the baseline counts, since the start but for `rows`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Counts {
    /// Tuples remembered now.
    pub rows: u64,
    /// Matches of rules silenced because they are known.
    pub silenced: u64,
    /// Matches of rules whose severity was lowered because they are known.
    pub lowered: u64,
    /// Matches of rules whose severity was raised because they are new.
    pub raised: u64,
    /// Tuples forgotten for want of room.
    pub evicted: u64,
    /// Times a tuple could not be handed over to be written down.
    pub unsaved: u64,
}

/// The baseline of a running daemon.
#[derive(Debug)]
pub struct Baseline {
    settings: Settings,
    memory: Memory,
    days: Days,
    /// What changed since it was handed over: the texts of the tuples, of which the memory has only the keys.
    waiting: HashMap<Key, Tuple>,
    keeper: Option<Keeper>,
    counts: Counts,
    /// The last change from the command line that the memory knows of.
    applied: u64,
    evicted_before: u64,
    handed_over_s: u64,
    day_kept_s: u64,
    learning: bool,
}

impl Baseline {
    /// Begins with what `folder` holds. A database that cannot be used is said, and the daemon goes on with memory only.
    pub fn open(settings: Settings, folder: &Path, now: Now) -> Baseline {
        let (keeper, (kept, applied)) = Keeper::start(folder, settings.rows);
        let mut days = Days::resume(kept.days, kept.same_boot, now);
        days.advance(now);
        let memory = Memory::new(settings.rows, kept.rows);
        let mut baseline = Baseline::with_memory(settings, memory, days);
        (baseline.keeper, baseline.applied) = (keeper, applied);
        baseline.hand_over(now);
        baseline
    }

    /// One that is written nowhere.
    pub fn with_memory(settings: Settings, memory: Memory, days: Days) -> Baseline {
        let learning = days.learning(&settings);
        Baseline {
            settings,
            memory,
            days,
            waiting: HashMap::new(),
            keeper: None,
            counts: Counts::default(),
            applied: 0,
            evicted_before: 0,
            handed_over_s: 0,
            day_kept_s: 0,
            learning,
        }
    }

    /// What is known of a tuple; nothing is noted.
    pub fn past(&self, key: &Key) -> Past {
        self.memory.past(key, self.days.number(), &self.settings)
    }

    /// Notes that a tuple was seen; what was known of it before.
    pub fn see(&mut self, tuple: &Tuple, time_s: u64) -> Past {
        let key = tuple.key();
        let past = self.past(&key);
        self.memory.see(key, time_s, self.days.number(), self.learning, past.knowledge);
        self.wait(key, tuple);
        past
    }

    /// Notes that a rule's alert was seen, and decides what becomes of its severity.
    pub fn judge(&mut self, tuple: &Tuple, severity: Severity, time_s: u64) -> (Past, Effect) {
        let past = self.see(tuple, time_s);
        let effect = effect(&self.settings, past.knowledge, severity);
        match effect {
            Effect::None => {}
            Effect::Raised(_) => self.counts.raised += 1,
            Effect::Lowered(_) => self.counts.lowered += 1,
            Effect::Silenced => {
                self.counts.silenced += 1;
                self.memory.note_silenced(&tuple.key());
            }
        }
        (past, effect)
    }

    fn wait(&mut self, key: Key, tuple: &Tuple) {
        if self.keeper.is_none() || self.waiting.contains_key(&key) {
            return;
        }
        if self.waiting.len() < MOST_WAITING {
            self.waiting.insert(key, tuple.shortened());
        } else {
            self.counts.unsaved += 1;
        }
    }

    /// To be called every second or so: follows the days, and what `execwatch baseline` changed, and hands over what is
    /// to be written. Never waits. Returns a sentence when the learning period ends.
    pub fn tick(&mut self, now: Now) -> Option<String> {
        let changes: Vec<(u64, Change)> = self.keeper.iter().flat_map(Keeper::changes).collect();
        for (number, change) in changes {
            if change == Change::ForgetAll {
                self.days.begin_learning();
                self.waiting.clear();
            } else if let Change::Forget(key) = &change {
                self.waiting.remove(key);
            }
            self.memory.apply(&change);
            self.applied = number;
        }
        let new_day = self.days.advance(now);
        if new_day || now.boot_s >= self.handed_over_s + HAND_OVER_EVERY_S {
            self.hand_over(now);
        }
        let learning = self.days.learning(&self.settings);
        let ended = self.learning && !learning;
        self.learning = learning;
        ended.then(|| {
            format!(
                "the baseline's learning period of {} days is over: what is not known by now becomes so only with \
                 `execwatch baseline approve`",
                self.settings.learn_days
            )
        })
    }

    fn hand_over(&mut self, now: Now) {
        self.handed_over_s = now.boot_s;
        let Some(keeper) = &self.keeper else { return };
        let day_is_due = self.day_kept_s == 0 || now.boot_s >= self.day_kept_s + KEEP_DAY_EVERY_S;
        if self.waiting.is_empty() && !day_is_due || !keeper.has_room() {
            return;
        }
        let waiting = std::mem::take(&mut self.waiting);
        let rows = waiting
            .into_iter()
            .filter_map(|(key, tuple)| Some((key, tuple, *self.memory.get(&key)?)))
            .collect();
        let full = self.memory.evicted() > self.evicted_before;
        self.evicted_before = self.memory.evicted();
        let batch = Batch { rows, days: self.days.kept(now), full, applied: self.applied };
        self.day_kept_s = now.boot_s.max(1);
        keeper.write(batch);
    }

    /// Writes what is left, and waits for it, not for long.
    pub fn close(&mut self, now: Now) {
        self.day_kept_s = 0;
        self.hand_over(now);
        if let Some(keeper) = self.keeper.take() {
            keeper.close();
        }
    }

    /// What is counted.
    pub fn counts(&self) -> Counts {
        let unwritten = self.keeper.as_ref().map_or(0, Keeper::lost);
        Counts {
            rows: self.memory.len() as u64,
            evicted: self.memory.evicted(),
            unsaved: self.counts.unsaved + unwritten,
            ..self.counts
        }
    }

    /// How it is set.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Tuples can still become known by themselves.
    pub fn learning(&self) -> bool {
        self.learning
    }

    /// It is written down.
    pub fn kept(&self) -> bool {
        self.keeper.is_some()
    }
}

/// The word for what is known.
impl Knowledge {
    /// As in alerts and lists.
    pub fn as_str(self) -> &'static str {
        match self {
            Knowledge::New => "new",
            Knowledge::Seen => "seen",
            Knowledge::Known => "known",
        }
    }
}
