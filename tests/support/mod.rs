//! What the integration tests have in common: the real daemon, on the real kernel.
//!
//! A test begins with [`Machine::shared`] or [`Machine::alone`], which skips it visibly where it cannot run and keeps
//! tests of all test programs out of each other's way. The machine gives a [`Setup`], the setup a running [`Daemon`], and
//! that its alerts:
//!
//! ```ignore
//! let Some(machine) = Machine::alone() else { return };
//! let daemon = machine.daemon().start();
//! Command::new(daemon.program("hello")).arg("world").status().unwrap();
//! let alert = daemon.wait_for(|alert| alert["process"]["name"] == "hello");
//! assert_eq!(alert["execwatch"]["capture"]["certainty"], "exact");
//! let ended = daemon.stop();
//! assert_eq!(ended.totals.get("lost"), 0);
//! ```
//!
//! Nothing here sleeps and hopes: everything is waited for, until [`DEADLINE`]. Nor does a test rest on the host's giving
//! time to all CPUs of a virtual machine: see [`Machine::on_every_cpu`].
#![allow(dead_code, reason = "each test program uses its own part of this")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot be set up has failed")]

pub(crate) mod connector;
mod daemon;
pub(crate) mod disk;
pub(crate) mod program;
pub(crate) mod servers;
pub(crate) mod stopped;
pub(crate) mod storm;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;

use nix::fcntl::{Flock, FlockArg};

#[allow(unused_imports, reason = "as above")]
pub(crate) use daemon::{Daemon, Ended, Setup, Totals};

/// How long anything is waited for before the test has failed. Far longer than needed: the machine may be busy.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// The variable that turns a skipped test into a failure, unless the kernel is the reason.
const REQUIRE_ROOT: &str = "EXECWATCH_TESTS_REQUIRE_ROOT";

/// The CPUs that the test program was started with.
static EVERY_CPU: OnceLock<CpuSet> = OnceLock::new();

/// The right to use this machine's kernel, as long as it lives. Meanwhile its thread, and what that executes other than
/// daemons, stays on one CPU, unless [`on_every_cpu`](Self::on_every_cpu) says otherwise.
pub(crate) struct Machine {
    _turn: Flock<File>,
}

impl Machine {
    /// For tests that do not mind other daemons beside theirs. These take turns at a CPU, so that a program may be held
    /// for too long: only one that stays is certain to be read. `None`: the
    /// test is skipped, which has been said.
    pub(crate) fn shared() -> Option<Machine> {
        Self::take(FlockArg::LockShared)
    }

    /// For tests that execute programs which end at once, that change the machine or that count its listeners: no other
    /// such test runs meanwhile, in this test program or another.
    pub(crate) fn alone() -> Option<Machine> {
        Self::take(FlockArg::LockExclusive)
    }

    fn take(kind: FlockArg) -> Option<Machine> {
        if !nix::unistd::geteuid().is_root() {
            lacking("root");
            return None;
        }
        let path = std::env::temp_dir().join("execwatch-tests.lock");
        let file = File::options().create(true).append(true).open(path).expect("the lock file can be opened");
        let turn = Flock::lock(file, kind).map_err(|(_, error)| error).expect("the lock file can be locked");
        EVERY_CPU.get_or_init(|| sched_getaffinity(Pid::from_raw(0)).unwrap());
        pin(sched_getcpu().unwrap());
        Some(Machine { _turn: turn })
    }

    /// Lets this thread, and what it starts from now on, use every CPU. When the host takes a
    /// virtual CPU away for more than half a millisecond, in the moment between an exec and its listener's first step,
    /// the kernel lets another CPU have the program, which may be gone before it is read. So a test that calls this must
    /// allow for programs that the daemon counts as gone; one that does not can expect every program, but under a heavy load beside it.
    pub(crate) fn on_every_cpu(&self) {
        use_every_cpu();
    }

    /// A daemon to be set up.
    pub(crate) fn daemon(&self) -> Setup<'_> {
        Setup::new(self)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        use_every_cpu();
    }
}

fn use_every_cpu() {
    if let Some(all) = EVERY_CPU.get() {
        sched_setaffinity(Pid::from_raw(0), all).unwrap();
    }
}

/// Does something with every CPU, whatever this thread has otherwise.
fn with_every_cpu<T>(work: impl FnOnce() -> T) -> T {
    let own = sched_getaffinity(Pid::from_raw(0)).unwrap();
    use_every_cpu();
    let done = work();
    sched_setaffinity(Pid::from_raw(0), &own).unwrap();
    done
}

/// Keeps this thread, and what it starts from now on, on one CPU: another for each number, as far as there are others.
pub(crate) fn use_cpu(number: usize) {
    let all = EVERY_CPU.get().expect("the test has its machine");
    let cpus: Vec<usize> = (0..CpuSet::count()).filter(|&cpu| all.is_set(cpu).unwrap_or(false)).collect();
    pin(cpus[number % cpus.len()]);
}

/// Keeps this thread, and what it starts from now on, on this CPU.
pub(crate) fn pin(cpu: usize) {
    let mut own = CpuSet::new();
    own.set(cpu).unwrap();
    sched_setaffinity(Pid::from_raw(0), &own).unwrap();
}

/// The file of an installed program, links in its path kept. `None`: the test is skipped, which has been said.
pub(crate) fn installed(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")]);
    let found = folders.map(|folder| folder.join(name)).find(|file| file.is_file());
    if found.is_none() {
        lacking(name);
    }
    found
}

/// Says that the running test is skipped, because this kernel or machine has not what it needs.
pub(crate) fn skip(reason: &str) {
    say(&format!("SKIPPED: test {} {reason}", test_name()));
}

/// Says that the running test is skipped for want of `what`; a failure where everything is required.
pub(crate) fn lacking(what: &str) {
    assert!(
        std::env::var_os(REQUIRE_ROOT).is_none(),
        "test {} needs {what} ({REQUIRE_ROOT} is set)",
        test_name()
    );
    say(&format!("SKIPPED: test {} needs {what}", test_name()));
}

/// Writes a line past the test harness, which keeps what successful tests print to itself.
pub(crate) fn say(line: &str) {
    // A closed standard error is no reason to fail.
    let _ = std::io::stderr().lock().write_all(format!("{line}\n").as_bytes());
}

/// The harness names the thread of a test after it.
fn test_name() -> String {
    std::thread::current().name().unwrap_or("without a name").to_owned()
}

/// Asks again and again until there is a value; fails after [`DEADLINE`], saying what was waited for.
pub(crate) fn wait_until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    within(DEADLINE, &mut ask).unwrap_or_else(|| panic!("waited in vain: {what}"))
}

/// Asks again and again until there is a value or the time is up.
pub(crate) fn within<T>(time: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + time;
    loop {
        if let Some(value) = ask() {
            return Some(value);
        }
        if Instant::now() > deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The alert must say «exact», or less where the hold took long enough to allow for that: on a virtual machine the
/// listener's CPU may itself be taken away meanwhile.
#[track_caller]
pub(crate) fn assert_certain(alert: &serde_json::Value) {
    /// Half of what the kernel's defaults lead to, because a host may be tuned.
    const LONG_US: u64 = 100;
    /// The daemon takes what it finds later for not held.
    const LATE_US: u64 = 20_000;
    let capture = &alert["execwatch"]["capture"];
    let hold = capture["hold_us"].as_u64().unwrap_or_default();
    match capture["certainty"].as_str() {
        Some("exact") => {}
        Some("likely") if hold >= LONG_US => {}
        Some("best-effort") if hold >= LATE_US => {}
        _ => panic!("not certain: {alert:#}"),
    }
}

/// Runs a command in the daemon's folder and waits for its alert. Whether the command succeeds is of no concern.
///
/// Once more, twice at most, if there is none and the daemon counts a program as gone meanwhile: on a shared host that is the
/// fate of one of some thousand programs that end at once.
pub(crate) fn alert_of(daemon: &Daemon<'_>, command: &mut Command) -> serde_json::Value {
    const SOON: Duration = Duration::from_secs(5);
    const TIMES: usize = 3;
    command.current_dir(daemon.folder()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut run = || {
        let mut child = command.spawn().unwrap();
        child.wait().unwrap();
        child.id()
    };
    let gone = || daemon.totals().get("gone");
    let mut before = gone();
    let mut pid = run();
    for _ in 1..TIMES {
        let alert = within(SOON, || daemon.alerts().into_iter().find(|alert| alert["process"]["pid"] == pid));
        if let Some(alert) = alert {
            return alert;
        }
        let now = gone();
        if now == std::mem::replace(&mut before, now) {
            break;
        }
        say(&format!("test {}: a program had gone before it was read, once more", test_name()));
        pid = run();
    }
    daemon.wait_for(|alert| alert["process"]["pid"] == pid)
}

/// A program that stays until this is dropped: a copy of sleep(1).
pub(crate) struct Staying(Child);

impl Staying {
    /// Copies sleep(1) to `file`, unless that is there, and executes it.
    pub(crate) fn start(file: &Path) -> Self {
        Self::start_on(file, None)
    }

    /// As [`start`](Self::start), on a CPU.
    pub(crate) fn start_on(file: &Path, cpu: Option<u32>) -> Self {
        if !file.exists() {
            program::copy(&installed("sleep").expect("coreutils are installed"), file);
        }
        let start = move || {
            if let Some(cpu) = cpu {
                // Of this thread, from which the child has it: taskset(1) would be one more program of the same process.
                pin(cpu as usize);
            }
            Staying(Command::new(file).arg("1000").stdin(Stdio::null()).spawn().unwrap())
        };
        std::thread::scope(|scope| scope.spawn(start).join().unwrap())
    }

    /// Process id.
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Staying {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
