//! Requests that wait for their transactions to be sealed.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use liotbchain_core::TransactionId;
use liotbchain_store::Place;
use tokio::sync::Notify;

/// What became of a transaction that somebody waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It stands here.
    Sealed(Place),
    /// It stays pending until more arrive.
    Left,
    /// Mining gave up after so many attempts; it is tried again later.
    MiningFailed { attempts: u64 },
}

/// All who wait, by transaction.
#[derive(Debug, Default)]
pub(crate) struct Waiting(Mutex<HashMap<TransactionId, Vec<Arc<Waiter>>>>);

#[derive(Debug, Default)]
struct Waiter {
    outcomes: Mutex<HashMap<TransactionId, Outcome>>,
    changed: Notify,
}

/// One request's place among them; leaves when dropped.
#[derive(Debug)]
pub(crate) struct Wait<'a> {
    waiting: &'a Waiting,
    waiter: Arc<Waiter>,
    ids: Vec<TransactionId>,
}

impl Waiting {
    /// Starts to wait for these ids. Done before they are admitted, so that no outcome is missed.
    pub(crate) fn wait_for(&self, ids: Vec<TransactionId>) -> Wait<'_> {
        let waiter = Arc::new(Waiter::default());
        let mut waiting = lock(&self.0);
        for id in &ids {
            waiting.entry(*id).or_default().push(Arc::clone(&waiter));
        }
        drop(waiting);
        Wait { waiting: self, waiter, ids }
    }

    /// Tells all who wait for this id.
    pub(crate) fn resolve(&self, id: &TransactionId, outcome: Outcome) {
        let Some(waiters) = lock(&self.0).remove(id) else { return };
        for waiter in waiters {
            lock(&waiter.outcomes).insert(*id, outcome);
            waiter.changed.notify_one();
        }
    }

    /// Tells all who wait for anything.
    pub(crate) fn resolve_all(&self, outcome: Outcome) {
        for id in self.ids() {
            self.resolve(&id, outcome);
        }
    }

    /// Returns every id that somebody waits for.
    pub(crate) fn ids(&self) -> Vec<TransactionId> {
        lock(&self.0).keys().copied().collect()
    }
}

impl Wait<'_> {
    /// Returns once each of these ids has an outcome.
    pub(crate) async fn settled(&self, ids: &[TransactionId]) {
        loop {
            {
                let outcomes = lock(&self.waiter.outcomes);
                if ids.iter().all(|id| outcomes.contains_key(id)) {
                    return;
                }
            }
            self.waiter.changed.notified().await;
        }
    }

    /// Returns the outcome of an id, none so far where nobody told.
    pub(crate) fn outcome(&self, id: &TransactionId) -> Option<Outcome> {
        lock(&self.waiter.outcomes).get(id).copied()
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let mut waiting = lock(&self.waiting.0);
        for id in &self.ids {
            if let Some(waiters) = waiting.get_mut(id) {
                waiters.retain(|waiter| !Arc::ptr_eq(waiter, &self.waiter));
                if waiters.is_empty() {
                    waiting.remove(id);
                }
            }
        }
    }
}

/// A thread that panicked leaves the maps whole: each change to them is a single call.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_outcome_told_before_it_is_asked_for_is_not_missed() {
        let waiting = Waiting::default();
        let ids = vec![TransactionId([1; 32]), TransactionId([2; 32])];
        let wait = waiting.wait_for(ids.clone());
        waiting.resolve(&ids[0], Outcome::Left);
        waiting.resolve_all(Outcome::MiningFailed { attempts: 7 });
        wait.settled(&ids).await;
        assert_eq!(wait.outcome(&ids[0]), Some(Outcome::Left));
        assert_eq!(wait.outcome(&ids[1]), Some(Outcome::MiningFailed { attempts: 7 }));
    }

    #[test]
    fn nothing_is_kept_of_who_left() {
        let waiting = Waiting::default();
        drop(waiting.wait_for(vec![TransactionId([1; 32])]));
        assert!(waiting.ids().is_empty());
    }
}
