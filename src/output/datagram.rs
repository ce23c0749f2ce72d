//! Datagrams to a local server, which may be slow, gone, or another one meanwhile.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

/// How long a full socket is waited for at a time.
const WAIT_MS: u16 = 200;

/// The way to a socket.
#[derive(Debug)]
pub struct Datagrams {
    path: PathBuf,
    socket: Option<UnixDatagram>,
}

impl Datagrams {
    /// To the socket at `path`, connected at the first datagram.
    pub fn new(path: PathBuf) -> Self {
        Datagrams { path, socket: None }
    }

    /// Sends a datagram. EPROTOTYPE: the socket takes streams.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.repeat(|socket| socket.send(bytes).map(|_| ()))
    }

    /// Sends an empty datagram with a descriptor.
    pub fn send_descriptor(&mut self, descriptor: BorrowedFd<'_>) -> io::Result<()> {
        self.repeat(|socket| {
            let rights = [descriptor.as_raw_fd()];
            let control = [ControlMessage::ScmRights(&rights)];
            sendmsg::<()>(socket.as_raw_fd(), &[], &control, MsgFlags::empty(), None)?;
            Ok(())
        })
    }

    fn repeat(&mut self, send: impl Fn(&UnixDatagram) -> io::Result<()>) -> io::Result<()> {
        let connected = self.socket.is_some();
        match self.once(&send) {
            // The server may have been restarted since the last record: then a new socket works at once.
            Err(error) if connected && !lasting(&error) => self.once(&send),
            result => result,
        }
    }

    fn once(&mut self, send: impl Fn(&UnixDatagram) -> io::Result<()>) -> io::Result<()> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(&self.path)?;
                socket.set_nonblocking(true)?;
                socket
            }
        };
        let result = loop {
            match send(&socket) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut waited = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
                    match poll(&mut waited, PollTimeout::from(WAIT_MS)) {
                        Ok(0) => break Err(error),
                        Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                result => break result,
            }
        };
        // After any other error a socket is not used again: a restarted server listens on a new one.
        if result.as_ref().err().is_none_or(lasting) {
            self.socket = Some(socket);
        }
        result
    }
}

/// The socket is as good as before.
fn lasting(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(libc::EMSGSIZE)
}
