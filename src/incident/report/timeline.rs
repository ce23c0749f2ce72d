//! The timeline: a lane for each kind of moment, drawn on the same axis as the process tree, and a table that says it in
//! words. The script narrows both to a window of time and to what was asked for.

use super::page::Page;
use super::picture::{self, AXIS, NAMES, WIDTH};
use super::{ARGUMENT, MOMENT, Shown};
use crate::calendar;
use crate::incident::span::{Chosen, Span, clock, date_and_clock};
use crate::incident::story::{Moment, MomentKind};
use crate::rules::model::Severity;

/// Height of a lane.
const LANE: f64 = 22.0;
/// The lanes from the top.
const LANES: [MomentKind; 7] = [
    MomentKind::Alert,
    MomentKind::Response,
    MomentKind::Exec,
    MomentKind::Connection,
    MomentKind::File,
    MomentKind::End,
    MomentKind::Note,
];

/// The buttons and fields; without the script they could do nothing, and are not seen.
pub(super) fn controls(page: &mut Page) {
    page.raw(
        "<div id=\"controls\" role=\"group\" aria-label=\"Window of time and filter\" hidden>\
         <span class=\"buttons\"><button type=\"button\" data-do=\"earlier\" aria-label=\"Earlier\">\u{2190}</button>\
         <button type=\"button\" data-do=\"later\" aria-label=\"Later\">\u{2192}</button>\
         <button type=\"button\" data-do=\"in\" aria-label=\"Zoom in\">+</button>\
         <button type=\"button\" data-do=\"out\" aria-label=\"Zoom out\">\u{2212}</button>\
         <button type=\"button\" data-do=\"all\">All of the time</button></span>\
         <label>Severity from <select id=\"severity\"><option value=\"-1\">any</option><option value=\"0\">info</option>\
         <option value=\"1\">low</option><option value=\"2\">medium</option><option value=\"3\">high</option>\
         <option value=\"4\">critical</option></select></label>\
         <label class=\"wide\">With the words <input id=\"words\" type=\"search\" autocomplete=\"off\" \
         spellcheck=\"false\"></label><span id=\"kinds\" class=\"chips\">",
    );
    for kind in LANES {
        let kind = kind.as_str();
        page.raw("<label><input type=\"checkbox\" name=\"kind\" value=\"")
            .raw(kind)
            .raw("\" checked> ")
            .raw(kind);
        page.raw("</label>");
    }
    page.raw("</span><span id=\"count\" role=\"status\"></span></div>");
}

/// The lanes.
pub(super) fn lanes(page: &mut Page, chosen: &Chosen<'_>, span: Span) {
    // What an administrator did days later is not on the axis.
    let seen = |moment: &&Moment| moment.time_ns >= span.from_ns && moment.time_ns <= span.to_ns;
    let has = |kind: MomentKind| {
        chosen.moments.iter().copied().filter(|moment| seen(moment)).any(|moment| moment.kind == kind)
    };
    let used: Vec<MomentKind> = LANES.into_iter().filter(|kind| has(*kind)).collect();
    let height = AXIS + LANE * used.len() as f64 + 6.0;
    picture::begin(
        page,
        "lanes",
        "Moments of the incident over time, by kind; the table says the same in words",
        height,
    );
    for (number, kind) in used.iter().enumerate() {
        let top = AXIS + LANE * number as f64;
        page.raw(if number.is_multiple_of(2) {
            "<rect class=\"band\" y=\""
        } else {
            "<rect class=\"band odd\" y=\""
        });
        page.place(top)
            .raw("\" width=\"")
            .place(WIDTH)
            .raw("\" height=\"")
            .place(LANE)
            .raw("\"/><text class=\"lane\" x=\"");
        page.place(NAMES - 14.0)
            .raw("\" y=\"")
            .place(top + 15.0)
            .raw("\">")
            .raw(kind.as_str())
            .raw("</text>");
    }
    picture::axis(page, span, height);
    picture::plot(page, height);
    for moment in &chosen.moments {
        let Some(number) = used.iter().position(|kind| *kind == moment.kind) else { continue };
        let severity = moment.severity.filter(|_| moment.kind == MomentKind::Alert);
        page.raw("<path class=\"");
        match severity {
            Some(severity) => page.raw("mark s-").raw(severity.as_str()),
            None => page.raw("dot k-").raw(moment.kind.as_str()),
        };
        page.raw("\"");
        picture::place(page, moment.time_ns, LANE * (number as f64 + 0.5), span);
        page.raw(" d=\"").raw(severity.map_or(dot(moment.kind), picture::shape)).raw("\"/>");
    }
    page.raw("</svg></svg></div>");
}

/// What stands for a moment that has no severity.
fn dot(kind: MomentKind) -> &'static str {
    match kind {
        MomentKind::Exec | MomentKind::Alert => "M-1-7H1V7H-1Z",
        MomentKind::End => "M-1-3H1V3H-1Z",
        MomentKind::Connection => "M-6-1H1V-5L7 0 1 5V1H-6Z",
        MomentKind::Response => "M-6-4-4-6 0-2 4-6 6-4 2 0 6 4 4 6 0 2-4 6-6 4-2 0Z",
        MomentKind::File => "M-4-6H2L5-3V6H-4Z",
        MomentKind::Note => "M0-5A5 5 0 1 1 0 5 5 5 0 1 1 0-5Z",
    }
}

/// The table.
pub(super) fn table(page: &mut Page, chosen: &Chosen<'_>, span: Span, shown: &Shown<'_>) {
    page.raw(
        "<div class=\"scroll\"><table id=\"moments\"><thead><tr><th scope=\"col\">Time (UTC)</th><th scope=\"col\">What</th>\
         <th scope=\"col\">Process</th><th scope=\"col\" class=\"rest\">Moment</th></tr></thead><tbody>",
    );
    let mut day = String::new();
    for moment in &chosen.moments {
        // The date is told where it changes.
        let date = date_and_clock(moment.time_ns).get(..10).unwrap_or_default().to_owned();
        let new_day = date != day;
        day = date;
        row(page, moment, span, new_day, shown);
    }
    page.raw("</tbody></table></div>");
}

fn row(page: &mut Page, moment: &Moment, span: Span, new_day: bool, shown: &Shown<'_>) {
    page.raw("<tr data-at=\"")
        .place(span.milliseconds(moment.time_ns))
        .raw("\" data-kind=\"")
        .raw(moment.kind.as_str());
    page.raw("\" data-severity=\"").raw(moment.severity.map_or("-1", rank)).raw("\"><td><time");
    page.attribute("datetime", &calendar::rfc3339(moment.time_ns), ARGUMENT).raw(">");
    if new_day {
        page.raw("<span class=\"day\">");
        page.plain_text(date_and_clock(moment.time_ns).get(..10).unwrap_or_default(), ARGUMENT)
            .raw("</span> ");
    }
    page.plain_text(&clock(moment.time_ns), ARGUMENT).raw("</time></td><td>");
    match moment.severity {
        Some(severity) => picture::badge(page, severity),
        None => {
            page.raw("<span class=\"kind\">").raw(moment.kind.as_str()).raw("</span>");
        }
    }
    page.raw("</td><td>");
    if let Some(key) = moment.process {
        shown.process(page, key);
    }
    page.raw("</td><td class=\"rest\">").code(&moment.text, MOMENT).raw("</td></tr>");
}

/// A severity as the script compares it.
fn rank(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "0",
        Severity::Low => "1",
        Severity::Medium => "2",
        Severity::High => "3",
        Severity::Critical => "4",
    }
}
