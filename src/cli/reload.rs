//! `execwatch reload`: has the running daemon read its configuration and rules anew.

use clap::Args;
use serde_json::Value;

use super::status::Place;
use super::{exit, print};
use crate::control::Request;

#[derive(Args, Debug)]
#[group(skip)]
pub(super) struct ReloadArguments {
    #[command(flatten)]
    place: Place,
}

pub(super) fn run(arguments: &ReloadArguments) -> u8 {
    // The configuration may be what is wrong: the daemon, which has the one it runs with, is asked all the same.
    let outcome = match arguments.place.ask(&Request::new("reload")) {
        Ok(outcome) => outcome,
        Err(code) => return code,
    };
    for diagnostic in outcome["diagnostics"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        eprintln!("{diagnostic}");
    }
    let message = outcome["message"].as_str().unwrap_or_default();
    if outcome["accepted"] == true {
        return print(&format!("execwatch: {message}\n"));
    }
    eprintln!("execwatch: {message}");
    exit::CONFIG
}
