//! The outputs, each with what really reads it: a socket in the place of /dev/log, rsyslog, a file that is rotated.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;
use support::{Daemon, Ended, Machine, installed, wait_until};

/// Programs that each alert tells apart.
const ALERTS: usize = 50;

/// A configuration with syslog alone, at `{dir}/log`.
fn syslog(more: &str) -> String {
    format!("[rules]\nbuiltin = false\n[output.syslog]\nsocket = \"{{dir}}/log\"\n{more}\n")
}

fn execute_many(daemon: &Daemon) {
    let program = daemon.program("tool");
    for number in 0..ALERTS {
        assert!(Command::new(&program).arg(format!("n{number}")).status().unwrap().success());
    }
}

/// How often the text stands for each program.
fn counts<'t>(texts: impl Iterator<Item = &'t str> + Clone) -> Vec<usize> {
    // The argument stands at the end of the quoted command line.
    let count =
        |number: usize| texts.clone().filter(|text| text.contains(&format!("tool n{number}\""))).count();
    (0..ALERTS).map(count).collect()
}

/// True for a text that is no notice. On a busy machine the daemon may have to say that programs of others ended before
/// they were read.
fn is_alert(text: &str) -> bool {
    !text.contains(" notice=")
}

/// What an output says at its end, without the notices, of which each is logged too: records written, lost, and waiting
/// for the next start. Notices are among what was not written, if there is any.
fn counts_of(ended: &Ended, output: &str) -> (usize, usize, usize) {
    let notices = ended.stderr.lines().filter(|line| line.contains("not everything was seen")).count();
    let line = ended.stderr.lines().find(|line| line.contains("written=") && line.contains(output));
    let line = line.unwrap_or_else(|| panic!("{}", ended.stderr));
    let number = |key: &str| {
        let (_, rest) = line.split_once(key).unwrap();
        rest.split_whitespace().next().unwrap().parse::<usize>().unwrap()
    };
    match (number("written="), number("lost="), number("waiting=")) {
        (written, lost, waiting) if waiting > 0 => (written, lost, waiting.saturating_sub(notices)),
        (written, lost, waiting) if lost > 0 => (written, lost.saturating_sub(notices), waiting),
        (written, ..) => (written - notices, 0, 0),
    }
}

fn is_alert_record(record: &serde_json::Value) -> bool {
    record["event"]["kind"] == "alert"
}

/// The next alert that a socket receives.
fn receive(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 8192];
    loop {
        let length = socket.recv(&mut buffer).unwrap();
        let text = String::from_utf8(buffer[..length].to_vec()).unwrap();
        if is_alert(&text) {
            return text;
        }
    }
}

#[test]
fn the_syslog_socket_receives_each_alert_once() {
    let Some(machine) = Machine::alone() else { return };
    let setup = machine.daemon().config(&syslog("facility = \"local3\"\ntag = \"watch\""));
    let socket = UnixDatagram::bind(setup.folder().join("log")).unwrap();
    socket.set_read_timeout(Some(support::DEADLINE)).unwrap();
    let daemon = setup.start();
    let pid = daemon.pid();
    let reader = std::thread::spawn(move || {
        let messages = (0..ALERTS).map(|_| receive(&socket));
        (messages.collect::<Vec<_>>(), socket)
    });
    execute_many(&daemon);
    let (messages, socket) = reader.join().unwrap();
    let ended = daemon.stop();
    // A notice that came after the last alert may not have been read.
    assert_eq!(counts_of(&ended, "syslog"), (ALERTS, 0, 0), "{}", ended.stderr);
    socket.set_nonblocking(true).unwrap();
    let mut buffer = [0; 8192];
    while let Ok(length) = socket.recv(&mut buffer) {
        let text = String::from_utf8_lossy(&buffer[..length]);
        assert!(!is_alert(&text), "more messages than alerts: {text}");
    }
    assert_eq!(counts(messages.iter().map(String::as_str)), [1; ALERTS]);
    // Facility local3 is 19, severity low is notice (5).
    let head = format!("<157>watch[{pid}]: severity=low rule=own-programs ");
    for message in &messages {
        assert!(message.starts_with(&head) && message.len() < 1024 && !message.contains('\n'), "{message}");
    }
}

/// Syslog servers of old take a stream, in which a NUL ends a message.
#[test]
fn a_syslog_socket_that_takes_streams() {
    let Some(machine) = Machine::alone() else { return };
    let setup = machine.daemon().config(&syslog("format = \"json\""));
    let listener = UnixListener::bind(setup.folder().join("log")).unwrap();
    let daemon = setup.start();
    let reader = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(support::DEADLINE)).unwrap();
        let messages = BufReader::new(stream).split(0);
        messages.map(|message| String::from_utf8(message.unwrap()).unwrap()).collect::<Vec<_>>()
    });
    execute_many(&daemon);
    daemon.stop();
    let messages = reader.join().unwrap();
    let records = messages.iter().map(|message| {
        let (_, json) = message.split_once(": ").unwrap();
        serde_json::from_str(json).unwrap()
    });
    let alerts: Vec<serde_json::Value> = records.filter(is_alert_record).collect();
    assert_eq!(alerts.len(), ALERTS);
    for (number, alert) in alerts.iter().enumerate() {
        assert_eq!(alert["process"]["args"][1], format!("n{number}"));
    }
}

/// An output that fails holds nothing up, and what it could not take is counted and said.
#[test]
fn a_missing_and_a_returning_syslog_server() {
    let Some(machine) = Machine::alone() else { return };
    let config = syslog("") + "[output.file]\npath = \"{dir}/alerts.json\"\n";
    let daemon = machine.daemon().config(&config).start();
    let program = daemon.program("tool");
    Command::new(&program).arg("while-missing").status().unwrap();
    daemon.wait_for(|alert| alert["process"]["args"][1] == "while-missing");
    daemon.wait_for_message("/log");
    // The server comes: what waited is sent.
    let socket = UnixDatagram::bind(daemon.folder().join("log")).unwrap();
    socket.set_read_timeout(Some(support::DEADLINE)).unwrap();
    let text = receive(&socket);
    assert!(text.contains("while-missing"), "{text}");
    // It goes and comes again.
    drop(socket);
    fs::remove_file(daemon.folder().join("log")).unwrap();
    let socket = UnixDatagram::bind(daemon.folder().join("log")).unwrap();
    socket.set_read_timeout(Some(support::DEADLINE)).unwrap();
    Command::new(&program).arg("after-restart").status().unwrap();
    // What the old one may not have read comes again.
    let text = std::iter::repeat_with(|| receive(&socket)).find(|text| !text.contains("while-missing"));
    assert!(text.as_ref().is_some_and(|text| text.contains("after-restart")), "{text:?}");
    let ended = daemon.stop();
    assert_eq!(counts_of(&ended, "syslog"), (2, 0, 0), "{}", ended.stderr);
    assert_eq!(counts_of(&ended, "file"), (2, 0, 0), "{}", ended.stderr);
}

/// A server that is there but reads nothing: the end does not wait for ever, and what it has not read waits in the journal,
/// also what its socket holds.
#[test]
fn a_syslog_server_that_does_not_read() {
    let Some(machine) = Machine::alone() else { return };
    let setup = machine.daemon().config(&syslog(""));
    let _socket = UnixDatagram::bind(setup.folder().join("log")).unwrap();
    let daemon = setup.start();
    execute_many(&daemon);
    daemon.wait_for_totals("the alerts", |totals| totals.get("alerts") == ALERTS as u64);
    let ended = daemon.stop();
    assert_eq!(counts_of(&ended, "syslog"), (0, 0, ALERTS), "{}", ended.stderr);
}

#[test]
fn what_no_output_took_waits_in_the_journal() {
    let Some(machine) = Machine::alone() else { return };
    let daemon = machine.daemon().config(&syslog("")).start();
    Command::new(daemon.program("tool")).status().unwrap();
    daemon.wait_for_message("/log");
    let ended = daemon.stop();
    assert_eq!(counts_of(&ended, "syslog"), (0, 0, 1), "{}", ended.stderr);
    assert_eq!(ended.totals.get("alerts"), 1);
}

/// A syslog daemon, ended by its pid.
struct Rsyslog(Child);

impl Rsyslog {
    fn start(program: &Path, folder: &Path) -> Self {
        let configuration = folder.join("rsyslog.conf");
        let folder = folder.display();
        let text = format!(
            "global(workDirectory=\"{folder}\")\n\
             module(load=\"imuxsock\" SysSock.Use=\"off\")\n\
             input(type=\"imuxsock\" Socket=\"{folder}/log\" CreatePath=\"on\" UsePIDFromSystem=\"on\")\n\
             template(name=\"parts\" type=\"string\" \
             string=\"%syslogfacility-text%|%syslogseverity-text%|%programname%|%msg%\\n\")\n\
             action(type=\"omfile\" file=\"{folder}/received\" template=\"parts\")\n"
        );
        fs::write(&configuration, text).unwrap();
        let mut command = Command::new(program);
        command.args(["-n", "-i", "NONE", "-f"]).arg(&configuration);
        Rsyslog(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Rsyslog {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn rsyslog_reads_facility_severity_tag_and_text() {
    let Some(machine) = Machine::alone() else { return };
    let Some(program) = installed("rsyslogd") else { return };
    let setup = machine.daemon().config(&syslog("[output.syslog.severity]\nlow = \"warning\""));
    let folder = setup.folder();
    let _rsyslog = Rsyslog::start(&program, &folder);
    wait_until("rsyslog's socket", || folder.join("log").exists().then_some(()));
    let daemon = setup.start();
    execute_many(&daemon);
    let hostile = "a\nb\x1b[2J<13>c: \"d\" %msg%";
    Command::new(daemon.program("hostile")).arg(hostile).status().unwrap();
    let received = wait_until("rsyslog's file", || {
        let text = fs::read_to_string(folder.join("received")).ok()?;
        (text.lines().filter(|line| is_alert(line)).count() > ALERTS).then_some(text)
    });
    assert_eq!(counts(received.lines()), [1; ALERTS]);
    let alerts: Vec<&str> = received.lines().filter(|line| is_alert(line)).collect();
    assert_eq!(alerts.len(), ALERTS + 1);
    for line in alerts {
        assert!(line.starts_with("authpriv|warning|execwatch| severity=low rule=own-programs "), "{line}");
    }
    let line = received.lines().find(|line| line.contains("hostile")).unwrap();
    daemon.stop();
    assert!(line.contains(r#"hostile a\nb\x1b[2J<13>c: \"d\" %msg%""#), "{line}");
}

#[test]
fn standard_output_as_json_and_as_text() {
    let Some(machine) = Machine::alone() else { return };
    let quiet = "[rules]\nbuiltin = false\n[output.syslog]\nenabled = false\n";
    let run = |config: &str, argument: Option<&str>| {
        let mut setup = machine.daemon().config(config);
        if let Some(argument) = argument {
            setup = setup.argument(argument);
        }
        let daemon = setup.start();
        execute_many(&daemon);
        let alerts = || daemon.stdout().lines().filter(|line| line.contains("own-programs")).count();
        wait_until("the alerts", || (alerts() >= ALERTS).then_some(()));
        let text = daemon.stdout();
        daemon.stop();
        text
    };
    let text = run(quiet, Some("--json"));
    let alerts: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).filter(is_alert_record).collect();
    assert_eq!(alerts.len(), ALERTS);
    assert!(alerts.iter().all(|alert| alert["rule"]["id"] == "own-programs"), "{text}");
    let text = run(&format!("{quiet}[output.stdout]\nenabled = true\n"), None);
    assert_eq!(counts(text.lines()), [1; ALERTS]);
    assert!(!text.contains('\x1b'), "colours without a terminal");
}

/// Standard output that is closed, or that nobody reads, holds up neither the other outputs nor the end.
#[test]
fn nobody_reads_standard_output() {
    let Some(machine) = Machine::alone() else { return };
    let config = "[rules]\nbuiltin = false\n[output.syslog]\nenabled = false\n\
                  [output.file]\npath = \"{dir}/alerts.json\"\n[output.stdout]\nenabled = true\n";
    let daemon = machine.daemon().config(config).under(&["sh", "-c", "exec \"$@\" >/dev/full", "sh"]).start();
    execute_many(&daemon);
    daemon.wait_for_many(ALERTS, |_| true);
    daemon.wait_for_message("standard output");
    let ended = daemon.stop();
    assert_eq!(counts_of(&ended, "standard output"), (0, ALERTS, 0), "{}", ended.stderr);
    assert_eq!(counts_of(&ended, "file"), (ALERTS, 0, 0), "{}", ended.stderr);
}

#[test]
fn a_rotated_file_is_opened_anew() {
    let Some(machine) = Machine::alone() else { return };
    let daemon = machine.daemon().start();
    let program = daemon.program("tool");
    Command::new(&program).arg("before").status().unwrap();
    daemon.wait_for(|alert| alert["process"]["args"][1] == "before");
    let (file, moved) = (daemon.folder().join("alerts.json"), daemon.folder().join("alerts.json.1"));
    fs::rename(&file, &moved).unwrap();
    daemon.signal(Signal::SIGHUP);
    wait_until("the new file", || file.exists().then_some(()));
    Command::new(&program).arg("after").status().unwrap();
    wait_until("the alert in the new file", || {
        fs::read_to_string(&file).ok()?.contains("after").then_some(())
    });
    assert!(fs::read_to_string(&moved).unwrap().contains("before"));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o027, 0, "others may read the alerts");
    let ended = daemon.stop();
    // SIGHUP is a reload too, which is told.
    assert_eq!(counts_of(&ended, "file"), (3, 0, 0), "{}", ended.stderr);
}

#[test]
fn a_file_that_cannot_be_opened_is_said() {
    let Some(machine) = Machine::alone() else { return };
    let config = "[rules]\nbuiltin = false\n[output.syslog]\nenabled = false\n\
                  [output.file]\npath = \"{dir}/no/such/folder/alerts.json\"\n";
    let daemon = machine.daemon().config(config).start();
    Command::new(daemon.program("tool")).status().unwrap();
    let line = daemon.wait_for_message("no/such/folder");
    assert!(line.contains("No such file"), "{line}");
    daemon.stop();
}
