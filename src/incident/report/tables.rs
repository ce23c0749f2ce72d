//! The parts of the report that are lists: commands, processes, tools, remotes, files, rules and records.

use super::page::Page;
use super::{ARGUMENT, COMMAND, PROGRAMS, RECORD, RECORD_BYTES, RECORDS, ROWS, SENTENCE, Shown, picture};
use crate::incident::shown::command;
use crate::incident::span::{bytes, clock, date_and_clock, moment};
use crate::incident::story::{AlertPart, Process, Program, Remote, Story};
use crate::incident::tree::Tree;

/// Most paths, techniques or processes in a cell.
const FEW: usize = 10;
/// Most rules, and most lines of each.
const RULES: usize = 100;
const RULE_LINES: usize = 200;

/// Says how many of something are missing, if any are.
pub(super) fn left_out(page: &mut Page, count: usize, what: &'static str) {
    if count > 0 {
        page.raw("<p class=\"missing\">").number(count).raw(" ").raw(what).raw(".</p>");
    }
}

/// A table's beginning; the last column takes the room that is left.
fn head(page: &mut Page, columns: &[&'static str]) {
    page.raw("<div class=\"scroll\"><table><thead><tr>");
    for column in columns {
        page.raw("<th scope=\"col\">").raw(column).raw("</th>");
    }
    page.raw("</tr></thead><tbody>");
}

fn foot(page: &mut Page, rows: usize) {
    page.raw("</tbody></table></div>");
    left_out(page, rows.saturating_sub(ROWS), "more rows are not shown here");
}

pub(super) fn commands(page: &mut Page, story: &Story) {
    page.raw("<section id=\"commands\"><h2>What can be done now</h2>");
    if story.commands.is_empty() {
        page.raw("<p class=\"nothing\">Nothing runs any more that a command could stop.</p>");
    } else {
        page.raw("<ol class=\"commands\">");
        for command in story.commands.iter().take(ROWS) {
            page.raw("<li>")
                .code_of_bytes(&command.line, SENTENCE)
                .raw("<p>")
                .text(&command.effect, SENTENCE)
                .raw("</p></li>");
        }
        page.raw("</ol>");
        left_out(page, story.commands.len().saturating_sub(ROWS), "more commands are not shown here");
    }
    page.raw("</section>");
}

/// The same as the picture, in words.
pub(super) fn processes(page: &mut Page, tree: &Tree<'_>) {
    page.raw("<details id=\"table\"><summary>The processes as a table</summary>");
    head(page, &["Process", "User", "Start (UTC)", "End", "Programs"]);
    // Each has one program at least; what is left of the limit goes to those that come first.
    let mut spare = PROGRAMS.saturating_sub(tree.rows.len());
    for row in &tree.rows {
        process(
            page,
            row.process,
            row.parent.and_then(|parent| tree.rows.get(parent)).map(|row| row.process),
            &mut spare,
        );
    }
    page.raw("</tbody></table></div></details>");
}

fn process(page: &mut Page, process: &Process, parent: Option<&Process>, spare: &mut usize) {
    page.raw("<tr id=\"p").number(process.key).raw("\"><td><b>").number(process.pid).raw("</b>");
    if let Some(parent) = parent {
        page.raw("<br><small>under <a href=\"#p")
            .number(parent.key)
            .raw("\">")
            .number(parent.pid)
            .raw("</a></small>");
    }
    if process.entry {
        page.raw("<br><span class=\"tag\">entry</span>");
    }
    page.raw("</td><td>");
    match &process.user {
        Some(user) => page.code(user, ARGUMENT),
        None => page.raw("unknown"),
    };
    page.raw("</td><td>");
    match process.start_ns {
        Some(start_ns) => page.raw("<time>").plain_text(&date_and_clock(start_ns), ARGUMENT).raw("</time>"),
        None => page.raw("not seen"),
    };
    page.raw("</td><td>");
    match process.end_ns {
        _ if process.running => page.raw("<span class=\"tag\">running</span>"),
        Some(end_ns) => page.raw("<time>").plain_text(&clock(end_ns), ARGUMENT).raw("</time>"),
        None => page.raw("not seen"),
    };
    if let Some(outcome) = &process.outcome {
        page.raw("<br><small>").text(outcome, ARGUMENT).raw("</small>");
    }
    page.raw("</td><td class=\"rest\"><ul class=\"programs\">");
    let count = process.programs.len();
    let taken = count.min(1 + *spare);
    *spare -= taken.saturating_sub(1);
    for program in process.programs.iter().take(taken) {
        self::program(page, program);
    }
    if count == 0 {
        page.raw("<li class=\"nothing\">forked, executed nothing</li>");
    }
    page.raw("</ul>");
    left_out(page, count - taken, "more programs are not shown here");
    page.raw("</td></tr>");
}

fn program(page: &mut Page, program: &Program) {
    page.raw("<li><time>")
        .plain_text(&clock(program.time_ns), ARGUMENT)
        .raw("</time> ")
        .code(&command(program), COMMAND);
    if let Some(exe) = program.exe.as_ref().filter(|exe| program.args.first() != Some(exe)) {
        page.raw(" <small class=\"exe\">").code(exe, ARGUMENT).raw("</small>");
    }
    if let Some(alert) = &program.alert {
        alerted(page, alert);
    }
    page.raw("</li>");
}

fn alerted(page: &mut Page, alert: &AlertPart) {
    page.raw("<div class=\"alert\">");
    picture::badge(page, alert.severity);
    page.raw(" <span class=\"t\">").text(&alert.title, ARGUMENT).raw("</span> <code class=\"rule\">");
    page.text(&alert.rule, ARGUMENT).raw("</code>");
    if let Some(utility) = &alert.utility {
        page.raw(" <span class=\"tag\">").text(utility, ARGUMENT).raw("</span>");
    }
    if let Some(response) = &alert.response {
        page.raw(" <span class=\"tag strong\">").text(response, ARGUMENT).raw("</span>");
    }
    page.raw(" <small>alert ").code(&alert.id, ARGUMENT).raw("</small></div>");
}

pub(super) fn tools(page: &mut Page, story: &Story) {
    page.raw("<section id=\"tools\"><h2>Tools</h2>");
    if story.tools.is_empty() {
        page.raw("<p class=\"nothing\">No utility of the catalogue was used.</p></section>");
        return;
    }
    head(page, &["Tool", "Category", "Times", "ATT&amp;CK", "Executables"]);
    for tool in story.tools.iter().take(ROWS) {
        page.raw("<tr><td><b class=\"t\">").text(&tool.name, ARGUMENT).raw("</b>");
        if tool.disguised {
            page.raw("<br><span class=\"tag strong\">disguised</span>");
        }
        page.raw("</td><td>")
            .text(&tool.category, ARGUMENT)
            .raw("</td><td>")
            .number(tool.count)
            .raw("</td><td>");
        for technique in tool.attack.iter().take(FEW) {
            self::technique(page, technique);
        }
        page.raw("</td><td class=\"rest\">");
        paths(page, &tool.paths);
        page.raw("</td></tr>");
    }
    foot(page, story.tools.len());
    page.raw("</section>");
}

fn paths(page: &mut Page, paths: &[String]) {
    for (number, path) in paths.iter().take(FEW).enumerate() {
        page.raw(if number > 0 { "<br>" } else { "" }).code(path, ARGUMENT);
    }
    left_out(page, paths.len().saturating_sub(FEW), "more are not shown here");
}

/// A technique with a link to its page, if it is one: what else may stand in a rule is text.
fn technique(page: &mut Page, technique: &str) {
    match digits(technique) {
        Some((main, sub)) => {
            page.raw("<a rel=\"noreferrer noopener\"");
            page.raw(" href=\"https://attack.mitre.org/techniques/T").plain_text(main, ARGUMENT).raw("/");
            if let Some(sub) = sub {
                page.plain_text(sub, ARGUMENT).raw("/");
            }
            page.raw("\">").plain_text(technique, ARGUMENT).raw("</a> ");
        }
        None => {
            page.text(technique, ARGUMENT).raw(" ");
        }
    }
}

/// The digits of `T1059` or `T1059.004`.
fn digits(technique: &str) -> Option<(&str, Option<&str>)> {
    let digits = technique.strip_prefix('T')?;
    let (main, sub) = match digits.split_once('.') {
        Some((main, sub)) => (main, Some(sub)),
        None => (digits, None),
    };
    let all =
        |text: &str, length: usize| text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit());
    (all(main, 4) && sub.is_none_or(|sub| all(sub, 3))).then_some((main, sub))
}

pub(super) fn remotes(page: &mut Page, story: &Story, shown: &Shown<'_>) {
    page.raw("<section id=\"remotes\"><h2>Remotes</h2>");
    if story.remotes.is_empty() {
        page.raw("<p class=\"nothing\">No connection was seen.</p>");
    } else {
        head(page, &["Address", "Transport", "Direction", "Sent", "Received", "Processes"]);
        for remote in story.remotes.iter().take(ROWS) {
            self::remote(page, remote, shown);
        }
        foot(page, story.remotes.len());
    }
    if !story.names.is_empty() {
        page.raw("<p>Names of hosts in arguments: ");
        for (number, name) in story.names.iter().take(ROWS).enumerate() {
            page.raw(if number > 0 { ", " } else { "" }).code(name, ARGUMENT);
        }
        page.raw("</p>");
        left_out(page, story.names.len().saturating_sub(ROWS), "more names are not shown here");
    }
    page.raw("</section>");
}

fn remote(page: &mut Page, remote: &Remote, shown: &Shown<'_>) {
    page.raw("<tr><td>").code(&remote.address, ARGUMENT).raw("</td><td>").text(&remote.transport, ARGUMENT);
    page.raw(if remote.inbound {
        "</td><td>\u{2190}\u{a0}from there"
    } else {
        "</td><td>\u{2192}\u{a0}to there"
    });
    for count in [remote.bytes_out, remote.bytes_in] {
        page.raw("</td><td>");
        match count {
            Some(count) => page.plain_text(&bytes(count), ARGUMENT),
            None => page.raw("not seen"),
        };
    }
    page.raw("</td><td class=\"rest\">");
    for (number, key) in remote.processes.iter().take(FEW).enumerate() {
        page.raw(if number > 0 { ", " } else { "" });
        shown.process(page, *key);
    }
    left_out(page, remote.processes.len().saturating_sub(FEW), "more are not shown here");
    page.raw("</td></tr>");
}

pub(super) fn files(page: &mut Page, story: &Story) {
    page.raw("<section id=\"files\"><h2>Files</h2>");
    if story.files.is_empty() {
        page.raw("<p class=\"nothing\">No file was seen written, and none outside of the system\u{2019}s folders executed.</p></section>");
        return;
    }
    head(page, &["File", "Use", "Now", "SHA-256"]);
    for file in story.files.iter().take(ROWS) {
        page.raw("<tr><td class=\"rest\">").code(&file.path, COMMAND).raw("</td><td>");
        for (number, used) in file.uses.iter().take(3).enumerate() {
            page.raw(if number > 0 { ", " } else { "" }).raw(used.as_str());
        }
        page.raw("</td><td>");
        match &file.now {
            Some(now) => {
                page.plain_text(&bytes(now.size), ARGUMENT).raw(", ").code(&now.owner, ARGUMENT).raw(", ");
                page.text(&now.mode, ARGUMENT)
                    .raw("<br><small>changed ")
                    .plain_text(&moment(&now.modified), ARGUMENT);
                page.raw("</small></td><td>");
                match &now.sha256 {
                    Some(sum) => page.raw("<span class=\"sum\">").code(sum, ARGUMENT).raw("</span>"),
                    None => page.raw("too large"),
                };
            }
            None => {
                page.raw("not there</td><td>");
            }
        }
        page.raw("</td></tr>");
    }
    foot(page, story.files.len());
    page.raw("</section>");
}

pub(super) fn rules(page: &mut Page, story: &Story) {
    page.raw("<section id=\"rules\"><h2>Rules that matched</h2>");
    if story.rules.is_empty() {
        page.raw("<p class=\"nothing\">The rules that matched are gone.</p>");
    }
    for rule in story.rules.iter().take(RULES) {
        page.raw("<details><summary>").code(&rule.id, ARGUMENT).raw("</summary>");
        let lines: String = rule.text.split_inclusive('\n').take(RULE_LINES).collect();
        if lines.is_empty() {
            page.raw("<p class=\"nothing\">This rule is gone.</p>");
        } else {
            page.lines(lines.trim_end(), COMMAND);
        }
        left_out(page, rule.text.lines().count().saturating_sub(RULE_LINES), "more lines are not shown here");
        page.raw("</details>");
    }
    left_out(page, story.rules.len().saturating_sub(RULES), "more rules are not shown here");
    page.raw("</section>");
}

pub(super) fn records(page: &mut Page, records: &[String]) {
    page.raw("<section id=\"records\"><h2>Raw records</h2>");
    let mut room = RECORD_BYTES;
    let fits = |record: &&String| {
        let size = record.len().min(RECORD);
        let fits = size <= room;
        room = room.saturating_sub(size);
        fits
    };
    let taken: Vec<&String> = records.iter().take(RECORDS).take_while(fits).collect();
    if records.is_empty() {
        page.raw("<p class=\"nothing\">No record is kept any more.</p>");
    } else {
        page.raw("<details><summary>").number(taken.len()).raw(" records, as they were written</summary>");
        for record in &taken {
            page.lines(record.trim_end(), RECORD);
        }
        page.raw("</details>");
    }
    left_out(
        page,
        records.len() - taken.len(),
        "more records are not shown here; `execwatch incidents export` has them",
    );
    page.raw("</section>");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_techniques_become_links() {
        assert_eq!(digits("T1059"), Some(("1059", None)));
        assert_eq!(digits("T1059.004"), Some(("1059", Some("004"))));
        for other in [
            "",
            "T",
            "T105",
            "T10590",
            "T1059.",
            "T1059.04",
            "T1059.004.1",
            "T1059/..",
            "TA0001",
            "\u{661}T1059",
        ] {
            assert_eq!(digits(other), None, "{other}");
        }
    }
}
