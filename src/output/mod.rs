//! Stage six: where records go.
//!
//! Each output has a thread of its own, which reads the [journal](crate::journal) at its own position: one that is slow,
//! full or gone delays neither the others nor the worker. What an output could not take is counted and said.

pub mod backoff;
pub mod delivery;
pub mod entry;
pub mod file;
pub mod journald;
pub mod local;
pub mod message;
pub mod remote;
pub mod rfc5424;
pub mod sender;
pub mod short_json;
pub mod stdout;
pub mod syslog;

use std::io;
use std::time::Duration;

use entry::{Entry, Form};

/// Something records are written to.
///
/// Whatever waits must have a deadline: an attempt that failed is made again, with pauses between. An error means
/// that the same record may be taken later; one that never will be must not be answered with an error, because nothing
/// behind it would be sent.
pub trait Destination: Send {
    /// The output's name and place, for messages; its position in the journal is kept under it.
    fn name(&self) -> String;
    /// The form in which it wants records.
    fn form(&self) -> Form;
    /// Writes a record, or nothing of it.
    fn write(&mut self, entry: &Entry) -> io::Result<()>;
    /// Hands on what was held back.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
    /// How many of the last records that [`write`](Self::write) took have perhaps not arrived, and would be lost if this
    /// process ended now. While it lives the destination itself writes them again where needed.
    fn held(&self) -> u64 {
        0
    }
    /// How many of the records it took since the last call it had to cut, because the host sends no datagram of their
    /// length.
    fn take_cut(&mut self) -> u64 {
        0
    }
    /// After how long without a record [`flush`](Self::flush) wants to be called, because something that was written may
    /// turn out to be lost; `None`: not at all.
    fn next_look(&self) -> Option<Duration> {
        None
    }
    /// Opens the place anew, because it was moved away.
    fn reopen(&mut self) {}
    /// True if this error will never go away.
    fn is_final(&self, _error: &io::Error) -> bool {
        false
    }
    /// After a restart it is sent what it has not been sent; otherwise it begins with what is new.
    fn goes_on_after_restart(&self) -> bool {
        true
    }
}
