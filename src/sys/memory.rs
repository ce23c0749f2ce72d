//! Memory that the C library keeps for later.

/// Gives what was freed back to the kernel. The GNU C library keeps it otherwise, wherever something still in use lies
/// behind it; others have no such call.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) takes a number and may be called at any time from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
