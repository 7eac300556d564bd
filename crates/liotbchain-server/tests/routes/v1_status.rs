use reqwest::header;
use serde_json::{Value, json};

use crate::{
    running::{Running, json, ledger_config, memory, receiver_config, sqlite},
    signer::Signer,
};

#[tokio::test]
async fn says_what_the_receiver_is_and_what_it_is_at() {
    let receiver = Running::with(memory().await, ledger_config(), receiver_config()).await;
    let device = Signer::new();
    receiver.take(&["1", "2", "3"].map(|text| device.item(text))).await;
    let response = receiver.get("/v1/status").await;
    assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
    assert_eq!(response.headers()[header::ACCEPT_ENCODING], "gzip, zstd");
    let mut status = json(response).await;
    let genesis = receiver.ledger.genesis();
    let rules = receiver.ledger.rules().clone();
    assert!(status["time_ms"].as_u64().unwrap() >= rules.timestamp_ms);
    status["time_ms"] = Value::Null;
    // It may not be over with the block yet when it was acknowledged.
    assert!(["idle", "working"].contains(&status["sealing"].as_str().unwrap()), "{status}");
    status["sealing"] = Value::Null;
    let expected = json!({
        "version": env!("CARGO_PKG_VERSION"), "network": "liotbchain", "genesis": genesis,
        "rules": {"seal": "on_count", "difficulty": 2, "unsigned": false, "timestamp_ms": rules.timestamp_ms},
        "height": 1, "tip": receiver.ledger.status().tip, "pending": 1, "sealing": null, "store": "memory:",
        "settings": {
            "transactions_per_block": 2, "difficulty": 2, "nonce_limit": 10_000_000, "seal_wait": 60.0,
        },
        "limits": {
            "body_size_max": 8 << 20, "list_items_max": 8_000, "payload_size_max": 65_536, "pending_max": 100_000,
        },
        "time_ms": null,
    });
    assert_eq!(status, expected);
}

#[tokio::test]
async fn answers_while_the_store_is_away() {
    let (store, _folder) = sqlite().await;
    let receiver = Running::with(store, ledger_config(), receiver_config()).await;
    receiver.ledger.store().close().await;
    assert_eq!(receiver.get_json("/v1/status").await["height"], 0);
}
