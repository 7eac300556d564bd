//! The best chain moves from one branch to another.

use std::sync::Arc;

use liotbchain_core::{TransactionId, codec};
use liotbchain_store::{Status, Store, StoreError};

use crate::{
    chain::{Chain, Device, START_MS, ids},
    contents::{Contents, assert_holds, put, sealed, stored},
    place::Place,
};

async fn pending(store: &Arc<dyn Store>) -> Vec<TransactionId> {
    store.pending(u32::MAX).await.unwrap().into_iter().map(|pending| pending.id).collect()
}

/// Asserts that blocks are kept beside the best chain, from a height upwards.
async fn assert_beside(store: &Arc<dyn Store>, chain: &Chain, from: usize) {
    for block in &chain.blocks[from..] {
        let bytes = store.side_block(block.hash()).await.unwrap().expect("the block is kept");
        assert_eq!(codec::decode_block(&bytes).as_ref(), Ok(block.as_block()));
        assert_eq!(store.height_of(block.hash()).await.unwrap(), None);
    }
}

/// Two branches over one block, which share transactions.
///
/// ```text
///             ┌─ [c d] ── [e f]                  one
/// genesis ── [a b]
///             └─ [d] ── [g x y] ── [h e]         two
/// ```
///
/// `f`, `g`, `x` and `y` come in a block before they come alone.
pub async fn moves_to_another_branch_and_back(place: Place) {
    let store = place.open().await;
    let (left, right) = (Device::new(1), Device::new(2));
    let [a, b, c, d, e, f] = ["a", "b", "c", "d", "e", "f"].map(|text| left.say(text));
    let [g, h, i] = ["g", "h", "i"].map(|text| right.say(text));
    let [x, y] = [1, 2].map(|salt| crate::chain::unsigned("{}", salt));
    let alone = [&a, &c, &h, &b, &e, &i, &d].map(Clone::clone);
    store.admit(&alone, START_MS).await.unwrap();

    let mut one = Chain::new("test");
    one.seal(&[a.clone(), b.clone()]);
    let mut two = one.clone();
    one.seal(&[c.clone(), d.clone()]);
    one.seal(&[e.clone(), f.clone()]);
    two.seal(std::slice::from_ref(&d));
    two.seal(&[g.clone(), x.clone(), y.clone()]);
    two.seal(&[h.clone(), e.clone()]);

    let right = put(&store, &one).await;
    assert_holds(&store, &one).await;
    assert_eq!(pending(&store).await, ids(&[h.clone(), i.clone()]));

    store.commit(&right, one.branch().tip(), 2, &two.blocks[2..]).await.unwrap();
    assert_holds(&store, &two).await;
    assert_beside(&store, &one, 2).await;
    // f arrived with its block, after the others.
    assert_eq!(pending(&store).await, ids(&[c.clone(), i.clone(), f.clone()]));
    let statuses = store.look_up(&ids(&[d.clone(), e.clone(), c.clone(), f.clone()])).await.unwrap();
    let (d_place, e_place) = (sealed(&two.blocks[2], 0), sealed(&two.blocks[4], 1));
    assert_eq!(statuses, [Some(d_place), Some(e_place), Some(Status::Pending), Some(Status::Pending)]);

    let mut longer = one.clone();
    longer.seal(std::slice::from_ref(&i));
    store.commit(&right, two.branch().tip(), 3, &longer.blocks[2..]).await.unwrap();
    assert_holds(&store, &longer).await;
    assert_beside(&store, &two, 2).await;
    assert_eq!(pending(&store).await, ids(&[h, g, x, y]));
    assert_eq!(store.admit(&alone, START_MS).await.unwrap().new, 0);
}

pub async fn makes_transactions_pending_at_their_old_place(place: Place) {
    let store = place.open().await;
    let device = Device::new(1);
    let list = device.count(0..30);
    let mut chain = Chain::new("test");
    store.admit(&list, START_MS + 7).await.unwrap();
    let below = chain.clone();
    // Sealed in another order than they came.
    chain.seal(&list.iter().rev().step_by(3).cloned().collect::<Vec<_>>());
    chain.seal(&list.iter().skip(1).step_by(3).cloned().collect::<Vec<_>>());
    let right = put(&store, &chain).await;
    assert_eq!(store.pending_count(99).await.unwrap(), 10);
    store.commit(&right, chain.branch().tip(), 2, &[]).await.unwrap();
    assert_holds(&store, &below).await;
    assert_beside(&store, &chain, 1).await;
    assert_eq!(pending(&store).await, ids(&list));
    assert!(store.pending(99).await.unwrap().iter().all(|pending| pending.received_ms == START_MS + 7));
    assert_eq!(store.next_sequences(&[device.key_id()]).await.unwrap()[&device.key_id()], 0);
    let found = store.statements(&ids(&list)).await.unwrap();
    for transaction in &list {
        assert_eq!(found[&transaction.statement.id()], **transaction.statement.statement());
    }
}

/// Its size goes up and down over several powers of two.
pub async fn keeps_the_history_tree(place: Place) {
    let store = place.open().await;
    let devices = [Device::new(1), Device::new(2)];
    let mut chain = Chain::new("test");
    chain.seal_each(&devices[0].count(0..70));
    store.add_keys(&devices.each_ref().map(|device| device.public_key.clone())).await.unwrap();
    let right = put(&store, &chain).await;
    for (round, (disconnect, connect)) in (0..).zip([(50, 60), (1, 2), (60, 3), (20, 20), (3, 0), (15, 130)])
    {
        let tip = chain.branch().tip();
        let keep = chain.blocks.len() - disconnect;
        let mut next = chain.cut(keep);
        next.seal_each(&devices[1].count(1000 * round..1000 * round + connect));
        store.commit(&right, tip, disconnect as u32, &next.blocks[keep..]).await.unwrap();
        assert_eq!(store.branch().await.unwrap(), Some(next.branch()), "-{disconnect} +{connect}");
        chain = next;
    }
    assert_holds(&store, &chain).await;
}

pub async fn changes_nothing_where_it_fails(place: Place) {
    let store = place.open().await;
    let (device, unknown) = (Device::new(1), Device::new(2));
    let list = device.count(0..9);
    store.admit(&list, START_MS).await.unwrap();
    let mut chain = Chain::new("test");
    let mut other = chain.clone();
    chain.seal_each(&list[..4]);
    other.seal_each(&list[2..7]);
    other.seal(&unknown.count(0..1));
    let right = put(&store, &chain).await;
    let blocks = [chain.blocks.clone(), other.blocks[1..].to_vec()].concat();
    let before = Contents::of(&store, &list, &blocks).await;
    let tip = chain.branch().tip();
    assert!(store.commit(&right, tip, 4, &other.blocks[1..]).await.is_err(), "a key that nobody made known");
    assert_eq!(Contents::of(&store, &list, &blocks).await, before);
    assert!(store.commit(&right, tip, 3, &other.blocks[1..6]).await.is_err(), "one too few taken off");
    assert_eq!(Contents::of(&store, &list, &blocks).await, before);
    store.commit(&right, tip, 4, &other.blocks[1..6]).await.unwrap();
    assert_eq!(store.blocks(0, 99, usize::MAX).await.unwrap(), stored(&other)[..6]);
}

pub async fn leaves_the_genesis_block(place: Place) {
    let store = place.open().await;
    let device = Device::new(1);
    store.admit(&device.count(0..2), START_MS).await.unwrap();
    let mut chain = Chain::new("test");
    chain.seal_each(&device.count(0..2));
    let right = put(&store, &chain).await;
    let other = Chain::new("other");
    for disconnect in [3, 4, u32::MAX] {
        for connect in [&[][..], &other.blocks] {
            let result = store.commit(&right, chain.branch().tip(), disconnect, connect).await;
            assert!(matches!(result, Err(StoreError::Config { .. })), "{disconnect}: {result:?}");
            assert_holds(&store, &chain).await;
        }
    }
}
