//! An administrator's orders about what is held, from the thread of the control socket to the worker, and the worker's
//! answer.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use serde::Serialize;
use serde_json::{Value, json};

use super::disarm::Switch;
use super::held::Order;
use crate::control::{Answer, Commands, Refusal, Request};

/// Orders that may wait; the socket's thread gives one at a time.
const WAITING: usize = 16;
/// How long the worker may take, which may have a queue of alerts before it.
const PATIENCE: Duration = Duration::from_secs(10);

/// An order on its way.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) id: String,
    pub(super) order: Order,
    pub(super) answer: Sender<Result<String, String>>,
}

/// What `status` says of responses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct State {
    /// `off`, `dry-run` or `enforce`.
    pub mode: &'static str,
    /// They are not stopped by `execwatch disarm`.
    pub armed: bool,
    /// When they are armed again by themselves, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disarmed_until_s: Option<u64>,
    /// Programs that are stopped, and control groups that are frozen.
    pub held: usize,
}

/// The side of the control socket.
#[derive(Debug, Clone)]
pub struct Orders {
    sent: Sender<Sent>,
    state: Arc<Mutex<State>>,
    switch: Switch,
}

/// The worker's side.
#[derive(Debug)]
pub struct OrderReceiver {
    pub(super) sent: Receiver<Sent>,
    state: Arc<Mutex<State>>,
}

/// Both sides, for the switch in a runtime folder.
pub fn orders(runtime: &Path) -> (Orders, OrderReceiver) {
    let (sender, receiver) = bounded(WAITING);
    let state = Arc::default();
    let switch = Switch::new(runtime);
    (Orders { sent: sender, state: Arc::clone(&state), switch }, OrderReceiver { sent: receiver, state })
}

impl Orders {
    /// What the worker said last, and how the switch is now.
    pub fn state(&self) -> State {
        let said = self.state.lock().unwrap_or_else(PoisonError::into_inner).clone();
        State { armed: !self.switch.thrown(), ..said }
    }

    /// Adds the commands `release` and `kill`, which take the id of what is held; `wake` makes the worker look.
    pub fn add_to(&self, commands: &mut Commands, wake: impl Fn() + Clone + Send + 'static) {
        for (name, order) in [("release", Order::Release), ("kill", Order::Kill)] {
            let (orders, wake) = (self.clone(), wake.clone());
            commands.add(name, move |request| orders.give(request, order, &wake));
        }
    }

    fn give(&self, request: &Request, order: Order, wake: &impl Fn()) -> Answer {
        let Some(id) = request.arguments.get("id").and_then(Value::as_str) else {
            return Err(Refusal::usage("the request has no `id` of what is held"));
        };
        let (answer, answered) = bounded(1);
        let busy = || {
            Refusal::failed("the daemon is busy; what was asked may still be done: look at `execwatch held`")
        };
        self.sent.try_send(Sent { id: id.to_owned(), order, answer }).map_err(|_| busy())?;
        wake();
        match answered.recv_timeout(PATIENCE) {
            Ok(Ok(message)) => Ok(json!({ "message": message })),
            Ok(Err(message)) => Err(Refusal::failed(message)),
            Err(_) => Err(busy()),
        }
    }
}

impl OrderReceiver {
    /// Says how responses stand.
    pub(super) fn tell(&self, state: State) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }
}
