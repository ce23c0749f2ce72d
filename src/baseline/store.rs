//! What the baseline's [database](crate::database) holds.

use std::collections::HashMap;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Row as SqlRow, params};

use super::days::{Kept, SameBoot};
use super::memory::{Change, Row};
use super::tuple::{Key, Tuple};
use crate::database::{Database, DatabaseError, Schema, signed};

/// Changes that may wait for a daemon; it takes them within seconds, or at its start.
const MOST_CHANGES: i64 = 100_000;

/// The database.
pub static SCHEMA: Schema = Schema {
    file: "baseline.db",
    what: "the baseline",
    unless: "[baseline] mode is \"off\"",
    // "exwb".
    application: 0x6578_7762,
    version: 1,
    tables: TABLES,
    cache_kib: 128,
};

const TABLES: &str = "
CREATE TABLE seen (
    id BLOB PRIMARY KEY, rule TEXT NOT NULL, utility TEXT, exe BLOB NOT NULL, uid INTEGER NOT NULL, parent BLOB,
    place TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, count INTEGER NOT NULL,
    silenced INTEGER NOT NULL, days INTEGER NOT NULL, learnt_days INTEGER NOT NULL, last_day INTEGER NOT NULL,
    approved INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE day (
    only INTEGER PRIMARY KEY CHECK (only = 1), number INTEGER NOT NULL, date INTEGER NOT NULL,
    elapsed INTEGER NOT NULL, boot_id TEXT NOT NULL, boot INTEGER NOT NULL, learning_since INTEGER NOT NULL
);
CREATE TABLE change (number INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, id BLOB);
";

/// What the database holds, without the texts.
#[derive(Debug, Default)]
pub struct Content {
    /// The rows.
    pub rows: HashMap<Key, Row>,
    /// The days.
    pub days: Kept,
    /// Whether the days were written since the host was started.
    pub same_boot: SameBoot,
}

/// A row with its texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its key.
    pub key: Key,
    /// Its texts.
    pub tuple: Tuple,
    /// Its numbers.
    pub row: Row,
}

/// The open database.
#[derive(Debug)]
pub struct Store {
    database: Database,
}

impl Store {
    /// Opens the database to write, and makes it if there is none.
    pub fn create(folder: &Path) -> Result<Store, DatabaseError> {
        Ok(Store { database: Database::create(folder, &SCHEMA)? })
    }

    /// Opens a database that is there, to write or to read only.
    pub fn open(folder: &Path, write: bool) -> Result<Store, DatabaseError> {
        Ok(Store { database: Database::open(folder, &SCHEMA, write)? })
    }

    /// Reads everything but the texts. `boot_id` is that of this start of the host.
    pub fn load(&self, boot_id: &str) -> Result<Content, DatabaseError> {
        let (days, same_boot) = self.days(boot_id)?;
        let rows = self.database.run(|connection| {
            let mut statement = connection.prepare(
                "SELECT id, first, last, count, silenced, days, learnt_days, last_day, approved FROM seen",
            )?;
            let rows = statement.query_map([], |row| Ok((key(row, 0)?, numbers(row, 1)?)))?;
            rows.collect::<rusqlite::Result<HashMap<Key, Row>>>()
        })?;
        Ok(Content { rows, days, same_boot })
    }

    /// Reads the days, and whether they were written since the host was started with that id.
    pub fn days(&self, boot_id: &str) -> Result<(Kept, SameBoot), DatabaseError> {
        let found = self.database.run(|connection| {
            let text = "SELECT number, date, elapsed, boot, learning_since, boot_id FROM day";
            let read = |row: &SqlRow<'_>| {
                let number = |at| row.get::<_, i64>(at).map(|number| u64::try_from(number).unwrap_or(0));
                let kept = Kept {
                    number: number(0)?,
                    date: number(1)?,
                    elapsed_s: number(2)?,
                    boot_s: number(3)?,
                    learning_since: number(4)?,
                };
                Ok((kept, row.get::<_, String>(5)?))
            };
            connection.query_row(text, [], read).optional()
        })?;
        Ok(match found {
            Some((kept, id)) => (kept, SameBoot(!id.is_empty() && id == boot_id)),
            None => (Kept::default(), SameBoot(false)),
        })
    }

    /// Calls `take` with each row, the one seen last first.
    pub fn each(&self, mut take: impl FnMut(Entry)) -> Result<(), DatabaseError> {
        self.database.run(|connection| {
            let mut statement = connection.prepare(
                "SELECT id, first, last, count, silenced, days, learnt_days, last_day, approved,
                    rule, utility, exe, uid, parent, place FROM seen ORDER BY last DESC, id",
            )?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let uid = u32::try_from(row.get::<_, i64>(12)?).unwrap_or(u32::MAX);
                let rule: String = row.get(9)?;
                let tuple = Tuple::new(&rule, row.get(10)?, row.get(11)?, uid, row.get(13)?, row.get(14)?);
                take(Entry { key: key(row, 0)?, tuple, row: numbers(row, 1)? });
            }
            Ok(())
        })
    }

    /// The keys whose hexadecimal text begins so, which must be hexadecimal digits.
    pub fn beginning_with(&self, digits: &str) -> Result<Vec<Key>, DatabaseError> {
        self.database.run(|connection| {
            let mut statement =
                connection.prepare("SELECT id FROM seen WHERE substr(hex(id), 1, length(?1)) = upper(?1)")?;
            statement.query_map([digits], |row| key(row, 0))?.collect()
        })
    }

    /// Reads one row's numbers.
    pub fn row(&self, wanted: &Key) -> Result<Option<Row>, DatabaseError> {
        self.database.run(|connection| {
            connection
                .query_row(
                    "SELECT first, last, count, silenced, days, learnt_days, last_day, approved FROM seen WHERE id = ?1",
                    [&wanted.0[..]],
                    |row| numbers(row, 0),
                )
                .optional()
        })
    }

    /// Writes rows and the days in one transaction. If `trim`, no more than that many rows stay.
    ///
    /// The rows know of what was changed from the command line up to the change of number `applied`, which is struck out.
    /// What a later change forgot is not written.
    pub fn write(
        &mut self,
        rows: &HashMap<Key, (Tuple, Row)>,
        days: &Kept,
        boot_id: &str,
        trim: Option<usize>,
        applied: u64,
    ) -> Result<(), DatabaseError> {
        // Locked from the beginning, so that no change comes between.
        self.database.change(|transaction| {
            let later = changes(transaction, applied)?;
            let everything = later.iter().any(|(_, change)| *change == Change::ForgetAll);
            let forgotten = |key: &Key| everything || later.iter().any(|(_, it)| *it == Change::Forget(*key));
            {
                // `approved` is the administrator's alone.
                let mut insert = transaction.prepare(
                    "INSERT INTO seen VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, 0)
                     ON CONFLICT (id) DO UPDATE SET first = ?8, last = ?9, count = ?10, silenced = ?11, days = ?12,
                        learnt_days = ?13, last_day = ?14",
                )?;
                for (key, (tuple, row)) in rows.iter().filter(|(key, _)| !forgotten(key)) {
                    insert.execute(params![
                        &key.0[..],
                        tuple.rule,
                        tuple.utility,
                        tuple.exe,
                        tuple.uid,
                        tuple.parent,
                        tuple.place,
                        row.first_s,
                        row.last_s,
                        row.count,
                        row.silenced,
                        row.days,
                        row.learnt_days,
                        row.last_day,
                    ])?;
                }
            }
            let learning_since = if everything { days.number } else { days.learning_since };
            transaction.execute(
                "INSERT OR REPLACE INTO day VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6)",
                params![
                    signed(days.number),
                    signed(days.date),
                    signed(days.elapsed_s),
                    boot_id,
                    signed(days.boot_s),
                    signed(learning_since)
                ],
            )?;
            transaction.execute("DELETE FROM change WHERE number <= ?1", [signed(applied)])?;
            if let Some(most) = trim {
                // The same order as in memory.
                transaction.execute(
                    "DELETE FROM seen WHERE id IN (SELECT id FROM seen ORDER BY approved, days, last
                        LIMIT max(0, (SELECT count(*) FROM seen) - ?1))",
                    [signed(most as u64)],
                )?;
            }
            Ok(())
        })
    }

    /// A number that differs after another process has written.
    pub fn stamp(&self) -> Result<i64, DatabaseError> {
        self.database.run(|connection| connection.pragma_query_value(None, "data_version", |row| row.get(0)))
    }

    /// What was changed from the command line after the change of that number, each with its own.
    pub fn changes(&self, after: u64) -> Result<Vec<(u64, Change)>, DatabaseError> {
        self.database.run(|connection| changes(connection, after))
    }

    /// The number of the last change; 0 if there was none.
    pub fn last_change(&self) -> Result<u64, DatabaseError> {
        let text = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'change'";
        let number: i64 = self.database.run(|connection| connection.query_row(text, [], |row| row.get(0)))?;
        Ok(u64::try_from(number).unwrap_or(0))
    }

    /// Changes rows, and leaves word for a daemon that runs; how many rows there were.
    pub fn change(&mut self, change: &Change) -> Result<usize, DatabaseError> {
        self.database.change(|transaction| {
            let (kind, id) = match change {
                Change::Forget(key) => ("forget", Some(&key.0[..])),
                Change::Approve(key) => ("approve", Some(&key.0[..])),
                Change::ForgetAll => ("forget-all", None),
            };
            let count = match change {
                Change::Forget(_) => transaction.execute("DELETE FROM seen WHERE id = ?1", [id])?,
                Change::Approve(_) => {
                    transaction.execute("UPDATE seen SET approved = 1 WHERE id = ?1", [id])?
                }
                Change::ForgetAll => {
                    transaction.execute("UPDATE day SET learning_since = number", [])?;
                    transaction.execute("DELETE FROM seen", [])?
                }
            };
            transaction.execute(
                "INSERT INTO change (kind, id) SELECT ?1, ?2 WHERE (SELECT count(*) FROM change) < ?3",
                params![kind, id, MOST_CHANGES],
            )?;
            Ok(count)
        })
    }
}

fn changes(connection: &Connection, after: u64) -> rusqlite::Result<Vec<(u64, Change)>> {
    let mut statement =
        connection.prepare("SELECT number, kind, id FROM change WHERE number > ?1 ORDER BY number")?;
    let read = |row: &SqlRow<'_>| {
        let number = u64::try_from(row.get::<_, i64>(0)?).unwrap_or(0);
        let change = match row.get::<_, String>(1)?.as_str() {
            "forget" => Change::Forget(key(row, 2)?),
            "approve" => Change::Approve(key(row, 2)?),
            _ => Change::ForgetAll,
        };
        Ok((number, change))
    };
    statement.query_map([signed(after)], read)?.collect()
}

fn key(row: &SqlRow<'_>, at: usize) -> rusqlite::Result<Key> {
    row.get::<_, [u8; 16]>(at).map(Key)
}

fn numbers(row: &SqlRow<'_>, at: usize) -> rusqlite::Result<Row> {
    let number = |offset| row.get::<_, i64>(at + offset);
    let wide = |offset| number(offset).map(|it| u32::try_from(it.max(0)).unwrap_or(u32::MAX));
    let narrow = |offset| number(offset).map(|it| u16::try_from(it.max(0)).unwrap_or(u16::MAX));
    Ok(Row {
        first_s: wide(0)?,
        last_s: wide(1)?,
        count: wide(2)?,
        silenced: wide(3)?,
        days: narrow(4)?,
        learnt_days: narrow(5)?,
        last_day: wide(6)?,
        approved: number(7)? != 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(number: u32) -> Tuple {
        Tuple::new("rule", Some("nc".into()), b"/bin/nc\xff".to_vec(), number, None, "unit a.service".into())
    }

    fn row(days: u16, last_s: u32) -> Row {
        Row { first_s: 1, last_s, count: 7, silenced: 2, days, learnt_days: 1, last_day: 3, approved: false }
    }

    fn batch(rows: &[(u32, Row)]) -> HashMap<Key, (Tuple, Row)> {
        rows.iter().map(|(number, row)| (tuple(*number).key(), (tuple(*number), *row))).collect()
    }

    const DAYS: Kept = Kept { number: 5, date: 20_000, elapsed_s: 10, boot_s: 20, learning_since: 2 };

    #[test]
    fn what_is_written_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("a/b");
        let mut store = Store::create(&below).unwrap();
        store.write(&batch(&[(1, row(2, 9)), (2, row(3, 8))]), &DAYS, "boot", None, 0).unwrap();
        drop(store);
        let store = Store::open(&below, false).unwrap();
        let content = store.load("boot").unwrap();
        assert_eq!((content.days, content.same_boot), (DAYS, SameBoot(true)));
        assert_eq!(store.days("other").unwrap().1, SameBoot(false));
        assert_eq!(content.rows[&tuple(1).key()], row(2, 9));
        let mut entries = Vec::new();
        store.each(|entry| entries.push(entry)).unwrap();
        assert_eq!(entries[0], Entry { key: tuple(1).key(), tuple: tuple(1), row: row(2, 9) });
        assert_eq!((entries.len(), entries[1].key), (2, tuple(2).key()));
        assert_eq!(store.beginning_with(&tuple(1).key().text()[..6]).unwrap(), [tuple(1).key()]);
        assert_eq!(store.row(&tuple(3).key()).unwrap(), None);
    }

    #[test]
    fn changes_reach_the_daemon_and_are_not_undone_by_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut daemon = Store::create(folder.path()).unwrap();
        let rows = batch(&[(1, row(1, 1)), (2, row(1, 2))]);
        daemon.write(&rows, &DAYS, "", None, 0).unwrap();
        let stamp = daemon.stamp().unwrap();
        assert_eq!(daemon.stamp().unwrap(), stamp);
        let mut command = Store::open(folder.path(), true).unwrap();
        assert_eq!(command.change(&Change::Approve(tuple(1).key())).unwrap(), 1);
        assert_eq!(command.change(&Change::Forget(tuple(2).key())).unwrap(), 1);
        assert_eq!(command.change(&Change::Forget(tuple(3).key())).unwrap(), 0);
        assert_ne!(daemon.stamp().unwrap(), stamp);
        let changes = daemon.changes(0).unwrap();
        assert_eq!(changes[..2], [(1, Change::Approve(tuple(1).key())), (2, Change::Forget(tuple(2).key()))]);
        // What the daemon writes before it knows of them.
        daemon.write(&rows, &DAYS, "", None, 0).unwrap();
        let content = daemon.load("").unwrap();
        assert_eq!(content.rows.len(), 1);
        assert!(content.rows[&tuple(1).key()].approved);
        // And after.
        daemon.write(&rows, &DAYS, "", None, 3).unwrap();
        assert_eq!((daemon.load("").unwrap().rows.len(), daemon.changes(0).unwrap()), (2, Vec::new()));
        assert_eq!(command.change(&Change::ForgetAll).unwrap(), 2);
        daemon.write(&rows, &DAYS, "", None, 3).unwrap();
        let content = daemon.load("").unwrap();
        assert_eq!((content.rows.len(), content.days.learning_since), (0, DAYS.number));
        assert_eq!(daemon.last_change().unwrap(), 4);
    }

    #[test]
    fn a_full_database_keeps_what_was_seen_on_most_days() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::create(folder.path()).unwrap();
        let rows = batch(&[(1, row(2, 1)), (2, row(1, 2)), (3, row(1, 3)), (4, row(1, 4))]);
        store.write(&rows, &DAYS, "", Some(2), 0).unwrap();
        let left = store.load("").unwrap().rows;
        assert!(left.len() == 2 && left.contains_key(&tuple(1).key()) && left.contains_key(&tuple(4).key()));
    }
}
