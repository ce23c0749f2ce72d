//! Which files belong to a package: the databases of dpkg, apk and pacman.
//!
//! Loaded only if a rule or exception asks, off the listeners and the worker, as sorted hashes of paths: some 4 MB where
//! 500,000 files are installed. rpm keeps its files in a database of another kind: with rpm alone nothing is known.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use super::index::{open_path, status};
use crate::process::exec::Exec;

/// With more files than this nothing is known.
const MOST_FILES: usize = 4_000_000;
/// A longer file of a database is cut.
const LONGEST_FILE: u64 = 256 << 20;

/// The databases of a host.
#[derive(Debug)]
pub struct Packages {
    root: PathBuf,
    wanted: AtomicBool,
    state: Mutex<State>,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct State {
    /// Sorted hashes of paths; `None` if there is no database that can be read.
    files: Option<Vec<u64>>,
    changed: Option<Vec<Option<SystemTime>>>,
}

impl Default for Packages {
    fn default() -> Self {
        Packages::new("/")
    }
}

impl Packages {
    /// Those of the system below `root`. Nothing is known before [`want`](Self::want) and [`refresh`](Self::refresh).
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Packages {
            root: root.into(),
            wanted: false.into(),
            state: Mutex::default(),
            hasher: RandomState::new(),
        }
    }

    /// A rule asks for them.
    pub fn want(&self) {
        self.wanted.store(true, Relaxed);
    }

    /// Reads the databases if they are wanted and have changed. It takes a second where much is installed.
    pub fn refresh(&self) {
        if !self.wanted.load(Relaxed) {
            return;
        }
        let changed = Some(self.changes());
        if self.lock().changed == changed {
            return;
        }
        let files = self.read();
        *self.lock() = State { files, changed };
    }

    /// Whether the executable belongs to a package; `None` if that is not known: there is no database, the file was
    /// deleted (which an upgrade does, too), or it is another root's, such as a container's.
    pub fn manage(&self, exec: &Exec) -> Option<bool> {
        let path = exec.image.exe()?;
        let listed = self.lists(path)?;
        if !listed {
            return Some(false);
        }
        if exec.image.deleted()? {
            return None;
        }
        // The path is a package's here: is it also this file?
        let here = open_path(&self.root.join(relative(path))).ok().and_then(|fd| status(&fd).ok())?;
        (here.id() == exec.file?.id()).then_some(true)
    }

    /// Whether a package has a file of this path; `None` if there is no database.
    fn lists(&self, path: &[u8]) -> Option<bool> {
        let hash = self.hash(path);
        self.lock().files.as_ref().map(|files| files.binary_search(&hash).is_ok())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hash(&self, path: &[u8]) -> u64 {
        self.hasher.hash_one(path)
    }

    fn changes(&self) -> Vec<Option<SystemTime>> {
        [
            "var/lib/dpkg/status",
            "var/lib/dpkg/info",
            "var/lib/dpkg/diversions",
            "lib/apk/db/installed",
            "var/lib/pacman/local",
        ]
        .iter()
        .map(|path| self.root.join(path).metadata().and_then(|metadata| metadata.modified()).ok())
        .collect()
    }

    fn read(&self) -> Option<Vec<u64>> {
        // Packages list /bin/x where /bin is a link to usr/bin; what is executed is /usr/bin/x.
        let merged: Vec<&[u8]> = [&b"/bin/"[..], b"/sbin/", b"/lib/", b"/lib32/", b"/lib64/", b"/libx32/"]
            .into_iter()
            .filter(|folder| {
                self.root.join(relative(folder.strip_suffix(b"/").unwrap_or(folder))).is_symlink()
            })
            .collect();
        let sbin_merged = self.root.join("usr/sbin").is_symlink();
        let mut files = Vec::new();
        let mut add = |path: &[u8]| {
            let mut real = path.to_vec();
            if merged.iter().any(|folder| path.starts_with(folder)) {
                real.splice(..0, *b"/usr");
            }
            if sbin_merged && real.starts_with(b"/usr/sbin/") {
                real.splice(..b"/usr/sbin".len(), *b"/usr/bin");
            }
            files.push(self.hash(&real));
        };
        let dpkg = self.dpkg(&mut add);
        let apk = self.apk(&mut add);
        let pacman = self.pacman(&mut add);
        if !(dpkg || apk || pacman) || files.len() > MOST_FILES {
            return None;
        }
        files.sort_unstable();
        files.dedup();
        files.shrink_to_fit();
        Some(files)
    }

    /// dpkg: a list for each package. A diverted file lies at another place, unless the package is the one for which it
    /// was diverted (dpkg-divert(1)).
    fn dpkg(&self, add: &mut impl FnMut(&[u8])) -> bool {
        let mut diverted: HashMap<Vec<u8>, (Vec<u8>, Vec<u8>)> = HashMap::new();
        let mut lines = lines(&self.root.join("var/lib/dpkg/diversions"));
        while let (Some(from), Some(to), Some(package)) = (lines.next(), lines.next(), lines.next()) {
            diverted.insert(from, (to, package));
        }
        let mut any = false;
        for path in entries(&self.root.join("var/lib/dpkg/info")) {
            let Some(package) = path.file_name().and_then(|name| name.as_bytes().strip_suffix(b".list"))
            else {
                continue;
            };
            let package = package.split(|&byte| byte == b':').next().unwrap_or(package);
            any = true;
            for line in self::lines(&path) {
                match diverted.get(&line) {
                    Some((to, by)) if by != package => add(to),
                    _ => add(&line),
                }
            }
        }
        any
    }

    /// apk: records of lines `F:folder` and `R:file` (apk-package(5)).
    fn apk(&self, add: &mut impl FnMut(&[u8])) -> bool {
        let (mut any, mut folder) = (false, Vec::new());
        for line in lines(&self.root.join("lib/apk/db/installed")) {
            any = true;
            if let Some(path) = line.strip_prefix(b"F:") {
                folder = path.to_vec();
            } else if let Some(name) = line.strip_prefix(b"R:") {
                add(&[&b"/"[..], folder.as_slice(), if folder.is_empty() { &b""[..] } else { b"/" }, name]
                    .concat());
            }
        }
        any
    }

    /// pacman: in each package's `files`, paths without the first slash below `%FILES%`.
    fn pacman(&self, add: &mut impl FnMut(&[u8])) -> bool {
        let mut any = false;
        for package in entries(&self.root.join("var/lib/pacman/local")) {
            let mut listing = false;
            for line in lines(&package.join("files")) {
                any = true;
                if line.starts_with(b"%") {
                    listing = line == b"%FILES%";
                } else if listing && !line.is_empty() {
                    add(&[b"/", line.as_slice()].concat());
                }
            }
        }
        any
    }
}

/// A path without its first slash.
fn relative(path: &[u8]) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(path.strip_prefix(b"/").unwrap_or(path)))
}

/// The entries of a folder; none if there is no such folder.
fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}

/// The lines of a file; none if there is no such file.
fn lines(path: &Path) -> impl Iterator<Item = Vec<u8>> + use<> {
    let file = std::fs::File::open(path).ok().map(|file| BufReader::new(file.take(LONGEST_FILE)));
    file.into_iter().flat_map(|file| file.split(b'\n').map_while(Result::ok))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::exec::Image;

    struct Root(tempfile::TempDir);

    impl Root {
        fn new(files: &[(&str, &str)]) -> Self {
            let root = Root(tempfile::tempdir().unwrap());
            for (path, text) in files {
                root.write(path, text);
            }
            root
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.0.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }

        fn packages(&self) -> Packages {
            let packages = Packages::new(self.0.path());
            packages.refresh();
            assert_eq!(packages.lists(b"/usr/bin/x"), None, "not wanted yet");
            packages.want();
            packages.refresh();
            packages
        }
    }

    #[test]
    fn dpkg_with_merged_folders_and_diversions() {
        let root = Root::new(&[
            ("var/lib/dpkg/info/a:amd64.list", "/.\n/bin\n/bin/a\n/usr/bin/vi\n"),
            ("var/lib/dpkg/info/b.list", "/usr/bin/b\n/usr/bin/vi\n"),
            ("var/lib/dpkg/info/b.md5sums", "x  usr/bin/no\n"),
            ("var/lib/dpkg/diversions", "/usr/bin/vi\n/usr/bin/vi.real\nb\n"),
            ("usr/bin/a", "a"),
        ]);
        std::os::unix::fs::symlink("usr/bin", root.0.path().join("bin")).unwrap();
        let packages = root.packages();
        for (path, listed) in [
            ("/usr/bin/a", true),
            ("/bin/a", false),
            ("/usr/bin/b", true),
            ("/usr/bin/vi", true),
            ("/usr/bin/vi.real", true),
            ("/usr/bin/no", false),
        ] {
            assert_eq!(packages.lists(path.as_bytes()), Some(listed), "{path}");
        }
    }

    #[test]
    fn apk_and_pacman() {
        let apk = Root::new(&[(
            "lib/apk/db/installed",
            "P:busybox\nF:bin\nR:busybox\na:0:0:755\nF:\nR:init\n\nP:x\nF:usr/bin\nR:x\n",
        )]);
        let packages = apk.packages();
        for (path, listed) in
            [("/bin/busybox", true), ("/init", true), ("/usr/bin/x", true), ("/bin/x", false)]
        {
            assert_eq!(packages.lists(path.as_bytes()), Some(listed), "{path}");
        }
        let pacman = Root::new(&[(
            "var/lib/pacman/local/nc-1/files",
            "%FILES%\nusr/\nusr/bin/nc\n\n%BACKUP%\netc/nc\tabc\n",
        )]);
        let packages = pacman.packages();
        assert_eq!(packages.lists(b"/usr/bin/nc"), Some(true));
        assert_eq!(packages.lists(b"/etc/nc\tabc"), Some(false));
        assert_eq!(Root::new(&[("var/lib/rpm/rpmdb.sqlite", "x")]).packages().lists(b"/usr/bin/x"), None);
    }

    #[test]
    fn a_file_is_managed_if_it_is_the_one_at_the_path() {
        let root = Root::new(&[
            ("var/lib/dpkg/info/a.list", "/usr/bin/a\n/usr/bin/gone\n"),
            ("usr/bin/a", "a"),
            ("tmp/a", "a"),
        ]);
        let packages = root.packages();
        let exec = |link: &str, file: &str| Exec {
            image: Image::new(Some(link.as_bytes()), None::<&[&[u8]]>),
            file: open_path(&root.0.path().join(file)).ok().and_then(|fd| status(&fd).ok()),
            ..Exec::default()
        };
        assert_eq!(packages.manage(&exec("/usr/bin/a", "usr/bin/a")), Some(true));
        assert_eq!(packages.manage(&exec("/tmp/a", "tmp/a")), Some(false));
        assert_eq!(packages.manage(&exec("/tmp/a (deleted)", "none")), Some(false));
        // A container's file of the same path, or one mounted over it.
        assert_eq!(packages.manage(&exec("/usr/bin/a", "tmp/a")), None);
        assert_eq!(packages.manage(&exec("/usr/bin/a (deleted)", "usr/bin/a")), None);
        assert_eq!(packages.manage(&exec("/usr/bin/gone", "none")), None);
        // What is installed later is known after the next look.
        root.write("var/lib/dpkg/info/c.list", "/usr/bin/c\n");
        packages.lock().changed = None;
        packages.refresh();
        assert_eq!(packages.lists(b"/usr/bin/c"), Some(true));
    }
}
