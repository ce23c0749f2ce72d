//! The JSON form: one line, names of the Elastic Common Schema (ECS 8), nested.
//!
//! What ECS has no name for stands under `execwatch`. Strings of a process's choosing are escaped so that the line can be
//! shown on a terminal: also DEL, the control characters of 8 bits and marks of direction.

use serde::Serialize;

use super::escape::{self, for_json};
use super::origin::{Ancestor, Origin};
use super::{Alert, Host, Notice, Record, RecordId, Standing};
use crate::calendar;
use crate::process::details::Login;
use crate::process::exec::Image;
use crate::process::parse::{cgroup_paths, tty_name};
use crate::response::{Outcome, Response};
use crate::rules::model::Severity;
use crate::rules::subject::join;

/// Version of the schema whose names are used.
const ECS: &str = "8.17.0";

/// The line, without a newline. `id` is that of a record which the daemon sends.
pub fn line(record: &Record, id: Option<RecordId>, host: &Host) -> String {
    escape::json_line(&match record {
        Record::Alert(alert) => Document::of_alert(alert, id, host),
        Record::Notice(notice) => Document::of_notice(notice, id, host),
        Record::FollowUp(record) => return crate::followup::json::line(record, id, host),
        Record::Folded(record) => return crate::fold::line(record, id, host),
    })
}

#[derive(Serialize)]
struct Document<'a> {
    #[serde(rename = "@timestamp")]
    timestamp: String,
    message: &'a str,
    ecs: Ecs,
    event: Event<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<Rule<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    threat: Option<Threat<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<Process<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<File<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<User<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<Source>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<Container<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    orchestrator: Option<Orchestrator<'a>>,
    host: HostPart<'a>,
    agent: Agent,
    execwatch: Own<'a>,
}

#[derive(Serialize)]
pub(crate) struct Ecs {
    version: &'static str,
}

impl Ecs {
    /// The version whose names are used.
    pub(crate) const CURRENT: Ecs = Ecs { version: ECS };
}

#[derive(Serialize)]
struct Event<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    kind: &'static str,
    category: [&'static str; 1],
    #[serde(rename = "type")]
    kinds: [&'static str; 1],
    action: &'static str,
    module: &'static str,
    dataset: &'static str,
    severity: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
}

#[derive(Serialize)]
pub(crate) struct Rule<'a> {
    pub(crate) id: &'a str,
    pub(crate) name: &'a str,
}

#[derive(Serialize)]
struct Threat<'a> {
    framework: &'static str,
    technique: Technique<'a>,
}

#[derive(Serialize)]
struct Technique<'a> {
    id: &'a [String],
}

#[derive(Serialize)]
struct Process<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start: Option<String>,
    #[serde(flatten)]
    image: ImagePart,
    #[serde(skip_serializing_if = "Option::is_none")]
    hash: Option<Hash<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    working_directory: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    interactive: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tty: Option<Tty>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_leader: Option<Pid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entry_leader: Option<Relative<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    previous: Vec<ImagePart>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<Relative<'a>>,
}

#[derive(Serialize)]
struct Hash<'a> {
    sha256: &'a str,
}

/// The executable's file.
#[derive(Serialize)]
struct File<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    inode: String,
    mode: String,
    size: u64,
    uid: String,
    gid: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mtime: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ctime: Option<String>,
}

#[derive(Serialize, Default)]
pub(crate) struct ImagePart {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    executable: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    args: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    args_count: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    command_line: Option<String>,
}

/// An ancestor. What ECS has no name for is `learnt` and `ended`.
#[derive(Serialize, Default)]
struct Relative<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    #[serde(flatten)]
    image: ImagePart,
    #[serde(skip_serializing_if = "Option::is_none")]
    start: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<Account<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    learnt: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entry_meta: Option<EntryMeta>,
}

#[derive(Serialize)]
struct EntryMeta {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<EntrySource>,
}

#[derive(Serialize)]
struct EntrySource {
    ip: String,
}

#[derive(Serialize)]
struct Source {
    ip: String,
    port: u16,
}

#[derive(Serialize)]
struct Container<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    runtime: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<ImageName<'a>>,
}

#[derive(Serialize)]
struct ImageName<'a> {
    name: &'a str,
}

/// The pod.
#[derive(Serialize)]
struct Orchestrator<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
    resource: Resource<'a>,
}

#[derive(Serialize)]
struct Resource<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
}

#[derive(Serialize)]
struct Elevation<'a> {
    program: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<Account<'a>>,
}

#[derive(Serialize)]
struct Pid {
    pid: u32,
}

#[derive(Serialize)]
struct Tty {
    char_device: Device,
}

#[derive(Serialize)]
struct Device {
    major: u32,
    minor: u32,
}

#[derive(Serialize)]
struct User<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<Group>,
    #[serde(skip_serializing_if = "Option::is_none")]
    effective: Option<Account<'a>>,
}

#[derive(Serialize)]
struct Group {
    id: String,
}

#[derive(Serialize, PartialEq)]
struct Account<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
}

#[derive(Serialize)]
pub(crate) struct HostPart<'a> {
    name: &'a str,
    hostname: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    id: &'a str,
    os: Os<'a>,
}

#[derive(Serialize)]
struct Os<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    kernel: &'a str,
}

#[derive(Serialize)]
pub(crate) struct Agent {
    #[serde(rename = "type")]
    kind: &'static str,
    version: &'static str,
}

/// What ECS has no name for.
#[derive(Serialize)]
struct Own<'a> {
    severity: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    notice: Option<&'static str>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    rules: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    utility: Option<Utility<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    incident: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<ResponsePart>,
    #[serde(skip_serializing_if = "Option::is_none")]
    baseline: Option<Baseline>,
    #[serde(skip_serializing_if = "Option::is_none")]
    login: Option<Account<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logged_in: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    audit_session: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    comm: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tty: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    umask: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    saved_and_fs_ids: Option<SavedIds>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exe_deleted: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exe_memfd: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exe_device: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exe_links: Option<u32>,
    /// All that are known, the parent first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ancestors: Vec<Relative<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ancestors_complete: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    adopted_by: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entry: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    elevation: Option<Elevation<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    slice: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cgroups: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespaces: Option<Namespaces<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    args_cut: Option<ArgsCut>,
    #[serde(skip_serializing_if = "Option::is_none")]
    capture: Option<Capture>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unknown: Vec<&'static str>,
}

#[derive(Serialize)]
struct Utility<'a> {
    name: &'a str,
    category: &'a str,
    via: &'static str,
    disguised: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    same_as: Option<SameAs<'a>>,
}

/// Whether that is normal here.
#[derive(Serialize)]
struct Baseline {
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_seen: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    days: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    approved: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    severity_was: Option<&'static str>,
}

/// The installed file that was executed under another path, or of which a copy was.
#[derive(Serialize)]
struct SameAs<'a> {
    path: String,
    by: &'static str,
    value: &'a str,
}

/// ECS names only real and effective ids.
#[derive(Serialize, Default, PartialEq)]
struct SavedIds {
    #[serde(skip_serializing_if = "Option::is_none")]
    saved_uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fs_uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    effective_gid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    saved_gid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fs_gid: Option<u32>,
}

#[derive(Serialize)]
struct Namespaces<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mnt: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    net: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<u64>,
    #[serde(skip_serializing_if = "<[&str]>::is_empty")]
    not_the_hosts: &'a [&'static str],
}

#[derive(Serialize)]
struct ArgsCut {
    kept: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    length: Option<u64>,
}

#[derive(Serialize)]
struct Capture {
    certainty: &'static str,
    cpu: u32,
    hold_us: u64,
}

/// Elastic's numbers for the words.
pub(crate) fn severity(severity: Severity) -> u8 {
    match severity {
        Severity::Info => 1,
        Severity::Low => 21,
        Severity::Medium => 47,
        Severity::High => 73,
        Severity::Critical => 99,
    }
}

pub(crate) fn host_part(host: &Host) -> HostPart<'_> {
    HostPart {
        name: &host.name,
        hostname: &host.name,
        id: &host.id,
        os: Os { kind: "linux", kernel: &host.kernel },
    }
}

pub(crate) const AGENT: Agent = Agent { kind: "execwatch", version: env!("CARGO_PKG_VERSION") };

impl<'a> Document<'a> {
    fn of_alert(alert: &'a Alert, id: Option<RecordId>, host: &'a Host) -> Self {
        Document {
            timestamp: calendar::rfc3339(alert.time_ns),
            message: &alert.rule.title,
            ecs: Ecs::CURRENT,
            event: Event {
                id: Some(&alert.id),
                kind: "alert",
                category: ["process"],
                kinds: [if alert.already_running() { "info" } else { "start" }],
                action: if alert.already_running() { "already-running" } else { "exec" },
                module: "execwatch",
                dataset: "execwatch.alert",
                severity: severity(alert.rule.severity),
                sequence: id.map(|id| id.number),
            },
            rule: Some(Rule { id: &alert.rule.id, name: &alert.rule.title }),
            threat: (!alert.attack.is_empty())
                .then_some(Threat { framework: "MITRE ATT&CK", technique: Technique { id: &alert.attack } }),
            process: Some(process(alert)),
            file: file(alert),
            user: user(alert),
            source: alert
                .origin
                .ssh_client
                .map(|client| Source { ip: client.ip().to_string(), port: client.port() }),
            container: container(&alert.origin),
            orchestrator: orchestrator(&alert.origin),
            host: host_part(host),
            agent: AGENT,
            execwatch: Own { record: id.map(|id| id.to_string()), ..own(alert) },
        }
    }

    fn of_notice(notice: &'a Notice, id: Option<RecordId>, host: &'a Host) -> Self {
        Document {
            timestamp: calendar::rfc3339(notice.time_ns),
            message: &notice.message,
            ecs: Ecs::CURRENT,
            event: Event {
                id: None,
                kind: "event",
                category: ["host"],
                kinds: ["info"],
                action: notice.kind,
                module: "execwatch",
                dataset: "execwatch.notice",
                severity: severity(notice.severity),
                sequence: id.map(|id| id.number),
            },
            rule: None,
            threat: None,
            process: None,
            file: None,
            user: None,
            source: None,
            container: None,
            orchestrator: None,
            host: host_part(host),
            agent: AGENT,
            execwatch: Own {
                severity: notice.severity.as_str(),
                record: id.map(|id| id.to_string()),
                notice: Some(notice.kind),
                rules: &[],
                utility: None,
                incident: None,
                response: None,
                baseline: None,
                login: None,
                logged_in: None,
                audit_session: None,
                comm: None,
                tty: None,
                umask: None,
                saved_and_fs_ids: None,
                exe_deleted: None,
                exe_memfd: None,
                exe_device: None,
                exe_links: None,
                ancestors: Vec::new(),
                ancestors_complete: None,
                adopted_by: None,
                entry: None,
                elevation: None,
                unit: None,
                slice: None,
                cgroups: Vec::new(),
                namespaces: None,
                args_cut: None,
                capture: None,
                unknown: Vec::new(),
            },
        }
    }
}

/// What was done about the program.
#[derive(Serialize)]
struct ResponsePart {
    action: &'static str,
    rule: String,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    certainty: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kept_by: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    processes: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    spared: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

fn response(alert: &Alert) -> Option<ResponsePart> {
    let response = alert.exec.response?;
    let Response { action, rule, outcome, .. } = response;
    let (processes, spared) = match outcome {
        Outcome::TreeKilled { processes, spared, .. } => (Some(processes), Some(spared)),
        _ => (None, None),
    };
    Some(ResponsePart {
        action: action.as_str(),
        rule: rule.as_str().to_owned(),
        outcome: outcome.as_str(),
        certainty: response.certainty(),
        after_us: outcome.after_us(),
        kept_by: if let Outcome::Refused(guard) = outcome { Some(guard.as_str()) } else { None },
        processes,
        spared,
        error: match outcome {
            Outcome::Failed(number) => Some(std::io::Error::from_raw_os_error(number).to_string()),
            _ => None,
        },
    })
}

fn baseline(standing: &Standing) -> Baseline {
    let past = standing.past;
    let since = past.and_then(|past| past.since_s);
    Baseline {
        state: standing.as_str(),
        first_seen: past.map(|_| standing.first_seen()),
        count: past.map(|past| past.count),
        days: past.map(|past| past.days),
        since: since.map(|since| calendar::rfc3339(since.saturating_mul(1_000_000_000))),
        approved: past.filter(|past| past.approved).map(|_| true),
        severity_was: standing.severity_was.map(Severity::as_str),
    }
}

fn user(alert: &Alert) -> Option<User<'_>> {
    let details = &alert.exec.details;
    let account = |which: usize| {
        let (uid, name) = (details.uid(which), alert.users[which].as_deref());
        (uid.is_some() || name.is_some()).then(|| Account { id: uid.map(|uid| uid.to_string()), name })
    };
    let (real, effective) = (account(0), account(1));
    let group = details.gid(0).map(|gid| Group { id: gid.to_string() });
    let differ = real != effective;
    let known = real.is_some() || effective.is_some() || group.is_some();
    let (id, name) = real.map_or((None, None), |real| (real.id, real.name));
    known.then_some(User { id, name, group, effective: effective.filter(|_| differ) })
}

/// The executable's file, as far as it was looked at.
fn file(alert: &Alert) -> Option<File<'_>> {
    let file = alert.exec.file?;
    let time = |ns: i64| u64::try_from(ns).ok().map(calendar::rfc3339);
    Some(File {
        path: alert.exec.image.exe().map(for_json),
        inode: file.inode.to_string(),
        mode: format!("{:04o}", file.permissions()),
        size: file.size,
        uid: file.uid.to_string(),
        gid: file.gid.to_string(),
        owner: alert.file_names[0].as_deref(),
        group: alert.file_names[1].as_deref(),
        mtime: time(file.modified_ns),
        ctime: time(file.changed_ns),
    })
}

fn process(alert: &Alert) -> Process<'_> {
    let (exec, details) = (&alert.exec, &alert.exec.details);
    Process {
        pid: Some(exec.pid).filter(|&pid| pid != 0),
        start: alert.start_ns.map(calendar::rfc3339),
        image: image(&exec.image),
        hash: alert.sha256.as_deref().map(|sha256| Hash { sha256 }),
        working_directory: details.cwd().map(for_json),
        interactive: details.tty.map(|device| device != 0),
        tty: details.tty.filter(|&device| device != 0).map(|device| Tty {
            char_device: Device {
                major: (device >> 8) & 0xfff,
                minor: (device & 0xff) | ((device >> 12) & 0xf_ff00),
            },
        }),
        session_leader: details.session.filter(|&session| session != 0).map(|pid| Pid { pid }),
        entry_leader: entry_leader(alert),
        previous: alert.origin.earlier.iter().map(image).collect(),
        parent: parent(alert),
    }
}

/// What was read of the parent when the program was executed, with what lineage knows besides.
fn parent(alert: &Alert) -> Option<Relative<'_>> {
    let details = &alert.exec.details;
    let first = alert.origin.ancestors.first();
    let of_lineage = first.filter(|first| details.ppid.is_none_or(|pid| pid == first.pid)).map(relative);
    let Some(parent) = of_lineage else {
        return details.ppid.map(|pid| Relative {
            pid: Some(pid),
            image: image(&details.parent),
            ..Relative::default()
        });
    };
    let image = if details.parent.is_empty() { parent.image } else { image(&details.parent) };
    Some(Relative { image, ..parent })
}

fn relative(ancestor: &Ancestor) -> Relative<'_> {
    let known = ancestor.uid.is_some() || ancestor.user.is_some();
    Relative {
        pid: Some(ancestor.pid).filter(|&pid| pid != 0),
        image: image(&ancestor.image),
        start: ancestor.start_ns.map(calendar::rfc3339),
        user: known
            .then(|| Account { id: ancestor.uid.map(|uid| uid.to_string()), name: ancestor.user.as_deref() }),
        learnt: Some(ancestor.learnt.as_str()),
        ended: ancestor.ended.then_some(true),
        entry_meta: None,
    }
}

fn entry_leader(alert: &Alert) -> Option<Relative<'_>> {
    let origin = &alert.origin;
    let leader = match origin.leader() {
        Some(leader) => relative(leader),
        // The program itself.
        None if origin.entry_leader == Some(0) => Relative {
            pid: Some(alert.exec.pid).filter(|&pid| pid != 0),
            image: image(&alert.exec.image),
            start: alert.start_ns.map(calendar::rfc3339),
            ..Relative::default()
        },
        None => return None,
    };
    let source = origin.ssh_client.map(|client| EntrySource { ip: client.ip().to_string() });
    Some(Relative { entry_meta: origin.entry.map(|kind| EntryMeta { kind, source }), ..leader })
}

fn container(origin: &Origin) -> Option<Container<'_>> {
    let (place, told) = (&origin.place, &origin.container);
    let container = Container {
        id: place.container_id.as_deref(),
        runtime: place.runtime,
        name: told.name.as_deref(),
        image: told.image.as_deref().map(|name| ImageName { name }),
    };
    (container.id.is_some() || container.runtime.is_some()).then_some(container)
}

fn orchestrator(origin: &Origin) -> Option<Orchestrator<'_>> {
    let told = &origin.container;
    let pod = Resource { kind: "pod", id: origin.place.pod_uid.as_deref(), name: told.pod_name.as_deref() };
    (pod.id.is_some() || pod.name.is_some()).then_some(Orchestrator {
        kind: "kubernetes",
        namespace: told.pod_namespace.as_deref(),
        resource: pod,
    })
}

pub(crate) fn image(image: &Image) -> ImagePart {
    ImagePart {
        name: image.name().map(for_json),
        executable: image.exe().map(for_json),
        args: image.argv().map(|argv| argv.map(for_json).collect()),
        args_count: image.argv().filter(|_| !image.cut()).map(Iterator::count),
        command_line: image.raw_arguments().map(|raw| for_json(&join(raw))),
    }
}

fn own(alert: &Alert) -> Own<'_> {
    let (exec, details) = (&alert.exec, &alert.exec.details);
    let namespaces = &details.namespaces;
    // A described exec may be known to be in a namespace whose id is not.
    let real = |id: Option<u64>| id.filter(|&id| id != 0);
    Own {
        severity: alert.rule.severity.as_str(),
        record: None,
        notice: None,
        rules: &alert.rules,
        utility: alert.utility.as_ref().map(|utility| Utility {
            name: &utility.name,
            category: &utility.category,
            via: utility.via.as_str(),
            disguised: utility.disguised,
            same_as: utility.identity.as_ref().map(|identity| SameAs {
                path: for_json(&identity.path),
                by: identity.by.as_str(),
                value: &identity.value,
            }),
        }),
        incident: alert.incident.as_deref(),
        response: response(alert),
        baseline: alert.baseline.map(|standing| baseline(&standing)),
        login: details
            .login
            .and_then(Login::user)
            .map(|uid| Account { id: Some(uid.to_string()), name: alert.users[2].as_deref() })
            .or_else(|| alert.users[2].as_deref().map(|name| Account { id: None, name: Some(name) })),
        logged_in: details.login.map(|login| login != Login::Nobody),
        audit_session: details.audit_session.filter(|&session| session != u32::MAX),
        comm: details.comm().map(for_json),
        tty: details.tty.and_then(tty_name),
        umask: details.umask.map(|umask| format!("{umask:04o}")),
        saved_and_fs_ids: Some(SavedIds {
            saved_uid: details.uid(2),
            fs_uid: details.uid(3),
            effective_gid: details.gid(1),
            saved_gid: details.gid(2),
            fs_gid: details.gid(3),
        })
        .filter(|ids| *ids != SavedIds::default()),
        exe_deleted: exec.image.deleted().filter(|&deleted| deleted),
        exe_memfd: exec.image.memfd().filter(|&memfd| memfd),
        exe_device: exec.file.map(|file| format!("{}:{}", file.device.0, file.device.1)),
        exe_links: exec.file.map(|file| file.links),
        // The argument list is enough: two forms of it would fill a syslog message.
        ancestors: alert
            .origin
            .ancestors
            .iter()
            .map(relative)
            .map(|it| Relative { image: ImagePart { command_line: None, ..it.image }, ..it })
            .collect(),
        ancestors_complete: (!alert.origin.ancestors.is_empty()).then_some(alert.origin.complete),
        adopted_by: details.adopter,
        entry: alert.origin.entry,
        elevation: alert.origin.elevation.as_ref().map(|elevation| Elevation {
            program: elevation.program,
            user: (elevation.uid.is_some() || elevation.user.is_some()).then(|| Account {
                id: elevation.uid.map(|uid| uid.to_string()),
                name: elevation.user.as_deref(),
            }),
        }),
        unit: alert.origin.place.unit.as_deref(),
        slice: alert.origin.place.slice.as_deref(),
        cgroups: details
            .cgroup()
            .map(|cgroup| cgroup_paths(cgroup).map(for_json).collect())
            .unwrap_or_default(),
        namespaces: (namespaces.pid.is_some() || !alert.namespaces.is_empty()).then(|| Namespaces {
            pid: real(namespaces.pid),
            mnt: real(namespaces.mnt),
            net: real(namespaces.net),
            user: real(namespaces.user),
            not_the_hosts: &alert.namespaces,
        }),
        args_cut: exec.image.cut().then(|| ArgsCut {
            kept: exec.image.raw_arguments().map_or(0, <[u8]>::len),
            length: details.arguments_length,
        }),
        capture: Some(Capture {
            certainty: exec.certainty.as_str(),
            cpu: exec.cpu,
            hold_us: exec.hold_ns / 1000,
        }),
        unknown: details.unknown().collect(),
    }
}
