//! `POST /receive_data`: a list of signed items in, one acknowledgement an item out.

use std::{sync::Arc, time::Instant};

use axum::{
    Json,
    body::HttpBody,
    extract::{FromRequest, Request, State},
};
use bytes::Bytes;
use liotbchain_core::{BlockHash, Height, TransactionId};
use liotbchain_http::{ErrorBody, JsonBody};
use liotbchain_node::Submission;
use liotbchain_store::{NewTransaction, Status};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{error::ServerError, openapi::example_items, state::Shared, verify};

/// Bodies up to this size are verified where they arrive: a dozen of Ed25519 signatures takes half a millisecond, and
/// handing a list of two to another thread made its answer take a quarter longer.
pub(crate) const INLINE_BODY: usize = 4 << 10;

/// What was said, with its signature.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SignedItem {
    /// Any JSON value of at most 65,536 bytes.
    pub(crate) data: serde_json::Value,
    /// Base64 of the signature over the text of `data` as it stands in the request, or over Python's `json.dumps` of
    /// it: Ed25519, RSA-PSS with SHA-256, or ECDSA on P-256 with SHA-256.
    pub(crate) signature: String,
    /// The public key in PEM.
    pub(crate) public_key: String,
}

/// A list that is durable.
#[derive(Serialize, ToSchema)]
pub(crate) struct Received {
    /// Always `success`.
    #[schema(example = "success")]
    status: &'static str,
    /// Always the same, as the Python original says it.
    #[schema(example = "Data added to blockchain")]
    message: &'static str,
    /// One an item, in the order given.
    pub(crate) items: Vec<Acknowledgement>,
    /// There where mining gave a block up for now. Its transactions stay pending, and it is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) mining_failed: Option<MiningFailed>,
}

/// Where an item is. It is never lost and never on the chain twice.
#[derive(Serialize, ToSchema)]
pub(crate) struct Acknowledgement {
    /// The transaction's id: the same for the same statement by the same key.
    #[schema(value_type = String)]
    pub(crate) id: TransactionId,
    /// `sealed` in a block, or `pending`.
    #[schema(example = "sealed")]
    status: &'static str,
    /// Height of its block.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>, nullable = false)]
    height: Option<Height>,
    /// Place in its block, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>, nullable = false)]
    position: Option<u32>,
    /// Hash of its block.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, nullable = false)]
    block_hash: Option<BlockHash>,
}

/// Mining gave a block up for now.
#[derive(Serialize, ToSchema)]
pub(crate) struct MiningFailed {
    /// Nonces tried.
    attempts: u64,
}

impl From<Submission> for Received {
    fn from(submission: Submission) -> Self {
        let items = submission.acknowledgements.into_iter().map(|it| {
            let (status, place) = match it.status {
                Status::Sealed(place) => ("sealed", Some(place)),
                Status::Pending => ("pending", None),
            };
            Acknowledgement {
                id: it.id,
                status,
                height: place.map(|place| place.height),
                position: place.map(|place| place.position),
                block_hash: place.map(|place| place.block_hash),
            }
        });
        Self {
            status: "success",
            message: "Data added to blockchain",
            items: items.collect(),
            mining_failed: submission.mining_failed.map(|attempts| MiningFailed { attempts }),
        }
    }
}

/// Takes signed items, all or none, and answers once they are durable.
///
/// Where they fill blocks, the answer comes after these are mined, if that does not take too long. An item that was
/// taken before is acknowledged again. A single item may stand for a list of one.
#[utoipa::path(
    post,
    path = "/receive_data",
    tag = "chain",
    request_body(content = Vec<SignedItem>, example = json!(example_items())),
    responses(
        (status = OK, description = "All items are durable.", body = Received),
        (status = BAD_REQUEST, description = "Not a list of items, or some are at fault; none was taken.", body = ErrorBody),
        (status = UNAUTHORIZED, description = "The server asks for a token.", body = ErrorBody),
        (status = FORBIDDEN, description = "Sent by a page of another server.", body = ErrorBody),
        (status = REQUEST_TIMEOUT, description = "The body came too slowly.", body = ErrorBody),
        (status = PAYLOAD_TOO_LARGE, description = "The body, the list, or an item's data is too large.", body = ErrorBody),
        (status = UNSUPPORTED_MEDIA_TYPE, description = "Not said to be JSON, or compressed.", body = ErrorBody),
        (status = SERVICE_UNAVAILABLE, description = "Try again after the seconds that Retry-After says.", body = ErrorBody),
    ),
    security((), ("token" = [])),
)]
pub(crate) async fn receive_data(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<Json<Received>, ServerError> {
    // Kept to the end: what was made of the body takes memory until the ledger has it.
    let _room = shared.load.body(request.body().size_hint().exact()).await?;
    let JsonBody(body) = JsonBody::from_request(request, &()).await?;
    let transactions =
        decode_and_verify(&shared, body).await.inspect_err(|error| shared.metrics.count_refused(error))?;
    let count = transactions.len();
    let started = Instant::now();
    let submission = shared.ledger.submit(transactions, shared.config.seal_wait).await?;
    shared.metrics.count_accepted(count, started.elapsed());
    Ok(Json(submission.into()))
}

async fn decode_and_verify(shared: &Arc<Shared>, body: Bytes) -> Result<Vec<NewTransaction>, ServerError> {
    let work = |shared: &Shared, body: &[u8]| {
        verify::decode_and_verify(body, shared.config.item_limits(), &shared.keys)
    };
    if body.len() <= INLINE_BODY {
        return work(shared, &body);
    }
    let permit = shared.load.processor().await?;
    let shared = Arc::clone(shared);
    let verified = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        work(&shared, &body)
    });
    verified.await.map_err(|_| ServerError::Internal("verifying a list failed"))?
}
