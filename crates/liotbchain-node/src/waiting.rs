//! Requests that wait for their transactions to be sealed.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
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
pub(crate) struct Waiting {
    by_id: Arc<Mutex<ById>>,
    rounds: AtomicU64,
}

type ById = HashMap<TransactionId, Vec<Arc<Waiter>>>;

/// Counts the looks that the sealing part takes at what is pending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RoundNumber(u64);

#[derive(Debug)]
struct Waiter {
    outcomes: Mutex<HashMap<TransactionId, Outcome>>,
    changed: Notify,
    /// The last round that began before the transactions were admitted, and so may not have seen all of them.
    blind_round: AtomicU64,
}

/// One request's place among them; leaves when dropped.
#[derive(Debug)]
pub(crate) struct Wait {
    by_id: Arc<Mutex<ById>>,
    waiter: Arc<Waiter>,
    ids: Vec<TransactionId>,
}

impl Waiting {
    /// Starts to wait for these ids. Done before they are admitted, so that no outcome is missed.
    pub(crate) fn wait_for(&self, ids: Vec<TransactionId>) -> Wait {
        let waiter = Arc::new(Waiter {
            outcomes: Mutex::default(),
            changed: Notify::new(),
            blind_round: AtomicU64::new(u64::MAX),
        });
        let mut waiting = lock(&self.by_id);
        for id in &ids {
            waiting.entry(*id).or_default().push(Arc::clone(&waiter));
        }
        drop(waiting);
        Wait { by_id: Arc::clone(&self.by_id), waiter, ids }
    }

    /// Begins a round, before it looks at what is pending.
    pub(crate) fn begin_round(&self) -> RoundNumber {
        RoundNumber(self.rounds.fetch_add(1, Ordering::SeqCst) + 1)
    }

    /// Tells those who wait for this id that a round leaves it pending: all whose transactions it has seen.
    pub(crate) fn leave(&self, id: &TransactionId, round: RoundNumber) {
        let mut waiting = lock(&self.by_id);
        let Some(waiters) = waiting.get_mut(id) else { return };
        waiters.retain(|waiter| {
            let is_blind = round.0 <= waiter.blind_round.load(Ordering::SeqCst);
            if !is_blind {
                waiter.tell(*id, Outcome::Left);
            }
            is_blind
        });
        if waiters.is_empty() {
            waiting.remove(id);
        }
    }

    /// Tells all who wait for this id.
    pub(crate) fn resolve(&self, id: &TransactionId, outcome: Outcome) {
        let waiters = lock(&self.by_id).remove(id);
        for waiter in waiters.into_iter().flatten() {
            waiter.tell(*id, outcome);
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
        lock(&self.by_id).keys().copied().collect()
    }
}

impl Waiter {
    fn tell(&self, id: TransactionId, outcome: Outcome) {
        lock(&self.outcomes).insert(id, outcome);
        self.changed.notify_one();
    }
}

impl Wait {
    /// Says that the transactions are admitted: rounds that begin from now on see them.
    pub(crate) fn admitted(&self, waiting: &Waiting) {
        let round = waiting.rounds.load(Ordering::SeqCst);
        self.waiter.blind_round.store(round, Ordering::SeqCst);
    }

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

impl Drop for Wait {
    fn drop(&mut self) {
        let mut waiting = lock(&self.by_id);
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
        wait.admitted(&waiting);
        waiting.leave(&ids[0], waiting.begin_round());
        waiting.resolve_all(Outcome::MiningFailed { attempts: 7 });
        wait.settled(&ids).await;
        assert_eq!(wait.outcome(&ids[0]), Some(Outcome::Left));
        assert_eq!(wait.outcome(&ids[1]), Some(Outcome::MiningFailed { attempts: 7 }));
    }

    #[test]
    fn a_round_that_began_before_the_admission_leaves_nothing() {
        let waiting = Waiting::default();
        let id = TransactionId([1; 32]);
        let wait = waiting.wait_for(vec![id]);
        waiting.leave(&id, waiting.begin_round());
        let round = waiting.begin_round();
        wait.admitted(&waiting);
        waiting.leave(&id, round);
        assert_eq!(wait.outcome(&id), None);
        waiting.leave(&id, waiting.begin_round());
        assert_eq!(wait.outcome(&id), Some(Outcome::Left));
    }

    #[test]
    fn nothing_is_kept_of_who_left() {
        let waiting = Waiting::default();
        drop(waiting.wait_for(vec![TransactionId([1; 32])]));
        assert!(waiting.ids().is_empty());
    }
}
