//! Records to journald in its native protocol: a datagram of fields to its socket (systemd.journal-fields(7), and
//! systemd's page «Native Journal Protocol»).
//!
//! What is too long for a datagram is handed over as the descriptor of a sealed file in memory.

use std::io;

use super::Destination;
use super::entry::{Entry, Form, Kind};
use super::local::{Local, Manner};
use crate::alert::escape::{json_line, of_json};
use crate::alert::{Record, RecordId, text};
use crate::config::Journald;

/// By these journalctl finds all records of a kind (MESSAGE_ID): 128 random bits each, which never change.
const ALERT_ID: &str = "6f0b3c9a1d8e4f7292c5a0e1b7d46a38";
const FOLLOW_UP_ID: &str = "d2a97e5048c14b36a1f36c0d9e8b5274";
const FOLDED_ID: &str = "5b1d70e9f2c64a83b7e80a4c6d93f152";
const NOTICE_ID: &str = "83e41fb56a07492dbc9048d7f12e6ca5";

/// Keys and values in a form that can be kept as text, in which [`Form::Fields`] writes a record: JSON, with values as
/// [`for_json`](crate::alert::escape::for_json) writes bytes. The values are the text form's, but whole; the names are its
/// keys in capitals behind `EXECWATCH_`.
pub fn fields(record: &Record, id: Option<RecordId>, message: &str) -> String {
    let facts = text::facts(record, id);
    let named = facts.iter().map(|(key, value)| {
        let name = format!("EXECWATCH_{}", key.replace('-', "_").to_ascii_uppercase());
        (name, crate::alert::escape::for_json(value))
    });
    let all: Vec<(String, String)> =
        [("MESSAGE".to_owned(), message.to_owned())].into_iter().chain(named).collect();
    json_line(&all)
}

/// The bytes of [`fields`] as the protocol wants them; nothing if they cannot be read.
fn encoded(fields: &str) -> Vec<u8> {
    let pairs: Vec<(String, String)> = serde_json::from_slice(fields.as_bytes()).unwrap_or_default();
    let mut bytes = Vec::with_capacity(fields.len() + 256);
    for (name, value) in pairs {
        // MESSAGE is one of our lines: what looks like an escape in it stays one.
        let value = if name == "MESSAGE" { value.into_bytes() } else { of_json(&value) };
        push(&mut bytes, &name, &value);
    }
    bytes
}

/// Adds a field: as `NAME=value` and a newline, or, where the value holds a newline, as the name, a newline, the value's
/// length in 64 bits, little endian, the value, and a newline.
fn push(bytes: &mut Vec<u8>, name: &str, value: &[u8]) {
    bytes.extend_from_slice(name.as_bytes());
    if value.contains(&b'\n') {
        bytes.push(b'\n');
        bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        bytes.push(b'=');
    }
    bytes.extend_from_slice(value);
    bytes.push(b'\n');
}

/// journald.
#[derive(Debug)]
pub struct JournaldOutput {
    settings: Journald,
    server: Local,
}

impl JournaldOutput {
    /// Writes to the configured socket; it is connected at the first record.
    pub fn new(settings: Journald) -> Self {
        JournaldOutput { server: Local::new(settings.socket.clone(), Manner::Journald), settings }
    }

    fn datagram(&self, entry: &Entry) -> Vec<u8> {
        let mut bytes = match entry.written_in(self.form()) {
            Some(fields) => encoded(fields),
            None => Vec::new(),
        };
        if bytes.is_empty() {
            // Written before the configuration was changed.
            let message = entry.form(Form::in_syslog(self.settings.format));
            push(&mut bytes, "MESSAGE", message.as_bytes());
        }
        let priorities = &self.settings.priorities;
        let id = match entry.kind {
            Kind::Alert => ALERT_ID,
            Kind::FollowUp => FOLLOW_UP_ID,
            Kind::Folded => FOLDED_ID,
            Kind::Notice => NOTICE_ID,
        };
        for (name, value) in [
            ("PRIORITY", priorities.severity(entry.severity).to_string().as_str()),
            ("SYSLOG_FACILITY", priorities.facility.to_string().as_str()),
            ("SYSLOG_IDENTIFIER", self.settings.tag.as_str()),
            ("SYSLOG_PID", std::process::id().to_string().as_str()),
            ("MESSAGE_ID", id),
            ("EXECWATCH_KIND", entry.kind.as_str()),
        ] {
            push(&mut bytes, name, value.as_bytes());
        }
        bytes
    }
}

impl Destination for JournaldOutput {
    fn name(&self) -> String {
        format!("journald {}", self.settings.socket.display())
    }

    fn form(&self) -> Form {
        Form::Fields(self.settings.format)
    }

    fn write(&mut self, entry: &Entry) -> io::Result<()> {
        let datagram = self.datagram(entry);
        self.server.send(&datagram)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.server.settle()
    }

    fn held(&self) -> u64 {
        self.server.unsure()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::{Host, Notice};
    use crate::rules::model::Severity;
    use nix::fcntl::{FcntlArg, SealFlag, fcntl};
    use proptest::prelude::*;
    use std::fs::File;
    use std::io::IoSliceMut;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::FileExt;
    use std::os::unix::net::UnixDatagram;

    use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

    const ID: RecordId = RecordId { run: 1, number: 2 };

    /// Reads fields strictly as the protocol's page says.
    fn decoded(mut bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let end = bytes.iter().position(|byte| matches!(byte, b'=' | b'\n')).expect("the end of a name");
            let name = String::from_utf8(bytes[..end].to_vec()).expect("a name of letters");
            assert!(
                name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
            );
            assert!(!name.starts_with(['_', '0']) && name.len() <= 64, "{name}");
            let (value, rest) = match bytes[end] {
                b'=' => {
                    let rest = &bytes[end + 1..];
                    rest.split_at(rest.iter().position(|&byte| byte == b'\n').expect("the end of a value"))
                }
                _ => {
                    let (length, rest) = bytes[end + 1..].split_first_chunk().expect("a length");
                    rest.split_at(usize::try_from(u64::from_le_bytes(*length)).unwrap())
                }
            };
            assert_eq!(rest[0], b'\n');
            fields.push((name, value.to_vec()));
            bytes = &rest[1..];
        }
        fields
    }

    fn notice(message: &str) -> Record {
        let message = message.to_owned();
        Record::Notice(Notice { kind: "loss", severity: Severity::High, time_ns: 0, message })
    }

    fn value<'f>(fields: &'f [(String, Vec<u8>)], name: &str) -> &'f [u8] {
        let values: Vec<_> = fields.iter().filter(|(key, _)| key == name).collect();
        assert_eq!(values.len(), 1, "{name}");
        &values[0].1
    }

    #[test]
    fn fields_arrive_in_a_datagram_or_in_a_sealed_file() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Journald { socket: folder.path().join("socket"), ..Journald::default() };
        let socket = UnixDatagram::bind(&settings.socket).unwrap();
        let mut output = JournaldOutput::new(settings);
        for message in ["a\nb=\u{e9}".to_owned(), "x\ny".repeat(200_000)] {
            let entry = Entry::new(&notice(&message), ID, &[output.form()], &Host::default());
            output.write(&entry).unwrap();
            let mut buffer = vec![0; 1 << 20];
            let mut control = nix::cmsg_space!([std::os::fd::RawFd; 1]);
            let mut parts = [IoSliceMut::new(&mut buffer)];
            let received =
                recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty()).unwrap();
            let length = received.bytes;
            let files: Vec<i32> = received
                .cmsgs()
                .unwrap()
                .flat_map(|message| match message {
                    ControlMessageOwned::ScmRights(files) => files,
                    _ => Vec::new(),
                })
                .collect();
            let bytes =
                match files.first() {
                    None => buffer[..length].to_vec(),
                    Some(file) => {
                        assert_eq!(length, 0);
                        // Opened anew, so that the test needs no unsafe code to own the descriptor.
                        let file = File::options().read(true).open(format!("/proc/self/fd/{file}")).unwrap();
                        let seals = SealFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GET_SEALS).unwrap());
                        assert!(seals.contains(
                            SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW
                        ));
                        let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
                        file.read_exact_at(&mut bytes, 0).unwrap();
                        bytes
                    }
                };
            assert_eq!(files.len(), usize::from(message.len() > 100_000));
            let fields = decoded(&bytes);
            assert_eq!(value(&fields, "EXECWATCH_MESSAGE"), message.as_bytes());
            assert_eq!(value(&fields, "PRIORITY"), b"3");
            assert_eq!(value(&fields, "SYSLOG_FACILITY"), b"10");
            assert_eq!(value(&fields, "SYSLOG_IDENTIFIER"), b"execwatch");
            assert_eq!(value(&fields, "MESSAGE_ID"), NOTICE_ID.as_bytes());
            assert_eq!(value(&fields, "EXECWATCH_KIND"), b"notice");
            let text = Form::Text.of(&notice(&message), Some(ID), &Host::default());
            assert_eq!(value(&fields, "MESSAGE"), text.as_bytes());
        }
    }

    #[test]
    fn a_record_without_fields_is_a_message() {
        let output = JournaldOutput::new(Journald::default());
        let entry = Entry::new(&notice("m"), ID, &[Form::Text], &Host::default());
        let fields = decoded(&output.datagram(&entry));
        assert_eq!(value(&fields, "MESSAGE"), entry.form(Form::Text).as_bytes());
    }

    #[test]
    fn records_have_ids_of_their_own() {
        let ids = [ALERT_ID, FOLLOW_UP_ID, FOLDED_ID, NOTICE_ID];
        assert!(ids.iter().all(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())));
        let different: std::collections::HashSet<_> = ids.iter().collect();
        assert_eq!(different.len(), ids.len());
    }

    proptest! {
        #[test]
        fn values_are_whole(values in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..5)) {
            let mut bytes = Vec::new();
            values.iter().for_each(|value| push(&mut bytes, "A_1", value));
            let read: Vec<Vec<u8>> = decoded(&bytes).into_iter().map(|(_, value)| value).collect();
            prop_assert_eq!(read, values);
        }
    }
}
