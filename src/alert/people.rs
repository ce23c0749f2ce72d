//! The form for a person at a terminal: several lines, in colour.

use super::escape::Escaped;
use super::text::date;
use super::{Alert, Record, Standing};
use crate::baseline::decision::{Knowledge, Past};
use crate::calendar;
use crate::followup::sentence;
use crate::process::details::Login;
use crate::process::exec::Certainty;
use crate::rules::model::Severity;
use crate::rules::subject::join;

/// Longest command line shown, in bytes.
const COMMAND: usize = 400;
/// Ancestors shown.
const ANCESTORS: usize = 10;
/// Longest other value shown, in bytes.
const VALUE: usize = 160;

/// The lines, with a newline at the end. `colour` is for terminals.
pub fn lines(record: &Record, colour: bool) -> String {
    match record {
        Record::Alert(alert) => alert_lines(alert, colour),
        Record::Notice(notice) => {
            let severity = severity(notice.severity, colour);
            format!(
                "{} {severity} execwatch: {}\n",
                clock(notice.time_ns),
                shown(notice.message.as_bytes(), COMMAND)
            )
        }
        Record::FollowUp(record) => {
            // The sentence says these in its own words.
            let said = ["severity", "followup", "message", "run-time", "exit", "signal", "time"];
            let head = (record.time_ns, record.alerted.rule.severity, sentence::of(record));
            lines_of_pairs(head, &record.pairs(), &said, colour)
        }
        Record::Folded(record) => {
            let said = ["severity", "folded", "message", "count", "last"];
            let head = (record.last_ns, record.rule.severity, record.sentence());
            lines_of_pairs(head, &record.pairs(), &said, colour)
        }
    }
}

/// The time of day, in UTC.
fn clock(time_ns: u64) -> String {
    calendar::rfc3339(time_ns).get(11..23).unwrap_or_default().to_owned() + "Z"
}

fn severity(severity: Severity, colour: bool) -> String {
    let word = format!("{:8}", severity.as_str().to_uppercase());
    let code = match severity {
        Severity::Info => "2",
        Severity::Low => "36",
        Severity::Medium => "33",
        Severity::High => "31;1",
        Severity::Critical => "97;41;1",
    };
    if colour { format!("\x1b[{code}m{word}\x1b[0m") } else { word }
}

fn shown(bytes: &[u8], limit: usize) -> String {
    let mut escaped = Escaped::new(bytes);
    escaped.shorten(limit);
    // Nothing is quoted here, so quotation marks and backslashes need no escape to be read right.
    escaped.as_str().replace("\\\"", "\"").replace("\\\\", "\\")
}

fn bold(text: &str, colour: bool) -> String {
    if colour { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
}

/// A line with time, severity and sentence, and one for each pair but those that are said in it.
fn lines_of_pairs(
    (time_ns, severe, sentence): (u64, Severity, String),
    pairs: &[(&'static str, Vec<u8>)],
    said: &[&str],
    colour: bool,
) -> String {
    let mut lines =
        format!("{} {} {}\n", clock(time_ns), severity(severe, colour), shown(sentence.as_bytes(), COMMAND));
    for (key, value) in pairs.iter().filter(|(key, _)| !said.contains(key)) {
        lines += &format!("    {key:15} {}\n", shown(value, COMMAND));
    }
    lines
}

/// Whether that is normal here.
pub(crate) fn normality(standing: &Standing) -> String {
    let times = |count: u64, one: &str| match count {
        1 => format!("1 {one}"),
        count => format!("{count} {one}s"),
    };
    let mut text = match standing.past {
        None => "not enough is known to tell whether that is normal here".to_owned(),
        Some(Past { count: 0, .. }) => "first seen here".to_owned(),
        Some(past) => {
            let since = past.since_s.map_or(String::new(), |since| format!(" since {}", date(since)));
            let seen = format!("seen {} on {}{since}", times(past.count, "time"), times(past.days, "day"));
            match past.knowledge {
                Knowledge::New => format!("{seen}, but not for long"),
                Knowledge::Seen => format!("{seen}: not known as normal here"),
                Knowledge::Known if past.approved => format!("{seen}, approved as normal here"),
                Knowledge::Known => format!("{seen}: normal here"),
            }
        }
    };
    if let Some(severity) = standing.severity_was {
        text.push_str(&format!("; its rule says {}", severity.as_str()));
    }
    text
}

fn alert_lines(alert: &Alert, colour: bool) -> String {
    let (exec, details) = (&alert.exec, &alert.exec.details);
    let rule = shown(alert.rule.title.as_bytes(), VALUE);
    let running = match alert.exec.certainty {
        Certainty::AlreadyRunning => " (already running)",
        Certainty::Missed => " (found running; its start was missed)",
        _ => "",
    };
    let mut lines = format!(
        "{} {} {rule} [{}]{running}\n",
        clock(alert.time_ns),
        severity(alert.rule.severity, colour),
        shown(alert.rule.id.as_bytes(), VALUE),
    );
    let mut add = |text: String| {
        lines.push_str("    ");
        lines.push_str(&text);
        lines.push('\n');
    };
    let command =
        exec.image.raw_arguments().map_or("(arguments unknown)".into(), |raw| shown(&join(raw), COMMAND));
    add(bold(&command, colour));
    if let Some(incident) = &alert.incident {
        add(format!("incident {incident}"));
    }
    if let Some(response) = exec.response {
        let done = response.outcome.sentence(response.certainty);
        add(bold(&format!("{}: {done}", response.action.as_str()), colour));
    }
    let mut what = Vec::new();
    if exec.pid != 0 {
        what.push(format!("pid {}", exec.pid));
    }
    what.push(exec.image.exe().map_or("executable unknown".into(), |exe| shown(exe, VALUE)));
    if exec.image.deleted() == Some(true) {
        what.push("executable deleted".into());
    }
    if let Some(utility) = &alert.utility {
        let (name, category) = (&utility.name, &utility.category);
        what.push(match &utility.identity {
            Some(identity) => {
                let path = shown(&identity.path, VALUE);
                format!("{name} ({category}), the same as {path} by its {}", identity.by.as_str())
            }
            None => format!("{name} ({category}), known by its {}", utility.via.as_str()),
        });
    }
    add(what.join(", "));
    let account = |uid: Option<u32>, name: &Option<String>| match (uid, name) {
        (Some(uid), Some(name)) => format!("{} ({uid})", shown(name.as_bytes(), VALUE)),
        (Some(uid), None) => uid.to_string(),
        (None, Some(name)) => shown(name.as_bytes(), VALUE),
        (None, None) => "unknown".to_owned(),
    };
    let mut who = Vec::new();
    let [real, effective, login] = &alert.users;
    who.push(format!("user {}", account(details.uid(0), real)));
    let known = details.uid(1).is_some() || effective.is_some();
    if known && (details.uid(0), real) != (details.uid(1), effective) {
        who.push(format!("acting as {}", account(details.uid(1), effective)));
    }
    match details.login {
        Some(Login::User(uid)) => who.push(format!("logged in as {}", account(Some(uid), login))),
        Some(Login::Somebody) => who.push(format!("logged in as {}", account(None, login))),
        Some(Login::Nobody) => who.push("no login".into()),
        None => {}
    }
    match details.tty_name() {
        Some(Some(tty)) => who.push(format!("on {tty}")),
        Some(None) => who.push("no terminal".into()),
        None => {}
    }
    who.extend(details.cwd().map(|cwd| format!("in {}", shown(cwd, VALUE))));
    if !alert.namespaces.is_empty() {
        who.push(format!("own {} namespace", alert.namespaces.join(", ")));
    }
    add(who.join(", "));
    let origin = &alert.origin;
    let mut way = Vec::new();
    way.extend(origin.entry.map(|entry| format!("by way of {entry}")));
    way.extend(origin.ssh_client.map(|client| format!("from {client}")));
    if let Some(elevation) = &origin.elevation {
        way.push(format!(
            "through {} called by {}",
            elevation.program,
            account(elevation.uid, &elevation.user)
        ));
    }
    let place = &origin.place;
    if let Some(container) = &place.container_id {
        let told = &origin.container;
        let name = told.name.as_ref().unwrap_or(container);
        let image = told
            .image
            .as_ref()
            .map_or(String::new(), |image| format!(" of {}", shown(image.as_bytes(), VALUE)));
        way.push(format!(
            "{} container {}{image}",
            place.runtime.unwrap_or("in"),
            shown(name.as_bytes(), VALUE)
        ));
    }
    way.extend(
        origin
            .container
            .pod_name
            .as_ref()
            .or(place.pod_uid.as_ref())
            .map(|pod| format!("pod {}", shown(pod.as_bytes(), VALUE))),
    );
    way.extend(place.unit.as_ref().map(|unit| format!("unit {}", shown(unit.as_bytes(), VALUE))));
    if !way.is_empty() {
        add(way.join(", "));
    }
    if let Some(standing) = &alert.baseline {
        add(normality(standing));
    }
    for image in &origin.earlier {
        let command = image.raw_arguments().map_or("(unknown)".into(), |raw| shown(&join(raw), VALUE));
        add(format!("before  {command}"));
    }
    let chain = origin.up_to_entry();
    for ancestor in chain.iter().take(ANCESTORS) {
        let command = match ancestor.image.raw_arguments().filter(|raw| !raw.is_empty()) {
            Some(raw) => shown(&join(raw), VALUE),
            None => ancestor.image.exe().map_or("(unknown)".into(), |exe| shown(exe, VALUE)),
        };
        let mut about = vec![match (&ancestor.user, ancestor.uid) {
            (Some(name), _) => shown(name.as_bytes(), VALUE),
            (None, Some(uid)) => format!("uid {uid}"),
            (None, None) => "user unknown".to_owned(),
        }];
        if ancestor.ended {
            about.push("ended".to_owned());
        }
        add(format!("under   {} {command} ({})", ancestor.pid, about.join(", ")));
    }
    if chain.len() > ANCESTORS {
        add(format!("under   {} more", chain.len() - ANCESTORS));
    }
    if let Some(ppid) = details.ppid.filter(|_| chain.is_empty()) {
        let exe = details.parent.exe().map_or("executable unknown".into(), |exe| shown(exe, VALUE));
        let command = details.parent.raw_arguments().map_or(String::new(), |raw| shown(&join(raw), VALUE));
        add(format!("parent {ppid} {exe}: {command}"));
    }
    lines
}
