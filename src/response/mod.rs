//! Containment: what is done about a program that a rule with an `action` matches.
//!
//! In: an exec and the rules that match it. Out: a [`Response`], which its alert carries: what was done, or why not.
//!
//! - [`decide`] runs on a listener's thread: `deny` and `hold` send their signal while the program is held, so that it
//!   never runs an instruction. What a rule asks that cannot be read there in bounded time is unknown there, and the
//!   worker decides.
//! - [`act`] runs on the worker: those late decisions, `kill-tree` and `freeze`.
//! - [`guard`] says what is never touched, [`rate`] how often a rule may act, [`disarm`] whether anything may.
//! - [`policy`] is what listeners know for it, made by another thread; `chain` reads ancestors there.
//! - `running` asks about a process as it is now, `tree` about all that come from one.
//! - [`held`] remembers what is stopped; `terminal` tells the user.

pub mod act;
mod chain;
pub mod decide;
pub mod disarm;
mod frozen;
pub mod guard;
pub mod held;
pub mod orders;
pub mod policy;
pub mod rate;
pub mod review;
mod running;
mod signal;
mod terminal;
mod tree;

use std::time::Duration;

use crate::process::exec::Certainty;
use crate::rules::action::Action;
use crate::rules::catalogue::LONGEST_NAME;

/// Whether responses are given; the strictest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Mode {
    /// No. The actions of rules mean nothing.
    #[default]
    Off,
    /// No, but alerts say what would have been done.
    DryRun,
    /// Yes.
    Enforce,
}

/// Modes by their words.
pub const MODES: [(&str, Mode); 3] =
    [("off", Mode::Off), ("dry-run", Mode::DryRun), ("enforce", Mode::Enforce)];

impl Mode {
    /// The word used in the configuration.
    pub fn as_str(self) -> &'static str {
        MODES[self as usize].0
    }
}

/// What becomes of a held program that nobody decides about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fate {
    /// It is killed.
    #[default]
    Kill,
    /// It may run.
    Release,
}

/// `[response]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Whether responses are given.
    pub mode: Mode,
    /// How often each rule may act in a minute.
    pub per_minute: u32,
    /// Patterns of executables that are never touched.
    pub protected: Vec<String>,
    /// How long a program is held at most.
    pub hold_for: Duration,
    /// What becomes of it then.
    pub after_hold: Fate,
    /// Held programs stay stopped when the daemon ends.
    pub keep_held: bool,
    /// What the user of a program is told on the terminal; empty for nothing.
    pub terminal_message: String,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            mode: Mode::Off,
            per_minute: 30,
            protected: PROTECTED.map(str::to_owned).to_vec(),
            hold_for: Duration::from_secs(600),
            after_hold: Fate::Kill,
            keep_held: false,
            terminal_message: String::new(),
        }
    }
}

impl Settings {
    /// What both allow: less is done under these than under either, whichever rules are in force.
    pub fn stricter(&self, other: &Settings) -> Settings {
        let more = other.protected.iter().filter(|pattern| !self.protected.contains(pattern));
        Settings {
            mode: self.mode.min(other.mode),
            per_minute: self.per_minute.min(other.per_minute),
            protected: self.protected.iter().chain(more).cloned().collect(),
            ..self.clone()
        }
    }
}

/// What an administrator needs to look and to repair, in the folders where Debian and Fedora have it.
pub const PROTECTED: [&str; 12] = [
    "/usr/bin/apt*",
    "/usr/bin/dnf*",
    "/usr/bin/dpkg*",
    "/usr/bin/journalctl",
    "/usr/bin/login",
    "/usr/bin/rpm*",
    "/usr/bin/su",
    "/usr/bin/sudo",
    "/usr/bin/systemctl",
    "/usr/lib/openssh/*",
    "/usr/sbin/agetty",
    "/usr/sbin/sshd*",
];

/// What was done about a program, or why not. It holds no memory of its own, so that a listener can hand it over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Response {
    /// What the rule asks for.
    pub action: Action,
    /// The rule.
    pub rule: RuleName,
    /// What came of it.
    pub outcome: Outcome,
    /// How sure it is that a program which a listener killed or stopped had not run: exact if the first signal was sent
    /// while the program certainly stayed on its CPU.
    pub certainty: Certainty,
}

impl Response {
    /// Nothing came of it, but another rule's action may be taken yet.
    fn is_open(self) -> bool {
        matches!(self.outcome, Outcome::Refused(_) | Outcome::Failed(_))
    }

    /// How surely a program that was killed or stopped had not run; late if it certainly may have. `None` if nothing was
    /// done.
    pub fn certainty(&self) -> Option<&'static str> {
        match self.outcome {
            Outcome::Prevented | Outcome::Held => Some(self.certainty.as_str()),
            outcome => outcome.after_us().map(|_| "late"),
        }
    }
}

/// What came of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Killed before its first instruction: the listener held it, as surely as the alert's capture says.
    Prevented,
    /// Stopped before its first instruction, as surely.
    Held,
    /// Killed so many microseconds after it was executed: it has run meanwhile.
    Killed {
        /// Microseconds.
        after_us: u64,
    },
    /// Stopped so many microseconds after it was executed.
    Stopped {
        /// Microseconds.
        after_us: u64,
    },
    /// It and its descendants were killed.
    TreeKilled {
        /// Of how many processes.
        processes: u32,
        /// So many more were left because a guard rail keeps them.
        spared: u32,
        /// Which ones keep them.
        spared_by: Guards,
        /// Microseconds from the exec.
        after_us: u64,
    },
    /// Its control group was frozen.
    Frozen {
        /// Microseconds from the exec.
        after_us: u64,
    },
    /// It had ended before.
    Gone,
    /// A guard rail keeps it.
    Refused(Guard),
    /// It would have been done.
    DryRun,
    /// The kernel refused it, with this error number.
    Failed(i32),
}

/// Why a response was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// It is the first process, or belongs to the init system.
    Init,
    /// The kernel itself started it.
    Kernel,
    /// It is execwatch, or an ancestor of it.
    Execwatch,
    /// It is the ssh server that new logins need.
    SshServer,
    /// A package manager of root's runs it.
    PackageManager,
    /// Its executable is in `[response] protected`.
    Protected,
    /// The rule has acted as often as it may in a minute.
    Rate,
    /// Responses are disarmed.
    Disarmed,
    /// It ran already when execwatch started.
    AlreadyRunning,
    /// It runs in no container and no unit of its own.
    NoUnit,
    /// It cannot be told which executable it has.
    Unreadable,
}

/// All of them.
const GUARDS: [Guard; 11] = [
    Guard::Init,
    Guard::Kernel,
    Guard::Execwatch,
    Guard::SshServer,
    Guard::PackageManager,
    Guard::Protected,
    Guard::Rate,
    Guard::Disarmed,
    Guard::AlreadyRunning,
    Guard::NoUnit,
    Guard::Unreadable,
];

/// Why responses were refused to several processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Guards(u16);

impl Guards {
    /// Each of them once, by the word used in alerts.
    pub fn words(self) -> Vec<&'static str> {
        let within = GUARDS.into_iter().filter(|&guard| self.0 & 1 << guard as u16 != 0);
        within.map(Guard::as_str).collect()
    }
}

impl FromIterator<Guard> for Guards {
    fn from_iter<I: IntoIterator<Item = Guard>>(guards: I) -> Self {
        Guards(guards.into_iter().fold(0, |all, guard| all | 1 << guard as u16))
    }
}

impl Outcome {
    /// The word used in alerts.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Prevented => "prevented",
            Outcome::Held => "held",
            Outcome::Killed { .. } => "killed",
            Outcome::Stopped { .. } => "stopped",
            Outcome::TreeKilled { .. } => "tree-killed",
            Outcome::Frozen { .. } => "frozen",
            Outcome::Gone => "already-gone",
            Outcome::Refused(_) => "refused",
            Outcome::DryRun => "dry-run",
            Outcome::Failed(_) => "failed",
        }
    }

    /// Microseconds from the exec to the response, if the program may have run meanwhile.
    pub fn after_us(self) -> Option<u64> {
        match self {
            Outcome::Killed { after_us }
            | Outcome::Stopped { after_us }
            | Outcome::TreeKilled { after_us, .. }
            | Outcome::Frozen { after_us } => Some(after_us),
            _ => None,
        }
    }

    /// A signal was sent or a control group frozen.
    pub fn acted(self) -> bool {
        self.after_us().is_some() || matches!(self, Outcome::Prevented | Outcome::Held)
    }

    /// The program is stopped now.
    pub fn stopped(self) -> bool {
        matches!(self, Outcome::Held | Outcome::Stopped { .. })
    }

    /// A few words for people.
    pub fn sentence(self, certainty: Certainty) -> String {
        let certainty = certainty.as_str();
        match self {
            Outcome::Prevented => format!("killed before its first instruction ({certainty})"),
            Outcome::Held => format!("stopped before its first instruction ({certainty})"),
            Outcome::Killed { after_us } => format!("killed after {after_us} us, in which it ran"),
            Outcome::Stopped { after_us } => format!("stopped after {after_us} us, in which it ran"),
            Outcome::TreeKilled { processes, spared: 0, after_us, .. } => {
                format!("killed with its descendants ({processes} processes) after {after_us} us")
            }
            Outcome::TreeKilled { processes, spared, spared_by, after_us } => format!(
                "killed with its descendants ({processes} processes, {spared} more spared by guard rails: {}) after \
                 {after_us} us",
                spared_by.words().join(", ")
            ),
            Outcome::Frozen { after_us } => format!("its control group was frozen after {after_us} us"),
            Outcome::Gone => "it had ended before".to_owned(),
            Outcome::Refused(guard) => format!("not done: {}", guard.reason()),
            Outcome::DryRun => "would have been done; responses are in dry-run".to_owned(),
            Outcome::Failed(errno) => format!("failed: {}", std::io::Error::from_raw_os_error(errno)),
        }
    }
}

impl Guard {
    /// The word used in alerts.
    pub fn as_str(self) -> &'static str {
        match self {
            Guard::Init => "init",
            Guard::Kernel => "kernel",
            Guard::Execwatch => "execwatch",
            Guard::SshServer => "ssh-server",
            Guard::PackageManager => "package-manager",
            Guard::Protected => "protected",
            Guard::Rate => "rate",
            Guard::Disarmed => "disarmed",
            Guard::AlreadyRunning => "already-running",
            Guard::NoUnit => "no-unit",
            Guard::Unreadable => "unreadable",
        }
    }

    /// The reason for people.
    pub fn reason(self) -> &'static str {
        match self {
            Guard::Init => "it is the first process or belongs to the init system",
            Guard::Kernel => "the kernel started it",
            Guard::Execwatch => "it is execwatch or an ancestor of it",
            Guard::SshServer => "it is the ssh server",
            Guard::PackageManager => "a package manager runs it",
            Guard::Protected => "its executable is protected",
            Guard::Rate => "the rule has acted as often as it may in a minute",
            Guard::Disarmed => "responses are disarmed",
            Guard::AlreadyRunning => "it ran already when execwatch started",
            Guard::NoUnit => "it runs in no container and no unit of its own",
            Guard::Unreadable => "its executable cannot be read, which may be a protected one",
        }
    }
}

/// The id of a rule, in place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RuleName {
    bytes: [u8; LONGEST_NAME],
    length: u8,
}

impl RuleName {
    /// An id; the reader of rules refuses longer ones than fit.
    pub fn new(id: &str) -> Self {
        let mut bytes = [0; LONGEST_NAME];
        let length = id.len().min(LONGEST_NAME);
        bytes[..length].copy_from_slice(&id.as_bytes()[..length]);
        RuleName { bytes, length: length as u8 }
    }

    /// The id.
    pub fn as_str(&self) -> &str {
        self.bytes.get(..self.length.into()).and_then(|id| std::str::from_utf8(id).ok()).unwrap_or_default()
    }
}

impl std::fmt::Debug for RuleName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rules_name_comes_back() {
        let longest = "x".repeat(LONGEST_NAME);
        for id in ["", "netcat-shell", longest.as_str()] {
            assert_eq!(RuleName::new(id).as_str(), id);
        }
    }

    #[test]
    fn the_stricter_of_two_settings_allows_only_what_both_do() {
        let of = |mode, per_minute, protected: &[&str]| Settings {
            mode,
            per_minute,
            protected: protected.iter().map(|&pattern| pattern.to_owned()).collect(),
            ..Settings::default()
        };
        let (one, other) = (of(Mode::Enforce, 5, &["/a", "/b"]), of(Mode::DryRun, 30, &["/b", "/c"]));
        assert_eq!(one.stricter(&other), of(Mode::DryRun, 5, &["/a", "/b", "/c"]));
        assert_eq!(one.stricter(&one), one);
        assert_eq!(one.stricter(&of(Mode::Off, 5, &[])).mode, Mode::Off);
    }

    #[test]
    fn a_set_of_guard_rails_has_each_once() {
        for guard in GUARDS {
            assert_eq!([guard, guard].into_iter().collect::<Guards>().words(), [guard.as_str()]);
        }
        let all: Guards = GUARDS.into_iter().collect();
        assert_eq!(all.words().len(), GUARDS.len());
        assert!(Guards::default().words().is_empty());
    }

    #[test]
    fn modes_stand_in_the_order_of_their_words() {
        for (word, mode) in MODES {
            assert_eq!(mode.as_str(), word);
        }
    }
}
