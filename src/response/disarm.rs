//! The switch that stops all responses: a file, so that it works when nothing else does.
//!
//! `execwatch disarm` writes it, `touch` does as well. What stands in it may be the time at which the daemon takes it away.

use std::ffi::CString;
use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};

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

    /// The file is there, or it is not known whether it is. For a listener: one look-up in a file system in memory.
    pub fn thrown(&self) -> bool {
        !matches!(access(self.c_path.as_c_str(), AccessFlags::F_OK), Err(Errno::ENOENT | Errno::ENOTDIR))
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

#[cfg(test)]
mod tests {
    use super::*;

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
