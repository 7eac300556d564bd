//! `/v1/…/receipt`, `/v1/keys/{key_id}/transactions` and `/v1/proofs`: files that prove something to whoever has them, without
//! this server.

use std::sync::Arc;

use axum::{
    extract::{Path, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use liotbchain_core::{BlockHash, Height, KeyId, TransactionId, checkpoint::parse_size, receipt::ProofFile};
use liotbchain_http::{ApiError, Parameters, Problem, bad_query};
use liotbchain_node::{ProveError, Prover, prove::HISTORY_MAX};
use serde::Deserialize;
use utoipa::IntoParams;

use super::conditional::REVALIDATE;
use crate::{
    error::ServerError,
    openapi::{example_id, example_key_id},
    state::Shared,
};

/// Transactions of a key's history, unless the client says how many.
const LIMIT_DEFAULT: u32 = 100;

impl Shared {
    fn prover(&self) -> Prover<'_> {
        Prover::new(self.ledger.store().as_ref(), self.ledger.genesis(), self.vouching.vouchers())
    }
}

fn parse_id(id: &str) -> Result<TransactionId, ServerError> {
    id.parse().map_err(|error| {
        ApiError::refusal(StatusCode::BAD_REQUEST, "bad_transaction_id", format!("the id is {error}")).into()
    })
}

/// Returns the receipt of a transaction: a file that proves, to whoever has it, that the transaction stands on this chain.
///
/// `liotbchain verify FILE` checks it without this server; docs/proofs.md says how others can.
#[utoipa::path(
    get,
    path = "/v1/transactions/{id}/receipt",
    operation_id = "get_receipt",
    tag = "v1",
    params(("id" = String, Path, description = "The id that the acknowledgement says.", pattern = "^[0-9a-fA-F]{64}$", example = json!(example_id()))),
    responses(
        (status = OK, description = "The receipt.", body = Object),
        (status = BAD_REQUEST, description = "`bad_transaction_id`.", body = Problem, content_type = "application/problem+json"),
        (status = NOT_FOUND, description = "`transaction_not_found`.", body = Problem, content_type = "application/problem+json"),
        (status = CONFLICT, description = "`still_pending`: the transaction stands in no block yet.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn get_receipt(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
) -> Result<Response, ServerError> {
    let id = parse_id(&id)?;
    let _turn = shared.bounds.read().await?;
    let receipt = shared.prover().receipt(id).await?;
    Ok(file(&ProofFile::Receipt(Box::new(receipt)), &format!("{id}.receipt.json")))
}

/// Returns the receipt of a transaction as a `c2sp.org/tlog-proof`, whose inclusion others' programs can check.
#[utoipa::path(
    get,
    path = "/v1/transactions/{id}/tlog-proof",
    operation_id = "get_tlog_proof",
    tag = "v1",
    params(("id" = String, Path, description = "The id that the acknowledgement says.", pattern = "^[0-9a-fA-F]{64}$", example = json!(example_id()))),
    responses(
        (status = OK, description = "The proof. Its entry is the hash of the block; how the transaction stands in it is in `extra`.", body = String, content_type = "text/plain; charset=utf-8"),
        (status = BAD_REQUEST, description = "`bad_transaction_id`.", body = Problem, content_type = "application/problem+json"),
        (status = NOT_FOUND, description = "`transaction_not_found`, or `no_checkpoint_key`.", body = Problem, content_type = "application/problem+json"),
        (status = CONFLICT, description = "`still_pending`: the transaction stands in no block yet.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn get_tlog_proof(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
) -> Result<Response, ServerError> {
    let id = parse_id(&id)?;
    let _turn = shared.bounds.read().await?;
    let receipt = shared.prover().receipt(id).await?;
    let Some(proof) = receipt.to_tlog_proof() else {
        let message = "this receiver signs no checkpoints, and such a proof ends in one: ask for the receipt";
        return Err(ApiError::refusal(StatusCode::NOT_FOUND, "no_checkpoint_key", message).into());
    };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")),
        (header::CACHE_CONTROL, HeaderValue::from_static(REVALIDATE)),
    ];
    Ok((headers, proof).into_response())
}

/// Which part of a key's history.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct HistoryQuery {
    /// Height of the first block; without it the first of the chain.
    #[param(value_type = Option<u64>, maximum = 4294967295u64, nullable = false)]
    from: Option<Height>,
    /// Height of the last block; without it the last of the chain.
    #[param(value_type = Option<u64>, maximum = 4294967295u64, nullable = false)]
    to: Option<Height>,
    /// Transactions at most, but for those of one block.
    #[param(minimum = 1, maximum = 1000, default = 100, nullable = false)]
    limit: Option<u32>,
}

/// Returns all transactions of a key from one height to another, with the proof that none is missing.
///
/// Where there are more than `limit`, the file goes less far: `to` says how far, and the header `Link` where the rest is.
#[utoipa::path(
    get,
    path = "/v1/keys/{key_id}/transactions",
    operation_id = "get_key_history",
    tag = "v1",
    params(
        ("key_id" = String, Path, description = "SHA-256 of the key's SubjectPublicKeyInfo, in hexadecimal; zeros for unsigned transactions.", pattern = "^[0-9a-fA-F]{64}$", example = json!(example_key_id())),
        HistoryQuery,
    ),
    responses(
        (status = OK, description = "The history.", body = Object, headers(("Link" = String, description = "The next part, `rel=\"next\"`; not there with the last."))),
        (status = BAD_REQUEST, description = "`bad_key_id` or `bad_query`.", body = Problem, content_type = "application/problem+json"),
        (status = NOT_FOUND, description = "`key_not_found` or `block_not_found`.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn get_key_history(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    Parameters(query): Parameters<HistoryQuery>,
) -> Result<Response, ServerError> {
    let key_id: KeyId = id.parse().map_err(|error| {
        ApiError::refusal(StatusCode::BAD_REQUEST, "bad_key_id", format!("the id of the key is {error}"))
    })?;
    let limit = query.limit.unwrap_or(LIMIT_DEFAULT);
    if !(1..=HISTORY_MAX).contains(&limit) {
        return Err(bad_query(&format!("limit is {limit}: expected 1 to {HISTORY_MAX}")).into());
    }
    let from = query.from.unwrap_or(0);
    let to = query.to.unwrap_or(Height::MAX);
    if from > to {
        return Err(bad_query(&format!("from is {from} and to is {to}: expected no more than to")).into());
    }
    let _turn = shared.bounds.read().await?;
    if key_id != KeyId::ZERO && shared.ledger.store().public_keys(&[key_id]).await?.is_empty() {
        let message = "no key of this id is known: it signed nothing that was acknowledged here";
        return Err(ApiError::refusal(StatusCode::NOT_FOUND, "key_not_found", message).into());
    }
    let history = shared.prover().key_history(key_id, from, to, limit).await?;
    let reached = history.to;
    let has_more = reached < to.min(shared.ledger.status().height);
    let mut response = file(&ProofFile::KeyHistory(Box::new(history)), &format!("{key_id}.history.json"));
    if has_more {
        let last = query.to.map(|to| format!("&to={to}")).unwrap_or_default();
        let next = format!(
            "</v1/keys/{key_id}/transactions?from={}{last}&limit={limit}>; rel=\"next\"",
            reached + 1
        );
        if let Ok(next) = HeaderValue::try_from(next) {
            response.headers_mut().insert(header::LINK, next);
        }
    }
    Ok(response)
}

/// Which two histories.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ConsistencyQuery {
    /// The earlier one: how many blocks it has, or the hash of the block above them, whose header commits to them.
    #[param(example = "1")]
    from: String,
    /// The later one, likewise; without it all blocks there are.
    #[param(nullable = false)]
    to: Option<String>,
}

/// Returns the proof that a later history of this chain begins with an earlier one.
#[utoipa::path(
    get,
    path = "/v1/proofs/consistency",
    operation_id = "get_consistency",
    tag = "v1",
    params(ConsistencyQuery),
    responses(
        (status = OK, description = "The proof.", body = Object),
        (status = BAD_REQUEST, description = "`bad_query`.", body = Problem, content_type = "application/problem+json"),
        (status = NOT_FOUND, description = "`block_not_found`.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn get_consistency(
    State(shared): State<Arc<Shared>>,
    Parameters(query): Parameters<ConsistencyQuery>,
) -> Result<Response, ServerError> {
    let _turn = shared.bounds.read().await?;
    let from = size_of(&shared, "from", &query.from).await?;
    let to = match &query.to {
        Some(to) => size_of(&shared, "to", to).await?,
        None => u64::from(shared.ledger.status().height) + 1,
    };
    let proof = shared.prover().consistency(from, to).await?;
    Ok(file(&ProofFile::Consistency(Box::new(proof)), &format!("{from}-{to}.consistency.json")))
}

/// Which block in which history.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct InclusionQuery {
    /// Height of the block.
    #[param(value_type = u64, maximum = 4294967295u64, example = 0)]
    height: Height,
    /// How many blocks the history has, or the hash of the block above them; without it as many as can be vouched for.
    #[param(nullable = false)]
    to: Option<String>,
}

/// Returns the proof that the block at a height stands in the history of this chain.
#[utoipa::path(
    get,
    path = "/v1/proofs/inclusion",
    operation_id = "get_inclusion",
    tag = "v1",
    params(InclusionQuery),
    responses(
        (status = OK, description = "The proof.", body = Object),
        (status = BAD_REQUEST, description = "`bad_query`.", body = Problem, content_type = "application/problem+json"),
        (status = NOT_FOUND, description = "`block_not_found`.", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn get_inclusion(
    State(shared): State<Arc<Shared>>,
    Parameters(query): Parameters<InclusionQuery>,
) -> Result<Response, ServerError> {
    let _turn = shared.bounds.read().await?;
    let size = match &query.to {
        Some(to) => Some(size_of(&shared, "to", to).await?),
        None => None,
    };
    let proof = shared.prover().block_proof(query.height, size).await?;
    Ok(file(&ProofFile::Block(Box::new(proof)), &format!("{}.block.json", query.height)))
}

/// Reads a number of blocks, or the hash of the block above them.
async fn size_of(shared: &Shared, name: &str, text: &str) -> Result<u64, ServerError> {
    if let Ok(hash) = text.parse::<BlockHash>() {
        let height = shared.ledger.store().height_of(hash).await?;
        return height.map(u64::from).ok_or_else(|| {
            let message = format!("{name}: no block of this hash is on the best chain");
            ApiError::refusal(StatusCode::NOT_FOUND, "block_not_found", message).into()
        });
    }
    let expected =
        || bad_query(&format!("{name}: expected a number of blocks, or the hash of a block")).into();
    parse_size(text).ok_or_else(expected)
}

/// Returns a proof as a file that browsers keep under a name.
fn file(proof: &ProofFile, name: &str) -> Response {
    let disposition = HeaderValue::try_from(format!("inline; filename=\"{name}\""))
        .unwrap_or_else(|_| HeaderValue::from_static("inline"));
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::CACHE_CONTROL, HeaderValue::from_static(REVALIDATE)),
        (header::CONTENT_DISPOSITION, disposition),
    ];
    (headers, proof.to_json()).into_response()
}

impl From<ProveError> for ServerError {
    fn from(error: ProveError) -> Self {
        let refuse = |status, code| ApiError::refusal(status, code, error.to_string()).into();
        match error {
            ProveError::UnknownTransaction => refuse(StatusCode::NOT_FOUND, "transaction_not_found"),
            ProveError::Pending => refuse(StatusCode::CONFLICT, "still_pending"),
            ProveError::UnknownHeight { .. } => refuse(StatusCode::NOT_FOUND, "block_not_found"),
            ProveError::Order { .. } => bad_query(&error.to_string()).into(),
            ProveError::Damaged(error) => Self::Unprovable(error),
            ProveError::Store(error) => error.into(),
        }
    }
}
