//! Everything that a store says about itself, to tell whether two are the same.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use liotbchain_core::{
    Branch, CheckedBlock, Content, Height, KeyId, Statement, TransactionId, Work,
    merkle::{self, Frontier},
};
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
        assert_eq!(store.headers(block.height(), 1).await.unwrap(), std::slice::from_ref(block.header()));
        assert_eq!(store.side_block(block.hash()).await.unwrap(), None);
        let ids: Vec<_> = block.ids().iter().flatten().copied().collect();
        let places = (0..).zip(&ids).map(|(position, _)| Some(sealed(block, position)));
        assert_eq!(store.look_up(&ids).await.unwrap(), places.collect::<Vec<_>>());
    }
    let headers: Vec<_> = chain.blocks.iter().map(|block| block.header().clone()).collect();
    assert_eq!(store.headers(0, u32::MAX).await.unwrap(), headers);
    assert_eq!(store.headers(chain.branch().next_height(), 9).await.unwrap(), []);
    let key_ids: HashSet<_> =
        chain.blocks.iter().flat_map(|block| block.transactions()).map(|it| it.key_id()).collect();
    let key_ids: Vec<_> = key_ids.into_iter().collect();
    assert_has_indexes(store, chain, &key_ids).await;
    let expected = key_ids.iter().map(|key_id| (*key_id, chain.next_sequence(key_id))).collect();
    assert_eq!(store.next_sequences(&key_ids).await.unwrap(), expected);
}

/// Asserts that the store has each node of the history tree and none beside, and each key's blocks.
async fn assert_has_indexes(store: &Arc<dyn Store>, chain: &Chain, key_ids: &[KeyId]) {
    let mut frontier = Frontier::default();
    let mut nodes = BTreeMap::new();
    for block in &chain.blocks {
        let completed = frontier.append(merkle::leaf_hash(&block.hash().0));
        nodes.extend(completed.into_iter().map(|node| ((node.level, node.index), node.hash)));
    }
    let size = chain.blocks.len() as u64;
    let mut places: Vec<_> =
        (0..12).flat_map(|level| (0..=(size >> level) + 1).map(move |index| (level, index))).collect();
    places.extend([(0, u64::MAX), (63, 0), (1, i64::MAX as u64), (255, 0)]);
    let expected: Vec<_> = places.iter().map(|place| nodes.get(place).copied()).collect();
    assert_eq!(store.history_nodes(&places).await.unwrap(), expected);
    assert_eq!(store.history_nodes(&[]).await.unwrap(), []);

    for key_id in key_ids.iter().chain([&KeyId([9; 32])]) {
        let has = |block: &&CheckedBlock| block.transactions().iter().any(|it| it.key_id() == *key_id);
        let all: Vec<_> = chain.blocks.iter().filter(has).map(CheckedBlock::height).collect();
        let middle = size as Height / 2;
        for from in [0, 1, middle, u32::MAX] {
            let expected: Vec<_> = all.iter().copied().filter(|height| *height >= from).collect();
            assert_eq!(store.key_heights(*key_id, from, u32::MAX).await.unwrap(), expected);
            let two: Vec<_> = expected.into_iter().take(2).collect();
            assert_eq!(store.key_heights(*key_id, from, 2).await.unwrap(), two);
            let below = all.iter().copied().rfind(|height| *height < from);
            assert_eq!(store.key_height_below(*key_id, from).await.unwrap(), below);
        }
    }
}
