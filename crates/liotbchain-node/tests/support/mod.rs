//! What the tests of this crate share: signers, and ledgers on stores of their own.

use std::{sync::Arc, time::Duration};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair},
};
use liotbchain_core::{Difficulty, PublicKey, Statement, VerifiedStatement};
use liotbchain_node::{Ledger, LedgerConfig};
use liotbchain_store::{NewTransaction, OpenOptions, Store, memory::MemoryStore, sqlite::SqliteStore};

pub const WAIT: Duration = Duration::from_secs(60);

/// Signs with an Ed25519 key that never changes.
pub struct Signer(Ed25519KeyPair, PublicKey);

impl Signer {
    pub fn new(seed: u8) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        let mut spki = vec![0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
        spki.extend_from_slice(pair.public_key().as_ref());
        Self(pair, PublicKey::from_spki_der(&spki).unwrap())
    }

    pub fn sign(&self, payload: &str) -> NewTransaction {
        let signature = self.0.sign(payload.as_bytes()).as_ref().to_vec();
        verified(payload, signature, &self.1)
    }

    #[allow(dead_code, reason = "not every test file needs it")]
    pub fn key_id(&self) -> liotbchain_core::KeyId {
        self.1.key_id()
    }

    /// One transaction for each number.
    pub fn readings(&self, numbers: std::ops::Range<u32>) -> Vec<NewTransaction> {
        numbers.map(|number| self.sign(&format!(r#"{{"reading":{number}}}"#))).collect()
    }
}

/// Two signatures of one statement: ECDSA draws a random number for each.
#[allow(dead_code, reason = "not every test file needs it")]
pub fn signed_twice(payload: &str) -> [NewTransaction; 2] {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
    let spki = aws_lc_rs::encoding::AsDer::<aws_lc_rs::encoding::PublicKeyX509Der>::as_der(pair.public_key());
    let key = PublicKey::from_spki_der(spki.unwrap().as_ref()).unwrap();
    [(); 2].map(|()| {
        let signature = pair.sign(&SystemRandom::new(), payload.as_bytes()).unwrap();
        verified(payload, signature.as_ref().to_vec(), &key)
    })
}

fn verified(payload: &str, signature: Vec<u8>, key: &PublicKey) -> NewTransaction {
    let statement = Statement { key_id: key.key_id(), payload: payload.to_owned(), signature };
    let statement = VerifiedStatement::verify(statement, key).unwrap();
    NewTransaction { statement, public_key: Some(key.clone()) }
}

pub fn config() -> LedgerConfig {
    LedgerConfig { difficulty: Difficulty::new(1).unwrap(), mining_threads: 1, ..LedgerConfig::default() }
}

#[allow(dead_code, reason = "not every test file needs it")]
pub fn memory() -> Arc<dyn Store> {
    Arc::new(MemoryStore::default())
}

pub async fn sqlite(folder: &std::path::Path) -> Arc<dyn Store> {
    Arc::new(SqliteStore::open(&folder.join("chain.db"), &OpenOptions::default()).await.unwrap())
}

pub async fn open(store: &Arc<dyn Store>, config: LedgerConfig) -> Ledger {
    Ledger::open(Arc::clone(store), config).await.unwrap()
}
