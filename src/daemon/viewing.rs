//! What `execwatch watch` is told: records as they come, what was missed of them, and once a second how things stand.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::control::{Begin, Refusal, Request, Stream, Waker};
use crate::health::status::Health;
use crate::incident::keeper::Decider;
use crate::incident::open::Watcher;
use crate::incident::tell;
use crate::journal::feed::Viewer;
use crate::journal::shared::Shared;
use crate::response::orders::Orders;

/// Bytes of records that are written for a viewer before it has taken any of them.
const AT_ONCE: usize = 64 << 10;
/// How often it is said how things stand.
const STATE_EVERY: Duration = Duration::from_secs(1);

/// What a viewer wants to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// Each record as a line of text.
    Text,
    /// Each record as JSON.
    Json,
    /// That, and how things stand.
    All,
}

/// Begins to tell a viewer.
pub(super) fn begin(
    journal: &Arc<Shared>,
    health: &Arc<Health>,
    orders: &Orders,
    incidents: Option<Decider>,
    host: String,
) -> Begin {
    let (journal, health, orders) = (Arc::clone(journal), Arc::clone(health), orders.clone());
    Box::new(move |request: &Request, waker: &Waker| {
        let wanted = match request.arguments.get("form").and_then(Value::as_str) {
            Some("text") => Wanted::Text,
            Some("json") => Wanted::Json,
            Some("all") => Wanted::All,
            _ => return Err(Refusal::usage("`form` must be text, json or all")),
        };
        let waker = waker.clone();
        let watcher = match &incidents {
            Some(decider) if wanted == Wanted::All => Some(decider.watch()),
            _ => None,
        };
        Ok(Box::new(Viewing {
            wanted,
            viewer: journal.feed.join(Box::new(move || waker.wake())),
            health: Arc::clone(&health),
            orders: orders.clone(),
            incidents: watcher,
            host: host.clone(),
            next_state: Instant::now(),
            begun: false,
        }))
    })
}

struct Viewing {
    wanted: Wanted,
    viewer: Viewer,
    health: Arc<Health>,
    orders: Orders,
    incidents: Option<Watcher>,
    host: String,
    next_state: Instant,
    /// That it is told everything from now on was said.
    begun: bool,
}

/// A line with a record in it as it was written.
#[derive(serde::Serialize)]
struct Line<'r> {
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<&'r RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'r str>,
}

impl Stream for Viewing {
    fn more(&mut self, into: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.begun, true) {
            push(into, &json!({ "result": "watching" }));
        }
        let (missed, records) = self.viewer.take(AT_ONCE);
        if missed > 0 {
            push(into, &json!({ "missed": missed }));
        }
        for shown in records {
            // It is JSON: the daemon has written it.
            let raw = || serde_json::from_slice::<&RawValue>(shown.json.as_bytes()).ok();
            push(
                into,
                &match self.wanted {
                    Wanted::Text => Line { record: None, text: Some(&shown.text) },
                    Wanted::Json | Wanted::All => Line { record: raw(), text: None },
                },
            );
        }
        let now = Instant::now();
        if self.wanted == Wanted::All && now >= self.next_state {
            self.next_state = now + STATE_EVERY;
            push(into, &json!({ "state": self.state() }));
        }
    }
}

impl Viewing {
    fn state(&self) -> Value {
        let status = self.health.status();
        let totals = &status.totals;
        let open = self.incidents.as_ref().map(Watcher::rows);
        json!({
            "uptime_s": status.uptime_s,
            "execs": totals.execs,
            "alerts": totals.alerts,
            "lost": totals.lost + totals.dropped + totals.gone,
            "blind": status.blind.len(),
            "responses": self.orders.state(),
            "incidents": open.map(|open| json!({
                "count": open.count,
                "open": open.rows.iter().map(|row| tell::incident(row, &self.host)).collect::<Vec<_>>(),
            })),
        })
    }
}

fn push(into: &mut Vec<u8>, line: &impl serde::Serialize) {
    let before = into.len();
    match serde_json::to_writer(&mut *into, line) {
        Ok(()) => into.push(b'\n'),
        // Nothing here can fail to be written; half a line would be worse than none.
        Err(_) => into.truncate(before),
    }
}
