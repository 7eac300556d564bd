//! What a census found, held against the store's index of ids: that the index has every id once, and where it does not,
//! which transaction is at fault.

use std::{collections::HashSet, ops::Range, sync::Arc, thread};

use liotbchain_core::{
    BlockError, ChainFault, TransactionId,
    chain::{Counted, Fingerprint},
};
use liotbchain_store::{Place, Status, Store, StoreError};

use super::{
    Fault, Validation,
    pages::{READS_MAX, Task},
    walk::Walk,
};

/// Ids that one read of the index takes.
const PAGE_IDS: u32 = 4_096;

/// What is looked at. Where more is wrong, one of these is named, and perhaps not the first.
const SUSPECTS_MAX: usize = 1 << 16;

/// Ids that may be at fault.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    /// Of ids that the chain may hold twice, or that the index does not have.
    fingerprints: HashSet<Fingerprint>,
    /// Ids that the index has twice.
    twice: HashSet<TransactionId>,
}

impl Suspects {
    /// Reads the index in its order, in several parts at once, and compares it with the sorted ids of a pass. What it has
    /// beside them is pending, or came later.
    pub(super) async fn find(store: &Arc<dyn Store>, counted: Counted) -> Result<Self, StoreError> {
        let Counted { ids, doubles, .. } = counted;
        let mut suspects = Self { fingerprints: doubles.into_iter().collect(), twice: HashSet::new() };
        let ids = Arc::new(ids);
        let parts = thread::available_parallelism().map_or(1, usize::from).min(READS_MAX);
        let size = ids.len().div_ceil(parts).max(1);
        let starts = (0..ids.len()).step_by(size);
        let tasks = starts.map(|start| {
            let part = start..ids.len().min(start + size);
            Task(tokio::spawn(compare(Arc::clone(store), Arc::clone(&ids), part)))
        });
        for mut task in tasks.collect::<Vec<_>>() {
            let found = task.done().await??;
            suspects.fingerprints.extend(found.fingerprints);
            suspects.twice.extend(found.twice);
        }
        Ok(suspects)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.fingerprints.is_empty() && self.twice.is_empty()
    }

    fn add(&mut self, missing: &[Fingerprint]) {
        let room = SUSPECTS_MAX.saturating_sub(self.fingerprints.len());
        self.fingerprints.extend(missing.iter().take(room));
    }

    fn contains(&self, id: &TransactionId) -> bool {
        self.fingerprints.contains(&Fingerprint::of(id)) || self.twice.contains(id)
    }

    /// Looks at each suspect on the valid part of the chain, and returns what is left of that part where one is at fault.
    pub(super) async fn look(
        &self,
        store: &Arc<dyn Store>,
        valid: &Validation,
    ) -> Result<Option<Validation>, StoreError> {
        let mut seen = HashSet::new();
        // The first that the index does not find where it stands. It may stand twice on the chain, which says more.
        let mut misplaced: Option<(TransactionId, Validation)> = None;
        let mut walk = Walk::new(store, valid);
        while let Some(page) = walk.next().await? {
            let blocks = match page {
                Ok(blocks) => blocks,
                Err(ended) => return Ok(Some(*ended)),
            };
            for block in blocks {
                for (id, place) in block.places().filter(|(id, _)| self.contains(id)) {
                    if !seen.insert(id) {
                        if let Some((_, ended)) = misplaced.filter(|(other, _)| *other != id) {
                            return Ok(Some(ended));
                        }
                        let error = BlockError::DuplicateId { position: place.position as usize, id };
                        return Ok(Some(walk.end(ChainFault { height: place.height, error: error.into() })));
                    }
                    if misplaced.is_none() {
                        let found = store.look_up(&[id]).await?.pop().flatten();
                        misplaced = self.judge(id, place, found).map(|fault| (id, walk.end(fault)));
                    }
                }
                walk.pass(&block);
            }
        }
        Ok(misplaced.map(|(_, ended)| ended))
    }

    /// Judges what the index says of a transaction that stands at a place.
    fn judge(&self, id: TransactionId, place: Place, found: Option<Status>) -> Option<Fault> {
        let reason = match found {
            None => format!("id {id} is not found by its index"),
            Some(Status::Pending) => format!("id {id} is also pending"),
            Some(Status::Sealed(other)) if other != place => {
                format!("id {id} stands also in block {}, position {}", other.height, other.position)
            }
            Some(Status::Sealed(_)) if self.twice.contains(&id) => format!("its index has the id {id} twice"),
            Some(Status::Sealed(_)) => return None,
        };
        let position = Some(place.position as usize);
        Some(Fault { height: place.height, position, field: "id".to_owned(), reason, origin: None })
    }
}

/// Compares a part of the sorted fingerprints with the index.
async fn compare(
    store: Arc<dyn Store>,
    ids: Arc<Vec<Fingerprint>>,
    part: Range<usize>,
) -> Result<Suspects, StoreError> {
    let mut suspects = Suspects::default();
    let mut expected = &ids[part];
    let (Some(first), Some(last)) = (expected.first(), expected.last()) else { return Ok(suspects) };
    let mut from = first.lowest_id();
    let mut before = None;
    loop {
        let page = store.ids(from, PAGE_IDS).await?;
        let new = if before.is_some() && before.as_ref() == page.first() { &page[1..] } else { &page[..] };
        for id in new {
            let found = Fingerprint::of(id);
            if found > *last {
                suspects.add(expected);
                return Ok(suspects);
            }
            if before == Some(*id) && suspects.twice.len() < SUSPECTS_MAX {
                suspects.twice.insert(*id);
            }
            before = Some(*id);
            let missing = expected.iter().take_while(|expected| **expected < found).count();
            suspects.add(&expected[..missing]);
            expected = &expected[missing..];
            if expected.first() == Some(&found) {
                expected = &expected[1..];
            }
        }
        match page.last() {
            // Once more from the last one on: the index may have it twice.
            Some(last) if *last != from => from = *last,
            // Its end, or one id over and over.
            _ => {
                suspects.add(expected);
                return Ok(suspects);
            }
        }
    }
}
