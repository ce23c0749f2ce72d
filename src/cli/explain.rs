//! `execwatch explain`

use std::ffi::OsString;
use std::fmt::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use super::{Files, print, report};
use crate::alert::escape::{Escaped, for_json};
use crate::alert::origin::Origin;
use crate::alert::{Clock, HostClock, Standing, people};
use crate::baseline::decision::{self, Past, Settings};
use crate::baseline::store::Store;
use crate::baseline::tuple::Tuple;
use crate::calendar::Date;
use crate::clock;
use crate::config::{self, Config};
use crate::diagnostics::Diagnostics;
use crate::event::{Absent, Bytes, Cgroup, Event, Moment, Process, Terminal};
use crate::identity::identify::Identifier;
use crate::identity::settle::Executables;
use crate::identity::{Mode, keeper};
use crate::process::capture::{CaptureSettings, Prefilter, read_running};
use crate::process::container::Named;
use crate::process::details::Namespaces;
use crate::process::exec::Exec;
use crate::process::file::OpenCount;
use crate::process::names::Accounts;
use crate::process::proc_dir::ProcRoot;
use crate::process::relatives::HostProcesses;
use crate::rules::explain::{Explanation, explain};
use crate::rules::fields::Field;
use crate::rules::model::Rule;
use crate::rules::ruleset::RuleSet;
use crate::rules::subject::{Subject, Surroundings, join};

#[derive(Args, Debug)]
#[group(skip)]
pub(super) struct ExplainArguments {
    #[command(flatten)]
    files: Files,
    /// Path of the executable [default: that of the first argument]
    #[arg(long, value_name = "PATH")]
    exe: Option<PathBuf>,
    /// User, by name or number
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Path of the parent's executable
    #[arg(long, value_name = "EXE")]
    parent: Option<PathBuf>,
    /// Path of a further ancestor's executable, the nearest first; there are no others then
    #[arg(long, value_name = "EXE")]
    ancestor: Vec<PathBuf>,
    /// Path of the cgroup, as in /proc/PID/cgroup
    #[arg(long, value_name = "PATH")]
    cgroup: Option<String>,
    /// Controlling terminal: `pts/0` or the like, or `none`
    #[arg(long, value_name = "TTY")]
    tty: Option<String>,
    /// Working directory
    #[arg(long, value_name = "PATH")]
    cwd: Option<PathBuf>,
    /// Explain a process that runs
    #[arg(long, value_name = "PID", conflicts_with_all = ["exe", "user", "parent", "ancestor", "cgroup", "tty", "cwd", "argv"])]
    pid: Option<u32>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// The command line, after `--`
    #[arg(last = true, required_unless_present = "pid", value_name = "ARGV")]
    argv: Vec<OsString>,
}

/// Exit codes of this subcommand alone: those of grep(1), so that a script can ask.
const MATCHED: u8 = 0;
const UNMATCHED: u8 = 1;
pub(super) const FAILED: u8 = 2;

/// Bytes of a value that are shown.
const SHOWN: usize = 120;

pub(super) fn run(arguments: &ExplainArguments) -> u8 {
    let diagnostics = Diagnostics::default();
    let (config, ruleset) = arguments.files.load(&diagnostics);
    if report(&diagnostics.into_list()).is_some() {
        return FAILED;
    }
    let Some(ruleset) = ruleset else { return FAILED };
    let now = clock::realtime_ns() / 1_000_000_000;
    let case = match arguments.pid {
        Some(pid) => running(pid, &config.capture, &ruleset)
            .map(|(exec, surroundings)| (exec, surroundings, Box::new(HostClock) as Box<dyn Clock>)),
        None => described(arguments, now).map(|event| {
            let mut case = event.case(0, ruleset.catalogue());
            let files = files(&config.capture, &ruleset);
            if let Some(exe) = described_exe(arguments) {
                files.describe(&exe, &mut case.exec);
            }
            case.surroundings.files = Arc::new(files);
            (case.exec, case.surroundings, Box::new(case.clock) as Box<dyn Clock>)
        }),
    };
    let (exec, surroundings, clock) = match case {
        Ok(case) => case,
        Err(message) => {
            eprintln!("execwatch: {message}");
            return FAILED;
        }
    };
    let mut subject = ruleset.subject(&exec, &surroundings, &*clock);
    let normal = Normal::of(&subject, &config);
    subject.set_past(normal.past(""));
    let origin = Origin::new(&subject, &surroundings, &*clock);
    let explanation = explain(&ruleset, &subject, Date::of_unix_time(now));
    let text = if arguments.json {
        as_json(&explanation, &subject, &ruleset, &exec, &origin)
    } else {
        as_text(&explanation, &subject, &ruleset, &exec, &normal, &origin)
    };
    match print(&text) {
        0 if explanation.matched.iter().any(|(_, exception)| exception.is_none()) => MATCHED,
        0 => UNMATCHED,
        _ => FAILED,
    }
}

/// What is installed here, and which packages own it if a rule asks.
fn files(capture: &config::Capture, ruleset: &RuleSet) -> Executables {
    let files = Executables::default();
    if capture.identity != Mode::Off {
        files.shared.index.replace(Arc::new(keeper::build(ruleset, &capture.identity_folders)));
    }
    if ruleset.wants().packages {
        files.packages.want();
        files.packages.refresh();
    }
    files
}

fn running(pid: u32, capture: &config::Capture, ruleset: &RuleSet) -> Result<(Exec, Surroundings), String> {
    let proc = ProcRoot::open(Path::new("/proc")).map_err(|error| format!("cannot open /proc: {error}"))?;
    let proc = Arc::new(proc);
    let settings = CaptureSettings { arguments_limit: capture.args_limit, hold_limit_ns: 0, priority: 0 };
    let files = Arc::new(files(capture, ruleset));
    let mut identifier = Identifier::new(capture.identity, Arc::clone(&files.shared), OpenCount::default());
    let mut exec = read_running(&proc, pid, &mut identifier, &settings, ruleset.wants())
        .ok_or_else(|| format!("there is no process {pid}, or it cannot be read"))?;
    files.settle(&mut exec);
    let namespaces = Namespaces::of_the_host(&proc);
    let processes = Box::new(HostProcesses::new(proc));
    Ok((exec, Surroundings { accounts: Accounts::default(), namespaces, processes, files }))
}

/// A program that does not run: what was not said is unknown.
fn described(arguments: &ExplainArguments, now: u64) -> Result<Event, String> {
    let exe = described_exe(arguments);
    let path = |path: &Path| Bytes::new(path.as_os_str().as_bytes());
    let process = |exe: &PathBuf| Process { exe: Some(path(exe)), ..Process::default() };
    let ancestors: Vec<Process> = arguments.parent.iter().chain(&arguments.ancestor).map(process).collect();
    let mut event = Event {
        time: Some(Moment::on_this_host(now * 1_000_000_000)),
        exe: exe.as_deref().map(path),
        args: Some(arguments.argv.iter().map(|argument| Bytes::new(argument.as_bytes())).collect()),
        cwd: arguments.cwd.as_deref().map(path),
        ancestors: Some(ancestors).filter(|ancestors| !ancestors.is_empty()),
        ancestors_complete: !arguments.ancestor.is_empty(),
        ..Event::default()
    };
    if let Some(user) = &arguments.user {
        let users = Accounts::default().users;
        let uid = match user.parse() {
            Ok(uid) => uid,
            Err(_) => {
                users.number(user).ok_or_else(|| format!("there is no user `{user}` in /etc/passwd"))?
            }
        };
        [event.uid, event.euid, event.suid, event.fsuid] = [Some(uid); 4];
        match users.name(uid) {
            Some(name) => [event.user, event.user_effective] = [Some(name.clone()), Some(name)],
            None => event.absent.extend([Absent::User, Absent::UserEffective]),
        }
    }
    event.cgroup = arguments.cgroup.as_deref().map(Cgroup::parse).transpose()?;
    match arguments.tty.as_deref() {
        Some("none") => {
            event.absent.insert(Absent::Tty);
        }
        Some(tty) => {
            let terminal = Terminal::of_name(tty)
                .ok_or_else(|| format!("`{tty}` is no terminal such as pts/0 or tty1"))?;
            event.tty = Some(terminal);
        }
        None => {}
    }
    Ok(event)
}

fn described_exe(arguments: &ExplainArguments) -> Option<PathBuf> {
    arguments.exe.clone().or_else(|| arguments.argv.first().map(executable))
}

/// The file that a shell would execute for a word, links resolved; the word itself if there is none.
fn executable(argv0: &OsString) -> PathBuf {
    let word = Path::new(argv0);
    let found = if word.as_os_str().as_bytes().contains(&b'/') {
        word.canonicalize().ok()
    } else {
        let path =
            std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/sbin:/usr/bin:/sbin:/bin"));
        std::env::split_paths(&path)
            .find_map(|folder| folder.join(word).canonicalize().ok().filter(|file| file.is_file()))
    };
    found.unwrap_or_else(|| PathBuf::from(OsString::from_vec(argv0.as_bytes().to_vec())))
}

fn shown(bytes: &[u8]) -> String {
    let mut escaped = Escaped::new(bytes);
    escaped.shorten(SHOWN);
    escaped.as_str().to_owned()
}

/// The kind of the way's beginning, and the executable of the process there.
fn entry(subject: &Subject<'_>) -> Option<(&'static str, Option<Vec<u8>>)> {
    let (kind, _) = subject.entry()?;
    let exe = Field::find("entry-leader.exe").map(|field| subject.value(&field).display().into_owned());
    Some((kind.as_str(), exe))
}

/// What the daemon's baseline knows, as far as this user may read it.
struct Normal {
    store: Option<Store>,
    program: Option<Tuple>,
    settings: Settings,
    today: u64,
}

impl Normal {
    fn of(subject: &Subject<'_>, config: &Config) -> Normal {
        let off = config.baseline.mode == decision::Mode::Off;
        let store = if off { None } else { Store::open(&config.state_folder, false).ok() };
        let days = store.as_ref().and_then(|store| store.days("").ok());
        let today = days.map_or(0, |(kept, _)| kept.number);
        Normal { store, program: Tuple::of_program(subject), settings: config.baseline, today }
    }

    /// Of the program and a rule; `None` if it is not known.
    fn past(&self, rule: &str) -> Option<Past> {
        let key = self.program.as_ref()?.with_rule(rule).key();
        let row = self.store.as_ref()?.row(&key).ok()?;
        Some(row.map_or(Past::default(), |row| row.past(self.today, &self.settings)))
    }
}

/// Where it comes from and runs: as much of it as an alert would say.
fn way(origin: &Origin) -> Vec<String> {
    let mut lines = Vec::new();
    lines.extend(origin.ssh_client.map(|client| format!("ssh client  {client}")));
    if let Some(elevation) = &origin.elevation {
        let caller = elevation.user.clone().or(elevation.uid.map(|uid| uid.to_string()));
        let caller = caller.map_or("unknown".to_owned(), |user| shown(user.as_bytes()));
        lines.push(format!("elevation   {}, called by {caller}", elevation.program));
    }
    let (place, told) = (&origin.place, &origin.container);
    for (what, value) in [
        ("container", &place.container_id),
        ("", &told.name),
        ("image", &told.image),
        ("pod", &place.pod_uid),
        ("", &told.pod_name),
        ("unit", &place.unit),
    ] {
        lines.extend(value.as_ref().map(|value| format!("{what:12}{}", shown(value.as_bytes()))));
    }
    for ancestor in &origin.ancestors {
        let command = match ancestor.image.raw_arguments().filter(|raw| !raw.is_empty()) {
            Some(raw) => shown(&join(raw)),
            None => ancestor.image.exe().map_or("(unknown)".to_owned(), shown),
        };
        let user = ancestor.user.clone().or(ancestor.uid.map(|uid| uid.to_string()));
        let user = user.map_or(String::new(), |user| format!(" ({})", shown(user.as_bytes())));
        let pid = if ancestor.pid == 0 { String::new() } else { format!("{} ", ancestor.pid) };
        lines.push(format!("under       {pid}{command}{user}"));
    }
    lines
}

fn as_text(
    explanation: &Explanation<'_>,
    subject: &Subject<'_>,
    ruleset: &RuleSet,
    exec: &Exec,
    normal: &Normal,
    origin: &Origin,
) -> String {
    let mut text = String::new();
    let mut add = |line: String| {
        let _ = writeln!(text, "{line}");
    };
    add(format!("executable  {}", exec.image.exe().map_or("unknown".to_owned(), shown)));
    add(
        match subject
            .utility()
            .and_then(|found| Some((ruleset.catalogue().utilities().get(found.utility)?, found)))
        {
            Some((utility, found)) => {
                let disguised = if found.disguised { ", shown under another name" } else { "" };
                format!(
                    "utility     {} ({}), known by its {}{disguised}",
                    utility.name,
                    utility.category,
                    found.via.as_str()
                )
            }
            None => "utility     none of the catalogue".to_owned(),
        },
    );
    if let Some((kind, leader)) = entry(subject) {
        add(format!("entry       {kind}, with {}", leader.as_deref().map_or("unknown".to_owned(), shown)));
    }
    way(origin).into_iter().for_each(&mut add);
    let unknown: Vec<&str> = exec.details.unknown().collect();
    if !unknown.is_empty() {
        add(format!("unknown     {}", unknown.join(" ")));
    }
    add(String::new());
    for (rule, exception) in &explanation.matched {
        let head = format!("matches     {:8} {}: {}", rule.severity.as_str(), rule.id, rule.title);
        let threshold = rule.threshold.as_ref().map_or(String::new(), |threshold| {
            format!(
                " (alerts once it matches {} times within {} s)",
                threshold.count,
                threshold.window_ns / 1_000_000_000
            )
        });
        add(format!("{head}{threshold}"));
        if let Some(exception) = exception {
            add(format!("            silenced by exception {}: {}", exception.id, exception.reason));
        }
        if let Some(past) = normal.past(&rule.id) {
            let standing = Standing { past: Some(past), severity_was: None };
            add(format!("            baseline: {}", people::normality(&standing)));
        }
    }
    if explanation.matched.is_empty() {
        add("no rule matches".to_owned());
    }
    add(String::new());
    for (rule, reason) in &explanation.unmatched {
        add(format!("no          {:8} {}: {reason}", rule.severity.as_str(), rule.id));
    }
    text
}

#[derive(Serialize)]
struct Json<'e> {
    matched: Vec<MatchedRule<'e>>,
    silenced: Vec<SilencedRule<'e>>,
    unmatched: Vec<UnmatchedRule<'e>>,
    utility: Option<JsonUtility<'e>>,
    entry: Option<JsonEntry>,
    ssh_client: Option<String>,
    elevation: Option<JsonElevation<'e>>,
    container: Option<JsonContainer<'e>>,
    unit: Option<&'e str>,
    ancestors: Vec<JsonAncestor>,
    executable: Option<String>,
    unknown: Vec<&'static str>,
}

#[derive(Serialize)]
struct MatchedRule<'e> {
    id: &'e str,
    severity: &'static str,
    title: &'e str,
}

#[derive(Serialize)]
struct SilencedRule<'e> {
    id: &'e str,
    severity: &'static str,
    exception: &'e str,
    reason: &'e str,
}

#[derive(Serialize)]
struct UnmatchedRule<'e> {
    id: &'e str,
    severity: &'static str,
    selection: &'e str,
    test: &'e str,
    seen: String,
    unknown: bool,
}

#[derive(Serialize)]
struct JsonEntry {
    kind: &'static str,
    executable: Option<String>,
}

#[derive(Serialize)]
struct JsonElevation<'e> {
    program: &'static str,
    uid: Option<u32>,
    user: Option<&'e str>,
}

#[derive(Serialize)]
struct JsonContainer<'e> {
    id: &'e str,
    runtime: Option<&'static str>,
    #[serde(flatten)]
    told: &'e Named,
    pod_uid: Option<&'e str>,
}

#[derive(Serialize)]
struct JsonAncestor {
    pid: Option<u32>,
    executable: Option<String>,
    args: Option<Vec<String>>,
    uid: Option<u32>,
}

#[derive(Serialize)]
struct JsonUtility<'e> {
    name: &'e str,
    category: &'e str,
    via: &'static str,
    disguised: bool,
}

fn as_json(
    explanation: &Explanation<'_>,
    subject: &Subject<'_>,
    ruleset: &RuleSet,
    exec: &Exec,
    origin: &Origin,
) -> String {
    let severity = |rule: &Rule| rule.severity.as_str();
    let json = Json {
        matched: explanation
            .matched
            .iter()
            .filter(|(_, exception)| exception.is_none())
            .map(|(rule, _)| MatchedRule { id: &rule.id, severity: severity(rule), title: &rule.title })
            .collect(),
        silenced: explanation
            .matched
            .iter()
            .filter_map(|&(rule, exception)| Some((rule, exception?)))
            .map(|(rule, exception)| SilencedRule {
                id: &rule.id,
                severity: severity(rule),
                exception: &exception.id,
                reason: &exception.reason,
            })
            .collect(),
        unmatched: explanation
            .unmatched
            .iter()
            .map(|(rule, reason)| UnmatchedRule {
                id: &rule.id,
                severity: severity(rule),
                selection: &reason.selection,
                test: &reason.test,
                seen: for_json(&reason.seen),
                unknown: reason.unknown,
            })
            .collect(),
        utility: subject.utility().and_then(|found| {
            let utility = ruleset.catalogue().utilities().get(found.utility)?;
            Some(JsonUtility {
                name: &utility.name,
                category: &utility.category,
                via: found.via.as_str(),
                disguised: found.disguised,
            })
        }),
        entry: entry(subject).map(|(kind, exe)| JsonEntry { kind, executable: exe.as_deref().map(for_json) }),
        ssh_client: origin.ssh_client.map(|client| client.to_string()),
        elevation: origin.elevation.as_ref().map(|elevation| JsonElevation {
            program: elevation.program,
            uid: elevation.uid,
            user: elevation.user.as_deref(),
        }),
        container: origin.place.container_id.as_deref().map(|id| JsonContainer {
            id,
            runtime: origin.place.runtime,
            told: &origin.container,
            pod_uid: origin.place.pod_uid.as_deref(),
        }),
        unit: origin.place.unit.as_deref(),
        ancestors: origin
            .ancestors
            .iter()
            .map(|ancestor| JsonAncestor {
                pid: Some(ancestor.pid).filter(|&pid| pid != 0),
                executable: ancestor.image.exe().map(for_json),
                args: ancestor.image.argv().map(|argv| argv.map(for_json).collect()),
                uid: ancestor.uid,
            })
            .collect(),
        executable: exec.image.exe().map(for_json),
        unknown: exec.details.unknown().collect(),
    };
    // Its keys are strings, and a string takes anything.
    serde_json::to_string(&json).unwrap_or_default() + "\n"
}
