//! `/v1/transactions`: signed texts in, and each one by its id.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Json,
    body::HttpBody,
    extract::{Path, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use liotbchain_core::{
    BlockHash, Content, Height, KeyId, TimestampMs, Transaction, TransactionId, hash::ContentHash,
};
use liotbchain_http::{
    ApiError, ContentEncoding, Parameters, Problem, bad_query, is_json, media_type, read_body,
};
use liotbchain_store::{NewTransaction, StoredTransaction};
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;
use utoipa::{IntoParams, ToSchema};

use super::{
    conditional::{REVALIDATE, Validator},
    submission::{Form, Submission},
};
use crate::{
    error::ServerError,
    openapi::{example_id, example_transactions},
    receive::{Acknowledgement, INLINE_BODY, MiningFailed, Received},
    state::Shared,
};

/// A text with its signature. One of `public_key` and `key_id` must be there.
#[derive(Serialize, ToSchema)]
#[schema(as = NewTransaction)]
pub(crate) struct NewTransactionJson {
    /// The exact text that was signed, at most 65,536 bytes: JSON, without a key that stands twice in one object.
    pub(crate) payload: String,
    /// Base64 of the signature over the UTF-8 of `payload`: Ed25519, RSA-PSS with SHA-256, or ECDSA on P-256 with
    /// SHA-256.
    pub(crate) signature: String,
    /// The public key in PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) public_key: Option<String>,
    /// The id of a public key that was sent before: SHA-256 of its SubjectPublicKeyInfo, in hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) key_id: Option<String>,
}

/// A list that is durable.
#[derive(Serialize, ToSchema)]
pub(crate) struct Accepted {
    /// One a transaction, in the order given.
    items: Vec<Acknowledgement>,
    /// There where mining gave a block up for now. Its transactions stay pending, and it is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    mining_failed: Option<MiningFailed>,
}

/// How long to wait.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct WaitQuery {
    /// Seconds that the answer may wait for the blocks that the request filled, at most the receiver's `SEAL_WAIT`; 0
    /// asks for the answer as soon as all is durable.
    #[param(minimum = 0, nullable = false)]
    wait: Option<f64>,
}

impl WaitQuery {
    fn within(&self, longest: Duration) -> Result<Duration, ServerError> {
        match self.wait {
            None => Ok(longest),
            // What is too long for a duration is too long to wait for.
            Some(seconds) if seconds >= 0.0 => {
                Ok(Duration::try_from_secs_f64(seconds).map_or(longest, |wait| wait.min(longest)))
            }
            Some(seconds) => Err(bad_query(&format!("wait is {seconds}: expected seconds from 0 up")).into()),
        }
    }
}

/// Takes signed texts, all or none, and answers once they are durable.
///
/// Where they fill blocks, the answer comes after these are mined, if that does not take too long. What was taken before
/// is acknowledged again. A single transaction may stand for a list of one.
#[utoipa::path(
    post,
    path = "/v1/transactions",
    operation_id = "post_transactions",
    tag = "v1",
    params(
        WaitQuery,
        ("Content-Encoding" = Option<String>, Header, description = "`gzip` or `zstd` where the body is compressed."),
    ),
    request_body(
        content(
            (Vec<NewTransactionJson> = "application/json", example = json!(example_transactions())),
            (String = "application/x-ndjson"),
        ),
        description = "A JSON list of transactions, or an object a line.",
    ),
    responses(
        (status = OK, description = "All were durable already.", body = Accepted),
        (
            status = CREATED,
            description = "All are durable, and some are new.",
            body = Accepted,
            headers(("Location" = String, description = "Where the transaction is, if it was one.")),
        ),
        (
            status = BAD_REQUEST,
            description = "Not a list of transactions (`not_json`, `not_utf8`, `too_deep`, `not_a_list`, `empty_list`, \
                           `broken_body`, `bad_query`), or some are at fault (`invalid_items`); none was taken.",
            body = Problem,
            content_type = "application/problem+json",
        ),
        (
            status = REQUEST_TIMEOUT,
            description = "`slow_request`: the body came too slowly.",
            body = Problem,
            content_type = "application/problem+json",
        ),
        (
            status = PAYLOAD_TOO_LARGE,
            description = "`body_too_large`, compressed or not, `too_many_items`, or `payload_too_large`.",
            body = Problem,
            content_type = "application/problem+json",
        ),
        (
            status = UNSUPPORTED_MEDIA_TYPE,
            description = "`unsupported_content_type` or `unsupported_encoding`.",
            body = Problem,
            content_type = "application/problem+json",
        ),
    ),
    security((), ("token" = [])),
)]
pub(crate) async fn post_transactions(
    State(shared): State<Arc<Shared>>,
    Parameters(query): Parameters<WaitQuery>,
    request: Request,
) -> Result<Response, ServerError> {
    let wait = query.within(shared.config.seal_wait)?;
    let form = form_of(request.headers())?;
    let encoding = ContentEncoding::of(request.headers())?;
    // Kept to the end: what was made of the body takes memory until the ledger has it.
    let mut _room = shared.load.body(request.body().size_hint().exact()).await?;
    let mut body = read_body(request).await?;
    if encoding != ContentEncoding::Identity {
        (body, _room) = unpack(&shared, encoding, body, _room).await?;
    }
    let verified = decode_and_verify(&shared, body, form).await;
    let transactions = verified.inspect_err(|error| shared.metrics.count_refused(error))?;
    let (count, started) = (transactions.len(), Instant::now());
    let ids: Vec<_> = transactions.iter().map(|it| it.statement.id()).collect();
    let known = shared.ledger.store().look_up(&ids).await?;
    let submission = shared.ledger.submit(transactions, wait).await?;
    shared.metrics.count_accepted(count, started.elapsed());
    let Received { items, mining_failed, .. } = submission.into();
    let status = if known.contains(&None) { StatusCode::CREATED } else { StatusCode::OK };
    let location = match &items[..] {
        [only] if status == StatusCode::CREATED => {
            HeaderValue::try_from(format!("/v1/transactions/{}", only.id)).ok()
        }
        _ => None,
    };
    let mut response = (status, Json(Accepted { items, mining_failed })).into_response();
    if let Some(location) = location {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

fn form_of(headers: &HeaderMap) -> Result<Form, ServerError> {
    match media_type(headers).as_str() {
        "application/x-ndjson" => Ok(Form::Lines),
        json if is_json(json) => Ok(Form::List),
        _ => {
            let message = "the body must be JSON and say so: send the header Content-Type: application/json, or \
                           application/x-ndjson for an object a line";
            Err(ApiError::refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_content_type", message)
                .into())
        }
    }
}

/// Unpacks a body and makes room for what came out.
async fn unpack(
    shared: &Shared,
    encoding: ContentEncoding,
    body: Bytes,
    room: Option<OwnedSemaphorePermit>,
) -> Result<(Bytes, Option<OwnedSemaphorePermit>), ServerError> {
    let turn = shared.bounds.unpack().await?;
    let size_max = shared.config.limits.body_size_max;
    let unpacked = tokio::task::spawn_blocking(move || {
        let body = encoding.decode(body, size_max);
        drop(room);
        (body, turn)
    });
    let (body, _turn) = unpacked.await.map_err(|_| ServerError::Internal("unpacking a body failed"))?;
    let body = body?;
    let room = shared.bounds.unpacked(body.len()).await?;
    Ok((body, room))
}

async fn decode_and_verify(
    shared: &Arc<Shared>,
    body: Bytes,
    form: Form,
) -> Result<Vec<NewTransaction>, ServerError> {
    let is_small = body.len() <= INLINE_BODY;
    let decode =
        move |shared: &Shared| Submission::decode(&body, form, shared.config.item_limits(), &shared.keys);
    let submission = compute(shared, is_small, decode).await??;
    let named = submission.named_keys();
    let known = match named.is_empty() {
        true => HashMap::new(),
        false => shared.ledger.store().public_keys(&named).await?,
    };
    Ok(compute(shared, is_small, move |_| submission.verify(&known)).await??)
}

/// Does what takes a processor: on the spot where it is little, else where it stops no other request.
async fn compute<T: Send + 'static>(
    shared: &Arc<Shared>,
    is_small: bool,
    work: impl FnOnce(&Shared) -> T + Send + 'static,
) -> Result<T, ServerError> {
    if is_small {
        return Ok(work(shared));
    }
    let permit = shared.load.processor().await?;
    let shared = Arc::clone(shared);
    let done = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        work(&shared)
    });
    done.await.map_err(|_| ServerError::Internal("verifying a list failed"))
}

/// A transaction, wherever it is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Transaction)]
pub(crate) struct TransactionJson {
    /// Its id.
    #[schema(value_type = String)]
    id: TransactionId,
    /// `sealed` in a block, or `pending`.
    #[schema(example = "sealed")]
    status: &'static str,
    /// The exact text that was signed; not there where it was pruned.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    payload: Option<String>,
    /// The signature in base64; not there where it was pruned.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    signature: Option<String>,
    /// There, and true, where payload and signature were dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pruned: Option<bool>,
    /// Who signed; zeros where nobody did.
    #[schema(value_type = String)]
    key_id: KeyId,
    /// That public key in PEM; not there where nobody signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    public_key: Option<String>,
    /// When it was first taken, in milliseconds since 1970; the block's timestamp where it came in a block.
    #[schema(value_type = u64)]
    received_ms: TimestampMs,
    /// Stands for payload and signature in the leaf.
    #[schema(value_type = String)]
    content_hash: ContentHash,
    /// Its number among all of its key, from 0; like what follows, there once it is sealed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    sequence: Option<u64>,
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
    /// Hash of its leaf of the tree below the block's `transactions_root`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    leaf_hash: Option<String>,
}

/// Returns a transaction by its id, and where it is.
#[utoipa::path(
    get,
    path = "/v1/transactions/{id}",
    operation_id = "get_transaction",
    tag = "v1",
    params(
        ("id" = String, Path, description = "The id that the acknowledgement says.", pattern = "^[0-9a-fA-F]{64}$", example = json!(example_id())),
        ("If-None-Match" = Option<String>, Header, description = "The `ETag` of an answer that the client has."),
    ),
    responses(
        (
            status = OK,
            description = "The transaction.",
            body = TransactionJson,
            headers(
                ("ETag" = String, description = "The block's hash in quotation marks; not while it is pending."),
                ("Cache-Control" = String, description = "`no-cache`: a reorganisation can move it."),
            ),
        ),
        (status = NOT_MODIFIED, description = "The client has it already."),
        (
            status = BAD_REQUEST,
            description = "`bad_transaction_id`.",
            body = Problem,
            content_type = "application/problem+json",
        ),
        (
            status = NOT_FOUND,
            description = "`transaction_not_found`.",
            body = Problem,
            content_type = "application/problem+json",
        ),
    ),
)]
pub(crate) async fn get_transaction(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ServerError> {
    let id: TransactionId = id.parse().map_err(|error| {
        ApiError::refusal(StatusCode::BAD_REQUEST, "bad_transaction_id", format!("the id is {error}"))
    })?;
    let store = shared.ledger.store();
    let stored = store.transaction(id).await?;
    // One that came pruned is stored under the hash of its leaf, which is no id.
    let Some(stored) = stored.filter(|stored| leaf_hash(stored) != Some(ContentHash(id.0))) else {
        let message = "no transaction of this id is known: it was never acknowledged here";
        return Err(ApiError::refusal(StatusCode::NOT_FOUND, "transaction_not_found", message).into());
    };
    let pruned = usize::from(matches!(stored.content, Content::Pruned { .. }));
    let validator = stored.place.map(|place| Validator::pruned(place.block_hash, pruned, REVALIDATE));
    if let Some(not_modified) = validator.as_ref().and_then(|validator| validator.not_modified(&headers)) {
        return Ok(not_modified);
    }
    let key_id = key_id(&stored.content);
    let public_key = store.public_keys(&[key_id]).await?.remove(&key_id);
    let answer = Json(TransactionJson::new(id, stored, public_key.map(|key| key.to_pem()))).into_response();
    Ok(match validator {
        Some(validator) => (validator.headers(), answer).into_response(),
        None => ([(header::CACHE_CONTROL, REVALIDATE)], answer).into_response(),
    })
}

fn key_id(content: &Content) -> KeyId {
    match content {
        Content::Full(statement) => statement.key_id,
        Content::Pruned { key_id, .. } => *key_id,
    }
}

/// Returns the hash of its leaf, as one that is shown as other hashes are; none while it is pending.
fn leaf_hash(stored: &StoredTransaction) -> Option<ContentHash> {
    let leaf = Transaction { sequence: stored.sequence?, content: stored.content.clone() };
    Some(ContentHash(leaf.leaf_hash()))
}

impl TransactionJson {
    fn new(id: TransactionId, stored: StoredTransaction, public_key: Option<String>) -> Self {
        let leaf_hash = leaf_hash(&stored).map(|hash| hash.to_string());
        let StoredTransaction { content, received_ms, place, sequence } = stored;
        let (payload, signature, pruned, content_hash) = match &content {
            Content::Full(statement) => {
                let signature = STANDARD.encode(&statement.signature);
                (Some(statement.payload.clone()), Some(signature), None, statement.content_hash())
            }
            Content::Pruned { content_hash, .. } => (None, None, Some(true), *content_hash),
        };
        Self {
            id,
            status: if place.is_some() { "sealed" } else { "pending" },
            payload,
            signature,
            pruned,
            key_id: key_id(&content),
            public_key,
            received_ms,
            content_hash,
            sequence,
            height: place.map(|place| place.height),
            position: place.map(|place| place.position),
            block_hash: place.map(|place| place.block_hash),
            leaf_hash,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_as_long_as_asked_and_no_longer_than_allowed() {
        let wait = |wait| WaitQuery { wait }.within(Duration::from_secs(5)).ok();
        let seconds = |seconds| Some(Duration::from_secs_f64(seconds));
        assert_eq!(wait(None), seconds(5.0));
        assert_eq!(wait(Some(0.0)), seconds(0.0));
        assert_eq!(wait(Some(0.25)), seconds(0.25));
        assert_eq!(wait(Some(60.0)), seconds(5.0));
        assert_eq!(wait(Some(1e300)), seconds(5.0));
        assert_eq!(wait(Some(f64::INFINITY)), seconds(5.0));
        for refused in [-0.1, f64::NEG_INFINITY, f64::NAN] {
            assert_eq!(wait(Some(refused)), None, "{refused}");
        }
    }
}
