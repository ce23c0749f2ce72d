//! `execwatch baseline`

use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;

use super::{exit, print, report, unusable};
use crate::alert::escape::{Escaped, for_json};
use crate::baseline::days::Days;
use crate::baseline::decision::{Knowledge, Settings};
use crate::baseline::memory::Change;
use crate::baseline::store::{Entry, Store};
use crate::baseline::tuple::Key;
use crate::calendar;
use crate::clock;
use crate::config::Config;
use crate::database::DatabaseError;
use crate::diagnostics::Diagnostics;
use crate::process::names::Accounts;

#[derive(Args, Debug)]
#[group(skip)]
pub(super) struct BaselineArguments {
    /// Configuration file [default: /etc/execwatch/execwatch.toml, if there is one]
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: BaselineCommand,
}

#[derive(Subcommand, Debug)]
enum BaselineCommand {
    /// List what has alerted here, what was seen last first
    List {
        /// Only what is not known as normal
        #[arg(long, conflicts_with = "known")]
        new: bool,
        /// Only what is known as normal
        #[arg(long)]
        known: bool,
        /// Print JSON, a line each
        #[arg(long)]
        json: bool,
    },
    /// Forget something, which is new then, or everything, with which the learning period begins anew
    Forget {
        /// Beginnings of ids, as `list` shows them
        #[arg(value_name = "ID", required_unless_present = "all", conflicts_with = "all")]
        ids: Vec<String>,
        /// Forget everything
        #[arg(long)]
        all: bool,
    },
    /// Say that something is normal here, on however many days it was seen
    Approve {
        /// Beginnings of ids, as `list` shows them
        #[arg(value_name = "ID", required = true)]
        ids: Vec<String>,
    },
    /// Write everything as JSON, a line each
    Export {
        /// The file, for root alone [default: standard output]
        file: Option<PathBuf>,
    },
}

/// Digits of an id that are shown.
const SHOWN_ID: usize = 12;
/// An id is named by so many digits at least.
const SHORTEST_ID: usize = 4;
/// Bytes of a path that are shown.
const SHOWN: usize = 60;

pub(super) fn run(arguments: &BaselineArguments) -> u8 {
    let diagnostics = Diagnostics::default();
    let config = Config::load(arguments.config.as_deref(), &diagnostics);
    if let Some(code) = report(&diagnostics.into_list()) {
        return code;
    }
    let folder = &config.state_folder;
    let result = match &arguments.command {
        BaselineCommand::List { new, known, json } => {
            let wanted = |knowledge| match (new, known) {
                (true, _) => knowledge != Knowledge::Known,
                (_, true) => knowledge == Knowledge::Known,
                _ => true,
            };
            list(folder, &config.baseline, wanted, *json).map(|text| print(&text))
        }
        BaselineCommand::Forget { all: true, .. } => forget_all(folder),
        BaselineCommand::Forget { ids, .. } => change(folder, ids, Change::Forget, "forgotten"),
        BaselineCommand::Approve { ids } => change(folder, ids, Change::Approve, "approved"),
        BaselineCommand::Export { file } => {
            list(folder, &config.baseline, |_| true, true).map(|text| match file {
                Some(file) => write(file, &text),
                None => print(&text),
            })
        }
    };
    result.unwrap_or_else(|error| unusable(&error))
}

fn write(file: &Path, text: &str) -> u8 {
    let open = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file);
    match open.and_then(|mut out| out.write_all(text.as_bytes())) {
        Ok(()) => exit::OK,
        Err(error) => {
            eprintln!("execwatch: cannot write {}: {error}", file.display());
            exit::IO
        }
    }
}

fn change(folder: &Path, ids: &[String], change: fn(Key) -> Change, done: &str) -> Result<u8, DatabaseError> {
    let mut store = Store::open(folder, true)?;
    let mut keys = Vec::new();
    for id in ids {
        // All are looked for before anything is changed.
        match find(&store, id)? {
            Ok(key) => keys.push(key),
            Err(message) => {
                eprintln!("execwatch: {message}");
                return Ok(exit::USAGE);
            }
        }
    }
    for key in &keys {
        store.change(&change(*key))?;
    }
    let shown: Vec<String> = keys.iter().map(|key| key.text()[..SHOWN_ID].to_owned()).collect();
    Ok(print(&format!("{done}: {}; a running execwatch takes it over within seconds\n", shown.join(" "))))
}

fn forget_all(folder: &Path) -> Result<u8, DatabaseError> {
    let count = Store::open(folder, true)?.change(&Change::ForgetAll)?;
    Ok(print(&format!("forgotten: all {count}; the learning period begins anew\n")))
}

/// The one key that begins so, or why there is none.
fn find(store: &Store, id: &str) -> Result<Result<Key, String>, DatabaseError> {
    let digits = id.len() >= SHORTEST_ID && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !digits {
        return Ok(Err(format!(
            "`{id}` is no id: give {SHORTEST_ID} or more of the digits that `execwatch baseline list` shows"
        )));
    }
    Ok(match store.beginning_with(id)?.as_slice() {
        [] => Err(format!("nothing has the id `{id}`: see `execwatch baseline list`")),
        [one] => Ok(*one),
        several => Err(format!("{} ids begin with `{id}`: give more digits", several.len())),
    })
}

/// A row as JSON.
#[derive(Serialize)]
struct Json<'e> {
    id: String,
    state: &'static str,
    approved: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    rule: &'e str,
    #[serde(skip_serializing_if = "Option::is_none")]
    utility: Option<&'e str>,
    exe: String,
    uid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    place: &'e str,
    first: String,
    last: String,
    count: u32,
    days: u16,
    days_learnt: u16,
    silenced: u32,
}

fn list(
    folder: &Path,
    settings: &Settings,
    wanted: impl Fn(Knowledge) -> bool,
    json: bool,
) -> Result<String, DatabaseError> {
    let store = Store::open(folder, false)?;
    let (kept, same_boot) = store.days("")?;
    let days = Days::resume(kept, same_boot, clock::now());
    let accounts = Accounts::default();
    let mut text = String::new();
    let mut counts = [0u64; 3];
    let mut silenced = 0;
    if !json {
        let _ = writeln!(
            text,
            "{:SHOWN_ID$}  {:8} {:>4} {:>8} {:>8}  {:10}  {:12} rule: program, under what, where",
            "id", "state", "days", "count", "silenced", "last", "user"
        );
    }
    store.each(|entry| {
        let knowledge = entry.row.past(days.number(), settings).knowledge;
        counts[knowledge as usize] += 1;
        silenced += u64::from(entry.row.silenced);
        if wanted(knowledge) {
            let user = accounts.users.name(entry.tuple.uid);
            text.push_str(&if json {
                as_json(&entry, knowledge, user)
            } else {
                as_line(&entry, knowledge, user)
            });
        }
    })?;
    if !json {
        let [new, seen, known] = counts;
        let learning = if days.learning(settings) {
            format!("day {} of {} of the learning period", days.learning_day(), settings.learn_days)
        } else {
            "the learning period is over".to_owned()
        };
        let _ = writeln!(
            text,
            "{known} known, {seen} seen, {new} not seen for long; alerts silenced: {silenced}; {learning}"
        );
    }
    Ok(text)
}

fn date(seconds: u32) -> String {
    calendar::rfc3339(u64::from(seconds) * 1_000_000_000)
}

fn as_json(entry: &Entry, knowledge: Knowledge, user: Option<String>) -> String {
    let (tuple, row) = (&entry.tuple, &entry.row);
    let line = Json {
        id: entry.key.text(),
        state: knowledge.as_str(),
        approved: row.approved,
        rule: &tuple.rule,
        utility: tuple.utility.as_deref(),
        exe: for_json(&tuple.exe),
        uid: tuple.uid,
        user,
        parent: tuple.parent.as_deref().map(for_json),
        place: &tuple.place,
        first: date(row.first_s),
        last: date(row.last_s),
        count: row.count,
        days: row.days,
        days_learnt: row.learnt_days,
        silenced: row.silenced,
    };
    crate::alert::escape::json_line(&line) + "\n"
}

fn as_line(entry: &Entry, knowledge: Knowledge, user: Option<String>) -> String {
    let (tuple, row) = (&entry.tuple, &entry.row);
    let shown = |bytes: &[u8]| {
        let mut escaped = Escaped::new(bytes);
        escaped.shorten(SHOWN);
        escaped.as_str().to_owned()
    };
    let state = if row.approved { "approved" } else { knowledge.as_str() };
    let rule = if tuple.rule.is_empty() { "any rule" } else { &tuple.rule };
    let exe = shown(&tuple.exe);
    let program = tuple.utility.as_ref().map_or(exe.clone(), |utility| format!("{utility} ({exe})"));
    let parent = tuple.parent.as_deref().map_or("nothing".to_owned(), shown);
    let place =
        if tuple.place.is_empty() { String::new() } else { format!(", {}", shown(tuple.place.as_bytes())) };
    format!(
        "{}  {state:8} {:>4} {:>8} {:>8}  {}  {:12} {rule}: {program}, under {parent}{place}\n",
        &entry.key.text()[..SHOWN_ID],
        row.days,
        row.count,
        row.silenced,
        date(row.last_s).get(..10).unwrap_or_default(),
        user.map_or(tuple.uid.to_string(), |user| shown(user.as_bytes())),
    )
}
