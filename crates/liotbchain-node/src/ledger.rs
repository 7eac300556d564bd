//! The ledger: takes verified transactions, answers when they are durable, and has them mined into blocks.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use liotbchain_core::{
    BlockHash, Branch, Difficulty, Height, Rules, SealRule, TransactionId, VerifiedStatement, mine::Kernel,
    rules::GenesisError,
};
use liotbchain_store::{NewTransaction, Status, Store, StoreError};
use tokio::{
    sync::{Notify, broadcast, mpsc, oneshot, watch},
    task::JoinHandle,
    time,
};

use crate::{
    now_ms,
    pending_count::PendingCount,
    seal::{self, Sealer},
    waiting::{Outcome, Wait, Waiting, lock},
};

/// Transactions that one admission commit takes at most, but for a single list that is longer.
const ADMIT_MAX: usize = 8_192;
/// Bytes of payload and signature that it takes at most, but for a single list that is larger.
const ADMIT_BYTES_MAX: usize = 32 << 20;
/// Requests that may wait for an admission commit; more are refused at once.
const QUEUE_MAX: usize = 1_024;
/// Verified statements kept in memory between admission and sealing, in bytes of payload and signature. What does not
/// fit is read from the store and verified again.
const CACHE_BYTES_MAX: usize = 32 << 20;

/// What a node chooses for itself. What the network decides stands in its genesis block.
#[derive(Debug, Clone)]
pub struct LedgerConfig {
    /// Transactions in a full block, at least 1.
    pub transactions_per_block: u32,
    /// Difficulty of the blocks to come; the least of a chain that is created.
    pub difficulty: Difficulty,
    /// Attempts before mining a block is given up for now, 1 to 2^32.
    pub nonce_limit: u64,
    /// Threads that mine, at least 1.
    pub mining_threads: usize,
    /// How they compute: all kernels find the same blocks.
    pub mining_kernel: Kernel,
    /// Age at which a transaction is sealed in a block that is not full.
    pub block_max_age: Option<Duration>,
    /// Pending transactions above which no more are taken.
    pub pending_max: u64,
    /// Longest time for an admission before a request is told to come back.
    pub admit_timeout: Duration,
    /// Name of a network that is created.
    pub network: String,
    /// Whether a chain that is created takes transactions without a signature.
    pub unsigned: bool,
    /// Who holds the right to seal: the same for every start of one receiver, another for every other.
    pub holder: String,
}

impl Default for LedgerConfig {
    fn default() -> Self {
        Self {
            transactions_per_block: 2,
            difficulty: Difficulty::new(2).expect("2 is at most 16"),
            nonce_limit: 10_000_000,
            mining_threads: std::thread::available_parallelism().map_or(1, |cores| (cores.get() - 1).max(1)),
            mining_kernel: Kernel::best(),
            block_max_age: None,
            pending_max: 100_000,
            admit_timeout: Duration::from_secs(10),
            network: "liotbchain".to_owned(),
            unsigned: false,
            holder: "ledger".to_owned(),
        }
    }
}

/// Why a ledger did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The store failed. Where it failed at commit, a repeated submission finds out what became of the first.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store did not answer in time.
    #[error("the store did not answer within {} s", .0.as_secs())]
    Slow(Duration),
    /// More transactions wait than the ledger takes.
    #[error("{pending} transactions wait to be mined, and no more than {pending_max} may")]
    Overloaded {
        /// How many wait.
        pending: u64,
        /// The limit.
        pending_max: u64,
    },
    /// Too many requests wait for the store.
    #[error("too many requests wait for the store")]
    Busy,
    /// The ledger is shutting down.
    #[error("the ledger is shutting down")]
    Closed,
    /// Another receiver on the same store seals.
    #[error("another program on the same store has the right to seal")]
    SealedElsewhere,
    /// The difficulty asked for is below the chain's least.
    #[error("difficulty {asked} is below {least}, the least that this chain's genesis block allows")]
    DifficultyBelowLeast {
        /// The setting.
        asked: Difficulty,
        /// The chain's.
        least: Difficulty,
    },
    /// The chain's rules do not allow unsigned transactions.
    #[error("this chain's genesis block does not allow transactions without a signature")]
    UnsignedNotAllowed,
    /// A genesis block cannot be made of the settings.
    #[error(transparent)]
    Genesis(#[from] GenesisError),
}

impl LedgerError {
    /// Returns whether the same request may succeed later.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Store(error) => matches!(
                error,
                StoreError::Unavailable(_)
                    | StoreError::CommitUnknown(_)
                    | StoreError::TipMoved { .. }
                    | StoreError::RightLost
            ),
            Self::Slow(_) | Self::Overloaded { .. } | Self::Busy | Self::Closed | Self::SealedElsewhere => {
                true
            }
            Self::DifficultyBelowLeast { .. } | Self::UnsignedNotAllowed | Self::Genesis(_) => false,
        }
    }
}

/// What the submitter is told of one transaction. It is durable by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledgement {
    /// The transaction's id.
    pub id: TransactionId,
    /// Whether it is on the chain, and where.
    pub status: Status,
}

/// The answer to a list of transactions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission {
    /// One a transaction, in the order given.
    pub acknowledgements: Vec<Acknowledgement>,
    /// Attempts made, where mining gave one of their blocks up for now.
    pub mining_failed: Option<u64>,
}

/// A block that this node has just mined and stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedBlock {
    /// Its height.
    pub height: Height,
    /// Its hash.
    pub hash: BlockHash,
    /// How many transactions it holds.
    pub transactions: usize,
    /// Nonces tried.
    pub attempts: u64,
}

/// What the sealing part is at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sealing {
    /// Nothing to seal.
    Idle,
    /// Mining or writing.
    Working,
    /// Mining gave a block up; the next attempt comes later.
    MiningFailed {
        /// Nonces tried.
        attempts: u64,
    },
    /// The store failed; it is tried again.
    StoreDown {
        /// What the store said.
        reason: String,
    },
    /// Another receiver on the same store seals.
    Elsewhere,
}

/// A ledger's state, for a status page and for metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerStatus {
    /// Height of the best chain as last seen.
    pub height: Height,
    /// Hash of its last block.
    pub tip: BlockHash,
    /// Transactions that wait, as far as this node knows.
    pub pending: u64,
    /// What the sealing part is at.
    pub sealing: Sealing,
}

/// A chain that grows. Cheap to clone; all clones are one ledger.
#[derive(Clone)]
pub struct Ledger(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    rules: Rules,
    genesis: BlockHash,
    admissions: mpsc::Sender<Admission>,
    sealer: Arc<tokio::sync::Mutex<Sealer>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// What the ledger's tasks share.
pub(crate) struct Shared {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) config: LedgerConfig,
    pub(crate) waiting: Waiting,
    pub(crate) verified: Mutex<VerifiedCache>,
    pub(crate) pending: PendingCount,
    /// Told when there may be something to seal.
    pub(crate) work: Notify,
    /// Set where the next block need not be full.
    pub(crate) partial_asked: AtomicBool,
    pub(crate) status: watch::Sender<(Branch, Sealing)>,
    pub(crate) sealed: broadcast::Sender<SealedBlock>,
    /// Told when the tip or what is pending changed.
    pub(crate) changes: watch::Sender<()>,
    stopping: watch::Sender<bool>,
    /// Set with `stopping`, for the miners.
    pub(crate) cancel_mining: AtomicBool,
}

struct Admission {
    transactions: Vec<NewTransaction>,
    reply: oneshot::Sender<Result<Taken, LedgerError>>,
}

/// What became of a list.
struct Taken {
    /// One a transaction, in the order given.
    statuses: Vec<Status>,
    /// There where some of it may be sealed soon.
    wait: Option<Wait>,
}

impl Admission {
    fn bytes(&self) -> usize {
        self.transactions.iter().map(|it| VerifiedCache::size(&it.statement)).sum()
    }
}

impl Ledger {
    /// Opens the chain that a store keeps, or creates one, and starts to seal.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Store`], [`LedgerError::DifficultyBelowLeast`], [`LedgerError::Genesis`].
    pub async fn open(store: Arc<dyn Store>, config: LedgerConfig) -> Result<Self, LedgerError> {
        let branch = open_branch(store.as_ref(), &config).await?;
        let (asked, least) = (config.difficulty, branch.rules().difficulty);
        if asked < least {
            return Err(LedgerError::DifficultyBelowLeast { asked, least });
        }
        let pending = store.pending_count(config.pending_max).await?;
        let (rules, genesis) = (branch.rules().clone(), branch.genesis());
        let shared = Arc::new(Shared {
            store,
            config,
            waiting: Waiting::default(),
            verified: Mutex::default(),
            pending: PendingCount::new(pending),
            work: Notify::new(),
            partial_asked: AtomicBool::new(false),
            status: watch::Sender::new((branch, Sealing::Idle)),
            sealed: broadcast::Sender::new(1_024),
            changes: watch::Sender::new(()),
            stopping: watch::Sender::new(false),
            cancel_mining: AtomicBool::new(false),
        });
        let (admissions, queue) = mpsc::channel(QUEUE_MAX);
        let sealer = Arc::new(tokio::sync::Mutex::new(Sealer::new(Arc::clone(&shared))));
        let tasks = vec![
            tokio::spawn(admit(Arc::clone(&shared), Arc::clone(&sealer), queue)),
            tokio::spawn(seal::run(Arc::clone(&sealer), Arc::clone(&shared))),
        ];
        Ok(Self(Arc::new(Inner { shared, rules, genesis, admissions, sealer, tasks: Mutex::new(tasks) })))
    }

    /// Takes a list of transactions, whole, and answers when it is durable. Where the list fills blocks, the answer
    /// comes after they are mined and stored, but no later than `seal_wait` after the list was durable.
    ///
    /// # Errors
    ///
    /// [`LedgerError`]; where [`LedgerError::is_passing`], the same list may be submitted again.
    pub async fn submit(
        &self,
        transactions: Vec<NewTransaction>,
        seal_wait: Duration,
    ) -> Result<Submission, LedgerError> {
        let shared = &self.0.shared;
        let config = &shared.config;
        if transactions.iter().any(|it| it.statement.statement().is_unsigned()) && !self.0.rules.unsigned {
            return Err(LedgerError::UnsignedNotAllowed);
        }
        let pending = shared.pending.get();
        if pending >= config.pending_max {
            return Err(LedgerError::Overloaded { pending, pending_max: config.pending_max });
        }
        let ids: Vec<_> = transactions.iter().map(|it| it.statement.id()).collect();
        let (reply, answer) = oneshot::channel();
        self.0.admissions.try_send(Admission { transactions, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => LedgerError::Busy,
            mpsc::error::TrySendError::Closed(_) => LedgerError::Closed,
        })?;
        let answer = time::timeout(config.admit_timeout, answer).await;
        let Taken { statuses, wait } = answer
            .map_err(|_| LedgerError::Slow(config.admit_timeout))?
            .map_err(|_| LedgerError::Closed)??;

        let pending_ids: Vec<_> = ids
            .iter()
            .zip(&statuses)
            .filter(|(_, status)| **status == Status::Pending)
            .map(|(id, _)| *id)
            .collect();
        let fills_blocks = shared.pending.get() >= u64::from(config.transactions_per_block);
        if let Some(wait) = &wait
            && fills_blocks
            && !pending_ids.is_empty()
        {
            // A round that is under way may not have seen them: there must be another.
            shared.work.notify_one();
            // Out of time is no error, nor is a ledger that shuts down: the answer then says pending.
            tokio::select! {
                _ = time::timeout(seal_wait, wait.settled(&pending_ids)) => {}
                () = shared.stopped() => {}
            }
        }
        let mut mining_failed = None;
        let acknowledgements = ids.into_iter().zip(statuses).map(|(id, status)| {
            let status = match wait.as_ref().and_then(|wait| wait.outcome(&id)) {
                Some(Outcome::Sealed(place)) => Status::Sealed(place),
                Some(Outcome::MiningFailed { attempts }) if status == Status::Pending => {
                    mining_failed = Some(attempts);
                    status
                }
                _ => status,
            };
            Acknowledgement { id, status }
        });
        Ok(Submission { acknowledgements: acknowledgements.collect(), mining_failed })
    }

    /// Seals what is pending now, in a last block that need not be full, and returns when it is stored. Where mining
    /// gives up, returns the attempts made.
    ///
    /// # Errors
    ///
    /// [`LedgerError::Store`], [`LedgerError::SealedElsewhere`], [`LedgerError::Closed`].
    pub async fn mine_pending(&self) -> Result<Option<u64>, LedgerError> {
        let shared = &self.0.shared;
        let limit = u32::try_from(shared.config.pending_max).unwrap_or(u32::MAX);
        let ids: Vec<_> = shared.store.pending(limit).await?.into_iter().map(|it| it.id).collect();
        let wait = shared.waiting.wait_for(ids.clone());
        // First, so that no round that sees these leaves them in a block that is not full.
        shared.partial_asked.store(true, Ordering::SeqCst);
        wait.admitted(&shared.waiting);
        let mut status = shared.status.subscribe();
        shared.work.notify_one();
        tokio::select! {
            () = wait.settled(&ids) => {}
            () = shared.stopped() => return Err(LedgerError::Closed),
            stopped = status.wait_for(|(_, sealing)| matches!(sealing, Sealing::Elsewhere | Sealing::StoreDown { .. })) => {
                return Err(match &*stopped.map_err(|_| LedgerError::Closed)? {
                    (_, Sealing::StoreDown { reason }) => StoreError::Unavailable(reason.clone()).into(),
                    _ => LedgerError::SealedElsewhere,
                });
            }
        }
        // What a round has stored, it has also shown when it ends.
        drop(self.0.sealer.lock().await);
        Ok(ids.iter().find_map(|id| match wait.outcome(id) {
            Some(Outcome::MiningFailed { attempts }) => Some(attempts),
            _ => None,
        }))
    }

    #[cfg(test)]
    pub(crate) fn sealer(&self) -> &tokio::sync::Mutex<Sealer> {
        &self.0.sealer
    }

    /// Returns the network's rules.
    pub fn rules(&self) -> &Rules {
        &self.0.rules
    }

    /// Returns the hash of the genesis block.
    pub fn genesis(&self) -> BlockHash {
        self.0.genesis
    }

    /// Returns what this node chose.
    pub fn config(&self) -> &LedgerConfig {
        &self.0.shared.config
    }

    /// Returns the store.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.0.shared.store
    }

    /// Returns the state as of now.
    pub fn status(&self) -> LedgerStatus {
        let status = self.0.shared.status.borrow();
        LedgerStatus {
            height: status.0.height(),
            tip: status.0.tip(),
            pending: self.0.shared.pending.get(),
            sealing: status.1.clone(),
        }
    }

    /// Returns a receiver of the blocks that this node mines from now on. One that falls behind by 1,024 misses some.
    pub fn subscribe(&self) -> broadcast::Receiver<SealedBlock> {
        self.0.shared.sealed.subscribe()
    }

    /// Returns a watch that changes whenever the tip or the count of pending transactions may have changed, whoever
    /// changed it; [`Ledger::status`] then tells what it is.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.0.shared.changes.subscribe()
    }

    /// Stops: mining is cancelled, what is being written is written, the right to seal is given up, the store is
    /// closed. What is pending stays pending in the store.
    pub async fn shutdown(&self) {
        let shared = &self.0.shared;
        shared.cancel_mining.store(true, Ordering::Relaxed);
        shared.stopping.send_replace(true);
        let tasks = std::mem::take(&mut *lock(&self.0.tasks));
        for task in tasks {
            // A task that panicked has already said so.
            let _ = task.await;
        }
        shared.store.close().await;
    }
}

impl Shared {
    pub(crate) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Returns once the ledger shuts down.
    pub(crate) async fn stopped(&self) {
        // The sender lives as long as `self`.
        let _ = self.stopping.subscribe().wait_for(|stopping| *stopping).await;
    }

    /// Says what the sealing part is at.
    pub(crate) fn set(&self, sealing: Sealing) {
        self.status.send_if_modified(|status| {
            let changed = status.1 != sealing;
            status.1 = sealing;
            changed
        });
    }
}

async fn open_branch(store: &dyn Store, config: &LedgerConfig) -> Result<Branch, LedgerError> {
    if let Some(branch) = store.branch().await? {
        return Ok(branch);
    }
    let rules = Rules {
        network: config.network.clone(),
        seal: SealRule::OnCount,
        difficulty: config.difficulty,
        unsigned: config.unsigned,
        timestamp_ms: now_ms(),
    };
    match store.create(&rules.genesis_block()?).await {
        // Another receiver on the same store was a moment faster: its genesis block is the chain's.
        Ok(()) | Err(StoreError::AlreadyCreated) => {}
        Err(error) => return Err(error.into()),
    }
    let missing = || StoreError::Corrupt("the genesis block is gone right after it was written".to_owned());
    Ok(store.branch().await?.ok_or_else(missing)?)
}

/// Statements that were verified at admission, so that sealing need not verify them again.
#[derive(Default)]
pub(crate) struct VerifiedCache {
    statements: HashMap<TransactionId, VerifiedStatement>,
    bytes: usize,
}

impl VerifiedCache {
    /// Returns the bytes that a statement takes.
    pub(crate) fn size(statement: &VerifiedStatement) -> usize {
        statement.statement().payload.len() + statement.statement().signature.len()
    }

    fn extend<'a>(&mut self, statements: impl Iterator<Item = &'a VerifiedStatement>) {
        for statement in statements {
            let size = Self::size(statement);
            if self.bytes + size <= CACHE_BYTES_MAX
                && let Entry::Vacant(vacant) = self.statements.entry(statement.id())
            {
                vacant.insert(statement.clone());
                self.bytes += size;
            }
        }
    }

    pub(crate) fn get(&self, id: &TransactionId) -> Option<VerifiedStatement> {
        self.statements.get(id).cloned()
    }

    pub(crate) fn remove_all(&mut self, ids: impl IntoIterator<Item = TransactionId>) {
        for id in ids {
            if let Some(statement) = self.statements.remove(&id) {
                self.bytes -= Self::size(&statement);
            }
        }
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Shares commits: takes all requests that wait, and admits them in one.
async fn admit(
    shared: Arc<Shared>,
    sealer: Arc<tokio::sync::Mutex<Sealer>>,
    mut queue: mpsc::Receiver<Admission>,
) {
    let mut next = None;
    loop {
        let first = match next.take() {
            Some(admission) => admission,
            None => tokio::select! {
                admission = queue.recv() => match admission {
                    Some(admission) => admission,
                    None => return,
                },
                () = shared.stopped() => return,
            },
        };
        let (mut size, mut bytes) = (first.transactions.len(), first.bytes());
        let mut batch = vec![first];
        while let Ok(admission) = queue.try_recv() {
            size += admission.transactions.len();
            bytes += admission.bytes();
            if size > ADMIT_MAX || bytes > ADMIT_BYTES_MAX {
                next = Some(admission);
                break;
            }
            batch.push(admission);
        }
        batch.retain(|admission| !admission.reply.is_closed());
        let batch = seal_directly(&sealer, batch).await;
        admit_batch(&shared, &sealer, batch).await;
        if shared.is_stopping() {
            return;
        }
    }
}

/// Has the first lists sealed as they come, where that is possible, and returns those that go the long way.
async fn seal_directly(sealer: &tokio::sync::Mutex<Sealer>, mut batch: Vec<Admission>) -> Vec<Admission> {
    // Held by a round, there is something to seal already.
    let Ok(mut sealer) = sealer.try_lock() else { return batch };
    let lists = batch.iter().map(|admission| &admission.transactions[..]);
    let Some(fill) = sealer.fill(lists) else { return batch };
    let Some(places) = sealer.seal_directly(&fill).await else { return batch };
    drop(sealer);
    let rest = batch.split_off(fill.lists);
    let mut statuses = places.into_iter().map(Status::Sealed);
    for admission in batch {
        let statuses = statuses.by_ref().take(admission.transactions.len()).collect();
        // Who asked may be gone; the transactions are durable all the same.
        let _ = admission.reply.send(Ok(Taken { statuses, wait: None }));
    }
    rest
}

async fn admit_batch(shared: &Shared, sealer: &tokio::sync::Mutex<Sealer>, mut batch: Vec<Admission>) {
    let transactions: Vec<Vec<_>> = batch.iter_mut().map(|it| std::mem::take(&mut it.transactions)).collect();
    // Before the commit, so that no outcome is missed.
    let waits: Vec<_> = transactions
        .iter()
        .map(|list| {
            let distinct: HashSet<_> = list.iter().map(|it| it.statement.id()).collect();
            shared.waiting.wait_for(distinct.into_iter().collect())
        })
        .collect();
    let lengths: Vec<_> = transactions.iter().map(Vec::len).collect();
    let transactions: Vec<_> = transactions.into_iter().flatten().collect();
    if transactions.is_empty() {
        return;
    }
    // Before the commit: the sealing part may be done with them right after it.
    lock(&shared.verified).extend(transactions.iter().map(|it| &it.statement));
    shared.pending.begin_admission();
    let admitted = shared.store.admit(&transactions, now_ms()).await;
    let is_unknown = matches!(admitted, Err(StoreError::CommitUnknown(_)));
    let admitted = match admitted {
        // Unknown is looked up, and only then decided.
        Err(StoreError::CommitUnknown(reason)) => look_up(shared, &transactions, reason).await,
        admitted => admitted.map(|admitted| (admitted.statuses, admitted.new)),
    };
    let (before, after) = shared.pending.end_admission(admitted.as_ref().map_or(0, |(_, new)| *new));
    shared.changes.send_replace(());
    let is_pending =
        |place: usize| admitted.as_ref().is_ok_and(|(statuses, _)| statuses[place] == Status::Pending);
    let not_pending = transactions.iter().enumerate().filter(|(place, _)| !is_pending(*place));
    lock(&shared.verified).remove_all(not_pending.map(|(_, transaction)| transaction.statement.id()));
    match admitted {
        Ok((statuses, new)) => {
            // Held by a round, it looks itself, or finds that it has not seen these.
            if let Ok(mut sealer) = sealer.try_lock() {
                let pending: Vec<_> = transactions
                    .iter()
                    .zip(&statuses)
                    .filter(|(_, status)| **status == Status::Pending)
                    .map(|(transaction, _)| transaction.statement.id())
                    .collect();
                // Of those that were looked up it is not known which are new.
                sealer.admitted(if is_unknown { None } else { Some(new) }, &pending);
            }
            let mut statuses = statuses.into_iter();
            for ((admission, length), wait) in batch.into_iter().zip(lengths).zip(waits) {
                wait.admitted(&shared.waiting);
                let statuses = statuses.by_ref().take(length).collect();
                // Who asked may be gone; the transactions are durable all the same.
                let _ = admission.reply.send(Ok(Taken { statuses, wait: Some(wait) }));
            }
            let fills_block = after >= i64::from(shared.config.transactions_per_block);
            if fills_block || (before <= 0 && shared.config.block_max_age.is_some()) {
                shared.work.notify_one();
            }
        }
        Err(error) => {
            tracing::error!(%error, transactions = transactions.len(), "transactions were not admitted");
            let reason = match error {
                StoreError::Unavailable(reason) => reason,
                error => error.to_string(),
            };
            for admission in batch {
                let _ = admission.reply.send(Err(StoreError::Unavailable(reason.clone()).into()));
            }
        }
    }
}

/// Finds out what became of an admission whose commit failed.
async fn look_up(
    shared: &Shared,
    transactions: &[NewTransaction],
    reason: String,
) -> Result<(Vec<Status>, u64), StoreError> {
    let ids: Vec<_> = transactions.iter().map(|it| it.statement.id()).collect();
    let statuses: Option<Vec<_>> = shared.store.look_up(&ids).await?.into_iter().collect();
    match statuses {
        Some(statuses) => {
            // How many were new is not known any more: all of them, until the next round counts.
            let new = statuses.iter().filter(|status| **status == Status::Pending).count();
            shared.work.notify_one();
            Ok((statuses, new as u64))
        }
        None => Err(StoreError::Unavailable(reason)),
    }
}
