//! Pruning says what it does, does it, and leaves a chain that validates, and moves.

#![allow(clippy::unwrap_used, reason = "tests; clippy knows only functions marked as such")]

mod support;

use std::sync::Arc;

use liotbchain_core::{Height, KeyId, PruneRecord, chain::CensusBudget, check::Signatures};
use liotbchain_node::{
    PrunePlan, ValidateOptions, Validation, prune::first_height_at, transfer, validate, validate_with,
};
use liotbchain_store::{Status, Store};
use support::{Signer, WAIT, config, memory, open, sqlite};

async fn plan(store: &Arc<dyn Store>, key_id: KeyId, before_height: Height) -> PrunePlan {
    PrunePlan::make(store.as_ref(), key_id, before_height, |_| {}).await.unwrap()
}

async fn validated(store: &Arc<dyn Store>) -> Validation {
    let validation = validate(store, |_, _| {}).await.unwrap();
    assert_eq!(validation.fault, None);
    // In several passes it finds the same.
    let budget = CensusBudget { ids: 4, keys: 2 };
    let options = ValidateOptions { signatures: Signatures::Checked, budget, since: None };
    assert_eq!(validate_with(store, options, |_, _| {}).await.unwrap(), validation);
    validation
}

#[tokio::test(flavor = "multi_thread")]
async fn says_what_it_does_and_does_it() {
    let folder = tempfile::tempdir().unwrap();
    for store in [memory(), sqlite(folder.path()).await] {
        let (device, other, operator) = (Signer::new(1), Signer::new(2), Signer::new(9));
        let ledger = open(&store, config()).await;
        let list = device.readings(0..10);
        ledger.submit(list.clone(), WAIT).await.unwrap();
        ledger.submit(other.readings(0..10), WAIT).await.unwrap();

        let all = plan(&store, device.key_id(), u32::MAX).await;
        assert_eq!((all.transactions, all.before_height, all.sequences), (10, 11, Some((0, 9))));
        let planned = plan(&store, device.key_id(), 4).await;
        assert_eq!((planned.transactions, planned.sequences), (6, Some((0, 5))));
        assert_eq!(plan(&store, operator.key_id(), 4).await.record("none".to_owned()), None);
        let record = planned.record("asked for".to_owned()).unwrap();

        // Dropped without a word: valid, but told.
        planned.carry_out(store.as_ref(), |_| {}).await.unwrap();
        let validation = validated(&store).await;
        assert_eq!((validation.pruned, validation.unrecorded), (6, Some(6)));

        // One half of it said, then all.
        let half = PruneRecord { to_sequence: 2, transactions: 3, ..record.clone() };
        for (record, unrecorded) in [(half, 3), (record, 0)] {
            let said = [operator.sign(&record.to_payload()), other.sign(&format!("{unrecorded}"))];
            ledger.submit(said.to_vec(), WAIT).await.unwrap();
            assert_eq!(validated(&store).await.unrecorded, Some(unrecorded));
        }

        // Nothing is left to do; the rest goes another time.
        let again = planned.carry_out(store.as_ref(), |_| {}).await.unwrap();
        assert_eq!((again.transactions, again.bytes, again.sequences), (0, 0, None));
        assert_eq!(plan(&store, device.key_id(), u32::MAX).await.sequences, Some((6, 9)));

        // A reading that comes again is answered as the first time.
        let height = ledger.status().height;
        let again = ledger.submit(list, WAIT).await.unwrap();
        let places: Vec<_> = again.acknowledgements.iter().map(|it| it.status).collect();
        assert!(matches!(places[5], Status::Sealed(place) if (place.height, place.position) == (3, 1)));
        assert_eq!((ledger.status().height, ledger.status().pending), (height, 0));
        move_to_another(&store).await;
        ledger.shutdown().await;
    }
}

/// An export with pruned transactions is the same after an import, and goes on there.
async fn move_to_another(store: &Arc<dyn Store>) {
    let (mut out, mut again) = (Vec::new(), Vec::new());
    transfer::export(store, &mut out, |_| {}).await.unwrap();
    let copy = memory();
    let transferred = transfer::import(&copy, "import", || Ok(&out[..]), |_| {}).await.unwrap();
    assert_eq!(transferred.tip, store.branch().await.unwrap().unwrap().tip());
    transfer::export(&copy, &mut again, |_| {}).await.unwrap();
    assert!(again == out);
    assert_eq!(validated(&copy).await, validated(store).await);
    let ledger = open(&copy, config()).await;
    ledger.submit(Signer::new(1).readings(100..102), WAIT).await.unwrap();
    assert_eq!(ledger.status().height, transferred.height + 1);
    ledger.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_is_a_height() {
    let store = memory();
    let ledger = open(&store, config()).await;
    for number in 0..9 {
        ledger.submit(Signer::new(1).readings(2 * number..2 * number + 2), WAIT).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    let blocks = store.blocks(0, 99, usize::MAX).await.unwrap();
    for (height, block) in blocks.iter().enumerate() {
        let time_ms = block.block.header.timestamp_ms;
        assert_eq!(first_height_at(store.as_ref(), time_ms + 1).await.unwrap(), height as Height + 1);
        let found = first_height_at(store.as_ref(), time_ms).await.unwrap() as usize;
        assert!(found <= height && blocks[found].block.header.timestamp_ms == time_ms);
    }
    assert_eq!(first_height_at(store.as_ref(), 0).await.unwrap(), 0);
    ledger.shutdown().await;
}
