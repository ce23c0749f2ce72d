//! Recognises programs that were evaluated before, when /proc shows them as running.
//!
//! At the start and after losses every running program is looked at. What an event told of, or an earlier look, is not
//! to be told again.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};

use crate::process::exec::{Certainty, Exec};

/// Programs remembered, at about 24 bytes. Only those are that a rule could match at first sight.
const MOST_KNOWN: usize = 20_000;
/// Programs of a look that wait until it is complete; more are handled at once.
const MOST_WAITING: usize = 1000;

/// What was evaluated.
#[derive(Debug, Default)]
pub struct Seen {
    /// What ran at the start is only remembered.
    not_at_start: bool,
    listens_since_ticks: Option<u64>,
    /// What the look at /proc found, until it is complete: what an event told tells more.
    waiting: Vec<Exec>,
    /// Process and program, of everything that was evaluated, and the pid.
    known: HashMap<u64, u32>,
    /// Process, program and arguments of what the look at hand found first.
    by_look: HashSet<u64>,
    hasher: RandomState,
    /// Programs that had to be forgotten although they may run.
    forgotten: u64,
}

impl Seen {
    /// Nothing is known yet. `at_start`: what ran at the start is to be evaluated, and not only remembered.
    pub fn new(at_start: bool) -> Self {
        Seen { not_at_start: !at_start, ..Seen::default() }
    }

    /// From this moment on, in ticks since boot, every execution is told of by an event. Not by the wall clock, which may be
    /// set meanwhile.
    pub fn listens_since(&mut self, ticks: u64) {
        self.listens_since_ticks = Some(ticks);
    }

    /// Takes an exec: what is to be evaluated now.
    pub fn take(&mut self, exec: Exec) -> Option<Exec> {
        if exec.certainty == Certainty::AlreadyRunning && self.will_be_told(&exec) {
            return None;
        }
        if exec.certainty.found_running() && self.waiting.len() < MOST_WAITING {
            self.waiting.push(exec);
            return None;
        }
        // What was done about a program must be told, and a stopped one remembered, even if a look was faster.
        let told = self.is_told(&exec) || exec.response.is_some();
        told.then_some(exec)
    }

    /// The look at /proc is complete: what it found that nobody else told of.
    pub fn complete(&mut self) -> Vec<Exec> {
        let mut found = std::mem::take(&mut self.waiting);
        found.retain(|exec| self.is_told(exec));
        self.by_look = HashSet::new();
        found
    }

    /// Programs that had to be forgotten although they may run: the next look may tell of them once more.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// The process was made when events were already listened to; its start is rounded down.
    fn will_be_told(&self, exec: &Exec) -> bool {
        exec.details.start_ticks.zip(self.listens_since_ticks).is_some_and(|(start, listens)| start > listens)
    }

    fn is_told(&mut self, exec: &Exec) -> bool {
        self.first_time(exec) && !(self.not_at_start && exec.certainty == Certainty::AlreadyRunning)
    }

    /// False if the same program of the same process was told of before by the other way.
    fn first_time(&mut self, exec: &Exec) -> bool {
        let Some(start) = exec.details.start_ticks else { return true };
        // A program may change its arguments, and many do; the kernel's name tells one applet of busybox from another.
        let program = self.hasher.hash_one((exec.pid, start, exec.image.exe(), exec.details.comm()));
        let call = self.hasher.hash_one((exec.pid, start, exec.image.exe(), exec.image.raw_arguments()));
        let known = self.remember(program, exec.pid);
        if exec.certainty.found_running() {
            // What is not told of now must not stand for the event that may still come.
            let told = !self.not_at_start || exec.certainty != Certainty::AlreadyRunning;
            if !known && told {
                self.by_look.insert(call);
            }
            return !known;
        }
        // A process may execute the same program again and again, and each time counts: the mark of the look, which stands
        // for one time, is taken away.
        !self.by_look.remove(&call)
    }

    /// Remembers a program; true if it was known.
    fn remember(&mut self, program: u64, pid: u32) -> bool {
        if self.known.len() >= MOST_KNOWN && !self.known.contains_key(&program) {
            let before = self.known.len();
            self.known.retain(|_, pid| std::fs::exists(format!("/proc/{pid}")).unwrap_or(true));
            if self.known.len() > before / 2 {
                self.forgotten += self.known.len() as u64;
                self.known.clear();
            }
        }
        self.known.insert(program, pid).is_some()
    }
}

impl Certainty {
    /// The program was found running: there was no event of its execution.
    pub fn found_running(self) -> bool {
        matches!(self, Certainty::AlreadyRunning | Certainty::Missed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::exec::Image;
    use crate::response::{Outcome, Response, RuleName};
    use crate::rules::action::Action;
    use Certainty::{AlreadyRunning, Exact, Missed};

    fn exec(certainty: Certainty, argument: &str) -> Exec {
        let mut exec = Exec { pid: 7, certainty, ..Exec::default() };
        exec.details.start_ticks = Some(5);
        exec.image = Image::new(Some(b"/bin/nc"), Some(&["nc", argument]));
        exec
    }

    /// What is evaluated of these, in the end.
    fn evaluated(seen: &mut Seen, execs: &[Exec]) -> usize {
        execs.iter().filter_map(|exec| seen.take(exec.clone())).count() + seen.complete().len()
    }

    #[test]
    fn a_program_seen_by_event_and_look_is_evaluated_once() {
        let both = [exec(AlreadyRunning, "a"), exec(Exact, "a")];
        assert_eq!(evaluated(&mut Seen::default(), &both), 1);
        let mut seen = Seen::default();
        assert_eq!(evaluated(&mut seen, &[exec(Exact, "a"), exec(AlreadyRunning, "a")]), 1);
        // The same process executes it again, and again.
        assert_eq!(evaluated(&mut seen, &[exec(Exact, "a"), exec(Exact, "a")]), 2);
        // A look that was handled before the event came.
        let mut seen = Seen::default();
        assert!(seen.first_time(&exec(AlreadyRunning, "a")));
        assert!(!seen.first_time(&exec(Exact, "a")));
        assert!(seen.first_time(&exec(Exact, "a")));
    }

    #[test]
    fn what_a_listener_did_is_evaluated_even_if_a_look_was_faster() {
        let mut seen = Seen::default();
        assert!(seen.first_time(&exec(Missed, "a")));
        let held = Exec {
            response: Some(Response {
                action: Action::Hold,
                rule: RuleName::new("hold"),
                outcome: Outcome::Held,
                certainty: Exact,
            }),
            ..exec(Exact, "a")
        };
        assert_eq!(evaluated(&mut seen, &[held]), 1);
        // The mark of the look was used up by it all the same.
        assert_eq!(evaluated(&mut seen, &[exec(Exact, "a")]), 1);
    }

    #[test]
    fn what_is_not_told_of_at_the_start_does_not_stand_for_an_event() {
        let mut seen = Seen::new(false);
        assert_eq!(evaluated(&mut seen, &[exec(AlreadyRunning, "a")]), 0);
        let mut seen = Seen::new(false);
        assert!(seen.take(exec(AlreadyRunning, "a")).is_none());
        assert!(seen.complete().is_empty());
        assert_eq!(evaluated(&mut seen, &[exec(Exact, "a")]), 1);
        let mut seen = Seen::default();
        // The process of the test was made just after boot, before anybody listened.
        seen.listens_since(u64::MAX);
        assert_eq!(evaluated(&mut seen, &[exec(AlreadyRunning, "a")]), 1);
        let mut seen = Seen::default();
        seen.listens_since(0);
        assert_eq!(evaluated(&mut seen, &[exec(AlreadyRunning, "a")]), 0, "its event will come");
    }

    #[test]
    fn a_later_look_finds_only_what_was_missed() {
        let mut seen = Seen::default();
        assert_eq!(evaluated(&mut seen, &[exec(AlreadyRunning, "a")]), 1);
        // It has changed its arguments meanwhile.
        assert_eq!(evaluated(&mut seen, &[exec(Missed, "changed")]), 0);
        let mut other = exec(Missed, "a");
        other.details.start_ticks = Some(6);
        assert_eq!(evaluated(&mut seen, &[other.clone()]), 1);
        assert_eq!(evaluated(&mut seen, &[other.clone()]), 0);
        other.details.set_comm(b"applet");
        assert_eq!(evaluated(&mut seen, &[other]), 1);
        // An event tells of every execution, whatever was known.
        assert_eq!(evaluated(&mut seen, &[exec(Exact, "a"), exec(Exact, "a")]), 2);
    }

    #[test]
    fn what_ran_at_the_start_may_be_of_no_interest() {
        let mut seen = Seen::new(false);
        assert_eq!(evaluated(&mut seen, &[exec(AlreadyRunning, "a")]), 0);
        assert_eq!(evaluated(&mut seen, &[exec(Missed, "a")]), 0);
        let mut other = exec(Missed, "a");
        other.pid = 8;
        assert_eq!(evaluated(&mut seen, &[other]), 1);
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let mut seen = Seen::default();
        // Pids that no process has.
        for start in 0..2 * MOST_KNOWN as u64 {
            let mut exec = exec(Exact, "a");
            exec.pid = u32::MAX;
            exec.details.start_ticks = Some(start);
            assert!(seen.first_time(&exec));
            assert!(seen.known.len() <= MOST_KNOWN);
        }
        assert_eq!(seen.forgotten(), 0);
        for start in 0..2 * MOST_KNOWN as u64 {
            let mut exec = exec(Exact, "a");
            exec.pid = std::process::id();
            exec.details.start_ticks = Some(start);
            seen.first_time(&exec);
            assert!(seen.known.len() <= MOST_KNOWN);
        }
        assert!(seen.forgotten() > 0);
    }
}
