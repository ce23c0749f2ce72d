//! What is known of one executed program.

use std::sync::OnceLock;

use super::details::Details;
use super::file::{DescribedFile, Descriptor, FileFacts};
use super::relatives::{Ancestors, Learnt};
use crate::response::Response;

/// How sure it is that the program was read as it was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Certainty {
    /// The program was held by a real-time listener on its CPU until everything was read.
    Exact,
    /// As exact, but it may have run on another CPU: the reading took so long, or something speaks for it.
    Likely,
    /// The program ran while it was read.
    #[default]
    BestEffort,
    /// The program already ran when execwatch started; its arguments are what it shows now.
    AlreadyRunning,
    /// The event of its execution was lost, and it was found running afterwards; its arguments are what it shows now.
    Missed,
    /// execwatch did not read it: it is described, or comes from another program's records.
    Reported,
}

impl Certainty {
    /// The word used in alerts.
    pub fn as_str(self) -> &'static str {
        match self {
            Certainty::Exact => "exact",
            Certainty::Likely => "likely",
            Certainty::BestEffort => "best-effort",
            Certainty::AlreadyRunning => "already-running",
            Certainty::Missed => "missed",
            Certainty::Reported => "reported",
        }
    }
}

/// The end of the link /proc/PID/exe when the file was unlinked.
const DELETED: &[u8] = b" (deleted)";

/// Executable and arguments: what is read of every exec.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    exe: Vec<u8>,
    exe_known: bool,
    arguments: Vec<u8>,
    arguments_known: bool,
    cut: bool,
}

impl Image {
    /// An image built by hand.
    pub fn new<A: AsRef<[u8]>>(exe: Option<&[u8]>, argv: Option<&[A]>) -> Self {
        let mut image = Image::default();
        if let Some(exe) = exe {
            image.set_exe(exe);
        }
        if let Some(argv) = argv {
            let joined: Vec<u8> =
                argv.iter().flat_map(|argument| argument.as_ref().iter().copied().chain([0])).collect();
            image.set_arguments(&joined, false);
        }
        image
    }

    /// Forgets everything but the buffers.
    pub fn clear(&mut self) {
        self.exe.clear();
        self.arguments.clear();
        self.exe_known = false;
        self.arguments_known = false;
        self.cut = false;
    }

    /// Takes the target of /proc/PID/exe.
    pub fn set_exe(&mut self, link: &[u8]) {
        self.exe.clear();
        self.exe.extend_from_slice(link);
        self.exe_known = true;
    }

    /// Takes /proc/PID/cmdline; `cut` says that there was more.
    pub fn set_arguments(&mut self, cmdline: &[u8], cut: bool) {
        self.arguments.clear();
        self.arguments.extend_from_slice(cmdline);
        self.arguments_known = true;
        self.cut = cut;
    }

    /// The target of /proc/PID/exe as the kernel gives it; `None` if it could not be read.
    pub fn link(&self) -> Option<&[u8]> {
        self.exe_known.then_some(&self.exe)
    }

    /// The executed file, links resolved, without the kernel's mark of a deleted file; `None` if it could not be read.
    pub fn exe(&self) -> Option<&[u8]> {
        let path = self.exe.strip_suffix(DELETED).unwrap_or(&self.exe);
        self.exe_known.then_some(path)
    }

    /// The executable was unlinked, or never had a name.
    pub fn deleted(&self) -> Option<bool> {
        self.exe_known.then(|| self.exe.ends_with(DELETED))
    }

    /// The executable is anonymous memory (memfd_create(2)).
    pub fn memfd(&self) -> Option<bool> {
        self.exe_known.then(|| self.exe.starts_with(b"/memfd:") && self.exe.ends_with(DELETED))
    }

    /// Base name of the executable; of a memfd, the name it was given.
    pub fn name(&self) -> Option<&[u8]> {
        let exe = self.exe()?;
        Some(if self.memfd() == Some(true) { &exe[b"/memfd:".len()..] } else { base_name(exe) })
    }

    /// The argument list with argv\[0\], each argument without its NUL; `None` if it could not be read.
    pub fn argv(&self) -> Option<Argv<'_>> {
        self.arguments_known.then(|| Argv {
            rest: Some(&self.arguments).filter(|bytes| !bytes.is_empty()).map(Vec::as_slice),
        })
    }

    /// Argument `index` of the list.
    pub fn argument(&self, index: usize) -> Option<&[u8]> {
        self.argv()?.nth(index)
    }

    /// The bytes of /proc/PID/cmdline without the last NUL: arguments separated by NULs.
    pub fn raw_arguments(&self) -> Option<&[u8]> {
        self.arguments_known.then(|| self.arguments.strip_suffix(&[0]).unwrap_or(&self.arguments))
    }

    /// /proc/PID/cmdline as far as it was kept: arguments, each with its NUL.
    pub fn cmdline(&self) -> Option<&[u8]> {
        self.arguments_known.then_some(&self.arguments)
    }

    /// The argument list was cut at the limit.
    pub fn cut(&self) -> bool {
        self.cut
    }

    /// Keeps the first `bytes` bytes of the argument list.
    pub fn cut_arguments(&mut self, bytes: usize) {
        if bytes < self.arguments.len() {
            self.arguments.truncate(bytes);
            self.cut = true;
        }
    }

    /// Bytes held.
    pub fn len(&self) -> usize {
        self.exe.len() + self.arguments.len()
    }

    /// Nothing is known.
    pub fn is_empty(&self) -> bool {
        !self.exe_known && !self.arguments_known
    }

    /// There is room for an argument list of more than `bytes`.
    pub fn is_larger_than(&self, bytes: usize) -> bool {
        self.arguments.capacity() > bytes
    }

    /// Gives room for an argument list of more than `bytes` back.
    pub fn shrink(&mut self, bytes: usize) {
        if self.is_larger_than(bytes) {
            self.arguments = Vec::new();
        }
    }
}

/// The arguments of an [`Image`].
#[derive(Debug, Clone)]
pub struct Argv<'a> {
    rest: Option<&'a [u8]>,
}

impl<'a> Iterator for Argv<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest?;
        match rest.iter().position(|&byte| byte == 0) {
            Some(end) => {
                self.rest = Some(&rest[end + 1..]).filter(|tail| !tail.is_empty());
                Some(&rest[..end])
            }
            // The last argument lost its NUL: the list was cut, or the program overwrote it.
            None => {
                self.rest = None;
                Some(rest)
            }
        }
    }
}

/// What follows the last slash.
pub fn base_name(path: &[u8]) -> &[u8] {
    path.rsplit(|&byte| byte == b'/').next().unwrap_or(path)
}

/// One executed program.
#[derive(Debug, Clone, Default)]
pub struct Exec {
    /// Process id; 0 if it is not known.
    pub pid: u32,
    /// The CPU on which it was executed; meaningless for a process that already ran.
    pub cpu: u32,
    /// CLOCK_MONOTONIC in nanoseconds: when it was executed, or when it was found running.
    pub timestamp_ns: u64,
    /// From the event to the end of the reading, in nanoseconds.
    pub hold_ns: u64,
    /// How sure the rest is.
    pub certainty: Certainty,
    /// Executable and arguments.
    pub image: Image,
    /// The executable's file; `None` if it was not looked at or could not be.
    pub file: Option<FileFacts>,
    /// What it brings along of its file; `None` where it was read here.
    pub described: Option<Box<DescribedFile>>,
    /// SHA-256 of the executable, once the worker has computed it.
    pub sha256: OnceLock<[u8; 32]>,
    /// Keeps the file's content within reach, if the worker needs it.
    pub descriptor: Descriptor,
    /// The rest.
    pub details: Details,
    /// The processes it comes from. Found by the worker: of an exec on the hot path none is known.
    pub ancestors: Ancestors,
    /// What was done about it, if a rule asks for it.
    pub response: Option<Response>,
}

impl Exec {
    /// Makes the process that made this one its parent, where events tell which it was: /proc only knows who adopted an
    /// orphan.
    pub fn take_maker(&mut self) {
        let Some(maker) = self.ancestors.processes.first() else { return };
        let details = &mut self.details;
        if let Some(ppid) = details.ppid.filter(|&ppid| ppid != maker.pid) {
            details.adopter = Some(ppid);
            details.ppid = Some(maker.pid);
            details.parent = maker.image.clone();
        } else if maker.learnt != Learnt::Unknown {
            details.parent = maker.image.clone();
        }
    }
}

impl Exec {
    /// Bytes held, for the bound on queued events.
    pub fn len(&self) -> usize {
        self.image.len() + self.details.len()
    }

    /// Nothing was read.
    pub fn is_empty(&self) -> bool {
        self.image.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn argv(cmdline: &[u8]) -> Vec<Vec<u8>> {
        let mut image = Image::default();
        image.set_arguments(cmdline, false);
        image.argv().unwrap().map(<[u8]>::to_vec).collect()
    }

    #[test]
    fn arguments_are_split_at_nuls() {
        assert_eq!(argv(b"nc\0-e\0/bin/sh\0"), [&b"nc"[..], b"-e", b"/bin/sh"]);
        assert_eq!(argv(b"nc\0\0x\0"), [&b"nc"[..], b"", b"x"]);
        assert_eq!(argv(b"\0"), [b""]);
        assert_eq!(argv(b""), Vec::<Vec<u8>>::new());
        assert_eq!(argv(b"title without nul"), [b"title without nul"]);
    }

    #[test]
    fn deleted_and_memfd() {
        let exe = |link: &[u8]| {
            let mut image = Image::default();
            image.set_exe(link);
            (image.exe().unwrap().to_vec(), image.name().unwrap().to_vec(), image.deleted(), image.memfd())
        };
        assert_eq!(
            exe(b"/usr/bin/nc.openbsd"),
            (b"/usr/bin/nc.openbsd".to_vec(), b"nc.openbsd".to_vec(), Some(false), Some(false))
        );
        assert_eq!(exe(b"/tmp/x (deleted)"), (b"/tmp/x".to_vec(), b"x".to_vec(), Some(true), Some(false)));
        assert_eq!(
            exe(b"/memfd:nc (deleted)"),
            (b"/memfd:nc".to_vec(), b"nc".to_vec(), Some(true), Some(true))
        );
        // A folder of that name is not a memfd.
        assert_eq!(exe(b"/memfd:x/nc").3, Some(false));
        assert_eq!(Image::default().deleted(), None);
    }

    proptest! {
        #[test]
        fn any_argument_list_comes_back(list in proptest::collection::vec(proptest::collection::vec(1u8.., 0..20), 1..10)) {
            let image = Image::new(None, Some(&list));
            let back: Vec<Vec<u8>> = image.argv().unwrap().map(<[u8]>::to_vec).collect();
            prop_assert_eq!(back, list);
        }
    }
}
