//! Records to a file, a line each.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
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
    buffer: Vec<u8>,
    /// Records whose last byte is still in the buffer.
    held: u64,
    /// Newlines in the buffer that end no record of it.
    broken_lines: u64,
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

impl FileOutput {
    /// Writes to the configured file; it is opened at the first record.
    pub fn new(settings: config::File) -> Self {
        let config::File { path, format } = settings;
        FileOutput { path, form: format.into(), file: None, buffer: Vec::new(), held: 0, broken_lines: 0 }
    }

    /// Writes the buffer. What was written is taken from it, so that a failure in between doubles nothing.
    fn write_buffer(&mut self) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                // Alerts hold arguments, and arguments hold passwords: not for everybody. A symbolic link is not
                // followed, so that nobody who may write to the folder can choose the file.
                let mut options = OpenOptions::new();
                options.append(true).custom_flags(libc::O_NOFOLLOW);
                let file = match options.clone().create_new(true).mode(0o600).open(&self.path) {
                    Ok(file) => {
                        // For the group of a folder with the set-group-id bit; the daemon's umask lets it have nothing.
                        file.set_permissions(Permissions::from_mode(0o640))?;
                        file
                    }
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => options.open(&self.path)?,
                    Err(error) => return Err(error),
                };
                if ends_within_a_line(&file, &self.path) {
                    self.buffer.insert(0, b'\n');
                    self.broken_lines += 1;
                }
                self.file.insert(file)
            }
        };
        while !self.buffer.is_empty() {
            let written = match file.write(&self.buffer) {
                Ok(written) if written > 0 => written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                failed => {
                    self.file = None;
                    return Err(failed.err().unwrap_or_else(|| io::ErrorKind::WriteZero.into()));
                }
            };
            let ended = self.buffer.drain(..written).filter(|&byte| byte == b'\n').count() as u64;
            let broken = self.broken_lines.min(ended);
            self.broken_lines -= broken;
            self.held -= ended - broken;
        }
        Ok(())
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
