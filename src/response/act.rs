//! On the worker: what listeners could not decide, `kill-tree` and `freeze`; and whatever is stopped.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::sys::signal::Signal;

use super::disarm::{Armed, Switch};
use super::frozen::Hierarchies;
use super::guard::Candidate;
use super::held::{Entry, Held};
use super::orders::{OrderReceiver, Sent, State};
use super::policy::{self, Policy, PolicyKeeper};
use super::running::Asking;
use super::signal::{Miss, Target};
use super::{Guard, Mode, Outcome, Response, RuleName, Settings, terminal, tree};
use crate::alert::Alert;
use crate::alert::escape::Escaped;
use crate::clock;
use crate::lineage::Lineage;
use crate::process::details::Namespaces;
use crate::process::exec::{Certainty, Exec, Image};
use crate::process::proc_dir::ProcRoot;
use crate::published::{Published, Reader};
use crate::rules::action::Action;
use crate::rules::model::Severity;
use crate::rules::ruleset::RuleSet;

/// Responds, for the worker.
#[derive(Debug)]
pub struct Responder {
    proc: Arc<ProcRoot>,
    keeper: PolicyKeeper,
    policy: Reader<Policy>,
    switch: Switch,
    armed: Armed,
    host: Namespaces,
    held: Held,
    orders: OrderReceiver,
    /// Rules whose turns of the minute were said to be over, and in which minute.
    exhausted: Vec<(RuleName, u64)>,
    said: Vec<Said>,
}

/// Something to tell in the stream of alerts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// How serious it is.
    pub severity: Severity,
    /// A sentence.
    pub message: String,
}

/// The kernel gives paths of this length at most.
const LONGEST_PATH: usize = 4096 + 16;
/// Rules of which it is remembered that their turns were over.
const MOST_EXHAUSTED: usize = 256;

impl Responder {
    /// Opens what is held in the runtime folder, which is made if it is not there.
    pub fn start(
        settings: Settings,
        runtime: &Path,
        proc: Arc<ProcRoot>,
        orders: OrderReceiver,
    ) -> io::Result<Self> {
        let keeper = PolicyKeeper::new(settings, &proc)?;
        let mut said = Vec::new();
        let (held, found) = Held::open(runtime, &proc);
        if found > 0 {
            let message =
                format!("{found} programs or control groups are still held that execwatch stopped before");
            said.push(Said { severity: Severity::Medium, message });
        }
        Ok(Responder {
            host: Namespaces::of_the_host(&proc),
            proc,
            policy: Reader::new(keeper.shared()),
            keeper,
            switch: Switch::new(runtime),
            armed: Armed::Yes,
            held,
            orders,
            exhausted: Vec::new(),
            said,
        })
    }

    /// What listeners share.
    pub fn shared(&self) -> Arc<Published<Policy>> {
        self.keeper.shared()
    }

    /// What is configured.
    pub fn settings(&self) -> &Settings {
        self.keeper.settings()
    }

    /// Changes what is configured, for listeners too, from the return on.
    pub fn configure(&mut self, settings: Settings) -> io::Result<()> {
        self.keeper.configure(settings);
        self.keeper.tick()
    }

    /// Carries out what administrators ordered, and writes down what is held.
    pub fn obey(&mut self) {
        while let Ok(Sent { id, order, answer }) = self.orders.sent.try_recv() {
            let result = self.held.order(&id, order, &self.proc);
            if let Ok(message) = &result {
                self.say(Severity::Medium, format!("{message} by an administrator"));
            }
            // Who asked may have given up.
            let _ = answer.try_send(result);
        }
        self.held.save();
    }

    /// Completes an alert: does what no listener did, and remembers what is stopped. `wanted` is what rules ask for, the
    /// strongest first: who may not do it leaves it to the next. `lineage` tells where a process comes from, as events
    /// told until now.
    pub fn complete(
        &mut self,
        alert: &mut Alert,
        wanted: &[(Action, RuleName)],
        exec: &Exec,
        rules: &RuleSet,
        mut lineage: impl FnMut(u32) -> Option<Lineage>,
    ) {
        let mut group = None;
        let by_listener = alert.exec.response;
        by_listener.iter().for_each(|response| self.note_refusal(response));
        // Another rule's refusal on the listener keeps nobody else's action back.
        if self.keeper.settings().mode != Mode::Off && by_listener.is_none_or(Response::is_open) {
            let mut refused = by_listener;
            for &(action, rule) in wanted {
                if by_listener.is_some_and(|tried| tried.rule == rule) {
                    continue;
                }
                let outcome = self.respond(action, (exec, rule, rules), &mut lineage, &mut group);
                let response = Response { action, rule, outcome, certainty: Certainty::BestEffort };
                self.note_refusal(&response);
                if !response.is_open() {
                    refused = Some(response);
                    break;
                }
                // That of the strongest is told.
                if refused.is_none_or(|first| first.action.precedence() < action.precedence()) {
                    refused = Some(response);
                }
            }
            alert.exec.response = refused;
        }
        let Some(response) = alert.exec.response else { return };
        if response.outcome.stopped() || group.is_some() {
            let now_s = clock::realtime_ns() / 1_000_000_000;
            let settings = self.keeper.settings();
            let entry = Entry::of(alert, response.rule.as_str(), group, settings, now_s);
            if let Some(message) = self.held.add(entry, settings.after_hold, &self.proc) {
                self.say(Severity::Medium, message);
            }
        }
        if response.outcome.acted() && matches!(response.action, Action::Deny | Action::Hold) {
            terminal::tell(alert, &self.keeper.settings().terminal_message);
        }
    }

    /// Lets go on what a listener stopped for a rule that is no longer there, of which no alert can tell: nobody could
    /// decide about it. A sentence about what was done.
    pub fn abandon(&self, exec: &Exec, response: Response) -> String {
        let pid = exec.pid;
        let done = response.outcome.as_str();
        let what = format!("pid {pid} was {done} by rule `{}`, which is gone", response.rule.as_str());
        if !response.outcome.stopped() {
            return what;
        }
        let released = exec
            .details
            .start_ticks
            .ok_or(Miss::Gone)
            .and_then(|start| Target::find(&self.proc, pid, start)?.send(&self.proc, Signal::SIGCONT));
        match released {
            Ok(()) => format!("{what}; it was released"),
            Err(Miss::Gone) => format!("{what}; it had ended before it could be released"),
            Err(Miss::Failed(number)) => {
                let error = io::Error::from_raw_os_error(number);
                format!(
                    "{what}; it stays stopped, because it could not be released: {error}; use `kill -CONT {pid}`"
                )
            }
        }
    }

    /// Does what a rule asks for, if it may.
    fn respond(
        &mut self,
        action: Action,
        (exec, rule, rules): (&Exec, RuleName, &RuleSet),
        mut lineage: impl FnMut(u32) -> Option<Lineage>,
        group: &mut Option<PathBuf>,
    ) -> Outcome {
        let dry_run = self.keeper.settings().mode == Mode::DryRun;
        let done = match self.check(exec, rule, rules, &mut lineage) {
            // Of a program that has ended too it is said that it would have been done.
            Ok(()) | Err(Refusal::Miss(_)) if dry_run => return Outcome::DryRun,
            Ok(()) => self.act(action, (exec, rule), lineage, group),
            Err(refusal) => Err(refusal),
        };
        match done {
            Ok(outcome) => outcome,
            Err(Refusal::Miss(Miss::Gone)) => Outcome::Gone,
            Err(Refusal::Miss(Miss::Failed(number))) => Outcome::Failed(number),
            Err(Refusal::Guard(guard)) => Outcome::Refused(guard),
        }
    }

    /// Says what there is to say of a response that was refused.
    fn note_refusal(&mut self, response: &Response) {
        match response.outcome {
            Outcome::Refused(Guard::Rate) => self.say_exhausted(response.rule),
            // It may be over before the next tick looks.
            Outcome::Refused(Guard::Disarmed) => self.follow_switch(Some(Armed::No { until_s: None })),
            _ => {}
        }
    }

    /// An error is why nothing is done about a program.
    fn check(
        &mut self,
        exec: &Exec,
        rule: RuleName,
        rules: &RuleSet,
        mut lineage: impl FnMut(u32) -> Option<Lineage>,
    ) -> Result<(), Refusal> {
        if exec.certainty.found_running() {
            return Err(Guard::AlreadyRunning.into());
        }
        self.policy.refresh();
        let candidate = Candidate {
            pid: exec.pid,
            ppid: exec.details.adopter.or(exec.details.ppid),
            start_ticks: exec.details.start_ticks,
            exe: exec.image.exe(),
            on_host: policy::on_host(exec, &self.host),
            ancestors: &exec.ancestors.processes,
        };
        let policy = self.policy.get();
        let kept = policy.rails.keeps(&candidate).or_else(|| self.switch.thrown().then_some(Guard::Disarmed));
        if let Some(guard) = kept {
            return Err(guard.into());
        }
        // The decision is some time old. A process that executes something else is the same one still: otherwise it
        // would only have to do that to get away. But what it is now may be kept.
        let mut now = None;
        if !self.executes_still(exec)? {
            let start_ticks = exec.details.start_ticks.ok_or(Miss::Gone)?;
            let told = lineage(exec.pid);
            let mut asking = Asking::new(&self.proc, &policy.rails, &self.host);
            let found = asking.about(exec.pid, Some(start_ticks), told.as_ref())?;
            if let Some(guard) = found.kept {
                return Err(guard.into());
            }
            now = found.image;
        }
        let rate = rules.find(rule.as_str()).and_then(|(number, _)| rules.rate(number));
        if rate.is_some_and(|rate| !rate.take(policy.settings.per_minute, clock::monotonic_ns())) {
            return Err(Guard::Rate.into());
        }
        if let Some(exe) = now.as_ref().and_then(Image::link) {
            let shown = |path: &[u8]| Escaped::new(path).as_str().to_owned();
            let (pid, then, now) = (exec.pid, shown(exec.image.exe().unwrap_or_default()), shown(exe));
            let message = format!(
                "pid {pid}, about which rule `{}` decided as {then}, executes {now} now",
                rule.as_str()
            );
            self.say(Severity::Medium, message);
        }
        Ok(())
    }

    /// Its executable is that of the exec. Of a process that has the number now: whose it is, is asked when it is acted on.
    fn executes_still(&self, exec: &Exec) -> Result<bool, Miss> {
        let mut buffer = [0; LONGEST_PATH];
        let now = self.proc.process(exec.pid)?.target(c"exe", &mut buffer).ok();
        Ok(now.is_some() && now == exec.image.link())
    }

    fn act(
        &mut self,
        action: Action,
        (exec, rule): (&Exec, RuleName),
        lineage: impl FnMut(u32) -> Option<Lineage>,
        group: &mut Option<PathBuf>,
    ) -> Result<Outcome, Refusal> {
        let start_ticks = exec.details.start_ticks.ok_or(Miss::Gone)?;
        let after_us = || clock::monotonic_ns().saturating_sub(exec.timestamp_ns) / 1000;
        let signal = |signal| Target::find(&self.proc, exec.pid, start_ticks)?.send(&self.proc, signal);
        let mut asking = Asking::new(&self.proc, &self.policy.get().rails, &self.host);
        Ok(match action {
            Action::Alert => return Err(Miss::Gone.into()),
            Action::Deny => {
                signal(Signal::SIGKILL)?;
                Outcome::Killed { after_us: after_us() }
            }
            Action::Hold => {
                signal(Signal::SIGSTOP)?;
                Outcome::Stopped { after_us: after_us() }
            }
            Action::KillTree => {
                let felled = tree::fell(&mut asking, (exec.pid, start_ticks), lineage)?;
                if let Some(spared) = felled.spared_for_people() {
                    let message = format!("rule `{}` killed a tree but for {spared}", rule.as_str());
                    self.say(Severity::Medium, message);
                }
                Outcome::TreeKilled {
                    processes: felled.killed,
                    spared: felled.spared.len() as u32,
                    spared_by: felled.spared_by(),
                    after_us: after_us(),
                }
            }
            Action::Freeze => {
                let cgroup = exec.details.cgroup().ok_or(Guard::NoUnit)?;
                let found = Hierarchies::mounted().group(cgroup).ok_or(Guard::NoUnit)?;
                // A group whose members cannot all be looked at might hold anybody.
                let members = found.members().map_err(|_| Guard::Unreadable)?;
                for pid in members {
                    match asking.about(pid, None, None) {
                        Ok(now) => now.kept.map_or(Ok(()), |guard| Err(Refusal::Guard(guard)))?,
                        Err(Miss::Gone) => {}
                        Err(Miss::Failed(_)) => return Err(Guard::Unreadable.into()),
                    }
                }
                found.freeze()?;
                *group = Some(found.folder);
                Outcome::Frozen { after_us: after_us() }
            }
        })
    }

    /// Follows the switch, the time limits and what is configured; what is to be told.
    pub fn tick(&mut self) -> Vec<Said> {
        if let Err(error) = self.keeper.tick() {
            log::warn!("responses keep their settings: {error}");
        }
        self.follow_switch(None);
        let now_s = clock::realtime_ns() / 1_000_000_000;
        let settings = self.keeper.settings();
        // Neither disarmed nor after a reload that ends responses is anybody killed.
        let may_kill = settings.mode == Mode::Enforce && self.armed == Armed::Yes;
        for message in self.held.tick(settings.after_hold, may_kill, now_s, &self.proc) {
            self.say(Severity::Medium, message);
        }
        self.orders.tell(State {
            mode: self.keeper.settings().mode.as_str(),
            armed: self.armed == Armed::Yes,
            disarmed_until_s: if let Armed::No { until_s } = self.armed { until_s } else { None },
            held: self.held.entries().len(),
        });
        std::mem::take(&mut self.said)
    }

    /// Ends: releases what is held, unless it is to stay so.
    pub fn close(&mut self) -> Vec<Said> {
        let keep = self.keeper.settings().keep_held;
        for message in self.held.close(keep, &self.proc) {
            self.say(Severity::Medium, message);
        }
        std::mem::take(&mut self.said)
    }

    /// Looks at the switch and says what changed. `seen` is how a listener found it, who may have been faster.
    fn follow_switch(&mut self, seen: Option<Armed>) {
        let now = self.switch.tick(clock::realtime_ns() / 1_000_000_000);
        let armed = match seen {
            Some(seen) if now == Armed::Yes => seen,
            _ => now,
        };
        if armed != self.armed && self.keeper.settings().mode != Mode::Off {
            match armed {
                Armed::Yes => self.say(Severity::Medium, "responses are armed again".to_owned()),
                Armed::No { until_s } => {
                    let until = until_s.map_or(String::new(), |until| {
                        format!(", until {}", crate::calendar::rfc3339(until.saturating_mul(1_000_000_000)))
                    });
                    let path = self.switch.path().display();
                    self.say(Severity::High, format!("responses are disarmed by {path}{until}"));
                }
            }
        }
        self.armed = armed;
    }

    fn say(&mut self, severity: Severity, message: String) {
        self.said.push(Said { severity, message });
    }

    /// Says once a minute that a rule falls back to alerts.
    fn say_exhausted(&mut self, rule: RuleName) {
        let minute = clock::monotonic_ns() / 60_000_000_000;
        if self.exhausted.contains(&(rule, minute)) {
            return;
        }
        self.exhausted.retain(|&(_, said)| said == minute);
        if self.exhausted.len() < MOST_EXHAUSTED {
            self.exhausted.push((rule, minute));
        }
        let most = self.keeper.settings().per_minute;
        let message = format!(
            "rule `{}` has acted {most} times in this minute and only alerts until the next ([response] per-minute)",
            rule.as_str()
        );
        self.say(Severity::High, message);
    }
}

/// Why nothing was done.
enum Refusal {
    Miss(Miss),
    Guard(Guard),
}

impl From<Miss> for Refusal {
    fn from(miss: Miss) -> Self {
        Refusal::Miss(miss)
    }
}

impl From<Guard> for Refusal {
    fn from(guard: Guard) -> Self {
        Refusal::Guard(guard)
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Refusal::Miss(error.into())
    }
}
