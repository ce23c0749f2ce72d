//! The manual pages: nothing that the program knows is missing in them, and their source is clean.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

#[path = "../examples/documents/pages/mod.rs"]
mod pages;
mod support;

use std::io::Write;
use std::process::{Command, Stdio};

use execwatch::rules::fields::{ATTRIBUTES, RELATIVES};
use execwatch::rules::selection::MODIFIERS;
use support::installed;

fn page(file: &str) -> String {
    let pages = pages::all(&pages::date(0));
    pages.into_iter().find(|page| page.file == file).unwrap().text
}

/// As the pages write a name.
fn bold(name: &str) -> String {
    format!("\\fB{}\\fR", name.replace('-', "\\-"))
}

fn assert_told(page: &str, name: &str) {
    assert!(page.contains(&bold(name)), "«{name}» is not in the page");
}

#[test]
fn the_command_page_tells_every_subcommand_and_option() {
    let page = page("execwatch.8");
    let mut command = execwatch::cli::command();
    command.build();
    let mut seen = 0;
    check_command(&page, &command, "execwatch", &mut seen);
    assert!(seen > 30, "only {seen} options were found");
    for code in [0, execwatch::exit::USAGE, execwatch::exit::PERMISSION, execwatch::exit::CONFIG] {
        assert!(page.contains(&format!(".TP\n{code}\n")), "exit code {code}");
    }
}

fn check_command(page: &str, command: &clap::Command, path: &str, seen: &mut usize) {
    for subcommand in command.get_subcommands().filter(|own| own.get_name() != "help") {
        let path = format!("{path} {}", subcommand.get_name());
        assert!(page.contains(&format!(".SS \"{}", path.replace('-', "\\-"))), "{path}");
        for argument in subcommand.get_arguments().filter(|own| own.get_id() != "help") {
            *seen += 1;
            match argument.get_long() {
                Some(long) => assert_told(page, &format!("--{long}")),
                None => {
                    let name = argument.get_value_names().unwrap()[0].as_str();
                    assert!(page.contains(&format!("\\fI{name}\\fR")), "{path} {name}");
                }
            }
        }
        check_command(page, subcommand, &path, seen);
    }
}

#[test]
fn the_configuration_page_tells_every_key_with_its_table() {
    let page = page("execwatch.toml.5");
    // Keys that are shown with a `#` in front are keys too.
    let text: String = execwatch::config::SHIPPED
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(key) if !key.starts_with([' ', '#']) && !key.is_empty() => key,
            _ => line,
        })
        .fold(String::new(), |text, line| text + line + "\n");
    let table: toml::Table = text.parse().unwrap();
    let mut keys = 0;
    check_table(&page, &table, "", &mut keys);
    assert!(keys > 40, "only {keys} keys were found");
}

fn check_table(page: &str, table: &toml::Table, path: &str, keys: &mut usize) {
    for (key, value) in table {
        let inner_path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        if let toml::Value::Table(inner) = value {
            check_table(page, inner, &inner_path, keys);
        } else if let Some(inner) = value.as_array().and_then(|list| list.first()?.as_table()) {
            check_table(page, inner, &inner_path, keys);
        } else {
            *keys += 1;
            let titles = [format!("[{path}]"), format!("[[{path}]]")];
            let titles = titles.map(|title| format!(".SH \"{title}\"\n").replace('-', "\\-"));
            let section = titles.iter().find_map(|title| Some(page.split_once(title)?.1));
            let section = section.unwrap_or_else(|| panic!("[{path}]"));
            let section = section.split_once("\n.SH ").map_or(section, |(section, _)| section);
            assert!(section.contains(&format!(".TP\n{} = ", bold(key))), "[{path}] {key}");
        }
    }
}

#[test]
fn the_rules_page_tells_every_field_and_modifier() {
    let page = page("execwatch-rules.5");
    for field in ATTRIBUTES {
        [Some(field.name), field.short].into_iter().flatten().for_each(|name| assert_told(&page, name));
    }
    RELATIVES.iter().for_each(|(name, _)| assert_told(&page, &format!("{name}.")));
    MODIFIERS.iter().for_each(|(name, _)| assert_told(&page, name));
    // Nothing of the other language is left, and nothing came twice.
    for mark in ["<!--", "```", "](", "\n|"] {
        assert!(!page.contains(mark), "{mark}");
    }
    assert_eq!(page.matches(&format!(".TP\n{}\n", bold("startswith"))).count(), 1);
}

#[test]
fn the_sources_of_the_pages_are_clean() {
    let Some(groff) = installed("groff") else { return };
    for page in pages::all("2026-01-01") {
        assert!(page.text.is_ascii(), "{}", page.file);
        let mut child = Command::new(&groff)
            .args(["-man", "-ww", "-z", "-Tutf8", "-rLL=80n"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(page.text.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let warnings = String::from_utf8_lossy(&output.stderr);
        // A word such as a path may be longer than a line.
        let mut left =
            warnings.lines().filter(|line| !line.contains("cannot adjust") && !line.contains("can't break"));
        assert_eq!(left.next(), None, "{}:\n{warnings}", page.file);
    }
}
