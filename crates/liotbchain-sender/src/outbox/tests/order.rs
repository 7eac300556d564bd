//! Order of each device, and whose turn it is.

use std::collections::HashMap;

use proptest::{prelude::*, test_runner::Config};

use super::*;
use crate::outbox::{
    desk::{Desk, Put},
    file::QueueFile,
    on_the_way::Run,
};

#[tokio::test]
async fn clock_that_goes_back_changes_no_order() {
    let (folder, key) = (TempDir::new().unwrap(), new_key());
    let path = folder.path().join(OUTBOX_FILE);
    let (outbox, _) = open(&path, &key).await;
    for number in 0..4 {
        outbox.put(readings("a", number..number + 1), START_MS - number * 7_200_000).await.unwrap();
    }
    assert_eq!(outbox.status().borrow().oldest_ms, Some(START_MS));
    outbox.close().await;
    let (outbox, _) = open(&path, &key).await;
    outbox.put(readings("a", 4..5), 0).await.unwrap();
    let numbers: Vec<_> = contents(&outbox).await.into_iter().map(|(_, number)| number).collect();
    assert_eq!(numbers, ["0", "1", "2", "3", "4"]);
}

#[tokio::test]
async fn devices_with_little_waiting_come_first_while_another_drains() {
    let (folder, key) = (TempDir::new().unwrap(), new_key());
    let (outbox, _) = open(&folder.path().join(OUTBOX_FILE), &key).await;
    outbox.put(readings("long", 0..5000), START_MS).await.unwrap();
    for device in 0..10 {
        outbox.put(readings(&format!("live-{device}"), 0..2), START_MS).await.unwrap();
    }
    let records = outbox.take(100, usize::MAX).await.unwrap();
    assert_eq!(records.len(), 100);
    let live = records.iter().filter(|record| record.device.as_str().starts_with("live")).count();
    assert_eq!(live, 20, "all that came after the backlog is in the first batch");
    let long: Vec<_> =
        records.iter().filter(|record| record.device.as_str() == "long").map(content).collect();
    let expected: Vec<_> = (0..80).map(|number| ("long".to_owned(), number.to_string())).collect();
    assert_eq!(long, expected);
}

#[tokio::test]
async fn oldest_is_not_kept_waiting_by_those_who_have_little() {
    let (folder, key) = (TempDir::new().unwrap(), new_key());
    let (outbox, _) = open(&folder.path().join(OUTBOX_FILE), &key).await;
    outbox.put(readings("long", 0..400), START_MS).await.unwrap();
    let mut long = 0;
    for round in 0..20 {
        // More than fits, each time.
        let live: Vec<_> = (0..100).map(|device| reading(&format!("live-{round}-{device}"), "1")).collect();
        outbox.put(live, START_MS).await.unwrap();
        let records = outbox.take(80, usize::MAX).await.unwrap();
        assert_eq!(records.len(), 80);
        long += records.iter().filter(|record| record.device.as_str() == "long").count();
        outbox.settle(slots(&records), vec![]).await.unwrap();
    }
    assert_eq!(long, 400, "a quarter of each batch is of the oldest");
}

#[tokio::test]
async fn batch_has_no_more_bytes_than_asked_but_one_record() {
    let (folder, key) = (TempDir::new().unwrap(), new_key());
    let (outbox, _) = open(&folder.path().join(OUTBOX_FILE), &key).await;
    let text = format!("\"{}\"", "x".repeat(10_000));
    outbox.put((0..10).map(|_| reading("a", &text)).collect(), START_MS).await.unwrap();
    for (size_max, count) in [(1, 1), (25_000, 2), (45_000, 4)] {
        let records = outbox.take(100, size_max).await.unwrap();
        assert_eq!(records.len(), count, "{size_max}");
    }
    // The same out of a backlog.
    let records = outbox.take(2, 5_000).await.unwrap();
    assert_eq!(records.len(), 1);
}

#[derive(Debug, Clone)]
enum Step {
    Put {
        device: u8,
        count: u8,
    },
    Take {
        records: usize,
        size: usize,
    },
    /// Acknowledges the records of the oldest batch that have an even place in it, or all; releases the others.
    Finish {
        is_whole: bool,
    },
    Release,
    Refuse,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..5u8, 1..30u8).prop_map(|(device, count)| Step::Put { device, count }),
        4 => (1..40usize, 100..8000usize).prop_map(|(records, size)| Step::Take { records, size }),
        3 => any::<bool>().prop_map(|is_whole| Step::Finish { is_whole }),
        1 => Just(Step::Release),
        1 => Just(Step::Refuse),
        1 => Just(Step::Restart),
    ]
}

/// What a receiver has seen: with all that is on its way, each device's numbers rise.
#[derive(Default)]
struct Seen {
    /// What waits of each device, in its order, whether on its way or not.
    waiting: HashMap<String, Vec<u64>>,
    /// Taken, and not finished: batches in the order of their taking.
    batches: Vec<Vec<Record>>,
}

fn number(record: &Record) -> u64 {
    content(record).1.parse().unwrap()
}

impl Seen {
    /// Checks that of each device the oldest that are not on their way were taken, in their order.
    fn check_taken(&self, records: &[Record]) {
        let on_the_way: HashMap<String, Vec<u64>> = by_device(self.batches.iter().flatten());
        for (device, taken) in by_device(records) {
            let before = on_the_way.get(&device).cloned().unwrap_or_default();
            let free: Vec<_> =
                self.waiting[&device].iter().copied().filter(|number| !before.contains(number)).collect();
            assert_eq!(taken, free[..taken.len()], "of {device}");
        }
    }

    fn forget(&mut self, record: &Record) {
        self.waiting.get_mut(record.device.as_str()).unwrap().retain(|it| *it != number(record));
    }
}

fn by_device<'a>(records: impl IntoIterator<Item = &'a Record>) -> HashMap<String, Vec<u64>> {
    let mut devices: HashMap<String, Vec<u64>> = HashMap::new();
    for record in records {
        devices.entry(record.device.to_string()).or_default().push(number(record));
    }
    devices
}

async fn run(steps: Vec<Step>) {
    let (folder, key) = (TempDir::new().unwrap(), new_key());
    let path = folder.path().join(OUTBOX_FILE);
    let (mut outbox, _) = open(&path, &key).await;
    let (mut seen, mut next) = (Seen::default(), 0);
    for step in steps {
        match step {
            Step::Put { device, count } => {
                let (device, from) = (format!("device-{device}"), next);
                next += u64::from(count);
                outbox.put(readings(&device, from..next), START_MS).await.unwrap();
                seen.waiting.entry(device).or_default().extend(from..next);
            }
            Step::Take { records, size } => {
                let taken = outbox.take(records, size).await.unwrap();
                seen.check_taken(&taken);
                let free = seen.waiting.values().map(Vec::len).sum::<usize>()
                    - seen.batches.iter().map(Vec::len).sum::<usize>();
                assert_eq!(taken.is_empty(), free == 0);
                assert!(taken.len() <= records);
                if !taken.is_empty() {
                    seen.batches.push(taken);
                }
            }
            Step::Finish { is_whole } if !seen.batches.is_empty() => {
                let (done, back): (Vec<_>, Vec<_>) = seen
                    .batches
                    .remove(0)
                    .into_iter()
                    .enumerate()
                    .partition(|(place, _)| is_whole || place.is_multiple_of(2));
                let [done, back] =
                    [done, back].map(|it| it.into_iter().map(|(_, it)| it).collect::<Vec<_>>());
                outbox.settle(slots(&done), vec![]).await.unwrap();
                outbox.release(slots(&back)).await;
                done.iter().for_each(|record| seen.forget(record));
            }
            Step::Release if !seen.batches.is_empty() => {
                outbox.release(slots(&seen.batches.remove(0))).await;
            }
            Step::Refuse if !seen.batches.is_empty() => {
                let batch = seen.batches.remove(0);
                let refused = batch.iter().map(|it| Refusal { slot: it.slot, reason: "no".to_owned() });
                outbox.settle(vec![], refused.collect()).await.unwrap();
                batch.iter().for_each(|record| seen.forget(record));
            }
            Step::Restart => {
                outbox.close().await;
                seen.batches.clear();
                outbox = open(&path, &key).await.0;
            }
            Step::Finish { .. } | Step::Release | Step::Refuse => {}
        }
        let waiting = seen.waiting.values().map(Vec::len).sum::<usize>() as u64;
        assert_eq!(outbox.status().borrow().waiting, waiting);
    }
    // What is left, is all there.
    for batch in &seen.batches {
        outbox.release(slots(batch)).await;
    }
    seen.waiting.retain(|_, numbers| !numbers.is_empty());
    assert_eq!(by_device(&take_all(&outbox).await), seen.waiting);
}

proptest! {
    #![proptest_config(Config { cases: 24, ..Config::default() })]

    #[test]
    fn order_of_each_device_is_kept_whatever_happens(steps in prop::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(run(steps));
    }
}

/// A commit whose outcome was not known may have deleted what was acknowledged.
#[test]
fn what_is_no_longer_there_is_not_deleted_again() {
    let folder = TempDir::new().unwrap();
    let mut file = QueueFile::open(&folder.path().join(OUTBOX_FILE), false).unwrap();
    let mut desk = Desk::new(new_key(), LIMITS);
    desk.begin(&mut file).unwrap();
    let put = Put { readings: readings("a", 0..4), received_ms: START_MS };
    desk.put(&mut file, vec![put]).unwrap().remove(0).unwrap();
    let taken = desk.take(&mut file, 2, usize::MAX).unwrap();
    desk.acknowledge(&slots(&taken));
    file.rows.delete(&[Run { first: taken[0].slot, last: taken[1].slot }]).unwrap();
    file.rows.subtract_waiting([(&taken[0].device, 2)]).unwrap();

    desk.refresh(&mut file).unwrap();
    assert_eq!((desk.deletions(), desk.status.waiting), (0, 2));
    desk.delete_settled(&mut file).unwrap();
    assert_eq!(file.rows.waiting().unwrap(), 2, "subtracted twice");
    assert_eq!(desk.take(&mut file, 10, usize::MAX).unwrap().len(), 2);
}
