//! What is stopped: programs in hold, and frozen control groups, until somebody decides or their time is over.
//!
//! A file in the runtime folder remembers them, so that a daemon that crashed goes on with what it stopped.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use super::frozen::Group;
use super::signal::{self, Miss, Target};
use super::{Fate, Settings};
use crate::alert::Alert;
use crate::alert::escape::Escaped;
use crate::process::proc_dir::ProcRoot;
use crate::rules::subject::join;

/// The file in the runtime folder. In a folder of its own, because listeners look at the other one when it is changed.
const NAME: &str = "held/held.json";
/// More are not remembered; what comes then meets its fate at once.
const MOST: usize = 1024;
/// Bytes of a command line that are kept.
const COMMAND: usize = 400;

/// Something that is stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The id of its alert.
    pub id: String,
    /// Process id.
    pub pid: u32,
    /// Start time in ticks since boot.
    pub start_ticks: u64,
    /// The folder of the frozen control group; without it the process is stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<PathBuf>,
    /// Since when, in seconds since 1970.
    pub since_s: u64,
    /// When its time is over; never for a control group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until_s: Option<u64>,
    /// Since when that time stands still: nobody is killed now because it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stands_since_s: Option<u64>,
    /// The rule that asked for it.
    pub rule: String,
    /// The rule's title.
    pub title: String,
    /// The alert's severity.
    pub severity: String,
    /// The user, by name or number.
    pub user: String,
    /// The executable.
    pub exe: String,
    /// The command line.
    pub command: String,
    /// The terminal.
    pub tty: String,
    /// The ancestors, the nearest first, by pid and executable.
    pub ancestors: Vec<String>,
    /// What its time asks for failed, which was said.
    #[serde(skip)]
    failed: bool,
    /// It could not be looked at, which was said.
    #[serde(skip)]
    unseen: bool,
}

/// How something held stands.
#[derive(Debug)]
enum Standing {
    /// It is stopped, or will be as soon as it can.
    Stopped,
    /// It goes on.
    Runs,
    /// There is no such process or control group any more.
    Gone,
    /// It cannot be looked at now.
    Unknown(io::Error),
}

/// Why an order was not carried out.
#[derive(Debug)]
enum Failure {
    /// It had ended before.
    Gone,
    /// It is as it was.
    Refused(io::Error),
}

impl From<Miss> for Failure {
    fn from(miss: Miss) -> Self {
        match miss {
            Miss::Gone => Failure::Gone,
            Miss::Failed(number) => Failure::Refused(io::Error::from_raw_os_error(number)),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Miss::from(error).into()
    }
}

/// What is to be done with something held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// It may run.
    Release,
    /// It is killed.
    Kill,
}

impl Order {
    /// What becomes of something held that nobody decides about.
    fn of(fate: Fate) -> Order {
        match fate {
            Fate::Kill => Order::Kill,
            Fate::Release => Order::Release,
        }
    }

    /// What it is when it is carried out.
    fn done(self) -> &'static str {
        match self {
            Order::Kill => "killed",
            Order::Release => "released",
        }
    }
}

/// All that is held.
#[derive(Debug)]
pub struct Held {
    path: PathBuf,
    entries: Vec<Entry>,
    /// The file is out of date.
    changed: bool,
    /// The file could not be written, which was said.
    unwritten: bool,
}

impl Entry {
    /// Of an alert whose program was stopped, or whose control group was frozen.
    pub(super) fn of(
        alert: &Alert,
        rule: &str,
        group: Option<PathBuf>,
        settings: &Settings,
        now_s: u64,
    ) -> Entry {
        let shown = |bytes: &[u8]| {
            let mut escaped = Escaped::new(bytes);
            escaped.shorten(COMMAND);
            escaped.as_str().to_owned()
        };
        let (exec, details) = (&alert.exec, &alert.exec.details);
        let uid = details.uid(0).map(|uid| uid.to_string());
        let ancestors = alert
            .origin
            .ancestors
            .iter()
            .map(|ancestor| format!("{} {}", ancestor.pid, shown(ancestor.image.exe().unwrap_or(b"?"))));
        Entry {
            id: alert.id.clone(),
            pid: exec.pid,
            start_ticks: details.start_ticks.unwrap_or_default(),
            until_s: group.is_none().then(|| now_s + settings.hold_for.as_secs()),
            group,
            since_s: now_s,
            stands_since_s: None,
            rule: rule.to_owned(),
            title: alert.rule.title.clone(),
            severity: alert.rule.severity.as_str().to_owned(),
            user: alert.users[0].clone().or(uid).unwrap_or_else(|| "unknown".to_owned()),
            exe: shown(exec.image.exe().unwrap_or(b"?")),
            command: shown(&exec.image.raw_arguments().map(join).unwrap_or_default()),
            tty: details.tty_name().flatten().unwrap_or_else(|| "none".to_owned()),
            ancestors: ancestors.collect(),
            failed: false,
            unseen: false,
        }
    }

    /// A few words for people.
    fn what(&self) -> String {
        match &self.group {
            Some(group) => format!("control group {} (held as {})", group.display(), self.id),
            None => format!("pid {}, {} (held as {})", self.pid, self.exe, self.id),
        }
    }

    /// How it stands.
    fn standing(&self, proc: &ProcRoot) -> Standing {
        match self.is_stopped(proc) {
            Ok(true) => Standing::Stopped,
            Ok(false) => Standing::Runs,
            Err(Failure::Gone) => Standing::Gone,
            Err(Failure::Refused(error)) => Standing::Unknown(error),
        }
    }

    fn is_stopped(&self, proc: &ProcRoot) -> Result<bool, Failure> {
        if let Some(folder) = &self.group {
            return Ok(Group::of_folder(folder).ok_or(Failure::Gone)?.frozen()?);
        }
        let dir = proc.process(self.pid)?;
        // `t`: a debugger has it.
        let stands = || Ok::<_, Failure>(matches!(signal::alive(&dir, self.start_ticks)?, b'T' | b't'));
        // At last once more: what does not wait any more may have stopped it.
        Ok(stands()? || signal::will_stop(&dir)? || stands()?)
    }

    /// Carries an order out. What cannot be carried out whole leaves a control group frozen.
    fn obey(&self, order: Order, proc: &ProcRoot) -> Result<(), Failure> {
        match &self.group {
            None => {
                let target = Target::find(proc, self.pid, self.start_ticks)?;
                let signal = if order == Order::Kill { Signal::SIGKILL } else { Signal::SIGCONT };
                Ok(target.send(proc, signal)?)
            }
            Some(folder) => {
                let group = Group::of_folder(folder).ok_or(Failure::Gone)?;
                if order == Order::Kill {
                    kill_members(group.members(), proc)?;
                }
                Ok(group.thaw()?)
            }
        }
    }
}

/// Kills the members of a frozen control group. A frozen process of version 1 dies when it is thawed.
fn kill_members(members: io::Result<Vec<u32>>, proc: &ProcRoot) -> Result<(), Failure> {
    for pid in members.map_err(Failure::Refused)? {
        let kill = || {
            let (_, start) = signal::state(&proc.process(pid)?)?;
            Target::find(proc, pid, start)?.send(proc, Signal::SIGKILL)
        };
        match kill() {
            Ok(()) | Err(Miss::Gone) => {}
            Err(miss) => return Err(miss.into()),
        }
    }
    Ok(())
}

impl Held {
    /// What a daemon before this one stopped and still is; the others are forgotten. The second value says how many of
    /// them there are.
    pub(super) fn open(runtime: &Path, proc: &ProcRoot) -> (Held, usize) {
        let path = runtime.join(NAME);
        let read = || -> io::Result<Vec<Entry>> { Ok(serde_json::from_slice(&fs::read(&path)?)?) };
        let mut entries = match read() {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                log::warn!("what was held cannot be read from {}: {error}", path.display());
                Vec::new()
            }
        };
        let all = entries.len();
        entries.retain(|entry| matches!(entry.standing(proc), Standing::Stopped | Standing::Unknown(_)));
        let found = entries.len();
        (Held { path, entries, changed: found != all, unwritten: false }, found)
    }

    /// What is held, as the file of a daemon says that runs or crashed.
    pub fn list(runtime: &Path) -> io::Result<Vec<Entry>> {
        match fs::read(runtime.join(NAME)) {
            Ok(text) => Ok(serde_json::from_slice(&text)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// What is held.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Remembers something; a sentence if there is no room, and it met its fate at once.
    pub(super) fn add(&mut self, entry: Entry, fate: Fate, proc: &ProcRoot) -> Option<String> {
        if self.entries.len() < MOST {
            self.entries.push(entry);
            self.changed = true;
            return None;
        }
        let (what, done) = (entry.what(), Order::of(fate).done());
        Some(match entry.obey(Order::of(fate), proc) {
            Ok(()) => format!("{what} was {done} at once: {MOST} are held already"),
            Err(Failure::Gone) => format!("{what} had ended before it was held"),
            Err(Failure::Refused(error)) => {
                // Nobody else would know of it. Not without end, although the kernel hardly refuses so often.
                if self.entries.len() < 2 * MOST {
                    self.entries.push(entry);
                    self.changed = true;
                }
                format!("{what} could not be {done} at once, although {MOST} are held already: {error}")
            }
        })
    }

    /// Carries out an order of an administrator's; a sentence that says what was done, or why not.
    pub fn order(&mut self, id: &str, order: Order, proc: &ProcRoot) -> Result<String, String> {
        let found: Vec<usize> = (0..self.entries.len())
            .filter(|&at| self.entries.get(at).is_some_and(|entry| entry.id.starts_with(id)))
            .collect();
        let at = match found.as_slice() {
            [only] if !id.is_empty() => *only,
            [] => return Err(format!("nothing is held as `{id}`: `execwatch held` lists what is")),
            _ => return Err(format!("`{id}` is the beginning of several ids: give more of it")),
        };
        let entry = self.entries.remove(at);
        self.changed = true;
        let done = order.done();
        match entry.obey(order, proc) {
            Ok(()) => Ok(format!("{} was {done}", entry.what())),
            Err(Failure::Gone) => Err(format!("{} had ended before", entry.what())),
            Err(Failure::Refused(error)) => {
                let message = format!("{} could not be {done}: {error}", entry.what());
                self.entries.push(entry);
                Err(message)
            }
        }
    }

    /// Ends what is over, forgets what has gone or was continued by somebody else, and writes the file; sentences about
    /// it. Unless it `may_kill`, the time of those it would kill stands still.
    pub(super) fn tick(&mut self, fate: Fate, may_kill: bool, now_s: u64, proc: &ProcRoot) -> Vec<String> {
        let mut said = Vec::new();
        let before = self.entries.len();
        let order = Order::of(fate);
        let stands = order == Order::Kill && !may_kill;
        for entry in &mut self.entries {
            let Some(until) = &mut entry.until_s else { continue };
            match entry.stands_since_s {
                None if stands => entry.stands_since_s = Some(now_s),
                Some(since) if !stands => {
                    *until = until.saturating_add(now_s.saturating_sub(since));
                    entry.stands_since_s = None;
                }
                _ => continue,
            }
            self.changed = true;
        }
        self.entries.retain_mut(|entry| match entry.standing(proc) {
            Standing::Gone => {
                said.push(format!("{} ended while it was held", entry.what()));
                false
            }
            Standing::Unknown(error) => {
                if !std::mem::replace(&mut entry.unseen, true) {
                    let what = entry.what();
                    said.push(format!("{what} cannot be looked at now, which is tried again: {error}"));
                }
                true
            }
            // A signal that stops takes a moment to do so where the program was on another CPU.
            Standing::Runs if now_s.saturating_sub(entry.since_s) >= 2 => {
                said.push(format!("{} was continued by somebody else", entry.what()));
                false
            }
            _ if !stands && entry.until_s.is_some_and(|until| now_s >= until) => {
                let (what, done) = (entry.what(), order.done());
                match entry.obey(order, proc) {
                    Ok(()) => said.push(format!("{what} was {done}: nobody decided within its time")),
                    Err(Failure::Gone) => said.push(format!("{what} ended while it was held")),
                    // It is tried again and again, and said once.
                    Err(Failure::Refused(error)) if !std::mem::replace(&mut entry.failed, true) => {
                        said.push(format!("{what} could not be {done} when its time was over: {error}"));
                        return true;
                    }
                    Err(Failure::Refused(_)) => return true,
                }
                false
            }
            Standing::Stopped | Standing::Runs => {
                entry.unseen = false;
                true
            }
        });
        self.changed |= self.entries.len() != before;
        self.save();
        said
    }

    /// At the end of the daemon: releases the programs, unless they are to stay; frozen groups stay. Sentences about it.
    pub(super) fn close(&mut self, keep: bool, proc: &ProcRoot) -> Vec<String> {
        let mut said = Vec::new();
        let mut released = 0;
        let before = self.entries.len();
        self.entries.retain(|entry| {
            if keep || entry.group.is_some() {
                return true;
            }
            match entry.obey(Order::Release, proc) {
                Ok(()) => released += 1,
                Err(Failure::Gone) => said.push(format!("{} ended while it was held", entry.what())),
                Err(Failure::Refused(error)) => {
                    said.push(format!("{} stays stopped: it could not be released: {error}", entry.what()));
                    return true;
                }
            }
            false
        });
        self.changed |= self.entries.len() != before;
        self.save();
        if released > 0 {
            said.push(format!("{released} held programs were released because execwatch ends"));
        }
        said
    }

    /// Writes the file if it is out of date, in one step.
    pub(super) fn save(&mut self) {
        if !self.changed {
            return;
        }
        let write = || -> io::Result<()> {
            let new = self.path.with_extension("new");
            if let Some(folder) = self.path.parent()
                && !folder.is_dir()
            {
                fs::DirBuilder::new().mode(0o700).create(folder)?;
            }
            let mut file =
                fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            file.write_all(&serde_json::to_vec(&self.entries)?)?;
            fs::rename(&new, &self.path)
        };
        match write() {
            Ok(()) => (self.changed, self.unwritten) = (false, false),
            // It is tried again and again, and said once.
            Err(error) if !std::mem::replace(&mut self.unwritten, true) => {
                log::warn!("what is held cannot be written to {}: {error}", self.path.display());
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests;
