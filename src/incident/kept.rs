//! What is kept of an incident: small, plain, as the database has it in JSON.
//!
//! Texts that a process chose are written as [`for_json`] writes bytes, and cut. Times are nanoseconds since 1970; those
//! called `at` are on CLOCK_MONOTONIC and only serve to find what belongs to the same exec.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::story::Cut;
use crate::alert::escape::for_json;
use crate::alert::{Alert, people};
use crate::fold::Folded;
use crate::followup::record::FollowUp;
use crate::followup::sentence;
use crate::followup::sockets::{LISTEN, Protocol};
use crate::lineage::recent::Light;
use crate::process::details::Login;
use crate::process::exec::Image;
use crate::rules::model::Severity;

/// Bytes kept of a path.
const PATH: usize = 512;
/// Bytes kept of an argument list.
const ARGUMENTS: usize = 1024;
/// Arguments kept of a list.
const MOST_ARGUMENTS: usize = 64;

/// What the list of incidents shows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The id.
    pub id: String,
    /// The first and the last alert.
    pub first_ns: u64,
    /// See `first_ns`.
    pub last_ns: u64,
    /// The highest severity.
    pub severity: Severity,
    /// 0 to 100.
    pub score: u8,
    /// A sentence.
    pub title: String,
    /// The user who acted.
    pub user: Option<String>,
    /// Container, unit or session.
    pub place: Option<String>,
    /// Alerts, folded ones included.
    pub alerts: u64,
    /// Programs executed.
    pub execs: u64,
    /// What was not kept.
    pub cut: Vec<Cut>,
}

/// One thing that is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Item {
    /// An alert.
    Alert(Box<KeptAlert>),
    /// A process.
    Process(KeptProcess),
    /// A program that a process executed.
    Program(KeptProgram),
    /// A process ended.
    End(KeptEnd),
    /// What an alerted program did.
    FollowUp(Box<KeptFollowUp>),
    /// Alerts that were folded.
    Folded(KeptFolded),
    /// Something was said or decided.
    Note(KeptNote),
}

/// An alert.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct KeptAlert {
    /// Its id.
    pub id: String,
    /// When.
    pub time_ns: u64,
    /// The same on the other clock.
    pub at_ns: u64,
    /// Process id.
    pub pid: u32,
    /// The most severe rule.
    pub rule: String,
    /// Its title.
    pub title: String,
    /// Its severity.
    pub severity: Severity,
    /// All rules.
    pub rules: Vec<String>,
    /// ATT&CK techniques.
    pub attack: Vec<String>,
    /// The utility.
    pub utility: Option<KeptUtility>,
    /// The executable.
    pub exe: Option<String>,
    /// SHA-256 of it, if it was computed.
    pub sha256: Option<String>,
    /// The arguments.
    pub args: Vec<String>,
    /// Real, effective and login user.
    pub user: Option<String>,
    /// The effective one, if it is another.
    pub effective: Option<String>,
    /// Who logged in; `None` for nobody, or unknown.
    pub login: Option<String>,
    /// Nobody logged in.
    pub no_login: bool,
    /// The terminal.
    pub tty: Option<String>,
    /// The working directory.
    pub cwd: Option<String>,
    /// `new`, `seen`, `known`, or `unknown`.
    pub baseline: Option<String>,
    /// The same as a sentence.
    pub normality: Option<String>,
    /// How the way began.
    pub entry: Option<String>,
    /// The entry leader's pid and command line.
    pub leader: Option<(u32, String)>,
    /// The ssh client.
    pub ssh_client: Option<String>,
    /// Through which program a user acted as another, and who called it.
    pub elevation: Option<(String, Option<String>)>,
    /// The container's id.
    pub container: Option<String>,
    /// Its name, image, runtime and pod.
    pub container_name: Option<String>,
    /// See above.
    pub image: Option<String>,
    /// See above.
    pub runtime: Option<String>,
    /// See above.
    pub pod: Option<String>,
    /// The unit.
    pub unit: Option<String>,
    /// What was done: a word.
    pub response: Option<String>,
    /// The same as a sentence.
    pub response_text: Option<String>,
    /// It was found running.
    pub already_running: bool,
    /// By what it belongs to others.
    #[serde(default)]
    pub keys: Vec<KeptKey>,
    /// The exceptions that are about it.
    #[serde(default)]
    pub exceptions: Vec<KeptException>,
}

/// An exception that covers an alerted program.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KeptException {
    /// Its id.
    pub id: String,
    /// The rule that it is about.
    pub rule: String,
    /// It has expired; otherwise it silenced the rule, and others made the alert.
    pub expired: bool,
}

impl KeptException {
    /// Of pairs of a rule and an exception.
    pub fn all(silenced: Vec<(String, String)>, expired: Vec<(String, String)>) -> Vec<KeptException> {
        let with = |expired| move |(rule, id)| KeptException { id, rule, expired };
        silenced.into_iter().map(with(false)).chain(expired.into_iter().map(with(true))).collect()
    }
}

/// A process, so that it is known again by another daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptOne {
    /// Which boot it belongs to.
    pub boot: String,
    /// Process id.
    pub pid: u32,
    /// When it was made, on CLOCK_MONOTONIC.
    pub start_ns: u64,
}

/// What alerts have in common: see [`Key`](super::keys::Key).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeptKey {
    /// The container's id.
    Container(String),
    /// The client's end of an ssh connection.
    Ssh(SocketAddr),
    /// The audit session, whose numbers begin anew with each boot.
    Login {
        /// Which boot it belongs to.
        boot: String,
        /// Its number.
        session: u32,
    },
    /// The leader of a session that has a terminal.
    Session(KeptOne),
    /// The process where the outside came in.
    Entry(KeptOne),
    /// The service manager's unit.
    Unit(String),
}

/// A utility.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptUtility {
    /// Its name.
    pub name: String,
    /// Its category.
    pub category: String,
    /// It goes by another name.
    pub disguised: bool,
}

/// A process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptProcess {
    /// Its number in the incident.
    pub key: u32,
    /// The parent's number.
    pub parent: Option<u32>,
    /// Process id.
    pub pid: u32,
    /// When it was made.
    pub start_ns: u64,
    /// By what another daemon knows it again.
    pub one: Option<KeptOne>,
    /// The real user.
    pub uid: Option<u32>,
    /// It is an entry.
    pub entry: bool,
    /// What it showed when it was first seen here, if it executed that before.
    pub exe: Option<String>,
    /// The arguments of that.
    pub args: Vec<String>,
}

/// A program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptProgram {
    /// The process.
    pub process: u32,
    /// When.
    pub time_ns: u64,
    /// The same on the other clock.
    pub at_ns: u64,
    /// The executable.
    pub exe: Option<String>,
    /// The arguments.
    pub args: Vec<String>,
}

/// The end of a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptEnd {
    /// The process.
    pub process: u32,
    /// When; if nobody saw it, when that was noticed.
    pub time_ns: u64,
    /// The wait status; `None` if nobody saw it.
    pub status: Option<u32>,
}

/// What an alerted program did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptFollowUp {
    /// The alert.
    pub alert: String,
    /// When.
    pub time_ns: u64,
    /// A sentence.
    pub text: String,
    /// Who was talked to.
    pub peers: Vec<KeptPeer>,
    /// Where it listened.
    pub listening: Vec<String>,
    /// Files that were open for writing.
    pub files: Vec<String>,
    /// Sockets and files that were not kept.
    pub more: u64,
}

/// The other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptPeer {
    /// Address and port.
    pub address: String,
    /// `tcp` or `udp`.
    pub transport: String,
    /// The own end, by which connections to the same address are told apart.
    pub local: Option<String>,
    /// It called.
    pub inbound: bool,
    /// Bytes.
    pub sent: Option<u64>,
    /// Bytes.
    pub received: Option<u64>,
}

/// Alerts that were folded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptFolded {
    /// The alert that was told.
    #[serde(default)]
    pub alert: String,
    /// When the last one was.
    pub time_ns: u64,
    /// A sentence.
    pub text: String,
    /// Their severity.
    pub severity: Severity,
}

/// Something was said or decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptNote {
    /// When.
    pub time_ns: u64,
    /// A sentence.
    pub text: String,
}

impl KeptAlert {
    /// What is kept of an alert.
    pub fn new(alert: &Alert) -> Self {
        let (exec, details, origin) = (&alert.exec, &alert.exec.details, &alert.origin);
        // What a file or another program calls things is text of somebody's choosing too.
        let name = |name: &String| for_json(name.as_bytes());
        let [user, effective, login] = alert.users.each_ref().map(|user| user.as_ref().map(name));
        let id = |uid: Option<u32>| uid.map(|uid| uid.to_string());
        let user = user.or(id(details.uid(0)));
        let effective = effective.or(id(details.uid(1))).filter(|effective| Some(effective) != user.as_ref());
        let response = exec.response;
        KeptAlert {
            id: alert.id.clone(),
            time_ns: alert.time_ns,
            at_ns: exec.timestamp_ns,
            pid: exec.pid,
            rule: alert.rule.id.clone(),
            title: alert.rule.title.clone(),
            severity: alert.rule.severity,
            rules: alert.rules.clone(),
            attack: alert.attack.clone(),
            utility: alert.utility.as_ref().map(|utility| KeptUtility {
                name: utility.name.clone(),
                category: utility.category.clone(),
                disguised: utility.disguised,
            }),
            exe: exec.image.exe().map(path),
            sha256: alert.sha256.clone(),
            args: arguments(exec.image.cmdline()),
            user,
            effective,
            login: login.or(id(details.login.and_then(Login::user))),
            no_login: details.login == Some(Login::Nobody),
            tty: details.tty_name().flatten(),
            cwd: details.cwd().map(path),
            baseline: alert.baseline.map(|standing| standing.as_str().to_owned()),
            normality: alert.baseline.as_ref().map(people::normality),
            entry: origin.entry.map(str::to_owned),
            leader: match origin.entry_leader {
                Some(0) => Some((exec.pid, command(&exec.image))),
                _ => origin.leader().map(|leader| (leader.pid, command(&leader.image))),
            },
            ssh_client: origin.ssh_client.map(|client| client.to_string()),
            elevation: origin.elevation.as_ref().map(|elevation| {
                (elevation.program.to_owned(), elevation.user.as_ref().map(name).or(id(elevation.uid)))
            }),
            container: origin.place.container_id.as_ref().map(name),
            container_name: origin.container.name.as_ref().map(name),
            image: origin.container.image.as_ref().map(name),
            runtime: origin.place.runtime.map(str::to_owned),
            pod: origin.container.pod_name.as_ref().or(origin.place.pod_uid.as_ref()).map(name),
            unit: origin.place.unit.as_ref().map(name),
            response: response.map(|response| response.outcome.as_str().to_owned()),
            response_text: response.map(|response| {
                format!("{}: {}", response.action.as_str(), response.outcome.sentence(response.certainty))
            }),
            already_running: alert.already_running(),
            keys: Vec::new(),
            exceptions: Vec::new(),
        }
    }
}

impl KeptProgram {
    /// What is kept of a light record.
    pub fn new(process: u32, light: &Light) -> Self {
        KeptProgram {
            process,
            time_ns: crate::clock::wall_from_monotonic(light.time_ns),
            at_ns: light.time_ns,
            exe: light.image.exe.as_deref().map(path),
            args: arguments(light.image.arguments.as_deref()),
        }
    }
}

impl KeptFollowUp {
    /// What is kept of a record.
    pub fn new(record: &FollowUp) -> Self {
        let sockets = &record.known.sockets;
        let is_listening = |port: u16| {
            let here = |socket: &crate::followup::sockets::Socket| {
                socket.state == Some(LISTEN) && socket.local.is_some_and(|at| at.port() == port)
            };
            sockets.iter().any(|seen| here(&seen.socket))
        };
        let peer = |socket: &crate::followup::sockets::Socket| {
            let remote = socket.remote?;
            let known = matches!(socket.protocol, Protocol::Tcp | Protocol::Udp);
            known.then(|| KeptPeer {
                address: remote.to_string(),
                transport: socket.protocol.as_str().to_owned(),
                local: socket.local.map(|local| local.to_string()),
                inbound: socket.local.is_some_and(|local| is_listening(local.port())),
                sent: socket.sent,
                received: socket.received,
            })
        };
        let listening = sockets.iter().filter(|seen| seen.socket.state == Some(LISTEN));
        KeptFollowUp {
            alert: record.alerted.id.clone(),
            time_ns: record.time_ns,
            text: sentence::of(record),
            peers: sockets.iter().filter_map(|seen| peer(&seen.socket)).collect(),
            listening: listening.filter_map(|seen| Some(seen.socket.local?.to_string())).collect(),
            files: record.known.files.iter().map(|file| path(file)).collect(),
            more: (record.known.more_sockets + record.known.more_files) as u64,
        }
    }
}

impl KeptFolded {
    /// What is kept of a record.
    pub fn new(record: &Folded) -> Self {
        KeptFolded {
            alert: record.alert_id.clone(),
            time_ns: record.last_ns,
            text: record.sentence(),
            severity: record.rule.severity,
        }
    }
}

/// A path as text.
pub fn path(bytes: &[u8]) -> String {
    for_json(&bytes[..bytes.len().min(PATH)])
}

/// An argument list as texts.
pub fn arguments(cmdline: Option<&[u8]>) -> Vec<String> {
    let cmdline = cmdline.unwrap_or_default();
    let cut = &cmdline[..cmdline.len().min(ARGUMENTS)];
    let cut = cut.strip_suffix(&[0]).unwrap_or(cut);
    if cut.is_empty() {
        return Vec::new();
    }
    cut.split(|&byte| byte == 0).take(MOST_ARGUMENTS).map(for_json).collect()
}

/// A command line in a text.
fn command(image: &Image) -> String {
    match image.raw_arguments().filter(|raw| !raw.is_empty()) {
        Some(raw) => path(&crate::rules::subject::join(raw)),
        None => image.exe().map_or("?".to_owned(), path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn argument_lists_are_cut() {
        assert_eq!(arguments(None), [""; 0]);
        assert_eq!(arguments(Some(b"")), [""; 0]);
        assert_eq!(arguments(Some(b"nc\0\0x\0")), ["nc", "", "x"]);
        assert_eq!(arguments(Some(&b"a\0".repeat(200))).len(), MOST_ARGUMENTS);
        let long = [b"x".repeat(5000), vec![0]].concat();
        assert_eq!(arguments(Some(&long))[0].len(), ARGUMENTS);
    }

    #[test]
    fn what_is_kept_reads_back() {
        let item = Item::Alert(Box::new(KeptAlert { id: "a".into(), ..KeptAlert::default() }));
        let text = serde_json::to_string(&item).unwrap();
        assert!(text.starts_with(r#"{"kind":"alert","#), "{text}");
        assert_eq!(serde_json::from_str::<Item>(&text).unwrap(), item);
    }
}
