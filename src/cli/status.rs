//! `execwatch status`: asks the running daemon.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::Value;

use super::{print, report};
use crate::alert::escape::Escaped;
use crate::config::Config;
use crate::control::client::{self, ClientError, Listening};
use crate::control::{Request, place};
use crate::diagnostics::{Diagnostics, counted};
use crate::exit;
use crate::health::status::{Blind, Listener, Rule, Status, Untried};
use crate::journal::progress::Condition;
use crate::order;

/// The exit code when the daemon answers and does not see.
const BLIND: u8 = 1;
/// Rules and exceptions shown to people, those with the most hits.
const MOST_RULES: usize = 10;

#[derive(Args, Debug)]
#[group(skip)]
pub(super) struct StatusArguments {
    #[command(flatten)]
    place: Place,
    /// Print JSON
    #[arg(long, conflicts_with = "metrics")]
    json: bool,
    /// Print metrics in the text format of Prometheus
    #[arg(long)]
    metrics: bool,
}

/// Where the daemon is asked.
#[derive(Args, Debug, Clone)]
#[group(skip)]
pub(super) struct Place {
    /// Configuration file [default: /etc/execwatch/execwatch.toml, if there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The daemon's control socket, in place of the configured one
    #[arg(long, value_name = "PATH", conflicts_with = "config")]
    socket: Option<PathBuf>,
}

impl Place {
    /// Asks the daemon, at the place that the configuration names as far as it can be read: also a mistake in it is a
    /// reason to ask. What the daemon says, or an exit code after the reason was told.
    pub(super) fn ask(&self, request: &Request) -> Result<Value, u8> {
        self.reach(|socket| client::ask(socket, request))
    }

    /// The same without a word about mistakes in the configuration, which were told before.
    pub(super) fn try_ask(&self, request: &Request) -> Result<Value, ClientError> {
        client::ask(&self.socket(&Diagnostics::default()), request)
    }

    /// Begins to listen to the daemon, as [`ask`](Self::ask).
    pub(super) fn listen(&self, request: &Request) -> Result<Listening, u8> {
        self.reach(|socket| client::listen(socket, request))
    }

    fn reach<T>(&self, reach: impl Fn(&Path) -> Result<T, ClientError>) -> Result<T, u8> {
        let diagnostics = Diagnostics::default();
        reach(&self.socket(&diagnostics)).map_err(|error| {
            let mistaken = report(&diagnostics.into_list());
            eprintln!("execwatch: {error}");
            mistaken.unwrap_or(error.code())
        })
    }

    fn socket(&self, diagnostics: &Diagnostics) -> PathBuf {
        match &self.socket {
            Some(socket) => socket.clone(),
            None => place::path(&Config::load(self.config.as_deref(), diagnostics).runtime_folder),
        }
    }
}

pub(super) fn run(arguments: &StatusArguments) -> u8 {
    let answer = match arguments.place.ask(&Request::new("status")) {
        Ok(answer) => answer,
        Err(code) => return code,
    };
    let status: Status = match serde_json::from_value(answer.clone()) {
        Ok(status) => status,
        Err(error) => {
            eprintln!(
                "execwatch: the daemon's answer is not understood ({error}); is it of another version than this? Restart it"
            );
            return exit::UNAVAILABLE;
        }
    };
    let text = if arguments.metrics {
        match arguments.place.ask(&Request::new("metrics")) {
            Ok(text) => text.as_str().unwrap_or_default().to_owned(),
            Err(code) => return code,
        }
    } else if arguments.json {
        format!("{answer}\n")
    } else {
        people(&status)
    };
    match print(&text) {
        exit::OK if !status.blind.is_empty() => BLIND,
        code => code,
    }
}

/// The status for people.
fn people(status: &Status) -> String {
    let mut text = String::new();
    for part in [overview(status), listeners(&status.listeners), outputs(status), losses(status)] {
        text += &part;
        text.push('\n');
    }
    text += &rules("RULE", &status.rules);
    if !status.exceptions.is_empty() {
        text.push('\n');
        text += &rules("EXCEPTION", &status.exceptions);
    }
    text
}

/// A line of a name and what belongs to it.
fn line(text: &mut String, name: &str, value: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{name:<14} {value}");
}

fn overview(status: &Status) -> String {
    let mut text = String::new();
    let totals = &status.totals;
    let up = duration(status.uptime_s);
    line(
        &mut text,
        "execwatch",
        &format!("{}, pid {}, since {} ({up})", status.version, status.pid, status.started),
    );
    line(&mut text, "sees", &sees(&status.blind, &status.untried, status.canary.period_s.is_some()));
    line(&mut text, "configuration", status.configuration.get(..16).unwrap_or(&status.configuration));
    line(
        &mut text,
        "cost",
        &format!(
            "{:.2} s of CPU time, {} MB of memory",
            status.cost.cpu_s,
            status.cost.memory_bytes.div_ceil(1 << 20)
        ),
    );
    line(
        &mut text,
        "rates",
        &format!(
            "{} programs and {} alerts a second, over {} s",
            status.rates.execs_per_s, status.rates.alerts_per_s, status.rates.over_s
        ),
    );
    line(
        &mut text,
        "alerts",
        &format!(
            "{} told ({} already running, {} after a loss), {} repeated, {} held back, {} silenced",
            totals.alerts,
            totals.already_running.saturating_sub(totals.found_late),
            totals.found_late,
            totals.repeated,
            totals.held_back,
            totals.silenced
        ),
    );
    let queue = &status.queue;
    line(
        &mut text,
        "queue",
        &format!("{} of {} waiting, {} bytes", queue.waiting, queue.places, queue.bytes),
    );
    line(&mut text, "lineage", &counted(totals.processes, "process", "processes"));
    line(&mut text, "baseline", &counted(status.baseline.rows, "tuple", "tuples"));
    if let (Some(mode), Some(armed), Some(held)) = (
        status.responses["mode"].as_str(),
        status.responses["armed"].as_bool(),
        status.responses["held"].as_u64(),
    ) {
        let armed = if armed { "armed" } else { "disarmed" };
        line(&mut text, "responses", &format!("{mode}, {armed}, {held} held"));
    }
    if let (Some(accepted), Some(refused)) =
        (status.reloads["accepted"].as_u64(), status.reloads["refused"].as_u64())
        && accepted + refused > 0
    {
        let (last, at) = (status.reloads["last"].as_str(), status.reloads["last_at"].as_str());
        line(
            &mut text,
            "reloads",
            &format!(
                "{accepted}, {refused} refused; last at {}: {}",
                at.unwrap_or("?"),
                Escaped::new(last.unwrap_or("?").as_bytes()).as_str()
            ),
        );
    }
    let waiting: Vec<&str> =
        status.reloads["at_next_start"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !waiting.is_empty() {
        line(
            &mut text,
            "next start",
            &format!("what was changed of {} takes effect then", waiting.join(", ")),
        );
    }
    let canary = &status.canary;
    let period = match canary.period_s {
        Some(period) => format!("after {period} s without a program"),
        None => "off".to_owned(),
    };
    let last =
        canary.last.as_ref().map_or("none yet".to_owned(), |last| format!("{} at {}", last.what, last.at));
    line(
        &mut text,
        "canary",
        &format!("{period}; last: {last}; {} executed, {} unseen", canary.executed, canary.unseen),
    );
    if canary.replaced > 0 {
        let hanging = match canary.hanging {
            0 => String::new(),
            hanging => format!(", {hanging} of the old ones hanging"),
        };
        line(&mut text, "replaced", &(counted(canary.replaced, "listener", "listeners") + &hanging));
    }
    text
}

fn sees(blind: &[Blind], untried: &[Untried], tries: bool) -> String {
    let mut parts = Vec::new();
    if !blind.is_empty() {
        let list: Vec<String> =
            blind.iter().map(|blind| format!("CPU {} since {}", cpu(blind.cpu), blind.since)).collect();
        parts.push(format!("NO: blind on {}", list.join(", ")));
    }
    for Untried { cpu: on, reason } in
        untried.iter().filter(|it| blind.iter().all(|blind| blind.cpu != it.cpu))
    {
        parts.push(format!("not known on CPU {}: {}", cpu(*on), Escaped::new(reason.as_bytes()).as_str()));
    }
    match (parts.is_empty(), tries) {
        (false, _) => parts.join("; "),
        (true, true) => "yes".to_owned(),
        (true, false) => "not tried: [health] canary is off".to_owned(),
    }
}

fn cpu(cpu: Option<u32>) -> String {
    cpu.map_or("other".to_owned(), |cpu| cpu.to_string())
}

fn listeners(listeners: &[Listener]) -> String {
    let mut text = format!(
        "{:<6} {:<12} {:>12} {:>12} {:>8} {:>8} {:>9} {:>9} {:>9}  LAST PROGRAM\n",
        "CPU", "MODE", "PROGRAMS", "EXACT", "GONE", "LOST", "OVERRUNS", "DROPPED", "HOLD-US"
    );
    for row in listeners {
        let _ = writeln!(
            text,
            "{:<6} {:<12} {:>12} {:>12} {:>8} {:>8} {:>9} {:>9} {:>9}  {}",
            cpu(row.cpu),
            row.mode.as_str(),
            row.execs,
            row.exact,
            row.gone,
            row.lost,
            row.overruns,
            row.dropped,
            row.longest_hold_us,
            row.last_event.as_deref().unwrap_or("-")
        );
    }
    text
}

fn outputs(status: &Status) -> String {
    let mut text =
        format!("{:>12} {:>9} {:>9} {:>7} {:<9} OUTPUT\n", "WRITTEN", "LOST", "WAITING", "LAG", "STATE");
    for output in &status.outputs {
        let name = Escaped::new(output.name.as_bytes());
        let _ = writeln!(
            text,
            "{:>12} {:>9} {:>9} {:>6}s {:<9} {}",
            output.written,
            output.lost,
            output.waiting,
            output.lag_s,
            output.state.as_str(),
            name.as_str()
        );
    }
    for output in status.outputs.iter().filter(|output| output.state != Condition::Working) {
        if let Some(error) = &output.last_error {
            let (name, what) = (Escaped::new(output.name.as_bytes()), Escaped::new(error.what.as_bytes()));
            let _ = writeln!(text, "{} failed at {}: {}", name.as_str(), error.at, what.as_str());
        }
    }
    let journal = &status.journal;
    let place = if journal.on_disk {
        format!("{} in {}", bytes(journal.bytes), counted(journal.files as u64, "file", "files"))
    } else {
        "in memory only: records do not outlive the daemon".to_owned()
    };
    let dropped = match journal.dropped {
        0 => String::new(),
        dropped => format!(", {dropped} not taken for want of room"),
    };
    line(
        &mut text,
        "journal",
        &format!("{}, {place}{dropped}", counted(journal.records, "record", "records")),
    );
    text
}

/// A size for people.
fn bytes(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} bytes"),
        1024..1_048_576 => format!("{} KiB", bytes.div_ceil(1 << 10)),
        _ => format!("{} MiB", bytes.div_ceil(1 << 20)),
    }
}

fn losses(status: &Status) -> String {
    let mut text = String::new();
    let said = match &status.last_loss {
        Some(loss) => loss.what.as_str(),
        None => "none",
    };
    line(&mut text, "losses", said);
    if status.canary.looks > 0 {
        line(
            &mut text,
            "looks",
            &format!(
                "{} at all running programs, after losses",
                counted(status.canary.looks, "look", "looks")
            ),
        );
    }
    text
}

fn rules(what: &str, rules: &[Rule]) -> String {
    let mut hit: Vec<&Rule> = rules.iter().filter(|rule| rule.hits > 0).collect();
    order::by_key(&mut hit, |rule| std::cmp::Reverse(rule.hits));
    let mut text = format!("{:>12}  {what} ({} of {} took effect)\n", "HITS", hit.len(), rules.len());
    for rule in hit.iter().take(MOST_RULES) {
        let _ = writeln!(text, "{:>12}  {}", rule.hits, rule.id);
    }
    if hit.len() > MOST_RULES {
        let _ = writeln!(text, "{:>12}  and {} more", "", hit.len() - MOST_RULES);
    }
    text
}

/// A time span as people say it.
fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{} {hours} h", counted(days, "day", "days")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_spans() {
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (61, "1 min 1 s"),
            (3600, "1 h 0 min"),
            (90_000, "1 day 1 h"),
            (172_800, "2 days 0 h"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn who_is_blind_is_shouted() {
        assert_eq!(sees(&[], &[], true), "yes");
        let blind = |cpu| Blind { cpu, since: "then".into() };
        assert_eq!(
            sees(&[blind(Some(3)), blind(None)], &[], true),
            "NO: blind on CPU 3 since then, CPU other since then"
        );
    }

    #[test]
    fn what_was_not_tried_is_not_said_to_be_seen() {
        assert_eq!(sees(&[], &[], false), "not tried: [health] canary is off");
        let untried = |cpu| Untried { cpu: Some(cpu), reason: "Permission denied".into() };
        assert_eq!(sees(&[], &[untried(3)], true), "not known on CPU 3: Permission denied");
        let blind = Blind { cpu: Some(3), since: "then".into() };
        assert_eq!(
            sees(&[blind], &[untried(3), untried(1)], true),
            "NO: blind on CPU 3 since then; not known on CPU 1: Permission denied"
        );
    }
}
