//! What the [database](crate::database) of incidents holds.
//!
//! It is a file of its own beside the baseline's: what an incident holds is large and comes in bursts, has its own end of
//! life, and may be moved aside or taken away without what is known as normal.

use std::path::Path;

use rusqlite::{OptionalExtension, params};

use super::collect::{Earlier, Thing};
use super::kept::{Head, Item, KeptNote};
use super::story::{State, Verdict};
use crate::database::{Database, DatabaseError, Schema, signed};
use crate::rules::model::{SEVERITIES, Severity};

/// Bytes of a note.
pub const LONGEST_NOTE: usize = 4000;

/// The database.
pub static SCHEMA: Schema = Schema {
    file: "incidents.db",
    what: "the incidents",
    unless: "[incident] enabled is false",
    // "exwi".
    application: 0x6578_7769,
    version: 1,
    tables: TABLES,
    cache_kib: 256,
};

const TABLES: &str = "
CREATE TABLE incident (
    id TEXT PRIMARY KEY, first INTEGER NOT NULL, last INTEGER NOT NULL, severity INTEGER NOT NULL,
    score INTEGER NOT NULL, title TEXT NOT NULL, user TEXT, place TEXT, alerts INTEGER NOT NULL,
    execs INTEGER NOT NULL, cut TEXT NOT NULL, state TEXT NOT NULL, verdict TEXT, note TEXT
) WITHOUT ROWID;
CREATE INDEX incident_by_last ON incident (last);
CREATE TABLE thing (
    number INTEGER PRIMARY KEY, incident TEXT NOT NULL, data TEXT NOT NULL, record TEXT
);
CREATE INDEX thing_by_incident ON thing (incident);
";

/// An incident as the list shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// What was collected.
    pub head: Head,
    /// What became of it.
    pub state: State,
    /// What an administrator said of it.
    pub verdict: Option<Verdict>,
    /// The same in words.
    pub note: Option<String>,
}

/// What an administrator decides.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Decision {
    /// Acknowledged or closed.
    pub state: State,
    /// With closed.
    pub verdict: Option<Verdict>,
    /// In words.
    pub note: Option<String>,
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

    /// Writes heads and things in one transaction. What an administrator has decided stays.
    ///
    /// The places of the things: fewer than there are things if their texts have `room` bytes or more, and the rest is not
    /// written.
    pub fn write(
        &mut self,
        heads: &[Head],
        things: &[(String, Thing)],
        room: u64,
    ) -> Result<Vec<i64>, DatabaseError> {
        self.database.change(|transaction| {
                let mut insert = transaction.prepare(
                    "INSERT INTO incident VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, 'open', NULL, NULL)
                     ON CONFLICT (id) DO UPDATE SET first = ?2, last = ?3, severity = ?4, score = ?5, title = ?6,
                        user = ?7, place = ?8, alerts = ?9, execs = ?10, cut = ?11",
                )?;
                for head in heads {
                    insert.execute(params![
                        head.id,
                        signed(head.first_ns),
                        signed(head.last_ns),
                        head.severity as i64,
                        head.score,
                        head.title,
                        head.user,
                        head.place,
                        signed(head.alerts),
                        signed(head.execs),
                        serde_json::to_string(&head.cut).unwrap_or_default(),
                    ])?;
                }
                let (mut places, mut bytes) = (Vec::with_capacity(things.len()), 0);
                let mut insert =
                    transaction.prepare("INSERT INTO thing (incident, data, record) VALUES (?1, ?2, ?3)")?;
                for (id, thing) in things {
                    if bytes >= room {
                        break;
                    }
                    let data = serde_json::to_string(&thing.item).unwrap_or_default();
                    insert.execute(params![id, data, thing.record])?;
                    places.push(transaction.last_insert_rowid());
                    bytes += (data.len() + thing.record.as_ref().map_or(0, String::len)) as u64;
                }
            Ok(places)
        })
    }

    /// Puts records in the place of those that things have.
    pub fn set_records(&mut self, records: &[(i64, String)]) -> Result<(), DatabaseError> {
        self.database.change(|transaction| {
            let mut update = transaction.prepare("UPDATE thing SET record = ?2 WHERE number = ?1")?;
            for (place, record) in records {
                update.execute(params![place, record])?;
            }
            Ok(())
        })
    }

    /// Writes down what an administrator decided; false if there is no such incident.
    pub fn decide(&mut self, id: &str, decision: &Decision, time_ns: u64) -> Result<bool, DatabaseError> {
        self.database.change(|transaction| {
            let verdict = decision.verdict.map(Verdict::as_str);
            let changed = transaction.execute(
                "UPDATE incident SET state = ?2, verdict = coalesce(?3, verdict), note = coalesce(?4, note)
                 WHERE id = ?1",
                params![id, decision.state.as_str(), verdict, decision.note],
            )?;
            if changed == 0 {
                return Ok(false);
            }
            let verdict = verdict.map_or(String::new(), |verdict| format!(" as {verdict}"));
            let note = decision.note.as_ref().map_or(String::new(), |note| format!(": {note}"));
            let text = format!("{}{verdict}{note}", decision.state.as_str());
            let item = Item::Note(KeptNote { time_ns, text });
            transaction.execute(
                "INSERT INTO thing (incident, data) VALUES (?1, ?2)",
                params![id, serde_json::to_string(&item).unwrap_or_default()],
            )?;
            Ok(true)
        })
    }

    /// Removes incidents whose last alert was before a moment, and more while the database is larger than `max_size`:
    /// the closed ones first, then the oldest. How many were removed.
    pub fn trim(&mut self, before_ns: u64, max_size: u64) -> Result<u64, DatabaseError> {
        let mut removed = 0;
        loop {
            let size = self.database.size()?;
            let found: Option<String> = self.database.run(|connection| {
                let text = if size > max_size {
                    "SELECT id FROM incident ORDER BY state <> 'closed', last LIMIT 1"
                } else {
                    "SELECT id FROM incident WHERE last < ?1 ORDER BY last LIMIT 1"
                };
                let mut statement = connection.prepare(text)?;
                let moment = [signed(before_ns)];
                let moment = if statement.parameter_count() == 0 { &moment[..0] } else { &moment[..] };
                statement.query_row(rusqlite::params_from_iter(moment), |row| row.get(0)).optional()
            })?;
            let Some(id) = found else { return Ok(removed) };
            self.database.change(|transaction| {
                transaction.execute("DELETE FROM thing WHERE incident = ?1", [&id])?;
                transaction.execute("DELETE FROM incident WHERE id = ?1", [&id])
            })?;
            self.database.shrink()?;
            removed += 1;
        }
    }

    /// The last id that was given, in the order of time.
    pub fn last_id(&self) -> Result<Option<String>, DatabaseError> {
        self.database.run(|connection| {
            connection.query_row("SELECT max(id) FROM incident", [], |row| row.get::<_, Option<String>>(0))
        })
    }

    /// All incidents, the one that was heard of last first.
    pub fn list(&self) -> Result<Vec<Row>, DatabaseError> {
        self.rows("SELECT * FROM incident ORDER BY last DESC, id", None)
    }

    /// Those whose ids begin so.
    pub fn beginning_with(&self, id: &str) -> Result<Vec<Row>, DatabaseError> {
        self.rows(
            "SELECT * FROM incident WHERE substr(id, 1, length(?1)) = ?1 ORDER BY id LIMIT 20",
            Some(id),
        )
    }

    /// How many are not closed, and those of which something was heard last.
    pub fn not_closed(&self, most: usize) -> Result<(u64, Vec<Row>), DatabaseError> {
        let count: i64 = self.database.run(|connection| {
            connection
                .query_row("SELECT count(*) FROM incident WHERE state <> 'closed'", [], |row| row.get(0))
        })?;
        let text =
            format!("SELECT * FROM incident WHERE state <> 'closed' ORDER BY last DESC, id LIMIT {most}");
        Ok((u64::try_from(count).unwrap_or(0), self.rows(&text, None)?))
    }

    /// The incidents that are not closed and of which something was heard since a moment, at most so many, the one that was
    /// heard of last first, with what going on with them takes.
    pub fn earlier(&self, since_ns: u64, most: usize) -> Result<Vec<Earlier>, DatabaseError> {
        let (_, mut rows) = self.not_closed(most)?;
        rows.retain(|row| row.head.last_ns >= since_ns);
        let mut all = Vec::new();
        for row in rows {
            let id = row.head.id.clone();
            let mut earlier = Earlier::new(row.head);
            let mut wrong = None;
            self.database.run(|connection| {
                // One after another: all of them together may be megabytes.
                let text = "SELECT data, length(record) FROM thing WHERE incident = ?1 ORDER BY number";
                let mut statement = connection.prepare(text)?;
                let mut rows = statement.query([&id])?;
                while let Some(row) = rows.next()? {
                    let (data, record): (String, Option<i64>) = (row.get(0)?, row.get(1)?);
                    match serde_json::from_slice(data.as_bytes()) {
                        Ok(item) => earlier.take(item, usize::try_from(record.unwrap_or(0)).unwrap_or(0)),
                        Err(error) => wrong = Some(error.to_string()),
                    }
                }
                Ok(())
            })?;
            match wrong {
                Some(wrong) => return Err(self.database.corrupt(wrong)),
                None => all.push(earlier),
            }
        }
        Ok(all)
    }

    fn rows(&self, text: &str, id: Option<&str>) -> Result<Vec<Row>, DatabaseError> {
        self.database.run(|connection| {
            let mut statement = connection.prepare(text)?;
            statement.query_map(rusqlite::params_from_iter(id), row)?.collect()
        })
    }

    /// What was kept of an incident, in the order in which it came, each with its record.
    pub fn things(&self, id: &str) -> Result<Vec<Thing>, DatabaseError> {
        let texts = self.database.run(|connection| {
            let mut statement =
                connection.prepare("SELECT data, record FROM thing WHERE incident = ?1 ORDER BY number")?;
            let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, String>(0)?, row.get(1)?));
            statement.query_map([id], read)?.collect::<rusqlite::Result<Vec<(String, Option<String>)>>>()
        })?;
        let thing = |(data, record): (String, Option<String>)| match serde_json::from_slice(data.as_bytes()) {
            Ok(item) => Ok(Thing { item, record }),
            Err(error) => Err(self.database.corrupt(error.to_string())),
        };
        texts.into_iter().map(thing).collect()
    }
}

fn row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    let number = |at| row.get::<_, i64>(at).map(|number| u64::try_from(number).unwrap_or(0));
    let severity = usize::try_from(row.get::<_, i64>(3)?).unwrap_or(0);
    let cut: String = row.get(10)?;
    let state: String = row.get(11)?;
    let verdict: Option<String> = row.get(12)?;
    let states = [State::Open, State::Acknowledged, State::Closed];
    let verdicts = [Verdict::Malicious, Verdict::Benign, Verdict::FalsePositive];
    Ok(Row {
        head: Head {
            id: row.get(0)?,
            first_ns: number(1)?,
            last_ns: number(2)?,
            severity: SEVERITIES.get(severity).map_or(Severity::Info, |&(_, severity)| severity),
            score: u8::try_from(number(4)?).unwrap_or(100),
            title: row.get(5)?,
            user: row.get(6)?,
            place: row.get(7)?,
            alerts: number(8)?,
            execs: number(9)?,
            cut: serde_json::from_slice(cut.as_bytes()).unwrap_or_default(),
        },
        state: states.into_iter().find(|known| known.as_str() == state).unwrap_or(State::Open),
        verdict: verdicts.into_iter().find(|known| Some(known.as_str()) == verdict.as_deref()),
        note: row.get(13)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Room for everything.
    const ALL: u64 = u64::MAX;

    fn head(id: &str, last_ns: u64) -> Head {
        Head { id: id.to_owned(), last_ns, title: "t".to_owned(), alerts: 1, ..Head::default() }
    }

    fn note(text: &str) -> Thing {
        Thing {
            item: Item::Note(KeptNote { time_ns: 1, text: text.to_owned() }),
            record: Some("{}".to_owned()),
        }
    }

    #[test]
    fn what_is_written_is_read_and_decisions_stay() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(Store::open(folder.path(), false), Err(DatabaseError::Missing(..))));
        let mut store = Store::create(folder.path()).unwrap();
        store.write(&[head("b1", 5), head("b2", 9)], &[("b1".to_owned(), note("x"))], ALL).unwrap();
        let closed =
            Decision { state: State::Closed, verdict: Some(Verdict::Benign), note: Some("mine".to_owned()) };
        assert!(store.decide("b1", &closed, 7).unwrap());
        assert!(!store.decide("b7", &closed, 7).unwrap());
        store.write(&[Head { alerts: 3, ..head("b1", 12) }], &[], ALL).unwrap();
        let read = Store::open(folder.path(), false).unwrap();
        let rows = read.list().unwrap();
        assert_eq!(rows.iter().map(|row| row.head.id.as_str()).collect::<Vec<_>>(), ["b1", "b2"]);
        assert_eq!((rows[0].head.alerts, rows[0].state, rows[0].verdict), (3, State::Closed, closed.verdict));
        assert_eq!(read.beginning_with("b").unwrap().len(), 2);
        let (count, open) = read.not_closed(7).unwrap();
        assert_eq!((count, open.len(), open[0].head.id.as_str()), (1, 1, "b2"));
        assert_eq!(read.not_closed(0).unwrap(), (1, vec![]));
        let things = read.things("b1").unwrap();
        assert_eq!(things[0], note("x"));
        assert_eq!(
            things[1].item,
            Item::Note(KeptNote { time_ns: 7, text: "closed as benign: mine".to_owned() })
        );
        assert_eq!(read.last_id().unwrap().as_deref(), Some("b2"));
    }

    #[test]
    fn age_and_size_have_bounds_and_the_closed_go_first() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::create(folder.path()).unwrap();
        let large = "x".repeat(200_000);
        let both = ["y", "z"].map(|id| (id.to_owned(), note(&large)));
        assert_eq!(store.write(&[], &both, 200_000).unwrap().len(), 1);
        for number in 1..=6 {
            let id = format!("a{number}");
            store.write(&[head(&id, number * 10)], &[(id.clone(), note(&large))], ALL).unwrap();
        }
        assert_eq!(store.trim(20, u64::MAX).unwrap(), 1);
        let closed = Decision { state: State::Closed, verdict: None, note: None };
        assert!(store.decide("a5", &closed, 1).unwrap());
        let size = store.database.size().unwrap();
        assert_eq!(store.trim(0, size - 1).unwrap(), 1);
        assert!(store.database.size().unwrap() < size - 150_000);
        let left: Vec<String> = store.list().unwrap().into_iter().map(|row| row.head.id).collect();
        assert_eq!(left, ["a6", "a4", "a3", "a2"]);
        assert_eq!(store.trim(0, 1 << 20).unwrap(), 0);
        assert_eq!(store.things("a5").unwrap(), []);
    }
}
