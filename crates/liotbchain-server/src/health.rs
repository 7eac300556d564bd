//! `GET /healthz` and `GET /readyz`: for those who watch the process.

use std::{sync::Arc, time::Duration};

use axum::{Json, extract::State};
use liotbchain_http::ErrorBody;
use liotbchain_node::{LedgerError, Sealing};
use serde::Serialize;
use tokio::time::timeout;
use utoipa::ToSchema;

use crate::{error::ServerError, state::Shared};

/// How long a probe waits for the store.
const PING_MAX: Duration = Duration::from_secs(3);

/// The process lives.
#[derive(Serialize, ToSchema)]
pub(crate) struct Health {
    /// Always `ok`.
    #[schema(example = "ok")]
    status: &'static str,
}

/// The receiver takes items.
#[derive(Serialize, ToSchema)]
pub(crate) struct Readiness {
    /// Always `ready`.
    #[schema(example = "ready")]
    status: &'static str,
    /// What sealing is at: `idle`, `working`, `mining_failed`, `store_down`, or `elsewhere`, where another receiver
    /// on the same store seals.
    #[schema(example = "idle")]
    sealing: &'static str,
}

/// Answers as long as the process lives.
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "operation",
    responses((status = OK, description = "The process lives.", body = Health)),
)]
pub(crate) async fn healthz() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Asks the store whether it answers.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "operation",
    responses(
        (status = OK, description = "The store answers, items are taken.", body = Readiness),
        (status = SERVICE_UNAVAILABLE, description = "The store does not answer.", body = ErrorBody),
    ),
)]
pub(crate) async fn readyz(State(shared): State<Arc<Shared>>) -> Result<Json<Readiness>, ServerError> {
    let ping = timeout(PING_MAX, shared.ledger.store().ping());
    ping.await.map_err(|_| LedgerError::Slow(PING_MAX))??;
    Ok(Json(Readiness { status: "ready", sealing: sealing_name(&shared.ledger.status().sealing) }))
}

pub(crate) fn sealing_name(sealing: &Sealing) -> &'static str {
    match sealing {
        Sealing::Idle => "idle",
        Sealing::Working => "working",
        Sealing::MiningFailed { .. } => "mining_failed",
        Sealing::StoreDown { .. } => "store_down",
        Sealing::Elsewhere => "elsewhere",
    }
}
