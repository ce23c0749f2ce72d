//! What is measured: execwatch, its C prototype, and other tools that see executed programs.
//!
//! Each monitor is started, waited for until it hears, watched during a storm, and ended in good order before its output is
//! counted, so that nothing it still held back is missed.

mod audit;
pub(crate) mod execwatch;
mod peers;
mod process;
mod prototype;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use clap::ValueEnum;

use crate::Result;
use crate::measure::Tags;
use process::Process;

/// How long a monitor may take until it hears, and until it has ended.
const START_LIMIT: Duration = Duration::from_secs(30);
const END_LIMIT: Duration = Duration::from_secs(30);

/// A monitor's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// No monitor: what the others' slow-down is a ratio to
    None,
    /// This package's daemon
    Execwatch,
    /// The same without incidents: what they cost is the difference
    NoIncidents,
    /// The C prototype of its capture
    Prototype,
    /// forkstat -e exec
    Forkstat,
    /// extrace -f
    Extrace,
    /// A bpftrace script at the entry of execve
    Bpftrace,
    /// auditd with a rule for execve
    Audit,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::None => "none",
            Kind::Execwatch => "execwatch",
            Kind::NoIncidents => "no-incidents",
            Kind::Prototype => "prototype",
            Kind::Forkstat => "forkstat",
            Kind::Extrace => "extrace",
            Kind::Bpftrace => "bpftrace",
            Kind::Audit => "audit",
        }
    }
}

/// What monitors need.
#[derive(Debug)]
pub(crate) struct Lab<'a> {
    /// A folder for everything.
    pub(crate) folder: &'a Path,
    /// What storms spawn.
    pub(crate) target: &'a Path,
    /// Rules that the daemon has besides the shipped ones: a folder of TOML files.
    pub(crate) rules: Option<&'a Path>,
    /// The compiled prototype, if there is a C compiler.
    pub(crate) prototype: Option<PathBuf>,
}

/// What a monitor captured of a storm.
#[derive(Debug, Clone, Default)]
pub(crate) struct Captured {
    /// Programs of the storm whose arguments it has.
    pub(crate) execs: u64,
    /// What else there is to say.
    pub(crate) notes: Vec<String>,
}

/// A monitor that hears. Dropped, it is killed.
pub(crate) trait Monitor {
    /// The processes whose CPU time is the monitor's; the first is the one whose memory is.
    fn pids(&self) -> Vec<i32>;

    /// Remembers what was counted before the storm.
    fn begin(&mut self) -> Result<()> {
        Ok(())
    }

    /// Ends the monitor and counts what it captured of a storm of `execs` programs.
    fn finish(self: Box<Self>, tags: Tags, execs: u32) -> Result<Captured>;
}

/// Starts a monitor and waits until it hears; `None` for no monitor.
pub(crate) fn start(kind: Kind, lab: &Lab<'_>) -> Result<Option<Box<dyn Monitor>>> {
    Ok(Some(match kind {
        Kind::None => return Ok(None),
        Kind::Execwatch => Box::new(execwatch::Setup::shipped(lab)?.start()?),
        Kind::NoIncidents => Box::new(execwatch::Setup::shipped(lab)?.without_incidents().start()?),
        Kind::Prototype => Box::new(prototype::start(lab)?),
        Kind::Forkstat => Box::new(peers::forkstat(lab)?),
        Kind::Extrace => Box::new(peers::extrace(lab)?),
        Kind::Bpftrace => Box::new(peers::bpftrace(lab)?),
        Kind::Audit => Box::new(audit::start(lab)?),
    }))
}

/// Why a monitor cannot be measured here, if it cannot.
pub(crate) fn obstacle(kind: Kind, lab: &Lab<'_>) -> Option<String> {
    let missing = |program: &str| {
        let found =
            Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        found.is_err().then(|| format!("{program} is not installed"))
    };
    match kind {
        Kind::None | Kind::Execwatch | Kind::NoIncidents => None,
        Kind::Prototype if lab.prototype.is_none() => Some("there is no gcc that compiles it".to_owned()),
        Kind::Prototype => None,
        Kind::Forkstat => missing("forkstat"),
        Kind::Extrace => missing("extrace"),
        Kind::Bpftrace => missing("bpftrace"),
        Kind::Audit => missing("auditd").or_else(|| missing("auditctl")).or_else(audit::obstacle),
    }
}

/// Compiles the prototype, if there is a compiler.
pub(crate) fn compile_prototype(folder: &Path) -> Option<PathBuf> {
    prototype::compile(folder)
}

/// An error that says which program said what.
fn failure(process: &Process, what: &str) -> Box<dyn std::error::Error> {
    format!("{} {what}: {}", process.name(), process.errors().trim()).into()
}
