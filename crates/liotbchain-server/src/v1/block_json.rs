//! Blocks and their transactions as JSON, with the names of docs/chain-format.md.

use base64::{Engine, engine::general_purpose::STANDARD};
use liotbchain_core::{
    Block, BlockHash, Content, Header, Height, KeyId, Root, TimestampMs, Transaction, TransactionId, Work,
    hash::ContentHash,
};
use serde::Serialize;
use utoipa::ToSchema;

/// A block.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Block)]
pub(crate) struct BlockJson<'a> {
    /// SHA-256 of the header.
    #[schema(value_type = String)]
    pub(crate) hash: BlockHash,
    /// Whether it is on the best chain; otherwise a reorganisation took it off.
    pub(crate) best_chain: bool,
    /// Version of the header's format.
    #[schema(example = 1)]
    version: u16,
    /// Hash of the block below; zeros in the genesis block.
    #[schema(value_type = String)]
    prev_block_hash: BlockHash,
    /// Merkle root over the transactions.
    #[schema(value_type = String)]
    transactions_root: Root,
    /// Merkle root over the hashes of all blocks below.
    #[schema(value_type = String)]
    history_root: Root,
    /// Blocks below.
    #[schema(value_type = u64)]
    height: Height,
    /// Milliseconds since 1970.
    #[schema(value_type = u64)]
    timestamp_ms: TimestampMs,
    /// Compact target.
    #[schema(value_type = u64)]
    bits: u32,
    /// What mining found.
    #[schema(value_type = u64)]
    nonce: u32,
    /// Work of this block and all below, a decimal number; not on side branches.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    total_work: Option<String>,
    /// Transactions in the block.
    transaction_count: usize,
    /// They, in their order.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    transactions: Option<Vec<TransactionJson<'a>>>,
}

/// A transaction of a block. A pruned one has `content_hash` in place of `id`, `payload` and `signature`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BlockTransaction)]
struct TransactionJson<'a> {
    /// Its id.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, nullable = false)]
    id: Option<TransactionId>,
    /// Who signed; zeros where nobody did.
    #[schema(value_type = String)]
    key_id: KeyId,
    /// Its number among all of its key, from 0.
    sequence: u64,
    /// The exact text that was signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    payload: Option<&'a str>,
    /// The signature in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    signature: Option<String>,
    /// Stands for payload and signature that were dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, nullable = false)]
    content_hash: Option<ContentHash>,
    /// There, and true, where payload and signature were dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pruned: Option<bool>,
}

impl<'a> BlockJson<'a> {
    /// Describes a block of the best chain without its transactions.
    pub(crate) fn new(hash: BlockHash, total_work: Work, block: &Block) -> Self {
        let Header { prev_block_hash, transactions_root, history_root, height, timestamp_ms, bits, nonce } =
            block.header;
        Self {
            hash,
            best_chain: true,
            version: Header::VERSION,
            prev_block_hash,
            transactions_root,
            history_root,
            height,
            timestamp_ms,
            bits: bits.0,
            nonce,
            total_work: Some(total_work.to_string()),
            transaction_count: block.transactions.len(),
            transactions: None,
        }
    }

    /// Describes a block of a side branch, whose work below nobody keeps.
    pub(crate) fn side(hash: BlockHash, block: &Block) -> Self {
        Self { best_chain: false, total_work: None, ..Self::new(hash, Work::ZERO, block) }
    }

    /// Adds the transactions, with their ids.
    pub(crate) fn with_transactions(
        mut self,
        transactions: &'a [Transaction],
        ids: impl IntoIterator<Item = Option<TransactionId>>,
    ) -> Self {
        let described =
            transactions.iter().zip(ids).map(|(transaction, id)| TransactionJson::new(transaction, id));
        self.transactions = Some(described.collect());
        self
    }
}

impl<'a> TransactionJson<'a> {
    fn new(transaction: &'a Transaction, id: Option<TransactionId>) -> Self {
        let sequence = transaction.sequence;
        match &transaction.content {
            Content::Full(statement) => Self {
                id,
                key_id: statement.key_id,
                sequence,
                payload: Some(&statement.payload),
                signature: Some(STANDARD.encode(&statement.signature)),
                content_hash: None,
                pruned: None,
            },
            Content::Pruned { key_id, content_hash } => Self {
                id: None,
                key_id: *key_id,
                sequence,
                payload: None,
                signature: None,
                content_hash: Some(*content_hash),
                pruned: Some(true),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use liotbchain_core::{Difficulty, Statement};
    use serde_json::json;

    use super::*;

    #[test]
    fn shows_what_is_there_and_what_was_pruned() {
        let header = Header {
            prev_block_hash: BlockHash([1; 32]),
            transactions_root: Root::ZERO,
            history_root: Root::ZERO,
            height: 3,
            timestamp_ms: 4,
            bits: Difficulty::MAX.bits(),
            nonce: 7,
        };
        let statement =
            Statement { key_id: KeyId([2; 32]), payload: "{}".to_owned(), signature: vec![0, 255] };
        let id = statement.id();
        let pruned = Content::Pruned { key_id: KeyId([3; 32]), content_hash: ContentHash([4; 32]) };
        let block = Block {
            header,
            transactions: vec![
                Transaction { sequence: 5, content: Content::Full(Arc::new(statement)) },
                Transaction { sequence: 6, content: pruned },
            ],
        };
        let shown = BlockJson::side(BlockHash([9; 32]), &block)
            .with_transactions(&block.transactions, [Some(id), None]);
        let shown = serde_json::to_value(shown).unwrap();
        assert_eq!(shown["transaction_count"], 2);
        assert_eq!(shown.get("total_work"), None);
        let (two, three, four) = ("02".repeat(32), "03".repeat(32), "04".repeat(32));
        let expected = json!([
            {"id": id.to_string(), "key_id": two, "sequence": 5, "payload": "{}", "signature": "AP8="},
            {"key_id": three, "sequence": 6, "content_hash": four, "pruned": true},
        ]);
        assert_eq!(shown["transactions"], expected);
    }
}
