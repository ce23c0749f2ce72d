//! What can be asked at the control socket.

use std::sync::Arc;

use serde_json::Value;

use crate::control::{Commands, Refusal};
use crate::health::metrics;
use crate::health::status::{Health, Status};
use crate::process::queue::ExecSender;
use crate::response::orders::Orders;

/// The commands and what they do. `http`: metrics are also answered to a GET.
pub(super) fn commands(health: &Arc<Health>, orders: &Orders, worker: &ExecSender, http: bool) -> Commands {
    let mut commands = Commands::default();
    let worker = worker.clone();
    orders.add_to(&mut commands, move || worker.wake());
    let (asked, orders) = (Arc::clone(health), orders.clone());
    commands.add("status", move |_| {
        let status =
            Status { responses: serde_json::to_value(orders.state()).unwrap_or_default(), ..asked.status() };
        serde_json::to_value(status).map_err(|error| Refusal::failed(error.to_string()))
    });
    let asked = Arc::clone(health);
    commands.add("metrics", move |_| Ok(Value::String(metrics::exposition(&asked.status()))));
    if http {
        let asked = Arc::clone(health);
        commands.add_page("/metrics", move || (metrics::MEDIA_TYPE, metrics::exposition(&asked.status())));
    }
    commands
}
