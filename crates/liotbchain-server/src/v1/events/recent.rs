//! The newest blocks, read once for all clients.

use std::{collections::VecDeque, sync::Arc};

use liotbchain_core::Height;
use liotbchain_store::{Store, StoreError};
use tokio::sync::{Mutex, Semaphore};

use super::{BlockEvent, Cursor, PAGE_BLOCKS};

/// Blocks kept: some 400 bytes each.
const RECENT_MAX: usize = 1_024;
/// Blocks that one read takes at most, and bytes of payload: a store reads blocks whole.
const READ_BLOCKS: u32 = 64;
const READ_BYTES: usize = 256 << 10;
/// Clients that read older blocks at a time.
const READERS_MAX: usize = 2;

/// A block as clients are told of it.
pub(super) struct Told {
    pub(super) cursor: Cursor,
    pub(super) text: String,
}

/// What stands right above a block.
pub(super) enum Above {
    /// At least one block, in order.
    Blocks(Vec<Arc<Told>>),
    /// The chain ends at the block's height, or below.
    Nothing,
    /// A block that does not stand on it.
    Elsewhere,
}

/// Blocks one above the other. They may have been taken off the chain: those above the last one show it.
pub(super) struct Recent {
    blocks: Mutex<VecDeque<Arc<Told>>>,
    readers: Semaphore,
}

impl Default for Recent {
    fn default() -> Self {
        Self { blocks: Mutex::default(), readers: Semaphore::new(READERS_MAX) }
    }
}

impl Recent {
    /// Returns the blocks right above one, a page of them.
    pub(super) async fn above(&self, store: &dyn Store, cursor: Cursor) -> Result<Above, StoreError> {
        // Held while it reads: who comes second finds what the first one read.
        let mut blocks = self.blocks.lock().await;
        let first = blocks.front().map_or(Height::MAX, |block| block.cursor.height);
        let place = cursor.height.checked_sub(first).map(|place| place as usize);
        if let Some(place) = place
            && blocks.get(place).is_some_and(|block| block.cursor == cursor)
            && place + 1 < blocks.len()
        {
            return Ok(Above::Blocks(blocks.iter().skip(place + 1).take(PAGE_BLOCKS).cloned().collect()));
        }
        let is_older = blocks.back().is_some_and(|last| cursor.height < last.cursor.height);
        if is_older {
            drop(blocks);
            // Never closed.
            let _permit = self.readers.acquire().await;
            return Ok(match read(store, cursor).await? {
                Above::Blocks(mut read) => {
                    read.truncate(PAGE_BLOCKS);
                    Above::Blocks(read)
                }
                nothing => nothing,
            });
        }
        let above = read(store, cursor).await?;
        let Above::Blocks(read) = above else {
            // Those kept may be of another branch: whoever goes back must not be told them again.
            blocks.clear();
            return Ok(above);
        };
        if blocks.back().is_none_or(|last| last.cursor != cursor) {
            blocks.clear();
        }
        blocks.extend(read.iter().cloned());
        let surplus = blocks.len().saturating_sub(RECENT_MAX);
        blocks.drain(..surplus);
        Ok(Above::Blocks(read.into_iter().take(PAGE_BLOCKS).collect()))
    }
}

async fn read(store: &dyn Store, cursor: Cursor) -> Result<Above, StoreError> {
    let blocks = store.blocks(cursor.height + 1, READ_BLOCKS, READ_BYTES).await?;
    Ok(match blocks.first() {
        None => Above::Nothing,
        Some(first) if first.block.header.prev_block_hash != cursor.hash => Above::Elsewhere,
        Some(_) => Above::Blocks(
            blocks
                .iter()
                .map(|stored| {
                    let event = BlockEvent::of(stored, 0);
                    Arc::new(Told { cursor: event.cursor(), text: event.text() })
                })
                .collect(),
        ),
    })
}
