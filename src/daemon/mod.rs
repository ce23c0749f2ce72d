//! The daemon: sets everything up, waits for signals, and takes everything down.

mod commands;
mod lock;
mod look;
mod lookout;
mod notify;
mod pulse;
pub mod reload;
mod restart;
pub mod setup;
mod signals;
mod viewing;

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
use crate::harden::roles::Role;
use crate::harden::{self, Needs};
use crate::health::hits::HitKeeper;
use crate::health::metrics::Textfile;
use crate::health::reports::Reports;
use crate::health::status::Health;
use crate::health::{Counters, ListenerCounters, fingerprint};
use crate::identity::identify::Identifier;
use crate::identity::settle::Executables;
use crate::incident::desk::Desk;
use crate::journal::shared::Shared;
use crate::lineage::follow::Follower;
use crate::output::delivery::Delivery;
use crate::process::capture::{Capture, CaptureSettings, Prefilter, hold_limit_ns};
use crate::process::details::{Namespaces, Scratch};
use crate::process::exec::Certainty;
use crate::process::file::OpenCount;
use crate::process::names::Accounts;
use crate::process::proc_dir::ProcRoot;
use crate::process::queue::{self, ExecQueue};
use crate::process::relatives::HostProcesses;
use crate::process::ring::ring;
use crate::response::decide::Decider;
use crate::response::orders::orders;
use crate::rules::current::Current;
use crate::rules::ruleset::RuleSet;
use crate::rules::subject::Surroundings;
use crate::seen::Seen;
use crate::sys;
use crate::worker::{Signals, Worker};
use lock::Lock;
use look::Look;
use lookout::Lookout;
use notify::Notifier;
use pulse::Pulse;
use reload::{Load, Reloader, Reloading, Running};
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

/// Runs the daemon until a signal ends it; the exit code. `load` reads everything anew at a reload.
pub fn run(config: Config, ruleset: RuleSet, load: Load, options: &Options) -> u8 {
    signals::end_process_on_panic();
    match Daemon::start(config, Arc::new(ruleset), load, options) {
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
    queue: ExecQueue,
    signals: Arc<Signals>,
    worker: JoinHandle<Delivery>,
    journal: Arc<Shared>,
    counters: Arc<Counters>,
    started: Instant,
    reloader: Reloader,
    reloading: Running,
    pulse: Pulse,
    notifier: Arc<Notifier>,
    control: Option<Server>,
    health: Arc<Health>,
    lookout: Lookout,
    _textfile: Option<Textfile>,
    _lock: Lock,
}

impl Daemon {
    fn start(
        config: Config,
        ruleset: Arc<RuleSet>,
        load: Load,
        options: &Options,
    ) -> Result<Daemon, Failure> {
        let lock = Lock::take(&config.runtime_folder)?;
        let holding = config.capture.realtime_priority > 0;
        if holding {
            setup::stay_in_memory();
        }
        let notifier = Arc::new(Notifier::from_environment());
        // Before the first thread: each inherits the mask, so that signals reach only the descriptor.
        let signal_fd = signals::take_signals().map_err(|error| os_failure("cannot take signals", error))?;
        setup::room_for_descriptors(&signal_fd);
        let proc =
            ProcRoot::open(Path::new("/proc")).map_err(|error| os_failure("cannot open /proc", error))?;
        let proc = Arc::new(proc);
        let counters = Arc::new(Counters::default());
        let signals = Arc::new(Signals::default());
        let (queue, receiver) = queue::queue(config.capture.queue_length, QUEUED_BYTES)
            .map_err(|error| os_failure("cannot make the queue", error))?;
        let host = setup::this_host();
        // Before the first of the other threads. What needs more than is kept must be opened before.
        harden::process(config.hardening, Needs { responses: setup::needs_responses(&config), holding });
        sys::memory::own_arenas();
        let delivery = setup::start_delivery(&config, options.json, &host)?;
        let journal = delivery.shared();
        let health = Arc::new(Health::new(
            config.health.canary,
            Arc::clone(&counters),
            queue.clone(),
            delivery.status(),
        ));
        health.set_configuration(fingerprint::of(&config, &ruleset));
        health.set_rules(Arc::clone(&ruleset));
        let recorder = setup::start_recorder(options, &host)?;
        let files = Arc::new(Executables::default());
        if ruleset.wants().packages {
            files.packages.want();
        }
        let keeper = setup::keep_index(&config, &ruleset, &files)?;
        let surroundings = Surroundings {
            accounts: Accounts::default(),
            namespaces: Namespaces::of_the_host(&proc),
            processes: Box::new(HostProcesses::new(Arc::clone(&proc))),
            files: Arc::clone(&files),
        };
        let settings = CaptureSettings {
            arguments_limit: config.capture.args_limit,
            hold_limit_ns: hold_limit_ns(),
            priority: config.capture.realtime_priority,
        };
        let (orders, ordered) = orders(&config.runtime_folder);
        let responder = setup::start_responses(&config, &proc, ordered)?;
        let responses = responder.shared();
        let rules = Arc::new(Current::new(Arc::clone(&ruleset), options.record_all));
        let new_capture = {
            let (proc, queue, rules) = (Arc::clone(&proc), queue.clone(), Arc::clone(&rules));
            let (mode, shared, open) =
                (config.capture.identity, Arc::clone(&files.shared), OpenCount::default());
            move |counters: Arc<ListenerCounters>| {
                let identifier = Identifier::new(mode, Arc::clone(&shared), open.clone());
                let (proc, sender) = (Arc::clone(&proc), queue.sender());
                Capture::new(proc, rules.subscribe(), identifier, sender, settings.clone(), counters)
            }
        };

        let events = EventSocket::open(config.capture.receive_buffer)?;
        let event_buffer = events.receive_buffer();
        let (rings, new_rings) = crossbeam_channel::unbounded();
        let mut evaluator = Evaluator::new(ruleset);
        if recorder.is_some() {
            evaluator.record();
        }
        let follow_up = setup::follow_alerts(&config, &proc, &counters, &queue)?;
        if let Some(baseline) = setup::start_baseline(&config) {
            evaluator.compare_with(baseline);
        }
        let incidents = setup::start_incidents(&config, &host, &counters, (&signals, &queue), &journal)?;
        let decider = incidents.as_ref().map(Desk::decider);
        let mut follower = Follower::new(events, new_rings, Arc::clone(&proc), config.lineage);
        if incidents.is_some() {
            follower.remember_execs();
        }
        let worker = Worker {
            receiver,
            incidents,
            follow_up,
            proc: Arc::clone(&proc),
            scratch: Scratch::default(),
            files: Arc::clone(&files),
            follower,
            evaluator,
            rules: Arc::clone(&rules),
            generation: rules.generation(),
            surroundings,
            folder: Folder::new(config.fold.clone()),
            delivery,
            responder,
            recorder,
            hits: HitKeeper::new(&config.state_folder),
            seen: Seen::new(config.capture.already_running),
            reports: Reports::new(Arc::clone(&health), config.health.heartbeat),
            health: Arc::clone(&health),
            counters: Arc::clone(&counters),
            signals: Arc::clone(&signals),
        };
        let worker = std::thread::Builder::new()
            .name("worker".to_owned())
            .spawn(move || {
                harden::enter(Role::Worker);
                worker.run()
            })
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
                let decider =
                    Decider::new(Arc::clone(&proc), Arc::clone(&responses), &runtime, hold_limit_ns());
                // The worker ends last, so it takes the reader.
                let _ = rings.send(reader);
                Box::new(new_capture(counters).with_ring(writer).with_decider(decider)) as _
            }
        };
        let listeners = Listeners::start(listener_settings, Arc::clone(&counters), Box::new(new_sink))?;
        signals.listening.store(true, Relaxed);
        queue.wake();
        health.set_listeners(listeners.watched());
        let mut look = Look::new(
            Box::new(new_capture),
            Arc::clone(&counters),
            Arc::clone(&health),
            Arc::clone(&signals),
        );
        // Also where they are not to be told: what ran at the start was not missed later.
        look.begin(Certainty::AlreadyRunning)
            .map_err(|error| os_failure("cannot start the snapshot", error))?;
        let lookout = Lookout::new(config.health.canary, Arc::clone(&health), Arc::clone(&signals), look)
            .map_err(|error| os_failure("cannot start the thread of canaries", error))?;
        let textfile = setup::start_textfile(&config, &health)?;
        let reloading = Reloading {
            load,
            responses: config.response.clone(),
            started: config.clone(),
            rules,
            files,
            keeper,
            signals: Arc::clone(&signals),
            queue: queue.clone(),
            notifier: Arc::clone(&notifier),
            health: Arc::clone(&health),
        };
        let (reloader, reloading) =
            reloading.start().map_err(|error| os_failure("cannot start the thread that reloads", error))?;
        let control = setup::start_control(
            &config.runtime_folder,
            commands::commands(&health, &journal, &orders, &queue, &reloader, decider, config.metrics.http),
        );
        // Last: who waits for this line may ask at the control socket.
        describe(&listeners, event_buffer, &config);
        notifier.ready();
        let pulse = Pulse::new(Arc::clone(&notifier), Instant::now());
        Ok(Daemon {
            signal_fd,
            listeners,
            queue,
            signals,
            worker,
            journal,
            counters,
            started: Instant::now(),
            reloader,
            reloading,
            pulse,
            notifier,
            control,
            health,
            lookout,
            _textfile: textfile,
            _lock: lock,
        })
    }

    /// Waits for signals; the exit code.
    fn watch(mut self) -> u8 {
        loop {
            let mut waited = [PollFd::new(self.signal_fd.as_fd(), PollFlags::POLLIN)];
            let timeout = PollTimeout::try_from(self.pulse.tick(TICK)).unwrap_or(PollTimeout::MAX);
            // An interruption only means looking again.
            let _ = poll(&mut waited, timeout);
            while let Ok(Some(taken)) = self.signal_fd.read_signal() {
                match Signal::try_from(taken.ssi_signo as i32) {
                    Ok(Signal::SIGUSR1) => self.log_totals(),
                    Ok(Signal::SIGHUP) => {
                        self.signals.reopen.store(true, Relaxed);
                        self.queue.wake();
                        log::info!("SIGHUP: the outputs' files are opened anew, and everything is reloaded");
                        self.reloader.ask();
                    }
                    Ok(signal) => {
                        log::info!("{signal}: ending");
                        return self.stop();
                    }
                    Err(_) => {}
                }
            }
            self.listeners.count_drops();
            if self.worker.is_finished() || !self.lookout.tick(&mut self.listeners) {
                log::error!("threads end by themselves; execwatch would be blind, so it ends");
                self.stop();
                return exit::SOFTWARE;
            }
            let (totals, listeners) = (self.counters.totals(), &self.listeners);
            self.health.sample(&totals);
            self.pulse.beat(&self.signals, !listeners.any_stuck(), || setup::status_line(&totals, listeners));
            if self.listeners.follow_cpus() {
                self.health.set_listeners(self.listeners.watched());
                log::info!("listening on the CPUs that are there now: {}", coverage(&self.listeners));
            }
            for cpu in self.listeners.put_back() {
                log::warn!(
                    "the listener of CPU {cpu} had been taken from its CPU or its real-time priority (taskset, chrt, tuned?) and \
                     was put back; alerts of the second before may be called exact without being so"
                );
            }
        }
    }

    fn log_totals(&self) {
        log::info!("{} uptime-s={}", self.counters.totals(), self.started.elapsed().as_secs());
    }

    fn stop(mut self) -> u8 {
        self.notifier.stopping();
        signals::end_at_once_on_second_signal(self.signal_fd);
        // Who asks from now on is told that there is no daemon.
        self.control.iter_mut().for_each(Server::close);
        // Whoever reloads at the socket may wait for longer than a service manager does: its thread has a reloader too.
        let over = self.reloading.close(self.reloader);
        if let Some(control) = self.control.take().filter(|_| !over) {
            control.leave();
        }
        self.listeners.stop();
        ignore_all();
        self.signals.stop.store(true, Relaxed);
        self.queue.wake();
        self.journal.ending.store(true, Relaxed);
        let Ok(delivery) = self.worker.join() else { return exit::SOFTWARE };
        delivery.close(Instant::now() + CLOSING_TIME);
        log::info!("{} uptime-s={}", self.counters.totals(), self.started.elapsed().as_secs());
        exit::OK
    }
}
