//! Stage one: process events from the kernel's netlink process connector.
//!
//! In: datagrams of the connector. Out: the events, to the listeners' owner. `wire` decodes and encodes and `filter`
//! builds socket filters, both without I/O; `subscription` opens sockets and tells why it cannot; `listeners` runs one
//! thread per CPU so that no program is missed, `replace` and `restore` make one that sees nothing see again; `events`
//! drains forks and exits in batches.

pub mod events;
pub mod filter;
pub mod listener;
pub mod listeners;
mod placing;
pub mod replace;
pub mod restore;
pub mod stuck;
pub mod subscription;
pub mod wire;
