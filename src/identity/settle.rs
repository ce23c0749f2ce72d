//! On the worker: what the listener had to leave open.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use super::contents::{self, Contents, Digest};
use super::elf;
use super::identify::reopen;
use super::index::{Index, Installed, open_path, status};
use super::mounts::{Reach, find_reach};
use super::packages::Packages;
use super::shared::Shared;
use super::{By, Identity, Unsettled, is_at_its_place};
use crate::process::exec::Exec;
use crate::process::file::FileFacts;

/// What the worker knows of files.
#[derive(Debug, Default)]
pub struct Executables {
    /// The index.
    pub shared: Arc<Shared>,
    /// Hashes.
    pub contents: Contents,
    /// Executables of packages.
    pub packages: Packages,
}

impl Executables {
    /// Finds out which utility the file is, if the listener had to leave that open; true if it cannot be told.
    pub fn settle(&self, exec: &mut Exec) -> bool {
        let left_open = exec.details.unsettled.filter(|unsettled| unsettled.is_for_the_worker());
        let Some(unsettled) = left_open else {
            return false;
        };
        let loaded = exec.details.loaded_file.is_some();
        let file = exec.details.loaded_file.or(exec.file);
        let settled = file.and_then(|file| {
            let fd = exec.descriptor.fd()?;
            if unsettled == Unsettled::Device {
                let reach = find_reach(fd, &file, exec.pid);
                self.shared.learned.learn(file.device, reach);
                if reach != Reach::Local {
                    return None;
                }
            }
            self.compare(&self.shared.index.current(), &file, &File::from(reopen(&fd)?))
        });
        exec.details.unsettled = settled.is_none().then_some(Unsettled::Unreadable);
        if let Some(Some(found)) = settled {
            found.put_into(exec, loaded);
        }
        exec.details.unsettled.is_some()
    }

    /// Which utility an opened file is; `None` if it cannot be told.
    fn compare(&self, index: &Index, file: &FileFacts, opened: &File) -> Option<Option<Found>> {
        if let Some(installed) = index.by_id(file) {
            return Some(Some(Found::new(installed, By::Inode, None)));
        }
        let mut head = [0; elf::HEAD];
        let length = opened.read_at(&mut head, 0).ok()?;
        let Some(head) = head.get(..length).filter(|head| elf::is_elf(head)) else { return Some(None) };
        let build_id = elf::build_id(head);
        if let Some(installed) = build_id.and_then(|build_id| index.by_build_id(&build_id)) {
            return Some(Some(Found::new(installed, By::BuildId, None)));
        }
        let mut unknown = false;
        let mut equal: Option<(&Arc<Installed>, Digest)> = None;
        for installed in index.by_size(file.size, build_id) {
            let Some(other) = open_installed(installed) else {
                unknown = true;
                continue;
            };
            if !contents::alike(opened, &other, file.size) {
                continue;
            }
            let own =
                self.contents.sha256(file, index.mounts.stamps(file.device), || opened.try_clone().ok());
            let theirs =
                self.contents
                    .sha256(&installed.file, index.mounts.stamps(installed.file.device), || Some(other));
            match own.zip(theirs) {
                None => unknown = true,
                Some((own, theirs)) if own != theirs => {}
                // The same content is known as different utilities.
                Some(_) if equal.is_some_and(|(first, _)| first.utility != installed.utility) => {
                    return Some(None);
                }
                Some((own, _)) => equal = equal.or(Some((installed, own))),
            }
        }
        match equal {
            Some((installed, digest)) => Some(Some(Found::new(installed, By::Content, Some(digest)))),
            None if unknown => None,
            None => Some(None),
        }
    }

    /// The hash of the executable, as far as it can be had.
    pub fn sha256(&self, exec: &Exec) -> Option<Digest> {
        if let Some(digest) = exec.sha256.get() {
            return Some(*digest);
        }
        let file = exec.file?;
        let mounts = &self.shared.index.current().mounts;
        let digest = self.contents.sha256(&file, mounts.stamps(file.device), || {
            let fd = exec.descriptor.fd()?;
            let reach = match mounts.reach(file.device) {
                Reach::Unknown => find_reach(fd, &file, exec.pid),
                reach => reach,
            };
            if reach != Reach::Local {
                return None;
            }
            Some(File::from(reopen(&fd)?))
        })?;
        Some(*exec.sha256.get_or_init(|| digest))
    }

    /// Reads the facts and identity of a file that nobody executes now, for whoever asks about its path.
    pub fn describe(&self, path: &Path, exec: &mut Exec) {
        let Ok(fd) = open_path(path) else { return };
        let Ok(file) = status(&fd) else { return };
        exec.file = Some(file);
        exec.descriptor = crate::process::file::Descriptor::hold(&Default::default(), || Some(fd));
        let index = self.shared.index.current();
        let Some(fd) = exec.descriptor.fd().filter(|_| file.regular() && !index.is_empty()) else { return };
        if index.mounts.reach(file.device) != Reach::Local
            && find_reach(fd, &file, std::process::id()) != Reach::Local
        {
            exec.details.unsettled = Some(Unsettled::Unreadable);
            return;
        }
        let compared = reopen(&fd).and_then(|opened| self.compare(&index, &file, &File::from(opened)));
        match compared {
            Some(Some(found)) => found.put_into(exec, false),
            Some(None) => {}
            None => exec.details.unsettled = Some(Unsettled::Unreadable),
        }
    }
}

/// A utility that a file was found to be.
struct Found {
    installed: Arc<Installed>,
    by: By,
    sha256: Option<Digest>,
}

impl Found {
    fn new(installed: &Arc<Installed>, by: By, sha256: Option<Digest>) -> Self {
        Found { installed: Arc::clone(installed), by, sha256 }
    }

    fn put_into(self, exec: &mut Exec, loaded: bool) {
        let Found { installed, by, sha256 } = self;
        if let Some(digest) = sha256.filter(|_| !loaded) {
            exec.sha256.get_or_init(|| digest);
        }
        let at_its_place =
            !loaded && exec.file.is_some_and(|file| is_at_its_place(&installed, &exec.image, &file, false));
        exec.details.identity = Some(Identity { installed, by, sha256, loaded, at_its_place });
    }
}

/// Opens an installed file, if it is still the one that the index knows.
fn open_installed(installed: &Installed) -> Option<File> {
    installed.paths.iter().find_map(|path| {
        let path = Path::new(std::ffi::OsStr::from_bytes(path));
        let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).ok()?;
        let same = status(&file.as_fd()).ok()?.key() == installed.file.key();
        same.then_some(file)
    })
}
