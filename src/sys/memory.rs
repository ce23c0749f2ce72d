//! The process's memory: that it stays where it is, what the C library keeps of it for later, and for musl an allocator that
//! is none of its.

use std::io;

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

use super::privilege;

/// Its bit (capabilities(7)).
const CAP_IPC_LOCK: u8 = 14;

/// Instead of musl's, all of whose threads share a lock: a listener that waits for it lets go of the program it holds.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Has each thread get its memory in an arena of its own, also where there are more threads than the GNU C library has
/// arenas for, which is eight for each CPU: two that share one share its lock, and a listener that waits for it lets go of
/// the program it holds. An arena takes address space, and memory only as far as it is used.
pub fn own_arenas() {
    /// More than the daemon ever has threads, but for a host of very many CPUs, for which there are arenas anyway.
    #[cfg(target_env = "gnu")]
    const ARENAS: libc::c_int = 128;
    #[cfg(target_env = "gnu")]
    if std::thread::available_parallelism().is_ok_and(|cpus| cpus.get() < 16) {
        // SAFETY: mallopt(3) takes two numbers; this is called before there are other threads.
        unsafe {
            libc::mallopt(libc::M_ARENA_MAX, ARENAS);
        }
    }
}

/// Gives what was freed back to the kernel. The GNU C library keeps it otherwise, wherever something still in use lies
/// behind it; the other allocator does so by itself.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) takes a number and may be called at any time from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Keeps the process's memory in place: what there is now is read in, and what comes later stays once it is used
/// (mlockall(2)). So no thread waits for a disk because the kernel, short of memory or to spare some, took away pages of the
/// program, which it can read again from its file, or put others into the swap area.
///
/// EPERM: RLIMIT_MEMLOCK without CAP_IPC_LOCK, with which nothing is locked: at the limit no more memory could be had. Before
/// Linux 4.4, which would fill all that comes later at once, stacks and arenas included, only what there is now stays.
pub fn stay() -> io::Result<()> {
    let limit = getrlimit(Resource::RLIMIT_MEMLOCK)?.0;
    if limit != RLIM_INFINITY && !privilege::has_capability(CAP_IPC_LOCK) {
        return Err(io::Error::from_raw_os_error(libc::EPERM));
    }
    lock(libc::MCL_CURRENT)?;
    match lock(libc::MCL_FUTURE | libc::MCL_ONFAULT) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        other => other,
    }
}

fn lock(flags: libc::c_int) -> io::Result<()> {
    // SAFETY: mlockall(2) takes flags and changes the contents of no memory.
    super::check(unsafe { libc::mlockall(flags) })?;
    Ok(())
}
