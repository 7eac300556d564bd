//! Evidence against a log: two checkpoints that it signed and that do not go together, as a witness keeps them.
//!
//! ```json
//! {"type":"fork","version":1,"first":"…signed note…","second":"…signed note…","proof":["…base64…"],"old":5}
//! ```
//!
//! Two roots of one size, both signed by one log, prove a fork to everybody: no tree has two roots. Of two sizes the two
//! checkpoints alone prove nothing. The later tree may well begin with the earlier one, and whoever handed them in gave a
//! wrong proof of it, which needs no key: such a file says only where to look. It would prove a fork if it held more: a
//! third checkpoint of the same log, of the size of one of the two, together with a proof of consistency to the other.

use std::borrow::Cow;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use crate::{
    checkpoint::{Checkpoint, CheckpointError, parse_hash},
    hash::Root,
    note::{Note, NoteError, NoteKey},
    object::Object,
    proof,
    receipt::Path,
};

/// Most bytes of a file.
pub const FILE_SIZE_MAX: usize = 1 << 20;
/// Most hashes of a proof: no tree of less than 2^64 entries needs more.
const PROOF_MAX: usize = 64;

/// Two checkpoints that one log signed, with the proof that was given for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fork {
    /// What the log signed first, as far as the witness knows.
    pub first: Note,
    /// What it signed too.
    pub second: Note,
    /// The size from which the proof was said to lead.
    pub old: u64,
    /// The proof of consistency that came with the second one.
    pub proof: Path,
}

/// What the evidence shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The log signed two roots of one size: its history was forked, whoever looks.
    Proven {
        /// Of both trees.
        size: u64,
        /// The root that it signed first.
        first: Root,
        /// The root that it signed too.
        second: Root,
    },
    /// The log signed both, but the two can be of one history. The proof that was given does not show it.
    Unproven {
        /// Of the first tree.
        first: u64,
        /// Of the second one.
        second: u64,
    },
}

/// Why a text is no evidence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForkError {
    /// Larger than any evidence needs to be.
    #[error("larger than {FILE_SIZE_MAX} bytes, or a proof of more than {PROOF_MAX} hashes")]
    TooLarge,
    /// Not the JSON of a file of evidence.
    #[error("not a file of evidence: {0}")]
    Json(String),
    /// Another version of the format.
    #[error("version {got} of the evidence: expected 1")]
    Version {
        /// The version found.
        got: u32,
    },
    /// A hash of the proof is none.
    #[error("hash {place} of the proof is not 32 bytes in base64")]
    Hash {
        /// Counted from 0.
        place: usize,
    },
    /// One of the two is no signed note.
    #[error("{which}: {error}")]
    Note {
        /// `first` or `second`.
        which: &'static str,
        /// What is wrong with it.
        error: NoteError,
    },
    /// One of the two is no checkpoint that this log signed.
    #[error("{which}: {error}")]
    Checkpoint {
        /// `first` or `second`.
        which: &'static str,
        /// What is wrong with it.
        error: CheckpointError,
    },
    /// Both name the same tree.
    #[error("both checkpoints name the same tree of {size} entries: that is no fork")]
    Same {
        /// Of the tree.
        size: u64,
    },
    /// The proof holds.
    #[error("the tree of {second} entries begins with that of {first}, as the proof shows: that is no fork")]
    Consistent {
        /// Of the first tree.
        first: u64,
        /// Of the second one.
        second: u64,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
enum FileJson<'a> {
    Fork {
        version: u32,
        #[serde(borrow)]
        first: Cow<'a, str>,
        #[serde(borrow)]
        second: Cow<'a, str>,
        #[serde(borrow)]
        proof: Vec<Cow<'a, str>>,
        old: u64,
    },
}

impl Fork {
    /// Reads a file. Nothing of it is checked but its form.
    ///
    /// # Errors
    ///
    /// [`ForkError`].
    pub fn parse(json: &str) -> Result<Self, ForkError> {
        if json.len() > FILE_SIZE_MAX {
            return Err(ForkError::TooLarge);
        }
        let Object(FileJson::Fork { version, first, second, proof, old }) =
            serde_json::from_str(json).map_err(|error| ForkError::Json(error.to_string()))?;
        if version != 1 {
            return Err(ForkError::Version { got: version });
        }
        if proof.len() > PROOF_MAX {
            return Err(ForkError::TooLarge);
        }
        let note = |which, text: &str| text.parse().map_err(|error| ForkError::Note { which, error });
        let hash = |(place, text): (usize, &Cow<'_, str>)| parse_hash(text).ok_or(ForkError::Hash { place });
        Ok(Self {
            first: note("first", &first)?,
            second: note("second", &second)?,
            old,
            proof: proof.iter().enumerate().map(hash).collect::<Result<_, _>>()?,
        })
    }

    /// Returns the JSON, in one line.
    pub fn to_json(&self) -> String {
        let json = FileJson::Fork {
            version: 1,
            first: self.first.to_string().into(),
            second: self.second.to_string().into(),
            proof: self.proof.iter().map(|hash| STANDARD.encode(hash).into()).collect(),
            old: self.old,
        };
        serde_json::to_string(&json).expect("a struct of text and numbers is JSON")
    }

    /// Checks what the evidence shows against a log.
    ///
    /// # Errors
    ///
    /// [`ForkError`] where the log did not sign both, or they go together.
    pub fn verify(&self, log: &NoteKey) -> Result<Verdict, ForkError> {
        let read = |which, note| {
            Checkpoint::verify(note, log).map_err(|error| ForkError::Checkpoint { which, error })
        };
        let (first, second) = (read("first", &self.first)?, read("second", &self.second)?);
        if first.size == second.size {
            let size = first.size;
            return if first.root == second.root {
                Err(ForkError::Same { size })
            } else {
                Ok(Verdict::Proven { size, first: first.root, second: second.root })
            };
        }
        let (older, newer) = if first.size < second.size { (&first, &second) } else { (&second, &first) };
        if older.size > 0
            && proof::verify_consistency(older.size, older.root, newer.size, newer.root, &self.proof).is_ok()
        {
            return Err(ForkError::Consistent { first: first.size, second: second.size });
        }
        Ok(Verdict::Unproven { first: first.size, second: second.size })
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};

    use super::*;
    use crate::{
        hash::BlockHash,
        key::PublicKey,
        merkle::{leaf_hash, node_hash},
        note::NoteKeyKind,
    };

    const GENESIS: BlockHash = BlockHash([7; 32]);

    struct Log {
        pair: Ed25519KeyPair,
        key: NoteKey,
    }

    impl Log {
        fn new(seed: u8) -> Self {
            let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
            let spki =
                [&hex::decode("302a300506032b6570032100").unwrap(), pair.public_key().as_ref()].concat();
            let origin = crate::checkpoint::origin_of(GENESIS);
            let key = NoteKey::new(&origin, NoteKeyKind::Log, PublicKey::from_spki_der(&spki).unwrap());
            Self { pair, key: key.unwrap() }
        }

        fn sign(&self, size: u64, root: [u8; 32]) -> Note {
            let checkpoint = Checkpoint::new(GENESIS, size, Root(root));
            let signature = self.pair.sign(checkpoint.to_string().as_bytes());
            let signature = self.key.signature(None, signature.as_ref());
            checkpoint.into_note(signature)
        }
    }

    /// Trees of one and two entries, and what leads from one to the other.
    fn trees() -> ([u8; 32], [u8; 32], Path) {
        let (one, two) = (leaf_hash(b"a"), leaf_hash(b"b"));
        (one, node_hash(&one, &two), vec![two])
    }

    #[test]
    fn two_roots_of_one_size_are_proven() {
        let log = Log::new(1);
        let (first, second) = (log.sign(2, [1; 32]), log.sign(2, [2; 32]));
        let fork = Fork { first, second, old: 2, proof: vec![[3; 32]] };
        let read = Fork::parse(&fork.to_json()).unwrap();
        assert_eq!(read, fork);
        let proven = Verdict::Proven { size: 2, first: Root([1; 32]), second: Root([2; 32]) };
        assert_eq!(read.verify(&log.key), Ok(proven));
    }

    #[test]
    fn what_the_log_did_not_sign_is_no_evidence() {
        let (log, other) = (Log::new(1), Log::new(2));
        let fork = |first: &Note, second: &Note| Fork {
            first: first.clone(),
            second: second.clone(),
            old: 2,
            proof: vec![],
        };
        let (mine, theirs) = (log.sign(2, [1; 32]), other.sign(2, [2; 32]));
        for (fork, at) in [(fork(&mine, &theirs), "second"), (fork(&theirs, &mine), "first")] {
            let error = fork.verify(&log.key).unwrap_err();
            assert!(matches!(error, ForkError::Checkpoint { which, .. } if which == at), "{error}");
        }
        assert_eq!(fork(&mine, &mine).verify(&log.key), Err(ForkError::Same { size: 2 }));
    }

    #[test]
    fn different_sizes_prove_nothing_by_themselves() {
        let log = Log::new(1);
        let (one, two, proof) = trees();
        let fork = |root, proof| Fork { first: log.sign(1, one), second: log.sign(2, root), old: 1, proof };
        let unproven = Ok(Verdict::Unproven { first: 1, second: 2 });
        assert_eq!(fork([9; 32], proof.clone()).verify(&log.key), unproven);
        assert_eq!(fork(two, vec![]).verify(&log.key), unproven);
        assert_eq!(fork(two, proof).verify(&log.key), Err(ForkError::Consistent { first: 1, second: 2 }));
    }

    #[test]
    fn refuses_what_is_no_evidence() {
        let log = Log::new(1);
        let fork = Fork { first: log.sign(1, [1; 32]), second: log.sign(1, [2; 32]), old: 1, proof: vec![] };
        let json = fork.to_json();
        for (from, to) in [
            ("\"fork\"", "\"receipt\""),
            ("\"version\":1", "\"version\":2"),
            ("\"proof\":[]", "\"proof\":[\"AA==\"]"),
            ("\"old\":1", "\"old\":-1"),
            ("\"old\":1", "\"old\":1,\"more\":1"),
            ("\"first\":\"", "\"first\":\"\\n"),
        ] {
            let mutant = json.replace(from, to);
            assert_ne!(mutant, json, "{from}");
            let read = Fork::parse(&mutant);
            assert!(read.is_err() || read.unwrap().verify(&log.key).is_err(), "{mutant}");
        }
        assert_eq!(Fork::parse(&" ".repeat(FILE_SIZE_MAX + 1)), Err(ForkError::TooLarge));
    }
}
