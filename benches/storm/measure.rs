//! Figures: time of processors, memory and wake-ups of a process, tags in a monitor's output, medians and percentiles.

use std::time::{Duration, Instant};

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use procfs::process::Process;

use crate::{Result, interrupt};

fn nanoseconds(time: TimeSpec) -> u64 {
    time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
}

/// CLOCK_MONOTONIC in nanoseconds.
pub(crate) fn monotonic_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, nanoseconds)
}

/// CLOCK_REALTIME in nanoseconds since 1970.
pub(crate) fn realtime_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_REALTIME).map_or(0, nanoseconds)
}

/// CPU time of a process in nanoseconds, over all its threads and also those that have ended. It is the sum of the first
/// fields of /proc/PID/task/*/schedstat, to the moment.
pub(crate) fn cpu_ns(pid: i32) -> Result<u64> {
    Ok(nanoseconds(clock_gettime(clock_getcpuclockid(Pid::from_raw(pid))?)?))
}

/// Memory of a process in KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Memory {
    /// VmRSS.
    pub(crate) resident: u64,
    /// VmHWM.
    pub(crate) peak: u64,
}

/// Memory of a process.
pub(crate) fn memory(pid: i32) -> Result<Memory> {
    let status = Process::new(pid)?.status()?;
    Ok(Memory { resident: status.vmrss.unwrap_or(0), peak: status.vmhwm.unwrap_or(0) })
}

/// Voluntary context switches of all threads of a process: each was followed by a wake-up.
pub(crate) fn wakeups(pid: i32) -> Result<u64> {
    let mut sum = 0;
    for task in Process::new(pid)?.tasks()? {
        sum += task?.status()?.voluntary_ctxt_switches.unwrap_or(0);
    }
    Ok(sum)
}

/// Waits until processes use hardly any CPU time, which they do when nothing is left to be done. False if they never did
/// within the limit: then others keep them busy, or a storm was too much for them.
pub(crate) fn wait_until_quiet(pids: &[i32], limit: Duration) -> Result<bool> {
    const WINDOW: Duration = Duration::from_millis(200);
    const HARDLY_NS: u64 = 2_000_000;
    let sum = || pids.iter().map(|&pid| cpu_ns(pid)).sum::<Result<u64>>();
    let deadline = Instant::now() + limit;
    let mut last = sum()?;
    while Instant::now() < deadline {
        interrupt::sleep(WINDOW)?;
        let now = sum()?;
        if now.saturating_sub(last) < HARDLY_NS {
            return Ok(true);
        }
        last = now;
    }
    Ok(false)
}

/// How many of the arguments `TAG-0` to `TAG-(n-1)` were seen.
#[derive(Debug)]
pub(crate) struct Tags {
    prefix: Vec<u8>,
    seen: Vec<bool>,
}

impl Tags {
    /// None seen yet.
    pub(crate) fn new(tag: &str, execs: u32) -> Self {
        Tags { prefix: format!("{tag}-").into_bytes(), seen: vec![false; execs as usize] }
    }

    /// Notes every one in a monitor's output.
    pub(crate) fn find_in(&mut self, output: &[u8]) {
        let Some((&first, others)) = self.prefix.split_first() else { return };
        let mut at = 0;
        while let Some(found) = output[at..].iter().position(|&byte| byte == first) {
            at += found + 1;
            let Some(rest) = output[at..].strip_prefix(others) else { continue };
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let number =
                std::str::from_utf8(&rest[..digits]).ok().and_then(|text| text.parse::<usize>().ok());
            if let Some(seen) = number.and_then(|number| self.seen.get_mut(number)) {
                *seen = true;
            }
        }
    }

    /// How many were seen.
    pub(crate) fn count(&self) -> u64 {
        self.seen.iter().filter(|seen| **seen).count() as u64
    }
}

/// The middle of the values; the mean of the two middle ones of an even number. `None` of none.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        length if length % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

/// The value that `part` (0 to 1) of the sorted values do not exceed (nearest rank).
pub(crate) fn percentile(sorted: &[f64], part: f64) -> Option<f64> {
    let rank = (part * sorted.len() as f64).ceil().max(1.0) as usize;
    sorted.get(rank - 1).copied()
}
