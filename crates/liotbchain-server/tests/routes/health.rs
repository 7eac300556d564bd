use serde_json::json;

use crate::{
    running::{Running, ledger_config, receiver_config, refused, sqlite},
    signer::Signer,
};

#[tokio::test]
async fn is_ready_while_the_store_answers_and_lives_on_when_it_does_not() {
    let (store, _folder) = sqlite().await;
    let receiver = Running::with(store, ledger_config(), receiver_config()).await;
    assert_eq!(receiver.get_json("/readyz").await, json!({"status": "ready", "sealing": "idle"}));
    receiver.ledger.store().close().await;
    let (status, code, _) = refused(receiver.get("/readyz").await).await;
    assert_eq!((status, code.as_str()), (503, "store_unavailable"));
    assert_eq!(receiver.get_json("/healthz").await, json!({"status": "ok"}));
}

async fn metrics(receiver: &Running) -> Vec<String> {
    let response = receiver.get("/metrics").await;
    assert_eq!(response.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    response.text().await.unwrap().lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn counts_what_it_does() {
    let (store, _folder) = sqlite().await;
    let receiver = Running::with(store, ledger_config(), receiver_config()).await;
    let device = Signer::new();
    receiver.take(&[device.item("1"), device.item("2"), device.item("3")]).await;
    receiver.refuse(format!("[{},0,1]", device.item("4"))).await;
    receiver.get("/not/a/route").await;
    receiver.get("/another/one").await;

    let lines = metrics(&receiver).await;
    for line in [
        "liotbchain_http_requests_total{route=\"/receive_data\",status=\"200\"} 1",
        "liotbchain_http_requests_total{route=\"/receive_data\",status=\"400\"} 1",
        "liotbchain_http_requests_total{route=\"other\",status=\"404\"} 2",
        "liotbchain_transactions_total{outcome=\"accepted\"} 3",
        "liotbchain_transactions_total{outcome=\"refused\"} 3",
        "liotbchain_blocks_sealed_total 1",
        "liotbchain_transactions_sealed_total 2",
        "liotbchain_height 1",
        "liotbchain_pending 1",
        "liotbchain_store_errors_total 0",
        "liotbchain_admit_seconds_count 1",
        "liotbchain_admit_seconds_bucket{le=\"+Inf\"} 1",
    ] {
        assert!(lines.iter().any(|it| it == line), "{line} is missing in {lines:#?}");
    }
    assert!(lines.iter().any(|it| it.starts_with("liotbchain_mining_attempts_total ")), "{lines:#?}");

    receiver.ledger.store().close().await;
    receiver.get("/get_chain").await;
    let lines = metrics(&receiver).await;
    assert!(lines.iter().any(|it| it == "liotbchain_store_errors_total 1"), "{lines:#?}");
}

#[tokio::test]
async fn two_receivers_in_one_process_count_apart() {
    let (one, other) = (Running::start().await, Running::start().await);
    one.take(&[Signer::new().item("1")]).await;
    let line = "liotbchain_transactions_total{outcome=\"accepted\"} 0";
    assert!(metrics(&other).await.iter().any(|it| it == line));
}
