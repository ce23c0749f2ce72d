//! The side of the subcommands: asks the running daemon.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::{Kind, Refusal, Request, read_answer};
use crate::exit;

/// How long the daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes of an answer: far more than any is, so that whatever answers there cannot fill the memory.
const LONGEST_ANSWER: u64 = 64 << 20;

/// Why there is no answer.
#[derive(Debug)]
pub enum ClientError {
    /// Nobody answers at this path.
    NotReached(PathBuf, io::Error),
    /// The socket is for root alone.
    NotPermitted(PathBuf),
    /// What came is no answer.
    Garbled(PathBuf),
    /// The daemon refused.
    Refused(Refusal),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotReached(path, error) => write!(
                f,
                "no daemon answers at {}: {error}; is it running? See systemctl status execwatch",
                path.display()
            ),
            Self::NotPermitted(path) => {
                write!(f, "permission denied at {}: only root may ask the daemon", path.display())
            }
            Self::Garbled(path) => write!(f, "what answers at {} is no execwatch", path.display()),
            Self::Refused(refusal) => f.write_str(&refusal.message),
        }
    }
}

impl ClientError {
    /// No daemon listens there. Any other failure to reach it says nothing of that: one that lives may be busy, and does
    /// afterwards what it was asked.
    pub fn is_no_daemon(&self) -> bool {
        use io::ErrorKind::{ConnectionRefused, NotFound};
        matches!(self, Self::NotReached(_, error) if matches!(error.kind(), ConnectionRefused | NotFound))
    }

    /// The exit code of a subcommand that fails by it.
    pub fn code(&self) -> u8 {
        match self {
            Self::NotReached(..) | Self::Garbled(_) => exit::UNAVAILABLE,
            Self::NotPermitted(_) => exit::PERMISSION,
            Self::Refused(refusal) => match refusal.kind {
                Kind::Usage => exit::USAGE,
                Kind::NotPermitted => exit::PERMISSION,
                Kind::Failed => exit::SOFTWARE,
            },
        }
    }
}

/// Asks the daemon at `path`; the result.
pub fn ask(path: &Path, request: &Request) -> Result<Value, ClientError> {
    let line = exchange(path, &request.line()).map_err(|error| not_reached(path, error))?;
    let answer = read_answer(&line).ok_or_else(|| ClientError::Garbled(path.to_owned()))?;
    answer.map_err(ClientError::Refused)
}

/// Bytes of a line that is listened to: more than the daemon writes.
const LONGEST_LINE: usize = 1 << 20;

/// Begins to listen to the daemon at `path`, which goes on telling until it ends.
pub fn listen(path: &Path, request: &Request) -> Result<Listening, ClientError> {
    let (listening, first) = begin(path, &request.line()).map_err(|error| not_reached(path, error))?;
    match read_answer(&first) {
        Some(Ok(_)) => Ok(listening),
        Some(Err(refusal)) => Err(ClientError::Refused(refusal)),
        None => Err(ClientError::Garbled(path.to_owned())),
    }
}

fn not_reached(path: &Path, error: io::Error) -> ClientError {
    match error.kind() {
        io::ErrorKind::PermissionDenied => ClientError::NotPermitted(path.to_owned()),
        _ => ClientError::NotReached(path.to_owned(), error),
    }
}

/// Asks, and waits for the first line: that the daemon goes on, or an error.
fn begin(path: &Path, request: &[u8]) -> io::Result<(Listening, Vec<u8>)> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // As in `exchange`: what a daemon said that refuses is to be read.
    let written = stream.write_all(request);
    let mut first = Vec::new();
    let mut byte = [0];
    // Byte by byte, so that what follows stays for the next.
    while first.last() != Some(&b'\n') && first.len() < LONGEST_LINE {
        match stream.read(&mut byte) {
            Ok(0) => break,
            Ok(_) => first.extend_from_slice(&byte),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(too_slow()),
            Err(error) => return Err(error),
        }
    }
    if first.is_empty() {
        written?;
    }
    stream.set_read_timeout(None)?;
    Ok((Listening { stream, received: Vec::new() }, first))
}

fn too_slow() -> io::Error {
    let message = format!("there was no answer within {} s", PATIENCE.as_secs());
    io::Error::new(io::ErrorKind::TimedOut, message)
}

/// A daemon that is listened to.
#[derive(Debug)]
pub struct Listening {
    stream: UnixStream,
    /// The beginning of a line.
    received: Vec<u8>,
}

impl AsFd for Listening {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Listening {
    /// Waits for more, and gives the lines that are complete; `None` if the daemon has ended.
    pub fn read(&mut self) -> io::Result<Option<Vec<Vec<u8>>>> {
        let mut buffer = [0; 64 << 10];
        let length = match self.stream.read(&mut buffer) {
            Ok(0) => return Ok(None),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(Some(Vec::new())),
            Err(error) => return Err(error),
        };
        self.received.extend_from_slice(&buffer[..length]);
        let Some(end) = self.received.iter().rposition(|&byte| byte == b'\n') else {
            if self.received.len() > LONGEST_LINE {
                return Err(io::Error::other("a line has no end: what answers there is no execwatch"));
            }
            return Ok(Some(Vec::new()));
        };
        let rest = self.received.split_off(end + 1);
        let lines = std::mem::replace(&mut self.received, rest);
        let lines = lines.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        let lines = lines.map(<[u8]>::to_vec).collect();
        Ok(Some(lines))
    }
}

fn exchange(path: &Path, request: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // A daemon that refuses the connection answers without reading: then writing fails, and what it said is to be read.
    let written = stream.write_all(request);
    let mut answer = Vec::new();
    match stream.take(LONGEST_ANSWER).read_to_end(&mut answer) {
        Ok(0) => written.map(|()| answer),
        Ok(_) => Ok(answer),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset && !answer.is_empty() => Ok(answer),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(too_slow()),
        Err(error) => Err(error),
    }
}
