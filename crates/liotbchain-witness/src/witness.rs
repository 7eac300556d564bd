//! The witness itself: checks a submission from its form to its proof, keeps what comes of it, and cosigns.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use liotbchain_core::{
    Checkpoint, Note, NoteKey,
    note::{NoteError, cosigned_message},
};
use liotbchain_sender::SigningKey;
use tokio::time::Instant;

use crate::{
    copy::{Copy, CopyError},
    evidence::{Evidence, EvidenceKind, Filed, Folder},
    remote::Remote,
    state::{Latest, State, StateError},
    submission::{Decision, Known, Submission, SubmissionError},
};

/// Time for the blocks of one submission. What was checked in it is kept.
const CHECK_TIME: Duration = Duration::from_secs(20);

/// A log that is followed.
#[derive(Debug)]
pub struct Log {
    /// Its name, the first line of its checkpoints.
    pub origin: String,
    /// Any of these signs for it.
    pub keys: Vec<NoteKey>,
    /// The receiver behind it, if the policy names one.
    pub remote: Option<Remote>,
    /// The copy of its chain, where blocks are checked too.
    pub copy: Option<Copy>,
}

/// What happened since the start.
#[derive(Debug, Default)]
pub struct Counts {
    /// Cosignatures that were made.
    pub cosigned: AtomicU64,
    /// Looks at the public checkpoint of a log that failed.
    pub polls_failed: AtomicU64,
}

/// Why a submission is not cosigned.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// No submission at all.
    #[error("{0}")]
    Form(#[from] SubmissionError),
    /// A log that is not followed.
    #[error("this witness does not follow {0}: its operator adds a log with a line in WITNESS_POLICY")]
    UnknownLog(String),
    /// Not signed by the log.
    #[error("{0}")]
    Signature(NoteError),
    /// The old size is above the checkpoint's.
    #[error("the old size is {old}, and the checkpoint of {size}: a log does not shrink")]
    Backwards {
        /// What the proof leads from.
        old: u64,
        /// The checkpoint's.
        size: u64,
    },
    /// The proof does not lead from what was cosigned last.
    #[error("the last size cosigned is {known}")]
    OtherSize {
        /// What was cosigned last.
        known: u64,
    },
    /// Two roots of one size.
    #[error(
        "another root of size {size} was cosigned before: the log signed two histories, and both checkpoints are kept as \
         evidence"
    )]
    OtherRoot {
        /// Of both.
        size: u64,
    },
    /// The proof does not hold.
    #[error("the proof of consistency does not hold: {0}")]
    Proof(String),
    /// The chain does not hold.
    #[error("the chain behind the checkpoint is refused: {0}")]
    Chain(String),
    /// The chain cannot be checked now.
    #[error("the chain behind the checkpoint cannot be checked now: {0}")]
    Unchecked(CopyError),
    /// The state cannot be used.
    #[error("the state cannot be used: {0}")]
    State(#[from] StateError),
    /// The program itself failed.
    #[error("{0}")]
    Task(#[from] tokio::task::JoinError),
}

/// A witness of some logs. Clones share it.
#[derive(Debug, Clone)]
pub struct Witness(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    key: SigningKey,
    note_key: NoteKey,
    logs: Vec<Log>,
    state: Arc<State>,
    folder: Folder,
    counts: Counts,
}

impl Witness {
    pub(crate) fn new(
        key: SigningKey,
        note_key: NoteKey,
        logs: Vec<Log>,
        state: State,
        folder: Folder,
    ) -> Self {
        let (state, counts) = (Arc::new(state), Counts::default());
        Self(Arc::new(Inner { key, note_key, logs, state, folder, counts }))
    }

    /// Returns the key that verifies the cosignatures.
    pub fn key(&self) -> &NoteKey {
        &self.0.note_key
    }

    /// Returns the logs that are followed.
    pub fn logs(&self) -> &[Log] {
        &self.0.logs
    }

    /// Returns whether blocks are checked too.
    pub fn is_validating(&self) -> bool {
        self.0.logs.iter().any(|log| log.copy.is_some())
    }

    /// Returns what happened since the start.
    pub fn counts(&self) -> &Counts {
        &self.0.counts
    }

    /// Checks a submission, and returns the lines of signatures.
    ///
    /// # Errors
    ///
    /// [`Refusal`].
    pub async fn add_checkpoint(&self, body: &[u8]) -> Result<String, Refusal> {
        let submission = Submission::parse(body)?;
        let Checkpoint { origin, size, root, .. } = submission.checkpoint.clone();
        let log = self.0.logs.iter().find(|log| log.origin == origin);
        let log = log.ok_or_else(|| Refusal::UnknownLog(origin.clone()))?;
        let signed = log.signed(&submission.note).map_err(Refusal::Signature)?;
        if let Some(copy) = &log.copy {
            let known = self.latest(&origin).await?.map(|latest| latest.known);
            // Whoever would be refused anyway gets no block copied.
            if matches!(submission.decide(known), Decision::Advance | Decision::Repeat) {
                let checked = copy.check(known, size, root, Instant::now() + CHECK_TIME).await;
                if let Err(error) = checked {
                    return Err(self.refuse_chain(&origin, &signed, error).await);
                }
            }
        }
        let old = submission.old;
        let note = submission.note.clone();
        let outcome = self.blocking(move |state| state.submit(&submission, &signed, now_s())).await?;
        if let Some(filed) = outcome.filed {
            self.publish(filed).await;
        }
        match outcome.decision {
            Decision::Advance | Decision::Repeat => {}
            Decision::Backwards => return Err(Refusal::Backwards { old, size }),
            Decision::OtherSize { known } => return Err(Refusal::OtherSize { known }),
            Decision::OtherRoot => return Err(Refusal::OtherRoot { size }),
            Decision::BadProof(error) => return Err(Refusal::Proof(error.to_string())),
            Decision::NotEmpty => {
                return Err(Refusal::Proof("the root is not that of the empty tree".to_owned()));
            }
        }
        let message = cosigned_message(outcome.time_s, note.text());
        let signature = self.0.key.sign(message.as_bytes());
        self.0.counts.cosigned.fetch_add(1, Ordering::Relaxed);
        tracing::info!(origin, size, %root, "cosigned");
        Ok(self.0.note_key.signature(Some(outcome.time_s), &signature).to_string())
    }

    /// Returns what was cosigned last of a log.
    ///
    /// # Errors
    ///
    /// [`Refusal::State`].
    pub async fn latest(&self, origin: &str) -> Result<Option<Latest>, Refusal> {
        let origin = origin.to_owned();
        self.blocking(move |state| state.latest(&origin)).await
    }

    /// Returns how many forks are proven against a log, and how many pieces of evidence there are.
    ///
    /// # Errors
    ///
    /// [`Refusal::State`].
    pub async fn evidence_counts(&self, origin: &str) -> Result<(u64, u64), Refusal> {
        let origin = origin.to_owned();
        self.blocking(move |state| state.evidence_counts(&origin)).await
    }

    /// Returns evidence, the newest first.
    ///
    /// # Errors
    ///
    /// [`Refusal::State`].
    pub async fn evidence(&self, limit: u32) -> Result<Vec<Filed>, Refusal> {
        self.blocking(move |state| state.evidence(limit)).await
    }

    /// Returns the text of a piece of evidence.
    ///
    /// # Errors
    ///
    /// [`Refusal::State`].
    pub async fn evidence_json(&self, number: u64) -> Result<Option<String>, Refusal> {
        self.blocking(move |state| state.evidence_json(number)).await
    }

    /// Keeps evidence, as a file too, and says so.
    ///
    /// # Errors
    ///
    /// [`Refusal::State`].
    pub(crate) async fn keep(&self, evidence: Evidence) -> Result<(), Refusal> {
        if let Some(filed) = self.blocking(move |state| state.keep(&evidence, now_s())).await? {
            self.publish(filed).await;
        }
        Ok(())
    }

    /// Writes the files that a witness which was killed could not write any more.
    pub(crate) async fn complete_files(&self) {
        let folder = self.0.folder.clone();
        let written = self.blocking(move |state| {
            for filed in state.evidence(u32::MAX)? {
                if !folder.path_of(&filed).exists()
                    && let Some(json) = state.evidence_json(filed.number)?
                    && let Err(error) = folder.write(&filed, &json)
                {
                    tracing::error!(%error, file = filed.file_name(), "evidence cannot be written to its file");
                }
            }
            Ok(())
        });
        if let Err(error) = written.await {
            tracing::error!(%error, "the files of evidence were not looked over");
        }
    }

    /// Closes the copies.
    pub(crate) async fn close(&self) {
        for copy in self.0.logs.iter().filter_map(|log| log.copy.as_ref()) {
            copy.close().await;
        }
    }

    async fn refuse_chain(&self, origin: &str, signed: &Note, error: CopyError) -> Refusal {
        let CopyError::Refused { reason, block } = error else {
            tracing::warn!(origin, %error, "a checkpoint could not be checked");
            return Refusal::Unchecked(error);
        };
        let evidence = Evidence::of_invalid(origin, signed, reason.clone(), block.as_deref());
        match self.keep(evidence).await {
            Ok(()) => Refusal::Chain(reason),
            Err(error) => error,
        }
    }

    /// Writes a piece of evidence to its file, and says so. The database has it already.
    async fn publish(&self, filed: Filed) {
        let folder = self.0.folder.clone();
        let Filed { number, ref origin, kind, ref reason, .. } = filed;
        let (origin, reason) = (origin.clone(), reason.clone());
        let written = self.blocking(move |state| {
            let json = state.evidence_json(number)?.unwrap_or_default();
            Ok(folder.write(&filed, &json))
        });
        let file: PathBuf = match written.await {
            Ok(Ok(path)) => path,
            Ok(Err(error)) => {
                tracing::error!(%error, number, "evidence cannot be written to its file: the database has it");
                PathBuf::new()
            }
            Err(error) => {
                tracing::error!(%error, number, "evidence cannot be read");
                return;
            }
        };
        let file = file.display();
        match kind {
            EvidenceKind::Fork => tracing::error!(origin, reason, %file, "a fork is proven"),
            EvidenceKind::Invalid => {
                tracing::error!(origin, reason, %file, "a checkpoint is not cosigned: its chain is refused")
            }
            EvidenceKind::Doubt => {
                tracing::error!(origin, reason, %file, "a proof does not hold: both checkpoints are kept")
            }
        }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&State) -> Result<T, StateError> + Send + 'static,
    ) -> Result<T, Refusal> {
        let state = Arc::clone(&self.0.state);
        Ok(tokio::task::spawn_blocking(move || work(&state)).await??)
    }
}

impl Log {
    /// Returns a note under the signature of the log alone: what others put below its text is not kept.
    pub(crate) fn signed(&self, note: &Note) -> Result<Note, NoteError> {
        let mut refused = NoteError::NotSigned(self.origin.clone());
        for key in &self.keys {
            match note.verify(key) {
                Ok(()) => {
                    let alone = |it: &_| Note::new(note.text().to_owned(), Clone::clone(it));
                    let mut each = note.signatures().iter().map(alone);
                    if let Some(signed) = each.find(|it| it.verify(key).is_ok()) {
                        return Ok(signed);
                    }
                }
                Err(NoteError::NotSigned(_)) => {}
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }
}

impl From<&Checkpoint> for Known {
    fn from(checkpoint: &Checkpoint) -> Self {
        Self { size: checkpoint.size, root: checkpoint.root }
    }
}

/// Returns the time, in seconds since the Unix epoch.
pub(crate) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
