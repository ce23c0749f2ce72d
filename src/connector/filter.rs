//! Socket filters (classic BPF): which events a socket takes.
//!
//! A filter runs in the sender before the message is queued, so what it rejects costs neither buffer nor wake-up. Loads
//! of words convert from network order, hence constants are given with `to_be`. A datagram too short for a load is
//! rejected by the kernel, so every program here loads only words that each event has.

use libc::sock_filter;

use super::wire::{CPU_OFFSET, DATA_OFFSET, WHAT_OFFSET, what};

const ACCEPT: u32 = u32::MAX;
const REJECT: u32 = 0;

const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const LOAD_BYTE: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
const SHIFT_LEFT: u16 = (libc::BPF_ALU | libc::BPF_LSH | libc::BPF_K) as u16;
const OR_X: u16 = (libc::BPF_ALU | libc::BPF_OR | libc::BPF_X) as u16;
const TO_X: u16 = (libc::BPF_MISC | libc::BPF_TAX) as u16;
const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const IF_EQUAL_X: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_X) as u16;
const IF_AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const IF_ABOVE: u16 = (libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

const fn statement(code: u16, k: u32) -> sock_filter {
    sock_filter { code, jt: 0, jf: 0, k }
}

const fn jump(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

/// The kernel's answers to requests.
pub fn answers() -> Vec<sock_filter> {
    vec![
        statement(LOAD_WORD, WHAT_OFFSET),
        jump(IF_EQUAL, what::NONE.to_be(), 0, 1),
        statement(RETURN, ACCEPT),
        statement(RETURN, REJECT),
    ]
}

/// Exec events that `cpu` sent.
pub fn execs_of(cpu: u32) -> Vec<sock_filter> {
    vec![
        statement(LOAD_WORD, WHAT_OFFSET),
        jump(IF_EQUAL, what::EXEC.to_be(), 0, 3),
        statement(LOAD_WORD, CPU_OFFSET),
        jump(IF_EQUAL, cpu.to_be(), 0, 1),
        statement(RETURN, ACCEPT),
        statement(RETURN, REJECT),
    ]
}

/// Exec events that none of `cpus` sent. `cpus` must be sorted.
pub fn execs_except(cpus: &[u32]) -> Vec<sock_filter> {
    let mut program = vec![
        statement(LOAD_WORD, WHAT_OFFSET),
        jump(IF_EQUAL, what::EXEC.to_be(), 1, 0),
        statement(RETURN, REJECT),
    ];
    load_cpu(&mut program);
    for (first, last) in ranges(cpus) {
        program.push(jump(IF_AT_LEAST, first, 0, 2));
        program.push(jump(IF_ABOVE, last, 1, 0));
        program.push(statement(RETURN, REJECT));
    }
    program.push(statement(RETURN, ACCEPT));
    program
}

/// What happens to processes as a whole: forks, exits and changes of user id, not those of threads; and the kernel's
/// answers to requests.
pub fn of_processes() -> Vec<sock_filter> {
    vec![
        statement(LOAD_WORD, WHAT_OFFSET),
        jump(IF_EQUAL, what::NONE, 12, 0),
        jump(IF_EQUAL, what::FORK.to_be(), 0, 4),
        // fork: child_pid == child_tgid
        statement(LOAD_WORD, DATA_OFFSET + 8),
        statement(TO_X, 0),
        statement(LOAD_WORD, DATA_OFFSET + 12),
        jump(IF_EQUAL_X, 0, 7, 6),
        jump(IF_EQUAL, what::EXIT.to_be(), 1, 0),
        jump(IF_EQUAL, what::UID.to_be(), 0, 4),
        // exit, uid: pid == tgid
        statement(LOAD_WORD, DATA_OFFSET),
        statement(TO_X, 0),
        statement(LOAD_WORD, DATA_OFFSET + 4),
        jump(IF_EQUAL_X, 0, 1, 0),
        statement(RETURN, REJECT),
        statement(RETURN, ACCEPT),
    ]
}

/// Loads the low 16 bits of the event's CPU in host order, so that it can be compared as a number (Linux knows at most
/// 8192 CPUs). An answer's CPU of -1 becomes 65535, which no range holds.
fn load_cpu(program: &mut Vec<sock_filter>) {
    let (low, high) = if cfg!(target_endian = "little") { (0, 1) } else { (3, 2) };
    program.extend([
        statement(LOAD_BYTE, CPU_OFFSET + high),
        statement(SHIFT_LEFT, 8),
        statement(TO_X, 0),
        statement(LOAD_BYTE, CPU_OFFSET + low),
        statement(OR_X, 0),
    ]);
}

/// Sorted numbers as inclusive ranges.
fn ranges(numbers: &[u32]) -> Vec<(u32, u32)> {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for &number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The few instructions used here, as the kernel runs them: true if the datagram is accepted.
    fn accepts(program: &[sock_filter], datagram: &[u8]) -> bool {
        let (mut a, mut x, mut at) = (0u32, 0u32, 0usize);
        loop {
            let step = program[at];
            at += 1;
            let k = step.k as usize;
            match step.code {
                LOAD_WORD => match datagram.get(k..k + 4) {
                    Some(word) => a = u32::from_be_bytes(word.try_into().unwrap()),
                    None => return false,
                },
                LOAD_BYTE => match datagram.get(k) {
                    Some(&byte) => a = byte.into(),
                    None => return false,
                },
                SHIFT_LEFT => a <<= step.k,
                OR_X => a |= x,
                TO_X => x = a,
                IF_EQUAL => at += usize::from(if a == step.k { step.jt } else { step.jf }),
                IF_EQUAL_X => at += usize::from(if a == x { step.jt } else { step.jf }),
                IF_AT_LEAST => at += usize::from(if a >= step.k { step.jt } else { step.jf }),
                IF_ABOVE => at += usize::from(if a > step.k { step.jt } else { step.jf }),
                RETURN => return step.k != REJECT,
                code => panic!("instruction {code:#x}"),
            }
        }
    }

    fn event(what: u32, cpu: u32, members: [u32; 6]) -> Vec<u8> {
        let mut bytes = vec![0; WHAT_OFFSET as usize];
        bytes.extend(what.to_ne_bytes());
        bytes.extend(cpu.to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(members.iter().flat_map(|member| member.to_ne_bytes()));
        bytes
    }

    #[test]
    fn events_of_processes_not_of_threads() {
        let program = of_processes();
        assert!(accepts(&program, &event(what::FORK, 0, [1, 1, 7, 7, 0, 0])));
        assert!(!accepts(&program, &event(what::FORK, 0, [1, 1, 8, 7, 0, 0])));
        assert!(accepts(&program, &event(what::EXIT, 0, [7, 7, 0, 0, 0, 0])));
        assert!(!accepts(&program, &event(what::EXIT, 0, [8, 7, 0, 0, 0, 0])));
        assert!(accepts(&program, &event(what::UID, 0, [7, 7, 33, 0, 0, 0])));
        assert!(!accepts(&program, &event(what::UID, 0, [8, 7, 33, 0, 0, 0])));
        assert!(accepts(&program, &event(what::NONE, u32::MAX, [0; 6])));
        assert!(!accepts(&program, &event(what::EXEC, 0, [7, 7, 0, 0, 0, 0])));
        assert!(!accepts(&program, &event(0x200, 0, [7, 7, 0, 0, 0, 0])));
    }

    proptest! {
        #[test]
        fn each_cpu_has_exactly_one_socket(
            mut covered in proptest::collection::btree_set(0u32..8192, 0..40), cpu in 0u32..8192, near in any::<bool>(),
        ) {
            if near {
                covered.insert(cpu);
            }
            let covered: Vec<u32> = covered.into_iter().collect();
            let exec = event(what::EXEC, cpu, [5; 6]);
            let mut sockets = usize::from(accepts(&execs_except(&covered), &exec));
            sockets += covered.iter().filter(|&&own| accepts(&execs_of(own), &exec)).count();
            prop_assert_eq!(sockets, 1);
            for other in [what::NONE, what::FORK, what::EXIT, 4, 0x200] {
                let other = event(other, cpu, [5; 6]);
                prop_assert!(!accepts(&execs_except(&covered), &other) && !accepts(&execs_of(cpu), &other));
            }
        }
    }
}
