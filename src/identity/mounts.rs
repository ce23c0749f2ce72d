//! Which file systems may be opened without waiting for a server or another process, and which places packages own.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rustc_hash::FxHashSet;

use super::index::status;
use crate::process::details::HOST;
use crate::process::exec::Image;
use crate::process::file::FileFacts;
use crate::sys;

/// Major and minor number.
pub type Device = (u32, u32);

/// File systems without a block device whose files are this machine's memory or disks.
const LOCAL: &[&str] = &[
    "aufs", "bcachefs", "btrfs", "cramfs", "devtmpfs", "erofs", "overlay", "ramfs", "rootfs", "shiftfs",
    "squashfs", "tmpfs", "ubifs", "virtiofs", "zfs",
];

/// Of these, those that live in memory: a shared mapping changes a file there without changing its times.
const MEMORY: &[&str] = &["devtmpfs", "ramfs", "rootfs", "tmpfs"];

/// Longest mountinfo that is read: some 50,000 mounts.
const LONGEST_TABLE: u64 = 8 << 20;

/// Folders that packages own, without `/usr/local`.
const TRUSTED: &[&str] = &["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];

/// A row of /proc/PID/mountinfo (proc_pid_mountinfo(5)).
#[derive(Debug, PartialEq, Eq)]
struct Mount<'m> {
    id: u64,
    device: Device,
    kind: &'m str,
}

fn mounts(table: &str) -> impl Iterator<Item = Mount<'_>> {
    table.lines().filter_map(|line| {
        let (own, file_system) = line.split_once(" - ")?;
        let mut fields = own.split(' ');
        let id = fields.next()?.parse().ok()?;
        let (major, minor) = fields.nth(1)?.split_once(':')?;
        let device = (major.parse().ok()?, minor.parse().ok()?);
        Some(Mount { id, device, kind: file_system.split(' ').next()? })
    })
}

fn is_local(mount: &Mount<'_>) -> bool {
    mount.device.0 != 0 && mount.kind != "fuseblk" || LOCAL.contains(&mount.kind)
}

/// Reads a table of mounts; nothing if it is too long or has gone.
fn table(path: &Path) -> Option<String> {
    use std::io::Read;
    let mut text = Vec::new();
    std::fs::File::open(path).ok()?.take(LONGEST_TABLE).read_to_end(&mut text).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

/// What is known of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Opening a file waits for nobody but the disk.
    Local,
    /// It may wait for a server or another process.
    Remote,
    /// Nobody has looked yet.
    Unknown,
}

/// The file systems of this host, as they were when the index was built.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Mounts {
    local: FxHashSet<Device>,
    remote: FxHashSet<Device>,
    /// Local ones whose files' times tell of each change.
    stamped: FxHashSet<Device>,
    trusted_mounts: FxHashSet<u64>,
    trusted_devices: FxHashSet<Device>,
}

impl Mounts {
    /// Those of the host's own processes: the caller may have a mount namespace of its own (a service's sandbox), in which every mount has
    /// another id than those of the host's programs. Without leave to look there, the caller's.
    pub fn of_this_host() -> Self {
        let mut own = Mounts::default();
        let of_the_host = HOST.into_iter().find_map(|pid| {
            let root = PathBuf::from(format!("/proc/{pid}/root"));
            super::index::open_path(&root).ok()?;
            Some((table(Path::new(&format!("/proc/{pid}/mountinfo")))?, root))
        });
        let (table, root) = of_the_host.unwrap_or_else(|| {
            (table(Path::new("/proc/self/mountinfo")).unwrap_or_default(), PathBuf::from("/"))
        });
        for mount in mounts(&table) {
            own.insert(&mount, mount.device);
        }
        // Anonymous memory lies on a mount that no table shows.
        if let Ok(memory) = sys::fs::anonymous_file(c"execwatch")
            && let Ok(facts) = status(&memory)
        {
            own.local.insert(facts.device);
        }
        // A folder that is a subvolume of btrfs has a device of its own, which the table does not show.
        for folder in
            TRUSTED.iter().chain(&["/", "/home", "/tmp", "/var", "/var/tmp", "/opt", "/root", "/srv"])
        {
            let place = root.join(folder.trim_start_matches('/'));
            if let Ok(opened) = super::index::open_path(&place)
                && let Ok(facts) = status(&opened)
            {
                if let Some(mount) = facts.mount.and_then(|id| mounts(&table).find(|mount| mount.id == id)) {
                    own.insert(&mount, facts.device);
                }
                if TRUSTED.contains(folder) {
                    own.trusted_mounts.extend(facts.mount);
                    own.trusted_devices.insert(facts.device);
                }
            }
        }
        own
    }

    fn insert(&mut self, mount: &Mount<'_>, device: Device) {
        if is_local(mount) {
            self.local.insert(device);
            if !MEMORY.contains(&mount.kind) {
                self.stamped.insert(device);
            }
        } else {
            self.remote.insert(device);
        }
    }

    /// What was read of a file on this device may be remembered until its times change.
    pub fn stamps(&self, device: Device) -> bool {
        device.0 != 0 || self.stamped.contains(&device)
    }

    /// Whether a device's files may be opened.
    pub fn reach(&self, device: Device) -> Reach {
        if self.remote.contains(&device) {
            Reach::Remote
        } else if device.0 != 0 || self.local.contains(&device) {
            // A block device that is not mounted here is another namespace's.
            Reach::Local
        } else {
            Reach::Unknown
        }
    }

    /// The executable lies where packages put theirs, in this host's own view: another file that is mounted over it, or
    /// a container's, is on another mount.
    pub fn trusted(&self, image: &Image, file: &FileFacts) -> bool {
        let in_folder = |exe: &[u8]| {
            let below = |folder: &&str| {
                exe.strip_prefix(folder.as_bytes()).is_some_and(|rest| rest.first() == Some(&b'/'))
            };
            TRUSTED.iter().any(below) && !exe.starts_with(b"/usr/local/")
        };
        let on_mount = match file.mount {
            Some(mount) => self.trusted_mounts.contains(&mount),
            None => self.trusted_devices.contains(&file.device),
        };
        on_mount && image.deleted() == Some(false) && image.exe().is_some_and(in_folder)
    }
}

/// Looks an opened file's mount up in the table of the process that executed it, or else in the host's. While the
/// descriptor is open, nobody else can get the mount's number.
pub(super) fn find_reach(fd: BorrowedFd<'_>, file: &FileFacts, pid: u32) -> Reach {
    let id = file.mount.or_else(|| {
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).ok()?;
        info.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok())
    });
    let Some(id) = id else { return Reach::Unknown };
    for process in [pid].into_iter().chain(HOST).chain([std::process::id()]) {
        if let Some(table) = table(Path::new(&format!("/proc/{process}/mountinfo")))
            && let Some(mount) = mounts(&table).find(|mount| mount.id == id)
        {
            return if is_local(&mount) { Reach::Local } else { Reach::Remote };
        }
    }
    Reach::Unknown
}

/// What the worker found out of devices of other mount namespaces. Listeners read it without a lock.
#[derive(Debug)]
pub struct Learned([AtomicU64; Learned::MOST]);

impl Default for Learned {
    fn default() -> Self {
        Learned([const { AtomicU64::new(0) }; Self::MOST])
    }
}

impl Learned {
    /// Containers' file systems with a device of their own that are remembered at once.
    const MOST: usize = 64;

    /// Marks a local device. Numbers of devices have 12 and 20 bits, so the marks are free.
    const LOCAL: u64 = 1 << 63;
    /// Marks a remote device. Without a mark a place is free.
    const REMOTE: u64 = 1 << 62;

    fn number((major, minor): Device) -> u64 {
        (u64::from(major) << 32 | u64::from(minor)) & !(Self::LOCAL | Self::REMOTE)
    }

    /// Remembers a device; in the place of another one if there are too many.
    pub fn learn(&self, device: Device, reach: Reach) {
        let mark = match reach {
            Reach::Local => Self::LOCAL,
            Reach::Remote => Self::REMOTE,
            Reach::Unknown => return,
        };
        let code = mark | Self::number(device);
        if self.reach(device) != Reach::Unknown {
            return;
        }
        let free = self.0.iter().find(|place| place.load(Relaxed) == 0);
        let place = free.or_else(|| self.0.get(device.1 as usize % Self::MOST));
        if let Some(place) = place {
            place.store(code, Relaxed);
        }
    }

    /// What is remembered of a device.
    pub fn reach(&self, device: Device) -> Reach {
        let number = Self::number(device);
        let known = |code: u64| {
            let marked = code & (Self::LOCAL | Self::REMOTE);
            (marked != 0 && code & !marked == number).then_some(marked)
        };
        match self.0.iter().find_map(|place| known(place.load(Relaxed))) {
            Some(Self::LOCAL) => Reach::Local,
            Some(_) => Reach::Remote,
            None => Reach::Unknown,
        }
    }

    /// Forgets all: the number of a file system that was unmounted is used again.
    pub fn forget(&self) {
        self.0.iter().for_each(|place| place.store(0, Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read() {
        let table = "25 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
                     31 25 0:27 / /mnt/a\\040b rw - nfs4 server:/x rw\n\
                     40 25 0:45 / /run rw - tmpfs tmpfs rw\nnonsense\n7 1 8 / / rw - ext4 x rw\n";
        let read: Vec<_> = mounts(table).map(|mount| (mount.id, mount.device, is_local(&mount))).collect();
        assert_eq!(read, [(25, (8, 1), true), (31, (0, 27), false), (40, (0, 45), true)]);
    }

    #[test]
    fn reach_of_devices() {
        let own = Mounts {
            local: FxHashSet::from_iter([(0, 45)]),
            remote: FxHashSet::from_iter([(0, 27), (8, 9)]),
            ..Mounts::default()
        };
        assert_eq!(own.reach((8, 1)), Reach::Local);
        // fuseblk has a block device, and a process that serves it.
        assert_eq!(own.reach((8, 9)), Reach::Remote);
        assert_eq!(own.reach((0, 45)), Reach::Local);
        assert_eq!(own.reach((0, 27)), Reach::Remote);
        assert_eq!(own.reach((0, 99)), Reach::Unknown);
        let here = Mounts::of_this_host();
        assert!(!here.local.is_empty() && !here.trusted_devices.is_empty());
    }

    #[test]
    fn mounts_of_its_own_do_not_hide_the_hosts() {
        let here = Mounts::of_this_host();
        let thread = std::thread::spawn(|| {
            let moved = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS);
            (moved, Mounts::of_this_host())
        });
        let (moved, there) = thread.join().unwrap();
        match moved {
            Ok(()) => assert_eq!(there, here),
            Err(error) => eprintln!("skipped: needs root to have mounts of its own ({error})"),
        }
    }

    #[test]
    fn trusted_are_package_folders_on_their_own_mount() {
        let own = Mounts {
            trusted_mounts: FxHashSet::from_iter([30]),
            trusted_devices: FxHashSet::from_iter([(8, 1)]),
            ..Mounts::default()
        };
        let opened = super::super::index::open_path(Path::new("/")).unwrap();
        let file = FileFacts { device: (8, 1), mount: Some(30), ..status(&opened).unwrap() };
        let trusted = |path: &str, file: &FileFacts| {
            own.trusted(&Image::new(Some(path.as_bytes()), None::<&[&[u8]]>), file)
        };
        assert!(trusted("/usr/bin/true", &file) && trusted("/lib64/ld-linux-x86-64.so.2", &file));
        for path in
            ["/usr/local/bin/true", "/usrx/true", "/tmp/usr/bin/true", "/usr/bin/true (deleted)", "/usr"]
        {
            assert!(!trusted(path, &file), "{path}");
        }
        assert!(!trusted("/usr/bin/true", &FileFacts { mount: Some(31), ..file }));
        assert!(trusted("/usr/bin/true", &FileFacts { mount: None, ..file }));
        assert!(!trusted("/usr/bin/true", &FileFacts { mount: None, device: (8, 2), ..file }));
    }

    #[test]
    fn devices_are_learned_and_forgotten() {
        let learned = Learned::default();
        assert_eq!(learned.reach((0, 0)), Reach::Unknown);
        for minor in 0..200 {
            let reach = if minor % 2 == 0 { Reach::Local } else { Reach::Remote };
            learned.learn((0, minor), reach);
            assert_eq!(learned.reach((0, minor)), reach);
        }
        learned.learn((0, 300), Reach::Unknown);
        assert_eq!(learned.reach((0, 300)), Reach::Unknown);
        learned.forget();
        assert_eq!(learned.reach((0, 199)), Reach::Unknown);
    }
}
