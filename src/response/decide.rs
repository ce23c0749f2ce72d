//! On a listener's thread: rules with the actions `deny` and `hold`, while the program is held.
//!
//! What it costs where no such rule could match by executable and arguments: a look-up or two, and only for programs
//! whose details are read anyway. Where one could: the ancestors, at most `chain::MOST` of them,
//! and the signal. It waits for nothing but /proc, and takes no lock that others may keep.

use std::path::Path;
use std::sync::Arc;

use nix::sys::signal::Signal;

use super::chain::{Chain, NearProcesses};
use super::disarm::Watched;
use super::guard::Candidate;
use super::policy::{self, Policy};
use super::signal::{Miss, Target, send_to_held};
use super::{Fate, Guard, Mode, Outcome, Response, RuleName};
use crate::alert::Clock;
use crate::calendar::Date;
use crate::clock;
use crate::process::details::Namespaces;
use crate::process::exec::{Certainty, Exec};
use crate::process::proc_dir::{ProcDir, ProcRoot};
use crate::process::relatives::Ancestors;
use crate::published::{Published, Reader};
use crate::rules::action::Action;
use crate::rules::held::Decision;
use crate::rules::ruleset::RuleSet;
use crate::rules::subject::{Subject, Surroundings};

/// How often a policy is tried to be taken whose lock somebody has.
const TRIES: usize = 64;
/// The kernel gives paths of this length at most.
const LONGEST_PATH: usize = 4096 + 16;

/// Whether there is room in the queue to the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// The worker will hear of the program, and remembers it if it is stopped.
    Left,
    /// Nobody will.
    None,
}

/// Decides for one listener.
#[derive(Debug)]
pub struct Decider {
    proc: Arc<ProcRoot>,
    policy: Reader<Policy>,
    switch: Watched,
    surroundings: Surroundings,
    chain: Chain,
    /// Filled anew for each decision, by this thread alone.
    ancestors: Ancestors,
    exe: Box<[u8]>,
    /// A signal sent so soon after the exec, in nanoseconds, certainly found the program on its CPU.
    hold_limit_ns: u64,
}

impl Decider {
    /// One that decides by the shared policy, and not while there is the file in the `runtime` folder that disarms.
    /// `hold_limit_ns` says for how long a held program certainly stays on its CPU.
    pub fn new(
        proc: Arc<ProcRoot>,
        shared: Arc<Published<Policy>>,
        runtime: &Path,
        hold_limit_ns: u64,
    ) -> Self {
        let policy = Reader::new(shared);
        let surroundings = Surroundings {
            accounts: policy.get().accounts(),
            namespaces: Namespaces::of_the_host(&proc),
            processes: Box::new(NearProcesses::new(Arc::clone(&proc))),
            files: Arc::default(),
        };
        Decider {
            chain: Chain::new(Arc::clone(&proc)),
            proc,
            policy,
            switch: Watched::new(runtime),
            surroundings,
            ancestors: Ancestors::default(),
            exe: vec![0xff; LONGEST_PATH].into_boxed_slice(),
            hold_limit_ns,
        }
    }

    /// Takes a newer policy, if there is one and there are rules for it; true if it did. A reload may have put newer rules
    /// in force before it.
    pub fn refresh(&mut self, rules: &RuleSet) -> bool {
        if !rules.acts_on_held() {
            return false;
        }
        // Whoever has the lock has it for some instructions, unless this thread took that one's CPU.
        let taken = (0..TRIES).any(|_| !self.policy.is_current() && self.policy.refresh());
        if taken {
            self.surroundings.accounts = self.policy.get().accounts();
        }
        taken
    }

    /// Something may be decided: responses are not switched off, and there are rules for it. Not by a policy older than
    /// the rules, which may protect less: then the worker decides.
    pub fn active(&self, rules: &RuleSet) -> bool {
        rules.acts_on_held() && self.policy.is_current() && self.policy.get().settings.mode != Mode::Off
    }

    /// Stops a held program as soon as executable and arguments show that a rule acts on it, before its details are read:
    /// should the scheduler move it to another CPU meanwhile, it does not get beyond its first instruction there. The
    /// time of it if it was stopped (CLOCK_MONOTONIC, nanoseconds); then [`decide`](Self::decide) must be called, which lets it go on unless the rule acts.
    ///
    /// A stop that is taken back before the program got its CPU is seen by nobody.
    pub fn stop_early(&mut self, rules: &RuleSet, exec: &Exec) -> Option<u64> {
        let policy = self.policy.get();
        if policy.settings.mode != Mode::Enforce {
            return None;
        }
        let hints = exec.details.hints(None);
        if !rules.could_act_on_held(&exec.image, hints) {
            return None;
        }
        let subject = Subject::on_hot_path(&exec.image, rules.catalogue(), hints);
        let decision = rules.decide_on_held(&subject, today(policy, exec));
        let stopped = matches!(decision, Decision::Yes(..))
            && !self.switch.thrown()
            && send_to_held(exec.pid, Signal::SIGSTOP).is_ok();
        stopped.then(clock::monotonic_ns)
    }

    /// Decides about a program, and lets it go on if it was stopped early and nothing is done about it. `Room` says
    /// whether the worker will hear of it.
    pub fn decide(
        &mut self,
        rules: &RuleSet,
        dir: &ProcDir<'_>,
        exec: &mut Exec,
        (held, room): (bool, Room),
        stopped_early: Option<u64>,
    ) -> Option<Response> {
        let mut response = self.respond(rules, dir, exec, held, room);
        if let Some(response) = &mut response {
            let signalled_ns = stopped_early.unwrap_or_else(clock::monotonic_ns);
            response.certainty = match signalled_ns.saturating_sub(exec.timestamp_ns) <= self.hold_limit_ns {
                _ if !held => Certainty::BestEffort,
                true => Certainty::Exact,
                false => Certainty::Likely,
            };
        }
        if stopped_early.is_some() && !response.is_some_and(|response| response.outcome.acted()) {
            // It has gone if that fails.
            let _ = send_to_held(exec.pid, Signal::SIGCONT);
        }
        response
    }

    /// Decides about a program whose details were read, through its folder `dir`, and sends the signal. `held`: it cannot
    /// run until this thread waits.
    fn respond(
        &mut self,
        rules: &RuleSet,
        dir: &ProcDir<'_>,
        exec: &mut Exec,
        held: bool,
        room: Room,
    ) -> Option<Response> {
        let hints = exec.details.hints(exec.details.comm());
        if !rules.could_act_on_held(&exec.image, hints) {
            return None;
        }
        let clock = self.policy.get().clock();
        let today = today(self.policy.get(), exec);
        let decide = |exec: &Exec| {
            let subject = Subject::whole(exec, rules.catalogue(), &self.surroundings, &clock).on_listener();
            rules.decide_on_held(&subject, today)
        };
        // Most is decided without looking at other processes.
        if let Decision::No = decide(exec) {
            return None;
        }
        let pid = exec.pid;
        let ppid = exec.details.ppid;
        let whole = rules.held_wants_relatives();
        let hidden = self.chain.read(pid, &mut exec.details, whole, &mut self.ancestors);
        std::mem::swap(&mut exec.ancestors, &mut self.ancestors);
        let decision = decide(exec);
        std::mem::swap(&mut exec.ancestors, &mut self.ancestors);
        hidden.restore(&mut exec.details);
        let Decision::Yes(number, rule) = decision else { return None };

        let policy = self.policy.get();
        let candidate = Candidate {
            pid,
            ppid,
            start_ticks: exec.details.start_ticks,
            exe: exec.image.exe(),
            on_host: policy::on_host(exec, &self.surroundings.namespaces),
            ancestors: &self.ancestors.processes,
        };
        let kept = policy
            .rails
            .keeps(&candidate)
            .or_else(|| self.switch.thrown().then_some(Guard::Disarmed))
            .or_else(|| {
                let rate = rules.rate(number)?;
                let left = rate.take(policy.settings.per_minute, clock::monotonic_ns());
                (!left).then_some(Guard::Rate)
            });
        let outcome = match kept {
            Some(guard) => Outcome::Refused(guard),
            None if policy.settings.mode == Mode::DryRun => Outcome::DryRun,
            None => {
                let signal = signal_for(rule.action, room, policy.settings.after_hold);
                send(&self.proc, dir, exec, (signal, held), &mut self.exe)
            }
        };
        let rule_name = RuleName::new(&rule.id);
        // The caller knows how early it was stopped.
        Some(Response { action: rule.action, rule: rule_name, outcome, certainty: Certainty::BestEffort })
    }
}

/// The day of an exec.
fn today(policy: &Policy, exec: &Exec) -> Date {
    Date::of_unix_time(policy.clock().wall_from_monotonic(exec.timestamp_ns) / 1_000_000_000)
}

/// The signal of an action. What nobody would remember is not stopped for ever: it meets at once what becomes of held
/// programs that nobody decides about. SIGCONT, because it may have been stopped early.
fn signal_for(action: Action, room: Room, after_hold: Fate) -> Signal {
    match (action, room, after_hold) {
        (Action::Hold, Room::Left, _) => Signal::SIGSTOP,
        (Action::Hold, Room::None, Fate::Release) => Signal::SIGCONT,
        _ => Signal::SIGKILL,
    }
}

/// Sends a signal.
fn send(
    proc: &ProcRoot,
    dir: &ProcDir<'_>,
    exec: &Exec,
    (signal, held): (Signal, bool),
    buffer: &mut [u8],
) -> Outcome {
    let sent = (|| {
        let target = Target::open(dir, exec.pid, exec.details.start_ticks.ok_or(Miss::Gone)?)?;
        // Executable and arguments were read by number and the rest through the folder: they must be one process's.
        if dir.link(c"exe", buffer) != exec.image.link() {
            return Err(Miss::Gone);
        }
        target.send(proc, signal)
    })();
    let after_us = clock::monotonic_ns().saturating_sub(exec.timestamp_ns) / 1000;
    match (sent, held, signal) {
        (Err(Miss::Gone), ..) => Outcome::Gone,
        (Err(Miss::Failed(number)), ..) => Outcome::Failed(number),
        (Ok(()), true, Signal::SIGKILL) => Outcome::Prevented,
        (Ok(()), true, _) => Outcome::Held,
        (Ok(()), false, Signal::SIGKILL) => Outcome::Killed { after_us },
        (Ok(()), false, _) => Outcome::Stopped { after_us },
    }
}
