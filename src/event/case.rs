//! From an event to what rules are evaluated on.

use std::sync::Arc;

use super::{Absent, Bytes, Event, Moment, Namespaces, Process};
use crate::alert::Clock;
use crate::calendar::LocalTime;
use crate::process::container::Named;
use crate::process::details::{self, Details, Login, UNSET};
use crate::process::exec::{Certainty, Exec, Image};
use crate::process::names::{Accounts, Name, OwnNames};
use crate::process::parse;
use crate::process::place::Place;
use crate::process::relatives::{Ancestors, Leader, Processes, Relative};
use crate::rules::catalogue::Catalogue;
use crate::rules::subject::Surroundings;

/// An event as rules are evaluated on it.
#[derive(Debug)]
pub struct Case {
    /// The exec.
    pub exec: Exec,
    /// The other processes, and what belongs to the host.
    pub surroundings: Surroundings,
    /// Its time.
    pub clock: EventClock,
}

/// The clock of one event: its stamps and start times are nanoseconds since 1970 already.
#[derive(Debug, Clone, Copy)]
pub struct EventClock {
    offset: Option<i32>,
}

impl Clock for EventClock {
    fn wall_from_monotonic(&self, stamp_ns: u64) -> u64 {
        stamp_ns
    }

    fn wall_from_start_ticks(&self, ticks: u64) -> u64 {
        ticks
    }

    fn local(&self, seconds: u64) -> Option<LocalTime> {
        let ns = seconds.saturating_mul(1_000_000_000);
        self.offset.map(|offset| Moment { ns, offset }.local())
    }
}

impl Event {
    /// What rules are evaluated on. `otherwise_ns` stands for a time that is not said, in nanoseconds since 1970, where
    /// exceptions expire and thresholds count; rules about the time of day do not see it. The catalogue is that of the rules.
    pub fn case(&self, otherwise_ns: u64, catalogue: &Catalogue) -> Case {
        let mut exec = Exec {
            pid: self.pid.unwrap_or_default(),
            cpu: self.cpu.unwrap_or_default(),
            timestamp_ns: self.time.map_or(otherwise_ns, |time| time.ns),
            hold_ns: self.hold_ns.unwrap_or_default(),
            certainty: self.certainty.unwrap_or(Certainty::Reported),
            image: image(self.exe.as_ref(), self.args.as_deref(), self.args_cut),
            ancestors: self.ancestors(),
            ..Exec::default()
        };
        let host_namespaces = self.fill(&mut exec.details);
        self.fill_file(&mut exec, catalogue);
        Case {
            exec,
            surroundings: Surroundings {
                // Nothing is looked up: the event brings its names along.
                accounts: Accounts::none(),
                namespaces: host_namespaces,
                processes: Box::new(self.processes()),
                files: Arc::default(),
            },
            clock: EventClock { offset: self.time.map(|time| time.offset) },
        }
    }

    /// Fills in the details; returns the namespaces of the host.
    fn fill(&self, details: &mut Details) -> details::Namespaces {
        details.uids = ids([self.uid, self.euid, self.suid, self.fsuid]);
        details.gids = ids([self.gid, self.egid, self.sgid, self.fsgid]);
        let name = |name: &Option<String>, key| named(name.as_ref(), &self.absent, key);
        details.names = Some(Box::new(OwnNames {
            user: name(&self.user, Absent::User),
            effective: name(&self.user_effective, Absent::UserEffective),
            login: name(&self.login_user, Absent::LoginUser),
            group: name(&self.group, Absent::Group),
            groups: self.groups.clone(),
        }));
        let somebody = self.login_user.is_some() || self.absent.contains(&Absent::LoginUser);
        details.login = match self.loginuid {
            _ if self.absent.contains(&Absent::Loginuid) => Some(Login::Nobody),
            Some(uid) => Some(Login::User(uid)),
            None => somebody.then_some(Login::Somebody),
        };
        details.audit_session =
            if self.absent.contains(&Absent::AuditSession) { Some(UNSET) } else { self.audit_session };
        details.umask = self.umask;
        details.adopter = self.adopter;
        details.ssh_client = self.ssh_client;
        details.session = self.session;
        details.pgid = self.process_group;
        details.vpid = self.vpid;
        let set = |set: Option<super::CapabilitySet>| set.map(|set| set.0);
        details.capabilities = parse::Capabilities {
            inheritable: set(self.capabilities.inheritable),
            permitted: set(self.capabilities.permitted),
            effective: set(self.capabilities.effective),
            bounding: set(self.capabilities.bounding),
            ambient: set(self.capabilities.ambient),
        };
        details.tty = match self.tty {
            _ if self.absent.contains(&Absent::Tty) => Some(0),
            tty => tty.map(super::Terminal::device),
        };
        details.start_ticks = self.start.map(|start| start.ns);
        details.arguments_length = self.args_length;
        details.upper_layer = self.exe_upper_layer;
        let orphan = self.ancestors_complete && self.ancestors.as_ref().is_none_or(Vec::is_empty);
        let first = self.ancestors.iter().flatten().next();
        let parent = self.parent.as_ref().or(first);
        details.ppid = self.ppid.or(parent.and_then(|parent| parent.pid)).or(orphan.then_some(0));
        if let Some(parent) = parent {
            details.parent = parent.image();
        }
        set_known(self.comm.as_ref(), |comm| details.set_comm(comm));
        set_known(self.cwd.as_ref(), |cwd| details.set_cwd(cwd));
        if let Some(cgroup) = &self.cgroup {
            details.set_cgroup(cgroup.content());
        }
        if let Some(env) = &self.env {
            let entries = env.iter().flat_map(|(name, value)| [name.as_ref(), b"=", value.as_ref(), b"\0"]);
            details.set_environment(&entries.collect::<Vec<_>>().concat());
        }
        let (own, host) = namespaces(&self.namespace, &self.namespace_id);
        details.namespaces = own;
        host
    }

    fn ancestors(&self) -> Ancestors {
        let processes = match &self.ancestors {
            Some(ancestors) => ancestors.iter().map(Process::relative).collect(),
            None => self.parent.iter().map(Process::relative).collect(),
        };
        Ancestors {
            processes,
            complete: self.ancestors_complete,
            earlier: self.earlier.iter().map(Process::image).collect(),
        }
    }

    fn processes(&self) -> Described {
        let relative = |process: &Option<Process>| process.as_ref().map(Process::relative);
        Described {
            session_leader: relative(&self.session_leader),
            group_leader: relative(&self.group_leader),
            container: Some(&self.container).filter(|told| !told.is_empty()).cloned().map(Arc::new),
            container_start: self.container_start.map(|start| start.ns),
        }
    }
}

impl Process {
    pub(super) fn image(&self) -> Image {
        image(self.exe.as_ref(), self.args.as_deref(), self.args_cut)
    }

    fn relative(&self) -> Relative {
        let name = |name: &Option<String>, key| named(name.as_ref(), &self.absent, key);
        Relative {
            pid: self.pid.unwrap_or_default(),
            image: self.image(),
            comm: self.comm.as_ref().map(|comm| comm.as_ref().to_vec()),
            uids: ids([self.uid, self.euid, None, None]),
            gids: ids([self.gid, self.egid, None, None]),
            names: Some(Box::new(OwnNames {
                user: name(&self.user, Absent::User),
                effective: name(&self.user_effective, Absent::UserEffective),
                group: name(&self.group, Absent::Group),
                login: Name::Unknown,
                groups: None,
            })),
            ppid: self.ppid,
            tty: match self.tty {
                _ if self.absent.contains(&Absent::Tty) => Some(0),
                tty => tty.map(super::Terminal::device),
            },
            cwd: self.cwd.as_ref().map(|cwd| cwd.as_ref().to_vec()),
            start_ticks: self.start.map(|start| start.ns),
            vpid: self.vpid,
            cgroup: self.cgroup.as_ref().map(|cgroup| cgroup.content().to_vec()),
            learnt: self.learnt,
            earlier: Vec::new(),
            ended: self.ended,
        }
    }
}

/// The other processes of an event.
#[derive(Debug)]
struct Described {
    session_leader: Option<Relative>,
    group_leader: Option<Relative>,
    container: Option<Arc<Named>>,
    container_start: Option<u64>,
}

impl Processes for Described {
    fn find(&self, _: u32, _: Option<u64>) -> Option<Relative> {
        // An event has no processes but those in a role.
        None
    }

    fn leader(&self, of: Leader, _: Option<u32>, _: Option<u64>) -> Option<Relative> {
        match of {
            Leader::Session => self.session_leader.clone(),
            Leader::Group => self.group_leader.clone(),
        }
    }

    fn container(&self, _: &Place) -> Option<Arc<Named>> {
        self.container.clone()
    }

    fn container_start(&self, _: &[u8]) -> Option<u64> {
        self.container_start
    }
}

fn image(exe: Option<&Bytes>, args: Option<&[Bytes]>, cut: bool) -> Image {
    let mut image = Image::new(exe.map(Bytes::as_ref), args);
    if let (true, Some(args)) = (cut, args) {
        let joined: Vec<&[u8]> = args.iter().map(Bytes::as_ref).collect();
        image.set_arguments(&joined.join(&0), true);
    }
    image
}

fn set_known(bytes: Option<&Bytes>, mut set: impl FnMut(&[u8])) {
    if let Some(bytes) = bytes {
        set(bytes.as_ref());
    }
}

fn ids(ids: [Option<u32>; 4]) -> Option<[u32; 4]> {
    ids.iter().any(Option::is_some).then(|| ids.map(|id| id.unwrap_or(UNSET)))
}

fn named(name: Option<&String>, absent: &std::collections::BTreeSet<Absent>, key: Absent) -> Name {
    match name {
        Some(name) => Name::Is(name.clone()),
        None if absent.contains(&key) => Name::Absent,
        None => Name::Unknown,
    }
}

/// The namespaces of the program and of the host. No namespace has the id 0 or 1: they stand for ids that are not said.
fn namespaces(
    differs: &Namespaces<bool>,
    ids: &Namespaces<u64>,
) -> (details::Namespaces, details::Namespaces) {
    let (mut own, mut host) = <(details::Namespaces, details::Namespaces)>::default();
    let kinds = [
        (&mut own.pid, &mut host.pid, differs.pid, ids.pid),
        (&mut own.mnt, &mut host.mnt, differs.mnt, ids.mnt),
        (&mut own.net, &mut host.net, differs.net, ids.net),
        (&mut own.user, &mut host.user, differs.user, ids.user),
    ];
    for (own, host, differs, id) in kinds {
        *own = id.or(differs.map(|_| 0));
        *host = match differs {
            Some(true) => Some(1),
            Some(false) => *own,
            None => None,
        };
    }
    (own, host)
}
