use proptest::collection::{btree_map, btree_set, vec};
use proptest::option::of;
use proptest::prelude::*;

use super::*;
use crate::diagnostics::{Diagnostics, Source};
use crate::document::Document;
use crate::rules::catalogue::Catalogue;

fn bytes() -> impl Strategy<Value = Bytes> {
    prop_oneof![vec(1u8.., 0..12), r"(\\x?[0-9a-fA-F]{0,2}){0,3}".prop_map(String::into_bytes)]
        .prop_map(|bytes| Bytes::new(&bytes))
}

fn terminal() -> impl Strategy<Value = Terminal> {
    // Of two numbers with the same name only one comes back.
    any::<u32>().prop_filter_map("no terminal", Terminal::new).prop_filter_map("nameless", |terminal| {
        Terminal::of_name(&crate::process::parse::tty_name(terminal.device())?)
    })
}

fn moment() -> impl Strategy<Value = Moment> {
    (1u64 << 50.., -1000i32..1000).prop_map(|(ns, minutes)| Moment { ns, offset: minutes * 60 })
}

fn cgroup() -> impl Strategy<Value = Cgroup> {
    vec(("[0-9]{1,2}:[a-z=,]{0,5}:/", "[^\n\0]{0,10}"), 1..3).prop_map(|lines| {
        let lines: Vec<String> = lines.into_iter().map(|(start, path)| start + &path).collect();
        Cgroup::new(lines.join("\n").as_bytes())
    })
}

fn args() -> impl Strategy<Value = Option<Vec<Bytes>>> {
    of(vec(bytes(), 0..4))
}

fn ids() -> impl Strategy<Value = [Option<u32>; 4]> {
    [of(0..u32::MAX), of(0..u32::MAX), of(0..u32::MAX), of(0..u32::MAX)]
}

prop_compose! {
    fn process()(
        (exe, args, args_cut, comm, cwd, tty, pid) in (of(bytes()), args(), any::<bool>(), of(bytes()), of(bytes()), of(terminal()), of(1u32..)),
        [ppid, uid, euid, gid] in ids(),
        (user, user_effective, group, start) in (of(".{0,5}"), of(".{0,5}"), of(".{0,5}"), of(moment())),
    ) -> Process {
        let absent = if tty.is_none() { BTreeSet::from([Absent::Tty]) } else { BTreeSet::new() };
        Process { vpid: pid, cgroup: None, exe, args, args_cut, comm, cwd, tty, pid, ppid, user, user_effective, uid, euid, group, gid, egid: None, start, learnt: if args_cut { Learnt::Seen } else { Learnt::Unknown }, ended: args_cut, absent }
    }
}

prop_compose! {
    fn event()(
        (time, host, exe, args, args_cut, args_length) in
            (of(moment()), of(".{0,9}"), of(bytes()), args(), any::<bool>(), of(any::<u64>())),
        (comm, cwd, tty, user, groups, env) in
            (of(bytes()), of(bytes()), of(terminal()), of(".{0,9}"), of(vec(".{0,5}", 0..3)), of(btree_map(bytes(), bytes(), 0..3))),
        [pid, ppid, vpid, session] in ids(),
        [uid, euid, suid, fsuid] in ids(),
        [gid, egid, sgid, fsgid] in ids(),
        [loginuid, audit_session, process_group, umask] in ids(),
        (start, cgroup, foreign, ids, sets) in
            (of(moment()), of(cgroup()), [of(any::<bool>()), of(any::<bool>())], of(any::<u64>()), [of(any::<u64>()), of(any::<u64>())]),
        (parent, ancestors, ancestors_complete, session_leader) in
            (of(process()), of(vec(process(), 0..3)), any::<bool>(), of(process())),
        (certainty, cpu, hold_ns, absent) in (
            of(prop_oneof![Just(Certainty::Exact), Just(Certainty::AlreadyRunning), Just(Certainty::Reported)]),
            of(any::<u32>()), of(any::<u64>()),
            btree_set(prop_oneof![Just(Absent::UserEffective), Just(Absent::Group), Just(Absent::LoginUser)], 0..3),
        ),
    ) -> Event {
        Event {
            container: Named { name: host.clone(), pod_name: user.clone(), ..Named::default() },
            container_start: start, exe_upper_layer: foreign[0],
            exe_file: File {
                size: ids, links: uid, mode: gid, owner: host.clone(), modified: time, changed: start, inode: ids,
                device: uid.zip(gid), package_managed: foreign[1], ..File::default()
            },
            same_as: exe.clone().map(|path| SameAs {
                utility: "nc".to_owned(), path, by: crate::identity::By::BuildId, value: String::new(), loaded: args_cut,
            }),
            identity_unknown: args_cut,
            time, host, exe, args, args_cut, args_length, comm, cwd, tty, pid, ppid, vpid, user, uid, euid, suid, fsuid, gid,
            egid, sgid, fsgid, groups, loginuid, audit_session, session, process_group, umask, start, cgroup,
            namespace: Namespaces { pid: foreign[0], net: foreign[1], ..Namespaces::default() },
            namespace_id: Namespaces { pid: ids, ..Namespaces::default() },
            capabilities: Capabilities {
                effective: sets[0].map(CapabilitySet),
                ambient: sets[1].map(CapabilitySet),
                ..Capabilities::default()
            },
            env, parent, ancestors, ancestors_complete, earlier: session_leader.iter().cloned().collect(),
            group_leader: session_leader.clone(), session_leader, certainty, cpu, hold_ns, absent, adopter: pid,
            ssh_client: uid.map(|number| SocketAddr::from((number.to_be_bytes(), 22))), user_effective: None, group: None, login_user: None,
        }
    }
}

proptest! {
    #[test]
    fn any_event_comes_back_from_json(event in event()) {
        let line = event.json();
        prop_assert!(!line.chars().any(crate::alert::escape::is_unprintable), "{}", line);
        prop_assert_eq!(serde_json::from_str::<Event>(&line).unwrap(), event);
    }

    #[test]
    fn any_event_can_be_evaluated(event in event()) {
        let case = event.case(0, &Catalogue::default());
        prop_assert_eq!(case.exec.details.session, event.session);
    }
}

/// Reads `[test] event = {...}` and returns it with the mistakes.
fn from_toml(text: &str) -> (Option<Event>, Vec<String>) {
    let source = Source { name: "test.toml".to_owned(), text: text.to_owned() };
    let diagnostics = Diagnostics::default();
    let event = {
        let document = Document::parse(&source, &diagnostics);
        let root = document.root(&diagnostics);
        let event = Event::read(&root, "event").map(|event| event.value);
        root.finish();
        event
    };
    (event, diagnostics.into_list().iter().map(ToString::to_string).collect())
}

#[test]
fn toml_and_json_are_the_same() {
    let (event, mistakes) = from_toml(
        "[event]\nexe = '/tmp/\\xff (deleted)'\nargs = ['nc', '-e', 'C:\\y']\nuser = 'www-data'\nnamespace.net = true\n\
         cgroup = '/system.slice/x.service'\nabsent = ['tty', 'loginuid']\ntime = '2026-11-24T03:12:00+01:00'\n\
         [event.env]\nLD_PRELOAD = ''\n[[event.ancestors]]\nexe = '/usr/sbin/nginx'\numask = 1\n",
    );
    // `umask` is no property of an ancestor.
    assert_eq!(event, None);
    assert!(mistakes[0].starts_with("test.toml:13:1: in `event`: unknown key `umask`"), "{mistakes:?}");

    let (event, mistakes) = from_toml(
        "[event]\nexe = '/tmp/\\xff (deleted)'\nargs = ['nc', '-e', 'C:\\y']\nuser = 'www-data'\nnamespace.net = true\n\
         cgroup = '/system.slice/x.service'\nabsent = ['tty', 'loginuid']\ntime = '2026-11-24T03:12:00+01:00'\n\
         umask = '0027'\n[event.env]\nLD_PRELOAD = ''\n[[event.ancestors]]\nexe = '/usr/sbin/nginx'\n",
    );
    assert!(mistakes.is_empty(), "{mistakes:?}");
    let event = event.unwrap();
    let json = r#"{"time":"2026-11-24T03:12:00+01:00","exe":"/tmp/\\xff (deleted)","args":["nc","-e","C:\\y"],"user":"www-data","umask":"0027","cgroup":"/system.slice/x.service","namespace":{"net":true},"env":{"LD_PRELOAD":""},"ancestors":[{"exe":"/usr/sbin/nginx"}],"absent":["tty","loginuid"]}"#;
    assert_eq!(event.json(), json);
    assert_eq!(serde_json::from_str::<Event>(json).unwrap(), event);

    let case = event.case(7, &Catalogue::default());
    assert_eq!(case.exec.image.exe(), Some(&b"/tmp/\xff"[..]));
    assert_eq!(case.exec.image.deleted(), Some(true));
    assert_eq!(case.exec.details.tty, Some(0));
    assert_eq!(case.exec.details.variable(b"PATH"), Some(None));
    assert_eq!(case.exec.ancestors.processes.len(), 1);
    let local = event.time.unwrap().local();
    assert_eq!((local.hour, local.weekday_name()), (3, "tue"));
}

#[test]
fn mistakes_have_a_place_and_a_reason() {
    for (text, expected) in [
        (
            "event = { exec = '/bin/nc' }",
            "test.toml:1:11: in `event`: unknown key `exec`; did you mean `exe`?",
        ),
        ("event = { pid = 'x' }", "test.toml:1:17: in `event`: invalid type: string \"x\", expected u32"),
        ("event = { tty = 'none' }", "test.toml:1:17: in `event`: `none` is no terminal such as pts/0"),
        (
            "event = { tty = 'pts/0', absent = ['tty'] }",
            "test.toml:1:9: in `event`: `tty` has a value and is listed in `absent`",
        ),
        ("event = { login-user = 'x', absent = ['loginuid'] }", "`loginuid` has a value and is listed"),
        ("event = { time = '2026-11-24' }", "`2026-11-24` is no moment such as"),
        ("event = { cgroup = 'x' }", "`x` is no path of a cgroup"),
        ("event = { args = ['a\\x00b'] }", "a text with a NUL"),
        ("event = { capabilities.effective = ['net'] }", "`net` is no capability"),
        ("event = { absent = ['cwd'] }", "unknown variant `cwd`"),
        ("event = 1", "test.toml:1:9: in `event`: invalid type"),
    ] {
        let (event, mistakes) = from_toml(text);
        assert!(event.is_none() && mistakes.len() == 1, "{text}: {mistakes:?}");
        assert!(mistakes[0].contains(expected), "{text}: {mistakes:?}");
    }
}

#[test]
fn the_manual_has_every_key() {
    let manual = include_str!("../../docs/replay.md");
    for (kind, error) in [
        ("event", serde_json::from_str::<Event>("{\"?\":1}").unwrap_err()),
        ("process", serde_json::from_str::<Process>("{\"?\":1}").unwrap_err()),
        ("file", serde_json::from_str::<File>("{\"?\":1}").unwrap_err()),
        ("same-as", serde_json::from_str::<SameAs>("{\"?\":1}").unwrap_err()),
    ] {
        let message = error.to_string();
        let keys: Vec<&str> = message.split('`').skip(3).step_by(2).collect();
        assert!(keys.len() > 4, "{message}");
        for key in keys {
            assert!(manual.contains(&format!("`{key}`")), "{kind}: {key}");
        }
    }
}
