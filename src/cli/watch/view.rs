//! What the view knows, and what keys do: without I/O and without a clock.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::Value;

use super::keys::Key;
use crate::rules::model::{SEVERITIES, Severity};

/// Alerts that are remembered.
pub(super) const MOST_ALERTS: usize = 500;
/// Ancestors of an alert that are remembered.
const MOST_ANCESTORS: usize = 64;
/// How far a page goes.
const PAGE: usize = 10;

/// An alert, as far as it is shown. Text is as in JSON.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Alert {
    pub(super) id: String,
    /// RFC 3339.
    pub(super) time: String,
    pub(super) severity: Severity,
    pub(super) title: String,
    pub(super) user: String,
    pub(super) pid: u64,
    pub(super) command: String,
    /// Pid and command of each, the parent first.
    pub(super) ancestors: Vec<(u64, String)>,
    /// How the way to it began.
    pub(super) entry: Option<String>,
    pub(super) incident: Option<String>,
    /// Action and outcome.
    pub(super) response: Option<(String, String)>,
}

impl Alert {
    /// Of a record; `None` if it is no alert.
    fn of(record: &Value) -> Option<Alert> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let own = &record["execwatch"];
        if record["event"]["dataset"] != "execwatch.alert" {
            return None;
        }
        let process = &record["process"];
        let word = own["severity"].as_str().unwrap_or_default();
        let severity = SEVERITIES.iter().find(|(known, _)| *known == word);
        let ancestors = own["ancestors"].as_array().map(Vec::as_slice).unwrap_or_default();
        let parents = if ancestors.is_empty() { std::slice::from_ref(&process["parent"]) } else { ancestors };
        let user = &record["user"];
        let response = &own["response"];
        Some(Alert {
            id: text(&record["event"]["id"])?,
            time: text(&record["@timestamp"]).unwrap_or_default(),
            severity: severity.map_or(Severity::Info, |&(_, severity)| severity),
            title: text(&record["message"]).unwrap_or_default(),
            user: text(&user["name"]).or(text(&user["id"])).unwrap_or_else(|| "?".to_owned()),
            pid: process["pid"].as_u64().unwrap_or(0),
            command: command(process),
            ancestors: parents
                .iter()
                .filter(|parent| parent.is_object())
                .take(MOST_ANCESTORS)
                .map(|ancestor| (ancestor["pid"].as_u64().unwrap_or(0), command(ancestor)))
                .collect(),
            entry: text(&process["entry_leader"]["entry_meta"]["type"]),
            incident: text(&own["incident"]),
            response: text(&response["action"]).zip(text(&response["outcome"])),
        })
    }

    /// Its program is stopped, as far as the alert tells.
    fn held(&self) -> bool {
        self.response
            .as_ref()
            .is_some_and(|(_, outcome)| matches!(outcome.as_str(), "held" | "stopped" | "frozen"))
    }
}

/// The command line of a process, as far as it is known.
fn command(process: &Value) -> String {
    let args =
        process["args"].as_array().map(|args| args.iter().filter_map(Value::as_str).collect::<Vec<_>>());
    let line = args.filter(|args| !args.is_empty()).map(|args| args.join(" "));
    let name = || process["executable"].as_str().or(process["name"].as_str()).map(str::to_owned);
    line.or_else(name).unwrap_or_else(|| "?".to_owned())
}

/// What is to be done for a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Todo {
    Nothing,
    Quit,
    /// Write down that somebody looks at this incident.
    Acknowledge(String),
    /// `release` or `kill` what is held by the id of its alert.
    Order(&'static str, String),
}

/// What is known.
#[derive(Debug, Default)]
pub(super) struct View {
    /// The newest first.
    pub(super) alerts: VecDeque<Alert>,
    /// The place of the selected one; 0 stays with what is newest.
    pub(super) selected: usize,
    /// All alerts that came.
    pub(super) came: u64,
    /// Records that came too fast.
    pub(super) missed: u64,
    /// What the daemon said last of itself.
    pub(super) state: Value,
    /// Execs and alerts a second.
    pub(super) rates: Option<(f64, f64)>,
    /// A line to be read.
    pub(super) message: String,
    /// What is asked before it is done.
    asked: Option<Todo>,
    /// When the state before came, since the view was opened.
    state_at: Duration,
}

impl View {
    /// Takes a record.
    pub(super) fn record(&mut self, record: &Value) {
        let Some(alert) = Alert::of(record) else { return };
        self.came += 1;
        if self.selected > 0 {
            self.selected += 1;
        }
        self.alerts.push_front(alert);
        self.alerts.truncate(MOST_ALERTS);
        self.selected = self.selected.min(self.alerts.len() - 1);
    }

    /// Takes what the daemon says of itself, at a moment since the view was opened.
    pub(super) fn take_state(&mut self, state: Value, now: Duration) {
        let since = now.saturating_sub(self.state_at).as_secs_f64();
        let rate = |key: &str| {
            let more = state[key].as_u64()?.checked_sub(self.state[key].as_u64()?)?;
            (since > 0.0).then(|| more as f64 / since)
        };
        self.rates = rate("execs").zip(rate("alerts"));
        self.state_at = now;
        self.state = state;
    }

    /// The selected alert.
    pub(super) fn selection(&self) -> Option<&Alert> {
        self.alerts.get(self.selected)
    }

    /// Does what a key asks for, or says why that cannot be.
    pub(super) fn key(&mut self, key: Key) -> Todo {
        if let Some(asked) = self.asked.take() {
            self.message.clear();
            return if key == Key::Letter('y') { asked } else { Todo::Nothing };
        }
        let last = self.alerts.len().saturating_sub(1);
        self.message.clear();
        match key {
            Key::Up => self.selected = self.selected.saturating_sub(1),
            Key::Down => self.selected = (self.selected + 1).min(last),
            Key::PageUp => self.selected = self.selected.saturating_sub(PAGE),
            Key::PageDown => self.selected = (self.selected + PAGE).min(last),
            Key::Home => self.selected = 0,
            Key::End => self.selected = last,
            Key::Letter('q') => return Todo::Quit,
            Key::Letter('a') => return self.acknowledge(),
            Key::Letter('r') => return self.order("release"),
            Key::Letter('k') => return self.order("kill"),
            Key::Letter(_) => {}
        }
        Todo::Nothing
    }

    fn acknowledge(&mut self) -> Todo {
        let Some(alert) = self.selection() else { return self.say("no alert has come yet") };
        match &alert.incident {
            Some(id) => Todo::Acknowledge(id.clone()),
            None => self.say("this alert belongs to no incident"),
        }
    }

    fn order(&mut self, order: &'static str) -> Todo {
        let Some(alert) = self.selection() else { return self.say("no alert has come yet") };
        if !alert.held() {
            let responses = &self.state["responses"];
            let why = match (responses["mode"].as_str(), &alert.response) {
                (Some("off"), _) => "responses are off: see [response] mode",
                (Some("dry-run"), _) => "responses are a dry run: see [response] mode",
                (_, None) if responses["armed"] == false => "responses are disarmed: see execwatch arm",
                (_, None) => "no rule that matched has the action hold, stop or freeze",
                _ => "nothing was stopped",
            };
            return self.say(&format!("there is nothing to {order} here: {why}"));
        }
        let todo = Todo::Order(order, alert.id.clone());
        if order == "kill" {
            self.message = format!("kill pid {}? y: yes, any other key: no", alert.pid);
            self.asked = Some(todo);
            return Todo::Nothing;
        }
        todo
    }

    fn say(&mut self, message: &str) -> Todo {
        message.clone_into(&mut self.message);
        Todo::Nothing
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    /// A record as the daemon writes it.
    pub(in super::super) fn record(name: &str) -> Value {
        let path = format!("{}/tests/golden/alerts/{name}.json", env!("CARGO_MANIFEST_DIR"));
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    #[test]
    fn the_newest_is_selected_until_somebody_moves() {
        let mut view = View::default();
        view.record(&record("netcat"));
        view.record(&record("notice"));
        view.record(&record("container"));
        assert_eq!((view.came, view.selected), (2, 0));
        assert_eq!(view.key(Key::Down), Todo::Nothing);
        view.record(&record("long"));
        assert_eq!(
            (view.selected, view.selection().unwrap().id.as_str()),
            (2, record("netcat")["event"]["id"].as_str().unwrap())
        );
        for _ in 0..2 * MOST_ALERTS {
            view.record(&record("netcat"));
        }
        assert_eq!((view.alerts.len(), view.selected), (MOST_ALERTS, MOST_ALERTS - 1));
        view.key(Key::Home);
        assert_eq!(view.selected, 0);
        assert_eq!(view.key(Key::Letter('q')), Todo::Quit);
    }

    #[test]
    fn rates_are_of_the_last_second() {
        let mut view = View::default();
        view.take_state(json!({ "execs": 100, "alerts": 4 }), Duration::from_secs(1));
        assert_eq!(view.rates, None);
        view.take_state(json!({ "execs": 160, "alerts": 5 }), Duration::from_secs(3));
        assert_eq!(view.rates, Some((30.0, 0.5)));
        // Another daemon began at nought.
        view.take_state(json!({ "execs": 1, "alerts": 5 }), Duration::from_secs(4));
        assert_eq!(view.rates, None);
    }

    #[test]
    fn a_key_that_can_do_nothing_says_why() {
        let mut view = View::default();
        let said = |view: &mut View, letter, part: &str| {
            assert_eq!(view.key(Key::Letter(letter)), Todo::Nothing);
            assert!(view.message.contains(part), "{}", view.message);
        };
        said(&mut view, 'a', "no alert has come yet");
        said(&mut view, 'k', "no alert has come yet");
        view.record(&record("netcat"));
        said(&mut view, 'a', "belongs to no incident");
        said(&mut view, 'r', "no rule that matched has the action");
        view.state = json!({ "responses": { "mode": "off", "armed": true } });
        said(&mut view, 'r', "responses are off");
        view.state = json!({ "responses": { "mode": "enforce", "armed": false } });
        said(&mut view, 'k', "responses are disarmed");
        let mut in_one = record("response-held");
        in_one["execwatch"]["incident"] = "1abc".into();
        view.record(&in_one);
        assert_eq!(view.key(Key::Letter('a')), Todo::Acknowledge("1abc".to_owned()));
        let id = in_one["event"]["id"].as_str().unwrap().to_owned();
        assert_eq!(view.key(Key::Letter('r')), Todo::Order("release", id.clone()));
        said(&mut view, 'k', "kill pid 4242?");
        assert_eq!(view.key(Key::Letter('n')), Todo::Nothing);
        said(&mut view, 'k', "kill pid 4242?");
        assert_eq!(view.key(Key::Letter('y')), Todo::Order("kill", id));
    }
}
