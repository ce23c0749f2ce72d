//! The switch that stops all responses: a file, so that it works when nothing else does.
//!
//! `execwatch disarm` writes it, `touch` does as well. What stands in it may be the time at which the daemon takes it away.

use std::ffi::CString;
use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};

use crate::clock;
use crate::process::file::FileFacts;
use crate::sys;

/// Its name in the runtime folder.
const NAME: &str = "disarmed";
/// How the line with the time begins, in seconds since 1970.
const UNTIL: &str = "until=";

/// Where the file is.
#[derive(Debug, Clone)]
pub struct Switch {
    path: PathBuf,
    /// The same for a system call that must not allocate.
    c_path: CString,
}

/// Whether responses are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Armed {
    /// They are.
    Yes,
    /// They are not, until somebody arms them or the time, in seconds since 1970, has come.
    No {
        /// That time, if there is one.
        until_s: Option<u64>,
    },
}

impl Switch {
    /// The switch in a runtime folder.
    pub fn new(runtime: &Path) -> Self {
        let path = runtime.join(NAME);
        // A path with a NUL names no file, and neither does the empty one.
        let c_path = CString::new(path.as_os_str().as_bytes()).unwrap_or_default();
        Switch { path, c_path }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file is there, or it is not known whether it is.
    pub fn thrown(&self) -> bool {
        self.is_there() != Ok(false)
    }

    fn is_there(&self) -> Result<bool, Errno> {
        match access(self.c_path.as_c_str(), AccessFlags::F_OK) {
            Ok(()) => Ok(true),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What the file says, after it was taken away if its time has come. Not for a listener.
    pub fn tick(&self, now_s: u64) -> Armed {
        if !self.thrown() {
            return Armed::Yes;
        }
        let text = fs::read_to_string(&self.path).unwrap_or_default();
        let until_s = text.lines().find_map(|line| line.strip_prefix(UNTIL)?.trim().parse().ok());
        if until_s.is_some_and(|until| now_s >= until) && self.arm().is_ok() {
            return Armed::Yes;
        }
        Armed::No { until_s }
    }

    /// Stops responses.
    pub fn disarm(&self, until_s: Option<u64>) -> io::Result<()> {
        if let Some(folder) = self.path.parent()
            && !folder.is_dir()
        {
            fs::create_dir_all(folder)?;
            fs::set_permissions(folder, Permissions::from_mode(0o700))?;
        }
        // In one step: a listener that sees the file sees it whole.
        let new = self.path.with_extension("new");
        let mut file = fs::File::options().write(true).create(true).truncate(true).mode(0o644).open(&new)?;
        if let Some(until) = until_s {
            writeln!(file, "{UNTIL}{until}")?;
        }
        fs::rename(&new, &self.path)
    }

    /// Allows responses again.
    pub fn arm(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }
}

/// The switch as a listener asks for it, who holds a program meanwhile.
///
/// Looking a name up may wait: for somebody else who looks it up or who changes the folder, and who may have been preempted. A
/// file system in memory does not even remember that there is no such file. So the folder is asked when it was changed, and
/// the name is looked up only if that was not long ago, and once a second.
#[derive(Debug)]
pub struct Watched {
    switch: Switch,
    /// Opened once; `None` if it was not there.
    folder: Option<OwnedFd>,
    known: Option<Known>,
}

/// What a look at the file showed.
#[derive(Debug)]
struct Known {
    /// The folder as it was before.
    folder: FileFacts,
    /// When that was (CLOCK_MONOTONIC).
    at_ns: u64,
    thrown: bool,
}

impl Watched {
    /// The switch in a runtime folder.
    pub fn new(runtime: &Path) -> Self {
        let folder = fs::File::open(runtime).ok().map(OwnedFd::from);
        Watched { switch: Switch::new(runtime), folder, known: None }
    }

    /// The file is there, or it is not known whether it is.
    pub fn thrown(&mut self) -> bool {
        /// Another folder may have got its name.
        const LOOK_EVERY_NS: u64 = 1_000_000_000;
        let at_ns = clock::monotonic_ns();
        let folder = self.folder.as_ref().and_then(|folder| sys::fs::status_at(folder.as_fd(), c"").ok());
        if let (Some(known), Some(folder)) = (&self.known, folder)
            && known.folder == folder
            && at_ns.saturating_sub(known.at_ns) < LOOK_EVERY_NS
        {
            return known.thrown;
        }
        let now_ns = i64::try_from(clock::realtime_ns()).unwrap_or_default();
        let there = self.switch.is_there();
        let settled = folder.filter(|folder| folder.links > 0 && !folder.fresh(now_ns));
        self.known = settled.zip(there.ok()).map(|(folder, thrown)| Known { folder, at_ns, thrown });
        there != Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_watched_is_looked_up_when_the_folder_was_changed() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("a/run");
        fs::create_dir_all(&folder).unwrap();
        let mut watched = Watched::new(&folder);
        // At once, in the same tick.
        for _ in 0..100 {
            assert!(!watched.thrown());
            fs::write(watched.switch.path(), "").unwrap();
            assert!(watched.thrown());
            fs::remove_file(watched.switch.path()).unwrap();
        }
        assert!(!watched.thrown() && watched.known.is_none());
        // And when it has settled.
        let settle = |watched: &mut Watched, thrown| {
            std::thread::sleep(std::time::Duration::from_millis(2100));
            assert!(watched.thrown() == thrown && watched.known.is_some());
            assert_eq!(watched.thrown(), thrown);
        };
        settle(&mut watched, false);
        fs::write(watched.switch.path(), "").unwrap();
        assert!(watched.thrown());
        settle(&mut watched, true);
        fs::remove_file(watched.switch.path()).unwrap();
        assert!(!watched.thrown());
        settle(&mut watched, false);
        // Another folder has its name, of which the first one shows nothing.
        fs::rename(outer.path().join("a"), outer.path().join("b")).unwrap();
        fs::create_dir_all(&folder).unwrap();
        fs::write(watched.switch.path(), "").unwrap();
        std::thread::sleep(std::time::Duration::from_millis(1100));
        assert!(watched.thrown());
        // One that is not there yet.
        let mut watched = Watched::new(&outer.path().join("later"));
        assert!(!watched.thrown());
        watched.switch.disarm(None).unwrap();
        assert!(watched.thrown());
    }

    #[test]
    fn thrown_by_a_file_and_back_in_time() {
        let folder = tempfile::tempdir().unwrap();
        let switch = Switch::new(&folder.path().join("run"));
        assert!(!switch.thrown());
        assert_eq!(switch.tick(100), Armed::Yes);
        switch.disarm(Some(110)).unwrap();
        assert!(switch.thrown());
        assert_eq!(switch.tick(109), Armed::No { until_s: Some(110) });
        assert_eq!(switch.tick(110), Armed::Yes);
        assert!(!switch.thrown());
        // As `touch` makes it.
        fs::write(switch.path(), "").unwrap();
        assert_eq!(switch.tick(u64::MAX), Armed::No { until_s: None });
        switch.arm().unwrap();
        switch.arm().unwrap();
        assert!(!switch.thrown());
    }
}
