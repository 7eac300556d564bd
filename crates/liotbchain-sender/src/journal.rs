//! What became of each reading, told to whoever listens, and counted for each device.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use liotbchain_core::{BlockHash, Height, TransactionId};
use serde::Serialize;
use tokio::sync::broadcast;
use utoipa::ToSchema;

use crate::reading::DeviceName;

/// Outcomes that a slow listener may fall behind before it misses some.
const OUTCOMES_KEPT: usize = 4096;
/// Devices that are counted apart. Their names come from requests, so there must be an end to them.
pub(crate) const DEVICES_MAX: usize = 1000;

/// What became of one reading.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: u64,
    /// Whose reading it is.
    pub device: DeviceName,
    /// The id of its record.
    pub id: TransactionId,
    /// What happened.
    pub fate: Fate,
}

/// What can happen to a reading.
#[derive(Debug, Clone, PartialEq)]
pub enum Fate {
    /// It is on this machine's disk, and the device was told so.
    Queued,
    /// The device sent it again; there is one record of it.
    Duplicate,
    /// The receiver stored it; it waits for a block.
    Pending,
    /// The receiver has it in a block.
    Sealed {
        /// Height of the block.
        height: Height,
        /// Hash of the block.
        block_hash: BlockHash,
    },
    /// The receiver refused it for good; it is kept apart.
    SetAside {
        /// What the receiver said.
        reason: String,
    },
}

impl Fate {
    /// Returns the word for it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Duplicate => "duplicate",
            Self::Pending => "pending",
            Self::Sealed { .. } => "sealed",
            Self::SetAside { .. } => "set_aside",
        }
    }
}

/// What became of the readings of one device since the start of the process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct DeviceCounts {
    /// Readings taken.
    pub queued: u64,
    /// Readings sent again, of which there is one record.
    pub duplicates: u64,
    /// Readings that a receiver acknowledged.
    pub delivered: u64,
    /// Readings that a receiver refused for good.
    pub refused: u64,
    /// When something was last heard of or from it, in milliseconds since the Unix epoch.
    pub last_ms: u64,
}

/// The counts of the devices that were heard of last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Devices {
    /// At most 1,000.
    pub counts: BTreeMap<Arc<str>, DeviceCounts>,
    /// Devices whose counts were given up to make room for others'.
    pub forgotten: u64,
}

/// Tells outcomes. Cheap to clone; all clones are one journal.
#[derive(Debug, Clone)]
pub struct Journal {
    outcomes: broadcast::Sender<Outcome>,
    devices: Arc<Mutex<Devices>>,
}

impl Default for Journal {
    fn default() -> Self {
        Self { outcomes: broadcast::channel(OUTCOMES_KEPT).0, devices: Arc::default() }
    }
}

impl Journal {
    /// Tells outcomes.
    pub fn note(&self, outcomes: impl IntoIterator<Item = Outcome>) {
        let mut devices = self.devices();
        for outcome in outcomes {
            devices.count(&outcome);
            log(&outcome);
            // Nobody may be listening.
            let _ = self.outcomes.send(outcome);
        }
    }

    /// Returns the outcomes to come.
    pub fn subscribe(&self) -> broadcast::Receiver<Outcome> {
        self.outcomes.subscribe()
    }

    /// Returns what became of the readings of each device.
    pub fn counts(&self) -> Devices {
        self.devices().clone()
    }

    fn devices(&self) -> MutexGuard<'_, Devices> {
        // Counts are whole after every step.
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Devices {
    fn count(&mut self, outcome: &Outcome) {
        let name = outcome.device.as_str();
        if !self.counts.contains_key(name) {
            if self.counts.len() >= DEVICES_MAX {
                self.forget_one();
            }
            self.counts.insert(name.into(), DeviceCounts::default());
        }
        let Some(counts) = self.counts.get_mut(name) else { return };
        counts.last_ms = outcome.timestamp_ms;
        match outcome.fate {
            Fate::Queued => counts.queued += 1,
            Fate::Duplicate => counts.duplicates += 1,
            Fate::Pending | Fate::Sealed { .. } => counts.delivered += 1,
            Fate::SetAside { .. } => counts.refused += 1,
        }
    }

    /// Gives up the device that was not heard of for the longest time.
    fn forget_one(&mut self) {
        let oldest = self.counts.iter().min_by_key(|(_, counts)| counts.last_ms);
        if let Some(name) = oldest.map(|(name, _)| Arc::clone(name)) {
            self.counts.remove(&name);
            self.forgotten += 1;
        }
    }
}

/// Each reading for those who look for one; whole batches are logged where they are sent.
fn log(outcome: &Outcome) {
    let Outcome { device, id, fate, .. } = outcome;
    let fate_name = fate.name();
    match fate {
        Fate::Sealed { height, .. } => tracing::debug!(%device, %id, height, "reading {fate_name}"),
        Fate::SetAside { reason } => tracing::debug!(%device, %id, reason, "reading {fate_name}"),
        Fate::Queued | Fate::Duplicate | Fate::Pending => {
            tracing::debug!(%device, %id, "reading {fate_name}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(device: &str, timestamp_ms: u64, fate: Fate) -> Outcome {
        Outcome { timestamp_ms, device: DeviceName::new(device).unwrap(), id: TransactionId([7; 32]), fate }
    }

    #[test]
    fn counts_what_became_of_the_readings_of_a_device() {
        let journal = Journal::default();
        let sealed = Fate::Sealed { height: 3, block_hash: BlockHash([1; 32]) };
        let refused = Fate::SetAside { reason: "too old".to_owned() };
        let fates = [Fate::Queued, Fate::Queued, Fate::Duplicate, sealed, refused, Fate::Pending];
        journal.note(fates.into_iter().zip(1..).map(|(fate, ms)| outcome("a", ms, fate)));
        journal.note([outcome("b", 9, Fate::Queued)]);
        let devices = journal.counts();
        let expected = DeviceCounts { queued: 2, duplicates: 1, delivered: 2, refused: 1, last_ms: 6 };
        assert_eq!(devices.counts["a"], expected);
        assert_eq!(devices.counts["b"], DeviceCounts { queued: 1, last_ms: 9, ..DeviceCounts::default() });
    }

    #[test]
    fn keeps_the_devices_that_were_heard_of_last() {
        let journal = Journal::default();
        for number in 0..DEVICES_MAX + 10 {
            journal.note([outcome(&number.to_string(), number as u64, Fate::Queued)]);
            journal.note([outcome("busy", number as u64, Fate::Queued)]);
        }
        let devices = journal.counts();
        assert_eq!((devices.counts.len(), devices.forgotten), (DEVICES_MAX, 11));
        assert_eq!(devices.counts["busy"].queued, DEVICES_MAX as u64 + 10);
        assert!(devices.counts.contains_key("1009") && !devices.counts.contains_key("10"));
    }

    #[tokio::test]
    async fn a_slow_listener_is_told_how_many_it_missed() {
        let journal = Journal::default();
        let mut outcomes = journal.subscribe();
        journal.note((0..OUTCOMES_KEPT as u64 + 5).map(|ms| outcome("a", ms, Fate::Queued)));
        let missed = outcomes.recv().await.unwrap_err();
        assert_eq!(missed, broadcast::error::RecvError::Lagged(5));
        assert_eq!(outcomes.recv().await.unwrap().timestamp_ms, 5);
    }
}
