//! Signals to a process that cannot be mistaken for another one with its number.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// pidfd_open(2), since Linux 5.3; close-on-exec. ENOSYS: the kernel is older. EINVAL: it is no process.
pub fn open(pid: u32) -> io::Result<OwnedFd> {
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    // SAFETY: plain integers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = libc::c_int::try_from(fd).map_err(io::Error::other).and_then(super::check)?;
    // SAFETY: the kernel has just made the descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// pidfd_send_signal(2), since Linux 5.1. ESRCH: the process has ended and was reaped.
pub fn send_signal(pidfd: &impl AsFd, signal: libc::c_int) -> io::Result<()> {
    let none = std::ptr::null::<libc::siginfo_t>();
    let fd = pidfd.as_fd().as_raw_fd();
    // SAFETY: without a siginfo the kernel fills in what kill(2) does.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, none, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
