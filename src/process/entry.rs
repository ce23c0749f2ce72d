//! Entries: how the way to a program began, by the names of its ancestors.
//!
//! In: a chain of processes, the program first and its ancestors after it. Out: the entry leader, which is the first
//! process below one that lets people or work in (sshd, login, cron, a service manager, init), or the first of a
//! container, and the kind of that entry. The entry nearest to the program counts: of a shell in an ssh session in a
//! container, the session.
//!
//! A door is known by the name of its executable or by comm, which an intruder may choose: this describes a session, it
//! proves nothing.

/// A kind of entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// A session of an ssh server.
    Ssh,
    /// Another remote access: Systems Manager, Teleport, remote desktop, Cockpit, rsh.
    Remote,
    /// login(1) on a console, a getty or a display manager.
    Login,
    /// cron, at and their like.
    Cron,
    /// The first process of a container, or one put into it (`docker exec`).
    Container,
    /// Below a service manager.
    Service,
    /// Started by the kernel: core dump and device helpers.
    Kernel,
    /// Below init itself, and no unit of it: a service of System V init, or a process whose parent has ended.
    Init,
}

impl Entry {
    /// The word used in rules and alerts.
    pub fn as_str(self) -> &'static str {
        match self {
            Entry::Ssh => "ssh",
            Entry::Remote => "remote",
            Entry::Login => "login",
            Entry::Cron => "cron",
            Entry::Container => "container",
            Entry::Service => "service",
            Entry::Kernel => "kernel",
            Entry::Init => "init",
        }
    }
}

/// A process of the chain. `None` is unknown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link<'a> {
    /// Process id.
    pub pid: u32,
    /// Base name of its executable.
    pub name: Option<&'a [u8]>,
    /// The kernel's name of it.
    pub comm: Option<&'a [u8]>,
    /// The process id in the innermost pid namespace.
    pub vpid: Option<u32>,
    /// The container it is in; `Some(None)` on the host.
    pub container: Option<Option<String>>,
    /// It belongs to a unit of a service manager that is no session: `Some(false)` if it is known not to.
    pub of_service: Option<bool>,
}

/// Names of programs behind which an entry begins.
const DOORS: &[(&str, Entry)] = &[
    ("sshd", Entry::Ssh),
    ("sshd-session", Entry::Ssh),
    ("dropbear", Entry::Ssh),
    ("dropbearmulti", Entry::Ssh),
    ("ssm-session-worker", Entry::Remote),
    ("ssm-document-worker", Entry::Remote),
    ("teleport", Entry::Remote),
    ("xrdp-sesman", Entry::Remote),
    ("cockpit-session", Entry::Remote),
    ("cockpit-bridge", Entry::Remote),
    ("in.rshd", Entry::Remote),
    ("in.rexecd", Entry::Remote),
    ("login", Entry::Login),
    ("agetty", Entry::Login),
    ("getty", Entry::Login),
    ("mingetty", Entry::Login),
    ("greetd", Entry::Login),
    ("gdm-session-worker", Entry::Login),
    ("sddm-helper", Entry::Login),
    ("lightdm", Entry::Login),
    ("lxdm", Entry::Login),
    ("xdm", Entry::Login),
    ("cron", Entry::Cron),
    ("crond", Entry::Cron),
    ("anacron", Entry::Cron),
    ("atd", Entry::Cron),
    ("fcron", Entry::Cron),
    ("dcron", Entry::Cron),
    ("systemd", Entry::Service),
    ("runsv", Entry::Service),
    ("supervise", Entry::Service),
    ("supervise-daemon", Entry::Service),
    ("s6-supervise", Entry::Service),
    ("supervisord", Entry::Service),
];

/// Small programs that are a container's first process only to wait for the rest.
const CONTAINER_INITS: &[&str] = &["tini", "tini-static", "docker-init", "dumb-init", "catatonit"];

/// Bytes that the kernel keeps of a name (TASK_COMM_LEN less the NUL).
const COMM: usize = 15;
/// The kernel's first process, and the one that starts all its threads.
const INIT: u32 = 1;
const KTHREADD: u32 = 2;

/// The entry of the first process of `chain`, and which of the chain is its leader. `complete` says that the last one has
/// no parent; without it, `None` means that the entry lies beyond what was found.
pub fn find(chain: &[Link<'_>], complete: bool) -> Option<(Entry, usize)> {
    let pairs = chain.iter().zip(chain.iter().skip(1)).enumerate();
    let between = pairs.map(|(index, (child, parent))| (index, behind(child, parent)));
    let found = between.filter_map(|(index, entry)| Some((entry?, index))).next();
    // Who has no parent is init itself, or a thread of the kernel.
    found.or_else(|| (complete && !chain.is_empty()).then(|| (Entry::Init, chain.len() - 1)))
}

/// The kind of entry that begins between a process and its parent.
fn behind(child: &Link<'_>, parent: &Link<'_>) -> Option<Entry> {
    if let (Some(own @ Some(_)), Some(other)) = (&child.container, &parent.container)
        && own != other
    {
        return Some(Entry::Container);
    }
    if parent.vpid == Some(INIT) && parent.pid != INIT && CONTAINER_INITS.iter().any(|name| parent.is(name)) {
        return Some(Entry::Container);
    }
    match door(parent) {
        _ if parent.pid == KTHREADD => Some(Entry::Kernel),
        _ if parent.pid == INIT && child.of_service == Some(true) => Some(Entry::Service),
        _ if parent.pid == INIT => Some(Entry::Init),
        // A server's own children, such as the one of sshd that waits for a session, are no entry.
        kind if kind == door(child) => None,
        kind => kind,
    }
}

fn door(link: &Link<'_>) -> Option<Entry> {
    DOORS.iter().find(|(name, _)| link.is(name)).map(|&(_, kind)| kind)
}

impl Link<'_> {
    fn is(&self, name: &str) -> bool {
        let name = name.as_bytes();
        self.name == Some(name) || self.comm == Some(&name[..name.len().min(COMM)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(processes: &[(u32, &'static str)]) -> Vec<Link<'static>> {
        let link = |&(pid, name): &(u32, &'static str)| Link {
            pid,
            name: Some(name.as_bytes()),
            container: Some(None),
            of_service: Some(false),
            ..Link::default()
        };
        processes.iter().map(link).collect()
    }

    fn entry(processes: &[(u32, &'static str)]) -> Option<(&'static str, usize)> {
        find(&chain(processes), true).map(|(entry, index)| (entry.as_str(), index))
    }

    #[test]
    fn the_nearest_door_counts() {
        let ssh =
            [(9, "nc"), (8, "bash"), (7, "sshd-session"), (6, "sshd-session"), (5, "sshd"), (1, "systemd")];
        assert_eq!(entry(&ssh), Some(("ssh", 1)));
        assert_eq!(entry(&ssh[2..]), Some(("init", 2)));
        assert_eq!(entry(&[(9, "sh"), (8, "login"), (1, "init")]), Some(("login", 0)));
        assert_eq!(
            entry(&[(9, "nc"), (8, "sh"), (7, "cron"), (6, "cron"), (1, "systemd")]),
            Some(("cron", 1))
        );
        assert_eq!(entry(&[(9, "bash"), (7, "systemd"), (1, "systemd")]), Some(("service", 0)));
        assert_eq!(entry(&[(9, "modprobe"), (5, "kworker/u8:3"), (2, "kthreadd")]), Some(("kernel", 1)));
        assert_eq!(entry(&[(1, "systemd")]), Some(("init", 0)));
        assert_eq!(find(&chain(&[(9, "sh"), (8, "bash")]), false), None);
        assert_eq!(find(&[], true), None);
        // By the kernel's name of it, of which it keeps 15 bytes.
        let mut cut = chain(&[(9, "bash"), (8, "x"), (1, "systemd")]);
        cut[1].comm = Some(b"gdm-session-wor");
        assert_eq!(find(&cut, true), Some((Entry::Login, 0)));
    }

    #[test]
    fn services_and_containers() {
        let mut service = chain(&[(9, "sh"), (8, "nginx"), (1, "systemd")]);
        service[1].of_service = Some(true);
        assert_eq!(find(&service, true), Some((Entry::Service, 1)));
        // `docker exec` puts a process into a container whose parent is outside.
        let mut container = chain(&[(9, "nc"), (8, "bash"), (7, "containerd-shim"), (1, "systemd")]);
        container[0].container = Some(Some("a".to_owned()));
        container[1].container = Some(Some("a".to_owned()));
        assert_eq!(find(&container, true), Some((Entry::Container, 1)));
        container[0].container = Some(Some("b".to_owned()));
        assert_eq!(find(&container, true), Some((Entry::Container, 0)));
        let mut small = chain(&[(9, "bash"), (8, "tini"), (7, "containerd-shim"), (1, "systemd")]);
        small[1].vpid = Some(1);
        assert_eq!(find(&small, true), Some((Entry::Container, 0)));
    }
}
