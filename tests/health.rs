//! Whether the daemon notices that it does not see, says so, and sees again; and what it says of losses.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::Value;
use support::connector::{Connector, witness};
use support::stopped::Stopped;
use support::{Daemon, Machine, Setup, Staying, installed, wait_until};

/// A daemon that matches programs of its own folder and tries its listeners every second.
fn watchful<'m>(machine: &'m Machine, health: &str) -> Setup<'m> {
    machine.daemon().config(&format!(
        "[rules]\nbuiltin = false\n[output.syslog]\nenabled = false\n\
         [output.file]\npath = \"{{dir}}/alerts.json\"\n[health]\n{health}\n"
    ))
}

fn notice<'a>(kind: &'a str) -> impl Fn(&Value) -> bool + 'a {
    move |record| record["execwatch"]["notice"] == kind
}

fn notices(daemon: &Daemon<'_>, kind: &str) -> Vec<Value> {
    daemon.records().into_iter().filter(notice(kind)).collect()
}

fn certainty(alert: &Value) -> &str {
    alert["execwatch"]["capture"]["certainty"].as_str().unwrap()
}

fn file(daemon: &Daemon<'_>, name: &str) -> std::path::PathBuf {
    daemon.folder().join("bin").join(name)
}

/// Takes subscriptions back until nobody on this host hears anything, whoever listens.
fn deafen() {
    let hearing = Connector::open(true);
    let stranger = Connector::open(false);
    for _ in 0..100 {
        for _ in 0..100 {
            stranger.take_back_a_stranger();
        }
        if !hearing.hears() {
            return;
        }
    }
    panic!("the kernel still sends events");
}

#[test]
fn a_subscription_that_another_took_back_is_noticed_and_restored() {
    let Some(machine) = Machine::alone() else { return };
    let alone = witness().is_some();
    let daemon = watchful(&machine, "canary = \"1s\"").start();
    let before = Staying::start(&file(&daemon, "before"));
    daemon.wait_for(|alert| alert["process"]["pid"] == before.pid());
    deafen();
    let during = Staying::start(&file(&daemon, "during"));
    let blind = daemon.wait_for_record("blindness", notice("blind"));
    assert_eq!(blind["execwatch"]["severity"], "critical");
    // Whoever asks now is told; it takes at least a second until the next canary was seen.
    wait_until("the status says blind", || {
        let (code, text, _) = daemon.status(&[]);
        (text.contains("NO: blind on ")).then(|| assert_eq!(code, 1))
    });
    let again = daemon.wait_for_record("seeing again", notice("sees-again"));
    assert!(again["message"].as_str().unwrap().contains("were missed"), "{again}");
    // What was started meanwhile and still runs is found, and marked; what was alerted before is not told again.
    let found = daemon.wait_for(|alert| alert["process"]["pid"] == during.pid());
    assert_eq!((certainty(&found), &found["event"]["action"]), ("missed", &"already-running".into()));
    let after = Staying::start(&file(&daemon, "after"));
    let seen = daemon.wait_for(|alert| alert["process"]["pid"] == after.pid());
    assert_ne!(certainty(&seen), "missed");
    let status = daemon.status_json();
    assert!(status["canary"]["unseen"].as_u64() > Some(0), "{status}");
    assert!(status["canary"]["replaced"].as_u64() > Some(0), "{status}");
    assert!(status["canary"]["looks"].as_u64() > Some(0), "{status}");
    assert_eq!((&status["blind"], daemon.status(&[]).0), (&Value::Array(Vec::new()), 0));
    let ended = daemon.stop();
    assert_eq!(ended.alerts(|_| true).len(), 3, "each program is told once");
    assert_eq!(ended.totals.get("found-late"), 1);
    // The kernel's number was put right, so that taking back what was asked for leaves nobody deaf or listening.
    assert_eq!(witness().is_some(), alone);
    if alone {
        let next = machine.daemon().start();
        let program = Staying::start(&file(&next, "next"));
        next.wait_for(|alert| alert["process"]["pid"] == program.pid());
        next.stop();
    }
}

#[test]
fn a_daemon_starts_on_a_host_where_others_took_back_too_much() {
    let Some(machine) = Machine::alone() else { return };
    let Some(witness) = witness() else {
        return support::skip("needs to be alone, but another process has a connector socket open");
    };
    let stranger = Connector::open(false);
    for _ in 0..1000 {
        stranger.take_back_a_stranger();
    }
    drop(stranger);
    let daemon = machine.daemon().start();
    let program = Staying::start(&file(&daemon, "program"));
    daemon.wait_for(|alert| alert["process"]["pid"] == program.pid());
    daemon.stop();
    assert!(!witness.hears());
}

#[test]
fn where_no_canary_can_be_executed_nobody_knows_and_that_is_said() {
    let Some(machine) = Machine::alone() else { return };
    // A copy, because what is executed as a canary is the daemon's own file.
    let copy = "cp \"$1\" {dir}/copy && shift && exec {dir}/copy \"$@\"";
    let daemon = watchful(&machine, "canary = \"1s\"").under(&["sh", "-c", copy, "sh"]).start();
    let copy = daemon.folder().join("copy");
    let mode = |mode| fs::set_permissions(&copy, fs::Permissions::from_mode(mode)).unwrap();
    let untried = || daemon.status_json()["untried"].as_array().unwrap().clone();
    mode(0o644);
    let unknown = wait_until("a CPU of which nobody knows", || untried().pop());
    assert!(unknown["reason"].as_str().unwrap().contains("ermission denied"), "{unknown}");
    daemon.wait_for_record("what cannot be tried", notice("canary-failed"));
    mode(0o755);
    wait_until("all are tried", || untried().is_empty().then_some(()));
    daemon.stop();
}

/// A listener and its CPU: that of the first CPU, or of all where none can be pinned.
fn stopped_listener(daemon: &Daemon<'_>) -> Stopped {
    Stopped::named(daemon, "listen-0").or_else(|| Stopped::named(daemon, "listen-any")).unwrap()
}

#[test]
fn a_listener_that_hangs_is_replaced() {
    let Some(machine) = Machine::alone() else { return };
    let daemon = watchful(&machine, "canary = \"1s\"").start();
    let stopped = stopped_listener(&daemon);
    let during = Staying::start_on(&file(&daemon, "during"), Some(0));
    daemon.wait_for_record("blindness", notice("blind"));
    daemon.wait_for_record("seeing again", notice("sees-again"));
    // The old one still hangs, and its successor sees.
    let after = Staying::start_on(&file(&daemon, "after"), Some(0));
    let seen = daemon.wait_for(|alert| alert["process"]["pid"] == after.pid());
    assert_ne!(certainty(&seen), "missed");
    // From the queue of the one that hangs, if that was seen first, or by the look at all running programs.
    let found = daemon.wait_for(|alert| alert["process"]["pid"] == during.pid());
    // Or by the look at the start, should that still go on.
    assert!(["best-effort", "missed", "already-running"].contains(&certainty(&found)), "{found}");
    let hanging = |wanted: u64| {
        wait_until("the status counts replaced listeners that hang", || {
            (daemon.status_json()["canary"]["hanging"] == wanted).then_some(())
        });
    };
    hanging(1);
    drop(stopped);
    // It ends by itself, and does not tell again what was queued for it.
    hanging(0);
    let ended = daemon.stop();
    assert_eq!(ended.alerts(|_| true).len(), 2);
}

#[test]
fn what_overflowed_is_said_with_its_time_and_found_if_it_still_runs() {
    /// More events than fit the smallest buffer, and not so many that the listener is replaced meanwhile.
    const FLOOD: usize = 400;
    let Some(machine) = Machine::alone() else { return };
    let Some(_) = installed("taskset") else { return };
    let setup = machine.daemon().config(
        "[capture]\nreceive-buffer = 65536\n[rules]\nbuiltin = false\n[output.syslog]\nenabled = false\n\
         [output.file]\npath = \"{dir}/alerts.json\"\n[health]\ncanary = \"off\"\n",
    );
    let flood = setup.folder().join("flood");
    support::program::tiny(&flood);
    let daemon = setup.start();
    let before = Staying::start_on(&file(&daemon, "before"), Some(0));
    daemon.wait_for(|alert| alert["process"]["pid"] == before.pid());
    let stopped = stopped_listener(&daemon);
    // All on the CPU whose listener is stopped; one program of the shell's for each.
    let script = format!("i=0; while [ $i -lt {FLOOD} ]; do {}; i=$((i+1)); done", flood.display());
    assert!(Command::new("taskset").args(["-c", "0", "sh", "-c", &script]).status().unwrap().success());
    let lost = Staying::start_on(&file(&daemon, "lost"), Some(0));
    // The kernel sends the event at the very end of execve: only what sleeps has certainly passed it.
    let stat = format!("/proc/{}/stat", lost.pid());
    wait_until("the program runs", || fs::read_to_string(&stat).ok()?.contains("(lost) S ").then_some(()));
    drop(stopped);
    let loss = daemon.wait_for_record("the loss", notice("loss"));
    let message = loss["message"].as_str().unwrap();
    assert!(
        message.starts_with("not everything was seen between 2") && message.contains("overflowed"),
        "{message}"
    );
    let found = daemon.wait_for(|alert| alert["process"]["pid"] == lost.pid());
    // On a machine so busy that the flood took seconds, another listener had taken the stopped one's place.
    if daemon.totals().get("listeners-stuck") == 0 {
        assert_eq!(certainty(&found), "missed");
    }
    let status = daemon.status_json();
    assert!(status["last_loss"]["what"].as_str().unwrap().starts_with("not everything was seen"), "{status}");
    let row = &status["listeners"].as_array().unwrap().iter().find(|row| row["overruns"] != 0).unwrap();
    assert!(row["dropped"].as_u64() > Some(0), "{row}");
    let ended = daemon.stop();
    assert_eq!(ended.alerts(|alert| alert["process"]["pid"] == before.pid()).len(), 1);
    assert_eq!(ended.alerts(|alert| alert["process"]["pid"] == lost.pid()).len(), 1);
    assert!(ended.totals.get("overruns") > 0);
}

#[test]
fn a_canary_is_no_alert_and_flies_only_where_nothing_was_seen() {
    let Some(machine) = Machine::alone() else { return };
    let daemon = watchful(&machine, "canary = \"1s\"")
        .rules(
            "[[rule]]\nid = 'everything'\ntitle = 'Everything'\nseverity = 'low'\n\
             [rule.select.it]\n'exe|startswith' = '/'\n",
        )
        .start();
    let status = wait_until("canaries are executed", || {
        let status = daemon.status_json();
        (status["canary"]["executed"].as_u64() >= Some(3)).then_some(status)
    });
    assert_eq!((&status["canary"]["unseen"], &status["canary"]["last"]["what"]), (&0.into(), &"seen".into()));
    wait_until("the worker leaves canaries alone", || {
        (daemon.status_json()["totals"]["canaries"].as_u64() >= Some(3)).then_some(())
    });
    assert_eq!(daemon.status(&[]).0, 0);
    daemon.wait_for(|alert| alert["process"]["args"][1] == "status");
    let ended = daemon.stop();
    let canaries = ended.alerts(|alert| alert["process"]["args"][1] == "canary");
    assert!(canaries.is_empty(), "{canaries:?}");
    assert_eq!(ended.totals.get("found-late"), 0);
}

#[test]
fn a_heartbeat_tells_version_configuration_and_counts() {
    let Some(machine) = Machine::shared() else { return };
    let daemon = watchful(&machine, "heartbeat = \"1s\"").start();
    let program = Staying::start(&file(&daemon, "program"));
    daemon.wait_for(|alert| alert["process"]["pid"] == program.pid());
    let status = daemon.status_json();
    let configuration = status["configuration"].as_str().unwrap();
    assert_eq!(configuration.len(), 64);
    let beat = daemon.wait_for_record("a heartbeat", |record| {
        notice("heartbeat")(record) && record["message"].as_str().unwrap().contains(" alerts=1 ")
    });
    let message = beat["message"].as_str().unwrap();
    let version = env!("CARGO_PKG_VERSION");
    assert!(message.starts_with(&format!("execwatch {version} sees: ")), "{message}");
    assert!(message.contains(&format!(" configuration={configuration} ")), "{message}");
    assert_eq!(beat["execwatch"]["severity"], "info");
    wait_until("another heartbeat", || (notices(&daemon, "heartbeat").len() >= 3).then_some(()));
    daemon.stop();
}
