//! Starts the daemon's parts as the configuration says.

use std::io::{ErrorKind, IsTerminal};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::resource::{Resource, getrlimit};

use super::{Failure, Options, os_failure};
use crate::alert::Host;
use crate::baseline::Baseline;
use crate::baseline::decision::Mode;
use crate::clock;
use crate::config::{self, Config};
use crate::connector::listeners::Listeners;
use crate::control::Commands;
use crate::control::place;
use crate::control::server::Server;
use crate::cpus;
use crate::event::recorder::Recorder;
use crate::exit;
use crate::followup;
use crate::health::metrics::Textfile;
use crate::health::status::Health;
use crate::health::{Counters, Totals};
use crate::identity;
use crate::identity::keeper::Keeper;
use crate::identity::settle::Executables;
use crate::incident::desk::Desk;
use crate::journal::shared::Shared;
use crate::output::Destination;
use crate::output::delivery::Delivery;
use crate::output::entry::Form;
use crate::output::file::FileOutput;
use crate::output::journald::JournaldOutput;
use crate::output::remote::RemoteOutput;
use crate::output::stdout::StdoutOutput;
use crate::output::syslog::SyslogOutput;
use crate::process::capture::Prefilter;
use crate::process::proc_dir::ProcRoot;
use crate::process::queue::ExecQueue;
use crate::response;
use crate::response::act::Responder;
use crate::response::held::Held;
use crate::response::orders::OrderReceiver;
use crate::rules::ruleset::RuleSet;
use crate::sys;
use crate::worker::Signals;

/// Keeps an index of the installed utilities, and of packages if a rule asks for them.
pub(super) fn keep_index(
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
pub(super) fn follow_alerts(
    config: &Config,
    proc: &Arc<ProcRoot>,
    counters: &Arc<Counters>,
    queue: &ExecQueue,
) -> Result<Option<followup::desk::Desk>, Failure> {
    if !config.follow.enabled {
        return Ok(None);
    }
    let queue = queue.clone();
    followup::desk::Desk::start(config.follow.clone(), Arc::clone(proc), Arc::clone(counters), move || {
        queue.wake()
    })
    .map(Some)
    .map_err(|error| os_failure("cannot start the thread that follows alerts", error))
}

/// Processes are sent signals: by rules with an action, or to let go what a daemon before this one holds still.
pub(super) fn needs_responses(config: &Config) -> bool {
    // What cannot be read is said when it is opened.
    config.response.mode != response::Mode::Off
        || Held::list(&config.runtime_folder).is_ok_and(|held| !held.is_empty())
}

/// Makes the runtime folder, finds what was held before, and says what is made of the actions of rules.
pub(super) fn start_responses(
    config: &Config,
    proc: &Arc<ProcRoot>,
    orders: OrderReceiver,
) -> Result<Responder, Failure> {
    let runtime = &config.runtime_folder;
    match place::prepare(runtime) {
        Ok(()) => {}
        // Whoever can write there can disarm, and say what is held.
        Err(error) if config.response.mode != response::Mode::Off => {
            return Err(os_failure("responses need the runtime folder", error));
        }
        // What else needs the folder says so itself.
        Err(error) => log::debug!("{error}"),
    }
    let responder = Responder::start(config.response.clone(), runtime, Arc::clone(proc), orders)
        .map_err(|error| os_failure("cannot prepare responses", error))?;
    match config.response.mode {
        response::Mode::Off => {}
        response::Mode::DryRun => log::info!("responses: dry run; alerts say what would be done"),
        response::Mode::Enforce => log::info!("responses: rules with an action act on programs"),
    }
    Ok(responder)
}

/// Opens what is known to be normal here, and says what is made of it.
pub(super) fn start_baseline(config: &Config) -> Option<Baseline> {
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

/// Opens the database of incidents, and starts the thread that writes it.
pub(super) fn start_incidents(
    config: &Config,
    host: &Host,
    counters: &Arc<Counters>,
    (signals, queue): (&Arc<Signals>, &ExecQueue),
    journal: &Shared,
) -> Result<Option<Desk>, Failure> {
    if !config.incident.enabled {
        return Ok(None);
    }
    let (signals, queue) = (Arc::clone(signals), queue.clone());
    let say = Box::new(move |notice| {
        signals.notify(notice);
        queue.wake();
    });
    Desk::start(
        config.incident.clone(),
        &config.state_folder,
        host.clone(),
        Arc::clone(counters),
        say,
        journal,
    )
    .map(Some)
    .map_err(|error| os_failure("cannot start the thread that keeps incidents", error))
}

/// Opens the journal and starts the outputs.
pub(super) fn start_delivery(config: &Config, json: bool, host: &Host) -> Result<Delivery, Failure> {
    let settings = &config.output;
    let mut outputs: Vec<Box<dyn Destination>> = Vec::new();
    if let Some(syslog) = settings.syslog.clone() {
        outputs.push(Box::new(SyslogOutput::new(syslog, &host.name)));
    }
    for remote in settings.remote.clone() {
        outputs.push(Box::new(RemoteOutput::new(remote, &host.name)));
    }
    if let Some(journald) = settings.journald.clone() {
        outputs.push(Box::new(JournaldOutput::new(journald)));
    }
    if let Some(file) = settings.file.clone() {
        outputs.push(Box::new(FileOutput::new(file)));
    }
    if json || settings.stdout.enabled.unwrap_or(std::io::stdout().is_terminal()) {
        let form = stdout_form(&settings.stdout, json);
        outputs.push(Box::new(StdoutOutput::new(form)));
    }
    if outputs.is_empty() {
        log::warn!("no output is switched on; alerts are only counted");
    }
    let folder = config.journal.folder.clone().unwrap_or_else(|| config.state_folder.join("journal"));
    Delivery::start(config.journal.clone(), folder, outputs, host)
        .map_err(|error| os_failure("cannot start journal and outputs", error))
}

/// The form of standard output.
pub fn stdout_form(settings: &config::Stdout, json: bool) -> Form {
    let terminal = std::io::stdout().is_terminal();
    match settings.format {
        _ if json => Form::Json,
        Some(format) => format.into(),
        None if terminal => Form::People { colour: std::env::var_os("NO_COLOR").is_none() },
        None => Form::Text,
    }
}

pub(super) fn start_recorder(options: &Options, host: &Host) -> Result<Option<Recorder>, Failure> {
    let Some(path) = &options.record else { return Ok(None) };
    let recorder = Recorder::open(path, &host.name).map_err(|error| Failure {
        code: exit::IO,
        message: format!("events cannot be recorded in {}: {error}", path.display()),
    })?;
    let what = if options.record_all { "every program is" } else { "programs that rules might match are" };
    log::info!("{what} recorded in {}", path.display());
    Ok(Some(recorder))
}

/// This host, as every record names it.
pub fn this_host() -> Host {
    let read = |path| std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
    Host {
        name: nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        id: read("/etc/machine-id"),
        kernel: read("/proc/sys/kernel/osrelease"),
    }
}

/// Which CPUs are exact.
pub(super) fn coverage(listeners: &Listeners) -> String {
    let exact = listeners.exact_cpus();
    if exact.is_empty() {
        return "best effort on all CPUs: programs are not held while they are read".to_owned();
    }
    let list: Vec<String> = exact.iter().map(u32::to_string).collect();
    format!("exact on CPU {}, best effort on others", list.join(","))
}

/// What `systemctl status` shows of it.
pub(super) fn status_line(totals: &Totals, listeners: &Listeners) -> String {
    format!(
        "{}; {} programs executed, {} alerts, {} lost",
        coverage(listeners),
        totals.execs,
        totals.alerts,
        totals.lost + totals.dropped + totals.gone
    )
}

/// A listener that waits for a disk lets the program go that it holds.
pub(super) fn stay_in_memory() {
    if let Err(error) = sys::memory::stay() {
        let remedy = match error.kind() {
            ErrorKind::PermissionDenied => {
                "; give execwatch CAP_IPC_LOCK (docker: --cap-add IPC_LOCK, systemd: CapabilityBoundingSet=)"
            }
            _ => "",
        };
        log::warn!(
            "execwatch's memory cannot be locked: {error}; where the kernel takes pages of it away, the next program runs \
             before it is read{remedy}"
        );
    }
}

/// Has the kernel make the table of descriptors as large as will be needed. Where threads share one, enlarging it waits for
/// milliseconds (synchronize_rcu in fs/file.c), whoever needs it, a listener that holds a program too.
pub(super) fn room_for_descriptors(any: impl AsFd) {
    /// More than are open for what waits to be hashed (`MOST_OPEN`), and for outputs.
    const MANY: usize = 1000;
    /// A listener has a socket, and the runtime folder.
    const FOR_EACH_CPU: usize = 2;
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(limit, _)| limit);
    let many = MANY + FOR_EACH_CPU * cpus::online().map_or(1, |cpus| cpus.len());
    let last = usize::try_from(limit).map_or(many, |limit| many.min(limit.saturating_sub(1)));
    let last = libc::c_int::try_from(last).unwrap_or(libc::c_int::MAX);
    // Without it the table grows when it must.
    if let Ok(fd) = fcntl(any, FcntlArg::F_DUPFD_CLOEXEC(last)) {
        let _ = nix::unistd::close(fd);
    }
}

pub(super) fn describe(listeners: &Listeners, event_buffer: usize, config: &Config) {
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

/// Opens the control socket. Without it execwatch sees as much, but cannot be asked.
pub(super) fn start_control(folder: &Path, commands: Commands) -> Option<Server> {
    match Server::start(folder, commands) {
        Ok(server) => {
            log::debug!("answering at {}", server.path().display());
            Some(server)
        }
        Err(error) => {
            log::warn!("`execwatch status` will not be answered: {error}");
            None
        }
    }
}

/// Starts the thread that writes metrics to a file, if there is to be one.
pub(super) fn start_textfile(config: &Config, health: &Arc<Health>) -> Result<Option<Textfile>, Failure> {
    let Some(path) = config.metrics.textfile.clone() else { return Ok(None) };
    Textfile::start(path, config.metrics.every, Arc::clone(health))
        .map(Some)
        .map_err(|error| os_failure("cannot start the thread that writes metrics", error))
}
