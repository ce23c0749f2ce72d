//! Days and moments as people write them.

/// A day of the calendar, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Date {
    /// Year of our era.
    pub year: u16,
    /// Month, 1 to 12.
    pub month: u8,
    /// Day of the month, from 1.
    pub day: u8,
}

/// A moment on the host's clock, in its time zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LocalTime {
    /// Hour of the day, 0 to 23.
    pub hour: u8,
    /// Day of the week, 0 for Sunday.
    pub weekday: u8,
}

impl Date {
    /// The day of a moment in seconds since 1970 (proleptic Gregorian calendar; Howard Hinnant's civil_from_days).
    pub fn of_unix_time(seconds: u64) -> Date {
        let shifted = seconds / 86_400 + 719_468;
        let era = shifted / 146_097;
        let day_of_era = shifted % 146_097;
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        let year = year_of_era + era * 400 + u64::from(month <= 2);
        // Nanoseconds in 64 bits end in the year 2554.
        Date { year: year as u16, month: month as u8, day: day as u8 }
    }
}

impl std::fmt::Display for Date {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

impl LocalTime {
    /// The first three letters of the day's name.
    pub fn weekday_name(self) -> &'static str {
        ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
            .get(usize::from(self.weekday))
            .copied()
            .unwrap_or_default()
    }
}

/// A time in nanoseconds since 1970 as RFC 3339 in UTC, with microseconds.
pub fn rfc3339(time_ns: u64) -> String {
    let seconds = time_ns / 1_000_000_000;
    let date = Date::of_unix_time(seconds);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let microseconds = time_ns / 1000 % 1_000_000;
    format!("{date}T{hour:02}:{minute:02}:{second:02}.{microseconds:06}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_times() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(rfc3339(951_827_696_123_456_789), "2000-02-29T12:34:56.123456Z");
        assert_eq!(rfc3339(1_795_527_932_000_000_000), "2026-11-24T13:45:32.000000Z");
        assert_eq!(rfc3339(4_107_542_399_999_999_999), "2100-02-28T23:59:59.999999Z");
        assert_eq!(Date::of_unix_time(4_107_542_400).to_string(), "2100-03-01");
    }
}
