//! The ancestors of a held program, as /proc shows them now.
//!
//! The worker knows them from forks and exits; a listener cannot ask it. What /proc shows differs where a process was
//! adopted because its parent had ended, so a parent counts only if it can be the true one: a process either leads its
//! session or shares its parent's, unless it was adopted. The chain ends before an adopter, and is not complete then:
//! whether somebody is *not* an ancestor is unknown, and the worker decides.

use std::sync::{Arc, Mutex, PoisonError};

use super::guard::is_package_manager;
use crate::process::details::{Details, Scratch};
use crate::process::exec::Image;
use crate::process::parse;
use crate::process::proc_dir::{ProcDir, ProcRoot};
use crate::process::relatives::{Ancestors, Learnt, Processes, Relative};

/// Ancestors beyond this many are not looked at: each takes about 10 us, and the program is held meanwhile.
pub(super) const MOST: usize = 16;

/// Reads ancestors for one listener.
#[derive(Debug)]
pub(super) struct Chain {
    proc: Arc<ProcRoot>,
    scratch: Scratch,
}

/// What a program shows of its parent, hidden while that is known to be an adopter.
#[derive(Debug, Default)]
pub(super) struct Hidden(Option<(Option<u32>, Image)>);

impl Hidden {
    /// Takes parent and parent's image out of what was read.
    fn of(details: &mut Details) -> Hidden {
        Hidden(Some((details.ppid.take(), std::mem::take(&mut details.parent))))
    }

    /// Puts them back.
    pub(super) fn restore(self, details: &mut Details) {
        if let Some((ppid, parent)) = self.0 {
            details.ppid = ppid;
            details.parent = parent;
        }
    }
}

impl Chain {
    pub(super) fn new(proc: Arc<ProcRoot>) -> Self {
        Chain { proc, scratch: Scratch::default() }
    }

    /// Puts the ancestors of a program into `ancestors`: by executable alone, or with all that can be read while the
    /// program is held. A parent that only adopted the program is hidden.
    pub(super) fn read(
        &mut self,
        pid: u32,
        details: &mut Details,
        whole: bool,
        ancestors: &mut Ancestors,
    ) -> Hidden {
        ancestors.processes.clear();
        ancestors.complete = false;
        let mut child = (pid, details.session);
        let (mut next, mut started_before) = (details.ppid, details.start_ticks);
        while let Some(pid) = next {
            if pid == 0 {
                ancestors.complete = true;
                break;
            }
            if ancestors.processes.len() == MOST {
                break;
            }
            // By path, which spares opening and closing the folder: a number that is used again within a few
            // microseconds would need as many new processes as there are numbers.
            let dir = self.proc.held(pid);
            let Some((relative, session)) = near(&dir, pid, self.scratch.bytes(), whole) else { break };
            if started_before.is_some_and(|limit| relative.start_ticks.is_none_or(|start| start > limit)) {
                break;
            }
            let (child_pid, child_session) = child;
            if child_session != Some(child_pid) && child_session != Some(session) {
                if ancestors.processes.is_empty() {
                    return Hidden::of(details);
                }
                break;
            }
            next = relative.ppid;
            started_before = relative.start_ticks;
            child = (pid, Some(session));
            ancestors.processes.push(relative);
        }
        Hidden::default()
    }
}

/// What can be read of another process without a lock that others may keep, and its session. Not its arguments, which
/// take the lock of its memory map, nor its control group.
pub(super) fn near(dir: &ProcDir<'_>, pid: u32, buffer: &mut [u8], whole: bool) -> Option<(Relative, u32)> {
    let mut relative = Relative { pid, learnt: Learnt::Snapshot, ..Relative::default() };
    let session = {
        let stat = parse::stat(dir.file(c"stat", buffer)?)?;
        relative.ppid = Some(stat.ppid);
        relative.start_ticks = Some(stat.start_ticks);
        relative.tty = Some(stat.tty);
        if whole {
            relative.comm = Some(stat.comm.to_vec());
        }
        stat.session
    };
    if let Some(exe) = dir.link(c"exe", buffer) {
        relative.image.set_exe(exe);
    }
    // A guard rail asks who runs a package manager.
    if (whole || relative.image.exe().is_some_and(is_package_manager))
        && let Some(status) = dir.file(c"status", buffer)
    {
        let status = parse::status(status, &mut Vec::new());
        relative.uids = status.uids;
        relative.gids = status.gids;
        relative.vpid = status.vpid;
    }
    if whole {
        relative.cwd = dir.link(c"cwd", buffer).map(<[u8]>::to_vec);
    }
    Some((relative, session))
}

/// Leaders of session and group, for one listener.
#[derive(Debug)]
pub(super) struct NearProcesses {
    proc: Arc<ProcRoot>,
    /// Nobody else wants it: each listener has its own.
    scratch: Mutex<Scratch>,
}

impl NearProcesses {
    pub(super) fn new(proc: Arc<ProcRoot>) -> Self {
        NearProcesses { proc, scratch: Mutex::default() }
    }
}

impl Processes for NearProcesses {
    fn find(&self, pid: u32, started_before: Option<u64>) -> Option<Relative> {
        let dir = self.proc.process(pid).ok()?;
        let mut scratch = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let (relative, _) = near(&dir, pid, scratch.bytes(), true)?;
        let later = started_before.zip(relative.start_ticks).is_some_and(|(limit, start)| start > limit);
        (!later).then_some(relative)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::{Duration, Instant};

    use super::*;

    fn chain_of(child: &mut std::process::Child) -> (Ancestors, Option<u32>) {
        let proc = Arc::new(ProcRoot::open(Path::new("/proc")).unwrap());
        let mut details = Details::default();
        let dir = proc.process(child.id()).unwrap();
        details.read(&proc, &dir, &mut Scratch::default(), 0);
        let mut ancestors = Ancestors::default();
        let hidden = Chain::new(proc).read(child.id(), &mut details, true, &mut ancestors);
        let shown = details.ppid;
        hidden.restore(&mut details);
        assert_eq!(details.ppid, Some(std::process::id()));
        child.kill().unwrap();
        child.wait().unwrap();
        (ancestors, shown)
    }

    #[test]
    fn a_child_has_this_process_above_it_and_its_facts() {
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let (ancestors, shown) = chain_of(&mut child);
        assert_eq!(shown, Some(std::process::id()));
        let own = &ancestors.processes[0];
        assert_eq!(own.pid, std::process::id());
        assert_eq!(own.uids.unwrap()[0], nix::unistd::getuid().as_raw());
        assert!(own.image.exe().is_some() && own.image.argv().is_none() && own.cgroup.is_none());
    }

    #[test]
    fn a_parent_of_another_session_is_an_adopter() {
        use std::os::unix::process::CommandExt;
        // The leader of the session ends; who is left of it is adopted.
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", "sleep 100 >/dev/null 2>&1 & echo $! $$"]);
        let output = {
            let mut leader = std::process::Command::new("setsid");
            leader.arg(shell.get_program()).args(shell.get_args()).process_group(0).output().unwrap()
        };
        let said = String::from_utf8(output.stdout).unwrap();
        let (orphan, leader) = said.trim().split_once(' ').unwrap();
        let (orphan, leader): (u32, u32) = (orphan.parse().unwrap(), leader.parse().unwrap());
        let proc = Arc::new(ProcRoot::open(Path::new("/proc")).unwrap());
        let mut details = Details::default();
        let deadline = Instant::now() + Duration::from_secs(60);
        // A process that ends closes its files, which ends the output, before its children are adopted.
        while details.ppid.is_none_or(|ppid| ppid == leader) {
            assert!(Instant::now() < deadline, "the leader of the session does not end");
            details.clear();
            details.read(&proc, &proc.process(orphan).unwrap(), &mut Scratch::default(), 0);
            std::thread::yield_now();
        }
        let adopter = details.ppid.unwrap();
        let mut ancestors = Ancestors::default();
        let hidden = Chain::new(proc).read(orphan, &mut details, false, &mut ancestors);
        assert_eq!((ancestors.processes.len(), ancestors.complete, details.ppid), (0, false, None));
        hidden.restore(&mut details);
        assert_eq!(details.ppid, Some(adopter));
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(orphan as i32), nix::sys::signal::Signal::SIGKILL)
            .unwrap();
    }
}
