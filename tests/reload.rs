//! Reload by SIGHUP and `execwatch reload`: what is good takes effect at once, what is not changes nothing, and no exec is
//! lost or late meanwhile.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod support;

use std::fs;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::{Value, json};
use support::{DEADLINE, Daemon, Machine, alert_of, installed, wait_until};

/// A rule that matches the programs of a test, under an id.
fn rule(id: &str) -> String {
    format!(
        "[[rule]]\nid = '{id}'\ntitle = 'A program of this test'\nseverity = 'low'\n\
         [rule.select.program]\n'exe|startswith' = '{{dir}}/bin/'\n"
    )
}

fn write_rules(daemon: &Daemon<'_>, text: &str) {
    let text = text.replace("{dir}", daemon.folder().to_str().unwrap());
    fs::write(daemon.folder().join("rules/test.toml"), text).unwrap();
}

/// Outcomes that the daemon has logged so far, of either kind.
fn outcomes(daemon: &Daemon<'_>) -> usize {
    daemon.stderr().lines().filter(|line| line.contains("reloaded: ")).count()
}

/// Sends SIGHUP and waits for the outcome, which is returned.
fn sighup(daemon: &Daemon<'_>) -> String {
    let before = outcomes(daemon);
    daemon.signal(Signal::SIGHUP);
    wait_until("the outcome of a reload", || {
        daemon.stderr().lines().filter(|line| line.contains("reloaded: ")).nth(before).map(str::to_owned)
    })
}

fn execwatch(daemon: &Daemon<'_>, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_execwatch"))
        .args(words)
        .arg("--config")
        .arg(daemon.folder().join("execwatch.toml"))
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn rules_and_exceptions_take_effect_at_once_and_hits_go_on() {
    let Some(machine) = Machine::shared() else { return };
    let daemon = machine.daemon().rules(&rule("first")).start();
    let program = daemon.program("tool");
    let id = |alert: &Value| alert["rule"]["id"].as_str().unwrap().to_owned();
    let run = || id(&alert_of(&daemon, &mut Command::new(&program)));
    assert_eq!(run(), "first");
    // The same rule, another one besides, more severe, and a utility that was not there.
    let more = rule("second").replace("'low'", "'high'");
    let utility = "[[utility]]\nname = 'tool'\ncategory = 'test'\n";
    write_rules(&daemon, &format!("{}{more}{utility}", rule("first")));
    assert!(sighup(&daemon).contains("reloaded: 2 rules, 0 exceptions and 1 utility are in force"));
    let alert = alert_of(&daemon, &mut Command::new(&program));
    assert_eq!(id(&alert), "second");
    assert_eq!(alert["execwatch"]["utility"]["name"], "tool");
    // An exception silences both; the next program of another name is the mark that it has been judged.
    let exception = "[[exception]]\nid = 'quiet'\nreason = 'test'\nrules = ['*']\n\
                     [exception.match]\n'exe.name' = 'tool'\n";
    write_rules(&daemon, &format!("{}{more}{utility}{exception}", rule("first")));
    assert!(sighup(&daemon).contains("1 exception "));
    Command::new(&program).status().unwrap();
    assert_eq!(id(&alert_of(&daemon, &mut Command::new(daemon.program("other")))), "second");
    let told = daemon.wait_for_record("reload", |record| record["event"]["action"] == "reload");
    assert_eq!(told["execwatch"]["severity"], "info");
    let folder = daemon.folder().join("state");
    let silenced = daemon.alerts().iter().filter(|alert| alert["process"]["name"] == "tool").count();
    assert_eq!(silenced, 2);
    daemon.signal(Signal::SIGTERM);
    let hits = wait_until("the hits that are kept at the end", || {
        let hits: Value = serde_json::from_slice(&fs::read(folder.join("hits.json")).ok()?).ok()?;
        (hits["rules"]["second"]["count"] == 2).then_some(hits)
    });
    // Over three rule sets: once alone, once with the second, and for the other program.
    assert_eq!(hits["rules"]["first"]["count"], 3);
    assert_eq!(hits["exceptions"]["quiet"]["count"], 2, "both rules were silenced");
    assert_eq!(daemon.end().code, Some(0));
}

#[test]
fn what_is_wrong_changes_nothing_and_is_told_to_whoever_asks() {
    let Some(machine) = Machine::shared() else { return };
    let daemon = machine.daemon().rules(&rule("good")).start();
    let program = daemon.program("tool");
    let rules = daemon.folder().join("rules");
    let reload = || execwatch(&daemon, &["reload"]);
    let good = reload();
    assert_eq!(good.status.code(), Some(0), "{}", text(&good.stderr));
    assert!(text(&good.stdout).contains("reloaded: 1 rule,"), "{}", text(&good.stdout));
    daemon.wait_for_message("reloaded: 1 rule,");
    write_rules(&daemon, "[[rule]]\nid = 'X'\n[[rule]]\nid = 'other'\nseverty = 'low'\n");
    let refused = sighup(&daemon);
    assert!(refused.contains("not reloaded: ") && refused.contains("stays in force"), "{refused}");
    daemon.wait_for_message("rules/test.toml:2:6");
    let bad = reload();
    assert_eq!(bad.status.code(), Some(78));
    // The very lines of `check`.
    let check = execwatch(&daemon, &["check", "--rules", rules.to_str().unwrap()]);
    assert_eq!(check.status.code(), Some(78));
    let without_sum = |output: &Output| {
        let text = text(&output.stderr);
        text.lines().filter(|line| !line.starts_with("execwatch: ")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(without_sum(&bad), without_sum(&check));
    assert!(without_sum(&bad).len() > 6, "{}", text(&bad.stderr));
    assert_eq!(alert_of(&daemon, &mut Command::new(&program))["rule"]["id"], "good");
    let told = daemon.wait_for_record("refusal", |record| record["event"]["action"] == "reload-refused");
    assert_eq!(told["execwatch"]["severity"], "medium");
    // A configuration that cannot even be read as TOML does not keep anybody from asking.
    let config = daemon.folder().join("execwatch.toml");
    let before = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{before}[capture\n")).unwrap();
    let bad = reload();
    assert_eq!(bad.status.code(), Some(78));
    assert!(text(&bad.stderr).contains("execwatch.toml:"), "{}", text(&bad.stderr));
    // And with all mended it goes on.
    fs::write(&config, before).unwrap();
    write_rules(&daemon, &rule("mended"));
    assert_eq!(reload().status.code(), Some(0));
    assert_eq!(alert_of(&daemon, &mut Command::new(&program))["rule"]["id"], "mended");
    let status: Value = serde_json::from_slice(&execwatch(&daemon, &["status", "--json"]).stdout).unwrap();
    assert_eq!((&status["reloads"]["accepted"], &status["reloads"]["refused"]), (&json!(2), &json!(3)));
    assert!(status["reloads"]["last"].as_str().unwrap().starts_with("reloaded: "), "{status}");
    daemon.stop();
}

#[test]
fn what_takes_effect_at_the_next_start_is_named() {
    let Some(machine) = Machine::shared() else { return };
    let daemon = machine.daemon().start();
    let config = daemon.folder().join("execwatch.toml");
    let before = fs::read_to_string(&config).unwrap();
    fs::write(&config, before.replace("[capture]\n", "[capture]\nreceive-buffer = 70000\n")).unwrap();
    let said = sighup(&daemon);
    assert!(said.contains("; [capture] receive-buffer takes effect at the next start"), "{said}");
    let status: Value = serde_json::from_slice(&execwatch(&daemon, &["status", "--json"]).stdout).unwrap();
    assert_eq!(status["reloads"]["at_next_start"], json!(["[capture] receive-buffer"]));
    // One that is refused changes nothing about what the next start changes.
    write_rules(&daemon, "[[rule]]\n");
    assert!(sighup(&daemon).contains("not reloaded"));
    assert_eq!(daemon.status_json()["reloads"]["at_next_start"], json!(["[capture] receive-buffer"]));
    let people = text(&execwatch(&daemon, &["status"]).stdout);
    let line = people.lines().find(|line| line.starts_with("next start ")).unwrap_or_default();
    assert!(line.contains("[capture] receive-buffer takes effect then"), "{people}");
    write_rules(&daemon, &rule("own"));
    fs::write(&config, before).unwrap();
    assert!(!sighup(&daemon).contains("next start"));
    assert_eq!(daemon.status_json()["reloads"]["at_next_start"], json!([]));
    daemon.stop();
}

#[test]
fn hits_never_fall_while_rules_are_replaced() {
    /// A count that begins anew would do so for less than a thousandth of a second.
    const REPLACED: usize = 100;
    let Some(machine) = Machine::shared() else { return };
    let daemon = machine.daemon().rules(&rule("kept")).start();
    alert_of(&daemon, &mut Command::new(daemon.program("tool")));
    let hits = || {
        let status = daemon.status_json();
        let rule = status["rules"].as_array().unwrap().iter().find(|rule| rule["id"] == "kept").unwrap();
        rule["hits"].as_u64().unwrap()
    };
    assert_eq!(hits(), 1);
    for accepted in 1..=REPLACED {
        write_rules(&daemon, &format!("{}# {accepted}\n", rule("kept")));
        daemon.signal(Signal::SIGHUP);
        let deadline = Instant::now() + DEADLINE;
        // Without a pause, so that none of what is told meanwhile is missed.
        while outcomes(&daemon) < accepted {
            assert_eq!(hits(), 1, "in reload {accepted}");
            assert!(Instant::now() < deadline, "{}", daemon.stderr());
        }
        assert_eq!(hits(), 1, "after reload {accepted}");
    }
    daemon.stop();
}

#[test]
fn responses_follow_unless_they_were_off_at_the_start() {
    let Some(machine) = Machine::alone() else { return };
    let config = |mode: &str| {
        format!(
            "[rules]\nbuiltin = false\n[output.syslog]\nenabled = false\n\
             [output.file]\npath = \"{{dir}}/alerts.json\"\n[response]\nmode = \"{mode}\"\n"
        )
    };
    let deny = rule("deny").replace("severity = 'low'", "severity = 'high'\naction = 'deny'");
    let ended = |daemon: &Daemon<'_>| Command::new(daemon.program("tool")).status().unwrap().code();
    let change = |daemon: &Daemon<'_>, from: &str, to: &str| {
        let file = daemon.folder().join("execwatch.toml");
        let before = fs::read_to_string(&file).unwrap();
        fs::write(&file, before.replace(&format!("mode = \"{from}\""), &format!("mode = \"{to}\""))).unwrap();
        sighup(daemon)
    };
    let daemon = machine.daemon().rules(&deny).config(&config("dry-run")).start();
    assert_eq!(ended(&daemon), Some(0));
    assert!(!change(&daemon, "dry-run", "enforce").contains("next start"));
    wait_until("the program is killed", || ended(&daemon).is_none().then_some(()));
    assert!(!change(&daemon, "enforce", "off").contains("next start"));
    wait_until("the program is let go", || (ended(&daemon) == Some(0)).then_some(()));
    daemon.stop();

    let daemon = machine.daemon().rules(&deny).config(&config("off")).start();
    let said = change(&daemon, "off", "enforce");
    assert!(said.contains("[response] takes effect at the next start"), "{said}");
    assert_eq!(ended(&daemon), Some(0));
    daemon.stop();
}

/// What the old and the new configuration protect is protected in between, and that may be too much.
#[test]
fn responses_that_cannot_be_put_in_force_are_refused_with_the_reason() {
    /// Two such lists have more values than a test takes.
    const PROTECTED: usize = 60_000;
    let Some(machine) = Machine::shared() else { return };
    let config = |letter: &str| {
        let paths: String = (0..PROTECTED).map(|number| format!("\"/{letter}/{number}\",")).collect();
        format!(
            "[rules]\nbuiltin = false\n[output.syslog]\nenabled = false\n[output.file]\npath = \"{{dir}}/alerts.json\"\n\
             [response]\nmode = \"dry-run\"\nprotected = [{paths}]\n"
        )
    };
    let daemon = machine.daemon().rules(&rule("own")).config(&config("a")).start();
    let file = daemon.folder().join("execwatch.toml");
    let before = fs::read_to_string(&file).unwrap();
    fs::write(&file, before.replace("\"/a/", "\"/b/")).unwrap();
    let said = sighup(&daemon);
    assert!(said.contains("not reloaded: [response]") && said.contains("100000 values at most"), "{said}");
    // The worker has put back what it had.
    fs::write(&file, before).unwrap();
    assert!(sighup(&daemon).contains("reloaded: 1 rule, "));
    daemon.stop();
}

#[test]
fn only_files_of_root_alone_are_obeyed() {
    let Some(machine) = Machine::shared() else { return };
    let daemon = machine.daemon().rules(&rule("own")).start();
    let (config, rules) = (daemon.folder().join("execwatch.toml"), daemon.folder().join("rules"));
    let file = rules.join("test.toml");
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let refused = |reason: &str, remedy: String| {
        let said = execwatch(&daemon, &["reload"]);
        let said = (said.status.code(), text(&said.stderr));
        assert!(said.0 == Some(78) && said.1.contains(reason) && said.1.contains(&remedy), "{said:?}");
    };
    chown(&file, Some(65_534), None).unwrap();
    refused("owned by uid 65534", format!("chown root: {}", file.display()));
    chown(&file, Some(0), None).unwrap();
    mode(&rules, 0o777);
    refused("refuses this folder", format!("chmod go-w {}", rules.display()));
    // Root is told by `check` what the daemon would say.
    let check = execwatch(&daemon, &["check", "--rules", rules.to_str().unwrap()]);
    assert_eq!(check.status.code(), Some(0));
    assert!(text(&check.stderr).contains("warning: the daemon refuses this folder"), "{check:?}");
    mode(&rules, 0o755);
    mode(&config, 0o664);
    refused("its group may write it", format!("chmod go-w {}", config.display()));
    mode(&config, 0o644);
    assert_eq!(execwatch(&daemon, &["reload"]).status.code(), Some(0));
    daemon.stop();
    let ended = machine
        .daemon()
        .under(&["sh", "-c", "chown 65534 {dir}/execwatch.toml; exec \"$@\"", "sh"])
        .run_to_end();
    assert_eq!(ended.code, Some(78), "{}", ended.stderr);
    assert!(ended.stderr.contains("chown root: ") && !ended.stderr.contains("listening"), "{}", ended.stderr);
}

/// Whoever reloads is not waited for: the end would come after the service manager's patience.
#[test]
fn a_reload_that_lasts_does_not_hold_up_the_end() {
    let Some(machine) = Machine::shared() else { return };
    let daemon = machine.daemon().rules(&rule("own")).start();
    let config = daemon.folder().join("execwatch.toml");
    fs::remove_file(&config).unwrap();
    mkfifo(&config, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    let client = Command::new(env!("CARGO_BIN_EXE_execwatch"))
        .args(["reload", "--socket"])
        .arg(daemon.control())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The daemon reads there, and will read until this is closed.
    let writer = wait_until("the daemon to read", || {
        fs::OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(&config).ok()
    });
    daemon.stop();
    let output = client.wait_with_output().unwrap();
    // It was told nothing, be it that the reload is not finished.
    assert_eq!(output.status.code(), Some(69), "{output:?}");
    drop(writer);
}

/// Who executes the storm's programs at the same time.
const WORKERS: usize = 4;
/// How many each of them executes at least.
const EACH: usize = 5000;
/// How often everything is reloaded meanwhile.
const RELOADS: usize = 100;

#[test]
fn a_storm_during_a_hundred_reloads_is_read_without_a_gap() {
    let Some(machine) = Machine::alone() else { return };
    let Some(shell) = installed("sh") else { return };
    machine.on_every_cpu();
    // The queue holds all that the worker has not come to, so that only what a reload does is under test.
    let daemon = machine.daemon().capture("queue-length = 65536").rules(&rule("even")).start();
    let file = daemon.tiny("storm");
    let done = daemon.folder().join("done");
    let executed = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| {
                let script = format!(
                    "i=0; while [ $i -lt {EACH} ] || [ ! -e '{}' ]; do '{}' {worker} $i; i=$((i + 1)); done; echo $i",
                    done.display(),
                    file.display()
                );
                let shell = &shell;
                scope.spawn(move || {
                    let output = Command::new(shell).args(["-c", &script]).output().unwrap();
                    assert!(output.status.success());
                    text(&output.stdout).trim().parse::<usize>().unwrap()
                })
            })
            .collect();
        for number in 0..RELOADS {
            // Every other reload is refused; every accepted one puts another rule in force.
            match number % 4 {
                0 => write_rules(&daemon, &rule("odd")),
                2 => write_rules(&daemon, &rule("even")),
                _ => write_rules(&daemon, "[[rule]]\n"),
            }
            let outcome = sighup(&daemon);
            assert_eq!(outcome.contains("not reloaded"), number % 2 == 1, "{outcome}");
        }
        fs::write(&done, "").unwrap();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect::<Vec<_>>()
    });
    let ended = daemon.stop();
    for name in ["lost", "overruns", "dropped", "strange", "listeners-stuck"] {
        assert_eq!(ended.totals.get(name), 0, "{name}: {:?}", ended.totals);
    }
    let storm = ended.alerts(|_| true);
    let missing = support::storm::missing(&ended, &file, &executed);
    let mut by_rule = [0, 0];
    for alert in &storm {
        by_rule[usize::from(alert["rule"]["id"] == "odd")] += 1;
        assert_eq!(alert["execwatch"]["rules"].as_array().map(Vec::len), Some(1), "{alert:#}");
    }
    assert!(by_rule.iter().all(|&count| count > 0), "{by_rule:?}");
    let likely = storm.iter().filter(|alert| alert["execwatch"]["capture"]["certainty"] == "likely").count();
    support::say(&format!(
        "storm of {} during {RELOADS} reloads: {missing} missing, {likely} likely, {by_rule:?} by rule",
        storm.len()
    ));
}
