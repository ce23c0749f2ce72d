//! Stage two: what /proc says about a program that was just executed.
//!
//! In: a pid from the connector. Out: a [`Exec`](exec::Exec) in a reused slot. `capture` runs on the listener's thread
//! while the program is held: it reads the executable and the arguments, asks the rules whether any could match, and
//! only then reads the details. `snapshot` does the same for the processes that already run at the start.
//!
//! A process that has gone (ENOENT, ESRCH) is an ordinary answer, not an error: what could not be read is `None`.

pub mod capture;
pub mod container;
pub mod details;
pub mod entry;
pub mod exec;
pub mod file;
pub mod names;
pub mod overlay;
pub mod parse;
mod pin;
pub mod place;
pub mod proc_dir;
pub mod queue;
pub mod relatives;
pub mod ring;
pub mod snapshot;
