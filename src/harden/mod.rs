//! What the daemon gives up once it is set up, so that a mistake in it, or a program that makes use of one, can do less.
//!
//! In: the configuration, and what the parts that were switched on need. [`process`] is called once, on the only thread
//! that there is, just before the others start: capabilities and system call filters belong to threads, and each thread
//! begins with those of the one that starts it. [`enter`] is called by each thread first of all and takes away what its
//! [role](roles::Role) does not need. Nothing here is worth a failure of the start: what a kernel does not offer is said.
//!
//! `docs/hardening.md` tells an administrator what is kept and why.

pub mod filter;
pub mod roles;

use std::fs::File;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, getgroups, setgroups};

use crate::config::Hardening;
use crate::sys;
use roles::Role;

/// A capability (capabilities(7)), its number and why the daemon keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capability {
    /// Its name, without CAP_.
    pub name: &'static str,
    /// Its bit.
    pub number: u8,
    /// What would not work without it.
    pub reason: &'static str,
}

/// What is always kept.
pub const KEPT: [Capability; 4] = [
    Capability {
        name: "NET_ADMIN",
        number: 12,
        reason: "new listeners for CPUs that come: to subscribe before Linux 6.6, and for their receive buffers",
    },
    Capability {
        name: "SYS_PTRACE",
        number: 19,
        reason: "executable, folder, environment and namespaces in /proc of processes of other users",
    },
    Capability {
        name: "DAC_READ_SEARCH",
        number: 2,
        reason: "files and folders that are closed to root's own permission bits: executables, /proc, namespaces",
    },
    Capability {
        name: "SYS_NICE",
        number: 23,
        reason: "real-time priority of new listeners, and holding a program on its CPU",
    },
];

/// Kept only if responses are configured, or something is still held.
pub const KILL: Capability =
    Capability { name: "KILL", number: 5, reason: "responses that end, stop or continue a process" };

/// Kept only if programs are held.
pub const IPC_LOCK: Capability = Capability {
    name: "IPC_LOCK",
    number: sys::privilege::IPC_LOCK,
    reason: "memory that comes into use later stays as well: no listener waits for a disk while it holds a program",
};

/// What parts that are switched on need besides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs {
    /// Processes are sent signals, also from listeners: rules may ask for a response, or something is held from before.
    pub responses: bool,
    /// Programs are held while they are read.
    pub holding: bool,
}

impl Needs {
    /// The capabilities to keep.
    pub fn capabilities(self) -> impl Iterator<Item = Capability> {
        KEPT.into_iter().chain(self.holding.then_some(IPC_LOCK)).chain(self.responses.then_some(KILL))
    }
}

/// Threads enter their roles. Only the daemon switches it on: in the tests of its parts there is nothing to filter.
static FILTERED: AtomicBool = AtomicBool::new(false);
/// Listeners may send signals.
static RESPONSES: AtomicBool = AtomicBool::new(false);

/// When the kernel is short of memory, others are ended before the daemon: it is small, and the host would be blind. It is
/// not -1000, which would make it immune: if it is itself what takes the memory, ending it is right.
const OOM_SCORE: i32 = -900;
/// How long a real-time thread may use its CPU without waiting once, in microseconds, before the kernel sends SIGXCPU to
/// the daemon, and until it kills it. The last resort against a listener that spins: [`crate::connector::stuck`] sees it
/// after three seconds.
const SPIN_LIMIT_US: (u64, u64) = (10_000_000, 12_000_000);

/// Hardens the process. To be called when there is one thread.
pub fn process(settings: Hardening, needs: Needs) {
    umask(Mode::from_bits_truncate(0o077));
    let mut given_up = vec!["no core dumps".to_owned(), "no new privileges".to_owned()];
    said("core dumps", setrlimit(Resource::RLIMIT_CORE, 0, 0));
    // Nobody of the same user, and no program that it might be made to execute, may look into its memory.
    said("dumpable", prctl::set_dumpable(false));
    said("no new privileges", prctl::set_no_new_privs());
    if let Err(error) = sys::privilege::refuse_new_code() {
        log::debug!("memory may be made executable, as before Linux 6.3: {error}");
    }
    if let Err(error) = lower_oom_score() {
        log::warn!(
            "the kernel may end execwatch when memory is short: its score cannot be lowered: {error}; start it with \
             CAP_SYS_RESOURCE, or with OOMScoreAdjust={OOM_SCORE} under systemd"
        );
    }
    said("limit of spinning threads", limit_spinning());
    if needs.responses
        && let Err(error) = join_terminals()
    {
        log::info!(
            "[response] terminal-message reaches root's terminals alone: the group tty cannot be joined: {error}"
        );
    }
    if settings.capabilities {
        let kept: Vec<Capability> = needs.capabilities().collect();
        let mask = kept.iter().fold(0, |mask, capability| mask | 1 << capability.number);
        match sys::privilege::keep_capabilities(mask) {
            Ok(()) => {
                let names: Vec<&str> = kept.iter().map(|capability| capability.name).collect();
                given_up.push(format!("no capabilities but {}", names.join(", ")));
            }
            Err(error) => log::warn!("capabilities that are not needed cannot be given up: {error}"),
        }
    }
    if settings.system_calls {
        RESPONSES.store(needs.responses, Relaxed);
        match filter::install(Role::Main, needs.responses) {
            Ok(()) => {
                FILTERED.store(true, Relaxed);
                given_up.push("system calls by role".to_owned());
            }
            Err(error) => log::warn!("system calls are not filtered: {error}"),
        }
    }
    log::info!("hardened: {}", given_up.join("; "));
}

/// Joins the group that may write to users' terminals: to tell them of a response, without the capability to write to any
/// file, and to no terminal whose user wants no messages (mesg(1)).
fn join_terminals() -> nix::Result<()> {
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let terminals =
        groups.lines().find_map(|line| line.strip_prefix("tty:")?.split(':').nth(1)?.parse().ok());
    let Some(terminals) = terminals.map(Gid::from_raw) else { return Ok(()) };
    let mut own = getgroups()?;
    if own.contains(&terminals) {
        return Ok(());
    }
    own.push(terminals);
    setgroups(&own)
}

/// Leaves the calling thread only what its role needs. Does nothing where [`process`] was not called or filters nothing.
pub fn enter(role: Role) {
    if FILTERED.load(Relaxed)
        && let Err(error) = filter::install(role, RESPONSES.load(Relaxed))
    {
        // The filter of the whole process holds for it.
        log::warn!("the system calls of a thread ({role:?}) are not filtered further: {error}");
    }
}

fn said(what: &str, result: nix::Result<()>) {
    if let Err(error) = result {
        log::warn!("hardening: {what}: {error}");
    }
}

fn lower_oom_score() -> std::io::Result<()> {
    const FILE: &str = "/proc/self/oom_score_adj";
    let set = std::fs::read_to_string(FILE)?.trim().parse::<i32>();
    // Whoever starts it may have chosen another.
    if set.is_ok_and(|score| score < 0) {
        return Ok(());
    }
    File::options().write(true).open(FILE)?.write_all(OOM_SCORE.to_string().as_bytes())
}

/// Never raises what was set from outside.
fn limit_spinning() -> nix::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_RTTIME)?;
    setrlimit(Resource::RLIMIT_RTTIME, soft.min(SPIN_LIMIT_US.0), hard.min(SPIN_LIMIT_US.1))
}
