//! The catalogue of utilities, and which of them a program is.

use rustc_hash::FxHashMap;

use super::interpreter::{self, Family};
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
    /// Names of other utilities that a link to it has on ordinary hosts.
    pub stands_for: Vec<String>,
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
    /// The kernel's name of the process, which is that of the link that was executed.
    Comm,
    /// The executable is the same file as the utility's, or a copy of it.
    Identity,
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
            Via::Comm => "comm",
            Via::Identity => "identity",
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
    /// The name it shows, argv\[0\], is none of the utility's.
    pub disguised: bool,
}

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
    names: FxHashMap<Box<[u8]>, usize>,
    /// By the utility's own name alone, as written.
    numbers: FxHashMap<Box<str>, usize>,
    globs: Vec<(Glob, usize)>,
}

impl Catalogue {
    /// A catalogue of these utilities. A name that two of them have belongs to the first; `load` has reported it.
    pub fn new(utilities: Vec<Utility>) -> Self {
        let mut catalogue = Catalogue { utilities, ..Catalogue::default() };
        for (number, utility) in catalogue.utilities.iter().enumerate() {
            catalogue.numbers.entry(utility.name.as_str().into()).or_insert(number);
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

    /// The number of the utility with this name of its own, as written.
    pub fn number(&self, utility: &str) -> Option<usize> {
        self.numbers.get(utility).copied()
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

    /// True if the program is called otherwise than its file, as far as either is known, and neither name is a utility's:
    /// it may have been executed through a link whose name, which comm tells, is one. A program that is called by its file's name is the common
    /// case, and a link to it as good as never hides another.
    pub fn leaves_name_open(&self, image: &Image) -> bool {
        let (exe, argv0) = (image.name(), image.argument(0).map(called_name));
        let no_utility = |name: Option<&[u8]>| name.is_none_or(|name| self.look_up(name).is_none());
        (exe.is_none() || exe != argv0) && no_utility(exe) && no_utility(argv0)
    }

    /// Which utility the program is, if any.
    ///
    /// What runs counts more than what it is called: an applet, a loaded program and a script before the file that was
    /// executed, whose identity counts more than its name, and all of these before argv\[0\] and comm, which the caller
    /// may choose freely.
    pub fn recognise(&self, image: &Image, hints: Hints<'_>) -> Option<Recognised> {
        let found = |name: Option<&[u8]>, via| Some((self.look_up(name?)?, via));
        let exe = image.name();
        let argv0 = image.argument(0).map(called_name);
        // None too if this catalogue has no such utility: it was found under the one before a reload.
        let file = hints.file.and_then(|file| Some((file, self.number(file.utility)?)));
        let executed = file.filter(|(file, _)| !file.loaded);
        let kind = match executed {
            // What the file is says more than what it is called: its name where it is installed, or the utility's.
            Some((file, _)) => match kind(base_name(file.path)) {
                Kind::Plain => kind(file.utility.as_bytes()),
                kind => kind,
            },
            None => exe.map_or(Kind::Plain, kind),
        };
        let inner = match kind {
            Kind::Plain => None,
            // `busybox nc` or a link called nc; a link of another name gets busybox to fail.
            Kind::MultiCall => found(applet(image).map(|(name, _)| name), Via::Applet),
            Kind::Loader => match file.filter(|(file, _)| file.loaded) {
                Some((_, utility)) => Some((utility, Via::Loader)),
                None => found(loader_target(image).map(base_name), Via::Loader),
            },
            Kind::Interpreter(family) => {
                let script = image.argv().and_then(|argv| family.script(argv.skip(1)));
                found(script.map(base_name), Via::Script)
            }
        };
        let by_identity = executed.map(|(_, utility)| match exe.and_then(|name| self.look_up(name)) {
            Some(named) if named == utility => (utility, Via::Exe),
            _ => (utility, Via::Identity),
        });
        let (utility, via) = inner
            .or(by_identity)
            .or_else(|| found(exe, Via::Exe))
            .or_else(|| found(argv0.filter(|name| Some(*name) != exe), Via::Argv0))
            .or_else(|| found(hints.comm.filter(|_| self.leaves_name_open(image)), Via::Comm))?;
        let is_named = |name: &[u8]| self.look_up(name) == Some(utility);
        let stands_for = |name: &[u8]| {
            let others = self.utilities.get(utility).map_or(&[][..], |utility| &utility.stands_for);
            others.iter().any(|other| other.as_bytes().eq_ignore_ascii_case(name))
        };
        let disguised = match via {
            // Called by the file's own name nobody is misled by argv[0], whatever the file is called; nor by the name of a
            // link to it that hosts are installed with: bash as sh, mawk as awk, ncat as nc.
            Via::Exe => argv0.is_some_and(|name| !is_named(name) && !stands_for(name) && Some(name) != exe),
            // Under another of its names where it is installed nobody hides it.
            Via::Identity => executed.is_none_or(|(file, _)| !file.at_its_place),
            Via::Loader => loader_target(image).is_some_and(|target| !is_named(base_name(target))),
            Via::Applet => exe.is_some_and(|name| !is_multi_call(name) && !is_named(name)),
            Via::Argv0 | Via::Comm | Via::Script => false,
        };
        Some(Recognised { utility, via, disguised })
    }
}

/// What else is known of a program besides executable and arguments.
#[derive(Debug, Clone, Copy, Default)]
pub struct Hints<'h> {
    /// The utility whose file, or a copy of it, was executed or loaded.
    pub file: Option<KnownFile<'h>>,
    /// It is not known whether the file is a utility's.
    pub unsettled: bool,
    /// The kernel's name of the process.
    pub comm: Option<&'h [u8]>,
}

/// A file that is known to be an installed utility's, or a copy of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownFile<'h> {
    /// The utility's name.
    pub utility: &'h str,
    /// Where the utility is installed.
    pub path: &'h [u8],
    /// It was executed there, by one of its paths.
    pub at_its_place: bool,
    /// The dynamic loader was told to run it; the executable is the loader.
    pub loaded: bool,
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
    Interpreter(&'static Family),
}

fn kind(name: &[u8]) -> Kind {
    if is_multi_call(name) {
        Kind::MultiCall
    } else if is_loader(name) {
        Kind::Loader
    } else {
        interpreter::family(name).map_or(Kind::Plain, Kind::Interpreter)
    }
}

fn is_loader(name: &[u8]) -> bool {
    (name.starts_with(b"ld-") || name.starts_with(b"ld.so") || name.starts_with(b"ld64."))
        && name.windows(3).any(|piece| piece == b".so")
}

/// A program that does what its name, or first argument, says.
pub fn is_multi_call(name: &[u8]) -> bool {
    // busybox itself takes any name that begins with its own for its own.
    name.starts_with(b"busybox") || name == b"toybox"
}

/// Neither a multi-call program nor a dynamic loader nor an interpreter: it is nothing but itself.
pub fn is_plain(name: &[u8]) -> bool {
    matches!(kind(name), Kind::Plain)
}

/// The name a program was called by, without the dash of a login shell.
fn called_name(argv0: &[u8]) -> &[u8] {
    let name = base_name(argv0);
    name.strip_prefix(b"-").unwrap_or(name)
}

/// The program that the dynamic loader was told to run; `None` if the program is no loader, or was told none.
pub fn loaded_program(image: &Image) -> Option<&[u8]> {
    image.name().filter(|name| is_loader(name))?;
    loader_target(image)
}

/// A dynamic loader's first argument that is no option.
fn loader_target(image: &Image) -> Option<&[u8]> {
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

/// The applet of a multi-call program, and how many arguments it has before its own: it is called by the applet's name, or
/// is told that name, where its own name in between means nothing.
fn applet(image: &Image) -> Option<(&[u8], usize)> {
    let own = |name: &[u8]| name.is_empty() || is_multi_call(name);
    let mut names = image.argv()?.enumerate().map(|(at, argument)| match at {
        0 => (called_name(argument), 1),
        _ => (base_name(argument), at + 1),
    });
    names.find(|(name, _)| !own(name))
}

/// The script that an interpreter was told to run, also one that is an applet; `None` if the program is no interpreter, or
/// got its text otherwise.
pub fn script(image: &Image) -> Option<&[u8]> {
    let name = image.name()?;
    let (name, before) = if is_multi_call(name) { applet(image)? } else { (name, 1) };
    interpreter::family(name)?.script(image.argv()?.skip(before))
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
            stands_for: if name == "bash" { vec!["sh".into()] } else { Vec::new() },
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
        let image = Image::new(Some(exe.as_bytes()), Some(argv));
        let recognised = catalogue.recognise(&image, Hints::default())?;
        Some((catalogue.utilities()[recognised.utility].name.clone(), recognised.via.as_str()))
    }

    #[test]
    fn disguises() {
        let catalogue = catalogue();
        let seen = |exe: &str, argv: &[&str], identity: Option<&'static str>, comm: &str| {
            let image = Image::new(Some(exe.as_bytes()), Some(argv));
            let file = identity.map(|utility| KnownFile {
                utility,
                path: b"/usr/bin/x",
                at_its_place: exe == "/usr/bin/x",
                loaded: exe.contains("ld-linux"),
            });
            let hints = Hints { file, comm: Some(comm.as_bytes()), ..Hints::default() };
            let found = catalogue.recognise(&image, hints)?;
            Some((catalogue.utilities()[found.utility].name.clone(), found.via, found.disguised))
        };
        let is = |name: &str, via, disguised| Some((name.to_owned(), via, disguised));
        assert_eq!(seen("/usr/bin/nc.openbsd", &["nc"], None, "nc"), is("nc", Via::Exe, false));
        assert_eq!(seen("/usr/bin/nc.openbsd", &["sshd"], None, "nc"), is("nc", Via::Exe, true));
        assert_eq!(seen("/usr/bin/bash", &["-bash"], None, "bash"), is("bash", Via::Exe, false));
        assert_eq!(seen("/usr/bin/bash", &["sh", "-c", "x"], None, "sh"), is("bash", Via::Exe, false));
        assert_eq!(seen("/usr/bin/bash", &["curl"], None, "curl"), is("bash", Via::Exe, true));
        assert_eq!(
            seen("/tmp/.kworker", &["./.kworker"], Some("nc"), ".kworker"),
            is("nc", Via::Identity, true)
        );
        assert_eq!(seen("/tmp/nc", &["nc"], Some("nc"), "nc"), is("nc", Via::Exe, false));
        assert_eq!(seen("/tmp/curl", &["curl"], Some("nc"), "curl"), is("nc", Via::Identity, true));
        assert_eq!(seen("/tmp/x", &["nc", "-l"], Some("busybox"), "x"), is("nc", Via::Applet, true));
        assert_eq!(seen("/tmp/x", &["x"], Some("busybox"), "x"), is("busybox", Via::Identity, true));
        assert_eq!(seen("/tmp/x", &["x", "/tmp/nc"], Some("bash"), "x"), is("nc", Via::Script, false));
        assert_eq!(seen("/usr/bin/x", &["x"], Some("nc"), "x"), is("nc", Via::Identity, false));
        assert_eq!(
            seen("/lib/ld-linux.so.2", &["ld.so", "/tmp/x"], Some("nc"), "ld.so"),
            is("nc", Via::Loader, true)
        );
        assert_eq!(
            seen("/lib/ld-linux.so.2", &["ld.so", "/tmp/nc"], Some("nc"), "ld.so"),
            is("nc", Via::Loader, false)
        );
        // A netcat that is called busybox has no applets.
        assert_eq!(
            seen("/tmp/busybox", &["busybox", "curl", "80"], Some("nc"), "x"),
            is("nc", Via::Identity, true)
        );
        assert_eq!(seen("/opt/tool", &["x"], None, "nc"), is("nc", Via::Comm, false));
        assert_eq!(seen("/opt/tool", &["x"], None, "x"), None);
        // It was taken out of the catalogue.
        assert_eq!(seen("/opt/tool", &["x"], Some("gone"), "x"), None);
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
        is("/usr/bin/busybox", &["busybox", "/bin/busybox", "nc", "-l"], "nc", "applet");
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
            let _ = catalogue().recognise(&Image::new(Some(&exe), Some(&argv)), Hints::default());
        }
    }
}
