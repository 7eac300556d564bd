//! When a failure is worth a line in the log: a receiver that is down for a week must not fill the disk with it.

use std::time::Duration;

use tokio::time::Instant;

/// How often the same failure is told.
const SAME_AGAIN: Duration = Duration::from_secs(60);

/// The failures of one receiver since it last worked.
#[derive(Debug, Default)]
pub(super) struct Outage {
    since: Option<Instant>,
    told: Option<(String, Instant)>,
}

impl Outage {
    /// Notes a failure, and returns whether to tell of it: the first time, when it is another, and each minute.
    pub(super) fn failed(&mut self, message: &str, now: Instant) -> bool {
        self.since.get_or_insert(now);
        let is_old = self.told.as_ref().is_some_and(|(told, at)| told == message && now < *at + SAME_AGAIN);
        if !is_old {
            self.told = Some((message.to_owned(), now));
        }
        !is_old
    }

    /// Tells whether the last thing noted was a failure.
    pub(super) fn is_on(&self) -> bool {
        self.since.is_some()
    }

    /// Notes that it works, and returns how long it did not.
    pub(super) fn ended(&mut self, now: Instant) -> Option<Duration> {
        std::mem::take(self).since.map(|since| now.duration_since(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_the_same_failure_once_a_minute_and_another_at_once() {
        let (mut outage, start) = (Outage::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let told = (0..150).filter(|second| outage.failed("refused", at(*second)));
        assert_eq!(Vec::from_iter(told), [0, 60, 120]);
        assert!(outage.failed("503", at(150)) && !outage.failed("503", at(151)));
        assert!(outage.failed("refused", at(152)));
        assert_eq!(outage.ended(at(160)), Some(Duration::from_secs(160)));
        assert_eq!(outage.ended(at(161)), None, "told once");
        assert!(outage.failed("refused", at(162)), "a new outage");
    }
}
