//! `[capture]`: how programs are captured.

use std::path::PathBuf;

use super::set;
use crate::connector::listeners::Arrangement;
use crate::document::Section;
use crate::identity::{self, Mode};
use crate::sys::sched::FIFO_PRIORITIES;

/// `[capture]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capture {
    /// How many listeners.
    pub listeners: Arrangement,
    /// SCHED_FIFO priority, 1 to 99; 0 for best effort.
    pub realtime_priority: u8,
    /// Receive buffer of each socket in bytes.
    pub receive_buffer: usize,
    /// Bytes kept of an argument list.
    pub args_limit: usize,
    /// Execs that may wait for the worker.
    pub queue_length: usize,
    /// Report programs that already run at the start.
    pub already_running: bool,
    /// Which files are looked at to see which utility they are.
    pub identity: Mode,
    /// Where installed utilities are looked for.
    pub identity_folders: Vec<PathBuf>,
}

const ARRANGEMENTS: [(&str, Arrangement); 3] =
    [("auto", Arrangement::Auto), ("per-cpu", Arrangement::PerCpu), ("single", Arrangement::Single)];
const IDENTITIES: [(&str, Mode); 3] =
    [("untrusted-paths", Mode::UntrustedPaths), ("all", Mode::All), ("off", Mode::Off)];

impl Default for Capture {
    fn default() -> Self {
        Capture {
            listeners: Arrangement::Auto,
            realtime_priority: 90,
            receive_buffer: 16 << 20,
            args_limit: 32 << 10,
            queue_length: 4096,
            already_running: true,
            identity: Mode::default(),
            identity_folders: identity::FOLDERS.map(PathBuf::from).to_vec(),
        }
    }
}

impl Capture {
    pub(super) fn read(&mut self, section: Section<'_>) {
        let size = |key, range: std::ops::RangeInclusive<i64>| {
            section.integer(key, range).and_then(|number| usize::try_from(number.value).ok())
        };
        let priorities = 0..=i64::from(*FIFO_PRIORITIES.end());
        set(&mut self.receive_buffer, size("receive-buffer", 65_536..=1 << 30));
        set(&mut self.args_limit, size("args-limit", 256..=2 << 20));
        set(&mut self.queue_length, size("queue-length", 16..=1 << 20));
        set(&mut self.listeners, section.choice("listeners", &ARRANGEMENTS).map(|choice| choice.value));
        set(
            &mut self.realtime_priority,
            section
                .integer("realtime-priority", priorities)
                .and_then(|number| u8::try_from(number.value).ok()),
        );
        set(&mut self.already_running, section.flag("already-running").map(|flag| flag.value));
        set(&mut self.identity, section.choice("identity", &IDENTITIES).map(|choice| choice.value));
        let remedy = "leave it out for the default, or set identity = \"off\" to look for none";
        if let Some(folders) = section.filled("identity-folders", remedy) {
            for folder in folders.iter().filter(|folder| !folder.value.starts_with('/')) {
                section.error(folder.span.clone(), "`identity-folders` must be absolute paths");
            }
            self.identity_folders = folders.iter().map(|folder| PathBuf::from(folder.value)).collect();
        }
        section.finish();
    }
}
