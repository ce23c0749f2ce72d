//! Where an alerted program comes from: its ancestors up to the entry, how the way to it began, and where it runs.

use std::net::SocketAddr;

use super::Clock;
use crate::process::container::Named;
use crate::process::details::known_id;
use crate::process::exec::Image;
use crate::process::place::Place;
use crate::process::relatives::{Learnt, Relative};
use crate::rules::subject::{Subject, Surroundings};

/// What an alert says of that.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Origin {
    /// The ancestors, the parent first.
    pub ancestors: Vec<Ancestor>,
    /// These are all.
    pub complete: bool,
    /// What the process itself had executed before, the last first.
    pub earlier: Vec<Image>,
    /// How the way to the program began.
    pub entry: Option<&'static str>,
    /// Where the entry leader is: 0 for the program itself, 1 for the parent.
    pub entry_leader: Option<usize>,
    /// The client of the ssh session.
    pub ssh_client: Option<SocketAddr>,
    /// The nearest of sudo, su and the like, and who called it.
    pub elevation: Option<Elevation>,
    /// Container, pod, unit.
    pub place: Place,
    /// What its runtime tells of the container.
    pub container: Named,
}

/// An ancestor.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ancestor {
    /// Process id; 0 if it is not known.
    pub pid: u32,
    /// What it showed when it made the next process of the chain.
    pub image: Image,
    /// How that was learnt.
    pub learnt: Learnt,
    /// The real user.
    pub uid: Option<u32>,
    /// The same by name.
    pub user: Option<String>,
    /// When it was made: nanoseconds since 1970.
    pub start_ns: Option<u64>,
    /// It has ended.
    pub ended: bool,
}

/// A user acted as another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elevation {
    /// By this program.
    pub program: &'static str,
    /// The user who called it.
    pub uid: Option<u32>,
    /// The same by name.
    pub user: Option<String>,
}

impl Origin {
    /// What is known of a program's.
    pub fn new(subject: &Subject<'_>, surroundings: &Surroundings, clock: &dyn Clock) -> Origin {
        let found = subject.ancestors();
        let uid = |relative: &Relative| known_id(relative.uids, 0);
        let user = |relative: &Relative| {
            let own = relative.names.as_deref().map(|names| &names.user);
            surroundings.accounts.users.of(own, uid(relative)).known()
        };
        let ancestor = |relative: &Relative| Ancestor {
            pid: relative.pid,
            image: relative.image.clone(),
            learnt: relative.learnt,
            uid: uid(relative),
            user: user(relative),
            start_ns: relative.start_ticks.map(|ticks| clock.wall_from_start_ticks(ticks)),
            ended: relative.ended,
        };
        let entry = subject.entry();
        Origin {
            ancestors: found.processes.iter().map(ancestor).collect(),
            complete: found.complete,
            earlier: found.earlier.clone(),
            entry: entry.map(|(kind, _)| kind.as_str()),
            entry_leader: entry.map(|(_, leader)| leader),
            ssh_client: subject.ssh_client().flatten(),
            elevation: subject.elevation().map(|(program, caller)| Elevation {
                program,
                uid: caller.and_then(uid),
                user: caller.and_then(user),
            }),
            place: subject.place().cloned().unwrap_or_default(),
            container: subject.container().cloned().unwrap_or_default(),
        }
    }

    /// Keeps the first `bytes` bytes of each argument list.
    pub fn cut_arguments(&mut self, bytes: usize) {
        let images = self.ancestors.iter_mut().map(|ancestor| &mut ancestor.image).chain(&mut self.earlier);
        images.for_each(|image| image.cut_arguments(bytes));
    }

    /// The entry leader, if it is an ancestor.
    pub fn leader(&self) -> Option<&Ancestor> {
        self.ancestors.get(self.entry_leader?.checked_sub(1)?)
    }

    /// The ancestors up to the entry leader, which is all that an analyst follows; all of them if the entry is unknown.
    pub fn up_to_entry(&self) -> &[Ancestor] {
        let end = self.entry_leader.map_or(self.ancestors.len(), |leader| leader.min(self.ancestors.len()));
        &self.ancestors[..end]
    }
}
