//! The ledger on real stores: what is acknowledged is there, once, whatever happens in between.

#![allow(clippy::unwrap_used, reason = "tests; clippy knows only functions marked as such")]

mod support;

use std::{sync::Arc, time::Duration};

use liotbchain_core::{Difficulty, mine::Kernel};
use liotbchain_node::{Ledger, LedgerConfig, LedgerError, Sealing, validate};
use liotbchain_store::{Place, Status, Store};
use support::{Signer, WAIT, config, memory, open, signed_twice, sqlite};

fn place(status: Status) -> Option<(u32, u32)> {
    match status {
        Status::Sealed(Place { height, position, .. }) => Some((height, position)),
        Status::Pending => None,
    }
}

async fn places(
    ledger: &Ledger,
    transactions: Vec<liotbchain_store::NewTransaction>,
) -> Vec<Option<(u32, u32)>> {
    let submission = ledger.submit(transactions, WAIT).await.unwrap();
    assert_eq!(submission.mining_failed, None);
    submission.acknowledgements.iter().map(|it| place(it.status)).collect()
}

async fn assert_valid(store: &Arc<dyn Store>, transactions: u64) {
    let validation = validate(store, |_, _| {}).await.unwrap();
    assert_eq!(validation.fault, None);
    assert_eq!(validation.transactions, transactions + 1, "the genesis transaction counts too");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_fills_blocks_is_answered_when_they_are_stored() {
    let store = memory();
    let ledger = open(&store, config()).await;
    let signer = Signer::new(1);
    let places = places(&ledger, signer.readings(0..5)).await;
    assert_eq!(places, [Some((1, 0)), Some((1, 1)), Some((2, 0)), Some((2, 1)), None]);
    assert_eq!((ledger.status().height, ledger.status().pending), (2, 1));
    assert_valid(&store, 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_left_pending_is_sealed_with_the_next() {
    let store = memory();
    let ledger = open(&store, config()).await;
    let signer = Signer::new(1);
    assert_eq!(places(&ledger, signer.readings(0..1)).await, [None]);
    assert_eq!(places(&ledger, signer.readings(1..2)).await, [Some((1, 1))]);
    assert_eq!(places(&ledger, signer.readings(0..2)).await, [Some((1, 0)), Some((1, 1))]);
    assert_valid(&store, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_is_one_transaction_however_often_it_is_signed_and_sent() {
    let store = memory();
    let ledger = open(&store, config()).await;
    let [one, two] = signed_twice("{}");
    assert_ne!(one.statement.statement().signature, two.statement.statement().signature);
    assert_eq!(places(&ledger, vec![one.clone(), two.clone()]).await, [None, None]);
    let other = Signer::new(1).sign("{}");
    assert_eq!(places(&ledger, vec![two.clone(), other]).await, [Some((1, 0)), Some((1, 1))]);
    assert_eq!(places(&ledger, vec![two, one]).await, [Some((1, 0)), Some((1, 0))]);
    assert_valid(&store, 2).await;
}

/// The block holds the signature that is in memory, the row the one that came first: they must not part.
#[tokio::test(flavor = "multi_thread")]
async fn a_pending_statement_signed_anew_after_a_restart_leaves_the_chain_valid() {
    let folder = tempfile::tempdir().unwrap();
    let [one, two] = signed_twice("{}");
    let store = sqlite(folder.path()).await;
    let ledger = open(&store, config()).await;
    assert_eq!(places(&ledger, vec![one]).await, [None]);
    ledger.shutdown().await;
    let store = sqlite(folder.path()).await;
    let ledger = open(&store, config()).await;
    assert_eq!(places(&ledger, vec![two]).await, [None]);
    assert_eq!(places(&ledger, Signer::new(1).readings(0..1)).await, [Some((1, 1))]);
    assert_valid(&store, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mining_that_gives_up_loses_nothing_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let signer = Signer::new(1);
    let store = sqlite(folder.path()).await;
    let hopeless = LedgerConfig { nonce_limit: 1, difficulty: Difficulty::new(8).unwrap(), ..config() };
    // The chain's least is what it is created with: create it easy.
    open(&store, config()).await.shutdown().await;
    let store = sqlite(folder.path()).await;
    let ledger = open(&store, hopeless).await;
    for numbers in [0..2, 2..5] {
        let submission = ledger.submit(signer.readings(numbers), WAIT).await.unwrap();
        assert_eq!(submission.mining_failed, Some(1));
        assert!(submission.acknowledgements.iter().all(|it| it.status == Status::Pending));
    }
    assert_eq!(ledger.status().sealing, Sealing::MiningFailed { attempts: 1 });
    assert_eq!(ledger.mine_pending().await.unwrap(), Some(1));
    ledger.shutdown().await;

    let store = sqlite(folder.path()).await;
    let ledger = open(&store, config()).await;
    let expected = [Some((1, 0)), Some((1, 1)), Some((2, 0)), Some((2, 1)), Some((3, 0)), Some((3, 1))];
    assert_eq!(places(&ledger, signer.readings(0..6)).await, expected);
    assert_valid(&store, 6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_does_not_wait_longer_than_asked() {
    let store = memory();
    open(&store, config()).await.shutdown().await;
    let hard = LedgerConfig { difficulty: Difficulty::new(16).unwrap(), nonce_limit: 1 << 32, ..config() };
    let ledger = open(&store, hard).await;
    let submission = ledger.submit(Signer::new(1).readings(0..2), Duration::from_millis(50)).await.unwrap();
    assert!(submission.acknowledgements.iter().all(|it| it.status == Status::Pending));
    assert_eq!(submission.mining_failed, None);
    // Cancels the search, which would take years.
    ledger.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_is_sealed_partial_when_its_oldest_transaction_is_old_enough() {
    let store = memory();
    let age = Some(Duration::from_millis(100));
    let config = LedgerConfig { block_max_age: age, transactions_per_block: 10, ..config() };
    let ledger = open(&store, config).await;
    let mut sealed = ledger.subscribe();
    for height in 1..=2 {
        assert_eq!(places(&ledger, Signer::new(1).readings(height * 10..height * 10 + 3)).await, [None; 3]);
        let block = tokio::time::timeout(WAIT, sealed.recv()).await.unwrap().unwrap();
        assert_eq!((block.height, block.transactions), (height, 3));
    }
    assert_valid(&store, 6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mine_pending_seals_what_is_there() {
    let store = memory();
    let ledger = open(&store, LedgerConfig { transactions_per_block: 10, ..config() }).await;
    assert_eq!(ledger.mine_pending().await.unwrap(), None);
    places(&ledger, Signer::new(2).readings(0..1)).await;
    assert_eq!(ledger.mine_pending().await.unwrap(), None);
    assert_eq!((ledger.status().height, ledger.status().pending), (1, 0));
    places(&ledger, Signer::new(1).readings(0..13)).await;
    assert_eq!(ledger.mine_pending().await.unwrap(), None);
    assert_eq!((ledger.status().height, ledger.status().pending), (3, 0));
    assert_valid(&store, 14).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refuses_a_difficulty_below_the_chains_least() {
    let store = memory();
    open(&store, config()).await.shutdown().await;
    let easy = LedgerConfig { difficulty: Difficulty::new(0).unwrap(), ..config() };
    let error = Ledger::open(store, easy).await.err().unwrap();
    assert!(matches!(error, LedgerError::DifficultyBelowLeast { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn takes_no_more_than_may_wait() {
    let store = memory();
    let config = LedgerConfig { pending_max: 3, transactions_per_block: 10, ..config() };
    let ledger = open(&store, config).await;
    let signer = Signer::new(1);
    places(&ledger, signer.readings(0..3)).await;
    let error = ledger.submit(signer.readings(3..4), WAIT).await.unwrap_err();
    assert!(matches!(error, LedgerError::Overloaded { pending: 3, pending_max: 3 }), "{error}");
    assert!(error.is_passing());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_submitters_share_one_chain() {
    let folder = tempfile::tempdir().unwrap();
    let store = sqlite(folder.path()).await;
    let ledger = open(&store, LedgerConfig { transactions_per_block: 3, ..config() }).await;
    let tasks = (0..8u32).map(|client| {
        let ledger = ledger.clone();
        tokio::spawn(async move {
            // Neighbours overlap by half: each reading is sent by two clients.
            for start in (client * 25..client * 25 + 50).step_by(5) {
                let submission =
                    ledger.submit(Signer::new(1).readings(start..start + 5), WAIT).await.unwrap();
                assert_eq!(submission.acknowledgements.len(), 5);
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    ledger.mine_pending().await.unwrap();
    assert_eq!(ledger.status().pending, 0);
    assert_valid(&store, 225).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_ledgers_on_one_store_keep_one_chain() {
    let store = memory();
    let [one, two] = ["one", "two"].map(|holder| LedgerConfig { holder: holder.to_owned(), ..config() });
    let ledgers = [open(&store, one).await, open(&store, two).await];
    let signer = Signer::new(1);
    for number in 0..20 {
        places(&ledgers[number as usize % 2], signer.readings(number * 2..number * 2 + 2)).await;
    }
    assert_valid(&store, 40).await;
    // Each comes to know what the other sealed.
    for ledger in ledgers {
        tokio::time::timeout(WAIT, async {
            while ledger.status().height < 20 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
        .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pending_row_that_was_changed_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let signer = Signer::new(1);
    let store = sqlite(folder.path()).await;
    let ledger = open(&store, config()).await;
    places(&ledger, signer.readings(0..1)).await;
    ledger.shutdown().await;
    let database = rusqlite::Connection::open(folder.path().join("chain.db")).unwrap();
    let changed = database.execute(
        "UPDATE transactions SET payload = CAST('{\"reading\":9}' AS TEXT) WHERE height IS NULL",
        (),
    );
    assert_eq!(changed.unwrap(), 1);
    drop(database);
    let store = sqlite(folder.path()).await;
    let ledger = open(&store, config()).await;
    assert_eq!(places(&ledger, signer.readings(1..3)).await, [Some((1, 0)), Some((1, 1))]);
    assert_valid(&store, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_mining_kernel_of_this_machine_makes_the_same_chain() {
    for (name, kernel) in Kernel::all() {
        let Some(mining_kernel) = kernel else {
            println!("{name}: not on this machine, not tested");
            continue;
        };
        let store = memory();
        let difficulty = Difficulty::new(3).unwrap();
        let ledger = open(&store, LedgerConfig { mining_kernel, difficulty, ..config() }).await;
        let places = places(&ledger, Signer::new(1).readings(0..8)).await;
        assert_eq!(places.last(), Some(&Some((4, 1))), "{name}");
        assert_valid(&store, 8).await;
    }
}

/// A round mines for about 20 ms, and then stores what it has.
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_mined_in_parts_is_sealed_to_its_end() {
    let store = memory();
    let difficulty = Difficulty::new(5).unwrap();
    let ledger = open(&store, LedgerConfig { transactions_per_block: 30, difficulty, ..config() }).await;
    ledger.submit(Signer::new(1).readings(0..21), Duration::ZERO).await.unwrap();
    ledger.shutdown().await;

    let ledger = open(&store, LedgerConfig { transactions_per_block: 2, difficulty, ..config() }).await;
    assert_eq!(tokio::time::timeout(WAIT, ledger.mine_pending()).await.unwrap().unwrap(), None);
    assert_eq!((ledger.status().height, ledger.status().pending), (11, 0));
    assert_valid(&store, 21).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_read_in_parts_is_sealed_to_its_end() {
    let store = memory();
    let signer = Signer::new(1);
    // 34 MB: more than a round reads.
    let text = "x".repeat(65_000);
    let list: Vec<_> = (0..520).map(|number| signer.sign(&format!("[{number},\"{text}\"]"))).collect();
    let ledger = open(&store, LedgerConfig { transactions_per_block: 1_000, ..config() }).await;
    ledger.submit(list, Duration::ZERO).await.unwrap();
    ledger.shutdown().await;

    let ledger = open(&store, LedgerConfig { transactions_per_block: 7, ..config() }).await;
    assert_eq!(tokio::time::timeout(WAIT, ledger.mine_pending()).await.unwrap().unwrap(), None);
    assert_eq!((ledger.status().height, ledger.status().pending), (75, 0));
    assert_valid(&store, 520).await;
}
