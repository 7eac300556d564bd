//! Whose turn it is among several receivers: the one that works keeps it; when it fails the next is tried at once, and
//! only when all have failed is there a wait, until the first of them may be tried again.

use std::time::Duration;

use tokio::time::Instant;

use super::backoff;

#[derive(Debug)]
pub(super) struct Rota {
    current: usize,
    turns: Vec<Turn>,
}

#[derive(Debug, Default, Clone)]
struct Turn {
    /// Failures in a row.
    failures: u32,
    /// When it may be tried again, after a failure.
    ready_at: Option<Instant>,
}

impl Turn {
    fn is_ready(&self, now: Instant) -> bool {
        self.ready_at.is_none_or(|ready_at| ready_at <= now)
    }
}

impl Rota {
    /// Begins with the first of so many receivers, one at least.
    pub(super) fn new(receivers: usize) -> Self {
        Self { current: 0, turns: vec![Turn::default(); receivers] }
    }

    /// Returns whose turn it is, and until when it must be waited for.
    pub(super) fn next(&mut self, now: Instant) -> (usize, Option<Instant>) {
        let count = self.turns.len();
        let in_order = || (0..count).map(|step| (self.current + step) % count);
        let ready = in_order().find(|at| self.turns[*at].is_ready(now));
        let next = ready.or_else(|| in_order().min_by_key(|at| self.turns[*at].ready_at));
        self.current = next.unwrap_or(self.current);
        let ready_at = self.turns[self.current].ready_at.filter(|ready_at| *ready_at > now);
        (self.current, ready_at)
    }

    /// Notes that one works.
    pub(super) fn worked(&mut self, at: usize) {
        self.turns[at] = Turn::default();
    }

    /// Notes that one failed, and returns how long it is left alone: at least as long as it asks to be, or as long as
    /// only a person can change things. `chance` is from 0 to 1.
    pub(super) fn failed(&mut self, at: usize, now: Instant, at_least: Duration, chance: f64) -> Duration {
        let turn = &mut self.turns[at];
        turn.failures = turn.failures.saturating_add(1);
        let delay = backoff::delay(turn.failures, chance).max(at_least);
        turn.ready_at = Some(now + delay);
        delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn stays_with_one_that_works() {
        let (mut rota, now) = (Rota::new(3), Instant::now());
        for _ in 0..3 {
            assert_eq!(rota.next(now), (0, None));
            rota.worked(0);
        }
        rota.failed(0, now, Duration::ZERO, 1.0);
        rota.worked(1);
        assert_eq!(rota.next(now + 60 * SECOND), (0, None), "it has not been asked for the next yet");
        rota.failed(0, now, 90 * SECOND, 1.0);
        assert_eq!(rota.next(now + SECOND), (1, None));
        assert_eq!(rota.next(now + 100 * SECOND), (1, None), "not back to the first");
    }

    #[test]
    fn tries_the_next_at_once_and_waits_only_when_all_have_failed() {
        let (mut rota, now) = (Rota::new(2), Instant::now());
        assert_eq!(rota.failed(0, now, 30 * SECOND, 1.0), 30 * SECOND);
        assert_eq!(rota.next(now), (1, None));
        assert_eq!(rota.failed(1, now, Duration::ZERO, 1.0), Duration::from_millis(200));
        assert_eq!(rota.next(now), (1, Some(now + Duration::from_millis(200))));
        assert_eq!(rota.failed(1, now, Duration::ZERO, 1.0), Duration::from_millis(400));
        assert_eq!(rota.failed(1, now, 40 * SECOND, 1.0), 40 * SECOND);
        assert_eq!(rota.next(now), (0, Some(now + 30 * SECOND)), "the first that may be tried again");
        assert_eq!(rota.next(now + 30 * SECOND), (0, None));
    }

    #[test]
    fn forgets_the_failures_of_one_that_works_again() {
        let (mut rota, now) = (Rota::new(1), Instant::now());
        for _ in 0..5 {
            rota.failed(0, now, Duration::ZERO, 1.0);
        }
        rota.worked(0);
        assert_eq!(rota.next(now), (0, None));
        assert_eq!(rota.failed(0, now, Duration::ZERO, 1.0), Duration::from_millis(200));
    }
}
