//! Storms of programs that use every CPU: what may be missing of them.

use std::collections::HashSet;
use std::path::Path;

use serde_json::json;

use super::{Ended, assert_certain};

/// How many of so many programs may be gone; see [`Machine::on_every_cpu`](super::Machine::on_every_cpu).
pub(crate) fn may_be_gone(programs: usize) -> usize {
    programs.div_ceil(200)
}

/// What is missing of so many programs must be counted as gone, and be no more than may be.
#[track_caller]
pub(crate) fn assert_gone(ended: &Ended, missing: usize, programs: usize) {
    let gone = ended.totals.get("gone") as usize;
    assert!(
        missing <= gone.min(may_be_gone(programs)),
        "{missing} of {programs} are missing, {gone} gone: {}",
        ended.stderr
    );
}

/// How many programs are missing that were executed by workers, `executed` by each, with the worker's number and their own
/// as arguments. The alerts of the daemon, which are of these programs alone, must be certain and tell none twice, and what
/// is missing must be [gone](assert_gone).
#[track_caller]
pub(crate) fn missing(ended: &Ended, file: &Path, executed: &[usize]) -> usize {
    let file = file.to_str().unwrap();
    let mut seen = HashSet::new();
    for alert in ended.alerts(|_| true) {
        assert_eq!(alert["process"]["executable"], file);
        let args = &alert["process"]["args"];
        // It ended between the reading of its executable and that of its arguments: one of those missing below.
        if !args.is_null() {
            assert_certain(alert);
            assert!(seen.insert(args.to_string()), "seen twice: {alert:#}");
        }
    }
    let programs = executed
        .iter()
        .enumerate()
        .flat_map(|(worker, &count)| (0..count).map(move |number| (worker, number)));
    let args = programs.map(|(worker, number)| json!([file, worker.to_string(), number.to_string()]));
    let missing = args.filter(|args| !seen.remove(&args.to_string())).count();
    assert!(seen.is_empty(), "these were never executed: {seen:?}");
    assert_gone(ended, missing, executed.iter().sum());
    missing
}
