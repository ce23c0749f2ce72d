//! Records of the kernel's audit as events: audit.log, or what `ausearch --raw` finds in it.
//!
//! The kernel writes several records of one exec, which share a time and a serial number, and those of several execs may
//! be mixed: SYSCALL has ids, comm and executable, EXECVE the arguments (several records if they are long), CWD the
//! folder, PROCTITLE the beginning of the command line. Records of other events are passed over, and so are execs that
//! failed. A text is in quotation marks, or in hexadecimal digits if it holds a space, a quotation mark, a control
//! character or a byte that is no ASCII (`audit_log_untrustedstring` in the kernel's kernel/audit.c). auditd in the
//! format ENRICHED adds names, in capital letters, behind a character 0x1d.

use std::collections::{BTreeMap, VecDeque};

use super::Kind;
use crate::event::{Absent, Bytes, Event, Moment, Terminal};
use crate::process::exec::Certainty;

/// Events that wait for more records at a time. auditd keeps the order but for the few that run on other CPUs.
const MOST_OPEN: usize = 128;
/// Bytes that may wait. One exec has 2 MB of arguments by default, and up to 6 MB if the stack limit is raised; arguments
/// of one character take ten times as much here.
const MOST_BYTES: usize = 64 << 20;
/// An event that is so many nanoseconds older than the last record is complete, as for ausearch(8).
const COMPLETE_AFTER: u64 = 2_000_000_000;
/// Bytes of a command line that PROCTITLE holds (MAX_PROCTITLE_AUDIT_LEN in kernel/audit.h).
const PROCTITLE: usize = 128;

/// Puts the records of an event together.
#[derive(Debug, Default)]
pub struct Joiner {
    open: VecDeque<Pending>,
    bytes: usize,
}

/// What the records of an event have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    node: Vec<u8>,
    time_ns: u64,
    serial: u64,
}

/// An event some of whose records were read.
#[derive(Debug)]
struct Pending {
    stamp: Stamp,
    syscall: Option<Syscall>,
    /// Number of arguments.
    count: Option<usize>,
    arguments: BTreeMap<usize, Argument>,
    cwd: Option<Bytes>,
    title: Option<Vec<u8>>,
    /// Bytes held, or more.
    bytes: usize,
}

/// The record SYSCALL.
#[derive(Debug, Default)]
struct Syscall {
    is_exec: bool,
    failed: bool,
    event: Event,
}

/// An argument, whole or in parts by their number.
#[derive(Debug, Default)]
struct Argument {
    /// Characters that the kernel said it would write of it.
    length: Option<usize>,
    /// Characters that it wrote, without quotation marks.
    written: usize,
    /// By their numbers, in the order of these; almost always one.
    parts: Vec<(usize, Vec<u8>)>,
}

impl Joiner {
    /// Takes a record.
    pub fn take(&mut self, line: &[u8], found: &mut dyn FnMut(Event)) -> Result<Kind, String> {
        let record = Record::parse(line)?;
        self.finish_old(record.stamp.time_ns, found);
        if !matches!(record.kind, b"SYSCALL" | b"EXECVE" | b"CWD" | b"PROCTITLE") {
            return Ok(Kind::Other);
        }
        let at = match self.open.iter().rposition(|pending| pending.stamp == record.stamp) {
            Some(at) => at,
            // The other records come with one of these: with the first in a log, after which nothing else is of interest;
            // the other way round from ausearch without --raw.
            None => {
                let pending = Pending::new(record.stamp.clone());
                self.bytes += pending.bytes;
                self.open.push_back(pending);
                self.open.len() - 1
            }
        };
        let Some(pending) = self.open.get_mut(at) else { return Ok(Kind::Other) };
        self.bytes -= pending.bytes;
        let result = pending.add(&record, line.len());
        self.bytes += pending.bytes;
        if pending.complete() {
            self.finish(at, found);
        }
        while self.open.len() > MOST_OPEN || self.bytes > MOST_BYTES {
            self.finish(0, found);
        }
        result
    }

    /// Completes what is open.
    pub fn end(&mut self, found: &mut dyn FnMut(Event)) {
        while !self.open.is_empty() {
            self.finish(0, found);
        }
    }

    fn finish_old(&mut self, now_ns: u64, found: &mut dyn FnMut(Event)) {
        while self
            .open
            .front()
            .is_some_and(|first| now_ns > first.stamp.time_ns.saturating_add(COMPLETE_AFTER))
        {
            self.finish(0, found);
        }
    }

    fn finish(&mut self, at: usize, found: &mut dyn FnMut(Event)) {
        let Some(pending) = self.open.remove(at) else { return };
        self.bytes -= pending.bytes;
        if let Some(event) = pending.event() {
            found(event);
        }
    }
}

/// A record.
struct Record<'l> {
    kind: &'l [u8],
    stamp: Stamp,
    fields: Vec<(&'l [u8], &'l [u8])>,
}

impl<'l> Record<'l> {
    fn parse(line: &'l [u8]) -> Result<Self, String> {
        let (node, rest) = match line.strip_prefix(b"node=") {
            Some(rest) => split_once(rest, b' ').ok_or("an audit record that ends after its node")?,
            None => (&b""[..], line),
        };
        let rest = rest.strip_prefix(b"type=").ok_or("an audit record without a type")?;
        let (kind, rest) = split_once(rest, b' ').ok_or("an audit record that ends after its type")?;
        let rest = rest.strip_prefix(b"msg=audit(").ok_or("an audit record without `msg=audit(`")?;
        let (stamp, rest) = split_once(rest, b')').ok_or("an audit record whose time does not end")?;
        if stamp.contains(&b'/') {
            return Err("an audit record that ausearch has interpreted, in which arguments with spaces cannot be told \
                        apart; `ausearch --raw` writes them as they are"
                .to_owned());
        }
        let (time_ns, serial) = read_stamp(stamp).ok_or("an audit record whose time is no number")?;
        let rest = rest.strip_prefix(b":").ok_or("an audit record without a colon after its time")?;
        // Names of an enriched record stand behind a separator of their own.
        let fields =
            rest.split(|&byte| byte == b' ' || byte == 0x1d).filter_map(|field| split_once(field, b'='));
        let stamp = Stamp { node: node.to_vec(), time_ns, serial };
        Ok(Record { kind, stamp, fields: fields.collect() })
    }

    fn field(&self, name: &str) -> Option<&'l [u8]> {
        self.fields.iter().find(|(key, _)| *key == name.as_bytes()).map(|&(_, value)| value)
    }

    fn number(&self, name: &str) -> Option<u32> {
        number(self.field(name)?)
    }

    /// A text that the kernel wrote for an untrusted one.
    fn text(&self, name: &str) -> Result<Option<Bytes>, String> {
        match self.field(name) {
            Some(value) => Ok(decode(name, value)?.map(|bytes| Bytes::new(&bytes))),
            None => Ok(None),
        }
    }

    /// A name that auditd added.
    fn name(&self, key: &str) -> Option<String> {
        let value = self.field(key)?;
        let name = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(value);
        // What auditd writes for a number without a name.
        let name = std::str::from_utf8(name).ok()?;
        (!name.starts_with("unknown(") && name != "unset" && !name.is_empty()).then(|| name.to_owned())
    }
}

impl Pending {
    fn new(stamp: Stamp) -> Self {
        Pending {
            bytes: size_of::<Pending>() + stamp.node.len(),
            stamp,
            syscall: None,
            count: None,
            arguments: BTreeMap::new(),
            cwd: None,
            title: None,
        }
    }

    /// Adds a record, from a line of `length` bytes.
    fn add(&mut self, record: &Record<'_>, length: usize) -> Result<Kind, String> {
        if record.kind != b"EXECVE" {
            // No record holds more than its line.
            self.bytes += length;
        }
        match record.kind {
            b"SYSCALL" => {
                // What can be read of it counts, even if a text in it cannot.
                let mut syscall = Syscall::default();
                let result = syscall.read(record);
                let kind = if syscall.is_exec { Kind::Event } else { Kind::Other };
                self.syscall = Some(syscall);
                return result.map(|()| kind);
            }
            b"EXECVE" => self.add_arguments(record)?,
            b"CWD" => self.cwd = record.text("cwd")?,
            _ => {
                self.title =
                    record.field("proctitle").map(|value| decode("proctitle", value)).transpose()?.flatten()
            }
        }
        let of_exec = self.syscall.as_ref().is_none_or(|syscall| syscall.is_exec);
        Ok(if of_exec { Kind::Event } else { Kind::Other })
    }

    /// Arguments as `a0="ls"`, or in parts as `a1_len=20000 a1[0]=61 a1[1]=61`.
    fn add_arguments(&mut self, record: &Record<'_>) -> Result<(), String> {
        for &(key, value) in &record.fields {
            let Some(key) = std::str::from_utf8(key).ok() else { continue };
            if key == "argc" {
                self.count = number(value);
                continue;
            }
            let Some(rest) = key.strip_prefix('a') else { continue };
            let digits = rest.find(|character: char| !character.is_ascii_digit()).unwrap_or(rest.len());
            let Ok(index) = rest[..digits].parse::<usize>() else { continue };
            let part = match &rest[digits..] {
                "" => Some(0),
                "_len" => {
                    self.bytes += size_of::<Argument>();
                    self.arguments.entry(index).or_default().length = number(value);
                    continue;
                }
                part => part.strip_prefix('[').and_then(|part| part.strip_suffix(']')?.parse::<usize>().ok()),
            };
            let Some(part) = part else { continue };
            // An empty argument is written as two quotation marks, an unreadable one as (null).
            let Some(bytes) = decode(key, value)? else { continue };
            // What is written twice is counted twice.
            self.bytes += bytes.len() + size_of::<Argument>() + size_of::<(usize, Vec<u8>)>();
            let argument = self.arguments.entry(index).or_default();
            argument.written += value.iter().filter(|&&byte| byte != b'"').count();
            argument.add(part, bytes);
        }
        Ok(())
    }

    /// Nothing of interest can follow. The order of the records is not asked for: ausearch turns it round.
    fn complete(&self) -> bool {
        let Some(syscall) = &self.syscall else { return false };
        if self.title.is_none() {
            return false;
        }
        // A failed exec has no arguments in some kernels, and other calls never have.
        let all = |count| self.arguments.len() >= count && self.whole_arguments() == count;
        !syscall.is_exec || syscall.failed || self.count.is_some_and(all)
    }

    /// How many arguments are there without a gap.
    fn whole_arguments(&self) -> usize {
        self.arguments
            .values()
            .enumerate()
            .zip(self.arguments.keys())
            .take_while(|((at, argument), index)| at == *index && argument.whole())
            .count()
    }

    /// The event, if it is an exec that did not fail.
    fn event(self) -> Option<Event> {
        let is_exec = self.syscall.as_ref().map_or(!self.arguments.is_empty(), |syscall| syscall.is_exec);
        let is_exec = is_exec || self.count.is_some();
        if !is_exec || self.syscall.as_ref().is_some_and(|syscall| syscall.failed) {
            return None;
        }
        let whole = self.whole_arguments();
        let mut event = self.syscall.map(|syscall| syscall.event).unwrap_or_default();
        event.time = Some(Moment::on_this_host(self.stamp.time_ns));
        event.host = String::from_utf8(self.stamp.node).ok().filter(|node| !node.is_empty());
        event.certainty = Some(Certainty::Reported);
        event.cwd = self.cwd;
        if self.count.is_some() || whole > 0 {
            event.args_cut = self.count.is_some_and(|count| whole < count);
            let arguments = self.arguments.into_values().take(whole);
            event.args = Some(arguments.map(|argument| Bytes::new(&argument.joined())).collect());
        } else if let Some(title) = self.title {
            event.args_cut = title.len() >= PROCTITLE;
            event.args = Some(title.split(|&byte| byte == 0).map(Bytes::new).collect());
        }
        Some(event)
    }
}

impl Argument {
    /// Adds a part, in the place of one with the same number.
    fn add(&mut self, number: usize, bytes: Vec<u8>) {
        match self.parts.binary_search_by_key(&number, |(number, _)| *number) {
            Ok(at) => self.parts[at].1 = bytes,
            Err(at) => {
                // Not the four that a list begins with: most arguments have one.
                self.parts.reserve_exact(usize::from(self.parts.is_empty()));
                self.parts.insert(at, (number, bytes));
            }
        }
    }

    /// All parts are there.
    fn whole(&self) -> bool {
        let gapless = self.parts.iter().enumerate().all(|(at, (part, _))| at == *part);
        gapless && !self.parts.is_empty() && self.length.is_none_or(|length| self.written >= length)
    }

    fn joined(self) -> Vec<u8> {
        self.parts.into_iter().flat_map(|(_, bytes)| bytes).collect()
    }
}

impl Syscall {
    fn read(&mut self, record: &Record<'_>) -> Result<(), String> {
        let enriched = record.field("SYSCALL");
        self.is_exec = match enriched {
            Some(name) => matches!(name, b"execve" | b"execveat"),
            None => is_exec(record.field("arch").unwrap_or_default(), record.number("syscall")),
        };
        self.failed = record.field("success") == Some(b"no");
        let event = &mut self.event;
        event.pid = record.number("pid");
        event.ppid = record.number("ppid");
        [event.uid, event.euid, event.suid, event.fsuid] =
            ["uid", "euid", "suid", "fsuid"].map(|id| record.number(id));
        [event.gid, event.egid, event.sgid, event.fsgid] =
            ["gid", "egid", "sgid", "fsgid"].map(|id| record.number(id));
        [event.user, event.user_effective, event.group] = ["UID", "EUID", "GID"].map(|key| record.name(key));
        match record.field("auid") {
            Some(b"4294967295" | b"-1" | b"unset") => {
                event.absent.insert(Absent::Loginuid);
            }
            Some(id) => {
                event.loginuid = number(id);
                event.login_user = record.name("AUID");
            }
            None => {}
        }
        match record.field("ses") {
            Some(b"4294967295" | b"-1" | b"unset") => {
                event.absent.insert(Absent::AuditSession);
            }
            Some(session) => event.audit_session = number(session),
            None => {}
        }
        match record.field("tty") {
            Some(b"(none)") => {
                event.absent.insert(Absent::Tty);
            }
            tty => event.tty = tty.and_then(terminal),
        }
        event.comm = record.text("comm")?;
        event.exe = record.text("exe")?;
        Ok(())
    }
}

/// The kernel's names have no slash: `pts0`.
fn terminal(name: &[u8]) -> Option<Terminal> {
    let name = std::str::from_utf8(name).ok()?;
    match name.strip_prefix("pts") {
        Some(number) => Terminal::of_name(&format!("pts/{}", number.trim_start_matches('/'))),
        None => Terminal::of_name(name),
    }
}

/// Whether the number of a system call means execve or execveat (include/uapi/linux/audit.h has the numbers of
/// architectures). On others EXECVE tells.
fn is_exec(arch: &[u8], syscall: Option<u32>) -> bool {
    matches!(
        (arch, syscall),
        (b"c000003e", Some(59 | 322 | 520 | 545))
            | (b"40000003", Some(11 | 358))
            | (b"40000028", Some(11 | 387))
            | (b"c00000b7" | b"c00000f3" | b"c0000102", Some(221 | 281))
            | (b"c0000015" | b"80000015", Some(11 | 362))
            | (b"80000016", Some(11 | 354))
    )
}

/// `1364481363.243:24287`: nanoseconds since 1970, and the serial number.
fn read_stamp(stamp: &[u8]) -> Option<(u64, u64)> {
    let (time, serial) = split_once(stamp, b':')?;
    let (seconds, milliseconds) = split_once(time, b'.')?;
    let milliseconds = number::<u64>(milliseconds).filter(|&number| number < 1000)?;
    let ns = number::<u64>(seconds)?.checked_mul(1000)?.checked_add(milliseconds)?.checked_mul(1_000_000)?;
    Some((ns, number(serial)?))
}

/// A text in quotation marks or in hexadecimal digits; `None` if the kernel had none.
fn decode(key: &str, value: &[u8]) -> Result<Option<Vec<u8>>, String> {
    if let Some(rest) = value.strip_prefix(b"\"") {
        return match rest.strip_suffix(b"\"") {
            Some(text) => Ok(Some(text.to_vec())),
            None => Err(format!("`{key}` of an audit record has no closing quotation mark")),
        };
    }
    if matches!(value, b"(null)" | b"(none)" | b"?") {
        return Ok(None);
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let byte = |pair: &[u8]| match *pair {
        [high, low] => Some((digit(high)? << 4 | digit(low)?) as u8),
        _ => None,
    };
    let bytes: Option<Vec<u8>> = value.chunks(2).map(byte).collect();
    bytes
        .filter(|bytes| !bytes.is_empty())
        .map(Some)
        .ok_or_else(|| format!("`{key}` of an audit record is neither in quotation marks nor hexadecimal"))
}

fn number<T: std::str::FromStr>(bytes: &[u8]) -> Option<T> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

fn split_once(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|&byte| byte == at)?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]
mod tests {
    use super::*;

    fn found(lines: impl IntoIterator<Item = String>) -> (Joiner, Vec<Event>) {
        let (mut joiner, mut events) = (Joiner::default(), Vec::new());
        for line in lines {
            joiner.take(line.as_bytes(), &mut |event| events.push(event)).unwrap();
        }
        (joiner, events)
    }

    #[test]
    fn an_argument_that_is_written_twice_counts_as_it_was_written_last() {
        let long = "a".repeat(1000);
        let record = |argument: &str| format!("type=EXECVE msg=audit(1.000:7): argc=1 a0=\"{argument}\"");
        let (mut joiner, mut events) = found([record(&long), record("b")]);
        joiner.end(&mut |event| events.push(event));
        assert_eq!(events[0].args, Some(vec![Bytes::from("b")]));
        assert_eq!(joiner.bytes, 0);
    }

    #[test]
    fn parts_may_come_in_any_order() {
        let records = ["a1[2]=63", "a1_len=6 a1[0]=61", "a1[1]=62", "argc=2 a0=\"x\""];
        let lines = records.map(|record| format!("type=EXECVE msg=audit(1.000:7): {record}"));
        let (mut joiner, mut events) = found(lines);
        joiner.end(&mut |event| events.push(event));
        assert_eq!(events[0].args, Some(vec![Bytes::from("x"), Bytes::from("abc")]));
    }

    /// Whatever kind of record it comes from: what waits is bounded, and the oldest is given up for it.
    #[test]
    fn what_waits_is_bounded() {
        let megabyte = "61".repeat(1 << 20);
        let lengths: String = (0..100_000).map(|number| format!("a{number}_len=1 ")).collect();
        let bodies = [
            format!("type=CWD msg=audit(1.000:@): cwd={megabyte}"),
            format!("type=PROCTITLE msg=audit(1.000:@): proctitle={megabyte}"),
            format!("type=SYSCALL msg=audit(1.000:@): arch=c000003e syscall=59 exe={megabyte}"),
            format!("type=EXECVE msg=audit(1.000:@): argc=1 {lengths}"),
            format!("node={megabyte} type=EXECVE msg=audit(1.000:@): argc=1 a0=\"x\""),
        ];
        for body in bodies {
            let (joiner, _) = found((0..MOST_OPEN).map(|serial| body.replace('@', &serial.to_string())));
            assert!(joiner.bytes <= MOST_BYTES && joiner.open.len() < MOST_OPEN, "{body:.40}");
        }
    }
}
