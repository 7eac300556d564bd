//! Every rule of a valid block, one function each. The error enum is the list of the rules.

use std::collections::{HashMap, HashSet, hash_map::Entry};

use crate::{
    Height, TimestampMs,
    block::{Block, CheckedBlock, Header},
    chain::Branch,
    hash::{BlockHash, KeyId, Root, TransactionId},
    key::PublicKey,
    mine::Draft,
    pow::{Bits, Difficulty, Target, TargetError, Work},
    rules::Rules,
    transaction::{StatementError, Transaction, VerifiedStatement},
};

/// How far the timestamp of an arriving block may lie ahead of the checker's clock: 2 minutes.
pub const TIMESTAMP_AHEAD_MAX_MS: u64 = 120_000;

/// What the rules need to know of the branch below a block, from whoever holds it.
pub trait Ancestry {
    /// Returns the public key of this id.
    fn public_key(&self, key_id: &KeyId) -> Option<PublicKey>;
    /// Returns how many transactions of this key the branch holds.
    fn next_sequence(&self, key_id: &KeyId) -> u64;
    /// Returns whether the branch holds a transaction of this id.
    fn contains(&self, id: &TransactionId) -> bool;
}

/// The rule that a block breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// The height is not the parent's plus one.
    #[error("height {got}: expected {expected}")]
    Height {
        /// The header's.
        got: Height,
        /// One more than the parent's.
        expected: Height,
    },
    /// The header names another parent.
    #[error("prev_block_hash is {got}: the block below has the hash {expected}")]
    PrevBlockHash {
        /// The header's.
        got: BlockHash,
        /// The parent's.
        expected: BlockHash,
    },
    /// The header commits to another history.
    #[error("history_root is {got}: the blocks below give {expected}")]
    HistoryRoot {
        /// The header's.
        got: Root,
        /// Over the hashes of all blocks below.
        expected: Root,
    },
    /// The rules ask for other compact bits.
    #[error("bits {got} are not a difficulty from {least} to 16")]
    BitsNotAllowed {
        /// The header's.
        got: Bits,
        /// The least difficulty of the rules.
        least: Difficulty,
    },
    /// The bits encode no target.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The timestamp lies before the median of the blocks below.
    #[error("timestamp_ms {got} lies before {median}, the median of the last blocks")]
    TimestampBeforeMedian {
        /// The header's.
        got: TimestampMs,
        /// The median of the last min(11, height) blocks.
        median: TimestampMs,
    },
    /// The timestamp lies too far ahead of the clock.
    #[error("timestamp_ms {got} lies more than 2 minutes ahead of this clock ({now})")]
    TimestampAhead {
        /// The header's.
        got: TimestampMs,
        /// The checker's clock.
        now: TimestampMs,
    },
    /// The hash is above the target: no proof of work.
    #[error("hash {hash} is above the target of bits {bits}: no proof of work")]
    ProofOfWork {
        /// The block's hash.
        hash: BlockHash,
        /// The header's bits.
        bits: Bits,
    },
    /// A block holds no transaction.
    #[error("the block holds no transaction")]
    NoTransactions,
    /// The transactions are not those that the header commits to.
    #[error("transactions_root is {got}: the transactions give {expected}")]
    TransactionsRoot {
        /// The header's.
        got: Root,
        /// Over the block's transactions.
        expected: Root,
    },
    /// The key that signed is not known.
    #[error("transaction {position}: key {key_id} is not known")]
    UnknownKey {
        /// Place in the block.
        position: usize,
        /// The key named.
        key_id: KeyId,
    },
    /// A payload, a signature or what stands in its place breaks a rule.
    #[error("transaction {position}: {error}")]
    Statement {
        /// Place in the block.
        position: usize,
        /// The rule.
        error: StatementError,
    },
    /// A transaction is unsigned where the genesis rules do not allow it.
    #[error("transaction {position}: unsigned, which the genesis rules do not allow")]
    UnsignedNotAllowed {
        /// Place in the block.
        position: usize,
    },
    /// The same id stands earlier on the branch or in the block.
    #[error("transaction {position}: id {id} stands earlier on this branch")]
    DuplicateId {
        /// Place in the block.
        position: usize,
        /// The id.
        id: TransactionId,
    },
    /// The sequence is not the next of its key.
    #[error("transaction {position}: sequence {got}: the next of its key is {expected}")]
    Sequence {
        /// Place in the block.
        position: usize,
        /// The transaction's.
        got: u64,
        /// How many of the key stand earlier.
        expected: u64,
    },
}

impl BlockError {
    /// Returns the place of the faulty transaction, where the fault is one transaction's.
    pub fn position(&self) -> Option<usize> {
        match self {
            Self::UnknownKey { position, .. }
            | Self::Statement { position, .. }
            | Self::UnsignedNotAllowed { position }
            | Self::DuplicateId { position, .. }
            | Self::Sequence { position, .. } => Some(*position),
            _ => None,
        }
    }

    /// Returns the name of the faulty field.
    pub fn field(&self) -> &'static str {
        match self {
            Self::Height { .. } => "height",
            Self::PrevBlockHash { .. } => "prev_block_hash",
            Self::HistoryRoot { .. } => "history_root",
            Self::BitsNotAllowed { .. } | Self::Target(_) => "bits",
            Self::TimestampBeforeMedian { .. } | Self::TimestampAhead { .. } => "timestamp_ms",
            Self::ProofOfWork { .. } => "nonce",
            Self::NoTransactions => "transactions",
            Self::TransactionsRoot { .. } => "transactions_root",
            Self::UnknownKey { .. } | Self::UnsignedNotAllowed { .. } => "key_id",
            Self::Statement { error: StatementError::PayloadSize { .. }, .. } | Self::DuplicateId { .. } => {
                "payload"
            }
            Self::Statement { error: StatementError::OtherKey { .. }, .. } => "key_id",
            Self::Statement { .. } => "signature",
            Self::Sequence { .. } => "sequence",
        }
    }
}

/// Checks a block from elsewhere, with every signature. `now_ms` is given for blocks that arrive, not for stored ones.
///
/// # Errors
///
/// [`BlockError`] names the first rule that the block breaks.
pub fn check_block(
    block: Block,
    parent: &Branch,
    ancestry: &dyn Ancestry,
    now_ms: Option<TimestampMs>,
) -> Result<CheckedBlock, BlockError> {
    if let Some(now_ms) = now_ms {
        check_not_ahead(&block.header, now_ms)?;
    }
    let ids = check_statements(&block.transactions, parent.rules(), ancestry)?;
    check_on_branch(block, ids, parent, ancestry)
}

/// Checks a block that was drafted here of statements verified before, with the nonce that mining found.
///
/// # Errors
///
/// [`BlockError`] names the first rule that the block breaks.
pub fn check_draft(
    draft: &Draft,
    nonce: u32,
    parent: &Branch,
    ancestry: &dyn Ancestry,
) -> Result<CheckedBlock, BlockError> {
    let unsigned = |statement: &VerifiedStatement| statement.statement().is_unsigned();
    if let Some(position) = draft.statements().iter().position(unsigned).filter(|_| !parent.rules().unsigned)
    {
        return Err(BlockError::UnsignedNotAllowed { position });
    }
    let ids = draft.statements().iter().map(|statement| Some(statement.id())).collect();
    check_on_branch(draft.block(nonce), ids, parent, ancestry)
}

/// All rules but those of single statements.
fn check_on_branch(
    block: Block,
    ids: Vec<Option<TransactionId>>,
    parent: &Branch,
    ancestry: &dyn Ancestry,
) -> Result<CheckedBlock, BlockError> {
    check_links(&block.header, parent)?;
    check_timestamp(&block.header, parent)?;
    let work = check_proof_of_work(&block.header, parent.rules())?;
    check_transactions_root(&block)?;
    check_ids(&ids, ancestry)?;
    check_sequences(&block.transactions, ancestry)?;
    let hash = block.header.compute_hash();
    Ok(CheckedBlock { block, hash, work, ids })
}

fn check_links(header: &Header, parent: &Branch) -> Result<(), BlockError> {
    let expected = parent.next_height();
    if header.height != expected {
        return Err(BlockError::Height { got: header.height, expected });
    }
    let expected = parent.tip();
    if header.prev_block_hash != expected {
        return Err(BlockError::PrevBlockHash { got: header.prev_block_hash, expected });
    }
    let expected = parent.history_root();
    if header.history_root != expected {
        return Err(BlockError::HistoryRoot { got: header.history_root, expected });
    }
    Ok(())
}

fn check_timestamp(header: &Header, parent: &Branch) -> Result<(), BlockError> {
    let median = parent.median_timestamp_ms();
    if header.timestamp_ms < median {
        return Err(BlockError::TimestampBeforeMedian { got: header.timestamp_ms, median });
    }
    Ok(())
}

fn check_not_ahead(header: &Header, now_ms: TimestampMs) -> Result<(), BlockError> {
    if header.timestamp_ms > now_ms.saturating_add(TIMESTAMP_AHEAD_MAX_MS) {
        return Err(BlockError::TimestampAhead { got: header.timestamp_ms, now: now_ms });
    }
    Ok(())
}

fn check_proof_of_work(header: &Header, rules: &Rules) -> Result<Work, BlockError> {
    rules.check_bits(header.bits)?;
    let target = Target::from_bits(header.bits)?;
    let hash = header.compute_hash();
    if !target.is_met_by(&hash) {
        return Err(BlockError::ProofOfWork { hash, bits: header.bits });
    }
    Ok(Work::of(&target))
}

fn check_transactions_root(block: &Block) -> Result<(), BlockError> {
    if block.transactions.is_empty() {
        return Err(BlockError::NoTransactions);
    }
    let (got, expected) = (block.header.transactions_root, block.compute_transactions_root());
    if got != expected {
        return Err(BlockError::TransactionsRoot { got, expected });
    }
    Ok(())
}

/// Verifies each statement that was not pruned, and returns the ids.
fn check_statements(
    transactions: &[Transaction],
    rules: &Rules,
    ancestry: &dyn Ancestry,
) -> Result<Vec<Option<TransactionId>>, BlockError> {
    let mut keys: HashMap<KeyId, PublicKey> = HashMap::new();
    let mut ids = Vec::with_capacity(transactions.len());
    for (position, transaction) in transactions.iter().enumerate() {
        let key_id = transaction.key_id();
        if key_id == KeyId::ZERO && !rules.unsigned {
            return Err(BlockError::UnsignedNotAllowed { position });
        }
        let Some(statement) = transaction.statement() else {
            ids.push(None);
            continue;
        };
        let statement = statement.as_ref().clone();
        let checked = if key_id == KeyId::ZERO {
            VerifiedStatement::check_unsigned(statement)
        } else {
            let key = match keys.entry(key_id) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => {
                    let key = ancestry.public_key(&key_id);
                    entry.insert(key.ok_or(BlockError::UnknownKey { position, key_id })?)
                }
            };
            VerifiedStatement::verify(statement, key)
        };
        ids.push(Some(checked.map_err(|error| BlockError::Statement { position, error })?.id()));
    }
    Ok(ids)
}

fn check_ids(ids: &[Option<TransactionId>], ancestry: &dyn Ancestry) -> Result<(), BlockError> {
    let mut seen = HashSet::with_capacity(ids.len());
    for (position, id) in ids.iter().enumerate() {
        let Some(id) = *id else { continue };
        if !seen.insert(id) || ancestry.contains(&id) {
            return Err(BlockError::DuplicateId { position, id });
        }
    }
    Ok(())
}

fn check_sequences(transactions: &[Transaction], ancestry: &dyn Ancestry) -> Result<(), BlockError> {
    let mut next: HashMap<KeyId, u64> = HashMap::new();
    for (position, transaction) in transactions.iter().enumerate() {
        let key_id = transaction.key_id();
        let expected = next.entry(key_id).or_insert_with(|| ancestry.next_sequence(&key_id));
        if transaction.sequence != *expected {
            return Err(BlockError::Sequence { position, got: transaction.sequence, expected: *expected });
        }
        *expected += 1;
    }
    Ok(())
}
