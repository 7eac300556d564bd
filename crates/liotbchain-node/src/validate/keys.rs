//! The public keys of the pages that are being examined, and of some before them.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use liotbchain_core::{KeyId, PublicKey};
use liotbchain_store::{Store, StoreError, StoredBlock};

/// Keys that are kept, at 1 to 5 kB each. Where a chain has more, they are read and parsed again.
const KEYS_MAX: usize = 1_024;

/// Public keys, kept in bounded number.
pub(super) struct Keys {
    store: Arc<dyn Store>,
    kept: Mutex<HashMap<KeyId, PublicKey>>,
}

impl Keys {
    pub(super) fn new(store: &Arc<dyn Store>) -> Self {
        Self { store: Arc::clone(store), kept: Mutex::default() }
    }

    /// Returns the keys of a page that are known.
    pub(super) async fn of(&self, page: &[StoredBlock]) -> Result<HashMap<KeyId, PublicKey>, StoreError> {
        let mut missing = HashSet::new();
        let mut last = KeyId::ZERO;
        for transaction in page.iter().flat_map(|stored| &stored.block.transactions) {
            let key_id = transaction.key_id();
            if key_id != last && key_id != KeyId::ZERO {
                missing.insert(key_id);
            }
            last = key_id;
        }
        let mut keys = HashMap::with_capacity(missing.len());
        {
            let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            missing.retain(|key_id| match kept.get(key_id) {
                Some(key) => keys.insert(*key_id, key.clone()).is_some(),
                None => true,
            });
        }
        if missing.is_empty() {
            return Ok(keys);
        }
        let found = self.store.public_keys(&missing.into_iter().collect::<Vec<_>>()).await?;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() + found.len() > KEYS_MAX {
            kept.clear();
        }
        let room = KEYS_MAX - kept.len();
        kept.extend(found.iter().take(room).map(|(key_id, key)| (*key_id, key.clone())));
        keys.extend(found);
        Ok(keys)
    }
}
