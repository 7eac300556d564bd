//! The sender's HTTP interface: readings in, what became of them out, and the Python original's `POST /start_sending`.

mod health;
mod job;
mod logs;
mod metrics;
mod readings;
mod set_aside;
mod status;

use std::sync::Arc;

use axum::{Router, extract::FromRef, middleware};
use liotbchain_http::{Edge, apidocs, guard};
use tokio::sync::Semaphore;
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use self::metrics::Metrics;
use crate::{gateway::Gateway, sender::Sender};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "liotbchain sender",
        description = "Takes the readings of devices, signs them, keeps them on its disk and sends them to a receiver.",
    ),
    tags(
        (name = "readings", description = "Readings in, what became of them out."),
        (name = "devices", description = "Simulated devices, for those who have none."),
        (name = "operation", description = "For those who watch the process."),
    ),
)]
struct Description;

/// What the routes share.
#[derive(Clone)]
struct Shared {
    sender: Sender,
    metrics: Metrics,
    /// A permit for each client that may follow the log.
    followers: Arc<Semaphore>,
}

impl FromRef<Shared> for Sender {
    fn from_ref(shared: &Shared) -> Self {
        shared.sender.clone()
    }
}

impl FromRef<Shared> for Gateway {
    fn from_ref(shared: &Shared) -> Self {
        shared.sender.gateway().clone()
    }
}

/// Returns the routes of a sender, guarded.
pub fn router(sender: Sender, edge: Edge) -> Router {
    let shared = Shared {
        sender,
        metrics: Metrics::default(),
        followers: Arc::new(Semaphore::new(logs::CLIENTS_MAX)),
    };
    let (router, openapi) = OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(readings::post_readings))
        .routes(routes!(logs::get_logs))
        .routes(routes!(set_aside::get_set_aside))
        .routes(routes!(status::get_status))
        .routes(routes!(job::start_sending))
        .routes(routes!(job::stop_sending))
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(metrics::get_metrics))
        .with_state(shared.clone())
        .split_for_parts();
    // Counting is outermost, so that what the guard refuses is counted too.
    guard(router.merge(apidocs(openapi)), edge)
        .layer(middleware::from_fn_with_state(shared.metrics, metrics::count_request))
}
