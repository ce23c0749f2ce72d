//! Records of the past as events: what `execwatch replay` reads.
//!
//! In: lines. Out: an [`Event`] for each exec. Three kinds of lines are known, each by itself, so that a file may mix
//! them: events as `run --record` writes them, the daemon's alerts as JSON (`alert`), and the records of the kernel's
//! audit (`audit`), of which several make an exec. No I/O.

pub mod alert;
pub mod audit;
pub mod lines;

use crate::document;
use crate::event::Event;

/// Longest line that is read: an event with the longest argument list that can be configured, each byte of it escaped.
pub const LONGEST_LINE: usize = 16 << 20;

/// Makes events of lines.
#[derive(Debug, Default)]
pub struct Reader {
    audit: audit::Joiner,
}

/// What a line was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It is, or belongs to, an event.
    Event,
    /// A record of something else than an exec, or nothing at all.
    Other,
}

impl Reader {
    /// Takes a line, without its newline; `found` is called with each event that is complete by now. An error says why
    /// the line cannot be read.
    pub fn take(&mut self, line: &[u8], mut found: impl FnMut(Event)) -> Result<Kind, String> {
        let line = line.trim_ascii();
        if line.starts_with(b"{") {
            return of_json(line).map(|event| match event {
                Some(event) => {
                    found(event);
                    Kind::Event
                }
                None => Kind::Other,
            });
        }
        if line.starts_with(b"type=") || line.starts_with(b"node=") {
            return self.audit.take(line, &mut found);
        }
        // What ausearch(8) writes between two events, and when there is none.
        if line.starts_with(b"----") {
            self.audit.end(&mut found);
        } else if line.starts_with(b"severity=") {
            return Err("an alert in the form of text, which does not hold everything; alerts can be replayed if they \
                        were written as JSON"
                .to_owned());
        } else if !line.is_empty() && !line.starts_with(b"time->") && line != b"<no matches>" {
            return Err("neither JSON nor an audit record".to_owned());
        }
        Ok(Kind::Other)
    }

    /// There are no more lines: events of which a record may be missing are complete.
    pub fn end(&mut self, mut found: impl FnMut(Event)) {
        self.audit.end(&mut found);
    }
}

/// The event in a line of JSON; `None` if it is a record of ours that is no exec.
fn of_json(line: &[u8]) -> Result<Option<Event>, String> {
    let own = match serde_json::from_slice::<Event>(line) {
        Ok(event) => return Ok(Some(event)),
        Err(error) => error,
    };
    match alert::of_json(line) {
        Some(result) => result,
        None => Err(in_line(&own)),
    }
}

/// What is wrong with a line of JSON, and in which column: the number of the line is known where the file is.
fn in_line(error: &serde_json::Error) -> String {
    let column = error.column();
    let message = error.to_string();
    let place = format!(" at line {} column {column}", error.line());
    let message = message.strip_suffix(&place).unwrap_or(&message);
    format!("{} (column {column})", document::in_short(message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(lines: &[&str]) -> (Vec<Event>, Vec<Result<Kind, String>>) {
        let (mut reader, mut events) = (Reader::default(), Vec::new());
        let kinds =
            lines.iter().map(|line| reader.take(line.as_bytes(), |event| events.push(event))).collect();
        reader.end(|event| events.push(event));
        (events, kinds)
    }

    #[test]
    fn each_line_is_known_by_itself() {
        let (events, kinds) = read(&[
            r#"{"exe":"/bin/nc"}"#,
            "",
            "----",
            "time->Wed Nov 25 07:27:29 2026",
            "type=SYSCALL msg=audit(1.002:3): arch=c000003e syscall=59 success=yes pid=7 exe=\"/bin/a\"",
            r#"{"@timestamp":"2026-11-25T07:27:29Z","event":{"kind":"event","dataset":"execwatch.notice"},"execwatch":{}}"#,
            r#"{"@timestamp":"2026-11-25T07:27:29Z","event":{"kind":"event","dataset":"execwatch.followup"},"process":{"pid":7},"execwatch":{}}"#,
            "type=EXECVE msg=audit(1.002:3): argc=1 a0=\"a\"",
        ]);
        assert_eq!(events.len(), 2);
        assert_eq!(events[1].pid, Some(7));
        use Kind::{Event, Other};
        let expected = [Event, Other, Other, Other, Event, Other, Other, Event].map(Ok);
        assert_eq!(kinds, expected);
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        for (line, reason) in [
            (r#"{"exec":"/bin/nc"}"#, "unknown key `exec`; did you mean `exe`?"),
            (r#"{"exe":"/bin/nc""#, "EOF while parsing"),
            (r#"{"pid":-1}"#, "invalid value: integer `-1`"),
            (r#"{"@timestamp":"x","event":{}}"#, "JSON of another program"),
            ("severity=high rule=x", "form of text"),
            ("Nov 25 07:27:29 host sshd[1]: x", "neither JSON nor an audit record"),
            ("type=EXECVE msg=audit(11/25/2026 07:27:29.123:456) : argc=1 a0=ls", "ausearch --raw"),
        ] {
            let (events, kinds) = read(&[line]);
            assert!(events.is_empty(), "{line}");
            let error = kinds[0].as_ref().unwrap_err();
            assert!(error.contains(reason), "{line}: {error}");
            assert!(error.len() < 200, "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_lines_end_without_panic(lines in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..80), 0..10)) {
            let mut reader = Reader::default();
            for line in &lines {
                let _ = reader.take(line, drop);
            }
            reader.end(drop);
        }
    }
}
