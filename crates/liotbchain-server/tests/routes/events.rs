use std::time::Duration;

use liotbchain_http::Limits;
use liotbchain_server::ReceiverConfig;
use reqwest::{Response, header};
use serde_json::{Value, json};

use crate::{
    running::{Running, ledger_config, memory, receiver_config},
    signer::Signer,
};

/// An event as a client reads it.
#[derive(Debug, Clone, PartialEq)]
struct Event {
    name: String,
    id: Option<String>,
    data: Value,
}

/// Reads a stream of events, comments passed over.
struct Follower {
    response: Response,
    text: String,
}

impl Follower {
    async fn with(receiver: &Running, last_event_id: Option<&str>) -> Self {
        let mut request = receiver.client.get(receiver.url("/v1/events"));
        if let Some(id) = last_event_id {
            request = request.header("Last-Event-ID", id);
        }
        Self::reading(request.send().await.unwrap())
    }

    fn reading(response: Response) -> Self {
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
        Self { response, text: String::new() }
    }

    /// None once the stream ended.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let event = parse(block);
                self.text = rest.to_owned();
                match event {
                    Some(event) => return Some(event),
                    None => continue,
                }
            }
            let chunk = self.response.chunk().await.unwrap()?;
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// Returns the next event of a kind.
    async fn next_of(&mut self, name: &str) -> Event {
        loop {
            let event = self.next().await.unwrap();
            if event.name == name {
                return event;
            }
        }
    }
}

fn parse(block: &str) -> Option<Event> {
    let field = |name: &str| {
        let mut values = block.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        values.next().map(str::to_owned)
    };
    let data = serde_json::from_str(&field("data")?).unwrap();
    Some(Event { name: field("event")?, id: field("id"), data })
}

async fn take(receiver: &Running, device: &Signer, count: u64) {
    static NUMBER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let number = || NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let items: Vec<_> = (0..count).map(|_| device.item(&number().to_string())).collect();
    receiver.take(&items).await;
}

fn id(receiver: &Running) -> String {
    let status = receiver.ledger.status();
    format!("{}-{}", status.height, status.tip)
}

#[tokio::test]
async fn tells_every_block_and_what_waits() {
    let receiver = Running::start().await;
    let device = Signer::new();
    let genesis = receiver.ledger.genesis().to_string();
    let mut follower = Follower::with(&receiver, None).await;
    let first = follower.next().await.unwrap();
    let expected = json!({"genesis": genesis, "height": 0, "tip": genesis, "pending": 0});
    assert_eq!(first, Event { name: "status".into(), id: Some(format!("0-{genesis}")), data: expected });

    // One more than a page holds, and a transaction that waits.
    take(&receiver, &device, 2 * 17 + 1).await;
    let chain = receiver.get_json("/get_chain").await;
    for height in 1..=17 {
        let event = follower.next_of("block").await;
        let (hash, below) = (&chain[height]["hash"], &chain[height - 1]["hash"]);
        assert_eq!(event.id.unwrap(), format!("{height}-{}", hash.as_str().unwrap()));
        let timestamp_ms = event.data["timestamp_ms"].as_u64().unwrap();
        assert_eq!(timestamp_ms as f64 / 1000.0, chain[height]["timestamp"].as_f64().unwrap());
        let expected = json!({
            "height": height, "hash": hash, "prev_block_hash": below, "timestamp_ms": timestamp_ms,
            "transaction_count": 2, "skipped": 0,
        });
        assert_eq!(event.data, expected);
    }
    let mut pending = follower.next_of("pending").await;
    while pending.data != json!({"pending": 1}) {
        pending = follower.next_of("pending").await;
    }
    assert_eq!(pending.id, None);
}

#[tokio::test]
async fn goes_on_from_any_block() {
    let receiver = Running::start().await;
    let device = Signer::new();
    take(&receiver, &device, 10).await;
    let middle = id(&receiver);
    take(&receiver, &device, 200).await;

    let by_query = receiver.get(&format!("/v1/events?last_event_id={middle}")).await;
    for mut follower in [Follower::with(&receiver, Some(&middle)).await, Follower::reading(by_query)] {
        let status = follower.next().await.unwrap();
        assert_eq!((status.name.as_str(), status.id, &status.data["height"]), ("status", None, &json!(105)));
        for height in 6..=105 {
            assert_eq!(follower.next_of("block").await.data["height"], height);
        }
    }
    // From the tip there is nothing to catch up on: the next event is what is new.
    let mut follower = Follower::with(&receiver, Some(&id(&receiver))).await;
    take(&receiver, &device, 2).await;
    assert_eq!(follower.next_of("block").await.data["height"], 106);
}

#[tokio::test]
async fn refuses_an_id_that_it_never_gave() {
    let receiver = Running::start().await;
    let genesis = receiver.ledger.genesis().to_string();
    let absent = format!("0-{}", "ab".repeat(32));
    for (id, code) in [
        ("1".to_owned(), "malformed_event_id"),
        (format!("00-{genesis}"), "malformed_event_id"),
        (format!("0-{}", genesis.to_uppercase()), "malformed_event_id"),
        (format!("1-{genesis}"), "unknown_event_id"),
        (absent, "unknown_event_id"),
    ] {
        let refused = receiver.get(&format!("/v1/events?last_event_id={id}")).await;
        assert_eq!(refused.status(), 400, "{id}");
        assert_eq!(refused.headers()[header::CONTENT_TYPE], "application/problem+json");
        let problem: Value = refused.json().await.unwrap();
        assert_eq!(problem["code"], code, "{id}");
    }
}

/// Takes the last block off the chain, as a reorganisation does before it puts others on.
async fn disconnect(receiver: &Running, count: u32) {
    let store = receiver.ledger.store();
    let holder = &receiver.ledger.config().holder;
    let right = store.acquire_right(holder, Duration::from_secs(60)).await.unwrap().unwrap();
    store.commit(&right, receiver.ledger.status().tip, count, &[]).await.unwrap();
}

#[tokio::test]
async fn tells_of_a_reorganisation_before_the_blocks_that_replace_others() {
    let receiver = Running::start().await;
    let device = Signer::new();
    let mut follower = Follower::with(&receiver, None).await;
    take(&receiver, &device, 6).await;
    let mut ids = Vec::new();
    for _ in 1..=3 {
        ids.push(follower.next_of("block").await.id.unwrap());
    }

    disconnect(&receiver, 2).await;
    // The ledger finds out when it seals again; what was disconnected goes first.
    take(&receiver, &device, 2).await;
    let status = receiver.ledger.status();
    assert_eq!(status.height, 4);
    let late = Follower::with(&receiver, Some(&ids[2])).await;
    for mut follower in [follower, late] {
        let event = follower.next_of("reorganisation").await;
        assert_eq!(event.id.as_ref(), Some(&ids[0]));
        let (_, ancestor) = ids[0].split_once('-').unwrap();
        assert_eq!(event.data["common_ancestor"], json!({"height": 1, "hash": ancestor}));
        assert_eq!(event.data["disconnected"], 2);
        for height in 2..=4 {
            let block = follower.next_of("block").await;
            assert_eq!(block.data["height"], height);
            assert!(!ids.contains(&block.id.unwrap()));
        }
    }
}

#[tokio::test]
async fn there_is_a_limit_of_clients() {
    let limits = Limits { connections_max: 8, ..Limits::default() };
    let config = ReceiverConfig { limits, ..receiver_config() };
    let receiver = Running::with(memory().await, ledger_config(), config).await;
    let first = Follower::with(&receiver, None).await;
    let _second = Follower::with(&receiver, None).await;
    let refused = receiver.get("/v1/events").await;
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key(header::RETRY_AFTER));
    let problem: Value = refused.json().await.unwrap();
    assert_eq!(problem["code"], "too_many_event_clients");
    // Whoever goes makes room.
    drop(first);
    while receiver.get("/v1/events").await.status() != 200 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_stream_ends_when_the_receiver_stops() {
    let receiver = Running::start().await;
    let mut follower = Follower::with(&receiver, None).await;
    assert_eq!(follower.next().await.unwrap().name, "status");
    // A stream that went on would be cut off, and chunk() would fail.
    receiver.stop().await;
    assert_eq!(follower.next().await, None);
}
