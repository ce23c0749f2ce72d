//! Repeats and floods of alerts become records that count them, and nothing else is left out.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod support;

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use execwatch::alert::{Alert, HostClock};
use execwatch::diagnostics::Diagnostics;
use execwatch::evaluate::Evaluator;
use execwatch::fold::{Admission, Folder, Settings, Why};
use execwatch::process::details::Namespaces;
use execwatch::process::exec::{Exec, Image};
use execwatch::process::names::Accounts;
use execwatch::process::relatives::{Processes, Relative};
use execwatch::rules::load::{Places, load};
use execwatch::rules::subject::Surroundings;
use serde_json::Value;
use support::{Ended, Machine};

/// A configuration with a window so long that it ends with the daemon, unless it is written anew.
const FOLDING: &str = "[rules]\nbuiltin = false\n[output.syslog]\nenabled = false\n\
    [output.file]\npath = \"{dir}/alerts.json\"\nformat = \"json\"\n[follow]\nenabled = false\n";

fn config(fold: &str) -> String {
    format!("{FOLDING}[fold]\n{fold}\n")
}

fn execute(program: &Path, argument: &str, uid: u32) {
    assert!(Command::new(program).arg(argument).uid(uid).status().unwrap().success());
}

fn folded(record: &Value) -> Option<&str> {
    record["execwatch"]["folded"].as_str()
}

fn records_of(ended: &Ended) -> Vec<&Value> {
    ended.records.iter().filter(|record| folded(record).is_some()).collect()
}

fn count(record: &Value) -> u64 {
    record["execwatch"]["count"].as_u64().unwrap()
}

#[test]
fn repeats_are_told_once_and_counted() {
    let Some(machine) = Machine::alone() else { return };
    let daemon = machine.daemon().config(&config("window = \"1h\"")).start();
    let (tool, other) = (daemon.program("tool"), daemon.program("other"));
    for number in 0..50 {
        execute(&tool, &format!("--port={number}"), 0);
    }
    // None of these is the same: another user, other arguments, another executable.
    execute(&tool, "--port=1", 12345);
    execute(&tool, "--host=1", 0);
    execute(&other, "--port=1", 0);
    daemon
        .wait_for(|alert| alert["process"]["executable"].as_str().is_some_and(|exe| exe.ends_with("/other")));
    let ended = daemon.stop();
    let alerts = ended.alerts(|_| true);
    assert_eq!(alerts.len(), 4, "{alerts:#?}");
    let records = records_of(&ended);
    assert_eq!(records.len(), 1, "{records:#?}");
    let record = records[0];
    assert_eq!((folded(record), count(record)), (Some("repeated"), 49));
    assert_eq!(record["execwatch"]["alert_id"], alerts[0]["event"]["id"]);
    assert_eq!(record["execwatch"]["command_lines"].as_array().unwrap().len(), 5);
    assert_eq!(record["execwatch"]["more_command_lines"], true);
    assert!(record["event"]["start"].as_str() <= record["event"]["end"].as_str());
    assert_eq!((ended.totals.get("alerts"), ended.totals.get("repeated")), (4, 49));
}

/// Whoever makes many alerts hides nobody else's.
#[test]
fn a_flood_is_limited_for_its_rule_and_subject_alone() {
    let Some(machine) = Machine::alone() else { return };
    let daemon = machine.daemon().config(&config("window = \"1h\"\nat-most = 10")).start();
    let tool = daemon.program("tool");
    let word = |number: usize| "x".repeat(number + 1);
    for number in 0..25 {
        execute(&tool, &word(number), 12345);
    }
    execute(&tool, "of another", 54321);
    let other = daemon.wait_for(|alert| alert["process"]["args"][1] == "of another");
    assert_eq!(other["user"]["id"], "54321");
    let ended = daemon.stop();
    assert_eq!(ended.alerts(|_| true).len(), 11);
    let records = records_of(&ended);
    assert_eq!(records.len(), 1, "{records:#?}");
    assert_eq!((folded(records[0]), count(records[0])), (Some("held-back"), 15));
    assert_eq!(records[0]["user"]["id"], "12345");
    assert_eq!(ended.totals.get("held-back"), 15);
}

#[test]
fn a_window_ends_by_itself() {
    let Some(machine) = Machine::alone() else { return };
    let daemon = machine.daemon().config(&config("window = \"1s\"")).start();
    let tool = daemon.program("tool");
    execute(&tool, "1", 0);
    execute(&tool, "2", 0);
    let record = daemon.wait_for_record("what was folded", |record| folded(record) == Some("repeated"));
    assert_eq!(count(&record), 1);
    daemon.stop();
}

/// Alerts of a rule that matches everything.
struct Alerts {
    evaluator: Evaluator,
    surroundings: Surroundings,
}

impl Alerts {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let rule = "[[rule]]\nid = 'any'\ntitle = 'Any'\nseverity = 'low'\n[rule.select.any]\n'exe|startswith' = '/'\n";
        std::fs::write(folder.path().join("any.toml"), rule).unwrap();
        let places =
            Places { builtin: false, folders: vec![folder.path().to_owned()], folders_required: true };
        let ruleset = load(&places, &Diagnostics::default()).unwrap();
        Alerts {
            evaluator: Evaluator::new(Arc::new(ruleset)),
            surroundings: Surroundings {
                accounts: Accounts::default(),
                namespaces: Namespaces::default(),
                processes: Box::new(Nobody),
                files: Arc::default(),
            },
        }
    }

    fn of(&mut self, argument: &str) -> Alert {
        let image = Image::new(Some(b"/bin/tool"), Some(&[&b"tool"[..], argument.as_bytes()]));
        let exec = Exec { image, ..Exec::default() };
        self.evaluator.evaluate(&exec, &self.surroundings, &HostClock).alert.unwrap()
    }
}

/// A host without other processes.
#[derive(Debug)]
struct Nobody;

impl Processes for Nobody {
    fn find(&self, _: u32, _: Option<u64>) -> Option<Relative> {
        None
    }
}

#[test]
fn windows_follow_each_other_while_alerts_come() {
    let (mut alerts, window) = (Alerts::new(), 10);
    let mut folder = Folder::new(Settings { enabled: true, window_ns: window, at_most: 2 });
    let mut admit = |folder: &mut Folder, argument: &str, now| folder.admit(&alerts.of(argument), now);
    assert_eq!(admit(&mut folder, "a1", 0), Admission::Told);
    assert_eq!(admit(&mut folder, "a2", 5), Admission::Repeated);
    assert!(folder.due(9, false).is_empty());
    let due = folder.due(10, false);
    assert_eq!(
        due.iter().map(|it| (it.why, it.count, it.number)).collect::<Vec<_>>(),
        [(Why::Repeated, 1, 1)]
    );
    // It went on, so the next window folds from its beginning.
    assert_eq!(admit(&mut folder, "a3", 12), Admission::Repeated);
    let due = folder.due(20, false);
    assert_eq!(due.iter().map(|it| (it.count, it.number)).collect::<Vec<_>>(), [(1, 2)]);
    // It stopped: a quiet window ends the group.
    assert!(folder.due(30, false).is_empty());
    assert_eq!(admit(&mut folder, "a4", 31), Admission::Told);
    // One other alert has room, and the third has not.
    assert_eq!(admit(&mut folder, "b", 31), Admission::Told);
    assert_eq!(admit(&mut folder, "c", 31), Admission::HeldBack);
    assert_eq!(admit(&mut folder, "c", 32), Admission::HeldBack);
    let due = folder.due(50, false);
    assert_eq!(due.iter().map(|it| (it.why, it.count)).collect::<Vec<_>>(), [(Why::HeldBack, 2)]);
    // The new window has room again.
    assert_eq!(admit(&mut folder, "d", 51), Admission::Told);
    // At the end nothing stays uncounted.
    assert_eq!(admit(&mut folder, "d", 52), Admission::Repeated);
    assert_eq!(folder.due(53, true).len(), 1);
}

/// A storm of different alerts needs bounded memory, and those without a place are told one by one.
#[test]
fn groups_are_bounded() {
    let mut alerts = Alerts::new();
    let mut folder = Folder::new(Settings { at_most: u32::MAX, ..Settings::default() });
    let words = |number: u32| format!("{number:b}").replace('0', "o").replace('1', "i");
    for number in 0..5000 {
        assert_eq!(folder.admit(&alerts.of(&words(number)), 0), Admission::Told);
    }
    assert_eq!(folder.admit(&alerts.of(&words(1)), 0), Admission::Repeated);
    assert_eq!(folder.admit(&alerts.of(&words(4999)), 0), Admission::Told);
}

#[test]
fn switched_off_everything_is_told() {
    let Some(machine) = Machine::alone() else { return };
    let daemon = machine.daemon().config(&config("enabled = false\nat-most = 1")).start();
    let tool = daemon.program("tool");
    for _ in 0..20 {
        execute(&tool, "same", 0);
    }
    daemon.wait_for_many(20, |_| true);
    let ended = daemon.stop();
    assert!(records_of(&ended).is_empty());
}
