//! Messages that were written to a server and may have to be written again.
//!
//! A message is kept until the server's kernel has acknowledged it, and a while longer: when a server is killed, its kernel
//! throws away what it acknowledged and the server had not read, and resets the connection. Then those of the while are
//! sent again, too, so that the server receives some twice rather than one never.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Bytes that may wait for an acknowledgement.
pub const MOST_UNSURE: usize = 512 * 1024;
/// Bytes of acknowledged messages that are kept, and for how long.
const MOST_KEPT: usize = 128 * 1024;
const KEPT_FOR: Duration = Duration::from_secs(600);

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The server closed it, which a kernel says only if everything it acknowledged was read. A server that shuts its own
    /// direction down first and then closes with unread messages looks the same; nothing tells the two apart.
    Closed,
    /// In any other way.
    Broken,
}

/// The messages, in their order.
#[derive(Debug, Default)]
pub struct Backlog {
    messages: VecDeque<Message>,
    /// So many at the front are acknowledged.
    acknowledged: usize,
    /// So many at the front were written to the present connection, or to an earlier one and acknowledged there.
    written: usize,
    /// Bytes of all, and of those that are acknowledged.
    bytes: usize,
    acknowledged_bytes: usize,
}

#[derive(Debug)]
struct Message {
    text: String,
    /// Where it ends in the connection's stream.
    end: u64,
    written_at: Instant,
}

impl Backlog {
    /// A new message was written, whose last byte is at `end` of the connection's stream.
    pub fn push(&mut self, text: String, end: u64, now: Instant) {
        self.bytes += text.len();
        self.messages.push_back(Message { text, end, written_at: now });
        self.written = self.messages.len();
    }

    /// The next message that must be written again.
    pub fn next(&self) -> Option<&str> {
        self.messages.get(self.written).map(|message| message.text.as_str())
    }

    /// It was written.
    pub fn next_written(&mut self, end: u64) {
        if let Some(message) = self.messages.get_mut(self.written) {
            message.end = end;
            self.written += 1;
        }
    }

    /// The peer's kernel has everything before `end` of the stream. Of what it has, some is kept if `keep`.
    pub fn acknowledge(&mut self, end: u64, keep: bool, now: Instant) {
        while let Some(message) = self.messages.get(self.acknowledged)
            && self.acknowledged < self.written
            && message.end <= end
        {
            self.acknowledged_bytes += message.text.len();
            self.acknowledged += 1;
        }
        let old = |message: &Message| now.saturating_duration_since(message.written_at) > KEPT_FOR;
        while self.acknowledged > 0
            && (!keep || self.acknowledged_bytes > MOST_KEPT || self.messages.front().is_some_and(old))
        {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        let Some(message) = self.messages.pop_front() else { return };
        self.bytes -= message.text.len();
        self.acknowledged_bytes -= message.text.len();
        self.acknowledged -= 1;
        self.written -= 1;
        if self.messages.is_empty() {
            // The memory of a storm.
            self.messages = VecDeque::new();
        }
    }

    /// The connection has ended: what may be lost must be written again.
    pub fn ended(&mut self, end: End) {
        if end == End::Closed {
            while self.acknowledged > 0 {
                self.drop_first();
            }
        }
        (self.acknowledged, self.acknowledged_bytes, self.written) = (0, 0, 0);
    }

    /// How many of the last messages are not acknowledged.
    pub fn unsure(&self) -> u64 {
        (self.messages.len() - self.acknowledged) as u64
    }

    /// So much is not acknowledged that nothing may be added.
    pub fn is_full(&self) -> bool {
        self.bytes - self.acknowledged_bytes > MOST_UNSURE
    }

    /// Nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A message of ten bytes.
    fn text(number: u8) -> String {
        format!("{number:10}")
    }

    fn kept(backlog: &Backlog) -> Vec<u8> {
        backlog.messages.iter().map(|message| message.text.trim().parse().unwrap()).collect()
    }

    #[test]
    fn what_is_written_again() {
        let now = Instant::now();
        let mut backlog = Backlog::default();
        (1..=4).for_each(|number| backlog.push(text(number), u64::from(number) * 10, now));
        backlog.acknowledge(29, true, now);
        assert_eq!((backlog.unsure(), kept(&backlog)), (2, vec![1, 2, 3, 4]));
        assert_eq!(backlog.next(), None);
        // The server has read all that its kernel had.
        backlog.ended(End::Closed);
        assert_eq!((backlog.unsure(), kept(&backlog)), (2, vec![3, 4]));
        assert_eq!(backlog.next(), Some(text(3).as_str()));
        backlog.next_written(10);
        backlog.acknowledge(10, true, now);
        assert_eq!((backlog.unsure(), backlog.next()), (1, Some(text(4).as_str())));
        // It may have read nothing.
        backlog.ended(End::Broken);
        assert_eq!((backlog.unsure(), backlog.next()), (2, Some(text(3).as_str())));
        for end in [10, 20] {
            backlog.next_written(end);
        }
        assert_eq!(backlog.next(), None);
        backlog.acknowledge(20, false, now);
        assert!(backlog.is_empty() && backlog.unsure() == 0);
    }

    #[test]
    fn bounds() {
        let now = Instant::now();
        let mut backlog = Backlog::default();
        let mut end = 0;
        while !backlog.is_full() {
            end += 1024;
            backlog.push(" ".repeat(1024), end, now);
        }
        assert_eq!(end as usize, MOST_UNSURE + 1024);
        backlog.acknowledge(end, true, now);
        assert_eq!((backlog.messages.len(), backlog.is_full()), (MOST_KEPT / 1024, false));
        backlog.acknowledge(end, true, now + KEPT_FOR);
        assert_eq!(backlog.messages.len(), MOST_KEPT / 1024);
        backlog.acknowledge(end, true, now + KEPT_FOR + Duration::from_secs(1));
        assert!(backlog.is_empty());
    }

    proptest! {
        /// However connections end: what was acknowledged and read, or is acknowledged at last, is all there was, in order.
        #[test]
        fn nothing_is_forgotten(steps in proptest::collection::vec((0u8..5, 0u64..40), 0..80)) {
            let now = Instant::now();
            let mut backlog = Backlog::default();
            let (mut pushed, mut position) = (0u8, 0);
            // The numbers in the stream of the connection, each ten bytes long, and those that arrived for sure.
            let mut stream: Vec<u8> = Vec::new();
            let mut arrived = std::collections::BTreeSet::<u8>::new();
            for (step, amount) in steps {
                match step {
                    0 | 1 => {
                        while let Some(again) = backlog.next() {
                            stream.push(again.trim().parse().unwrap());
                            position += 10;
                            backlog.next_written(position);
                        }
                        pushed += 1;
                        position += 10;
                        stream.push(pushed);
                        backlog.push(text(pushed), position, now);
                    }
                    2 => backlog.acknowledge(position.min(amount), true, now),
                    _ => {
                        let end = if step == 3 { End::Closed } else { End::Broken };
                        if end == End::Closed {
                            // The kernel had at least what it acknowledged.
                            let unsure = backlog.unsure() as usize;
                            let unwritten = backlog.messages.len() - backlog.written;
                            arrived.extend(&stream[..stream.len() - (unsure - unwritten)]);
                        }
                        backlog.ended(end);
                        (position, stream) = (0, Vec::new());
                    }
                }
                let left = kept(&backlog);
                for number in 1..=pushed {
                    prop_assert!(left.contains(&number) || arrived.contains(&number), "{} of {}", number, pushed);
                }
                prop_assert!(left.is_sorted());
            }
        }
    }
}
