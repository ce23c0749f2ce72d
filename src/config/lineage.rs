//! `[lineage]`: bounds of the process table.

use super::{NS_PER_S, set};
use crate::document::Section;
use crate::lineage::table::Limits;

pub(super) const DEFAULT: Limits =
    Limits { processes: 32_768, bytes: 4 << 20, keep_ended_ns: 600 * NS_PER_S };

/// What is remembered longer makes room for others long before.
const LONGEST_S: u64 = 365 * 86_400;

pub(super) fn read(limits: &mut Limits, section: Section<'_>) {
    let size = |key, range: std::ops::RangeInclusive<i64>| {
        section.integer(key, range).and_then(|number| usize::try_from(number.value).ok())
    };
    set(&mut limits.processes, size("processes", 256..=1 << 22));
    set(&mut limits.bytes, size("memory", 1 << 18..=1 << 32));
    if let Some(time) = section.seconds("keep-ended") {
        if (1..=LONGEST_S).contains(&time.value) {
            limits.keep_ended_ns = time.value * NS_PER_S;
        } else {
            section.error(time.span, "`keep-ended` must be from \"1s\" to \"365d\"");
        }
    }
    section.finish();
}
