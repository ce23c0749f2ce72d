//! Files reached through /proc: links into a caller's buffer, statx(2) without waiting, and opening and reading that never
//! wait for a file system.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// readlinkat(2) into `buffer`: the number of bytes, at most the buffer's length (then the target may be cut).
///
/// nix's wrapper allocates a string for each call; the listeners must not.
pub fn read_link_at(dir: BorrowedFd<'_>, name: &CStr, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: `name` is NUL-terminated, and the pointer and length describe the borrowed buffer.
    let length =
        unsafe { libc::readlinkat(dir.as_raw_fd(), name.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) };
    if length < 0 { Err(io::Error::last_os_error()) } else { Ok(length as usize) }
}

/// What the kernel says of a file.
///
/// Device and inode are those of stat(2). On btrfs and overlayfs the device differs from that of the mount and from what
/// /proc/PID/maps and audit show, so it is only ever compared with what stat said of another file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Status {
    /// Major and minor number of the device; the major number is 0 for a file system without a block device.
    pub device: (u32, u32),
    /// Inode number.
    pub inode: u64,
    /// Type and permissions.
    pub mode: u32,
    /// Hard links; 0 if it was unlinked.
    pub links: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Bytes.
    pub size: u64,
    /// When the content was modified, in nanoseconds since 1970. Its owner can set it.
    pub modified_ns: i64,
    /// When content, name, owner or mode was changed, in nanoseconds since 1970.
    pub changed_ns: i64,
    /// The id of the mount, as in mountinfo; `None` before Linux 5.8.
    pub mount: Option<u64>,
}

/// The kernel has no statx(2) (before 4.11), or a seccomp filter refuses it.
static NO_STATX: AtomicBool = AtomicBool::new(false);

/// statx(2) of `name` in `dir`, links followed; of the descriptor itself if `name` is empty.
///
/// AT_STATX_DONT_SYNC: a network file system answers from what it has. Without statx, fstatat(2), for which it may ask
/// its server.
pub fn status_at(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<Status> {
    let empty = if name.is_empty() { libc::AT_EMPTY_PATH } else { 0 };
    if !NO_STATX.load(Relaxed) {
        match statx(dir, name, empty | libc::AT_STATX_DONT_SYNC | libc::AT_NO_AUTOMOUNT) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
                NO_STATX.store(true, Relaxed);
            }
            result => return result,
        }
    }
    // SAFETY: all-zero is a value of this plain C structure.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: `name` is NUL-terminated; `stat` lives across the call.
    super::check(unsafe { libc::fstatat(dir.as_raw_fd(), name.as_ptr(), &raw mut stat, empty) })?;
    #[allow(clippy::unnecessary_cast, reason = "the types differ between architectures")]
    Ok(Status {
        device: (libc::major(stat.st_dev) as u32, libc::minor(stat.st_dev) as u32),
        inode: stat.st_ino as u64,
        mode: stat.st_mode as u32,
        links: u32::try_from(stat.st_nlink).unwrap_or(u32::MAX),
        uid: stat.st_uid,
        gid: stat.st_gid,
        size: stat.st_size as u64,
        modified_ns: nanoseconds(stat.st_mtime as i64, stat.st_mtime_nsec as i64),
        changed_ns: nanoseconds(stat.st_ctime as i64, stat.st_ctime_nsec as i64),
        mount: None,
    })
}

fn statx(dir: BorrowedFd<'_>, name: &CStr, flags: libc::c_int) -> io::Result<Status> {
    /// STATX_MNT_ID (include/uapi/linux/stat.h), since Linux 5.8.
    const MOUNT: u32 = 0x1000;
    // SAFETY: all-zero is a value of this plain C structure.
    let mut answer: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: `name` is NUL-terminated; the kernel writes one `struct statx`, whose size is fixed at 256 bytes. By
    // number, because older C libraries have no wrapper.
    let result = unsafe {
        libc::syscall(
            libc::SYS_statx,
            dir.as_raw_fd(),
            name.as_ptr(),
            flags,
            libc::STATX_BASIC_STATS | MOUNT,
            &raw mut answer,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Status {
        device: (answer.stx_dev_major, answer.stx_dev_minor),
        inode: answer.stx_ino,
        mode: answer.stx_mode.into(),
        links: answer.stx_nlink,
        uid: answer.stx_uid,
        gid: answer.stx_gid,
        size: answer.stx_size,
        modified_ns: nanoseconds(answer.stx_mtime.tv_sec, answer.stx_mtime.tv_nsec.into()),
        changed_ns: nanoseconds(answer.stx_ctime.tv_sec, answer.stx_ctime.tv_nsec.into()),
        mount: (answer.stx_mask & MOUNT != 0).then_some(answer.stx_mnt_id),
    })
}

fn nanoseconds(seconds: i64, nanoseconds: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}

/// Reads the beginning of a file as far as it is in memory, without waiting for a disk (RWF_NOWAIT, preadv2(2), since Linux
/// 4.14).
///
/// EAGAIN: it is not in memory. Unsupported: an older kernel, or a file system that cannot tell. By number, because the C
/// library has preadv2 only since glibc 2.26.
pub fn read_cached(file: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    const RWF_NOWAIT: libc::c_int = 8;
    let parts = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // An offset in two halves, of which 64-bit kernels ignore the second.
    let offset: libc::c_long = 0;
    // SAFETY: the one part describes the borrowed buffer.
    let result = unsafe {
        libc::syscall(libc::SYS_preadv2, file.as_raw_fd(), &raw const parts, 1, offset, offset, RWF_NOWAIT)
    };
    if result >= 0 {
        return Ok(result as usize);
    }
    let error = io::Error::last_os_error();
    Err(match error.raw_os_error() {
        Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL | libc::EPERM) => {
            io::ErrorKind::Unsupported.into()
        }
        _ => error,
    })
}

/// memfd_create(2), close-on-exec, to be sealed or not. By number, because the C library has it only since glibc 2.27.
pub fn anonymous_file(name: &CStr) -> io::Result<OwnedFd> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: `name` is NUL-terminated.
    let result = unsafe { libc::syscall(libc::SYS_memfd_create, name.as_ptr(), flags) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us; nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(result as libc::c_int) })
}

/// Opens `path` below `dir` with O_PATH if that needs no file system to do anything: all its folders and links are in the
/// kernel's cache (RESOLVE_CACHED, openat2(2), since Linux 5.12). An absolute path and links begin at `dir` if `in_root`.
///
/// EAGAIN: not in the cache. ENOSYS, EINVAL: an older kernel.
pub fn open_cached(dir: BorrowedFd<'_>, path: &CStr, in_root: bool) -> io::Result<OwnedFd> {
    const RESOLVE_NO_MAGICLINKS: u64 = 0x02;
    const RESOLVE_IN_ROOT: u64 = 0x10;
    const RESOLVE_CACHED: u64 = 0x20;
    // SAFETY: all-zero is a value of this plain C structure.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (libc::O_PATH | libc::O_CLOEXEC) as u64;
    how.resolve = RESOLVE_NO_MAGICLINKS | RESOLVE_CACHED | if in_root { RESOLVE_IN_ROOT } else { 0 };
    // SAFETY: `path` is NUL-terminated; `how` lives across the call and its size is given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_openat2,
            dir.as_raw_fd(),
            path.as_ptr(),
            &raw const how,
            size_of::<libc::open_how>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just returned this descriptor, which nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(result as libc::c_int) })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn what_is_not_in_memory_is_not_read() {
        let mut file = tempfile::tempfile_in("/var/tmp").unwrap();
        file.write_all(&[7; 5000]).unwrap();
        let mut buffer = [0; 4096];
        let mut read = |file: &File| read_cached(file.as_fd(), &mut buffer).map_err(|error| error.kind());
        assert!(matches!(read(&file), Ok(4096) | Err(io::ErrorKind::Unsupported)));
        file.sync_all().unwrap();
        let advice = nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED;
        nix::fcntl::posix_fadvise(&file, 0, 0, advice).unwrap();
        // File systems in memory keep it, and not every one of the others can tell.
        let without_waiting = read(&file);
        let told =
            matches!(without_waiting, Err(io::ErrorKind::WouldBlock | io::ErrorKind::Unsupported) | Ok(4096));
        assert!(told, "{without_waiting:?}");
        file.set_len(100).unwrap();
        assert_eq!(nix::sys::uio::pread(&file, &mut buffer, 0), Ok(100));
        assert!(matches!(
            read_cached(file.as_fd(), &mut buffer).map_err(|error| error.kind()),
            Ok(100) | Err(io::ErrorKind::Unsupported)
        ));
        assert_eq!(buffer[0], 7);
    }
}
