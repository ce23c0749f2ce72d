//! Reading of links into a caller's buffer.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// readlinkat(2) into `buffer`: the number of bytes, at most the buffer's length (then the target may be cut).
///
/// nix's wrapper allocates a string for each call; the listeners must not.
pub fn read_link_at(dir: BorrowedFd<'_>, name: &CStr, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: `name` is NUL-terminated, and the pointer and length describe the borrowed buffer.
    let length =
        unsafe { libc::readlinkat(dir.as_raw_fd(), name.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) };
    if length < 0 { Err(io::Error::last_os_error()) } else { Ok(length as usize) }
}
