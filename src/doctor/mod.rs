//! What this host gives execwatch, and what it lacks, each with its remedy.
//!
//! In: the configuration. Out: [`Finding`]s, in the order in which things are needed. What can be tried is tried: the
//! connector by executing a program on each CPU, real-time scheduling by asking for it, outputs by opening them. Nothing is
//! changed, and a daemon that runs is not disturbed.

mod capture;
mod host;
mod kernel;
mod privileges;

use std::path::Path;

use serde::Serialize;

use crate::config::Config;

/// How good or bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Good,
    /// Worth knowing; nothing has to be done.
    Note,
    /// execwatch works, but not as well as it could.
    Warning,
    /// execwatch cannot work.
    Fatal,
}

impl Level {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Good => "good",
            Level::Note => "note",
            Level::Warning => "warning",
            Level::Fatal => "fatal",
        }
    }
}

/// Something that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is about.
    pub area: &'static str,
    /// How good or bad it is.
    pub level: Level,
    /// What was found.
    pub found: String,
    /// What can be done about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Finding {
    fn good(area: &'static str, found: impl Into<String>) -> Self {
        Finding { area, level: Level::Good, found: found.into(), remedy: None }
    }

    fn note(area: &'static str, found: impl Into<String>) -> Self {
        Finding { level: Level::Note, ..Finding::good(area, found) }
    }

    fn warning(area: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Finding { level: Level::Warning, remedy: Some(remedy.into()), ..Finding::good(area, found) }
    }

    fn fatal(area: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Finding { level: Level::Fatal, remedy: Some(remedy.into()), ..Finding::good(area, found) }
    }
}

/// Looks at everything. `file` is where the configuration was read.
pub fn examine(config: &Config, file: &Path) -> Vec<Finding> {
    let mut findings = kernel::examine(Path::new("/"));
    let privileges = privileges::examine(config);
    let root = privileges.iter().all(|finding| finding.level != Level::Fatal);
    findings.extend(privileges);
    if root {
        findings.extend(capture::examine(config));
    }
    findings.extend(host::examine(config, file));
    findings
}

/// What explains that the daemon could not listen, for its log: everything that is fatal.
pub fn explain_failure() -> Vec<Finding> {
    let mut findings = kernel::examine(Path::new("/"));
    // What is fatal is so by no choice of the configuration.
    findings.extend(privileges::examine(&Config::default()));
    findings.retain(|finding| finding.level == Level::Fatal);
    findings
}

/// The worst of the findings; good if there is none.
pub fn worst(findings: &[Finding]) -> Level {
    findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Good)
}
