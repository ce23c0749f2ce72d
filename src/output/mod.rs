//! Stage six: where records go.
//!
//! Each output has a thread of its own, which reads the [journal](crate::journal) at its own position: one that is slow,
//! full or gone delays neither the others nor the worker. What an output could not take is counted and said.

pub mod backoff;
pub mod delivery;
pub mod entry;
pub mod file;
pub mod sender;
pub mod short_json;
pub mod stdout;
pub mod syslog;

use std::io;

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
    /// Records that were taken but not handed on yet.
    fn held(&self) -> u64 {
        0
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
