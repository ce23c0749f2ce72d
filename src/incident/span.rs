//! The time of a story: from when to when it is drawn, which of its moments are shown, and how times are written.

use super::story::{Moment, MomentKind, Story};
use crate::calendar;
use crate::order;
use crate::rules::model::Severity;

/// The shortest time that is drawn.
const SHORTEST_NS: u64 = 1_000_000_000;

/// From when to when a story is drawn, in nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) from_ns: u64,
    pub(super) to_ns: u64,
}

impl Span {
    /// From the first to the last thing that happened, with a little room around it. What an administrator did afterwards
    /// and processes that were there long before do not stretch it.
    pub(super) fn of(story: &Story) -> Span {
        let moments = story.timeline.iter().filter(|moment| moment.kind != MomentKind::Note);
        let alerts = story.processes.iter().flat_map(|process| &process.programs);
        let alerts = alerts.filter(|program| program.alert.is_some()).map(|program| program.time_ns);
        let mut times: Vec<u64> = moments.map(|moment| moment.time_ns).chain(alerts).collect();
        if times.is_empty() {
            let incident = &story.incident;
            let told = [&incident.first, &incident.last].map(|time| calendar::parse_rfc3339(time));
            times.extend(told.into_iter().flatten().map(|(time_ns, _)| time_ns));
        }
        let first = times.iter().copied().min().unwrap_or_default();
        let last = times.iter().copied().max().unwrap_or_default();
        let room = ((last - first) / 40).max(SHORTEST_NS.saturating_sub(last - first) / 2);
        Span { from_ns: first.saturating_sub(room), to_ns: last.saturating_add(room) }
    }

    /// Milliseconds from the beginning, as the pictures count them.
    pub(super) fn milliseconds(self, time_ns: u64) -> f64 {
        (time_ns as f64 - self.from_ns as f64) / 1e6
    }

    /// How long it is, in milliseconds.
    pub(super) fn length(self) -> f64 {
        self.milliseconds(self.to_ns)
    }
}

/// The moments of a timeline that are shown.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Chosen<'s> {
    /// In the order of time.
    pub(super) moments: Vec<&'s Moment>,
    /// What is left out, by kind.
    pub(super) left_out: Vec<(MomentKind, usize)>,
}

/// At most `most` moments: alerts and responses first, then connections and files, then programs, then ends; of the same
/// kind the earliest.
pub(super) fn choose(timeline: &[Moment], most: usize) -> Chosen<'_> {
    let rank = |kind: MomentKind| match kind {
        MomentKind::Response => 0,
        MomentKind::Alert | MomentKind::Note => 1,
        MomentKind::Connection | MomentKind::File => 2,
        MomentKind::Exec => 3,
        MomentKind::End => 4,
    };
    let mut moments: Vec<(usize, &Moment)> = timeline.iter().enumerate().collect();
    order::by_key(&mut moments, |(_, moment)| (rank(moment.kind), moment.time_ns));
    let rest = moments.split_off(most.min(moments.len()));
    // Those of the same time keep their order.
    order::by_key(&mut moments, |(number, moment)| (moment.time_ns, *number));
    let moments = moments.into_iter().map(|(_, moment)| moment).collect();
    let mut left_out: Vec<(MomentKind, usize)> = Vec::new();
    for (_, moment) in rest {
        match left_out.iter_mut().find(|(kind, _)| *kind == moment.kind) {
            Some((_, count)) => *count += 1,
            None => left_out.push((moment.kind, 1)),
        }
    }
    Chosen { moments, left_out }
}

impl Chosen<'_> {
    /// A sentence about what is left out; `None` if nothing is.
    pub(super) fn sentence(&self) -> Option<String> {
        let count: usize = self.left_out.iter().map(|(_, count)| count).sum();
        let kinds: Vec<String> =
            self.left_out.iter().map(|(kind, count)| format!("{} {count}", kind.as_str())).collect();
        (count > 0).then(|| format!("{count} moments are not shown here: {}", kinds.join(", ")))
    }
}

/// The time of day in UTC, to the millisecond.
pub(super) fn clock(time_ns: u64) -> String {
    calendar::rfc3339(time_ns).get(11..23).unwrap_or_default().to_owned()
}

/// Date and time of day in UTC, to the second.
pub(super) fn date_and_clock(time_ns: u64) -> String {
    calendar::rfc3339(time_ns).get(..19).unwrap_or_default().replacen('T', " ", 1)
}

/// A time of an incident as people write it, in UTC; the text as it is if it is no time.
pub(super) fn moment(rfc3339: &str) -> String {
    match calendar::parse_rfc3339(rfc3339) {
        Some((time_ns, _)) => date_and_clock(time_ns) + " UTC",
        None => rfc3339.to_owned(),
    }
}

/// How long something took: the two largest units.
pub(super) fn duration(length_ns: u64) -> String {
    let seconds = length_ns / 1_000_000_000;
    match seconds {
        0 => format!("{} ms", length_ns / 1_000_000),
        1..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// From the first to the last alert of a story; `None` if those are no times.
pub(super) fn length(story: &Story) -> Option<String> {
    let (first, _) = calendar::parse_rfc3339(&story.incident.first)?;
    let (last, _) = calendar::parse_rfc3339(&story.incident.last)?;
    Some(duration(last.saturating_sub(first)))
}

/// Bytes as people write them.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.iter().find(|(_, unit)| count >= *unit) {
        Some((name, unit)) => format!("{:.1} {name}", count as f64 / *unit as f64),
        None if count == 1 => "1 byte".to_owned(),
        None => format!("{count} bytes"),
    }
}

/// A number and its noun.
pub(super) fn counted(count: u64, one: &str, several: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {several}") }
}

/// Severities, the highest first.
pub(super) const FROM_HIGHEST: [Severity; 5] =
    [Severity::Critical, Severity::High, Severity::Medium, Severity::Low, Severity::Info];

#[cfg(test)]
mod tests {
    use super::*;

    fn moment_of(kind: MomentKind, time_ns: u64) -> Moment {
        Moment { time_ns, kind, process: None, text: String::new(), severity: None }
    }

    #[test]
    fn what_matters_most_is_shown() {
        let mut timeline: Vec<Moment> = (0..10).map(|time| moment_of(MomentKind::Exec, time)).collect();
        timeline.push(moment_of(MomentKind::End, 10));
        timeline.push(moment_of(MomentKind::Alert, 11));
        let chosen = choose(&timeline, 5);
        let times: Vec<u64> = chosen.moments.iter().map(|moment| moment.time_ns).collect();
        assert_eq!(times, [0, 1, 2, 3, 11]);
        assert_eq!(chosen.sentence().as_deref(), Some("7 moments are not shown here: exec 6, end 1"));
        assert_eq!(choose(&timeline, 12).sentence(), None);
    }

    #[test]
    fn how_times_and_sizes_are_written() {
        assert_eq!(clock(1_773_454_267_042_900_000), "02:11:07.042");
        assert_eq!(date_and_clock(1_773_454_267_042_900_000), "2026-03-14 02:11:07");
        assert_eq!(moment("2026-03-14T03:11:07.042+01:00"), "2026-03-14 02:11:07 UTC");
        assert_eq!(moment("soon"), "soon");
        let durations = [999_999_999, 59_000_000_000, 61_000_000_000, 7_260_000_000_000, 90_000_000_000_000];
        assert_eq!(durations.map(duration), ["999 ms", "59 s", "1 min 1 s", "2 h 1 min", "1 d 1 h"]);
        assert_eq!(
            [0, 1, 1023, 1536, 3 << 30].map(bytes),
            ["0 bytes", "1 byte", "1023 bytes", "1.5 KiB", "3.0 GiB"]
        );
    }
}
