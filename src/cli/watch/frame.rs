//! Draws what the view knows: lines in, lines out, for a terminal of a certain size.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::view::{Alert, View};
use crate::diagnostics::counted;
use crate::incident::shown::shown;
use crate::rules::model::{SEVERITIES, Severity};

/// Bytes looked at of a text; no terminal is so wide.
const LONGEST: usize = 2000;
/// Lines of open incidents, and of the selected alert.
const INCIDENTS: usize = 5;
const DETAILS: usize = 12;
/// A line that says what keys do.
const KEYS: &str = "arrows: select   a: acknowledge incident   r: release   k: kill   q: quit";

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Bold,
    Dim,
    Selected,
    Severity(Severity),
}

impl Style {
    /// The parameters of the sequence that switches it on.
    pub(super) fn code(self) -> &'static str {
        match self {
            Style::Plain => "0",
            Style::Bold => "0;1",
            Style::Dim | Style::Severity(Severity::Info) => "0;2",
            Style::Selected => "0;7",
            Style::Severity(Severity::Low) => "0;36",
            Style::Severity(Severity::Medium) => "0;33",
            Style::Severity(Severity::High) => "0;31;1",
            Style::Severity(Severity::Critical) => "0;97;41;1",
        }
    }
}

/// A line, of no more columns than there are, without anything unprintable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) text: String,
    pub(super) style: Style,
}

/// The lines of a terminal of this many columns and lines.
pub(super) fn frame(view: &View, width: usize, height: usize) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut line = |style, text: String| lines.push(Line { text: fit(&text, width), style });
    line(Style::Bold, head(view));
    let blind = view.state["blind"].as_u64().unwrap_or(0);
    if blind > 0 {
        line(
            Style::Severity(Severity::Critical),
            format!(
                "BLIND: {} nothing; see execwatch status",
                counted(blind, "listener sees", "listeners see")
            ),
        );
    }
    incidents(view, &mut line, height);
    line(Style::Bold, format!("ALERTS ({} since this view was opened)", view.came));
    let used = lines.len();
    let details = details(view.selection(), DETAILS.min(height / 3));
    // The last line is for messages.
    let room = height.saturating_sub(used + details.len() + 1);
    let from = view.selected.saturating_sub(room.saturating_sub(1));
    for (place, alert) in view.alerts.iter().enumerate().skip(from).take(room) {
        let chosen = place == view.selected;
        let style = if chosen { Style::Selected } else { Style::Severity(alert.severity) };
        lines.push(Line { text: fit(&row(alert, chosen), width), style });
    }
    if view.alerts.is_empty() && room > 0 {
        lines.push(Line { text: fit("  none yet", width), style: Style::Dim });
    }
    let bottom = height.saturating_sub(details.len() + 1);
    while lines.len() < bottom {
        lines.push(Line { text: String::new(), style: Style::Plain });
    }
    lines.extend(details.into_iter().map(|line| Line { text: fit(&line.text, width), ..line }));
    lines.truncate(height.saturating_sub(1));
    let (text, style) =
        if view.message.is_empty() { (KEYS, Style::Dim) } else { (view.message.as_str(), Style::Bold) };
    lines.push(Line { text: fit(&shown(text, LONGEST), width), style });
    lines
}

fn head(view: &View) -> String {
    let (execs, alerts) = match view.rates {
        Some((execs, alerts)) => (format!("{execs:.0}"), format!("{alerts:.1}")),
        None => ("-".to_owned(), "-".to_owned()),
    };
    let state = &view.state;
    let lost = state["lost"].as_u64().unwrap_or(0);
    let mut text = format!("execwatch  {execs} execs/s  {alerts} alerts/s  {lost} lost");
    if view.missed > 0 {
        text += &format!("  {} missed here", view.missed);
    }
    let responses = &state["responses"];
    if let Some(mode) = responses["mode"].as_str() {
        let armed = if responses["armed"] == false { ", disarmed" } else { "" };
        let held = responses["held"].as_u64().unwrap_or(0);
        text += &format!("  responses {mode}{armed}, {held} held");
    }
    text
}

fn incidents(view: &View, line: &mut impl FnMut(Style, String), height: usize) {
    let Some(incidents) = view.state["incidents"].as_object() else { return };
    let count = incidents["count"].as_u64().unwrap_or(0);
    line(Style::Bold, format!("INCIDENTS ({count} not closed)"));
    let open = incidents["open"].as_array().map(Vec::as_slice).unwrap_or_default();
    for incident in open.iter().take(INCIDENTS.min(height / 6)) {
        let text = |key: &str| incident[key].as_str().unwrap_or("?");
        let severity = severity(text("severity"));
        line(
            Style::Severity(severity),
            format!(
                "  {}  {:8} {:>3}  {:12}  {:>4} alerts  {}",
                text("id"),
                severity.as_str(),
                incident["score"].as_u64().unwrap_or(0),
                text("state"),
                incident["alerts"].as_u64().unwrap_or(0),
                shown(text("title"), LONGEST)
            ),
        );
    }
}

fn severity(word: &str) -> Severity {
    SEVERITIES.iter().find(|(known, _)| *known == word).map_or(Severity::Info, |&(_, severity)| severity)
}

fn row(alert: &Alert, chosen: bool) -> String {
    let mark = if chosen { '>' } else { ' ' };
    let time = alert.time.get(11..19).unwrap_or("?");
    format!(
        "{mark} {time}  {:8}  {:10}  {}",
        alert.severity.as_str(),
        shown(&alert.user, LONGEST),
        shown(&alert.command, LONGEST)
    )
}

/// The selected alert and the way to it: at most so many lines.
fn details(alert: Option<&Alert>, most: usize) -> Vec<Line> {
    let Some(alert) = alert else { return Vec::new() };
    let mut lines = vec![Line { text: shown(&alert.title, LONGEST), style: Style::Bold }];
    let mut facts = Vec::new();
    facts.extend(alert.incident.as_ref().map(|id| format!("incident {id}")));
    facts.extend(alert.entry.as_ref().map(|entry| format!("by {entry}")));
    facts.extend(alert.response.as_ref().map(|(action, outcome)| format!("{action}: {outcome}")));
    if !facts.is_empty() {
        lines.push(Line { text: format!("  {}", shown(&facts.join("   "), LONGEST)), style: Style::Plain });
    }
    // The nearest ancestors tell most.
    let room = most.saturating_sub(lines.len() + 1);
    let left_out = alert.ancestors.len().saturating_sub(room);
    let (room, left_out) = if left_out > 0 { (room.saturating_sub(1), left_out + 1) } else { (room, 0) };
    if left_out > 0 {
        lines.push(Line { text: format!("  ({left_out} above)"), style: Style::Dim });
    }
    let mut depth = 1;
    for (pid, command) in alert.ancestors.iter().take(room).rev() {
        lines.push(tree(depth, *pid, command, Style::Plain));
        depth += 1;
    }
    lines.push(tree(depth, alert.pid, &alert.command, Style::Severity(alert.severity)));
    lines.truncate(most);
    lines
}

fn tree(depth: usize, pid: u64, command: &str, style: Style) -> Line {
    Line { text: format!("{:indent$}{pid} {}", "", shown(command, LONGEST), indent = 2 * depth), style }
}

/// As much of a text as the columns take.
fn fit(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut used = 0;
    let kept = text.chars().take_while(|letter| {
        used += letter.width().unwrap_or(0);
        used < width
    });
    kept.collect::<String>() + if width > 0 { "…" } else { "" }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::super::keys::Key;
    use super::super::view::tests::record;
    use super::*;
    use crate::alert::escape::is_unprintable;

    /// A frame as text: each line with the parameters of its style.
    fn drawn(view: &View, width: usize, height: usize) -> String {
        let lines = frame(view, width, height);
        assert_eq!(lines.len(), height);
        let line = |line: &Line| {
            assert!(line.text.width() <= width && !line.text.contains(is_unprintable), "{}", line.text);
            format!("{:>10}|{}\n", line.style.code(), line.text)
        };
        lines.iter().map(line).collect()
    }

    fn compare(name: &str, drawn: &str) {
        let path = format!("{}/tests/golden/watch/{name}.frame", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("EXECWATCH_TESTS_WRITE_GOLDEN").is_some() {
            std::fs::write(path, drawn).unwrap();
        } else {
            assert_eq!(std::fs::read_to_string(&path).unwrap_or_default(), drawn, "{path}");
        }
    }

    fn view() -> View {
        let mut view = View::default();
        let state = |execs, alerts| {
            json!({
                "execs": execs, "alerts": alerts, "lost": 3, "blind": 0,
                "responses": { "mode": "enforce", "armed": true, "held": 1 },
                "incidents": { "count": 2, "open": [
                    { "id": "1abcdef", "severity": "critical", "score": 93, "state": "open", "alerts": 7,
                      "title": "www-data below service nginx.service: nc, curl" },
                    { "id": "1abcdeg", "severity": "high", "score": 45, "state": "acknowledged", "alerts": 1,
                      "title": "\u{1b}[2J<script>" },
                ] },
            })
        };
        view.take_state(state(100, 10), Duration::from_secs(1));
        view.take_state(state(350, 12), Duration::from_secs(2));
        for name in ["netcat", "hostile", "long", "copy", "notice", "far-away", "response-held"] {
            view.record(&record(name));
        }
        view
    }

    #[test]
    fn frames() {
        let mut view = view();
        compare("wide", &drawn(&view, 110, 30));
        view.missed = 12;
        view.key(Key::End);
        view.key(Key::Up);
        view.key(Key::Letter('k'));
        compare("hostile", &drawn(&view, 80, 24));
        compare("narrow", &drawn(&view, 30, 10));
        view.state = json!({ "blind": 1 });
        compare("blind", &drawn(&view, 60, 12));
        compare("empty", &drawn(&View::default(), 80, 6));
    }

    #[test]
    fn no_size_is_too_small_and_the_selected_one_is_seen() {
        let mut view = view();
        for width in 0..40 {
            for height in 1..20 {
                drawn(&view, width, height);
            }
        }
        for _ in 0..5 {
            let lines = frame(&view, 100, 24);
            assert!(lines.iter().any(|line| line.style == Style::Selected && line.text.starts_with('>')));
            view.key(Key::Down);
        }
    }
}
