//! One listener: a thread that receives exec events and hands each to its sink while the program is held.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use nix::sched::sched_getcpu;
use nix::unistd::gettid;

use super::subscription::ConnectorSocket;
use super::wire::{self, Kind};
use crate::health::ListenerCounters;

/// The netlink port of the kernel. Anybody may send to a listener's port: what has another sender is forged.
pub const KERNEL: u32 = 0;

/// How long a listener waits before it looks around. Receiving, even in vain, also clears a queue that the kernel marked
/// as congested just after it had been emptied.
const LOOK_AROUND: Duration = Duration::from_secs(5);
/// Far less than the daemon's RLIMIT_RTTIME.
const SLEEP_EVERY: Duration = Duration::from_secs(1);

/// An exec event on its way to a sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExecNotice {
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// The CPU on which the program was executed.
    pub cpu: u32,
    /// CLOCK_MONOTONIC in nanoseconds.
    pub timestamp_ns: u64,
    /// The listener runs in SCHED_FIFO on the CPU of the exec'ing task, so the task waits until the listener blocks.
    pub held: bool,
}

/// What takes exec events, on the listener's thread: it must not block, and a held program waits for it.
pub trait ExecSink: Send {
    /// Takes an event.
    fn exec(&mut self, notice: ExecNotice);

    /// Nothing came yet, or for some seconds, or something woke the listener.
    fn idle(&mut self) {}
}

/// Which events of its socket a listener owns, by CPU and time: at a hand-over both sockets get the same event.
pub trait Ownership: Send {
    /// True if the event is this listener's.
    fn owns(&self, cpu: u32, timestamp_ns: u64) -> bool;
}

/// A listener's thread.
pub(super) struct Listener<O> {
    pub socket: Arc<ConnectorSocket>,
    pub stop: Arc<AtomicBool>,
    /// Another thread has taken its place: what it receives now is not to be taken any more.
    pub replaced: Arc<AtomicBool>,
    pub counters: Arc<ListenerCounters>,
    pub sink: Box<dyn ExecSink>,
    pub ownership: O,
    /// The CPU this thread is pinned to in SCHED_FIFO.
    pub exact_cpu: Option<u32>,
}

/// The calling thread is on this CPU: its mask may have been changed from outside (cpuset, taskset).
fn runs_on(cpu: u32) -> bool {
    sched_getcpu().is_ok_and(|here| u32::try_from(here) == Ok(cpu))
}

/// Has the kernel make the thread's stack, deeper than it gets, before a program waits for that.
#[inline(never)]
fn touch_stack() {
    const DEPTH: usize = 64 * 1024;
    std::hint::black_box([0u8; DEPTH].as_mut_slice());
}

impl<O: Ownership> Listener<O> {
    /// Receives until told to stop; then takes what is still queued.
    pub(super) fn run(mut self) -> io::Result<()> {
        self.socket.set_receive_timeout(LOOK_AROUND)?;
        self.counters.thread.store(gettid().as_raw(), Relaxed);
        touch_stack();
        self.sink.idle();
        let mut draining = false;
        let mut slept = Instant::now();
        let mut buffer = [0; crate::sys::netlink::Batch::DATAGRAM];
        loop {
            // What is received is read even if a successor was placed meanwhile, who has the same socket and will not get it.
            let received = self.socket.receive(&mut buffer);
            self.counters.turn();
            // Programs of other CPUs may come without an end; who never sleeps is ended by RLIMIT_RTTIME.
            if self.exact_cpu.is_none() && slept.elapsed() > SLEEP_EVERY {
                std::thread::sleep(Duration::from_micros(1));
                slept = Instant::now();
            }
            match received {
                Ok((length, sender)) => self.datagram(&buffer[..length.min(buffer.len())], sender),
                Err(error) => match error.raw_os_error() {
                    Some(libc::ENOBUFS) => {
                        self.counters.overruns.fetch_add(1, Relaxed);
                    }
                    Some(libc::EAGAIN) if draining => return Ok(()),
                    Some(libc::EAGAIN | libc::EINTR) => self.sink.idle(),
                    _ => return Err(error),
                },
            }
            self.counters.turn();
            if self.replaced.load(Relaxed) {
                return Ok(());
            }
            if !draining && self.stop.load(Relaxed) {
                draining = true;
                self.socket.set_non_blocking()?;
            }
        }
    }

    fn datagram(&mut self, bytes: &[u8], sender: u32) {
        if sender != KERNEL {
            self.counters.forged.fetch_add(1, Relaxed);
            return;
        }
        for message in wire::messages(bytes) {
            match message {
                Ok(wire::Message { event, .. }) => match event.kind {
                    Kind::Exec { tgid } if self.ownership.owns(event.cpu, event.timestamp_ns) => {
                        self.counters.execs.fetch_add(1, Relaxed);
                        self.counters.last_event_ns.store(event.timestamp_ns, Relaxed);
                        self.sink.exec(ExecNotice {
                            pid: tgid,
                            cpu: event.cpu,
                            timestamp_ns: event.timestamp_ns,
                            held: self.exact_cpu == Some(event.cpu) && runs_on(event.cpu),
                        });
                    }
                    Kind::Exec { .. } | Kind::Answer { .. } => {}
                    Kind::Fork { .. } | Kind::Exit { .. } | Kind::User { .. } | Kind::Other { .. } => {
                        self.counters.unexpected.fetch_add(1, Relaxed);
                    }
                },
                Err(_) => {
                    self.counters.malformed.fetch_add(1, Relaxed);
                }
            }
        }
    }
}
