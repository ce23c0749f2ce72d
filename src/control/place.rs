//! Where the control socket lies: a folder for root alone, and in it a socket for root alone.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use nix::sys::stat::{Mode, fchmod};

use super::SOCKET;

/// Why there is no control socket.
#[derive(Debug)]
pub enum PlaceError {
    /// The folder cannot be made or looked at.
    Folder(PathBuf, io::Error),
    /// It is not a folder of root's that only root can write to.
    Unsafe(PathBuf),
    /// Another process answers there.
    InUse(PathBuf),
    /// Something that is no socket has the name.
    NoSocket(PathBuf),
    /// It cannot be made.
    Socket(PathBuf, io::Error),
}

impl std::fmt::Display for PlaceError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Folder(path, error) => write!(f, "the folder {} cannot be used: {error}", path.display()),
            Self::Unsafe(path) => write!(
                f,
                "{} is no folder that belongs to root and that only root can write to; choose another with [state] \
                 runtime-folder",
                path.display()
            ),
            Self::InUse(path) => write!(
                f,
                "another process answers at {}; is execwatch running twice? Give the second a [state] runtime-folder of \
                 its own",
                path.display()
            ),
            Self::NoSocket(path) => write!(f, "{} is no socket; move it away", path.display()),
            Self::Socket(path, error) => write!(f, "the socket {} cannot be made: {error}", path.display()),
        }
    }
}

/// Where the socket lies.
pub fn path(folder: &Path) -> PathBuf {
    folder.join(SOCKET)
}

/// Makes the runtime folder if there is none; an error if others than root can write to it.
pub fn prepare(folder: &Path) -> Result<(), PlaceError> {
    let unusable = |error| PlaceError::Folder(folder.to_owned(), error);
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(unusable(error)),
        _ => {}
    }
    let metadata = fs::symlink_metadata(folder).map_err(unusable)?;
    if !metadata.is_dir() || metadata.uid() != 0 || metadata.mode() & 0o022 != 0 {
        return Err(PlaceError::Unsafe(folder.to_owned()));
    }
    Ok(())
}

/// Makes the folder if there is none, and listens in it. What an earlier daemon left is replaced.
pub(super) fn open(folder: &Path) -> Result<UnixListener, PlaceError> {
    prepare(folder)?;
    let path = path(folder);
    match fs::symlink_metadata(&path) {
        Ok(found) if !found.file_type().is_socket() => return Err(PlaceError::NoSocket(path)),
        Ok(_) if UnixStream::connect(&path).is_ok() => return Err(PlaceError::InUse(path)),
        Ok(_) => fs::remove_file(&path).map_err(|error| PlaceError::Socket(path.clone(), error))?,
        Err(_) => {}
    }
    listen_at(&path).map_err(|errno| match errno {
        // Somebody was faster.
        nix::errno::Errno::EADDRINUSE => PlaceError::InUse(path),
        errno => PlaceError::Socket(path, errno.into()),
    })
}

fn listen_at(path: &Path) -> nix::Result<UnixListener> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    // The file gets the mode that the socket has when it is bound (unix_bind), so it is never open to others.
    fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)?;
    bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    listen(&socket, Backlog::new(16)?)?;
    Ok(UnixListener::from(socket))
}
