//! How long to wait before something is tried again.

use std::time::Duration;

use super::chance::Chance;

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(10);
/// A pause that a gateway asks for is taken no longer than this.
const ASKED_MAX: Duration = Duration::from_secs(60);

/// Pauses that grow, each drawn between nothing and its longest ("full jitter"), so that devices which lost their
/// gateway at one time do not all come back at one time.
pub struct Backoff {
    longest: Duration,
    chance: Chance,
}

impl Backoff {
    /// Starts with short pauses; connections of different numbers draw different ones.
    pub fn new(seed: u64, connection: u32) -> Self {
        Self { longest: FIRST, chance: Chance::new(seed, connection) }
    }

    /// Returns the next pause; at least as long as the gateway asked for.
    pub fn pause(&mut self, asked: Option<Duration>) -> Duration {
        let drawn = self.longest.mul_f64(self.chance.between(0.0, 1.0));
        self.longest = (self.longest * 2).min(LONGEST);
        asked.unwrap_or_default().min(ASKED_MAX) + drawn
    }

    /// Begins anew: it worked.
    pub fn reset(&mut self) {
        self.longest = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_limit_and_begin_anew() {
        let mut backoff = Backoff::new(1, 1);
        let mut of = |count: u32| (0..count).map(|_| backoff.pause(None)).max().unwrap();
        assert!(of(1) < FIRST);
        let longest = of(1000);
        assert!(longest > LONGEST / 2 && longest < LONGEST, "{longest:?}");
        backoff.reset();
        assert!(backoff.pause(None) < FIRST);
    }

    #[test]
    fn a_gateways_wish_is_respected_within_reason() {
        let mut backoff = Backoff::new(1, 1);
        let asked = Duration::from_secs(7);
        assert!((asked..asked + FIRST).contains(&backoff.pause(Some(asked))));
        assert!(backoff.pause(Some(Duration::from_secs(1 << 40))) < ASKED_MAX + LONGEST);
    }
}
