//! `/v1/blocks`: the best chain in pages, and each block by its height or its hash.

use std::sync::Arc;

use axum::{
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use liotbchain_core::{BlockHash, Height, codec};
use liotbchain_http::{ApiError, Parameters, Problem, bad_query};
use liotbchain_store::StoredBlock;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::{
    block_json::BlockJson,
    conditional::{REVALIDATE, Validator},
    cursor::{Cursor, Order},
    page::{self, Page, PageError, Walk},
};
use crate::{error::ServerError, state::Shared};

/// Blocks of a page, unless the client says how many.
const LIMIT_DEFAULT: u32 = 100;
/// Blocks that a client can ask for at once.
const LIMIT_MAX: u32 = 1_000;
/// How often a page is read that the chain moved under.
const ATTEMPTS_MAX: u32 = 3;

/// Which blocks a page holds.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct BlocksQuery {
    /// Blocks at most. A page may hold fewer: `next` says whether more follow.
    #[param(minimum = 1, maximum = 1000, default = 100, nullable = false)]
    limit: Option<u32>,
    /// Height of the first block; without it the genesis block, or the tip where `order` is `desc`.
    #[param(value_type = Option<u64>, maximum = 4294967295u64, nullable = false)]
    from: Option<u32>,
    /// Upwards, as without it, or downwards from the newest.
    #[param(inline, nullable = false)]
    order: Option<Order>,
    /// Shows transactions too, not only how many there are.
    #[param(inline, nullable = false)]
    include: Option<Include>,
    /// Where the last page ended, as its `next` says. Goes without `from` and `order`.
    #[param(nullable = false)]
    cursor: Option<String>,
}

/// What a page shows beside the headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Include {
    /// The transactions.
    Transactions,
}

/// A page of blocks.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what is written piece by piece")]
pub(crate) struct BlockPage {
    /// The blocks, without their transactions unless these were asked for.
    blocks: Vec<BlockJson<'static>>,
    /// Where the next page is; not there on the last.
    #[schema(nullable = false, example = "/v1/blocks?cursor=…")]
    next: Option<String>,
}

/// Returns blocks of the best chain, a page at a time.
///
/// Follow `next`, which stands in the header `Link` too, until there is none. A walk is over one chain: where a
/// reorganisation took its last block off, the next page is 410 `chain_moved`.
#[utoipa::path(
    get,
    path = "/v1/blocks",
    operation_id = "list_blocks",
    tag = "v1",
    params(BlocksQuery),
    responses(
        (
            status = OK,
            description = "A page.",
            body = BlockPage,
            headers(("Link" = String, description = "The next page, `rel=\"next\"`; not there on the last.")),
        ),
        (
            status = BAD_REQUEST,
            description = "`bad_query` or `bad_cursor`.",
            body = Problem,
            content_type = "application/problem+json",
        ),
        (
            status = GONE,
            description = "`chain_moved`: the walk's last block is not on the best chain any more: start anew.",
            body = Problem,
            content_type = "application/problem+json",
        ),
    ),
)]
pub(crate) async fn list_blocks(
    State(shared): State<Arc<Shared>>,
    Parameters(query): Parameters<BlocksQuery>,
) -> Result<Response, ServerError> {
    let limit = query.limit.unwrap_or(LIMIT_DEFAULT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(bad_query(&format!("limit is {limit}: expected 1 to {LIMIT_MAX}")).into());
    }
    if query.cursor.is_some() && (query.from.is_some() || query.order.is_some()) {
        return Err(bad_query("a cursor goes without `from` and `order`: it knows both").into());
    }
    let cursor = query.cursor.as_deref().map(Cursor::decode).transpose();
    let cursor = cursor.map_err(|error| refuse(StatusCode::BAD_REQUEST, "bad_cursor", error.to_string()))?;
    let _turn = shared.bounds.read().await?;
    let mut attempt = 1;
    let page = loop {
        let walk = walk(&shared, &query, cursor, limit).await?;
        match page::read(shared.ledger.store().as_ref(), walk).await {
            Ok(page) => break page,
            Err(PageError::Moved) if attempt < ATTEMPTS_MAX => attempt += 1,
            Err(PageError::Moved) => return Err(ServerError::Moved(walk.from)),
            Err(PageError::Gone) => {
                let message = "a reorganisation took the last block of this walk off the best chain: start anew \
                               without a cursor";
                return Err(refuse(StatusCode::GONE, "chain_moved", message));
            }
            Err(PageError::Server(error)) => return Err(error),
        }
    };
    let Page { blocks, next } = page;
    let next = next.map(|cursor| {
        let include = if query.include.is_some() { "&include=transactions" } else { "" };
        format!("/v1/blocks?cursor={}&limit={limit}{include}", cursor.encode())
    });
    let mut json = b"{\"blocks\":[".to_vec();
    json.extend(blocks);
    json.push(b']');
    if let Some(next) = &next {
        json.extend(format!(",\"next\":\"{next}\"").into_bytes());
    }
    json.push(b'}');
    let mut response = shared.bounds.answer(json)?;
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(REVALIDATE));
    if let Some(link) = next.and_then(|next| HeaderValue::try_from(format!("<{next}>; rel=\"next\"")).ok()) {
        headers.insert(header::LINK, link);
    }
    Ok(response)
}

async fn walk(
    shared: &Shared,
    query: &BlocksQuery,
    cursor: Option<Cursor>,
    limit: u32,
) -> Result<Walk, ServerError> {
    let tip = tip(shared).await?;
    let transactions = query.include == Some(Include::Transactions);
    if let Some(Cursor { order, next, pin }) = cursor {
        return Ok(Walk { order, from: next, pin: Some(pin), limit, transactions, tip });
    }
    let order = query.order.unwrap_or_default();
    let from = match order {
        Order::Asc => query.from.unwrap_or(0),
        Order::Desc => query.from.unwrap_or(tip).min(tip),
    };
    Ok(Walk { order, from, pin: None, limit, transactions, tip })
}

async fn tip(shared: &Shared) -> Result<Height, ServerError> {
    let branch = shared.ledger.store().branch().await?;
    Ok(branch.ok_or(ServerError::Internal("the chain is gone"))?.height())
}

/// What a client calls a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BlockName {
    Tip,
    Height(u64),
    Hash(BlockHash),
}

impl BlockName {
    fn parse(text: &str) -> Option<Self> {
        if text == "tip" {
            return Some(Self::Tip);
        }
        if text.len() == 64 {
            return text.parse().ok().map(Self::Hash);
        }
        let is_height = !text.is_empty() && text.len() < 20 && text.bytes().all(|byte| byte.is_ascii_digit());
        is_height.then(|| text.parse().ok().map(Self::Height)).flatten()
    }
}

/// Returns a block with its transactions, by its height, by its hash, or the newest as `tip`.
///
/// A block that a reorganisation took off the best chain is there by its hash, with `best_chain` false. `ETag` is the
/// hash of the block. What was asked for by its hash never changes and may be kept.
#[utoipa::path(
    get,
    path = "/v1/blocks/{block}",
    operation_id = "get_block",
    tag = "v1",
    params(
        ("block" = String, Path, description = "Height, hash (64 hexadecimal digits), or `tip`.", example = "tip"),
        ("If-None-Match" = Option<String>, Header, description = "The `ETag` of an answer that the client has."),
    ),
    responses(
        (
            status = OK,
            description = "The block.",
            body = BlockJson<'static>,
            headers(
                ("ETag" = String, description = "The block's hash in quotation marks, with `-pruned-` and their number where transactions are pruned; not on side branches."),
                ("Cache-Control" = String, description = "`no-cache`: it may be pruned."),
            ),
        ),
        (status = NOT_MODIFIED, description = "The client has it already."),
        (
            status = BAD_REQUEST,
            description = "`bad_block`: neither height nor hash.",
            body = Problem,
            content_type = "application/problem+json",
        ),
        (
            status = NOT_FOUND,
            description = "`block_not_found`.",
            body = Problem,
            content_type = "application/problem+json",
        ),
    ),
)]
pub(crate) async fn get_block(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ServerError> {
    let Some(name) = BlockName::parse(&name) else {
        let message = "a block is named by its height, by its hash of 64 hexadecimal digits, or as `tip`";
        return Err(refuse(StatusCode::BAD_REQUEST, "bad_block", message));
    };
    let _turn = shared.bounds.read().await?;
    let Some(StoredBlock { hash, total_work, block, ids }) = find(&shared, name).await? else {
        return match name {
            BlockName::Hash(hash) => side_block(&shared, hash).await,
            BlockName::Tip | BlockName::Height(_) => Err(not_found("there is no block of this height yet")),
        };
    };
    let pruned = block.transactions.iter().filter(|it| it.statement().is_none()).count();
    let validator = Validator::pruned(hash, pruned, REVALIDATE);
    if let Some(not_modified) = validator.not_modified(&headers) {
        return Ok(not_modified);
    }
    let json = BlockJson::new(hash, total_work, &block).with_transactions(&block.transactions, ids);
    Ok((validator.headers(), shared.bounds.answer(to_json(&json)?)?).into_response())
}

/// Returns a block of the best chain.
async fn find(shared: &Shared, name: BlockName) -> Result<Option<StoredBlock>, ServerError> {
    let store = shared.ledger.store();
    for _ in 0..ATTEMPTS_MAX {
        let height = match name {
            BlockName::Tip => tip(shared).await?,
            BlockName::Hash(hash) => match store.height_of(hash).await? {
                Some(height) => height,
                None => return Ok(None),
            },
            BlockName::Height(height) => match Height::try_from(height) {
                Ok(height) => height,
                Err(_) => return Ok(None),
            },
        };
        let found =
            store.blocks(height, 1, 0).await?.pop().filter(|found| found.block.header.height == height);
        match (name, found) {
            // The chain moved between the two questions.
            (BlockName::Hash(hash), Some(found)) if found.hash != hash => {}
            (BlockName::Hash(_) | BlockName::Tip, None) => {}
            (_, found) => return Ok(found),
        }
    }
    Err(ServerError::Moved(0))
}

/// Answers with a block that a reorganisation took off the best chain. It may come back, so nothing of this is kept.
async fn side_block(shared: &Shared, hash: BlockHash) -> Result<Response, ServerError> {
    let bytes = shared.ledger.store().side_block(hash).await?;
    let bytes = bytes.ok_or_else(|| not_found("no block of this hash is known"))?;
    let block =
        codec::decode_kept_block(&bytes).map_err(|_| ServerError::Internal("a side block is damaged"))?;
    let ids = block.transactions.iter().map(|it| it.statement().map(|statement| statement.id()));
    let json = BlockJson::side(hash, &block).with_transactions(&block.transactions, ids);
    let mut response = shared.bounds.answer(to_json(&json)?)?;
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static(REVALIDATE));
    Ok(response)
}

fn to_json(block: &BlockJson<'_>) -> Result<Vec<u8>, ServerError> {
    serde_json::to_vec(block).map_err(|_| ServerError::Internal("a block is not JSON"))
}

fn not_found(message: &str) -> ServerError {
    refuse(StatusCode::NOT_FOUND, "block_not_found", message)
}

fn refuse(status: StatusCode, code: &'static str, message: impl Into<String>) -> ServerError {
    ApiError::refusal(status, code, message).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_heights_from_hashes() {
        let hash = "0".repeat(63) + "A";
        assert_eq!(BlockName::parse(&hash), Some(BlockName::Hash(hash.parse().unwrap())));
        assert_eq!(BlockName::parse("tip"), Some(BlockName::Tip));
        assert_eq!(BlockName::parse("0"), Some(BlockName::Height(0)));
        assert_eq!(BlockName::parse("007"), Some(BlockName::Height(7)));
        assert_eq!(BlockName::parse("4294967296"), Some(BlockName::Height(1 << 32)));
        for text in ["", "-1", "+1", "1.0", "0x1", "Tip", &"9".repeat(20), &"g".repeat(64), &hash[1..]] {
            assert_eq!(BlockName::parse(text), None, "{text}");
        }
    }
}
