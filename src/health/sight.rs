//! Which listeners see, as far as is known: when each is to be tried, and what follows from what came of it.
//!
//! In: when each listener saw its last event, and what came of canaries. Out: whom to try now, and who went blind or
//! sees again. No I/O and no clock: times are CLOCK_MONOTONIC in nanoseconds.

use std::collections::BTreeMap;

use super::canary::{Outcome, Tried};

/// A listener by its CPU; `None` is that of all CPUs without one of their own.
pub type Listener = Option<u32>;

/// The first pause before a listener that stayed blind is replaced again; each further one is twice as long.
const FIRST_PAUSE_NS: u64 = 2_000_000_000;
/// The longest of these pauses.
const LONGEST_PAUSE_NS: u64 = 60_000_000_000;
/// How often it is said again that a listener is blind.
const SAY_AGAIN_NS: u64 = 600_000_000_000;

/// What is known of a listener.
#[derive(Debug, Clone, Copy)]
struct State {
    /// When it certainly saw: when it saw something last, or when it was begun.
    saw_ns: u64,
    blind: Option<Blind>,
}

#[derive(Debug, Clone, Copy)]
struct Blind {
    /// Replaced so often.
    attempts: u32,
    /// To be tried at that moment.
    next_ns: u64,
    said_ns: u64,
}

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verdict {
    /// Went blind, or are still blind and it is time to say so: and when each saw something last.
    pub to_say: Vec<(Listener, u64)>,
    /// To be replaced now.
    pub to_replace: Vec<Listener>,
    /// See again: and since when each had not.
    pub see_again: Vec<(Listener, u64)>,
}

/// What is known of all listeners.
#[derive(Debug)]
pub struct Sight {
    period_ns: u64,
    states: BTreeMap<Listener, State>,
}

impl Sight {
    /// Listeners are tried when they saw nothing for this long.
    pub fn new(period_ns: u64) -> Self {
        Sight { period_ns, states: BTreeMap::new() }
    }

    /// Whom to try now. `last_events` are all listeners that get events, and when each saw its last one.
    pub fn due(&mut self, last_events: &[(Listener, u64)], now_ns: u64) -> Vec<Listener> {
        self.states.retain(|listener, _| last_events.iter().any(|(there, _)| there == listener));
        let mut due = Vec::new();
        for &(listener, last_ns) in last_events {
            let state = self.states.entry(listener).or_insert(State { saw_ns: now_ns, blind: None });
            let is_due = match &state.blind {
                Some(blind) => now_ns >= blind.next_ns,
                None => {
                    state.saw_ns = state.saw_ns.max(last_ns);
                    now_ns.saturating_sub(state.saw_ns) >= self.period_ns
                }
            };
            if is_due {
                due.push(listener);
            }
        }
        due
    }

    /// Takes what came of canaries.
    pub fn take(&mut self, tried: &[Tried], now_ns: u64) -> Verdict {
        let mut verdict = Verdict::default();
        for Tried { listener, outcome } in tried {
            match outcome {
                Outcome::Seen => {
                    let Some(state) = self.states.get_mut(listener) else { continue };
                    if state.blind.take().is_some() {
                        verdict.see_again.push((*listener, state.saw_ns));
                    }
                    state.saw_ns = now_ns;
                }
                Outcome::Unseen => self.blind(*listener, now_ns, &mut verdict),
                // It is tried again with the next round.
                Outcome::NotRun(_) => {}
            }
        }
        verdict
    }

    /// A listener that certainly sees nothing.
    pub fn blind(&mut self, listener: Listener, now_ns: u64, verdict: &mut Verdict) {
        let Some(state) = self.states.get_mut(&listener) else { return };
        let is_new = state.blind.is_none();
        let blind = state.blind.get_or_insert(Blind { attempts: 0, next_ns: 0, said_ns: now_ns });
        if is_new || now_ns.saturating_sub(blind.said_ns) >= SAY_AGAIN_NS {
            blind.said_ns = now_ns;
            verdict.to_say.push((listener, state.saw_ns));
        }
        verdict.to_replace.push(listener);
        // The first is tried at once after it was replaced.
        let pause = match blind.attempts {
            0 => 0,
            attempts => FIRST_PAUSE_NS.saturating_mul(1 << (attempts - 1).min(20)).min(LONGEST_PAUSE_NS),
        };
        blind.attempts = blind.attempts.saturating_add(1);
        blind.next_ns = now_ns.saturating_add(pause);
    }

    /// Who is blind, and when each saw something last.
    pub fn blind_now(&self) -> Vec<(Listener, u64)> {
        let blind = self.states.iter().filter(|(_, state)| state.blind.is_some());
        blind.map(|(&listener, state)| (listener, state.saw_ns)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn tried(listener: Listener, outcome: Outcome) -> Vec<Tried> {
        vec![Tried { listener, outcome }]
    }

    #[test]
    fn who_sees_nothing_is_tried_and_who_does_is_not() {
        let mut sight = Sight::new(60 * S);
        let (zero, one) = (Some(0), Some(1));
        assert_eq!(sight.due(&[(zero, 0), (one, 0)], 100 * S), []);
        assert_eq!(sight.due(&[(zero, 0), (one, 150 * S)], 159 * S), []);
        assert_eq!(sight.due(&[(zero, 0), (one, 150 * S)], 160 * S), [zero]);
        assert_eq!(sight.take(&tried(zero, Outcome::Seen), 160 * S), Verdict::default());
        assert_eq!(sight.due(&[(zero, 160 * S), (one, 150 * S)], 209 * S), []);
        assert_eq!(sight.due(&[(zero, 160 * S), (one, 150 * S)], 210 * S), [one]);
        // One that was not run is tried again.
        assert_eq!(sight.take(&tried(one, Outcome::NotRun("no".into())), 211 * S), Verdict::default());
        assert_eq!(sight.due(&[(zero, 160 * S), (one, 150 * S)], 212 * S), [one]);
    }

    #[test]
    fn a_blind_one_is_said_once_replaced_again_and_again_and_sees_again() {
        let mut sight = Sight::new(60 * S);
        let key = None;
        sight.due(&[(key, 0)], 0);
        assert_eq!(sight.due(&[(key, 5 * S)], 65 * S), [key]);
        let verdict = sight.take(&tried(key, Outcome::Unseen), 66 * S);
        assert_eq!((&verdict.to_say, &verdict.to_replace), (&vec![(key, 5 * S)], &vec![key]));
        // Its successor is tried at once; then after ever longer pauses, the longest of a minute.
        let mut now = 66;
        for pause in [0, 2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(sight.due(&[(key, 0)], (now + pause) * S - 1), [], "{pause}");
            assert_eq!(sight.due(&[(key, 0)], (now + pause) * S), [key], "{pause}");
            now += pause;
            let verdict = sight.take(&tried(key, Outcome::Unseen), now * S);
            assert_eq!((verdict.to_say.len(), verdict.to_replace.len()), (0, 1));
        }
        assert_eq!(sight.blind_now(), [(key, 5 * S)]);
        // Every ten minutes it is said again.
        assert_eq!(sight.take(&tried(key, Outcome::Unseen), 700 * S).to_say, [(key, 5 * S)]);
        assert_eq!(sight.take(&tried(key, Outcome::Seen), 800 * S).see_again, [(key, 5 * S)]);
        assert_eq!(sight.blind_now(), []);
        assert_eq!(sight.due(&[(key, 800 * S)], 801 * S), []);
    }

    #[test]
    fn who_is_gone_is_forgotten() {
        let mut sight = Sight::new(60 * S);
        sight.due(&[(Some(3), 0)], 0);
        sight.take(&tried(Some(3), Outcome::Unseen), S);
        sight.due(&[(Some(4), 0)], 2 * S);
        assert_eq!(sight.blind_now(), []);
        assert_eq!(sight.take(&tried(Some(3), Outcome::Unseen), 3 * S), Verdict::default());
    }
}
