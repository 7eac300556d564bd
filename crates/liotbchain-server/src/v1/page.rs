//! A page of blocks: bounded in number and in bytes, whatever stands in them.

use liotbchain_core::{Block, BlockHash, Height};
use liotbchain_store::{Store, StoredBlock};

use super::{
    block_json::BlockJson,
    cursor::{Cursor, Order},
};
use crate::error::ServerError;

/// Bytes of blocks that a page reads at most, but for its last block.
const READ_MAX: usize = 1 << 20;
/// Bytes of JSON that a page writes at most, but for its last block: what a client who stands still costs.
const PAGE_MAX: usize = 128 << 10;
/// Blocks that are asked of the store at once.
const BLOCKS_AT_ONCE: u32 = 64;
/// Bytes of a transaction beside payload and signature, in memory and from the store.
const TRANSACTION_OVERHEAD: usize = 200;
/// Bytes of a block beside its transactions.
const BLOCK_OVERHEAD: usize = 400;

/// Where a page begins and what it holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Walk {
    pub(crate) order: Order,
    /// Height of the first block.
    pub(crate) from: Height,
    /// What the first block must fit to, where it goes on from another page.
    pub(crate) pin: Option<BlockHash>,
    /// Blocks at most.
    pub(crate) limit: u32,
    /// Whether transactions are shown.
    pub(crate) transactions: bool,
    /// Height of the best chain.
    pub(crate) tip: Height,
}

/// What was read.
pub(crate) struct Page {
    /// Blocks in JSON, joined by commas.
    pub(crate) blocks: Vec<u8>,
    /// Where the next page begins, if there is one.
    pub(crate) next: Option<Cursor>,
}

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PageError {
    /// The block that the page goes on from is not on the best chain any more.
    #[error("the walk's last block is not on the best chain any more")]
    Gone,
    /// The chain moved while the page was read.
    #[error("the chain moved while the page was read")]
    Moved,
    /// The store failed, or a block is no JSON.
    #[error(transparent)]
    Server(#[from] ServerError),
}

/// Reads a page of the best chain.
pub(crate) async fn read(store: &dyn Store, walk: Walk) -> Result<Page, PageError> {
    let mut reading =
        Reading { walk, next: Some(walk.from), pin: walk.pin, count: 0, read: 0, blocks: Vec::new() };
    while let Some(next) = reading.next
        && !reading.is_full()
    {
        let blocks = reading.fetch(store, next).await?;
        if blocks.is_empty() {
            // Nothing stands above the tip; what the page goes on from must still be that.
            if reading.count == 0
                && let Some(pin) = reading.pin
            {
                let height = store.height_of(pin).await.map_err(ServerError::from)?;
                if height.is_none() {
                    return Err(PageError::Gone);
                }
            }
            break;
        }
        for block in &blocks {
            reading.add(block)?;
            if reading.is_full() {
                break;
            }
        }
    }
    Ok(reading.finish())
}

struct Reading {
    walk: Walk,
    /// None below the genesis block.
    next: Option<Height>,
    pin: Option<BlockHash>,
    count: u32,
    read: usize,
    blocks: Vec<u8>,
}

impl Reading {
    fn is_full(&self) -> bool {
        self.count >= self.walk.limit || self.read >= READ_MAX || self.blocks.len() >= PAGE_MAX
    }

    /// Returns as many of the next blocks as are likely to be wanted, in the order of the walk.
    async fn fetch(&self, store: &dyn Store, next: Height) -> Result<Vec<StoredBlock>, PageError> {
        // The first one tells how large blocks are here.
        let likely = match self.count {
            0 => 1,
            count => {
                ((READ_MAX - self.read) / (self.read / count as usize)).min(BLOCKS_AT_ONCE as usize) as u32
            }
        };
        let wanted = likely.clamp(1, self.walk.limit - self.count);
        let (from, wanted) = match self.walk.order {
            Order::Asc => (next, wanted),
            Order::Desc => {
                let wanted = wanted.min(next.saturating_add(1));
                (next - (wanted - 1), wanted)
            }
        };
        let mut blocks = store.blocks(from, wanted, READ_MAX).await.map_err(ServerError::from)?;
        if self.walk.order == Order::Desc {
            if blocks.len() < wanted as usize {
                // Those below are larger than was likely, and left no room for the next one.
                blocks = store.blocks(next, 1, 0).await.map_err(ServerError::from)?;
            }
            if blocks.is_empty() {
                return Err(self.moved());
            }
            blocks.reverse();
        }
        Ok(blocks)
    }

    fn add(&mut self, stored: &StoredBlock) -> Result<(), PageError> {
        let StoredBlock { hash, total_work, block, ids } = stored;
        let header = &block.header;
        let fits = match self.walk.order {
            Order::Asc => header.prev_block_hash,
            Order::Desc => *hash,
        };
        if Some(header.height) != self.next || self.pin.is_some_and(|pin| pin != fits) {
            return Err(self.moved());
        }
        let mut json = BlockJson::new(*hash, *total_work, block);
        if self.walk.transactions {
            json = json.with_transactions(&block.transactions, ids.iter().copied());
        }
        if self.count > 0 {
            self.blocks.push(b',');
        }
        let written = serde_json::to_writer(&mut self.blocks, &json);
        written.map_err(|_| ServerError::Internal("a block is not JSON"))?;
        self.count += 1;
        self.read += size(block);
        (self.next, self.pin) = match self.walk.order {
            Order::Asc => (header.height.checked_add(1), Some(*hash)),
            Order::Desc => (header.height.checked_sub(1), Some(header.prev_block_hash)),
        };
        Ok(())
    }

    /// What does not fit to another page is the client's walk that ended; within a page it is ours to try again.
    fn moved(&self) -> PageError {
        if self.count == 0 && self.walk.pin.is_some() { PageError::Gone } else { PageError::Moved }
    }

    fn finish(self) -> Page {
        let order = self.walk.order;
        let goes_on = |next: &Height| self.is_full() && (order == Order::Desc || *next <= self.walk.tip);
        let next = self.next.filter(goes_on).zip(self.pin);
        let next = next.map(|(next, pin)| Cursor { order, next, pin });
        Page { blocks: self.blocks, next }
    }
}

fn size(block: &Block) -> usize {
    let statements = block.transactions.iter().filter_map(|transaction| transaction.statement());
    let contents: usize =
        statements.map(|statement| statement.payload.len() + statement.signature.len()).sum();
    BLOCK_OVERHEAD + contents + block.transactions.len() * TRANSACTION_OVERHEAD
}
