//! Signs checkpoints in the operator's name.

use liotbchain_core::{
    BlockHash, Checkpoint, PublicKey,
    checkpoint::origin_of,
    note::{Note, NoteError, NoteKey, NoteKeyKind},
};

/// Signs checkpoints of one chain.
pub struct CheckpointSigner {
    key: NoteKey,
    sign: Box<dyn Fn(&[u8]) -> Vec<u8> + Send + Sync>,
}

impl CheckpointSigner {
    /// Signs for the chain with this genesis block by a function that signs with the private half of an Ed25519 key.
    ///
    /// # Errors
    ///
    /// [`NoteError`] where the key is none of Ed25519.
    pub fn new(
        genesis: BlockHash,
        public_key: PublicKey,
        sign: impl Fn(&[u8]) -> Vec<u8> + Send + Sync + 'static,
    ) -> Result<Self, NoteError> {
        let key = NoteKey::new(&origin_of(genesis), NoteKeyKind::Log, public_key)?;
        Ok(Self { key, sign: Box::new(sign) })
    }

    /// Returns the key that verifies what is signed here.
    pub fn key(&self) -> &NoteKey {
        &self.key
    }

    /// Signs a checkpoint.
    pub fn sign(&self, checkpoint: Checkpoint) -> Note {
        let signature = (self.sign)(checkpoint.to_string().as_bytes());
        checkpoint.into_note(self.key.signature(None, &signature))
    }
}
