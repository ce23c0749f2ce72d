//! Journal and outputs together, with an output that does as it is told.

use super::*;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use crate::alert::Notice;
use crate::journal::progress::Condition;
use crate::journal::{number_of_segment, segment_name};
use crate::output::entry::Entry;
use crate::rules::model::Severity;

/// What a test and its output share.
#[derive(Default)]
struct Told {
    /// Refuse everything.
    away: AtomicBool,
    /// Refuse so many.
    failures: AtomicUsize,
    /// Refuse for ever.
    is_final: AtomicBool,
    /// Take nothing, and say nothing.
    hangs: AtomicBool,
    /// Hand nothing on.
    keeps: AtomicBool,
    /// Say of so many that they were cut.
    cuts: AtomicUsize,
    taken: Mutex<Vec<(u64, String)>>,
}

impl Told {
    fn numbers(&self) -> Vec<u64> {
        self.taken.lock().unwrap().iter().map(|(number, _)| *number).collect()
    }

    fn texts(&self) -> Vec<String> {
        self.taken.lock().unwrap().iter().map(|(_, text)| text.clone()).collect()
    }

    fn count_of(&self, part: &str) -> usize {
        self.texts().iter().filter(|text| text.contains(part)).count()
    }
}

struct Obedient(&'static str, Arc<Told>);

impl Destination for Obedient {
    fn name(&self) -> String {
        self.0.to_owned()
    }

    fn form(&self) -> Form {
        Form::Text
    }

    fn write(&mut self, entry: &Entry) -> io::Result<()> {
        while self.1.hangs.load(Relaxed) {
            std::thread::sleep(Duration::from_millis(10));
        }
        if self.1.away.load(Relaxed) || self.1.is_final.load(Relaxed) {
            return Err(io::Error::other("not now"));
        }
        if self.1.failures.load(Relaxed) > 0 {
            self.1.failures.fetch_sub(1, Relaxed);
            return Err(io::Error::other("not yet"));
        }
        self.1.taken.lock().unwrap().push((entry.id.number, entry.form(Form::Text).to_owned()));
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.1.keeps.load(Relaxed) { Err(io::Error::other("nobody is there")) } else { Ok(()) }
    }

    fn held(&self) -> u64 {
        if self.1.keeps.load(Relaxed) { self.1.numbers().len() as u64 } else { 0 }
    }

    fn take_cut(&mut self) -> u64 {
        self.1.cuts.swap(0, Relaxed) as u64
    }

    fn is_final(&self, _: &io::Error) -> bool {
        self.1.is_final.load(Relaxed)
    }
}

fn record(message: &str, time_ns: u64) -> Record {
    Record::Notice(Notice { kind: "test", severity: Severity::Info, time_ns, message: message.to_owned() })
}

const SECOND_NS: u64 = 1_000_000_000;
const DEADLINE: Duration = Duration::from_secs(20);

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !done() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

struct Place {
    folder: tempfile::TempDir,
    settings: Settings,
}

impl Place {
    fn new(settings: Settings) -> Self {
        Place { folder: tempfile::tempdir().unwrap(), settings }
    }

    fn journal(&self) -> PathBuf {
        self.folder.path().join("journal")
    }

    fn start(&self, outputs: &[(&'static str, &Arc<Told>)]) -> Delivery {
        let destination =
            |(name, told): &(&'static str, &Arc<Told>)| Box::new(Obedient(name, Arc::clone(told))) as _;
        let destinations = outputs.iter().map(destination).collect();
        Delivery::start(self.settings.clone(), self.journal(), destinations, &Host::default()).unwrap()
    }

    fn segments(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.journal()).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
        names.retain(|name| number_of_segment(name).is_some());
        names.sort();
        names
    }
}

/// Ends without giving a broken output time.
fn end(delivery: Delivery) {
    delivery.close(Instant::now() + DEADLINE);
}

fn small(when_full: WhenFull) -> Settings {
    Settings { max_size: 1 << 20, when_full, ..Settings::default() }
}

/// Offers records that carry their number.
fn offer(delivery: &mut Delivery, numbers: std::ops::Range<u64>, length: usize) {
    offer_of(delivery, numbers, length, crate::clock::realtime_ns());
}

fn offer_of(delivery: &mut Delivery, numbers: std::ops::Range<u64>, length: usize, time_ns: u64) {
    let more = "x".repeat(length);
    numbers.for_each(|number| delivery.offer(record(&format!("m{number}m {more}"), time_ns)));
}

/// Their numbers, without the notices that the journal wrote itself.
fn own(told: &Told) -> Vec<u64> {
    let number = |text: &String| {
        let (_, rest) = text.split_once("notice=test message=\"m")?;
        rest.split('m').next()?.parse().ok()
    };
    told.texts().iter().filter_map(number).collect()
}

#[test]
fn a_failing_output_is_tried_again_in_order() {
    let place = Place::new(Settings::default());
    let told = Arc::new(Told { failures: AtomicUsize::new(3), ..Told::default() });
    let mut delivery = place.start(&[("a", &told)]);
    offer(&mut delivery, 1..11, 1);
    let status = delivery.status();
    wait_until("all", || status.outputs(0)[0].position == 10);
    let output = status.outputs(0).remove(0);
    assert_eq!((output.written, output.lost, output.lag), (10, 0, 0));
    assert_eq!((output.condition, output.last_error.unwrap().0), (Condition::Working, "not yet".to_owned()));
    delivery.close(Instant::now() + DEADLINE);
    assert_eq!(told.numbers(), (1..11).collect::<Vec<_>>());
    // The id stands in the text, and is the same for all but for the number.
    let texts = told.texts();
    let (_, id) = texts[0].split_once("record=").unwrap();
    let (run, number) = id.split_once('-').unwrap();
    assert_eq!((run.len(), number), (16, "1"));
    assert!(texts[9].ends_with(&format!("record={run}-10")), "{}", texts[9]);
}

#[test]
fn what_an_output_holds_back_is_not_counted_as_written() {
    let place = Place::new(Settings::default());
    let told = Arc::new(Told { keeps: AtomicBool::new(true), ..Told::default() });
    let mut delivery = place.start(&[("a", &told)]);
    offer(&mut delivery, 1..11, 1);
    let status = delivery.status();
    wait_until("the failure", || status.outputs(0)[0].condition == Condition::Retrying);
    let output = status.outputs(0).remove(0);
    assert_eq!((output.written, output.lag), (0, 10));
    told.keeps.store(false, Relaxed);
    wait_until("all", || status.outputs(0)[0].position == 10);
    assert_eq!(status.outputs(0)[0].written, 10);
    end(delivery);
}

#[test]
fn an_output_that_hangs_is_seen_to() {
    let place = Place::new(Settings::default());
    let told = Arc::new(Told::default());
    told.hangs.store(true, Relaxed);
    let mut delivery = place.start(&[("a", &told)]);
    offer(&mut delivery, 1..4, 1);
    let status = delivery.status();
    let condition = || status.outputs(0)[0].condition;
    assert_eq!(condition(), Condition::Working);
    wait_until("the output to hang", || condition() == Condition::Hanging);
    assert_eq!(status.outputs(0)[0].lag, 3);
    told.hangs.store(false, Relaxed);
    wait_until("the rest", || told.numbers() == [1, 2, 3]);
    wait_until("work", || condition() == Condition::Working);
    end(delivery);
}

#[test]
fn what_an_output_cut_is_said() {
    let place = Place::new(Settings::default());
    let told = Arc::new(Told { cuts: AtomicUsize::new(3), ..Told::default() });
    let mut delivery = place.start(&[("a", &told)]);
    offer(&mut delivery, 1..11, 1);
    wait_until("the notice", || told.count_of("3 records were cut to 480 bytes at output a") == 1);
    assert_eq!(told.count_of("notice=output-cut-records"), 1);
    delivery.close(Instant::now() + DEADLINE);
    assert_eq!(own(&told), (1..11).collect::<Vec<_>>());
}

#[test]
fn what_waits_is_sent_after_a_restart_with_the_same_id() {
    // Some are of 1970.
    let place = Place::new(Settings { max_age: Duration::from_secs(u64::MAX / 2), ..Settings::default() });
    let (told, other) = (Arc::new(Told::default()), Arc::new(Told::default()));
    let mut delivery = place.start(&[("a", &told), ("b", &other)]);
    offer(&mut delivery, 1..4, 1);
    wait_until("the first", || told.numbers().len() == 3 && other.numbers().len() == 3);
    told.away.store(true, Relaxed);
    offer_of(&mut delivery, 4..200, 1, SECOND_NS);
    wait_until("the other", || other.numbers().len() == 199);
    let status = delivery.status();
    assert_eq!((status.outputs(0)[0].lag, status.outputs(0)[1].lag), (196, 0));
    wait_until("an attempt", || status.outputs(0)[0].condition == Condition::Retrying);
    assert_eq!(status.outputs(10 * SECOND_NS)[0].lag_s, 9);
    end(delivery);
    assert_eq!(told.numbers(), [1, 2, 3]);
    told.away.store(false, Relaxed);
    let mut delivery = place.start(&[("a", &told), ("b", &other)]);
    offer(&mut delivery, 200..203, 1);
    delivery.close(Instant::now() + DEADLINE);
    assert_eq!(told.numbers(), (1..203).collect::<Vec<_>>());
    assert_eq!(told.texts(), other.texts());
    // Nothing is left to be sent, so nothing is kept but what is being written.
    let delivery = place.start(&[("a", &told), ("b", &other)]);
    delivery.close(Instant::now() + DEADLINE);
    assert_eq!(place.segments(), Vec::<String>::new());
    assert_eq!(told.numbers().len(), 202);
}

#[test]
fn a_new_output_begins_with_what_is_new_and_one_that_is_gone_is_said() {
    let place = Place::new(Settings::default());
    let (told, new) = (Arc::new(Told::default()), Arc::new(Told::default()));
    told.away.store(true, Relaxed);
    let mut delivery = place.start(&[("a", &told)]);
    offer(&mut delivery, 1..6, 1);
    end(delivery);
    let mut delivery = place.start(&[("b", &new)]);
    offer(&mut delivery, 6..8, 1);
    delivery.close(Instant::now() + DEADLINE);
    assert_eq!(own(&new), [6, 7]);
    assert!(
        new.texts()[0].contains("5 records that waited for output a will not be sent"),
        "{:?}",
        new.texts()
    );
    // If it comes back, it is new.
    told.away.store(false, Relaxed);
    let mut delivery = place.start(&[("a", &told), ("b", &new)]);
    offer(&mut delivery, 8..9, 1);
    delivery.close(Instant::now() + DEADLINE);
    assert_eq!(own(&told), [8]);
}

/// More than memory holds: an output that lags reads files, another does not wait for it.
#[test]
fn an_output_that_lags_reads_the_files() {
    let place = Place::new(Settings::default());
    let (slow, fast) = (Arc::new(Told::default()), Arc::new(Told::default()));
    slow.away.store(true, Relaxed);
    let mut delivery = place.start(&[("slow", &slow), ("fast", &fast)]);
    let status = delivery.status();
    for thousand in 0..20 {
        offer(&mut delivery, thousand * 100..thousand * 100 + 100, 10_000);
        wait_until("the fast", || fast.numbers().len() as u64 == thousand * 100 + 100);
    }
    let journal = status.journal();
    assert!(journal.bytes > 20_000_000 && journal.segments > 1 && journal.on_disk, "{journal:?}");
    assert!(journal.in_memory.1 < 6_000_000, "{journal:?}");
    slow.away.store(false, Relaxed);
    wait_until("the slow", || slow.numbers().len() == 2000);
    assert_eq!(own(&slow), (0..2000).collect::<Vec<_>>());
    // With the next record the journal is tidied.
    offer(&mut delivery, 2000..2001, 1);
    wait_until("the last", || slow.numbers().len() == 2001);
    offer(&mut delivery, 2001..2002, 1);
    wait_until("the files to be gone", || status.journal().segments <= 1);
    delivery.close(Instant::now() + DEADLINE);
    assert_eq!(slow.texts(), fast.texts());
}

#[test]
fn when_full_the_oldest_give_way_and_are_counted() {
    let place = Place::new(small(WhenFull::DropOldest));
    let (away, fast) = (Arc::new(Told::default()), Arc::new(Told::default()));
    away.away.store(true, Relaxed);
    let mut delivery = place.start(&[("away", &away), ("fast", &fast)]);
    let status = delivery.status();
    offer(&mut delivery, 1..1001, 10_000);
    wait_until("the fast", || own(&fast).len() == 1000);
    // It notices and says so although nothing can be written to it.
    wait_until("the notice", || fast.count_of("output-lost-records") == 1);
    // More than is allowed by a batch until it is tidied, which is the next thing that the thread does.
    wait_until("the journal to be tidied", || status.journal().bytes <= 1_100_000);
    away.away.store(false, Relaxed);
    wait_until("the rest", || status.outputs(0)[0].lag == 0);
    let (got, lost) = (own(&away), status.outputs(0)[0].lost);
    assert!(got.is_sorted() && got.last() == Some(&1000) && lost > 100, "{lost}");
    // The notices are records, too.
    wait_until("all to be told or counted", || {
        let output = &status.outputs(0)[0];
        away.numbers().len() as u64 + output.lost == output.position
    });
    assert_eq!(status.outputs(0)[1].lost, 0);
    delivery.close(Instant::now() + DEADLINE);
}

#[test]
fn when_full_the_new_are_dropped_and_counted() {
    let place = Place::new(small(WhenFull::DropNew));
    let told = Arc::new(Told::default());
    told.away.store(true, Relaxed);
    let mut delivery = place.start(&[("a", &told)]);
    let status = delivery.status();
    offer(&mut delivery, 1..301, 10_000);
    wait_until("all to be taken or dropped", || {
        let journal = status.journal();
        journal.newest + journal.dropped == 300
    });
    let dropped = status.journal().dropped;
    assert!(dropped > 100 && status.journal().bytes < 1_800_000, "{:?}", status.journal());
    told.away.store(false, Relaxed);
    wait_until("the notice", || told.count_of("journal-dropped-records") == 1);
    assert!(told.count_of(&format!("{dropped} records were not taken")) == 1, "{:?}", told.texts().last());
    assert_eq!(own(&told), (1..=300 - dropped).collect::<Vec<_>>());
    offer(&mut delivery, 301..302, 1);
    delivery.close(Instant::now() + DEADLINE);
    assert_eq!(own(&told).last(), Some(&301));
}

#[test]
fn when_full_the_worker_may_wait() {
    let place = Place::new(small(WhenFull::StopReading));
    let told = Arc::new(Told::default());
    told.away.store(true, Relaxed);
    let mut delivery = place.start(&[("a", &told)]);
    let (status, shared) = (delivery.status(), delivery.shared());
    let offered = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&offered);
    let worker = std::thread::spawn(move || {
        for number in 1..6001 {
            offer(&mut delivery, number..number + 1, 1000);
            count.fetch_add(1, Relaxed);
        }
        delivery
    });
    wait_until("the journal to be full", || status.journal().bytes >= 1 << 20);
    assert!(offered.load(Relaxed) < 6000 && status.journal().dropped == 0);
    told.away.store(false, Relaxed);
    wait_until("all", || own(&told).len() == 6000);
    let delivery = worker.join().unwrap();
    assert_eq!(own(&told), (1..6001).collect::<Vec<_>>());
    // At the end nobody waits.
    told.away.store(true, Relaxed);
    let mut delivery = delivery;
    let worker = std::thread::spawn(move || {
        offer(&mut delivery, 6001..12_001, 1000);
        delivery
    });
    wait_until("the journal to be full again", || status.journal().bytes >= 1 << 20);
    shared.ending.store(true, Relaxed);
    end(worker.join().unwrap());
    assert!(status.journal().dropped > 0);
}

#[test]
fn without_a_folder_there_is_memory() {
    let place = Place::new(Settings { memory: 1 << 20, ..Settings::default() });
    std::fs::write(place.journal(), "a file in its place").unwrap();
    let told = Arc::new(Told::default());
    // An output that is away would notice the first losses while records come, and these could drive the notice out too.
    told.hangs.store(true, Relaxed);
    let mut delivery = place.start(&[("a", &told)]);
    let status = delivery.status();
    offer(&mut delivery, 1..301, 10_000);
    // The journal's own first word is one more. Where its thread was kept waiting, records may not have reached it.
    wait_until("all", || status.journal().newest + status.journal().dropped > 300);
    assert!(!status.journal().on_disk && status.journal().in_memory.1 < 2 << 20);
    told.hangs.store(false, Relaxed);
    wait_until("the rest", || status.outputs(0)[0].lag == 0);
    delivery.close(Instant::now() + DEADLINE);
    let (journal, lost) = (status.journal(), status.outputs(0)[0].lost);
    assert!(lost + journal.dropped > 100 && told.numbers().is_sorted(), "{lost} lost, {journal:?}");
    assert_eq!(told.numbers().len() as u64 + lost, journal.newest);
    assert_eq!(told.count_of("output-lost-records"), usize::from(lost > 0));
}

#[test]
fn two_do_not_share_a_folder() {
    let place = Place::new(Settings::default());
    let (one, other) = (Arc::new(Told::default()), Arc::new(Told::default()));
    let (mut first, mut second) = (place.start(&[("a", &one)]), place.start(&[("a", &other)]));
    offer(&mut first, 1..3, 1);
    offer(&mut second, 1..3, 1);
    assert!(first.status().journal().on_disk && !second.status().journal().on_disk);
    second.close(Instant::now() + DEADLINE);
    first.close(Instant::now() + DEADLINE);
    assert_eq!((own(&one), own(&other)), (vec![1, 2], vec![1, 2]));
    assert_eq!(other.count_of("another execwatch has it"), 1);
    // It is given back at the end.
    let third = place.start(&[("a", &one)]);
    assert!(third.status().journal().on_disk);
    end(third);
}

#[test]
fn a_closed_output_ends() {
    let place = Place::new(Settings::default());
    let told = Arc::new(Told { is_final: AtomicBool::new(true), ..Told::default() });
    let mut delivery = place.start(&[("a", &told)]);
    let status = delivery.status();
    offer(&mut delivery, 1..2, 1);
    wait_until("its end", || status.outputs(0)[0].condition == Condition::Closed);
    delivery.close(Instant::now() + DEADLINE);
    assert_eq!(told.numbers(), Vec::<u64>::new());
}

/// A journal with 60 records in some segments that output `a` has not sent.
fn waiting() -> (Place, Arc<Told>) {
    waiting_of(crate::clock::realtime_ns())
}

fn waiting_of(time_ns: u64) -> (Place, Arc<Told>) {
    let place = Place::new(small(WhenFull::DropOldest));
    let told = Arc::new(Told::default());
    told.away.store(true, Relaxed);
    let mut delivery = place.start(&[("a", &told)]);
    offer_of(&mut delivery, 1..61, 5000, time_ns);
    end(delivery);
    assert!(place.segments().len() > 3);
    told.away.store(false, Relaxed);
    (place, told)
}

fn change(file: &Path, how: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(file).unwrap();
    how(&mut bytes);
    std::fs::write(file, bytes).unwrap();
}

fn restarted(place: &Place, told: &Arc<Told>) -> (Vec<u64>, u64) {
    let delivery = place.start(&[("a", told)]);
    let status = delivery.status();
    wait_until("the rest", || {
        let output = status.outputs(0).remove(0);
        output.lag == 0 && (output.lost == 0 || told.count_of("output-lost-records") > 0)
    });
    delivery.close(Instant::now() + DEADLINE);
    (own(told), status.outputs(0)[0].lost)
}

#[test]
fn flipped_bits_take_one_record_each() {
    let (place, told) = waiting();
    let segments = place.segments();
    change(&place.journal().join(&segments[0]), |bytes| bytes[3] ^= 1);
    change(&place.journal().join(&segments[1]), |bytes| bytes[2000] ^= 1);
    change(&place.journal().join(&segments[2]), |bytes| bytes[20] ^= 0x80);
    let (got, lost) = restarted(&place, &told);
    assert_eq!((got.len(), lost), (58, 2), "{got:?}");
    assert!(got.is_sorted());
    assert_eq!(told.count_of("is damaged in 3 places"), 1, "{:?}", told.texts());
    assert_eq!(told.count_of("output-lost-records"), 1);
}

#[test]
fn a_truncated_journal_and_one_of_zeros() {
    let (place, told) = waiting();
    let segments = place.segments();
    change(&place.journal().join(segments.last().unwrap()), |bytes| bytes.truncate(bytes.len() - 100));
    change(&place.journal().join(&segments[1]), |bytes| bytes.fill(0));
    let (got, lost) = restarted(&place, &told);
    assert!(got.is_sorted() && got.first() == Some(&1) && got.len() > 30, "{got:?}");
    // The record that was cut was the last, so nobody knows of it.
    assert_eq!(got.len() as u64 + lost, 59);
    assert_eq!(told.count_of("of a record that was not written to its end"), 1);
    assert_eq!(told.count_of("is damaged in 1 place"), 1);
}

#[test]
fn a_damaged_position_repeats_what_there_is() {
    let (place, told) = waiting();
    let (got, _) = restarted(&place, &told);
    assert_eq!(got.len(), 60);
    let (place, told) = waiting();
    change(&place.journal().join("positions/a"), |bytes| bytes[9] ^= 1);
    let (got, lost) = restarted(&place, &told);
    assert_eq!((got, lost), ((1..61).collect(), 0));
    assert_eq!(told.count_of("the position of output a is damaged"), 1);
}

/// An output whose position cannot be read is no new one: what waits for it stays and is sent.
#[test]
fn a_position_that_cannot_be_read_takes_nothing() {
    // A folder in the place of the file, a file in the place of the folder.
    for of_all in [false, true] {
        let (place, told) = waiting();
        let path = place.journal().join(if of_all { "positions" } else { "positions/a" });
        if of_all {
            std::fs::remove_dir_all(&path).unwrap();
            std::fs::write(&path, "").unwrap();
        } else {
            std::fs::remove_file(&path).unwrap();
            std::fs::create_dir(&path).unwrap();
        }
        let (got, lost) = restarted(&place, &told);
        assert_eq!((got, lost), ((1..61).collect(), 0));
        assert_eq!(told.count_of("the position of output a is damaged or cannot be read"), 1);
    }
}

/// A segment that cannot be read for now is waited for, and what it holds is not lost.
#[test]
fn a_segment_that_cannot_be_read_for_now() {
    let (place, told) = waiting();
    told.away.store(true, Relaxed);
    let delivery = place.start(&[("a", &told)]);
    let status = delivery.status();
    // The first records were read already.
    let file = place.journal().join(&place.segments()[2]);
    let (bytes, mut away) = (std::fs::read(&file).unwrap(), file.clone());
    away.set_extension("away");
    std::fs::rename(&file, &away).unwrap();
    std::fs::create_dir(&file).unwrap();
    told.away.store(false, Relaxed);
    wait_until("an attempt", || {
        let error = status.outputs(0).remove(0).last_error;
        error.is_some_and(|(message, _)| message.contains("the journal cannot be read"))
    });
    assert_eq!(status.outputs(0)[0].lost, 0);
    // At once: a file that is not there would be lost.
    renameat2(AT_FDCWD, &away, AT_FDCWD, &file, RenameFlags::RENAME_EXCHANGE).unwrap();
    assert_eq!(std::fs::read(&file).unwrap(), bytes);
    wait_until("the rest", || status.outputs(0)[0].lag == 0);
    assert_eq!((own(&told), status.outputs(0)[0].lost), ((1..61).collect(), 0));
    assert_eq!(status.outputs(0)[0].condition, Condition::Working);
    end(delivery);
}

/// What is torn behind the newest record was never whole; whole records that are missing before others are damage.
#[test]
fn only_the_newest_segment_may_be_torn() {
    let (place, told) = waiting();
    let file = place.journal().join(&place.segments()[1]);
    change(&file, |bytes| bytes.truncate(bytes.len() - 100));
    let (got, lost) = restarted(&place, &told);
    assert_eq!((got.len(), lost), (59, 1));
    assert_eq!(told.count_of("is damaged in 1 place"), 1, "{:?}", told.texts());
    assert_eq!(told.count_of("of a record that was not written to its end"), 0);
    // What a killed run left before the segments of the next is no damage: its number was given again.
    let (place, told) = waiting();
    let file = place.journal().join(&place.segments()[1]);
    change(&file, |bytes| bytes.extend(crate::journal::format::MARK));
    let (got, lost) = restarted(&place, &told);
    assert_eq!((got.len(), lost), (60, 0));
    assert_eq!(told.count_of("journal-damaged"), 1, "{:?}", told.texts());
    assert_eq!(told.count_of("of a record that was not written to its end"), 1);
}

#[test]
fn a_segment_of_a_later_version_is_left_alone() {
    let (place, told) = waiting();
    let (file, name) = (place.journal().join(segment_name(61)), segment_name(61));
    let mut head = b"execwjnl\x02\0\0\0".to_vec();
    head.extend(crate::journal::crc::crc32c(&head).to_le_bytes());
    std::fs::write(&file, &head).unwrap();
    let (got, lost) = restarted(&place, &told);
    // One at least is in there.
    assert_eq!((got.len(), lost), (60, 1));
    assert_eq!(told.count_of("of a later version of execwatch"), 1);
    assert_eq!(std::fs::read(&file).unwrap(), head);
    // What is written goes on beside it, and its number is not given again.
    assert!(told.numbers().contains(&62) && !told.numbers().contains(&61), "{:?}", told.numbers());
    told.away.store(true, Relaxed);
    let mut delivery = place.start(&[("a", &told)]);
    offer(&mut delivery, 61..63, 1);
    end(delivery);
    assert!(
        place.segments().last() > Some(&name) && place.segments().contains(&name),
        "{:?}",
        place.segments()
    );
    told.away.store(false, Relaxed);
    let (got, _) = restarted(&place, &told);
    assert_eq!((got.len(), got.last()), (62, Some(&62)));
    assert_eq!(std::fs::read(&file).unwrap(), head);
}

/// The same for one that cannot be read at all, also with a number with which counting would come to its end.
#[test]
fn a_segment_that_cannot_be_read_is_left_alone() {
    for number in [61, u64::MAX] {
        let (place, told) = waiting();
        let file = place.journal().join(segment_name(number));
        std::fs::create_dir(&file).unwrap();
        let mut delivery = place.start(&[("a", &told)]);
        offer(&mut delivery, 61..63, 1);
        delivery.close(Instant::now() + DEADLINE);
        assert_eq!(own(&told), (1..63).collect::<Vec<_>>());
        assert!(!told.numbers().contains(&number) && file.is_dir());
        assert_eq!(told.count_of("it cannot be read"), 1, "{:?}", told.texts());
    }
}

/// Somebody else's file has the name of the next segment: it is not touched, and records wait in memory.
#[test]
fn a_file_that_this_run_did_not_make_is_not_replaced() {
    let place = Place::new(Settings::default());
    let told = Arc::new(Told::default());
    let mut delivery = place.start(&[("a", &told)]);
    let file = place.journal().join(segment_name(1));
    std::fs::write(&file, "another's").unwrap();
    offer(&mut delivery, 1..4, 1);
    let status = delivery.status();
    wait_until("all", || own(&told).len() == 3);
    assert!(!status.journal().on_disk);
    delivery.close(Instant::now() + DEADLINE);
    assert_eq!(std::fs::read(&file).unwrap(), b"another's");
    assert_eq!(told.count_of("journal-failed"), 1);
}

#[test]
fn old_records_give_way() {
    let (place, told) = waiting_of(crate::clock::realtime_ns() - 31 * 86_400 * SECOND_NS);
    told.away.store(true, Relaxed);
    let mut delivery = place.start(&[("a", &told)]);
    offer(&mut delivery, 61..62, 1);
    let status = delivery.status();
    wait_until("the old to be gone", || status.outputs(0)[0].lost == 60);
    told.away.store(false, Relaxed);
    delivery.close(Instant::now() + DEADLINE);
    assert_eq!(own(&told), [61]);
}
