//! The baseline with the real daemon: learnt over restarts, enforced, kept in a database that may be in a bad way, and
//! changed from the command line while the daemon runs.
//!
//! Days pass in the database, between one start and the next: the machine's clock is left alone.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod support;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output};

use nix::sys::signal::Signal;
use rusqlite::Connection;
use serde_json::Value;
use support::disk::Disk;
use support::{Daemon, Machine, program, wait_until};
use tempfile::TempDir;

/// What outlives a daemon: its state, and the programs that it sees.
struct Ground {
    folder: TempDir,
}

impl Ground {
    fn new() -> Ground {
        let folder = tempfile::Builder::new().prefix("execwatch-baseline-").tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::create_dir(folder.path().join("bin")).unwrap();
        Ground { folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().canonicalize().unwrap()
    }

    fn state(&self) -> PathBuf {
        self.path().join("state")
    }

    fn database(&self) -> PathBuf {
        self.state().join("baseline.db")
    }

    fn config(&self, baseline: &str) -> String {
        // Standard output has the text form.
        format!(
            "[rules]\nbuiltin = false\n[output.syslog]\nenabled = false\n[output.file]\npath = \"{{dir}}/alerts.json\"\n\
             [output.stdout]\nenabled = true\n[state]\nfolder = \"{}\"\n[baseline]\n{baseline}\n",
            self.state().display()
        )
    }

    /// Starts a daemon for which `grave*` is high, `first*` low the first time alone, and everything else medium.
    fn daemon<'m>(&self, machine: &'m Machine, baseline: &str) -> Daemon<'m> {
        let bin = self.path().join("bin");
        let rule = |id: &str, severity: &str, test: &str| {
            let exe = bin.join(id);
            format!(
                "[[rule]]\nid = \"{id}\"\ntitle = \"A program\"\nseverity = \"{severity}\"\n[rule.select.it]\n\
                 \"exe|startswith\" = \"{}\"\n{test}\n",
                exe.display()
            )
        };
        let rules = [
            rule("tool", "medium", ""),
            rule("grave", "high", ""),
            rule("first", "low", "\"first-seen\" = true"),
        ];
        machine.daemon().config(&self.config(baseline)).rules(&rules.concat()).start()
    }

    /// Executes a program; its alert.
    fn alert(&self, daemon: &Daemon<'_>, name: &str) -> Value {
        let pid = self.execute(name);
        daemon.wait_for(|alert| alert["process"]["pid"] == pid)
    }

    fn execute(&self, name: &str) -> u32 {
        let path = self.path().join("bin").join(name);
        if !path.exists() {
            program::brief(&path);
        }
        let mut child = Command::new(path).spawn().unwrap();
        child.wait().unwrap();
        child.id()
    }

    /// Lets a day pass while no daemon runs.
    fn next_day(&self) {
        let database = Connection::open(self.database()).unwrap();
        database.execute("UPDATE day SET date = date - 1, elapsed = 86400", []).unwrap();
    }

    fn command(&self, words: &[&str]) -> Output {
        let config = self.path().join("execwatch.toml");
        std::fs::write(&config, self.config("").replace("{dir}", "/nowhere")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_execwatch"));
        command.arg("baseline").args(words).arg("--config").arg(config).output().unwrap()
    }

    /// The rows of a program.
    fn rows(&self, name: &str) -> Vec<Value> {
        let output = self.command(&["list", "--json"]);
        let exe = self.path().join("bin").join(name);
        let lines = String::from_utf8(output.stdout).unwrap();
        let rows = lines.lines().map(|line| serde_json::from_str(line).unwrap());
        rows.filter(|row: &Value| row["exe"] == exe.to_str().unwrap() && row["rule"] != Value::Null).collect()
    }

    /// Waits until a program is written down.
    fn wait_for_row(&self, name: &str) -> Value {
        wait_until("the row", || self.rows(name).pop())
    }
}

fn state(alert: &Value) -> &str {
    alert["execwatch"]["baseline"]["state"].as_str().unwrap_or("none")
}

fn severity(alert: &Value) -> (&str, &str) {
    let was = alert["execwatch"]["baseline"]["severity_was"].as_str().unwrap_or("");
    (alert["execwatch"]["severity"].as_str().unwrap(), was)
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn learnt_over_days_and_then_enforced() {
    let Some(machine) = Machine::shared() else { return };
    let ground = Ground::new();
    let learn = "mode = \"learn\"\nlearn-for = \"3d\"";
    let daemon = ground.daemon(&machine, learn);
    let first = ground.alert(&daemon, "tool");
    assert_eq!((state(&first), severity(&first)), ("new", ("medium", "")));
    assert_eq!(first["execwatch"]["baseline"]["first_seen"], true);
    ground.alert(&daemon, "grave");
    for _ in 0..50 {
        let alert = ground.alert(&daemon, "tool");
        assert_eq!((state(&alert), severity(&alert)), ("seen", ("medium", "")));
    }
    daemon.stop();
    for day in 2..=3 {
        ground.next_day();
        let daemon = ground.daemon(&machine, learn);
        let alert = ground.alert(&daemon, "tool");
        let baseline = &alert["execwatch"]["baseline"];
        assert_eq!((state(&alert), baseline["days"].as_u64()), ("seen", Some(day - 1)), "{baseline}");
        assert!(baseline["count"].as_u64() >= Some(51), "{baseline}");
        ground.alert(&daemon, "grave");
        daemon.stop();
    }
    // Within the same day: the third is one of those that count.
    let daemon = ground.daemon(&machine, "mode = \"enforce\"\nlearn-for = \"3d\"");
    let known = ground.alert(&daemon, "tool");
    assert_eq!((state(&known), severity(&known)), ("known", ("low", "medium")));
    assert_eq!(known["event"]["severity"], 21);
    let grave = ground.alert(&daemon, "grave");
    assert_eq!((state(&grave), severity(&grave)), ("known", ("high", "")));
    let new = ground.alert(&daemon, "tool2");
    assert_eq!((state(&new), severity(&new)), ("new", ("high", "medium")));
    let seen = ground.alert(&daemon, "tool2");
    assert_eq!((state(&seen), severity(&seen)), ("seen", ("medium", "")));
    let line = |alert: &Value| {
        let id = format!(" id={} ", alert["event"]["id"].as_str().unwrap());
        wait_until("the text", || daemon.stdout().lines().find(|line| line.contains(&id)).map(str::to_owned))
    };
    let since = &known["execwatch"]["baseline"]["since"].as_str().unwrap()[..10];
    let told = format!(
        " baseline=known baseline-days=3 baseline-count=53 baseline-since={since} severity-was=medium "
    );
    let text_of_known = line(&known);
    assert!(text_of_known.starts_with("severity=low ") && text_of_known.contains(&told), "{text_of_known}");
    let text_of_new = line(&new);
    assert!(text_of_new.contains(" baseline=new severity-was=medium "), "{text_of_new}");
    let totals = daemon.stop().totals;
    assert_eq!((totals.get("baseline-lowered"), totals.get("baseline-raised")), (1, 1));

    ground.next_day();
    let daemon = ground.daemon(&machine, "mode = \"enforce\"\nlearn-for = \"3d\"\nknown = \"silence\"");
    daemon.wait_for_message("its learning period is over");
    let silent = ground.execute("tool");
    let grave = ground.alert(&daemon, "grave");
    assert_eq!((state(&grave), severity(&grave)), ("known", ("high", "")));
    let ended = daemon.stop();
    assert!(ended.alerts(|alert| alert["process"]["pid"] == silent).is_empty());
    assert_eq!(ended.totals.get("baseline-silenced"), 1);
    let row = &ground.rows("tool")[0];
    assert_eq!((row["silenced"].as_u64(), row["days"].as_u64()), (Some(1), Some(4)), "{row}");
    let list = text(&ground.command(&["list"]));
    assert!(list.contains("; alerts silenced: 1; day 4 of 14 of the learning period"), "{list}");
    let metadata = ground.database().metadata().unwrap();
    assert_eq!((metadata.mode() & 0o777, ground.state().metadata().unwrap().mode() & 0o777), (0o600, 0o700));
}

#[test]
fn a_rule_may_ask_what_is_new() {
    let Some(machine) = Machine::shared() else { return };
    let ground = Ground::new();
    let daemon = ground.daemon(&machine, "");
    assert_eq!(ground.alert(&daemon, "first")["rule"]["id"], "first");
    let again = ground.execute("first");
    ground.alert(&daemon, "tool");
    daemon.stop();
    let daemon = ground.daemon(&machine, "");
    let after = ground.execute("first");
    ground.alert(&daemon, "first2");
    let ended = daemon.stop();
    let of = |pid| ended.alerts(|alert| alert["process"]["pid"] == pid).len();
    assert_eq!((of(again), of(after)), (0, 0), "{}", ended.stderr);
}

#[test]
fn the_command_line_while_the_daemon_runs() {
    let Some(machine) = Machine::shared() else { return };
    let ground = Ground::new();
    assert_eq!(ground.command(&["list"]).status.code(), Some(66));
    let daemon = ground.daemon(&machine, "mode = \"enforce\"");
    ground.alert(&daemon, "tool");
    let row = ground.wait_for_row("tool");
    let id = row["id"].as_str().unwrap();
    assert_eq!(row["state"], "seen");
    let shown = text(&ground.command(&["list", "--new"]));
    assert!(shown.contains(&id[..12]) && shown.contains("tool: "), "{shown}");
    assert!(!text(&ground.command(&["list", "--known"])).contains(&id[..12]));

    for (words, part) in [
        (["forget", "xyz1"], "is no id"),
        (["approve", "ab"], "is no id"),
        (["approve", "00000000000000000000"], "nothing has the id"),
    ] {
        let output = ground.command(&words);
        assert_eq!(output.status.code(), Some(64));
        assert!(text(&output).contains(part), "{}", text(&output));
    }
    assert_eq!(ground.command(&["approve", &id[..8]]).status.code(), Some(0));
    let approved = wait_until("the approval", || {
        Some(ground.alert(&daemon, "tool")).filter(|alert| state(alert) == "known")
    });
    assert_eq!(severity(&approved), ("low", "medium"));
    assert_eq!(approved["execwatch"]["baseline"]["approved"], true);
    assert!(text(&ground.command(&["list", "--known"])).contains("approved"));

    assert_eq!(ground.command(&["forget", id]).status.code(), Some(0));
    let forgotten = wait_until("that it is forgotten", || {
        Some(ground.alert(&daemon, "tool")).filter(|alert| state(alert) != "known")
    });
    assert_eq!((state(&forgotten), severity(&forgotten)), ("new", ("high", "medium")));
    // It is not approved any more either.
    assert_eq!(ground.wait_for_row("tool")["approved"], false);

    let file = ground.path().join("exported");
    assert_eq!(ground.command(&["export", file.to_str().unwrap()]).status.code(), Some(0));
    assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600);
    assert!(std::fs::read_to_string(&file).unwrap().contains(id));
    assert_eq!(ground.command(&["forget", "--all"]).status.code(), Some(0));
    wait_until("that all is forgotten", || {
        Some(ground.alert(&daemon, "tool")).filter(|alert| state(alert) == "new")
    });
    daemon.stop();
    assert_eq!(ground.rows("tool").len(), 1);
}

#[test]
fn only_root_sees_it() {
    let Some(machine) = Machine::shared() else { return };
    let ground = Ground::new();
    let daemon = ground.daemon(&machine, "");
    ground.alert(&daemon, "tool");
    ground.wait_for_row("tool");
    // The program may lie below a folder that only root may enter: it is run through an open file.
    let program = std::fs::File::open(env!("CARGO_BIN_EXE_execwatch")).unwrap();
    let descriptor = std::os::fd::AsRawFd::as_raw_fd(&program);
    nix::fcntl::fcntl(&program, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    let output = Command::new(format!("/proc/self/fd/{descriptor}"))
        .args(["baseline", "list", "--config"])
        .arg(ground.path().join("execwatch.toml"))
        .uid(65534)
        .gid(65534)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(77), "{}", text(&output));
    assert!(text(&output).contains("for root alone"), "{}", text(&output));
    daemon.stop();
}

#[test]
fn killed_in_the_middle() {
    let Some(machine) = Machine::shared() else { return };
    let ground = Ground::new();
    let daemon = ground.daemon(&machine, "");
    ground.alert(&daemon, "tool");
    ground.wait_for_row("tool");
    for number in 0..300 {
        ground.execute(&format!("tool-{}", number % 100));
    }
    wait_until("that some of it is written", || ground.rows("tool-0").pop());
    daemon.signal(Signal::SIGKILL);
    assert_eq!(daemon.end().code, None);
    let daemon = ground.daemon(&machine, "");
    assert_eq!(state(&ground.alert(&daemon, "tool")), "seen");
    let ended = daemon.stop();
    assert!(
        !ended.stderr.contains("damaged") && !ended.stderr.contains("warn: the baseline"),
        "{}",
        ended.stderr
    );
}

#[test]
fn a_damaged_database_is_moved_aside() {
    let Some(machine) = Machine::shared() else { return };
    let ground = Ground::new();
    std::fs::create_dir(ground.state()).unwrap();
    std::fs::write(ground.database(), [b'x'; 20_000]).unwrap();
    let daemon = ground.daemon(&machine, "");
    daemon.wait_for_message("an empty one takes its place");
    assert_eq!(state(&ground.alert(&daemon, "tool")), "new");
    daemon.stop();
    assert_eq!(ground.rows("tool").len(), 1);
    let aside = std::fs::read_dir(ground.state()).unwrap().flatten();
    let aside = aside.filter(|entry| entry.file_name().to_string_lossy().starts_with("baseline.db.damaged-"));
    assert_eq!(aside.map(|entry| entry.metadata().unwrap().len()).collect::<Vec<_>>(), [20_000]);
    // Damage in the middle of a good one.
    let size = ground.database().metadata().unwrap().len();
    let mut bytes = std::fs::read(ground.database()).unwrap();
    bytes[4096..].fill(0xa5);
    std::fs::write(ground.database(), bytes).unwrap();
    assert!(size > 8192);
    let daemon = ground.daemon(&machine, "");
    daemon.wait_for_message("an empty one takes its place");
    daemon.stop();
}

#[test]
fn a_folder_that_cannot_be_written_costs_the_memory_alone() {
    let Some(machine) = Machine::shared() else { return };
    let goes_on = |ground: &Ground, part: &str| {
        let daemon = ground.daemon(&machine, "");
        let message = daemon.wait_for_message("the baseline cannot be kept");
        assert!(message.contains(part) && message.contains("[state]"), "{message}");
        assert_eq!(state(&ground.alert(&daemon, "tool")), "new");
        assert_eq!(state(&ground.alert(&daemon, "tool")), "seen");
        daemon.stop();
    };
    let ground = Ground::new();
    std::fs::write(ground.state(), "").unwrap();
    goes_on(&ground, "baseline.db");
    let ground = Ground::new();
    let Some(_disk) = Disk::mount(&ground.state(), "size=64k,ro") else { return };
    goes_on(&ground, "Read-only file system");
    let ground = Ground::new();
    let Some(disk) = Disk::mount(&ground.state(), "size=64k") else { return };
    disk.fill_but(0);
    goes_on(&ground, "full");
}

#[test]
fn what_was_learnt_counts_on_a_read_only_medium() {
    let Some(machine) = Machine::shared() else { return };
    let ground = Ground::new();
    let Some(disk) = Disk::mount(&ground.state(), "size=1m") else { return };
    let daemon = ground.daemon(&machine, "");
    ground.alert(&daemon, "tool");
    daemon.stop();
    disk.remount("ro");
    let daemon = ground.daemon(&machine, "");
    daemon.wait_for_message("the baseline cannot be kept");
    assert_eq!(state(&ground.alert(&daemon, "tool")), "seen");
    daemon.stop();
    assert_eq!(ground.rows("tool").len(), 1);
}

#[test]
fn a_disk_that_fills_up_and_has_room_again() {
    let Some(machine) = Machine::shared() else { return };
    let ground = Ground::new();
    let Some(disk) = Disk::mount(&ground.state(), "size=1m") else { return };
    let daemon = ground.daemon(&machine, "");
    ground.alert(&daemon, "tool");
    ground.wait_for_row("tool");
    let filling = disk.fill_but(0);
    for number in 0..50 {
        ground.execute(&format!("tool-{number}"));
    }
    let message = daemon.wait_for_message("the baseline cannot be written");
    assert!(message.contains("full"), "{message}");
    assert_eq!(state(&ground.alert(&daemon, "tool")), "seen");
    std::fs::remove_file(filling).unwrap();
    daemon.wait_for_message("the baseline is written again");
    daemon.stop();
    assert_eq!(ground.rows("tool-49").len(), 1);
}
