//! Configurations that are wrong, one for each way: what is said of them, and of which place.

use execwatch::config::Config;
use execwatch::diagnostics::{Diagnostics, Source};

/// A text, the line and column of its first mistake, and how what is said of it begins.
#[rustfmt::skip]
const WRONG: &[(&str, usize, usize, &str)] = &[
    ("[capture\n", 1, 9, "unclosed table, expected `]`"),
    ("capture = 1\n", 1, 11, "`capture` must be a table, not a whole number"),
    ("[capture]\nlisteners = 'all'\n", 2, 13, "`listeners` must be one of auto, per-cpu, single"),
    ("[capture]\nlisteners = 3\n", 2, 13, "`listeners` must be a string, not a whole number"),
    ("[capture]\nlisteners = ['auto']\n", 2, 13, "`listeners` must be a string, not a list"),
    ("[capture]\nrealtime-priority = 100\n", 2, 21, "`realtime-priority` must be between 0 and 99"),
    ("[capture]\nrealtime-priority = -1\n", 2, 21, "`realtime-priority` must be between 0 and 99"),
    ("[capture]\nrealtime-priority = 1.5\n", 2, 21, "`realtime-priority` must be a whole number, not a number with a fraction"),
    ("[capture]\nrealtime-priority = '90'\n", 2, 21, "`realtime-priority` must be a whole number, not a string"),
    ("[capture]\nreceive-buffer = 1\n", 2, 18, "`receive-buffer` must be between 65536 and 1073741824"),
    ("[capture]\nreceive-buffer = 99999999999999999999\n", 2, 18, "`receive-buffer` must be between 65536 and 1073741824"),
    ("[capture]\nargs-limit = 255\n", 2, 14, "`args-limit` must be between 256 and 2097152"),
    ("[capture]\nqueue-length = 0\n", 2, 16, "`queue-length` must be between 16 and 1048576"),
    ("[capture]\nalready-running = 'yes'\n", 2, 19, "`already-running` must be true or false, not a string"),
    ("[capture]\nalready-running = 1\n", 2, 19, "`already-running` must be true or false, not a whole number"),
    ("[capture]\nidentity-folders = ['bin']\n", 2, 21, "`identity-folders` must be absolute paths"),
    ("[capture]\nidentity-folders = '/bin'\n", 2, 20, "`identity-folders` must be a list of strings, not a string"),
    ("[capture]\nidentity-folders = [1]\n", 2, 21, "`identity-folders` must hold strings, not a whole number"),
    ("[capture]\nlistner = 'auto'\n", 2, 1, "unknown key `listner` in [capture]; did you mean `listeners`?"),
    ("[captur]\nlisteners = 'auto'\n", 1, 2, "unknown key `captur` in the file; did you mean `capture`?"),
    ("[capture]\nlisteners = 'auto'\nlisteners = 'auto'\n", 3, 1, "duplicate key"),
    ("[capture]\n[capture]\n", 2, 2, "duplicate key"),
    ("[[capture]]\nlisteners = 'auto'\n", 1, 1, "`capture` must be a table, not a list"),
    ("[capture]\nlisteners = 'auto'\0\n", 2, 19, "unexpected key or value, expected newline, `#`"),
    ("[capture]\nlisteners = \"\\u0000\"\n", 2, 13, "`listeners` must be one of auto, per-cpu, single"),
    ("[capture]\nlisteners = auto\n", 2, 13, "string values must be quoted, expected literal string"),
    ("listeners = 'auto'\n", 1, 1, "unknown key `listeners` in the file"),
    ("[capture.listeners]\n", 1, 1, "`listeners` must be a string, not a table"),
    ("[lineage]\nprocesses = 1\n", 2, 13, "`processes` must be between 256 and 4194304"),
    ("[lineage]\nmemory = 1\n", 2, 10, "`memory` must be between 262144 and 4294967296"),
    ("[lineage]\nkeep-ended = '10'\n", 2, 14, "`keep-ended` must be a time span of more than nothing, such as \"30s\", \"10m\", \"2h\" or \"7d\""),
    ("[lineage]\nkeep-ended = 10\n", 2, 14, "`keep-ended` must be a string, not a whole number"),
    ("[lineage]\nkeep-ended = '-1s'\n", 2, 14, "`keep-ended` must be a time span of more than nothing, such as \"30s\", \"10m\", \"2h\" or \"7d\""),
    ("[lineage]\nkeep-ended = '99999999999999999999d'\n", 2, 14, "`keep-ended` must be a time span of more than nothing, such as \"30s\", \"10m\", \"2h\" or \"7d\""),
    ("[lineage]\nkeep-ended = '366d'\n", 2, 14, "`keep-ended` must be from \"1s\" to \"365d\""),
    ("[lineage]\nkeep-ended = '99999999999d'\n", 2, 14, "`keep-ended` must be from \"1s\" to \"365d\""),
    ("[lineage]\nkeep-ended = '1 s'\n", 2, 14, "`keep-ended` must be a time span of more than nothing, such as \"30s\", \"10m\", \"2h\" or \"7d\""),
    ("[fold]\nwindow = '0s'\n", 2, 10, "`window` must be a time span of more than nothing, such as \"30s\", \"10m\", \"2h\" or \"7d\""),
    ("[fold]\nwindow = '25h'\n", 2, 10, "`window` must be from \"1s\" to \"24h\""),
    ("[fold]\nat-most = 0\n", 2, 11, "`at-most` must be between 1 and 1000000"),
    ("[fold]\nenabled = 'on'\n", 2, 11, "`enabled` must be true or false, not a string"),
    ("[follow]\nat-once = 0\n", 2, 11, "`at-once` must be between 1 and 4096"),
    ("[follow]\nat-once = 5000\n", 2, 11, "`at-once` must be between 1 and 4096"),
    ("[follow]\nseverity = 'severe'\n", 2, 12, "`severity` must be one of info, low, medium, high, critical"),
    ("[follow]\nafter = ['2s', '1s']\n", 2, 16, "the moments of `after` must ascend"),
    ("[follow]\nafter = ['1s', '1s']\n", 2, 16, "the moments of `after` must ascend"),
    ("[follow]\nafter = ['soon']\n", 2, 10, "`after` holds times such as \"100ms\", \"10s\", \"5m\" or \"1h\""),
    ("[follow]\nafter = '1s'\n", 2, 9, "`after` must be a list of strings, not a string"),
    ("[follow]\nafter = ['25h']\n", 2, 10, "the moments of `after` lie within a day (\"24h\")"),
    ("[rules]\nbuiltin = 'no'\n", 2, 11, "`builtin` must be true or false, not a string"),
    ("[rules]\nfolders = '/x'\n", 2, 11, "`folders` must be a list of strings, not a string"),
    ("[rules]\nfolders = [7]\n", 2, 12, "`folders` must hold strings, not a whole number"),
    ("[rules]\nfolder = ['/x']\n", 2, 1, "unknown key `folder` in [rules]; did you mean `folders`?"),
    ("[baseline]\nmode = 'on'\n", 2, 8, "`mode` must be one of off, learn, enforce"),
    ("[baseline]\nknown = 'drop'\n", 2, 9, "`known` must be one of lower, silence"),
    ("[baseline]\nlearn-for = '36h'\n", 2, 13, "`learn-for` must be whole days such as \"14d\", at most \"3650d\""),
    ("[baseline]\nlearn-for = '14'\n", 2, 13, "`learn-for` must be a time span of more than nothing, such as \"30s\", \"10m\", \"2h\" or \"7d\""),
    ("[baseline]\nlearn-for = '9999d'\n", 2, 13, "`learn-for` must be whole days such as \"14d\", at most \"3650d\""),
    ("[baseline]\nknown-after-days = 1\n", 2, 20, "`known-after-days` must be between 2 and 365"),
    ("[baseline]\nlearn-for = '2d'\n", 1, 1, "nothing could become known: `learn-for` is 2 days and `known-after-days` 3"),
    ("[baseline]\nrows = 1\n", 2, 8, "`rows` must be between 1000 and 1000000"),
    ("[output]\nsyslog = true\n", 2, 10, "`syslog` must be a table, not true or false"),
    ("[output.syslog]\nsocket = 'dev/log'\n", 2, 10, "`socket` must be an absolute path"),
    ("[output.syslog]\nfacility = 'local8'\n", 2, 12, "`facility` must be one of kern, user, mail, daemon, auth, syslog, lpr, news, uucp, cron, a"),
    ("[output.syslog]\nfacility = 10\n", 2, 12, "`facility` must be a string, not a whole number"),
    ("[output.syslog]\ntag = ''\n", 2, 7, "`tag` holds 1 to 32 letters, digits, `-`, `_` and `.`"),
    ("[output.syslog]\ntag = 'a b'\n", 2, 7, "`tag` holds 1 to 32 letters, digits, `-`, `_` and `.`"),
    ("[output.syslog]\ntag = 'x[1]'\n", 2, 7, "`tag` holds 1 to 32 letters, digits, `-`, `_` and `.`"),
    ("[output.syslog]\nformat = 'xml'\n", 2, 10, "`format` must be one of text, json, cef, cee"),
    ("[output.syslog.severity]\nlow = 'loud'\n", 2, 7, "`low` must be one of emerg, alert, crit, err, warning, notice, info, debug"),
    ("[output.syslog.severity]\nlowest = 'debug'\n", 2, 1, "unknown key `lowest` in [output.syslog.severity]"),
    ("[output.file]\n", 1, 1, "[output.file] needs `path`"),
    ("[output.file]\npath = 'alerts.json'\n", 2, 8, "`path` must be an absolute path"),
    ("[output.file]\npath = ''\n", 2, 8, "`path` must be an absolute path"),
    ("[output.file]\npath = '/x'\nformat = 'xml'\n", 3, 10, "`format` must be one of text, json, cef, cee"),
    ("[output.syslog]\nprotocol = 'rfc5242'\n", 2, 12, "`protocol` must be one of rfc3164, rfc5424"),
    ("[output.syslog]\nsd-id = 'execwatch'\n", 2, 9, "`sd-id` is a name, `@` and an enterprise number, such as \"execwatch@32473\", in at most 32 characters (RFC 5424, 6.3.2)"),
    ("[output.remote]\nname = 'a'\n", 1, 1, "`remote` must be written as [[output.remote]], not as a table"),
    ("[[output.remote]]\nname = 'a'\n", 1, 1, "[[output.remote]] needs `servers`"),
    ("[[output.remote]]\nname = 'a'\nservers = []\n", 3, 11, "`servers` must not be empty"),
    ("[[output.remote]]\nname = 'a'\nservers = ['log.example']\n", 3, 12, "`log.example` is no address of a syslog server: it must begin with udp://, tcp:// or tls://"),
    ("[[output.remote]]\nname = 'a'\nservers = ['tcp://h:99999']\n", 3, 12, "`tcp://h:99999` is no address of a syslog server: `99999` is no port: they are 1 to 65535"),
    ("[[output.remote]]\nname = 'a'\nservers = ['tls://h']\nconnect-timeout = '0s'\n", 4, 19, "`connect-timeout` must be a time such as \"500ms\" or \"5s\", at most \"1m\""),
    ("[[output.remote]]\nname = 'a'\nservers = ['tls://h']\nframing = 'nul'\n", 4, 11, "`framing` must be one of octet-counting, newline"),
    ("[[output.remote]]\nname = 'a'\nservers = ['tls://h']\n[output.remote.tls]\nca-file = 'ca'\n", 5, 11, "`ca-file` must be an absolute path"),
    ("[[output.remote]]\nname = 'a'\nservers = ['tls://h']\n[output.remote.tls]\ncertificate-file = '/c'\n", 4, 1, "[output.remote.tls] needs `key-file`"),
    ("[[output.remote]]\nname = 'a'\nservers = ['tcp://h']\n[[output.remote]]\nname = 'a'\nservers = ['tcp://h']\n", 5, 8, "there is another [[output.remote]] of the name `a`"),
    ("[output.journald]\nfacility = 'local9'\n", 2, 12, "`facility` must be one of kern"),
    ("[journal]\nmax-size = 1\n", 2, 12, "`max-size` must be between 1048576 and 1099511627776"),
    ("[journal]\nmax-age = '0s'\n", 2, 11, "`max-age` must be a time span of more than nothing, such as \"30s\", \"10m\", \"2h\" or \"7d\""),
    ("[journal]\nwhen-full = 'drop'\n", 2, 13, "`when-full` must be one of drop-oldest, drop-new, stop-reading"),
    ("[journal]\nfolder = 'journal'\n", 2, 10, "`folder` must be an absolute path"),
    ("[journal]\nmemory = 0\n", 2, 10, "`memory` must be between 262144 and 1073741824"),
    ("[health]\ncanary = '0s'\n", 2, 10, "`canary` must be \"off\" or a time span from \"1s\" to \"24h\""),
    ("[health]\nheartbeat = 'never'\n", 2, 13, "`heartbeat` must be \"off\" or a time span from \"1s\" to \"24h\""),
    ("[metrics]\ntextfile = '/m.txt'\n", 2, 12, "`textfile` must end in .prom: node_exporter reads no other files"),
    ("[metrics]\nevery = '1ms'\n", 2, 9, "`every` must be a time span from \"1s\" to \"24h\""),
    ("[response]\nmode = 'on'\n", 2, 8, "`mode` must be one of off, dry-run, enforce"),
    ("[response]\nper-minute = 0\n", 2, 14, "`per-minute` must be between 1 and 1000000"),
    ("[response]\nprotected = ['sshd']\n", 2, 14, "`protected` holds absolute paths, in which * ? ** may stand"),
    ("[response]\nhold-for = '0s'\n", 2, 12, "`hold-for` must be a time span"),
    ("[response]\nafter-hold = 'forget'\n", 2, 14, "`after-hold` must be one of kill, release"),
    ("[response]\nat-stop = 'kill'\n", 2, 11, "`at-stop` must be one of release, keep"),
    ("[output.stdout]\nenabled = 'auto'\n", 2, 11, "`enabled` must be true or false, not a string"),
    ("[output.kafka]\n", 1, 9, "unknown key `kafka` in [output]"),
    ("[state]\nfolder = 'state'\n", 2, 10, "`folder` must be an absolute path"),
    ("[state]\nruntime-folder = 'run'\n", 2, 18, "`runtime-folder` must be an absolute path"),
    ("[state]\nfolders = '/x'\n", 2, 1, "unknown key `folders` in [state]; did you mean `folder`?"),
    ("[hardening]\ncapabilities = 'all'\n", 2, 16, "`capabilities` must be true or false, not a string"),
    ("[hardening]\nsyscalls = true\n", 2, 1, "unknown key `syscalls` in [hardening]; did you mean `system-calls`?"),
    ("[hardening]\nsystem-calls = 0\n", 2, 16, "`system-calls` must be true or false, not a whole number"),
    ("\u{feff}[capture]\nlisteners = 'nobody'\n", 2, 13, "`listeners` must be one of auto, per-cpu, single"),
    ("[capture]\r\nlisteners = 'nobody'\r\n", 2, 13, "`listeners` must be one of auto, per-cpu, single"),
    ("x", 1, 2, "key with no value, expected `=`"),
    ("= 1\n", 1, 1, "unquoted keys cannot be empty, expected letters, numbers, `-`, `_`"),
    ("[]\n", 1, 2, "unquoted keys cannot be empty, expected letters, numbers, `-`, `_`"),
    ("a.b.c = 1\n", 1, 1, "unknown key `a` in the file"),
    ("[capture]\nlisteners =\n", 2, 12, "string values must be quoted, expected literal string"),
    ("[capture]\nlisteners = '\n'\n", 2, 13, "`listeners` must be one of auto, per-cpu, single"),
    ("[capture]\nreceive-buffer = 0x10\n", 2, 18, "`receive-buffer` must be between 65536 and 1073741824"),
    ("[capture]\nreceive-buffer = 1_0\n", 2, 18, "`receive-buffer` must be between 65536 and 1073741824"),
    ("[capture]\nalready-running = True\n", 2, 19, "invalid boolean, expected `true`"),
    ("[state]\nfolder = 2026-01-01\n", 2, 10, "`folder` must be a string, not a date"),
];

/// The place and text of each message about a configuration.
fn mistakes(text: &str) -> Vec<(Option<(usize, usize)>, String)> {
    let diagnostics = Diagnostics::default();
    let source = Source { name: "execwatch.toml".to_owned(), text: text.to_owned() };
    Config::parse(&source, &diagnostics);
    let errors = diagnostics.errors();
    let list = diagnostics.into_list();
    assert_eq!(list.len(), errors, "{text:?} has warnings");
    list.into_iter().map(|mistake| (mistake.place, mistake.message)).collect()
}

#[test]
fn each_mistake_is_told_at_its_place() {
    for (text, line, column, said) in WRONG {
        let found = mistakes(text);
        let Some((place, message)) = found.first() else { panic!("nothing is said of {text:?}") };
        assert_eq!(*place, Some((*line, *column)), "{text:?}: {message}");
        assert!(message.starts_with(said), "{text:?}: {message}");
    }
}

/// In one run, each at its own place.
#[test]
fn all_mistakes_are_told_at_once() {
    // Those that are mistakes of values alone, in one file.
    let text = "[capture]\nlisteners = 'all'\nrealtime-priority = 100\nbuffer = 1\n[lineage]\nprocesses = 1\n\
                [fold]\nwindow = '0s'\n[follow]\nafter = ['2s', '1s']\n[rules]\nfolders = [7]\n[baseline]\nrows = 1\n\
                [output.syslog]\nsocket = 'log'\ntag = 'a b'\n[output.file]\n[state]\nfolder = 'state'\n\
                [hardening]\nsyscalls = true\n[kafka]\n";
    let found = mistakes(text);
    let lines: Vec<usize> = found.iter().filter_map(|(place, _)| Some(place.as_ref()?.0)).collect();
    assert_eq!(lines, [2, 3, 4, 6, 8, 10, 12, 14, 16, 17, 18, 20, 22, 23], "{found:#?}");
}

/// Whatever piece of the shipped file is missing, repeated or put elsewhere, it is read to its end, and a mistake of
/// syntax is told.
#[test]
fn pieces_of_the_shipped_file() {
    let shipped = execwatch::config::SHIPPED;
    assert_eq!(mistakes(shipped), []);
    let lines: Vec<&str> = shipped.lines().collect();
    for at in 0..lines.len() {
        let line = lines.get(at).copied().unwrap_or_default();
        let key = line.contains(" = ") && !line.starts_with('#');
        let mut twice = lines.clone();
        twice.insert(at, line);
        let found = mistakes(&twice.join("\n"));
        // A list of several lines has its key in the first.
        let whole = !line.ends_with('[');
        if key && whole {
            assert!(found.iter().any(|(_, message)| message.contains("duplicate key")), "{line}: {found:?}");
        }
        if key && whole {
            let unquoted = [&lines[..at], &["@"], &lines[at..]].concat().join("\n");
            assert!(!mistakes(&unquoted).is_empty(), "{line}");
        }
    }
}
