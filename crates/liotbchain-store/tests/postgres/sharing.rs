//! Several receivers on one database.

use std::{sync::Arc, time::Duration};

use liotbchain_store::{NewTransaction, Status, Store, StoreError};
use tokio_postgres::NoTls;

use crate::{
    TTL,
    chain::{Chain, Device, START_MS, ids},
    cluster::Cluster,
    open,
};

const DEADLOCKS: &str = "SELECT deadlocks FROM pg_stat_database WHERE datname = 'chain'";

#[tokio::test(flavor = "multi_thread")]
async fn receivers_that_admit_the_same_at_once_wait_for_no_deadlock() {
    let cluster = Cluster::start();
    let url = cluster.make_database("chain").await;
    let mut chain = Chain::new("test");
    let stores = [Arc::new(open(&url).await), Arc::new(open(&url).await)];
    stores[0].create(chain.genesis()).await.unwrap();
    let right = stores[0].acquire_right("a", TTL).await.unwrap().unwrap();
    // Keys that are new to both, too.
    let lists: Vec<Vec<_>> = (0..20u32)
        .map(|round| (0..40u8).flat_map(|key| Device::new(key).count(round * 3..round * 3 + 3)).collect())
        .collect();
    for (round, list) in lists.into_iter().enumerate() {
        let mut tasks = Vec::new();
        for turn in 0..6 {
            let (store, mut list) = (Arc::clone(&stores[turn % 2]), list.clone());
            let places = list.len();
            match turn {
                0 | 1 => list.reverse(),
                _ => list.rotate_left(turn * places / 6),
            }
            tasks.push(tokio::spawn(async move { store.admit(&list, START_MS).await.unwrap() }));
        }
        // A block from elsewhere that holds some of them, and arrives in the middle.
        let tip = chain.branch().tip();
        let keys: Vec<_> = (0..40u8).map(|key| Device::new(key).public_key).collect();
        stores[0].add_keys(&keys).await.unwrap();
        let mut part = list.clone();
        part.truncate(60);
        part.rotate_left(round);
        stores[0].commit(&right, tip, 0, &[chain.seal(&part)]).await.unwrap();
        let mut new = 0;
        for task in tasks {
            let admitted = task.await.unwrap();
            assert_eq!(admitted.statuses.len(), list.len());
            new += admitted.new;
        }
        assert!((list.len() as u64 - 60..=list.len() as u64).contains(&new), "{new}");
    }
    assert_eq!(cluster.rows("chain", DEADLOCKS).await, ["0"]);
    let rows =
        cluster.rows("chain", "SELECT count(*) || ' ' || count(height) FROM liotbchain.transactions").await;
    assert_eq!(rows, [format!("{} {}", 1 + 20 * 120, 1 + 20 * 60)]);
    let stored = stores[1].branch().await.unwrap().unwrap();
    assert_eq!(stored, chain.branch());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_from_elsewhere_and_an_admission_wait_in_one_direction_only() {
    let cluster = Cluster::start();
    let url = cluster.make_database("chain").await;
    let store = Arc::new(open(&url).await);
    let mut chain = Chain::new("test");
    store.create(chain.genesis()).await.unwrap();
    let device = Device::new(1);
    let (waits, arrives) = (device.say("waits"), device.say("arrives"));
    store.admit(std::slice::from_ref(&waits), START_MS).await.unwrap();
    let right = store.acquire_right("a", TTL).await.unwrap().unwrap();
    let tip = chain.branch().tip();
    let block = chain.seal(&[waits.clone(), arrives.clone()]);

    // Another receiver is in the middle of admitting both.
    let (other, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    tokio::spawn(connection);
    let admit = |new: &NewTransaction| {
        let statement = new.statement.statement();
        let bytes = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        format!(
            "INSERT INTO liotbchain.transactions (id, key, received_ms, payload, signature)
             SELECT '\\x{}', key, 0, '\\x{}', '\\x{}' FROM liotbchain.keys WHERE spki IS NOT NULL
             ON CONFLICT (id) DO NOTHING",
            new.statement.id(),
            bytes(statement.payload.as_bytes()),
            bytes(&statement.signature)
        )
    };
    other.batch_execute(&format!("BEGIN; {}", admit(&arrives))).await.unwrap();
    let commit = {
        let (store, block) = (Arc::clone(&store), block.clone());
        tokio::spawn(async move { store.commit(&right, tip, 0, &[block]).await })
    };
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    while cluster.rows("chain", waiting).await != ["1"] {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    other.batch_execute(&format!("{}; COMMIT", admit(&waits))).await.unwrap();
    commit.await.unwrap().unwrap();
    assert_eq!(cluster.rows("chain", DEADLOCKS).await, ["0"]);
    let statuses = store.look_up(&ids(&[waits, arrives])).await.unwrap();
    assert!(statuses.iter().all(|status| matches!(status, Some(Status::Sealed(_)))), "{statuses:?}");
    assert_eq!(&store.blocks(1, 1, 1).await.unwrap()[0].block, block.as_block());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_receivers_only_the_holder_of_the_right_moves_the_chain() {
    let cluster = Cluster::start();
    let url = cluster.make_database("chain").await;
    let genesis = Chain::new("test");
    open(&url).await.create(genesis.genesis()).await.unwrap();
    let run = |name: &'static str| {
        let (url, genesis) = (url.clone(), genesis.clone());
        tokio::spawn(async move {
            let store = open(&url).await;
            let device = Device::new(name.as_bytes()[0]);
            store.add_keys(std::slice::from_ref(&device.public_key)).await.unwrap();
            let (mut chain, mut sealed, mut lost) = (genesis, 0u32, 0);
            while sealed < 30 {
                let Some(right) = store.acquire_right(name, Duration::from_millis(40)).await.unwrap() else {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    continue;
                };
                // What the other one sealed meanwhile.
                let branch = store.branch().await.unwrap().unwrap();
                if branch.tip() != chain.branch().tip() {
                    let known = chain.blocks.len();
                    for block in store.blocks(known as u32, u32::MAX, usize::MAX).await.unwrap() {
                        let statements = block.block.transactions.iter().map(|it| it.statement().unwrap());
                        let payloads: Vec<_> = statements.map(|it| it.payload.clone()).collect();
                        let signer = Device::new(if name == "a" { b'b' } else { b'a' });
                        let own = block.block.transactions[0].key_id() == device.key_id();
                        let signer = if own { &device } else { &signer };
                        chain.seal(
                            &payloads.iter().map(|payload| signer.say(payload.as_str())).collect::<Vec<_>>(),
                        );
                    }
                    assert_eq!(chain.branch().tip(), branch.tip());
                }
                for _ in 0..3 {
                    let mut next = chain.clone();
                    let block = next.seal(&[device.say(format!("{name}{sealed}"))]);
                    // One of them is slow now and then, and comes back when its time is over.
                    if sealed % 7 == 3 && lost == sealed / 7 {
                        tokio::time::sleep(Duration::from_millis(60)).await;
                    }
                    match store.commit(&right, chain.branch().tip(), 0, &[block]).await {
                        Ok(()) => (chain, sealed) = (next, sealed + 1),
                        Err(StoreError::RightLost) => {
                            lost += 1;
                            break;
                        }
                        Err(other) => panic!("{other}"),
                    }
                }
                store.release_right(&right).await.unwrap();
            }
            lost
        })
    };
    let (a, b) = (run("a"), run("b"));
    assert!(a.await.unwrap() > 0 && b.await.unwrap() > 0, "each was too slow once");
    let gapless = cluster.rows("chain", "SELECT max(height) + 1 = count(*) FROM liotbchain.blocks").await;
    assert_eq!(gapless, ["t"]);
    assert!(open(&url).await.branch().await.unwrap().unwrap().height() >= 60);
}
