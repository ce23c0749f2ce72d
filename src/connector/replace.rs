//! Listeners that see nothing any more are replaced: a new socket, subscribed again, and a new thread.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::listeners::{Listeners, NOBODY, Owned, Running, wake};
use super::subscription::{ConnectorSocket, SubscriptionError};
use super::wire::what;
use super::{filter, listeners};
use crate::health::ListenerCounters;

/// A listener as others see it.
#[derive(Debug, Clone)]
pub struct Watched {
    /// Its CPU; `None` for the listener of all CPUs that have none of their own.
    pub cpu: Option<u32>,
    /// Programs are held while they are read.
    pub exact: bool,
    /// A CPU whose execs it gets now; `None` if there is none.
    pub any_cpu: Option<u32>,
    /// Its counts.
    pub counters: Arc<ListenerCounters>,
}

impl Listeners {
    /// The listeners there are now.
    pub fn watched(&self) -> Vec<Watched> {
        let watched = |cpu, any_cpu, running: &Running| Watched {
            cpu,
            exact: running.exact,
            any_cpu,
            counters: Arc::clone(&running.counters),
        };
        let uncovered = listeners::cpus().into_iter().find(|cpu| !self.per_cpu.contains_key(cpu));
        self.per_cpu
            .iter()
            .map(|(&cpu, running)| watched(Some(cpu), Some(cpu), running))
            .chain([watched(None, uncovered, &self.catch_all)])
            .collect()
    }

    /// Those whose threads have ended by themselves, by CPU; `None` is the listener of the others.
    pub fn ended(&self) -> Vec<Option<u32>> {
        let per_cpu = self.per_cpu.iter().map(|(&cpu, running)| (Some(cpu), running));
        let all = per_cpu.chain([(None, &self.catch_all)]);
        all.filter(|(_, running)| running.thread.is_finished()).map(|(cpu, _)| cpu).collect()
    }

    /// Replaces these listeners. Their threads are told to end and not waited for: one may hang for ever.
    ///
    /// An error only if nothing could take their place.
    pub fn replace(&mut self, blind: &[Option<u32>]) -> Result<(), SubscriptionError> {
        if blind.contains(&None) {
            self.replace_catch_all()?;
        }
        let cpus: Vec<u32> =
            blind.iter().flatten().copied().filter(|cpu| self.per_cpu.contains_key(cpu)).collect();
        // As when a CPU goes and comes: the catch-all takes its events in between.
        self.set_catch_all(&cpus);
        for &cpu in &cpus {
            self.hand_over.set(cpu, NOBODY);
            if let Some(running) = self.per_cpu.remove(&cpu) {
                self.abandon(running);
            }
        }
        self.follow_cpus();
        Ok(())
    }

    fn replace_catch_all(&mut self) -> Result<(), SubscriptionError> {
        let covered: Vec<u32> = self.per_cpu.keys().copied().collect();
        let socket = ConnectorSocket::open(&filter::execs_except(&covered), self.settings.receive_buffer)?;
        socket.narrow(what::EXEC)?;
        let owned = Owned { hand_over: Arc::clone(&self.hand_over), cpu: None };
        let counters = self.counters.listener(None);
        let (running, _) =
            listeners::spawn(socket, owned, None, self.settings.priority, counters, &mut self.new_sink)
                .map_err(|error| SubscriptionError::Call("starting a listener", error))?;
        let old = std::mem::replace(&mut self.catch_all, running);
        self.abandon(old);
        Ok(())
    }

    /// Tells a listener to end at once, without what is queued: its place is another's.
    fn abandon(&mut self, running: Running) {
        running.abandoned.store(true, Ordering::Relaxed);
        running.stop.store(true, Ordering::Relaxed);
        running.socket.ignore();
        wake(&running);
        self.abandoned.push(running);
    }

    /// Forgets those that were replaced and have ended meanwhile; the number of those that have not.
    pub fn reap(&mut self) -> usize {
        self.abandoned.retain(|running| {
            if !running.thread.is_finished() {
                wake(running);
                return true;
            }
            running.count_drops();
            false
        });
        self.abandoned.len()
    }
}
