//! The key, the folder and the queue.

use std::{
    io,
    path::{Path, PathBuf},
};

use reqwest::Url;
use rusqlite::{Connection, ErrorCode, OpenFlags, config::DbConfig};
use serde_json::Value;

use super::{Finding, client};
use crate::{
    outbox::{OUTBOX_FILE, OutboxLimits},
    signer::{KEY_FILE, KeyKind, SignerError, SigningKey},
};

pub(super) fn key(data_dir: &Path, wanted: KeyKind) -> Finding {
    let path = data_dir.join(KEY_FILE);
    let key = match SigningKey::load(&path) {
        Ok(key) => key,
        Err(SignerError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Finding::ok(
                "key",
                format!("there is none yet: the first start makes one ({wanted}) in {}", path.display()),
            );
        }
        Err(error) => return Finding::fail("key", error.to_string()),
    };
    let found = key.kind();
    if found != wanted {
        let error = SignerError::OtherKind { path, found, wanted };
        return Finding::fail("key", error.to_string());
    }
    let message = format!("{found} {} in {}", key.public_key().key_id(), path.display());
    match shared_mode(&path) {
        None => Finding::ok("key", message),
        Some(mode) => {
            Finding::warn("key", format!("{message} has mode {mode:04o}: others can read or change it"))
                .cure(format!("chmod 600 {}", path.display()))
        }
    }
}

/// Returns the mode of a file that others than its owner may read or write.
#[cfg(unix)]
fn shared_mode(path: &Path) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt;
    let mode = path.metadata().ok()?.permissions().mode() & 0o777;
    (mode & 0o077 != 0).then_some(mode)
}

#[cfg(not(unix))]
fn shared_mode(_: &Path) -> Option<u32> {
    None
}

pub(super) fn folder(data_dir: &Path, limits: OutboxLimits) -> Finding {
    let shown = data_dir.display();
    // A folder that is missing is made at the start, in the nearest one that is there.
    let Some(existing) = data_dir.ancestors().map(here).find(|folder| folder.exists()) else {
        return Finding::fail("folder", format!("{shown} cannot be made"))
            .cure("set DATA_DIR to another folder");
    };
    if let Err(error) = tempfile::NamedTempFile::new_in(existing) {
        return Finding::fail("folder", format!("{shown} cannot be written: {error}"))
            .cure("set DATA_DIR to a folder that this user may write to, and that is not full");
    }
    let taken = data_dir.join(OUTBOX_FILE).metadata().map_or(0, |file| file.len());
    let needed = limits.size_max.saturating_sub(taken);
    match free_space(existing) {
        Some(free) if free < needed => {
            let (free, needed) = (in_units(free), in_units(needed));
            Finding::warn("folder", format!("{shown} has {free} free, and the queue may take {needed} more"))
                .cure("free some, or set OUTBOX_SIZE_MAX lower: a full disk is refused to devices like a full queue")
        }
        Some(free) => {
            Finding::ok("folder", format!("{shown} can be written and has {} free", in_units(free)))
        }
        None => Finding::ok("folder", format!("{shown} can be written")),
    }
}

/// Returns the folder that a relative path without a name stands for.
fn here(folder: &Path) -> &Path {
    if folder.as_os_str().is_empty() { Path::new(".") } else { folder }
}

#[cfg(unix)]
fn free_space(folder: &Path) -> Option<u64> {
    let space = rustix::fs::statvfs(folder).ok()?;
    space.f_bavail.checked_mul(space.f_frsize)
}

#[cfg(not(unix))]
fn free_space(_: &Path) -> Option<u64> {
    None
}

fn in_units(size: u64) -> String {
    match size {
        0..1_048_576 => format!("{} KiB", size >> 10),
        _ => format!("{} MiB", size >> 20),
    }
}

/// What stands in the file of a queue.
enum Found {
    Nothing,
    Waiting(u64),
    InUse,
    Damaged(String),
    Unreadable(String),
}

pub(super) async fn queue(data_dir: &Path, sender: &Url) -> Finding {
    let path = data_dir.join(OUTBOX_FILE);
    let shown = path.display().to_string();
    let found = tokio::task::spawn_blocking(move || look(&path)).await;
    match found.unwrap_or_else(|error| Found::Unreadable(error.to_string())) {
        Found::Nothing => Finding::ok("queue", format!("there is none yet: the first start makes {shown}")),
        Found::Waiting(waiting) => {
            Finding::ok("queue", format!("{shown} is sound; {waiting} readings wait in it"))
        }
        Found::InUse => in_use(&shown, sender).await,
        Found::Damaged(problem) => Finding::warn("queue", format!("{shown} is damaged: {problem}"))
            .cure("start the sender: it puts the file aside and saves every record that proves itself"),
        Found::Unreadable(problem) => Finding::fail("queue", format!("{shown} cannot be opened: {problem}"))
            .cure("check the owner and the mode of the file: it must be this user's"),
    }
}

fn look(path: &PathBuf) -> Found {
    if !path.exists() {
        return Found::Nothing;
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let looked = Connection::open_with_flags(path, flags).and_then(|connection| {
        // A log that a killed sender left is its to copy.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        let problem: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if problem != "ok" {
            return Ok(Found::Damaged(problem));
        }
        let waiting = "SELECT coalesce(sum(waiting), 0) FROM devices";
        let waiting: i64 = connection.query_row(waiting, [], |row| row.get(0))?;
        Ok(Found::Waiting(waiting.unsigned_abs()))
    });
    looked.unwrap_or_else(|error| match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Found::InUse,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Found::Damaged(error.to_string()),
        _ => Found::Unreadable(error.to_string()),
    })
}

/// Asks the sender that has the queue.
async fn in_use(shown: &str, sender: &Url) -> Finding {
    let stranger = |problem: &str| {
        Finding::fail("queue", format!("{shown} is used by another process, and {sender} {problem}")).cure(
            "set SENDER_LISTEN to the address of that sender to ask it, or stop it, or set another DATA_DIR",
        )
    };
    let Some(status) = ask(sender).await else { return stranger("does not answer as a sender does") };
    let number = |name: &str| status["queue"][name].as_u64();
    let (Some(waiting), Some(size), Some(size_max)) =
        (number("waiting"), number("bytes"), number("bytes_max"))
    else {
        return stranger("does not answer as a sender does");
    };
    let message = format!(
        "{shown} is used by the sender at {sender}: {waiting} readings wait, {} of {} in use",
        in_units(size),
        in_units(size_max)
    );
    match status["queue"]["fault"].as_str() {
        Some(fault) => Finding::fail("queue", format!("{message}; it cannot write: {fault}"))
            .cure("free space on the disk, or put another one in: devices are told to come again meanwhile"),
        None if size > size_max / 10 * 9 => Finding::warn("queue", message)
            .cure("see that a receiver takes readings (below), or raise OUTBOX_SIZE_MAX"),
        None => Finding::ok("queue", message),
    }
}

async fn ask(sender: &Url) -> Option<Value> {
    let answer = client(true).ok()?.get(sender.join("/status").ok()?).send().await.ok()?;
    serde_json::from_slice(&answer.bytes().await.ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{check::Verdict, outbox::WhenFull};

    #[test]
    fn a_key_is_missing_or_sound_or_shared_or_of_another_kind() {
        let folder = tempfile::tempdir().unwrap();
        let verdict = |wanted| key(folder.path(), wanted).verdict;
        assert_eq!(verdict(KeyKind::Ed25519), Verdict::Ok);
        let path = folder.path().join(KEY_FILE);
        SigningKey::create(&path, KeyKind::Ed25519).unwrap();
        assert_eq!((verdict(KeyKind::Ed25519), verdict(KeyKind::Rsa)), (Verdict::Ok, Verdict::Fail));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
            let finding = key(folder.path(), KeyKind::Ed25519);
            assert_eq!(finding.verdict, Verdict::Warn);
            assert!(finding.cure.unwrap().starts_with("chmod 600 "));
        }
        std::fs::write(&path, "no key").unwrap();
        assert_eq!(verdict(KeyKind::Ed25519), Verdict::Fail);
    }

    #[test]
    fn a_folder_needs_room_for_the_queue() {
        let folder = tempfile::tempdir().unwrap();
        let limits = |size_max| OutboxLimits { size_max, when_full: WhenFull::Refuse };
        assert_eq!(super::folder(&folder.path().join("a/b"), limits(1 << 20)).verdict, Verdict::Ok);
        assert!(!folder.path().join("a").exists(), "nothing is changed");
        assert_eq!(super::folder(folder.path(), limits(1 << 60)).verdict, Verdict::Warn);
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert_eq!(super::folder(&file, limits(1 << 20)).verdict, Verdict::Fail);
    }

    #[tokio::test]
    async fn a_queue_that_is_no_database_is_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let sender = Url::parse("http://127.0.0.1:9").unwrap();
        assert_eq!(queue(folder.path(), &sender).await.verdict, Verdict::Ok);
        std::fs::write(folder.path().join(OUTBOX_FILE), vec![b'x'; 8192]).unwrap();
        assert_eq!(queue(folder.path(), &sender).await.verdict, Verdict::Warn);
    }
}
