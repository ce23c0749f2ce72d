//! `[health]` and `[metrics]`.

use std::path::PathBuf;
use std::time::Duration;

/// `[health]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// A listener that saw nothing for so long is tried with a canary; `None`: never.
    pub canary: Option<Duration>,
    /// How often a record tells how the daemon is; `None`: never.
    pub heartbeat: Option<Duration>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { canary: Some(Duration::from_secs(60)), heartbeat: None }
    }
}

/// `[metrics]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metrics {
    /// The file for node_exporter; `None`: none.
    pub textfile: Option<PathBuf>,
    /// How often it is written.
    pub every: Duration,
    /// The control socket also answers HTTP.
    pub http: bool,
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics { textfile: None, every: Duration::from_secs(15), http: false }
    }
}
