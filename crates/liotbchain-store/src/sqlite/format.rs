//! What a file is: ours, of which format, or somebody else's, which is left untouched.

use std::{
    fs, io,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, TransactionBehavior};

use super::connection::Place;
use crate::StoreError;

/// What brings a file from one format to the next. Never changed once released, only added to.
const MIGRATIONS: [&str; 2] = [include_str!("migrations/1.sql"), include_str!("migrations/2.sql")];

/// 0x6c696f74, `liot` in ASCII, by which `file` and other programs tell what the file is; the first migration sets it.
const APPLICATION_ID: i64 = 1_818_849_140;

/// The tables that make a file ours, whatever tool copied it.
const OUR_TABLES: [&str; 3] = ["history_nodes", "meta", "seal_right"];

/// The columns that the Python original gives its table `blocks`.
const ORIGINAL_COLUMNS: [&str; 6] = ["data", "hash", "index", "nonce", "previous_hash", "timestamp"];

/// Bytes of a page. 16 KiB gave the shortest slow commits of all sizes measured.
const PAGE_SIZE: i64 = 16 << 10;

/// Bytes of the smallest SQLite database: one of the smallest pages.
const DATABASE_SIZE_MIN: u64 = 512;

/// Makes the file ready: creates it where it is missing or empty, brings an older format up to date.
pub(super) fn prepare(place: &Place) -> Result<(), StoreError> {
    let path = &place.path;
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|error| StoreError::Config {
            problem: format!("the folder {} cannot be created: {error}", folder.display()),
            cure: "choose a folder that this user may write to, with DATA_DIR or DATABASE_URL".to_owned(),
        })?;
    }
    if path.is_dir() {
        return Err(StoreError::Config {
            problem: format!("{} is a folder", path.display()),
            cure: "name a file in DATABASE_URL, such as sqlite:liotbchain.db".to_owned(),
        });
    }
    match path.metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(not_writable(path, &error.to_string())),
        // SQLite itself leaves an empty file behind when it is stopped before its first write.
        Ok(metadata) if metadata.len() == 0 => {}
        // SQLite would write over a file of one byte.
        Ok(metadata) if metadata.len() < DATABASE_SIZE_MIN => return Err(no_database(path)),
        Ok(_) => examine(path)?,
    }
    migrate(place)
}

/// Refuses a file that is not ours, or of a newer version, without writing to it.
fn examine(path: &Path) -> Result<(), StoreError> {
    let open = || {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let application_id: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
        let tables = tables(&connection)?;
        Ok((connection, application_id, tables))
    };
    let (connection, application_id, tables) =
        open().map_err(|error: rusqlite::Error| match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => no_database(path),
            _ => cannot_open(path, error),
        })?;
    let has = |table: &&str| tables.iter().any(|(name, _)| name == table);
    if tables.is_empty() || application_id == APPLICATION_ID || OUR_TABLES.iter().all(has) {
        return check(&connection).map(|_| ());
    }
    let is_original = |(name, columns): &(String, Vec<String>)| {
        name == "blocks"
            && ORIGINAL_COLUMNS.iter().all(|original| columns.iter().any(|column| column == original))
    };
    if tables.iter().any(is_original) {
        return Err(StoreError::Original { location: path.display().to_string() });
    }
    Err(StoreError::Config {
        problem: format!("{} is a SQLite database of another program; it was left untouched", path.display()),
        cure: "choose another file with DATABASE_URL".to_owned(),
    })
}

/// Returns the tables and their columns.
fn tables(connection: &Connection) -> rusqlite::Result<Vec<(String, Vec<String>)>> {
    let mut names = connection.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'")?;
    let mut columns = connection.prepare("SELECT name FROM pragma_table_info(?1)")?;
    names
        .query_map([], |row| row.get(0))?
        .map(|name| {
            let name: String = name?;
            let columns = columns.query_map([&name], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
            Ok((name, columns))
        })
        .collect()
}

fn migrate(place: &Place) -> Result<(), StoreError> {
    let failed = |error| cannot_open(&place.path, error);
    let mut connection = Connection::open(&place.path).map_err(failed)?;
    // SQLite opens a file that it may not write for reading, without a word.
    if connection.is_readonly("main").map_err(failed)? {
        return Err(not_writable(&place.path, "it may only be read"));
    }
    connection.busy_timeout(place.timeout).map_err(failed)?;
    // Takes effect before the first page is written; a file that has pages keeps their size.
    connection.pragma_update(None, "page_size", PAGE_SIZE).map_err(failed)?;
    if keep_a_log(&connection, place.timeout).map_err(failed)? != "wal" {
        return Err(StoreError::Config {
            problem: format!("{} cannot have a write-ahead log where it lies", place.path.display()),
            cure: "use a local disk: SQLite's log does not work on a network file system".to_owned(),
        });
    }
    connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    let found = usize::try_from(check(&transaction)?).unwrap_or_default();
    for (format, migration) in (1..).zip(MIGRATIONS).skip(found) {
        transaction.execute_batch(migration).map_err(failed)?;
        let write = "INSERT OR REPLACE INTO meta (key, value) VALUES ('format', ?1)";
        transaction.execute(write, [format]).map_err(failed)?;
    }
    transaction.commit().map_err(failed)
}

/// Switches to a write-ahead log, and returns the mode that the file has then.
fn keep_a_log(connection: &Connection, patience: Duration) -> rusqlite::Result<String> {
    let started = Instant::now();
    loop {
        let mode = connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0));
        // For this one statement SQLite does not wait when another process is just doing the same.
        let is_busy = |error: &rusqlite::Error| error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy);
        if !mode.as_ref().is_err_and(is_busy) || started.elapsed() > patience {
            return mode;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Returns the file's format, 0 where it has no tables yet.
///
/// # Errors
///
/// [`StoreError::Newer`] where a later version wrote it.
pub(super) fn check(connection: &Connection) -> Result<i64, StoreError> {
    let exists = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'meta'";
    if connection.query_row(exists, [], |_| Ok(())).optional()?.is_none() {
        return Ok(0);
    }
    let found = connection.query_row("SELECT value FROM meta WHERE key = 'format'", [], |row| row.get(0))?;
    let known = MIGRATIONS.len() as i64;
    if found > known { Err(StoreError::Newer { found, known }) } else { Ok(found) }
}

/// At start, a file that cannot be opened is a matter of how the store is configured.
fn cannot_open(path: &Path, error: rusqlite::Error) -> StoreError {
    match StoreError::from(error) {
        StoreError::Unavailable(reason) => not_writable(path, &reason),
        other => other,
    }
}

fn no_database(path: &Path) -> StoreError {
    StoreError::Config {
        problem: format!("{} is not a SQLite database; it was left untouched", path.display()),
        cure: "choose another file with DATABASE_URL, or move this one away".to_owned(),
    }
}

fn not_writable(path: &Path, reason: &str) -> StoreError {
    StoreError::Config {
        problem: format!("{} cannot be opened for writing: {reason}", path.display()),
        cure: "check that this user may write to the file and its folder, that the disk has free space, and that no other \
               program holds the file locked"
            .to_owned(),
    }
}
