//! `[journal]`: what is written down before it is sent.

use std::time::Duration;

use super::{absolute_path, set};
use crate::document::Section;
use crate::journal::{Settings, WhenFull};

const WHEN_FULL: [(&str, WhenFull); 3] = [
    ("drop-oldest", WhenFull::DropOldest),
    ("drop-new", WhenFull::DropNew),
    ("stop-reading", WhenFull::StopReading),
];
/// The least and the greatest age: an output may be away for an hour without harm.
const AGES: (u64, u64) = (3600, 3650 * 86_400);

pub(super) fn read(settings: &mut Settings, section: Section<'_>) {
    set(&mut settings.enabled, section.flag("enabled").map(|flag| flag.value));
    settings.folder = absolute_path(&section, "folder");
    let max_size = section.integer("max-size", 1 << 20..=1 << 40);
    set(&mut settings.max_size, max_size.and_then(|number| u64::try_from(number.value).ok()));
    if let Some(age) = section.seconds("max-age") {
        if (AGES.0..=AGES.1).contains(&age.value) {
            settings.max_age = Duration::from_secs(age.value);
        } else {
            section.error(age.span, "`max-age` must be between \"1h\" and \"3650d\"");
        }
    }
    set(&mut settings.when_full, section.choice("when-full", &WHEN_FULL).map(|choice| choice.value));
    let memory = section.integer("memory", 1 << 18..=1 << 30);
    set(&mut settings.memory, memory.and_then(|number| usize::try_from(number.value).ok()));
    section.finish();
}
