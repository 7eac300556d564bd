//! What is committed, and is missing at the synchronous standby.

use std::{sync::Arc, time::Duration};

use liotbchain_store::{OpenOptions, Status, Store, StoreError, postgres::PostgresStore};

use crate::{
    TTL,
    chain::{Chain, Device, START_MS, ids},
    cluster::Cluster,
};

/// Processes of the server that wait for the standby.
const WAITING: &str = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'";

async fn open_for(cluster: &Cluster, timeout: Duration) -> Arc<PostgresStore> {
    let options = OpenOptions { timeout, ..OpenOptions::default() };
    Arc::new(PostgresStore::open(&cluster.url("chain"), &options).await.unwrap())
}

/// Has commits wait for a standby that never comes, or for none.
async fn wait_for_standby(cluster: &Cluster, names: &str) {
    cluster.execute("postgres", &format!("ALTER SYSTEM SET synchronous_standby_names = '{names}'")).await;
    cluster.control("reload");
    let set = format!("SELECT current_setting('synchronous_standby_names') = '{names}'");
    until(cluster, &set, |rows| rows == ["t"]).await;
}

/// Settles the doubt that every new connection brings.
async fn settle(store: &PostgresStore) {
    store.look_up(&[]).await.unwrap();
}

async fn until(cluster: &Cluster, sql: &str, condition: impl Fn(&[String]) -> bool) -> Vec<String> {
    loop {
        let rows = cluster.rows("postgres", sql).await;
        if condition(&rows) {
            return rows;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Ends the wait of the only commit that waits.
async fn end_wait(cluster: &Cluster, function: &str) {
    let waiting = until(cluster, WAITING, |rows| rows.len() == 1).await;
    cluster.execute("postgres", &format!("SELECT {function}({})", waiting[0])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_wait_for_the_standby_was_ended_is_unknown_until_the_standby_has_it() {
    for function in ["pg_cancel_backend", "pg_terminate_backend"] {
        let cluster = Cluster::start();
        cluster.make_database("chain").await;
        let store = open_for(&cluster, Duration::from_secs(5)).await;
        let hasty = open_for(&cluster, Duration::from_millis(500)).await;
        let mut chain = Chain::new("test");
        store.create(chain.genesis()).await.unwrap();
        let device = Device::new(1);
        store.add_keys(std::slice::from_ref(&device.public_key)).await.unwrap();
        settle(&hasty).await;
        let right = store.acquire_right("a", TTL).await.unwrap().unwrap();
        let reading = device.count(0..1);

        wait_for_standby(&cluster, "nobody").await;
        let admission = {
            let (store, reading) = (Arc::clone(&store), reading.clone());
            tokio::spawn(async move { store.admit(&reading, START_MS).await })
        };
        end_wait(&cluster, function).await;
        let admitted = admission.await.unwrap();
        assert!(matches!(admitted, Err(StoreError::CommitUnknown(_))), "{function}: {admitted:?}");
        // It can be seen, and is acknowledged to nobody: not to who asks what became of it, nor to who sends it again,
        // to whichever receiver.
        let seen = cluster.rows("chain", "SELECT count(*) FROM liotbchain.transactions").await;
        assert_eq!(seen, ["2"], "the genesis block's is the first");
        assert!(matches!(hasty.admit(&reading, START_MS).await, Err(StoreError::CommitUnknown(_))));
        assert!(matches!(hasty.look_up(&ids(&reading)).await, Err(StoreError::Unavailable(_))));
        wait_for_standby(&cluster, "").await;
        assert_eq!(store.look_up(&ids(&reading)).await.unwrap(), [Some(Status::Pending)]);
        assert_eq!(hasty.admit(&reading, START_MS).await.unwrap().new, 0);

        wait_for_standby(&cluster, "nobody").await;
        let (before, block) = (chain.branch().tip(), chain.seal(&reading));
        let commit = {
            let (store, right) = (Arc::clone(&store), right.clone());
            tokio::spawn(async move { store.commit(&right, before, 0, &[block]).await })
        };
        end_wait(&cluster, function).await;
        let committed = commit.await.unwrap();
        assert!(matches!(committed, Err(StoreError::CommitUnknown(_))), "{function}: {committed:?}");
        let branch = {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.branch().await })
        };
        until(&cluster, WAITING, |rows| rows.len() == 1).await;
        wait_for_standby(&cluster, "").await;
        assert_eq!(branch.await.unwrap().unwrap().unwrap().tip(), chain.branch().tip());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_brought_to_light_is_acknowledged_when_the_standby_has_it() {
    let cluster = Cluster::start();
    cluster.make_database("chain").await;
    let (store, other) = (
        open_for(&cluster, Duration::from_secs(5)).await,
        open_for(&cluster, Duration::from_millis(500)).await,
    );
    settle(&store).await;
    settle(&other).await;
    let reading = Device::new(1).count(0..1);
    wait_for_standby(&cluster, "nobody").await;
    let admission = {
        let (store, reading) = (Arc::clone(&store), reading.clone());
        tokio::spawn(async move { store.admit(&reading, START_MS).await })
    };
    until(&cluster, WAITING, |rows| rows.len() == 1).await;
    assert_eq!(other.look_up(&ids(&reading)).await.unwrap(), [None], "while it waits, nobody sees it");
    cluster.restart("immediate");
    assert!(matches!(admission.await.unwrap(), Err(StoreError::CommitUnknown(_))));
    // Who had nothing to do with it has a new connection to a server that shows it.
    assert_eq!(cluster.rows("chain", "SELECT count(*) FROM liotbchain.transactions").await, ["1"]);
    assert!(matches!(other.look_up(&ids(&reading)).await, Err(StoreError::Unavailable(_))));
    wait_for_standby(&cluster, "").await;
    assert_eq!(other.look_up(&ids(&reading)).await.unwrap(), [Some(Status::Pending)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_that_wait_for_a_standby_do_not_use_up_the_servers_processes() {
    let cluster = Cluster::start();
    cluster.make_database("chain").await;
    let store = open_for(&cluster, Duration::from_millis(300)).await;
    let device = Device::new(1);
    settle(&store).await;
    wait_for_standby(&cluster, "nobody").await;
    for number in 0..8 {
        let result = store.admit(&[device.say(format!("{number}"))], START_MS).await;
        match result {
            Err(StoreError::CommitUnknown(_)) if number == 0 => {}
            Err(StoreError::Unavailable(_)) if number > 0 => {}
            other => panic!("{number}: {other:?}"),
        }
    }
    // The first one, which nobody can take back.
    until(&cluster, WAITING, |rows| rows.len() == 1).await;
    let first = [device.say("0")];
    assert!(matches!(store.look_up(&ids(&first)).await, Err(StoreError::Unavailable(_))));
    wait_for_standby(&cluster, "").await;
    while store.look_up(&ids(&first)).await.ok() != Some(vec![Some(Status::Pending)]) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let all: Vec<_> = (0..8).map(|number| device.say(format!("{number}"))).collect();
    assert_eq!(store.admit(&all, START_MS).await.unwrap().new, 7);
}
