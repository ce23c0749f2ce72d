//! What the baseline remembers an alert by: what was executed, which rule matched, as whom, and from where.
//!
//! The place is told as closely as it stays the same from one time to the next: the parent's executable, and the
//! container or unit it runs in. What is not known makes no tuple, so that nobody becomes normal by being unknown.

use sha2::{Digest, Sha256};

use crate::process::exec::Image;
use crate::process::place::Place;
use crate::process::relatives::Relative;
use crate::rules::fields::Role;
use crate::rules::subject::{Person, Subject};

/// Bytes kept of each text of a tuple, to be shown; what tells tuples apart is the whole.
pub const LONGEST_TEXT: usize = 256;

/// Tells a tuple from others: the first half of the SHA-256 of its texts, so that nobody can make two that are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(pub [u8; 16]);

/// The tuple of an exec and a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tuple {
    /// The id of the rule; empty for the program by itself, whatever rules match it.
    pub rule: String,
    /// The utility, if it is one.
    pub utility: Option<String>,
    /// The executable.
    pub exe: Vec<u8>,
    /// The real user.
    pub uid: u32,
    /// The parent's executable; `None` if it is known that there is no parent.
    pub parent: Option<Vec<u8>>,
    /// The container or unit it runs in, without what is different each time; empty if there is none.
    pub place: String,
    whole: Key,
}

impl Tuple {
    /// The tuple of a program by itself; `None` if a part of it is not known.
    pub fn of_program(subject: &Subject<'_>) -> Option<Tuple> {
        let details = subject.details()?;
        let exe = shown(subject.image())?;
        let utility = subject.utility().and_then(|found| {
            let utility = subject.catalogue().utilities().get(found.utility)?;
            Some(utility.name.clone())
        });
        let parent = match subject.person(Role::Parent) {
            Person::Nobody => None,
            _ => {
                let of_lineage =
                    || subject.ancestors().processes.first().and_then(|it: &Relative| shown(&it.image));
                Some(shown(&details.parent).or_else(of_lineage)?)
            }
        };
        let place = place(subject.place()?);
        Some(Tuple::new("", utility, exe, details.uid(0)?, parent, place))
    }

    /// Of its parts.
    pub fn new(
        rule: &str,
        utility: Option<String>,
        exe: Vec<u8>,
        uid: u32,
        parent: Option<Vec<u8>>,
        place: String,
    ) -> Tuple {
        let mut tuple =
            Tuple { rule: rule.to_owned(), utility, exe, uid, parent, place, whole: Key([0; 16]) };
        tuple.whole = tuple.digest();
        tuple
    }

    /// The tuple of the same program and a rule.
    pub fn with_rule(&self, rule: &str) -> Tuple {
        let program = self.clone();
        Tuple::new(rule, program.utility, program.exe, program.uid, program.parent, program.place)
    }

    /// What tells it from others.
    pub fn key(&self) -> Key {
        self.whole
    }

    /// With its texts cut to [`LONGEST_TEXT`]. Its key stays that of the whole.
    pub fn shortened(&self) -> Tuple {
        let cut = |text: &Vec<u8>| text[..text.len().min(LONGEST_TEXT)].to_vec();
        let place = self.place.chars().take(LONGEST_TEXT / 4).collect();
        Tuple { exe: cut(&self.exe), parent: self.parent.as_ref().map(cut), place, ..self.clone() }
    }

    fn digest(&self) -> Key {
        let mut digest = Sha256::new();
        let none: &[u8] = b"";
        let utility = self.utility.as_ref().map_or(none, String::as_bytes);
        let parent = self.parent.as_deref().unwrap_or(none);
        for part in
            [self.rule.as_bytes(), utility, &self.exe, &self.uid.to_le_bytes(), parent, self.place.as_bytes()]
        {
            // The length keeps parts apart.
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        }
        let digest: [u8; 32] = digest.finalize().into();
        let mut key = [0; 16];
        key.copy_from_slice(&digest[..16]);
        Key(key)
    }
}

impl Key {
    /// In hexadecimal.
    pub fn text(&self) -> String {
        crate::identity::contents::hexadecimal(&self.0)
    }
}

/// The executable; a file that is not there any more is not the one that is.
fn shown(image: &Image) -> Option<Vec<u8>> {
    let mut exe = image.exe()?.to_vec();
    if image.deleted()? {
        exe.extend_from_slice(b" (deleted)");
    }
    Some(exe)
}

/// The container's kind or the unit. A container has another id each time, and so has a session.
fn place(place: &Place) -> String {
    if place.container_id.is_some() {
        return format!("container {}", place.runtime.unwrap_or("of unknown kind"));
    }
    place.unit.as_deref().map_or(String::new(), |unit| format!("unit {}", steady(unit)))
}

/// A unit's name with `*` for an instance and for numbers, but for users' numbers: `session-3.scope` is
/// `session-*.scope`, `sshd@5-10.0.0.1:22.service` is `sshd@*.service`.
fn steady(unit: &str) -> String {
    let (name, kind) = unit.rsplit_once('.').unwrap_or((unit, ""));
    if name.starts_with("user@") || name.starts_with("user-") {
        return unit.to_owned();
    }
    let name = match name.split_once('@') {
        Some((template, _)) => format!("{template}@*"),
        // systemd-run names its units run-rHEX, run-PID and run-uNUMBER.
        None if name.starts_with("run-") => "run-*".to_owned(),
        None => {
            let mut steady = String::new();
            for character in name.chars() {
                match character {
                    '0'..='9' if steady.ends_with('*') => {}
                    '0'..='9' => steady.push('*'),
                    other => steady.push(other),
                }
            }
            steady
        }
    };
    if kind.is_empty() { name } else { format!("{name}.{kind}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(rule: &str, exe: &[u8], parent: Option<&[u8]>) -> Tuple {
        Tuple::new(
            rule,
            Some("nc".into()),
            exe.to_vec(),
            33,
            parent.map(<[u8]>::to_vec),
            "unit a.service".into(),
        )
    }

    #[test]
    fn each_part_tells_tuples_apart() {
        let one = tuple("r", b"/bin/nc", Some(b"/bin/sh"));
        assert_eq!(one.key(), tuple("", b"/bin/nc", Some(b"/bin/sh")).with_rule("r").key());
        let mut keys = vec![
            one.key(),
            tuple("", b"/bin/nc", Some(b"/bin/sh")).key(),
            tuple("r", b"/bin/n", Some(b"c/bin/sh")).key(),
            tuple("r", b"/bin/nc", None).key(),
            Tuple::new("r", None, one.exe.clone(), 33, one.parent.clone(), one.place.clone()).key(),
            Tuple::new("r", one.utility.clone(), one.exe.clone(), 34, one.parent.clone(), one.place.clone())
                .key(),
            Tuple::new("r", one.utility.clone(), one.exe.clone(), 33, one.parent.clone(), String::new())
                .key(),
        ];
        let count = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), count);
    }

    #[test]
    fn long_texts_are_cut_and_told_apart_all_the_same() {
        let path = |end: u8| [vec![b'a'; 5000], vec![end]].concat();
        let (one, other) = (tuple("r", &path(1), None), tuple("r", &path(2), None));
        assert_ne!(one.key(), other.key());
        assert_eq!(one.shortened().key(), one.key());
        assert_eq!(one.shortened().exe.len(), LONGEST_TEXT);
    }

    #[test]
    fn units_without_what_changes() {
        for (unit, expected) in [
            ("nginx.service", "nginx.service"),
            ("session-31.scope", "session-*.scope"),
            ("sshd@5-10.0.0.1:22-10.0.0.2:4711.service", "sshd@*.service"),
            ("user@1000.service", "user@1000.service"),
            ("run-r0123456789abcdef.service", "run-*.service"),
            ("app-x-4711.scope", "app-x-*.scope"),
        ] {
            assert_eq!(steady(unit), expected);
        }
        let container =
            Place { container_id: Some("0123".into()), runtime: Some("docker"), ..Place::default() };
        assert_eq!(place(&container), "container docker");
        assert_eq!(place(&Place::default()), "");
    }
}
