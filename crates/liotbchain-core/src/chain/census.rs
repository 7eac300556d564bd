//! Finds ids that stand twice on a chain, and sequences that are not the next of their key, in bounded memory.
//!
//! Of each id its first 6 bytes are kept, and found to stand twice once they are sorted. (Of 5 million different ids two
//! share their first 6 bytes in one chain of twenty: to look at those costs less than to keep more of all.) Where the
//! memory does not suffice for all, a pass keeps those below some limit, and another pass over the chain takes what this
//! one left. Keys likewise.

use std::{collections::HashMap, ops::RangeInclusive};

use crate::hash::{KeyId, TransactionId};

/// Ids that may stand twice, of one pass. Of more, the chain is bad anyway.
const DOUBLES_MAX: usize = 1 << 16;

/// What a [`Census`] may keep at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CensusBudget {
    /// Ids, at 6 bytes each. At least 2.
    pub ids: usize,
    /// Keys, at some 50 bytes each. At least 2.
    pub keys: usize,
}

/// One pass over a chain.
///
/// Ids and keys are hashes, so they spread evenly, and each pass takes at least half of what the budget allows.
#[derive(Debug)]
pub struct Census {
    budget: CensusBudget,
    /// What this pass takes; narrowed where there is more than fits.
    id_range: RangeInclusive<u64>,
    key_range: RangeInclusive<u64>,
    ids: Vec<Fingerprint>,
    doubles: Vec<Fingerprint>,
    next_sequences: HashMap<KeyId, u64>,
    /// Whether a key's first number may be any: the chain is not counted from its beginning.
    begins_anywhere: bool,
}

/// The first bytes of an id, which have its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; Self::SIZE]);

impl Fingerprint {
    const SIZE: usize = 6;
    const MAX: u64 = (1 << (8 * Self::SIZE)) - 1;

    /// Returns that of an id.
    pub fn of(id: &TransactionId) -> Self {
        Self::of_hash(&id.0)
    }

    fn of_hash(hash: &[u8; 32]) -> Self {
        Self(std::array::from_fn(|place| hash[place]))
    }

    /// Returns the lowest id that has it.
    pub fn lowest_id(self) -> TransactionId {
        let mut id = TransactionId::ZERO;
        id.0[..Self::SIZE].copy_from_slice(&self.0);
        id
    }

    fn number(self) -> u64 {
        self.0.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
}

impl Census {
    /// Begins the first pass over a whole chain.
    pub fn new(budget: CensusBudget) -> Self {
        Self::of(budget, 0..=Fingerprint::MAX, 0..=Fingerprint::MAX, false)
    }

    /// Begins the first pass over a chain from some block on: of each key the first number that is counted may be any.
    pub fn from_anywhere(budget: CensusBudget) -> Self {
        Self::of(budget, 0..=Fingerprint::MAX, 0..=Fingerprint::MAX, true)
    }

    fn of(
        budget: CensusBudget,
        id_range: RangeInclusive<u64>,
        key_range: RangeInclusive<u64>,
        begins_anywhere: bool,
    ) -> Self {
        // The system gives memory as it is touched, so the whole is asked for at once and never moved.
        let ids = Vec::with_capacity(if id_range.is_empty() { 0 } else { budget.ids });
        Self {
            budget,
            id_range,
            key_range,
            ids,
            doubles: Vec::new(),
            next_sequences: HashMap::new(),
            begins_anywhere,
        }
    }

    /// Returns what it may keep.
    pub fn budget(&self) -> CensusBudget {
        self.budget
    }

    /// Counts the next transaction of the chain.
    ///
    /// # Errors
    ///
    /// The sequence that the transaction should have, where it has another one.
    pub fn count(&mut self, id: Option<&TransactionId>, key_id: &KeyId, sequence: u64) -> Result<(), u64> {
        if let Some(id) = id.map(Fingerprint::of).filter(|id| self.id_range.contains(&id.number())) {
            if self.ids.len() >= self.budget.ids {
                self.leave_ids();
            }
            if self.id_range.contains(&id.number()) {
                self.ids.push(id);
            }
        }
        let key = Fingerprint::of_hash(&key_id.0).number();
        if !self.key_range.contains(&key) {
            return Ok(());
        }
        if let Some(next) = self.next_sequences.get_mut(key_id) {
            if sequence != *next {
                return Err(*next);
            }
            *next += 1;
            return Ok(());
        }
        if sequence != 0 && !self.begins_anywhere {
            return Err(0);
        }
        if self.next_sequences.len() >= self.budget.keys {
            self.leave_keys();
        }
        if self.key_range.contains(&key) {
            self.next_sequences.insert(*key_id, sequence.saturating_add(1));
        }
        Ok(())
    }

    /// Leaves the upper half of the ids to another pass.
    fn leave_ids(&mut self) {
        self.sort_ids();
        let half = self.ids.len() / 2;
        if self.ids.len() >= self.budget.ids.max(2) {
            self.id_range = *self.id_range.start()..=self.ids[half].number() - 1;
            self.ids.truncate(half);
        }
    }

    fn leave_keys(&mut self) {
        let number = |key_id: &KeyId| Fingerprint::of_hash(&key_id.0).number();
        let mut keys: Vec<_> = self.next_sequences.keys().map(number).collect();
        let (_, half, _) = keys.select_nth_unstable(self.next_sequences.len() / 2);
        // Only if half of all began with the same bytes, none would be left: those are kept then.
        let end = half.saturating_sub(1).max(*self.key_range.start());
        self.key_range = *self.key_range.start()..=end;
        self.next_sequences.retain(|key_id, _| number(key_id) <= end);
    }

    /// Sorts the ids, and sets apart those that stand twice.
    fn sort_ids(&mut self) {
        self.ids.sort_unstable();
        let doubles = &mut self.doubles;
        self.ids.dedup_by(|id, before| {
            let is_double = id == before;
            if is_double && doubles.last() != Some(id) && doubles.len() < DOUBLES_MAX {
                doubles.push(*id);
            }
            is_double
        });
    }

    /// Ends the pass: returns what it counted, and the next pass where something is left for one.
    pub fn finish(mut self) -> (Counted, Option<Self>) {
        self.sort_ids();
        let (id_range, key_range) = (above(&self.id_range), above(&self.key_range));
        let is_done = id_range.is_empty() && key_range.is_empty();
        let next = (!is_done).then(|| Self::of(self.budget, id_range, key_range, self.begins_anywhere));
        (Counted { ids: self.ids, doubles: self.doubles, next_sequences: self.next_sequences }, next)
    }
}

/// Returns what lies above a range.
fn above(range: &RangeInclusive<u64>) -> RangeInclusive<u64> {
    if range.is_empty() { RangeInclusive::new(1, 0) } else { range.end() + 1..=Fingerprint::MAX }
}

/// The ids of one pass: all of the chain from the lowest to the highest of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// The fingerprints, sorted, each once.
    pub ids: Vec<Fingerprint>,
    /// Those that more than one transaction had, some of them repeatedly. Different ids may have one fingerprint, so it
    /// must be looked at.
    pub doubles: Vec<Fingerprint>,
    /// Of each key of the pass the number that its next transaction has.
    pub next_sequences: HashMap<KeyId, u64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::sha256;

    fn hash(number: u32) -> [u8; 32] {
        sha256(&[&number.to_be_bytes()])
    }

    /// Counts transactions of (id, key, sequence) in as many passes as it takes. Returns what stands twice, the places of
    /// false sequences, how many ids were counted, and the passes.
    fn count(
        budget: CensusBudget,
        chain: &[(u32, u32, u64)],
    ) -> (Vec<Fingerprint>, Vec<usize>, usize, usize) {
        let (mut doubles, mut wrong, mut ids, mut passes) = (Vec::new(), Vec::new(), 0, 0);
        let mut next = Some(Census::new(budget));
        while let Some(mut census) = next {
            for (place, (id, key, sequence)) in chain.iter().enumerate() {
                let id = TransactionId(hash(*id));
                if census.count(Some(&id), &KeyId(hash(*key)), *sequence).is_err() {
                    wrong.push(place);
                }
                assert!(census.ids.len() <= budget.ids && census.next_sequences.len() <= budget.keys);
            }
            let (counted, rest) = census.finish();
            assert!(counted.ids.is_sorted());
            ids += counted.ids.len();
            doubles.extend(counted.doubles);
            passes += 1;
            next = rest;
        }
        (doubles, wrong, ids, passes)
    }

    const AMPLE: CensusBudget = CensusBudget { ids: 10_000, keys: 10_000 };
    const TINY: CensusBudget = CensusBudget { ids: 8, keys: 4 };

    /// 500 transactions of 20 keys that take turns.
    fn chain() -> Vec<(u32, u32, u64)> {
        (0..500).map(|number| (number, number % 20, u64::from(number / 20))).collect()
    }

    #[test]
    fn a_good_chain_is_good_however_small_the_budget() {
        assert_eq!(count(AMPLE, &chain()), (vec![], vec![], 500, 1));
        let (doubles, wrong, ids, passes) = count(TINY, &chain());
        assert_eq!((doubles, wrong, ids), (vec![], vec![], 500));
        assert!((500 / 8..500).contains(&passes), "{passes}");
    }

    #[test]
    fn an_id_that_stands_twice_or_thrice_is_found_in_every_budget() {
        let mut chain = chain();
        (chain[3].0, chain[250].0, chain[499].0) = (7, 7, 11);
        let mut expected = [7, 11].map(|number| Fingerprint::of(&TransactionId(hash(number))));
        expected.sort_unstable();
        for budget in [AMPLE, TINY, CensusBudget { ids: 2, keys: 2 }] {
            let (mut doubles, wrong, ids, _) = count(budget, &chain);
            // A pass may find what it then leaves to another one.
            doubles.sort_unstable();
            doubles.dedup();
            assert_eq!(
                (doubles.as_slice(), wrong.as_slice(), ids),
                (expected.as_slice(), [].as_slice(), 497)
            );
        }
    }

    #[test]
    fn a_sequence_that_is_not_the_next_is_found_in_every_budget() {
        for (place, sequence) in [(0, 1), (19, 7), (400, 19), (499, 25)] {
            let mut chain = chain();
            chain[place].2 = sequence;
            for budget in [AMPLE, TINY] {
                // Where nothing was left out, what follows of the key is wrong too, or was counted as if all were well.
                assert_eq!(count(budget, &chain).1.first(), Some(&place), "{place}, {sequence}, {budget:?}");
            }
        }
    }

    #[test]
    fn a_chain_is_counted_from_anywhere_on() {
        let mut census = Census::from_anywhere(AMPLE);
        for (id, key, sequence) in &chain()[250..] {
            census.count(Some(&TransactionId(hash(*id))), &KeyId(hash(*key)), *sequence).unwrap();
        }
        assert_eq!(census.count(None, &KeyId(hash(3)), 24), Err(25));
        let (counted, _) = census.finish();
        assert_eq!((counted.ids.len(), counted.next_sequences[&KeyId(hash(3))]), (250, 25));
    }

    #[test]
    fn a_pruned_transaction_has_no_id_but_counts_for_its_key() {
        let mut census = Census::new(TINY);
        assert_eq!(census.count(None, &KeyId::ZERO, 0), Ok(()));
        assert_eq!(census.count(None, &KeyId::ZERO, 0), Err(1));
        assert!(census.finish().0.ids.is_empty());
    }
}
