//! A monitor's process, with its output in files, which is ended on every way out.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{END_LIMIT, failure};
use crate::{Result, interrupt};

/// Microseconds a real-time thread may run without blocking before the kernel kills its process (RLIMIT_RTTIME,
/// setrlimit(2)): a listener that spins cannot starve the machine.
const SPIN_LIMIT_US: u32 = 5_000_000;
/// How long a process that is dropped may take to end by itself.
const DROP_LIMIT: Duration = Duration::from_secs(3);

/// A running process.
pub(super) struct Process {
    name: &'static str,
    child: Child,
    output: PathBuf,
    errors: PathBuf,
}

impl Process {
    /// Starts `words`, whose output goes to files in `folder`.
    pub(super) fn start(
        name: &'static str,
        words: impl IntoIterator<Item = impl Into<std::ffi::OsString>>,
        folder: &std::path::Path,
    ) -> Result<Process> {
        let (output, errors) = (folder.join(format!("{name}.out")), folder.join(format!("{name}.err")));
        let spin_limit = format!("--rttime={SPIN_LIMIT_US}");
        // Both become the next program with execve, so that the pid is the monitor's. The first ends it with this
        // process, should that be killed.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "prlimit", &spin_limit]);
        for word in words {
            command.arg(word.into());
        }
        command
            .env_remove("EXECWATCH_LOG")
            .stdin(Stdio::null())
            .stdout(File::create(&output)?)
            .stderr(File::create(&errors)?);
        let child = interrupt::spawn(&mut command)?;
        Ok(Process { name, child, output, errors })
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// What it wrote to standard output.
    pub(super) fn output(&self) -> Result<Vec<u8>> {
        Ok(fs::read(&self.output)?)
    }

    /// What it wrote to standard error.
    pub(super) fn errors(&self) -> String {
        fs::read(&self.errors).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Waits for something that the process brings about; fails at once if it ends.
    pub(super) fn wait_until(
        &mut self,
        what: &str,
        limit: Duration,
        mut happened: impl FnMut(&Process) -> Result<bool>,
    ) -> Result<()> {
        interrupt::wait_until(&format!("{} {what}", self.name), limit, || {
            if self.child.try_wait()?.is_some() {
                return Err(failure(self, "has ended by itself"));
            }
            happened(self)
        })
        .map_err(|error| format!("{error} {}", self.errors().trim()).into())
    }

    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(self.pid()), signal)?)
    }

    /// Tells the process to end and waits until it has.
    pub(super) fn end(&mut self) -> Result<()> {
        if self.child.try_wait()?.is_some() {
            return Err(failure(self, "has ended by itself"));
        }
        self.signal(Signal::SIGTERM)?;
        let (name, child) = (self.name, &mut self.child);
        interrupt::wait_until(&format!("{name} ends"), END_LIMIT, || Ok(child.try_wait()?.is_some()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A listener that is killed leaves the kernel counting it, so it is asked first. Not with the interruptible
        // waits: this may be the way out after an interruption.
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        let _ = self.signal(Signal::SIGTERM);
        let deadline = std::time::Instant::now() + DROP_LIMIT;
        while matches!(self.child.try_wait(), Ok(None)) {
            if std::time::Instant::now() > deadline {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
