//! The daemon's configuration file.
//!
//! The shipped `config/execwatch.toml` is its manual: it names every key with its default, and a test keeps it true.

mod baseline;
mod capture;
mod fold;
mod follow;
mod hardening;
mod health;
mod incident;
mod journal;
mod lineage;
mod output;
mod remote;
mod response;
mod syslog;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use capture::Capture;
pub use hardening::Hardening;
pub use output::{File, Format, Output, Stdout};
pub use remote::{Framing, Remote, Server, Tls, Transport};
pub use syslog::{Header, Journald, Priorities, Protocol, Syslog};

use crate::baseline::decision::Settings;
use crate::diagnostics::{Diagnostic, Diagnostics, Level, Source};
use crate::document::{Document, Section};
use crate::followup;
use crate::lineage::table::Limits;
use crate::rules::found::Found;
use crate::rules::load::{Places, read_trusted};
use crate::trust::Trust;

/// The shipped configuration file.
pub const SHIPPED: &str = include_str!("../../config/execwatch.toml");
/// Where the configuration file is looked for.
pub const DEFAULT_PATH: &str = "/etc/execwatch/execwatch.toml";
/// Where an administrator's utilities, rules and exceptions are looked for.
pub const DEFAULT_FOLDERS: [&str; 3] =
    ["/etc/execwatch/utilities.d", "/etc/execwatch/rules.d", "/etc/execwatch/exceptions.d"];

const NS_PER_S: u64 = 1_000_000_000;

/// Everything that can be configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// How programs are captured.
    pub capture: Capture,
    /// Bounds of the process table.
    pub lineage: Limits,
    /// What becomes of repeated alerts.
    pub fold: crate::fold::Settings,
    /// What is looked at after an alert.
    pub follow: followup::Settings,
    /// Where rules come from.
    pub rules: Places,
    /// What is normal here.
    pub baseline: Settings,
    /// What alerts together become.
    pub incident: crate::incident::Settings,
    /// What is done about programs.
    pub response: crate::response::Settings,
    /// What is written down before it is sent.
    pub journal: crate::journal::Settings,
    /// Where alerts go.
    pub output: Output,
    /// How the daemon watches itself.
    pub health: crate::health::settings::Settings,
    /// What it tells Prometheus.
    pub metrics: crate::health::settings::Metrics,
    /// Where the daemon keeps what it must remember.
    pub state_folder: PathBuf,
    /// Where it keeps what is over with the next boot: its lock, its control socket, and what responses remember.
    pub runtime_folder: PathBuf,
    /// What it does without, so that a mistake in it does less harm.
    pub hardening: Hardening,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            capture: Capture::default(),
            lineage: lineage::DEFAULT,
            fold: crate::fold::Settings::default(),
            follow: followup::Settings::default(),
            rules: Places {
                builtin: true,
                folders: DEFAULT_FOLDERS.map(PathBuf::from).to_vec(),
                folders_required: false,
            },
            baseline: Settings::default(),
            incident: crate::incident::Settings::default(),
            response: crate::response::Settings::default(),
            journal: crate::journal::Settings::default(),
            state_folder: PathBuf::from("/var/lib/execwatch"),
            runtime_folder: PathBuf::from("/run/execwatch"),
            health: Default::default(),
            metrics: Default::default(),
            hardening: Hardening::default(),
            output: Output::default(),
        }
    }
}

impl Config {
    /// Reads the file at `path`, or the default file if there is one. Mistakes are reported, and their keys keep their
    /// defaults.
    pub fn load(path: Option<&Path>, diagnostics: &Diagnostics) -> Config {
        Config::load_trusted(path, &Trust::unasked(), &Found::default(), diagnostics)
    }

    /// The same, and what there is to say about whom the file belongs to, and about a default file that has gone.
    pub fn load_trusted(
        path: Option<&Path>,
        trust: &Trust,
        found: &Found,
        diagnostics: &Diagnostics,
    ) -> Config {
        match path {
            Some(file) => Config::read(file, trust, None, diagnostics),
            None => Config::read(Path::new(DEFAULT_PATH), trust, Some(found), diagnostics),
        }
    }

    /// Reads a file that need not be there if `found` is told of it.
    fn read(file: &Path, trust: &Trust, found: Option<&Found>, diagnostics: &Diagnostics) -> Config {
        match (read_trusted(file, trust, diagnostics), found) {
            (Ok(text), _) => {
                found.inspect(|found| found.note(file));
                Config::parse(&Source { name: file.display().to_string(), text }, diagnostics)
            }
            (Err(error), Some(found)) if error.kind() == std::io::ErrorKind::NotFound => {
                found.miss(file, diagnostics);
                Config::default()
            }
            (Err(error), _) => {
                let message = format!("cannot read the configuration: {error}");
                diagnostics.push(Diagnostic::whole(Level::Error, file.display().to_string(), message));
                Config::default()
            }
        }
    }

    /// Reads a configuration text.
    pub fn parse(source: &Source, diagnostics: &Diagnostics) -> Config {
        let mut config = Config::default();
        let document = Document::parse(source, diagnostics);
        let root = document.root(diagnostics);
        if let Some(section) = root.section("capture", "[capture]") {
            config.capture.read(section);
        }
        if let Some(section) = root.section("lineage", "[lineage]") {
            lineage::read(&mut config.lineage, section);
        }
        if let Some(section) = root.section("fold", "[fold]") {
            fold::read(&mut config.fold, section);
        }
        if let Some(section) = root.section("follow", "[follow]") {
            follow::read(&mut config.follow, section);
        }
        if let Some(section) = root.section("rules", "[rules]") {
            if let Some(builtin) = section.flag("builtin") {
                config.rules.builtin = builtin.value;
            }
            if let Some(folders) = section.list("folders") {
                config.rules.folders = folders.iter().map(|folder| PathBuf::from(folder.value)).collect();
                config.rules.folders_required = true;
            }
            section.finish();
        }
        if let Some(section) = root.section("baseline", "[baseline]") {
            baseline::read(&mut config.baseline, section);
        }
        if let Some(section) = root.section("incident", "[incident]") {
            incident::read(&mut config.incident, section);
        }
        if let Some(section) = root.section("response", "[response]") {
            response::read(&mut config.response, section);
        }
        if let Some(section) = root.section("journal", "[journal]") {
            journal::read(&mut config.journal, section);
        }
        if let Some(section) = root.section("output", "[output]") {
            config.output.read(section);
        }
        if let Some(section) = root.section("health", "[health]") {
            health::read(&mut config.health, section);
        }
        if let Some(section) = root.section("metrics", "[metrics]") {
            health::read_metrics(&mut config.metrics, section);
        }
        if let Some(section) = root.section("state", "[state]") {
            set(&mut config.state_folder, absolute_path(&section, "folder"));
            set(&mut config.runtime_folder, absolute_path(&section, "runtime-folder"));
            section.finish();
        }
        if let Some(section) = root.section("hardening", "[hardening]") {
            config.hardening.read(section);
        }
        root.finish();
        config
    }
}

/// Takes a value if there is one.
fn set<T>(target: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *target = value;
    }
}

/// A time of more than nothing, in a unit from milliseconds to hours.
fn moment(text: &str) -> Option<Duration> {
    let at = text.find(|letter: char| !letter.is_ascii_digit())?;
    let (number, unit) = text.split_at(at);
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    let number = number.parse::<u64>().ok().filter(|&number| number > 0)?;
    number.checked_mul(unit_ms).map(Duration::from_millis)
}

fn absolute_path<'d>(section: &Section<'d>, key: &'d str) -> Option<PathBuf> {
    let path = section.string(key)?;
    if path.value.starts_with('/') {
        Some(PathBuf::from(path.value))
    } else {
        section.error(path.span, format!("`{key}` must be an absolute path"));
        None
    }
}
