//! Whether programs are seen, and held while they are read: tried with a program on each CPU.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use super::{Finding, privileges};
use crate::clock;
use crate::config::Config;
use crate::connector::events::EventSocket;
use crate::connector::listener::{ExecNotice, ExecSink};
use crate::connector::listeners::{Arrangement, Listeners, Settings};
use crate::connector::subscription::ignore_all;
use crate::cpus;
use crate::health::Counters;
use crate::order;
use crate::process::capture::hold_limit_ns;
use crate::sys;

const AREA: &str = "capture";
/// How long the exec of an own program is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// Execs of other programs that may wait while ours is looked for.
const WAITING: usize = 65_536;
/// The name under which this program calls itself: it has to end at once, whatever its arguments are.
const PROBE: &str = "--version";

/// Notes what it is told, and what it could read meanwhile.
struct Watch(Sender<Seen>);

struct Seen {
    notice: ExecNotice,
    /// Nanoseconds from the exec until its executable was read; `None` if it had ended.
    read_after_ns: Option<u64>,
}

impl ExecSink for Watch {
    fn exec(&mut self, notice: ExecNotice) {
        let read = std::fs::read_link(format!("/proc/{}/exe", notice.pid)).is_ok();
        let read_after_ns = read.then(|| clock::monotonic_ns().saturating_sub(notice.timestamp_ns));
        // What finds no room is another program's.
        let _ = self.0.try_send(Seen { notice, read_after_ns });
    }
}

pub(super) fn examine(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    let events = match EventSocket::open(config.capture.receive_buffer) {
        Ok(events) => events,
        Err(error) => {
            let remedy = "what is fatal above says why; without any, report it with `uname -a`";
            return vec![Finding::fatal(AREA, error.to_string(), remedy)];
        }
    };
    buffer(&mut findings, config.capture.receive_buffer, events.receive_buffer());
    let (sender, seen) = crossbeam_channel::bounded(WAITING);
    let settings = Settings {
        arrangement: config.capture.listeners,
        priority: Some(config.capture.realtime_priority).filter(|&priority| priority > 0),
        receive_buffer: config.capture.receive_buffer,
    };
    let by_choice = is_by_choice(&settings);
    if settings.priority.is_some() {
        // As the daemon does. Where it cannot, its privileges tell.
        let _ = sys::memory::stay();
    }
    let new_sink = move |_| Box::new(Watch(sender.clone())) as Box<dyn ExecSink>;
    match Listeners::start(settings.clone(), Arc::new(Counters::default()), Box::new(new_sink)) {
        Ok(listeners) => {
            scheduling(&mut findings, &listeners, &settings);
            let expected = match (by_choice, listeners.refusal()) {
                (true, _) => Expected::BestEffort,
                (false, Some(_)) => Expected::Refused,
                (false, None) => Expected::Exact,
            };
            let cpus = cpus::online().unwrap_or_else(|| vec![0]);
            findings.extend(cpus.into_iter().map(|cpu| probe(cpu, &seen, expected)));
            listeners.stop();
        }
        Err(error) => findings.push(Finding::fatal(AREA, error.to_string(), "see what is fatal above")),
    }
    ignore_all();
    findings.extend(higher_priorities(config.capture.realtime_priority));
    findings
}

fn buffer(findings: &mut Vec<Finding>, asked: usize, got: usize) {
    // The kernel doubles what is asked, for its bookkeeping (socket(7)).
    if got < asked * 2 {
        findings.push(Finding::warning(
            AREA,
            format!(
                "receive buffers are {got} bytes where {asked} are configured: events may be lost in a storm"
            ),
            format!("give execwatch CAP_NET_ADMIN, or sysctl -w net.core.rmem_max={asked}"),
        ));
    } else {
        findings.push(Finding::good(AREA, format!("receive buffers of {got} bytes")));
    }
}

fn is_by_choice(settings: &Settings) -> bool {
    settings.priority.is_none() || settings.arrangement == Arrangement::Single
}

fn scheduling(findings: &mut Vec<Finding>, listeners: &Listeners, settings: &Settings) {
    if is_by_choice(settings) {
        findings.push(Finding::note(
            AREA,
            "best effort by configuration: programs are not held while they are read",
        ));
    } else if let Some(refusal) = listeners.refusal() {
        findings.push(Finding::warning(
            AREA,
            format!("programs cannot be held while they are read: {refusal}"),
            match privileges::may_schedule() {
                Some(true) => {
                    "give the cpu cgroup of execwatch real-time run time (cpu.rt_runtime_us): this kernel groups real-time \
                     tasks"
                }
                _ => "give execwatch CAP_SYS_NICE (systemd: CapabilityBoundingSet=)",
            },
        ));
    }
    let runtime = std::fs::read_to_string("/proc/sys/kernel/sched_rt_runtime_us").ok();
    if settings.priority.is_some() && runtime.is_some_and(|text| text.trim() == "0") {
        findings.push(Finding::warning(
            AREA,
            "real-time tasks get no CPU time (kernel.sched_rt_runtime_us is 0)",
            "sysctl -w kernel.sched_rt_runtime_us=950000",
        ));
    }
    let limit = hold_limit_ns();
    if limit < u64::MAX {
        findings.push(Finding::good(
            AREA,
            format!(
                "a program counts as held for up to {} us, half the scheduler's migration cost",
                limit / 1000
            ),
        ));
    }
    let stolen = std::fs::read_to_string("/proc/stat").ok().and_then(|text| stolen_percent(&text));
    if let Some(percent) = stolen.filter(|&percent| percent >= MUCH_STOLEN_PERCENT)
        && limit < STANDS_STILL_NS
    {
        findings.push(Finding::warning(
            AREA,
            format!(
                "the host took this virtual machine's CPUs away for {percent:.1} % of the time since boot: programs may \
                 escape to another CPU meanwhile"
            ),
            "raise the scheduler's migration cost to 50 ms (docs/capture.md, «CPUs that stand still»)",
        ));
    }
}

/// A virtual machine whose CPUs are taken away for more than this may lose programs.
const MUCH_STOLEN_PERCENT: f64 = 1.0;
/// With a hold of this many nanoseconds that counts as exact, a virtual CPU that stands still for a turn of another virtual
/// machine does no harm.
const STANDS_STILL_NS: u64 = 20_000_000;

/// The share of the time that the host took from all CPUs, by the first line of `/proc/stat` (proc(5)): user, nice, system,
/// idle, iowait, irq, softirq, steal; what guests took is in user.
fn stolen_percent(stat: &str) -> Option<f64> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let times: Vec<f64> = line.split_ascii_whitespace().take(8).map_while(|word| word.parse().ok()).collect();
    let stolen = times.get(7)?;
    let all: f64 = times.iter().sum();
    (all > 0.0).then_some(stolen * 100.0 / all)
}

/// What the configuration and the host let expect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Exact,
    /// The configuration does not ask for more.
    BestEffort,
    /// Real-time scheduling was refused.
    Refused,
}

/// Executes a program on a CPU and waits for its event.
fn probe(cpu: u32, seen: &Receiver<Seen>, expected: Expected) -> Finding {
    let child = std::thread::scope(|scope| {
        let starter = scope.spawn(|| {
            let mut set = CpuSet::new();
            set.set(cpu as usize)?;
            // The child inherits it.
            sched_setaffinity(Pid::from_raw(0), &set)?;
            Command::new("/proc/self/exe")
                .arg0("execwatch")
                .arg(PROBE)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
        });
        starter.join().unwrap_or_else(|_| Err(std::io::Error::other("the thread that starts it panicked")))
    });
    let mut child = match child {
        Ok(child) => child,
        Err(error) => {
            let found = format!("CPU {cpu}: a program could not be executed there: {error}");
            return Finding::warning(AREA, found, "allow this CPU to execwatch (cpuset)");
        }
    };
    let pid = child.id();
    let deadline = Instant::now() + PATIENCE;
    let found = std::iter::from_fn(|| seen.recv_deadline(deadline).ok()).find(|seen| seen.notice.pid == pid);
    // It only prints its version.
    let _ = child.wait();
    judged(cpu, found, expected)
}

fn judged(cpu: u32, found: Option<Seen>, expected: Expected) -> Finding {
    match found {
        Some(Seen { notice, read_after_ns: Some(ns) }) if notice.held => Finding::good(
            AREA,
            format!("CPU {cpu}: exact; a program was held and read {} us after its exec", ns / 1000),
        ),
        Some(Seen { read_after_ns: Some(ns), .. }) => Finding::note(
            AREA,
            format!(
                "CPU {cpu}: best effort; a program was read {} us after its exec, without being held",
                ns / 1000
            ),
        ),
        Some(_) => {
            let found =
                format!("CPU {cpu}: best effort; a program was seen, but had ended before it was read");
            match expected {
                Expected::BestEffort => Finding::note(AREA, found),
                Expected::Refused => Finding::warning(
                    AREA,
                    found,
                    "allow real-time scheduling, so that programs are held while they are read",
                ),
                Expected::Exact => Finding::warning(
                    AREA,
                    found,
                    "try again; if it stays so, look for programs with a higher real-time priority on this CPU",
                ),
            }
        }
        None => Finding::fatal(
            AREA,
            format!("CPU {cpu}: the exec of an own program was not seen within {} s", PATIENCE.as_secs()),
            "another program may have ended the kernel's events (each LISTEN of the connector counts): end other \
             users of the process connector and try again",
        ),
    }
}

/// Programs that are scheduled before the listeners, and therefore not held.
fn higher_priorities(priority: u8) -> Option<Finding> {
    /// Named in the message.
    const NAMED: usize = 5;
    let mut names = Vec::new();
    let folders = std::fs::read_dir("/proc").ok()?.flatten();
    let pids = folders.filter(|entry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit));
    for process in pids {
        let Ok(threads) = std::fs::read_dir(process.path().join("task")) else { continue };
        for thread in threads.flatten() {
            let Ok(stat) = std::fs::read(thread.path().join("stat")) else { continue };
            if real_time_priority(&stat).is_some_and(|of_thread| of_thread > u64::from(priority)) {
                let comm = std::fs::read(thread.path().join("comm")).unwrap_or_default();
                let comm = crate::alert::escape::Escaped::new(comm.trim_ascii_end());
                names.push(format!("{}[{}]", comm.as_str(), process.file_name().to_string_lossy()));
            }
        }
    }
    order::by(&mut names, String::cmp);
    names.dedup();
    if names.is_empty() || priority == 0 {
        return None;
    }
    let more = names.len().saturating_sub(NAMED);
    names.truncate(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Some(Finding::warning(
        AREA,
        format!("not held are: {}{more}; their real-time priority is above {priority}", names.join(", ")),
        "raise [capture] realtime-priority above theirs",
    ))
}

/// The real-time priority of a user's thread from its stat file (proc(5)); `None` for kernel threads and other policies.
fn real_time_priority(stat: &[u8]) -> Option<u64> {
    /// PF_KTHREAD (include/linux/sched.h).
    const KERNEL_THREAD: u64 = 0x0020_0000;
    let text = std::str::from_utf8(&stat[stat.iter().rposition(|&byte| byte == b')')? + 1..]).ok()?;
    let fields: Vec<&str> = text.split_ascii_whitespace().collect();
    // The state is field 3.
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    (number(9)? & KERNEL_THREAD == 0).then(|| number(40)).flatten().filter(|&priority| priority > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn stolen_time_is_a_share_of_all() {
        let of = |line: &str| stolen_percent(&format!("{line}\ncpu0 1 2 3\n"));
        assert_eq!(of("cpu  50 10 20 100 5 5 5 5 40 0"), Some(2.5));
        assert_eq!(of("cpu  50 10 20 100 5 5 5 0 0 0"), Some(0.0));
        // Before 2.6.11, and nonsense.
        assert_eq!(of("cpu  50 10 20 100"), None);
        assert_eq!(of("cpu  0 0 0 0 0 0 0 0"), None);
        assert_eq!(of("intr 1"), None);
    }

    /// What the configuration asks for is no reason to warn; what it does not get is.
    #[test]
    fn a_program_that_ended_is_a_warning_only_where_more_was_asked_for() {
        let judged = |read_after_ns, expected| {
            let notice = ExecNotice { pid: 7, cpu: 0, timestamp_ns: 1, held: false };
            judged(0, Some(Seen { notice, read_after_ns }), expected)
        };
        assert_eq!(judged(None, Expected::BestEffort).level, Level::Note);
        assert_eq!(judged(Some(1), Expected::BestEffort).level, Level::Note);
        for expected in [Expected::Refused, Expected::Exact] {
            let finding = judged(None, expected);
            let about_scheduling = finding.remedy.unwrap().contains("allow real-time scheduling");
            assert_eq!((finding.level, about_scheduling), (Level::Warning, expected == Expected::Refused));
        }
    }

    #[test]
    fn priorities_are_read_from_stat() {
        let stat = |flags: u64, priority: u64| {
            let middle = "0 ".repeat(30);
            format!("7 (a ) b) S 1 1 1 0 -1 {flags} {middle}{priority} 1 0 0")
        };
        assert_eq!(real_time_priority(stat(0, 95).as_bytes()), Some(95));
        assert_eq!(real_time_priority(stat(0x0020_0000, 99).as_bytes()), None);
        assert_eq!(real_time_priority(stat(0, 0).as_bytes()), None);
        assert_eq!(real_time_priority(b"7 (a"), None);
        assert_eq!(real_time_priority(b""), None);
    }
}
