//! Utilities recognised by what their file is, whatever it is called: on the real kernel, while they are held.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod support;

use std::fs;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use support::{Machine, Setup, alert_of, assert_certain, installed, program, skip};

/// A catalogue, and a rule that lets only recognised utilities through the prefilter.
const RULES: &str = r#"
[[utility]]
name = "nc"
aliases = ["netcat", "nc.openbsd", "nc.traditional"]
category = "netcat"

[[utility]]
name = "busybox"
category = "multi-call"

[[utility]]
name = "curl"
category = "web-client"

[[utility]]
name = "plain"
category = "other"

[[rule]]
id = "utility"
title = "A utility was started by this test"
severity = "low"
[rule.select.utility]
"utility.name|exists" = true
cwd = "{dir}"
"#;

/// A rule for programs that must not be recognised, which are called so.
const OTHERS: &str = r#"
[[rule]]
id = "any"
title = "A program of this test"
severity = "low"
[rule.select.program]
"exe|startswith" = "{dir}/bin/un"
"#;

/// Utilities are installed in `{dir}/installed` only: `nc` is a copy of the host's, `plain` a program without a build-id.
fn setup<'m>(machine: &'m Machine, capture: &str) -> Option<(Setup<'m>, PathBuf)> {
    let nc = installed("nc")?.canonicalize().unwrap();
    let setup = machine
        .daemon()
        .rules(&format!("{RULES}{OTHERS}"))
        .capture("identity-folders = ['{dir}/installed']")
        .capture(capture);
    let folder = setup.folder().join("installed");
    fs::create_dir(&folder).unwrap();
    program::copy(&nc, &folder.join("nc"));
    if let Some(plain) = plain(b"first") {
        write(&folder.join("plain"), &plain);
    }
    Some((setup, folder))
}

/// An executable without a build-id that differs from others of its size at its end.
fn plain(end: &[u8; 5]) -> Option<Vec<u8>> {
    let mut bytes = program::brief_elf()?;
    bytes.resize(20_000, 0);
    bytes.extend(end);
    Some(bytes)
}

/// Writes an executable.
fn write(path: &Path, bytes: &[u8]) {
    let raw = path.with_extension("raw");
    fs::write(&raw, bytes).unwrap();
    program::copy(&raw, path);
    fs::remove_file(raw).unwrap();
}

/// The utility, by what it was recognised, and that it is shown to be hidden.
#[track_caller]
fn assert_same(alert: &Value, name: &str, by: &str) {
    let utility = &alert["execwatch"]["utility"];
    assert_eq!(utility["name"], name, "{alert:#}");
    assert_eq!(utility["same_as"]["by"], by, "{alert:#}");
    assert_certain(alert);
}

#[track_caller]
fn assert_via(alert: &Value, via: &str, disguised: bool) {
    let utility = &alert["execwatch"]["utility"];
    assert_eq!((&utility["via"], &utility["disguised"]), (&via.into(), &disguised.into()), "{alert:#}");
}

#[test]
fn renamed_copies_hard_links_and_lengthened_copies() {
    let Some(machine) = Machine::alone() else { return };
    let Some((setup, installed)) = setup(&machine, "") else { return };
    let daemon = setup.start();
    let place = |name: &str| daemon.folder().join("bin").join(name);
    let nc = installed.join("nc");

    program::copy(&nc, &place(".kworker"));
    let alert = alert_of(&daemon, Command::new("bin/.kworker").arg("-h"));
    assert_same(&alert, "nc", "build-id");
    assert_via(&alert, "identity", true);
    assert_eq!(alert["execwatch"]["utility"]["same_as"]["path"], nc.to_str().unwrap());
    assert_eq!(alert["process"]["executable"], place(".kworker").to_str().unwrap());
    assert_eq!(alert["file"]["size"], fs::metadata(&nc).unwrap().len());
    // Whoever calls it by its name misleads nobody about argv[0], but the file is still under a false name.
    let named = alert_of(&daemon, Command::new("bin/.kworker").arg0("nc").arg("-h"));
    assert_via(&named, "identity", true);

    fs::hard_link(&nc, place("hard")).unwrap();
    let alert = alert_of(&daemon, Command::new("bin/hard").arg("-h"));
    assert_same(&alert, "nc", "inode");
    assert_eq!(alert["execwatch"]["exe_links"], 2);

    let mut longer = fs::read(&nc).unwrap();
    longer.extend(b"appended");
    write(&place("longer"), &longer);
    let alert = alert_of(&daemon, Command::new("bin/longer").arg("-h"));
    assert_same(&alert, "nc", "build-id");

    std::os::unix::fs::symlink(place(".kworker"), place("link")).unwrap();
    let alert = alert_of(&daemon, Command::new("bin/link").arg("-h"));
    assert_same(&alert, "nc", "build-id");
    assert_eq!(alert["execwatch"]["comm"], "link");

    let at_its_place = alert_of(&daemon, Command::new(&nc).arg("-h"));
    assert_via(&at_its_place, "exe", false);
    assert_eq!(at_its_place["execwatch"]["utility"]["same_as"], Value::Null);
    daemon.stop();
}

#[test]
fn copies_without_a_build_id_by_content() {
    let Some(machine) = Machine::alone() else { return };
    let Some((setup, installed)) = setup(&machine, "") else { return };
    let Some(other) = plain(b"other") else { return skip("knows no executable for this architecture") };
    let daemon = setup.start();
    let place = |name: &str| daemon.folder().join("bin").join(name);
    program::copy(&installed.join("plain"), &place("copy"));
    write(&place("unequal"), &other);
    for _ in 0..2 {
        // It has ended by the time its content is read.
        let alert = alert_of(&daemon, &mut Command::new("bin/copy"));
        assert_same(&alert, "plain", "content");
        assert_via(&alert, "identity", true);
        let printed = Command::new("sha256sum").arg(place("copy")).output().unwrap().stdout;
        let digest = String::from_utf8(printed).unwrap()[..64].to_owned();
        assert_eq!(alert["process"]["hash"]["sha256"], digest);
        assert_eq!(alert["execwatch"]["utility"]["same_as"]["value"], digest);
        // Of the same size, but another program.
        let alert = alert_of(&daemon, &mut Command::new("bin/unequal"));
        assert_eq!(alert["execwatch"]["utility"], Value::Null, "{alert:#}");
        assert_eq!(alert["execwatch"]["unknown"], Value::Null, "{alert:#}");
    }
    daemon.stop();
}

#[test]
fn a_file_mounted_over_another_one() {
    let Some(machine) = Machine::alone() else { return };
    let Some(unshare) = support::installed("unshare") else { return };
    let Some((setup, installed)) = setup(&machine, "") else { return };
    let daemon = setup.start();
    let copy = daemon.folder().join("bin/copy");
    program::copy(&installed.join("nc"), &copy);
    for (file, by) in [(&installed.join("nc"), "inode"), (&copy, "build-id")] {
        let script = "mount --bind \"$0\" /usr/bin/true && exec /usr/bin/true -h";
        let alert = alert_of(&daemon, Command::new(&unshare).args(["-m", "sh", "-c", script]).arg(file));
        assert_same(&alert, "nc", by);
        assert_via(&alert, "identity", true);
        assert_eq!(alert["process"]["executable"], "/usr/bin/true");
    }
    daemon.stop();
}

#[test]
fn a_file_system_that_the_daemon_does_not_know() {
    let Some(machine) = Machine::alone() else { return };
    let Some(unshare) = support::installed("unshare") else { return };
    let Some((setup, installed)) = setup(&machine, "") else { return };
    let daemon = setup.start();
    // Mounted after the daemon's start, and only in a mount namespace of its own.
    let script = "mount -t tmpfs none bin && cp \"$0\" bin/x && bin/x -h; exec bin/x -h";
    for _ in 0..2 {
        let alert = alert_of(
            &daemon,
            Command::new(&unshare).args(["-m", "sh", "-c", script]).arg(installed.join("nc")),
        );
        assert_same(&alert, "nc", "build-id");
        assert_via(&alert, "identity", true);
    }
    daemon.stop();
}

#[test]
fn anonymous_memory_and_deleted_files() {
    let Some(machine) = Machine::alone() else { return };
    let Some((setup, installed)) = setup(&machine, "") else { return };
    let Some(bash) = support::installed("bash") else { return };
    let daemon = setup.start();
    let memory = execwatch::sys::fs::anonymous_file(c"[kworker]").unwrap();
    let mut memory = fs::File::from(memory);
    memory.write_all(&fs::read(installed.join("nc")).unwrap()).unwrap();
    let path = format!("/proc/{}/fd/{}", std::process::id(), memory.as_raw_fd());
    let alert = alert_of(&daemon, Command::new(path).arg0("sshd").arg("-h"));
    assert_same(&alert, "nc", "build-id");
    assert_via(&alert, "identity", true);
    assert_eq!(alert["execwatch"]["exe_memfd"], true);

    program::copy(&installed.join("nc"), &daemon.folder().join("gone"));
    let script = "exec 3<gone; rm gone; exec /proc/self/fd/3 -h";
    let alert = alert_of(&daemon, Command::new(&bash).args(["-c", script]));
    assert_same(&alert, "nc", "build-id");
    assert_eq!(alert["execwatch"]["exe_deleted"], true);
    assert_eq!(alert["execwatch"]["exe_links"], 0);
    daemon.stop();
}

#[test]
fn a_copy_given_to_the_dynamic_loader() {
    /// Where the ABIs of the architectures that tests run on place it.
    const LOADERS: [&str; 2] = ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"];
    let Some(machine) = Machine::alone() else { return };
    let Some(loader) = LOADERS.iter().map(Path::new).find(|loader| loader.exists()) else {
        return skip("needs the dynamic loader of glibc");
    };
    let Some((setup, installed)) = setup(&machine, "") else { return };
    let daemon = setup.start();
    let copy = daemon.folder().join("bin/copy");
    program::copy(&installed.join("nc"), &copy);
    // Relative to the working directory, absolute, and the name of another utility.
    let named = daemon.folder().join("bin/curl");
    fs::hard_link(&copy, &named).unwrap();
    for target in [Path::new("bin/copy"), &copy, &named] {
        let alert = alert_of(&daemon, Command::new(loader).arg(target).arg("-h"));
        assert_same(&alert, "nc", "build-id");
        assert_via(&alert, "loader", true);
        assert_eq!(alert["process"]["executable"], loader.canonicalize().unwrap().to_str().unwrap());
    }
    // A file whose content is on the disk alone, for which no listener waits.
    let file = fs::File::open(&copy).unwrap();
    file.sync_all().unwrap();
    let advice = nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED;
    nix::fcntl::posix_fadvise(&file, 0, 0, advice).unwrap();
    let alert = alert_of(&daemon, Command::new(loader).arg(&copy).arg("-h"));
    assert_same(&alert, "nc", "build-id");
    let alert = alert_of(&daemon, Command::new(loader).arg(installed.join("nc")).arg("-h"));
    assert_via(&alert, "loader", false);
    // What does not exist is nobody.
    let marker = alert_of(&daemon, Command::new(loader).args(["./nowhere/curl", "-h"]));
    assert_eq!(marker["execwatch"]["utility"]["name"], "curl");
    daemon.stop();
}

#[test]
fn multi_call_programs() {
    let Some(machine) = Machine::alone() else { return };
    let Some(busybox) = support::installed("busybox") else { return };
    let Some((setup, installed)) = setup(&machine, "") else { return };
    program::copy(&busybox, &installed.join("busybox"));
    // One file with the names of two utilities is neither.
    if let Some(both) = plain(b"multi") {
        write(&installed.join("curl"), &both);
        fs::hard_link(installed.join("curl"), installed.join("netcat")).unwrap();
    }
    let daemon = setup.start();
    let place = |name: &str| daemon.folder().join("bin").join(name);
    program::copy(&busybox, &place("xyz"));
    let by_argv0 = alert_of(&daemon, Command::new("bin/xyz").arg0("nc").arg("--help"));
    assert_eq!(by_argv0["execwatch"]["utility"]["name"], "nc");
    assert_via(&by_argv0, "applet", true);
    let by_argument = alert_of(&daemon, Command::new("bin/xyz").arg0("busybox").args(["nc", "--help"]));
    assert_eq!(by_argument["execwatch"]["utility"]["name"], "nc");
    assert_via(&by_argument, "applet", true);
    let itself = alert_of(&daemon, Command::new("bin/xyz").arg0("xyz").arg("--help"));
    assert_same(&itself, "busybox", "build-id");
    if installed.join("curl").exists() {
        program::copy(&installed.join("curl"), &place("unknown"));
        let alert = alert_of(&daemon, &mut Command::new("bin/unknown"));
        assert_eq!(alert["execwatch"]["utility"], Value::Null, "{alert:#}");
    }
    daemon.stop();
}

#[test]
fn switched_off_only_names_count() {
    let Some(machine) = Machine::alone() else { return };
    let Some((setup, installed)) = setup(&machine, "identity = 'off'") else { return };
    let daemon = setup.start();
    let copy = daemon.folder().join("bin/unknown");
    program::copy(&installed.join("nc"), &copy);
    let alert = alert_of(&daemon, Command::new("bin/unknown").arg("-h"));
    assert_eq!(alert["execwatch"]["utility"], Value::Null);
    assert_eq!(alert["execwatch"]["unknown"], Value::Null);
    // What the file is like is told all the same.
    assert_eq!(alert["file"]["size"], fs::metadata(&copy).unwrap().len());
    daemon.stop();
}

/// A file in a folder of packages, taken away when this is dropped.
struct Trusted(PathBuf);

impl Drop for Trusted {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn copies_on_trusted_paths_are_known_if_all_are_looked_at() {
    let Some(machine) = Machine::alone() else { return };
    let copy = Trusted(PathBuf::from(format!("/usr/lib/execwatch-test-{}", std::process::id())));
    if fs::write(&copy.0, b"").is_err() {
        return skip("needs to write to /usr/lib");
    }
    let own = format!(
        "[[rule]]\nid = 'own'\ntitle = 'x'\nseverity = 'low'\n[rule.select.it]\nexe = '{}'\n",
        copy.0.display()
    );
    for (mode, expected) in [("untrusted-paths", Value::Null), ("all", "nc".into())] {
        let Some((setup, installed)) = setup(&machine, &format!("identity = '{mode}'")) else { return };
        program::copy(&installed.join("nc"), &copy.0);
        let daemon = setup.rules(&format!("{RULES}{own}")).start();
        let alert = alert_of(&daemon, Command::new(&copy.0).arg("-h"));
        assert_eq!(alert["execwatch"]["utility"]["name"], expected, "{mode}");
        daemon.stop();
    }
}

#[test]
fn a_utility_installed_later_is_known() {
    let Some(machine) = Machine::alone() else { return };
    let Some((setup, installed)) = setup(&machine, "") else { return };
    let Some(later) = plain(b"later") else { return skip("knows no executable for this architecture") };
    let daemon = setup.environment("EXECWATCH_LOG", "debug").start();
    daemon.wait_for_message("2 files of utilities are installed");
    // As package managers do it: whole.
    write(&daemon.folder().join("later"), &later);
    fs::rename(daemon.folder().join("later"), installed.join("curl")).unwrap();
    daemon.wait_for_message("3 files of utilities are installed");
    program::copy(&installed.join("curl"), &daemon.folder().join("bin/copy"));
    let alert = alert_of(&daemon, &mut Command::new("bin/copy"));
    assert_same(&alert, "curl", "content");
    daemon.stop();
}

#[test]
fn fields_of_the_file() {
    const FIELDS: &str = r#"
[[rule]]
id = "young"
title = "x"
severity = "low"
[rule.select.it]
"exe|startswith" = "{dir}/bin/"
"exe.age|lt" = 60
"exe.changed|lte" = 60
"exe.size|gt" = 100
"exe.links" = 1
"exe.mode" = 0o4755
"exe.setuid" = true
"exe.setgid" = false
"exe.owner" = "root"
"exe.group" = "root"
[[rule]]
id = "hash"
title = "x"
severity = "low"
[rule.select.it]
"exe.sha256" = "{hash}"
[[rule]]
id = "foreign"
title = "x"
severity = "low"
[rule.select.it]
"exe|startswith" = "{dir}/bin/"
"exe.package-managed" = false
[[rule]]
id = "managed"
title = "x"
severity = "low"
[rule.select.it]
cwd = "{dir}"
"exe|endswith" = "/true"
"exe.package-managed" = true
"#;
    let Some(machine) = Machine::alone() else { return };
    if !Path::new("/var/lib/dpkg/info").exists() {
        return skip("needs dpkg");
    }
    let setup = machine.daemon();
    let file = setup.program("own");
    let printed = Command::new("sha256sum").arg(&file).output().unwrap().stdout;
    let digest = String::from_utf8(printed).unwrap()[..64].to_owned();
    assert!(Command::new("chmod").arg("4755").arg(&file).status().unwrap().success());
    let daemon = setup.rules(&FIELDS.replace("{hash}", &digest)).start();
    let alert = alert_of(&daemon, &mut Command::new(&file));
    let mut rules: Vec<&str> =
        alert["execwatch"]["rules"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
    rules.sort_unstable();
    assert_eq!(rules, ["foreign", "hash", "young"], "{alert:#}");
    assert_eq!(alert["process"]["hash"]["sha256"], digest);
    assert_eq!(alert["file"]["mode"], "4755");
    let alert = alert_of(&daemon, &mut Command::new("/usr/bin/true"));
    assert_eq!(alert["execwatch"]["rules"], serde_json::json!(["managed"]));
    daemon.stop();
}

#[test]
fn explain_knows_a_copy_by_path_and_by_process() {
    let Some(nc) = installed("nc") else { return };
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy");
    program::copy(&nc.canonicalize().unwrap(), &copy);
    let explain = |arguments: &[&std::ffi::OsStr]| {
        let output = Command::new(env!("CARGO_BIN_EXE_execwatch"))
            .args(["explain", "--json"])
            .args(arguments)
            .output()
            .unwrap();
        serde_json::from_slice::<Value>(&output.stdout).unwrap()["utility"].clone()
    };
    for arguments in [
        vec!["--exe".as_ref(), copy.as_os_str(), "--".as_ref(), "x".as_ref()],
        vec!["--".as_ref(), copy.as_os_str()],
    ] {
        let utility = explain(&arguments);
        assert_eq!((&utility["name"], &utility["via"]), (&"nc".into(), &"identity".into()), "{arguments:?}");
    }
    // It waits for a line that never comes.
    let mut child = Command::new(&copy)
        .args(["-l", "-p", "0"])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let pid = child.id().to_string();
    let utility = explain(&["--pid".as_ref(), pid.as_ref()]);
    let _ = child.kill();
    child.wait().unwrap();
    assert_eq!((&utility["name"], &utility["via"]), (&"nc".into(), &"identity".into()));
}
