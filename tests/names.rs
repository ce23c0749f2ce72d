//! By which names network utilities are recognised when they are really started in different ways.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod support;

use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use support::{Daemon, Machine, alert_of, installed, program};

/// Names as the shipped catalogue has them, and rules that tell this test's programs from others on the machine: each
/// is started in the test's folder.
const RULES: &str = r#"
[[utility]]
name = "nc"
aliases = ["netcat", "nc.openbsd", "nc.traditional"]
category = "netcat"

[[utility]]
name = "curl"
category = "web-client"

[[rule]]
id = "utility"
title = "A utility was started by this test"
severity = "low"
[rule.select.utility]
"utility.name|exists" = true
cwd = "{dir}"
"#;

#[track_caller]
fn assert_utility(alert: &Value, name: &str, via: &str) {
    let utility = &alert["execwatch"]["utility"];
    assert_eq!((utility["name"].as_str(), utility["via"].as_str()), (Some(name), Some(via)), "{alert:#}");
}

#[track_caller]
fn assert_exe(alert: &Value, path: &Path) {
    assert_eq!(alert["process"]["executable"], path.canonicalize().unwrap().to_str().unwrap());
}

/// Runs `body` beside a daemon with [`RULES`], if the programs are installed.
fn with(programs: &[&str], body: impl FnOnce(&Daemon<'_>, &[PathBuf])) {
    let Some(machine) = Machine::alone() else { return };
    let Some(paths) = programs.iter().map(|name| installed(name)).collect::<Option<Vec<_>>>() else { return };
    let daemon = machine.daemon().rules(RULES).start();
    body(&daemon, &paths);
    daemon.stop();
}

#[test]
fn the_alternatives_link_leads_to_the_real_file() {
    with(&["nc"], |daemon, paths| {
        let alert = alert_of(daemon, Command::new("nc").arg("-h"));
        assert_utility(&alert, "nc", "exe");
        assert_exe(&alert, &paths[0]);
        assert_eq!(alert["process"]["args"], serde_json::json!(["nc", "-h"]));
        assert_eq!(alert["execwatch"]["comm"], "nc");
    });
}

#[test]
fn the_alternatives_link_may_lead_to_nc_openbsd() {
    with(&["nc", "nc.openbsd"], |daemon, paths| {
        if paths[0].canonicalize().unwrap() != paths[1].canonicalize().unwrap() {
            return support::skip("needs nc to be nc.openbsd (update-alternatives --set nc /bin/nc.openbsd)");
        }
        let alert = alert_of(daemon, Command::new("nc").arg("-h"));
        assert_eq!(alert["process"]["name"], "nc.openbsd");
        assert_utility(&alert, "nc", "exe");
    });
}

#[test]
fn utilities_by_their_own_names() {
    with(&["nc.traditional", "curl"], |daemon, paths| {
        let alert = alert_of(daemon, Command::new("nc.traditional").arg("-h"));
        assert_utility(&alert, "nc", "exe");
        assert_exe(&alert, &paths[0]);
        let alert = alert_of(daemon, Command::new("curl").arg("--version"));
        assert_utility(&alert, "curl", "exe");
        assert_exe(&alert, &paths[1]);
        assert_eq!(alert["execwatch"]["utility"]["category"], "web-client");
    });
}

#[test]
fn applets_of_busybox() {
    with(&["busybox"], |daemon, paths| {
        let by_argument = alert_of(daemon, Command::new("busybox").args(["nc", "--help"]));
        assert_utility(&by_argument, "nc", "applet");
        let link = daemon.folder().join("nc");
        symlink(&paths[0], &link).unwrap();
        let by_link = alert_of(daemon, Command::new("./nc").arg("--help"));
        assert_utility(&by_link, "nc", "applet");
        // A link of any name, but argv[0] says nc, which is what busybox goes by.
        let other = daemon.folder().join("xyz");
        symlink(&paths[0], &other).unwrap();
        let by_argv0 = alert_of(daemon, Command::new("./xyz").arg0("nc").arg("--help"));
        assert_utility(&by_argv0, "nc", "applet");
        assert_eq!(by_argv0["execwatch"]["comm"], "xyz");
        for alert in [by_argument, by_link, by_argv0] {
            assert_exe(&alert, &paths[0]);
        }
    });
}

#[test]
fn a_false_argv0_does_not_hide_the_file() {
    with(&["bash", "nc"], |daemon, paths| {
        let alert = alert_of(daemon, Command::new("bash").args(["-c", "exec -a sshd nc -h"]));
        assert_utility(&alert, "nc", "exe");
        assert_exe(&alert, &paths[1]);
        assert_eq!(alert["process"]["args"], serde_json::json!(["sshd", "-h"]));
    });
}

#[test]
fn another_program_is_known_by_argv0_only() {
    with(&["true"], |daemon, paths| {
        let copy = daemon.folder().join("backup");
        program::copy(&paths[0], &copy);
        let alert = alert_of(daemon, Command::new("./backup").arg0("nc").arg("-h"));
        assert_utility(&alert, "nc", "argv0");
        assert_exe(&alert, &copy);
    });
}

#[test]
fn a_link_of_another_name_does_not_hide_the_file() {
    with(&["nc"], |daemon, paths| {
        symlink(&paths[0], daemon.folder().join("update")).unwrap();
        let alert = alert_of(daemon, Command::new("./update").arg("-h"));
        assert_utility(&alert, "nc", "exe");
        assert_eq!(alert["execwatch"]["comm"], "update");
    });
}

#[test]
fn a_program_started_by_the_dynamic_loader() {
    /// Where the ABIs of the architectures that tests run on place it.
    const LOADERS: [&str; 2] = ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"];
    with(&["nc"], |daemon, paths| {
        let Some(loader) = LOADERS.iter().map(Path::new).find(|loader| loader.exists()) else {
            return support::skip("needs the dynamic loader of glibc");
        };
        let alert = alert_of(daemon, Command::new(loader).arg(&paths[0]).arg("-h"));
        assert_utility(&alert, "nc", "loader");
        assert_exe(&alert, loader);
        let with_options =
            alert_of(daemon, Command::new(loader).args(["--argv0", "sshd"]).arg(&paths[0]).arg("-h"));
        assert_utility(&with_options, "nc", "loader");
    });
}

#[test]
fn scripts_by_their_names() {
    with(&["sh"], |daemon, paths| {
        program::script(&daemon.folder().join("curl"), "#!/bin/sh\nexit 0\n");
        let given_to_sh = alert_of(daemon, Command::new("sh").arg("./curl"));
        assert_utility(&given_to_sh, "curl", "script");
        let by_shebang = alert_of(daemon, &mut Command::new("./curl"));
        assert_utility(&by_shebang, "curl", "script");
        assert_eq!(by_shebang["process"]["args"], serde_json::json!(["/bin/sh", "./curl"]));
        assert_eq!(by_shebang["execwatch"]["comm"], "curl");
        for alert in [given_to_sh, by_shebang] {
            assert_exe(&alert, &paths[0]);
        }
    });
}
