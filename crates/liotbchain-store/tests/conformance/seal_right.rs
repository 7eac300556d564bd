//! One receiver at a time moves the best chain.

use std::{sync::Arc, time::Duration};

use liotbchain_store::{Right, Store, StoreError};
use tokio::time::sleep;

use crate::{
    chain::{Chain, Device},
    contents::{Contents, put},
    place::Place,
};

const LONG: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(100);
/// Long enough for [`SHORT`] to be over.
const PAUSE: Duration = Duration::from_millis(250);

/// Puts a chain of two blocks into the store, and returns it with a third block that follows, and the right.
async fn prepared(store: &Arc<dyn Store>) -> (Chain, Chain, Right) {
    let device = Device::new(1);
    store.add_keys(std::slice::from_ref(&device.public_key)).await.unwrap();
    let mut chain = Chain::new("test");
    chain.seal(&device.count(0..2));
    let right = put(store, &chain).await;
    let mut longer = chain.clone();
    longer.seal(&device.count(2..4));
    (chain, longer, right)
}

async fn commit(store: &Arc<dyn Store>, right: &Right, longer: &Chain) -> Result<(), StoreError> {
    store.commit(right, longer.blocks[1].hash(), 0, &longer.blocks[2..]).await
}

async fn assert_lost(store: &Arc<dyn Store>, right: &Right, longer: &Chain) {
    let list = Device::new(1).count(0..4);
    let before = Contents::of(store, &list, &longer.blocks).await;
    let result = commit(store, right, longer).await;
    assert!(matches!(result, Err(StoreError::RightLost)), "{result:?}");
    assert_eq!(Contents::of(store, &list, &longer.blocks).await, before);
}

pub async fn is_held_by_one(place: Place) {
    let store = place.open().await;
    let beside = place.open_beside(&store).await;
    let (one, two) = tokio::join!(store.acquire_right("one", LONG), beside.acquire_right("two", LONG));
    let holders = [one.unwrap(), two.unwrap()];
    let held: Vec<_> = holders.iter().flatten().collect();
    assert_eq!(held.len(), 1, "{holders:?}");
    for store in [&store, &beside] {
        assert_eq!(store.acquire_right("three", LONG).await.unwrap(), None);
    }
    let imposter = Right { holder: "three".to_owned(), epoch: held[0].epoch };
    assert!(matches!(store.renew_right(&imposter, LONG).await, Err(StoreError::RightLost)));
    store.release_right(&imposter).await.unwrap();
    assert_eq!(store.acquire_right("three", LONG).await.unwrap(), None);
    store.renew_right(held[0], LONG).await.unwrap();
}

pub async fn is_fenced_by_its_epoch(place: Place) {
    let store = place.open().await;
    let (_, longer, first) = prepared(&store).await;
    let second =
        store.acquire_right(&first.holder, LONG).await.unwrap().expect("the same holder takes it again");
    assert_eq!(second.holder, first.holder);
    assert!(second.epoch > first.epoch);
    assert_lost(&store, &first, &longer).await;
    assert!(matches!(store.renew_right(&first, LONG).await, Err(StoreError::RightLost)));
    store.release_right(&first).await.unwrap();
    assert_eq!(store.acquire_right("other", LONG).await.unwrap(), None, "an old epoch released it");
    commit(&store, &second, &longer).await.unwrap();
}

pub async fn expires(place: Place) {
    let store = place.open().await;
    let (_, longer, right) = prepared(&store).await;
    let right = store.acquire_right(&right.holder, SHORT).await.unwrap().unwrap();
    sleep(PAUSE).await;
    assert_lost(&store, &right, &longer).await;
    // Nobody else took it meanwhile.
    store.renew_right(&right, SHORT).await.unwrap();
    sleep(PAUSE).await;
    let other = store.acquire_right("other", LONG).await.unwrap().expect("it has expired");
    assert!(other.epoch > right.epoch);
    assert!(matches!(store.renew_right(&right, LONG).await, Err(StoreError::RightLost)));
    assert_lost(&store, &right, &longer).await;
    commit(&store, &other, &longer).await.unwrap();
}

pub async fn is_prolonged(place: Place) {
    let store = place.open().await;
    let (_, longer, right) = prepared(&store).await;
    let right = store.acquire_right(&right.holder, SHORT).await.unwrap().unwrap();
    store.renew_right(&right, LONG).await.unwrap();
    sleep(PAUSE).await;
    assert_eq!(store.acquire_right("other", LONG).await.unwrap(), None);
    commit(&store, &right, &longer).await.unwrap();
}

pub async fn is_released(place: Place) {
    let store = place.open().await;
    let (_, longer, right) = prepared(&store).await;
    store.release_right(&right).await.unwrap();
    assert_lost(&store, &right, &longer).await;
    assert!(matches!(store.renew_right(&right, LONG).await, Err(StoreError::RightLost)));
    let other = store.acquire_right("other", Duration::MAX).await.unwrap().expect("it was released");
    assert!(other.epoch > right.epoch);
    commit(&store, &other, &longer).await.unwrap();
}
