//! What can be asked at the control socket.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::reload::{ReloadStatus, Reloader};
use crate::control::{Commands, Refusal};
use crate::health::Counters;
use crate::process::queue::ExecSender;
use crate::response::orders::Orders;

/// How long a reload is waited for; a client waits a little longer. It takes a fraction of a second.
const RELOAD_TIME: Duration = Duration::from_secs(15);

/// The commands and what they do.
pub(super) fn commands(
    counters: &Arc<Counters>,
    orders: &Orders,
    worker: &ExecSender,
    reloader: &Reloader,
) -> Commands {
    let mut commands = Commands::default();
    let worker = worker.clone();
    orders.add_to(&mut commands, move || worker.wake());
    let orders = orders.clone();
    let (counters, started) = (Arc::clone(counters), Instant::now());
    let reloads = reloader.clone();
    commands.add("status", move |_| {
        Ok(json!({
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "uptime_s": started.elapsed().as_secs(),
            "reloads": told(&reloads.status()),
            "totals": counters.totals(),
            "responses": orders.state(),
        }))
    });
    let reloader = reloader.clone();
    commands.add("reload", move |_| match reloader.reload(RELOAD_TIME) {
        Some(outcome) => Ok(json!(outcome)),
        None => Err(Refusal::failed(format!(
            "the reload is not finished after {} s; the daemon goes on with it and logs the outcome",
            RELOAD_TIME.as_secs()
        ))),
    });
    commands
}

/// The outcomes of reloads.
fn told(status: &ReloadStatus) -> Value {
    let last = status.last.as_ref();
    json!({
        "accepted": status.accepted,
        "refused": status.refused,
        "last": last.map(|(_, outcome)| &outcome.message),
        "last_time_s": last.map(|(time_ns, _)| time_ns / 1_000_000_000),
        "at_next_start": last.map(|(_, outcome)| &outcome.at_next_start),
    })
}
