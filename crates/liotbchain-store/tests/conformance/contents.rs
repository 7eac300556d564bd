//! Everything that a store says about itself, to tell whether two are the same.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use liotbchain_core::{Branch, CheckedBlock, Content, Height, KeyId, Statement, TransactionId, Work};
use liotbchain_store::{NewTransaction, Pending, Place, Right, Status, Store, StoredBlock};

use crate::chain::{Chain, ids};

/// What a store holds.
#[derive(Debug, PartialEq)]
pub struct Contents {
    pub branch: Option<Branch>,
    pub blocks: Vec<StoredBlock>,
    pub pending: Vec<Pending>,
    pub statuses: BTreeMap<TransactionId, Option<Status>>,
    pub statements: BTreeMap<TransactionId, Statement>,
    pub sequences: BTreeMap<KeyId, u64>,
    pub public_keys: BTreeMap<KeyId, Vec<u8>>,
    pub side_blocks: Vec<Option<Vec<u8>>>,
}

impl Contents {
    /// Asks for all, of these transactions and blocks too, whether the store knows them or not.
    pub async fn of(
        store: &Arc<dyn Store>,
        transactions: &[NewTransaction],
        blocks: &[CheckedBlock],
    ) -> Self {
        let ids = ids(transactions);
        let key_ids: HashSet<_> = transactions.iter().map(|it| it.statement.statement().key_id).collect();
        let key_ids: Vec<_> = key_ids.into_iter().collect();
        let statuses = store.look_up(&ids).await.unwrap();
        let public_keys = store.public_keys(&key_ids).await.unwrap();
        let found = store.statements(&ids).await.unwrap();
        for (id, status) in ids.iter().zip(&statuses) {
            // One row tells what the lists told.
            let row = store.transaction(*id).await.unwrap();
            let place = match status {
                Some(Status::Sealed(place)) => Some(*place),
                _ => None,
            };
            let full = |content: &Content| match content {
                Content::Full(statement) => Some(Statement::clone(statement)),
                Content::Pruned { .. } => None,
            };
            assert_eq!(row.as_ref().and_then(|row| full(&row.content)).as_ref(), found.get(id));
            assert_eq!(row.as_ref().and_then(|row| row.place), place);
            assert_eq!(row.and_then(|row| row.sequence).is_some(), place.is_some());
        }
        let mut side_blocks = Vec::new();
        for block in blocks {
            side_blocks.push(store.side_block(block.hash()).await.unwrap());
        }
        Self {
            branch: store.branch().await.unwrap(),
            blocks: store.blocks(0, u32::MAX, usize::MAX).await.unwrap(),
            pending: store.pending(u32::MAX).await.unwrap(),
            statements: found.into_iter().collect(),
            statuses: ids.into_iter().zip(statuses).collect(),
            sequences: store.next_sequences(&key_ids).await.unwrap().into_iter().collect(),
            public_keys: public_keys.iter().map(|(id, key)| (*id, key.spki_der().to_vec())).collect(),
            side_blocks,
        }
    }
}

/// Takes the right to seal for a minute.
pub async fn take_right(store: &Arc<dyn Store>) -> Right {
    store.acquire_right("test", Duration::from_secs(60)).await.unwrap().expect("nobody else holds it")
}

/// Creates the chain in the store, and puts all its blocks there in one commit.
pub async fn put(store: &Arc<dyn Store>, chain: &Chain) -> Right {
    store.create(chain.genesis()).await.unwrap();
    let right = take_right(store).await;
    store.commit(&right, chain.genesis().hash(), 0, &chain.blocks[1..]).await.unwrap();
    right
}

/// Returns the blocks as a store must return them.
pub fn stored(chain: &Chain) -> Vec<StoredBlock> {
    let mut total_work = Work::ZERO;
    let stored = |block: &CheckedBlock| {
        total_work = total_work.saturating_add(block.work());
        StoredBlock {
            hash: block.hash(),
            total_work,
            block: block.as_block().clone(),
            ids: block.ids().to_vec(),
        }
    };
    chain.blocks.iter().map(stored).collect()
}

/// Returns the status of a transaction in this block.
pub fn sealed(block: &CheckedBlock, position: u32) -> Status {
    Status::Sealed(Place { height: block.height() as Height, position, block_hash: block.hash() })
}

/// Asserts that the store holds this chain, in every way of asking.
pub async fn assert_holds(store: &Arc<dyn Store>, chain: &Chain) {
    assert_eq!(store.branch().await.unwrap(), Some(chain.branch()));
    assert_eq!(store.blocks(0, u32::MAX, usize::MAX).await.unwrap(), stored(chain));
    for block in &chain.blocks {
        assert_eq!(store.height_of(block.hash()).await.unwrap(), Some(block.height()));
        assert_eq!(store.side_block(block.hash()).await.unwrap(), None);
        let ids: Vec<_> = block.ids().iter().flatten().copied().collect();
        let places = (0..).zip(&ids).map(|(position, _)| Some(sealed(block, position)));
        assert_eq!(store.look_up(&ids).await.unwrap(), places.collect::<Vec<_>>());
    }
    let key_ids: HashSet<_> =
        chain.blocks.iter().flat_map(|block| block.transactions()).map(|it| it.key_id()).collect();
    let key_ids: Vec<_> = key_ids.into_iter().collect();
    let expected = key_ids.iter().map(|key_id| (*key_id, chain.next_sequence(key_id))).collect();
    assert_eq!(store.next_sequences(&key_ids).await.unwrap(), expected);
}
