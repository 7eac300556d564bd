//! Checkpoints: what a log says its tree is, as [c2sp.org/tlog-checkpoint](https://c2sp.org/tlog-checkpoint) has them.
//!
//! The log of a chain is its history tree: entry `h` is the hash of the block at height `h`, so the root over `n` entries is
//! the `history_root` of the header at height `n`.

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::{
    hash::{BlockHash, Root},
    note::{Note, NoteError, NoteKey, NoteSignature},
};

/// Most bytes of a checkpoint's text.
const TEXT_SIZE_MAX: usize = 4096;

/// Why a text is no checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// Not three lines and perhaps more, none of them empty.
    #[error("not a checkpoint: expected lines of origin, size and root, each ended by LF and none empty")]
    Form,
    /// The size is no number, or not written as one.
    #[error("the size of the checkpoint is not a decimal number without leading zeros")]
    Size,
    /// The root is not 32 bytes in base64.
    #[error("the root of the checkpoint is not 32 bytes in base64")]
    Root,
    /// What the checkpoint stands in is no signed note, or not signed as it must be.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The checkpoint of another log.
    #[error("the checkpoint is of {got}: expected {expected}")]
    Origin {
        /// The checkpoint's.
        got: String,
        /// The log that it should be of.
        expected: String,
    },
}

/// A tree of some size, and its root, by the log that its origin names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Names the log.
    pub origin: String,
    /// Entries in the tree.
    pub size: u64,
    /// Root over them.
    pub root: Root,
    /// Lines that others may add. We write none, and nothing rests on them.
    pub extension: Vec<String>,
}

/// Returns the origin of the checkpoints of a chain. It holds the hash of the genesis block, so that no chain can pass for
/// another.
pub fn origin_of(genesis: BlockHash) -> String {
    format!("liotbchain/{genesis}")
}

impl Checkpoint {
    /// Says that the history of a chain has a root.
    pub fn new(genesis: BlockHash, size: u64, root: Root) -> Self {
        Self { origin: origin_of(genesis), size, root, extension: Vec::new() }
    }

    /// Reads a signed note's text without verifying anything.
    ///
    /// # Errors
    ///
    /// [`CheckpointError`], but for its origin.
    pub fn of(note: &Note) -> Result<Self, CheckpointError> {
        note.text().parse()
    }

    /// Reads a checkpoint that a log signed.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Note`] where the log did not sign it, [`CheckpointError::Origin`] where it is another log's.
    pub fn verify(note: &Note, log: &NoteKey) -> Result<Self, CheckpointError> {
        let checkpoint = Self::of(note)?;
        checkpoint.check_origin(log.name())?;
        note.verify(log)?;
        Ok(checkpoint)
    }

    /// Checks whose it is.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Origin`].
    pub fn check_origin(&self, expected: &str) -> Result<(), CheckpointError> {
        if self.origin == expected {
            return Ok(());
        }
        Err(CheckpointError::Origin { got: self.origin.clone(), expected: expected.to_owned() })
    }

    /// Puts a log's signature of its text under it.
    pub fn into_note(self, signature: NoteSignature) -> Note {
        Note::new(self.to_string(), signature)
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}\n{}\n", self.origin, self.size, STANDARD.encode(self.root.0))?;
        self.extension.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl FromStr for Checkpoint {
    type Err = CheckpointError;

    fn from_str(text: &str) -> Result<Self, CheckpointError> {
        if text.len() > TEXT_SIZE_MAX {
            return Err(CheckpointError::Form);
        }
        let mut lines = text.strip_suffix('\n').ok_or(CheckpointError::Form)?.split('\n');
        let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next()) else {
            return Err(CheckpointError::Form);
        };
        let extension: Vec<_> = lines.map(str::to_owned).collect();
        if origin.is_empty() || extension.iter().any(String::is_empty) {
            return Err(CheckpointError::Form);
        }
        let size = parse_size(size).ok_or(CheckpointError::Size)?;
        let root = parse_hash(root).ok_or(CheckpointError::Root)?;
        Ok(Self { origin: origin.to_owned(), size, root: Root(root), extension })
    }
}

/// Reads a decimal number that is written in the one way there is.
pub fn parse_size(text: &str) -> Option<u64> {
    let size: u64 = text.parse().ok()?;
    (size.to_string() == text).then_some(size)
}

/// Reads 32 bytes in base64.
pub fn parse_hash(text: &str) -> Option<[u8; 32]> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";

    #[test]
    fn text_round_trips() {
        let checkpoint: Checkpoint = TEXT.parse().unwrap();
        assert_eq!(
            (checkpoint.origin.as_str(), checkpoint.size),
            ("example.com/behind-the-sofa", 20_852_163)
        );
        assert_eq!(checkpoint.to_string(), TEXT);
        let more = format!("{TEXT}more\n");
        assert_eq!(more.parse::<Checkpoint>().unwrap().to_string(), more);
    }

    #[test]
    fn refuses_what_is_no_checkpoint() {
        for (text, error) in [
            ("", CheckpointError::Form),
            ("a\n1\n", CheckpointError::Form),
            (&TEXT[..TEXT.len() - 1], CheckpointError::Form),
            (&TEXT.replace("example.com/behind-the-sofa", ""), CheckpointError::Form),
            (&format!("{TEXT}\n"), CheckpointError::Form),
            (&TEXT.replace("2085", "02085"), CheckpointError::Size),
            (&TEXT.replace("2085", "+2085"), CheckpointError::Size),
            (&TEXT.replace("20852163", "18446744073709551616"), CheckpointError::Size),
            (&TEXT.replace("q2I=", "q2I"), CheckpointError::Root),
            (&TEXT.replace("q2I=", "q2J="), CheckpointError::Root),
            (&TEXT.replace("q2I=", "q2IA"), CheckpointError::Root),
        ] {
            assert_eq!(text.parse::<Checkpoint>(), Err(error), "{text:?}");
        }
    }
}
