//! Beside stage two: which utility a file is, whatever it is called.
//!
//! In: the executed file, reached through /proc/PID/exe, and an [`Index`](index::Index) of the utilities that are
//! installed on this host. Out: an [`Identity`], by the file itself (hard links and bind mounts), by its build-id (copies,
//! also lengthened ones) or by its content (other copies).
//!
//! - `keeper` builds the index on a thread of its own and follows what is installed; `index` says what is in it; `shared`
//!   hands it to the listeners, who never wait for it.
//! - `identify` runs on a listener while the program is held: one statx, and for files off the trusted paths, unless they
//!   were seen before, one open and one read of a page that the kernel has just read itself.
//! - `settle` runs on the worker: it compares contents, and files on file systems that the listener does not open.
//! - `elf` reads build-ids, `contents` hashes, `mounts` tells which file systems may be opened without waiting for
//!   somebody else, `packages` tells which files belong to a package.
//!
//! A file is never opened on a file system that may wait for a server or another process (NFS, FUSE): the listener would
//! wait with it, and all programs on its CPU. There, only hard links and bind mounts are known.

pub mod contents;
pub mod elf;
pub mod identify;
pub mod index;
pub mod keeper;
pub mod mounts;
pub mod packages;
pub mod settle;
pub mod shared;

use std::sync::Arc;

use crate::process::exec::Image;
use crate::process::file::FileFacts;
use crate::rules::catalogue::KnownFile;
use contents::Digest;
use index::Installed;

/// By what a file was recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum By {
    /// It is the installed file: a hard link, a bind mount, or its own name.
    Inode,
    /// Its build-id is that of the installed file.
    BuildId,
    /// Its SHA-256 is that of the installed file.
    Content,
}

impl By {
    /// The word used in alerts.
    pub fn as_str(self) -> &'static str {
        match self {
            By::Inode => "inode",
            By::BuildId => "build-id",
            By::Content => "content",
        }
    }
}

/// A file that is an installed utility's, or a copy of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The installed file.
    pub installed: Arc<Installed>,
    /// By what it was recognised.
    pub by: By,
    /// Its SHA-256, if it was recognised by its content.
    pub sha256: Option<Digest>,
    /// It is the file that the dynamic loader was told to run, not the executable.
    pub loaded: bool,
    /// It was executed where it is installed; see `is_at_its_place`.
    pub at_its_place: bool,
}

/// Whether a file was executed where it is installed: by one of the paths that the index knows, or, on a trusted path, as
/// a hard link that was there already when the index was made. Packages have such links in folders of their own.
fn is_at_its_place(installed: &Installed, image: &Image, file: &FileFacts, trusted: bool) -> bool {
    let known = image.exe().is_some_and(|exe| installed.paths.iter().any(|path| **path == *exe));
    file.id() == installed.file.id() && (known || trusted && file.links == installed.file.links)
}

impl Identity {
    /// What the catalogue is told of it.
    pub fn known_file(&self) -> KnownFile<'_> {
        KnownFile {
            utility: &self.installed.utility,
            path: self.installed.path(),
            at_its_place: self.at_its_place,
            loaded: self.loaded,
        }
    }
}

/// Why it is not known yet, or will never be, which utility a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsettled {
    /// Its size is that of a utility: the worker compares the contents.
    Content,
    /// The listener does not know whether its file system may be opened: the worker finds out.
    Device,
    /// Reading it would wait for a disk: the worker does.
    Disk,
    /// It could not be read: it has gone, is too large, or there was too much to compare.
    Unreadable,
}

impl Unsettled {
    /// The worker can still find it out, if the file is kept within reach.
    pub fn is_for_the_worker(self) -> bool {
        self != Unsettled::Unreadable
    }
}

/// Which files are looked at for their build-id and content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// None, and not even the file itself is compared.
    Off,
    /// Those on other paths than the trusted ones; of those, only the file itself is compared.
    #[default]
    UntrustedPaths,
    /// All.
    All,
}

/// Where utilities are looked for unless the configuration says otherwise. A `*` stands for every folder.
pub const FOLDERS: [&str; 11] = [
    "/usr/bin",
    "/usr/sbin",
    "/bin",
    "/sbin",
    "/usr/local/bin",
    "/usr/local/sbin",
    "/usr/games",
    "/opt/bin",
    "/opt/*/bin",
    "/snap/bin",
    "/usr/lib/*/bin",
];
