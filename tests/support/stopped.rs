//! A thread of the daemon that goes no further.

use std::fs;

use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::Daemon;

/// A thread of the daemon that is stopped until this is dropped: ptrace(2) stops one alone.
pub(crate) struct Stopped(Pid);

impl Stopped {
    /// The thread of this name; `None` if there is none.
    pub(crate) fn named(daemon: &Daemon<'_>, name: &str) -> Option<Stopped> {
        let tasks = fs::read_dir(format!("/proc/{}/task", daemon.pid())).unwrap();
        let thread = tasks
            .map(|task| task.unwrap().path())
            .find(|task| fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim() == name))?;
        let thread = Pid::from_raw(thread.file_name()?.to_str()?.parse().ok()?);
        ptrace::seize(thread, ptrace::Options::empty()).unwrap();
        ptrace::interrupt(thread).unwrap();
        let stopped = waitpid(thread, Some(WaitPidFlag::__WALL)).unwrap();
        assert!(matches!(stopped, WaitStatus::PtraceEvent(..) | WaitStatus::Stopped(..)), "{stopped:?}");
        Some(Stopped(thread))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // The daemon may have ended.
        let _ = ptrace::detach(self.0, None);
    }
}
