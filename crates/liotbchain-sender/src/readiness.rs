//! Whether a sender takes readings, and what is amiss with it otherwise.

use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    forward::ForwardStatus,
    outbox::{OutboxLimits, OutboxStatus, WhenFull},
    reading::READING_SIZE_MAX,
};

/// Bytes that must be free so that any reading fits: the largest with what is put around it, as whole pages.
const ROOM_MIN: u64 = 2 * READING_SIZE_MAX as u64;

/// Whether readings are taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Readiness {
    /// `ready` or `not_ready`.
    #[schema(example = "ready")]
    pub status: &'static str,
    /// Why no readings are taken: `queue_full`, `queue_unwritable`. Empty where they are.
    #[schema(value_type = Vec<String>)]
    pub reasons: Vec<&'static str>,
    /// What is amiss and no reason to stop taking readings: `receiver_unreachable`, `broker_not_connected`.
    #[schema(value_type = Vec<String>)]
    pub warnings: Vec<&'static str>,
}

impl Readiness {
    pub(crate) fn new(
        outbox: &OutboxStatus,
        limits: OutboxLimits,
        forward: &ForwardStatus,
        broker_connected: Option<bool>,
    ) -> Self {
        let is_full = limits.when_full == WhenFull::Refuse && outbox.size + ROOM_MIN > limits.size_max;
        let reasons = named([("queue_unwritable", outbox.fault.is_some()), ("queue_full", is_full)]);
        let warnings = named([
            ("receiver_unreachable", forward.reachable == Some(false)),
            ("broker_not_connected", broker_connected == Some(false)),
        ]);
        let status = if reasons.is_empty() { "ready" } else { "not_ready" };
        Self { status, reasons, warnings }
    }

    /// Returns whether readings are taken.
    pub fn is_ready(&self) -> bool {
        self.reasons.is_empty()
    }
}

fn named(facts: [(&'static str, bool); 2]) -> Vec<&'static str> {
    facts.into_iter().filter_map(|(name, holds)| holds.then_some(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: OutboxLimits = OutboxLimits { size_max: 10 << 20, when_full: WhenFull::Refuse };

    fn readiness(outbox: OutboxStatus, when_full: WhenFull, reachable: Option<bool>) -> Readiness {
        let forward = ForwardStatus { reachable, ..ForwardStatus::default() };
        Readiness::new(&outbox, OutboxLimits { when_full, ..LIMITS }, &forward, None)
    }

    #[test]
    fn a_receiver_that_is_away_stops_nothing() {
        let told = readiness(OutboxStatus::default(), WhenFull::Refuse, Some(false));
        assert!(told.is_ready());
        assert_eq!(told.warnings, ["receiver_unreachable"]);
        assert!(readiness(OutboxStatus::default(), WhenFull::Refuse, None).warnings.is_empty());
    }

    #[test]
    fn a_full_queue_takes_nothing_unless_the_oldest_make_room() {
        let full = OutboxStatus { size: LIMITS.size_max - 1000, ..OutboxStatus::default() };
        assert_eq!(readiness(full.clone(), WhenFull::Refuse, None).reasons, ["queue_full"]);
        assert!(readiness(full, WhenFull::DropOldest, None).is_ready());
    }

    #[test]
    fn a_disk_that_fails_takes_nothing() {
        let failed = OutboxStatus { fault: Some("no space left".to_owned()), ..OutboxStatus::default() };
        assert_eq!(readiness(failed, WhenFull::DropOldest, None).reasons, ["queue_unwritable"]);
    }
}
