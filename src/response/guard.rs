//! The guard rails: what no response ever touches, whatever a rule says.

use super::Guard;
use crate::process::exec::base_name;
use crate::process::relatives::Relative;
use crate::rules::pattern::{Comparison, Pattern};

/// Programs that install software, by their names; maintainer scripts are their descendants.
const PACKAGE_MANAGERS: [&[u8]; 14] = [
    b"apt",
    b"apt-get",
    b"apk",
    b"aptitude",
    b"dnf",
    b"dnf5",
    b"dpkg",
    b"microdnf",
    b"pacman",
    b"rpm",
    b"rpmdb",
    b"tdnf",
    b"yum",
    b"zypper",
];
/// Folders whose files only root changes, where these are installed.
const SYSTEM_FOLDERS: [&[u8]; 5] = [b"/usr/bin/", b"/usr/sbin/", b"/bin/", b"/sbin/", b"/usr/libexec/"];
/// The ssh server, and what it executes for each connection before a user is known.
const SSH_SERVERS: [&[u8]; 3] = [b"sshd", b"sshd-session", b"sshd-auth"];
/// Where systemd's own programs are.
const INIT_FOLDERS: [&[u8]; 2] = [b"/usr/lib/systemd/", b"/lib/systemd/"];

/// What is kept, beside what every host keeps.
#[derive(Debug)]
pub struct Rails {
    /// execwatch and its ancestors, by pid and start time.
    pub own: Vec<(u32, u64)>,
    /// The daemon.
    pub own_pid: u32,
    /// Its executable.
    pub own_exe: Vec<u8>,
    /// The executable of the first process.
    pub init_exe: Vec<u8>,
    /// Patterns of `[response] protected`.
    pub protected: Option<Pattern>,
}

/// What is asked about.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// Process id.
    pub pid: u32,
    /// The parent's, as /proc shows it.
    pub ppid: Option<u32>,
    /// Start time in ticks since boot.
    pub start_ticks: Option<u64>,
    /// The executable.
    pub exe: Option<&'a [u8]>,
    /// It runs on the host and not in a container: there, whoever made the container chooses what a path means.
    pub on_host: bool,
    /// Its ancestors, as far as they are known, the parent first.
    pub ancestors: &'a [Relative],
}

impl Rails {
    /// The patterns of protected executables; the index of a wrong one and why.
    pub fn patterns(globs: &[String]) -> Result<Option<Pattern>, (usize, String)> {
        if globs.is_empty() {
            return Ok(None);
        }
        let globs: Vec<&str> = globs.iter().map(String::as_str).collect();
        Pattern::new(Comparison::PathGlob, &globs, true).map(Some)
    }

    /// Why nothing is done about a process; `None` if something may be.
    pub fn keeps(&self, candidate: &Candidate<'_>) -> Option<Guard> {
        let Candidate { pid, ppid, start_ticks, exe, on_host, ancestors } = *candidate;
        let of_init = ppid == Some(1);
        if pid == 1 {
            return Some(Guard::Init);
        }
        // kthreadd and its children: kernel threads, and the helpers that the kernel starts.
        if pid == 2 || ppid == Some(2) {
            return Some(Guard::Kernel);
        }
        if self.own.iter().any(|&(own, start)| own == pid && start_ticks.is_none_or(|ticks| ticks == start))
            || ppid == Some(self.own_pid)
        {
            return Some(Guard::Execwatch);
        }
        if !on_host {
            return None;
        }
        let exe = exe?;
        if exe == self.own_exe {
            return Some(Guard::Execwatch);
        }
        let in_init_folder = INIT_FOLDERS.iter().any(|folder| exe.starts_with(folder));
        if of_init && (exe == self.init_exe || in_init_folder) {
            return Some(Guard::Init);
        }
        let parent_is_server =
            ancestors.first().and_then(|parent| parent.image.exe()).is_some_and(is_ssh_server);
        if is_ssh_server(exe) && (of_init || parent_is_server) {
            return Some(Guard::SshServer);
        }
        let installs = |ancestor: &Relative| {
            ancestor.image.exe().is_some_and(is_package_manager)
                && ancestor.uids.is_some_and(|uids| uids[0] == 0)
        };
        if ancestors.iter().any(installs) {
            return Some(Guard::PackageManager);
        }
        if self.protected.as_ref().is_some_and(|protected| protected.matches(exe)) {
            return Some(Guard::Protected);
        }
        None
    }
}

/// The executable is a package manager's, where the host has it.
pub(super) fn is_package_manager(exe: &[u8]) -> bool {
    PACKAGE_MANAGERS.contains(&base_name(exe)) && in_system(exe)
}

fn is_ssh_server(exe: &[u8]) -> bool {
    SSH_SERVERS.contains(&base_name(exe)) && (in_system(exe) || exe.starts_with(b"/usr/lib/"))
}

fn in_system(exe: &[u8]) -> bool {
    SYSTEM_FOLDERS.iter().any(|folder| exe.starts_with(folder))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::exec::Image;

    fn rails() -> Rails {
        Rails {
            own: vec![(500, 50), (400, 40)],
            own_pid: 500,
            own_exe: b"/usr/sbin/execwatch".to_vec(),
            init_exe: b"/usr/lib/systemd/systemd".to_vec(),
            protected: Rails::patterns(&["/usr/bin/sudo".to_owned(), "/opt/*/bin/*".to_owned()]).unwrap(),
        }
    }

    fn candidate(exe: &str) -> Candidate<'_> {
        Candidate {
            pid: 1000,
            ppid: Some(900),
            start_ticks: Some(100),
            exe: Some(exe.as_bytes()),
            on_host: true,
            ancestors: &[],
        }
    }

    fn ancestor(exe: &str, uid: u32) -> Relative {
        let none: Option<&[&str]> = None;
        Relative {
            pid: 900,
            image: Image::new(Some(exe.as_bytes()), none),
            uids: Some([uid; 4]),
            ..Relative::default()
        }
    }

    #[test]
    fn each_rail_keeps_what_it_should_and_no_more() {
        let rails = rails();
        let keeps = |candidate: Candidate<'_>| rails.keeps(&candidate);
        let nc = candidate("/usr/bin/nc");
        assert_eq!(keeps(nc), None);
        assert_eq!(keeps(Candidate { pid: 1, ..nc }), Some(Guard::Init));
        assert_eq!(keeps(Candidate { ppid: Some(2), ..nc }), Some(Guard::Kernel));
        assert_eq!(keeps(Candidate { pid: 2, ppid: Some(0), ..nc }), Some(Guard::Kernel));
        assert_eq!(keeps(Candidate { pid: 400, start_ticks: Some(40), ..nc }), Some(Guard::Execwatch));
        // Another process, which got the number.
        assert_eq!(keeps(Candidate { pid: 400, start_ticks: Some(41), ..nc }), None);
        assert_eq!(keeps(Candidate { ppid: Some(500), ..nc }), Some(Guard::Execwatch));
        assert_eq!(keeps(candidate("/usr/sbin/execwatch")), Some(Guard::Execwatch));
        let resolved = candidate("/usr/lib/systemd/systemd-resolved");
        assert_eq!(keeps(Candidate { ppid: Some(1), ..resolved }), Some(Guard::Init));
        assert_eq!(keeps(resolved), None);
        let server = candidate("/usr/sbin/sshd");
        assert_eq!(keeps(Candidate { ppid: Some(1), ..server }), Some(Guard::SshServer));
        assert_eq!(keeps(server), None);
        let session = candidate("/usr/lib/openssh/sshd-session");
        let by_server = [ancestor("/usr/sbin/sshd", 0)];
        assert_eq!(keeps(Candidate { ancestors: &by_server, ..session }), Some(Guard::SshServer));
        assert_eq!(keeps(Candidate { ancestors: &by_server, ..nc }), None);
        let scripts = [ancestor("/usr/bin/dash", 0), ancestor("/usr/bin/dpkg", 0)];
        assert_eq!(keeps(Candidate { ancestors: &scripts, ..nc }), Some(Guard::PackageManager));
        // Anybody may have rpm execute something.
        let of_user = [ancestor("/usr/bin/rpm", 1000)];
        assert_eq!(keeps(Candidate { ancestors: &of_user, ..nc }), None);
        let elsewhere = [ancestor("/tmp/dpkg", 0)];
        assert_eq!(keeps(Candidate { ancestors: &elsewhere, ..nc }), None);
        assert_eq!(keeps(candidate("/usr/bin/sudo")), Some(Guard::Protected));
        assert_eq!(keeps(candidate("/opt/x/bin/y")), Some(Guard::Protected));
        assert_eq!(keeps(candidate("/opt/x/y/bin/y")), None);
    }

    #[test]
    fn paths_mean_nothing_in_a_container() {
        let rails = rails();
        let inside = |exe| Candidate { on_host: false, ..candidate(exe) };
        assert_eq!(rails.keeps(&inside("/usr/bin/sudo")), None);
        assert_eq!(
            rails.keeps(&Candidate { ppid: Some(500), ..inside("/usr/bin/nc") }),
            Some(Guard::Execwatch)
        );
        let scripts = [ancestor("/usr/bin/dpkg", 0)];
        assert_eq!(rails.keeps(&Candidate { ancestors: &scripts, ..inside("/usr/bin/nc") }), None);
    }

    #[test]
    fn what_is_not_known_is_not_kept_by_it() {
        let unread = Candidate { exe: None, ppid: None, start_ticks: None, ..candidate("") };
        assert_eq!(rails().keeps(&unread), None);
        assert!(Rails::patterns(&["/ok".to_owned(), "[".to_owned()]).is_err());
    }
}
