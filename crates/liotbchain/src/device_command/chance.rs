//! Chance that can be had again: numbers that follow from a seed, on every machine and in every version.
//!
//! The generators of `rand` may change with its version, and a seed would then no longer mean the same fleet.

/// SplitMix64 (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014). Eight bytes a
/// device, which counts with 100,000 of them. It is no source of secrets.
#[derive(Clone, Debug)]
pub struct Chance(u64);

/// 2^64 divided by the golden ratio, made odd.
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

impl Chance {
    /// Starts the sequence of one device of a seed.
    pub fn new(seed: u64, device: u32) -> Self {
        // Neighbours would otherwise draw each other's numbers a few steps later.
        Self(Self(Self(seed).bits() ^ u64::from(device)).bits())
    }

    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GAMMA);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Draws from a range, each number as likely as the other.
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        // A double holds 53 bits.
        low + (high - low) * ((self.bits() >> 11) as f64 / (1u64 << 53) as f64)
    }

    /// Draws whether something happens that happens once in so many times.
    pub fn once_in(&mut self, times: f64) -> bool {
        self.between(0.0, times) < 1.0
    }

    /// Draws from a bell curve around 0 with a standard deviation of 1, within ±3.5: the sum of four even draws, of
    /// which each has a variance of 1/12.
    pub fn bell(&mut self) -> f64 {
        let sum: f64 = (0..4).map(|_| self.between(-0.5, 0.5)).sum();
        sum * 3f64.sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_the_published_sequence() {
        // The first outputs for the seed 1234567, as the reference implementation gives them.
        let mut chance = Chance(1_234_567);
        let drawn = [0; 5].map(|_| chance.bits());
        let expected = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
            16_408_922_859_458_223_821,
        ];
        assert_eq!(drawn, expected);
    }

    #[test]
    fn a_bell_has_its_middle_and_its_width() {
        let mut chance = Chance::new(1, 1);
        let drawn: Vec<f64> = (0..100_000).map(|_| chance.bell()).collect();
        let mean = drawn.iter().sum::<f64>() / 100_000.0;
        let variance = drawn.iter().map(|it| it * it).sum::<f64>() / 100_000.0;
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.02, "{mean} {variance}");
        assert!(drawn.iter().all(|it| it.abs() < 3.5));
    }

    #[test]
    fn devices_of_a_seed_and_seeds_of_a_device_differ() {
        let first = |seed, device| Chance::new(seed, device).bits();
        let mut drawn: Vec<u64> = (0..100).flat_map(|seed| (0..100).map(move |it| first(seed, it))).collect();
        drawn.sort_unstable();
        drawn.dedup();
        assert_eq!(drawn.len(), 10_000);
    }
}
