//! What the fuzz targets do with their input, done with the files of this repository; see fuzz/README.md.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use execwatch::fuzzing::TARGETS;

fn below(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> =
        entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect();
    files.sort();
    files
}

/// Every target on every file that the manual names for it, on all beginnings of the small ones, and with each of their
/// bytes changed.
#[test]
fn every_target_takes_every_file() {
    for (name, body) in TARGETS {
        let more: &[&str] = match *name {
            "rules" => &[
                "config/rules.d",
                "config/utilities.d",
                "config/tests.d",
                "tests/golden/rules",
                "tests/golden/explain/rules",
            ],
            "configuration" => &["config"],
            "sigma" => &["tests/data/sigma"],
            _ => &[],
        };
        let folders =
            [below("fuzz/seeds").join(name)].into_iter().chain(more.iter().map(|folder| below(folder)));
        let files: Vec<PathBuf> = folders.flat_map(|folder| files(&folder)).collect();
        assert!(!files.is_empty(), "{name}");
        for file in files {
            let content = std::fs::read(&file).unwrap();
            body(&content);
            if content.len() <= 400 {
                for end in 0..content.len() {
                    body(&content[..end]);
                    let mut changed = content.clone();
                    changed[end] ^= 0x41;
                    body(&changed);
                }
            }
        }
    }
}

/// The list of targets, the programs of cargo-fuzz, their manifest and the manual name the same.
#[test]
fn the_targets_are_all_built() {
    let names: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let programs: BTreeSet<String> = files(&below("fuzz/fuzz_targets"))
        .iter()
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, programs);
    let manifest = std::fs::read_to_string(below("fuzz/Cargo.toml")).unwrap();
    let manual = std::fs::read_to_string(below("fuzz/README.md")).unwrap();
    for name in names {
        assert!(manifest.contains(&format!("name = \"{name}\"\n")), "{name}");
        assert!(manual.contains(&format!("| `{name}` |")), "{name}");
    }
}
