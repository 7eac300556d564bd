//! Where the queue of pending transactions begins.
//!
//! What is sealed leaves dead entries at the front of the queue's index until the table is vacuumed: with millions of
//! rows, a look at the queue steps over hundreds of thousands of them, which takes 10 ms a million. So a look begins
//! where the last one found something, less what may have been under way: another receiver's rows may have drawn a lower
//! place in the order, and be committed later. Once a second a look begins at the very front, and so finds what came
//! later still, or became pending again.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

/// How often a look begins at the very front.
const WHOLE_LOOK: Duration = Duration::from_secs(1);
/// Places in the order before the last front where a look begins: eight of the largest admissions.
const MARGIN: i64 = 65_536;

/// Remembers where to begin.
#[derive(Debug, Default)]
pub(super) struct Front {
    /// The place of the oldest that was pending at the last look.
    oldest: AtomicI64,
    /// The last whole looks of those who want the list, and of those who want the count.
    listed: Mutex<Option<Instant>>,
    counted: Mutex<Option<Instant>>,
}

impl Front {
    /// Returns the place in the order of arrival where a list is to begin.
    pub fn begin_list(&self, now: Instant) -> i64 {
        self.begin(&self.listed, now)
    }

    /// Returns the place where a count is to begin.
    pub fn begin_count(&self, now: Instant) -> i64 {
        self.begin(&self.counted, now)
    }

    fn begin(&self, whole: &Mutex<Option<Instant>>, now: Instant) -> i64 {
        let mut whole = whole.lock().unwrap_or_else(PoisonError::into_inner);
        if whole.is_some_and(|last| now.saturating_duration_since(last) < WHOLE_LOOK) {
            return self.oldest.load(Ordering::Relaxed) - MARGIN;
        }
        *whole = Some(now);
        i64::MIN
    }

    /// Keeps the place of the oldest that a list found.
    pub fn found(&self, arrival: i64) {
        self.oldest.store(arrival, Ordering::Relaxed);
    }

    /// Forgets: transactions became pending again at the places that they had.
    pub fn forget(&self) {
        self.oldest.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn begins_at_the_very_front_at_first_and_once_a_second() {
        let (front, start) = (Front::default(), Instant::now());
        let after = |ms| start + Duration::from_millis(ms);
        assert_eq!(front.begin_list(start), i64::MIN);
        front.found(1_000_000);
        assert_eq!(front.begin_list(after(999)), 1_000_000 - MARGIN);
        assert_eq!(front.begin_count(after(999)), i64::MIN, "a list does not stand for a count");
        assert_eq!(front.begin_count(after(1000)), 1_000_000 - MARGIN);
        assert_eq!(front.begin_list(after(1000)), i64::MIN);
        front.forget();
        assert!(front.begin_list(after(1001)) < 0);
    }
}
