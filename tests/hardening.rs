//! What the daemon gives up, what watches over its listeners, and what it tells a service manager.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use support::{DEADLINE, Daemon, Machine, Staying, alert_of, assert_certain, installed, skip, wait_until};

/// The threads of a daemon: name, kernel's number and the lines of its status.
fn threads(daemon: &Daemon<'_>) -> Vec<(String, u32, String)> {
    let folder = format!("/proc/{}/task", daemon.pid());
    fs::read_dir(folder)
        .unwrap()
        .filter_map(|entry| {
            let path = entry.unwrap().path();
            // A thread may end meanwhile.
            let name = fs::read_to_string(path.join("comm")).ok()?.trim().to_owned();
            let status = fs::read_to_string(path.join("status")).ok()?;
            Some((name, path.file_name()?.to_str()?.parse().ok()?, status))
        })
        .collect()
}

fn field<'s>(status: &'s str, name: &str) -> Option<&'s str> {
    status.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
}

#[test]
fn every_thread_has_what_it_needs_and_no_more() {
    let Some(machine) = Machine::shared() else { return };
    let daemon = machine.daemon().start();
    alert_of(&daemon, &mut Command::new(daemon.program("tool")));
    // DAC_READ_SEARCH, NET_ADMIN, IPC_LOCK, SYS_PTRACE and SYS_NICE, as far as this test itself has them.
    let most: u64 = 1 << 2 | 1 << 12 | 1 << 14 | 1 << 19 | 1 << 23;
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let own = u64::from_str_radix(field(&own, "CapPrm").unwrap(), 16).unwrap();
    let threads = threads(&daemon);
    assert!(threads.len() > 5, "{threads:?}");
    for (name, _, status) in &threads {
        for set in ["CapEff", "CapPrm"] {
            let set = u64::from_str_radix(field(status, set).unwrap(), 16).unwrap();
            assert_eq!(set, most & own, "{name}: {status}");
        }
        for set in ["CapInh", "CapAmb", "CapBnd"] {
            let set = u64::from_str_radix(field(status, set).unwrap_or("0"), 16).unwrap();
            assert_eq!(set & !most, 0, "{name}: {status}");
        }
        assert_eq!(field(status, "NoNewPrivs"), Some("1"), "{name}");
        assert_eq!(field(status, "Seccomp"), Some("2"), "{name}");
    }
    // Those whose calls are listed have a filter of their own besides; the kernel counts them since 5.9.
    for role in [
        "listen-0",
        "worker",
        "follow-up",
        "identity",
        "reload",
        "journal",
        "journal-sync",
        "output",
        "control",
    ] {
        let (_, _, status) =
            threads.iter().find(|(name, ..)| name == role).unwrap_or_else(|| panic!("{role}"));
        assert!(field(status, "Seccomp_filters").is_none_or(|count| count == "2"), "{role}: {status}");
    }
    let limits = fs::read_to_string(format!("/proc/{}/limits", daemon.pid())).unwrap();
    let limit = |name: &str| limits.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    assert!(limit("Max core file size").split_whitespace().filter(|word| *word == "0").count() == 2);
    assert!(!limit("Max realtime timeout").contains("unlimited"));
    let (_, _, status) = &threads[0];
    assert_eq!(field(status, "Umask"), Some("0077"));
    // CAP_SYS_RESOURCE.
    if own & 1 << 24 != 0 {
        let score = fs::read_to_string(format!("/proc/{}/oom_score_adj", daemon.pid())).unwrap();
        assert_eq!(score.trim(), "-900");
    }
    let ended = daemon.stop();
    assert!(
        ended.stderr.contains("hardened: no core dumps; no new privileges; no capabilities but NET_ADMIN,")
            && ended.stderr.contains("system calls by role"),
        "{}",
        ended.stderr
    );
}

#[test]
fn memory_that_cannot_be_locked_is_said() {
    let Some(machine) = Machine::shared() else { return };
    let (Some(_), Some(_)) = (installed("setpriv"), installed("prlimit")) else { return };
    let unable = &["prlimit", "--memlock=65536", "setpriv", "--bounding-set=-ipc_lock"];
    let daemon = machine.daemon().under(unable).start();
    let message = daemon.wait_for_message("memory cannot be locked");
    assert!(message.contains("Operation not permitted") && message.contains("CAP_IPC_LOCK"), "{message}");
    alert_of(&daemon, &mut Command::new(daemon.program("tool")));
    daemon.stop();
    // What holds nothing needs none of it, and keeps no capability for it.
    let daemon = machine.daemon().under(unable).argument("--best-effort").start();
    assert!(!daemon.stop().stderr.contains("cannot be locked"));
    let daemon = machine.daemon().argument("--best-effort").start();
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    assert_eq!(field(&status, "VmLck"), Some("0 kB"));
    let kept = u64::from_str_radix(field(&status, "CapPrm").unwrap(), 16).unwrap();
    assert_eq!(kept >> 14 & 1, 0, "{status}");
    daemon.stop();
}

#[test]
fn both_parts_can_be_switched_off() {
    let Some(machine) = Machine::shared() else { return };
    let daemon = machine
        .daemon()
        .config("[rules]\nbuiltin = false\n[output.syslog]\nenabled = false\n[hardening]\ncapabilities = false\nsystem-calls = false\n")
        .start();
    let own = fs::read_to_string("/proc/self/status").unwrap();
    for (name, _, status) in threads(&daemon) {
        assert_eq!(field(&status, "Seccomp"), field(&own, "Seccomp"), "{name}");
        assert_eq!(field(&status, "CapEff"), field(&own, "CapEff"), "{name}");
        assert_eq!(field(&status, "NoNewPrivs"), Some("1"), "{name}");
    }
    daemon.stop();
}

#[test]
fn a_second_daemon_is_refused_and_told_of_the_first() {
    let Some(machine) = Machine::shared() else { return };
    let first = machine.daemon().start();
    let second = Command::new(env!("CARGO_BIN_EXE_execwatch"))
        .args(["run", "--config"])
        .arg(first.folder().join("execwatch.toml"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(75), "{said}");
    assert!(said.contains(&format!("already running: pid {} holds", first.pid())), "{said}");
    // It has disturbed nothing.
    alert_of(&first, &mut Command::new(first.program("tool")));
    // A lock ends with its process, however that ends.
    let folder = first.folder().join("run");
    first.signal(Signal::SIGKILL);
    let file = fs::File::open(folder.join("lock")).unwrap();
    wait_until("the lock to be free", || {
        nix::fcntl::Flock::lock(file.try_clone().ok()?, nix::fcntl::FlockArg::LockExclusiveNonblock).ok()
    });
    assert_eq!(first.end().code, None);
}

/// The next message to a service manager that `wanted` picks.
fn told(manager: &UnixDatagram, wanted: &str) -> String {
    let deadline = Instant::now() + DEADLINE;
    let mut buffer = [0; 1024];
    manager.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    while Instant::now() < deadline {
        if let Ok(length) = manager.recv(&mut buffer) {
            let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if message.starts_with(wanted) {
                return message;
            }
            assert!(
                ["WATCHDOG=1", "STATUS="].iter().any(|usual| message.starts_with(usual)),
                "{message} came before {wanted}"
            );
        }
    }
    panic!("{wanted} was not told");
}

#[test]
fn a_service_manager_is_told_how_it_goes() {
    let Some(machine) = Machine::shared() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    let daemon = machine
        .daemon()
        .environment("NOTIFY_SOCKET", path.to_str().unwrap())
        .environment("WATCHDOG_USEC", "1000000")
        .start();
    assert_eq!(told(&manager, "READY=1"), "READY=1");
    let status = told(&manager, "STATUS=");
    assert!(status.contains("programs executed"), "{status}");
    told(&manager, "WATCHDOG=1");
    daemon.signal(Signal::SIGHUP);
    let reloading = told(&manager, "RELOADING=1");
    let since = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
    assert!(since.parse::<u64>().unwrap() > 0);
    told(&manager, "READY=1");
    daemon.signal(Signal::SIGTERM);
    told(&manager, "STOPPING=1");
    assert_eq!(daemon.end().code, Some(0));
}

/// A thread that is stopped by ptrace(2), which perl can call and this test cannot without unsafe code. It goes on when
/// this is dropped.
struct Stopped(Child);

impl Stopped {
    fn new(thread: u32) -> Option<Self> {
        let perl = installed("perl")?;
        // PTRACE_SEIZE and PTRACE_INTERRUPT (ptrace(2)).
        let script = format!(
            "$|=1; for (0x4206, 0x4207) {{ syscall({}, $_, {thread}, 0, 0) == 0 or die \"$!\\n\" }} print \"ok\\n\"; <STDIN>",
            libc::SYS_ptrace
        );
        let mut child = Command::new(perl)
            .args(["-e", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        if line != "ok\n" {
            child.wait().unwrap();
            skip("needs ptrace, which is refused here");
            return None;
        }
        Some(Stopped(child))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // It reads a line and ends, and so lets go.
        let _ = self.0.stdin.take().map(|mut stdin| stdin.write_all(b"\n"));
        let _ = self.0.wait();
    }
}

#[test]
fn a_listener_that_does_not_come_back_is_replaced() {
    let Some(machine) = Machine::alone() else { return };
    let daemon = machine.daemon().start();
    let Some((_, listener, _)) = threads(&daemon).into_iter().find(|(name, ..)| name == "listen-0") else {
        skip("needs a listener for a CPU, which this machine refuses");
        return;
    };
    let Some(stopped) = Stopped::new(listener) else { return };
    // Its listener does not take the event. The program stays, so that whoever takes it finds something to read.
    let waiting = Staying::start_on(&daemon.folder().join("bin/waiting"), Some(0));
    let told =
        daemon.wait_for_record("the stuck listener", |record| record["event"]["action"] == "listener-stuck");
    assert_eq!(told["execwatch"]["severity"], "high");
    let message = told["message"].as_str().unwrap();
    assert!(
        message.starts_with("the listener of CPU 0 is stuck") && message.contains("took its place"),
        "{message}"
    );
    // What waited at its socket was neither lost nor is it told twice.
    let late = daemon.wait_for(|alert| alert["process"]["pid"] == waiting.pid());
    assert!(late["execwatch"]["capture"]["hold_us"].as_u64().unwrap() > 1_000_000, "{late:#}");
    // The new one holds programs as the old one did.
    let tool = daemon.program("tool");
    let alert = alert_of(&daemon, Command::new("taskset").args(["-c", "0"]).arg(&tool));
    assert_certain(&alert);
    assert_eq!(daemon.totals().get("listeners-stuck"), 1);
    drop(stopped);
    daemon.wait_for_message("has come back and ended");
    let alert = alert_of(&daemon, Command::new("taskset").args(["-c", "0"]).arg(&tool));
    assert_certain(&alert);
    // The kernel's part of a thread ends a moment after ours.
    wait_until("the end of the thread that was stuck", || {
        let left = threads(&daemon).into_iter().filter(|(name, ..)| name == "listen-0").count();
        (left == 1).then_some(())
    });
    let ended = daemon.stop();
    assert_eq!(ended.alerts(|alert| alert["process"]["pid"] == waiting.pid()).len(), 1);
    assert_eq!(ended.totals.get("listeners-stuck"), 1);
}
