//! The record: what a program did after its alert.

use std::net::SocketAddr;

use nix::sys::signal::Signal;

use super::known::{Child, Known, Seen};
use super::sentence;
use super::sockets::{LISTEN, Protocol, Socket};
use crate::alert::{Alert, Matched};
use crate::process::exec::Image;
use crate::rules::subject::join;

/// Bytes kept of an argument list, of the program's and of each child's.
const ARGUMENTS: usize = 512;

/// The alert that is followed.
#[derive(Debug, Clone)]
pub struct Alerted {
    /// The alert's id.
    pub id: String,
    /// The most severe rule that matched.
    pub rule: Matched,
    /// Process id.
    pub pid: u32,
    /// Start of the process in ticks since boot.
    pub start_ticks: Option<u64>,
    /// When the program was executed, or found running, on CLOCK_MONOTONIC in nanoseconds.
    pub executed_ns: u64,
    /// The program already ran when execwatch started.
    pub already_running: bool,
    /// Executable and arguments.
    pub image: Image,
}

impl Alerted {
    /// What is needed of an alert.
    pub fn new(alert: &Alert) -> Self {
        let mut image = alert.exec.image.clone();
        image.cut_arguments(ARGUMENTS);
        Alerted {
            id: alert.id.clone(),
            rule: alert.rule.clone(),
            pid: alert.exec.pid,
            start_ticks: alert.exec.details.start_ticks,
            executed_ns: alert.exec.timestamp_ns,
            already_running: alert.already_running(),
            image,
        }
    }
}

/// Why there is a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// It runs, and there is something new to say.
    Running,
    /// It has ended, with this wait status (wait(2)).
    Ended(u32),
    /// It has ended, and nobody saw how: the event was lost.
    EndUnseen,
    /// It runs on, but others need its place.
    LetGo,
}

impl Occasion {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Occasion::Running => "running",
            Occasion::Ended(_) => "ended",
            Occasion::EndUnseen => "end-unseen",
            Occasion::LetGo => "let-go",
        }
    }

    /// The exit code, if it exited.
    pub fn exit_code(self) -> Option<u32> {
        match self {
            Occasion::Ended(status) if status & 0x7f == 0 => Some(status >> 8 & 0xff),
            _ => None,
        }
    }

    /// The signal that killed it.
    pub fn signal(self) -> Option<String> {
        match self {
            Occasion::Ended(status) if status & 0x7f != 0 => {
                let number = status & 0x7f;
                let known = i32::try_from(number).ok().and_then(|number| Signal::try_from(number).ok());
                Some(known.map_or_else(|| number.to_string(), |signal| signal.as_str().to_owned()))
            }
            _ => None,
        }
    }
}

/// A connection as who made it sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// `tcp` or `udp`.
    pub transport: &'static str,
    /// The program was called; else it is the caller.
    pub inbound: bool,
    /// Where the caller is.
    pub source: SocketAddr,
    /// Where the called is.
    pub destination: SocketAddr,
    /// Bytes that went to the destination.
    pub bytes_out: Option<u64>,
    /// Bytes that came from it.
    pub bytes_in: Option<u64>,
}

/// What a program did after its alert.
#[derive(Debug, Clone)]
pub struct FollowUp {
    /// The alert.
    pub alerted: Alerted,
    /// The number of this record among those of the alert, from 1.
    pub number: u32,
    /// When: nanoseconds since 1970.
    pub time_ns: u64,
    /// Nanoseconds since the exec; for a program that already ran, since it was found; for an end that was not seen, when
    /// it was seen last.
    pub age_ns: u64,
    /// Why.
    pub occasion: Occasion,
    /// All that is known.
    pub known: Known,
}

impl FollowUp {
    /// The record's own id.
    pub fn id(&self) -> String {
        format!("{}-{}", self.alerted.id, self.number)
    }

    /// The connection over which most went, for forms that have room for one.
    pub fn connection(&self) -> Option<Connection> {
        let sockets = &self.known.sockets;
        let peers = sockets.iter().filter(|seen| seen.socket.remote.is_some());
        let socket = &peers.max_by_key(|seen| (seen.socket.sent, seen.socket.received))?.socket;
        let (local, remote) = (socket.local?, socket.remote?);
        let transport = match socket.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            _ => return None,
        };
        let inbound = sockets.iter().any(|seen| {
            seen.socket.state == Some(LISTEN) && seen.socket.local.is_some_and(|at| at.port() == local.port())
        });
        Some(match inbound {
            true => Connection {
                transport,
                inbound,
                source: remote,
                destination: local,
                bytes_out: socket.received,
                bytes_in: socket.sent,
            },
            false => Connection {
                transport,
                inbound,
                source: local,
                destination: remote,
                bytes_out: socket.sent,
                bytes_in: socket.received,
            },
        })
    }

    /// It says less, so that a shorter form can be written; false if nothing is left to be left out.
    pub fn shorten(&mut self) -> bool {
        let known = &mut self.known;
        let halve = |length: usize| length / 2;
        let before = known.sockets.len() + known.files.len() + known.children.len();
        if before > 0 {
            let kept = halve(known.sockets.len());
            known.more_sockets += known.sockets.len() - kept;
            known.sockets.truncate(kept);
            let kept = halve(known.files.len());
            known.more_files += known.files.len() - kept;
            known.files.truncate(kept);
            let kept = halve(known.children.len());
            known.more_children += known.children.len() - kept;
            known.children.truncate(kept);
            return true;
        }
        let arguments = self.alerted.image.raw_arguments().map_or(0, <[u8]>::len);
        self.alerted.image.cut_arguments(halve(arguments));
        arguments > 0
    }

    /// Keys and values of the text form, those that tell most first.
    pub fn pairs(&self) -> Vec<(&'static str, Vec<u8>)> {
        let (alerted, known) = (&self.alerted, &self.known);
        let mut pairs: Vec<(&'static str, Vec<u8>)> = Vec::new();
        let mut add = |key, value: &dyn AsRef<[u8]>| pairs.push((key, value.as_ref().to_vec()));
        add("severity", &alerted.rule.severity.as_str());
        add("followup", &self.occasion.as_str());
        add("rule", &alerted.rule.id);
        add("message", &sentence::of(self));
        add("pid", &alerted.pid.to_string());
        if let Some(exe) = alerted.image.exe() {
            add("exe", &exe);
        }
        if let Some(arguments) = alerted.image.raw_arguments() {
            add("cmdline", &join(arguments));
        }
        add("run-time", &sentence::seconds(self.age_ns));
        if let Some(code) = self.occasion.exit_code() {
            add("exit", &code.to_string());
        }
        if let Some(signal) = self.occasion.signal() {
            add("signal", &signal);
        }
        if !known.sockets.is_empty() {
            add("sockets", &list(&known.sockets, known.more_sockets, socket));
        }
        if let Some(source) = known.source {
            add("sockets-by", &source.as_str());
        }
        if known.count_children() > 0 {
            add("children", &list(&known.children, known.more_children, command));
        }
        if !known.files.is_empty() {
            add("files-written", &list(&known.files, known.more_files, |file| file.to_vec()));
        }
        if known.cut {
            add("descriptors-cut", b"yes");
        }
        if let Some(io) = known.io {
            add("read", &io.read.to_string());
            add("written", &io.written.to_string());
            add("disk-read", &io.disk_read.to_string());
            add("disk-written", &io.disk_written.to_string());
        }
        if let Some(cpu_ns) = known.cpu_ns {
            add("cpu", &sentence::seconds(cpu_ns));
        }
        if self.occasion != Occasion::Running {
            add("last-look", &known.looked_ns.map_or("never".to_owned(), sentence::seconds));
        }
        add("time", &crate::calendar::rfc3339(self.time_ns));
        add("alert", &alerted.id);
        add("id", &self.id());
        pairs
    }
}

/// The items with commas between them, and how many there are besides.
fn list<T>(items: &[T], more: usize, text: impl Fn(&T) -> Vec<u8>) -> Vec<u8> {
    let mut all: Vec<Vec<u8>> = items.iter().map(text).collect();
    if more > 0 {
        all.push(format!("{more} more").into_bytes());
    }
    all.join(&b", "[..])
}

/// A child's command line, as far as it is known.
fn command(child: &Child) -> Vec<u8> {
    let mut bytes = match child.image.raw_arguments().filter(|raw| !raw.is_empty()) {
        Some(raw) => join(raw),
        None => child.image.exe().unwrap_or(b"?").to_vec(),
    };
    bytes.truncate(ARGUMENTS);
    bytes.extend(format!("[{}]", child.pid).bytes());
    bytes
}

/// A socket in few words: `tcp 10.0.0.1:40000 to 203.0.113.5:4444 established sent 3000000 received 120`.
fn socket(seen: &Seen) -> Vec<u8> {
    let Socket { protocol, local, remote, state, sent, received, path, .. } = &seen.socket;
    let mut words = protocol.as_str().as_bytes().to_vec();
    let mut add = |word: &[u8]| {
        words.push(b' ');
        words.extend_from_slice(word);
    };
    if let Some(local) = local {
        add(local.to_string().as_bytes());
    }
    if let Some(remote) = remote {
        add(format!("to {remote}").as_bytes());
    }
    if let Some(path) = path {
        add(path);
    }
    match state {
        _ if !seen.open => add(b"closed"),
        Some(state) => add(state.as_bytes()),
        None => {}
    }
    for (word, count) in [("sent", sent), ("received", received)] {
        if let Some(count) = count.filter(|_| remote.is_some()) {
            add(format!("{word} {count}").as_bytes());
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends() {
        assert_eq!((Occasion::Ended(3 << 8).exit_code(), Occasion::Ended(3 << 8).signal()), (Some(3), None));
        assert_eq!(
            (Occasion::Ended(0x89).exit_code(), Occasion::Ended(0x89).signal()),
            (None, Some("SIGKILL".into()))
        );
        assert_eq!(Occasion::Ended(40).signal(), Some("40".into()));
        assert_eq!((Occasion::EndUnseen.exit_code(), Occasion::EndUnseen.signal()), (None, None));
    }
}
