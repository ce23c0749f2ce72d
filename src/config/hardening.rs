//! `[hardening]`: what the daemon does without, so that a mistake in it does less harm.

use super::set;
use crate::document::Section;

/// `[hardening]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hardening {
    /// Capabilities that are not needed are given up.
    pub capabilities: bool,
    /// Each thread may make only the system calls of its role.
    pub system_calls: bool,
}

impl Default for Hardening {
    fn default() -> Self {
        Hardening { capabilities: true, system_calls: true }
    }
}

impl Hardening {
    pub(super) fn read(&mut self, section: Section<'_>) {
        set(&mut self.capabilities, section.flag("capabilities").map(|flag| flag.value));
        set(&mut self.system_calls, section.flag("system-calls").map(|flag| flag.value));
        section.finish();
    }
}
