//! `GET /metrics`: figures in the text format of Prometheus.
//!
//! Every receiver keeps its own, so that two in one process do not count into each other's. No label takes values from
//! a request: a stranger could make their number grow.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{MatchedPath, Request, State},
    http::header,
    middleware::Next,
    response::{IntoResponse, Response},
};
use liotbchain_node::{LedgerStatus, SealedBlock};
use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram, with_local_recorder,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusRecorder};
use tokio::{
    sync::broadcast::{self, error::RecvError},
    time,
};

use crate::{
    error::{ServerError, StoreFailed},
    state::Shared,
};

const REQUESTS: &str = "liotbchain_http_requests_total";
const TRANSACTIONS: &str = "liotbchain_transactions_total";
const ADMIT_SECONDS: &str = "liotbchain_admit_seconds";
const BLOCKS_SEALED: &str = "liotbchain_blocks_sealed_total";
const TRANSACTIONS_SEALED: &str = "liotbchain_transactions_sealed_total";
const MINING_ATTEMPTS: &str = "liotbchain_mining_attempts_total";
const STORE_ERRORS: &str = "liotbchain_store_errors_total";
const HEIGHT: &str = "liotbchain_height";
const PENDING: &str = "liotbchain_pending";

/// Upper bounds of the histogram: from a commit in memory to the longest wait for a block.
const ADMIT_BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];
/// How often observations are summed up. They pile up until then if nobody asks for the metrics.
const UPKEEP: Duration = Duration::from_secs(5);

/// What a receiver counts.
#[derive(Clone)]
pub(crate) struct Metrics {
    recorder: Arc<PrometheusRecorder>,
    accepted: Counter,
    refused: Counter,
    admit_seconds: Histogram,
    blocks_sealed: Counter,
    transactions_sealed: Counter,
    mining_attempts: Counter,
    store_errors: Counter,
    height: Gauge,
    pending: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let builder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Full(ADMIT_SECONDS.to_owned()), &ADMIT_BUCKETS)
            .expect("there are buckets");
        let recorder = Arc::new(builder.build_recorder());
        with_local_recorder(&recorder, || {
            describe();
            Self {
                recorder: Arc::clone(&recorder),
                accepted: counter!(TRANSACTIONS, "outcome" => "accepted"),
                refused: counter!(TRANSACTIONS, "outcome" => "refused"),
                admit_seconds: histogram!(ADMIT_SECONDS),
                blocks_sealed: counter!(BLOCKS_SEALED),
                transactions_sealed: counter!(TRANSACTIONS_SEALED),
                mining_attempts: counter!(MINING_ATTEMPTS),
                store_errors: counter!(STORE_ERRORS),
                height: gauge!(HEIGHT),
                pending: gauge!(PENDING),
            }
        })
    }
}

fn describe() {
    describe_counter!(REQUESTS, "Requests by route and status.");
    describe_counter!(TRANSACTIONS, "Items of lists that were accepted (repeated ones too) or refused.");
    describe_histogram!(ADMIT_SECONDS, "Seconds from a verified list to its acknowledgement.");
    describe_counter!(BLOCKS_SEALED, "Blocks that this receiver mined and stored.");
    describe_counter!(TRANSACTIONS_SEALED, "Transactions in them.");
    describe_counter!(MINING_ATTEMPTS, "Nonces tried for them.");
    describe_counter!(STORE_ERRORS, "Requests that failed because the store did.");
    describe_gauge!(HEIGHT, "Height of the chain.");
    describe_gauge!(PENDING, "Transactions that wait to be mined.");
}

impl Metrics {
    /// Counts the items of a list that was acknowledged.
    pub(crate) fn count_accepted(&self, items: usize, after: Duration) {
        self.accepted.increment(items as u64);
        self.admit_seconds.record(after);
    }

    /// Counts the items of a list that was refused; a body that holds no list has none.
    pub(crate) fn count_refused(&self, error: &ServerError) {
        self.refused.increment(error.refused_items() as u64);
    }

    /// Counts a failure of the store.
    pub(crate) fn count_store_error(&self) {
        self.store_errors.increment(1);
    }

    /// Counts the blocks that the ledger seals, until the ledger is gone.
    pub(crate) async fn count_blocks(self, mut sealed: broadcast::Receiver<SealedBlock>) {
        let mut upkeep = time::interval(UPKEEP);
        loop {
            tokio::select! {
                block = sealed.recv() => match block {
                    Ok(block) => {
                        self.blocks_sealed.increment(1);
                        self.transactions_sealed.increment(block.transactions as u64);
                        self.mining_attempts.increment(block.attempts);
                    }
                    Err(RecvError::Lagged(missed)) => self.blocks_sealed.increment(missed),
                    Err(RecvError::Closed) => return,
                },
                _ = upkeep.tick() => self.recorder.handle().run_upkeep(),
            }
        }
    }

    fn count_request(&self, route: Option<&str>, response: &Response) {
        let (route, status) = (route.unwrap_or("other").to_owned(), response.status().as_u16().to_string());
        with_local_recorder(&self.recorder, || {
            counter!(REQUESTS, "route" => route, "status" => status).increment(1);
        });
        if response.extensions().get::<StoreFailed>().is_some() {
            self.count_store_error();
        }
    }

    fn render(&self, status: &LedgerStatus) -> String {
        self.height.set(f64::from(status.height));
        self.pending.set(status.pending as f64);
        self.recorder.handle().render()
    }
}

/// Counts every request by the route that it matched.
pub(crate) async fn count_request(
    State(shared): State<Arc<Shared>>,
    request: Request,
    next: Next,
) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    shared.metrics.count_request(route.as_ref().map(MatchedPath::as_str), &response);
    response
}

/// Returns the figures in the text format of Prometheus.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "operation",
    responses((status = OK, description = "The figures.", body = String, content_type = "text/plain")),
)]
pub(crate) async fn get_metrics(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    let content_type = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (content_type, shared.metrics.render(&shared.ledger.status()))
}
