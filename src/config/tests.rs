use super::*;
use crate::baseline::decision::{Mode as BaselineMode, WhenKnown};
use crate::connector::listeners::Arrangement;
use crate::identity::Mode;
use crate::rules::model::Severity;

fn parse(text: &str) -> (Config, Vec<Diagnostic>) {
    let diagnostics = Diagnostics::default();
    let config = Config::parse(&Source { name: "test.toml".into(), text: text.into() }, &diagnostics);
    (config, diagnostics.into_list())
}

#[test]
fn the_shipped_file_says_the_defaults() {
    assert_eq!(parse(SHIPPED), (Config::default(), Vec::new()));
    // Its commented keys are real ones, with the defaults where those have a value.
    let uncommented: String = SHIPPED
        .lines()
        .map(|line| match line.strip_prefix("#") {
            Some(key) if !key.starts_with([' ', '#']) && !key.is_empty() => key,
            _ => line,
        })
        .fold(String::new(), |text, line| text + line + "\n");
    let (config, mistakes) = parse(&uncommented);
    assert_eq!(mistakes, Vec::new());
    assert_eq!(config.capture, Config::default().capture);
    assert_eq!(config.lineage, Config::default().lineage);
    assert_eq!(config.follow, Config::default().follow);
    assert_eq!(config.baseline, Config::default().baseline);
    let folder = Some("/var/lib/execwatch/journal".into());
    assert_eq!(config.journal, crate::journal::Settings { folder, ..Config::default().journal });
    assert_eq!(config.output.syslog, Config::default().output.syslog);
    assert!(config.output.file.is_some());
    // What is not there by default is shown with the defaults it has once it is.
    assert_eq!(config.output.journald, Some(Journald::default()));
    let [remote] = config.output.remote.as_slice() else { panic!("{:?}", config.output.remote) };
    let defaults = Remote::new(remote.name.clone(), remote.servers.clone());
    assert_eq!(*remote, Remote { tls: remote.tls.clone(), ..defaults });
    assert!(remote.tls.client.is_some());
}

#[test]
fn a_default_file_may_come_but_not_go() {
    let temporary = tempfile::tempdir().unwrap();
    let file = temporary.path().join("execwatch.toml");
    let found = Found::default();
    let read = || {
        let diagnostics = Diagnostics::default();
        let config = Config::read(&file, &Trust::unasked(), Some(&found), &diagnostics);
        found.settle(!diagnostics.any_error());
        (config, diagnostics.into_list().iter().map(ToString::to_string).collect::<String>())
    };
    assert_eq!(read(), (Config::default(), String::new()));
    std::fs::write(&file, "[response]\nmode = 'enforce'\n").unwrap();
    assert_eq!(read().0.response.mode, crate::response::Mode::Enforce);
    std::fs::remove_file(&file).unwrap();
    for _ in 0..2 {
        let (_, said) = read();
        assert!(said.contains("execwatch.toml") && said.contains("is gone: put it back"), "{said}");
    }
}

fn servers(urls: &[&str]) -> Vec<Server> {
    urls.iter().map(|url| Server::parse(url).unwrap()).collect()
}

#[test]
fn every_key_is_read() {
    let (config, mistakes) = parse(
        "[capture]\nlisteners = 'single'\nrealtime-priority = 0\nreceive-buffer = 70000\nargs-limit = 300\n\
         queue-length = 17\nalready-running = false\nidentity = 'all'\nidentity-folders = ['/a', '/b/*/bin']\n\
         [lineage]\nprocesses = 300\nmemory = 300000\nkeep-ended = '2m'\n\
         [fold]\nenabled = false\nwindow = '5m'\nat-most = 7\n\
         [follow]\nenabled = false\nat-once = 3\nafter = ['5ms', '2h']\nseverity = 'high'\n[rules]\nbuiltin = false\nfolders = ['/x']\n\
         [baseline]\nmode = 'enforce'\nknown = 'silence'\nlearn-for = '7d'\nknown-after-days = 5\nnew-after = '48h'\nrows = 2000\n\
         [incident]\nenabled = false\nwindow = '5m'\nscore = 55\nkeep = '7d'\nmax-size = 3000000\n\
         [incident.notify]\ncommand = ['/n', 'a b']\ntime-limit = '3s'\n\
         [response]\nmode = 'enforce'\nper-minute = 9\nprotected = ['/p/*']\nhold-for = '2m'\nafter-hold = 'release'\n\
         at-stop = 'keep'\nterminal-message = 'no'\n\
         [journal]\nenabled = false\nfolder = '/j'\nmax-size = 2000000\nmax-age = '2h'\nwhen-full = 'drop-new'\nmemory = 300000\n[output.syslog]\nsocket = '/s'\nprotocol = 'rfc5424'\nfacility = 'local3'\ntag = 't'\nformat = 'json'\nsd-id = 'e@1.2'\n\
         [output.syslog.severity]\nlow = 'debug'\n\
         [[output.remote]]\nname = 'a'\nservers = ['tls://h', 'tcp://10.0.0.1:1']\nframing = 'newline'\n\
         protocol = 'rfc3164'\nfacility = 'local0'\ntag = 'r'\nsd-id = 'e@1'\nformat = 'cee'\n\
         connect-timeout = '200ms'\nwrite-timeout = '3s'\nreturn-after = '5m'\n\
         [output.remote.tls]\nca-file = '/ca'\nserver-name = 'log'\ncertificate-file = '/c'\nkey-file = '/k'\n\
         [output.remote.severity]\ncritical = 'emerg'\n\
         [[output.remote]]\nname = 'b'\nservers = ['udp://[::1]']\n\
         [[output.remote]]\nenabled = false\nname = 'c'\nservers = ['udp://[::1]']\n\
         [output.journald]\nsocket = '/j'\nfacility = 'daemon'\ntag = 'j'\nformat = 'cef'\n\
         [output.journald.severity]\ninfo = 'debug'\n[output.file]\npath = '/f'\nformat = 'text'\n\
         [output.stdout]\nenabled = true\nformat = 'text'\n[state]\nfolder = '/v'\nruntime-folder = '/r'\n\
         [health]\ncanary = '7s'\nheartbeat = '5m'\n[hardening]\ncapabilities = false\nsystem-calls = false\n\
         [metrics]\ntextfile = '/m.prom'\nevery = '30s'\nhttp = true\n",
    );
    assert_eq!(mistakes, Vec::new());
    let expected = Config {
        capture: Capture {
            listeners: Arrangement::Single,
            realtime_priority: 0,
            receive_buffer: 70_000,
            args_limit: 300,
            queue_length: 17,
            already_running: false,
            identity: Mode::All,
            identity_folders: vec!["/a".into(), "/b/*/bin".into()],
        },
        lineage: Limits { processes: 300, bytes: 300_000, keep_ended_ns: 120 * NS_PER_S },
        fold: crate::fold::Settings { enabled: false, window_ns: 300 * NS_PER_S, at_most: 7 },
        follow: followup::Settings {
            enabled: false,
            at_once: 3,
            severity: Severity::High,
            after: vec![Duration::from_millis(5), Duration::from_secs(7200)],
        },
        rules: Places { builtin: false, folders: vec!["/x".into()], folders_required: true },
        baseline: Settings {
            mode: BaselineMode::Enforce,
            known: WhenKnown::Silence,
            learn_days: 7,
            known_after_days: 5,
            new_after_days: 2,
            rows: 2000,
        },
        incident: crate::incident::Settings {
            enabled: false,
            window_ns: 300 * NS_PER_S,
            score: 55,
            keep_s: 7 * 86_400,
            max_size: 3_000_000,
            notify: Some(crate::incident::Notify {
                command: vec!["/n".into(), "a b".into()],
                time_limit: Duration::from_secs(3),
            }),
        },
        response: crate::response::Settings {
            mode: crate::response::Mode::Enforce,
            per_minute: 9,
            protected: vec!["/p/*".into()],
            hold_for: Duration::from_secs(120),
            after_hold: crate::response::Fate::Release,
            keep_held: true,
            terminal_message: "no".into(),
        },
        journal: crate::journal::Settings {
            enabled: false,
            folder: Some("/j".into()),
            max_size: 2_000_000,
            max_age: Duration::from_secs(7200),
            when_full: crate::journal::WhenFull::DropNew,
            memory: 300_000,
        },
        output: Output {
            syslog: Some(Syslog {
                socket: "/s".into(),
                header: Header {
                    protocol: Protocol::Rfc5424,
                    priorities: Priorities { facility: 19, severities: [6, 7, 4, 3, 2] },
                    tag: "t".into(),
                    sd_id: "e@1.2".into(),
                },
                format: Format::Json,
            }),
            remote: vec![
                Remote {
                    framing: Framing::Newline,
                    header: Header {
                        protocol: Protocol::Rfc3164,
                        priorities: Priorities { facility: 16, severities: [6, 5, 4, 3, 0] },
                        tag: "r".into(),
                        sd_id: "e@1".into(),
                    },
                    format: Format::Cee,
                    tls: Tls {
                        ca_file: Some("/ca".into()),
                        server_name: Some("log".into()),
                        client: Some(("/c".into(), "/k".into())),
                    },
                    connect_timeout: Duration::from_millis(200),
                    write_timeout: Duration::from_secs(3),
                    return_after: Duration::from_secs(300),
                    ..Remote::new("a".into(), servers(&["tls://h", "tcp://10.0.0.1:1"]))
                },
                Remote::new("b".into(), servers(&["udp://[::1]"])),
            ],
            journald: Some(Journald {
                socket: "/j".into(),
                priorities: Priorities { facility: 3, severities: [7, 5, 4, 3, 2] },
                tag: "j".into(),
                format: Format::Cef,
            }),
            file: Some(File { path: "/f".into(), format: Format::Text }),
            stdout: Stdout { enabled: Some(true), format: Some(Format::Text) },
        },
        state_folder: "/v".into(),
        runtime_folder: "/r".into(),
        health: crate::health::settings::Settings {
            canary: Some(Duration::from_secs(7)),
            heartbeat: Some(Duration::from_secs(300)),
        },
        metrics: crate::health::settings::Metrics {
            textfile: Some("/m.prom".into()),
            every: Duration::from_secs(30),
            http: true,
        },
        hardening: Hardening { capabilities: false, system_calls: false },
    };
    assert_eq!(config, expected);
    let off = parse("[output.syslog]\nenabled = false\n[output.file]\nenabled = false\n").0.output;
    assert_eq!((off.syslog, off.file), (None, None));
}

#[test]
fn responses_are_off_unless_asked_for_and_mistakes_are_told() {
    assert_eq!(Config::default().response.mode, crate::response::Mode::Off);
    for (wrong, said) in [
        ("mode = 'on'", "dry-run"),
        ("per-minute = 0", "per-minute"),
        ("protected = ['bin/x']", "absolute"),
        ("protected = ['/a[']", ""),
        ("hold-for = '8d'", "between"),
        ("terminal-message = \"a\\nb\"", "one line"),
    ] {
        let (config, mistakes) = parse(&format!("[response]\n{wrong}\n"));
        assert!(mistakes.len() == 1 && mistakes[0].message.contains(said), "{wrong}: {mistakes:?}");
        assert_eq!(config.response, Config::default().response, "{wrong}");
    }
}

#[test]
fn an_empty_list_means_none_or_is_a_mistake() {
    let (config, mistakes) = parse("[rules]\nfolders = []\n[response]\nprotected = []\n");
    assert_eq!(mistakes, Vec::new());
    assert_eq!(config.rules.folders, Vec::<PathBuf>::new());
    assert_eq!(config.response.protected, Vec::<String>::new());
    let (_, mistakes) = parse("[capture]\nidentity-folders = []\n");
    let [mistake] = mistakes.as_slice() else { panic!("{mistakes:?}") };
    assert!(mistake.message.contains("set identity = \"off\""), "{}", mistake.message);
}

#[test]
fn moments_of_follow_ups() {
    let mistakes = |after: &str| {
        let (config, mistakes) = parse(&format!("[follow]\nafter = {after}\n"));
        let said: Vec<String> = mistakes.into_iter().map(|mistake| mistake.message).collect();
        (config.follow.after.len(), said.join("; "))
    };
    assert_eq!(mistakes("['1s', '2s', '3m']"), (3, String::new()));
    let (count, said) = mistakes("[]");
    assert!(count == 4 && said.contains("must not be empty: leave it out"), "{said}");
    for (wrong, said) in [
        ("['2s', '1s']", "ascend"),
        ("['0s']", "times such as"),
        ("['1 s']", "times such as"),
        ("['18446744073709551615h']", "times such as"),
        ("['25h']", "within a day"),
    ] {
        assert!(mistakes(wrong).1.contains(said), "{wrong}: {:?}", mistakes(wrong));
    }
    let many: Vec<String> = (1..=17).map(|number| format!("'{number}s'")).collect();
    assert_eq!(mistakes(&format!("[{}]", many.join(","))), (16, "`after` holds at most 16 moments".into()));
}

#[test]
fn periods_of_health() {
    let said = |text: &str| {
        let (config, mistakes) = parse(text);
        (config.health.canary, mistakes.into_iter().map(|mistake| mistake.message).collect::<String>())
    };
    assert_eq!(said("[health]\ncanary = 'off'\nheartbeat = 'off'\n"), (None, String::new()));
    for wrong in ["'0s'", "'10ms'", "'25h'", "'often'"] {
        let (canary, said) = said(&format!("[health]\ncanary = {wrong}\n"));
        assert_eq!(canary, Some(Duration::from_secs(60)));
        assert_eq!(said, "`canary` must be \"off\" or a time span from \"1s\" to \"24h\"", "{wrong}");
    }
    assert!(said("[metrics]\ntextfile = '/a.txt'\n").1.contains("must end in .prom"));
    assert!(said("[metrics]\nevery = 'x'\n").1.contains("a time span"));
}
