//! `[baseline]`: what is normal here.

use super::set;
use crate::baseline::decision::{Mode, Settings, WhenKnown};
use crate::document::Section;

const MODES: [(&str, Mode); 3] = [("off", Mode::Off), ("learn", Mode::Learn), ("enforce", Mode::Enforce)];
const WHEN_KNOWN: [(&str, WhenKnown); 2] = [("lower", WhenKnown::Lower), ("silence", WhenKnown::Silence)];
const S_PER_DAY: u64 = 86_400;
/// The longest learning period, and the longest time after which something is new again, in days.
const LONGEST_DAYS: u64 = 3650;

pub(super) fn read(settings: &mut Settings, section: Section<'_>) {
    let number = |key, range: std::ops::RangeInclusive<i64>| {
        section.integer(key, range).and_then(|number| u64::try_from(number.value).ok())
    };
    let days = |key| {
        let span = section.seconds(key)?;
        if span.value % S_PER_DAY != 0 || span.value > LONGEST_DAYS * S_PER_DAY {
            section.error(
                span.span,
                format!("`{key}` must be whole days such as \"14d\", at most \"{LONGEST_DAYS}d\""),
            );
            return None;
        }
        Some(span.value / S_PER_DAY)
    };
    set(&mut settings.mode, section.choice("mode", &MODES).map(|choice| choice.value));
    set(&mut settings.known, section.choice("known", &WHEN_KNOWN).map(|choice| choice.value));
    set(&mut settings.learn_days, days("learn-for"));
    // A single day could be had in a minute.
    set(&mut settings.known_after_days, number("known-after-days", 2..=365));
    set(&mut settings.new_after_days, days("new-after"));
    set(&mut settings.rows, number("rows", 1000..=1_000_000).and_then(|number| usize::try_from(number).ok()));
    if settings.learn_days < settings.known_after_days {
        section.error(
            section.span(),
            format!(
                "nothing could become known: `learn-for` is {} days and `known-after-days` {}",
                settings.learn_days, settings.known_after_days
            ),
        );
    }
    section.finish();
}
