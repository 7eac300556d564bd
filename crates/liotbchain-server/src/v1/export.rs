//! `GET /v1/export`: the whole chain, for whoever wants to check or keep it, streamed.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use liotbchain_core::Height;
use liotbchain_node::{Export, TransferError};

use super::conditional::{REVALIDATE, Validator};
use crate::{error::ServerError, state::Shared};

/// Blocks that one read takes at most.
const PAGE_BLOCKS: u32 = 256;
/// Bytes of payload that one read takes at most, but for its first block: what a reader who stands still costs.
const PAGE_BYTES: usize = 128 << 10;

/// Returns all blocks of the best chain up to the tip of now, with the keys that verify them.
///
/// One JSON object a line, as docs/chain-format.md describes. The last line, of type `end`, tells how many blocks and
/// transactions stand above it and which block is the last. An answer that could not be completed breaks off without it.
#[utoipa::path(
    get,
    path = "/v1/export",
    operation_id = "get_export",
    tag = "v1",
    params(("If-None-Match" = Option<String>, Header, description = "The `ETag` of an export that the client has.")),
    responses(
        (
            status = OK,
            description = "The chain.",
            body = String,
            content_type = "application/x-ndjson",
            headers(("ETag" = String, description = "The hash of the last block, in quotation marks.")),
        ),
        (status = NOT_MODIFIED, description = "The chain is as long as the client knows it."),
    ),
)]
pub(crate) async fn get_export(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
) -> Result<Response, ServerError> {
    let begun = Export::begin(shared.ledger.store()).await;
    let mut export = begun.map_err(|error| refused(error, 0))?;
    let tip = export.tip();
    let validator = Validator::new(tip, REVALIDATE);
    if let Some(not_modified) = validator.not_modified(&headers) {
        return Ok(not_modified);
    }
    // What fails here is still an answer, and no body that breaks off.
    let first = page(&mut export).await?;
    let rest =
        stream::try_unfold((export, shared), async |(mut export, shared)| match page(&mut export).await {
            Ok(lines) => Ok(lines.map(|lines| (lines, (export, shared)))),
            Err(error) => {
                tracing::warn!(%error, "GET /v1/export broke off");
                if error.is_by_store() {
                    shared.metrics.count_store_error();
                }
                Err(error)
            }
        });
    let body = Body::from_stream(stream::iter(first.map(Ok)).chain(rest));
    let name = format!("attachment; filename=\"chain-{}.ndjson\"", &tip.to_string()[..16]);
    let described =
        [(header::CONTENT_TYPE, "application/x-ndjson".to_owned()), (header::CONTENT_DISPOSITION, name)];
    Ok((described, validator.headers(), body).into_response())
}

async fn page(export: &mut Export) -> Result<Option<Bytes>, ServerError> {
    let lines = export.page(PAGE_BLOCKS, PAGE_BYTES).await;
    let lines = lines.map_err(|error| refused(error, export.next_height()))?;
    Ok(lines.map(Bytes::from))
}

fn refused(error: TransferError, next: Height) -> ServerError {
    match error {
        TransferError::Store(error) => error.into(),
        TransferError::Reorganised => ServerError::Moved(next),
        // An export reads and writes no file and no export.
        _ => ServerError::Internal("the chain is gone"),
    }
}
