//! What came of the lists that were sent.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use liotbchain_core::TransactionId;
use serde::Serialize;

use super::target::Place;

/// Kinds of errors told apart; a strange receiver must not fill our memory with its words.
const ERRORS_MAX: usize = 20;
/// Acknowledged readings that are remembered to be asked for: 64 MB.
const IDS_MAX: usize = 2_000_000;
/// Longest time that is told apart, far above any time that is waited.
const TIME_MAX_US: u64 = 600_000_000;

/// Counts, and the times of accepted lists.
#[derive(Debug)]
pub struct Tally {
    /// Lists sent.
    pub lists: u64,
    /// Readings that were acknowledged.
    pub accepted: u64,
    /// Lists that were.
    pub accepted_lists: u64,
    /// Readings that the answer said to be in a block; none where answers do not tell.
    pub sealed: Option<u64>,
    /// Readings of lists that failed: they may be stored all the same.
    pub failed: u64,
    /// Lists that failed, by kind.
    pub errors: BTreeMap<String, u64>,
    /// From the request to the whole answer, of accepted lists.
    pub latency: Times,
    /// Readings that were acknowledged, where they are to be asked for.
    pub ids: Option<Vec<TransactionId>>,
}

impl Tally {
    /// Begins to count.
    pub fn new(remembers_ids: bool) -> Self {
        Self {
            lists: 0,
            accepted: 0,
            accepted_lists: 0,
            sealed: None,
            failed: 0,
            errors: BTreeMap::new(),
            latency: Times::new(),
            ids: remembers_ids.then(Vec::new),
        }
    }

    /// Counts a list that was accepted.
    pub fn accept(&mut self, latency: Duration, items: u32, places: Option<&[Place]>) {
        self.latency.add(latency);
        self.accepted_lists += 1;
        let Some(places) = places else {
            self.accepted += u64::from(items);
            return;
        };
        // What counts is what was acknowledged, not what was sent.
        self.accepted += places.len() as u64;
        let sealed = places.iter().filter(|place| place.is_sealed).count() as u64;
        self.sealed = Some(self.sealed.unwrap_or(0) + sealed);
        if let Some(ids) = &mut self.ids {
            let room = IDS_MAX - ids.len();
            ids.extend(places.iter().map(|place| place.id).take(room));
        }
    }

    /// Counts a list that failed.
    pub fn fail(&mut self, name: String, items: u32) {
        self.failed += u64::from(items);
        let name = match self.errors.contains_key(&name) || self.errors.len() < ERRORS_MAX {
            true => name,
            false => "other".to_owned(),
        };
        *self.errors.entry(name).or_default() += 1;
    }
}

/// Many times, to three digits, in memory that does not grow.
#[derive(Debug)]
pub struct Times(Histogram<u64>);

/// What is told of many times, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Quantiles {
    pub count: u64,
    pub p50: f64,
    pub p99: f64,
    pub p99_9: f64,
    pub max: f64,
}

impl Times {
    /// Begins with none.
    pub fn new() -> Self {
        Self(Histogram::new_with_bounds(1, TIME_MAX_US, 3).expect("the bounds are in order"))
    }

    /// Counts one.
    pub fn add(&mut self, time: Duration) {
        self.0.saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    /// Returns what is told of them; none where there are none.
    pub fn quantiles(&self) -> Option<Quantiles> {
        let ms = |quantile| self.0.value_at_quantile(quantile) as f64 / 1000.0;
        (!self.0.is_empty()).then(|| Quantiles {
            count: self.0.len(),
            p50: ms(0.5),
            p99: ms(0.99),
            p99_9: ms(0.999),
            max: self.0.max() as f64 / 1000.0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(is_sealed: bool) -> Place {
        Place { id: TransactionId([7; 32]), is_sealed }
    }

    #[test]
    fn counts_what_was_acknowledged() {
        let mut tally = Tally::new(true);
        tally.accept(Duration::from_millis(3), 2, Some(&[place(true), place(false)]));
        tally.fail("503 overloaded".to_owned(), 5);
        tally.fail("503 overloaded".to_owned(), 5);
        assert_eq!((tally.accepted, tally.accepted_lists, tally.sealed, tally.failed), (2, 1, Some(1), 10));
        assert_eq!(tally.errors, [("503 overloaded".to_owned(), 2)].into());
        assert_eq!(tally.ids.unwrap().len(), 2);
    }

    #[test]
    fn the_original_does_not_say_what_is_sealed() {
        let mut tally = Tally::new(false);
        tally.accept(Duration::from_millis(3), 2, None);
        assert_eq!((tally.accepted, tally.sealed), (2, None));
    }

    #[test]
    fn many_kinds_of_errors_take_bounded_memory() {
        let mut tally = Tally::new(false);
        (0..1000).for_each(|number| tally.fail(number.to_string(), 1));
        assert_eq!((tally.errors.len(), tally.errors["other"]), (ERRORS_MAX + 1, 1000 - ERRORS_MAX as u64));
    }

    #[test]
    fn quantiles_are_right_to_three_digits() {
        let mut times = Times::new();
        assert_eq!(times.quantiles(), None);
        (1..=10_000).for_each(|ms| times.add(Duration::from_millis(ms)));
        let Quantiles { count, p50, p99, p99_9, max } = times.quantiles().unwrap();
        assert_eq!(count, 10_000);
        for (got, expected) in [(p50, 5000.0), (p99, 9900.0), (p99_9, 9990.0), (max, 10_000.0)] {
            assert!((got / expected - 1.0_f64).abs() < 0.001, "{got} for {expected}");
        }
    }
}
