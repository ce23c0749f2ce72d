//! Capabilities of the calling thread, and memory that cannot become code.

use std::io;

/// Keeps the capabilities whose bits are set in `mask`, of those that the calling thread has, and gives up all others for
/// it, for the threads that it starts and for whatever these execute (the bounding, inheritable and ambient sets).
pub fn keep_capabilities(mask: u64) -> io::Result<()> {
    /// _LINUX_CAPABILITY_VERSION_3 (include/uapi/linux/capability.h), since Linux 2.6.26.
    const VERSION: u32 = 0x2008_0522;
    #[repr(C)]
    struct Header {
        version: u32,
        pid: libc::c_int,
    }
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
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
    let mut header = Header { version: VERSION, pid: 0 };
    let mut data = [Data { effective: 0, permitted: 0, inheritable: 0 }; 2];
    // SAFETY: version 3 means two of these structures, which the kernel fills; pid 0 is the calling thread.
    if unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    for (data, kept) in data.iter_mut().zip([mask as u32, (mask >> 32) as u32]) {
        let kept = data.permitted & kept;
        *data = Data { effective: kept, permitted: kept, inheritable: 0 };
    }
    // SAFETY: as above; the kernel only reads.
    if unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) } < 0 {
        return Err(io::Error::last_os_error());
    }
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
