//! The texts that the gateway signs: a device's reading with who, when and in which place, and what was dropped.
//!
//! Both are compact JSON with their members in this order:
//!
//! ```json
//! {"device":"…","received_ms":N,"boot":N,"counter":N,"reading":<the device's bytes>}
//! {"device":"…","received_ms":N,"boot":N,"counter":N,"gap":{"dropped":N,"from":{"boot":N,"counter":N},"to":{…}}}
//! ```

use std::fmt::Write;

use serde::Deserialize;

use crate::reading::DeviceName;

/// Bytes of a head beside the name of the device: its members' names, and three numbers of 64 bits.
const HEAD_SIZE: usize = 110;

/// Where a record stands in the order of an outbox: which start of it, and which record since then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(crate) struct Place {
    /// Starts of the outbox so far, from 1.
    pub boot: u64,
    /// Records of this start before it.
    pub counter: u64,
}

/// What every record that the gateway writes begins with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head<'a> {
    pub device: &'a DeviceName,
    /// When the gateway had it, by its own clock.
    pub received_ms: u64,
    pub place: Place,
}

/// What one device lost, in one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) struct Gap {
    /// Readings that were dropped.
    pub dropped: u64,
    /// The first of them.
    pub from: Place,
    /// The last of them.
    pub to: Place,
}

impl Gap {
    /// Returns the gap that one dropped reading leaves.
    pub(crate) fn of_one(place: Place) -> Self {
        Self { dropped: 1, from: place, to: place }
    }

    /// Adds what another record of the same device says.
    pub(crate) fn add(&mut self, other: &Self) {
        self.dropped += other.dropped;
        self.from = self.from.min(other.from);
        self.to = self.to.max(other.to);
    }

    /// Reads the gap that a record tells of; none where it is no such record.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        #[derive(Deserialize)]
        struct Record {
            gap: Gap,
        }
        serde_json::from_str::<Record>(text).ok().map(|record| record.gap)
    }
}

/// Writes the record of a reading. The reading is JSON already, and stays as it is but for the blanks around it.
pub(crate) fn reading_text(head: Head<'_>, reading: &str) -> String {
    let reading = reading.trim_matches([' ', '\t', '\r', '\n']);
    let mut text = head_text(head, reading.len() + 12);
    text.push_str(",\"reading\":");
    text.push_str(reading);
    text.push('}');
    text
}

/// Writes the record of what was dropped.
pub(crate) fn gap_text(head: Head<'_>, gap: &Gap) -> String {
    let Gap { dropped, from, to } = gap;
    let mut text = head_text(head, 128);
    let places = [("from", from), ("to", to)];
    // Writing to a text cannot fail.
    let _ = write!(text, ",\"gap\":{{\"dropped\":{dropped}");
    for (name, Place { boot, counter }) in places {
        let _ = write!(text, ",\"{name}\":{{\"boot\":{boot},\"counter\":{counter}}}");
    }
    text.push_str("}}");
    text
}

fn head_text(head: Head<'_>, rest: usize) -> String {
    let Head { device, received_ms, place: Place { boot, counter } } = head;
    let mut text = String::with_capacity(HEAD_SIZE + device.as_str().len() + rest);
    text.push_str("{\"device\":\"");
    // Of what JSON escapes, a name can only hold these two.
    for character in device.as_str().chars() {
        if matches!(character, '"' | '\\') {
            text.push('\\');
        }
        text.push(character);
    }
    let _ = write!(text, "\",\"received_ms\":{received_ms},\"boot\":{boot},\"counter\":{counter}");
    text
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const PLACE: Place = Place { boot: 3, counter: 41 };

    fn name(name: &str) -> DeviceName {
        DeviceName::new(name).unwrap()
    }

    #[test]
    fn keeps_the_reading_byte_for_byte() {
        let device = name("pi-1");
        let head = Head { device: &device, received_ms: 1_700_000_000_000, place: PLACE };
        assert_eq!(
            reading_text(head, " \r\n{\"t\": 20.50, \"é\":[1 ,2]}\t"),
            r#"{"device":"pi-1","received_ms":1700000000000,"boot":3,"counter":41,"reading":{"t": 20.50, "é":[1 ,2]}}"#
        );
    }

    #[test]
    fn writes_any_name_as_json() {
        for text in ["\"", "\\\\", "a/b c", "Gerät 1\u{2028}", "\u{1f321}"] {
            let device = name(text);
            let head = Head { device: &device, received_ms: 0, place: PLACE };
            let value: Value = serde_json::from_str(&reading_text(head, "null")).unwrap();
            assert_eq!(value["device"], json!(text));
        }
    }

    #[test]
    fn reads_the_gap_that_it_wrote() {
        let device = name("pi-1");
        let head = Head { device: &device, received_ms: 5, place: PLACE };
        let mut gap = Gap::of_one(Place { boot: 2, counter: 9 });
        gap.add(&Gap { dropped: 4, from: Place { boot: 1, counter: 70 }, to: Place { boot: 2, counter: 3 } });
        let text = gap_text(head, &gap);
        assert_eq!(
            text,
            r#"{"device":"pi-1","received_ms":5,"boot":3,"counter":41,"gap":{"dropped":5,"from":{"boot":1,"counter":70},"to":{"boot":2,"counter":9}}}"#
        );
        assert_eq!(Gap::parse(&text), Some(gap));
        assert_eq!(Gap::parse(&reading_text(head, "1")), None);
    }

    #[test]
    fn longest_reading_fits_into_a_payload() {
        use crate::reading::{DEVICE_NAME_SIZE_MAX, READING_SIZE_MAX};
        let device = name(&"\"".repeat(DEVICE_NAME_SIZE_MAX));
        let place = Place { boot: u64::MAX, counter: u64::MAX };
        let head = Head { device: &device, received_ms: u64::MAX, place };
        let text = reading_text(head, &"1".repeat(READING_SIZE_MAX));
        assert!(text.len() <= liotbchain_core::transaction::PAYLOAD_SIZE_MAX, "{}", text.len());
    }
}
