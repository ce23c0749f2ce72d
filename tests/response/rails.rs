//! What no rule does, and how often one may.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use nix::time::{ClockId, clock_gettime};

use super::*;
use crate::support::{installed, wait_until};

#[test]
fn without_enforce_nothing_is_signalled() {
    let Some(machine) = Machine::alone() else { return };
    for mode in ["", "mode = \"off\"", "mode = \"dry-run\""] {
        let rules = ["deny", "hold", "kill-tree", "freeze"].map(rule).concat();
        let daemon = responding(&machine, mode, &rules).start();
        let Some(target) = mark(daemon.folder(), "target") else { return };
        let written = Written::new(daemon.folder(), "written");
        for _ in 0..50 {
            assert!(run(&target, &written).success());
        }
        assert_eq!(written.bytes(), 50);
        let ended = daemon.stop();
        let alerts = ended.alerts(|_| true);
        assert_eq!(alerts.len(), 50, "{mode}");
        for alert in alerts {
            let said = &alert["execwatch"]["response"];
            if mode.contains("dry-run") {
                // What a listener decides comes first; of that, what denies comes before what holds. When its minute is used
                // up, the worker's turn comes.
                assert!(said["action"] == "deny" || said["action"] == "kill-tree", "{said}");
                assert_eq!(said["outcome"], "dry-run", "{said}");
            } else {
                assert_eq!(*said, Value::Null);
            }
        }
        for name in ["prevented", "contained", "missed", "unrecorded"] {
            assert_eq!(ended.totals.get(name), 0, "{mode}: {name}");
        }
    }
}

/// Waits until a minute of the clock that counts turns has time left, so that no new one begins within the test.
pub(super) fn early_in_a_minute() {
    let second = || clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap().tv_sec() % 60;
    wait_until("the minute is not nearly over", || (second() < 48).then_some(()));
}

#[test]
fn a_rule_acts_so_often_in_a_minute_and_then_alerts_and_says_so() {
    let Some(machine) = Machine::alone() else { return };
    let setup = responding(&machine, "mode = \"enforce\"\nper-minute = 5", &rule("deny"));
    let Some(target) = mark(&setup.folder(), "target") else { return };
    let daemon = setup.start();
    let written = Written::new(daemon.folder(), "written");
    early_in_a_minute();
    let died = (0..12).filter(|_| killed(run(&target, &written))).count();
    assert_eq!((died, written.bytes()), (5, 7));
    let alerts = daemon.wait_for_many(12, |_| true);
    let count =
        |part: &str, value: &str| alerts.iter().filter(|alert| response(alert, part) == value).count();
    assert_eq!((count("outcome", "prevented"), count("kept_by", "rate")), (5, 7));
    daemon.wait_for_record("the limit", |record| {
        record["message"].as_str().unwrap().contains("has acted 5 times in this minute")
    });
    let ended = daemon.stop();
    let said = ended
        .records
        .iter()
        .filter(|record| record["message"].as_str().unwrap().contains("times in this minute"));
    assert_eq!(said.count(), 1);
}

#[test]
fn protected_programs_and_execwatch_itself_are_left_alone() {
    let Some(machine) = Machine::alone() else { return };
    let rules = rule("deny") + &rule_on("hold", "\"exe.name\" = \"execwatch\"");
    let response_lines = format!("{ENFORCE}\nprotected = [\"{{dir}}/bin/target-k?pt\"]");
    let daemon = responding(&machine, &response_lines, &rules).start();
    let Some(kept) = mark(daemon.folder(), "target-kept") else { return };
    let other = mark(daemon.folder(), "target-other").unwrap();
    let written = Written::new(daemon.folder(), "written");
    assert!(run(&kept, &written).success());
    assert!(killed(run(&other, &written)));
    assert_eq!(written.bytes(), 1);
    let alert = daemon.wait_for(|alert| alert["process"]["name"] == "target-kept");
    assert_eq!(response(&alert, "kept_by"), "protected");
    let (said, done) =
        execwatch(&daemon, &["check", "--rules", daemon.folder().join("rules").to_str().unwrap()]);
    assert!(done && said.contains("target-k?pt"), "{said}");
    let alert = daemon.wait_for(|alert| alert["process"]["name"] == "execwatch");
    assert_eq!(response(&alert, "kept_by"), "execwatch");
    daemon.stop();
}

/// Runs a script in a mount namespace of its own, in which `program` is a shell.
fn with_shell_as(program: &str, script: &str, written: &Written) -> bool {
    let shell = installed("sh").unwrap().canonicalize().unwrap();
    let bound = format!("mount --bind {} {program} && exec {program} -c '{script}'", shell.display());
    let mut command = Command::new(installed("unshare").unwrap());
    command.args(["--mount", "--", "sh", "-c", &bound]);
    command.stdin(Stdio::null()).stdout(written.output()).status().unwrap().success()
}

#[test]
fn what_package_managers_and_the_ssh_server_execute_is_left_alone() {
    let Some(machine) = Machine::alone() else { return };
    if [installed("unshare"), installed("dpkg"), installed("sshd")].contains(&None) {
        return;
    }
    let rules = rule("deny") + &rule_on("hold", "\"exe\" = \"/usr/sbin/sshd\"\n\"args\" = \"exit 3\"");
    let response_lines = format!("{ENFORCE}\nprotected = [\"/nothing\"]");
    let daemon = responding(&machine, &response_lines, &rules).start();
    let Some(target) = mark(daemon.folder(), "target") else { return };
    let written = Written::new(daemon.folder(), "written");
    let script = format!("sh -c \"{}; :\"; :", target.display());
    assert!(with_shell_as("/usr/bin/dpkg", &script, &written));
    assert_eq!(written.bytes(), 1, "{:#?}", daemon.alerts());
    let alert = daemon.wait_for(|alert| alert["process"]["name"] == "target");
    assert_eq!(response(&alert, "kept_by"), "package-manager");

    // As the server does for each connection, the shell in its place executes itself.
    assert!(with_shell_as("/usr/sbin/sshd", "/usr/sbin/sshd -c \"exit 3\"; :", &written));
    let alert = daemon.wait_for(|alert| {
        alert["process"]["executable"] == "/usr/sbin/sshd"
            && alert["process"]["parent"]["executable"] == "/usr/sbin/sshd"
    });
    assert_eq!(response(&alert, "kept_by"), "ssh-server", "{alert:#}");
    // Another shell that runs the same is none of them.
    assert!(killed(run(&target, &written)));
    daemon.stop();
}

#[test]
fn a_file_in_the_runtime_folder_disarms_and_a_time_arms_again() {
    let Some(machine) = Machine::alone() else { return };
    let setup = responding(&machine, ENFORCE, &rule("deny"));
    let Some(target) = mark(&setup.folder(), "target") else { return };
    let daemon = setup.start();
    let written = Written::new(daemon.folder(), "written");
    assert!(killed(run(&target, &written)));
    let file = daemon.folder().join("run/disarmed");
    fs::write(&file, "").unwrap();
    assert!(run(&target, &written).success());
    let status = || {
        let (said, done) = execwatch(&daemon, &["status", "--json"]);
        assert!(done, "{said}");
        serde_json::from_str::<Value>(&said).unwrap()
    };
    wait_until("status says it", || (status()["responses"]["armed"] == false).then_some(()));
    let (said, done) = execwatch(&daemon, &["disarm", "--for", "1s"]);
    assert!(done, "{said}");
    wait_until("the time has come", || (!file.exists()).then_some(()));
    assert!(killed(run(&target, &written)));
    assert_eq!(written.bytes(), 1);
    daemon.stop();
}

#[test]
fn the_user_is_told_on_the_terminal() {
    let Some(machine) = Machine::alone() else { return };
    let Some(script) = installed("script") else { return };
    let lines = format!("{ENFORCE}\nterminal-message = \"{{program}} may not run here ({{rule}})\"");
    let setup = responding(&machine, &lines, &rule("deny"));
    let Some(target) = mark(&setup.folder(), "target") else { return };
    let daemon = setup.start();
    // The terminal lives until its input ends, so that the line finds it.
    let mut terminal = Command::new(script)
        // As after the login of an ordinary user.
        .args([
            "-qec",
            &format!("t=$(tty); chown 65534:tty $t; chmod 620 $t; {}; read line", target.display()),
            "/dev/null",
        ])
        .stdin(Stdio::piped())
        .stdout(File::create(daemon.folder().join("terminal")).unwrap())
        .spawn()
        .unwrap();
    let shown = || fs::read_to_string(daemon.folder().join("terminal")).unwrap();
    wait_until("the line is on the terminal", || {
        shown().contains("target may not run here (test-deny)").then_some(())
    });
    drop(terminal.stdin.take());
    terminal.wait().unwrap();
    daemon.stop();
}

/// Puts other lines in the place of the first ones of `[response]`.
fn respond_by(daemon: &Daemon<'_>, before: &str, after: &str) {
    let path = daemon.folder().join("execwatch.toml");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(before), "{text}");
    let after = after.replace("{dir}", daemon.folder().to_str().unwrap());
    fs::write(&path, text.replace(before, &after)).unwrap();
}

#[test]
fn from_the_answer_to_a_reload_on_nothing_is_done_that_the_new_settings_forbid() {
    let Some(machine) = Machine::alone() else { return };
    let setup = responding(&machine, ENFORCE, &rule("deny"));
    let Some(target) = mark(&setup.folder(), "target") else { return };
    let daemon = setup.start();
    let written = Written::new(daemon.folder(), "written");
    let protecting = format!("{ENFORCE}\nprotected = [\"{{dir}}/bin/target\"]");
    let dry = ENFORCE.replace("enforce", "dry-run");
    let (over, forbidden) = (AtomicBool::new(false), AtomicBool::new(false));
    let (ran, died) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(SeqCst) {
                    let before = forbidden.load(SeqCst);
                    let status = run(&target, &written);
                    // What began before the answer may have ended either way.
                    if before && forbidden.load(SeqCst) {
                        assert!(status.success(), "{status}");
                        ran.fetch_add(1, SeqCst);
                    } else if killed(status) {
                        died.fetch_add(1, SeqCst);
                    }
                }
            });
        }
        let more = |counter: &AtomicUsize| {
            let before = counter.load(SeqCst);
            wait_until("a hundred more programs", || (counter.load(SeqCst) >= before + 100).then_some(()));
        };
        for (settings, by_signal) in [(&dry, false), (&dry, true), (&protecting, false), (&protecting, true)]
        {
            let reload = |number: usize| {
                if by_signal {
                    daemon.signal(nix::sys::signal::Signal::SIGHUP);
                } else {
                    let (said, done) = execwatch(&daemon, &["reload"]);
                    assert!(done, "{said}");
                }
                let reloaded =
                    || daemon.stderr().lines().filter(|line| line.contains(" reloaded: ")).count() >= number;
                wait_until("the answer", || reloaded().then_some(()));
            };
            let before = daemon.stderr().lines().filter(|line| line.contains(" reloaded: ")).count();
            more(&died);
            respond_by(&daemon, ENFORCE, settings);
            reload(before + 1);
            forbidden.store(true, SeqCst);
            more(&ran);
            forbidden.store(false, SeqCst);
            respond_by(&daemon, &settings.replace("{dir}", daemon.folder().to_str().unwrap()), ENFORCE);
            reload(before + 2);
        }
        more(&died);
        over.store(true, SeqCst);
    });
    assert!(ran.into_inner() > 0 && died.into_inner() > 0);
    daemon.stop();
}
