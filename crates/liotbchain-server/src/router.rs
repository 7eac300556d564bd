//! The routes: a table of contents.

use std::sync::Arc;

use axum::{Router, middleware, routing::get};
use liotbchain_http::{apidocs, guard};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{chain, health, home, metrics, openapi, receive, state::Shared, validate};

pub(crate) fn router(shared: Arc<Shared>) -> Router {
    let (routes, openapi) = OpenApiRouter::with_openapi(openapi::description())
        .routes(routes!(receive::receive_data))
        .routes(routes!(chain::get_chain))
        .routes(routes!(validate::get_validate))
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(metrics::get_metrics))
        .split_for_parts();
    let routes = routes.route("/", get(home::home)).with_state(Arc::clone(&shared)).merge(apidocs(openapi));
    // Counting is outermost, so that what the guard refuses is counted too.
    guard(routes, shared.config.edge.clone())
        .layer(middleware::from_fn_with_state(shared, metrics::count_request))
}
