//! The process tree as a picture: processes from the top, time from the left, a bar from start to end of each, and the
//! alerts as marks whose shape tells the severity without colour.
//!
//! Everything that has a time carries it in a data attribute, in milliseconds from the left edge, so that the script can
//! place it anew for another window of time. Without the script the picture shows all of the time.

use super::page::Page;
use super::{ARGUMENT, COMMAND};
use crate::incident::shown::command;
use crate::incident::span::{Span, clock, date_and_clock};
use crate::incident::story::Process;
use crate::incident::tree::{Row, Tree, forked, severity};
use crate::rules::model::Severity;

/// Width of a picture, of the names at its left and of the part that is drawn by time.
pub(super) const WIDTH: f64 = 1160.0;
pub(super) const NAMES: f64 = 430.0;
pub(super) const PLOT: f64 = 710.0;
/// Height of the axis at the top.
pub(super) const AXIS: f64 = 30.0;
/// Height of a row.
const ROW: f64 = 24.0;
/// How far a child stands to the right of its parent, and from which depth on it does not any more.
const INDENT: f64 = 14.0;
const DEEPEST: usize = 11;
/// Width of a character of a name, in the fonts that are widest; what is wider all the same is clipped.
const COLUMN: f64 = 6.95;
/// Most programs in what is said where the mouse rests.
const TITLE: usize = 5;
/// Most programs that are drawn.
const MARKS: usize = 4_000;
/// Steps of the axis, in milliseconds; beyond them whole days.
const STEPS: [f64; 27] = [
    1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1e3, 2e3, 5e3, 10e3, 15e3, 30e3, 60e3, 120e3,
    300e3, 600e3, 900e3, 1800e3, 3600e3, 7200e3, 10_800e3, 21_600e3, 43_200e3, DAY,
];
const DAY: f64 = 86_400e3;
/// Most steps on the axis.
const MOST_STEPS: f64 = 7.0;

impl Span {
    /// Where a time is drawn; a little outside if it is before or after.
    pub(super) fn x(self, time_ns: u64) -> f64 {
        (self.milliseconds(time_ns) / self.length().max(1.0) * PLOT).clamp(-40.0, PLOT + 40.0)
    }
}

/// The shape that stands for a severity, 12 units wide, around the origin.
pub(super) fn shape(severity: Severity) -> &'static str {
    match severity {
        // A ring, a square, a lozenge, a triangle, and a star.
        Severity::Info => "M0-5A5 5 0 1 1 0 5 5 5 0 1 1 0-5ZM0-2A2 2 0 1 0 0 2 2 2 0 1 0 0-2Z",
        Severity::Low => "M-5-5H5V5H-5Z",
        Severity::Medium => "M0-7 7 0 0 7-7 0Z",
        Severity::High => "M0-7 7 6H-7Z",
        Severity::Critical => {
            "M0-8 2-3.5 6.2-5 4.5-1 8 1.8 3.6 2.9 3.5 7.2 0 4.6-3.5 7.2-3.6 2.9-8 1.8-4.5-1-6.2-5-2-3.5Z"
        }
    }
}

/// A small picture of a severity beside its word.
pub(super) fn badge(page: &mut Page, severity: Severity) {
    page.raw("<span class=\"badge s-").raw(severity.as_str()).raw("\">");
    sign(page, severity);
    page.raw(severity.as_str()).raw("</span>");
}

fn sign(page: &mut Page, severity: Severity) {
    page.raw("<svg class=\"sign\" viewBox=\"-9 -9 18 18\" aria-hidden=\"true\"><path d=\"");
    page.raw(shape(severity)).raw("\"/></svg>");
}

/// The step of the axis and its first place, in milliseconds since 1970.
fn steps(span: Span) -> (f64, f64) {
    let fits = |step: &f64| span.length() / step <= MOST_STEPS;
    let days = DAY * (span.length() / DAY / MOST_STEPS).ceil();
    let step = STEPS.into_iter().find(fits).unwrap_or(days);
    let from = span.from_ns as f64 / 1e6;
    (step, (from / step).ceil() * step)
}

/// The axis: lines and times, which the script draws anew.
pub(super) fn axis(page: &mut Page, span: Span, height: f64) {
    page.raw("<g class=\"axis\" data-height=\"").place(height).raw("\">");
    let (step, first) = steps(span);
    let mut at = first;
    while at * 1e6 <= span.to_ns as f64 {
        let time_ns = (at * 1e6) as u64;
        let x = NAMES + span.x(time_ns);
        page.raw("<path d=\"M")
            .place(x)
            .raw(" 22V")
            .place(height)
            .raw("\"/><text x=\"")
            .place(x)
            .raw("\" y=\"15\">");
        let label = if step < 1e3 {
            clock(time_ns)
        } else if step < DAY {
            clock(time_ns).get(..8).unwrap_or_default().to_owned()
        } else {
            date_and_clock(time_ns).get(..10).unwrap_or_default().to_owned()
        };
        page.plain_text(&label, ARGUMENT).raw("</text>");
        at += step;
    }
    page.raw("</g>");
}

/// The beginning of a picture, up to its title.
pub(super) fn begin(page: &mut Page, id: &'static str, title: &'static str, height: f64) {
    page.raw("<div class=\"scroll\"><svg class=\"picture\" id=\"")
        .raw(id)
        .raw("\" viewBox=\"0 0 ")
        .place(WIDTH);
    page.raw(" ").place(height).raw("\" role=\"img\" aria-label=\"").raw(title).raw("\">");
}

/// The part that is drawn by time: what is outside of it is not seen.
pub(super) fn plot(page: &mut Page, height: f64) {
    page.raw("<svg class=\"plot\" x=\"")
        .place(NAMES)
        .raw("\" y=\"")
        .place(AXIS)
        .raw("\" width=\"")
        .place(PLOT);
    page.raw("\" height=\"").place(height - AXIS).raw("\">");
}

/// The picture of a tree.
pub(super) fn draw(page: &mut Page, tree: &Tree<'_>, span: Span) {
    let height = AXIS + ROW * tree.rows.len() as f64 + 6.0;
    begin(
        page,
        "tree",
        "Processes of the incident over time; the table below says the same in words",
        height,
    );
    let parent = |row: &Row<'_>| row.parent.and_then(|parent| tree.rows.get(parent)).map(|row| row.process);
    for (number, row) in tree.rows.iter().enumerate() {
        name(page, row, parent(row), number);
    }
    axis(page, span, height);
    plot(page, height);
    let mut spare = MARKS;
    for (number, row) in tree.rows.iter().enumerate() {
        bar(page, row.process, parent(row), ROW * (number as f64 + 0.5), span, &mut spare);
    }
    page.raw("</svg></svg></div>");
}

/// Where a process's name begins.
fn indent(depth: usize) -> f64 {
    10.0 + INDENT * depth.min(DEEPEST) as f64
}

fn name(page: &mut Page, row: &Row<'_>, parent: Option<&Process>, number: usize) {
    let process = row.process;
    let top = AXIS + ROW * number as f64;
    let middle = top + ROW / 2.0;
    page.raw("<g class=\"row\"><title>").plain_text(&title(process), COMMAND).raw("</title>");
    page.raw(if number.is_multiple_of(2) {
        "<rect class=\"band\" y=\""
    } else {
        "<rect class=\"band odd\" y=\""
    });
    page.place(top).raw("\" width=\"").place(WIDTH).raw("\" height=\"").place(ROW).raw("\"/>");
    let left = indent(row.depth);
    if let Some(parent) = row.parent.filter(|_| row.depth <= DEEPEST) {
        let x = left - INDENT + 4.0;
        let from = AXIS + ROW * parent as f64 + ROW - 4.0;
        page.raw("<path class=\"rail\" d=\"M")
            .place(x)
            .raw(" ")
            .place(from)
            .raw("V")
            .place(middle)
            .raw("h8\"/>");
    }
    let width = NAMES - 14.0 - left;
    page.raw("<svg x=\"").place(left).raw("\" y=\"").place(top).raw("\" width=\"").place(width);
    page.raw("\" height=\"").place(ROW).raw("\"><text y=\"16\"><tspan class=\"pid\">").number(process.pid);
    page.raw("</tspan> ");
    let mut columns = (width / COLUMN) as usize - process.pid.to_string().len() - 1;
    if process.entry {
        page.raw("<tspan class=\"flag\">entry</tspan> ");
        columns -= 6;
    }
    match process.programs.last().filter(|_| !forked(process, parent)) {
        Some(program) => page.svg_text(&command(program), columns),
        None => page.raw("<tspan class=\"quiet\">(forked)</tspan>"),
    };
    page.raw("</text></svg></g>");
}

/// What is said of a process where the mouse rests on it.
fn title(process: &Process) -> String {
    let programs: Vec<String> = process.programs.iter().take(TITLE).map(command).collect();
    let user = process.user.as_ref().map_or(String::new(), |user| format!(" as {user}"));
    format!("{}{user}: {}", process.pid, programs.join(", then "))
}

fn bar(
    page: &mut Page,
    process: &Process,
    parent: Option<&Process>,
    middle: f64,
    span: Span,
    spare: &mut usize,
) {
    let first = process.start_ns.or(process.programs.first().map(|program| program.time_ns));
    let last = process.programs.last().map(|program| program.time_ns);
    let begin = first.unwrap_or(span.from_ns);
    // One whose end was not seen is drawn to its last program; one that runs to the right edge and beyond.
    let end = if process.running { span.to_ns } else { process.end_ns.or(last).unwrap_or(span.to_ns) };
    let left = span.x(begin);
    let width = (span.x(end) - left).max(3.0);
    page.raw("<rect class=\"bar");
    if let Some(severity) = severity(process) {
        page.raw(" s-").raw(severity.as_str());
    }
    if process.running {
        page.raw(" running");
    } else if process.end_ns.is_none() {
        page.raw(" open");
    }
    page.raw("\" data-from=\"")
        .place(span.milliseconds(begin))
        .raw("\" data-to=\"")
        .place(span.milliseconds(end));
    page.raw("\" x=\"").place(left).raw("\" y=\"").place(middle - 6.0).raw("\" width=\"").place(width);
    page.raw("\" height=\"12\" rx=\"2\"/>");
    // Alerts are drawn over the other programs, and get room before them.
    let alerts = process.programs.iter().filter_map(|program| Some((program, program.alert.as_ref()?)));
    let alerts: Vec<_> = alerts.take(*spare).collect();
    *spare -= alerts.len();
    let executed = if forked(process, parent) { &[] } else { &process.programs[..] };
    for program in executed.iter().filter(|program| program.alert.is_none()).take(*spare) {
        *spare -= 1;
        page.raw("<path class=\"tick\"");
        place(page, program.time_ns, middle, span);
        page.raw(" d=\"M0-6V6\"/>");
    }
    for (program, alert) in alerts {
        page.raw("<path class=\"mark s-").raw(alert.severity.as_str()).raw("\"");
        place(page, program.time_ns, middle, span);
        page.raw(" d=\"").raw(shape(alert.severity)).raw("\"><title>");
        let title = format!("{} {}: {}", alert.severity.as_str(), alert.rule, alert.title);
        page.plain_text(&title, ARGUMENT).raw("</title></path>");
    }
}

/// Attributes of something that is drawn at a time.
pub(super) fn place(page: &mut Page, time_ns: u64, y: f64, span: Span) {
    page.raw(" data-at=\"").place(span.milliseconds(time_ns)).raw("\" transform=\"translate(");
    page.place(span.x(time_ns)).raw(" ").place(y).raw(")\"");
}

/// What the shapes and bars mean.
pub(super) fn legend(page: &mut Page) {
    page.raw("<ul class=\"legend\">");
    for severity in crate::incident::span::FROM_HIGHEST {
        page.raw("<li>");
        badge(page, severity);
        page.raw("</li>");
    }
    page.raw(
        "<li><svg class=\"key\" viewBox=\"0 0 30 12\" aria-hidden=\"true\"><rect class=\"bar\" width=\"30\" height=\"12\" \
         rx=\"2\"/><path class=\"tick\" d=\"M12 0V12\"/></svg>from start to end; a line where a program was executed</li>\
         <li><svg class=\"key\" viewBox=\"0 0 30 12\" aria-hidden=\"true\"><rect class=\"bar running\" width=\"30\" \
         height=\"12\" rx=\"2\"/></svg>still running</li>\
         <li><svg class=\"key\" viewBox=\"0 0 30 12\" aria-hidden=\"true\"><rect class=\"bar open\" width=\"30\" \
         height=\"12\" rx=\"2\"/></svg>its end was not seen</li></ul>",
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_axis_has_few_round_steps() {
        let span = |from: u64, to: u64| Span { from_ns: from * 1_000_000, to_ns: to * 1_000_000 };
        assert_eq!(steps(span(1_500, 8_000)), (1e3, 2e3));
        assert_eq!(steps(span(0, 600_000)), (120e3, 0.0));
        assert_eq!(steps(span(1, 100 * 86_400_000)), (15.0 * DAY, 15.0 * DAY));
        for length in [1, 10, 1_000, 77_777, 9_000_000, 1 << 40] {
            let (step, _) = steps(span(0, length));
            assert!(length as f64 / step <= MOST_STEPS, "{length}");
        }
    }

    #[test]
    fn what_is_far_outside_is_drawn_at_the_edge() {
        let span = Span { from_ns: 1_000_000_000, to_ns: 2_000_000_000 };
        assert_eq!([0, 1_500_000_000, u64::MAX].map(|time| span.x(time)), [-40.0, PLOT / 2.0, PLOT + 40.0]);
    }
}
