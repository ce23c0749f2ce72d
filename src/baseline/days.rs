//! Days as the baseline counts them: by the wall clock, but never faster than the clock that nobody can set.
//!
//! The wall clock jumps: a host without a battery starts in 1970 and is set an hour later, and whoever may set the clock
//! could let a week go by in a second. So the baseline numbers its days itself: the next begins when the wall clock shows
//! another date (UTC) and at least half a day has gone by on CLOCK_BOOTTIME, which counts suspend and cannot be set.
//! Days on which the daemon does not run are not counted.

use super::decision::Settings;

/// Least time between the beginnings of two days, in seconds of CLOCK_BOOTTIME.
pub const SHORTEST_S: u64 = 12 * 3600;
/// Seconds of a date.
const DATE_S: u64 = 86_400;

/// A moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Now {
    /// By the wall clock: seconds since 1970.
    pub wall_s: u64,
    /// CLOCK_BOOTTIME in seconds.
    pub boot_s: u64,
}

/// What is written down of the days.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kept {
    /// The number of the day; the first is 1, and 0 means that none was written down.
    pub number: u64,
    /// Its date in days since 1970.
    pub date: u64,
    /// How much of it had gone by when that was written, in seconds.
    pub elapsed_s: u64,
    /// CLOCK_BOOTTIME when that was written, in seconds.
    pub boot_s: u64,
    /// The first day of the learning period.
    pub learning_since: u64,
}

/// The count of days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Days {
    number: u64,
    date: u64,
    /// CLOCK_BOOTTIME at which this day began; below zero if that was before the host was started.
    began_s: i64,
    learning_since: u64,
}

/// What was written down belongs to this start of the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SameBoot(pub bool);

impl Days {
    /// The first day.
    pub fn first(now: Now) -> Days {
        Days { number: 1, date: now.wall_s / DATE_S, began_s: signed(now.boot_s), learning_since: 1 }
    }

    /// Goes on with what was written down. While the host was off, nothing is known to have gone by.
    pub fn resume(kept: Kept, same_boot: SameBoot, now: Now) -> Days {
        if kept.number == 0 {
            return Days::first(now);
        }
        let off_s = if same_boot.0 { now.boot_s.saturating_sub(kept.boot_s) } else { now.boot_s };
        let elapsed_s = kept.elapsed_s.min(SHORTEST_S).saturating_add(off_s);
        Days {
            number: kept.number,
            date: kept.date,
            began_s: signed(now.boot_s).saturating_sub(signed(elapsed_s)),
            learning_since: kept.learning_since.min(kept.number),
        }
    }

    /// Begins the next day if it is time; true if it does.
    pub fn advance(&mut self, now: Now) -> bool {
        let date = now.wall_s / DATE_S;
        if date == self.date || self.elapsed_s(now) < SHORTEST_S {
            return false;
        }
        (self.number, self.date, self.began_s) = (self.number + 1, date, signed(now.boot_s));
        true
    }

    /// The number of the day, from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The learning period, which is counted in these days, lasts.
    pub fn learning(&self, settings: &Settings) -> bool {
        self.learning_day() <= settings.learn_days
    }

    /// Which day of the learning period it is, or would be, from 1.
    pub fn learning_day(&self) -> u64 {
        self.number - self.learning_since + 1
    }

    /// The learning period begins anew today.
    pub fn begin_learning(&mut self) {
        self.learning_since = self.number;
    }

    /// To be written down.
    pub fn kept(&self, now: Now) -> Kept {
        Kept {
            number: self.number,
            date: self.date,
            elapsed_s: self.elapsed_s(now),
            boot_s: now.boot_s,
            learning_since: self.learning_since,
        }
    }

    fn elapsed_s(&self, now: Now) -> u64 {
        u64::try_from(signed(now.boot_s).saturating_sub(self.began_s)).unwrap_or(0)
    }
}

fn signed(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const H: u64 = 3600;

    fn at(wall_h: u64, boot_h: u64) -> Now {
        Now { wall_s: wall_h * H, boot_s: boot_h * H }
    }

    #[test]
    fn a_day_begins_with_its_date() {
        let mut days = Days::first(at(10, 0));
        assert!(!days.advance(at(23, 13)));
        assert!(days.advance(at(24, 14)));
        assert!(!days.advance(at(47, 37)));
        assert!(days.advance(at(48, 38)));
        assert_eq!(days.number(), 3);
    }

    #[test]
    fn midnight_comes_too_soon() {
        let mut days = Days::first(at(23, 0));
        assert!(!days.advance(at(24, 1)));
        assert!(days.advance(at(35, 12)));
        // The next begins at midnight again.
        assert!(!days.advance(at(47, 24)));
        assert!(days.advance(at(48, 25)));
    }

    #[test]
    fn a_clock_that_jumps_makes_no_days() {
        let mut days = Days::first(at(1000, 0));
        for jump in 1..100 {
            assert!(!days.advance(at(1000 + jump * 24, 11)));
        }
        assert!(days.advance(at(90_000, 12)));
        // Set right again, the days go on.
        assert!(!days.advance(at(1024, 13)));
        assert!(days.advance(at(1024, 24)));
        assert_eq!(days.number(), 3);
    }

    #[test]
    fn restarts_of_the_daemon_and_the_host() {
        let days = Days::first(at(10, 5));
        let kept = days.kept(at(13, 8));
        assert_eq!((kept.elapsed_s, kept.boot_s), (3 * H, 8 * H));
        let resumed = |same, now| {
            let mut days = Days::resume(kept, SameBoot(same), now);
            days.advance(now)
        };
        // Boot time went on while the daemon did not run.
        assert!(!resumed(true, at(24, 16)));
        assert!(resumed(true, at(24, 17)));
        // The host was off for a week, or its clock was set forward meanwhile: only what it ran since then counts.
        assert!(!resumed(false, at(200, 8)));
        assert!(resumed(false, at(200, 9)));
        // Written down by a clock that is ahead of this one.
        assert!(!resumed(true, at(24, 2)));
    }

    #[test]
    fn learning_lasts_its_days() {
        let settings = Settings { learn_days: 2, ..Settings::default() };
        let mut days = Days::first(at(0, 0));
        assert!(days.learning(&settings));
        days.advance(at(24, 24));
        assert!(days.learning(&settings));
        days.advance(at(48, 48));
        assert!(!days.learning(&settings));
        days.begin_learning();
        assert!(days.learning(&settings));
        assert_eq!(Days::resume(Kept::default(), SameBoot(true), at(5, 5)), Days::first(at(5, 5)));
    }
}
