//! Parsers of /proc files, over bytes.
//!
//! procfs' own types refuse a whole file for one byte that is no UTF-8, which a process can put into its name; these
//! parsers take each field for itself.

use std::net::{IpAddr, SocketAddr};

/// The fields used of /proc/PID/status (proc_pid_status(5)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Status {
    /// Real, effective, saved and file-system user id.
    pub uids: Option<[u32; 4]>,
    /// Real, effective, saved and file-system group id.
    pub gids: Option<[u32; 4]>,
    /// The parent's process id.
    pub ppid: Option<u32>,
    /// The process id of who traces it (ptrace(2)); 0 for nobody.
    pub tracer: Option<u32>,
    /// The mode creation mask; since Linux 4.7.
    pub umask: Option<u32>,
    /// Its process id in the innermost pid namespace; since Linux 4.1.
    pub vpid: Option<u32>,
    /// Capability sets.
    pub capabilities: Capabilities,
}

/// Capability sets as bits (capabilities(7)); `None` if the file did not tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "capabilities(7) documents each")]
pub struct Capabilities {
    pub inheritable: Option<u64>,
    pub permitted: Option<u64>,
    pub effective: Option<u64>,
    pub bounding: Option<u64>,
    pub ambient: Option<u64>,
}

/// Parses /proc/PID/status. The supplementary groups are put into `groups`.
pub fn status(bytes: &[u8], groups: &mut Vec<u32>) -> Status {
    let mut status = Status::default();
    groups.clear();
    for line in bytes.split(|&byte| byte == b'\n') {
        // The name comes first and its newlines are escaped by the kernel, so no name can forge another line.
        if let Some(value) = line.strip_prefix(b"Uid:") {
            status.uids = four(value);
        } else if let Some(value) = line.strip_prefix(b"Gid:") {
            status.gids = four(value);
        } else if let Some(value) = line.strip_prefix(b"PPid:") {
            status.ppid = number(value);
        } else if let Some(value) = line.strip_prefix(b"TracerPid:") {
            status.tracer = number(value);
        } else if let Some(value) = line.strip_prefix(b"Umask:") {
            status.umask = text(value).and_then(|octal| u32::from_str_radix(octal, 8).ok());
        } else if let Some(value) = line.strip_prefix(b"Groups:") {
            groups.extend(words(value).filter_map(number::<u32>));
        } else if let Some(value) = line.strip_prefix(b"NSpid:") {
            status.vpid = words(value).last().and_then(number);
        } else if let Some(value) = line.strip_prefix(b"Cap") {
            let capabilities = &mut status.capabilities;
            let (set, value) = value.split_at_checked(4).unwrap_or_default();
            let target = match set {
                b"Inh:" => &mut capabilities.inheritable,
                b"Prm:" => &mut capabilities.permitted,
                b"Eff:" => &mut capabilities.effective,
                b"Bnd:" => &mut capabilities.bounding,
                b"Amb:" => &mut capabilities.ambient,
                _ => continue,
            };
            *target = text(value).and_then(|hex| u64::from_str_radix(hex, 16).ok());
        } else if line.starts_with(b"Seccomp:") {
            // The rest is long and not needed.
            break;
        }
    }
    status
}

/// The fields used of /proc/PID/stat (proc_pid_stat(5)).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stat<'a> {
    /// The kernel's name of the process, at most 15 bytes.
    pub comm: &'a [u8],
    /// What it is doing: `R` for running, `T` for stopped, `Z` for ended.
    pub state: u8,
    /// The parent's process id.
    pub ppid: u32,
    /// Process group id: the pid of the group's leader.
    pub pgid: u32,
    /// Session id: the pid of the session's leader; 0 for none.
    pub session: u32,
    /// Device number of the controlling terminal; 0 for none.
    pub tty: u32,
    /// Start time in ticks since boot.
    pub start_ticks: u64,
    /// The CPU on which it runs, or ran last.
    pub processor: Option<u32>,
    /// Real-time priority, 1 to 99; 0 without.
    pub priority: Option<u8>,
    /// Scheduling policy (sched(7)).
    pub policy: Option<u32>,
    /// Length of the argument list in memory, in bytes; since Linux 3.5.
    pub arguments: Option<u64>,
}

/// Parses /proc/PID/stat; the name, between the first and the last parenthesis, may hold anything.
pub fn stat(bytes: &[u8]) -> Option<Stat<'_>> {
    let start = bytes.iter().position(|&byte| byte == b'(')?;
    let end = bytes.iter().rposition(|&byte| byte == b')')?;
    // Field 3 is the first after the name.
    let fields: Vec<&[u8]> = bytes.get(end + 2..)?.split(|&byte| byte == b' ').collect();
    let field = |number: usize| fields.get(number - 3).copied();
    let memory = |index: usize| field(index).and_then(number::<u64>).filter(|&address| address != 0);
    Some(Stat {
        comm: bytes.get(start + 1..end)?,
        state: *field(3)?.first()?,
        ppid: number(field(4)?)?,
        pgid: number(field(5)?)?,
        session: number(field(6)?)?,
        // tty_nr is printed as a signed number.
        tty: number::<i32>(field(7)?)? as u32,
        start_ticks: number(field(22)?)?,
        processor: field(39).and_then(number),
        priority: field(40).and_then(number),
        policy: field(41).and_then(number),
        arguments: memory(48).zip(memory(49)).and_then(|(start, end)| end.checked_sub(start)),
    })
}

/// The client's address and port in the environment of an ssh session: the first two words of SSH_CONNECTION (ssh(1)).
pub fn ssh_client(environment: &[u8]) -> Option<SocketAddr> {
    let mut entries = environment.split(|&byte| byte == 0);
    let value = entries.find_map(|entry| entry.strip_prefix(b"SSH_CONNECTION="))?;
    let mut words = std::str::from_utf8(value).ok()?.split(' ');
    let address = words.next()?;
    // A link-local address has its interface behind a percent sign.
    let address: IpAddr = address.split('%').next()?.parse().ok()?;
    Some(SocketAddr::new(address, words.next()?.parse().ok()?))
}

/// What was read of a file into a buffer of some size, without the word that its end may have cut.
pub fn whole_words(bytes: &[u8], size: usize) -> &[u8] {
    let cut = bytes.len() == size;
    let end =
        bytes.iter().rposition(|byte| byte.is_ascii_whitespace()).filter(|_| cut).unwrap_or(bytes.len());
    bytes.get(..end).unwrap_or(bytes)
}

/// A file that holds one number.
pub fn number<T: std::str::FromStr>(bytes: &[u8]) -> Option<T> {
    text(bytes)?.parse().ok()
}

/// The number in a namespace link such as `pid:[4026531836]`.
pub fn namespace(link: &[u8]) -> Option<u64> {
    let start = link.iter().position(|&byte| byte == b'[')?;
    number(link.get(start + 1..)?.strip_suffix(b"]")?)
}

/// The paths in /proc/PID/cgroup: the third field of each line (cgroups(7)).
pub fn cgroup_paths(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|&byte| byte == b'\n').filter_map(|line| line.splitn(3, |&byte| byte == b':').nth(2))
}

/// The name of a terminal as ps(1) shows it: from its device number, since the listener must not search /dev.
pub fn tty_name(device: u32) -> Option<String> {
    // The kernel's encoding of a device number in stat: major in bits 8 to 19, minor in 0 to 7 and 20 to 31.
    let major = (device >> 8) & 0xfff;
    let minor = (device & 0xff) | ((device >> 12) & 0xf_ff00);
    match (major, minor) {
        (0, 0) => None,
        (4, 0..=63) => Some(format!("tty{minor}")),
        (4, _) => Some(format!("ttyS{}", minor - 64)),
        (136..=143, _) => Some(format!("pts/{}", (major - 136) * 256 + minor)),
        (229, _) => Some(format!("hvc{minor}")),
        (204, 64..) => Some(format!("ttyAMA{}", minor - 64)),
        (188, _) => Some(format!("ttyUSB{minor}")),
        (166, _) => Some(format!("ttyACM{minor}")),
        _ => Some(format!("{major}:{minor}")),
    }
}

/// The device number of a terminal's name, as [`tty_name`] gives it.
pub fn tty_device(name: &str) -> Option<u32> {
    let device = |major: u32, minor: u32| {
        (major < 1 << 12 && minor < 1 << 20).then_some(major << 8 | (minor & 0xff) | (minor & !0xff) << 12)
    };
    let after = |prefix: &str| number::<u32>(name.strip_prefix(prefix)?.as_bytes());
    let found = if let Some(number) = after("pts/") {
        // Kernels before 2.6 gave eight major numbers 256 terminals each; since then the first has all.
        device(136, number)
    } else if let Some(number) = after("ttyS") {
        device(4, number.checked_add(64)?)
    } else if let Some(number) = after("ttyAMA") {
        device(204, number.checked_add(64)?)
    } else if let Some(number) = after("ttyUSB") {
        device(188, number)
    } else if let Some(number) = after("ttyACM") {
        device(166, number)
    } else if let Some(number) = after("hvc") {
        device(229, number)
    } else if let Some(number) = after("tty") {
        device(4, number).filter(|_| number < 64)
    } else {
        let (major, minor) = name.split_once(':')?;
        device(number(major.as_bytes())?, number(minor.as_bytes())?)
    };
    found.filter(|&device| device != 0)
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes.trim_ascii()).ok()
}

fn words(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty())
}

fn four(bytes: &[u8]) -> Option<[u32; 4]> {
    let mut values = words(bytes).map(number);
    Some([values.next()??, values.next()??, values.next()??, values.next()??])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_of_ssh_sessions() {
        let client = |text: &str| ssh_client(text.as_bytes()).map(|client| client.to_string());
        assert_eq!(
            client("A=1\0SSH_CONNECTION=203.0.113.9 50022 10.0.0.5 22\0B=2\0").as_deref(),
            Some("203.0.113.9:50022")
        );
        assert_eq!(client("SSH_CONNECTION=fe80::1%eth0 1 fe80::2%eth0 22").as_deref(), Some("[fe80::1]:1"));
        for none in [
            "",
            "XSSH_CONNECTION=1.2.3.4 1 1.2.3.4 22",
            "SSH_CONNECTION=",
            "SSH_CONNECTION=x 1",
            "SSH_CONNECTION=1.2.3.4 99999",
        ] {
            assert_eq!(client(none), None, "{none}");
        }
    }
    use proptest::prelude::*;

    #[test]
    fn a_status_with_a_hostile_name() {
        let file = b"Name:\t\xff\xfeUid:\t7\nUmask:\t0027\nState:\tR (running)\nTgid:\t5\nPid:\t5\nPPid:\t4\nTracerPid:\t6\n\
            Uid:\t1000\t0\t0\t0\nGid:\t1\t2\t3\t4\nFDSize:\t64\n\
            Groups:\t27 1000 \nNSpid:\t5\t2\nCapInh:\t0000000000000000\nCapEff:\t0000000000003000\nSeccomp:\t0\nUid:\t9\n";
        let expected = Status {
            uids: Some([1000, 0, 0, 0]),
            gids: Some([1, 2, 3, 4]),
            ppid: Some(4),
            tracer: Some(6),
            umask: Some(0o27),
            vpid: Some(2),
            capabilities: Capabilities {
                inheritable: Some(0),
                effective: Some(0x3000),
                ..Capabilities::default()
            },
        };
        let mut groups = vec![1];
        assert_eq!(status(file, &mut groups), expected);
        assert_eq!(groups, [27, 1000]);
        assert_eq!(status(b"Uid:\t1\t2\nGid:\tx\nCap", &mut groups), Status::default());
    }

    #[test]
    fn a_stat_with_a_hostile_name() {
        let mut file = b"5 (a) R 1 (\n\xff) S 4 5 6 34817 5 ".to_vec();
        file.extend(b"4194304 1 2 3 4 5 6 7 8 20 0 1 0 ");
        file.extend(b"987654 100 200 ");
        // Fields 25 to 47, then arg_start and arg_end.
        file.extend((25..=47).map(|field| field.to_string() + " ").collect::<String>().into_bytes());
        file.extend(b"1000 1064 3 4 0\n");
        let stat = stat(&file).unwrap();
        let expected = Stat {
            comm: b"a) R 1 (\n\xff",
            state: b'S',
            ppid: 4,
            pgid: 5,
            session: 6,
            tty: 34817,
            start_ticks: 987_654,
            processor: Some(39),
            priority: Some(40),
            policy: Some(41),
            arguments: Some(64),
        };
        assert_eq!(stat, expected);
        assert_eq!(tty_name(stat.tty).as_deref(), Some("pts/1"));
    }

    #[test]
    fn what_a_buffer_cut() {
        assert_eq!(whole_words(b"Groups:\t1 23", 12), b"Groups:\t1");
        assert_eq!(whole_words(b"Groups:\t1 23", 13), b"Groups:\t1 23");
        assert_eq!(whole_words(b"123", 3), b"123");
    }

    #[test]
    fn terminals() {
        assert_eq!(tty_name(0), None);
        assert_eq!(tty_name(4 << 8 | 1).as_deref(), Some("tty1"));
        assert_eq!(tty_name(4 << 8 | 64).as_deref(), Some("ttyS0"));
        assert_eq!(tty_name(137 << 8 | 2).as_deref(), Some("pts/258"));
        assert_eq!(tty_name(5 << 8 | 1).as_deref(), Some("5:1"));
    }

    #[test]
    fn namespaces_and_cgroups() {
        assert_eq!(namespace(b"pid:[4026531836]"), Some(4_026_531_836));
        assert_eq!(namespace(b"pid:[x]"), None);
        let file = b"12:cpu,cpuacct:/docker/abc\n1:name=systemd:/x:y\n0::/system.slice/ssh.service\n";
        let paths: Vec<_> = cgroup_paths(file).collect();
        assert_eq!(paths, [&b"/docker/abc"[..], b"/x:y", b"/system.slice/ssh.service"]);
    }

    proptest! {
        #[test]
        fn any_bytes_end_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), device in any::<u32>()) {
            let _ = (status(&bytes, &mut Vec::new()), stat(&bytes), namespace(&bytes), number::<u32>(&bytes), tty_name(device));
            prop_assert!(cgroup_paths(&bytes).count() <= bytes.len());
            // Of some terminals two numbers have the same name.
            let name = tty_name(device);
            prop_assert_eq!(name.as_deref().and_then(tty_device).and_then(tty_name), name);
        }
    }
}
