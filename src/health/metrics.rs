//! The daemon's status for Prometheus: the text exposition format 0.0.4, and the file that node_exporter reads.
//!
//! Names follow Prometheus' conventions: counters end in `_total` and never fall while the daemon runs, units are seconds
//! and bytes.

use std::fmt::{self, Write as _};
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::Totals;
use super::status::{Health, Mode, Output, Status};
use crate::calendar;
use crate::harden;
use crate::harden::roles::Role;
use crate::journal::progress::Condition;

/// The media type of [`exposition`].
pub const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
}

/// Writes families of samples.
#[derive(Default)]
struct Exposition(String);

impl Exposition {
    fn family(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "# HELP execwatch_{name} {}\n# TYPE execwatch_{name} {kind}", Help(help));
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl fmt::Display) {
        let _ = write!(self.0, "execwatch_{name}");
        for (at, (label, text)) in labels.iter().enumerate() {
            let _ = write!(self.0, "{}{label}=\"{}\"", if at == 0 { '{' } else { ',' }, Label(text));
        }
        let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    fn single(&mut self, name: &str, kind: Kind, help: &str, value: impl fmt::Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }
}

/// A text of HELP, where a backslash and a newline are escaped.
struct Help<'t>(&'t str);

impl fmt::Display for Help<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        escape(self.0, false, f)
    }
}

/// The value of a label, where quotation marks are escaped too.
struct Label<'t>(&'t str);

impl fmt::Display for Label<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        escape(self.0, true, f)
    }
}

fn escape(text: &str, quotes: bool, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for letter in text.chars() {
        match letter {
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '"' if quotes => f.write_str("\\\"")?,
            letter => f.write_char(letter)?,
        }
    }
    Ok(())
}

/// A counter or gauge without labels: its name, what it means, and where it is found in the totals.
type Total = (&'static str, &'static str, fn(&Totals) -> u64);

/// A gauge of each output.
type OutputGauge = (&'static str, &'static str, fn(&Output) -> u64);

const OUTPUT_GAUGES: [OutputGauge; 3] = [
    ("output_working", "1 if the last attempt at writing succeeded.", |output| {
        u64::from(output.state == Condition::Working)
    }),
    ("output_waiting_records", "Records that wait for it.", |output| output.waiting),
    ("output_lag_seconds", "How long the record it is about to send has waited.", |output| output.lag_s),
];

const COUNTERS: [Total; 30] = [
    ("execs_likely_total", "Programs read so late that the scheduler might have moved them.", |t| t.likely),
    ("execs_best_effort_total", "Programs read without being held.", |t| t.best_effort),
    ("arguments_cut_total", "Argument lists cut at [capture] args-limit.", |t| t.cut),
    ("candidates_total", "Programs that a rule could match at first sight.", |t| t.candidates),
    ("files_unidentified_total", "Files of which it is not known whether they are a utility's.", |t| {
        t.unidentified
    }),
    ("alerts_total", "Alerts told by themselves.", |t| t.alerts),
    ("alerts_already_running_total", "Of these, for programs that were found running.", |t| {
        t.already_running
    }),
    ("alerts_found_late_total", "Of these, for programs whose execution was missed.", |t| t.found_late),
    ("alerts_repeated_total", "Alerts folded because they repeat another.", |t| t.repeated),
    ("alerts_held_back_total", "Alerts folded because there were many of one rule and subject.", |t| {
        t.held_back
    }),
    ("matches_silenced_total", "Matches of rules that an exception silenced.", |t| t.silenced),
    ("matches_known_total", "Matches of rules silenced because they are known here.", |t| {
        t.baseline.silenced
    }),
    ("forks_total", "Processes made.", |t| t.forks),
    ("exits_total", "Processes ended.", |t| t.exits),
    ("event_overruns_total", "Times forks and exits overflowed their buffer.", |t| t.event_overruns),
    ("events_dropped_total", "Forks and exits discarded by the kernel.", |t| t.events_dropped),
    ("processes_evicted_total", "Processes forgotten for want of room in the table.", |t| t.evicted),
    ("execs_unfollowed_total", "Programs that lineage does not know of.", |t| t.execs_unfollowed),
    ("followups_total", "Records of what programs did after their alerts.", |t| t.follow_ups),
    ("alerts_not_followed_total", "Alerts that were not followed for want of room.", |t| t.not_followed),
    ("alerts_let_go_total", "Alerts followed no longer because others needed their place.", |t| t.let_go),
    ("responses_prevented_total", "Programs killed or stopped before their first instruction.", |t| {
        t.prevented
    }),
    ("responses_contained_total", "Programs acted on after they had begun to run.", |t| t.contained),
    ("responses_refused_total", "Responses that a guard rail refused.", |t| t.refused),
    ("responses_dry_run_total", "Responses that were not carried out because of dry run.", |t| t.dry_run),
    ("responses_missed_total", "Responses whose programs had gone, or that failed.", |t| t.missed),
    ("responses_unrecorded_total", "Programs acted on without an alert, for want of room.", |t| t.unrecorded),
    ("incidents_total", "Incidents that opened.", |t| t.incidents),
    ("incidents_unsaved_total", "Parts of incidents that could not be written.", |t| t.incidents_unsaved),
    ("baseline_evicted_total", "Tuples forgotten for want of room.", |t| t.baseline.evicted),
];

const GAUGES: [Total; 2] = [
    ("processes", "Processes in the table.", |t| t.processes),
    ("baseline_rows", "Tuples that are remembered as seen before.", |t| t.baseline.rows),
];

/// The status in the exposition format.
pub fn exposition(status: &Status) -> String {
    use Kind::{Counter, Gauge};
    let mut out = Exposition::default();
    out.family("info", Gauge, "Version and fingerprint of the configuration.");
    out.sample("info", &[("version", &status.version), ("configuration", &status.configuration)], 1);
    let started = calendar::parse_rfc3339(&status.started).map_or(0.0, |(time_ns, _)| time_ns as f64 / 1e9);
    out.single("start_time_seconds", Gauge, "When the daemon was started, in seconds since 1970.", started);
    out.single("cpu_seconds_total", Counter, "CPU time of the daemon.", status.cost.cpu_s);
    out.single("resident_memory_bytes", Gauge, "Resident memory of the daemon.", status.cost.memory_bytes);
    listeners(&mut out, status);
    for (name, help, value) in COUNTERS {
        out.single(name, Counter, help, value(&status.totals));
    }
    for (name, help, value) in GAUGES {
        out.single(name, Gauge, help, value(&status.totals));
    }
    out.single("queue_waiting", Gauge, "Programs that wait for evaluation.", status.queue.waiting);
    out.single("queue_places", Gauge, "Programs that may wait for evaluation.", status.queue.places);
    out.single("queue_bytes", Gauge, "Bytes of the programs that wait.", status.queue.bytes);
    let canary = &status.canary;
    out.single("canaries_total", Counter, "Programs executed to see whether they are seen.", canary.executed);
    out.single("canaries_unseen_total", Counter, "Of these, not seen.", canary.unseen);
    out.single(
        "listeners_replaced_total",
        Counter,
        "Listeners replaced because they saw nothing.",
        canary.replaced,
    );
    out.single("listeners_hanging", Gauge, "Replaced listeners that have not ended yet.", canary.hanging);
    out.single("looks_total", Counter, "Looks at all running programs after losses.", canary.looks);
    let outputs = status.outputs.iter();
    labelled(
        &mut out,
        "output",
        [("output_written_total", "Records written."), ("output_lost_total", "Records lost.")],
        outputs.clone().map(|output| (output.name.as_str(), [output.written, output.lost])),
    );
    for (name, help, value) in OUTPUT_GAUGES {
        out.family(name, Gauge, help);
        for output in outputs.clone() {
            out.sample(name, &[("output", &output.name)], value(output));
        }
    }
    let journal = &status.journal;
    out.single("journal_on_disk", Gauge, "1 if records are written to files.", u8::from(journal.on_disk));
    out.single("journal_bytes", Gauge, "Bytes of the journal's files.", journal.bytes);
    out.single("journal_records", Gauge, "Records that can still be had.", journal.records);
    out.single("journal_dropped_total", Counter, "Records not taken for want of room.", journal.dropped);
    let hits = |rules: &[super::status::Rule]| -> Vec<(String, [u64; 1])> {
        rules.iter().map(|rule| (rule.id.clone(), [rule.hits])).collect()
    };
    for (label, name, help, rules) in [
        (
            "rule",
            "rule_hits_total",
            "Times a rule took effect: matches that no exception silenced.",
            hits(&status.rules),
        ),
        (
            "exception",
            "exception_hits_total",
            "Matches that an exception silenced.",
            hits(&status.exceptions),
        ),
    ] {
        labelled(&mut out, label, [(name, help)], rules.iter().map(|(id, hits)| (id.as_str(), *hits)));
    }
    out.0
}

fn listeners(out: &mut Exposition, status: &Status) {
    use Kind::Gauge;
    let cpus: Vec<String> = status.listeners.iter().map(|listener| place(listener.cpu)).collect();
    let rows = || cpus.iter().map(String::as_str).zip(&status.listeners);
    labelled(
        out,
        "cpu",
        [
            ("execs_total", "Programs executed."),
            ("execs_exact_total", "Of these, read while they were certainly held."),
            ("execs_gone_total", "Programs that ended before they were read."),
            ("execs_lost_total", "Programs that a rule could match and that found the queue full."),
            ("overruns_total", "Times exec events overflowed a listener's buffer."),
            ("dropped_total", "Exec events discarded by the kernel."),
            ("strange_datagrams_total", "Forged, malformed and unexpected datagrams."),
        ],
        rows().map(|(cpu, row)| {
            (cpu, [row.execs, row.exact, row.gone, row.lost, row.overruns, row.dropped, row.strange])
        }),
    );
    out.family("longest_hold_seconds", Gauge, "The longest time a program was held.");
    for (cpu, row) in rows() {
        out.sample("longest_hold_seconds", &[("cpu", cpu)], row.longest_hold_us as f64 / 1e6);
    }
    out.family("listener_mode", Gauge, "How a listener works: 1 for its mode.");
    for (cpu, row) in rows() {
        for mode in [Mode::Exact, Mode::BestEffort, Mode::CatchAll] {
            let is = u8::from(row.mode == mode);
            out.sample("listener_mode", &[("cpu", cpu), ("mode", mode.as_str())], is);
        }
    }
    out.family("blind", Gauge, "1 for a listener that certainly sees nothing.");
    for (cpu, row) in rows() {
        let is = u8::from(status.blind.iter().any(|blind| blind.cpu == row.cpu));
        out.sample("blind", &[("cpu", cpu)], is);
    }
    out.family(
        "untried",
        Gauge,
        "1 for a listener that saw nothing for long and on whose CPU no canary could be executed.",
    );
    for (cpu, row) in rows() {
        let is = u8::from(status.untried.iter().any(|untried| untried.cpu == row.cpu));
        out.sample("untried", &[("cpu", cpu)], is);
    }
}

/// Counters that have one label: a family each, with a sample for each row.
fn labelled<'r, const N: usize>(
    out: &mut Exposition,
    label: &str,
    families: [(&str, &str); N],
    rows: impl Iterator<Item = (&'r str, [u64; N])> + Clone,
) {
    for (at, (name, help)) in families.into_iter().enumerate() {
        out.family(name, Kind::Counter, help);
        for (value, counts) in rows.clone() {
            out.sample(name, &[(label, value)], counts[at]);
        }
    }
}

/// A listener's CPU, as a label.
fn place(cpu: Option<u32>) -> String {
    cpu.map_or("other".to_owned(), |cpu| cpu.to_string())
}

/// The thread that writes the file. It ends when this is dropped.
#[derive(Debug)]
pub struct Textfile {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Textfile {
    /// Writes `path` now and then every so often.
    pub fn start(path: PathBuf, every: Duration, health: Arc<Health>) -> io::Result<Textfile> {
        let (stop, stopped) = channel::<()>();
        let thread = std::thread::Builder::new().name("metrics".to_owned()).stack_size(256 * 1024).spawn(
            move || {
                harden::enter(Role::Metrics);
                let mut failed = false;
                loop {
                    let written = write(&path, &exposition(&health.status()));
                    // Said once: it is no reason to fill the log.
                    if let Err(error) = &written
                        && !failed
                    {
                        log::warn!("metrics cannot be written to {}: {error}", path.display());
                    }
                    if written.is_ok() && failed {
                        log::info!("metrics are written to {} again", path.display());
                    }
                    failed = written.is_err();
                    if stopped.recv_timeout(every) != Err(RecvTimeoutError::Timeout) {
                        return;
                    }
                }
            },
        )?;
        Ok(Textfile { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Textfile {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has ended the process already.
            let _ = thread.join();
        }
    }
}

/// Replaces the file in one step: node_exporter never reads half of it. Its new name has another ending until then, so
/// that it is not read, and is never somebody else's file.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let new = path.with_extension("prom.new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    // The collector is another user, and the daemon's umask lets it have nothing.
    file.set_permissions(fs::Permissions::from_mode(0o644))?;
    file.write_all(text.as_bytes())?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_help_are_escaped() {
        let mut out = Exposition::default();
        out.family("a", Kind::Counter, "a \\ and \n and \"");
        out.sample("a", &[("b", "\\ \n \""), ("c", "d")], 7);
        assert_eq!(
            out.0,
            "# HELP execwatch_a a \\\\ and \\n and \"\n# TYPE execwatch_a counter\n\
             execwatch_a{b=\"\\\\ \\n \\\"\",c=\"d\"} 7\n"
        );
    }

    #[test]
    fn the_file_is_replaced_in_one_step_and_a_link_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("execwatch.prom");
        let precious = folder.path().join("precious");
        fs::write(&precious, "precious").unwrap();
        std::os::unix::fs::symlink(&precious, folder.path().join("execwatch.prom.new")).unwrap();
        write(&path, "one\n").unwrap();
        write(&path, "two\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "two\n");
        assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
        assert!(write(&folder.path().join("none/execwatch.prom"), "").is_err());
    }
}
