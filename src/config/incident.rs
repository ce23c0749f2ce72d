//! `[incident]`: what alerts together become, and `[incident.notify]`: who is told.

use std::time::Duration;

use super::{NS_PER_S, moment, set};
use crate::document::Section;
use crate::incident::{Notify, Settings};

/// The longest window, and the longest time that a command may take.
const LONGEST_WINDOW_S: u64 = 86_400;
const LONGEST_COMMAND: Duration = Duration::from_secs(300);

pub(super) fn read(settings: &mut Settings, section: Section<'_>) {
    set(&mut settings.enabled, section.flag("enabled").map(|flag| flag.value));
    if let Some(window) = section.seconds("window") {
        if (1..=LONGEST_WINDOW_S).contains(&window.value) {
            settings.window_ns = window.value * NS_PER_S;
        } else {
            section.error(window.span, "`window` must be from \"1s\" to \"24h\"");
        }
    }
    let score = section.integer("score", 1..=100);
    set(&mut settings.score, score.and_then(|score| u8::try_from(score.value).ok()));
    set(&mut settings.keep_s, section.seconds("keep").map(|time| time.value));
    let size = section.integer("max-size", 1 << 20..=1 << 40);
    set(&mut settings.max_size, size.and_then(|size| u64::try_from(size.value).ok()));
    if let Some(section) = section.section("notify", "[incident.notify]") {
        settings.notify = notify(section);
    }
    section.finish();
}

fn notify(section: Section<'_>) -> Option<Notify> {
    let mut time_limit = Duration::from_secs(10);
    if let Some(text) = section.string("time-limit") {
        match moment(text.value) {
            Some(limit) if limit <= LONGEST_COMMAND => time_limit = limit,
            _ => section.error(text.span, "`time-limit` must be a time such as \"10s\", at most \"5m\""),
        }
    }
    let words = section.required_strings("command");
    let command = words.and_then(|words| {
        match words.first() {
            Some(program) if program.value.starts_with('/') => {}
            Some(program) => {
                let message = "`command` begins with the absolute path of a program; no shell reads it";
                section.error(program.span.clone(), message);
                return None;
            }
            None => return None,
        }
        Some(words.iter().map(|word| word.value.to_owned()).collect())
    });
    section.finish();
    Some(Notify { command: command?, time_limit })
}
