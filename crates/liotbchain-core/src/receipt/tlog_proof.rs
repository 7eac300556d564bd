//! A receipt in the form of [c2sp.org/tlog-proof](https://c2sp.org/tlog-proof), which programs of others can check as far as
//! the block: the log's entry is the block's hash, and what leads from the transaction to it stands in `extra`.
//!
//! ```text
//! c2sp.org/tlog-proof@v1
//! extra eyJ0eXBlIjoicmVjZWlwdCI…      the receipt, without what stands below
//! index 73894                         the block's height
//! gSKyXoYZUgZ6jduWYrkDOARinOMGJve…    the path from the block to the root
//!
//! liotbchain/<genesis hash>           the checkpoint
//! ```

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{FILE_SIZE_MAX, FileError, ProofFile, Receipt};
use crate::{
    checkpoint::{parse_hash, parse_size},
    note::{Note, NoteError},
};

/// The first line.
pub const FIRST_LINE: &str = "c2sp.org/tlog-proof@v1";
/// Hashes of a path that the specification's trees can have.
const PATH_MAX: usize = 64;

/// Why a text is no such proof, or not one of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlogProofError {
    /// Larger than any proof needs to be.
    #[error("larger than {FILE_SIZE_MAX} bytes")]
    TooLarge,
    /// Another first line.
    #[error("the first line is not {FIRST_LINE:?}")]
    FirstLine,
    /// A line that is not what should stand there.
    #[error("line {line}: expected {expected}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What should stand there.
        expected: &'static str,
    },
    /// The checkpoint is no signed note.
    #[error("checkpoint: {0}")]
    Checkpoint(#[from] NoteError),
    /// What stands in `extra` is no receipt.
    #[error("extra: {0}")]
    Extra(FileError),
    /// What stands in `extra` says again what stands below, or is another kind of file.
    #[error("extra: expected a receipt without history_path and checkpoint")]
    Twice,
    /// The index is not the block's height.
    #[error("index is {index}: the block has the height {height}")]
    Index {
        /// The proof's.
        index: u64,
        /// The block's.
        height: u64,
    },
}

impl Receipt {
    /// Returns the receipt in this form; none where it does not end in a checkpoint.
    pub fn to_tlog_proof(&self) -> Option<String> {
        let mut rest = self.clone();
        let (path, checkpoint) = (rest.block.history_path.take()?, rest.anchor.checkpoint.take()?);
        let extra = STANDARD.encode(ProofFile::Receipt(Box::new(rest)).to_json());
        let mut text = format!("{FIRST_LINE}\nextra {extra}\nindex {}\n", self.block.header.height);
        for hash in path {
            text.push_str(&STANDARD.encode(hash));
            text.push('\n');
        }
        text.push('\n');
        text.push_str(&checkpoint.to_string());
        Some(text)
    }

    /// Reads a receipt in this form. Nothing of it is checked but its form.
    ///
    /// # Errors
    ///
    /// [`TlogProofError`].
    pub fn parse_tlog_proof(text: &str) -> Result<Self, TlogProofError> {
        if text.len() > FILE_SIZE_MAX {
            return Err(TlogProofError::TooLarge);
        }
        let (head, checkpoint) = text
            .split_once("\n\n")
            .ok_or(TlogProofError::Line { line: 1, expected: "an empty line below" })?;
        let mut lines = (1..).zip(head.split('\n'));
        if lines.next().is_none_or(|(_, line)| line != FIRST_LINE) {
            return Err(TlogProofError::FirstLine);
        }
        let mut next = |expected, prefix| {
            let (line, text) = lines.next().unwrap_or((2, ""));
            text.strip_prefix(prefix).ok_or(TlogProofError::Line { line, expected })
        };
        let extra = next("extra and a receipt in base64", "extra ")?;
        let expected = "index and a number without leading zeros";
        let index = next(expected, "index ")?;
        let index = parse_size(index).ok_or(TlogProofError::Line { line: 3, expected })?;
        let mut path = Vec::new();
        for (line, text) in lines {
            let expected = "a hash in base64, of which there are at most 64";
            let hash = parse_hash(text).filter(|_| path.len() < PATH_MAX);
            path.push(hash.ok_or(TlogProofError::Line { line, expected })?);
        }
        let expected = "extra and a receipt in base64";
        let extra = STANDARD.decode(extra).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let extra = extra.ok_or(TlogProofError::Line { line: 2, expected })?;
        let ProofFile::Receipt(mut receipt) = ProofFile::parse(&extra).map_err(TlogProofError::Extra)? else {
            return Err(TlogProofError::Twice);
        };
        let height = u64::from(receipt.block.header.height);
        if index != height {
            return Err(TlogProofError::Index { index, height });
        }
        let checkpoint = checkpoint.parse::<Note>()?;
        if receipt.block.history_path.replace(path).is_some()
            || receipt.anchor.checkpoint.replace(checkpoint).is_some()
        {
            return Err(TlogProofError::Twice);
        }
        Ok(*receipt)
    }
}
