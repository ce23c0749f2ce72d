//! Stage three: where a program comes from.
//!
//! In: forks, exits and changes of user from the connector, a light record of every exec from the listeners' [`ring`](crate::process::ring)s,
//! and the processes that ran at the start. Out: the true ancestors of a process, as they were when each made the next:
//! a process whose parent has gone keeps it here, whoever /proc says adopted it.
//!
//! [`follow`] keeps the table up to date. The [`table`] is free of I/O and of clocks, and bounded: what it has to give up is counted and is unknown from then
//! on, never guessed.

mod facts;
pub mod follow;
pub mod image;
pub mod recent;
pub mod table;

use std::sync::Arc;

use image::Image;

use crate::process::relatives::Learnt;

/// An ancestor, as it was when it made the next process of the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ancestor {
    /// Process id.
    pub pid: u32,
    /// Start on CLOCK_MONOTONIC in nanoseconds; `None` if the table does not have it.
    pub start_ns: Option<u64>,
    /// Real and effective user id.
    pub uids: Option<[u32; 2]>,
    /// What it showed.
    pub image: Option<Arc<Image>>,
    /// How the image was learnt.
    pub learnt: Learnt,
    /// What it had executed before that, the last first.
    pub earlier: Vec<Arc<Image>>,
    /// It has ended.
    pub ended: bool,
}

/// Where a process comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lineage {
    /// The nearest first.
    pub ancestors: Vec<Ancestor>,
    /// They reach up to a process without a parent.
    pub complete: bool,
    /// What the process itself had executed before, the last first.
    pub earlier: Vec<Arc<Image>>,
}
