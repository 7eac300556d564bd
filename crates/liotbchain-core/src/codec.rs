//! Canonical bytes of a block, and their bounded decoding.
//!
//! Nothing is allocated before the bytes that fill it were seen, so a length field alone cannot make memory grow.

use std::sync::Arc;

use crate::{
    block::{Block, Header},
    hash::{ContentHash, KeyId},
    transaction::{Content, PAYLOAD_SIZE_MAX, Statement, Transaction},
};

/// Bytes of the smallest transaction: key, sequence, payload length, one byte, signature length.
const TRANSACTION_SIZE_MIN: usize = 32 + 8 + 4 + 1 + 2;

/// Why bytes are not a block: the structural rules of the format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end early.
    #[error("the bytes end early: expected {expected} more, got {got}")]
    Truncated {
        /// Bytes that the field needs.
        expected: usize,
        /// Bytes that are left.
        got: usize,
    },
    /// Bytes are left over.
    #[error("{extra} bytes are left over after the last transaction")]
    TrailingBytes {
        /// How many.
        extra: usize,
    },
    /// Another version of the format.
    #[error("header version {got}: expected {}", Header::VERSION)]
    Version {
        /// The version found.
        got: u16,
    },
    /// More transactions are announced than the bytes can hold.
    #[error("{count} transactions announced in {got} bytes")]
    TransactionCount {
        /// The count announced.
        count: u32,
        /// Bytes that are left.
        got: usize,
    },
    /// A payload is empty or too long.
    #[error("transaction {position}: payload of {size} bytes: expected 1 to {PAYLOAD_SIZE_MAX}")]
    PayloadSize {
        /// Place of the transaction in its block.
        position: usize,
        /// Bytes of the payload.
        size: usize,
    },
    /// A payload is not text.
    #[error("transaction {position}: the payload is not UTF-8")]
    PayloadNotUtf8 {
        /// Place of the transaction in its block.
        position: usize,
    },
}

/// A pruned transaction has no canonical bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("transaction {position} is pruned: its bytes are gone")]
pub struct PrunedError {
    /// Place of the transaction in its block.
    pub position: usize,
}

/// Returns header ‖ transaction count ‖ transactions.
///
/// # Errors
///
/// [`PrunedError`] where payload and signature of a transaction were dropped.
pub fn encode_block(block: &Block) -> Result<Vec<u8>, PrunedError> {
    match block.transactions.iter().position(|transaction| transaction.statement().is_none()) {
        Some(position) => Err(PrunedError { position }),
        None => Ok(encode_kept_block(block)),
    }
}

/// Returns what is left of a block whose transactions may be pruned: the canonical bytes, where a payload length of 0,
/// which no payload has, is followed by the content hash of a pruned one. For a store, and never hashed.
pub fn encode_kept_block(block: &Block) -> Vec<u8> {
    let mut bytes = block.header.encode().to_vec();
    bytes.extend_from_slice(&(block.transactions.len() as u32).to_be_bytes());
    for transaction in &block.transactions {
        bytes.extend_from_slice(&transaction.key_id().0);
        bytes.extend_from_slice(&transaction.sequence.to_be_bytes());
        match &transaction.content {
            Content::Full(statement) => {
                bytes.extend_from_slice(&(statement.payload.len() as u32).to_be_bytes());
                bytes.extend_from_slice(statement.payload.as_bytes());
                bytes.extend_from_slice(&(statement.signature.len() as u16).to_be_bytes());
                bytes.extend_from_slice(&statement.signature);
            }
            Content::Pruned { content_hash, .. } => {
                bytes.extend_from_slice(&0u32.to_be_bytes());
                bytes.extend_from_slice(&content_hash.0);
            }
        }
    }
    bytes
}

/// Decodes what [`encode_block`] wrote, and nothing else.
///
/// # Errors
///
/// [`DecodeError`] names the structural rule that the bytes break.
pub fn decode_block(bytes: &[u8]) -> Result<Block, DecodeError> {
    decode(bytes, Pruned::Refused)
}

/// Decodes what [`encode_kept_block`] wrote, and nothing else.
///
/// # Errors
///
/// [`DecodeError`] names the structural rule that the bytes break.
pub fn decode_kept_block(bytes: &[u8]) -> Result<Block, DecodeError> {
    decode(bytes, Pruned::Taken)
}

/// Whether a payload length of 0 announces a pruned transaction, or is an error.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pruned {
    Refused,
    Taken,
}

fn decode(bytes: &[u8], pruned: Pruned) -> Result<Block, DecodeError> {
    let mut reader = Reader { rest: bytes };
    let header = decode_header(&mut reader)?;
    let count = u32::from_be_bytes(reader.array()?);
    if count as usize > reader.rest.len() / TRANSACTION_SIZE_MIN {
        return Err(DecodeError::TransactionCount { count, got: reader.rest.len() });
    }
    let transactions = (0..count as usize)
        .map(|position| decode_transaction(&mut reader, position, pruned))
        .collect::<Result<_, _>>()?;
    reader.finish()?;
    Ok(Block { header, transactions })
}

/// Decodes exactly a header.
///
/// # Errors
///
/// [`DecodeError`] on another length or version.
pub fn decode_header_bytes(bytes: &[u8]) -> Result<Header, DecodeError> {
    let mut reader = Reader { rest: bytes };
    let header = decode_header(&mut reader)?;
    reader.finish()?;
    Ok(header)
}

fn decode_header(reader: &mut Reader<'_>) -> Result<Header, DecodeError> {
    let bytes = reader.array()?;
    let header = Header::decode(&bytes);
    match u16::from_be_bytes([bytes[0], bytes[1]]) {
        Header::VERSION => Ok(header),
        got => Err(DecodeError::Version { got }),
    }
}

fn decode_transaction(
    reader: &mut Reader<'_>,
    position: usize,
    pruned: Pruned,
) -> Result<Transaction, DecodeError> {
    let key_id = KeyId(reader.array()?);
    let sequence = u64::from_be_bytes(reader.array()?);
    let size = u32::from_be_bytes(reader.array()?) as usize;
    if size == 0 && pruned == Pruned::Taken {
        let content_hash = ContentHash(reader.array()?);
        return Ok(Transaction { sequence, content: Content::Pruned { key_id, content_hash } });
    }
    if size == 0 || size > PAYLOAD_SIZE_MAX {
        return Err(DecodeError::PayloadSize { position, size });
    }
    let payload =
        std::str::from_utf8(reader.take(size)?).map_err(|_| DecodeError::PayloadNotUtf8 { position })?;
    let signature_size = u16::from_be_bytes(reader.array()?);
    let signature = reader.take(usize::from(signature_size))?.to_vec();
    let statement = Statement { key_id, payload: payload.to_owned(), signature };
    Ok(Transaction { sequence, content: Content::Full(Arc::new(statement)) })
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, size: usize) -> Result<&'a [u8], DecodeError> {
        let truncated = DecodeError::Truncated { expected: size, got: self.rest.len() };
        let (taken, rest) = self.rest.split_at_checked(size).ok_or(truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let truncated = DecodeError::Truncated { expected: N, got: self.rest.len() };
        let (taken, rest) = self.rest.split_first_chunk().ok_or(truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn finish(self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            extra => Err(DecodeError::TrailingBytes { extra }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        hash::{BlockHash, Root},
        pow::Bits,
    };

    prop_compose! {
        fn transaction()(key in any::<[u8; 32]>(), sequence: u64, payload in ".{1,40}", signature in prop::collection::vec(any::<u8>(), 0..80)) -> Transaction {
            Transaction { sequence, content: Content::Full(Arc::new(Statement { key_id: KeyId(key), payload, signature })) }
        }
    }

    prop_compose! {
        fn block()(prev: [u8; 32], root: [u8; 32], history: [u8; 32], height: u32, timestamp_ms: u64, bits: u32, nonce: u32, transactions in prop::collection::vec(transaction(), 0..5)) -> Block {
            let header = Header {
                prev_block_hash: BlockHash(prev), transactions_root: Root(root), history_root: Root(history),
                height, timestamp_ms, bits: Bits(bits), nonce,
            };
            Block { header, transactions }
        }
    }

    proptest! {
        #[test]
        fn round_trips(block in block()) {
            let bytes = encode_block(&block).unwrap();
            prop_assert_eq!(decode_block(&bytes), Ok(block));
        }

        #[test]
        fn a_kept_block_round_trips_with_some_pruned(block in block(), hashes: [Option<[u8; 32]>; 5]) {
            let mut pruned = block.clone();
            for (transaction, hash) in pruned.transactions.iter_mut().zip(hashes) {
                if let Some(hash) = hash {
                    let key_id = transaction.key_id();
                    transaction.content = Content::Pruned { key_id, content_hash: ContentHash(hash) };
                }
            }
            let bytes = encode_kept_block(&pruned);
            prop_assert_eq!(decode_kept_block(&bytes), Ok(pruned.clone()));
            for end in 0..bytes.len() {
                prop_assert!(decode_kept_block(&bytes[..end]).is_err());
            }
            if pruned == block {
                prop_assert_eq!(encode_block(&block), Ok(bytes));
            } else {
                prop_assert!(encode_block(&pruned).is_err() && decode_block(&bytes).is_err());
            }
        }

        #[test]
        fn every_shorter_or_longer_text_is_refused(block in block()) {
            let mut bytes = encode_block(&block).unwrap();
            for end in 0..bytes.len() {
                prop_assert!(decode_block(&bytes[..end]).is_err());
            }
            bytes.push(0);
            prop_assert_eq!(decode_block(&bytes), Err(DecodeError::TrailingBytes { extra: 1 }));
        }

        #[test]
        fn what_decodes_encodes_to_the_same_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut bytes = bytes;
            if bytes.len() >= 122 {
                bytes[..2].copy_from_slice(&1u16.to_be_bytes());
                bytes[118..122].copy_from_slice(&1u32.to_be_bytes());
            }
            if let Ok(block) = decode_block(&bytes) {
                prop_assert_eq!(encode_block(&block).unwrap(), bytes);
            }
        }
    }

    fn one_transaction(payload_size: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 1];
        bytes.resize(118, 0);
        bytes.extend_from_slice(&1u32.to_be_bytes());
        bytes.resize(bytes.len() + 40, 0);
        bytes.extend_from_slice(&payload_size.to_be_bytes());
        bytes.extend_from_slice(payload);
        bytes.extend_from_slice(&[0, 0]);
        bytes
    }

    #[test]
    fn each_structural_rule_has_its_error() {
        assert!(decode_block(&one_transaction(2, b"{}")).is_ok());
        let mut other_version = one_transaction(2, b"{}");
        other_version[1] = 2;
        assert_eq!(decode_block(&other_version), Err(DecodeError::Version { got: 2 }));
        let mut many = one_transaction(2, b"{}");
        many[118] = 0xff;
        assert_eq!(decode_block(&many), Err(DecodeError::TransactionCount { count: 0xff00_0001, got: 48 }));
        assert_eq!(
            decode_block(&one_transaction(0, b"{}")),
            Err(DecodeError::PayloadSize { position: 0, size: 0 })
        );
        assert_eq!(
            decode_block(&one_transaction(2, b"\xff\xff")),
            Err(DecodeError::PayloadNotUtf8 { position: 0 })
        );
        assert_eq!(
            decode_block(&one_transaction(65_537, b"{}")),
            Err(DecodeError::PayloadSize { position: 0, size: 65_537 })
        );
    }
}
