//! `POST /readings` over real sockets into a real queue. No receiver is there, so what was taken waits and can be looked at.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use liotbchain_http::{Edge, Limits, serve};
use liotbchain_sender::{
    ForwardConfig, KEY_FILE, KeyKind, Protocol, Receiver, Sender, SenderOptions, SigningKey,
    outbox::{OUTBOX_FILE, Outbox, OutboxLimits, WhenFull},
    router,
};
use reqwest::{Client, Response, header};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

const JSON: &str = "application/json";
const LINES: &str = "application/x-ndjson";
const SENML: &str = "application/senml+json";

const LIMITS: OutboxLimits = OutboxLimits { size_max: 64 << 20, when_full: WhenFull::Refuse };

struct Gateway {
    folder: TempDir,
    sender: Sender,
    url: String,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

impl Gateway {
    async fn start() -> Self {
        Self::start_with(LIMITS).await
    }

    async fn start_with(outbox: OutboxLimits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = SigningKey::create(&folder.path().join(KEY_FILE), KeyKind::Ed25519).unwrap();
        // Nobody listens there.
        let receiver = Receiver::new("http://127.0.0.1:9".parse().unwrap(), None).unwrap();
        let forward = ForwardConfig { receivers: vec![receiver], protocol: Protocol::V1 };
        let options = SenderOptions { data_dir: folder.path().to_owned(), key, forward, outbox, mqtt: None };
        let sender = Sender::open(options).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/readings", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        let limits = Limits { body_size_max: 1 << 20, ..Limits::default() };
        let router = router(sender.clone(), Edge::default());
        let server = tokio::spawn(serve(listener, router, limits, async { _ = stopped.await }));
        Self { folder, sender, url, stop, server }
    }

    async fn post(&self, query: &str, form: &str, body: impl Into<Vec<u8>>) -> (u16, Value) {
        read(self.request(query, form, body).send().await.unwrap()).await
    }

    fn request(&self, query: &str, form: &str, body: impl Into<Vec<u8>>) -> reqwest::RequestBuilder {
        let client = Client::builder().no_proxy().build().unwrap();
        client.post(format!("{}{query}", self.url)).header(header::CONTENT_TYPE, form).body(body.into())
    }

    /// Ends the sender, and returns the ids and texts of what waits on its disk, oldest first.
    async fn stop(self) -> Vec<(String, String)> {
        _ = self.stop.send(());
        self.server.await.unwrap();
        self.sender.close().await;
        drop(self.sender);
        let key = Arc::new(SigningKey::load(&self.folder.path().join(KEY_FILE)).unwrap());
        let (outbox, _) = Outbox::open(&self.folder.path().join(OUTBOX_FILE), key, LIMITS).await.unwrap();
        let mut records = outbox.take(10_000, 64 << 20).await.unwrap();
        records.sort_by_key(|record| record.slot);
        for record in &records {
            let statement = &record.statement;
            assert_eq!(record.public_key.verify(statement.payload.as_bytes(), &statement.signature), Ok(()));
        }
        records.into_iter().map(|record| (record.id.to_string(), record.statement.payload)).collect()
    }
}

async fn read(response: Response) -> (u16, Value) {
    (response.status().as_u16(), response.json().await.unwrap())
}

fn items(answer: &(u16, Value)) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let items = answer.1["items"].as_array().unwrap_or_else(|| panic!("{answer:?}"));
    items.iter().map(|item| (text(&item["id"]), text(&item["status"]))).collect()
}

fn code(answer: &(u16, Value)) -> (u16, &str) {
    (answer.0, answer.1["code"].as_str().unwrap_or_else(|| panic!("{answer:?}")))
}

#[tokio::test]
async fn every_form_is_on_the_disk_when_it_is_answered() {
    let gateway = Gateway::start().await;
    let key = SigningKey::generate(KeyKind::P256).unwrap();
    let payload = "{\"device\": \"signs\",  \"v\": 1.0}";
    let signature = STANDARD.encode(key.sign(payload.as_bytes()));
    let signed = json!({"payload": payload, "signature": signature, "public_key": key.public_key().to_pem()});
    let pack = "[{\"bn\":\"pack:\",\"n\":\"t\",  \"v\":1.0}]";
    let mut ids = Vec::new();
    for (query, form, body, count) in [
        ("?device=one", JSON, " {\"v\":  1.10}\n".to_owned(), 1),
        ("", JSON, "[{\"device\":\"l\",\"v\":1}, {\"v\":2,\"device\":\"l\"}]".to_owned(), 2),
        ("", LINES, "{\"device\":\"n\",\"v\":1}\n\n{\"device\":\"n\",\"v\":2}\n".to_owned(), 2),
        ("", SENML, pack.to_owned(), 1),
        ("", "application/vnd.device+json; charset=utf-8", signed.to_string(), 1),
    ] {
        let answer = gateway.post(query, form, body).await;
        assert_eq!((answer.0, &answer.1["status"]), (202, &json!("success")), "{answer:?}");
        let items = items(&answer);
        assert_eq!(items.len(), count, "{answer:?}");
        assert!(items.iter().all(|(_, status)| status == "queued"), "{answer:?}");
        ids.extend(items.into_iter().map(|(id, _)| id));
    }
    let records = gateway.stop().await;
    assert_eq!(Vec::from_iter(records.iter().map(|(id, _)| id)), Vec::from_iter(&ids));
    for ((_, record), (device, reading)) in records.iter().zip([
        ("one", "{\"v\":  1.10}"),
        ("l", "{\"device\":\"l\",\"v\":1}"),
        ("l", "{\"v\":2,\"device\":\"l\"}"),
        ("n", "{\"device\":\"n\",\"v\":1}"),
        ("n", "{\"device\":\"n\",\"v\":2}"),
        ("pack", pack),
    ]) {
        assert!(record.starts_with(&format!("{{\"device\":\"{device}\",")), "{record}");
        assert!(record.ends_with(&format!(",\"reading\":{reading}}}")), "{record}");
    }
    assert_eq!(records[6].1, payload);
}

#[tokio::test]
async fn the_same_request_again_makes_no_second_record() {
    let gateway = Gateway::start().await;
    let post = async |key: &str, body: &'static str| {
        let request = gateway.request("?device=d", JSON, body).header("Idempotency-Key", key);
        items(&read(request.send().await.unwrap()).await)
    };
    let list = "[{\"v\":1},{\"v\":1}]";
    let first = post("a", list).await;
    assert_eq!(first.iter().map(|(_, status)| status.as_str()).collect::<Vec<_>>(), ["queued", "queued"]);
    let again = post("a", list).await;
    let duplicates = first.iter().map(|(id, _)| (id.clone(), "duplicate".to_owned()));
    assert_eq!(again, Vec::from_iter(duplicates));
    // Another key, or other bytes, is another reading.
    assert_eq!(post("b", list).await[0].1, "queued");
    assert_eq!(post("a", "[{\"v\":2}]").await[0].1, "queued");
    let own = "{\"v\":3,\"counter\":17}";
    let own_first = items(&gateway.post("?device=d", JSON, own).await);
    let own_again = items(&gateway.post("?device=d", JSON, own).await);
    assert_eq!((&own_first[0].0, own_again[0].1.as_str()), (&own_again[0].0, "duplicate"));
    assert_eq!(gateway.stop().await.len(), 6);
}

#[tokio::test]
async fn refuses_by_name_and_takes_nothing_of_it() {
    let gateway = Gateway::start().await;
    let good = "{\"device\":\"d\"}";
    let deep = "[".repeat(200);
    let many = "{}\n".repeat(8_001);
    let large = format!("{{\"v\":\"{}\"}}", "x".repeat(70_000));
    for (query, form, body, expected) in [
        ("", JSON, "{", (400, "not_json")),
        ("", JSON, &deep, (400, "too_deep")),
        ("", JSON, "[]", (400, "empty_list")),
        ("", JSON, "{}", (400, "missing_device")),
        ("", JSON, "{\"device\":\"d\",\"device\":\"d\"}", (400, "duplicate_key")),
        ("", JSON, "[{\"device\":\"d\"},7]", (400, "invalid_items")),
        ("", SENML, good, (400, "bad_senml")),
        ("?device=d", LINES, &many, (413, "too_many_items")),
        ("?device=d", JSON, &large, (413, "payload_too_large")),
        ("?device=d", JSON, &format!("[{good},{large}]"), (413, "payload_too_large")),
        ("?device=d", JSON, &format!("{good}{}", " ".repeat(1 << 20)), (413, "body_too_large")),
        ("", "text/plain", good, (415, "unsupported_content_type")),
        ("?devise=d", JSON, good, (400, "bad_query")),
        ("?device=d&device=e", JSON, good, (400, "bad_query")),
        ("?device=%2B", JSON, good, (400, "bad_device")),
    ] {
        let answer = gateway.post(query, form, body).await;
        assert_eq!(code(&answer), expected, "{query} {body:.100}");
    }
    let answer = gateway.post("", JSON, "[{\"device\":\"d\"},7,{\"device\":\"d\"},{}]").await;
    let faults = answer.1["items"].as_array().unwrap();
    let faults = Vec::from_iter(faults.iter().map(|it| (it["index"].as_u64(), it["code"].as_str())));
    assert_eq!(faults, [(Some(1), Some("not_an_object")), (Some(3), Some("missing_device"))]);
    for (header, value, expected) in [
        ("Idempotency-Key", "", (400, "bad_idempotency_key")),
        ("Idempotency-Key", "é", (400, "bad_idempotency_key")),
        ("Content-Encoding", "br", (415, "unsupported_encoding")),
        ("Content-Encoding", "gzip", (400, "broken_body")),
    ] {
        let answer = read(gateway.request("", JSON, good).header(header, value).send().await.unwrap()).await;
        assert_eq!(code(&answer), expected, "{header}: {value}");
    }
    assert!(gateway.stop().await.is_empty());
}

#[tokio::test]
async fn a_compressed_body_is_taken_within_the_limit_of_what_comes_out() {
    let gateway = Gateway::start().await;
    let post = async |body: &str| {
        let packed = zstd::encode_all(body.as_bytes(), 3).unwrap();
        let request = gateway.request("?device=d", LINES, packed).header(header::CONTENT_ENCODING, "zstd");
        read(request.send().await.unwrap()).await
    };
    let answer = post(&"{\"v\":1}\n".repeat(8_000)).await;
    assert_eq!(items(&answer).len(), 8_000);
    assert_eq!(code(&post(&" ".repeat((1 << 20) + 1)).await), (413, "body_too_large"));
    assert_eq!(gateway.stop().await.len(), 8_000);
}

#[tokio::test]
async fn a_full_queue_refuses_for_now_and_keeps_what_was_acknowledged() {
    let gateway = Gateway::start_with(OutboxLimits { size_max: 1 << 20, when_full: WhenFull::Refuse }).await;
    let body = format!("{{\"v\":\"{}\"}}", "x".repeat(60_000));
    let mut acknowledged = Vec::new();
    let refused = loop {
        let response = gateway.request("?device=d", JSON, body.clone()).send().await.unwrap();
        if response.status() != 202 {
            break response;
        }
        acknowledged.extend(items(&read(response).await).into_iter().map(|(id, _)| id));
        assert!(acknowledged.len() < 100, "a queue of 1 MiB is never full");
    };
    let wait: u64 = refused.headers()[header::RETRY_AFTER].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait));
    assert_eq!(code(&read(refused).await), (503, "queue_full"));
    let kept = Vec::from_iter(gateway.stop().await.into_iter().map(|(id, _)| id));
    assert!(!kept.is_empty());
    assert_eq!(kept, acknowledged);
}
