//! The way to a local server, which may be slow, gone, or another one meanwhile.
//!
//! What a server has not read when it ends is gone with its socket, and nobody is told. So messages are kept until it is
//! seen that the queue is empty and the server still the same; if it is not, they are sent again.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, sendmsg, socket,
};

use super::message::smallest;
use crate::sys;
use crate::sys::socket::unsent;

/// How long a full socket is waited for at a time.
const WAIT: Duration = Duration::from_millis(200);
/// How long a stream may take the rest of a message: what it has of it cannot be taken back.
const REST: Duration = Duration::from_secs(2);
/// Messages and bytes that are kept until it is known that they were read. The kernel's own queue is shorter: at most
/// net.unix.max_dgram_qlen messages (10 or 512) and the 208 KB of the sender's buffer.
const MOST_KEPT: (usize, usize) = (1024, 512 * 1024);

/// How a server wants messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// In datagrams, or, as syslogd implementations of old, in a stream where a NUL ends each.
    Syslog,
    /// In datagrams, and what is too long for one as the descriptor of a sealed file in memory.
    Journald,
}

/// The way to a server.
#[derive(Debug)]
pub struct Local {
    path: PathBuf,
    manner: Manner,
    open: Option<Open>,
    /// Messages that may not have been read.
    kept: VecDeque<Vec<u8>>,
    kept_bytes: usize,
    /// Messages that had to be cut since that was asked last.
    cut: u64,
}

/// A connected socket.
#[derive(Debug)]
struct Open {
    socket: Socket,
    /// The file that it was connected to: a server that comes anew makes another.
    file: Option<Identity>,
}

#[derive(Debug)]
enum Socket {
    Datagram(UnixDatagram),
    Stream(UnixStream),
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Datagram(socket) => socket.as_fd(),
            Socket::Stream(socket) => socket.as_fd(),
        }
    }
}

/// Why a message was not taken.
struct Refused {
    error: io::Error,
    /// The socket is as good as before.
    usable: bool,
}

impl Refused {
    fn lasting(error: io::Error) -> Self {
        Refused { error, usable: true }
    }
}

impl<E: Into<io::Error>> From<E> for Refused {
    fn from(error: E) -> Self {
        Refused { error: error.into(), usable: false }
    }
}

/// Device, inode, and time of the last change, because numbers of inodes are used again.
type Identity = (u64, u64, i64, i64);

impl Local {
    /// To the socket at `path`, connected at the first message.
    pub fn new(path: PathBuf, manner: Manner) -> Self {
        Local { path, manner, open: None, kept: VecDeque::new(), kept_bytes: 0, cut: 0 }
    }

    /// Sends a message, after those that have to be sent again.
    pub fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let connected = self.open.is_some();
        match self.once(message) {
            // The server may have been restarted since the last record: then a new socket works at once.
            Err(refused) if connected && !refused.usable => self.once(message),
            result => result,
        }
        .map_err(|refused| refused.error)
    }

    /// How many messages had to be cut since the last call, because the host sends no datagram of their length.
    pub fn take_cut(&mut self) -> u64 {
        std::mem::take(&mut self.cut)
    }

    /// How many of the last messages may not have been read.
    pub fn unsure(&self) -> u64 {
        self.kept.len() as u64
    }

    /// Looks whether everything was read; sends again what was not, if the server is another one.
    pub fn settle(&mut self) -> io::Result<()> {
        let settled = match &self.open {
            None => self.reconnect(),
            Some(_) if self.kept.is_empty() => Ok(()),
            Some(open) if unsent(open.socket.as_fd())? > 0 => Ok(()),
            // A queue is also empty when its reader has ended.
            Some(open) if self.is_there(open) => {
                self.forget();
                Ok(())
            }
            Some(_) => {
                self.open = None;
                self.reconnect()
            }
        };
        settled.map_err(|refused| refused.error)
    }

    /// The server that was connected to is still there.
    fn is_there(&self, open: &Open) -> bool {
        match &open.socket {
            Socket::Datagram(_) => {
                open.file.is_some() && open.file == self.identity() && self.connect().is_ok()
            }
            Socket::Stream(socket) => {
                let mut waited = [PollFd::new(socket.as_fd(), PollFlags::empty())];
                poll(&mut waited, PollTimeout::ZERO).is_ok_and(|ready| ready == 0)
            }
        }
    }

    /// Connects, if something has to be sent again, and sends it.
    fn reconnect(&mut self) -> Result<(), Refused> {
        if self.kept.is_empty() {
            return Ok(());
        }
        let open = self.connect()?;
        for message in &self.kept {
            // Not all are there, so the next attempt begins anew.
            self.deliver(&open.socket, message).map_err(|refused| refused.error)?;
        }
        self.open = Some(open);
        Ok(())
    }

    fn once(&mut self, message: &[u8]) -> Result<(), Refused> {
        if self.open.is_none() {
            self.reconnect()?;
        }
        let open = match self.open.take() {
            Some(open) => open,
            None => self.connect()?,
        };
        let was_empty = unsent(open.socket.as_fd())? == 0;
        let result = self.deliver(&open.socket, message);
        // After most errors a socket is not used again: a restarted server listens on a new one.
        if result.as_ref().err().is_none_or(|refused| refused.usable) {
            self.open = Some(open);
        }
        self.cut += u64::from(result?);
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
        match socket.connect(&self.path) {
            Ok(()) => {
                socket.set_nonblocking(true)?;
                Ok(Open { socket: Socket::Datagram(socket), file })
            }
            Err(error) if error.raw_os_error() == Some(libc::EPROTOTYPE) && self.manner == Manner::Syslog => {
                Ok(Open { socket: Socket::Stream(connect_stream(&self.path)?), file })
            }
            Err(error) => Err(error),
        }
    }

    /// True if the message had to be cut.
    fn deliver(&self, socket: &Socket, message: &[u8]) -> Result<bool, Refused> {
        match socket {
            Socket::Datagram(socket) => deliver_datagram(socket, message, self.manner),
            Socket::Stream(socket) => deliver_stream(socket, &[message, b"\0"].concat()).map(|()| false),
        }
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

/// Connects without waiting: a server that hangs does not accept, and where its backlog is full a call that waits would
/// wait for ever (EAGAIN here, unix(7)).
fn connect_stream(path: &Path) -> io::Result<UnixStream> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let link: OwnedFd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(link.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(link.into())
}

/// Sends, and waits a moment for a full queue; true if the message had to be cut.
fn deliver_datagram(socket: &UnixDatagram, message: &[u8], manner: Manner) -> Result<bool, Refused> {
    let (mut rest, mut shortened) = (Cow::Borrowed(message), false);
    loop {
        let result = match socket.send(&rest) {
            Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) && manner == Manner::Journald => {
                let file = sealed(message)?;
                let rights = [file.as_raw_fd()];
                let control = [ControlMessage::ScmRights(&rights)];
                sendmsg::<()>(socket.as_raw_fd(), &[], &control, MsgFlags::empty(), None)
                    .map_err(io::Error::from)
            }
            Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) && !shortened => {
                shortened = true;
                rest = Cow::Owned(smallest(message));
                continue;
            }
            result => result,
        };
        match result {
            Ok(_) => return Ok(shortened),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if !writable(socket.as_fd(), WAIT)? {
                    return Err(Refused::lasting(error));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {
                return Err(Refused::lasting(error));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Writes, and waits a moment for a full queue, or longer once a part of the message was taken.
fn deliver_stream(mut socket: &UnixStream, message: &[u8]) -> Result<(), Refused> {
    let (mut rest, deadline) = (message, Instant::now() + REST);
    while !rest.is_empty() {
        match socket.write(rest) {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let usable = rest.len() == message.len();
                let left = deadline.saturating_duration_since(Instant::now());
                if !writable(socket.as_fd(), if usable { WAIT } else { left })? {
                    return Err(Refused { error, usable });
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Waits until something can be written; false if the time is over.
fn writable(socket: BorrowedFd<'_>, time: Duration) -> io::Result<bool> {
    let timeout = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
    match poll(&mut [PollFd::new(socket, PollFlags::POLLOUT)], timeout) {
        Ok(ready) => Ok(ready > 0),
        // The next attempt shows.
        Err(nix::Error::EINTR) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// A file in memory that nobody can change any more.
fn sealed(bytes: &[u8]) -> io::Result<OwnedFd> {
    let descriptor = match sys::fs::anonymous_file(c"execwatch-record") {
        Ok(descriptor) => descriptor,
        // Before Linux 3.17 journald takes a file without a name in this folder.
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
            let mut options = File::options();
            options.read(true).write(true).mode(0o600).custom_flags(libc::O_TMPFILE);
            let mut file = options.open("/dev/shm")?;
            file.write_all(bytes)?;
            return Ok(file.into());
        }
        Err(error) => return Err(error),
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
    use std::io::Read;
    use std::os::unix::net::UnixListener;

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
        let mut server = Local::new(path.clone(), Manner::Syslog);
        assert!(server.send(b"none").is_err());
        let first = bind(&path);
        for message in ["1", "2", "3"] {
            server.send(message.as_bytes()).unwrap();
        }
        assert_eq!(received(&first), ["1", "2", "3"]);
        // Nothing tells yet that it was the reader who emptied the queue.
        assert_eq!(server.unsure(), 3);
        server.send(b"4").unwrap();
        assert_eq!(server.unsure(), 1);
        server.settle().unwrap();
        assert_eq!(server.unsure(), 1, "it is still in the queue");
        assert_eq!(received(&first), ["4"]);
        server.settle().unwrap();
        assert_eq!(server.unsure(), 0);
        // Read by nobody.
        for message in ["5", "6"] {
            server.send(message.as_bytes()).unwrap();
        }
        drop(first);
        assert!(server.settle().is_err());
        let second = bind(&path);
        server.settle().unwrap();
        server.send(b"7").unwrap();
        assert_eq!(received(&second), ["5", "6", "7"]);
        server.settle().unwrap();
        assert_eq!(server.unsure(), 0);
        // Without a look between.
        server.send(b"8").unwrap();
        drop(second);
        let third = bind(&path);
        server.send(b"9").unwrap();
        assert_eq!(received(&third), ["8", "9"]);
    }

    /// It would be refused each time, and nothing behind it would be sent.
    #[test]
    fn a_datagram_that_is_too_long_is_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let reader = bind(&path);
        let mut server = Local::new(path, Manner::Syslog);
        server.send(&vec![b'x'; 16 << 20]).unwrap();
        server.send(b"next").unwrap();
        let mut buffer = [0; 1000];
        assert_eq!((server.take_cut(), server.take_cut()), (1, 0));
        let length = reader.recv(&mut buffer).unwrap();
        assert!(length <= 480 && buffer[..length].ends_with(b" bytes]"), "{length}");
        assert_eq!(received(&reader), ["next"]);
    }

    /// The server hangs: it does not read, or its backlog is full. Each attempt ends by itself.
    #[test]
    fn a_stream_that_hangs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let listener = UnixListener::bind(&path).unwrap();
        let mut server = Local::new(path.clone(), Manner::Syslog);
        let large = vec![b'x'; 50_000];
        let mut written = 0;
        let error = loop {
            match server.send(&large) {
                Ok(()) => written += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert!(written > 0 && server.unsure() == written);
        nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(1).unwrap()).unwrap();
        let mut links = Vec::new();
        let error = loop {
            match connect_stream(&path) {
                Ok(link) => links.push(link),
                Err(error) => break error,
            }
            assert!(links.len() < 10, "the backlog has no end");
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn what_a_stream_had_not_read_is_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut server = Local::new(path.clone(), Manner::Syslog);
        let read = |listener: &UnixListener, bytes: usize| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut buffer = vec![0; bytes];
            stream.read_exact(&mut buffer).unwrap();
            (String::from_utf8(buffer).unwrap(), stream)
        };
        let first = UnixListener::bind(&path).unwrap();
        ["1", "2"].iter().for_each(|message| server.send(message.as_bytes()).unwrap());
        let (text, stream) = read(&first, 4);
        assert_eq!(text, "1\x002\0");
        server.settle().unwrap();
        assert_eq!(server.unsure(), 0);
        ["3", "4"].iter().for_each(|message| server.send(message.as_bytes()).unwrap());
        drop((first, stream));
        std::fs::remove_file(&path).unwrap();
        assert!(server.settle().is_err());
        let second = UnixListener::bind(&path).unwrap();
        server.send(b"5").unwrap();
        assert_eq!(read(&second, 6).0, "3\x004\x005\0");
    }

    #[test]
    fn bounds() {
        let mut server = Local::new("/nowhere".into(), Manner::Syslog);
        (0..2 * MOST_KEPT.0).for_each(|_| server.keep(b"x"));
        assert_eq!(server.unsure() as usize, MOST_KEPT.0);
        (0..20).for_each(|_| server.keep(&vec![0; 100_000]));
        assert_eq!((server.unsure(), server.kept_bytes), (5, 500_000));
    }
}
