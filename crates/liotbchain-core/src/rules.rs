//! A network's rules, as its genesis block states them, and that block.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{
    Height, TimestampMs,
    block::{Block, CheckedBlock, Header},
    check::BlockError,
    hash::{BlockHash, KeyId, Root},
    merkle,
    object::Object,
    pow::{Bits, Difficulty, Work},
    transaction::{Content, PAYLOAD_SIZE_MAX, Statement, Transaction},
};

const GENESIS: &str = "Genesis Block";

/// Longest name of a network, in bytes.
pub const NETWORK_NAME_SIZE_MAX: usize = 64;

/// When a block is made, and how hard it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SealRule {
    /// When enough transactions wait, at the least difficulty of the rules or harder.
    OnCount,
}

/// What holds on a whole network, whatever a node's own settings say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// The network's name.
    pub network: String,
    /// When a block is made.
    pub seal: SealRule,
    /// The least difficulty of a block.
    pub difficulty: Difficulty,
    /// Whether transactions without a signature are allowed.
    pub unsigned: bool,
    /// When the network was made.
    pub timestamp_ms: TimestampMs,
}

/// The payload of the genesis transaction, in the order it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    genesis: String,
    network: String,
    seal: SealRule,
    difficulty: u64,
    unsigned: bool,
    timestamp_ms: TimestampMs,
}

/// Why a block is not the genesis block of a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GenesisError {
    /// The payload does not state rules that this version knows.
    #[error("the genesis payload does not state rules that this version knows: {reason}")]
    Payload {
        /// What the JSON reader says.
        reason: String,
    },
    /// The genesis block holds exactly one transaction.
    #[error("the genesis block holds {got} transactions: expected 1")]
    TransactionCount {
        /// How many it holds.
        got: usize,
    },
    /// Its transaction is unsigned, with nothing in place of a signature, and number 0.
    #[error("the genesis transaction must be unsigned, without salt, and number 0")]
    Transaction,
    /// A header field does not follow from the rules.
    #[error("the genesis block's {field} does not follow from its rules")]
    Header {
        /// The field's name.
        field: &'static str,
    },
    /// The network's name is empty, too long, or holds control characters.
    #[error("network name: expected 1 to {NETWORK_NAME_SIZE_MAX} bytes without control characters")]
    Network,
}

impl Rules {
    /// Returns the genesis payload that states these rules.
    pub fn to_payload(&self) -> String {
        let payload = Payload {
            genesis: GENESIS.to_owned(),
            network: self.network.clone(),
            seal: self.seal,
            difficulty: u64::from(self.difficulty.digits()),
            unsigned: self.unsigned,
            timestamp_ms: self.timestamp_ms,
        };
        serde_json::to_string(&payload).expect("a struct of text and numbers is JSON")
    }

    /// Reads a genesis payload. A key that this version does not know is refused: it may be a rule that decides.
    ///
    /// # Errors
    ///
    /// [`GenesisError::Payload`] or [`GenesisError::Network`].
    pub fn from_payload(payload: &str) -> Result<Self, GenesisError> {
        let refused = |reason: String| GenesisError::Payload { reason };
        let Object(payload): Object<Payload> =
            serde_json::from_str(payload).map_err(|error| refused(error.to_string()))?;
        if payload.genesis != GENESIS {
            return Err(refused(format!("expected \"genesis\":\"{GENESIS}\"")));
        }
        let difficulty = Difficulty::new(payload.difficulty).map_err(|error| refused(error.to_string()))?;
        let Payload { network, seal, unsigned, timestamp_ms, .. } = payload;
        let rules = Self { network, seal, difficulty, unsigned, timestamp_ms };
        rules.check_network()?;
        Ok(rules)
    }

    fn check_network(&self) -> Result<(), GenesisError> {
        let name = &self.network;
        if name.is_empty() || name.len() > NETWORK_NAME_SIZE_MAX || name.chars().any(char::is_control) {
            return Err(GenesisError::Network);
        }
        Ok(())
    }

    /// Builds the genesis block that states these rules. Its hash is the network's identity.
    ///
    /// # Errors
    ///
    /// [`GenesisError::Network`].
    pub fn genesis_block(&self) -> Result<CheckedBlock, GenesisError> {
        self.check_network()?;
        let statement = Statement { key_id: KeyId::ZERO, payload: self.to_payload(), signature: Vec::new() };
        let transaction = Transaction { sequence: 0, content: Content::Full(Arc::new(statement)) };
        let header = Header {
            prev_block_hash: BlockHash::ZERO,
            transactions_root: merkle::compute_root([transaction.leaf_hash()]),
            history_root: merkle::compute_root([]),
            height: 0,
            timestamp_ms: self.timestamp_ms,
            bits: self.difficulty.bits(),
            nonce: 0,
        };
        Ok(checked(Block { header, transactions: vec![transaction] }))
    }

    /// Checks whether a block may carry these compact bits.
    ///
    /// # Errors
    ///
    /// [`BlockError::BitsNotAllowed`].
    pub fn check_bits(&self, bits: Bits) -> Result<Difficulty, BlockError> {
        Difficulty::from_bits(bits)
            .filter(|difficulty| *difficulty >= self.difficulty)
            .ok_or(BlockError::BitsNotAllowed { got: bits, least: self.difficulty })
    }
}

/// Checks a block as the genesis block of its own rules.
///
/// # Errors
///
/// [`GenesisError`] names the rule that it breaks.
pub fn check_genesis(block: Block) -> Result<(CheckedBlock, Rules), GenesisError> {
    let [transaction] = block.transactions.as_slice() else {
        return Err(GenesisError::TransactionCount { got: block.transactions.len() });
    };
    let statement = transaction.statement().ok_or(GenesisError::Transaction)?;
    if !statement.is_unsigned() || !statement.signature.is_empty() || transaction.sequence != 0 {
        return Err(GenesisError::Transaction);
    }
    if statement.payload.is_empty() || statement.payload.len() > PAYLOAD_SIZE_MAX {
        return Err(GenesisError::Transaction);
    }
    let rules = Rules::from_payload(&statement.payload)?;
    let header = &block.header;
    let expected: [(&str, bool); 7] = [
        ("height", header.height == 0 as Height),
        ("prev_block_hash", header.prev_block_hash == BlockHash::ZERO),
        ("transactions_root", header.transactions_root == block.compute_transactions_root()),
        ("history_root", header.history_root == empty_root()),
        ("timestamp_ms", header.timestamp_ms == rules.timestamp_ms),
        ("bits", header.bits == rules.difficulty.bits()),
        ("nonce", header.nonce == 0),
    ];
    if let Some((field, _)) = expected.into_iter().find(|(_, holds)| !holds) {
        return Err(GenesisError::Header { field });
    }
    Ok((checked(block), rules))
}

fn empty_root() -> Root {
    merkle::compute_root([])
}

fn checked(block: Block) -> CheckedBlock {
    let hash = block.header.compute_hash();
    let ids =
        block.transactions.iter().map(|transaction| transaction.statement().map(|it| it.id())).collect();
    CheckedBlock { block, hash, work: Work::ZERO, ids }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        Rules {
            network: "test".into(),
            seal: SealRule::OnCount,
            difficulty: Difficulty::new(2).unwrap(),
            unsigned: false,
            timestamp_ms: 1_795_345_827_157,
        }
    }

    #[test]
    fn genesis_states_its_rules_and_has_one_hash_for_ever() {
        let genesis = rules().genesis_block().unwrap();
        let payload = &genesis.transactions()[0].statement().unwrap().payload;
        assert_eq!(
            payload,
            r#"{"genesis":"Genesis Block","network":"test","seal":"on_count","difficulty":2,"unsigned":false,"timestamp_ms":1795345827157}"#
        );
        let (again, read) = check_genesis(genesis.clone().into_block()).unwrap();
        assert_eq!((again, read), (genesis.clone(), rules()));
        assert_eq!(
            genesis.hash().to_string(),
            "0bdb10c92c671c281495486f2af908d02f33054eb3ebda35fae6a1470a8d69cc"
        );
    }

    #[test]
    fn refuses_rules_that_it_does_not_know() {
        for payload in [
            "",
            "{}",
            r#"["Genesis Block","n","on_count",2,false,1]"#,
            r#"{"genesis":"Genesis","network":"n","seal":"on_count","difficulty":2,"unsigned":false,"timestamp_ms":1}"#,
            r#"{"genesis":"Genesis Block","network":"n","seal":"simulated","difficulty":2,"unsigned":false,"timestamp_ms":1}"#,
            r#"{"genesis":"Genesis Block","network":"n","seal":"on_count","difficulty":17,"unsigned":false,"timestamp_ms":1}"#,
            r#"{"genesis":"Genesis Block","network":"n","seal":"on_count","difficulty":2,"unsigned":false,"timestamp_ms":1,"tax":1}"#,
            r#"{"genesis":"Genesis Block","network":"n","network":"n","seal":"on_count","difficulty":2,"unsigned":false,"timestamp_ms":1}"#,
        ] {
            assert!(matches!(Rules::from_payload(payload), Err(GenesisError::Payload { .. })), "{payload}");
        }
        let nameless = Rules { network: String::new(), ..rules() };
        assert_eq!(Rules::from_payload(&nameless.to_payload()), Err(GenesisError::Network));
    }

    #[test]
    fn each_genesis_field_must_follow_from_the_rules() {
        let good = rules().genesis_block().unwrap().into_block();
        let change = |field: &str, change: &dyn Fn(&mut Header)| {
            let mut block = good.clone();
            change(&mut block.header);
            let error = check_genesis(block).unwrap_err();
            assert!(matches!(error, GenesisError::Header { field: got } if got == field), "{field}: {error}");
        };
        change("height", &|header| header.height = 1);
        change("prev_block_hash", &|header| header.prev_block_hash = BlockHash([1; 32]));
        change("transactions_root", &|header| header.transactions_root = Root([1; 32]));
        change("history_root", &|header| header.history_root = Root::ZERO);
        change("timestamp_ms", &|header| header.timestamp_ms += 1);
        change("bits", &|header| header.bits = Difficulty::new(3).unwrap().bits());
        change("nonce", &|header| header.nonce = 1);
        let mut two = good.clone();
        two.transactions.push(good.transactions[0].clone());
        assert_eq!(check_genesis(two), Err(GenesisError::TransactionCount { got: 2 }));
        let mut numbered = good;
        numbered.transactions[0].sequence = 1;
        assert_eq!(check_genesis(numbered), Err(GenesisError::Transaction));
    }
}
