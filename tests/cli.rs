//! The command line: help, exit codes, and what is said about mistakes. Nothing here needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

fn execwatch(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_execwatch")).args(arguments).output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn out(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn err(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

#[test]
fn help_and_version() {
    let help = execwatch(&["--help"]);
    assert_eq!(code(&help), 0);
    for word in ["run", "check", "rules", "Exit codes"] {
        assert!(out(&help).contains(word), "{}", out(&help));
    }
    let words: Vec<&str> = out(&help).split_whitespace().collect();
    assert!(words.join(" ").contains("69 no process events to be had or no daemon answers,"), "{words:?}");
    let version = execwatch(&["--version"]);
    assert_eq!((code(&version), out(&version)), (0, concat!("execwatch ", env!("CARGO_PKG_VERSION"), "\n")));
    for command in ["run", "check", "rules"] {
        let help = execwatch(&[command, "--help"]);
        assert_eq!(code(&help), 0);
        assert!(out(&help).contains("--config") && out(&help).contains("--rules"), "{}", out(&help));
    }
}

#[test]
fn wrong_command_lines() {
    for arguments in [&[][..], &["frob"], &["run", "--frob"], &["check", "--config"], &["rules", "a", "b"]] {
        let output = execwatch(arguments);
        assert_eq!(code(&output), 64, "{arguments:?}: {}", err(&output));
        assert!(err(&output).contains("--help"), "{arguments:?}: {}", err(&output));
        assert_eq!(out(&output), "");
    }
    let output = execwatch(&["chek"]);
    assert!(err(&output).contains("check"), "{}", err(&output));
}

#[test]
fn a_rule_that_is_not_there() {
    let listed = execwatch(&["rules", "--utilities"]);
    assert!(out(&listed).lines().any(|line| line.starts_with("socat ")), "{}", out(&listed));
    for (name, said) in
        [("soccat", "; did you mean `socat`?\n"), ("no-such-thing-at-all", "; `execwatch rules` lists ")]
    {
        let output = execwatch(&["rules", name]);
        assert_eq!(code(&output), 64);
        assert!(err(&output).contains(&format!("called `{name}`{said}")), "{}", err(&output));
    }
}

#[test]
fn check_of_what_is_shipped() {
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/config/execwatch.toml");
    for arguments in [&["check"][..], &["check", "--config", shipped]] {
        let output = execwatch(arguments);
        assert_eq!((code(&output), err(&output)), (0, ""));
        assert!(out(&output).contains("no mistake found"), "{}", out(&output));
    }
}

#[test]
fn files_that_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("latin1.toml"), b"# \xe9\n").unwrap();
    std::fs::create_dir(path("folder")).unwrap();
    for (option, name, reason) in [
        ("--config", "missing.toml", "No such file"),
        ("--config", "folder", "Is a directory"),
        ("--config", "latin1.toml", "UTF-8"),
        ("--rules", "missing", "No such file"),
        ("--rules", "latin1.toml", "Not a directory"),
    ] {
        // `run` refuses before it asks for root, so that a mistake is seen by whoever made it.
        for command in ["check", "rules", "run"] {
            let output = execwatch(&[command, option, &path(name)]);
            assert_eq!(code(&output), 78, "{command} {option} {name}: {}", err(&output));
            assert!(err(&output).contains(reason) && err(&output).contains(name), "{}", err(&output));
        }
    }
}

#[test]
fn rules_are_listed_and_shown() {
    let list = execwatch(&["rules"]);
    assert_eq!(code(&list), 0);
    let first = out(&list).lines().next().unwrap();
    let id = first.split_whitespace().next().unwrap();
    let rule = execwatch(&["rules", id]);
    assert_eq!(code(&rule), 0);
    for key in ["title", "severity", "file"] {
        assert!(out(&rule).lines().any(|line| line.starts_with(key)), "{}", out(&rule));
    }
    let utility = execwatch(&["rules", "netcat"]);
    assert!(out(&utility).contains("category         netcat"), "{}", out(&utility));
    let utilities = execwatch(&["rules", "--utilities"]);
    assert!(out(&utilities).lines().any(|line| line.starts_with("nslookup ")));
    let fields = execwatch(&["rules", "--fields"]);
    assert!(out(&fields).lines().any(|line| line.starts_with("utility.category ")));
    let unknown = execwatch(&["rules", "no-such-rule"]);
    assert_eq!((code(&unknown), out(&unknown)), (64, ""));
    assert!(err(&unknown).contains("no-such-rule"));
}

/// A reader that goes away is no error, as with any filter; a full disk is one.
#[test]
fn output_that_cannot_be_written() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_execwatch"));
    assert_eq!(command.args(["rules", "--utilities"]).stdout(writer).status().unwrap().code(), Some(0));
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = command.stdout(full).output().unwrap();
    assert_eq!(code(&output), 74);
    assert!(err(&output).contains("standard output"), "{}", err(&output));
}

#[test]
fn without_root() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_execwatch"));
    command.arg("run");
    if nix::unistd::geteuid().is_root() {
        // The program may lie below a folder that only root may enter: it is run through an open file.
        let program = std::fs::File::open(env!("CARGO_BIN_EXE_execwatch")).unwrap();
        let descriptor = std::os::fd::AsRawFd::as_raw_fd(&program);
        nix::fcntl::fcntl(&program, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
        command = Command::new(format!("/proc/self/fd/{descriptor}"));
        command.arg("run").uid(65534).gid(65534);
        let output = command.output().unwrap();
        drop(program);
        assert_refused(&output);
    } else {
        assert_refused(&command.output().unwrap());
    }
}

fn assert_refused(output: &Output) {
    assert_eq!(code(output), 77, "{}", err(output));
    assert_eq!(err(output).lines().count(), 1, "{}", err(output));
    assert!(err(output).contains("must be run as root"), "{}", err(output));
}

/// What stands in a folder of rules beside text: nothing makes `check` wait, or says less than what it is.
#[test]
fn folders_with_what_is_no_text() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    nix::unistd::mkfifo(&path("a.toml"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    nix::unistd::mkfifo(&path("a.yml"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::fs::create_dir(path("b.toml")).unwrap();
    std::fs::write(path("c.toml"), b"# a\n\xff\n").unwrap();
    std::os::unix::fs::symlink("nowhere", path("d.toml")).unwrap();
    let name = folder.path().to_str().unwrap();
    let output = execwatch(&["check", "--rules", name]);
    let lines: Vec<&str> = err(&output).lines().collect();
    let expected = [
        ("a.toml: ", "it is no ordinary file"),
        ("b.toml: ", "it is no ordinary file"),
        ("c.toml: ", "it is no text: line 2 is not valid UTF-8"),
        ("d.toml: ", "No such file or directory (os error 2)"),
        ("execwatch: ", "4 mistakes found"),
    ];
    assert_eq!((code(&output), lines.len()), (78, expected.len()), "{}", err(&output));
    for (line, (file, reason)) in lines.iter().zip(expected) {
        assert!(line.contains(file) && line.ends_with(reason), "{line}");
    }
    let output = execwatch(&["import", "sigma", name]);
    assert_eq!(code(&output), 1);
    assert!(err(&output).contains("a.yml: it is no ordinary file\n"), "{}", err(&output));
    assert!(err(&output).ends_with("0 rules from 0 files; 1 file not translated\n"), "{}", err(&output));
}

/// A macro of many values in many tests takes no memory without limit.
#[test]
fn macros_that_multiply() {
    let folder = tempfile::tempdir().unwrap();
    let values: Vec<String> = (0..5_000).map(|number| format!("\"v{number}\"")).collect();
    let tests: String = (0..60).map(|number| format!("\"env.V{number}|expand\" = \"%M%\"\n")).collect();
    let rule = "[[rule]]\nid = \"x\"\ntitle = \"x\"\nseverity = \"low\"\n[rule.select.a]\n";
    let text = format!("[[macro]]\nname = \"M\"\nvalues = [{}]\n{rule}{tests}", values.join(","));
    std::fs::write(folder.path().join("own.toml"), text).unwrap();
    let output = execwatch(&["check", "--rules", folder.path().to_str().unwrap()]);
    assert_eq!(code(&output), 78);
    assert!(err(&output).contains("more than 250000 values"), "{}", err(&output));
    assert!(err(&output).contains("\"env.V5"), "the test that is too much is quoted: {}", err(&output));
}
