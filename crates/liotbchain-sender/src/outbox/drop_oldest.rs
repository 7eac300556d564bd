//! Makes room by dropping the oldest records, and says what was lost.

use std::collections::HashMap;

use super::{
    Slot,
    on_the_way::{OnTheWay, Run},
    rows::{Kind, Rows},
};
use crate::{
    reading::DeviceName,
    record::{Gap, Place},
};

/// Records dropped at most before it is looked again whether there is room.
const STEP: usize = 256;

/// What was dropped to make room.
#[derive(Debug, Default)]
pub(super) struct Dropped {
    /// What each device lost.
    pub gaps: HashMap<DeviceName, Gap>,
    /// Records dropped, those that told of earlier losses with them.
    pub records: u64,
    /// Readings dropped now.
    pub readings: u64,
}

impl Dropped {
    /// Drops some of the oldest records that are not on their way, no more than it takes for their texts to have this
    /// size. Returns false where there is none.
    pub(super) fn drop_some(
        &mut self,
        rows: &Rows,
        on_the_way: &OnTheWay,
        size: u64,
    ) -> rusqlite::Result<bool> {
        let read = "SELECT slot, device, kind, CASE kind WHEN 1 THEN payload END,
                           octet_length(payload) + octet_length(signature)
                    FROM records WHERE slot >= ?1 ORDER BY slot";
        let mut freed = 0;
        let mut fewer: HashMap<DeviceName, u64> = HashMap::new();
        let mut runs = Vec::new();
        {
            let mut statement = rows.connection.prepare_cached(read)?;
            let mut found = statement.query([on_the_way.free_from()])?;
            while runs.len() < STEP
                && freed < size
                && let Some(row) = found.next()?
            {
                let slot: Slot = row.get(0)?;
                if !on_the_way.is_free(slot) {
                    continue;
                }
                runs.push(Run { first: slot, last: slot });
                freed += row.get::<_, u64>(4)?;
                let name: String = row.get(1)?;
                // A name that nobody could have written goes without a word of it.
                let Ok(device) = DeviceName::new(&name) else { continue };
                let told: Option<String> = row.get(3)?;
                let is_gap = row.get::<_, i64>(2)? == Kind::Gap as i64;
                let gap = told.filter(|_| is_gap).and_then(|text| Gap::parse(&text));
                self.readings += u64::from(!is_gap);
                let gap = gap.unwrap_or_else(|| Gap::of_one(Place::of_slot(slot)));
                self.gaps.entry(device.clone()).and_modify(|sum| sum.add(&gap)).or_insert(gap);
                *fewer.entry(device).or_default() += 1;
            }
        }
        rows.delete(&runs)?;
        rows.subtract_waiting(fewer.iter().map(|(device, count)| (device, *count)))?;
        self.records += runs.len() as u64;
        Ok(!runs.is_empty())
    }
}
