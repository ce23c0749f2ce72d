//! The results as tables and as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::measure::{median, percentile, realtime_ns};
use crate::scenarios::{Idle, Latency, Results, Row, Sample, Storms};

/// The percentiles of latencies.
const PARTS: [(&str, f64); 5] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

/// The machine and the day.
fn environment(results: &Results) -> Value {
    let read =
        |path: &str| std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model =
        cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, name)| name);
    json!({
        "kernel": read("/proc/sys/kernel/osrelease"),
        "build": read("/proc/sys/kernel/version"),
        "architecture": std::env::consts::ARCH,
        "cpus": std::thread::available_parallelism().map_or(1, usize::from),
        "cpu_model": model,
        "load": read("/proc/loadavg").split(' ').next(),
        "time": execwatch::calendar::rfc3339(realtime_ns()),
        "execwatch": env!("CARGO_PKG_VERSION"),
        "mode": results.mode,
    })
}

/// The medians of a monitor.
struct Medians {
    elapsed_s: f64,
    slow_down: Option<f64>,
    /// The ratio of the fastest storms, which other work on the machine disturbs least.
    fastest: Option<f64>,
    cpu_us: Option<f64>,
    to_prototype: Option<f64>,
    /// The worst of all repetitions: a median would hide a loss.
    captured: Option<u64>,
    peak_kib: Option<f64>,
}

fn medians(row: &Row, storms: &Storms) -> Medians {
    let of = |row: &Row, figure: fn(&Sample) -> Option<f64>| median(row.samples.iter().filter_map(figure));
    let elapsed = |row: &Row| of(row, |sample| Some(sample.elapsed.as_secs_f64()));
    let least = |row: &Row| row.samples.iter().map(|sample| sample.elapsed.as_secs_f64()).reduce(f64::min);
    let cpu = |row: &Row| of(row, |sample| sample.cpu_us);
    let other = |name: &str| storms.rows.iter().find(|other| other.monitor == name);
    let ratio = |own: Option<f64>, base: Option<f64>| Some(own? / base.filter(|base| *base > 0.0)?);
    Medians {
        elapsed_s: elapsed(row).unwrap_or(0.0),
        slow_down: ratio(elapsed(row), other("none").and_then(elapsed)),
        fastest: ratio(least(row), other("none").and_then(least)),
        cpu_us: cpu(row),
        to_prototype: ratio(cpu(row), other("prototype").and_then(cpu)),
        captured: row.samples.iter().filter_map(|sample| sample.captured).min(),
        peak_kib: of(row, |sample| sample.memory.map(|memory| memory.peak as f64)),
    }
}

/// A number, or a dash.
fn cell(value: Option<f64>, decimals: usize) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.decimals$}"))
}

/// The results for people.
pub(crate) fn table(results: &Results) -> String {
    let environment = environment(results);
    let word = |name: &str| environment[name].as_str().unwrap_or("?").to_owned();
    let mut text = format!(
        "execwatch {} ({}), {}\nLinux {} {} {}, {} CPUs ({}), load {}\n",
        word("execwatch"),
        results.mode,
        word("time"),
        word("kernel"),
        word("build"),
        word("architecture"),
        environment["cpus"],
        word("cpu_model"),
        word("load"),
    );
    let rate = results.rate.map_or("as fast as it goes".to_owned(), |rate| format!("{rate} a second"));
    let _ = writeln!(
        text,
        "storms of {} programs, {rate}, {} repetitions; the target is {}",
        results.execs, results.repeat, results.target
    );
    for skipped in &results.skipped {
        let _ = writeln!(text, "skipped: {skipped}");
    }
    if !results.storms.is_empty() {
        text += "\
captured: in the worst repetition; the other columns are medians. CPU: microseconds of the monitor's own processes for each
program, not what the kernel does on behalf of the program (bpftrace, audit), which only shows in the slow-down. slow-down:
of the medians, to none; fastest: the same of the fastest repetitions, which other work on the machine disturbs least.\n";
    }
    for storms in &results.storms {
        let _ = write!(text, "\n{}, {} workers\n", storms.scenario, storms.workers);
        let _ = writeln!(
            text,
            "  {:<12} {:>8} {:>10} {:>8} {:>8} {:>10} {:>10} {:>8} {:>10}",
            "monitor", "captured", "%", "CPU us", "/proto", "elapsed s", "slow-down", "fastest", "VmHWM KiB"
        );
        for row in &storms.rows {
            let figures = medians(row, storms);
            let percent = figures.captured.map(|captured| captured as f64 * 100.0 / f64::from(results.execs));
            let _ = writeln!(
                text,
                "  {:<12} {:>8} {:>10} {:>8} {:>8} {:>10} {:>10} {:>8} {:>10}",
                row.monitor,
                figures.captured.map_or("-".to_owned(), |captured| captured.to_string()),
                cell(percent, 3),
                cell(figures.cpu_us, 1),
                cell(figures.to_prototype, 2),
                cell(Some(figures.elapsed_s), 3),
                cell(figures.slow_down, 2),
                cell(figures.fastest, 2),
                cell(figures.peak_kib, 0),
            );
        }
    }
    if let Some(latency) = &results.latency {
        let _ = write!(
            text,
            "\nlatency, from the exec to the alert at a syslog socket: {} of {} alerts at {} a second\n ",
            latency.sorted_us.len(),
            latency.execs,
            latency.rate
        );
        for (name, part) in PARTS {
            let _ = write!(text, " {name} {} us", cell(percentile(&latency.sorted_us, part), 0));
        }
        text += "\n";
    }
    if let Some(idle) = &results.idle {
        let _ = write!(
            text,
            "\nidle for {:.1} s, while others executed {} programs and made {} processes\n  CPU {:.4} %, {} wake-ups, \
             VmRSS {} KiB, VmHWM {} KiB\n",
            idle.time.as_secs_f64(),
            idle.execs,
            idle.forks,
            idle.cpu_percent,
            idle.wakeups,
            idle.memory.resident,
            idle.memory.peak
        );
    }
    text
}

/// The results for programs.
pub(crate) fn json(results: &Results) -> Value {
    json!({
        "environment": environment(results),
        "execs": results.execs,
        "rate": results.rate,
        "repeat": results.repeat,
        "target": results.target,
        "skipped": results.skipped,
        "storms": results.storms.iter().map(storms_json).collect::<Vec<_>>(),
        "latency": results.latency.as_ref().map(latency_json),
        "idle": results.idle.as_ref().map(idle_json),
    })
}

fn storms_json(storms: &Storms) -> Value {
    let rows = storms.rows.iter().map(|row| {
        let figures = medians(row, storms);
        json!({
            "monitor": row.monitor,
            "captured_worst": figures.captured,
            "cpu_us_per_exec": figures.cpu_us,
            "cpu_to_prototype": figures.to_prototype,
            "elapsed_s": figures.elapsed_s,
            "slow_down": figures.slow_down,
            "slow_down_of_fastest": figures.fastest,
            "peak_kib": figures.peak_kib,
            "samples": row.samples.iter().map(sample_json).collect::<Vec<_>>(),
        })
    });
    json!({ "scenario": storms.scenario, "workers": storms.workers, "monitors": rows.collect::<Vec<_>>() })
}

fn sample_json(sample: &Sample) -> Value {
    json!({
        "elapsed_s": sample.elapsed.as_secs_f64(),
        "cpu_us_per_exec": sample.cpu_us,
        "captured": sample.captured,
        "resident_kib": sample.memory.map(|memory| memory.resident),
        "peak_kib": sample.memory.map(|memory| memory.peak),
        "notes": sample.notes,
    })
}

fn latency_json(latency: &Latency) -> Value {
    let parts = PARTS.map(|(name, part)| (name.to_owned(), json!(percentile(&latency.sorted_us, part))));
    json!({
        "execs": latency.execs,
        "rate": latency.rate,
        "received": latency.sorted_us.len(),
        "us": parts.into_iter().collect::<serde_json::Map<_, _>>(),
    })
}

fn idle_json(idle: &Idle) -> Value {
    json!({
        "seconds": idle.time.as_secs_f64(),
        "cpu_percent": idle.cpu_percent,
        "wakeups": idle.wakeups,
        "execs_of_others": idle.execs,
        "forks_of_others": idle.forks,
        "resident_kib": idle.memory.resident,
        "peak_kib": idle.memory.peak,
    })
}
