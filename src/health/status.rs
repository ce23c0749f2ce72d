//! How the daemon is: everything that `execwatch status`, metrics and heartbeats tell, gathered from where it is counted.
//!
//! Nothing here takes a lock that a listener takes: counts are atomic, and what changes seldom is put here by whoever
//! changes it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Counters, Totals};
use crate::calendar;
use crate::clock;
use crate::connector::replace::Watched;
use crate::journal;
use crate::journal::progress::Condition;
use crate::process::queue::ExecQueue;
use crate::rules::ruleset::RuleSet;

/// Rates are those of so many seconds.
const RATES_OVER: usize = 60;

/// How a listener works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// One CPU's; programs are held while they are read.
    Exact,
    /// One CPU's; programs run while they are read.
    BestEffort,
    /// That of all CPUs that have none of their own; programs run while they are read.
    CatchAll,
}

impl Mode {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Exact => "exact",
            Mode::BestEffort => "best-effort",
            Mode::CatchAll => "catch-all",
        }
    }
}

/// What the daemon says about itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Of execwatch.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// When it was started (RFC 3339).
    pub started: String,
    /// Seconds since.
    pub uptime_s: u64,
    /// See [`fingerprint`](super::fingerprint).
    pub configuration: String,
    /// Who sees nothing now; empty if all is well.
    pub blind: Vec<Blind>,
    /// Of whom it is not known: they saw nothing for long, and could not be tried.
    #[serde(default)]
    pub untried: Vec<Untried>,
    /// The listeners.
    pub listeners: Vec<Listener>,
    /// How much happens.
    pub rates: Rates,
    /// What waits for the worker.
    pub queue: Queue,
    /// Where records go.
    pub outputs: Vec<Output>,
    /// Where they are written down before.
    pub journal: Journal,
    /// The rules that are switched on.
    pub rules: Vec<Rule>,
    /// The exceptions.
    pub exceptions: Vec<Rule>,
    /// What is remembered as seen before.
    pub baseline: Baseline,
    /// How the daemon tries whether it sees.
    pub canary: Canary,
    /// What was said last about losses, and when; `None` if nothing was lost.
    pub last_loss: Option<Said>,
    /// Whether responses are armed, and what is held.
    #[serde(default)]
    pub responses: Value,
    /// How often configuration and rules were reloaded or refused, and what came of the last time.
    #[serde(default)]
    pub reloads: Value,
    /// What the daemon costs.
    pub cost: Cost,
    /// Everything that is counted.
    pub totals: Totals,
}

/// A listener that sees nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blind {
    /// Its CPU; `None` for the listener of those that have none of their own.
    pub cpu: Option<u32>,
    /// When it certainly saw something last (RFC 3339).
    pub since: String,
}

/// A listener of which nobody knows whether it sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Untried {
    /// Its CPU; `None` for the listener of those that have none of their own.
    pub cpu: Option<u32>,
    /// Why no canary could be executed there.
    pub reason: String,
}

/// A listener. The counts are those of all that had its place since the start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// Its CPU; `None` for the listener of those that have none of their own.
    pub cpu: Option<u32>,
    /// How it works.
    pub mode: Mode,
    /// Programs executed.
    pub execs: u64,
    /// Of these, read while they were certainly held.
    pub exact: u64,
    /// Ended before they were read.
    pub gone: u64,
    /// A rule could match them, and the queue was full.
    pub lost: u64,
    /// Times the socket's queue overflowed.
    pub overruns: u64,
    /// Events the kernel discarded for that.
    pub dropped: u64,
    /// Forged, malformed and unexpected datagrams.
    pub strange: u64,
    /// The longest time a program was held, in microseconds.
    pub longest_hold_us: u64,
    /// When the last program was executed (RFC 3339); `None` before the first.
    pub last_event: Option<String>,
}

/// How much happens.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Rates {
    /// Over so many seconds.
    pub over_s: u64,
    /// Programs executed a second.
    pub execs_per_s: f64,
    /// Alerts a second.
    pub alerts_per_s: f64,
}

/// A queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    /// Programs that wait for evaluation.
    pub waiting: usize,
    /// For so many there is room.
    pub places: usize,
    /// Bytes of their argument lists and paths.
    pub bytes: usize,
}

/// An output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// Its name and place.
    pub name: String,
    /// What it does.
    pub state: Condition,
    /// Records written since the start.
    pub written: u64,
    /// Records that it will never send.
    pub lost: u64,
    /// Records that wait for it.
    pub waiting: u64,
    /// How long the one it is about to send has waited, in seconds; 0 if none waits.
    pub lag_s: u64,
    /// What failed last, and when; `None` if nothing has.
    pub last_error: Option<Said>,
}

/// The journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    /// Records are written to files; otherwise they are in memory only.
    pub on_disk: bool,
    /// Bytes of all its files.
    pub bytes: u64,
    /// Their number.
    pub files: usize,
    /// Records that can still be had.
    pub records: u64,
    /// Records that were not taken for want of room.
    pub dropped: u64,
}

/// A rule or an exception.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Its id.
    pub id: String,
    /// How often it took effect since the daemon was started.
    pub hits: u64,
}

/// What is remembered as seen before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Baseline {
    /// Tuples.
    pub rows: u64,
    /// Forgotten for want of room.
    pub evicted: u64,
}

/// How the daemon tries whether it sees.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Canary {
    /// After so many seconds without an exec; `None`: never.
    pub period_s: Option<f64>,
    /// Programs of its own that it executed for that.
    pub executed: u64,
    /// Of these, not seen.
    pub unseen: u64,
    /// When the last was executed (RFC 3339), and what came of it.
    pub last: Option<Said>,
    /// Listeners that were replaced.
    pub replaced: u64,
    /// Replaced listeners whose threads have not ended yet.
    pub hanging: u64,
    /// Looks at all running programs, after losses.
    pub looks: u64,
}

/// Something that was said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// When (RFC 3339).
    pub at: String,
    /// What.
    pub what: String,
}

impl Said {
    /// What was said at a moment in nanoseconds since 1970.
    pub fn new(at_ns: u64, what: impl Into<String>) -> Self {
        Said { at: calendar::rfc3339(at_ns), what: what.into() }
    }
}

/// What the daemon costs.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Cost {
    /// CPU time since the start, in seconds.
    pub cpu_s: f64,
    /// Resident memory in bytes.
    pub memory_bytes: u64,
}

impl Cost {
    /// Of this process; zeros if /proc does not tell.
    pub fn own() -> Cost {
        let Ok(process) = procfs::process::Process::myself() else { return Cost::default() };
        let ticks = process.stat().map_or(0, |stat| stat.utime + stat.stime);
        Cost {
            cpu_s: ticks as f64 / procfs::ticks_per_second().max(1) as f64,
            memory_bytes: process.statm().map_or(0, |memory| memory.resident) * procfs::page_size(),
        }
    }
}

/// Counts of the canary.
#[derive(Debug, Default)]
pub struct CanaryCounts {
    /// See [`Canary`].
    pub executed: AtomicU64,
    /// See [`Canary`].
    pub unseen: AtomicU64,
    /// See [`Canary`].
    pub replaced: AtomicU64,
    /// See [`Canary`].
    pub hanging: AtomicU64,
    /// See [`Canary`].
    pub looks: AtomicU64,
}

/// Where everything that a [`Status`] tells is found.
pub struct Health {
    started: Instant,
    started_ns: u64,
    canary_period: Option<Duration>,
    counters: Arc<Counters>,
    queue: ExecQueue,
    delivery: journal::status::Status,
    /// Counts of the canary.
    pub canary: CanaryCounts,
    kept: Mutex<Kept>,
}

/// What changes seldom.
#[derive(Default)]
struct Kept {
    configuration: String,
    ruleset: Arc<RuleSet>,
    listeners: Vec<Watched>,
    /// By CPU, and when each certainly saw something last, on the monotonic clock.
    blind: Vec<(Option<u32>, u64)>,
    untried: Vec<Untried>,
    last_canary: Option<Said>,
    last_loss: Option<Said>,
    /// Execs and alerts at these moments, a second apart.
    samples: VecDeque<(Instant, u64, u64)>,
}

impl Health {
    /// Of a daemon that has just been started.
    pub fn new(
        canary_period: Option<Duration>,
        counters: Arc<Counters>,
        queue: ExecQueue,
        delivery: journal::status::Status,
    ) -> Self {
        Health {
            started: Instant::now(),
            started_ns: clock::realtime_ns(),
            canary_period,
            counters,
            queue,
            delivery,
            canary: CanaryCounts::default(),
            kept: Mutex::default(),
        }
    }

    /// The fingerprint of what is in force.
    pub fn set_configuration(&self, fingerprint: String) {
        self.kept().configuration = fingerprint;
    }

    /// The rules in force, whose hits already go on from those of the rules before: a count that falls is taken for a
    /// restart by whoever reads the metrics.
    pub fn set_rules(&self, ruleset: Arc<RuleSet>) {
        // What is dropped here is dropped without the lock.
        let _before = std::mem::replace(&mut self.kept().ruleset, ruleset);
    }

    /// The listeners there are.
    pub fn set_listeners(&self, listeners: Vec<Watched>) {
        self.kept().listeners = listeners;
    }

    /// Who sees nothing, and since when on the monotonic clock.
    pub fn set_blind(&self, blind: Vec<(Option<u32>, u64)>) {
        self.kept().blind = blind;
    }

    /// Of whom it is not known whether they see.
    pub fn set_untried(&self, untried: Vec<Untried>) {
        self.kept().untried = untried;
    }

    /// What came of the last canary.
    pub fn set_last_canary(&self, said: Said) {
        self.kept().last_canary = Some(said);
    }

    /// What was said last about losses.
    pub fn set_last_loss(&self, said: Said) {
        self.kept().last_loss = Some(said);
    }

    /// Notes how much has happened until now; to be called every second.
    pub fn sample(&self, totals: &Totals) {
        let mut kept = self.kept();
        if kept.samples.len() > RATES_OVER {
            kept.samples.pop_front();
        }
        kept.samples.push_back((Instant::now(), totals.execs, totals.alerts));
    }

    /// How the daemon is.
    pub fn status(&self) -> Status {
        let totals = self.counters.totals();
        let queue = self.queue.depth();
        let kept = self.kept();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started: calendar::rfc3339(self.started_ns),
            uptime_s: self.started.elapsed().as_secs(),
            configuration: kept.configuration.clone(),
            blind: kept
                .blind
                .iter()
                .map(|&(cpu, since_ns)| Blind {
                    cpu,
                    since: calendar::rfc3339(clock::wall_from_monotonic(since_ns)),
                })
                .collect(),
            untried: kept.untried.clone(),
            listeners: self.listeners(&kept.listeners),
            rates: rates(&kept.samples, &totals),
            queue: Queue { waiting: queue.waiting, places: queue.places, bytes: queue.bytes },
            outputs: self.outputs(),
            journal: self.journal(),
            rules: kept
                .ruleset
                .rules()
                .iter()
                .filter(|rule| rule.enabled)
                .map(|rule| Rule { id: rule.id.clone(), hits: rule.hits() })
                .collect(),
            exceptions: kept
                .ruleset
                .exceptions()
                .iter()
                .map(|exception| Rule { id: exception.id.clone(), hits: exception.hits() })
                .collect(),
            baseline: Baseline { rows: totals.baseline.rows, evicted: totals.baseline.evicted },
            canary: Canary {
                period_s: self.canary_period.map(|period| period.as_secs_f64()),
                executed: self.canary.executed.load(Relaxed),
                unseen: self.canary.unseen.load(Relaxed),
                last: kept.last_canary.clone(),
                replaced: self.canary.replaced.load(Relaxed),
                hanging: self.canary.hanging.load(Relaxed),
                looks: self.canary.looks.load(Relaxed),
            },
            last_loss: kept.last_loss.clone(),
            responses: Value::Null,
            reloads: Value::Null,
            cost: Cost::own(),
            totals,
        }
    }

    fn outputs(&self) -> Vec<Output> {
        let outputs = self.delivery.outputs(clock::realtime_ns()).into_iter();
        let output = |output: journal::status::OutputStatus| Output {
            name: output.name,
            state: output.condition,
            written: output.written,
            lost: output.lost,
            waiting: output.lag,
            lag_s: output.lag_s,
            last_error: output.last_error.map(|(what, at_ns)| Said::new(at_ns, what)),
        };
        outputs.map(output).collect()
    }

    fn journal(&self) -> Journal {
        let journal = self.delivery.journal();
        Journal {
            on_disk: journal.on_disk,
            bytes: journal.bytes,
            files: journal.segments,
            records: journal.oldest.map_or(0, |oldest| journal.newest.saturating_sub(oldest) + 1),
            dropped: journal.dropped,
        }
    }

    /// A row for each place of a listener, with the counts of all that ever had it. A place that is no more stays, so that
    /// no count disappears.
    fn listeners(&self, now: &[Watched]) -> Vec<Listener> {
        let mut rows: BTreeMap<(bool, Option<u32>), Listener> = BTreeMap::new();
        for counters in self.counters.listeners() {
            let cpu = counters.cpu;
            let row = rows.entry((cpu.is_none(), cpu)).or_insert_with(|| Listener {
                cpu,
                mode: mode(cpu, now),
                execs: 0,
                exact: 0,
                gone: 0,
                lost: 0,
                overruns: 0,
                dropped: 0,
                strange: 0,
                longest_hold_us: 0,
                last_event: None,
            });
            row.execs += counters.execs.load(Relaxed);
            row.exact += counters.exact.load(Relaxed);
            row.gone += counters.gone.load(Relaxed);
            row.lost += counters.queue_full.load(Relaxed);
            row.overruns += counters.overruns.load(Relaxed);
            row.dropped += counters.dropped.load(Relaxed);
            row.strange += counters.strange();
            row.longest_hold_us = row.longest_hold_us.max(counters.longest_hold_ns.load(Relaxed) / 1000);
            let last_ns = counters.last_event_ns.load(Relaxed);
            if last_ns > 0 {
                row.last_event = Some(calendar::rfc3339(clock::wall_from_monotonic(last_ns)));
            }
        }
        rows.into_values().collect()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn mode(cpu: Option<u32>, now: &[Watched]) -> Mode {
    let exact = now.iter().any(|listener| listener.cpu == cpu && listener.exact);
    match cpu {
        None => Mode::CatchAll,
        Some(_) if exact => Mode::Exact,
        Some(_) => Mode::BestEffort,
    }
}

fn rates(samples: &VecDeque<(Instant, u64, u64)>, totals: &Totals) -> Rates {
    let Some(&(then, execs, alerts)) = samples.front() else { return Rates::default() };
    let elapsed = then.elapsed().as_secs_f64().max(0.001);
    let per_s = |now: u64, before: u64| {
        // To the thousandth: more is noise.
        (now.saturating_sub(before) as f64 / elapsed * 1000.0).round() / 1000.0
    };
    Rates {
        over_s: elapsed.round() as u64,
        execs_per_s: per_s(totals.execs, execs),
        alerts_per_s: per_s(totals.alerts, alerts),
    }
}
