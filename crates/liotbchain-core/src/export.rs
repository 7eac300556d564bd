//! The export of a chain: one JSON object a line, checked with nothing but this file and SHA-256.

use std::{borrow::Cow, fmt};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use crate::{
    Height,
    block::{Block, CheckedBlock, Header},
    chain::{Branch, ChainFault, Validator},
    codec::{self, DecodeError},
    hash::{BlockHash, ContentHash, KeyId},
    key::{PublicKey, PublicKeyError},
    object::{Object, objects, present},
    transaction::{Content, Statement, Transaction},
};

/// Most bytes of a line: a block of 8,000 transactions, whose payloads of 64 KiB each take six bytes a byte where all of
/// it is escaped, and 1,024 bytes for what stands beside a payload.
pub const LINE_SIZE_MAX: usize = 8_000 * (6 * 65_536 + 1_024);

/// One line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Line<'a> {
    /// The first line: what follows.
    Chain {
        /// The format's version: 1.
        version: u32,
        /// Hash of the first block.
        genesis: BlockHash,
        /// Hash of the last block.
        tip: BlockHash,
        /// Height of the last block.
        height: Height,
    },
    /// A public key, before the first block that needs it.
    Key {
        /// Its id.
        key_id: KeyId,
        /// PEM text.
        #[serde(borrow)]
        public_key: Cow<'a, str>,
    },
    /// A block.
    Block {
        /// Its height.
        height: Height,
        /// Its hash.
        hash: BlockHash,
        /// 118 bytes in hexadecimal.
        #[serde(borrow)]
        header: Cow<'a, str>,
        /// In block order.
        #[serde(borrow, deserialize_with = "objects")]
        transactions: Vec<LineTransaction<'a>>,
    },
    /// The last line: what stands above it. Earlier versions wrote none.
    End(Totals),
}

/// What an export holds, for whoever reads its end only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Totals {
    /// Blocks, the genesis block with them.
    pub blocks: u64,
    /// Transactions in them.
    pub transactions: u64,
    /// Hash of the last block.
    pub tip: BlockHash,
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} blocks, {} transactions, tip {}", self.blocks, self.transactions, self.tip)
    }
}

/// A transaction in a line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LineTransaction<'a> {
    key_id: KeyId,
    sequence: u64,
    #[serde(borrow, default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    payload: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    signature: Option<Cow<'a, str>>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    content_hash: Option<ContentHash>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pruned: Option<bool>,
}

impl LineTransaction<'_> {
    /// Returns the transaction, none where it is neither whole nor pruned.
    pub(crate) fn into_transaction(self) -> Option<Transaction> {
        let Self { key_id, sequence, payload, signature, content_hash, pruned } = self;
        let content = match (payload, signature, content_hash, pruned) {
            (Some(payload), Some(signature), None, None) => {
                let signature = STANDARD.decode(signature.as_bytes()).ok()?;
                Content::Full(Statement { key_id, payload: payload.into_owned(), signature }.into())
            }
            (None, None, Some(content_hash), Some(true)) => Content::Pruned { key_id, content_hash },
            _ => return None,
        };
        Some(Transaction { sequence, content })
    }
}

impl<'a> From<&'a Transaction> for LineTransaction<'a> {
    fn from(transaction: &'a Transaction) -> Self {
        let sequence = transaction.sequence;
        match &transaction.content {
            Content::Full(statement) => Self {
                key_id: statement.key_id,
                sequence,
                payload: Some(statement.payload.as_str().into()),
                signature: Some(STANDARD.encode(&statement.signature).into()),
                content_hash: None,
                pruned: None,
            },
            Content::Pruned { key_id, content_hash } => Self {
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

/// Why a text is not a valid export.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExportError {
    /// A line is not one of the four kinds.
    #[error("line {line}: {reason}")]
    Line {
        /// Counted from 1.
        line: u64,
        /// What the JSON reader says.
        reason: String,
    },
    /// The first line must say what follows, once.
    #[error("line {line}: the line of type \"chain\" must come first, and once")]
    FirstLine {
        /// Counted from 1.
        line: u64,
    },
    /// Another version of the export.
    #[error("export version {got}: expected 1")]
    Version {
        /// The version found.
        got: u32,
    },
    /// A public key is not usable.
    #[error("line {line}: {error}")]
    PublicKey {
        /// Counted from 1.
        line: u64,
        /// The rule that it breaks.
        error: PublicKeyError,
    },
    /// A public key is usable, but not written as the format writes it.
    #[error(
        "line {line}: public_key must be PEM in lines of 64 characters, with LF at their ends and nothing around it"
    )]
    PublicKeyText {
        /// Counted from 1.
        line: u64,
    },
    /// A public key has another id than its line says.
    #[error("line {line}: key_id is {got}: the public key gives {expected}")]
    KeyId {
        /// Counted from 1.
        line: u64,
        /// The line's.
        got: KeyId,
        /// SHA-256 of the key.
        expected: KeyId,
    },
    /// A header is not 118 bytes in hexadecimal, or of another version.
    #[error("block {height}: header: {error}")]
    Header {
        /// The block's height.
        height: Height,
        /// The structural rule.
        error: DecodeError,
    },
    /// A line's hash or height is not its header's.
    #[error("block {height}: {field} of the line is not its header's")]
    BlockLine {
        /// The line's height.
        height: Height,
        /// `hash` or `height`.
        field: &'static str,
    },
    /// A transaction is neither whole nor pruned.
    #[error(
        "block {height}, transaction {position}: expected payload and signature in base64, or content_hash and pruned"
    )]
    Transaction {
        /// The block's height.
        height: Height,
        /// Place in the block.
        position: usize,
    },
    /// A block breaks a rule.
    #[error(transparent)]
    Chain(#[from] ChainFault),
    /// The first line names another genesis block.
    #[error("genesis of the first line is {got}: the first block has the hash {expected}")]
    Genesis {
        /// The first line's.
        got: BlockHash,
        /// The first block's.
        expected: BlockHash,
    },
    /// The export ends before or after the tip that its first line names.
    #[error(
        "the first line says tip {tip} at height {height}: the last block is {got} at height {got_height}"
    )]
    Tip {
        /// The first line's.
        tip: BlockHash,
        /// The first line's.
        height: Height,
        /// The last block's.
        got: BlockHash,
        /// The last block's.
        got_height: Height,
    },
    /// The last line tells of other blocks than stand above it.
    #[error("line {line}: the end says {got}: above it stand {expected}")]
    End {
        /// Counted from 1.
        line: u64,
        /// What the line says.
        got: Totals,
        /// What was read.
        expected: Totals,
    },
    /// Something stands below the last line.
    #[error("line {line}: nothing may follow the line of type \"end\"")]
    AfterEnd {
        /// Counted from 1.
        line: u64,
    },
    /// No block at all.
    #[error("the export holds no block")]
    Empty,
}

/// Returns the first line for a chain.
pub fn chain_line(genesis: BlockHash, tip: BlockHash, height: Height) -> String {
    to_line(&Line::Chain { version: 1, genesis, tip, height })
}

/// Returns the line of a public key.
pub fn key_line(public_key: &PublicKey) -> String {
    to_line(&Line::Key { key_id: public_key.key_id(), public_key: public_key.to_pem().into() })
}

/// Returns the line of a block.
pub fn block_line(block: &Block) -> String {
    let transactions = block.transactions.iter().map(LineTransaction::from);
    to_line(&Line::Block {
        height: block.header.height,
        hash: block.header.compute_hash(),
        header: hex::encode(block.header.encode()).into(),
        transactions: transactions.collect(),
    })
}

/// Returns the last line.
pub fn end_line(totals: Totals) -> String {
    to_line(&Line::End(totals))
}

fn to_line(line: &Line<'_>) -> String {
    let mut text = serde_json::to_string(line).expect("a struct of text and numbers is JSON");
    text.push('\n');
    text
}

/// Checks an export line by line: every rule of the chain, and that it is whole.
#[derive(Debug)]
pub struct Reader {
    line: u64,
    promised: Option<(BlockHash, BlockHash, Height)>,
    validator: Validator,
    has_ended: bool,
}

/// What a line brought.
#[derive(Debug)]
pub enum Read {
    /// The first line: the height of the last block.
    Start {
        /// The height of the last block.
        height: Height,
    },
    /// A public key.
    Key(PublicKey),
    /// A block that keeps every rule.
    Block(Box<CheckedBlock>),
    /// The last line.
    End,
}

impl Default for Reader {
    fn default() -> Self {
        Self { line: 0, promised: None, validator: Validator::new(), has_ended: false }
    }
}

impl Reader {
    /// Reads and checks the next line.
    ///
    /// # Errors
    ///
    /// [`ExportError`] names line or block, and the rule.
    pub fn push(&mut self, text: &str) -> Result<Read, ExportError> {
        self.line += 1;
        let line = self.line;
        let refused = |error: serde_json::Error| ExportError::Line { line, reason: error.to_string() };
        let Object(parsed) = serde_json::from_str(text).map_err(refused)?;
        if matches!(parsed, Line::Chain { .. }) != self.promised.is_none() {
            return Err(ExportError::FirstLine { line });
        }
        if self.has_ended {
            return Err(ExportError::AfterEnd { line });
        }
        match parsed {
            Line::Chain { version: 1, genesis, tip, height } => {
                self.promised = Some((genesis, tip, height));
                Ok(Read::Start { height })
            }
            Line::Chain { version: got, .. } => Err(ExportError::Version { got }),
            Line::Key { key_id, public_key } => self.push_key(key_id, &public_key).map(Read::Key),
            Line::Block { height, hash, header, transactions } => {
                self.push_block(height, hash, &header, transactions).map(|block| Read::Block(Box::new(block)))
            }
            Line::End(got) => self.push_end(got),
        }
    }

    fn push_end(&mut self, got: Totals) -> Result<Read, ExportError> {
        let branch = self.validator.branch().ok_or(ExportError::Empty)?;
        let (blocks, transactions) = (u64::from(branch.next_height()), self.validator.transactions());
        let expected = Totals { blocks, transactions, tip: branch.tip() };
        if got != expected {
            return Err(ExportError::End { line: self.line, got, expected });
        }
        self.has_ended = true;
        Ok(Read::End)
    }

    fn push_key(&mut self, key_id: KeyId, pem: &str) -> Result<PublicKey, ExportError> {
        let line = self.line;
        let key = PublicKey::from_pem(pem).map_err(|error| ExportError::PublicKey { line, error })?;
        if key.to_pem() != pem {
            return Err(ExportError::PublicKeyText { line });
        }
        if key.key_id() != key_id {
            return Err(ExportError::KeyId { line, got: key_id, expected: key.key_id() });
        }
        self.validator.add_key(key.clone());
        Ok(key)
    }

    fn push_block(
        &mut self,
        height: Height,
        hash: BlockHash,
        header: &str,
        transactions: Vec<LineTransaction<'_>>,
    ) -> Result<CheckedBlock, ExportError> {
        let header = parse_header(header).map_err(|error| ExportError::Header { height, error })?;
        if header.height != height {
            return Err(ExportError::BlockLine { height, field: "height" });
        }
        if header.compute_hash() != hash {
            return Err(ExportError::BlockLine { height, field: "hash" });
        }
        let transactions = transactions.into_iter().enumerate().map(|(position, transaction)| {
            transaction.into_transaction().ok_or(ExportError::Transaction { height, position })
        });
        let block = Block { header, transactions: transactions.collect::<Result<_, _>>()? };
        let checked = self.validator.push(block)?;
        if let Some((genesis, ..)) = self.promised
            && height == 0
            && genesis != hash
        {
            return Err(ExportError::Genesis { got: genesis, expected: hash });
        }
        Ok(checked)
    }

    /// Checks that the last block is the one that the first line names, and returns the validator.
    ///
    /// # Errors
    ///
    /// [`ExportError::Tip`], or [`ExportError::Empty`].
    pub fn finish(self) -> Result<Validator, ExportError> {
        let (Some(branch), Some((_, tip, height))) = (self.validator.branch(), self.promised) else {
            return Err(ExportError::Empty);
        };
        let (got, got_height) = (Branch::tip(branch), branch.height());
        if (got, got_height) != (tip, height) {
            return Err(ExportError::Tip { tip, height, got, got_height });
        }
        Ok(self.validator)
    }
}

/// Reads a header in hexadecimal.
pub(crate) fn parse_header(text: &str) -> Result<Header, DecodeError> {
    // What is no lower-case hexadecimal is no header: it decodes as no bytes at all.
    let is_lower_case = !text.bytes().any(|byte| byte.is_ascii_uppercase());
    let bytes = hex::decode(text).ok().filter(|_| is_lower_case).unwrap_or_default();
    codec::decode_header_bytes(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four blocks, as they were exported before there was a last line.
    const GOLDEN: &str = include_str!("../../../testdata/format/chain-v1.ndjson");

    fn read(end: &str) -> Result<Validator, ExportError> {
        let mut reader = Reader::default();
        for line in GOLDEN.lines().chain(end.lines()) {
            reader.push(line)?;
        }
        reader.finish()
    }

    fn totals() -> Totals {
        let validator = read("").unwrap();
        let branch = validator.branch().unwrap();
        Totals { blocks: 4, transactions: validator.transactions(), tip: branch.tip() }
    }

    #[test]
    fn takes_an_export_with_and_without_its_end() {
        assert!(read("").is_ok());
        assert!(read(&end_line(totals())).is_ok());
    }

    #[test]
    fn refuses_an_end_that_is_not_true() {
        let (expected, line) = (totals(), GOLDEN.lines().count() as u64 + 1);
        for got in [
            Totals { blocks: 3, ..expected },
            Totals { transactions: expected.transactions + 1, ..expected },
            Totals { tip: BlockHash::ZERO, ..expected },
        ] {
            assert_eq!(read(&end_line(got)).unwrap_err(), ExportError::End { line, got, expected });
        }
        let more = end_line(expected).replace('}', ",\"more\":1}");
        assert!(matches!(read(&more).unwrap_err(), ExportError::Line { .. }));
    }

    #[test]
    fn refuses_what_follows_the_end_and_an_end_of_nothing() {
        let end = end_line(totals());
        let line = GOLDEN.lines().count() as u64 + 2;
        assert_eq!(read(&(end.clone() + &end)).unwrap_err(), ExportError::AfterEnd { line });
        let mut reader = Reader::default();
        reader.push(GOLDEN.lines().next().unwrap()).unwrap();
        assert_eq!(reader.push(&end).unwrap_err(), ExportError::Empty);
    }
}
