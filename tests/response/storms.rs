//! Denied programs by the thousand, and others beside them.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;
use crate::support::{say, use_cpu, wait_until};

/// The variable that asks for the whole storms, of which the ordinary run takes a tenth.
const FULL: &str = "EXECWATCH_TESTS_FULL_STORM";

fn each_storm() -> usize {
    if std::env::var_os(FULL).is_some() { 20_000 } else { 2000 }
}

/// How many of so many denied programs another CPU may take over. More than of others: the listeners take so much of the CPU
/// then that the scheduler moves what runs there to an idle one, of which it asks the CPU's stopper thread, which comes
/// before any listener (active balancing; docs/capture.md).
fn few(programs: usize) -> usize {
    2 * support::storm::may_be_gone(programs)
}

#[test]
fn a_storm_of_denied_programs_runs_not_one_instruction() {
    let Some(machine) = Machine::alone() else { return };
    machine.on_every_cpu();
    for workers in [1, 2, 4] {
        let setup = responding(&machine, ENFORCE, &rule("deny"));
        let Some(target) = mark(&setup.folder(), "target") else { return };
        let daemon = setup.start();
        let written = Written::new(daemon.folder(), "written");
        let count = each_storm();
        let began = AtomicUsize::new(0);
        let died = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| {
                    while began.fetch_add(1, Ordering::Relaxed) < count {
                        died.fetch_add(killed(run(&target, &written)).into(), Ordering::Relaxed);
                    }
                });
            }
        });
        let bytes = written.bytes();
        let ended = daemon.stop();
        let totals = &ended.totals;
        say(&format!(
            "{workers} workers: {} of {count} killed, {} bytes written; {} exact, {} likely, {} recorded, {} not",
            died.load(Ordering::Relaxed),
            bytes,
            totals.get("exact"),
            totals.get("likely"),
            totals.get("prevented"),
            totals.get("unrecorded"),
        ));
        let died = died.into_inner();
        let told =
            ["prevented", "unrecorded", "contained", "missed", "gone"].map(|name| totals.get(name) as usize);
        assert!(told.iter().sum::<usize>() >= count, "{}", ended.stderr);
        let away = count - (told[0] + told[1]).min(count);
        assert!(died + away >= count, "{}", ended.stderr);
        // One that another CPU took over was killed all the same, but may have written by then, and is told as likely.
        let certain = ended.alerts(|alert| response(alert, "certainty") == "exact").len();
        assert!(bytes as usize <= count - certain, "{bytes} bytes, {certain} certain: {}", ended.stderr);
        assert!(away.max(bytes as usize) <= few(count), "{}", ended.stderr);
        assert_eq!(totals.get("refused"), 0);
    }
}

#[test]
fn other_programs_beside_denied_ones_are_not_disturbed() {
    let Some(machine) = Machine::alone() else { return };
    let setup = responding(&machine, ENFORCE, &rule("deny"));
    let Some(target) = mark(&setup.folder(), "target") else { return };
    let innocent = mark(&setup.folder(), "innocent").unwrap();
    let daemon = setup.start();
    let (written, proper) =
        (Written::new(daemon.folder(), "written"), Written::new(daemon.folder(), "proper"));
    let count = each_storm();
    let over = AtomicBool::new(false);
    let mut denied = 0;
    let mut completed = 0;
    std::thread::scope(|scope| {
        let others = scope.spawn(|| {
            use_cpu(1);
            let mut denied = 0;
            while !over.load(Ordering::Relaxed) {
                assert!(killed(run(&target, &written)));
                denied += 1;
            }
            denied
        });
        use_cpu(0);
        completed = (0..count).filter(|_| run(&innocent, &proper).success()).count();
        over.store(true, Ordering::Relaxed);
        denied = others.join().unwrap();
    });
    say(&format!("{completed} of {count} completed beside {denied} denied"));
    assert_eq!((completed, proper.bytes()), (count, count as u64));
    assert!(denied > 0 && written.bytes() == 0);
    daemon.stop();
}

#[test]
fn disarmed_under_load_nothing_is_denied_and_armed_again_everything_is() {
    let Some(machine) = Machine::alone() else { return };
    let setup = responding(&machine, ENFORCE, &rule("deny"));
    let Some(target) = mark(&setup.folder(), "target") else { return };
    let daemon = setup.start();
    let written = Written::new(daemon.folder(), "written");
    // Each thread says how many it ran while the switch stood as it stands; what runs while it is thrown counts for
    // nothing.
    let disarmed = AtomicBool::new(false);
    let changing = AtomicBool::new(false);
    let over = AtomicBool::new(false);
    let (ran, died) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for worker in 0..2 {
            let (ran, died, disarmed, changing) = (&ran, &died, &disarmed, &changing);
            let (over, target, written) = (&over, &target, &written);
            scope.spawn(move || {
                use_cpu(worker);
                while !over.load(Ordering::SeqCst) {
                    let before = (changing.load(Ordering::SeqCst), disarmed.load(Ordering::SeqCst));
                    let status = run(target, written);
                    let after = (changing.load(Ordering::SeqCst), disarmed.load(Ordering::SeqCst));
                    if before != after || before.0 {
                        continue;
                    }
                    if before.1 {
                        assert!(status.success(), "disarmed: {status}");
                        ran.fetch_add(1, Ordering::SeqCst);
                    } else {
                        assert!(killed(status), "armed: {status}");
                        died.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
        let change = |command: &str, to: bool| {
            changing.store(true, Ordering::SeqCst);
            let (said, done) = execwatch(&daemon, &[command]);
            assert!(done, "{said}");
            disarmed.store(to, Ordering::SeqCst);
            changing.store(false, Ordering::SeqCst);
        };
        let more = |counter: &AtomicUsize| {
            let before = counter.load(Ordering::SeqCst);
            wait_until("a hundred more programs", || {
                (counter.load(Ordering::SeqCst) >= before + 100).then_some(())
            });
        };
        more(&died);
        change("disarm", true);
        more(&ran);
        change("arm", false);
        more(&died);
        over.store(true, Ordering::SeqCst);
    });
    daemon.wait_for_record("disarming", |record| {
        record["event"]["action"] == "response" && record["message"].as_str().unwrap().contains("disarmed")
    });
    daemon.wait_for_record("arming", |record| {
        record["event"]["action"] == "response" && record["message"].as_str().unwrap().contains("armed again")
    });
    let refused = daemon.wait_for(|alert| response(alert, "outcome") == "refused");
    assert_eq!(response(&refused, "kept_by"), "disarmed");
    daemon.stop();
}
