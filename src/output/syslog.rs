//! Records to the local syslog socket.
//!
//! The form is that of RFC 3164 without time and host, `<PRI>tag[pid]: text`: it is the only one that rsyslog, syslog-ng,
//! journald and busybox's syslogd all read right on a local socket; they take RFC 5424 for text there.
//!
//! That the kernel took a message does not mean that the server did: if it is killed, what its socket held is gone. So a
//! message is kept until the server has read it, and sent again if the server went away before.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

use super::Destination;
use super::entry::{Entry, Form};
use crate::config::{Format, Syslog};
use crate::sys::socket::unread;

/// How long a full socket is waited for at a time.
const WAIT: Duration = Duration::from_millis(200);
/// How long a message may take that was taken in part: it could not be taken back.
const MESSAGE: Duration = Duration::from_secs(2);
/// Longest message in bytes. None is longer unless the configuration was changed after a record was written down in
/// another form; the kernel would refuse it whenever it is tried, and nothing behind it would be sent.
const LONGEST: usize = 64 * 1024;
/// What the kernel adds to a message at least, in its count of what was not read.
const LEAST_OVERHEAD: usize = 200;
/// How often it is looked whether the server that read everything is still the one that was connected to.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A connected socket.
#[derive(Debug)]
enum Link {
    /// With the socket's file, as it was when it was connected to.
    Datagram(UnixDatagram, FileId),
    /// syslogd implementations of old; a NUL ends each message.
    Stream(UnixStream),
}

/// Device, inode and time of the last change: a server that is started anew makes a new file.
type FileId = (u64, u64, i64, i64);

fn file_id(path: &Path) -> io::Result<FileId> {
    let metadata = std::fs::metadata(path)?;
    Ok((metadata.dev(), metadata.ino(), metadata.ctime(), metadata.ctime_nsec()))
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Link::Datagram(socket, _) => socket.as_fd(),
            Link::Stream(socket) => socket.as_fd(),
        }
    }
}

impl Link {
    fn connect(path: &Path) -> io::Result<Link> {
        let socket = UnixDatagram::unbound()?;
        // Before: if the file is another afterwards, the server counts as gone, and what it has not read is repeated.
        let id = file_id(path)?;
        match socket.connect(path) {
            Ok(()) => {
                socket.set_nonblocking(true)?;
                Ok(Link::Datagram(socket, id))
            }
            Err(error) if error.raw_os_error() == Some(libc::EPROTOTYPE) => {
                Ok(Link::Stream(connect_stream(path)?))
            }
            Err(error) => Err(error),
        }
    }

    /// The server that was connected to is still there.
    fn is_alive(&self, path: &Path) -> bool {
        match self {
            Link::Datagram(_, id) => {
                file_id(path).is_ok_and(|now| now == *id)
                    && UnixDatagram::unbound().and_then(|probe| probe.connect(path)).is_ok()
            }
            Link::Stream(socket) => {
                let mut waited = [PollFd::new(socket.as_fd(), PollFlags::empty())];
                poll(&mut waited, PollTimeout::ZERO).is_ok_and(|ready| ready == 0)
            }
        }
    }

    /// Sends a message; whether the link can be used again if that fails.
    fn send(&self, message: &str) -> Result<(), (io::Error, bool)> {
        match self {
            Link::Datagram(socket, _) => loop {
                match socket.send(message.as_bytes()) {
                    Ok(_) => return Ok(()),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        if !writable(self.as_fd(), WAIT).map_err(|error| (error, false))? {
                            return Err((error, true));
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err((error, false)),
                }
            },
            Link::Stream(socket) => {
                let message = format!("{message}\0");
                let (mut rest, deadline) = (message.as_bytes(), Instant::now() + MESSAGE);
                while !rest.is_empty() {
                    match (&*socket).write(rest) {
                        Ok(0) => return Err((io::ErrorKind::WriteZero.into(), false)),
                        Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                            let whole = rest.len() == message.len();
                            let left = deadline.saturating_duration_since(Instant::now());
                            let time = if whole { WAIT } else { left };
                            if !writable(self.as_fd(), time).map_err(|error| (error, false))? {
                                // If nothing of it was taken, the link is as good as before.
                                return Err((error, whole));
                            }
                        }
                        Err(error) => return Err((error, false)),
                    }
                }
                Ok(())
            }
        }
    }
}

/// The local syslog server.
#[derive(Debug)]
pub struct SyslogOutput {
    settings: Syslog,
    link: Option<Link>,
    /// Messages that the server may not have read, in order.
    kept: VecDeque<String>,
    /// Of these, the last ones were not sent to this server.
    unsent: usize,
    /// When it was last looked whether the server has read everything.
    looked: Option<Instant>,
}

impl SyslogOutput {
    /// Writes to the configured socket; it is connected at the first record.
    pub fn new(settings: Syslog) -> Self {
        SyslogOutput { settings, link: None, kept: VecDeque::new(), unsent: 0, looked: None }
    }

    fn message(&self, entry: &Entry) -> String {
        let priority = self.settings.priority(entry.severity);
        let mut text = entry.form(self.form());
        if text.len() > LONGEST {
            let end = (0..=LONGEST).rev().find(|&at| text.is_char_boundary(at));
            text = text.get(..end.unwrap_or(0)).unwrap_or_default();
        }
        format!("<{priority}>{}[{}]: {text}", self.settings.tag, std::process::id())
    }

    /// Sends what the last server had not read, and then this.
    fn send(&mut self, message: Option<&str>) -> io::Result<()> {
        let link = match self.link.take() {
            Some(link) => link,
            None => {
                let link = Link::connect(&self.settings.socket)?;
                self.unsent = self.kept.len();
                link
            }
        };
        let outcome = loop {
            let again = self.kept.len().checked_sub(self.unsent).and_then(|at| self.kept.get(at));
            let Some(next) = again.map(String::as_str).or(message) else { break Ok(()) };
            let is_new = again.is_none();
            if let Err(error) = link.send(next) {
                break Err(error);
            }
            if is_new {
                self.kept.push_back(next.to_owned());
                break Ok(());
            }
            self.unsent -= 1;
        };
        // After an error a link is mostly not used again: a restarted server listens on a new socket.
        match outcome {
            Ok(()) => self.link = Some(link),
            Err((error, usable)) => {
                self.link = usable.then_some(link);
                return Err(error);
            }
        }
        self.forget_read();
        Ok(())
    }

    /// Forgets the messages that the server has certainly read.
    fn forget_read(&mut self) {
        let Some(link) = &self.link else { return };
        // Where the kernel does not tell, what it took has to be taken for read.
        let unread = unread(link.as_fd()).unwrap_or(0);
        if unread > 0 {
            let mut bytes = 0;
            let maybe = self.kept.iter().rev().take_while(|message| {
                let fits = bytes < unread;
                bytes += message.len() + LEAST_OVERHEAD;
                fits
            });
            let maybe = maybe.count();
            self.kept.drain(..self.kept.len() - maybe);
            return;
        }
        // Nothing unread: it has read all, or it is gone.
        if self.looked.is_some_and(|looked| looked.elapsed() < LOOK_EVERY) {
            return;
        }
        self.looked = Some(Instant::now());
        if link.is_alive(&self.settings.socket) {
            self.kept.clear();
        } else {
            self.link = None;
        }
    }
}

/// Waits until something can be written; false if the time is over.
fn writable(link: BorrowedFd<'_>, time: Duration) -> io::Result<bool> {
    let timeout = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
    match poll(&mut [PollFd::new(link, PollFlags::POLLOUT)], timeout) {
        Ok(ready) => Ok(ready > 0),
        // The next attempt shows.
        Err(nix::Error::EINTR) => Ok(true),
        Err(error) => Err(error.into()),
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

impl Destination for SyslogOutput {
    fn name(&self) -> String {
        format!("syslog {}", self.settings.socket.display())
    }

    fn form(&self) -> Form {
        match self.settings.format {
            Format::Text => Form::Text,
            Format::Json => Form::ShortJson,
        }
    }

    fn write(&mut self, entry: &Entry) -> io::Result<()> {
        let message = self.message(entry);
        let connected = self.link.is_some();
        match self.send(Some(&message)) {
            // The server may have been restarted since the last record: then a new link works at once.
            Err(error) if connected && error.kind() != io::ErrorKind::WouldBlock => self.send(Some(&message)),
            result => result,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.kept.is_empty() {
            return Ok(());
        }
        self.forget_read();
        if self.kept.is_empty() { Ok(()) } else { self.send(None) }
    }

    fn held(&self) -> u64 {
        self.kept.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    use crate::alert::{Host, Notice, Record, RecordId};
    use crate::config::Config;
    use crate::rules::model::Severity;

    fn output(folder: &Path) -> SyslogOutput {
        let settings = Config::default().output.syslog.unwrap();
        SyslogOutput::new(Syslog { socket: folder.join("log"), ..settings })
    }

    fn entry(message: &str) -> Entry {
        let notice =
            Notice { kind: "test", severity: Severity::Low, time_ns: 1, message: message.to_owned() };
        let id = RecordId { run: 1, number: 1 };
        Entry::new(&Record::Notice(notice), id, &[Form::Json], &Host::default())
    }

    /// The server hangs: its backlog is full, or it does not read. Each attempt ends by itself.
    #[test]
    fn a_stream_server_that_hangs() {
        let folder = tempfile::tempdir().unwrap();
        let server = UnixListener::bind(folder.path().join("log")).unwrap();
        let mut output = output(folder.path());
        let large = entry(&"x".repeat(50_000));
        let mut written = 0;
        let error = loop {
            match output.write(&large) {
                Ok(()) => written += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert!(written > 0);
        nix::sys::socket::listen(&server, nix::sys::socket::Backlog::new(1).unwrap()).unwrap();
        let mut links = Vec::new();
        let error = loop {
            match connect_stream(&folder.path().join("log")) {
                Ok(link) => links.push(link),
                Err(error) => break error,
            }
            assert!(links.len() < 10, "the backlog has no end");
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        drop(server);
    }

    /// A server that is killed takes nothing with it that it had not read.
    #[test]
    fn what_a_killed_server_had_not_read_is_sent_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut output = output(folder.path());
        let mut buffer = [0; 4096];
        let mut read = |server: &UnixDatagram| {
            let length = server.recv(&mut buffer).unwrap();
            String::from_utf8_lossy(&buffer[..length]).into_owned()
        };
        let server = UnixDatagram::bind(&path).unwrap();
        for message in ["one", "two", "three"] {
            output.write(&entry(message)).unwrap();
        }
        assert!(read(&server).contains("one"));
        assert!(output.held() >= 2, "two were not read");
        drop(server);
        std::fs::remove_file(&path).unwrap();
        // Nothing is there, and then a new server, which may have the same inode.
        let deadline = Instant::now() + Duration::from_secs(20);
        while output.flush().is_ok() {
            assert!(Instant::now() < deadline, "the end of the server was not noticed");
            std::thread::sleep(Duration::from_millis(10));
        }
        let server = UnixDatagram::bind(&path).unwrap();
        output.write(&entry("four")).unwrap();
        let mut got = vec![read(&server)];
        while !got.last().unwrap().contains("four") {
            got.push(read(&server));
        }
        let expected = ["two", "three", "four"];
        let last: Vec<&String> = got.iter().rev().take(3).rev().collect();
        assert!(last.iter().zip(expected).all(|(got, expected)| got.contains(expected)), "{got:?}");
        while output.held() > 0 {
            output.flush().unwrap();
            assert!(Instant::now() < deadline, "all was read");
        }
    }

    /// A record that was written down in a form which is too long for syslog does not stop those behind it.
    #[test]
    fn a_message_that_is_too_long_is_cut() {
        let folder = tempfile::tempdir().unwrap();
        let server = UnixDatagram::bind(folder.path().join("log")).unwrap();
        let mut output = output(folder.path());
        output.write(&entry(&"ä".repeat(1 << 20))).unwrap();
        let mut buffer = vec![0; 1 << 20];
        let length = server.recv(&mut buffer).unwrap();
        assert!(length > LONGEST && length < LONGEST + 100);
        assert!(std::str::from_utf8(&buffer[..length]).is_ok());
    }
}
