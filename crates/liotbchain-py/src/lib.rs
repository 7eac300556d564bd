//! `liotbchain._native`: the chain of [`liotbchain`] for Python.
//!
//! A thin layer: it turns arguments and results into each other's form, lets go of the interpreter's lock while a chain
//! works or waits, and asks for signals meanwhile. What the Python original promised is built on it in Python, in the
//! folder `python/` beside this one.

mod block;
mod chain;
mod error;
mod header;
mod key;
mod payload;
mod report;
mod runtime;
mod transaction;

use pyo3::prelude::*;

/// The part of liotbchain that is written in Rust. Use it through the package `liotbchain`.
#[pymodule]
mod _native {
    #[pymodule_export]
    use super::{
        block::{BlockIterator, SealedBlock},
        chain::{Chain, close_all},
        error::{
            BlockchainOperationError, DatabaseConfigurationError, DatabaseConnectionError, Error,
            InvalidBlockError, InvalidChainError, InvalidTransactionError, MiningFailedError,
        },
        header::{merkle_root, mine},
        key::{Signed, SigningKey},
        payload::{Prepared, to_json},
        report::{Acknowledgement, Fault, Transferred, Validation},
        transaction::{KnownTransaction, Transaction},
    };

    #[pymodule_export]
    #[expect(non_upper_case_globals, reason = "the name that Python looks for")]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}
