//! A thread that has the disk write what the kernel holds for it, so that nobody else waits for that.
//!
//! What is written survives kill -9 and a crash of the daemon at once, because the kernel has it; a power cut or a crash of
//! the kernel takes what came in the last second and the time that the disk took.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::folder::Folder;
use crate::harden;
use crate::harden::roles::Role;

/// How long writes are gathered.
const GATHER: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct Waiting {
    files: Vec<Arc<File>>,
    closed: bool,
}

#[derive(Debug, Default)]
struct Desk {
    waiting: Mutex<Waiting>,
    more: Condvar,
}

/// The thread, seen from the one that writes.
#[derive(Debug)]
pub struct Synchroniser {
    desk: Arc<Desk>,
    thread: Option<JoinHandle<()>>,
}

impl Synchroniser {
    /// Starts the thread. `failed` is told what went wrong.
    pub fn start(
        folder: Arc<Folder>,
        failed: impl Fn(std::io::Error) + Send + 'static,
    ) -> std::io::Result<Synchroniser> {
        let desk = Arc::new(Desk::default());
        let shared = Arc::clone(&desk);
        let run = move || {
            harden::enter(Role::Journal);
            while let Some(files) = shared.next() {
                for file in files {
                    // A segment that was sent and removed meanwhile need not be written any more.
                    if file.metadata().is_ok_and(|it| it.nlink() == 0) {
                        continue;
                    }
                    if let Err(error) = file.sync_data().and_then(|()| folder.synchronise()) {
                        failed(error);
                    }
                }
            }
        };
        let builder = std::thread::Builder::new().name("journal-sync".to_owned()).stack_size(64 * 1024);
        Ok(Synchroniser { desk, thread: Some(builder.spawn(run)?) })
    }

    /// The file was written to.
    pub fn note(&self, file: &Arc<File>) {
        let mut waiting = self.desk.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if !waiting.files.iter().any(|known| Arc::ptr_eq(known, file)) {
            waiting.files.push(Arc::clone(file));
            self.desk.more.notify_one();
        }
    }

    /// Has everything written, and waits for it.
    pub fn close(mut self) {
        self.desk.waiting.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.desk.more.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has ended the process already.
            let _ = thread.join();
        }
    }
}

impl Desk {
    /// Waits for files, and then for more writes to them; `None` at the end.
    fn next(&self) -> Option<Vec<Arc<File>>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        while waiting.files.is_empty() {
            if waiting.closed {
                return None;
            }
            waiting = self.more.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        let deadline = std::time::Instant::now() + GATHER;
        loop {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            if waiting.closed || left.is_zero() {
                return Some(std::mem::take(&mut waiting.files));
            }
            waiting = self.more.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
