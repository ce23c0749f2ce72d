//! What execwatch does on a kernel: programs are captured, denied, traced to where they come from, and losses are told.
//!
//! `tests/kernels/run` boots kernels in virtual machines, in which this runs beside a bare init; as root it can be run on
//! any other machine too: `cargo test --test kernels`. It is not part of `cargo test`. Each check writes a line `fact NAME
//! TEXT`, or `FAILED NAME` with what went wrong; the exit code tells whether any did.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

#[path = "../support/mod.rs"]
mod support;

use std::collections::HashSet;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;
use support::connector::Connector;
use support::{Machine, Setup, program, wait_until};

/// How many programs a storm executes, unless EXECWATCH_TESTS_EXECS says otherwise.
const EXECS: usize = 1000;
/// Who executes them at the same time.
const WORKERS: usize = 2;
/// Programs whose parents are gone.
const ORPHANS: usize = 50;
/// More programs than the smallest receive buffer has room for.
const FLOOD: usize = 800;

/// Denies every program of the test whose name begins with `target`.
const DENY: &str = "[[rule]]\nid = \"deny\"\ntitle = \"A test of deny\"\nseverity = \"high\"\naction = \"deny\"\n\
                    [rule.select.it]\n\"exe|startswith\" = \"{dir}/bin/target\"\n";

/// A name, and what gives a fact of that name or panics.
type Check = (&'static str, fn(&Machine) -> String);

fn main() -> ExitCode {
    let Some(machine) = Machine::alone() else { return ExitCode::from(77) };
    machine.on_every_cpu();
    let (kernel, choices) = kernel();
    fact("kernel", &kernel);
    fact("preemption", &choices);
    let checks: [Check; 7] = [
        ("features", features),
        ("doctor", doctor),
        ("status", status),
        ("capture", capture),
        ("deny", deny),
        ("lineage", lineage),
        ("losses", losses),
    ];
    let emulated: [Check; 3] = [("stalls", stalls), ("capture-unscaled", capture), ("deny-unscaled", deny)];
    let mut failed = 0;
    if let Some(factor) = slowness() {
        failed += attempt(&machine, &emulated);
        scale_migration_cost(factor);
    }
    failed += attempt(&machine, &checks);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs checks; how many failed.
fn attempt(machine: &Machine, checks: &[Check]) -> usize {
    let mut failed = 0;
    for &(name, check) in checks {
        match catch_unwind(AssertUnwindSafe(|| check(machine))) {
            Ok(found) => fact(name, &found),
            // The panic has said why.
            Err(_) => {
                support::say(&format!("FAILED {name}"));
                failed += 1;
            }
        }
    }
    failed
}

/// How many times slower than a real CPU an emulated one is, if EXECWATCH_TESTS_SLOWNESS says so.
fn slowness() -> Option<u64> {
    std::env::var("EXECWATCH_TESTS_SLOWNESS").ok().map(|text| text.parse().unwrap())
}

/// For how long each CPU stands still, in milliseconds: the longest time between two looks at the clock of a thread that
/// nothing in the machine is scheduled before.
fn stalls(_: &Machine) -> String {
    /// The kernel throttles real-time threads that run for much longer.
    const LOOK_FOR: Duration = Duration::from_millis(500);
    let cpus = std::thread::available_parallelism().unwrap().get();
    let longest = |cpu: usize| {
        support::pin(cpu);
        execwatch::sys::sched::set_fifo(0, 98).unwrap();
        let began = Instant::now();
        let (mut last, mut longest) = (began, Duration::ZERO);
        while last - began < LOOK_FOR {
            let now = Instant::now();
            longest = longest.max(now - last);
            last = now;
        }
        longest
    };
    let found: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cpus).map(|cpu| scope.spawn(move || longest(cpu))).collect();
        let longest = threads.into_iter().map(|thread| thread.join().unwrap());
        longest.map(|longest| format!("{:.1}", longest.as_secs_f64() * 1000.0)).collect()
    });
    found.join(", ")
}

/// Lengthens the time for which the scheduler leaves a preempted program on its CPU. It is a constant, 0.5 ms, made for
/// CPUs that do in this time what an emulated one takes much longer for: without this an emulated kernel is another one.
fn scale_migration_cost(factor: u64) {
    let places = ["/proc/sys/kernel/sched_migration_cost_ns", "/sys/kernel/debug/sched/migration_cost_ns"];
    let place = places.into_iter().find(|place| Path::new(place).exists()).unwrap();
    let cost: u64 = fs::read_to_string(place).unwrap().trim().parse().unwrap();
    fs::write(place, (cost * factor).to_string()).unwrap();
}

fn fact(name: &str, text: &str) {
    support::say(&format!("fact {name} {text}"));
}

/// Release, CPUs, and how the kernel preempts itself; and how else it could, where that can be chosen at boot.
fn kernel() -> (String, String) {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    // The choice is in brackets. It takes a debugfs.
    let choices = read("/sys/kernel/debug/sched/preempt");
    let chosen = choices.split_whitespace().find(|word| word.starts_with('('));
    let preemption = chosen.map_or("not to be chosen", |word| word.trim_matches(['(', ')']));
    let others: Vec<&str> = choices.split_whitespace().filter(|word| !word.starts_with('(')).collect();
    let cpus = std::thread::available_parallelism().unwrap();
    let release = read("/proc/sys/kernel/osrelease");
    (format!("{} | {cpus} | {preemption}", release.trim()), others.join(" "))
}

/// What the daemon finds out about the kernel by asking for it, asked in the same way.
fn features(machine: &Machine) -> String {
    let mut found = Vec::new();
    let mut note = |there: bool, name: &'static str| {
        if there {
            found.push(name);
        }
    };
    note(execwatch::sys::pidfd::open(std::process::id()).is_ok(), "pidfd");
    let root = fs::File::open("/").unwrap();
    note(execwatch::sys::fs::status_at(root.as_fd(), c"").unwrap().mount.is_some(), "mount id");
    note(execwatch::sys::fs::open_cached(root.as_fd(), c"/bin", false).is_ok(), "cached lookup");
    let connector = Connector::open(true);
    note(execwatch::sys::netlink::drops(connector.as_fd()).is_ok(), "drop count");
    note(connector.knows_kinds(), "event mask");
    drop(connector);
    let daemon = machine.daemon().environment("EXECWATCH_LOG", "debug").start();
    note(!daemon.stderr().contains("memory may be made executable"), "no new code");
    let threads = fs::read_dir(format!("/proc/{}/task", daemon.pid())).unwrap();
    let filtered = |thread: fs::DirEntry| {
        let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        status.lines().any(|line| line.starts_with("Seccomp:") && line.ends_with('2'))
    };
    note(threads.flatten().all(filtered), "call filter");
    daemon.stop();
    found.join(", ")
}

/// Each CPU is exact for the doctor.
fn doctor(machine: &Machine) -> String {
    let daemon = machine.daemon().start();
    let output = Command::new(env!("CARGO_BIN_EXE_execwatch"))
        .args(["doctor", "--json", "--config"])
        .arg(daemon.folder().join("execwatch.toml"))
        .output()
        .unwrap();
    daemon.stop();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings = report["findings"].as_array().unwrap();
    let of_cpus: Vec<&str> = findings
        .iter()
        .filter_map(|finding| finding["found"].as_str().filter(|found| found.starts_with("CPU ")))
        .collect();
    assert_eq!(of_cpus.len(), std::thread::available_parallelism().unwrap().get(), "{findings:#?}");
    let held = of_cpus.iter().filter(|found| found.contains("was held and read")).count();
    assert_eq!(held, of_cpus.len(), "{of_cpus:#?}");
    assert_ne!(report["worst"], "fatal", "{findings:#?}");
    format!("exit code {}, exact on {held} of {}", output.status.code().unwrap(), of_cpus.len())
}

fn status(machine: &Machine) -> String {
    let daemon = machine.daemon().start();
    let (code, text, errors) = daemon.status(&[]);
    assert_eq!(code, 0, "{text}{errors}");
    let status = daemon.status_json();
    let listeners = status["listeners"].as_array().unwrap();
    let exact = listeners.iter().filter(|row| row["mode"] == "exact").count();
    assert_eq!(exact, std::thread::available_parallelism().unwrap().get(), "{listeners:#?}");
    daemon.stop();
    format!("exit code {code}, {exact} exact listeners")
}

fn execs() -> usize {
    std::env::var("EXECWATCH_TESTS_EXECS").ok().map_or(EXECS, |text| text.parse().unwrap())
}

/// Has threads execute a number of programs, each with its number as argument; `each` is told how they ended.
fn storm(
    file: &Path,
    workers: usize,
    count: usize,
    output: impl Fn() -> Stdio + Sync,
    each: impl Fn(i32) + Sync,
) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Relaxed);
                    if number >= count {
                        return;
                    }
                    let mut command = Command::new(file);
                    command.arg(number.to_string()).stdin(Stdio::null()).stdout(output());
                    each(command.status().unwrap().signal().unwrap_or(0));
                }
            });
        }
    });
}

/// Every short program of a storm is named with its arguments, and nothing is lost; what ended before it was read, where
/// that is allowed for, is counted and told.
fn capture(machine: &Machine) -> String {
    let count = execs();
    let daemon = machine.daemon().capture("queue-length = 8192").start();
    let file = daemon.tiny("storm");
    storm(&file, WORKERS, count, Stdio::null, |signal| assert_eq!(signal, 0));
    let ended = daemon.stop();
    let alerts = ended.alerts(|_| true);
    // Of one that ended while it was read, the arguments may be unknown.
    let named: Vec<&str> = alerts.iter().filter_map(|alert| alert["process"]["args"][1].as_str()).collect();
    let numbers: HashSet<&str> = named.iter().copied().collect();
    let certain =
        |word: &str| alerts.iter().filter(|alert| alert["execwatch"]["capture"]["certainty"] == word).count();
    let totals = &ended.totals;
    let (exact, gone) = (certain("exact"), totals.get("gone") as usize);
    let mut holds: Vec<u64> =
        alerts.iter().filter_map(|alert| alert["execwatch"]["capture"]["hold_us"].as_u64()).collect();
    holds.sort_unstable();
    let hold = |share: usize| holds.get(holds.len() * share / 100).copied().unwrap_or_default();
    let found = format!(
        "{}/{count} | {:.1} % | {:.1} | {:.1}",
        numbers.len(),
        exact as f64 * 100.0 / count as f64,
        hold(50) as f64 / 1000.0,
        hold(99) as f64 / 1000.0,
    );
    for name in ["lost", "overruns", "dropped", "strange"] {
        assert_eq!(totals.get(name), 0, "{name}: {found}\n{}", ended.stderr);
    }
    assert_eq!(named.len(), numbers.len(), "told twice: {found}");
    let missed = count - numbers.len();
    // What is gone may be another program of the machine's.
    assert!(missed <= gone, "{missed} are not accounted for: {found}\n{}", ended.stderr);
    let told = ended.records.iter().any(|record| record["execwatch"]["notice"] == "loss");
    assert_eq!(told, gone > 0, "{}", ended.stderr);
    assert!(missed <= allowed(count), "{found}\n{}", ended.stderr);
    found
}

/// How many of a storm may get away: none, but where the host takes a virtual CPU away for milliseconds, in the moment
/// between an exec and its listener's first step; the kernel then lets another CPU have the program.
fn allowed(count: usize) -> usize {
    let alone = std::thread::available_parallelism().is_ok_and(|cpus| cpus.get() == 1);
    if alone || slowness().is_none() { 0 } else { count / 50 }
}

fn responding(machine: &Machine) -> Setup<'_> {
    machine.daemon().rules(DENY).config(
        "[capture]\nqueue-length = 8192\nalready-running = false\n[rules]\nbuiltin = false\n\
         [response]\nmode = \"enforce\"\nper-minute = 1000000\n[output.syslog]\nenabled = false\n\
         [output.file]\npath = \"{dir}/alerts.json\"\n",
    )
}

/// Of programs that write first of all, not one byte is seen when a rule denies them; those that got away, where that is
/// allowed for, are counted.
fn deny(machine: &Machine) -> String {
    let count = execs();
    let mut found = Vec::new();
    for workers in 1..=WORKERS {
        let setup = responding(machine);
        let Some(target) = program::mark(&setup.folder().join("bin/target")) else {
            return "- | -".to_owned();
        };
        let daemon = setup.start();
        let written = daemon.folder().join("written");
        fs::write(&written, "").unwrap();
        let output = || Stdio::from(fs::File::options().append(true).open(&written).unwrap());
        let killed = AtomicUsize::new(0);
        storm(&target, workers, count, output, |signal| {
            killed.fetch_add((signal == libc::SIGKILL).into(), Relaxed);
        });
        let (killed, bytes) = (killed.into_inner(), fs::metadata(&written).unwrap().len() as usize);
        let ended = daemon.stop();
        let totals = &ended.totals;
        let said = format!("{killed}/{count}, {bytes}");
        let told =
            ["prevented", "unrecorded", "contained", "missed", "gone"].map(|name| totals.get(name) as usize);
        assert!(told.iter().sum::<usize>() >= count, "{said}\n{}", ended.stderr);
        // One that was killed too late is in both.
        assert!(killed + bytes >= count, "{said}");
        assert!(bytes <= allowed(count), "{said}\n{}", ended.stderr);
        found.push(said);
    }
    found.join(" | ")
}

/// Programs whose makers are gone are shown with them, and not with who adopted them.
fn lineage(machine: &Machine) -> String {
    let daemon = machine.daemon().start();
    let orphan = daemon.program("orphan");
    let script = program::script(&daemon.folder().join("fork.sh"), program::DOUBLE_FORK);
    let mut shells = Vec::new();
    for number in 0..ORPHANS {
        let mut child = Command::new(&script).arg(&orphan).arg(number.to_string()).spawn().unwrap();
        child.wait().unwrap();
        shells.push(child.id());
    }
    let alerts = daemon.wait_for_many(ORPHANS, |_| true);
    assert_eq!(alerts.len(), ORPHANS);
    for alert in &alerts {
        let number: usize = alert["process"]["args"][1].as_str().unwrap().parse().unwrap();
        let [between, shell, tests, ..] = alert["execwatch"]["ancestors"].as_array().unwrap().as_slice()
        else {
            panic!("{alert:#}");
        };
        assert_eq!(shell["pid"], shells[number], "{alert:#}");
        assert_eq!(shell["args"][1], script.to_str().unwrap(), "{alert:#}");
        // A kernel that can be preempted anywhere may let the orphan run before it tells that its maker has ended.
        assert!(alert["execwatch"]["adopted_by"].is_u64(), "{alert:#}");
        assert_eq!(tests["pid"], std::process::id(), "{alert:#}");
        assert_eq!(alert["process"]["parent"]["pid"], between["pid"], "{alert:#}");
        assert_eq!(alert["execwatch"]["ancestors_complete"], true, "{alert:#}");
    }
    daemon.stop();
    format!("{}/{ORPHANS}", alerts.len())
}

/// What a stopped daemon's small buffer has no room for is counted, to the last one, and told.
fn losses(machine: &Machine) -> String {
    let daemon = machine
        .daemon()
        .config(
            "[capture]\nreceive-buffer = 65536\nalready-running = false\n[rules]\nbuiltin = false\n\
             [output.syslog]\nenabled = false\n[output.file]\npath = \"{dir}/alerts.json\"\n\
             [health]\ncanary = \"off\"\n",
        )
        .start();
    let flood = program::tiny(&daemon.folder().join("flood"));
    // Each program that was executed to make it has been counted before it could end.
    let before = daemon.totals().get("execs");
    daemon.signal(Signal::SIGSTOP);
    wait_until("all threads stopped", || stopped(daemon.pid()).then_some(()));
    std::thread::scope(|scope| {
        let on_one_cpu = scope.spawn(|| {
            support::pin(0);
            storm_on_this_thread(&flood, FLOOD);
        });
        on_one_cpu.join().unwrap();
    });
    daemon.signal(Signal::SIGCONT);
    let loss = daemon.wait_for_record("the loss", |record| record["execwatch"]["notice"] == "loss");
    let message = loss["message"].as_str().unwrap();
    assert!(message.contains("overflowed"), "{message}");
    let totals = daemon.wait_for_totals("every exec is accounted for", |totals| {
        totals.get("execs") - before + totals.get("dropped") >= FLOOD as u64
    });
    let (read, dropped) = (totals.get("execs") - before, totals.get("dropped"));
    let ended = daemon.stop();
    assert!(ended.totals.get("overruns") > 0, "{:?}", ended.totals);
    assert_eq!(read + dropped, FLOOD as u64, "{totals:?}");
    format!("told, {read} read + {dropped} counted as lost = {FLOOD}")
}

fn storm_on_this_thread(file: &Path, count: usize) {
    for _ in 0..count {
        assert!(Command::new(file).stdin(Stdio::null()).stdout(Stdio::null()).status().unwrap().success());
    }
}

/// Whether each thread of a process is stopped (proc(5)).
fn stopped(pid: u32) -> bool {
    fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten().all(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
    })
}
