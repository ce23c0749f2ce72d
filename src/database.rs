//! Databases in the state folder: SQLite, a file each, for root alone.
//!
//! They have a rollback journal, not a write-ahead log: one thread writes a batch every few seconds and hardly anybody
//! reads, so there is nothing to gain from readers that do not wait; a single file can be read on a medium that is
//! read-only, and needs no shared memory. A batch is one transaction, synchronised to the disk, so that neither kill -9
//! nor a power cut leaves anything but the last state or the one before.

use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::OFlag;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};

use crate::clock;

/// How long to wait for another process that has the file locked.
const BUSY: Duration = Duration::from_secs(5);

/// What a file holds, and whose it is.
#[derive(Debug)]
pub struct Schema {
    /// The file's name in the state folder.
    pub file: &'static str,
    /// What is in it, for messages: `the baseline`.
    pub what: &'static str,
    /// The key without which the daemon writes none: `[baseline] mode is "off"`.
    pub unless: &'static str,
    /// To tell the file from other programs' databases (`PRAGMA application_id`).
    pub application: i64,
    /// Version of the tables (`PRAGMA user_version`).
    pub version: i64,
    /// Makes the tables.
    pub tables: &'static str,
    /// SQLite's page cache in KiB. The kernel caches the file besides.
    pub cache_kib: i64,
}

/// Why a database cannot be used.
#[derive(Debug)]
pub enum DatabaseError {
    /// There is no file.
    Missing(PathBuf, &'static Schema),
    /// It is of a later version of execwatch.
    Later(PathBuf, i64, &'static Schema),
    /// It is no database, or a broken one.
    Corrupt(PathBuf, String),
    /// The file or its folder cannot be used.
    File(PathBuf, std::io::Error),
    /// SQLite says no.
    Sql(PathBuf, rusqlite::Error),
}

impl std::fmt::Display for DatabaseError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DatabaseError::Missing(path, schema) => write!(
                f,
                "there is no {}: the daemon keeps {} there, unless {}",
                path.display(),
                schema.what,
                schema.unless
            ),
            DatabaseError::Later(path, version, schema) => write!(
                f,
                "{} is of a later version of execwatch (its tables are of version {version}, {} is known here)",
                path.display(),
                schema.version
            ),
            DatabaseError::Corrupt(path, why) => write!(
                f,
                "{} is damaged: {why}; the daemon moves it aside and begins anew when it next uses it",
                path.display()
            ),
            DatabaseError::File(path, error) => write!(f, "{}: {error}", path.display()),
            DatabaseError::Sql(path, error) => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl DatabaseError {
    /// The caller may not do that.
    pub fn not_permitted(&self) -> bool {
        match self {
            DatabaseError::File(_, error) => error.kind() == std::io::ErrorKind::PermissionDenied,
            DatabaseError::Sql(_, error) => matches!(
                error.sqlite_error_code(),
                Some(ErrorCode::PermissionDenied | ErrorCode::CannotOpen | ErrorCode::ReadOnly)
            ),
            _ => false,
        }
    }
}

/// An open database.
#[derive(Debug)]
pub struct Database {
    connection: Connection,
    path: PathBuf,
    schema: &'static Schema,
}

impl Database {
    /// Opens the database to write, and makes it if there is none.
    pub fn create(folder: &Path, schema: &'static Schema) -> Result<Database, DatabaseError> {
        let path = folder.join(schema.file);
        let file_error = |error| DatabaseError::File(path.clone(), error);
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
        let database = Database::connect(path, schema, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        database.set_up(metadata.len() == 0)?;
        Ok(database)
    }

    /// Opens a database that is there, to write or to read only.
    pub fn open(folder: &Path, schema: &'static Schema, write: bool) -> Result<Database, DatabaseError> {
        let path = folder.join(schema.file);
        match std::fs::File::open(&path) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(DatabaseError::Missing(path, schema));
            }
            Err(error) => return Err(DatabaseError::File(path, error)),
        }
        let flags = if write { OpenFlags::SQLITE_OPEN_READ_WRITE } else { OpenFlags::SQLITE_OPEN_READ_ONLY };
        let database = Database::connect(path, schema, flags)?;
        database.check()?;
        Ok(database)
    }

    fn connect(path: PathBuf, schema: &'static Schema, flags: OpenFlags) -> Result<Database, DatabaseError> {
        // One thread has a connection, so SQLite needs no locks of its own. Links are followed to
        // the folder only.
        let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
        let folder = path.parent().unwrap_or(Path::new("/"));
        let real = folder.canonicalize().map_err(|error| DatabaseError::File(path.clone(), error))?;
        let real = real.join(schema.file);
        let connection = Connection::open_with_flags(&real, flags).map_err(|error| told(&path, error))?;
        let database = Database { connection, path, schema };
        database.run(|connection| {
            connection.busy_timeout(BUSY)?;
            connection.pragma_update(None, "cache_size", -schema.cache_kib)?;
            connection.pragma_update(None, "mmap_size", 0)?;
            connection.pragma_update(None, "temp_store", "MEMORY")
        })?;
        Ok(database)
    }

    /// Does something with the connection.
    pub fn run<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, DatabaseError> {
        work(&self.connection).map_err(|error| told(&self.path, error))
    }

    /// Does something in one transaction, which is committed unless there is an error.
    pub fn change<T>(
        &mut self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, DatabaseError> {
        let change = || {
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let result = work(&transaction)?;
            transaction.commit()?;
            Ok(result)
        };
        change().map_err(|error| told(&self.path, error))
    }

    fn set_up(&self, empty: bool) -> Result<(), DatabaseError> {
        if empty {
            let Schema { tables, application, version, .. } = self.schema;
            let all = format!(
                "PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = TRUNCATE; BEGIN IMMEDIATE; {tables} \
                 PRAGMA application_id = {application}; PRAGMA user_version = {version}; COMMIT;"
            );
            return self.run(|connection| connection.execute_batch(&all));
        }
        self.check()?;
        self.run(|connection| connection.pragma_update(None, "journal_mode", "TRUNCATE"))?;
        let report: String =
            self.run(|connection| connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)))?;
        if report == "ok" { Ok(()) } else { Err(self.corrupt(report)) }
    }

    fn check(&self) -> Result<(), DatabaseError> {
        let (application, version) = (self.number("application_id")?, self.number("user_version")?);
        match version {
            _ if application != self.schema.application => {
                Err(self.corrupt(format!("it is no database of {}", self.schema.what)))
            }
            version if version == self.schema.version => Ok(()),
            version if version > self.schema.version => {
                Err(DatabaseError::Later(self.path.clone(), version, self.schema))
            }
            version => Err(self.corrupt(format!("its version is {version}"))),
        }
    }

    /// The value of a pragma.
    fn number(&self, name: &str) -> Result<i64, DatabaseError> {
        self.run(|connection| connection.pragma_query_value(None, name, |row| row.get(0)))
    }

    /// Bytes of the file.
    pub fn size(&self) -> Result<u64, DatabaseError> {
        let bytes = self.number("page_count")?.saturating_mul(self.number("page_size")?);
        Ok(u64::try_from(bytes).unwrap_or(0))
    }

    /// The error that what was found in the database makes no sense.
    pub fn corrupt(&self, why: String) -> DatabaseError {
        DatabaseError::Corrupt(self.path.clone(), why)
    }

    /// Gives the room of what was removed back to the file system, without which a bound of the size would mean little.
    pub fn shrink(&self) -> Result<(), DatabaseError> {
        self.run(|connection| {
            // A step of it gives one page back.
            let mut vacuum = connection.prepare("PRAGMA incremental_vacuum")?;
            let mut pages = vacuum.query([])?;
            while pages.next()?.is_some() {}
            Ok(())
        })
    }
}

/// Opens a database by `create`; one that is damaged is moved aside, which is said, and begun anew.
pub fn create_anew_if_damaged<T>(
    folder: &Path,
    schema: &'static Schema,
    create: impl Fn() -> Result<T, DatabaseError>,
) -> Result<T, DatabaseError> {
    match create() {
        Err(DatabaseError::Corrupt(path, why)) => {
            let aside = move_aside(folder, schema, clock::realtime_ns() / 1_000_000_000)
                .map_err(|error| DatabaseError::File(path.clone(), error))?;
            log::warn!(
                "{} is damaged ({why}): it was moved to {}, and an empty one takes its place",
                path.display(),
                aside.display()
            );
            create()
        }
        result => result,
    }
}

/// Gives a damaged database another name, with the time in seconds since 1970; the name.
pub fn move_aside(folder: &Path, schema: &Schema, time_s: u64) -> std::io::Result<PathBuf> {
    let path = folder.join(schema.file);
    let beside = |path: &Path, end: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    };
    let aside = beside(&path, &format!(".damaged-{time_s}"));
    std::fs::rename(&path, &aside)?;
    // A journal that was left would be taken for the next database's.
    for end in ["-journal", "-wal", "-shm"] {
        match std::fs::rename(beside(&path, end), beside(&aside, end)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(aside)
}

fn told(path: &Path, error: rusqlite::Error) -> DatabaseError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            DatabaseError::Corrupt(path.to_owned(), error.to_string())
        }
        _ => DatabaseError::Sql(path.to_owned(), error),
    }
}

/// A number as SQLite keeps it.
pub fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    static SCHEMA: Schema = Schema {
        file: "things.db",
        what: "the things",
        unless: "[things] enabled is false",
        application: 7,
        version: 1,
        tables: "CREATE TABLE thing (data TEXT NOT NULL);",
        cache_kib: 64,
    };

    fn insert(database: &mut Database, data: &str) {
        database.change(|change| change.execute("INSERT INTO thing VALUES (?1)", [data])).unwrap();
    }

    fn count(database: &Database) -> i64 {
        database.run(|it| it.query_row("SELECT count(*) FROM thing", [], |row| row.get(0))).unwrap()
    }

    #[test]
    fn it_is_for_root_alone_and_a_change_is_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("a/b");
        let mut database = Database::create(&below, &SCHEMA).unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&below), mode(&below.join("things.db"))), (0o700, 0o600));
        insert(&mut database, "x");
        let half = database.change(|change| {
            change.execute("INSERT INTO thing VALUES ('y')", [])?;
            change.execute("INSERT INTO thing VALUES (NULL)", [])
        });
        assert!(matches!(half, Err(DatabaseError::Sql(..))), "{half:?}");
        assert_eq!(count(&Database::open(&below, &SCHEMA, false).unwrap()), 1);
    }

    #[test]
    fn what_is_removed_gives_its_room_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut database = Database::create(folder.path(), &SCHEMA).unwrap();
        insert(&mut database, &"x".repeat(200_000));
        let full = database.size().unwrap();
        database.change(|change| change.execute("DELETE FROM thing", [])).unwrap();
        database.shrink().unwrap();
        assert!(database.size().unwrap() < full - 150_000);
    }

    #[test]
    fn files_that_are_no_database() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Database::open(folder.path(), &SCHEMA, false).map(|_| ());
        let missing = open().unwrap_err();
        assert!(matches!(missing, DatabaseError::Missing(..)));
        assert!(missing.to_string().contains("keeps the things there, unless [things] enabled is false"));
        let path = folder.path().join("things.db");
        std::fs::write(&path, "no database at all, but long enough to be looked at".repeat(100)).unwrap();
        assert!(matches!(open(), Err(DatabaseError::Corrupt(..))));
        assert!(matches!(Database::create(folder.path(), &SCHEMA), Err(DatabaseError::Corrupt(..))));
        std::fs::write(path.with_extension("db-journal"), "x").unwrap();
        let aside = move_aside(folder.path(), &SCHEMA, 77).unwrap();
        assert!(aside.ends_with("things.db.damaged-77") && aside.exists());
        assert!(!path.with_extension("db-journal").exists());
        std::fs::write(&path, "no database either").unwrap();
        let create = || Database::create(folder.path(), &SCHEMA);
        let database = create_anew_if_damaged(folder.path(), &SCHEMA, create).unwrap();
        database.run(|connection| connection.pragma_update(None, "user_version", 2)).unwrap();
        assert!(matches!(open(), Err(DatabaseError::Later(_, 2, _))));
        database.run(|connection| connection.pragma_update(None, "application_id", 2)).unwrap();
        assert!(matches!(open(), Err(DatabaseError::Corrupt(..))));
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        assert!(matches!(create(), Err(DatabaseError::File(..))));
    }
}
