//! Which records were taken, and which of those may be deleted. All that is kept of a record outside of the file.

use std::collections::{BTreeMap, HashMap};

use super::Slot;
use crate::reading::DeviceName;

#[derive(Debug, Default)]
pub(super) struct OnTheWay {
    /// Taken, and not settled yet.
    taken: HashMap<Slot, DeviceName>,
    /// Acknowledged, and still in the file.
    settled: BTreeMap<Slot, DeviceName>,
    /// No slot below this one is free.
    free_from: Slot,
}

/// Records of neighbouring slots that may be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub first: Slot,
    pub last: Slot,
}

impl OnTheWay {
    /// Returns whether a record may be taken, or dropped.
    pub(super) fn is_free(&self, slot: Slot) -> bool {
        !self.taken.contains_key(&slot) && !self.settled.contains_key(&slot)
    }

    /// Returns where the search for free records begins.
    pub(super) fn free_from(&self) -> Slot {
        self.free_from
    }

    /// Notes that no record below `slot` is free.
    pub(super) fn begin_at(&mut self, slot: Slot) {
        self.free_from = slot;
    }

    /// Returns how many records in the file are not free.
    pub(super) fn len(&self) -> u64 {
        (self.taken.len() + self.settled.len()) as u64
    }

    /// Returns how many records may be deleted.
    pub(super) fn settled(&self) -> usize {
        self.settled.len()
    }

    /// Notes that a record was taken.
    pub(super) fn take(&mut self, slot: Slot, device: DeviceName) {
        self.taken.insert(slot, device);
    }

    /// Notes that a record may be deleted. Returns false where it was not on its way.
    pub(super) fn settle(&mut self, slot: Slot) -> bool {
        let device = self.taken.remove(&slot);
        device.map(|device| self.settled.insert(slot, device)).is_some()
    }

    /// Makes a record free again.
    pub(super) fn release(&mut self, slot: Slot) {
        if self.taken.remove(&slot).is_some() {
            self.free_from = self.free_from.min(slot);
        }
    }

    /// Returns the device of a record that is taken.
    pub(super) fn taken(&self, slot: Slot) -> Option<&DeviceName> {
        self.taken.get(&slot)
    }

    /// Forgets a taken record that is no longer in the file.
    pub(super) fn remove(&mut self, slot: Slot) {
        self.taken.remove(&slot);
    }

    /// Returns what may be deleted, neighbours together, and how many records of which device that are.
    pub(super) fn to_delete(&self) -> (Vec<Run>, HashMap<&DeviceName, u64>) {
        let mut runs: Vec<Run> = Vec::new();
        let mut devices = HashMap::new();
        for (slot, device) in &self.settled {
            match runs.last_mut() {
                Some(run) if run.last + 1 == *slot => run.last = *slot,
                _ => runs.push(Run { first: *slot, last: *slot }),
            }
            *devices.entry(device).or_default() += 1;
        }
        (runs, devices)
    }

    /// Notes that all that may be deleted is.
    pub(super) fn deleted(&mut self) {
        self.settled.clear();
    }

    /// Forgets what is not in the file any more.
    pub(super) fn retain<E>(&mut self, mut exists: impl FnMut(Slot) -> Result<bool, E>) -> Result<(), E> {
        let slots: Vec<_> = self.taken.keys().chain(self.settled.keys()).copied().collect();
        for slot in slots {
            if !exists(slot)? {
                self.taken.remove(&slot);
                self.settled.remove(&slot);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_deleted_together() {
        let device = DeviceName::new("a").unwrap();
        let mut on_the_way = OnTheWay::default();
        for slot in [9, 3, 5, 4, 8] {
            on_the_way.take(slot, device.clone());
            assert!(on_the_way.settle(slot));
            assert!(!on_the_way.settle(slot), "settled twice");
        }
        let (runs, devices) = on_the_way.to_delete();
        assert_eq!(runs, [Run { first: 3, last: 5 }, Run { first: 8, last: 9 }]);
        assert_eq!(devices, HashMap::from([(&device, 5)]));
    }

    #[test]
    fn search_goes_back_to_what_was_released() {
        let device = DeviceName::new("a").unwrap();
        let mut on_the_way = OnTheWay::default();
        for slot in 3..6 {
            on_the_way.take(slot, device.clone());
        }
        on_the_way.begin_at(6);
        on_the_way.release(9);
        assert_eq!(on_the_way.free_from(), 6);
        on_the_way.release(4);
        assert_eq!(on_the_way.free_from(), 4);
        assert!(on_the_way.is_free(4) && !on_the_way.is_free(5));
    }
}
