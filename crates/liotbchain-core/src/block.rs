//! Headers and blocks: what was decoded, and what was checked.

use crate::{
    Height, TimestampMs,
    hash::{BlockHash, Root, TransactionId, sha256},
    merkle,
    pow::{Bits, Work},
    transaction::Transaction,
};

/// What is hashed for proof of work: 118 bytes that commit to a block and to all below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Hash of the block below; zero in the genesis block.
    pub prev_block_hash: BlockHash,
    /// Merkle root over this block's transactions.
    pub transactions_root: Root,
    /// Merkle root over the hashes of all blocks below.
    pub history_root: Root,
    /// 0 in the genesis block.
    pub height: Height,
    /// When the block was made, by its maker's clock.
    pub timestamp_ms: TimestampMs,
    /// Compact target.
    pub bits: Bits,
    /// What mining searched.
    pub nonce: u32,
}

impl Header {
    /// The version of the format that every header starts with.
    pub const VERSION: u16 = 1;
    /// Bytes of a header. With SHA-256's padding they fill two compression blocks exactly.
    pub const SIZE: usize = 118;
    /// Where the nonce stands.
    pub const NONCE_OFFSET: usize = 114;

    /// Returns the 118 bytes.
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[0..2].copy_from_slice(&Self::VERSION.to_be_bytes());
        bytes[2..34].copy_from_slice(&self.prev_block_hash.0);
        bytes[34..66].copy_from_slice(&self.transactions_root.0);
        bytes[66..98].copy_from_slice(&self.history_root.0);
        bytes[98..102].copy_from_slice(&self.height.to_be_bytes());
        bytes[102..110].copy_from_slice(&self.timestamp_ms.to_be_bytes());
        bytes[110..114].copy_from_slice(&self.bits.0.to_be_bytes());
        bytes[114..118].copy_from_slice(&self.nonce.to_be_bytes());
        bytes
    }

    /// Takes the fields apart; the version is [`crate::codec`]'s to check.
    pub(crate) fn decode(bytes: &[u8; Self::SIZE]) -> Self {
        fn field<const N: usize>(bytes: &[u8; Header::SIZE], offset: usize) -> [u8; N] {
            std::array::from_fn(|place| bytes[offset + place])
        }
        Self {
            prev_block_hash: BlockHash(field(bytes, 2)),
            transactions_root: Root(field(bytes, 34)),
            history_root: Root(field(bytes, 66)),
            height: u32::from_be_bytes(field(bytes, 98)),
            timestamp_ms: u64::from_be_bytes(field(bytes, 102)),
            bits: Bits(u32::from_be_bytes(field(bytes, 110))),
            nonce: u32::from_be_bytes(field(bytes, Self::NONCE_OFFSET)),
        }
    }

    /// Computes the block's hash.
    pub fn compute_hash(&self) -> BlockHash {
        BlockHash(sha256(&[&self.encode()]))
    }
}

/// A block as it was decoded: nothing of it is checked but its structure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Its header.
    pub header: Header,
    /// Its transactions, in block order.
    pub transactions: Vec<Transaction>,
}

impl Block {
    /// Computes the Merkle root over the transactions.
    pub fn compute_transactions_root(&self) -> Root {
        merkle::compute_root(self.transactions.iter().map(Transaction::leaf_hash))
    }
}

/// A block that keeps every rule on its branch. It can only be made by [`crate::check`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedBlock {
    pub(crate) block: Block,
    pub(crate) hash: BlockHash,
    pub(crate) work: Work,
    pub(crate) ids: Vec<Option<TransactionId>>,
}

impl CheckedBlock {
    /// Returns the block's hash.
    pub fn hash(&self) -> BlockHash {
        self.hash
    }

    /// Returns the header.
    pub fn header(&self) -> &Header {
        &self.block.header
    }

    /// Returns the height.
    pub fn height(&self) -> Height {
        self.block.header.height
    }

    /// Returns the transactions.
    pub fn transactions(&self) -> &[Transaction] {
        &self.block.transactions
    }

    /// Returns the id of each transaction, none where it was pruned.
    pub fn ids(&self) -> &[Option<TransactionId>] {
        &self.ids
    }

    /// Returns the work of this block alone.
    pub fn work(&self) -> Work {
        self.work
    }

    /// Returns the block, which from here on counts as unchecked.
    pub fn into_block(self) -> Block {
        self.block
    }

    /// Returns the block for reading.
    pub fn as_block(&self) -> &Block {
        &self.block
    }
}
