//! A copy of a chain of one's own, of which every rule was checked here: what a witness with `WITNESS_VALIDATE` cosigns.
//!
//! Blocks come from the receiver behind the log, page by page, and each page is checked and stored before the next is asked
//! for, so memory is that of a page and a copy that was broken off goes on where it was. Where the copy has another root
//! than was signed, what lies above the last tree that was cosigned is given up again: a receiver that once answered with
//! other blocks must not spoil the copy for ever.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use liotbchain_core::{
    Ancestry, Block, BlockError, BlockHash, Branch, CheckedBlock, Height, KeyId, PublicKey, Root,
    TransactionId, check, export, rules,
};
use liotbchain_store::{Right, Status, Store, StoreError};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout_at},
};

use crate::{
    remote::{Remote, RemoteError},
    submission::Known,
};

/// Blocks that are asked for at once.
const PAGE_BLOCKS: u32 = 256;
const RIGHT_TTL: Duration = Duration::from_secs(60);
/// Nobody else writes into the copy.
const HOLDER: &str = "witness";

/// Why a checkpoint was not found to be of a chain that holds every rule.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The blocks are not to be had.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// It takes more time. What was checked so far is kept.
    #[error("checked up to block {height} of {size}: ask again")]
    Unfinished {
        /// The last block that was checked.
        height: Height,
        /// Blocks of the checkpoint.
        size: u64,
    },
    /// Another checkpoint of this log is at work.
    #[error("another checkpoint of this log is being checked: ask again")]
    Busy,
    /// The receiver does not serve the block that was signed yet.
    #[error("the receiver has no block {height} yet")]
    Behind {
        /// The block.
        height: Height,
    },
    /// A block lies too far ahead of this clock, which time may cure.
    #[error("block {height}: {error}")]
    Ahead {
        /// The block.
        height: Height,
        /// The rule.
        error: BlockError,
    },
    /// The copy cannot be kept.
    #[error("the copy of the chain: {0}")]
    Store(#[from] StoreError),
    /// The chain breaks a rule, or is another one than was signed.
    #[error("{reason}")]
    Refused {
        /// Which block, which transaction, which rule.
        reason: String,
        /// The block, as an export has it.
        block: Option<String>,
    },
}

impl CopyError {
    fn refused(reason: impl Into<String>) -> Self {
        Self::Refused { reason: reason.into(), block: None }
    }

    fn broken(block: &Block, error: &dyn std::fmt::Display) -> Self {
        let reason = format!("block {}: {error}", block.header.height);
        Self::Refused { reason, block: Some(export::block_line(block).trim_end().to_owned()) }
    }
}

/// A chain, as far as it was copied.
pub struct Copy {
    store: Arc<dyn Store>,
    remote: Remote,
    genesis: BlockHash,
    /// One check at a time.
    turn: Mutex<()>,
    /// What the last check found to hold: whoever repeats a checkpoint costs nothing.
    checked: std::sync::Mutex<Option<Known>>,
}

impl std::fmt::Debug for Copy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Copy({})", self.genesis)
    }
}

impl Copy {
    /// Takes a store, which is empty or holds the beginning of this chain.
    pub fn new(store: Arc<dyn Store>, remote: Remote, genesis: BlockHash) -> Self {
        Self { store, remote, genesis, turn: Mutex::new(()), checked: std::sync::Mutex::default() }
    }

    /// Closes the store.
    pub async fn close(&self) {
        self.store.close().await;
    }

    /// Checks that a root is that of a chain which holds every rule, and copies what is missing of it. `known` was cosigned
    /// before.
    ///
    /// # Errors
    ///
    /// [`CopyError`].
    pub async fn check(
        &self,
        known: Option<Known>,
        size: u64,
        root: Root,
        until: Instant,
    ) -> Result<(), CopyError> {
        if size == 0 {
            return Ok(());
        }
        let wanted = Known { size, root };
        if *self.checked() == Some(wanted) {
            return Ok(());
        }
        let Ok(last) = Height::try_from(size - 1) else {
            return Err(CopyError::refused(format!("no chain has {size} blocks")));
        };
        let _turn = timeout_at(until, self.turn.lock()).await.map_err(|_| CopyError::Busy)?;
        let right = self.store.acquire_right(HOLDER, RIGHT_TTL).await?.ok_or(CopyError::Busy)?;
        let run = Run { copy: self, right, until, last };
        let checked = run.check(known, size, root).await;
        let released = self.store.release_right(&run.right).await;
        checked?;
        *self.checked() = Some(wanted);
        Ok(released?)
    }

    fn checked(&self) -> std::sync::MutexGuard<'_, Option<Known>> {
        self.checked.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// One check.
struct Run<'a> {
    copy: &'a Copy,
    right: Right,
    until: Instant,
    /// The last block that the checkpoint covers.
    last: Height,
}

impl Run<'_> {
    async fn check(&self, known: Option<Known>, size: u64, root: Root) -> Result<(), CopyError> {
        let mut branch = self.begin().await?;
        // What was copied before and is not cosigned yet may be of other blocks than are signed now.
        let floor = self.floor(&branch, known).await?;
        let mut is_fresh = u64::from(branch.height()) < floor;
        loop {
            match self.fetch(branch).await {
                Ok(end) => {
                    let got = self.root_of(&end, size).await?;
                    if got == root {
                        return Ok(());
                    }
                    branch = self.give_up(end, floor).await?;
                    if is_fresh {
                        return Err(CopyError::refused(format!(
                            "the chain that the receiver serves has the root {got} at size {size}, \
                             and the log signed {root}"
                        )));
                    }
                }
                Err(Fetch::OtherParent(end, _)) if !is_fresh => branch = self.give_up(end, floor).await?,
                Err(Fetch::OtherParent(_, block)) => {
                    let error = "prev_block_hash is not the block below that was checked here";
                    return Err(CopyError::broken(&block, &error));
                }
                Err(Fetch::Copy(error)) => return Err(error),
            }
            is_fresh = true;
        }
    }

    /// Returns the chain as far as it was copied, the genesis block at least.
    async fn begin(&self) -> Result<Branch, CopyError> {
        let store = &self.copy.store;
        if let Some(branch) = store.branch().await? {
            return Ok(branch);
        }
        let mut blocks = self.copy.remote.blocks(0, 1).await?;
        let block = blocks.pop().filter(|_| blocks.is_empty()).ok_or(CopyError::Behind { height: 0 })?;
        let (genesis, rules) =
            rules::check_genesis(block.clone()).map_err(|error| CopyError::broken(&block, &error))?;
        if genesis.hash() != self.copy.genesis {
            let error = format!("its hash is {}, and the log is of another chain", genesis.hash());
            return Err(CopyError::broken(&block, &error));
        }
        store.create(&genesis).await?;
        Ok(Branch::new(&genesis, rules))
    }

    /// Returns how many blocks stay whatever comes: those that were cosigned, where the copy has them.
    async fn floor(&self, branch: &Branch, known: Option<Known>) -> Result<u64, CopyError> {
        let Some(known) =
            known.filter(|known| known.size > 1 && known.size <= u64::from(branch.height()) + 1)
        else {
            return Ok(1);
        };
        let is_same = self.root_of(branch, known.size).await? == known.root;
        Ok(if is_same { known.size } else { 1 })
    }

    /// Returns the root over the first blocks of a copy that has them.
    async fn root_of(&self, branch: &Branch, size: u64) -> Result<Root, CopyError> {
        if size == u64::from(branch.height()) + 1 {
            return Ok(branch.history_root());
        }
        let height = Height::try_from(size).unwrap_or(Height::MAX);
        let above = self.copy.store.blocks(height, 1, 0).await?.pop();
        let above = above.filter(|it| it.block.header.height == height);
        let above = above.ok_or_else(|| StoreError::Corrupt(format!("block {height} is missing")))?;
        Ok(above.block.header.history_root)
    }

    async fn fetch(&self, mut branch: Branch) -> Result<Branch, Fetch> {
        while branch.height() < self.last {
            let height = branch.height();
            let size = u64::from(self.last) + 1;
            let next = branch.next_height();
            let wanted = (self.last - height).min(PAGE_BLOCKS);
            let page = timeout_at(self.until, self.copy.remote.blocks(next, wanted)).await;
            let mut page =
                page.map_err(|_| CopyError::Unfinished { height, size })?.map_err(CopyError::from)?;
            page.truncate(wanted as usize);
            match page.first() {
                None => return Err(CopyError::Behind { height: next }.into()),
                Some(first) if first.header.prev_block_hash != branch.tip() => {
                    return Err(Fetch::OtherParent(branch, Box::new(page.swap_remove(0))));
                }
                Some(_) => {}
            }
            branch = self.take(branch, page, size).await?;
        }
        Ok(branch)
    }

    /// Checks a page, and stores what holds every rule.
    async fn take(&self, branch: Branch, page: Vec<Block>, size: u64) -> Result<Branch, CopyError> {
        let store = &self.copy.store;
        let (tip, height) = (branch.tip(), branch.height());
        let (ancestry, new_keys) = timeout_at(self.until, self.ancestry(&page))
            .await
            .map_err(|_| CopyError::Unfinished { height, size })??;
        let checking = tokio::task::spawn_blocking(move || check_page(branch, page, ancestry));
        let Checked { blocks, branch, fault } =
            checking.await.map_err(|error| CopyError::Store(StoreError::Unavailable(error.to_string())))?;
        store.renew_right(&self.right, RIGHT_TTL).await?;
        store.add_keys(&new_keys).await?;
        if !blocks.is_empty() {
            store.commit(&self.right, tip, 0, &blocks).await?;
        }
        fault.map_or(Ok(branch), Err)
    }

    /// Gathers what the rules need to know of the chain below a page.
    async fn ancestry(&self, page: &[Block]) -> Result<(PageAncestry, Vec<PublicKey>), CopyError> {
        let store = &self.copy.store;
        let transactions = || page.iter().flat_map(|block| &block.transactions);
        let key_ids: HashSet<_> = transactions().map(|it| it.key_id()).collect();
        let key_ids: Vec<_> = key_ids.into_iter().collect();
        let mut keys = store.public_keys(&key_ids).await?;
        let mut new_keys = Vec::new();
        for key_id in key_ids.iter().filter(|key_id| **key_id != KeyId::ZERO) {
            if !keys.contains_key(key_id) {
                let key = self.copy.remote.key(*key_id).await?;
                new_keys.push(key.clone());
                keys.insert(*key_id, key);
            }
        }
        let sequences = store.next_sequences(&key_ids).await?;
        let ids: Vec<_> = transactions().filter_map(|it| Some(it.statement()?.id())).collect();
        let found = store.look_up(&ids).await?;
        let is_sealed = |status: &Option<Status>| matches!(status, Some(Status::Sealed(_)));
        let ids = ids.into_iter().zip(found).filter(|(_, status)| is_sealed(status)).map(|(id, _)| id);
        Ok((PageAncestry { keys, sequences, ids: ids.collect() }, new_keys))
    }

    /// Gives up all blocks above the first `floor`.
    async fn give_up(&self, branch: Branch, floor: u64) -> Result<Branch, CopyError> {
        let store = &self.copy.store;
        let mut branch = branch;
        loop {
            let above = (u64::from(branch.height()) + 1).saturating_sub(floor.max(1));
            if above == 0 {
                return Ok(branch);
            }
            let disconnect = u32::try_from(above).unwrap_or(PAGE_BLOCKS).min(PAGE_BLOCKS);
            store.renew_right(&self.right, RIGHT_TTL).await?;
            store.commit(&self.right, branch.tip(), disconnect, &[]).await?;
            branch =
                store.branch().await?.ok_or_else(|| StoreError::Corrupt("the chain is gone".to_owned()))?;
        }
    }
}

/// Why a copy did not grow to its end.
enum Fetch {
    /// The next block does not follow on the copy, which is returned.
    OtherParent(Branch, Box<Block>),
    Copy(CopyError),
}

impl<E: Into<CopyError>> From<E> for Fetch {
    fn from(error: E) -> Self {
        Self::Copy(error.into())
    }
}

struct PageAncestry {
    keys: HashMap<KeyId, PublicKey>,
    sequences: HashMap<KeyId, u64>,
    ids: HashSet<TransactionId>,
}

impl Ancestry for PageAncestry {
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

struct Checked {
    /// Those before the first fault.
    blocks: Vec<CheckedBlock>,
    branch: Branch,
    fault: Option<CopyError>,
}

fn check_page(mut branch: Branch, page: Vec<Block>, mut ancestry: PageAncestry) -> Checked {
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let now_ms = u64::try_from(now_ms).unwrap_or(u64::MAX);
    let mut blocks = Vec::with_capacity(page.len());
    for block in page {
        if let Some(position) = block.transactions.iter().position(|it| it.statement().is_none()) {
            let error = format!("transaction {position}: pruned, so that its signature cannot be checked");
            let fault = Some(CopyError::broken(&block, &error));
            return Checked { blocks, branch, fault };
        }
        match check::check_block(block.clone(), &branch, &ancestry, Some(now_ms)) {
            Ok(checked) => {
                branch.extend(&checked);
                for transaction in checked.transactions() {
                    *ancestry.sequences.entry(transaction.key_id()).or_default() += 1;
                }
                ancestry.ids.extend(checked.ids().iter().flatten());
                blocks.push(checked);
            }
            Err(error) => {
                let height = branch.next_height();
                let fault = match error {
                    BlockError::TimestampAhead { .. } => CopyError::Ahead { height, error },
                    error => CopyError::broken(&block, &error),
                };
                return Checked { blocks, branch, fault: Some(fault) };
            }
        }
    }
    Checked { blocks, branch, fault: None }
}
