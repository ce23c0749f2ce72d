//! Every record arrives at every output, in order, whatever is killed: the daemon, its receivers, the journal's disk.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod support;

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::disk::Disk;
use support::{Daemon, Machine, Setup, installed, say, wait_until};

/// Alerts to a syslog socket and to a file.
const BOTH: &str = "[rules]\nbuiltin = false\n[follow]\nenabled = false\n[baseline]\nmode = \"off\"\n\
                    [output.syslog]\nsocket = \"{dir}/log\"\n[output.file]\npath = \"{dir}/alerts.json\"\n";

/// A record as a receiver got it: its number, its id and its text.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Received {
    number: u64,
    id: String,
    text: String,
}

impl Received {
    fn of_text(text: &str) -> Received {
        let (_, rest) = text.rsplit_once("record=").unwrap_or_else(|| panic!("no id: {text}"));
        let id = rest.split_whitespace().next().unwrap().to_owned();
        let number = id.split_once('-').unwrap().1.parse().unwrap();
        // Priority, tag and pid stand before it.
        let text = text.split_once(": ").unwrap().1.to_owned();
        Received { number, id, text }
    }

    fn of_json(line: &str) -> Received {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        let number = value["event"]["sequence"].as_u64().unwrap();
        Received {
            number,
            id: value["execwatch"]["record"].as_str().unwrap().to_owned(),
            text: line.to_owned(),
        }
    }
}

/// What was received is in order and without gaps; repeats begin anew at an earlier record, and are the same. Returns
/// the number of the last, and how many came more than once.
fn check(what: &str, received: &[Received]) -> (u64, usize) {
    let mut first: HashMap<u64, &Received> = HashMap::new();
    let (mut highest, mut before, mut repeats) = (0, 0, 0);
    for record in received {
        let number = record.number;
        if let Some(known) = first.get(&number) {
            assert_eq!(*known, record, "{what}: a repeat is not the same");
            repeats += 1;
        } else {
            assert_eq!(number, highest + 1, "{what}: after {highest} came {number}");
            highest = number;
            first.insert(number, record);
        }
        assert!(number == before + 1 || number <= before, "{what}: {number} after {before}");
        before = number;
    }
    (highest, repeats)
}

/// A syslog server that keeps what it gets, and can be stopped and started anew.
struct Receiver {
    path: PathBuf,
    received: Arc<Mutex<Vec<Received>>>,
    reading: Option<(Arc<AtomicBool>, JoinHandle<()>)>,
}

impl Receiver {
    fn start(path: &Path) -> Receiver {
        let mut receiver = Receiver { path: path.to_owned(), received: Arc::default(), reading: None };
        receiver.again();
        receiver
    }

    /// Makes the socket and reads it.
    fn again(&mut self) {
        let _ = fs::remove_file(&self.path);
        let socket = UnixDatagram::bind(&self.path).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let end = Arc::new(AtomicBool::new(false));
        let (ended, received) = (Arc::clone(&end), Arc::clone(&self.received));
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 65536];
            while !ended.load(Relaxed) {
                if let Ok(length) = socket.recv(&mut buffer) {
                    let text = String::from_utf8_lossy(&buffer[..length]);
                    received.lock().unwrap().push(Received::of_text(&text));
                }
            }
        });
        self.reading = Some((end, thread));
    }

    /// Is gone, with whatever its socket holds unread.
    fn stop(&mut self) {
        if let Some((end, thread)) = self.reading.take() {
            end.store(true, Relaxed);
            thread.join().unwrap();
        }
    }

    fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    fn count(&self) -> usize {
        self.received.lock().unwrap().len()
    }

    fn highest(&self) -> u64 {
        self.received.lock().unwrap().iter().map(|record| record.number).max().unwrap_or(0)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop();
    }
}

fn file(daemon: &Daemon<'_>) -> Vec<Received> {
    let text = fs::read_to_string(daemon.folder().join("alerts.json")).unwrap_or_default();
    // kill -9 may leave a line that was not written to its end; the repetition begins a new one behind it.
    let whole = |line: &&str| line.ends_with('}') && serde_json::from_str::<serde_json::Value>(line).is_ok();
    text.lines().filter(whole).map(Received::of_json).collect()
}

/// Programs that are executed all the time, by some threads.
struct Storm {
    end: Arc<AtomicBool>,
    executed: Arc<AtomicU32>,
    threads: Vec<JoinHandle<()>>,
}

impl Storm {
    fn start(program: &Path, threads: usize, most: u32) -> Storm {
        let (end, executed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let run = |_| {
            let (end, executed, program) = (Arc::clone(&end), Arc::clone(&executed), program.to_owned());
            std::thread::spawn(move || {
                while !end.load(Relaxed) && executed.fetch_add(1, Relaxed) < most {
                    Command::new(&program).status().unwrap();
                }
            })
        };
        Storm { threads: (0..threads).map(run).collect(), end, executed }
    }

    fn count(&self) -> u32 {
        self.executed.load(Relaxed)
    }

    fn stop(self) {
        self.end.store(true, Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

/// A generator of Marsaglia's (xorshift64), begun with the time: which moments were bad is said by the test's output.
struct Random(u64);

impl Random {
    fn new() -> Random {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        Random(now.as_nanos() as u64 | 1)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// The daemon is killed again and again in a storm of alerts, and its receiver restarted: nothing that was given a number
/// is missing anywhere, nothing is out of order, and repeats are the same.
fn killed(kills: u64, restarts: u64, alerts: u32) {
    let Some(machine) = Machine::alone() else { return };
    machine.on_every_cpu();
    let setup = machine.daemon().config(BOTH);
    let program = setup.tiny("tool");
    let mut receiver = Receiver::start(&setup.folder().join("log"));
    let mut daemon = setup.start();
    let mut random = Random::new();
    let storm = Storm::start(&program, 2, u32::MAX);
    let share = u64::from(alerts) / (kills + restarts);
    let (mut killed, mut restarted) = (0, 0);
    while killed + restarted < kills + restarts {
        let before = receiver.count() as u64;
        let wanted = before + share / 2 + random.below(share);
        let more =
            support::within(support::DEADLINE * 3, || (receiver.count() as u64 >= wanted).then_some(()));
        assert!(
            more.is_some(),
            "{} records came, {wanted} were waited for:\n{}",
            receiver.count(),
            daemon.stderr()
        );
        std::thread::sleep(Duration::from_micros(random.below(3000)));
        if random.below(kills + restarts - killed - restarted) < kills - killed {
            daemon.kill();
            daemon.start_again();
            killed += 1;
        } else {
            receiver.stop();
            std::thread::sleep(Duration::from_millis(random.below(100)));
            receiver.again();
            restarted += 1;
        }
    }
    wait_until("all alerts", || {
        (receiver.count() >= alerts as usize || storm.count() > alerts).then_some(())
    });
    let executed = storm.count();
    storm.stop();
    // An output that is well has no reason to be behind for long.
    let mut last = 0;
    wait_until("the receiver to be up to date", || {
        let highest = receiver.highest();
        let in_file = file(&daemon).last().map_or(0, |record| record.number);
        let done = highest == last && highest == in_file;
        last = highest;
        std::thread::sleep(Duration::from_millis(200));
        done.then_some(())
    });
    let ended = daemon.end_for_now();
    receiver.stop();
    let received = receiver.received();
    let (last, repeats) = check("syslog", &received);
    let (last_in_file, repeats_in_file) = check("file", &file(&daemon));
    assert_eq!(last, last_in_file, "{ended}");
    assert_eq!(ended.matches(" lost=0 waiting=0").count(), 2, "{ended}");
    say(&format!(
        "{killed} times kill -9, {restarted} receiver restarts, {executed} programs: {last} records, none lost or out of \
         order, {repeats} repeats at syslog, {repeats_in_file} in the file"
    ));
}

#[test]
fn kill_9_in_a_storm_of_alerts() {
    killed(8, 4, 5000);
}

/// `cargo test --test delivery -- --ignored`: some minutes.
#[test]
#[ignore = "takes minutes"]
fn kill_9_at_50_moments_among_100_000_alerts() {
    killed(50, 20, 100_000);
}

fn execute(program: &Path, count: usize) {
    /// At once, since each stays for a moment.
    const TOGETHER: usize = 50;
    let numbers: Vec<usize> = (0..count).collect();
    for some in numbers.chunks(TOGETHER) {
        let start = |number: &usize| Command::new(program).arg(format!("n{number}")).spawn().unwrap();
        let children: Vec<Child> = some.iter().map(start).collect();
        for mut child in children {
            child.wait().unwrap();
        }
    }
}

/// The server that hangs is not waited for by anybody, and gets everything when it goes on.
#[test]
fn a_server_that_is_stopped_and_goes_on() {
    let Some(machine) = Machine::alone() else { return };
    let Some(program) = installed("rsyslogd") else { return };
    let setup = machine.daemon().config(BOTH);
    let (folder, tool) = (setup.folder(), setup.program("tool"));
    let mut rsyslog = Rsyslog::start(&program, &folder);
    let daemon = setup.start();
    execute(&tool, 20);
    wait_until("rsyslog's file", || (rsyslog.highest() >= 20).then_some(()));
    rsyslog.signal(Signal::SIGSTOP);
    execute(&tool, 1000);
    // The file is an output too.
    daemon.wait_for_many(1020, |_| true);
    rsyslog.signal(Signal::SIGCONT);
    wait_until("the rest", || (rsyslog.highest() >= 1020).then_some(()));
    // Killed and started again.
    rsyslog.kill();
    execute(&tool, 100);
    daemon.wait_for_many(1120, |_| true);
    rsyslog = Rsyslog::start(&program, &folder);
    wait_until("the last", || (rsyslog.highest() >= 1120).then_some(()));
    // The daemon's folder ends with it.
    let received = rsyslog.received();
    let ended = daemon.stop();
    let (last, _) = check("rsyslog", &received);
    assert!(last >= 1120, "{last}: {}", ended.stderr);
    assert_eq!(ended.stderr.matches(" lost=0 waiting=0").count(), 2, "{}", ended.stderr);
}

/// What waits when the daemon is stopped is sent when it runs again, and called waiting, not lost.
#[test]
fn what_waits_survives_an_orderly_restart() {
    let Some(machine) = Machine::alone() else { return };
    let setup = machine.daemon().config(BOTH);
    let tool = setup.program("tool");
    let log = setup.folder().join("log");
    let mut receiver = Receiver::start(&log);
    let mut daemon = setup.start();
    execute(&tool, 5);
    wait_until("the first", || (receiver.count() >= 5).then_some(()));
    receiver.stop();
    execute(&tool, 30);
    daemon.wait_for_many(35, |_| true);
    let said = daemon.end_for_now();
    assert!(said.contains("records wait in the journal for output syslog"), "{said}");
    assert_eq!(said.matches(" lost=0 waiting=").count(), 2, "{said}");
    receiver.again();
    daemon.start_again();
    daemon.wait_for_message("goes on where it was");
    wait_until("what waited", || (receiver.highest() >= 35).then_some(()));
    execute(&tool, 1);
    wait_until("the new", || (receiver.highest() >= 36).then_some(()));
    daemon.stop();
    let (last, _) = check("syslog", &receiver.received());
    assert!(last >= 36);
}

fn on_small_disk<'m>(machine: &'m Machine, options: &str) -> Option<(Disk, Setup<'m>)> {
    let setup = machine.daemon().config(BOTH);
    let disk = Disk::mount(&setup.folder().join("state"), options)?;
    Some((disk, setup))
}

/// The disk of the journal fills up: records are kept in memory, that is said, and nothing is lost.
#[test]
fn the_journals_disk_is_full() {
    let Some(machine) = Machine::alone() else { return };
    let Some((disk, setup)) = on_small_disk(&machine, "size=300k") else { return };
    let tool = setup.program("tool");
    let mut receiver = Receiver::start(&setup.folder().join("log"));
    let daemon = setup.start();
    receiver.stop();
    execute(&tool, 200);
    let said = daemon.wait_for_message("the journal cannot be written");
    assert!(said.contains("No space left"), "{said}");
    daemon.wait_for_record("that", |record| record["execwatch"]["notice"] == "journal-failed");
    // There is room again.
    disk.remount("size=20m");
    daemon.wait_for_message("can be written again");
    receiver.again();
    wait_until("all", || (receiver.highest() > 200).then_some(()));
    wait_until("the last word", || {
        receiver.received().iter().any(|it| it.text.contains("journal-works-again")).then_some(())
    });
    daemon.stop();
    check("syslog", &receiver.received());
}

/// The disk of the alerts fills up within a line, which is ended when there is room again.
#[test]
fn the_disk_of_the_file_is_full() {
    let Some(machine) = Machine::alone() else { return };
    let config = BOTH.replace("{dir}/alerts.json", "{dir}/small/alerts.json");
    let setup = machine.daemon().config(&config);
    let Some(disk) = Disk::mount(&setup.folder().join("small"), "size=64k") else { return };
    let (tool, file) = (setup.program("tool"), setup.folder().join("small/alerts.json"));
    let daemon = setup.start();
    execute(&tool, 100);
    let said = daemon.wait_for_message("output file");
    assert!(said.contains("No space left"), "{said}");
    let full = fs::read(&file).unwrap_or_else(|error| panic!("{error}: {}", daemon.stderr()));
    assert!(full.len() == 65_536 && !full.ends_with(b"\n"), "{}", full.len());
    disk.remount("size=20m");
    let lines = || fs::read_to_string(&file).unwrap();
    let text = wait_until("all", || {
        let text = lines();
        (text.lines().filter(|line| line.contains("\"alert\"")).count() == 100).then_some(text)
    });
    daemon.stop();
    let received: Vec<Received> = text.lines().map(Received::of_json).collect();
    assert_eq!(check("file", &received).1, 0);
}

/// Nobody may hang the output by a FIFO that nobody reads.
#[test]
fn a_fifo_is_no_file() {
    let Some(machine) = Machine::alone() else { return };
    let config = BOTH.replace("{dir}/alerts.json", "{dir}/fifo");
    let setup = machine.daemon().config(&config);
    let fifo = setup.folder().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let tool = setup.program("tool");
    let daemon = setup.start();
    execute(&tool, 1);
    let refused = |said: &str| said.contains("it is neither a file nor a terminal");
    assert!(refused(&daemon.wait_for_message("output file")));
    // Nor by one that somebody opens.
    let reader = fs::OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
    fs::remove_file(&fifo).unwrap();
    wait_until("a file", || fs::read_to_string(&fifo).ok().filter(|text| text.contains("tool")));
    drop(reader);
    daemon.stop();
}

#[test]
fn the_journals_disk_is_read_only() {
    let Some(machine) = Machine::alone() else { return };
    let Some((disk, setup)) = on_small_disk(&machine, "size=20m") else { return };
    let tool = setup.program("tool");
    let mut receiver = Receiver::start(&setup.folder().join("log"));
    receiver.stop();
    let mut daemon = setup.start();
    execute(&tool, 10);
    daemon.wait_for_many(10, |_| true);
    daemon.end_for_now();
    // What it holds can still be sent.
    disk.remount("ro");
    receiver.again();
    daemon.start_again();
    let said = daemon.wait_for_message("the journal in");
    assert!(said.contains("Read-only file system") && said.contains("in memory only"), "{said}");
    execute(&tool, 10);
    wait_until("all", || (receiver.highest() > 20).then_some(()));
    daemon.stop();
    let (last, _) = check("syslog", &receiver.received());
    assert!(last > 20, "ten and ten and what it said");
}

#[test]
fn the_journal_is_for_root_alone() {
    let Some(machine) = Machine::shared() else { return };
    let setup = machine.daemon().config(BOTH);
    let tool = setup.program("tool");
    let daemon = setup.start();
    execute(&tool, 1);
    daemon.wait_for(|_| true);
    let journal = daemon.folder().join("state/journal");
    let mut seen = 0;
    for folder in [journal.clone(), journal.join("positions")] {
        assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o7777, 0o700);
        for entry in fs::read_dir(folder).unwrap() {
            let metadata = entry.unwrap().metadata().unwrap();
            seen += u32::from(metadata.is_file());
            assert!(metadata.is_dir() || metadata.mode() & 0o7777 == 0o600);
        }
    }
    assert!(seen >= 3, "a segment and two positions");
    daemon.stop();
}

/// rsyslog, ended by its pid.
struct Rsyslog {
    child: Child,
    folder: PathBuf,
}

impl Rsyslog {
    fn start(program: &Path, folder: &Path) -> Self {
        let configuration = folder.join("rsyslog.conf");
        let shown = folder.display();
        let text = format!(
            "global(workDirectory=\"{shown}\")\n\
             module(load=\"imuxsock\" SysSock.Use=\"off\")\n\
             input(type=\"imuxsock\" Socket=\"{shown}/log\" CreatePath=\"on\" RateLimit.Interval=\"0\")\n\
             template(name=\"whole\" type=\"string\" string=\"%syslogtag%%msg%\\n\")\n\
             action(type=\"omfile\" file=\"{shown}/received\" template=\"whole\" asyncWriting=\"off\" flushOnTXEnd=\"on\")\n"
        );
        fs::write(&configuration, text).unwrap();
        let _ = fs::remove_file(folder.join("log"));
        let mut command = Command::new(program);
        command.args(["-n", "-i", "NONE", "-f"]).arg(&configuration);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_until("rsyslog's socket", || folder.join("log").exists().then_some(()));
        Rsyslog { child, folder: folder.to_owned() }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    fn kill(&mut self) {
        // Both do nothing to a child that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn highest(&self) -> u64 {
        self.received().iter().map(|record| record.number).max().unwrap_or(0)
    }

    fn received(&self) -> Vec<Received> {
        let text = fs::read_to_string(self.folder.join("received")).unwrap_or_default();
        // The last line may not be written to its end yet.
        let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        whole.map(|line| Received::of_text(line.trim_end())).collect()
    }
}

impl Drop for Rsyslog {
    fn drop(&mut self) {
        self.kill();
    }
}
