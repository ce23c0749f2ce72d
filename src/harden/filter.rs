//! From a role's list to the program that the kernel runs at each of its system calls (seccomp(2), classic BPF).
//!
//! Kernels since 5.11 remember which calls a filter always allows and do not run it for these. On older ones a search tree
//! keeps it at a few comparisons. It is written here, and not taken from a crate, for three outcomes in one program and
//! for the flags: without SECCOMP_FILTER_FLAG_SPEC_ALLOW, kernels before 5.16 would switch off speculation for a filtered
//! thread, as they must for one that runs foreign code, and listeners would pay for it with each program they read.

use std::io;

use libc::sock_filter;

use super::roles::{Calls, EXECUTING, FORBIDDEN, Role};
use crate::sys;

/// Offsets in `struct seccomp_data` (include/uapi/linux/seccomp.h).
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;

const ALLOW: u32 = 0x7fff_0000;
/// Before Linux 4.14 it ends only the thread, which the daemon notices.
const END_PROCESS: u32 = 0x8000_0000;
const ENOSYS: u32 = 0x0005_0000 | libc::ENOSYS as u32;

/// As the kernel names the architecture (include/uapi/linux/audit.h); `None`: its calls are not listed here.
const OWN_ARCHITECTURE: Option<u32> = if cfg!(all(target_arch = "x86_64", target_pointer_width = "64")) {
    Some(0xc000_003e)
} else if cfg!(target_arch = "aarch64") {
    Some(0xc000_00b7)
} else {
    None
};
/// Set in the numbers of the x32 ABI, which nothing here uses.
const X32: u32 = 0x4000_0000;
/// Calls that are compared one by one at the end of a branch.
const LEAF: usize = 3;

/// Puts the calling thread, and those it starts, under a role's filter.
pub(super) fn install(role: Role, responses: bool) -> io::Result<()> {
    let Some(architecture) = OWN_ARCHITECTURE else {
        return Err(io::Error::other("execwatch does not know the system calls of this architecture"));
    };
    sys::seccomp::install(&program(role.calls(responses), architecture))
}

fn program(calls: Calls, architecture: u32) -> Vec<sock_filter> {
    let mut outcomes: Vec<(u32, u32)> = Vec::new();
    let mut add = |calls: &[libc::c_long], outcome| {
        outcomes.extend(calls.iter().filter_map(|&call| Some((u32::try_from(call).ok()?, outcome))));
    };
    add(FORBIDDEN, END_PROCESS);
    let otherwise = match calls {
        Calls::Most => ALLOW,
        Calls::Only(lists) => {
            lists.iter().for_each(|list| add(list, ALLOW));
            add(EXECUTING, END_PROCESS);
            ENOSYS
        }
    };
    outcomes.sort_unstable();
    outcomes.dedup();
    let mut program = vec![
        load(ARCHITECTURE),
        jump(libc::BPF_JEQ, architecture, 1, 0),
        answer(END_PROCESS),
        load(NUMBER),
        jump(libc::BPF_JGE, X32, 0, 1),
        answer(END_PROCESS),
    ];
    program.extend(search(&outcomes, otherwise));
    program
}

/// The outcome of the call in the accumulator, by halves.
fn search(outcomes: &[(u32, u32)], otherwise: u32) -> Vec<sock_filter> {
    if let Some(&(first, _)) = outcomes.get(outcomes.len() / 2).filter(|_| outcomes.len() > LEAF) {
        let (lower, upper) = outcomes.split_at(outcomes.len() / 2);
        let lower = search(lower, otherwise);
        // Over the lower half, which may be longer than a conditional jump reaches.
        let mut code = vec![jump(libc::BPF_JGE, first, 0, 1), over(lower.len() as u32)];
        code.extend(lower);
        code.extend(search(upper, otherwise));
        return code;
    }
    let mut code: Vec<sock_filter> = outcomes
        .iter()
        .flat_map(|&(number, outcome)| [jump(libc::BPF_JEQ, number, 0, 1), answer(outcome)])
        .collect();
    code.push(answer(otherwise));
    code
}

fn load(offset: u32) -> sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset)
}

fn jump(kind: u32, value: u32, if_true: u8, if_false: u8) -> sock_filter {
    instruction(libc::BPF_JMP | kind | libc::BPF_K, if_true, if_false, value)
}

fn over(instructions: u32) -> sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JA, 0, 0, instructions)
}

fn answer(outcome: u32) -> sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, outcome)
}

fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would do; counts the instructions.
    fn run(program: &[sock_filter], architecture: u32, number: u32) -> (u32, usize) {
        let (mut at, mut accumulator, mut steps) = (0, 0, 0);
        loop {
            let now = program[at];
            let code = u32::from(now.code);
            steps += 1;
            at += 1;
            let branch = |holds| usize::from(if holds { now.jt } else { now.jf });
            match code & 0x07 {
                libc::BPF_LD => accumulator = if now.k == NUMBER { number } else { architecture },
                libc::BPF_RET => return (now.k, steps),
                _ if code & 0xf0 == libc::BPF_JA => at += now.k as usize,
                _ if code & 0xf0 == libc::BPF_JEQ => at += branch(accumulator == now.k),
                _ => at += branch(accumulator >= now.k),
            }
        }
    }

    #[test]
    fn every_call_has_the_outcome_of_the_table() {
        for role in Role::ALL {
            for responses in [false, true] {
                let calls = role.calls(responses);
                let program = program(calls, 7);
                for number in 0..1000 {
                    let is_in = |list: &[libc::c_long]| list.contains(&(number as libc::c_long));
                    let expected = match calls {
                        _ if is_in(FORBIDDEN) => END_PROCESS,
                        Calls::Most => ALLOW,
                        Calls::Only(lists) if lists.iter().any(|list| is_in(list)) => ALLOW,
                        Calls::Only(_) if is_in(EXECUTING) => END_PROCESS,
                        Calls::Only(_) => ENOSYS,
                    };
                    let (outcome, steps) = run(&program, 7, number);
                    assert_eq!(outcome, expected, "{role:?} {number}");
                    assert!(steps <= 30, "{role:?} {number}: {steps} instructions");
                }
                assert_eq!(run(&program, 8, 0).0, END_PROCESS, "of another architecture");
                assert_eq!(run(&program, 7, X32).0, END_PROCESS);
                // The kernel takes no more (BPF_MAXINSNS).
                assert!(program.len() < 4096);
            }
        }
    }

    /// By the kernel, in a thread of its own, which keeps its filter to itself.
    #[test]
    fn the_kernel_does_as_it_says() {
        std::thread::spawn(|| {
            nix::sys::prctl::set_no_new_privs().unwrap();
            if let Err(error) = install(Role::Signals, false) {
                eprintln!("SKIPPED: {error}");
                return;
            }
            // Neither listed nor forbidden.
            let refused = nix::sys::stat::mknod(
                "/tmp/never",
                nix::sys::stat::SFlag::S_IFIFO,
                nix::sys::stat::Mode::empty(),
                0,
            );
            assert_eq!(refused, Err(nix::errno::Errno::ENOSYS));
            assert_eq!(std::fs::read("/proc/self/stat").unwrap_err().raw_os_error(), Some(libc::ENOSYS));
        })
        .join()
        .unwrap();
    }
}
