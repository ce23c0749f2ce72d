//! Capabilities of the calling thread, and memory that cannot become code.

use std::io;

/// CAP_IPC_LOCK by its bit (capabilities(7)).
pub const IPC_LOCK: u8 = 14;

/// Header of capget(2) and capset(2).
#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

impl Header {
    /// _LINUX_CAPABILITY_VERSION_3 (include/uapi/linux/capability.h), since Linux 2.6.26, of the calling thread.
    const OWN: Header = Header { version: 0x2008_0522, pid: 0 };
}

/// 32 capabilities.
#[repr(C)]
#[derive(Clone, Copy)]
struct Sets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// The sets of the calling thread, the low half first.
fn own_sets() -> io::Result<[Sets; 2]> {
    let mut header = Header::OWN;
    let mut sets = [Sets { effective: 0, permitted: 0, inheritable: 0 }; 2];
    // SAFETY: version 3 means two of these structures, which the kernel fills.
    let result = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, sets.as_mut_ptr()) };
    super::check(result as libc::c_int)?;
    Ok(sets)
}

/// The capabilities that the calling thread has in effect, as a mask of their bits (capabilities(7)).
pub fn effective() -> io::Result<u64> {
    let [low, high] = own_sets()?;
    Ok(u64::from(high.effective) << 32 | u64::from(low.effective))
}

/// Keeps the capabilities whose bits are set in `mask`, of those that the calling thread has, and gives up all others for
/// it, for the threads that it starts and for whatever these execute (the bounding, inheritable and ambient sets).
pub fn keep_capabilities(mask: u64) -> io::Result<()> {
    for number in 0..64 {
        if mask & 1 << number != 0 {
            continue;
        }
        // SAFETY: plain integers.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number as libc::c_ulong, 0, 0, 0) } < 0 {
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                // The kernel has no more.
                Some(libc::EINVAL) => break,
                // Without CAP_SETPCAP the set stays as it is, which whoever took that away has chosen.
                Some(libc::EPERM) => break,
                _ => return Err(error),
            }
        }
    }
    // SAFETY: plain integers. EINVAL before Linux 4.3, which has no ambient set.
    unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) };
    let mut sets = own_sets()?;
    for (sets, kept) in sets.iter_mut().zip([mask as u32, (mask >> 32) as u32]) {
        let kept = sets.permitted & kept;
        *sets = Sets { effective: kept, permitted: kept, inheritable: 0 };
    }
    let mut header = Header::OWN;
    // SAFETY: as for capget(2); the kernel only reads.
    super::check(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, sets.as_ptr()) } as libc::c_int)?;
    Ok(())
}

/// From now on no memory of the process can become executable that was not when it was mapped, nor be mapped writable and
/// executable (PR_SET_MDWE, since Linux 6.3; EINVAL before).
pub fn refuse_new_code() -> io::Result<()> {
    const PR_SET_MDWE: libc::c_int = 65;
    const REFUSE_EXEC_GAIN: libc::c_ulong = 1;
    // SAFETY: plain integers.
    super::check(unsafe { libc::prctl(PR_SET_MDWE, REFUSE_EXEC_GAIN, 0, 0, 0) })?;
    Ok(())
}
