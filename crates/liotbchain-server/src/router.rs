//! The routes: a table of contents.

use std::sync::Arc;

use axum::{Router, middleware, routing::get};
use liotbchain_http::{apidocs, guard, problems_below};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{chain, health, home, metrics, openapi, receive, state::Shared, tlog, v1, validate};

pub(crate) fn router(shared: Arc<Shared>) -> Router {
    let (routes, mut openapi) = OpenApiRouter::with_openapi(openapi::description())
        .routes(routes!(receive::receive_data))
        .routes(routes!(chain::get_chain))
        .routes(routes!(validate::get_validate))
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(metrics::get_metrics))
        .routes(routes!(tlog::get_checkpoint))
        .merge(v1::routes())
        .split_for_parts();
    openapi::add_common_answers(&mut openapi);
    // In the description the rest of a path is one parameter.
    let routes = routes.route("/tile/{level}/{*index}", get(tlog::get_tile));
    let routes = routes.route("/", get(home::home)).with_state(Arc::clone(&shared)).merge(apidocs(openapi));
    // Counting is outermost, so that what the guard refuses is counted too.
    problems_below(guard(routes, shared.config.edge.clone()), "/v1")
        .layer(middleware::from_fn_with_state(shared, metrics::count_request))
}
