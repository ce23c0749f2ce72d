//! What the running daemon tells about itself: `execwatch status`, metrics, and the socket behind both.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot be set up has failed")]

mod support;

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::process::Command;

use serde_json::{Value, json};
use support::{DEADLINE, Daemon, Machine, Setup, Staying, installed, wait_until};

const BASE: &str = "[rules]\nbuiltin = false\n[output.syslog]\nenabled = false\n\
                    [output.file]\npath = \"{dir}/alerts.json\"\n";

/// A daemon with these lines in its configuration besides.
fn with<'m>(machine: &'m Machine, lines: &str) -> Setup<'m> {
    machine.daemon().config(&format!("{BASE}{lines}"))
}

/// Sends bytes to the control socket, and then everything that comes back.
fn ask(daemon: &Daemon<'_>, request: &[u8]) -> Vec<u8> {
    let mut stream = UnixStream::connect(daemon.control()).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    // The daemon may answer and close before it has read everything.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() != std::io::ErrorKind::ConnectionReset => panic!("{error}"),
        _ => answer,
    }
}

fn sum(rows: &Value, key: &str) -> u64 {
    rows.as_array().unwrap().iter().map(|row| row[key].as_u64().unwrap()).sum()
}

#[test]
fn the_status_says_what_was_done() {
    let Some(machine) = Machine::shared() else { return };
    let daemon = machine
        .daemon()
        .rules(
            "[[rule]]\nid = 'mine'\ntitle = 'Mine'\nseverity = 'low'\n[rule.select.it]\n'exe|startswith' = '{dir}/bin/'\n\
             [[exception]]\nid = 'not-quiet'\nrules = ['mine']\nreason = 'a test'\n[exception.match]\n'exe|endswith' = '/quiet'\n",
        )
        .start();
    let programs: Vec<Staying> = ["one", "two", "quiet"]
        .iter()
        .map(|name| Staying::start(&daemon.folder().join("bin").join(name)))
        .collect();
    for program in &programs[..2] {
        daemon.wait_for(|alert| alert["process"]["pid"] == program.pid());
    }
    let status = wait_until("everything was counted", || {
        let status = daemon.status_json();
        (status["totals"]["silenced"] == 1 && status["outputs"][0]["written"] == 2).then_some(status)
    });
    assert_eq!(
        (&status["version"], &status["pid"]),
        (&env!("CARGO_PKG_VERSION").into(), &daemon.pid().into())
    );
    assert_eq!(status["rules"], json!([{ "id": "mine", "hits": 2 }]));
    assert_eq!(status["exceptions"], json!([{ "id": "not-quiet", "hits": 1 }]));
    assert_eq!(status["totals"]["alerts"], 2);
    assert_eq!(status["blind"], json!([]));
    let output = &status["outputs"][0];
    assert_eq!(output["name"], format!("file {}/alerts.json", daemon.folder().display()));
    assert_eq!(sum(&status["listeners"], "execs"), status["totals"]["execs"].as_u64().unwrap());
    assert!(sum(&status["listeners"], "execs") >= 3);
    assert!(status["listeners"].as_array().unwrap().iter().any(|row| row["last_event"].is_string()));
    assert!(status["cost"]["memory_bytes"].as_u64().unwrap() > 1 << 20);
    assert!(status["cost"]["cpu_s"].as_f64().unwrap() > 0.0);
    let (code, text, _) = daemon.status(&[]);
    assert_eq!(code, 0);
    for part in [
        "sees           yes",
        "alerts         2 told (0 already running",
        "           2  mine",
        "           1  not-quiet",
        "OUTPUT",
    ] {
        assert!(text.contains(part), "«{part}» is not in:\n{text}");
    }
    // Found by the configuration as well.
    let config = daemon.folder().join("execwatch.toml");
    let by_config = Command::new(env!("CARGO_BIN_EXE_execwatch"))
        .args(["status", "--json", "--config"])
        .arg(config)
        .output()
        .unwrap();
    assert_eq!(by_config.status.code(), Some(0));
    let folder = daemon.folder().join("run");
    let mode = |path| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!((mode(folder.clone()), mode(daemon.control())), (0o700, 0o600));
    daemon.stop();
    assert!(!folder.join("control.sock").exists());
}

#[test]
fn who_cannot_be_reached_and_who_may_not_ask() {
    let Some(machine) = Machine::shared() else { return };
    let daemon = machine.daemon().start();
    let socket = daemon.control();
    let as_nobody = || {
        let output = Command::new("setpriv")
            .args([
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
                env!("CARGO_BIN_EXE_execwatch"),
                "status",
                "--socket",
            ])
            .arg(&socket)
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    // A user who may not execute the program under test cannot be refused by it.
    if !Command::new("setpriv")
        .args(["--reuid=65534", "--clear-groups", env!("CARGO_BIN_EXE_execwatch"), "--version"])
        .status()
        .unwrap()
        .success()
    {
        return support::skip("needs a program that any user may execute");
    }
    let (code, said) = as_nobody();
    assert_eq!(code, Some(77), "{said}");
    // Even where the files would let him.
    for path in [daemon.folder().join("run"), socket.clone()] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    }
    let (code, said) = as_nobody();
    assert_eq!(code, Some(77), "{said}");
    assert!(said.contains("only root is answered"), "{said}");
    daemon.stop();
    let gone = Command::new(env!("CARGO_BIN_EXE_execwatch"))
        .args(["status", "--socket"])
        .arg(&socket)
        .output()
        .unwrap();
    assert_eq!(gone.status.code(), Some(69));
    let said = String::from_utf8(gone.stderr).unwrap();
    assert!(said.contains("no daemon answers at") && said.contains("systemctl status execwatch"), "{said}");
}

#[test]
fn a_socket_that_was_left_is_replaced_and_one_in_use_is_not() {
    let Some(machine) = Machine::shared() else { return };
    let first = machine.daemon().start();
    let shared = format!(
        "[state]\nfolder = \"{{dir}}/state\"\nruntime-folder = \"{}/run\"\n",
        first.folder().display()
    );
    // Somebody has removed what keeps a second daemon out.
    fs::remove_file(first.folder().join("run/lock")).unwrap();
    let second = with(&machine, &shared).start();
    let said = second.wait_for_message("will not be answered");
    assert!(said.contains("another process answers at"), "{said}");
    second.stop();
    assert_eq!(first.status_json()["pid"], first.pid());
    // A killed daemon leaves its socket.
    let socket = first.control();
    first.signal(nix::sys::signal::Signal::SIGKILL);
    wait_until("nobody answers", || UnixStream::connect(&socket).is_err().then_some(()));
    assert!(socket.exists());
    let third = with(&machine, &shared).start();
    let answer = Command::new(env!("CARGO_BIN_EXE_execwatch"))
        .args(["status", "--json", "--socket"])
        .arg(&socket)
        .output()
        .unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&answer.stdout).unwrap()["pid"], third.pid());
    third.stop();
    // A folder where others may write is none.
    fs::set_permissions(first.folder().join("run"), fs::Permissions::from_mode(0o777)).unwrap();
    let fourth = with(&machine, &shared).start();
    fourth.wait_for_message("only root can write to");
    fourth.stop();
}

#[test]
fn clients_that_are_hostile_or_asleep_hinder_nobody() {
    let Some(machine) = Machine::shared() else { return };
    let mut daemon = with(&machine, "[metrics]\nhttp = true\n").start();
    // More clients that say nothing, or never read, than are served at once.
    let silent: Vec<UnixStream> = (0..4).map(|_| UnixStream::connect(daemon.control()).unwrap()).collect();
    let deaf: Vec<UnixStream> = (0..6)
        .map(|_| {
            let mut stream = UnixStream::connect(daemon.control()).unwrap();
            stream.write_all(b"{\"command\":\"metrics\"}\n").unwrap();
            stream
        })
        .collect();
    assert_eq!(daemon.status(&[]).0, 0);
    drop((silent, deaf));
    let wrong: [&[u8]; 8] = [
        b"\n",
        b"{\n",
        b"{\"command\":\"shutdown\"}\n",
        b"[[[[[[[[\n",
        &[0xff; 100],
        b"GET \r\n\r\n",
        b"\0\0\0\n",
        b"{\"command\":[]}\n",
    ];
    for number in 0..10_000usize {
        let request = wrong[number % wrong.len()];
        let mut stream = UnixStream::connect(daemon.control()).unwrap();
        stream.write_all(request).unwrap();
        if number % 3 == 0 {
            // Goes without waiting for the answer.
            continue;
        }
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(
            answer.contains("\"error\":{\"kind\":\"usage\"") || answer.starts_with("HTTP/1.1 404"),
            "{answer}"
        );
    }
    let long = ask(&daemon, &vec![b'x'; 1 << 20]);
    assert!(String::from_utf8_lossy(&long).contains("longer than 65536 bytes"), "{long:?}");
    assert!(ask(&daemon, b"").is_empty() || daemon.runs());
    assert_eq!(daemon.status(&[]).0, 0);
    assert!(daemon.runs());
    daemon.stop();
}

/// The exposition format, read as strictly as its description has it: samples by family and labels.
fn parse_metrics(text: &str) -> BTreeMap<String, BTreeMap<String, f64>> {
    assert!(text.ends_with('\n'));
    let is_name = |name: &str| {
        name.starts_with("execwatch_")
            && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    };
    let mut families: BTreeMap<String, BTreeMap<String, f64>> = BTreeMap::new();
    let (mut current, mut kind, mut helped) = (String::new(), String::new(), HashSet::new());
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').unwrap();
            assert!(is_name(name) && !help.is_empty() && helped.insert(name.to_owned()), "{line}");
            current = name.to_owned();
            kind.clear();
        } else if let Some(typed) = line.strip_prefix("# TYPE ") {
            let (name, word) = typed.split_once(' ').unwrap();
            assert_eq!(name, current, "TYPE follows its HELP");
            assert!(["counter", "gauge"].contains(&word), "{line}");
            assert_eq!(word == "counter", name.ends_with("_total"), "{line}");
            kind = word.to_owned();
            families.insert(current.clone(), BTreeMap::new());
        } else {
            assert!(!kind.is_empty(), "a sample before its TYPE: {line}");
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = match series.split_once('{') {
                Some((name, labels)) => (name, labels.strip_suffix('}').expect("labels are closed")),
                None => (series, ""),
            };
            assert_eq!(name, current, "a sample outside of its family");
            check_labels(labels);
            let value: f64 = value.parse().unwrap();
            assert!(value >= 0.0, "{line}");
            let before = families.get_mut(&current).unwrap().insert(labels.to_owned(), value);
            assert_eq!(before, None, "twice: {line}");
        }
    }
    families
}

fn check_labels(labels: &str) {
    let mut rest = labels;
    while !rest.is_empty() {
        let (name, after) = rest.split_once("=\"").expect("a label has a quoted value");
        assert!(
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'),
            "{labels}"
        );
        let mut escaped = false;
        let end = after.char_indices().find(|&(_, letter)| {
            let ends = letter == '"' && !escaped;
            assert!(!escaped || ['\\', '"', 'n'].contains(&letter), "{labels}");
            escaped = letter == '\\' && !escaped;
            ends
        });
        let (end, _) = end.expect("the value is closed");
        rest = &after[end + 1..];
        if !rest.is_empty() {
            rest = rest.strip_prefix(',').expect("labels are separated by commas");
        }
    }
}

#[test]
fn metrics_are_told_in_three_ways() {
    let Some(machine) = Machine::shared() else { return };
    // A name that needs every escape.
    let daemon = machine
        .daemon()
        .config(
            "[rules]\nbuiltin = false\n[output.syslog]\nenabled = false\n\
             [output.file]\npath = '{dir}/a\"b\\c.json'\n\
             [metrics]\ntextfile = '{dir}/metrics.prom'\nevery = '1s'\nhttp = true\n",
        )
        .start();
    let program = Staying::start(&daemon.folder().join("bin/program"));
    let file = daemon.folder().join("metrics.prom");
    let metrics = wait_until("the file tells of the alert", || {
        let metrics = parse_metrics(&fs::read_to_string(&file).ok()?);
        // It is written down after it was counted.
        let written = metrics["execwatch_output_written_total"].values().sum::<f64>();
        (metrics["execwatch_alerts_total"][""] == 1.0 && written == 1.0).then_some(metrics)
    });
    drop(program);
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o644);
    assert_eq!(metrics["execwatch_rule_hits_total"]["rule=\"own-programs\""], 1.0);
    let output = format!("output=\"file {}/a\\\"b\\\\c.json\"", daemon.folder().display());
    assert_eq!(metrics["execwatch_output_written_total"].get(&output), Some(&1.0), "{metrics:?}");
    assert!(metrics["execwatch_execs_total"].values().sum::<f64>() >= 1.0);
    assert!(metrics["execwatch_execs_total"].contains_key("cpu=\"other\""));
    assert!(metrics["execwatch_blind"].values().all(|&value| value == 0.0));
    for modes in metrics["execwatch_execs_total"].keys() {
        let of_cpu = metrics["execwatch_listener_mode"]
            .iter()
            .filter(|(labels, _)| labels.starts_with(modes.as_str()));
        assert_eq!(of_cpu.map(|(_, value)| value).sum::<f64>(), 1.0, "{modes}");
    }
    let (code, text, _) = daemon.status(&["--metrics"]);
    assert_eq!(code, 0);
    let families: Vec<String> = metrics.keys().cloned().collect();
    assert_eq!(parse_metrics(&text).into_keys().collect::<Vec<_>>(), families);
    let answer = String::from_utf8(ask(&daemon, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("text/plain; version=0.0.4"), "{head}");
    assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
    assert_eq!(parse_metrics(body).into_keys().collect::<Vec<_>>(), families);
    if installed("curl").is_some() {
        let output = Command::new("curl")
            .args(["--silent", "--fail", "--unix-socket"])
            .arg(daemon.control())
            .arg("http://localhost/metrics")
            .output()
            .unwrap();
        assert!(output.status.success());
        parse_metrics(&String::from_utf8(output.stdout).unwrap());
    }
    daemon.stop();
}

#[test]
fn without_leave_there_is_no_http() {
    let Some(machine) = Machine::shared() else { return };
    let daemon = machine.daemon().start();
    let answer = String::from_utf8(ask(&daemon, b"GET /metrics HTTP/1.1\r\n\r\n")).unwrap();
    assert!(answer.starts_with("{\"error\":"), "{answer}");
    assert!(!daemon.folder().join("metrics.prom").exists());
    daemon.stop();
}

/// Without a descriptor for another client the daemon goes on, says so once, and answers when there is one again.
#[test]
fn no_descriptor_for_a_client() {
    let Some(machine) = Machine::shared() else { return };
    let Some(prlimit) = installed("prlimit") else { return };
    let daemon = machine.daemon().start();
    let limit = |soft: usize| {
        let arguments = ["--pid".to_owned(), daemon.pid().to_string(), format!("--nofile={soft}:")];
        assert!(Command::new(&prlimit).args(arguments).status().unwrap().success());
    };
    let before = Command::new(&prlimit)
        .args(["--pid", &daemon.pid().to_string(), "--nofile", "--output=SOFT", "--noheadings", "--raw"])
        .output()
        .unwrap();
    let before: usize = String::from_utf8(before.stdout).unwrap().trim().parse().unwrap();
    // As if all were used: a new one would have to be below this number.
    limit(1);
    let mut waiting: Vec<UnixStream> =
        (0..3).map(|_| UnixStream::connect(daemon.control()).unwrap()).collect();
    let said = "whoever asks at the control socket has to wait";
    daemon.wait_for_message(said);
    limit(before);
    for client in &mut waiting {
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        client.write_all(b"{\"command\":\"status\"}\n").unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.contains("\"version\""), "{answer}");
    }
    drop(waiting);
    let ended = daemon.stop();
    assert_eq!(ended.stderr.matches(said).count(), 1, "{}", ended.stderr);
}
