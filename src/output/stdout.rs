//! Records to standard output.

use std::io::{self, Write};

use super::Destination;
use super::entry::{Entry, Form};

/// Standard output.
#[derive(Debug)]
pub struct StdoutOutput {
    form: Form,
}

impl StdoutOutput {
    /// Writes in `format`, or for people, with colours if `colour`.
    pub fn new(form: Form) -> Self {
        StdoutOutput { form }
    }
}

impl Destination for StdoutOutput {
    fn name(&self) -> String {
        "standard output".to_owned()
    }

    fn form(&self) -> Form {
        self.form
    }

    fn write(&mut self, entry: &Entry) -> io::Result<()> {
        writeln!(io::stdout().lock(), "{}", entry.form(self.form))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().lock().flush()
    }

    fn goes_on_after_restart(&self) -> bool {
        // What the last reader missed is not for the next.
        false
    }

    fn is_final(&self, error: &io::Error) -> bool {
        // The reader has gone, and no other can come.
        error.kind() == io::ErrorKind::BrokenPipe
    }
}
