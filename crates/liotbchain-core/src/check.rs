//! Every rule of a valid block, one function each. The error enum is the list of the rules.

use std::collections::{HashMap, HashSet};

use crate::{
    Height, TimestampMs,
    block::{Block, CheckedBlock, Header},
    chain::Branch,
    hash::{BlockHash, KeyId, Root, TransactionId},
    key::PublicKey,
    merkle,
    mine::Draft,
    pow::{Bits, Difficulty, Target, TargetError, Work},
    rules::Rules,
    transaction::{Statement, StatementError, Transaction, VerifiedStatement},
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

/// Whether signatures are verified, which is most of the work of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signatures {
    /// Each one is verified.
    Checked,
    /// None is looked at. Each still belongs to what the block's root commits to.
    Skipped,
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
    let key = |key_id: &KeyId| ancestry.public_key(key_id);
    let examined = Examined::new(&block, parent.rules(), &key, Signatures::Checked);
    let work = examined.check_link(parent)?;
    check_ids(examined.ids(), ancestry)?;
    check_sequences(&block.transactions, ancestry)?;
    let Examined { hash, statements, .. } = examined;
    Ok(CheckedBlock { block, hash, work, ids: statements? })
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
    let ids: Vec<_> = draft.statements().iter().map(|statement| Some(statement.id())).collect();
    let block = draft.block(nonce);
    let hash = block.header.compute_hash();
    check_links(&block.header, parent)?;
    check_timestamp(&block.header, parent)?;
    let work = check_proof_of_work(&block.header, &hash, parent.rules())?;
    // The draft computed the root of these very transactions when it was made; computing it again would cost more than
    // the rest of this check.
    if block.transactions.is_empty() {
        return Err(BlockError::NoTransactions);
    }
    check_ids(&ids, ancestry)?;
    check_sequences(&block.transactions, ancestry)?;
    Ok(CheckedBlock { block, hash, work, ids })
}

/// What a block shows without the blocks below it, which is nearly all that its check costs: many blocks are examined
/// at once, on as many threads, before each is linked to the one below.
#[derive(Debug, Clone)]
pub struct Examined {
    pub(crate) header: Header,
    pub(crate) hash: BlockHash,
    transactions: usize,
    transactions_root: Root,
    statements: Result<Vec<Option<TransactionId>>, BlockError>,
}

impl Examined {
    /// Hashes a block and checks its statements, with public keys from `key`.
    pub fn new(
        block: &Block,
        rules: &Rules,
        key: &dyn Fn(&KeyId) -> Option<PublicKey>,
        signatures: Signatures,
    ) -> Self {
        let mut statements = Statements { rules, key, signatures, last_key: None };
        let mut ids = Ok(Vec::with_capacity(block.transactions.len()));
        let leaves = block.transactions.iter().enumerate().map(|(position, transaction)| {
            let Some(statement) = transaction.statement() else {
                let unsigned = transaction.key_id() == KeyId::ZERO && !rules.unsigned;
                note(
                    &mut ids,
                    if unsigned { Err(BlockError::UnsignedNotAllowed { position }) } else { Ok(None) },
                );
                return transaction.leaf_hash();
            };
            let content_hash = statement.content_hash();
            note(
                &mut ids,
                statements.check(position, statement).map(|()| {
                    Some(if statement.is_unsigned() {
                        statement.unsigned_id(&content_hash)
                    } else {
                        statement.signed_id()
                    })
                }),
            );
            transaction.leaf_hash_of(&content_hash)
        });
        let transactions_root = merkle::compute_root(leaves);
        Self {
            header: block.header.clone(),
            hash: block.header.compute_hash(),
            transactions: block.transactions.len(),
            transactions_root,
            statements: ids,
        }
    }

    /// Returns the height that the header states.
    pub fn height(&self) -> Height {
        self.header.height
    }

    /// Returns the block's hash.
    pub fn hash(&self) -> BlockHash {
        self.hash
    }

    /// Returns the id of each transaction, none where it was pruned; nothing at all where a statement is faulty.
    pub fn ids(&self) -> &[Option<TransactionId>] {
        self.statements.as_deref().unwrap_or_default()
    }

    /// Checks every rule but those about the ids and sequences of the whole branch, and returns the block's work.
    ///
    /// # Errors
    ///
    /// [`BlockError`] names the first rule that the block breaks.
    pub fn check_link(&self, parent: &Branch) -> Result<Work, BlockError> {
        if let Err(error) = &self.statements {
            return Err(error.clone());
        }
        check_links(&self.header, parent)?;
        check_timestamp(&self.header, parent)?;
        let work = check_proof_of_work(&self.header, &self.hash, parent.rules())?;
        check_transactions_root(&self.header, self.transactions, self.transactions_root)?;
        Ok(work)
    }
}

/// Keeps the ids up to the first fault.
fn note(
    ids: &mut Result<Vec<Option<TransactionId>>, BlockError>,
    id: Result<Option<TransactionId>, BlockError>,
) {
    if let Ok(known) = ids {
        match id {
            Ok(id) => known.push(id),
            Err(error) => *ids = Err(error),
        }
    }
}

/// Checks the statements of a block, one after the other.
struct Statements<'a> {
    rules: &'a Rules,
    key: &'a dyn Fn(&KeyId) -> Option<PublicKey>,
    signatures: Signatures,
    /// Of the statement before: most blocks hold many of one key.
    last_key: Option<PublicKey>,
}

impl Statements<'_> {
    fn check(&mut self, position: usize, statement: &Statement) -> Result<(), BlockError> {
        let key_id = statement.key_id;
        if statement.is_unsigned() {
            if !self.rules.unsigned {
                return Err(BlockError::UnsignedNotAllowed { position });
            }
            return statement.check_unsigned().map_err(|error| BlockError::Statement { position, error });
        }
        if self.last_key.as_ref().is_none_or(|key| key.key_id() != key_id) {
            self.last_key = (self.key)(&key_id);
        }
        let key = self.last_key.as_ref().ok_or(BlockError::UnknownKey { position, key_id })?;
        let verified = statement.check_key(key).and_then(|()| match self.signatures {
            Signatures::Checked => Ok(key.verify(statement.payload.as_bytes(), &statement.signature)?),
            Signatures::Skipped => Ok(()),
        });
        verified.map_err(|error| BlockError::Statement { position, error })
    }
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

fn check_proof_of_work(header: &Header, hash: &BlockHash, rules: &Rules) -> Result<Work, BlockError> {
    rules.check_bits(header.bits)?;
    let target = Target::from_bits(header.bits)?;
    if !target.is_met_by(hash) {
        return Err(BlockError::ProofOfWork { hash: *hash, bits: header.bits });
    }
    Ok(Work::of(&target))
}

fn check_transactions_root(header: &Header, transactions: usize, expected: Root) -> Result<(), BlockError> {
    if transactions == 0 {
        return Err(BlockError::NoTransactions);
    }
    let got = header.transactions_root;
    if got != expected {
        return Err(BlockError::TransactionsRoot { got, expected });
    }
    Ok(())
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
