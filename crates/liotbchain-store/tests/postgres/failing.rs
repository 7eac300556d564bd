//! A server that does not answer, or goes away.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use liotbchain_core::{Statement, TransactionId, VerifiedStatement};
use liotbchain_store::{NewTransaction, OpenOptions, Status, Store, StoreError, postgres::PostgresStore};
use tokio_postgres::NoTls;

use crate::{
    TTL,
    chain::{Chain, Device, START_MS, ids},
    cluster::Cluster,
    wire::Wire,
};

async fn open_for(url: &str, timeout: Duration) -> PostgresStore {
    PostgresStore::open(url, &OpenOptions { timeout, ..OpenOptions::default() }).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_that_is_blocked_ends_in_time_and_frees_the_server() {
    let cluster = Cluster::start();
    let url = cluster.make_database("chain").await;
    let store = open_for(&url, Duration::from_millis(500)).await;
    let (admin, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    tokio::spawn(connection);
    admin.batch_execute("BEGIN; LOCK TABLE liotbchain.transactions").await.unwrap();
    let list = Device::new(1).count(0..3);
    let begin = Instant::now();
    // More than there are connections.
    let store = Arc::new(store);
    let blocked: Vec<_> = (0..20)
        .map(|turn| {
            let (store, list) = (Arc::clone(&store), list.clone());
            tokio::spawn(async move {
                match turn % 2 {
                    0 => store.admit(&list, START_MS).await.map(drop),
                    _ => store.pending(1).await.map(drop),
                }
            })
        })
        .collect();
    for (turn, blocked) in blocked.into_iter().enumerate() {
        let error = blocked.await.unwrap().unwrap_err();
        match error {
            StoreError::Unavailable(_) => {}
            StoreError::CommitUnknown(_) if turn % 2 == 0 => {}
            other => panic!("{other}"),
        }
    }
    assert!(begin.elapsed() < Duration::from_secs(5));
    admin.batch_execute("ROLLBACK").await.unwrap();
    let count =
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'liotbchain' AND state <> 'idle'";
    for _ in 0..100 {
        if cluster.rows("chain", count).await == ["0"] {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(cluster.rows("chain", count).await, ["0"]);
    let admitted = store.admit(&list, START_MS).await.unwrap();
    assert!(admitted.new == 3 || admitted.new == 0, "{admitted:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_lost_at_commit_is_unknown_and_before_it_nothing_is_changed() {
    let cluster = Cluster::start();
    cluster.make_database("chain").await;
    let genesis = Chain::new("test");
    for (word, unknown) in [(&b"COMMIT"[..], true), (&b"BEGIN"[..], false)] {
        let wire = Wire::to(cluster.port, word).await;
        let url = format!("postgres://postgres@127.0.0.1:{}/chain?sslmode=disable", wire.port);
        let store = open_for(&url, Duration::from_secs(1)).await;
        match store.create(genesis.genesis()).await {
            Ok(()) | Err(StoreError::AlreadyCreated) => {}
            Err(other) => panic!("{other}"),
        }
        let device = Device::new(word[0]);
        store.add_keys(std::slice::from_ref(&device.public_key)).await.unwrap();
        let right = store.acquire_right("a", TTL).await.unwrap().unwrap();
        let branch = store.branch().await.unwrap().unwrap();
        let mut chain = genesis.clone();
        if branch.height() > 0 {
            chain.seal(&[Device::new(b'C').say("C")]);
        }
        let block = chain.seal(&[device.say(if unknown { "C" } else { "B" })]);
        wire.arm(true);
        let error = store.commit(&right, branch.tip(), 0, std::slice::from_ref(&block)).await.unwrap_err();
        wire.arm(false);
        assert_eq!(matches!(error, StoreError::CommitUnknown(_)), unknown, "{error}");
        assert_eq!(matches!(error, StoreError::Unavailable(_)), !unknown, "{error}");
        // The same store looks up what became of it.
        let tip = store.branch().await.unwrap().unwrap().tip();
        assert_eq!(tip, if unknown { block.hash() } else { branch.tip() });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_lost_after_an_admission_is_unknown() {
    let cluster = Cluster::start();
    cluster.make_database("chain").await;
    let wire = Wire::to(cluster.port, b"the lost reading").await;
    let url = format!("postgres://postgres@127.0.0.1:{}/chain?sslmode=disable", wire.port);
    let store = open_for(&url, Duration::from_secs(1)).await;
    let reading = [Device::new(1).say("the lost reading")];
    wire.arm(true);
    let error = store.admit(&reading, START_MS).await.unwrap_err();
    assert!(matches!(error, StoreError::CommitUnknown(_)), "{error}");
    wire.arm(false);
    assert_eq!(store.look_up(&ids(&reading)).await.unwrap(), [Some(Status::Pending)]);
    assert_eq!(store.admit(&reading, START_MS).await.unwrap().new, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_when_the_server_restarts() {
    let cluster = Cluster::start();
    let url = cluster.make_database("chain").await;
    let store = Arc::new(open_for(&url, Duration::from_secs(5)).await);
    let mut chain = Chain::new("test");
    store.create(chain.genesis()).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let admitters: Vec<_> = (0..4u8)
        .map(|number| {
            let (store, stop) = (Arc::clone(&store), Arc::clone(&stop));
            tokio::spawn(async move {
                let (device, mut acknowledged, mut failed) =
                    (Device::new(number), Vec::<TransactionId>::new(), 0);
                for round in 0.. {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    let list = device.count(round * 10..round * 10 + 10);
                    match store.admit(&list, START_MS).await {
                        Ok(_) => acknowledged.extend(ids(&list)),
                        Err(StoreError::Unavailable(_) | StoreError::CommitUnknown(_)) => {
                            failed += 1;
                            tokio::time::sleep(Duration::from_millis(20)).await;
                        }
                        Err(other) => panic!("{other}"),
                    }
                }
                (acknowledged, failed)
            })
        })
        .collect();
    let sealer = {
        let (store, stop) = (Arc::clone(&store), Arc::clone(&stop));
        tokio::spawn(async move {
            let mut failed = 0;
            while !stop.load(Ordering::SeqCst) {
                if let Err(error) = seal_some(&store, &mut chain).await {
                    let expected = matches!(error, StoreError::Unavailable(_) | StoreError::CommitUnknown(_));
                    assert!(expected, "{error}");
                    failed += 1;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            // What became of the last one is looked up once more.
            while seal_some(&store, &mut chain).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            (chain, failed)
        })
    };
    let cluster = Arc::new(cluster);
    for mode in ["fast", "immediate", "fast", "immediate"] {
        tokio::time::sleep(Duration::from_millis(700)).await;
        let cluster = Arc::clone(&cluster);
        tokio::task::spawn_blocking(move || cluster.restart(mode)).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(700)).await;
    stop.store(true, Ordering::SeqCst);
    let (mut acknowledged, mut failed) = (Vec::new(), 0);
    for admitter in admitters {
        let (list, failures) = admitter.await.unwrap();
        acknowledged.extend(list);
        failed += failures;
    }
    let (chain, failed_to_seal) = sealer.await.unwrap();
    assert!(failed > 0 && failed_to_seal > 0, "the restarts were noticed");
    assert!(chain.branch().height() > 10 && acknowledged.len() > 500);

    let statuses = store.look_up(&acknowledged).await.unwrap();
    assert!(statuses.iter().all(Option::is_some));
    let stored = store.blocks(0, u32::MAX, usize::MAX).await.unwrap();
    assert_eq!(
        stored.iter().map(|block| block.hash).collect::<Vec<_>>(),
        chain.blocks.iter().map(|block| block.hash()).collect::<Vec<_>>()
    );
    let mut seen = HashSet::new();
    assert!(stored.iter().flat_map(|block| &block.ids).all(|id| seen.insert(*id)), "none stands twice");
    assert_eq!(store.branch().await.unwrap().unwrap(), chain.branch());
}

/// Seals the oldest that wait, from where the stored chain is.
async fn seal_some(store: &PostgresStore, chain: &mut Chain) -> Result<(), StoreError> {
    let right = store.acquire_right("sealer", TTL).await?.expect("nobody else asks for it");
    let tip = store.branch().await?.expect("it was created").tip();
    if tip != chain.branch().tip() {
        // The last one of ours, whose commit was not answered, was not committed.
        let mut kept = Chain::new("test");
        for block in &chain.blocks[1..chain.blocks.len() - 1] {
            let statements = block.transactions().iter().map(|it| it.statement().unwrap().as_ref().clone());
            kept.seal(&statements.map(reverify).collect::<Vec<_>>());
        }
        assert_eq!(kept.branch().tip(), tip, "one commit at most is not known");
        *chain = kept;
    }
    let waiting: Vec<_> = store.pending(7).await?.iter().map(|pending| pending.id).collect();
    if waiting.is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
        return Ok(());
    }
    let mut statements = store.statements(&waiting).await?;
    let list: Vec<_> = waiting.iter().map(|id| reverify(statements.remove(id).expect("it waits"))).collect();
    let block = chain.seal(&list);
    store.commit(&right, tip, 0, &[block]).await
}

fn reverify(statement: Statement) -> NewTransaction {
    let device = (0..=u8::MAX).map(Device::new).find(|device| device.key_id() == statement.key_id).unwrap();
    let public_key = device.public_key;
    let statement = VerifiedStatement::verify(statement, &public_key).unwrap();
    NewTransaction { statement, public_key: Some(public_key) }
}
