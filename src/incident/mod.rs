//! Incidents: alerts that belong together, and everything else that happened around them, as one story.
//!
//! In: alerts, follow-ups and folded records, and the light record of every exec. Out: the id that an alert carries, a
//! database of incidents, a notice and a notification when one opens or becomes more severe.
//!
//! On the worker's thread, the [`desk`] collects: an alert joins a [group](collect) if it has a [key](keys) of it, and a
//! group opens as an incident once its [score] is high enough. Everything that it [keeps](kept) goes to the
//! [`keeper`]'s thread, which alone writes the [database](store). Whoever asks reads that, and the
//! [`tell`](tell::story) makes a [`Story`](story::Story) of it, with what is there [`now`] and the
//! [answers](questions) to what an administrator asks first. Who looks on with `execwatch watch` reads what is
//! [`open`] from the keeper, not from the database. After a restart, [`collect`] goes on with what is not closed.

pub mod arguments;
pub mod collect;
pub mod desk;
pub mod export;
pub mod keeper;
pub mod kept;
pub mod keys;
mod lines;
pub mod notify;
pub mod now;
pub mod numbered;
pub mod open;
pub mod questions;
pub mod report;
pub mod score;
pub mod show;
pub(crate) mod shown;
mod span;
pub mod store;
pub mod story;
pub mod tell;
mod tree;

use std::time::Duration;

/// `[incident]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Alerts become incidents.
    pub enabled: bool,
    /// How long after its last alert an incident takes another, in nanoseconds.
    pub window_ns: u64,
    /// The score from which on there is an incident.
    pub score: u8,
    /// How long an incident is kept after its last alert, in seconds.
    pub keep_s: u64,
    /// Bytes of the database.
    pub max_size: u64,
    /// Who is told.
    pub notify: Option<Notify>,
}

/// `[incident.notify]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notify {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// How long it may take.
    pub time_limit: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            enabled: true,
            window_ns: 900_000_000_000,
            score: 40,
            keep_s: 90 * 86_400,
            max_size: 256 << 20,
            notify: None,
        }
    }
}
