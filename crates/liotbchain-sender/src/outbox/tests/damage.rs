//! Files that were cut off, overwritten or copied at a bad moment.

use std::{
    collections::BTreeSet,
    fs::{self, OpenOptions},
    io::{Seek, SeekFrom, Write},
    path::PathBuf,
};

use super::*;

/// A copy of a file as a power cut would leave it, log and all, in a folder of its own.
struct Copy {
    folder: TempDir,
    path: PathBuf,
}

impl Copy {
    /// SQLite's locks are lost when this process closes the file, so a process of its own copies.
    fn of(path: &Path) -> Self {
        let folder = TempDir::new().unwrap();
        for suffix in ["", "-wal"] {
            let from = PathBuf::from(format!("{}{suffix}", path.display()));
            if from.exists() {
                let to = folder.path().join(from.file_name().unwrap());
                assert!(std::process::Command::new("cp").args([&from, &to]).status().unwrap().success());
            }
        }
        let path = folder.path().join(path.file_name().unwrap());
        Self { folder, path }
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("outbox.db-wal")
    }

    fn overwrite(&self, at: u64, bytes: &[u8]) {
        let mut file = OpenOptions::new().write(true).open(&self.path).unwrap();
        file.seek(SeekFrom::Start(at)).unwrap();
        file.write_all(bytes).unwrap();
    }
}

/// Makes a closed file of so many records, and returns their ids.
async fn make(path: &Path, key: &Arc<SigningKey>, count: u64) -> Vec<TransactionId> {
    let (outbox, _) = open(path, key).await;
    let mut queued = Vec::new();
    for from in (0..count).step_by(100) {
        let list = (from..from + 100).map(|number| {
            let device = format!("device-{}", number % 3);
            known_reading(&device, &number.to_string(), &format!("[{number},\"{}\"]", "x".repeat(100)))
        });
        queued.extend(outbox.put(list.collect(), START_MS).await.unwrap());
    }
    outbox.close().await;
    ids(&queued)
}

/// Opens a damaged file, and returns the ids of what was saved, once it is clear that it can be used.
async fn salvage(path: &Path, key: &Arc<SigningKey>) -> Vec<TransactionId> {
    let (outbox, opened) = open(path, key).await;
    let (damaged, count) = opened.salvaged.expect("the damage went unnoticed");
    assert!(damaged.exists());
    assert_eq!(opened.waiting, count);
    let records = take_all(&outbox).await;
    assert_eq!(records.len() as u64, count);
    records.iter().for_each(|record| {
        content(record);
    });
    assert!(records.is_sorted_by_key(|record| record.slot), "out of order");
    outbox.release(slots(&records)).await;
    let new = outbox.put(vec![reading("device-0", "\"new\"")], START_MS).await.unwrap();
    outbox.close().await;
    // It is whole now.
    let (outbox, opened) = open(path, key).await;
    assert_eq!(opened, Opened { waiting: count + 1, salvaged: None });
    assert_eq!(take_all(&outbox).await.last().unwrap().id, new[0].id);
    records.iter().map(|record| record.id).collect()
}

/// Checks that all but a few were saved, in their order, and returns how many were not.
fn assert_saved(saved: &[TransactionId], all: &[TransactionId], lost_max: usize) -> usize {
    let kept: BTreeSet<_> = saved.iter().collect();
    assert_eq!(kept.len(), saved.len());
    let expected: Vec<_> = all.iter().filter(|id| kept.contains(id)).copied().collect();
    assert_eq!(saved, expected);
    let lost = all.len() - saved.len();
    assert!(lost <= lost_max, "{lost} of {} are lost", all.len());
    lost
}

#[tokio::test]
async fn what_was_acknowledged_is_in_a_copy_made_at_any_moment() {
    let (folder, key) = (TempDir::new().unwrap(), new_key());
    let path = folder.path().join(OUTBOX_FILE);
    let (outbox, _) = open(&path, &key).await;
    let (mut expected, mut copies) = (Vec::new(), Vec::new());
    for round in 0..60 {
        expected
            .extend(ids(&outbox.put(readings("a", round * 50..round * 50 + 50), START_MS).await.unwrap()));
        if round % 20 == 7 {
            let records = outbox.take(40, usize::MAX).await.unwrap();
            outbox.settle(slots(&records), vec![]).await.unwrap();
        }
        if round % 6 == 0 {
            copies.push((Copy::of(&path), expected.clone()));
        }
    }
    for (copy, expected) in copies {
        let (outbox, opened) = open(&copy.path, &key).await;
        assert_eq!(opened.salvaged, None, "a log is no damage");
        let there: Vec<_> = take_all(&outbox).await.iter().map(|record| record.id).collect();
        assert!(there.len() + 120 >= expected.len());
        assert_eq!(there, expected[expected.len() - there.len()..]);
    }
}

#[tokio::test]
async fn torn_end_of_the_log_is_cut_back_to_the_last_good_commit() {
    let (folder, key) = (TempDir::new().unwrap(), new_key());
    let path = folder.path().join(OUTBOX_FILE);
    let (outbox, _) = open(&path, &key).await;
    let first = ids(&outbox.put(readings("a", 0..50), START_MS).await.unwrap());
    let whole = fs::metadata(Copy::of(&path).log()).unwrap().len();
    outbox.put(readings("a", 50..100), START_MS).await.unwrap();
    let copy = Copy::of(&path);
    let (size, log) = (fs::metadata(copy.log()).unwrap().len(), fs::read(copy.log()).unwrap());
    assert!(whole < size);
    for is_torn in [true, false] {
        // Cut in the middle of a page, or with a page that was not written.
        let mut log = log.clone();
        if is_torn {
            log.truncate(usize::try_from(size).unwrap() - 3000);
        } else {
            let at = usize::try_from(whole).unwrap() + 500;
            log[at..at + 64].fill(0xee);
        }
        fs::write(copy.log(), log).unwrap();
        let one = Copy::of(&copy.path);
        let (outbox, opened) = open(&one.path, &key).await;
        assert_eq!(opened, Opened { waiting: 50, salvaged: None });
        let there: Vec<_> = take_all(&outbox).await.iter().map(|record| record.id).collect();
        assert_eq!(there, first);
    }
}

#[tokio::test]
async fn lost_header_costs_no_record() {
    let (folder, key) = (TempDir::new().unwrap(), new_key());
    let path = folder.path().join(OUTBOX_FILE);
    let all = make(&path, &key, 3000).await;
    for size in [16, 100, 4096] {
        let copy = Copy::of(&path);
        copy.overwrite(0, &vec![0xee; size]);
        let saved = salvage(&copy.path, &key).await;
        assert_eq!(assert_saved(&saved, &all, 0), 0);
    }
}

#[tokio::test]
async fn damaged_pages_cost_no_more_than_what_stood_on_them() {
    let (folder, key) = (TempDir::new().unwrap(), new_key());
    let path = folder.path().join(OUTBOX_FILE);
    let all = make(&path, &key, 3000).await;
    let pages = fs::metadata(&path).unwrap().len() / 4096;
    assert!(pages > 200, "{pages}");
    let mut lost = 0;
    for first in [2, 3, 5, 9, 50, 100, pages - 3] {
        let copy = Copy::of(&path);
        copy.overwrite(first * 4096, &[0xee; 3 * 4096]);
        let saved = salvage(&copy.path, &key).await;
        lost += assert_saved(&saved, &all, 3 * 16);
    }
    assert!(lost > 0, "no page held a record");
}

#[tokio::test]
async fn file_that_was_cut_off_keeps_what_is_left() {
    let (folder, key) = (TempDir::new().unwrap(), new_key());
    let path = folder.path().join(OUTBOX_FILE);
    let all = make(&path, &key, 3000).await;
    let size = fs::metadata(&path).unwrap().len();
    for part in [2, 3] {
        let copy = Copy::of(&path);
        OpenOptions::new().write(true).open(&copy.path).unwrap().set_len(size / part + 1000).unwrap();
        let saved = salvage(&copy.path, &key).await;
        assert_saved(&saved, &all, all.len() - all.len() / (usize::try_from(part).unwrap() * 2));
    }
}

#[tokio::test]
async fn file_of_anything_else_is_put_aside() {
    let (folder, key) = (TempDir::new().unwrap(), new_key());
    let path = folder.path().join(OUTBOX_FILE);
    let text = "no database at all\n".repeat(1000);
    fs::write(&path, &text).unwrap();
    assert_eq!(salvage(&path, &key).await, []);
    assert_eq!(fs::read_to_string(folder.path().join("outbox.db.damaged-1")).unwrap(), text);
}

#[tokio::test]
async fn database_of_another_program_is_left_alone() {
    let (folder, key) = (TempDir::new().unwrap(), new_key());
    let path = folder.path().join(OUTBOX_FILE);
    rusqlite::Connection::open(&path).unwrap().execute_batch("CREATE TABLE cats (name TEXT)").unwrap();
    let before = fs::read(&path).unwrap();
    let error = Outbox::open(&path, key, LIMITS).await.unwrap_err();
    assert!(error.to_string().contains("another program"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[tokio::test]
async fn records_that_do_not_verify_are_not_saved() {
    let (folder, key) = (TempDir::new().unwrap(), new_key());
    let path = folder.path().join(OUTBOX_FILE);
    let all = make(&path, &key, 300).await;
    let connection = rusqlite::Connection::open(&path).unwrap();
    let forge = "UPDATE records SET payload = replace(payload, 'x]', 'y]'), signature = zeroblob(64) WHERE slot % 2 = 0";
    connection.execute_batch(forge).unwrap();
    connection.execute_batch("UPDATE records SET payload = payload || ' ' WHERE slot % 5 = 1").unwrap();
    connection.close().unwrap();
    Copy::of(&path);
    OpenOptions::new().write(true).open(&path).unwrap().write_all(&[0xee; 100]).unwrap();
    let saved = salvage(&path, &key).await;
    assert_eq!(assert_saved(&saved, &all, 180), 180);
}

#[tokio::test]
async fn salvage_keeps_long_and_foreign_records_refusals_identities_and_the_count_of_starts() {
    let (folder, key, device_key) = (TempDir::new().unwrap(), new_key(), new_key());
    let path = folder.path().join(OUTBOX_FILE);
    for _ in 0..3 {
        open(&path, &key).await.0.close().await;
    }
    let (outbox, _) = open(&path, &key).await;
    let payload = format!("{{\"device\":\"b\",\"reading\":\"{}\"}}", "s".repeat(30_000));
    let signature = device_key.sign(payload.as_bytes());
    let statement = Statement { key_id: device_key.public_key().key_id(), payload, signature };
    let signed = Body::Signed(Box::new(statement.clone()), Box::new(device_key.public_key().clone()));
    let long = format!("\"{}\"", "x".repeat(60_000));
    let list = vec![
        known_reading("a", "1", "1"),
        known_reading("a", "2", "2"),
        known_reading("a", "3", &long),
        Reading { body: signed, ..reading("b", "") },
    ];
    let queued = outbox.put(list, START_MS).await.unwrap();
    let records = take_all(&outbox).await;
    let refused = Refusal { slot: records[1].slot, reason: "no".to_owned() };
    outbox.settle(vec![records[0].slot], vec![refused]).await.unwrap();
    outbox.close().await;
    OpenOptions::new().write(true).open(&path).unwrap().write_all(&[0xee; 100]).unwrap();

    // Another key signs now: what was signed before is known by the key beside it.
    let (outbox, opened) = open(&path, &new_key()).await;
    assert_eq!(opened.salvaged.unwrap().1, 2);
    assert_eq!(outbox.status().borrow().boot, 5);
    let records = take_all(&outbox).await;
    assert_eq!(records.iter().map(|record| record.id).collect::<Vec<_>>(), [queued[2].id, queued[3].id]);
    assert_eq!(content(&records[0]).1, long);
    assert_eq!(records[1].statement, statement);
    let aside = outbox.set_aside(9).await.unwrap();
    assert_eq!((aside.len(), aside[0].0.id, aside[0].1.as_str()), (1, queued[1].id, "no"));
    let again = outbox.put(vec![known_reading("a", "1", "1")], START_MS).await.unwrap();
    assert_eq!(again, [Queued { id: queued[0].id, is_new: false }]);
}

#[tokio::test]
async fn log_of_a_damaged_file_is_saved_from_too() {
    let (folder, key) = (TempDir::new().unwrap(), new_key());
    let path = folder.path().join(OUTBOX_FILE);
    let mut all = make(&path, &key, 500).await;
    let (outbox, _) = open(&path, &key).await;
    all.extend(ids(&outbox.put(readings("late", 0..100), START_MS).await.unwrap()));
    let copy = Copy::of(&path);
    assert!(fs::metadata(copy.log()).unwrap().len() > 0);
    // The log has a newer first page; another that only the file has is lost, so that the damage shows.
    copy.overwrite(20 * 4096, &[0xee; 4096]);
    let saved = salvage(&copy.path, &key).await;
    assert_saved(&saved, &all, 16);
    assert_eq!(saved[saved.len() - 100..], all[500..]);
}

#[tokio::test]
async fn salvage_that_was_stopped_is_finished() {
    let (folder, key) = (TempDir::new().unwrap(), new_key());
    let path = folder.path().join(OUTBOX_FILE);
    let all = make(&path, &key, 300).await;
    let at = |suffix: &str| folder.path().join(format!("{OUTBOX_FILE}{suffix}"));
    // Stopped after the damaged file was moved away.
    fs::rename(&path, at(".saved")).unwrap();
    fs::write(at(".damaged-1"), "damaged").unwrap();
    let (outbox, opened) = open(&path, &key).await;
    assert_eq!(opened.waiting, 300);
    outbox.close().await;
    // Before.
    fs::rename(&path, at(".saved")).unwrap();
    fs::write(&path, "damaged").unwrap();
    fs::write(at(".saving"), "half").unwrap();
    let (outbox, opened) = open(&path, &key).await;
    assert_eq!(opened, Opened { waiting: 300, salvaged: Some((at(".damaged-2"), 300)) });
    let there: Vec<_> = take_all(&outbox).await.iter().map(|record| record.id).collect();
    assert_eq!(there, all);
}

#[tokio::test]
async fn a_text_that_cannot_be_read_holds_nothing_up() {
    let (folder, key) = (TempDir::new().unwrap(), new_key());
    let path = folder.path().join(OUTBOX_FILE);
    let (outbox, _) = open(&path, &key).await;
    let queued = outbox.put(readings("a", 0..10), START_MS).await.unwrap();
    outbox.close().await;
    // A flipped bit that SQLite's own look at the file passes.
    let connection = rusqlite::Connection::open(&path).unwrap();
    let third = "UPDATE records SET payload = CAST(x'ff' AS TEXT)
                 WHERE slot = (SELECT slot FROM records ORDER BY slot LIMIT 1 OFFSET 3)";
    assert_eq!(connection.execute(third, []).unwrap(), 1);
    connection.close().unwrap();

    let (outbox, opened) = open(&path, &key).await;
    assert_eq!(opened.salvaged, None);
    assert!(outbox.take(100, usize::MAX).await.is_err());
    let there: Vec<_> = take_all(&outbox).await.iter().map(|record| record.id).collect();
    let expected: Vec<_> =
        ids(&queued).into_iter().enumerate().filter(|(it, _)| *it != 3).map(|it| it.1).collect();
    assert_eq!(there, expected);
}
