//! The database of incidents: SQLite, in the state folder, for root alone.
//!
//! It is a file of its own beside the baseline's: what an incident holds is large and comes in bursts, has its own end of
//! life, and may be moved aside or taken away without what is known as normal. Otherwise it is used in the same way: a
//! rollback journal, and a batch for each transaction.

use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::OFlag;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, TransactionBehavior, params};

use super::collect::Thing;
use super::kept::{Head, Item, KeptNote};
use super::story::{State, Verdict};
use crate::rules::model::{SEVERITIES, Severity};

/// Version of the tables (`PRAGMA user_version`).
const VERSION: i64 = 1;
/// "exwi" (`PRAGMA application_id`).
const APPLICATION: i64 = 0x6578_7769;
/// How long to wait for another process that has the file locked.
const BUSY: Duration = Duration::from_secs(5);
/// SQLite's page cache in KiB.
const CACHE_KIB: i64 = 256;
/// Bytes of a note.
pub const LONGEST_NOTE: usize = 4000;

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

/// Why the database cannot be used.
#[derive(Debug)]
pub enum StoreError {
    /// There is no file.
    Missing(PathBuf),
    /// It is of a later version of execwatch.
    Later(PathBuf, i64),
    /// It is no database, or a broken one.
    Corrupt(PathBuf, String),
    /// The file or its folder cannot be used.
    File(PathBuf, std::io::Error),
    /// SQLite says no.
    Sql(PathBuf, rusqlite::Error),
}

impl std::fmt::Display for StoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StoreError::Missing(path) => write!(
                f,
                "there are no incidents in {}: the daemon writes them, unless [incident] enabled is false",
                path.display()
            ),
            StoreError::Later(path, version) => write!(
                f,
                "{} is of a later version of execwatch (its tables are of version {version}, {VERSION} is known here)",
                path.display()
            ),
            StoreError::Corrupt(path, why) => write!(
                f,
                "{} is damaged: {why}; at its next start the daemon moves it aside and begins anew",
                path.display()
            ),
            StoreError::File(path, error) => write!(f, "{}: {error}", path.display()),
            StoreError::Sql(path, error) => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl StoreError {
    /// The caller may not do that.
    pub fn not_permitted(&self) -> bool {
        match self {
            StoreError::File(_, error) => error.kind() == std::io::ErrorKind::PermissionDenied,
            StoreError::Sql(_, error) => matches!(
                error.sqlite_error_code(),
                Some(ErrorCode::PermissionDenied | ErrorCode::CannotOpen | ErrorCode::ReadOnly)
            ),
            _ => false,
        }
    }
}

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
    connection: Connection,
    path: PathBuf,
}

impl Store {
    /// Where the file is in the state folder.
    pub fn path(folder: &Path) -> PathBuf {
        folder.join("incidents.db")
    }

    /// Opens the database to write, and makes it if there is none.
    pub fn create(folder: &Path) -> Result<Store, StoreError> {
        let path = Store::path(folder);
        let file_error = |error| StoreError::File(path.clone(), error);
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(file_error)?;
        // SQLite would make it with the umask; it gives the journal the mode of the database.
        let mut options = std::fs::OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.custom_flags(OFlag::O_NOFOLLOW.bits()).open(&path).map_err(file_error)?;
        let metadata = file.metadata().map_err(file_error)?;
        if metadata.permissions().mode() & 0o077 != 0 {
            file.set_permissions(std::fs::Permissions::from_mode(0o600)).map_err(file_error)?;
        }
        drop(file);
        let store = Store::connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        store.set_up(metadata.len() == 0)?;
        Ok(store)
    }

    /// Opens a database that is there, to write or to read only.
    pub fn open(folder: &Path, write: bool) -> Result<Store, StoreError> {
        let path = Store::path(folder);
        match std::fs::File::open(&path) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(StoreError::Missing(path));
            }
            Err(error) => return Err(StoreError::File(path, error)),
        }
        let flags = if write { OpenFlags::SQLITE_OPEN_READ_WRITE } else { OpenFlags::SQLITE_OPEN_READ_ONLY };
        let store = Store::connect(path, flags)?;
        store.check()?;
        Ok(store)
    }

    fn connect(path: PathBuf, flags: OpenFlags) -> Result<Store, StoreError> {
        // One thread has a connection. Links are followed to the folder only.
        let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
        let folder = path.parent().unwrap_or(Path::new("/"));
        let real = folder.canonicalize().map_err(|error| StoreError::File(path.clone(), error))?;
        let real = real.join(path.file_name().unwrap_or_default());
        let connection = Connection::open_with_flags(&real, flags).map_err(|error| told(&path, error))?;
        let store = Store { connection, path };
        store.run(|connection| {
            connection.busy_timeout(BUSY)?;
            connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
            connection.pragma_update(None, "mmap_size", 0)?;
            connection.pragma_update(None, "temp_store", "MEMORY")
        })?;
        Ok(store)
    }

    fn run<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        work(&self.connection).map_err(|error| told(&self.path, error))
    }

    fn set_up(&self, empty: bool) -> Result<(), StoreError> {
        if empty {
            // What is removed gives its room back, without which a bound of the size would mean little.
            let tables = format!(
                "PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = TRUNCATE; BEGIN IMMEDIATE; {TABLES} \
                 PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION}; COMMIT;"
            );
            return self.run(|connection| connection.execute_batch(&tables));
        }
        self.check()?;
        self.run(|connection| connection.pragma_update(None, "journal_mode", "TRUNCATE"))?;
        let report: String =
            self.run(|connection| connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)))?;
        if report == "ok" { Ok(()) } else { Err(StoreError::Corrupt(self.path.clone(), report)) }
    }

    fn check(&self) -> Result<(), StoreError> {
        let number = |name| self.run(|it| it.pragma_query_value(None, name, |row| row.get::<_, i64>(0)));
        let (application, version) = (number("application_id")?, number("user_version")?);
        match version {
            _ if application != APPLICATION => {
                Err(StoreError::Corrupt(self.path.clone(), "it is no database of incidents".to_owned()))
            }
            VERSION => Ok(()),
            version if version > VERSION => Err(StoreError::Later(self.path.clone(), version)),
            version => Err(StoreError::Corrupt(self.path.clone(), format!("its version is {version}"))),
        }
    }

    /// Writes heads and things in one transaction. What an administrator has decided stays.
    pub fn write(&mut self, heads: &[Head], things: &[(String, Thing)]) -> Result<(), StoreError> {
        let mut write = || -> rusqlite::Result<()> {
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            {
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
                let mut insert =
                    transaction.prepare("INSERT INTO thing (incident, data, record) VALUES (?1, ?2, ?3)")?;
                for (id, thing) in things {
                    let data = serde_json::to_string(&thing.item).unwrap_or_default();
                    insert.execute(params![id, data, thing.record])?;
                }
            }
            transaction.commit()
        };
        write().map_err(|error| told(&self.path, error))
    }

    /// Writes down what an administrator decided; false if there is no such incident.
    pub fn decide(&mut self, id: &str, decision: &Decision, time_ns: u64) -> Result<bool, StoreError> {
        let mut write = || -> rusqlite::Result<bool> {
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
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
            transaction.commit()?;
            Ok(true)
        };
        write().map_err(|error| told(&self.path, error))
    }

    /// Removes incidents whose last alert was before a moment, and more while the database is larger than `max_size`:
    /// the closed ones first, then the oldest. How many were removed.
    pub fn trim(&mut self, before_ns: u64, max_size: u64) -> Result<u64, StoreError> {
        let mut removed = 0;
        loop {
            let size = self.size()?;
            let found: Option<String> = self.run(|connection| {
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
            let mut remove = || -> rusqlite::Result<()> {
                let transaction =
                    self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
                transaction.execute("DELETE FROM thing WHERE incident = ?1", [&id])?;
                transaction.execute("DELETE FROM incident WHERE id = ?1", [&id])?;
                transaction.commit()?;
                // A step of it gives one page back.
                let mut vacuum = self.connection.prepare("PRAGMA incremental_vacuum")?;
                let mut pages = vacuum.query([])?;
                while pages.next()?.is_some() {}
                Ok(())
            };
            remove().map_err(|error| told(&self.path, error))?;
            removed += 1;
        }
    }

    fn size(&self) -> Result<u64, StoreError> {
        let number = |name| self.run(|it| it.pragma_query_value(None, name, |row| row.get::<_, i64>(0)));
        Ok(u64::try_from(number("page_count")? * number("page_size")?).unwrap_or(0))
    }

    /// The last id that was given, in the order of time.
    pub fn last_id(&self) -> Result<Option<String>, StoreError> {
        self.run(|connection| {
            connection.query_row("SELECT max(id) FROM incident", [], |row| row.get::<_, Option<String>>(0))
        })
    }

    /// All incidents, the one that was heard of last first.
    pub fn list(&self) -> Result<Vec<Row>, StoreError> {
        self.rows("SELECT * FROM incident ORDER BY last DESC, id", None)
    }

    /// Those whose ids begin so.
    pub fn beginning_with(&self, id: &str) -> Result<Vec<Row>, StoreError> {
        self.rows(
            "SELECT * FROM incident WHERE substr(id, 1, length(?1)) = ?1 ORDER BY id LIMIT 20",
            Some(id),
        )
    }

    fn rows(&self, text: &str, id: Option<&str>) -> Result<Vec<Row>, StoreError> {
        self.run(|connection| {
            let mut statement = connection.prepare(text)?;
            statement.query_map(rusqlite::params_from_iter(id), row)?.collect()
        })
    }

    /// What was kept of an incident, in the order in which it came, each with its record.
    pub fn things(&self, id: &str) -> Result<Vec<Thing>, StoreError> {
        let texts = self.run(|connection| {
            let mut statement =
                connection.prepare("SELECT data, record FROM thing WHERE incident = ?1 ORDER BY number")?;
            let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, String>(0)?, row.get(1)?));
            statement.query_map([id], read)?.collect::<rusqlite::Result<Vec<(String, Option<String>)>>>()
        })?;
        let thing = |(data, record): (String, Option<String>)| match serde_json::from_str(&data) {
            Ok(item) => Ok(Thing { item, record }),
            Err(error) => Err(StoreError::Corrupt(self.path.clone(), error.to_string())),
        };
        texts.into_iter().map(thing).collect()
    }

    /// Moves a damaged database and its journal aside; where to.
    pub fn move_aside(folder: &Path, time_s: u64) -> std::io::Result<PathBuf> {
        let path = Store::path(folder);
        let beside = |path: &Path, end: &str| {
            let mut name = path.as_os_str().to_owned();
            name.push(end);
            PathBuf::from(name)
        };
        let aside = beside(&path, &format!(".damaged-{time_s}"));
        std::fs::rename(&path, &aside)?;
        // A journal that was left would be taken for the next database's.
        match std::fs::rename(beside(&path, "-journal"), beside(&aside, "-journal")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(aside),
        }
    }
}

fn told(path: &Path, error: rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            StoreError::Corrupt(path.to_owned(), error.to_string())
        }
        _ => StoreError::Sql(path.to_owned(), error),
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
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
            cut: serde_json::from_str(&cut).unwrap_or_default(),
        },
        state: states.into_iter().find(|known| known.as_str() == state).unwrap_or(State::Open),
        verdict: verdicts.into_iter().find(|known| Some(known.as_str()) == verdict.as_deref()),
        note: row.get(13)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(matches!(Store::open(folder.path(), false), Err(StoreError::Missing(_))));
        let mut store = Store::create(folder.path()).unwrap();
        store.write(&[head("b1", 5), head("b2", 9)], &[("b1".to_owned(), note("x"))]).unwrap();
        let closed =
            Decision { state: State::Closed, verdict: Some(Verdict::Benign), note: Some("mine".to_owned()) };
        assert!(store.decide("b1", &closed, 7).unwrap());
        assert!(!store.decide("b7", &closed, 7).unwrap());
        store.write(&[Head { alerts: 3, ..head("b1", 12) }], &[]).unwrap();
        let read = Store::open(folder.path(), false).unwrap();
        let rows = read.list().unwrap();
        assert_eq!(rows.iter().map(|row| row.head.id.as_str()).collect::<Vec<_>>(), ["b1", "b2"]);
        assert_eq!((rows[0].head.alerts, rows[0].state, rows[0].verdict), (3, State::Closed, closed.verdict));
        assert_eq!(read.beginning_with("b").unwrap().len(), 2);
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
        for number in 1..=6 {
            let id = format!("a{number}");
            store.write(&[head(&id, number * 10)], &[(id.clone(), note(&large))]).unwrap();
        }
        assert_eq!(store.trim(20, u64::MAX).unwrap(), 1);
        let closed = Decision { state: State::Closed, verdict: None, note: None };
        assert!(store.decide("a5", &closed, 1).unwrap());
        let size = store.size().unwrap();
        assert_eq!(store.trim(0, size - 1).unwrap(), 1);
        assert!(store.size().unwrap() < size - 150_000);
        let left: Vec<String> = store.list().unwrap().into_iter().map(|row| row.head.id).collect();
        assert_eq!(left, ["a6", "a4", "a3", "a2"]);
        assert_eq!(store.trim(0, 1 << 20).unwrap(), 0);
        assert_eq!(store.things("a5").unwrap(), []);
    }

    #[test]
    fn what_is_no_database_is_said_and_moved_aside() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(Store::path(folder.path()), b"this is not a database, whatever its name says")
            .unwrap();
        let error = Store::create(folder.path()).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt(..)), "{error}");
        let aside = Store::move_aside(folder.path(), 7).unwrap();
        assert!(aside.ends_with("incidents.db.damaged-7") && aside.exists());
        Store::create(folder.path()).unwrap();
    }
}
