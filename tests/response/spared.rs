//! What guard rails keep within a tree, and of a process that is something else by the time it is acted on.

use std::io::Write;
use std::process::{Child, ChildStdin};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::rails::early_in_a_minute;
use super::*;
use crate::support::stopped::Stopped;
use crate::support::{installed, wait_until};

/// Processes that are ended in the end.
#[derive(Default)]
struct Ending(Vec<u32>, Vec<Child>);

impl Drop for Ending {
    fn drop(&mut self) {
        for &pid in &self.0 {
            // Most have ended.
            let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
        }
        for child in &mut self.1 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Processes that execute this file, by their links.
fn processes_of(exe: &Path) -> Vec<u32> {
    let folders = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let entry = entry.ok()?;
        let pid = entry.file_name().to_str()?.parse().ok()?;
        (fs::read_link(entry.path().join("exe")).ok()? == exe).then_some(pid)
    });
    folders.collect()
}

fn one_process_of(exe: &Path) -> u32 {
    wait_until("the program runs", || processes_of(exe).first().copied())
}

/// A shell of this name that starts what the script says, and executes itself as the target when its input ends.
fn tree(daemon: &Daemon<'_>, script: &str) -> (Child, ChildStdin) {
    let shell = installed("sh").unwrap().canonicalize().unwrap();
    let (top, target) = (daemon.folder().join("bin/top"), daemon.folder().join("bin/target"));
    program::copy(&shell, &top);
    program::copy(&shell, &target);
    let script = format!("{script}\nread line; exec {} -c 'read line'", target.display());
    let mut top =
        Command::new(&top).args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let input = top.stdin.take().unwrap();
    (top, input)
}

#[test]
fn each_of_a_tree_is_asked_about_by_itself() {
    let Some(machine) = Machine::alone() else { return };
    if [installed("unshare"), installed("dpkg")].contains(&None) {
        return;
    }
    let lines = format!("{ENFORCE}\nprotected = [\"{{dir}}/bin/kept*\", \"/usr/bin/dpkg*\"]");
    let daemon = responding(&machine, &lines, &rule("kill-tree")).start();
    let sleep = installed("sleep").unwrap();
    let program = |name: &str| {
        let file = daemon.folder().join("bin").join(name);
        program::copy(&sleep, &file);
        file
    };
    let [kept, inside, script, other] =
        [program("kept"), program("kept-inside"), program("script"), program("other")];
    // Standard input is the tree's, which decides when it goes on.
    let start = format!(
        "{kept} 1000 < /dev/null &\n\
         {other} 1000 < /dev/null &\n\
         unshare --pid --fork -- {inside} 1000 < /dev/null &\n\
         unshare --mount -- sh -c 'mount --bind {shell} /usr/bin/dpkg && exec /usr/bin/dpkg -c \"{script} 1000; :\"' \
         < /dev/null &",
        kept = kept.display(),
        other = other.display(),
        inside = inside.display(),
        script = script.display(),
        shell = installed("sh").unwrap().canonicalize().unwrap().display(),
    );
    let (mut top, mut input) = tree(&daemon, &start);
    let mut ending = Ending::default();
    let pids = [&kept, &inside, &script, &other].map(|exe| one_process_of(exe));
    ending.0.extend(pids);
    let [kept, inside, script, other] = pids;
    let installer: u32 = {
        let stat = fs::read_to_string(format!("/proc/{script}/stat")).unwrap();
        stat.rsplit_once(") ").unwrap().1.split(' ').nth(1).unwrap().parse().unwrap()
    };
    ending.0.push(installer);
    input.write_all(b"\n").unwrap();
    assert!(killed(top.wait().unwrap()));
    let alert = daemon.wait_for(|alert| alert["process"]["pid"] == top.id());
    assert_eq!(response(&alert, "outcome"), "tree-killed", "{alert:#}");
    assert_eq!(response(&alert, "spared"), 3, "{alert:#}");
    assert_eq!(*response(&alert, "spared_by"), serde_json::json!(["package-manager", "protected"]));
    // In a pid namespace of its own a path means what its maker wants.
    for pid in [other, inside] {
        wait_until("who is not kept has ended", || ended(pid).then_some(()));
    }
    for pid in [kept, script, installer] {
        assert!(matches!(state(pid), Some('S' | 'R')), "{pid}: {:?}", state(pid));
    }
    let said = daemon.wait_for_record("who was spared", |record| {
        record["message"].as_str().unwrap().contains("killed a tree but for")
    });
    let said = said["message"].as_str().unwrap();
    for part in [
        format!("pid {kept}: its executable is protected"),
        format!("pid {installer}: its executable is protected"),
        format!("pid {script}: a package manager runs it"),
    ] {
        assert!(said.contains(&part), "{said}");
    }
    daemon.stop();
}

/// A rule that only the worker can decide, on the target.
fn late_rule(action: &str) -> String {
    rule_on(action, "\"exe|startswith\" = \"{dir}/bin/target\"\n\"parent.argv0|exists\" = true")
}

#[test]
fn who_executes_something_else_does_not_get_away_unless_that_is_kept() {
    let Some(machine) = Machine::alone() else { return };
    let shell = installed("sh").unwrap().canonicalize().unwrap();
    for (action, outcome) in [("deny", "killed"), ("kill-tree", "tree-killed"), ("hold", "stopped")] {
        let lines = format!("{ENFORCE}\nprotected = [\"{{dir}}/bin/kept\"]");
        let daemon = responding(&machine, &lines, &late_rule(action)).start();
        let target = daemon.folder().join("bin/target");
        program::copy(&shell, &target);
        let [kept, other] = ["kept", "other"].map(|name| daemon.folder().join("bin").join(name));
        for file in [&kept, &other] {
            program::copy(&installed("sleep").unwrap(), file);
        }
        // The worker decides about what the process is no more.
        let worker = Stopped::named(&daemon, "worker").unwrap();
        let mut ending = Ending::default();
        for file in [&kept, &other] {
            let script = format!("exec {} 1000", file.display());
            ending.1.push(Command::new(&target).args(["-c", &script]).spawn().unwrap());
        }
        let pids = [&kept, &other].map(|exe| one_process_of(exe));
        drop(worker);
        let [of_kept, of_other] = pids.map(|pid| daemon.wait_for(|alert| alert["process"]["pid"] == pid));
        assert_eq!(response(&of_kept, "outcome"), "refused", "{action}: {of_kept:#}");
        assert_eq!(response(&of_kept, "kept_by"), "protected");
        assert_eq!(response(&of_other, "outcome"), outcome, "{of_other:#}");
        let message = format!(
            "pid {}, about which rule `test-{action}` decided as {}, executes {} now",
            pids[1],
            target.display(),
            other.display()
        );
        daemon.wait_for_record("what it had become", |record| record["message"] == message.as_str());
        assert!(matches!(state(pids[0]), Some('S' | 'R')), "{action}: {:?}", state(pids[0]));
        if action == "hold" {
            wait_until("the other one is stopped", || (state(pids[1]) == Some('T')).then_some(()));
        } else {
            assert!(killed(ending.1[1].wait().unwrap()), "{action}");
        }
        daemon.stop();
    }
}

#[test]
fn a_rule_that_may_not_act_leaves_it_to_another() {
    let Some(machine) = Machine::alone() else { return };
    let rules = rule("deny") + &rule("kill-tree");
    let daemon = responding(&machine, "mode = \"enforce\"\nper-minute = 1", &rules).start();
    let target = daemon.folder().join("bin/target");
    program::copy(&installed("sleep").unwrap(), &target);
    early_in_a_minute();
    let mut ending = Ending::default();
    let mut run = || {
        let child = Command::new(&target).arg("1000").spawn().unwrap();
        let alert = daemon.wait_for(|alert| alert["process"]["pid"] == child.id());
        ending.1.push(child);
        let part = |part: &str| response(&alert, part).as_str().unwrap_or_default().to_owned();
        (part("rule"), part("outcome"), part("kept_by"))
    };
    let said = |rule: &str, outcome: &str, kept_by: &str| (rule.into(), outcome.into(), kept_by.into());
    assert_eq!(run(), said("test-deny", "prevented", ""));
    // The listener's rule has had its turn, the worker's has not.
    assert_eq!(run(), said("test-kill-tree", "tree-killed", ""));
    assert_eq!(run(), said("test-kill-tree", "refused", "rate"));
    let children = &mut ending.1;
    assert!(killed(children[0].wait().unwrap()) && killed(children[1].wait().unwrap()));
    assert!(children[2].try_wait().unwrap().is_none());
    daemon.stop();
}
