//! The process connector from outside: forged messages, other listeners, and places where it gives nothing.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod support;

use std::process::Command;

use nix::sys::signal::Signal;
use support::connector::{Connector, EXEC, FORK, event, ports_of, witness};
use support::{Daemon, Machine, Staying, installed, skip};

/// Executes a program `name` of the daemon's folder and waits for the alert.
fn execute(daemon: &Daemon<'_>, name: &str) {
    let program = Staying::start(&daemon.folder().join("bin").join(name));
    daemon.wait_for(|alert| alert["process"]["pid"] == program.pid());
}

/// CPUs that a listener may be responsible for, and one that only the catch-all takes.
fn cpus() -> impl Iterator<Item = u32> {
    let cpus = nix::unistd::sysconf(nix::unistd::SysconfVar::_NPROCESSORS_CONF).unwrap().unwrap();
    (0..u32::try_from(cpus).unwrap()).chain([8000])
}

#[test]
fn forged_events_are_counted_and_make_no_alert() {
    let Some(machine) = Machine::shared() else { return };
    let setup = machine.daemon().capture("already-running = false");
    let sleeper = Staying::start(&setup.folder().join("bin/sleeper"));
    let mut daemon = setup.start();
    let ports = ports_of(daemon.pid());
    assert!(ports.len() >= 2, "a socket for execs and one for forks and exits: {ports:?}");
    let forger = Connector::open(false);
    for &port in &ports {
        for cpu in cpus() {
            forger.send(port, &event(EXEC, cpu, [sleeper.pid(); 6]));
        }
        forger.send(port, &event(FORK, 0, [sleeper.pid(); 6]));
    }
    // Each port lets those pass that could be its own: one CPU's execs, the other CPUs', or forks.
    daemon.wait_for_totals("each port's forged event is counted", |totals| {
        totals.get("strange") >= ports.len() as u64
    });
    execute(&daemon, "after");
    assert!(daemon.runs());
    let ended = daemon.stop();
    assert_eq!(ended.alerts(|alert| alert["process"]["name"] == "sleeper").len(), 0);
    assert_eq!(ended.alerts(|_| true).len(), 1);
}

#[test]
fn messages_that_are_none_do_no_harm() {
    let Some(machine) = Machine::shared() else { return };
    let mut daemon = machine.daemon().start();
    let forger = Connector::open(false);
    let whole = event(EXEC, 0, [daemon.pid(); 6]);
    for port in ports_of(daemon.pid()) {
        for cpu in cpus() {
            let whole = event(EXEC, cpu, [daemon.pid(); 6]);
            // Cut anywhere; what the socket's filter reads is there in some of them.
            for length in [1, 15, 16, 36, 40, 44, 52, 56, 75] {
                forger.send(port, &whole[..length]);
            }
            // A netlink length of nothing, and one past the end; a connector length past the end.
            for (at, value) in [(0, 0u32), (0, 4000), (32, 4000)] {
                let mut bent = whole.clone();
                bent[at..at + 4].copy_from_slice(&value.to_ne_bytes());
                forger.send(port, &bent);
            }
        }
        // More than the daemon has room for in a datagram, several messages in one, and noise.
        forger.send(port, &[whole.clone(), vec![0xff; 60_000]].concat());
        forger.send(port, &whole.repeat(100));
        forger.send(port, &[0xff; 76]);
    }
    daemon.wait_for_totals("strange messages are counted", |totals| totals.get("strange") > 0);
    execute(&daemon, "after");
    assert!(daemon.runs());
    assert_eq!(daemon.stop().alerts(|_| true).len(), 1);
}

#[test]
fn two_daemons_both_get_everything() {
    let Some(machine) = Machine::shared() else { return };
    let first = machine.daemon().start();
    let second = machine.daemon().rules(&own_rules(&first)).start();
    for round in 0..20 {
        let name = format!("both-{round}");
        let program = Staying::start(&first.folder().join("bin").join(&name));
        for daemon in [&first, &second] {
            daemon.wait_for(|alert| alert["process"]["pid"] == program.pid());
        }
    }
    second.stop();
    for round in 0..20 {
        execute(&first, &format!("first-{round}"));
    }
    let third = machine.daemon().rules(&own_rules(&first)).start();
    let program = Staying::start(&first.folder().join("bin/three"));
    for daemon in [&first, &third] {
        daemon.wait_for(|alert| alert["process"]["pid"] == program.pid());
    }
    let ended = first.stop();
    assert_eq!(ended.totals.get("lost"), 0);
    third.stop();
}

/// A rule for the programs of another daemon.
fn own_rules(daemon: &Daemon<'_>) -> String {
    format!(
        "[[rule]]\nid = 'other'\ntitle = 'A program of the other'\nseverity = 'low'\n\
         [rule.select.it]\n'exe|startswith' = '{}/bin/'\n",
        daemon.folder().display()
    )
}

#[test]
fn a_listener_that_comes_and_goes_does_not_disturb() {
    let Some(machine) = Machine::shared() else { return };
    let daemon = machine.daemon().start();
    execute(&daemon, "before");
    let other = Connector::open(true);
    other.listen();
    let during = Staying::start(&daemon.folder().join("bin/during"));
    daemon.wait_for(|alert| alert["process"]["pid"] == during.pid());
    assert!(other.drain().0.contains(&during.pid()), "the other listener got the exec too");
    other.ignore();
    execute(&daemon, "ignored");
    drop(other);
    execute(&daemon, "closed");
    daemon.stop();
}

/// A witness, or a visible skip.
fn witness_or_skip() -> Option<Connector> {
    let witness = witness();
    if witness.is_none() {
        skip(
            "needs to be alone, but another process has a connector socket open (/proc/net/netlink, protocol 11)",
        );
    }
    witness
}

#[test]
fn every_clean_end_takes_the_subscription_back() {
    let Some(machine) = Machine::alone() else { return };
    let Some(witness) = witness_or_skip() else { return };
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT] {
        let daemon = machine.daemon().start();
        assert!(witness.hears(), "events are sent while the daemon listens");
        daemon.signal(signal);
        let ended = daemon.end();
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert!(!witness.hears(), "events are still sent after {signal}");
    }
}

#[test]
fn a_start_that_fails_takes_the_subscription_back() {
    let Some(machine) = Machine::alone() else { return };
    let Some(witness) = witness_or_skip() else { return };
    let mut refused = 0;
    // With ever more files allowed, the start fails ever later, until it succeeds.
    for files in 6..64 {
        let limit = format!("--nofile={files}");
        match machine.daemon().capture("listeners = 'per-cpu'").under(&["prlimit", &limit]).try_start() {
            Err(ended) => {
                assert!(ended.code.is_some_and(|code| code != 0), "{files} files: {}", ended.stderr);
                assert!(!witness.hears(), "events are still sent after a failed start with {files} files");
                refused += 1;
            }
            Ok(daemon) => {
                daemon.stop();
                break;
            }
        }
    }
    assert!(refused > 1, "no start failed");
    assert!(!witness.hears());
}

#[test]
fn a_killed_daemon_does_not_hinder_the_next() {
    let Some(machine) = Machine::alone() else { return };
    let alone = witness().is_some();
    let killed = machine.daemon().start();
    execute(&killed, "first");
    killed.signal(Signal::SIGKILL);
    assert_eq!(killed.end().code, None);
    let next = machine.daemon().start();
    execute(&next, "second");
    next.stop();
    // Takes back what the killed one left, so that this machine is not slower for it until its next start.
    assert_eq!(witness().is_some(), alone);
}

/// Starts the daemon in other namespaces, where it must end with code 69 and a sentence that contains `cause`.
fn refused_in(namespaces: &[&str], cause: &str) {
    let Some(machine) = Machine::shared() else { return };
    let Some(unshare) = installed("unshare") else { return };
    if !Command::new(unshare).args(&namespaces[1..]).arg("true").status().unwrap().success() {
        return skip("needs a kernel that gives it new namespaces");
    }
    let ended = machine.daemon().under(namespaces).run_to_end();
    assert_eq!(ended.code, Some(69), "{}", ended.stderr);
    assert!(ended.stderr.contains(cause), "{}", ended.stderr);
    let mut errors = ended.stderr.lines().filter_map(|line| line.strip_prefix("execwatch: error: "));
    assert!(errors.next().unwrap().starts_with("cannot listen to process events: "), "{}", ended.stderr);
    assert!(errors.next_back().unwrap().contains("execwatch doctor"), "{}", ended.stderr);
}

#[test]
fn another_network_namespace_is_named_as_the_cause() {
    refused_in(&["unshare", "-n"], "this is not the host's network namespace");
}

#[test]
fn another_pid_namespace_is_named_as_the_cause() {
    refused_in(&["unshare", "-p", "-f", "--mount-proc"], "this is not the host's pid namespace");
}

#[test]
fn another_user_namespace_is_named_as_the_cause() {
    refused_in(&["unshare", "-U", "-r"], "this is not the host's user namespace");
}

#[test]
fn without_cap_net_admin() {
    let Some(machine) = Machine::shared() else { return };
    let without = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"];
    // More than any host lets a process ask for without the capability.
    let setup = machine.daemon().capture("receive-buffer = 536870912").under(&without);
    match (linux_at_least(6, 6), setup.try_start()) {
        // From 6.6 on anybody may listen; only the size of the buffer needs the capability.
        (true, Ok(daemon)) => {
            execute(&daemon, "heard");
            let ended = daemon.stop();
            assert!(ended.stderr.contains("raise net.core.rmem_max"), "{}", ended.stderr);
        }
        (false, Err(ended)) => {
            assert_eq!(ended.code, Some(77), "{}", ended.stderr);
            assert!(ended.stderr.contains("permission denied; run execwatch as root with CAP_NET_ADMIN"));
        }
        (_, Ok(daemon)) => panic!("it listens:\n{}", daemon.stderr()),
        (_, Err(ended)) => panic!("it ended ({:?}):\n{}", ended.code, ended.stderr),
    }
}

fn linux_at_least(major: u32, minor: u32) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse::<u32>().ok());
    (numbers.next().unwrap(), numbers.next().unwrap()) >= (major, minor)
}
