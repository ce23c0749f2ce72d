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

    /// Days since 1970 (Howard Hinnant's days_from_civil).
    fn unix_days(self) -> i64 {
        let year = i64::from(self.year) - i64::from(self.month <= 2);
        let era = year.div_euclid(400);
        let year_of_era = year.rem_euclid(400);
        let shifted_month = (i64::from(self.month) + 9) % 12;
        let day_of_year = (153 * shifted_month + 2) / 5 + i64::from(self.day) - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        era * 146_097 + day_of_era - 719_468
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

/// A span of time for a sentence: between two moments, or at one if they are the same.
pub fn window(since_ns: u64, until_ns: u64) -> String {
    if since_ns == until_ns {
        return format!("at {}", rfc3339(until_ns));
    }
    format!("between {} and {}", rfc3339(since_ns), rfc3339(until_ns))
}

/// A time in nanoseconds since 1970 as RFC 3339 in a zone so many seconds ahead of UTC, exact to the nanosecond. The
/// format has no seconds in an offset; a zone that has some, as before 1972, is shown in UTC.
pub fn rfc3339_in_zone(time_ns: u64, offset: i32) -> String {
    let whole_minutes = i64::from(offset) * i64::from(offset % 60 == 0);
    let seconds = time_ns / 1_000_000_000;
    let shifted = seconds.checked_add_signed(whole_minutes);
    let (seconds, offset) = shifted.map_or((seconds, 0), |shifted| (shifted, whole_minutes));
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let fraction = match time_ns % 1_000_000_000 {
        0 => String::new(),
        nanoseconds => format!(".{nanoseconds:09}"),
    };
    let zone = match offset {
        0 => "Z".to_owned(),
        _ => {
            let sign = if offset < 0 { '-' } else { '+' };
            format!("{sign}{:02}:{:02}", offset.abs() / 3600, offset.abs() / 60 % 60)
        }
    };
    format!("{}T{hour:02}:{minute:02}:{second:02}{fraction}{zone}", Date::of_unix_time(seconds))
}

/// Reads RFC 3339: nanoseconds since 1970, and the seconds that its zone is ahead of UTC. `None` if it is none, or before
/// 1970.
pub fn parse_rfc3339(text: &str) -> Option<(u64, i32)> {
    let (date, rest) = text.split_at_checked(10)?;
    let rest = rest.strip_prefix(['T', 't', ' '])?;
    let (time, rest) = rest.split_at_checked(8)?;
    let date = numbers(date, '-')?;
    let [year, month, day] = date;
    let [hour, minute, second] = numbers(time, ':')?;
    let date = Date { year: u16::try_from(year).ok()?, month: month as u8, day: day as u8 };
    let days = date.unix_days();
    let real = Date::of_unix_time(u64::try_from(days).ok()?.checked_mul(86_400)?) == date;
    if !real || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (nanoseconds, zone) = match rest.strip_prefix('.') {
        Some(rest) => {
            let digits =
                rest.find(|character: char| !character.is_ascii_digit()).filter(|&digits| digits > 0)?;
            let kept: String = rest[..digits].chars().chain("00000000".chars()).take(9).collect();
            (kept.parse::<u64>().ok()?, &rest[digits..])
        }
        None => (0, rest),
    };
    let offset = match zone {
        "Z" | "z" => 0,
        _ => {
            let sign = match zone.get(..1)? {
                "+" => 1,
                "-" => -1,
                _ => return None,
            };
            let [hours, minutes] = numbers(&zone[1..], ':')?;
            (hours < 24 && minutes < 60).then(|| sign * (hours as i32 * 3600 + minutes as i32 * 60))?
        }
    };
    let local = days * 86_400 + i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second);
    let seconds = u64::try_from(local - i64::from(offset)).ok()?;
    Some((seconds.checked_mul(1_000_000_000)?.checked_add(nanoseconds)?, offset))
}

/// Numbers of digits only, with a mark between: the first of up to four, the others of two.
fn numbers<const COUNT: usize>(text: &str, mark: char) -> Option<[u32; COUNT]> {
    let mut parts = text.split(mark);
    let mut numbers = [0; COUNT];
    for number in &mut numbers {
        let part = parts.next().filter(|part| part.bytes().all(|byte| byte.is_ascii_digit()))?;
        *number = part.parse().ok().filter(|_| part.len() == 2 || part.len() == 4)?;
    }
    parts.next().is_none().then_some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn moments_are_read() {
        let read = |text: &str| parse_rfc3339(text);
        assert_eq!(read("1970-01-01T00:00:00Z"), Some((0, 0)));
        assert_eq!(read("2026-11-24T14:45:32.5+01:00"), Some((1_795_527_932_500_000_000, 3600)));
        assert_eq!(read("2026-11-24 08:15:32.000000001-05:30"), Some((1_795_527_932_000_000_001, -19_800)));
        for wrong in [
            "",
            "2026-11-24",
            "2026-11-24T14:45:32",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "1969-12-31T23:59:59Z",
            "2026-11-24T24:00:00Z",
            "2026-11-24T14:45:32.Z",
            "2026-11-24T14:45:32+1:00",
            "2026-11-24T14:45:32+01:00x",
            "9999-11-24T14:45:32Z",
            "2026-11-24T14:45:+2Z",
            "\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}T14:45:32Z",
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn moments_come_back(ns in any::<u64>(), minutes in -1439i32..1440) {
            let (back, offset) = parse_rfc3339(&rfc3339_in_zone(ns, minutes * 60)).unwrap();
            prop_assert_eq!(back, ns);
            prop_assert!(offset == minutes * 60 || offset == 0);
        }

        #[test]
        fn any_text_ends_without_panic(text in any::<String>(), more in "[0-9T:Z+.-]{0,40}") {
            let _ = (parse_rfc3339(&text), parse_rfc3339(&more));
        }
    }

    #[test]
    fn known_times() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(rfc3339(951_827_696_123_456_789), "2000-02-29T12:34:56.123456Z");
        assert_eq!(rfc3339(1_795_527_932_000_000_000), "2026-11-24T13:45:32.000000Z");
        assert_eq!(rfc3339(4_107_542_399_999_999_999), "2100-02-28T23:59:59.999999Z");
        assert_eq!(Date::of_unix_time(4_107_542_400).to_string(), "2100-03-01");
    }
}
