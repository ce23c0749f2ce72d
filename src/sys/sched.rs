//! Scheduling of the calling thread. CPU affinity is nix's.

use std::io;

/// Real-time priorities of SCHED_FIFO (sched(7)).
pub const FIFO_PRIORITIES: std::ops::RangeInclusive<u8> = 1..=99;

/// Puts the calling thread into SCHED_FIFO with `priority` (1 to 99).
///
/// SCHED_RESET_ON_FORK keeps a child process from inheriting it. EPERM: CAP_SYS_NICE or RLIMIT_RTPRIO is missing, or
/// the thread's cpu cgroup has no real-time run time (CONFIG_RT_GROUP_SCHED).
pub fn set_fifo(priority: u8) -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: libc::c_int::from(priority) };
    // SAFETY: pid 0 is the calling thread; `parameters` outlives the call.
    super::check(unsafe {
        libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &raw const parameters)
    })?;
    Ok(())
}

/// Puts a thread of this process back into SCHED_OTHER, out of the way of every other.
pub fn set_other(thread: libc::pid_t) -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: `parameters` outlives the call.
    super::check(unsafe { libc::sched_setscheduler(thread, libc::SCHED_OTHER, &raw const parameters) })?;
    Ok(())
}

/// Sets the nice value (-20 to 19) of the calling thread: on Linux the value belongs to the thread (setpriority(2)).
pub fn set_nice(nice: i32) -> io::Result<()> {
    // SAFETY: plain integers; `who` 0 with PRIO_PROCESS is the calling thread.
    super::check(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) })?;
    Ok(())
}
