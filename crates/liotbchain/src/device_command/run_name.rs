//! By what one run is told from all others.

use std::fmt;

use crate::Failure;

/// 64 random bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunName(u64);

impl RunName {
    /// Draws a name.
    ///
    /// # Errors
    ///
    /// Where the system gives no random numbers.
    pub fn draw() -> Result<Self, Failure> {
        let mut bytes = [0; 8];
        aws_lc_rs::rand::fill(&mut bytes)
            .map_err(|_| Failure::failed("the system gives no random numbers"))?;
        Ok(Self(u64::from_le_bytes(bytes)))
    }

    /// Returns the identity of a reading that has none of its own.
    pub fn identity(self, number: u64) -> String {
        format!("{self}-{number}")
    }

    /// Returns a seed that people can type, for a run that was given none.
    pub fn seed(self) -> u64 {
        self.0 % 1_000_000_000
    }

    /// Returns a number from which pauses are drawn: those of two runs shall differ, whatever their seeds.
    pub fn bits(self) -> u64 {
        self.0
    }
}

impl fmt::Display for RunName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}
