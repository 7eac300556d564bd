//! What is around the file fails, and comes back.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    process::Command,
    sync::Arc,
};

use liotbchain_core::TransactionId;
use liotbchain_store::{OpenOptions, Status, Store, StoreError, sqlite::SqliteStore};
use rusqlite::Connection;
use tempfile::TempDir;

use crate::{
    chain::{Chain, Device, START_MS, ids},
    open, put, subprocess,
};

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

/// Admits until it fails, and returns what was acknowledged.
async fn admit_until_full(store: &Arc<dyn Store>) -> Vec<TransactionId> {
    let device = Device::new(1);
    let mut acknowledged = Vec::new();
    for number in 0..4000 {
        let list: Vec<_> =
            (0..4).map(|place| device.say(format!("{number} {place} {}", "x".repeat(4000)))).collect();
        match store.admit(&list, START_MS).await {
            Ok(_) => acknowledged.extend(ids(&list)),
            Err(StoreError::Unavailable(_)) => return acknowledged,
            // What is unknown is asked for: all of it is there, or nothing.
            Err(StoreError::CommitUnknown(_)) => {
                let found = store.look_up(&ids(&list)).await.unwrap();
                assert!(found.iter().all(Option::is_none) || found.iter().all(Option::is_some), "{found:?}");
                return acknowledged;
            }
            Err(error) => panic!("expected the store not to be available: {error:?}"),
        }
    }
    panic!("16 MB fitted on a full disk");
}

async fn assert_pending(store: &Arc<dyn Store>, ids: &[TransactionId]) {
    let statuses = store.look_up(ids).await.unwrap();
    assert_eq!(statuses, vec![Some(Status::Pending); ids.len()]);
}

/// Fills the disk, reads, makes space, writes.
async fn fails_and_recovers(folder: &Path, make_full: impl FnOnce(), make_space: impl FnOnce()) {
    let path = folder.join("chain.db");
    let store = open(&path).await;
    let device = Device::new(2);
    let mut chain = Chain::new("test");
    store.admit(&device.count(0..8), START_MS).await.unwrap();
    chain.seal_each(&device.count(0..4));
    let right = put(&store, &chain).await;
    make_full();
    let acknowledged = admit_until_full(&store).await;
    assert_pending(&store, &acknowledged).await;
    assert_eq!(store.branch().await.unwrap(), Some(chain.branch()));
    make_space();
    let tip = chain.branch().tip();
    let block = chain.seal(&device.count(4..8));
    store.commit(&right, tip, 0, &[block]).await.unwrap();
    store.admit(&[device.say("y".repeat(65_536)), device.say("after")], START_MS).await.unwrap();
    assert_pending(&store, &acknowledged).await;
    store.close().await;

    let store = open(&path).await;
    assert_pending(&store, &acknowledged).await;
    assert_eq!(store.branch().await.unwrap(), Some(chain.branch()));
    let connection = Connection::open(&path).unwrap();
    assert_eq!(
        connection.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0)).unwrap(),
        "ok"
    );
}

/// Writes past the limit fail, as on a disk whose quota is used up, instead of ending the process.
fn with_a_limit() -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"trap '' XFSZ; exec "$0" "$@""#]);
    shell
}

fn limit_file_size(limit: &str) {
    let process = std::process::id().to_string();
    let status =
        Command::new("prlimit").args(["--pid", &process, &format!("--fsize={limit}:")]).status().unwrap();
    assert!(status.success());
}

#[tokio::test]
async fn recovers_when_files_may_grow_again() {
    if let Some(folder) = subprocess::folder() {
        return fails_and_recovers(&folder, || limit_file_size("1500000"), || limit_file_size("unlimited"))
            .await;
    }
    let folder = TempDir::new().unwrap();
    subprocess::rerun("failure::recovers_when_files_may_grow_again", folder.path(), &mut with_a_limit());
}

/// On a disk of 6 MB, where this process may mount one.
#[tokio::test]
async fn recovers_when_the_disk_has_space_again() {
    if let Some(folder) = subprocess::folder() {
        let filler = folder.join("filler");
        fs::write(&filler, vec![1; 4 << 20]).unwrap();
        return fails_and_recovers(&folder, || {}, || fs::remove_file(&filler).unwrap()).await;
    }
    let unshare = || {
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--map-root-user", "sh", "-c"]);
        unshare
    };
    let folder = TempDir::new().unwrap();
    if !unshare().arg(r#"mount -t tmpfs tmpfs "$0""#).arg(folder.path()).output().unwrap().status.success() {
        eprintln!(
            "this process may not mount a small disk: only the test with a limit on the size of files was run"
        );
        return;
    }
    let script = r#"mount -t tmpfs -o size=6m tmpfs "$LIOTBCHAIN_TEST_FOLDER" && exec "$0" "$@""#;
    subprocess::rerun(
        "failure::recovers_when_the_disk_has_space_again",
        folder.path(),
        unshare().arg(script),
    );
}

#[tokio::test]
async fn refuses_a_place_that_it_may_not_write_to() {
    let Some(folder) = subprocess::folder() else {
        let folder = TempDir::new().unwrap();
        let mut nobody = Command::new("setpriv");
        nobody.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--"]);
        let mut wrapper = if is_root() { nobody } else { Command::new("env") };
        return subprocess::rerun(
            "failure::refuses_a_place_that_it_may_not_write_to",
            folder.path(),
            &mut wrapper,
        );
    };
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let (read_only, file) = (folder.join("read-only"), folder.join("file.db"));
    fs::create_dir(&read_only).unwrap();
    for path in [&file, &read_only.join("old.db")] {
        open(path).await.close().await;
    }
    mode(&read_only, 0o555);
    mode(&file, 0o444);
    for path in [&read_only.join("new.db"), &read_only.join("old.db"), &read_only.join("sub/new.db"), &file] {
        let result = SqliteStore::open(path, &OpenOptions::default()).await.map(|_| ());
        let Err(StoreError::Config { problem, cure }) = result else {
            panic!("{}: {result:?}", path.display())
        };
        assert!(problem.contains("read-only") || problem.contains("file.db"), "{problem}");
        assert!(cure.contains("this user may write"), "{cure}");
    }
    mode(&read_only, 0o755);
}

#[tokio::test]
async fn gives_up_while_another_program_holds_the_lock() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("chain.db");
    let store = open(&path).await;
    let device = Device::new(1);
    let (before, during, after) = (device.count(0..2), device.count(2..4), device.count(4..6));
    store.admit(&before, START_MS).await.unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    // Both wait at once, and neither is done later on, when nobody expects it any more.
    let (one, two) = tokio::join!(store.admit(&during, START_MS), store.admit(&during, START_MS));
    for result in [one, two] {
        assert!(matches!(result, Err(StoreError::Unavailable(_))), "{result:?}");
    }
    assert_pending(&store, &ids(&before)).await;
    other.execute_batch("ROLLBACK").unwrap();
    store.admit(&after, START_MS).await.unwrap();
    assert_eq!(store.look_up(&ids(&during)).await.unwrap(), [None, None]);
    assert_pending(&store, &ids(&after)).await;
}

/// SQLite would go on writing into a file that has no name any more.
#[tokio::test]
async fn notices_that_the_file_is_gone_and_back() {
    let folder = TempDir::new().unwrap();
    let (path, away) = (folder.path().join("chain.db"), folder.path().join("away.db"));
    let store = open(&path).await;
    let device = Device::new(1);
    store.admit(&device.count(0..2), START_MS).await.unwrap();
    fs::rename(&path, &away).unwrap();
    for _ in 0..2 {
        let result = store.admit(&device.count(2..4), START_MS).await;
        assert!(matches!(result, Err(StoreError::Unavailable(_))), "{result:?}");
        let result = store.look_up(&ids(&device.count(0..2))).await;
        assert!(matches!(result, Err(StoreError::Unavailable(_))), "{result:?}");
    }
    assert!(!path.exists(), "an empty chain took the place of the one that is gone");
    fs::rename(&away, &path).unwrap();
    assert_pending(&store, &ids(&device.count(0..2))).await;
    store.admit(&device.count(4..6), START_MS).await.unwrap();
    store.close().await;
    let store = open(&path).await;
    assert_pending(&store, &ids(&[device.count(0..2), device.count(4..6)].concat())).await;
    assert_eq!(store.pending_count(99).await.unwrap(), 4);
}

#[tokio::test]
async fn takes_no_other_file_for_its_own() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("chain.db");
    let store = open(&path).await;
    let device = Device::new(1);
    store.admit(&device.count(0..2), START_MS).await.unwrap();
    for name in ["chain.db", "chain.db-wal", "chain.db-shm"] {
        fs::remove_file(folder.path().join(name)).unwrap();
    }
    fs::write(&path, "").unwrap();
    let result = store.admit(&device.count(2..4), START_MS).await;
    assert!(matches!(result, Err(StoreError::Unavailable(_))), "{result:?}");
    assert!(store.ping().await.is_err());
    assert_eq!(fs::read(&path).unwrap(), b"");
}
