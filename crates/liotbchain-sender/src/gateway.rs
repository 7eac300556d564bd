//! The way in: what devices hand over by any road is stamped, signed, stored and told of.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use tokio::sync::watch;

use crate::{
    journal::{Fate, Journal, Outcome},
    outbox::{Outbox, OutboxError, OutboxStatus, Queued},
    rate::{Rate, Tempo},
    reading::{Body, Reading},
};

/// Takes readings. Cheap to clone; all clones are one gateway.
#[derive(Debug, Clone)]
pub struct Gateway {
    outbox: Outbox,
    journal: Journal,
    rate: Arc<Mutex<Rate>>,
}

impl Gateway {
    /// Makes the way into an outbox.
    pub fn new(outbox: Outbox, journal: Journal) -> Self {
        Self { outbox, journal, rate: Arc::new(Mutex::new(Rate::new(Instant::now()))) }
    }

    /// Takes readings of any devices, all or none. When it returns they are on the disk, and the device may be answered.
    ///
    /// # Errors
    ///
    /// [`OutboxError`]: then the device must not be told that they were taken.
    pub async fn take(&self, readings: Vec<Reading>) -> Result<Vec<Queued>, OutboxError> {
        let heads: Vec<_> =
            readings.iter().map(|reading| (reading.device.clone(), text_size(&reading.body))).collect();
        let timestamp_ms = now_ms();
        let queued = self.outbox.put(readings, timestamp_ms).await?;
        let new = heads.iter().zip(&queued).filter(|(_, queued)| queued.is_new);
        let (count, size) = new.fold((0, 0), |(count, size), ((_, text), _)| (count + 1, size + text));
        self.rate().note(Instant::now(), count, size);
        self.journal.note(heads.into_iter().zip(&queued).map(|((device, _), queued)| {
            let fate = if queued.is_new { Fate::Queued } else { Fate::Duplicate };
            Outcome { timestamp_ms, device, id: queued.id, fate }
        }));
        Ok(queued)
    }

    /// Returns what the outbox holds; it changes whenever something came, went or failed.
    pub fn status(&self) -> watch::Receiver<OutboxStatus> {
        self.outbox.status()
    }

    /// Returns how fast readings came within the last minute.
    pub(crate) fn tempo(&self) -> Tempo {
        self.rate().tempo(Instant::now())
    }

    fn rate(&self) -> MutexGuard<'_, Rate> {
        // Sums are whole after every step.
        self.rate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn text_size(body: &Body) -> u64 {
    let text = match body {
        Body::Plain(text) | Body::Bare(text) => text,
        Body::Signed(statement, _) => &statement.payload,
    };
    text.len() as u64
}

/// Returns milliseconds since 1970 by the system's clock, which may be wrong: a Raspberry Pi has none of its own.
pub(crate) fn now_ms() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}
