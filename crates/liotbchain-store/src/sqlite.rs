//! The store in one SQLite file: what a first run, a laptop or a Raspberry Pi needs, with nothing to install.
//!
//! One thread writes, a few connections read snapshots, another thread copies the write-ahead log back. A commit is on the
//! disk when it returns (`synchronous = FULL`). After an error the file is opened again, so that the store works as soon as
//! there is space, or the file is back. The tables are in `sqlite/migrations`; the views `chain`, `readings` and
//! `waiting` show them to a person with `sqlite3`.
//!
//! Timestamps and sequences are kept as SQLite's signed numbers with the same 64 bits: one above 2^63 - 1 reads as a
//! negative number there, and comes back as it was.

mod admission;
mod best_chain;
mod checkpoint;
mod connection;
mod format;
mod prune;
mod readers;
mod rows;
mod seal_right;
mod writer;

use std::{
    collections::HashMap,
    ops::Range,
    path::{self, Path},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use async_trait::async_trait;
use liotbchain_core::{
    BlockHash, Branch, CheckedBlock, Header, Height, KeyId, PublicKey, Statement, TimestampMs, TransactionId,
};
use tokio::task;

use crate::{
    Admitted, KnownKey, NewTransaction, OpenOptions, Pending, PruneStep, Right, Status, Store, StoreError,
    StoredBlock, StoredTransaction,
};
use connection::Place;
use readers::Readers;
use writer::WriterHandle;

/// Keeps a chain in a SQLite file.
pub struct SqliteStore {
    place: Place,
    readers: Readers,
    writer: Arc<WriterHandle>,
    checkpointer: Mutex<Option<JoinHandle<()>>>,
}

impl SqliteStore {
    /// Opens the file, or creates it with its folder where it is missing.
    ///
    /// # Errors
    ///
    /// [`StoreError::Config`] where it cannot be written or is no SQLite database of ours, [`StoreError::Original`] where it
    /// holds a chain of the Python original, [`StoreError::Newer`] where a later version wrote it,
    /// [`StoreError::Corrupt`] where it is damaged. Such a file is left as it is.
    pub async fn open(path: &Path, options: &OpenOptions) -> Result<Self, StoreError> {
        let path = path::absolute(path).map_err(|error| StoreError::Config {
            problem: format!("{} is no path: {error}", path.display()),
            cure: "name a file in DATABASE_URL, such as sqlite:liotbchain.db".to_owned(),
        })?;
        let place = Place { path, timeout: options.timeout };
        let opened = task::spawn_blocking(move || {
            format::prepare(&place)?;
            let (wakeup, checkpointer) = checkpoint::start(place.clone())?;
            let writer = Arc::new(WriterHandle::start(place.clone(), wakeup)?);
            let checkpointer = Mutex::new(Some(checkpointer));
            Ok(Self { readers: Readers::new(place.clone()), place, writer, checkpointer })
        });
        opened.await.map_err(|error| StoreError::Unavailable(error.to_string()))?
    }
}

#[async_trait]
impl Store for SqliteStore {
    fn location(&self) -> String {
        format!("sqlite:{}", self.place.path.display())
    }

    fn notice(&self) -> Option<String> {
        None
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.readers.read(|connection| format::check(connection).map(|_| ())).await
    }

    async fn create(&self, genesis: &CheckedBlock) -> Result<(), StoreError> {
        let genesis = genesis.clone();
        self.writer.transact(move |connection| best_chain::create(connection, &genesis)).await
    }

    async fn branch(&self) -> Result<Option<Branch>, StoreError> {
        self.readers.read(rows::branch).await
    }

    async fn admit(
        &self,
        transactions: &[NewTransaction],
        now_ms: TimestampMs,
    ) -> Result<Admitted, StoreError> {
        let transactions = transactions.to_vec();
        self.writer.transact(move |connection| admission::admit(connection, &transactions, now_ms)).await
    }

    async fn look_up(&self, ids: &[TransactionId]) -> Result<Vec<Option<Status>>, StoreError> {
        let ids = ids.to_vec();
        self.readers.read(move |connection| rows::look_up(connection, &ids)).await
    }

    async fn ids(&self, from: TransactionId, limit: u32) -> Result<Vec<TransactionId>, StoreError> {
        self.readers.read(move |connection| rows::ids(connection, from, limit)).await
    }

    async fn pending(&self, limit: u32) -> Result<Vec<Pending>, StoreError> {
        self.readers.read(move |connection| rows::pending(connection, limit)).await
    }

    async fn pending_count(&self, limit: u64) -> Result<u64, StoreError> {
        self.readers.read(move |connection| rows::pending_count(connection, limit)).await
    }

    async fn statements(
        &self,
        ids: &[TransactionId],
    ) -> Result<HashMap<TransactionId, Statement>, StoreError> {
        let ids = ids.to_vec();
        self.readers.read(move |connection| rows::statements(connection, &ids)).await
    }

    async fn transaction(&self, id: TransactionId) -> Result<Option<StoredTransaction>, StoreError> {
        self.readers.read(move |connection| rows::transaction(connection, id)).await
    }

    async fn next_sequences(&self, key_ids: &[KeyId]) -> Result<HashMap<KeyId, u64>, StoreError> {
        let key_ids = key_ids.to_vec();
        self.readers.read(move |connection| rows::next_sequences(connection, &key_ids)).await
    }

    async fn public_keys(&self, key_ids: &[KeyId]) -> Result<HashMap<KeyId, PublicKey>, StoreError> {
        let key_ids = key_ids.to_vec();
        self.readers.read(move |connection| rows::public_keys(connection, &key_ids)).await
    }

    async fn keys(&self, after: Option<KeyId>, limit: u32) -> Result<Vec<KnownKey>, StoreError> {
        self.readers.read(move |connection| rows::keys(connection, after, limit)).await
    }

    async fn add_keys(&self, keys: &[PublicKey]) -> Result<(), StoreError> {
        let keys = keys.to_vec();
        self.writer.transact(move |connection| admission::add_keys(connection, &keys)).await
    }

    async fn acquire_right(&self, holder: &str, ttl: Duration) -> Result<Option<Right>, StoreError> {
        let holder = holder.to_owned();
        self.writer.transact(move |connection| seal_right::acquire(connection, &holder, ttl)).await
    }

    async fn renew_right(&self, right: &Right, ttl: Duration) -> Result<(), StoreError> {
        let right = right.clone();
        self.writer.transact(move |connection| seal_right::renew(connection, &right, ttl)).await
    }

    async fn release_right(&self, right: &Right) -> Result<(), StoreError> {
        let right = right.clone();
        self.writer.transact(move |connection| seal_right::release(connection, &right)).await
    }

    async fn commit(
        &self,
        right: &Right,
        expected_tip: BlockHash,
        disconnect: u32,
        connect: &[CheckedBlock],
    ) -> Result<(), StoreError> {
        let (right, connect) = (right.clone(), connect.to_vec());
        let work =
            move |connection: &_| best_chain::commit(connection, &right, expected_tip, disconnect, &connect);
        self.writer.transact(work).await
    }

    async fn commit_all(
        &self,
        right: &Right,
        expected_tip: BlockHash,
        pending: u32,
        connect: &[CheckedBlock],
    ) -> Result<(), StoreError> {
        let (right, connect) = (right.clone(), connect.to_vec());
        let work = move |connection: &_| {
            if rows::pending_count(connection, u64::from(pending) + 1)? > u64::from(pending) {
                return Err(StoreError::MorePending { expected: pending });
            }
            best_chain::commit(connection, &right, expected_tip, 0, &connect)
        };
        self.writer.transact(work).await
    }

    async fn blocks(&self, from: Height, limit: u32, bytes: usize) -> Result<Vec<StoredBlock>, StoreError> {
        self.readers.read(move |connection| rows::blocks(connection, from, limit, bytes)).await
    }

    async fn headers(&self, from: Height, limit: u32) -> Result<Vec<Header>, StoreError> {
        self.readers.read(move |connection| rows::headers(connection, from, limit)).await
    }

    async fn height_of(&self, hash: BlockHash) -> Result<Option<Height>, StoreError> {
        self.readers.read(move |connection| rows::height_of(connection, hash)).await
    }

    async fn history_nodes(&self, places: &[(u8, u64)]) -> Result<Vec<Option<[u8; 32]>>, StoreError> {
        let places = places.to_vec();
        self.readers.read(move |connection| rows::history_nodes(connection, &places)).await
    }

    async fn key_heights(&self, key_id: KeyId, from: Height, limit: u32) -> Result<Vec<Height>, StoreError> {
        self.readers.read(move |connection| rows::key_heights(connection, key_id, from, limit)).await
    }

    async fn key_height_below(&self, key_id: KeyId, height: Height) -> Result<Option<Height>, StoreError> {
        self.readers.read(move |connection| rows::key_height_below(connection, key_id, height)).await
    }

    async fn side_block(&self, hash: BlockHash) -> Result<Option<Vec<u8>>, StoreError> {
        self.readers.read(move |connection| rows::side_block(connection, hash)).await
    }

    async fn prunable(
        &self,
        key_id: KeyId,
        heights: Range<Height>,
        limit: u32,
    ) -> Result<PruneStep, StoreError> {
        self.readers.read(move |connection| prune::prunable(connection, &key_id, heights, limit)).await
    }

    async fn prune(
        &self,
        key_id: KeyId,
        heights: Range<Height>,
        limit: u32,
    ) -> Result<PruneStep, StoreError> {
        self.writer.transact(move |connection| prune::prune(connection, &key_id, heights, limit)).await
    }

    async fn prune_side_blocks(&self, key_id: KeyId, below: Height) -> Result<u64, StoreError> {
        self.writer.transact(move |connection| prune::prune_side_blocks(connection, &key_id, below)).await
    }

    async fn size(&self) -> Result<u64, StoreError> {
        prune::size(&self.place.path)
    }

    async fn compact(&self, _full: bool) -> Result<(), StoreError> {
        let place = self.place.clone();
        let compacted = task::spawn_blocking(move || prune::compact(&place)).await;
        compacted.map_err(|error| StoreError::Unavailable(error.to_string()))?
    }

    async fn close(&self) {
        // In this order, the checkpointer is the last to have the file open, and leaves no log behind.
        self.readers.close().await;
        let writer = Arc::clone(&self.writer);
        let checkpointer = self.checkpointer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let closed = task::spawn_blocking(move || {
            writer.close();
            checkpointer.map(JoinHandle::join)
        });
        if !matches!(closed.await, Ok(None | Some(Ok(())))) {
            tracing::error!("a thread of the SQLite store ended in a panic");
        }
    }
}
