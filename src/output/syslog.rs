//! Records to the local syslog socket.
//!
//! In RFC 3164 without time and host, `<PRI>tag[pid]: text`, all of rsyslog, syslog-ng, journald and busybox's syslogd read
//! a message right on a local socket as they are set up by default; they take RFC 5424 for text there.

use std::io;

use super::Destination;
use super::entry::{Entry, Form};
use super::local::{Local, Manner};
use super::message::{Messages, Place};
use crate::config::Syslog;

/// The local syslog server.
#[derive(Debug)]
pub struct SyslogOutput {
    settings: Syslog,
    messages: Messages,
    server: Local,
}

impl SyslogOutput {
    /// Writes to the configured socket as the host of this name; it is connected at the first record.
    pub fn new(settings: Syslog, host: &str) -> Self {
        let messages = Messages::new(settings.header.clone(), settings.format, Place::Local, host);
        SyslogOutput { server: Local::new(settings.socket.clone(), Manner::Syslog), messages, settings }
    }
}

impl Destination for SyslogOutput {
    fn name(&self) -> String {
        format!("syslog {}", self.settings.socket.display())
    }

    fn form(&self) -> Form {
        self.messages.form()
    }

    fn write(&mut self, entry: &Entry) -> io::Result<()> {
        let message = self.messages.write(entry);
        self.server.send(message.as_bytes())?;
        self.messages.sent();
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.server.settle()
    }

    fn take_cut(&mut self) -> u64 {
        self.server.take_cut()
    }

    fn held(&self) -> u64 {
        self.server.unsure()
    }
}
