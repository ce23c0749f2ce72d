//! `[follow]`: what is looked at after an alert.

use std::time::Duration;

use super::{moment, set};
use crate::document::Section;
use crate::followup::Settings;
use crate::rules::model::SEVERITIES;

pub(super) fn read(follow: &mut Settings, section: Section<'_>) {
    /// Records that one alert may have while its program goes on as before.
    const MOST_MOMENTS: usize = 16;
    /// A process that was let run for a day has been seen by somebody.
    const LAST_MOMENT: Duration = Duration::from_secs(86_400);
    set(&mut follow.enabled, section.flag("enabled").map(|flag| flag.value));
    let at_once = section.integer("at-once", 1..=4096);
    set(&mut follow.at_once, at_once.and_then(|number| usize::try_from(number.value).ok()));
    set(&mut follow.severity, section.choice("severity", &SEVERITIES).map(|choice| choice.value));
    let remedy = "leave it out for the default, or set enabled = false to follow nothing";
    let after = section.filled("after", remedy).unwrap_or_default();
    let mut moments = Vec::new();
    for text in &after {
        match moment(text.value) {
            Some(moment) if moment > LAST_MOMENT => {
                section.error(text.span.clone(), "the moments of `after` lie within a day (\"24h\")");
            }
            Some(moment) if moments.last().is_some_and(|&last| moment <= last) => {
                section.error(text.span.clone(), "the moments of `after` must ascend");
            }
            Some(moment) => moments.push(moment),
            None => {
                let message = "`after` holds times such as \"100ms\", \"10s\", \"5m\" or \"1h\"";
                section.error(text.span.clone(), message);
            }
        }
    }
    if let Some(beyond) = after.get(MOST_MOMENTS) {
        section.error(beyond.span.clone(), format!("`after` holds at most {MOST_MOMENTS} moments"));
        moments.truncate(MOST_MOMENTS);
    }
    if !moments.is_empty() {
        follow.after = moments;
    }
    section.finish();
}
