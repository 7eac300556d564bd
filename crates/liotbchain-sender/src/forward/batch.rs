//! A list of records on its way, and the bytes of its request.

use std::collections::HashSet;

use base64::{Engine, engine::general_purpose::STANDARD};
use liotbchain_core::{KeyId, PublicKey};

use crate::outbox::{Record, Slot};

/// Below this, compressing saves no packet.
const COMPRESSED_FROM: usize = 1024;

/// The fastest level: three quarters of a list of records are the same in every one.
const ZSTD_LEVEL: i32 = 1;

/// Records that are posted together, in this order.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// One at least, but while it is being settled.
    pub records: Vec<Record>,
    /// Whether it was posted before, by itself or as a part of a larger one.
    pub is_posted: bool,
    /// Posts in a row that were not answered in time.
    pub unanswered: u32,
    /// Posts in a row that were refused as a whole.
    pub refusals: u32,
}

impl Batch {
    pub(super) fn new(records: Vec<Record>) -> Self {
        Self { records, ..Self::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = Slot> {
        self.records.iter().map(|record| record.slot)
    }

    /// Cuts the second half off; one more than half stays where the number is odd.
    pub(super) fn split(&mut self) -> Self {
        let second = self.records.split_off(self.len().div_ceil(2));
        Self { records: second, is_posted: self.is_posted, ..Self::default() }
    }

    /// Writes the body of `POST /v1/transactions`, a record a line. Keys that the receiver has go by their id.
    pub(super) fn to_lines(&self, known: &HashSet<KeyId>) -> Vec<u8> {
        let mut body = self.room();
        let mut pem = PemText::default();
        for record in &self.records {
            body.extend_from_slice(br#"{"payload":"#);
            push_text(&mut body, &record.statement.payload);
            self.push_signature(&mut body, record);
            let key_id = record.statement.key_id;
            if known.contains(&key_id) {
                body.extend_from_slice(br#","key_id":"#);
                push_text(&mut body, &key_id.to_string());
            } else {
                body.extend_from_slice(br#","public_key":"#);
                body.extend_from_slice(pem.of(&record.public_key));
            }
            body.extend_from_slice(b"}\n");
        }
        body
    }

    /// Writes the body of the original's `POST /receive_data`: a list, the signed text itself as a value.
    pub(super) fn to_original_list(&self) -> Vec<u8> {
        let mut body = self.room();
        let mut pem = PemText::default();
        for record in &self.records {
            body.push(if body.is_empty() { b'[' } else { b',' });
            body.extend_from_slice(br#"{"data":"#);
            body.extend_from_slice(record.statement.payload.as_bytes());
            self.push_signature(&mut body, record);
            body.extend_from_slice(br#","public_key":"#);
            body.extend_from_slice(pem.of(&record.public_key));
            body.push(b'}');
        }
        body.push(b']');
        body
    }

    /// Reserves what a record takes beside its payload: signature, key id, quotation marks that are escaped.
    fn room(&self) -> Vec<u8> {
        let sizes = self.records.iter().map(|it| it.statement.payload.len() + it.statement.signature.len());
        Vec::with_capacity(sizes.sum::<usize>() * 3 / 2 + self.len() * 128)
    }

    fn push_signature(&self, body: &mut Vec<u8>, record: &Record) {
        body.extend_from_slice(br#","signature":""#);
        let start = body.len();
        body.resize(start + record.statement.signature.len().div_ceil(3) * 4, b'=');
        STANDARD
            .encode_slice(&record.statement.signature, &mut body[start..])
            .expect("base64 takes four bytes for each three begun");
        body.push(b'"');
    }
}

/// Compresses a body where that is worth it.
pub(super) fn compress(body: &[u8]) -> Option<Vec<u8>> {
    if body.len() < COMPRESSED_FROM {
        return None;
    }
    zstd::bulk::compress(body, ZSTD_LEVEL).ok()
}

fn push_text(body: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(body, text).expect("a text is JSON, and a Vec takes it");
}

/// The PEM text of the key that was asked for last, as JSON: most records of a list have the gateway's own.
#[derive(Default)]
struct PemText {
    key_id: Option<KeyId>,
    json: Vec<u8>,
}

impl PemText {
    fn of(&mut self, key: &PublicKey) -> &[u8] {
        let key_id = key.key_id();
        if self.key_id != Some(key_id) {
            self.json.clear();
            push_text(&mut self.json, &key.to_pem());
            self.key_id = Some(key_id);
        }
        &self.json
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use liotbchain_core::Statement;
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        reading::DeviceName,
        signer::{KeyKind, SigningKey},
    };

    pub(in super::super) fn record(key: &SigningKey, slot: Slot, payload: &str) -> Record {
        let public_key = key.public_key().clone();
        let signature = key.sign(payload.as_bytes());
        let statement = Statement { key_id: public_key.key_id(), payload: payload.to_owned(), signature };
        let device = DeviceName::new("d").unwrap();
        Record { slot, id: statement.id(), device, statement, public_key: Arc::new(public_key) }
    }

    fn batch(key: &SigningKey, payloads: &[&str]) -> Batch {
        Batch::new((0..).zip(payloads).map(|(slot, payload)| record(key, slot, payload)).collect())
    }

    const PAYLOADS: [&str; 3] = ["{\"a\": \"\\u00e9 \u{e9} \\\" \\\\ \u{2028}\"}", " 1.10 ", "{}"];

    #[test]
    fn writes_a_record_a_line_with_the_key_until_it_is_known() {
        for kind in [KeyKind::Ed25519, KeyKind::Rsa, KeyKind::P256] {
            let key = SigningKey::generate(kind).unwrap();
            let (batch, key_id) = (batch(&key, &PAYLOADS), key.public_key().key_id());
            for known in [HashSet::new(), HashSet::from([key_id])] {
                let body = String::from_utf8(batch.to_lines(&known)).unwrap();
                let lines: Vec<Value> =
                    body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
                let expected = batch.records.iter().map(|record| {
                    let signature = STANDARD.encode(&record.statement.signature);
                    let payload = &record.statement.payload;
                    match known.is_empty() {
                        true => json!({"payload": payload, "signature": signature,
                            "public_key": key.public_key().to_pem()}),
                        false => json!({"payload": payload, "signature": signature,
                            "key_id": key_id.to_string()}),
                    }
                });
                assert_eq!(lines, Vec::from_iter(expected));
            }
        }
    }

    #[test]
    fn sends_each_key_with_its_own_records() {
        let keys = [KeyKind::Ed25519, KeyKind::P256].map(|kind| SigningKey::generate(kind).unwrap());
        let records = [0, 1, 0, 1].map(|at: usize| record(&keys[at], at as u64, "{}"));
        let batch = Batch::new(records.to_vec());
        let known = HashSet::from([keys[1].public_key().key_id()]);
        let body = String::from_utf8(batch.to_lines(&known)).unwrap();
        let lines = Vec::from_iter(body.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()));
        for (line, record) in lines.iter().zip(&batch.records) {
            let pem = line["public_key"].as_str().map(|pem| PublicKey::from_pem(pem).unwrap().key_id());
            let named = line["key_id"].as_str().map(|id| id.parse().unwrap());
            assert_eq!(pem.or(named), Some(record.statement.key_id));
            assert_eq!(named.is_some(), known.contains(&record.statement.key_id));
        }
    }

    #[test]
    fn writes_the_signed_text_itself_for_the_original() {
        let key = SigningKey::generate(KeyKind::Rsa).unwrap();
        let batch = batch(&key, &["{\"device\": \"Nodemcu 1\", \"timestamp\": 1717979369.0}", "1.10"]);
        let body = String::from_utf8(batch.to_original_list()).unwrap();
        assert!(body.starts_with("[{\"data\":{\"device\": \"Nodemcu 1\", \"timestamp\": 1717979369.0},\""));
        assert!(body.contains("{\"data\":1.10,\"signature\":\""), "{body}");
        let items: Vec<Value> = serde_json::from_str(&body).unwrap();
        for (item, record) in items.iter().zip(&batch.records) {
            assert_eq!(item["signature"], STANDARD.encode(&record.statement.signature));
            assert_eq!(item["public_key"], key.public_key().to_pem());
        }
    }

    #[test]
    fn halves_keep_the_order() {
        let key = SigningKey::generate(KeyKind::Ed25519).unwrap();
        let mut first = batch(&key, &["1", "2", "3", "4", "5"]);
        let second = first.split();
        assert_eq!(Vec::from_iter(first.slots()), [0, 1, 2]);
        assert_eq!(Vec::from_iter(second.slots()), [3, 4]);
    }

    #[test]
    fn compresses_what_is_large() {
        let key = SigningKey::generate(KeyKind::Ed25519).unwrap();
        let body = batch(&key, &["{\"temperature\": 21.5}"; 100]).to_lines(&HashSet::new());
        let small = compress(&body).unwrap();
        assert!(small.len() * 2 < body.len());
        assert_eq!(zstd::decode_all(&small[..]).unwrap(), body);
        assert_eq!(compress(b"[]"), None);
    }
}
