//! From an evaluated exec to its event.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Absent, Bytes, Capabilities, CapabilitySet, Cgroup, Event, Moment, Namespaces, Process, Terminal,
};
use crate::alert::Clock;
use crate::process::details::{Details, Login, UNSET, known_id};
use crate::process::exec::{Exec, Image};
use crate::process::names::{Accounts, Name};
use crate::process::relatives::Relative;
use crate::rules::fields::Role;
use crate::rules::subject::{Person, Subject, Surroundings};

impl Event {
    /// Writes down an exec with everything that was read of it, and the ancestors and leaders as the rules saw them.
    /// `time_ns` is when it was executed, in nanoseconds since 1970.
    pub fn of_subject(
        exec: &Exec,
        subject: &Subject<'_>,
        surroundings: &Surroundings,
        clock: &dyn Clock,
        time_ns: u64,
    ) -> Event {
        let details = &exec.details;
        let moment = |ticks: u64| Moment::on_this_host(clock.wall_from_start_ticks(ticks));
        let mut event = Event {
            time: Some(Moment::on_this_host(time_ns)),
            exe: exe(&exec.image),
            args: args(&exec.image),
            args_cut: exec.image.cut(),
            args_length: details.arguments_length,
            comm: details.comm().map(Bytes::new),
            cwd: details.cwd().map(Bytes::new),
            pid: Some(exec.pid).filter(|&pid| pid != 0),
            ppid: details.ppid,
            vpid: details.vpid,
            uid: details.uid(0),
            euid: details.uid(1),
            suid: details.uid(2),
            fsuid: details.uid(3),
            gid: details.gid(0),
            egid: details.gid(1),
            sgid: details.gid(2),
            fsgid: details.gid(3),
            groups: groups(details, &surroundings.accounts),
            loginuid: details.login.and_then(Login::user),
            audit_session: details.audit_session.filter(|&session| session != UNSET),
            session: details.session,
            process_group: details.pgid,
            umask: details.umask,
            start: details.start_ticks.map(moment),
            cgroup: details.cgroup().map(Cgroup::new),
            container: subject.container().cloned().unwrap_or_default(),
            container_start: subject.container_start().map(moment),
            exe_upper_layer: details.upper_layer,
            namespace: foreign(details, surroundings),
            namespace_id: Namespaces {
                pid: details.namespaces.pid,
                mnt: details.namespaces.mnt,
                net: details.namespaces.net,
                user: details.namespaces.user,
            },
            capabilities: capabilities(details),
            // Of one that was cut nobody can say what is not in it.
            env: details.environment().filter(|_| !details.environment_cut()).map(environment),
            certainty: Some(exec.certainty),
            cpu: Some(exec.cpu),
            hold_ns: Some(exec.hold_ns),
            ..Event::default()
        };
        event.record_file(exec, subject, surroundings);
        let users = &surroundings.accounts.users;
        let own = details.names.as_deref();
        let absent = &mut event.absent;
        event.tty = terminal(details.tty, absent);
        event.user = name(users.of(own.map(|own| &own.user), details.uid(0)), Absent::User, absent);
        event.user_effective =
            name(users.of(own.map(|own| &own.effective), details.uid(1)), Absent::UserEffective, absent);
        let group = surroundings.accounts.groups.of(own.map(|own| &own.group), details.gid(0));
        event.group = name(group, Absent::Group, absent);
        if details.login == Some(Login::Nobody) {
            absent.insert(Absent::Loginuid);
        } else {
            let login = users.of(own.map(|own| &own.login), event.loginuid);
            event.login_user = name(login, Absent::LoginUser, absent);
        }
        if details.audit_session == Some(UNSET) {
            absent.insert(Absent::AuditSession);
        }

        let process = |relative: &Relative| Process::of_relative(relative, &surroundings.accounts, clock);
        let ancestors = subject.ancestors();
        let found: Vec<Process> = ancestors.processes.iter().map(process).collect();
        event.ancestors_complete = ancestors.complete;
        event.earlier = ancestors.earlier.iter().map(shown).collect();
        event.adopter = details.adopter;
        event.ssh_client = subject.ssh_client().flatten().or(details.ssh_client);
        event.ancestors = Some(found).filter(|found| !found.is_empty());
        let parent = shown(&details.parent);
        let same = ancestors.processes.first().is_some_and(|first| first.image == details.parent);
        event.parent = Some(parent).filter(|_| !same && !details.parent.is_empty());
        let leader = |role| match subject.person(role) {
            Person::Relative(relative) => Some(process(relative)),
            _ => None,
        };
        event.session_leader = leader(Role::SessionLeader);
        event.group_leader = leader(Role::GroupLeader);
        event
    }
}

impl Process {
    fn of_relative(relative: &Relative, accounts: &Accounts, clock: &dyn Clock) -> Process {
        let mut absent = BTreeSet::new();
        let own = relative.names.as_deref();
        let uid = |which| known_id(relative.uids, which);
        let gid = |which| known_id(relative.gids, which);
        Process {
            exe: exe(&relative.image),
            args: args(&relative.image),
            args_cut: relative.image.cut(),
            comm: relative.comm.as_deref().map(Bytes::new),
            cwd: relative.cwd.as_deref().map(Bytes::new),
            tty: terminal(relative.tty, &mut absent),
            pid: Some(relative.pid).filter(|&pid| pid != 0),
            ppid: relative.ppid,
            user: name(accounts.users.of(own.map(|own| &own.user), uid(0)), Absent::User, &mut absent),
            user_effective: name(
                accounts.users.of(own.map(|own| &own.effective), uid(1)),
                Absent::UserEffective,
                &mut absent,
            ),
            uid: uid(0),
            euid: uid(1),
            group: name(accounts.groups.of(own.map(|own| &own.group), gid(0)), Absent::Group, &mut absent),
            gid: gid(0),
            egid: gid(1),
            start: relative.start_ticks.map(|ticks| Moment::on_this_host(clock.wall_from_start_ticks(ticks))),
            vpid: relative.vpid,
            cgroup: relative.cgroup.as_deref().map(Cgroup::new),
            learnt: relative.learnt,
            ended: relative.ended,
            absent,
        }
    }
}

/// What a process shows, and nothing else.
fn shown(image: &Image) -> Process {
    Process { exe: exe(image), args: args(image), args_cut: image.cut(), ..Process::default() }
}

fn exe(image: &Image) -> Option<Bytes> {
    image.link().map(Bytes::new)
}

fn args(image: &Image) -> Option<Vec<Bytes>> {
    Some(image.argv()?.map(Bytes::new).collect())
}

fn terminal(device: Option<u32>, absent: &mut BTreeSet<Absent>) -> Option<Terminal> {
    if device == Some(0) {
        absent.insert(Absent::Tty);
    }
    device.and_then(Terminal::new)
}

fn name(name: Name, key: Absent, absent: &mut BTreeSet<Absent>) -> Option<String> {
    if name == Name::Absent {
        absent.insert(key);
    }
    name.known()
}

fn groups(details: &Details, accounts: &Accounts) -> Option<Vec<String>> {
    match &details.names {
        Some(own) => own.groups.clone(),
        None => details.uids.map(|_| {
            let named = |&gid| accounts.groups.name(gid).unwrap_or_else(|| gid.to_string());
            details.groups.iter().map(named).collect()
        }),
    }
}

fn foreign(details: &Details, surroundings: &Surroundings) -> Namespaces<bool> {
    let (own, host) = (&details.namespaces, &surroundings.namespaces);
    let differs = |own: Option<u64>, host: Option<u64>| own.zip(host).map(|(own, host)| own != host);
    Namespaces {
        pid: differs(own.pid, host.pid),
        mnt: differs(own.mnt, host.mnt),
        net: differs(own.net, host.net),
        user: differs(own.user, host.user),
    }
}

fn capabilities(details: &Details) -> Capabilities {
    let sets = &details.capabilities;
    Capabilities {
        inheritable: sets.inheritable.map(CapabilitySet),
        permitted: sets.permitted.map(CapabilitySet),
        effective: sets.effective.map(CapabilitySet),
        bounding: sets.bounding.map(CapabilitySet),
        ambient: sets.ambient.map(CapabilitySet),
    }
}

/// The variables, of two with the same name the first, as rules read them. What is no variable is left out.
fn environment(bytes: &[u8]) -> BTreeMap<Bytes, Bytes> {
    let mut variables = BTreeMap::new();
    for entry in bytes.split(|&byte| byte == 0) {
        if let Some(equals) = entry.iter().position(|&byte| byte == b'=') {
            variables.entry(Bytes::new(&entry[..equals])).or_insert_with(|| Bytes::new(&entry[equals + 1..]));
        }
    }
    variables
}
