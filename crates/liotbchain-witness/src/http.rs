//! The witness's HTTP interface: the one route of the protocol, and what there is to see.

mod add_checkpoint;
mod metrics;
mod show;

use axum::{Router, extract::FromRef, middleware};
use liotbchain_http::{Edge, apidocs, guard, problems_below};
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use self::metrics::Metrics;
use crate::witness::Witness;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "liotbchain witness",
        description = "Cosigns the checkpoints of logs whose history only grows (c2sp.org/tlog-witness).",
    ),
    tags(
        (name = "witness", description = "For logs."),
        (name = "evidence", description = "What was cosigned, and what was kept against a log."),
        (name = "operation", description = "For those who watch the process."),
    ),
)]
struct Description;

#[derive(Clone)]
struct Shared {
    witness: Witness,
    metrics: Metrics,
}

impl FromRef<Shared> for Witness {
    fn from_ref(shared: &Shared) -> Self {
        shared.witness.clone()
    }
}

/// Returns the routes of a witness, guarded. The token of the edge is not asked for: the protocol has none.
pub fn router(witness: Witness, edge: Edge) -> Router {
    let shared = Shared { witness, metrics: Metrics::default() };
    let (router, openapi) = OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(add_checkpoint::add_checkpoint))
        .routes(routes!(show::get_home))
        .routes(routes!(show::get_logs))
        .routes(routes!(show::get_evidence))
        .routes(routes!(show::get_evidence_file))
        .routes(routes!(show::healthz))
        .routes(routes!(metrics::get_metrics))
        .with_state(shared.clone())
        .split_for_parts();
    let edge = Edge { api_token: None, ..edge };
    // Counting is outermost, so that what the guard refuses is counted too.
    problems_below(guard(router.merge(apidocs(openapi)), edge), "")
        .layer(middleware::from_fn_with_state(shared.metrics, metrics::count_request))
}
