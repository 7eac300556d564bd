//! Validation of what is new: from the blocks on that a checkpoint commits to.

use std::collections::HashMap;

use liotbchain_core::{
    Branch, Height, KeyId,
    chain::{Census, MEDIAN_BLOCKS},
    merkle::{Frontier, leaf_hash},
};
use liotbchain_store::{Store, StoreError};

use super::{Chain, Fault, Since, Validation};

impl Chain {
    /// Goes on from the end of a history whose blocks are not looked at, but that they are those of its root.
    pub(super) async fn skip(
        &mut self,
        store: &dyn Store,
        since: Since,
    ) -> Result<Result<(), Fault>, StoreError> {
        let Since { size, root } = since;
        let fault = |height: u64, field: &str, reason: String| {
            let height = Height::try_from(height).unwrap_or(Height::MAX);
            Ok(Err(Fault { height, position: None, field: field.to_owned(), reason, origin: None }))
        };
        let Some(genesis) = &self.branch else { return Ok(Ok(())) };
        let Some(last) = size.checked_sub(1).and_then(|last| Height::try_from(last).ok()) else {
            return fault(0, "height", format!("a history of {size} blocks is none to go on from"));
        };
        let Some(stored) = store.blocks(last, 1, 0).await?.pop().filter(|it| it.block.header.height == last)
        else {
            let reason = format!(
                "the history to go on from has {size} blocks, and this block is missing: was the chain cut off?"
            );
            return fault(last.into(), "height", reason);
        };
        let places: Vec<_> = Frontier::places(size).collect();
        let nodes = store.history_nodes(&places).await?;
        let mut nodes = nodes.into_iter();
        let frontier = Frontier::load(size, |level, index| nodes.next().flatten().ok_or((level, index)));
        let frontier = match frontier {
            Ok(frontier) => frontier,
            Err((level, index)) => {
                let reason = format!("node {index} of level {level} of the history tree is missing");
                return fault(last.into(), "history_nodes", reason);
            }
        };
        if let Some(root) = root.filter(|root| *root != frontier.root()) {
            let reason = format!(
                "the first {size} blocks have the root {}, the checkpoint says {root}: this is another history",
                frontier.root()
            );
            return fault(last.into(), "history_root", reason);
        }
        let computed = stored.block.header.compute_hash();
        // A tree of one block more than a power of two ends in a leaf, others in what that leaf went into.
        let leaf = store.history_nodes(&[(0, last.into())]).await?.pop().flatten();
        if leaf != Some(leaf_hash(&computed.0)) {
            let reason = format!("its header has the hash {computed}, its row says another");
            return fault(last.into(), "hash", reason);
        }
        let from = last.saturating_sub(MEDIAN_BLOCKS as Height - 1);
        let headers = store.headers(from, MEDIAN_BLOCKS as u32).await?;
        let timestamps_ms =
            headers.iter().filter(|header| header.height <= last).map(|header| header.timestamp_ms);
        let branch = Branch::load(
            genesis.rules().clone(),
            genesis.genesis(),
            computed,
            last,
            frontier,
            timestamps_ms,
            stored.total_work,
        );
        self.branch = Some(branch);
        // The genesis block was counted; what is counted from here on begins anywhere.
        self.census = Census::from_anywhere(self.census.budget());
        self.validation.valid_blocks = size;
        self.validation.transactions = 0;
        self.validation.tip = Some(computed);
        Ok(Ok(()))
    }
}

/// The last number of each key must be that of the store, where the chain did not grow meanwhile.
pub(super) async fn check_counts(
    store: &dyn Store,
    valid: &Validation,
    counts: HashMap<KeyId, u64>,
) -> Result<Option<Fault>, StoreError> {
    /// Keys of one question.
    const KEYS: usize = 1_000;
    let keys: Vec<_> = counts.keys().copied().collect();
    for keys in keys.chunks(KEYS) {
        let stored = store.next_sequences(keys).await?;
        let is_grown = store.branch().await.ok().flatten().map(|branch| branch.tip()) != valid.tip;
        for key_id in keys {
            let (got, expected) = (stored.get(key_id).copied().unwrap_or(0), counts[key_id]);
            if got < expected || got > expected && !is_grown {
                let height = Height::try_from(valid.valid_blocks.saturating_sub(1)).unwrap_or(Height::MAX);
                let reason = format!(
                    "the store counts {got} transactions of key {key_id}: the last one is number {expected} of it"
                );
                return Ok(Some(Fault {
                    height,
                    position: None,
                    field: "sequence".to_owned(),
                    reason,
                    origin: None,
                }));
            }
        }
    }
    Ok(None)
}
