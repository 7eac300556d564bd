//! Proof files: a receipt for one transaction, the history of one key, and the consistency of two trees. Whoever has the file
//! checks it here, alone: no network, no server, no clock.
//!
//! ```text
//! transaction ─path▶ transactions_root ─ header ─ block hash ─path▶ root of the history tree over `size` blocks
//!                                                                      │
//!                     header at height `size`, with its work ◀─────────┼──────▶ checkpoint, with its signatures
//! ```
//!
//! What stands at the end of the paths is called the anchor. Whether to trust an anchor is not decided here: a header shows
//! work, a checkpoint names who vouches ([`crate::policy`]).

mod json;
mod tlog_proof;

use crate::{
    Height, TimestampMs,
    block::{Block, Header},
    checkpoint::{Checkpoint, CheckpointError, origin_of},
    hash::{BlockHash, KeyId, Root, TransactionId},
    key::PublicKey,
    merkle,
    note::Note,
    pow::{Bits, Difficulty, Target, TargetError, Work},
    proof::{self, ProofError},
    transaction::{Content, Statement, StatementError, Transaction, UNSIGNED_SALT_SIZE},
};

pub use json::{FileError, ProofFile};
pub use tlog_proof::{FIRST_LINE as TLOG_PROOF_FIRST_LINE, TlogProofError};

/// Most bytes of a proof file.
pub const FILE_SIZE_MAX: usize = 64 << 20;

/// A path of hashes, from the leaf's neighbour upwards.
pub type Path = Vec<[u8; 32]>;

/// What the paths of a proof file end in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchor {
    /// Blocks in the history tree.
    pub size: u64,
    /// Path from the genesis block to the root: which chain it is. Empty where no block is in the tree.
    pub genesis_path: Path,
    /// The header of the block at height `size`, if there was one: its `history_root` is the tree's root.
    pub header: Option<Header>,
    /// What the operator, and perhaps witnesses, signed of a tree of this size.
    pub checkpoint: Option<Note>,
}

/// A transaction in a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its place in the block.
    pub position: u32,
    /// The path from its leaf to the block's `transactions_root`.
    pub path: Path,
    /// The transaction, whole or pruned.
    pub transaction: Transaction,
}

/// A block with some of its transactions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvenBlock {
    /// Its header.
    pub header: Header,
    /// How many transactions it holds.
    pub transactions: u32,
    /// Those that are shown.
    pub entries: Vec<Entry>,
    /// The path from its hash to the anchor's root; none where the anchor's header is its own.
    pub history_path: Option<Path>,
}

/// The proof that one transaction stands on a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Hash of the genesis block: which chain it is.
    pub genesis: BlockHash,
    /// The key that signed; none where the transaction is unsigned.
    pub public_key: Option<PublicKey>,
    /// The block, with the transaction as its only entry.
    pub block: ProvenBlock,
    /// What it ends in.
    pub anchor: Anchor,
}

/// The proof that a block stands on a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockProof {
    /// Hash of the genesis block: which chain it is.
    pub genesis: BlockHash,
    /// The block, with no entries.
    pub block: ProvenBlock,
    /// What it ends in.
    pub anchor: Anchor,
}

/// The proof that these are all transactions of a key on a part of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyHistory {
    /// Hash of the genesis block: which chain it is.
    pub genesis: BlockHash,
    /// Whose transactions; zero for unsigned ones.
    pub key_id: KeyId,
    /// The key; none for unsigned transactions.
    pub public_key: Option<PublicKey>,
    /// Height of the first block that was asked for.
    pub from: Height,
    /// Height of the last one.
    pub to: Height,
    /// In chain order: where there is one, the key's last transaction below `from`; all from `from` to `to`; where there is
    /// one, its first above `to`.
    pub blocks: Vec<ProvenBlock>,
    /// What they end in.
    pub anchor: Anchor,
}

/// The proof that a later history begins with an earlier one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consistency {
    /// Hash of the genesis block: which chain it is.
    pub genesis: BlockHash,
    /// The earlier tree.
    pub from: Anchor,
    /// The later tree.
    pub to: Anchor,
    /// The proof of RFC 9162, section 2.1.4.
    pub path: Path,
    /// The path from the hash of `from`'s header, which is entry `from.size`, to the root of `to`; none where there is no
    /// such header, or the later tree ends below it.
    pub header_path: Option<Path>,
}

/// Why a proof file proves nothing. A rule a variant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// An anchor without anything to hold on to.
    #[error("neither a header nor a checkpoint stands at the end of the path")]
    NoAnchor,
    /// The header at the end is of another height.
    #[error(
        "the header at the end of the path has height {got}: a tree of {size} blocks is that of height {size}"
    )]
    AnchorHeight {
        /// The header's.
        got: Height,
        /// Blocks in the tree.
        size: u64,
    },
    /// Header and checkpoint name different trees.
    #[error("header and checkpoint at the end of the path name different trees: {header} and {checkpoint}")]
    AnchorsDiffer {
        /// The header's `history_root`.
        header: Root,
        /// The checkpoint's root.
        checkpoint: Root,
    },
    /// The checkpoint is of another size than the file says.
    #[error("the checkpoint is of {got} blocks: the path ends in a tree of {expected}")]
    CheckpointSize {
        /// The checkpoint's.
        got: u64,
        /// The anchor's.
        expected: u64,
    },
    /// The checkpoint is none, or of another chain.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The genesis block is not the first of the tree.
    #[error("the chain does not begin with the genesis block {genesis}: {error}")]
    Genesis {
        /// The file's.
        genesis: BlockHash,
        /// What is wrong with the path.
        error: ProofError,
    },
    /// The bits of a header are no target.
    #[error("block {height}: {error}")]
    Bits {
        /// The block's height.
        height: Height,
        /// What is wrong.
        error: TargetError,
    },
    /// The bits of a header are those of no difficulty.
    #[error("block {height}: bits {bits} are not a difficulty from 0 to 16")]
    BitsNotAllowed {
        /// The block's height.
        height: Height,
        /// The header's.
        bits: Bits,
    },
    /// A header without its work.
    #[error("block {height}: the hash {hash} is above the target: no proof of work")]
    ProofOfWork {
        /// The block's height.
        height: Height,
        /// The block's hash.
        hash: BlockHash,
    },
    /// A block is not in the history.
    #[error("block {height} is not in the history that the proof ends in: {error}")]
    History {
        /// The block's height.
        height: Height,
        /// What is wrong with the path.
        error: ProofError,
    },
    /// A block without a path is not the one that the proof ends in.
    #[error("block {height} has no path, and is not the one that the proof ends in")]
    NoPath {
        /// The block's height.
        height: Height,
    },
    /// A transaction is not in its block.
    #[error("transaction {position} is not in block {height}: {error}")]
    Inclusion {
        /// The block's height.
        height: Height,
        /// The place that the file says.
        position: u32,
        /// What is wrong with the path.
        error: ProofError,
    },
    /// The key is missing, or is another one.
    #[error("the public key of {expected} is missing, or another one stands in its place")]
    PublicKey {
        /// The key that the transaction names.
        expected: KeyId,
    },
    /// A payload or a signature breaks a rule.
    #[error("transaction {position} of block {height}: {error}")]
    Statement {
        /// The block's height.
        height: Height,
        /// The place in the block.
        position: u32,
        /// The rule.
        error: StatementError,
    },
    /// Not the one transaction of a receipt, or transactions in the proof of a block.
    #[error("{got} transactions are shown: expected one in a receipt, none in the proof of a block")]
    Entries {
        /// How many there are.
        got: usize,
    },
    /// A history that asks for blocks in the wrong order.
    #[error("the history is asked for from height {from} to {to}")]
    Range {
        /// The first height.
        from: Height,
        /// The last one.
        to: Height,
    },
    /// A transaction of another key in a key's history.
    #[error("transaction {position} of block {height} is of key {got}: the history is that of {expected}")]
    OtherKey {
        /// The block's height.
        height: Height,
        /// The place in the block.
        position: u32,
        /// The transaction's key.
        got: KeyId,
        /// The history's key.
        expected: KeyId,
    },
    /// Blocks or transactions of a history are not in chain order, or stand there twice.
    #[error("block {height} or a transaction in it is not in chain order")]
    Order {
        /// The block's height.
        height: Height,
    },
    /// A number of the key is missing.
    #[error(
        "transaction {expected} of the key is missing: {got} of block {height} follows on the one before"
    )]
    Gap {
        /// The block's height.
        height: Height,
        /// The transaction's number.
        got: u64,
        /// The number that should stand there.
        expected: u64,
    },
    /// The first number of the key that is shown is not its first, and nothing before it is shown.
    #[error(
        "transactions {got} and on of the key are shown from block {height} on: one below block {from} must be shown too, to \
         prove that none stands between"
    )]
    NoneBefore {
        /// The first block shown.
        height: Height,
        /// The first number shown.
        got: u64,
        /// Where the history is asked for from.
        from: Height,
    },
    /// More than one transaction before or behind the part that was asked for.
    #[error("block {height} lies outside of what the history shows")]
    Outside {
        /// The block's height.
        height: Height,
    },
    /// The later tree does not begin with the earlier one.
    #[error("the tree of {to} blocks does not begin with that of {from}: {error}")]
    Consistency {
        /// Size of the earlier tree.
        from: u64,
        /// Size of the later one.
        to: u64,
        /// What is wrong with the path.
        error: ProofError,
    },
}

/// What an anchor shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvenAnchor {
    /// Blocks in the tree.
    pub size: u64,
    /// Root over them.
    pub root: Root,
    /// The block whose header commits to the tree, if there is one.
    pub block: Option<BlockSummary>,
    /// The text of the checkpoint, if there is one. Who signed it was not looked at.
    pub checkpoint: Option<Checkpoint>,
}

/// What a header shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockSummary {
    /// The block's height.
    pub height: Height,
    /// Its hash.
    pub hash: BlockHash,
    /// When it was made, as its maker says.
    pub timestamp_ms: TimestampMs,
    /// Hashes that finding it takes on average; 0 of the genesis block.
    pub work: Work,
}

/// What a receipt shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvenReceipt {
    /// Which chain it is.
    pub genesis: BlockHash,
    /// Who signed; zero where nobody did.
    pub key_id: KeyId,
    /// The transaction's number among all of its key, as who sealed it says.
    pub sequence: u64,
    /// The transaction's id; none where it was pruned.
    pub id: Option<TransactionId>,
    /// The block.
    pub block: BlockSummary,
    /// The place in the block.
    pub position: u32,
    /// What it ends in.
    pub anchor: ProvenAnchor,
}

/// What the proof of a block shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvenBlockProof {
    /// Which chain it is.
    pub genesis: BlockHash,
    /// The block.
    pub block: BlockSummary,
    /// What it ends in.
    pub anchor: ProvenAnchor,
}

/// What the history of a key shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvenKeyHistory {
    /// Which chain it is.
    pub genesis: BlockHash,
    /// Whose it is.
    pub key_id: KeyId,
    /// The key's transactions from `from` to `to`, by number: the first, and the one behind the last.
    pub sequences: std::ops::Range<u64>,
    /// Height of the last block that is shown.
    pub last: Option<Height>,
    /// How many of them were pruned, so that no signature could be checked.
    pub pruned: u64,
    /// Height up to which none is missing; none where nothing is shown that could prove it. A transaction above `to` proves
    /// it up to `to`, else the last one shown does up to the block below its own: another one may stand behind it there.
    pub complete_to: Option<Height>,
    /// What they end in.
    pub anchor: ProvenAnchor,
}

/// What a proof of consistency shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvenConsistency {
    /// Which chain it is.
    pub genesis: BlockHash,
    /// The earlier tree.
    pub from: ProvenAnchor,
    /// The later tree.
    pub to: ProvenAnchor,
    /// Whether the block whose header commits to the earlier tree is in the later one.
    pub has_block: bool,
}

impl Anchor {
    /// Checks that all it holds names one tree, of one chain.
    ///
    /// # Errors
    ///
    /// [`ReceiptError`].
    pub fn verify(&self, genesis: BlockHash) -> Result<ProvenAnchor, ReceiptError> {
        let block = self.header.as_ref().map(|header| self.check_header(header)).transpose()?;
        let checkpoint =
            self.checkpoint.as_ref().map(|note| self.check_checkpoint(note, genesis)).transpose()?;
        let root = match (&self.header, &checkpoint) {
            (None, None) => return Err(ReceiptError::NoAnchor),
            (Some(header), None) => header.history_root,
            (None, Some(checkpoint)) => checkpoint.root,
            (Some(header), Some(checkpoint)) if header.history_root == checkpoint.root => checkpoint.root,
            (Some(header), Some(checkpoint)) => {
                let (header, checkpoint) = (header.history_root, checkpoint.root);
                return Err(ReceiptError::AnchorsDiffer { header, checkpoint });
            }
        };
        let is_genesis = |block: &BlockSummary| block.height == 0 && block.hash == genesis;
        // The genesis block's own tree is empty; its hash alone says which chain it is.
        if !(self.size == 0 && self.genesis_path.is_empty() && block.as_ref().is_some_and(is_genesis)) {
            let leaf = merkle::leaf_hash(&genesis.0);
            proof::verify_inclusion(leaf, 0, self.size, &self.genesis_path, root)
                .map_err(|error| ReceiptError::Genesis { genesis, error })?;
        }
        Ok(ProvenAnchor { size: self.size, root, block, checkpoint })
    }

    fn check_header(&self, header: &Header) -> Result<BlockSummary, ReceiptError> {
        if u64::from(header.height) != self.size {
            return Err(ReceiptError::AnchorHeight { got: header.height, size: self.size });
        }
        summarize(header)
    }

    fn check_checkpoint(&self, note: &Note, genesis: BlockHash) -> Result<Checkpoint, ReceiptError> {
        let checkpoint = Checkpoint::of(note).map_err(ReceiptError::Checkpoint)?;
        checkpoint.check_origin(&origin_of(genesis))?;
        if checkpoint.size != self.size {
            return Err(ReceiptError::CheckpointSize { got: checkpoint.size, expected: self.size });
        }
        Ok(checkpoint)
    }
}

/// Checks a header's work, as far as it shows by itself.
fn summarize(header: &Header) -> Result<BlockSummary, ReceiptError> {
    let (height, hash) = (header.height, header.compute_hash());
    let timestamp_ms = header.timestamp_ms;
    if height == 0 {
        return Ok(BlockSummary { height, hash, timestamp_ms, work: Work::ZERO });
    }
    if Difficulty::from_bits(header.bits).is_none() {
        return Err(ReceiptError::BitsNotAllowed { height, bits: header.bits });
    }
    let target = Target::from_bits(header.bits).map_err(|error| ReceiptError::Bits { height, error })?;
    if !target.is_met_by(&hash) {
        return Err(ReceiptError::ProofOfWork { height, hash });
    }
    Ok(BlockSummary { height, hash, timestamp_ms, work: Work::of(&target) })
}

impl ProvenBlock {
    /// Proves some transactions of a block that is whole.
    pub fn of(block: &Block, positions: impl IntoIterator<Item = u32>, history_path: Option<Path>) -> Self {
        let leaves: Vec<_> = block.transactions.iter().map(Transaction::leaf_hash).collect();
        let entries = positions.into_iter().filter_map(|position| {
            let transaction = block.transactions.get(position as usize)?.clone();
            Some(Entry { position, path: merkle::compute_path(&leaves, position as usize), transaction })
        });
        let transactions = u32::try_from(leaves.len()).unwrap_or(u32::MAX);
        Self { header: block.header.clone(), transactions, entries: entries.collect(), history_path }
    }

    fn verify(
        &self,
        anchor: &ProvenAnchor,
        public_key: Option<&PublicKey>,
    ) -> Result<BlockSummary, ReceiptError> {
        let summary = summarize(&self.header)?;
        let height = summary.height;
        match &self.history_path {
            // A checkpoint vouches for the blocks below the header beside it, not for that header's own.
            None if anchor.checkpoint.is_none() && anchor.block.as_ref() == Some(&summary) => {}
            None => return Err(ReceiptError::NoPath { height }),
            Some(path) => {
                let leaf = merkle::leaf_hash(&summary.hash.0);
                proof::verify_inclusion(leaf, height.into(), anchor.size, path, anchor.root)
                    .map_err(|error| ReceiptError::History { height, error })?;
            }
        }
        for entry in &self.entries {
            let position = entry.position;
            let (index, size, root) =
                (position.into(), self.transactions.into(), self.header.transactions_root);
            proof::verify_inclusion(entry.transaction.leaf_hash(), index, size, &entry.path, root)
                .map_err(|error| ReceiptError::Inclusion { height, position, error })?;
            if let Content::Full(statement) = &entry.transaction.content {
                check_statement(statement, public_key, height, position)?;
            }
        }
        Ok(summary)
    }
}

/// Checks that no other key stands in the place of a transaction's own. It may be missing where nothing is left to verify.
fn check_public_key(expected: KeyId, public_key: Option<&PublicKey>) -> Result<(), ReceiptError> {
    match public_key {
        Some(key) if key.key_id() != expected => Err(ReceiptError::PublicKey { expected }),
        _ => Ok(()),
    }
}

fn check_statement(
    statement: &Statement,
    public_key: Option<&PublicKey>,
    height: Height,
    position: u32,
) -> Result<(), ReceiptError> {
    let of_statement = |error| ReceiptError::Statement { height, position, error };
    if statement.is_unsigned() {
        statement.check_size().map_err(of_statement)?;
        // The genesis transaction carries nothing in a signature's place.
        let size = statement.signature.len();
        let is_right = size == if height == 0 { 0 } else { UNSIGNED_SALT_SIZE };
        return if is_right { Ok(()) } else { Err(of_statement(StatementError::UnsignedSalt { size })) };
    }
    let missing = ReceiptError::PublicKey { expected: statement.key_id };
    let public_key = public_key.filter(|key| key.key_id() == statement.key_id).ok_or(missing)?;
    statement.check_key(public_key).map_err(of_statement)?;
    public_key
        .verify(statement.payload.as_bytes(), &statement.signature)
        .map_err(|error| of_statement(error.into()))
}

impl Receipt {
    /// Checks all that the receipt shows by itself. Whom its checkpoint is signed by is left to [`crate::policy::Policy`].
    ///
    /// # Errors
    ///
    /// [`ReceiptError`] names the first rule that it breaks.
    pub fn verify(&self) -> Result<ProvenReceipt, ReceiptError> {
        let [entry] = &self.block.entries[..] else {
            return Err(ReceiptError::Entries { got: self.block.entries.len() });
        };
        let transaction = &entry.transaction;
        let anchor = self.anchor.verify(self.genesis)?;
        let block = self.block.verify(&anchor, self.public_key.as_ref())?;
        check_public_key(transaction.key_id(), self.public_key.as_ref())?;
        Ok(ProvenReceipt {
            genesis: self.genesis,
            key_id: transaction.key_id(),
            sequence: transaction.sequence,
            id: transaction.statement().map(|statement| statement.id()),
            block,
            position: entry.position,
            anchor,
        })
    }
}

impl BlockProof {
    /// Checks all that the proof shows by itself.
    ///
    /// # Errors
    ///
    /// [`ReceiptError`] names the first rule that it breaks.
    pub fn verify(&self) -> Result<ProvenBlockProof, ReceiptError> {
        if !self.block.entries.is_empty() {
            return Err(ReceiptError::Entries { got: self.block.entries.len() });
        }
        let anchor = self.anchor.verify(self.genesis)?;
        let block = self.block.verify(&anchor, None)?;
        Ok(ProvenBlockProof { genesis: self.genesis, block, anchor })
    }
}

impl KeyHistory {
    /// Checks all that the history shows by itself: that the numbers of the key have no gap, and begin and end where none
    /// can be missing.
    ///
    /// # Errors
    ///
    /// [`ReceiptError`] names the first rule that it breaks.
    pub fn verify(&self) -> Result<ProvenKeyHistory, ReceiptError> {
        let (from, to) = (self.from, self.to);
        if from > to {
            return Err(ReceiptError::Range { from, to });
        }
        let anchor = self.anchor.verify(self.genesis)?;
        let mut seen: Option<(Height, u32, u64)> = None;
        let mut sequences: Option<std::ops::Range<u64>> = None;
        let (mut before, mut behind, mut pruned) = (0, 0, 0);
        for block in &self.blocks {
            let BlockSummary { height, .. } = block.verify(&anchor, self.public_key.as_ref())?;
            if seen.is_some_and(|(last, ..)| last >= height) || block.entries.is_empty() {
                return Err(ReceiptError::Order { height });
            }
            for Entry { position, transaction, .. } in &block.entries {
                let (position, got) = (*position, transaction.key_id());
                if got != self.key_id {
                    return Err(ReceiptError::OtherKey { height, position, got, expected: self.key_id });
                }
                let got = transaction.sequence;
                match seen {
                    None if got != 0 && height >= from => {
                        return Err(ReceiptError::NoneBefore { height, got, from });
                    }
                    Some((last_height, last, _)) if last_height == height && last >= position => {
                        return Err(ReceiptError::Order { height });
                    }
                    Some((_, _, last)) if last.checked_add(1) != Some(got) => {
                        let expected = last.saturating_add(1);
                        return Err(ReceiptError::Gap { height, got, expected });
                    }
                    _ => {}
                }
                seen = Some((height, position, got));
                let outside = if height < from { &mut before } else { &mut behind };
                if height < from || height > to {
                    *outside += 1;
                    if *outside > 1 {
                        return Err(ReceiptError::Outside { height });
                    }
                    continue;
                }
                pruned += u64::from(transaction.statement().is_none());
                let end = got.saturating_add(1);
                sequences = Some(sequences.map_or(got, |it| it.start)..end);
            }
        }
        check_public_key(self.key_id, self.public_key.as_ref())?;
        // What stands behind `to` is behind all that was asked for; else nothing is known from the last that is shown on.
        let complete_to = match (behind, seen) {
            (1, _) => Some(to),
            // Another one may stand behind it in the same block.
            (_, Some((last, ..))) if last > from => Some(last - 1),
            _ => None,
        };
        let sequences = sequences.unwrap_or_else(|| {
            let next = seen.map_or(0, |(.., last)| if behind == 1 { last } else { last.saturating_add(1) });
            next..next
        });
        Ok(ProvenKeyHistory {
            genesis: self.genesis,
            key_id: self.key_id,
            sequences,
            last: seen.map(|(last, ..)| last),
            pruned,
            complete_to,
            anchor,
        })
    }
}

impl Consistency {
    /// Checks that the later history begins with the earlier one.
    ///
    /// # Errors
    ///
    /// [`ReceiptError`] names the first rule that it breaks.
    pub fn verify(&self) -> Result<ProvenConsistency, ReceiptError> {
        let (from, to) = (self.from.verify(self.genesis)?, self.to.verify(self.genesis)?);
        let inconsistent = |error| ReceiptError::Consistency { from: from.size, to: to.size, error };
        if from.size == 0 && self.path.is_empty() {
            // Every tree begins with the empty one; both anchors have proven the genesis block.
        } else {
            proof::verify_consistency(from.size, from.root, to.size, to.root, &self.path)
                .map_err(inconsistent)?;
        }
        if let Some(path) = &self.header_path {
            let block = from.block.as_ref().ok_or(ReceiptError::NoAnchor)?;
            let leaf = merkle::leaf_hash(&block.hash.0);
            proof::verify_inclusion(leaf, from.size, to.size, path, to.root)
                .map_err(|error| ReceiptError::History { height: block.height, error })?;
        }
        let has_block = self.header_path.is_some();
        Ok(ProvenConsistency { genesis: self.genesis, from, to, has_block })
    }
}

#[cfg(test)]
mod tests;
