//! The scenarios: what is started, in which order, and which figures are taken when.

use std::collections::HashMap;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::measure::{self, Memory, Tags};
use crate::monitors::execwatch::{Execwatch, Setup};
use crate::monitors::{self, Kind, Lab, Monitor};
use crate::spawn::Storm;
use crate::target::{self, Target};
use crate::{Options, Result, Scenario, interrupt};

/// How long a monitor may take to work off what a storm has left.
const DRAIN_LIMIT: Duration = Duration::from_secs(60);
/// After a storm each monitor is given this time: some look at their queues by a timer.
const LAST_TIMERS: Duration = Duration::from_millis(1200);
/// Programs of each storm of the round before the first.
const WARM_UP: u32 = 500;
/// The latency scenario: alerts, and how many a second.
const LATENCY: (u32, u32) = (5000, 1000);
/// The idle scenario's time.
const IDLE: Duration = Duration::from_secs(20);

/// What a storm told of a monitor.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) elapsed: Duration,
    /// CPU time of the monitor in microseconds for each program.
    pub(crate) cpu_us: Option<f64>,
    /// Programs whose arguments it has; `None` without a monitor.
    pub(crate) captured: Option<u64>,
    pub(crate) memory: Option<Memory>,
    pub(crate) notes: Vec<String>,
}

/// All repetitions of a monitor in a scenario.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) monitor: &'static str,
    pub(crate) samples: Vec<Sample>,
}

/// Storms of one kind.
#[derive(Debug)]
pub(crate) struct Storms {
    pub(crate) scenario: &'static str,
    pub(crate) workers: u32,
    pub(crate) rows: Vec<Row>,
}

/// Times from an exec to its alert.
#[derive(Debug)]
pub(crate) struct Latency {
    pub(crate) execs: u32,
    pub(crate) rate: u32,
    /// In microseconds, sorted.
    pub(crate) sorted_us: Vec<f64>,
}

/// The daemon with nothing to do.
#[derive(Debug)]
pub(crate) struct Idle {
    pub(crate) time: Duration,
    pub(crate) cpu_percent: f64,
    pub(crate) wakeups: u64,
    /// Programs that others executed meanwhile, and processes they made.
    pub(crate) execs: u64,
    pub(crate) forks: u64,
    pub(crate) memory: Memory,
}

/// Everything that was measured.
#[derive(Debug)]
pub(crate) struct Results {
    pub(crate) execs: u32,
    pub(crate) rate: Option<u32>,
    pub(crate) repeat: u32,
    pub(crate) target: String,
    /// Which CPUs the daemon called exact.
    pub(crate) mode: String,
    pub(crate) skipped: Vec<String>,
    pub(crate) storms: Vec<Storms>,
    pub(crate) latency: Option<Latency>,
    pub(crate) idle: Option<Idle>,
}

/// Runs what was asked for.
pub(crate) fn run(options: &Options) -> Result<Results> {
    let folder = TempDir::with_prefix("execwatch-storm-")?;
    let Target { path, what } = target::make(options.target.as_deref(), folder.path())?;
    let lab = Lab {
        folder: folder.path(),
        target: &path,
        rules: options.rules.as_deref(),
        prototype: monitors::compile_prototype(folder.path()),
    };
    let mut results = Results {
        execs: options.execs,
        rate: options.rate,
        repeat: options.repeat,
        target: what,
        mode: Setup::shipped(&lab)?.start()?.mode.clone(),
        skipped: Vec::new(),
        storms: Vec::new(),
        latency: None,
        idle: None,
    };
    let wanted = |scenario| options.scenario == Scenario::All || options.scenario == scenario;
    let mut runner = Runner { options, lab, results: &mut results, storms: 0 };
    if wanted(Scenario::Nomatch) {
        runner.nomatch()?;
    }
    if wanted(Scenario::Match) {
        runner.matching()?;
    }
    if wanted(Scenario::Latency) {
        let latency = runner.latency()?;
        runner.results.latency = Some(latency);
    }
    if wanted(Scenario::Idle) {
        let idle = idle(&runner.lab)?;
        runner.results.idle = Some(idle);
    }
    Ok(results)
}

/// Starts a monitor.
type Start<'a> = dyn Fn(Kind, &Lab<'_>) -> Result<Option<Box<dyn Monitor>>> + 'a;

struct Runner<'a> {
    options: &'a Options,
    lab: Lab<'a>,
    results: &'a mut Results,
    /// Storms until now: each has tags of its own.
    storms: u32,
}

impl Runner<'_> {
    fn nomatch(&mut self) -> Result<()> {
        let mut kinds = Vec::new();
        for &kind in &self.options.monitors {
            match monitors::obstacle(kind, &self.lab) {
                Some(obstacle) => self.skip(kind, &obstacle),
                None if kinds.contains(&kind) => {}
                None => kinds.push(kind),
            }
        }
        self.compare("nomatch", &kinds, &monitors::start)
    }

    fn matching(&mut self) -> Result<()> {
        let target = self.lab.target;
        self.compare("match", &[Kind::None, Kind::Execwatch], &|kind, lab| {
            Ok(match kind {
                Kind::Execwatch => Some(Box::new(Setup::shipped(lab)?.matching(target).start()?)),
                _ => None,
            })
        })
    }

    fn skip(&mut self, kind: Kind, why: &str) {
        eprintln!("skipped: {}: {why}", kind.name());
        self.results.skipped.push(format!("{}: {why}", kind.name()));
    }

    /// Measures monitors in turns.
    fn compare(&mut self, scenario: &'static str, kinds: &[Kind], start: &Start<'_>) -> Result<()> {
        let warm_up_workers = self.options.workers.first().copied().unwrap_or(1);
        let mut fit = Vec::new();
        for &kind in kinds {
            if self.attempt(kind, warm_up_workers, WARM_UP, start)?.is_some() {
                fit.push(kind);
            }
        }
        let kinds = fit;
        for &workers in &self.options.workers {
            let mut rows: Vec<Row> =
                kinds.iter().map(|kind| Row { monitor: kind.name(), samples: Vec::new() }).collect();
            for repetition in 0..self.options.repeat as usize {
                for turn in 0..kinds.len() {
                    let place = (repetition + turn) % kinds.len();
                    let sample = self.attempt(kinds[place], workers, self.options.execs, start)?;
                    let Some(sample) = sample else { continue };
                    eprintln!(
                        "{scenario} workers={workers} repetition={} {}: {:.3} s{}",
                        repetition + 1,
                        kinds[place].name(),
                        sample.elapsed.as_secs_f64(),
                        sample.notes.iter().map(|note| format!("; {note}")).collect::<String>(),
                    );
                    rows[place].samples.push(sample);
                }
            }
            self.results.storms.push(Storms { scenario, workers, rows });
        }
        Ok(())
    }

    /// A storm. `None` if a peer fails: the others can still be compared.
    fn attempt(&mut self, kind: Kind, workers: u32, execs: u32, start: &Start<'_>) -> Result<Option<Sample>> {
        match self.storm(kind, workers, execs, start) {
            Err(error)
                if !interrupt::interrupted()
                    && !matches!(kind, Kind::None | Kind::Execwatch | Kind::NoIncidents) =>
            {
                self.skip(kind, &error.to_string());
                Ok(None)
            }
            outcome => outcome.map(Some),
        }
    }

    /// One storm with one monitor.
    fn storm(&mut self, kind: Kind, workers: u32, execs: u32, start: &Start<'_>) -> Result<Sample> {
        let tag = self.new_tag();
        let storm = Storm { target: self.lab.target, execs, workers, rate: self.options.rate };
        let Some(mut monitor) = start(kind, &self.lab)? else {
            let elapsed = storm.prepare(&tag)?.run()?;
            return Ok(Sample { elapsed, cpu_us: None, captured: None, memory: None, notes: Vec::new() });
        };
        let pids = monitor.pids();
        let cpu_ns = || pids.iter().map(|&pid| measure::cpu_ns(pid)).sum::<Result<u64>>();
        let workers = storm.prepare(&tag)?;
        monitor.begin()?;
        measure::wait_until_quiet(&pids, DRAIN_LIMIT)?;
        let before = cpu_ns()?;
        let elapsed = workers.run()?;
        interrupt::sleep(LAST_TIMERS)?;
        let drained = measure::wait_until_quiet(&pids, DRAIN_LIMIT)?;
        let used = cpu_ns()? - before;
        let memory = pids.first().map(|&pid| measure::memory(pid)).transpose()?;
        let mut captured = monitor.finish(Tags::new(&tag, execs), execs)?;
        if !drained {
            captured.notes.push(format!("still busy {} s after the storm", DRAIN_LIMIT.as_secs()));
        }
        Ok(Sample {
            elapsed,
            cpu_us: Some(used as f64 / 1000.0 / f64::from(execs)),
            captured: Some(captured.execs),
            memory,
            notes: captured.notes,
        })
    }

    fn new_tag(&mut self) -> String {
        self.storms += 1;
        format!("storm{}", self.storms)
    }

    fn latency(&mut self) -> Result<Latency> {
        let tag = self.new_tag();
        let (execs, rate) = LATENCY;
        let path = self.lab.folder.join("log.socket");
        let socket = UnixDatagram::bind(&path)?;
        let receiver = std::thread::Builder::new()
            .name("receiver".to_owned())
            .spawn(move || receive(&socket, execs as usize))?;
        let mut daemon =
            Setup::shipped(&self.lab)?.matching(self.lab.target).alerting_syslog(&path).start()?;
        let storm = Storm { target: self.lab.target, execs, workers: 1, rate: Some(rate) };
        let workers = storm.prepare(&tag)?;
        daemon.begin()?;
        measure::wait_until_quiet(&daemon.pids(), DRAIN_LIMIT)?;
        workers.run()?;
        interrupt::sleep(LAST_TIMERS)?;
        measure::wait_until_quiet(&daemon.pids(), DRAIN_LIMIT)?;
        drop(daemon);
        // The daemon has ended, so nothing comes after this.
        UnixDatagram::unbound()?.send_to(LAST, &path)?;
        let received = receiver.join().map_err(|_| "the receiver failed")??;
        let mut sorted_us = latencies(&received, &tag, execs)?;
        sorted_us.sort_by(f64::total_cmp);
        Ok(Latency { execs, rate, sorted_us })
    }
}

/// The datagram that ends the receiver.
const LAST: &[u8] = b"the last one";
/// Longest syslog message.
const LONGEST: usize = 16 * 1024;

/// Takes datagrams, each with the time just after it came. What they say is looked at later.
fn receive(socket: &UnixDatagram, expected: usize) -> std::io::Result<Vec<(u64, Vec<u8>)>> {
    let mut received = Vec::with_capacity(expected * 2);
    let mut buffer = vec![0; LONGEST];
    loop {
        let length = socket.recv(&mut buffer)?;
        let time = measure::realtime_ns();
        let bytes = buffer.get(..length).unwrap_or_default();
        if bytes == LAST {
            return Ok(received);
        }
        received.push((time, bytes.to_vec()));
    }
}

/// For each program of the storm the time from the exec's own stamp to the arrival, in microseconds.
fn latencies(received: &[(u64, Vec<u8>)], tag: &str, execs: u32) -> Result<Vec<f64>> {
    let mut by_argument: HashMap<String, f64> = HashMap::new();
    let prefix = format!("{tag}-");
    for (time_ns, message) in received {
        let Some(start) = message.iter().position(|&byte| byte == b'{') else { continue };
        let alert: Value = serde_json::from_slice(&message[start..])?;
        let Some(argument) = alert["process"]["args"][1].as_str().filter(|word| word.starts_with(&prefix))
        else {
            continue;
        };
        let stamp = alert["@timestamp"].as_str().and_then(time_of_day_us).ok_or("an alert has no time")?;
        // Both are times of a day in UTC, so the day itself need not be known.
        let arrival = *time_ns as f64 / 1000.0 % DAY_US;
        by_argument
            .entry(argument.to_owned())
            .or_insert((arrival - stamp + DAY_US / 2.0).rem_euclid(DAY_US) - DAY_US / 2.0);
    }
    if by_argument.len() < execs as usize {
        eprintln!("latency: {} of {execs} alerts came", by_argument.len());
    }
    Ok(by_argument.into_values().collect())
}

const DAY_US: f64 = 86_400e6;

/// Microseconds since midnight of a time such as `2026-11-24T13:45:32.000000Z`.
fn time_of_day_us(time: &str) -> Option<f64> {
    let clock = time.split_once('T')?.1.strip_suffix('Z')?;
    let parts: Vec<f64> = clock.split(':').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let [hours, minutes, seconds] = parts[..] else { return None };
    Some((hours * 3600.0 + minutes * 60.0 + seconds) * 1e6)
}

/// The daemon as shipped, with nothing to do but what others execute.
fn idle(lab: &Lab<'_>) -> Result<Idle> {
    let mut daemon: Execwatch = Setup::shipped(lab)?.start()?;
    let pid = daemon.pid();
    interrupt::sleep(LAST_TIMERS)?;
    let counted = daemon.totals()?;
    measure::wait_until_quiet(&[pid], DRAIN_LIMIT)?;
    let before = (measure::cpu_ns(pid)?, measure::wakeups(pid)?, measure::monotonic_ns());
    interrupt::sleep(IDLE)?;
    let after = (measure::cpu_ns(pid)?, measure::wakeups(pid)?, measure::monotonic_ns());
    let memory = measure::memory(pid)?;
    let now = daemon.totals()?;
    let of = |name: &str| now.get(name).copied().unwrap_or(0) - counted.get(name).copied().unwrap_or(0);
    Ok(Idle {
        time: Duration::from_nanos(after.2 - before.2),
        cpu_percent: (after.0 - before.0) as f64 * 100.0 / (after.2 - before.2) as f64,
        wakeups: after.1 - before.1,
        execs: of("execs"),
        forks: of("forks"),
        memory,
    })
}
