//! A folder for root alone. Everything in it is reached through its descriptor, and no link is followed, so that nobody
//! else can put another file in the place of one of ours.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::fcntl::{Flock, FlockArg, OFlag, openat, renameat};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};

/// An open folder.
#[derive(Debug)]
pub struct Folder {
    descriptor: File,
    path: PathBuf,
}

fn refused(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, why)
}

impl Folder {
    /// Opens a folder that is there.
    pub fn open_at(path: &Path) -> io::Result<Folder> {
        let flags = OFlag::O_NOFOLLOW | OFlag::O_DIRECTORY;
        let descriptor = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
        let metadata = descriptor.metadata()?;
        if metadata.uid() != geteuid().as_raw() {
            return Err(refused("it belongs to somebody else"));
        }
        if metadata.mode() & 0o077 != 0 {
            fchmod(&descriptor, Mode::S_IRWXU)?;
        }
        Ok(Folder { descriptor, path: path.to_owned() })
    }

    /// Opens a folder, and makes it if there is none.
    pub fn make(path: &Path) -> io::Result<Folder> {
        match Folder::open_at(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                DirBuilder::new().recursive(true).mode(0o700).create(path)?;
                Folder::open_at(path)
            }
            result => result,
        }
    }

    /// Locks the folder for this process, as long as the value lives; an error of kind `WouldBlock` if another has it.
    pub fn lock(&self) -> io::Result<Flock<File>> {
        let copy = self.reopen()?;
        Flock::lock(copy, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| error.into())
    }

    /// A descriptor of its own for the same folder: a lock belongs to the opened file, not to the process.
    fn reopen(&self) -> io::Result<File> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(File::from(openat(&self.descriptor, ".", flags, Mode::empty())?))
    }

    /// Where it is, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names of all files in it that are text, but for hidden ones.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::from_fd(self.reopen()?.into())?.into_iter() {
            if let Ok(name) = entry?.file_name().to_str()
                && !name.starts_with('.')
            {
                names.push(name.to_owned());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn open_with(&self, name: &str, flags: OFlag) -> io::Result<File> {
        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let file = File::from(openat(self.descriptor.as_fd(), name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?);
        let metadata = file.metadata()?;
        if !metadata.is_file() || metadata.uid() != geteuid().as_raw() {
            return Err(refused("it is no file of ours"));
        }
        Ok(file)
    }

    /// Opens a file to read.
    pub fn open(&self, name: &str) -> io::Result<File> {
        self.open_with(name, OFlag::O_RDONLY)
    }

    /// Opens a file to read and write.
    pub fn open_to_write(&self, name: &str) -> io::Result<File> {
        self.open_with(name, OFlag::O_RDWR)
    }

    /// Makes a file that is not there.
    pub fn create(&self, name: &str) -> io::Result<File> {
        self.open_with(name, OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL)
    }

    /// Gives a file another name, in the place of one that has it.
    pub fn rename(&self, old: &str, new: &str) -> io::Result<()> {
        Ok(renameat(&self.descriptor, old, &self.descriptor, new)?)
    }

    /// Removes a file.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        Ok(unlinkat(&self.descriptor, name, UnlinkatFlags::NoRemoveDir)?)
    }

    /// Writes to the disk which files there are.
    pub fn synchronise(&self) -> io::Result<()> {
        self.descriptor.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn for_root_alone() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("a/b");
        assert_eq!(Folder::open_at(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
        let folder = Folder::make(&path).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        folder.create("x").unwrap();
        assert_eq!(mode(&path.join("x")), 0o600);
        assert_eq!(folder.create("x").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        Folder::make(&path).unwrap();
        assert_eq!(mode(&path), 0o700);
    }

    #[test]
    fn links_are_not_followed() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("real");
        let folder = Folder::make(&path).unwrap();
        symlink(&path, temporary.path().join("link")).unwrap();
        assert!(Folder::make(&temporary.path().join("link")).is_err());
        std::fs::write(temporary.path().join("outside"), "x").unwrap();
        symlink(temporary.path().join("outside"), path.join("inside")).unwrap();
        assert!(folder.open("inside").is_err() && folder.open_to_write("inside").is_err());
        std::fs::create_dir(path.join("folder")).unwrap();
        assert!(folder.open("folder").is_err());
        nix::unistd::mkfifo(&path.join("pipe"), Mode::S_IRWXU).unwrap();
        assert!(folder.open("pipe").is_err());
        assert_eq!(folder.names().unwrap(), ["folder", "inside", "pipe"]);
    }

    #[test]
    fn one_has_the_lock() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = Folder::make(&temporary.path().join("f")).unwrap();
        let lock = folder.lock().unwrap();
        assert_eq!(folder.lock().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(lock);
        folder.lock().unwrap();
    }
}
