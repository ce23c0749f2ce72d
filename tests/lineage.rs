//! Where a program comes from: real processes whose parents are gone, changed, or were not seen.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod support;

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use support::{Daemon, Machine, alert_of, installed, program, wait_until};

/// Waits in a child until the shell has gone, and becomes the program.
fn orphaned(program: &Path) -> String {
    format!("(while [ -d /proc/$$ ]; do :; done; exec {} orphan) & exit 0", program.display())
}

fn args(process: &Value) -> Vec<&str> {
    process["args"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

fn ancestors(alert: &Value) -> &[Value] {
    alert["execwatch"]["ancestors"].as_array().map_or(&[], Vec::as_slice)
}

/// The chain reaches the first process, and each ancestor is one that was there or is named by who it was.
#[track_caller]
fn assert_complete(alert: &Value) {
    assert_eq!(alert["execwatch"]["ancestors_complete"], true, "{alert:#}");
    assert_eq!(ancestors(alert).last().unwrap()["pid"], 1, "{alert:#}");
}

/// Runs a command in the daemon's folder, reaps it, and returns its pid.
fn reaped(command: &mut Command) -> u32 {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    child.wait().unwrap();
    child.id()
}

/// The last argument of a program that a test executes, by which its alert is found.
fn last_argument(alert: &Value) -> &str {
    args(&alert["process"]).last().copied().unwrap_or_default()
}

fn alert_with(daemon: &Daemon<'_>, argument: &str) -> Value {
    daemon.wait_for(|alert| last_argument(alert) == argument)
}

#[test]
fn a_thousand_double_forked_programs_show_their_script_in_a_storm() {
    const PROGRAMS: usize = 1000;
    const WORKERS: usize = 4;
    const STORM: usize = 5000;
    let Some(machine) = Machine::alone() else { return };
    machine.on_every_cpu();
    // The storm is what no rule can match.
    let rules = "[[rule]]\nid = 'orphan'\ntitle = 'An orphan'\nseverity = 'low'\n\
                 [rule.select.it]\nexe = '{dir}/bin/orphan'\n";
    let daemon = machine.daemon().rules(rules).start();
    let (orphan, other) = (daemon.tiny("orphan"), daemon.tiny("other"));
    let script = program::script(&daemon.folder().join("bin/fork.sh"), program::DOUBLE_FORK);
    let (next, stormed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let scripts: Vec<(usize, u32)> = std::thread::scope(|scope| {
        let storm = scope.spawn(|| {
            while stormed.fetch_add(1, Relaxed) < STORM {
                reaped(&mut Command::new(&other));
            }
        });
        let work = || {
            let mut started = Vec::new();
            loop {
                let number = next.fetch_add(1, Relaxed);
                if number >= PROGRAMS {
                    return started;
                }
                let mut command = Command::new(&script);
                started.push((number, reaped(command.arg(&orphan).arg(number.to_string()))));
            }
        };
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(work)).collect();
        let started = workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect();
        storm.join().unwrap();
        started
    });
    let ended = daemon.stop();
    let alerts = ended.alerts(|_| true);
    let by_number: HashMap<&str, &Value> =
        alerts.iter().map(|alert| (last_argument(alert), *alert)).collect();
    assert_eq!(alerts.len(), by_number.len());
    let mut missing = 0;
    for (number, pid) in scripts {
        let number = number.to_string();
        let unread = |ancestor: &Value| ancestor["args"].is_null();
        let alert = match by_number.get(number.as_str()) {
            Some(alert) if !ancestors(alert)[..2].iter().any(unread) => *alert,
            _ => {
                missing += 1;
                continue;
            }
        };
        let expected = ["/bin/sh", script.to_str().unwrap(), orphan.to_str().unwrap(), &number];
        let [between, shell, tests, ..] = ancestors(alert) else { panic!("{alert:#}") };
        assert_eq!((args(between), &between["learnt"]), (expected.to_vec(), &Value::from("inherited")));
        assert_eq!((args(shell), &shell["learnt"]), (expected.to_vec(), &Value::from("seen")));
        assert_eq!(shell["pid"], pid);
        assert_eq!(
            (&between["ended"], &shell["ended"]),
            (&Value::from(true), &Value::from(true)),
            "{alert:#}"
        );
        assert_eq!(tests["pid"], std::process::id());
        assert_eq!(alert["process"]["parent"]["pid"], between["pid"]);
        assert!(alert["execwatch"]["adopted_by"].is_u64(), "{alert:#}");
        assert_complete(alert);
    }
    support::storm::assert_gone(&ended, missing, PROGRAMS);
}

#[test]
fn a_shell_that_ends_first_is_still_shown() {
    let Some(machine) = Machine::alone() else { return };
    let daemon = machine.daemon().start();
    let orphan = daemon.program("orphan");
    let shell = reaped(Command::new("sh").arg("-c").arg(orphaned(&orphan)));
    let alert = alert_with(&daemon, "orphan");
    let parent = &alert["process"]["parent"];
    assert_eq!((&parent["pid"], &parent["learnt"]), (&shell.into(), &"seen".into()), "{alert:#}");
    assert_eq!(args(parent)[..2], ["sh", "-c"]);
    assert_eq!(ancestors(&alert)[1]["pid"], std::process::id());
    assert_complete(&alert);
    daemon.stop();
}

#[test]
fn a_chain_of_ten_is_shown_whole() {
    let Some(machine) = Machine::alone() else { return };
    let daemon = machine.daemon().start();
    let last = daemon.program("last");
    let text = format!(
        "#!/bin/sh\nif [ \"$1\" -gt 1 ]; then \"$0\" $(($1 - 1)); else {} last; fi\nexit 0\n",
        last.display()
    );
    let script = program::script(&daemon.folder().join("level.sh"), &text);
    reaped(Command::new(&script).arg("10"));
    let alert = alert_with(&daemon, "last");
    for (index, ancestor) in ancestors(&alert)[..10].iter().enumerate() {
        assert_eq!(args(ancestor)[1..], [script.to_str().unwrap(), &(index + 1).to_string()], "{alert:#}");
        assert_eq!(ancestor["learnt"], "seen");
    }
    assert_eq!(ancestors(&alert)[10]["pid"], std::process::id());
    assert_complete(&alert);
    daemon.stop();
}

#[test]
fn setsid_and_nohup_are_what_the_process_was_before() {
    let Some(machine) = Machine::alone() else { return };
    let daemon = machine.daemon().start();
    let file = daemon.program("detached");
    let shell =
        reaped(Command::new("sh").arg("-c").arg(format!("setsid nohup {} detached & wait", file.display())));
    let alert = alert_with(&daemon, "detached");
    let previous: Vec<&str> =
        alert["process"]["previous"].as_array().unwrap().iter().map(|image| args(image)[0]).collect();
    assert_eq!(previous, ["nohup", "setsid"], "{alert:#}");
    assert_eq!(alert["process"]["parent"]["pid"], shell);
    assert_eq!(alert["process"]["session_leader"]["pid"], alert["process"]["pid"]);
    daemon.stop();
}

#[test]
fn a_shell_that_becomes_the_program_is_shown_before_it() {
    let Some(machine) = Machine::alone() else { return };
    let daemon = machine.daemon().start();
    let file = daemon.program("became");
    let command = format!("exec {} became", file.display());
    let alert = alert_of(&daemon, Command::new("sh").arg("-c").arg(&command));
    assert_eq!(args(&alert["process"]["previous"][0]), ["sh", "-c", &command], "{alert:#}");
    assert_eq!(alert["process"]["previous"].as_array().unwrap().len(), 1);
    assert_eq!(alert["process"]["parent"]["pid"], std::process::id());
    daemon.stop();
}

/// Not a test of its own: adopts the orphans of the shell that runs EXECWATCH_TESTS_COMMAND, and waits for all.
#[test]
#[ignore = "started by another test"]
fn adopts_orphans() {
    let Some(command) = std::env::var_os("EXECWATCH_TESTS_COMMAND") else { return };
    nix::sys::prctl::set_child_subreaper(true).unwrap();
    Command::new("sh").arg("-c").arg(command).status().unwrap();
    while nix::sys::wait::wait().is_ok() {}
}

#[test]
fn who_adopts_an_orphan_is_not_taken_for_its_maker() {
    let Some(machine) = Machine::alone() else { return };
    let daemon = machine.daemon().start();
    let orphan = daemon.program("orphan");
    let adopter = reaped(
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--ignored", "--nocapture", "adopts_orphans"])
            .env("EXECWATCH_TESTS_COMMAND", orphaned(&orphan)),
    );
    let alert = alert_with(&daemon, "orphan");
    assert_eq!(alert["execwatch"]["adopted_by"], adopter, "{alert:#}");
    let [shell, above, ..] = ancestors(&alert) else { panic!("{alert:#}") };
    assert_eq!(args(shell)[..2], ["sh", "-c"]);
    assert_eq!((&shell["ended"], &above["pid"]), (&true.into(), &adopter.into()), "{alert:#}");
    assert_complete(&alert);
    daemon.stop();
}

#[test]
fn su_is_named_with_the_user_who_called_it() {
    let Some(machine) = Machine::alone() else { return };
    let Some(su) = installed("su") else { return };
    let daemon = machine.daemon().start();
    let file = daemon.program("elevated");
    reaped(
        Command::new(su)
            .args(["-s", "/bin/sh", "-c"])
            .arg(format!("{} elevated; :", file.display()))
            .arg("nobody"),
    );
    let alert = alert_with(&daemon, "elevated");
    let elevation = &alert["execwatch"]["elevation"];
    assert_eq!((&elevation["program"], &elevation["user"]["id"]), (&"su".into(), &"0".into()), "{alert:#}");
    assert_ne!(alert["user"]["id"], "0");
    daemon.stop();
}

/// Some replace themselves by the program (doas, sudo without a session to close), some wait for it.
#[test]
fn a_set_uid_program_is_named_whether_it_waits_or_not() {
    let Some(machine) = Machine::alone() else { return };
    let (Some(setpriv), Some(env)) = (installed("setpriv"), installed("env")) else { return };
    let daemon = machine.daemon().start();
    let file = daemon.program("elevated");
    let doas = daemon.folder().join("doas");
    program::copy(&env, &doas);
    fs::set_permissions(&doas, fs::Permissions::from_mode(0o4755)).unwrap();
    // A shell drops what it was given unless it is told to keep it.
    for (name, command) in [
        ("at-once", format!("{} {} at-once; :", doas.display(), file.display())),
        ("by-shell", format!("{} sh -pc '{} by-shell; :'; :", doas.display(), file.display())),
    ] {
        let user = nix::unistd::User::from_name("nobody").unwrap().unwrap();
        let (uid, gid) = (user.uid, user.gid);
        reaped(
            Command::new(&setpriv)
                .args([&format!("--reuid={uid}"), &format!("--regid={gid}"), "--clear-groups"])
                .args(["sh", "-c", &command]),
        );
        let alert = alert_with(&daemon, name);
        let elevation = &alert["execwatch"]["elevation"];
        assert_eq!(elevation["program"], "doas", "{alert:#}");
        assert_eq!(elevation["user"]["id"], uid.to_string(), "{alert:#}");
        assert_eq!(alert["user"]["effective"]["id"], "0", "{alert:#}");
    }
    daemon.stop();
}

/// An ssh server of the test's own on the loopback interface, with a key for root.
struct SshServer {
    folder: tempfile::TempDir,
    port: u16,
    server: Child,
}

impl SshServer {
    fn start(sshd: &Path, keygen: &Path) -> Self {
        let folder = tempfile::Builder::new().prefix("execwatch-test-").tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["host", "user"] {
            let mut command = Command::new(keygen);
            command.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path(name));
            assert!(command.status().unwrap().success());
        }
        fs::copy(path("user.pub"), path("authorized")).unwrap();
        // Freed at once: nobody else binds ports of 127.0.0.1 while the machine is taken.
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .unwrap()
            .port();
        let mut config = fs::File::create(path("config")).unwrap();
        writeln!(
            config,
            "ListenAddress 127.0.0.1\nPort {port}\nHostKey {host}\nAuthorizedKeysFile {authorized}\n\
             PidFile none\nStrictModes no\nUsePAM no\nPermitRootLogin yes\nPasswordAuthentication no",
            host = path("host").display(),
            authorized = path("authorized").display(),
        )
        .unwrap();
        // Where it separates its privileges.
        fs::create_dir_all("/run/sshd").unwrap();
        let server = Command::new(sshd)
            .args(["-D", "-e", "-f"])
            .arg(path("config"))
            .stdin(Stdio::null())
            .stderr(fs::File::create(path("log")).unwrap())
            .spawn()
            .unwrap();
        let server = SshServer { folder, port, server };
        wait_until("the ssh server listens", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        server
    }

    /// Runs a command in a session; what it wrote.
    fn run(&self, ssh: &Path, command: &str) -> String {
        let path = |name: &str| self.folder.path().join(name);
        let output = Command::new(ssh)
            .args(["-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no"])
            .args(["-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"])
            .args(["-p", &self.port.to_string(), "-i"])
            .arg(path("user"))
            .args(["root@127.0.0.1", command])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let log = || fs::read_to_string(path("log")).unwrap_or_default();
        assert!(output.status.success(), "{output:?}\n{}", log());
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for SshServer {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

#[test]
fn the_client_of_an_ssh_session_is_known() {
    let Some(machine) = Machine::alone() else { return };
    let (Some(sshd), Some(ssh), Some(keygen)) =
        (installed("sshd"), installed("ssh"), installed("ssh-keygen"))
    else {
        return;
    };
    let server = SshServer::start(&sshd, &keygen);
    let daemon = machine.daemon().start();
    let file = daemon.program("remote");
    let orphan = orphaned(&file);
    for (name, command) in [
        ("remote", format!("echo $SSH_CONNECTION; {} remote; :", file.display())),
        // The shell has gone; whatever the program's own environment says is its user's choice.
        ("orphan", format!("echo $SSH_CONNECTION; exec >/dev/null 2>&1; {orphan}")),
    ] {
        let said = server.run(&ssh, &command);
        let port: u64 = said.split_whitespace().nth(1).unwrap().parse().unwrap();
        let alert = alert_with(&daemon, name);
        assert_eq!(alert["execwatch"]["entry"], "ssh", "{alert:#}");
        assert_eq!(alert["source"]["ip"], "127.0.0.1", "{alert:#}");
        assert_eq!(alert["source"]["port"], port, "{alert:#}");
        assert_complete(&alert);
    }
    daemon.stop();
}

#[test]
fn a_storm_of_forks_stays_in_its_bound_and_says_what_it_gave_up() {
    const FORKS: usize = 50_000;
    const PROCESSES: u64 = 1000;
    let Some(machine) = Machine::alone() else { return };
    let config = format!(
        "[lineage]\nprocesses = {PROCESSES}\nmemory = 524288\n[rules]\nbuiltin = false\n\
         [output.syslog]\nenabled = false\n[output.file]\npath = '{{dir}}/alerts.json'\n"
    );
    let daemon = machine.daemon().config(&config).start();
    let file = daemon.program("after");
    let count = format!("i=0; while [ $i -lt {} ]; do (:); i=$((i+1)); done", FORKS / 2);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| reaped(Command::new("sh").arg("-c").arg(&count)));
        }
    });
    let totals = daemon.wait_for_totals("all forks are counted, or said to be lost", |totals| {
        totals.get("forks") >= FORKS as u64 || totals.get("event-overruns") > 0
    });
    assert!(totals.get("processes") <= PROCESSES, "{totals:?}");
    assert!(totals.get("evicted") >= FORKS as u64 - 2 * PROCESSES || totals.get("event-overruns") > 0);
    let alert = alert_of(&daemon, Command::new(&file).arg("after"));
    assert_eq!(alert["process"]["parent"]["pid"], std::process::id());
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let resident: u64 = resident.trim().trim_end_matches(" kB").trim().parse().unwrap();
    assert!(resident < 32 << 10, "{resident} KiB");
    daemon.stop();
}

/// Each ancestor that is told must be the true one, however many are not known.
#[track_caller]
fn assert_true(alert: &Value, script: u32, command: &[&str]) {
    let chain = ancestors(alert);
    for (index, ancestor) in chain.iter().enumerate() {
        // What was executed while the daemon was stopped may have ended before it was read.
        let unknown = ancestor["learnt"] == "unknown" || ancestor["args"].is_null();
        // Of an orphan /proc knows only who adopted it, and that this is all that is known is said.
        if ancestor["pid"] == 1 && ancestor["learnt"] == "snapshot" {
            return;
        }
        match index {
            0 => assert!(unknown || args(ancestor) == command, "{alert:#}"),
            1 => {
                assert_eq!(ancestor["pid"], script, "{alert:#}");
                assert!(unknown || args(ancestor) == command, "{alert:#}");
            }
            2 => assert_eq!(ancestor["pid"], std::process::id(), "{alert:#}"),
            _ => {}
        }
    }
}

#[test]
fn what_was_lost_is_unknown_and_never_a_wrong_chain() {
    let Some(machine) = Machine::alone() else { return };
    let daemon = machine.daemon().capture("receive-buffer = 65536").start();
    let file = daemon.program("orphan");
    let script = program::script(&daemon.folder().join("fork.sh"), program::DOUBLE_FORK);
    let run = |number: &str| {
        let pid = reaped(Command::new(&script).arg(&file).arg(number));
        let command =
            ["/bin/sh", script.to_str().unwrap(), file.to_str().unwrap(), number].map(str::to_owned);
        (pid, command)
    };
    let mut started = Vec::new();
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !ended.load(Relaxed) {
                    reaped(Command::new("sh").args(["-c", "(:); (:); (:); (:); (:); (:); (:); (:); (:)"]));
                }
            });
        }
        for round in 0..10 {
            // Stopped, it takes nothing out of its buffers, and holds nobody.
            daemon.signal(Signal::SIGSTOP);
            std::thread::sleep(Duration::from_millis(100));
            daemon.signal(Signal::SIGCONT);
            for number in 0..10 {
                started.push(run(&format!("{round}-{number}")));
            }
        }
        ended.store(true, Relaxed);
    });
    let last = alert_of(&daemon, Command::new(&file).arg("last"));
    assert_eq!(last["process"]["parent"]["pid"], std::process::id());
    daemon.wait_for_totals("losses are counted", |totals| totals.get("event-overruns") > 0);
    let run_later = run("later");
    let later = alert_with(&daemon, "later");
    assert_true(&later, run_later.0, &run_later.1.each_ref().map(String::as_str));
    let ended = daemon.stop();
    let mut known = 0;
    for (pid, command) in &started {
        let command = command.each_ref().map(String::as_str);
        for alert in ended.alerts(|alert| last_argument(alert) == command[3]) {
            assert_true(alert, *pid, &command);
            known += usize::from(ancestors(alert).len() > 2);
        }
    }
    assert!(known > 0, "not one chain was known");
    assert!(ended.stderr.contains("not everything was seen"), "{}", ended.stderr);
}

#[test]
fn explain_shows_where_a_running_process_comes_from() {
    let Some(_machine) = Machine::shared() else { return };
    let folder = tempfile::tempdir().unwrap();
    let sleeper: PathBuf = folder.path().join("sleeper");
    let staying = support::Staying::start(&sleeper);
    let output = Command::new(env!("CARGO_BIN_EXE_execwatch"))
        .args(["explain", "--pid", &staying.pid().to_string()])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let own = format!("under       {} ", std::process::id());
    assert!(text.lines().any(|line| line.starts_with(&own)), "{text}");
    assert!(text.lines().any(|line| line.starts_with("under       1 ")), "{text}");
}
