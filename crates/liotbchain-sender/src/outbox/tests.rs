//! The outbox as those around it see it.

mod damage;
mod disk;
mod full;
mod order;

use std::{future::poll_fn, path::Path, pin::pin, sync::Arc, task::Poll};

use liotbchain_core::{Statement, TransactionId};
use tempfile::TempDir;

use super::*;
use crate::{
    reading::{Body, DeviceName, Reading},
    signer::KeyKind,
};

const LIMITS: OutboxLimits = OutboxLimits { size_max: 64 << 20, when_full: WhenFull::Refuse };
const START_MS: u64 = 1_700_000_000_000;

fn new_key() -> Arc<SigningKey> {
    Arc::new(SigningKey::generate(KeyKind::Ed25519).unwrap())
}

async fn open(path: &Path, key: &Arc<SigningKey>) -> (Outbox, Opened) {
    Outbox::open(path, Arc::clone(key), LIMITS).await.unwrap()
}

fn reading(device: &str, text: &str) -> Reading {
    Reading { device: DeviceName::new(device).unwrap(), identity: None, body: Body::Plain(text.to_owned()) }
}

fn known_reading(device: &str, identity: &str, text: &str) -> Reading {
    Reading { identity: Some(identity.to_owned()), ..reading(device, text) }
}

fn readings(device: &str, numbers: std::ops::Range<u64>) -> Vec<Reading> {
    numbers.map(|number| reading(device, &number.to_string())).collect()
}

fn ids(queued: &[Queued]) -> Vec<TransactionId> {
    queued.iter().map(|queued| queued.id).collect()
}

/// Takes all that waits.
async fn take_all(outbox: &Outbox) -> Vec<Record> {
    outbox.take(1_000_000, usize::MAX).await.unwrap()
}

fn slots(records: &[Record]) -> Vec<Slot> {
    records.iter().map(|record| record.slot).collect()
}

/// Takes all that waits, checks that it can be sent, and returns device and reading of each.
async fn contents(outbox: &Outbox) -> Vec<(String, String)> {
    take_all(outbox).await.iter().map(content).collect()
}

fn content(record: &Record) -> (String, String) {
    let Record { id, statement, public_key, device, .. } = record;
    assert_eq!(*id, statement.id());
    assert_eq!(statement.key_id, public_key.key_id());
    public_key.verify(statement.payload.as_bytes(), &statement.signature).unwrap();
    let value: serde_json::Value = serde_json::from_str(&statement.payload).unwrap();
    assert_eq!(value["device"], device.as_str());
    (device.to_string(), value["reading"].to_string())
}

fn place(record: &Record) -> (u64, u64) {
    let value: serde_json::Value = serde_json::from_str(&record.statement.payload).unwrap();
    (value["boot"].as_u64().unwrap(), value["counter"].as_u64().unwrap())
}

#[tokio::test]
async fn what_was_put_is_there_after_a_restart_and_gone_when_it_is_settled() {
    let (folder, key) = (TempDir::new().unwrap(), new_key());
    let path = folder.path().join(OUTBOX_FILE);
    let (outbox, opened) = open(&path, &key).await;
    assert_eq!(opened, Opened::default());
    let queued = outbox.put(readings("a", 0..5), START_MS).await.unwrap();
    assert!(queued.iter().all(|queued| queued.is_new));
    assert_eq!(outbox.status().borrow().waiting, 5);
    assert_eq!(outbox.status().borrow().oldest_ms, Some(START_MS));
    outbox.close().await;
    assert_eq!(outbox.put(readings("a", 5..6), START_MS).await, Err(OutboxError::Closed));
    assert!(!folder.path().join("outbox.db-wal").exists(), "the log stays behind");

    let (outbox, opened) = open(&path, &key).await;
    assert_eq!(opened, Opened { waiting: 5, salvaged: None });
    let records = take_all(&outbox).await;
    assert_eq!(records.iter().map(|record| record.id).collect::<Vec<_>>(), ids(&queued));
    assert!(take_all(&outbox).await.is_empty(), "taken twice");
    outbox.settle(slots(&records[..3]), vec![]).await.unwrap();
    outbox.settle(slots(&records[..3]), vec![]).await.unwrap();
    assert_eq!(outbox.status().borrow().acknowledged, 3);
    assert_eq!(outbox.status().borrow().waiting, 2);
    outbox.close().await;

    let (outbox, opened) = open(&path, &key).await;
    assert_eq!(opened.waiting, 2);
    let expected = [("a".to_owned(), "3".to_owned()), ("a".to_owned(), "4".to_owned())];
    assert_eq!(contents(&outbox).await, expected);
}

#[tokio::test]
async fn counts_starts_and_the_records_of_each() {
    let (folder, key) = (TempDir::new().unwrap(), new_key());
    let path = folder.path().join(OUTBOX_FILE);
    for boot in 1..=3 {
        let (outbox, _) = open(&path, &key).await;
        assert_eq!(outbox.status().borrow().boot, boot);
        for _ in 0..2 {
            outbox.put(readings("a", 0..2), START_MS).await.unwrap();
        }
        outbox.close().await;
    }
    let (outbox, _) = open(&path, &key).await;
    let places: Vec<_> = take_all(&outbox).await.iter().map(place).collect();
    let expected: Vec<_> = (1..=3).flat_map(|boot| (0..4).map(move |counter| (boot, counter))).collect();
    assert_eq!(places, expected);
}

#[tokio::test]
async fn starts_are_counted_when_nothing_was_put() {
    let (folder, key) = (TempDir::new().unwrap(), new_key());
    for boot in 1..=3 {
        let (outbox, _) = open(&folder.path().join(OUTBOX_FILE), &key).await;
        assert_eq!(outbox.status().borrow().boot, boot);
        outbox.close().await;
    }
}

#[tokio::test]
async fn slots_of_what_was_delivered_are_not_used_again() {
    let (folder, key) = (TempDir::new().unwrap(), new_key());
    let path = folder.path().join(OUTBOX_FILE);
    let mut last = 0;
    for _ in 0..3 {
        let (outbox, _) = open(&path, &key).await;
        for _ in 0..3 {
            outbox.put(readings("a", 0..1), START_MS).await.unwrap();
            let slots = slots(&take_all(&outbox).await);
            assert!(slots[0] > last);
            last = slots[0];
            outbox.settle(slots, vec![]).await.unwrap();
        }
        outbox.close().await;
    }
}

#[tokio::test]
async fn second_user_is_told_that_the_file_is_in_use() {
    let (folder, key) = (TempDir::new().unwrap(), new_key());
    let path = folder.path().join(OUTBOX_FILE);
    let (outbox, _) = open(&path, &key).await;
    let error = Outbox::open(&path, Arc::clone(&key), LIMITS).await.unwrap_err();
    assert_eq!(error, OutboxError::InUse { path: path.clone() });
    outbox.close().await;
    open(&path, &key).await;
}

#[tokio::test]
async fn repetition_makes_no_second_record() {
    let (folder, key) = (TempDir::new().unwrap(), new_key());
    let path = folder.path().join(OUTBOX_FILE);
    let (outbox, _) = open(&path, &key).await;
    let first = outbox.put(vec![known_reading("a", "1", "20")], START_MS).await.unwrap();
    let list = vec![
        known_reading("a", "1", "20"),
        known_reading("b", "1", "20"),
        known_reading("a", "2", "20"),
        known_reading("a", "2", "20"),
        reading("a", "20"),
        reading("a", "20"),
    ];
    let queued = outbox.put(list, START_MS + 1).await.unwrap();
    assert_eq!(
        queued.iter().map(|queued| queued.is_new).collect::<Vec<_>>(),
        [false, true, true, false, true, true]
    );
    assert_eq!(queued[0].id, first[0].id);
    assert_eq!(queued[2].id, queued[3].id);
    assert_eq!(outbox.status().borrow().duplicates, 2);
    // Delivered and restarted meanwhile, it is still the same.
    let records = take_all(&outbox).await;
    assert_eq!(records.len(), 5);
    outbox.settle(slots(&records), vec![]).await.unwrap();
    outbox.close().await;
    let (outbox, opened) = open(&path, &key).await;
    assert_eq!(opened.waiting, 0);
    let queued = outbox.put(vec![known_reading("a", "1", "20")], START_MS + 2).await.unwrap();
    assert_eq!(queued, [Queued { id: first[0].id, is_new: false }]);
}

#[tokio::test]
async fn lists_that_come_at_once_know_each_others_readings() {
    let (folder, key) = (TempDir::new().unwrap(), new_key());
    let (outbox, _) = open(&folder.path().join(OUTBOX_FILE), &key).await;
    let put = || outbox.put(vec![known_reading("a", "1", "20"), known_reading("a", "2", "21")], START_MS);
    let answers = tokio::join!(put(), put(), put(), put());
    let answers = [answers.0, answers.1, answers.2, answers.3].map(Result::unwrap);
    assert_eq!(answers.iter().flatten().filter(|queued| queued.is_new).count(), 2);
    assert!(answers.iter().all(|queued| ids(queued) == ids(&answers[0])));
    assert_eq!(contents(&outbox).await.len(), 2);
}

#[tokio::test]
async fn identity_that_says_something_else_is_a_new_reading() {
    let (folder, key) = (TempDir::new().unwrap(), new_key());
    let (outbox, _) = open(&folder.path().join(OUTBOX_FILE), &key).await;
    let list = ["20", "21", "21"].map(|text| known_reading("a", "1", text));
    let queued = outbox.put(list.to_vec(), START_MS).await.unwrap();
    assert_eq!(queued.iter().map(|queued| queued.is_new).collect::<Vec<_>>(), [true, true, false]);
    let queued = outbox.put(vec![known_reading("a", "1", "22")], START_MS).await.unwrap();
    assert!(queued[0].is_new);
    // It is known by the latest.
    let queued = outbox.put(vec![known_reading("a", "1", "22")], START_MS).await.unwrap();
    assert!(!queued[0].is_new);
    assert_eq!(outbox.status().borrow().waiting, 3);
}

#[tokio::test]
async fn remembers_as_many_identities_as_it_says() {
    let (folder, key) = (TempDir::new().unwrap(), new_key());
    let path = folder.path().join(OUTBOX_FILE);
    let (outbox, _) = open(&path, &key).await;
    let count = identities::IDENTITIES_MAX + 1500;
    let list = |numbers: std::ops::Range<u64>| {
        numbers.map(|number| known_reading("a", &number.to_string(), "0")).collect::<Vec<_>>()
    };
    for from in (0..count).step_by(10_150) {
        outbox.put(list(from..(from + 10_150).min(count)), START_MS).await.unwrap();
    }
    let kept = count - identities::IDENTITIES_MAX;
    for is_restarted in [false, true] {
        let again = if is_restarted { open(&path, &key).await.0 } else { outbox.clone() };
        let queued = again.put(list(kept..kept + 50), START_MS).await.unwrap();
        assert!(queued.iter().all(|queued| !queued.is_new));
        outbox.close().await;
    }
    let (outbox, _) = open(&path, &key).await;
    assert!(outbox.put(list(0..1), START_MS).await.unwrap()[0].is_new);
}

#[tokio::test]
async fn bare_and_signed_texts_stay_as_they_are() {
    let (folder, key, device_key) = (TempDir::new().unwrap(), new_key(), new_key());
    let path = folder.path().join(OUTBOX_FILE);
    let payload = r#"{ "device": "b", "t":1 }"#;
    let statement = Statement {
        key_id: device_key.public_key().key_id(),
        payload: payload.to_owned(),
        signature: device_key.sign(payload.as_bytes()),
    };
    let signed = Body::Signed(Box::new(statement.clone()), Box::new(device_key.public_key().clone()));
    let list = vec![
        Reading { body: Body::Bare("{\"device\": \"x\"}".to_owned()), ..reading("a", "") },
        Reading { body: signed.clone(), ..reading("b", "") },
        Reading { body: signed, identity: Some("9".to_owned()), ..reading("b", "") },
    ];
    let (outbox, _) = open(&path, &key).await;
    let queued = outbox.put(list, START_MS).await.unwrap();
    // A chain takes a statement once, whatever else it is called.
    assert_eq!(queued[1].id, queued[2].id);
    assert!(!queued[2].is_new);
    outbox.close().await;
    let (outbox, _) = open(&path, &key).await;
    let records = take_all(&outbox).await;
    assert_eq!(records.len(), 2);
    assert_eq!(records[0].statement.payload, "{\"device\": \"x\"}");
    assert_eq!(*records[0].public_key, *key.public_key());
    assert_eq!(records[1].statement, statement);
    assert_eq!(*records[1].public_key, *device_key.public_key());
}

#[tokio::test]
async fn refused_records_are_kept_apart() {
    let (folder, key) = (TempDir::new().unwrap(), new_key());
    let path = folder.path().join(OUTBOX_FILE);
    let (outbox, _) = open(&path, &key).await;
    outbox.put(readings("a", 0..4), START_MS).await.unwrap();
    let records = take_all(&outbox).await;
    let refuse = |record: &Record, reason: &str| Refusal { slot: record.slot, reason: reason.to_owned() };
    let refused = vec![refuse(&records[1], "too loud"), refuse(&records[2], "too late")];
    outbox.settle(slots(&records[..1]), refused).await.unwrap();
    assert_eq!(outbox.status().borrow().set_aside, 2);
    assert_eq!(outbox.status().borrow().waiting, 1);
    outbox.close().await;
    let (outbox, opened) = open(&path, &key).await;
    assert_eq!(opened.waiting, 1);
    assert_eq!(outbox.status().borrow().set_aside, 2);
    let aside = outbox.set_aside(10).await.unwrap();
    let reasons: Vec<_> = aside.iter().map(|(record, reason)| (record.id, reason.as_str())).collect();
    assert_eq!(reasons, [(records[2].id, "too late"), (records[1].id, "too loud")]);
    assert_eq!(outbox.set_aside(1).await.unwrap().len(), 1);
    assert_eq!(take_all(&outbox).await[0].id, records[3].id);
}

#[tokio::test]
async fn refused_records_do_not_fill_the_outbox() {
    let (folder, key) = (TempDir::new().unwrap(), new_key());
    let limits = OutboxLimits { size_max: 1 << 20, ..LIMITS };
    let (outbox, _) = Outbox::open(&folder.path().join(OUTBOX_FILE), key, limits).await.unwrap();
    let text = format!("\"{}\"", "x".repeat(1000));
    for _ in 0..40 {
        outbox.put((0..50).map(|_| reading("a", &text)).collect(), START_MS).await.unwrap();
        let refused = take_all(&outbox).await.iter().map(|record| record.slot).collect::<Vec<_>>();
        let refused = refused.into_iter().map(|slot| Refusal { slot, reason: "no".to_owned() }).collect();
        outbox.settle(vec![], refused).await.unwrap();
    }
    let status = outbox.status().borrow().clone();
    assert!(status.set_aside > 50 && status.set_aside < 140, "{status:?}");
    assert_eq!(status.waiting, 0);
}

#[tokio::test]
async fn signs_a_long_list_of_an_rsa_key_in_its_order() {
    let folder = TempDir::new().unwrap();
    let key = Arc::new(SigningKey::generate(KeyKind::Rsa).unwrap());
    let (outbox, _) = open(&folder.path().join(OUTBOX_FILE), &key).await;
    outbox.put(readings("a", 0..301), START_MS).await.unwrap();
    let records = take_all(&outbox).await;
    let numbers: Vec<_> = records.iter().map(|record| content(record).1).collect();
    assert_eq!(numbers, (0..301).map(|number| number.to_string()).collect::<Vec<_>>());
    let counters: Vec<_> = records.iter().map(|record| place(record).1).collect();
    assert_eq!(counters, (0..301).collect::<Vec<_>>());
}

#[tokio::test]
async fn batch_that_nobody_received_goes_back() {
    let (folder, key) = (TempDir::new().unwrap(), new_key());
    let (outbox, _) = open(&folder.path().join(OUTBOX_FILE), &key).await;
    outbox.put(readings("a", 0..3), START_MS).await.unwrap();
    for _ in 0..50 {
        {
            let mut take = pin!(outbox.take(2, usize::MAX));
            // Asked once, and given up before or after the answer is there.
            if let Poll::Ready(records) = poll_fn(|context| Poll::Ready(take.as_mut().poll(context))).await {
                outbox.release(slots(&records.unwrap())).await;
            }
        }
        // What is asked after it sees what became of it.
        outbox.release(vec![]).await;
        let records = take_all(&outbox).await;
        assert_eq!(records.len(), 3);
        outbox.release(slots(&records)).await;
    }
}
