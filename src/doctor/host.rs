//! Files, outputs and the time.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Instant;

use super::Finding;
use crate::config::{self, Config};
use crate::output::remote::link::Link;
use crate::trust::{Distrust, Trust};

pub(super) fn examine(config: &Config, file: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    outputs(&mut findings, &config.output);
    findings.extend(folder("the state folder", &config.state_folder, "[state] folder"));
    if let Some(journal) = config.journal.folder.as_deref().filter(|_| config.journal.enabled) {
        findings.extend(folder("the journal", journal, "[journal] folder"));
    }
    let of_rules = config.rules.folders.iter().map(|path| path.as_path());
    for path in [file].into_iter().chain(of_rules) {
        findings.extend(trusted(path));
    }
    findings.extend(time());
    findings
}

fn outputs(findings: &mut Vec<Finding>, output: &config::Output) {
    const AREA: &str = "output";
    if let Some(syslog) = &output.syslog {
        let socket = &syslog.socket;
        findings.push(match reach(socket) {
            Ok(()) => Finding::good(AREA, format!("syslog answers at {}", socket.display())),
            Err(error) => Finding::warning(
                AREA,
                format!("syslog cannot be reached at {}: {error}", socket.display()),
                "start a syslog server (rsyslog, syslog-ng, systemd-journald, busybox syslogd), name its socket in \
                 [output.syslog] socket, or switch it off there",
            ),
        });
    }
    if let Some(file) = &output.file {
        let folder = file.path.parent().unwrap_or(Path::new("/"));
        findings.push(match folder.metadata() {
            Ok(about) if about.is_dir() => {
                Finding::good(AREA, format!("alerts are written to {}", file.path.display()))
            }
            Ok(_) => Finding::warning(
                AREA,
                format!("{} is no folder, so {} cannot be written", folder.display(), file.path.display()),
                "name another file in [output.file] path",
            ),
            Err(error) => Finding::warning(
                AREA,
                format!("{} cannot be written: {}: {error}", file.path.display(), folder.display()),
                match error.kind() {
                    io::ErrorKind::NotFound => format!("mkdir -p -m 0750 {}", folder.display()),
                    _ => "name another file in [output.file] path".to_owned(),
                },
            ),
        });
    }
    if let Some(journald) = &output.journald {
        let socket = &journald.socket;
        findings.push(match reach(socket) {
            Ok(()) => Finding::good(AREA, format!("journald answers at {}", socket.display())),
            Err(error) => Finding::warning(
                AREA,
                format!("journald cannot be reached at {}: {error}", socket.display()),
                "use [output.syslog] where there is no journald, and leave out [output.journald]",
            ),
        });
    }
    for remote in &output.remote {
        findings.extend(remote.servers.iter().map(|one| server(remote, one)));
    }
    let elsewhere = output.syslog.is_some()
        || output.file.is_some()
        || output.journald.is_some()
        || !output.remote.is_empty();
    if !elsewhere && output.stdout.enabled != Some(true) {
        findings.push(Finding::warning(
            AREA,
            "no output is switched on but standard output on a terminal: alerts of a service reach nobody",
            "enable [output.syslog], [[output.remote]], [output.journald] or [output.file]",
        ));
    }
}

/// Connects to a socket of datagrams or of a stream, and sends nothing.
fn reach(socket: &Path) -> io::Result<()> {
    let about = std::fs::metadata(socket)?;
    if !about.file_type().is_socket() {
        return Err(io::Error::other("it is no socket"));
    }
    match UnixDatagram::unbound()?.connect(socket) {
        Err(error) if error.raw_os_error() == Some(libc::EPROTOTYPE) => {
            std::os::unix::net::UnixStream::connect(socket).map(drop)
        }
        result => result,
    }
}

/// A folder of the daemon's own.
fn folder(what: &str, path: &Path, key: &str) -> Vec<Finding> {
    const AREA: &str = "files";
    /// MiB below which a file system is nearly full for our purposes.
    const LITTLE_MIB: u64 = 64;
    let shown = path.display();
    let about = match path.metadata() {
        Ok(about) => about,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return vec![Finding::note(
                AREA,
                format!("{what} {shown} is not there yet; the daemon makes it"),
            )];
        }
        Err(error) => {
            let remedy = format!("see to what is in its way, or name another in {key}");
            return vec![Finding::warning(AREA, format!("{what} {shown} cannot be used: {error}"), remedy)];
        }
    };
    if !about.is_dir() {
        let remedy = format!("move away what has that name, or name another in {key}");
        return vec![Finding::warning(AREA, format!("{what} {shown} is no folder"), remedy)];
    }
    let mut findings = Vec::new();
    let mode = about.permissions().mode() & 0o7777;
    if let Some(remedy) = for_root_alone(about.uid(), mode, path) {
        findings.push(Finding::warning(
            AREA,
            format!("{what} {shown} is open to others than root (owner {}, mode {mode:04o})", about.uid()),
            remedy,
        ));
    }
    let file = File::open(path);
    if let Ok(file) = file
        && let Ok(system) = nix::sys::statvfs::fstatvfs(&file)
    {
        if system.flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY) {
            findings.push(Finding::warning(
                AREA,
                format!(
                    "{what} {shown} is on a file system that is mounted read-only: nothing is remembered"
                ),
                format!("mount it read-write, or name another in {key}"),
            ));
        }
        let free_mib = system.blocks_available().saturating_mul(system.fragment_size()) >> 20;
        if free_mib < LITTLE_MIB {
            findings.push(Finding::warning(
                AREA,
                format!("{what} {shown} has {free_mib} MiB left on its file system"),
                format!("make room there, or name another in {key}"),
            ));
        }
    }
    if findings.is_empty() {
        findings.push(Finding::good(AREA, format!("{what} {shown} is for root alone, with room")));
    }
    findings
}

/// What makes a folder root's alone; `None` if it is.
fn for_root_alone(owner: u32, mode: u32, path: &Path) -> Option<String> {
    let chown = (owner != 0).then(|| format!("chown root: {}", path.display()));
    let chmod = (mode & 0o077 != 0).then(|| format!("chmod 0700 {}", path.display()));
    let commands: Vec<String> = chown.into_iter().chain(chmod).collect();
    (!commands.is_empty()).then(|| commands.join(" && "))
}

/// A file or folder of the configuration, which decides what is seen. One that is not there is a matter of `check`.
fn trusted(path: &Path) -> Vec<Finding> {
    let fatal = |Distrust { path, what, reason, remedy }: Distrust| {
        let found = format!("execwatch refuses the {what} {}: {reason}", path.display());
        Finding::fatal("files", found, remedy)
    };
    Trust::refused(path).into_iter().map(fatal).collect()
}

/// A server on the network: opens a connection and closes it, which for TLS verifies its certificate.
fn server(remote: &config::Remote, server: &config::Server) -> Finding {
    const AREA: &str = "output";
    match Link::open(remote, server, Instant::now() + remote.connect_timeout) {
        Ok(_) if server.transport == config::Transport::Udp => Finding::note(
            AREA,
            format!("datagrams are sent to {server}; UDP does not tell whether somebody receives them"),
        ),
        Ok(_) => Finding::good(AREA, format!("the syslog server {server} accepts connections")),
        Err(error) => Finding::warning(
            AREA,
            format!(
                "the syslog server {server} of [[output.remote]] {} cannot be used: {error}",
                remote.name
            ),
            if server.transport == config::Transport::Tls && is_of_certificates(&error) {
                "check the certificates and [output.remote.tls]; what it does not take waits in the journal"
            } else {
                "check its address and the firewalls between; what it does not take waits in the journal"
            },
        ),
    }
}

/// An error of TLS or of its files; those of the network come from the kernel or from looking up the name.
fn is_of_certificates(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, NotFound, Other, PermissionDenied};
    error.raw_os_error().is_none()
        && matches!(error.kind(), InvalidData | NotFound | Other | PermissionDenied)
}

fn time() -> Vec<Finding> {
    const AREA: &str = "time";
    /// 2025-01-01: a host that says less has no clock.
    const EARLIEST_S: u64 = 1_735_689_600;
    let seconds = crate::clock::realtime_ns() / 1_000_000_000;
    let says = crate::calendar::rfc3339(seconds * 1_000_000_000);
    let remedy = "set the clock, and keep it with chrony, ntpd-rs or systemd-timesyncd";
    if seconds < EARLIEST_S {
        return vec![Finding::warning(AREA, format!("the clock says {says}, which is in the past"), remedy)];
    }
    match crate::sys::time::synchronised() {
        Some(true) => vec![Finding::good(AREA, format!("the clock is synchronised and says {says}"))],
        Some(false) => vec![Finding::note(
            AREA,
            format!("the kernel does not know its clock to be synchronised; it says {says}"),
        )],
        None => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn a_remedy_names_only_what_is_wrong() {
        let of = |owner, mode| for_root_alone(owner, mode, Path::new("/s"));
        assert_eq!(of(0, 0o700), None);
        assert_eq!(of(0, 0o755).unwrap(), "chmod 0700 /s");
        assert_eq!(of(7, 0o700).unwrap(), "chown root: /s");
        assert_eq!(of(7, 0o777).unwrap(), "chown root: /s && chmod 0700 /s");
    }

    #[test]
    fn a_file_in_the_place_of_a_folder() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for path in [file.path().to_owned(), file.path().join("below")] {
            let findings = folder("the state folder", &path, "[state] folder");
            let remedy = findings[0].remedy.as_ref().unwrap();
            assert_eq!(findings[0].level, Level::Warning);
            assert!(remedy.contains("[state] folder") && !remedy.contains("mkdir"), "{remedy}");
        }
    }
}
