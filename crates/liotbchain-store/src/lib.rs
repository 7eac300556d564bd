//! Where a chain is kept: in memory, in SQLite or in PostgreSQL, behind one [`Store`].
//!
//! A store keeps checked blocks and pending transactions, and knows no rule of the chain. The three share no code on
//! purpose: what they must have in common is written down as one conformance suite that all of them pass.
//!
//! **Acknowledged means durable.** A method that writes returns `Ok` only after a commit that survives `kill -9` and power
//! loss. An error that came at COMMIT is [`StoreError::CommitUnknown`]: the caller looks up, then decides.

pub mod memory;
pub mod postgres;
pub mod sqlite;

use std::{collections::HashMap, ops::Range, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use liotbchain_core::{
    Block, BlockHash, Branch, CheckedBlock, Content, ContentHash, Header, Height, KeyId, PublicKey,
    Statement, TimestampMs, Transaction, TransactionId, VerifiedStatement, Work,
};

/// Keeps one chain and what waits to enter it.
///
/// The best chain's blocks are keyed by height; blocks that a reorganisation took off it are kept apart as raw bytes.
/// A transaction has one row for ever: sealing gives it a place, a reorganisation takes the place away.
///
/// **Pruned transactions** keep their row, with its id, so that a repeated submission is known. Their payload is empty
/// there, and the content hash stands where the signature was. One that came in a block without its payload has no id: its
/// row has the hash of its leaf instead, which no statement has for an id.
#[async_trait]
pub trait Store: Send + Sync {
    /// Returns what a person may see of where the chain is kept, without a password.
    fn location(&self) -> String;

    /// Returns a sentence about what was found beside our own data and left untouched, such as tables of the Python
    /// original.
    fn notice(&self) -> Option<String>;

    /// Returns once the store answers.
    async fn ping(&self) -> Result<(), StoreError>;

    /// Writes the genesis block into an empty store.
    ///
    /// # Errors
    ///
    /// [`StoreError::AlreadyCreated`] where a chain is kept already, also if another process was a moment faster.
    async fn create(&self, genesis: &CheckedBlock) -> Result<(), StoreError>;

    /// Returns the best chain as its tip knows it; none while the store is empty. Costs O(log height).
    ///
    /// # Errors
    ///
    /// [`StoreError::Corrupt`] where the tip's row contradicts itself.
    async fn branch(&self) -> Result<Option<Branch>, StoreError>;

    /// Makes transactions pending in one commit, with their keys, and returns for each its status from then on: that of
    /// the first submission where the id is known already. The same id may stand twice in the list.
    async fn admit(
        &self,
        transactions: &[NewTransaction],
        now_ms: TimestampMs,
    ) -> Result<Admitted, StoreError>;

    /// Returns the status of each id, none where it is not known.
    async fn look_up(&self, ids: &[TransactionId]) -> Result<Vec<Option<Status>>, StoreError>;

    /// Returns ids that are known, pending and sealed, in their order from `from` on, as the index that finds a
    /// transaction by its id has them: for a validation, to see that it has all. A damaged index may have one twice.
    async fn ids(&self, from: TransactionId, limit: u32) -> Result<Vec<TransactionId>, StoreError>;

    /// Returns pending transactions in the order of their arrival, the oldest first.
    async fn pending(&self, limit: u32) -> Result<Vec<Pending>, StoreError>;

    /// Returns how many transactions are pending, counting no further than `limit`.
    async fn pending_count(&self, limit: u64) -> Result<u64, StoreError>;

    /// Returns the statement of each id that is known and not pruned.
    async fn statements(
        &self,
        ids: &[TransactionId],
    ) -> Result<HashMap<TransactionId, Statement>, StoreError>;

    /// Returns a transaction with its place, if its id is known.
    async fn transaction(&self, id: TransactionId) -> Result<Option<StoredTransaction>, StoreError>;

    /// Returns for each key how many transactions the best chain holds; 0 for a key that it does not know.
    async fn next_sequences(&self, key_ids: &[KeyId]) -> Result<HashMap<KeyId, u64>, StoreError>;

    /// Returns the public keys that are known.
    ///
    /// # Errors
    ///
    /// [`StoreError::Corrupt`] where a stored key is none.
    async fn public_keys(&self, key_ids: &[KeyId]) -> Result<HashMap<KeyId, PublicKey>, StoreError>;

    /// Returns the public keys that are known in the order of their ids, from the first behind `after` on.
    ///
    /// # Errors
    ///
    /// [`StoreError::Corrupt`] where a stored key is none.
    async fn keys(&self, after: Option<KeyId>, limit: u32) -> Result<Vec<KnownKey>, StoreError>;

    /// Makes public keys known, for blocks that come from elsewhere.
    async fn add_keys(&self, keys: &[PublicKey]) -> Result<(), StoreError>;

    /// Takes the right to seal for `ttl`, by the store's clock, if nobody else holds it. The same holder takes it again
    /// under a new epoch, so that its earlier self can write no more. None while another holder has it.
    async fn acquire_right(&self, holder: &str, ttl: Duration) -> Result<Option<Right>, StoreError>;

    /// Prolongs the right to `ttl` from now.
    ///
    /// # Errors
    ///
    /// [`StoreError::RightLost`] where another holder or epoch has it.
    async fn renew_right(&self, right: &Right, ttl: Duration) -> Result<(), StoreError>;

    /// Gives the right up. Does nothing where it is lost already.
    async fn release_right(&self, right: &Right) -> Result<(), StoreError>;

    /// Moves the best chain in one commit: compares the tip, takes `disconnect` blocks off it, puts `connect` on it.
    ///
    /// Transactions of disconnected blocks become pending again, at the place in the order that they had, unless a
    /// connected block holds them; the blocks themselves are kept as side blocks. Transactions of connected blocks that
    /// were pending get their place, and the signature that the block holds, which may be another one of the same
    /// statement; others are inserted. Their keys must be known.
    ///
    /// A pruned transaction of a disconnected block has nothing left that could wait: its row is deleted, and its side
    /// block keeps what is left of it.
    ///
    /// # Errors
    ///
    /// [`StoreError::TipMoved`], [`StoreError::RightLost`] and [`StoreError::AlreadySealed`], with nothing changed.
    async fn commit(
        &self,
        right: &Right,
        expected_tip: BlockHash,
        disconnect: u32,
        connect: &[CheckedBlock],
    ) -> Result<(), StoreError>;

    /// Puts blocks on the best chain, as [`Store::commit`] does, that hold all that is pending: changes nothing where more
    /// than `pending` transactions wait. So nothing is overtaken that another process admitted.
    ///
    /// # Errors
    ///
    /// As [`Store::commit`], and [`StoreError::MorePending`].
    async fn commit_all(
        &self,
        right: &Right,
        expected_tip: BlockHash,
        pending: u32,
        connect: &[CheckedBlock],
    ) -> Result<(), StoreError>;

    /// Returns blocks of the best chain from a height upwards: at least one if there is any, at most `limit`, and no
    /// more after transactions of `bytes` bytes were read, so that memory is bounded. All from one snapshot.
    async fn blocks(&self, from: Height, limit: u32, bytes: usize) -> Result<Vec<StoredBlock>, StoreError>;

    /// Returns headers of blocks of the best chain from a height upwards, without their transactions. All from one snapshot.
    async fn headers(&self, from: Height, limit: u32) -> Result<Vec<Header>, StoreError>;

    /// Returns the height of a block of the best chain.
    async fn height_of(&self, hash: BlockHash) -> Result<Option<Height>, StoreError>;

    /// Returns nodes of the Merkle tree over the hashes of all blocks of the best chain, by level and place on it; on level 0
    /// are the leaf hashes. None where the best chain does not complete the node. All from one snapshot.
    async fn history_nodes(&self, places: &[(u8, u64)]) -> Result<Vec<Option<[u8; 32]>>, StoreError>;

    /// Returns heights of the blocks of the best chain that hold transactions of a key, from a height upwards.
    async fn key_heights(&self, key_id: KeyId, from: Height, limit: u32) -> Result<Vec<Height>, StoreError>;

    /// Returns the height of the last block below a height that holds transactions of a key.
    async fn key_height_below(&self, key_id: KeyId, height: Height) -> Result<Option<Height>, StoreError>;

    /// Returns a block that is not on the best chain, as [`liotbchain_core::codec::encode_kept_block`] writes it: its
    /// canonical bytes, unless some of it was pruned.
    async fn side_block(&self, hash: BlockHash) -> Result<Option<Vec<u8>>, StoreError>;

    /// Returns what [`Store::prune`] would drop, and changes nothing.
    async fn prunable(
        &self,
        key_id: KeyId,
        heights: Range<Height>,
        limit: u32,
    ) -> Result<PruneStep, StoreError>;

    /// Drops payload and signature of a key's transactions, and keeps their content hashes, in one commit: in the blocks of
    /// these heights from the first one on, whole blocks, until `limit` transactions of whatever key were looked at. The
    /// genesis block is left as it is. What is pruned already counts for nothing.
    ///
    /// Goes well beside a receiver that seals: each waits for the other's commit.
    async fn prune(&self, key_id: KeyId, heights: Range<Height>, limit: u32)
    -> Result<PruneStep, StoreError>;

    /// Drops the same from the blocks below a height that are not on the best chain, and returns of how many transactions.
    async fn prune_side_blocks(&self, key_id: KeyId, below: Height) -> Result<u64, StoreError>;

    /// Returns how many bytes of disk the chain takes, or of memory, about.
    async fn size(&self) -> Result<u64, StoreError>;

    /// Gives back the disk space of what was dropped, however long that takes. `full` makes PostgreSQL give it to the
    /// operating system, while everybody else waits; else it keeps it for what is to come.
    async fn compact(&self, full: bool) -> Result<(), StoreError>;

    /// Returns when another process may have changed the store: admitted transactions, or moved the best chain. May
    /// return for nothing; a change may go unsaid while a connection is down, so callers also look from time to time.
    async fn changed(&self) {
        // Where one process has the store, there is no other.
        std::future::pending().await
    }

    /// Closes the store: waits for what is being written, and frees files and connections.
    async fn close(&self);
}

/// A transaction that was verified, on its way into the store.
#[derive(Debug, Clone)]
pub struct NewTransaction {
    /// What was verified.
    pub statement: VerifiedStatement,
    /// The key that verified it; none where it is unsigned.
    pub public_key: Option<PublicKey>,
}

/// What an admission brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// One a transaction, in the order given.
    pub statuses: Vec<Status>,
    /// How many of the ids were not known before.
    pub new: u64,
}

/// Whether a transaction is on the best chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It waits.
    Pending,
    /// It stands here.
    Sealed(Place),
}

/// A place on the best chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The block's height.
    pub height: Height,
    /// The place in the block, from 0.
    pub position: u32,
    /// The block's hash.
    pub block_hash: BlockHash,
}

/// A transaction that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pending {
    /// Its id.
    pub id: TransactionId,
    /// When it was first admitted.
    pub received_ms: TimestampMs,
}

/// A transaction as its row says, unchecked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredTransaction {
    /// What was said, or what is left of it.
    pub content: Content,
    /// When it was first admitted; the block's timestamp where it came in a block.
    pub received_ms: TimestampMs,
    /// Its place on the best chain, none while it waits.
    pub place: Option<Place>,
    /// Its number among all of its key, none while it waits.
    pub sequence: Option<u64>,
}

/// What a step of a pruning dropped, or would drop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PruneStep {
    /// How many transactions.
    pub transactions: u64,
    /// Bytes of their payloads and signatures.
    pub bytes: u64,
    /// Numbers of the first and the last of them among all of their key.
    pub sequences: Option<(u64, u64)>,
    /// The height to go on from; none where all was looked at.
    pub next: Option<Height>,
}

impl PruneStep {
    /// Adds a transaction that stands behind the others.
    pub(crate) fn add(&mut self, sequence: u64, bytes: u64) {
        self.transactions += 1;
        self.bytes += bytes;
        self.sequences = Some((self.sequences.map_or(sequence, |(first, _)| first), sequence));
    }
}

/// Returns what stands in a row for the id of a transaction that came pruned: the hash of its leaf. Like an id, no other
/// transaction of the branch has it.
pub(crate) fn id_in_row(transaction: &Transaction, id: Option<TransactionId>) -> TransactionId {
    id.unwrap_or_else(|| TransactionId(transaction.leaf_hash()))
}

/// Prunes a key's transactions in a block, and returns how many there were.
pub(crate) fn prune_block(block: &mut Block, key_id: &KeyId) -> u64 {
    let mut pruned = 0;
    for transaction in &mut block.transactions {
        if let Content::Full(statement) = &transaction.content
            && statement.key_id == *key_id
        {
            let content_hash = statement.content_hash();
            transaction.content = Content::Pruned { key_id: *key_id, content_hash };
            pruned += 1;
        }
    }
    pruned
}

/// Returns what the columns `payload` and `signature` say: a payload is never empty, so an empty one was pruned.
///
/// # Errors
///
/// What is wrong with it.
pub(crate) fn read_content(key_id: KeyId, payload: String, signature: Vec<u8>) -> Result<Content, String> {
    if !payload.is_empty() {
        return Ok(Content::Full(Arc::new(Statement { key_id, payload, signature })));
    }
    match <[u8; 32]>::try_from(&signature[..]) {
        Ok(hash) => Ok(Content::Pruned { key_id, content_hash: ContentHash(hash) }),
        Err(_) => Err(format!("pruned, with a content hash of {} bytes: expected 32", signature.len())),
    }
}

/// Returns what is to stand in the columns `payload` and `signature`.
pub(crate) fn columns(content: &Content) -> (&str, &[u8]) {
    match content {
        Content::Full(statement) => (&statement.payload, &statement.signature),
        Content::Pruned { content_hash, .. } => ("", &content_hash.0),
    }
}

/// Returns the bytes that a transaction takes in memory, about: beside its payload and signature there are its ids and
/// what allocations cost.
pub(crate) fn size_in_memory(content: &Content) -> usize {
    const REST: usize = 256;
    let (payload, signature) = columns(content);
    payload.len() + signature.len() + REST
}

/// A public key that the store knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownKey {
    /// The key.
    pub public_key: PublicKey,
    /// How many of its transactions the best chain holds.
    pub transactions: u64,
}

/// The right to seal: one holder at a time moves the best chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Right {
    /// Who holds it.
    pub holder: String,
    /// How often it was taken: fences off an earlier holder that does not know yet.
    pub epoch: u64,
}

/// A block as its rows say, unchecked: a validation compares all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredBlock {
    /// The hash that the row says.
    pub hash: BlockHash,
    /// The work that the row says, of this block and all below.
    pub total_work: Work,
    /// Header and transactions.
    pub block: Block,
    /// The ids that the rows say, none for a pruned transaction.
    pub ids: Vec<Option<TransactionId>>,
}

/// Why a store did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store cannot be reached or written now. Nothing was changed; it may be back later.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// The store failed while it committed: whether the change is there must be looked up.
    #[error("the store failed at commit: {0}")]
    CommitUnknown(String),
    /// The best chain's tip is another one.
    #[error("the tip is {got}: expected {expected}")]
    TipMoved {
        /// The tip that the caller knows.
        expected: BlockHash,
        /// The tip that is stored.
        got: BlockHash,
    },
    /// Another holder or epoch has the right to seal.
    #[error("the right to seal was lost to another receiver")]
    RightLost,
    /// A transaction of the blocks to connect stands on the best chain already.
    #[error("a transaction of the blocks to connect stands on the chain already")]
    AlreadySealed,
    /// More transactions wait than the caller knows of.
    #[error("more than {expected} transactions wait")]
    MorePending {
        /// How many the caller knows of.
        expected: u32,
    },
    /// A chain is kept already.
    #[error("the store holds a chain already")]
    AlreadyCreated,
    /// The store was written by a newer version.
    #[error(
        "the store has format {found}, this version knows up to {known}: use a newer liotbchain, or another DATABASE_URL"
    )]
    Newer {
        /// The format found.
        found: i64,
        /// The newest that this version knows.
        known: i64,
    },
    /// The place holds the chain of the Python original, whose tables have the names of ours.
    #[error(
        "{location} holds a chain of the Python liotbchain; it was left untouched: choose another DATABASE_URL"
    )]
    Original {
        /// Where.
        location: String,
    },
    /// What is stored contradicts itself.
    #[error("the store is damaged: {0}")]
    Corrupt(String),
    /// The store cannot be used as it is configured.
    #[error("{problem}")]
    Config {
        /// What is wrong.
        problem: String,
        /// What to do.
        cure: String,
    },
}

/// How to open a store.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// Accept several PostgreSQL hosts without synchronous replication.
    pub allow_lossy_failover: bool,
    /// Longest time for one operation before it counts as failed.
    pub timeout: Duration,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self { allow_lossy_failover: false, timeout: Duration::from_secs(10) }
    }
}

/// Opens the store that a `DATABASE_URL` names: `sqlite:FILE` (relative to `data_dir`), `memory:`, `postgres://…`,
/// `postgresql://…` or a libpq string such as `host=… dbname=…`.
///
/// # Errors
///
/// [`StoreError`] says what is wrong and what to do.
pub async fn open(
    database_url: &str,
    data_dir: &Path,
    options: &OpenOptions,
) -> Result<Arc<dyn Store>, StoreError> {
    if database_url == "memory:" {
        return Ok(Arc::new(memory::MemoryStore::default()));
    }
    if let Some(file) = database_url.strip_prefix("sqlite:") {
        // sqlite:name, sqlite:/absolute and, as other programs write it, sqlite:///absolute.
        let file = file.strip_prefix("//").unwrap_or(file);
        return Ok(Arc::new(sqlite::SqliteStore::open(&data_dir.join(file), options).await?));
    }
    let is_postgres = database_url.starts_with("postgres://") || database_url.starts_with("postgresql://");
    if is_postgres || (database_url.contains('=') && !database_url.contains("://")) {
        return Ok(Arc::new(postgres::PostgresStore::open(database_url, options).await?));
    }
    Err(StoreError::Config {
        problem: "DATABASE_URL names no store that is known".to_owned(),
        cure: "use sqlite:FILE, postgres://USER@HOST/DATABASE, or a libpq string such as host=… dbname=…"
            .to_owned(),
    })
}
