//! `execwatch incidents`: what alerts became together, and what becomes of it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use serde_json::Value;

use super::{exit, print, report, show, unusable};
use crate::alert::escape::{Escaped, for_json, of_json};
use crate::clock;
use crate::config::Config;
use crate::control::{Request, client, place};
use crate::database::DatabaseError;
use crate::diagnostics::Diagnostics;
use crate::incident::now::Host;
use crate::incident::show::text;
use crate::incident::store::{Decision, LONGEST_NOTE, Row, Store};
use crate::incident::story::{Incident, State, Story, Verdict};
use crate::incident::{export, tell};
use crate::rules::load;
use crate::rules::model::{SEVERITIES, Severity};

/// Columns of what is shown where there is no terminal.
const PIPE_COLUMNS: usize = 120;

#[derive(Args, Debug)]
#[group(skip)]
pub(super) struct IncidentsArguments {
    /// Configuration file [default: /etc/execwatch/execwatch.toml, if there is one]
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: IncidentsCommand,
}

#[derive(Subcommand, Debug)]
enum IncidentsCommand {
    /// List incidents, what was heard of last first
    List {
        /// Only those in this state
        #[arg(long, value_enum)]
        state: Option<StateWord>,
        /// Only those of which something was heard in this time, such as 30m, 12h or 7d
        #[arg(long, value_name = "TIME", value_parser = super::held::seconds)]
        since: Option<u64>,
        /// Only those of this user
        #[arg(long)]
        user: Option<String>,
        /// Only those in this container, by its name or the beginning of its id
        #[arg(long)]
        container: Option<String>,
        /// Only those that are so severe, or more: info, low, medium, high, critical
        #[arg(long, value_parser = severity)]
        severity: Option<Severity>,
        /// Print JSON, a line each
        #[arg(long)]
        json: bool,
    },
    /// Show an incident: who, what can be done, what else, the way in, the processes and what happened when
    Show {
        /// The id, or its beginning
        id: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Say that somebody looks at an incident
    Ack {
        /// The id, or its beginning
        id: String,
        /// In words
        #[arg(long, value_parser = note)]
        note: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Say that an incident is over; what comes after it is another
    Close {
        /// The id, or its beginning
        id: String,
        /// What it was
        #[arg(long, value_enum)]
        verdict: VerdictWord,
        /// In words
        #[arg(long, value_parser = note)]
        note: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Write an incident into an archive: the story, the records as they were sent, and the rules that matched
    Export {
        /// The id, or its beginning
        id: String,
        /// The archive (tar), which must not be there
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        /// With copies of executables and scripts that are still there and no files of the system
        #[arg(long)]
        with_files: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum StateWord {
    Open,
    Acknowledged,
    Closed,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum VerdictWord {
    Malicious,
    Benign,
    FalsePositive,
}

fn severity(text: &str) -> Result<Severity, String> {
    let known = SEVERITIES.iter().find(|(word, _)| *word == text).map(|&(_, severity)| severity);
    known.ok_or_else(|| "it is one of info, low, medium, high, critical".to_owned())
}

fn note(text: &str) -> Result<String, String> {
    if text.len() <= LONGEST_NOTE {
        Ok(text.to_owned())
    } else {
        Err(format!("it is longer than {LONGEST_NOTE} bytes"))
    }
}

/// Why a command ends early.
enum Failure {
    Store(DatabaseError),
    /// What was said already, with this exit code.
    Said(u8),
}

impl From<DatabaseError> for Failure {
    fn from(error: DatabaseError) -> Self {
        Failure::Store(error)
    }
}

pub(super) fn run(arguments: &IncidentsArguments) -> u8 {
    let diagnostics = Diagnostics::default();
    let config = Config::load(arguments.config.as_deref(), &diagnostics);
    if let Some(code) = report(&diagnostics.into_list()) {
        return code;
    }
    let result = match &arguments.command {
        IncidentsCommand::List { state, since, user, container, severity, json } => {
            let state = state.map(|word| match word {
                StateWord::Open => State::Open,
                StateWord::Acknowledged => State::Acknowledged,
                StateWord::Closed => State::Closed,
            });
            let after_ns =
                since.map(|since| clock::realtime_ns().saturating_sub(since.saturating_mul(1_000_000_000)));
            // As names are kept.
            let kept = |name: &Option<String>| name.as_ref().map(|name| for_json(name.as_bytes()));
            let (user, container) = (kept(user), kept(container));
            let wanted = |row: &Row| {
                let head = &row.head;
                let in_container = |place: &str, name: &str| {
                    place
                        .strip_prefix("container ")
                        .is_some_and(|own| own == name || name.starts_with(own) || own.starts_with(name))
                };
                state.is_none_or(|state| row.state == state)
                    && after_ns.is_none_or(|after| head.last_ns >= after)
                    && user.as_ref().is_none_or(|user| head.user.as_ref() == Some(user))
                    && severity.is_none_or(|severity| head.severity >= severity)
                    && container
                        .as_ref()
                        .is_none_or(|name| head.place.as_ref().is_some_and(|place| in_container(place, name)))
            };
            list(&config, wanted, *json)
        }
        IncidentsCommand::Show { id, json } => show_one(&config, id, *json),
        IncidentsCommand::Ack { id, note, json } => {
            let decision = Decision { state: State::Acknowledged, verdict: None, note: note.clone() };
            decide(&config, id, decision, *json)
        }
        IncidentsCommand::Close { id, verdict, note, json } => {
            let verdict = match verdict {
                VerdictWord::Malicious => Verdict::Malicious,
                VerdictWord::Benign => Verdict::Benign,
                VerdictWord::FalsePositive => Verdict::FalsePositive,
            };
            let decision = Decision { state: State::Closed, verdict: Some(verdict), note: note.clone() };
            decide(&config, id, decision, *json)
        }
        IncidentsCommand::Export { id, output, with_files, json } => {
            export_one(&config, id, output, *with_files, *json)
        }
    };
    result.unwrap_or_else(failed)
}

/// Says why a command ends early; the exit code.
fn failed(failure: Failure) -> u8 {
    match failure {
        Failure::Said(code) => code,
        Failure::Store(error) => unusable(&error),
    }
}

/// The story of an incident and the records that were kept; otherwise the exit code, and the reason was said.
pub(super) fn told(config: &Config, id: &str) -> Result<(Story, Vec<String>), u8> {
    story(config, id).map_err(failed)
}

fn host_name() -> String {
    nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn list(config: &Config, wanted: impl Fn(&Row) -> bool, json: bool) -> Result<u8, Failure> {
    let store = Store::open(&config.state_folder, false)?;
    let rows = store.list()?;
    let host = host_name();
    let incidents = rows.iter().filter(|row| wanted(row)).map(|row| tell::incident(row, &host));
    if json {
        let lines = incidents.map(|incident| serde_json::to_string(&incident).unwrap_or_default() + "\n");
        return Ok(print(&lines.collect::<String>()));
    }
    let incidents: Vec<Incident> = incidents.collect();
    Ok(print(&table(&incidents, width())))
}

/// Columns of the terminal; 0 if it is none, so that nothing is cut.
fn width() -> usize {
    crate::sys::terminal::columns().unwrap_or(0)
}

/// The table: all but the title has the width that it needs, and that has the rest.
fn table(incidents: &[Incident], width: usize) -> String {
    if incidents.is_empty() {
        return "there are no such incidents\n".to_owned();
    }
    let cells: Vec<[String; 6]> = incidents
        .iter()
        .map(|incident| {
            let state = incident.verdict.map_or(incident.state.as_str(), Verdict::as_str);
            [
                incident.id.clone(),
                incident.last.get(..19).unwrap_or(&incident.last).replace('T', " "),
                incident.severity.as_str().to_owned(),
                incident.score.to_string(),
                state.to_owned(),
                incident.alerts.to_string(),
            ]
        })
        .collect();
    let head = ["ID", "LAST (UTC)", "SEVERITY", "SCORE", "STATE", "ALERTS"];
    let widths: Vec<usize> = (0..head.len())
        .map(|at| cells.iter().map(|row| row[at].len()).chain([head[at].len()]).max().unwrap_or(0))
        .collect();
    let used: usize = widths.iter().map(|width| width + 2).sum();
    let mut text = String::new();
    let mut line = |row: &[&str], title: &str| {
        let mut cells = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(cells, "{cell:width$}  ");
        }
        let mut title = Escaped::new(&of_json(title));
        if width > 0 {
            title.shorten(width.saturating_sub(used).max(10));
        }
        let _ = writeln!(text, "{}", (cells + title.as_str()).trim_end());
    };
    line(&head, "TITLE");
    for (row, incident) in cells.iter().zip(incidents) {
        line(&row.each_ref().map(String::as_str), &incident.title);
    }
    text
}

/// The one incident whose id begins so.
fn find(store: &Store, id: &str) -> Result<Row, Failure> {
    let mut rows = store.beginning_with(id)?;
    let exact = rows.iter().position(|row| row.head.id == id);
    match (rows.len(), exact) {
        (_, Some(at)) => Ok(rows.swap_remove(at)),
        (1, None) => Ok(rows.swap_remove(0)),
        (0, None) => {
            eprintln!("execwatch: there is no incident `{id}`: see `execwatch incidents list`");
            Err(Failure::Said(exit::USAGE))
        }
        _ => {
            eprintln!("execwatch: several ids begin with `{id}`: give more letters");
            Err(Failure::Said(exit::USAGE))
        }
    }
}

/// The story of an incident, with the records that were kept.
fn story(config: &Config, id: &str) -> Result<(Story, Vec<String>), Failure> {
    let store = Store::open(&config.state_folder, false)?;
    let row = find(&store, id)?;
    let things = store.things(&row.head.id)?;
    // A mistake in the rules is no reason to show nothing.
    let ruleset = load::load(&config.rules, &Diagnostics::default());
    let rule = |id: &str| ruleset.as_ref()?.find(id).map(|(_, rule)| show::rule(rule));
    let mut look = Host::new(&config.runtime_folder).map_err(|error| {
        eprintln!("execwatch: cannot open /proc: {error}");
        Failure::Said(exit::OS)
    })?;
    let story = tell::story(&row, &things, &host_name(), &rule, &mut look);
    Ok((story, things.into_iter().filter_map(|thing| thing.record).collect()))
}

fn show_one(config: &Config, id: &str, json: bool) -> Result<u8, Failure> {
    let (story, _) = story(config, id)?;
    if json {
        return Ok(print(&(serde_json::to_string(&story).unwrap_or_default() + "\n")));
    }
    let columns = crate::sys::terminal::columns();
    let colour = columns.is_some() && std::env::var_os("NO_COLOR").is_none();
    Ok(print(&text(&story, columns.unwrap_or(PIPE_COLUMNS), colour)))
}

/// Has the daemon write a decision down, or does so where none runs.
fn decide(config: &Config, id: &str, decision: Decision, json: bool) -> Result<u8, Failure> {
    let id = find(&Store::open(&config.state_folder, false)?, id)?.head.id;
    let mut request = Request::new("incident");
    request.arguments.insert("id".to_owned(), Value::String(id.clone()));
    request.arguments.insert("decision".to_owned(), serde_json::to_value(&decision).unwrap_or_default());
    match client::ask(&place::path(&config.runtime_folder), &request) {
        Ok(_) => {}
        Err(error) if error.is_no_daemon() => {
            Store::open(&config.state_folder, true)?.decide(&id, &decision, clock::realtime_ns())?;
        }
        Err(error @ client::ClientError::NotReached(..)) => {
            eprintln!(
                "execwatch: {error}; nothing was written here, because a daemon that lives writes it itself: `execwatch \
                 incidents show {id}` tells whether it has"
            );
            return Err(Failure::Said(error.code()));
        }
        Err(error) => {
            eprintln!("execwatch: {error}");
            return Err(Failure::Said(error.code()));
        }
    }
    let row = find(&Store::open(&config.state_folder, false)?, &id)?;
    if json {
        let incident = tell::incident(&row, &host_name());
        return Ok(print(&(serde_json::to_string(&incident).unwrap_or_default() + "\n")));
    }
    let verdict = row.verdict.map_or(String::new(), |verdict| format!(" as {}", verdict.as_str()));
    Ok(print(&format!("{id}: {}{verdict}\n", row.state.as_str())))
}

fn export_one(config: &Config, id: &str, output: &Path, with_files: bool, json: bool) -> Result<u8, Failure> {
    let (story, records) = story(config, id)?;
    match export::write(output, &story, &records, with_files) {
        Ok(written) if json => Ok(print(&(serde_json::to_string(&written).unwrap_or_default() + "\n"))),
        Ok(written) => {
            let mut text =
                format!("{}: {} records, {} files\n", output.display(), written.records, written.files.len());
            for (file, why) in &written.left_out {
                let _ = writeln!(text, "left out: {}: {why}", Escaped::new(file.as_bytes()).as_str());
            }
            Ok(print(&text))
        }
        Err(error) => {
            eprintln!("execwatch: cannot write {}: {error}", output.display());
            Ok(exit::IO)
        }
    }
}
