//! A device: a key and what it signs.

use aws_lc_rs::{
    encoding::AsDer,
    signature::{Ed25519KeyPair, KeyPair},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use liotbchain_core::{PublicKey, Statement, VerifiedStatement};
use serde_json::{Value, json};

pub struct Signer {
    pair: Ed25519KeyPair,
    pub key: PublicKey,
}

impl Signer {
    pub fn new() -> Self {
        let pair = Ed25519KeyPair::generate().unwrap();
        let key = PublicKey::from_spki_der(pair.public_key().as_der().unwrap().as_ref()).unwrap();
        Self { pair, key }
    }

    /// An item as it stands in a request.
    pub fn item(&self, data: &str) -> String {
        self.item_signed(data, data)
    }

    /// An item whose signature is over another text.
    pub fn item_signed(&self, data: &str, signed: &str) -> String {
        let signature = STANDARD.encode(self.pair.sign(signed.as_bytes()));
        let public_key = serde_json::to_string(&self.key.to_pem()).unwrap();
        format!("{{\"data\": {data}, \"signature\": \"{signature}\", \"public_key\": {public_key}}}")
    }

    /// A transaction as it stands in a request of `/v1`.
    pub fn transaction(&self, payload: &str) -> Value {
        let signature = STANDARD.encode(self.pair.sign(payload.as_bytes()));
        json!({"payload": payload, "signature": signature, "public_key": self.key.to_pem()})
    }

    pub fn statement(&self, payload: String) -> VerifiedStatement {
        let signature = self.pair.sign(payload.as_bytes()).as_ref().to_vec();
        VerifiedStatement::verify(Statement { key_id: self.key.key_id(), payload, signature }, &self.key)
            .unwrap()
    }
}
