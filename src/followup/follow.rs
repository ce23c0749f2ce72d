//! The thread that looks at followed processes and writes records.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError};

use super::known::{Child, Known, News, Said};
use super::look::{Look, Looker, Who};
use super::plan::{Due, Plan};
use super::record::{Alerted, FollowUp, Occasion};
use crate::clock;
use crate::process::proc_dir::ProcRoot;

/// How long after a process was found gone its end may still be told.
const GRACE_NS: u64 = 5_000_000_000;
/// When a process whose first thread has ended is looked at again.
const AGAIN_NS: u64 = 100_000_000;
/// The longest sleep while somebody is followed.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// What the worker tells.
#[derive(Debug)]
pub enum Order {
    /// Follow this one, under this number.
    Follow(u64, Box<Alerted>),
    /// It has these children so far, and so many besides.
    Children(u64, Vec<Child>, usize),
    /// It has ended: when, and with which wait status, if somebody saw it.
    Ended(u64, Option<(u64, u32)>),
    /// Others need its place.
    LetGo(u64),
}

/// What the thread gives to the worker.
#[derive(Debug)]
pub enum Report {
    /// A record.
    Record(Box<FollowUp>),
    /// This one is not followed any more.
    Done(u64),
}

/// A followed process.
#[derive(Debug)]
struct Followed {
    number: u64,
    alerted: Alerted,
    plan: Plan,
    known: Known,
    said: Said,
    records: u32,
    /// When it was found gone.
    gone_ns: Option<u64>,
    /// When its first thread ended, and with which status.
    leader: Option<(u64, u32)>,
    /// Look again at this time, whatever the plan says.
    again_ns: Option<u64>,
}

/// The thread's state.
pub(super) struct Follow {
    moments: Arc<[u64]>,
    looker: Looker,
    orders: Receiver<Order>,
    reports: Sender<Report>,
    wake: Box<dyn Fn() + Send>,
    followed: Vec<Followed>,
}

impl Follow {
    pub(super) fn new(
        moments: &[Duration],
        proc: Arc<ProcRoot>,
        orders: Receiver<Order>,
        reports: Sender<Report>,
        wake: Box<dyn Fn() + Send>,
    ) -> Self {
        let ns = |moment: &Duration| u64::try_from(moment.as_nanos()).unwrap_or(u64::MAX);
        Follow {
            moments: moments.iter().map(ns).collect(),
            looker: Looker::new(proc),
            orders,
            reports,
            wake,
            followed: Vec::new(),
        }
    }

    /// Works until the worker lets go of its end.
    pub(super) fn run(mut self) {
        loop {
            let order = match self.sleep() {
                Some(time) => self.orders.recv_timeout(time),
                None => self.orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match order {
                Ok(order) => {
                    self.take(order);
                    while let Ok(order) = self.orders.try_recv() {
                        self.take(order);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.look_around();
        }
    }

    /// How long nothing is due; `None` if nobody is followed.
    fn sleep(&self) -> Option<Duration> {
        let next = self.followed.iter().map(Followed::next_ns).min()?;
        let sleep = Duration::from_nanos(next.saturating_sub(clock::monotonic_ns()));
        Some(sleep.min(LONGEST_SLEEP))
    }

    fn take(&mut self, order: Order) {
        match order {
            Order::Follow(number, alerted) => self.followed.push(Followed {
                number,
                alerted: *alerted,
                plan: Plan::new(Arc::clone(&self.moments)),
                known: Known::default(),
                said: Said::default(),
                records: 0,
                gone_ns: None,
                leader: None,
                again_ns: None,
            }),
            Order::Children(number, children, more) => {
                if let Some(followed) = self.followed.iter_mut().find(|followed| followed.number == number) {
                    followed.known.set_children(children, more);
                }
            }
            Order::Ended(number, how) => {
                let Some(at) = self.at(number) else { return };
                let followed = &mut self.followed[at];
                let Some((end_ns, status)) = how else {
                    return self.finish(at, followed_end(None));
                };
                // What it did until its end can be read as long as its parent has not asked for its status.
                let mut looks = self.looker.look(&[followed.who()]);
                let look = looks.pop().flatten();
                let goes_on = look.as_ref().is_some_and(Look::goes_on);
                if let Some(mut look) = look {
                    // Descriptors that are closed because it ends were not closed by it.
                    look.listed &= goes_on;
                    followed.known.add(look, end_ns.saturating_sub(followed.alerted.executed_ns));
                }
                if goes_on {
                    followed.leader = Some((end_ns, status));
                    followed.again_ns = Some(clock::monotonic_ns() + AGAIN_NS);
                } else {
                    self.finish(at, followed_end(Some((end_ns, status))));
                }
            }
            Order::LetGo(number) => {
                if let Some(at) = self.at(number) {
                    self.finish(at, (Occasion::LetGo, None));
                }
            }
        }
    }

    fn at(&self, number: u64) -> Option<usize> {
        self.followed.iter().position(|followed| followed.number == number)
    }

    /// Looks at everyone of whom a look is due.
    fn look_around(&mut self) {
        let now_ns = clock::monotonic_ns();
        let due: Vec<(usize, Due)> = self
            .followed
            .iter_mut()
            .enumerate()
            .filter_map(|(at, followed)| Some((at, followed.due(now_ns)?)))
            .collect();
        if due.is_empty() {
            return;
        }
        let who: Vec<Who> = due.iter().map(|&(at, _)| self.followed[at].who()).collect();
        let looks = self.looker.look(&who);
        let mut over = Vec::new();
        for ((at, due), look) in due.into_iter().zip(looks) {
            let followed = &mut self.followed[at];
            let age_ns = now_ns.saturating_sub(followed.alerted.executed_ns);
            match look {
                Some(look) if followed.leader.is_none() || look.goes_on() => {
                    let dead = !look.listed;
                    followed.known.add(look, age_ns);
                    if dead {
                        followed.gone_ns.get_or_insert(now_ns);
                    }
                    let news = followed.said.news(&followed.known);
                    let said = match due {
                        Due::Moment => news >= News::More,
                        Due::Between => news == News::Peer,
                        Due::Early => false,
                    };
                    if said {
                        self.write(at, Occasion::Running, age_ns);
                    }
                }
                _ => {
                    followed.gone_ns.get_or_insert(now_ns);
                }
            }
            let followed = &self.followed[at];
            if followed.gone_ns.is_some() && followed.leader.is_some() {
                over.push((followed.number, followed_end(followed.leader)));
            } else if followed.gone_ns.is_some_and(|gone_ns| now_ns.saturating_sub(gone_ns) >= GRACE_NS) {
                over.push((followed.number, followed_end(None)));
            }
        }
        for (number, end) in over {
            if let Some(at) = self.at(number) {
                self.finish(at, end);
            }
        }
    }

    /// Writes the last record.
    fn finish(&mut self, at: usize, (occasion, end_ns): (Occasion, Option<u64>)) {
        let followed = &self.followed[at];
        let (executed_ns, number) = (followed.alerted.executed_ns, followed.number);
        let age_ns = match (occasion, end_ns) {
            (_, Some(end_ns)) => end_ns.saturating_sub(executed_ns),
            (Occasion::LetGo, None) => clock::monotonic_ns().saturating_sub(executed_ns),
            // Nobody knows more than that.
            (_, None) => followed.known.looked_ns.unwrap_or_default(),
        };
        self.write(at, occasion, age_ns);
        self.report(Report::Done(number));
        self.followed.swap_remove(at);
    }

    fn write(&mut self, at: usize, occasion: Occasion, age_ns: u64) {
        let followed = &mut self.followed[at];
        followed.said = Said::of(&followed.known);
        followed.records += 1;
        let record = FollowUp {
            alerted: followed.alerted.clone(),
            number: followed.records,
            time_ns: clock::wall_from_monotonic(followed.alerted.executed_ns.saturating_add(age_ns)),
            age_ns,
            occasion,
            known: followed.known.clone(),
        };
        self.report(Report::Record(Box::new(record)));
    }

    /// Waits if the worker is behind: it never waits for this thread.
    fn report(&self, report: Report) {
        if let Err(TrySendError::Full(report)) = self.reports.try_send(report) {
            (self.wake)();
            // Refused: the worker has ended.
            let _ = self.reports.send(report);
        }
        (self.wake)();
    }
}

/// The occasion of an end, and its time if somebody saw it.
fn followed_end(how: Option<(u64, u32)>) -> (Occasion, Option<u64>) {
    match how {
        Some((end_ns, status)) => (Occasion::Ended(status), Some(end_ns)),
        None => (Occasion::EndUnseen, None),
    }
}

impl Followed {
    fn who(&self) -> Who {
        Who { pid: self.alerted.pid, start_ticks: self.alerted.start_ticks }
    }

    /// When something is due, on CLOCK_MONOTONIC.
    fn next_ns(&self) -> u64 {
        match (self.gone_ns, self.again_ns) {
            (Some(gone_ns), _) => gone_ns.saturating_add(GRACE_NS),
            (None, Some(again_ns)) => again_ns,
            (None, None) => self.alerted.executed_ns.saturating_add(self.plan.next_ns()),
        }
    }

    fn due(&mut self, now_ns: u64) -> Option<Due> {
        if self.next_ns() > now_ns {
            return None;
        }
        let planned = self.plan.take(now_ns.saturating_sub(self.alerted.executed_ns));
        if self.again_ns.take().is_some() {
            return planned.or(Some(Due::Between));
        }
        planned.or(self.gone_ns.map(|_| Due::Between))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::Matched;
    use crate::process::exec::Image;
    use crate::rules::model::Severity;

    fn alerted(pid: u32) -> Box<Alerted> {
        Box::new(Alerted {
            id: "a-1".to_owned(),
            rule: Matched { id: "r".into(), title: "R".into(), severity: Severity::High },
            pid,
            start_ticks: None,
            executed_ns: clock::monotonic_ns(),
            already_running: false,
            image: Image::new(Some(b"/bin/nc"), Some(&["nc"])),
        })
    }

    /// What the thread reports to these orders before it ends.
    fn reports(orders: Vec<Order>) -> Vec<FollowUp> {
        let (sender, receiver) = crossbeam_channel::unbounded();
        let (reports, given) = crossbeam_channel::unbounded();
        let proc = Arc::new(ProcRoot::open(std::path::Path::new("/proc")).unwrap());
        let follow = Follow::new(&[Duration::from_secs(3600)], proc, receiver, reports, Box::new(|| {}));
        orders.into_iter().for_each(|order| sender.send(order).unwrap());
        drop(sender);
        follow.run();
        let records = given.try_iter().filter_map(|report| match report {
            Report::Record(record) => Some(*record),
            Report::Done(_) => None,
        });
        records.collect()
    }

    /// No process has this pid (proc_sys_kernel(5): PID_MAX_LIMIT is 2^22).
    const NOBODY: u32 = 1 << 23;

    #[test]
    fn ends_that_were_seen_and_one_that_was_not() {
        let end_ns = clock::monotonic_ns() + 2_000_000_000;
        let found = reports(vec![
            Order::Follow(0, alerted(NOBODY)),
            Order::Follow(1, alerted(NOBODY)),
            Order::Children(0, vec![Child { pid: 5, image: Image::default() }], 2),
            Order::Ended(0, Some((end_ns, 3 << 8))),
            Order::Ended(1, None),
            // Nobody is followed under these numbers any more.
            Order::Ended(1, Some((end_ns, 0))),
            Order::LetGo(7),
        ]);
        let occasions: Vec<Occasion> = found.iter().map(|record| record.occasion).collect();
        assert_eq!(occasions, [Occasion::Ended(3 << 8), Occasion::EndUnseen]);
        assert!((1_000_000_000..=2_000_000_000).contains(&found[0].age_ns));
        assert_eq!((found[0].known.count_children(), found[0].number), (3, 1));
        assert_eq!(found[1].age_ns, 0);
    }

    /// The first thread of a program may end before the others: this process stands for one that goes on.
    #[test]
    fn one_that_goes_on_has_not_ended() {
        let found = reports(vec![
            Order::Follow(0, alerted(std::process::id())),
            Order::Ended(0, Some((clock::monotonic_ns(), 0))),
            Order::LetGo(0),
        ]);
        let occasions: Vec<Occasion> = found.iter().map(|record| record.occasion).collect();
        assert_eq!(occasions, [Occasion::LetGo]);
        assert!(found[0].known.looked_ns.is_some());
    }
}
