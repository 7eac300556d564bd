//! How many transactions wait, as far as this node knows.

use std::sync::Mutex;

use crate::waiting::lock;

/// Counts what this node admits and seals, and is put right by a look at the store: other receivers on the same store
/// change it unseen. A look counts only where no admission overlapped it.
#[derive(Debug, Default)]
pub(crate) struct PendingCount(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Below zero for a moment, where a transaction is sealed before its admission was counted.
    count: i64,
    /// Counts the begins and the ends of admissions, of which there is one at a time: odd while one is under way.
    steps: u64,
}

/// A moment at which no admission was under way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment(u64);

impl PendingCount {
    pub(crate) fn new(count: u64) -> Self {
        Self(Mutex::new(State { count: count.cast_signed(), steps: 0 }))
    }

    pub(crate) fn get(&self) -> u64 {
        lock(&self.0).count.max(0).cast_unsigned()
    }

    pub(crate) fn begin_admission(&self) {
        lock(&self.0).steps += 1;
    }

    /// Returns the count before and after.
    pub(crate) fn end_admission(&self, new: u64) -> (i64, i64) {
        let mut state = lock(&self.0);
        state.steps += 1;
        let before = state.count;
        state.count += new.cast_signed();
        (before, state.count)
    }

    pub(crate) fn sealed(&self, transactions: usize) {
        lock(&self.0).count -= transactions as i64;
    }

    /// Returns the moment before a look at the store; none where an admission is under way.
    pub(crate) fn moment(&self) -> Option<Moment> {
        let steps = lock(&self.0).steps;
        steps.is_multiple_of(2).then_some(Moment(steps))
    }

    /// Puts the count right by a look that began at a moment; does nothing, and says so, where an admission began since.
    pub(crate) fn correct(&self, since: Option<Moment>, count: usize) -> bool {
        let mut state = lock(&self.0);
        let is_current = since.is_some_and(|moment| moment.0 == state.steps);
        if is_current {
            state.count = count as i64;
        }
        is_current
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_puts_right_what_others_changed() {
        let pending = PendingCount::new(7);
        let moment = pending.moment();
        assert!(pending.correct(moment, 3));
        assert_eq!(pending.get(), 3);
    }

    #[test]
    fn a_look_that_an_admission_overlapped_counts_for_nothing() {
        let pending = PendingCount::new(0);
        let before = pending.moment();
        pending.begin_admission();
        let during = pending.moment();
        assert_eq!(pending.end_admission(2), (0, 2));
        assert!(!pending.correct(before, 0));
        assert!(!pending.correct(during, 0));
        assert_eq!(pending.get(), 2);
    }

    #[test]
    fn is_never_shown_below_zero() {
        let pending = PendingCount::new(1);
        pending.sealed(2);
        assert_eq!(pending.get(), 0);
        pending.begin_admission();
        assert_eq!(pending.end_admission(2), (-1, 1));
    }
}
