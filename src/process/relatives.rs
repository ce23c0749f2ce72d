//! Other processes than the executed one: ancestors, leaders of session and group, as they are now.
//!
//! Read by the worker, and only when a rule asks: they are not held, and some have gone by then.

use std::net::SocketAddr;
use std::sync::Arc;

use super::container::{Containers, Named};
use super::details::{Details, Scratch};
use super::entry::Link;
use super::exec::Image;
use super::names::OwnNames;
use super::parse;
use super::place::Place;
use super::proc_dir::{ProcDir, ProcRoot};

/// Ancestors beyond this many are not looked at.
pub const MOST_ANCESTORS: usize = 32;
/// Processes of a container beyond this many are not looked at to find its oldest.
const MOST_MEMBERS: usize = 256;
/// Bytes kept of a relative's argument list.
const ARGUMENTS: usize = 4096;

/// How what is shown of a relative was learnt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Learnt {
    /// An event told.
    Seen,
    /// It was read in /proc, when execwatch started or after events had been lost.
    Snapshot,
    /// The process executed nothing itself: it shows what its maker did.
    Inherited,
    /// It is not known.
    #[default]
    Unknown,
}

impl Learnt {
    /// The word used in alerts.
    pub fn as_str(self) -> &'static str {
        match self {
            Learnt::Seen => "seen",
            Learnt::Snapshot => "snapshot",
            Learnt::Inherited => "inherited",
            Learnt::Unknown => "unknown",
        }
    }
}

/// What is known of another process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Relative {
    /// Process id; 0 if it is not known.
    pub pid: u32,
    /// Executable and arguments: an ancestor's when it made the next process of the chain, if events told; else as they
    /// are shown now.
    pub image: Image,
    /// How these were learnt.
    pub learnt: Learnt,
    /// What it had executed before that, the last first, if events told.
    pub earlier: Vec<Image>,
    /// It has ended.
    pub ended: bool,
    /// The kernel's name of it.
    pub comm: Option<Vec<u8>>,
    /// Real, effective, saved and file-system user id; [`UNSET`](super::details::UNSET) for one that is not known.
    pub uids: Option<[u32; 4]>,
    /// Real, effective, saved and file-system group id; [`UNSET`](super::details::UNSET) for one that is not known.
    pub gids: Option<[u32; 4]>,
    /// Names that it brings along; `None` on the host where it runs.
    pub names: Option<Box<OwnNames>>,
    /// The parent's process id.
    pub ppid: Option<u32>,
    /// Device number of the controlling terminal; 0 for none.
    pub tty: Option<u32>,
    /// The working directory.
    pub cwd: Option<Vec<u8>>,
    /// Start time in ticks since boot.
    pub start_ticks: Option<u64>,
    /// The process id in the innermost pid namespace.
    pub vpid: Option<u32>,
    /// The content of /proc/PID/cgroup.
    pub cgroup: Option<Vec<u8>>,
}

impl Relative {
    /// Where it runs.
    pub fn place(&self) -> Option<Place> {
        self.cgroup.as_deref().map(Place::of_cgroup)
    }

    /// Itself as one of a chain whose entry is looked for.
    pub fn link(&self) -> Link<'_> {
        let place = self.place();
        Link {
            pid: self.pid,
            name: self.image.name(),
            comm: self.comm.as_deref(),
            vpid: self.vpid,
            of_service: place.as_ref().map(Place::of_service),
            container: place.map(|place| place.container_id),
        }
    }
}

/// The ancestors of a process, the parent first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ancestors {
    /// What was found of them.
    pub processes: Vec<Relative>,
    /// They reach up to the first process: there are no others.
    pub complete: bool,
    /// What the process itself had executed before, the last first.
    pub earlier: Vec<Image>,
}

/// What a process can be the leader of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leader {
    /// A session.
    Session,
    /// A process group.
    Group,
}

/// Where relatives are looked up.
pub trait Processes: std::fmt::Debug + Send + Sync {
    /// The process `pid`, if it is there and was not started after `started_before` (ticks since boot), which would
    /// make it another one with a number that was used again.
    fn find(&self, pid: u32, started_before: Option<u64>) -> Option<Relative>;

    /// When the oldest process of a container was started, in ticks since boot, among those that the cgroup lists in which
    /// its processes are; `None` if that cannot be told. `cgroup` is what /proc/PID/cgroup says of one of them.
    fn container_start(&self, cgroup: &[u8]) -> Option<u64> {
        let _ = cgroup;
        None
    }

    /// What its runtime tells of the container where a program runs.
    fn container(&self, place: &Place) -> Option<Arc<Named>> {
        let _ = place;
        None
    }

    /// The client of the ssh session, as the environment of a process tells that was started at that time.
    fn ssh_client(&self, pid: u32, start_ticks: Option<u64>) -> Option<SocketAddr> {
        let _ = (pid, start_ticks);
        None
    }

    /// The leader of a process's session or group. `pid` is its number, if that is known; other arguments as for
    /// [`find`](Self::find).
    fn leader(&self, _: Leader, pid: Option<u32>, started_before: Option<u64>) -> Option<Relative> {
        self.find(pid?, started_before)
    }

    /// The ancestors of a process as they are now, from parent to parent: an orphan's lead over whoever adopted it.
    fn ancestors(&self, process: &Details) -> Ancestors {
        let mut ancestors = Ancestors::default();
        let (mut next, mut started_before) = (process.ppid, process.start_ticks);
        while let Some(pid) = next {
            if pid == 0 {
                ancestors.complete = true;
                break;
            }
            if ancestors.processes.len() == MOST_ANCESTORS {
                break;
            }
            let Some(process) = self.find(pid, started_before) else { break };
            next = process.ppid;
            started_before = process.start_ticks;
            ancestors.processes.push(process);
        }
        ancestors
    }
}

/// No process is there: for rules that are tried without a host.
#[derive(Debug, Clone, Copy)]
pub struct NoProcesses;

impl Processes for NoProcesses {
    fn find(&self, _: u32, _: Option<u64>) -> Option<Relative> {
        None
    }
}

/// The processes of this host.
#[derive(Debug)]
pub struct HostProcesses {
    proc: Arc<ProcRoot>,
    scratch: std::sync::Mutex<Scratch>,
    containers: Containers,
}

impl HostProcesses {
    /// Processes as a mounted /proc shows them.
    pub fn new(proc: Arc<ProcRoot>) -> Self {
        HostProcesses {
            proc,
            scratch: std::sync::Mutex::default(),
            containers: Containers::new(std::path::Path::new("/")),
        }
    }
}

impl Processes for HostProcesses {
    fn find(&self, pid: u32, started_before: Option<u64>) -> Option<Relative> {
        let dir = self.proc.process(pid).ok()?;
        let mut scratch = self.scratch.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let buffer = scratch.bytes();
        let mut relative = Relative { pid, learnt: Learnt::Snapshot, ..Relative::default() };
        {
            let stat = parse::stat(dir.file(c"stat", buffer)?)?;
            if started_before.is_some_and(|limit| stat.start_ticks > limit) {
                return None;
            }
            relative.comm = Some(stat.comm.to_vec());
            relative.ppid = Some(stat.ppid);
            relative.tty = Some(stat.tty);
            relative.start_ticks = Some(stat.start_ticks);
        }
        if let Some(exe) = dir.link(c"exe", buffer) {
            relative.image.set_exe(exe);
        }
        if let Some(cmdline) = dir.file(c"cmdline", &mut buffer[..=ARGUMENTS]) {
            relative.image.set_arguments(&cmdline[..cmdline.len().min(ARGUMENTS)], cmdline.len() > ARGUMENTS);
        }
        if let Some(status) = dir.file(c"status", buffer) {
            let status = parse::status(status, &mut Vec::new());
            relative.uids = status.uids;
            relative.gids = status.gids;
            relative.vpid = status.vpid;
        }
        relative.cgroup = dir.file(c"cgroup", buffer).map(<[u8]>::to_vec);
        relative.cwd = dir.link(c"cwd", buffer).map(<[u8]>::to_vec);
        Some(relative)
    }

    fn ssh_client(&self, pid: u32, start_ticks: Option<u64>) -> Option<SocketAddr> {
        let dir = self.proc.process(pid).ok()?;
        let mut scratch = self.scratch.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let buffer = scratch.bytes();
        let start = start_of(&dir, buffer)?;
        // Another process, which got the number.
        if start_ticks.is_none_or(|ticks| ticks.abs_diff(start) > 2) {
            return None;
        }
        parse::ssh_client(dir.file(c"environ", buffer)?)
    }

    fn container(&self, place: &Place) -> Option<Arc<Named>> {
        self.containers.of(place)
    }

    fn container_start(&self, cgroup: &[u8]) -> Option<u64> {
        let members = cgroup.split(|&byte| byte == b'\n').find_map(members)?;
        let mut scratch = self.scratch.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut start = |pid| start_of(&self.proc.process(pid).ok()?, scratch.bytes());
        members.into_iter().filter_map(&mut start).min()
    }
}

fn start_of(dir: &ProcDir<'_>, buffer: &mut [u8]) -> Option<u64> {
    Some(parse::stat(dir.file(c"stat", buffer)?)?.start_ticks)
}

/// Where the hierarchies of control groups are mounted: version 2 alone, beside version 1, and version 1 by controller.
const CGROUPS: &str = "/sys/fs/cgroup";

/// The processes in the cgroup of a container that a line of /proc/PID/cgroup names.
fn members(line: &[u8]) -> Option<Vec<u32>> {
    use std::io::Read;
    let line = std::str::from_utf8(line).ok()?;
    let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
    let path = Place::container_path(path)?;
    // Seen from another cgroup namespace, a path may lead up.
    if path.split('/').any(|part| part == "..") {
        return None;
    }
    let hierarchies = match controllers.strip_prefix("name=").unwrap_or(controllers) {
        "" => vec![CGROUPS.to_owned(), format!("{CGROUPS}/unified")],
        name => vec![format!("{CGROUPS}/{name}")],
    };
    let list = hierarchies.iter().find_map(|hierarchy| {
        let file = std::fs::File::open(format!("{hierarchy}{path}/cgroup.procs")).ok()?;
        let mut list = String::new();
        // A pid has seven digits at most.
        file.take(MOST_MEMBERS as u64 * 8).read_to_string(&mut list).ok()?;
        Some(list)
    })?;
    let members: Vec<u32> = list.lines().filter_map(|pid| pid.parse().ok()).take(MOST_MEMBERS).collect();
    Some(members).filter(|members| !members.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// A table of (pid, ppid, start time).
    #[derive(Debug)]
    struct Table(&'static [(u32, u32, u64)]);

    impl Processes for Table {
        fn find(&self, pid: u32, started_before: Option<u64>) -> Option<Relative> {
            let &(_, ppid, start) = self.0.iter().find(|row| row.0 == pid)?;
            (started_before.is_none_or(|limit| start <= limit)).then(|| Relative {
                pid,
                ppid: Some(ppid),
                start_ticks: Some(start),
                ..Relative::default()
            })
        }
    }

    fn pids(table: Table, ppid: u32, start: u64) -> (Vec<u32>, bool) {
        let mut process = Details::default();
        process.ppid = Some(ppid);
        process.start_ticks = Some(start);
        let ancestors = table.ancestors(&process);
        (ancestors.processes.iter().map(|process| process.pid).collect(), ancestors.complete)
    }

    #[test]
    fn up_to_the_first_process_and_not_to_strangers() {
        assert_eq!(pids(Table(&[(1, 0, 1), (5, 1, 50), (7, 5, 70)]), 7, 80), (vec![7, 5, 1], true));
        // The parent's number belongs to a later process by now.
        assert_eq!(pids(Table(&[(1, 0, 1), (5, 1, 90), (7, 5, 70)]), 7, 80), (vec![7], false));
        assert_eq!(pids(Table(&[]), 7, 80), (vec![], false));
        assert_eq!(pids(Table(&[]), 0, 80), (vec![], true));
        // A circle, which only a forged table has, ends.
        assert_eq!(pids(Table(&[(7, 7, 70)]), 7, 80).0.len(), MOST_ANCESTORS);
    }

    #[test]
    fn this_process_has_its_own_facts() {
        let processes = HostProcesses::new(Arc::new(ProcRoot::open(Path::new("/proc")).unwrap()));
        let own = processes.find(std::process::id(), None).unwrap();
        assert_eq!(own.uids.unwrap()[0], nix::unistd::getuid().as_raw());
        assert_eq!(own.ppid, Some(nix::unistd::getppid().as_raw() as u32));
        assert_eq!(
            own.cwd.as_deref(),
            std::env::current_dir().ok().map(|dir| dir.into_os_string().into_encoded_bytes()).as_deref()
        );
        assert!(own.image.exe().is_some() && own.comm.is_some());
        assert!(own.vpid.is_some() && own.cgroup.is_some());
        assert_eq!(processes.find(std::process::id(), Some(0)), None);
    }
}
