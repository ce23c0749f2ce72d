//! The rule language as docs/rules.md teaches it: every example in it is loaded, every row of its table of what rules
//! need is tried on a program that it shall match and on one that it shall not, and its tables of fields and modifiers
//! are those of the code.
//!
//! `EXECWATCH_TESTS_WRITE_GOLDEN=1 cargo test --test language` writes the tables of fields and modifiers anew.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use execwatch::alert::Clock;
use execwatch::baseline::decision::{Knowledge, Past};
use execwatch::calendar::{Date, LocalTime};
use execwatch::diagnostics::Diagnostics;
use execwatch::process::capture::Prefilter;
use execwatch::process::container::Named;
use execwatch::process::details::{Login, Namespaces};
use execwatch::process::exec::{Exec, Image};
use execwatch::process::file::FileFacts;
use execwatch::process::names::{Accounts, Names};
use execwatch::process::place::Place;
use execwatch::process::relatives::{Processes, Relative};
use execwatch::rules::catalogue::Hints;
use execwatch::rules::fields::{ATTRIBUTES, RELATIVES};
use execwatch::rules::load::{Places, load};
use execwatch::rules::ruleset::RuleSet;
use execwatch::rules::selection::MODIFIERS;
use execwatch::rules::subject::Surroundings;
use execwatch::rules::threshold::Counts;

const CONTAINER: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn document() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/rules.md")).unwrap()
}

/// Rules from the text of one file.
fn rules(text: &str) -> RuleSet {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("rules.toml"), text).unwrap();
    let places = Places { builtin: false, folders: vec![folder.path().to_owned()], folders_required: true };
    let diagnostics = Diagnostics::default();
    let rules = load(&places, &diagnostics);
    let mistakes: Vec<String> = diagnostics.into_list().iter().map(ToString::to_string).collect();
    assert!(mistakes.is_empty(), "{}\n{text}", mistakes.join("\n"));
    rules.unwrap()
}

/// A clock for which the host was started in 1970 and ticks are hundredths of a second.
#[derive(Clone, Copy)]
struct Started1970 {
    hour: u8,
}

impl Clock for Started1970 {
    fn wall_from_monotonic(&self, stamp_ns: u64) -> u64 {
        stamp_ns
    }

    fn wall_from_start_ticks(&self, ticks: u64) -> u64 {
        ticks * 10_000_000
    }

    fn local(&self, _: u64) -> Option<LocalTime> {
        Some(LocalTime { hour: self.hour, weekday: 3 })
    }
}

/// A program and the processes around it.
#[derive(Clone)]
struct World {
    exec: Exec,
    /// The ancestors, the parent first.
    ancestors: Vec<Relative>,
    /// Other processes.
    others: Vec<Relative>,
    /// The ancestors are all there are.
    complete: bool,
    /// When the container's oldest process was started, in ticks.
    container_start: Option<u64>,
    /// What the runtime tells of any container.
    container: Option<Named>,
    hour: u8,
    /// What the baseline knows.
    past: Option<Past>,
}

#[derive(Debug)]
struct Table {
    processes: Vec<Relative>,
    container_start: Option<u64>,
    container: Option<Named>,
}

impl Processes for Table {
    fn find(&self, pid: u32, _: Option<u64>) -> Option<Relative> {
        self.processes.iter().find(|process| process.pid == pid).cloned()
    }

    fn container(&self, _: &Place) -> Option<std::sync::Arc<Named>> {
        self.container.clone().map(Into::into)
    }

    fn container_start(&self, _: &[u8]) -> Option<u64> {
        self.container_start
    }
}

fn image(exe: &str, argv: &[&str]) -> Image {
    Image::new(Some(exe.as_bytes()), Some(argv))
}

fn process(pid: u32, exe: &str, argv: &[&str]) -> Relative {
    let name = exe.rsplit('/').next().unwrap();
    Relative {
        pid,
        image: image(exe, argv),
        comm: Some(name.as_bytes()[..name.len().min(15)].to_vec()),
        uids: Some([0; 4]),
        gids: Some([0; 4]),
        tty: Some(0),
        cwd: Some(b"/".to_vec()),
        start_ticks: Some(100),
        vpid: Some(pid),
        cgroup: Some(b"0::/system.slice/ssh.service\n".to_vec()),
        ..Relative::default()
    }
}

impl World {
    /// Somebody who logged in by ssh looks up a name: every fact is known, and none is remarkable.
    fn new() -> World {
        let mut exec = Exec {
            pid: 100,
            timestamp_ns: 10_000_000_000_000,
            image: image("/usr/bin/dig", &["dig", "+short", "example.org"]),
            ..Exec::default()
        };
        exec.file = Some(FileFacts {
            device: (8, 1),
            inode: 7,
            mode: 0o100_755,
            links: 1,
            uid: 0,
            gid: 0,
            size: 1000,
            modified_ns: 1_000_000_000,
            changed_ns: 1_000_000_000,
            mount: None,
        });
        let details = &mut exec.details;
        details.uids = Some([1000; 4]);
        details.gids = Some([1000; 4]);
        details.groups = vec![27];
        details.login = Some(Login::User(1000));
        details.session = Some(90);
        details.pgid = Some(100);
        details.vpid = Some(100);
        details.tty = Some(136 << 8);
        details.start_ticks = Some(999_990);
        details.namespaces = HOST;
        details.capabilities.effective = Some(0);
        details.capabilities.permitted = Some(0);
        details.capabilities.inheritable = Some(0);
        details.capabilities.ambient = Some(0);
        details.ppid = Some(90);
        details.upper_layer = Some(false);
        details.set_comm(b"dig");
        details.set_cwd(b"/home/user");
        details.set_cgroup(b"0::/user.slice/user-1000.slice/session-3.scope\n");
        details.set_environment(b"HOME=/home/user\0PATH=/usr/bin:/bin\0");
        let mut bash = process(90, "/usr/bin/bash", &["-bash"]);
        bash.tty = Some(136 << 8);
        bash.cgroup = Some(b"0::/user.slice/user-1000.slice/session-3.scope\n".to_vec());
        let ancestors = vec![
            bash,
            process(80, "/usr/lib/openssh/sshd-session", &["sshd-session: user@pts/0"]),
            process(70, "/usr/sbin/sshd", &["sshd: /usr/sbin/sshd -D"]),
            process(1, "/usr/lib/systemd/systemd", &["/sbin/init"]),
        ];
        let mut world = World {
            exec,
            ancestors,
            others: Vec::new(),
            complete: true,
            container_start: None,
            container: None,
            hour: 12,
            past: None,
        };
        world.parent_is(|_| {});
        world
    }

    /// Another command line.
    fn runs(&mut self, exe: &str, argv: &[&str]) {
        self.exec.image = image(exe, argv);
        let name = exe.rsplit('/').next().unwrap();
        self.exec.details.set_comm(&name.as_bytes()[..name.len().min(15)]);
    }

    /// Another parent.
    fn parent_is(&mut self, change: impl Fn(&mut Relative)) {
        change(&mut self.ancestors[0]);
        self.exec.details.parent = self.ancestors[0].image.clone();
    }

    /// Other ancestors, the parent first; the first process comes after them.
    fn below(&mut self, ancestors: &[(&str, &[&str])]) {
        let init = self.ancestors.pop().unwrap();
        self.ancestors =
            (2..).zip(ancestors).map(|(number, (exe, argv))| process(99 - number, exe, argv)).collect();
        self.ancestors.push(init);
        self.exec.details.ppid = Some(self.ancestors[0].pid);
        self.parent_is(|_| {});
    }

    fn file_is(&mut self, change: impl Fn(&mut FileFacts)) {
        change(self.exec.file.as_mut().unwrap());
    }

    fn in_container(&mut self) {
        let cgroup = format!("0::/system.slice/docker-{CONTAINER}.scope\n");
        self.exec.details.set_cgroup(cgroup.as_bytes());
    }

    /// In a pod whose runtime tells this.
    fn in_pod(&mut self, name: &str, image: &str, pod: &str, namespace: &str) {
        let text = |text: &str| Some(text.to_owned());
        self.container = Some(Named {
            name: text(name),
            image: text(image),
            pod_name: text(pod),
            pod_namespace: text(namespace),
        });
        let cgroup = format!("0::/kubepods/besteffort/pod01234567-89ab-cdef-0123-456789abcdef/{CONTAINER}\n");
        self.exec.details.set_cgroup(cgroup.as_bytes());
    }

    fn argv(&mut self, argv: &[&str]) {
        let exe = self.exec.image.exe().unwrap().to_vec();
        self.exec.image = Image::new(Some(&exe), Some(argv));
    }

    fn parts(mut self) -> (Exec, Surroundings, Started1970) {
        let pids: Vec<u32> = self.ancestors.iter().map(|process| process.pid).collect();
        for (number, ancestor) in self.ancestors.iter_mut().enumerate() {
            let parent = pids.get(number + 1).copied();
            ancestor.ppid = if self.complete { Some(parent.unwrap_or(0)) } else { parent };
        }
        let mut processes = self.ancestors;
        processes.extend(self.others);
        let accounts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
        let surroundings = Surroundings {
            accounts: Accounts {
                users: Names::new(accounts.join("passwd")),
                groups: Names::new(accounts.join("group")),
            },
            namespaces: HOST,
            processes: Box::new(Table {
                processes,
                container_start: self.container_start,
                container: self.container,
            }),
            files: std::sync::Arc::default(),
        };
        self.exec.ancestors = surroundings.processes.ancestors(&self.exec.details);
        (self.exec, surroundings, Started1970 { hour: self.hour })
    }
}

const HOST: Namespaces = Namespaces { pid: Some(1), mnt: Some(2), net: Some(3), user: Some(4) };

/// The ids of the rules that match and are not silenced.
fn matching(rules: &RuleSet, world: &World) -> Vec<String> {
    let (exec, surroundings, clock) = world.clone().parts();
    let mut subject = rules.subject(&exec, &surroundings, &clock);
    subject.set_past(world.past);
    let today = Date { year: 2026, month: 1, day: 1 };
    let found = rules.matching(&subject, today);
    if !found.is_empty() {
        // As the daemon does: by executable and arguments, and by comm where these leave the name open.
        let hints = |comm| Hints { comm, ..Hints::default() };
        let passes = rules.could_match(&exec.image, hints(None))
            || rules.wants_comm(&exec.image) && rules.could_match(&exec.image, hints(exec.details.comm()));
        assert!(passes, "the prefilter lets go of what a rule matches");
    }
    found.iter().filter(|found| found.exception.is_none()).map(|found| found.rule.id.clone()).collect()
}

/// A row: what is needed, and how it is written.
struct Row {
    need: String,
    /// Tables of a file with a rule called `row`.
    rules: String,
}

/// The rows of the tables below the heading, and its fenced examples with the titles before them.
fn rows() -> Vec<Row> {
    let text = document();
    let section = text.split("\n## ").find(|section| section.starts_with("What rules need")).unwrap();
    let mut rows = Vec::new();
    let mut title = String::new();
    let mut fenced: Option<String> = None;
    for line in section.lines() {
        if let Some(block) = &mut fenced {
            if line == "```" {
                rows.push(Row { need: std::mem::take(&mut title), rules: fenced.take().unwrap() });
            } else {
                let _ = writeln!(block, "{line}");
            }
        } else if let Some(heading) = line.strip_prefix("#### ") {
            heading.clone_into(&mut title);
        } else if line == "```toml" {
            fenced = Some(String::new());
        } else if let Some(cells) = line.strip_prefix("| ") {
            let cells = cells.replace("\\|", "\u{0}");
            let cells: Vec<String> = cells.split('|').map(|cell| cell.trim().replace('\u{0}', "|")).collect();
            if cells[0] != "need" && !cells[0].starts_with("---") {
                rows.push(Row { need: cells[0].clone(), rules: row_rules(&cells[1]) });
            }
        }
    }
    rows
}

/// The rule of a table's cell, where each piece of code is a line of a selection, or the rule's condition.
fn row_rules(cell: &str) -> String {
    let lines: Vec<&str> = cell.split('`').skip(1).step_by(2).collect();
    let (conditions, tests): (Vec<&str>, Vec<&str>) =
        lines.iter().partition(|line| line.starts_with("condition = "));
    let (condition, tests) = (conditions.join("\n"), tests.join("\n"));
    format!(
        "[[rule]]\nid = \"row\"\ntitle = \"Row\"\nseverity = \"low\"\n{condition}\n[rule.select.it]\n{tests}\n"
    )
}

type Change = fn(&mut World);

/// For each row, how a program has to differ from an unremarkable one to match, and a change after which it does not.
const CASES: &[(&str, Change, Change)] = &include!("language/cases.rs");

#[test]
fn every_need_can_be_written() {
    let rows = rows();
    let written: BTreeSet<&str> = rows.iter().map(|row| row.need.as_str()).collect();
    let tested: BTreeSet<&str> = CASES.iter().map(|(need, ..)| *need).collect();
    assert_eq!(written.difference(&tested).collect::<Vec<_>>(), [&""; 0], "rows without a test");
    assert_eq!(tested.difference(&written).collect::<Vec<_>>(), [&""; 0], "tests without a row");
    assert_eq!((rows.len(), CASES.len()), (written.len(), tested.len()), "two of the same name");
    let mut wrong = Vec::new();
    for row in &rows {
        let rules = rules(&row.rules);
        let (_, hit, miss) = CASES.iter().find(|(need, ..)| *need == row.need).unwrap();
        for (change, expected) in [(hit, true), (miss, false)] {
            let mut world = World::new();
            change(&mut world);
            let found = matching(&rules, &world);
            if found.contains(&"row".to_owned()) != expected {
                wrong.push(format!("{}: expected a match: {expected}\n{}", row.need, row.rules));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// All examples outside the table of needs load, too, each in the place that its first line tells.
#[test]
fn every_example_loads() {
    let text = document();
    let blocks: Vec<&str> =
        text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(blocks.len() > 8, "{}", blocks.len());
    for block in blocks {
        rules(block);
    }
}

/// The matches, at these seconds with these user ids and arguments, at which a rule with this threshold alerts.
fn alerts(threshold: &str, matches: impl IntoIterator<Item = (u64, u32, &'static str)>) -> Vec<usize> {
    let rules = rules(&format!(
        "[[rule]]\nid = \"row\"\ntitle = \"Row\"\nseverity = \"low\"\nthreshold = {threshold}\n[rule.select.it]\nname = \"dig\"\n"
    ));
    let mut counts = Counts::default();
    let mut alerts = Vec::new();
    for (number, (second, uid, argument)) in matches.into_iter().enumerate() {
        let mut world = World::new();
        world.argv(&["dig", argument]);
        world.exec.details.uids = Some([uid; 4]);
        let (exec, surroundings, clock) = world.parts();
        let subject = rules.subject(&exec, &surroundings, &clock);
        if counts.reached(&rules.rules()[0], &subject, second * 1_000_000_000) {
            alerts.push(number);
        }
    }
    alerts
}

#[test]
fn thresholds_count_in_their_window() {
    let same = |seconds: &[u64]| seconds.iter().map(|&second| (second, 0, "x")).collect::<Vec<_>>();
    let three = "{ count = 3, window = \"10s\" }";
    // At the third within ten seconds, which then begins anew.
    assert_eq!(alerts(three, same(&[0, 5, 10, 11, 12, 13])), [2, 5]);
    assert_eq!(alerts(three, same(&[0, 5, 11, 15])), [3]);
    assert_eq!(alerts(three, same(&[0, 11, 22, 33])), [0; 0]);
    // An exec that is evaluated late has an earlier time.
    assert_eq!(alerts(three, same(&[7, 5, 6])), [2]);
    let by = "{ count = 2, window = \"10s\", by = [\"uid\"] }";
    assert_eq!(alerts(by, [(0, 1, "x"), (1, 2, "x"), (2, 2, "x"), (3, 1, "x")]), [2, 3]);
    let distinct = "{ count = 3, window = \"10s\", distinct = \"args\" }";
    assert_eq!(alerts(distinct, [(0, 1, "a"), (1, 1, "a"), (2, 1, "b"), (3, 1, "a"), (4, 1, "c")]), [4]);
    // The one that was seen has left the window.
    assert_eq!(alerts(distinct, [(0, 1, "a"), (5, 1, "b"), (11, 1, "a"), (12, 1, "c")]), [3]);
}

#[test]
fn thresholds_remember_a_bounded_number_of_keys() {
    let by = "{ count = 2, window = \"1d\", by = [\"uid\"] }";
    let flood = |others: u32| {
        let others = (1..=others).map(|uid| (u64::from(uid), uid, "x"));
        alerts(by, std::iter::once((0, 0, "x")).chain(others).chain([(86_000, 0, "x")]))
    };
    assert_eq!(flood(4095), [4096]);
    assert_eq!(flood(4096), [0; 0]);
}

fn generated(name: &str, table: &str) {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/rules.md");
    let text = document();
    let (start, end) = (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->"));
    let (before, rest) = text.split_once(&start).unwrap();
    let (found, after) = rest.split_once(&end).unwrap();
    if std::env::var_os("EXECWATCH_TESTS_WRITE_GOLDEN").is_some() {
        std::fs::write(path, format!("{before}{start}{table}{end}{after}")).unwrap();
    } else {
        assert_eq!(found, table, "the table of {name} in docs/rules.md is not that of the code");
    }
}

/// Both tables in one test: they are written into the same file.
#[test]
fn the_tables_of_the_document_are_those_of_the_code() {
    let mut fields = "| field | holds | what it is |\n|---|---|---|\n".to_owned();
    for row in ATTRIBUTES {
        let short = row.short.map(|name| format!(", `{name}`")).unwrap_or_default();
        let marks = format!("{}{}", if row.relatives { " †" } else { "" }, if row.hot { " ‡" } else { "" });
        let _ = writeln!(
            fields,
            "| `{}`{short}{marks} | {} | {} |",
            row.name,
            row.kind.as_str(),
            row.description.replace('|', "\\|")
        );
    }
    generated("fields", &fields);
    let mut relatives = "| in front | whose |\n|---|---|\n".to_owned();
    for (prefix, description) in RELATIVES {
        let _ = writeln!(relatives, "| `{prefix}.` | {description} |");
    }
    generated("relatives", &relatives);
    let mut modifiers = "| modifier | a test holds if |\n|---|---|\n".to_owned();
    for (name, description) in MODIFIERS {
        let _ = writeln!(modifiers, "| `{name}` | {description} |");
    }
    generated("modifiers", &modifiers);
}
