//! A branch as its tip knows it, and the validation of a chain from its first block on.

mod census;

use std::collections::{HashMap, HashSet, VecDeque};

use crate::{
    Height, TimestampMs,
    block::{Block, CheckedBlock, Header},
    check::{self, Ancestry, BlockError, Examined},
    hash::{BlockHash, KeyId, Root, TransactionId},
    key::PublicKey,
    merkle::{self, Frontier, Node},
    pow::Work,
    rules::{self, GenesisError, Rules},
};

pub use census::{Census, CensusBudget, Counted, Fingerprint};

/// How many blocks the median of timestamps looks back.
pub const MEDIAN_BLOCKS: usize = 11;

/// What the next block on a branch depends on: little, however long the branch is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Branch {
    rules: Rules,
    genesis: BlockHash,
    tip: BlockHash,
    height: Height,
    history: Frontier,
    timestamps_ms: VecDeque<TimestampMs>,
    work: Work,
}

impl Branch {
    /// Returns the branch that holds a genesis block alone.
    pub fn new(genesis: &CheckedBlock, rules: Rules) -> Self {
        let mut branch = Self {
            rules,
            genesis: genesis.hash(),
            tip: genesis.hash(),
            height: 0,
            history: Frontier::default(),
            timestamps_ms: VecDeque::with_capacity(MEDIAN_BLOCKS),
            work: Work::ZERO,
        };
        branch.push(genesis.header().timestamp_ms, genesis.hash());
        branch
    }

    /// Returns the branch that a store kept: its tip, the history over all blocks up to and with the tip, the work of
    /// them all, and the timestamps of the last [`MEDIAN_BLOCKS`], the oldest first.
    pub fn load(
        rules: Rules,
        genesis: BlockHash,
        tip: BlockHash,
        height: Height,
        history: Frontier,
        timestamps_ms: impl IntoIterator<Item = TimestampMs>,
        work: Work,
    ) -> Self {
        Self {
            rules,
            genesis,
            tip,
            height,
            history,
            timestamps_ms: timestamps_ms.into_iter().collect(),
            work,
        }
    }

    /// Appends a block that was checked against this branch, and returns the nodes of the history tree it completed.
    pub fn extend(&mut self, block: &CheckedBlock) -> Vec<Node> {
        debug_assert_eq!(
            block.header().prev_block_hash,
            self.tip,
            "a block is checked against the branch it extends"
        );
        self.append(block.header(), block.hash(), block.work())
    }

    /// Checks the link of a block that was examined, appends it, and returns the nodes of the history tree it completed.
    ///
    /// # Errors
    ///
    /// [`BlockError`] names the first rule that the block breaks; the branch is then as it was.
    pub fn link(&mut self, block: &Examined) -> Result<Vec<Node>, BlockError> {
        let work = block.check_link(self)?;
        Ok(self.append(&block.header, block.hash, work))
    }

    fn append(&mut self, header: &Header, hash: BlockHash, work: Work) -> Vec<Node> {
        self.tip = hash;
        self.height = header.height;
        self.work = self.work.saturating_add(work);
        self.push(header.timestamp_ms, hash)
    }

    fn push(&mut self, timestamp_ms: TimestampMs, hash: BlockHash) -> Vec<Node> {
        if self.timestamps_ms.len() == MEDIAN_BLOCKS {
            self.timestamps_ms.pop_front();
        }
        self.timestamps_ms.push_back(timestamp_ms);
        self.history.append(merkle::leaf_hash(&hash.0))
    }

    /// Returns the network's rules.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Returns the hash of the genesis block: the network's identity.
    pub fn genesis(&self) -> BlockHash {
        self.genesis
    }

    /// Returns the hash of the last block.
    pub fn tip(&self) -> BlockHash {
        self.tip
    }

    /// Returns the height of the last block.
    pub fn height(&self) -> Height {
        self.height
    }

    /// Returns the height of the block to come.
    pub fn next_height(&self) -> Height {
        self.height.saturating_add(1)
    }

    /// Returns the work of all blocks.
    pub fn work(&self) -> Work {
        self.work
    }

    /// Returns the root over all blocks: what the next header states.
    pub fn history_root(&self) -> Root {
        self.history.root()
    }

    /// Returns the history tree's frontier over all blocks.
    pub fn history(&self) -> &Frontier {
        &self.history
    }

    /// Returns the median that the next block's timestamp may not lie before: `sorted[k / 2]` of the last k ≤ 11.
    pub fn median_timestamp_ms(&self) -> TimestampMs {
        let mut sorted: Vec<_> = self.timestamps_ms.iter().copied().collect();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied().unwrap_or(0)
    }
}

/// The first fault of a chain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("block {height}: {error}")]
pub struct ChainFault {
    /// Height of the first bad block.
    pub height: Height,
    /// The rule that it breaks.
    pub error: ChainError,
}

/// Why a block ends the valid part of a chain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// The first block is no genesis block.
    #[error(transparent)]
    Genesis(#[from] GenesisError),
    /// A later block breaks a rule.
    #[error(transparent)]
    Block(#[from] BlockError),
}

impl ChainError {
    /// Returns the place of the faulty transaction, where the fault is one transaction's.
    pub fn position(&self) -> Option<usize> {
        match self {
            Self::Block(error) => error.position(),
            Self::Genesis(_) => None,
        }
    }

    /// Returns the name of the faulty field.
    pub fn field(&self) -> &'static str {
        match self {
            Self::Block(error) => error.field(),
            Self::Genesis(GenesisError::Header { field }) => field,
            Self::Genesis(_) => "transactions",
        }
    }
}

/// Validates a chain that comes block by block, such as an export, from the genesis block on: every rule at once.
///
/// Keeps 32 bytes for each transaction, to find a repeated id, and every key. A chain that can be read more than once is
/// validated in bounded memory, with [`Branch::link`] and a [`Census`].
#[derive(Debug, Default)]
pub struct Validator {
    branch: Option<Branch>,
    ancestry: KnownAncestry,
    transactions: u64,
    pruned: u64,
}

#[derive(Debug, Default)]
struct KnownAncestry {
    keys: HashMap<KeyId, PublicKey>,
    sequences: HashMap<KeyId, u64>,
    ids: HashSet<TransactionId>,
}

impl Ancestry for KnownAncestry {
    fn public_key(&self, key_id: &KeyId) -> Option<PublicKey> {
        self.keys.get(key_id).cloned()
    }

    fn next_sequence(&self, key_id: &KeyId) -> u64 {
        self.sequences.get(key_id).copied().unwrap_or(0)
    }

    fn contains(&self, id: &TransactionId) -> bool {
        self.ids.contains(id)
    }
}

impl Validator {
    /// Begins with nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a public key known, before the first block that needs it.
    pub fn add_key(&mut self, public_key: PublicKey) {
        self.ancestry.keys.insert(public_key.key_id(), public_key);
    }

    /// Checks the next block.
    ///
    /// # Errors
    ///
    /// [`ChainFault`] names the block and the rule; the validator is then of no more use.
    pub fn push(&mut self, block: Block) -> Result<CheckedBlock, ChainFault> {
        let height = self.branch.as_ref().map_or(0, Branch::next_height);
        self.check(block).map_err(|error| ChainFault { height, error })
    }

    fn check(&mut self, block: Block) -> Result<CheckedBlock, ChainError> {
        let checked = match &mut self.branch {
            None => {
                let (genesis, rules) = rules::check_genesis(block)?;
                self.branch = Some(Branch::new(&genesis, rules));
                genesis
            }
            Some(branch) => {
                let checked = check::check_block(block, branch, &self.ancestry, None)?;
                branch.extend(&checked);
                checked
            }
        };
        for transaction in checked.transactions() {
            *self.ancestry.sequences.entry(transaction.key_id()).or_default() += 1;
            self.transactions += 1;
            self.pruned += u64::from(transaction.statement().is_none());
        }
        self.ancestry.ids.extend(checked.ids().iter().flatten());
        Ok(checked)
    }

    /// Returns the branch validated so far, none before the genesis block.
    pub fn branch(&self) -> Option<&Branch> {
        self.branch.as_ref()
    }

    /// Returns how many transactions were seen, that of the genesis block with them.
    pub fn transactions(&self) -> u64 {
        self.transactions
    }

    /// Returns how many of them were pruned, and so could not be checked.
    pub fn pruned(&self) -> u64 {
        self.pruned
    }
}

#[cfg(test)]
mod tests;
