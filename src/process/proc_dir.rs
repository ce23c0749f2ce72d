//! Reading /proc/PID without allocating.

use std::ffi::CStr;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;

use super::file::FileFacts;
use crate::sys;

/// A mounted /proc.
#[derive(Debug)]
pub struct ProcRoot {
    dir: OwnedFd,
}

const FOLDER: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);
/// Room for a pid and the longest name below it.
const LONGEST_NAME: usize = 32;

impl ProcRoot {
    /// Opens the /proc at `path`.
    pub fn open(path: &std::path::Path) -> io::Result<Self> {
        Ok(ProcRoot { dir: open(path, FOLDER, Mode::empty())? })
    }

    /// The folder of a process that cannot end while it is read: it is reached by path each time, which spares opening
    /// and closing it, a fifth of the cost of an exec that matches nothing.
    pub fn held(&self, pid: u32) -> ProcDir<'_> {
        ProcDir { folder: Folder::Path(self.dir.as_fd(), pid) }
    }

    /// Opens the folder of a process: all that is read through it belongs to the same process, even if that ends and
    /// its number is used again; then reading fails.
    pub fn process(&self, pid: u32) -> io::Result<ProcDir<'static>> {
        let mut name = [0; LONGEST_NAME];
        write!(&mut name[..LONGEST_NAME - 1], "{pid}")?;
        let name = CStr::from_bytes_until_nul(&name).map_err(io::Error::other)?;
        Ok(ProcDir { folder: Folder::Open(openat(&self.dir, name, FOLDER, Mode::empty())?) })
    }
}

/// The folder of a process.
#[derive(Debug)]
pub struct ProcDir<'r> {
    folder: Folder<'r>,
}

#[derive(Debug)]
enum Folder<'r> {
    Open(OwnedFd),
    Path(BorrowedFd<'r>, u32),
}

impl ProcDir<'_> {
    /// Calls `call` with a folder and a name in it that stand for `name` in the process's folder.
    fn at<T>(&self, name: &CStr, call: impl FnOnce(BorrowedFd<'_>, &CStr) -> Option<T>) -> Option<T> {
        match &self.folder {
            Folder::Open(dir) => call(dir.as_fd(), name),
            Folder::Path(root, pid) => {
                let mut path = [0; LONGEST_NAME];
                let mut rest = &mut path[..LONGEST_NAME - 1];
                write!(rest, "{pid}/").ok()?;
                rest.write_all(name.to_bytes()).ok()?;
                call(*root, CStr::from_bytes_until_nul(&path).ok()?)
            }
        }
    }

    /// The target of a link, as far as it fits. `None` if the process has gone or the link cannot be read.
    pub fn link<'b>(&self, name: &CStr, buffer: &'b mut [u8]) -> Option<&'b [u8]> {
        self.target(name, buffer).ok()
    }

    /// The same, with why it could not be read.
    pub fn target<'b>(&self, name: &CStr, buffer: &'b mut [u8]) -> io::Result<&'b [u8]> {
        let length = self.at(name, |dir, name| Some(sys::fs::read_link_at(dir, name, buffer)));
        buffer.get(..length.ok_or(Errno::ENOENT)??).ok_or_else(|| Errno::ENAMETOOLONG.into())
    }

    /// The content of a file that is generated in pieces; `None` too if it is longer than `limit`.
    pub fn whole_file(&self, name: &CStr, limit: usize) -> Option<Vec<u8>> {
        self.whole_content(name, limit).ok()
    }

    /// The same, with why it could not be read.
    pub fn whole_content(&self, name: &CStr, limit: usize) -> io::Result<Vec<u8>> {
        use std::io::Read;
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let file = self.at(name, |dir, name| Some(openat(dir, name, flags, Mode::empty())));
        let file = file.ok_or(Errno::ENOENT)??;
        let mut content = Vec::new();
        std::fs::File::from(file).take(limit as u64 + 1).read_to_end(&mut content)?;
        if content.len() > limit { Err(Errno::EFBIG.into()) } else { Ok(content) }
    }

    /// The facts of the file that a link leads to. A network file system answers from what it remembers, if the kernel
    /// has statx(2); some (NFS, 9p) may still ask their server once whether that holds.
    pub fn status(&self, name: &CStr) -> Option<FileFacts> {
        self.at(name, |dir, name| sys::fs::status_at(dir, name).ok())
    }

    /// Opens the file that a link leads to. Without O_PATH it may wait for the file system.
    pub fn open(&self, name: &CStr, flags: OFlag) -> Option<OwnedFd> {
        self.at(name, |dir, name| openat(dir, name, flags, Mode::empty()).ok())
    }

    /// A file's content, as far as it fits. `None` if the process has gone or the file cannot be read.
    pub fn file<'b>(&self, name: &CStr, buffer: &'b mut [u8]) -> Option<&'b [u8]> {
        self.content(name, buffer).ok()
    }

    /// The same, with why it could not be read.
    pub fn content<'b>(&self, name: &CStr, buffer: &'b mut [u8]) -> io::Result<&'b [u8]> {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let file = self.at(name, |dir, name| Some(openat(dir, name, flags, Mode::empty())));
        let file = file.ok_or(Errno::ENOENT)??;
        // One read gives all: these files are generated whole, and cmdline is copied up to the buffer's end.
        loop {
            match nix::unistd::read(&file, buffer) {
                Ok(length) => return buffer.get(..length).ok_or_else(|| Errno::EFBIG.into()),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
