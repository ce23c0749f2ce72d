//! `execwatch watch`: what the daemon tells as it comes, in a view of the terminal or as lines.
//!
//! [`view`] is what is known and what keys do, [`frame`] draws it, both without I/O; [`screen`] is the terminal and
//! [`live`] brings them together.

mod frame;
mod keys;
mod live;
mod screen;
mod view;

use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;

use clap::Args;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::exit;
use super::status::Place;
use crate::control::Request;
use crate::control::client::Listening;

#[derive(Args, Debug)]
#[group(skip)]
pub(super) struct WatchArguments {
    #[command(flatten)]
    place: Place,
    /// Print JSON, a line each, also on a terminal
    #[arg(long)]
    json: bool,
}

/// A line of the daemon's.
#[derive(Debug, Default, Deserialize)]
struct Line<'l> {
    /// A record as the outputs have it.
    #[serde(borrow, default)]
    record: Option<&'l RawValue>,
    /// The same as a line of text.
    #[serde(default)]
    text: Option<String>,
    /// So many records were missed before the next.
    #[serde(default)]
    missed: Option<u64>,
    /// How things stand.
    #[serde(default)]
    state: Option<Value>,
}

pub(super) fn run(arguments: &WatchArguments) -> u8 {
    let live = !arguments.json && std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    let form = match (live, arguments.json) {
        (true, _) => "all",
        (false, true) => "json",
        (false, false) => "text",
    };
    let mut request = Request::new("watch");
    request.arguments.insert("form".to_owned(), form.into());
    let listening = match arguments.place.listen(&request) {
        Ok(listening) => listening,
        Err(code) => return code,
    };
    if live { live::run(listening, &arguments.place) } else { lines(listening) }
}

/// Prints each record until the daemon ends, or nobody reads any more.
fn lines(mut listening: Listening) -> u8 {
    let mut out = std::io::stdout();
    loop {
        // Also while nothing comes: whoever has closed the pipe is not to be waited for.
        let mut waited =
            [PollFd::new(listening.as_fd(), PollFlags::POLLIN), PollFd::new(out.as_fd(), PollFlags::empty())];
        // An interruption only means looking again.
        let _ = poll(&mut waited, PollTimeout::NONE);
        let [heard, gone] = waited.map(|fd| fd.any().unwrap_or(false));
        if gone {
            return exit::OK;
        }
        if !heard {
            continue;
        }
        let received = match listening.read() {
            Ok(Some(received)) => received,
            ended => return over(ended.err()),
        };
        let mut text = Vec::new();
        for line in received {
            let Ok(line) = serde_json::from_slice::<Line<'_>>(&line) else { continue };
            if let Some(missed) = line.missed {
                eprintln!("execwatch: {}", missed_text(missed));
            }
            if let Some(shown) = line.record.map(RawValue::get).or(line.text.as_deref()) {
                text.extend_from_slice(shown.as_bytes());
                text.push(b'\n');
            }
        }
        match out.write_all(&text).and_then(|()| out.flush()) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return exit::OK,
            Err(error) => {
                eprintln!("execwatch: cannot write to standard output: {error}");
                return exit::IO;
            }
        }
    }
}

fn missed_text(missed: u64) -> String {
    let records = crate::diagnostics::counted(missed, "record was", "records were");
    format!("{records} missed: they came faster than they were read; the outputs have them")
}

/// Says that the daemon tells nothing more; the exit code.
fn over(error: Option<std::io::Error>) -> u8 {
    match error {
        Some(error) => eprintln!("execwatch: the daemon cannot be heard any more: {error}"),
        None => eprintln!("execwatch: the daemon has ended"),
    }
    exit::UNAVAILABLE
}
