//! Incidents on the real kernel: an intrusion played on loopback ends in one that answers what is asked, and what does not
//! belong together stays apart.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

#[path = "incident/outline.rs"]
mod outline;
mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use execwatch::incident::collect::{Thing, id_text};
use execwatch::incident::kept::{Head, Item, KeptAlert};
use execwatch::incident::store::Store;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use support::disk::Disk;
use support::servers::{free_port, wait_for_port};
use support::{Daemon, Machine, Setup, installed, program, wait_until};

const INTRUSION: &str = include_str!("incident/intrusion.sh");
const STAGE: &str = include_str!("incident/stage.sh");

/// With the built-in rules, records in a file, and whatever else.
fn config(more: &str) -> String {
    format!(
        "[output.syslog]\nenabled = false\n[output.file]\npath = \"{{dir}}/alerts.json\"\n[baseline]\nmode = \"off\"\n{more}"
    )
}

fn start<'m>(setup: Setup<'m>, more: &str) -> Daemon<'m> {
    setup.config(&config(more)).rules("").start()
}

/// `execwatch incidents` with the daemon's configuration.
fn incidents(folder: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_execwatch"));
    command.arg("incidents").args(words).arg("--config").arg(folder.join("execwatch.toml"));
    command.stdin(Stdio::null()).output().unwrap()
}

#[track_caller]
fn answer(output: &Output) -> String {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// The incidents that there are, without those of other programs on this machine.
fn list(folder: &Path, is_own: impl Fn(&Value) -> bool) -> Vec<Value> {
    let output = incidents(folder, &["list", "--json"]);
    if !output.status.success() {
        return Vec::new();
    }
    let text = String::from_utf8(output.stdout).unwrap();
    let all = text.lines().map(|line| serde_json::from_str(line).unwrap());
    all.map(|incident: Value| story(folder, incident["id"].as_str().unwrap())).filter(is_own).collect()
}

fn story(folder: &Path, id: &str) -> Value {
    serde_json::from_str(&answer(&incidents(folder, &["show", id, "--json"]))).unwrap()
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The part of the answers that has this name.
#[track_caller]
fn told<'s>(story: &'s Value, question: &str, what: &str) -> (&'s str, &'s str) {
    let found = array(&story[question]).iter().find(|answer| answer["what"] == what);
    let found = found.unwrap_or_else(|| panic!("no {what} in {:#}", story[question]));
    (found["answer"].as_str().unwrap(), found["sure"].as_str().unwrap())
}

/// A server that gives the next stage and takes what is carried off, and one that a connection is held open by until it
/// was certainly looked at.
struct Outside {
    web: u16,
    control: u16,
    carried_off: Arc<AtomicU64>,
}

impl Outside {
    fn open(stage: impl Fn(u16, u16) -> String) -> Outside {
        let (web, control) =
            (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let ports = (web.local_addr().unwrap().port(), control.local_addr().unwrap().port());
        let stage = stage(ports.0, ports.1);
        let carried_off = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&carried_off);
        std::thread::spawn(move || {
            for stream in web.incoming().map_while(Result::ok) {
                serve(stream, &stage, &counted);
            }
        });
        std::thread::spawn(move || {
            for mut stream in control.incoming().map_while(Result::ok) {
                let mut sent = [0; 4096];
                let _ = stream.read(&mut sent);
                let _ = stream.write_all(b"whoami\n");
                // Follow-ups look after a tenth of a second and after a second.
                std::thread::sleep(Duration::from_millis(1500));
            }
        });
        Outside { web: ports.0, control: ports.1, carried_off }
    }
}

/// Answers one request of HTTP.
fn serve(mut stream: TcpStream, stage: &str, carried_off: &AtomicU64) {
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut asked = Vec::new();
    let mut buffer = [0; 4096];
    let head = loop {
        let Ok(length @ 1..) = stream.read(&mut buffer) else { return };
        asked.extend_from_slice(&buffer[..length]);
        if let Some(end) = asked.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let text = String::from_utf8_lossy(&asked[..head]).to_ascii_lowercase();
    let length =
        text.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse::<usize>().ok());
    while asked.len() < head + length.unwrap_or(0) {
        let Ok(length @ 1..) = stream.read(&mut buffer) else { return };
        asked.extend_from_slice(&buffer[..length]);
    }
    carried_off.fetch_add((asked.len() - head) as u64, Relaxed);
    // It stays open for a moment, so that who carries off is looked at.
    if length.is_some() {
        std::thread::sleep(Duration::from_millis(1500));
    }
    let body = if text.starts_with("get /stage") { stage } else { "" };
    let _ = write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
}

/// A process that is ended when the test is over.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).unwrap());
        // It takes its own child with it.
        let _ = kill(pid, Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

/// busybox as a web server below a service supervisor, which a copy of the shell under that name stands for.
fn web_server(folder: &Path, program_text: &str) -> (Killed, u16) {
    let (supervise, site, port) = (folder.join("supervise"), folder.join("site"), free_port());
    let busybox = installed("busybox").unwrap();
    let server = folder.join("httpd");
    program::copy(Path::new("/bin/dash"), &supervise);
    // By this name it is a web server, to itself and to the rules.
    program::copy(&busybox, &server);
    fs::create_dir_all(site.join("cgi-bin")).unwrap();
    program::script(&site.join("cgi-bin/status"), program_text);
    // Not the last command, so that the supervisor stays.
    let text = format!(
        "trap 'kill $!' TERM; {} -f -p 127.0.0.1:{port} -h {} & wait $!; exit 0",
        server.display(),
        site.display()
    );
    let mut command = Command::new(&supervise);
    let child = command.arg("-c").arg(text).stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    wait_for_port(port);
    (Killed(child), port)
}

fn get(port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(support::DEADLINE)).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text);
    text
}

fn fill(text: &str, folder: &Path, web: u16, control: u16) -> String {
    text.replace("{dir}", folder.to_str().unwrap())
        .replace("{web}", &web.to_string())
        .replace("{control}", &control.to_string())
}

/// Whether everything that the tests need is installed.
fn equipped() -> bool {
    ["busybox", "curl", "nc"].iter().all(|name| installed(name).is_some())
}

#[test]
fn an_intrusion_by_way_of_a_web_server_is_one_incident_that_answers_what_is_asked() {
    let Some(machine) = Machine::alone() else { return };
    if !equipped() {
        return;
    }
    let mut daemon = start(machine.daemon(), "");
    let folder: PathBuf = daemon.folder().to_owned();
    fs::create_dir(folder.join("tmp")).unwrap();
    let outside = Outside::open(|web, control| fill(STAGE, &folder, web, control));
    let text = fill(INTRUSION, &folder, outside.web, outside.control);
    let (server, port) = web_server(&folder, &text);
    assert!(get(port, "/cgi-bin/status").ends_with("done\n"), "{}", daemon.stderr());
    let place = folder.to_str().unwrap().to_owned();
    let is_own = |story: &Value| told(story, "way_in", "entry").0.contains(&place);
    let whole = |story: &Value| {
        let curl = array(&story["tools"]).iter().any(|tool| tool["name"] == "curl" && tool["count"] == 2);
        let ended = array(&story["timeline"]).iter().filter(|moment| moment["kind"] == "end").count() >= 8;
        let all_ended = array(&story["processes"])
            .iter()
            .all(|process| process["entry"] == true || process["outcome"].is_string());
        let bytes =
            array(&story["remotes"]).iter().filter(|remote| remote["bytes_out"].is_u64()).count() >= 2;
        curl && ended && all_ended && bytes
    };
    let stories = wait_until("the incident with all its parts", || {
        let stories = list(&folder, is_own);
        stories.first().is_some_and(whole).then_some(stories)
    });
    let [story] = &stories[..] else { panic!("{} incidents: {stories:#?}", stories.len()) };

    // Who?
    assert_eq!(told(story, "who", "acting user"), ("root", "known"));
    assert_eq!(told(story, "who", "normal here").1, "unknown");
    // The way in: the web server, with its port.
    let (entry, sure) = told(story, "way_in", "entry");
    assert!(entry.contains("httpd") && entry.starts_with("a service"), "{entry}");
    assert_eq!(sure, "known");
    assert_eq!(told(story, "way_in", "listening ports"), (&*format!("tcp 127.0.0.1:{port}"), "known"));
    // What else: every program of it in its place, tools, addresses with bytes, files.
    let processes = array(&story["processes"]);
    let programs: Vec<String> = processes
        .iter()
        .flat_map(|process| array(&process["programs"]))
        .map(|program| program["args"][0].as_str().unwrap_or_default().rsplit('/').next().unwrap().to_owned())
        .collect();
    for name in ["id", "uname", "cat", "curl", "chmod", "tar", "nc", "rm"] {
        assert!(programs.iter().any(|program| program == name), "{name} is not in {programs:?}");
    }
    let entries: Vec<&Value> = processes.iter().filter(|process| process["entry"] == true).collect();
    assert_eq!(entries.len(), 1, "{processes:#?}");
    assert_eq!(entries[0]["running"], true);
    let orphans = processes.iter().filter(|process| process["parent"].is_null()).count();
    assert_eq!(orphans, 1, "{processes:#?}");
    for name in ["curl", "nc"] {
        assert!(array(&story["tools"]).iter().any(|tool| tool["name"] == name), "{:#}", story["tools"]);
    }
    let remote = |port: u16| {
        let address = format!("127.0.0.1:{port}");
        array(&story["remotes"]).iter().find(|remote| remote["address"] == address.as_str()).cloned().unwrap()
    };
    let host_name = fs::metadata("/etc/hostname").map_or(0, |metadata| metadata.len());
    assert_eq!(remote(outside.control)["bytes_out"], host_name, "{:#}", story["remotes"]);
    assert_eq!(remote(outside.control)["bytes_in"], 7);
    let carried_off = outside.carried_off.load(Relaxed);
    assert!(remote(outside.web)["bytes_out"].as_u64().unwrap() >= carried_off, "{:#}", story["remotes"]);
    let file = |name: &str| {
        let path = folder.join("tmp").join(name);
        array(&story["files"]).iter().find(|file| file["path"] == path.to_str().unwrap()).cloned().unwrap()
    };
    let stage = fill(STAGE, &folder, outside.web, outside.control);
    assert_eq!(file(".cache")["now"]["size"], stage.len());
    assert_eq!(file(".cache")["now"]["owner"], "root");
    assert!(file(".cache")["now"]["sha256"].is_string());
    assert_eq!(file("loot")["now"], Value::Null);

    let names = [
        (place.clone(), "FOLDER"),
        (format!(":{port}"), ":DOOR"),
        (format!(":{}", outside.web), ":WEB"),
        (format!(":{}", outside.control), ":CONTROL"),
        (format!("\"{}\"", outside.control), "\"CONTROL\""),
    ];
    outline::compare(&outline::outline(story, &names));

    // Its alerts carry its id, also the one with which it opened.
    let id = story["incident"]["id"].as_str().unwrap();
    let carrying = |record: &Value| record["execwatch"]["incident"] == id;
    assert!(daemon.alerts().iter().any(carrying));
    let notice = daemon.wait_for_record("the notice", |record| {
        record["execwatch"]["notice"] == "incident" && record["message"].as_str().unwrap().contains(id)
    });
    assert!(notice["message"].as_str().unwrap().contains("opened"), "{notice:#}");
    assert!(answer(&incidents(&folder, &["show", id])).contains("curl"));

    // It is acknowledged by way of the daemon, and closed without it.
    let text = answer(&incidents(&folder, &["ack", id, "--note", "I am on it", "--json"]));
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["state"], "acknowledged");
    drop(server);
    daemon.end_for_now();
    let text = answer(&incidents(&folder, &["close", id, "--verdict", "malicious"]));
    assert_eq!(text, format!("{id}: closed as malicious\n"));
    let archive = folder.join("incident.tar");
    let text = answer(&incidents(
        &folder,
        &["export", id, "-o", archive.to_str().unwrap(), "--with-files", "--json"],
    ));
    let written: Value = serde_json::from_str(&text).unwrap();
    let copied = json!(folder.join("tmp/.cache").to_str().unwrap());
    assert!(array(&written["files"]).contains(&copied), "{written:#}");
    let listing = Command::new("tar").arg("-tf").arg(&archive).output().unwrap();
    let listing = String::from_utf8(listing.stdout).unwrap();
    // The records are those that were sent, byte by byte, with their numbers.
    let records =
        Command::new("tar").arg("-xOf").arg(&archive).args(["--wildcards", "*/records.jsonl"]).output();
    let records = String::from_utf8(records.unwrap().stdout).unwrap();
    let sent = fs::read_to_string(folder.join("alerts.json")).unwrap();
    assert!(records.lines().count() >= 4 && records.contains("\"sequence\":"), "{records}");
    for record in records.lines() {
        assert!(sent.lines().any(|line| line == record), "{record}");
    }
    for part in ["story.json", "records.jsonl", "rules/", "-.cache"] {
        assert!(listing.contains(part), "{listing}");
    }
}

/// A rule of the severity high for what tests execute from their own folder, and nothing else that could alert.
const OWN: &str = "[[rule]]\nid = \"own\"\ntitle = \"A program of this test\"\nseverity = \"high\"\n\
                   [rule.select.program]\n\"exe|startswith\" = \"{dir}/bin/\"\n";

/// A daemon that sees only programs of the test.
fn start_alone<'m>(setup: Setup<'m>, more: &str) -> Daemon<'m> {
    let config = format!(
        "[rules]\nbuiltin = false\n[output.syslog]\nenabled = false\n[output.file]\npath = \"{{dir}}/alerts.json\"\n{more}"
    );
    setup.config(&config).rules(OWN).start()
}

/// A copy of the shell under a name that lets people or work in.
fn door(folder: &Path, name: &str) -> PathBuf {
    let door = folder.join(name);
    program::copy(Path::new("/bin/dash"), &door);
    door
}

/// Runs a text in a shell below a door, and waits for its end.
fn below(door: &Path, text: &str) {
    let text = format!("sh -c '{text}; :'; exit 0");
    let status = Command::new(door).arg("-c").arg(text).stdin(Stdio::null()).status().unwrap();
    assert!(status.success());
}

#[test]
fn two_intrusions_at_the_same_time_are_two_incidents() {
    let Some(machine) = Machine::alone() else { return };
    let daemon = start_alone(machine.daemon(), "");
    let folder = daemon.folder().to_owned();
    let (one, other) = (daemon.program("one"), daemon.program("other"));
    let (ssh, service) = (door(&folder, "sshd"), door(&folder, "supervise"));
    std::thread::scope(|scope| {
        for (door, program) in [(&ssh, &one), (&service, &other)] {
            let text = format!("{0} a; id > /dev/null; {0} b; {0} c", program.display());
            scope.spawn(move || below(door, &text));
        }
    });
    let both = wait_until("two incidents", || {
        let all = list(&folder, |_| true);
        (all.len() == 2 && all.iter().all(|story| story["incident"]["alerts"] == 3)).then_some(all)
    });
    for (program, entry) in [(&one, "an ssh session"), (&other, "a service")] {
        let is_it = |story: &&Value| told(story, "way_in", "entry").0.starts_with(entry);
        let story = both.iter().find(is_it).unwrap_or_else(|| panic!("{entry}: {both:#?}"));
        let text = story["timeline"].to_string();
        let name = program.to_str().unwrap();
        let alerts = array(&story["timeline"]).iter().filter(|moment| {
            moment["kind"] == "alert" && moment["text"].as_str().is_some_and(|text| text.contains(name))
        });
        assert_eq!(alerts.count(), 3, "{text}");
        assert!(array(&story["timeline"]).iter().any(|moment| moment["text"] == "id"), "{text}");
    }
    daemon.stop();
}

#[test]
fn an_intrusion_goes_on_over_a_daemon_that_was_killed_and_is_one_incident() {
    let Some(machine) = Machine::alone() else { return };
    let mut daemon = start_alone(machine.daemon(), "");
    let folder = daemon.folder().to_owned();
    let program = daemon.program("one").display().to_string();
    // A service with somebody in it, who stays.
    let service = door(&folder, "supervise");
    let mut command = Command::new(&service);
    let inside = "/bin/sh -c 'while read -r line; do eval \"$line\"; done; exit 0'; exit 0";
    let mut intruder = Killed(command.arg("-c").arg(inside).stdin(Stdio::piped()).spawn().unwrap());
    let mut typed = intruder.0.stdin.take().unwrap();
    let told_of = |count: u64| {
        wait_until("the alerts in one incident", || {
            let all = list(&folder, |_| true);
            assert!(all.len() <= 1, "{all:#?}");
            all.into_iter().next().filter(|story| story["incident"]["alerts"] == count)
        })
    };
    writeln!(typed, "{program} a; (exec sleep 1000) &").unwrap();
    let before = told_of(1);
    let sleeps = |story: &Value| {
        let all = array(&story["processes"]).to_vec();
        all.into_iter().find(|process| process["programs"].to_string().contains("sleep"))
    };
    wait_until("the program that goes on", || sleeps(&list(&folder, |_| true)[0]));
    daemon.kill();
    // What ends while nobody looks is told too.
    writeln!(typed, "kill $!; wait").unwrap();
    wait_until("it has ended", || {
        let pid = sleeps(&told_of(1)).unwrap()["pid"].as_u64().unwrap();
        (!Path::new(&format!("/proc/{pid}")).exists()).then_some(())
    });
    daemon.start_again();
    writeln!(typed, "{program} b; id > /dev/null; {program} c").unwrap();
    let after = told_of(3);
    assert_eq!(before["incident"]["id"], after["incident"]["id"]);
    assert_eq!(before["incident"]["first"], after["incident"]["first"]);
    let carried = daemon.wait_for_many(3, |alert| alert["execwatch"]["incident"] == before["incident"]["id"]);
    assert_eq!(carried.len(), 3);
    // The tree has one root still, what was executed between, and no number twice.
    let whole = wait_until("what was executed besides, and what ended", || {
        let story = list(&folder, |_| true).remove(0);
        let id = array(&story["timeline"]).iter().any(|moment| moment["text"] == "id");
        (id && !sleeps(&story)?["end_ns"].is_null()).then_some(story)
    });
    let processes = array(&whole["processes"]);
    assert_eq!(processes.iter().filter(|process| process["parent"].is_null()).count(), 1, "{processes:#?}");
    let keys: std::collections::BTreeSet<u64> =
        processes.iter().map(|process| process["key"].as_u64().unwrap()).collect();
    assert_eq!(keys.len(), processes.len());
    // What an administrator has closed does not go on.
    let id = whole["incident"]["id"].as_str().unwrap();
    answer(&incidents(&folder, &["close", id, "--verdict", "benign"]));
    daemon.kill();
    daemon.start_again();
    writeln!(typed, "{program} d").unwrap();
    wait_until("another incident", || (list(&folder, |_| true).len() == 2).then_some(()));
    daemon.stop();
}

#[test]
fn a_session_with_what_is_known_as_normal_is_no_incident() {
    let Some(machine) = Machine::alone() else { return };
    let daemon = start_alone(machine.daemon(), "[baseline]\nmode = \"learn\"\n");
    let folder = daemon.folder().to_owned();
    let ssh = door(&folder, "sshd");
    let session: Vec<String> =
        ["a", "b", "c", "d"].iter().map(|name| daemon.program(name).display().to_string()).collect();
    let session = session.join("; ");
    below(&ssh, &session);
    let first = wait_until("the incident of what is new", || list(&folder, |_| true).pop());
    assert!(first["incident"]["score"].as_u64().unwrap() >= 40);
    let baseline = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_execwatch"));
        command.arg("baseline").args(words).arg("--config").arg(folder.join("execwatch.toml"));
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    let ids = wait_until("four tuples", || {
        let text = baseline(&["list", "--json"]);
        let ids = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap().to_owned());
        Some(ids.collect::<Vec<_>>()).filter(|ids| ids.len() == 4)
    });
    baseline(&[&["approve"][..], &ids.iter().map(String::as_str).collect::<Vec<_>>()].concat());
    let known = |record: &Value| record["execwatch"]["baseline"]["state"] == "known";
    let mut sessions = 1;
    let mut again = || {
        below(&ssh, &session);
        sessions += 1;
        let of_session = |alert: &Value| session.contains(alert["process"]["executable"].as_str().unwrap());
        daemon.wait_for_many(4 * sessions, of_session).split_off(4 * (sessions - 1))
    };
    // The daemon takes approvals over within seconds, also amid a session.
    wait_until("a session that is known", || again().iter().all(known).then_some(()));
    let last = again();
    assert!(last.iter().all(|alert| known(alert) && alert["execwatch"]["incident"].is_null()), "{last:#?}");
    daemon.stop();
}

#[test]
fn somebody_is_told_once_when_an_incident_opens() {
    let Some(machine) = Machine::alone() else { return };
    let notify = "[incident.notify]\ncommand = [\"/usr/bin/tee\", \"-a\", \"{dir}/told\"]\n";
    let daemon = start_alone(machine.daemon(), notify);
    let folder = daemon.folder().to_owned();
    let (service, program) = (door(&folder, "supervise"), daemon.program("one"));
    below(&service, &format!("{0} a; {0} b", program.display()));
    daemon.wait_for_many(2, |_| true);
    let text = wait_until("a notification", || {
        fs::read_to_string(folder.join("told")).ok().filter(|text| text.ends_with('\n'))
    });
    let told: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(told.len(), 1, "{text}");
    assert_eq!((&told[0]["event"], &told[0]["incident"]["severity"]), (&"opened".into(), &"high".into()));
    let ended = daemon.stop();
    let notices = ended.records.iter().filter(|record| record["execwatch"]["notice"] == "incident").count();
    assert_eq!(notices, 1);
}

#[test]
fn a_command_that_hangs_is_killed_and_that_is_said() {
    let Some(machine) = Machine::alone() else { return };
    let notify = "[incident.notify]\ncommand = [\"/bin/sleep\", \"1000\"]\ntime-limit = \"200ms\"\n";
    let daemon = start_alone(machine.daemon(), notify);
    let (service, program) = (door(daemon.folder(), "supervise"), daemon.program("one"));
    below(&service, &program.display().to_string());
    daemon.wait_for_record("that it was killed", |record| {
        record["message"]
            .as_str()
            .is_some_and(|text| text.contains("/bin/sleep took longer than 200ms and was killed"))
    });
    daemon.stop();
}

#[test]
fn a_damaged_database_is_moved_aside_and_a_missing_one_is_said() {
    let Some(machine) = Machine::alone() else { return };
    let setup = machine.daemon();
    let folder = setup.folder();
    fs::create_dir(folder.join("state")).unwrap();
    fs::write(
        folder.join("state/incidents.db"),
        "no database at all, but longer than a header of one".repeat(9),
    )
    .unwrap();
    let daemon = start_alone(setup, "");
    daemon.wait_for_message("an empty one takes its place");
    let (service, program) = (door(&folder, "supervise"), daemon.program("one"));
    below(&service, &program.display().to_string());
    let story = wait_until("an incident", || list(&folder, |_| true).pop());
    assert_eq!(story["incident"]["alerts"], 1);
    daemon.stop();
}

#[test]
fn a_small_disk_is_left_to_alerts() {
    let Some(machine) = Machine::alone() else { return };
    let setup = machine.daemon();
    let Some(disk) = Disk::mount(&setup.folder().join("state"), "size=10m") else { return };
    let daemon = start_alone(setup, "");
    let (service, program) = (door(daemon.folder(), "supervise"), daemon.program("one"));
    let filling = disk.fill_but(600 << 10);
    below(&service, &program.display().to_string());
    let said = daemon.wait_for_message("the incidents cannot be written");
    assert!(said.contains(" KiB of 10240 are left of the file system"), "{said}");
    daemon.wait_for(|_| true);
    assert!(!daemon.stderr().contains("the journal cannot be written"), "{}", daemon.stderr());
    fs::remove_file(filling).unwrap();
    daemon.wait_for_message("the incidents are written again");
    let story = wait_until("the incident", || list(daemon.folder(), |_| true).pop());
    assert_eq!(story["incident"]["alerts"], 1);
    // More than a quarter of the disk.
    let argument = "x".repeat(4000);
    below(&service, &format!("for i in $(seq 300); do {} {argument}; done", program.display()));
    daemon.wait_for_message("removed, by age or because the database was full");
    daemon.stop();
}

#[test]
fn without_a_database_there_is_a_message() {
    let folder = tempfile::tempdir().unwrap();
    let config = format!("[state]\nfolder = \"{}\"\n", folder.path().display());
    fs::write(folder.path().join("execwatch.toml"), config).unwrap();
    let output = incidents(folder.path(), &["list"]);
    assert_eq!(output.status.code(), Some(66));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("the daemon keeps the incidents there, unless"),
        "{output:?}"
    );
}

/// Only where nobody listens is there no daemon. One that does not answer may still write what it was asked.
#[test]
fn nothing_is_written_behind_a_daemon_that_does_not_answer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let (run, id) = (path.join("run"), id_text(1_000_000));
    let config =
        format!("[state]\nfolder = \"{}\"\nruntime-folder = \"{}\"\n", path.display(), run.display());
    fs::write(path.join("execwatch.toml"), config).unwrap();
    fs::create_dir(&run).unwrap();
    let head = Head { id: id.clone(), title: "one".into(), alerts: 1, ..Head::default() };
    Store::create(path).unwrap().write(&[head], &[], u64::MAX).unwrap();
    let state = || story(path, &id)["incident"]["state"].clone();
    let socket = UnixListener::bind(run.join("control.sock")).unwrap();
    let daemon = std::thread::spawn(move || {
        // Closed with the rest of the request unread, so that whoever asks is told of a reset.
        let (mut stream, _) = socket.accept().unwrap();
        stream.read_exact(&mut [0]).unwrap();
    });
    let output = incidents(path, &["ack", &id]);
    daemon.join().unwrap();
    assert_eq!(output.status.code(), Some(69), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("nothing was written here"), "{said}");
    assert_eq!(state(), "open");
    // Its socket is left, and nobody listens.
    assert_eq!(answer(&incidents(path, &["ack", &id])), format!("{id}: acknowledged\n"));
    assert_eq!(state(), "acknowledged");
}

#[test]
fn many_incidents_are_listed_and_shown() {
    const INCIDENTS: u64 = 1000;
    const ALERTS: u64 = 100;
    let folder = tempfile::tempdir().unwrap();
    let config = format!("[state]\nfolder = \"{}\"\n", folder.path().display());
    fs::write(folder.path().join("execwatch.toml"), config).unwrap();
    let mut store = Store::create(folder.path()).unwrap();
    for number in 0..INCIDENTS {
        let id = id_text(1_000_000 + number);
        let head =
            Head { id: id.clone(), last_ns: number, title: "many".into(), alerts: ALERTS, ..Head::default() };
        let thing = |at: u64| {
            let alert = KeptAlert {
                id: format!("{number}-{at}"),
                pid: 7,
                at_ns: at,
                args: vec!["nc".into(), "10.0.0.1".into(), at.to_string()],
                rule: "rule".into(),
                ..KeptAlert::default()
            };
            let record = Some(format!("{{\"padding\":\"{}\"}}", "x".repeat(2000)));
            (id.clone(), Thing { item: Item::Alert(Box::new(alert)), record })
        };
        let things: Vec<(String, Thing)> = (0..ALERTS).map(thing).collect();
        store.write(&[head], &things, u64::MAX).unwrap();
    }
    drop(store);
    let timed = |words: &[&str]| {
        let begun = Instant::now();
        let text = answer(&incidents(folder.path(), words));
        (text, begun.elapsed())
    };
    let (listed, list_time) = timed(&["list"]);
    assert_eq!(listed.lines().count() as u64, INCIDENTS + 1);
    let (shown, show_time) = timed(&["show", &id_text(1_000_500), "--json"]);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(array(&shown["timeline"]).len() as u64, ALERTS);
    support::say(&format!("1,000 incidents with 100,000 alerts: list {list_time:?}, show {show_time:?}"));
}
