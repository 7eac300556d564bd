//! The file makes sense to a person with `sqlite3`.

use rusqlite::{Connection, types::Value};
use tempfile::TempDir;

use crate::{
    chain::{Chain, Device, START_MS, unsigned},
    open, put,
};

fn rows(connection: &Connection, query: &str) -> Vec<Vec<Value>> {
    let mut statement = connection.prepare(query).unwrap();
    let columns = statement.column_count();
    let rows = statement.query_map([], |row| (0..columns).map(|column| row.get(column)).collect());
    rows.unwrap().collect::<Result<_, _>>().unwrap()
}

fn text(text: impl Into<String>) -> Value {
    Value::Text(text.into())
}

#[tokio::test]
async fn views_show_text_and_hexadecimal() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("chain.db");
    let store = open(&path).await;
    let device = Device::new(1);
    let mut chain = Chain::new("test");
    store
        .admit(&[device.say(r#"{"distance":88}"#), device.say(r#"{"distance":99}"#)], START_MS)
        .await
        .unwrap();
    let block = chain.seal(&[unsigned("\u{e9}", 1), device.say(r#"{"distance":88}"#)]);
    put(&store, &chain).await;

    // While the store is open, and with the program's defaults, as a person would.
    let connection = Connection::open(&path).unwrap();
    let genesis = chain.genesis().hash().to_string();
    let chain_rows =
        rows(&connection, "SELECT height, hash, prev_block_hash, transactions, time_utc FROM chain");
    assert_eq!(
        chain_rows,
        [
            vec![
                Value::Integer(0),
                text(&genesis),
                text("0".repeat(64)),
                Value::Integer(1),
                text("2026-11-22 11:10:27.157")
            ],
            vec![
                Value::Integer(1),
                text(block.hash().to_string()),
                text(&genesis),
                Value::Integer(2),
                text("2026-11-22 11:10:28.157"),
            ],
        ]
    );
    let readings = rows(&connection, "SELECT height, position, payload, key_id, sequence FROM readings");
    let (key_id, zero) = (device.key_id().to_string(), "0".repeat(64));
    assert_eq!(
        readings,
        [
            vec![Value::Integer(1), Value::Integer(0), text("\u{e9}"), text(zero), Value::Integer(1)],
            vec![
                Value::Integer(1),
                Value::Integer(1),
                text(r#"{"distance":88}"#),
                text(key_id),
                Value::Integer(0)
            ],
        ]
    );
    let waiting = rows(&connection, "SELECT payload ->> 'distance', id, received_utc FROM waiting");
    let id = device.say(r#"{"distance":99}"#).statement.id();
    assert_eq!(waiting, [[Value::Integer(99), text(id.to_string()), text("2026-11-22 11:10:27.157")]]);
}

#[tokio::test]
async fn file_has_the_settings_that_were_measured() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("chain.db");
    open(&path).await.close().await;
    let connection = Connection::open(&path).unwrap();
    for (pragma, value) in [
        ("page_size", Value::Integer(16_384)),
        ("application_id", Value::Integer(i64::from(u32::from_be_bytes(*b"liot")))),
        ("journal_mode", text("wal")),
        ("integrity_check", text("ok")),
    ] {
        assert_eq!(rows(&connection, &format!("PRAGMA {pragma}")), [[value]], "{pragma}");
    }
    assert_eq!(rows(&connection, "PRAGMA foreign_key_check"), Vec::<Vec<Value>>::new());
}

#[tokio::test]
async fn closing_leaves_one_file() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("sub/folder/chain.db");
    let store = open(&path).await;
    let mut chain = Chain::new("test");
    store.admit(&Device::new(1).count(0..9), START_MS).await.unwrap();
    chain.seal(&Device::new(1).count(0..9));
    put(&store, &chain).await;
    assert_eq!(store.location(), format!("sqlite:{}", path.display()));
    store.close().await;
    store.close().await;
    let names = path.parent().unwrap().read_dir().unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(names.collect::<Vec<_>>(), ["chain.db"]);
    for result in [store.ping().await, store.add_keys(&[]).await] {
        assert_eq!(result.unwrap_err().to_string(), "the store is not available: the store is closed");
    }
}

/// A file of format 1 is brought up to date; what is pruned then shows as such.
#[tokio::test]
async fn brings_a_file_of_format_1_up_to_date() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("chain.db");
    let old = Connection::open(&path).unwrap();
    old.execute_batch(include_str!("../../src/sqlite/migrations/1.sql")).unwrap();
    old.execute("INSERT INTO meta (key, value) VALUES ('format', 1)", []).unwrap();
    let mut chain = Chain::new("test");
    let device = Device::new(1);
    let list = device.count(0..2);
    drop(old);
    let store = open(&path).await;
    store.create(chain.genesis()).await.unwrap();
    store.admit(&list, START_MS).await.unwrap();
    let right = store.acquire_right("a", std::time::Duration::from_secs(60)).await.unwrap().unwrap();
    let tip = chain.branch().tip();
    store.commit(&right, tip, 0, &[chain.seal(&list)]).await.unwrap();
    store.prune(device.key_id(), 0..9, 9).await.unwrap();
    store.close().await;
    let new = Connection::open(&path).unwrap();
    let format: i64 =
        new.query_row("SELECT value FROM meta WHERE key = 'format'", [], |row| row.get(0)).unwrap();
    assert_eq!(format, 2);
    let shown: (Option<String>, Option<String>, Option<String>) = new
        .query_row(
            "SELECT payload, signature, pruned_content_hash FROM readings WHERE position = 1",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .unwrap();
    let hash = list[1].statement.statement().content_hash().to_string();
    assert_eq!(shown, (None, None, Some(hash)));
    // A content hash that was tampered with is no content hash of ours; one that is too short is no row of ours.
    new.execute("UPDATE transactions SET signature = x'00' WHERE position = 1 AND height = 1", []).unwrap();
    drop(new);
    let error = open(&path).await.blocks(1, 1, 1).await.unwrap_err().to_string();
    assert!(error.contains("block 1: transaction 1: pruned, with a content hash of 1 bytes"), "{error}");
}
