//! The daemon: sets everything up, waits for signals, and takes everything down.

mod commands;
pub mod setup;
mod signals;

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;

use crate::config::Config;
use crate::connector::events::EventSocket;
use crate::connector::listeners::{self, Listeners};
use crate::connector::subscription::{SubscriptionError, ignore_all};
use crate::control::server::Server;
use crate::doctor;
use crate::evaluate::Evaluator;
use crate::exit;
use crate::fold::Folder;
use crate::health::hits::HitKeeper;
use crate::health::{Counters, ListenerCounters};
use crate::identity::identify::Identifier;
use crate::identity::keeper::Keeper;
use crate::identity::settle::Executables;
use crate::journal::shared::Shared;
use crate::lineage::follow::Follower;
use crate::output::delivery::Delivery;
use crate::process::capture::{Capture, CaptureSettings, Everything, Prefilter, hold_limit_ns};
use crate::process::details::{Namespaces, Scratch};
use crate::process::file::OpenCount;
use crate::process::names::Accounts;
use crate::process::proc_dir::ProcRoot;
use crate::process::queue::{ExecSender, queue};
use crate::process::relatives::HostProcesses;
use crate::process::ring::ring;
use crate::response::decide::Decider;
use crate::response::orders::orders;
use crate::rules::ruleset::RuleSet;
use crate::rules::subject::Surroundings;
use crate::worker::{Signals, Worker};
use setup::{coverage, describe};

/// What the command line asks of the daemon.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Alerts go to standard output as JSON, a line each.
    pub json: bool,
    /// Where execs are recorded.
    pub record: Option<PathBuf>,
    /// Every exec is recorded.
    pub record_all: bool,
}

/// How often CPUs and threads are looked at.
const TICK: Duration = Duration::from_secs(1);
/// How long the outputs may take to write what is queued at the end.
const CLOSING_TIME: Duration = Duration::from_secs(5);
/// Argument bytes that may be queued before new argument lists are cut short.
const QUEUED_BYTES: usize = 4 << 20;
/// Runs the daemon until a signal ends it; the exit code.
pub fn run(config: &Config, ruleset: RuleSet, options: &Options) -> u8 {
    signals::end_process_on_panic();
    match Daemon::start(config, Arc::new(ruleset), options) {
        Ok(daemon) => daemon.watch(),
        Err(failure) => {
            ignore_all();
            log::error!("{}", failure.message);
            if matches!(failure.code, exit::UNAVAILABLE | exit::PERMISSION) {
                for finding in doctor::explain_failure() {
                    log::error!("{}; {}", finding.found, finding.remedy.unwrap_or_default());
                }
                log::error!("`execwatch doctor` tells all that this host gives and lacks");
            }
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
    worker: JoinHandle<Delivery>,
    journal: Arc<Shared>,
    counters: Arc<Counters>,
    started: Instant,
    _keeper: Option<Keeper>,
    control: Option<Server>,
}

impl Daemon {
    fn start(config: &Config, ruleset: Arc<RuleSet>, options: &Options) -> Result<Daemon, Failure> {
        // Before the first thread: each inherits the mask, so that signals reach only the descriptor.
        let signal_fd = signals::take_signals().map_err(|error| os_failure("cannot take signals", error))?;
        let proc =
            ProcRoot::open(Path::new("/proc")).map_err(|error| os_failure("cannot open /proc", error))?;
        let proc = Arc::new(proc);
        let counters = Arc::new(Counters::default());
        let signals = Arc::new(Signals::default());
        let (sender, receiver) = queue(config.capture.queue_length, QUEUED_BYTES)
            .map_err(|error| os_failure("cannot make the queue", error))?;
        let host = setup::this_host();
        let delivery = setup::start_delivery(config, options.json, &host)?;
        let journal = delivery.shared();
        let recorder = setup::start_recorder(options, &host)?;
        let files = Arc::new(Executables::default());
        if ruleset.wants().packages {
            files.packages.want();
        }
        let keeper = setup::keep_index(config, &ruleset, &files)?;
        let surroundings = Surroundings {
            accounts: Accounts::default(),
            namespaces: Namespaces::of_the_host(&proc),
            processes: Box::new(HostProcesses::new(Arc::clone(&proc))),
            files: Arc::clone(&files),
        };
        let settings =
            CaptureSettings { arguments_limit: config.capture.args_limit, hold_limit_ns: hold_limit_ns() };
        let (orders, ordered) = orders();
        let responder = setup::start_responses(config, &proc, ordered)?;
        let responses = responder.shared();
        let new_capture = {
            let prefilter: Arc<dyn Prefilter> = match options.record_all {
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
        let follow_up = setup::follow_alerts(config, &proc, &counters, &sender)?;
        if let Some(baseline) = setup::start_baseline(config) {
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
            folder: Folder::new(config.fold.clone()),
            delivery,
            responder,
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
            let (proc, runtime) = (Arc::clone(&proc), config.runtime_folder.clone());
            move |counters| {
                let (writer, reader) = ring();
                let decider = Decider::new(Arc::clone(&proc), Arc::clone(&responses), &runtime);
                // The worker ends last, so it takes the reader.
                let _ = rings.send(reader);
                Box::new(new_capture(counters).with_ring(writer).with_decider(decider)) as _
            }
        };
        let listeners = Listeners::start(listener_settings, Arc::clone(&counters), Box::new(new_sink))?;
        signals.listening.store(true, Relaxed);
        sender.wake();
        describe(&listeners, event_buffer, config);

        if config.capture.already_running {
            // Its counters are its own: these processes were not executed under our eyes.
            let capture = new_capture(Arc::default());
            setup::start_snapshot(capture, Arc::clone(&signals))
                .map_err(|error| os_failure("cannot start the snapshot", error))?;
        } else {
            signals.snapshot_done.store(true, Relaxed);
        }
        let control = setup::start_control(config, commands::commands(&counters, &orders, &sender));
        Ok(Daemon {
            signal_fd,
            listeners,
            sender,
            signals,
            worker,
            journal,
            counters,
            started: Instant::now(),
            _keeper: keeper,
            control,
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

    fn stop(mut self) -> u8 {
        // Who asks from now on is told that there is no daemon.
        self.control = None;
        signals::end_at_once_on_second_signal(self.signal_fd);
        self.listeners.stop();
        ignore_all();
        self.signals.stop.store(true, Relaxed);
        self.sender.wake();
        self.journal.ending.store(true, Relaxed);
        let Ok(delivery) = self.worker.join() else { return exit::SOFTWARE };
        delivery.close(Instant::now() + CLOSING_TIME);
        log::info!("{} uptime-s={}", self.counters.totals(), self.started.elapsed().as_secs());
        exit::OK
    }
}
