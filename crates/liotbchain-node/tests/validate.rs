//! What somebody changed in the store is found, and named.

#![allow(clippy::unwrap_used, reason = "tests; clippy knows only functions marked as such")]

mod support;

use std::{
    fs::File,
    io::BufReader,
    path::Path,
    sync::{Arc, atomic::AtomicBool},
};

use liotbchain_core::{
    Block, Branch, Content, Difficulty, Header, Root, Statement, Target, Transaction, Work,
    chain::CensusBudget,
    check::{Examined, Signatures},
    mine::{self, Mined},
};
use liotbchain_node::{
    Fault, Since, TransferError, ValidateOptions, Validation, transfer, validate, validate_with,
};
use liotbchain_store::Store;
use rusqlite::Connection;
use support::{Signer, WAIT, config, open, sqlite};
use tokio::sync::Notify;

/// So little that a chain of 21 transactions takes several passes.
const BUDGETS: [CensusBudget; 3] = [
    CensusBudget { ids: 100, keys: 100 },
    CensusBudget { ids: 4, keys: 2 },
    CensusBudget { ids: 2, keys: 2 },
];

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

async fn validation(store: &Arc<dyn Store>, signatures: Signatures, budget: CensusBudget) -> Validation {
    validate_with(store, ValidateOptions { signatures, budget, since: None }, |_, _| {}).await.unwrap()
}

/// Runs SQL on such a chain, and returns the fault that validation then finds, in as many passes as it may take. Without
/// signatures it finds one in the same block.
async fn fault_after(sql: &str) -> Fault {
    let folder = tempfile::tempdir().unwrap();
    chain(folder.path()).await;
    let database = database(folder.path());
    database.execute_batch(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    drop(database);
    let store = sqlite(folder.path()).await;
    let found = validate(&store, |_, _| {}).await.unwrap();
    assert_eq!(found.signatures, Signatures::Checked);
    for budget in BUDGETS {
        assert_eq!(validation(&store, Signatures::Checked, budget).await, found, "{sql}");
        let skipped = validation(&store, Signatures::Skipped, budget).await;
        assert_eq!((skipped.signatures, skipped.valid_blocks), (Signatures::Skipped, found.valid_blocks));
        let (fault, skipped) = (found.fault.as_ref().unwrap(), skipped.fault.unwrap());
        assert!(skipped.height == fault.height && skipped.field != "signature", "{sql}: {skipped:?}");
        assert!(skipped == *fault || fault.field == "signature", "{sql}: {skipped:?}");
    }
    store.close().await;
    found.fault.unwrap_or_else(|| panic!("not found: {sql}"))
}

fn database(folder: &Path) -> Connection {
    let database = Connection::open(folder.join("chain.db")).unwrap();
    database.execute_batch("PRAGMA foreign_keys = OFF; PRAGMA ignore_check_constraints = ON;").unwrap();
    database
}

/// Puts a block that is right by itself on a chain, past the store, whose rules would not let some in.
fn append(folder: &Path, branch: &mut Branch, transactions: Vec<Transaction>) {
    let bits = Difficulty::new(1).unwrap().bits();
    let header = Header {
        prev_block_hash: branch.tip(),
        transactions_root: Root::ZERO,
        history_root: branch.history_root(),
        height: branch.next_height(),
        timestamp_ms: branch.median_timestamp_ms(),
        bits,
        nonce: 0,
    };
    let mut block = Block { header, transactions };
    block.header.transactions_root = block.compute_transactions_root();
    let mined = mine::mine(&block.header, mine::ATTEMPTS_MAX, 1, &AtomicBool::new(false)).unwrap();
    let Mined::Found { nonce } = mined else { panic!("{mined:?}") };
    block.header.nonce = nonce;
    let header = &block.header;
    let total_work = branch.work().saturating_add(Work::of(&Target::from_bits(bits).unwrap()));
    let database = database(folder);
    database
        .execute_batch(
            "CREATE TABLE copy AS SELECT * FROM transactions; DROP TABLE transactions;
             CREATE TABLE transactions AS SELECT * FROM copy; DROP TABLE copy;",
        )
        .unwrap();
    database
        .execute(
            "INSERT INTO blocks (height, hash, version, prev_block_hash, transactions_root, history_root,
                                 timestamp_ms, bits, nonce, total_work)
             VALUES (?1, ?2, 1, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            (
                header.height,
                header.compute_hash().0,
                header.prev_block_hash.0,
                header.transactions_root.0,
                header.history_root.0,
                header.timestamp_ms as i64,
                header.bits.0,
                header.nonce,
                total_work.to_be_bytes(),
            ),
        )
        .unwrap();
    for (position, transaction) in (0u32..).zip(&block.transactions) {
        let statement = transaction.statement().unwrap();
        database
            .execute(
                "INSERT INTO transactions (arrival, id, key, received_ms, height, position, sequence, payload, signature)
                 SELECT 100 + ?2, ?3, key, 0, ?2, ?4, ?5, ?6, ?7 FROM keys WHERE key_id = ?1",
                (
                    statement.key_id.0,
                    header.height,
                    statement.id().0,
                    position,
                    transaction.sequence as i64,
                    &statement.payload,
                    &statement.signature,
                ),
            )
            .unwrap();
    }
    let key = |_: &_| Signer::new(1).sign("{}").public_key;
    let examined = Examined::new(&block, branch.rules(), &key, Signatures::Checked);
    branch.link(&examined).unwrap();
}

/// A transaction of the first signer, who has signed ten.
fn transaction(payload: &str, sequence: u64) -> Transaction {
    let statement: Statement = Signer::new(1).sign(payload).statement.statement().as_ref().clone();
    Transaction { sequence, content: Content::Full(Arc::new(statement)) }
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
    // Those that the next block needs.
    assert_eq!(fault_after("UPDATE history_nodes SET hash = zeroblob(32)").await.field, "tip");
    for sql in ["DELETE FROM history_nodes", "UPDATE history_nodes SET hash = zeroblob(32)"] {
        let fault = fault_after(&format!("{sql} WHERE level = 2 AND idx = 0")).await;
        assert_eq!((fault.height, fault.field.as_str()), (3, "history_nodes"));
    }
    for (sql, height) in [
        ("DELETE FROM key_blocks WHERE height = 7", 7),
        ("UPDATE key_blocks SET key = 2 WHERE height = 2", 2),
    ] {
        let fault = fault_after(sql).await;
        assert_eq!((fault.height, fault.field.as_str()), (height, "key_blocks"), "{sql}");
    }
}

/// Validates a chain of ten blocks from some of them on, after SQL was run on it.
async fn since(sql: &str, size: u64, root: Option<Root>) -> Validation {
    let folder = tempfile::tempdir().unwrap();
    chain(folder.path()).await;
    database(folder.path()).execute_batch(sql).unwrap();
    let store = sqlite(folder.path()).await;
    let headers = store.headers(size as u32, 1).await.unwrap();
    let root = root.or(headers.first().map(|header| header.history_root));
    let since = Some(Since { size, root });
    let found =
        validate_with(&store, ValidateOptions { since, ..ValidateOptions::default() }, |_, _| {}).await;
    store.close().await;
    found.unwrap()
}

#[tokio::test]
async fn what_is_new_is_validated_alone() {
    for size in 1..=11 {
        let valid = since("", size, None).await;
        assert_eq!((valid.fault, valid.valid_blocks, valid.since), (None, 11, size));
        assert_eq!(valid.transactions, 22 - 2 * size);
    }
    let changed = "UPDATE transactions SET payload = '{}' WHERE height = 5 AND position = 1";
    assert_eq!(since(changed, 6, None).await.fault, None);
    let fault = since(changed, 5, None).await.fault.unwrap();
    assert_eq!((fault.height, fault.position), (5, Some(1)));
    let other = since("", 5, Some(Root([1; 32]))).await.fault.unwrap();
    assert_eq!((other.height, other.field.as_str()), (4, "history_root"));
    let cut = since("", 12, None).await.fault.unwrap();
    assert_eq!((cut.height, cut.field.as_str()), (11, "height"));
    // A number left out at the seam shows at the end.
    let counted = "UPDATE keys SET transactions = transactions + 1 WHERE key = 2";
    assert_eq!(since(counted, 8, None).await.fault.unwrap().field, "sequence");
    let sequences = "UPDATE transactions SET sequence = sequence + 1 WHERE height >= 7";
    assert!(since(sequences, 7, None).await.fault.is_some());
}

async fn branch_of(folder: &Path) -> Branch {
    let store = sqlite(folder).await;
    let branch = store.branch().await.unwrap().unwrap();
    store.close().await;
    branch
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_stands_twice_far_apart_is_named_where_it_stands_again() {
    let folder = tempfile::tempdir().unwrap();
    chain(folder.path()).await;
    let mut branch = branch_of(folder.path()).await;
    let tip = branch.tip();
    append(folder.path(), &mut branch, vec![transaction("{}", 10), transaction(r#"{"reading":0}"#, 11)]);
    // A later fault, which a first pass finds before it.
    append(folder.path(), &mut branch, vec![transaction(r#"{"reading":11}"#, 99)]);
    let store = sqlite(folder.path()).await;
    for budget in BUDGETS {
        for signatures in [Signatures::Checked, Signatures::Skipped] {
            let found = validation(&store, signatures, budget).await;
            assert_eq!((found.valid_blocks, found.transactions, found.tip), (11, 21, Some(tip)));
            let Fault { height, position, reason, .. } = found.fault.unwrap();
            assert_eq!((height, position), (11, Some(1)), "{reason}");
            assert!(reason.contains("stands earlier on this branch"), "{reason}");
        }
    }
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sequence_that_is_not_the_next_is_named_in_every_pass() {
    for (sequence, payload) in [(11, "{}"), (9, "{}"), (0, "{}")] {
        let folder = tempfile::tempdir().unwrap();
        chain(folder.path()).await;
        let mut branch = branch_of(folder.path()).await;
        append(folder.path(), &mut branch, vec![transaction(payload, sequence)]);
        let store = sqlite(folder.path()).await;
        for budget in BUDGETS {
            let found = validation(&store, Signatures::Checked, budget).await;
            assert_eq!((found.valid_blocks, found.tip.is_some()), (11, true));
            let fault = found.fault.unwrap();
            assert_eq!((fault.height, fault.position, fault.field.as_str()), (11, Some(0), "sequence"));
            assert!(fault.reason.contains("the next of its key is 10"), "{fault:?}");
        }
        store.close().await;
    }
}

/// Changes the index of ids behind the back of its table: its tree becomes that of another table.
fn reindex(rows: &str) -> String {
    format!(
        "CREATE TABLE other (arrival INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE) STRICT;
         INSERT INTO other SELECT {rows};
         PRAGMA writable_schema = ON;
         UPDATE sqlite_schema SET rootpage =
             (SELECT rootpage FROM sqlite_schema WHERE name = 'sqlite_autoindex_other_1')
         WHERE name = 'sqlite_autoindex_transactions_1';
         PRAGMA writable_schema = RESET;"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_its_index_lacks_is_named() {
    let lacking = "arrival, id FROM transactions WHERE height IS NOT 7 OR position IS NOT 1";
    let fault = fault_after(&reindex(lacking)).await;
    assert_eq!((fault.height, fault.position, fault.field.as_str()), (7, Some(1), "id"));
    assert!(fault.reason.contains("not found by its index"), "{fault:?}");
    let fault = fault_after(&reindex("arrival, id FROM transactions WHERE height = 3")).await;
    assert_eq!((fault.height, fault.position, fault.field.as_str()), (0, Some(0), "id"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_is_sealed_and_pending_is_named() {
    let fault = fault_after(
        "CREATE TABLE copy AS SELECT * FROM transactions; DROP TABLE transactions;
         CREATE TABLE transactions AS SELECT * FROM copy;
         INSERT INTO transactions (arrival, id, key, received_ms, payload, signature)
         SELECT 100, id, key, received_ms, payload, signature FROM copy WHERE height = 4 AND position = 0;",
    )
    .await;
    assert_eq!((fault.height, fault.position, fault.field.as_str()), (4, Some(0), "id"));
}

/// On one thread, nothing is read while the validation itself runs, so it cannot end before it is cancelled.
#[tokio::test]
async fn a_validation_that_is_dropped_reads_no_further() {
    let folder = tempfile::tempdir().unwrap();
    let store = sqlite(folder.path()).await;
    let ledger = open(&store, config()).await;
    ledger.submit(Signer::new(1).readings(0..1_000), WAIT).await.unwrap();
    let (told, mut done) = (Notify::new(), 0);
    {
        let validating = validate(&store, |blocks, known| {
            (done, _) = (blocks, assert_eq!(known, 500));
            told.notify_one();
        });
        tokio::select! {
            biased;
            () = told.notified() => {}
            result = validating => panic!("it ended: {result:?}"),
        }
    }
    assert!((1..501).contains(&done), "{done}");
    assert_eq!(validate(&store, |_, _| {}).await.unwrap().valid_blocks, 501);
    // Waits for whatever reads.
    ledger.shutdown().await;
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
    // Whoever was stopped at the very end may not know that all is there.
    assert_eq!(transfer::import(&copy, "test", open, |_| {}).await.unwrap(), exported);
}
