//! After the alert: what the program does then.
//!
//! In: alerts that are severe enough, and from the process table when these processes end and what they ran. Out:
//! [`FollowUp`](record::FollowUp) records, tied to the alert by its id: sockets, children, files open for writing, input
//! and output, CPU time, and how it ended.
//!
//! - [`desk`]: the worker's side: who is followed, and what the process table tells of them
//! - [`follow`]: the thread that looks at them
//! - [`plan`]: when it looks
//! - [`look`]: what /proc says of a process at a moment
//! - [`sockets`], [`diag`]: which sockets these are, from /proc/PID/net or from the kernel's sock_diag
//! - [`known`]: the looks folded into one, and what of it is new
//! - [`record`], [`sentence`], [`json`]: the record and its forms
//!
//! Nothing here is on the way of an exec or of an alert: the worker only hands over, and never waits. How many are
//! followed and what a look may cost is bounded, and whoever is not followed is counted.

pub mod desk;
pub mod diag;
pub mod follow;
pub mod json;
pub mod known;
pub mod look;
pub mod plan;
pub mod record;
pub mod sentence;
pub mod sockets;

use std::time::Duration;

use crate::rules::model::Severity;

/// `[follow]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Follow at all.
    pub enabled: bool,
    /// Alerts followed at once.
    pub at_once: usize,
    /// The least severe alerts that are followed.
    pub severity: Severity,
    /// Moments after the exec at which a record may be written, ascending.
    pub after: Vec<Duration>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            enabled: true,
            at_once: 64,
            severity: Severity::Medium,
            after: [100, 1000, 10_000, 60_000].map(Duration::from_millis).to_vec(),
        }
    }
}
