//! The catalogue of utilities, and which of them a program is.

use std::collections::HashMap;

use super::pattern::Glob;
use crate::process::exec::{Image, base_name};

/// An entry of the catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Utility {
    /// Its name.
    pub name: String,
    /// Other names of the same program; may be globs.
    pub aliases: Vec<String>,
    /// What it is for: `netcat`, `dns`, ...
    pub category: String,
    /// ATT&CK techniques.
    pub attack: Vec<String>,
    /// Ordinary operation of a host starts it, so its bare name says nothing.
    pub everyday: bool,
    /// A sentence for the analyst.
    pub note: String,
}

/// Names longer than this are not looked up.
pub const LONGEST_NAME: usize = 64;

/// By which of its names a program was recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// The executable's name.
    Exe,
    /// argv\[0\].
    Argv0,
    /// The applet of a multi-call binary.
    Applet,
    /// The program given to the dynamic loader.
    Loader,
    /// The script given to an interpreter.
    Script,
}

impl Via {
    /// The word used in rules and alerts.
    pub fn as_str(self) -> &'static str {
        match self {
            Via::Exe => "exe",
            Via::Argv0 => "argv0",
            Via::Applet => "applet",
            Via::Loader => "loader",
            Via::Script => "script",
        }
    }
}

/// A recognised utility.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recognised {
    /// Its number in the catalogue.
    pub utility: usize,
    /// By which name.
    pub via: Via,
}

/// Programs that are many programs in one.
const MULTI_CALL: &[&[u8]] = &[b"busybox", b"busybox.static", b"busybox-static", b"toybox"];

/// Beginnings of interpreters' names, after which only a version may follow.
const INTERPRETERS: &[&[u8]] = &[
    b"sh", b"bash", b"dash", b"ash", b"ksh", b"mksh", b"zsh", b"fish", b"csh", b"tcsh", b"python", b"pypy",
    b"perl", b"ruby", b"php", b"lua", b"luajit", b"node", b"nodejs", b"tclsh", b"wish", b"pwsh", b"gawk",
    b"expect",
];

/// Options of the dynamic loader that take the next argument (ld.so(8)).
const LOADER_OPTIONS_WITH_VALUE: &[&[u8]] = &[
    b"--argv0",
    b"--audit",
    b"--glibc-hwcaps-mask",
    b"--glibc-hwcaps-prepend",
    b"--inhibit-rpath",
    b"--library-path",
    b"--preload",
];

/// All utilities, found by name.
#[derive(Debug, Clone, Default)]
pub struct Catalogue {
    utilities: Vec<Utility>,
    names: HashMap<Box<[u8]>, usize>,
    globs: Vec<(Glob, usize)>,
}

impl Catalogue {
    /// A catalogue of these utilities. A name that two of them have belongs to the first; `load` has reported it.
    pub fn new(utilities: Vec<Utility>) -> Self {
        let mut catalogue = Catalogue { utilities, ..Catalogue::default() };
        for (number, utility) in catalogue.utilities.iter().enumerate() {
            for name in std::iter::once(&utility.name).chain(&utility.aliases) {
                if is_glob(name) {
                    catalogue.globs.extend(Glob::new(name.as_bytes()).ok().map(|glob| (glob, number)));
                } else {
                    catalogue.names.entry(name.to_ascii_lowercase().into_bytes().into()).or_insert(number);
                }
            }
        }
        catalogue
    }

    /// The entries.
    pub fn utilities(&self) -> &[Utility] {
        &self.utilities
    }

    /// The entry of that name, whatever its case.
    pub fn look_up(&self, name: &[u8]) -> Option<usize> {
        let mut buffer = [0; LONGEST_NAME];
        let folded = buffer.get_mut(..name.len())?;
        folded.copy_from_slice(name);
        folded.make_ascii_lowercase();
        let folded: &[u8] = folded;
        self.names.get(folded).copied().or_else(|| {
            self.globs.iter().find(|(glob, _)| glob.matches(folded, false)).map(|&(_, number)| number)
        })
    }

    /// Which utility the program is, if any.
    ///
    /// What runs counts more than what it is called: an applet, a loaded program and a script before the file that was
    /// executed, and that before argv\[0\], which the caller may choose freely.
    pub fn recognise(&self, image: &Image) -> Option<Recognised> {
        let found = |name: Option<&[u8]>, via| self.look_up(name?).map(|utility| Recognised { utility, via });
        let exe = image.name();
        let argv0 = image.argument(0).map(called_name);
        let kind = exe.map_or(Kind::Plain, kind);
        let inner = match kind {
            Kind::Plain => None,
            // `busybox nc` or a link called nc; a link of another name gets busybox to fail, or to list its applets.
            Kind::MultiCall => {
                let own_name = argv0.is_none_or(|name| name.is_empty() || kind_is_multi_call(name));
                let applet = if own_name { image.argument(1).map(base_name) } else { argv0 };
                found(applet, Via::Applet)
            }
            Kind::Loader => found(loaded_program(image).map(base_name), Via::Loader),
            Kind::Interpreter => found(script(image).map(base_name), Via::Script),
        };
        inner.or_else(|| found(exe, Via::Exe)).or_else(|| found(argv0, Via::Argv0))
    }
}

/// True if the name is a pattern.
pub fn is_glob(name: &str) -> bool {
    name.contains(['*', '?', '['])
}

#[derive(Clone, Copy)]
enum Kind {
    Plain,
    MultiCall,
    Loader,
    Interpreter,
}

fn kind(name: &[u8]) -> Kind {
    if kind_is_multi_call(name) {
        Kind::MultiCall
    } else if (name.starts_with(b"ld-") || name.starts_with(b"ld.so") || name.starts_with(b"ld64."))
        && name.windows(3).any(|piece| piece == b".so")
    {
        Kind::Loader
    } else if is_interpreter(name) {
        Kind::Interpreter
    } else {
        Kind::Plain
    }
}

fn kind_is_multi_call(name: &[u8]) -> bool {
    MULTI_CALL.contains(&name)
}

fn is_interpreter(name: &[u8]) -> bool {
    let version = |tail: &[u8]| tail.iter().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'-'));
    INTERPRETERS.iter().any(|own| name.strip_prefix(*own).is_some_and(version))
}

/// The name a program was called by, without the dash of a login shell.
fn called_name(argv0: &[u8]) -> &[u8] {
    let name = base_name(argv0);
    name.strip_prefix(b"-").unwrap_or(name)
}

/// The program that the dynamic loader was told to run.
fn loaded_program(image: &Image) -> Option<&[u8]> {
    let mut arguments = image.argv()?.skip(1);
    loop {
        let argument = arguments.next()?;
        if LOADER_OPTIONS_WITH_VALUE.contains(&argument) {
            arguments.next()?;
        } else if !argument.starts_with(b"-") {
            return Some(argument);
        }
    }
}

/// The script that an interpreter was told to run: its first argument that is no option. Program text on the command
/// line (`-c`, `-e`) is no script.
fn script(image: &Image) -> Option<&[u8]> {
    let mut arguments = image.argv()?.skip(1);
    loop {
        let argument = arguments.next()?;
        match argument {
            b"-c" | b"-e" | b"-r" | b"-m" | b"-" => return None,
            b"--" => return arguments.next(),
            _ if argument.starts_with(b"-") => {}
            _ => return Some(argument),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn catalogue() -> Catalogue {
        let utility = |name: &str, aliases: &[&str]| Utility {
            name: name.into(),
            aliases: aliases.iter().map(|&alias| alias.into()).collect(),
            category: "x".into(),
            attack: Vec::new(),
            everyday: false,
            note: String::new(),
        };
        Catalogue::new(vec![
            utility("nc", &["nc.openbsd"]),
            utility("curl", &["curl.*"]),
            utility("busybox", &["toybox"]),
            utility("bash", &[]),
            utility("TeamViewer_Desktop", &[]),
        ])
    }

    fn recognised(exe: &str, argv: &[&str]) -> Option<(String, &'static str)> {
        let catalogue = catalogue();
        let recognised = catalogue.recognise(&Image::new(Some(exe.as_bytes()), Some(argv)))?;
        Some((catalogue.utilities()[recognised.utility].name.clone(), recognised.via.as_str()))
    }

    #[test]
    fn by_each_name() {
        let is = |exe, argv: &[&str], name: &str, via| {
            assert_eq!(recognised(exe, argv), Some((name.to_owned(), via)), "{exe} {argv:?}");
        };
        is("/usr/bin/nc.openbsd", &["nc", "-h"], "nc", "exe");
        is("/usr/bin/nc.openbsd", &["sshd"], "nc", "exe");
        is("/tmp/NC", &["x"], "nc", "exe");
        is("/tmp/nc (deleted)", &["x"], "nc", "exe");
        is("/memfd:nc (deleted)", &["sshd"], "nc", "exe");
        is("/usr/bin/curl.real", &["curl"], "curl", "exe");
        is("/tmp/.kworker", &["nc", "-l"], "nc", "argv0");
        is("/usr/bin/busybox", &["busybox", "nc", "-l"], "nc", "applet");
        is("/usr/bin/busybox", &["nc", "-l"], "nc", "applet");
        is("/usr/bin/busybox", &["busybox"], "busybox", "exe");
        is("/usr/bin/busybox", &["busybox", "ls"], "busybox", "exe");
        is(
            "/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
            &["ld.so", "--argv0", "ls", "/tmp/nc"],
            "nc",
            "loader",
        );
        is("/usr/bin/dash", &["/bin/sh", "./curl", "x"], "curl", "script");
        is("/usr/bin/python3.11", &["python3", "-u", "/opt/nc", "x"], "nc", "script");
        is("/usr/bin/bash", &["-bash"], "bash", "exe");
        is("/opt/TeamViewer_Desktop", &["x"], "TeamViewer_Desktop", "exe");
    }

    #[test]
    fn not_by_accident() {
        assert_eq!(recognised("/usr/bin/ls", &["ls", "nc"]), None);
        assert_eq!(recognised("/usr/bin/dash", &["sh", "-c", "nc"]), None);
        assert_eq!(recognised("/usr/bin/dash", &["sh"]), None);
        assert_eq!(recognised("/usr/bin/ld-linux.so.2", &["ld.so", "--argv0"]), None);
        assert_eq!(recognised(&"x".repeat(1000), &["y"]), None);
    }

    proptest! {
        #[test]
        fn any_program_ends(exe in proptest::collection::vec(any::<u8>(), 0..30),
                            argv in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..12), 0..4)) {
            let _ = catalogue().recognise(&Image::new(Some(&exe), Some(&argv)));
        }
    }
}
