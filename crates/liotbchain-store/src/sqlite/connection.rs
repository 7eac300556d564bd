//! A connection to the file, and what must be true of it.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::format;
use crate::StoreError;

/// Memory for the writer's pages: ids are random, so the pages of their index are hit in no order.
const WRITER_CACHE_KIB: i64 = 64 << 10;

/// More than all statements that a connection prepares.
const STATEMENTS_MAX: usize = 64;

/// A file that connections are opened on.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) path: PathBuf,
    /// Longest wait for a lock that another process holds.
    pub(super) timeout: Duration,
}

/// A connection, with the file that it was opened on.
pub(super) struct Opened {
    pub(super) connection: Connection,
    file: FileId,
}

impl Opened {
    /// Returns whether the file is still at its path. SQLite writes on into a file that somebody deleted or replaced, and
    /// what is acknowledged there is gone with the process.
    pub(super) fn is_current(&self, place: &Place) -> bool {
        file_id(&place.path).is_ok_and(|file| file == self.file)
    }
}

impl Place {
    /// Opens for writing. The file must be there.
    pub(super) fn open_writer(&self) -> Result<Opened, StoreError> {
        let opened = self.open(OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        let connection = &opened.connection;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        // Only macOS knows the difference: there, a plain fsync does not reach the disk.
        connection.pragma_update(None, "fullfsync", true)?;
        connection.pragma_update(None, "wal_autocheckpoint", 0)?;
        connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
        Ok(opened)
    }

    /// Opens for reading.
    pub(super) fn open_reader(&self) -> Result<Opened, StoreError> {
        self.open(OpenFlags::SQLITE_OPEN_READ_ONLY)
    }

    /// Opens for copying the write-ahead log back into the file, with little patience: while it waits, writers wait.
    pub(super) fn open_checkpointer(&self, patience: Duration) -> Result<Opened, StoreError> {
        let opened = self.open(OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        opened.connection.pragma_update(None, "synchronous", "FULL")?;
        opened.connection.pragma_update(None, "fullfsync", true)?;
        opened.connection.busy_timeout(patience)?;
        Ok(opened)
    }

    fn open(&self, flags: OpenFlags) -> Result<Opened, StoreError> {
        let connection = Connection::open_with_flags(&self.path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        connection.busy_timeout(self.timeout)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        if format::check(&connection)? == 0 {
            return Err(StoreError::Unavailable(format!(
                "{} no longer holds the chain",
                self.path.display()
            )));
        }
        let file = file_id(&self.path).map_err(|error| StoreError::Unavailable(error.to_string()))?;
        Ok(Opened { connection, file })
    }
}

/// Tells one file from another that later has its name.
type FileId = (u64, u64);

#[cfg(unix)]
fn file_id(path: &Path) -> io::Result<FileId> {
    use std::os::unix::fs::MetadataExt;
    path.metadata().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Elsewhere an open file can neither be deleted nor replaced.
#[cfg(not(unix))]
fn file_id(path: &Path) -> io::Result<FileId> {
    path.metadata().map(|_| (0, 0))
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use ErrorCode::{ConstraintViolation, DatabaseCorrupt, NotADatabase, TypeMismatch, Unknown};
        match error.sqlite_error_code() {
            // No code: a value that is stored is not of the kind that belongs there.
            None | Some(ConstraintViolation | DatabaseCorrupt | NotADatabase | TypeMismatch | Unknown) => {
                Self::Corrupt(error.to_string())
            }
            Some(_) => Self::Unavailable(error.to_string()),
        }
    }
}
