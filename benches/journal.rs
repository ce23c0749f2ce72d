//! The journal beside what else could hold records: SQLite with a write-ahead log, which the baseline's database could be.
//!
//! `cargo bench --bench journal`: appends records of a usual size in batches, one write or transaction each, not
//! synchronised to the disk within it, as both would be used; then reads all of them back in order.
//! `EXECWATCH_BENCH_FOLDER` chooses the disk.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot be set up has failed")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use execwatch::alert::RecordId;
use execwatch::journal::folder::Folder;
use execwatch::journal::shared::{Cursor, Shared};
use execwatch::journal::store::Store;
use execwatch::journal::sync::Synchroniser;
use execwatch::output::entry::{Entry, Form, Kind};
use execwatch::rules::model::Severity;

const RECORDS: u64 = 20_000;
/// Bytes of the two forms of an alert.
const SIZES: (usize, usize) = (960, 3200);

fn entries() -> Vec<Arc<Entry>> {
    let text = "x".repeat(SIZES.0 + SIZES.1);
    let forms = || vec![(Form::Text, 0..SIZES.0), (Form::Json, SIZES.0..SIZES.0 + SIZES.1)];
    let entry = |number| {
        let id = RecordId { run: 1, number };
        Arc::new(Entry::of_parts(id, number, Severity::Low, Kind::Alert, forms(), &text).unwrap())
    };
    (1..=RECORDS).map(entry).collect()
}

/// CPU time of this thread.
fn cpu() -> Duration {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap();
    Duration::new(time.tv_sec().cast_unsigned(), u32::try_from(time.tv_nsec()).unwrap())
}

/// Appends all in batches and prints what each took.
fn measure(what: &str, batch: usize, mut append: impl FnMut(&[Arc<Entry>])) {
    let entries = entries();
    let (mut times, before) = (Vec::new(), cpu());
    for batch in entries.chunks(batch) {
        let start = Instant::now();
        append(batch);
        times.push(start.elapsed());
    }
    let cpu = (cpu() - before).as_secs_f64() * 1e6 / RECORDS as f64;
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
    println!(
        "{what:24} batches of {batch:3}: {cpu:6.1} us of CPU a record; a batch: p50 {:.0} us, p99 {:.0} us, max {:.0} us",
        at(0.5),
        at(0.99),
        at(1.0)
    );
}

fn segments(folder: &Path, batch: usize) {
    let folder = Arc::new(Folder::make(&folder.join(format!("segments-{batch}"))).unwrap());
    let shared = Arc::new(Shared::default());
    shared.set_folder(Arc::clone(&folder));
    let synchroniser = Synchroniser::start(Arc::clone(&folder), |error| panic!("{error}")).unwrap();
    let mut store = Store::new(folder, 8 << 20, i64::MAX, 0, synchroniser);
    measure("segments", batch, |entries| store.append(entries, &shared, 0).unwrap());
    shared.lock().next = RECORDS + 1;
    let (start, mut all) = (Instant::now(), 0);
    let mut cursor = Cursor::after(shared, 0);
    let mut taken = Vec::new();
    while all < RECORDS {
        taken.clear();
        assert_eq!(cursor.take(64, &mut taken).lost, 0);
        all += taken.len() as u64;
    }
    println!(
        "{:24} read in order: {:.1} us a record",
        "",
        start.elapsed().as_secs_f64() * 1e6 / RECORDS as f64
    );
    store.close();
}

fn sqlite(folder: &Path, batch: usize) {
    let mut connection = rusqlite::Connection::open(folder.join(format!("sqlite-{batch}.db"))).unwrap();
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; \
             CREATE TABLE record (number INTEGER PRIMARY KEY, time INTEGER, severity INTEGER, kind INTEGER, text TEXT, json TEXT);",
        )
        .unwrap();
    measure("SQLite, WAL, NORMAL", batch, |entries| {
        let transaction = connection.transaction().unwrap();
        {
            let mut insert =
                transaction.prepare("INSERT INTO record VALUES (?1, ?2, ?3, ?4, ?5, ?6)").unwrap();
            for entry in entries {
                let number = entry.id.number.cast_signed();
                let values = (number, number, 1, 1, entry.form(Form::Text), entry.form(Form::Json));
                insert.execute(values).unwrap();
            }
        }
        transaction.commit().unwrap();
    });
    let start = Instant::now();
    let mut select = connection.prepare("SELECT number, text, json FROM record ORDER BY number").unwrap();
    let mut rows = select.query([]).unwrap();
    let mut all = 0;
    while let Some(row) = rows.next().unwrap() {
        let texts: (String, String) = (row.get(1).unwrap(), row.get(2).unwrap());
        all += u64::from(texts.0.len() + texts.1.len() == SIZES.0 + SIZES.1);
    }
    assert_eq!(all, RECORDS);
    println!(
        "{:24} read in order: {:.1} us a record",
        "",
        start.elapsed().as_secs_f64() * 1e6 / RECORDS as f64
    );
}

fn main() {
    let folder = std::env::var_os("EXECWATCH_BENCH_FOLDER").unwrap_or_else(|| "/var/tmp".into());
    let folder = tempfile::Builder::new().prefix("execwatch-journal-").tempdir_in(folder).unwrap();
    for batch in [1, 8, 64] {
        segments(folder.path(), batch);
        sqlite(folder.path(), batch);
    }
}
