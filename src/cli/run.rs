//! `execwatch run`: the daemon in the foreground.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use super::{Files, report};
use crate::daemon::reload::Load;
use crate::daemon::{self, Options};
use crate::diagnostics::Diagnostics;
use crate::trust::Trust;
use crate::{exit, sys};

#[derive(Args, Debug)]
#[group(skip)]
pub(super) struct RunArguments {
    #[command(flatten)]
    files: Files,
    /// Write alerts to standard output as JSON, a line each
    #[arg(long)]
    json: bool,
    /// Do without real-time scheduling: programs are not held while they are read
    #[arg(long)]
    best_effort: bool,
    /// Append to FILE, as JSON for `replay`, every program that the rules could not exclude at first sight
    ///
    /// That is what the rules were evaluated on: every network utility, and whatever a rule might match by its executable
    /// and arguments, whether it did or not. The file is for root alone, grows without limit, and is opened anew at
    /// SIGHUP, so that it can be rotated.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Record every program that is executed, so that any rule can be tried on it later
    ///
    /// Each then costs what only those cost that a rule might match: all of /proc/PID is read while the program is held,
    /// and its ancestors after.
    #[arg(long, requires = "record")]
    record_all: bool,
}

/// The environment variable that chooses what the daemon says about itself.
const LOG_VARIABLE: &str = "EXECWATCH_LOG";

pub(super) fn run(arguments: &RunArguments) -> u8 {
    start_log();
    if !nix::unistd::geteuid().is_root() {
        log::error!("execwatch must be run as root: it reads the processes of all users");
        return exit::PERMISSION;
    }
    let diagnostics = Diagnostics::default();
    let load = loading(arguments);
    let (config, ruleset) = load(&diagnostics);
    if let Some(code) = report(&diagnostics.into_list()) {
        return code;
    }
    let Some(ruleset) = ruleset else { return exit::CONFIG };
    // What reading the files took is not needed again.
    sys::memory::give_back();
    let options =
        Options { json: arguments.json, record: arguments.record.clone(), record_all: arguments.record_all };
    daemon::run(config, ruleset, load, &options)
}

/// Reads all files as the arguments say, now and at each reload.
fn loading(arguments: &RunArguments) -> Load {
    let (files, best_effort) = (arguments.files.clone(), arguments.best_effort);
    Box::new(move |diagnostics| {
        let (mut config, ruleset) = files.load_trusted(&Trust::required(), diagnostics);
        if best_effort {
            config.capture.realtime_priority = 0;
        }
        (config, ruleset)
    })
}

/// Messages go to standard error, without a time: a service manager adds one, and a person sees it.
fn start_log() {
    env_logger::Builder::from_env(env_logger::Env::new().filter_or(LOG_VARIABLE, "info"))
        .format(|out, record| {
            writeln!(out, "execwatch: {}: {}", record.level().as_str().to_lowercase(), record.args())
        })
        .init();
}
