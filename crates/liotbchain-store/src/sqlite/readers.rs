//! A few connections that read, each call in one snapshot.

use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::{sync::Semaphore, task, time};

use super::connection::{Opened, Place};
use crate::StoreError;

/// Readers at once. More would only wait for the same disk.
const READERS: u32 = 4;

/// Memory for a reader's pages: the inner pages of an index of ten million ids, and little else. The system caches the
/// file, and a validation holds several readers' memory beside its own.
const CACHE_KIB: i64 = 1 << 10;

/// The connections for reading.
pub(super) struct Readers {
    shared: Arc<Shared>,
    permits: Arc<Semaphore>,
}

struct Shared {
    place: Place,
    idle: Mutex<Vec<Opened>>,
}

impl Readers {
    pub(super) fn new(place: Place) -> Self {
        let shared = Arc::new(Shared { place, idle: Mutex::default() });
        Self { shared, permits: Arc::new(Semaphore::new(READERS as usize)) }
    }

    /// Runs `work` on one snapshot of the store.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let timeout = self.shared.place.timeout;
        let answer = time::timeout(timeout, async {
            let permit = Arc::clone(&self.permits).acquire_owned().await;
            let permit = permit.map_err(|_| StoreError::Unavailable("the store is closed".to_owned()))?;
            let shared = Arc::clone(&self.shared);
            let task = task::spawn_blocking(move || {
                let result = shared.read(work);
                drop(permit);
                result
            });
            task.await.map_err(|error| StoreError::Unavailable(error.to_string()))?
        });
        let late = |_| StoreError::Unavailable(format!("no answer within {} s", timeout.as_secs_f32()));
        answer.await.map_err(late)?
    }

    /// Takes no more work, and closes the connections once the last reader is done.
    pub(super) async fn close(&self) {
        // Fails only where it was closed before.
        if self.permits.acquire_many(READERS).await.is_ok() {
            self.permits.close();
            self.shared.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }
}

impl Shared {
    fn read<T>(&self, work: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let opened = match idle.filter(|opened| opened.is_current(&self.place)) {
            Some(opened) => opened,
            None => {
                let opened = self.place.open_reader()?;
                opened.connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
                opened
            }
        };
        let snapshot = opened.connection.unchecked_transaction()?;
        let value = work(&snapshot)?;
        snapshot.finish()?;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(opened);
        Ok(value)
    }
}
