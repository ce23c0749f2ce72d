//! Memory that the C library keeps for later, and for musl an allocator that is none of its.

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
