//! The journal: every record is written down before an output is given it, so that neither kill -9 nor a receiver that
//! is away takes one.
//!
//! In: records from the worker. Out: [`Entry`](crate::output::entry::Entry)s with numbers, for outputs that read each at
//! its own [position]. A [thread] of its own numbers and renders what waits, appends it to a [segment file](store) with
//! one write, and wakes the outputs. The newest records are in [memory](shared) too; who lags reads files. Where no
//! file can be written, memory is all there is, and that is said.
//!
//! docs/delivery.md tells what holds when, and why these are files and no database.

pub mod crc;
pub mod feed;
pub mod folder;
pub mod format;
pub mod position;
pub mod progress;
pub mod scan;
pub mod shared;
pub mod start;
pub mod status;
pub mod store;
pub mod sync;
pub mod thread;

use std::path::PathBuf;
use std::time::Duration;

/// `[journal]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Records are kept in files.
    pub enabled: bool,
    /// Where; `None` for a folder in the state folder.
    pub folder: Option<PathBuf>,
    /// Bytes of all files, roughly.
    pub max_size: u64,
    /// How long records are kept for an output that does not take them.
    pub max_age: Duration,
    /// What gives way if there is no more room.
    pub when_full: WhenFull,
    /// Bytes of records in memory if they cannot be kept in files.
    pub memory: usize,
}

/// What gives way if there is no more room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// The oldest records, whoever has not sent them.
    DropOldest,
    /// New records.
    DropNew,
    /// Nothing: the worker waits, and after it the listeners' queue overflows.
    StopReading,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            enabled: true,
            folder: None,
            max_size: 256 << 20,
            max_age: Duration::from_secs(30 * 86_400),
            when_full: WhenFull::DropOldest,
            memory: 8 << 20,
        }
    }
}

impl Settings {
    /// Bytes of a segment: small enough that little is given up at a time.
    fn segment_size(&self) -> u64 {
        (self.max_size / 16).clamp(64 << 10, 8 << 20)
    }
}

const SUFFIX: &str = ".segment";

/// The file's name of a segment by its first record, in an order that is also that of the names.
pub fn segment_name(first: u64) -> String {
    format!("{first:020}{SUFFIX}")
}

/// The first record of a segment by its file's name.
pub fn number_of_segment(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SUFFIX).filter(|digits| digits.len() == 20)?;
    digits.bytes().all(|digit| digit.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_segments() {
        for number in [0, 1, 42, u64::MAX] {
            assert_eq!(number_of_segment(&segment_name(number)), Some(number));
        }
        for name in ["1.segment", "+0000000000000000001.segment", "99999999999999999999.segment", "lock", ""]
        {
            assert_eq!(number_of_segment(name), None, "{name}");
        }
    }
}
