//! Where the next reading comes from.

use super::fleet::Share;
use super::stdin::Lines;
use crate::Failure;

/// What a device hands over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    pub device: String,
    /// A JSON object.
    pub text: String,
    /// By what a repetition is recognised, where the text has no count of its own: its number in this run.
    pub identity: Option<u64>,
}

/// Readings of a part of a fleet, or of another program.
pub enum Source {
    Fleet(Share),
    Stdin(Lines),
}

impl Source {
    /// Waits until the next reading is due; none where there are no more. Who stops waiting misses nothing.
    ///
    /// # Errors
    ///
    /// Where the other program's output cannot be read.
    pub async fn next(&mut self) -> Result<Option<Reading>, Failure> {
        match self {
            Self::Stdin(lines) => lines.next().await,
            Self::Fleet(share) => {
                let Some(due) = share.next_due() else { return Ok(None) };
                tokio::time::sleep_until(due).await;
                Ok(share.measure())
            }
        }
    }

    /// Returns a reading that is due already.
    ///
    /// # Errors
    ///
    /// Where the other program's output cannot be read.
    pub fn ready(&mut self) -> Result<Option<Reading>, Failure> {
        match self {
            Self::Stdin(lines) => lines.ready(),
            Self::Fleet(share) => {
                let is_due = share.next_due().is_some_and(|due| due <= tokio::time::Instant::now());
                Ok(if is_due { share.measure() } else { None })
            }
        }
    }
}
