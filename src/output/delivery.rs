//! From the worker through the journal to the outputs.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{SendTimeoutError, Sender as Orders, TrySendError};

use super::Destination;
use super::entry::Form;
use super::sender::{Sender, Signals};
use crate::alert::{Host, Record};
use crate::diagnostics::counted;
use crate::harden;
use crate::harden::roles::Role;
use crate::journal::progress::Progress;
use crate::journal::shared::Shared;
use crate::journal::start::Journal;
use crate::journal::status::Status;
use crate::journal::thread::Order;
use crate::journal::{Settings, WhenFull};

/// How long the worker waits for a full queue before it gives records up until it moves again.
const PATIENCE: Duration = Duration::from_millis(200);
/// How often a worker that waits as long as it takes looks whether the end has begun.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long an attempt at writing may take to notice that there is no more time.
const GIVING_UP: Duration = Duration::from_millis(500);

/// The journal and the outputs.
pub struct Delivery {
    orders: Orders<Order>,
    shared: Arc<Shared>,
    journal: Option<JoinHandle<()>>,
    outputs: Vec<Running>,
    status: Status,
    /// A full queue is waited for as long as it takes.
    waits: bool,
    stalled: bool,
}

/// An output that runs.
struct Running {
    progress: Arc<Progress>,
    signals: Arc<Signals>,
    thread: Option<JoinHandle<()>>,
}

impl Delivery {
    /// Opens the journal in `folder` and starts all threads.
    pub fn start(
        settings: Settings,
        folder: PathBuf,
        destinations: Vec<Box<dyn Destination>>,
        host: &Host,
    ) -> io::Result<Delivery> {
        let outputs = destinations.iter().map(|it| (it.name(), it.goes_on_after_restart())).collect();
        let mut forms: Vec<Form> = Vec::new();
        // JSON in any case: it holds everything, should an output be given another form.
        for form in destinations.iter().map(|it| it.form()).chain([Form::Json]) {
            if !forms.contains(&form) {
                forms.push(form);
            }
        }
        let waits = settings.enabled && settings.when_full == WhenFull::StopReading;
        let journal = Journal::start(settings, folder, outputs, forms, host.clone())?;
        let mut outputs = Vec::new();
        for (destination, progress) in destinations.into_iter().zip(&journal.outputs) {
            let signals = Arc::new(Signals::default());
            let sender = Sender::new(
                destination,
                Arc::clone(&journal.shared),
                Arc::clone(progress),
                Arc::clone(&signals),
                journal.orders.clone(),
            );
            let thread = std::thread::Builder::new().name("output".to_owned()).stack_size(256 * 1024).spawn(
                move || {
                    harden::enter(Role::Output);
                    sender.run();
                },
            )?;
            outputs.push(Running { progress: Arc::clone(progress), signals, thread: Some(thread) });
        }
        Ok(Delivery {
            status: journal.status(),
            orders: journal.orders,
            shared: journal.shared,
            journal: Some(journal.thread),
            outputs,
            waits,
            stalled: false,
        })
    }

    /// What can be asked of journal and outputs while they run.
    pub fn status(&self) -> Status {
        self.status.clone()
    }

    /// What tells a worker that waits for room that the end has begun.
    pub fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Hands a record to the journal's thread. If its queue is full and stays so for a moment, the record is dropped and
    /// counted, unless the administrator wants to wait.
    pub fn offer(&mut self, record: Record) {
        let mut order = match self.orders.try_send(Order::Write(Box::new(record))) {
            Ok(()) => {
                self.stalled = false;
                return;
            }
            Err(TrySendError::Full(order) | TrySendError::Disconnected(order)) => order,
        };
        if self.waits {
            while !self.shared.ending.load(Relaxed) {
                order = match self.orders.send_timeout(order, LOOK_EVERY) {
                    Ok(()) => return,
                    Err(SendTimeoutError::Timeout(order) | SendTimeoutError::Disconnected(order)) => order,
                };
            }
        } else if !self.stalled {
            if self.orders.send_timeout(order, PATIENCE).is_ok() {
                return;
            }
            self.stalled = true;
        }
        self.shared.drop_records(1);
    }

    /// Makes the outputs open their places anew.
    pub fn reopen(&self) {
        self.outputs.iter().for_each(|output| output.signals.reopen.store(true, Relaxed));
        self.shared.wake();
    }

    /// Writes down what is queued and lets the outputs send it, until `deadline`. Says what each has done.
    pub fn close(mut self, deadline: Instant) {
        self.shared.ending.store(true, Relaxed);
        if self.orders.send_deadline(Order::Close, deadline).is_err()
            || !finished_by(self.journal.as_ref(), deadline)
        {
            log::warn!("the journal did not write everything in time");
        }
        self.outputs.iter().for_each(|output| output.signals.ending.store(true, Relaxed));
        self.shared.wake();
        for output in &mut self.outputs {
            if !finished_by(output.thread.as_ref(), deadline) {
                log::warn!("output {} did not take everything in time", output.progress.name());
            }
        }
        self.outputs.iter().for_each(|output| output.signals.over.store(true, Relaxed));
        self.shared.wake();
        let deadline = Instant::now() + GIVING_UP;
        for output in &mut self.outputs {
            // One that hangs in a system call ends with the process.
            if finished_by(output.thread.as_ref(), deadline)
                && let Some(thread) = output.thread.take()
            {
                // A panic of the thread has ended the process already.
                let _ = thread.join();
            }
        }
        let newest = self.status.newest();
        let on_disk = self.shared.on_disk.load(Relaxed);
        for output in &self.outputs {
            let progress = &output.progress;
            let left = newest.saturating_sub(progress.position());
            let (written, mut lost) = progress.counts();
            let waits = on_disk && progress.keeps();
            if !waits {
                lost += left;
            }
            log::info!(
                "output {}: written={written} lost={lost} waiting={}",
                progress.name(),
                if waits { left } else { 0 }
            );
            if waits && left > 0 {
                log::info!(
                    "{} in the journal for output {}, which is sent them after the next start",
                    if left == 1 { "1 record waits".to_owned() } else { format!("{left} records wait") },
                    progress.name()
                );
            }
        }
        let dropped = self.shared.dropped.load(Relaxed);
        if dropped > 0 {
            log::warn!("{} never reached the journal", counted(dropped, "record", "records"));
        }
    }
}

fn finished_by(thread: Option<&JoinHandle<()>>, deadline: Instant) -> bool {
    while thread.is_some_and(|thread| !thread.is_finished()) {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}

#[cfg(test)]
mod tests;
