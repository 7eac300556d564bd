//! What one receiver hears of another's changes.

use std::time::Duration;

use liotbchain_store::{Store, postgres::PostgresStore};
use tokio::time::timeout;

use crate::{
    TTL,
    chain::{Chain, Device, START_MS},
    cluster::Cluster,
    open,
};

/// Far longer than it takes, and no assertion about how long.
const PATIENCE: Duration = Duration::from_secs(30);

/// Backends that listen.
const LISTENING: &str =
    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'liotbchain' AND query LIKE '%LISTEN%'";

async fn hears(store: &PostgresStore) {
    timeout(PATIENCE, store.changed()).await.expect("it hears of the change");
}

/// Waits until a store listens, and takes what it is told for having begun to.
async fn begin_to_listen(store: &PostgresStore) {
    hears(store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_hears_of_admissions_blocks_and_a_right_given_up() {
    let cluster = Cluster::start();
    let url = cluster.make_database("chain").await;
    let (one, two) = (open(&url).await, open(&url).await);
    let mut chain = Chain::new("test");
    one.create(chain.genesis()).await.unwrap();
    let device = Device::new(1);
    let list = device.count(0..3);
    begin_to_listen(&two).await;

    one.admit(&list, START_MS).await.unwrap();
    hears(&two).await;
    let right = one.acquire_right("one", TTL).await.unwrap().unwrap();
    let tip = chain.branch().tip();
    one.commit(&right, tip, 0, &[chain.seal(&list)]).await.unwrap();
    hears(&two).await;
    // What is to be told is told before a store closes.
    one.release_right(&right).await.unwrap();
    one.close().await;
    hears(&two).await;
    assert!(two.acquire_right("two", TTL).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_hears_neither_itself_nor_another_database() {
    let cluster = Cluster::start();
    let (url, elsewhere) = (cluster.make_database("chain").await, cluster.make_database("elsewhere").await);
    let (one, other, observer) = (open(&url).await, open(&elsewhere).await, open(&url).await);
    begin_to_listen(&one).await;
    begin_to_listen(&observer).await;
    begin_to_listen(&other).await;
    one.admit(&Device::new(1).count(0..3), START_MS).await.unwrap();
    // One who hears it proves that it was said. The server hands it to all in the same order.
    hears(&observer).await;
    observer.admit(&Device::new(2).count(0..3), START_MS).await.unwrap();
    hears(&one).await;
    let again = timeout(Duration::from_millis(300), one.changed()).await;
    assert!(again.is_err(), "its own notification came before the observer's");
    assert!(timeout(Duration::ZERO, other.changed()).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_listens_again_when_the_server_is_back() {
    let cluster = Cluster::start();
    let url = cluster.make_database("chain").await;
    let (one, two) = (open(&url).await, open(&url).await);
    begin_to_listen(&two).await;
    cluster.restart("immediate");
    // It may have missed something meanwhile.
    hears(&two).await;
    // The connection from before may still be in the pool.
    while one.admit(&Device::new(1).count(0..3), START_MS).await.is_err() {}
    hears(&two).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_changes_are_told_in_few_notifications() {
    let cluster = Cluster::start();
    let url = cluster.make_database("chain").await;
    let store = open(&url).await;
    let device = Device::new(1);
    let (listener, mut connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = std::future::poll_fn(|context| connection.poll_message(context)).await {
            if let tokio_postgres::AsyncMessage::Notification(notification) = message {
                tell.send(notification).unwrap();
            }
        }
    });
    listener.batch_execute("LISTEN liotbchain").await.unwrap();
    begin_to_listen(&store).await;
    let begin = std::time::Instant::now();
    for number in 0..200 {
        store.admit(&[device.say(format!("{number}"))], START_MS).await.unwrap();
    }
    let elapsed = begin.elapsed();
    store.close().await;
    let mut count: u32 = 0;
    listener.batch_execute("NOTIFY liotbchain, 'the end'").await.unwrap();
    while told.recv().await.unwrap().payload() != "the end" {
        count += 1;
    }
    let most = elapsed.as_millis() / 10 + 3;
    assert!(count >= 1 && u128::from(count) <= most, "{count} notifications in {elapsed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_tells_nobody_anything_has_no_connection_for_it() {
    let cluster = Cluster::start();
    let url = cluster.make_database("chain").await;
    let store = open(&url).await;
    store.ping().await.unwrap();
    assert_eq!(cluster.rows("chain", LISTENING).await, ["0"]);
    begin_to_listen(&store).await;
    assert_eq!(cluster.rows("chain", LISTENING).await, ["1"]);
    store.close().await;
    let gone = async {
        while cluster.rows("chain", LISTENING).await != ["0"] {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, gone).await.expect("its connection ends");
}
