//! Seals: takes pending transactions in the order of their arrival, mines them into blocks, and has them stored.

mod direct;
mod gathering;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use liotbchain_core::{
    BlockHash, Branch, CheckedBlock, KeyId, Statement, TimestampMs, TransactionId, VerifiedStatement,
};
use liotbchain_store::{Pending, Place, Right, Status, StoreError};
use tokio::{
    sync::{Mutex, MutexGuard},
    time,
};

use gathering::{Gathering, MiningEnd, blocks_within};

use crate::{
    ledger::{SealedBlock, Sealing, Shared, VerifiedCache},
    now_ms,
    waiting::{Outcome, lock},
};

/// How long the right to seal is taken for: with the pause between two looks, others take over within 3 s after its holder
/// died.
const RIGHT_TTL: Duration = Duration::from_millis(2_500);
/// Transactions that one round looks at, but for a block that holds more.
const ROUND_MAX: usize = 8_192;
/// Attempts whose blocks one round looks at: more than are made in the time that is spent on one commit.
const ROUND_ATTEMPTS: f64 = (1 << 24) as f64;
/// Transactions that are read at a time.
const PAGE: usize = 256;
/// Bytes of payload and signature after which a round reads no more.
const ROUND_BYTES: usize = 16 << 20;
/// First and longest pause after mining gave up.
const MINING_PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// First and longest pause after the store failed.
const STORE_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How often an idle ledger counts what is pending: other receivers on the same store admit unseen.
const IDLE_POLL: Duration = Duration::from_secs(1);
/// Shortest time between two looks at what another receiver says it has changed.
const LOOK_PAUSE: Duration = Duration::from_millis(10);
/// How often a receiver that does not seal looks without being told.
const ELSEWHERE_POLL: Duration = Duration::from_millis(250);
/// How often it counts what is pending.
const ELSEWHERE_COUNT: Duration = Duration::from_secs(1);

/// Keys whose sequences are kept in memory.
const SEQUENCES_MAX: usize = 10_000;

/// Moves the chain. Its own task holds it for a round; admission holds it for a moment, to seal lists as they come.
pub(crate) struct Sealer {
    shared: Arc<Shared>,
    /// The right, and when to prolong it by this machine's clock.
    right: Option<(Right, Instant)>,
    /// The tip to build on; none when the store must be asked.
    branch: Option<Branch>,
    /// How many transactions of a key that branch holds, for keys that signed lately.
    sequences: HashMap<KeyId, u64>,
    /// What the last round left pending and what was admitted since, in that order; none where that is not known, or
    /// damaged rows wait too.
    left: Option<Vec<VerifiedStatement>>,
    /// Another receiver had the right at the last round; since when what is pending is counted.
    elsewhere: Option<Instant>,
    /// Pending transactions whose rows no longer verify. They are left alone, so that they hold nothing up.
    damaged: HashSet<TransactionId>,
    /// Timestamp of the attempt that failed: the next one must have another, or it would search the same hashes.
    failed_timestamp_ms: Option<TimestampMs>,
    /// Somebody asked for a block that need not be full, and no round has made it yet.
    is_partial_asked: bool,
}

/// Which of the transactions that wait some blocks hold.
#[derive(Clone, Copy)]
enum FromQueue {
    /// The first so many.
    First(usize),
    /// All, which are so many, and others behind them.
    All(u32),
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

/// Runs a sealer until the ledger shuts down.
pub(crate) async fn run(sealer: Arc<Mutex<Sealer>>, shared: Arc<Shared>) {
    let mut mining_pause = MINING_PAUSE.0;
    let mut store_pause = STORE_PAUSE.0;
    while !shared.is_stopping() {
        let mut seat = sealer.lock().await;
        match seat.round().await {
            Ok(round) => {
                drop(seat);
                if !matches!(round, Round::More) {
                    // Until something is finished, the next failure is no new one.
                    store_pause = STORE_PAUSE.0;
                }
                match round {
                    Round::More => mining_pause = MINING_PAUSE.0,
                    Round::Done { due_in } => {
                        mining_pause = MINING_PAUSE.0;
                        shared.set(Sealing::Idle);
                        tokio::select! {
                            () = idle(&sealer, &shared, due_in) => {}
                            () = shared.stopped() => {}
                        }
                    }
                    Round::MiningFailed { attempts } => {
                        tracing::warn!(
                            attempts,
                            pause_s = mining_pause.as_secs(),
                            "NONCE_LIMIT reached: the block is tried again"
                        );
                        shared.set(Sealing::MiningFailed { attempts });
                        tokio::select! {
                            () = pause_mining(&shared, mining_pause, attempts) => {}
                            () = shared.stopped() => {}
                        }
                        mining_pause = (mining_pause * 2).min(MINING_PAUSE.1);
                    }
                    Round::Elsewhere => {
                        shared.set(Sealing::Elsewhere);
                        lock(&shared.verified).clear();
                        tokio::select! {
                            () = changed_elsewhere(&shared) => {}
                            () = sleep(&shared, ELSEWHERE_POLL) => {}
                        }
                    }
                }
            }
            Err(error) => {
                tracing::error!(%error, "sealing waits for the store");
                seat.forget();
                drop(seat);
                shared.set(Sealing::StoreDown { reason: error.to_string() });
                lock(&shared.verified).clear();
                sleep(&shared, store_pause).await;
                store_pause = (store_pause * 2).min(STORE_PAUSE.1);
            }
        }
    }
    let seat: MutexGuard<'_, Sealer> = sealer.lock().await;
    if let Some((right, _)) = &seat.right {
        // It expires by itself where this fails.
        let _ = shared.store.release_right(right).await;
    }
}

/// Returns when another receiver said that it changed something, but not at once after a look.
async fn changed_elsewhere(shared: &Shared) {
    time::sleep(LOOK_PAUSE).await;
    shared.store.changed().await;
}

async fn sleep(shared: &Shared, pause: Duration) {
    // Running out of time is what is hoped for.
    let _ = time::timeout(pause, shared.stopped()).await;
}

/// Returns when there may be something to seal.
async fn idle(sealer: &Mutex<Sealer>, shared: &Shared, due_in: Option<Duration>) {
    let per_block = u64::from(shared.config.transactions_per_block);
    let due_in = due_in.unwrap_or(Duration::MAX);
    let due_at = Instant::now().checked_add(due_in);
    loop {
        let left = due_at.map_or(Duration::MAX, |due| due.saturating_duration_since(Instant::now()));
        let polled = tokio::select! {
            () = shared.work.notified() => return,
            () = changed_elsewhere(shared) => false,
            () = time::sleep(left.min(IDLE_POLL)) => true,
        };
        if polled && left <= IDLE_POLL {
            return;
        }
        let wanted = if shared.config.block_max_age.is_some() && due_at.is_none() { 1 } else { per_block };
        match shared.store.pending_count(wanted).await {
            Ok(count)
                if count < wanted
                    && sealer.lock().await.is_right_fresh()
                    && shared.waiting.ids().is_empty() => {}
            // Whatever is new or wrong, the next round will see.
            _ => return,
        }
    }
}

/// Waits, and meanwhile tells everybody who submits that mining has failed for now.
async fn pause_mining(shared: &Shared, pause: Duration, attempts: u64) {
    let end = time::Instant::now() + pause;
    loop {
        shared.waiting.resolve_all(Outcome::MiningFailed { attempts });
        if time::timeout_at(end, shared.work.notified()).await.is_err() {
            return;
        }
    }
}

impl Sealer {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let branch = Some(shared.status.borrow().0.clone());
        Self {
            shared,
            right: None,
            branch,
            sequences: HashMap::new(),
            left: None,
            elsewhere: None,
            damaged: HashSet::new(),
            failed_timestamp_ms: None,
            is_partial_asked: false,
        }
    }

    /// Drops what is known of the store.
    fn forget(&mut self) {
        self.right = None;
        self.left = None;
        self.set_branch(None);
    }

    /// Sets the tip to build on, of which no sequences are known yet.
    fn set_branch(&mut self, branch: Option<Branch>) {
        if let Some(branch) = &branch {
            self.show(branch);
        }
        self.branch = branch;
        self.sequences.clear();
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
        self.shared.changes.send_replace(());
    }

    fn is_right_fresh(&self) -> bool {
        self.right.as_ref().is_some_and(|(_, prolong_at)| Instant::now() < *prolong_at)
    }

    async fn round(&mut self) -> Result<Round, StoreError> {
        let shared = Arc::clone(&self.shared);
        let per_block = shared.config.transactions_per_block as usize;
        self.left = None;
        if let Some(counted) = self.elsewhere {
            // Without a look at what is pending, which may be long: it is the other's to seal.
            if !self.hold_right().await? {
                return self.follow(counted).await;
            }
            self.elsewhere = None;
        }
        if !self.is_right_fresh() {
            // Another receiver may have moved the chain.
            self.set_branch(None);
        }
        if self.branch.is_none() {
            self.set_branch(shared.store.branch().await?);
            self.resolve_known().await?;
        }
        let number = shared.waiting.begin_round();
        // Before the look at what is pending: who asks later is served by a later round.
        self.is_partial_asked |= shared.partial_asked.swap(false, Ordering::SeqCst);
        // Damaged rows stay pending for ever, and must not use a round up.
        let blocks = blocks_within(ROUND_ATTEMPTS, &shared.config).saturating_mul(per_block);
        let limit = blocks.min(ROUND_MAX).max(per_block) + self.damaged.len();
        let moment = shared.pending.moment();
        let mut pending = shared.store.pending(u32::try_from(limit).unwrap_or(u32::MAX)).await?;
        let is_all = pending.len() < limit;
        pending.retain(|it| {
            let is_damaged = self.damaged.contains(&it.id);
            if is_damaged {
                shared.waiting.leave(&it.id, number);
            }
            !is_damaged
        });

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
            if is_all && shared.pending.correct(moment, left.len()) && self.damaged.is_empty() {
                self.left = self.known(left.iter().map(|it| it.id));
            }
            return Ok(Round::Done { due_in });
        }
        if !self.hold_right().await? {
            self.resolve_known().await?;
            shared.pending.correct(moment, pending.len() + left.len());
            self.elsewhere = Some(Instant::now());
            return Ok(Round::Elsewhere);
        }
        if self.branch.is_none() {
            // The right is new: what was pending a moment ago may have been sealed by its last holder.
            return Ok(Round::More);
        }
        shared.set(Sealing::Working);
        pending.truncate(take);
        let mut statements = Vec::new();
        let mut bytes = 0;
        // Whole blocks, a few at a time: readings may be large, and what waits may be much.
        for page in pending.chunks((PAGE / per_block).max(1) * per_block) {
            let found = self.statements(page).await?;
            if found.len() < page.len() {
                return Ok(Round::More);
            }
            bytes += found.iter().map(VerifiedCache::size).sum::<usize>();
            statements.extend(found);
            if bytes >= ROUND_BYTES {
                break;
            }
        }
        // What was not read is for the next round.
        let is_all = is_all && statements.len() == take;
        leave();
        let count = statements.len();
        let (round, sealed) = self.mine_and_commit(statements).await?;
        // Until all that was asked for is sealed, the end of it need not fill a block. Mining that gives up has answered, too.
        if is_all && (sealed == count || matches!(round, Round::MiningFailed { .. })) {
            self.is_partial_asked = false;
        }
        Ok(round)
    }

    /// Looks what another receiver has done.
    async fn follow(&mut self, counted: Instant) -> Result<Round, StoreError> {
        let shared = Arc::clone(&self.shared);
        self.set_branch(shared.store.branch().await?);
        self.resolve_known().await?;
        if counted.elapsed() >= ELSEWHERE_COUNT {
            let moment = shared.pending.moment();
            let count = shared.store.pending_count(shared.config.pending_max).await?;
            shared.pending.correct(moment, count as usize);
            self.elsewhere = Some(Instant::now());
        }
        Ok(Round::Elsewhere)
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
        self.set_branch(None);
        let right = self.shared.store.acquire_right(&self.shared.config.holder, RIGHT_TTL).await?;
        self.right = right.map(|right| (right, now + RIGHT_TTL / 3));
        Ok(self.right.is_some())
    }

    /// Returns statements that are in memory, none where one of them is not.
    fn known(&self, ids: impl Iterator<Item = TransactionId>) -> Option<Vec<VerifiedStatement>> {
        let verified = lock(&self.shared.verified);
        ids.map(|id| verified.get(&id)).collect()
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
            // Many where another receiver admitted them: no work for a thread that answers requests.
            let verified = tokio::task::spawn_blocking(move || {
                let verify = |(id, statement): (TransactionId, Statement)| {
                    let verified = match keys.get(&statement.key_id) {
                        Some(key) => VerifiedStatement::verify(statement, key).ok(),
                        None => VerifiedStatement::check_unsigned(statement).ok(),
                    };
                    (id, verified.filter(|verified| verified.id() == id))
                };
                stored.into_iter().map(verify).collect::<Vec<_>>()
            });
            let verified = verified
                .await
                .map_err(|panic| StoreError::Corrupt(format!("verifying what is pending failed: {panic}")))?;
            for (id, verified) in verified {
                match verified {
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

    /// Makes statements ready to be mined on the tip; none where the tip must be asked for first.
    async fn gather(&mut self, statements: Vec<VerifiedStatement>) -> Result<Option<Gathering>, StoreError> {
        let key_ids: HashSet<_> = statements.iter().map(|it| it.statement().key_id).collect();
        let unknown: Vec<_> = key_ids.into_iter().filter(|it| !self.sequences.contains_key(it)).collect();
        if !unknown.is_empty() {
            let sequences = self.shared.store.next_sequences(&unknown).await?;
            self.sequences.extend(sequences);
        }
        let sequences = std::mem::take(&mut self.sequences);
        let Some(branch) = self.branch.take() else { return Ok(None) };
        Ok(Some(Gathering::new(branch, sequences, statements, self.failed_timestamp_ms)))
    }

    /// Mines statements, as many as there is time for, and stores their blocks. Returns how many were sealed.
    async fn mine_and_commit(
        &mut self,
        statements: Vec<VerifiedStatement>,
    ) -> Result<(Round, usize), StoreError> {
        let shared = Arc::clone(&self.shared);
        let Some(mut gathering) = self.gather(statements).await? else {
            return Err(StoreError::Corrupt("the chain is gone".to_owned()));
        };
        let expected_tip = gathering.branch.tip();
        let mining = tokio::task::spawn_blocking(move || {
            let end = gathering.mine(&shared);
            (gathering, end)
        });
        let (gathering, end) = self.keep_right_during(mining).await?;
        self.failed_timestamp_ms = gathering.failed_timestamp_ms;
        let mut sealed = 0;
        if gathering.blocks.is_empty() {
            let (branch, sequences, _) = gathering.into_parts();
            (self.branch, self.sequences) = (Some(branch), sequences);
        } else {
            let mined = gathering.blocks.iter().map(|it| it.block.transactions().len()).sum();
            if self.commit(expected_tip, gathering, FromQueue::First(mined)).await? {
                sealed = mined;
            }
        }
        let round = match end {
            MiningEnd::Gathered | MiningEnd::Cancelled => Round::More,
            MiningEnd::LimitReached { attempts } => Round::MiningFailed { attempts },
        };
        Ok((round, sealed))
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

    /// Stores mined blocks of these transactions. False where another receiver was faster.
    async fn commit(
        &mut self,
        expected_tip: BlockHash,
        gathering: Gathering,
        were_pending: FromQueue,
    ) -> Result<bool, StoreError> {
        if !self.hold_right().await? {
            return Ok(false);
        }
        // Taking the right anew forgets the tip; it is compared in the commit.
        let Some((right, _)) = &self.right else { return Ok(false) };
        let (branch, sequences, blocks) = gathering.into_parts();
        let (checked, attempts): (Vec<_>, Vec<_>) =
            blocks.into_iter().map(|it| (it.block, it.attempts)).unzip();
        let store = &self.shared.store;
        let committed = match were_pending {
            FromQueue::All(pending) => store.commit_all(right, expected_tip, pending, &checked).await,
            FromQueue::First(_) => store.commit(right, expected_tip, 0, &checked).await,
        };
        match committed {
            Ok(()) => {}
            // Another receiver admitted something meanwhile, which comes first.
            Err(StoreError::MorePending { .. }) => return Ok(false),
            Err(StoreError::RightLost) => {
                self.right = None;
                return Ok(false);
            }
            // Another receiver sealed: look anew what is pending.
            Err(StoreError::TipMoved { .. }) => return Ok(false),
            Err(StoreError::CommitUnknown(reason)) => {
                let stored = self.shared.store.branch().await?;
                if stored.is_none_or(|stored| stored.tip() != branch.tip()) {
                    return Err(StoreError::Unavailable(reason));
                }
            }
            Err(error) => return Err(error),
        }
        self.shared.pending.sealed(match were_pending {
            FromQueue::First(count) => count,
            FromQueue::All(count) => count as usize,
        });
        // Before anybody is told, so that who asks then sees it.
        self.show(&branch);
        self.branch = Some(branch);
        if sequences.len() <= SEQUENCES_MAX {
            self.sequences = sequences;
        }
        self.tell(&checked, &attempts);
        Ok(true)
    }

    fn tell(&self, blocks: &[CheckedBlock], attempts: &[u64]) {
        let shared = &self.shared;
        for (block, attempts) in blocks.iter().zip(attempts) {
            let (height, hash, transactions) = (block.height(), block.hash(), block.transactions().len());
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
