//! How long to wait after a failure.

use std::time::Duration;

use reqwest::header::HeaderValue;

/// A retry waits up to 0.2 s at first, up to twice as long each further time, and never longer than 30 s.
const DELAY_FIRST: Duration = Duration::from_millis(200);
pub(super) const DELAY_MAX: Duration = Duration::from_secs(30);
/// A retry never waits longer than this for `Retry-After`: a wrong value must not silence a gateway.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// Draws how long to wait after so many failures in a row: anything from 0 up to the longest, so that many gateways do
/// not come back at one moment ("full jitter"). `chance` is from 0 to 1.
pub(super) fn delay(failures: u32, chance: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let longest = DELAY_FIRST.saturating_mul(1 << doublings).min(DELAY_MAX);
    longest.mul_f64(chance)
}

/// Reads the form in seconds. The other form, a date, hangs on two clocks that agree.
pub(super) fn read_retry_after(value: &HeaderValue) -> Option<Duration> {
    let seconds = value.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_longer_each_time_up_to_half_a_minute() {
        let longest = Vec::from_iter((1..=10).map(|failures| delay(failures, 1.0).as_millis()));
        assert_eq!(longest, [200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000]);
        assert_eq!(delay(u32::MAX, 1.0), DELAY_MAX);
        assert_eq!(delay(5, 0.0), Duration::ZERO);
        assert_eq!(delay(2, 0.25), Duration::from_millis(100));
    }

    #[test]
    fn takes_a_retry_after_in_seconds_up_to_a_minute() {
        let read = |value: &'static str| read_retry_after(&HeaderValue::from_static(value));
        assert_eq!(read("3"), Some(Duration::from_secs(3)));
        assert_eq!(read("86400"), Some(Duration::from_secs(60)));
        assert_eq!(read("Sun, 06 Nov 1994 08:49:37 GMT"), None);
        assert_eq!(read("-1"), None);
    }
}
