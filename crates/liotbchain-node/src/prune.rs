//! Prunes a chain: says so on it, then drops payloads and signatures.
//!
//! The record comes first, and is durable before anything is dropped. So whatever is missing was announced, and a pruning
//! that was killed is gone on with by calling for it again: where nothing was dropped yet, the record is the same text, and
//! so the same transaction; else a second one names what was left. Record and rows are never one commit, since a block may
//! be mined by another process.

use std::{collections::HashMap, ops::RangeInclusive};

use liotbchain_core::{Height, KeyId, PruneRecord, TimestampMs};
use liotbchain_store::{PruneStep, Store, StoreError};

/// Transactions that one commit looks at: a receiver on the same store waits no longer than that takes.
const STEP: u32 = 2_000;

/// Which transactions are pruned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrunePlan {
    /// Whose: of the zero key, those that nobody signed. That of the genesis block always stays.
    pub key_id: KeyId,
    /// Those in blocks below this height.
    pub before_height: Height,
    /// How many of them have a payload.
    pub transactions: u64,
    /// Bytes of their payloads and signatures.
    pub bytes: u64,
    /// Numbers of the first and the last of them among all of their key; none where there are none.
    pub sequences: Option<(u64, u64)>,
}

impl PrunePlan {
    /// Looks what a pruning would drop. Blocks above the tip are not there yet, and are not spoken of.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn make(
        store: &dyn Store,
        key_id: KeyId,
        before_height: Height,
        mut progress: impl FnMut(Height),
    ) -> Result<Self, StoreError> {
        let height = store.branch().await?.map_or(0, |branch| branch.height());
        let before_height = before_height.min(height.saturating_add(1));
        let mut plan = Self { key_id, before_height, transactions: 0, bytes: 0, sequences: None };
        let mut next = Some(0);
        while let Some(from) = next {
            let step = store.prunable(key_id, from..before_height, STEP).await?;
            plan.add(&step);
            progress(step.next.unwrap_or(before_height));
            next = step.next;
        }
        Ok(plan)
    }

    fn add(&mut self, step: &PruneStep) {
        self.transactions += step.transactions;
        self.bytes += step.bytes;
        if let Some((first, last)) = step.sequences {
            self.sequences = Some((self.sequences.map_or(first, |(first, _)| first), last));
        }
    }

    /// Returns what is to be said on the chain; none where there is nothing to prune.
    pub fn record(&self, reason: String) -> Option<PruneRecord> {
        let Self { key_id, before_height, transactions, sequences, .. } = *self;
        let (from_sequence, to_sequence) = sequences?;
        Some(PruneRecord { key_id, before_height, transactions, from_sequence, to_sequence, reason })
    }

    /// Drops what was planned, of which a record must be durable, and the same from blocks beside the best chain. Returns
    /// what was dropped: more than was planned only where a reorganisation brought it.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; what was dropped until then is dropped. Call again to go on.
    pub async fn carry_out(
        &self,
        store: &dyn Store,
        mut progress: impl FnMut(Height),
    ) -> Result<Self, StoreError> {
        let mut done = Self { transactions: 0, bytes: 0, sequences: None, ..*self };
        let mut next = Some(0);
        while let Some(from) = next {
            let step = store.prune(self.key_id, from..self.before_height, STEP).await?;
            done.add(&step);
            progress(step.next.unwrap_or(self.before_height));
            next = step.next;
        }
        store.prune_side_blocks(self.key_id, self.before_height).await?;
        Ok(done)
    }
}

/// Returns the height of the first block that is not older than a time; one above the tip where all are.
///
/// Found by halves: where a clock was set back, and timestamps do not rise with the height, it is one such height of
/// several.
///
/// # Errors
///
/// [`StoreError`].
pub async fn first_height_at(store: &dyn Store, time_ms: TimestampMs) -> Result<Height, StoreError> {
    let height = store.branch().await?.map_or(0, |branch| branch.height());
    let (mut low, mut high) = (0, height.saturating_add(1));
    while low < high {
        let middle = low + (high - low) / 2;
        let blocks = store.blocks(middle, 1, 1).await?;
        let missing = || StoreError::Corrupt(format!("block {middle} is missing"));
        let header = &blocks.first().ok_or_else(missing)?.block.header;
        if header.timestamp_ms < time_ms { low = middle + 1 } else { high = middle }
    }
    Ok(low)
}

/// Runs of pruned transactions that are remembered until their record is met.
const RUNS_MAX: usize = 4_096;

/// Counts the pruned transactions of a chain, and those that no record on it speaks of, in bounded memory.
#[derive(Debug, Clone, Default)]
pub(crate) struct PrunedCount {
    pruned: u64,
    recorded: u64,
    /// Runs of transactions, one after the other, that no record has spoken of until now.
    runs: HashMap<KeyId, Vec<RangeInclusive<u64>>>,
    runs_count: usize,
    /// There were too many to remember.
    is_forgetful: bool,
}

impl PrunedCount {
    /// Counts a pruned transaction; those of one key must come in their order.
    pub(crate) fn add(&mut self, key_id: KeyId, sequence: u64) {
        self.pruned += 1;
        let is_full = self.runs_count >= RUNS_MAX;
        if is_full && !self.runs.contains_key(&key_id) {
            self.is_forgetful = true;
            return;
        }
        let runs = self.runs.entry(key_id).or_default();
        match runs.last_mut() {
            Some(last) if last.end().checked_add(1) == Some(sequence) => *last = *last.start()..=sequence,
            _ if is_full => self.is_forgetful = true,
            _ => {
                runs.push(sequence..=sequence);
                self.runs_count += 1;
            }
        }
    }

    /// Meets a record, which stands above what it speaks of.
    pub(crate) fn meet(&mut self, record: &PruneRecord) {
        let Some(runs) = self.runs.remove(&record.key_id) else { return };
        self.runs_count -= runs.len();
        let mut rest = Vec::with_capacity(runs.len() + 1);
        for run in runs {
            let (start, end) = run.into_inner();
            let (first, last) = (start.max(record.from_sequence), end.min(record.to_sequence));
            if first > last {
                rest.push(start..=end);
                continue;
            }
            self.recorded += last - first + 1;
            if start < first {
                rest.push(start..=first - 1);
            }
            if last < end {
                rest.push(last + 1..=end);
            }
        }
        self.runs_count += rest.len();
        if !rest.is_empty() {
            self.runs.insert(record.key_id, rest);
        }
    }

    /// Returns how many were pruned, and how many of them no record speaks of; none where that is not known.
    pub(crate) fn counts(&self) -> (u64, Option<u64>) {
        (self.pruned, (!self.is_forgetful).then(|| self.pruned - self.recorded))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: u8, from_sequence: u64, to_sequence: u64) -> PruneRecord {
        PruneRecord {
            key_id: KeyId([key; 32]),
            before_height: 9,
            transactions: 1,
            from_sequence,
            to_sequence,
            reason: "r".to_owned(),
        }
    }

    #[test]
    fn counts_what_no_record_speaks_of() {
        let mut count = PrunedCount::default();
        for sequence in [1, 2, 3, 7, 8] {
            count.add(KeyId([1; 32]), sequence);
            count.add(KeyId([2; 32]), sequence);
        }
        assert_eq!(count.counts(), (10, Some(10)));
        count.meet(&record(1, 2, 7));
        assert_eq!(count.counts(), (10, Some(7)));
        count.meet(&record(1, 2, 7));
        assert_eq!(count.counts(), (10, Some(7)), "once");
        count.meet(&record(1, 0, u64::MAX));
        count.meet(&record(3, 0, u64::MAX));
        assert_eq!(count.counts(), (10, Some(5)));
        count.add(KeyId([1; 32]), 9);
        assert_eq!(count.counts(), (11, Some(6)), "a record stands above what it speaks of");
        count.meet(&record(2, 2, 2));
        assert_eq!(count.counts(), (11, Some(5)));
        count.meet(&record(2, 1, 3));
        assert_eq!((count.counts(), count.runs_count), ((11, Some(3)), 2));
    }

    #[test]
    fn says_when_it_does_not_know() {
        let mut count = PrunedCount::default();
        for number in 0..RUNS_MAX as u64 {
            count.add(KeyId([1; 32]), 2 * number);
        }
        count.add(KeyId([1; 32]), 2 * RUNS_MAX as u64 - 1);
        assert_eq!(count.counts(), (4097, Some(4097)));
        let mut other_key = count.clone();
        other_key.add(KeyId([2; 32]), 0);
        assert_eq!(other_key.counts(), (4098, None));
        count.add(KeyId([1; 32]), 9_999_999);
        assert_eq!(count.counts(), (4098, None));
    }
}
