//! What can be asked at the control socket.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::reload::{ReloadStatus, Reloader};
use super::viewing;
use crate::calendar;
use crate::control::{Commands, Refusal};
use crate::health::metrics;
use crate::health::status::{Health, Status};
use crate::incident::keeper::Decider;
use crate::incident::store::Decision;
use crate::journal::shared::Shared;
use crate::process::queue::ExecQueue;
use crate::response::orders::Orders;

/// How long a reload is waited for; a client waits a little longer. It takes a fraction of a second.
const RELOAD_TIME: Duration = Duration::from_secs(15);

/// The commands and what they do. `http`: metrics are also answered to a GET.
pub(super) fn commands(
    health: &Arc<Health>,
    journal: &Arc<Shared>,
    orders: &Orders,
    worker: &ExecQueue,
    reloader: &Reloader,
    incidents: Option<Decider>,
    http: bool,
) -> Commands {
    let mut commands = Commands::default();
    let worker = worker.clone();
    orders.add_to(&mut commands, move || worker.wake());
    let host = super::setup::this_host().name;
    commands.add_stream("watch", viewing::begin(journal, health, orders, incidents.clone(), host));
    let (asked, orders, reloads) = (Arc::clone(health), orders.clone(), reloader.clone());
    commands.add("status", move |_| {
        let status = Status {
            responses: serde_json::to_value(orders.state()).unwrap_or_default(),
            reloads: told(&reloads.status()),
            ..asked.status()
        };
        serde_json::to_value(status).map_err(|error| Refusal::failed(error.to_string()))
    });
    let asked = Arc::clone(health);
    commands.add("metrics", move |_| Ok(Value::String(metrics::exposition(&asked.status()))));
    if http {
        let asked = Arc::clone(health);
        commands.add_page("/metrics", move || (metrics::MEDIA_TYPE, metrics::exposition(&asked.status())));
    }
    commands.add("incident", move |request| {
        let text = |key: &str| request.arguments.get(key).and_then(Value::as_str);
        let id = text("id").ok_or_else(|| Refusal::usage("`id` is missing".to_owned()))?;
        let decision = request.arguments.get("decision").cloned().unwrap_or_default();
        let decision: Decision = serde_json::from_value(decision)
            .map_err(|error| Refusal::usage(format!("`decision`: {error}")))?;
        let decider = incidents.as_ref().ok_or_else(|| Refusal::failed("[incident] enabled is false"))?;
        match decider.decide(id, decision) {
            Ok(true) => Ok(json!({ "id": id })),
            Ok(false) => Err(Refusal::usage(format!("there is no incident `{id}`"))),
            Err(message) => Err(Refusal::failed(message)),
        }
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
        "last_at": last.map(|(time_ns, _)| calendar::rfc3339(*time_ns)),
        "at_next_start": status.at_next_start,
    })
}
