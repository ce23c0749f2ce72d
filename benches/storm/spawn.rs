//! The storm itself: worker processes that spawn the target one after the other.
//!
//! Workers are processes of their own, because the cost of making a process depends on what its maker has mapped. A worker
//! is this program again, told what to do by arguments; it says when it is ready, begins when it is told to, and says when
//! it began and ended.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, posix_spawn};
use nix::sys::signal::Signal;
use nix::sys::wait::waitpid;

use crate::measure::monotonic_ns;
use crate::{Result, interrupt};

/// The first argument of a worker.
pub(crate) const WORKER: &str = "--as-worker";
/// How long workers may take to come up.
const START_LIMIT: Duration = Duration::from_secs(20);
/// How long a storm may take: a fixed time and this much for each program.
const STORM_LIMIT: (Duration, Duration) = (Duration::from_secs(60), Duration::from_millis(5));

/// What a storm is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Storm<'a> {
    pub(crate) target: &'a Path,
    pub(crate) execs: u32,
    pub(crate) workers: u32,
    /// Programs a second of all workers together; `None` is as fast as it goes.
    pub(crate) rate: Option<u32>,
}

impl Storm<'_> {
    /// Starts the workers. Program `i` will be given the argument `TAG-i`.
    pub(crate) fn prepare(&self, tag: &str) -> Result<Workers> {
        let limit = STORM_LIMIT.0
            + STORM_LIMIT.1 * self.execs
            + Duration::from_secs(self.rate.map_or(0, |rate| u64::from(self.execs / rate)));
        let mut all = Workers { workers: Vec::new(), limit };
        for first in 0..self.workers {
            let interval_ns =
                self.rate.map_or(0, |rate| 1_000_000_000 * u64::from(self.workers) / u64::from(rate));
            let offset_ns = interval_ns / u64::from(self.workers) * u64::from(first);
            let mut command = Command::new(std::env::current_exe()?);
            command.arg(WORKER);
            command.args([first, self.workers, self.execs].map(|number| number.to_string()));
            command.args([interval_ns, offset_ns].map(|number| number.to_string()));
            command.arg(self.target).arg(tag);
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = interrupt::spawn(&mut command)?;
            let (go, said) = (child.stdin.take(), child.stdout.take());
            all.workers.push(Worker { child, go, said, line: Vec::new() });
        }
        all.wait_for_lines("the workers are ready", START_LIMIT)?;
        Ok(all)
    }
}

struct Worker {
    child: Child,
    go: Option<ChildStdin>,
    said: Option<ChildStdout>,
    /// What it has said since the last line.
    line: Vec<u8>,
}

/// Workers that wait for their start. They are killed if this is dropped before their end.
pub(crate) struct Workers {
    workers: Vec<Worker>,
    limit: Duration,
}

impl Workers {
    /// Lets the storm loose and waits for its end: the time from the first worker's start to the last one's end.
    pub(crate) fn run(mut self) -> Result<Duration> {
        for worker in &mut self.workers {
            if let Some(go) = &mut worker.go {
                go.write_all(b"\n")?;
            }
        }
        let mut span = (u64::MAX, 0);
        for line in self.wait_for_lines("the storm is over", self.limit)? {
            let times: Vec<u64> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
            let [begun, ended] = times[..] else { return Err(format!("a worker failed: {line}").into()) };
            span = (span.0.min(begun), span.1.max(ended));
        }
        for worker in &mut self.workers {
            worker.child.wait()?;
        }
        Ok(Duration::from_nanos(span.1 - span.0))
    }

    /// Takes a line from each worker.
    fn wait_for_lines(&mut self, what: &str, limit: Duration) -> Result<Vec<String>> {
        let deadline = Instant::now() + limit;
        let mut lines = Vec::new();
        for worker in &mut self.workers {
            let Some(said) = &mut worker.said else { continue };
            while !worker.line.ends_with(b"\n") {
                interrupt::check()?;
                if Instant::now() > deadline {
                    return Err(format!("waited {} s in vain until {what}", limit.as_secs()).into());
                }
                let mut waited = [PollFd::new(std::os::fd::AsFd::as_fd(said), PollFlags::POLLIN)];
                if poll(&mut waited, PollTimeout::from(100u8)).unwrap_or(0) > 0 {
                    let mut bytes = [0; 256];
                    let count = said.read(&mut bytes)?;
                    if count == 0 {
                        return Err("a worker ended by itself".into());
                    }
                    worker.line.extend(&bytes[..count]);
                }
            }
            lines.push(String::from_utf8_lossy(&worker.line).trim().to_owned());
            worker.line.clear();
        }
        Ok(lines)
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for worker in &mut self.workers {
            // One that has ended cannot be killed, which is as well.
            let _ = worker.child.kill();
            let _ = worker.child.wait();
        }
    }
}

/// Spawns one program and waits for its end.
pub(crate) fn once(target: &Path, argument: &str) -> Result<()> {
    interrupt::spawn(Command::new(target).arg(argument).stdout(Stdio::null()))?.wait()?;
    Ok(())
}

/// What a worker does: `order` is what [`Storm::prepare`] gave it.
pub(crate) fn work(order: &[OsString]) -> Result<()> {
    // The benchmark may be killed.
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    let [numbers @ .., target, tag] = order else { return Err("no order".into()) };
    let numbers =
        numbers.iter().map(|word| Ok(word.to_string_lossy().parse()?)).collect::<Result<Vec<u64>>>()?;
    let [first, step, execs, interval_ns, offset_ns] = numbers[..] else {
        return Err("an order of another shape".into());
    };
    let program = CString::new(target.as_bytes())?;
    let mut argument = tag.clone().into_vec();
    argument.push(b'-');
    let prefix = argument.len();
    let (actions, attributes) = (PosixSpawnFileActions::init()?, PosixSpawnAttr::init()?);
    let environment: [CString; 0] = [];

    // The target gets /dev/null for input and output; set up once, it costs nothing in the storm.
    let mut report = File::from(nix::unistd::dup(std::io::stdout())?);
    nix::fcntl::fcntl(&report, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
    report.write_all(b"ready\n")?;
    std::io::stdin().read_exact(&mut [0])?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;

    let begun = monotonic_ns();
    let mut next = begun + offset_ns;
    for number in (first..execs).step_by(usize::try_from(step)?) {
        if interval_ns > 0 {
            // From a fixed beginning, so that being late once does not lower the rate.
            let ahead = next.saturating_sub(monotonic_ns());
            if ahead > 0 {
                std::thread::sleep(Duration::from_nanos(ahead));
            }
            next += interval_ns;
        }
        argument.truncate(prefix);
        write!(argument, "{number}")?;
        let argv = [&program, &CString::new(argument.as_slice())?];
        let pid = posix_spawn(program.as_c_str(), &actions, &attributes, &argv, &environment)
            .map_err(|error| format!("cannot execute {}: {error}", target.display()))?;
        waitpid(pid, None)?;
    }
    writeln!(report, "{begun} {}", monotonic_ns())?;
    Ok(())
}
