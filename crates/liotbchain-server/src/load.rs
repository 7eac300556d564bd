//! How much the receiver takes on at a time: a flood must cost clients their patience, not the machine its memory.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// Bodies up to this size are always read: the number of connections bounds them.
const SMALL_BODY: usize = 64 << 10;
/// Bytes that larger bodies have in all. What is made of a body takes about twice its size again.
const LARGE_BODIES: usize = 64 << 20;
/// How long a request waits for its turn: whoever is told early that there is too much can try elsewhere, or slow down.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// Why a request did not get its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Overload {
    /// Other large bodies are in memory.
    #[error("large bodies of other requests take all {} MiB they may", LARGE_BODIES >> 20)]
    Bodies,
    /// The signatures of other lists are being verified.
    #[error("the signatures of other lists take all processors")]
    Processors,
}

pub(crate) struct Load {
    body_size_max: usize,
    /// One permit a [`SMALL_BODY`].
    bodies: Arc<Semaphore>,
    processors: Arc<Semaphore>,
}

impl Load {
    pub(crate) fn new(body_size_max: usize) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            body_size_max,
            bodies: Arc::new(Semaphore::new(LARGE_BODIES / SMALL_BODY)),
            processors: Arc::new(Semaphore::new(processors)),
        }
    }

    /// Makes room for a body of the size that was announced, if one was, until the permit is dropped.
    ///
    /// # Errors
    ///
    /// [`Overload::Bodies`].
    pub(crate) async fn body(
        &self,
        announced: Option<u64>,
    ) -> Result<Option<OwnedSemaphorePermit>, Overload> {
        // A body that is too large is refused before it is read; one of unknown size may become as large as allowed.
        let announced = announced.map(|size| usize::try_from(size).unwrap_or(usize::MAX));
        let size = announced.unwrap_or(self.body_size_max);
        if size <= SMALL_BODY || size > self.body_size_max {
            return Ok(None);
        }
        let permits = size.min(LARGE_BODIES).div_ceil(SMALL_BODY);
        let permit = acquire(&self.bodies, permits as u32).await;
        permit.map(Some).ok_or(Overload::Bodies)
    }

    /// Waits for a processor to verify a list on, until the permit is dropped.
    ///
    /// # Errors
    ///
    /// [`Overload::Processors`].
    pub(crate) async fn processor(&self) -> Result<OwnedSemaphorePermit, Overload> {
        acquire(&self.processors, 1).await.ok_or(Overload::Processors)
    }
}

async fn acquire(semaphore: &Arc<Semaphore>, permits: u32) -> Option<OwnedSemaphorePermit> {
    // Neither semaphore is ever closed.
    timeout(WAIT_MAX, Arc::clone(semaphore).acquire_many_owned(permits)).await.ok()?.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn large_bodies_wait_for_each_other_and_small_ones_do_not() {
        let load = Load::new(LARGE_BODIES);
        let all = load.body(Some(LARGE_BODIES as u64)).await.unwrap();
        assert!(all.is_some());
        assert_eq!(load.body(Some(SMALL_BODY as u64 + 1)).await.unwrap_err(), Overload::Bodies);
        assert_eq!(load.body(None).await.unwrap_err(), Overload::Bodies);
        assert!(load.body(Some(SMALL_BODY as u64)).await.unwrap().is_none());
        drop(all);
        assert!(load.body(None).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn a_body_larger_than_the_whole_budget_waits_for_all_of_it() {
        let load = Load::new(4 * LARGE_BODIES);
        assert!(load.body(Some(3 * LARGE_BODIES as u64)).await.unwrap().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn verification_waits_for_a_processor() {
        let load = Load::new(0);
        let mut permits = Vec::new();
        while let Ok(permit) = load.processor().await {
            permits.push(permit);
        }
        assert_eq!(permits.len(), std::thread::available_parallelism().map_or(1, usize::from));
        permits.pop();
        assert!(load.processor().await.is_ok());
    }
}
