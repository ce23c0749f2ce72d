//! How the journal begins, where an earlier run has left it.

use std::collections::VecDeque;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::Instant;

use crossbeam_channel::Sender;
use nix::fcntl::Flock;

use super::folder::Folder;
use super::position::{self, Kept, PositionFile};
use super::progress::Progress;
use super::scan::Damage;
use super::shared::Shared;
use super::status::Status;
use super::store::{Clocks, Recovered, Store, recover};
use super::sync::Synchroniser;
use super::thread::{Disk, Order, PAUSES, Thread, notice};
use super::{Settings, number_of_segment};
use crate::alert::{Host, Notice};
use crate::clock;
use crate::diagnostics::counted;
use crate::harden;
use crate::harden::roles::Role;
use crate::output::backoff::Backoff;
use crate::output::entry::Form;
use crate::rules::model::Severity;

/// Records that may wait for the journal's thread.
const QUEUE: usize = 4096;
/// The folder of positions in the journal's.
const POSITIONS: &str = "positions";

/// Where the journal is.
pub(super) struct Place {
    path: PathBuf,
    positions: Option<Folder>,
    /// Held as long as this process runs, so that no other writes here.
    lock: Option<Flock<File>>,
    orders: Sender<Order>,
}

/// What became of an attempt at a folder that was not there at the start.
pub(super) enum Attempt {
    /// It is there now.
    Opened(Box<Store>),
    /// It still cannot be made.
    NotYet,
    /// It must not be used.
    Never(String),
}

/// Opens folder, lock and positions.
struct Opened {
    folder: Arc<Folder>,
    /// `None` if there is none and none can be made; an error if there is one that cannot be used.
    positions: io::Result<Option<Folder>>,
    lock: Flock<File>,
}

/// Why the folder cannot be used.
enum Obstacle {
    /// There is none, and it cannot be made now.
    Missing(io::Error),
    /// Not before the next start.
    Lasting(String),
}

fn open(path: &Path) -> Result<Opened, Obstacle> {
    let folder = match Folder::make(path) {
        Ok(folder) => Arc::new(folder),
        Err(error) if Folder::open_at(path).is_err_and(|it| it.kind() == io::ErrorKind::NotFound) => {
            return Err(Obstacle::Missing(error));
        }
        Err(error) => return Err(Obstacle::Lasting(error.to_string())),
    };
    let lock = folder.lock().map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => Obstacle::Lasting("another execwatch has it".to_owned()),
        _ => Obstacle::Lasting(error.to_string()),
    })?;
    let path = path.join(POSITIONS);
    let positions = match Folder::open_at(&path) {
        // If it cannot be made, records can still be sent from the journal.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Folder::make(&path).ok()),
        result => result.map(Some),
    };
    Ok(Opened { folder, positions, lock })
}

impl Place {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the folder that could not be made at the start.
    pub(super) fn open_late(&mut self, settings: &Settings, shared: &Shared) -> Attempt {
        let opened = match open(&self.path) {
            Ok(opened) => opened,
            Err(Obstacle::Missing(_)) => return Attempt::NotYet,
            Err(Obstacle::Lasting(why)) => {
                return Attempt::Never(format!(
                    "the journal in {} cannot be used: {why}",
                    self.path.display()
                ));
            }
        };
        let names = opened.folder.names().unwrap_or_default();
        if names.iter().any(|name| number_of_segment(name).is_some()) {
            return Attempt::Never(format!(
                "the journal in {} appeared after the start and holds records already; it is taken at the next start",
                self.path.display()
            ));
        }
        match self.take(opened, settings, shared, 0) {
            Ok(store) => Attempt::Opened(Box::new(store)),
            Err(_) => Attempt::NotYet,
        }
    }

    fn take(
        &mut self,
        opened: Opened,
        settings: &Settings,
        shared: &Shared,
        saved: u64,
    ) -> io::Result<Store> {
        let orders = self.orders.clone();
        let failed = move |error| {
            // If so much waits that there is no room for it, the disk is slow rather than broken.
            let _ = orders.try_send(Order::NotSynchronised(error));
        };
        let synchroniser = Synchroniser::start(Arc::clone(&opened.folder), failed)?;
        shared.set_folder(Arc::clone(&opened.folder));
        self.positions = opened.positions.unwrap_or_default();
        self.lock = Some(opened.lock);
        let age_s = i64::try_from(settings.max_age.as_secs() / 8).unwrap_or(i64::MAX);
        Ok(Store::new(opened.folder, settings.segment_size(), age_s, saved, synchroniser))
    }

    /// Makes files for positions that have none.
    pub(super) fn keep_positions(&mut self, outputs: &[Arc<Progress>]) {
        if self.positions.is_none() {
            self.positions = Folder::make(&self.path.join(POSITIONS)).ok();
        }
        let Some(folder) = &self.positions else { return };
        for output in outputs.iter().filter(|output| output.keeps() && !output.has_file()) {
            if let Ok((file, _)) = PositionFile::open(folder, output.name(), output.position()) {
                output.set_file(file);
            }
        }
    }
}

/// The journal, from outside.
#[derive(Debug)]
pub struct Journal {
    /// What outputs read from.
    pub shared: Arc<Shared>,
    /// How far each output is, in the given order.
    pub outputs: Vec<Arc<Progress>>,
    /// Where records are sent.
    pub orders: Sender<Order>,
    /// The thread.
    pub thread: JoinHandle<()>,
}

impl Journal {
    /// Opens the journal in `folder`, unless it is switched off, and starts its thread. `outputs` are names, and whether
    /// their positions are kept; `forms` are what they want.
    pub fn start(
        settings: Settings,
        folder: PathBuf,
        outputs: Vec<(String, bool)>,
        forms: Vec<Form>,
        host: Host,
    ) -> io::Result<Journal> {
        let (orders, receiver) = crossbeam_channel::bounded(QUEUE);
        let shared = Arc::new(Shared::default());
        let outputs: Vec<Arc<Progress>> =
            outputs.into_iter().map(|(name, keeps)| Arc::new(Progress::new(name, keeps))).collect();
        let mut beginning = Beginning {
            place: Place { path: folder, positions: None, lock: None, orders: orders.clone() },
            settings,
            shared: Arc::clone(&shared),
            outputs: outputs.clone(),
            notices: VecDeque::new(),
        };
        let disk = beginning.open()?;
        shared.on_disk.store(matches!(disk, Disk::Works(_)), Relaxed);
        let Beginning { place, settings, notices, .. } = beginning;
        let thread = Thread {
            orders: receiver,
            shared: Arc::clone(&shared),
            outputs: outputs.clone(),
            settings,
            place,
            disk,
            forms,
            host,
            run: RandomState::new().hash_one(clock::realtime_ns()),
            notices,
            pause: Backoff::new(PAUSES),
            failed: None,
            unsynchronised: None,
            full_said: false,
            closing: false,
        };
        let thread = std::thread::Builder::new().name("journal".to_owned()).stack_size(256 * 1024).spawn(
            move || {
                harden::enter(Role::Journal);
                thread.run();
            },
        )?;
        Ok(Journal { shared, outputs, orders, thread })
    }

    /// What can be asked of it.
    pub fn status(&self) -> Status {
        Status { shared: Arc::clone(&self.shared), outputs: self.outputs.clone() }
    }
}

/// The parts while they are put together.
struct Beginning {
    place: Place,
    settings: Settings,
    shared: Arc<Shared>,
    outputs: Vec<Arc<Progress>>,
    notices: VecDeque<Notice>,
}

impl Beginning {
    fn say(&mut self, kind: &'static str, severity: Severity, message: String) {
        log::warn!("{message}");
        self.notices.push_back(notice(kind, severity, message));
    }

    fn open(&mut self) -> io::Result<Disk> {
        let path = self.place.path.display().to_string();
        let memory = self.settings.memory;
        self.shared.lock().next = 1;
        if !self.settings.enabled {
            log::info!(
                "the journal is switched off: up to {memory} bytes of records wait in memory, and end with execwatch"
            );
            return Ok(Disk::Off);
        }
        let without = format!(
            "records are kept in memory only (up to {memory} bytes), where neither kill -9 nor a restart leaves them. \
             See to the folder of [journal] or [state], or set [journal] enabled = false"
        );
        let opened = match open(&self.place.path) {
            Ok(opened) => opened,
            Err(Obstacle::Missing(error)) => {
                self.say(
                    "journal-failed",
                    Severity::Medium,
                    format!("there is no journal: {path} cannot be made: {error}; {without}"),
                );
                return Ok(Disk::Fails { store: None, next: Instant::now() + PAUSES.0 });
            }
            Err(Obstacle::Lasting(why)) => {
                self.say(
                    "journal-failed",
                    Severity::Medium,
                    format!("there is no journal: {path} cannot be used: {why}; {without}"),
                );
                return Ok(Disk::Off);
            }
        };
        let folder = Arc::clone(&opened.folder);
        let kept = self.positions(&opened.positions);
        // An output that is new wants nothing of what is there.
        let of_outputs = kept.iter().flatten().map(|kept| match kept {
            Kept::Number(number) => *number,
            Kept::Damaged => 0,
        });
        let sent = of_outputs.min().unwrap_or(u64::MAX);
        let highest = kept.iter().flatten().filter_map(|kept| match kept {
            Kept::Number(number) => Some(*number),
            Kept::Damaged => None,
        });
        let highest = highest.max().unwrap_or(0);
        let found = match recover(&folder, sent, Clocks::now()) {
            Ok(found) => found,
            Err(error) => {
                let message = format!("there is no journal: {path} cannot be listed: {error}; {without}");
                self.say("journal-failed", Severity::Medium, message);
                return Ok(Disk::Off);
            }
        };
        let last = found.last.max(highest);
        self.report(&path, &found);
        let first = found.segments.front().map_or(last + 1, |segment| segment.first);
        {
            let mut state = self.shared.lock();
            state.segments = found.segments;
            state.next = last + 1;
        }
        for (output, kept) in self.outputs.clone().iter().zip(&kept) {
            match kept {
                None => output.advance(last),
                Some(Kept::Number(number)) => output.advance(*number),
                Some(Kept::Damaged) => {
                    output.advance(first - 1);
                    let message = format!(
                        "the position of output {} is damaged or cannot be read; it repeats what the journal holds, with \
                         the same ids",
                        output.name()
                    );
                    self.say("journal-damaged", Severity::Low, message);
                }
            }
            let waiting = last.saturating_sub(output.position());
            if waiting > 0 && output.keeps() {
                log::info!(
                    "output {} goes on where it was: {} from before the start",
                    output.name(),
                    if waiting == 1 {
                        "1 record waits".to_owned()
                    } else {
                        format!("{waiting} records wait")
                    }
                );
            }
        }
        let writable = probe(&folder);
        let store = self.place.take(opened, &self.settings, &self.shared, last)?;
        self.forget_others(last);
        self.place.keep_positions(&self.outputs);
        match writable {
            Ok(()) => Ok(Disk::Works(store)),
            Err(error) => {
                let message = format!("the journal in {path} cannot be written: {error}; {without}");
                self.say("journal-failed", Severity::High, message);
                Ok(Disk::Fails { store: Some(store), next: Instant::now() + PAUSES.0 })
            }
        }
    }

    /// What is kept of each output's position. One that cannot be read counts as damaged: an output without a position
    /// would be a new one, for which nothing waits.
    fn positions(&self, folder: &io::Result<Option<Folder>>) -> Vec<Option<Kept>> {
        if let Err(error) = folder {
            let path = self.place.path.join(POSITIONS);
            log::warn!("the folder of the outputs' positions, {}, cannot be used: {error}", path.display());
        }
        let look = |output: &Arc<Progress>| {
            if !output.keeps() {
                return None;
            }
            let Ok(folder) = folder else { return Some(Kept::Damaged) };
            position::look(folder.as_ref()?, &position::file_name(output.name())).unwrap_or_else(|error| {
                log::warn!("the position of output {} cannot be read: {error}", output.name());
                Some(Kept::Damaged)
            })
        };
        self.outputs.iter().map(look).collect()
    }

    /// Removes the positions of outputs that are configured no longer, and says what waited for them.
    fn forget_others(&mut self, last: u64) {
        let Some(folder) = &self.place.positions else { return };
        let known: Vec<String> = self
            .outputs
            .iter()
            .filter(|output| output.keeps())
            .map(|it| position::file_name(it.name()))
            .collect();
        let mut messages = Vec::new();
        for file in folder.names().unwrap_or_default() {
            if known.contains(&file) {
                continue;
            }
            let waited = match position::look(folder, &file) {
                Ok(Some(Kept::Number(number))) if number >= last => None,
                Ok(Some(Kept::Number(number))) => Some(counted(last - number, "record", "records")),
                Ok(None) => None,
                Ok(Some(Kept::Damaged)) | Err(_) => Some("an unknown number of records".to_owned()),
            };
            if let Some(waited) = waited {
                messages.push(format!(
                    "{waited} that waited for output {} will not be sent there: it is not configured any more",
                    position::output_name(&file)
                ));
            }
            // If it cannot be removed, it is said again at the next start.
            let _ = folder.remove(&file);
        }
        messages.into_iter().for_each(|message| self.say("output-removed", Severity::Low, message));
    }

    fn report(&mut self, path: &str, found: &Recovered) {
        let Damage { places, bytes, torn } = found.damage;
        if places > 0 {
            let message = format!(
                "the journal in {path} is damaged in {}: {bytes} bytes were passed over; the records that are \
                 missing are counted by each output that has not sent them",
                counted(places, "place", "places")
            );
            self.say("journal-damaged", Severity::High, message);
        }
        if torn > 0 {
            let message = format!(
                "the last {torn} bytes of the journal in {path} are part of a record that was not written to its end \
                 when execwatch or the host stopped; no output has seen it"
            );
            self.say("journal-damaged", Severity::Low, message);
        }
        for message in &found.messages {
            self.say("journal-damaged", Severity::High, message.clone());
        }
    }
}

/// A file can be made and written in the folder.
fn probe(folder: &Folder) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    const NAME: &str = ".probe";
    let _ = folder.remove(NAME);
    let outcome = folder.create(NAME).and_then(|file| file.write_all_at(&[0; 512], 0));
    let _ = folder.remove(NAME);
    outcome
}
