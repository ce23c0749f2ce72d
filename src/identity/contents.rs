//! SHA-256 of files, for the worker: bounded in size and in time, and remembered.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use sha2::{Digest as _, Sha256};

use super::index::status;
use crate::clock;
use crate::process::file::{FileFacts, FileKey};

/// A SHA-256.
pub type Digest = [u8; 32];

/// A larger file is not hashed: its hash is unknown.
pub const LARGEST: u64 = 64 << 20;
/// Hashes remembered.
const REMEMBERED: usize = 4096;
/// Bytes that may be hashed in a second, on average: about a tenth of what a CPU of today can. Whoever starts many large
/// files makes their hashes unknown, not the worker late.
const BYTES_PER_SECOND: f64 = (32 << 20) as f64;
/// Bytes that may be hashed at once after a quiet time.
const BURST: f64 = (256 << 20) as f64;
/// Bytes read at a time.
const CHUNK: usize = 64 << 10;

/// Hashes that were computed.
#[derive(Debug, Default)]
pub struct Contents(Mutex<State>);

#[derive(Debug)]
struct State {
    remembered: HashMap<FileKey, Digest>,
    /// Bytes that may be hashed now.
    allowance: f64,
    counted: Instant,
}

impl Default for State {
    fn default() -> Self {
        State { remembered: HashMap::new(), allowance: BURST, counted: Instant::now() }
    }
}

impl Contents {
    /// The hash of a file; `None` if it is too large, was changed since its facts were read, cannot be read, or too much
    /// was hashed of late. `open` opens it for reading; the hash is remembered if the file's times tell of each change
    /// (`stamps`).
    pub fn sha256(
        &self,
        file: &FileFacts,
        stamps: bool,
        open: impl FnOnce() -> Option<File>,
    ) -> Option<Digest> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(digest) = state.remembered.get(&file.key()) {
            return Some(*digest);
        }
        if file.size > LARGEST || !file.regular() || !state.allow(file.size) {
            return None;
        }
        let opened = open()?;
        if status(&opened).ok()?.key() != file.key() {
            return None;
        }
        let digest = hash(&opened, file.size)?;
        let after = status(&opened).ok()?;
        if after.key() != file.key() {
            return None;
        }
        if stamps && !after.fresh(i64::try_from(clock::realtime_ns()).unwrap_or(i64::MAX)) {
            if state.remembered.len() >= REMEMBERED {
                state.remembered.clear();
            }
            state.remembered.insert(file.key(), digest);
        }
        Some(digest)
    }
}

impl State {
    fn allow(&mut self, bytes: u64) -> bool {
        let now = Instant::now();
        let since = now.duration_since(self.counted).as_secs_f64();
        self.counted = now;
        self.allowance = (self.allowance + since * BYTES_PER_SECOND).min(BURST);
        let bytes = bytes as f64;
        let allowed = self.allowance >= bytes;
        if allowed {
            self.allowance -= bytes;
        }
        allowed
    }
}

/// Hashes `size` bytes; `None` if there are fewer.
fn hash(file: &File, size: u64) -> Option<Digest> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    while at < size {
        let wanted = usize::try_from(size - at).unwrap_or(CHUNK).min(CHUNK);
        let length = file.read_at(buffer.get_mut(..wanted)?, at).ok().filter(|&length| length > 0)?;
        hash.update(buffer.get(..length)?);
        at += length as u64;
    }
    Some(hash.finalize().into())
}

/// Whether two files of one size have the same bytes in a few places: a cheap no.
pub(super) fn alike(one: &File, other: &File, size: u64) -> bool {
    const PIECE: usize = 4096;
    let mut buffers = ([0; PIECE], [0; PIECE]);
    [0, size / 4, size / 2, size / 4 * 3, size.saturating_sub(PIECE as u64)].into_iter().all(|at| {
        let lengths = (one.read_at(&mut buffers.0, at), other.read_at(&mut buffers.1, at));
        matches!(lengths, (Ok(one), Ok(other)) if one == other && buffers.0[..one] == buffers.1[..other])
    })
}

/// In hexadecimal, small letters.
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_the_standard() {
        // FIPS 180-2 appendix B.1.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abc");
        std::fs::write(&path, "abc").unwrap();
        let open = || File::open(&path).ok();
        let file = status(&open().unwrap()).unwrap();
        let contents = Contents::default();
        let digest = contents.sha256(&file, true, open).unwrap();
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hexadecimal(&digest), expected);
        // Of a file that was changed since, nothing is said.
        assert_eq!(contents.sha256(&FileFacts { changed_ns: 1, ..file }, true, open), None);
        assert_eq!(contents.sha256(&FileFacts { size: LARGEST + 1, ..file }, true, open), None);
        assert_eq!(contents.sha256(&FileFacts { mode: 0o010_644, ..file }, true, open), None);
        assert_eq!(contents.sha256(&file, true, || None), None);
    }

    #[test]
    fn a_settled_file_is_hashed_once() {
        let open = || File::open("/proc/self/exe").ok();
        let file = status(&open().unwrap()).unwrap();
        let settled = FileFacts { changed_ns: 0, ..file };
        let contents = Contents::default();
        contents.0.lock().unwrap().remembered.insert(settled.key(), [7; 32]);
        assert_eq!(contents.sha256(&settled, true, || panic!("opened again")), Some([7; 32]));
    }

    #[test]
    fn too_much_is_not_hashed() {
        let mut state = State::default();
        assert!(state.allow(BURST as u64) && !state.allow(LARGEST));
        state.counted -= std::time::Duration::from_secs(2);
        assert!(state.allow(LARGEST) && !state.allow(LARGEST));
    }

    #[test]
    fn files_that_differ_in_a_piece_are_not_alike() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            File::open(path).unwrap()
        };
        let bytes = vec![5; 50_000];
        let one = file("one", &bytes);
        assert!(alike(&one, &file("copy", &bytes), 50_000));
        let mut other = bytes.clone();
        other[25_100] = 6;
        assert!(!alike(&one, &file("other", &other), 50_000));
        assert!(!alike(&one, &file("short", &bytes[..40_000]), 50_000));
    }
}
