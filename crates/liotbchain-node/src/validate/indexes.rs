//! What the store keeps beside the blocks to make proofs of: nodes of the history tree, and which blocks hold a key's
//! transactions. Read a page at a time, beside its blocks. What the second has of keys that a page does not hold is not looked
//! at: a row too many there costs a look at a block, and changes no proof.

use std::collections::BTreeMap;

use liotbchain_core::{Height, KeyId, merkle::Node};
use liotbchain_store::{Store, StoreError, StoredBlock};

use super::Fault;

/// What is kept beside one block.
pub(super) struct Beside {
    /// The nodes of the history tree that the block completes, from level 1 on.
    nodes: Vec<Option<[u8; 32]>>,
    /// A key for which the index of blocks is wrong.
    wrong_key: Option<Fault>,
}

impl Beside {
    /// Reads what is kept beside each block of a page.
    pub(super) async fn of(store: &dyn Store, page: &[StoredBlock]) -> Result<Vec<Self>, StoreError> {
        let heights = page.iter().map(|stored| stored.block.header.height);
        // Block h completes as many nodes above its leaf as its height has trailing ones.
        let places = |height: Height| {
            (1..=height.trailing_ones() as u8).map(move |level| (level, u64::from(height >> level)))
        };
        let all: Vec<_> = heights.clone().flat_map(places).collect();
        let mut nodes = store.history_nodes(&all).await?.into_iter();
        let mut wrong = wrong_keys(store, page).await?;
        let beside = heights.map(|height| Self {
            nodes: nodes.by_ref().take(places(height).count()).collect(),
            wrong_key: wrong.remove(&height),
        });
        Ok(beside.collect())
    }

    /// Holds what is kept against what the block completed, its leaf first.
    pub(super) fn check(&self, height: Height, completed: &[Node]) -> Option<Fault> {
        let nodes = completed.iter().skip(1).zip(&self.nodes);
        for (Node { level, index, hash }, kept) in nodes {
            if kept.as_ref() != Some(hash) {
                let got = kept.map_or("missing".to_owned(), hex);
                let expected = hex(*hash);
                let reason = format!(
                    "node {index} of level {level} of the history tree is {got}: expected {expected}"
                );
                return Some(Fault {
                    height,
                    position: None,
                    field: "history_nodes".to_owned(),
                    reason,
                    origin: None,
                });
            }
        }
        self.wrong_key.clone()
    }
}

fn hex(hash: [u8; 32]) -> String {
    liotbchain_core::Root(hash).to_string()
}

/// Returns, by height, a key of the page that a block holds and the index of the key's blocks does not know there, or the other way round.
async fn wrong_keys(store: &dyn Store, page: &[StoredBlock]) -> Result<BTreeMap<Height, Fault>, StoreError> {
    let (Some(first), Some(last)) = (page.first(), page.last()) else { return Ok(BTreeMap::new()) };
    let (first, last) = (first.block.header.height, last.block.header.height);
    let mut keys: BTreeMap<KeyId, Vec<Height>> = BTreeMap::new();
    for stored in page {
        let height = stored.block.header.height;
        for transaction in &stored.block.transactions {
            let heights = keys.entry(transaction.key_id()).or_default();
            if heights.last() != Some(&height) {
                heights.push(height);
            }
        }
    }
    let mut wrong = BTreeMap::new();
    for (key_id, expected) in keys {
        // One more would be one too many.
        let limit = u32::try_from(expected.len()).unwrap_or(u32::MAX).saturating_add(1);
        let mut got = store.key_heights(key_id, first, limit).await?;
        got.retain(|height| *height <= last);
        let differs = |height: &&Height| got.contains(height) != expected.contains(height);
        if got != expected
            && let Some(height) = expected.iter().chain(&got).filter(differs).min().copied()
        {
            let what = if expected.contains(&height) { "does not name" } else { "names" };
            let reason = format!("the index of the blocks of key {key_id} {what} this block, which is wrong");
            wrong.entry(height).or_insert(Fault {
                height,
                position: None,
                field: "key_blocks".to_owned(),
                reason,
                origin: None,
            });
        }
    }
    Ok(wrong)
}
