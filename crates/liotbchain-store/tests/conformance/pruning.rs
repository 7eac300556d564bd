//! Payloads and signatures are dropped, and all else stays.

use std::{ops::Range, sync::Arc};

use liotbchain_core::{
    Block, Content, Height, KeyId, TransactionId, codec,
    transaction::{Statement, Transaction},
};
use liotbchain_store::{NewTransaction, PruneStep, Status, Store, StoreError, StoredBlock};

use crate::{
    chain::{Chain, Device, START_MS, ids, unsigned},
    contents::{Contents, put, sealed, stored},
    place::Place,
};

/// Prunes in steps of so many transactions, and returns what was dropped in all.
async fn prune(store: &Arc<dyn Store>, key_id: KeyId, heights: Range<Height>, limit: u32) -> PruneStep {
    let (mut all, mut next) = (PruneStep::default(), Some(heights.start));
    while let Some(from) = next {
        let planned = store.prunable(key_id, from..heights.end, limit).await.unwrap();
        let step = store.prune(key_id, from..heights.end, limit).await.unwrap();
        assert_eq!(step, planned);
        assert!(step.next.is_none_or(|next| next > from));
        all.transactions += step.transactions;
        all.bytes += step.bytes;
        if let Some((first, last)) = step.sequences {
            all.sequences = Some((all.sequences.map_or(first, |(first, _)| first), last));
        }
        next = step.next;
    }
    all
}

fn without_payload(transaction: &Transaction) -> Transaction {
    let (key_id, sequence) = (transaction.key_id(), transaction.sequence);
    let content_hash = transaction.statement().unwrap().content_hash();
    Transaction { sequence, content: Content::Pruned { key_id, content_hash } }
}

/// Drops what a store must drop.
fn drop_from(blocks: &mut [StoredBlock], key_id: KeyId, heights: Range<usize>) {
    for block in &mut blocks[heights] {
        for (transaction, id) in block.block.transactions.iter_mut().zip(&mut block.ids) {
            if transaction.key_id() == key_id {
                *transaction = without_payload(transaction);
                *id = None;
            }
        }
    }
}

fn size(transactions: &[NewTransaction]) -> u64 {
    let size = |statement: &Statement| statement.payload.len() + statement.signature.len();
    transactions.iter().map(|it| size(it.statement.statement()) as u64).sum()
}

async fn pending(store: &Arc<dyn Store>) -> Vec<TransactionId> {
    store.pending(u32::MAX).await.unwrap().into_iter().map(|pending| pending.id).collect()
}

pub async fn drops_what_a_key_said_and_nothing_else(place: Place) {
    let store = place.open().await;
    let (one, two) = (Device::new(1), Device::new(2));
    let (mine, others) = (one.count(0..9), two.count(0..9));
    store.admit(&[mine.clone(), others.clone()].concat(), START_MS).await.unwrap();
    let mut chain = Chain::new("test");
    for (mine, others) in mine[..8].chunks(2).zip(others[..8].chunks(2)) {
        chain.seal(&[&mine[..1], others, &mine[1..]].concat());
    }
    put(&store, &chain).await;
    let known = [mine.clone(), others.clone()].concat();
    let before = Contents::of(&store, &known, &chain.blocks).await;

    // A key that nobody knows, and no block at all.
    for (key_id, heights) in [(KeyId([9; 32]), 0..9), (one.key_id(), 0..1), (one.key_id(), 7..7)] {
        assert_eq!(prune(&store, key_id, heights, 100).await, PruneStep::default());
    }
    assert_eq!(Contents::of(&store, &known, &chain.blocks).await, before);

    let dropped = prune(&store, one.key_id(), 0..4, 100).await;
    let bytes = size(&mine[..6]);
    assert_eq!(dropped, PruneStep { transactions: 6, bytes, sequences: Some((0, 5)), next: None });
    let mut expected = stored(&chain);
    drop_from(&mut expected, one.key_id(), 1..4);
    let after = Contents::of(&store, &known, &chain.blocks).await;
    assert_eq!(after.blocks, expected);
    for (block, checked) in expected.iter().zip(&chain.blocks) {
        let leaves =
            |block: &Block| block.transactions.iter().map(Transaction::leaf_hash).collect::<Vec<_>>();
        assert_eq!(leaves(&block.block), leaves(checked.as_block()));
    }
    let Contents { blocks: _, statements: _, ref statuses, .. } = before;
    assert_eq!(&after.statuses, statuses, "pruned ids are known");
    assert_eq!((&after.branch, &after.pending), (&before.branch, &before.pending));
    assert_eq!((&after.sequences, &after.public_keys), (&before.sequences, &before.public_keys));
    let is_left = |id: &TransactionId| !ids(&mine[..6]).contains(id);
    let left: Vec<_> = before.statements.keys().filter(|id| is_left(id)).collect();
    assert_eq!(after.statements.keys().collect::<Vec<_>>(), left);

    // One that comes again is known, and waits no more.
    let again = store.admit(&mine[..2], START_MS + 9).await.unwrap();
    assert_eq!(again.new, 0);
    assert_eq!(again.statuses, [sealed(&chain.blocks[1], 0), sealed(&chain.blocks[1], 3)]);
    assert_eq!(Contents::of(&store, &known, &chain.blocks).await, after);

    // A second time, nothing is left to drop; further up, there is.
    assert_eq!(prune(&store, one.key_id(), 0..4, 100).await.transactions, 0);
    let rest = prune(&store, one.key_id(), 0..u32::MAX, 100).await;
    assert_eq!((rest.transactions, rest.sequences), (2, Some((6, 7))), "what waits is left alone");
    let text = store.statements(&ids(&mine[8..])).await.unwrap();
    assert_eq!(text.len(), 1);
    if place.is_durable() {
        store.close().await;
        drop_from(&mut expected, one.key_id(), 4..5);
        assert_eq!(place.open().await.blocks(0, 99, usize::MAX).await.unwrap(), expected);
    }
}

pub async fn drops_unsigned_transactions_but_not_the_genesis(place: Place) {
    let store = place.open().await;
    let list: Vec<_> = (0..5).map(|salt| unsigned("{\"t\":21}", salt)).collect();
    store.admit(&list, START_MS).await.unwrap();
    let mut chain = Chain::new("test");
    chain.seal(&list);
    put(&store, &chain).await;
    let dropped = prune(&store, KeyId::ZERO, 0..9, 100).await;
    assert_eq!((dropped.transactions, dropped.sequences), (5, Some((1, 5))));
    let mut expected = stored(&chain);
    drop_from(&mut expected, KeyId::ZERO, 1..2);
    assert_eq!(store.blocks(0, 9, usize::MAX).await.unwrap(), expected);
    assert_eq!(store.branch().await.unwrap(), Some(chain.branch()));
}

pub async fn drops_step_by_step(place: Place) {
    let store = place.open().await;
    let (one, two) = (Device::new(1), Device::new(2));
    let mut chain = Chain::new("test");
    for number in 0..20 {
        let others = if number % 4 == 0 { two.count(10 * number..10 * number + 3) } else { vec![] };
        chain.seal(&[one.count(number..number + 1), others].concat());
    }
    chain.seal(&one.count(20..180));
    store.add_keys(&[one.public_key.clone(), two.public_key.clone()]).await.unwrap();
    put(&store, &chain).await;
    let first = store.prunable(one.key_id(), 0..99, 4).await.unwrap();
    assert_eq!((first.transactions, first.next), (1, Some(2)), "whole blocks");
    let dropped = prune(&store, one.key_id(), 0..99, 4).await;
    assert_eq!((dropped.transactions, dropped.sequences), (180, Some((0, 179))));
    let mut expected = stored(&chain);
    drop_from(&mut expected, one.key_id(), 1..22);
    assert_eq!(store.blocks(0, 99, usize::MAX).await.unwrap(), expected);
}

/// As an import does.
pub async fn keeps_a_pruned_transaction_that_comes_in_a_block(place: Place) {
    let store = place.open().await;
    let device = Device::new(1);
    let list = device.count(0..4);
    let mut chain = Chain::new("test");
    let mut pruned = Chain::new("test");
    chain.seal(&list[..2]);
    let blocks = [pruned.seal_pruned(&list[..2]), chain.seal(&list[2..])];
    store.create(chain.genesis()).await.unwrap();
    let right = crate::contents::take_right(&store).await;
    let genesis = chain.genesis().hash();
    let unknown_key = store.commit(&right, genesis, 0, &blocks).await;
    assert!(unknown_key.is_err(), "nobody made the key known");
    store.add_keys(std::slice::from_ref(&device.public_key)).await.unwrap();
    store.commit(&right, genesis, 0, &blocks).await.unwrap();
    let mut expected = stored(&chain);
    drop_from(&mut expected, device.key_id(), 1..2);
    assert_eq!(store.blocks(0, 9, usize::MAX).await.unwrap(), expected);
    assert_eq!(store.next_sequences(&[device.key_id()]).await.unwrap()[&device.key_id()], 4);
    // Its id came with nobody.
    assert_eq!(store.look_up(&ids(&list[1..3])).await.unwrap(), [None, Some(sealed(&chain.blocks[2], 0))]);
    let leaf = TransactionId(expected[1].block.transactions[1].leaf_hash());
    let found = store.transaction(leaf).await.unwrap().expect("it is found by the hash of its leaf");
    assert_eq!(found.content, expected[1].block.transactions[1].content);
    assert_eq!(found.sequence, Some(1));
    assert_eq!(store.branch().await.unwrap(), Some(chain.branch()));
}

pub async fn takes_pruned_blocks_off_and_puts_them_back(place: Place) {
    let store = place.open().await;
    let (one, two) = (Device::new(1), Device::new(2));
    let (mine, others) = (one.count(0..2), two.count(0..2));
    let list = [mine.clone(), others.clone()].concat();
    store.admit(&list, START_MS).await.unwrap();
    let mut chain = Chain::new("test");
    let below = chain.clone();
    chain.seal(&list);
    let right = put(&store, &chain).await;
    prune(&store, one.key_id(), 0..9, 100).await;
    store.commit(&right, chain.branch().tip(), 1, &[]).await.unwrap();
    assert_eq!(store.branch().await.unwrap(), Some(below.branch()));

    // What is left of it stands beside the chain; nothing is left of it that could wait.
    let mut expected = stored(&chain);
    drop_from(&mut expected, one.key_id(), 1..2);
    let hash = chain.blocks[1].hash();
    let bytes = store.side_block(hash).await.unwrap().expect("the block is kept");
    assert_eq!(codec::decode_kept_block(&bytes).as_ref(), Ok(&expected[1].block));
    assert_eq!(pending(&store).await, ids(&others));
    let statuses = store.look_up(&ids(&list)).await.unwrap();
    assert_eq!(statuses, [None, None, Some(Status::Pending), Some(Status::Pending)]);

    let back = below.clone().check(codec::decode_kept_block(&bytes).unwrap(), &list);
    store.commit(&right, below.branch().tip(), 0, std::slice::from_ref(&back)).await.unwrap();
    assert_eq!(store.blocks(0, 9, usize::MAX).await.unwrap(), expected);
    assert_eq!(store.branch().await.unwrap(), Some(chain.branch()));
    assert_eq!(store.side_block(hash).await.unwrap(), None);
    assert_eq!(pending(&store).await, []);
    assert_eq!(store.next_sequences(&[one.key_id()]).await.unwrap()[&one.key_id()], 2);
    let twice = store.commit(&right, chain.branch().tip(), 0, &[back]).await;
    assert!(matches!(twice, Err(StoreError::Config { .. })), "{twice:?}");
}

pub async fn drops_it_from_blocks_beside_the_chain_too(place: Place) {
    let store = place.open().await;
    let (one, two) = (Device::new(1), Device::new(2));
    let list = [one.count(0..3), two.count(0..1)].concat();
    store.admit(&list, START_MS).await.unwrap();
    let mut chain = Chain::new("test");
    let below = chain.clone();
    chain.seal(&list[1..]);
    chain.seal(&list[..1]);
    let right = put(&store, &chain).await;
    store.commit(&right, chain.branch().tip(), 2, &[]).await.unwrap();
    assert_eq!(store.prune_side_blocks(KeyId([9; 32]), 9).await.unwrap(), 0);
    assert_eq!(store.prune_side_blocks(one.key_id(), 2).await.unwrap(), 2);
    let mut expected = stored(&chain);
    drop_from(&mut expected, one.key_id(), 1..2);
    for block in &expected[1..] {
        let bytes = store.side_block(block.hash).await.unwrap().expect("the block is kept");
        assert_eq!(codec::decode_kept_block(&bytes).as_ref(), Ok(&block.block));
    }
    assert_eq!(store.prune_side_blocks(one.key_id(), 2).await.unwrap(), 0, "once");
    assert_eq!(pending(&store).await, ids(&list), "what waits is left alone");
    assert_eq!(store.branch().await.unwrap(), Some(below.branch()));
}

pub async fn gives_the_space_back(place: Place) {
    let store = place.open().await;
    let (one, two) = (Device::new(1), Device::new(2));
    // Digits that no database compresses to nothing.
    let long = |device: &Device, number: u32| {
        let mut state = u64::from(number);
        device.say((0..500).fold(String::new(), |text, _| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            format!("{text}{state:016x}")
        }))
    };
    let mut chain = Chain::new("test");
    chain.seal(&(0..300).map(|number| long(&one, number)).collect::<Vec<_>>());
    chain.seal(&two.count(0..9));
    store.add_keys(&[one.public_key.clone(), two.public_key.clone()]).await.unwrap();
    put(&store, &chain).await;
    let before = store.size().await.unwrap();
    let dropped = prune(&store, one.key_id(), 0..9, 100).await;
    store.compact(true).await.unwrap();
    let after = store.size().await.unwrap();
    assert!(after < before / 2, "{before} bytes before, {after} after, {} dropped", dropped.bytes);
    store.compact(false).await.unwrap();
    let mut expected = stored(&chain);
    drop_from(&mut expected, one.key_id(), 1..2);
    assert_eq!(store.blocks(0, 9, usize::MAX).await.unwrap(), expected);
    store.admit(&two.count(9..10), START_MS).await.unwrap();
}
