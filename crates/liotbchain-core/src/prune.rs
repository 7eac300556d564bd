//! The record of a pruning: what an operator says on the chain before payloads and signatures are dropped.
//!
//! A record is the payload of a signed transaction like any other, and no rule of the chain. It tells who reads the chain
//! that what is missing was taken out on purpose, by whom, and why; whether that signer may do so is for the reader to
//! judge.

use serde::{Deserialize, Serialize};

use crate::{Height, hash::KeyId};

/// What a record begins with. Others need not be read as one.
const BEGINNING: &str = "{\"type\":\"prune\",";

/// Most bytes of a reason.
pub const REASON_SIZE_MAX: usize = 1_024;

/// What was pruned, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PruneRecord {
    /// Whose transactions.
    pub key_id: KeyId,
    /// Only those in blocks below this height.
    pub before_height: Height,
    /// How many still had their payload.
    pub transactions: u64,
    /// The first one's number among all of its key.
    pub from_sequence: u64,
    /// The last one's.
    pub to_sequence: u64,
    /// Why.
    pub reason: String,
}

impl PruneRecord {
    /// Returns the record as a payload.
    pub fn to_payload(&self) -> String {
        serde_json::to_string(&Said::Prune(self)).expect("a struct of text and numbers is JSON")
    }

    /// Reads a payload that is a record as this project writes it; any other text is none.
    pub fn from_payload(payload: &str) -> Option<Self> {
        if !payload.starts_with(BEGINNING) {
            return None;
        }
        serde_json::from_str(payload).ok().map(|Said::Prune(record)| record)
    }
}

/// A record with its type.
#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Said<R> {
    Prune(R),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> PruneRecord {
        PruneRecord {
            key_id: KeyId([7; 32]),
            before_height: 9,
            transactions: 3,
            from_sequence: 1,
            to_sequence: 4,
            reason: "asked \"by\" its owner".to_owned(),
        }
    }

    #[test]
    fn reads_what_it_writes() {
        let payload = record().to_payload();
        assert_eq!(
            payload,
            format!(
                "{{\"type\":\"prune\",\"key_id\":\"{}\",\"before_height\":9,\"transactions\":3,\"from_sequence\":1,\
                 \"to_sequence\":4,\"reason\":\"asked \\\"by\\\" its owner\"}}",
                "07".repeat(32)
            )
        );
        assert_eq!(PruneRecord::from_payload(&payload), Some(record()));
    }

    #[test]
    fn takes_nothing_else_for_a_record() {
        let payload = record().to_payload();
        for other in [
            "{}".to_owned(),
            payload.replace("\"type\":\"prune\"", "\"type\":\"other\""),
            payload.replace("\"reason\"", "\"why\""),
            payload.replace("}", ",\"more\":1}"),
            payload[..payload.len() - 1].to_owned(),
        ] {
            assert_eq!(PruneRecord::from_payload(&other), None, "{other}");
        }
    }
}
