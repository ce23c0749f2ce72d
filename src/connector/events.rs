//! Forks and exits of processes: one socket with a large buffer, drained in batches.
//!
//! They are not urgent, so no event wakes anybody: a timer drains the queue. The socket is also the one that holds the
//! subscription every kernel understands.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use super::subscription::{ConnectorSocket, SubscriptionError};
use super::wire::{self, Kind, what};
use super::{filter, listener};
use crate::sys::netlink::Batch;

/// Datagrams a system call; 256 of 128 bytes are 32 KiB.
const BATCH: usize = 256;
/// Datagrams a call of [`EventSocket::drain`] takes at most, so that a fork storm cannot hold its caller for ever.
const DRAIN_LIMIT: usize = 1 << 17;

/// What was drained.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Processes made.
    pub forks: u64,
    /// Processes ended.
    pub exits: u64,
    /// Times the queue had overflowed.
    pub overruns: u64,
    /// Datagrams that did not come from the kernel or were not process events.
    pub strange: u64,
}

/// The socket for forks and exits.
#[derive(Debug)]
pub struct EventSocket {
    socket: Arc<ConnectorSocket>,
    batch: Batch,
}

impl EventSocket {
    /// Opens the socket and subscribes. `receive_buffer` is in bytes.
    pub fn open(receive_buffer: usize) -> Result<Self, SubscriptionError> {
        let socket = ConnectorSocket::open(&filter::forks_and_exits(), receive_buffer)?;
        socket.subscribe()?;
        socket.narrow(what::FORK | what::EXIT)?;
        Ok(EventSocket { socket, batch: Batch::new(BATCH) })
    }

    /// Size of the receive buffer, as the kernel counts it.
    pub fn receive_buffer(&self) -> usize {
        self.socket.receive_buffer
    }

    /// Forks and exits that the kernel discarded for want of room since the start, if it tells.
    pub fn dropped(&self) -> Option<u64> {
        self.socket.dropped()
    }

    /// Takes what has come since the last time and counts it.
    pub fn drain(&mut self) -> io::Result<Drained> {
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
                    match message.map(|message| message.event.kind) {
                        Ok(Kind::Fork { .. }) => drained.forks += 1,
                        Ok(Kind::Exit { .. }) => drained.exits += 1,
                        // Answers to the requests of other listeners are sent to everybody.
                        Ok(Kind::Answer { .. }) => {}
                        Ok(_) | Err(_) => drained.strange += 1,
                    }
                }
            }
            if received == 0 {
                break;
            }
            taken += received;
        }
        Ok(drained)
    }
}
