//! What can be asked at the control socket.

use std::sync::Arc;
use std::time::Instant;

use serde_json::json;

use crate::control::Commands;
use crate::health::Counters;
use crate::process::queue::ExecSender;
use crate::response::orders::Orders;

/// The commands and what they do.
pub(super) fn commands(counters: &Arc<Counters>, orders: &Orders, worker: &ExecSender) -> Commands {
    let mut commands = Commands::default();
    let worker = worker.clone();
    orders.add_to(&mut commands, move || worker.wake());
    let orders = orders.clone();
    let (counters, started) = (Arc::clone(counters), Instant::now());
    commands.add("status", move |_| {
        Ok(json!({
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "uptime_s": started.elapsed().as_secs(),
            "totals": counters.totals(),
            "responses": orders.state(),
        }))
    });
    commands
}
