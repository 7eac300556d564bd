//! `GET /healthz` and `GET /readyz`: for those who watch the process.

use axum::{Json, extract::State, http::StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{readiness::Readiness, sender::Sender};

/// The process lives.
#[derive(Serialize, ToSchema)]
pub(crate) struct Health {
    /// Always `ok`.
    #[schema(example = "ok")]
    status: &'static str,
}

/// Answers as long as the process lives.
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "operation",
    responses((status = 200, description = "The process lives.", body = Health)),
)]
pub(crate) async fn healthz() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Says whether readings are taken. A receiver that is away is no reason for 503: the queue is there for that, and
/// whoever turned devices away because of it would lose what the queue would have kept.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "operation",
    responses(
        (status = 200, description = "Readings are taken.", body = Readiness),
        (status = 503, description = "They are not: the queue is full, or cannot be written.", body = Readiness),
    ),
)]
pub(crate) async fn readyz(State(sender): State<Sender>) -> (StatusCode, Json<Readiness>) {
    let readiness = sender.readiness();
    let status = if readiness.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness))
}
