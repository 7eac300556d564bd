//! `GET /metrics`: figures in the text format of Prometheus. No label takes values from a request: a stranger could make
//! their number grow.

use std::sync::{Arc, atomic::Ordering};

use axum::{
    extract::{MatchedPath, Request, State},
    http::header,
    middleware::Next,
    response::{IntoResponse, Response},
};
use liotbchain_http::ApiError;
use metrics::{counter, describe_counter, describe_gauge, gauge, with_local_recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};

use super::{Shared, add_checkpoint::to_error};

const REQUESTS: &str = "liotbchain_http_requests_total";
const COSIGNED: &str = "liotbchain_witness_cosignatures_total";
const POLLS_FAILED: &str = "liotbchain_witness_polls_failed_total";
const SIZE: &str = "liotbchain_witness_log_size";
const FORKS: &str = "liotbchain_witness_forks";
const EVIDENCE: &str = "liotbchain_witness_evidence";

/// What a witness counts; its own, so that two in one process do not count into each other's.
#[derive(Clone)]
pub(super) struct Metrics(Arc<PrometheusRecorder>);

impl Default for Metrics {
    fn default() -> Self {
        let recorder = Arc::new(PrometheusBuilder::new().build_recorder());
        with_local_recorder(&recorder, || {
            describe_counter!(REQUESTS, "Requests by route and status.");
            describe_counter!(COSIGNED, "Cosignatures made since the start of the process.");
            describe_counter!(POLLS_FAILED, "Looks at the public checkpoint of a log that failed.");
            describe_gauge!(SIZE, "Size of the tree that was cosigned last, by log.");
            describe_gauge!(FORKS, "Forks that are proven, by log.");
            describe_gauge!(EVIDENCE, "Pieces of evidence that are kept, forks with them, by log.");
        });
        Self(recorder)
    }
}

/// Counts every request by the route that it matched.
pub(super) async fn count_request(State(metrics): State<Metrics>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map(|route| route.as_str().to_owned());
    let response = next.run(request).await;
    let (route, status) =
        (route.unwrap_or_else(|| "other".to_owned()), response.status().as_u16().to_string());
    with_local_recorder(&metrics.0, || {
        counter!(REQUESTS, "route" => route, "status" => status).increment(1);
    });
    response
}

/// Returns the figures in the text format of Prometheus.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "operation",
    responses((status = OK, description = "The figures.", body = String, content_type = "text/plain")),
)]
pub(crate) async fn get_metrics(State(shared): State<Shared>) -> Result<impl IntoResponse, ApiError> {
    let Shared { witness, metrics } = shared;
    for log in witness.logs() {
        let latest = witness.latest(&log.origin).await.map_err(|error| to_error(&error))?;
        let counts = witness.evidence_counts(&log.origin).await;
        let (forks, evidence) = counts.map_err(|error| to_error(&error))?;
        with_local_recorder(&metrics.0, || {
            let set = |name: &'static str, number: u64| {
                gauge!(name, "origin" => log.origin.clone()).set(number as f64);
            };
            set(FORKS, forks);
            set(EVIDENCE, evidence);
            if let Some(latest) = latest {
                set(SIZE, latest.known.size);
            }
        });
    }
    let counts = witness.counts();
    with_local_recorder(&metrics.0, || {
        counter!(COSIGNED).absolute(counts.cosigned.load(Ordering::Relaxed));
        counter!(POLLS_FAILED).absolute(counts.polls_failed.load(Ordering::Relaxed));
    });
    let content_type = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    Ok((content_type, metrics.0.handle().render()))
}
