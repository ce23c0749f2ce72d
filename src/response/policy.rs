//! What listeners know for their decisions: settings, guard rails, names of users and groups, the host's time zone.
//!
//! The worker makes it whole and [publishes](crate::published) it.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::sync::Arc;

use std::os::unix::ffi::OsStrExt;

use super::guard::Rails;
use super::{Mode, Settings};
use crate::alert::Clock;
use crate::calendar::LocalTime;
use crate::clock;
use crate::process::details::Namespaces;
use crate::process::exec::Exec;
use crate::process::names::{Accounts, Names};
use crate::process::place::Place;
use crate::process::proc_dir::{ProcDir, ProcRoot};
use crate::process::relatives::{HostProcesses, Processes};
use crate::published::Published;
use crate::sys;

/// Longest /proc/PID/cgroup that is read.
const LONGEST_CGROUP: usize = 64 << 10;

/// What decisions are made with.
#[derive(Debug)]
pub struct Policy {
    /// `[response]`
    pub settings: Settings,
    /// What is never touched.
    pub rails: Rails,
    /// Names of users and of groups.
    names: [Arc<HashMap<u32, String>>; 2],
    /// Seconds that the host's time zone is ahead of UTC.
    zone_s: i32,
}

impl Policy {
    /// Names for whoever must not wait for a file.
    pub(super) fn accounts(&self) -> Accounts {
        let [users, groups] = &self.names;
        Accounts { users: Names::fixed(Arc::clone(users)), groups: Names::fixed(Arc::clone(groups)) }
    }

    /// The host's clocks, for whoever must not take the lock of the time zone.
    pub(super) fn clock(&self) -> ListenerClock {
        ListenerClock { zone_s: self.zone_s }
    }
}

/// True for a program of the host: not of a container, by its control group or its namespaces.
pub(super) fn on_host(exec: &Exec, host: &Namespaces) -> bool {
    is_on_host(&exec.details.namespaces, host, exec.details.cgroup())
}

/// The same of a process as it runs now, for the worker: reading its control group may wait.
pub(super) fn runs_on_host(dir: &ProcDir<'_>, host: &Namespaces) -> bool {
    is_on_host(&Namespaces::of(dir), host, dir.whole_file(c"cgroup", LONGEST_CGROUP).as_deref())
}

fn is_on_host(own: &Namespaces, host: &Namespaces, cgroup: Option<&[u8]>) -> bool {
    let same = |own: Option<u64>, host: Option<u64>| own.zip(host).is_none_or(|(own, host)| own == host);
    same(own.pid, host.pid)
        && same(own.user, host.user)
        && cgroup.is_none_or(|cgroup| Place::of_cgroup(cgroup).container_id.is_none())
}

/// The clocks, with a time zone that another thread looks up.
#[derive(Debug, Clone, Copy)]
pub(super) struct ListenerClock {
    zone_s: i32,
}

impl Clock for ListenerClock {
    fn wall_from_monotonic(&self, stamp_ns: u64) -> u64 {
        clock::wall_from_monotonic(stamp_ns)
    }

    fn wall_from_start_ticks(&self, ticks: u64) -> u64 {
        clock::wall_from_start_ticks(ticks)
    }

    fn local(&self, seconds: u64) -> Option<LocalTime> {
        let local = seconds.checked_add_signed(self.zone_s.into())?;
        // The first of January 1970 was a Thursday.
        let weekday = (local / 86_400 + 4) % 7;
        Some(LocalTime { hour: (local / 3600 % 24) as u8, weekday: weekday as u8 })
    }
}

/// Makes policies and keeps those that listeners still use.
#[derive(Debug)]
pub struct PolicyKeeper {
    shared: Arc<Published<Policy>>,
    accounts: Accounts,
    settings: Settings,
    own: Vec<(u32, u64)>,
    own_exe: Vec<u8>,
    init_exe: Vec<u8>,
    replaced: Vec<Arc<Policy>>,
}

impl PolicyKeeper {
    /// Makes the first policy.
    pub fn new(settings: Settings, proc: &Arc<ProcRoot>) -> io::Result<Self> {
        let link = |path: &str| fs::read_link(path).map(|path| path.as_os_str().as_bytes().to_vec());
        let accounts = Accounts::default();
        let own = itself_and_ancestors(proc);
        let own_exe = link("/proc/self/exe")?;
        // Another user's daemon, as in a test without root, cannot read it.
        let init_exe = link("/proc/1/exe").unwrap_or_default();
        let names = [Arc::new(accounts.users.all()), Arc::new(accounts.groups.all())];
        let policy = policy(&settings, &own, &own_exe, &init_exe, names, zone_now())?;
        let shared = Arc::new(Published::new(policy));
        Ok(PolicyKeeper { shared, accounts, settings, own, own_exe, init_exe, replaced: Vec::new() })
    }

    /// What listeners share.
    pub fn shared(&self) -> Arc<Published<Policy>> {
        Arc::clone(&self.shared)
    }

    /// What is configured.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Changes what is configured, from the next [`tick`](Self::tick) on.
    pub fn configure(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// Makes a new policy if something changed, and frees what nobody uses any more.
    pub fn tick(&mut self) -> io::Result<()> {
        // Whoever has it is a listener, and takes the newer one with its next decision.
        self.replaced.retain(|old| Arc::strong_count(old) > 1);
        let current = self.shared.current();
        if self.settings.mode == Mode::Off && current.settings.mode == Mode::Off {
            return Ok(());
        }
        let zone_s = zone_now();
        let [users, groups] = &current.names;
        let (users, users_changed) = newer(&self.accounts.users, users);
        let (groups, groups_changed) = newer(&self.accounts.groups, groups);
        if users_changed || groups_changed || zone_s != current.zone_s || self.settings != current.settings {
            let names = [users, groups];
            let new = policy(&self.settings, &self.own, &self.own_exe, &self.init_exe, names, zone_s)?;
            self.replaced.push(self.shared.replace(Arc::new(new)));
        }
        Ok(())
    }
}

/// The names of now; the same ones if they have not changed.
fn newer(names: &Names, last: &Arc<HashMap<u32, String>>) -> (Arc<HashMap<u32, String>>, bool) {
    if names.are(last) { (Arc::clone(last), false) } else { (Arc::new(names.all()), true) }
}

fn zone_now() -> i32 {
    sys::time::offset(clock::realtime_ns() / 1_000_000_000)
}

fn policy(
    settings: &Settings,
    own: &[(u32, u64)],
    own_exe: &[u8],
    init_exe: &[u8],
    names: [Arc<HashMap<u32, String>>; 2],
    zone_s: i32,
) -> io::Result<Policy> {
    let protected = Rails::patterns(&settings.protected).map_err(|(_, message)| io::Error::other(message))?;
    let rails = Rails {
        own: own.to_vec(),
        own_pid: std::process::id(),
        own_exe: own_exe.to_vec(),
        init_exe: init_exe.to_vec(),
        protected,
    };
    Ok(Policy { settings: settings.clone(), rails, names, zone_s })
}

/// This process and its ancestors, by pid and start time.
fn itself_and_ancestors(proc: &Arc<ProcRoot>) -> Vec<(u32, u64)> {
    let processes = HostProcesses::new(Arc::clone(proc));
    let mut found = Vec::new();
    let mut next = Some(std::process::id());
    while let Some(process) = next.filter(|&pid| pid != 0).and_then(|pid| processes.find(pid, None)) {
        next = process.ppid;
        found.extend(process.start_ticks.map(|start| (process.pid, start)));
    }
    found
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::published::Reader;

    fn keeper() -> PolicyKeeper {
        let proc = Arc::new(ProcRoot::open(Path::new("/proc")).unwrap());
        PolicyKeeper::new(Settings { mode: Mode::DryRun, ..Settings::default() }, &proc).unwrap()
    }

    #[test]
    fn a_changed_setting_reaches_a_reader_and_the_old_policy_is_freed_by_the_keeper() {
        let mut keeper = keeper();
        let mut reader = Reader::new(keeper.shared());
        keeper.tick().unwrap();
        assert!(!reader.refresh(), "nothing changed");
        keeper.configure(Settings { mode: Mode::Enforce, ..Settings::default() });
        keeper.tick().unwrap();
        keeper.tick().unwrap();
        assert_eq!(keeper.replaced.len(), 1, "the reader has it still");
        assert!(reader.refresh());
        assert_eq!(reader.get().settings.mode, Mode::Enforce);
        keeper.tick().unwrap();
        assert!(keeper.replaced.is_empty());
    }

    #[test]
    fn it_knows_itself_and_who_is_above() {
        let keeper = keeper();
        assert_eq!(keeper.own[0].0, std::process::id());
        assert_eq!(keeper.own[1].0, nix::unistd::getppid().as_raw() as u32);
        let reader = Reader::new(keeper.shared());
        assert_eq!(reader.get().accounts().users.name(0).as_deref(), Some("root"));
    }

    #[test]
    fn local_time_is_that_of_the_c_library() {
        let now = clock::realtime_ns() / 1_000_000_000;
        let own = ListenerClock { zone_s: sys::time::offset(now) };
        assert_eq!(own.local(now), Some(sys::time::local(now)));
        // Midnight, and a Sunday: 2026-11-22.
        assert_eq!(
            ListenerClock { zone_s: 3600 }.local(1_795_301_999),
            Some(LocalTime { hour: 23, weekday: 6 })
        );
        assert_eq!(
            ListenerClock { zone_s: 3600 }.local(1_795_302_000),
            Some(LocalTime { hour: 0, weekday: 0 })
        );
    }
}
