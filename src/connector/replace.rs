//! Replacing listeners: one that sees nothing gets a successor with a new socket that is subscribed again, one that is
//! stuck in a program a successor on the same socket, so that what waits there is neither lost nor received twice.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::listeners::{Listeners, Owned, Running, wake};
use super::stuck::{MOST_STUCK, Stuck};
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
            self.hand_over.take_away(cpu);
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
        let (priority, receiver) = (self.settings.priority, Arc::clone(&socket));
        let (running, _) = listeners::spawn(receiver, owned, None, priority, counters, &mut self.new_sink)
            .map_err(|error| {
                socket.ignore();
                SubscriptionError::Call("starting a listener", error)
            })?;
        let old = std::mem::replace(&mut self.catch_all, running);
        self.abandon(old);
        Ok(())
    }

    /// Looks, once a tick, whether a listener does not come back from a program, and puts another thread in its place.
    /// Those that were stuck.
    pub fn replace_stuck(&mut self) -> Vec<Stuck> {
        let mut found = Vec::new();
        let cpus: Vec<Option<u32>> = self.per_cpu.keys().copied().map(Some).chain([None]).collect();
        for cpu in cpus {
            let Some(running) = self.running(cpu) else { continue };
            if !running.watch.is_stuck(&running.counters, &running.socket) {
                continue;
            }
            let counters = Arc::clone(&running.counters);
            let mut stuck = Stuck::look(cpu, &counters);
            if stuck.spins {
                // Before there is another, which would not get the CPU.
                stuck.demote(&counters);
            }
            stuck.not_replaced = self.succeed(cpu).err();
            if !stuck.spins && stuck.not_replaced.is_none() {
                stuck.demote(&counters);
            }
            found.push(stuck);
        }
        found
    }

    /// A listener is stuck and nobody could take its place.
    pub fn any_stuck(&self) -> bool {
        self.per_cpu.values().chain([&self.catch_all]).any(|running| running.watch.stands_still())
    }

    fn running(&mut self, cpu: Option<u32>) -> Option<&mut Running> {
        match cpu {
            Some(cpu) => self.per_cpu.get_mut(&cpu),
            None => Some(&mut self.catch_all),
        }
    }

    /// Lets a new thread go on with the socket of a stuck one.
    fn succeed(&mut self, cpu: Option<u32>) -> Result<(), String> {
        if self.replaced.len() >= MOST_STUCK {
            return Err(format!("{MOST_STUCK} others are stuck already"));
        }
        let (priority, owned) =
            (self.settings.priority, Owned { hand_over: Arc::clone(&self.hand_over), cpu });
        let Some(running) = self.running(cpu) else { return Err("it has ended".to_owned()) };
        let (socket, replaced) = (Arc::clone(&running.socket), Arc::clone(&running.replaced));
        // First, so that it does not compete with the new one should it come back just now.
        replaced.store(true, Ordering::Relaxed);
        let counters = self.counters.listener(cpu);
        match listeners::spawn(socket, owned, cpu, priority, counters, &mut self.new_sink) {
            Ok((new, _)) => {
                if let Some(running) = self.running(cpu) {
                    let old = std::mem::replace(running, new);
                    // The kernel counts what it discards for the socket, which both have.
                    let (from, to) = (&old.counters, &running.counters);
                    to.overruns.fetch_add(from.overruns.swap(0, Ordering::Relaxed), Ordering::Relaxed);
                    to.dropped.fetch_add(from.dropped.swap(0, Ordering::Relaxed), Ordering::Relaxed);
                    running.dropped_before += old.dropped_before;
                    self.counters.listeners_stuck.fetch_add(1, Ordering::Relaxed);
                    self.replaced.push(old);
                }
                Ok(())
            }
            Err(error) => {
                replaced.store(false, Ordering::Relaxed);
                Err(format!("no thread can be started: {error}"))
            }
        }
    }

    /// Tells a listener to end at once, without what is queued: its place is another's.
    fn abandon(&mut self, running: Running) {
        running.replaced.store(true, Ordering::Relaxed);
        running.socket.ignore();
        wake(&running);
        self.replaced.push(running);
    }

    /// Forgets those that were replaced and have ended meanwhile; the number of those that have not.
    pub fn reap(&mut self) -> usize {
        let replaced = std::mem::take(&mut self.replaced);
        let (ended, hanging): (Vec<Running>, Vec<Running>) =
            replaced.into_iter().partition(|running| running.thread.is_finished());
        self.replaced = hanging;
        self.replaced.iter().for_each(wake);
        for running in ended {
            log::info!("a listener that was replaced has come back and ended");
            running.ended();
        }
        self.replaced.len()
    }
}
