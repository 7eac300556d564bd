//! How fast readings come, and how long the queue lasts at that: what people ask of a gateway before an outage.

use std::{
    fmt,
    time::{Duration, Instant},
};

/// Seconds that are looked back on.
const WINDOW_S: u64 = 60;
/// Bytes of the queue's file that a record takes beside the text of its reading: what the gateway puts around it, its
/// signature and its row. A test measures it.
pub(crate) const RECORD_OVERHEAD: u64 = 240;

/// Readings of the last minute, summed up by second: two machine words a second, however fast they come.
#[derive(Debug)]
pub(crate) struct Rate {
    begin: Instant,
    seconds: [Second; WINDOW_S as usize],
}

#[derive(Debug, Clone, Copy, Default)]
struct Second {
    /// Which second since the begin this is the sum of.
    number: u64,
    readings: u64,
    text_size: u64,
}

/// Readings a second, and bytes of the queue that they take.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Tempo {
    pub readings: f64,
    pub bytes: f64,
}

impl Rate {
    pub fn new(begin: Instant) -> Self {
        Self { begin, seconds: [Second::default(); WINDOW_S as usize] }
    }

    /// Counts readings whose texts have so many bytes together.
    pub fn note(&mut self, now: Instant, readings: u64, text_size: u64) {
        let number = (now - self.begin).as_secs();
        let second = &mut self.seconds[(number % WINDOW_S) as usize];
        if second.number != number {
            *second = Second { number, ..Second::default() };
        }
        second.readings += readings;
        second.text_size += text_size;
    }

    /// Returns the mean of the last minute, or since the begin where that is less long ago.
    pub fn tempo(&self, now: Instant) -> Tempo {
        let elapsed = now - self.begin;
        let number = elapsed.as_secs();
        let recent = self.seconds.iter().filter(|second| number - second.number < WINDOW_S);
        let (readings, text_size) = recent.fold((0, 0), |(readings, text_size), second| {
            (readings + second.readings, text_size + second.text_size)
        });
        let span_s = elapsed.as_secs_f64().clamp(1.0, WINDOW_S as f64);
        let bytes = text_size + readings * RECORD_OVERHEAD;
        Tempo { readings: readings as f64 / span_s, bytes: bytes as f64 / span_s }
    }
}

impl Tempo {
    /// Returns how long so many bytes last, if readings come at all.
    pub fn lasts(self, size: u64) -> Option<Duration> {
        (self.bytes > 0.0).then(|| Duration::try_from_secs_f64(size as f64 / self.bytes).ok()).flatten()
    }
}

/// A time in the unit that people would use, such as `11 days`.
pub(crate) struct InWords(pub Duration);

impl fmt::Display for InWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (count, unit) = match seconds {
            0..120 => (seconds, "second"),
            120..7200 => (seconds / 60, "minute"),
            7200..172_800 => (seconds / 3600, "hour"),
            _ => (seconds / 86_400, "day"),
        };
        write!(f, "{count} {unit}{}", if count == 1 { "" } else { "s" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_mean_of_the_last_minute() {
        let begin = Instant::now();
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        let mut rate = Rate::new(begin);
        for second in 0..200 {
            rate.note(at(second), 10, 1000);
        }
        let steady = Tempo { readings: 10.0, bytes: (1000 + 10 * RECORD_OVERHEAD) as f64 };
        assert_eq!(rate.tempo(at(199)), steady);
        assert_eq!(rate.tempo(at(229)).readings, 5.0);
        assert_eq!(rate.tempo(at(300)), Tempo::default());
        let lasts = steady.lasts((1000 + 10 * RECORD_OVERHEAD) * 1000);
        assert_eq!(lasts, Some(Duration::from_secs(1000)));
        assert_eq!(Tempo::default().lasts(1), None);
    }

    #[test]
    fn a_young_rate_is_that_since_the_begin() {
        let begin = Instant::now();
        let mut rate = Rate::new(begin);
        assert_eq!(rate.tempo(begin), Tempo::default());
        rate.note(begin, 30, 300);
        assert_eq!(rate.tempo(begin + Duration::from_millis(1)).readings, 30.0);
        assert_eq!(rate.tempo(begin + Duration::from_secs(10)).readings, 3.0);
    }

    #[test]
    fn is_said_as_people_say_it() {
        let said = |seconds| InWords(Duration::from_secs(seconds)).to_string();
        assert_eq!(said(1), "1 second");
        assert_eq!(said(7199), "119 minutes");
        assert_eq!(said(7200), "2 hours");
        assert_eq!(said(11 * 86_400 + 5), "11 days");
    }
}
