//! The kernel's audit with a rule for execve, and auditd that writes its log to a folder of this benchmark.
//!
//! The host's audit is left alone if it is in use. Otherwise its settings are put back at the end.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::process::Process;
use super::{Captured, Lab, Monitor, START_LIMIT};
use crate::Result;
use crate::measure::Tags;

/// The rule, after `-a` to add it and `-d` to take it away.
const RULE: [&str; 7] = ["exit,always", "-F", "arch=b64", "-S", "execve", "-k", "execwatch-storm"];
/// Records that may wait for auditd, as in the rules that distributions ship.
const BACKLOG: &str = "8192";

/// Runs auditctl; what it wrote.
fn auditctl(words: &[&str]) -> Result<String> {
    let ran = Command::new("auditctl").args(words).output()?;
    if !ran.status.success() {
        let words = words.join(" ");
        return Err(format!("auditctl {words}: {}", String::from_utf8_lossy(&ran.stderr).trim()).into());
    }
    Ok(String::from_utf8_lossy(&ran.stdout).into_owned())
}

/// A number of the kernel's audit state.
fn state(name: &str) -> Result<u64> {
    let text = auditctl(&["-s"])?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(line.ok_or_else(|| format!("auditctl -s tells no {name}"))?.trim().parse()?)
}

/// Why audit cannot be measured here, if it cannot.
pub(super) fn obstacle() -> Option<String> {
    let look = || -> Result<Option<String>> {
        if state("pid")? != 0 {
            return Ok(Some("an auditd is running, which this benchmark leaves alone".into()));
        }
        if state("enabled")? == 2 {
            return Ok(Some("audit is locked until the next boot".into()));
        }
        let rules = auditctl(&["-l"])?;
        Ok((rules.trim() != "No rules")
            .then(|| "there are audit rules, which this benchmark leaves alone".into()))
    };
    look().unwrap_or_else(|error| Some(error.to_string()))
}

/// What the kernel's audit was set to; put back when dropped.
struct Settings {
    enabled: String,
    backlog: String,
}

impl Drop for Settings {
    fn drop(&mut self) {
        let rule: Vec<&str> = ["-d"].into_iter().chain(RULE).collect();
        let restored = [
            // Not there if it could not be added.
            auditctl(&rule).map(drop).or_else(|error| match auditctl(&["-l"]) {
                Ok(list) if !list.contains("execwatch-storm") => Ok(()),
                _ => Err(error),
            }),
            auditctl(&["-b", &self.backlog]).map(drop),
            auditctl(&["-e", &self.enabled]).map(drop),
        ];
        for error in restored.into_iter().filter_map(std::result::Result::err) {
            eprintln!("storm: audit could not be put back as it was: {error}");
        }
    }
}

/// Running audit. The rule goes before the daemon ends, or the kernel would log to its console.
struct Audit {
    settings: Settings,
    process: Process,
    kernel_thread: Option<i32>,
    log: PathBuf,
    /// Records the kernel had lost before.
    lost: u64,
}

/// Starts auditd and adds the rule.
pub(super) fn start(lab: &Lab<'_>) -> Result<impl Monitor + use<>> {
    let folder = lab.folder.join("audit");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(folder.join("plugins"))?;
    let log = folder.join("audit.log");
    fs::write(folder.join("auditd.conf"), configuration(&log, &folder))?;
    let settings =
        Settings { enabled: state("enabled")?.to_string(), backlog: state("backlog_limit")?.to_string() };
    let words = ["auditd".into(), "-n".into(), "-c".into(), folder.clone().into_os_string()];
    let mut process = Process::start("auditd", words, &folder)?;
    process.wait_until("is known to the kernel", START_LIMIT, |process| {
        Ok(state("pid")? == process.pid() as u64)
    })?;
    auditctl(&["-b", BACKLOG])?;
    let rule: Vec<&str> = ["-a"].into_iter().chain(RULE).collect();
    auditctl(&rule)?;
    auditctl(&["-e", "1"])?;
    Ok(Audit { settings, process, kernel_thread: kernel_thread(), log, lost: state("lost")? })
}

/// As distributions ship it, but for the places and for what is done when a disk is full.
fn configuration(log: &Path, folder: &Path) -> String {
    format!(
        "local_events = yes\nwrite_logs = yes\nlog_file = {}\nlog_group = root\nlog_format = ENRICHED\n\
         flush = INCREMENTAL_ASYNC\nfreq = 50\nmax_log_file = 8\nmax_log_file_action = IGNORE\n\
         priority_boost = 4\nname_format = NONE\nspace_left = 75\nspace_left_action = IGNORE\n\
         admin_space_left = 50\nadmin_space_left_action = IGNORE\ndisk_full_action = IGNORE\n\
         disk_error_action = IGNORE\nq_depth = 2000\noverflow_action = IGNORE\nplugin_dir = {}\n",
        log.display(),
        folder.join("plugins").display()
    )
}

/// The kernel's thread that hands records to auditd.
fn kernel_thread() -> Option<i32> {
    let processes = procfs::process::all_processes().ok()?;
    processes
        .filter_map(|process| process.ok()?.stat().ok())
        // Parent 2 is kthreadd.
        .find(|stat| stat.comm == "kauditd" && stat.ppid <= 2)
        .map(|stat| stat.pid)
}

impl Monitor for Audit {
    fn pids(&self) -> Vec<i32> {
        [self.process.pid()].into_iter().chain(self.kernel_thread).collect()
    }

    fn finish(self: Box<Self>, mut tags: Tags, _execs: u32) -> Result<Captured> {
        let Audit { settings, mut process, log, lost, .. } = *self;
        let lost = state("lost")?.saturating_sub(lost);
        drop(settings);
        process.end()?;
        tags.find_in(&fs::read(&log)?);
        let notes = if lost > 0 { vec![format!("the kernel lost {lost} records")] } else { Vec::new() };
        Ok(Captured { execs: tags.count(), notes })
    }
}
