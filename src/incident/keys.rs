//! By what alerts are known to belong together, and below which process everything belongs to them.

use std::net::SocketAddr;

use super::kept::{KeptKey, KeptOne};
use crate::alert::Alert;
use crate::lineage::table::Table;
use crate::lineage::table::fate::Handle;

/// What alerts have in common, the most exact first.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Key {
    /// The container's id.
    Container(String),
    /// The client's end of an ssh connection.
    Ssh(SocketAddr),
    /// The audit session, which outlives su and sudo.
    Login(u32),
    /// The leader of a session that has a terminal.
    Session(Handle),
    /// The process where the outside came in.
    Entry(Handle),
    /// The service manager's unit, of services.
    Unit(String),
}

/// Services of which each session or job is by itself, and whose unit says nothing.
const SHARED: &[&str] = &["anacron", "atd", "cron", "crond", "fcron", "ssh", "sshd"];

/// The keys of an alert, and the process below which everything belongs to it: the entry leader, or the program itself.
///
/// The first process of the host is nobody's entry, and neither is a thread of the kernel.
pub fn of(alert: &Alert, table: &Table) -> (Vec<Key>, Option<Handle>) {
    let (exec, origin) = (&alert.exec, &alert.origin);
    let details = &exec.details;
    let at = |pid: u32| table.handle(pid, exec.timestamp_ns);
    let mut keys = Vec::new();
    keys.extend(origin.place.container_id.clone().map(Key::Container));
    keys.extend(origin.ssh_client.map(Key::Ssh));
    keys.extend(details.audit_session.filter(|&session| session != u32::MAX).map(Key::Login));
    let terminal = details.tty.is_some_and(|tty| tty != 0);
    let leader = details.session.filter(|&pid| terminal && pid > 1).and_then(at);
    keys.extend(leader.map(Key::Session));
    let entry = match origin.entry_leader {
        _ if origin.entry == Some("kernel") => None,
        Some(0) => Some(exec.pid),
        Some(_) => origin.leader().map(|leader| leader.pid),
        None => None,
    };
    let anchor = entry.filter(|&pid| pid > 1).and_then(at).or_else(|| at(exec.pid));
    keys.extend(anchor.map(Key::Entry));
    // All the sessions and jobs behind one door may be of its unit.
    let shared = matches!(origin.entry, Some("ssh" | "remote" | "login" | "cron"));
    if origin.place.container_id.is_none() && !shared {
        keys.extend(
            origin
                .place
                .unit
                .as_deref()
                .filter(|unit| is_service(unit))
                .map(|unit| Key::Unit(unit.to_owned())),
        );
    }
    (keys, anchor)
}

/// The key as it is kept, for another daemon; `None` for a process that has gone.
pub fn kept(key: &Key, table: &Table, boot: &str) -> Option<KeptKey> {
    Some(match key {
        Key::Container(id) => KeptKey::Container(id.clone()),
        Key::Ssh(client) => KeptKey::Ssh(*client),
        Key::Login(session) => KeptKey::Login { boot: boot.to_owned(), session: *session },
        Key::Session(leader) => KeptKey::Session(one(*leader, table, boot)?),
        Key::Entry(leader) => KeptKey::Entry(one(*leader, table, boot)?),
        Key::Unit(unit) => KeptKey::Unit(unit.clone()),
    })
}

/// A process, so that another daemon knows it again.
pub fn one(handle: Handle, table: &Table, boot: &str) -> Option<KeptOne> {
    let (pid, start_ns) = table.identity(handle)?;
    Some(KeptOne { boot: boot.to_owned(), pid, start_ns })
}

/// A unit of which everything belongs together.
fn is_service(unit: &str) -> bool {
    let Some(name) = unit.strip_suffix(".service") else { return false };
    // An instance of a template, such as user@1000 and sshd@3.
    let base = name.split('@').next().unwrap_or(name);
    base != "user" && !SHARED.contains(&base)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_of_services_alone_are_keys() {
        for unit in
            ["nginx.service", "php8.2-fpm.service", "getty-static.service", "postgresql@15-main.service"]
        {
            assert!(is_service(unit), "{unit}");
        }
        for unit in [
            "session-3.scope",
            "user-1000.slice",
            "user@1000.service",
            "ssh.service",
            "sshd@4-10.0.0.1.service",
            "cron.service",
            "crond.service",
            "init.scope",
        ] {
            assert!(!is_service(unit), "{unit}");
        }
    }
}
