//! What was cosigned last of each log, and what was kept against it, in `witness.db`.
//!
//! A witness that cosigns two histories is worth nothing, so one transaction compares a submission with what is known,
//! writes what comes of it, and is on the disk before anybody signs.

use std::{
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use liotbchain_core::{Fork, Note, Root};
use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction, TransactionBehavior, params};

use crate::{
    evidence::{self, Evidence, EvidenceKind, Filed},
    submission::{Decision, Known, Submission},
};

/// 0x6c696f77, `liow` in ASCII.
const APPLICATION_ID: i64 = 1_818_849_143;
const FORMAT: i64 = 1;
const SCHEMA: &str = include_str!("schema.sql");
/// A witness that is just stopping gets so long to let go of the file.
const PATIENCE: Duration = Duration::from_secs(1);

/// Why the state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// SQLite failed.
    #[error("witness.db: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// A commit failed, and it is not known how much of it is on the disk.
    #[error("witness.db could not be written, and nothing is cosigned until the witness is started again")]
    Failed,
    /// The file is another program's.
    #[error("{0} is a database of another program and was left untouched: choose another DATA_DIR")]
    Foreign(String),
    /// A later version made the file.
    #[error("{path} has format {found}, this version knows {FORMAT}: use a newer liotbchain")]
    Newer {
        /// The file.
        path: String,
        /// Its format.
        found: i64,
    },
    /// The file cannot have what it needs.
    #[error("{0} cannot have a write-ahead log: choose a local disk with DATA_DIR")]
    NoLog(String),
    /// A row contradicts itself.
    #[error("witness.db is damaged: {0}")]
    Damaged(&'static str),
}

/// The latest tree of a log that was cosigned, as the log signed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Latest {
    /// Size and root.
    pub known: Known,
    /// The checkpoint, under the log's signature.
    pub note: Note,
    /// When it was cosigned, in seconds since the Unix epoch.
    pub cosigned_s: u64,
}

/// What came of a submission.
#[derive(Debug)]
pub struct Outcome {
    /// What is to be done.
    pub decision: Decision,
    /// The time to cosign with, where that is to be done.
    pub time_s: u64,
    /// What was kept against the log, and not known before.
    pub filed: Option<Filed>,
}

/// The file, for this process alone.
#[derive(Debug)]
pub struct State {
    connection: Mutex<Connection>,
    is_failed: AtomicBool,
}

impl State {
    /// Opens the file, or makes it where there is none.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let connection = Connection::open(path)?;
        connection.busy_timeout(PATIENCE)?;
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        let application_id: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
        let path = path.display().to_string();
        if tables > 0 && application_id != APPLICATION_ID {
            return Err(StateError::Foreign(path));
        }
        let mode: String =
            connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
        if mode != "wal" {
            return Err(StateError::NoLog(path));
        }
        connection.pragma_update(None, "synchronous", "FULL")?;
        // Only macOS knows the difference: there, a plain fsync does not reach the disk.
        connection.pragma_update(None, "fullfsync", true)?;
        if tables == 0 {
            let mark = format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT};");
            connection.execute_batch(&format!("BEGIN IMMEDIATE; {SCHEMA} {mark} COMMIT"))?;
        }
        let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if found != FORMAT {
            return Err(StateError::Newer { path, found });
        }
        Ok(Self { connection: Mutex::new(connection), is_failed: AtomicBool::new(false) })
    }

    /// Decides about a submission that the log signed, and keeps what comes of it. `signed` is its checkpoint under the
    /// log's signature alone. What is returned is on the disk.
    ///
    /// # Errors
    ///
    /// [`StateError`]; then nothing may be cosigned.
    pub fn submit(&self, submission: &Submission, signed: &Note, now_s: u64) -> Result<Outcome, StateError> {
        self.write(|transaction| {
            let checkpoint = &submission.checkpoint;
            let latest = latest(transaction, &checkpoint.origin)?;
            let known = latest.as_ref().map(|latest| latest.known);
            let decision = submission.decide(known);
            // A clock that was put back must not make a later statement older than an earlier one.
            let time_s = latest.as_ref().map_or(now_s, |latest| now_s.max(latest.cosigned_s));
            if decision == Decision::Advance {
                transaction.prepare_cached(
                    "INSERT INTO logs (origin, size, root, checkpoint, cosigned_s) VALUES (?1, ?2, ?3, ?4, ?5)
                     ON CONFLICT (origin) DO UPDATE SET size = ?2, root = ?3, checkpoint = ?4, cosigned_s = ?5",
                )?
                .execute(params![
                    checkpoint.origin,
                    checkpoint.size,
                    checkpoint.root.0,
                    signed.to_string(),
                    time_s
                ])?;
            }
            let evidence =
                latest.as_ref().and_then(|latest| conflict(latest, submission, signed, &decision));
            let filed = evidence.map(|evidence| file(transaction, &evidence, now_s)).transpose()?.flatten();
            Ok(Outcome { decision, time_s, filed })
        })
    }

    /// Keeps evidence, unless it is known or there is enough of it.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub fn keep(&self, evidence: &Evidence, now_s: u64) -> Result<Option<Filed>, StateError> {
        self.write(|transaction| file(transaction, evidence, now_s))
    }

    /// Returns what was cosigned last of a log.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub fn latest(&self, origin: &str) -> Result<Option<Latest>, StateError> {
        latest(&self.connection(), origin)
    }

    /// Returns how many pieces of evidence are kept against a log: forks that are proven, and all.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub fn evidence_counts(&self, origin: &str) -> Result<(u64, u64), StateError> {
        let connection = self.connection();
        let count = "SELECT count(*) FILTER (WHERE kind = 'fork'), count(*) FROM evidence WHERE origin = ?1";
        Ok(connection.prepare_cached(count)?.query_row([origin], |row| Ok((row.get(0)?, row.get(1)?)))?)
    }

    /// Returns evidence without the files' text, the newest first.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub fn evidence(&self, limit: u32) -> Result<Vec<Filed>, StateError> {
        let connection = self.connection();
        let select =
            "SELECT number, origin, kind, kept_s, reason FROM evidence ORDER BY number DESC LIMIT ?1";
        let mut select = connection.prepare_cached(select)?;
        let rows = select.query_map([limit], |row| {
            let kind: String = row.get(2)?;
            Ok(Filed {
                number: row.get(0)?,
                origin: row.get(1)?,
                kind: EvidenceKind::parse(&kind).unwrap_or(EvidenceKind::Invalid),
                kept_s: row.get(3)?,
                reason: row.get(4)?,
                removed: Vec::new(),
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Returns the text of a piece of evidence.
    ///
    /// # Errors
    ///
    /// [`StateError`].
    pub fn evidence_json(&self, number: u64) -> Result<Option<String>, StateError> {
        let connection = self.connection();
        let mut select = connection.prepare_cached("SELECT json FROM evidence WHERE number = ?1")?;
        Ok(select.query_row([number], |row| row.get(0)).optional()?)
    }

    fn connection(&self) -> std::sync::MutexGuard<'_, Connection> {
        // A transaction that a panic interrupted was rolled back when it was dropped.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write<T>(
        &self,
        change: impl FnOnce(&Transaction<'_>) -> Result<T, StateError>,
    ) -> Result<T, StateError> {
        let mut connection = self.connection();
        if self.is_failed.load(Ordering::Relaxed) {
            return Err(StateError::Failed);
        }
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let changed = change(&transaction)?;
        if let Err(error) = transaction.commit() {
            // What a failed sync left in memory may read as if it were on the disk.
            if error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure) {
                self.is_failed.store(true, Ordering::Relaxed);
            }
            return Err(error.into());
        }
        Ok(changed)
    }
}

fn latest(connection: &Connection, origin: &str) -> Result<Option<Latest>, StateError> {
    let mut select =
        connection.prepare_cached("SELECT size, root, checkpoint, cosigned_s FROM logs WHERE origin = ?1")?;
    let row = select
        .query_row([origin], |row| {
            Ok((row.get(0)?, row.get::<_, [u8; 32]>(1)?, row.get::<_, String>(2)?, row.get(3)?))
        })
        .optional()?;
    let Some((size, root, note, cosigned_s)) = row else { return Ok(None) };
    let note = note.parse().map_err(|_| StateError::Damaged("a checkpoint is no signed note"))?;
    Ok(Some(Latest { known: Known { size, root: Root(root) }, note, cosigned_s }))
}

/// Returns what a submission shows against its log.
fn conflict(
    latest: &Latest,
    submission: &Submission,
    signed: &Note,
    decision: &Decision,
) -> Option<Evidence> {
    let fork = || Fork {
        first: latest.note.clone(),
        second: signed.clone(),
        old: submission.old,
        proof: submission.proof.clone(),
    };
    let Known { size, root } = latest.known;
    let checkpoint = &submission.checkpoint;
    let origin = &checkpoint.origin;
    if submission.forks_from(latest.known) {
        return Some(Evidence::of_fork(origin, &fork(), size));
    }
    match decision {
        Decision::BadProof(error) if (checkpoint.size, checkpoint.root) != (size, root) => {
            let reason = format!("no proof leads from size {size} to size {}: {error}", checkpoint.size);
            Some(Evidence::of_doubt(origin, &fork(), reason))
        }
        _ => None,
    }
}

fn file(transaction: &Transaction<'_>, evidence: &Evidence, now_s: u64) -> Result<Option<Filed>, StateError> {
    let Evidence { origin, kind, digest, reason, json } = evidence;
    let count =
        "SELECT count(*) FILTER (WHERE origin = ?1 AND kind = ?2), count(*) FILTER (WHERE digest = ?3)
                 FROM evidence";
    let (kept, same): (u64, u64) = transaction
        .prepare_cached(count)?
        .query_row(params![origin, kind.name(), digest], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if same > 0 || (*kind == EvidenceKind::Fork && kept >= evidence::FORKS_MAX) {
        return Ok(None);
    }
    let insert = "INSERT INTO evidence (origin, kind, digest, kept_s, reason, json)
                  VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    transaction.prepare_cached(insert)?.execute(params![origin, kind.name(), digest, now_s, reason, json])?;
    let number = transaction.last_insert_rowid().cast_unsigned();
    let mut filed = Filed {
        number,
        origin: origin.clone(),
        kind: *kind,
        kept_s: now_s,
        reason: reason.clone(),
        removed: Vec::new(),
    };
    if *kind != EvidenceKind::Fork {
        let delete = "DELETE FROM evidence WHERE number IN (SELECT number FROM evidence
                      WHERE origin = ?1 AND kind = ?2 ORDER BY number DESC LIMIT -1 OFFSET ?3) RETURNING number";
        let mut delete = transaction.prepare_cached(delete)?;
        let removed = delete.query_map((origin, kind.name(), evidence::DOUBTS_MAX), |row| row.get(0))?;
        filed.removed = removed.collect::<Result<_, _>>()?;
    }
    Ok(Some(filed))
}
