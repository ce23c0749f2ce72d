//! Stage five: the record of a match, and its forms.
//!
//! In: an exec and the rules it matches. Out: one [`Record`], and its text, JSON and terminal forms. Bytes from the
//! process stay bytes until a form is written; `escape` is the only place where they become text.

pub mod cef;
pub mod ecs;
pub mod escape;
pub mod origin;
pub mod people;
pub mod text;

use origin::Origin;

use crate::baseline::decision::{Knowledge, Past};
use crate::calendar::LocalTime;
use crate::fold::Folded;
use crate::followup::record::FollowUp;
use crate::identity::By;
use crate::identity::contents::hexadecimal;
use crate::process::details::{Login, Namespaces};
use crate::process::exec::Exec;
use crate::process::relatives::Ancestors;
use crate::rules::catalogue::Via;
use crate::rules::model::{Rule, Severity};
use crate::rules::ruleset::RuleSet;
use crate::rules::subject::{Subject, Surroundings};

/// Facts about this host and daemon that every record carries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Host {
    /// The host's name.
    pub name: String,
    /// /etc/machine-id (machine-id(5)), empty if there is none.
    pub id: String,
    /// The kernel's release.
    pub kernel: String,
}

/// By what a receiver recognises a record that it is sent once more.
///
/// No two records have the same: the first part is chosen at random when the daemon starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordId {
    /// This run of the daemon.
    pub run: u64,
    /// Counted from 1, and on over restarts as long as the journal lasts.
    pub number: u64,
}

impl std::fmt::Display for RecordId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}-{}", self.run, self.number)
    }
}

/// What an output is given.
#[derive(Debug, Clone)]
pub enum Record {
    /// A program matched a rule.
    Alert(Box<Alert>),
    /// The daemon has something to say about itself.
    Notice(Notice),
    /// What a program did after its alert.
    FollowUp(Box<FollowUp>),
    /// Alerts that were not told by themselves.
    Folded(Box<Folded>),
}

/// A program matched a rule.
#[derive(Debug, Clone)]
pub struct Alert {
    /// Unique on this host: event time, pid.
    pub id: String,
    /// When the program was executed, or found running: nanoseconds since 1970.
    pub time_ns: u64,
    /// The most severe of the rules that matched.
    pub rule: Matched,
    /// The ids of all rules that matched, the most severe first.
    pub rules: Vec<String>,
    /// ATT&CK techniques of the rules and of the utility.
    pub attack: Vec<String>,
    /// The utility, if it is one.
    pub utility: Option<MatchedUtility>,
    /// SHA-256 of the executable in hexadecimal, if a rule or the comparison with a utility needed it.
    pub sha256: Option<String>,
    /// Names of the executable's owner and group.
    pub file_names: [Option<String>; 2],
    /// What was read, without the ancestors, which `origin` has.
    pub exec: Exec,
    /// Where it comes from.
    pub origin: Origin,
    /// When the process was made: nanoseconds since 1970.
    pub start_ns: Option<u64>,
    /// Names of the real, effective and login user, as far as /etc/passwd has them.
    pub users: [Option<String>; 3],
    /// In another namespace than the host's: their kinds.
    pub namespaces: Vec<&'static str>,
    /// Whether that is normal here; `None` if there is nothing to compare with.
    pub baseline: Option<Standing>,
    /// The incident that it belongs to.
    pub incident: Option<String>,
}

/// What the baseline says of an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// What was known before; `None` if too little is known of the program to compare it.
    pub past: Option<Past>,
    /// The rule's own severity, if the alert has another for that.
    pub severity_was: Option<Severity>,
}

impl Standing {
    /// `new`, `seen`, `known`, or `unknown`.
    pub fn as_str(&self) -> &'static str {
        self.past.map_or("unknown", |past| past.knowledge.as_str())
    }

    /// Never seen before, or not for long.
    pub fn first_seen(&self) -> bool {
        self.past.is_some_and(|past| past.knowledge == Knowledge::New)
    }
}

/// What an alert says of its rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matched {
    /// Its id.
    pub id: String,
    /// Its title.
    pub title: String,
    /// Its severity.
    pub severity: Severity,
}

/// What an alert says of the utility.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatchedUtility {
    /// Its name in the catalogue.
    pub name: String,
    /// Its category.
    pub category: String,
    /// By which of its names it was recognised.
    pub via: Via,
    /// The name it shows is none of the utility's.
    pub disguised: bool,
    /// The installed file that was recognised elsewhere, by what.
    pub identity: Option<Recognition>,
}

/// How a file that is not at its place was recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recognition {
    /// By what.
    pub by: By,
    /// Device and inode, build-id or SHA-256, as text.
    pub value: String,
    /// Where the same file is installed.
    pub path: Vec<u8>,
}

impl Recognition {
    /// Of an exec, if its file is an installed utility's, or a copy, in another place.
    pub(crate) fn of(exec: &Exec) -> Option<Self> {
        let identity = exec.details.identity.as_ref().filter(|identity| !identity.at_its_place)?;
        let installed = &identity.installed;
        let value = match identity.by {
            _ if exec.described.is_some() => {
                exec.described.as_ref().map_or(String::new(), |file| file.recognised_by.clone())
            }
            By::Inode => {
                let (major, minor) = installed.file.device;
                format!("{major}:{minor}:{}", installed.file.inode)
            }
            By::BuildId => installed.build_id.map(|id| hexadecimal(id.as_bytes())).unwrap_or_default(),
            By::Content => identity.sha256.map(|digest| hexadecimal(&digest)).unwrap_or_default(),
        };
        Some(Recognition { by: identity.by, value, path: installed.path().to_vec() })
    }
}

/// The daemon has something to say about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// What kind it is: a word.
    pub kind: &'static str,
    /// How serious it is.
    pub severity: Severity,
    /// When: nanoseconds since 1970.
    pub time_ns: u64,
    /// A sentence.
    pub message: String,
}

impl Record {
    /// How serious it is.
    pub fn severity(&self) -> Severity {
        match self {
            Record::Alert(alert) => alert.rule.severity,
            Record::Notice(notice) => notice.severity,
            Record::FollowUp(record) => record.alerted.rule.severity,
            Record::Folded(record) => record.rule.severity,
        }
    }

    /// By what it is known again; `None` for a notice.
    pub fn key(&self) -> Option<String> {
        match self {
            Record::Alert(alert) => Some(alert.id.clone()),
            Record::FollowUp(record) => Some(record_key(&record.alerted.id, record.time_ns)),
            Record::Folded(record) => Some(record_key(&record.alert_id, record.last_ns)),
            Record::Notice(_) => None,
        }
    }
}

/// The key of a record that belongs to an alert.
pub fn record_key(alert: &str, time_ns: u64) -> String {
    format!("{alert} {time_ns}")
}

impl Alert {
    /// The alert for a program and the rules that match it, the most severe first; `None` if there are none. `time_ns` is
    /// when it was executed, in nanoseconds since 1970.
    pub fn new(
        exec: &Exec,
        rules: &[&Rule],
        subject: &Subject<'_>,
        ruleset: &RuleSet,
        surroundings: &Surroundings,
        clock: &dyn Clock,
        time_ns: u64,
    ) -> Option<Alert> {
        let first = rules.first()?;
        let utility = subject.utility().and_then(|found| {
            let utility = ruleset.catalogue().utilities().get(found.utility)?;
            Some((
                MatchedUtility {
                    name: utility.name.clone(),
                    category: utility.category.clone(),
                    via: found.via,
                    disguised: found.disguised,
                    identity: Recognition::of(exec),
                },
                utility,
            ))
        });
        let mut attack: Vec<String> = rules.iter().flat_map(|rule| rule.attack.iter().cloned()).collect();
        // A rule that names techniques knows better than the catalogue, which lists all that the utility is good for.
        if attack.is_empty() {
            attack.extend(utility.iter().flat_map(|(_, utility)| utility.attack.iter().cloned()));
        }
        deduplicate(&mut attack);
        let details = &exec.details;
        let own = details.names.as_deref();
        let name = |own, uid| surroundings.accounts.users.of(own, uid).known();
        Some(Alert {
            id: format!("{:x}-{:x}", time_ns, exec.pid),
            time_ns,
            rule: Matched { id: first.id.clone(), title: first.title.clone(), severity: first.severity },
            rules: rules.iter().map(|rule| rule.id.clone()).collect(),
            attack,
            utility: utility.map(|(matched, _)| matched),
            sha256: match &exec.described {
                Some(file) => file.sha256.clone(),
                None => exec.sha256.get().map(|digest| hexadecimal(digest)),
            },
            file_names: match &exec.described {
                Some(file) => [file.owner.clone().known(), file.group.clone().known()],
                None => [
                    exec.file.and_then(|file| surroundings.accounts.users.name(file.uid)),
                    exec.file.and_then(|file| surroundings.accounts.groups.name(file.gid)),
                ],
            },
            exec: Exec { ancestors: Ancestors::default(), ..exec.clone() },
            origin: Origin::new(subject, surroundings, clock),
            start_ns: details.start_ticks.map(|ticks| clock.wall_from_start_ticks(ticks)),
            users: [
                name(own.map(|own| &own.user), details.uid(0)),
                name(own.map(|own| &own.effective), details.uid(1)),
                name(own.map(|own| &own.login), details.login.and_then(Login::user)),
            ],
            namespaces: foreign_namespaces(&exec.details.namespaces, &surroundings.namespaces),
            baseline: None,
            incident: None,
        })
    }

    /// The program was found running, at the start of execwatch or after its execution was missed.
    pub fn already_running(&self) -> bool {
        self.exec.certainty.found_running()
    }
}

/// Conversions to wall-clock time, so that alerts can be made without a clock.
pub trait Clock {
    /// The wall-clock time of a CLOCK_MONOTONIC stamp.
    fn wall_from_monotonic(&self, stamp_ns: u64) -> u64;
    /// The wall-clock time of a start time in ticks since boot.
    fn wall_from_start_ticks(&self, ticks: u64) -> u64;
    /// A moment in seconds since 1970 in the host's time zone; `None` if the moment or the zone is not known.
    fn local(&self, seconds: u64) -> Option<LocalTime>;
}

/// The host's clocks.
#[derive(Debug, Clone, Copy)]
pub struct HostClock;

impl Clock for HostClock {
    fn wall_from_monotonic(&self, stamp_ns: u64) -> u64 {
        crate::clock::wall_from_monotonic(stamp_ns)
    }

    fn wall_from_start_ticks(&self, ticks: u64) -> u64 {
        crate::clock::wall_from_start_ticks(ticks)
    }

    fn local(&self, seconds: u64) -> Option<LocalTime> {
        Some(crate::sys::time::local(seconds))
    }
}

fn foreign_namespaces(own: &Namespaces, host: &Namespaces) -> Vec<&'static str> {
    [
        ("pid", own.pid, host.pid),
        ("mnt", own.mnt, host.mnt),
        ("net", own.net, host.net),
        ("user", own.user, host.user),
    ]
    .into_iter()
    .filter(|(_, own, host)| own.zip(*host).is_some_and(|(own, host)| own != host))
    .map(|(name, ..)| name)
    .collect()
}

fn deduplicate(words: &mut Vec<String>) {
    let mut seen = std::collections::HashSet::new();
    words.retain(|word| seen.insert(word.clone()));
}
