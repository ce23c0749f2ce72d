//! Recording and replaying: what the daemon recorded gives the same alerts again, and so do its alerts and the kernel's
//! audit records as far as they tell.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod support;

use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};
use support::{Machine, installed, program, skip, wait_until};

/// Rules that need what is read of the exec, of other processes, of the host's names and of the time, with a threshold
/// and an exception.
const RULES: &str = r#"
[[rule]]
id = "own-programs"
title = "A program of this test"
severity = "low"
[rule.select.program]
"exe|startswith" = "{dir}/bin/"

[[rule]]
id = "from-script"
title = "Started by root from a script of this test"
severity = "high"
[rule.select.program]
"exe|startswith" = "{dir}/bin/"
"ancestor.cmdline|contains" = "script-of-test"
"parent.user" = "root"
"session-leader.pid|gt" = 0
"user.effective" = "root"
"namespace.net" = false
cwd = "{dir}"

[[rule]]
id = "at-night-or-day"
title = "Any hour"
severity = "medium"
[rule.select.program]
"exe|startswith" = "{dir}/bin/timed"
"time.hour|lt" = 24

[[rule]]
id = "often"
title = "Three times"
severity = "critical"
threshold = { count = 3, window = "60s", by = ["user"], distinct = "args" }
[rule.select.program]
"exe|startswith" = "{dir}/bin/often"

[[utility]]
name = "sha1sum"
category = "test"

[[rule]]
id = "recognised"
title = "A copy under another name"
severity = "medium"
[rule.select.copy]
"exe|startswith" = "{dir}/bin/"
"utility.name" = "sha1sum"
"utility.via" = "identity"
"exe.size|gt" = 100
"exe.owner" = "root"
"exe.age|gt" = -10
"exe.setuid" = false

[[exception]]
id = "known"
reason = "Known to this test"
rules = ["from-script"]
[exception.match]
"args" = "known"
"#;

/// Runs `execwatch replay` with something on its standard input.
fn replay<A: AsRef<std::ffi::OsStr>>(arguments: &[A], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_execwatch"))
        .arg("replay")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // It may end before it has read everything.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

fn alerts(output: &Output) -> Vec<Value> {
    let lines = output.stdout.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
}

/// Rules in a folder, which is to be kept.
fn rules(text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("rules.toml"), text).unwrap();
    folder
}

/// Everything but the start of the process, whose last digits depend on when the two clocks are compared, and what the
/// daemon's baseline knew, which a replay has not.
fn without_start(alert: &Value) -> Value {
    let mut alert = alert.clone();
    alert["execwatch"].as_object_mut().unwrap().remove("baseline");
    // Those of a record that was sent.
    alert["execwatch"].as_object_mut().unwrap().remove("record");
    // Incidents are the daemon's.
    alert["execwatch"].as_object_mut().unwrap().remove("incident");
    alert["event"].as_object_mut().unwrap().remove("sequence");
    alert["process"].as_object_mut().unwrap().remove("start").unwrap();
    alert
}

#[test]
fn a_recording_gives_the_same_alerts_again() {
    let Some(machine) = Machine::alone() else { return };
    let (Some(shell), Some(sha1sum), Some(setsid)) =
        (installed("sh"), installed("sha1sum"), installed("setsid"))
    else {
        return;
    };
    let record = tempfile::tempdir().unwrap();
    let events = record.path().join("events");
    let daemon = machine
        .daemon()
        .rules(RULES)
        .argument("--record")
        .argument(events.to_str().unwrap())
        .capture("already-running = false")
        .start();
    let (plain, timed, often) = (daemon.program("plain"), daemon.program("timed"), daemon.program("often"));
    let folder = daemon.folder().to_owned();
    let hostile = std::ffi::OsStr::from_bytes(b"\xff \n\"\\x41\\ \x1b[2J\xe2\x80\xae");
    let run = |command: &mut Command| assert!(command.current_dir(&folder).status().unwrap().success());
    run(Command::new(&plain).arg(hostile).arg("").arg0("other name"));
    run(Command::new(&plain).uid(12345).gid(54321).env_clear());
    run(&mut Command::new(&timed));
    let copy = folder.join("bin/copy");
    program::copy(&sha1sum, &copy);
    run(Command::new(&copy).arg("--version").stdout(Stdio::null()));
    // The shell stays until its programs are evaluated: ancestors are looked up then. It leads a session of its own:
    // that in which the tests run may have lost its leader.
    let mut script = Command::new(&setsid)
        .arg(&shell)
        .args(["-c", "bin/plain of shell; bin/plain known; read line; true", "script-of-test"])
        .current_dir(&folder)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    daemon.wait_for(|alert| alert["process"]["args"][1] == "known");
    drop(script.stdin.take());
    assert!(script.wait().unwrap().success());
    for number in ["1", "2", "2", "3", "4"] {
        run(Command::new(&often).arg(number));
    }
    // Long, and cut by neither: 20,000 bytes.
    run(Command::new(&plain).arg("x".repeat(20_000)));
    daemon.wait_for(|alert| {
        alert["process"]["args"][1].as_str().is_some_and(|argument| argument.len() == 20_000)
    });
    let rules_folder = rules(&RULES.replace("{dir}", folder.to_str().unwrap()));
    let ended = daemon.stop();
    let live = ended.alerts(|_| true);
    assert!(live.len() >= 10, "{}", ended.stderr);
    assert!(ended.stderr.contains(&format!("recorded: written={} lost=0", live.len())), "{}", ended.stderr);
    let all_rules: Vec<&Value> =
        live.iter().flat_map(|alert| alert["execwatch"]["rules"].as_array().unwrap()).collect();
    for rule in ["own-programs", "from-script", "at-night-or-day", "often", "recognised"] {
        assert!(all_rules.contains(&&json!(rule)), "{rule}");
    }

    assert_eq!(fs::metadata(&events).unwrap().permissions().mode() & 0o777, 0o600);
    let arguments = ["--json", "--rules", rules_folder.path().to_str().unwrap(), "--config", "/dev/null"];
    let again = replay(&[&arguments[..], &[events.to_str().unwrap()]].concat(), b"");
    assert_eq!(code(&again), Some(0), "{}", err(&again));
    let own: Vec<Value> = alerts(&again)
        .into_iter()
        .filter(|alert| alert["execwatch"]["rules"].to_string().contains("own-programs"))
        .collect();
    let expected: Vec<Value> = live.iter().map(|alert| without_start(alert)).collect();
    assert_eq!(own.iter().map(without_start).collect::<Vec<_>>(), expected);
    let totals = err(&again);
    assert!(
        totals
            .lines()
            .any(|line| line.split_whitespace().collect::<Vec<_>>() == ["1", "1", "0", "from-script"]),
        "{totals}"
    );
    assert!(
        totals.lines().any(|line| line.split_whitespace().collect::<Vec<_>>() == ["1", "0", "4", "often"]),
        "{totals}"
    );
    assert!(totals.contains("by exception known"), "{totals}");

    // The alerts themselves hold what most rules ask for, but no ancestors beyond the parent.
    let text: String = ended.records.iter().map(|record| format!("{record}\n")).collect();
    let from_alerts = replay(&[&arguments[..], &["-"]].concat(), text.as_bytes());
    assert_eq!(code(&from_alerts), Some(0), "{}", err(&from_alerts));
    let (again, live): (Vec<Value>, Vec<Value>) = alerts(&from_alerts)
        .into_iter()
        .zip(live.iter().map(|alert| (*alert).clone()))
        .filter(|(_, live)| live["rule"]["id"] != "from-script")
        .unzip();
    assert!(again.len() >= 9);
    assert_eq!(
        again.iter().map(without_start).collect::<Vec<_>>(),
        live.iter().map(without_start).collect::<Vec<_>>()
    );
}

#[test]
fn everything_is_recorded_if_that_is_asked_for() {
    let Some(machine) = Machine::alone() else { return };
    let unmatched = "[[rule]]\nid = \"none\"\ntitle = \"None\"\nseverity = \"low\"\n[rule.select.program]\nexe = \"/none\"\n";
    for everything in [false, true] {
        let record = tempfile::tempdir().unwrap();
        let events = record.path().join("events");
        let mut setup = machine
            .daemon()
            .rules(unmatched)
            .capture("already-running = false")
            .argument("--record")
            .argument(events.to_str().unwrap());
        if everything {
            setup = setup.argument("--record-all");
        }
        let daemon = setup.start();
        let program = daemon.program("nobody-asks");
        assert!(Command::new(&program).arg("x").status().unwrap().success());
        if everything {
            wait_until("the record", || {
                fs::read_to_string(&events).unwrap().contains("nobody-asks").then_some(())
            });
        }
        let ended = daemon.stop();
        let text = fs::read_to_string(&events).unwrap();
        let found = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .find(|event| event["exe"] == json!(program));
        assert_eq!(found.is_some(), everything, "{}", ended.stderr);
        if let Some(event) = found {
            assert_eq!(event["args"], json!([program, "x"]));
            assert_eq!(event["ancestors"][0]["pid"], std::process::id());
        }
    }
}

#[test]
fn a_recording_that_cannot_be_opened() {
    let Some(machine) = Machine::shared() else { return };
    let ended = machine.daemon().argument("--record").argument("/dev/null").run_to_end();
    assert_eq!(ended.code, Some(74));
    assert!(ended.stderr.contains("/dev/null: it is no ordinary file"), "{}", ended.stderr);
}

/// Each exec.
const ANY: &str =
    "[[rule]]\nid = \"any\"\ntitle = \"Any\"\nseverity = \"low\"\n[rule.select.any]\n\"pid|gt\" = 0\n";

#[test]
fn audit_records_as_the_kernel_writes_them() {
    let rules = rules(ANY);
    let log = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/audit.log");
    let arguments = ["--json", "--config", "/dev/null", "--rules", rules.path().to_str().unwrap()];
    let output = replay(&[&arguments[..], &[log]].concat(), b"");
    assert_eq!(code(&output), Some(0), "{}", err(&output));
    let alerts = alerts(&output);
    let args: Vec<&Value> = alerts.iter().map(|alert| &alert["process"]["args"]).collect();
    let long = "x".repeat(40) + &"y y ".repeat(10);
    assert_eq!(
        args,
        [
            &json!(["nc", "-e", "/bin/sh", "two words", ""]),
            &json!(["nc", "caf\\xe9\n\""]),
            &json!(["curl", long, "-O"]),
            &json!(["nmap", "-sS"]),
        ]
    );
    let [nc, copy, curl, nmap] = &alerts[..] else { panic!("{alerts:#?}") };
    assert_eq!(nc["@timestamp"], "2026-11-25T07:33:09.608000Z");
    assert_eq!(nc["process"]["executable"], "/usr/bin/nc.openbsd");
    assert_eq!(nc["process"]["working_directory"], "/home/alice");
    assert_eq!((&nc["process"]["pid"], &nc["process"]["parent"]["pid"]), (&json!(4711), &json!(4700)));
    assert_eq!((&nc["user"]["name"], &nc["execwatch"]["login"]["name"]), (&json!("alice"), &json!("alice")));
    assert_eq!(nc["execwatch"]["tty"], "pts/0");
    assert_eq!(nc["execwatch"]["capture"]["certainty"], "reported");
    assert_eq!(copy["process"]["executable"], "/tmp/my nc");
    assert_eq!(copy["execwatch"]["exe_deleted"], true);
    assert_eq!(copy["user"]["effective"], json!({"id": "0", "name": "root"}));
    assert_eq!(copy["process"]["working_directory"], "/home/alice/B\u{fc}cher");
    assert_eq!(
        (&curl["process"]["interactive"], &curl["execwatch"]["logged_in"]),
        (&json!(false), &json!(false))
    );
    assert_eq!(nmap["execwatch"]["args_cut"]["kept"], 8);
    // Of a host that is not this one nothing but the name is known, and no user's name here is one there.
    assert_eq!(
        nmap["host"],
        json!({"name": "web1", "hostname": "web1", "os": {"type": "linux", "kernel": ""}})
    );
    assert_eq!(nmap["user"].get("name"), None);
    let [last] =
        alerts.iter().filter(|alert| alert["execwatch"].get("args_cut").is_some()).collect::<Vec<_>>()[..]
    else {
        panic!("only one list has a gap")
    };
    assert_eq!(last["process"]["pid"], 815);
}

/// A running auditd; everything is put back as it was when dropped.
struct Auditd {
    child: Child,
    rule: Vec<String>,
    enabled: String,
}

fn auditctl(words: &[&str]) -> String {
    let output = Command::new("auditctl").args(words).output().unwrap();
    assert!(output.status.success(), "auditctl {words:?}: {}", err(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn audit_state(name: &str) -> String {
    let state = auditctl(&["-s"]);
    state.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap().trim().to_owned()
}

impl Auditd {
    /// `None` if audit is in use here or not to be had, which has been said.
    fn start(folder: &Path, exe: &Path) -> Option<Auditd> {
        installed("auditd")?;
        let state = Command::new("auditctl").arg("-s").output().unwrap();
        let said = String::from_utf8_lossy(&state.stdout);
        if !state.status.success() || !said.contains("pid 0") || said.contains("enabled 2") {
            skip("needs an audit that nobody uses");
            return None;
        }
        let place = folder.display();
        fs::create_dir(folder.join("plugins")).unwrap();
        let settings = format!(
            "local_events = yes\nwrite_logs = yes\nlog_file = {place}/audit.log\nlog_format = ENRICHED\nflush = NONE\n\
             name_format = NONE\nmax_log_file = 8\nmax_log_file_action = IGNORE\nspace_left = 75\n\
             space_left_action = IGNORE\nadmin_space_left = 50\nadmin_space_left_action = IGNORE\n\
             disk_full_action = IGNORE\ndisk_error_action = IGNORE\nplugin_dir = {place}/plugins\n"
        );
        fs::write(folder.join("auditd.conf"), settings).unwrap();
        let enabled = audit_state("enabled");
        let child = Command::new("auditd")
            .args(["-n", "-c"])
            .arg(folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let pid = child.id().to_string();
        let rule = ["exit,always", "-F", "arch=b64", "-S", "execve", "-F"].map(str::to_owned).into_iter();
        let rule = rule.chain([format!("exe={}", exe.display())]).collect();
        let auditd = Auditd { child, rule, enabled };
        wait_until("auditd is known to the kernel", || (audit_state("pid") == pid).then_some(()));
        let words: Vec<&str> = ["-a"].into_iter().chain(auditd.rule.iter().map(String::as_str)).collect();
        auditctl(&words);
        auditctl(&["-e", "1"]);
        Some(auditd)
    }
}

impl Drop for Auditd {
    fn drop(&mut self) {
        // The rule goes first, or the kernel would log to its console. Nothing can be done if anything fails.
        let _ = Command::new("auditctl").arg("-d").args(&self.rule).status();
        let _ = Command::new("auditctl").args(["-e", &self.enabled]).output();
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

#[test]
fn what_auditd_writes_of_real_programs() {
    let Some(_machine) = Machine::alone() else { return };
    let folder = tempfile::tempdir().unwrap();
    let program = program::brief(&folder.path().canonicalize().unwrap().join("audited"));
    let Some(auditd) = Auditd::start(folder.path(), &program) else { return };
    let lists: Vec<Vec<Vec<u8>>> = vec![
        vec![b"audited".to_vec()],
        vec![b"other name".to_vec(), b"".to_vec(), b"a\"b".to_vec(), b"\xff\n\x1b".to_vec()],
        // Longer than a record.
        vec![b"audited".to_vec(), vec![b'x'; 20_000], b"short".to_vec(), b"y ".repeat(15_000)],
        (0..3000).map(|number| format!("argument{number}").into_bytes()).collect(),
    ];
    for list in &lists {
        let mut words = list.iter().map(|word| std::ffi::OsStr::from_bytes(word));
        let status = Command::new(&program).arg0(words.next().unwrap()).args(words).current_dir("/").status();
        assert!(status.unwrap().success());
    }
    let log = folder.path().join("audit.log");
    wait_until("the last program in the log", || {
        let text = fs::read(&log).unwrap_or_default();
        let end = [b"proctitle=".to_vec(), hex(b"argument0\0argument1\0")].concat();
        text.windows(end.len()).any(|window| window == end).then_some(())
    });
    drop(auditd);

    let rules = rules(&format!("{ANY}exe = \"{}\"\n", program.display()));
    let arguments = ["--json", "--config", "/dev/null", "--rules", rules.path().to_str().unwrap()];
    let output = replay(&[&arguments[..], &[log.to_str().unwrap()]].concat(), b"");
    assert_eq!(code(&output), Some(0), "{}", err(&output));
    let expected: Vec<Value> = lists
        .iter()
        .map(|list| list.iter().map(|word| execwatch::alert::escape::for_json(word)).collect())
        .collect();
    let found = alerts(&output);
    let args: Vec<&Value> = found.iter().map(|alert| &alert["process"]["args"]).collect();
    assert_eq!(args, expected.iter().collect::<Vec<_>>());
    assert!(
        found
            .iter()
            .all(|alert| alert["user"]["name"] == "root" && alert["process"]["working_directory"] == "/")
    );

    // What ausearch makes of the log, also with the records of each event turned round.
    if installed("ausearch").is_some() {
        for form in [&["--raw"][..], &[]] {
            let searched = Command::new("ausearch").arg("-if").arg(&log).args(form).output().unwrap();
            let again = replay(&[&arguments[..], &["-"]].concat(), &searched.stdout);
            assert_eq!(code(&again), Some(0), "{}", err(&again));
            let again = self::alerts(&again);
            let args: Vec<&Value> = again.iter().map(|alert| &alert["process"]["args"]).collect();
            assert_eq!(args, expected.iter().collect::<Vec<_>>(), "{form:?}");
        }
    }
}

fn hex(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().flat_map(|byte| format!("{byte:02X}").into_bytes()).collect()
}

#[test]
fn lines_that_cannot_be_read_lose_nothing_else() {
    let rules = rules(
        "[[rule]]\nid = \"any\"\ntitle = \"Any\"\nseverity = \"low\"\n[rule.select.any]\nexe = \"/bin/nc\"\n",
    );
    let folder = rules.path().to_str().unwrap();
    let mut input =
        b"{\"exe\":\"/bin/nc\"}\n\xff\xfe\n{\"exe\":7}\n{\"exe\":\"/bin/nc\",\"exec\":1}\n".to_vec();
    input.extend(
        b"type=SYSCALL msg=audit(1.1:1): arch=c000003e syscall=59 success=yes comm=xyz exe=\"/bin/nc\"\n",
    );
    input.extend(b"{\"exe\":\"/bin/nc\",\"args\":[\"");
    input.extend(vec![b'x'; 17 << 20]);
    input.extend(b"\"]}\n{\"exe\":\"/bin/nc\"}");
    let output = replay(&["--json", "--config", "/dev/null", "--rules", folder, "-"], &input);
    let said = err(&output);
    assert_eq!(code(&output), Some(1), "{said}");
    assert_eq!(alerts(&output).len(), 2, "{said}");
    for expected in [
        "<stdin>:2: neither JSON nor an audit record",
        "<stdin>:3: invalid type: integer `7`, expected a string",
        "<stdin>:4: unknown key `exec`; did you mean `exe`?",
        "<stdin>:5: `comm` of an audit record is neither in quotation marks nor hexadecimal",
        "<stdin>:6: a line of more than 16 MiB",
        "7 lines: 3 execs, 0 lines of something else, 5 not readable",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }

    // Many are counted, and only the first are said.
    let output = replay(&["--config", "/dev/null", "--rules", folder, "-"], "x\n".repeat(1000).as_bytes());
    let said = err(&output);
    assert!(said.lines().count() < 20 && said.contains("1000 not readable"), "{said}");
}

#[test]
fn what_cannot_be_replayed_at_all() {
    let mistaken = rules("[[rule]]\nid = \"x\"\n");
    let good = rules(ANY);
    let folder = good.path().to_str().unwrap();
    let output = replay(&["--rules", mistaken.path().to_str().unwrap(), "-"], b"{}");
    assert_eq!(code(&output), Some(78), "{}", err(&output));
    for (name, reason) in [("/nonexistent", "No such file"), ("/proc", "Is a directory")] {
        let output = replay(&["--rules", folder, name], b"");
        assert_eq!(code(&output), Some(66), "{}", err(&output));
        assert!(err(&output).contains(name) && err(&output).contains(reason), "{}", err(&output));
    }
    let output = replay::<&str>(&[], b"");
    assert_eq!(code(&output), Some(64));
}

#[test]
fn forms_and_a_reader_that_goes() {
    let rules = rules(
        "[[rule]]\nid = \"any\"\ntitle = \"Any\"\nseverity = \"low\"\n[rule.select.any]\nexe = \"/bin/nc\"\n",
    );
    let folder = rules.path().to_str().unwrap();
    let event = "{\"exe\":\"/bin/nc\",\"user\":\"eve\",\"time\":\"2026-11-24T03:12:00+01:00\"}\n";
    // Of what is not said nothing is made up.
    let text = replay(&["--config", "/dev/null", "--rules", folder, "-"], event.as_bytes());
    let line = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(line.starts_with("severity=low rule=any title=Any utility="), "{line}");
    assert!(
        line.contains(" user=eve exe=/bin/nc ") && line.contains(" time=2026-11-24T02:12:00.000000Z"),
        "{line}"
    );
    assert!(!line.contains("uid=") && !line.contains(" pid="), "{line}");

    let mut child = Command::new(env!("CARGO_BIN_EXE_execwatch"))
        .args(["replay", "--config", "/dev/null", "--rules", folder, "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    // More than any buffer holds, so that it writes while this writes.
    let _ = child.stdin.take().unwrap().write_all(event.repeat(10_000).as_bytes());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn progress_on_a_terminal() {
    let Some(script) = installed("script") else { return };
    let rules = rules(ANY);
    let events = rules.path().join("events");
    fs::write(&events, "{\"exe\":\"/bin/true\"}\n".repeat(200_000)).unwrap();
    let command = format!(
        "{} replay --config /dev/null --rules {} {} > /dev/null",
        env!("CARGO_BIN_EXE_execwatch"),
        rules.path().display(),
        events.display()
    );
    let output =
        Command::new(script).args(["-qec", &command, "/dev/null"]).stdin(Stdio::null()).output().unwrap();
    assert_eq!(code(&output), Some(0));
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        shown.contains("events: ") && shown.contains("%, ") && shown.contains(" lines, 0 alerts"),
        "{shown:?}"
    );
    assert!(shown.contains("\r\x1b[Kexecwatch: 200000 lines: 200000 execs"), "{shown:?}");
}
