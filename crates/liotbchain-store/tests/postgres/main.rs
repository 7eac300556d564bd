//! What only PostgreSQL can do to a chain: be restarted, be set up wrongly, be shared, or not answer.
//!
//! Each test has a cluster of its own, on a free port, since it breaks it. What all stores have in common is in
//! the conformance suite.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

#[allow(dead_code, reason = "shared with the conformance suite, which uses all of it")]
#[path = "../support/chain.rs"]
mod chain;
mod cluster;
mod wire;

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use liotbchain_core::TransactionId;
use liotbchain_store::{OpenOptions, Status, Store, StoreError, postgres::PostgresStore};

use chain::{Chain, Device, START_MS, ids};
use cluster::Cluster;
use wire::Wire;

const TTL: Duration = Duration::from_secs(60);

const DEADLOCKS: &str = "SELECT deadlocks FROM pg_stat_database WHERE datname = 'chain'";

async fn open(url: &str) -> PostgresStore {
    PostgresStore::open(url, &OpenOptions::default()).await.unwrap()
}

async fn open_for(url: &str, timeout: Duration) -> PostgresStore {
    PostgresStore::open(url, &OpenOptions { timeout, ..OpenOptions::default() }).await.unwrap()
}

/// Returns the refusal's problem, after checking that it has a cure and tells no password.
async fn refusal(url: &str) -> String {
    let options = OpenOptions { timeout: Duration::from_secs(3), ..OpenOptions::default() };
    match PostgresStore::open(url, &options).await {
        Err(StoreError::Config { problem, cure }) => {
            assert!(
                !cure.is_empty() && !cure.contains("geheim") && !problem.contains("geheim"),
                "{problem}: {cure}"
            );
            problem
        }
        Err(other) => panic!("{url}: {other}"),
        Ok(_) => panic!("{url} was opened"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_address_or_login_says_what_to_do() {
    let cluster = Cluster::start();
    let port = cluster.port;
    cluster
        .execute(
            "postgres",
            "SET password_encryption = 'scram-sha-256'; CREATE ROLE pi LOGIN PASSWORD 'geheim'",
        )
        .await;
    cluster.replace_hba("host all postgres 127.0.0.1/32 trust\nhost postgres pi 127.0.0.1/32 scram-sha-256");
    cluster.control("reload");

    let no_database = refusal(&cluster.url("nowhere")).await;
    assert!(no_database.contains("\"nowhere\" does not exist"), "{no_database}");
    let wrong = refusal(&format!("postgres://pi:geheimx@127.0.0.1:{port}/postgres")).await;
    assert!(wrong.contains("password authentication failed"), "{wrong}");
    let missing = refusal(&format!("postgres://pi@127.0.0.1:{port}/postgres")).await;
    assert!(missing.contains("password missing"), "{missing}");
    let not_allowed = refusal(&format!("postgres://pi:geheim@127.0.0.1:{port}/template1")).await;
    assert!(not_allowed.contains("pg_hba.conf"), "{not_allowed}");
    let may_not_create = refusal(&format!("postgres://pi:geheim@127.0.0.1:{port}/postgres")).await;
    assert!(may_not_create.contains("permission denied"), "{may_not_create}");
    // The cure that the refusal gives.
    cluster.execute("postgres", "CREATE SCHEMA liotbchain AUTHORIZATION pi").await;
    let store = open(&format!("host=127.0.0.1 port={port} user=pi password=geheim dbname=postgres")).await;
    assert_eq!(store.location(), format!("postgres://pi@127.0.0.1:{port}/postgres"));

    let url = "postgres://pi:geheim@127.0.0.1:1/chain";
    let Err(StoreError::Unavailable(reason)) = PostgresStore::open(url, &OpenOptions::default()).await else {
        panic!()
    };
    assert!(
        reason.contains("127.0.0.1:1") && reason.contains("refused") && reason.contains("DATABASE_URL"),
        "{reason}"
    );
    assert!(!reason.contains("geheim"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn refuses_a_server_that_forgets_what_it_acknowledged() {
    let cluster = Cluster::start();
    let url = cluster.make_database("chain").await;
    cluster.execute("postgres", "ALTER DATABASE chain SET synchronous_commit = off").await;
    assert!(refusal(&url).await.contains("synchronous_commit=off"));
    cluster.execute("postgres", "ALTER DATABASE chain RESET synchronous_commit").await;
    open(&url).await.close().await;

    cluster.configure("fsync = off");
    cluster.control("reload");
    // The postmaster hands the new setting to the next process some time after the reload.
    let mut problem = None;
    for _ in 0..100 {
        match PostgresStore::open(&url, &OpenOptions::default()).await {
            Ok(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            Err(error) => {
                problem = Some(error.to_string());
                break;
            }
        }
    }
    assert!(problem.expect("it is refused").contains("fsync=off"));
}

#[tokio::test(flavor = "multi_thread")]
async fn several_hosts_need_a_synchronous_standby_and_then_survive_a_failover() {
    let primary = Cluster::start();
    primary.make_database("chain").await;
    let standby = Cluster::standby_of(&primary);
    let url = format!("postgres://postgres@127.0.0.1:{},127.0.0.1:{}/chain", standby.port, primary.port);
    assert!(refusal(&url).await.contains("no synchronous standby"));
    let lossy = OpenOptions { allow_lossy_failover: true, ..OpenOptions::default() };
    PostgresStore::open(&url, &lossy).await.unwrap().close().await;

    primary.configure("synchronous_standby_names = 'standby'");
    primary.restart("fast");
    // The standby stands first, but cannot be written.
    let store = open(&url).await;
    let chain = Chain::new("test");
    store.create(chain.genesis()).await.unwrap();
    let admitted = Device::new(1).count(0..10);
    store.admit(&admitted, START_MS).await.unwrap();

    primary.stop("immediate");
    standby.execute("postgres", "ALTER SYSTEM SET synchronous_standby_names = ''").await;
    standby.control("promote");
    // It has no standby itself now, so that it is refused until its operator accepts that.
    assert!(matches!(store.ping().await, Err(StoreError::Config { .. } | StoreError::Unavailable(_))));
    let store = PostgresStore::open(&url, &lossy).await.unwrap();
    assert_eq!(store.look_up(&ids(&admitted)).await.unwrap(), vec![Some(Status::Pending); 10]);
}

#[tokio::test(flavor = "multi_thread")]
async fn passes_over_a_host_that_takes_the_connection_and_says_nothing() {
    let cluster = Cluster::start();
    cluster.make_database("chain").await;
    let stuck = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stuck_port = stuck.local_addr().unwrap().port();
    let url = format!("postgres://postgres@127.0.0.1:{stuck_port},127.0.0.1:{}/chain", cluster.port);
    let options = OpenOptions { allow_lossy_failover: true, timeout: Duration::from_secs(3) };
    PostgresStore::open(&url, &options).await.unwrap().ping().await.unwrap();

    let alone = format!("postgres://postgres@127.0.0.1:{stuck_port}/chain");
    let Err(error) = PostgresStore::open(&alone, &options).await else { panic!() };
    assert!(
        matches!(&error, StoreError::Unavailable(reason) if reason.contains("no answer in time")),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn leaves_the_tables_of_the_python_original_alone() {
    let cluster = Cluster::start();
    let url = cluster.make_database("chain").await;
    cluster
        .execute(
            "chain",
            "CREATE TABLE blocks (index integer PRIMARY KEY, data text, timestamp double precision,
                                  previous_hash text, nonce integer, hash text);
             INSERT INTO blocks VALUES (0, '\"Genesis Block\"', 1795345827.15, '0', 0, '86594d')",
        )
        .await;
    let store = open(&url).await;
    let notice = store.notice().expect("there is one");
    assert!(notice.contains("public.blocks") && notice.contains("untouched"), "{notice}");
    store.create(Chain::new("test").genesis()).await.unwrap();
    assert_eq!(cluster.rows("chain", "SELECT blocks::text FROM blocks").await.len(), 1);

    let other = open(&cluster.make_database("other").await).await;
    assert_eq!(other.notice(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn refuses_tables_of_a_newer_version() {
    let cluster = Cluster::start();
    let url = cluster.make_database("chain").await;
    open(&url).await.close().await;
    cluster.execute("chain", "UPDATE liotbchain.meta SET format = 7").await;
    let error = PostgresStore::open(&url, &OpenOptions::default()).await.err();
    assert!(matches!(error, Some(StoreError::Newer { found: 7, known: 1 })), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn receivers_that_start_at_once_make_one_set_of_tables_and_one_chain() {
    let cluster = Cluster::start();
    let url = cluster.make_database("chain").await;
    let start = || {
        let url = url.clone();
        tokio::spawn(async move { open(&url).await.create(Chain::new("test").genesis()).await })
    };
    let starts: Vec<_> = (0..8).map(|_| start()).collect();
    let mut created = 0;
    for start in starts {
        match start.await.unwrap() {
            Ok(()) => created += 1,
            Err(error) => assert!(matches!(error, StoreError::AlreadyCreated), "{error}"),
        }
    }
    assert_eq!(created, 1);
    assert_eq!(cluster.rows("chain", "SELECT count(*) FROM liotbchain.seal_right").await, ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn views_show_every_payload() {
    let cluster = Cluster::start();
    let store = open(&cluster.make_database("chain").await).await;
    let mut chain = Chain::new("test");
    store.create(chain.genesis()).await.unwrap();
    let device = Device::new(1);
    let sealed = vec![device.say("a\0b"), device.say("{\"t\":\"21 °C\"}")];
    let waits = vec![device.say("\u{fffd}\0"), device.say("plain")];
    store.admit(&[sealed.clone(), waits].concat(), u64::MAX).await.unwrap();
    let tip = chain.branch().tip();
    let right = store.acquire_right("a", TTL).await.unwrap().unwrap();
    store.commit(&right, tip, 0, &[chain.seal(&sealed)]).await.unwrap();

    let readings = cluster.rows("chain", "SELECT payload FROM liotbchain.readings WHERE height > 0").await;
    assert_eq!(readings, ["a\\000b", "{\"t\":\"21 °C\"}"]);
    let waiting =
        cluster.rows("chain", "SELECT payload || coalesce(received::text, '') FROM liotbchain.waiting").await;
    assert_eq!(waiting, ["\\357\\277\\275\\000", "plain"]);
    let blocks = cluster.rows("chain", "SELECT hash || ' ' || transactions FROM liotbchain.chain").await;
    let [first, second] = [&chain.blocks[0], &chain.blocks[1]].map(|block| block.hash());
    assert_eq!(blocks, [format!("{first} 1"), format!("{second} 2")]);
}

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
    let (other, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let admit = |new: &liotbchain_store::NewTransaction| {
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

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_that_is_blocked_ends_in_time_and_frees_the_server() {
    let cluster = Cluster::start();
    let url = cluster.make_database("chain").await;
    let store = open_for(&url, Duration::from_millis(500)).await;
    let (admin, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
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

fn reverify(statement: liotbchain_core::Statement) -> liotbchain_store::NewTransaction {
    let device = (0..=u8::MAX).map(Device::new).find(|device| device.key_id() == statement.key_id).unwrap();
    let public_key = device.public_key;
    let statement = liotbchain_core::VerifiedStatement::verify(statement, &public_key).unwrap();
    liotbchain_store::NewTransaction { statement, public_key: Some(public_key) }
}

#[tokio::test(flavor = "multi_thread")]
async fn takes_and_gives_back_a_block_that_is_longer_than_one_statement() {
    let cluster = Cluster::start();
    let store = open(&cluster.make_database("chain").await).await;
    let mut chain = Chain::new("test");
    store.create(chain.genesis()).await.unwrap();
    let device = Device::new(1);
    store.add_keys(std::slice::from_ref(&device.public_key)).await.unwrap();
    // 20 MiB, of which some are known before.
    let list: Vec<_> = (0..320).map(|number| device.say(format!("{number:0>65535}"))).collect();
    store.admit(&list[100..110], START_MS).await.unwrap();
    let genesis = chain.branch();
    let blocks = [chain.seal(&list), chain.seal(&[device.say("small")])];
    let right = store.acquire_right("a", TTL).await.unwrap().unwrap();
    store.commit(&right, genesis.tip(), 0, &blocks).await.unwrap();
    assert_eq!(store.branch().await.unwrap(), Some(chain.branch()));
    let stored = store.blocks(1, 5, 1).await.unwrap();
    assert_eq!(stored.len(), 1);
    assert_eq!(&stored[0].block, blocks[0].as_block());

    store.commit(&right, chain.branch().tip(), 2, &[]).await.unwrap();
    assert_eq!(store.branch().await.unwrap(), Some(genesis.clone()));
    let aside = store.side_block(blocks[0].hash()).await.unwrap().expect("it was taken off");
    assert_eq!(&liotbchain_core::codec::decode_block(&aside).unwrap(), blocks[0].as_block());
    let order: Vec<_> = store.pending(1000).await.unwrap().iter().map(|pending| pending.id).collect();
    let arrived = [&list[100..110], &list[..100], &list[110..], &[device.say("small")]].concat();
    assert_eq!(order, ids(&arrived));
    store.commit(&right, genesis.tip(), 0, &blocks).await.unwrap();
    assert_eq!(store.pending_count(10).await.unwrap(), 0);
    assert_eq!(store.side_block(blocks[0].hash()).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tip_that_was_tampered_with_is_found_when_the_branch_is_loaded() {
    let cluster = Cluster::start();
    let store = open(&cluster.make_database("chain").await).await;
    let mut chain = Chain::new("test");
    store.create(chain.genesis()).await.unwrap();
    let list = Device::new(1).count(0..7);
    store.admit(&list, START_MS).await.unwrap();
    let right = store.acquire_right("a", TTL).await.unwrap().unwrap();
    let tip = chain.branch().tip();
    store.commit(&right, tip, 0, &chain.seal_each(&list)).await.unwrap();
    assert_eq!(store.branch().await.unwrap(), Some(chain.branch()));
    for (tamper, repair, word) in [
        (
            "UPDATE liotbchain.blocks SET nonce = nonce + 1 WHERE height = 7",
            "UPDATE liotbchain.blocks SET nonce = nonce - 1 WHERE height = 7",
            "block 7: its header",
        ),
        (
            "UPDATE liotbchain.history_nodes SET hash = decode(md5('x') || md5('y'), 'hex') WHERE level = 2 AND idx = 0",
            "UPDATE liotbchain.history_nodes SET hash = old.hash FROM old WHERE level = 2 AND idx = 0",
            "history_root",
        ),
        ("DELETE FROM liotbchain.history_nodes WHERE level = 1 AND idx = 2", "", "lacks node 2 of level 1"),
    ] {
        cluster.execute("chain", "CREATE TABLE IF NOT EXISTS old AS SELECT hash FROM liotbchain.history_nodes WHERE level = 2 AND idx = 0").await;
        cluster.execute("chain", tamper).await;
        let error = store.branch().await.unwrap_err();
        assert!(matches!(&error, StoreError::Corrupt(fault) if fault.contains(word)), "{tamper}: {error}");
        cluster.execute("chain", repair).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_used_where_it_is_offered_and_verified_where_it_is_required() {
    if let Ok(url) = std::env::var("REQUIRE_TLS_AT") {
        // The same test in another process, whose environment names the root certificate.
        let rejected =
            PostgresStore::open(&url.replace("localhost", "127.0.0.1"), &OpenOptions::default()).await;
        assert!(matches!(rejected, Err(StoreError::Config { .. })), "the certificate is for another name");
        return open(&url).await.ping().await.unwrap();
    }
    let cluster = Cluster::start();
    let url =
        cluster.make_database("chain").await.replace("127.0.0.1", "localhost").replace("sslmode=disable", "");
    let required = format!("{url}sslmode=require");
    assert!(refusal(&required).await.contains("offers no TLS"));
    open(&url).await.close().await;

    let folder = tempfile::TempDir::new().unwrap();
    let [key, certificate] = ["server.key", "server.crt"].map(|name| folder.path().join(name));
    let made = std::process::Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
        ])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .expect("openssl is not installed: apt-get install openssl");
    assert!(made.status.success(), "{made:?}");
    cluster.put("server.key", &key);
    cluster.put("server.crt", &certificate);
    cluster.configure("ssl = on");
    cluster.restart("fast");

    let store = open(&url).await;
    let encrypted =
        "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'liotbchain'";
    let encrypted = cluster.rows("chain", encrypted).await;
    assert!(!encrypted.is_empty() && encrypted.iter().all(|ssl| ssl == "t"), "{encrypted:?}");
    store.close().await;
    assert!(refusal(&required).await.contains("certificate"));
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "tls_is_used_where_it_is_offered_and_verified_where_it_is_required"])
        .env("REQUIRE_TLS_AT", &required)
        .env("SSL_CERT_FILE", &certificate)
        .env_remove("SSL_CERT_DIR")
        .output()
        .unwrap();
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stdout));
}
