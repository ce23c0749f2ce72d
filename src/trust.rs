//! Whether files that a daemon of root obeys belong to root alone.
//!
//! Who may write the configuration or a rule decides what execwatch sees, and where it writes. So the opened file, and
//! the folder that its name stands in, must be owned by root and not be writable by group or others; of a symbolic link,
//! the folder of the link and that of its target. What matters is the file that was opened and not what its name stands
//! for a moment later: as nobody but root can change these folders, the two are the same.
//!
//! Folders further up are not asked for, like sudo does: with them a host on which `/usr/local` belongs to a group (Debian
//! until 12) could keep nothing in `/usr/local/etc`, and who moves a folder that is higher up can only put another one of
//! root's in its place. A sticky folder such as /tmp is none that is trusted: everyone may add a file to it.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, SFlag};

use crate::diagnostics::{Diagnostic, Diagnostics, Level};
use crate::sys;

/// Write permission of group and others.
const OTHERS_WRITE: u32 = 0o022;
/// Links that are followed from one name; the kernel follows as many.
const MOST_LINKS: usize = 40;

/// What is made of files that others than root may write.
#[derive(Debug, Default)]
pub struct Trust {
    level: Option<Level>,
    /// Folders that were looked at.
    seen: RefCell<BTreeSet<PathBuf>>,
}

impl Trust {
    /// They are refused: for the daemon.
    pub fn required() -> Self {
        Trust { level: Some(Level::Error), ..Trust::default() }
    }

    /// Root is told that the daemon would refuse them. Everyone else may try out files of their own.
    pub fn told() -> Self {
        let root = nix::unistd::geteuid().is_root();
        Trust { level: root.then_some(Level::Warning), ..Trust::default() }
    }

    /// It does not matter.
    pub fn unasked() -> Self {
        Trust::default()
    }

    /// Looks at an opened file and at the folders that its name leads through.
    pub fn file(&self, path: &Path, file: &File, diagnostics: &Diagnostics) {
        if self.level.is_some() {
            let mut found = Vec::new();
            self.look_at_file(path, file, &mut found);
            self.tell(&found, diagnostics);
        }
    }

    /// Looks at a folder of files, and if its name is a link, at those that it leads through.
    pub fn folder(&self, path: &Path, diagnostics: &Diagnostics) {
        if self.level.is_some() {
            let mut found = Vec::new();
            self.look_at_folder(path, &mut found);
            self.tell(&found, diagnostics);
        }
    }

    /// What the daemon would refuse of the file or folder `path`; nothing if it is not there.
    pub fn refused(path: &Path) -> Vec<Distrust> {
        let (trust, mut found) = (Trust::default(), Vec::new());
        match path.metadata() {
            Ok(about) if about.is_dir() => trust.look_at_folder(path, &mut found),
            Ok(_) => {
                if let Ok(file) = File::open(path) {
                    trust.look_at_file(path, &file, &mut found);
                }
            }
            Err(_) => {}
        }
        found
    }

    fn look_at_file(&self, path: &Path, file: &File, found: &mut Vec<Distrust>) {
        found.extend(Distrust::of(path, "file", file));
        self.holders(path, found);
    }

    fn look_at_folder(&self, path: &Path, found: &mut Vec<Distrust>) {
        self.open_folder(path, found);
        if path.is_symlink() {
            self.holders(path, found);
        }
    }

    /// The folder in which a name stands, and if that is a link, those of the names it leads to.
    fn holders(&self, path: &Path, found: &mut Vec<Distrust>) {
        let mut name = path.to_owned();
        for _ in 0..MOST_LINKS {
            let folder = match name.parent() {
                Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
                Some(parent) => parent,
                None => return,
            };
            self.open_folder(folder, found);
            let Ok(target) = std::fs::read_link(&name) else { return };
            name = folder.join(target);
        }
    }

    fn open_folder(&self, path: &Path, found: &mut Vec<Distrust>) {
        if !self.seen.borrow_mut().insert(path.to_owned()) {
            return;
        }
        // Whoever reads it says what is wrong if it cannot be opened.
        if let Ok(folder) = open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()) {
            found.extend(Distrust::of(path, "folder", &folder));
        }
    }

    fn tell(&self, found: &[Distrust], diagnostics: &Diagnostics) {
        let Some(level) = self.level else { return };
        let who = if level == Level::Error { "execwatch refuses" } else { "the daemon refuses" };
        for Distrust { path, what, reason, remedy } in found {
            let message = format!("{who} this {what}: {reason}: {remedy}");
            diagnostics.push(Diagnostic::whole(level, path.display().to_string(), message));
        }
    }
}

/// A file or folder that is not trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Distrust {
    /// Its path.
    pub path: PathBuf,
    /// Whether it is a file or a folder.
    pub what: &'static str,
    /// Why.
    pub reason: String,
    /// What to do.
    pub remedy: String,
}

impl Distrust {
    fn of(path: &Path, what: &'static str, opened: &impl AsFd) -> Option<Self> {
        let (reason, remedy) = match sys::fs::status_at(opened.as_fd(), c"") {
            Ok(status) => reason(path, status.uid, status.mode)?,
            Err(error) => (format!("its owner cannot be read: {error}"), "`ls -l` shows it".to_owned()),
        };
        Some(Distrust { path: path.to_owned(), what, reason, remedy })
    }
}

/// Why a file or folder with this owner and mode is not trusted, and what to do.
fn reason(path: &Path, uid: u32, mode: u32) -> Option<(String, String)> {
    let path = path.display();
    let writers = match mode & OTHERS_WRITE {
        0o020 => Some("its group"),
        0o002 => Some("everyone"),
        0 => None,
        _ => Some("its group and everyone"),
    };
    // A folder that everybody is to share, a device: others need them as they are.
    let kind = SFlag::from_bits_truncate(mode & SFlag::S_IFMT.bits());
    let is_common = mode & Mode::S_ISVTX.bits() != 0 || ![SFlag::S_IFREG, SFlag::S_IFDIR].contains(&kind);
    let remedy = match (uid, writers) {
        (0, None) => return None,
        _ if is_common => "put its files into a folder of root's alone, such as /etc/execwatch".to_owned(),
        (0, Some(_)) => format!("`chmod go-w {path}`"),
        (_, None) => format!("`chown root: {path}`"),
        (_, Some(_)) => format!("`chown root: {path}` and `chmod go-w {path}`"),
    };
    let owner = (uid != 0).then(|| format!("it is owned by uid {uid}, not by root"));
    let writers = writers.map(|who| format!("{who} may write it"));
    let what: Vec<String> = owner.into_iter().chain(writers).collect();
    let reason = format!(
        "{}; who may write it decides what execwatch sees, so it must be root's alone",
        what.join(", and ")
    );
    Some((reason, remedy))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    fn said(look: impl FnOnce(&Trust, &Diagnostics)) -> Vec<String> {
        let (trust, diagnostics) = (Trust::required(), Diagnostics::default());
        look(&trust, &diagnostics);
        diagnostics.into_list().iter().map(ToString::to_string).collect()
    }

    fn file(path: &Path) -> Vec<String> {
        said(|trust, diagnostics| trust.file(path, &File::open(path).unwrap(), diagnostics))
    }

    #[test]
    fn reasons_and_remedies() {
        let of = |uid, mode| {
            let (reason, remedy) = reason(Path::new("/x"), uid, mode).unwrap_or_default();
            format!("{reason}: {remedy}")
        };
        assert_eq!(of(0, 0o100_644), ": ");
        assert_eq!(of(0, 0o040_755), ": ");
        assert!(of(0, 0o100_664).starts_with("its group may write it;"));
        assert!(of(0, 0o041_777).starts_with("its group and everyone may write it;"), "sticky or not");
        for shared in [0o041_777, 0o020_666, 0o010_666] {
            assert!(
                of(0, shared)
                    .ends_with("put its files into a folder of root's alone, such as /etc/execwatch")
            );
        }
        assert!(of(0, 0o100_602).ends_with("`chmod go-w /x`"));
        assert!(of(7, 0o100_600).starts_with("it is owned by uid 7, not by root;"));
        assert!(of(7, 0o100_666).ends_with("`chown root: /x` and `chmod go-w /x`"));
    }

    #[test]
    fn files_folders_and_links() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name);
        let mode = |name: &str, mode| {
            std::fs::set_permissions(place(name), std::fs::Permissions::from_mode(mode)).unwrap();
        };
        for name in ["good", "open"] {
            std::fs::create_dir(place(name)).unwrap();
            mode(name, 0o755);
            std::fs::write(place(name).join("x.toml"), "").unwrap();
        }
        mode("open", 0o1777);
        assert_eq!(file(&place("good/x.toml")), [""; 0]);
        // Trusted itself, but in a folder in which everyone may put another.
        let list = file(&place("open/x.toml"));
        assert_eq!(list.len(), 1, "{list:?}");
        assert!(list[0].starts_with(&format!("{}: execwatch refuses this folder", place("open").display())));
        // A link's folder counts, and its target's, through any number of links.
        symlink(place("open/x.toml"), place("good/link.toml")).unwrap();
        symlink("link.toml", place("good/again.toml")).unwrap();
        assert_eq!(file(&place("good/again.toml")), list);
        symlink("../good/x.toml", place("open/back.toml")).unwrap();
        assert_eq!(file(&place("open/back.toml")).len(), 1);
        symlink("loop.toml", place("good/loop.toml")).unwrap();
        said(|trust, diagnostics| {
            trust.file(&place("good/loop.toml"), &File::open("/dev/null").unwrap(), diagnostics)
        });
        // The file itself: what was opened, whatever its name stands for now.
        let opened = File::open(place("good/x.toml")).unwrap();
        chown(place("good/x.toml"), Some(4711), None).unwrap();
        std::fs::rename(place("good/x.toml"), place("good/y.toml")).unwrap();
        std::fs::write(place("good/x.toml"), "").unwrap();
        let list = said(|trust, diagnostics| trust.file(&place("good/x.toml"), &opened, diagnostics));
        assert!(list.len() == 1 && list[0].contains("owned by uid 4711"), "{list:?}");
        // A folder of rules, by its name and by a link, is reported once.
        symlink(place("open"), place("rules.d")).unwrap();
        let list = said(|trust, diagnostics| {
            trust.folder(&place("rules.d"), diagnostics);
            trust.folder(&place("rules.d"), diagnostics);
        });
        assert_eq!(list.len(), 1, "{list:?}");
        assert_eq!(said(|trust, diagnostics| trust.folder(&place("good"), diagnostics)), [""; 0]);
    }
}
