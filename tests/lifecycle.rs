//! Start and end of the daemon: signals, totals, exit codes.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod support;

use std::process::Command;

use nix::sys::signal::Signal;
use support::Machine;

#[test]
fn either_signal_ends_it_in_order() {
    let Some(machine) = Machine::shared() else { return };
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let daemon = machine.daemon().start();
        Command::new(daemon.program("tool")).status().unwrap();
        daemon.signal(signal);
        let ended = daemon.end();
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        // What was executed before the signal is written, however short the time was.
        assert_eq!(ended.alerts(|alert| alert["process"]["name"] == "tool").len(), 1, "{}", ended.stderr);
        assert_eq!(ended.totals.get("alerts"), 1);
        assert!(ended.totals.get("execs") >= 1);
        assert!(ended.stderr.contains("output file"), "{}", ended.stderr);
    }
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let Some(machine) = Machine::shared() else { return };
    // Nobody reads the pipe that stands for standard output: the end would wait for it for seconds.
    let config =
        "[rules]\nbuiltin = false\n[output.syslog]\nenabled = false\n[output.stdout]\nenabled = true\n";
    let mut daemon = machine
        .daemon()
        .config(config)
        .under(&["sh", "-c", "mkfifo {dir}/fifo; exec 3<>{dir}/fifo; exec \"$@\" >{dir}/fifo", "sh"])
        .start();
    let program = daemon.program("tool");
    let long = "x".repeat(100_000);
    for _ in 0..20 {
        Command::new(&program).arg(&long).status().unwrap();
    }
    daemon.wait_for_totals("the alerts", |totals| totals.get("alerts") == 20);
    daemon.signal(Signal::SIGTERM);
    daemon.wait_for_message("SIGTERM");
    assert!(daemon.runs(), "it did not wait for the output");
    daemon.signal(Signal::SIGTERM);
    let ended = daemon.end();
    assert_eq!(ended.code, Some(70), "{}", ended.stderr);
    assert!(ended.stderr.contains("second signal"), "{}", ended.stderr);
}

#[test]
fn totals_on_request() {
    let Some(machine) = Machine::shared() else { return };
    let daemon = machine.daemon().start();
    let program = daemon.program("tool");
    let before = daemon.totals();
    for _ in 0..10 {
        Command::new(&program).status().unwrap();
    }
    let after = daemon.wait_for_totals("the alerts", |totals| totals.get("alerts") == 10);
    assert!(after.get("execs") >= before.get("execs") + 10);
    assert_eq!((after.get("lost"), after.get("overruns")), (0, 0));
    // Forks and exits are drained on a timer.
    daemon.wait_for_totals("the forks", |totals| totals.get("forks") >= 10 && totals.get("exits") >= 10);
    daemon.stop();
}

#[test]
fn mistakes_are_refused_before_anything_is_done() {
    let Some(machine) = Machine::shared() else { return };
    let ended = machine.daemon().config("[capture]\nlisteners = \"none\"\n").run_to_end();
    assert_eq!(ended.code, Some(78), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("execwatch.toml:2:13") && !ended.stderr.contains("listening"),
        "{}",
        ended.stderr
    );
    let ended = machine.daemon().rules("[[rule]]\nid = 'X'\n").run_to_end();
    assert_eq!(ended.code, Some(78), "{}", ended.stderr);
    assert!(ended.stderr.contains("rules/test.toml:2:6"), "{}", ended.stderr);
}

/// What a service manager does when it has lost patience; the next start must not suffer.
#[test]
fn killed_and_started_again() {
    let Some(machine) = Machine::shared() else { return };
    let daemon = machine.daemon().start();
    daemon.signal(Signal::SIGKILL);
    assert_eq!(daemon.end().code, None);
    let daemon = machine.daemon().start();
    Command::new(daemon.program("tool")).status().unwrap();
    daemon.wait_for(|alert| alert["process"]["name"] == "tool");
    daemon.stop();
}
