//! What was stored is read, in bounded pieces, from one snapshot.

use std::time::Duration;

use liotbchain_core::Header;
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
        // 100 bytes a block, in one or two payloads.
        let text = char::from(b'a' + height).to_string();
        let sizes = if height % 2 == 0 { vec![100] } else { vec![30, 70] };
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
        (1, 100, 250, 4),
        (1, 100, 150, 3),
        (1, 1, 150, 2),
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
