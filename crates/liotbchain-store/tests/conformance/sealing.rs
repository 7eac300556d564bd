//! Blocks go on the best chain.

use liotbchain_core::{BlockHash, CheckedBlock};
use liotbchain_store::{Right, Status, StoreError};

use crate::{
    chain::{Chain, Device, START_MS, ids, unsigned},
    contents::{Contents, assert_holds, put, sealed, stored, take_right},
    place::Place,
};

pub async fn is_empty_at_first(place: Place) {
    let store = place.open().await;
    let device = Device::new(1);
    store.ping().await.unwrap();
    let contents = Contents::of(&store, &device.count(0..2), Chain::new("test").blocks.as_slice()).await;
    assert_eq!(contents.branch, None);
    assert!(contents.blocks.is_empty() && contents.pending.is_empty());
    assert!(contents.statements.is_empty() && contents.public_keys.is_empty());
    assert!(contents.statuses.values().all(Option::is_none));
    assert_eq!(contents.side_blocks, [None]);
    assert_eq!(store.height_of(BlockHash::ZERO).await.unwrap(), None);
    assert!(!store.location().is_empty());
}

pub async fn is_created_once(place: Place) {
    let store = place.open().await;
    let (chain, other) = (Chain::new("test"), Chain::new("other"));
    store.create(chain.genesis()).await.unwrap();
    assert_holds(&store, &chain).await;
    let beside = place.open_beside(&store).await;
    for (store, genesis) in [(&store, chain.genesis()), (&store, other.genesis()), (&beside, other.genesis())]
    {
        assert!(matches!(store.create(genesis).await, Err(StoreError::AlreadyCreated)));
        assert_holds(store, &chain).await;
    }
}

pub async fn is_created_by_one_of_two(place: Place) {
    let store = place.open().await;
    let beside = place.open_beside(&store).await;
    let (one, two) = (Chain::new("one"), Chain::new("two"));
    let (got_one, got_two) = tokio::join!(store.create(one.genesis()), beside.create(two.genesis()));
    let winner = match (got_one, got_two) {
        (Ok(()), Err(StoreError::AlreadyCreated)) => one,
        (Err(StoreError::AlreadyCreated), Ok(())) => two,
        both => panic!("expected one to be a moment faster: {both:?}"),
    };
    assert_holds(&store, &winner).await;
    assert_holds(&beside, &winner).await;
}

pub async fn gives_the_branch_after_every_block(place: Place) {
    let store = place.open().await;
    let devices = [Device::new(1), Device::new(2)];
    let mut chain = Chain::new("test");
    store.create(chain.genesis()).await.unwrap();
    let right = take_right(&store).await;
    for number in 0..40 {
        let list = [
            devices[number as usize % 2].count(number..number + 1),
            devices[0].count(100 + number..101 + number),
        ];
        store.admit(&list.concat(), START_MS).await.unwrap();
        let tip = chain.branch().tip();
        let block = chain.seal(&list.concat());
        store.commit(&right, tip, 0, &[block]).await.unwrap();
        assert_eq!(store.branch().await.unwrap(), Some(chain.branch()));
    }
    assert_holds(&store, &chain).await;
    let tip = chain.branch().tip();
    store.commit(&right, tip, 0, &[]).await.unwrap();
    assert_holds(&store, &chain).await;
}

pub async fn takes_many_blocks_in_one_commit(place: Place) {
    let store = place.open().await;
    let device = Device::new(1);
    let mut chain = Chain::new("test");
    let list = device.count(0..1100);
    store.admit(&list[..550], START_MS).await.unwrap();
    chain.seal_each(&list);
    let right = put(&store, &chain).await;
    assert_holds(&store, &chain).await;
    assert_eq!(store.pending_count(1).await.unwrap(), 0);
    let tip = chain.branch().tip();
    let block = chain.seal(&device.count(1100..1102));
    store.commit(&right, tip, 0, &[block]).await.unwrap();
    assert_eq!(store.branch().await.unwrap(), Some(chain.branch()));
}

pub async fn overtakes_nothing_that_waits_unknown_to_the_caller(place: Place) {
    let store = place.open().await;
    let device = Device::new(1);
    let mut chain = Chain::new("test");
    store.create(chain.genesis()).await.unwrap();
    let right = take_right(&store).await;
    let tip = chain.branch().tip();
    store.admit(&device.count(0..3), START_MS).await.unwrap();
    let holds_two = Chain::new("test").seal(&device.count(0..2));
    let refused = store.commit_all(&right, tip, 2, std::slice::from_ref(&holds_two)).await;
    assert!(matches!(refused, Err(StoreError::MorePending { expected: 2 })), "{refused:?}");
    assert_holds(&store, &chain).await;
    assert_eq!(store.pending_count(9).await.unwrap(), 3);
    let block = chain.seal(&device.count(0..5));
    store.commit_all(&right, tip, 3, &[block]).await.unwrap();
    assert_holds(&store, &chain).await;
    assert_eq!(store.pending_count(9).await.unwrap(), 0);
    let (tip, block) = (chain.branch().tip(), chain.seal(&device.count(5..6)));
    store.commit_all(&right, tip, 0, &[block]).await.unwrap();
    assert_holds(&store, &chain).await;
    let stale = Right { epoch: right.epoch + 1, ..right };
    let refused = store.commit_all(&stale, chain.branch().tip(), 0, &[]).await;
    assert!(matches!(refused, Err(StoreError::RightLost)), "{refused:?}");
}

pub async fn gives_pending_transactions_their_place(place: Place) {
    let store = place.open().await;
    let (one, two) = (Device::new(1), Device::new(2));
    let mut chain = Chain::new("test");
    store.admit(&one.count(0..4), START_MS).await.unwrap();
    store.add_keys(std::slice::from_ref(&two.public_key)).await.unwrap();
    // One waits, one is new and its key is known, one is unsigned.
    let list = [one.count(2..3), two.count(0..1), vec![unsigned("{}", 7)]].concat();
    let block = chain.seal(&list);
    put(&store, &chain).await;
    assert_holds(&store, &chain).await;
    let statuses = store.look_up(&ids(&list)).await.unwrap();
    assert_eq!(statuses, [0, 1, 2].map(|position| Some(sealed(&block, position))));
    let pending: Vec<_> = store.pending(9).await.unwrap().into_iter().map(|pending| pending.id).collect();
    assert_eq!(pending, ids(&[one.count(0..2), one.count(3..4)].concat()));
    let statements = store.statements(&ids(&list)).await.unwrap();
    for transaction in &list {
        assert_eq!(statements[&transaction.statement.id()], **transaction.statement.statement());
    }
}

/// A block's root commits to its signatures; the store may know another signature of the same statement.
pub async fn keeps_the_signature_that_the_block_holds(place: Place) {
    let store = place.open().await;
    let device = Device::p256();
    let mut chain = Chain::new("test");
    store.admit(&[device.say("a")], START_MS).await.unwrap();
    let again = device.say("a");
    chain.seal(std::slice::from_ref(&again));
    put(&store, &chain).await;
    assert_holds(&store, &chain).await;
    let id = again.statement.id();
    assert_eq!(store.statements(&[id]).await.unwrap()[&id], **again.statement.statement());
}

pub async fn changes_nothing_where_the_tip_moved(place: Place) {
    let store = place.open().await;
    let device = Device::new(1);
    let mut chain = Chain::new("test");
    chain.seal_each(&device.count(0..3));
    store.admit(&device.count(0..8), START_MS).await.unwrap();
    let right = put(&store, &chain).await;
    let (list, tip) = (device.count(0..8), chain.branch().tip());
    let before = Contents::of(&store, &list, &chain.blocks).await;
    let mut longer = chain.clone();
    let block = longer.seal(&list[3..5]);
    for stale in [BlockHash::ZERO, chain.genesis().hash(), chain.blocks[2].hash(), block.hash()] {
        for disconnect in [0, 1] {
            match store.commit(&right, stale, disconnect, std::slice::from_ref(&block)).await {
                Err(StoreError::TipMoved { expected, got }) => assert_eq!((expected, got), (stale, tip)),
                other => panic!("expected the tip to have moved: {other:?}"),
            }
        }
    }
    assert_eq!(Contents::of(&store, &list, &chain.blocks).await, before);
    store.commit(&right, tip, 0, &[block]).await.unwrap();
    assert_holds(&store, &longer).await;
}

pub async fn changes_nothing_where_the_blocks_do_not_fit(place: Place) {
    let store = place.open().await;
    let (device, unknown) = (Device::new(1), Device::new(2));
    let mut chain = Chain::new("test");
    chain.seal_each(&device.count(0..3));
    store.admit(&device.count(0..9), START_MS).await.unwrap();
    let right = put(&store, &chain).await;
    let tip = chain.branch().tip();

    let mut good = chain.clone();
    let next = good.seal_each(&device.count(3..5));
    let mut of_unknown_key = chain.clone();
    of_unknown_key.seal(&device.count(3..4));
    of_unknown_key.seal(&unknown.count(0..1));
    let mut of_sealed = chain.clone();
    of_sealed.seal(&device.count(3..4));
    of_sealed.seal_again(&device.count(1..2));
    let mut of_its_own = chain.clone();
    of_its_own.seal(&device.count(3..4));
    of_its_own.seal_again(&device.count(3..4));
    let cases: [(&str, &[CheckedBlock]); 6] = [
        ("a key that nobody made known", &of_unknown_key.blocks[4..]),
        ("an id that a block below holds", &of_sealed.blocks[4..]),
        ("an id that a block before it holds", &of_its_own.blocks[4..]),
        ("a gap", &next[1..]),
        ("a block twice", &[next[0].clone(), next[0].clone()]),
        ("the tip again", &chain.blocks[3..]),
    ];
    let list = [device.count(0..9), unknown.count(0..1)].concat();
    let before = Contents::of(&store, &list, &good.blocks).await;
    for (case, blocks) in cases {
        let result = store.commit(&right, tip, 0, blocks).await;
        let is_already_sealed = matches!(result, Err(StoreError::AlreadySealed));
        assert!(result.is_err() && is_already_sealed == case.contains(" id "), "{case}: {result:?}");
        assert_eq!(Contents::of(&store, &list, &good.blocks).await, before, "{case}");
    }
    store.commit(&right, tip, 0, &next).await.unwrap();
    assert_holds(&store, &good).await;
}

/// A header has room for timestamps that a database's numbers have not.
pub async fn keeps_every_timestamp_or_refuses_it(place: Place) {
    let store = place.open().await;
    let device = Device::new(1);
    let mut chain = Chain::starting_at("test", u64::MAX - 1);
    match store.create(chain.genesis()).await {
        Ok(()) => {
            let right = take_right(&store).await;
            store.add_keys(std::slice::from_ref(&device.public_key)).await.unwrap();
            chain.seal(&device.count(0..1));
            store.commit(&right, chain.genesis().hash(), 0, &chain.blocks[1..]).await.unwrap();
            assert_holds(&store, &chain).await;
            store.admit(&device.count(1..2), u64::MAX).await.unwrap();
            assert_eq!(store.pending(1).await.unwrap()[0].received_ms, u64::MAX);
            assert_eq!(store.look_up(&ids(&device.count(1..2))).await.unwrap(), [Some(Status::Pending)]);
        }
        Err(StoreError::Config { .. }) => {
            assert_eq!(store.branch().await.unwrap(), None);
            let chain = Chain::new("test");
            store.create(chain.genesis()).await.unwrap();
            assert_eq!(store.blocks(0, 1, 0).await.unwrap(), stored(&chain));
        }
        Err(error) => panic!("expected it to be kept, or refused with a cure: {error}"),
    }
}
