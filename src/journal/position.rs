//! Where an output stands, kept in a small file of its own.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use sha2::{Digest, Sha256};

use super::crc::crc32c;
use super::folder::Folder;

const MAGIC: [u8; 8] = *b"execwpos";
/// Magic bytes, number, checksum of both.
const LENGTH: usize = 20;
/// Longest file name; most file systems take 255 bytes.
const LONGEST_NAME: usize = 200;

/// What a file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// All records up to this one were sent.
    Number(u64),
    /// Something else: it was damaged.
    Damaged,
}

/// The content for a position.
pub fn write(number: u64) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..16].copy_from_slice(&number.to_le_bytes());
    let sum = crc32c(&bytes[..16]);
    bytes[16..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// What the content says.
pub fn read(bytes: &[u8]) -> Kept {
    let number = || {
        let (front, sum) = bytes.first_chunk::<LENGTH>().filter(|_| bytes.len() == LENGTH)?.split_at(16);
        let number = front.strip_prefix(&MAGIC)?.first_chunk()?;
        (crc32c(front).to_le_bytes() == sum).then_some(u64::from_le_bytes(*number))
    };
    number().map_or(Kept::Damaged, Kept::Number)
}

/// The file's name for an output: its own name, with everything but letters, digits and a few marks as in URLs.
pub fn file_name(output: &str) -> String {
    let mut name = String::new();
    for byte in output.bytes() {
        match byte {
            b'-' | b'_' => name.push(byte.into()),
            b'.' if !name.is_empty() => name.push('.'),
            _ if byte.is_ascii_alphanumeric() => name.push(byte.into()),
            _ => name += &format!("%{byte:02x}"),
        }
    }
    if name.len() > LONGEST_NAME {
        let digest = Sha256::digest(output);
        let digest: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        name.truncate(LONGEST_NAME - digest.len() - 1);
        name = format!("{name}-{digest}");
    }
    name
}

/// The output's name, for messages, of a file's name.
pub fn output_name(file: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = file.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(|_| byte == b'%') {
            Some(escaped) => {
                bytes.push(escaped);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A file that is open.
#[derive(Debug)]
pub struct PositionFile {
    file: File,
}

impl PositionFile {
    /// Opens the file of an output, with what it says; makes it, saying `new`, if there is none or it cannot be read.
    pub fn open(folder: &Folder, output: &str, new: u64) -> io::Result<(PositionFile, Option<Kept>)> {
        let name = file_name(output);
        let opened = folder.open_to_write(&name).and_then(|file| {
            let kept = content(&file)?;
            Ok((PositionFile { file }, Some(kept)))
        });
        opened.or_else(|_| {
            // Complete or not there: an empty file would mean that everything is to be repeated.
            let making = format!(".{name}.new");
            let _ = folder.remove(&making);
            let file = folder.create(&making)?;
            file.write_all_at(&write(new), 0)?;
            folder.rename(&making, &name)?;
            Ok((PositionFile { file }, None))
        })
    }

    /// Writes the position down.
    pub fn keep(&self, number: u64) -> io::Result<()> {
        self.file.write_all_at(&write(number), 0)
    }
}

/// What the file of an output says, if it can only be read; `None` if there is no such file. An error says nothing of the
/// position: there is one, and it cannot be read.
pub fn look(folder: &Folder, file: &str) -> io::Result<Option<Kept>> {
    match folder.open(file) {
        Ok(file) => content(&file).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn content(file: &File) -> io::Result<Kept> {
    let mut bytes = [0; LENGTH + 1];
    let length = file.read_at(&mut bytes, 0)?;
    Ok(read(bytes.get(..length).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content() {
        let bytes = write(u64::MAX - 5);
        assert_eq!(read(&bytes), Kept::Number(u64::MAX - 5));
        for at in 0..LENGTH {
            let mut damaged = bytes;
            damaged[at] ^= 4;
            assert_eq!(read(&damaged), Kept::Damaged);
            assert_eq!(read(&bytes[..at]), Kept::Damaged);
        }
        assert_eq!(read(&[&bytes[..], b"x"].concat()), Kept::Damaged);
    }

    #[test]
    fn names() {
        for output in ["syslog /dev/log", "file /var/log/x.json", "tls [::1]:6514", ".", "..", "ä%"] {
            let name = file_name(output);
            assert!(!name.contains('/') && !name.starts_with('.'), "{name}");
            assert_eq!(output_name(&name), output);
        }
        let (one, other) = (file_name(&"/".repeat(300)), file_name(&"/".repeat(301)));
        assert!(one != other && one.len() <= LONGEST_NAME && other.len() <= LONGEST_NAME);
        assert_eq!(output_name("%"), "%");
        assert_eq!(output_name("%zz"), "%zz");
    }

    #[test]
    fn the_file() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = Folder::make(&temporary.path().join("positions")).unwrap();
        let (file, kept) = PositionFile::open(&folder, "syslog /dev/log", 7).unwrap();
        assert_eq!(kept, None);
        assert_eq!(look(&folder, "syslog%20%2fdev%2flog").unwrap(), Some(Kept::Number(7)));
        assert_eq!(look(&folder, "another").unwrap(), None);
        file.keep(9).unwrap();
        let (_, kept) = PositionFile::open(&folder, "syslog /dev/log", 20).unwrap();
        assert_eq!(kept, Some(Kept::Number(9)));
        // What is no file is replaced, and until then it is an error and not an output without a position.
        std::os::unix::fs::symlink("/nowhere", folder.path().join("link")).unwrap();
        assert!(look(&folder, "link").is_err());
        let (_, kept) = PositionFile::open(&folder, "link", 3).unwrap();
        assert_eq!((kept, look(&folder, "link").unwrap()), (None, Some(Kept::Number(3))));
    }
}
