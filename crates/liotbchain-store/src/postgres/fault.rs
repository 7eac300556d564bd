//! Why a statement brought no result, and whether it may have changed something all the same.

use std::{error::Error, fmt};

use tokio_postgres::error::{DbError, Severity, SqlState};

use crate::StoreError;

/// A statement that failed or took too long.
#[derive(Debug)]
pub(super) struct Fault {
    cause: Cause,
    /// The server may have committed before it failed, or may do so yet.
    unknown: bool,
}

#[derive(Debug)]
enum Cause {
    Elapsed,
    Unconfirmed,
    Postgres(tokio_postgres::Error),
}

impl Fault {
    /// The server did not answer in time.
    pub(super) fn elapsed() -> Self {
        Self { cause: Cause::Elapsed, unknown: false }
    }

    /// The server committed without its synchronous standby.
    pub(super) fn unconfirmed() -> Self {
        Self { cause: Cause::Unconfirmed, unknown: true }
    }

    /// Returns whether the server did not answer in time.
    pub(super) fn is_elapsed(&self) -> bool {
        matches!(self.cause, Cause::Elapsed)
    }

    /// Says that the statement was a COMMIT: nothing is known of what it did.
    pub(super) fn at_commit(self) -> Self {
        Self { unknown: true, ..self }
    }

    /// Says that the statement commits by itself. An error that the server reports and survives undid it; where it went
    /// away, or did not answer, nothing is known.
    pub(super) fn at_autocommit(self) -> Self {
        let undone = self.database().is_some_and(|error| error.parsed_severity() == Some(Severity::Error));
        Self { unknown: !undone, ..self }
    }

    /// Returns whether two transactions were in each other's way: the same one may pass if it is tried again.
    pub(super) fn is_conflict(&self) -> bool {
        self.is_code(&SqlState::T_R_DEADLOCK_DETECTED) || self.is_code(&SqlState::T_R_SERIALIZATION_FAILURE)
    }

    /// Returns whether a transaction named a key that has no row.
    pub(super) fn is_key_missing(&self) -> bool {
        self.is_code(&SqlState::NOT_NULL_VIOLATION)
            && self.database().is_some_and(|error| error.column() == Some("key"))
    }

    /// Returns whether the user may not do this.
    pub(super) fn is_forbidden(&self) -> bool {
        self.is_code(&SqlState::INSUFFICIENT_PRIVILEGE)
    }

    fn is_code(&self, code: &SqlState) -> bool {
        self.database().is_some_and(|error| error.code() == code)
    }

    fn database(&self) -> Option<&DbError> {
        match &self.cause {
            Cause::Elapsed | Cause::Unconfirmed => None,
            Cause::Postgres(error) => error.as_db_error(),
        }
    }
}

impl From<tokio_postgres::Error> for Fault {
    fn from(error: tokio_postgres::Error) -> Self {
        Self { cause: Cause::Postgres(error), unknown: false }
    }
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        if fault.unknown {
            Self::CommitUnknown(fault.to_string())
        } else if fault.is_code(&SqlState::DATA_CORRUPTED) || fault.is_code(&SqlState::INDEX_CORRUPTED) {
            Self::Corrupt(fault.to_string())
        } else {
            Self::Unavailable(fault.to_string())
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            Cause::Elapsed => f.write_str("PostgreSQL did not answer in time"),
            Cause::Unconfirmed => {
                f.write_str("PostgreSQL committed, but did not wait until the synchronous standby had it")
            }
            Cause::Postgres(error) => write!(f, "PostgreSQL: {}", describe(error)),
        }
    }
}

/// Returns what the server said, or else the error with its causes.
pub(super) fn describe(error: &tokio_postgres::Error) -> String {
    if let Some(said) = error.as_db_error() {
        return format!("{} (SQLSTATE {})", said.message(), said.code().code());
    }
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Why a transaction of several statements was not committed.
#[derive(Debug)]
pub(super) enum Failure {
    /// A statement failed.
    Fault(Fault),
    /// The statements went well, and what they found forbids to go on.
    Refused(StoreError),
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Refused(error)
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Fault(fault) => fault.into(),
            Failure::Refused(error) => error,
        }
    }
}
