use reqwest::{Method, header};
use serde_json::{Value, json};

use crate::{
    running::{Running, json},
    signer::Signer,
};

async fn started(transactions: u64) -> Running {
    let receiver = Running::start().await;
    let device = Signer::new();
    let items: Vec<_> = (0..transactions).map(|number| device.item(&number.to_string())).collect();
    receiver.take(&items).await;
    receiver
}

async fn post(receiver: &Running, body: &'static str) -> reqwest::Response {
    let request = receiver.client.post(receiver.url("/v1/validation"));
    let request = request.header(header::CONTENT_TYPE, "application/json").body(body);
    request.send().await.unwrap()
}

/// Waits for the one that runs.
async fn last(receiver: &Running) -> Value {
    loop {
        let state = receiver.get_json("/v1/validation").await;
        if state["running"].is_null() {
            return state["last"].clone();
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn starts_tells_its_progress_and_keeps_the_result() {
    let receiver = started(2_000).await;
    assert_eq!(receiver.get_json("/v1/validation").await, json!({"running": null, "last": null}));

    let answer = post(&receiver, "").await;
    assert_eq!(answer.status(), 202);
    assert_eq!(answer.headers()[header::LOCATION], "/v1/validation");
    let state = json(answer).await;
    let running = &state["running"];
    assert_eq!((&running["signatures"], &state["last"]), (&json!(true), &json!(null)));
    // A second one is not started while it runs.
    let answer = post(&receiver, "{\"signatures\": false}").await;
    assert_eq!(answer.status(), 200);
    let again = json(answer).await;
    assert_eq!(again["running"]["started_ms"], running["started_ms"]);
    assert_eq!(again["running"]["signatures"], true);

    let last = last(&receiver).await;
    assert_eq!((&last["outcome"], &last["started_ms"]), (&json!("finished"), &running["started_ms"]));
    assert!(last["finished_ms"].as_u64() >= running["started_ms"].as_u64());
    // The same answer as the older route's.
    assert_eq!(last["result"], receiver.get_json("/validate").await);
    assert_eq!(last["result"]["transactions"], 2_001);
}

#[tokio::test]
async fn leaves_signatures_out_when_told_to() {
    let receiver = started(2).await;
    assert_eq!(post(&receiver, "{\"signatures\": false}").await.status(), 202);
    let last = last(&receiver).await;
    assert_eq!((&last["signatures"], &last["result"]["valid"]), (&json!(false), &json!(true)));
}

#[tokio::test]
async fn ends_when_it_is_cancelled() {
    let receiver = started(2_000).await;
    let cancel = || receiver.client.request(Method::DELETE, receiver.url("/v1/validation")).send();
    assert_eq!(cancel().await.unwrap().status(), 204);
    assert_eq!(post(&receiver, "null").await.status(), 202);
    assert_eq!(cancel().await.unwrap().status(), 204);
    let state = receiver.get_json("/v1/validation").await;
    assert_eq!(state["running"], Value::Null);
    assert_eq!((&state["last"]["outcome"], &state["last"]["result"]), (&json!("cancelled"), &Value::Null));
    assert_eq!(receiver.get_json("/validate").await["valid"], true);
}

#[tokio::test]
async fn refuses_options_that_it_does_not_know() {
    let receiver = Running::start().await;
    for body in ["{", "[]", "[false]", "1", "{\"signature\": false}", "{\"signatures\": null}"] {
        let refused = post(&receiver, body).await;
        assert_eq!(refused.status(), 400, "{body}");
        assert_eq!(refused.headers()[header::CONTENT_TYPE], "application/problem+json");
        assert_eq!(refused.json::<Value>().await.unwrap()["code"], "invalid_body", "{body}");
    }
    let untyped = receiver.client.post(receiver.url("/v1/validation")).body("{}").send().await.unwrap();
    assert_eq!(untyped.status(), 415);
    assert_eq!(receiver.get_json("/v1/validation").await, json!({"running": null, "last": null}));
}
