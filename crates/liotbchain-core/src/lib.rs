//! The rules of a liotbchain, and nothing else.
//!
//! Everything here is a pure function of its arguments: no input or output, no clock, no randomness, no threads but the
//! ones that [`mine`] starts and joins. The same code therefore runs in the receiver, in a simulator and in a test.
//!
//! Bytes become values in [`codec`], values are checked once in [`check`], and only a [`CheckedBlock`] may be stored.
//! The format is written down in `docs/chain-format.md`; a stranger can check a chain with that page alone.

pub mod block;
pub mod chain;
pub mod check;
pub mod checkpoint;
pub mod codec;
pub mod export;
pub mod fork;
pub mod hash;
pub mod key;
pub mod merkle;
pub mod mine;
pub mod note;
mod object;
pub mod policy;
pub mod pow;
pub mod proof;
pub mod prune;
pub mod receipt;
pub mod rules;
pub mod transaction;

pub use block::{Block, CheckedBlock, Header};
pub use chain::{Branch, ChainFault, Validator};
pub use check::{Ancestry, BlockError};
pub use checkpoint::Checkpoint;
pub use fork::Fork;
pub use hash::{BlockHash, ContentHash, KeyId, Root, TransactionId};
pub use key::{PublicKey, PublicKeyError};
pub use note::{Note, NoteKey, NoteKeyKind};
pub use policy::Policy;
pub use pow::{Bits, Difficulty, Target, Work};
pub use prune::PruneRecord;
pub use rules::{Rules, SealRule};
pub use transaction::{Content, Statement, Transaction, VerifiedStatement};

/// Position of a block in a chain: the genesis block is at 0.
pub type Height = u32;

/// Milliseconds since the Unix epoch.
pub type TimestampMs = u64;
