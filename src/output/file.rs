//! Records to a file, a line each.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::Destination;
use super::entry::{Entry, Form};
use crate::config;

/// Bytes held back while more records wait, so that a storm is written in few calls.
const BUFFER: usize = 64 * 1024;

/// A file that records are appended to.
#[derive(Debug)]
pub struct FileOutput {
    path: PathBuf,
    form: Form,
    file: Option<File>,
    /// Whole lines; the first of them may have been begun.
    buffer: Vec<u8>,
    /// What the file has of the first line in the buffer.
    begun: Option<Begun>,
    /// Records in the buffer.
    held: u64,
}

/// A line that a full disk, say, cut short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Begun {
    /// Bytes of it that were written.
    bytes: usize,
    /// The file they are in, as it was then.
    place: Place,
}

/// A file and its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    device: u64,
    inode: u64,
    length: u64,
}

impl Place {
    fn of(file: &File) -> io::Result<Place> {
        let metadata = file.metadata()?;
        Ok(Place { device: metadata.dev(), inode: metadata.ino(), length: metadata.len() })
    }
}

/// Somebody was killed while it wrote a line. What follows, its repetition, must not be taken for the rest of it.
fn ends_within_a_line(file: &File, path: &Path) -> bool {
    let length = file.metadata().ok().filter(std::fs::Metadata::is_file).map_or(0, |metadata| metadata.len());
    let mut last = [b'\n'];
    // If it cannot be read, there is nothing to be done about it.
    if let (Some(at), Ok(file)) = (length.checked_sub(1), File::open(path)) {
        let _ = file.read_at(&mut last, at);
    }
    last != [b'\n']
}

/// Opens the file, and makes it if there is none.
fn open(path: &Path) -> io::Result<File> {
    // Alerts hold arguments, and arguments hold passwords: not for everybody. A symbolic link is not followed, so that
    // nobody who may write to the folder can choose the file. Nor is waited for whoever reads a FIFO.
    let mut options = OpenOptions::new();
    options.append(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let refused = || {
        let message = "it is neither a file nor a terminal; give [output.file] another path";
        io::Error::new(io::ErrorKind::InvalidInput, message)
    };
    let file = match options.clone().create_new(true).mode(0o600).open(path) {
        Ok(file) => {
            // For the group of a folder with the set-group-id bit; the daemon's umask lets it have nothing.
            file.set_permissions(Permissions::from_mode(0o640))?;
            file
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match options.open(path) {
            // A FIFO that nobody reads.
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => return Err(refused()),
            opened => opened?,
        },
        Err(error) => return Err(error),
    };
    let kind = file.metadata()?.file_type();
    if kind.is_file() || kind.is_char_device() { Ok(file) } else { Err(refused()) }
}

impl FileOutput {
    /// Writes to the configured file; it is opened at the first record.
    pub fn new(settings: config::File) -> Self {
        let config::File { path, format } = settings;
        FileOutput { path, form: format.into(), file: None, buffer: Vec::new(), begun: None, held: 0 }
    }

    /// Writes the buffer. Lines that were written are taken from it, so that a failure in between doubles nothing.
    fn write_buffer(&mut self) -> io::Result<()> {
        if self.file.is_none() {
            let file = open(&self.path)?;
            // Elsewhere, or behind somebody else's words, the whole line is written.
            self.begun = self.begun.filter(|begun| Place::of(&file).is_ok_and(|place| place == begun.place));
            if self.begun.is_none() && ends_within_a_line(&file, &self.path) {
                (&file).write_all(b"\n")?;
            }
            self.file = Some(file);
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut written = self.begun.take().map_or(0, |begun| begun.bytes);
        let result = loop {
            let rest = self.buffer.get(written..).unwrap_or_default();
            if rest.is_empty() {
                break Ok(());
            }
            match file.write(rest) {
                Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => written += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        let whole = self.buffer.iter().take(written).rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        self.held -= self.buffer.drain(..whole).filter(|&byte| byte == b'\n').count() as u64;
        if result.is_err() {
            let begun = Some(written - whole).filter(|&bytes| bytes > 0);
            self.begun = begun.and_then(|bytes| Some(Begun { bytes, place: Place::of(file).ok()? }));
            self.file = None;
        }
        result
    }
}

impl Destination for FileOutput {
    fn name(&self) -> String {
        format!("file {}", self.path.display())
    }

    fn form(&self) -> Form {
        self.form
    }

    fn write(&mut self, entry: &Entry) -> io::Result<()> {
        if self.buffer.len() >= BUFFER {
            self.write_buffer()?;
        }
        self.buffer.extend_from_slice(entry.form(self.form).as_bytes());
        self.buffer.push(b'\n');
        self.held += 1;
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.write_buffer()
    }

    fn held(&self) -> u64 {
        self.held
    }

    fn reopen(&mut self) {
        // What is buffered belongs to the new file only if the old one refuses it.
        let _ = self.write_buffer();
        self.file = None;
    }
}
