//! Tools that print a line for each executed program.

use std::time::Duration;

use super::process::Process;
use super::{Captured, Lab, Monitor, START_LIMIT};
use crate::measure::{Tags, cpu_ns};
use crate::{Result, interrupt, spawn};

/// The argument of programs that are spawned to see whether a monitor hears.
const PROBE: &str = "probe";
/// How long a monitor may take to react to a probe.
const REACTION: Duration = Duration::from_millis(50);

/// A running tool.
struct Peer {
    process: Process,
    /// Written to standard error when programs were missed.
    loss: Option<&'static str>,
}

/// forkstat, showing programs as they are executed.
pub(super) fn forkstat(lab: &Lab<'_>) -> Result<impl Monitor + use<>> {
    let mut process = Process::start("forkstat", ["forkstat", "-e", "exec"], lab.folder)?;
    // It holds its output back, so what a probe brings about is that it runs. Then it hears already.
    process.wait_until("hears a probe", START_LIMIT, |process| {
        let before = cpu_ns(process.pid())?;
        interrupt::sleep(REACTION)?;
        let still = cpu_ns(process.pid())? == before;
        spawn::once(lab.target, PROBE)?;
        interrupt::sleep(REACTION)?;
        Ok(still && binds_connector(process.pid())? && cpu_ns(process.pid())? > before)
    })?;
    Ok(Peer { process, loss: None })
}

/// extrace, flat: without the indentation by descent.
pub(super) fn extrace(lab: &Lab<'_>) -> Result<impl Monitor + use<>> {
    let process = Process::start("extrace", ["extrace", "-f"], lab.folder)?;
    shown(process, lab, None)
}

/// bpftrace, printing arguments at the entry of execve.
pub(super) fn bpftrace(lab: &Lab<'_>) -> Result<impl Monitor + use<>> {
    const SCRIPT: &str = "tracepoint:syscalls:sys_enter_execve { join(args->argv) }";
    let process = Process::start("bpftrace", ["bpftrace", "-e", SCRIPT], lab.folder)?;
    shown(process, lab, Some("Lost "))
}

/// Waits until a probe is shown.
fn shown(mut process: Process, lab: &Lab<'_>, loss: Option<&'static str>) -> Result<Peer> {
    process.wait_until("shows a probe", START_LIMIT, |process| {
        spawn::once(lab.target, PROBE)?;
        interrupt::sleep(REACTION)?;
        Ok(process.output()?.windows(PROBE.len()).any(|word| word == PROBE.as_bytes()))
    })?;
    Ok(Peer { process, loss })
}

/// True if a process has bound a connector socket to its own pid, as tools of old do.
fn binds_connector(pid: i32) -> Result<bool> {
    /// NETLINK_CONNECTOR of linux/netlink.h.
    const CONNECTOR: &str = "11";
    let pid = pid.to_string();
    let table = std::fs::read_to_string("/proc/net/netlink")?;
    Ok(table.lines().any(|line| {
        let mut columns = line.split_whitespace().skip(1);
        columns.next() == Some(CONNECTOR) && columns.next() == Some(&pid)
    }))
}

impl Monitor for Peer {
    fn pids(&self) -> Vec<i32> {
        vec![self.process.pid()]
    }

    fn finish(mut self: Box<Self>, mut tags: Tags, _execs: u32) -> Result<Captured> {
        self.process.end()?;
        tags.find_in(&self.process.output()?);
        let errors = self.process.errors();
        let losses = self.loss.map_or(0, |loss| errors.lines().filter(|line| line.contains(loss)).count());
        let notes =
            if losses > 0 { vec![format!("said {losses} times that it lost events")] } else { Vec::new() };
        Ok(Captured { execs: tags.count(), notes })
    }
}
