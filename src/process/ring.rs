//! Light records of execs, from a listener to the worker: a ring of bytes with one writer and one reader.
//!
//! Nearly every exec matches no rule, but lineage wants to know of it. A record is copied into the ring without a system
//! call, lock or allocation, and the worker takes it out when it looks; only a ring that fills up wakes it. A full ring
//! refuses a record, which is counted: from then on the worker knows that it does not know.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Bytes of an executable's path that a record keeps.
pub const EXE: usize = 512;
/// Bytes of an argument list that a record keeps.
pub const ARGUMENTS: usize = 512;
/// Words of eight bytes in a ring: 128 KiB, room for about a thousand records.
const WORDS: usize = 16 * 1024;
/// Words in front of a record's bytes.
const HEADER: usize = 3;
/// Marks a length that stands for «unknown».
const UNKNOWN: u64 = 0xffff;

/// An exec as the ring carries it, with its texts cut at [`EXE`] and [`ARGUMENTS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LightExec<'a> {
    /// Process id.
    pub pid: u32,
    /// CLOCK_MONOTONIC in nanoseconds.
    pub time_ns: u64,
    /// The target of /proc/PID/exe.
    pub exe: Option<&'a [u8]>,
    /// /proc/PID/cmdline.
    pub arguments: Option<&'a [u8]>,
    /// The argument list was longer.
    pub cut: bool,
}

#[derive(Debug)]
struct Shared {
    words: Box<[AtomicU64]>,
    /// Words written and read since the start; they only grow.
    written: AtomicUsize,
    read: AtomicUsize,
    /// Records that found the ring full.
    refused: AtomicU64,
}

/// The listener's end.
#[derive(Debug)]
pub struct RingWriter(Arc<Shared>);

/// The worker's end.
#[derive(Debug)]
pub struct RingReader {
    shared: Arc<Shared>,
    buffer: Vec<u8>,
}

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// It is in the ring.
    Taken,
    /// It is in the ring, which is half full now: the reader should be woken.
    HalfFull,
    /// The ring was full.
    Refused,
}

/// A ring, all of whose memory is there: a page that its writer were the first to touch would have to wait for the lock of
/// the process's memory, and the program that the writer holds would run meanwhile.
pub fn ring() -> (RingWriter, RingReader) {
    let shared = Arc::new(Shared {
        words: (0..WORDS).map(|_| AtomicU64::new(0)).collect(),
        written: AtomicUsize::new(0),
        read: AtomicUsize::new(0),
        refused: AtomicU64::new(0),
    });
    // Memory that is only asked to be zero comes into being when it is touched.
    shared.words.iter().for_each(|word| word.store(0, Ordering::Relaxed));
    (RingWriter(Arc::clone(&shared)), RingReader { shared, buffer: Vec::new() })
}

impl Shared {
    fn word(&self, at: usize) -> &AtomicU64 {
        &self.words[at % WORDS]
    }
}

impl RingWriter {
    /// Puts a record into the ring.
    pub fn push(&self, exec: &LightExec<'_>) -> Pushed {
        let shared = &*self.0;
        // A part of a path would be that of another program.
        let exe = exec.exe.filter(|path| path.len() <= EXE);
        let arguments = exec.arguments.map(|list| &list[..list.len().min(ARGUMENTS)]);
        let cut = exec.cut || arguments.map(<[u8]>::len) != exec.arguments.map(<[u8]>::len);
        let length = |text: Option<&[u8]>| text.map_or(UNKNOWN, |text| text.len() as u64);
        let bytes = |text: Option<&[u8]>| text.map_or(0, <[u8]>::len);
        let needed = HEADER + bytes(exe).div_ceil(8) + bytes(arguments).div_ceil(8);
        let written = shared.written.load(Ordering::Relaxed);
        let used = written.wrapping_sub(shared.read.load(Ordering::Acquire));
        if used + needed > WORDS {
            shared.refused.fetch_add(1, Ordering::Relaxed);
            return Pushed::Refused;
        }
        let lengths = u64::from(exec.pid) | length(exe) << 32 | length(arguments) << 48;
        let head = [lengths, exec.time_ns, u64::from(cut)];
        let texts = [exe, arguments];
        let body = texts.iter().flatten().flat_map(|text| {
            text.chunks(8).map(|chunk| {
                let mut word = [0; 8];
                word[..chunk.len()].copy_from_slice(chunk);
                u64::from_ne_bytes(word)
            })
        });
        for (at, word) in head.into_iter().chain(body).enumerate() {
            shared.word(written.wrapping_add(at)).store(word, Ordering::Relaxed);
        }
        shared.written.store(written.wrapping_add(needed), Ordering::Release);
        if used < WORDS / 2 && used + needed >= WORDS / 2 { Pushed::HalfFull } else { Pushed::Taken }
    }
}

impl RingReader {
    /// Takes the oldest record.
    pub fn pop(&mut self) -> Option<LightExec<'_>> {
        let shared = &*self.shared;
        let read = shared.read.load(Ordering::Relaxed);
        if shared.written.load(Ordering::Acquire) == read {
            return None;
        }
        let word = |at: usize| shared.word(read.wrapping_add(at)).load(Ordering::Relaxed);
        let (lengths, time_ns, cut) = (word(0), word(1), word(2) != 0);
        let length =
            |bits: u64| Some(bits & 0xffff).filter(|&length| length != UNKNOWN).map(|it| it as usize);
        let (exe, arguments) = (length(lengths >> 32), length(lengths >> 48));
        self.buffer.clear();
        let mut at = HEADER;
        for text in [exe, arguments].into_iter().flatten() {
            let start = self.buffer.len();
            for _ in 0..text.div_ceil(8) {
                self.buffer.extend(word(at).to_ne_bytes());
                at += 1;
            }
            self.buffer.truncate(start + text);
        }
        shared.read.store(read.wrapping_add(at), Ordering::Release);
        let (exe_bytes, rest) = self.buffer.split_at(exe.unwrap_or(0));
        Some(LightExec {
            pid: lengths as u32,
            time_ns,
            exe: exe.map(|_| exe_bytes),
            arguments: arguments.map(|_| rest),
            cut,
        })
    }

    /// True if nobody writes any more and everything was read.
    pub fn is_over(&self) -> bool {
        if Arc::strong_count(&self.shared) > 1 {
            return false;
        }
        // Who has gone has written before.
        std::sync::atomic::fence(Ordering::Acquire);
        self.shared.written.load(Ordering::Relaxed) == self.shared.read.load(Ordering::Relaxed)
    }

    /// Records that were refused since the start.
    pub fn refused(&self) -> u64 {
        self.shared.refused.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn exec<'a>(pid: u32, exe: Option<&'a [u8]>, arguments: Option<&'a [u8]>) -> LightExec<'a> {
        LightExec { pid, time_ns: u64::from(pid) << 40, exe, arguments, cut: false }
    }

    #[test]
    fn a_full_ring_refuses_and_counts() {
        let (writer, mut reader) = ring();
        let long = [b'x'; ARGUMENTS];
        let mut taken = 0;
        let mut half = 0;
        loop {
            match writer.push(&exec(taken, Some(b"/bin/true"), Some(&long))) {
                Pushed::Taken => {}
                Pushed::HalfFull => half += 1,
                Pushed::Refused => break,
            }
            taken += 1;
        }
        assert_eq!((half, reader.refused()), (1, 1));
        for pid in 0..taken {
            assert_eq!(reader.pop(), Some(exec(pid, Some(b"/bin/true"), Some(&long))));
        }
        assert_eq!(reader.pop(), None);
        assert_eq!(writer.push(&exec(1, None, None)), Pushed::Taken);
        assert_eq!(reader.pop(), Some(exec(1, None, None)));
    }

    #[test]
    fn a_ring_is_over_when_its_writer_has_gone_and_all_is_read() {
        let (writer, mut reader) = ring();
        writer.push(&exec(1, None, None));
        assert!(!reader.is_over());
        drop(writer);
        assert!(!reader.is_over());
        reader.pop();
        assert!(reader.is_over());
    }

    #[test]
    fn two_threads_lose_nothing() {
        let (writer, mut reader) = ring();
        let thread = std::thread::spawn(move || {
            for pid in 0..50_000 {
                let arguments = vec![b'a'; pid as usize % 300];
                while writer.push(&exec(pid, Some(b"/usr/bin/x"), Some(&arguments))) == Pushed::Refused {
                    std::thread::yield_now();
                }
            }
        });
        let mut next = 0;
        while next < 50_000 {
            match reader.pop() {
                Some(found) => {
                    assert_eq!(
                        (found.pid, found.arguments.map(<[u8]>::len)),
                        (next, Some(next as usize % 300))
                    );
                    next += 1;
                }
                None => std::thread::yield_now(),
            }
        }
        thread.join().unwrap();
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(
            records in proptest::collection::vec((any::<u32>(), any::<u64>(),
                proptest::option::of(proptest::collection::vec(any::<u8>(), 0..EXE)),
                proptest::option::of(proptest::collection::vec(any::<u8>(), 0..ARGUMENTS + 9)), any::<bool>()), 1..20),
        ) {
            let (writer, mut reader) = ring();
            for _ in 0..30 {
                for (pid, time_ns, exe, arguments, cut) in &records {
                    let record = LightExec { pid: *pid, time_ns: *time_ns, exe: exe.as_deref(), arguments: arguments.as_deref(), cut: *cut };
                    prop_assert!(writer.push(&record) != Pushed::Refused);
                    let kept = arguments.as_deref().map(|list| &list[..list.len().min(ARGUMENTS)]);
                    let cut = *cut || kept.map(<[u8]>::len) != record.arguments.map(<[u8]>::len);
                    prop_assert_eq!(reader.pop(), Some(LightExec { arguments: kept, cut, ..record }));
                }
            }
        }
    }
}
