//! `[fold]`: what becomes of repeated alerts.

use super::{NS_PER_S, set};
use crate::document::Section;
use crate::fold::Settings;

pub(super) fn read(fold: &mut Settings, section: Section<'_>) {
    /// A person who is told no sooner could as well read a report.
    const LONGEST_WINDOW_S: u64 = 86_400;
    set(&mut fold.enabled, section.flag("enabled").map(|flag| flag.value));
    if let Some(window) = section.seconds("window") {
        if (1..=LONGEST_WINDOW_S).contains(&window.value) {
            fold.window_ns = window.value * NS_PER_S;
        } else {
            section.error(window.span, "`window` must be from \"1s\" to \"24h\"");
        }
    }
    let at_most = section.integer("at-most", 1..=1_000_000);
    set(&mut fold.at_most, at_most.and_then(|number| u32::try_from(number.value).ok()));
    section.finish();
}
