//! Loading: compiled-in files, then the administrator's, into one rule set.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::builtin;
use super::catalogue::{Utility, is_glob};
use super::exception::Exception;
use super::found::Found;
use super::macros::Macros;
use super::model::{self, Rule};
use super::ruleset::RuleSet;
use crate::diagnostics::{Diagnostic, Diagnostics, Level, Source, suggestion};
use crate::document::{Document, Located};
use crate::order;
use crate::trust::Trust;

/// Where rules and utilities come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// The compiled-in files are used.
    pub builtin: bool,
    /// Folders of `*.toml` files. A file with the name of a compiled-in file takes its place, and so does a rule or
    /// utility of the same name.
    pub folders: Vec<PathBuf>,
    /// A missing folder is a mistake.
    pub folders_required: bool,
}

/// A larger file is refused.
const LARGEST_FILE: u64 = 16 << 20;
/// A folder whose files hold more is refused.
const LARGEST_FOLDER: u64 = 64 << 20;

/// Loads everything. `None` if anything was refused; the messages tell what.
pub fn load(places: &Places, diagnostics: &Diagnostics) -> Option<RuleSet> {
    load_trusted(places, &Trust::unasked(), &Found::default(), diagnostics)
}

/// The same, and what there is to say about whom the files belong to, and about folders that have gone.
pub fn load_trusted(
    places: &Places,
    trust: &Trust,
    found: &Found,
    diagnostics: &Diagnostics,
) -> Option<RuleSet> {
    compile(trusted_sources(places, Kind::Rules, (trust, found), diagnostics), diagnostics)
}

/// Compiles the texts of files, the compiled-in ones known by their names. `None` if anything was refused.
pub fn compile(sources: Vec<Source>, diagnostics: &Diagnostics) -> Option<RuleSet> {
    let digest = digest(&sources);
    let (builtin, own): (Vec<Source>, Vec<Source>) =
        sources.into_iter().partition(|source| is_builtin(&source.name));
    let documents = |sources| -> Vec<(&Source, Document<'_>)> { parse(sources, diagnostics) };
    let (base, top) = (documents(&builtin), documents(&own));
    // All macros come first, so that a rule may use those of a later file.
    let mut macros = Macros::default();
    base.iter().chain(&top).for_each(|(_, document)| macros.read(document, diagnostics));
    base.iter().chain(&top).for_each(|(_, document)| macros.read_selections(document, diagnostics));
    let base = Layer::read(&base, &macros, diagnostics);
    let top = Layer::read(&top, &macros, diagnostics);
    let utilities =
        merge(base.utilities, top.utilities, |placed| placed.entry.value.name.to_ascii_lowercase());
    let rules = merge(base.rules, top.rules, |rule| rule.id.clone());
    let exceptions = merge(base.exceptions, top.exceptions, |placed| placed.entry.value.id.clone());
    check_names(&utilities, diagnostics);
    if !diagnostics.any_error() {
        check_exceptions(&exceptions, &rules, diagnostics);
    }
    let exceptions = exceptions.into_iter().map(|placed| placed.entry.value).collect();
    let utilities = utilities.into_iter().map(|placed| placed.entry.value).collect();
    (!diagnostics.any_error()).then(|| RuleSet::new(utilities, rules, exceptions).with_digest(digest))
}

/// SHA-256 over names and texts, in their order.
fn digest(sources: &[Source]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in sources.iter().flat_map(|source| [&source.name, &source.text]) {
        // With their lengths, so that no two lists look the same.
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// The compiled-in rules alone.
pub fn builtin(diagnostics: &Diagnostics) -> Option<RuleSet> {
    let places = Places { builtin: true, folders: Vec::new(), folders_required: false };
    load(&places, diagnostics)
}

/// What files are read for. The administrator's hold both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Rules, exceptions, macros and utilities.
    Rules,
    /// Tests of rules.
    Tests,
}

/// How the names of compiled-in sources begin.
const BUILTIN: &str = "<built-in ";

/// True for the name of a compiled-in source.
pub fn is_builtin(name: &str) -> bool {
    name.starts_with(BUILTIN)
}

/// The files that are to be read: compiled-in ones first, then the administrator's.
pub fn sources(places: &Places, kind: Kind, diagnostics: &Diagnostics) -> Vec<Source> {
    trusted_sources(places, kind, (&Trust::unasked(), &Found::default()), diagnostics)
}

fn trusted_sources(
    places: &Places,
    kind: Kind,
    asked: (&Trust, &Found),
    diagnostics: &Diagnostics,
) -> Vec<Source> {
    let own: Vec<Source> =
        places.folders.iter().flat_map(|folder| files(folder, places, asked, diagnostics)).collect();
    let replaced = |name: &str| {
        own.iter().any(|source| Path::new(&source.name).file_name().is_some_and(|own| own == name))
    };
    let builtin = match kind {
        Kind::Rules => builtin::FILES,
        Kind::Tests => builtin::TESTS,
    };
    let mut sources: Vec<Source> = builtin
        .iter()
        .filter(|(name, _)| places.builtin && !replaced(base(name)))
        .map(|(name, text)| Source { name: format!("{BUILTIN}{name}>"), text: (*text).to_owned() })
        .collect();
    sources.extend(own);
    sources
}

fn base(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// An entry and the file it stands in.
struct Placed<'s, T> {
    source: &'s Source,
    entry: Located<T>,
}

/// The files of one origin: a later origin replaces an earlier one, within one a name may stand once.
struct Layer<'s> {
    utilities: Vec<Placed<'s, Utility>>,
    rules: Vec<Rule>,
    exceptions: Vec<Placed<'s, Exception>>,
}

fn parse<'s>(sources: &'s [Source], diagnostics: &Diagnostics) -> Vec<(&'s Source, Document<'s>)> {
    sources.iter().map(|source| (source, Document::parse(source, diagnostics))).collect()
}

impl<'s> Layer<'s> {
    fn read(documents: &[(&'s Source, Document<'s>)], macros: &Macros, diagnostics: &Diagnostics) -> Self {
        let mut layer = Layer { utilities: Vec::new(), rules: Vec::new(), exceptions: Vec::new() };
        let mut names = Seen::default();
        let mut ids = Seen::default();
        let mut exceptions = Seen::default();
        for (source, document) in documents {
            let tables = model::read(document, macros, diagnostics);
            for utility in tables.utilities {
                names.note(utility.value.name.to_ascii_lowercase(), "utility", source, &utility, diagnostics);
                layer.utilities.push(Placed { source, entry: utility });
            }
            for rule in tables.rules {
                ids.note(rule.value.id.clone(), "rule", source, &rule, diagnostics);
                layer.rules.push(rule.value);
            }
            for exception in tables.exceptions {
                exceptions.note(exception.value.id.clone(), "exception", source, &exception, diagnostics);
                layer.exceptions.push(Placed { source, entry: exception });
            }
        }
        layer
    }
}

/// Names that were seen, with the place of the first.
#[derive(Default)]
struct Seen<'s>(HashMap<String, (&'s Source, usize)>);

impl<'s> Seen<'s> {
    fn note<T>(
        &mut self,
        name: String,
        what: &str,
        source: &'s Source,
        at: &Located<T>,
        diagnostics: &Diagnostics,
    ) {
        match self.0.get(&name) {
            Some((first, start)) => {
                let place = format!("{}:{}", first.name, first.line(*start));
                let message = format!("{what} `{name}` is defined at {place} already");
                diagnostics.error(source, at.span.clone(), message);
            }
            None => {
                self.0.insert(name, (source, at.span.start));
            }
        }
    }
}

/// `base` with the entries of `top` in the place of those with the same key, and the rest of `top` after them.
fn merge<T>(base: Vec<T>, top: Vec<T>, key: impl Fn(&T) -> String) -> Vec<T> {
    let mut replacing: HashMap<String, T> = HashMap::new();
    let mut order = Vec::new();
    for entry in top {
        let name = key(&entry);
        order.push(name.clone());
        replacing.insert(name, entry);
    }
    let mut merged: Vec<T> =
        base.into_iter().map(|entry| replacing.remove(&key(&entry)).unwrap_or(entry)).collect();
    merged.extend(order.into_iter().filter_map(|name| replacing.remove(&name)));
    merged
}

/// A name that two utilities claim would make recognition a matter of order.
fn check_names(utilities: &[Placed<'_, Utility>], diagnostics: &Diagnostics) {
    let mut owners: HashMap<String, &str> = HashMap::new();
    for Placed { source, entry } in utilities {
        let utility = &entry.value;
        for name in std::iter::once(&utility.name).chain(&utility.aliases) {
            let earlier = owners.insert(name.to_ascii_lowercase(), &utility.name);
            // A glob of another entry that covers this entry's own name is no conflict: exact names come first.
            if let Some(earlier) = earlier
                && !is_glob(name)
            {
                diagnostics.error(
                    source,
                    entry.span.clone(),
                    format!(
                        "`{name}` stands for `{earlier}` and for `{}`; a name may belong to one utility",
                        utility.name
                    ),
                );
            }
        }
    }
}

/// An exception for a rule that is not there does nothing; most likely its name is wrong.
fn check_exceptions(exceptions: &[Placed<'_, Exception>], rules: &[Rule], diagnostics: &Diagnostics) {
    for Placed { source, entry } in exceptions {
        for id in entry.value.rules.iter().flatten() {
            if !rules.iter().any(|rule| rule.id == *id) {
                let hint = suggestion(id, rules.iter().map(|rule| rule.id.as_str()));
                diagnostics.warning(source, entry.span.clone(), format!("there is no rule `{id}`{hint}"));
            }
        }
    }
}

fn files(
    folder: &Path,
    places: &Places,
    (trust, found): (&Trust, &Found),
    diagnostics: &Diagnostics,
) -> Vec<Source> {
    let whole = |path: &Path, message: String| {
        diagnostics.push(Diagnostic::whole(Level::Error, path.display().to_string(), message));
    };
    let entries = std::fs::read_dir(folder).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
    let entries = match entries {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !places.folders_required => {
            found.miss(folder, diagnostics);
            return Vec::new();
        }
        Err(error) => {
            whole(folder, format!("cannot read the folder of rules: {error}"));
            return Vec::new();
        }
    };
    found.note(folder);
    trust.folder(folder, diagnostics);
    let mut paths: Vec<PathBuf> = entries
        .into_iter()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .filter(|path| path.file_name().is_some_and(|name| !name.as_encoded_bytes().starts_with(b".")))
        .collect();
    order::by(&mut paths, PathBuf::cmp);
    let mut sources = Vec::new();
    let mut size = 0;
    for path in paths {
        match read_ordinary(&path, trust, diagnostics) {
            Ok(text) => {
                size += text.len() as u64;
                if size > LARGEST_FOLDER {
                    let most = LARGEST_FOLDER >> 20;
                    whole(folder, format!("its *.toml files hold more than {most} MiB; take some away"));
                    break;
                }
                sources.push(Source { name: path.display().to_string(), text });
            }
            Err(error) => whole(&path, format!("cannot read the file: {error}")),
        }
    }
    sources
}

/// A file's text, if it is one of reasonable size. A pipe is read to its end.
pub fn read_text(path: &Path) -> std::io::Result<String> {
    text_of(File::open(path)?)
}

/// The same, and what there is to say about whom the file belongs to.
pub fn read_trusted(path: &Path, trust: &Trust, diagnostics: &Diagnostics) -> std::io::Result<String> {
    let file = File::open(path)?;
    trust.file(path, &file, diagnostics);
    text_of(file)
}

/// The text of what was found in a folder: a pipe there is no file, and opening it would wait for its writer.
fn read_ordinary(path: &Path, trust: &Trust, diagnostics: &Diagnostics) -> std::io::Result<String> {
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("it is no ordinary file"));
    }
    trust.file(path, &file, diagnostics);
    text_of(file)
}

fn text_of(file: File) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    file.take(LARGEST_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(std::io::Error::other(format!("it is larger than {} MiB", LARGEST_FILE >> 20)));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = good.iter().filter(|&&byte| byte == b'\n').count() + 1;
        std::io::Error::other(format!("it is no text: line {line} is not valid UTF-8"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_need_not_be_there_may_come_but_not_go() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().join("rules.d");
        let places = Places { builtin: false, folders: vec![folder.clone()], folders_required: false };
        let found = Found::default();
        let read = || {
            let diagnostics = Diagnostics::default();
            let ruleset = load_trusted(&places, &Trust::unasked(), &found, &diagnostics);
            found.settle(ruleset.is_some());
            ruleset.ok_or_else(|| diagnostics.into_list().iter().map(ToString::to_string).collect::<String>())
        };
        assert!(read().is_ok());
        std::fs::create_dir(&folder).unwrap();
        assert!(read().is_ok());
        std::fs::remove_dir(&folder).unwrap();
        for _ in 0..2 {
            let refused = read().unwrap_err();
            assert!(refused.contains("is gone: put it back"), "{refused}");
        }
        std::fs::create_dir(&folder).unwrap();
        assert!(read().is_ok());
    }
}
