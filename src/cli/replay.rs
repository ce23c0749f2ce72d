//! `execwatch replay`

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;

use super::{Files, exit, report};
use crate::alert::escape::Escaped;
use crate::alert::{Host, Record};
use crate::clock;
use crate::config;
use crate::daemon::setup::{stdout_form, this_host};
use crate::diagnostics::{Diagnostics, counted};
use crate::evaluate::Evaluator;
use crate::event::Event;
use crate::output::entry::Form;
use crate::replay::lines::{Line, Lines};
use crate::replay::{Kind, LONGEST_LINE, Reader};
use crate::rules::ruleset::RuleSet;

#[derive(Args, Debug)]
#[group(skip)]
pub(super) struct ReplayArguments {
    #[command(flatten)]
    files: Files,
    /// Write alerts as JSON, a line each
    #[arg(long)]
    json: bool,
    /// Files to read, the oldest first; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    inputs: Vec<PathBuf>,
}

/// Some lines could not be read; the others were replayed.
const UNREADABLE: u8 = 1;
/// So many lines that cannot be read are said one by one; the rest is counted.
const MOST_SAID: u64 = 10;
/// How often the progress is shown.
const PROGRESS_EVERY: Duration = Duration::from_millis(250);
/// Lines between two looks at the clock.
const BATCH: u64 = 256;
/// Bytes of a reason that are shown.
const REASON: usize = 400;

pub(super) fn run(arguments: &ReplayArguments) -> u8 {
    let diagnostics = Diagnostics::default();
    let (config, ruleset) = arguments.files.load(&diagnostics);
    if let Some(code) = report(&diagnostics.into_list()) {
        return code;
    }
    let Some(ruleset) = ruleset else { return exit::CONFIG };
    let mut replay = Replay::new(Arc::new(ruleset), &config.output.stdout, arguments.json);
    let result = arguments.inputs.iter().try_for_each(|path| replay.read(path)).and_then(|()| replay.flush());
    replay.progress.hide();
    replay.totals();
    match result {
        Ok(()) | Err(End::NobodyReads) if replay.counts.unreadable == 0 => exit::OK,
        Ok(()) | Err(End::NobodyReads) => UNREADABLE,
        Err(End::Failed(code, message)) => {
            eprintln!("execwatch: {message}");
            code
        }
    }
}

/// Why a replay ends early.
enum End {
    /// Standard output is a pipe whose reader has gone.
    NobodyReads,
    Failed(u8, String),
}

#[derive(Default)]
struct Counts {
    lines: u64,
    other: u64,
    unreadable: u64,
    events: u64,
    alerts: u64,
    /// By rule: alerts, silenced, held back by the threshold.
    rules: BTreeMap<String, [u64; 3]>,
    /// By exception.
    exceptions: BTreeMap<String, u64>,
}

struct Replay {
    evaluator: Evaluator,
    out: BufWriter<io::Stdout>,
    out_is_terminal: bool,
    form: Form,
    host: Host,
    /// The time of the last event that had one: others are taken to have happened then.
    last_ns: u64,
    counts: Counts,
    progress: Progress,
}

impl Replay {
    fn new(ruleset: Arc<RuleSet>, settings: &config::Stdout, json: bool) -> Self {
        let form = stdout_form(settings, json);
        Replay {
            evaluator: Evaluator::new(ruleset),
            out: BufWriter::new(io::stdout()),
            out_is_terminal: io::stdout().is_terminal(),
            form,
            host: this_host(),
            last_ns: clock::realtime_ns(),
            counts: Counts::default(),
            progress: Progress::new(),
        }
    }

    /// Replays a file; events do not reach from one file into the next but for rotated ones, where a few records may.
    fn read(&mut self, path: &Path) -> Result<(), End> {
        let name = if path == Path::new("-") { "<stdin>".to_owned() } else { path.display().to_string() };
        let no_input = |error: io::Error| End::Failed(exit::NO_INPUT, format!("cannot read {name}: {error}"));
        let (input, length): (Box<dyn Read>, _) = if path == Path::new("-") {
            (Box::new(io::stdin()), None)
        } else {
            let file = File::open(path).map_err(no_input)?;
            let metadata = file.metadata().map_err(no_input)?;
            (Box::new(file), metadata.is_file().then_some(metadata.len()))
        };
        let mut lines = Lines::new(BufReader::with_capacity(64 << 10, input));
        let mut reader = Reader::default();
        loop {
            let line = lines.next_line().map_err(no_input)?;
            let mut result = Ok(());
            let kind = match line {
                None => break,
                Some(Line::TooLong) => Err(format!("a line of more than {} MiB", LONGEST_LINE >> 20)),
                Some(Line::Whole(line)) => reader.take(line, |event| {
                    if result.is_ok() {
                        result = self.event(&event);
                    }
                }),
            };
            result?;
            self.counts.lines += 1;
            match kind {
                Ok(Kind::Event) => {}
                Ok(Kind::Other) => self.counts.other += 1,
                Err(reason) => self.unreadable(&name, lines.number(), &reason),
            }
            if lines.number().is_multiple_of(BATCH) {
                self.progress.show(&name, lines.bytes_read(), length, &self.counts);
            }
        }
        let mut result = Ok(());
        reader.end(|event| {
            if result.is_ok() {
                result = self.event(&event);
            }
        });
        result
    }

    fn event(&mut self, event: &Event) -> Result<(), End> {
        let case = event.case(self.last_ns, self.evaluator.ruleset().catalogue());
        self.last_ns = case.exec.timestamp_ns;
        let verdict = self.evaluator.evaluate(&case.exec, &case.surroundings, &case.clock);
        self.counts.events += 1;
        for (rule, exception) in verdict.silenced {
            self.counts.rules.entry(rule).or_default()[1] += 1;
            *self.counts.exceptions.entry(exception).or_default() += 1;
        }
        for rule in verdict.held_back {
            self.counts.rules.entry(rule).or_default()[2] += 1;
        }
        let Some(alert) = verdict.alert else { return Ok(()) };
        self.counts.alerts += 1;
        for rule in &alert.rules {
            self.counts.rules.entry(rule.clone()).or_default()[0] += 1;
        }
        if self.out_is_terminal {
            self.progress.hide();
        }
        let record = Record::Alert(Box::new(alert));
        let host = match &event.host {
            // What else is known of this host is not of that one.
            Some(name) if *name != self.host.name => Host { name: name.clone(), ..Host::default() },
            _ => self.host.clone(),
        };
        let written = writeln!(self.out, "{}", self.form.of(&record, None, &host));
        written.map_err(|error| output_end(&error))?;
        // A person sees each as it is found.
        if self.out_is_terminal { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), End> {
        self.out.flush().map_err(|error| output_end(&error))
    }

    fn unreadable(&mut self, name: &str, line: u64, reason: &str) {
        self.counts.unreadable += 1;
        let said = self.counts.unreadable;
        if said > MOST_SAID {
            return;
        }
        self.progress.hide();
        let mut reason = Escaped::new(reason.as_bytes());
        reason.shorten(REASON);
        eprintln!("{name}:{line}: {}", reason.as_str().replace("\\\"", "\"").replace("\\\\", "\\"));
        if said == MOST_SAID {
            eprintln!("execwatch: further lines that cannot be read are only counted");
        }
    }

    fn totals(&self) {
        let Counts { lines, other, unreadable, events, alerts, rules, exceptions } = &self.counts;
        let lines = counted(*lines, "line", "lines");
        let events = counted(*events, "exec", "execs");
        let other = counted(*other, "line", "lines");
        eprintln!("execwatch: {lines}: {events}, {other} of something else, {unreadable} not readable");
        eprintln!("execwatch: {}", counted(*alerts, "alert", "alerts"));
        if !rules.is_empty() {
            eprintln!("  alerts silenced held-back rule");
        }
        for (rule, [alerted, silenced, held_back]) in rules {
            eprintln!("{alerted:8} {silenced:8} {held_back:9} {rule}");
        }
        for (exception, count) in exceptions {
            eprintln!("{:8} {count:8} {:9} by exception {exception}", "", "");
        }
    }
}

fn output_end(error: &io::Error) -> End {
    match error.kind() {
        io::ErrorKind::BrokenPipe => End::NobodyReads,
        _ => End::Failed(exit::IO, format!("cannot write to standard output: {error}")),
    }
}

/// A line at the bottom of a terminal that says how far it is.
struct Progress {
    wanted: bool,
    shown: bool,
    next: Instant,
}

impl Progress {
    fn new() -> Self {
        Progress { wanted: io::stderr().is_terminal(), shown: false, next: Instant::now() + PROGRESS_EVERY }
    }

    fn show(&mut self, name: &str, read: u64, length: Option<u64>, counts: &Counts) {
        if !self.wanted || Instant::now() < self.next {
            return;
        }
        self.next = Instant::now() + PROGRESS_EVERY;
        self.shown = true;
        let part = match length {
            // A file may grow meanwhile.
            Some(length) if length > 0 => format!("{:3}%", (read.min(length) * 100) / length),
            _ => format!("{} MB", read / 1_000_000),
        };
        let (lines, alerts) = (counts.lines, counts.alerts);
        eprint!("\r\x1b[K{name}: {part}, {lines} lines, {alerts} alerts");
    }

    fn hide(&mut self) {
        if std::mem::take(&mut self.shown) {
            eprint!("\r\x1b[K");
        }
    }
}
