use super::*;
use proptest::prelude::*;

const KEEP: u64 = 1_000_000_000;
const LIMITS: Limits = Limits { processes: 1000, bytes: 1 << 20, keep_ended_ns: KEEP };

fn shown(exe: &str) -> Shown {
    Shown::new(Some(exe.as_bytes()), Some(format!("{exe}\0").as_bytes()), false)
}

fn table() -> Table {
    let mut table = Table::new(LIMITS);
    let process = |pid, ppid, exe: &str| Running {
        pid,
        ppid,
        start_ns: u64::from(pid),
        uids: Some([0, 0]),
        shown: shown(exe),
    };
    table.snapshot(vec![process(10, 1, "sshd"), process(1, 0, "init")], true, 100);
    table
}

/// Pids and executables of the ancestors, the nearest first; `...` stands for those not known.
fn chain(table: &Table, pid: u32, time_ns: u64) -> String {
    let Some(lineage) = table.lineage(pid, time_ns) else { return "none".to_owned() };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut words: Vec<String> = lineage
        .ancestors
        .iter()
        .map(|ancestor| {
            let exe = ancestor.image.as_ref().and_then(|image| image.exe.as_deref());
            format!("{} {} {}", ancestor.pid, exe.map_or("?".into(), text), ancestor.learnt.as_str())
        })
        .collect();
    if !lineage.complete {
        words.push("...".to_owned());
    }
    words.join(", ")
}

#[test]
fn an_orphan_keeps_its_true_origin() {
    let mut table = table();
    table.fork(10, 20, 1000);
    table.exec(20, 1001, shown("sh"));
    table.fork(20, 21, 1002);
    table.fork(21, 22, 1003);
    table.exit(21, 1004, 0);
    table.exit(20, 1005, 0);
    table.exec(22, 1006, shown("nc"));
    assert_eq!(chain(&table, 22, 1006), "21 sh inherited, 20 sh seen, 10 sshd snapshot, 1 init snapshot");
    // Long after the time that ended processes are kept, because a descendant lives.
    table.exit(10, 100 * KEEP, 0);
    table.fork(1, 30, 200 * KEEP);
    assert_eq!(
        chain(&table, 22, 300 * KEEP),
        "21 sh inherited, 20 sh seen, 10 sshd snapshot, 1 init snapshot"
    );
    // With it, all go that only waited for it.
    table.exit(22, 300 * KEEP, 0);
    table.exit(30, 400 * KEEP, 0);
    assert_eq!(table.counts().processes, 2);
}

#[test]
fn an_ancestor_is_shown_as_it_was() {
    let mut table = table();
    table.fork(10, 20, 1000);
    table.exec(20, 1001, shown("sh"));
    table.fork(20, 21, 1002);
    table.set_user(20, 1003, [33, 33]);
    table.exec(20, 1004, shown("something-else"));
    table.exec(21, 1005, shown("nc"));
    assert_eq!(chain(&table, 21, 1005), "20 sh seen, 10 sshd snapshot, 1 init snapshot");
    let lineage = table.lineage(21, 1005).unwrap();
    assert_eq!(lineage.ancestors[0].uids, Some([0, 0]));
    let before = table.lineage(20, 1004).unwrap().earlier;
    assert_eq!(before.iter().map(|image| image.exe.as_deref().unwrap()).collect::<Vec<_>>(), [b"sh"]);
    table.fork(20, 23, 1006);
    assert_eq!(table.lineage(23, 1006).unwrap().ancestors[0].uids, Some([33, 33]));
}

#[test]
fn a_pid_that_is_used_again_joins_no_strangers() {
    let mut table = table();
    table.fork(10, 20, 1000);
    table.exec(20, 1001, shown("first"));
    table.fork(20, 21, 1002);
    table.exit(20, 1003, 0);
    table.fork(1, 20, 2000);
    table.exec(20, 2001, shown("second"));
    table.fork(20, 22, 2002);
    assert_eq!(chain(&table, 21, 3000), "20 first seen, 10 sshd snapshot, 1 init snapshot");
    assert_eq!(chain(&table, 22, 3000), "20 second seen, 1 init snapshot");
    // An end that nobody told.
    table.fork(10, 22, 4000);
    assert_eq!(chain(&table, 22, 3000), "20 second seen, 1 init snapshot");
    assert_eq!(chain(&table, 22, 4000), "10 sshd snapshot, 1 init snapshot");
}

#[test]
fn what_comes_late_finds_its_process() {
    let mut table = table();
    // An exec before its fork, a fork after its exit, an exec of the one that had the pid before.
    table.exec(20, 1001, shown("a"));
    table.fork(10, 20, 1000);
    assert_eq!(chain(&table, 20, 1001), "10 sshd snapshot, 1 init snapshot");
    table.exit(20, 1010, 0);
    table.fork(10, 20, 1020);
    table.exec(20, 1005, shown("b"));
    table.fork(20, 21, 1006);
    assert_eq!(chain(&table, 21, 1006), "20 b seen, 10 sshd snapshot, 1 init snapshot");
    assert_eq!(table.lineage(20, 1020).unwrap().earlier, []);
}

#[test]
fn what_was_lost_is_unknown_and_not_guessed() {
    let mut table = table();
    table.fork(10, 20, 1000);
    table.exec(20, 1001, shown("sh"));
    table.execs_lost(1002, 1003);
    table.fork(20, 21, 1004);
    assert_eq!(chain(&table, 21, 1004), "20 ? unknown, 10 sshd snapshot, 1 init snapshot");
    table.exec(20, 1005, shown("bash"));
    table.fork(20, 22, 1006);
    assert_eq!(chain(&table, 22, 1006), "20 bash seen, 10 sshd snapshot, 1 init snapshot");
    // An ended process may not be taken for the one that has its pid after forks were lost.
    table.exit(22, 1007, 0);
    table.events_lost(1007, 1010);
    table.exec(22, 1011, shown("stranger"));
    assert_eq!(chain(&table, 22, 1011), "...");
    assert_eq!(chain(&table, 99, 1011), "none");
    // The snapshot that follows says who is there and who is not.
    let process = Running { pid: 22, ppid: 1, start_ns: 1008, uids: Some([7, 7]), shown: shown("stranger") };
    let first = Running { pid: 1, ppid: 0, start_ns: 1, uids: Some([0, 0]), shown: shown("init") };
    table.snapshot(vec![first, process], true, 1012);
    assert_eq!(chain(&table, 22, 1012), "1 init snapshot");
}

#[test]
fn who_ended_while_events_were_lost_is_no_maker_since() {
    let mut table = table();
    table.fork(10, 20, 1000);
    table.exec(20, 1001, shown("first"));
    table.events_lost(1005, 1010);
    // Whether 20 is still the same is not known before a snapshot.
    table.fork(20, 21, 1008);
    assert_eq!(chain(&table, 21, 1008), "none");
    let others = [(1, "init"), (10, "sshd")];
    let others = others.map(|(pid, exe)| Running {
        pid,
        ppid: u32::from(pid != 1),
        start_ns: u64::from(pid),
        uids: Some([0, 0]),
        shown: shown(exe),
    });
    table.snapshot(others.to_vec(), true, 1020);
    // It ended at some moment from 1005 on, so what had its pid at 1015 may have been another.
    table.fork(20, 22, 1015);
    assert_eq!(chain(&table, 22, 1015), "20 ? unknown, ...");
    // What it did before is its own, and who was there all the time is known.
    table.fork(20, 23, 1004);
    assert_eq!(chain(&table, 23, 1004), "20 first seen, 10 sshd snapshot, 1 init snapshot");
    table.fork(10, 24, 1021);
    assert_eq!(chain(&table, 24, 1021), "10 sshd snapshot, 1 init snapshot");
}

#[test]
fn an_exec_told_after_the_forks_that_followed_it_counts() {
    let mut table = table();
    table.fork(10, 20, 1000);
    table.fork(20, 21, 1002);
    table.fork(21, 22, 1003);
    assert_eq!(
        chain(&table, 22, 1004),
        "21 sshd inherited, 20 sshd inherited, 10 sshd snapshot, 1 init snapshot"
    );
    table.exec(20, 1001, shown("sh"));
    assert_eq!(chain(&table, 22, 1004), "21 sh inherited, 20 sh seen, 10 sshd snapshot, 1 init snapshot");
}

#[test]
fn what_an_ancestor_was_before_is_told() {
    let mut table = table();
    table.fork(10, 20, 1000);
    table.exec(20, 1001, shown("doas"));
    table.exec(20, 1002, shown("sh"));
    table.fork(20, 21, 1003);
    table.exec(20, 1004, shown("later"));
    let lineage = table.lineage(21, 1005).unwrap();
    let before: Vec<_> =
        lineage.ancestors[0].earlier.iter().map(|image| image.exe.as_deref().unwrap()).collect();
    assert_eq!(before, [b"doas"]);
}

#[test]
fn a_snapshot_larger_than_the_table_joins_no_strangers() {
    let mut table = Table::new(Limits { processes: 10, ..LIMITS });
    let running =
        |pid| Running { pid, ppid: pid - 1, start_ns: u64::from(pid), uids: None, shown: shown("x") };
    table.snapshot((1..100).map(running).collect(), true, 1000);
    for pid in 1..100 {
        if let Some(lineage) = table.lineage(pid, 1000) {
            let expected: Vec<u32> = (1..pid).rev().take(lineage.ancestors.len()).collect();
            let found: Vec<u32> = lineage.ancestors.iter().map(|ancestor| ancestor.pid).collect();
            assert_eq!(found, expected);
        }
    }
    assert_eq!(table.counts().processes, 10);
}

#[test]
fn a_process_made_during_the_snapshot_is_there_once() {
    let mut table = Table::new(LIMITS);
    let tick = 10_000_000;
    table.fork(1, 20, 55 * tick + 777);
    table.exec(20, 55 * tick + 800, shown("cron"));
    let running =
        |pid, ppid, start_ns| Running { pid, ppid, start_ns, uids: Some([0, 0]), shown: shown("x") };
    table.snapshot(vec![running(1, 0, tick), running(20, 1, 55 * tick)], true, 60 * tick);
    assert_eq!(table.counts().processes, 2);
    assert_eq!(table.lineage(20, 60 * tick).unwrap().ancestors.len(), 1);
    // And the other way round.
    table.snapshot(vec![running(1, 0, tick), running(30, 1, 70 * tick)], false, 71 * tick);
    table.fork(1, 30, 70 * tick + 5);
    assert_eq!(table.counts().processes, 3);
}

#[test]
fn bounded_and_counted() {
    let mut table = Table::new(Limits { processes: 50, bytes: 1 << 20, keep_ended_ns: KEEP });
    for pid in 1..=200 {
        table.fork(1, pid + 1, u64::from(pid) * 10);
        if pid % 2 == 0 {
            table.exit(pid + 1, u64::from(pid) * 10 + 1, 0);
        }
    }
    let counts = table.counts();
    assert_eq!(counts.processes, 50);
    assert_eq!(counts.evicted_ended + counts.evicted_living, 150);
    assert!(counts.evicted_ended == 100 || counts.evicted_living > 0);
    let mut table = Table::new(Limits { processes: 1000, bytes: 20_000, keep_ended_ns: KEEP });
    for pid in 1..=500 {
        table.fork(1, pid, u64::from(pid) * 10);
        table.exec(pid, u64::from(pid) * 10 + 1, Shown::new(None, Some(&vec![b'x'; pid as usize]), false));
        assert!(table.counts().bytes <= 21_000);
    }
}

#[test]
fn what_the_snapshot_showed_gives_way_to_the_events_that_led_to_it() {
    let mut table = table();
    table.fork(10, 20, 1000);
    let now = Running { pid: 20, ppid: 10, start_ns: 1000, uids: None, shown: shown("nohup") };
    table.snapshot(vec![now], false, 1010);
    table.exec(20, 1002, shown("setsid"));
    table.exec(20, 1004, shown("nohup"));
    table.exec(20, 1020, shown("nc"));
    let earlier = table.lineage(20, 1020).unwrap().earlier;
    let names: Vec<_> = earlier.iter().map(|image| image.exe.as_deref().unwrap()).collect();
    assert_eq!(names, [&b"nohup"[..], b"setsid"]);
}

#[test]
fn a_long_chain_keeps_the_nearest() {
    let mut table = Table::new(LIMITS);
    for pid in 1..=100 {
        table.fork(pid - 1, pid, u64::from(pid));
    }
    let lineage = table.lineage(100, 1000).unwrap();
    assert_eq!((lineage.ancestors.len(), lineage.complete), (MOST_ANCESTORS, false));
    assert_eq!(lineage.ancestors[0].pid, 99);
}

proptest! {
    /// Whatever comes in whatever order: nothing panics, the bounds hold, and when all is over nothing is left.
    #[test]
    fn any_events(events in proptest::collection::vec((0u8..7, 1u32..12, 1u32..12, 0u64..3000), 0..300)) {
        let limits = Limits { processes: 8, bytes: 1 << 16, keep_ended_ns: 500 };
        let mut table = Table::new(limits);
        for (kind, one, other, time) in events {
            match kind {
                0 | 1 => table.fork(one, other, time),
                2 => drop(table.exec(one, time, shown(&"x".repeat(other as usize)))),
                3 => table.exit(one, time, 0),
                4 => table.set_user(one, time, [other, other]),
                5 => table.execs_lost(time, time + 10),
                _ => table.events_lost(time, time + 10),
            }
            prop_assert!(table.counts().processes <= limits.processes);
            if let Some(lineage) = table.lineage(one, time) {
                prop_assert!(lineage.ancestors.len() <= MOST_ANCESTORS);
            }
        }
        table.snapshot(Vec::new(), true, 10_000);
        table.snapshot(Vec::new(), true, 20_000);
        prop_assert_eq!((table.counts().processes, table.counts().bytes), (0, 0));
    }
}
