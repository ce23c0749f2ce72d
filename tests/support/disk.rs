//! File systems of some size, in memory.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::skip;

/// A file system at a folder, unmounted when this is dropped.
pub(crate) struct Disk(PathBuf);

impl Disk {
    /// `None`: this machine lets nobody mount, which has been said.
    pub(crate) fn mount(at: &Path, options: &str) -> Option<Disk> {
        fs::create_dir_all(at).unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", options, "execwatch-test"]).arg(at).status();
        if !mounted.is_ok_and(|status| status.success()) {
            skip("needs a mount");
            return None;
        }
        Some(Disk(at.to_owned()))
    }

    pub(crate) fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        assert!(Command::new("mount").args(["-o", &options]).arg(&self.0).status().unwrap().success());
    }

    /// Fills it but for so many bytes; the file that takes the room.
    pub(crate) fn fill_but(&self, free: usize) -> PathBuf {
        let path = self.0.join("filling");
        let mut file = File::create(&path).unwrap();
        let full = std::iter::repeat_with(|| file.write_all(&[0; 4096])).find_map(Result::err);
        assert_eq!(full.and_then(|error| error.raw_os_error()), Some(nix::libc::ENOSPC));
        let size = file.metadata().unwrap().len();
        file.set_len(size - free as u64).unwrap();
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whoever still has a file open there keeps it alive.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
