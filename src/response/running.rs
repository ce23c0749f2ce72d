//! A process that runs, as the worker asks the guard rails about it: what it executes now, where, and who is above it.
//!
//! For the members of a tree or of a control group, each by itself, and for a program whose decision is some time old: it
//! may have executed something else since, which a guard rail keeps.

use std::collections::HashMap;

use super::Guard;
use super::chain::{self, near};
use super::guard::{Candidate, Rails};
use super::policy;
use super::signal::{Miss, ended};
use crate::lineage::{Ancestor, Lineage};
use crate::process::details::{Namespaces, Scratch, UNSET};
use crate::process::exec::Image;
use crate::process::parse;
use crate::process::proc_dir::{ProcDir, ProcRoot};
use crate::process::relatives::Relative;

/// What is found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Now {
    /// The executable. Its path is empty if it is longer than the kernel can tell; `None` if there is no telling.
    pub(super) image: Option<Image>,
    /// Why it is left alone.
    pub(super) kept: Option<Guard>,
}

/// Asks about processes that run.
pub(super) struct Asking<'a> {
    pub(super) proc: &'a ProcRoot,
    rails: &'a Rails,
    host: &'a Namespaces,
    /// Processes that are above others, as they were read: many have the same ones above them.
    above: HashMap<u32, Option<Relative>>,
    scratch: Scratch,
}

impl<'a> Asking<'a> {
    pub(super) fn new(proc: &'a ProcRoot, rails: &'a Rails, host: &'a Namespaces) -> Self {
        Asking { proc, rails, host, above: HashMap::new(), scratch: Scratch::default() }
    }

    /// Reads the processes above others anew, which may have executed something meanwhile.
    pub(super) fn afresh(&mut self) {
        self.above.clear();
    }

    /// Asks about the process `pid`, which was started at `start_ticks` if that is known. `told` is where it comes from as
    /// events told, which know of makers that have ended.
    pub(super) fn about(
        &mut self,
        pid: u32,
        start_ticks: Option<u64>,
        told: Option<&Lineage>,
    ) -> Result<Now, Miss> {
        let dir = self.proc.process(pid)?;
        let (ppid, start) = {
            let stat = dir.content(c"stat", self.scratch.bytes())?;
            let stat = parse::stat(stat).ok_or(Miss::Failed(libc::EBADMSG))?;
            if ended(stat.state) || start_ticks.is_some_and(|ticks| ticks != stat.start_ticks) {
                return Err(Miss::Gone);
            }
            (stat.ppid, stat.start_ticks)
        };
        let image = self.image(&dir);
        let mut ancestors = self.ancestors(ppid, start);
        ancestors.extend(told.into_iter().flat_map(|told| told.ancestors.iter().map(relative)));
        let on_host = policy::runs_on_host(&dir, self.host);
        let candidate = Candidate {
            pid,
            ppid: Some(ppid),
            start_ticks: Some(start),
            exe: image.as_ref().and_then(Image::exe),
            on_host,
            ancestors: &ancestors,
        };
        let mut kept = self.rails.keeps(&candidate);
        if kept.is_none() && on_host && image.is_none() {
            // It may be any of those that go by path; or it has none any more, because it ends just now.
            let stat = dir.content(c"stat", self.scratch.bytes())?;
            if parse::stat(stat).is_none_or(|stat| ended(stat.state)) {
                return Err(Miss::Gone);
            }
            kept = Some(Guard::Unreadable);
        }
        Ok(Now { image, kept })
    }

    fn image(&mut self, dir: &ProcDir<'_>) -> Option<Image> {
        let mut image = Image::default();
        match dir.target(c"exe", self.scratch.bytes()) {
            Ok(exe) => image.set_exe(exe),
            // Longer than any path that is kept; whoever wants to be kept could make one.
            Err(error) if error.raw_os_error() == Some(libc::ENAMETOOLONG) => image.set_exe(b""),
            Err(_) => return None,
        }
        Some(image)
    }

    /// Who is above a process with this parent and start, as /proc shows it, the parent first.
    fn ancestors(&mut self, mut ppid: u32, mut started_before: u64) -> Vec<Relative> {
        let mut found = Vec::new();
        while ppid != 0 && found.len() < chain::MOST {
            let (proc, scratch) = (self.proc, &mut self.scratch);
            let above = self.above.entry(ppid).or_insert_with(|| {
                let (relative, _) = near(&proc.process(ppid).ok()?, ppid, scratch.bytes(), false)?;
                Some(relative)
            });
            let Some(relative) = above else { break };
            // Another one, which got the number.
            let Some(start) = relative.start_ticks.filter(|&start| start <= started_before) else { break };
            started_before = start;
            ppid = relative.ppid.unwrap_or(0);
            found.push(relative.clone());
        }
        found
    }
}

/// What a guard rail asks of an ancestor, as events told it.
fn relative(ancestor: &Ancestor) -> Relative {
    Relative {
        pid: ancestor.pid,
        image: ancestor.image.as_ref().map(|shown| shown.image()).unwrap_or_default(),
        uids: ancestor.uids.map(|[real, effective]| [real, effective, UNSET, UNSET]),
        ..Relative::default()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;
    use std::sync::Arc;

    use super::super::signal;
    use super::*;
    use crate::lineage::image::Shown;
    use crate::process::relatives::Learnt;

    fn rails(protected: &str) -> Rails {
        Rails {
            own: Vec::new(),
            own_pid: 0,
            own_exe: Vec::new(),
            init_exe: Vec::new(),
            protected: Rails::patterns(&[protected.to_owned()]).unwrap(),
        }
    }

    #[test]
    fn a_process_is_asked_about_as_it_is_now_and_where_it_is() {
        let proc = ProcRoot::open(Path::new("/proc")).unwrap();
        let host = Namespaces::of_the_host(&proc);
        let mut child = Command::new("sleep").arg("100").spawn().unwrap();
        let pid = child.id();
        let (_, start) = signal::state(&proc.process(pid).unwrap()).unwrap();
        let exe = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap();
        let protecting = rails(exe.to_str().unwrap());
        let now = Asking::new(&proc, &protecting, &host).about(pid, Some(start), None).unwrap();
        assert_eq!(now.kept, Some(Guard::Protected));
        assert_eq!(now.image.unwrap().exe(), exe.to_str().map(str::as_bytes));
        let others = rails("/nothing");
        assert_eq!(Asking::new(&proc, &others, &host).about(pid, None, None).unwrap().kept, None);
        // Seen from a host with other namespaces it is in a container.
        let other_host = Namespaces { pid: host.pid.map(|id| id + 1), ..host };
        let inside = Asking::new(&proc, &protecting, &other_host).about(pid, Some(start), None).unwrap();
        assert_eq!(inside.kept, None);
        // Another process of this number, and one that has ended.
        let mut asking = Asking::new(&proc, &protecting, &host);
        assert_eq!(asking.about(pid, Some(start + 1), None), Err(Miss::Gone));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(asking.about(pid, Some(start), None), Err(Miss::Gone));
    }

    #[test]
    fn an_ancestor_that_ended_is_known_from_events() {
        let proc = ProcRoot::open(Path::new("/proc")).unwrap();
        let host = Namespaces::of_the_host(&proc);
        let rails = rails("/nothing");
        let told = |exe: &str, uid| {
            let ancestor = Ancestor {
                pid: 5,
                start_ns: None,
                uids: Some([uid, uid]),
                image: Some(Arc::new(Shown::new(Some(exe.as_bytes()), None, false).into())),
                learnt: Learnt::Seen,
                earlier: Vec::new(),
                ended: true,
            };
            Lineage { ancestors: vec![ancestor], ..Lineage::default() }
        };
        let own = std::process::id();
        let mut asking = Asking::new(&proc, &rails, &host);
        let mut kept = |told| asking.about(own, None, Some(&told)).unwrap().kept;
        assert_eq!(kept(told("/usr/bin/dpkg", 0)), Some(Guard::PackageManager));
        assert_eq!(kept(told("/usr/bin/dpkg", 1000)), None);
        assert_eq!(kept(told("/usr/bin/dash", 0)), None);
    }
}
