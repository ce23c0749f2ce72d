//! The queue from the listeners to the worker.
//!
//! A listener holds a program while it works and must never wait for a slower thread. So events live in slots that
//! are made when they are first needed and then reused: claiming one takes no lock, no memory is allocated or freed
//! there in the common case. Only a reference to the slot travels, over a channel with more places than may be filled, so that
//! it is never full. The worker is woken by an eventfd, not by the channel, whose wake-up takes a mutex.
//!
//! Each sender has slots of its own, because what one thread allocates and another frees or enlarges makes the two share a
//! lock of the allocator. A thread of ordinary priority that is preempted while it has that lock lets a listener wait, for
//! milliseconds on a busy host, and every program of that CPU runs meanwhile. So the worker copies what it takes, and only the
//! sender gives memory of its slots back, as long as there is one.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::exec::Exec;

/// Argument lists of more bytes than this are given back once their slot is free again, so that one flood of long ones does
/// not stay in memory for ever.
const KEPT_BUFFER: usize = 2048;
/// Slots are made so many at a time.
const TRAY: usize = 32;
/// Bytes of memory that are got, written to and freed with them, about what so many programs take. For each page
/// that a thread's memory grows by, the kernel wants the lock of the process's memory (mmap_lock), which a thread may have
/// that was preempted. The GNU C library keeps so much of free memory for its thread, and hardly more.
const AHEAD: usize = 120_000;
/// Senders for which the channel has room besides the places: each may send one program too many. With more of them, such a
/// program may find no room.
const SENDERS: usize = 1024;
/// Slots that one call of [`ExecSender::tidy`] looks at, at most.
const TIDIED: usize = 64;

#[derive(Debug, Default)]
struct Slot {
    busy: AtomicBool,
    /// Made when it is first claimed: most slots of a queue that is never full stay empty, and each event has a thousand
    /// bytes even without its texts.
    exec: OnceLock<Box<Mutex<Exec>>>,
    /// Its argument list is larger than is kept; for its sender alone.
    large: AtomicBool,
}

impl Slot {
    fn exec(&self) -> MutexGuard<'_, Exec> {
        self.exec.get_or_init(Box::default).lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Only its sender claims a slot, and others only free it.
    fn claim(&self) -> bool {
        let free = !self.busy.load(Ordering::Acquire);
        if free {
            self.busy.store(true, Ordering::Relaxed);
        }
        free
    }

    fn free(&self) {
        self.busy.store(false, Ordering::Release);
    }
}

/// The slots of one sender.
#[derive(Debug)]
struct Slots(Box<[OnceLock<Box<[Slot; TRAY]>>]>);

impl Slots {
    fn new(count: usize) -> Self {
        Slots((0..count.div_ceil(TRAY)).map(|_| OnceLock::new()).collect())
    }

    fn get(&self, number: usize) -> &Slot {
        &self.tray(number / TRAY)[number % TRAY]
    }

    /// A tray, which is made if it is not there.
    fn tray(&self, number: usize) -> &[Slot; TRAY] {
        self.0[number].get_or_init(|| {
            // Not with zeros: such memory would not come into being yet.
            drop(std::hint::black_box(vec![0xff_u8; AHEAD]));
            Box::new(std::array::from_fn(|_| Slot::default()))
        })
    }

    /// Claims the lowest free slot, so that memory is used only for as many as were ever queued at once.
    fn claim(&self) -> Option<usize> {
        (0..self.0.len()).find_map(|tray| Some(tray * TRAY + self.tray(tray).iter().position(Slot::claim)?))
    }
}

#[derive(Debug)]
struct Shared {
    /// Programs that may wait; each sender may have claimed one slot more.
    places: usize,
    waiting: AtomicUsize,
    /// Bytes of the argument lists and paths that are queued.
    bytes: AtomicUsize,
    bytes_limit: usize,
    worker_sleeps: AtomicBool,
    wake: EventFd,
}

/// A filled slot on its way to the worker.
#[derive(Debug)]
struct Filled {
    slots: Arc<Slots>,
    number: usize,
}

/// The queue as a whole: how full it is, and new ends of it.
#[derive(Debug, Clone)]
pub struct ExecQueue {
    shared: Arc<Shared>,
    filled: Sender<Filled>,
}

/// A listener's end, for one thread: the one that claims first.
#[derive(Debug)]
pub struct ExecSender {
    queue: ExecQueue,
    slots: Arc<Slots>,
    /// Slots with larger argument lists than are kept, by number.
    large: VecDeque<usize>,
}

/// The worker's end.
#[derive(Debug)]
pub struct ExecReceiver {
    shared: Arc<Shared>,
    filled: Receiver<Filled>,
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

/// A queue of `places` events that keeps the queued bytes near `bytes_limit` (see [`ExecSender::short_of_memory`]).
pub fn queue(places: usize, bytes_limit: usize) -> nix::Result<(ExecQueue, ExecReceiver)> {
    let places = places.max(1);
    let (sender, receiver) = crossbeam_channel::bounded(places + SENDERS);
    let shared = Arc::new(Shared {
        places,
        waiting: AtomicUsize::new(0),
        bytes: AtomicUsize::new(0),
        bytes_limit,
        worker_sleeps: AtomicBool::new(false),
        wake: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
    });
    Ok((ExecQueue { shared: Arc::clone(&shared), filled: sender }, ExecReceiver { shared, filled: receiver }))
}

impl ExecQueue {
    /// An end for another thread.
    pub fn sender(&self) -> ExecSender {
        ExecSender {
            queue: self.clone(),
            slots: Arc::new(Slots::new(self.shared.places + SENDERS)),
            large: VecDeque::new(),
        }
    }

    /// How much waits for the worker.
    pub fn depth(&self) -> Depth {
        Depth {
            waiting: self.shared.waiting.load(Ordering::Relaxed),
            places: self.shared.places,
            bytes: self.shared.bytes.load(Ordering::Relaxed),
        }
    }

    /// Makes the worker look at its channels.
    pub fn wake(&self) {
        // EAGAIN: the counter is full, so it is awake anyway.
        let _ = self.shared.wake.write(1);
    }
}

impl ExecSender {
    /// Claims a free slot; `None` if the worker is so far behind that there is none.
    pub fn claim(&mut self) -> Option<Claimed> {
        let shared = &self.queue.shared;
        if shared.waiting.load(Ordering::Acquire) >= shared.places {
            return None;
        }
        let claimed = Claimed { number: self.slots.claim()? };
        // Its memory is made now, and not when a program waits for it.
        drop(self.exec(&claimed));
        Some(claimed)
    }

    /// The event of a claimed slot. Nobody else can want the lock: the slot is claimed.
    pub fn exec(&self, claimed: &Claimed) -> MutexGuard<'_, Exec> {
        self.slots.get(claimed.number).exec()
    }

    /// So much is queued that argument lists should be cut short.
    pub fn short_of_memory(&self) -> bool {
        self.queue.shared.bytes.load(Ordering::Relaxed) > self.queue.shared.bytes_limit
    }

    /// Hands a filled slot to the worker; false if there is no room for it after all.
    #[must_use]
    pub fn send(&mut self, Claimed { number }: Claimed) -> bool {
        let slot = self.slots.get(number);
        let exec = slot.exec();
        let (bytes, is_large) = (exec.len(), exec.image.is_larger_than(KEPT_BUFFER));
        drop(exec);
        if is_large && !slot.large.swap(true, Ordering::Relaxed) {
            self.large.push_back(number);
        }
        let shared = &self.queue.shared;
        shared.bytes.fetch_add(bytes, Ordering::Relaxed);
        shared.waiting.fetch_add(1, Ordering::Relaxed);
        // Disconnected: the worker has ended, and so will the process.
        let sent = self.queue.filled.try_send(Filled { slots: Arc::clone(&self.slots), number }).is_ok();
        if !sent {
            slot.free();
            shared.bytes.fetch_sub(bytes, Ordering::Relaxed);
            shared.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        if shared.worker_sleeps.swap(false, Ordering::SeqCst) {
            self.queue.wake();
        }
        sent
    }

    /// Makes the worker look at its channels.
    pub fn wake(&self) {
        self.queue.wake();
    }

    /// Gives a slot back without sending it.
    pub fn release(&mut self, claimed: Claimed) {
        self.slots.get(claimed.number).free();
    }

    /// Gives large argument lists of free slots back. Bounded: for a time in which a program is not held for long.
    pub fn tidy(&mut self) {
        for _ in 0..TIDIED.min(self.large.len()) {
            let Some(number) = self.large.pop_front() else { break };
            let slot = self.slots.get(number);
            if slot.claim() {
                slot.exec().image.shrink(KEPT_BUFFER);
                slot.large.store(false, Ordering::Relaxed);
                slot.free();
            } else {
                self.large.push_back(number);
            }
        }
    }
}

impl ExecReceiver {
    /// Takes the next event, if there is one.
    ///
    /// What it returns is a copy: the memory stays the sender's (measured with memory that was not: a twentieth of a storm
    /// was lost).
    pub fn receive(&self) -> Option<Exec> {
        let Filled { slots, number } = self.filled.try_recv().ok()?;
        let slot = slots.get(number);
        let exec = {
            let mut exec = slot.exec();
            self.shared.bytes.fetch_sub(exec.len(), Ordering::Relaxed);
            let descriptor = std::mem::take(&mut exec.descriptor);
            // It is the index's, which the listener must not be the last to let go of.
            let identity = exec.details.identity.take();
            let mut copy = Exec { descriptor, ..exec.clone() };
            copy.details.identity = identity;
            copy
        };
        slot.free();
        self.shared.waiting.fetch_sub(1, Ordering::Release);
        Some(exec)
    }

    /// Waits until something was sent, [`wake`](ExecQueue::wake) was called or the time is over.
    pub fn wait(&self, timeout: Option<Duration>) {
        self.shared.worker_sleeps.store(true, Ordering::SeqCst);
        if self.filled.is_empty() {
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

    fn put(sender: &mut ExecSender, pid: u32) -> bool {
        let Some(claimed) = sender.claim() else { return false };
        sender.exec(&claimed).pid = pid;
        sender.send(claimed)
    }

    #[test]
    fn full_and_free_again() {
        let (queue, receiver) = queue(2, 1000).unwrap();
        let (sender, other) = (&mut queue.sender(), &mut queue.sender());
        let idle: Vec<(ExecSender, Claimed)> = (0..10)
            .map(|_| {
                let mut sender = queue.sender();
                let claimed = sender.claim().unwrap();
                (sender, claimed)
            })
            .collect();
        assert!(put(sender, 1) && put(other, 2) && !put(sender, 3) && !put(other, 3));
        let pid = || receiver.receive().map(|exec| exec.pid);
        assert_eq!(pid(), Some(1));
        assert!(put(other, 4) && !put(sender, 5));
        assert_eq!(pid(), Some(2));
        assert_eq!(pid(), Some(4));
        assert_eq!(pid(), None);
        let claimed = sender.claim().unwrap();
        sender.release(claimed);
        assert!(put(sender, 6) && put(sender, 7));
        // What was claimed before is sent all the same.
        for (mut sender, claimed) in idle {
            assert!(sender.send(claimed));
        }
        assert_eq!(queue.depth().waiting, 12);
        assert!(!put(sender, 8));
        // Nobody receives any more.
        receiver.receive().unwrap();
        while receiver.receive().is_some() {}
        drop(receiver);
        assert!(!put(sender, 9) && !put(sender, 10) && !put(sender, 11));
        assert_eq!(queue.depth(), Depth { waiting: 0, places: 2, bytes: 0 });
    }

    #[test]
    fn a_slot_is_never_another_senders() {
        let (queue, receiver) = queue(2, 1000).unwrap();
        let (sender, other) = (&mut queue.sender(), &mut queue.sender());
        let place = |sender: &mut ExecSender| {
            let claimed = sender.claim().unwrap();
            let place = std::ptr::from_ref(&*sender.exec(&claimed)).addr();
            assert!(sender.send(claimed));
            receiver.receive().unwrap();
            place
        };
        let own = place(sender);
        assert_ne!(place(other), own, "which is free again");
        assert_eq!(place(sender), own);
    }

    #[test]
    fn queued_bytes_are_known() {
        let (queue, receiver) = queue(4, 10).unwrap();
        let mut sender = queue.sender();
        assert_eq!(queue.depth(), Depth { waiting: 0, places: 4, bytes: 0 });
        let claimed = sender.claim().unwrap();
        sender.exec(&claimed).image.set_arguments(&[b'x'; 11], false);
        assert!(sender.send(claimed));
        assert!(sender.short_of_memory());
        assert_eq!(queue.depth(), Depth { waiting: 1, places: 4, bytes: 11 });
        receiver.receive().unwrap();
        assert!(!sender.short_of_memory());
    }

    #[test]
    fn large_buffers_are_given_back_once_their_slots_are_free() {
        let (queue, receiver) = queue(8, 1 << 20).unwrap();
        let mut sender = queue.sender();
        for length in [KEPT_BUFFER + 1, 10, KEPT_BUFFER + 1] {
            let claimed = sender.claim().unwrap();
            sender.exec(&claimed).image.set_arguments(&vec![b'x'; length], false);
            assert!(sender.send(claimed));
        }
        let large = |sender: &ExecSender| {
            (0..3).filter(|&number| sender.slots.get(number).exec().image.is_larger_than(KEPT_BUFFER)).count()
        };
        sender.tidy();
        assert_eq!(large(&sender), 2, "they are in use");
        assert_eq!(receiver.receive().unwrap().image.len(), KEPT_BUFFER + 1);
        sender.tidy();
        assert_eq!(large(&sender), 1);
        while receiver.receive().is_some() {}
        sender.tidy();
        assert_eq!((large(&sender), sender.large.len()), (0, 0));
    }

    #[test]
    fn many_senders_lose_nothing() {
        let (queue, receiver) = queue(64, 1 << 20).unwrap();
        let threads: Vec<_> = (0..4u32)
            .map(|thread| {
                let mut sender = queue.sender();
                std::thread::spawn(move || {
                    for number in 0..5000 {
                        while !put(&mut sender, thread * 5000 + number) {
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
