//! A daemon under test: set up, started, watched, ended.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use super::{DEADLINE, Machine, program, wait_until, within};

/// The line that the daemon writes when no exec is missed any more.
const LISTENING: &str = "listening: ";

/// The rule that tests have unless they bring their own: everything executed from the test's own folder of programs.
const OWN_PROGRAMS: &str = r#"
[[rule]]
id = "own-programs"
title = "A program of this test"
severity = "low"
[rule.select.program]
"exe|startswith" = "{dir}/bin/"
"#;

/// Microseconds that a real-time thread of the daemon may run without blocking before the kernel kills the daemon
/// (RLIMIT_RTTIME, setrlimit(2)): a listener that spins cannot starve the machine.
const SPIN_LIMIT_US: u32 = 5_000_000;

/// How long a daemon that a failed test leaves may take to end before it is killed.
const CLOSING_TIME: Duration = Duration::from_secs(6);

/// A daemon to be set up. `{dir}` in any text stands for the daemon's own folder.
pub(crate) struct Setup<'m> {
    machine: &'m Machine,
    folder: TempDir,
    capture: String,
    config: Option<String>,
    rules: String,
    arguments: Vec<String>,
    under: Vec<String>,
    environment: Vec<(String, String)>,
}

impl<'m> Setup<'m> {
    pub(super) fn new(machine: &'m Machine) -> Self {
        let folder = tempfile::Builder::new().prefix("execwatch-test-").tempdir().unwrap();
        // Other users execute programs in it.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["bin", "rules"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        Setup {
            machine,
            folder,
            capture: String::new(),
            config: None,
            rules: OWN_PROGRAMS.to_owned(),
            arguments: Vec::new(),
            under: Vec::new(),
            environment: Vec::new(),
        }
    }

    /// Adds a line to `[capture]`.
    pub(crate) fn capture(mut self, line: &str) -> Self {
        self.capture += line;
        self.capture.push('\n');
        self
    }

    /// Takes the place of the whole configuration, which otherwise switches the built-in rules and syslog off and
    /// writes JSON to `{dir}/alerts.json`. [`Daemon::alerts`] reads that file. State is kept in `{dir}/state` unless the
    /// text says otherwise.
    pub(crate) fn config(mut self, text: &str) -> Self {
        self.config = Some(text.to_owned());
        self
    }

    /// Takes the place of the rules, which otherwise match every program in `{dir}/bin/` (see [`Daemon::program`]).
    pub(crate) fn rules(mut self, text: &str) -> Self {
        self.rules = text.to_owned();
        self
    }

    /// Adds an argument to `execwatch run`.
    pub(crate) fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Lets a program with its arguments start the daemon: `&["taskset", "-c", "0"]`. It must become the daemon with
    /// execve, except for [`run_to_end`](Self::run_to_end).
    pub(crate) fn under(mut self, words: &[&str]) -> Self {
        self.under.extend(words.iter().map(|word| (*word).to_owned()));
        self
    }

    /// Sets a variable of the daemon's environment.
    pub(crate) fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The daemon's own folder, with links resolved as the kernel gives paths.
    pub(crate) fn folder(&self) -> PathBuf {
        self.folder.path().canonicalize().unwrap()
    }

    /// A program in the daemon's folder, before the start; see [`Daemon::program`].
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        program::brief(&self.folder().join("bin").join(name))
    }

    /// A program in the daemon's folder, before the start; see [`Daemon::tiny`].
    pub(crate) fn tiny(&self, name: &str) -> PathBuf {
        program::tiny(&self.folder().join("bin").join(name))
    }

    /// Starts the daemon and waits until it listens.
    pub(crate) fn start(self) -> Daemon<'m> {
        self.try_start()
            .unwrap_or_else(|ended| panic!("the daemon ended ({:?}):\n{}", ended.code, ended.stderr))
    }

    /// Starts the daemon and waits until it listens, or has ended because it cannot.
    pub(crate) fn try_start(self) -> Result<Daemon<'m>, Ended> {
        let mut daemon = self.spawn();
        match daemon.messages.wait_for_or_end(|line| line.contains(LISTENING)) {
            Some(_) => Ok(daemon),
            None => {
                let status = daemon.wait_for_end();
                Err(daemon.ended(status))
            }
        }
    }

    /// Starts the daemon and waits until it ends by itself, as it does where it cannot work.
    pub(crate) fn run_to_end(self) -> Ended {
        let mut daemon = self.spawn();
        let status = daemon.wait_for_end();
        daemon.ended(status)
    }

    fn spawn(self) -> Daemon<'m> {
        let folder = self.folder();
        let fill = |text: &str| text.replace("{dir}", folder.to_str().unwrap());
        let capture = &self.capture;
        let mut config = self.config.clone().unwrap_or_else(|| {
            format!(
                "[capture]\n{capture}\n[rules]\nbuiltin = false\n[output.syslog]\nenabled = false\n\
                 [output.file]\npath = \"{{dir}}/alerts.json\"\n"
            )
        });
        // What tests do again and again is to be told each time.
        if !config.contains("[fold]") {
            config += "\n[fold]\nenabled = false\n";
        }
        fs::write(folder.join("execwatch.toml"), fill(&with_own_places(&config))).unwrap();
        fs::write(folder.join("rules/test.toml"), fill(&self.rules)).unwrap();
        // Both become the next program with execve, so that the child's pid is the daemon's. The first also ends the
        // daemon with this process, should it be killed.
        let spin_limit = format!("--rttime={SPIN_LIMIT_US}");
        let guards = ["setpriv", "--pdeathsig", "KILL", "prlimit", &spin_limit];
        let mut words: Vec<String> = guards.map(str::to_owned).to_vec();
        words.extend(self.under.iter().map(|word| fill(word)));
        let own = ["{daemon}", "run", "--config", "{dir}/execwatch.toml", "--rules", "{dir}/rules"];
        words.extend(own.map(|word| fill(&word.replace("{daemon}", env!("CARGO_BIN_EXE_execwatch")))));
        words.extend(self.arguments.iter().map(|argument| fill(argument)));
        let (child, messages, reader) = launch(&words, &self.environment, &folder);
        Daemon {
            _machine: self.machine,
            alerts: RefCell::new(AlertFile::new(folder.join("alerts.json"))),
            folder,
            _temporary: self.folder,
            words,
            environment: self.environment,
            child,
            messages,
            reader: Some(reader),
        }
    }
}

/// Starts a process and reads its standard error.
fn launch(
    words: &[String],
    environment: &[(String, String)],
    folder: &Path,
) -> (Child, Arc<Messages>, JoinHandle<()>) {
    let mut command = Command::new(&words[0]);
    command
        .args(&words[1..])
        .env_remove("EXECWATCH_LOG")
        .envs(environment.iter().cloned())
        .stdin(Stdio::null())
        .stdout(fs::File::create(folder.join("stdout")).unwrap())
        .stderr(Stdio::piped());
    // By this thread, whose end would end the daemon (PR_SET_PDEATHSIG, prctl(2)), but on every CPU.
    let mut child = super::with_every_cpu(|| command.spawn().unwrap());
    let stderr = child.stderr.take().unwrap();
    let messages = Arc::new(Messages::default());
    let reader = std::thread::spawn({
        let messages = Arc::clone(&messages);
        move || messages.read(stderr)
    });
    (child, messages, reader)
}

/// Gives a configuration the daemon's own folders, where it names no others: daemons of tests run at the same time.
pub(crate) fn with_own_places(config: &str) -> String {
    let mut places = String::new();
    for (key, folder) in [("folder", "state"), ("runtime-folder", "run")] {
        if !config.lines().any(|line| line.starts_with(&format!("{key} = "))) {
            places += &format!("{key} = \"{{dir}}/{folder}\"\n");
        }
    }
    match config.split_once("[state]\n") {
        Some((before, after)) => format!("{before}[state]\n{places}{after}"),
        None => format!("{config}\n[state]\n{places}"),
    }
}

/// A running daemon. It is killed when this is dropped before [`stop`](Self::stop).
pub(crate) struct Daemon<'m> {
    _machine: &'m Machine,
    folder: PathBuf,
    _temporary: TempDir,
    words: Vec<String>,
    environment: Vec<(String, String)>,
    child: Child,
    messages: Arc<Messages>,
    reader: Option<JoinHandle<()>>,
    alerts: RefCell<AlertFile>,
}

/// What an ended daemon left.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The exit code; `None` if a signal ended it.
    pub(crate) code: Option<i32>,
    /// Everything it wrote to standard error.
    pub(crate) stderr: String,
    /// Its last totals; empty if it wrote none.
    pub(crate) totals: Totals,
    /// Everything in `{dir}/alerts.json`, notices included.
    pub(crate) records: Vec<Value>,
}

impl Ended {
    /// The alerts that `wanted` picks.
    pub(crate) fn alerts(&self, wanted: impl Fn(&Value) -> bool) -> Vec<&Value> {
        self.records.iter().filter(|record| is_alert(record) && wanted(record)).collect()
    }
}

impl Daemon<'_> {
    /// Process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The daemon's own folder, with links resolved as the kernel gives paths.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes a program that stays for a moment, `bin/NAME` in the daemon's folder, which the default rule matches.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        program::brief(&self.folder.join("bin").join(name))
    }

    /// As [`program`](Self::program), but it ends at once: a test that executes it must allow for some that have gone.
    pub(crate) fn tiny(&self, name: &str) -> PathBuf {
        program::tiny(&self.folder.join("bin").join(name))
    }

    /// Where the daemon can be asked.
    pub(crate) fn control(&self) -> PathBuf {
        self.folder.join("run/control.sock")
    }

    /// Runs `execwatch status` with these arguments: exit code, standard output and standard error.
    pub(crate) fn status(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_execwatch"));
        command.args(["status", "--socket"]).arg(self.control()).args(arguments);
        let output = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    /// The status, asked for at the socket: no program is executed for that.
    pub(crate) fn status_json(&self) -> Value {
        let mut stream = UnixStream::connect(self.control()).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(b"{\"command\":\"status\"}\n").unwrap();
        let mut answer: Value = serde_json::from_reader(stream).unwrap();
        answer["result"].take()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// Every alert so far.
    pub(crate) fn alerts(&self) -> Vec<Value> {
        let mut file = self.alerts.borrow_mut();
        file.read_on();
        file.records.iter().filter(|record| is_alert(record)).cloned().collect()
    }

    /// Waits for an alert that `wanted` picks; an earlier one will do.
    pub(crate) fn wait_for(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        self.wait_for_many(1, wanted).remove(0)
    }

    /// Waits until `wanted` has picked `count` alerts or more, and returns them.
    pub(crate) fn wait_for_many(&self, count: usize, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
        let found = || {
            let mut file = self.alerts.borrow_mut();
            file.read_on();
            file.records.iter().filter(|record| is_alert(record) && wanted(record)).count()
        };
        let enough = within(DEADLINE, || (found() >= count).then_some(()));
        if enough.is_none() {
            panic!(
                "{} of {count} alerts came; the daemon said:\n{}\nthe last of its alerts:\n{:#?}",
                found(),
                self.messages.text(),
                self.alerts().last()
            );
        }
        self.alerts().into_iter().filter(wanted).collect()
    }

    /// Every record so far: alerts, follow-ups and notices.
    pub(crate) fn records(&self) -> Vec<Value> {
        let mut file = self.alerts.borrow_mut();
        file.read_on();
        file.records.clone()
    }

    /// Waits for a record of any kind that `wanted` picks; an earlier one will do.
    pub(crate) fn wait_for_record(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let found = within(DEADLINE, || self.records().into_iter().find(|record| wanted(record)));
        found.unwrap_or_else(|| {
            panic!(
                "no record of {what} came; the daemon said:\n{}\n{:#?}",
                self.messages.text(),
                self.records()
            )
        })
    }

    /// Waits for a line on the daemon's standard error that contains `part`; an earlier one will do.
    pub(crate) fn wait_for_message(&self, part: &str) -> String {
        let line = self.messages.wait_for_or_end(|line| line.contains(part));
        line.unwrap_or_else(|| panic!("«{part}» was not said:\n{}", self.messages.text()))
    }

    /// What the daemon has written to standard error so far.
    pub(crate) fn stderr(&self) -> String {
        self.messages.text()
    }

    /// What the daemon has written to standard output so far.
    pub(crate) fn stdout(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.folder.join("stdout")).unwrap()).into_owned()
    }

    /// Asks for the totals with SIGUSR1.
    pub(crate) fn totals(&self) -> Totals {
        let before = self.messages.all_totals().len();
        self.signal(Signal::SIGUSR1);
        wait_until("totals after SIGUSR1", || self.messages.all_totals().into_iter().nth(before))
    }

    /// Waits until the totals are as wanted.
    pub(crate) fn wait_for_totals(&self, what: &str, wanted: impl Fn(&Totals) -> bool) -> Totals {
        wait_until(what, || Some(self.totals()).filter(|totals| wanted(totals)))
    }

    /// True as long as the daemon runs.
    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Ends the daemon with SIGKILL and waits until it is gone; what it said.
    pub(crate) fn kill(&mut self) -> String {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        self.messages.text()
    }

    /// Ends the daemon with SIGTERM and waits until it is gone, to be started again; what it said.
    pub(crate) fn end_for_now(&mut self) -> String {
        self.signal(Signal::SIGTERM);
        self.wait_for_end();
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        self.messages.text()
    }

    /// Starts the daemon once more in the same folder, after it has ended, and waits until it listens.
    pub(crate) fn start_again(&mut self) {
        let (child, messages, reader) = launch(&self.words, &self.environment, &self.folder);
        (self.child, self.messages, self.reader) = (child, messages, Some(reader));
        self.wait_for_message(LISTENING);
    }

    /// Prints what tells whether programs got away, for a test that has failed.
    fn explain(&self) {
        let before = self.messages.all_totals().len();
        self.signal(Signal::SIGUSR1);
        within(CLOSING_TIME, || self.messages.all_totals().into_iter().nth(before));
        let uncertain = self.alerts().into_iter().filter_map(|alert| {
            let capture = &alert["execwatch"]["capture"];
            (capture["certainty"] != "exact").then(|| format!("pid {}: {capture}\n", alert["process"]["pid"]))
        });
        println!("the daemon said:\n{}not exact:\n{}", self.messages.text(), uncertain.collect::<String>());
    }

    /// Ends the daemon with SIGTERM, which it must answer with exit code 0, after it has written everything.
    pub(crate) fn stop(mut self) -> Ended {
        self.signal(Signal::SIGTERM);
        let status = self.wait_for_end();
        let ended = self.ended(status);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        ended
    }

    /// Waits until the daemon ends after whatever was done to it.
    pub(crate) fn end(mut self) -> Ended {
        let status = self.wait_for_end();
        self.ended(status)
    }

    fn wait_for_end(&mut self) -> ExitStatus {
        match within(DEADLINE, || self.child.try_wait().unwrap()) {
            Some(status) => status,
            None => panic!("the daemon does not end:\n{}", self.messages.text()),
        }
    }

    fn ended(&mut self, status: ExitStatus) -> Ended {
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        let mut file = self.alerts.borrow_mut();
        file.read_on();
        Ended {
            code: status.code(),
            stderr: self.messages.text(),
            totals: self.messages.all_totals().pop().unwrap_or_default(),
            records: std::mem::take(&mut file.records),
        }
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() && self.runs() {
            // A panic of its own would end the test program, and leave the daemon.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.explain()));
        }
        if matches!(self.child.try_wait(), Ok(None)) {
            // A killed daemon leaves its subscription in the count of the kernel, so it is asked first.
            self.signal(Signal::SIGTERM);
            within(CLOSING_TIME, || self.child.try_wait().ok().flatten());
        }
        // Both do nothing to a child that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The `totals:` line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Totals(BTreeMap<String, u64>);

impl Totals {
    fn parse(line: &str) -> Option<Self> {
        let (_, pairs) = line.split_once("totals: ")?;
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        Some(Totals(pairs.split_whitespace().map(pair).collect::<Option<_>>()?))
    }

    /// A number by its name in the line.
    pub(crate) fn get(&self, name: &str) -> u64 {
        *self.0.get(name).unwrap_or_else(|| panic!("no {name} in {self:?}"))
    }
}

fn is_alert(record: &Value) -> bool {
    record["event"]["kind"] == "alert"
}

/// The daemon's standard error, line by line.
#[derive(Default)]
struct Messages {
    said: Mutex<Said>,
    more: Condvar,
}

#[derive(Default)]
struct Said {
    lines: Vec<String>,
    ended: bool,
}

impl Messages {
    fn lock(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap()
    }

    fn read(&self, stderr: impl Read) {
        for line in BufReader::new(stderr).split(b'\n') {
            let Ok(line) = line else { break };
            self.lock().lines.push(String::from_utf8_lossy(&line).into_owned());
            self.more.notify_all();
        }
        self.lock().ended = true;
        self.more.notify_all();
    }

    /// The first line that `wanted` picks; `None` if the daemon ended or the deadline passed without it.
    fn wait_for_or_end(&self, wanted: impl Fn(&str) -> bool) -> Option<String> {
        let deadline = Instant::now() + DEADLINE;
        let mut said = self.lock();
        loop {
            if let Some(line) = said.lines.iter().find(|line| wanted(line)) {
                return Some(line.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if said.ended || left.is_zero() {
                return None;
            }
            said = self.more.wait_timeout(said, left).unwrap().0;
        }
    }

    fn text(&self) -> String {
        self.lock().lines.iter().fold(String::new(), |mut text, line| {
            // Writing to a string cannot fail.
            let _ = fmt::Write::write_fmt(&mut text, format_args!("{line}\n"));
            text
        })
    }

    fn all_totals(&self) -> Vec<Totals> {
        self.lock().lines.iter().filter_map(|line| Totals::parse(line)).collect()
    }
}

/// The file of alerts, read as it grows.
struct AlertFile {
    path: PathBuf,
    /// The file that was read last: a rotated one is followed by another.
    inode: u64,
    /// Where the first line begins that was not whole the last time.
    offset: u64,
    records: Vec<Value>,
}

impl AlertFile {
    fn new(path: PathBuf) -> Self {
        AlertFile { path, inode: 0, offset: 0, records: Vec::new() }
    }

    fn read_on(&mut self) {
        let Ok(mut file) = fs::File::open(&self.path) else { return };
        let mut bytes = Vec::new();
        let inode = file.metadata().unwrap().ino();
        if inode != self.inode {
            (self.inode, self.offset) = (inode, 0);
        }
        file.seek(SeekFrom::Start(self.offset)).unwrap();
        file.read_to_end(&mut bytes).unwrap();
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        for line in bytes[..whole].split_inclusive(|&byte| byte == b'\n') {
            self.records.push(serde_json::from_slice(line).expect("each line of the file is JSON"));
        }
        self.offset += whole as u64;
    }
}
