//! The subject of rules: an exec, and what follows from it; `values` reads its fields.

mod values;

use std::cell::OnceCell;
use std::net::SocketAddr;
use std::sync::Arc;

pub use values::{CAPABILITIES, capability_names, join, utility_value};

use super::catalogue::{Catalogue, Hints, Recognised};
use super::fields::Role;
use super::value::Value;
use crate::alert::Clock;
use crate::baseline::decision::Past;
use crate::calendar::LocalTime;
use crate::identity::settle::Executables;
use crate::process::container::Named;
use crate::process::details::{Details, Namespaces};
use crate::process::entry::{self, Entry, Link};
use crate::process::exec::{Exec, Image};
use crate::process::names::Accounts;
use crate::process::place::Place;
use crate::process::relatives::{Ancestors, Leader, Processes, Relative};

/// What is needed besides the exec to read its fields.
#[derive(Debug)]
pub struct Surroundings {
    /// Names of users and groups.
    pub accounts: Accounts,
    /// The host's namespaces.
    pub namespaces: Namespaces,
    /// Other processes.
    pub processes: Box<dyn Processes>,
    /// Contents and owners of files.
    pub files: Arc<Executables>,
}

/// An exec whose fields are read.
#[derive(Debug)]
pub struct Subject<'a> {
    image: &'a Image,
    /// `None` on the hot path: all of it is unknown there.
    whole: Option<Whole<'a>>,
    catalogue: &'a Catalogue,
    utility: Option<Recognised>,
    /// It is not known whether the file is a utility's.
    unsettled: bool,
    cmdline: OnceCell<Vec<u8>>,
}

#[derive(Debug)]
struct Whole<'a> {
    exec: &'a Exec,
    surroundings: &'a Surroundings,
    clock: &'a dyn Clock,
    session_leader: OnceCell<Option<Relative>>,
    group_leader: OnceCell<Option<Relative>>,
    place: OnceCell<Place>,
    container: OnceCell<Option<Arc<Named>>>,
    ssh_client: OnceCell<Option<SocketAddr>>,
    /// The kind of entry, and which of program (0) and ancestors (from 1) is its leader.
    entry: OnceCell<Option<(Entry, usize)>>,
    past: Option<Past>,
    /// A listener reads it, and holds the program meanwhile.
    held: bool,
}

impl std::fmt::Debug for dyn Clock + '_ {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}

/// Whose field is read.
#[derive(Debug, Clone, Copy)]
pub enum Person<'p> {
    /// The executed program's.
    Own,
    /// Its parent's, of which some was read while the program was held.
    Parent,
    /// Another process's.
    Relative(&'p Relative),
    /// It is known that there is no such process.
    Nobody,
    /// It could not be found.
    Missing,
}

impl<'a> Subject<'a> {
    /// On the hot path: only executable and arguments are known.
    pub fn on_hot_path(image: &'a Image, catalogue: &'a Catalogue, hints: Hints<'_>) -> Self {
        let utility = catalogue.recognise(image, hints);
        let unsettled = hints.unsettled;
        Subject { image, whole: None, catalogue, utility, unsettled, cmdline: OnceCell::new() }
    }

    /// With everything that was read.
    pub fn whole(
        exec: &'a Exec,
        catalogue: &'a Catalogue,
        surroundings: &'a Surroundings,
        clock: &'a dyn Clock,
    ) -> Self {
        let whole = Whole {
            exec,
            surroundings,
            clock,
            session_leader: OnceCell::new(),
            group_leader: OnceCell::new(),
            place: OnceCell::new(),
            container: OnceCell::new(),
            ssh_client: OnceCell::new(),
            entry: OnceCell::new(),
            past: None,
            held: false,
        };
        let hints = exec.details.hints(exec.details.comm());
        Subject { whole: Some(whole), ..Subject::on_hot_path(&exec.image, catalogue, hints) }
    }

    /// On a listener's thread, which holds the program: only what can be read there is known.
    pub fn on_listener(mut self) -> Self {
        if let Some(whole) = &mut self.whole {
            whole.held = true;
        }
        self
    }

    /// A listener reads it, and holds the program meanwhile.
    pub fn held(&self) -> bool {
        self.whole.as_ref().is_some_and(|whole| whole.held)
    }

    /// Tells what the baseline knows of the program.
    pub fn set_past(&mut self, past: Option<Past>) {
        if let Some(whole) = &mut self.whole {
            whole.past = past;
        }
    }

    /// What was read of the process; `None` on the hot path.
    pub fn details(&self) -> Option<&'a Details> {
        self.whole.as_ref().map(|whole| &whole.exec.details)
    }

    /// Only executable and arguments have been read.
    pub fn hot(&self) -> bool {
        self.whole.is_none()
    }

    /// The catalogue of the rules.
    pub fn catalogue(&self) -> &'a Catalogue {
        self.catalogue
    }

    /// Executable and arguments.
    pub fn image(&self) -> &'a Image {
        self.image
    }

    /// The utility it was recognised as.
    pub fn utility(&self) -> Option<Recognised> {
        self.utility
    }

    /// The ancestors, the parent first; none on the hot path.
    pub fn ancestors(&self) -> &'a Ancestors {
        const NOT_LOOKED_FOR: &Ancestors =
            &Ancestors { processes: Vec::new(), complete: false, earlier: Vec::new() };
        self.whole.as_ref().map_or(NOT_LOOKED_FOR, |whole| &whole.exec.ancestors)
    }

    /// The process that plays a role; of ancestors in general there is no one.
    pub fn person(&self, role: Role) -> Person<'_> {
        let Some(whole) = &self.whole else { return Person::Missing };
        let details = &whole.exec.details;
        match role {
            Role::Own => Person::Own,
            Role::Ancestor => Person::Missing,
            Role::Parent if details.ppid == Some(0) => Person::Nobody,
            Role::Parent => Person::Parent,
            Role::AncestorAt(number) => self.ancestor(usize::from(number).saturating_sub(1)),
            Role::SessionLeader => whole.leader(&whole.session_leader, Leader::Session, details.session),
            Role::GroupLeader => whole.leader(&whole.group_leader, Leader::Group, details.pgid),
            Role::EntryLeader => match self.entry() {
                Some((_, 0)) => Person::Own,
                Some((_, number)) => self.ancestor(number - 1),
                None => Person::Missing,
            },
        }
    }

    /// How the way to the program began, and with which of the program (0) and its ancestors (from 1).
    pub fn entry(&self) -> Option<(Entry, usize)> {
        let whole = self.whole.as_ref()?;
        *whole.entry.get_or_init(|| {
            let details = &whole.exec.details;
            let place = details.cgroup().map(|cgroup| whole.place.get_or_init(|| Place::of_cgroup(cgroup)));
            let own = Link {
                pid: whole.exec.pid,
                name: self.image.name(),
                comm: details.comm(),
                vpid: details.vpid,
                container: place.map(|place| place.container_id.clone()),
                of_service: place.map(Place::of_service),
            };
            let ancestors = self.ancestors();
            let chain: Vec<Link<'_>> =
                std::iter::once(own).chain(ancestors.processes.iter().map(Relative::link)).collect();
            entry::find(&chain, ancestors.complete)
        })
    }

    /// Where it runs, as its cgroup tells.
    pub fn place(&self) -> Option<&Place> {
        let whole = self.whole.as_ref()?;
        let cgroup = whole.exec.details.cgroup()?;
        Some(whole.place.get_or_init(|| Place::of_cgroup(cgroup)))
    }

    /// What its runtime tells of the container where it runs.
    pub fn container(&self) -> Option<&Named> {
        let whole = self.whole.as_ref()?;
        let place = self.place()?;
        whole.container.get_or_init(|| whole.surroundings.processes.container(place)).as_deref()
    }

    /// One of these, which are absent on the host, and unknown if the runtime tells nothing.
    fn named(&self, part: impl Fn(&Named) -> Option<&str>, of_all: bool) -> Value<'_> {
        match (self.place(), self.container()) {
            (None, _) => Value::Unknown,
            (Some(place), _) if place.container_id.is_none() => Value::Absent,
            (_, None) => Value::Unknown,
            (_, Some(named)) => match part(named) {
                Some(text) => Value::Text(text.as_bytes().into()),
                None if of_all => Value::Unknown,
                None => Value::Absent,
            },
        }
    }

    /// The client of the ssh session: `None` outside of one, `Some(None)` if it is not known, or whether there is one.
    ///
    /// The leader's environment is as the server made it; a process after it may have changed its own.
    pub fn ssh_client(&self) -> Option<Option<SocketAddr>> {
        let Some(whole) = &self.whole else { return Some(None) };
        let leader = match self.entry() {
            Some((Entry::Ssh, index)) => {
                index.checked_sub(1).and_then(|at| self.ancestors().processes.get(at))
            }
            Some(_) => return None,
            None => return Some(None),
        };
        let find = || {
            let of_leader =
                |leader: &Relative| whole.surroundings.processes.ssh_client(leader.pid, leader.start_ticks);
            leader.and_then(of_leader).or(whole.exec.details.ssh_client)
        };
        Some(*whole.ssh_client.get_or_init(find))
    }

    /// The nearest program on the way here that lets a user act as another, and the process that called it.
    ///
    /// It may be an ancestor that waits for what it started, or what the program itself or an ancestor was before.
    pub fn elevation(&self) -> Option<(&'static str, Option<&'a Relative>)> {
        const PROGRAMS: [&str; 6] = ["sudo", "su", "doas", "pkexec", "runuser", "sudo-rs"];
        let found = self.ancestors();
        let ancestors = &found.processes;
        let named = |image: &Image| {
            let own = image.name()?;
            PROGRAMS.into_iter().find(|name| name.as_bytes() == own)
        };
        let was = |earlier: &[Image]| earlier.iter().find_map(named);
        let now = |ancestor: &Relative| named(&ancestor.image).or_else(|| was(&ancestor.earlier));
        // The first that may be the caller.
        let (program, next) = match was(&found.earlier) {
            Some(program) => (program, 0),
            None => ancestors.iter().enumerate().find_map(|(at, it)| Some((now(it)?, at + 1)))?,
        };
        // sudo watches over a process of its own, so that two of the name may follow each other.
        let above = ancestors.iter().skip(next).find(|ancestor| named(&ancestor.image) != Some(program));
        Some((program, above))
    }

    fn ancestor(&self, index: usize) -> Person<'_> {
        let ancestors = self.ancestors();
        match ancestors.processes.get(index) {
            Some(ancestor) => Person::Relative(ancestor),
            None if ancestors.complete => Person::Nobody,
            None => Person::Missing,
        }
    }
}

impl Whole<'_> {
    /// When it was executed, in nanoseconds since 1970.
    fn time_ns(&self) -> u64 {
        self.clock.wall_from_monotonic(self.exec.timestamp_ns)
    }

    /// The same in the host's time zone, if it is known.
    fn local(&self) -> Option<LocalTime> {
        self.clock.local(self.time_ns() / 1_000_000_000)
    }

    fn leader<'w>(
        &'w self,
        cell: &'w OnceCell<Option<Relative>>,
        of: Leader,
        pid: Option<u32>,
    ) -> Person<'w> {
        match pid {
            // A leader outside the pid namespace that /proc shows, or none at all: a kernel thread's child.
            Some(0) => Person::Nobody,
            Some(pid) if pid == self.exec.pid => Person::Own,
            _ => {
                let find = || self.surroundings.processes.leader(of, pid, self.exec.details.start_ticks);
                cell.get_or_init(find).as_ref().map_or(Person::Missing, Person::Relative)
            }
        }
    }

    fn place<'w>(&'w self, details: &Details, part: impl Fn(&'w Place) -> Option<&'w str>) -> Value<'w> {
        match details.cgroup() {
            Some(cgroup) => {
                let place = self.place.get_or_init(|| Place::of_cgroup(cgroup));
                part(place).map_or(Value::Absent, |text| Value::Text(text.as_bytes().into()))
            }
            None => Value::Unknown,
        }
    }
}
