//! What was stored is read, in bounded pieces, from one snapshot.

use std::time::Duration;

use liotbchain_core::{Content, Header, TransactionId};
use tokio::time::sleep;

use crate::{
    chain::{Chain, Device, START_MS},
    contents::{Contents, put, stored, take_right},
    place::Place,
};

pub async fn pages_through_blocks(place: Place) {
    let store = place.open().await;
    let device = Device::new(1);
    let mut chain = Chain::new("test");
    for height in 1..=9u8 {
        // 10,000 bytes a block, in one or two payloads; what a transaction takes beside it is less than 1,000.
        let text = char::from(b'a' + height).to_string();
        let sizes = if height % 2 == 0 { vec![10_000] } else { vec![3_000, 7_000] };
        let list: Vec<_> = sizes.into_iter().map(|size| device.say(text.repeat(size))).collect();
        store.admit(&list, START_MS).await.unwrap();
        chain.seal(&list);
    }
    put(&store, &chain).await;
    let expected = stored(&chain);
    for (from, limit, bytes, end) in [
        (0, 4, usize::MAX, 4),
        (0, 100, usize::MAX, 10),
        (3, 1, usize::MAX, 4),
        (7, 2, usize::MAX, 9),
        (9, 9, usize::MAX, 10),
        (1, 100, 25_000, 4),
        (1, 100, 15_000, 3),
        (1, 1, 15_000, 2),
        (1, 100, 1, 2),
        (5, 100, 0, 6),
    ] {
        let got = store.blocks(from, limit, bytes).await.unwrap();
        assert_eq!(got, expected[from as usize..end], "from {from}, {limit} blocks, {bytes} bytes");
    }
    for from in [10, 11, u32::MAX] {
        assert_eq!(store.blocks(from, 9, usize::MAX).await.unwrap(), [], "from {from}");
    }
    let unknown = Header { nonce: 7, ..chain.blocks[3].header().clone() }.compute_hash();
    assert_eq!(store.height_of(unknown).await.unwrap(), None);
    assert_eq!(store.height_of(chain.blocks[3].hash()).await.unwrap(), Some(3));
}

pub async fn pages_through_ids(place: Place) {
    let store = place.open().await;
    assert_eq!(store.ids(TransactionId::ZERO, 9).await.unwrap(), []);
    let mut chain = Chain::new("test");
    let list = Device::new(1).count(0..9);
    store.admit(&list, START_MS).await.unwrap();
    // Some are sealed, some wait, and one is the genesis block's.
    chain.seal_each(&list[..5]);
    put(&store, &chain).await;
    let mut ids: Vec<_> = list.iter().map(|transaction| transaction.statement.id()).collect();
    ids.extend(chain.blocks[0].ids().iter().flatten());
    ids.sort_unstable();
    assert_eq!(store.ids(TransactionId::ZERO, 100).await.unwrap(), ids);
    assert_eq!(store.ids(ids[3], 100).await.unwrap(), ids[3..]);
    assert_eq!(store.ids(ids[3], 2).await.unwrap(), ids[3..5]);
    assert_eq!(store.ids(TransactionId([255; 32]), 9).await.unwrap(), []);
}

pub async fn finds_a_transaction_by_its_id(place: Place) {
    let store = place.open().await;
    let device = Device::new(1);
    let mut chain = Chain::new("test");
    let list = device.count(0..4);
    store.admit(&list, START_MS + 7).await.unwrap();
    chain.seal_each(&list[..3]);
    put(&store, &chain).await;
    for (number, transaction) in list.iter().enumerate() {
        let found = store.transaction(transaction.statement.id()).await.unwrap().unwrap();
        assert_eq!(found.content, Content::Full(transaction.statement.statement().clone()));
        assert_eq!(found.received_ms, START_MS + 7);
        let height = found.place.map(|place| place.height as usize);
        assert_eq!(height, (number < 3).then_some(number + 1));
        assert_eq!(found.sequence, (number < 3).then_some(number as u64));
        if let Some(place) = found.place {
            assert_eq!(place.block_hash, chain.blocks[number + 1].hash());
        }
    }
    let unknown = device.say("never sent").statement.id();
    assert_eq!(store.transaction(unknown).await.unwrap(), None);
}

/// The zero key, which stands for unsigned transactions, is none.
pub async fn pages_through_keys(place: Place) {
    let store = place.open().await;
    let mut devices: Vec<_> = (1..=5).map(Device::new).collect();
    devices.sort_by_key(Device::key_id);
    let mut chain = Chain::new("test");
    for device in &devices {
        store.admit(&[device.say("a"), device.say("b")], START_MS).await.unwrap();
    }
    chain.seal(&[devices[3].say("a"), devices[3].say("b")]);
    put(&store, &chain).await;
    let expected: Vec<_> =
        (0..5).map(|place| (devices[place].key_id(), if place == 3 { 2 } else { 0 })).collect();
    let mut got = Vec::new();
    let mut after = None;
    loop {
        let page = store.keys(after, 2).await.unwrap();
        let Some(last) = page.last() else { break };
        assert!(page.len() <= 2);
        after = Some(last.public_key.key_id());
        got.extend(page.iter().map(|known| (known.public_key.key_id(), known.transactions)));
    }
    assert_eq!(got, expected);
    assert_eq!(store.keys(None, u32::MAX).await.unwrap().len(), 5);
}

/// While the best chain jumps between two branches, a reader sees the one or the other.
pub async fn reads_one_snapshot(place: Place) {
    let store = place.open().await;
    let beside = place.open_beside(&store).await;
    let device = Device::new(1);
    store.add_keys(std::slice::from_ref(&device.public_key)).await.unwrap();
    let mut one = Chain::new("test");
    one.seal_each(&device.count(0..3));
    let mut two = one.clone();
    one.seal_each(&device.count(3..23));
    two.seal_each(&device.count(30..40));
    let right = put(&store, &one).await;
    let expected = [stored(&one), stored(&two)];
    let reader = tokio::spawn(async move {
        for _ in 0..200 {
            let blocks = beside.blocks(0, u32::MAX, usize::MAX).await.unwrap();
            assert!(expected.contains(&blocks), "{} blocks of two branches", blocks.len());
            let branch = beside.branch().await.unwrap().unwrap();
            assert!(expected.iter().any(|chain| chain.last().unwrap().hash == branch.tip()));
        }
    });
    let (mut from, mut to) = (&one, &two);
    while !reader.is_finished() {
        let disconnect = from.blocks.len() as u32 - 4;
        store.commit(&right, from.branch().tip(), disconnect, &to.blocks[4..]).await.unwrap();
        (from, to) = (to, from);
        // Leaves the reader its turn.
        sleep(Duration::from_millis(1)).await;
    }
    reader.await.unwrap();
}

pub async fn is_the_same_when_opened_again(place: Place) {
    let store = place.open().await;
    let (one, two) = (Device::new(1), Device::p256());
    let mut chain = Chain::new("test");
    let list = [one.count(0..40), two.count(0..40), vec![crate::chain::unsigned("\0\u{1f600}", 3)]].concat();
    store.admit(&list, START_MS).await.unwrap();
    chain.seal_each(&list[..20]);
    let mut other = Chain::new("test");
    other.seal(&list[70..]);
    other.seal_each(&list[..22]);
    let right = put(&store, &chain).await;
    store.commit(&right, chain.branch().tip(), 20, &other.blocks[1..]).await.unwrap();
    let before = Contents::of(&store, &list, &chain.blocks).await;
    store.close().await;
    drop(store);

    let store = place.open().await;
    if !place.is_durable() {
        assert_eq!(store.branch().await.unwrap(), None);
        return;
    }
    assert_eq!(Contents::of(&store, &list, &chain.blocks).await, before);
    // It goes on from there, and who held the right still does.
    assert_eq!(store.acquire_right("other", Duration::from_secs(1)).await.unwrap(), None);
    let again = take_right(&store).await;
    assert!(again.epoch > right.epoch);
    let tip = other.branch().tip();
    let block = other.seal(&list[22..24]);
    store.commit(&again, tip, 0, &[block]).await.unwrap();
    assert_eq!(store.branch().await.unwrap(), Some(other.branch()));
}
