//! The command line: one file for each subcommand.

mod baseline;
mod check;
mod doctor;
mod explain;
mod held;
mod import;
mod incidents;
mod reload;
mod replay;
mod report;
mod rules;
mod run;
mod show;
mod status;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::config::Config;
use crate::database::DatabaseError;
use crate::diagnostics::{Diagnostic, Diagnostics, Level};
use crate::exit;
use crate::health::canary;
use crate::rules::found::Found;
use crate::rules::load;
use crate::rules::ruleset::RuleSet;
use crate::trust::Trust;

/// Sees every program executed on this host and tells who ran a network utility, from where.
#[derive(Parser, Debug)]
#[command(
    name = "execwatch",
    version,
    after_help = "Exit codes: 0 well, 64 wrong command line, 66 no input, 69 no process events to be had or no daemon \
                  answers, 70 internal error, 71 system error, 74 output error, 75 already running, 77 not permitted, 78 \
                  mistake in configuration or rules."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Watch, in the foreground; alerts go to syslog, and to standard output if that is a terminal
    Run(run::RunArguments),
    /// Show or change what is known as normal here, also while the daemon runs
    ///
    /// Exit code: 64 if there is no such id, 66 if there is no baseline, 71 if it cannot be read or written, 77 without root.
    Baseline(baseline::BaselineArguments),
    /// Look for mistakes in configuration, utilities and rules
    Check(check::CheckArguments),
    /// Tell what this host gives execwatch, and what it lacks, with the remedies
    ///
    /// What can be tried is tried: a program is executed on each CPU, and whether it is seen, and held while it is read, is
    /// told. Nothing is changed, and a daemon that runs is not disturbed.
    ///
    /// Exit code: 0 if all is well, 1 with warnings, 2 if execwatch cannot work here.
    Doctor(doctor::DoctorArguments),
    /// Tell which rules match a command line or a process, and why the others do not
    ///
    /// Exit code: 0 if a rule matches that no exception silences, 1 if none does, 2 on an error.
    Explain(explain::ExplainArguments),
    /// Translate rules of other languages
    Import(import::ImportArguments),
    /// List, show and close incidents: alerts that belong together, and what happened around them
    ///
    /// They are read from the database in the state folder, also while no daemon runs.
    ///
    /// Exit code: 64 if there is no such incident, 66 if there is no database, 71 if it cannot be read or written, 74 if the
    /// archive cannot be written, 77 without root.
    Incidents(incidents::IncidentsArguments),
    /// Run recorded execs through the rules, to try rules on yesterday before they watch today
    ///
    /// Alerts go to standard output in the forms of `run`; mistakes in the input and the totals for each rule go to
    /// standard error. A line is by itself an event written by `run --record`, an alert written as JSON, or an audit record
    /// (audit.log, or `ausearch --raw`). What a record does not tell is unknown to the rules.
    ///
    /// Exit code: 0 if all lines could be read, whether a rule matched or not, 1 if some could not, 66 if a file cannot be
    /// opened or read, 78 for a mistake in the rules.
    Replay(replay::ReplayArguments),
    /// Write the report of an incident: one page of HTML that needs nothing but itself, or Markdown for a ticket
    ///
    /// Exit code: 0, 64 if there is no such incident, 66 if there are none, 71 if they cannot be read, 74 if the report
    /// cannot be written or is there already, 77 without root.
    Report(report::ReportArguments),
    /// Allow responses again that `disarm` stopped
    ///
    /// Exit code: 0, 77 without root.
    Arm(held::ArmArguments),
    /// Stop all responses, whatever rules and configuration say, at once and also while no daemon runs
    ///
    /// A file `disarmed` in the runtime folder (/run/execwatch), made by hand, does the same.
    ///
    /// Exit code: 0, 77 without root.
    Disarm(held::DisarmArguments),
    /// List the programs that rules have stopped, and the control groups that they have frozen
    ///
    /// Exit code: 0, 77 without root.
    Held(held::HeldArguments),
    /// Let something run that is held
    ///
    /// Exit code: 0 if all of it runs, 69 if no daemon answers, 70 if nothing is held by that id or it has gone.
    Release(held::OrderArguments),
    /// Kill something that is held
    ///
    /// Exit code: 0 if all of it was killed, 69 if no daemon answers, 70 if nothing is held by that id or it has gone.
    Kill(held::OrderArguments),
    /// List utilities and rules, or show one
    Rules(rules::RulesArguments),
    /// Ask the running daemon how it is
    ///
    /// Exit code: 0 if it answers and is not blind, 1 if it is blind, 69 if no daemon answers, 77 without root.
    Status(status::StatusArguments),
    /// Look on: alerts as they come, rates, open incidents, and the way to the selected alert
    ///
    /// On a terminal, keys acknowledge the incident of the selected alert, and release or kill its program where a rule has
    /// stopped it. Elsewhere each record is printed as a line. A viewer that is slow misses records, which it is told, and
    /// delays nothing.
    ///
    /// Exit code: 0 if it was ended here, 69 if no daemon answers or it has ended, 74 output error, 77 without root.
    Watch(watch::WatchArguments),
    /// Have the running daemon read its configuration, utilities, rules and exceptions anew
    ///
    /// If anything is wrong with them it goes on with those it has. What takes effect at its next start only is named.
    ///
    /// Exit code: 0 if what was read is in force, 69 if no daemon answers, 77 without root, 78 if anything is wrong.
    Reload(reload::ReloadArguments),
}

/// The definition of the command line, from which manual page and completions are made.
pub fn command() -> clap::Command {
    Arguments::command()
}

/// The files that commands read.
#[derive(Args, Debug, Clone)]
#[group(skip)]
struct Files {
    /// Configuration file [default: /etc/execwatch/execwatch.toml, if there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder of *.toml files with utilities and rules, in place of the configured folders
    #[arg(long, value_name = "DIR")]
    rules: Option<PathBuf>,
    /// What was found the last time everything was read.
    #[arg(skip)]
    found: Found,
}

impl Files {
    /// Reads everything. `None` for the rules if anything was refused.
    fn load(&self, diagnostics: &Diagnostics) -> (Config, Option<RuleSet>) {
        self.load_trusted(&Trust::unasked(), diagnostics)
    }

    /// The same, and what there is to say about whom the files belong to, and about what was there the last time.
    fn load_trusted(&self, trust: &Trust, diagnostics: &Diagnostics) -> (Config, Option<RuleSet>) {
        let mut config = Config::load_trusted(self.config.as_deref(), trust, &self.found, diagnostics);
        if let Some(folder) = &self.rules {
            config.rules.folders = vec![folder.clone()];
            config.rules.folders_required = true;
        }
        let ruleset = load::load_trusted(&config.rules, trust, &self.found, diagnostics);
        self.found.settle(ruleset.is_some());
        (config, ruleset)
    }
}

/// Writes messages to standard error; the exit code if any of them is an error.
fn report(list: &[Diagnostic]) -> Option<u8> {
    for diagnostic in list {
        eprintln!("{diagnostic}");
    }
    list.iter().any(|diagnostic| diagnostic.level == Level::Error).then_some(exit::CONFIG)
}

/// Says why a database of the state folder cannot be used; the exit code.
fn unusable(error: &DatabaseError) -> u8 {
    if error.not_permitted() && !nix::unistd::geteuid().is_root() {
        eprintln!("execwatch: {error}: the daemon's state is for root alone");
        return exit::PERMISSION;
    }
    eprintln!("execwatch: {error}");
    match error {
        DatabaseError::Missing(..) => exit::NO_INPUT,
        _ => exit::OS,
    }
}

/// Writes to standard output; a closed pipe is no error, as with any filter.
fn print(text: &str) -> u8 {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => exit::OK,
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => exit::OK,
        Err(error) => {
            eprintln!("execwatch: cannot write to standard output: {error}");
            exit::IO
        }
    }
}

/// Runs the command line.
pub fn main() -> ExitCode {
    // The daemon executes itself so to see whether it sees: nothing else is to happen then.
    if std::env::args_os().nth(1).is_some_and(|argument| argument == canary::ARGUMENT) {
        canary::sing();
        return ExitCode::SUCCESS;
    }
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let code = match std::env::args_os().nth(1) {
                _ if !error.use_stderr() => exit::OK,
                Some(command) if command == "explain" => explain::FAILED,
                _ => exit::USAGE,
            };
            // Nothing can be done if even that cannot be written.
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    ExitCode::from(match arguments.command {
        Command::Run(arguments) => run::run(&arguments),
        Command::Arm(arguments) => held::arm(&arguments),
        Command::Baseline(arguments) => baseline::run(&arguments),
        Command::Disarm(arguments) => held::disarm(&arguments),
        Command::Held(arguments) => held::list(&arguments),
        Command::Kill(arguments) => held::order("kill", &arguments),
        Command::Release(arguments) => held::order("release", &arguments),
        Command::Check(arguments) => check::check(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Incidents(arguments) => incidents::run(&arguments),
        Command::Import(arguments) => import::run(&arguments),
        Command::Replay(arguments) => replay::run(&arguments),
        Command::Report(arguments) => report::run(&arguments),
        Command::Rules(arguments) => rules::rules(&arguments),
        Command::Status(arguments) => status::run(&arguments),
        Command::Watch(arguments) => watch::run(&arguments),
        Command::Reload(arguments) => reload::run(&arguments),
    })
}
