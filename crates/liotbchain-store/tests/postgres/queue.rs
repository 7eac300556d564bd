//! The queue of pending transactions, whose front a store remembers.

use liotbchain_core::TransactionId;
use liotbchain_store::Store;

use crate::{
    TTL,
    chain::{Chain, Device, START_MS, ids},
    cluster::Cluster,
    open,
};

async fn pending(store: &dyn Store) -> Vec<TransactionId> {
    store.pending(100).await.unwrap().iter().map(|pending| pending.id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn finds_at_its_front_what_comes_late_and_what_comes_back() {
    let cluster = Cluster::start();
    let url = cluster.make_database("chain").await;
    let store = open(&url).await;
    let mut chain = Chain::new("test");
    store.create(chain.genesis()).await.unwrap();
    let device = Device::new(1);
    let next_arrival = async |number: u32| {
        cluster
            .execute(
                "chain",
                &format!("SELECT setval('liotbchain.transactions_arrival_seq', {number}, false)"),
            )
            .await;
    };
    let [first, second, late] = [device.count(0..1), device.count(1..2), device.count(2..3)];

    next_arrival(1_000).await;
    store.admit(&first, START_MS).await.unwrap();
    assert_eq!(pending(&store).await, ids(&first));
    let right = store.acquire_right("a", TTL).await.unwrap().unwrap();
    let (below, block) = (chain.branch().tip(), chain.seal(&first));
    store.commit(&right, below, 0, std::slice::from_ref(&block)).await.unwrap();
    next_arrival(10_000_000).await;
    store.admit(&second, START_MS).await.unwrap();
    // The front is where it is found from now on.
    assert_eq!(pending(&store).await, ids(&second));

    // Another receiver drew its place long ago, and was slow to commit.
    next_arrival(2_000).await;
    open(&url).await.admit(&late, START_MS).await.unwrap();
    let all = [ids(&late), ids(&second)].concat();
    while pending(&store).await != all {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    while store.pending_count(10).await.unwrap() != 2 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }

    // What a reorganisation brings back stands where it stood, at once.
    let (tip, mut shorter) = (chain.branch().tip(), Chain::new("test"));
    store.commit(&right, tip, 1, &[shorter.seal(&late)]).await.unwrap();
    assert_eq!(pending(&store).await, [ids(&first), ids(&second)].concat());
    assert_eq!(store.pending_count(10).await.unwrap(), 2);
}
