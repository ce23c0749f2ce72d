//! `[response]`: what is done about programs.

use super::set;
use crate::document::Section;
use crate::response::guard::Rails;
use crate::response::{Fate, MODES, Settings};
use std::time::Duration;

const FATES: [(&str, Fate); 2] = [("kill", Fate::Kill), ("release", Fate::Release)];
const AT_STOP: [(&str, bool); 2] = [("release", false), ("keep", true)];
/// The longest time for which a program is held.
const LONGEST_HOLD_S: u64 = 7 * 86_400;
/// A longer line is no line.
const LONGEST_MESSAGE: usize = 500;

pub(super) fn read(settings: &mut Settings, section: Section<'_>) {
    set(&mut settings.mode, section.choice("mode", &MODES).map(|choice| choice.value));
    let per_minute = section.integer("per-minute", 1..=1_000_000);
    set(&mut settings.per_minute, per_minute.and_then(|number| u32::try_from(number.value).ok()));
    if let Some(protected) = section.list("protected") {
        let globs: Vec<String> = protected.iter().map(|glob| glob.value.to_owned()).collect();
        if let Some(relative) = protected.iter().find(|glob| !glob.value.starts_with('/')) {
            section
                .error(relative.span.clone(), "`protected` holds absolute paths, in which * ? ** may stand");
        } else if let Err((at, message)) = Rails::patterns(&globs) {
            let span = protected.get(at).map_or_else(|| section.span(), |glob| glob.span.clone());
            section.error(span, message);
        } else {
            settings.protected = globs;
        }
    }
    if let Some(time) = section.seconds("hold-for") {
        if (1..=LONGEST_HOLD_S).contains(&time.value) {
            settings.hold_for = Duration::from_secs(time.value);
        } else {
            section.error(time.span, "`hold-for` lies between \"1s\" and \"7d\"");
        }
    }
    set(&mut settings.after_hold, section.choice("after-hold", &FATES).map(|choice| choice.value));
    set(&mut settings.keep_held, section.choice("at-stop", &AT_STOP).map(|choice| choice.value));
    if let Some(message) = section.string("terminal-message") {
        if message.value.len() > LONGEST_MESSAGE || message.value.chars().any(char::is_control) {
            section.error(
                message.span,
                format!("`terminal-message` is one line of at most {LONGEST_MESSAGE} bytes without control characters"),
            );
        } else {
            settings.terminal_message = message.value.to_owned();
        }
    }
    section.finish();
}
