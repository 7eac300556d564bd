//! Signed readings, made once: signing with RSA takes far longer than all that is measured.

use std::{path::Path, thread};

use anyhow::Context;
use base64::{Engine, engine::general_purpose::STANDARD};
use liotbchain_core::{PublicKey, Statement};
use liotbchain_sender::signer::{KeyKind, SigningKey};

/// Of what is kept: another form of payload needs another number.
const VERSION: u32 = 1;

/// Readings of one device, whose payloads are Python's JSON text, so that the Python original verifies them too.
pub struct Readings {
    pub key: PublicKey,
    pub statements: Vec<Statement>,
}

impl Readings {
    /// Returns the first `count` readings signed by a key of this kind, those of an earlier run where there are enough.
    pub fn load(folder: &Path, kind: KeyKind, count: usize) -> anyhow::Result<Self> {
        let file = folder.join(format!("readings-{kind}-v{VERSION}"));
        let mut kept = std::fs::read(&file).ok().and_then(|bytes| Self::decode(&bytes));
        if kept.as_ref().is_none_or(|kept| kept.statements.len() < count) {
            let made = Self::make(kind, count)?;
            std::fs::write(&file, made.encode())?;
            kept = Some(made);
        }
        let mut readings = kept.context("just made")?;
        readings.statements.truncate(count);
        Ok(readings)
    }

    fn make(kind: KeyKind, count: usize) -> anyhow::Result<Self> {
        let key = SigningKey::generate(kind)?;
        let threads = thread::available_parallelism()?.get();
        let sign = |part: usize| {
            let numbers = part * count / threads..(part + 1) * count / threads;
            numbers.map(|number| key.sign(payload(number).as_bytes())).collect::<Vec<_>>()
        };
        let signatures = thread::scope(|scope| {
            let parts: Vec<_> = (0..threads).map(|part| scope.spawn(move || sign(part))).collect();
            parts.into_iter().flat_map(|part| part.join().expect("signing does not panic")).collect()
        });
        Ok(Self::of(key.public_key().clone(), signatures))
    }

    fn of(key: PublicKey, signatures: Vec<Vec<u8>>) -> Self {
        let key_id = key.key_id();
        let statements = signatures.into_iter().enumerate();
        let statements = statements
            .map(|(number, signature)| Statement { key_id, payload: payload(number), signature })
            .collect();
        Self { key, statements }
    }

    fn encode(&self) -> Vec<u8> {
        let spki = self.key.spki_der();
        let mut bytes = (spki.len() as u32).to_be_bytes().to_vec();
        bytes.extend(spki);
        self.statements.iter().for_each(|statement| bytes.extend(&statement.signature));
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (length, rest) = bytes.split_first_chunk()?;
        let (spki, signatures) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        let key = PublicKey::from_spki_der(spki).ok()?;
        let size = match key.algorithm() {
            liotbchain_core::key::Algorithm::RsaPss { bits } => bits / 8,
            _ => 64,
        };
        let readings = Self::of(key, signatures.chunks_exact(size).map(<[u8]>::to_vec).collect());
        // Half a file is made anew.
        let last = readings.statements.last()?;
        let verified = readings.key.verify(last.payload.as_bytes(), &last.signature);
        verified.is_ok().then_some(readings)
    }

    /// Returns bodies for `/receive_data`, each a list of `size`.
    pub fn bodies(&self, size: usize) -> Vec<String> {
        let pem = self.key.to_pem().replace('\n', "\\n");
        let item = |statement: &Statement| {
            let signature = STANDARD.encode(&statement.signature);
            format!(r#"{{"data":{},"signature":"{signature}","public_key":"{pem}"}}"#, statement.payload)
        };
        let list = |list: &[Statement]| format!("[{}]", list.iter().map(item).collect::<Vec<_>>().join(","));
        self.statements.chunks(size).map(list).collect()
    }
}

fn payload(number: usize) -> String {
    let (device, distance) = (number % 3 + 1, number % 400);
    format!(r#"{{"device": "Raspberry Pi {device}", "distance": {distance}, "timestamp": {number}.5}}"#)
}
