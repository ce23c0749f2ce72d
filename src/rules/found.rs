//! What was found of the files that need not be there.
//!
//! Without the default configuration file, and without the default folders of rules, execwatch runs with what is compiled
//! in. At a start that is what a host without them wants. At a reload it would take every rule and setting of the
//! administrator out of force because a mount is away or a package is half replaced, and call that success. So what was
//! there when everything was last put in force must be there at the next reload.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::diagnostics::{Diagnostic, Diagnostics, Level};

/// Remembers it from one reading to the next.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// What is in force was read from these.
    before: RefCell<BTreeSet<PathBuf>>,
    /// What was found this time.
    now: RefCell<BTreeSet<PathBuf>>,
}

impl Found {
    /// The file or folder is there.
    pub fn note(&self, path: &Path) {
        self.now.borrow_mut().insert(path.to_owned());
    }

    /// The file or folder is not there, which is a mistake if it was.
    pub fn miss(&self, path: &Path, diagnostics: &Diagnostics) {
        if self.before.borrow().contains(path) {
            let message = "it was there when what is in force was read, and is gone: put it back, or restart execwatch \
                           to run without it";
            diagnostics.push(Diagnostic::whole(Level::Error, path.display().to_string(), message));
        }
    }

    /// Everything was read, and is put in force or not.
    pub fn settle(&self, in_force: bool) {
        let now = self.now.take();
        if in_force {
            self.before.replace(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missed(found: &Found, path: &str) -> bool {
        let diagnostics = Diagnostics::default();
        found.miss(Path::new(path), &diagnostics);
        diagnostics.any_error()
    }

    #[test]
    fn what_was_in_force_may_not_go_and_what_is_new_may_come() {
        let found = Found::default();
        assert!(!missed(&found, "/a"), "nothing has been read before");
        found.settle(true);
        assert!(!missed(&found, "/a"));
        found.note(Path::new("/a"));
        found.settle(true);
        // Also after a reload that was refused.
        for _ in 0..2 {
            assert!(missed(&found, "/a"));
            found.note(Path::new("/b"));
            found.settle(false);
        }
        assert!(!missed(&found, "/b"), "it never was in force");
    }
}
