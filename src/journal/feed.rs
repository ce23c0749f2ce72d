//! What viewers are shown as it comes: the newest records, kept once for all of them, and in memory alone.
//!
//! Each viewer has a place in it, and what it does not take in time it misses, which is counted: neither the journal's
//! thread nor the daemon's memory depends on how fast anybody looks. While nobody looks, nothing is kept.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::alert::{Host, Record, RecordId};
use crate::output::entry::{Entry, Form};

/// Records that wait for viewers.
const MOST: usize = 1024;
/// Bytes of these.
const MOST_BYTES: usize = 2 << 20;
/// Bytes of a record's JSON; a longer one is shown as in syslog.
const LONGEST: usize = 64 << 10;

/// A record as viewers are given it, each form without a newline.
#[derive(Debug)]
pub struct Shown {
    /// One line of JSON.
    pub json: String,
    /// One line of text.
    pub text: String,
}

/// Wakes whoever writes to viewers.
type Wake = Box<dyn Fn() + Send>;

#[derive(Default)]
struct Kept {
    records: VecDeque<Arc<Shown>>,
    bytes: usize,
    /// The number of the next record.
    next: u64,
    viewers: usize,
    wake: Option<Wake>,
}

/// The records and who looks at them.
#[derive(Default)]
pub struct Feed(Mutex<Kept>);

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = self.lock();
        f.debug_struct("Feed").field("next", &kept.next).field("viewers", &kept.viewers).finish()
    }
}

impl Feed {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody looks, and records need to be shown.
    pub fn watched(&self) -> bool {
        self.lock().viewers > 0
    }

    /// A record in the forms of viewers.
    pub fn show(record: &Record, id: RecordId, entry: &Entry, host: &Host) -> Shown {
        let json = entry.form(Form::Json);
        let json =
            if json.len() > LONGEST { Form::ShortJson.of(record, Some(id), host) } else { json.to_owned() };
        Shown { json, text: Form::Text.of(record, Some(id), host) }
    }

    /// Gives records to those who look. The oldest go for want of room.
    pub fn push(&self, records: Vec<Shown>) {
        let mut kept = self.lock();
        if kept.viewers == 0 {
            return;
        }
        for shown in records {
            kept.next += 1;
            kept.bytes += shown.json.len() + shown.text.len();
            kept.records.push_back(Arc::new(shown));
        }
        while kept.records.len() > MOST || kept.bytes > MOST_BYTES {
            let Some(oldest) = kept.records.pop_front() else { break };
            kept.bytes -= oldest.json.len() + oldest.text.len();
        }
        if let Some(wake) = &kept.wake {
            wake();
        }
    }

    /// Somebody looks from now on; `wake` is called when there is more to be seen.
    pub fn join(self: &Arc<Self>, wake: Wake) -> Viewer {
        let mut kept = self.lock();
        kept.viewers += 1;
        kept.wake = Some(wake);
        Viewer { next: kept.next, feed: Arc::clone(self) }
    }
}

/// Somebody who looks.
#[derive(Debug)]
pub struct Viewer {
    feed: Arc<Feed>,
    next: u64,
}

impl Viewer {
    /// The next records, up to about so many bytes, and how many were missed before them.
    pub fn take(&mut self, bytes: usize) -> (u64, Vec<Arc<Shown>>) {
        let kept = self.feed.lock();
        let first = kept.next - kept.records.len() as u64;
        let missed = first.saturating_sub(self.next);
        self.next = self.next.max(first);
        let from = usize::try_from(self.next - first).unwrap_or(usize::MAX);
        let mut room = bytes;
        let mut taken = Vec::new();
        for shown in kept.records.iter().skip(from) {
            if room == 0 {
                break;
            }
            room = room.saturating_sub(shown.json.len() + shown.text.len());
            taken.push(Arc::clone(shown));
        }
        self.next += taken.len() as u64;
        (missed, taken)
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        let mut kept = self.feed.lock();
        kept.viewers -= 1;
        if kept.viewers == 0 {
            kept.records = VecDeque::new();
            kept.bytes = 0;
            kept.wake = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(number: usize, size: usize) -> Shown {
        Shown { json: number.to_string() + &" ".repeat(size.saturating_sub(1)), text: String::new() }
    }

    #[test]
    fn each_viewer_sees_everything_from_when_it_came() {
        let feed = Arc::new(Feed::default());
        feed.push(vec![shown(0, 1)]);
        assert!(!feed.watched());
        let mut one = feed.join(Box::new(|| {}));
        feed.push(vec![shown(1, 1), shown(2, 1)]);
        let mut other = feed.join(Box::new(|| {}));
        feed.push(vec![shown(3, 1)]);
        let (missed, taken) = one.take(2);
        assert_eq!((missed, taken.len(), taken[0].json.as_str()), (0, 2, "1"));
        assert_eq!(one.take(9).1.len(), 1);
        assert_eq!(other.take(9).1[0].json, "3");
        assert_eq!(other.take(9), (0, vec![]));
        drop((one, other));
        feed.push(vec![shown(4, 1)]);
        assert_eq!(feed.join(Box::new(|| {})).take(9), (0, vec![]));
    }

    impl PartialEq for Shown {
        fn eq(&self, other: &Shown) -> bool {
            self.json == other.json && self.text == other.text
        }
    }

    #[test]
    fn who_does_not_look_misses_what_there_is_no_room_for_and_is_told_how_much() {
        let feed = Arc::new(Feed::default());
        let mut viewer = feed.join(Box::new(|| {}));
        for number in 0..MOST + 7 {
            feed.push(vec![shown(number, 1)]);
        }
        let (missed, taken) = viewer.take(usize::MAX);
        assert_eq!((missed, taken.len()), (7, MOST));
        for number in 0..100 {
            feed.push(vec![shown(number % 10, LONGEST)]);
            assert!(feed.lock().bytes <= MOST_BYTES);
        }
        let (missed, taken) = viewer.take(usize::MAX);
        assert_eq!((missed as usize + taken.len(), taken.len()), (100, MOST_BYTES / LONGEST));
    }
}
