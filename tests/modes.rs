//! Ways to listen: best effort, a single listener, refused real-time scheduling, and CPUs that come, go or are not ours.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod support;

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use serde_json::Value;
use support::{Daemon, Machine, Setup, Staying, assert_certain, installed, program, say, skip, wait_until};

fn certainty(alert: &Value) -> &str {
    alert["execwatch"]["capture"]["certainty"].as_str().unwrap()
}

/// Starts a daemon that must say that it works in best effort, and does so: a program that stays is read, and of short
/// ones each is counted, read or not.
fn works_in_best_effort(setup: Setup<'_>) -> String {
    const SHORT: usize = 1000;
    let daemon = setup.start();
    daemon.wait_for_message("listening: best effort on all CPUs");
    let staying = Staying::start(&daemon.folder().join("bin/staying"));
    let mut alert = daemon.wait_for(|alert| alert["process"]["pid"] == staying.pid());
    // The look at what ran at the start may have been faster than the event.
    let again = Staying::start(&daemon.folder().join("bin/again"));
    if certainty(&alert) == "already-running" {
        alert = daemon.wait_for(|alert| alert["process"]["pid"] == again.pid());
    }
    assert_eq!(certainty(&alert), "best-effort");
    let file = daemon.tiny("short");
    for number in 0..SHORT {
        assert!(Command::new(&file).arg(number.to_string()).status().unwrap().success());
    }
    let ended = daemon.stop();
    let totals = &ended.totals;
    assert_eq!((totals.get("exact"), totals.get("likely")), (0, 0), "{totals:?}");
    assert!(totals.get("execs") > SHORT as u64, "{totals:?}");
    assert_eq!(totals.get("best-effort") + totals.get("gone"), totals.get("execs"), "{totals:?}");
    // What has an executable and no arguments is «gone» too, but may be an alert.
    let short = ended.alerts(|alert| alert["process"]["name"] == "short");
    assert!(short.len() <= SHORT && SHORT - short.len() <= totals.get("gone") as usize, "{totals:?}");
    assert!(short.iter().all(|alert| certainty(alert) == "best-effort"));
    // What was not seen is said among the alerts.
    let said = ended.records.iter().filter(|record| record["execwatch"]["notice"] == "loss").count();
    assert_eq!(said > 0, totals.get("gone") > 0, "{totals:?}");
    ended.stderr
}

#[test]
fn best_effort_by_the_command_line() {
    let Some(machine) = Machine::alone() else { return };
    let stderr = works_in_best_effort(machine.daemon().argument("--best-effort"));
    assert!(!stderr.contains("cannot be held"), "what was asked for is not warned of: {stderr}");
}

#[test]
fn best_effort_by_priority_0() {
    let Some(machine) = Machine::alone() else { return };
    works_in_best_effort(machine.daemon().capture("realtime-priority = 0"));
    works_in_best_effort(machine.daemon().capture("realtime-priority = 0\nlisteners = 'per-cpu'"));
}

#[test]
fn a_single_listener() {
    let Some(machine) = Machine::alone() else { return };
    works_in_best_effort(machine.daemon().capture("listeners = 'single'"));
}

/// A cgroup without real-time run time, as new ones are (CONFIG_RT_GROUP_SCHED, cgroup version 1).
struct WithoutRealTime(PathBuf);

impl WithoutRealTime {
    fn new() -> Option<Self> {
        let hierarchies = ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu,cpuacct"];
        let root = hierarchies.iter().map(Path::new).find(|root| root.join("cpu.rt_runtime_us").exists())?;
        let folder = root.join(format!("execwatch-test-{}", std::process::id()));
        fs::create_dir(&folder).ok()?;
        let group = WithoutRealTime(folder);
        let run_time = fs::read_to_string(group.0.join("cpu.rt_runtime_us")).ok()?;
        (run_time.trim() == "0").then_some(group)
    }
}

impl Drop for WithoutRealTime {
    fn drop(&mut self) {
        // It can go as soon as the kernel has taken the daemon's last thread out of it.
        support::within(support::DEADLINE, || fs::remove_dir(&self.0).ok());
    }
}

#[test]
fn refused_real_time_scheduling_is_said_with_its_remedy() {
    let Some(machine) = Machine::alone() else { return };
    let Some(group) = WithoutRealTime::new() else {
        return skip("needs a kernel that groups real-time tasks, and its cpu cgroup (version 1)");
    };
    let enter = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", group.0.display());
    let stderr = works_in_best_effort(machine.daemon().under(&["sh", "-c", &enter, "sh"]));
    let warning = stderr.lines().find(|line| line.contains("cannot be held")).unwrap_or_default();
    for part in ["execwatch: warn: ", "SCHED_FIFO priority 90 refused", "CAP_SYS_NICE", "cpu.rt_runtime_us"] {
        assert!(warning.contains(part), "{part}: {stderr}");
    }
    // Who insists gets a listener for each CPU all the same.
    let insisting = machine.daemon().capture("listeners = 'per-cpu'").under(&["sh", "-c", &enter, "sh"]);
    works_in_best_effort(insisting);
}

/// The CPUs that are online.
fn online() -> Vec<u32> {
    let list = fs::read_to_string("/sys/devices/system/cpu/online").unwrap();
    let number = |text: &str| text.parse::<u32>().unwrap();
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        number(first)..=number(last)
    };
    list.trim().split(',').flat_map(range).collect()
}

/// Executes the daemon's program on a CPU and waits for its alert.
fn executed_on(daemon: &Daemon<'_>, cpu: u32) -> Value {
    let file = daemon.folder().join("bin/placed");
    if !file.exists() {
        daemon.program("placed");
    }
    let mut child = Command::new("taskset").args(["-c", &cpu.to_string()]).arg(file).spawn().unwrap();
    let pid = child.id();
    assert!(child.wait().unwrap().success());
    let alert = daemon.wait_for(|alert| alert["process"]["pid"] == pid);
    assert_eq!(alert["execwatch"]["capture"]["cpu"], cpu);
    alert
}

/// The words for CPUs in the daemon's messages.
fn exact_on(cpus: &[u32]) -> String {
    let list: Vec<String> = cpus.iter().map(u32::to_string).collect();
    format!("exact on CPU {}, best effort on others", list.join(","))
}

#[test]
fn every_cpu_is_exact() {
    let Some(machine) = Machine::alone() else { return };
    let Some(_) = installed("taskset") else { return };
    let daemon = machine.daemon().start();
    daemon.wait_for_message(&exact_on(&online()));
    for cpu in online() {
        assert_certain(&executed_on(&daemon, cpu));
    }
    daemon.stop();
}

#[test]
fn a_listener_that_somebody_moved_is_put_back() {
    let Some(machine) = Machine::alone() else { return };
    let (Some(taskset), Some(chrt)) = (installed("taskset"), installed("chrt")) else { return };
    let [cpu, .., other] = online()[..] else { return skip("needs two CPUs") };
    let daemon = machine.daemon().start();
    let name = format!("listen-{cpu}");
    let tasks =
        fs::read_dir(format!("/proc/{}/task", daemon.pid())).unwrap().map(|entry| entry.unwrap().path());
    let is_it = |task: &PathBuf| fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim() == name);
    let listener = tasks.into_iter().find(is_it).unwrap();
    let listener = listener.file_name().unwrap().to_str().unwrap();
    let moved = Command::new(&taskset).args(["-pc", &other.to_string(), listener]).output().unwrap();
    assert!(moved.status.success(), "{moved:?}");
    let put_back = || daemon.stderr().matches("and was put back").count();
    wait_until("the first time", || (put_back() == 1).then_some(()));
    assert_certain(&executed_on(&daemon, cpu));
    for (times, policy) in [(2, ["-o", "-p", "0"]), (3, ["-f", "-p", "1"])] {
        let demoted = Command::new(&chrt).args(policy).arg(listener).output().unwrap();
        assert!(demoted.status.success(), "{demoted:?}");
        wait_until("the next time", || (put_back() == times).then_some(()));
        assert_certain(&executed_on(&daemon, cpu));
    }
    daemon.stop();
}

#[test]
fn cpus_that_the_daemon_may_not_use_are_best_effort() {
    let Some(machine) = Machine::alone() else { return };
    let Some(_) = installed("taskset") else { return };
    let [own, .., other] = online()[..] else { return skip("needs two CPUs") };
    let daemon = machine.daemon().under(&["taskset", "-c", &own.to_string()]).start();
    daemon.wait_for_message(&exact_on(&[own]));
    assert_certain(&executed_on(&daemon, own));
    // Only a program that stays is certain to be read.
    let elsewhere = Staying::start_on(&daemon.folder().join("bin/elsewhere"), Some(other));
    let alert = daemon.wait_for(|alert| alert["process"]["pid"] == elsewhere.pid());
    assert_eq!(alert["execwatch"]["capture"]["cpu"], other);
    assert_eq!(certainty(&alert), "best-effort");
    let ended = daemon.stop();
    assert!(ended.totals.get("best-effort") > 0);
}

/// Takes a CPU offline, until this is dropped.
struct Offline {
    switch: PathBuf,
}

impl Offline {
    fn new(cpu: u32) -> Option<Self> {
        let switch = PathBuf::from(format!("/sys/devices/system/cpu/cpu{cpu}/online"));
        fs::write(&switch, "0").ok().map(|()| Offline { switch })
    }

    fn back(self) {
        fs::write(&self.switch, "1").unwrap();
    }
}

impl Drop for Offline {
    fn drop(&mut self) {
        // A second time does no harm.
        let _ = fs::write(&self.switch, "1");
    }
}

#[test]
fn cpus_may_go_and_come_back() {
    let Some(machine) = Machine::alone() else { return };
    let Some(_) = installed("taskset") else { return };
    let all = online();
    let [first, .., last] = all[..] else { return skip("needs two CPUs") };
    let daemon = machine.daemon().start();
    assert_certain(&executed_on(&daemon, last));
    let Some(offline) = Offline::new(last) else {
        return skip("needs a CPU that can be taken offline");
    };
    daemon.wait_for_message(&format!("CPU {last} went offline; its listener ended"));
    let remaining = exact_on(&all[..all.len() - 1]);
    daemon.wait_for_message(&format!("listening on the CPUs that are there now: {remaining}"));
    for _ in 0..20 {
        assert_certain(&executed_on(&daemon, first));
    }
    offline.back();
    daemon.wait_for_message(&format!("listening on the CPUs that are there now: {}", exact_on(&all)));
    for _ in 0..20 {
        assert_certain(&executed_on(&daemon, first));
        assert_certain(&executed_on(&daemon, last));
    }
    let ended = daemon.stop();
    assert_eq!(ended.totals.get("lost"), 0);
}

#[test]
fn a_cpu_that_is_not_allowed_any_more_hands_its_events_back_without_a_gap() {
    const TIMES: usize = 10;
    /// Programs that run at once: each stays long enough to be read by whoever is to.
    const STAYING: usize = 64;
    let Some(machine) = Machine::alone() else { return };
    let all = online();
    let [first, .., last] = all[..] else { return skip("needs two CPUs") };
    let daemon = machine.daemon().capture("queue-length = 8192\nalready-running = false").start();
    let file = daemon.folder().join("bin/staying");
    program::copy(&installed("cat").unwrap(), &file);
    let allow = |cpus: &[u32], pid: u32| {
        let mut set = CpuSet::new();
        cpus.iter().for_each(|&cpu| set.set(cpu as usize).unwrap());
        sched_setaffinity(Pid::from_raw(pid as i32), &set).unwrap();
    };
    let over = AtomicBool::new(false);
    let executed = std::thread::scope(|scope| {
        let storm = scope.spawn(|| {
            allow(&[last], 0);
            let mut staying = VecDeque::new();
            let mut executed = 0;
            while !over.load(Relaxed) {
                let mut program = Command::new(&file);
                staying.push_back(program.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap());
                executed += 1;
                if staying.len() >= STAYING {
                    staying.pop_front().unwrap().wait().unwrap();
                }
            }
            for mut program in staying {
                program.wait().unwrap();
            }
            executed
        });
        let said = |part: &str| daemon.stderr().lines().filter(|line| line.contains(part)).count();
        for time in 1..=TIMES {
            // Of the thread that looks after the listeners.
            allow(&all[..all.len() - 1], daemon.pid());
            let gone = format!("CPU {last} is not allowed to execwatch any more; its listener ended");
            wait_until("the listener ends", || (said(&gone) == time).then_some(()));
            allow(&all, daemon.pid());
            let back = format!("listening on the CPUs that are there now: {}", exact_on(&all));
            wait_until("there is one again", || (said(&back) == time).then_some(()));
        }
        over.store(true, Relaxed);
        storm.join().unwrap()
    });
    assert_certain(&executed_on(&daemon, first));
    let ended = daemon.stop();
    let told = ended.alerts(|alert| alert["process"]["name"] == "staying").len() as u64;
    let lost: u64 = ["lost", "dropped", "gone"].map(|name| ended.totals.get(name)).into_iter().sum();
    say(&format!("{executed} executed, {told} told, {lost} counted as lost"));
    assert!(told <= executed && told + lost >= executed, "{executed}, {told}, {lost}: {}", ended.stderr);
}
