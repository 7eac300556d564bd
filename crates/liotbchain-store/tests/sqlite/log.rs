//! The write-ahead log is copied back while the store is written to.

use std::{fs, path::Path, time::Duration};

use rusqlite::Connection;
use tempfile::TempDir;
use tokio::time::sleep;

use crate::{
    chain::{Device, START_MS, unsigned},
    open,
};

fn size(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// A writer that never rests would let it grow for ever, if it were not started anew.
#[tokio::test]
async fn does_not_grow_without_bound() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("chain.db");
    let store = open(&path).await;
    let device = Device::new(1);
    let payload = "x".repeat(60_000);
    let (mut log_max, mut number) = (0, 0);
    // 16 payloads in 4 pages each: about 1 MiB a commit.
    while size(&path) < 512 << 20 {
        let list: Vec<_> = (0..16).map(|place| device.say(format!("{number} {place} {payload}"))).collect();
        store.admit(&list, START_MS).await.unwrap();
        log_max = log_max.max(size(&folder.path().join("chain.db-wal")));
        number += 1;
        assert!(number < 1000, "nothing was copied back");
    }
    assert!(log_max < 256 << 20, "the log grew to {log_max} bytes");
}

#[tokio::test]
async fn is_copied_back_soon_after_the_last_commit() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("chain.db");
    let store = open(&path).await;
    let before = size(&path);
    store.admit(&[unsigned(&"x".repeat(65_536), 1)], START_MS).await.unwrap();
    assert_eq!(size(&path), before, "a commit wrote to the log alone");
    while size(&path) == before {
        sleep(Duration::from_millis(20)).await;
    }
}

/// SQLite itself does so only where nobody else has the file open.
#[tokio::test]
async fn is_empty_after_closing() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("chain.db");
    let store = open(&path).await;
    let other = Connection::open(&path).unwrap();
    let count = || other.query_row("SELECT count(*) FROM waiting", [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(count(), 0);
    store.admit(&[unsigned("{}", 1)], START_MS).await.unwrap();
    store.close().await;
    assert_eq!(fs::metadata(folder.path().join("chain.db-wal")).unwrap().len(), 0);
    assert_eq!(count(), 1);
}
