//! A file that contradicts itself is found out, not believed.

use liotbchain_store::StoreError;
use rusqlite::Connection;
use tempfile::TempDir;

use crate::{
    chain::{Chain, Device, START_MS},
    open, put,
};

/// Returns what the store says after `sql` was run on a chain of height 6.
async fn after(sql: &str) -> [Result<(), StoreError>; 3] {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("chain.db");
    let store = open(&path).await;
    let device = Device::new(1);
    let mut chain = Chain::new("test");
    store.admit(&device.count(0..6), START_MS).await.unwrap();
    chain.seal_each(&device.count(0..6));
    let right = put(&store, &chain).await;
    let connection = Connection::open(&path).unwrap();
    connection.pragma_update(None, "foreign_keys", false).unwrap();
    connection.execute_batch(sql).unwrap();
    let tip = chain.branch().tip();
    [
        store.branch().await.map(|_| ()),
        store.blocks(0, 99, usize::MAX).await.map(|_| ()),
        store.commit(&right, tip, 1, &[]).await,
    ]
}

async fn assert_corrupt(sql: &str, says: &str, which: [bool; 3]) {
    for (place, (result, expected)) in after(sql).await.into_iter().zip(which).enumerate() {
        match result {
            Err(StoreError::Corrupt(reason)) if expected => assert!(reason.contains(says), "{sql}: {reason}"),
            result => assert!(result.is_ok() && !expected, "{sql}: call {place}: {result:?}"),
        }
    }
}

#[tokio::test]
async fn tip_must_have_its_hash() {
    assert_corrupt(
        "UPDATE blocks SET nonce = nonce + 1 WHERE height = 6",
        "block 6 has the hash",
        [true, false, true],
    )
    .await;
    let sql = "UPDATE blocks SET timestamp_ms = 0 WHERE height = 6";
    assert_corrupt(sql, "block 6 has the hash", [true, false, true]).await;
}

#[tokio::test]
async fn history_must_be_the_one_that_the_tip_names() {
    let sql = "UPDATE history_nodes SET hash = zeroblob(32) WHERE level = 2 AND idx = 0";
    assert_corrupt(sql, "the history tree below block 6", [true, false, false]).await;
    let sql = "DELETE FROM history_nodes WHERE level = 2 AND idx = 0";
    assert_corrupt(sql, "node 0 of level 2", [true, false, true]).await;
}

#[tokio::test]
async fn genesis_block_must_be_one() {
    let sql = "UPDATE transactions SET payload = replace(payload, 'test', 'tent') WHERE height = 0";
    assert_corrupt(sql, "block 0", [true, false, false]).await;
    let sql = "UPDATE blocks SET hash = zeroblob(32) WHERE height = 0";
    assert_corrupt(sql, "block 0 has the hash", [true, false, false]).await;
    assert_corrupt("DELETE FROM transactions WHERE height = 0", "block 0", [true, false, false]).await;
    assert_corrupt("DELETE FROM blocks WHERE height = 0", "genesis block is missing", [true, false, false])
        .await;
}

#[tokio::test]
async fn columns_must_hold_what_belongs_there() {
    assert_corrupt("UPDATE blocks SET hash = x'00' WHERE height = 6", "", [true, true, true]).await;
    assert_corrupt("UPDATE blocks SET version = 2 WHERE height = 6", "version 2", [true, true, true]).await;
    assert_corrupt("UPDATE blocks SET nonce = -1 WHERE height = 6", "", [true, true, true]).await;
    let sql = "UPDATE transactions SET payload = CAST(x'ff' AS TEXT) WHERE height = 6";
    assert_corrupt(sql, "utf-8", [false, true, true]).await;
}

#[tokio::test]
async fn keys_must_be_keys() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("chain.db");
    let store = open(&path).await;
    let (one, two) = (Device::new(1), Device::new(2));
    for sql in [
        "UPDATE keys SET spki = x'3000' WHERE key = 1",
        "UPDATE keys SET spki = (SELECT spki FROM keys WHERE key = 2)",
    ] {
        store.add_keys(&[one.public_key.clone(), two.public_key.clone()]).await.unwrap();
        Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        let result = store.public_keys(&[one.key_id()]).await;
        assert!(matches!(result, Err(StoreError::Corrupt(_))), "{sql}: {result:?}");
    }
}
