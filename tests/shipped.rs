//! The rules and the catalogue that ship: every rule on the execs that its tests describe, every name of the survey of
//! utilities, and the silence of those that count only with certain arguments. Nothing here needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use execwatch::alert::HostClock;
use execwatch::calendar::Date;
use execwatch::diagnostics::Diagnostics;
use execwatch::event::{Absent, Bytes, Event};
use execwatch::process::capture::Prefilter;
use execwatch::process::exec::Image;
use execwatch::rules::catalogue::{Hints, Utility};
use execwatch::rules::condition::Truth;
use execwatch::rules::load::{self, Places};
use execwatch::rules::ruleset::{RuleSet, evaluate};
use execwatch::rules::subject::Subject;
use execwatch::self_test::SelfTest;

fn shipped() -> RuleSet {
    let diagnostics = Diagnostics::default();
    let rules = load::builtin(&diagnostics);
    assert_eq!(diagnostics.into_list(), []);
    rules.unwrap()
}

fn places() -> Places {
    Places { builtin: true, folders: Vec::new(), folders_required: false }
}

#[test]
fn every_shipped_rule_judges_its_execs_rightly() {
    let diagnostics = Diagnostics::default();
    let tests = SelfTest::read(&places(), &diagnostics);
    let outcome = tests.run(&shipped());
    let messages: Vec<String> =
        diagnostics.into_list().iter().chain(&outcome.messages).map(ToString::to_string).collect();
    assert!(messages.is_empty(), "{}", messages.join("\n"));
    assert_eq!((outcome.failed, outcome.skipped), (0, 0));
    assert_eq!(outcome.rules, shipped().rules().len());
    assert!(outcome.passed > 2 * outcome.rules, "{outcome:?}");
}

#[test]
fn every_shipped_rule_says_what_an_analyst_needs() {
    for rule in shipped().rules() {
        let said = [&rule.title, &rule.description, &rule.triage].into_iter().all(|text| !text.is_empty());
        assert!(said && !rule.attack.is_empty() && !rule.false_positives.is_empty(), "{}", rule.id);
    }
}

/// A rule that names no program and no text costs every exec of the host.
#[test]
fn no_shipped_rule_is_examined_for_every_exec() {
    let set = shipped();
    let unguarded: Vec<&str> = set.unguarded().map(|rule| rule.id.as_str()).collect();
    assert_eq!(unguarded, [""; 0]);
}

/// A name that stands for many: a pattern, or a version written as N.
fn example(name: &str) -> String {
    match name {
        "python3.N" => "python3.12".to_owned(),
        "perl5.N" => "perl5.36".to_owned(),
        _ if name.ends_with('N') && !name.starts_with('N') => format!("{}8", &name[..name.len() - 1]),
        _ => name.replace('*', "x86"),
    }
}

#[test]
fn every_name_of_the_survey_is_known() {
    let set = shipped();
    let mut names = 0;
    for line in include_str!("data/utilities.csv").lines().skip(1) {
        let mut columns = line.split(',');
        let (name, _, aliases) = (columns.next().unwrap(), columns.next(), columns.next().unwrap());
        for name in std::iter::once(name).chain(aliases.split_whitespace()) {
            let name = example(name);
            assert!(set.catalogue().look_up(name.as_bytes()).is_some(), "{name}");
            names += 1;
        }
    }
    assert!(names > 300, "{names}");
}

/// As the command line has it, for one name of each kind: exact, alias, pattern, and one not installed here.
#[test]
fn explain_names_the_utility() {
    for (name, utility) in
        [("nc.traditional", "nc"), ("python3.12", "python"), ("curl.x", "curl"), ("zgrab2", "zgrab")]
    {
        let exe = format!("/usr/bin/{name}");
        let output = execwatch(&["explain", "--json", "--exe", &exe, "--", name]);
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(json["utility"]["name"], utility, "{name}");
    }
}

/// An exec of a utility without arguments, by root, without a login.
fn bare(name: &str) -> Event {
    Event {
        exe: Some(Bytes::from(format!("/usr/bin/{name}").as_str())),
        args: Some(vec![Bytes::from(name)]),
        uid: Some(0),
        user: Some("root".to_owned()),
        env: Some(Default::default()),
        absent: [Absent::Loginuid].into(),
        ..Event::default()
    }
}

fn matching(set: &RuleSet, event: &Event) -> Vec<String> {
    let case = event.case(0, set.catalogue());
    let subject = set.subject(&case.exec, &case.surroundings, &HostClock);
    let today = Date { year: 2026, month: 1, day: 1 };
    set.matching(&subject, today).iter().map(|found| found.rule.id.clone()).collect()
}

/// Names of a utility that are no patterns.
fn names(utility: &Utility) -> impl Iterator<Item = &String> {
    std::iter::once(&utility.name).chain(&utility.aliases).filter(|name| !name.contains(['*', '[', '?']))
}

#[test]
fn everyday_utilities_are_silent_by_themselves() {
    let set = shipped();
    for utility in set.catalogue().utilities().iter().filter(|utility| utility.everyday) {
        for name in names(utility) {
            assert_eq!(matching(&set, &bare(name)), [""; 0], "{name}");
        }
    }
}

#[test]
fn every_other_utility_is_told() {
    let set = shipped();
    for utility in set.catalogue().utilities().iter().filter(|utility| !utility.everyday) {
        for name in names(utility) {
            assert!(!matching(&set, &bare(name)).is_empty(), "{name}");
        }
    }
}

/// A utility whose note says that it counts with certain arguments is an everyday one, and some shipped test shows
/// arguments with which it counts.
#[test]
fn what_counts_with_arguments_is_told_with_them() {
    let set = shipped();
    let events: BTreeSet<String> = SelfTest::read(&places(), &Diagnostics::default())
        .matches()
        .filter_map(|event| {
            let case = event.case(0, set.catalogue());
            let subject = set.subject(&case.exec, &case.surroundings, &HostClock);
            let number = subject.utility()?.utility;
            Some(set.catalogue().utilities()[number].name.clone())
        })
        .collect();
    let counting = |utility: &&Utility| {
        let note = utility.note.to_lowercase();
        note.contains("counts") || note.contains("count only")
    };
    let mut found = 0;
    for utility in set.catalogue().utilities().iter().filter(counting) {
        assert!(utility.everyday, "{}", utility.name);
        assert!(events.contains(&utility.name), "no test shows {} with arguments that count", utility.name);
        found += 1;
    }
    assert!(found >= 15, "{found}");
}

fn execwatch(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_execwatch")).args(arguments).output().unwrap()
}

/// `check --self-test` with files of the administrator's.
fn check(name: &str, files: &[(&str, &str)]) -> (Option<i32>, String) {
    let folder = Folder::new(name);
    for (file, text) in files {
        std::fs::write(folder.0.join(file), text).unwrap();
    }
    let output = execwatch(&["check", "--self-test", "--rules", folder.0.to_str().unwrap()]);
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("shipped-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Folder(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const OWN_RULE: &str = r#"
[[rule]]
id = "netcat-listener"
title = "Our own idea of it"
severity = "low"
[rule.select.tool]
"utility.name" = "nc"
args = "-k"
"#;

#[test]
fn the_tests_of_a_changed_rule_are_left_out() {
    let (code, said) = check("changed", &[("own.toml", OWN_RULE)]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("14 left out"), "{said}");
    assert!(said.contains("warning: rule `netcat-listener` has no test"), "{said}");
    let tests = r#"
[[test]]
rule = "netcat-listener"
matches = [{ exe = "/usr/bin/nc.openbsd", args = ["nc", "-k"] }]
misses = [{ exe = "/usr/bin/nc.openbsd", args = ["nc", "-l"] }]
"#;
    let (code, said) = check("tested", &[("own.toml", OWN_RULE), ("tests.toml", tests)]);
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains("has no test"), "{said}");
}

#[test]
fn a_test_that_fails_is_an_error() {
    let tests = r#"
[[test]]
rule = "netcat-listener"
matches = [{ exe = "/usr/bin/nc.openbsd", args = ["nc", "-l"] }]
misses = [{ exe = "/usr/bin/nc.openbsd", args = ["nc", "-k"] }]
"#;
    let (code, said) = check("failing", &[("own.toml", OWN_RULE), ("tests.toml", tests)]);
    assert_eq!(code, Some(78), "{said}");
    assert!(
        said.contains("tests.toml:4:12: rule `netcat-listener` does not match this exec, and should match"),
        "{said}"
    );
    assert!(said.contains("selection `tool`: args does not fit -l"), "{said}");
    assert!(
        said.contains("tests.toml:5:11: rule `netcat-listener` matches this exec, and should not"),
        "{said}"
    );
    assert!(said.contains("2 wrongly"), "{said}");
}

#[test]
fn macros_of_ones_own_may_change_what_shipped_tests_say() {
    let own = "[[macro]]\nname = \"WEB_SERVERS\"\nvalues = [\"my-server\"]\n";
    let (code, said) = check("macros", &[("own.toml", own)]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("because of utilities or macros of your own"), "{said}");
}

#[test]
fn mistakes_in_tests_are_found_without_running_them() {
    let folder = Folder::new("mistakes");
    let tests =
        "[[test]]\nrule = \"netcat-listener\"\nmatches = [{ exec = \"/bin/nc\" }]\n[[test]]\nrule = \"x\"\n";
    std::fs::write(folder.0.join("tests.toml"), tests).unwrap();
    let output = execwatch(&["check", "--rules", folder.0.to_str().unwrap()]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("unknown key `exec`; did you mean `exe`?"), "{said}");
    assert!(said.contains("a test needs events in `matches`, `misses` or both"), "{said}");
}

#[test]
fn a_test_of_no_rule_is_an_error() {
    let tests = "[[test]]\nrule = \"netcat-listner\"\nmisses = [{ exe = \"/bin/nc\" }]\n";
    let (code, said) = check("unknown", &[("tests.toml", tests)]);
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("there is no rule `netcat-listner`; did you mean `netcat-listener`?"), "{said}");
}

#[test]
fn the_examples_of_the_manual_are_accepted() {
    let manual = include_str!("../docs/tuning.md");
    let examples: Vec<(String, &str)> = manual
        .split("```toml\n")
        .skip(1)
        .enumerate()
        .map(|(number, rest)| (format!("{number}.toml"), rest.split("```").next().unwrap()))
        .collect();
    assert!(examples.len() >= 5);
    let files: Vec<(&str, &str)> = examples.iter().map(|(name, text)| (name.as_str(), *text)).collect();
    let (code, said) = check("manual", &files);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("0 wrongly, 10 left out"), "{said}");
    // What the manual says of a file of that name.
    let (code, said) = check("shadow", &[("macros.toml", examples[2].1)]);
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("there is no macro `NETWORK_CATEGORIES`"), "{said}");
}

/// Shells of ordinary operation are most of what a host executes: no rule may want the details of one, which cost several
/// times what else is read of it.
#[test]
fn shells_of_ordinary_operation_are_let_go_at_first_sight() {
    let set = shipped();
    let commands = [
        "true",
        "make -j4 all",
        "cd / && run-parts --report /etc/cron.hourly",
        "command -v debian-sa1 > /dev/null && debian-sa1 1 1",
        "[ -x /usr/lib/php/sessionclean ] && if [ ! -d /run/systemd/system ]; then /usr/lib/php/sessionclean; fi",
        "test -x /usr/sbin/anacron || { cd / && run-parts --report /etc/cron.daily; }",
        "gcc -O2 -o /tmp/conftest /tmp/conftest.c",
        "grep -q processor /proc/cpuinfo",
        "exec /usr/bin/backup --to /srv/backup",
    ];
    for (exe, argv0) in [("/usr/bin/dash", "sh"), ("/usr/bin/dash", "/bin/sh"), ("/usr/bin/bash", "bash")] {
        for command in commands {
            let image = Image::new(Some(exe.as_bytes()), Some(&[argv0, "-c", command]));
            let subject = Subject::on_hot_path(&image, set.catalogue(), Hints::default());
            let wanting: Vec<&str> = set
                .rules()
                .iter()
                .filter(|rule| rule.enabled && evaluate(rule, &subject) != Truth::False)
                .map(|rule| rule.id.as_str())
                .collect();
            assert!(!set.could_match(&image, Hints::default()), "{argv0} -c '{command}': {wanting:?}");
        }
    }
}
