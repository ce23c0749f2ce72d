//! How often rules and exceptions took effect, kept over restarts in a small file, so that what never does can be found.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::rules::ruleset::RuleSet;

/// What is remembered of a rule or exception.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hit {
    /// When it was first loaded, in seconds since 1970.
    pub since: u64,
    /// How often it took effect.
    pub count: u64,
    /// When it last did, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<u64>,
}

/// The file's content.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hits {
    /// Rules by id.
    pub rules: BTreeMap<String, Hit>,
    /// Exceptions by id.
    pub exceptions: BTreeMap<String, Hit>,
}

/// A larger file is not one of ours.
const LARGEST: u64 = 16 << 20;

impl Hits {
    /// Where the file is in the state folder.
    pub fn path(folder: &Path) -> PathBuf {
        folder.join("hits.json")
    }

    /// Reads the file; one that is not there is empty.
    pub fn load(folder: &Path) -> std::io::Result<Hits> {
        use std::io::Read;
        let mut text = String::new();
        match std::fs::File::open(Hits::path(folder)) {
            Ok(file) => file.take(LARGEST).read_to_string(&mut text)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Hits::default()),
            Err(error) => return Err(error),
        };
        serde_json::from_slice(text.as_bytes()).map_err(std::io::Error::other)
    }

    /// Writes the file in one step, for root alone.
    pub fn save(&self, folder: &Path) -> std::io::Result<()> {
        use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let path = Hits::path(folder);
        let new = path.with_extension("json.new");
        let mut file =
            std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(serde_json::to_string_pretty(self).map_err(std::io::Error::other)?.as_bytes())?;
        std::fs::rename(new, path)
    }

    /// Adds what happened since the counts were `before`, and forgets what is loaded no longer.
    fn add(
        kept: &mut BTreeMap<String, Hit>,
        counts: impl Iterator<Item = (String, u64)>,
        before: &mut BTreeMap<String, u64>,
        now: u64,
    ) {
        let mut current = BTreeMap::new();
        let mut seen = BTreeMap::new();
        for (id, count) in counts {
            let mut hit = kept.get(&id).copied().unwrap_or(Hit { since: now, ..Hit::default() });
            let new = count.saturating_sub(before.get(&id).copied().unwrap_or(0));
            seen.insert(id.clone(), count);
            if new > 0 {
                hit.count += new;
                hit.last = Some(now);
            }
            current.insert(id, hit);
        }
        *kept = current;
        // A rule that a later reload brings back counts from nothing.
        *before = seen;
    }
}

/// Keeps the file up to date while the daemon runs.
#[derive(Debug)]
pub struct HitKeeper {
    folder: PathBuf,
    hits: Hits,
    rules_before: BTreeMap<String, u64>,
    exceptions_before: BTreeMap<String, u64>,
    saved: Option<Hits>,
    failed: bool,
}

impl HitKeeper {
    /// Reads what was kept. A file that cannot be read is said and begun anew.
    pub fn new(folder: &Path) -> Self {
        let hits = Hits::load(folder).unwrap_or_else(|error| {
            log::warn!(
                "{}: {error}; hits of rules and exceptions are counted anew",
                Hits::path(folder).display()
            );
            Hits::default()
        });
        HitKeeper {
            folder: folder.to_owned(),
            hits,
            rules_before: BTreeMap::new(),
            exceptions_before: BTreeMap::new(),
            saved: None,
            failed: false,
        }
    }

    /// Takes the counts of a rule set and writes the file if anything changed. `now` is in seconds since 1970.
    pub fn update(&mut self, ruleset: &RuleSet, now: u64) {
        let rules = ruleset.rules().iter().map(|rule| (rule.id.clone(), rule.hits()));
        Hits::add(&mut self.hits.rules, rules, &mut self.rules_before, now);
        let exceptions =
            ruleset.exceptions().iter().map(|exception| (exception.id.clone(), exception.hits()));
        Hits::add(&mut self.hits.exceptions, exceptions, &mut self.exceptions_before, now);
        if self.saved.as_ref() == Some(&self.hits) {
            return;
        }
        match self.hits.save(&self.folder) {
            Ok(()) => {
                self.saved = Some(self.hits.clone());
                self.failed = false;
            }
            // Said once: it is no reason to fill the log.
            Err(error) if !self.failed => {
                self.failed = true;
                log::warn!(
                    "hits of rules and exceptions cannot be kept in {}: {error}",
                    Hits::path(&self.folder).display()
                );
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hits_are_added_up_over_restarts() {
        let mut kept = BTreeMap::new();
        let add = |kept: &mut BTreeMap<String, Hit>, before: &mut BTreeMap<String, u64>, count: u64, now| {
            Hits::add(kept, [("a".to_owned(), count)].into_iter(), before, now);
        };
        let mut before = BTreeMap::new();
        add(&mut kept, &mut before, 0, 10);
        assert_eq!(kept["a"], Hit { since: 10, count: 0, last: None });
        add(&mut kept, &mut before, 2, 20);
        add(&mut kept, &mut before, 2, 30);
        assert_eq!(kept["a"], Hit { since: 10, count: 2, last: Some(20) });
        Hits::add(&mut kept.clone(), std::iter::empty(), &mut before, 35);
        add(&mut kept.clone(), &mut before, 1, 36);
        assert_eq!(before["a"], 1);
        add(&mut kept, &mut BTreeMap::new(), 1, 40);
        assert_eq!(kept["a"], Hit { since: 10, count: 3, last: Some(40) });
        Hits::add(&mut kept, std::iter::empty(), &mut before, 50);
        assert!(kept.is_empty());
    }

    #[test]
    fn the_file_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Hits::load(folder.path()).unwrap(), Hits::default());
        let mut hits = Hits::default();
        hits.rules.insert("a".into(), Hit { since: 1, count: 2, last: Some(3) });
        hits.save(folder.path()).unwrap();
        assert_eq!(Hits::load(folder.path()).unwrap(), hits);
        std::fs::write(Hits::path(folder.path()), "{").unwrap();
        assert!(Hits::load(folder.path()).is_err());
    }
}
