//! Names of users and groups, from /etc/passwd and /etc/group.
//!
//! Not from the name service: a look-up there can block for seconds, or ask a server that an intruder controls. Names of
//! a directory service are therefore shown by number.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// How often the file is looked at.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// A larger file is not read.
const LARGEST: u64 = 16 << 20;

/// The names, read again when the file changes.
#[derive(Debug)]
pub struct Names {
    path: Option<PathBuf>,
    cache: Mutex<Cache>,
    /// Names that do not change, for who must not wait for a file.
    fixed: Option<Arc<HashMap<u32, String>>>,
}

#[derive(Debug, Default)]
struct Cache {
    names: HashMap<u32, String>,
    checked: Option<Instant>,
    modified: Option<SystemTime>,
}

impl Names {
    /// Names from the file at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Names { path: Some(path.into()), cache: Mutex::default(), fixed: None }
    }

    /// No names at all.
    pub fn none() -> Self {
        Names { path: None, cache: Mutex::default(), fixed: None }
    }

    /// These names, which are looked up without a lock.
    pub fn fixed(names: Arc<HashMap<u32, String>>) -> Self {
        Names { fixed: Some(names), ..Names::none() }
    }

    /// These are the names of now.
    pub fn are(&self, names: &HashMap<u32, String>) -> bool {
        self.name(0);
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).names == *names
    }

    /// The names of now.
    pub fn all(&self) -> HashMap<u32, String> {
        // Asking for any name brings the cache up to date.
        self.name(0);
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).names.clone()
    }

    /// The name of a user or group; `None` if the file has none.
    pub fn name(&self, id: u32) -> Option<String> {
        if let Some(fixed) = &self.fixed {
            return fixed.get(&id).cloned();
        }
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.checked.is_none_or(|checked| checked.elapsed() >= CHECK_EVERY) {
            cache.checked = Some(Instant::now());
            self.refresh(&mut cache);
        }
        cache.names.get(&id).cloned()
    }

    /// The number of a user or group of that name.
    pub fn number(&self, name: &str) -> Option<u32> {
        // Asking for any name brings the cache up to date.
        self.name(0);
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let names = self.fixed.as_deref().unwrap_or(&cache.names);
        names.iter().filter(|(_, own)| *own == name).map(|(&id, _)| id).min()
    }

    fn refresh(&self, cache: &mut Cache) {
        // Without the file the last names stay.
        let Some(path) = &self.path else { return };
        let Ok(metadata) = std::fs::metadata(path) else { return };
        let modified = metadata.modified().ok();
        if metadata.len() > LARGEST || (cache.modified.is_some() && cache.modified == modified) {
            return;
        }
        if let Ok(bytes) = std::fs::read(path) {
            cache.names = parse(&String::from_utf8_lossy(&bytes));
            cache.modified = modified;
        }
    }
}

/// The names of this host.
#[derive(Debug)]
pub struct Accounts {
    /// Users.
    pub users: Names,
    /// Groups.
    pub groups: Names,
}

impl Accounts {
    /// No names at all.
    pub fn none() -> Self {
        Accounts { users: Names::none(), groups: Names::none() }
    }
}

impl Default for Accounts {
    fn default() -> Self {
        Accounts { users: Names::new("/etc/passwd"), groups: Names::new("/etc/group") }
    }
}

/// The name of a user or group, as far as it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Name {
    /// It is not known.
    #[default]
    Unknown,
    /// There is none.
    Absent,
    /// This.
    Is(String),
}

impl Name {
    /// The name, if there is one and it is known.
    pub fn known(self) -> Option<String> {
        match self {
            Name::Is(name) => Some(name),
            Name::Unknown | Name::Absent => None,
        }
    }
}

/// Names that a process brings along from the host where it was recorded: its numbers mean nothing on another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnNames {
    /// Of the real user.
    pub user: Name,
    /// Of the effective user.
    pub effective: Name,
    /// Of the user who logged in.
    pub login: Name,
    /// Of the real group.
    pub group: Name,
    /// Of the supplementary groups, or their numbers.
    pub groups: Option<Vec<String>>,
}

impl Names {
    /// The name that a process brings along, or else that of its number here.
    pub fn of(&self, own: Option<&Name>, id: Option<u32>) -> Name {
        match (own, id) {
            (Some(own), _) => own.clone(),
            (None, Some(id)) => self.name(id).map_or(Name::Absent, Name::Is),
            (None, None) => Name::Unknown,
        }
    }
}

/// The first name of each number, as getpwuid(3) gives it; both files have the number in the third field.
fn parse(file: &str) -> HashMap<u32, String> {
    let mut names = HashMap::new();
    for line in file.lines() {
        let mut fields = line.split(':');
        if let (Some(name), Some(_), Some(id)) = (fields.next(), fields.next(), fields.next())
            && let Ok(id) = id.parse()
        {
            names.entry(id).or_insert_with(|| name.to_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_by_number() {
        let names =
            parse("root:x:0:0:root:/root:/bin/bash\ntoor:x:0:0::/:\n#x\nbad:x:y\nwww-data:x:33:33::/:\n");
        assert_eq!(names.get(&0).map(String::as_str), Some("root"));
        assert_eq!(names.get(&33).map(String::as_str), Some("www-data"));
        assert_eq!(names.len(), 2);
    }

    #[test]
    fn a_changed_file_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("passwd");
        std::fs::write(&path, "a:x:1:1::/:\n").unwrap();
        let users = Names::new(&path);
        assert_eq!(users.name(1).as_deref(), Some("a"));
        assert_eq!(users.name(2), None);
        std::fs::write(&path, "b:x:1:1::/:\n").unwrap();
        let file = std::fs::File::options().append(true).open(&path).unwrap();
        file.set_modified(SystemTime::now() + Duration::from_secs(10)).unwrap();
        users.cache.lock().unwrap().checked = None;
        assert_eq!(users.name(1).as_deref(), Some("b"));
    }
}
