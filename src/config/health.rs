//! `[health]`: how the daemon watches itself; `[metrics]`: what it tells Prometheus.

use std::time::Duration;

use super::{absolute_path, moment, set};
use crate::document::Section;
use crate::health::settings::{Metrics, Settings};

/// More often would be a load, and a canary has a second to be seen.
const SHORTEST: Duration = Duration::from_secs(1);
/// More seldom would be of no use.
const LONGEST: Duration = Duration::from_secs(86_400);

pub(super) fn read(settings: &mut Settings, section: Section<'_>) {
    set(&mut settings.canary, period(&section, "canary"));
    set(&mut settings.heartbeat, period(&section, "heartbeat"));
    section.finish();
}

pub(super) fn read_metrics(metrics: &mut Metrics, section: Section<'_>) {
    if let Some(path) = absolute_path(&section, "textfile") {
        if path.extension().is_some_and(|extension| extension == "prom") {
            metrics.textfile = Some(path);
        } else if let Some(text) = section.string("textfile") {
            section.error(text.span, "`textfile` must end in .prom: node_exporter reads no other files");
        }
    }
    if let Some(text) = section.string("every") {
        match moment(text.value).filter(|every| (SHORTEST..=LONGEST).contains(every)) {
            Some(every) => metrics.every = every,
            None => section.error(text.span, "`every` must be a time span from \"1s\" to \"24h\""),
        }
    }
    set(&mut metrics.http, section.flag("http").map(|flag| flag.value));
    section.finish();
}

/// A time span, or `Some(None)` for "off".
fn period<'d>(section: &Section<'d>, key: &'d str) -> Option<Option<Duration>> {
    let text = section.string(key)?;
    if text.value == "off" {
        return Some(None);
    }
    let period = moment(text.value).filter(|period| (SHORTEST..=LONGEST).contains(period));
    if period.is_none() {
        section.error(text.span, format!("`{key}` must be \"off\" or a time span from \"1s\" to \"24h\""));
    }
    period.map(Some)
}
