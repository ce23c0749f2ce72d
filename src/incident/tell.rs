//! From what was kept to the story: without I/O but what the [`Look`] gives.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::arguments::{self, Target};
use super::collect::Thing;
use super::kept::{Item, KeptAlert, KeptFollowUp, KeptProgram};
use super::now::Look;
use super::questions;
use super::store::Row;
use super::story::{
    AlertPart, Cut, File, FileUse, Incident, Moment, MomentKind, Process, Program, Remote, RuleText, Story,
    Tool,
};
use crate::calendar;
use crate::order;

/// Files and remote addresses of a story; more are counted.
const MOST_FILES: usize = 200;
const MOST_REMOTES: usize = 200;
const MOST_NAMES: usize = 200;

/// Everything that was kept, by kind.
#[derive(Debug, Default)]
pub struct Kept<'t> {
    /// Alerts.
    pub alerts: Vec<&'t KeptAlert>,
    /// Programs.
    pub programs: Vec<&'t KeptProgram>,
    /// Follow-ups.
    pub follow_ups: Vec<&'t KeptFollowUp>,
}

/// The story of an incident. `rule` gives the text of a rule.
pub fn story(
    row: &Row,
    things: &[Thing],
    host: &str,
    rule: &dyn Fn(&str) -> Option<String>,
    look: &mut dyn Look,
) -> Story {
    let mut telling = Telling::default();
    let mut kept = Kept::default();
    for thing in things {
        match &thing.item {
            Item::Alert(alert) => kept.alerts.push(alert),
            Item::Program(program) => kept.programs.push(program),
            Item::FollowUp(record) => kept.follow_ups.push(record),
            _ => {}
        }
        telling.take(&thing.item, look);
    }
    telling.alerts(&kept.alerts);
    telling.finish_processes(look);
    telling.follow_ups(&kept);
    let mut cut = row.head.cut.clone();
    let seen_by = container_process(&kept, &telling.processes);
    let files = telling.files(&kept, seen_by, look, &mut cut);
    let (remotes, names) = telling.remotes(&kept, &mut cut);
    let rules = order::set(kept.alerts.iter().flat_map(|alert| &alert.rules));
    order::by_key(&mut telling.timeline, |moment| moment.time_ns);
    let mut story = Story {
        incident: incident(row, host),
        who: Vec::new(),
        contain: Vec::new(),
        commands: Vec::new(),
        what_else: Vec::new(),
        way_in: Vec::new(),
        processes: telling.processes,
        timeline: telling.timeline,
        tools: tools(&kept.alerts),
        remotes,
        names,
        files,
        rules: rules
            .into_iter()
            .map(|id| RuleText { id: id.clone(), text: rule(id).unwrap_or_default() })
            .collect(),
        cut,
    };
    questions::answer(&mut story, &kept, look);
    story
}

/// What the list shows.
pub fn incident(row: &Row, host: &str) -> Incident {
    let head = &row.head;
    Incident {
        id: head.id.clone(),
        host: host.to_owned(),
        first: calendar::rfc3339(head.first_ns),
        last: calendar::rfc3339(head.last_ns),
        severity: head.severity,
        score: head.score,
        state: row.state,
        verdict: row.verdict,
        note: row.note.clone(),
        title: head.title.clone(),
        user: head.user.clone(),
        place: head.place.clone(),
        alerts: head.alerts,
        execs: head.execs,
    }
}

/// A process through whose root the files of a container are seen.
fn container_process(kept: &Kept<'_>, processes: &[Process]) -> Option<Option<u32>> {
    if kept.alerts.iter().all(|alert| alert.container.is_none()) {
        return Some(None);
    }
    // Without one that runs nothing can be said of its files.
    processes.iter().find(|process| process.running).map(|process| Some(process.pid))
}

#[derive(Default)]
struct Telling {
    processes: Vec<Process>,
    /// Places in `processes` by key.
    places: HashMap<u32, usize>,
    /// On the other clock, when each program was executed, in the order of `processes` and their programs.
    times: HashMap<(u32, u64), (usize, usize)>,
    /// What entries showed before anything was seen of them.
    shown: HashMap<u32, Program>,
    timeline: Vec<Moment>,
    /// The processes of alerts, by the alerts' ids.
    of_alert: HashMap<String, u32>,
}

impl Telling {
    fn take(&mut self, item: &Item, look: &dyn Look) {
        match item {
            Item::Process(kept) => {
                self.places.insert(kept.key, self.processes.len());
                if kept.exe.is_some() || !kept.args.is_empty() {
                    let (exe, args) = (kept.exe.clone(), kept.args.clone());
                    self.shown.insert(kept.key, Program { time_ns: kept.start_ns, exe, args, alert: None });
                }
                self.processes.push(Process {
                    key: kept.key,
                    parent: kept.parent,
                    pid: kept.pid,
                    programs: Vec::new(),
                    user: kept.uid.map(|uid| look.user(uid).unwrap_or_else(|| uid.to_string())),
                    start_ns: Some(kept.start_ns),
                    end_ns: None,
                    outcome: None,
                    running: false,
                    entry: kept.entry,
                });
            }
            Item::Program(kept) => {
                let Some(&place) = self.places.get(&kept.process) else { return };
                let process = &mut self.processes[place];
                self.times.insert((process.pid, kept.at_ns), (place, process.programs.len()));
                process.programs.push(Program {
                    time_ns: kept.time_ns,
                    exe: kept.exe.clone(),
                    args: kept.args.clone(),
                    alert: None,
                });
            }
            Item::End(kept) => {
                let Some(&place) = self.places.get(&kept.process) else { return };
                let process = &mut self.processes[place];
                let outcome = kept.status.map(outcome);
                let text = format!(
                    "pid {} ended{}",
                    process.pid,
                    outcome.as_ref().map_or(String::new(), |outcome| format!(": {outcome}"))
                );
                process.end_ns = Some(kept.time_ns);
                process.outcome = outcome;
                self.moment(kept.time_ns, MomentKind::End, Some(kept.process), text);
            }
            Item::Folded(kept) => {
                self.moment(kept.time_ns, MomentKind::Note, None, kept.text.clone());
            }
            Item::Note(kept) => self.moment(kept.time_ns, MomentKind::Note, None, kept.text.clone()),
            Item::Alert(_) | Item::FollowUp(_) => {}
        }
    }

    fn moment(&mut self, time_ns: u64, kind: MomentKind, process: Option<u32>, text: String) {
        self.timeline.push(Moment { time_ns, kind, process, text, severity: None });
    }

    /// Marks the programs that alerted, and adds those of which only the alert tells.
    fn alerts(&mut self, alerts: &[&KeptAlert]) {
        for alert in alerts {
            let part = AlertPart {
                id: alert.id.clone(),
                rule: alert.rule.clone(),
                title: alert.title.clone(),
                severity: alert.severity,
                utility: alert.utility.as_ref().map(|utility| utility.name.clone()),
                response: alert.response.clone(),
            };
            let found = self.times.get(&(alert.pid, alert.at_ns)).copied();
            let place = match found {
                Some((place, at)) => {
                    self.processes[place].programs[at].alert = Some(part);
                    place
                }
                None => {
                    let place = self.process_of(alert);
                    let (exe, args) = (alert.exe.clone(), alert.args.clone());
                    let program = Program { time_ns: alert.time_ns, exe, args, alert: Some(part) };
                    self.processes[place].programs.push(program);
                    order::by_key(&mut self.processes[place].programs, |program| program.time_ns);
                    place
                }
            };
            let key = self.processes[place].key;
            self.of_alert.insert(alert.id.clone(), key);
            self.timeline.push(Moment {
                time_ns: alert.time_ns,
                kind: MomentKind::Alert,
                process: Some(key),
                text: format!("{}: {}", alert.title, alert.args.join(" ")),
                severity: Some(alert.severity),
            });
            if let Some(text) = &alert.response_text {
                self.moment(alert.time_ns, MomentKind::Response, Some(key), text.clone());
            }
        }
        let execs: Vec<(u64, u32, String)> = self
            .processes
            .iter()
            .flat_map(|process| process.programs.iter().map(move |program| (process.key, program)))
            .filter(|(_, program)| program.alert.is_none())
            .map(|(key, program)| (program.time_ns, key, command(program)))
            .collect();
        for (time_ns, key, text) in execs {
            self.moment(time_ns, MomentKind::Exec, Some(key), text);
        }
    }

    /// The process of an alert of whose exec no light record was kept.
    fn process_of(&mut self, alert: &KeptAlert) -> usize {
        let same = |process: &Process| {
            process.pid == alert.pid && process.start_ns.is_none_or(|start| start <= alert.time_ns)
        };
        if let Some(place) = self.processes.iter().rposition(same) {
            return place;
        }
        let key = self.processes.iter().map(|process| process.key + 1).max().unwrap_or(0);
        let leader = alert.leader.as_ref().map(|(pid, _)| *pid);
        let parent = self.processes.iter().find(|process| process.entry && Some(process.pid) == leader);
        self.processes.push(Process {
            key,
            parent: parent.map(|parent| parent.key),
            pid: alert.pid,
            programs: Vec::new(),
            user: alert.user.clone(),
            start_ns: None,
            end_ns: None,
            outcome: None,
            running: false,
            entry: leader == Some(alert.pid),
        });
        self.places.insert(key, self.processes.len() - 1);
        self.processes.len() - 1
    }

    /// Says what processes show that executed nothing, and which run.
    fn finish_processes(&mut self, look: &dyn Look) {
        for place in 0..self.processes.len() {
            let process = &self.processes[place];
            let shown = if !process.programs.is_empty() {
                None
            } else if let Some(shown) = self.shown.get(&process.key) {
                Some(shown.clone())
            } else {
                let start_ns = process.start_ns.unwrap_or(u64::MAX);
                let parent = process.parent.and_then(|parent| self.places.get(&parent));
                let programs = parent.map_or(&[][..], |&place| &self.processes[place].programs);
                let before = programs.iter().rev().find(|program| program.time_ns <= start_ns);
                before.or(programs.first()).map(|program| Program {
                    time_ns: process.start_ns.unwrap_or(program.time_ns),
                    alert: None,
                    ..program.clone()
                })
            };
            let running = process.end_ns.is_none()
                && process.start_ns.is_some_and(|start_ns| look.runs(process.pid, start_ns));
            let process = &mut self.processes[place];
            process.programs.extend(shown);
            process.running = running;
        }
    }

    /// Connections and files of follow-ups, each once, when it was told first.
    fn follow_ups(&mut self, kept: &Kept<'_>) {
        let mut told: BTreeSet<String> = BTreeSet::new();
        for record in &kept.follow_ups {
            let process = self.of_alert.get(&record.alert).copied();
            for peer in &record.peers {
                if told.insert(format!("{} {:?} {:?}", record.alert, peer.local, peer.address)) {
                    let way = if peer.inbound { "from" } else { "to" };
                    let text = format!("{} {way} {}", peer.transport, peer.address);
                    self.moment(record.time_ns, MomentKind::Connection, process, text);
                }
            }
            for address in &record.listening {
                if told.insert(format!("{} listens {address}", record.alert)) {
                    let text = format!("listens at {address}");
                    self.moment(record.time_ns, MomentKind::Connection, process, text);
                }
            }
            for file in &record.files {
                if told.insert(format!("{} file {file}", record.alert)) {
                    let text = format!("open for writing: {file}");
                    self.moment(record.time_ns, MomentKind::File, process, text);
                }
            }
        }
    }

    fn remotes(&self, kept: &Kept<'_>, cut: &mut Vec<Cut>) -> (Vec<Remote>, Vec<String>) {
        // The last word on each connection counts, and connections to the same address are added up.
        let mut connections = BTreeMap::new();
        for record in &kept.follow_ups {
            for peer in &record.peers {
                let key = (&peer.transport, &peer.address, &peer.local);
                connections.insert(key, (peer, self.of_alert.get(&record.alert).copied()));
            }
        }
        let mut remotes: Vec<Remote> = Vec::new();
        for (peer, process) in connections.into_values() {
            let same = |remote: &&mut Remote| {
                (&remote.address, &remote.transport, remote.inbound)
                    == (&peer.address, &peer.transport, peer.inbound)
            };
            let add = |sum: Option<u64>, more: Option<u64>| match (sum, more) {
                (None, None) => None,
                (sum, more) => Some(sum.unwrap_or(0) + more.unwrap_or(0)),
            };
            match remotes.iter_mut().find(same) {
                Some(remote) => {
                    remote.bytes_out = add(remote.bytes_out, peer.sent);
                    remote.bytes_in = add(remote.bytes_in, peer.received);
                    remote.processes.extend(process.filter(|process| !remote.processes.contains(process)));
                }
                None => remotes.push(Remote {
                    address: peer.address.clone(),
                    transport: peer.transport.clone(),
                    inbound: peer.inbound,
                    bytes_out: peer.sent,
                    bytes_in: peer.received,
                    processes: process.into_iter().collect(),
                }),
            }
        }
        let mut names: Vec<String> = Vec::new();
        // Where it listened itself is nobody else.
        let own = order::set(kept.follow_ups.iter().flat_map(|record| &record.listening));
        let lists = kept.alerts.iter().map(|alert| (&alert.args, self.of_alert.get(&alert.id).copied()));
        let lists = lists.chain(kept.programs.iter().map(|program| (&program.args, Some(program.process))));
        for (args, process) in lists {
            for target in arguments::targets(args) {
                match target {
                    Target::Name(name) if !names.contains(&name) => names.push(name),
                    Target::Name(_) => {}
                    Target::Address(ip, port) => {
                        let address = port
                            .map_or(ip.to_string(), |port| std::net::SocketAddr::new(ip, port).to_string());
                        if ip.is_unspecified()
                            || own.contains(&address)
                            || remotes.iter().any(|remote| remote.address == address)
                        {
                            continue;
                        }
                        remotes.push(Remote {
                            address,
                            transport: "named in arguments".to_owned(),
                            inbound: false,
                            bytes_out: None,
                            bytes_in: None,
                            processes: process.into_iter().collect(),
                        });
                    }
                }
            }
        }
        bound("remote addresses", &mut remotes, MOST_REMOTES, cut);
        bound("host names", &mut names, MOST_NAMES, cut);
        (remotes, names)
    }

    fn files(
        &self,
        kept: &Kept<'_>,
        seen_by: Option<Option<u32>>,
        look: &mut dyn Look,
        cut: &mut Vec<Cut>,
    ) -> Vec<File> {
        let mut uses: BTreeMap<String, BTreeSet<FileUse>> = BTreeMap::new();
        let mut add = |path: &str, how: FileUse| {
            uses.entry(path.to_owned()).or_default().insert(how);
        };
        for record in &kept.follow_ups {
            let plain =
                record.files.iter().filter(|file| file.starts_with('/') && !file.starts_with("/dev/"));
            plain.for_each(|file| add(file, FileUse::Written));
        }
        let alerts = kept.alerts.iter().map(|alert| (&alert.exe, &alert.args, alert.cwd.as_deref()));
        let programs = kept.programs.iter().map(|program| (&program.exe, &program.args, None));
        for (exe, args, cwd) in alerts.chain(programs) {
            if let Some(exe) = exe.as_deref().filter(|exe| arguments::is_foreign(exe)) {
                add(exe, FileUse::Executed);
            }
            if let Some(script) = arguments::script(args).filter(|_| is_interpreter(args)) {
                add(script, FileUse::Executed);
            }
            arguments::written(args, cwd).iter().for_each(|file| add(file, FileUse::Named));
        }
        let mut files: Vec<(String, BTreeSet<FileUse>)> = uses.into_iter().collect();
        bound("files", &mut files, MOST_FILES, cut);
        let mut file = |(path, uses): (String, BTreeSet<FileUse>)| File {
            now: seen_by.and_then(|seen_by| look.file(&path, seen_by)),
            path,
            uses: uses.into_iter().collect(),
        };
        files.into_iter().map(&mut file).collect()
    }
}

/// A shell, or another program that reads its first argument as a program.
fn is_interpreter(args: &[String]) -> bool {
    const INTERPRETERS: &[&str] =
        &["ash", "bash", "dash", "ksh", "lua", "node", "perl", "php", "python", "ruby", "sh", "zsh"];
    let name = args.first().map(|first| first.rsplit('/').next().unwrap_or(first)).unwrap_or_default();
    let name = name.trim_end_matches(|letter: char| letter.is_ascii_digit() || letter == '.');
    INTERPRETERS.contains(&name)
}

/// Keeps the first so many, and counts the others.
fn bound<T>(what: &str, list: &mut Vec<T>, most: usize, cut: &mut Vec<Cut>) {
    if list.len() > most {
        cut.push(Cut { what: what.to_owned(), count: (list.len() - most) as u64 });
        list.truncate(most);
    }
}

fn tools(alerts: &[&KeptAlert]) -> Vec<Tool> {
    let mut tools: Vec<Tool> = Vec::new();
    for alert in alerts {
        let Some(utility) = &alert.utility else { continue };
        let place = tools.iter().position(|tool| tool.name == utility.name).unwrap_or_else(|| {
            tools.push(Tool {
                name: utility.name.clone(),
                category: utility.category.clone(),
                attack: Vec::new(),
                count: 0,
                paths: Vec::new(),
                disguised: false,
            });
            tools.len() - 1
        });
        let tool = &mut tools[place];
        tool.count += 1;
        tool.disguised |= utility.disguised;
        let more: Vec<String> = alert.attack.iter().filter(|id| !tool.attack.contains(id)).cloned().collect();
        tool.attack.extend(more);
        tool.paths.extend(alert.exe.clone().filter(|exe| !tool.paths.contains(exe)));
    }
    tools
}

/// A program's command line.
pub fn command(program: &Program) -> String {
    match (&program.args[..], &program.exe) {
        ([], Some(exe)) => exe.clone(),
        ([], None) => "?".to_owned(),
        (args, _) => args.join(" "),
    }
}

/// How a process ended (wait(2)).
fn outcome(status: u32) -> String {
    match status & 0x7f {
        0 => format!("exit {}", status >> 8 & 0xff),
        number => {
            let known = i32::try_from(number).ok().and_then(|it| nix::sys::signal::Signal::try_from(it).ok());
            known.map_or_else(|| format!("signal {number}"), |signal| signal.as_str().to_owned())
        }
    }
}
