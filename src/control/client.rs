//! The side of the subcommands: asks the running daemon.

use std::fmt;
use std::io::{self, Read, Write};
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
    let line = exchange(path, &request.line()).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => ClientError::NotPermitted(path.to_owned()),
        _ => ClientError::NotReached(path.to_owned(), error),
    })?;
    let answer = read_answer(&line).ok_or_else(|| ClientError::Garbled(path.to_owned()))?;
    answer.map_err(ClientError::Refused)
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
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            let message = format!("there was no answer within {} s", PATIENCE.as_secs());
            Err(io::Error::new(io::ErrorKind::TimedOut, message))
        }
        Err(error) => Err(error),
    }
}
