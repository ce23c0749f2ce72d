//! The clocks of the kernel's stamps.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use nix::time::{ClockId, clock_gettime};

use crate::baseline::days::Now;

fn read(clock: ClockId) -> u64 {
    // These clocks exist on every kernel that Rust's standard library runs on.
    clock_gettime(clock).map_or(0, |time| time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
}

/// CLOCK_MONOTONIC in nanoseconds: the clock of connector events; it stops in suspend.
pub fn monotonic_ns() -> u64 {
    read(ClockId::CLOCK_MONOTONIC)
}

/// CLOCK_REALTIME in nanoseconds since 1970.
pub fn realtime_ns() -> u64 {
    read(ClockId::CLOCK_REALTIME)
}

/// CLOCK_BOOTTIME in nanoseconds: the clock of start times in /proc/PID/stat; it counts suspend.
pub fn boottime_ns() -> u64 {
    read(ClockId::CLOCK_BOOTTIME)
}

/// The moment, as days are counted by it.
pub fn now() -> Now {
    Now { wall_s: realtime_ns() / 1_000_000_000, boot_s: boottime_ns() / 1_000_000_000 }
}

/// The wall-clock time of an event stamp, by today's distance between the two clocks.
pub fn wall_from_monotonic(stamp_ns: u64) -> u64 {
    realtime_ns().saturating_sub(monotonic_ns().saturating_sub(stamp_ns))
}

/// The wall-clock time of a start time in ticks since boot, by today's distance between the clocks. No finer than a tick, and
/// by the same distance until the clock is set, so that a process has the same whenever it is asked for.
pub fn wall_from_start_ticks(ticks: u64) -> u64 {
    let wall_ns = booted_ns().saturating_add(since_boot_ns(ticks));
    wall_ns - wall_ns % since_boot_ns(1).max(1)
}

/// The wall-clock time of the boot. No two readings of two clocks are quite the same, so the first one stays until another is
/// further from it than readings are.
fn booted_ns() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    const NOISE_NS: u64 = 1_000_000;
    let last = LAST.load(Relaxed);
    let now = booted_by_now_ns();
    if now.abs_diff(last) <= NOISE_NS {
        return last;
    }
    LAST.store(now, Relaxed);
    now
}

fn booted_by_now_ns() -> u64 {
    /// Whoever is not preempted between has read two clocks by then.
    const AT_ONCE_NS: u64 = 2000;
    const TRIES: usize = 5;
    let mut best = (u64::MAX, 0);
    for _ in 0..TRIES {
        let before = boottime_ns();
        let booted = realtime_ns().saturating_sub(before);
        best = best.min((boottime_ns().saturating_sub(before), booted));
        if best.0 < AT_ONCE_NS {
            break;
        }
    }
    best.1
}

/// The CLOCK_MONOTONIC time of a start time in ticks since boot: exact to a tick.
pub fn monotonic_from_start_ticks(ticks: u64) -> u64 {
    since_boot_ns(ticks).saturating_sub(boottime_ns().saturating_sub(monotonic_ns()))
}

/// A CLOCK_MONOTONIC time as a start time in ticks since boot.
pub fn start_ticks_from_monotonic(time_ns: u64) -> u64 {
    let since_boot_ns = time_ns.saturating_add(boottime_ns().saturating_sub(monotonic_ns()));
    let ticks = u128::from(since_boot_ns) * u128::from(procfs::ticks_per_second()) / 1_000_000_000;
    u64::try_from(ticks).unwrap_or(u64::MAX)
}

fn since_boot_ns(ticks: u64) -> u64 {
    let nanoseconds = u128::from(ticks) * 1_000_000_000 / u128::from(procfs::ticks_per_second().max(1));
    u64::try_from(nanoseconds).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_time_is_the_same_whenever_it_is_asked_for() {
        let first = wall_from_start_ticks(12_345);
        assert!((0..10_000).all(|_| wall_from_start_ticks(12_345) == first));
        assert!(wall_from_start_ticks(12_346) > first && first.is_multiple_of(1_000_000));
        assert!(first <= booted_ns() + since_boot_ns(12_345));
    }
}
