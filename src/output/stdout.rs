//! Records to standard output.

use std::io::{self, Write};

use super::Destination;
use crate::alert::{Host, Record, people};
use crate::config::Format;

/// Standard output.
#[derive(Debug)]
pub struct StdoutOutput {
    /// `None` is the form for people.
    format: Option<Format>,
    colour: bool,
    host: Host,
}

impl StdoutOutput {
    /// Writes in `format`, or for people, with colours if `colour`.
    pub fn new(format: Option<Format>, colour: bool, host: Host) -> Self {
        StdoutOutput { format, colour, host }
    }
}

impl Destination for StdoutOutput {
    fn name(&self) -> String {
        "standard output".to_owned()
    }

    fn write(&mut self, record: &Record) -> io::Result<()> {
        let text = match self.format {
            Some(format) => super::format(record, format, &self.host) + "\n",
            None => people::lines(record, self.colour),
        };
        io::stdout().lock().write_all(text.as_bytes())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().lock().flush()
    }

    fn is_final(&self, error: &io::Error) -> bool {
        // The reader has gone, and no other can come.
        error.kind() == io::ErrorKind::BrokenPipe
    }
}
