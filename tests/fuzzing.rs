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

/// The files that a target is given.
fn seeds(name: &str) -> Vec<Vec<u8>> {
    let more: &[&str] = match name {
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
    let folders = [below("fuzz/seeds").join(name)].into_iter().chain(more.iter().map(|folder| below(folder)));
    let seeds: Vec<Vec<u8>> =
        folders.flat_map(|folder| files(&folder)).map(|file| std::fs::read(file).unwrap()).collect();
    assert!(!seeds.is_empty(), "{name}");
    seeds
}

/// Every target on every file that the manual names for it, on all beginnings of the small ones, and with each of their
/// bytes changed.
#[test]
fn every_target_takes_every_file() {
    for (name, body) in TARGETS {
        for content in seeds(name) {
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

/// Pieces that mean something to one of the parsers.
const WORDS: &[&str] = &[
    "\"",
    "'",
    "[",
    "]",
    "{",
    "}",
    "(",
    ")",
    "=",
    "|",
    "*",
    "?",
    "\\",
    "\n",
    "\0",
    " ",
    "%",
    "-",
    ".",
    ":",
    ",",
    "#",
    "not ",
    " and ",
    " or ",
    "1 of them",
    "all of x*",
    "[[rule]]\n",
    "[rule.select.x]\n",
    "'''",
    "\u{e9}",
    "\u{202e}",
    "0x",
    "-1",
    "99999999999999999999",
    "true",
    "null",
    "&a ",
    "*a",
    "---\n",
    "|contains",
    "|re",
    "|fieldref",
    "(?i)",
    "{1000}",
    "\\x41",
];

/// Every target on inputs that were changed at random, by default a few hundred. `EXECWATCH_TESTS_FUZZ_SECONDS` sets how
/// long each is tried instead: a fuzzer for where there is no other; with `EXECWATCH_TESTS_FUZZ_TARGET` only that one.
#[test]
fn every_target_takes_changed_files() {
    let seconds = std::env::var("EXECWATCH_TESTS_FUZZ_SECONDS").ok();
    let seconds = seconds.map(|text| text.parse::<u64>().unwrap());
    let alone = std::env::var("EXECWATCH_TESTS_FUZZ_TARGET").ok();
    let wanted = |name: &str| alone.as_deref().is_none_or(|alone| alone == name);
    assert!(TARGETS.iter().any(|(name, _)| wanted(name)), "there is no target {alone:?}");
    for (name, body) in TARGETS.iter().filter(|(name, _)| wanted(name)) {
        let seeds = seeds(name);
        // Small ones alone, if there are some: a change matters more in them.
        let mut small: Vec<&Vec<u8>> = seeds.iter().filter(|seed| seed.len() <= 2000).collect();
        if small.is_empty() {
            small = seeds.iter().collect();
        }
        // A generator of Marsaglia's (xorshift64): the same inputs each time, so that what is found can be repeated.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % below.max(1) as u64) as usize
        };
        let start = std::time::Instant::now();
        let mut tried = 0;
        while seconds.map_or(tried < 300, |seconds| start.elapsed().as_secs() < seconds) {
            let mut input = small[random(small.len())].clone();
            for _ in 0..=random(6) {
                let (one, other) = (random(input.len() + 1), random(input.len() + 1));
                let (at, end) = (one.min(other), one.max(other).min(one.min(other) + 64));
                match random(6) {
                    0 => drop(input.drain(at..end)),
                    1 => input.splice(at..at, WORDS[random(WORDS.len())].bytes()).for_each(drop),
                    2 => input.splice(at..end, WORDS[random(WORDS.len())].bytes()).for_each(drop),
                    3 => {
                        let piece = input[at..end].repeat(random(8));
                        input.splice(at..at, piece).for_each(drop);
                    }
                    4 => {
                        let other = &seeds[random(seeds.len())];
                        let from = random(other.len());
                        let piece = other[from..(from + random(200)).min(other.len())].to_vec();
                        input.splice(at..at, piece).for_each(drop);
                    }
                    _ => input.iter_mut().skip(at).take(1).for_each(|byte| *byte = random(256) as u8),
                }
            }
            let outcome = std::panic::catch_unwind(|| body(&input));
            assert!(outcome.is_ok(), "{name} failed on {:?}", input.escape_ascii().to_string());
            tried += 1;
        }
        eprintln!("{name}: {tried} inputs");
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
