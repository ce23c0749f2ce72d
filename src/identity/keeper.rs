//! The thread that builds the index and follows what is installed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, SystemTime};

use super::index::Index;
use super::mounts::Mounts;
use super::settle::Executables;
use crate::harden;
use crate::harden::roles::Role;
use crate::rules::ruleset::RuleSet;

/// How often it looks whether something was installed or mounted. A utility is known by its file from then on; by its
/// name it is known at once.
const CHECK_EVERY: Duration = Duration::from_secs(10);
/// So long after a change the index is made anew at each look: a folder tells when a file was made in it, not when that
/// was written.
const SETTLED_AFTER: Duration = Duration::from_secs(60);
/// How long the start waits for the first index. It takes some ten milliseconds unless a folder lies on a file system
/// whose server does not answer.
const FIRST_WITHIN: Duration = Duration::from_secs(2);

/// Databases whose change says that packages changed.
const DATABASES: [&str; 5] = [
    "/var/lib/dpkg/status",
    "/lib/apk/db/installed",
    "/var/lib/pacman/local",
    "/var/lib/rpm",
    "/usr/lib/sysimage/rpm",
];

/// The running thread. It ends when this is dropped.
#[derive(Debug)]
pub struct Keeper {
    orders: Sender<Order>,
}

/// Another rule set, and whom to tell when its utilities are found.
#[derive(Debug)]
struct Order(Arc<RuleSet>, Sender<()>);

impl Keeper {
    /// Starts the thread and waits, not for long, until the first index is there.
    pub fn start(
        ruleset: Arc<RuleSet>,
        files: Arc<Executables>,
        folders: Vec<PathBuf>,
    ) -> std::io::Result<Keeper> {
        let (orders, taken) = channel();
        let (first, built) = channel();
        let keeping = move || {
            let keeping = Keeping { ruleset, files, folders, last: Stamp::default(), retired: Vec::new() };
            harden::enter(Role::Identity);
            keeping.run(&taken, &first);
        };
        std::thread::Builder::new().name("identity".to_owned()).spawn(keeping)?;
        if built.recv_timeout(FIRST_WITHIN).is_err() {
            log::warn!(
                "the utilities installed here are not all found yet, so copies of them are known by name only for now: \
                 a folder in identity-folders answers late"
            );
        }
        Ok(Keeper { orders })
    }

    /// Looks for the utilities of another rule set, and waits, not for long, until they are found; false if that takes
    /// longer.
    pub fn replace(&self, ruleset: Arc<RuleSet>) -> bool {
        let (found, told) = channel();
        self.orders.send(Order(ruleset, found)).is_ok() && told.recv_timeout(FIRST_WITHIN).is_ok()
    }
}

/// An index of what is installed now, without a thread.
pub fn build(ruleset: &RuleSet, folders: &[PathBuf]) -> Index {
    let mut index = Index::build(ruleset.catalogue(), folders);
    index.mounts = Mounts::of_this_host();
    index
}

/// When what the index was made of was last changed.
#[derive(Debug, Default, PartialEq, Eq)]
struct Stamp {
    folders: Vec<Option<SystemTime>>,
    mounts: Mounts,
}

impl Stamp {
    /// Something was changed a short time ago, or in the future, as far as the clock can tell.
    fn fresh(&self) -> bool {
        let now = SystemTime::now();
        let settled = |time: &SystemTime| now.duration_since(*time).is_ok_and(|since| since > SETTLED_AFTER);
        !self.folders.iter().flatten().all(settled)
    }
}

struct Keeping {
    ruleset: Arc<RuleSet>,
    files: Arc<Executables>,
    folders: Vec<PathBuf>,
    last: Stamp,
    /// Indexes that a listener may still use.
    retired: Vec<Arc<Index>>,
}

impl Keeping {
    fn run(mut self, orders: &Receiver<Order>, first: &Sender<()>) {
        self.check();
        // Nobody waits for it any more.
        let _ = first.send(());
        loop {
            match orders.recv_timeout(CHECK_EVERY) {
                Err(RecvTimeoutError::Timeout) => self.check(),
                Ok(Order(ruleset, found)) => {
                    self.ruleset = ruleset;
                    self.last = Stamp::default();
                    self.check();
                    let _ = found.send(());
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn check(&mut self) {
        self.retired.retain(|index| Arc::strong_count(index) > 1);
        self.files.packages.refresh();
        let stamp = Stamp { folders: changes(&self.folders), mounts: Mounts::of_this_host() };
        if stamp == self.last && !stamp.fresh() {
            return;
        }
        if stamp.mounts != self.last.mounts {
            self.files.shared.learned.forget();
        }
        let index = build(&self.ruleset, &self.folders);
        let count = index.len();
        self.retired.push(self.files.shared.index.replace(Arc::new(index)));
        log::debug!("{count} files of utilities are installed");
        self.last = stamp;
    }
}

/// When folders and databases were last changed.
fn changes(folders: &[PathBuf]) -> Vec<Option<SystemTime>> {
    let changed = |path: &Path| path.metadata().and_then(|metadata| metadata.modified()).ok();
    let folders = super::index::expand(folders);
    DATABASES.iter().map(Path::new).chain(folders.iter().map(PathBuf::as_path)).map(changed).collect()
}
