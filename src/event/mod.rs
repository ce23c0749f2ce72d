//! An exec written down as data: recorded by `execwatch run --record`, read by `execwatch replay`, described by hand in
//! tests of rules, and by the arguments of `execwatch explain`.
//!
//! One structure, [`Event`], for JSON lines and TOML tables. It says what the rules can read of an exec. Every key is
//! optional. What is not said is *unknown*, as if it could not be read: it fulfils no test, nor the negation of one. What
//! is known not to be there (a terminal, a login, a user's name) is listed in `absent`. Unknown keys are errors.
//!
//! Names belong to the event, since it may come from another host: a user id is never looked up in this host's
//! /etc/passwd. So `user = "www-data"` says nothing of `uid`, nor `uid = 33` of `user`.
//!
//! Bytes are written as text. Valid UTF-8 stands as it is, any other byte as `\x` and two hexadecimal digits. Text that
//! looks like such an escape has its backslash written as `\x5c`; every other backslash stands for itself
//! ([`escape`](crate::alert::escape)). Nothing here can hold a NUL, as nothing can that the kernel tells.
//!
//! [`Event::case`] makes of it what rules are evaluated on, [`Event::of_subject`] writes one down.

mod case;
mod file;
mod record;
pub mod recorder;
mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde::{Deserialize, Deserializer, Serialize};

use crate::document::{Located, Section};
use crate::process::container::Named;
use crate::process::exec::Certainty;
use crate::process::relatives::Learnt;

pub use case::{Case, EventClock};
pub use file::{File, SameAs};
pub use values::{Bytes, CapabilitySet, Cgroup, Moment, Terminal};

/// What is known of one exec.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case", remote = "Self")]
pub struct Event {
    /// When it was executed, as RFC 3339 with the offset of the host's time zone: `2026-11-24T03:12:00+01:00`. The hour
    /// of the day and the weekday are read as written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<Moment>,
    /// Name of the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The executed file as /proc/PID/exe shows it, with ` (deleted)` at the end if it was unlinked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exe: Option<Bytes>,
    /// The arguments with argv\[0\].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub args: Option<Vec<Bytes>>,
    /// The arguments were cut: there were more.
    #[serde(skip_serializing_if = "is_false")]
    pub args_cut: bool,
    /// Length of the whole argument list in bytes, NULs included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub args_length: Option<u64>,
    /// The kernel's name of the process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comm: Option<Bytes>,
    /// Working directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cwd: Option<Bytes>,
    /// Controlling terminal, such as `pts/0`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tty: Option<Terminal>,
    /// Process id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The parent's process id; 0 if there is no parent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ppid: Option<u32>,
    /// Process id in the innermost pid namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vpid: Option<u32>,
    /// Name of the real user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Name of the effective user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_effective: Option<String>,
    /// Id of the real user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Id of the effective user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub euid: Option<u32>,
    /// The saved user id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suid: Option<u32>,
    /// The user id for access to files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fsuid: Option<u32>,
    /// Name of the real group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Id of the real group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// Id of the effective group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egid: Option<u32>,
    /// The saved group id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sgid: Option<u32>,
    /// The group id for access to files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fsgid: Option<u32>,
    /// The supplementary groups, all of them: names, or numbers of those without a name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<String>>,
    /// Name of the user who logged in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub login_user: Option<String>,
    /// Id of the user who logged in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loginuid: Option<u32>,
    /// Number of the login in the audit subsystem.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit_session: Option<u32>,
    /// Session id: the pid of the session's leader; 0 for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<u32>,
    /// Process group id: the pid of the group's leader.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process_group: Option<u32>,
    /// The mode creation mask, in octal digits: `"0022"`.
    #[serde(skip_serializing_if = "Option::is_none", with = "values::octal")]
    pub umask: Option<u32>,
    /// When the process was made; an exec keeps the process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<Moment>,
    /// Path of the cgroup, or the lines of /proc/PID/cgroup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<Cgroup>,
    /// What the runtime tells of its container.
    #[serde(skip_serializing_if = "Named::is_empty")]
    pub container: Named,
    /// When the oldest process of its container was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_start: Option<Moment>,
    /// The executable lies in the upper layer of an overlay mount.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exe_upper_layer: Option<bool>,
    /// The executable's file.
    #[serde(skip_serializing_if = "is_default")]
    pub exe_file: File,
    /// The utility whose file, or a copy of it, was executed; needed only where its names do not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub same_as: Option<SameAs>,
    /// It could not be told whether the file is that of a utility.
    #[serde(skip_serializing_if = "is_false")]
    pub identity_unknown: bool,
    /// Whether it is in another namespace than the host's.
    #[serde(skip_serializing_if = "is_default")]
    pub namespace: Namespaces<bool>,
    /// The ids of its namespaces.
    #[serde(skip_serializing_if = "is_default")]
    pub namespace_id: Namespaces<u64>,
    /// Capability sets, each with the names of all it holds.
    #[serde(skip_serializing_if = "is_default")]
    pub capabilities: Capabilities,
    /// The environment, all of it: a variable that is not listed is not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<BTreeMap<Bytes, Bytes>>,
    /// The parent, where it is not said as the first of `ancestors`, or was another program when the exec was read: then
    /// its executable and arguments stand here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<Process>,
    /// The ancestors, the parent first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ancestors: Option<Vec<Process>>,
    /// What the process itself had executed before, the last first; of each only `exe`, `args` and `args-cut` are said.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<Process>,
    /// Who adopted the process after its parent had ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adopter: Option<u32>,
    /// Address and port of the client of the ssh session: `203.0.113.9:50022`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssh_client: Option<SocketAddr>,
    /// There are no other ancestors.
    #[serde(skip_serializing_if = "is_false")]
    pub ancestors_complete: bool,
    /// The leader of the session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_leader: Option<Process>,
    /// The leader of the process group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_leader: Option<Process>,
    /// How sure it is that the program was read as it was started: `exact`, `likely`, `best-effort`, `already-running`,
    /// or `reported` if execwatch did not read it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certainty: Option<Certainty>,
    /// The CPU on which it was executed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<u32>,
    /// Nanoseconds from the event to the end of the reading.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold_ns: Option<u64>,
    /// What is known not to be there.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub absent: BTreeSet<Absent>,
}

/// What is known of another process: a parent, an ancestor, a leader. The keys mean what they mean in [`Event`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case", remote = "Self")]
#[expect(missing_docs, reason = "Event documents each")]
pub struct Process {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exe: Option<Bytes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub args: Option<Vec<Bytes>>,
    #[serde(skip_serializing_if = "is_false")]
    pub args_cut: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comm: Option<Bytes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cwd: Option<Bytes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tty: Option<Terminal>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ppid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_effective: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub euid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<Moment>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vpid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<Cgroup>,
    /// How executable and arguments were learnt: `seen`, `snapshot`, `inherited`, `unknown`.
    #[serde(skip_serializing_if = "is_default")]
    pub learnt: Learnt,
    /// It had ended.
    #[serde(skip_serializing_if = "is_false")]
    pub ended: bool,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub absent: BTreeSet<Absent>,
}

/// Something for each kind of namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "namespaces(7) documents each")]
pub struct Namespaces<T: Default> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<T>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mnt: Option<T>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub net: Option<T>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<T>,
}

/// Capability sets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "capabilities(7) documents each")]
pub struct Capabilities {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inheritable: Option<CapabilitySet>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permitted: Option<CapabilitySet>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effective: Option<CapabilitySet>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bounding: Option<CapabilitySet>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ambient: Option<CapabilitySet>,
}

/// What can be known not to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Absent {
    /// No controlling terminal.
    Tty,
    /// Nobody logged in, so that there is no `login-user` either.
    Loginuid,
    /// Outside a login.
    AuditSession,
    /// The real user has no name.
    User,
    /// The effective user has no name.
    UserEffective,
    /// The user who logged in has no name.
    LoginUser,
    /// The real group has no name.
    Group,
}

impl Absent {
    fn key(self) -> &'static str {
        match self {
            Absent::Tty => "tty",
            Absent::Loginuid => "loginuid",
            Absent::AuditSession => "audit-session",
            Absent::User => "user",
            Absent::UserEffective => "user-effective",
            Absent::LoginUser => "login-user",
            Absent::Group => "group",
        }
    }
}

/// Refuses what is said to be both there and absent.
fn contradiction(absent: &BTreeSet<Absent>, said: &[(Absent, bool)]) -> Result<(), String> {
    match said.iter().find(|(what, said)| *said && absent.contains(what)) {
        Some((what, _)) => Err(format!("`{}` has a value and is listed in `absent`", what.key())),
        None => Ok(()),
    }
}

impl<'de> Deserialize<'de> for Event {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let event = Event::deserialize(deserializer)?;
        let said = [
            (Absent::Tty, event.tty.is_some()),
            (Absent::Loginuid, event.loginuid.is_some() || event.login_user.is_some()),
            (Absent::AuditSession, event.audit_session.is_some()),
            (Absent::User, event.user.is_some()),
            (Absent::UserEffective, event.user_effective.is_some()),
            (Absent::LoginUser, event.login_user.is_some()),
            (Absent::Group, event.group.is_some()),
        ];
        contradiction(&event.absent, &said).map_err(serde::de::Error::custom)?;
        Ok(event)
    }
}

impl Serialize for Event {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Event::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for Process {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let process = Process::deserialize(deserializer)?;
        let said = [
            (Absent::Tty, process.tty.is_some()),
            (Absent::User, process.user.is_some()),
            (Absent::UserEffective, process.user_effective.is_some()),
            (Absent::Group, process.group.is_some()),
        ];
        contradiction(&process.absent, &said).map_err(serde::de::Error::custom)?;
        Ok(process)
    }
}

impl Serialize for Process {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Process::serialize(self, serializer)
    }
}

impl Event {
    /// Reads an event that stands as a table under `key`; a mistake is reported at its place. `None` if it is not there,
    /// or has a mistake.
    pub fn read<'d>(section: &Section<'d>, key: &'d str) -> Option<Located<Event>> {
        section.deserialize(key)
    }

    /// The event as one line of JSON, without a newline. It holds no control characters, whatever the program was called.
    pub fn json(&self) -> String {
        crate::alert::escape::json_line(self)
    }
}

fn is_false(flag: &bool) -> bool {
    !flag
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, btree_set, vec};
    use proptest::option::of;
    use proptest::prelude::*;

    use super::*;
    use crate::diagnostics::{Diagnostics, Source};
    use crate::document::Document;
    use crate::rules::catalogue::Catalogue;

    fn bytes() -> impl Strategy<Value = Bytes> {
        prop_oneof![vec(1u8.., 0..12), r"(\\x?[0-9a-fA-F]{0,2}){0,3}".prop_map(String::into_bytes)]
            .prop_map(|bytes| Bytes::new(&bytes))
    }

    fn terminal() -> impl Strategy<Value = Terminal> {
        // Of two numbers with the same name only one comes back.
        any::<u32>().prop_filter_map("no terminal", Terminal::new).prop_filter_map("nameless", |terminal| {
            Terminal::of_name(&crate::process::parse::tty_name(terminal.device())?)
        })
    }

    fn moment() -> impl Strategy<Value = Moment> {
        (1u64 << 50.., -1000i32..1000).prop_map(|(ns, minutes)| Moment { ns, offset: minutes * 60 })
    }

    fn cgroup() -> impl Strategy<Value = Cgroup> {
        vec(("[0-9]{1,2}:[a-z=,]{0,5}:/", "[^\n\0]{0,10}"), 1..3).prop_map(|lines| {
            let lines: Vec<String> = lines.into_iter().map(|(start, path)| start + &path).collect();
            Cgroup::new(lines.join("\n").as_bytes())
        })
    }

    fn args() -> impl Strategy<Value = Option<Vec<Bytes>>> {
        of(vec(bytes(), 0..4))
    }

    fn ids() -> impl Strategy<Value = [Option<u32>; 4]> {
        [of(0..u32::MAX), of(0..u32::MAX), of(0..u32::MAX), of(0..u32::MAX)]
    }

    prop_compose! {
        fn process()(
            (exe, args, args_cut, comm, cwd, tty, pid) in (of(bytes()), args(), any::<bool>(), of(bytes()), of(bytes()), of(terminal()), of(1u32..)),
            [ppid, uid, euid, gid] in ids(),
            (user, user_effective, group, start) in (of(".{0,5}"), of(".{0,5}"), of(".{0,5}"), of(moment())),
        ) -> Process {
            let absent = if tty.is_none() { BTreeSet::from([Absent::Tty]) } else { BTreeSet::new() };
            Process { vpid: pid, cgroup: None, exe, args, args_cut, comm, cwd, tty, pid, ppid, user, user_effective, uid, euid, group, gid, egid: None, start, learnt: if args_cut { Learnt::Seen } else { Learnt::Unknown }, ended: args_cut, absent }
        }
    }

    prop_compose! {
        fn event()(
            (time, host, exe, args, args_cut, args_length) in
                (of(moment()), of(".{0,9}"), of(bytes()), args(), any::<bool>(), of(any::<u64>())),
            (comm, cwd, tty, user, groups, env) in
                (of(bytes()), of(bytes()), of(terminal()), of(".{0,9}"), of(vec(".{0,5}", 0..3)), of(btree_map(bytes(), bytes(), 0..3))),
            [pid, ppid, vpid, session] in ids(),
            [uid, euid, suid, fsuid] in ids(),
            [gid, egid, sgid, fsgid] in ids(),
            [loginuid, audit_session, process_group, umask] in ids(),
            (start, cgroup, foreign, ids, sets) in
                (of(moment()), of(cgroup()), [of(any::<bool>()), of(any::<bool>())], of(any::<u64>()), [of(any::<u64>()), of(any::<u64>())]),
            (parent, ancestors, ancestors_complete, session_leader) in
                (of(process()), of(vec(process(), 0..3)), any::<bool>(), of(process())),
            (certainty, cpu, hold_ns, absent) in (
                of(prop_oneof![Just(Certainty::Exact), Just(Certainty::AlreadyRunning), Just(Certainty::Reported)]),
                of(any::<u32>()), of(any::<u64>()),
                btree_set(prop_oneof![Just(Absent::UserEffective), Just(Absent::Group), Just(Absent::LoginUser)], 0..3),
            ),
        ) -> Event {
            Event {
                container: Named { name: host.clone(), pod_name: user.clone(), ..Named::default() },
                container_start: start, exe_upper_layer: foreign[0],
                exe_file: File {
                    size: ids, links: uid, mode: gid, owner: host.clone(), modified: time, changed: start, inode: ids,
                    device: uid.zip(gid), package_managed: foreign[1], ..File::default()
                },
                same_as: exe.clone().map(|path| SameAs {
                    utility: "nc".to_owned(), path, by: crate::identity::By::BuildId, value: String::new(), loaded: args_cut,
                }),
                identity_unknown: args_cut,
                time, host, exe, args, args_cut, args_length, comm, cwd, tty, pid, ppid, vpid, user, uid, euid, suid, fsuid, gid,
                egid, sgid, fsgid, groups, loginuid, audit_session, session, process_group, umask, start, cgroup,
                namespace: Namespaces { pid: foreign[0], net: foreign[1], ..Namespaces::default() },
                namespace_id: Namespaces { pid: ids, ..Namespaces::default() },
                capabilities: Capabilities {
                    effective: sets[0].map(CapabilitySet),
                    ambient: sets[1].map(CapabilitySet),
                    ..Capabilities::default()
                },
                env, parent, ancestors, ancestors_complete, earlier: session_leader.iter().cloned().collect(),
                group_leader: session_leader.clone(), session_leader, certainty, cpu, hold_ns, absent, adopter: pid,
                ssh_client: uid.map(|number| SocketAddr::from((number.to_be_bytes(), 22))), user_effective: None, group: None, login_user: None,
            }
        }
    }

    proptest! {
        #[test]
        fn any_event_comes_back_from_json(event in event()) {
            let line = event.json();
            prop_assert!(!line.chars().any(crate::alert::escape::is_unprintable), "{}", line);
            prop_assert_eq!(serde_json::from_str::<Event>(&line).unwrap(), event);
        }

        #[test]
        fn any_event_can_be_evaluated(event in event()) {
            let case = event.case(0, &Catalogue::default());
            prop_assert_eq!(case.exec.details.session, event.session);
        }
    }

    /// Reads `[test] event = {...}` and returns it with the mistakes.
    fn from_toml(text: &str) -> (Option<Event>, Vec<String>) {
        let source = Source { name: "test.toml".to_owned(), text: text.to_owned() };
        let diagnostics = Diagnostics::default();
        let event = {
            let document = Document::parse(&source, &diagnostics);
            let root = document.root(&diagnostics);
            let event = Event::read(&root, "event").map(|event| event.value);
            root.finish();
            event
        };
        (event, diagnostics.into_list().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn toml_and_json_are_the_same() {
        let (event, mistakes) = from_toml(
            "[event]\nexe = '/tmp/\\xff (deleted)'\nargs = ['nc', '-e', 'C:\\y']\nuser = 'www-data'\nnamespace.net = true\n\
             cgroup = '/system.slice/x.service'\nabsent = ['tty', 'loginuid']\ntime = '2026-11-24T03:12:00+01:00'\n\
             [event.env]\nLD_PRELOAD = ''\n[[event.ancestors]]\nexe = '/usr/sbin/nginx'\numask = 1\n",
        );
        // `umask` is no property of an ancestor.
        assert_eq!(event, None);
        assert!(mistakes[0].starts_with("test.toml:13:1: in `event`: unknown key `umask`"), "{mistakes:?}");

        let (event, mistakes) = from_toml(
            "[event]\nexe = '/tmp/\\xff (deleted)'\nargs = ['nc', '-e', 'C:\\y']\nuser = 'www-data'\nnamespace.net = true\n\
             cgroup = '/system.slice/x.service'\nabsent = ['tty', 'loginuid']\ntime = '2026-11-24T03:12:00+01:00'\n\
             umask = '0027'\n[event.env]\nLD_PRELOAD = ''\n[[event.ancestors]]\nexe = '/usr/sbin/nginx'\n",
        );
        assert!(mistakes.is_empty(), "{mistakes:?}");
        let event = event.unwrap();
        let json = r#"{"time":"2026-11-24T03:12:00+01:00","exe":"/tmp/\\xff (deleted)","args":["nc","-e","C:\\y"],"user":"www-data","umask":"0027","cgroup":"/system.slice/x.service","namespace":{"net":true},"env":{"LD_PRELOAD":""},"ancestors":[{"exe":"/usr/sbin/nginx"}],"absent":["tty","loginuid"]}"#;
        assert_eq!(event.json(), json);
        assert_eq!(serde_json::from_str::<Event>(json).unwrap(), event);

        let case = event.case(7, &Catalogue::default());
        assert_eq!(case.exec.image.exe(), Some(&b"/tmp/\xff"[..]));
        assert_eq!(case.exec.image.deleted(), Some(true));
        assert_eq!(case.exec.details.tty, Some(0));
        assert_eq!(case.exec.details.variable(b"PATH"), Some(None));
        assert_eq!(case.exec.ancestors.processes.len(), 1);
        let local = event.time.unwrap().local();
        assert_eq!((local.hour, local.weekday_name()), (3, "tue"));
    }

    #[test]
    fn mistakes_have_a_place_and_a_reason() {
        for (text, expected) in [
            (
                "event = { exec = '/bin/nc' }",
                "test.toml:1:11: in `event`: unknown key `exec`; did you mean `exe`?",
            ),
            ("event = { pid = 'x' }", "test.toml:1:17: in `event`: invalid type: string \"x\", expected u32"),
            ("event = { tty = 'none' }", "test.toml:1:17: in `event`: `none` is no terminal such as pts/0"),
            (
                "event = { tty = 'pts/0', absent = ['tty'] }",
                "test.toml:1:9: in `event`: `tty` has a value and is listed in `absent`",
            ),
            ("event = { login-user = 'x', absent = ['loginuid'] }", "`loginuid` has a value and is listed"),
            ("event = { time = '2026-11-24' }", "`2026-11-24` is no moment such as"),
            ("event = { cgroup = 'x' }", "`x` is no path of a cgroup"),
            ("event = { args = ['a\\x00b'] }", "a text with a NUL"),
            ("event = { capabilities.effective = ['net'] }", "`net` is no capability"),
            ("event = { absent = ['cwd'] }", "unknown variant `cwd`"),
            ("event = 1", "test.toml:1:9: in `event`: invalid type"),
        ] {
            let (event, mistakes) = from_toml(text);
            assert!(event.is_none() && mistakes.len() == 1, "{text}: {mistakes:?}");
            assert!(mistakes[0].contains(expected), "{text}: {mistakes:?}");
        }
    }

    #[test]
    fn the_manual_has_every_key() {
        let manual = include_str!("../../docs/replay.md");
        for (kind, error) in [
            ("event", serde_json::from_str::<Event>("{\"?\":1}").unwrap_err()),
            ("process", serde_json::from_str::<Process>("{\"?\":1}").unwrap_err()),
            ("file", serde_json::from_str::<File>("{\"?\":1}").unwrap_err()),
            ("same-as", serde_json::from_str::<SameAs>("{\"?\":1}").unwrap_err()),
        ] {
            let message = error.to_string();
            let keys: Vec<&str> = message.split('`').skip(3).step_by(2).collect();
            assert!(keys.len() > 4, "{message}");
            for key in keys {
                assert!(manual.contains(&format!("`{key}`")), "{kind}: {key}");
            }
        }
    }
}
