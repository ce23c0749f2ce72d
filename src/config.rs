//! The daemon's configuration file.
//!
//! The shipped `config/execwatch.toml` is its manual: it names every key with its default, and a test keeps it true.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::baseline::decision::{self, Settings, WhenKnown};
use crate::connector::listeners::Arrangement;
use crate::diagnostics::{Diagnostic, Diagnostics, Level, Source};
use crate::document::{Document, Section};
use crate::fold;
use crate::followup;
use crate::identity::{self, Mode};
use crate::lineage::table::Limits;
use crate::rules::load::{Places, read_text};
use crate::rules::model::{SEVERITIES, Severity};
use crate::sys::sched::FIFO_PRIORITIES;

/// The shipped configuration file.
pub const SHIPPED: &str = include_str!("../config/execwatch.toml");
/// Where the configuration file is looked for.
pub const DEFAULT_PATH: &str = "/etc/execwatch/execwatch.toml";
/// Where an administrator's utilities, rules and exceptions are looked for.
pub const DEFAULT_FOLDERS: [&str; 3] =
    ["/etc/execwatch/utilities.d", "/etc/execwatch/rules.d", "/etc/execwatch/exceptions.d"];

const NS_PER_S: u64 = 1_000_000_000;

/// Everything that can be configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// How programs are captured.
    pub capture: Capture,
    /// Bounds of the process table.
    pub lineage: Limits,
    /// What becomes of repeated alerts.
    pub fold: fold::Settings,
    /// What is looked at after an alert.
    pub follow: followup::Settings,
    /// Where rules come from.
    pub rules: Places,
    /// What is normal here.
    pub baseline: Settings,
    /// Where alerts go.
    pub output: Output,
    /// Where the daemon keeps what it must remember.
    pub state_folder: PathBuf,
}

/// `[capture]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capture {
    /// How many listeners.
    pub listeners: Arrangement,
    /// SCHED_FIFO priority, 1 to 99; 0 for best effort.
    pub realtime_priority: u8,
    /// Receive buffer of each socket in bytes.
    pub receive_buffer: usize,
    /// Bytes kept of an argument list.
    pub args_limit: usize,
    /// Execs that may wait for the worker.
    pub queue_length: usize,
    /// Report programs that already run at the start.
    pub already_running: bool,
    /// Which files are looked at to see which utility they are.
    pub identity: Mode,
    /// Where installed utilities are looked for.
    pub identity_folders: Vec<PathBuf>,
}

/// How a record is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One line of `key=value`.
    Text,
    /// One line of JSON.
    Json,
}

/// `[output]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// `[output.syslog]`; `None` if switched off.
    pub syslog: Option<Syslog>,
    /// `[output.file]`; `None` if switched off.
    pub file: Option<File>,
    /// `[output.stdout]`
    pub stdout: Stdout,
}

/// `[output.syslog]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Syslog {
    /// Path of the local syslog socket.
    pub socket: PathBuf,
    /// Facility number (RFC 5424 table 1).
    pub facility: u8,
    /// The program's name in the log.
    pub tag: String,
    /// How a record is written.
    pub format: Format,
    /// Syslog severity for each of ours, in their order (RFC 5424 table 2).
    pub severities: [u8; 5],
}

/// `[output.file]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// The file.
    pub path: PathBuf,
    /// How a record is written.
    pub format: Format,
}

/// `[output.stdout]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stdout {
    /// `None`: if it is a terminal.
    pub enabled: Option<bool>,
    /// `None`: for people on a terminal, text elsewhere.
    pub format: Option<Format>,
}

const FACILITIES: [(&str, u8); 20] = [
    ("kern", 0),
    ("user", 1),
    ("mail", 2),
    ("daemon", 3),
    ("auth", 4),
    ("syslog", 5),
    ("lpr", 6),
    ("news", 7),
    ("uucp", 8),
    ("cron", 9),
    ("authpriv", 10),
    ("ftp", 11),
    ("local0", 16),
    ("local1", 17),
    ("local2", 18),
    ("local3", 19),
    ("local4", 20),
    ("local5", 21),
    ("local6", 22),
    ("local7", 23),
];

const SYSLOG_SEVERITIES: [(&str, u8); 8] = [
    ("emerg", 0),
    ("alert", 1),
    ("crit", 2),
    ("err", 3),
    ("warning", 4),
    ("notice", 5),
    ("info", 6),
    ("debug", 7),
];

const FORMATS: [(&str, Format); 2] = [("text", Format::Text), ("json", Format::Json)];
const ARRANGEMENTS: [(&str, Arrangement); 3] =
    [("auto", Arrangement::Auto), ("per-cpu", Arrangement::PerCpu), ("single", Arrangement::Single)];

const BASELINE_MODES: [(&str, decision::Mode); 3] =
    [("off", decision::Mode::Off), ("learn", decision::Mode::Learn), ("enforce", decision::Mode::Enforce)];
const WHEN_KNOWN: [(&str, WhenKnown); 2] = [("lower", WhenKnown::Lower), ("silence", WhenKnown::Silence)];
const S_PER_DAY: u64 = 86_400;
/// The longest learning period, and the longest time after which something is new again, in days.
const LONGEST_DAYS: u64 = 3650;

const IDENTITIES: [(&str, Mode); 3] =
    [("untrusted-paths", Mode::UntrustedPaths), ("all", Mode::All), ("off", Mode::Off)];

impl Default for Config {
    fn default() -> Self {
        Config {
            capture: Capture {
                listeners: Arrangement::Auto,
                realtime_priority: 90,
                receive_buffer: 16 << 20,
                args_limit: 32 << 10,
                queue_length: 4096,
                already_running: true,
                identity: Mode::default(),
                identity_folders: identity::FOLDERS.map(PathBuf::from).to_vec(),
            },
            lineage: Limits { processes: 32_768, bytes: 4 << 20, keep_ended_ns: 600 * NS_PER_S },
            fold: fold::Settings::default(),
            follow: followup::Settings::default(),
            rules: Places {
                builtin: true,
                folders: DEFAULT_FOLDERS.map(PathBuf::from).to_vec(),
                folders_required: false,
            },
            baseline: Settings::default(),
            state_folder: PathBuf::from("/var/lib/execwatch"),
            output: Output {
                syslog: Some(Syslog {
                    socket: PathBuf::from("/dev/log"),
                    facility: 10,
                    tag: "execwatch".to_owned(),
                    format: Format::Text,
                    severities: [6, 5, 4, 3, 2],
                }),
                file: None,
                stdout: Stdout { enabled: None, format: None },
            },
        }
    }
}

impl Config {
    /// Reads the file at `path`, or the default file if there is one. Mistakes are reported, and their keys keep their
    /// defaults.
    pub fn load(path: Option<&Path>, diagnostics: &Diagnostics) -> Config {
        let file = path.unwrap_or(Path::new(DEFAULT_PATH));
        match read_text(file) {
            Ok(text) => Config::parse(&Source { name: file.display().to_string(), text }, diagnostics),
            Err(error) if path.is_none() && error.kind() == std::io::ErrorKind::NotFound => Config::default(),
            Err(error) => {
                let message = format!("cannot read the configuration: {error}");
                diagnostics.push(Diagnostic::whole(Level::Error, file.display().to_string(), message));
                Config::default()
            }
        }
    }

    /// Reads a configuration text.
    pub fn parse(source: &Source, diagnostics: &Diagnostics) -> Config {
        let mut config = Config::default();
        let document = Document::parse(source, diagnostics);
        let root = document.root(diagnostics);
        if let Some(section) = root.section("capture", "[capture]") {
            config.capture.read(section);
        }
        if let Some(section) = root.section("lineage", "[lineage]") {
            read_lineage(&mut config.lineage, section);
        }
        if let Some(section) = root.section("fold", "[fold]") {
            read_fold(&mut config.fold, section);
        }
        if let Some(section) = root.section("follow", "[follow]") {
            read_follow(&mut config.follow, section);
        }
        if let Some(section) = root.section("rules", "[rules]") {
            if let Some(builtin) = section.flag("builtin") {
                config.rules.builtin = builtin.value;
            }
            let folders = section.strings("folders");
            if !folders.is_empty() {
                config.rules.folders = folders.iter().map(|folder| PathBuf::from(folder.value)).collect();
                config.rules.folders_required = true;
            }
            section.finish();
        }
        if let Some(section) = root.section("baseline", "[baseline]") {
            read_baseline(&mut config.baseline, section);
        }
        if let Some(section) = root.section("output", "[output]") {
            config.output.read(section);
        }
        if let Some(section) = root.section("state", "[state]") {
            set(&mut config.state_folder, absolute_path(&section, "folder"));
            section.finish();
        }
        root.finish();
        config
    }
}

/// Takes a value if there is one.
fn set<T>(target: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *target = value;
    }
}

impl Capture {
    fn read(&mut self, section: Section<'_>) {
        let size = |key, range: std::ops::RangeInclusive<i64>| {
            section.integer(key, range).and_then(|number| usize::try_from(number.value).ok())
        };
        let priorities = 0..=i64::from(*FIFO_PRIORITIES.end());
        set(&mut self.receive_buffer, size("receive-buffer", 65_536..=1 << 30));
        set(&mut self.args_limit, size("args-limit", 256..=2 << 20));
        set(&mut self.queue_length, size("queue-length", 16..=1 << 20));
        set(&mut self.listeners, section.choice("listeners", &ARRANGEMENTS).map(|choice| choice.value));
        set(
            &mut self.realtime_priority,
            section
                .integer("realtime-priority", priorities)
                .and_then(|number| u8::try_from(number.value).ok()),
        );
        set(&mut self.already_running, section.flag("already-running").map(|flag| flag.value));
        set(&mut self.identity, section.choice("identity", &IDENTITIES).map(|choice| choice.value));
        let folders = section.strings("identity-folders");
        if !folders.is_empty() {
            for folder in folders.iter().filter(|folder| !folder.value.starts_with('/')) {
                section.error(folder.span.clone(), "`identity-folders` must be absolute paths");
            }
            self.identity_folders = folders.iter().map(|folder| PathBuf::from(folder.value)).collect();
        }
        section.finish();
    }
}

fn read_lineage(limits: &mut Limits, section: Section<'_>) {
    let size = |key, range: std::ops::RangeInclusive<i64>| {
        section.integer(key, range).and_then(|number| usize::try_from(number.value).ok())
    };
    set(&mut limits.processes, size("processes", 256..=1 << 22));
    set(&mut limits.bytes, size("memory", 1 << 18..=1 << 32));
    set(
        &mut limits.keep_ended_ns,
        section.seconds("keep-ended").and_then(|seconds| seconds.value.checked_mul(NS_PER_S)),
    );
    section.finish();
}

fn read_fold(fold: &mut fold::Settings, section: Section<'_>) {
    /// A person who is told no sooner could as well read a report.
    const LONGEST_WINDOW_S: u64 = 86_400;
    set(&mut fold.enabled, section.flag("enabled").map(|flag| flag.value));
    if let Some(window) = section.seconds("window") {
        if (1..=LONGEST_WINDOW_S).contains(&window.value) {
            fold.window_ns = window.value * NS_PER_S;
        } else {
            section.error(window.span, "`window` must be from \"1s\" to \"24h\"");
        }
    }
    let at_most = section.integer("at-most", 1..=1_000_000);
    set(&mut fold.at_most, at_most.and_then(|number| u32::try_from(number.value).ok()));
    section.finish();
}

fn read_follow(follow: &mut followup::Settings, section: Section<'_>) {
    /// Records that one alert may have while its program goes on as before.
    const MOST_MOMENTS: usize = 16;
    /// A process that was let run for a day has been seen by somebody.
    const LAST_MOMENT: Duration = Duration::from_secs(86_400);
    set(&mut follow.enabled, section.flag("enabled").map(|flag| flag.value));
    let at_once = section.integer("at-once", 1..=4096);
    set(&mut follow.at_once, at_once.and_then(|number| usize::try_from(number.value).ok()));
    set(&mut follow.severity, section.choice("severity", &SEVERITIES).map(|choice| choice.value));
    let after = section.strings("after");
    let mut moments = Vec::new();
    for text in &after {
        match moment(text.value) {
            Some(moment) if moment > LAST_MOMENT => {
                section.error(text.span.clone(), "the moments of `after` lie within a day (\"24h\")");
            }
            Some(moment) if moments.last().is_some_and(|&last| moment <= last) => {
                section.error(text.span.clone(), "the moments of `after` must ascend");
            }
            Some(moment) => moments.push(moment),
            None => {
                let message = "`after` holds times such as \"100ms\", \"10s\", \"5m\" or \"1h\"";
                section.error(text.span.clone(), message);
            }
        }
    }
    if let Some(beyond) = after.get(MOST_MOMENTS) {
        section.error(beyond.span.clone(), format!("`after` holds at most {MOST_MOMENTS} moments"));
        moments.truncate(MOST_MOMENTS);
    }
    if !moments.is_empty() {
        follow.after = moments;
    }
    section.finish();
}

fn read_baseline(settings: &mut Settings, section: Section<'_>) {
    let number = |key, range: std::ops::RangeInclusive<i64>| {
        section.integer(key, range).and_then(|number| u64::try_from(number.value).ok())
    };
    let days = |key| {
        let span = section.seconds(key)?;
        if span.value % S_PER_DAY != 0 || span.value > LONGEST_DAYS * S_PER_DAY {
            section.error(
                span.span,
                format!("`{key}` must be whole days such as \"14d\", at most \"{LONGEST_DAYS}d\""),
            );
            return None;
        }
        Some(span.value / S_PER_DAY)
    };
    set(&mut settings.mode, section.choice("mode", &BASELINE_MODES).map(|choice| choice.value));
    set(&mut settings.known, section.choice("known", &WHEN_KNOWN).map(|choice| choice.value));
    set(&mut settings.learn_days, days("learn-for"));
    // A single day could be had in a minute.
    set(&mut settings.known_after_days, number("known-after-days", 2..=365));
    set(&mut settings.new_after_days, days("new-after"));
    set(&mut settings.rows, number("rows", 1000..=1_000_000).and_then(|number| usize::try_from(number).ok()));
    if settings.learn_days < settings.known_after_days {
        section.error(
            section.span(),
            format!(
                "nothing could become known: `learn-for` is {} days and `known-after-days` {}",
                settings.learn_days, settings.known_after_days
            ),
        );
    }
    section.finish();
}

/// A time of more than nothing, in a unit from milliseconds to hours.
fn moment(text: &str) -> Option<Duration> {
    let at = text.find(|letter: char| !letter.is_ascii_digit())?;
    let (number, unit) = text.split_at(at);
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    let number = number.parse::<u64>().ok().filter(|&number| number > 0)?;
    number.checked_mul(unit_ms).map(Duration::from_millis)
}

impl Output {
    fn read(&mut self, section: Section<'_>) {
        if let Some(part) = section.section("syslog", "[output.syslog]") {
            self.syslog = self.syslog.take().and_then(|syslog| syslog.read(part));
        }
        if let Some(part) = section.section("file", "[output.file]") {
            self.file = File::read(part);
        }
        if let Some(part) = section.section("stdout", "[output.stdout]") {
            self.stdout.enabled = part.flag("enabled").map(|flag| flag.value);
            self.stdout.format = part.choice("format", &FORMATS).map(|choice| choice.value);
            part.finish();
        }
        section.finish();
    }
}

impl Syslog {
    fn read(mut self, section: Section<'_>) -> Option<Self> {
        let enabled = section.flag("enabled").is_none_or(|flag| flag.value);
        set(&mut self.socket, absolute_path(&section, "socket"));
        set(&mut self.facility, section.choice("facility", &FACILITIES).map(|choice| choice.value));
        set(&mut self.format, section.choice("format", &FORMATS).map(|choice| choice.value));
        if let Some(tag) = section.string("tag") {
            let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
            // RFC 3164 5.3: 32 characters at most; what follows the tag must not look like a part of it.
            if tag.value.is_empty() || tag.value.len() > 32 || !tag.value.bytes().all(good) {
                section.error(tag.span, "`tag` holds 1 to 32 letters, digits, `-`, `_` and `.`");
            } else {
                self.tag = tag.value.to_owned();
            }
        }
        if let Some(table) = section.section("severity", "[output.syslog.severity]") {
            for (word, severity) in SEVERITIES {
                set(
                    &mut self.severities[severity as usize],
                    table.choice(word, &SYSLOG_SEVERITIES).map(|choice| choice.value),
                );
            }
            table.finish();
        }
        section.finish();
        enabled.then_some(self)
    }

    /// The PRI of a record (RFC 5424 6.2.1).
    pub fn priority(&self, severity: Severity) -> u8 {
        self.facility * 8 + self.severities[severity as usize]
    }
}

impl File {
    fn read(section: Section<'_>) -> Option<Self> {
        let enabled = section.flag("enabled").is_none_or(|flag| flag.value);
        let path = absolute_path(&section, "path");
        let format = section.choice("format", &FORMATS).map_or(Format::Json, |choice| choice.value);
        if enabled && section.string("path").is_none() {
            section.required_string("path");
        }
        section.finish();
        path.filter(|_| enabled).map(|path| File { path, format })
    }
}

fn absolute_path<'d>(section: &Section<'d>, key: &'d str) -> Option<PathBuf> {
    let path = section.string(key)?;
    if path.value.starts_with('/') {
        Some(PathBuf::from(path.value))
    } else {
        section.error(path.span, format!("`{key}` must be an absolute path"));
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(config.output.syslog, Config::default().output.syslog);
        assert!(config.output.file.is_some());
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
             [output.syslog]\nsocket = '/s'\nfacility = 'local3'\ntag = 't'\nformat = 'json'\n\
             [output.syslog.severity]\nlow = 'debug'\n[output.file]\npath = '/f'\nformat = 'text'\n\
             [output.stdout]\nenabled = true\nformat = 'text'\n[state]\nfolder = '/v'\n",
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
            fold: fold::Settings { enabled: false, window_ns: 300 * NS_PER_S, at_most: 7 },
            follow: followup::Settings {
                enabled: false,
                at_once: 3,
                severity: Severity::High,
                after: vec![Duration::from_millis(5), Duration::from_secs(7200)],
            },
            rules: Places { builtin: false, folders: vec!["/x".into()], folders_required: true },
            baseline: Settings {
                mode: decision::Mode::Enforce,
                known: WhenKnown::Silence,
                learn_days: 7,
                known_after_days: 5,
                new_after_days: 2,
                rows: 2000,
            },
            output: Output {
                syslog: Some(Syslog {
                    socket: "/s".into(),
                    facility: 19,
                    tag: "t".into(),
                    format: Format::Json,
                    severities: [6, 7, 4, 3, 2],
                }),
                file: Some(File { path: "/f".into(), format: Format::Text }),
                stdout: Stdout { enabled: Some(true), format: Some(Format::Text) },
            },
            state_folder: "/v".into(),
        };
        assert_eq!(config, expected);
        let off = parse("[output.syslog]\nenabled = false\n[output.file]\nenabled = false\n").0.output;
        assert_eq!((off.syslog, off.file), (None, None));
    }

    #[test]
    fn moments_of_follow_ups() {
        let mistakes = |after: &str| {
            let (config, mistakes) = parse(&format!("[follow]\nafter = {after}\n"));
            let said: Vec<String> = mistakes.into_iter().map(|mistake| mistake.message).collect();
            (config.follow.after.len(), said.join("; "))
        };
        assert_eq!(mistakes("['1s', '2s', '3m']"), (3, String::new()));
        assert_eq!(mistakes("[]"), (4, String::new()));
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
        assert_eq!(
            mistakes(&format!("[{}]", many.join(","))),
            (16, "`after` holds at most 16 moments".into())
        );
    }
}
