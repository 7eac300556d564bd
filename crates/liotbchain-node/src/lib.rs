//! A node's ledger: admit → pending → mine → append → acknowledge.
//!
//! The store decides what is true; nothing here runs ahead of it. What the ledger keeps in memory (the tip, statements
//! that it verified, requests that wait) can be thrown away at any moment, and is, whenever the store failed.

pub mod checkpoints;
pub mod ledger;
pub mod prove;
pub mod prune;
pub mod transfer;
pub mod validate;

mod pending_count;
mod seal;
mod waiting;

pub use checkpoints::CheckpointSigner;
pub use ledger::{
    Acknowledgement, Ledger, LedgerConfig, LedgerError, LedgerStatus, SealedBlock, Sealing, Submission,
};
pub use prove::{ProveError, Prover, Vouchers};
pub use prune::PrunePlan;
pub use transfer::{Export, TransferError, TransferProgress, Transferred};
pub use validate::{Fault, Origin, Since, ValidateOptions, Validation, validate, validate_with};

/// Returns milliseconds since the Unix epoch by this machine's clock.
pub fn now_ms() -> liotbchain_core::TimestampMs {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    // A clock before 1970 counts as 1970: the median of the blocks below is later and decides.
    since.map_or(0, |since| since.as_millis() as u64)
}
