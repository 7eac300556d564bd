//! What a device says, who signed it, and its place among all that this key signed.

use std::sync::Arc;

use crate::{
    hash::{ContentHash, KeyId, TransactionId, sha256},
    key::{PublicKey, SignatureError},
    merkle,
};

/// Most bytes of a payload.
pub const PAYLOAD_SIZE_MAX: usize = 65_536;

/// Random bytes that an unsigned transaction carries in place of a signature.
pub const UNSIGNED_SALT_SIZE: usize = 16;

const ID_TAG: &[u8] = b"liotbchain/tx/1";

/// A payload with its signature: a transaction before it has a place in a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// Who signed; zero where nobody did.
    pub key_id: KeyId,
    /// The exact bytes that were signed.
    pub payload: String,
    /// The signature; 16 random bytes where nobody signed, none in the genesis block.
    pub signature: Vec<u8>,
}

impl Statement {
    /// Returns whether nobody signed.
    pub fn is_unsigned(&self) -> bool {
        self.key_id == KeyId::ZERO
    }

    /// Returns `H(payload length ‖ payload ‖ signature length ‖ signature)`.
    pub fn content_hash(&self) -> ContentHash {
        let payload_length = (self.payload.len() as u32).to_be_bytes();
        let signature_length = (self.signature.len() as u16).to_be_bytes();
        ContentHash(sha256(&[&payload_length, self.payload.as_bytes(), &signature_length, &self.signature]))
    }

    /// Returns the id. It leaves a signature out: one statement by one key has one id however often it is signed.
    pub fn id(&self) -> TransactionId {
        if self.is_unsigned() { self.unsigned_id(&self.content_hash()) } else { self.signed_id() }
    }

    pub(crate) fn signed_id(&self) -> TransactionId {
        TransactionId(sha256(&[ID_TAG, &self.key_id.0, self.payload.as_bytes()]))
    }

    pub(crate) fn unsigned_id(&self, content_hash: &ContentHash) -> TransactionId {
        TransactionId(sha256(&[ID_TAG, &self.key_id.0, &content_hash.0]))
    }

    /// Checks the lengths that the format allows.
    ///
    /// # Errors
    ///
    /// [`StatementError`] but for its signature.
    pub fn check_size(&self) -> Result<(), StatementError> {
        let size = self.payload.len();
        if size == 0 || size > PAYLOAD_SIZE_MAX {
            return Err(StatementError::PayloadSize { size });
        }
        if self.signature.len() > usize::from(u16::MAX) {
            return Err(StatementError::SignatureSize { size: self.signature.len() });
        }
        Ok(())
    }

    /// Checks all that a signed statement needs but its signature.
    pub(crate) fn check_key(&self, public_key: &PublicKey) -> Result<(), StatementError> {
        self.check_size()?;
        if self.key_id != public_key.key_id() {
            return Err(StatementError::OtherKey { expected: self.key_id, got: public_key.key_id() });
        }
        Ok(())
    }

    /// Checks all that an unsigned statement needs.
    pub(crate) fn check_unsigned(&self) -> Result<(), StatementError> {
        self.check_size()?;
        if !self.is_unsigned() {
            return Err(StatementError::OtherKey { expected: self.key_id, got: KeyId::ZERO });
        }
        if self.signature.len() != UNSIGNED_SALT_SIZE {
            return Err(StatementError::UnsignedSalt { size: self.signature.len() });
        }
        Ok(())
    }
}

/// Why a statement may not enter a chain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// The payload is empty or too long.
    #[error("payload of {size} bytes: expected 1 to {PAYLOAD_SIZE_MAX}")]
    PayloadSize {
        /// Bytes of the payload.
        size: usize,
    },
    /// The signature does not fit its length field.
    #[error("signature of {size} bytes: expected at most 65535")]
    SignatureSize {
        /// Bytes of the signature.
        size: usize,
    },
    /// The key given is not the one that the statement names.
    #[error("public key {got} given for a statement of key {expected}")]
    OtherKey {
        /// The statement's key.
        expected: KeyId,
        /// The key given.
        got: KeyId,
    },
    /// The signature is not of this payload by this key.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// An unsigned statement does not carry 16 random bytes.
    #[error("unsigned with {size} bytes in place of a signature: expected {UNSIGNED_SALT_SIZE}")]
    UnsignedSalt {
        /// Bytes in place of a signature.
        size: usize,
    },
}

/// A statement whose signature was found good, with its id. It can be made in no other way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedStatement {
    id: TransactionId,
    statement: Arc<Statement>,
}

impl VerifiedStatement {
    /// Verifies a signed statement.
    ///
    /// # Errors
    ///
    /// [`StatementError`] says which rule it breaks.
    pub fn verify(statement: Statement, public_key: &PublicKey) -> Result<Self, StatementError> {
        statement.check_key(public_key)?;
        public_key.verify(statement.payload.as_bytes(), &statement.signature)?;
        Ok(Self { id: statement.id(), statement: Arc::new(statement) })
    }

    /// Makes an unsigned statement of a payload and 16 random bytes, for a chain whose rules allow it.
    ///
    /// # Errors
    ///
    /// [`StatementError::PayloadSize`].
    pub fn unsigned(payload: String, salt: [u8; UNSIGNED_SALT_SIZE]) -> Result<Self, StatementError> {
        let statement = Statement { key_id: KeyId::ZERO, payload, signature: salt.to_vec() };
        Self::check_unsigned(statement)
    }

    /// Checks a statement that is unsigned already.
    ///
    /// # Errors
    ///
    /// [`StatementError`] says which rule it breaks.
    pub fn check_unsigned(statement: Statement) -> Result<Self, StatementError> {
        statement.check_unsigned()?;
        Ok(Self { id: statement.id(), statement: Arc::new(statement) })
    }

    /// Returns the id.
    pub fn id(&self) -> TransactionId {
        self.id
    }

    /// Returns the statement.
    pub fn statement(&self) -> &Arc<Statement> {
        &self.statement
    }
}

/// A statement, whole or pruned, with its number among all of its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// How many transactions of this key stand earlier on the same branch.
    pub sequence: u64,
    /// What was said.
    pub content: Content,
}

/// What is kept of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// All of it.
    Full(Arc<Statement>),
    /// Payload and signature were dropped. Roots and proofs still verify; the signature no longer can be checked.
    Pruned {
        /// Who signed.
        key_id: KeyId,
        /// Stands for payload and signature.
        content_hash: ContentHash,
    },
}

impl Content {
    /// Returns who signed.
    pub fn key_id(&self) -> KeyId {
        match self {
            Self::Full(statement) => statement.key_id,
            Self::Pruned { key_id, .. } => *key_id,
        }
    }
}

impl Transaction {
    /// Returns who signed.
    pub fn key_id(&self) -> KeyId {
        self.content.key_id()
    }

    /// Returns the statement, unless it was pruned.
    pub fn statement(&self) -> Option<&Arc<Statement>> {
        match &self.content {
            Content::Full(statement) => Some(statement),
            Content::Pruned { .. } => None,
        }
    }

    /// Returns the hash of the Merkle leaf `key_id ‖ sequence ‖ content_hash`.
    pub fn leaf_hash(&self) -> [u8; 32] {
        self.leaf_hash_of(&match &self.content {
            Content::Full(statement) => statement.content_hash(),
            Content::Pruned { content_hash, .. } => *content_hash,
        })
    }

    /// Returns the same from a content hash that is known.
    pub(crate) fn leaf_hash_of(&self, content_hash: &ContentHash) -> [u8; 32] {
        let mut leaf = [0; 72];
        leaf[..32].copy_from_slice(&self.key_id().0);
        leaf[32..40].copy_from_slice(&self.sequence.to_be_bytes());
        leaf[40..].copy_from_slice(&content_hash.0);
        merkle::leaf_hash(&leaf)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement(signature: &[u8]) -> Statement {
        Statement { key_id: KeyId([7; 32]), payload: "{}".into(), signature: signature.to_vec() }
    }

    #[test]
    fn id_of_a_signed_statement_leaves_the_signature_out() {
        assert_eq!(statement(b"a").id(), statement(b"b").id());
        assert_ne!(statement(b"a").content_hash(), statement(b"b").content_hash());
    }

    #[test]
    fn id_of_an_unsigned_statement_holds_its_salt() {
        let one = VerifiedStatement::unsigned("{}".into(), [1; 16]).unwrap();
        let two = VerifiedStatement::unsigned("{}".into(), [2; 16]).unwrap();
        assert_ne!(one.id(), two.id());
    }

    #[test]
    fn refuses_empty_and_long_payloads() {
        for size in [0, PAYLOAD_SIZE_MAX + 1] {
            let error = VerifiedStatement::unsigned("x".repeat(size), [0; 16]).unwrap_err();
            assert_eq!(error, StatementError::PayloadSize { size });
        }
        assert!(VerifiedStatement::unsigned("x".repeat(PAYLOAD_SIZE_MAX), [0; 16]).is_ok());
    }

    #[test]
    fn refuses_an_unsigned_statement_without_its_salt() {
        let error =
            VerifiedStatement::check_unsigned(Statement { key_id: KeyId::ZERO, ..statement(b"short") });
        assert_eq!(error, Err(StatementError::UnsignedSalt { size: 5 }));
    }
}
