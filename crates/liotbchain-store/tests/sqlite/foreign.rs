//! Files that are not ours are left as they are.

use std::{fs, path::Path};

use liotbchain_store::{OpenOptions, StoreError, sqlite::SqliteStore};
use rusqlite::Connection;
use tempfile::TempDir;

use crate::open;

/// Makes a file, and opens it as a store: it must fail, and change nothing.
async fn refused(make: impl FnOnce(&Path)) -> StoreError {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("chain.db");
    make(&path);
    let before = fs::read(&path).ok();
    let result = SqliteStore::open(&path, &OpenOptions::default()).await;
    assert!(fs::read(&path).ok() == before, "the file was changed");
    match result {
        Ok(_) => panic!("expected it to be refused"),
        Err(error) => error,
    }
}

fn run(path: &Path, sql: &str) {
    Connection::open(path).unwrap().execute_batch(sql).unwrap();
}

#[tokio::test]
async fn recognises_the_python_original() {
    let error = refused(|path| {
        run(
            path,
            r#"CREATE TABLE blocks ("index" INTEGER PRIMARY KEY, data TEXT, timestamp REAL, previous_hash TEXT, nonce INTEGER, hash TEXT);
               INSERT INTO blocks VALUES (0, '"Genesis Block"', 1795345827.15, '0', 0, '86594d');"#,
        );
    });
    let error = error.await;
    assert!(matches!(&error, StoreError::Original { location } if location.ends_with("chain.db")), "{error}");
}

#[tokio::test]
async fn refuses_the_database_of_another_program() {
    for sql in ["CREATE TABLE blocks (height INTEGER)", "CREATE TABLE meta (key TEXT PRIMARY KEY, value)"] {
        let error = refused(|path| run(path, sql)).await;
        assert!(
            matches!(&error, StoreError::Config { problem, .. } if problem.contains("of another program")),
            "{error}"
        );
    }
}

#[tokio::test]
async fn refuses_what_is_no_database() {
    for text in
        ["name,distance\nRaspberry Pi 1,88\n".repeat(999), "to do: buy sensors\n".to_owned(), "x".to_owned()]
    {
        let error = refused(|path| fs::write(path, text).unwrap()).await;
        assert!(
            matches!(&error, StoreError::Config { problem, .. } if problem.contains("is not a SQLite database")),
            "{error}"
        );
    }
    let error = refused(|path| fs::create_dir(path).unwrap()).await;
    assert!(
        matches!(&error, StoreError::Config { problem, .. } if problem.contains("is a folder")),
        "{error}"
    );
}

#[tokio::test]
async fn refuses_a_newer_format() {
    let folder = TempDir::new().unwrap();
    let ours = folder.path().join("ours.db");
    open(&ours).await.close().await;
    let newer = "UPDATE meta SET value = 7 WHERE key = 'format'";
    // One day the tables may be others.
    let other_tables = &format!("{newer}; DROP TABLE history_nodes; DROP TABLE seal_right");
    for sql in [newer, other_tables] {
        let error = refused(|path| {
            fs::copy(&ours, path).unwrap();
            run(path, sql);
        });
        let error = error.await;
        assert!(matches!(error, StoreError::Newer { found: 7, known: 2 }), "{error}");
    }
}

#[tokio::test]
async fn takes_an_empty_file_as_new() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("chain.db");
    fs::write(&path, "").unwrap();
    open(&path).await.close().await;
    open(&path).await.ping().await.unwrap();
}

/// A dump loses what the header says, such as the application's id.
#[tokio::test]
async fn takes_a_copy_that_another_tool_made() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("chain.db");
    open(&path).await.close().await;
    run(&path, "PRAGMA application_id = 0; PRAGMA journal_mode = DELETE;");
    open(&path).await.ping().await.unwrap();
}

#[tokio::test]
async fn is_created_by_many_at_once() {
    let folder = TempDir::new().unwrap();
    for round in 0..5 {
        let path = folder.path().join(format!("chain{round}.db"));
        let opening: Vec<_> = (0..6)
            .map(|_| {
                let path = path.clone();
                tokio::spawn(async move { open(&path).await })
            })
            .collect();
        for store in opening {
            store.await.unwrap().ping().await.unwrap();
        }
    }
}
