//! What is there now: processes, sockets, files. The only part of a story that is read when it is asked for.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use sha2::{Digest, Sha256};

use super::story::FileNow;
use crate::alert::escape::{for_json, of_json};
use crate::calendar;
use crate::clock;
use crate::followup::look::{Looker, Who};
use crate::followup::sockets::LISTEN;
use crate::identity::contents::hexadecimal;
use crate::order;
use crate::process::names::Accounts;
use crate::process::parse;
use crate::process::proc_dir::ProcRoot;
use crate::response::held::{Entry, Held};

/// Bytes of a file of which the SHA-256 is computed, and of all files together.
const LARGEST_HASHED: u64 = 64 << 20;
const MOST_HASHED: u64 = 256 << 20;
/// Bytes read of a cron file, and how many of them are read.
const CRON_FILE: u64 = 256 << 10;
const CRON_FILES: usize = 500;
/// Start times within this distance are the same: /proc is exact to a tick.
const SAME_START_NS: u64 = 50_000_000;
/// Where cron reads what it runs.
const CRON: &[&str] = &[
    "/etc/crontab",
    "/etc/cron.d",
    "/etc/anacrontab",
    "/etc/cron.hourly",
    "/etc/cron.daily",
    "/etc/cron.weekly",
    "/etc/cron.monthly",
    "/var/spool/cron",
    "/var/spool/cron/crontabs",
];

/// What a story asks of the present.
pub trait Look {
    /// The process runs that was made at that time.
    fn runs(&self, pid: u32, start_ns: u64) -> bool;
    /// Addresses at which it listens.
    fn listening(&self, pid: u32) -> Vec<String>;
    /// A user's name.
    fn user(&self, uid: u32) -> Option<String>;
    /// What is at a path, as the process sees it that is given.
    fn file(&mut self, path: &str, seen_by: Option<u32>) -> Option<FileNow>;
    /// What rules hold.
    fn held(&self) -> Vec<Entry>;
    /// The cron files that hold a text.
    fn cron_files(&self, text: &str) -> Vec<String>;
}

/// This host.
pub struct Host {
    proc: Arc<ProcRoot>,
    accounts: Accounts,
    runtime: PathBuf,
    hashed: u64,
}

impl Host {
    /// As /proc and the runtime folder show it.
    pub fn new(runtime: &Path) -> std::io::Result<Host> {
        let proc = Arc::new(ProcRoot::open(Path::new("/proc"))?);
        Ok(Host { proc, accounts: Accounts::default(), runtime: runtime.to_owned(), hashed: 0 })
    }
}

impl Look for Host {
    fn runs(&self, pid: u32, start_ns: u64) -> bool {
        let Ok(bytes) = std::fs::read(format!("/proc/{pid}/stat")) else { return false };
        let Some(stat) = parse::stat(&bytes) else { return false };
        // One that has ended and waits to be reaped does nothing any more.
        let comm_end = bytes.iter().rposition(|&byte| byte == b')');
        let state = comm_end.and_then(|end| bytes.get(end + 2)).copied();
        let start = clock::wall_from_start_ticks(stat.start_ticks);
        !matches!(state, Some(b'Z' | b'X')) && start.abs_diff(start_ns) <= SAME_START_NS
    }

    fn listening(&self, pid: u32) -> Vec<String> {
        let looks = Looker::new(Arc::clone(&self.proc)).look(&[Who { pid, start_ticks: None }]);
        let sockets = looks.into_iter().flatten().flat_map(|look| look.sockets);
        let addresses = sockets.filter_map(|socket| {
            let local = socket.local.filter(|_| socket.state == Some(LISTEN))?;
            Some(format!("{} {local}", socket.protocol.as_str()))
        });
        order::set(addresses).into_iter().collect()
    }

    fn user(&self, uid: u32) -> Option<String> {
        self.accounts.users.name(uid)
    }

    fn file(&mut self, path: &str, seen_by: Option<u32>) -> Option<FileNow> {
        let mut file = open(path, seen_by)?;
        let metadata = file.metadata().ok()?;
        let hashable = metadata.len() <= LARGEST_HASHED && self.hashed + metadata.len() <= MOST_HASHED;
        let sha256 = if hashable {
            self.hashed += metadata.len();
            hash(&mut file, LARGEST_HASHED)
        } else {
            None
        };
        let modified = u64::try_from(metadata.mtime()).unwrap_or(0).saturating_mul(1_000_000_000);
        Some(FileNow {
            size: metadata.len(),
            owner: self.accounts.users.name(metadata.uid()).unwrap_or_else(|| metadata.uid().to_string()),
            mode: format!("{:04o}", metadata.mode() & 0o7777),
            modified: calendar::rfc3339(modified),
            sha256,
        })
    }

    fn held(&self) -> Vec<Entry> {
        Held::list(&self.runtime).unwrap_or_default()
    }

    fn cron_files(&self, text: &str) -> Vec<String> {
        let mut files: Vec<PathBuf> = Vec::new();
        for place in CRON.iter().map(Path::new) {
            match std::fs::read_dir(place) {
                Ok(entries) => files.extend(entries.filter_map(|entry| Some(entry.ok()?.path()))),
                Err(_) => files.push(place.to_owned()),
            }
        }
        files.truncate(CRON_FILES);
        let holds = |path: &PathBuf| {
            let mut options = File::options();
            let options = options.read(true).custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits());
            let Ok(file) = options.open(path) else { return false };
            let mut bytes = Vec::new();
            let regular = file.metadata().is_ok_and(|metadata| metadata.is_file());
            regular
                && file.take(CRON_FILE).read_to_end(&mut bytes).is_ok()
                && bytes.windows(text.len().max(1)).any(|window| window == text.as_bytes())
        };
        files.iter().filter(|path| holds(path)).map(|path| for_json(path.as_os_str().as_bytes())).collect()
    }
}

/// Opens a regular file to read, following no link: whoever made it may have put a link in its place. `seen_by`: below
/// that process's root.
pub fn open(path: &str, seen_by: Option<u32>) -> Option<File> {
    let path = of_json(path);
    if path.first() != Some(&b'/') {
        return None;
    }
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let root = File::open(seen_by.map_or("/".to_owned(), |pid| format!("/proc/{pid}/root"))).ok()?;
    let how = OpenHow::new().flags(flags).resolve(
        ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS,
    );
    let file: OwnedFd = match openat2(&root, OsStr::from_bytes(&path), how) {
        Ok(file) => file,
        // Before Linux 5.6: links in folders are followed, but not out of another root.
        Err(nix::errno::Errno::ENOSYS) if seen_by.is_none() => {
            let mut options = File::options();
            options.read(true).custom_flags(flags.bits()).open(OsStr::from_bytes(&path)).ok()?.into()
        }
        Err(_) => return None,
    };
    let file = File::from(file);
    file.metadata().is_ok_and(|metadata| metadata.is_file()).then_some(file)
}

/// SHA-256 of a file of at most so many bytes.
fn hash(file: &mut File, most: u64) -> Option<String> {
    let mut digest = Sha256::new();
    // One byte more tells a file that has grown.
    let read = std::io::copy(&mut file.take(most + 1), &mut digest).ok()?;
    (read <= most).then(|| hexadecimal(&digest.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_and_links_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().canonicalize().unwrap().join(name);
        std::fs::write(at("plain"), b"abc").unwrap();
        std::os::unix::fs::symlink(at("plain"), at("link")).unwrap();
        std::os::unix::fs::symlink(folder.path(), at("folder")).unwrap();
        let mut host = Host::new(folder.path()).unwrap();
        let mut file = |name: &str| host.file(at(name).to_str().unwrap(), None);
        let found = file("plain").unwrap();
        assert_eq!(found.size, 3);
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(found.sha256.as_deref(), Some(abc));
        assert_eq!((file("link"), file("folder/plain"), file("absent"), file("")), (None, None, None, None));
        nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(file("pipe"), None);
    }

    #[test]
    fn this_process_runs_and_another_start_is_another_process() {
        let host = Host::new(Path::new("/nowhere")).unwrap();
        let stat = std::fs::read("/proc/self/stat").unwrap();
        let start = clock::wall_from_start_ticks(parse::stat(&stat).unwrap().start_ticks);
        let own = std::process::id();
        assert!(host.runs(own, start) && !host.runs(own, start - 5_000_000_000));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("tcp {}", listener.local_addr().unwrap());
        assert!(host.listening(own).contains(&address));
    }
}
