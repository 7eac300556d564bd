//! `GET /metrics`: figures in the text format of Prometheus.
//!
//! They are those of `GET /status`, so that the two never disagree, and a count of requests. No label takes values from
//! a request: a stranger could make their number grow.

use std::sync::Arc;

use axum::{
    extract::{MatchedPath, Request, State},
    http::header,
    middleware::Next,
    response::{IntoResponse, Response},
};
use metrics::{counter, describe_counter, describe_gauge, gauge, with_local_recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};

use super::Shared;
use crate::status::Status;

const REQUESTS: &str = "liotbchain_http_requests_total";
const READINGS: &str = "liotbchain_sender_readings_total";
const RETRIES: &str = "liotbchain_sender_retries_total";
const SET_ASIDE: &str = "liotbchain_sender_set_aside";
const WAITING: &str = "liotbchain_sender_queue_waiting";
const QUEUE_BYTES: &str = "liotbchain_sender_queue_bytes";
const QUEUE_BYTES_MAX: &str = "liotbchain_sender_queue_bytes_max";
const OLDEST_AGE: &str = "liotbchain_sender_queue_oldest_age_seconds";
const QUEUE_FAULT: &str = "liotbchain_sender_queue_fault";
const LAST_ANSWER: &str = "liotbchain_sender_last_acknowledgement_timestamp_seconds";
const CLOCK_OFFSET: &str = "liotbchain_sender_clock_offset_seconds";
const RECEIVER_REACHABLE: &str = "liotbchain_sender_receiver_reachable";
const BROKER_CONNECTED: &str = "liotbchain_sender_broker_connected";

/// What a sender counts; its own, so that two in one process do not count into each other's.
#[derive(Clone)]
pub(super) struct Metrics(Arc<PrometheusRecorder>);

impl Default for Metrics {
    fn default() -> Self {
        let recorder = Arc::new(PrometheusBuilder::new().build_recorder());
        with_local_recorder(&recorder, describe);
        Self(recorder)
    }
}

fn describe() {
    describe_counter!(REQUESTS, "Requests by route and status.");
    describe_counter!(READINGS, "Readings by what became of them since the start of the process.");
    describe_counter!(RETRIES, "Posts of readings that had been posted before.");
    describe_gauge!(SET_ASIDE, "Records that a receiver refused for good, in all.");
    describe_gauge!(WAITING, "Readings that wait on the disk.");
    describe_gauge!(QUEUE_BYTES, "Bytes of the queue's file in use.");
    describe_gauge!(QUEUE_BYTES_MAX, "Bytes that it may have.");
    describe_gauge!(OLDEST_AGE, "Seconds since the oldest reading that waits was received.");
    describe_gauge!(QUEUE_FAULT, "1 while the queue cannot be written.");
    describe_gauge!(LAST_ANSWER, "When a receiver last acknowledged readings, in seconds since 1970.");
    describe_gauge!(CLOCK_OFFSET, "Seconds that the receiver's clock is ahead of this machine's.");
    describe_gauge!(RECEIVER_REACHABLE, "1 if the last try to reach a receiver succeeded, 0 if not.");
    describe_gauge!(BROKER_CONNECTED, "1 while the MQTT broker is connected, 0 while not.");
}

impl Metrics {
    fn count_request(&self, route: Option<&str>, response: &Response) {
        let (route, status) = (route.unwrap_or("other").to_owned(), response.status().as_u16().to_string());
        with_local_recorder(&self.0, || {
            counter!(REQUESTS, "route" => route, "status" => status).increment(1);
        });
    }

    /// Puts the figures of the moment in, and returns all of them. What is not known yet is left out.
    fn render(&self, status: &Status) -> String {
        let readings =
            |outcome: &'static str, count: u64| counter!(READINGS, "outcome" => outcome).absolute(count);
        let number = |whole: u64| whole as f64;
        with_local_recorder(&self.0, || {
            readings("queued", status.queued);
            readings("duplicate", status.duplicates);
            readings("delivered", status.accepted.sealed + status.accepted.pending);
            readings("refused", status.refused);
            readings("dropped", status.dropped);
            counter!(RETRIES).absolute(status.retries);
            gauge!(SET_ASIDE).set(number(status.set_aside));
            gauge!(WAITING).set(number(status.queue.waiting));
            gauge!(QUEUE_BYTES).set(number(status.queue.bytes));
            gauge!(QUEUE_BYTES_MAX).set(number(status.queue.bytes_max));
            gauge!(OLDEST_AGE).set(status.queue.oldest_age_s.unwrap_or_default());
            gauge!(QUEUE_FAULT).set(f64::from(u8::from(status.queue.fault.is_some())));
            if let Some(answer) = &status.last_answer {
                gauge!(LAST_ANSWER).set(number(answer.timestamp_ms) / 1000.0);
            }
            if let Some(offset_ms) = status.clock_offset_ms {
                gauge!(CLOCK_OFFSET).set(offset_ms as f64 / 1000.0);
            }
            if let Some(reachable) = status.receiver_reachable {
                gauge!(RECEIVER_REACHABLE).set(f64::from(u8::from(reachable)));
            }
            if let Some(mqtt) = &status.mqtt {
                gauge!(BROKER_CONNECTED).set(f64::from(u8::from(mqtt.connected)));
            }
        });
        self.0.handle().render()
    }
}

/// Counts every request by the route that it matched.
pub(super) async fn count_request(State(metrics): State<Metrics>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    metrics.count_request(route.as_ref().map(MatchedPath::as_str), &response);
    response
}

/// Returns the figures in the text format of Prometheus.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "operation",
    responses((status = 200, description = "The figures.", body = String, content_type = "text/plain")),
)]
pub(crate) async fn get_metrics(State(Shared { sender, metrics, .. }): State<Shared>) -> impl IntoResponse {
    let content_type = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (content_type, metrics.render(&sender.status()))
}
