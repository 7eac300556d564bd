//! Validates what a store keeps, from the genesis block on, in memory that does not grow with the chain.

use std::sync::Arc;

use liotbchain_core::{
    BlockHash, Branch, ChainFault, Height, KeyId, PublicKey, TransactionId, Validator, Work,
    chain::ChainError,
};
use liotbchain_store::{Place, Status, Store, StoreError, StoredBlock};

/// Blocks that one read takes at most.
const PAGE_BLOCKS: u32 = 512;
/// Bytes of payload that one read takes at most, but for its first block.
pub(crate) const PAGE_BYTES: usize = 4 << 20;

/// The result of a validation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Validation {
    /// Blocks found valid, from the genesis block on.
    pub valid_blocks: u64,
    /// Transactions in them, that of the genesis block with them.
    pub transactions: u64,
    /// Hash of the last valid block; none where the first one is bad already.
    pub tip: Option<BlockHash>,
    /// The first fault.
    pub fault: Option<Fault>,
}

/// The first fault of a stored chain, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Height of the bad block.
    pub height: Height,
    /// Place of the bad transaction in it, where the fault is one transaction's.
    pub position: Option<usize>,
    /// The field that is wrong.
    pub field: String,
    /// What is wrong with it: got and expected.
    pub reason: String,
}

impl From<ChainFault> for Fault {
    fn from(ChainFault { height, error }: ChainFault) -> Self {
        let (position, field) = (error.position(), error.field().to_owned());
        let reason = match &error {
            ChainError::Genesis(error) => error.to_string(),
            ChainError::Block(error) => error.to_string(),
        };
        Self { height, position, field, reason }
    }
}

/// Validates the best chain of a store: every rule of the chain, and that what the rows say beside the blocks agrees
/// with them. `progress` is told the number of blocks done and the height of the last block known.
///
/// # Errors
///
/// [`StoreError`] where the store could not be read; what is read and wrong is a [`Fault`].
pub async fn validate(
    store: &Arc<dyn Store>,
    mut progress: impl FnMut(u64, Height),
) -> Result<Validation, StoreError> {
    let mut state = State { validator: Validator::without_ids(), total_work: Work::ZERO };
    let mut next: Height = 0;
    // A tip that contradicts itself is found again at the end.
    let mut known_height = store.branch().await.ok().flatten().map_or(0, |branch| branch.height());
    let mut page_blocks = PAGE_BLOCKS;
    let mut fault = None;
    while fault.is_none() {
        let page = match store.blocks(next, page_blocks, PAGE_BYTES).await {
            // Block by block from here on, to name the one.
            Err(StoreError::Corrupt(_)) if page_blocks > 1 => {
                page_blocks = 1;
                continue;
            }
            Err(StoreError::Corrupt(reason)) => {
                fault = Some(Fault { height: next, position: None, field: "row".to_owned(), reason });
                break;
            }
            page => page?,
        };
        if page.is_empty() {
            break;
        }
        let keys = unknown_keys(&state.validator, &page);
        match store.public_keys(&keys).await {
            Ok(keys) => keys.into_values().for_each(|key: PublicKey| state.validator.add_key(key)),
            Err(StoreError::Corrupt(_)) if page_blocks > 1 => {
                page_blocks = 1;
                continue;
            }
            Err(StoreError::Corrupt(reason)) => {
                fault = Some(Fault { height: next, position: None, field: "public_key".to_owned(), reason });
                break;
            }
            Err(error) => return Err(error),
        }
        let places = places(&page);
        let (after, checked) = tokio::task::spawn_blocking(move || {
            let fault = page.into_iter().find_map(|block| state.check(block).err());
            (state, fault)
        })
        .await
        .map_err(|panic| StoreError::Corrupt(format!("validation failed: {panic}")))?;
        state = after;
        fault = checked;
        if fault.is_none() {
            fault = check_places(store.as_ref(), places).await?;
        }
        next = state.validator.branch().map_or(0, Branch::next_height);
        known_height = known_height.max(next.saturating_sub(1));
        progress(u64::from(next), known_height);
    }
    let tip = state.validator.branch().map(Branch::tip);
    if fault.is_none() {
        fault = check_tip(store.as_ref(), &state).await?;
    }
    Ok(Validation { valid_blocks: u64::from(next), transactions: state.validator.transactions(), tip, fault })
}

struct State {
    validator: Validator,
    total_work: Work,
}

impl State {
    fn check(&mut self, stored: StoredBlock) -> Result<(), Fault> {
        let StoredBlock { hash, total_work, block, ids } = stored;
        let checked = self.validator.push(block)?;
        let height = checked.height();
        let wrong =
            |position, field: &str, got: &dyn std::fmt::Display, expected: &dyn std::fmt::Display| Fault {
                height,
                position,
                field: field.to_owned(),
                reason: format!("the stored {field} is {got}: expected {expected}"),
            };
        if hash != checked.hash() {
            return Err(wrong(None, "hash", &hash, &checked.hash()));
        }
        self.total_work = self.total_work.saturating_add(checked.work());
        if total_work != self.total_work {
            return Err(wrong(None, "total_work", &total_work, &self.total_work));
        }
        for (position, (got, expected)) in ids.iter().zip(checked.ids()).enumerate() {
            if let (Some(got), Some(expected)) = (got, expected)
                && got != expected
            {
                return Err(wrong(Some(position), "id", got, expected));
            }
        }
        Ok(())
    }
}

fn unknown_keys(validator: &Validator, page: &[StoredBlock]) -> Vec<KeyId> {
    let used = page.iter().flat_map(|stored| stored.block.transactions.iter().map(|it| it.key_id()));
    let unknown: std::collections::HashSet<_> = used.filter(|key_id| !validator.has_key(key_id)).collect();
    unknown.into_iter().collect()
}

fn places(page: &[StoredBlock]) -> Vec<(TransactionId, Place)> {
    let blocks = page.iter().map(|stored| (stored.block.header.height, stored));
    blocks
        .flat_map(|(height, stored)| {
            stored.ids.iter().enumerate().filter_map(move |(position, id)| {
                Some(((*id)?, Place { height, position: position as u32, block_hash: stored.hash }))
            })
        })
        .collect()
}

/// An id that stands twice on the chain is found at one of its two places only.
async fn check_places(
    store: &dyn Store,
    places: Vec<(TransactionId, Place)>,
) -> Result<Option<Fault>, StoreError> {
    let ids: Vec<_> = places.iter().map(|(id, _)| *id).collect();
    let found = store.look_up(&ids).await?;
    let wrong = places.iter().zip(found).find(|((_, place), found)| *found != Some(Status::Sealed(*place)));
    Ok(wrong.map(|((id, place), found)| Fault {
        height: place.height,
        position: Some(place.position as usize),
        field: "id".to_owned(),
        reason: match found {
            Some(Status::Sealed(other)) => {
                format!("id {id} stands also in block {}, position {}", other.height, other.position)
            }
            Some(Status::Pending) => format!("id {id} is also pending"),
            None => format!("id {id} is not found by its index"),
        },
    }))
}

/// The tip as the store knows it must be the last block validated, unless the chain grew or moved meanwhile.
async fn check_tip(store: &dyn Store, state: &State) -> Result<Option<Fault>, StoreError> {
    let fault =
        |height, field: &str, reason| Some(Fault { height, position: None, field: field.to_owned(), reason });
    let Some(validated) = state.validator.branch() else {
        return Ok(fault(0, "height", "the store holds no block at height 0".to_owned()));
    };
    let stored = match store.branch().await {
        Err(StoreError::Corrupt(reason)) => return Ok(fault(validated.height(), "tip", reason)),
        stored => stored?,
    };
    let Some(stored) = stored else { return Ok(fault(0, "height", "the chain is gone".to_owned())) };
    if stored.tip() == validated.tip() && stored != *validated {
        let reason = "what is kept of the history tree does not agree with the blocks".to_owned();
        return Ok(fault(validated.height(), "history_root", reason));
    }
    if stored.height() > validated.height() {
        let gap = store.blocks(validated.next_height(), 1, 1).await?;
        if gap.is_empty() {
            let reason = format!("the block is missing, and the chain goes on to height {}", stored.height());
            return Ok(fault(validated.next_height(), "height", reason));
        }
    }
    Ok(None)
}
