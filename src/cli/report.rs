//! `execwatch report`

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;

use super::{exit, incidents, print, report};
use crate::config::Config;
use crate::diagnostics::Diagnostics;
use crate::incident::report::{html, markdown};

#[derive(Args, Debug)]
#[group(skip)]
pub(super) struct ReportArguments {
    /// Configuration file [default: /etc/execwatch/execwatch.toml, if there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The id of the incident, or its beginning
    id: String,
    /// The file, for root alone, which must not be there [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace the file if it is there
    #[arg(long, requires = "output")]
    force: bool,
    /// Write Markdown, for a ticket
    #[arg(long)]
    markdown: bool,
}

pub(super) fn run(arguments: &ReportArguments) -> u8 {
    let diagnostics = Diagnostics::default();
    let config = Config::load(arguments.config.as_deref(), &diagnostics);
    if let Some(code) = report(&diagnostics.into_list()) {
        return code;
    }
    let (story, records) = match incidents::told(&config, &arguments.id) {
        Ok(told) => told,
        Err(code) => return code,
    };
    let text = if arguments.markdown { markdown(&story) } else { html(&story, &records) };
    let Some(file) = &arguments.output else { return print(&text) };
    let written = if arguments.force { replace(file, &text) } else { create(file, &text) };
    match written {
        Ok(()) => print(&format!("incident {}: {}\n", story.incident.id, file.display())),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            eprintln!(
                "execwatch: {} is there already: give another name, or --force to replace it",
                file.display()
            );
            exit::IO
        }
        Err(error) => {
            eprintln!("execwatch: cannot write {}: {error}", file.display());
            exit::IO
        }
    }
}

/// Writes a file that is not there; nothing is left of it if that fails.
fn create(path: &Path, text: &str) -> io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).inspect_err(|_| {
        // It is of no use, and the error that is told is the one that came first.
        let _ = std::fs::remove_file(path);
    })
}

/// Writes a file beside the one that is there and puts it in its place: whatever happens, one of them is whole.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut beside = path.file_name().map(OsString::from).unwrap_or_default();
    beside.push(format!(".{}.new", std::process::id()));
    let beside = path.with_file_name(beside);
    create(&beside, text)?;
    std::fs::rename(&beside, path).inspect_err(|_| {
        // As above.
        let _ = std::fs::remove_file(&beside);
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn what_is_there_is_replaced_only_by_force() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.html");
        create(&path, "one").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(create(&path, "two").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one");
        replace(&path, "two").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn links_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (link, target) = (folder.path().join("link"), folder.path().join("target"));
        std::fs::write(&target, "kept").unwrap();
        symlink(&target, &link).unwrap();
        assert_eq!(create(&link, "report").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        replace(&link, "report").unwrap();
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "kept");
        assert_eq!(std::fs::read_to_string(&link).unwrap(), "report");
    }

    #[test]
    fn nothing_is_left_where_it_cannot_be_put() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("folder");
        std::fs::create_dir(&path).unwrap();
        assert!(replace(&path, "report").is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
