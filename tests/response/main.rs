//! What rules with an action do to real programs: denied before the first instruction, held there, killed with their
//! descendants, frozen; and what no rule does.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

#[path = "../support/mod.rs"]
mod support;

mod hold;
mod kinds;
mod late;
mod rails;
mod spared;
mod storms;

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use serde_json::Value;
use support::{Daemon, Machine, Setup, program, skip};

/// A rule with an action on every program of the test whose name begins with `target`.
fn rule(action: &str) -> String {
    rule_on(action, "\"exe|startswith\" = \"{dir}/bin/target\"")
}

/// A rule with an action.
fn rule_on(action: &str, select: &str) -> String {
    format!(
        "[[rule]]\nid = \"test-{action}\"\ntitle = \"A test of {action}\"\nseverity = \"high\"\naction = \"{action}\"\n\
         [rule.select.it]\n{select}\n"
    )
}

/// A daemon whose `[response]` holds these lines, and which may act as often as it wants.
fn responding<'m>(machine: &'m Machine, response: &str, rules: &str) -> Setup<'m> {
    responding_in(machine, response, rules, "{dir}/run")
}

/// The same with its own runtime folder.
fn responding_in<'m>(machine: &'m Machine, response: &str, rules: &str, runtime: &str) -> Setup<'m> {
    queueing(machine, 8192, response, rules, runtime)
}

/// The same with room for so many programs in the queue to the worker.
fn queueing<'m>(
    machine: &'m Machine,
    queue_length: usize,
    response: &str,
    rules: &str,
    runtime: &str,
) -> Setup<'m> {
    machine.daemon().rules(rules).config(&format!(
        "[capture]\nqueue-length = {queue_length}\nalready-running = false\n[rules]\nbuiltin = false\n\
         [response]\n{response}\n[fold]\nenabled = false\n[output.syslog]\nenabled = false\n\
         [output.file]\npath = \"{{dir}}/alerts.json\"\n\
         [state]\nfolder = \"{{dir}}/state\"\nruntime-folder = \"{runtime}\"\n"
    ))
}

/// As often as tests want.
const ENFORCE: &str = "mode = \"enforce\"\nper-minute = 1000000";

/// A program in the daemon's folder that writes a byte before anything else. `None`: skipped, which has been said.
fn mark(folder: &Path, name: &str) -> Option<PathBuf> {
    let file = program::mark(&folder.join("bin").join(name));
    if file.is_none() {
        skip("knows no program of this architecture whose first instruction can be seen");
    }
    file
}

/// A file that programs append to.
struct Written(PathBuf);

impl Written {
    fn new(folder: &Path, name: &str) -> Self {
        let path = folder.join(name);
        fs::write(&path, "").unwrap();
        Written(path)
    }

    /// For the standard output of a program.
    fn output(&self) -> Stdio {
        File::options().append(true).open(&self.0).unwrap().into()
    }

    /// How many bytes were written.
    fn bytes(&self) -> u64 {
        fs::metadata(&self.0).unwrap().len()
    }
}

/// Runs a program with its output in a file.
fn run(file: &Path, written: &Written) -> ExitStatus {
    Command::new(file).stdin(Stdio::null()).stdout(written.output()).status().unwrap()
}

/// It was killed, as SIGKILL does.
fn killed(status: ExitStatus) -> bool {
    status.signal() == Some(libc::SIGKILL)
}

fn response<'a>(alert: &'a Value, part: &str) -> &'a Value {
    &alert["execwatch"]["response"][part]
}

/// Runs a subcommand of execwatch with the daemon's configuration; its output, and whether it succeeded.
fn execwatch(daemon: &Daemon<'_>, arguments: &[&str]) -> (String, bool) {
    let output = Command::new(env!("CARGO_BIN_EXE_execwatch"))
        .args(arguments)
        .arg("--config")
        .arg(daemon.folder().join("execwatch.toml"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (text.into_owned(), output.status.success())
}

/// The state of a process, as /proc/PID/stat has it; `None` if there is no such process.
fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// A process that ended, reaped or not.
fn ended(pid: u32) -> bool {
    matches!(state(pid), None | Some('Z' | 'X'))
}
