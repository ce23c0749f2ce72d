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
use crate::response;
use crate::trust::{Distrust, Trust};

pub(super) fn examine(config: &Config, file: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    let daemon = Daemon { overrides: !config.hardening.capabilities };
    outputs(&mut findings, &config.output, daemon);
    if let Some(path) = &config.metrics.textfile {
        // It is replaced by another, so the folder alone matters.
        findings.push(made_in_folder("metrics", path, "[metrics] textfile", daemon));
    }
    if let Some(notify) = &config.incident.notify {
        findings.extend(notify.command.first().map(|program| command(Path::new(program))));
    }
    findings.push(runtime(&config.runtime_folder, config.response.mode != response::Mode::Off));
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

fn outputs(findings: &mut Vec<Finding>, output: &config::Output, daemon: Daemon) {
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
        findings.push(written("alerts", &file.path, "[output.file] path", daemon));
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

/// What the daemon may write: it is root without the capability to write where root is not let (CAP_DAC_OVERRIDE).
#[derive(Debug, Clone, Copy)]
struct Daemon {
    /// It keeps that capability.
    overrides: bool,
}

impl Daemon {
    /// By owner and mode, as path_resolution(7) has it: the first of owner, group and others that fits decides.
    fn may_write(self, owner: u32, group: u32, mode: u32) -> bool {
        let bit = match (owner, group) {
            (0, _) => 0o200,
            (_, 0) => 0o020,
            _ => 0o002,
        };
        self.overrides || mode & bit != 0
    }
}

/// A file that is appended to, and made if it is not there.
fn written(what: &str, path: &Path, key: &str, daemon: Daemon) -> Finding {
    const AREA: &str = "output";
    match path.metadata() {
        Ok(about) if !daemon.may_write(about.uid(), about.gid(), about.mode()) => Finding::warning(
            AREA,
            format!(
                "{what} cannot be written to {}: the file is owned by uid {}, mode {:04o}, and execwatch has given up \
                 CAP_DAC_OVERRIDE",
                path.display(),
                about.uid(),
                about.mode() & 0o7777
            ),
            format!("chown root: {}", path.display()),
        ),
        Ok(_) => Finding::good(AREA, format!("{what} are written to {}", path.display())),
        Err(_) => made_in_folder(what, path, key, daemon),
    }
}

/// A file that is made in its folder.
fn made_in_folder(what: &str, path: &Path, key: &str, daemon: Daemon) -> Finding {
    const AREA: &str = "output";
    let folder = path.parent().unwrap_or(Path::new("/"));
    let (shown, place) = (path.display(), folder.display());
    let about = match folder.metadata() {
        Ok(about) => about,
        Err(error) => {
            let remedy = match error.kind() {
                io::ErrorKind::NotFound => format!("mkdir -p -m 0750 {place}"),
                _ => format!("name another file in {key}"),
            };
            return Finding::warning(AREA, format!("{shown} cannot be written: {place}: {error}"), remedy);
        }
    };
    if !about.is_dir() {
        return Finding::warning(
            AREA,
            format!("{place} is no folder, so {shown} cannot be written"),
            format!("name another file in {key}"),
        );
    }
    if !daemon.may_write(about.uid(), about.gid(), about.mode()) {
        let (owner, mode) = (about.uid(), about.mode() & 0o7777);
        return Finding::warning(
            AREA,
            format!(
                "{shown} cannot be made: {place} is owned by uid {owner}, mode {mode:04o}, and execwatch has given up \
                 CAP_DAC_OVERRIDE"
            ),
            format!("chown root {place}, or name a file in a folder of root's in {key}"),
        );
    }
    Finding::good(AREA, format!("{what} are written to {shown}"))
}

/// The program that is told of incidents.
fn command(program: &Path) -> Finding {
    const AREA: &str = "incidents";
    let (shown, remedy) = (program.display(), "name a program in [incident.notify] command");
    match program.metadata() {
        Ok(about) if about.is_file() && about.mode() & 0o111 != 0 => {
            Finding::good(AREA, format!("incidents are told to {shown}"))
        }
        Ok(about) if about.is_file() => Finding::warning(
            AREA,
            format!("incidents reach nobody by {shown}: it is not executable"),
            format!("chmod +x {shown}"),
        ),
        Ok(_) => Finding::warning(AREA, format!("incidents reach nobody by {shown}: it is no file"), remedy),
        Err(error) => Finding::warning(AREA, format!("incidents reach nobody by {shown}: {error}"), remedy),
    }
}

/// The folder of lock and control socket: without the lock the daemon does not start, and for the socket and for responses
/// it must be as [`place::prepare`](crate::control::place::prepare) demands.
fn runtime(path: &Path, responses: bool) -> Finding {
    const AREA: &str = "files";
    let shown = path.display();
    let elsewhere = "name another in [state] runtime-folder";
    let refused = |found: String, remedy: String| match responses {
        true => Finding::fatal(AREA, format!("{found}: with responses, execwatch does not start"), remedy),
        false => Finding::warning(AREA, format!("{found}: `execwatch status` is not answered"), remedy),
    };
    match (path.symlink_metadata(), path.metadata()) {
        (Err(error), _) if error.kind() == io::ErrorKind::NotFound => {
            Finding::note(AREA, format!("the runtime folder {shown} is not there yet; the daemon makes it"))
        }
        (Err(error), _) | (_, Err(error)) => {
            Finding::fatal(AREA, format!("the runtime folder {shown} cannot be used: {error}"), elsewhere)
        }
        (_, Ok(about)) if !about.is_dir() => Finding::fatal(
            AREA,
            format!("the runtime folder {shown} is no folder"),
            format!("move away what has that name, or {elsewhere}"),
        ),
        (Ok(link), _) if link.is_symlink() => {
            refused(format!("the runtime folder {shown} is a symbolic link"), elsewhere.to_owned())
        }
        (Ok(about), _) if about.uid() != 0 || about.mode() & 0o022 != 0 => refused(
            format!(
                "others than root may write to the runtime folder {shown} (owner {}, mode {:04o})",
                about.uid(),
                about.mode() & 0o7777
            ),
            format!("chown root: {shown} && chmod go-w {shown}"),
        ),
        _ => Finding::good(AREA, format!("only root may write to the runtime folder {shown}")),
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

    #[test]
    fn root_without_overriding_writes_where_owner_or_mode_let_it() {
        let hardened = Daemon { overrides: false };
        for (owner, group, mode, may) in [
            (0, 0, 0o755, true),
            (0, 5, 0o575, false),
            (65_534, 65_534, 0o755, false),
            (65_534, 65_534, 0o777, true),
            (65_534, 0, 0o775, true),
            (65_534, 0, 0o757, false),
        ] {
            assert_eq!(hardened.may_write(owner, group, mode), may, "{owner} {group} {mode:o}");
        }
        assert!(Daemon { overrides: true }.may_write(65_534, 65_534, 0o755));
    }

    #[test]
    fn a_program_that_cannot_be_executed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (program, said) in [
            (file.path(), "not executable"),
            (Path::new("/"), "no file"),
            (Path::new("/nowhere/at"), "No such"),
        ] {
            let finding = command(program);
            assert!(finding.level == Level::Warning && finding.found.contains(said), "{finding:?}");
        }
        assert_eq!(command(Path::new("/bin/sh")).level, Level::Good);
    }

    #[test]
    fn a_runtime_folder_that_the_daemon_refuses() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o775)).unwrap();
        let open = runtime(folder.path(), false);
        assert_eq!((open.level, runtime(folder.path(), true).level), (Level::Warning, Level::Fatal));
        assert!(open.remedy.unwrap().contains("chmod go-w"));
        assert_eq!(runtime(&folder.path().join("new"), false).level, Level::Note);
        std::os::unix::fs::symlink("/", folder.path().join("link")).unwrap();
        assert_eq!(runtime(&folder.path().join("link"), false).level, Level::Warning);
        std::fs::write(folder.path().join("file"), "").unwrap();
        assert_eq!(runtime(&folder.path().join("file"), false).level, Level::Fatal);
    }
}
