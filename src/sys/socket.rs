//! What a socket knows of the other end.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Bytes sent over this socket that the other end has not read, with what the kernel adds for each message (SIOCOUTQ,
/// unix(7)). 0 also if the other end is gone.
pub fn unread(socket: BorrowedFd<'_>) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the kernel writes one int, which lives across the call. TIOCOUTQ is another name of the same request.
    super::check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) })?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}
