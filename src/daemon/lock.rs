//! One daemon at a time: the lock on `RUNTIME/lock`, which ends with the process, however that ends.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::Failure;
use crate::exit;

/// The lock's file in the runtime folder.
const NAME: &str = "lock";
/// For root alone: who can read it can lock it, and keep every start away.
const MODE: u32 = 0o600;

/// The right to be the daemon of a runtime folder, as long as it lives.
#[derive(Debug)]
pub(super) struct Lock {
    _held: Flock<File>,
}

impl Lock {
    /// Takes the lock, and writes into it who has it.
    pub(super) fn take(folder: &Path) -> Result<Lock, Failure> {
        let path = folder.join(NAME);
        let failed = |error: std::io::Error| Failure {
            code: exit::OS,
            message: format!(
                "{}: the lock that keeps a second execwatch away cannot be taken: {error}; make the folder, or name \
                 another one with `runtime-folder` in [state]",
                path.display()
            ),
        };
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(MODE)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path)
            .map_err(failed)?;
        // One that an earlier version left.
        file.set_permissions(Permissions::from_mode(MODE)).map_err(failed)?;
        let mut held = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(held) => held,
            Err((file, Errno::EWOULDBLOCK)) => return Err(taken(file, &path)),
            Err((_, error)) => return Err(failed(error.into())),
        };
        // For people; what counts is the lock.
        let pid = format!("{}\n", std::process::id());
        held.set_len(0).and_then(|()| held.write_all(pid.as_bytes())).map_err(failed)?;
        Ok(Lock { _held: held })
    }
}

fn taken(file: File, path: &Path) -> Failure {
    let mut text = String::new();
    // Without it the message is only less helpful.
    let _ = file.take(20).read_to_string(&mut text);
    let who =
        text.trim().parse::<u32>().map_or_else(|_| "another process".to_owned(), |pid| format!("pid {pid}"));
    Failure {
        code: exit::RUNNING,
        message: format!(
            "execwatch is already running: {who} holds {}; end that one first, or give this one another \
             `runtime-folder` in [state]",
            path.display()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_of_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("run/execwatch");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(NAME), "").unwrap();
        std::fs::set_permissions(folder.join(NAME), Permissions::from_mode(0o644)).unwrap();
        let first = Lock::take(&folder).ok().unwrap();
        assert_eq!(folder.join(NAME).metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let second = Lock::take(&folder).err().unwrap();
        assert_eq!(second.code, exit::RUNNING);
        assert!(second.message.contains(&format!("pid {}", std::process::id())), "{}", second.message);
        drop(first);
        assert!(Lock::take(&folder).is_ok());
    }

    #[test]
    fn what_is_in_the_way_is_said() {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/dev/null", folder.path().join("lock")).unwrap();
        let failure = Lock::take(folder.path()).err().unwrap();
        assert!(
            failure.code == exit::OS && failure.message.contains("runtime-folder"),
            "{}",
            failure.message
        );
        std::fs::write(folder.path().join("file"), "").unwrap();
        assert_eq!(Lock::take(&folder.path().join("file")).err().unwrap().code, exit::OS);
    }
}
