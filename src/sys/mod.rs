//! The only module with `unsafe` code: the system calls that neither nix nor netlink-sys wraps.
//!
//! Every function here is a thin, safe cover of one call and returns `io::Error` as the kernel gave it; what an
//! error means to the user is said by the callers.
#![allow(unsafe_code)]

pub mod fs;
pub mod memory;
pub mod netlink;
pub mod pidfd;
pub mod privilege;
pub mod sched;
pub mod seccomp;
pub mod signal;
pub mod socket;
pub mod terminal;
pub mod time;

/// Turns the -1 of a system call into the `errno` of this thread.
fn check(result: libc::c_int) -> std::io::Result<libc::c_int> {
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(result) }
}
