//! The native protocol, with a systemd-journald of the test's own.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use support::{Machine, alert_of, installed, lacking, wait_until};

const MACHINE_ID: &str = "0123456789abcdef0123456789abcdef";

/// A journald in a mount namespace with a `/run` of its own, ended with this. It is one for a namespace of the journal,
/// because such a one leaves the kernel's and the audit messages of this machine alone.
struct Journald(Child);

impl Journald {
    fn start() -> Option<Self> {
        let program = ["/lib/systemd/systemd-journald", "/usr/lib/systemd/systemd-journald"];
        let Some(program) = program.iter().find(|path| Path::new(path).exists()) else {
            lacking("systemd-journald (package systemd)");
            return None;
        };
        installed("journalctl")?;
        if !Path::new("/etc/machine-id").exists() {
            lacking("a file /etc/machine-id, over which another is mounted in the test's own namespace");
            return None;
        }
        let script = format!(
            "set -e; mount -t tmpfs tmpfs /run; echo {MACHINE_ID} >/run/id; mount --bind /run/id /etc/machine-id\n\
             mkdir -p /run/systemd/journal.t /run/log/journal/{MACHINE_ID}.t /run/systemd/journald@t.conf.d\n\
             printf '[Journal]\\nStorage=volatile\\nRateLimitIntervalSec=0\\n' >/run/systemd/journald@t.conf.d/t.conf\n\
             exec {program} t"
        );
        let mut command = Command::new("unshare");
        command.args(["-m", "--propagation", "private", "sh", "-c", &script]).stdin(Stdio::null());
        Some(Journald(command.spawn().unwrap()))
    }

    /// Its socket, as seen from here.
    fn socket(&self) -> PathBuf {
        format!("/proc/{}/root/run/systemd/journal.t/socket", self.0.id()).into()
    }

    /// What journalctl finds.
    fn find(&self, matches: &[&str]) -> Vec<Value> {
        let mut command = Command::new("nsenter");
        command.args([
            "-m",
            "-t",
            &self.0.id().to_string(),
            "journalctl",
            "-o",
            "json",
            "--all",
            "--no-pager",
        ]);
        command.args(["-D", &format!("/run/log/journal/{MACHINE_ID}.t")]).args(matches);
        let output = command.stderr(Stdio::null()).output().unwrap();
        let lines = output.stdout.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
    }
}

impl Drop for Journald {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The bytes of a field: journalctl writes what is no printable text as a list of numbers.
fn bytes(value: &Value) -> Vec<u8> {
    match value {
        Value::String(text) => text.clone().into_bytes(),
        Value::Array(numbers) => numbers.iter().map(|number| number.as_u64().unwrap() as u8).collect(),
        other => panic!("{other}"),
    }
}

#[test]
fn journald_has_each_value_as_a_field() {
    let Some(machine) = Machine::alone() else { return };
    let Some(journald) = Journald::start() else { return };
    wait_until("journald's socket", || journald.socket().exists().then_some(()));
    let config = format!(
        "[capture]\nargs-limit = 1000000\n[rules]\nbuiltin = false\n[output.syslog]\nenabled = false\n\
         [output.file]\npath = \"{{dir}}/alerts.json\"\n[state]\nfolder = \"{{dir}}/state\"\n\
         [output.journald]\nsocket = \"{}\"\nfacility = \"local3\"\n",
        journald.socket().display()
    );
    let daemon = machine.daemon().config(&config).start();
    let program = daemon.program("tool");
    let hostile = "a\nMESSAGE=forged\n\u{1b}[2J=\\x41";
    // Longer than a datagram to the socket may be.
    let long = "y\nx".repeat(100) + &"z".repeat(100_000);
    let alert = alert_of(&daemon, Command::new(&program).arg(hostile));
    alert_of(&daemon, Command::new(&program).args([long.as_str(), &long, &long, "end"]));
    let id = format!("EXECWATCH_ID={}", alert["event"]["id"].as_str().unwrap());
    let found = wait_until("the alert", || journald.find(&[&id]).pop());
    let text = |name: &str| found[name].as_str().unwrap_or_else(|| panic!("{name}: {found:#}")).to_owned();
    assert_eq!(text("EXECWATCH_RULE"), "own-programs");
    assert_eq!(text("EXECWATCH_KIND"), "alert");
    assert_eq!(text("EXECWATCH_EXE"), program.to_str().unwrap());
    assert_eq!(text("PRIORITY"), "5");
    assert_eq!(text("SYSLOG_FACILITY"), "19");
    assert_eq!(text("SYSLOG_IDENTIFIER"), "execwatch");
    assert_eq!(text("_PID"), daemon.pid().to_string());
    assert!(text("MESSAGE").starts_with("severity=low rule=own-programs "));
    let expected = [program.to_str().unwrap(), " ", hostile].concat();
    assert_eq!(bytes(&found["EXECWATCH_CMDLINE"]), expected.as_bytes());
    let all = wait_until("both alerts", || {
        Some(journald.find(&["EXECWATCH_RULE=own-programs"])).filter(|all| all.len() > 1)
    });
    let whole = [program.to_str().unwrap(), &long, &long, &long, "end"].join(" ");
    assert!(all.iter().any(|found| bytes(&found["EXECWATCH_CMDLINE"]) == whole.as_bytes()));
    let ended = daemon.stop();
    assert!(ended.stderr.contains("lost=0"), "{}", ended.stderr);
}
