//! What shows an incident: the text, the report and the ticket, compared with files in `tests/golden/incident`.
//!
//! `EXECWATCH_TESTS_WRITE_GOLDEN=1 cargo test --test report` writes the files anew; look at the difference before
//! committing it.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::path::{Path, PathBuf};

use execwatch::incident::report;
use execwatch::incident::story::Story;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/incident")
}

fn story() -> Story {
    serde_json::from_str(&std::fs::read_to_string(folder().join("webshell.json")).unwrap()).unwrap()
}

fn records() -> Vec<String> {
    let records = std::fs::read_to_string(folder().join("webshell.records")).unwrap();
    records.lines().map(str::to_owned).collect()
}

/// Compares with a file, or writes it.
fn compare(name: &str, found: &str) {
    let path = folder().join(name);
    if std::env::var_os("EXECWATCH_TESTS_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, found).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(expected == found, "{} differs\n--- found\n{found}", path.display());
}

#[test]
fn the_page() {
    compare("webshell.html", &report::html(&story(), &records()));
}
