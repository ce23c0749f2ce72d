//! Records as they were sent: what an incident keeps of a record is made before the journal numbers it, so the line with the
//! number is put in its place when it is known.

use std::collections::VecDeque;
use std::sync::Arc;

use crossbeam_channel::Receiver;

use super::collect::Thing;
use super::kept::Item;
use crate::alert::record_key;
use crate::output::entry::{Entry, Form};

/// Lines that are remembered until somebody asks for them, and bytes of these.
const MOST_LINES: usize = 1024;
const MOST_BYTES: usize = 1 << 20;
/// Things that wait for their lines.
const MOST_WAITING: usize = 1024;

/// A record that was sent, by its key.
pub type Sent = (String, Arc<Entry>);

/// Lines and who waits for them.
#[derive(Debug)]
pub struct Numbered {
    sent: Receiver<Sent>,
    lines: VecDeque<Sent>,
    bytes: usize,
    /// Keys, and the things' places in the database.
    waiting: VecDeque<(String, i64)>,
}

/// The key of a thing's record.
fn key(item: &Item) -> Option<String> {
    match item {
        Item::Alert(alert) => Some(alert.id.clone()),
        Item::FollowUp(record) => Some(record_key(&record.alert, record.time_ns)),
        Item::Folded(record) => Some(record_key(&record.alert, record.time_ns)),
        Item::Process(_) | Item::Program(_) | Item::End(_) | Item::Note(_) => None,
    }
}

impl Numbered {
    /// Nothing was sent yet.
    pub fn new(sent: Receiver<Sent>) -> Numbered {
        Numbered { sent, lines: VecDeque::new(), bytes: 0, waiting: VecDeque::new() }
    }

    /// Somebody waits for a line.
    pub fn awaited(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Takes what was sent. The places that waited for it, with their lines.
    pub fn take(&mut self) -> Vec<(i64, String)> {
        let mut late = Vec::new();
        for (key, entry) in self.sent.try_iter() {
            if let Some(at) = self.waiting.iter().position(|(waiting, _)| *waiting == key) {
                let place = self.waiting.remove(at).map(|(_, place)| place);
                late.extend(place.map(|place| (place, entry.form(Form::Json).to_owned())));
                continue;
            }
            self.bytes += entry.size();
            self.lines.push_back((key, entry));
            while self.lines.len() > MOST_LINES || self.bytes > MOST_BYTES {
                let Some((_, oldest)) = self.lines.pop_front() else { break };
                self.bytes -= oldest.size();
            }
        }
        late
    }

    /// Gives things their lines, as far as these are known.
    pub fn number<'t>(&mut self, things: impl Iterator<Item = &'t mut Thing>) {
        for thing in things.filter(|thing| thing.record.is_some()) {
            let Some(key) = key(&thing.item) else { continue };
            let Some(at) = self.lines.iter().position(|(sent, _)| *sent == key) else { continue };
            if let Some((_, entry)) = self.lines.remove(at) {
                self.bytes -= entry.size();
                thing.record = Some(entry.form(Form::Json).to_owned());
            }
        }
    }

    /// Has a thing that was written wait for its line, if it still lacks it. The number is the first that a line has.
    pub fn wait(&mut self, thing: &Thing, place: i64) {
        let Some(record) = &thing.record else { return };
        if record.contains("\"sequence\":") {
            return;
        }
        let Some(key) = key(&thing.item) else { return };
        if self.waiting.len() >= MOST_WAITING {
            self.waiting.pop_front();
        }
        self.waiting.push_back((key, place));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::RecordId;
    use crate::incident::kept::KeptAlert;
    use crate::output::entry::Kind;
    use crate::rules::model::Severity;

    fn sent(key: &str, text: &str) -> Sent {
        let (id, forms) = (RecordId { run: 1, number: 2 }, vec![(Form::Json, 0..text.len())]);
        let entry = Entry::of_parts(id, 3, Severity::Low, Kind::Alert, forms, text);
        (key.to_owned(), Arc::new(entry.unwrap()))
    }

    fn thing(id: &str) -> Thing {
        let alert = KeptAlert { id: id.to_owned(), ..KeptAlert::default() };
        Thing { item: Item::Alert(Box::new(alert)), record: Some("{}".to_owned()) }
    }

    #[test]
    fn a_line_is_put_in_its_place_whichever_comes_first() {
        let (sender, receiver) = crossbeam_channel::unbounded();
        let mut numbered = Numbered::new(receiver);
        let line = "{\"event\":{\"sequence\":2}}";
        sender.send(sent("early", line)).unwrap();
        assert_eq!(numbered.take(), []);
        let (mut early, mut late) = (thing("early"), thing("late"));
        numbered.number([&mut early, &mut late].into_iter());
        assert_eq!((early.record.as_deref(), late.record.as_deref()), (Some(line), Some("{}")));
        numbered.wait(&early, 7);
        assert!(!numbered.awaited());
        numbered.wait(&late, 8);
        assert!(numbered.awaited());
        sender.send(sent("late", line)).unwrap();
        assert_eq!(numbered.take(), [(8, line.to_owned())]);
        assert!(!numbered.awaited());
    }

    #[test]
    fn what_nobody_asks_for_has_a_bound() {
        let (sender, receiver) = crossbeam_channel::unbounded();
        let mut numbered = Numbered::new(receiver);
        let long = "x".repeat(10_000);
        for number in 0..2 * MOST_LINES {
            sender.send(sent(&number.to_string(), if number < 200 { &long } else { "{}" })).unwrap();
            numbered.take();
            assert!(numbered.lines.len() <= MOST_LINES && numbered.bytes <= MOST_BYTES);
            numbered.wait(&thing(&format!("never {number}")), 1);
            assert!(numbered.waiting.len() <= MOST_WAITING);
        }
        assert_eq!(numbered.lines.iter().map(|(_, entry)| entry.size()).sum::<usize>(), numbered.bytes);
    }
}
