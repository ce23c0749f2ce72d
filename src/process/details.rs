//! The details of a process: read only when a rule could match.

use std::net::SocketAddr;

use super::exec::Image;
use super::file::FileFacts;
use super::names::{Name, OwnNames};
use super::parse::{self, Capabilities};
use super::proc_dir::{ProcDir, ProcRoot};
use crate::identity::{Identity, Unsettled};
use crate::rules::catalogue::Hints;

/// Bytes kept of the parent's argument list.
const PARENT_ARGUMENTS: usize = 4096;
/// Bytes read of any other file or link; longer cgroup lists and paths are cut.
const SCRATCH: usize = 16 * 1024;
/// The id that means «never set», and that no user or group has (`(uid_t)-1`).
pub const UNSET: u32 = u32::MAX;

/// Processes that are in the host's namespaces: init, and kthreadd, which has the same and lets itself be looked at where
/// init does not.
pub const HOST: [u32; 2] = [1, 2];

/// Namespace ids: the inode numbers of /proc/PID/ns/*.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Namespaces {
    /// Process ids.
    pub pid: Option<u64>,
    /// Mounts.
    pub mnt: Option<u64>,
    /// Network.
    pub net: Option<u64>,
    /// Users.
    pub user: Option<u64>,
}

impl Namespaces {
    /// Those of a process.
    pub fn of(dir: &ProcDir<'_>) -> Self {
        let mut buffer = [0; 64];
        let mut id = |name| dir.link(name, &mut buffer).and_then(parse::namespace);
        Namespaces { pid: id(c"ns/pid"), mnt: id(c"ns/mnt"), net: id(c"ns/net"), user: id(c"ns/user") }
    }

    /// The host's namespaces, for execwatch may have mounts of its own (a service's sandbox). Where they cannot be read,
    /// its own.
    pub fn of_the_host(proc: &ProcRoot) -> Self {
        let own = std::process::id();
        let mut readable = HOST.into_iter().chain([own]).filter_map(|pid| {
            let found = Self::of(&proc.process(pid).ok()?);
            found.mnt.is_some().then_some(found)
        });
        readable.next().unwrap_or_default()
    }
}

/// A login recorded by the audit subsystem, which survives su and sudo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Login {
    /// Nobody logged in: a service, a cron job of a host without pam_loginuid.
    Nobody,
    /// Somebody whose user id is not known.
    Somebody,
    /// The user id that logged in.
    User(u32),
}

impl Login {
    /// The user id, if somebody logged in.
    pub fn user(self) -> Option<u32> {
        match self {
            Login::Nobody | Login::Somebody => None,
            Login::User(uid) => Some(uid),
        }
    }
}

/// What is known of a process beyond executable and arguments. `None` is unknown: the process had gone, or the kernel
/// does not tell.
#[derive(Debug, Clone, Default)]
pub struct Details {
    /// Real, effective, saved and file-system user id; [`UNSET`] for one that is not known.
    pub uids: Option<[u32; 4]>,
    /// Real, effective, saved and file-system group id; [`UNSET`] for one that is not known.
    pub gids: Option<[u32; 4]>,
    /// Names that it brings along; `None` on the host where it runs.
    pub names: Option<Box<OwnNames>>,
    /// The mode creation mask.
    pub umask: Option<u32>,
    /// Who logged in.
    pub login: Option<Login>,
    /// The audit session id; `Some(u32::MAX)` outside a login.
    pub audit_session: Option<u32>,
    /// Session id: the pid of the session's leader.
    pub session: Option<u32>,
    /// Process group id: the pid of the group's leader.
    pub pgid: Option<u32>,
    /// The process id in the innermost pid namespace.
    pub vpid: Option<u32>,
    /// Capability sets.
    pub capabilities: Capabilities,
    /// Supplementary groups; known if the user ids are.
    pub groups: Vec<u32>,
    /// Device number of the controlling terminal; 0 for none.
    pub tty: Option<u32>,
    /// Start time in ticks since boot.
    pub start_ticks: Option<u64>,
    /// Length of the whole argument list in bytes, NULs included.
    pub arguments_length: Option<u64>,
    /// Namespaces.
    pub namespaces: Namespaces,
    /// The installed utility whose file, or a copy of it, was executed.
    pub identity: Option<Identity>,
    /// Why it is not known whether the file is a utility's.
    pub unsettled: Option<Unsettled>,
    /// The file that the dynamic loader was told to run, if it is a dynamic loader that was executed.
    pub loaded_file: Option<FileFacts>,
    /// The parent's process id; 0 for a process whose parent is outside its pid namespace, or the kernel.
    pub ppid: Option<u32>,
    /// It is traced, and who traces it may have written its arguments: the kernel lets the tracer work on it before it tells of
    /// the exec.
    pub traced: bool,
    /// The CPU on which it was when it was read.
    pub processor: Option<u32>,
    /// Scheduling policy and real-time priority (sched(7)).
    pub scheduling: Option<(u32, u8)>,
    /// The client of the ssh session, as the process's own environment tells, which it may have changed.
    pub ssh_client: Option<SocketAddr>,
    /// Who adopted it after its parent had ended: init or a subreaper.
    pub adopter: Option<u32>,
    /// The parent's executable and arguments.
    pub parent: Image,
    /// The executable lies in the upper layer of an overlay mount; read by the worker if a rule asks.
    pub upper_layer: Option<bool>,
    comm: Vec<u8>,
    cwd: Vec<u8>,
    cgroup: Vec<u8>,
    environment: Vec<u8>,
    environment_known: bool,
    environment_cut: bool,
}

/// The buffer that files are read into.
#[derive(Debug)]
pub struct Scratch(Box<[u8]>);

impl Scratch {
    /// The buffer.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Default for Scratch {
    fn default() -> Self {
        // Touched, as the buffers of a listener have to be.
        Scratch(vec![0xff; SCRATCH].into_boxed_slice())
    }
}

impl Details {
    /// Forgets everything but the buffers.
    pub fn clear(&mut self) {
        self.comm.clear();
        self.cwd.clear();
        self.cgroup.clear();
        self.parent.clear();
        self.groups.clear();
        self.environment.clear();
        *self = Details {
            groups: std::mem::take(&mut self.groups),
            environment: std::mem::take(&mut self.environment),
            comm: std::mem::take(&mut self.comm),
            cwd: std::mem::take(&mut self.cwd),
            cgroup: std::mem::take(&mut self.cgroup),
            parent: std::mem::take(&mut self.parent),
            ..Details::default()
        };
    }

    /// The program cannot have run beside a listener of that SCHED_FIFO priority on its CPU: it is still there, and neither a
    /// deadline nor a priority that is no lower gives it the CPU first.
    pub fn gives_way_to(&self, listener: u8) -> bool {
        self.scheduling.is_some_and(|(policy, priority)| match i32::try_from(policy) {
            Ok(libc::SCHED_FIFO | libc::SCHED_RR) => priority < listener,
            Ok(libc::SCHED_DEADLINE) => false,
            _ => true,
        })
    }

    /// Reads everything but the cgroup through the process's folder, what matters most first: an unheld process may end
    /// any time. So many bytes of the environment are kept, and none unless a rule wants it: it may hold secrets, and
    /// nothing else needs it.
    pub fn read(
        &mut self,
        proc: &ProcRoot,
        dir: &ProcDir<'_>,
        Scratch(buffer): &mut Scratch,
        environment: usize,
    ) {
        if let Some(file) = dir.file(c"status", buffer) {
            let file = parse::whole_words(file, SCRATCH);
            let status = parse::status(file, &mut self.groups);
            self.vpid = status.vpid;
            self.capabilities = status.capabilities;
            self.uids = status.uids;
            self.gids = status.gids;
            self.umask = status.umask;
            self.ppid = status.ppid;
            self.traced = status.tracer.is_some_and(|tracer| tracer != 0);
        }
        if let Some(stat) = dir.file(c"stat", buffer).and_then(parse::stat) {
            self.set_comm(stat.comm);
            self.ppid = Some(stat.ppid);
            self.session = Some(stat.session);
            self.pgid = Some(stat.pgid);
            self.tty = Some(stat.tty);
            self.start_ticks = Some(stat.start_ticks);
            self.arguments_length = stat.arguments;
            self.processor = stat.processor;
            self.scheduling = stat.policy.zip(stat.priority);
        }
        self.login = dir.file(c"loginuid", buffer).and_then(parse::number).map(|uid| match uid {
            UNSET => Login::Nobody,
            uid => Login::User(uid),
        });
        self.audit_session = dir.file(c"sessionid", buffer).and_then(parse::number);
        if let Some(cwd) = dir.link(c"cwd", buffer) {
            self.set_cwd(cwd);
        }
        if let Some(content) = dir.file(c"environ", buffer) {
            self.ssh_client = parse::ssh_client(content);
            let wanted = environment > 0;
            if wanted {
                self.set_environment(content.get(..environment).unwrap_or(content));
            }
            // What fills the buffer may have been longer.
            self.environment_cut = wanted && (content.len() == SCRATCH || content.len() > environment);
        }
        self.namespaces = Namespaces::of(dir);
        if let Some(parent) = self.parent_dir(proc)
            && let Some(exe) = parent.link(c"exe", buffer)
        {
            self.parent.set_exe(exe);
        }
    }

    /// Reads the cgroup, after everything else that only the process itself can tell. Before Linux 6.8 the kernel takes
    /// cgroup_mutex for it (`proc_cgroup_show` in kernel/cgroup/cgroup.c), a lock that sleeps and that a host of containers
    /// holds for milliseconds while it makes or removes a cgroup: a listener that waits for it lets go of the program.
    pub(super) fn read_cgroup(&mut self, dir: &ProcDir<'_>, Scratch(buffer): &mut Scratch) {
        if let Some(cgroup) = dir.file(c"cgroup", buffer) {
            self.set_cgroup(cgroup);
        }
    }

    /// Reads the parent's argument list, on the worker's thread. A listener must not: the kernel takes the lock of the
    /// parent's memory map, which the parent's other threads may hold for long, and a listener that waits lets go of
    /// all programs that it should hold. The lock of the executed program's own map is free, and the link to the
    /// parent's executable needs none since Linux 4.1.
    pub fn read_parent_arguments(&mut self, proc: &ProcRoot, Scratch(buffer): &mut Scratch) {
        let Some(parent) = self.parent_dir(proc) else { return };
        let Some(start) = parent.file(c"stat", buffer).and_then(parse::stat).map(|stat| stat.start_ticks)
        else {
            return;
        };
        // A process that was started later is another one, which got the number of a parent that has gone.
        if self.start_ticks.is_none_or(|own| start > own) {
            return;
        }
        if let Some(cmdline) = parent.file(c"cmdline", &mut buffer[..=PARENT_ARGUMENTS]) {
            let cut = cmdline.len() > PARENT_ARGUMENTS;
            self.parent.set_arguments(&cmdline[..cmdline.len().min(PARENT_ARGUMENTS)], cut);
        }
    }

    fn parent_dir(&self, proc: &ProcRoot) -> Option<ProcDir<'static>> {
        proc.process(self.ppid.filter(|&pid| pid != 0)?).ok()
    }

    /// What the catalogue is told besides executable and arguments.
    pub fn hints<'h>(&'h self, comm: Option<&'h [u8]>) -> Hints<'h> {
        Hints {
            file: self.identity.as_ref().map(Identity::known_file),
            unsettled: self.unsettled.is_some(),
            comm,
        }
    }

    /// The kernel's name of the process.
    pub fn comm(&self) -> Option<&[u8]> {
        // No process has an empty name unless it gave itself one, which is as good as unknown.
        Some(self.comm.as_slice()).filter(|comm| !comm.is_empty())
    }

    /// Sets the kernel's name of the process.
    pub fn set_comm(&mut self, comm: &[u8]) {
        self.comm.clear();
        self.comm.extend_from_slice(comm);
    }

    /// The working directory.
    pub fn cwd(&self) -> Option<&[u8]> {
        Some(self.cwd.as_slice()).filter(|cwd| !cwd.is_empty())
    }

    /// Sets the working directory.
    pub fn set_cwd(&mut self, cwd: &[u8]) {
        self.cwd.clear();
        self.cwd.extend_from_slice(cwd);
    }

    /// The content of /proc/PID/cgroup.
    pub fn cgroup(&self) -> Option<&[u8]> {
        Some(self.cgroup.as_slice()).filter(|cgroup| !cgroup.is_empty())
    }

    /// Sets the content of /proc/PID/cgroup.
    pub fn set_cgroup(&mut self, cgroup: &[u8]) {
        self.cgroup.clear();
        self.cgroup.extend_from_slice(cgroup);
    }

    /// The environment as NAME=VALUE with NULs between, cut at a limit; `None` unless a rule asks for it.
    pub fn environment(&self) -> Option<&[u8]> {
        self.environment_known.then_some(self.environment.as_slice())
    }

    /// Sets the environment.
    pub fn set_environment(&mut self, environment: &[u8]) {
        self.environment.clear();
        self.environment.extend_from_slice(environment);
        self.environment_known = true;
    }

    /// The environment was cut at the limit.
    pub fn environment_cut(&self) -> bool {
        self.environment_cut
    }

    /// The whole entries of the environment.
    pub fn variables(&self) -> Option<impl Iterator<Item = &[u8]>> {
        let environment = self.environment()?;
        // Each entry ends with a NUL: what follows the last one is empty, or an entry that was cut.
        let whole = match environment.iter().rposition(|&byte| byte == 0) {
            Some(end) => &environment[..end],
            None if self.environment_cut => &[],
            None => environment,
        };
        Some(whole.split(|&byte| byte == 0).filter(|entry| !entry.is_empty()))
    }

    /// The value of an environment variable; `Some(None)` if it is not set.
    pub fn variable(&self, name: &[u8]) -> Option<Option<&[u8]>> {
        match self.variables()?.find_map(|entry| entry.strip_prefix(name)?.strip_prefix(b"=")) {
            // It might stand in what was cut off.
            None if self.environment_cut => None,
            value => Some(value),
        }
    }

    /// The controlling terminal's name; `Some(None)` if there is none.
    pub fn tty_name(&self) -> Option<Option<String>> {
        self.tty.map(parse::tty_name)
    }

    /// The real (0), effective (1), saved (2) or file-system (3) user id.
    pub fn uid(&self, which: usize) -> Option<u32> {
        known_id(self.uids, which)
    }

    /// The real (0), effective (1), saved (2) or file-system (3) group id.
    pub fn gid(&self, which: usize) -> Option<u32> {
        known_id(self.gids, which)
    }

    /// The names of what could not be read.
    pub fn unknown(&self) -> impl Iterator<Item = &'static str> {
        let parent_expected = self.ppid != Some(0);
        [
            ("user", self.uids.is_none() && self.names.as_ref().is_none_or(|own| own.user == Name::Unknown)),
            ("login", self.login.is_none()),
            ("session", self.session.is_none()),
            ("cwd", self.cwd().is_none()),
            ("cgroup", self.cgroup().is_none()),
            ("namespaces", self.namespaces.pid.is_none()),
            ("start", self.start_ticks.is_none()),
            ("identity", self.unsettled.is_some()),
            ("parent", parent_expected && self.parent.exe().is_none()),
            (
                "parent-arguments",
                parent_expected && self.parent.exe().is_some() && self.parent.argv().is_none(),
            ),
        ]
        .into_iter()
        .filter_map(|(name, unknown)| unknown.then_some(name))
    }

    /// Bytes held.
    pub fn len(&self) -> usize {
        let groups = self.groups.len() * size_of::<u32>();
        self.comm.len()
            + self.cwd.len()
            + self.cgroup.len()
            + self.environment.len()
            + groups
            + self.parent.len()
    }

    /// Nothing was read.
    pub fn is_empty(&self) -> bool {
        self.uids.is_none() && self.start_ticks.is_none()
    }
}

/// One of four ids, unless it is not known.
pub fn known_id(ids: Option<[u32; 4]>, which: usize) -> Option<u32> {
    ids?.get(which).copied().filter(|&id| id != UNSET)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn an_environment_is_kept_up_to_a_limit_and_counts() {
        let proc = ProcRoot::open(std::path::Path::new("/proc")).unwrap();
        let mut child =
            std::process::Command::new("sleep").arg("100").env("LONG", "x".repeat(500)).spawn().unwrap();
        // The program can be seen before its environment is in its memory.
        let (environ, deadline) =
            (format!("/proc/{}/environ", child.id()), Instant::now() + Duration::from_secs(20));
        while std::fs::read(&environ).unwrap().len() < 500 {
            assert!(Instant::now() < deadline, "sleep has no environment");
            std::thread::sleep(Duration::from_millis(1));
        }
        let read = |environment| {
            let (mut details, dir) = (Details::default(), proc.process(child.id()).unwrap());
            details.read(&proc, &dir, &mut Scratch::default(), environment);
            details
        };
        let [none, some, all] = [0, 100, usize::MAX].map(read);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!((none.environment(), none.environment_cut()), (None, false));
        assert_eq!((some.environment().map(<[u8]>::len), some.environment_cut()), (Some(100), true));
        assert!(all.environment().is_some_and(|kept| kept.len() > 500) && !all.environment_cut());
        assert!(all.len() >= none.len() + 500);
    }
}
