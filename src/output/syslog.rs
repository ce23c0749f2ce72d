//! Records to the local syslog socket.
//!
//! In RFC 3164 without time and host, `<PRI>tag[pid]: text`, all of rsyslog, syslog-ng, journald and busybox's syslogd read
//! a message right on a local socket as they are set up by default; they take RFC 5424 for text there.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

use super::datagram::{Datagrams, TooLong};
use super::entry::{Entry, Form};
use super::message::{Messages, Place};
use super::{Destination, LOOK};
use crate::config::Syslog;

/// How long a stream may take to take a message.
const STREAM_WAIT: Duration = Duration::from_secs(2);

/// The way to the server.
#[derive(Debug)]
enum Link {
    Datagrams(Datagrams),
    /// syslogd implementations of old; a NUL ends each message.
    Stream(UnixStream),
}

/// The local syslog server.
#[derive(Debug)]
pub struct SyslogOutput {
    settings: Syslog,
    messages: Messages,
    link: Link,
}

impl SyslogOutput {
    /// Writes to the configured socket as the host of this name; it is connected at the first record.
    pub fn new(settings: Syslog, host: &str) -> Self {
        let messages = Messages::new(settings.header.clone(), settings.format, Place::Local, host);
        SyslogOutput {
            link: Link::Datagrams(Datagrams::new(settings.socket.clone(), TooLong::Refused)),
            messages,
            settings,
        }
    }

    fn send(&mut self, message: &str) -> io::Result<()> {
        if let Link::Stream(stream) = &mut self.link {
            let sent = stream.write_all(format!("{message}\0").as_bytes());
            if sent.is_ok() {
                return sent;
            }
            // A part of a message cannot be taken back, so the stream is not used again.
            self.link = Link::Datagrams(Datagrams::new(self.settings.socket.clone(), TooLong::Refused));
        }
        let Link::Datagrams(datagrams) = &mut self.link else { return Ok(()) };
        match datagrams.send(message.as_bytes()) {
            Err(error) if error.raw_os_error() == Some(libc::EPROTOTYPE) => {
                let mut stream = self.connect_stream()?;
                stream.write_all(format!("{message}\0").as_bytes())?;
                self.link = Link::Stream(stream);
                Ok(())
            }
            result => result,
        }
    }

    fn connect_stream(&self) -> io::Result<UnixStream> {
        // Connecting to a server that does not accept would wait for ever; without waiting it is tried again later.
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let made = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        let stream = UnixStream::from(made);
        connect(std::os::fd::AsRawFd::as_raw_fd(&stream), &UnixAddr::new(&self.settings.socket)?)?;
        stream.set_nonblocking(false)?;
        stream.set_write_timeout(Some(STREAM_WAIT))?;
        Ok(stream)
    }
}

impl Destination for SyslogOutput {
    fn name(&self) -> String {
        format!("syslog {}", self.settings.socket.display())
    }

    fn form(&self) -> Form {
        self.messages.form()
    }

    fn write(&mut self, entry: &Entry) -> io::Result<()> {
        let message = self.messages.write(entry);
        self.send(&message)?;
        self.messages.sent();
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.link {
            Link::Datagrams(datagrams) => datagrams.settle(),
            Link::Stream(_) => Ok(()),
        }
    }

    fn unsure(&self) -> u64 {
        match &self.link {
            Link::Datagrams(datagrams) => datagrams.unsure(),
            Link::Stream(_) => 0,
        }
    }

    fn next_look(&self) -> Option<Duration> {
        (self.unsure() > 0).then_some(LOOK)
    }
}
