//! Public keys that were read before: reading one costs about as much as verifying with it.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use liotbchain_core::{PublicKey, PublicKeyError};

/// Keys in each of the two generations.
const GENERATION_KEYS: usize = 512;
/// Longest text that is kept: an RSA key of 8192 bits takes 1,500 bytes.
const TEXT_SIZE_MAX: usize = 4_096;

/// Keys by their PEM text. Of those used, the last 512 are there, and at most 1,024 in all.
#[derive(Default)]
pub(crate) struct KeyCache(Mutex<Generations>);

/// Keys enter the young generation; when it is full it becomes the old one, and the old one is dropped.
#[derive(Default)]
struct Generations {
    young: HashMap<Box<str>, PublicKey>,
    old: HashMap<Box<str>, PublicKey>,
}

impl KeyCache {
    /// Returns the key of this text.
    ///
    /// # Errors
    ///
    /// [`PublicKeyError`] where the text is none.
    pub(crate) fn read(&self, pem: &str) -> Result<PublicKey, PublicKeyError> {
        if let Some(key) = self.generations().get(pem) {
            return Ok(key);
        }
        let key = PublicKey::from_pem(pem)?;
        if pem.len() <= TEXT_SIZE_MAX {
            self.generations().insert(pem.into(), key.clone());
        }
        Ok(key)
    }

    fn generations(&self) -> std::sync::MutexGuard<'_, Generations> {
        // Whatever a panic left behind are whole entries.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Generations {
    fn get(&mut self, pem: &str) -> Option<PublicKey> {
        if let Some(key) = self.young.get(pem) {
            return Some(key.clone());
        }
        let (pem, key) = self.old.remove_entry(pem)?;
        self.insert(pem, key.clone());
        Some(key)
    }

    fn insert(&mut self, pem: Box<str>, key: PublicKey) {
        if self.young.len() >= GENERATION_KEYS {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(pem, key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openapi::EXAMPLE_PUBLIC_KEY;

    /// The same key under many texts: what stands around the block is passed over.
    fn text(number: usize) -> String {
        format!("{number}\n{EXAMPLE_PUBLIC_KEY}")
    }

    fn kept(cache: &KeyCache) -> usize {
        let generations = cache.generations();
        generations.young.len() + generations.old.len()
    }

    #[test]
    fn keeps_a_bounded_number_of_keys() {
        let cache = KeyCache::default();
        for number in 0..3 * GENERATION_KEYS {
            cache.read(&text(number)).unwrap();
        }
        assert_eq!(kept(&cache), 2 * GENERATION_KEYS);
    }

    #[test]
    fn keeps_what_is_used() {
        let cache = KeyCache::default();
        for number in 1..3 * GENERATION_KEYS {
            cache.read(&text(0)).unwrap();
            cache.read(&text(number)).unwrap();
        }
        assert!(cache.generations().get(&text(0)).is_some());
        assert!(cache.generations().get(&text(1)).is_none());
    }

    #[test]
    fn keeps_neither_long_texts_nor_what_is_no_key() {
        let cache = KeyCache::default();
        cache.read(&format!("{}{EXAMPLE_PUBLIC_KEY}", " ".repeat(TEXT_SIZE_MAX))).unwrap();
        cache.read("no key").unwrap_err();
        assert_eq!(kept(&cache), 0);
    }
}
