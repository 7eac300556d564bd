//! Signs many texts, on several threads where that is worth it.

use std::{num::NonZero, thread, time::Duration};

use crate::signer::{KeyKind, SigningKey};

/// Signing that takes longer than this is shared out; a thread costs 30 µs.
const ALONE_MAX: Duration = Duration::from_millis(3);

/// Returns the signature of each text, in their order.
pub(super) fn sign_all(key: &SigningKey, texts: &[&str]) -> Vec<Vec<u8>> {
    let sign = |texts: &[&str]| texts.iter().map(|text| key.sign(text.as_bytes())).collect::<Vec<_>>();
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let estimate = cost(key.kind()) * u32::try_from(texts.len()).unwrap_or(u32::MAX);
    if threads == 1 || texts.len() < 2 || estimate <= ALONE_MAX {
        return sign(texts);
    }
    let (mine, others) = texts.split_at(texts.len().div_ceil(threads));
    thread::scope(|scope| {
        let chunk = others.len().div_ceil(threads - 1).max(1);
        let spawned: Vec<_> = others
            .chunks(chunk)
            .map(|texts| (texts, thread::Builder::new().spawn_scoped(scope, move || sign(texts))))
            .collect();
        let mut signatures = sign(mine);
        for (texts, thread) in spawned {
            // Where the system has no more threads, this one does the work.
            let signed = thread.ok().and_then(|thread| thread.join().ok());
            signatures.extend(signed.unwrap_or_else(|| sign(texts)));
        }
        signatures
    })
}

/// Returns about how long one signature takes.
fn cost(kind: KeyKind) -> Duration {
    match kind {
        KeyKind::Ed25519 => Duration::from_micros(20),
        KeyKind::P256 => Duration::from_micros(30),
        KeyKind::Rsa => Duration::from_micros(600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_stand_in_the_order_of_their_texts() {
        for kind in [KeyKind::Ed25519, KeyKind::P256, KeyKind::Rsa] {
            let key = SigningKey::generate(kind).unwrap();
            for count in [0, 1, 2, 3, 201] {
                let texts: Vec<_> = (0..count).map(|number| format!("text {number}")).collect();
                let texts: Vec<_> = texts.iter().map(String::as_str).collect();
                let signatures = sign_all(&key, &texts);
                assert_eq!(signatures.len(), texts.len());
                for (text, signature) in texts.iter().zip(&signatures) {
                    key.public_key().verify(text.as_bytes(), signature).unwrap();
                }
            }
        }
    }
}
