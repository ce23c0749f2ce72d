//! Datagrams to a local server, which may be slow, gone, or another one meanwhile.
//!
//! What a server has not read when it ends is gone with its socket, and nobody is told. So messages are kept until it is
//! seen that the queue is empty and the server still the same; if it is not, they are sent again.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use crate::sys::socket::unsent;

/// How long a full socket is waited for at a time.
const WAIT_MS: u16 = 200;
/// Messages and bytes that are kept until it is known that they were read. The kernel's own queue is shorter: at most
/// net.unix.max_dgram_qlen messages (10 or 512) and the 208 KB of the sender's buffer.
const MOST_KEPT: (usize, usize) = (1024, 512 * 1024);

/// What becomes of a message that is too long for a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TooLong {
    /// It is an error.
    Refused,
    /// It is handed over as the descriptor of a sealed file in memory.
    AsFile,
}

/// The way to a socket.
#[derive(Debug)]
pub struct Datagrams {
    path: PathBuf,
    too_long: TooLong,
    open: Option<Open>,
    /// Messages that may not have been read.
    kept: VecDeque<Vec<u8>>,
    kept_bytes: usize,
}

/// A connected socket.
#[derive(Debug)]
struct Open {
    socket: UnixDatagram,
    /// The file that it was connected to: a server that comes anew makes another.
    file: Option<Identity>,
}

/// Device, inode, and time of the last change, because numbers of inodes are used again.
type Identity = (u64, u64, i64, i64);

impl Datagrams {
    /// To the socket at `path`, connected at the first message.
    pub fn new(path: PathBuf, too_long: TooLong) -> Self {
        Datagrams { path, too_long, open: None, kept: VecDeque::new(), kept_bytes: 0 }
    }

    /// Sends a message, after those that have to be sent again. EPROTOTYPE: the socket takes streams.
    pub fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let connected = self.open.is_some();
        match self.once(message) {
            // The server may have been restarted since the last record: then a new socket works at once.
            Err(error) if connected && !lasting(&error) => self.once(message),
            result => result,
        }
    }

    /// How many of the last messages may not have been read.
    pub fn unsure(&self) -> u64 {
        self.kept.len() as u64
    }

    /// Looks whether everything was read; sends again what was not, if the server is another one.
    pub fn settle(&mut self) -> io::Result<()> {
        let Some(open) = &self.open else { return self.reconnect() };
        if self.kept.is_empty() || unsent(open.socket.as_fd())? > 0 {
            return Ok(());
        }
        // A queue is also empty when its reader has ended.
        if open.file.is_some() && open.file == self.identity() && self.connect().is_ok() {
            self.forget();
            return Ok(());
        }
        self.open = None;
        self.reconnect()
    }

    /// Connects, if something has to be sent again, and sends it.
    fn reconnect(&mut self) -> io::Result<()> {
        if self.kept.is_empty() {
            return Ok(());
        }
        let open = self.connect()?;
        for message in &self.kept {
            deliver(&open.socket, message, self.too_long)?;
        }
        self.open = Some(open);
        Ok(())
    }

    fn once(&mut self, message: &[u8]) -> io::Result<()> {
        if self.open.is_none() {
            self.reconnect()?;
        }
        let open = match self.open.take() {
            Some(open) => open,
            None => self.connect()?,
        };
        let was_empty = unsent(open.socket.as_fd())? == 0;
        let result = deliver(&open.socket, message, self.too_long);
        // After most errors a socket is not used again: a restarted server listens on a new one.
        if result.as_ref().err().is_none_or(lasting) {
            self.open = Some(open);
        }
        result?;
        // That could be sent, so the reader is the same as before, and it was the reader who had emptied the queue.
        if was_empty {
            self.forget();
        }
        self.keep(message);
        Ok(())
    }

    fn connect(&self) -> io::Result<Open> {
        let file = self.identity();
        let socket = UnixDatagram::unbound()?;
        socket.connect(&self.path)?;
        socket.set_nonblocking(true)?;
        Ok(Open { socket, file })
    }

    fn identity(&self) -> Option<Identity> {
        let status = std::fs::metadata(&self.path).ok()?;
        Some((status.dev(), status.ino(), status.ctime(), status.ctime_nsec()))
    }

    fn keep(&mut self, message: &[u8]) {
        self.kept_bytes += message.len();
        self.kept.push_back(message.to_vec());
        while self.kept.len() > MOST_KEPT.0 || self.kept_bytes > MOST_KEPT.1 {
            let Some(first) = self.kept.pop_front() else { return };
            self.kept_bytes -= first.len();
        }
    }

    fn forget(&mut self) {
        (self.kept, self.kept_bytes) = (VecDeque::new(), 0);
    }
}

/// Sends, and waits a moment for a full queue.
fn deliver(socket: &UnixDatagram, message: &[u8], too_long: TooLong) -> io::Result<()> {
    loop {
        let result = match socket.send(message) {
            Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) && too_long == TooLong::AsFile => {
                let file = sealed(message)?;
                let rights = [file.as_raw_fd()];
                let control = [ControlMessage::ScmRights(&rights)];
                sendmsg::<()>(socket.as_raw_fd(), &[], &control, MsgFlags::empty(), None)
                    .map_err(io::Error::from)
            }
            result => result,
        };
        match result {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let mut waited = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
                match poll(&mut waited, PollTimeout::from(WAIT_MS)) {
                    Ok(0) => return Err(error),
                    Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            result => return result.map(|_| ()),
        }
    }
}

/// The socket is as good as before.
fn lasting(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(libc::EMSGSIZE)
}

/// A file in memory that nobody can change any more.
fn sealed(bytes: &[u8]) -> io::Result<OwnedFd> {
    let created = memfd_create(c"execwatch-record", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING);
    let descriptor = match created {
        Ok(descriptor) => descriptor,
        // Before Linux 3.17 journald takes a file without a name in this folder.
        Err(nix::errno::Errno::ENOSYS) => {
            let mut options = File::options();
            options.read(true).write(true).mode(0o600).custom_flags(libc::O_TMPFILE);
            let mut file = options.open("/dev/shm")?;
            file.write_all(bytes)?;
            return Ok(file.into());
        }
        Err(error) => return Err(error.into()),
    };
    let mut file = File::from(descriptor);
    file.write_all(bytes)?;
    let seals =
        SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn bind(path: &Path) -> UnixDatagram {
        let _ = std::fs::remove_file(path);
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    }

    fn received(socket: &UnixDatagram) -> Vec<String> {
        let mut buffer = [0; 100];
        std::iter::from_fn(|| socket.recv(&mut buffer).ok().map(|length| buffer[..length].to_vec()))
            .map(|message| String::from_utf8(message).unwrap())
            .collect()
    }

    #[test]
    fn what_was_not_read_is_sent_again_to_the_next_reader() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut datagrams = Datagrams::new(path.clone(), TooLong::Refused);
        assert!(datagrams.send(b"none").is_err());
        let first = bind(&path);
        for message in ["1", "2", "3"] {
            datagrams.send(message.as_bytes()).unwrap();
        }
        assert_eq!(received(&first), ["1", "2", "3"]);
        // Nothing tells yet that it was the reader who emptied the queue.
        assert_eq!(datagrams.unsure(), 3);
        datagrams.send(b"4").unwrap();
        assert_eq!(datagrams.unsure(), 1);
        datagrams.settle().unwrap();
        assert_eq!(datagrams.unsure(), 1, "it is still in the queue");
        assert_eq!(received(&first), ["4"]);
        datagrams.settle().unwrap();
        assert_eq!(datagrams.unsure(), 0);
        // Read by nobody.
        for message in ["5", "6"] {
            datagrams.send(message.as_bytes()).unwrap();
        }
        drop(first);
        assert!(datagrams.settle().is_err());
        let second = bind(&path);
        datagrams.settle().unwrap();
        datagrams.send(b"7").unwrap();
        assert_eq!(received(&second), ["5", "6", "7"]);
        datagrams.settle().unwrap();
        assert_eq!(datagrams.unsure(), 0);
        // Without a look between.
        datagrams.send(b"8").unwrap();
        drop(second);
        let third = bind(&path);
        datagrams.send(b"9").unwrap();
        assert_eq!(received(&third), ["8", "9"]);
    }

    #[test]
    fn bounds() {
        let mut datagrams = Datagrams::new("/nowhere".into(), TooLong::Refused);
        (0..2 * MOST_KEPT.0).for_each(|_| datagrams.keep(b"x"));
        assert_eq!(datagrams.unsure() as usize, MOST_KEPT.0);
        (0..20).for_each(|_| datagrams.keep(&vec![0; 100_000]));
        assert_eq!((datagrams.unsure(), datagrams.kept_bytes), (5, 500_000));
    }
}
