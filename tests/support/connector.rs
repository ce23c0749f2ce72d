//! Connector sockets of the tests' own: to listen beside the daemon, to see whether the kernel sends events at all, and
//! to forge messages. Written without the daemon's code, which is under test.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::process::Command;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_CONNECTOR};

/// `PROC_EVENT_FORK`.
pub(crate) const FORK: u32 = 1;
/// `PROC_EVENT_EXEC`.
pub(crate) const EXEC: u32 = 2;
/// `PROC_CN_MCAST_LISTEN`.
const LISTEN: u32 = 1;
/// `PROC_CN_MCAST_IGNORE`.
const IGNORE: u32 = 2;
/// All kinds of events, those of later kernels too.
const ALL: u32 = u32::MAX;
/// What the kernel answers with EINVAL.
const NO_OPERATION: u32 = 3;

/// A connector socket that never blocks.
pub(crate) struct Connector(Socket);

impl Connector {
    /// Opens a socket; joined to the group of process events, it gets them as soon as anybody on the host listens.
    pub(crate) fn open(joined: bool) -> Self {
        let mut socket = Socket::new(NETLINK_CONNECTOR).unwrap();
        socket.bind(&SocketAddr::new(0, joined.into())).unwrap();
        socket.set_non_blocking(true).unwrap();
        Connector(socket)
    }

    /// Asks the kernel for events.
    pub(crate) fn listen(&self) {
        self.send(0, &request(LISTEN));
    }

    /// Takes [`listen`](Self::listen) back.
    pub(crate) fn ignore(&self) {
        self.send(0, &request(IGNORE));
    }

    /// Lowers the kernel's count of listeners although this socket never raised it. A kernel from 6.6 on takes IGNORE
    /// only from a socket whose last operation was another one, be it one that does not exist.
    pub(crate) fn take_back_a_stranger(&self) {
        self.send(0, &request(NO_OPERATION));
        self.ignore();
    }

    /// Sends a datagram to a netlink port; 0 is the kernel.
    pub(crate) fn send(&self, port: u32, datagram: &[u8]) {
        self.0.send_to(datagram, &SocketAddr::new(port, 0), 0).unwrap();
    }

    /// Takes everything that has come; returns the process ids of execs among it, and whether there was anything.
    pub(crate) fn drain(&self) -> (Vec<u32>, bool) {
        let (mut pids, mut anything) = (Vec::new(), false);
        loop {
            let mut buffer = [0u8; 256];
            match self.0.recv_from(&mut &mut buffer[..], 0) {
                Ok((length, _)) => {
                    anything = true;
                    let word = |at: usize| u32::from_ne_bytes(buffer[at..at + 4].try_into().unwrap());
                    if length >= 60 && word(36) == EXEC {
                        pids.push(word(56));
                    }
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => anything = true,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return (pids, anything),
                Err(error) => panic!("receiving: {error}"),
            }
        }
    }

    /// Whether the kernel sends an event for an exec. It does so within execve, so when the program has ended, its event
    /// has come or never will.
    pub(crate) fn hears(&self) -> bool {
        self.drain();
        assert!(Command::new("true").status().unwrap().success());
        self.drain().1
    }

    /// Whether the kernel takes requests that name kinds of events, as from 6.6 on: it answers them. Nobody else may listen.
    pub(crate) fn knows_kinds(&self) -> bool {
        self.drain();
        self.send(0, &datagram(&[LISTEN, ALL].map(u32::to_ne_bytes).concat()));
        // The answer comes from within send(2).
        let answered = self.drain().1;
        self.ignore();
        answered
    }

    fn inode(&self) -> u64 {
        inode_of_link(&format!("/proc/self/fd/{}", self.0.as_fd().as_raw_fd())).unwrap()
    }
}

/// A request to the connector, as every kernel understands it.
fn request(operation: u32) -> Vec<u8> {
    datagram(&operation.to_ne_bytes())
}

/// An event as the kernel lays it out. `members` are the words after the time stamp.
pub(crate) fn event(what: u32, cpu: u32, members: [u32; 6]) -> Vec<u8> {
    let mut event = [what, cpu, 0, 0].map(u32::to_ne_bytes).concat();
    event.extend(members.map(u32::to_ne_bytes).concat());
    datagram(&event)
}

/// A connector message with netlink header: type NLMSG_DONE, index and value of process events.
fn datagram(payload: &[u8]) -> Vec<u8> {
    let mut bytes = ((36 + payload.len()) as u32).to_ne_bytes().to_vec();
    bytes.extend([3u16, 0].map(u16::to_ne_bytes).concat());
    bytes.extend([0u32, 0, 1, 1, 0, 0].map(u32::to_ne_bytes).concat());
    bytes.extend([payload.len() as u16, 0].map(u16::to_ne_bytes).concat());
    bytes.extend(payload);
    bytes
}

/// A row of /proc/net/netlink.
struct Row {
    port: u32,
    inode: u64,
}

/// The connector sockets of user space.
fn rows() -> Vec<Row> {
    let table = fs::read_to_string("/proc/net/netlink").unwrap();
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            let row = Row { port: columns.get(2)?.parse().ok()?, inode: columns.get(9)?.parse().ok()? };
            (*columns.get(1)? == "11" && row.port != 0).then_some(row)
        })
        .collect()
}

impl AsFd for Connector {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn inode_of_link(link: &str) -> Option<u64> {
    let target = fs::read_link(link).ok()?;
    target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// The netlink ports of a process's connector sockets.
pub(crate) fn ports_of(pid: u32) -> Vec<u32> {
    let inodes: Vec<u64> = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .filter_map(|entry| inode_of_link(entry.unwrap().path().to_str()?))
        .collect();
    rows().into_iter().filter(|row| inodes.contains(&row.inode)).map(|row| row.port).collect()
}

/// A socket in the group that has not asked for events, on a host where nobody else has: it hears nothing until
/// somebody listens, and nothing again once everybody has taken that back. `None` if somebody else has a connector
/// socket open.
///
/// The kernel does not notice that a listener was killed and goes on to count it, until a reboot. What such listeners
/// left is taken back here, one by one, as long as there are events that nobody can have asked for.
pub(crate) fn witness() -> Option<Connector> {
    /// More than all tests that kill a daemon can have left.
    const MOST: usize = 1000;
    let witness = Connector::open(true);
    for _ in 0..MOST {
        let own = witness.inode();
        if rows().iter().any(|row| row.inode != own) {
            return None;
        }
        if !witness.hears() {
            return Some(witness);
        }
        Connector::open(false).take_back_a_stranger();
    }
    panic!("the kernel sends process events that nobody asked for");
}
