//! A program of execwatch's own, executed to see whether it is seen.
//!
//! The kernel tells nobody that it has stopped to send events, nor does a thread that hangs. So where nothing was seen
//! for a while, the daemon executes itself with an argument that makes it go to the CPU in question, execute itself there,
//! and wait. The kernel sends the event from within execve; the listener keeps the time of the last event, and that alone
//! is compared, so that it does no work for this. The child waits until it was seen, so that it can be read also where
//! programs are not held.
//!
//! Somebody may keep a CPU for himself. Only the canary goes there, and the thread that lets it out waits for none: each
//! has its own time.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use super::ListenerCounters;
use crate::clock;
use crate::process::exec::Exec;

/// The argument that makes execwatch a canary; one that is to go to a CPU first has its number behind it.
pub const ARGUMENT: &str = "canary";
/// Within this time after its execve a canary must have been seen.
const PATIENCE: Duration = Duration::from_secs(1);
/// A canary that was not executed within this time hangs: somebody keeps its CPU for himself.
const STUCK: Duration = Duration::from_secs(10);
/// How often it is looked whether one was seen.
const GLANCE: Duration = Duration::from_millis(2);
/// The same when all that are out have had the time of most.
const LATE_GLANCE: Duration = Duration::from_millis(100);
/// Canaries that do not end although they were told to; while there are so many, no more are let out.
const MOST_ENDING: usize = 64;
/// What a canary writes when it is where it should be.
const SONG: u8 = b'.';

/// What the child does: it goes to the CPU it was told of and executes itself there; then it waits until nobody holds the
/// other end of its standard input.
pub fn sing() {
    let mut output = io::stdout();
    if let Some(cpu) = std::env::args().nth(2) {
        let error = go_to(&cpu);
        // Whoever reads it is told; if nobody does, nobody wants to know.
        let _ = write!(output, "{error}");
        return;
    }
    let _ = output.write_all(&[SONG]).and_then(|()| output.flush());
    // Whatever comes, it is over then.
    let _ = io::stdin().lock().read_to_end(&mut Vec::new());
}

/// Comes back only with an error.
fn go_to(cpu: &str) -> io::Error {
    let place = || -> io::Result<()> {
        let mut here = CpuSet::new();
        here.set(cpu.parse().map_err(io::Error::other)?)?;
        Ok(sched_setaffinity(Pid::from_raw(0), &here)?)
    };
    match place() {
        Ok(()) => Command::new("/proc/self/exe").arg(ARGUMENT).env_clear().exec(),
        Err(error) => error,
    }
}

/// True for the exec of a canary of this daemon: nobody else can make a child of it.
pub fn is_own(exec: &Exec) -> bool {
    exec.details.ppid == Some(std::process::id()) && exec.image.argument(1) == Some(ARGUMENT.as_bytes())
}

/// A listener to be tried.
#[derive(Debug, Clone)]
pub struct Probe {
    /// Its CPU; `None` is the listener of all CPUs that have none of their own.
    pub listener: Option<u32>,
    /// Where the canary is executed.
    pub cpu: u32,
    /// What the listener counts.
    pub counters: Arc<ListenerCounters>,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The listener saw it, or something else since.
    Seen,
    /// It did not, within [`PATIENCE`].
    Unseen,
    /// The canary could not be executed.
    NotRun(String),
}

/// The outcome for a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// The listener.
    pub listener: Option<u32>,
    /// What came of it.
    pub outcome: Outcome,
}

/// The thread that executes canaries.
#[derive(Debug)]
pub struct Cage {
    orders: Sender<Probe>,
    tried: Receiver<Tried>,
    /// The listeners that are being tried.
    out: Vec<Option<u32>>,
}

impl Cage {
    /// Starts the thread.
    pub fn open() -> io::Result<Cage> {
        Cage::of("/proc/self/exe".into(), STUCK)
    }

    /// The same with another program, and another time after which one hangs.
    fn of(program: PathBuf, stuck: Duration) -> io::Result<Cage> {
        let (orders, ordered) = crossbeam_channel::unbounded();
        let (tell, tried) = crossbeam_channel::unbounded();
        let mut flock =
            Flock { program, stuck, everywhere: sched_getaffinity(Pid::from_raw(0))?, ..Flock::default() };
        std::thread::Builder::new()
            .name("canary".to_owned())
            .stack_size(128 * 1024)
            .spawn(move || flock.tend(&ordered, &tell))?;
        Ok(Cage { orders, tried, out: Vec::new() })
    }

    /// Has listeners tried, but for those that are being tried already.
    pub fn order(&mut self, probes: impl IntoIterator<Item = Probe>) {
        for probe in probes {
            let listener = probe.listener;
            if !self.out.contains(&listener) && self.orders.send(probe).is_ok() {
                self.out.push(listener);
            }
        }
    }

    /// What came of those of which it is known by now, each once.
    pub fn results(&mut self) -> Vec<Tried> {
        let results: Vec<Tried> = self.tried.try_iter().collect();
        self.out.retain(|listener| results.iter().all(|tried| tried.listener != *listener));
        results
    }
}

/// A canary that was let out.
struct Flown {
    probe: Probe,
    child: Child,
    since_ns: u64,
    let_out: Instant,
    /// When it was heard where it should be.
    heard: Option<Instant>,
}

/// Those that are out, and those that are to end.
#[derive(Default)]
struct Flock {
    program: PathBuf,
    stuck: Duration,
    everywhere: CpuSet,
    out: Vec<Flown>,
    /// When each was told to end, until it was killed.
    ending: Vec<(Child, Option<Instant>)>,
}

impl Flock {
    /// Lets out what is ordered and tells what comes of it, until nobody orders any more.
    fn tend(&mut self, ordered: &Receiver<Probe>, tell: &Sender<Tried>) {
        loop {
            let idle = self.out.is_empty() && self.ending.is_empty();
            let young = self.out.iter().any(|flown| flown.let_out.elapsed() < PATIENCE);
            let probe = match (idle, young) {
                (true, _) => ordered.recv().map_err(|_| RecvTimeoutError::Disconnected),
                (_, true) => ordered.recv_timeout(GLANCE),
                _ => ordered.recv_timeout(LATE_GLANCE),
            };
            let mut results = Vec::new();
            match probe {
                Ok(probe) => results.extend(self.let_out(probe)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            results.extend(self.look());
            self.reap();
            for tried in results {
                if tell.send(tried).is_err() {
                    return;
                }
            }
        }
    }

    /// The outcome if that fails.
    fn let_out(&mut self, probe: Probe) -> Option<Tried> {
        match self.fly(&probe) {
            Ok((child, since_ns)) => {
                self.out.push(Flown { probe, child, since_ns, let_out: Instant::now(), heard: None });
                None
            }
            Err(error) => {
                Some(Tried { listener: probe.listener, outcome: Outcome::NotRun(error.to_string()) })
            }
        }
    }

    fn fly(&self, probe: &Probe) -> io::Result<(Child, u64)> {
        if self.ending.len() >= MOST_ENDING {
            return Err(io::Error::other(format!("{MOST_ENDING} do not end although they were told to")));
        }
        // It begins where nobody hangs, if there is such a place: this thread waits for it to begin.
        let mut free = self.everywhere;
        for flown in &self.out {
            let _ = free.unset(flown.probe.cpu as usize);
        }
        let mut elsewhere = free;
        let _ = elsewhere.unset(probe.cpu as usize);
        // An empty set is refused.
        let _ = [elsewhere, free, self.everywhere]
            .iter()
            .any(|cpus| sched_setaffinity(Pid::from_raw(0), cpus).is_ok());
        let since_ns = clock::monotonic_ns();
        let child = Command::new(&self.program)
            .arg(ARGUMENT)
            .arg(probe.cpu.to_string())
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        Ok((child, since_ns))
    }

    /// Looks at those that are out: what came of those of which it is known now.
    fn look(&mut self) -> Vec<Tried> {
        let mut results = Vec::new();
        for mut flown in std::mem::take(&mut self.out) {
            match flown.outcome(self.stuck) {
                None => self.out.push(flown),
                Some(outcome) => {
                    results.push(Tried { listener: flown.probe.listener, outcome });
                    drop(flown.child.stdin.take());
                    // Where it is it may never end. One that has ended already is nowhere.
                    let pid = flown.child.id().try_into().map(Pid::from_raw);
                    let _ = pid.map(|pid| sched_setaffinity(pid, &self.everywhere));
                    self.ending.push((flown.child, Some(Instant::now())));
                }
            }
        }
        results
    }

    /// Forgets those that have ended, and kills those that do not.
    fn reap(&mut self) {
        self.ending.retain_mut(|(child, told)| {
            if !matches!(child.try_wait(), Ok(None)) {
                return false;
            }
            // Somebody stopped it, for one.
            if told.take_if(|told| told.elapsed() > PATIENCE).is_some() {
                // One that has ended meanwhile cannot be killed and need not be.
                let _ = child.kill();
            }
            true
        });
    }
}

impl Flown {
    /// What came of it, as soon as it is known.
    fn outcome(&mut self, stuck: Duration) -> Option<Outcome> {
        if self.probe.counters.last_event_ns.load(Relaxed) >= self.since_ns {
            return Some(Outcome::Seen);
        }
        match self.heard {
            Some(heard) => (heard.elapsed() > PATIENCE).then_some(Outcome::Unseen),
            None => match self.listen() {
                Ok(true) => {
                    self.heard = Some(Instant::now());
                    None
                }
                Ok(false) if self.let_out.elapsed() > stuck => {
                    let (cpu, time_s) = (self.probe.cpu, stuck.as_secs());
                    Some(Outcome::NotRun(format!("it waits for CPU {cpu} for more than {time_s} s")))
                }
                Ok(false) => None,
                Err(reason) => Some(Outcome::NotRun(reason)),
            },
        }
    }

    /// It is heard; an error is why it never will be.
    fn listen(&mut self) -> Result<bool, String> {
        let Some(output) = &mut self.child.stdout else { return Ok(false) };
        let mut waited = [PollFd::new(output.as_fd(), PollFlags::POLLIN)];
        if !poll(&mut waited, PollTimeout::ZERO).is_ok_and(|ready| ready > 0) {
            return Ok(false);
        }
        let mut said = [0; 256];
        let length = output.read(&mut said).map_err(|error| error.to_string())?;
        match said.get(..length).unwrap_or_default() {
            [SONG, ..] => Ok(true),
            [] => Err("it ended before it was where it should be".to_owned()),
            reason => Err(String::from_utf8_lossy(reason).into_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::*;
    use crate::process::exec::Image;

    /// A program that never comes to CPU 1, refuses CPU 2, ends on the way to CPU 3 and sings on others.
    fn program(folder: &Path) -> PathBuf {
        let path = folder.join("program");
        let text = "#!/bin/sh\ncase $2 in 1) exec sleep 1000;; 2) echo no; exit;; 3) exit;; esac\nprintf .\nread end\n";
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn probe(cpu: u32) -> Probe {
        Probe { listener: Some(cpu), cpu, counters: Arc::default() }
    }

    fn next(cage: &mut Cage) -> Tried {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            match cage.results().as_slice() {
                [] => assert!(Instant::now() < deadline, "nothing comes of it"),
                [only] => return only.clone(),
                several => panic!("{several:?}"),
            }
            std::thread::sleep(GLANCE);
        }
    }

    #[test]
    fn one_that_hangs_keeps_nobody_else_from_being_tried() {
        let folder = tempfile::tempdir().unwrap();
        let mut cage = Cage::of(program(folder.path()), Duration::from_secs(5)).unwrap();
        cage.order([probe(1)]);
        // Its turn does not come again while it is out.
        cage.order([probe(1)]);
        for _ in 0..3 {
            let seen = probe(0);
            seen.counters.last_event_ns.store(u64::MAX, Relaxed);
            cage.order([seen]);
            assert_eq!(next(&mut cage), Tried { listener: Some(0), outcome: Outcome::Seen });
        }
        for (cpu, reason) in [(2, "no\n"), (3, "it ended before it was where it should be")] {
            cage.order([probe(cpu)]);
            let not_run = Outcome::NotRun(reason.to_owned());
            assert_eq!(next(&mut cage), Tried { listener: Some(cpu), outcome: not_run });
        }
        // One that sings and is not seen.
        cage.order([probe(0)]);
        assert_eq!(next(&mut cage), Tried { listener: Some(0), outcome: Outcome::Unseen });
        let Tried { listener, outcome } = next(&mut cage);
        let reason = "it waits for CPU 1 for more than 5 s".to_owned();
        assert_eq!((listener, outcome), (Some(1), Outcome::NotRun(reason)));
        cage.order([probe(2)]);
        assert_eq!(next(&mut cage).listener, Some(2));
    }

    #[test]
    fn only_a_child_of_this_process_is_a_canary() {
        let mut exec = Exec { image: Image::new(Some(b"/x"), Some(&["x", ARGUMENT])), ..Exec::default() };
        exec.details.ppid = Some(std::process::id());
        assert!(is_own(&exec));
        exec.image = Image::new(Some(b"/x"), Some(&["x", "run"]));
        assert!(!is_own(&exec));
        exec.image = Image::new(Some(b"/x"), Some(&["x", ARGUMENT]));
        exec.details.ppid = Some(1);
        assert!(!is_own(&exec));
        exec.details.ppid = None;
        assert!(!is_own(&exec));
    }
}
