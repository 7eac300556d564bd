//! What somebody changed in the store is found, and named.

#![allow(clippy::unwrap_used, reason = "tests; clippy knows only functions marked as such")]

mod support;

use std::{fs::File, io::BufReader, path::Path};

use liotbchain_node::{Fault, TransferError, transfer, validate};
use support::{Signer, WAIT, config, open, sqlite};

/// Keeps ten blocks of two readings in a folder, and closes them.
async fn chain(folder: &Path) {
    let store = sqlite(folder).await;
    let ledger = open(&store, config()).await;
    for signer in [1, 2] {
        ledger.submit(Signer::new(signer).readings(0..10), WAIT).await.unwrap();
    }
    assert_eq!(ledger.status().height, 10);
    ledger.shutdown().await;
}

/// Runs SQL on such a chain, and returns the fault that validation then finds.
async fn fault_after(sql: &str) -> Fault {
    let folder = tempfile::tempdir().unwrap();
    chain(folder.path()).await;
    let database = rusqlite::Connection::open(folder.path().join("chain.db")).unwrap();
    database.execute_batch("PRAGMA foreign_keys = OFF; PRAGMA ignore_check_constraints = ON;").unwrap();
    database.execute_batch(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    drop(database);
    let store = sqlite(folder.path()).await;
    let validation = validate(&store, |_, _| {}).await.unwrap();
    store.close().await;
    validation.fault.unwrap_or_else(|| panic!("not found: {sql}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_change_of_a_block_row_is_named() {
    let zeros = "zeroblob(32)";
    for (column, value, field) in [
        ("prev_block_hash", zeros, "prev_block_hash"),
        ("transactions_root", zeros, "transactions_root"),
        ("history_root", zeros, "history_root"),
        ("timestamp_ms", "timestamp_ms + 1", ""),
        ("timestamp_ms", "1", "timestamp_ms"),
        ("bits", "bits + 1", "bits"),
        ("nonce", "nonce + 1", ""),
        ("hash", "randomblob(32)", "hash"),
        ("total_work", zeros, "total_work"),
    ] {
        let fault = fault_after(&format!("UPDATE blocks SET {column} = {value} WHERE height = 5")).await;
        // Where proof of work is lost by chance only, the hash is found to be another one.
        assert!(
            matches!(fault.field.as_str(), "nonce" | "hash") || fault.field == field,
            "{column}: {fault:?}"
        );
        assert!(fault.height == 5, "{column}: {fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_change_of_a_transaction_row_is_named() {
    let at = "WHERE height = 5 AND position = 1";
    for (set, field) in [
        ("payload = CAST('{\"reading\":999}' AS TEXT)", "signature"),
        ("signature = zeroblob(64)", "signature"),
        ("signature = X''", "signature"),
        ("payload = CAST(X'ff' AS TEXT)", "row"),
        ("payload = ''", ""),
        ("id = randomblob(32)", "id"),
        ("sequence = sequence + 1", "transactions_root"),
        ("key = (SELECT key FROM keys WHERE key_id = zeroblob(32))", ""),
    ] {
        let fault = fault_after(&format!("UPDATE transactions SET {set} {at}")).await;
        assert_eq!(fault.height, 5, "{set}: {fault:?}");
        let fields = ["payload", "row", "key_id", "transactions_root"];
        assert!(
            fault.field == field || field.is_empty() && fields.contains(&fault.field.as_str()),
            "{set}: {fault:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_and_moved_rows_are_named() {
    assert_eq!(fault_after("DELETE FROM blocks WHERE height = 5").await.height, 5);
    assert_eq!(fault_after("DELETE FROM transactions WHERE height = 5 AND position = 1").await.height, 5);
    assert_eq!(fault_after("DELETE FROM transactions WHERE height = 5").await.height, 5);
    assert_eq!(fault_after("DELETE FROM blocks WHERE height = 0").await.height, 0);
    assert_eq!(
        fault_after(
            "UPDATE transactions SET height = NULL, position = NULL, sequence = NULL WHERE height = 7"
        )
        .await
        .height,
        7
    );
    let swapped = "UPDATE transactions SET position = 2 WHERE height = 5 AND position = 0;
        UPDATE transactions SET position = 0 WHERE height = 5 AND position = 1;
        UPDATE transactions SET position = 1 WHERE height = 5 AND position = 2;";
    assert_eq!(fault_after(swapped).await.field, "transactions_root");
    let tip = fault_after("DELETE FROM blocks WHERE height = 10").await;
    assert!(tip.field == "tip" && tip.reason.contains("block 10 is missing"), "{tip:?}");
    let key = fault_after("UPDATE keys SET spki = X'00' WHERE key = 1").await;
    assert_eq!((key.height, key.field.as_str()), (1, "public_key"));
    assert_eq!(fault_after("UPDATE history_nodes SET hash = zeroblob(32)").await.field, "tip");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_is_imported_as_the_same_chain_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    chain(folder.path()).await;
    let store = sqlite(folder.path()).await;
    let file = folder.path().join("export.ndjson");
    let exported = transfer::export(&store, &mut File::create(&file).unwrap(), |_| {}).await.unwrap();
    assert_eq!((exported.height, exported.transactions), (10, 21));

    let other = tempfile::tempdir().unwrap();
    let copy = sqlite(other.path()).await;
    let broken = folder.path().join("broken.ndjson");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains(r#"{\"reading\":7}"#));
    std::fs::write(&broken, text.replacen(r#"{\"reading\":7}"#, r#"{\"reading\":8}"#, 1)).unwrap();
    let open_broken = || File::open(&broken).map(BufReader::new);
    let error = transfer::import(&copy, "test", open_broken, |_| {}).await.unwrap_err();
    assert!(matches!(error, TransferError::Export(_)), "{error}");
    assert_eq!(copy.branch().await.unwrap(), None);

    let open = || File::open(&file).map(BufReader::new);
    let imported = transfer::import(&copy, "test", open, |_| {}).await.unwrap();
    assert_eq!(imported, exported);
    assert_eq!(copy.branch().await.unwrap(), store.branch().await.unwrap());
    assert_eq!(validate(&copy, |_, _| {}).await.unwrap().fault, None);
    let mut again = Vec::new();
    transfer::export(&copy, &mut again, |_| {}).await.unwrap();
    assert_eq!(String::from_utf8(again).unwrap(), text);
    let error = transfer::import(&copy, "test", open, |_| {}).await.unwrap_err();
    assert!(matches!(error, TransferError::NotEmpty), "{error}");
}
