//! A signal to one process and no other, although numbers are used again.
//!
//! Through a pidfd where the kernel has them (Linux 5.3), which is found out by asking for one; else pid and start time
//! are compared just before, which leaves a moment in which only a process that ends and another that gets its number
//! within the same hundredth of a second could be confused.

use std::io;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::process::parse;
use crate::process::proc_dir::{ProcDir, ProcRoot};
use crate::sys;

/// Longest /proc/PID/stat: 52 numbers and a name.
const STAT: usize = 2048;
/// Longest /proc/PID/status, which lists up to 65536 groups.
const STATUS: usize = 1 << 20;

/// A process that a signal may be sent to.
#[derive(Debug)]
pub(super) struct Target {
    pid: u32,
    start_ticks: u64,
    pidfd: Option<OwnedFd>,
}

/// Why no signal was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Miss {
    /// The process had ended.
    Gone,
    /// The kernel refused, with this error number.
    Failed(i32),
}

impl From<io::Error> for Miss {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            // In /proc both mean that there is no such process.
            Some(libc::ESRCH | libc::ENOENT) | None => Miss::Gone,
            Some(number) => Miss::Failed(number),
        }
    }
}

/// Sends a signal to a process by its number, as long as a listener holds it and nobody else can have the number.
pub(super) fn send_to_held(pid: u32, signal: Signal) -> Result<(), Miss> {
    let pid = Pid::from_raw(i32::try_from(pid).map_err(|_| Miss::Gone)?);
    kill(pid, signal).map_err(|error| match error {
        Errno::ESRCH => Miss::Gone,
        error => Miss::Failed(error as i32),
    })
}

/// What a process is doing now, as /proc/PID/stat says, and when it was started.
pub(super) fn state(dir: &ProcDir<'_>) -> Result<(u8, u64), Miss> {
    let mut buffer = [0; STAT];
    let stat = parse::stat(dir.content(c"stat", &mut buffer)?).ok_or(Miss::Failed(libc::EBADMSG))?;
    Ok((stat.state, stat.start_ticks))
}

/// What the process that was started at `start_ticks` is doing; gone too if another has its number.
pub(super) fn alive(dir: &ProcDir<'_>, start_ticks: u64) -> Result<u8, Miss> {
    let (state, start) = state(dir)?;
    if start == start_ticks && !ended(state) { Ok(state) } else { Err(Miss::Gone) }
}

/// A signal that stops was sent to a process and waits: it cannot act on it now, because it is frozen or waits in the
/// kernel, and will when it can.
pub(super) fn will_stop(dir: &ProcDir<'_>) -> Result<bool, Miss> {
    const STOP: u64 = 1 << (libc::SIGSTOP - 1);
    let status = dir.whole_content(c"status", STATUS)?;
    let pending = status.split(|&byte| byte == b'\n').filter_map(|line| {
        let bits = line.strip_prefix(b"SigPnd:").or_else(|| line.strip_prefix(b"ShdPnd:"))?;
        u64::from_str_radix(std::str::from_utf8(bits).ok()?.trim(), 16).ok()
    });
    Ok(pending.fold(0, |all, bits| all | bits) & STOP != 0)
}

/// It has ended: a zombie, or dead.
pub(super) fn ended(state: u8) -> bool {
    matches!(state, b'Z' | b'X' | b'x')
}

impl Target {
    /// The process `pid` that was started at that time. `dir` is its folder, which stays its own if it is one that was
    /// opened.
    pub(super) fn open(dir: &ProcDir<'_>, pid: u32, start_ticks: u64) -> Result<Target, Miss> {
        let pidfd = match sys::pidfd::open(pid) {
            Ok(fd) => Some(fd),
            // Too old a kernel, or a filter of system calls that does not know this one.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => None,
            Err(error) => return Err(error.into()),
        };
        // After the descriptor was made: the number was still this process's then.
        alive(dir, start_ticks)?;
        Ok(Target { pid, start_ticks, pidfd })
    }

    /// The same, by number.
    pub(super) fn find(proc: &ProcRoot, pid: u32, start_ticks: u64) -> Result<Target, Miss> {
        Target::open(&proc.process(pid)?, pid, start_ticks)
    }

    /// Sends a signal.
    pub(super) fn send(&self, proc: &ProcRoot, signal: Signal) -> Result<(), Miss> {
        if let Some(pidfd) = &self.pidfd {
            return Ok(sys::pidfd::send_signal(pidfd, signal as i32)?);
        }
        alive(&proc.process(self.pid)?, self.start_ticks)?;
        send_to_held(self.pid, signal)
    }

    /// Forgets the descriptor, as on a kernel without.
    #[cfg(test)]
    fn without_pidfd(self) -> Self {
        Target { pidfd: None, ..self }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    use super::*;

    #[test]
    fn only_the_process_that_was_meant() {
        let proc = ProcRoot::open(Path::new("/proc")).unwrap();
        for with_pidfd in [true, false] {
            let mut child = Command::new("sleep").arg("100").spawn().unwrap();
            let pid = child.id();
            let (running, start) = state(&proc.process(pid).unwrap()).unwrap();
            assert!(!ended(running));
            assert_eq!(Target::find(&proc, pid, start + 1).unwrap_err(), Miss::Gone, "another start time");
            let target = Target::find(&proc, pid, start).unwrap();
            let target = if with_pidfd { target } else { target.without_pidfd() };
            target.send(&proc, Signal::SIGKILL).unwrap();
            child.wait().unwrap();
            assert_eq!(target.send(&proc, Signal::SIGKILL), Err(Miss::Gone));
            assert_eq!(Target::find(&proc, pid, start).unwrap_err(), Miss::Gone);
        }
    }

    #[test]
    fn a_zombie_has_gone() {
        let proc = ProcRoot::open(Path::new("/proc")).unwrap();
        let mut child = Command::new("sleep").arg("100").spawn().unwrap();
        let pid = child.id();
        let (_, start) = state(&proc.process(pid).unwrap()).unwrap();
        child.kill().unwrap();
        // Not reaped yet.
        while !state(&proc.process(pid).unwrap()).is_ok_and(|(state, _)| ended(state)) {
            std::thread::yield_now();
        }
        assert_eq!(Target::find(&proc, pid, start).unwrap_err(), Miss::Gone);
        child.wait().unwrap();
    }
}
