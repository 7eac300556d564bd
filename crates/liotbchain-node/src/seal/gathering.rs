//! Drafts and mines blocks that one commit will store.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use liotbchain_core::{
    Ancestry, Branch, CheckedBlock, Difficulty, KeyId, PublicKey, Target, TimestampMs, TransactionId,
    VerifiedStatement, check,
    mine::{self, Draft, Mined},
};

use crate::{
    ledger::{LedgerConfig, Shared},
    now_ms,
};

/// Blocks are gathered for one commit until so much time was spent on mining them.
const GATHER: Duration = Duration::from_millis(20);

/// Returns how many blocks so many attempts mine on average.
pub(super) fn blocks_within(attempts: f64, config: &LedgerConfig) -> usize {
    let target =
        Target::from_bits(config.difficulty.bits()).expect("the bits of a difficulty encode a target");
    (attempts / target.expected_attempts()) as usize
}

pub(super) struct MinedBlock {
    pub(super) block: CheckedBlock,
    pub(super) attempts: u64,
}

/// How the mining of a few blocks ended.
pub(super) enum MiningEnd {
    /// All is mined, or enough for one commit.
    Gathered,
    /// One block was given up.
    LimitReached { attempts: u64 },
    /// The ledger shuts down.
    Cancelled,
}

/// Blocks on their way into one commit.
pub(super) struct Gathering {
    /// The branch, with the blocks on it.
    pub(super) branch: Branch,
    /// The blocks, the lowest first.
    pub(super) blocks: Vec<MinedBlock>,
    /// Timestamp of the attempt that failed: the next one must have another, or it would search the same hashes.
    pub(super) failed_timestamp_ms: Option<TimestampMs>,
    statements: Vec<VerifiedStatement>,
    ancestry: Drafted,
}

/// What the rules ask of a branch whose last blocks are not stored yet. Pending transactions are on no branch.
struct Drafted {
    sequences: HashMap<KeyId, u64>,
    ids: HashSet<TransactionId>,
}

impl Ancestry for Drafted {
    fn public_key(&self, _: &KeyId) -> Option<PublicKey> {
        None
    }

    fn next_sequence(&self, key_id: &KeyId) -> u64 {
        self.sequences.get(key_id).copied().unwrap_or(0)
    }

    fn contains(&self, id: &TransactionId) -> bool {
        self.ids.contains(id)
    }
}

impl Gathering {
    /// Starts on a branch whose keys have these sequences.
    pub(super) fn new(
        branch: Branch,
        sequences: HashMap<KeyId, u64>,
        statements: Vec<VerifiedStatement>,
        failed_timestamp_ms: Option<TimestampMs>,
    ) -> Self {
        let ancestry = Drafted { sequences, ids: HashSet::new() };
        Self { branch, blocks: Vec::new(), failed_timestamp_ms, statements, ancestry }
    }

    /// Returns the branch, how many transactions of each key it holds, and its new blocks.
    pub(super) fn into_parts(self) -> (Branch, HashMap<KeyId, u64>, Vec<MinedBlock>) {
        (self.branch, self.ancestry.sequences, self.blocks)
    }

    /// Returns how many transactions of a key the branch holds, its new blocks with it.
    pub(super) fn next_sequence(&self, key_id: &KeyId) -> u64 {
        self.ancestry.next_sequence(key_id)
    }

    /// Mines the statements into blocks, as many as there is time for.
    pub(super) fn mine(&mut self, shared: &Shared) -> MiningEnd {
        self.mine_within(shared, GATHER)
    }

    /// Mines all statements into blocks.
    pub(super) fn mine_all(&mut self, shared: &Shared) -> MiningEnd {
        self.mine_within(shared, Duration::MAX)
    }

    fn mine_within(&mut self, shared: &Shared, time: Duration) -> MiningEnd {
        let config = &shared.config;
        let started = Instant::now();
        let statements = std::mem::take(&mut self.statements);
        for statements in statements.chunks(config.transactions_per_block as usize) {
            if !self.blocks.is_empty() && started.elapsed() > time {
                return MiningEnd::Gathered;
            }
            let draft = self.draft(statements, config.difficulty);
            let mined = mine::mine_with(
                config.mining_kernel,
                draft.header(),
                config.nonce_limit,
                config.mining_threads,
                &shared.cancel_mining,
            );
            let mined = mined.expect("the bits of a difficulty encode a target");
            let nonce = match mined {
                Mined::Found { nonce } => nonce,
                Mined::Cancelled => return MiningEnd::Cancelled,
                Mined::LimitReached { attempts } => {
                    self.failed_timestamp_ms = Some(draft.header().timestamp_ms);
                    return MiningEnd::LimitReached { attempts };
                }
            };
            self.failed_timestamp_ms = None;
            let block = check::check_draft(&draft, nonce, &self.branch, &self.ancestry).expect(
                "a block drafted on this branch of transactions that are on no branch keeps its rules",
            );
            self.append(block, u64::from(nonce) + 1);
        }
        MiningEnd::Gathered
    }

    fn draft(&self, statements: &[VerifiedStatement], difficulty: Difficulty) -> Draft {
        let earliest_ms = self.failed_timestamp_ms.map_or(0, |failed| failed + 1);
        let next_sequence = |key_id: &KeyId| self.ancestry.next_sequence(key_id);
        Draft::new(&self.branch, statements.to_vec(), next_sequence, difficulty, now_ms().max(earliest_ms))
    }

    fn append(&mut self, block: CheckedBlock, attempts: u64) {
        for transaction in block.transactions() {
            *self.ancestry.sequences.entry(transaction.key_id()).or_default() += 1;
        }
        self.ancestry.ids.extend(block.ids().iter().flatten());
        self.branch.extend(&block);
        self.blocks.push(MinedBlock { block, attempts });
    }
}
