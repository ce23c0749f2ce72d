//! The process's memory: that it stays where it is, what the C library keeps of it for later, and for musl an allocator that
//! is none of its.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

use super::privilege;
#[cfg(target_env = "gnu")]
use super::sched;

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

/// [`stay`] locked what is used.
static LOCKED: AtomicBool = AtomicBool::new(false);

/// Gives what was freed back to the kernel. The GNU C library keeps it otherwise, wherever something still in use lies
/// behind it. Memory that is [locked](stay) can be given back by nobody, so it is not for as long as that takes. The other
/// allocator does so by itself, and what is locked it keeps for later.
///
/// It takes the lock of each thread's memory in turn, listeners' too. So for these milliseconds the calling thread comes before
/// all ordinary ones, which would take its CPU away meanwhile and let a listener wait for longer.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    {
        const CALLING: libc::pid_t = 0;
        /// The lowest of real-time priorities: below the listeners'.
        const LOWEST: u8 = 1;
        let locked = LOCKED.load(Relaxed);
        // Where that is refused, nothing is held.
        let before_others = locked && sched::set_fifo(CALLING, LOWEST).is_ok();
        if locked {
            // SAFETY: munlockall(2) changes the contents of no memory.
            unsafe { libc::munlockall() };
        }
        // SAFETY: malloc_trim(3) takes a number and may be called at any time from any thread.
        unsafe { libc::malloc_trim(0) };
        if locked {
            // It was possible before, and what it takes is still there.
            let _ = lock();
        }
        if before_others && let Err(error) = sched::set_other(CALLING) {
            log::warn!("a thread that gave memory back keeps its real-time priority: {error}");
        }
    }
}

/// Keeps the process's memory in place: the files that it runs are read in, and everything else stays once it is used
/// (mlock(2)). So no thread waits for a disk because the kernel, short of memory or to spare some, took away pages of the
/// program, which it can read again from its file, or put others into the swap area.
///
/// EPERM: RLIMIT_MEMLOCK without CAP_IPC_LOCK, with which nothing is locked: at the limit no more memory could be had. Before
/// Linux 4.4, which would fill all memory at once, stacks and arenas included, only the files stay.
pub fn stay() -> io::Result<()> {
    if is_limited() && privilege::effective()? >> privilege::IPC_LOCK & 1 == 0 {
        return Err(io::Error::from_raw_os_error(libc::EPERM));
    }
    lock()
}

fn lock() -> io::Result<()> {
    // SAFETY: mlockall(2) takes flags and changes the contents of no memory.
    let all =
        super::check(unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT) });
    match all {
        Ok(_) => LOCKED.store(true, Relaxed),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
        Err(error) => return Err(error),
    }
    for (from, length) in files(&std::fs::read_to_string("/proc/self/maps")?) {
        // SAFETY: mlock(2) reads in and changes the contents of no memory, whatever range it is given.
        super::check(unsafe { libc::mlock(from as *const libc::c_void, length) })?;
    }
    Ok(())
}

/// Without CAP_IPC_LOCK the process may not lock all its memory (RLIMIT_MEMLOCK).
pub fn is_limited() -> bool {
    getrlimit(Resource::RLIMIT_MEMLOCK).is_ok_and(|(limit, _)| limit != RLIM_INFINITY)
}

/// Where files are mapped that may be read, in the words of proc_pid_maps(5): address and length.
fn files(maps: &str) -> impl Iterator<Item = (usize, usize)> {
    maps.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let (from, to) = words.next()?.split_once('-')?;
        let readable = words.next()?.starts_with('r');
        // After the offset and the device.
        let inode = words.nth(2)?;
        let from = usize::from_str_radix(from, 16).ok()?;
        let length = usize::from_str_radix(to, 16).ok()?.checked_sub(from)?;
        (readable && inode != "0").then_some((from, length))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_that_may_be_read() {
        let maps = "563585962000-563585b5d000 r--p 00000000 fe:00 10313766   /usr/sbin/execwatch\n\
                    563585b5d000-5635861ce000 r-xp 001fa000 fe:00 10313766   /usr/sbin/execwatch\n\
                    5635862ce000-5635862cf000 ---p 00000000 fe:00 10313766   /usr/sbin/execwatch\n\
                    7ffd7c5c4000-7ffd7c5e5000 rw-p 00000000 00:00 0          [stack]\n\
                    ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0  [vsyscall]\n\n";
        let expected = [(0x5635_8596_2000, 0x1f_b000), (0x5635_85b5_d000, 0x67_1000)];
        assert_eq!(files(maps).collect::<Vec<_>>(), expected);
    }
}
