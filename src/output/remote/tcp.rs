//! A TCP connection on which nothing takes longer than it may.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};

use crate::sys::socket::unsent;

/// Bytes of the kernel's send buffer, which doubles them for its bookkeeping. What waits there is kept here too.
const SEND_BUFFER: usize = 128 * 1024;
/// After how many seconds of silence the peer is asked whether it is still there, and how often.
const KEEPALIVE: (u32, u32, u32) = (60, 10, 6);
/// Bytes a server may send at a time: a syslog server has nothing to say.
const MOST_RECEIVED: usize = 64 * 1024;

/// Reading and writing have an end: a deadline, or patience, which begins anew whenever the peer's kernel acknowledges
/// something. A slow peer is no broken one.
#[derive(Debug)]
pub struct Timed {
    stream: TcpStream,
    deadline: Instant,
    patience: Option<Patience>,
    written: u64,
}

#[derive(Debug, Clone, Copy)]
struct Patience {
    time: Duration,
    acknowledged: u64,
}

impl Timed {
    /// Connects.
    pub fn connect(address: &SocketAddr, deadline: Instant) -> io::Result<Self> {
        let left = deadline.saturating_duration_since(Instant::now());
        // Zero is refused as an argument.
        let stream = TcpStream::connect_timeout(address, left.max(Duration::from_millis(1)))?;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        setsockopt(&stream, sockopt::SndBuf, &SEND_BUFFER)?;
        setsockopt(&stream, sockopt::KeepAlive, &true)?;
        setsockopt(&stream, sockopt::TcpKeepIdle, &KEEPALIVE.0)?;
        setsockopt(&stream, sockopt::TcpKeepInterval, &KEEPALIVE.1)?;
        setsockopt(&stream, sockopt::TcpKeepCount, &KEEPALIVE.2)?;
        Ok(Timed { stream, deadline, patience: None, written: 0 })
    }

    /// From now on, waiting ends after so long without an acknowledgement.
    pub fn patience(&mut self, time: Duration) -> io::Result<()> {
        self.patience = Some(Patience { time, acknowledged: self.acknowledged()? });
        self.deadline = Instant::now() + time;
        Ok(())
    }

    /// True if there is no more time.
    pub fn is_over(&mut self) -> io::Result<bool> {
        let now = Instant::now();
        if now < self.deadline {
            return Ok(false);
        }
        let acknowledged = self.acknowledged()?;
        match &mut self.patience {
            Some(patience) if acknowledged > patience.acknowledged => {
                patience.acknowledged = acknowledged;
                self.deadline = now + patience.time;
                Ok(false)
            }
            _ => Ok(true),
        }
    }

    /// Bytes written so far.
    pub fn position(&self) -> u64 {
        self.written
    }

    /// Bytes written that the peer's kernel has acknowledged.
    pub fn acknowledged(&self) -> io::Result<u64> {
        Ok(self.written.saturating_sub(unsent(self.stream.as_fd())?))
    }

    /// Reads without waiting.
    pub fn read_now(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.stream).read(buffer)
    }

    /// Waits until there is something to read, but not longer than `time`.
    pub fn wait_readable(&self, time: Duration) {
        let mut waited = [PollFd::new(self.stream.as_fd(), PollFlags::POLLIN)];
        // Whatever ended the waiting, the next look tells.
        let _ = poll(&mut waited, PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX));
    }

    /// Throws away what is still on its way: it will be sent again on another connection.
    pub fn abort(&self) {
        let at_once = libc::linger { l_onoff: 1, l_linger: 0 };
        // Without it the kernel goes on sending for a while, and messages arrive twice.
        let _ = setsockopt(&self.stream, sockopt::Linger, &at_once);
    }

    fn wait(&mut self, events: PollFlags, what: &str) -> io::Result<()> {
        loop {
            if self.is_over()? {
                return Err(io::Error::new(io::ErrorKind::TimedOut, what));
            }
            let left = self.deadline.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(self.stream.as_fd(), events)], timeout) {
                // Milliseconds are rounded down.
                Ok(0) if left < Duration::from_millis(1) => std::thread::sleep(left),
                Ok(0) | Err(nix::errno::Errno::EINTR) => {}
                Ok(_) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.read_now(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait(PollFlags::POLLIN, "the server did not answer in time")?;
                }
                result => return result,
            }
        }
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match (&self.stream).write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait(PollFlags::POLLOUT, "the server did not take a message in time")?;
                }
                Ok(written) => {
                    self.written += written as u64;
                    return Ok(written);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The error for a connection that the server closed in order.
fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection")
}

/// Reads what the server said without waiting and gives it to `take`; an error if the connection has ended.
pub(super) fn listen(
    timed: &mut Timed,
    mut take: impl FnMut(&mut Timed, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let (mut buffer, mut received) = ([0; 4096], 0);
    loop {
        match timed.read_now(&mut buffer) {
            Ok(0) => return Err(closed()),
            Ok(length) => {
                received += length;
                take(timed, &buffer[..length])?;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if received > MOST_RECEIVED {
            let message = "the server sends data where it should only listen";
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
    }
}
