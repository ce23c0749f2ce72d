//! What a process holds at a moment: descriptors, sockets, input and output, CPU time.
//!
//! The only part with I/O on other processes. One look costs at most [`MOST_DESCRIPTORS`] links and, for all processes that
//! are looked at together, one pass over the sockets of the host, which ends as soon as all wanted ones were found.

use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use netlink_sys::{Socket as Netlink, SocketAddr as NetlinkAddress};
use nix::fcntl::{AtFlags, OFlag};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::fstatat;

use super::diag::{self, Answer, Request};
use super::sockets::{Layout, Protocol, Socket, line};
use crate::order;
use crate::process::parse::{namespace, number};
use crate::process::proc_dir::{ProcDir, ProcRoot};
use crate::sys;

/// Descriptors of a process that are looked at; the rest is said to be there.
pub const MOST_DESCRIPTORS: usize = 1024;
/// Sockets of the host that a look passes in search of those wanted.
const MOST_PASSED: usize = 200_000;
/// Bytes read of a table in /proc/PID/net.
const TABLE: u64 = 16 << 20;
/// How long the kernel's answers may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// Longest path kept.
const PATH: usize = 512;

/// Where addresses were learnt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// From the kernel's sock_diag, which also counts bytes.
    Diag,
    /// From /proc/PID/net: the process is in another network namespace, or there is no sock_diag.
    Proc,
}

impl Source {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Source::Diag => "sock-diag",
            Source::Proc => "proc",
        }
    }
}

/// Input and output of a process since it was made (/proc/PID/io, proc_pid_io(5)), in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Io {
    /// Read by system calls, from files, pipes and sockets alike.
    pub read: u64,
    /// Written by system calls.
    pub written: u64,
    /// Fetched from disks.
    pub disk_read: u64,
    /// Sent to disks.
    pub disk_written: u64,
}

/// What was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Look {
    /// Its sockets.
    pub sockets: Vec<Socket>,
    /// Where their addresses were learnt; `None` if there are none.
    pub source: Option<Source>,
    /// Files it has open for writing.
    pub files: Vec<Box<[u8]>>,
    /// How many descriptors were looked at.
    pub descriptors: usize,
    /// It has more descriptors than were looked at.
    pub cut: bool,
    /// Descriptors could be listed.
    pub listed: bool,
    /// Input and output.
    pub io: Option<Io>,
    /// CPU time of all its threads in nanoseconds.
    pub cpu_ns: Option<u64>,
    /// Its first thread has ended, and others go on.
    pub leader_ended: bool,
}

impl Look {
    /// The process goes on although its first thread was said to have ended: with another thread, or as the program that
    /// another thread executed. One that is ending holds nothing any more.
    pub fn goes_on(&self) -> bool {
        self.leader_ended || self.descriptors > 0
    }
}

/// A process that is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Who {
    /// Process id.
    pub pid: u32,
    /// Start in ticks since boot, which tells it from another that has its pid; `None` if it could not be read.
    pub start_ticks: Option<u64>,
}

/// Looks at processes.
#[derive(Debug)]
pub struct Looker {
    proc: Arc<ProcRoot>,
    /// Of this process.
    network: Option<u64>,
    ns_per_tick: u64,
}

/// A look of which the sockets are still to be found.
struct Begun {
    dir: ProcDir<'static>,
    look: Look,
    inodes: HashSet<u64>,
    network: Option<u64>,
}

impl Looker {
    /// Looks through this /proc.
    pub fn new(proc: Arc<ProcRoot>) -> Self {
        let own = proc.process(std::process::id()).ok();
        let network = own.and_then(|dir| network_namespace(&dir));
        Looker { proc, network, ns_per_tick: 1_000_000_000 / procfs::ticks_per_second().max(1) }
    }

    /// Looks at processes; `None` for one that has gone.
    pub fn look(&self, at: &[Who]) -> Vec<Option<Look>> {
        let mut begun: Vec<Option<Begun>> = at.iter().map(|who| self.begin(*who)).collect();
        let wanted: HashSet<u64> = begun
            .iter()
            .flatten()
            .filter(|begun| begun.network == self.network)
            .flat_map(|begun| begun.inodes.iter().copied())
            .collect();
        let found = find_by_diag(&wanted);
        for begun in begun.iter_mut().flatten().filter(|begun| !begun.inodes.is_empty()) {
            let by_diag = found.as_ref().filter(|_| begun.network == self.network);
            begun.find_sockets(by_diag);
        }
        begun.into_iter().map(|begun| begun.map(|begun| begun.look)).collect()
    }

    fn begin(&self, who: Who) -> Option<Begun> {
        let dir = self.proc.process(who.pid).ok()?;
        let mut buffer = [0; 1024];
        let stat = Stat::parse(dir.file(c"stat", &mut buffer)?)?;
        if who.start_ticks.is_some_and(|start| start != stat.start_ticks) {
            return None;
        }
        let ended = matches!(stat.state, b'Z' | b'X');
        let mut look =
            Look { cpu_ns: Some(stat.cpu_ticks.saturating_mul(self.ns_per_tick)), ..Look::default() };
        look.io = dir.file(c"io", &mut buffer).map(io_of);
        let mut thread = None;
        if ended {
            thread = other_thread(&dir, who.pid);
            look.leader_ended = thread.is_some();
        }
        let mut inodes = HashSet::new();
        let folder = match &thread {
            Some(thread) => CString::new(format!("task/{thread}/fd")).ok()?,
            None => c"fd".to_owned(),
        };
        if !ended || thread.is_some() {
            list_descriptors(&dir, &folder, &mut look, &mut inodes);
        }
        let network = network_namespace(&dir);
        Some(Begun { dir, look, inodes, network })
    }
}

impl Begun {
    /// Finds what the inodes are; those that nothing lists stay without a name.
    fn find_sockets(&mut self, by_diag: Option<&HashMap<u64, Socket>>) {
        let Begun { dir, look, inodes, .. } = self;
        if let Some(found) = by_diag {
            look.source = Some(Source::Diag);
            inodes.retain(|inode| match found.get(inode) {
                Some(socket) => {
                    look.sockets.push(socket.clone());
                    false
                }
                None => true,
            });
        } else {
            look.source = Some(Source::Proc);
        }
        use Layout::{Inet, InodeAt, Unix};
        let internet = [
            (c"net/tcp", Protocol::Tcp, Inet),
            (c"net/tcp6", Protocol::Tcp, Inet),
            (c"net/udp", Protocol::Udp, Inet),
            (c"net/udp6", Protocol::Udp, Inet),
        ];
        let others = [
            (c"net/unix", Protocol::Unix, Unix),
            (c"net/raw", Protocol::Raw, Inet),
            (c"net/raw6", Protocol::Raw, Inet),
            (c"net/icmp", Protocol::Icmp, Inet),
            (c"net/icmp6", Protocol::Icmp, Inet),
            (c"net/packet", Protocol::Packet, InodeAt(8)),
            (c"net/netlink", Protocol::Netlink, InodeAt(9)),
        ];
        let tables = internet.iter().filter(|_| by_diag.is_none()).chain(&others);
        for &(name, protocol, layout) in tables {
            if inodes.is_empty() {
                break;
            }
            read_table(dir, name, |bytes| {
                if let Some(socket) = line(bytes, protocol, layout)
                    && inodes.remove(&socket.inode)
                {
                    look.sockets.push(socket);
                }
                !inodes.is_empty()
            });
        }
        look.sockets.extend(inodes.drain().map(|inode| Socket { inode, ..Socket::default() }));
        // The order of a set is that of chance.
        order::by_key(&mut look.sockets, |socket| socket.inode);
    }
}

/// Gives each line to `take` until it returns false. A table that is not there has no lines.
fn read_table(dir: &ProcDir<'_>, name: &CStr, mut take: impl FnMut(&[u8]) -> bool) {
    let Some(file) = dir.open(name, OFlag::O_RDONLY | OFlag::O_CLOEXEC) else { return };
    let mut reader = BufReader::with_capacity(32 << 10, File::from(file).take(TABLE));
    let mut line = Vec::new();
    while let Ok(1..) = reader.read_until(b'\n', &mut line) {
        if !take(&line) {
            return;
        }
        line.clear();
    }
}

fn network_namespace(dir: &ProcDir<'_>) -> Option<u64> {
    let mut buffer = [0; 64];
    namespace(dir.link(c"ns/net", &mut buffer)?)
}

/// The names in a folder of a process, which is reached by its descriptor so that it stays this process's.
fn names(folder: &OwnedFd) -> io::Result<impl Iterator<Item = std::ffi::OsString>> {
    let path = format!("/proc/self/fd/{}", folder.as_raw_fd());
    Ok(std::fs::read_dir(Path::new(&path))?.filter_map(|entry| entry.ok().map(|entry| entry.file_name())))
}

/// A thread besides the first.
fn other_thread(dir: &ProcDir<'_>, pid: u32) -> Option<u32> {
    let folder = dir.open(c"task", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)?;
    let all = names(&folder).ok()?;
    let mut threads = all.filter_map(|name| name.to_str()?.parse().ok());
    threads.find(|&thread: &u32| thread != pid)
}

fn list_descriptors(dir: &ProcDir<'_>, folder: &CStr, look: &mut Look, inodes: &mut HashSet<u64>) {
    use std::os::unix::ffi::OsStrExt;
    let Some(folder) = dir.open(folder, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC) else {
        return;
    };
    let Ok(all) = names(&folder) else { return };
    look.listed = true;
    let mut buffer = [0; PATH];
    for (count, name) in all.enumerate() {
        if count == MOST_DESCRIPTORS {
            look.cut = true;
            break;
        }
        look.descriptors += 1;
        let Ok(name) = CString::new(name.as_bytes()) else { continue };
        let Ok(length) = sys::fs::read_link_at(folder.as_fd(), &name, &mut buffer) else { continue };
        let target = &buffer[..length];
        if let Some(inode) = socket_inode(target) {
            inodes.insert(inode);
        } else if is_file(target)
            && fstatat(&folder, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW)
                // The permissions of the link itself say how the file was opened (proc_pid_fd(5)).
                .is_ok_and(|status| status.st_mode & 0o200 != 0)
            && !look.files.iter().any(|file| **file == *target)
        {
            look.files.push(target.into());
        }
    }
    look.files.sort_unstable();
}

/// The inode in a link such as `socket:[4711]`.
fn socket_inode(target: &[u8]) -> Option<u64> {
    number(target.strip_prefix(b"socket:[")?.strip_suffix(b"]")?)
}

/// A path that tells something: pipes and the like have none, and terminals are in the alert.
fn is_file(target: &[u8]) -> bool {
    const DULL: [&[u8]; 4] = [b"/dev/null", b"/dev/pts/", b"/dev/tty", b"/dev/ptmx"];
    target.starts_with(b"/") && !DULL.iter().any(|dull| target.starts_with(dull))
}

/// Of /proc/PID/stat, what is of use here.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    state: u8,
    cpu_ticks: u64,
    start_ticks: u64,
}

impl Stat {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let end = bytes.iter().rposition(|&byte| byte == b')')?;
        let mut fields = bytes.get(end + 2..)?.split(|&byte| byte == b' ');
        let state = *fields.next()?.first()?;
        // utime is field 14, stime 15, starttime 22; the state was field 3.
        let user: u64 = number(fields.nth(10)?)?;
        let system: u64 = number(fields.next()?)?;
        Some(Stat { state, cpu_ticks: user.saturating_add(system), start_ticks: number(fields.nth(6)?)? })
    }
}

fn io_of(bytes: &[u8]) -> Io {
    let mut io = Io::default();
    for line in bytes.split(|&byte| byte == b'\n') {
        let Some(colon) = line.iter().position(|&byte| byte == b':') else { continue };
        let place = match &line[..colon] {
            b"rchar" => &mut io.read,
            b"wchar" => &mut io.written,
            b"read_bytes" => &mut io.disk_read,
            b"write_bytes" => &mut io.disk_written,
            _ => continue,
        };
        *place = number(&line[colon + 1..]).unwrap_or_default();
    }
    io
}

/// The wanted sockets of this network namespace; `None` if the kernel has no sock_diag for them, or is too slow.
fn find_by_diag(wanted: &HashSet<u64>) -> Option<HashMap<u64, Socket>> {
    let mut found = HashMap::new();
    let mut passed = 0;
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        for v6 in [false, true] {
            if found.len() == wanted.len() {
                return Some(found);
            }
            match dump(Request { protocol, v6 }, wanted, &mut found, &mut passed) {
                Ok(()) => {}
                // A kernel without IPv6 has no such sockets.
                Err(error) if v6 && error.raw_os_error() == Some(libc::ENOENT) => {}
                Err(error) => {
                    log::debug!("sockets cannot be asked for with sock_diag: {error}");
                    return None;
                }
            }
        }
    }
    Some(found)
}

/// Asks with a socket of its own, because what is not read of an answer would come before the next one.
fn dump(
    request: Request,
    wanted: &HashSet<u64>,
    found: &mut HashMap<u64, Socket>,
    passed: &mut usize,
) -> io::Result<()> {
    let mut socket = Netlink::new(diag::FAMILY)?;
    socket.bind_auto()?;
    socket.connect(&NetlinkAddress::new(0, 0))?;
    socket.set_non_blocking(true)?;
    socket.send(&request.to_datagram(), 0)?;
    let deadline = Instant::now() + PATIENCE;
    let mut buffer = vec![0; 32 << 10];
    while found.len() < wanted.len() {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        if poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)], timeout)? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let length = nix::unistd::read(&socket, &mut buffer)?;
        for answer in diag::answers(buffer.get(..length).unwrap_or_default(), request.protocol) {
            match answer {
                Answer::Socket(socket) => {
                    *passed += 1;
                    if wanted.contains(&socket.inode) {
                        found.insert(socket.inode, socket);
                    }
                }
                Answer::Done => return Ok(()),
                Answer::Refused(errno) => return Err(io::Error::from_raw_os_error(errno)),
                Answer::Strange => {}
            }
        }
        if *passed > MOST_PASSED {
            return Err(io::Error::other(format!("there are more than {MOST_PASSED} of them")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_proc() {
        let stat = b"42 (a) b) S 1 42 42 0 -1 4194560 1 2 3 4 150 50 7 8 20 0 1 0 9000 1 1";
        assert_eq!(Stat::parse(stat), Some(Stat { state: b'S', cpu_ticks: 200, start_ticks: 9000 }));
        assert_eq!(Stat::parse(b"42 (a) S 1"), None);
        let io = io_of(b"rchar: 10\nwchar: 20\nsyscr: 1\nread_bytes: 4096\nwrite_bytes: 8192\n");
        assert_eq!(io, Io { read: 10, written: 20, disk_read: 4096, disk_written: 8192 });
        assert_eq!(socket_inode(b"socket:[4711]"), Some(4711));
        assert_eq!(socket_inode(b"pipe:[4711]"), None);
        assert!(is_file(b"/tmp/x") && !is_file(b"/dev/pts/3") && !is_file(b"anon_inode:[eventpoll]"));
    }

    /// This process is one like any other.
    #[test]
    fn its_own_sockets_and_files() {
        let proc = Arc::new(ProcRoot::open(Path::new("/proc")).unwrap());
        let listening = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let (_here, _there) = std::os::unix::net::UnixStream::pair().unwrap();
        let looker = Looker::new(Arc::clone(&proc));
        let who = Who { pid: std::process::id(), start_ticks: None };
        let look = looker.look(&[who, Who { start_ticks: Some(1), ..who }]);
        let [Some(look), None] = &look[..] else { panic!("{look:?}") };
        let has = |protocol, address| {
            look.sockets.iter().any(|socket| socket.protocol == protocol && socket.local == Some(address))
        };
        assert!(has(Protocol::Tcp, listening.local_addr().unwrap()), "{look:?}");
        assert!(has(Protocol::Udp, udp.local_addr().unwrap()), "{look:?}");
        assert!(look.sockets.iter().any(|socket| socket.protocol == Protocol::Unix), "{look:?}");
        assert!(look.io.is_some() && look.cpu_ns.is_some() && look.listed);
        // The tables of /proc say the same.
        let mut begun = looker.begin(who).unwrap();
        begun.find_sockets(None);
        let address = |look: &Look| {
            let tcp = look.sockets.iter().filter(|socket| socket.protocol == Protocol::Tcp);
            tcp.map(|socket| socket.local).find(|&local| local == listening.local_addr().ok())
        };
        assert_eq!(begun.look.source, Some(Source::Proc));
        assert_eq!(address(&begun.look), address(look));
    }
}
