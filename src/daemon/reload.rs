//! Reload: configuration and rules are read and compiled aside, by a thread of ordinary priority, and put in force at once
//! if nothing is wrong with them. If anything is, what was in force stays. Both is said: in the log, in the stream of
//! records, and to whoever asked.
//!
//! What takes effect at once are utilities, rules, exceptions, and how responses are made. Between rules and responses
//! there is a moment, in which nothing is done that the old or the new `[response]` forbids. What the daemon was set up
//! with stays until the next start, and is named if it was changed (see `restart`).

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::notify::Notifier;
use super::restart;
use crate::alert::Notice;
use crate::clock;
use crate::config::Config;
use crate::diagnostics::{Diagnostic, Diagnostics, Level, counted};
use crate::harden;
use crate::harden::roles::Role;
use crate::health::fingerprint;
use crate::health::status::Health;
use crate::identity::keeper::Keeper;
use crate::identity::settle::Executables;
use crate::process::capture::Prefilter;
use crate::process::queue::ExecQueue;
use crate::response;
use crate::rules::current::Current;
use crate::rules::model::Severity;
use crate::rules::ruleset::RuleSet;
use crate::sys;
use crate::worker::{Configured, Signals};

/// Reads everything anew; `None` for the rules if anything was refused.
pub type Load = Box<dyn Fn(&Diagnostics) -> (Config, Option<RuleSet>) + Send>;

/// Messages that are logged of one reload; `execwatch check` shows all.
const MOST_LOGGED: usize = 20;
/// How often it is tried to free rules that a listener still holds.
const FREE_EVERY: Duration = Duration::from_secs(1);
/// How long the worker may take until it responds by other settings. It goes round many times a second.
const WORKER_TIME: Duration = Duration::from_secs(10);
/// How long the end waits for a reload that is under way.
const CLOSING_TIME: Duration = Duration::from_secs(2);

/// What came of a reload.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Outcome {
    /// What was read is in force.
    pub accepted: bool,
    /// The outcome in a sentence.
    pub message: String,
    /// Mistakes and warnings with file, line and column, as `execwatch check` shows them.
    pub diagnostics: Vec<String>,
    /// The settings that differ from those the daemon was started with and take effect at its next start.
    pub at_next_start: Vec<&'static str>,
}

/// What is known of reloads.
#[derive(Debug, Clone, Default)]
pub struct ReloadStatus {
    /// Reloads that were accepted.
    pub accepted: u64,
    /// Reloads that were refused.
    pub refused: u64,
    /// When the last one was, in nanoseconds since 1970, and what came of it; `None` if there was none.
    pub last: Option<(u64, Outcome)>,
    /// See [`Outcome`], as of the last that was accepted: one that was refused changes nothing about it.
    pub at_next_start: Vec<&'static str>,
}

/// Asks for reloads, from any thread.
#[derive(Debug, Clone)]
pub struct Reloader {
    requests: Sender<Request>,
    status: Arc<Mutex<ReloadStatus>>,
}

#[derive(Debug)]
struct Request {
    answer: Option<Sender<Outcome>>,
}

impl Reloader {
    /// Asks for a reload without waiting for it.
    pub fn ask(&self) {
        // The thread ends with the process.
        let _ = self.requests.send(Request { answer: None });
    }

    /// Reloads and waits for the outcome; `None` if it takes longer than `timeout`.
    pub fn reload(&self, timeout: Duration) -> Option<Outcome> {
        let (answer, answered) = crossbeam_channel::bounded(1);
        self.requests.send(Request { answer: Some(answer) }).ok()?;
        answered.recv_timeout(timeout).ok()
    }

    /// What came of reloads so far.
    pub fn status(&self) -> ReloadStatus {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Why settings of responses are not in force.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Refused {
    /// The worker has not come to them.
    Busy,
    /// It cannot respond by them.
    Reason(String),
    /// It has ended, and the daemon ends too.
    Ended,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => write!(
                f,
                "the worker is too busy to take [response] within {} s; try again",
                WORKER_TIME.as_secs()
            ),
            Self::Reason(reason) => write!(
                f,
                "[response], joined with what was in force for the time between, cannot be put in force: {reason}; a \
                 restart needs no time between"
            ),
            Self::Ended => f.write_str("the worker has ended"),
        }
    }
}

/// What the worker's answer means, or that there was none.
fn answered(answer: Result<Configured, RecvTimeoutError>) -> Result<(), Refused> {
    match answer {
        Ok(result) => result.map_err(Refused::Reason),
        Err(RecvTimeoutError::Timeout) => Err(Refused::Busy),
        Err(RecvTimeoutError::Disconnected) => Err(Refused::Ended),
    }
}

/// What the thread works with.
pub(super) struct Reloading {
    /// Reads the files.
    pub load: Load,
    /// The configuration that the daemon was started with.
    pub started: Config,
    /// The rules in force.
    pub rules: Arc<Current>,
    /// What is known of files.
    pub files: Arc<Executables>,
    /// Looks for installed utilities.
    pub keeper: Option<Keeper>,
    /// How responses are made now.
    pub responses: response::Settings,
    /// Writes notices.
    pub signals: Arc<Signals>,
    /// Wakes the worker.
    pub queue: ExecQueue,
    /// Tells the service manager.
    pub notifier: Arc<Notifier>,
    /// Tells what is in force.
    pub health: Arc<Health>,
}

/// The thread; it ends when all [`Reloader`]s are gone.
pub(super) struct Running {
    ended: Receiver<()>,
}

impl Running {
    /// Waits, not for long, until a reload that is under way is over, so that it is not cut off half logged. False if it
    /// goes on, or somebody still has a [`Reloader`].
    pub(super) fn close(self, reloader: Reloader) -> bool {
        drop(reloader);
        // Nothing is ever sent: the thread's end closes the channel.
        self.ended.recv_timeout(CLOSING_TIME) != Err(RecvTimeoutError::Timeout)
    }
}

impl Reloading {
    /// Starts the thread.
    pub(super) fn start(mut self) -> std::io::Result<(Reloader, Running)> {
        let (requests, taken) = crossbeam_channel::unbounded();
        let (end, ended) = crossbeam_channel::bounded::<()>(0);
        let status = Arc::new(Mutex::new(ReloadStatus::default()));
        let shared = Arc::clone(&status);
        std::thread::Builder::new().name("reload".to_owned()).spawn(move || {
            harden::enter(Role::Reload);
            self.run(&taken, &shared);
            drop(end);
        })?;
        Ok((Reloader { requests, status }, Running { ended }))
    }

    fn run(&mut self, requests: &Receiver<Request>, status: &Mutex<ReloadStatus>) {
        let mut retired = 0;
        loop {
            let request = if retired == 0 {
                requests.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                requests.recv_timeout(FREE_EVERY)
            };
            match request {
                Ok(first) => {
                    // Whoever asked before the files are read is answered by the same reload.
                    let asked: Vec<Request> = std::iter::once(first).chain(requests.try_iter()).collect();
                    let outcome = self.reload();
                    self.tell(&outcome, status);
                    for answer in asked.into_iter().filter_map(|request| request.answer) {
                        // Whoever asked has gone.
                        let _ = answer.send(outcome.clone());
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            retired = self.rules.free();
            if retired == 0 {
                // What reading the files took, and the rules before.
                sys::memory::give_back();
            }
        }
    }

    fn reload(&mut self) -> Outcome {
        self.notifier.reloading();
        let diagnostics = Diagnostics::default();
        let (config, ruleset) = (self.load)(&diagnostics);
        let mistakes = diagnostics.errors();
        let list = diagnostics.into_list();
        let said = list.iter().map(ToString::to_string).collect();
        log_all(&list);
        let outcome = match ruleset {
            Some(ruleset) if mistakes == 0 => self.accept(&config, ruleset, said),
            _ => Outcome {
                accepted: false,
                message: format!(
                    "not reloaded: {} in configuration or rules; what was in force stays in force",
                    counted(mistakes, "mistake", "mistakes")
                ),
                diagnostics: said,
                at_next_start: Vec::new(),
            },
        };
        self.notifier.ready();
        outcome
    }

    /// Responds by these settings, or says why they are not in force.
    fn respond_by(&mut self, settings: response::Settings) -> Result<(), Refused> {
        if settings == self.responses {
            return Ok(());
        }
        let in_force = self.signals.configure_responses(settings.clone());
        self.queue.wake();
        answered(in_force.recv_timeout(WORKER_TIME))?;
        self.responses = settings;
        Ok(())
    }

    fn accept(&mut self, config: &Config, ruleset: RuleSet, diagnostics: Vec<String>) -> Outcome {
        let responses_follow = restart::responses_follow(&self.started);
        let before = self.responses.clone();
        // Until the new rules are in force, and the old ones are not, nothing is done that either forbids.
        if responses_follow && let Err(refused) = self.respond_by(before.stricter(&config.response)) {
            // Whenever it takes them.
            let _ = self.signals.configure_responses(before);
            return Outcome {
                accepted: false,
                message: format!("not reloaded: {refused}; what was in force stays in force"),
                diagnostics,
                at_next_start: Vec::new(),
            };
        }
        let ruleset = Arc::new(ruleset);
        if ruleset.wants().packages {
            self.files.packages.want();
        }
        self.rules.replace(Arc::clone(&ruleset));
        // The worker has hits go on from the rules before, so it is woken even if nothing is executed.
        self.queue.wake();
        let followed = if responses_follow { self.respond_by(config.response.clone()) } else { Ok(()) };
        match followed {
            Ok(()) => {}
            Err(Refused::Busy) => {
                // They are where the worker finds them.
                self.responses = config.response.clone();
                log::warn!("the worker is busy: [response] follows when it is not; until then, less is done");
            }
            Err(refused) => {
                // The stricter of the old and the new stays.
                let _ = self.signals.configure_responses(self.responses.clone());
                log::error!("{refused}; what the old or the new [response] forbids is not done");
            }
        }
        let response = self.responses.clone();
        let in_force = Config { rules: config.rules.clone(), response, ..self.started.clone() };
        self.health.set_configuration(fingerprint::of(&in_force, &ruleset));
        if let Some(keeper) = &self.keeper
            && !keeper.replace(Arc::clone(&ruleset))
        {
            log::warn!("copies of new utilities are known by name only for now: a folder answers late");
        } else if self.keeper.is_none() && ruleset.wants().packages {
            // The first rule that asks which files belong to packages.
            let folders = self.started.capture.identity_folders.clone();
            match Keeper::start(Arc::clone(&ruleset), Arc::clone(&self.files), folders) {
                Ok(keeper) => self.keeper = Some(keeper),
                Err(error) => log::warn!("packages are not known: their thread cannot be started: {error}"),
            }
        }
        let at_next_start = restart::needed(&self.started, config);
        let counts = [
            counted(ruleset.rules().len(), "rule", "rules"),
            counted(ruleset.exceptions().len(), "exception", "exceptions"),
            counted(ruleset.catalogue().utilities().len(), "utility", "utilities"),
        ];
        let mut message = format!("reloaded: {}, {} and {} are in force", counts[0], counts[1], counts[2]);
        if !at_next_start.is_empty() {
            let take = if at_next_start.len() == 1 { "takes" } else { "take" };
            message += &format!("; {} {take} effect at the next start", at_next_start.join(", "));
        }
        Outcome { accepted: true, message, diagnostics, at_next_start }
    }

    fn tell(&self, outcome: &Outcome, status: &Mutex<ReloadStatus>) {
        if outcome.accepted {
            log::info!("{}", outcome.message);
        } else {
            log::error!("{}", outcome.message);
        }
        let time_ns = clock::realtime_ns();
        let (kind, severity) = match outcome.accepted {
            true => ("reload", Severity::Info),
            false => ("reload-refused", Severity::Medium),
        };
        self.signals.notify(Notice { kind, severity, time_ns, message: outcome.message.clone() });
        self.queue.wake();
        let mut status = status.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome.accepted {
            true => {
                status.accepted += 1;
                status.at_next_start.clone_from(&outcome.at_next_start);
            }
            false => status.refused += 1,
        }
        status.last = Some((time_ns, outcome.clone()));
    }
}

/// Each message is one of the log's, with its place but without the quoted line.
fn log_all(list: &[Diagnostic]) {
    for diagnostic in list.iter().take(MOST_LOGGED) {
        let text = diagnostic.to_string();
        let line = text.lines().next().unwrap_or_default();
        match diagnostic.level {
            Level::Error => log::error!("{line}"),
            Level::Warning => log::warn!("{line}"),
        }
    }
    if list.len() > MOST_LOGGED {
        log::error!("{} more; `execwatch check` shows all", list.len() - MOST_LOGGED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_worker_that_does_not_answer_is_busy() {
        assert_eq!(answered(Ok(Ok(()))), Ok(()));
        let said = |answer| answered(answer).unwrap_err().to_string();
        let refused = said(Ok(Err("`protected` is too large".to_owned())));
        assert!(refused.contains("cannot be put in force: `protected` is too large; a restart"), "{refused}");
        assert!(said(Err(RecvTimeoutError::Timeout)).contains("too busy"));
        assert_eq!(said(Err(RecvTimeoutError::Disconnected)), "the worker has ended");
    }
}
