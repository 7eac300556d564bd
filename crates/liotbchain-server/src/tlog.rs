//! The chain as a transparency log: `GET /checkpoint` and `GET /tile/…`, as
//! [c2sp.org/tlog-tiles](https://c2sp.org/tlog-tiles) says. Entry `h` is the hash of the block at height `h`.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{Path, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use liotbchain_core::Height;
use liotbchain_http::{ApiError, ErrorBody};

use crate::{error::ServerError, state::Shared, v1::conditional::REVALIDATE};

/// What never changes, and holds nothing but hashes: a year is the longest that caches take.
const IMMUTABLE: &str = "public, max-age=31536000, immutable";
/// Hashes of a full tile, and entries of a full bundle.
const WIDTH: u32 = 256;
/// Levels of the tree that a level of tiles spans.
const TILE_HEIGHT: u8 = 8;
/// Levels of tiles that the specification has.
const LEVELS: u8 = 63;

/// Returns the newest checkpoint: how many blocks there are, and the root of the tree over their hashes, signed by the
/// operator, and by witnesses where they are asked for.
#[utoipa::path(
    get,
    path = "/checkpoint",
    operation_id = "get_checkpoint",
    tag = "log",
    responses(
        (status = OK, description = "A signed note (c2sp.org/tlog-checkpoint).", body = String, content_type = "text/plain; charset=utf-8"),
        (status = NOT_FOUND, description = "`no_checkpoint_key`: this receiver signs no checkpoints.", body = ErrorBody),
        (status = SERVICE_UNAVAILABLE, description = "`not_cosigned_yet`: too few witnesses have cosigned since the start.", body = ErrorBody),
    ),
)]
pub(crate) async fn get_checkpoint(State(shared): State<Arc<Shared>>) -> Result<Response, ServerError> {
    if shared.vouching.log_key(&shared.ledger).is_none() {
        let message = "this receiver signs no checkpoints: it has no key for it";
        return Err(ApiError::refusal(StatusCode::NOT_FOUND, "no_checkpoint_key", message).into());
    }
    let Some(note) = shared.vouching.checkpoint(&shared.ledger).await? else {
        let message = "too few witnesses have cosigned a checkpoint since the receiver started: try again";
        return Err(ApiError::busy("not_cosigned_yet", message, Duration::from_secs(1)).into());
    };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")),
        (header::CACHE_CONTROL, HeaderValue::from_static(REVALIDATE)),
    ];
    Ok((headers, note.to_string()).into_response())
}

/// Returns hashes of the history tree, up to 256 of a level, or, where `level` is `entries`, the hashes of the blocks
/// themselves, each behind its length in two bytes.
#[utoipa::path(
    get,
    path = "/tile/{level}/{index}",
    operation_id = "get_tile",
    tag = "log",
    params(
        ("level" = String, Path, description = "`entries`, or the level of the tile, 0 to 63.", example = "0",
            pattern = "^(entries|[0-9]|[1-5][0-9]|6[0-3])$"),
        ("index" = String, Path, description = "The tile's number in groups of three digits, all but the last behind an `x`, and `.p/` with the width of a tile that is not full: `x001/x234/067.p/12`.", example = "000.p/1"),
    ),
    responses(
        (status = OK, description = "The tile.", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = NOT_FOUND, description = "`no_tile`: not the path of a tile, or the chain has not so many blocks.", body = ErrorBody),
    ),
)]
pub(crate) async fn get_tile(
    State(shared): State<Arc<Shared>>,
    Path((level, index)): Path<(String, String)>,
) -> Result<Response, ServerError> {
    let no_tile = || {
        let message = "no tile stands there: the path is none, or the chain has not so many blocks";
        ServerError::from(ApiError::refusal(StatusCode::NOT_FOUND, "no_tile", message))
    };
    let (number, width) = parse_index(&index).ok_or_else(no_tile)?;
    let first = number.checked_mul(WIDTH.into()).ok_or_else(no_tile)?;
    let bytes = if level == "entries" {
        entries(&shared, first, width).await?
    } else {
        hashes(&shared, parse_level(&level).ok_or_else(no_tile)?, first, width).await?
    };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
        (header::CACHE_CONTROL, HeaderValue::from_static(IMMUTABLE)),
    ];
    Ok((headers, bytes.ok_or_else(no_tile)?).into_response())
}

async fn hashes(shared: &Shared, level: u8, first: u64, width: u32) -> Result<Option<Vec<u8>>, ServerError> {
    let Some(level) = level.checked_mul(TILE_HEIGHT) else { return Ok(None) };
    let Some(last) = first.checked_add(width.into()) else { return Ok(None) };
    let places: Vec<_> = (first..last).map(|index| (level, index)).collect();
    let nodes = shared.ledger.store().history_nodes(&places).await?;
    Ok(nodes.into_iter().collect::<Option<Vec<_>>>().map(|nodes| nodes.concat()))
}

async fn entries(shared: &Shared, first: u64, width: u32) -> Result<Option<Vec<u8>>, ServerError> {
    let Ok(first) = Height::try_from(first) else { return Ok(None) };
    let headers = shared.ledger.store().headers(first, width).await?;
    if headers.len() < width as usize {
        return Ok(None);
    }
    let mut bytes = Vec::with_capacity(headers.len() * 34);
    for header in headers {
        bytes.extend(32u16.to_be_bytes());
        bytes.extend(header.compute_hash().0);
    }
    Ok(Some(bytes))
}

/// Reads a level, which has no leading zeros.
fn parse_level(text: &str) -> Option<u8> {
    let level: u8 = text.parse().ok()?;
    (level <= LEVELS && level.to_string() == text).then_some(level)
}

/// Reads the number of a tile and its width.
fn parse_index(path: &str) -> Option<(u64, u32)> {
    let (path, width) = match path.split_once(".p/") {
        Some((path, width)) => {
            let partial: u32 = width.parse().ok()?;
            ((1..WIDTH).contains(&partial) && partial.to_string() == width).then_some((path, partial))?
        }
        None => (path, WIDTH),
    };
    let mut groups = path.split('/').peekable();
    let (mut number, mut is_first) = (0u64, true);
    while let Some(group) = groups.next() {
        let is_last = groups.peek().is_none();
        let digits = if is_last { group } else { group.strip_prefix('x')? };
        if digits.len() != 3 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        // A number has one path: no group of zeros stands in front.
        if is_first && !is_last && digits == "000" {
            return None;
        }
        number = number.checked_mul(1000)?.checked_add(digits.parse().ok()?)?;
        is_first = false;
    }
    Some((number, width))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_paths_of_the_specification() {
        assert_eq!(parse_index("x001/x234/067"), Some((1_234_067, 256)));
        assert_eq!(parse_index("000"), Some((0, 256)));
        assert_eq!(parse_index("x001/x234/067.p/112"), Some((1_234_067, 112)));
        for path in [
            "",
            "0",
            "00",
            "0000",
            "x000/001",
            "x001",
            "001/002",
            "x001/x002",
            "000.p/0",
            "000.p/256",
            "000.p/01",
            "000.p/",
            "000.p/1.p/1",
            "00a",
            "+01",
            "x001//001",
            "x018/x446/x744/x073/x709/x551/616",
        ] {
            assert_eq!(parse_index(path), None, "{path}");
        }
    }

    #[test]
    fn reads_levels() {
        assert_eq!((parse_level("0"), parse_level("63")), (Some(0), Some(63)));
        for level in ["64", "00", "01", "-1", "+1", "", "256"] {
            assert_eq!(parse_level(level), None, "{level}");
        }
    }
}
