//! Events to a file, for `execwatch run --record`: a line of JSON each. Used by the worker alone.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::Event;

/// Bytes held back while more events wait, so that a storm is written in few calls.
const BUFFER: usize = 64 * 1024;

/// A file that events are appended to.
#[derive(Debug)]
pub struct Recorder {
    path: PathBuf,
    host: String,
    /// `None` after a failure, until the next attempt.
    file: Option<File>,
    buffer: Vec<u8>,
    /// The file ends in the middle of a line, because the rest could not be written.
    torn: bool,
    written: u64,
    lost: u64,
    failing: bool,
}

impl Recorder {
    /// Opens the file. Events are of the host of that name.
    pub fn open(path: &Path, host: &str) -> io::Result<Self> {
        Ok(Recorder {
            path: path.to_owned(),
            host: host.to_owned(),
            file: Some(open(path)?),
            buffer: Vec::new(),
            torn: false,
            written: 0,
            lost: 0,
            failing: false,
        })
    }

    /// Events written, and events that could not be.
    pub fn counts(&self) -> (u64, u64) {
        (self.written, self.lost)
    }

    /// Takes an event; [`flush`](Self::flush) hands it on at the latest.
    pub fn write(&mut self, mut event: Event) {
        event.host.get_or_insert_with(|| self.host.clone());
        self.buffer.extend_from_slice(event.json().as_bytes());
        self.buffer.push(b'\n');
        if self.buffer.len() >= BUFFER {
            self.flush();
        }
    }

    /// Writes what was held back. What cannot be written is lost: it is counted, and the first failure is said.
    pub fn flush(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        let result = self.write_buffer();
        let whole = |bytes: &[u8]| bytes.iter().filter(|&&byte| byte == b'\n').count() as u64;
        match result {
            Ok(()) if self.failing => {
                self.failing = false;
                log::info!("events are recorded in {} again; {} were lost", self.path.display(), self.lost);
            }
            Ok(()) => {}
            Err(error) => {
                self.lost += whole(&self.buffer);
                self.file = None;
                if !self.failing {
                    self.failing = true;
                    log::error!(
                        "events cannot be recorded in {}: {error}; they are lost until that is possible again",
                        self.path.display()
                    );
                }
            }
        }
        self.buffer.clear();
        // One long argument list does not stay in memory for ever.
        self.buffer.shrink_to(2 * BUFFER);
    }

    /// Writes the buffer; after a failure it holds what was not written.
    fn write_buffer(&mut self) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(open(&self.path)?),
        };
        if self.torn {
            file.write_all(b"\n")?;
            self.torn = false;
        }
        let mut from = 0;
        let result = loop {
            match file.write(&self.buffer[from..]) {
                Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    from += written;
                    if from == self.buffer.len() {
                        break Ok(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        self.written += self.buffer[..from].iter().filter(|&&byte| byte == b'\n').count() as u64;
        self.torn = from > 0 && self.buffer[from - 1] != b'\n';
        self.buffer.drain(..from);
        result
    }

    /// Opens the file anew, because it was moved away. If that fails, the old one is kept.
    pub fn reopen(&mut self) {
        self.flush();
        match open(&self.path) {
            Ok(file) => {
                self.file = Some(file);
                self.torn = false;
            }
            Err(error) => {
                log::error!("{} cannot be opened anew for events: {error}", self.path.display());
            }
        }
    }
}

/// Events hold arguments, and arguments hold passwords: the file is for its owner alone, also if it was there before. A
/// symbolic link is not followed, so that nobody who may write to the folder can choose the file; a pipe would make the
/// daemon wait for its reader.
fn open(path: &Path) -> io::Result<File> {
    const OWNER_ONLY: u32 = 0o600;
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(OWNER_ONLY)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
        .map_err(|error| match error.raw_os_error() {
            Some(libc::ELOOP) => io::Error::other("it is a symbolic link, which is not followed"),
            _ => error,
        })?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no ordinary file"));
    }
    file.set_permissions(Permissions::from_mode(OWNER_ONLY))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(exe: &str) -> Event {
        Event { exe: Some(exe.into()), ..Event::default() }
    }

    fn exes(path: &Path) -> Vec<String> {
        let text = std::fs::read_to_string(path).unwrap();
        let events = text.lines().map(|line| serde_json::from_str::<Event>(line).unwrap());
        events.map(|event| String::from_utf8(event.exe.unwrap().as_ref().to_vec()).unwrap()).collect()
    }

    #[test]
    fn a_file_for_its_owner_that_is_appended_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events");
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        for exe in ["/a", "/b"] {
            let mut recorder = Recorder::open(&path, "web1").unwrap();
            recorder.write(event(exe));
            recorder.flush();
            assert_eq!(recorder.counts(), (1, 0));
        }
        assert_eq!(exes(&path), ["/a", "/b"]);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert!(std::fs::read_to_string(&path).unwrap().contains("\"host\":\"web1\""));
    }

    #[test]
    fn a_moved_file_is_left_for_a_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let (path, old) = (folder.path().join("events"), folder.path().join("events.1"));
        let mut recorder = Recorder::open(&path, "").unwrap();
        recorder.write(event("/a"));
        std::fs::rename(&path, &old).unwrap();
        recorder.reopen();
        recorder.write(event("/b"));
        recorder.flush();
        assert_eq!((exes(&old), exes(&path)), (vec!["/a".to_owned()], vec!["/b".to_owned()]));
    }

    #[test]
    fn what_cannot_be_written_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let mut recorder = Recorder::open(&folder.path().join("events"), "").unwrap();
        // A device that is always full; afterwards a new file.
        recorder.file = Some(OpenOptions::new().append(true).open("/dev/full").unwrap());
        recorder.write(event("/a"));
        recorder.write(event("/b"));
        recorder.flush();
        assert_eq!(recorder.counts(), (0, 2));
        recorder.write(event("/c"));
        recorder.flush();
        assert_eq!(recorder.counts(), (1, 2));
        assert_eq!(exes(&folder.path().join("events")), ["/c"]);
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        assert!(Recorder::open(&link, "").unwrap_err().to_string().contains("symbolic link"));
        assert!(Recorder::open(Path::new("/dev/null"), "").unwrap_err().to_string().contains("no ordinary"));
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert!(Recorder::open(&pipe, "").is_err());
    }
}
