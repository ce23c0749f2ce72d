//! What an administrator asks first, answered from what was kept and from what is there now. Each part of an answer says
//! how sure it is, and where it comes from.

use std::collections::BTreeSet;

use super::arguments::quoted;
use super::kept::{KeptAlert, KeptException};
use super::now::Look;
use super::story::{Answer, Command, Process, Story, Sure};
use super::tell::Kept;
use crate::alert::escape::of_json;
use crate::followup::sentence::bytes;
use crate::order;

/// Pids that a command names, and items that a sentence lists.
const MOST_NAMED: usize = 20;

/// Fills the answers in.
pub fn answer(story: &mut Story, kept: &Kept<'_>, look: &mut dyn Look) {
    story.who = who(&kept.alerts);
    let held = held(&story.processes, look);
    story.contain = contain(story, &kept.alerts, &held);
    story.commands = commands(story, &kept.alerts, &held);
    story.what_else = what_else(story);
    story.way_in = way_in(story, kept, look);
}

/// A name of a story as a word for a shell, which knows nothing of escapes.
fn word(name: &str) -> String {
    quoted(&String::from_utf8_lossy(&of_json(name)))
}

fn answered(what: &str, answer: String, sure: Sure, source: &str) -> Answer {
    Answer { what: what.to_owned(), answer, sure, source: source.to_owned() }
}

/// Different texts, in the order in which they came first.
fn different<'t>(texts: impl Iterator<Item = Option<&'t String>>) -> Vec<&'t str> {
    let mut seen = BTreeSet::new();
    texts.flatten().filter(|text| seen.insert(text.as_str())).map(String::as_str).collect()
}

/// The first ones, and how many more there are.
fn listed(texts: &[impl AsRef<str>]) -> String {
    let mut text = texts.iter().take(MOST_NAMED).map(AsRef::as_ref).collect::<Vec<&str>>().join(", ");
    if texts.len() > MOST_NAMED {
        text.push_str(&format!(", and {} more", texts.len() - MOST_NAMED));
    }
    text
}

fn who(alerts: &[&KeptAlert]) -> Vec<Answer> {
    let mut answers = Vec::new();
    let users = different(alerts.iter().map(|alert| alert.user.as_ref()));
    answers.push(match users.is_empty() {
        true => answered("acting user", "not known".to_owned(), Sure::Unknown, "alerts"),
        false => answered("acting user", listed(&users), Sure::Known, "alerts"),
    });
    let effective = different(alerts.iter().map(|alert| alert.effective.as_ref()));
    if !effective.is_empty() {
        answers.push(answered("acting as", listed(&effective), Sure::Known, "alerts"));
    }
    for (program, caller) in order::set(alerts.iter().filter_map(|alert| alert.elevation.as_ref())) {
        let caller = caller.as_deref().map_or(String::new(), |caller| format!(", called by {caller}"));
        answers.push(answered("elevation", format!("{program}{caller}"), Sure::Known, "lineage"));
    }
    let logins = different(alerts.iter().map(|alert| alert.login.as_ref()));
    answers.push(if !logins.is_empty() {
        answered("login user", listed(&logins), Sure::Known, "audit login id")
    } else if alerts.iter().any(|alert| alert.no_login) {
        answered("login user", "nobody logged in".to_owned(), Sure::Known, "audit login id")
    } else {
        answered("login user", "not known".to_owned(), Sure::Unknown, "audit login id")
    });
    answers.push(normal(alerts));
    answers.push(exceptions(alerts));
    answers
}

/// Which exceptions are about it.
fn exceptions(alerts: &[&KeptAlert]) -> Answer {
    let all = order::set(alerts.iter().flat_map(|alert| &alert.exceptions));
    let told: Vec<String> = all
        .iter()
        .map(|exception| {
            let KeptException { id, rule, expired } = exception;
            let what = if *expired { "would have silenced" } else { "silenced" };
            let why = if *expired { ", had it not expired" } else { ", but other rules matched too" };
            format!("{id} {what} rule {rule}{why}")
        })
        .collect();
    match told.is_empty() {
        true => answered(
            "exceptions",
            "none covers any of it".to_owned(),
            Sure::Known,
            "exceptions in force then",
        ),
        false => answered("exceptions", listed(&told), Sure::Known, "exceptions in force then"),
    }
}

fn normal(alerts: &[&KeptAlert]) -> Answer {
    let count = |word: &str| alerts.iter().filter(|alert| alert.baseline.as_deref() == Some(word)).count();
    let (new, seen, known) = (count("new"), count("seen"), count("known"));
    if new + seen + known == 0 {
        let text = "nothing to compare with: the baseline is off, or knows too little of the programs";
        return answered("normal here", text.to_owned(), Sure::Unknown, "baseline");
    }
    let verdict = match (new, seen) {
        (0, 0) => "yes: all of it is known here",
        (0, _) => "not yet: it was seen before, but on too few days",
        _ => "no",
    };
    let text =
        format!("{verdict} ({new} alerts of what is new here, {seen} seen before, {known} known as normal)");
    answered("normal here", text, Sure::Known, "baseline")
}

/// Ids under which processes of the incident are held, and what they are.
fn held(processes: &[Process], look: &dyn Look) -> Vec<(String, String)> {
    let own = |pid: u32| processes.iter().any(|process| process.running && process.pid == pid);
    let entries = look.held().into_iter().filter(|entry| own(entry.pid));
    entries.map(|entry| (entry.id, entry.command)).collect()
}

fn running(story: &Story) -> Vec<&Process> {
    story.processes.iter().filter(|process| process.running).collect()
}

fn contain(story: &Story, alerts: &[&KeptAlert], held: &[(String, String)]) -> Vec<Answer> {
    let mut answers = Vec::new();
    let running = running(story);
    let shown: Vec<String> = running
        .iter()
        .map(|process| {
            let program = process.programs.last().map_or("?".to_owned(), super::tell::command);
            let entry = if process.entry { ", the entry" } else { "" };
            format!("{} ({program}{entry})", process.pid)
        })
        .collect();
    let unseen = story.processes.iter().filter(|process| process.start_ns.is_none()).count();
    answers.push(match (shown.is_empty(), unseen) {
        (false, _) => answered("still running", listed(&shown), Sure::Known, "/proc now"),
        (true, 0) => answered("still running", "nothing of it".to_owned(), Sure::Known, "/proc now"),
        (true, _) => {
            let text = format!("nothing that can be told; of {unseen} processes the start was not seen");
            answered("still running", text, Sure::Unknown, "/proc now")
        }
    });
    if !held.is_empty() {
        let shown: Vec<String> = held.iter().map(|(id, command)| format!("{command} ({id})")).collect();
        answers.push(answered("held by a rule", listed(&shown), Sure::Known, "held"));
    }
    let mut responses: Vec<(&str, usize)> = Vec::new();
    for word in alerts.iter().filter_map(|alert| alert.response.as_deref()) {
        match responses.iter_mut().find(|(known, _)| *known == word) {
            Some((_, count)) => *count += 1,
            None => responses.push((word, 1)),
        }
    }
    let shown: Vec<String> = responses.iter().map(|(word, count)| format!("{word} {count} times")).collect();
    answers.push(match shown.is_empty() {
        true => answered("responses", "none: no rule asked for one".to_owned(), Sure::Known, "alerts"),
        false => answered("responses", listed(&shown), Sure::Known, "alerts"),
    });
    answers
}

/// Commands, the mildest first. Each is only given where there is something that it would act on.
fn commands(story: &Story, alerts: &[&KeptAlert], held: &[(String, String)]) -> Vec<Command> {
    let mut commands = Vec::new();
    let mut add = |line: String, effect: &str| commands.push(Command { line, effect: effect.to_owned() });
    // The entry of a service or a container is what others need; its unit and its container have commands of their own.
    let pids: Vec<String> = running(story)
        .iter()
        .filter(|process| !process.entry)
        .take(MOST_NAMED)
        .map(|process| process.pid.to_string())
        .collect();
    for (id, _) in held {
        add(format!("execwatch release {}", quoted(id)), "lets it run on that a rule has stopped");
    }
    if !pids.is_empty() {
        let effect = "stops the processes that still run, without the entry; kill -CONT lets them run on";
        add(format!("kill -STOP {}", pids.join(" ")), effect);
    }
    for (id, _) in held {
        add(format!("execwatch kill {}", quoted(id)), "kills what a rule has stopped");
    }
    if !pids.is_empty() {
        add(
            format!("kill -KILL {}", pids.join(" ")),
            "kills the processes that still run, without the entry",
        );
    }
    for alert in containers(alerts) {
        let Some(id) = &alert.container else { continue };
        let id = word(id);
        match alert.runtime.as_deref() {
            Some(runtime @ ("docker" | "podman")) => {
                add(format!("{runtime} pause {id}"), "freezes the container as it is");
                add(format!("{runtime} stop {id}"), "ends the container");
            }
            Some("containerd" | "cri-o") => add(format!("crictl stop {id}"), "ends the container"),
            Some("nspawn") => add(format!("machinectl terminate {id}"), "ends the container"),
            Some("lxc") => {
                add(format!("lxc-freeze -n {id}"), "freezes the container as it is");
                add(format!("lxc-stop -n {id}"), "ends the container");
            }
            _ => {}
        }
    }
    let services = alerts.iter().filter(|alert| alert.container.is_none());
    let units = different(services.map(|alert| alert.unit.as_ref()));
    for unit in units.into_iter().filter(|unit| unit.ends_with(".service") && !unit.starts_with("user@")) {
        add(format!("systemctl stop {}", word(unit)), "ends the service, for everybody who uses it");
    }
    let sessions = different(alerts.iter().map(|alert| alert.unit.as_ref()));
    for scope in sessions.into_iter().filter(|unit| unit.ends_with(".scope")) {
        if let Some(session) = scope.strip_prefix("session-").and_then(|rest| rest.strip_suffix(".scope")) {
            let line = format!("loginctl terminate-session {}", word(session));
            add(line, "ends the login session with everything in it");
        }
    }
    commands
}

/// One alert of each container.
fn containers<'a>(alerts: &[&'a KeptAlert]) -> Vec<&'a KeptAlert> {
    let mut seen = BTreeSet::new();
    alerts
        .iter()
        .filter(|alert| alert.container.as_ref().is_some_and(|id| seen.insert(id)))
        .copied()
        .collect()
}

fn what_else(story: &Story) -> Vec<Answer> {
    let mut answers = Vec::new();
    let tools: Vec<String> = story
        .tools
        .iter()
        .map(|tool| {
            let disguised = if tool.disguised { ", disguised" } else { "" };
            format!("{} ({}{disguised})", tool.name, tool.category)
        })
        .collect();
    if !tools.is_empty() {
        answers.push(answered("tools", listed(&tools), Sure::Known, "alerts"));
    }
    let techniques = order::set(story.tools.iter().flat_map(|tool| &tool.attack).map(String::as_str));
    if !techniques.is_empty() {
        let techniques: Vec<&str> = techniques.into_iter().collect();
        answers.push(answered("ATT&CK techniques", listed(&techniques), Sure::Likely, "rules"));
    }
    let (seen, named): (Vec<_>, Vec<_>) =
        story.remotes.iter().partition(|remote| matches!(remote.transport.as_str(), "tcp" | "udp"));
    let shown: Vec<String> = seen
        .iter()
        .map(|remote| {
            let count = |count: Option<u64>| count.map_or("an unknown number of bytes".to_owned(), bytes);
            let way = if remote.inbound { "from" } else { "to" };
            let (out, back) = (count(remote.bytes_out), count(remote.bytes_in));
            format!("{} {way} {} ({out} sent, {back} received)", remote.transport, remote.address)
        })
        .collect();
    answers.push(match shown.is_empty() {
        true => {
            let text = "none was seen; short ones end before they are looked at".to_owned();
            answered("connections", text, Sure::Unknown, "follow-ups")
        }
        false => answered("connections", listed(&shown), Sure::Known, "follow-ups"),
    });
    if !named.is_empty() {
        let named: Vec<&str> = named.iter().map(|remote| remote.address.as_str()).collect();
        answers.push(answered("addresses in arguments", listed(&named), Sure::Likely, "arguments"));
    }
    if !story.names.is_empty() {
        answers.push(answered("host names in arguments", listed(&story.names), Sure::Likely, "arguments"));
    }
    let there: Vec<&str> =
        story.files.iter().filter(|file| file.now.is_some()).map(|file| file.path.as_str()).collect();
    if !there.is_empty() {
        answers.push(answered("files still there", listed(&there), Sure::Known, "files now"));
    }
    let gone: Vec<&str> =
        story.files.iter().filter(|file| file.now.is_none()).map(|file| file.path.as_str()).collect();
    if !gone.is_empty() {
        let text = format!("{} (removed, or not to be looked at)", listed(&gone));
        answers.push(answered("files not there", text, Sure::Known, "files now"));
    }
    answers
}

fn way_in(story: &Story, kept: &Kept<'_>, look: &dyn Look) -> Vec<Answer> {
    let mut answers = Vec::new();
    let entries = order::set(kept.alerts.iter().map(|alert| (alert.entry.as_deref(), alert.leader.as_ref())));
    for (kind, leader) in entries {
        let shown = leader.map_or("a process that is not known".to_owned(), |(pid, command)| {
            format!("{command} (pid {pid})")
        });
        let (text, sure) = match kind {
            Some("service") => (format!("a service: {shown}"), Sure::Known),
            Some("ssh") => (format!("an ssh session: {shown}"), Sure::Known),
            Some("remote") => (format!("a remote access: {shown}"), Sure::Known),
            Some("login") => (format!("a login at this host: {shown}"), Sure::Known),
            Some("cron") => (format!("a job of cron: {shown}"), Sure::Known),
            Some("container") => (format!("a container: {shown}"), Sure::Known),
            Some("kernel") => (format!("a helper of the kernel: {shown}"), Sure::Known),
            Some(_) => (format!("a process below init, a service or an orphan: {shown}"), Sure::Likely),
            None => ("not known: the lineage is not complete".to_owned(), Sure::Unknown),
        };
        answers.push(answered("entry", text, sure, "lineage"));
        if kind == Some("cron")
            && let Some((_, command)) = leader
        {
            answers.push(cron_file(command, look));
        }
    }
    let units = different(kept.alerts.iter().map(|alert| alert.unit.as_ref()));
    if !units.is_empty() {
        answers.push(answered("unit", listed(&units), Sure::Known, "cgroup"));
    }
    let clients = different(kept.alerts.iter().map(|alert| alert.ssh_client.as_ref()));
    if !clients.is_empty() {
        answers.push(answered("ssh client", listed(&clients), Sure::Likely, "environment of the session"));
    } else if kept.alerts.iter().any(|alert| alert.entry.as_deref() == Some("ssh")) {
        answers.push(answered(
            "ssh client",
            "not known".to_owned(),
            Sure::Unknown,
            "environment of the session",
        ));
    }
    for alert in containers(&kept.alerts) {
        let name = alert.container_name.as_ref().or(alert.container.as_ref());
        let image = alert
            .image
            .as_ref()
            .map_or(", of an image that is not known".to_owned(), |image| format!(", of image {image}"));
        let pod = alert.pod.as_ref().map_or(String::new(), |pod| format!(", pod {pod}"));
        let text = format!("{}{image}{pod}", name.map_or("?", String::as_str));
        let sure = if alert.image.is_some() { Sure::Known } else { Sure::Unknown };
        answers.push(answered("container image", text, sure, "container runtime"));
    }
    let door = |alert: &&&KeptAlert| matches!(alert.entry.as_deref(), Some("service" | "init" | "container"));
    if kept.alerts.iter().any(|alert| door(&alert)) {
        let entries = story.processes.iter().filter(|process| process.entry && process.running);
        let ports = order::set(entries.flat_map(|process| look.listening(process.pid)));
        let ports: Vec<String> = ports.into_iter().collect();
        answers.push(match ports.is_empty() {
            true => {
                let text = "none is known: the entry has ended, or does not listen itself".to_owned();
                answered("listening ports", text, Sure::Unknown, "/proc now")
            }
            false => answered("listening ports", listed(&ports), Sure::Known, "/proc now"),
        });
    }
    answers
}

/// The cron file that has the command of a job.
fn cron_file(command: &str, look: &dyn Look) -> Answer {
    // `/bin/sh -c COMMAND`, as cron runs it.
    let job = command.split_once(" -c ").map_or(command, |(_, job)| job).trim();
    let files = if job.len() < 3 { Vec::new() } else { look.cron_files(job) };
    match files.is_empty() {
        true => {
            answered("cron file", "none holds this command now".to_owned(), Sure::Unknown, "cron files now")
        }
        false => answered("cron file", listed(&files), Sure::Likely, "cron files now"),
    }
}
