//! `GET /get_chain`: the whole chain in the Python original's form, streamed.

use std::{fmt::Write, sync::Arc};

use axum::{
    body::Body,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use liotbchain_core::{BlockHash, Height, Transaction};
use liotbchain_http::ErrorBody;
use liotbchain_store::{Store, StoredBlock};
use utoipa::ToSchema;

use crate::{error::ServerError, json_keys::JSON_DEPTH_MAX, json_text::Tokens, state::Shared};

/// Blocks that one read takes at most.
const PAGE_BLOCKS: u32 = 256;
/// Bytes of payload that one read takes at most, but for its first block: what a reader who stands still costs.
const PAGE_BYTES: usize = 128 << 10;

/// A block as the Python original shows it.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what is written field by field")]
pub(crate) struct ChainBlock {
    /// List of the signed payloads, verbatim; `"Genesis Block"` in the first block.
    data: serde_json::Value,
    /// SHA-256 of the block's header, in hexadecimal.
    hash: String,
    /// The block's height.
    index: u64,
    /// What mining found.
    nonce: u64,
    /// Hash of the block below; `"0"` in the first block.
    #[schema(rename = "previous hash")]
    previous_hash: String,
    /// Seconds since 1970.
    timestamp: f64,
}

/// Returns all blocks of the best chain, from the genesis block up to the tip of now.
///
/// An answer that could not be completed, because the store failed or the chain moved to another branch, breaks off.
#[utoipa::path(
    get,
    path = "/get_chain",
    tag = "chain",
    responses(
        (status = OK, description = "The chain.", body = Vec<ChainBlock>),
        (status = SERVICE_UNAVAILABLE, description = "The store does not answer: try again.", body = ErrorBody),
    ),
)]
pub(crate) async fn get_chain(State(shared): State<Arc<Shared>>) -> Result<Response, ServerError> {
    let store = Arc::clone(shared.ledger.store());
    let branch = store.branch().await?.ok_or(ServerError::Internal("the chain is gone"))?;
    let mut reading =
        Reading { store, tip: branch.tip(), height: branch.height(), next: 0, below: BlockHash::ZERO };
    // What fails here is still an answer, and no body that breaks off.
    let first = reading.page().await?;
    let rest = stream::try_unfold((reading, shared), async |(mut reading, shared)| {
        if reading.is_done() {
            return Ok(None);
        }
        match reading.page().await {
            Ok(page) => Ok(Some((page, (reading, shared)))),
            Err(error) => {
                tracing::warn!(%error, height = reading.next, "GET /get_chain broke off");
                if error.is_by_store() {
                    shared.metrics.count_store_error();
                }
                Err(error)
            }
        }
    });
    let body = Body::from_stream(stream::once(async { Ok(first) }).chain(rest));
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// Where a reader of the chain is. Nothing is held in the store between two pages.
struct Reading {
    store: Arc<dyn Store>,
    tip: BlockHash,
    height: Height,
    next: Height,
    /// Hash of the last block read.
    below: BlockHash,
}

impl Reading {
    fn is_done(&self) -> bool {
        self.next > self.height
    }

    /// Reads the next blocks and writes them as JSON, with the brackets at both ends of the list.
    ///
    /// A page comes from one snapshot, so the chain can only have moved between two: the next page then does not
    /// continue the last one, or does not end at the tip.
    async fn page(&mut self) -> Result<Bytes, ServerError> {
        let left = self.height - self.next + 1;
        let blocks = self.store.blocks(self.next, left.min(PAGE_BLOCKS), PAGE_BYTES).await?;
        let (Some(first), Some(last)) = (blocks.first(), blocks.last()) else {
            return Err(ServerError::Moved(self.next));
        };
        let height = last.block.header.height;
        let continues =
            first.block.header.height == self.next && first.block.header.prev_block_hash == self.below;
        if !continues || height > self.height || (height == self.height && last.hash != self.tip) {
            return Err(ServerError::Moved(self.next));
        }
        let mut json = String::new();
        for block in &blocks {
            json.push(if block.block.header.height == 0 { '[' } else { ',' });
            write_block(&mut json, block);
        }
        (self.next, self.below) = (height + 1, last.hash);
        if self.is_done() {
            json.push_str("]\n");
        }
        Ok(Bytes::from(json))
    }
}

/// Writes the original's six keys, in alphabetical order as it does.
fn write_block(json: &mut String, stored: &StoredBlock) {
    let header = &stored.block.header;
    json.push_str("{\"data\":");
    match header.height {
        0 => json.push_str("\"Genesis Block\""),
        _ => write_payloads(json, &stored.block.transactions),
    }
    let previous: &dyn std::fmt::Display = if header.height == 0 { &"0" } else { &header.prev_block_hash };
    // As Python's float text, which always shows a fraction.
    let timestamp = header.timestamp_ms as f64 / 1000.0;
    write!(
        json,
        ",\"hash\":\"{}\",\"index\":{},\"nonce\":{},\"previous hash\":\"{previous}\",\"timestamp\":{timestamp:?}}}",
        stored.hash, header.height, header.nonce,
    )
    .expect("a String takes any text");
}

fn write_payloads(json: &mut String, transactions: &[Transaction]) {
    json.push('[');
    for (position, transaction) in transactions.iter().enumerate() {
        if position > 0 {
            json.push(',');
        }
        match transaction.statement() {
            Some(statement) if is_json(&statement.payload) => json.push_str(&statement.payload),
            // That a payload is JSON is a rule of admission: an imported chain may hold others.
            Some(statement) => write_string(json, &statement.payload),
            // Dropped by whoever exported the chain.
            None => json.push_str("null"),
        }
    }
    json.push(']');
}

/// Depth counts too: the readers of this list must be able to read every payload.
fn is_json(payload: &str) -> bool {
    let mut tokens = Tokens::new(payload, JSON_DEPTH_MAX);
    loop {
        match tokens.next_token() {
            Ok(Some(_)) => {}
            end => return end.is_ok(),
        }
    }
}

fn write_string(json: &mut String, text: &str) {
    json.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => json.extend(['\\', character]),
            '\0'..' ' => write!(json, "\\u{:04x}", u32::from(character)).expect("a String takes any text"),
            _ => json.push(character),
        }
    }
    json.push('"');
}

#[cfg(test)]
mod tests {
    use liotbchain_core::{
        Block, Content, Difficulty, Header, KeyId, Root, Statement, Work, hash::ContentHash,
    };

    use super::*;

    fn stored(height: Height, timestamp_ms: u64, contents: Vec<Content>) -> StoredBlock {
        let header = Header {
            prev_block_hash: BlockHash([1; 32]),
            transactions_root: Root::ZERO,
            history_root: Root::ZERO,
            height,
            timestamp_ms,
            bits: Difficulty::MAX.bits(),
            nonce: 7,
        };
        let transactions = contents.into_iter().map(|content| Transaction { sequence: 0, content }).collect();
        let block = Block { header, transactions };
        StoredBlock { hash: BlockHash([2; 32]), total_work: Work::ZERO, block, ids: vec![] }
    }

    fn payload(payload: &str) -> Content {
        let statement = Statement { key_id: KeyId([3; 32]), payload: payload.to_owned(), signature: vec![] };
        Content::Full(Arc::new(statement))
    }

    fn json(block: &StoredBlock) -> String {
        let mut json = String::new();
        write_block(&mut json, block);
        json
    }

    #[test]
    fn writes_payloads_verbatim_in_the_originals_form() {
        let block = stored(5, 1_795_345_827_157, vec![payload(r#"{"b" : 1.10, "a":"é"}"#), payload("null")]);
        let (hash, previous) = ("02".repeat(32), "01".repeat(32));
        let expected = format!(
            "{{\"data\":[{{\"b\" : 1.10, \"a\":\"é\"}},null],\"hash\":\"{hash}\",\"index\":5,\"nonce\":7,\
             \"previous hash\":\"{previous}\",\"timestamp\":1795345827.157}}"
        );
        assert_eq!(json(&block), expected);
    }

    #[test]
    fn writes_the_genesis_block_as_the_original_does() {
        let json: serde_json::Value =
            serde_json::from_str(&json(&stored(0, 1000, vec![payload("{}")]))).unwrap();
        assert_eq!(json["data"], "Genesis Block");
        assert_eq!(json["previous hash"], "0");
    }

    #[test]
    fn writes_seconds_as_python_does() {
        for (ms, text) in [
            (0, "0.0"),
            (1, "0.001"),
            (1_000, "1.0"),
            (1_795_345_827_100, "1795345827.1"),
            (1_795_345_827_999, "1795345827.999"),
        ] {
            let json = json(&stored(1, ms, vec![]));
            assert!(json.ends_with(&format!("\"timestamp\":{text}}}")), "{json}");
        }
    }

    #[test]
    fn stays_json_whatever_a_payload_is() {
        let deep = "[".repeat(1000) + &"]".repeat(1000);
        let texts = ["no \"JSON\" \\ \u{1}\n\u{7f}é", "{\"a\":1} 2", "NaN", "", deep.as_str()];
        let pruned = Content::Pruned { key_id: KeyId([3; 32]), content_hash: ContentHash([4; 32]) };
        let contents = texts.iter().map(|text| payload(text)).chain([pruned]).collect();
        let json: serde_json::Value = serde_json::from_str(&json(&stored(1, 0, contents))).unwrap();
        for (position, text) in texts.iter().enumerate() {
            assert_eq!(json["data"][position], *text);
        }
        assert_eq!(json["data"][texts.len()], serde_json::Value::Null);
    }
}
