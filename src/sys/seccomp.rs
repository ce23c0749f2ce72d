//! Filters of system calls.

use std::io;

/// Puts the calling thread, and those that it starts, under a filter. It must have given up new privileges.
///
/// Refused calls are logged and speculation is left alone (SECCOMP_FILTER_FLAG_LOG since Linux 4.14, _SPEC_ALLOW since
/// 4.17), as far as the kernel knows that. EINVAL: it has no CONFIG_SECCOMP_FILTER, which came with 3.5.
pub fn install(program: &[libc::sock_filter]) -> io::Result<()> {
    const LOG: libc::c_ulong = 2;
    const SPEC_ALLOW: libc::c_ulong = 4;
    let length = libc::c_ushort::try_from(program.len())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "filter program too long"))?;
    let filter = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    for flags in [LOG | SPEC_ALLOW, LOG, 0] {
        // SAFETY: `filter` points at `length` instructions that live across the call; the kernel copies and only reads
        // them.
        let result = unsafe {
            libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const filter)
        };
        if result == 0 {
            return Ok(());
        }
        match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ENOSYS) => break,
            error if error.raw_os_error() == Some(libc::EINVAL) && flags != 0 => {}
            error => return Err(error),
        }
    }
    // Before Linux 3.17.
    // SAFETY: as above.
    super::check(unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) })?;
    Ok(())
}
