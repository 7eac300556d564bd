//! What stands in the tables.

use liotbchain_core::codec;
use liotbchain_store::{OpenOptions, Store, StoreError, postgres::PostgresStore};

use crate::{
    TTL,
    chain::{Chain, Device, START_MS, ids},
    cluster::Cluster,
    open,
};

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
async fn refuses_tables_of_a_newer_version() {
    let cluster = Cluster::start();
    let url = cluster.make_database("chain").await;
    open(&url).await.close().await;
    cluster.execute("chain", "UPDATE liotbchain.meta SET format = 7").await;
    let error = PostgresStore::open(&url, &OpenOptions::default()).await.err();
    assert!(matches!(error, Some(StoreError::Newer { found: 7, known: 2 })), "{error:?}");
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
    assert_eq!(&codec::decode_block(&aside).unwrap(), blocks[0].as_block());
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
async fn rows_that_were_tampered_with_are_named_when_blocks_are_read() {
    let cluster = Cluster::start();
    let store = open(&cluster.make_database("chain").await).await;
    let mut chain = Chain::new("test");
    store.create(chain.genesis()).await.unwrap();
    let list = Device::new(1).count(0..4);
    store.admit(&list, START_MS).await.unwrap();
    let right = store.acquire_right("a", TTL).await.unwrap().unwrap();
    let tip = chain.branch().tip();
    let blocks = [chain.seal(&list[..2]), chain.seal(&list[2..])];
    store.commit(&right, tip, 0, &blocks).await.unwrap();
    for (tamper, repair, word) in [
        (
            "payload = '\\xff' || payload",
            "payload = substr(payload, 2)",
            "block 2: transaction 0: a payload is not UTF-8",
        ),
        ("position = position + 5", "position = position - 5", "block 2: a transaction stands at position 5"),
        ("key = key + 5", "key = key - 5", "block 2: transaction 0: a key_id"),
        ("height = 9", "height = 2", "block 2"),
    ] {
        let update =
            |set: &str, of: &str| format!("UPDATE liotbchain.transactions SET {set} WHERE height = {of}");
        cluster.execute("chain", &update(tamper, "2")).await;
        // Of a block whose transactions are gone, the roots tell.
        match store.blocks(1, 9, usize::MAX).await {
            Ok(read) => assert!(read[1].block.transactions.is_empty() && tamper == "height = 9", "{tamper}"),
            Err(error) => assert!(error.to_string().contains(word), "{tamper}: {error}"),
        }
        assert_eq!(store.blocks(1, 1, usize::MAX).await.unwrap().len(), 1);
        let of = if tamper == "height = 9" { "9" } else { "2" };
        cluster.execute("chain", &update(repair, of)).await;
        assert_eq!(store.blocks(1, 9, usize::MAX).await.unwrap().len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn brings_tables_of_format_1_up_to_date() {
    let cluster = Cluster::start();
    let url = cluster.make_database("chain").await;
    cluster
        .execute(
            "chain",
            "CREATE SCHEMA liotbchain;
             CREATE TABLE liotbchain.meta (singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
                                           format bigint NOT NULL);
             INSERT INTO liotbchain.meta (format) VALUES (1)",
        )
        .await;
    cluster.execute("chain", include_str!("../../src/postgres/schema/1.sql")).await;
    let store = open(&url).await;
    assert_eq!(cluster.rows("chain", "SELECT format::text FROM liotbchain.meta").await, ["2"]);
    let mut chain = Chain::new("test");
    store.create(chain.genesis()).await.unwrap();
    let device = Device::new(1);
    let list = [device.count(0..1), vec![device.say("a\0b")]].concat();
    store.admit(&list, START_MS).await.unwrap();
    let right = store.acquire_right("a", TTL).await.unwrap().unwrap();
    let tip = chain.branch().tip();
    store.commit(&right, tip, 0, &[chain.seal(&list)]).await.unwrap();
    store.prune(device.key_id(), 0..9, 9).await.unwrap();
    let hashes: Vec<_> = list.iter().map(|it| it.statement.statement().content_hash().to_string()).collect();
    let shown =
        "SELECT pruned_content_hash || coalesce(payload, '') FROM liotbchain.readings WHERE height > 0";
    assert_eq!(cluster.rows("chain", shown).await, hashes);
    // What waits has a payload, and a content hash has 32 bytes.
    for set in ["height = NULL, position = NULL, sequence = NULL", "signature = '\\x00'"] {
        let sql = format!(
            "DO $$ BEGIN
                 UPDATE liotbchain.transactions SET {set} WHERE height = 1;
                 RAISE EXCEPTION 'taken: {}';
             EXCEPTION WHEN check_violation THEN NULL;
             END $$",
            set.replace('\'', "")
        );
        cluster.execute("chain", &sql).await;
    }
}
