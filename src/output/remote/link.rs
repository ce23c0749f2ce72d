//! A way to a server that is open.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::backlog::End;
use super::tcp::{self, Timed};
use super::tls::TlsLink;
use crate::config::{Remote, Server, Transport};
use crate::output::message::smallest;

/// Addresses of one name that are tried.
const MOST_ADDRESSES: usize = 4;
/// How long a refusal of a datagram is waited for before it is taken for delivered.
const UDP_REFUSAL: Duration = Duration::from_millis(20);
/// The first and the longest pause between looks at what is acknowledged.
const LOOKS: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(20));

/// A way to a server.
#[derive(Debug)]
pub enum Link {
    /// Datagrams; so many were sent, and so many of them not refused.
    Udp {
        /// A connected socket, which is told of refusals.
        socket: UdpSocket,
        /// Datagrams sent.
        sent: u64,
        /// Datagrams sent before the last wait for a refusal.
        sure: u64,
    },
    /// A stream.
    Tcp(Timed),
    /// A stream with TLS.
    Tls(Box<TlsLink>),
}

/// Until when the next of so many attempts may take that must all have ended by `deadline`: each of those that are left
/// has an equal part of the time that is left.
pub fn turn(now: Instant, deadline: Instant, left: usize) -> Instant {
    now + deadline.saturating_duration_since(now) / u32::try_from(left.max(1)).unwrap_or(u32::MAX)
}

impl Link {
    /// Opens a way to a server until `deadline`. The resolver's own timeouts hold for its name.
    pub fn open(settings: &Remote, server: &Server, deadline: Instant) -> io::Result<Link> {
        let addresses: Vec<SocketAddr> =
            (server.host.as_str(), server.port).to_socket_addrs()?.take(MOST_ADDRESSES).collect();
        let mut failure = io::Error::new(io::ErrorKind::AddrNotAvailable, "its name has no address");
        for (at, address) in addresses.iter().enumerate() {
            let turn = turn(Instant::now(), deadline, addresses.len() - at);
            match Link::open_at(settings, server, address, turn) {
                Ok(link) => return Ok(link),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    fn open_at(
        settings: &Remote,
        server: &Server,
        address: &SocketAddr,
        deadline: Instant,
    ) -> io::Result<Link> {
        match server.transport {
            Transport::Udp => {
                let own: SocketAddr = match address {
                    SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                    SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
                };
                let socket = UdpSocket::bind(own)?;
                socket.connect(address)?;
                // A full queue of the network card is waited for, but not for ever.
                socket.set_write_timeout(Some(settings.write_timeout))?;
                Ok(Link::Udp { socket, sent: 0, sure: 0 })
            }
            Transport::Tcp => Timed::connect(address, deadline).map(Link::Tcp),
            Transport::Tls => {
                let link = TlsLink::connect(&settings.tls, &server.host, address, deadline)?;
                Ok(Link::Tls(Box::new(link)))
            }
        }
    }

    /// Writes a message's bytes; after an error nothing may be written any more. As in the other calls, `patience` is for
    /// how long nothing may happen. True if the message had to be cut, because the host sends no datagram of its length.
    pub fn write(&mut self, frame: &[u8], patience: Duration) -> io::Result<bool> {
        use std::io::Write;
        match self {
            Link::Udp { socket, sent, .. } => {
                let cut = match socket.send(frame) {
                    Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {
                        socket.send(&smallest(frame))?;
                        true
                    }
                    result => result.map(|_| false)?,
                };
                *sent += 1;
                Ok(cut)
            }
            Link::Tcp(timed) => {
                timed.patience(patience)?;
                timed.write_all(frame).map(|()| false)
            }
            Link::Tls(link) => {
                link.timed().patience(patience)?;
                link.write_all(frame).map(|()| false)
            }
        }
    }

    /// Where the stream is: in its own unit.
    pub fn position(&mut self) -> u64 {
        match self {
            Link::Udp { sent, .. } => *sent,
            Link::Tcp(timed) => timed.position(),
            Link::Tls(link) => link.timed().position(),
        }
    }

    /// Up to where the server's kernel has it.
    pub fn acknowledged(&mut self) -> io::Result<u64> {
        match self {
            Link::Udp { sure, .. } => Ok(*sure),
            Link::Tcp(timed) => timed.acknowledged(),
            Link::Tls(link) => link.timed().acknowledged(),
        }
    }

    /// Whether acknowledged messages may still be lost in a way that is told.
    pub fn keeps(&self) -> bool {
        !matches!(self, Link::Udp { .. })
    }

    /// An error if the way has ended.
    pub fn check(&mut self, patience: Duration) -> io::Result<()> {
        match self {
            Link::Udp { socket, .. } => match socket.take_error()? {
                Some(error) => Err(error),
                None => Ok(()),
            },
            Link::Tcp(_) => self.listen(),
            Link::Tls(link) => {
                link.timed().patience(patience)?;
                self.listen()
            }
        }
    }

    /// Throws away what the server said; an error if the stream has ended.
    fn listen(&mut self) -> io::Result<()> {
        match self {
            Link::Udp { .. } => Ok(()),
            Link::Tcp(timed) => tcp::listen(timed, |_, _| Ok(())),
            Link::Tls(link) => link.listen(),
        }
    }

    /// Waits until everything is acknowledged.
    pub fn settle(&mut self, patience: Duration) -> io::Result<()> {
        if let Link::Udp { socket, sent, sure } = self {
            if sure < sent {
                // An error is always waited for.
                let mut waited = [PollFd::new(socket.as_fd(), PollFlags::empty())];
                let time = PollTimeout::try_from(UDP_REFUSAL).unwrap_or(PollTimeout::ZERO);
                let _ = poll(&mut waited, time);
            }
            if let Some(error) = socket.take_error()? {
                return Err(error);
            }
            *sure = *sent;
            return Ok(());
        }
        self.check(patience)?;
        self.timed(|timed| timed.patience(patience))?;
        let mut pause = LOOKS.0;
        while self.acknowledged()? < self.position() {
            if self.timed(Timed::is_over)? {
                let message = "the server did not acknowledge messages in time";
                return Err(io::Error::new(io::ErrorKind::TimedOut, message));
            }
            self.timed(|timed| {
                timed.wait_readable(pause);
                Ok(false)
            })?;
            self.listen()?;
            pause = (pause * 2).min(LOOKS.1);
        }
        // What is acknowledged may have been so by the kernel of a process that has ended.
        self.listen()
    }

    /// Does something with the stream; `T::default()` if there is none.
    fn timed<T: Default>(&mut self, act: impl FnOnce(&mut Timed) -> io::Result<T>) -> io::Result<T> {
        match self {
            Link::Udp { .. } => Ok(T::default()),
            Link::Tcp(timed) => act(timed),
            Link::Tls(link) => act(link.timed()),
        }
    }

    /// Gives the way up after an error, and tells how it ended.
    pub fn end(mut self, error: &io::Error) -> End {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return End::Closed;
        }
        match &mut self {
            Link::Udp { .. } => {}
            Link::Tcp(timed) => timed.abort(),
            Link::Tls(link) => link.timed().abort(),
        }
        End::Broken
    }

    /// Closes the way in order.
    pub fn close(mut self) {
        if let Link::Tls(link) = &mut self {
            link.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It would be refused each time, and nothing behind it would be sent.
    #[test]
    fn a_datagram_that_is_too_long_is_cut() {
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        server.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.connect(server.local_addr().unwrap()).unwrap();
        let mut link = Link::Udp { socket, sent: 0, sure: 0 };
        let long = format!("<83>execwatch: {}", "\u{e9}".repeat(40_000));
        assert!(link.write(long.as_bytes(), Duration::ZERO).unwrap());
        assert!(!link.write(b"next", Duration::ZERO).unwrap());
        assert_eq!(link.position(), 2);
        let mut buffer = [0; 1000];
        let length = server.recv(&mut buffer).unwrap();
        let text = std::str::from_utf8(&buffer[..length]).unwrap();
        assert!(text.starts_with("<83>execwatch: \u{e9}") && text.ends_with(" bytes]"), "{text}");
        assert!(length <= 480, "{length}");
        let length = server.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"next");
    }
}
