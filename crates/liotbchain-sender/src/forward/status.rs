//! What forwarding is at, as `GET /status` shows it. Counts are of readings since the start of the process.

use serde::Serialize;
use utoipa::ToSchema;

/// What forwarding is at and has done.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ForwardStatus {
    /// The receiver in use, one of those in `RECEIVER_URL`.
    pub receiver: String,
    /// Whether the last try to reach it came to an answer of a receiver that works; none before the first.
    pub reachable: Option<bool>,
    /// Readings posted at least once.
    pub sent: u64,
    /// Readings that a receiver acknowledged.
    pub accepted: Accepted,
    /// Readings that a receiver refused for good; they are set aside.
    pub refused: u64,
    /// Posts of readings that had been posted before.
    pub retries: u64,
    /// The last list that was acknowledged.
    pub last_answer: Option<LastAnswer>,
    /// The last failure, which later answers do not erase.
    pub last_error: Option<LastError>,
    /// By how many milliseconds the receiver's clock is ahead of this machine's, give or take half a second; none
    /// before its first answer.
    pub clock_offset_ms: Option<i64>,
}

/// Readings that the receiver acknowledged, by what it said of them then.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Accepted {
    /// In a block.
    pub sealed: u64,
    /// Stored, waiting for a block.
    pub pending: u64,
}

/// A list that was acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct LastAnswer {
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: u64,
    /// Readings of the list that are in a block.
    pub sealed: usize,
    /// Readings of the list that wait for a block.
    pub pending: usize,
    /// Height of the lowest block that holds one of them.
    pub height_min: Option<u32>,
    /// Height of the highest.
    pub height_max: Option<u32>,
}

/// A post that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct LastError {
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: u64,
    /// The receiver's status, if it answered.
    pub http_status: Option<u16>,
    /// What happened, and what to do about it.
    pub message: String,
}
