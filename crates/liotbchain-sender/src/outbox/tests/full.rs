//! What happens when it is full.

use std::collections::BTreeMap;

use serde_json::Value;

use super::*;

const SIZE_MAX: u64 = 1 << 20;

async fn open_small(path: &Path, key: &Arc<SigningKey>, when_full: WhenFull) -> Outbox {
    let limits = OutboxLimits { size_max: SIZE_MAX, when_full };
    Outbox::open(path, Arc::clone(key), limits).await.unwrap().0
}

async fn put_until_full(outbox: &Outbox, device: &str) -> u64 {
    for number in 0.. {
        match outbox.put(readings(device, number * 10..number * 10 + 10), START_MS).await {
            Ok(_) => {}
            Err(OutboxError::Full { size, size_max }) => {
                assert!(size <= size_max && size_max == SIZE_MAX, "{size}");
                return number * 10;
            }
            Err(error) => panic!("{error}"),
        }
        assert!(number < 10_000, "it is never full");
    }
    unreachable!()
}

#[tokio::test]
async fn refuses_when_it_is_full_and_takes_again_when_there_is_room() {
    let (folder, key) = (TempDir::new().unwrap(), new_key());
    let path = folder.path().join(OUTBOX_FILE);
    let outbox = open_small(&path, &key, WhenFull::Refuse).await;
    let count = put_until_full(&outbox, "a").await;
    assert!(count > 1000, "only {count} fitted");
    let status = outbox.status().borrow().clone();
    assert_eq!((status.waiting, status.dropped), (count, 0));
    assert!(status.size <= SIZE_MAX && status.size > SIZE_MAX * 3 / 4, "{status:?}");
    assert_eq!(status.fault, None, "full is no fault of the disk");
    // What was refused has no place in the order, and what waits can be sent.
    let records = outbox.take(200, usize::MAX).await.unwrap();
    assert_eq!(records.iter().map(|it| place(it).1).collect::<Vec<_>>(), (0..200).collect::<Vec<_>>());
    outbox.settle(slots(&records), vec![]).await.unwrap();
    outbox.put(readings("a", count..count + 10), START_MS).await.unwrap();
    let last = take_all(&outbox).await.pop().unwrap();
    assert_eq!(place(&last).1, count + 9);
}

#[tokio::test]
async fn list_that_fits_is_taken_beside_one_that_does_not() {
    let (folder, key) = (TempDir::new().unwrap(), new_key());
    let outbox = open_small(&folder.path().join(OUTBOX_FILE), &key, WhenFull::Refuse).await;
    let big = |_| reading("big", &format!("\"{}\"", "x".repeat(60_000)));
    let (first, second, third) = tokio::join!(
        outbox.put(readings("a", 0..1), START_MS),
        outbox.put((0..30).map(big).collect(), START_MS),
        outbox.put(readings("b", 0..1), START_MS),
    );
    assert!(matches!(second, Err(OutboxError::Full { .. })), "{second:?}");
    assert!(first.unwrap()[0].is_new && third.unwrap()[0].is_new);
    assert_eq!(contents(&outbox).await.len(), 2);
}

#[tokio::test]
async fn repetition_is_answered_when_it_is_full() {
    let (folder, key) = (TempDir::new().unwrap(), new_key());
    let outbox = open_small(&folder.path().join(OUTBOX_FILE), &key, WhenFull::Refuse).await;
    let first = outbox.put(vec![known_reading("a", "1", "20")], START_MS).await.unwrap();
    put_until_full(&outbox, "a").await;
    let again = outbox.put(vec![known_reading("a", "1", "20")], START_MS).await.unwrap();
    assert_eq!(again, [Queued { id: first[0].id, is_new: false }]);
}

/// Counts readings and what gaps tell of, by device; checks that gaps name what is not there.
fn account(records: &[Record]) -> BTreeMap<String, (u64, u64)> {
    let mut accounts: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for record in records {
        let Record { statement, public_key, device, .. } = record;
        public_key.verify(statement.payload.as_bytes(), &statement.signature).unwrap();
        let value: Value = serde_json::from_str(&statement.payload).unwrap();
        assert_eq!(value["device"], device.as_str());
        let account = accounts.entry(device.to_string()).or_default();
        match value.get("gap") {
            None => account.0 += 1,
            Some(gap) => {
                assert!(value.get("reading").is_none());
                account.1 += gap["dropped"].as_u64().unwrap();
                let at = |name: &str| {
                    (gap[name]["boot"].as_u64().unwrap(), gap[name]["counter"].as_u64().unwrap())
                };
                assert!(at("from") <= at("to") && at("to") < place(record), "{gap}");
            }
        }
    }
    accounts
}

#[tokio::test]
async fn what_is_dropped_is_told_of_and_adds_up() {
    let (folder, key) = (TempDir::new().unwrap(), new_key());
    let path = folder.path().join(OUTBOX_FILE);
    let outbox = open_small(&path, &key, WhenFull::DropOldest).await;
    let mut put: BTreeMap<String, u64> = BTreeMap::new();
    // Several times as much as fits, so that what tells of losses is dropped too.
    for round in 0..800 {
        let device = format!("device-{}", round % 7);
        outbox.put(readings(&device, 0..20), START_MS + round).await.unwrap();
        *put.entry(device).or_default() += 20;
    }
    let status = outbox.status().borrow().clone();
    assert!(status.size <= SIZE_MAX, "{status:?}");
    assert_eq!(status.put, 16_000);
    let records = take_all(&outbox).await;
    assert_eq!(status.waiting, records.len() as u64);
    let accounts = account(&records);
    for (device, count) in &put {
        let (there, dropped) = accounts[device];
        assert!(there > 0 && dropped > 0, "{device}: {there} and {dropped}");
        assert_eq!(there + dropped, *count, "{device}");
    }
    assert_eq!(accounts.values().map(|(_, dropped)| dropped).sum::<u64>(), status.dropped);
    // Counters have no gap among what was stored, whatever is left of it.
    let mut last = None;
    for (boot, counter) in records.iter().map(place) {
        assert_eq!(boot, 1);
        assert!(last.is_none_or(|last| last < counter));
        last = Some(counter);
    }
}

#[tokio::test]
async fn what_is_on_its_way_is_not_dropped() {
    let (folder, key) = (TempDir::new().unwrap(), new_key());
    let outbox = open_small(&folder.path().join(OUTBOX_FILE), &key, WhenFull::DropOldest).await;
    outbox.put(readings("first", 0..50), START_MS).await.unwrap();
    let records = outbox.take(25, usize::MAX).await.unwrap();
    for round in 0..400 {
        outbox.put(readings("other", round * 20..round * 20 + 20), START_MS).await.unwrap();
    }
    outbox.release(slots(&records)).await;
    let all = take_all(&outbox).await;
    assert_eq!(slots(&all[..25]), slots(&records));
    assert_eq!(account(&all)["first"], (25, 25));
    assert_eq!(account(&all)["other"].0 + account(&all)["other"].1, 8000);
}

#[tokio::test]
async fn refuses_when_nothing_can_be_dropped() {
    let (folder, key) = (TempDir::new().unwrap(), new_key());
    let outbox = open_small(&folder.path().join(OUTBOX_FILE), &key, WhenFull::DropOldest).await;
    outbox.put(readings("a", 0..100), START_MS).await.unwrap();
    let big = |_| reading("big", &format!("\"{}\"", "x".repeat(60_000)));
    let result = outbox.put((0..30).map(big).collect(), START_MS).await;
    assert!(matches!(result, Err(OutboxError::Full { .. })), "{result:?}");
    // Nothing was dropped for it.
    assert_eq!(account(&take_all(&outbox).await), BTreeMap::from([("a".to_owned(), (100, 0))]));
    assert_eq!(outbox.status().borrow().dropped, 0);
}

#[tokio::test]
async fn many_devices_with_one_reading_each_can_be_dropped() {
    let (folder, key) = (TempDir::new().unwrap(), new_key());
    let outbox = open_small(&folder.path().join(OUTBOX_FILE), &key, WhenFull::DropOldest).await;
    let mut taken = 0;
    for round in 0..400 {
        let list = (0..20).map(|device| reading(&format!("device-{round}-{device}"), "1")).collect();
        match outbox.put(list, START_MS).await {
            Ok(_) => taken += 20,
            // Records of what was lost have filled it.
            Err(error) => assert!(matches!(error, OutboxError::Full { .. }), "{error}"),
        }
    }
    let accounts = account(&take_all(&outbox).await);
    assert_eq!(accounts.len(), taken);
    assert!(accounts.values().all(|(there, dropped)| there + dropped == 1));
}

#[tokio::test]
async fn other_settings_wipe_nothing() {
    let (folder, key) = (TempDir::new().unwrap(), new_key());
    let path = folder.path().join(OUTBOX_FILE);
    let (outbox, _) = open(&path, &key).await;
    for _ in 0..10 {
        outbox.put(readings("a", 0..1000), START_MS).await.unwrap();
    }
    let size = outbox.status().borrow().size;
    outbox.close().await;
    for (size_max, when_full) in
        [(1, WhenFull::Refuse), (size / 2, WhenFull::DropOldest), (size * 2, WhenFull::Refuse)]
    {
        // The key may change too: what waits was signed with the old one.
        let limits = OutboxLimits { size_max, when_full };
        let (outbox, opened) = Outbox::open(&path, new_key(), limits).await.unwrap();
        assert_eq!(opened, Opened { waiting: 10_000, salvaged: None });
        assert_eq!(contents(&outbox).await.len(), 10_000);
        outbox.close().await;
    }
}

#[tokio::test]
async fn file_gives_space_back_after_a_drain() {
    let (folder, key) = (TempDir::new().unwrap(), new_key());
    let path = folder.path().join(OUTBOX_FILE);
    let (outbox, _) = open(&path, &key).await;
    for _ in 0..40 {
        outbox.put(readings("a", 0..1000), START_MS).await.unwrap();
    }
    let full = outbox.status().borrow().size;
    assert!(full > 6 << 20, "{full}");
    while let records = outbox.take(1000, usize::MAX).await.unwrap()
        && !records.is_empty()
    {
        outbox.settle(slots(&records), vec![]).await.unwrap();
    }
    let mut status = outbox.status();
    status.wait_for(|status| status.size < 1 << 20).await.unwrap();
    // A file has no event to wait for.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while path.metadata().unwrap().len() > 3 << 20 {
        assert!(std::time::Instant::now() < deadline, "{} bytes", path.metadata().unwrap().len());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn identities_do_not_fill_a_small_outbox() {
    let (folder, key) = (TempDir::new().unwrap(), new_key());
    let path = folder.path().join(OUTBOX_FILE);
    let put_and_deliver = async |outbox: &Outbox, numbers: std::ops::Range<u64>| {
        for from in numbers.clone().step_by(500) {
            let list = (from..from + 500).map(|it| known_reading("a", &it.to_string(), "0")).collect();
            outbox.put(list, START_MS).await.unwrap();
            let records = take_all(outbox).await;
            outbox.settle(slots(&records), vec![]).await.unwrap();
        }
    };
    let outbox = open_small(&path, &key, WhenFull::Refuse).await;
    put_and_deliver(&outbox, 0..15_000).await;
    outbox.close().await;
    // Nor where there was room for more before.
    let (outbox, _) = open(&path, &key).await;
    put_and_deliver(&outbox, 15_000..30_000).await;
    outbox.close().await;
    let outbox = open_small(&path, &key, WhenFull::Refuse).await;
    put_and_deliver(&outbox, 30_000..30_500).await;
}
