//! Being heard again after others took back what this process had asked for.
//!
//! The kernel keeps one number of listeners for the whole host and sends events while it is above zero. Whoever may send
//! requests can lower it: before 6.6 by an IGNORE, from 6.6 on by one after a request that means nothing, and as often
//! as he likes, far below zero. Then no listener hears anything, without an error. A request is answered only while the
//! number is above zero, so its answer tells whether it is, and the number can be raised until it is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::filter;
use super::subscription::{ConnectorSocket, SubscriptionError, lock_subscribed, random, register, silence};
use super::wire::Operation;

/// How long the number is raised, at about a million a second.
const INSISTENCE: Duration = Duration::from_secs(3);
/// The receive buffer of a socket that gets answers only.
const SMALL_BUFFER: usize = 64 << 10;
/// `PROC_EVENT_COREDUMP`: the rarest kind of event, for a socket that wants none.
const RAREST: u32 = 0x4000_0000;
/// `PROC_EVENT_ALL`, and what may be added to it: the kernel's filter lets its answer through to a socket that wants every
/// kind, and to no other.
const ALL: u32 = u32::MAX;

impl ConnectorSocket {
    /// Subscribes until the kernel answers; how often.
    pub(super) fn insist(&self) -> Result<u32, SubscriptionError> {
        let deadline = Instant::now() + INSISTENCE;
        let mut asked = 0;
        // The answer comes from within send(2).
        while !self.ask_once_more()? {
            asked += 1;
            if Instant::now() > deadline {
                return Err(silence());
            }
        }
        Ok(asked + 1)
    }

    /// Raises the kernel's number by one; true if it is above zero now.
    fn ask_once_more(&self) -> Result<bool, SubscriptionError> {
        // From 6.6 on a socket counts again only after another request.
        self.send(Operation::Nothing, None, 0)?;
        let ack = random();
        self.send(Operation::Listen, None, ack)?;
        Ok(self.answer(ack, Duration::ZERO)?.is_some())
    }

    /// True if the kernel counts a listener, whosoever it is.
    fn is_answered(&self) -> Result<bool, SubscriptionError> {
        let ack = random();
        self.send(Operation::Nothing, None, ack)?;
        Ok(self.answer(ack, Duration::ZERO)?.is_some())
    }

    /// True if the kernel counts sockets and not requests, as from 6.6 on: it knows the request that names kinds.
    fn is_known_by_kind(&self) -> Result<bool, SubscriptionError> {
        let ack = random();
        self.send(Operation::Listen, Some(ALL), ack)?;
        Ok(self.answer(ack, Duration::ZERO)?.is_some())
    }
}

/// Restores the subscriptions of this process.
#[derive(Debug, Default)]
pub struct Restorer {
    socket: Option<Arc<ConnectorSocket>>,
}

impl Restorer {
    /// Makes the kernel count all subscriptions of this process again, if it counts none at all. True if that was so.
    pub fn restore(&mut self) -> Result<bool, SubscriptionError> {
        let socket = match &self.socket {
            Some(socket) => Arc::clone(socket),
            None => ConnectorSocket::open(&filter::answers(), SMALL_BUFFER)?,
        };
        if socket.is_answered()? {
            return Ok(false);
        }
        let raised = socket.insist()?;
        if self.socket.is_none() {
            register(Arc::clone(&socket), None);
            self.socket = Some(Arc::clone(&socket));
        }
        // Each will be taken back at the end, so each has to count, or others would be deaf then.
        let by_kind = socket.is_known_by_kind()?;
        let others = lock_subscribed()
            .iter()
            .filter(|(other, kinds)| !Arc::ptr_eq(other, &socket) && (by_kind || kinds.is_none()))
            .count();
        for _ in 0..others {
            socket.ask_once_more()?;
        }
        socket.narrow(RAREST)?;
        log::warn!(
            "the kernel counted {} too few listeners to process events: somebody has taken back more than he had asked for",
            u64::from(raised) + others as u64
        );
        Ok(true)
    }
}
