//! Transactions come in, each once.

use std::sync::Arc;

use liotbchain_core::KeyId;
use liotbchain_store::{Admitted, NewTransaction, Status};

use crate::{
    chain::{Chain, Device, START_MS, ids, unsigned},
    contents::{Contents, assert_holds, put, sealed, take_right},
    place::Place,
};

pub async fn admits_what_is_new_and_knows_what_is_not(place: Place) {
    let store = place.open().await;
    let device = Device::new(1);
    let mut chain = Chain::new("test");
    let first = device.count(0..3);
    let pending = |new| Admitted { statuses: vec![Status::Pending; 3], new };
    assert_eq!(store.admit(&first, START_MS).await.unwrap(), pending(3));
    assert_eq!(store.admit(&first, START_MS).await.unwrap(), pending(0));
    assert_eq!(store.admit(&device.count(1..4), START_MS).await.unwrap(), pending(1));
    assert_eq!(store.admit(&[], START_MS).await.unwrap(), Admitted { statuses: vec![], new: 0 });

    chain.seal(&[first[2].clone(), first[0].clone()]);
    put(&store, &chain).await;
    let admitted = store.admit(&device.count(0..5), START_MS).await.unwrap();
    let (zero, two) = (sealed(&chain.blocks[1], 1), sealed(&chain.blocks[1], 0));
    assert_eq!(admitted.statuses, [zero, Status::Pending, two, Status::Pending, Status::Pending]);
    assert_eq!(admitted.new, 1);
    let unknown = device.say("never sent").statement.id();
    let ids = [ids(&first), vec![unknown]].concat();
    assert_eq!(store.look_up(&ids).await.unwrap(), [Some(zero), Some(Status::Pending), Some(two), None]);
    assert_eq!(store.look_up(&[]).await.unwrap(), []);
}

pub async fn counts_an_id_once_that_stands_twice_in_a_list(place: Place) {
    let store = place.open().await;
    let (one, two) = (Device::new(1), Device::new(2));
    let list = [one.say("a"), two.say("a"), one.say("a"), one.say("b"), one.say("a")];
    let admitted = store.admit(&list, START_MS).await.unwrap();
    assert_eq!(admitted, Admitted { statuses: vec![Status::Pending; 5], new: 3 });
    assert_eq!(pending_ids(&store).await, ids(&[one.say("a"), two.say("a"), one.say("b")]));
}

pub async fn keeps_the_signature_that_came_first(place: Place) {
    let store = place.open().await;
    let device = Device::p256();
    let (first, second) = (device.say("a"), device.say("a"));
    assert_ne!(first.statement.statement().signature, second.statement.statement().signature);
    store.admit(std::slice::from_ref(&first), START_MS).await.unwrap();
    assert_eq!(store.admit(&[second], START_MS).await.unwrap().new, 0);
    let id = first.statement.id();
    assert_eq!(store.statements(&[id]).await.unwrap()[&id], **first.statement.statement());
}

pub async fn keeps_the_order_of_arrival(place: Place) {
    let store = place.open().await;
    let (one, two) = (Device::new(1), Device::new(2));
    // Clocks run backwards at times; the order is that of admission.
    let arrivals =
        [(one.count(0..40), START_MS + 5), (two.count(0..40), START_MS), (one.count(20..60), START_MS + 9)];
    for (list, now_ms) in &arrivals {
        store.admit(list, *now_ms).await.unwrap();
    }
    let mut expected: Vec<_> = ids(&arrivals[0].0).into_iter().map(|id| (id, START_MS + 5)).collect();
    expected.extend(ids(&arrivals[1].0).into_iter().map(|id| (id, START_MS)));
    expected.extend(ids(&one.count(40..60)).into_iter().map(|id| (id, START_MS + 9)));
    let pending = |limit| {
        let store = Arc::clone(&store);
        async move {
            store
                .pending(limit)
                .await
                .unwrap()
                .into_iter()
                .map(|it| (it.id, it.received_ms))
                .collect::<Vec<_>>()
        }
    };
    assert_eq!(pending(u32::MAX).await, expected);
    assert_eq!(pending(100).await, expected);
    assert_eq!(pending(7).await, expected[..7]);
    assert_eq!(pending(0).await, []);
    for (limit, count) in [(0, 0), (99, 99), (100, 100), (101, 100), (u64::MAX, 100)] {
        assert_eq!(store.pending_count(limit).await.unwrap(), count, "counting to {limit}");
    }
}

pub async fn keeps_any_text(place: Place) {
    let store = place.open().await;
    let device = Device::new(1);
    let mut chain = Chain::new("test");
    let texts = [
        "\0".to_owned(),
        "before\0after".to_owned(),
        "\u{1f600}\u{10ffff}\u{e9}e\u{301}\u{2028}\u{feff}".to_owned(),
        " '\"\\%_\t\r\n\u{7f} ".to_owned(),
        "NULL".to_owned(),
        "x'00'".to_owned(),
        "0123".to_owned(),
        "\0".repeat(65_536),
        "\u{1f600}".repeat(65_536 / 4),
    ];
    let list: Vec<_> = texts.iter().map(|text| device.say(text.clone())).collect();
    assert_eq!(store.admit(&list, START_MS).await.unwrap().new, texts.len() as u64);
    let statements = store.statements(&ids(&list)).await.unwrap();
    for transaction in &list {
        assert_eq!(statements[&transaction.statement.id()], **transaction.statement.statement());
    }
    chain.seal(&list);
    // Some come in a block before they come alone.
    chain.seal(&[device.say("\0\0"), device.say("\u{1f600}\0")]);
    put(&store, &chain).await;
    assert_holds(&store, &chain).await;
}

pub async fn keeps_unsigned_transactions_apart(place: Place) {
    let store = place.open().await;
    let mut chain = Chain::new("test");
    let list = [unsigned("{}", 1), unsigned("{}", 2), unsigned("{}", 1)];
    assert_eq!(store.admit(&list, START_MS).await.unwrap().new, 2);
    chain.seal(&list[..2]);
    put(&store, &chain).await;
    assert_holds(&store, &chain).await;
    // The genesis transaction is number 0 of the zero key.
    assert_eq!(store.next_sequences(&[KeyId::ZERO]).await.unwrap()[&KeyId::ZERO], 3);
    assert!(store.public_keys(&[KeyId::ZERO]).await.unwrap().is_empty());
}

pub async fn refuses_a_transaction_of_an_unknown_key(place: Place) {
    let store = place.open().await;
    let (known, unknown) = (Device::new(1), Device::new(2));
    let list = [known.say("a"), NewTransaction { public_key: None, ..unknown.say("b") }];
    let before = Contents::of(&store, &list, &[]).await;
    assert!(store.admit(&list, START_MS).await.is_err());
    assert_eq!(Contents::of(&store, &list, &[]).await, before);
    assert_eq!(store.admit(&[known.say("a"), unknown.say("b")], START_MS).await.unwrap().new, 2);
}

pub async fn keeps_public_keys(place: Place) {
    let store = place.open().await;
    let devices = [Device::new(1), Device::new(2), Device::p256()];
    let keys: Vec<_> = devices.iter().map(|device| device.public_key.clone()).collect();
    let key_ids: Vec<_> = devices.iter().map(Device::key_id).collect();
    store.admit(&[devices[0].say("a")], START_MS).await.unwrap();
    assert_eq!(store.public_keys(&key_ids).await.unwrap().len(), 1);
    for _ in 0..2 {
        store.add_keys(&[keys.clone(), keys.clone()].concat()).await.unwrap();
    }
    let found = store.public_keys(&key_ids).await.unwrap();
    for key in &keys {
        assert_eq!(found[&key.key_id()].spki_der(), key.spki_der());
    }
    assert_eq!(found.len(), 3);
    let sequences = store.next_sequences(&[key_ids[0], KeyId([9; 32])]).await.unwrap();
    assert_eq!(sequences, [(key_ids[0], 0), (KeyId([9; 32]), 0)].into());
    store.add_keys(&[]).await.unwrap();
}

pub async fn gives_an_id_one_row_however_many_admit_it(place: Place) {
    let store = place.open().await;
    let beside = place.open_beside(&store).await;
    let device = Device::new(1);
    let list: Vec<_> = (0..8).flat_map(|number| Device::new(number).count(0..25)).collect();
    let tasks = (0..16).map(|number| {
        let store = Arc::clone(if number % 2 == 0 { &store } else { &beside });
        let mut list = list.clone();
        // Everybody begins elsewhere, and half go the other way round.
        list.rotate_left(number * 12);
        if number % 4 < 2 {
            list.reverse();
        }
        tokio::spawn(async move { store.admit(&list, START_MS).await.unwrap() })
    });
    let mut new = 0;
    for task in tasks.collect::<Vec<_>>() {
        let admitted = task.await.unwrap();
        assert_eq!(admitted.statuses, vec![Status::Pending; list.len()]);
        new += admitted.new;
    }
    assert_eq!(new, list.len() as u64);
    let (mut got, mut expected) = (pending_ids(&store).await, ids(&list));
    got.sort();
    expected.sort();
    assert_eq!(got, expected);
    // Whoever seals finds them all.
    let mut chain = Chain::new("test");
    chain.seal(&[device.count(0..25), device.count(25..30)].concat());
    store.create(chain.genesis()).await.unwrap();
    let right = take_right(&store).await;
    store.commit(&right, chain.genesis().hash(), 0, &chain.blocks[1..]).await.unwrap();
    assert_eq!(store.pending_count(u64::MAX).await.unwrap(), 175);
    assert_eq!(beside.branch().await.unwrap(), Some(chain.branch()));
}

async fn pending_ids(store: &Arc<dyn liotbchain_store::Store>) -> Vec<liotbchain_core::TransactionId> {
    store.pending(u32::MAX).await.unwrap().into_iter().map(|pending| pending.id).collect()
}
