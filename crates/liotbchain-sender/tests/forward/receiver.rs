//! A receiver that does as the test says, and else as a receiver should.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::Instant,
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{RawQuery, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use liotbchain_core::{BlockHash, KeyId, PublicKey, Statement, TransactionId};
use liotbchain_http::{Limits, serve};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

use crate::gateway::reading_of;

/// One answer to a list, instead of what should be answered.
pub type Answer = Box<dyn FnOnce(&[Item]) -> Response + Send>;

/// Decides of every list; none leaves it to what should be answered.
pub type Rule = Box<dyn FnMut(&[Item]) -> Option<Response> + Send>;

/// Decides what is said of a list that was taken.
pub type Afterthought = Box<dyn FnMut(&[TransactionId]) -> Option<Response> + Send>;

#[derive(Default)]
pub struct Log {
    pub rule: Option<Rule>,
    pub afterthought: Option<Afterthought>,
    /// Items that are refused by their index, by their reading.
    pub refused: HashSet<String>,
    /// What `GET /v1/status` says in `Accept-Encoding`.
    pub offers: Option<&'static str>,
    pub keys: HashMap<KeyId, PublicKey>,
    pub posts: Vec<Post>,
    /// Readings in the order in which they were first taken.
    pub taken: Vec<String>,
    pub ids: HashSet<TransactionId>,
}

#[derive(Debug, Clone)]
pub struct Post {
    pub items: Vec<Item>,
    pub headers: HeaderMap,
    pub query: Option<String>,
    pub at: Instant,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Item {
    pub payload: String,
    pub signature: String,
    pub public_key: Option<String>,
    pub key_id: Option<KeyId>,
}

impl Item {
    pub fn reading(&self) -> String {
        reading_of(&self.payload)
    }
}

pub struct TestReceiver {
    pub address: std::net::SocketAddr,
    pub log: Arc<Mutex<Log>>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl TestReceiver {
    pub async fn start() -> Self {
        Self::start_at("127.0.0.1:0", Log::default()).await
    }

    /// A receiver that gives these answers first.
    pub async fn answering(answers: impl IntoIterator<Item = Answer>) -> Self {
        let mut answers: VecDeque<Answer> = answers.into_iter().collect();
        Self::ruled(move |items| answers.pop_front().map(|answer| answer(items))).await
    }

    pub async fn ruled(rule: impl FnMut(&[Item]) -> Option<Response> + Send + 'static) -> Self {
        Self::start_at("127.0.0.1:0", Log { rule: Some(Box::new(rule)), ..Log::default() }).await
    }

    pub async fn start_at(address: &str, log: Log) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let log = Arc::new(Mutex::new(log));
        let router = Router::new()
            .route("/v1/status", get(status))
            .route("/v1/transactions", post(receive))
            .with_state(Arc::clone(&log));
        let (stop, stopped) = oneshot::channel();
        let limits = Limits { shutdown_time: std::time::Duration::from_secs(1), ..Limits::default() };
        let task = tokio::spawn(serve(listener, router, limits, async { _ = stopped.await }));
        Self { address, log, stop, task }
    }

    pub async fn stop(self) -> Log {
        _ = self.stop.send(());
        self.task.await.unwrap();
        std::mem::take(&mut self.log.lock().unwrap())
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap()
    }
}

async fn status(State(log): State<Arc<Mutex<Log>>>) -> Response {
    let mut response = Json(json!({})).into_response();
    if let Some(offers) = log.lock().unwrap().offers {
        response.headers_mut().insert(header::ACCEPT_ENCODING, offers.parse().unwrap());
    }
    response
}

async fn receive(
    State(log): State<Arc<Mutex<Log>>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut log = log.lock().unwrap();
    assert_eq!(headers[header::CONTENT_TYPE], "application/x-ndjson");
    let body = match headers.get(header::CONTENT_ENCODING) {
        Some(encoding) => {
            assert_eq!(encoding, "zstd");
            zstd::decode_all(&body[..]).unwrap()
        }
        None => body.to_vec(),
    };
    let lines = String::from_utf8(body).unwrap();
    let items: Vec<Item> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    log.posts.push(Post { items: items.clone(), headers, query, at: Instant::now() });
    let ruled = log.rule.as_mut().and_then(|rule| rule(&items));
    ruled.unwrap_or_else(|| log.receive(&items))
}

impl Log {
    /// Answers as a receiver should.
    pub fn receive(&mut self, items: &[Item]) -> Response {
        let mut faults = Vec::new();
        let mut taken = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let sent = item.public_key.as_ref().map(|pem| PublicKey::from_pem(pem).unwrap());
            let key = sent.clone().or_else(|| self.keys.get(&item.key_id.unwrap()).cloned());
            let Some(key) = key else {
                faults.push(fault(index, "key_not_known"));
                continue;
            };
            let signature = STANDARD.decode(&item.signature).unwrap();
            key.verify(item.payload.as_bytes(), &signature).unwrap();
            let statement = Statement { key_id: key.key_id(), payload: item.payload.clone(), signature };
            if self.refused.contains(&item.reading()) {
                faults.push(fault(index, "bad_payload"));
            }
            taken.push((statement.id(), item.reading(), key));
        }
        if !faults.is_empty() {
            return refusal_of(400, "invalid_items", &faults);
        }
        let ids: Vec<_> = taken.iter().map(|(id, ..)| *id).collect();
        for (id, reading, key) in taken {
            self.keys.insert(key.key_id(), key);
            if self.ids.insert(id) {
                self.taken.push(reading);
            }
        }
        let changed = self.afterthought.as_mut().and_then(|afterthought| afterthought(&ids));
        changed.unwrap_or_else(|| acknowledge(&ids))
    }
}

fn fault(index: usize, code: &str) -> Value {
    json!({"index": index, "code": code, "message": "as the test says"})
}

pub fn id_of(item: &Item) -> TransactionId {
    let key_id = item
        .key_id
        .unwrap_or_else(|| PublicKey::from_pem(item.public_key.as_ref().unwrap()).unwrap().key_id());
    Statement { key_id, payload: item.payload.clone(), signature: Vec::new() }.id()
}

/// Says that these are in a block.
pub fn acknowledge(ids: &[TransactionId]) -> Response {
    let sealed = |(position, id): (usize, &TransactionId)| json!({"id": id, "status": "sealed", "height": 7, "position": position, "block_hash": BlockHash([7; 32])});
    let items: Vec<_> = ids.iter().enumerate().map(sealed).collect();
    (StatusCode::CREATED, Json(json!({"items": items}))).into_response()
}

fn refusal_of(status: u16, code: &str, items: &[Value]) -> Response {
    let problem = json!({"type": "about:blank", "title": "", "status": status, "detail": "as the test says",
        "code": code, "items": items});
    (StatusCode::from_u16(status).unwrap(), Json(problem)).into_response()
}

pub fn refusal(status: u16, code: &'static str) -> Answer {
    Box::new(move |_| refusal_of(status, code, &[]))
}

pub fn saying(response: impl IntoResponse + Send + 'static) -> Answer {
    Box::new(move |_| response.into_response())
}

/// An overload that passes after so many seconds.
pub fn busy(seconds: u64) -> Answer {
    Box::new(move |_| {
        let mut response = refusal_of(503, "overloaded", &[]);
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        response
    })
}
