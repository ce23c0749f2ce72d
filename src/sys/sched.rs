//! Scheduling of the calling thread. CPU affinity is nix's.

use std::io;

/// Real-time priorities of SCHED_FIFO (sched(7)).
pub const FIFO_PRIORITIES: std::ops::RangeInclusive<u8> = 1..=99;

/// Puts a thread, 0 for the calling one, into SCHED_FIFO with `priority` (1 to 99).
///
/// SCHED_RESET_ON_FORK keeps a child process from inheriting it. EPERM: CAP_SYS_NICE or RLIMIT_RTPRIO is missing, or
/// the thread's cpu cgroup has no real-time run time (CONFIG_RT_GROUP_SCHED).
pub fn set_fifo(thread: libc::pid_t, priority: u8) -> io::Result<()> {
    set(thread, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, priority)
}

/// The priority of a thread in SCHED_FIFO; `None` if it is in another policy. By number, as [`set_fifo`].
pub fn fifo(thread: libc::pid_t) -> io::Result<Option<u8>> {
    let mut priority: libc::c_int = 0;
    // SAFETY: plain integers, and one that the kernel writes.
    let (policy, result) = unsafe {
        (
            libc::syscall(libc::SYS_sched_getscheduler, thread),
            libc::syscall(libc::SYS_sched_getparam, thread, &raw mut priority),
        )
    };
    if policy < 0 || result < 0 {
        return Err(io::Error::last_os_error());
    }
    let fifo = policy as libc::c_int & !libc::SCHED_RESET_ON_FORK == libc::SCHED_FIFO;
    Ok(u8::try_from(priority).ok().filter(|_| fifo))
}

/// Puts a thread of this process back into SCHED_OTHER, out of the way of every other.
///
/// It keeps SCHED_RESET_ON_FORK, which [`set_fifo`] gave it: taking that away needs CAP_SYS_NICE.
pub fn set_other(thread: libc::pid_t) -> io::Result<()> {
    set(thread, libc::SCHED_OTHER | libc::SCHED_RESET_ON_FORK, 0)
}

/// sched_setscheduler(2) of a thread; 0 is the calling one. By number, because musl has a function of that name that
/// always fails.
fn set(thread: libc::pid_t, policy: libc::c_int, priority: u8) -> io::Result<()> {
    // The kernel's `struct sched_param`, to which musl's adds fields.
    let priority = libc::c_int::from(priority);
    // SAFETY: `priority` outlives the call, and is all that the kernel reads.
    let result = unsafe { libc::syscall(libc::SYS_sched_setscheduler, thread, policy, &raw const priority) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// How often the calling thread has slept: gave its CPU up to wait for something (`ru_nvcsw`, getrusage(2)).
pub fn sleeps() -> i64 {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_THREAD);
    usage.map_or(0, |usage| usage.voluntary_context_switches())
}

/// Sets the nice value (-20 to 19) of the calling thread: on Linux the value belongs to the thread (setpriority(2)).
pub fn set_nice(nice: i32) -> io::Result<()> {
    // SAFETY: plain integers; `who` 0 with PRIO_PROCESS is the calling thread.
    super::check(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_sleeps() {
        let before = sleeps();
        std::thread::sleep(std::time::Duration::from_millis(1));
        assert!(sleeps() > before);
    }
}
