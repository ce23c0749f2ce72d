//! The index: the files of the catalogue's utilities that are installed on this host.
//!
//! A file is a utility's if it has the utility's name, links resolved. Names may mislead: many lead to one multi-call
//! program (busybox), and a link may lead to something else altogether (`snap`). So a file that several utilities' names
//! lead to is the one that its own name says, or none; and a link's name counts only if the file's own name begins or ends
//! with it. Scripts are none: what is executed is their interpreter.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirEntryExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::elf::{self, BuildId};
use super::mounts::Mounts;
use crate::order;
use crate::process::exec::base_name;
use crate::process::file::{FileFacts, FileId};
use crate::rules::catalogue::{Catalogue, is_multi_call, is_plain};
use crate::sys;

/// Names of files in one folder that are looked at.
const MOST_NAMES: usize = 50_000;
/// Folders that a pattern such as `/opt/*/bin` stands for at most.
const MOST_FOLDERS: usize = 200;
/// A file with more hard links of different names than this is taken for a multi-call program.
const MOST_PATHS: usize = 8;

/// An installed utility.
#[derive(Debug, PartialEq, Eq)]
pub struct Installed {
    /// The utility's name in the catalogue, which stays when a reload numbers the catalogue anew.
    pub utility: Box<str>,
    /// Where it is installed, links resolved; several for hard links, the utility's own name first.
    pub paths: Vec<Box<[u8]>>,
    /// The file.
    pub file: FileFacts,
    /// Its build-id.
    pub build_id: Option<BuildId>,
}

impl Installed {
    /// The first of its paths.
    pub fn path(&self) -> &[u8] {
        self.paths.first().map_or(b"", |path| path)
    }
}

/// All of them, by what they are recognised by.
#[derive(Debug, Default)]
pub struct Index {
    by_id: FxHashMap<FileId, Arc<Installed>>,
    by_build_id: FxHashMap<BuildId, Arc<Installed>>,
    by_size: FxHashMap<u64, Vec<Arc<Installed>>>,
    /// The host's file systems.
    pub mounts: Mounts,
}

/// Opens a path without opening the file: O_PATH.
pub(super) fn open_path(path: &Path) -> nix::Result<OwnedFd> {
    use nix::fcntl::{OFlag, open};
    open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, nix::sys::stat::Mode::empty())
}

/// The facts of an opened file.
pub(super) fn status(fd: &impl AsFd) -> std::io::Result<FileFacts> {
    sys::fs::status_at(fd.as_fd(), c"")
}

impl Index {
    /// Looks the utilities up in `folders`, each a path in which `*` may stand for a whole name.
    pub fn build(catalogue: &Catalogue, folders: &[PathBuf]) -> Index {
        let mut files: BTreeMap<FileId, Found> = BTreeMap::new();
        let mut inodes: HashSet<u64> = HashSet::new();
        let folders = expand(folders);
        for name in folders.iter().flat_map(|folder| names(folder)) {
            if let Some(utility) = catalogue.look_up(base_name(name.path.as_os_str().as_bytes()))
                && let Some((path, found)) = Found::read(&name.path)
            {
                let found = files.entry(found.file.id()).or_insert(found);
                inodes.insert(found.file.inode);
                found.paths.insert(path);
                found.names.insert((utility, base_name(name.path.as_os_str().as_bytes()).into()));
            }
        }
        // Hard links that have no utility's name.
        for name in
            folders.iter().flat_map(|folder| names(folder)).filter(|name| inodes.contains(&name.inode))
        {
            if let Ok(opened) = open_path(&name.path)
                && let Ok(file) = status(&opened)
                && let Some(found) = files.get_mut(&file.id())
                && let Ok(path) = name.path.canonicalize()
            {
                found.paths.insert(path.as_os_str().as_bytes().into());
            }
        }
        Index::of(files.into_values().filter_map(|found| found.installed(catalogue)))
    }

    /// An index of these.
    pub fn of(installed: impl IntoIterator<Item = Installed>) -> Index {
        let mut index = Index::default();
        let mut ambiguous = HashSet::new();
        for one in installed {
            let one = Arc::new(one);
            index.by_id.insert(one.file.id(), Arc::clone(&one));
            index.by_size.entry(one.file.size).or_default().push(Arc::clone(&one));
            if let Some(build_id) = one.build_id {
                let other = index.by_build_id.entry(build_id).or_insert_with(|| Arc::clone(&one));
                // Linked from the same content, but known as different utilities.
                if other.utility != one.utility {
                    ambiguous.insert(build_id);
                }
            }
        }
        index.by_build_id.retain(|build_id, _| !ambiguous.contains(build_id));
        index
    }

    /// How many files it knows.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// It knows none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// The utility whose very file this is.
    pub fn by_id(&self, file: &FileFacts) -> Option<&Arc<Installed>> {
        // An inode's number is used again after the file was deleted, so the size must fit, too. Not the times: anybody
        // who may write to the file can set them.
        self.by_id.get(&file.id()).filter(|own| own.file.size == file.size)
    }

    /// The utility with this build-id.
    pub fn by_build_id(&self, build_id: &BuildId) -> Option<&Arc<Installed>> {
        self.by_build_id.get(build_id)
    }

    /// Those whose content a file of this size and build-id may have.
    pub fn by_size(&self, size: u64, build_id: Option<BuildId>) -> impl Iterator<Item = &Arc<Installed>> {
        self.by_size.get(&size).into_iter().flatten().filter(move |own| own.build_id == build_id)
    }
}

/// A name in a folder.
struct Name {
    path: PathBuf,
    inode: u64,
}

/// The files and links of a folder.
fn names(folder: &Path) -> impl Iterator<Item = Name> + use<> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.take(MOST_NAMES).map(|entry| Name { path: entry.path(), inode: entry.ino() })
}

/// The folders that patterns stand for, each once, links resolved.
pub(super) fn expand(patterns: &[PathBuf]) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for pattern in patterns {
        let mut found = vec![PathBuf::from("/")];
        for part in pattern.components().skip(1) {
            found = found
                .into_iter()
                .flat_map(|folder| match part.as_os_str() == "*" {
                    false => vec![folder.join(part)],
                    true => {
                        let inner = std::fs::read_dir(folder).into_iter().flatten().flatten();
                        inner.take(MOST_FOLDERS).map(|entry| entry.path()).collect()
                    }
                })
                .filter(|path| path.is_dir())
                .collect();
        }
        for folder in found.into_iter().filter_map(|folder| folder.canonicalize().ok()) {
            if !folders.contains(&folder) {
                folders.push(folder);
            }
        }
    }
    folders
}

/// What was found of a file.
struct Found {
    file: FileFacts,
    build_id: Option<BuildId>,
    /// Links resolved.
    paths: BTreeSet<Box<[u8]>>,
    /// Utilities and their names that lead to it.
    names: BTreeSet<(usize, Box<[u8]>)>,
}

impl Found {
    /// Reads the file at the end of a path, if it is an ELF file.
    fn read(path: &Path) -> Option<(Box<[u8]>, Found)> {
        let path = path.canonicalize().ok()?;
        if !path.metadata().ok()?.is_file() {
            return None;
        }
        let opened = std::fs::File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&path).ok()?;
        let file = status(&opened).ok()?;
        let mut head = [0; elf::HEAD];
        let length = opened.read_at(&mut head, 0).ok()?;
        let head = head.get(..length).filter(|head| file.regular() && elf::is_elf(head))?;
        let found =
            Found { file, build_id: elf::build_id(head), paths: BTreeSet::new(), names: BTreeSet::new() };
        Some((path.as_os_str().as_bytes().into(), found))
    }

    fn installed(self, catalogue: &Catalogue) -> Option<Installed> {
        let paths: Vec<&[u8]> = self.paths.iter().map(|path| &**path).collect();
        let names: Vec<(usize, &[u8])> =
            self.names.iter().map(|(utility, name)| (*utility, &**name)).collect();
        let utility = utility_of(catalogue, &paths, &names)?;
        let is_named = |path: &[u8]| catalogue.look_up(base_name(path)) == Some(utility);
        let mut paths: Vec<Box<[u8]>> = self.paths.into_iter().collect();
        order::by_key(&mut paths, |path| !is_named(path));
        let utility = catalogue.utilities().get(utility)?.name.as_str().into();
        Some(Installed { utility, paths, file: self.file, build_id: self.build_id })
    }
}

/// Which utility a file is that has these paths, and to which these utilities' names lead.
fn utility_of(catalogue: &Catalogue, paths: &[&[u8]], names: &[(usize, &[u8])]) -> Option<usize> {
    let own_names = || paths.iter().map(|path| base_name(path));
    if let Some(multi_call) = own_names().find(|name| is_multi_call(name)) {
        return catalogue.look_up(multi_call);
    }
    if paths.len() > MOST_PATHS {
        return None;
    }
    let own: BTreeSet<usize> = own_names().filter_map(|name| catalogue.look_up(name)).collect();
    let named = if own.is_empty() {
        if !own_names().all(is_plain) {
            return None;
        }
        let leads = |link: &[u8]| own_names().any(|own| is_form_of(own, link));
        // Every one counts against it, but only those that its own name confirms for it.
        if !names.iter().any(|(_, link)| leads(link)) {
            return None;
        }
        names.iter().map(|&(utility, _)| utility).collect()
    } else {
        own
    };
    if named.len() == 1 { named.first().copied() } else { None }
}

/// A program's name that begins or ends with a shorter one, such as `nc.custom`, `tclsh8.6` and `netkit-ftp`.
fn is_form_of(own: &[u8], name: &[u8]) -> bool {
    let begins =
        own.strip_prefix(name).and_then(<[u8]>::first).is_some_and(|next| !next.is_ascii_alphabetic());
    let ends =
        own.strip_suffix(name).and_then(<[u8]>::last).is_some_and(|last| !last.is_ascii_alphanumeric());
    own == name || begins || ends
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::catalogue::Utility;

    fn catalogue() -> Catalogue {
        let utility = |name: &str, aliases: &[&str]| Utility {
            name: name.into(),
            aliases: aliases.iter().map(|&alias| alias.into()).collect(),
            category: "x".into(),
            attack: Vec::new(),
            everyday: false,
            stands_for: Vec::new(),
            note: String::new(),
        };
        Catalogue::new(vec![
            utility("nc", &["nc.openbsd"]),
            utility("curl", &[]),
            utility("busybox", &[]),
            utility("rclone", &[]),
            utility("python", &["python3*"]),
        ])
    }

    #[test]
    fn names_that_lead_to_a_file() {
        let catalogue = catalogue();
        let is = |paths: &[&str], links: &[&str], expected: Option<&str>| {
            let paths: Vec<&[u8]> = paths.iter().map(|path| path.as_bytes()).collect();
            let names: Vec<(usize, &[u8])> = links
                .iter()
                .map(|link| (catalogue.look_up(link.as_bytes()).unwrap(), link.as_bytes()))
                .collect();
            let found = utility_of(&catalogue, &paths, &names);
            let name = found.map(|number| catalogue.utilities()[number].name.as_str());
            assert_eq!(name, expected, "{paths:?} {links:?}");
        };
        is(&["/usr/bin/nc.openbsd"], &["nc", "nc.openbsd"], Some("nc"));
        is(&["/usr/bin/nc.custom"], &["nc"], Some("nc"));
        is(&["/usr/lib/cargo/bin/coreutils"], &["nc"], None);
        is(&["/usr/bin/busybox"], &["nc", "busybox"], Some("busybox"));
        is(&["/usr/bin/busybox"], &["nc"], Some("busybox"));
        is(&["/usr/bin/busybox", "/usr/bin/nc", "/usr/bin/curl"], &["nc", "curl"], Some("busybox"));
        // One program with the names of two, and another that is neither.
        is(&["/usr/bin/nc", "/usr/bin/curl"], &["nc", "curl"], None);
        is(&["/usr/bin/nc.custom"], &["nc", "curl"], None);
        is(&["/usr/bin/snap"], &["rclone"], None);
        is(&["/usr/bin/node"], &["nc"], None);
        is(&["/usr/bin/python3.11"], &["python"], Some("python"));
        is(&["/usr/bin/nc", "/usr/bin/netz"], &["nc"], Some("nc"));
        let many: Vec<String> =
            (0..9).map(|number| format!("/bin/x{number}")).chain(["/bin/nc".into()]).collect();
        is(&many.iter().map(String::as_str).collect::<Vec<_>>(), &["nc"], None);
    }

    #[test]
    fn forms_of_a_name() {
        for (own, name) in [("nc", "nc"), ("nc.custom", "nc"), ("tclsh8.6", "tclsh"), ("netkit-ftp", "ftp")] {
            assert!(is_form_of(own.as_bytes(), name.as_bytes()), "{own} {name}");
        }
        for (own, name) in
            [("ncat", "nc"), ("sync", "nc"), ("snap", "rclone"), ("wrapper", "w"), ("x8nc", "nc")]
        {
            assert!(!is_form_of(own.as_bytes(), name.as_bytes()), "{own} {name}");
        }
    }

    #[test]
    fn files_of_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let own = std::env::current_exe().unwrap();
        let place = |name: &str| folder.path().join(name);
        std::fs::create_dir(place("bin")).unwrap();
        std::fs::copy(&own, place("bin/nc.openbsd")).unwrap();
        std::os::unix::fs::symlink(place("bin/nc.openbsd"), place("bin/nc")).unwrap();
        std::fs::hard_link(place("bin/nc.openbsd"), place("bin/other")).unwrap();
        std::fs::write(place("bin/curl"), "#!/bin/sh\n").unwrap();
        std::os::unix::fs::symlink("/nowhere", place("bin/rclone")).unwrap();
        std::fs::create_dir(place("bin/busybox")).unwrap();
        let index = Index::build(&catalogue(), &[place("*"), place("bin"), place("none")]);
        assert_eq!(index.len(), 1);
        let file = status(&open_path(&place("bin/other")).unwrap()).unwrap();
        let found = index.by_id(&file).unwrap();
        assert_eq!(&*found.utility, "nc");
        let path = |name: &str| place(name).canonicalize().unwrap().as_os_str().as_bytes().to_vec();
        let paths: Vec<Vec<u8>> = found.paths.iter().map(|path| path.to_vec()).collect();
        assert_eq!(paths, [path("bin/nc.openbsd"), path("bin/other")]);
        assert_eq!(index.by_size(file.size, found.build_id).count(), 1);
        // The number of a deleted file's inode may belong to another one.
        assert!(index.by_id(&FileFacts { size: 1, ..file }).is_none());
    }

    #[test]
    fn a_build_id_of_two_utilities_tells_nothing() {
        let opened = std::fs::File::open("/proc/self/exe").unwrap();
        let file = status(&opened).unwrap();
        let one = |utility: &str, inode| Installed {
            utility: utility.into(),
            paths: Vec::new(),
            file: FileFacts { inode, ..file },
            build_id: elf::tests_build_id(),
        };
        let build_id = elf::tests_build_id().unwrap();
        assert!(Index::of([one("nc", 1), one("nc", 2)]).by_build_id(&build_id).is_some());
        assert!(Index::of([one("nc", 1), one("curl", 2)]).by_build_id(&build_id).is_none());
    }
}
