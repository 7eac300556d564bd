//! Seals: takes pending transactions in the order of their arrival, mines them into blocks, and has them stored.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use liotbchain_core::{
    Ancestry, Branch, CheckedBlock, Difficulty, KeyId, PublicKey, TimestampMs, TransactionId,
    VerifiedStatement, check,
    mine::{self, Draft, Mined},
};
use liotbchain_store::{Pending, Place, Right, Status, StoreError};
use tokio::time;

use crate::{
    ledger::{SealedBlock, Sealing, Shared},
    now_ms,
    waiting::{Outcome, lock},
};

/// How long the right to seal is taken for: others take over within this time after its holder died.
const RIGHT_TTL: Duration = Duration::from_secs(3);
/// Blocks are gathered for one commit until so much time was spent on mining them.
const GATHER: Duration = Duration::from_millis(20);
/// Transactions that one round looks at.
const ROUND_MAX: u32 = 8_192;
/// First and longest pause after mining gave up.
const MINING_PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// First and longest pause after the store failed.
const STORE_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How often an idle ledger counts what is pending: other receivers on the same store admit unseen.
const IDLE_POLL: Duration = Duration::from_secs(1);
/// How often a receiver that does not seal looks what became of transactions that somebody waits for.
const ELSEWHERE_POLL: Duration = Duration::from_millis(250);

/// The one task that moves the chain.
pub(crate) struct Sealer {
    shared: Arc<Shared>,
    /// The right, and when to prolong it by this machine's clock.
    right: Option<(Right, Instant)>,
    /// The tip to build on; none when the store must be asked.
    branch: Option<Branch>,
    /// Pending transactions whose rows no longer verify. They are left alone, so that they hold nothing up.
    damaged: HashSet<TransactionId>,
    /// Timestamp of the attempt that failed: the next one must have another, or it would search the same hashes.
    failed_timestamp_ms: Option<TimestampMs>,
    /// Somebody asked for a block that need not be full, and no round has made it yet.
    is_partial_asked: bool,
}

/// How a round ended.
enum Round {
    /// Fewer transactions wait than a block holds; the oldest is due at this time, where a setting says so.
    Done { due_in: Option<Duration> },
    /// There is more to do.
    More,
    /// Mining gave a block up.
    MiningFailed { attempts: u64 },
    /// Another receiver has the right to seal.
    Elsewhere,
}

impl Sealer {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let branch = Some(shared.status.borrow().0.clone());
        Self {
            shared,
            right: None,
            branch,
            damaged: HashSet::new(),
            failed_timestamp_ms: None,
            is_partial_asked: false,
        }
    }

    pub(crate) async fn run(mut self) {
        let mut mining_pause = MINING_PAUSE.0;
        let mut store_pause = STORE_PAUSE.0;
        while !self.shared.is_stopping() {
            match self.round().await {
                Ok(round) => {
                    if !matches!(round, Round::More) {
                        // Until something is finished, the next failure is no new one.
                        store_pause = STORE_PAUSE.0;
                    }
                    match round {
                        Round::More => mining_pause = MINING_PAUSE.0,
                        Round::Done { due_in } => {
                            mining_pause = MINING_PAUSE.0;
                            self.set(Sealing::Idle);
                            tokio::select! {
                                () = self.idle(due_in) => {}
                                () = self.shared.stopped() => {}
                            }
                        }
                        Round::MiningFailed { attempts } => {
                            tracing::warn!(
                                attempts,
                                pause_s = mining_pause.as_secs(),
                                "NONCE_LIMIT reached: the block is tried again"
                            );
                            self.set(Sealing::MiningFailed { attempts });
                            tokio::select! {
                                () = self.pause_mining(mining_pause, attempts) => {}
                                () = self.shared.stopped() => {}
                            }
                            mining_pause = (mining_pause * 2).min(MINING_PAUSE.1);
                        }
                        Round::Elsewhere => {
                            self.set(Sealing::Elsewhere);
                            lock(&self.shared.verified).clear();
                            self.sleep(ELSEWHERE_POLL).await;
                        }
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "sealing waits for the store");
                    self.set(Sealing::StoreDown { reason: error.to_string() });
                    // Nothing that was known of the store counts any more.
                    (self.branch, self.right) = (None, None);
                    lock(&self.shared.verified).clear();
                    self.sleep(store_pause).await;
                    store_pause = (store_pause * 2).min(STORE_PAUSE.1);
                }
            }
        }
        if let Some((right, _)) = self.right {
            // It expires by itself where this fails.
            let _ = self.shared.store.release_right(&right).await;
        }
    }

    fn set(&self, sealing: Sealing) {
        self.shared.status.send_if_modified(|status| {
            let changed = status.1 != sealing;
            status.1 = sealing;
            changed
        });
    }

    /// Shows a tip to who asks for the status.
    fn show(&self, branch: &Branch) {
        self.shared.status.send_if_modified(|status| {
            let changed = status.0.tip() != branch.tip();
            if changed {
                status.0 = branch.clone();
            }
            changed
        });
    }

    fn is_right_fresh(&self) -> bool {
        self.right.as_ref().is_some_and(|(_, prolong_at)| Instant::now() < *prolong_at)
    }

    async fn sleep(&self, pause: Duration) {
        // Running out of time is what is hoped for.
        let _ = time::timeout(pause, self.shared.stopped()).await;
    }

    /// Returns when there may be something to seal.
    async fn idle(&self, due_in: Option<Duration>) {
        let per_block = u64::from(self.shared.config.transactions_per_block);
        let due_in = due_in.unwrap_or(Duration::MAX);
        let due_at = Instant::now().checked_add(due_in);
        loop {
            let left = due_at.map_or(Duration::MAX, |due| due.saturating_duration_since(Instant::now()));
            if time::timeout(left.min(IDLE_POLL), self.shared.work.notified()).await.is_ok()
                || left <= IDLE_POLL
            {
                return;
            }
            let wanted =
                if self.shared.config.block_max_age.is_some() && due_at.is_none() { 1 } else { per_block };
            match self.shared.store.pending_count(wanted).await {
                Ok(count)
                    if count < wanted && self.is_right_fresh() && self.shared.waiting.ids().is_empty() => {}
                // Whatever is new or wrong, the next round will see.
                _ => return,
            }
        }
    }

    /// Waits, and meanwhile tells everybody who submits that mining has failed for now.
    async fn pause_mining(&self, pause: Duration, attempts: u64) {
        let end = time::Instant::now() + pause;
        loop {
            self.shared.waiting.resolve_all(Outcome::MiningFailed { attempts });
            if time::timeout_at(end, self.shared.work.notified()).await.is_err() {
                return;
            }
        }
    }

    async fn round(&mut self) -> Result<Round, StoreError> {
        let shared = Arc::clone(&self.shared);
        let per_block = shared.config.transactions_per_block as usize;
        if !self.is_right_fresh() {
            // Another receiver may have moved the chain.
            self.branch = None;
        }
        if self.branch.is_none() {
            self.branch = shared.store.branch().await?;
            if let Some(branch) = &self.branch {
                self.show(branch);
            }
            self.resolve_known().await?;
        }
        let number = shared.waiting.begin_round();
        // Before the look at what is pending: who asks later is served by a later round.
        self.is_partial_asked |= shared.partial_asked.swap(false, Ordering::Relaxed);
        // Damaged rows stay pending for ever, and must not use a round up.
        let limit = ROUND_MAX.max(shared.config.transactions_per_block) + self.damaged.len() as u32;
        let mut pending = shared.store.pending(limit).await?;
        let is_all = pending.len() < limit as usize;
        pending.retain(|it| !self.damaged.contains(&it.id));

        let mut take = pending.len() / per_block * per_block;
        let mut due_in = None;
        if take < pending.len() && is_all {
            let age_due = shared.config.block_max_age.map(|age| due(&pending[take], age));
            if self.is_partial_asked || age_due.is_some_and(|due| due.is_zero()) {
                take = pending.len();
            } else {
                due_in = age_due;
            }
        }
        let left = if is_all { pending.split_off(take) } else { Vec::new() };
        let leave = || left.iter().for_each(|left| shared.waiting.leave(&left.id, number));
        if take == 0 {
            self.is_partial_asked &= !is_all;
            leave();
            self.resolve_known().await?;
            return Ok(Round::Done { due_in });
        }
        if !self.hold_right().await? {
            self.resolve_known().await?;
            shared.pending.store((pending.len() + left.len()) as i64, Ordering::Relaxed);
            return Ok(Round::Elsewhere);
        }
        if self.branch.is_none() {
            // The right is new: what was pending a moment ago may have been sealed by its last holder.
            return Ok(Round::More);
        }
        self.set(Sealing::Working);
        pending.truncate(take);
        let statements = self.statements(&pending).await?;
        if statements.len() < take {
            return Ok(Round::More);
        }
        leave();
        // Mining that gives up has answered, too.
        self.is_partial_asked &= !is_all;
        self.mine_and_commit(statements).await
    }

    /// Tells those who wait for transactions that are sealed already, by another receiver or before a failure.
    async fn resolve_known(&self) -> Result<(), StoreError> {
        let ids = self.shared.waiting.ids();
        if ids.is_empty() {
            return Ok(());
        }
        let statuses = self.shared.store.look_up(&ids).await?;
        for (id, status) in ids.iter().zip(statuses) {
            if let Some(Status::Sealed(place)) = status {
                self.shared.waiting.resolve(id, Outcome::Sealed(place));
            }
        }
        Ok(())
    }

    /// Takes or prolongs the right to seal; false where another receiver has it.
    async fn hold_right(&mut self) -> Result<bool, StoreError> {
        let now = Instant::now();
        match &self.right {
            Some((_, prolong_at)) if now < *prolong_at => return Ok(true),
            Some((right, _)) => match self.shared.store.renew_right(right, RIGHT_TTL).await {
                Ok(()) => {
                    self.right = Some((right.clone(), now + RIGHT_TTL / 3));
                    return Ok(true);
                }
                Err(StoreError::RightLost) => self.right = None,
                Err(error) => return Err(error),
            },
            None => {}
        }
        // Whoever sealed in the meantime moved the tip.
        self.branch = None;
        let right = self.shared.store.acquire_right(&self.shared.config.holder, RIGHT_TTL).await?;
        self.right = right.map(|right| (right, now + RIGHT_TTL / 3));
        Ok(self.right.is_some())
    }

    /// Returns verified statements, from memory or from the store, and sets those aside that do not verify any more.
    async fn statements(&mut self, pending: &[Pending]) -> Result<Vec<VerifiedStatement>, StoreError> {
        let shared = &self.shared;
        let mut found: HashMap<TransactionId, VerifiedStatement> = {
            let cache = lock(&shared.verified);
            pending.iter().filter_map(|it| Some((it.id, cache.get(&it.id)?))).collect()
        };
        let missing: Vec<_> = pending.iter().map(|it| it.id).filter(|id| !found.contains_key(id)).collect();
        if !missing.is_empty() {
            let stored = shared.store.statements(&missing).await?;
            let key_ids: HashSet<_> = stored.values().map(|statement| statement.key_id).collect();
            let keys = shared.store.public_keys(&key_ids.into_iter().collect::<Vec<_>>()).await?;
            for (id, statement) in stored {
                let verified = match keys.get(&statement.key_id) {
                    Some(key) => VerifiedStatement::verify(statement, key).ok(),
                    None => VerifiedStatement::check_unsigned(statement).ok(),
                };
                match verified.filter(|verified| verified.id() == id) {
                    Some(verified) => _ = found.insert(id, verified),
                    None => {
                        tracing::error!(%id, "a pending transaction was changed in the store: it is left alone");
                        self.damaged.insert(id);
                    }
                }
            }
        }
        Ok(pending.iter().filter_map(|it| found.remove(&it.id)).collect())
    }

    async fn mine_and_commit(&mut self, statements: Vec<VerifiedStatement>) -> Result<Round, StoreError> {
        let shared = Arc::clone(&self.shared);
        let parent = self.branch.take().ok_or_else(|| StoreError::Corrupt("the chain is gone".to_owned()))?;
        let key_ids: HashSet<_> = statements.iter().map(|it| it.statement().key_id).collect();
        let sequences = shared.store.next_sequences(&key_ids.into_iter().collect::<Vec<_>>()).await?;
        let expected_tip = parent.tip();
        let mut gathering = Gathering {
            blocks: Vec::new(),
            ancestry: Drafted { sequences, ids: HashSet::new() },
            branch: parent,
            statements,
            failed_timestamp_ms: self.failed_timestamp_ms,
        };
        let mining = {
            let shared = Arc::clone(&shared);
            tokio::task::spawn_blocking(move || {
                let end = gathering.mine(&shared);
                (gathering, end)
            })
        };
        let (gathering, end) = self.keep_right_during(mining).await?;
        let Gathering { blocks, branch, failed_timestamp_ms, .. } = gathering;
        self.failed_timestamp_ms = failed_timestamp_ms;
        if blocks.is_empty() {
            self.branch = Some(branch);
        } else {
            self.commit(expected_tip, blocks, branch).await?;
        }
        Ok(match end {
            MiningEnd::Gathered | MiningEnd::Cancelled => Round::More,
            MiningEnd::LimitReached { attempts } => Round::MiningFailed { attempts },
        })
    }

    /// Waits for the miners, and prolongs the right to seal meanwhile.
    async fn keep_right_during<T>(
        &mut self,
        mut mining: tokio::task::JoinHandle<T>,
    ) -> Result<T, StoreError> {
        loop {
            match time::timeout(RIGHT_TTL / 3, &mut mining).await {
                Ok(mined) => {
                    return mined.map_err(|panic| StoreError::Corrupt(format!("mining failed: {panic}")));
                }
                Err(_) => self.prolong_right().await,
            }
        }
    }

    async fn prolong_right(&mut self) {
        let Some((right, prolong_at)) = &mut self.right else { return };
        let now = Instant::now();
        match self.shared.store.renew_right(right, RIGHT_TTL).await {
            Ok(()) => *prolong_at = now + RIGHT_TTL / 3,
            // A right that was lost shows at commit, which then changes nothing.
            Err(StoreError::RightLost) => self.right = None,
            // Mining goes on: the store may be back when the block is found.
            Err(error) => tracing::warn!(%error, "the right to seal could not be prolonged"),
        }
    }

    async fn commit(
        &mut self,
        expected_tip: liotbchain_core::BlockHash,
        blocks: Vec<MinedBlock>,
        branch: Branch,
    ) -> Result<(), StoreError> {
        if !self.hold_right().await? {
            return Ok(());
        }
        // Taking the right anew forgets the tip; it is compared in the commit.
        let Some((right, _)) = &self.right else { return Ok(()) };
        let (checked, attempts): (Vec<_>, Vec<_>) =
            blocks.into_iter().map(|it| (it.block, it.attempts)).unzip();
        match self.shared.store.commit(right, expected_tip, 0, &checked).await {
            Ok(()) => {}
            Err(StoreError::RightLost) => {
                self.right = None;
                return Ok(());
            }
            // Another receiver sealed: look anew what is pending.
            Err(StoreError::TipMoved { .. }) => return Ok(()),
            Err(StoreError::CommitUnknown(reason)) => {
                let stored = self.shared.store.branch().await?;
                if stored.is_none_or(|stored| stored.tip() != branch.tip()) {
                    return Err(StoreError::Unavailable(reason));
                }
            }
            Err(error) => return Err(error),
        }
        self.branch = Some(branch.clone());
        // Before anybody is told, so that who asks then sees it.
        self.show(&branch);
        self.tell(&checked, &attempts);
        Ok(())
    }

    fn tell(&self, blocks: &[CheckedBlock], attempts: &[u64]) {
        let shared = &self.shared;
        for (block, attempts) in blocks.iter().zip(attempts) {
            let (height, hash, transactions) = (block.height(), block.hash(), block.transactions().len());
            shared.pending.fetch_sub(transactions as i64, Ordering::Relaxed);
            lock(&shared.verified).remove_all(block.ids().iter().flatten().copied());
            for (position, id) in block.ids().iter().enumerate() {
                let place = Place { height, position: position as u32, block_hash: hash };
                if let Some(id) = id {
                    shared.waiting.resolve(id, Outcome::Sealed(place));
                }
            }
            tracing::debug!(height, %hash, transactions, attempts, "block sealed");
            // Nobody may be listening.
            let _ = shared.sealed.send(SealedBlock { height, hash, transactions, attempts: *attempts });
        }
    }
}

fn due(oldest: &Pending, age: Duration) -> Duration {
    let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(oldest.received_ms.saturating_add(age_ms).saturating_sub(now_ms()))
}

struct MinedBlock {
    block: CheckedBlock,
    attempts: u64,
}

enum MiningEnd {
    /// All is mined, or enough for one commit.
    Gathered,
    /// One block was given up.
    LimitReached { attempts: u64 },
    /// The ledger shuts down.
    Cancelled,
}

/// Blocks on their way into one commit.
struct Gathering {
    branch: Branch,
    statements: Vec<VerifiedStatement>,
    ancestry: Drafted,
    blocks: Vec<MinedBlock>,
    failed_timestamp_ms: Option<TimestampMs>,
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
    fn mine(&mut self, shared: &Shared) -> MiningEnd {
        let config = &shared.config;
        let started = Instant::now();
        let statements = std::mem::take(&mut self.statements);
        for statements in statements.chunks(config.transactions_per_block as usize) {
            if !self.blocks.is_empty() && started.elapsed() > GATHER {
                return MiningEnd::Gathered;
            }
            let draft = self.draft(statements, config.difficulty);
            let mined =
                mine::mine(draft.header(), config.nonce_limit, config.mining_threads, &shared.cancel_mining)
                    .expect("the bits of a difficulty encode a target");
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
