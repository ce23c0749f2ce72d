//! `execwatch import`

use std::collections::HashMap;
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::{exit, print};
use crate::diagnostics::{Diagnostic, Level, Source, counted};
use crate::order;
use crate::rules::load::read_text;
use crate::rules::sigma;

#[derive(Args, Debug)]
#[group(skip)]
pub(super) struct ImportArguments {
    #[command(subcommand)]
    language: Language,
}

#[derive(Subcommand, Debug)]
enum Language {
    /// Translate Sigma rules of category process_creation, product linux
    ///
    /// A translated rule says of an event what the Sigma rule says. What cannot be translated is named with its place and
    /// the reason; a file that holds such a rule gives nothing, the other files give their rules, and the exit code is 1.
    /// Rules keep the licence of their source: author and references are carried over.
    Sigma(SigmaArguments),
}

#[derive(Args, Debug)]
#[group(skip)]
struct SigmaArguments {
    /// Sigma files, or folders, in which *.yml and *.yaml are looked for
    #[arg(required = true, value_name = "FILE|DIR")]
    from: Vec<PathBuf>,
    /// Write a file sigma-NAME.toml into this folder for each NAME.yml, in place of standard output
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Overwrite files that are there and differ
    #[arg(long, requires = "out")]
    force: bool,
}

/// Exit code of this subcommand alone: something could not be translated.
const INCOMPLETE: u8 = 1;
/// Folders are searched this deep.
const DEEPEST_FOLDER: usize = 16;
/// More files are not looked at in one run.
const MOST_FILES: usize = 20_000;
/// Longest name of a written file, in bytes, without what execwatch adds to it.
const LONGEST_FILE_NAME: usize = 200;

pub(super) fn run(arguments: &ImportArguments) -> u8 {
    let Language::Sigma(arguments) = &arguments.language;
    let mut messages = Vec::new();
    let paths = files(&arguments.from, &mut messages);
    let translated = translate(paths, &mut messages);
    let rules: usize = translated.iter().map(|file| file.rules).sum();
    for message in &messages {
        eprintln!("{message}");
    }
    let mut code = match messages.iter().any(|message| message.level == Level::Error) {
        true => INCOMPLETE,
        false => exit::OK,
    };
    match &arguments.out {
        None => {
            let texts: Vec<&str> = translated.iter().map(|file| file.text.as_str()).collect();
            let written = print(&texts.join("\n"));
            code = if written == exit::OK { code } else { written };
        }
        Some(folder) => {
            for message in write_all(folder, &translated, arguments.force) {
                eprintln!("execwatch: {message}");
                code = exit::IO;
            }
        }
    }
    let refused: Vec<&str> = messages
        .iter()
        .filter(|message| message.level == Level::Error)
        .map(|message| message.file.as_str())
        .fold(Vec::new(), |mut files, file| {
            if !files.contains(&file) {
                files.push(file);
            }
            files
        });
    let refused = match refused.len() {
        0 => String::new(),
        number => format!("; {} not translated", counted(number, "file", "files")),
    };
    let from = counted(translated.len(), "file", "files");
    eprintln!("execwatch: {} from {from}{refused}", counted(rules, "rule", "rules"));
    code
}

/// A file whose rules were all translated.
struct Translated {
    /// The name of the file to be written.
    name: String,
    rules: usize,
    text: String,
}

/// The files named, and those in the folders named, in the order of their names.
fn files(from: &[PathBuf], messages: &mut Vec<Diagnostic>) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in from {
        if path.is_dir() {
            let (before, mistakes) = (found.len(), messages.len());
            search(path, 0, &mut found, messages);
            order::by(&mut found[before..], PathBuf::cmp);
            if found.len() == before && messages.len() == mistakes {
                messages.push(whole(path, "there is no *.yml or *.yaml in this folder"));
            }
        } else {
            found.push(path.clone());
        }
    }
    if found.len() > MOST_FILES {
        let message = format!("more than {MOST_FILES} files; name fewer at once");
        messages.push(Diagnostic::whole(Level::Error, "execwatch", message));
        found.truncate(MOST_FILES);
    }
    found
}

fn search(folder: &Path, depth: usize, found: &mut Vec<PathBuf>, messages: &mut Vec<Diagnostic>) {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => return messages.push(whole(folder, &format!("cannot read the folder: {error}"))),
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        // Links to folders are not followed, so that there is no circle.
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let is_rule = path.extension().is_some_and(|extension| extension == "yml" || extension == "yaml");
        if hidden || found.len() > MOST_FILES {
            continue;
        }
        if is_folder && depth < DEEPEST_FOLDER {
            search(&path, depth + 1, found, messages);
        } else if !is_folder && is_rule {
            // A pipe would make the reader wait for its writer; what cannot be read says so then.
            match fs::metadata(&path) {
                Ok(metadata) if !metadata.is_file() => messages.push(whole(&path, "it is no ordinary file")),
                _ => found.push(path),
            }
        }
    }
}

fn whole(path: &Path, message: &str) -> Diagnostic {
    Diagnostic::whole(Level::Error, path.display().to_string(), message)
}

fn translate(paths: Vec<PathBuf>, messages: &mut Vec<Diagnostic>) -> Vec<Translated> {
    let mut translated: Vec<Translated> = Vec::new();
    // Ids and names of files that are taken, and by which file.
    let (mut ids, mut names): (HashMap<String, PathBuf>, HashMap<String, PathBuf>) = Default::default();
    for path in paths {
        let text = match read_text(&path) {
            Ok(text) => text,
            Err(error) => {
                messages.push(whole(&path, &format!("cannot read the file: {error}")));
                continue;
            }
        };
        let import = sigma::import(&Source { name: path.display().to_string(), text });
        let mut complete = import.complete();
        messages.extend(import.messages);
        let name = file_name(&path);
        if let Some(other) = names.get(&name) {
            messages.push(whole(
                &path,
                &format!("would be written to the same file as {}: rename one of them", other.display()),
            ));
            complete = false;
        }
        for (index, rule) in import.rules.iter().enumerate() {
            let here = import.rules[..index].iter().any(|other| other.id == rule.id).then_some(&path);
            if let Some(other) = ids.get(&rule.id).or(here) {
                messages.push(whole(
                    &path,
                    &format!(
                        "a rule with the id `{}` came from {} already: title and Sigma id are the same",
                        rule.id,
                        other.display()
                    ),
                ));
                complete = false;
            }
        }
        if complete {
            ids.extend(import.rules.iter().map(|rule| (rule.id.clone(), path.clone())));
            let texts: Vec<&str> = import.rules.iter().map(|rule| rule.toml.as_str()).collect();
            names.insert(name.clone(), path);
            translated.push(Translated { name, rules: texts.len(), text: texts.join("\n") });
        }
    }
    translated
}

/// A name that is no path and takes the place of no file of the package: those have no `sigma-` before them.
fn file_name(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let safe: String = stem
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '_' })
        .take(LONGEST_FILE_NAME)
        .collect();
    format!("sigma-{safe}.toml")
}

/// Writes the files; what went wrong. Nothing is written if a file that differs is in the way.
fn write_all(folder: &Path, files: &[Translated], force: bool) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut missing = Vec::new();
    for file in files {
        let path = folder.join(&file.name);
        match fs::read(&path) {
            Ok(content) if content == file.text.as_bytes() => {}
            Ok(_) if !force => {
                wrong.push(format!("{} is there and differs; --force overwrites it", path.display()));
            }
            Ok(_) => missing.push((path, file)),
            Err(error) if error.kind() == ErrorKind::NotFound => missing.push((path, file)),
            Err(error) => wrong.push(format!("cannot read {}: {error}", path.display())),
        }
    }
    if !wrong.is_empty() || missing.is_empty() {
        return wrong;
    }
    if let Err(error) = fs::create_dir_all(folder) {
        return vec![format!("cannot make the folder {}: {error}", folder.display())];
    }
    for (path, file) in missing {
        if let Err(error) = write_whole(folder, &path, file) {
            wrong.push(format!("cannot write {}: {error}", path.display()));
        }
    }
    wrong
}

/// Writes a file under another name and renames it, so that it is there in whole or not at all.
fn write_whole(folder: &Path, path: &Path, file: &Translated) -> std::io::Result<()> {
    // Names that begin with a dot are not read as rules.
    let draft = folder.join(format!(".{}.{}", file.name, std::process::id()));
    let write = || {
        let mut out = fs::OpenOptions::new().write(true).create_new(true).open(&draft)?;
        out.write_all(file.text.as_bytes())?;
        out.sync_all()?;
        fs::rename(&draft, path)
    };
    write().inspect_err(|_| {
        // The first error is the one to tell.
        let _ = fs::remove_file(&draft);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_stay_in_the_folder() {
        for (path, name) in [
            ("a/proc_creation_lnx_x.yml", "sigma-proc_creation_lnx_x.toml"),
            ("../..", "sigma-.toml"),
            ("a\n b/c\u{202e}d.yml", "sigma-c_d.toml"),
            ("..x.yml", "sigma-..x.toml"),
            ("tunnel.yaml", "sigma-tunnel.toml"),
        ] {
            assert_eq!(file_name(Path::new(path)), name);
        }
        assert!(file_name(Path::new(&"x".repeat(1000))).len() < 255);
    }
}
