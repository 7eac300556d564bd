//! Exceptions, with the names and the hierarchy of the Python original.

use liotbchain::{
    Error as ChainError, StoreError,
    node::{LedgerError, ProveError, TransferError},
};
use pyo3::{
    PyErr, create_exception,
    exceptions::{PyException, PyIndexError, PyKeyError, PyOSError},
};

create_exception!(liotbchain.utils, Error, PyException, "The base of all exceptions of this package.");
create_exception!(liotbchain.utils, InvalidBlockError, Error, "A block breaks a rule of the chain.");
create_exception!(
    liotbchain.utils,
    InvalidChainError,
    Error,
    "A chain, or an export of one, is damaged or breaks a rule."
);
create_exception!(liotbchain.utils, BlockchainOperationError, Error, "A chain did not do as asked.");
create_exception!(
    liotbchain.utils,
    InvalidTransactionError,
    BlockchainOperationError,
    "A transaction that no chain takes, or not this one. Nothing of it was stored."
);
create_exception!(
    liotbchain.utils,
    MiningFailedError,
    Error,
    "No block was found. Its transactions stay pending; none is lost."
);
create_exception!(
    liotbchain.utils,
    DatabaseConnectionError,
    Error,
    "The database cannot be reached, read or written now. What was asked may be asked again: a signed transaction is \
     stored once, however often it is added."
);
create_exception!(
    liotbchain.utils,
    DatabaseConfigurationError,
    Error,
    "The database or a setting is of no use. The message says what to change."
);

/// Returns the exception that stands for an error of a chain.
pub(crate) fn raise(error: impl Into<ChainError>) -> PyErr {
    let error = error.into();
    let text = error.to_string();
    match error {
        ChainError::Ledger(error) => raise_ledger(&error, text),
        ChainError::Statement(_) | ChainError::NotJson(_) => InvalidTransactionError::new_err(text),
        ChainError::Transfer(error) => raise_transfer(&error, text),
        ChainError::MiningFailed { .. } => MiningFailedError::new_err(text),
        ChainError::Prove(error) => raise_prove(&error, text),
        ChainError::Random => BlockchainOperationError::new_err(text),
    }
}

fn raise_prove(error: &ProveError, text: String) -> PyErr {
    match error {
        ProveError::UnknownTransaction => PyKeyError::new_err(text),
        ProveError::UnknownHeight { .. } | ProveError::Order { .. } => PyIndexError::new_err(text),
        ProveError::Pending => BlockchainOperationError::new_err(text),
        ProveError::Damaged(_) => InvalidChainError::new_err(text),
        ProveError::Store(error) => raise_store(error, text),
    }
}

fn raise_ledger(error: &LedgerError, text: String) -> PyErr {
    match error {
        LedgerError::Store(error) => raise_store(error, text),
        LedgerError::Slow(_) => DatabaseConnectionError::new_err(text),
        LedgerError::SealedElsewhere => MiningFailedError::new_err(text),
        LedgerError::UnsignedNotAllowed => InvalidTransactionError::new_err(format!(
            "{text}: sign them (liotbchain.SigningKey), or use another db_url"
        )),
        LedgerError::DifficultyBelowLeast { .. } => DatabaseConfigurationError::new_err(format!(
            "{text}: ask for at least that, or use another db_url"
        )),
        LedgerError::Genesis(_) => DatabaseConfigurationError::new_err(text),
        LedgerError::Overloaded { .. } | LedgerError::Busy | LedgerError::Closed => {
            BlockchainOperationError::new_err(text)
        }
    }
}

fn raise_store(error: &StoreError, text: String) -> PyErr {
    match error {
        StoreError::Config { problem, cure } => {
            DatabaseConfigurationError::new_err(format!("{problem}: {cure}"))
        }
        StoreError::Newer { .. } | StoreError::Original { .. } => DatabaseConfigurationError::new_err(text),
        StoreError::Corrupt(_) => InvalidChainError::new_err(text),
        StoreError::Unavailable(_)
        | StoreError::CommitUnknown(_)
        | StoreError::TipMoved { .. }
        | StoreError::RightLost
        | StoreError::AlreadySealed
        | StoreError::MorePending { .. }
        | StoreError::AlreadyCreated => DatabaseConnectionError::new_err(text),
    }
}

fn raise_transfer(error: &TransferError, text: String) -> PyErr {
    match error {
        TransferError::Store(error) => raise_store(error, text),
        TransferError::File(error) => match error.raw_os_error() {
            Some(number) => PyOSError::new_err((number, text)),
            None => PyOSError::new_err(text),
        },
        TransferError::Export(_) | TransferError::LineSize { .. } => InvalidChainError::new_err(text),
        TransferError::NotEmpty
        | TransferError::Empty
        | TransferError::Reorganised
        | TransferError::KeyMissing { .. }
        | TransferError::InUse => BlockchainOperationError::new_err(text),
    }
}
