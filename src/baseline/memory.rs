//! The tuples as they are remembered: a few numbers for each, without their texts, which only the database has.
//!
//! The numbers are no wider than they must be, and stop at their greatest value: a full memory of 100,000 takes 6 MB.

use std::collections::HashMap;

use super::decision::{Knowledge, Past, Settings};
use super::tuple::Key;

/// What is remembered of a tuple.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Row {
    /// First seen: seconds since 1970.
    pub first_s: u32,
    /// Last seen: seconds since 1970.
    pub last_s: u32,
    /// How often.
    pub count: u32,
    /// How often its alert was silenced.
    pub silenced: u32,
    /// On how many days.
    pub days: u16,
    /// On how many of these within the learning period, since it was new.
    pub learnt_days: u16,
    /// The last of these days, by the [number](super::days::Days::number).
    pub last_day: u32,
    /// An administrator said that it is normal.
    pub approved: bool,
}

impl Row {
    /// What is known of it on a day.
    pub fn past(&self, today: u64, settings: &Settings) -> Past {
        let fresh = today.saturating_sub(u64::from(self.last_day)) <= settings.new_after_days;
        let learnt = u64::from(self.learnt_days) >= settings.known_after_days;
        let knowledge = match (self.approved, self.count > 0 && fresh) {
            (true, _) => Knowledge::Known,
            (false, true) if learnt => Knowledge::Known,
            (false, true) => Knowledge::Seen,
            (false, false) => Knowledge::New,
        };
        Past {
            knowledge,
            count: self.count.into(),
            days: self.days.into(),
            since_s: (self.count > 0).then_some(self.first_s.into()),
            approved: self.approved,
        }
    }

    fn see(&mut self, time_s: u64, today: u64, learning: bool, before: Knowledge) {
        let today = u32::try_from(today).unwrap_or(u32::MAX);
        let time_s = u32::try_from(time_s).unwrap_or(u32::MAX);
        if before == Knowledge::New {
            // What was learnt of it long ago counts no more.
            self.learnt_days = 0;
        }
        if self.count == 0 {
            self.first_s = time_s;
        }
        if self.count == 0 || self.last_day != today {
            self.days = self.days.saturating_add(1);
            self.learnt_days = self.learnt_days.saturating_add(u16::from(learning));
            self.last_day = today;
        }
        self.count = self.count.saturating_add(1);
        // Execs may be evaluated out of order.
        self.last_s = self.last_s.max(time_s);
    }
}

/// What `execwatch baseline` changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// A tuple is new again.
    Forget(Key),
    /// Everything is, and the learning period begins anew.
    ForgetAll,
    /// A tuple is known.
    Approve(Key),
}

/// All rows.
#[derive(Debug)]
pub struct Memory {
    rows: HashMap<Key, Row>,
    most: usize,
    evicted: u64,
}

impl Memory {
    /// With what was kept. At most `most` are remembered.
    pub fn new(most: usize, kept: HashMap<Key, Row>) -> Memory {
        let mut memory = Memory { rows: kept, most: most.max(1), evicted: 0 };
        if memory.rows.len() > memory.most {
            memory.evict(memory.rows.len() - memory.most);
        }
        memory
    }

    /// What is known of a tuple.
    pub fn past(&self, key: &Key, today: u64, settings: &Settings) -> Past {
        self.rows.get(key).map_or(Past::default(), |row| row.past(today, settings))
    }

    /// Notes that a tuple was seen, of which that much was known.
    pub fn see(&mut self, key: Key, time_s: u64, today: u64, learning: bool, before: Knowledge) {
        if self.rows.len() >= self.most && !self.rows.contains_key(&key) {
            // Some at once: to look for the oldest takes a walk over all.
            self.evict((self.most / 64).max(1));
        }
        self.rows.entry(key).or_default().see(time_s, today, learning, before);
    }

    /// Counts that an alert of a tuple was silenced.
    pub fn note_silenced(&mut self, key: &Key) {
        if let Some(row) = self.rows.get_mut(key) {
            row.silenced = row.silenced.saturating_add(1);
        }
    }

    /// Takes over what an administrator changed.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Forget(key) => {
                self.rows.remove(key);
            }
            Change::ForgetAll => self.rows = HashMap::new(),
            Change::Approve(key) => {
                if let Some(row) = self.rows.get_mut(key) {
                    row.approved = true;
                }
            }
        }
    }

    /// Forgets the `count` that were seen on the fewest days, and of these the ones seen last the longest ago. So whoever
    /// makes up tuples drives out what else was seen on one day, and never what is known.
    fn evict(&mut self, count: usize) {
        let rank = |row: &Row| (row.approved, row.days, row.last_s);
        let mut ranks: Vec<_> = self.rows.iter().map(|(key, row)| (rank(row), *key)).collect();
        let count = count.min(ranks.len());
        if count < ranks.len() {
            ranks.select_nth_unstable(count);
        }
        for (_, key) in &ranks[..count] {
            self.rows.remove(key);
        }
        self.evicted += count as u64;
    }

    /// What is remembered of a tuple.
    pub fn get(&self, key: &Key) -> Option<&Row> {
        self.rows.get(key)
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// None is.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// How many were forgotten for want of room.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::baseline::days::{Days, Now, SHORTEST_S};
    use proptest::prelude::*;

    const SETTINGS: Settings = Settings {
        mode: crate::baseline::decision::Mode::Enforce,
        known: crate::baseline::decision::WhenKnown::Silence,
        learn_days: 14,
        known_after_days: 3,
        new_after_days: 45,
        rows: 100,
    };

    fn key(number: u8) -> Key {
        Key([number; 16])
    }

    /// Sees a tuple on a day; what was known before.
    fn see(memory: &mut Memory, number: u8, today: u64, learning: bool) -> Knowledge {
        let before = memory.past(&key(number), today, &SETTINGS).knowledge;
        memory.see(key(number), today * 86_400, today, learning, before);
        before
    }

    #[test]
    fn known_after_days_and_not_counts() {
        let mut memory = Memory::new(100, HashMap::new());
        assert_eq!(see(&mut memory, 1, 1, true), Knowledge::New);
        for _ in 0..1000 {
            assert_eq!(see(&mut memory, 1, 1, true), Knowledge::Seen);
        }
        assert_eq!(see(&mut memory, 1, 2, true), Knowledge::Seen);
        assert_eq!(see(&mut memory, 1, 3, true), Knowledge::Seen);
        assert_eq!(see(&mut memory, 1, 3, true), Knowledge::Known);
        let past = memory.past(&key(1), 4, &SETTINGS);
        assert_eq!((past.count, past.days, past.since_s), (1004, 3, Some(86_400)));
    }

    #[test]
    fn nothing_becomes_known_after_the_learning_period_but_by_approval() {
        let mut memory = Memory::new(100, HashMap::new());
        for day in 1..3 {
            see(&mut memory, 1, day, true);
        }
        for day in 3..40 {
            assert_eq!(see(&mut memory, 1, day, false), Knowledge::Seen);
        }
        memory.apply(&Change::Approve(key(1)));
        assert_eq!(see(&mut memory, 1, 40, false), Knowledge::Known);
        // For good.
        assert_eq!(see(&mut memory, 1, 400, false), Knowledge::Known);
        memory.apply(&Change::Forget(key(1)));
        assert_eq!(see(&mut memory, 1, 400, false), Knowledge::New);
    }

    #[test]
    fn what_was_not_seen_for_long_is_new_and_must_be_learnt_anew() {
        let mut memory = Memory::new(100, HashMap::new());
        for day in 1..=3 {
            see(&mut memory, 1, day, true);
        }
        assert_eq!(see(&mut memory, 1, 48, false), Knowledge::Known);
        assert_eq!(see(&mut memory, 1, 94, false), Knowledge::New);
        assert_eq!(see(&mut memory, 1, 94, false), Knowledge::Seen);
        assert_eq!(memory.get(&key(1)).map(|row| (row.days, row.learnt_days)), Some((5, 0)));
    }

    #[test]
    fn a_full_memory_forgets_the_oldest_of_those_seen_least() {
        let mut memory = Memory::new(64, HashMap::new());
        for number in 0..3 {
            see(&mut memory, number, 1, true);
        }
        see(&mut memory, 1, 2, true);
        for number in 3..64 {
            see(&mut memory, number, 3, true);
        }
        memory.apply(&Change::Approve(key(0)));
        assert_eq!((memory.len(), memory.evicted()), (64, 0));
        for number in 64..255 {
            see(&mut memory, number, 4, true);
        }
        assert_eq!((memory.len(), memory.evicted()), (64, 191));
        let there = |number| memory.get(&key(number)).is_some();
        // Approved; seen on two days; the first of the rest; the last.
        assert_eq!([there(0), there(1), there(2), there(254)], [true, true, false, true]);
        assert_eq!(Memory::new(10, memory.rows.clone()).len(), 10);
    }

    proptest! {
        /// Whatever is executed, however the wall clock jumps and whenever the daemon is started anew: before the clock
        /// that nobody can set has gone on for the least that so many days take, nothing is known.
        #[test]
        fn no_sequence_within_fewer_days_makes_a_tuple_known(
            steps in prop::collection::vec((0u8..4, any::<u32>(), 0u64..4000, any::<bool>()), 1..400),
            needed in 2u64..6,
        ) {
            let settings = Settings { known_after_days: needed, ..SETTINGS };
            let mut memory = Memory::new(3, HashMap::new());
            let mut now = Now { wall_s: 1_000_000_000, boot_s: 500 };
            let mut days = Days::first(now);
            for (number, wall, passed, restart) in steps {
                now = Now { wall_s: wall.into(), boot_s: now.boot_s + passed };
                if restart {
                    days = Days::resume(days.kept(now), crate::baseline::days::SameBoot(true), now);
                }
                days.advance(now);
                let before = memory.past(&key(number), days.number(), &settings).knowledge;
                if now.boot_s - 500 < (needed - 1) * SHORTEST_S {
                    prop_assert_ne!(before, Knowledge::Known);
                }
                memory.see(key(number), now.wall_s, days.number(), days.learning(&settings), before);
            }
        }
    }
}
