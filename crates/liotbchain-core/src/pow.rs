//! Proof of work: difficulty, compact target, work, and what to expect of them.

use std::fmt;

use ruint::aliases::U256;

use crate::hash::BlockHash;

/// Leading zero hexadecimal digits that a user asks for: 0 to 16.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Difficulty(u8);

/// A difficulty above [`Difficulty::MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("difficulty {0} is out of range: expected 0 to 16 leading zero hexadecimal digits")]
pub struct DifficultyError(pub u64);

impl Difficulty {
    /// The hardest that can be asked for.
    pub const MAX: Self = Self(16);

    /// Returns the difficulty of `digits` leading zeros.
    ///
    /// # Errors
    ///
    /// [`DifficultyError`] above 16.
    pub fn new(digits: u64) -> Result<Self, DifficultyError> {
        match u8::try_from(digits) {
            Ok(small) if small <= Self::MAX.0 => Ok(Self(small)),
            _ => Err(DifficultyError(digits)),
        }
    }

    /// Returns the number of leading zero digits.
    pub fn digits(self) -> u8 {
        self.0
    }

    /// Returns the compact target: every hash at most that target has at least so many leading zero digits.
    pub fn bits(self) -> Bits {
        let d = u32::from(self.0);
        Bits(if d.is_multiple_of(2) {
            (33 - d / 2) << 24 | 0x00ffff
        } else {
            (32 - (d - 1) / 2) << 24 | 0x0fffff
        })
    }

    /// Returns the difficulty whose [`Difficulty::bits`] are exactly these.
    pub fn from_bits(bits: Bits) -> Option<Self> {
        (0..=Self::MAX.0).map(Self).find(|difficulty| difficulty.bits() == bits)
    }
}

impl fmt::Display for Difficulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A target in Bitcoin's compact encoding: one byte of length, three of mantissa.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Bits(pub u32);

impl fmt::Display for Bits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x}", self.0)
    }
}

/// Compact bits that stand for no target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// The sign bit is set.
    #[error("{0} encodes a negative target")]
    Negative(Bits),
    /// More than 256 bits.
    #[error("{0} encodes a target above 2^256")]
    Overflow(Bits),
}

/// The largest hash that counts as proof of work, read as a 256-bit big-endian number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target(U256);

impl Target {
    /// Expands compact bits, with the rules of Bitcoin Core's `arith_uint256::SetCompact`.
    ///
    /// # Errors
    ///
    /// [`TargetError`] where the encoding is negative or overflows.
    pub fn from_bits(bits: Bits) -> Result<Self, TargetError> {
        let length = bits.0 >> 24;
        let mantissa = bits.0 & 0x007f_ffff;
        if mantissa != 0 && bits.0 & 0x0080_0000 != 0 {
            return Err(TargetError::Negative(bits));
        }
        let overflows = length > 34 || (mantissa > 0xff && length > 33) || (mantissa > 0xffff && length > 32);
        if mantissa != 0 && overflows {
            return Err(TargetError::Overflow(bits));
        }
        let mantissa = U256::from(mantissa);
        Ok(Self(if length <= 3 {
            mantissa >> (8 * (3 - length) as usize)
        } else {
            mantissa << (8 * (length - 3) as usize)
        }))
    }

    /// Returns whether the hash is small enough.
    pub fn is_met_by(&self, hash: &BlockHash) -> bool {
        U256::from_be_bytes(hash.0) <= self.0
    }

    /// Returns the target as 32 bytes, the most significant first.
    pub fn to_be_bytes(self) -> [u8; 32] {
        self.0.to_be_bytes()
    }

    /// Returns how many hashes are tried for one that meets the target, on average: `2^256 / (target + 1)`.
    pub fn expected_attempts(&self) -> f64 {
        2f64.powi(256) / (f64::from(self.0) + 1.0)
    }

    /// Returns the probability that `attempts` hashes hold none that meets the target: `(1 − p)^attempts`.
    pub fn failure_probability(&self, attempts: u64) -> f64 {
        let p = 1.0 / self.expected_attempts();
        if p >= 1.0 { 0.0 } else { (attempts as f64 * (-p).ln_1p()).exp() }
    }

    /// Returns the fewest attempts that fail with at most `probability`.
    pub fn attempts_for_failure(&self, probability: f64) -> f64 {
        let p = 1.0 / self.expected_attempts();
        if p >= 1.0 { 1.0 } else { (probability.ln() / (-p).ln_1p()).ceil() }
    }
}

/// Hashes that a block, or all blocks of a branch, stand for. The branch with the most work wins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Work(U256);

impl Work {
    /// No work: that of the genesis block.
    pub const ZERO: Self = Self(U256::ZERO);

    /// Returns the work of a block: `⌊2^256 / (target + 1)⌋`.
    pub fn of(target: &Target) -> Self {
        // 2^256 does not fit: ⌊2^256 / (t + 1)⌋ = ⌊(2^256 − 1 − t) / (t + 1)⌋ + 1, as in Bitcoin Core's GetBlockProof.
        match target.0.checked_add(U256::from(1)) {
            Some(divisor) => Self(!target.0 / divisor + U256::from(1)),
            None => Self(U256::from(1)),
        }
    }

    /// Adds, and stops at 2^256 − 1.
    #[must_use]
    pub fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// Returns the number as 32 bytes, the most significant first.
    pub fn to_be_bytes(self) -> [u8; 32] {
        self.0.to_be_bytes()
    }

    /// Returns the work that [`Work::to_be_bytes`] wrote.
    pub fn from_be_bytes(bytes: [u8; 32]) -> Self {
        Self(U256::from_be_bytes(bytes))
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(bits: u32) -> Result<Target, TargetError> {
        Target::from_bits(Bits(bits))
    }

    #[test]
    fn difficulty_asks_for_so_many_zero_digits() {
        for digits in 0..=16 {
            let difficulty = Difficulty::new(digits).unwrap();
            let text = hex::encode(Target::from_bits(difficulty.bits()).unwrap().to_be_bytes());
            let zeros = text.chars().take_while(|digit| *digit == '0').count() as u64;
            assert_eq!(zeros, digits, "{text}");
            // Four or five digits of f: between 2^-16 and 2^-20 of the hashes with so many zeros still miss.
            assert!(text[digits as usize..].starts_with("ffff"));
            assert_eq!(Difficulty::from_bits(difficulty.bits()), Some(difficulty));
        }
        assert_eq!(Difficulty::new(17), Err(DifficultyError(17)));
    }

    /// Bitcoin Core, `src/test/arith_uint256_tests.cpp`, `bignum_SetCompact`.
    #[test]
    fn expands_as_bitcoin_does() {
        for (bits, hex) in [
            (0x0000_0000, "0"),
            (0x0012_3456, "0"),
            (0x0100_3456, "0"),
            (0x0112_3456, "12"),
            (0x0200_8000, "80"),
            (0x0500_9234, "92340000"),
            (0x0412_3456, "12345600"),
            (0x0200_0056, "0"),
            (0x0300_0000, "0"),
        ] {
            assert_eq!(target(bits).unwrap().0, U256::from_str_radix(hex, 16).unwrap(), "{bits:#x}");
        }
        assert_eq!(target(0x0492_3456), Err(TargetError::Negative(Bits(0x0492_3456))));
        assert_eq!(target(0xff12_3456), Err(TargetError::Overflow(Bits(0xff12_3456))));
        assert_eq!(target(0x2101_0000), Err(TargetError::Overflow(Bits(0x2101_0000))));
    }

    /// The work of Bitcoin's first blocks is 0x100010001.
    #[test]
    fn work_is_bitcoins() {
        assert_eq!(Work::of(&target(0x1d00_ffff).unwrap()).0, U256::from(0x1_0001_0001u64));
        assert_eq!(Work::of(&Target(U256::MAX)).0, U256::from(1));
    }

    #[test]
    fn expectations_follow_the_geometric_law() {
        let two = Target::from_bits(Difficulty::new(2).unwrap().bits()).unwrap();
        assert!((two.expected_attempts() - 256.0).abs() < 0.01);
        assert!((two.failure_probability(256) - (-1f64).exp()).abs() < 0.001);
        assert!((two.attempts_for_failure(0.01) - 1177.0).abs() < 2.0);
        assert_eq!(Target(U256::MAX).failure_probability(1), 0.0);
    }
}
