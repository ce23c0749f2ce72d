//! `[lineage]`: bounds of the process table.

use super::{NS_PER_S, set};
use crate::document::Section;
use crate::lineage::table::Limits;

pub(super) const DEFAULT: Limits =
    Limits { processes: 32_768, bytes: 4 << 20, keep_ended_ns: 600 * NS_PER_S };

pub(super) fn read(limits: &mut Limits, section: Section<'_>) {
    let size = |key, range: std::ops::RangeInclusive<i64>| {
        section.integer(key, range).and_then(|number| usize::try_from(number.value).ok())
    };
    set(&mut limits.processes, size("processes", 256..=1 << 22));
    set(&mut limits.bytes, size("memory", 1 << 18..=1 << 32));
    set(
        &mut limits.keep_ended_ns,
        section.seconds("keep-ended").and_then(|seconds| seconds.value.checked_mul(NS_PER_S)),
    );
    section.finish();
}
