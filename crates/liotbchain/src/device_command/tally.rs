//! What became of the readings so far.

use std::fmt::Display;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use crate::output::say_error;

/// Refusals that are told one by one; the rest are only counted.
const TOLD_MAX: u64 = 100;

/// Counts, shared by all connections.
#[derive(Debug, Default)]
pub struct Tally {
    sent: AtomicU64,
    acknowledged: AtomicU64,
    sent_again: AtomicU64,
    refused: AtomicU64,
    /// Refused before they were sent.
    unsent: AtomicU64,
    /// Why readings are not taken just now.
    trouble: Mutex<Option<String>>,
}

/// The counts at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Readings sent, each counted once.
    pub sent: u64,
    /// Of these, how many the gateway, or the broker, has taken.
    pub acknowledged: u64,
    /// How often one was sent again.
    pub sent_again: u64,
    /// Readings that cannot be taken as they are.
    pub refused: u64,
    /// Sent, and neither taken nor refused.
    pub unanswered: u64,
}

impl Tally {
    /// Counts readings that are sent for the first time.
    pub fn send(&self, readings: usize) {
        self.sent.fetch_add(readings as u64, Relaxed);
    }

    /// Counts readings that are sent again.
    pub fn send_again(&self, readings: usize) {
        self.sent_again.fetch_add(readings as u64, Relaxed);
    }

    /// Counts readings that were taken; what was in their way is past.
    pub fn acknowledge(&self, readings: usize) {
        self.acknowledged.fetch_add(readings as u64, Relaxed);
        *self.trouble() = None;
    }

    /// Counts a reading that was sent and refused for good, and tells why.
    pub fn refuse(&self, why: impl Display) {
        self.tell_refusal(why);
    }

    /// Counts a reading that is refused before it was sent, and tells why.
    pub fn refuse_unsent(&self, why: impl Display) {
        self.unsent.fetch_add(1, Relaxed);
        self.tell_refusal(why);
    }

    fn tell_refusal(&self, why: impl Display) {
        let told = self.refused.fetch_add(1, Relaxed) + 1;
        if told <= TOLD_MAX {
            say_error(&why.to_string(), (told == TOLD_MAX).then_some("what else is refused is only counted"));
        }
    }

    /// Notes why readings are not taken just now.
    pub fn wait_for(&self, trouble: String) {
        *self.trouble() = Some(trouble);
    }

    /// Returns why readings are not taken just now, where they are not.
    pub fn waits_for(&self) -> Option<String> {
        self.trouble().clone()
    }

    /// Returns the counts.
    pub fn counts(&self) -> Counts {
        // What follows is read first, so that no count overtakes the one it is a part of.
        let (unsent, refused) = (self.unsent.load(Relaxed), self.refused.load(Relaxed));
        let acknowledged = self.acknowledged.load(Relaxed);
        let sent = self.sent.load(Relaxed);
        Counts {
            sent,
            acknowledged,
            sent_again: self.sent_again.load(Relaxed),
            refused,
            unanswered: (sent + unsent).saturating_sub(acknowledged + refused),
        }
    }

    fn trouble(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
