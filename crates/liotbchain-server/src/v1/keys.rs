//! `/v1/keys`: whose signatures the chain holds.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use liotbchain_core::{KeyId, PublicKey};
use liotbchain_http::{ApiError, Parameters, Problem, bad_query};
use liotbchain_store::KnownKey;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::conditional::REVALIDATE;
use crate::{error::ServerError, openapi::example_key_id, state::Shared};

/// Keys of a page, unless the client says how many.
const LIMIT_DEFAULT: u32 = 100;
/// Keys that a client can ask for at once. The longest take 1.5 KiB each.
const LIMIT_MAX: u32 = 256;

/// Which keys a page holds.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct KeysQuery {
    /// Keys at most.
    #[param(minimum = 1, maximum = 256, default = 100, nullable = false)]
    limit: Option<u32>,
    /// Where the last page ended, as its `next` says.
    #[param(nullable = false)]
    cursor: Option<String>,
}

/// A public key.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Key)]
pub(crate) struct KeyJson {
    /// SHA-256 of its SubjectPublicKeyInfo.
    #[schema(value_type = String)]
    key_id: KeyId,
    /// `Ed25519`, `P-256` or `RSA-` with the bits of its modulus.
    #[schema(example = "Ed25519")]
    algorithm: String,
    /// The key in PEM.
    public_key: String,
    /// Its transactions on the best chain: the `sequence` of the next one.
    transactions: u64,
}

impl KeyJson {
    fn new(key: &PublicKey, transactions: u64) -> Self {
        Self {
            key_id: key.key_id(),
            algorithm: key.algorithm().to_string(),
            public_key: key.to_pem(),
            transactions,
        }
    }
}

/// A page of keys.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct KeyPage {
    /// The keys, in the order of their ids.
    keys: Vec<KeyJson>,
    /// Where the next page is; not there on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    next: Option<String>,
}

/// Returns the public keys that the receiver knows, a page at a time.
#[utoipa::path(
    get,
    path = "/v1/keys",
    operation_id = "list_keys",
    tag = "v1",
    params(KeysQuery),
    responses(
        (
            status = OK,
            description = "A page.",
            body = KeyPage,
            headers(("Link" = String, description = "The next page, `rel=\"next\"`; not there on the last.")),
        ),
        (
            status = BAD_REQUEST,
            description = "`bad_query` or `bad_cursor`.",
            body = Problem,
            content_type = "application/problem+json",
        ),
    ),
)]
pub(crate) async fn list_keys(
    State(shared): State<Arc<Shared>>,
    Parameters(query): Parameters<KeysQuery>,
) -> Result<Response, ServerError> {
    let limit = query.limit.unwrap_or(LIMIT_DEFAULT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(bad_query(&format!("limit is {limit}: expected 1 to {LIMIT_MAX}")).into());
    }
    let after = query.cursor.as_deref().map(str::parse::<KeyId>).transpose().map_err(|_| {
        let message = "the cursor is none that this server gave: start anew without it";
        ApiError::refusal(StatusCode::BAD_REQUEST, "bad_cursor", message)
    })?;
    // One more tells whether there is another page.
    let mut known = shared.ledger.store().keys(after, limit + 1).await?;
    let has_more = known.len() > limit as usize;
    known.truncate(limit as usize);
    let last = known.last().filter(|_| has_more);
    let next = last.map(|last| format!("/v1/keys?cursor={}&limit={limit}", last.public_key.key_id()));
    let link = next.as_ref().and_then(|next| HeaderValue::try_from(format!("<{next}>; rel=\"next\"")).ok());
    let keys =
        known.iter().map(|KnownKey { public_key, transactions }| KeyJson::new(public_key, *transactions));
    let page = KeyPage { keys: keys.collect(), next };
    let mut response = ([(header::CACHE_CONTROL, REVALIDATE)], Json(page)).into_response();
    if let Some(link) = link {
        response.headers_mut().insert(header::LINK, link);
    }
    Ok(response)
}

/// Returns a public key by its id.
#[utoipa::path(
    get,
    path = "/v1/keys/{key_id}",
    operation_id = "get_key",
    tag = "v1",
    params(
        ("key_id" = String, Path, description = "SHA-256 of the key's SubjectPublicKeyInfo, in hexadecimal.", pattern = "^[0-9a-fA-F]{64}$", example = json!(example_key_id())),
    ),
    responses(
        (status = OK, description = "The key.", body = KeyJson),
        (
            status = BAD_REQUEST,
            description = "`bad_key_id`.",
            body = Problem,
            content_type = "application/problem+json",
        ),
        (
            status = NOT_FOUND,
            description = "`key_not_found`.",
            body = Problem,
            content_type = "application/problem+json",
        ),
    ),
)]
pub(crate) async fn get_key(
    State(shared): State<Arc<Shared>>,
    Path(key_id): Path<String>,
) -> Result<Response, ServerError> {
    let key_id: KeyId = key_id.parse().map_err(|error| {
        ApiError::refusal(StatusCode::BAD_REQUEST, "bad_key_id", format!("the id of the key is {error}"))
    })?;
    let store = shared.ledger.store();
    let Some(key) = store.public_keys(&[key_id]).await?.remove(&key_id) else {
        let message = "no key of this id is known: it signed nothing that was acknowledged here";
        return Err(ApiError::refusal(StatusCode::NOT_FOUND, "key_not_found", message).into());
    };
    let transactions = store.next_sequences(&[key_id]).await?.remove(&key_id).unwrap_or(0);
    Ok(([(header::CACHE_CONTROL, REVALIDATE)], Json(KeyJson::new(&key, transactions))).into_response())
}
