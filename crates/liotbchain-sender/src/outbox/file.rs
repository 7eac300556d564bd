//! The file: opened for one process alone, looked over, or made.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, config::DbConfig};

use super::{
    OutboxError,
    rows::{Keys, Rows},
};

/// Bytes of a page: what a card or disk writes at once. One small reading costs a handful of pages.
pub(super) const PAGE_SIZE: u64 = 4096;
/// 0x6c696f62, `liob` in ASCII.
pub(super) const APPLICATION_ID: i64 = 1_818_849_122;
const FORMAT: i64 = 1;
const SCHEMA: &str = include_str!("schema.sql");

/// Memory for pages.
const CACHE_KIB: i64 = 4 << 10;
/// The log is copied back when it has so many pages: 8 MiB.
const LOG_PAGES: i64 = 2048;
/// Bytes that the log keeps once it is copied back.
const LOG_SIZE_KEPT: i64 = 16 << 20;
/// A sender that is just stopping gets so long to let go of the file.
const PATIENCE: Duration = Duration::from_secs(1);
/// More than all statements that are prepared.
const STATEMENTS_MAX: usize = 48;

/// Why a file was not opened.
#[derive(Debug)]
pub(super) enum OpenError {
    /// It is ours, or was, and contradicts itself.
    Damaged(String),
    /// It cannot be used.
    Refused(OutboxError),
}

impl OpenError {
    /// Returns what to tell where a file cannot be damaged, since it was just made.
    pub(super) fn into_error(self) -> OutboxError {
        match self {
            Self::Damaged(reason) => OutboxError::Disk(reason),
            Self::Refused(error) => error,
        }
    }
}

/// An open file that belongs to this process alone.
pub(super) struct QueueFile {
    pub(super) rows: Rows,
    path: PathBuf,
    identity: FileIdentity,
}

impl QueueFile {
    /// Opens the file, or makes it where there is none.
    pub(super) fn open(path: &Path, is_thorough: bool) -> Result<Self, OpenError> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(|error| refused(format!("{}: {error}", folder.display())))?;
        }
        let connection = connect(path).map_err(|error| open_error(path, error))?;
        let read = prepare(&connection, path);
        let is_ready = read.map_err(|error| open_error(path, error))??;
        if !is_ready {
            create(&connection).map_err(|error| open_error(path, error))?;
        } else if is_thorough {
            look_over(&connection).map_err(|error| open_error(path, error))??;
        }
        let identity =
            file_identity(path).map_err(|error| refused(format!("{}: {error}", path.display())))?;
        Ok(Self { rows: Rows { connection, keys: Keys::default() }, path: path.to_owned(), identity })
    }

    /// Returns whether the file is still at its path. SQLite writes on into a file that somebody deleted or replaced,
    /// and what is acknowledged there is gone with the process.
    pub(super) fn is_current(&self) -> bool {
        file_identity(&self.path).is_ok_and(|identity| identity == self.identity)
    }

    /// Copies the log back and gives it up, so that one file is left.
    pub(super) fn close(self) -> rusqlite::Result<()> {
        self.rows.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
        self.rows.connection.close().map_err(|(_, error)| error)
    }
}

/// Returns whether SQLite found the file to be other than it must be.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    // No code: a value is not of the kind that belongs there.
    matches!(error.sqlite_error_code(), None | Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// Returns whether the disk has no room.
pub(super) fn is_disk_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
}

/// Returns whether the system failed to read, write or sync.
pub(super) fn is_io_error(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure)
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(PATIENCE)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    // After an error the log is read anew, not copied: what is in the file may be needed for salvage.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    Ok(connection)
}

/// Returns whether the file has its tables.
fn prepare(connection: &Connection, path: &Path) -> rusqlite::Result<Result<bool, OpenError>> {
    // The first look takes the lock, and says whether it is a database at all.
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let application_id: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let path = path.display();
    let ours = "SELECT count(*) = 3 FROM sqlite_schema WHERE name IN ('records', 'identities', 'aside')";
    let is_ours = application_id == APPLICATION_ID || connection.query_row(ours, [], |row| row.get(0))?;
    // SQLite opens a file that it may not write for reading, without a word.
    if connection.is_readonly("main")? {
        return Ok(Err(refused(format!("{path} may only be read"))));
    }
    if tables > 0 && !is_ours {
        return Ok(Err(refused(format!(
            "{path} is a database of another program and was left untouched: choose another DATA_DIR"
        ))));
    }
    if tables == 0 {
        // Both have to be said before the first page is written. Said of a file that is full, they would fail.
        connection.pragma_update(None, "page_size", PAGE_SIZE.cast_signed())?;
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    }
    let mode: String = connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if mode != "wal" {
        return Ok(Err(refused(format!(
            "{path} cannot have a write-ahead log: choose a local disk with DATA_DIR"
        ))));
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    // Only macOS knows the difference: there, a plain fsync does not reach the disk.
    connection.pragma_update(None, "fullfsync", true)?;
    connection.pragma_update(None, "wal_autocheckpoint", LOG_PAGES)?;
    connection.pragma_update(None, "journal_size_limit", LOG_SIZE_KEPT)?;
    if tables == 0 {
        return Ok(Ok(false));
    }
    let format: Option<i64> =
        connection.query_row("SELECT format FROM meta", [], |row| row.get(0)).optional()?;
    Ok(match format {
        Some(FORMAT) => Ok(true),
        Some(found) => Err(refused(format!(
            "{path} has format {found}, of a later version of this program, which knows {FORMAT}"
        ))),
        None => Err(OpenError::Damaged("its format is not noted".to_owned())),
    })
}

fn create(connection: &Connection) -> rusqlite::Result<()> {
    let transaction = connection.unchecked_transaction()?;
    transaction.execute_batch(SCHEMA)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.execute("INSERT INTO meta (id, format, boot) VALUES (1, ?1, 0)", [FORMAT])?;
    transaction.commit()
}

fn look_over(connection: &Connection) -> rusqlite::Result<Result<(), OpenError>> {
    let found: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    // Before what is wrong stands in which database that is.
    let fault = found.lines().last().unwrap_or_default();
    Ok(if fault == "ok" { Ok(()) } else { Err(OpenError::Damaged(fault.to_owned())) })
}

fn open_error(path: &Path, error: rusqlite::Error) -> OpenError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            OpenError::Refused(OutboxError::InUse { path: path.to_owned() })
        }
        _ if is_damage(&error) => OpenError::Damaged(error.to_string()),
        _ => match why_unwritable(path) {
            Some(reason) => refused(format!("{}: {reason}", path.display())),
            None => refused(format!("{}: {error}", path.display())),
        },
    }
}

/// Returns what the system says of a new file beside this one: SQLite itself only tells that something failed.
fn why_unwritable(path: &Path) -> Option<io::Error> {
    tempfile::tempfile_in(path.parent()?).err()
}

fn refused(reason: String) -> OpenError {
    OpenError::Refused(OutboxError::Disk(reason))
}

/// Tells one file from another that later has its name.
type FileIdentity = (u64, u64);

#[cfg(unix)]
fn file_identity(path: &Path) -> io::Result<FileIdentity> {
    use std::os::unix::fs::MetadataExt;
    path.metadata().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Elsewhere an open file can neither be deleted nor replaced.
#[cfg(not(unix))]
fn file_identity(path: &Path) -> io::Result<FileIdentity> {
    path.metadata().map(|_| (0, 0))
}
