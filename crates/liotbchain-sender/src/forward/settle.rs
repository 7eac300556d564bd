//! What an answer does to the list that it is about: off the outbox, aside, in halves, or again later.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use liotbchain_core::Height;

use super::{
    Closed, Forwarder, LastAnswer, Protocol,
    answer::{Acknowledgement, Failure, ItemRefusal, Reply, Verdict, judge},
    backoff,
    batch::Batch,
    last_error,
    link::{Cause, Unanswered},
    most_records,
};
use crate::{
    gateway::now_ms,
    journal::{Fate, Outcome},
    outbox::{OutboxError, Record, Refusal},
};

/// The original refuses with the same words what is wrong and what it cannot store at the moment: a reading is set
/// aside only when it was refused so often in a row.
const ORIGINAL_REFUSALS_MAX: u32 = 3;

/// What `/v1` calls a key that was named and is not there.
const KEY_NOT_KNOWN: &str = "key_not_known";

impl Forwarder {
    /// Settles the first list by what was answered to it.
    pub(super) async fn settle(&mut self, at: usize, reply: Result<Reply, Unanswered>) -> Result<(), Closed> {
        let Some(mut batch) = self.queue.pop_front() else { return Ok(()) };
        let reply = match reply {
            Ok(reply) => reply,
            Err(Unanswered { failure, cause }) => {
                match cause {
                    Cause::Unreachable => self.links[at].lost(),
                    Cause::Slow => batch.unanswered += 1,
                    Cause::BrokenOff => {}
                }
                self.queue.push_front(batch);
                self.postpone(at, &failure, Duration::ZERO);
                return Ok(());
            }
        };
        self.note_clock(&reply);
        let link = &mut self.links[at];
        match judge(&reply, &batch.records, self.protocol, link.is_compressing, link.url()) {
            Verdict::Acknowledged(acknowledgements) => {
                return self.acknowledge(at, batch, acknowledgements).await;
            }
            Verdict::ItemsRefused(failure, items) => {
                return self.refuse_items(at, batch, failure, items).await;
            }
            Verdict::ListRefused(failure) => return self.refuse_list(at, batch, failure).await,
            Verdict::CompressionRefused => {
                link.is_compressing = false;
                self.queue.push_front(batch);
            }
            Verdict::Misconfigured(failure) => {
                self.queue.push_front(batch);
                self.postpone(at, &failure, backoff::DELAY_MAX);
            }
            Verdict::Postponed(failure) => {
                self.queue.push_front(batch);
                self.postpone(at, &failure, Duration::ZERO);
            }
        }
        Ok(())
    }

    /// Takes what is acknowledged off the outbox. What the answer does not speak of is sent again.
    async fn acknowledge(
        &mut self,
        at: usize,
        batch: Batch,
        acknowledgements: Vec<Option<Acknowledgement>>,
    ) -> Result<(), Closed> {
        let (timestamp_ms, items) = (now_ms(), batch.len());
        let mut rest = Batch { is_posted: true, ..Batch::default() };
        let (mut slots, mut outcomes) = (Vec::with_capacity(items), Vec::with_capacity(items));
        let (mut sealed, mut heights) = (0, None::<(Height, Height)>);
        for (record, acknowledgement) in batch.records.into_iter().zip(acknowledgements) {
            let fate = match acknowledgement {
                None => {
                    rest.records.push(record);
                    continue;
                }
                Some(Acknowledgement::Pending) => Fate::Pending,
                Some(Acknowledgement::Sealed { height, block_hash }) => {
                    sealed += 1;
                    let (min, max) = heights.unwrap_or((height, height));
                    heights = Some((min.min(height), max.max(height)));
                    Fate::Sealed { height, block_hash }
                }
            };
            tracing::debug!(device = %record.device, id = %record.id, ?fate, "reading accepted");
            slots.push(record.slot);
            self.links[at].learn(record.statement.key_id);
            outcomes.push(Outcome { timestamp_ms, device: record.device, id: record.id, fate });
        }
        let (accepted, pending) = (slots.len(), slots.len() - sealed);
        self.outbox.settle(slots, Vec::new()).await.map_err(|_| Closed)?;
        self.journal.note(outcomes);
        let (height_min, height_max) = heights.unzip();
        tracing::info!(items = accepted, sealed, pending, height_min, height_max, "list accepted");
        self.status.send_modify(|status| {
            status.accepted.sealed += sealed as u64;
            status.accepted.pending += pending as u64;
            status.last_answer = Some(LastAnswer { timestamp_ms, sealed, pending, height_min, height_max });
        });
        self.note_reached(at);
        self.rota.worked(at);
        self.records_max =
            (self.records_max + self.records_max.div_ceil(16)).min(most_records(self.protocol));
        if !rest.records.is_empty() {
            let url = self.links[at].url();
            let message = format!(
                "the receiver at {url} acknowledges {accepted} of {items} readings: the others are sent again"
            );
            self.queue.push_front(rest);
            self.postpone(at, &Failure { http_status: None, message, retry_after: None }, Duration::ZERO);
        }
        Ok(())
    }

    /// Sets aside the records that were refused, and leaves the others for the next post. One that was refused only
    /// because it named a key that the receiver no longer has is sent again with the key.
    async fn refuse_items(
        &mut self,
        at: usize,
        mut batch: Batch,
        failure: Failure,
        items: Vec<ItemRefusal>,
    ) -> Result<(), Closed> {
        let link = &mut self.links[at];
        let (mut lost_keys, mut reasons) = (HashSet::new(), HashMap::new());
        for item in items {
            let key_id = batch.records[item.index].statement.key_id;
            if item.code == KEY_NOT_KNOWN && link.knows(&key_id) {
                lost_keys.insert(key_id);
            } else {
                reasons.insert(item.index, item.reason());
            }
        }
        lost_keys.iter().for_each(|key_id| link.forget(key_id));
        let (mut kept, mut refused) = (Vec::with_capacity(batch.len()), Vec::new());
        for (index, record) in batch.records.into_iter().enumerate() {
            match reasons.remove(&index) {
                Some(reason) => refused.push((record, reason)),
                None => kept.push(record),
            }
        }
        batch.records = kept;
        if !batch.records.is_empty() {
            self.queue.push_front(batch);
        }
        self.note_reached(at);
        self.rota.worked(at);
        if refused.is_empty() {
            return Ok(());
        }
        self.set_aside(at, refused, &failure).await
    }

    /// Sends a list that was refused as a whole in halves, to find what it is about; a single record is set aside.
    async fn refuse_list(&mut self, at: usize, mut batch: Batch, failure: Failure) -> Result<(), Closed> {
        if batch.len() > 1 {
            tracing::debug!(items = batch.len(), "the list is sent in halves: {}", failure.message);
            let second = batch.split();
            self.records_max = batch.len();
            self.queue.push_front(second);
            self.queue.push_front(batch);
            return Ok(());
        }
        batch.refusals += 1;
        if self.protocol == Protocol::Original && batch.refusals < ORIGINAL_REFUSALS_MAX {
            self.queue.push_front(batch);
            self.postpone(at, &failure, Duration::ZERO);
            return Ok(());
        }
        let refused = batch.records.into_iter().map(|record| (record, failure.message.clone()));
        self.set_aside(at, refused.collect(), &failure).await
    }

    async fn set_aside(
        &mut self,
        at: usize,
        refused: Vec<(Record, String)>,
        failure: &Failure,
    ) -> Result<(), Closed> {
        let (timestamp_ms, items) = (now_ms(), refused.len());
        let refusals = refused.iter();
        let refusals = refusals.map(|(record, reason)| Refusal { slot: record.slot, reason: reason.clone() });
        match self.outbox.settle(Vec::new(), refusals.collect()).await {
            Ok(()) => {}
            Err(OutboxError::Closed) => return Err(Closed),
            // They are in the queue again, and come back when it can be written.
            Err(_) => {
                self.postpone(at, failure, Duration::ZERO);
                return Ok(());
            }
        }
        tracing::error!(items, "readings set aside: {}", failure.message);
        self.status.send_modify(|status| {
            status.refused += items as u64;
            status.last_error = Some(last_error(failure, timestamp_ms));
        });
        self.journal.note(refused.into_iter().map(|(record, reason)| {
            tracing::debug!(device = %record.device, id = %record.id, reason, "reading set aside");
            Outcome { timestamp_ms, device: record.device, id: record.id, fate: Fate::SetAside { reason } }
        }));
        Ok(())
    }
}
