//! The body of `POST /add-checkpoint`, as [c2sp.org/tlog-witness](https://c2sp.org/tlog-witness) has it, and what is to be
//! done about it. Pure: what was cosigned before is an argument.
//!
//! ```text
//! old 20852014
//! PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=      up to 63 hashes of a proof of consistency
//!                                                   an empty line
//! example.com/behind-the-sofa                       the checkpoint, signed
//! …
//! ```

use liotbchain_core::{
    Checkpoint, Note, Root,
    checkpoint::{CheckpointError, parse_hash, parse_size},
    merkle,
    note::{NOTE_SIZE_MAX, NoteError},
    proof::{self, ProofError},
};

/// Most hashes of a proof.
pub const PROOF_MAX: usize = 63;
/// Most bytes of a body: a note, the proof with 45 bytes a hash, and the line of the old size.
pub const BODY_SIZE_MAX: usize = NOTE_SIZE_MAX + 64 * 45;
/// The largest tree: SQLite and other witnesses count in 63 bits.
const SIZE_MAX: u64 = i64::MAX as u64;

/// Why a body is no submission.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmissionError {
    /// Not UTF-8.
    #[error("the body is not UTF-8")]
    Text,
    /// The first line is another one.
    #[error("line 1: expected `old` and the size last cosigned, a decimal number without leading zeros")]
    Old,
    /// A hash is none.
    #[error("line {line}: expected 32 bytes in base64, or an empty line before the checkpoint")]
    Hash {
        /// Counted from 1.
        line: usize,
    },
    /// More hashes than any proof needs.
    #[error("more than {PROOF_MAX} lines of proof")]
    ProofSize,
    /// No empty line ends the proof.
    #[error("no empty line stands between the proof and the checkpoint")]
    NoCheckpoint,
    /// The checkpoint is no signed note.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The note is no checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A size beyond all that can be counted.
    #[error("no tree has {0} entries")]
    Size(u64),
}

/// A checkpoint that somebody wants to have cosigned. Nothing of it is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission {
    /// The size that the proof leads from.
    pub old: u64,
    /// The proof of consistency.
    pub proof: Vec<[u8; 32]>,
    /// The checkpoint as it was signed.
    pub note: Note,
    /// What it says.
    pub checkpoint: Checkpoint,
}

impl Submission {
    /// Reads a body.
    ///
    /// # Errors
    ///
    /// [`SubmissionError`].
    pub fn parse(body: &[u8]) -> Result<Self, SubmissionError> {
        let text = std::str::from_utf8(body).map_err(|_| SubmissionError::Text)?;
        let (first, mut rest) = text.split_once('\n').ok_or(SubmissionError::Old)?;
        let old = first.strip_prefix("old ").and_then(parse_size).ok_or(SubmissionError::Old)?;
        let mut proof = Vec::new();
        for line in 2.. {
            let (text, below) = rest.split_once('\n').ok_or(SubmissionError::NoCheckpoint)?;
            rest = below;
            if text.is_empty() {
                break;
            }
            if proof.len() == PROOF_MAX {
                return Err(SubmissionError::ProofSize);
            }
            proof.push(parse_hash(text).ok_or(SubmissionError::Hash { line })?);
        }
        let note: Note = rest.parse()?;
        let checkpoint = Checkpoint::of(&note)?;
        if let Some(size) = [old, checkpoint.size].into_iter().find(|size| *size > SIZE_MAX) {
            return Err(SubmissionError::Size(size));
        }
        Ok(Self { old, proof, note, checkpoint })
    }
}

/// The latest tree of a log that was cosigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Entries in it.
    pub size: u64,
    /// Root over them.
    pub root: Root,
}

/// What a submission that the log signed comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It goes on from what is known: to be kept, then cosigned.
    Advance,
    /// It is what is known: to be cosigned again.
    Repeat,
    /// It goes back by its own words: 400.
    Backwards,
    /// The proof does not lead from what is known: 409.
    OtherSize {
        /// The size that is known.
        known: u64,
    },
    /// Another root of the size that is known: 409.
    OtherRoot,
    /// The proof does not hold: 422.
    BadProof(ProofError),
    /// The empty tree has one root, and this is another: 422.
    NotEmpty,
}

impl Submission {
    /// Decides, in the order of the protocol.
    pub fn decide(&self, known: Option<Known>) -> Decision {
        let Checkpoint { size, root, .. } = self.checkpoint;
        let known_size = known.map_or(0, |known| known.size);
        if self.old > size {
            return Decision::Backwards;
        }
        if self.old != known_size {
            return Decision::OtherSize { known: known_size };
        }
        if size == 0 && root != merkle::compute_root([]) {
            return Decision::NotEmpty;
        }
        match known {
            Some(known) if size == known.size && root != known.root => Decision::OtherRoot,
            // The empty tree needs no proof, and has none.
            _ if self.old == 0 || size == known_size => match self.proof.len() {
                0 if known.is_some() && size == known_size => Decision::Repeat,
                0 => Decision::Advance,
                got => Decision::BadProof(ProofError::Length { got, expected: 0 }),
            },
            known => {
                let old_root = known.map_or(Root::ZERO, |known| known.root);
                match proof::verify_consistency(self.old, old_root, size, root, &self.proof) {
                    Ok(()) => Decision::Advance,
                    Err(error) => Decision::BadProof(error),
                }
            }
        }
    }

    /// Returns whether the log signed another root of the size that is known, whatever the submission says it goes on from.
    pub fn forks_from(&self, known: Known) -> bool {
        self.checkpoint.size == known.size && self.checkpoint.root != known.root && known.size > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTE: &str = "a\n1\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n— a AAAAAAA=\n";
    const HASH: &str = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";

    #[test]
    fn reads_old_size_proof_and_checkpoint() {
        let read = Submission::parse(format!("old 1\n{HASH}{HASH}\n{NOTE}").as_bytes()).unwrap();
        assert_eq!((read.old, read.proof.len(), read.checkpoint.size), (1, 2, 1));
        assert_eq!(read.note.to_string(), NOTE);
        let most = format!("old 0\n{}\n{NOTE}", HASH.repeat(63));
        assert_eq!(Submission::parse(most.as_bytes()).unwrap().proof.len(), 63);
        assert!(most.len() < BODY_SIZE_MAX);
    }

    #[test]
    fn refuses_what_is_no_submission() {
        let many = HASH.repeat(64);
        for (body, error) in [
            (String::new(), SubmissionError::Old),
            ("old 0".to_owned(), SubmissionError::Old),
            (format!("old 01\n\n{NOTE}"), SubmissionError::Old),
            (format!("old +1\n\n{NOTE}"), SubmissionError::Old),
            (format!("old  1\n\n{NOTE}"), SubmissionError::Old),
            (format!("old 18446744073709551616\n\n{NOTE}"), SubmissionError::Old),
            (format!("Old 1\n\n{NOTE}"), SubmissionError::Old),
            (format!("old 0\r\n\n{NOTE}"), SubmissionError::Old),
            (format!("old 0\n{HASH}"), SubmissionError::NoCheckpoint),
            (format!("old 0\n{NOTE}"), SubmissionError::Hash { line: 2 }),
            (format!("old 0\n{HASH}AA==\n\n{NOTE}"), SubmissionError::Hash { line: 3 }),
            (format!("old 0\n{many}\n{NOTE}"), SubmissionError::ProofSize),
            ("old 0\n\n".to_owned(), SubmissionError::Note(NoteError::Form)),
            (format!("old 0\n\n{}", &NOTE[..NOTE.len() - 1]), SubmissionError::Note(NoteError::Form)),
            (format!("old 0\n\n{}", NOTE.replace("\n1\n", "\n01\n")), CheckpointError::Size.into()),
            (format!("old 9223372036854775808\n\n{NOTE}"), SubmissionError::Size(1 << 63)),
            (
                format!("old 0\n\n{}", NOTE.replace("\n1\n", "\n9223372036854775808\n")),
                SubmissionError::Size(1 << 63),
            ),
        ] {
            assert_eq!(Submission::parse(body.as_bytes()), Err(error), "{body:?}");
        }
        assert_eq!(Submission::parse(b"old 0\n\n\xff"), Err(SubmissionError::Text));
    }

    #[test]
    fn decides_as_the_protocol_says() {
        let (one, other) = (merkle::leaf_hash(b"a"), merkle::leaf_hash(b"b"));
        let two = Root(merkle::node_hash(&one, &other));
        let empty = merkle::compute_root([]);
        let submission = |old, proof: &[[u8; 32]], size, root| {
            let mut submission = Submission::parse(format!("old 0\n\n{NOTE}").as_bytes()).unwrap();
            (submission.old, submission.proof) = (old, proof.to_vec());
            (submission.checkpoint.size, submission.checkpoint.root) = (size, root);
            submission
        };
        let decide =
            |known, old, proof: &[[u8; 32]], size, root| submission(old, proof, size, root).decide(known);
        let last = Known { size: 1, root: Root(one) };
        let known = Some(last);
        let length = |got, expected| Decision::BadProof(ProofError::Length { got, expected });

        assert_eq!(decide(None, 0, &[], 2, two), Decision::Advance);
        assert_eq!(decide(None, 0, &[other], 2, two), length(1, 0));
        assert_eq!(decide(None, 1, &[other], 2, two), Decision::OtherSize { known: 0 });
        assert_eq!(decide(None, 0, &[], 0, empty), Decision::Advance);
        assert_eq!(decide(None, 0, &[], 0, two), Decision::NotEmpty);
        let known_empty = Some(Known { size: 0, root: empty });
        assert_eq!(decide(known_empty, 0, &[], 0, empty), Decision::Repeat);
        assert_eq!(decide(known_empty, 0, &[], 0, two), Decision::NotEmpty);
        assert_eq!(decide(known_empty, 0, &[], 2, two), Decision::Advance);

        assert_eq!(decide(known, 1, &[other], 2, two), Decision::Advance);
        assert_eq!(decide(known, 1, &[], 2, two), length(0, 1));
        assert!(matches!(decide(known, 1, &[one], 2, two), Decision::BadProof(ProofError::OtherRoot { .. })));
        assert_eq!(decide(known, 1, &[], 1, Root(one)), Decision::Repeat);
        assert_eq!(decide(known, 1, &[other], 1, Root(one)), length(1, 0));
        assert_eq!(decide(known, 1, &[], 1, two), Decision::OtherRoot);
        assert_eq!(decide(known, 0, &[], 2, two), Decision::OtherSize { known: 1 });
        assert_eq!(decide(known, 2, &[], 2, two), Decision::OtherSize { known: 1 });
        assert_eq!(decide(known, 2, &[], 1, Root(one)), Decision::Backwards);
        assert_eq!(decide(known, 1, &[], 0, empty), Decision::Backwards);

        assert!(submission(0, &[], 1, two).forks_from(last));
        assert!(!submission(0, &[], 1, Root(one)).forks_from(last));
        assert!(!submission(1, &[], 2, two).forks_from(last));
    }
}
