//! What a socket's queue holds.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Bytes that were written to a socket and are still in its queue (SIOCOUTQ): of TCP those that the peer's kernel has not
/// acknowledged (tcp(7)); of a local socket the memory of messages that the reader has not taken.
pub fn unsent(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: TIOCOUTQ, which is the same number as SIOCOUTQ, makes the kernel write one int to the address.
    super::check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) })?;
    Ok(u64::try_from(bytes).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn what_the_reader_has_not_taken() {
        let (mut writer, mut reader) = UnixStream::pair().unwrap();
        assert_eq!(unsent(writer.as_fd()).unwrap(), 0);
        writer.write_all(b"abc").unwrap();
        assert!(unsent(writer.as_fd()).unwrap() >= 3);
        reader.read_exact(&mut [0; 3]).unwrap();
        assert_eq!(unsent(writer.as_fd()).unwrap(), 0);
    }
}
