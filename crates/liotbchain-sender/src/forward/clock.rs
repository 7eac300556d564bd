//! How far the receiver's clock is from ours, by the `Date` of its answers. A Raspberry Pi has no clock that runs
//! without power: until the network has told it the time it stamps readings with a wrong one.

use std::time::{Duration, SystemTime};

use reqwest::header::HeaderValue;

/// Above this a clock is wrong, not merely late.
const OFFSET_MAX_MS: u64 = 30_000;

/// Returns by how many milliseconds the receiver's clock is ahead. `Date` says whole seconds, so that the answer was
/// made half a second after it on average.
pub(crate) fn offset_ms(date: &HeaderValue, received: SystemTime) -> Option<i64> {
    let made = httpdate::parse_http_date(date.to_str().ok()?).ok()? + Duration::from_millis(500);
    let millis = |span: Duration| i64::try_from(span.as_millis()).ok();
    match made.duration_since(received) {
        Ok(ahead) => millis(ahead),
        Err(behind) => millis(behind.duration()).map(|behind| -behind),
    }
}

/// Tells whether one of the two clocks must be wrong.
pub(crate) fn is_wrong(offset_ms: i64) -> bool {
    offset_ms.unsigned_abs() > OFFSET_MAX_MS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_how_far_the_receivers_clock_is_ahead() {
        // 784,111,777 is the time of RFC 9110's example.
        let at = |ms: u64| SystemTime::UNIX_EPOCH + Duration::from_millis(784_111_777_000 + ms);
        let date = HeaderValue::from_static("Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(offset_ms(&date, at(500)), Some(0));
        assert_eq!(offset_ms(&date, at(2000)), Some(-1500));
        assert_eq!(offset_ms(&date, at(0) - Duration::from_secs(7200)), Some(7_200_500));
        assert_eq!(offset_ms(&HeaderValue::from_static("yesterday"), at(0)), None);
        assert_eq!(offset_ms(&HeaderValue::from_bytes(b"\xff").unwrap(), at(0)), None);
    }

    #[test]
    fn takes_a_clock_for_wrong_from_half_a_minute_on() {
        assert!(!is_wrong(30_000) && !is_wrong(-30_000) && is_wrong(30_001) && is_wrong(-7_200_000));
        assert!(is_wrong(i64::MIN));
    }
}
