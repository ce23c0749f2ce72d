//! The programs that were executed last, for whoever finds out later that they belong to something.
//!
//! A record shares its texts with the process table, so that it costs no copy. The bound counts the texts of each record
//! as if they were its own; what has to go before its time is counted.

use std::collections::VecDeque;
use std::sync::Arc;

use super::image::Image;

/// How long a record is kept, in nanoseconds.
pub const KEPT_NS: u64 = 300_000_000_000;
/// Bytes of all records.
pub const MOST_BYTES: usize = 1 << 20;

/// An executed program.
#[derive(Debug, Clone)]
pub struct Light {
    /// Process id.
    pub pid: u32,
    /// CLOCK_MONOTONIC in nanoseconds.
    pub time_ns: u64,
    /// What it showed.
    pub image: Arc<Image>,
}

/// The records, the oldest first.
#[derive(Debug, Default)]
pub struct Recent {
    records: VecDeque<Light>,
    bytes: usize,
    /// The number of the first record; they are numbered from 0 in the order in which they came.
    first: u64,
    dropped: u64,
}

impl Recent {
    /// Takes a record.
    pub fn add(&mut self, pid: u32, time_ns: u64, image: Arc<Image>) {
        self.bytes += weight(&image);
        self.records.push_back(Light { pid, time_ns, image });
        while let Some(oldest) = self.records.front() {
            let over = time_ns.saturating_sub(oldest.time_ns) > KEPT_NS;
            if !over && self.bytes <= MOST_BYTES {
                break;
            }
            self.dropped += u64::from(!over);
            self.bytes -= weight(&oldest.image);
            self.first += 1;
            self.records.pop_front();
        }
    }

    /// The number of the next record.
    pub fn next(&self) -> u64 {
        self.first + self.records.len() as u64
    }

    /// The records from one number up to another, exclusive, as far as they are still there.
    pub fn between(&self, from: u64, to: u64) -> impl Iterator<Item = &Light> {
        let at = |number: u64| usize::try_from(number.saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.records.iter().take(at(to)).skip(at(from))
    }

    /// Records that had to go before their time.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

fn weight(image: &Image) -> usize {
    size_of::<Light>() + image.weight()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lineage::image::Shown;

    fn image(bytes: usize) -> Arc<Image> {
        Arc::new(Image::from(Shown::new(Some(b"/bin/x"), Some(&vec![b'a'; bytes]), false)))
    }

    #[test]
    fn what_is_old_goes() {
        let mut recent = Recent::default();
        recent.add(1, 0, image(1));
        recent.add(2, KEPT_NS, image(1));
        assert_eq!((recent.between(0, recent.next()).count(), recent.next()), (2, 2));
        recent.add(3, KEPT_NS + 1, image(1));
        let pids: Vec<u32> = recent.between(0, recent.next()).map(|light| light.pid).collect();
        assert_eq!((pids, recent.dropped()), (vec![2, 3], 0));
        let pids: Vec<u32> = recent.between(2, recent.next()).map(|light| light.pid).collect();
        assert_eq!((pids, recent.next()), (vec![3], 3));
    }

    #[test]
    fn no_more_than_its_bytes_are_kept() {
        let mut recent = Recent::default();
        for pid in 0..5000 {
            recent.add(pid, u64::from(pid), image(500));
            assert!(recent.bytes <= MOST_BYTES);
        }
        let kept = recent.between(0, recent.next()).count() as u64;
        assert!(kept > 1000);
        assert_eq!(recent.dropped() + kept, 5000);
    }
}
