//! Facts about the executable's file, read from the link /proc/PID/exe, which leads to the file itself whatever has
//! become of its name.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::names::Name;
/// What is known of a file.
pub use crate::sys::fs::Status as FileFacts;

/// File type bits of a mode (inode(7)).
const TYPE: u32 = 0o170_000;
/// Those of a regular file.
pub const REGULAR: u32 = 0o100_000;
/// Permission bits with set-user-id, set-group-id and sticky.
pub const PERMISSIONS: u32 = 0o7777;

/// What an exec that was not read here brings along of its file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DescribedFile {
    /// Bytes.
    pub size: Option<u64>,
    /// Hard links.
    pub links: Option<u32>,
    /// Permission bits.
    pub mode: Option<u32>,
    /// Name of the owner, or the number.
    pub owner: Name,
    /// Name of the group, or the number.
    pub group: Name,
    /// Seconds from the modification of the content to the exec.
    pub age: Option<i64>,
    /// Seconds from the last change of any kind to the exec.
    pub changed: Option<i64>,
    /// SHA-256 in hexadecimal.
    pub sha256: Option<String>,
    /// It belongs to a package.
    pub package_managed: Option<bool>,
    /// What it was recognised by as that of a utility, as text.
    pub recognised_by: String,
}

/// What tells a file with this content from every other, as long as the clock is not set back and nobody writes to the
/// device below the file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileKey {
    device: (u32, u32),
    inode: u64,
    size: u64,
    modified_ns: i64,
    changed_ns: i64,
}

impl FileFacts {
    /// Device and inode: the same for all hard links and bind mounts of a file.
    pub fn id(&self) -> FileId {
        (self.device, self.inode)
    }

    /// The key under which what was read of the content may be remembered.
    pub fn key(&self) -> FileKey {
        FileKey {
            device: self.device,
            inode: self.inode,
            size: self.size,
            modified_ns: self.modified_ns,
            changed_ns: self.changed_ns,
        }
    }

    /// It was changed so short a time before `now_ns` that another change need not show in its times: kernels before
    /// 6.13 stamp files with the time of the last tick, up to 10 ms ago, and some file systems with whole seconds.
    pub fn fresh(&self, now_ns: i64) -> bool {
        const SETTLED_NS: i64 = 2_000_000_000;
        self.changed_ns > now_ns.saturating_sub(SETTLED_NS)
    }

    /// A file with content, not a device or pipe.
    pub fn regular(&self) -> bool {
        self.mode & TYPE == REGULAR
    }

    /// Permission bits.
    pub fn permissions(&self) -> u32 {
        self.mode & PERMISSIONS
    }
}

/// Device and inode.
pub type FileId = ((u32, u32), u64);

/// Descriptors of executables that may wait for the worker at once. Each also keeps its file system mounted until then.
pub const MOST_OPEN: usize = 256;

/// Counts what is open.
#[derive(Debug, Clone, Default)]
pub struct OpenCount(Arc<AtomicUsize>);

/// A descriptor that keeps the executable within reach after its process has gone. It belongs to the event in the queue:
/// a copy of the event has none.
#[derive(Debug, Default)]
pub struct Descriptor(Option<Counted>);

#[derive(Debug)]
struct Counted {
    fd: OwnedFd,
    open: OpenCount,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.open.0.fetch_sub(1, Relaxed);
    }
}

impl Descriptor {
    /// Holds what `open` opens; nothing if [`MOST_OPEN`] are held already, or it opens nothing.
    pub fn hold(count: &OpenCount, open: impl FnOnce() -> Option<OwnedFd>) -> Descriptor {
        if count.0.fetch_add(1, Relaxed) >= MOST_OPEN {
            count.0.fetch_sub(1, Relaxed);
            return Descriptor(None);
        }
        match open() {
            Some(fd) => Descriptor(Some(Counted { fd, open: count.clone() })),
            None => {
                count.0.fetch_sub(1, Relaxed);
                Descriptor(None)
            }
        }
    }

    /// The descriptor, if there is one.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.0.as_ref().map(|counted| counted.fd.as_fd())
    }

    /// Closes it.
    pub fn close(&mut self) {
        self.0 = None;
    }
}

impl Clone for Descriptor {
    fn clone(&self) -> Self {
        Descriptor(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_bounded_and_given_back() {
        let count = OpenCount::default();
        let open = || Some(OwnedFd::from(std::fs::File::open("/dev/null").ok()?));
        let held: Vec<Descriptor> = (0..MOST_OPEN + 3)
            .map(|_| Descriptor::hold(&count, open))
            .filter(|one| one.fd().is_some())
            .collect();
        assert_eq!(held.len(), MOST_OPEN);
        assert!(held[0].clone().fd().is_none());
        drop(held);
        assert!(Descriptor::hold(&count, || None).fd().is_none());
        assert!(Descriptor::hold(&count, open).fd().is_some());
        assert_eq!(count.0.load(Relaxed), 0);
    }

    #[test]
    fn a_file_changed_just_now_is_fresh() {
        let facts = FileFacts {
            device: (8, 1),
            inode: 7,
            mode: 0o104_755,
            links: 1,
            uid: 0,
            gid: 0,
            size: 10,
            modified_ns: 0,
            changed_ns: 10_000_000_000,
            mount: None,
        };
        assert!(facts.fresh(10_500_000_000) && facts.fresh(9_000_000_000) && !facts.fresh(12_000_000_001));
        assert!(facts.regular() && !FileFacts { mode: 0o010_644, ..facts }.regular());
        assert_eq!(facts.permissions(), 0o4755);
    }
}
