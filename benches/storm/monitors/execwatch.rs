//! The daemon, as cargo built it for this benchmark: with the optimisations of a release.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use serde_json::Value;

use super::process::Process;
use super::{Captured, Lab, Monitor, START_LIMIT};
use crate::Result;
use crate::measure::Tags;

/// The line that the daemon writes when no exec is missed any more.
const LISTENING: &str = "listening: ";
/// The id of the rule that matches the target.
const RULE: &str = "storm-target";

/// Every alert is told by itself, and nothing is kept where the machine's own daemon keeps it.
fn apart(folder: &Path) -> String {
    let place = |name| folder.join(name).display().to_string();
    format!(
        "[fold]\nenabled = false\n[state]\nfolder = {:?}\nruntime-folder = {:?}\n",
        place("state"),
        place("run")
    )
}

/// A daemon to be started.
pub(crate) struct Setup {
    folder: PathBuf,
    rule: String,
    config: String,
    alerts: PathBuf,
}

impl Setup {
    /// The shipped rules, alerts to a file only.
    pub(crate) fn shipped(lab: &Lab<'_>) -> Result<Setup> {
        let folder = lab.folder.join("execwatch");
        let alerts = folder.join("alerts.json");
        // The limits of a file are not this benchmark's subject, so each storm has an empty one.
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(folder.join("rules"))?;
        if let Some(more) = lab.rules {
            for entry in fs::read_dir(more)? {
                let file = entry?.path();
                if file.extension().is_some_and(|extension| extension == "toml")
                    && let Some(name) = file.file_name()
                {
                    fs::copy(&file, folder.join("rules").join(name))?;
                }
            }
        }
        let config = format!(
            "[output.syslog]\nenabled = false\n[output.file]\npath = {:?}\n{}",
            alerts.display().to_string(),
            apart(&folder)
        );
        Ok(Setup { folder, rule: String::new(), config, alerts })
    }

    /// Each storm's program is an alert besides.
    pub(crate) fn matching(mut self, target: &Path) -> Setup {
        let name = target.file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.rule = format!(
            "[[rule]]\nid = {RULE:?}\ntitle = \"A program of the storm\"\nseverity = \"low\"\n\
             [rule.select.target]\nname = {name:?}\n"
        );
        self
    }

    /// No incidents are made of alerts.
    pub(crate) fn without_incidents(mut self) -> Setup {
        self.config += "[incident]\nenabled = false\n";
        self
    }

    /// Alerts as JSON to a syslog socket in place of the file.
    pub(crate) fn alerting_syslog(mut self, socket: &Path) -> Setup {
        self.config = format!(
            "[output.syslog]\nformat = \"json\"\nsocket = {:?}\n{}",
            socket.display().to_string(),
            apart(&self.folder)
        );
        self
    }

    /// Starts the daemon and waits until it listens on every CPU.
    pub(crate) fn start(self) -> Result<Execwatch> {
        let config = self.folder.join("execwatch.toml");
        fs::write(&config, &self.config)?;
        fs::write(self.folder.join("rules/storm.toml"), &self.rule)?;
        let words = [
            env!("CARGO_BIN_EXE_execwatch").into(),
            "run".into(),
            "--config".into(),
            config.into_os_string(),
            "--rules".into(),
            self.folder.join("rules").into_os_string(),
        ];
        let mut process = Process::start("execwatch", words, &self.folder)?;
        process.wait_until("listens", START_LIMIT, |process| Ok(process.errors().contains(LISTENING)))?;
        let mode = process.errors().lines().find_map(|line| {
            let mode = line.split_once(LISTENING)?.1;
            Some(mode.split(';').next().unwrap_or(mode).to_owned())
        });
        let matching = !self.rule.is_empty();
        Ok(Execwatch {
            process,
            alerts: self.alerts,
            mode: mode.unwrap_or_default(),
            matching,
            before: Totals::default(),
        })
    }
}

/// What the daemon counts, by name.
pub(crate) type Totals = BTreeMap<String, u64>;

/// A running daemon.
pub(crate) struct Execwatch {
    process: Process,
    alerts: PathBuf,
    /// Which CPUs are exact, in the daemon's words.
    pub(crate) mode: String,
    matching: bool,
    before: Totals,
}

impl Execwatch {
    /// Its pid.
    pub(crate) fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// What it has counted until now.
    pub(crate) fn totals(&mut self) -> Result<Totals> {
        let lines = |process: &Process| {
            process
                .errors()
                .lines()
                .filter(|line| line.contains("totals: "))
                .map(totals_of)
                .collect::<Vec<_>>()
        };
        let known = lines(&self.process).len();
        self.process.signal(Signal::SIGUSR1)?;
        self.process
            .wait_until("tells its totals", START_LIMIT, |process| Ok(lines(process).len() > known))?;
        Ok(lines(&self.process).pop().unwrap_or_default())
    }

    /// Ends the daemon and takes what it counted since [`Monitor::begin`].
    fn end(&mut self) -> Result<Totals> {
        self.process.end()?;
        let errors = self.process.errors();
        let mut totals =
            errors.lines().rev().find(|line| line.contains("totals: ")).map(totals_of).unwrap_or_default();
        // The line of the last output is the only one that names a loss of its own.
        for line in errors.lines().filter(|line| line.contains(": output ") && line.contains(" lost=")) {
            let number = line.rsplit_once("lost=").and_then(|(_, rest)| rest.split_whitespace().next());
            let lost = number.and_then(|number| number.parse().ok()).unwrap_or(0);
            *totals.entry("output-lost".to_owned()).or_default() += lost;
        }
        for (name, value) in &mut totals {
            // The longest hold is no count.
            if name != "longest-hold-us" {
                *value = value.saturating_sub(self.before.get(name).copied().unwrap_or(0));
            }
        }
        Ok(totals)
    }

    /// Counts alerts of the storm by the argument that each carries.
    fn count_alerts(&self, mut tags: Tags, execs: u32) -> Result<Captured> {
        let mut lines = 0u64;
        for line in fs::read_to_string(&self.alerts).unwrap_or_default().lines() {
            let alert: Value = serde_json::from_str(line)?;
            let from_storm = alert["rule"]["id"] == RULE && alert["process"]["args_count"] == 2;
            if let Some(argument) = alert["process"]["args"][1].as_str().filter(|_| from_storm) {
                lines += 1;
                tags.find_in(argument.as_bytes());
            }
        }
        let mut notes = Vec::new();
        if lines != tags.count() {
            notes.push(format!("{lines} alerts, {} distinct ones of {execs}", tags.count()));
        }
        Ok(Captured { execs: tags.count(), notes })
    }
}

/// The counts of a line `totals: name=number ...`.
fn totals_of(line: &str) -> Totals {
    let words = line.split_whitespace().filter_map(|word| word.split_once('='));
    words.filter_map(|(name, number)| Some((name.to_owned(), number.parse().ok()?))).collect()
}

impl Monitor for Execwatch {
    fn pids(&self) -> Vec<i32> {
        vec![self.process.pid()]
    }

    fn begin(&mut self) -> Result<()> {
        self.before = self.totals()?;
        Ok(())
    }

    fn finish(mut self: Box<Self>, tags: Tags, execs: u32) -> Result<Captured> {
        let totals = self.end()?;
        let of = |name: &str| totals.get(name).copied().unwrap_or(0);
        let mut captured = if self.matching {
            self.count_alerts(tags, execs)?
        } else {
            // Programs of others are among the counts. So everything that was missed is taken for one of the storm's:
            // the result is never too good.
            let read = of("exact") + of("likely") + of("best-effort");
            let missed = of("gone") + of("dropped");
            Captured {
                execs: read.min(u64::from(execs).saturating_sub(missed)),
                notes: if of("candidates") * 2 > u64::from(execs) {
                    vec!["the shipped rules ask for the details of this target".to_owned()]
                } else {
                    Vec::new()
                },
            }
        };
        let said = [
            "execs",
            "exact",
            "likely",
            "best-effort",
            "gone",
            "lost",
            "overruns",
            "output-lost",
            "longest-hold-us",
        ];
        let counts: Vec<String> = said.iter().map(|name| format!("{name}={}", of(name))).collect();
        captured.notes.push(counts.join(" "));
        Ok(captured)
    }
}
