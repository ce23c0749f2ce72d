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
mod tests;
