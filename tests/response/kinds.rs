//! Every way to execute a program, denied.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;

use super::*;
use crate::support::{assert_certain, installed};

/// Runs what must be denied, and looks at its alert.
fn denied(daemon: &Daemon<'_>, command: &mut Command, written: &Written) -> Value {
    let mut child = command.stdin(Stdio::null()).stdout(written.output()).spawn().unwrap();
    let pid = child.id();
    let status = child.wait().unwrap();
    let alert = daemon.wait_for(|alert| alert["process"]["pid"] == pid);
    assert!(killed(status), "{status}: {alert:#}");
    assert_eq!(response(&alert, "outcome"), "prevented", "{alert:#}");
    assert_certain(&alert);
    assert!(["exact", "likely"].contains(&response(&alert, "certainty").as_str().unwrap()), "{alert:#}");
    alert
}

#[test]
fn scripts_applets_loaders_and_setuid_programs_are_denied() {
    let Some(machine) = Machine::alone() else { return };
    let (Some(shell), Some(busybox)) = (installed("sh"), installed("busybox")) else { return };
    let rules = [
        rule("deny"),
        "[[rule]]\nid = \"by-arguments\"\ntitle = \"x\"\nseverity = \"low\"\naction = \"deny\"\n[rule.select]\n\
         it.args = [\"{dir}/bin/target.sh\", \"{dir}/bin/target-echo\"]\n"
            .to_owned(),
        "[[utility]]\nname = \"nc\"\ncategory = \"netcat\"\n[[rule]]\nid = \"by-utility\"\ntitle = \"x\"\nseverity = \"low\"\n\
         action = \"deny\"\n[rule.select]\nit.\"utility.name\" = \"nc\"\n"
            .to_owned(),
    ];
    let setup = responding(&machine, ENFORCE, &rules.concat());
    let Some(target) = mark(&setup.folder(), "target") else { return };
    // Made before, because what makes them has their names in its arguments.
    let interpreter = format!("#!{}\necho ran\n", shell.display());
    let script = program::script(&setup.folder().join("bin/target.sh"), &interpreter);
    let copy = setup.folder().join("bin/target-echo");
    program::copy(&installed("echo").unwrap(), &copy);
    let daemon = setup.start();
    let written = Written::new(daemon.folder(), "written");

    let alert = denied(&daemon, &mut Command::new(&script), &written);
    assert_eq!(response(&alert, "rule"), "by-arguments");

    let alert = denied(&daemon, Command::new(&busybox).args(["nc", "-h"]), &written);
    assert_eq!(response(&alert, "rule"), "by-utility");

    // A copy of a program that is linked dynamically, run by its loader.
    let text = fs::read(&copy).unwrap();
    let start = text.windows(5).position(|bytes| bytes == b"/lib6" || bytes == b"/lib/").unwrap();
    let end = start + text[start..].iter().position(|&byte| byte == 0).unwrap();
    let loader = String::from_utf8(text[start..end].to_vec()).unwrap();
    let alert = denied(&daemon, Command::new(loader).arg(&copy).arg("ran"), &written);
    assert_eq!(response(&alert, "rule"), "by-arguments");

    let setuid = mark(daemon.folder(), "target-setuid").unwrap();
    fs::set_permissions(&setuid, fs::Permissions::from_mode(0o4755)).unwrap();
    let alert = denied(&daemon, Command::new(&setuid).uid(65_534).gid(65_534), &written);
    assert_eq!(alert["user"]["effective"]["id"], "0");
    assert_eq!(alert["user"]["id"], "65534");

    // New namespaces, as a container has them.
    let Some(unshare) = installed("unshare") else { return };
    let mut inside = Command::new(unshare);
    inside.args(["--mount", "--pid", "--fork", "--kill-child", "--"]).arg(&target);
    let status = inside.stdin(Stdio::null()).stdout(written.output()).stderr(Stdio::null()).status().unwrap();
    assert!(!status.success());
    let alert = daemon.wait_for(|alert| {
        alert["execwatch"]["namespaces"]["not_the_hosts"]
            .as_array()
            .is_some_and(|kinds| kinds.contains(&"pid".into()))
    });
    assert_eq!(response(&alert, "outcome"), "prevented");

    assert_eq!(written.bytes(), 0);
    daemon.stop();
}

#[test]
fn a_program_in_memory_is_denied() {
    let Some(machine) = Machine::alone() else { return };
    let setup = responding(&machine, ENFORCE, &rule_on("deny", "\"exe.memfd\" = true"));
    if mark(&setup.folder(), "target").is_none() {
        return;
    }
    let daemon = setup.start();
    let written = Written::new(daemon.folder(), "written");
    let memory = execwatch::sys::fs::anonymous_file(c"hidden").unwrap();
    let mut file = File::from(memory);
    std::io::Write::write_all(&mut file, &program::mark_elf().unwrap()).unwrap();
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
    denied(&daemon, &mut Command::new(path), &written);
    assert_eq!(written.bytes(), 0);
    daemon.stop();
}

#[test]
fn ancestors_users_and_groups_are_known_before_the_first_instruction() {
    let Some(machine) = Machine::alone() else { return };
    let (Some(shell), Some(setsid)) = (installed("sh"), installed("setsid")) else { return };
    let select = "\"exe|startswith\" = \"{dir}/bin/target\"\n\"ancestor.exe|endswith\" = \"/bin/above\"\n\
                  \"ancestor.user\" = \"root\"\n\"user\" = \"root\"\n\"session-leader.pid|exists\" = true";
    let daemon = responding(&machine, ENFORCE, &rule_on("deny", select)).start();
    let Some(target) = mark(daemon.folder(), "target") else { return };
    let written = Written::new(daemon.folder(), "written");
    assert!(run(&target, &written).success(), "nobody above it is called so");
    assert_eq!(written.bytes(), 1);
    let above = daemon.folder().join("bin/above");
    program::copy(&shell.canonicalize().unwrap(), &above);
    // The `:` after it keeps the shell from becoming the program.
    let script = format!("{shell} -c '{target}; :'; :", shell = shell.display(), target = target.display());
    // In a session of its own: the leader of this one may have ended.
    Command::new(setsid)
        .args(["--wait", above.to_str().unwrap(), "-c", &script])
        .stdout(written.output())
        .status()
        .unwrap();
    let alert = daemon.wait_for(|alert| response(alert, "outcome").is_string());
    assert_eq!(response(&alert, "outcome"), "prevented", "{alert:#}");
    assert_eq!(written.bytes(), 1);
    daemon.stop();
}

#[test]
fn an_exception_keeps_a_program_from_being_denied() {
    let Some(machine) = Machine::alone() else { return };
    let Some(shell) = installed("sh") else { return };
    let exception = "[[exception]]\nid = \"above\"\nreason = \"A test\"\nrules = [\"test-deny\"]\n\
                     [exception.match]\n\"parent.exe|endswith\" = \"/bin/above\"\n";
    let daemon = responding(&machine, ENFORCE, &(rule("deny") + exception)).start();
    let Some(target) = mark(daemon.folder(), "target") else { return };
    let written = Written::new(daemon.folder(), "written");
    let above = daemon.folder().join("bin/above");
    program::copy(&shell.canonicalize().unwrap(), &above);
    let script = format!("{}; :", target.display());
    for time in 1..=20 {
        Command::new(&above).args(["-c", &script]).stdout(written.output()).status().unwrap();
        assert_eq!(written.bytes(), time);
    }
    assert!(killed(run(&target, &written)));
    assert_eq!(written.bytes(), 20);
    let ended = daemon.stop();
    assert_eq!(ended.alerts(|_| true).len(), 1);
    assert_eq!(ended.totals.get("silenced"), 20);
}
