//! Records to syslog servers on the network: UDP (RFC 5426), TCP (RFC 6587), TLS (RFC 5425).
//!
//! Of several servers the first that works is used; the better ones are tried again from time to time. What a connection
//! may have lost is written again on the next one: see [`backlog`].

pub mod backlog;
pub mod framing;
pub mod link;
pub mod pause;
pub mod tcp;
pub mod tls;

use std::io;
use std::time::{Duration, Instant};

use super::Destination;
use super::entry::{Entry, Form};
use super::message::{Messages, Place};
use crate::config::{Remote, Server, Transport};
use backlog::{Backlog, End};
use link::{Link, turn};
use pause::Pause;

/// How often a quiet connection is looked at while its end would cost something that was written.
const LOOK: Duration = Duration::from_secs(5);

/// Syslog servers.
#[derive(Debug)]
pub struct RemoteOutput {
    settings: Remote,
    messages: Messages,
    /// A pause for each server, in their order.
    pauses: Vec<Pause>,
    /// Why each server was not used the last time.
    failures: Vec<String>,
    /// The server in use, by its place, and the way to it.
    link: Option<(usize, Link)>,
    /// The server that was said to be in use.
    said: Option<usize>,
    backlog: Backlog,
    /// When the better servers were tried.
    tried: Instant,
    /// Datagrams that had to be cut since that was asked last.
    cut: u64,
}

impl RemoteOutput {
    /// Writes to the configured servers as the host of this name; they are called at the first record.
    pub fn new(settings: Remote, host: &str) -> Self {
        let messages = Messages::new(settings.header.clone(), settings.format, Place::Network, host);
        RemoteOutput {
            messages,
            pauses: settings.servers.iter().map(|_| Pause::default()).collect(),
            failures: settings.servers.iter().map(|_| String::new()).collect(),
            link: None,
            said: None,
            backlog: Backlog::default(),
            tried: Instant::now(),
            cut: 0,
            settings,
        }
    }

    /// Opens a way to the first of the servers that works and is not left alone.
    fn open(&mut self) -> io::Result<(usize, Link)> {
        for at in 0..self.settings.servers.len() {
            if self.pauses[at].is_over(Instant::now()) {
                let deadline = Instant::now() + self.settings.connect_timeout;
                if let Some(link) = self.try_open(at, deadline, Link::open) {
                    return Ok((at, link));
                }
            }
        }
        let failures: Vec<&str> =
            self.failures.iter().map(String::as_str).filter(|failure| !failure.is_empty()).collect();
        Err(io::Error::new(io::ErrorKind::NotConnected, failures.join("; ")))
    }

    /// Opens a way to the first of the servers before `end` that works, also if it would be left alone. As records wait
    /// meanwhile that could be sent, all attempts together have the time of one.
    fn open_better<L>(
        &mut self,
        end: usize,
        open: impl Fn(&Remote, &Server, Instant) -> io::Result<L>,
    ) -> Option<(usize, L)> {
        let deadline = Instant::now() + self.settings.connect_timeout;
        (0..end).find_map(|at| {
            let turn = turn(Instant::now(), deadline, end - at);
            self.try_open(at, turn, &open).map(|link| (at, link))
        })
    }

    fn try_open<L>(
        &mut self,
        at: usize,
        deadline: Instant,
        open: impl Fn(&Remote, &Server, Instant) -> io::Result<L>,
    ) -> Option<L> {
        let server = self.settings.servers.get(at)?;
        let opened = open(&self.settings, server, deadline);
        opened
            .map_err(|error| {
                self.pauses[at].failed(Instant::now());
                self.failures[at] = format!("{server}: {error}");
            })
            .ok()
    }

    fn server(&self, at: usize) -> String {
        self.settings.servers.get(at).map(Server::to_string).unwrap_or_default()
    }

    /// The transport of the server in use.
    fn transport(&self) -> Transport {
        let used = self.link.as_ref().and_then(|(at, _)| self.settings.servers.get(*at));
        used.map_or(Transport::Tcp, |server| server.transport)
    }

    /// Takes another way into use.
    fn take(&mut self, at: usize, link: Link) {
        self.tried = Instant::now();
        self.failures[at].clear();
        // A connection that is made anew is nothing to be told.
        if self.said.replace(at) != Some(at) && self.settings.servers.len() > 1 {
            log::info!("output {} writes to {}", self.name(), self.server(at));
        }
        self.link = Some((at, link));
    }

    /// Gives the present way up, because of an error; what it may have lost will be written again.
    fn lose(&mut self, error: io::Error) -> io::Error {
        let Some((at, link)) = self.link.take() else { return error };
        let end = link.end(&error);
        self.backlog.ended(end);
        // A server may close what is not needed.
        if end == End::Broken || self.backlog.unsure() > 0 {
            self.pauses[at].failed(Instant::now());
        }
        self.failures[at] = format!("{}: {error}", self.server(at));
        io::Error::new(error.kind(), self.failures[at].clone())
    }

    /// Closes the present way in order, if everything is acknowledged in time.
    fn leave(&mut self) {
        let patience = self.settings.write_timeout;
        let settled = self.with_link(|link, backlog| {
            link.settle(patience)?;
            acknowledge(link, backlog)
        });
        if let Some((_, link)) = self.link.take().filter(|_| settled.is_ok()) {
            link.close();
            self.backlog.ended(End::Closed);
        }
    }

    /// Does something with the present way; gives it up if that fails.
    fn with_link<T>(&mut self, act: impl FnOnce(&mut Link, &mut Backlog) -> io::Result<T>) -> io::Result<T> {
        let Some((_, link)) = &mut self.link else {
            return Err(not_connected());
        };
        act(link, &mut self.backlog).map_err(|error| self.lose(error))
    }

    /// Makes sure that there is a way on which everything before was written.
    fn ready(&mut self) -> io::Result<()> {
        let patience = self.settings.write_timeout;
        if self.link.is_some() {
            // An end is no failure yet: there may be another way.
            let _ = self.with_link(|link, _| link.check(patience));
        }
        match &self.link {
            None => {
                let (at, link) = self.open()?;
                self.take(at, link);
            }
            Some((at, _)) if *at > 0 && self.tried.elapsed() >= self.settings.return_after => {
                let at = *at;
                self.tried = Instant::now();
                if let Some((better, link)) = self.open_better(at, Link::open) {
                    // What the other one does not acknowledge now is written to both.
                    self.leave();
                    self.take(better, link);
                }
            }
            Some(_) => {}
        }
        let framing = self.settings.framing;
        let transport = self.transport();
        let mut cut = 0;
        let written = self.with_link(|link, backlog| {
            while let Some(message) = backlog.next() {
                cut += u64::from(link.write(&framing::frame(message, transport, framing), patience)?);
                backlog.next_written(link.position());
            }
            acknowledge(link, backlog)?;
            if backlog.is_full() {
                link.settle(patience)?;
                acknowledge(link, backlog)?;
            }
            Ok(())
        });
        self.cut += cut;
        written
    }

    fn try_write(&mut self, entry: &Entry) -> io::Result<()> {
        self.ready()?;
        let transport = self.transport();
        let message = self.messages.write(entry);
        let frame = framing::frame(&message, transport, self.settings.framing);
        let patience = self.settings.write_timeout;
        let cut = self.with_link(|link, backlog| {
            let cut = link.write(&frame, patience)?;
            backlog.push(message, link.position(), Instant::now());
            Ok(cut)
        })?;
        self.cut += u64::from(cut);
        self.messages.sent();
        Ok(())
    }
}

fn acknowledge(link: &mut Link, backlog: &mut Backlog) -> io::Result<()> {
    let end = link.acknowledged()?;
    backlog.acknowledge(end, link.keeps(), Instant::now());
    Ok(())
}

fn not_connected() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "there is no connection")
}

impl Destination for RemoteOutput {
    fn name(&self) -> String {
        format!("remote {}", self.settings.name)
    }

    fn form(&self) -> Form {
        self.messages.form()
    }

    fn write(&mut self, entry: &Entry) -> io::Result<()> {
        let connected = self.link.is_some();
        match self.try_write(entry) {
            // The connection may have ended since the last record: then another may work at once.
            Err(_) if connected => self.try_write(entry),
            result => result,
        }
    }

    /// Waits until everything is acknowledged.
    fn flush(&mut self) -> io::Result<()> {
        if self.link.is_some() {
            let patience = self.settings.write_timeout;
            let _ = self.with_link(|link, _| link.check(patience));
        }
        if self.link.is_none() && self.backlog.is_empty() {
            return Ok(());
        }
        self.ready()?;
        let patience = self.settings.write_timeout;
        self.with_link(|link, backlog| {
            link.settle(patience)?;
            acknowledge(link, backlog)
        })?;
        if let Some((at, _)) = &self.link {
            self.pauses[*at].worked();
        }
        Ok(())
    }

    fn take_cut(&mut self) -> u64 {
        std::mem::take(&mut self.cut)
    }

    fn held(&self) -> u64 {
        self.backlog.unsure()
    }

    fn next_look(&self) -> Option<Duration> {
        (!self.backlog.is_empty()).then_some(LOOK)
    }

    /// Connects anew at the next record, so that new certificates and another order of the servers count.
    fn reopen(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    fn output(servers: &[&str]) -> RemoteOutput {
        let servers = servers.iter().map(|url| Server::parse(url).unwrap()).collect();
        RemoteOutput::new(Remote::new("test".to_owned(), servers), "web1")
    }

    /// However many of the better servers take all the time they may.
    #[test]
    fn all_better_servers_together_have_the_time_of_one() {
        const MINUTE: Duration = Duration::from_secs(60);
        let mut output = output(&["tcp://a:1", "tcp://b:1", "tcp://c:1", "tcp://d:1"]);
        output.settings.connect_timeout = MINUTE * 60;
        let turns = RefCell::new(Vec::new());
        let found = output.open_better(3, |_, server, until| {
            turns.borrow_mut().push((server.host.clone(), until));
            Err::<(), _>(io::ErrorKind::TimedOut.into())
        });
        assert_eq!(found, None);
        assert!(output.failures[2].starts_with("tcp://c:1: ") && output.failures[3].is_empty());
        let turns = turns.into_inner();
        let hosts: Vec<&str> = turns.iter().map(|(host, _)| host.as_str()).collect();
        assert_eq!(hosts, ["a", "b", "c"]);
        // A third of the hour, a half of what is left, and the rest: so here, where none of it was used.
        assert!(turns[1].1 - turns[0].1 > 5 * MINUTE && turns[2].1 - turns[1].1 > 20 * MINUTE, "{turns:?}");
    }

    #[test]
    fn turns_end_by_the_deadline() {
        let (begun, seconds) = (Instant::now(), Duration::from_secs);
        let deadline = begun + seconds(9);
        let first = turn(begun, deadline, 3);
        let second = turn(first, deadline, 2);
        let third = turn(second, deadline, 1);
        assert_eq!([first, second, third].map(|until| until - begun), [3, 6, 9].map(seconds));
        // Who comes too late has no time left, and no more than none.
        let late = deadline + seconds(1);
        assert_eq!(turn(late, deadline, 1), late);
    }

    #[test]
    fn a_server_is_named_when_it_is_another() {
        let mut output = output(&["tcp://a:1", "tcp://b:1"]);
        let link = || {
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            Link::Udp { socket, sent: 0, sure: 0 }
        };
        let mut named = |at| {
            let before = output.said;
            output.take(at, link());
            output.said != before
        };
        assert_eq!([0, 0, 1, 1, 0].map(&mut named), [true, false, true, false, true]);
    }
}
