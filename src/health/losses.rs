//! Says what was lost, how much of it and when, not more than once a minute.

use std::time::{Duration, Instant};

use super::Totals;
use crate::alert::Notice;
use crate::calendar;
use crate::diagnostics::counted;
use crate::rules::model::Severity;

/// At most one notice about losses in this time.
const EVERY: Duration = Duration::from_secs(60);

/// What was lost since it was last said.
#[derive(Debug, Default)]
pub struct Losses {
    said: Totals,
    last_said: Option<Instant>,
    /// What was counted when it was looked at last, and when that was, in nanoseconds since 1970.
    seen: Totals,
    seen_ns: u64,
    /// Between which looks something unsaid was lost.
    window: Option<(u64, u64)>,
    /// How late the listener was at most for a program that has gone and was not said.
    late: Option<Duration>,
}

/// Ways to lose something: the count, and what it means for one and for several.
type Way = (fn(&Totals) -> u64, &'static str, &'static str);

const WAYS: [Way; 9] = [
    (|totals| totals.gone, "program ended before it was read", "programs ended before they were read"),
    (
        |totals| totals.lost,
        "program that a rule could match found the queue full",
        "programs that a rule could match found the queue full",
    ),
    (
        |totals| totals.overruns,
        "time exec events overflowed a listener's buffer",
        "times exec events overflowed a listener's buffer",
    ),
    (
        |totals| totals.dropped,
        "exec event was discarded by the kernel for that",
        "exec events were discarded by the kernel for that",
    ),
    (
        |totals| totals.event_overruns,
        "time forks and exits overflowed their buffer",
        "times forks and exits overflowed their buffer",
    ),
    (
        |totals| totals.events_dropped,
        "fork or exit was discarded by the kernel for that",
        "forks and exits were discarded by the kernel for that",
    ),
    (
        |totals| totals.execs_unfollowed,
        "program is not known to lineage",
        "programs are not known to lineage",
    ),
    (
        |totals| totals.unrecorded,
        "program was acted on without an alert, for which the queue was full",
        "programs were acted on without an alert, for which the queue was full",
    ),
    (
        |totals| totals.not_followed,
        "alerted program was not followed because [follow] at-once others were",
        "alerted programs were not followed because [follow] at-once others were",
    ),
];

impl Losses {
    /// Looks at the totals of the moment `now_ns`, in nanoseconds since 1970, and at how long after their exec programs were
    /// looked at that had gone. A notice if something was lost that has not been said, at most one a minute, or at the end.
    pub fn look(
        &mut self,
        totals: &Totals,
        gone_after: Option<Duration>,
        now: Instant,
        now_ns: u64,
        at_end: bool,
    ) -> Option<Notice> {
        self.late = self.late.max(gone_after);
        if WAYS.iter().any(|(count, ..)| count(totals) > count(&self.seen)) {
            let since = self.window.map_or(self.seen_ns, |(since, _)| since);
            self.window = Some((if since == 0 { now_ns } else { since }, now_ns));
        }
        self.seen = *totals;
        self.seen_ns = now_ns;
        let (since, until) = self.window?;
        if !at_end && self.last_said.is_some_and(|last| now.duration_since(last) < EVERY) {
            return None;
        }
        let mut said: Vec<String> = WAYS
            .iter()
            .map(|(count, one, many)| (count(totals).saturating_sub(count(&self.said)), one, many))
            .filter(|(lost, ..)| *lost > 0)
            .map(|(lost, one, many)| counted(lost, one, many))
            .collect();
        // The first of the ways. A CPU that stood still is told apart from a program that another one took over.
        if totals.gone > self.said.gone
            && let (Some(gone), Some(late)) = (said.first_mut(), self.late.take())
        {
            *gone += &format!(" (looked at up to {} us after the exec)", late.as_micros());
        }
        self.said = *totals;
        self.last_said = Some(now);
        self.window = None;
        let message =
            format!("not everything was seen {}: {}", calendar::window(since, until), said.join(", "));
        log::warn!("{message}");
        Some(Notice { kind: "loss", severity: Severity::Medium, time_ns: now_ns, message })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_said_once_with_their_time_and_not_too_often() {
        const S: u64 = 1_000_000_000;
        let start = Instant::now();
        let mut losses = Losses::default();
        let mut look = |gone, lost, after: u64, at_end| {
            let totals = Totals { gone, lost, ..Totals::default() };
            let now = start + Duration::from_secs(after);
            let late = (gone > 0).then(|| Duration::from_micros(100 * after));
            losses.look(&totals, late, now, after * S, at_end).map(|notice| notice.message)
        };
        assert_eq!(look(0, 0, 10, false), None);
        assert_eq!(
            look(2, 1, 11, false).unwrap(),
            "not everything was seen between 1970-01-01T00:00:10.000000Z and 1970-01-01T00:00:11.000000Z: 2 programs ended \
             before they were read (looked at up to 1100 us after the exec), 1 program that a rule could match found the queue full"
        );
        assert_eq!(look(2, 1, 12, true), None);
        // Within the minute it is kept back, with its time.
        assert_eq!(look(3, 1, 20, false), None);
        assert_eq!(look(4, 1, 30, false), None);
        assert_eq!(look(4, 1, 70, false), None);
        let said = look(4, 1, 71, false).unwrap();
        assert!(
            said.contains("between 1970-01-01T00:00:12.000000Z and 1970-01-01T00:00:30.000000Z: 2 programs ended before they were read (looked at up to 7100 us after the exec)"),
            "{said}"
        );
        assert!(!said.contains("a rule"), "{said}");
        assert!(look(5, 1, 72, true).unwrap().contains("1 program ended"));
        // The first look has no moment before it.
        let totals = Totals { gone: 1, ..Totals::default() };
        let said = Losses::default().look(&totals, None, start, 5 * S, false).unwrap().message;
        assert_eq!(
            said,
            "not everything was seen at 1970-01-01T00:00:05.000000Z: 1 program ended before it was read"
        );
    }
}
