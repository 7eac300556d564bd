//! A disk that takes no more, and takes more again.

use std::{env, fs, os::unix::fs::PermissionsExt, path::PathBuf, process::Command};

use super::*;

const FOLDER: &str = "LIOTBCHAIN_TEST_OUTBOX";

/// Returns the folder to work in, in the process that [`rerun`] started; none in the first one.
fn folder() -> Option<PathBuf> {
    env::var_os(FOLDER).map(PathBuf::from)
}

/// Runs a test of this file once more, by `wrapper`, which gets this program's path and arguments appended.
fn rerun(test: &str, wrapper: &mut Command) {
    let folder = TempDir::new().unwrap();
    let name = format!("{}::{test}", module_path!().split_once("::").unwrap().1);
    wrapper.arg(env::current_exe().unwrap()).args(["--exact", &name, "--nocapture"]);
    let output = wrapper.env(FOLDER, folder.path()).output().unwrap();
    let text = [String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)].concat();
    // A wrong name would run no test, and succeed.
    assert!(output.status.success() && text.contains("1 passed"), "{wrapper:?}: {}\n{text}", output.status);
}

/// Fills the disk, sends some, makes space, and looks whether all that was acknowledged is there, and nothing twice.
async fn fails_and_recovers(folder: &Path, make_full: impl FnOnce(), make_space: impl FnOnce()) {
    let (path, key) = (folder.join(OUTBOX_FILE), new_key());
    let (outbox, _) = open(&path, &key).await;
    let text = |number: u64| format!("[{number},\"{}\"]", "x".repeat(2000));
    let list = |from: u64| {
        (from..from + 20).map(|it| known_reading("a", &it.to_string(), &text(it))).collect::<Vec<_>>()
    };
    let mut acknowledged = ids(&outbox.put(list(0), START_MS).await.unwrap());
    make_full();
    let mut from = 20;
    // After the first error the log is copied back, which makes some room once more.
    let mut errors = Vec::new();
    while errors.len() < 2 {
        match outbox.put(list(from), START_MS).await {
            Ok(queued) => {
                acknowledged.extend(ids(&queued));
                errors.clear();
                from += 20;
            }
            Err(error) => errors.push(error),
        }
        assert!(from < 10_000, "20 MB fitted on a full disk");
    }
    let error = errors.remove(0);
    assert!(matches!(&error, OutboxError::Disk(_)), "{error}");
    assert!(outbox.status().borrow().fault.is_some());
    // What waits can be sent meanwhile.
    let records = outbox.take(10, usize::MAX).await.unwrap();
    assert_eq!(records.iter().map(|record| record.id).collect::<Vec<_>>(), acknowledged[..10]);
    outbox.settle(slots(&records), vec![]).await.unwrap();
    make_space();
    // The fault passes though nobody writes.
    outbox.status().wait_for(|status| status.fault.is_none()).await.unwrap();
    acknowledged.extend(ids(&outbox.put(list(from), START_MS).await.unwrap()));
    outbox.close().await;

    let (outbox, opened) = open(&path, &key).await;
    assert_eq!(opened.salvaged, None);
    let records = take_all(&outbox).await;
    let there: Vec<_> = records.iter().map(|record| record.id).collect();
    assert_eq!(there, acknowledged[10..]);
    let counters: Vec<_> = records.iter().map(|record| place(record).1).collect();
    assert_eq!(counters, (10..acknowledged.len() as u64).collect::<Vec<_>>(), "a counter is missing");
}

fn limit_file_size(limit: &str) {
    let process = std::process::id().to_string();
    let limit = format!("--fsize={limit}:");
    assert!(Command::new("prlimit").args(["--pid", &process, &limit]).status().unwrap().success());
}

/// Writes past the limit fail, as on a disk whose quota is used up, instead of ending the process.
#[tokio::test]
async fn recovers_when_files_may_grow_again() {
    if let Some(folder) = folder() {
        return fails_and_recovers(&folder, || limit_file_size("1500000"), || limit_file_size("unlimited"))
            .await;
    }
    let mut shell = Command::new("sh");
    rerun("recovers_when_files_may_grow_again", shell.args(["-c", r#"trap '' XFSZ; exec "$0" "$@""#]));
}

/// On a disk of 3 MB, where this process may mount one.
#[tokio::test]
async fn recovers_when_the_disk_has_space_again() {
    if let Some(folder) = folder() {
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=3m", "tmpfs"]).arg(&folder).status();
        assert!(mount.unwrap().success());
        let ballast = folder.join("ballast");
        let make_full = || fs::write(&ballast, vec![0; 1 << 20]).unwrap();
        return fails_and_recovers(&folder, make_full, || fs::remove_file(&ballast).unwrap()).await;
    }
    let unshare = ["--user", "--map-root-user", "--mount"];
    let may = Command::new("unshare").args(unshare).arg("true").status();
    if may.is_ok_and(|status| status.success()) {
        rerun("recovers_when_the_disk_has_space_again", Command::new("unshare").args(unshare));
    }
}

#[tokio::test]
async fn says_that_a_folder_cannot_be_made_or_written() {
    let (folder, key) = (TempDir::new().unwrap(), new_key());
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let error = Outbox::open(&file.join(OUTBOX_FILE), Arc::clone(&key), LIMITS).await.unwrap_err();
    assert!(matches!(&error, OutboxError::Disk(reason) if reason.contains("file")), "{error}");
    let error = Outbox::open(folder.path(), key, LIMITS).await.unwrap_err();
    assert!(matches!(error, OutboxError::Disk(_)), "{error}");
}

/// Root may write everywhere: a process without its rights opens the file.
#[tokio::test]
async fn says_that_the_file_may_only_be_read() {
    if let Some(folder) = folder() {
        let path = folder.join(OUTBOX_FILE);
        let key = new_key();
        let (outbox, _) = open(&path, &key).await;
        outbox.put(readings("a", 0..3), START_MS).await.unwrap();
        outbox.close().await;
        for (path, mode) in [(&path, 0o400), (&folder, 0o500)] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        let error = Outbox::open(&path, Arc::clone(&key), LIMITS).await.unwrap_err();
        assert!(matches!(&error, OutboxError::Disk(_)), "{error}");
        for (path, mode) in [(&folder, 0o700), (&path, 0o600)] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        assert_eq!(open(&path, &key).await.1, Opened { waiting: 3, salvaged: None });
        return;
    }
    let mut wrapper = Command::new("setpriv");
    wrapper.args(["--inh-caps=-all", "--bounding-set=-all", "--"]);
    rerun("says_that_the_file_may_only_be_read", &mut wrapper);
}

#[tokio::test]
async fn acknowledges_nothing_once_the_file_is_gone() {
    let (folder, key) = (TempDir::new().unwrap(), new_key());
    let path = folder.path().join(OUTBOX_FILE);
    let (outbox, _) = open(&path, &key).await;
    let first = ids(&outbox.put(readings("a", 0..3), START_MS).await.unwrap());
    fs::rename(&path, folder.path().join("away")).unwrap();
    let error = outbox.put(readings("a", 3..4), START_MS).await.unwrap_err();
    assert!(matches!(&error, OutboxError::Disk(reason) if reason.contains("deleted or replaced")), "{error}");
    // What it held can still be sent.
    let records = take_all(&outbox).await;
    assert_eq!(records.iter().map(|record| record.id).collect::<Vec<_>>(), first);
    fs::rename(folder.path().join("away"), &path).unwrap();
    outbox.put(readings("a", 3..4), START_MS).await.unwrap();
    assert_eq!(outbox.status().borrow().fault, None);
}
