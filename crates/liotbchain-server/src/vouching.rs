//! What vouches for the chain: the operator's signature under checkpoints, and the cosignatures of witnesses.

use liotbchain_core::{
    Checkpoint, Policy,
    note::{Note, NoteKey},
};
use liotbchain_node::{CheckpointSigner, Ledger, ProveError, Prover, Vouchers};
use tokio::sync::watch;

/// Who vouches for the chain.
pub(crate) struct Vouching {
    signer: Option<CheckpointSigner>,
    /// Whose cosignatures a checkpoint needs before it is shown; none where the operator's signature suffices.
    policy: Option<Policy>,
    /// The newest checkpoint that satisfies the policy.
    cosigned: watch::Sender<Option<Note>>,
}

impl Vouching {
    pub(crate) fn new(signer: Option<CheckpointSigner>, policy: Option<Policy>) -> Self {
        let policy = policy.filter(|policy| !policy.asks_for_none() && signer.is_some());
        Self { signer, policy, cosigned: watch::Sender::new(None) }
    }

    /// Returns the key that verifies the operator's checkpoints.
    pub(crate) fn log_key(&self, ledger: &Ledger) -> Option<NoteKey> {
        self.signer.as_ref().map(|signer| signer.key(ledger.genesis()))
    }

    pub(crate) fn policy(&self) -> Option<&Policy> {
        self.policy.as_ref()
    }

    /// Shows a checkpoint from now on, unless one of more blocks is shown.
    pub(crate) fn publish(&self, note: Note) {
        let size = |note: &Note| Checkpoint::of(note).map_or(0, |checkpoint| checkpoint.size);
        self.cosigned.send_if_modified(|shown| {
            let is_newer = shown.as_ref().is_none_or(|shown| size(shown) <= size(&note));
            if is_newer {
                *shown = Some(note);
            }
            is_newer
        });
    }

    /// Returns the newest checkpoint that enough witnesses cosigned.
    pub(crate) fn cosigned(&self) -> Option<Note> {
        self.cosigned.borrow().clone()
    }

    /// Returns a watch of the same.
    pub(crate) fn watch(&self) -> watch::Receiver<Option<Note>> {
        self.cosigned.subscribe()
    }

    /// Returns what proofs end in as of now.
    pub(crate) fn vouchers(&self) -> Vouchers {
        Vouchers { cosigned: self.cosigned(), signer: self.signer.clone() }
    }

    /// Returns the checkpoint to show: the newest that enough witnesses cosigned, where they are asked for; none where there
    /// is none yet, or nobody signs.
    pub(crate) async fn checkpoint(&self, ledger: &Ledger) -> Result<Option<Note>, ProveError> {
        if self.policy.is_some() {
            return Ok(self.cosigned());
        }
        self.sign(ledger).await
    }

    /// Signs a checkpoint of all blocks there are.
    pub(crate) async fn sign(&self, ledger: &Ledger) -> Result<Option<Note>, ProveError> {
        let vouchers = Vouchers { cosigned: None, signer: self.signer.clone() };
        Prover::new(ledger.store().as_ref(), ledger.genesis(), vouchers).checkpoint().await
    }
}
