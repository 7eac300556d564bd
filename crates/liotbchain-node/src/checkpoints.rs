//! Signs checkpoints in the operator's name.

use std::{fmt, sync::Arc};

use liotbchain_core::{
    BlockHash, Checkpoint, PublicKey,
    checkpoint::origin_of,
    note::{Note, NoteError, NoteKey, NoteKeyKind},
};

/// Signs checkpoints with the operator's key. Cheap to clone.
#[derive(Clone)]
pub struct CheckpointSigner(Arc<Inner>);

/// Signs a text with a private key that is kept elsewhere.
type Sign = dyn Fn(&[u8]) -> Vec<u8> + Send + Sync;

struct Inner {
    public_key: PublicKey,
    sign: Box<Sign>,
}

impl fmt::Debug for CheckpointSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CheckpointSigner({:?})", self.0.public_key)
    }
}

impl CheckpointSigner {
    /// Signs by a function that signs with the private half of an Ed25519 key.
    ///
    /// # Errors
    ///
    /// [`NoteError`] where the key is none of Ed25519.
    pub fn new(
        public_key: PublicKey,
        sign: impl Fn(&[u8]) -> Vec<u8> + Send + Sync + 'static,
    ) -> Result<Self, NoteError> {
        NoteKey::new(&origin_of(BlockHash::ZERO), NoteKeyKind::Log, public_key.clone())?;
        Ok(Self(Arc::new(Inner { public_key, sign: Box::new(sign) })))
    }

    /// Returns the key that verifies the checkpoints of a chain.
    pub fn key(&self, genesis: BlockHash) -> NoteKey {
        NoteKey::new(&origin_of(genesis), NoteKeyKind::Log, self.0.public_key.clone())
            .expect("the key was looked at, and every origin of a chain is a name")
    }

    /// Says that the history of a chain has a root, and signs it.
    pub fn sign(&self, genesis: BlockHash, checkpoint: Checkpoint) -> Note {
        let signature = (self.0.sign)(checkpoint.to_string().as_bytes());
        checkpoint.into_note(self.key(genesis).signature(None, &signature))
    }
}
