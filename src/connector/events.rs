//! What happens to processes as a whole: forks, exits and changes of user, on one socket with a large buffer, drained in
//! batches.
//!
//! They are not urgent, so no event wakes anybody: a timer drains the queue, or whoever needs to know what led to an
//! exec. The socket is also the one that holds the subscription every kernel understands.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use super::subscription::{ConnectorSocket, SubscriptionError};
use super::wire::{self, Kind, what};
use super::{filter, listener};
use crate::sys::netlink::Batch;

/// Datagrams a system call; 256 of 128 bytes are 32 KiB.
const BATCH: usize = 256;
/// Datagrams a call of [`EventSocket::drain`] takes at most: those behind a fork storm take several calls.
const DRAIN_LIMIT: usize = 1 << 14;

/// An event of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessChange {
    /// CLOCK_MONOTONIC in nanoseconds.
    pub time_ns: u64,
    /// The process.
    pub pid: u32,
    /// What happened.
    pub change: Change,
}

/// What happened to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It was made by this one.
    MadeBy(u32),
    /// It ended, with a wait status: `code << 8 | signal`.
    Ended(u32),
    /// It has these user ids from now on: real and effective.
    User([u32; 2]),
}

/// What was drained.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Processes made.
    pub forks: u64,
    /// Processes ended.
    pub exits: u64,
    /// Times the queue had overflowed.
    pub overruns: u64,
    /// Datagrams that did not come from the kernel or were not events of processes.
    pub strange: u64,
    /// The limit of a call was reached: there is probably more.
    pub more: bool,
}

/// The socket.
#[derive(Debug)]
pub struct EventSocket {
    socket: Arc<ConnectorSocket>,
    batch: Batch,
}

impl EventSocket {
    /// Opens the socket and subscribes. `receive_buffer` is in bytes.
    pub fn open(receive_buffer: usize) -> Result<Self, SubscriptionError> {
        let socket = ConnectorSocket::open(&filter::of_processes(), receive_buffer)?;
        socket.subscribe()?;
        socket.narrow(what::FORK | what::EXIT | what::UID)?;
        Ok(EventSocket { socket, batch: Batch::new(BATCH) })
    }

    /// Size of the receive buffer, as the kernel counts it.
    pub fn receive_buffer(&self) -> usize {
        self.socket.receive_buffer
    }

    /// Events that the kernel discarded for want of room since the start, if it tells.
    pub fn dropped(&self) -> Option<u64> {
        self.socket.dropped()
    }

    /// Takes what has come since the last time and gives each event to `take`.
    pub fn drain(&mut self, mut take: impl FnMut(ProcessChange)) -> io::Result<Drained> {
        let mut drained = Drained::default();
        let mut taken = 0;
        while taken < DRAIN_LIMIT {
            let mut received = 0;
            let datagrams = match self.batch.receive(self.socket.as_fd()) {
                Ok(datagrams) => datagrams,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    // Reported once, ahead of what is still queued; the kernel discards until the queue is empty.
                    drained.overruns += 1;
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            for datagram in datagrams {
                received += 1;
                if datagram.sender != listener::KERNEL {
                    drained.strange += 1;
                    continue;
                }
                for message in wire::messages(datagram.bytes) {
                    let Ok(wire::Message { event, .. }) = message else {
                        drained.strange += 1;
                        continue;
                    };
                    let (pid, change) = match event.kind {
                        Kind::Fork { parent_tgid, child_tgid, .. } => {
                            drained.forks += 1;
                            (child_tgid, Change::MadeBy(parent_tgid))
                        }
                        Kind::Exit { tgid, code, .. } => {
                            drained.exits += 1;
                            (tgid, Change::Ended(code))
                        }
                        Kind::User { tgid, real, effective, .. } => (tgid, Change::User([real, effective])),
                        // Answers to the requests of other listeners are sent to everybody.
                        Kind::Answer { .. } => continue,
                        Kind::Exec { .. } | Kind::Other { .. } => {
                            drained.strange += 1;
                            continue;
                        }
                    };
                    take(ProcessChange { time_ns: event.timestamp_ns, pid, change });
                }
            }
            if received < BATCH {
                return Ok(drained);
            }
            taken += received;
        }
        drained.more = true;
        Ok(drained)
    }
}
