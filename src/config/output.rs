//! `[output]`: where alerts go.

use std::path::PathBuf;

use super::absolute_path;
use super::remote::{self, Remote};
use super::syslog::{Journald, Syslog};
use crate::document::Section;

/// How a record is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One line of `key=value`.
    Text,
    /// One line of JSON.
    Json,
    /// One line of the Common Event Format.
    Cef,
    /// One line of JSON behind the cookie `@cee:`, by which syslog servers know it.
    Cee,
}

/// `[output]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// `[output.syslog]`; `None` if switched off.
    pub syslog: Option<Syslog>,
    /// `[[output.remote]]`, without those that are switched off.
    pub remote: Vec<Remote>,
    /// `[output.journald]`; `None` if switched off.
    pub journald: Option<Journald>,
    /// `[output.file]`; `None` if switched off.
    pub file: Option<File>,
    /// `[output.stdout]`
    pub stdout: Stdout,
}

/// `[output.file]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// The file.
    pub path: PathBuf,
    /// How a record is written.
    pub format: Format,
}

/// `[output.stdout]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stdout {
    /// `None`: if it is a terminal.
    pub enabled: Option<bool>,
    /// `None`: for people on a terminal, text elsewhere.
    pub format: Option<Format>,
}

pub(super) const FORMATS: [(&str, Format); 4] =
    [("text", Format::Text), ("json", Format::Json), ("cef", Format::Cef), ("cee", Format::Cee)];

impl Default for Output {
    fn default() -> Self {
        Output {
            syslog: Some(Syslog::default()),
            remote: Vec::new(),
            journald: None,
            file: None,
            stdout: Stdout { enabled: None, format: None },
        }
    }
}

impl Output {
    pub(super) fn read(&mut self, section: Section<'_>) {
        if let Some(part) = section.section("syslog", "[output.syslog]") {
            self.syslog = self.syslog.take().and_then(|syslog| syslog.read(part));
        }
        self.remote = remote::read(section.sections("remote", "[[output.remote]]"));
        if let Some(part) = section.section("journald", "[output.journald]") {
            self.journald = Journald::default().read(part);
        }
        if let Some(part) = section.section("file", "[output.file]") {
            self.file = File::read(part);
        }
        if let Some(part) = section.section("stdout", "[output.stdout]") {
            self.stdout.enabled = part.flag("enabled").map(|flag| flag.value);
            self.stdout.format = part.choice("format", &FORMATS).map(|choice| choice.value);
            part.finish();
        }
        section.finish();
    }
}

impl File {
    fn read(section: Section<'_>) -> Option<Self> {
        let enabled = section.flag("enabled").is_none_or(|flag| flag.value);
        let path = absolute_path(&section, "path");
        let format = section.choice("format", &FORMATS).map_or(Format::Json, |choice| choice.value);
        if enabled && section.string("path").is_none() {
            section.required_string("path");
        }
        section.finish();
        path.filter(|_| enabled).map(|path| File { path, format })
    }
}
