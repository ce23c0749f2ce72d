use super::*;

fn entry(pid: u32, start_ticks: u64) -> Entry {
    let text = format!(
        r#"{{"id":"a","pid":{pid},"start_ticks":{start_ticks},"since_s":0,"until_s":1,"rule":"r","title":"t",
        "severity":"high","user":"u","exe":"/x","command":"x","tty":"none","ancestors":[]}}"#
    );
    serde_json::from_str(&text).unwrap()
}

#[test]
fn what_cannot_be_released_is_not_said_to_be_and_stays_listed() {
    let folder = tempfile::tempdir().unwrap();
    let proc = ProcRoot::open(Path::new("/proc")).unwrap();
    let (mut held, found) = Held::open(folder.path(), &proc);
    assert_eq!(found, 0);
    // A frozen group whose switch can be read but not turned: the folder has a file that nobody may write to, not
    // even root, because it is a link to one of the kernel's.
    let group = folder.path().join("group");
    fs::create_dir(&group).unwrap();
    std::os::unix::fs::symlink("/proc/self/stat", group.join("cgroup.freeze")).unwrap();
    let frozen = Entry { group: Some(group), until_s: None, ..entry(1, 1) };
    assert!(held.add(frozen, Fate::Kill, &proc).is_none());
    let refused = held.order("a", Order::Release, &proc).unwrap_err();
    assert!(refused.contains("could not be released: "), "{refused}");
    assert_eq!(held.entries().len(), 1);
}

#[test]
fn a_group_with_more_members_than_are_looked_at_is_not_said_to_be_killed() {
    let proc = ProcRoot::open(Path::new("/proc")).unwrap();
    let too_many = Err(io::Error::other("too many"));
    assert!(matches!(kill_members(too_many, &proc), Err(Failure::Refused(_))));
    assert!(kill_members(Ok(Vec::new()), &proc).is_ok());
}

/// A process that waits in the kernel for one of its own which shares its memory, as after vfork(2), until its
/// standard input ends.
fn waiting_in_the_kernel() -> std::process::Child {
    const CLONE_VFORK: u32 = 0x4000;
    let script = format!(
        "$pid = syscall({}, {CLONE_VFORK} | 17, 0, 0, 0, 0); exit 0 if $pid; <STDIN>; POSIX::_exit(0)",
        libc::SYS_clone
    );
    let perl = std::process::Command::new("perl")
        .args(["-MPOSIX", "-e", &script])
        .stdin(std::process::Stdio::piped())
        .spawn();
    perl.unwrap()
}

#[test]
fn what_will_stop_as_soon_as_it_can_is_held_and_no_more_when_somebody_continues_it() {
    let folder = tempfile::tempdir().unwrap();
    let proc = ProcRoot::open(Path::new("/proc")).unwrap();
    let mut child = waiting_in_the_kernel();
    let pid = child.id();
    let wait_for = |wanted: u8| {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while signal::state(&proc.process(pid).unwrap()).unwrap().0 != wanted {
            assert!(std::time::Instant::now() < deadline, "it does not come to be in state {wanted}");
            std::thread::yield_now();
        }
    };
    wait_for(b'D');
    let (_, start) = signal::state(&proc.process(pid).unwrap()).unwrap();
    let (mut held, _) = Held::open(folder.path(), &proc);
    let send = |signal| Target::find(&proc, pid, start).unwrap().send(&proc, signal).unwrap();
    send(Signal::SIGSTOP);
    let entry = Entry { until_s: None, ..entry(pid, start) };
    assert!(held.add(entry.clone(), Fate::Kill, &proc).is_none());
    assert_eq!(held.tick(Fate::Kill, true, 100, &proc), [""; 0]);
    assert_eq!(held.entries().len(), 1);
    // A daemon that comes after this one knows of it too.
    assert_eq!(Held::open(folder.path(), &proc).1, 1);
    drop(child.stdin.take());
    wait_for(b'T');
    assert_eq!(held.tick(Fate::Kill, true, 100, &proc), [""; 0]);
    // Another stop that somebody sends it now is over with the release.
    send(Signal::SIGSTOP);
    held.order("a", Order::Release, &proc).unwrap();
    assert!(child.wait().unwrap().success());

    let mut child = waiting_in_the_kernel();
    let pid = child.id();
    while signal::state(&proc.process(pid).unwrap()).unwrap().0 != b'D' {
        std::thread::yield_now();
    }
    let (_, start) = signal::state(&proc.process(pid).unwrap()).unwrap();
    for signal in [Signal::SIGSTOP, Signal::SIGCONT] {
        Target::find(&proc, pid, start).unwrap().send(&proc, signal).unwrap();
    }
    assert!(held.add(Entry { pid, start_ticks: start, ..entry }, Fate::Kill, &proc).is_none());
    let said = held.tick(Fate::Kill, true, 100, &proc);
    assert!(said[0].contains("was continued by somebody else"), "{said:?}");
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn time_stands_still_while_nobody_may_be_killed() {
    let folder = tempfile::tempdir().unwrap();
    let proc = ProcRoot::open(Path::new("/proc")).unwrap();
    let mut children = [1, 2].map(|_| std::process::Command::new("sleep").arg("100").spawn().unwrap());
    let (mut held, _) = Held::open(folder.path(), &proc);
    for child in &children {
        let pid = child.id();
        let (_, start) = signal::state(&proc.process(pid).unwrap()).unwrap();
        Target::find(&proc, pid, start).unwrap().send(&proc, Signal::SIGSTOP).unwrap();
        let entry = Entry { id: pid.to_string(), until_s: Some(110), ..entry(pid, start) };
        assert!(held.add(entry, Fate::Kill, &proc).is_none());
    }
    let quiet = |held: &mut Held, may_kill, now_s| {
        assert_eq!(held.tick(Fate::Kill, may_kill, now_s, &proc), [""; 0], "{now_s}");
    };
    quiet(&mut held, true, 100);
    quiet(&mut held, false, 101);
    // A daemon that comes after this one knows since when.
    let (mut held, found) = Held::open(folder.path(), &proc);
    assert_eq!(found, 2);
    quiet(&mut held, false, 1000);
    // An administrator may still decide.
    held.order(&children[0].id().to_string(), Order::Kill, &proc).unwrap();
    assert!(!children[0].wait().unwrap().success());
    // The nine seconds that were left are left.
    quiet(&mut held, true, 1001);
    quiet(&mut held, true, 1009);
    let said = held.tick(Fate::Kill, true, 1010, &proc);
    assert!(said[0].contains("was killed: nobody decided"), "{said:?}");
    assert!(!children[1].wait().unwrap().success());
}

#[test]
fn those_who_would_be_released_are_released_in_time_in_any_case() {
    let folder = tempfile::tempdir().unwrap();
    let proc = ProcRoot::open(Path::new("/proc")).unwrap();
    let mut child = std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
    let pid = child.id();
    let (_, start) = signal::state(&proc.process(pid).unwrap()).unwrap();
    Target::find(&proc, pid, start).unwrap().send(&proc, Signal::SIGSTOP).unwrap();
    let (mut held, _) = Held::open(folder.path(), &proc);
    assert!(held.add(Entry { until_s: Some(110), ..entry(pid, start) }, Fate::Release, &proc).is_none());
    let said = held.tick(Fate::Release, false, 110, &proc);
    assert!(said[0].contains("was released: nobody decided"), "{said:?}");
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn its_time_ends_what_is_stopped_and_what_has_gone_is_said_to_have_ended() {
    let folder = tempfile::tempdir().unwrap();
    let proc = ProcRoot::open(Path::new("/proc")).unwrap();
    let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
    let pid = child.id();
    let (_, start) = signal::state(&proc.process(pid).unwrap()).unwrap();
    let (mut held, _) = Held::open(folder.path(), &proc);
    assert!(held.add(entry(pid, start), Fate::Kill, &proc).is_none());
    assert!(held.add(entry(pid, start + 1), Fate::Kill, &proc).is_none());
    // Before a moment has passed since, it may still be on its way to the stop.
    let said = held.tick(Fate::Kill, true, 1, &proc);
    assert!(said[0].contains("was killed: nobody decided"), "{said:?}");
    assert!(said[1].contains("ended while it was held"), "{said:?}");
    assert!(held.entries().is_empty());
    assert!(!child.wait().unwrap().success());
}
