//! An incident for a person at a terminal, or in a pipe: the summary, the four questions, the process tree with its alerts,
//! and the timeline.

use super::lines::{Lines, Run, Style, own, runs, runs_of_bytes};
use super::shown::{COMMAND, VALUE, command};
use super::span::{bytes, choose, clock, counted, date_and_clock, length, moment};
use super::story::{AlertPart, Answer, File, Moment, Process, Remote, Story, Tool};
use super::tree::{Row, Tree, forked, tree};

/// Most processes in the tree.
pub const PROCESSES: usize = 500;
/// Most programs of a process.
pub const PROGRAMS: usize = 50;
/// Most moments in the timeline.
pub const MOMENTS: usize = 2_000;
/// Most rows of any other list.
pub const ROWS: usize = 200;
/// Width of the names in front of answers, and of those in lists.
const NAME: usize = 20;
const WIDE_NAME: usize = 26;
/// The timeline is aligned from this width on.
const ALIGNED: usize = 80;

/// The text, with a newline at the end. No line is wider than `width` columns, or than 40 if that is less, but for the
/// commands that can be run: those are not broken. `colour` is for terminals.
pub fn text(story: &Story, width: usize, colour: bool) -> String {
    let mut lines = Lines::new(width, colour);
    summary(&mut lines, story);
    answers(&mut lines, "Who, and is it normal?", &story.who);
    answers(&mut lines, "Can it be contained?", &story.contain);
    answers(&mut lines, "What else belongs to it?", &story.what_else);
    answers(&mut lines, "What was the way in?", &story.way_in);
    commands(&mut lines, story);
    list(&mut lines, "Tools", &story.tools, tool);
    list(&mut lines, "Remotes", &story.remotes, remote);
    list(&mut lines, "Files", &story.files, file);
    lines.heading("Processes");
    processes(&mut lines, story);
    lines.heading("Timeline (UTC)");
    timeline(&mut lines, story, MOMENTS);
    lines.into_text()
}

fn summary(lines: &mut Lines, story: &Story) {
    let incident = &story.incident;
    let mut head = vec![own("Incident ", Style::Plain)];
    head.extend(runs(&incident.id, VALUE, Style::Bold));
    head.push(own("  ", Style::Plain));
    head.push(own(incident.severity.as_str().to_uppercase(), Style::Severity(incident.severity)));
    head.push(own(format!("  score {}, {}", incident.score, incident.state.as_str()), Style::Plain));
    head.extend(incident.verdict.map(|verdict| own(format!(": {}", verdict.as_str()), Style::Plain)));
    lines.wrapped("", "", &head);
    lines.wrapped("", "", &runs(&incident.title, VALUE, Style::Bold));
    let about = [
        format!("on {}", incident.host),
        format!("{} to {}", moment(&incident.first), moment(&incident.last)),
        length(story).unwrap_or_default(),
        counted(incident.alerts, "alert", "alerts"),
        counted(incident.execs, "program", "programs"),
        incident.user.as_ref().map_or(String::new(), |user| format!("user {user}")),
        incident.place.clone().unwrap_or_default(),
    ];
    let about: Vec<&str> = about.iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
    lines.wrapped("", "", &runs(&about.join(", "), VALUE, Style::Plain));
    if let Some(note) = &incident.note {
        lines.wrapped("note: ", "      ", &runs(note, VALUE, Style::Plain));
    }
    if !story.cut.is_empty() {
        let cut: Vec<String> =
            story.cut.iter().take(ROWS).map(|cut| format!("{} {}", cut.count, cut.what)).collect();
        let sentence = format!("Not kept, for there was too much of it: {}.", cut.join(", "));
        lines.wrapped("", "", &runs(&sentence, VALUE, Style::Plain));
    }
}

fn answers(lines: &mut Lines, question: &str, answers: &[Answer]) {
    lines.heading(question);
    if answers.is_empty() {
        lines.wrapped("  ", "  ", &[own("nothing is known", Style::Dim)]);
    }
    for answer in answers.iter().take(ROWS) {
        let mut line = runs(&answer.answer, VALUE, Style::Plain);
        line.push(own(format!("  [{}: ", answer.sure.as_str()), Style::Dim));
        line.extend(runs(&answer.source, VALUE, Style::Dim));
        line.push(own("]", Style::Dim));
        entry(lines, NAME, &answer.what, line);
    }
    more(lines, answers.len().saturating_sub(ROWS), "answers");
}

/// A name, and what there is to say of it.
fn entry(lines: &mut Lines, width: usize, name: &str, line: Vec<Run>) {
    let name = super::shown::shown(name, VALUE);
    let columns = unicode_width::UnicodeWidthStr::width(name.as_str());
    if columns + 2 <= width && lines.width() >= 2 * width {
        let blanks = " ".repeat(width - columns);
        lines.wrapped(&format!("  {name}{blanks}"), &" ".repeat(width + 2), &line);
    } else {
        lines.wrapped("  ", "  ", &[own(name, Style::Dim)]);
        lines.wrapped("      ", "      ", &line);
    }
}

fn more(lines: &mut Lines, count: usize, what: &str) {
    if count > 0 {
        lines.wrapped("  ", "  ", &[own(format!("{count} more {what} are not shown here"), Style::Dim)]);
    }
}

fn commands(lines: &mut Lines, story: &Story) {
    lines.heading("What can be done now");
    if story.commands.is_empty() {
        lines.wrapped("  ", "  ", &[own("nothing runs any more that a command could stop", Style::Dim)]);
    }
    for command in story.commands.iter().take(ROWS) {
        lines.whole("  $ ", &runs_of_bytes(&command.line, COMMAND, Style::Bold));
        lines.wrapped("      ", "      ", &runs(&command.effect, VALUE, Style::Plain));
    }
    more(lines, story.commands.len().saturating_sub(ROWS), "commands");
}

/// A list that is left out if it is empty.
fn list<T>(lines: &mut Lines, heading: &str, rows: &[T], line: fn(&T) -> (String, String)) {
    if rows.is_empty() {
        return;
    }
    lines.heading(heading);
    for row in rows.iter().take(ROWS) {
        let (name, text) = line(row);
        entry(lines, WIDE_NAME, &name, runs(&text, VALUE, Style::Plain));
    }
    more(lines, rows.len().saturating_sub(ROWS), "rows");
}

fn tool(tool: &Tool) -> (String, String) {
    let mut text = format!("{}, {}", tool.category, counted(tool.count, "time", "times"));
    if tool.disguised {
        text.push_str(", disguised");
    }
    for (before, parts) in [(": ", &tool.paths), (" ", &tool.attack)] {
        for (number, part) in parts.iter().take(10).enumerate() {
            text.push_str(if number == 0 { before } else { " " });
            text.push_str(part);
        }
    }
    (tool.name.clone(), text)
}

fn remote(remote: &Remote) -> (String, String) {
    let seen = |count: Option<u64>| count.map_or("not seen".to_owned(), bytes);
    let direction = if remote.inbound { "from there" } else { "to there" };
    let (sent, received) = (seen(remote.bytes_out), seen(remote.bytes_in));
    (remote.address.clone(), format!("{} {direction}, sent: {sent}, received: {received}", remote.transport))
}

fn file(file: &File) -> (String, String) {
    let uses: Vec<&str> = file.uses.iter().take(3).map(|used| used.as_str()).collect();
    let now = match &file.now {
        None => "not there".to_owned(),
        Some(now) => {
            let sum = now
                .sha256
                .as_ref()
                .map_or("SHA-256 not known: too large".to_owned(), |sum| format!("SHA-256 {sum}"));
            format!(
                "{}, {} {}, changed {}, {sum}",
                bytes(now.size),
                now.owner,
                now.mode,
                moment(&now.modified)
            )
        }
    };
    (file.path.clone(), format!("{}; {now}", uses.join(", ")))
}

/// The tree, with lines from parents to children.
pub(super) fn processes(lines: &mut Lines, story: &Story) {
    let tree = tree(&story.processes, PROCESSES);
    for (number, row) in tree.rows.iter().enumerate() {
        let [first, next] = rails(&tree, number, lines.width() / 9);
        process(lines, row, &tree, [&first, &next]);
    }
    more(lines, tree.left_out, "processes");
}

/// What stands before the first line of a process and before its other lines: at most `levels` levels of the tree.
fn rails(tree: &Tree<'_>, number: usize, levels: usize) -> [String; 2] {
    let row = |number: usize| tree.rows.get(number);
    // From the process upwards; a root has no rail.
    let mut way = Vec::new();
    let mut at = row(number).filter(|row| row.parent.is_some());
    while let Some(row_at) = at.filter(|_| way.len() <= levels) {
        way.push(row_at.last);
        at = row_at.parent.and_then(row).filter(|parent| parent.parent.is_some());
    }
    let cut = way.len() > levels;
    way.truncate(levels);
    let mut above: String =
        way.iter().skip(1).rev().map(|last| if *last { "   " } else { "\u{2502}  " }).collect();
    if cut {
        above.insert_str(0, "\u{22ef} ");
    }
    let children = row(number + 1).is_some_and(|next| next.parent == Some(number));
    let below = if children { "\u{2502}    " } else { "     " };
    match way.first() {
        None => ["".to_owned(), below.to_owned()],
        Some(true) => [format!("{above}\u{2514}\u{2500} "), format!("{above}   {below}")],
        Some(false) => [format!("{above}\u{251c}\u{2500} "), format!("{above}\u{2502}  {below}")],
    }
}

fn process(lines: &mut Lines, row: &Row<'_>, tree: &Tree<'_>, [first, next]: [&str; 2]) {
    let process = row.process;
    let mut line = vec![own(process.pid.to_string(), Style::Bold), own(" ", Style::Plain)];
    let parent = row.parent.and_then(|parent| tree.rows.get(parent)).map(|row| row.process);
    let shown = if forked(process, parent) { &[] } else { &process.programs[..] };
    let mut programs = shown.iter().take(PROGRAMS);
    let program = programs.next();
    match program {
        Some(program) => line.extend(runs(&command(program), COMMAND, Style::Plain)),
        None => line.push(own("(forked)", Style::Dim)),
    }
    line.push(own("  (", Style::Dim));
    // Whoever it runs as is told where it changes.
    if parent.is_none_or(|parent| parent.user != process.user) {
        line.extend(runs(process.user.as_deref().unwrap_or("user unknown"), VALUE, Style::Dim));
        line.push(own(", ", Style::Dim));
    }
    line.extend(runs(&end(process), VALUE, Style::Dim));
    line.push(own(")", Style::Dim));
    if process.entry {
        line.push(own("  ENTRY", Style::Bold));
    }
    // What a command goes on with stands further to the right than alerts do: it cannot look like one.
    let further = format!("{next}    ");
    lines.wrapped(first, &further, &line);
    if let Some(alert) = program.and_then(|program| program.alert.as_ref()) {
        alerted(lines, alert, next);
    }
    for program in programs {
        let mut line = vec![own("then ", Style::Dim)];
        line.extend(runs(&command(program), COMMAND, Style::Plain));
        lines.wrapped(next, &further, &line);
        if let Some(alert) = &program.alert {
            alerted(lines, alert, next);
        }
    }
    let count = process.programs.len().saturating_sub(PROGRAMS);
    if count > 0 {
        lines.wrapped(next, next, &[own(format!("{count} more programs are not shown here"), Style::Dim)]);
    }
}

fn end(process: &Process) -> String {
    let outcome = process.outcome.as_ref().map_or(String::new(), |outcome| format!(": {outcome}"));
    let took = process
        .start_ns
        .zip(process.end_ns)
        .map(|(start, end)| super::span::duration(end.saturating_sub(start)));
    match took {
        _ if process.running => "running".to_owned(),
        Some(took) => format!("ended after {took}{outcome}"),
        None if process.end_ns.is_some() => format!("ended{outcome}"),
        None => format!("its end was not seen{outcome}"),
    }
}

fn alerted(lines: &mut Lines, alert: &AlertPart, prefix: &str) {
    let mut line = vec![
        own("! ", Style::Bold),
        own(alert.severity.as_str().to_uppercase(), Style::Severity(alert.severity)),
        own(" ", Style::Plain),
    ];
    line.extend(runs(&format!("{} [{}]", alert.title, alert.rule), VALUE, Style::Plain));
    for (before, part) in [(", utility ", &alert.utility), (", response: ", &alert.response)] {
        if let Some(part) = part {
            line.push(own(before, Style::Plain));
            line.extend(runs(part, VALUE, Style::Bold));
        }
    }
    lines.wrapped(prefix, &format!("{prefix}  "), &line);
}

/// The timeline, of which at most `most` moments are shown.
pub(super) fn timeline(lines: &mut Lines, story: &Story, most: usize) {
    let pids: std::collections::HashMap<u32, u32> =
        story.processes.iter().map(|process| (process.key, process.pid)).collect();
    let chosen = choose(&story.timeline, most);
    let mut day = String::new();
    for moment in &chosen.moments {
        let date = date_and_clock(moment.time_ns).get(..10).unwrap_or_default().to_owned();
        if date != day {
            lines.wrapped("", "", &[own(&date, Style::Bold)]);
            day = date;
        }
        let pid = moment.process.and_then(|key| pids.get(&key)).map_or(String::new(), u32::to_string);
        happened(lines, moment, &pid);
    }
    if let Some(sentence) = chosen.sentence() {
        lines.wrapped("", "", &[own(sentence, Style::Dim)]);
    }
}

fn happened(lines: &mut Lines, moment: &Moment, pid: &str) {
    let mut line = match moment.severity {
        Some(severity) => {
            vec![own(format!("{:10}", severity.as_str().to_uppercase()), Style::Severity(severity))]
        }
        None => vec![own(format!("{:10}", moment.kind.as_str()), Style::Plain)],
    };
    line.push(own(format!(" {pid:>7}  "), Style::Dim));
    line.extend(runs(&moment.text, VALUE, Style::Plain));
    let next = if lines.width() >= ALIGNED { " ".repeat(36) } else { "        ".to_owned() };
    lines.wrapped(&format!("  {}  ", clock(moment.time_ns)), &next, &line);
}
