//! The process tree of a story in the order in which it is drawn, and what of it is drawn if it is too large.
//!
//! A story comes from a database that may be damaged: parents that do not exist, that come later or that are their own
//! ancestors are no reason to leave a process out.

use std::collections::HashMap;

use super::story::{Process, Program};
use crate::rules::model::Severity;

/// A process where it is drawn.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row<'s> {
    /// The process.
    pub(super) process: &'s Process,
    /// Number of ancestors in the story.
    pub(super) depth: usize,
    /// No sibling follows.
    pub(super) last: bool,
    /// The row of its parent.
    pub(super) parent: Option<usize>,
}

/// The tree: children below their parents, and as many rows as may be drawn.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Tree<'s> {
    /// The rows, from the top.
    pub(super) rows: Vec<Row<'s>>,
    /// How many processes are not among them.
    pub(super) left_out: usize,
}

/// The tree of processes, of which at most `most` are drawn: first those that are the entry, alert or run, with their
/// ancestors, then the others in their order.
pub(super) fn tree(processes: &[Process], most: usize) -> Tree<'_> {
    // Of two processes with the same key only the first can be a parent.
    let mut places: HashMap<u32, usize> = HashMap::with_capacity(processes.len());
    for (place, process) in processes.iter().enumerate() {
        places.entry(process.key).or_insert(place);
    }
    let parents = parents(processes, &places);
    let drawn = choose(processes, &parents, most);
    let mut children: HashMap<Option<usize>, Vec<usize>> = HashMap::new();
    for (place, parent) in parents.iter().enumerate().filter(|(place, _)| drawn[*place]) {
        children.entry(*parent).or_default().push(place);
    }
    let mut rows: Vec<Row<'_>> = Vec::new();
    // What is to be drawn, the next at the end: place, depth, whether it is the last, and the parent's row.
    let mut waiting: Vec<(usize, usize, bool, Option<usize>)> = Vec::new();
    let mut push = |waiting: &mut Vec<_>, of: Option<usize>, depth: usize, row: Option<usize>| {
        let list = children.remove(&of).unwrap_or_default();
        for (number, place) in list.into_iter().rev().enumerate() {
            waiting.push((place, depth, number == 0, row));
        }
    };
    push(&mut waiting, None, 0, None);
    while let Some((place, depth, last, parent)) = waiting.pop() {
        if let Some(process) = processes.get(place) {
            rows.push(Row { process, depth, last, parent });
            push(&mut waiting, Some(place), depth + 1, Some(rows.len() - 1));
        }
    }
    let left_out = processes.len() - rows.len();
    Tree { rows, left_out }
}

/// The place of each process's parent, without circles.
fn parents(processes: &[Process], places: &HashMap<u32, usize>) -> Vec<Option<usize>> {
    let mut parents: Vec<Option<usize>> = processes
        .iter()
        .map(|process| process.parent.and_then(|parent| places.get(&parent)).copied())
        .collect();
    // Which walk came by a process last; a walk that meets itself has found a circle, which it opens.
    let mut walks = vec![0; processes.len()];
    for begin in 0..processes.len() {
        let mut at = begin;
        while walks[at] == 0 {
            walks[at] = begin + 1;
            match parents[at] {
                Some(parent) if walks[parent] == begin + 1 => parents[at] = None,
                Some(parent) => at = parent,
                None => break,
            }
        }
    }
    parents
}

/// Which processes are drawn; with each its ancestors are.
fn choose(processes: &[Process], parents: &[Option<usize>], most: usize) -> Vec<bool> {
    let mut chosen = vec![false; processes.len()];
    let mut left = most;
    let important = |process: &Process| {
        process.entry || process.running || process.programs.iter().any(|program| program.alert.is_some())
    };
    for wanted in [true, false] {
        for (place, _) in processes.iter().enumerate().filter(|(_, process)| important(process) == wanted) {
            let mut way = Vec::new();
            let mut at = Some(place);
            while let Some(place) = at.filter(|&place| !chosen[place] && way.len() <= left) {
                way.push(place);
                at = parents[place];
            }
            if way.len() <= left {
                left -= way.len();
                way.into_iter().for_each(|place| chosen[place] = true);
            }
        }
    }
    chosen
}

/// It has executed nothing: what it runs it has from its parent, since it was made.
pub(super) fn forked(process: &Process, parent: Option<&Process>) -> bool {
    let [program] = &process.programs[..] else { return process.programs.is_empty() };
    let same = |other: &Program| other.exe == program.exe && other.args == program.args;
    program.alert.is_none()
        && process.start_ns == Some(program.time_ns)
        && parent.is_some_and(|parent| parent.programs.iter().any(same))
}

/// The highest severity of a process's alerts.
pub(super) fn severity(process: &Process) -> Option<Severity> {
    process.programs.iter().filter_map(|program| program.alert.as_ref()).map(|alert| alert.severity).max()
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    /// A process of which nothing but its place is known.
    pub(in crate::incident) fn process(key: u32, parent: Option<u32>) -> Process {
        Process {
            key,
            parent,
            pid: 1000 + key,
            programs: Vec::new(),
            user: None,
            start_ns: None,
            end_ns: None,
            outcome: None,
            running: false,
            entry: false,
        }
    }

    fn drawn(tree: &Tree<'_>) -> Vec<(u32, usize, bool)> {
        tree.rows.iter().map(|row| (row.process.key, row.depth, row.last)).collect()
    }

    #[test]
    fn children_stand_below_their_parents() {
        let processes = [
            process(1, None),
            process(2, Some(1)),
            process(3, Some(1)),
            process(4, Some(2)),
            process(5, None),
        ];
        let all = tree(&processes, 10);
        assert_eq!(drawn(&all), [(1, 0, false), (2, 1, false), (4, 2, true), (3, 1, true), (5, 0, true)]);
        assert_eq!(all.rows[2].parent, Some(1));
        assert_eq!(all.left_out, 0);
    }

    #[test]
    fn who_executed_nothing_is_known() {
        let program =
            |time_ns, arg: &str| Program { time_ns, exe: None, args: vec![arg.to_owned()], alert: None };
        let parent = Process {
            start_ns: Some(5),
            programs: vec![program(7, "a"), program(9, "b")],
            ..process(1, None)
        };
        let child = |time_ns, arg| Process {
            start_ns: Some(8),
            programs: vec![program(time_ns, arg)],
            ..process(2, Some(1))
        };
        assert!(forked(&child(8, "a"), Some(&parent)));
        // It executed that itself; it has it from somebody who is not there.
        assert!(!forked(&child(10, "a"), Some(&parent)));
        assert!(!forked(&child(8, "c"), Some(&parent)));
        assert!(!forked(&child(8, "a"), None));
        assert!(forked(&process(3, None), None));
    }

    #[test]
    fn damage_leaves_no_process_out() {
        // A circle, its own parent, a parent that does not exist, one that comes later, and a key that is there twice.
        let processes = [
            process(1, Some(2)),
            process(2, Some(1)),
            process(3, Some(3)),
            process(4, Some(99)),
            process(5, Some(6)),
            process(6, None),
            process(6, None),
        ];
        let all = tree(&processes, 10);
        assert_eq!(all.rows.len(), 7);
        assert_eq!(all.left_out, 0);
        assert!(drawn(&all).contains(&(5, 1, true)));
    }

    #[test]
    fn what_matters_is_drawn_with_its_ancestors() {
        let mut processes: Vec<Process> = (0..100).map(|key| process(key, key.checked_sub(1))).collect();
        processes.push(process(200, None));
        processes.push(Process { running: true, ..process(201, Some(200)) });
        let some = tree(&processes, 10);
        assert_eq!(some.left_out, 92);
        assert_eq!(drawn(&some)[8..], [(200, 0, true), (201, 1, true)]);
    }

    #[test]
    fn a_long_chain_is_no_deep_recursion() {
        let processes: Vec<Process> = (0..100_000).map(|key| process(key, key.checked_sub(1))).collect();
        assert_eq!(tree(&processes, usize::MAX).rows.len(), 100_000);
        assert_eq!(tree(&processes, 10).rows.len(), 10);
    }

    proptest! {
        #[test]
        fn every_process_is_drawn_once(parents in proptest::collection::vec(proptest::option::of(0u32..30), 0..30), most in 0usize..40) {
            let processes: Vec<Process> =
                parents.iter().zip(0..).map(|(parent, key)| process(key, *parent)).collect();
            let tree = tree(&processes, most);
            let keys: HashSet<u32> = tree.rows.iter().map(|row| row.process.key).collect();
            prop_assert_eq!(keys.len(), tree.rows.len());
            prop_assert!(tree.rows.len() <= most);
            prop_assert_eq!(tree.rows.len() + tree.left_out, processes.len());
            for row in &tree.rows {
                let depth = row.parent.map_or(0, |parent| tree.rows[parent].depth + 1);
                prop_assert_eq!(row.depth, depth);
            }
        }
    }
}
