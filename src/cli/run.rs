//! `execwatch run`: sets everything up, waits for signals, and takes everything down.

use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use clap::Args;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::{Files, exit, report};
use crate::alert::Host;
use crate::baseline::Baseline;
use crate::baseline::decision::Mode;
use crate::clock;
use crate::config::{self, Config, Format};
use crate::connector::events::EventSocket;
use crate::connector::listeners::{self, Listeners};
use crate::connector::subscription::{SubscriptionError, ignore_all};
use crate::diagnostics::Diagnostics;
use crate::evaluate::Evaluator;
use crate::event::recorder::Recorder;
use crate::followup::desk::Desk;
use crate::health::hits::HitKeeper;
use crate::health::{Counters, ListenerCounters};
use crate::identity;
use crate::identity::identify::Identifier;
use crate::identity::keeper::Keeper;
use crate::identity::settle::Executables;
use crate::lineage::follow::Follower;
use crate::output::{Output, file::FileOutput, stdout::StdoutOutput, syslog::SyslogOutput};
use crate::process::capture::{Capture, CaptureSettings, Everything, Prefilter, hold_limit_ns};
use crate::process::details::{Namespaces, Scratch};
use crate::process::file::OpenCount;
use crate::process::names::Accounts;
use crate::process::proc_dir::ProcRoot;
use crate::process::queue::{ExecSender, queue};
use crate::process::relatives::HostProcesses;
use crate::process::ring::ring;
use crate::process::snapshot;
use crate::rules::ruleset::RuleSet;
use crate::rules::subject::Surroundings;
use crate::sys;
use crate::worker::{Signals, Worker};

#[derive(Args, Debug)]
pub(super) struct RunArguments {
    #[command(flatten)]
    files: Files,
    /// Write alerts to standard output as JSON, a line each
    #[arg(long)]
    json: bool,
    /// Do without real-time scheduling: programs are not held while they are read
    #[arg(long)]
    best_effort: bool,
    /// Append to FILE, as JSON for `replay`, every program that the rules could not exclude at first sight
    ///
    /// That is what the rules were evaluated on: every network utility, and whatever a rule might match by its executable
    /// and arguments, whether it did or not. The file is for root alone, grows without limit, and is opened anew at
    /// SIGHUP, so that it can be rotated.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Record every program that is executed, so that any rule can be tried on it later
    ///
    /// Each then costs what only those cost that a rule might match: all of /proc/PID is read while the program is held,
    /// and its ancestors after.
    #[arg(long, requires = "record")]
    record_all: bool,
}

/// How often CPUs and threads are looked at.
const TICK: Duration = Duration::from_secs(1);
/// How long the outputs may take to write what is queued at the end.
const CLOSING_TIME: Duration = Duration::from_secs(5);
/// Argument bytes that may be queued before new argument lists are cut short.
const QUEUED_BYTES: usize = 4 << 20;
/// The environment variable that chooses what the daemon says about itself.
const LOG_VARIABLE: &str = "EXECWATCH_LOG";

pub(super) fn run(arguments: &RunArguments) -> u8 {
    start_log();
    let diagnostics = Diagnostics::default();
    let (mut config, ruleset) = arguments.files.load(&diagnostics);
    if let Some(code) = report(&diagnostics.into_list()) {
        return code;
    }
    let Some(ruleset) = ruleset else { return exit::CONFIG };
    // What reading the files took is not needed again.
    sys::memory::give_back();
    if arguments.best_effort {
        config.capture.realtime_priority = 0;
    }
    if !nix::unistd::geteuid().is_root() {
        log::error!("execwatch must be run as root: it reads the processes of all users");
        return exit::PERMISSION;
    }
    end_process_on_panic();
    match Daemon::start(&config, Arc::new(ruleset), arguments) {
        Ok(daemon) => daemon.watch(),
        Err(failure) => {
            ignore_all();
            log::error!("{}", failure.message);
            failure.code
        }
    }
}

/// Why the daemon could not start.
struct Failure {
    code: u8,
    message: String,
}

impl From<SubscriptionError> for Failure {
    fn from(error: SubscriptionError) -> Self {
        let code = match error {
            SubscriptionError::NotPermitted => exit::PERMISSION,
            SubscriptionError::Call(..) | SubscriptionError::Refused(_) => exit::OS,
            _ => exit::UNAVAILABLE,
        };
        Failure { code, message: error.to_string() }
    }
}

fn os_failure(what: &str, error: impl std::fmt::Display) -> Failure {
    Failure { code: exit::OS, message: format!("{what}: {error}") }
}

/// The running parts.
struct Daemon {
    signal_fd: SignalFd,
    listeners: Listeners,
    sender: ExecSender,
    signals: Arc<Signals>,
    worker: JoinHandle<Vec<Output>>,
    counters: Arc<Counters>,
    started: Instant,
    _keeper: Option<Keeper>,
}

impl Daemon {
    fn start(config: &Config, ruleset: Arc<RuleSet>, arguments: &RunArguments) -> Result<Daemon, Failure> {
        // Before the first thread: each inherits the mask, so that signals reach only the descriptor.
        let signal_fd = take_signals().map_err(|error| os_failure("cannot take signals", error))?;
        let proc =
            ProcRoot::open(Path::new("/proc")).map_err(|error| os_failure("cannot open /proc", error))?;
        let proc = Arc::new(proc);
        let counters = Arc::new(Counters::default());
        let signals = Arc::new(Signals::default());
        let (sender, receiver) = queue(config.capture.queue_length, QUEUED_BYTES)
            .map_err(|error| os_failure("cannot make the queue", error))?;
        let host = this_host();
        let outputs = start_outputs(&config.output, arguments.json, &host)?;
        let recorder = start_recorder(arguments, &host)?;
        let files = Arc::new(Executables::default());
        if ruleset.wants().packages {
            files.packages.want();
        }
        let keeper = keep_index(config, &ruleset, &files)?;
        let surroundings = Surroundings {
            accounts: Accounts::default(),
            namespaces: Namespaces::own(&proc),
            processes: Box::new(HostProcesses::new(Arc::clone(&proc))),
            files: Arc::clone(&files),
        };
        let settings =
            CaptureSettings { arguments_limit: config.capture.args_limit, hold_limit_ns: hold_limit_ns() };
        let new_capture = {
            let prefilter: Arc<dyn Prefilter> = match arguments.record_all {
                true => Arc::new(Everything(Arc::clone(&ruleset) as _)),
                false => Arc::clone(&ruleset) as _,
            };
            let (proc, sender) = (Arc::clone(&proc), sender.clone());
            let (mode, shared, open) =
                (config.capture.identity, Arc::clone(&files.shared), OpenCount::default());
            move |counters: Arc<ListenerCounters>| {
                let identifier = Identifier::new(mode, Arc::clone(&shared), open.clone());
                let (proc, prefilter, sender) = (Arc::clone(&proc), Arc::clone(&prefilter), sender.clone());
                Capture::new(proc, prefilter, identifier, sender, settings.clone(), counters)
            }
        };

        let events = EventSocket::open(config.capture.receive_buffer)?;
        let event_buffer = events.receive_buffer();
        let (rings, new_rings) = crossbeam_channel::unbounded();
        let mut evaluator = Evaluator::new(ruleset);
        if recorder.is_some() {
            evaluator.record();
        }
        let follow_up = follow_alerts(config, &proc, &counters, &sender)?;
        if let Some(baseline) = start_baseline(config) {
            evaluator.compare_with(baseline);
        }
        let worker = Worker {
            receiver,
            follow_up,
            proc: Arc::clone(&proc),
            scratch: Scratch::default(),
            files,
            follower: Follower::new(events, new_rings, Arc::clone(&proc), config.lineage),
            evaluator,
            surroundings,
            outputs,
            recorder,
            hits: HitKeeper::new(&config.state_folder),
            counters: Arc::clone(&counters),
            signals: Arc::clone(&signals),
        };
        let worker = std::thread::Builder::new()
            .name("worker".to_owned())
            .spawn(move || worker.run())
            .map_err(|error| os_failure("cannot start the worker", error))?;

        let listener_settings = listeners::Settings {
            arrangement: config.capture.listeners,
            priority: Some(config.capture.realtime_priority).filter(|&priority| priority > 0),
            receive_buffer: config.capture.receive_buffer,
        };
        let new_sink = {
            let new_capture = new_capture.clone();
            move |counters| {
                let (writer, reader) = ring();
                // The worker ends last, so it takes the reader.
                let _ = rings.send(reader);
                Box::new(new_capture(counters).with_ring(writer)) as _
            }
        };
        let listeners = Listeners::start(listener_settings, Arc::clone(&counters), Box::new(new_sink))?;
        signals.listening.store(true, Relaxed);
        sender.wake();
        describe(&listeners, event_buffer, config);

        if config.capture.already_running {
            // Its counters are its own: these processes were not executed under our eyes.
            let capture = new_capture(Arc::default());
            start_snapshot(capture, Arc::clone(&signals))
                .map_err(|error| os_failure("cannot start the snapshot", error))?;
        } else {
            signals.snapshot_done.store(true, Relaxed);
        }
        Ok(Daemon {
            signal_fd,
            listeners,
            sender,
            signals,
            worker,
            counters,
            started: Instant::now(),
            _keeper: keeper,
        })
    }

    /// Waits for signals; the exit code.
    fn watch(mut self) -> u8 {
        loop {
            let mut waited = [PollFd::new(self.signal_fd.as_fd(), PollFlags::POLLIN)];
            let timeout = PollTimeout::try_from(TICK).unwrap_or(PollTimeout::MAX);
            // An interruption only means looking again.
            let _ = poll(&mut waited, timeout);
            while let Ok(Some(taken)) = self.signal_fd.read_signal() {
                match Signal::try_from(taken.ssi_signo as i32) {
                    Ok(Signal::SIGUSR1) => self.log_totals(),
                    Ok(Signal::SIGHUP) => {
                        self.signals.reopen.store(true, Relaxed);
                        self.sender.wake();
                        log::info!("SIGHUP: the outputs' files are opened anew");
                    }
                    Ok(signal) => {
                        log::info!("{signal}: ending");
                        return self.stop();
                    }
                    Err(_) => {}
                }
            }
            if self.listeners.any_ended() || self.worker.is_finished() {
                log::error!("a thread ended by itself; execwatch would be blind, so it ends");
                self.stop();
                return exit::SOFTWARE;
            }
            self.listeners.count_drops();
            if self.listeners.follow_cpus() {
                log::info!("listening on the CPUs that are there now: {}", coverage(&self.listeners));
            }
        }
    }

    fn log_totals(&self) {
        log::info!("{} uptime-s={}", self.counters.totals(), self.started.elapsed().as_secs());
    }

    fn stop(self) -> u8 {
        end_at_once_on_second_signal(self.signal_fd);
        self.listeners.stop();
        ignore_all();
        self.signals.stop.store(true, Relaxed);
        self.sender.wake();
        let Ok(mut outputs) = self.worker.join() else { return exit::SOFTWARE };
        let deadline = Instant::now() + CLOSING_TIME;
        for output in &mut outputs {
            output.close(deadline);
        }
        log::info!("{} uptime-s={}", self.counters.totals(), self.started.elapsed().as_secs());
        for output in &outputs {
            let (written, lost) = output.counts();
            log::info!("output {}: written={written} lost={lost}", output.name());
        }
        exit::OK
    }
}

/// Messages go to standard error, without a time: a service manager adds one, and a person sees it.
fn start_log() {
    env_logger::Builder::from_env(env_logger::Env::new().filter_or(LOG_VARIABLE, "info"))
        .format(|out, record| {
            writeln!(out, "execwatch: {}: {}", record.level().as_str().to_lowercase(), record.args())
        })
        .init();
}

/// A panic in any thread ends the process: better no daemon, which a service manager notices, than a blind one.
fn end_process_on_panic() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        default(panic);
        ignore_all();
        std::process::exit(exit::SOFTWARE.into());
    }));
}

fn take_signals() -> nix::Result<SignalFd> {
    let mut taken = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP, Signal::SIGUSR1] {
        taken.add(signal);
    }
    taken.thread_block()?;
    crate::sys::signal::interrupt_on(listeners::WAKE_SIGNAL)?;
    SignalFd::with_flags(&taken, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

fn end_at_once_on_second_signal(signal_fd: SignalFd) {
    let waiting = std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        loop {
            let mut waited = [PollFd::new(signal_fd.as_fd(), PollFlags::POLLIN)];
            let _ = poll(&mut waited, PollTimeout::NONE);
            if let Ok(Some(taken)) = signal_fd.read_signal()
                && taken.ssi_signo != Signal::SIGUSR1 as u32
                && taken.ssi_signo != Signal::SIGHUP as u32
            {
                ignore_all();
                eprintln!("execwatch: second signal: ending at once");
                std::process::exit(exit::SOFTWARE.into());
            }
        }
    });
    if let Err(error) = waiting {
        log::debug!("a second signal will not be noticed: {error}");
    }
}

fn start_snapshot(mut capture: Capture, signals: Arc<Signals>) -> std::io::Result<()> {
    std::thread::Builder::new().name("snapshot".to_owned()).spawn(move || {
        match snapshot::take(&mut capture) {
            Ok(seen) => log::debug!("{seen} processes were running at the start"),
            Err(error) => log::warn!("the processes that already ran could not be listed: {error}"),
        }
        drop(capture);
        signals.snapshot_done.store(true, Relaxed);
    })?;
    Ok(())
}

/// Keeps an index of the installed utilities, and of packages if a rule asks for them.
fn keep_index(
    config: &Config,
    ruleset: &Arc<RuleSet>,
    files: &Arc<Executables>,
) -> Result<Option<Keeper>, Failure> {
    if config.capture.identity == identity::Mode::Off && !ruleset.wants().packages {
        return Ok(None);
    }
    let folders = config.capture.identity_folders.clone();
    Keeper::start(Arc::clone(ruleset), Arc::clone(files), folders)
        .map(Some)
        .map_err(|error| os_failure("cannot start the thread that looks for installed utilities", error))
}

/// Starts the thread that looks at alerted programs.
fn follow_alerts(
    config: &Config,
    proc: &Arc<ProcRoot>,
    counters: &Arc<Counters>,
    sender: &ExecSender,
) -> Result<Option<Desk>, Failure> {
    if !config.follow.enabled {
        return Ok(None);
    }
    let sender = sender.clone();
    Desk::start(config.follow.clone(), Arc::clone(proc), Arc::clone(counters), move || sender.wake())
        .map(Some)
        .map_err(|error| os_failure("cannot start the thread that follows alerts", error))
}

/// Opens what is known to be normal here, and says what is made of it.
fn start_baseline(config: &Config) -> Option<Baseline> {
    let settings = config.baseline;
    if settings.mode == Mode::Off {
        return None;
    }
    let baseline = Baseline::open(settings, &config.state_folder, clock::now());
    let learning = if baseline.learning() { "it learns" } else { "its learning period is over" };
    let made = match settings.mode {
        Mode::Enforce => "what is new is raised, and what is known is lowered or silenced",
        _ => "alerts tell what is known",
    };
    log::info!("baseline: {} tuples are remembered, {learning}; {made}", baseline.counts().rows);
    Some(baseline)
}

fn start_outputs(settings: &config::Output, json: bool, host: &Host) -> Result<Vec<Output>, Failure> {
    let failed = |error| os_failure("cannot start an output", error);
    let mut outputs = Vec::new();
    if let Some(syslog) = settings.syslog.clone() {
        outputs.push(Output::start(SyslogOutput::new(syslog, host.clone())).map_err(failed)?);
    }
    if let Some(file) = settings.file.clone() {
        outputs.push(Output::start(FileOutput::new(file, host.clone())).map_err(failed)?);
    }
    if json || settings.stdout.enabled.unwrap_or(std::io::stdout().is_terminal()) {
        let (format, colour) = stdout_form(&settings.stdout, json);
        outputs.push(Output::start(StdoutOutput::new(format, colour, host.clone())).map_err(failed)?);
    }
    if outputs.is_empty() {
        log::warn!("no output is switched on; alerts are only counted");
    }
    Ok(outputs)
}

/// The format of standard output, `None` for that for people, and whether it has colours.
pub(super) fn stdout_form(settings: &config::Stdout, json: bool) -> (Option<Format>, bool) {
    let terminal = std::io::stdout().is_terminal();
    let format = match settings.format {
        _ if json => Some(Format::Json),
        None if !terminal => Some(Format::Text),
        format => format,
    };
    (format, terminal && std::env::var_os("NO_COLOR").is_none())
}

fn start_recorder(arguments: &RunArguments, host: &Host) -> Result<Option<Recorder>, Failure> {
    let Some(path) = &arguments.record else { return Ok(None) };
    let recorder = Recorder::open(path, &host.name).map_err(|error| Failure {
        code: exit::IO,
        message: format!("events cannot be recorded in {}: {error}", path.display()),
    })?;
    let what = if arguments.record_all { "every program is" } else { "programs that rules might match are" };
    log::info!("{what} recorded in {}", path.display());
    Ok(Some(recorder))
}

pub(super) fn this_host() -> Host {
    let read = |path| std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
    Host {
        name: nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        id: read("/etc/machine-id"),
        kernel: read("/proc/sys/kernel/osrelease"),
    }
}

/// Which CPUs are exact.
fn coverage(listeners: &Listeners) -> String {
    let exact = listeners.exact_cpus();
    if exact.is_empty() {
        return "best effort on all CPUs: programs are not held while they are read".to_owned();
    }
    let list: Vec<String> = exact.iter().map(u32::to_string).collect();
    format!("exact on CPU {}, best effort on others", list.join(","))
}

fn describe(listeners: &Listeners, event_buffer: usize, config: &Config) {
    if let Some(refusal) = listeners.refusal() {
        let remedy = if refusal.contains("Operation not permitted") {
            "; give execwatch CAP_SYS_NICE (LimitRTPRIO=99 under systemd), and its cpu cgroup real-time run time \
             (cpu.rt_runtime_us) where the kernel groups real-time tasks"
        } else {
            ""
        };
        log::warn!("programs cannot be held while they are read: {refusal}{remedy}");
    }
    let asked = config.capture.receive_buffer;
    for (what, got) in [("a listener", listeners.receive_buffer()), ("forks and exits", event_buffer)] {
        // The kernel doubles what is asked, for its bookkeeping.
        if got < asked * 2 {
            log::warn!(
                "the receive buffer of {what} is {got} bytes where {asked} were asked for: raise net.core.rmem_max"
            );
        }
    }
    log::info!("listening: {}; receive buffers of {} bytes", coverage(listeners), listeners.receive_buffer());
}
