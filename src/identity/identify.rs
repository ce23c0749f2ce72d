//! On a listener's thread: which utility is the file that was just executed?
//!
//! What it costs, for each program: one statx; for a file off the trusted paths that was not seen before, an open, a read
//! of 4 KB and a close besides. What it never does: hash, wait for a server or a disk, take a lock, or look at more than that.

use std::ffi::CStr;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nix::fcntl::OFlag;

use super::elf::{self, BuildId};
use super::index::{Index, Installed};
use super::mounts::Reach;
use super::shared::Shared;
use super::{By, Identity, Mode, Unsettled, is_at_its_place};
use crate::clock;
use crate::process::exec::{Exec, Image};
use crate::process::file::{Descriptor, FileFacts, FileKey, OpenCount};
use crate::process::proc_dir::ProcDir;
use crate::published::Reader;
use crate::rules::catalogue;
use crate::sys;

/// Files remembered by each listener.
const REMEMBERED: usize = 1024;
/// The longest path of a program given to the dynamic loader that is looked up.
const LONGEST_TARGET: usize = 1024;

/// Opens the executable for reading without waiting: not for a terminal, not for the other end of a pipe.
const READ: OFlag = OFlag::O_RDONLY.union(OFlag::O_NONBLOCK).union(OFlag::O_NOCTTY).union(OFlag::O_CLOEXEC);
const PATH: OFlag = OFlag::O_PATH.union(OFlag::O_CLOEXEC);

/// What the beginning of a file told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Head {
    /// Not an ELF file.
    Other,
    /// An ELF file with or without a build-id.
    Elf(Option<BuildId>),
}

/// Looks at files for one listener.
#[derive(Debug)]
pub struct Identifier {
    mode: Mode,
    shared: Arc<Shared>,
    reader: Reader<Index>,
    open: OpenCount,
    /// By a hash of the key; a file that falls on the place of another one takes it.
    remembered: Box<[Option<(FileKey, Head)>]>,
    head: Box<[u8; elf::HEAD]>,
}

/// What a file may be.
#[derive(Debug)]
pub struct Possible<'i> {
    unsettled: Option<Unsettled>,
    index: &'i Index,
    size: u64,
    build_id: Option<BuildId>,
    loaded: bool,
}

impl Possible<'_> {
    /// It is what the dynamic loader was told to run.
    pub fn loaded(&self) -> bool {
        self.loaded
    }

    /// It may be any utility.
    pub fn any(&self) -> bool {
        matches!(self.unsettled, Some(Unsettled::Device | Unsettled::Disk))
    }

    /// The utilities that it may be, besides what is known.
    pub fn utilities(&self) -> impl Iterator<Item = &Arc<Installed>> {
        let by_size = self.index.by_size(self.size, self.build_id);
        by_size.filter(|_| self.unsettled == Some(Unsettled::Content))
    }
}

/// The file that runs: the executable, or what the dynamic loader was told to load.
enum Runs {
    Executable,
    Loaded(OwnedFd),
}

impl Identifier {
    /// One that asks the shared index; `open` counts the descriptors of all listeners.
    pub fn new(mode: Mode, shared: Arc<Shared>, open: OpenCount) -> Self {
        Identifier {
            mode,
            reader: Reader::new(Arc::clone(&shared.index)),
            shared,
            open,
            remembered: vec![None; REMEMBERED].into_boxed_slice(),
            head: Box::new([0; elf::HEAD]),
        }
    }

    /// Reads the facts of the executed file and which utility it is, as far as this can be told at once.
    pub fn identify(&mut self, dir: &ProcDir<'_>, exec: &mut Exec) -> Possible<'_> {
        self.reader.refresh();
        let mut build_id = None;
        if self.mode != Mode::Off
            && let Some(file) = dir.status(c"exe")
        {
            exec.file = Some(file);
            let loaded = loaded(dir, &exec.image);
            let runs = match loaded {
                Some(fd) => Runs::Loaded(fd),
                None => Runs::Executable,
            };
            build_id = self.look(dir, runs, file, exec);
        }
        let size = exec.details.loaded_file.or(exec.file).map_or(0, |file| file.size);
        let loaded = exec.details.loaded_file.is_some();
        Possible { unsettled: exec.details.unsettled, index: self.reader.get(), size, build_id, loaded }
    }

    fn look(&mut self, dir: &ProcDir<'_>, runs: Runs, exe: FileFacts, exec: &mut Exec) -> Option<BuildId> {
        let (file, is_loaded) = match &runs {
            Runs::Executable => (exe, false),
            Runs::Loaded(fd) => {
                let file = sys::fs::status_at(fd.as_fd(), c"").ok()?;
                exec.details.loaded_file = Some(file);
                (file, true)
            }
        };
        let index = self.reader.get();
        let trusted = !is_loaded && index.mounts.trusted(&exec.image, &file);
        let identity = |exec: &Exec, installed: &Arc<Installed>, by| Identity {
            installed: Arc::clone(installed),
            by,
            sha256: None,
            loaded: is_loaded,
            at_its_place: !is_loaded && is_at_its_place(installed, &exec.image, &file, trusted),
        };
        if let Some(installed) = index.by_id(&file) {
            exec.details.identity = Some(identity(exec, installed, By::Inode));
            return None;
        }

        if index.is_empty() || !file.regular() || trusted && self.mode == Mode::UntrustedPaths {
            return None;
        }
        let reach = match index.mounts.reach(file.device) {
            Reach::Unknown => self.shared.learned.reach(file.device),
            reach => reach,
        };
        match reach {
            Reach::Local => {}
            Reach::Remote => {
                exec.details.unsettled = Some(Unsettled::Unreadable);
                return None;
            }
            Reach::Unknown => {
                exec.details.unsettled = Some(Unsettled::Device);
                return None;
            }
        }
        let build_id = match self.head(dir, &runs, &file) {
            Ok(Head::Elf(build_id)) => build_id,
            Ok(Head::Other) => return None,
            Err(unsettled) => {
                exec.details.unsettled = Some(unsettled);
                return None;
            }
        };
        let index = self.reader.get();
        if let Some(installed) = build_id.and_then(|build_id| index.by_build_id(&build_id)) {
            exec.details.identity = Some(identity(exec, installed, By::BuildId));
        } else if index.by_size(file.size, build_id).next().is_some() {
            exec.details.unsettled = Some(Unsettled::Content);
        }
        build_id
    }

    /// What the beginning of the file tells, if it can be read at once.
    fn head(&mut self, dir: &ProcDir<'_>, runs: &Runs, file: &FileFacts) -> Result<Head, Unsettled> {
        let stamps = self.reader.get().mounts.stamps(file.device);
        let key = file.key();
        let place = place(file);
        if let Some(Some((own, head))) = self.remembered.get(place)
            && *own == key
        {
            return Ok(*head);
        }
        let opened = match runs {
            Runs::Executable => dir.open(c"exe", READ),
            Runs::Loaded(fd) => reopen(fd),
        };
        let opened = opened.ok_or(Unsettled::Unreadable)?;
        let length = match sys::fs::read_cached(opened.as_fd(), &mut self.head[..]) {
            // The kernel has just read it to execute it; but not what the loader is going to.
            Err(error) if error.kind() == ErrorKind::Unsupported && matches!(runs, Runs::Executable) => {
                nix::sys::uio::pread(&opened, &mut self.head[..], 0).map_err(|_| Unsettled::Unreadable)?
            }
            Err(error) if error.kind() == ErrorKind::Unsupported => return Err(Unsettled::Disk),
            // A part of it is in memory.
            Ok(length) if (length as u64) < file.size.min(elf::HEAD as u64) => return Err(Unsettled::Disk),
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(Unsettled::Disk),
            Err(_) => return Err(Unsettled::Unreadable),
        };
        let bytes = self.head.get(..length).unwrap_or_default();
        let head = if elf::is_elf(bytes) { Head::Elf(elf::build_id(bytes)) } else { Head::Other };
        if stamps
            && !file.fresh(i64::try_from(clock::realtime_ns()).unwrap_or(i64::MAX))
            && let Some(place) = self.remembered.get_mut(place)
        {
            *place = Some((key, head));
        }
        Ok(head)
    }

    /// Keeps the file of a program that goes to the worker within reach, if its content is needed there.
    pub fn hold(&self, dir: &ProcDir<'_>, content_wanted: bool, exec: &mut Exec) {
        let compared = exec.details.unsettled.is_some_and(Unsettled::is_for_the_worker);
        if compared && exec.details.loaded_file.is_some() {
            exec.descriptor = Descriptor::hold(&self.open, || loaded(dir, &exec.image));
        } else if compared || content_wanted {
            exec.descriptor = Descriptor::hold(&self.open, || dir.open(c"exe", PATH));
        }
    }
}

/// The place where a file is remembered. Whoever chooses inode and time can push others out, which costs a read.
fn place(file: &FileFacts) -> usize {
    let mixed =
        (file.inode ^ u64::from(file.device.1) << 48 ^ file.changed_ns.unsigned_abs().rotate_left(20))
            .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32) as usize % REMEMBERED
}

/// A descriptor for reading in the place of one that only stands for the file.
pub(super) fn reopen(fd: &impl AsFd) -> Option<OwnedFd> {
    use std::io::Write;
    use std::os::fd::AsRawFd;
    let mut path = [0; 32];
    write!(&mut path[..31], "/proc/self/fd/{}", fd.as_fd().as_raw_fd()).ok()?;
    let path = CStr::from_bytes_until_nul(&path).ok()?;
    nix::fcntl::open(path, READ, nix::sys::stat::Mode::empty()).ok()
}

/// The file that the dynamic loader was told to run, as the process finds it: below its root or its working directory.
///
/// Only from the kernel's cache of names, so that the listener waits for no file system (Linux 5.12 and later); the loader
/// opens the file later, so whoever can change a folder on the way may give it another one.
fn loaded(dir: &ProcDir<'_>, image: &Image) -> Option<OwnedFd> {
    let path = catalogue::loaded_program(image)?;
    let mut buffer = [0; LONGEST_TARGET];
    buffer.get_mut(..path.len())?.copy_from_slice(path);
    let path = CStr::from_bytes_until_nul(&buffer).ok()?;
    let absolute = path.to_bytes().starts_with(b"/");
    let start = dir.open(if absolute { c"root" } else { c"cwd" }, PATH)?;
    sys::fs::open_cached(start.as_fd(), path, absolute).ok()
}
