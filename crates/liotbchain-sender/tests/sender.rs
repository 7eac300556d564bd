//! A sender over real sockets that no receiver answers: what its routes say, what it keeps, and that it tells. That what
//! it keeps arrives is tested beside this, against a receiver that answers as it is told to, and end to end.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::{env, fs, net::SocketAddr, path::Path, time::Duration};

use liotbchain_http::{Edge, Limits, Token, serve};
use liotbchain_sender::{
    BODY_SIZE_MAX, ForwardConfig, KEY_FILE, KeyKind, Protocol, Receiver, Sender, SenderConfig, SenderOptions,
    SigningKey,
    outbox::{OutboxLimits, WhenFull},
    router, run,
};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{sync::oneshot, time::timeout};

const PATIENCE: Duration = Duration::from_secs(60);
const SNAPSHOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/openapi-sender.json");

fn options(data_dir: &Path, outbox: OutboxLimits) -> SenderOptions {
    // Nothing listens on port 9.
    let receiver = Receiver::new("http://127.0.0.1:9".parse().unwrap(), None).unwrap();
    SenderOptions {
        data_dir: data_dir.to_owned(),
        key: SigningKey::load_or_create(&data_dir.join(KEY_FILE), KeyKind::Ed25519).unwrap(),
        forward: ForwardConfig { receivers: vec![receiver], protocol: Protocol::V1 },
        outbox,
        mqtt: None,
    }
}

fn limits(size_max: u64, when_full: WhenFull) -> OutboxLimits {
    OutboxLimits { size_max, when_full }
}

struct Interface {
    sender: Sender,
    address: SocketAddr,
    client: Client,
    _folder: TempDir,
}

impl Interface {
    async fn start(edge: Edge) -> Self {
        Self::start_with(edge, limits(64 << 20, WhenFull::Refuse)).await
    }

    async fn start_with(edge: Edge, outbox: OutboxLimits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sender = Sender::open(options(folder.path(), outbox)).await.unwrap();
        let listener = edge.bind("127.0.0.1:0".parse().unwrap(), "SENDER_LISTEN").await.unwrap();
        let address = listener.local_addr().unwrap();
        let limits = Limits { body_size_max: BODY_SIZE_MAX, ..Limits::default() };
        tokio::spawn(serve(listener, router(sender.clone(), edge), limits, std::future::pending()));
        Self { sender, address, client: client(), _folder: folder }
    }

    fn post(&self, path: &str) -> RequestBuilder {
        self.client.post(format!("http://{}{path}", self.address))
    }

    async fn get(&self, path: &str) -> Response {
        self.client.get(format!("http://{}{path}", self.address)).send().await.unwrap()
    }

    async fn get_json(&self, path: &str) -> Value {
        self.get(path).await.json().await.unwrap()
    }

    async fn hand_over(&self, reading: Value) -> (u16, Value) {
        answer(self.post("/readings").json(&reading)).await
    }
}

fn client() -> Client {
    Client::builder().no_proxy().build().unwrap()
}

async fn answer(request: RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

/// Reads events until one matches, and returns its data.
async fn next_event(stream: &mut Response, text: &mut String, name: &str) -> Value {
    let read = async {
        loop {
            if let Some((event, rest)) = text.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                *text = rest;
                let data = event.strip_prefix(&format!("event: {name}\ndata: "));
                if let Some(data) = data {
                    return serde_json::from_str(data).unwrap();
                }
                continue;
            }
            let chunk = stream.chunk().await.unwrap().expect("the stream goes on");
            text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    };
    timeout(PATIENCE, read).await.unwrap()
}

#[tokio::test]
async fn starts_changes_and_stops_the_one_job_over_http() {
    let sender = Interface::start(Edge::default()).await;
    let success = |message: &str| (200, json!({"status": "success", "message": message}));
    let start = |body: Value| answer(sender.post("/start_sending").json(&body));
    assert_eq!(answer(sender.post("/stop_sending")).await, success("Nothing was being sent"));
    assert_eq!(start(json!({})).await, success("Started sending 1 items every 2 seconds"));
    let changed = start(json!({"number_of_items_to_send": 20, "interval_time": 0.5})).await;
    assert_eq!(changed, success("Started sending 20 items every 0.5 seconds"));
    let status = sender.get_json("/status").await;
    assert_eq!((&status["running"], &status["number_of_items_to_send"]), (&json!(true), &json!(20)));
    assert_eq!(status["receiver_url"], "http://127.0.0.1:9/");
    assert_eq!(status["algorithm"], "Ed25519");
    let (code, stopped) = answer(sender.post("/stop_sending")).await;
    assert_eq!(code, 200);
    assert!(stopped["message"].as_str().unwrap().starts_with("Stopped sending"), "{stopped}");
    assert_eq!(sender.get_json("/status").await["running"], false);
}

#[tokio::test]
async fn refuses_what_is_no_job() {
    let sender = Interface::start(Edge::default()).await;
    let start = || sender.post("/start_sending");
    let (code, body) = answer(start().json(&json!({"number_of_items_to_send": -3}))).await;
    assert_eq!((code, &body["code"]), (400, &json!("bad_value")));
    assert_eq!(body["message"], "number_of_items_to_send is -3: expected a whole number from 1 to 8000");
    let (code, body) = answer(start().json(&json!({"number_of_items_to_send": 8001}))).await;
    assert_eq!((code, &body["code"]), (400, &json!("out_of_range")));
    let (code, body) = answer(start().body("{}")).await;
    assert_eq!((code, &body["code"]), (415, &json!("unsupported_content_type")));
    let (code, body) = answer(sender.post("/nowhere")).await;
    assert_eq!((code, &body["code"]), (404, &json!("not_found")));
    let response = sender.get("/start_sending").await;
    assert_eq!(
        (response.status(), &response.headers()["allow"]),
        (StatusCode::METHOD_NOT_ALLOWED, &"POST".parse().unwrap())
    );
    assert_eq!(sender.get_json("/status").await["running"], false);
}

#[tokio::test]
async fn asks_writers_alone_for_the_token() {
    let token = "0123456789abcdef";
    let sender = Interface::start(Edge { api_token: Some(Token::new(token)), ..Edge::default() }).await;
    let reading = json!({"device": "a", "celsius": 21.5});
    for (path, body, done) in
        [("/start_sending", json!({}), 200), ("/stop_sending", json!({}), 200), ("/readings", reading, 202)]
    {
        let (code, refused) = answer(sender.post(path).json(&body)).await;
        assert_eq!((code, &refused["code"]), (401, &json!("unauthorized")), "{path}");
        assert_eq!(answer(sender.post(path).bearer_auth(token).json(&body)).await.0, done, "{path}");
    }
    let reads =
        ["/status", "/healthz", "/readyz", "/metrics", "/set_aside", "/logs", "/openapi.json", "/apidocs/"];
    for path in reads {
        assert_eq!(sender.get(path).await.status(), 200, "{path}");
    }
    let (code, body) = answer(sender.post("/stop_sending").header("origin", "http://evil.example")).await;
    assert_eq!((code, &body["code"]), (403, &json!("foreign_origin")));
}

/// The description is what clients are written to: a change shows in the diff of the file. After a wanted one, run
/// `UPDATE_SNAPSHOTS=1 cargo nextest run -p liotbchain-sender describes_the_same_routes_as_before`.
#[tokio::test]
async fn describes_the_same_routes_as_before() {
    let sender = Interface::start(Edge::default()).await;
    let mut description = sender.get_json("/openapi.json").await;
    // It would change with every release.
    description["info"]["version"] = "…".into();
    let text = serde_json::to_string_pretty(&description).unwrap() + "\n";
    if env::var_os("UPDATE_SNAPSHOTS").is_some() {
        fs::write(SNAPSHOT, &text).unwrap();
    }
    let before: Value = serde_json::from_str(&fs::read_to_string(SNAPSHOT).unwrap()).unwrap();
    assert!(
        description == before,
        "/openapi.json has changed; see the comment above this test. It is now:\n{text}"
    );
}

#[tokio::test]
async fn counts_what_each_device_handed_over() {
    let sender = Interface::start(Edge::default()).await;
    let reading = json!({"device": "oven", "celsius": 180, "counter": 1});
    let (code, first) = sender.hand_over(reading.clone()).await;
    assert_eq!((code, &first["items"][0]["status"]), (202, &json!("queued")));
    let (code, again) = sender.hand_over(reading).await;
    assert_eq!((code, &again["items"][0]["status"]), (202, &json!("duplicate")));
    assert_eq!(first["items"][0]["id"], again["items"][0]["id"]);
    sender.hand_over(json!([{"device": "fridge", "celsius": 4}, {"device": "fridge", "celsius": 4}])).await;
    let status = sender.get_json("/status").await;
    assert_eq!(
        (&status["waiting"], &status["duplicates"], &status["boot"]),
        (&json!(3), &json!(1), &json!(1))
    );
    assert_eq!(status["devices"]["oven"]["queued"], 1);
    assert_eq!(status["devices"]["oven"]["duplicates"], 1);
    assert_eq!(status["devices"]["fridge"]["queued"], 2);
    assert_eq!(status["devices_forgotten"], 0);
    let queue = &status["queue"];
    assert_eq!((&queue["waiting"], &queue["bytes_max"]), (&json!(3), &json!(64 << 20)));
    assert_eq!(queue["when_full"], "refuse");
    assert!(queue["bytes"].as_u64().unwrap() > 0 && queue["oldest_age_s"].is_f64(), "{queue}");
    assert!(queue["readings_per_second"].as_f64().unwrap() > 0.0, "{queue}");
    assert!(queue["seconds_until_full"].as_f64().unwrap() > 0.0, "{queue}");
    let metrics = sender.get("/metrics").await.text().await.unwrap();
    for line in [
        "liotbchain_sender_readings_total{outcome=\"queued\"} 3",
        "liotbchain_sender_readings_total{outcome=\"duplicate\"} 1",
        "liotbchain_sender_queue_waiting 3",
        "liotbchain_sender_queue_fault 0",
        "liotbchain_http_requests_total{route=\"/readings\",status=\"202\"} 3",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} in {metrics}");
    }
    assert!(!metrics.contains("oven") && !metrics.contains("broker_connected "), "{metrics}");
}

#[tokio::test]
async fn tells_the_owner_of_a_device_what_becomes_of_its_readings() {
    let sender = Interface::start(Edge::default()).await;
    let mut all = sender.get("/logs").await;
    assert_eq!(all.headers()["content-type"], "text/event-stream");
    let mut mine = sender.get("/logs?device=mine").await;
    let (mut all_text, mut mine_text) = (String::new(), String::new());
    sender.hand_over(json!({"device": "other", "celsius": 1})).await;
    let (_, taken) = sender.hand_over(json!({"device": "mine", "celsius": 2, "reading_id": "a"})).await;
    sender.hand_over(json!({"device": "mine", "celsius": 2, "reading_id": "a"})).await;
    assert_eq!(next_event(&mut all, &mut all_text, "outcome").await["device"], "other");
    let id = &taken["items"][0]["id"];
    for fate in ["queued", "duplicate"] {
        let told = next_event(&mut mine, &mut mine_text, "outcome").await;
        assert_eq!((&told["device"], &told["fate"], &told["id"]), (&json!("mine"), &json!(fate), id));
    }
    let refused = sender.get("/logs?devise=mine").await;
    assert_eq!(refused.status(), 400);
    sender.sender.close().await;
    let ended = async { while all.chunk().await.unwrap().is_some() {} };
    timeout(PATIENCE, ended).await.expect("the end of the sender ends the stream");
}

#[tokio::test]
async fn lets_no_more_follow_than_there_is_room_for() {
    let sender = Interface::start(Edge::default()).await;
    let mut followers = Vec::new();
    for _ in 0..64 {
        let follower = sender.get("/logs").await;
        assert_eq!(follower.status(), 200);
        followers.push(follower);
    }
    let turned_away = sender.get("/logs").await;
    assert_eq!(
        (turned_away.status().as_u16(), &turned_away.headers()["retry-after"]),
        (503, &"10".parse().unwrap())
    );
    assert_eq!(turned_away.json::<Value>().await.unwrap()["code"], "too_many_followers");
    followers.pop();
    let let_in = async { while sender.get("/logs").await.status() != 200 {} };
    timeout(PATIENCE, let_in).await.expect("who leaves makes room");
}

#[tokio::test]
async fn a_full_queue_refuses_tells_why_and_pauses_the_simulated_devices() {
    let sender = Interface::start_with(Edge::default(), limits(1 << 20, WhenFull::Refuse)).await;
    let ready = sender.get("/readyz").await;
    assert_eq!(ready.status(), 200);
    let reading = json!({"device": "a", "text": "x".repeat(60_000)});
    let fill = async {
        loop {
            let (code, body) = sender.hand_over(reading.clone()).await;
            if code != 202 {
                return (code, body["code"].clone());
            }
        }
    };
    assert_eq!(timeout(PATIENCE, fill).await.unwrap(), (503, json!("queue_full")));
    let ready = sender.get("/readyz").await;
    assert_eq!(ready.status(), 503);
    let told: Value = ready.json().await.unwrap();
    assert_eq!((&told["status"], &told["reasons"]), (&json!("not_ready"), &json!(["queue_full"])));
    answer(sender.post("/start_sending").json(&json!({"number_of_items_to_send": 8000}))).await;
    let paused = async { while sender.get_json("/status").await["paused"] != true {} };
    timeout(PATIENCE, paused).await.expect("the devices wait");
    let status = sender.get_json("/status").await;
    assert_eq!((&status["running"], &status["dropped"]), (&json!(true), &json!(0)));
}

#[tokio::test]
async fn shows_what_was_set_aside_within_bounds() {
    let sender = Interface::start(Edge::default()).await;
    assert_eq!(sender.get_json("/set_aside").await, json!({"total": 0, "records": []}));
    for query in ["limit=0", "limit=101", "limit=x", "limits=1"] {
        let refused = sender.get(&format!("/set_aside?{query}")).await;
        assert_eq!(refused.status(), 400, "{query}");
        assert_eq!(refused.json::<Value>().await.unwrap()["code"], "bad_query", "{query}");
    }
    assert_eq!(sender.get("/set_aside?limit=100").await.status(), 200);
}

#[tokio::test]
async fn keeps_its_key_and_what_waits_from_one_start_to_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let mut keys = Vec::new();
    for start in 1..=2 {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let config = || SenderConfig {
            options: options(folder.path(), limits(64 << 20, WhenFull::Refuse)),
            listen: free,
            edge: Edge::default(),
            connections_max: 16,
        };
        let running = tokio::spawn(run(config(), async { _ = stopped.await }));
        let client = client();
        let healthy = async {
            while client.get(format!("http://{free}/healthz")).send().await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, healthy).await.unwrap();
        let taken = run(config(), std::future::pending()).await;
        assert!(taken.unwrap_err().to_string().contains("set SENDER_LISTEN to another port"));
        let reading =
            client.post(format!("http://{free}/readings")).json(&json!({"device": "a", "n": start}));
        assert_eq!(answer(reading).await.0, 202);
        let (_, status) = answer(client.get(format!("http://{free}/status"))).await;
        assert_eq!((&status["waiting"], &status["boot"]), (&json!(start), &json!(start)));
        keys.push(status["key_id"].clone());
        stop.send(()).unwrap();
        timeout(PATIENCE, running).await.unwrap().unwrap().unwrap();
    }
    assert_eq!(keys[0], keys[1]);
}
