//! `execwatch status`: asks the running daemon.

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use super::{print, report};
use crate::config::Config;
use crate::control::{Request, client, place};
use crate::diagnostics::Diagnostics;

#[derive(Args, Debug)]
pub(super) struct StatusArguments {
    #[command(flatten)]
    place: Place,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Where the daemon is asked.
#[derive(Args, Debug)]
pub(super) struct Place {
    /// Configuration file [default: /etc/execwatch/execwatch.toml, if there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The daemon's control socket, in place of the configured one
    #[arg(long, value_name = "PATH", conflicts_with = "config")]
    socket: Option<PathBuf>,
}

impl Place {
    /// Asks the daemon; what it says, or an exit code after the reason was told.
    pub(super) fn ask(&self, request: &Request) -> Result<Value, u8> {
        self.ask_if(request, true)
    }

    /// The same, at the place that the configuration names as far as it can be read.
    pub(super) fn ask_whatever_is_wrong(&self, request: &Request) -> Result<Value, u8> {
        self.ask_if(request, false)
    }

    fn ask_if(&self, request: &Request, right: bool) -> Result<Value, u8> {
        let socket = match &self.socket {
            Some(socket) => socket.clone(),
            None => {
                let diagnostics = Diagnostics::default();
                let config = Config::load(self.config.as_deref(), &diagnostics);
                if right && let Some(code) = report(&diagnostics.into_list()) {
                    return Err(code);
                }
                place::path(&config.runtime_folder)
            }
        };
        client::ask(&socket, request).map_err(|error| {
            eprintln!("execwatch: {error}");
            error.code()
        })
    }
}

pub(super) fn run(arguments: &StatusArguments) -> u8 {
    let status = match arguments.place.ask(&Request::new("status")) {
        Ok(status) => status,
        Err(code) => return code,
    };
    if arguments.json {
        return print(&format!("{status}\n"));
    }
    print(&people(&status))
}

/// The status for people.
fn people(status: &Value) -> String {
    let mut text = String::new();
    for (name, value) in status.as_object().into_iter().flatten() {
        match value {
            Value::Object(inner) => {
                text += &format!("{name}\n");
                for (name, value) in inner {
                    text += &format!("  {name:<18} {value}\n");
                }
            }
            Value::String(value) => text += &format!("{name:<20} {value}\n"),
            value => text += &format!("{name:<20} {value}\n"),
        }
    }
    text
}
