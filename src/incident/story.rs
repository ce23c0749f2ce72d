//! What is known of an incident, as data: what `incidents show --json` prints, and what everything that shows an incident
//! to people is made from.
//!
//! Text that a process chose is written as [`for_json`](crate::alert::escape::for_json) writes bytes: nothing is lost, and it
//! may hold anything that is text. Whoever shows it has to escape it for the place where it goes.

use serde::{Deserialize, Serialize};

use crate::rules::model::Severity;

/// An incident, whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Story {
    /// What the list shows too.
    pub incident: Incident,
    /// Who acted, and whether that is normal here.
    pub who: Vec<Answer>,
    /// What still runs, what was done about it, and what can be done now.
    pub contain: Vec<Answer>,
    /// Commands that an administrator can run now, the mildest first.
    pub commands: Vec<Command>,
    /// What else belongs to it, in a few sentences; the lists below have the rest.
    pub what_else: Vec<Answer>,
    /// How they got in.
    pub way_in: Vec<Answer>,
    /// The process tree: parents before their children.
    pub processes: Vec<Process>,
    /// What happened, in the order of time.
    pub timeline: Vec<Moment>,
    /// The utilities that were used.
    pub tools: Vec<Tool>,
    /// Who was talked to.
    pub remotes: Vec<Remote>,
    /// Names of hosts that stand in arguments.
    pub names: Vec<String>,
    /// Files that were written, executed or named, and what is there now.
    pub files: Vec<File>,
    /// The rules that matched, as `execwatch rules ID` shows them; empty if the rule is gone.
    pub rules: Vec<RuleText>,
    /// What belongs to it and was not kept, by kind and number; empty if everything is here.
    pub cut: Vec<Cut>,
}

/// What an incident is called.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// Unique on this host, and short enough to be typed.
    pub id: String,
    /// The host's name.
    pub host: String,
    /// The first alert (RFC 3339).
    pub first: String,
    /// The last alert (RFC 3339).
    pub last: String,
    /// The highest severity of its alerts.
    pub severity: Severity,
    /// How much speaks for an intrusion: 0 to 100.
    pub score: u8,
    /// What became of it.
    pub state: State,
    /// What an administrator said of it.
    pub verdict: Option<Verdict>,
    /// The administrator's note.
    pub note: Option<String>,
    /// A sentence for lists: the user, the way in, and the tools.
    pub title: String,
    /// The user who acted, by name if it has one.
    pub user: Option<String>,
    /// Container, unit or login session.
    pub place: Option<String>,
    /// Alerts, those included that were folded.
    pub alerts: u64,
    /// Programs executed.
    pub execs: u64,
}

/// What became of an incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Nobody has looked at it.
    Open,
    /// Somebody has.
    Acknowledged,
    /// It is over, with a verdict.
    Closed,
}

impl State {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Open => "open",
            State::Acknowledged => "acknowledged",
            State::Closed => "closed",
        }
    }
}

/// What an administrator found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// An intrusion.
    Malicious,
    /// Allowed, and what it looks like.
    Benign,
    /// Allowed, and not what it looks like: a rule to be mended.
    FalsePositive,
}

impl Verdict {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Malicious => "malicious",
            Verdict::Benign => "benign",
            Verdict::FalsePositive => "false-positive",
        }
    }
}

/// How sure an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sure {
    /// It was read or counted.
    Known,
    /// It follows from what was read, unless something unusual was done.
    Likely,
    /// It was looked for and not found.
    Unknown,
}

impl Sure {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Sure::Known => "known",
            Sure::Likely => "likely",
            Sure::Unknown => "unknown",
        }
    }
}

/// A part of the answer to one of the four questions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// What is answered: `acting user`, `entry`, `still running`.
    pub what: String,
    /// The answer.
    pub answer: String,
    /// How sure it is.
    pub sure: Sure,
    /// Where it comes from: `alert`, `lineage`, `baseline`, `/proc now`.
    pub source: String,
}

/// A command that can be run now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The command line, quoted for a shell.
    pub line: String,
    /// What it does, in a sentence.
    pub effect: String,
}

/// A process of the incident.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// Stands for the process here: pids are used again.
    pub key: u32,
    /// The parent's key; `None` for a root.
    pub parent: Option<u32>,
    /// Process id.
    pub pid: u32,
    /// What it executed, in order. A process that only forked has what its parent ran.
    pub programs: Vec<Program>,
    /// The user it ran as, by name if it has one.
    pub user: Option<String>,
    /// When it was made, in nanoseconds since 1970; `None` if that was not seen.
    pub start_ns: Option<u64>,
    /// When it ended, in nanoseconds since 1970; `None` if it had not, or that was not seen.
    pub end_ns: Option<u64>,
    /// How it ended: `exit 0`, `SIGKILL`.
    pub outcome: Option<String>,
    /// It runs now, as far as /proc could be asked.
    pub running: bool,
    /// It is the entry: where the outside came in.
    pub entry: bool,
}

/// A program that a process executed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Program {
    /// In nanoseconds since 1970.
    pub time_ns: u64,
    /// The executable.
    pub exe: Option<String>,
    /// The arguments, of which long ones were cut.
    pub args: Vec<String>,
    /// The alert that it caused; `None` for those that only belong to the story.
    pub alert: Option<AlertPart>,
}

/// An alert in a process tree.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AlertPart {
    /// The alert's id.
    pub id: String,
    /// The most severe rule that matched.
    pub rule: String,
    /// The rule's title.
    pub title: String,
    /// Its severity.
    pub severity: Severity,
    /// The utility, if it is one.
    pub utility: Option<String>,
    /// What was done about it: `prevented`, `held`, ...
    pub response: Option<String>,
}

/// What a moment in the timeline is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MomentKind {
    /// A program was executed.
    Exec,
    /// An alert.
    Alert,
    /// A connection was seen.
    Connection,
    /// A response.
    Response,
    /// A file was seen open for writing.
    File,
    /// A process ended.
    End,
    /// Somebody acknowledged or closed the incident, or the daemon had something to say.
    Note,
}

impl MomentKind {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            MomentKind::Exec => "exec",
            MomentKind::Alert => "alert",
            MomentKind::Connection => "connection",
            MomentKind::Response => "response",
            MomentKind::File => "file",
            MomentKind::End => "end",
            MomentKind::Note => "note",
        }
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// In nanoseconds since 1970.
    pub time_ns: u64,
    /// What it is about.
    pub kind: MomentKind,
    /// The process, by its key; `None` if it belongs to none.
    pub process: Option<u32>,
    /// What happened, in a line.
    pub text: String,
    /// Of alerts.
    pub severity: Option<Severity>,
}

/// A utility that was used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tool {
    /// Its name in the catalogue.
    pub name: String,
    /// Its category there.
    pub category: String,
    /// ATT&CK techniques of the utility and of the rules that matched with it.
    pub attack: Vec<String>,
    /// How often it was executed.
    pub count: u64,
    /// The executables, more than one if it was copied or renamed.
    pub paths: Vec<String>,
    /// It went by another name than its own.
    pub disguised: bool,
}

/// Somebody who was talked to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remote {
    /// Address and port.
    pub address: String,
    /// `tcp`, `udp`, ...
    pub transport: String,
    /// It came from there.
    pub inbound: bool,
    /// Bytes sent, as far as they were seen.
    pub bytes_out: Option<u64>,
    /// Bytes received, as far as they were seen.
    pub bytes_in: Option<u64>,
    /// The processes, by their keys.
    pub processes: Vec<u32>,
}

/// How a file belongs to an incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileUse {
    /// It was seen open for writing.
    Written,
    /// It was executed from a folder that is no system's folder, or is a script.
    Executed,
    /// It stands in arguments as what is to be written.
    Named,
}

impl FileUse {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            FileUse::Written => "written",
            FileUse::Executed => "executed",
            FileUse::Named => "named",
        }
    }
}

/// A file of the incident.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Its path.
    pub path: String,
    /// How it belongs to it.
    pub uses: Vec<FileUse>,
    /// What is at that path now; `None`: nothing, or it could not be looked at.
    pub now: Option<FileNow>,
}

/// What is at a path now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileNow {
    /// Bytes.
    pub size: u64,
    /// The owner, by name if it has one.
    pub owner: String,
    /// Permission bits, as in `0755`.
    pub mode: String,
    /// When it was changed last (RFC 3339).
    pub modified: String,
    /// SHA-256 in hexadecimal; `None` if it is too large.
    pub sha256: Option<String>,
}

/// A rule that matched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleText {
    /// Its id.
    pub id: String,
    /// Its text.
    pub text: String,
}

/// Something that was not kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// What: `programs`, `alerts`, `files`.
    pub what: String,
    /// How many.
    pub count: u64,
}
