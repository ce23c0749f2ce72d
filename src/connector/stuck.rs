//! Which listeners do not come back from a program they read.
//!
//! A read below /proc/PID may hang: the arguments of a program on memory of a file system whose server is dead (before
//! Linux 4.17), or a mistake in the kernel. A listener that hangs would leave its CPU blind, and one that spins would take
//! it from everyone else. So each counts its rounds, and whoever looks once a tick sees that a count stands still although
//! there is something to do.

use std::sync::atomic::Ordering::Relaxed;

use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::subscription::ConnectorSocket;
use crate::health::ListenerCounters;
use crate::sys;

/// Ticks without a round after which a listener with something to do is stuck. Ticks and not time: after a pause of the
/// whole machine everyone is late.
const STUCK_TICKS: u32 = 3;
/// Ticks after which it is tried once more to replace one that could not be.
const TRY_AGAIN_TICKS: u32 = 60;
/// Threads that may be stuck at once. Each has a stack and buffers; more than that many will not be helped by more.
pub(super) const MOST_STUCK: usize = 32;

/// What was seen of a listener at the last ticks.
#[derive(Debug, Default)]
pub(super) struct Watch {
    rounds: u64,
    ticks: u32,
}

impl Watch {
    /// It is stuck still.
    pub(super) fn stands_still(&self) -> bool {
        self.ticks >= STUCK_TICKS
    }

    /// Looks at a listener; true if it is stuck and should be replaced now.
    pub(super) fn is_stuck(&mut self, counters: &ListenerCounters, socket: &ConnectorSocket) -> bool {
        let rounds = counters.rounds.load(Relaxed);
        self.look(rounds, || readable(socket))
    }

    fn look(&mut self, rounds: u64, waits: impl FnOnce() -> bool) -> bool {
        if rounds != self.rounds {
            *self = Watch { rounds, ticks: 0 };
            return false;
        }
        // Odd while it works; and a socket with events in it should have woken it.
        if rounds.is_multiple_of(2) && !waits() {
            self.ticks = 0;
            return false;
        }
        self.ticks += 1;
        self.ticks % TRY_AGAIN_TICKS == STUCK_TICKS
    }
}

fn readable(socket: &ConnectorSocket) -> bool {
    let mut waited = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    poll(&mut waited, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// A listener that is stuck.
#[derive(Debug)]
pub struct Stuck {
    /// Its CPU; `None` for the one that takes the execs of all others.
    pub cpu: Option<u32>,
    /// It uses its CPU rather than wait for something.
    pub spins: bool,
    /// Why no other took its place.
    pub not_replaced: Option<String>,
}

impl Stuck {
    /// Sees what a stuck listener does.
    pub(super) fn look(cpu: Option<u32>, counters: &ListenerCounters) -> Stuck {
        let thread = counters.thread.load(Relaxed);
        let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat")).unwrap_or_default();
        // The state follows the name, which may hold anything but is ours (proc(5)).
        let spins = stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('R'));
        Stuck { cpu, spins, not_replaced: None }
    }

    /// Takes the real-time priority of a listener away: when it is another's, or if it spins, which would keep the CPU from
    /// everybody. One that waits and that nobody follows needs it when it comes back.
    pub(super) fn demote(&self, counters: &ListenerCounters) {
        if let Err(error) = sys::sched::set_other(counters.thread.load(Relaxed)) {
            log::warn!("a stuck listener keeps its real-time priority: {error}");
        }
    }
}

impl std::fmt::Display for Stuck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.cpu {
            Some(cpu) => write!(f, "the listener of CPU {cpu}")?,
            None => f.write_str("the listener of all other CPUs")?,
        }
        let what = if self.spins { "uses its CPU without an end" } else { "hangs in a read" };
        write!(f, " is stuck: for {STUCK_TICKS} s it {what}")?;
        match &self.not_replaced {
            None => f.write_str(
                "; another took its place; programs executed there meanwhile were read late or not at all",
            ),
            Some(reason) => {
                write!(f, "; nobody takes its place, so programs executed there are not seen: {reason}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_stuck_that_stands_still_with_something_to_do() {
        let ticks = |looks: &[(u64, bool)]| {
            let mut watch = Watch::default();
            looks.iter().map(|&(rounds, waits)| watch.look(rounds, || waits)).collect::<Vec<_>>()
        };
        // Idle for ever.
        assert_eq!(ticks(&[(8, false); 9]), [false; 9]);
        // In the same program.
        assert_eq!(ticks(&[(7, false); 5]), [false, false, false, true, false]);
        // Not woken.
        assert_eq!(ticks(&[(8, true); 4]), [false, false, false, true]);
        // Busy, but it goes round.
        assert_eq!(ticks(&[(1, true), (3, true), (5, true), (7, true), (9, true)]), [false; 5]);
        // A slow one comes back in time.
        assert_eq!(ticks(&[(7, true), (7, true), (7, true), (8, false), (9, true)]), [false; 5]);
    }
}
