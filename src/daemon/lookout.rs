//! Watches whether the listeners see, and makes them see again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::look::Look;
use crate::alert::Notice;
use crate::calendar;
use crate::clock;
use crate::connector::listeners::Listeners;
use crate::connector::restore::Restorer;
use crate::health::canary::{Cage, Outcome, Probe, Tried};
use crate::health::sight::{Listener, Sight, Verdict};
use crate::health::status::{Health, Said, Untried};
use crate::rules::model::Severity;
use crate::worker::Signals;

/// Listeners that may end by themselves within [`ENDS_WITHIN`]; after more the daemon ends, and is started anew.
const MOST_ENDS: usize = 8;
const ENDS_WITHIN: Duration = Duration::from_secs(60);

/// Watches the listeners.
pub(super) struct Lookout {
    sight: Sight,
    /// `None`: no canaries.
    cage: Option<Cage>,
    restorer: Restorer,
    health: Arc<Health>,
    signals: Arc<Signals>,
    look: Look,
    /// Those that cannot be tried, which was said, and why.
    untried: BTreeMap<Listener, String>,
    ends: VecDeque<Instant>,
}

impl Lookout {
    pub(super) fn new(
        period: Option<Duration>,
        health: Arc<Health>,
        signals: Arc<Signals>,
        look: Look,
    ) -> std::io::Result<Self> {
        let cage = period.map(|_| Cage::open()).transpose()?;
        let period_ns =
            period.map_or(u64::MAX, |period| u64::try_from(period.as_nanos()).unwrap_or(u64::MAX));
        Ok(Lookout {
            sight: Sight::new(period_ns),
            cage,
            restorer: Restorer::default(),
            health,
            signals,
            look,
            untried: BTreeMap::new(),
            ends: VecDeque::new(),
        })
    }

    /// Does what is to be done now. False if listeners end again and again, so that nothing helps but to start anew.
    pub(super) fn tick(&mut self, listeners: &mut Listeners) -> bool {
        self.replace_stuck(listeners);
        let watched = listeners.watched();
        let tried = self.cage.as_mut().map(Cage::results);
        let now_ns = clock::monotonic_ns();
        let last_events: Vec<(Listener, u64)> = watched
            .iter()
            .filter(|listener| listener.any_cpu.is_some())
            .map(|listener| (listener.cpu, listener.counters.last_event_ns.load(Relaxed)))
            .collect();
        let due = self.sight.due(&last_events, now_ns);
        let mut verdict = match tried {
            Some(tried) => self.take(&tried, listeners, now_ns),
            // Without canaries only those are due whose threads had ended: their successors are believed.
            None => {
                let believed = due.iter().map(|&listener| Tried { listener, outcome: Outcome::Seen });
                self.sight.take(&believed.collect::<Vec<_>>(), now_ns)
            }
        };
        for ended in listeners.ended() {
            self.ends.push_back(Instant::now());
            self.sight.blind(ended, now_ns, &mut verdict);
            if !verdict.to_replace.contains(&ended) {
                // One that gets no events now may be needed any time.
                verdict.to_replace.push(ended);
            }
        }
        self.ends.retain(|end| end.elapsed() < ENDS_WITHIN);
        if self.ends.len() > MOST_ENDS {
            return false;
        }
        // Those that are replaced now are tried with the next tick.
        let probes = watched
            .iter()
            .filter(|listener| due.contains(&listener.cpu) && !verdict.to_replace.contains(&listener.cpu))
            .filter_map(|listener| {
                let counters = Arc::clone(&listener.counters);
                Some(Probe { listener: listener.cpu, cpu: listener.any_cpu?, counters })
            });
        if let Some(cage) = &mut self.cage {
            cage.order(probes);
        }
        self.act(&verdict, listeners);
        self.health.set_blind(self.sight.blind_now());
        self.untried.retain(|listener, _| watched.iter().any(|there| there.cpu == *listener));
        // One that saw something by itself meanwhile is not to be tried.
        let unknown = self.untried.iter().filter(|(listener, _)| due.contains(listener));
        let unknown = unknown.map(|(&cpu, reason)| Untried { cpu, reason: reason.clone() });
        self.health.set_untried(unknown.collect());
        self.health.canary.hanging.store(listeners.reap() as u64, Relaxed);
        self.look.tick();
        true
    }

    /// Puts others in the place of listeners that do not come back from a program.
    fn replace_stuck(&mut self, listeners: &mut Listeners) {
        let stuck = listeners.replace_stuck();
        if stuck.is_empty() {
            return;
        }
        for one in stuck {
            let message = one.to_string();
            log::error!("{message}");
            self.say("listener-stuck", Severity::High, message);
        }
        self.look.want();
        self.health.set_listeners(listeners.watched());
    }

    fn take(&mut self, tried: &[Tried], listeners: &Listeners, now_ns: u64) -> Verdict {
        if tried.is_empty() {
            return Verdict::default();
        }
        let count =
            |wanted: fn(&Outcome) -> bool| tried.iter().filter(|it| wanted(&it.outcome)).count() as u64;
        let unseen = count(|outcome| *outcome == Outcome::Unseen);
        let executed = unseen + count(|outcome| *outcome == Outcome::Seen);
        self.health.canary.executed.fetch_add(executed, Relaxed);
        self.health.canary.unseen.fetch_add(unseen, Relaxed);
        let what = match (unseen, executed) {
            (_, 0) => "not executed",
            (0, _) => "seen",
            _ => "unseen",
        };
        self.health.set_last_canary(Said::new(clock::realtime_ns(), what));
        self.say_untried(tried, listeners);
        self.sight.take(tried, now_ns)
    }

    fn act(&mut self, verdict: &Verdict, listeners: &mut Listeners) {
        if let Some(since_ns) = verdict.to_say.iter().map(|&(_, since_ns)| since_ns).min() {
            let message = format!(
                "blind on {}: nothing was seen since {}, not even a program that execwatch executed itself; it subscribes \
                 anew and looks at all running programs",
                places(verdict.to_say.iter().map(|&(listener, _)| listener), listeners),
                wall(since_ns)
            );
            log::error!("{message}");
            self.say("blind", Severity::Critical, message);
        }
        if !verdict.to_replace.is_empty() {
            self.make_see(&verdict.to_replace, listeners);
        }
        if let Some(since_ns) = verdict.see_again.iter().map(|&(_, since_ns)| since_ns).min() {
            // What ran already when the new listener began is found now.
            self.signals.execs_missed(since_ns);
            self.look.want();
            let message = format!(
                "programs are seen again on {}: those executed between {} and {} were missed, and of these only what still \
                 runs is found",
                places(verdict.see_again.iter().map(|&(listener, _)| listener), listeners),
                wall(since_ns),
                calendar::rfc3339(clock::realtime_ns())
            );
            log::warn!("{message}");
            self.say("sees-again", Severity::High, message);
        }
        if !verdict.to_replace.is_empty() || !verdict.see_again.is_empty() {
            self.health.set_listeners(listeners.watched());
        }
    }

    /// New sockets and threads for these listeners, and the kernel's number of listeners put right.
    fn make_see(&mut self, blind: &[Listener], listeners: &mut Listeners) {
        match listeners.replace(blind) {
            Ok(()) => drop(self.health.canary.replaced.fetch_add(blind.len() as u64, Relaxed)),
            Err(error) => log::error!("listeners could not be replaced, which is tried again: {error}"),
        }
        match self.restorer.restore() {
            Ok(true) => {
                // Then nobody was told of forks and exits either.
                let since_ns = self.sight.blind_now().iter().map(|&(_, since_ns)| since_ns).min();
                self.signals.events_missed(since_ns.unwrap_or(0));
            }
            Ok(false) => {}
            Err(error) => {
                log::error!("the subscription could not be restored, which is tried again: {error}")
            }
        }
        self.look.want();
    }

    /// Says once of each listener that it cannot be tried, until it could be.
    fn say_untried(&mut self, tried: &[Tried], listeners: &Listeners) {
        let mut new = BTreeSet::new();
        let mut first = None;
        for Tried { listener, outcome } in tried {
            match outcome {
                Outcome::NotRun(reason) => {
                    if self.untried.insert(*listener, reason.clone()).is_none() {
                        new.insert(*listener);
                        first = first.or(Some(reason));
                    }
                }
                Outcome::Seen | Outcome::Unseen => drop(self.untried.remove(listener)),
            }
        }
        if let Some(reason) = first {
            let message = format!(
                "whether programs are seen on {} cannot be tried: `execwatch canary` could not be executed: {reason}",
                places(new.into_iter(), listeners)
            );
            self.say("canary-failed", Severity::Medium, message);
        }
    }

    fn say(&self, kind: &'static str, severity: Severity, message: String) {
        self.signals.notify(Notice { kind, severity, time_ns: clock::realtime_ns(), message });
    }
}

fn wall(time_ns: u64) -> String {
    calendar::rfc3339(clock::wall_from_monotonic(time_ns))
}

/// The CPUs of listeners, for people.
fn places(blind: impl Iterator<Item = Listener>, listeners: &Listeners) -> String {
    let (others, cpus): (Vec<_>, Vec<_>) = blind.partition(Option::is_none);
    let cpus: Vec<String> = cpus.iter().flatten().map(u32::to_string).collect();
    match (cpus.is_empty(), others.is_empty()) {
        (true, _) if listeners.exact_cpus().is_empty() => "all CPUs".to_owned(),
        (true, _) => "CPUs without a listener of their own".to_owned(),
        (false, true) => format!("CPU {}", cpus.join(",")),
        (false, false) => format!("CPU {} and those without a listener of their own", cpus.join(",")),
    }
}
