//! `execwatch watch` on a real daemon: lines in a pipe, the view on a terminal, and a viewer that does not look.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod support;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, Termios, tcgetattr};
use nix::unistd::Pid;
use serde_json::Value;
use support::{DEADLINE, Daemon, Machine, program, wait_until, within};

/// Every program of the test's is an incident.
const RULES: &str = "[[rule]]\nid = 'grave'\ntitle = 'A grave program'\nseverity = 'critical'\n\
                     [rule.select.it]\n'exe|startswith' = '{dir}/bin/'\n";
/// What ends the alternate screen and shows the cursor.
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

fn watch(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_execwatch"));
    command.arg("watch").arg("--config").arg(folder.join("execwatch.toml"));
    command
}

/// A viewer, which is killed at the end.
struct Viewer {
    child: Child,
    /// What it has written.
    written: Arc<Mutex<Vec<u8>>>,
}

impl Viewer {
    fn of(mut child: Child, output: impl Read + Send + 'static) -> Viewer {
        let written = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&written);
        child.stdin.take();
        std::thread::spawn(move || {
            let mut output = output;
            let mut buffer = [0; 4096];
            // A terminal whose last program has gone gives an error.
            while let Ok(length @ 1..) = output.read(&mut buffer) {
                kept.lock().unwrap().extend_from_slice(&buffer[..length]);
            }
        });
        Viewer { child, written }
    }

    /// With its lines in a pipe.
    fn piped(folder: &Path, arguments: &[&str]) -> Viewer {
        let mut command = watch(folder);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let output = child.stdout.take().unwrap();
        Viewer::of(child, output)
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.written.lock().unwrap()).into_owned()
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// Its exit code, once it has ended.
    fn ended(&mut self) -> Option<i32> {
        wait_until("the viewer ended", || self.child.try_wait().unwrap()).code()
    }

    /// Waits until a part stands in what it has written since a place in it.
    #[track_caller]
    fn wait_for(&self, part: &str) {
        let found = within(DEADLINE, || self.text().contains(part).then_some(()));
        assert!(found.is_some(), "no «{part}» in:\n{}", self.text());
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Executes a program again and again until the viewer, which may still be on its way, shows it.
fn execute_until_shown(program: &Path, viewer: &Viewer) {
    let name = program.to_str().unwrap();
    wait_until("the viewer shows the program", || {
        Command::new(program).arg("x\x1b[2Jy").status().unwrap();
        viewer.text().contains(name).then_some(())
    });
}

fn incidents(folder: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_execwatch"));
    command.arg("incidents").args(words).arg("--config").arg(folder.join("execwatch.toml")).output().unwrap()
}

#[test]
fn lines_go_into_a_pipe_until_it_is_closed_or_the_daemon_ends() {
    let Some(machine) = Machine::shared() else { return };
    let mut daemon = machine.daemon().rules(RULES).start();
    let folder = daemon.folder().to_owned();
    let program = daemon.program("one");
    let mut text = Viewer::piped(&folder, &[]);
    execute_until_shown(&program, &text);
    let mut json = Viewer::piped(&folder, &["--json"]);
    execute_until_shown(&program, &json);
    let shown = text.text();
    // The notice of its incident is as severe, and comes before it.
    let line = shown.lines().find(|line| line.contains("rule=grave")).unwrap();
    assert!(line.contains("severity=critical") && line.contains("x\\x1b[2Jy"), "{line}");
    // As the outputs have it, byte by byte.
    let shown = json.text();
    let line = shown.lines().find(|line| line.contains("execwatch.alert")).unwrap();
    wait_until("the line in the file", || {
        let file = std::fs::read_to_string(folder.join("alerts.json")).unwrap();
        file.lines().any(|other| other == line).then_some(())
    });
    // Who has stopped reading has not to wait for the next alert.
    let mut command = watch(&folder);
    let mut closing = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    drop(closing.stdout.take());
    let status = wait_until("it noticed", || closing.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
    daemon.end_for_now();
    for viewer in [&mut text, &mut json] {
        assert_eq!(viewer.ended(), Some(69));
        let mut said = String::new();
        viewer.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(said.contains("the daemon has ended"), "{said}");
    }
    let output = watch(&folder).stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(69));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no daemon answers at"));
}

#[test]
fn only_root_looks_on_and_not_everybody_at_once() {
    let Some(machine) = Machine::shared() else { return };
    let daemon = machine.daemon().rules(RULES).start();
    let folder = daemon.folder().to_owned();
    let binary = folder.join("execwatch");
    program::copy(Path::new(env!("CARGO_BIN_EXE_execwatch")), &binary);
    let mut stranger = Command::new(binary);
    stranger.args(["watch", "--socket"]).arg(daemon.control()).stdin(Stdio::null()).uid(65534).gid(65534);
    assert_eq!(stranger.output().unwrap().status.code(), Some(77));
    let viewers: Vec<Viewer> = (0..4).map(|_| Viewer::piped(&folder, &[])).collect();
    let program = daemon.program("one");
    viewers.iter().for_each(|viewer| execute_until_shown(&program, viewer));
    let output = watch(&folder).stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(70));
    assert!(String::from_utf8_lossy(&output.stderr).contains("4 viewers look on already"));
    // Others are answered all the same, and a place that has become free is taken.
    assert_eq!(daemon.status(&[]).0, 0);
    drop(viewers);
    execute_until_shown(
        &program,
        &wait_until("there is room again", || {
            let mut viewer = Viewer::piped(&folder, &[]);
            // It has ended if it was refused; it is not known otherwise that it was not.
            Command::new(&program).status().unwrap();
            viewer.child.try_wait().unwrap().is_none().then_some(viewer)
        }),
    );
}

#[test]
fn a_viewer_that_does_not_look_delays_nothing_and_is_told_what_it_missed() {
    let Some(machine) = Machine::alone() else { return };
    let daemon = machine.daemon().rules(RULES).start();
    let folder = daemon.folder().to_owned();
    let program = daemon.tiny("one");
    let mut viewer = Viewer::piped(&folder, &["--json"]);
    execute_until_shown(&program, &viewer);
    viewer.signal(Signal::SIGSTOP);
    // More than what waits for it on any way has room for, of alerts with long arguments.
    let long = "x".repeat(20_000);
    let of_storm = |alert: &Value| alert["process"]["args"][1] == long.as_str();
    let told = || daemon.alerts().iter().filter(|alert| of_storm(alert)).count();
    wait_until("alerts in the file, though a viewer stands still", || {
        Command::new(&program).arg(&long).status().unwrap();
        (told() >= 150).then_some(())
    });
    assert_eq!(daemon.status(&[]).0, 0);
    viewer.signal(Signal::SIGCONT);
    // What comes last comes after what was missed.
    let last = daemon.program("last");
    execute_until_shown(&last, &viewer);
    let text = viewer.text();
    let whole: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let shown = whole.iter().filter(|alert| of_storm(alert)).count();
    viewer.signal(Signal::SIGTERM);
    viewer.ended();
    let said = BufReader::new(viewer.child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let missed = said.filter_map(|line| {
        let count = line.strip_prefix("execwatch: ")?.split(' ').next()?;
        line.contains(" missed: ").then(|| count.parse::<usize>().unwrap())
    });
    let missed: usize = missed.sum();
    assert!(missed > 0 && shown > 0, "{shown} shown, {missed} missed");
    // Notices and follow-ups may be among what was missed, and nothing is missed twice.
    assert!(shown + missed >= told(), "{shown} shown and {missed} missed of {}", told());
    let records = daemon.records().len();
    assert!(whole.len() + missed <= records, "{} shown and {missed} missed of {records}", whole.len());
}

/// A terminal with a viewer on it.
struct Terminal {
    keys: File,
    /// Kept open, so that what the viewer leaves can be looked at.
    slave: std::os::fd::OwnedFd,
    before: Termios,
    viewer: Viewer,
}

impl Terminal {
    fn open(daemon: &Daemon<'_>) -> Terminal {
        let size = Winsize { ws_row: 30, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
        let OpenptyResult { master, slave } = openpty(Some(&size), None).unwrap();
        let before = tcgetattr(&slave).unwrap();
        let stdio = || Stdio::from(slave.try_clone().unwrap());
        let mut command = watch(daemon.folder());
        let child = command.stdin(stdio()).stdout(stdio()).stderr(Stdio::piped()).spawn().unwrap();
        let keys = File::from(master.try_clone().unwrap());
        let viewer = Viewer::of(child, File::from(master));
        Terminal { keys, slave, before, viewer }
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// The viewer has ended, and the terminal is as it was.
    fn assert_as_before(&mut self) {
        assert_eq!(self.viewer.ended(), Some(0));
        let now = tcgetattr(self.slave.as_fd()).unwrap();
        assert!(now.local_flags.contains(LocalFlags::ICANON | LocalFlags::ECHO));
        assert_eq!(now, self.before);
        wait_until("the usual screen", || self.viewer.text().ends_with(LEAVE).then_some(()));
    }
}

#[test]
fn a_terminal_shows_the_alert_obeys_keys_and_is_left_as_it_was() {
    let Some(machine) = Machine::shared() else { return };
    let daemon = machine.daemon().rules(RULES).start();
    let folder = daemon.folder().to_owned();
    let program = daemon.program("one");
    let mut terminal = Terminal::open(&daemon);
    execute_until_shown(&program, &terminal.viewer);
    let raw = tcgetattr(terminal.slave.as_fd()).unwrap();
    assert!(!raw.local_flags.intersects(LocalFlags::ICANON | LocalFlags::ECHO));
    // The way to it, and what bytes of a stranger do not do to a terminal.
    terminal.viewer.wait_for("A grave program");
    terminal.viewer.wait_for("x\\x1b[2Jy");
    assert!(!terminal.viewer.text().contains("\x1b[2J"));
    terminal.viewer.wait_for("INCIDENTS (1 not closed)");
    terminal.viewer.wait_for("execs/s");
    terminal.press("r");
    terminal.viewer.wait_for("there is nothing to release here: responses are off");
    terminal.press("\x1b[B\x1b[Aa");
    wait_until("the incident is acknowledged", || {
        let output = incidents(&folder, &["list", "--json", "--state", "acknowledged"]);
        (!output.stdout.is_empty()).then_some(())
    });
    terminal.viewer.wait_for("is acknowledged");
    terminal.press("q");
    terminal.assert_as_before();

    let mut terminal = Terminal::open(&daemon);
    execute_until_shown(&program, &terminal.viewer);
    terminal.viewer.signal(Signal::SIGTERM);
    terminal.assert_as_before();

    // Also if the daemon ends first.
    let mut terminal = Terminal::open(&daemon);
    execute_until_shown(&program, &terminal.viewer);
    daemon.stop();
    assert_eq!(terminal.viewer.ended(), Some(69));
    assert_eq!(tcgetattr(terminal.slave.as_fd()).unwrap(), terminal.before);
}
