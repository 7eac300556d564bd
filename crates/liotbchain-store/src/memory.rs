//! The store in memory, for tests and simulations: it does what the others do, and keeps nothing.
//!
//! **Nothing is durable.** When the process ends, the chain and all that was acknowledged is gone.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    ops::{Bound, Range},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use liotbchain_core::{
    BlockHash, Branch, CheckedBlock, Content, Header, Height, KeyId, PublicKey, Rules, Statement,
    TimestampMs, TransactionId, Work,
    chain::MEDIAN_BLOCKS,
    codec,
    merkle::{self, Frontier, Node},
    rules,
};

use crate::{
    Admitted, KnownKey, NewTransaction, Pending, Place, PruneStep, Right, Status, Store, StoreError,
    StoredBlock, StoredTransaction, columns, id_in_row, prune_block, size_in_memory,
};

/// Keeps a chain in memory.
#[derive(Default)]
pub struct MemoryStore(Mutex<State>);

#[derive(Default)]
struct State {
    keys: BTreeMap<KeyId, Key>,
    transactions: HashMap<TransactionId, Row>,
    /// How many transactions have come.
    arrivals: u64,
    /// By arrival.
    pending: BTreeMap<u64, TransactionId>,
    /// By height.
    blocks: Vec<StoredBlock>,
    side_blocks: HashMap<BlockHash, Vec<u8>>,
    history_nodes: HashMap<(u8, u64), [u8; 32]>,
    branch: Option<Branch>,
    right: SealRight,
}

#[derive(Default)]
struct Key {
    /// None for unsigned transactions.
    public_key: Option<PublicKey>,
    /// How many transactions the best chain holds.
    transactions: u64,
    /// The blocks that hold them.
    heights: BTreeSet<Height>,
}

struct Row {
    arrival: u64,
    received_ms: TimestampMs,
    content: Content,
    /// Height and position, none while it waits.
    place: Option<(Height, u32)>,
}

#[derive(Default)]
struct SealRight {
    holder: Option<String>,
    epoch: u64,
    expires: Option<Instant>,
}

impl SealRight {
    fn is_expired(&self) -> bool {
        self.expires.is_none_or(|expires| expires <= Instant::now())
    }

    fn is_of(&self, right: &Right) -> bool {
        self.holder.as_deref() == Some(&right.holder) && self.epoch == right.epoch
    }

    /// Sets the end. One too far away for the clock is none that anybody lives to see: a century.
    fn expire_in(&mut self, ttl: Duration) {
        self.expires = Instant::now().checked_add(ttl.min(Duration::from_secs(100 * 365 * 86_400)));
    }
}

impl MemoryStore {
    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is made of steps that cannot panic half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn add_key(&mut self, public_key: &PublicKey) {
        let key = self.keys.entry(public_key.key_id()).or_default();
        key.public_key.get_or_insert_with(|| public_key.clone());
    }

    fn check_key(&self, key_id: &KeyId) -> Result<(), StoreError> {
        if *key_id == KeyId::ZERO || self.keys.contains_key(key_id) {
            return Ok(());
        }
        Err(StoreError::Config {
            problem: format!("the public key {key_id} is not known to the store"),
            cure: "make it known before a transaction that it signed".to_owned(),
        })
    }

    fn status(&self, id: &TransactionId) -> Option<Status> {
        let row = self.transactions.get(id)?;
        let Some((height, position)) = row.place else { return Some(Status::Pending) };
        let block_hash = self.blocks.get(height as usize)?.hash;
        Some(Status::Sealed(Place { height, position, block_hash }))
    }

    fn insert(
        &mut self,
        id: TransactionId,
        content: Content,
        received_ms: TimestampMs,
        place: Option<(Height, u32)>,
    ) {
        let arrival = self.arrivals;
        self.arrivals += 1;
        if place.is_none() {
            self.pending.insert(arrival, id);
        }
        self.transactions.insert(id, Row { arrival, received_ms, content, place });
    }

    /// Moves the best chain.
    fn commit(
        &mut self,
        right: &Right,
        expected_tip: BlockHash,
        disconnect: u32,
        connect: &[CheckedBlock],
    ) -> Result<(), StoreError> {
        if !self.right.is_of(right) || self.right.is_expired() {
            return Err(StoreError::RightLost);
        }
        let Some(branch) = self.branch.as_ref().filter(|branch| branch.tip() == expected_tip) else {
            let got = self.branch.as_ref().map_or(BlockHash::ZERO, Branch::tip);
            return Err(StoreError::TipMoved { expected: expected_tip, got });
        };
        let (height, rules) = (branch.height(), branch.rules().clone());
        if disconnect > height {
            return Err(StoreError::Config {
                problem: format!("{disconnect} blocks cannot be taken off a chain of height {height}"),
                cure: "the genesis block stays: a chain from another one belongs in a store of its own"
                    .to_owned(),
            });
        }
        self.check_connect(self.blocks.len() - disconnect as usize, connect)?;
        (0..disconnect).for_each(|_| self.disconnect());
        if disconnect > 0 {
            self.reload_branch()?;
        }
        connect.iter().for_each(|block| self.connect(block, &rules));
        Ok(())
    }

    /// Checks all that could fail, so that what follows changes everything or nothing.
    fn check_connect(&self, keep: usize, connect: &[CheckedBlock]) -> Result<(), StoreError> {
        let mut tip = keep.checked_sub(1).map_or(BlockHash::ZERO, |height| self.blocks[height].hash);
        let mut ids = HashSet::new();
        for (height, block) in (keep..).zip(connect) {
            if block.height() as usize != height || block.header().prev_block_hash != tip {
                return Err(StoreError::Config {
                    problem: format!("block {} does not follow on block {tip}", block.hash()),
                    cure: "give the blocks in chain order, from the block above the one that stays"
                        .to_owned(),
                });
            }
            tip = block.hash();
            for (transaction, id) in block.transactions().iter().zip(block.ids()) {
                let id = id_in_row(transaction, *id);
                self.check_key(&transaction.key_id())?;
                let stays = |row: &Row| row.place.is_some_and(|(height, _)| (height as usize) < keep);
                if !ids.insert(id) || self.transactions.get(&id).is_some_and(stays) {
                    return Err(StoreError::AlreadySealed);
                }
            }
        }
        Ok(())
    }

    fn disconnect(&mut self) {
        let Some(StoredBlock { hash, block, ids, .. }) = self.blocks.pop() else { return };
        self.side_blocks.insert(hash, codec::encode_kept_block(&block));
        for transaction in &block.transactions {
            let key = self.keys.entry(transaction.key_id()).or_default();
            key.transactions -= 1;
            key.heights.remove(&block.header.height);
        }
        if ids.contains(&None) {
            let is_of = |row: &Row| row.place.is_some_and(|(height, _)| height == block.header.height);
            self.transactions.retain(|_, row| matches!(row.content, Content::Full(_)) || !is_of(row));
        }
        for id in ids.into_iter().flatten() {
            if let Some(row) = self.transactions.get_mut(&id) {
                row.place = None;
                self.pending.insert(row.arrival, id);
            }
        }
    }

    fn connect(&mut self, block: &CheckedBlock, rules: &Rules) {
        let nodes = match &mut self.branch {
            Some(branch) => branch.extend(block),
            None => {
                self.branch = Some(Branch::new(block, rules.clone()));
                vec![Node { level: 0, index: 0, hash: merkle::leaf_hash(&block.hash().0) }]
            }
        };
        // A node of a branch that was left is written over before it is asked for.
        self.history_nodes.extend(nodes.into_iter().map(|node| ((node.level, node.index), node.hash)));
        self.side_blocks.remove(&block.hash());
        for (position, (transaction, id)) in (0u32..).zip(block.transactions().iter().zip(block.ids())) {
            let id = id_in_row(transaction, *id);
            let key = self.keys.entry(transaction.key_id()).or_default();
            key.transactions += 1;
            key.heights.insert(block.height());
            let place = Some((block.height(), position));
            if let Some(row) = self.transactions.get_mut(&id) {
                row.place = place;
                // It may have been signed twice: what the block holds is what its root commits to.
                row.content = transaction.content.clone();
                self.pending.remove(&row.arrival);
            } else {
                self.insert(id, transaction.content.clone(), block.header().timestamp_ms, place);
            }
        }
        self.blocks.push(StoredBlock {
            hash: block.hash(),
            total_work: self.branch.as_ref().map_or(Work::ZERO, Branch::work),
            block: block.as_block().clone(),
            ids: block.ids().to_vec(),
        });
    }

    /// Returns the heights of a step of a pruning, and what it drops.
    fn prunable(&self, key_id: &KeyId, heights: Range<Height>, limit: u32) -> (Range<Height>, PruneStep) {
        let Range { start, end } = heights;
        let (from, end) = (start.max(1), end.min(Height::try_from(self.blocks.len()).unwrap_or(Height::MAX)));
        let (mut step, mut looked_at, mut next) = (PruneStep::default(), 0, from);
        while next < end && looked_at < limit as usize {
            let transactions = &self.blocks[next as usize].block.transactions;
            looked_at += transactions.len();
            for transaction in transactions.iter().filter(|it| it.key_id() == *key_id) {
                if transaction.statement().is_some() {
                    let (payload, signature) = columns(&transaction.content);
                    step.add(transaction.sequence, (payload.len() + signature.len()) as u64);
                }
            }
            next += 1;
        }
        step.next = (next < end).then_some(next);
        (from..next, step)
    }

    /// Makes the branch that of the blocks that are left.
    fn reload_branch(&mut self) -> Result<(), StoreError> {
        let (Some(branch), Some(tip)) = (&self.branch, self.blocks.last()) else { return Ok(()) };
        let missing = |level, index| StoreError::Corrupt(format!("node {index} of level {level} is missing"));
        let history = Frontier::load(self.blocks.len() as u64, |level, index| {
            self.history_nodes.get(&(level, index)).copied().ok_or_else(|| missing(level, index))
        })?;
        let last = self.blocks.len().saturating_sub(MEDIAN_BLOCKS);
        let timestamps_ms = self.blocks[last..].iter().map(|block| block.block.header.timestamp_ms);
        let height = tip.block.header.height;
        let (rules, genesis) = (branch.rules().clone(), branch.genesis());
        self.branch =
            Some(Branch::load(rules, genesis, tip.hash, height, history, timestamps_ms, tip.total_work));
        Ok(())
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn location(&self) -> String {
        "memory:".to_owned()
    }

    fn notice(&self) -> Option<String> {
        None
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn create(&self, genesis: &CheckedBlock) -> Result<(), StoreError> {
        let (_, rules) = rules::check_genesis(genesis.as_block().clone())
            .map_err(|error| StoreError::Corrupt(format!("block 0: {error}")))?;
        let mut state = self.state();
        if !state.blocks.is_empty() {
            return Err(StoreError::AlreadyCreated);
        }
        state.connect(genesis, &rules);
        Ok(())
    }

    async fn branch(&self) -> Result<Option<Branch>, StoreError> {
        Ok(self.state().branch.clone())
    }

    async fn admit(
        &self,
        transactions: &[NewTransaction],
        now_ms: TimestampMs,
    ) -> Result<Admitted, StoreError> {
        let mut state = self.state();
        for transaction in transactions {
            let key_id = transaction.statement.statement().key_id;
            if transaction.public_key.as_ref().is_none_or(|key| key.key_id() != key_id) {
                state.check_key(&key_id)?;
            }
        }
        transactions
            .iter()
            .filter_map(|transaction| transaction.public_key.as_ref())
            .for_each(|key| state.add_key(key));
        let mut admitted = Admitted { statuses: Vec::with_capacity(transactions.len()), new: 0 };
        for transaction in transactions {
            let id = transaction.statement.id();
            admitted.statuses.push(match state.status(&id) {
                Some(status) => status,
                None => {
                    let content = Content::Full(Arc::clone(transaction.statement.statement()));
                    state.insert(id, content, now_ms, None);
                    admitted.new += 1;
                    Status::Pending
                }
            });
        }
        Ok(admitted)
    }

    async fn look_up(&self, ids: &[TransactionId]) -> Result<Vec<Option<Status>>, StoreError> {
        let state = self.state();
        Ok(ids.iter().map(|id| state.status(id)).collect())
    }

    async fn ids(&self, from: TransactionId, limit: u32) -> Result<Vec<TransactionId>, StoreError> {
        let mut ids: Vec<_> = self.state().transactions.keys().filter(|id| **id >= from).copied().collect();
        ids.sort_unstable();
        ids.truncate(limit as usize);
        Ok(ids)
    }

    async fn pending(&self, limit: u32) -> Result<Vec<Pending>, StoreError> {
        let state = self.state();
        let pending = state.pending.values().take(limit as usize);
        Ok(pending.map(|id| Pending { id: *id, received_ms: state.transactions[id].received_ms }).collect())
    }

    async fn pending_count(&self, limit: u64) -> Result<u64, StoreError> {
        Ok((self.state().pending.len() as u64).min(limit))
    }

    async fn statements(
        &self,
        ids: &[TransactionId],
    ) -> Result<HashMap<TransactionId, Statement>, StoreError> {
        let state = self.state();
        let statement = |id| match &state.transactions.get(id)?.content {
            Content::Full(statement) => Some((*id, statement.as_ref().clone())),
            Content::Pruned { .. } => None,
        };
        Ok(ids.iter().filter_map(statement).collect())
    }

    async fn transaction(&self, id: TransactionId) -> Result<Option<StoredTransaction>, StoreError> {
        let state = self.state();
        let (Some(row), Some(status)) = (state.transactions.get(&id), state.status(&id)) else {
            return Ok(None);
        };
        let place = match status {
            Status::Pending => None,
            Status::Sealed(place) => Some(place),
        };
        let sequence = place.and_then(|place| {
            let block = state.blocks.get(place.height as usize)?;
            Some(block.block.transactions.get(place.position as usize)?.sequence)
        });
        let (content, received_ms) = (row.content.clone(), row.received_ms);
        Ok(Some(StoredTransaction { content, received_ms, place, sequence }))
    }

    async fn next_sequences(&self, key_ids: &[KeyId]) -> Result<HashMap<KeyId, u64>, StoreError> {
        let state = self.state();
        Ok(key_ids.iter().map(|id| (*id, state.keys.get(id).map_or(0, |key| key.transactions))).collect())
    }

    async fn public_keys(&self, key_ids: &[KeyId]) -> Result<HashMap<KeyId, PublicKey>, StoreError> {
        let state = self.state();
        Ok(key_ids.iter().filter_map(|id| Some((*id, state.keys.get(id)?.public_key.clone()?))).collect())
    }

    async fn keys(&self, after: Option<KeyId>, limit: u32) -> Result<Vec<KnownKey>, StoreError> {
        let state = self.state();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let known = state.keys.range((from, Bound::Unbounded)).filter_map(|(_, key)| {
            Some(KnownKey { public_key: key.public_key.clone()?, transactions: key.transactions })
        });
        Ok(known.take(limit as usize).collect())
    }

    async fn add_keys(&self, keys: &[PublicKey]) -> Result<(), StoreError> {
        let mut state = self.state();
        keys.iter().for_each(|key| state.add_key(key));
        Ok(())
    }

    async fn acquire_right(&self, holder: &str, ttl: Duration) -> Result<Option<Right>, StoreError> {
        let right = &mut self.state().right;
        if right.holder.as_deref().is_some_and(|other| other != holder) && !right.is_expired() {
            return Ok(None);
        }
        right.holder = Some(holder.to_owned());
        right.epoch += 1;
        right.expire_in(ttl);
        Ok(Some(Right { holder: holder.to_owned(), epoch: right.epoch }))
    }

    async fn renew_right(&self, right: &Right, ttl: Duration) -> Result<(), StoreError> {
        let held = &mut self.state().right;
        if !held.is_of(right) {
            return Err(StoreError::RightLost);
        }
        held.expire_in(ttl);
        Ok(())
    }

    async fn release_right(&self, right: &Right) -> Result<(), StoreError> {
        let held = &mut self.state().right;
        if held.is_of(right) {
            held.holder = None;
            held.expires = None;
        }
        Ok(())
    }

    async fn commit(
        &self,
        right: &Right,
        expected_tip: BlockHash,
        disconnect: u32,
        connect: &[CheckedBlock],
    ) -> Result<(), StoreError> {
        self.state().commit(right, expected_tip, disconnect, connect)
    }

    async fn commit_all(
        &self,
        right: &Right,
        expected_tip: BlockHash,
        pending: u32,
        connect: &[CheckedBlock],
    ) -> Result<(), StoreError> {
        let mut state = self.state();
        if state.pending.len() > pending as usize {
            return Err(StoreError::MorePending { expected: pending });
        }
        state.commit(right, expected_tip, 0, connect)
    }

    async fn blocks(&self, from: Height, limit: u32, bytes: usize) -> Result<Vec<StoredBlock>, StoreError> {
        let state = self.state();
        let mut blocks = Vec::new();
        let mut read = 0;
        for block in state.blocks.iter().skip(from as usize).take(limit as usize) {
            read += block.block.transactions.iter().map(|it| size_in_memory(&it.content)).sum::<usize>();
            blocks.push(block.clone());
            if read >= bytes {
                break;
            }
        }
        Ok(blocks)
    }

    async fn headers(&self, from: Height, limit: u32) -> Result<Vec<Header>, StoreError> {
        let state = self.state();
        let blocks = state.blocks.iter().skip(from as usize).take(limit as usize);
        Ok(blocks.map(|block| block.block.header.clone()).collect())
    }

    async fn height_of(&self, hash: BlockHash) -> Result<Option<Height>, StoreError> {
        let state = self.state();
        Ok(state.blocks.iter().rev().find(|block| block.hash == hash).map(|block| block.block.header.height))
    }

    async fn history_nodes(&self, places: &[(u8, u64)]) -> Result<Vec<Option<[u8; 32]>>, StoreError> {
        let state = self.state();
        let size = state.blocks.len() as u64;
        // Nodes of a branch that was left may lie behind the end.
        let is_complete = |level: u8, index: u64| index < size.checked_shr(level.into()).unwrap_or(0);
        let node = |(level, index): &(u8, u64)| {
            state.history_nodes.get(&(*level, *index)).copied().filter(|_| is_complete(*level, *index))
        };
        Ok(places.iter().map(node).collect())
    }

    async fn key_heights(&self, key_id: KeyId, from: Height, limit: u32) -> Result<Vec<Height>, StoreError> {
        let state = self.state();
        let heights = state.keys.get(&key_id).into_iter().flat_map(|key| key.heights.range(from..));
        Ok(heights.take(limit as usize).copied().collect())
    }

    async fn key_height_below(&self, key_id: KeyId, height: Height) -> Result<Option<Height>, StoreError> {
        let state = self.state();
        Ok(state.keys.get(&key_id).and_then(|key| key.heights.range(..height).next_back().copied()))
    }

    async fn side_block(&self, hash: BlockHash) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.state().side_blocks.get(&hash).cloned())
    }

    async fn prunable(
        &self,
        key_id: KeyId,
        heights: Range<Height>,
        limit: u32,
    ) -> Result<PruneStep, StoreError> {
        let (_, step) = self.state().prunable(&key_id, heights, limit);
        Ok(step)
    }

    async fn prune(
        &self,
        key_id: KeyId,
        heights: Range<Height>,
        limit: u32,
    ) -> Result<PruneStep, StoreError> {
        let mut guard = self.state();
        let state = &mut *guard;
        let (heights, step) = state.prunable(&key_id, heights, limit);
        for height in heights {
            let Some(stored) = state.blocks.get_mut(height as usize) else { break };
            prune_block(&mut stored.block, &key_id);
            for (transaction, id) in stored.block.transactions.iter().zip(&mut stored.ids) {
                if transaction.statement().is_none()
                    && let Some(row) = id.take().and_then(|id| state.transactions.get_mut(&id))
                {
                    row.content = transaction.content.clone();
                }
            }
        }
        Ok(step)
    }

    async fn prune_side_blocks(&self, key_id: KeyId, below: Height) -> Result<u64, StoreError> {
        let mut pruned = 0;
        for (hash, bytes) in &mut self.state().side_blocks {
            let mut block = codec::decode_kept_block(bytes)
                .map_err(|error| StoreError::Corrupt(format!("side block {hash}: {error}")))?;
            if block.header.height < below {
                pruned += prune_block(&mut block, &key_id);
                *bytes = codec::encode_kept_block(&block);
            }
        }
        Ok(pruned)
    }

    async fn size(&self) -> Result<u64, StoreError> {
        let state = self.state();
        let rows = state.transactions.values().map(|row| size_in_memory(&row.content)).sum::<usize>();
        Ok((rows + state.side_blocks.values().map(Vec::len).sum::<usize>()) as u64)
    }

    async fn compact(&self, _full: bool) -> Result<(), StoreError> {
        Ok(())
    }

    async fn close(&self) {}
}
