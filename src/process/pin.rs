//! Keeps a held program on its CPU while its details are read.
//!
//! The listener has the program's CPU, so the program waits; but the scheduler may let it run on another one. Idle CPUs
//! do not pull a task that ran within the last `sched_migration_cost`, with one exception: where real-time threads take
//! a good part of a CPU (more than about 15 %, `imbalance_pct` in kernel/sched/fair.c), the only ordinary task waiting
//! there is pushed to an idle CPU at once, however hot it is. A storm of alerts is just that. Measured with one spawner
//! and every exec an alert: 33 of 12,000 programs escaped and ended before they were read, and 2 with the pin. Where
//! nothing matches, the listener is done in a quarter of the time and takes less than that part: 0 of 80,000 escaped
//! without a pin, so only what a rule could match pays the 4 us, and what is
//! executed just after it.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// A program that may run only on one CPU, until this is dropped.
#[derive(Debug)]
pub(super) struct Pinned {
    pid: Pid,
    /// Where it may run afterwards.
    before: CpuSet,
}

impl Pinned {
    /// Pins a program to the CPU that it was executed on. `None` if that is refused, or needless.
    pub(super) fn new(pid: u32, cpu: u32, online: &[u32]) -> Option<Pinned> {
        let pid = Pid::from_raw(i32::try_from(pid).ok()?);
        let mut here = CpuSet::new();
        here.set(usize::try_from(cpu).ok()?).ok()?;
        let before = sched_getaffinity(pid).ok()?;
        if before == here {
            return None;
        }
        sched_setaffinity(pid, &here).ok()?;
        Some(Pinned { pid, before: widened(before, online) })
    }
}

/// A mask of all CPUs that are online becomes one of all that there could be: set by name, it would keep the program from
/// CPUs that come later, as an inherited one does not. Where some are kept free (`isolcpus`, `CPUAffinity=`), no mask is of
/// all, and stays as it is.
fn widened(mask: CpuSet, online: &[u32]) -> CpuSet {
    if online.is_empty() || !online.iter().all(|&cpu| mask.is_set(cpu as usize) == Ok(true)) {
        return mask;
    }
    let mut every = CpuSet::new();
    for cpu in 0..CpuSet::count() {
        // Within the set's own count no number is refused.
        let _ = every.set(cpu);
    }
    every
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // ESRCH: it was killed meanwhile, which is nobody's loss.
        let _ = sched_setaffinity(self.pid, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(cpus: &[usize]) -> CpuSet {
        let mut set = CpuSet::new();
        cpus.iter().for_each(|&cpu| set.set(cpu).unwrap());
        set
    }

    #[test]
    fn a_mask_of_all_is_widened_and_another_is_kept() {
        assert_eq!(widened(set(&[0, 2]), &[0, 1, 2]), set(&[0, 2]));
        assert_eq!(widened(set(&[0, 1]), &[]), set(&[0, 1]));
        let wide = widened(set(&[0, 1]), &[0, 1]);
        assert!(wide.is_set(0) == Ok(true) && wide.is_set(CpuSet::count() - 1) == Ok(true));
    }

    #[test]
    fn a_child_is_pinned_and_let_go() {
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let pid = Pid::from_raw(child.id() as i32);
        let before = sched_getaffinity(pid).unwrap();
        let pinned = Pinned::new(child.id(), 0, &[]);
        let here = sched_getaffinity(pid).unwrap();
        drop(pinned);
        let after = sched_getaffinity(pid).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(here, set(&[0]));
        assert_eq!(after, before);
    }
}
