//! A receiver on a free port, and a client for it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use liotbchain_http::{Edge, Limits};
use liotbchain_node::{Ledger, LedgerConfig};
use liotbchain_server::ReceiverConfig;
use liotbchain_store::{OpenOptions, Store};
use reqwest::{Client, RequestBuilder, Response, StatusCode, header};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{sync::oneshot, task::JoinHandle};

pub struct Running {
    pub address: SocketAddr,
    pub ledger: Ledger,
    pub client: Client,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

/// Mines blocks of two at no difficulty worth the name.
pub fn ledger_config() -> LedgerConfig {
    LedgerConfig { mining_threads: 1, ..LedgerConfig::default() }
}

pub fn receiver_config() -> ReceiverConfig {
    ReceiverConfig {
        limits: Limits { shutdown_time: Duration::from_secs(1), ..Limits::default() },
        // A busy machine may take longer than the default.
        seal_wait: Duration::from_secs(60),
        ..Default::default()
    }
}

pub async fn memory() -> Arc<dyn Store> {
    liotbchain_store::open("memory:", "".as_ref(), &OpenOptions::default()).await.unwrap()
}

pub async fn sqlite() -> (Arc<dyn Store>, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let options = OpenOptions { timeout: Duration::from_secs(2), ..OpenOptions::default() };
    (liotbchain_store::open("sqlite:chain.db", folder.path(), &options).await.unwrap(), folder)
}

impl Running {
    pub async fn start() -> Self {
        Self::with(memory().await, ledger_config(), receiver_config()).await
    }

    pub async fn with(store: Arc<dyn Store>, ledger: LedgerConfig, config: ReceiverConfig) -> Self {
        let ledger = Ledger::open(store, ledger).await.unwrap();
        let listener = Edge::default().bind("127.0.0.1:0".parse().unwrap(), "RECEIVER_LISTEN").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let shutdown = async { _ = stopped.await };
        let serving = tokio::spawn(liotbchain_server::serve(config, ledger.clone(), listener, shutdown));
        let client = Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        Self { address, ledger, client, stop, serving }
    }

    /// Ends both, as the program does.
    pub async fn stop(self) {
        self.stop.send(()).unwrap();
        self.serving.await.unwrap();
        self.ledger.shutdown().await;
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub async fn get(&self, path: &str) -> Response {
        self.client.get(self.url(path)).send().await.unwrap()
    }

    pub async fn get_json(&self, path: &str) -> Value {
        let response = self.get(path).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        json(response).await
    }

    pub fn post(&self, body: impl Into<reqwest::Body>) -> RequestBuilder {
        let request = self.client.post(self.url("/receive_data"));
        request.header(header::CONTENT_TYPE, "application/json").body(body)
    }

    /// Sends a list of items that must be taken, and returns the whole answer.
    pub async fn take(&self, items: &[String]) -> Value {
        let response = self.post(format!("[{}]", items.join(","))).send().await.unwrap();
        let status = response.status();
        let answer = json(response).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        answer
    }

    /// Sends transactions to `/v1`.
    pub fn post_v1(&self, body: impl Into<reqwest::Body>) -> RequestBuilder {
        let request = self.client.post(self.url("/v1/transactions"));
        request.header(header::CONTENT_TYPE, "application/json").body(body)
    }

    /// Sends a body that must be refused, and returns status, code and the whole answer.
    pub async fn refuse(&self, body: impl Into<reqwest::Body>) -> (u16, String, Value) {
        refused(self.post(body).send().await.unwrap()).await
    }
}

/// Checks the shape that all refusals below `/v1` have, and returns status, code and the whole answer.
pub async fn problem(response: Response) -> (u16, String, Value) {
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
    let status = response.status();
    let problem: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
    assert_eq!(problem["type"], "about:blank", "{problem}");
    assert_eq!(problem["title"], status.canonical_reason().unwrap(), "{problem}");
    assert_eq!(problem["status"], status.as_u16(), "{problem}");
    assert!(problem["detail"].as_str().unwrap().len() > 10, "{problem}");
    assert_eq!(problem["request_id"].is_string(), status.is_server_error(), "{problem}");
    (status.as_u16(), problem["code"].as_str().unwrap().to_owned(), problem)
}

pub async fn json(response: Response) -> Value {
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
    serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
}

/// Checks the shape that all refusals have.
pub async fn refused(response: Response) -> (u16, String, Value) {
    let status = response.status().as_u16();
    let answer = json(response).await;
    assert_eq!(answer["status"], "error", "{answer}");
    assert!(answer["message"].as_str().unwrap().len() > 10, "{answer}");
    (status, answer["code"].as_str().unwrap().to_owned(), answer)
}
