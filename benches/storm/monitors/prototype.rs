//! The C prototype of the capture, which the bars of execwatch's cost are ratios to.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::process::Process;
use super::{Captured, Lab, Monitor, START_LIMIT};
use crate::Result;
use crate::measure::Tags;

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/reference/capture.c");
/// The number of SCHED_FIFO (sched(7)) in field 41 of /proc/PID/stat.
const SCHED_FIFO: u32 = 1;

/// Compiles it; `None` without a compiler.
pub(super) fn compile(folder: &Path) -> Option<PathBuf> {
    let program = folder.join("capture");
    let compiled = Command::new("gcc")
        .args(["-O2", "-pthread", "-w", "-o"])
        .arg(&program)
        .arg(SOURCE)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status();
    compiled.is_ok_and(|status| status.success()).then_some(program)
}

/// The running prototype.
struct Prototype(Process);

/// Starts it: quiet, with its table of forks and exits.
pub(super) fn start(lab: &Lab<'_>) -> Result<impl Monitor + use<>> {
    let program = lab.prototype.clone().ok_or("the prototype is not compiled")?;
    let mut process =
        Process::start("prototype", [program.into_os_string(), "-q".into(), "-t".into()], lab.folder)?;
    let listeners = nix::unistd::sysconf(nix::unistd::SysconfVar::_NPROCESSORS_ONLN)?.unwrap_or(1);
    // It says nothing. A listener takes its priority after it has subscribed, just before it waits for events.
    process.wait_until("listens", START_LIMIT, |process| {
        let mut waiting = 0;
        for task in procfs::process::Process::new(process.pid())?.tasks()? {
            let stat = task?.stat()?;
            if stat.policy == Some(SCHED_FIFO) && stat.state == 'S' {
                waiting += 1;
            }
        }
        Ok(waiting == listeners)
    })?;
    Ok(Prototype(process))
}

impl Monitor for Prototype {
    fn pids(&self) -> Vec<i32> {
        vec![self.0.pid()]
    }

    fn finish(mut self: Box<Self>, _tags: Tags, execs: u32) -> Result<Captured> {
        self.0.end()?;
        let said = self.0.errors();
        let of = |name: &str| -> u64 {
            let word = said.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            word.and_then(|number| number.parse().ok()).unwrap_or(0)
        };
        // It counts from its start and for all programs: as with execwatch, what it missed is taken for the storm's.
        let (seen, read) = (of("ex"), of("okcmd").min(of("okexe")));
        let execs = read.min(u64::from(execs).saturating_sub(seen.saturating_sub(read)));
        Ok(Captured { execs, notes: Vec::new() })
    }
}
