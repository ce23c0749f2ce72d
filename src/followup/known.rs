//! What is known of a followed process: its looks folded into one.
//!
//! A socket that was seen stays, also after it was closed: who was talked to counts. Everything a process can make many of
//! is kept up to a limit and counted beyond it.

use super::look::{Io, Look, Source};
use super::sockets::{LISTEN, Protocol, Socket};
use crate::process::exec::Image;

/// Sockets kept of a process.
pub const MOST_SOCKETS: usize = 32;
/// Files kept.
pub const MOST_FILES: usize = 16;
/// Children kept.
pub const MOST_CHILDREN: usize = 16;
/// Input and output that is worth a record by itself, in bytes.
const WORTH_SAYING: u64 = 64 << 10;

/// A socket over time. Times are nanoseconds since the exec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// As it was last.
    pub socket: Socket,
    /// When it was seen first.
    pub first_ns: u64,
    /// When it was seen last.
    pub last_ns: u64,
    /// It was there at the last look.
    pub open: bool,
}

/// A child.
#[derive(Debug, Clone)]
pub struct Child {
    /// Process id.
    pub pid: u32,
    /// What it executed last; empty if nothing is known.
    pub image: Image,
}

/// Everything that is known.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Its sockets.
    pub sockets: Vec<Seen>,
    /// Sockets that were not kept.
    pub more_sockets: usize,
    /// Where addresses were learnt last.
    pub source: Option<Source>,
    /// Files that were open for writing.
    pub files: Vec<Box<[u8]>>,
    /// Files that were not kept.
    pub more_files: usize,
    /// Processes it made, as far as the process table has them.
    pub children: Vec<Child>,
    /// Children that were not kept.
    pub more_children: usize,
    /// A look found more descriptors than it looked at.
    pub cut: bool,
    /// Input and output.
    pub io: Option<Io>,
    /// CPU time in nanoseconds.
    pub cpu_ns: Option<u64>,
    /// When it was looked at last.
    pub looked_ns: Option<u64>,
}

impl Known {
    /// Adds a look.
    pub fn add(&mut self, look: Look, age_ns: u64) {
        self.io = look.io.or(self.io);
        self.cpu_ns = look.cpu_ns.or(self.cpu_ns);
        if !look.listed {
            return;
        }
        self.looked_ns = Some(age_ns);
        self.cut |= look.cut;
        self.source = look.source.or(self.source);
        for seen in &mut self.sockets {
            seen.open = false;
        }
        let mut more = 0;
        for socket in look.sockets {
            if let Some(seen) = self.sockets.iter_mut().find(|seen| seen.socket.inode == socket.inode) {
                seen.update(socket, age_ns);
            } else if self.sockets.len() < MOST_SOCKETS {
                self.sockets.push(Seen { socket, first_ns: age_ns, last_ns: age_ns, open: true });
            } else if let Some(closed) = self.sockets.iter_mut().find(|seen| seen.is_dull() && !seen.open) {
                *closed = Seen { socket, first_ns: age_ns, last_ns: age_ns, open: true };
            } else {
                more += 1;
            }
        }
        // The same may be seen again at the next look.
        self.more_sockets = self.more_sockets.max(more);
        let mut more = 0;
        for file in look.files {
            if self.files.contains(&file) {
                continue;
            }
            if self.files.len() < MOST_FILES {
                self.files.push(file);
            } else {
                more += 1;
            }
        }
        self.more_files = self.more_files.max(more);
    }

    /// Takes what the process table knows of its children.
    pub fn set_children(&mut self, children: Vec<Child>, more: usize) {
        self.children = children;
        self.more_children = more;
    }

    /// All children.
    pub fn count_children(&self) -> usize {
        self.children.len() + self.more_children
    }
}

impl Seen {
    fn update(&mut self, socket: Socket, age_ns: u64) {
        let before = std::mem::replace(&mut self.socket, socket);
        let now = &mut self.socket;
        // A connection that is being closed has no longer all of this.
        now.remote = now.remote.or(before.remote);
        now.local = now.local.or(before.local);
        now.sent = now.sent.max(before.sent);
        now.received = now.received.max(before.received);
        self.last_ns = age_ns;
        self.open = true;
    }

    /// Tells little: no other end.
    fn is_dull(&self) -> bool {
        self.socket.remote.is_none() && self.socket.state != Some(LISTEN)
    }

    fn told(&self) -> Told {
        let Socket { inode, protocol, state, remote, .. } = self.socket;
        Told { inode, protocol, state, remote, open: self.open }
    }
}

/// What a record has said of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Told {
    inode: u64,
    protocol: Protocol,
    state: Option<&'static str>,
    remote: Option<std::net::SocketAddr>,
    open: bool,
}

/// What records have said so far.
#[derive(Debug, Clone, Default)]
pub struct Said {
    sockets: Vec<Told>,
    sockets_bytes: u64,
    files: usize,
    children: usize,
    io: u64,
}

/// How new something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum News {
    /// All has been said.
    None,
    /// More of the same: enough for a record at a configured moment.
    More,
    /// Another peer, file or child: told at any look.
    Peer,
}

impl Said {
    /// Everything that is known is said now.
    pub fn of(known: &Known) -> Self {
        Said {
            sockets: known.sockets.iter().map(Seen::told).collect(),
            sockets_bytes: socket_bytes(known),
            files: known.files.len(),
            children: known.count_children(),
            io: io_bytes(known),
        }
    }

    /// What is known that was not said.
    pub fn news(&self, known: &Known) -> News {
        let peer = |seen: &Seen| {
            let socket = &seen.socket;
            let interesting = socket.remote.is_some() || socket.state == Some(LISTEN);
            let said = |told: &Told| {
                told.inode == socket.inode && told.remote == socket.remote && told.protocol == socket.protocol
            };
            interesting && !self.sockets.iter().any(said)
        };
        if known.sockets.iter().any(peer)
            || known.files.len() > self.files
            || known.count_children() > self.children
        {
            return News::Peer;
        }
        let same = known.sockets.iter().map(Seen::told).eq(self.sockets.iter().copied());
        let more_io = io_bytes(known).saturating_sub(self.io) >= WORTH_SAYING;
        if !same || socket_bytes(known) != self.sockets_bytes || more_io { News::More } else { News::None }
    }
}

fn socket_bytes(known: &Known) -> u64 {
    let bytes = known.sockets.iter().map(|seen| {
        let socket = &seen.socket;
        socket.sent.unwrap_or_default().saturating_add(socket.received.unwrap_or_default())
    });
    bytes.fold(0, u64::saturating_add)
}

fn io_bytes(known: &Known) -> u64 {
    known.io.map_or(0, |io| io.read.saturating_add(io.written))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(inode: u64, state: &'static str, sent: u64) -> Socket {
        Socket {
            inode,
            protocol: Protocol::Tcp,
            local: Some("10.0.0.1:40000".parse().unwrap()),
            remote: (state != LISTEN).then(|| "203.0.113.5:4444".parse().unwrap()),
            state: Some(state),
            sent: Some(sent),
            received: Some(0),
            path: None,
        }
    }

    fn look(sockets: Vec<Socket>) -> Look {
        Look { sockets, listed: true, ..Look::default() }
    }

    #[test]
    fn only_what_is_new_is_said() {
        let mut known = Known::default();
        let nothing = Said::default();
        known.add(Look { io: Some(Io { read: 4000, ..Io::default() }), ..look(vec![]) }, 1);
        assert_eq!(nothing.news(&known), News::None);
        known.add(look(vec![tcp(5, LISTEN, 0)]), 2);
        assert_eq!(nothing.news(&known), News::Peer);
        let said = Said::of(&known);
        known.add(look(vec![tcp(5, LISTEN, 0)]), 3);
        assert_eq!(said.news(&known), News::None);
        known.add(look(vec![tcp(5, LISTEN, 0), tcp(6, "established", 10)]), 4);
        assert_eq!(said.news(&known), News::Peer);
        let said = Said::of(&known);
        known.add(look(vec![tcp(5, LISTEN, 0), tcp(6, "established", 11)]), 5);
        assert_eq!(said.news(&known), News::More);
        let said = Said::of(&known);
        // Closed, and remembered with its bytes and times.
        known.add(look(vec![tcp(5, LISTEN, 0)]), 6);
        assert_eq!(said.news(&known), News::More);
        let seen = &known.sockets[1];
        assert_eq!((seen.open, seen.first_ns, seen.last_ns, seen.socket.sent), (false, 4, 5, Some(11)));
        let said = Said::of(&known);
        known.set_children(vec![Child { pid: 7, image: Image::default() }], 0);
        assert_eq!(said.news(&known), News::Peer);
    }

    #[test]
    fn many_sockets_are_counted() {
        let mut known = Known::default();
        let count = MOST_SOCKETS as u64 + 10;
        known.add(look((0..count).map(|inode| tcp(inode, "established", 1)).collect()), 1);
        assert_eq!((known.sockets.len(), known.more_sockets), (MOST_SOCKETS, 10));
        known.add(look((0..count).map(|inode| tcp(inode, "established", 1)).collect()), 2);
        assert_eq!(known.more_sockets, 10);
        let files = (0..20u8).map(|number| vec![b'/', number].into()).collect();
        known.add(Look { files, ..look(vec![]) }, 3);
        assert_eq!((known.files.len(), known.more_files), (MOST_FILES, 4));
    }
}
