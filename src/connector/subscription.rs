//! Opening connector sockets, subscribing, and saying why it does not work.
//!
//! One socket subscribes with the 4-byte request, which every kernel answers. The others send the 8-byte request that
//! names the kinds they want: kernels from 6.6 then spare them the rest; older ones ignore it without an answer, and
//! deliver all the same because the first subscription switched the events on for every bound socket.
//!
//! A kernel before 6.6 counts requests, not sockets, and one from 6.6 does not notice that a subscribed socket was
//! closed: so each LISTEN is taken back by exactly one IGNORE, on every way out ([`ignore_all`]).

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use libc::sock_filter;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_CONNECTOR};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, setsockopt, sockopt};

use super::wire::{self, Kind, Operation, Request};
use crate::sys;

/// How long the kernel's answer to a subscription is waited for. It comes from within send(2); the rest is a slow host.
const ANSWER_DEADLINE: Duration = Duration::from_secs(2);

/// Why process events cannot be had.
#[derive(Debug)]
pub enum SubscriptionError {
    /// The kernel has no CONFIG_CONNECTOR.
    NoConnector,
    /// The kernel has CONFIG_CONNECTOR but no CONFIG_PROC_EVENTS.
    NoProcessEvents,
    /// CAP_NET_ADMIN in the initial user namespace is missing.
    NotPermitted,
    /// The connector lives in the initial network namespace only.
    NetworkNamespace,
    /// The kernel ignores subscribers outside the initial pid namespace.
    PidNamespace,
    /// The kernel ignores subscribers outside the initial user namespace.
    UserNamespace,
    /// No answer, and no known reason for it.
    NoAnswer,
    /// The kernel refused the request with another errno.
    Refused(io::Error),
    /// A system call failed.
    Call(&'static str, io::Error),
}

impl std::fmt::Display for SubscriptionError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("cannot listen to process events: ")?;
        match self {
            Self::NoConnector => f.write_str(
                "the kernel has no netlink connector; it must be built with CONFIG_CONNECTOR=y and CONFIG_PROC_EVENTS=y",
            ),
            Self::NoProcessEvents => f.write_str(
                "the kernel has no CONFIG_PROC_EVENTS (/proc/net/connector lists no cn_proc); it must be built with it",
            ),
            Self::NotPermitted => f.write_str(
                "permission denied; run execwatch as root with CAP_NET_ADMIN in the initial user namespace",
            ),
            Self::NetworkNamespace => f.write_str(
                "this is not the host's network namespace, where alone the kernel sends them; start execwatch there \
                 (docker: --network host, systemd: PrivateNetwork=no)",
            ),
            Self::PidNamespace => f.write_str(
                "this is not the host's pid namespace, and the kernel ignores subscribers elsewhere; start execwatch \
                 there (docker: --pid host)",
            ),
            Self::UserNamespace => f.write_str(
                "this is not the host's user namespace, and the kernel ignores subscribers elsewhere; start execwatch \
                 there (docker: --userns host, systemd: PrivateUsers=no)",
            ),
            Self::NoAnswer => write!(
                f,
                "the kernel did not answer the subscription within {} s, and neither its configuration nor the namespaces \
                 tell why",
                ANSWER_DEADLINE.as_secs()
            ),
            Self::Refused(error) => write!(f, "the kernel refused the subscription: {error}"),
            Self::Call(call, error) => write!(f, "{call} failed: {error}"),
        }
    }
}

impl std::error::Error for SubscriptionError {}

/// A bound connector socket.
#[derive(Debug)]
pub struct ConnectorSocket {
    socket: Socket,
    /// Size of the receive buffer in bytes, as the kernel counts it (twice what was asked, socket(7)).
    pub receive_buffer: usize,
}

impl AsFd for ConnectorSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A socket and the request that subscribed it: what [`ignore_all`] has to take back.
type Subscribed = (Arc<ConnectorSocket>, Option<u32>);

/// Every subscription of this process.
static SUBSCRIBED: Mutex<Vec<Subscribed>> = Mutex::new(Vec::new());

impl ConnectorSocket {
    /// Opens a socket that takes what `filter` accepts. `receive_buffer` is in bytes.
    ///
    /// The filter is attached before the bind: from then on events arrive if anybody on the host listens.
    pub fn open(filter: &[sock_filter], receive_buffer: usize) -> Result<Arc<Self>, SubscriptionError> {
        let mut socket = Socket::new(NETLINK_CONNECTOR).map_err(|error| match error.raw_os_error() {
            Some(libc::EPROTONOSUPPORT) => SubscriptionError::NoConnector,
            _ => SubscriptionError::Call("socket", error),
        })?;
        let receive_buffer = set_receive_buffer(&socket, receive_buffer)
            .map_err(|error| SubscriptionError::Call("setting the receive buffer", error.into()))?;
        sys::netlink::attach_filter(socket.as_fd(), filter)
            .map_err(|error| SubscriptionError::Call("attaching the socket filter", error))?;
        // Port 0: the kernel chooses one, so that several sockets of a process do not collide.
        socket.bind(&SocketAddr::new(0, 1)).map_err(|error| match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => SubscriptionError::NotPermitted,
            _ => SubscriptionError::Call("bind", error),
        })?;
        Ok(Arc::new(ConnectorSocket { socket, receive_buffer }))
    }

    /// Replaces the filter; the kernel does so between two messages.
    pub fn set_filter(&self, filter: &[sock_filter]) -> io::Result<()> {
        sys::netlink::attach_filter(self.as_fd(), filter)
    }

    /// Receives one datagram into `buffer`: its length and the sender's port, which is 0 for the kernel.
    pub fn receive(&self, mut buffer: &mut [u8]) -> io::Result<(usize, u32)> {
        let (length, sender) = self.socket.recv_from(&mut buffer, 0)?;
        Ok((length, sender.port_number()))
    }

    /// Events that the kernel discarded at this socket for want of room; `None` before Linux 4.12, which does not tell.
    pub fn dropped(&self) -> Option<u64> {
        sys::netlink::drops(self.as_fd()).ok().map(u64::from)
    }

    /// Makes [`receive`](Self::receive) give up with `WouldBlock` after `timeout`.
    pub fn set_receive_timeout(&self, timeout: Duration) -> io::Result<()> {
        let timeout = nix::sys::time::TimeVal::new(timeout.as_secs() as _, timeout.subsec_micros().into());
        Ok(setsockopt(self, sockopt::ReceiveTimeout, &timeout)?)
    }

    /// Makes [`receive`](Self::receive) give up with `WouldBlock` at once.
    pub fn set_non_blocking(&self) -> io::Result<()> {
        self.socket.set_non_blocking(true)
    }

    /// Subscribes with the request that every kernel knows, and waits for the answer.
    pub fn subscribe(self: &Arc<Self>) -> Result<(), SubscriptionError> {
        let ack = random();
        self.send(Operation::Listen, None, ack)?;
        register(Arc::clone(self), None);
        let outcome = match self.wait_for_answer(ack) {
            // Others may have taken more subscriptions back than they had made.
            Err(SubscriptionError::NoAnswer) => self.insist().map(|_| ()),
            outcome => outcome,
        };
        if outcome.is_err() {
            // Nothing was subscribed, so there is nothing to take back.
            lock_subscribed().retain(|(socket, _)| !Arc::ptr_eq(socket, self));
        }
        outcome
    }

    /// Asks the kernel to spare this socket all but `events`. Kernels before 6.6 ignore it; the filter stays in force.
    ///
    /// There is no answer to wait for: the narrower mask holds it back as well.
    pub fn narrow(self: &Arc<Self>, events: u32) -> Result<(), SubscriptionError> {
        self.send(Operation::Listen, Some(events), 0)?;
        let known = lock_subscribed().iter().any(|(socket, _)| Arc::ptr_eq(socket, self));
        if !known {
            register(Arc::clone(self), Some(events));
        }
        Ok(())
    }

    /// Ends this socket's subscription: the kernel sends it nothing more.
    pub fn ignore(self: &Arc<Self>) {
        let mut subscribed = lock_subscribed();
        if let Some(at) = subscribed.iter().position(|(socket, _)| Arc::ptr_eq(socket, self)) {
            take_back(&subscribed.swap_remove(at));
        }
    }

    pub(super) fn send(
        &self,
        operation: Operation,
        events: Option<u32>,
        ack: u32,
    ) -> Result<(), SubscriptionError> {
        let datagram = Request { operation, events, ack }.to_datagram();
        match self.socket.send_to(&datagram, &SocketAddr::new(0, 0), 0) {
            Ok(_) => Ok(()),
            Err(error) => Err(match error.raw_os_error() {
                Some(libc::ECONNREFUSED) if in_initial_network_namespace() => SubscriptionError::NoConnector,
                Some(libc::ECONNREFUSED) => SubscriptionError::NetworkNamespace,
                Some(libc::EPERM) => SubscriptionError::NotPermitted,
                _ => SubscriptionError::Call("sending the subscription", error),
            }),
        }
    }

    fn wait_for_answer(&self, ack: u32) -> Result<(), SubscriptionError> {
        match self.answer(ack, ANSWER_DEADLINE)? {
            Some(0) => Ok(()),
            Some(libc::EPERM) => Err(SubscriptionError::NotPermitted),
            Some(error) => Err(SubscriptionError::Refused(io::Error::from_raw_os_error(error))),
            None => Err(silence()),
        }
    }

    /// The errno in the kernel's answer to the request that had this number, 0 for none; `None` if it does not answer in
    /// time, as it does while it counts no listener.
    pub(super) fn answer(&self, ack: u32, patience: Duration) -> Result<Option<i32>, SubscriptionError> {
        let deadline = Instant::now() + patience;
        let mut buffer = [0; sys::netlink::Batch::DATAGRAM];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
            let mut waited = [PollFd::new(self.as_fd(), PollFlags::POLLIN)];
            match poll(&mut waited, timeout) {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(nix::errno::Errno::EINTR) => continue,
                Err(error) => return Err(SubscriptionError::Call("poll", error.into())),
            }
            let (length, sender) = match self.receive(&mut buffer) {
                Ok(received) => received,
                // An overrun says nothing about the answer, which may still be queued.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => continue,
                Err(error) => return Err(SubscriptionError::Call("receiving the answer", error)),
            };
            if sender != 0 {
                continue;
            }
            // Answers are sent to every listener of the host: only the number tells which is ours.
            let mut messages = wire::messages(&buffer[..length.min(buffer.len())]).flatten();
            let answer = messages.find(|message| message.ack == ack.wrapping_add(1));
            if let Some(wire::Message {
                event: wire::ProcessEvent { kind: Kind::Answer { error }, .. },
                ..
            }) = answer
            {
                return Ok(Some(error as i32));
            }
        }
    }
}

/// Takes every subscription of this process back. Safe to call more than once and from a panic.
pub fn ignore_all() {
    // A panic while the lock is held must not end in a deadlock; the list is read whole either way.
    let mut subscribed = match SUBSCRIBED.try_lock() {
        Ok(subscribed) => subscribed,
        Err(std::sync::TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(std::sync::TryLockError::WouldBlock) => return,
    };
    for subscription in subscribed.drain(..) {
        take_back(&subscription);
    }
}

fn take_back((socket, events): &Subscribed) {
    if let Err(error) = socket.send(Operation::Ignore, *events, 0) {
        log::warn!("could not end the subscription: {error}");
    }
}

pub(super) fn register(socket: Arc<ConnectorSocket>, events: Option<u32>) {
    lock_subscribed().push((socket, events));
}

pub(super) fn lock_subscribed() -> std::sync::MutexGuard<'static, Vec<Subscribed>> {
    SUBSCRIBED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Answers go to every listener of the host: a random number tells ours.
pub(super) fn random() -> u32 {
    RandomState::new().build_hasher().finish() as u32
}

/// SO_RCVBUFFORCE is not bounded by net.core.rmem_max but needs CAP_NET_ADMIN; the plain option is the fallback.
fn set_receive_buffer(socket: &Socket, bytes: usize) -> nix::Result<usize> {
    if setsockopt(socket, sockopt::RcvBufForce, &bytes).is_err() {
        setsockopt(socket, sockopt::RcvBuf, &bytes)?;
    }
    getsockopt(socket, sockopt::RcvBuf)
}

/// The reason for an unanswered subscription, as far as the host tells.
pub(super) fn silence() -> SubscriptionError {
    // The numbers are fixed in the kernel (include/linux/proc_ns.h): PROC_PID_INIT_INO, PROC_USER_INIT_INO.
    if !in_namespace("pid", 0xEFFF_FFFC) {
        SubscriptionError::PidNamespace
    } else if !in_namespace("user", 0xEFFF_FFFD) {
        SubscriptionError::UserNamespace
    } else if connector_lists_process_events() == Some(false) {
        SubscriptionError::NoProcessEvents
    } else {
        SubscriptionError::NoAnswer
    }
}

/// False only if /proc says so: a /proc without namespaces (before 3.8) has only the initial ones.
fn in_namespace(kind: &str, inode: u64) -> bool {
    match std::fs::read_link(format!("/proc/self/ns/{kind}")) {
        Ok(link) => link.to_string_lossy() == format!("{kind}:[{inode}]"),
        Err(_) => true,
    }
}

/// /proc/net/connector exists in the initial network namespace only, and there as soon as CONFIG_CONNECTOR does.
fn in_initial_network_namespace() -> bool {
    std::fs::exists("/proc/net/connector").unwrap_or(true)
}

/// Whether /proc/net/connector lists cn_proc; `None` if there is no such file.
fn connector_lists_process_events() -> Option<bool> {
    let list = std::fs::read_to_string("/proc/net/connector").ok()?;
    Some(list.lines().any(|line| line.starts_with("cn_proc")))
}

impl AsRawFd for ConnectorSocket {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.socket.as_raw_fd()
    }
}
