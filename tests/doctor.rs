//! `execwatch doctor` tells what holds on this host, and what a host without it lacks.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod support;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Output};

use serde_json::Value;
use support::{Machine, installed};

/// Runs it under another program, which may be empty.
fn doctor(under: &[&str], config: &std::path::Path, more: &[&str]) -> Output {
    let mut words = under.iter().copied().chain([env!("CARGO_BIN_EXE_execwatch"), "doctor", "--config"]);
    let mut command = Command::new(words.next().unwrap());
    command.args(words).arg(config).args(more).output().unwrap()
}

fn findings(output: &Output) -> Vec<Value> {
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    report["findings"].as_array().unwrap().clone()
}

/// The findings of an area, as `level: what was found`.
fn told(output: &Output, area: &str) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    findings(output)
        .iter()
        .filter(|it| it["area"] == area)
        .map(|it| text(&it["level"]) + ": " + &text(&it["found"]))
        .collect()
}

struct Host {
    folder: tempfile::TempDir,
    _syslog: UnixDatagram,
}

/// A configuration with everything in its own folder, and a syslog server.
fn host(more: &str) -> Host {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(path.join("state")).unwrap();
    fs::set_permissions(path.join("state"), fs::Permissions::from_mode(0o700)).unwrap();
    let syslog = UnixDatagram::bind(path.join("log")).unwrap();
    let path = path.display();
    let text = format!(
        "[state]\nfolder = \"{path}/state\"\n[output.syslog]\nsocket = \"{path}/log\"\n[output.file]\npath = \"{path}/alerts\"\n{more}"
    );
    fs::write(folder.path().join("execwatch.toml"), text).unwrap();
    Host { folder, _syslog: syslog }
}

impl Host {
    fn config(&self) -> std::path::PathBuf {
        self.folder.path().join("execwatch.toml")
    }
}

#[test]
fn every_cpu_is_tried() {
    let Some(machine) = Machine::alone() else { return };
    machine.on_every_cpu();
    let host = host("");
    let output = doctor(&[], &host.config(), &["--json"]);
    let capture = told(&output, "capture");
    let cpus = std::thread::available_parallelism().unwrap().get();
    let exact = capture.iter().filter(|it| it.starts_with("good: CPU ") && it.contains(": exact;")).count();
    let best_effort = capture.iter().filter(|it| it.contains("best effort")).count();
    assert!(exact >= cpus || best_effort > 0, "{capture:#?}");
    assert_eq!(told(&output, "privileges"), ["good: root, with every capability that is needed"]);
    assert!(told(&output, "output").iter().all(|it| it.starts_with("good: ")), "{output:?}");
    let files = told(&output, "files");
    assert!(files.iter().any(|it| it.contains("for root alone")), "{files:?}");
    // The people's form says the same.
    let text = doctor(&[], &host.config(), &[]);
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("good     privileges  root, ") && text.contains("execwatch works here"), "{text}");
}

/// Each lack has its level, its exit code and a remedy.
#[test]
fn what_a_host_lacks_is_said() {
    let Some(_machine) = Machine::alone() else { return };
    let (Some(setpriv), Some(unshare)) = (installed("setpriv"), installed("unshare")) else { return };
    let (setpriv, unshare) = (setpriv.to_str().unwrap().to_owned(), unshare.to_str().unwrap().to_owned());
    let host = host("");
    let config = host.config();
    let lacks = |under: &[&str], code: i32, area: &str, said: &str| {
        let output = doctor(under, &config, &["--json"]);
        assert!(told(&output, area).iter().any(|it| it.contains(said)), "{under:?}: {output:?}");
        assert_eq!(output.status.code(), Some(code), "{under:?}: {output:?}");
        for finding in findings(&output) {
            let bad = matches!(finding["level"].as_str().unwrap(), "warning" | "fatal");
            assert_eq!(finding["remedy"].is_string(), bad, "{finding}");
        }
    };
    let without = |name: &'static str| {
        [setpriv.clone(), format!("--bounding-set=-{name}"), format!("--inh-caps=-{name}")]
    };
    let nice = without("sys_nice");
    lacks(&nice.each_ref().map(String::as_str), 1, "capture", "programs cannot be held while they are read");
    let admin = without("net_admin");
    lacks(&admin.each_ref().map(String::as_str), 2, "privileges", "fatal: CAP_NET_ADMIN is missing");
    lacks(&[&unshare, "--net"], 2, "kernel", "not the host's network namespace");
    lacks(&[&unshare, "--pid", "--fork", "--mount-proc"], 2, "kernel", "not the host's pid namespace");
    lacks(&[&setpriv, "--reuid=1", "--clear-groups"], 2, "privileges", "this is not root");
}

#[test]
fn files_and_outputs_are_looked_at() {
    let Some(_machine) = Machine::alone() else { return };
    let host = host("[capture]\nrealtime-priority = 0\n");
    let state = host.folder.path().join("state");
    fs::set_permissions(&state, fs::Permissions::from_mode(0o777)).unwrap();
    fs::remove_file(host.folder.path().join("log")).unwrap();
    let output = doctor(&[], &host.config(), &["--json"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(told(&output, "files").iter().any(|it| it.contains("mode 0777")), "{output:?}");
    assert!(told(&output, "output").iter().any(|it| it.contains("syslog cannot be reached")), "{output:?}");
    assert!(
        told(&output, "capture").iter().any(|it| it.contains("best effort by configuration")),
        "{output:?}"
    );
    // The daemon is root without the capability to write where owner and mode do not let it.
    let theirs = host.folder.path().join("theirs");
    fs::create_dir(&theirs).unwrap();
    chown(&theirs, Some(65_534), Some(65_534)).unwrap();
    fs::set_permissions(&theirs, fs::Permissions::from_mode(0o755)).unwrap();
    let text = fs::read_to_string(host.config()).unwrap();
    let metrics = format!("[metrics]\ntextfile = \"{}/x.prom\"\n", theirs.display());
    let elsewhere = text.replace("/alerts\"", "/theirs/alerts\"");
    fs::write(host.config(), elsewhere + &metrics).unwrap();
    let said = told(&doctor(&[], &host.config(), &["--json"]), "output");
    for name in ["theirs/alerts cannot be made: ", "theirs/x.prom cannot be made: "] {
        assert!(said.iter().any(|it| it.starts_with("warning: ") && it.contains(name)), "{said:#?}");
    }
    fs::write(host.config(), text).unwrap();
    let remote = "[[output.remote]]\nname = \"far\"\nservers = [\"tcp://127.0.0.1:1\"]\n";
    fs::write(host.config(), fs::read_to_string(host.config()).unwrap() + remote).unwrap();
    fs::set_permissions(host.config(), fs::Permissions::from_mode(0o664)).unwrap();
    let output = doctor(&[], &host.config(), &["--json"]);
    let servers = told(&output, "output");
    assert!(servers.iter().any(|it| it.contains("tcp://127.0.0.1:1 of [[output.remote]] far")), "{output:?}");
    // The daemon would not start.
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(
        told(&output, "files").iter().any(|it| it.starts_with("fatal: execwatch refuses the file")),
        "{output:?}"
    );
    fs::write(host.config(), "[output.syslog]\nenabled = perhaps\n").unwrap();
    let output = doctor(&[], &host.config(), &["--json"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("execwatch.toml:2:11"), "{output:?}");
}

/// The same checks explain why the daemon does not start.
#[test]
fn a_failed_start_is_explained() {
    let Some(machine) = Machine::alone() else { return };
    let Some(unshare) = installed("unshare") else { return };
    let ended = machine.daemon().under(&[unshare.to_str().unwrap(), "--net"]).run_to_end();
    assert_eq!(ended.code, Some(69), "{}", ended.stderr);
    assert!(ended.stderr.contains("docker: --network host") && ended.stderr.contains("execwatch doctor"));
}
