//! An incident as one archive: what was told, what was sent, and, if asked for, copies of what was executed.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::Serialize;

use super::now;
use super::story::{FileUse, Story};
use crate::alert::escape::of_json;
use crate::clock;

/// Bytes of one copied file, of all together, and how many there may be.
const LARGEST: u64 = 64 << 20;
const MOST_BYTES: u64 = 256 << 20;
const MOST_FILES: usize = 100;

/// What an archive holds.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Written {
    /// Records.
    pub records: usize,
    /// Files that were copied.
    pub files: Vec<String>,
    /// Files that were not, and why.
    pub left_out: Vec<(String, String)>,
}

/// Writes the archive at a path where nothing is.
pub fn write(path: &Path, story: &Story, records: &[String], with_files: bool) -> io::Result<Written> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let mut archive = Archive {
        builder: tar::Builder::new(io::BufWriter::new(file)),
        folder: format!("execwatch-incident-{}", story.incident.id),
        time_s: clock::realtime_ns() / 1_000_000_000,
    };
    let mut written = Written { records: records.len(), ..Written::default() };
    archive.add("story.json", &serde_json::to_vec_pretty(story)?)?;
    let lines: String = records.iter().map(|record| format!("{record}\n")).collect();
    archive.add("records.jsonl", lines.as_bytes())?;
    for rule in story.rules.iter().filter(|rule| !rule.text.is_empty()) {
        archive.add(&format!("rules/{}.txt", rule.id), rule.text.as_bytes())?;
    }
    if with_files {
        archive.add_files(story, &mut written)?;
    }
    archive.builder.into_inner()?.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    Ok(written)
}

struct Archive<W: Write> {
    builder: tar::Builder<W>,
    folder: String,
    time_s: u64,
}

impl<W: Write> Archive<W> {
    fn add(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        // Whoever unpacks it does not execute what was executed here.
        header.set_mode(0o600);
        header.set_mtime(self.time_s);
        self.builder.append_data(&mut header, format!("{}/{name}", self.folder), bytes)
    }

    fn add_files(&mut self, story: &Story, written: &mut Written) -> io::Result<()> {
        // A container's files are not the host's.
        let in_container =
            story.incident.place.as_deref().is_some_and(|place| place.starts_with("container "));
        let through = story.processes.iter().find(|process| process.running).map(|process| process.pid);
        let mut left = MOST_BYTES;
        for file in story.files.iter().filter(|file| file.uses.contains(&FileUse::Executed)) {
            let mut leave = |why: &str| written.left_out.push((file.path.clone(), why.to_owned()));
            if written.files.len() >= MOST_FILES {
                leave("there are too many");
                continue;
            }
            if in_container && through.is_none() {
                leave("nothing runs in the container through which it could be read");
                continue;
            }
            let Some(open) = now::open(&file.path, through.filter(|_| in_container)) else {
                leave("it is not there, or no regular file, or behind a link");
                continue;
            };
            let most = left.min(LARGEST);
            let mut bytes = Vec::new();
            if let Err(error) = open.take(most + 1).read_to_end(&mut bytes) {
                leave(&error.to_string());
                continue;
            }
            if bytes.len() as u64 > most {
                leave("it is too large");
                continue;
            }
            left -= bytes.len() as u64;
            // A number and what is harmless of the name: the path is in the story.
            let name: String = of_json(&file.path)
                .rsplit(|&byte| byte == b'/')
                .next()
                .unwrap_or_default()
                .iter()
                .map(|&byte| {
                    if byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) {
                        char::from(byte)
                    } else {
                        '_'
                    }
                })
                .take(64)
                .collect();
            self.add(&format!("files/{:03}-{name}", written.files.len()), &bytes)?;
            written.files.push(file.path.clone());
        }
        Ok(())
    }
}
