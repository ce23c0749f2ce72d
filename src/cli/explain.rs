//! `execwatch explain`

use std::ffi::OsString;
use std::fmt::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use super::{Files, print, report};
use crate::alert::HostClock;
use crate::alert::escape::{Escaped, for_json};
use crate::calendar::Date;
use crate::clock;
use crate::config;
use crate::diagnostics::Diagnostics;
use crate::identity::identify::Identifier;
use crate::identity::settle::Executables;
use crate::identity::{Mode, keeper};
use crate::process::capture::{CaptureSettings, Prefilter, read_running};
use crate::process::details::Namespaces;
use crate::process::exec::{Exec, Image};
use crate::process::file::OpenCount;
use crate::process::names::Accounts;
use crate::process::proc_dir::ProcRoot;
use crate::process::relatives::{HostProcesses, Processes, Relative};
use crate::rules::explain::{Explanation, Reason, explain};
use crate::rules::model::Rule;
use crate::rules::ruleset::RuleSet;
use crate::rules::subject::{Subject, Surroundings};

#[derive(Args, Debug)]
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
    let case = match arguments.pid {
        Some(pid) => running(pid, &config.capture, &ruleset),
        None => described(arguments, &config.capture, &ruleset),
    };
    let (exec, surroundings) = match case {
        Ok(case) => case,
        Err(message) => {
            eprintln!("execwatch: {message}");
            return FAILED;
        }
    };
    let now = clock::realtime_ns() / 1_000_000_000;
    let subject = ruleset.subject(&exec, &surroundings, &HostClock);
    let explanation = explain(&ruleset, &subject, Date::of_unix_time(now));
    let text = if arguments.json {
        as_json(&explanation, &subject, &ruleset, &exec)
    } else {
        as_text(&explanation, &subject, &ruleset, &exec)
    };
    match print(&text) {
        0 if explanation.matched.iter().any(|(_, exception)| exception.is_none()) => MATCHED,
        0 => UNMATCHED,
        _ => FAILED,
    }
}

type Case = (Exec, Surroundings);

/// What is installed here, and which packages own it if a rule asks.
fn files(capture: &config::Capture, ruleset: &RuleSet) -> Executables {
    let files = Executables::default();
    if capture.identity != Mode::Off {
        files.shared.replace(Arc::new(keeper::build(ruleset, &capture.identity_folders)));
    }
    if ruleset.wants().packages {
        files.packages.want();
        files.packages.refresh();
    }
    files
}

fn running(pid: u32, capture: &config::Capture, ruleset: &RuleSet) -> Result<Case, String> {
    let proc = ProcRoot::open(Path::new("/proc")).map_err(|error| format!("cannot open /proc: {error}"))?;
    let proc = Arc::new(proc);
    let settings = CaptureSettings { arguments_limit: capture.args_limit, hold_limit_ns: 0 };
    let files = Arc::new(files(capture, ruleset));
    let mut identifier = Identifier::new(capture.identity, Arc::clone(&files.shared), OpenCount::default());
    let mut exec = read_running(&proc, pid, &mut identifier, &settings, ruleset.wants())
        .ok_or_else(|| format!("there is no process {pid}, or it cannot be read"))?;
    files.settle(&mut exec);
    let namespaces = Namespaces::own(&proc);
    let processes = Box::new(HostProcesses::new(proc));
    Ok((exec, Surroundings { accounts: Accounts::default(), namespaces, processes, files }))
}

/// A program that does not run: what was not said is unknown.
fn described(
    arguments: &ExplainArguments,
    capture: &config::Capture,
    ruleset: &RuleSet,
) -> Result<Case, String> {
    let accounts = Accounts::default();
    let argv: Vec<Vec<u8>> = arguments.argv.iter().map(|argument| argument.as_bytes().to_vec()).collect();
    let exe = match (&arguments.exe, arguments.argv.first()) {
        (Some(exe), _) => Some(exe.clone()),
        (None, Some(argv0)) => Some(executable(argv0)),
        (None, None) => None,
    };
    let image = |exe: &Path| Image::new(Some(exe.as_os_str().as_bytes()), None::<&[&[u8]]>);
    let mut exec = Exec {
        image: Image::new(exe.as_deref().map(|exe| exe.as_os_str().as_bytes()), Some(&argv)),
        timestamp_ns: clock::monotonic_ns(),
        pid: u32::MAX,
        ..Exec::default()
    };
    let files = Arc::new(files(capture, ruleset));
    if let Some(exe) = &exe {
        files.describe(exe, &mut exec);
    }
    let details = &mut exec.details;
    if let Some(user) = &arguments.user {
        let uid = match user.parse() {
            Ok(uid) => uid,
            Err(_) => accounts
                .users
                .number(user)
                .ok_or_else(|| format!("there is no user `{user}` in /etc/passwd"))?,
        };
        details.uids = Some([uid; 4]);
    }
    if let Some(cgroup) = &arguments.cgroup {
        // A path, or a whole line of the file.
        let line = if cgroup.starts_with('/') { format!("0::{cgroup}") } else { cgroup.clone() };
        details.set_cgroup(line.as_bytes());
    }
    if let Some(tty) = &arguments.tty {
        details.tty =
            Some(terminal(tty).ok_or_else(|| format!("`{tty}` is no terminal such as pts/0 or tty1"))?);
    }
    if let Some(cwd) = &arguments.cwd {
        details.set_cwd(cwd.as_os_str().as_bytes());
    }
    let mut relatives: Vec<Relative> = Vec::new();
    for exe in arguments.parent.iter().chain(&arguments.ancestor) {
        relatives.push(Relative { image: image(exe), ..Relative::default() });
    }
    if let Some(parent) = &arguments.parent {
        details.parent = image(parent);
    }
    details.ppid = (!relatives.is_empty()).then_some(1);
    let count = relatives.len() as u32;
    for (number, relative) in (1..).zip(&mut relatives) {
        relative.pid = number;
        let last = number == count;
        relative.ppid = match (last, arguments.ancestor.is_empty()) {
            (false, _) => Some(number + 1),
            (true, false) => Some(0),
            (true, true) => None,
        };
    }
    let processes = Box::new(Described(relatives));
    Ok((exec, Surroundings { accounts, namespaces: Namespaces::default(), processes, files }))
}

/// Processes as the command line describes them, numbered from 1.
#[derive(Debug)]
struct Described(Vec<Relative>);

impl Processes for Described {
    fn find(&self, pid: u32, _: Option<u64>) -> Option<Relative> {
        self.0.get(usize::try_from(pid).ok()?.checked_sub(1)?).cloned()
    }
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

/// The device number of a terminal's name.
fn terminal(name: &str) -> Option<u32> {
    if name == "none" {
        return Some(0);
    }
    let number =
        |prefix: &str| name.strip_prefix(prefix)?.parse::<u32>().ok().filter(|&number| number < 1024);
    let device = |major: u32, minor: u32| major << 8 | (minor & 0xff) | (minor & !0xff) << 12;
    if let Some(minor) = number("pts/") {
        return Some(device(136 + minor / 256, minor % 256));
    }
    if let Some(minor) = number("ttyS") {
        return Some(device(4, 64 + minor));
    }
    number("tty").map(|minor| device(4, minor))
}

fn shown(bytes: &[u8]) -> String {
    let mut escaped = Escaped::new(bytes);
    escaped.shorten(SHOWN);
    escaped.as_str().to_owned()
}

fn why(reason: &Reason) -> String {
    let selection = &reason.selection;
    if reason.test.is_empty() {
        return format!("selection `{selection}` holds, which the condition excludes");
    }
    if reason.unknown {
        return format!("selection `{selection}`: {} is unknown", reason.test);
    }
    format!("selection `{selection}`: {} does not fit {}", reason.test, shown(&reason.seen))
}

fn as_text(explanation: &Explanation<'_>, subject: &Subject<'_>, ruleset: &RuleSet, exec: &Exec) -> String {
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
    let unknown: Vec<&str> = exec.details.unknown().collect();
    if !unknown.is_empty() {
        add(format!("unknown     {}", unknown.join(" ")));
    }
    add(String::new());
    for (rule, exception) in &explanation.matched {
        let head = format!("matches     {:8} {}: {}", rule.severity.as_str(), rule.id, rule.title);
        let threshold = rule.threshold.as_ref().map_or(String::new(), |threshold| {
            format!(" (alerts at the {}th within {} s)", threshold.count, threshold.window_ns / 1_000_000_000)
        });
        add(format!("{head}{threshold}"));
        if let Some(exception) = exception {
            add(format!("            silenced by exception {}: {}", exception.id, exception.reason));
        }
    }
    if explanation.matched.is_empty() {
        add("no rule matches".to_owned());
    }
    add(String::new());
    for (rule, reason) in &explanation.unmatched {
        add(format!("no          {:8} {}: {}", rule.severity.as_str(), rule.id, why(reason)));
    }
    text
}

#[derive(Serialize)]
struct Json<'e> {
    matched: Vec<MatchedRule<'e>>,
    silenced: Vec<SilencedRule<'e>>,
    unmatched: Vec<UnmatchedRule<'e>>,
    utility: Option<JsonUtility<'e>>,
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
struct JsonUtility<'e> {
    name: &'e str,
    category: &'e str,
    via: &'static str,
    disguised: bool,
}

fn as_json(explanation: &Explanation<'_>, subject: &Subject<'_>, ruleset: &RuleSet, exec: &Exec) -> String {
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
        executable: exec.image.exe().map(for_json),
        unknown: exec.details.unknown().collect(),
    };
    // Its keys are strings, and a string takes anything.
    serde_json::to_string(&json).unwrap_or_default() + "\n"
}
