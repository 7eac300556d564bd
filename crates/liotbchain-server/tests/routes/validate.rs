use std::path::Path;

use liotbchain_core::Target;
use reqwest::StatusCode;
use serde_json::json;

use crate::{
    running::{Running, ledger_config, memory, receiver_config, refused, sqlite},
    signer::Signer,
};

#[tokio::test]
async fn finds_a_good_chain_valid() {
    let (sqlite, _folder) = sqlite().await;
    for store in [memory().await, sqlite] {
        let receiver = Running::with(store, ledger_config(), receiver_config()).await;
        let device = Signer::new();
        receiver.take(&[device.item("1"), device.item("2"), device.item("3"), device.item("4")]).await;
        let tip = receiver.ledger.status().tip.to_string();
        let expected = json!({
            "valid": true, "blocks": 3, "transactions": 5, "pruned": 0, "pruned_without_record": 0, "tip": tip, "height": 2
        });
        assert_eq!(receiver.get_json("/validate").await, expected);
    }
}

/// Somebody edits the database of a running receiver.
fn edit(folder: &Path, statement: &str) {
    let changed =
        rusqlite::Connection::open(folder.join("chain.db")).unwrap().execute(statement, []).unwrap();
    assert_eq!(changed, 1, "{statement}");
}

#[tokio::test]
async fn names_the_first_fault_on_disk() {
    let (store, folder) = sqlite().await;
    let receiver = Running::with(store, ledger_config(), receiver_config()).await;
    let device = Signer::new();
    let items: Vec<_> = (0..6).map(|number| device.item(&number.to_string())).collect();
    receiver.take(&items).await;
    let chain = receiver.get_json("/get_chain").await;

    edit(folder.path(), "UPDATE transactions SET payload = '7' WHERE height = 2 AND position = 1");
    let verdict = receiver.get_json("/validate").await;
    assert_eq!(verdict["valid"], false);
    assert_eq!(
        (&verdict["blocks"], &verdict["height"], &verdict["tip"]),
        (&json!(2), &json!(1), &chain[1]["hash"])
    );
    let fault = &verdict["fault"];
    assert_eq!(
        (&fault["block"], &fault["transaction"], &fault["field"]),
        (&json!(2), &json!(1), &json!("signature"))
    );
    let message = format!("Block 2 is not valid: {}", fault["reason"].as_str().unwrap());
    assert_eq!(verdict["message"], message);

    // One in 256 would do as proof of work as well.
    let mut header = receiver.ledger.store().blocks(1, 1, 1).await.unwrap()[0].block.header.clone();
    let target = Target::from_bits(header.bits).unwrap();
    while target.is_met_by(&header.compute_hash()) {
        header.nonce += 1;
    }
    edit(folder.path(), &format!("UPDATE blocks SET nonce = {} WHERE height = 1", header.nonce));
    let verdict = receiver.get_json("/validate").await;
    assert_eq!((&verdict["fault"]["block"], &verdict["fault"]["transaction"]), (&json!(1), &json!(null)));
    assert_eq!(verdict["fault"]["field"], "nonce");
}

#[tokio::test]
async fn many_who_ask_at_once_get_the_same_answer() {
    let receiver = Running::start().await;
    let device = Signer::new();
    let items: Vec<_> = (0..4_000).map(|number| device.item(&number.to_string())).collect();
    receiver.take(&items).await;
    // One who goes away takes nobody's answer with him.
    let impatient =
        receiver.client.get(receiver.url("/validate")).timeout(std::time::Duration::from_millis(5));
    _ = impatient.send().await;
    let answers = futures_util::future::join_all((0..20).map(|_| receiver.get("/validate"))).await;
    for answer in answers {
        assert_eq!(answer.status(), StatusCode::OK);
        let verdict = crate::running::json(answer).await;
        assert_eq!((&verdict["valid"], &verdict["transactions"]), (&json!(true), &json!(4_001)));
    }
}

#[tokio::test]
async fn a_store_that_is_gone_is_no_verdict() {
    let (store, _folder) = sqlite().await;
    let receiver = Running::with(store, ledger_config(), receiver_config()).await;
    receiver.ledger.store().close().await;
    let (status, code, _) = refused(receiver.get("/validate").await).await;
    assert_eq!((status, code.as_str()), (503, "store_unavailable"));
}
