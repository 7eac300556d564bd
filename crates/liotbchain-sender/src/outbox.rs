//! The outbox: readings wait here, signed and on the disk, until a receiver has acknowledged each by its id.
//!
//! It is one SQLite file with a write-ahead log and `synchronous = FULL`, owned by one thread. The thread takes all that
//! is asked of it at the moment, does it in one transaction, and answers once that is on the disk. A file that is damaged
//! is put aside, and what can still be verified goes on from it. Nothing in memory grows with what waits.

mod desk;
mod drop_oldest;
mod file;
mod identities;
mod on_the_way;
mod rows;
mod salvage;
mod signing;
mod writer;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
};

use liotbchain_core::{PublicKey, Statement, TransactionId};
use tokio::sync::{oneshot, watch};

use crate::{
    reading::{DeviceName, Reading},
    record::Place,
    signer::SigningKey,
};
use writer::Command;

/// Name of the outbox's file in `DATA_DIR`.
pub const OUTBOX_FILE: &str = "outbox.db";

/// How much an outbox may hold, and what then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxLimits {
    /// Bytes of its file.
    pub size_max: u64,
    /// What happens to new readings when that is reached.
    pub when_full: WhenFull,
}

/// What happens when an outbox is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// New readings are refused; the device keeps them and comes again.
    Refuse,
    /// The oldest make room, and a signed gap record says how many of which device.
    DropOldest,
}

/// Place in the outbox; it only grows.
pub type Slot = u64;

/// Bits of a slot that count the records of one start: at 10,000 a second they last 317 days. The other 25 bits count
/// starts: at one a second they last a year.
const COUNTER_BITS: u32 = 38;

impl Place {
    fn slot(self) -> Slot {
        self.boot << COUNTER_BITS | self.counter
    }

    fn of_slot(slot: Slot) -> Self {
        Self { boot: slot >> COUNTER_BITS, counter: slot & ((1 << COUNTER_BITS) - 1) }
    }
}

/// What waits: a statement whose signature is good.
#[derive(Debug, Clone)]
pub struct Record {
    /// By what it is settled or released.
    pub slot: Slot,
    /// By what a receiver acknowledges it.
    pub id: TransactionId,
    /// Whose reading it is.
    pub device: DeviceName,
    /// What is sent.
    pub statement: Statement,
    /// The key that signed it.
    pub public_key: Arc<PublicKey>,
}

/// What became of one reading that was put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queued {
    /// The id of its record.
    pub id: TransactionId,
    /// False where the same reading of the device was taken before.
    pub is_new: bool,
}

/// What the outbox holds and did, for the status page. Counts are since the start of the process where not said
/// otherwise.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OutboxStatus {
    /// Records that wait, those on their way with them.
    pub waiting: u64,
    /// Bytes of the file in use.
    pub size: u64,
    /// How many it may have.
    pub size_max: u64,
    /// When the oldest that waits was received.
    pub oldest_ms: Option<u64>,
    /// Number of this start.
    pub boot: u64,
    /// Records put since the start.
    pub put: u64,
    /// Readings that had been put before.
    pub duplicates: u64,
    /// Records that a receiver acknowledged.
    pub acknowledged: u64,
    /// Records that a receiver refused; kept apart. In all, not since the start.
    pub set_aside: u64,
    /// Readings dropped because the outbox was full.
    pub dropped: u64,
    /// Why the last commit failed, while none has succeeded since.
    pub fault: Option<String>,
}

/// What opening found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Opened {
    /// Records that wait from before.
    pub waiting: u64,
    /// Where a damaged file was put aside, and how many records were saved from it.
    pub salvaged: Option<(PathBuf, u64)>,
}

/// Why the outbox did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutboxError {
    /// Full, and set to refuse.
    #[error(
        "the queue is full ({size} of {size_max} bytes): the receiver must be reached again, or OUTBOX_SIZE_MAX raised"
    )]
    Full {
        /// Bytes in use.
        size: u64,
        /// How many there may be.
        size_max: u64,
    },
    /// The disk does not take it: no space, read-only, gone. Nothing was acknowledged.
    #[error("the queue cannot be written: {0}")]
    Disk(String),
    /// Another process has the file.
    #[error("{path} is used by another sender: stop it, or give this one another DATA_DIR")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The sender ends.
    #[error("the sender is stopping")]
    Closed,
}

/// One record that a receiver refused for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Which record.
    pub slot: Slot,
    /// What the receiver said.
    pub reason: String,
}

/// A queue of signed records on the disk. Cheap to clone; all clones are one outbox.
#[derive(Debug, Clone)]
pub struct Outbox {
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<OutboxStatus>,
}

impl Outbox {
    /// Opens the file, or makes it. Records of earlier starts are there again, whatever the limits are now.
    ///
    /// # Errors
    ///
    /// [`OutboxError::InUse`] where another process has it, [`OutboxError::Disk`] where it cannot be written.
    pub async fn open(
        path: &Path,
        key: Arc<SigningKey>,
        limits: OutboxLimits,
    ) -> Result<(Self, Opened), OutboxError> {
        let (commands, queue) = mpsc::channel();
        let (opened, is_open) = oneshot::channel();
        let (publish, status) = watch::channel(OutboxStatus::default());
        writer::start(path, key, limits, queue, publish, opened)?;
        let opened = is_open.await.unwrap_or(Err(OutboxError::Closed))?;
        Ok((Self { commands, status }, opened))
    }

    /// Signs and stores readings in this order, all or none. When it returns they are on the disk.
    ///
    /// # Errors
    ///
    /// [`OutboxError`]: then none counts as taken. After [`OutboxError::Disk`] they may be stored all the same.
    pub async fn put(&self, readings: Vec<Reading>, received_ms: u64) -> Result<Vec<Queued>, OutboxError> {
        if readings.is_empty() {
            return Ok(Vec::new());
        }
        self.ask(|answer| Command::Put { readings, received_ms, answer }).await?
    }

    /// Takes up to so many records, and bytes of payloads and signatures (one at least), that are not on their way yet.
    /// They are on their way from now on, until [`settle`](Self::settle) or [`release`](Self::release) or a restart.
    /// Of each device the oldest come first, without a gap; devices with little waiting come before those with much.
    /// Empty where nothing waits.
    ///
    /// # Errors
    ///
    /// [`OutboxError::Disk`] where they cannot be read.
    pub async fn take(&self, records_max: usize, size_max: usize) -> Result<Vec<Record>, OutboxError> {
        let back = self.commands.clone();
        let batch = self.ask(|answer| Command::Take { records_max, size_max, back, answer }).await??;
        Ok(batch.into_records())
    }

    /// Forgets records that a receiver acknowledged, and puts aside those that one refused. May return before that is on
    /// the disk: what is forgotten twice does no harm. Slots that are not on their way are passed over.
    ///
    /// # Errors
    ///
    /// [`OutboxError::Disk`] where the refused could not be put aside: they are no longer on their way, and come again.
    pub async fn settle(&self, acknowledged: Vec<Slot>, refused: Vec<Refusal>) -> Result<(), OutboxError> {
        self.ask(|answer| Command::Settle { acknowledged, refused, answer }).await?
    }

    /// Puts records back that were taken and not sent.
    pub async fn release(&self, slots: Vec<Slot>) {
        // A closed outbox has put them back already.
        let _ = self.ask(|answer| Command::Release { slots, answer }).await;
    }

    /// Returns the latest refused records, newest first.
    ///
    /// # Errors
    ///
    /// [`OutboxError::Disk`] where they cannot be read.
    pub async fn set_aside(&self, limit: u32) -> Result<Vec<(Record, String)>, OutboxError> {
        self.ask(|answer| Command::SetAside { limit, answer }).await?
    }

    /// Changes whenever something came, went or failed.
    pub fn status(&self) -> watch::Receiver<OutboxStatus> {
        self.status.clone()
    }

    /// Writes what is still to be written, and closes the file.
    pub async fn close(&self) {
        // Closed already.
        let _ = self.ask(|answer| Command::Close { answer }).await;
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, OutboxError> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(command(answer)).map_err(|_| OutboxError::Closed)?;
        answered.await.map_err(|_| OutboxError::Closed)
    }
}

#[cfg(test)]
mod tests;
