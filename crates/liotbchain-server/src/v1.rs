//! `/v1`: the interface for programs. The seed's routes beside it keep their form; this one may grow without breaking
//! anybody.
//!
//! Handlers return [`crate::error::ServerError`] like all others: [`liotbchain_http::problems_below`] gives every refusal
//! below `/v1` the form of RFC 9457, whoever refused.

mod block_json;
pub(crate) mod blocks;
pub(crate) mod bounds;
pub(crate) mod conditional;
mod cursor;
pub(crate) mod events;
pub(crate) mod export;
pub(crate) mod keys;
mod page;
pub(crate) mod proofs;
pub(crate) mod status;
pub(crate) mod submission;
pub(crate) mod transactions;
pub(crate) mod validation;

use std::sync::Arc;

use axum::{
    http::{Extensions, HeaderMap, StatusCode, Version},
    middleware::map_response,
};
use tower_http::{
    CompressionLevel,
    compression::{
        CompressionLayer, Predicate,
        predicate::{NotForContentType, SizeAbove},
    },
};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::state::Shared;

/// Shorter answers fit into one packet as they are.
const COMPRESSED_MIN: u16 = 1024;

/// Returns the routes.
pub(crate) fn routes() -> OpenApiRouter<Arc<Shared>> {
    // An event must not wait in a compressor for the next one.
    let worthwhile = SizeAbove::new(COMPRESSED_MIN).and(NotForContentType::SSE).and(is_success);
    let compression = CompressionLayer::new().quality(CompressionLevel::Fastest).compress_when(worthwhile);
    OpenApiRouter::new()
        .routes(routes!(transactions::post_transactions))
        .routes(routes!(transactions::get_transaction))
        .routes(routes!(blocks::list_blocks))
        .routes(routes!(blocks::get_block))
        .routes(routes!(keys::list_keys))
        .routes(routes!(keys::get_key))
        .routes(routes!(proofs::get_receipt))
        .routes(routes!(proofs::get_tlog_proof))
        .routes(routes!(proofs::get_key_history))
        .routes(routes!(proofs::get_consistency))
        .routes(routes!(proofs::get_inclusion))
        .routes(routes!(status::get_status))
        .routes(routes!(events::get_events))
        .routes(routes!(export::get_export))
        .routes(routes!(
            validation::get_validation,
            validation::start_validation,
            validation::cancel_validation
        ))
        .layer(compression)
        .layer(map_response(conditional::weaken_etag))
}

/// Refusals get their form after the compressor has passed them on.
fn is_success(status: StatusCode, _: Version, _: &HeaderMap, _: &Extensions) -> bool {
    status.is_success()
}
