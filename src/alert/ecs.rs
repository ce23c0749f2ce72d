//! The JSON form: one line, names of the Elastic Common Schema (ECS 8), nested.
//!
//! What ECS has no name for stands under `execwatch`. Strings of a process's choosing are escaped so that the line can be
//! shown on a terminal: also DEL, the control characters of 8 bits and marks of direction.

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

mod schema;

use schema::*;
pub(crate) use schema::{Agent, Ecs, HostPart, ImagePart, Rule};

/// The line, without a newline. `id` is that of a record which the daemon sends.
pub fn line(record: &Record, id: Option<RecordId>, host: &Host) -> String {
    escape::json_line(&match record {
        Record::Alert(alert) => Document::of_alert(alert, id, host),
        Record::Notice(notice) => Document::of_notice(notice, id, host),
        Record::FollowUp(record) => return crate::followup::json::line(record, id, host),
        Record::Folded(record) => return crate::fold::line(record, id, host),
    })
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

fn response(alert: &Alert) -> Option<ResponsePart> {
    let response = alert.exec.response?;
    let Response { action, rule, outcome, .. } = response;
    let (processes, spared, spared_by) = match outcome {
        Outcome::TreeKilled { processes, spared, spared_by, .. } => {
            (Some(processes), Some(spared), spared_by.words())
        }
        _ => (None, None, Vec::new()),
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
        spared_by,
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
