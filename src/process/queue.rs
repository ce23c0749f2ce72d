//! The queue from the listeners to the worker.
//!
//! A listener holds a program while it works and must never wait for a slower thread. So events live in slots that
//! are made when they are first needed and then reused: claiming one is a compare-and-swap, no memory is allocated or freed
//! there in the common case, and nobody shares a lock. Only the slot's number travels, over a channel with twice as many places as there are
//! slots, so that it is never full. The worker is woken by an eventfd, not by the channel, whose wake-up takes a mutex.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::exec::Exec;

/// Buffers larger than this are given back when their slot is released, so that one flood of long argument lists does
/// not stay in memory for ever.
const KEPT_BUFFER: usize = 2048;

#[derive(Debug, Default)]
struct Slot {
    busy: AtomicBool,
    /// Made when it is first claimed: most slots of a queue that is never full stay empty, and each event has a thousand
    /// bytes even without its texts.
    exec: OnceLock<Box<Mutex<Exec>>>,
}

impl Slot {
    fn exec(&self) -> MutexGuard<'_, Exec> {
        self.exec.get_or_init(Box::default).lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Shared {
    slots: Box<[Slot]>,
    /// Bytes of the argument lists and paths that are queued.
    bytes: AtomicUsize,
    bytes_limit: usize,
    worker_sleeps: AtomicBool,
    wake: EventFd,
}

/// A listener's end.
#[derive(Debug, Clone)]
pub struct ExecSender {
    shared: Arc<Shared>,
    numbers: Sender<usize>,
}

/// The worker's end.
#[derive(Debug)]
pub struct ExecReceiver {
    shared: Arc<Shared>,
    numbers: Receiver<usize>,
}

/// How much waits in a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    /// Events.
    pub waiting: usize,
    /// Events there is room for.
    pub places: usize,
    /// Bytes of the argument lists and paths that wait.
    pub bytes: usize,
}

/// A slot that a sender has claimed.
#[derive(Debug)]
pub struct Claimed {
    number: usize,
}

/// A queue of `slots` events that keeps the queued bytes near `bytes_limit` (see [`ExecSender::short_of_memory`]).
pub fn queue(slots: usize, bytes_limit: usize) -> nix::Result<(ExecSender, ExecReceiver)> {
    let (sender, receiver) = crossbeam_channel::bounded(slots.max(1) * 2);
    let shared = Arc::new(Shared {
        slots: (0..slots.max(1)).map(|_| Slot::default()).collect(),
        bytes: AtomicUsize::new(0),
        bytes_limit,
        worker_sleeps: AtomicBool::new(false),
        wake: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
    });
    Ok((
        ExecSender { shared: Arc::clone(&shared), numbers: sender },
        ExecReceiver { shared, numbers: receiver },
    ))
}

impl ExecSender {
    /// Claims a free slot; `None` if the worker is so far behind that there is none.
    ///
    /// The lowest free slot is taken, so that memory is used only for as many as were ever queued at once.
    pub fn claim(&self) -> Option<Claimed> {
        let number = self.shared.slots.iter().position(|slot| {
            !slot.busy.load(Ordering::Relaxed)
                && slot.busy.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
        })?;
        Some(Claimed { number })
    }

    /// The event of a claimed slot. Nobody else can want the lock: the slot is claimed.
    pub fn exec(&self, claimed: &Claimed) -> MutexGuard<'_, Exec> {
        self.shared.slots[claimed.number].exec()
    }

    /// So much is queued that argument lists should be cut short.
    pub fn short_of_memory(&self) -> bool {
        self.shared.bytes.load(Ordering::Relaxed) > self.shared.bytes_limit
    }

    /// Hands a filled slot to the worker.
    pub fn send(&self, claimed: Claimed) {
        let bytes = self.exec(&claimed).len();
        self.shared.bytes.fetch_add(bytes, Ordering::Relaxed);
        // Never full: there are more places than slots. Disconnected: the worker has ended, and so will the process.
        let _ = self.numbers.try_send(claimed.number);
        if self.shared.worker_sleeps.swap(false, Ordering::SeqCst) {
            self.wake();
        }
    }

    /// Gives a slot back without sending it.
    pub fn release(&self, claimed: Claimed) {
        self.shared.slots[claimed.number].busy.store(false, Ordering::Release);
    }

    /// How much waits for the worker.
    pub fn depth(&self) -> Depth {
        Depth {
            waiting: self.numbers.len(),
            places: self.shared.slots.len(),
            bytes: self.shared.bytes.load(Ordering::Relaxed),
        }
    }

    /// Makes the worker look at its channels.
    pub fn wake(&self) {
        // EAGAIN: the counter is full, so it is awake anyway.
        let _ = self.shared.wake.write(1);
    }
}

impl ExecReceiver {
    /// Takes the next event, if there is one.
    ///
    /// What it returns is a copy: memory that one thread gets and another frees makes the two share a lock of the
    /// allocator, and a listener that waits for it lets go of the program it holds (measured: a twentieth of a storm was
    /// lost).
    pub fn receive(&self) -> Option<Exec> {
        let number = self.numbers.try_recv().ok()?;
        let slot = &self.shared.slots[number];
        let exec = {
            let mut exec = slot.exec();
            self.shared.bytes.fetch_sub(exec.len(), Ordering::Relaxed);
            let descriptor = std::mem::take(&mut exec.descriptor);
            // It is the index's, which the listener must not be the last to let go of.
            let identity = exec.details.identity.take();
            let mut copy = Exec { descriptor, ..exec.clone() };
            copy.details.identity = identity;
            exec.image.shrink(KEPT_BUFFER);
            copy
        };
        slot.busy.store(false, Ordering::Release);
        Some(exec)
    }

    /// Waits until something was sent, [`wake`](ExecSender::wake) was called or the time is over.
    pub fn wait(&self, timeout: Option<Duration>) {
        self.shared.worker_sleeps.store(true, Ordering::SeqCst);
        if self.numbers.is_empty() {
            let timeout = timeout.map_or(PollTimeout::NONE, |time| {
                // Rounded up, so that a timer has run out after the wait.
                PollTimeout::try_from(time + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX)
            });
            // An interruption or error only means looking again.
            let _ = poll(&mut [PollFd::new(self.wake_fd(), PollFlags::POLLIN)], timeout);
        }
        self.shared.worker_sleeps.store(false, Ordering::SeqCst);
        // Empties the counter; EAGAIN if nobody wrote.
        let _ = self.shared.wake.read();
    }

    fn wake_fd(&self) -> BorrowedFd<'_> {
        self.shared.wake.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(sender: &ExecSender, pid: u32) -> bool {
        let Some(claimed) = sender.claim() else { return false };
        sender.exec(&claimed).pid = pid;
        sender.send(claimed);
        true
    }

    #[test]
    fn full_and_free_again() {
        let (sender, receiver) = queue(2, 1000).unwrap();
        assert!(put(&sender, 1) && put(&sender, 2) && !put(&sender, 3));
        let pid = || receiver.receive().map(|exec| exec.pid);
        assert_eq!(pid(), Some(1));
        assert!(put(&sender, 4) && !put(&sender, 5));
        assert_eq!(pid(), Some(2));
        assert_eq!(pid(), Some(4));
        assert_eq!(pid(), None);
        let claimed = sender.claim().unwrap();
        sender.release(claimed);
        assert!(put(&sender, 6) && put(&sender, 7));
    }

    #[test]
    fn queued_bytes_are_known() {
        let (sender, receiver) = queue(4, 10).unwrap();
        assert_eq!(sender.depth(), Depth { waiting: 0, places: 4, bytes: 0 });
        let claimed = sender.claim().unwrap();
        sender.exec(&claimed).image.set_arguments(&[b'x'; 11], false);
        sender.send(claimed);
        assert!(sender.short_of_memory());
        assert_eq!(sender.depth(), Depth { waiting: 1, places: 4, bytes: 11 });
        receiver.receive().unwrap();
        assert!(!sender.short_of_memory());
    }

    #[test]
    fn many_senders_lose_nothing() {
        let (sender, receiver) = queue(64, 1 << 20).unwrap();
        let threads: Vec<_> = (0..4u32)
            .map(|thread| {
                let sender = sender.clone();
                std::thread::spawn(move || {
                    for number in 0..5000 {
                        while !put(&sender, thread * 5000 + number) {
                            std::thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        let mut seen = vec![false; 20_000];
        let mut count = 0;
        while count < seen.len() {
            match receiver.receive().map(|exec| exec.pid) {
                Some(pid) => {
                    assert!(!std::mem::replace(&mut seen[pid as usize], true));
                    count += 1;
                }
                None => receiver.wait(Some(Duration::from_secs(5))),
            }
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}
