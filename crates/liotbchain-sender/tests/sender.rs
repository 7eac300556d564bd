//! A sender over real sockets, against a receiver of this test's own: it checks signatures and answers as it is told to,
//! which the real one cannot be asked to do. The end-to-end tests use the real one.

#![allow(clippy::unwrap_used)]

use std::{
    collections::VecDeque,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use liotbchain_core::PublicKey;
use liotbchain_http::{Edge, Limits, Token, serve};
use liotbchain_sender::{
    Job, KEY_FILE, KeyKind, Receiver, Sender, SenderConfig, SigningKey, Status, router, run,
};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle, time::timeout};

#[derive(Deserialize)]
struct Item<'a> {
    #[serde(borrow)]
    data: &'a RawValue,
    signature: String,
    public_key: String,
}

/// What the receiver saw, and what it is to say before it accepts.
#[derive(Default)]
struct Log {
    answers: VecDeque<Response>,
    bodies: Vec<Bytes>,
    accepted: Vec<String>,
    authorization: Option<String>,
}

type Shared = Arc<Mutex<Log>>;

async fn receive(State(log): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    let mut log = log.lock().unwrap();
    log.bodies.push(body.clone());
    log.authorization = headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
    assert_eq!(headers[header::CONTENT_TYPE], "application/json");
    if let Some(answer) = log.answers.pop_front() {
        return answer;
    }
    let items: Vec<Item> = serde_json::from_slice(&body).unwrap();
    let mut acknowledgements = Vec::new();
    for item in &items {
        let key = PublicKey::from_pem(&item.public_key).unwrap();
        key.verify(item.data.get().as_bytes(), &STANDARD.decode(&item.signature).unwrap()).unwrap();
        log.accepted.push(item.data.get().to_owned());
        let height = log.accepted.len().div_ceil(2);
        acknowledgements.push(
            json!({"id": "00", "status": "sealed", "height": height, "position": 0, "block_hash": "00"}),
        );
    }
    Json(json!({"status": "success", "message": "Data added to blockchain", "items": acknowledgements}))
        .into_response()
}

fn refusal(status: u16, code: &str) -> Response {
    let body = json!({"status": "error", "message": "as the test says", "code": code});
    (StatusCode::from_u16(status).unwrap(), Json(body)).into_response()
}

struct TestReceiver {
    address: SocketAddr,
    log: Shared,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl TestReceiver {
    async fn start(address: &str, log: Shared) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/receive_data", post(receive)).with_state(Arc::clone(&log));
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(serve(listener, router, Limits::default(), async { _ = stopped.await }));
        Self { address, log, stop, task }
    }

    async fn answering(answers: impl IntoIterator<Item = Response>) -> Self {
        let log = Log { answers: answers.into_iter().collect(), ..Log::default() };
        Self::start("127.0.0.1:0", Arc::new(Mutex::new(log))).await
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap();
    }

    fn sender(&self, kind: KeyKind) -> Sender {
        let url = format!("http://{}", self.address).parse().unwrap();
        Sender::new(SigningKey::generate(kind).unwrap(), Receiver::new(url, None).unwrap()).unwrap()
    }
}

async fn wait_for(sender: &Sender, what: &str, condition: impl Fn(&Status) -> bool) -> Status {
    let wait = async {
        while !condition(&sender.status()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let waited = timeout(Duration::from_secs(60), wait).await;
    assert!(waited.is_ok(), "{what}: {:#?}", sender.status());
    sender.status()
}

fn job(items: u64, interval_s: f64) -> Job {
    Job::new(items, interval_s).unwrap()
}

#[tokio::test]
async fn every_kind_of_key_signs_what_the_receiver_accepts() {
    for kind in [KeyKind::Ed25519, KeyKind::Rsa, KeyKind::P256] {
        let receiver = TestReceiver::answering([]).await;
        let sender = receiver.sender(kind);
        let mut answers = sender.answers();
        sender.start(job(5, 3600.0));
        let answer = timeout(Duration::from_secs(60), answers.recv()).await.unwrap().unwrap();
        assert_eq!((answer.sealed, answer.pending, answer.heights), (5, 0, Some((1, 3))), "{kind}");
        let status = sender.status();
        assert_eq!((status.sent, status.accepted.sealed, status.waiting, status.retries), (5, 5, 0, 0));
        assert_eq!(receiver.log.lock().unwrap().accepted.len(), 5);
    }
}

#[tokio::test]
async fn repeats_the_same_bytes_until_the_receiver_takes_them() {
    let later = || {
        let mut answer = refusal(503, "store_unavailable");
        answer.headers_mut().insert(header::RETRY_AFTER, "0".parse().unwrap());
        answer
    };
    let receiver =
        TestReceiver::answering([later(), refusal(429, "overloaded"), refusal(408, "slow_request")]).await;
    let sender = receiver.sender(KeyKind::Rsa);
    sender.start(job(3, 3600.0));
    let status = wait_for(&sender, "accepted", |status| status.accepted.sealed == 3).await;
    assert_eq!((status.sent, status.retries, status.refused), (3, 3, 0));
    let error = status.last_error.unwrap();
    assert!(error.message.contains("slow_request: as the test says"), "{error:?}");
    assert_eq!(error.http_status, Some(408));
    let log = receiver.log.lock().unwrap();
    assert_eq!(log.bodies.len(), 4);
    assert!(log.bodies.iter().all(|body| *body == log.bodies[0]));
}

#[tokio::test]
async fn waits_as_long_as_it_is_asked_to() {
    let mut answer = refusal(503, "overloaded");
    answer.headers_mut().insert(header::RETRY_AFTER, "2".parse().unwrap());
    let receiver = TestReceiver::answering([answer]).await;
    let sender = receiver.sender(KeyKind::Ed25519);
    let begin = std::time::Instant::now();
    sender.start(job(1, 3600.0));
    wait_for(&sender, "accepted", |status| status.accepted.sealed == 1).await;
    assert!(begin.elapsed() >= Duration::from_secs(2));
}

#[tokio::test]
async fn readings_made_while_the_receiver_is_down_arrive_in_order() {
    let receiver = TestReceiver::answering([]).await;
    let (address, log) = (receiver.address.to_string(), Arc::clone(&receiver.log));
    let sender = receiver.sender(KeyKind::Ed25519);
    receiver.stop().await;
    sender.start(job(3, 0.05));
    let status = wait_for(&sender, "lists wait", |status| status.waiting >= 12 && status.retries >= 1).await;
    assert!(
        status.last_error.unwrap().message.contains("cannot be reached (Connection refused"),
        "{}",
        address
    );
    let receiver = TestReceiver::start(&address, log).await;
    let status = wait_for(&sender, "accepted", |status| status.accepted.sealed >= 15).await;
    assert_eq!(status.refused, 0);
    sender.stop();
    wait_for(&sender, "settled", |status| status.sent == status.accepted.sealed).await;
    let accepted = receiver.log.lock().unwrap().accepted.clone();
    let time = |text: &String| serde_json::from_str::<Value>(text).unwrap()["timestamp"].as_f64().unwrap();
    assert!(accepted.windows(2).all(|pair| time(&pair[0]) < time(&pair[1])), "none twice, none out of order");
}

#[tokio::test]
async fn devices_wait_once_the_queue_is_full_and_go_on_after() {
    let receiver = TestReceiver::answering([]).await;
    let (address, log) = (receiver.address.to_string(), Arc::clone(&receiver.log));
    let sender = receiver.sender(KeyKind::Ed25519);
    receiver.stop().await;
    sender.start(job(300, 0.001));
    let status = wait_for(&sender, "the devices wait", |status| status.paused).await;
    assert_eq!(status.waiting, 900);
    let _receiver = TestReceiver::start(&address, log).await;
    sender.start(job(300, 0.001));
    wait_for(&sender, "more than the queue held", |status| status.accepted.sealed > 900).await;
}

#[tokio::test]
async fn drops_what_is_refused_and_goes_on_with_the_next() {
    let receiver =
        TestReceiver::answering([refusal(400, "invalid_items"), refusal(413, "too_many_items")]).await;
    let sender = receiver.sender(KeyKind::Ed25519);
    sender.start(job(2, 0.0));
    let status = wait_for(&sender, "accepted", |status| status.accepted.sealed >= 2).await;
    assert_eq!((status.refused, status.retries), (4, 0));
    assert!(status.last_error.unwrap().message.contains("too_many_items"));
}

#[tokio::test]
async fn keeps_readings_where_only_the_setup_is_wrong() {
    let redirect =
        (StatusCode::PERMANENT_REDIRECT, [(header::LOCATION, "https://elsewhere/")]).into_response();
    let stranger = "<html>welcome</html>".into_response();
    let unanswered = Json(json!({"status": "success", "message": "", "items": []})).into_response();
    for (answer, cure) in [
        (refusal(401, "unauthorized"), "set RECEIVER_TOKEN"),
        (refusal(403, "foreign_origin"), "check RECEIVER_URL"),
        (refusal(404, "not_found"), "RECEIVER_URL is not the address of a receiver"),
        (refusal(421, "unknown_host"), "ALLOWED_HOSTS"),
        (redirect, "set RECEIVER_URL to where the receiver is now (https://elsewhere/)"),
        (stranger, "not as a receiver does"),
        (unanswered, "not as a receiver does"),
    ] {
        let receiver = TestReceiver::answering([answer]).await;
        let sender = receiver.sender(KeyKind::Ed25519);
        sender.start(job(1, 3600.0));
        let status = wait_for(&sender, cure, |status| status.last_error.is_some()).await;
        let message = status.last_error.unwrap().message;
        assert!(message.contains(cure), "{message}");
        assert_eq!((status.waiting, status.refused), (1, 0), "{cure}");
        sender.start(job(1, 3600.0));
        // By itself it would try again after 30 s.
        let again = wait_for(&sender, "a start tries again", |status| status.accepted.sealed >= 1);
        timeout(Duration::from_secs(20), again).await.expect("a start tries again at once");
        let log = receiver.log.lock().unwrap();
        assert_eq!(log.bodies[0], log.bodies[1]);
    }
}

#[tokio::test]
async fn takes_the_answer_of_the_python_original() {
    let answer = Json(json!({"message": "Data added to blockchain", "status": "success"})).into_response();
    let receiver = TestReceiver::answering([answer]).await;
    let sender = receiver.sender(KeyKind::Rsa);
    sender.start(job(2, 3600.0));
    let status = wait_for(&sender, "accepted", |status| status.accepted.pending == 2).await;
    assert_eq!((status.waiting, status.last_error), (0, None));
}

#[tokio::test]
async fn a_stop_ends_the_repetitions_and_keeps_the_list() {
    let receiver =
        TestReceiver::answering(std::iter::repeat_with(|| refusal(503, "overloaded")).take(1000)).await;
    let sender = receiver.sender(KeyKind::Ed25519);
    sender.start(job(1, 3600.0));
    wait_for(&sender, "repeats", |status| status.retries >= 2).await;
    assert!(sender.stop());
    tokio::time::sleep(Duration::from_millis(300)).await;
    let posts = receiver.log.lock().unwrap().bodies.len();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(receiver.log.lock().unwrap().bodies.len(), posts);
    assert_eq!(sender.status().waiting, 1);
}

#[tokio::test]
async fn sends_the_token_and_shows_it_nowhere() {
    let receiver = TestReceiver::answering([]).await;
    let url = format!("http://{}/", receiver.address).parse().unwrap();
    let target = Receiver::new(url, Some("a-secret-token")).unwrap();
    assert!(!format!("{target:?}").contains("secret"));
    let sender = Sender::new(SigningKey::generate(KeyKind::Ed25519).unwrap(), target).unwrap();
    assert!(!format!("{sender:?}").contains("secret"));
    sender.start(job(1, 3600.0));
    wait_for(&sender, "accepted", |status| status.accepted.sealed == 1).await;
    assert_eq!(receiver.log.lock().unwrap().authorization.as_deref(), Some("Bearer a-secret-token"));
    assert!(Receiver::new("http://127.0.0.1/".parse().unwrap(), Some("two\nlines")).is_err());
    assert!(Receiver::new("ftp://127.0.0.1/".parse().unwrap(), None).is_err());
}

struct Interface {
    address: SocketAddr,
    client: reqwest::Client,
}

impl Interface {
    /// Serves the routes of a sender that nobody receives from.
    async fn start(edge: Edge) -> Self {
        let receiver = Receiver::new("http://127.0.0.1:9".parse().unwrap(), None).unwrap();
        let sender = Sender::new(SigningKey::generate(KeyKind::Ed25519).unwrap(), receiver).unwrap();
        let listener = edge.bind("127.0.0.1:0".parse().unwrap(), "SENDER_LISTEN").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, router(sender, edge), Limits::default(), std::future::pending()));
        Self { address, client: reqwest::Client::builder().no_proxy().build().unwrap() }
    }

    fn post(&self, path: &str) -> reqwest::RequestBuilder {
        self.client.post(format!("http://{}{path}", self.address))
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let response = self.client.get(format!("http://{}{path}", self.address)).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }
}

async fn answer(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
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
    let status: Value = serde_json::from_str(&sender.get("/status").await.1).unwrap();
    assert_eq!((&status["running"], &status["number_of_items_to_send"]), (&json!(true), &json!(20)));
    assert_eq!(status["receiver_url"], "http://127.0.0.1:9/");
    assert_eq!(status["algorithm"], "Ed25519");
    let (code, stopped) = answer(sender.post("/stop_sending")).await;
    assert_eq!(code, 200);
    assert!(stopped["message"].as_str().unwrap().starts_with("Stopped sending"), "{stopped}");
    let status: Value = serde_json::from_str(&sender.get("/status").await.1).unwrap();
    assert_eq!(status["running"], false);
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
    let response =
        sender.client.get(format!("http://{}/start_sending", sender.address)).send().await.unwrap();
    assert_eq!((response.status().as_u16(), &response.headers()["allow"]), (405, &"POST".parse().unwrap()));
    let status: Value = serde_json::from_str(&sender.get("/status").await.1).unwrap();
    assert_eq!(status["running"], false);
}

#[tokio::test]
async fn asks_for_the_token_to_start_and_stop_alone() {
    let sender =
        Interface::start(Edge { api_token: Some(Token::new("0123456789abcdef")), ..Edge::default() }).await;
    for path in ["/start_sending", "/stop_sending"] {
        let (code, body) = answer(sender.post(path).json(&json!({}))).await;
        assert_eq!((code, &body["code"]), (401, &json!("unauthorized")), "{path}");
        let (code, _) = answer(sender.post(path).bearer_auth("0123456789abcdef").json(&json!({}))).await;
        assert_eq!(code, 200, "{path}");
    }
    for path in ["/status", "/healthz", "/openapi.json", "/apidocs/"] {
        assert_eq!(sender.get(path).await.0, 200, "{path}");
    }
    let (code, body) = answer(sender.post("/stop_sending").header("origin", "http://evil.example")).await;
    assert_eq!((code, &body["code"]), (403, &json!("foreign_origin")));
}

#[tokio::test]
async fn describes_its_routes() {
    let sender = Interface::start(Edge::default()).await;
    let openapi: Value = serde_json::from_str(&sender.get("/openapi.json").await.1).unwrap();
    let paths: Vec<_> = openapi["paths"].as_object().unwrap().keys().collect();
    assert_eq!(paths, ["/healthz", "/start_sending", "/status", "/stop_sending"]);
    let start = &openapi["paths"]["/start_sending"]["post"];
    assert_eq!(start["security"], json!([{}, {"token": []}]));
    assert_eq!(openapi["components"]["securitySchemes"]["token"]["scheme"], "bearer");
    let body = &openapi["components"]["schemas"]["StartSending"];
    assert_eq!(body["properties"]["number_of_items_to_send"]["maximum"], 8000);
    assert_eq!(body["required"], Value::Null);
}

fn config(data_dir: &Path, listen: SocketAddr, receiver: SocketAddr) -> SenderConfig {
    SenderConfig {
        data_dir: data_dir.to_owned(),
        key_kind: KeyKind::Ed25519,
        receiver: Receiver::new(format!("http://{receiver}").parse().unwrap(), None).unwrap(),
        listen,
        edge: Edge::default(),
        connections_max: 16,
    }
}

#[tokio::test]
async fn runs_until_it_is_told_to_end_and_keeps_its_key() {
    let receiver = TestReceiver::answering([]).await;
    let folder = tempfile::tempdir().unwrap();
    let mut keys = Vec::new();
    for _ in 0..2 {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let running =
            tokio::spawn(run(config(folder.path(), free, receiver.address), async { _ = stopped.await }));
        let sender =
            Interface { address: free, client: reqwest::Client::builder().no_proxy().build().unwrap() };
        let healthy = async {
            let health = format!("http://{free}/healthz");
            while sender.client.get(&health).send().await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(Duration::from_secs(60), healthy).await.unwrap();
        let seen = receiver.log.lock().unwrap().accepted.len();
        answer(sender.post("/start_sending").json(&json!({}))).await;
        let received = async {
            while receiver.log.lock().unwrap().accepted.len() == seen {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(Duration::from_secs(60), received).await.unwrap();
        let status: Value = serde_json::from_str(&sender.get("/status").await.1).unwrap();
        keys.push(status["key_id"].clone());
        let taken = run(config(folder.path(), free, receiver.address), std::future::pending()).await;
        assert!(taken.unwrap_err().to_string().contains("set SENDER_LISTEN to another port"));
        stop.send(()).unwrap();
        timeout(Duration::from_secs(60), running).await.unwrap().unwrap().unwrap();
    }
    assert_eq!(keys[0], keys[1]);
    assert!(folder.path().join(KEY_FILE).exists());
}
