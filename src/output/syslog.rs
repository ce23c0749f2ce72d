//! Records to the local syslog socket.
//!
//! The form is that of RFC 3164 without time and host, `<PRI>tag[pid]: text`: it is the only one that rsyslog, syslog-ng,
//! journald and busybox's syslogd all read right on a local socket; they take RFC 5424 for text there.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Destination;
use super::entry::{Entry, Form};
use crate::config::{Format, Syslog};

/// How long a full socket is waited for at a time.
const WAIT_MS: u16 = 200;

/// A connected socket.
#[derive(Debug)]
enum Link {
    Datagram(UnixDatagram),
    /// syslogd implementations of old; a NUL ends each message.
    Stream(UnixStream),
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Link::Datagram(socket) => socket.as_fd(),
            Link::Stream(socket) => socket.as_fd(),
        }
    }
}

/// The local syslog server.
#[derive(Debug)]
pub struct SyslogOutput {
    settings: Syslog,
    link: Option<Link>,
}

impl SyslogOutput {
    /// Writes to the configured socket; it is connected at the first record.
    pub fn new(settings: Syslog) -> Self {
        SyslogOutput { settings, link: None }
    }

    fn message(&self, entry: &Entry) -> String {
        let priority = self.settings.priority(entry.severity);
        format!("<{priority}>{}[{}]: {}", self.settings.tag, std::process::id(), entry.form(self.form()))
    }

    fn connect(&self) -> io::Result<Link> {
        let socket = UnixDatagram::unbound()?;
        match socket.connect(&self.settings.socket) {
            Ok(()) => {
                socket.set_nonblocking(true)?;
                Ok(Link::Datagram(socket))
            }
            Err(error) if error.raw_os_error() == Some(libc::EPROTOTYPE) => {
                let socket = UnixStream::connect(&self.settings.socket)?;
                // A partial message could not be taken back, so this one waits, but not for ever.
                socket.set_write_timeout(Some(std::time::Duration::from_secs(2)))?;
                Ok(Link::Stream(socket))
            }
            Err(error) => Err(error),
        }
    }

    fn send(&mut self, message: &str) -> io::Result<()> {
        let link = match self.link.take() {
            Some(link) => link,
            None => self.connect()?,
        };
        // After an error a link is not used again: a restarted server listens on a new socket.
        match &link {
            Link::Datagram(socket) => loop {
                match socket.send(message.as_bytes()) {
                    Ok(_) => break,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        let mut waited = [PollFd::new(link.as_fd(), PollFlags::POLLOUT)];
                        if poll(&mut waited, PollTimeout::from(WAIT_MS)).map_err(io::Error::from)? == 0 {
                            self.link = Some(link);
                            return Err(error);
                        }
                    }
                    Err(error) => return Err(error),
                }
            },
            Link::Stream(socket) => (&*socket).write_all(format!("{message}\0").as_bytes())?,
        }
        self.link = Some(link);
        Ok(())
    }
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
        match self.send(&message) {
            // The server may have been restarted since the last record: then a new link works at once.
            Err(error) if connected && error.kind() != io::ErrorKind::WouldBlock => self.send(&message),
            result => result,
        }
    }
}
