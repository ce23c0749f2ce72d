//! `execwatch import sigma`: the 62 rules of `tests/data/sigma` and execwatch's own of `tests/data/sigma-own`, compared
//! with a second evaluator; files, messages and exit codes. Nothing here needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod command;
mod events;
mod known;
mod reference;

use std::path::{Path, PathBuf};

use execwatch::alert::HostClock;
use execwatch::calendar::Date;
use execwatch::diagnostics::{Diagnostics, Source};
use execwatch::process::capture::Prefilter;
use execwatch::process::details::{Login, Namespaces};
use execwatch::process::exec::{Exec, Image};
use execwatch::process::names::{Accounts, Names};
use execwatch::process::relatives::{Processes, Relative};
use execwatch::rules::catalogue::Hints;
use execwatch::rules::condition::Truth;
use execwatch::rules::load::{Places, load};
use execwatch::rules::ruleset::{RuleSet, evaluate};
use execwatch::rules::sigma;
use execwatch::rules::subject::{Subject, Surroundings};
use serde_yaml_ng::Value;

use events::Random;
use reference::Event;

fn data(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(folder)
}

/// The YAML files of a folder.
fn files(folder: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(data(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yml"))
        .collect();
    files.sort();
    files
}

/// Rules of both kinds: the Sigma rule, and the id of what it was translated to.
struct Imported {
    rules: Vec<(Value, String)>,
    set: RuleSet,
    folder: tempfile::TempDir,
}

fn import(folders: &[&str]) -> Imported {
    let folder = tempfile::tempdir().unwrap();
    let mut rules = Vec::new();
    for path in folders.iter().flat_map(|folder| files(folder)) {
        let text = std::fs::read_to_string(&path).unwrap();
        let import = sigma::import(&Source { name: path.display().to_string(), text: text.clone() });
        assert!(import.complete(), "{:?}", import.messages);
        let [rule] = import.rules.as_slice() else { panic!("{}", path.display()) };
        rules.push((serde_yaml_ng::from_str(&text).unwrap(), rule.id.clone()));
        std::fs::write(folder.path().join(format!("{}.toml", rule.id)), &rule.toml).unwrap();
    }
    let places = Places { builtin: false, folders: vec![folder.path().to_owned()], folders_required: true };
    let diagnostics = Diagnostics::default();
    let set = load(&places, &diagnostics);
    let messages: Vec<String> = diagnostics.into_list().iter().map(ToString::to_string).collect();
    assert!(messages.is_empty(), "{}", messages.join("\n"));
    std::fs::write(
        folder.path().join("passwd"),
        "root:x:0:0::/:/bin/sh\nwww-data:x:33:33::/:/bin/sh\nalice:x:1000:1000::/:/bin/sh\nROOT:x:1001:0::/:/bin/sh\n",
    )
    .unwrap();
    Imported { rules, set: set.unwrap(), folder }
}

#[derive(Debug)]
struct OneParent(Option<Relative>);

impl Processes for OneParent {
    fn find(&self, pid: u32, _: Option<u64>) -> Option<Relative> {
        self.0.clone().filter(|parent| parent.pid == pid)
    }
}

/// A command line as an argument list: no argument of these holds a space.
fn image(exe: &str, command_line: &str) -> Image {
    Image::new(Some(exe.as_bytes()), Some(&command_line.split(' ').collect::<Vec<_>>()))
}

impl Imported {
    fn exec(&self, event: &Event) -> (Exec, Surroundings) {
        let uid = |name: Option<&String>| match name.map(String::as_str) {
            Some("root") => 0,
            Some("www-data") => 33,
            Some("alice") => 1000,
            Some("ROOT") => 1001,
            // A user without a name.
            _ => 4000,
        };
        let mut exec = Exec { pid: event["ProcessId"].parse().unwrap(), ..Exec::default() };
        exec.image = image(&event["Image"], &event["CommandLine"]);
        exec.details.uids = Some([uid(event.get("User")); 4]);
        exec.details.login = Some(match event.get("LogonId") {
            Some(id) => Login::User(id.parse().unwrap()),
            None => Login::Nobody,
        });
        exec.details.set_cwd(event["CurrentDirectory"].as_bytes());
        exec.details.ppid = Some(0);
        let mut parent = None;
        if let Some(pid) = event.get("ParentProcessId") {
            exec.details.ppid = Some(pid.parse().unwrap());
            exec.details.parent = image(&event["ParentImage"], &event["ParentCommandLine"]);
            parent = Some(Relative {
                pid: pid.parse().unwrap(),
                ppid: Some(0),
                image: exec.details.parent.clone(),
                uids: Some([uid(event.get("ParentUser")); 4]),
                ..Relative::default()
            });
        }
        let users = Names::new(self.folder.path().join("passwd"));
        let surroundings = Surroundings {
            accounts: Accounts { users, groups: Names::new("/dev/null") },
            namespaces: Namespaces::default(),
            processes: Box::new(OneParent(parent)),
            files: Default::default(),
        };
        (exec, surroundings)
    }

    /// Whether execwatch's rule matches, by way of the prefilter.
    fn matches(&self, id: &str, event: &Event) -> bool {
        let (exec, surroundings) = self.exec(event);
        let subject = self.set.subject(&exec, &surroundings, &HostClock);
        let rule = self.set.rules().iter().find(|rule| rule.id == id).unwrap();
        let truth = evaluate(rule, &subject);
        assert_ne!(truth, Truth::Unknown, "{id}: all is known of {event:?}");
        let found = self.set.matching(&subject, Date { year: 2026, month: 1, day: 1 });
        assert_eq!(found.iter().any(|found| found.rule.id == id), truth == Truth::True, "{id}: {event:?}");
        if truth == Truth::True {
            assert!(
                self.set.could_match(&exec.image, Hints::default()),
                "{id}: the prefilter lets {event:?} go"
            );
            let hot = Subject::on_hot_path(&exec.image, self.set.catalogue(), Hints::default());
            assert_ne!(evaluate(rule, &hot), Truth::False, "{id}: {event:?}");
        }
        truth == Truth::True
    }
}

/// Compares with the reference evaluator; gives how often each rule matched.
fn compare(folder: &str, events_per_rule: usize) -> Vec<(String, usize)> {
    let imported = import(&[folder]);
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut counts: Vec<(String, usize)> = imported.rules.iter().map(|(_, id)| (id.clone(), 0)).collect();
    for (rule, id) in &imported.rules {
        for _ in 0..events_per_rule {
            let event = events::event(rule, &mut random);
            // The rule that the event was made for, and another.
            let (other, other_id) = random.pick(&imported.rules);
            for (rule, id) in [(rule, id), (other, other_id)] {
                let expected = reference::matches(rule, &event);
                assert_eq!(imported.matches(id, &event), expected, "{id}: {event:#?}\n{rule:#?}");
                if let Some(count) = counts.iter_mut().find(|(own, _)| own == id) {
                    count.1 += usize::from(expected);
                }
            }
        }
    }
    counts
}

#[test]
fn the_rules_of_others_mean_the_same() {
    let counts = compare("sigma", 200);
    assert_eq!(counts.len(), 62);
    let (least, most) = (8, 390);
    let odd: Vec<_> = counts.iter().filter(|(_, count)| !(least..most).contains(count)).collect();
    assert!(odd.is_empty(), "the events tell little about {odd:?}");
}

#[test]
fn rules_that_use_every_feature_mean_the_same() {
    let counts = compare("sigma-own", 700);
    let odd: Vec<_> = counts.iter().filter(|(_, count)| !(20..1350).contains(count)).collect();
    assert!(odd.is_empty(), "the events tell little about {odd:?}");
}

#[test]
fn no_rule_of_others_is_examined_for_every_exec() {
    let imported = import(&["sigma"]);
    let unguarded: Vec<&str> = imported.set.unguarded().map(|rule| rule.id.as_str()).collect();
    assert!(unguarded.is_empty(), "{unguarded:?}");
}
