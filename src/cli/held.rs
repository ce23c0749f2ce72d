//! `execwatch held`, `release`, `kill`: what rules have stopped, and what becomes of it; `disarm`, `arm`: the switch.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use super::status::Place;
use super::{exit, print, report};
use crate::calendar;
use crate::clock;
use crate::config::Config;
use crate::control::Request;
use crate::diagnostics::Diagnostics;
use crate::response::disarm::Switch;
use crate::response::held::{Entry, Held};

#[derive(Args, Debug)]
#[group(skip)]
pub(super) struct HeldArguments {
    /// Configuration file [default: /etc/execwatch/execwatch.toml, if there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON, a line each
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
#[group(skip)]
pub(super) struct OrderArguments {
    /// Ids of what is held, or beginnings of them, as `execwatch held` lists them
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
    #[command(flatten)]
    place: Place,
}

#[derive(Args, Debug)]
#[group(skip)]
pub(super) struct DisarmArguments {
    /// Configuration file [default: /etc/execwatch/execwatch.toml, if there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Arm again by itself after this time, such as 10m or 2h
    #[arg(long = "for", value_name = "TIME", value_parser = seconds)]
    time: Option<u64>,
}

#[derive(Args, Debug)]
#[group(skip)]
pub(super) struct ArmArguments {
    /// Configuration file [default: /etc/execwatch/execwatch.toml, if there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// A time in seconds.
pub(super) fn seconds(text: &str) -> Result<u64, String> {
    let at = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let unit_s = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err("give a number and a unit: 30s, 10m, 2h or 1d".to_owned()),
    };
    let number: Option<u64> = number.parse().ok().filter(|&number| number > 0);
    number
        .and_then(|number| number.checked_mul(unit_s))
        .ok_or_else(|| "the time must be more than nothing, and no more than a number can hold".to_owned())
}

fn configured(path: Option<&PathBuf>) -> Result<Config, u8> {
    let diagnostics = Diagnostics::default();
    let config = Config::load(path.map(PathBuf::as_path), &diagnostics);
    report(&diagnostics.into_list()).map_or(Ok(config), Err)
}

pub(super) fn list(arguments: &HeldArguments) -> u8 {
    // To others a folder that they may not read looks like one in which nothing is.
    if !nix::unistd::geteuid().is_root() {
        eprintln!("execwatch: what is held is for root alone");
        return exit::PERMISSION;
    }
    let config = match configured(arguments.config.as_ref()) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let entries = match Held::list(&config.runtime_folder) {
        Ok(entries) => entries,
        Err(error) => {
            eprintln!(
                "execwatch: what is held cannot be read in {}: {error}",
                config.runtime_folder.display()
            );
            return if error.kind() == std::io::ErrorKind::PermissionDenied {
                exit::PERMISSION
            } else {
                exit::OS
            };
        }
    };
    let mut text = String::new();
    for entry in &entries {
        if arguments.json {
            text += &serde_json::to_string(entry).unwrap_or_default();
            text.push('\n');
        } else {
            text += &shown(entry);
        }
    }
    if entries.is_empty() && !arguments.json {
        text += "nothing is held\n";
    }
    print(&text)
}

fn shown(entry: &Entry) -> String {
    let time = |seconds: u64| calendar::rfc3339(seconds.saturating_mul(1_000_000_000));
    let mut text = format!("{}  {}  {} [{}]\n", entry.id, entry.severity, entry.title, entry.rule);
    let mut line = |name: &str, value: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "    {name:8} {value}");
    };
    line("command", &entry.command);
    line("program", &format!("{} (pid {})", entry.exe, entry.pid));
    if let Some(group) = &entry.group {
        line("frozen", &group.display().to_string());
    }
    line("user", &format!("{}, terminal {}", entry.user, entry.tty));
    line("under", &entry.ancestors.join(" < "));
    let until = match entry.until_s {
        None => "until somebody releases it".to_owned(),
        Some(_) if entry.stands_since_s.is_some() => {
            "until somebody decides: responses are disarmed or not enforced".to_owned()
        }
        Some(until) => format!("until {}", time(until)),
    };
    line("held", &format!("since {}, {until}", time(entry.since_s)));
    text
}

/// Gives an order about each id; the worst of their exit codes.
pub(super) fn order(command: &'static str, arguments: &OrderArguments) -> u8 {
    let mut worst = exit::OK;
    for id in &arguments.ids {
        let mut request = Request::new(command);
        request.arguments.insert("id".to_owned(), Value::String(id.clone()));
        match arguments.place.ask(&request) {
            Ok(answer) => {
                let said = answer.get("message").and_then(Value::as_str).unwrap_or_default();
                worst = worse(worst, print(&format!("{said}\n")));
            }
            Err(code) => worst = worse(worst, code),
        }
    }
    worst
}

/// The worse of two exit codes: what stands in the way of every order, before what is said of one id.
fn worse(one: u8, other: u8) -> u8 {
    let rank = |code: u8| match code {
        exit::OK => 0,
        exit::SOFTWARE => 1,
        exit::USAGE => 2,
        exit::IO => 3,
        exit::UNAVAILABLE => 4,
        _ => 5,
    };
    // Of equals the first.
    if rank(other) > rank(one) { other } else { one }
}

pub(super) fn disarm(arguments: &DisarmArguments) -> u8 {
    let config = match configured(arguments.config.as_ref()) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let switch = Switch::new(&config.runtime_folder);
    let until_s = arguments.time.map(|time| (clock::realtime_ns() / 1_000_000_000).saturating_add(time));
    match switch.disarm(until_s) {
        Ok(()) => {
            let until = until_s.map_or("`execwatch arm`".to_owned(), |until| {
                calendar::rfc3339(until.saturating_mul(1_000_000_000))
            });
            print(&format!("responses are disarmed until {until}\n"))
        }
        Err(error) => failed(&switch, "made", &error),
    }
}

pub(super) fn arm(arguments: &ArmArguments) -> u8 {
    let config = match configured(arguments.config.as_ref()) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let switch = Switch::new(&config.runtime_folder);
    match switch.arm() {
        Ok(()) => print("responses are armed, as far as [response] mode allows them\n"),
        Err(error) => failed(&switch, "taken away", &error),
    }
}

fn failed(switch: &Switch, done: &str, error: &std::io::Error) -> u8 {
    eprintln!("execwatch: {} cannot be {done}: {error}", switch.path().display());
    if error.kind() == std::io::ErrorKind::PermissionDenied { exit::PERMISSION } else { exit::OS }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_of_several_stays() {
        let of = |codes: &[u8]| codes.iter().fold(exit::OK, |worst, &code| worse(worst, code));
        assert_eq!(of(&[exit::OK, exit::OK]), exit::OK);
        assert_eq!(of(&[exit::SOFTWARE, exit::OK]), exit::SOFTWARE);
        assert_eq!(of(&[exit::UNAVAILABLE, exit::SOFTWARE]), exit::UNAVAILABLE);
        assert_eq!(of(&[exit::SOFTWARE, exit::PERMISSION, exit::UNAVAILABLE]), exit::PERMISSION);
    }

    #[test]
    fn times() {
        assert_eq!(seconds("30s"), Ok(30));
        assert_eq!(seconds("10m"), Ok(600));
        assert_eq!(seconds("1d"), Ok(86_400));
        for wrong in ["", "10", "m", "0s", "1x", "-1s", "99999999999999999999s", "18446744073709551615d"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
