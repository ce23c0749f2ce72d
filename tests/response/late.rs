//! What cannot be done before the first instruction, and what the worker does: the record says which.

use std::process::Child;

use super::*;
use crate::support::{installed, wait_until};

/// Ends a process, also where a test failed, and thaws what froze it.
struct Staying(Child);

impl Drop for Staying {
    fn drop(&mut self) {
        // It has been killed mostly.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn staying(daemon: &Daemon<'_>, name: &str) -> (PathBuf, Staying) {
    let target = daemon.folder().join("bin").join(name);
    program::copy(&installed("sleep").unwrap(), &target);
    let child = Command::new(&target).arg("1000").spawn().unwrap();
    (target, Staying(child))
}

#[test]
fn in_best_effort_a_denied_program_is_killed_late_and_the_record_says_so() {
    let Some(machine) = Machine::alone() else { return };
    let daemon = responding(&machine, ENFORCE, &rule("deny")).argument("--best-effort").start();
    let (_, mut target) = staying(&daemon, "target");
    assert!(killed(target.0.wait().unwrap()));
    let alert = daemon.wait_for(|alert| alert["process"]["pid"] == target.0.id());
    assert_eq!(response(&alert, "outcome"), "killed");
    assert_eq!(response(&alert, "certainty"), "late");
    assert!(response(&alert, "after_us").as_u64().unwrap() > 0);
    assert_eq!(alert["execwatch"]["capture"]["certainty"], "best-effort");

    // A program that ends at once: whatever came of it, nobody claims that it was prevented, and its end agrees.
    let Some(brief) = mark(daemon.folder(), "target-brief") else { return };
    let written = Written::new(daemon.folder(), "written");
    let died = (0..200).filter(|_| killed(run(&brief, &written))).count();
    let (said, done) = execwatch(&daemon, &["check"]);
    assert!(done && said.contains("responses: enforced"), "{said}");
    let ended = daemon.stop();
    let of_brief = ended.alerts(|alert| alert["process"]["name"] == "target-brief");
    let outcomes =
        |outcome: &str| of_brief.iter().filter(|alert| response(alert, "outcome") == outcome).count();
    assert_eq!(outcomes("prevented"), 0);
    assert!(outcomes("killed") >= died, "{died} died, {} are said to", outcomes("killed"));
}

#[test]
fn what_only_the_worker_knows_is_decided_late() {
    let Some(machine) = Machine::alone() else { return };
    let select = "\"exe|startswith\" = \"{dir}/bin/target\"\n\"parent.argv0|exists\" = true";
    let daemon = responding(&machine, ENFORCE, &rule_on("deny", select)).start();
    let (_, mut target) = staying(&daemon, "target");
    assert!(killed(target.0.wait().unwrap()));
    let alert = daemon.wait_for(|alert| alert["process"]["pid"] == target.0.id());
    assert_eq!(response(&alert, "outcome"), "killed");
    assert!(response(&alert, "after_us").as_u64().unwrap() > 0);
    let folder = daemon.folder().join("rules");
    let (said, done) = execwatch(&daemon, &["check", "--rules", folder.to_str().unwrap()]);
    assert!(done && said.contains("`parent.argv0` cannot be known while it is held"), "{said}");
    daemon.stop();
}

#[test]
fn a_tree_is_killed_with_those_whose_parents_ended() {
    let Some(machine) = Machine::alone() else { return };
    let (Some(shell), Some(sleep)) = (installed("sh"), installed("sleep")) else { return };
    let daemon = responding(&machine, ENFORCE, &rule("kill-tree")).start();
    let top = daemon.folder().join("bin/top");
    let target = daemon.folder().join("bin/target");
    program::copy(&shell.canonicalize().unwrap(), &top);
    program::copy(&shell.canonicalize().unwrap(), &target);
    let pids = daemon.folder().join("pids");
    // The shell that the rule matches exists already when it executes itself by the name of the target: so it has a
    // child, and one in a session of its own whose parent has ended.
    let sleep = sleep.display();
    let script = format!(
        "{sleep} 1000 & echo $! >> {pids}; (setsid sh -c 'echo $$ >> {pids}; exec {sleep} 1000' &); \
         while [ $(wc -l < {pids}) -lt 2 ]; do :; done; exec {target} -c '{sleep} 1000 & wait'",
        pids = pids.display(),
        target = target.display()
    );
    fs::write(&pids, "").unwrap();
    let mut child = Staying(Command::new(&top).args(["-c", &script]).spawn().unwrap());
    assert!(killed(child.0.wait().unwrap()));
    let alert = daemon.wait_for(|alert| alert["process"]["pid"] == child.0.id());
    assert_eq!(response(&alert, "outcome"), "tree-killed", "{alert:#}");
    assert!(response(&alert, "processes").as_u64().unwrap() >= 3, "{alert:#}");
    let pids: Vec<u32> =
        fs::read_to_string(&pids).unwrap().lines().map(|line| line.parse().unwrap()).collect();
    for pid in pids {
        wait_until("its descendants have ended", || ended(pid).then_some(()));
    }
    daemon.stop();
}

/// A control group that is taken away in the end.
struct Group(PathBuf);

impl Drop for Group {
    fn drop(&mut self) {
        // What froze it is let go, so that what is in it can end.
        let _ = fs::write(self.0.join("cgroup.freeze"), "0");
        let _ = fs::write(self.0.join("freezer.state"), "THAWED");
        let root = self.0.parent().unwrap();
        for pid in fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default().lines() {
            let _ = fs::write(root.join("cgroup.procs"), pid);
        }
        let _ = fs::remove_dir(&self.0);
    }
}

/// Where a kind of control groups is mounted.
fn mounted(kind: &str, option: &str) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    mounts.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        let fits = fields[2] == kind && fields[3].split(',').any(|own| option.is_empty() || own == option);
        fits.then(|| PathBuf::from(fields[1]))
    })
}

#[test]
fn control_groups_of_both_versions_are_frozen_and_thawed() {
    let Some(machine) = Machine::alone() else { return };
    let Some(shell) = installed("sh") else { return };
    for (kind, option, frozen_file, frozen) in
        [("cgroup2", "", "cgroup.events", "frozen 1"), ("cgroup", "freezer", "freezer.state", "FROZEN")]
    {
        let Some(root) = mounted(kind, option) else {
            skip(&format!("leaves {kind} {option} out, which is not mounted here"));
            continue;
        };
        let group = Group(root.join(format!("execwatch-test-{}.scope", std::process::id())));
        fs::create_dir(&group.0).unwrap();
        let daemon = responding(&machine, ENFORCE, &rule("freeze")).start();
        let target = daemon.folder().join("bin/target");
        program::copy(&installed("sleep").unwrap(), &target);
        let script =
            format!("echo $$ > {}/cgroup.procs && exec {} 1000", group.0.display(), target.display());
        let child = Staying(Command::new(&shell).args(["-c", &script]).spawn().unwrap());
        let alert = daemon.wait_for(|alert| alert["process"]["pid"] == child.0.id());
        assert_eq!(response(&alert, "outcome"), "frozen", "{alert:#}");
        let is_frozen = || fs::read_to_string(group.0.join(frozen_file)).unwrap().contains(frozen);
        wait_until("the group is frozen", || is_frozen().then_some(()));
        let (said, _) = execwatch(&daemon, &["held"]);
        assert!(said.contains(group.0.to_str().unwrap()), "{said}");
        let id = alert["event"]["id"].as_str().unwrap();
        let (said, done) = execwatch(&daemon, &["release", id]);
        assert!(done, "{said}");
        wait_until("the group is thawed", || (!is_frozen()).then_some(()));
        daemon.stop();
    }
}

#[test]
fn a_group_with_somebody_in_it_who_is_kept_is_not_frozen() {
    let Some(machine) = Machine::alone() else { return };
    let Some(shell) = installed("sh") else { return };
    let Some(root) = mounted("cgroup2", "").or_else(|| mounted("cgroup", "freezer")) else {
        return skip("needs control groups that can be frozen");
    };
    let group = Group(root.join(format!("execwatch-test-kept-{}.scope", std::process::id())));
    fs::create_dir(&group.0).unwrap();
    let lines = format!("{ENFORCE}\nprotected = [\"{{dir}}/bin/kept\"]");
    let daemon = responding(&machine, &lines, &rule("freeze")).start();
    let start = |name: &str| {
        let file = daemon.folder().join("bin").join(name);
        program::copy(&installed("sleep").unwrap(), &file);
        let script = format!("echo $$ > {}/cgroup.procs && exec {} 1000", group.0.display(), file.display());
        let child = Staying(Command::new(&shell).args(["-c", &script]).spawn().unwrap());
        let link = format!("/proc/{}/exe", child.0.id());
        wait_until("it runs", || (fs::read_link(&link).ok()? == file).then_some(()));
        child
    };
    let _kept = start("kept");
    let target = start("target");
    let alert = daemon.wait_for(|alert| alert["process"]["pid"] == target.0.id());
    assert_eq!(response(&alert, "outcome"), "refused", "{alert:#}");
    assert_eq!(response(&alert, "kept_by"), "protected");
    let state = fs::read_to_string(group.0.join("cgroup.freeze"))
        .or_else(|_| fs::read_to_string(group.0.join("freezer.state")));
    assert!(["0", "THAWED"].contains(&state.unwrap().trim()));
    daemon.stop();
}

#[test]
fn what_runs_in_no_unit_is_not_frozen() {
    let Some(machine) = Machine::alone() else { return };
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    if own.contains(".service") || own.contains(".scope") {
        skip("runs in a unit, whose other processes it would freeze");
        return;
    }
    let daemon = responding(&machine, ENFORCE, &rule("freeze")).start();
    let (_, target) = staying(&daemon, "target");
    let alert = daemon.wait_for(|alert| alert["process"]["pid"] == target.0.id());
    assert_eq!(response(&alert, "outcome"), "refused");
    assert_eq!(response(&alert, "kept_by"), "no-unit");
    daemon.stop();
}

#[test]
fn what_runs_already_at_the_start_is_left_alone() {
    let Some(machine) = Machine::alone() else { return };
    let setup = machine.daemon().rules(&rule("deny")).config(&format!(
        "[rules]\nbuiltin = false\n[response]\n{ENFORCE}\n[output.syslog]\nenabled = false\n[output.file]\n\
         path = \"{{dir}}/alerts.json\"\n[state]\nfolder = \"{{dir}}/state\"\nruntime-folder = \"{{dir}}/run\"\n"
    ));
    let target = setup.folder().join("bin/target");
    program::copy(&installed("sleep").unwrap(), &target);
    let mut child = Staying(Command::new(&target).arg("1000").spawn().unwrap());
    let daemon = setup.start();
    let alert = daemon.wait_for(|alert| alert["process"]["pid"] == child.0.id());
    assert_eq!(response(&alert, "kept_by"), "already-running", "{alert:#}");
    assert!(child.0.try_wait().unwrap().is_none());
    daemon.stop();
}
