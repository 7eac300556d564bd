//! Makes proof files of what a store keeps: receipts, histories of a key, consistency. Each is checked before it is handed
//! out, as whoever gets it checks it: a reorganisation in between is noticed and the proof made anew.

use std::collections::HashMap;

use liotbchain_core::{
    BlockHash, Checkpoint, Header, Height, KeyId, PublicKey, Root, Transaction, TransactionId,
    note::Note,
    proof::{self, ProofError},
    receipt::{Anchor, BlockProof, Consistency, KeyHistory, Path, ProvenBlock, Receipt, ReceiptError},
};
use liotbchain_store::{Store, StoreError, StoredBlock};

use crate::checkpoints::CheckpointSigner;

/// How often a proof is made anew where the chain moved meanwhile.
const ATTEMPTS_MAX: u32 = 5;
/// Transactions of a key's history that are shown at most, but for those of a single block.
pub const HISTORY_MAX: u32 = 1_000;
/// Bytes of blocks that are read at most for a key's history, but for a single block.
const HISTORY_BYTES_MAX: usize = 16 << 20;

/// Why there is no proof.
#[derive(Debug, thiserror::Error)]
pub enum ProveError {
    /// Nobody knows the transaction.
    #[error("no transaction of this id is known")]
    UnknownTransaction,
    /// It waits still.
    #[error("the transaction is pending: it can be proven once it stands in a block")]
    Pending,
    /// There is no such block.
    #[error("block {height} is not on the chain: its last one is {tip}")]
    UnknownHeight {
        /// The height asked for.
        height: u64,
        /// The tip's height.
        tip: Height,
    },
    /// The later tree is the smaller one.
    #[error("a history of {to} blocks does not go on from one of {from}")]
    Order {
        /// Size of the earlier tree.
        from: u64,
        /// Size of the later one.
        to: u64,
    },
    /// What is stored proves nothing: it was damaged.
    #[error("what is stored gives no proof: {0}")]
    Damaged(ReceiptError),
    /// The store failed, or holds something that contradicts itself.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What proofs end in.
#[derive(Clone, Default)]
pub struct Vouchers {
    /// The newest checkpoint that enough witnesses cosigned.
    pub cosigned: Option<Note>,
    /// Signs a checkpoint where no cosigned one covers what is proven.
    pub signer: Option<CheckpointSigner>,
}

/// Makes proofs of the chain of a store.
pub struct Prover<'a> {
    store: &'a dyn Store,
    genesis: BlockHash,
    vouchers: Vouchers,
}

/// The chain's end as of now.
#[derive(Clone, Copy)]
struct End {
    tip: Height,
}

impl<'a> Prover<'a> {
    /// Makes proofs for the chain with this genesis block, which end in what vouches for it.
    pub fn new(store: &'a dyn Store, genesis: BlockHash, vouchers: Vouchers) -> Self {
        Self { store, genesis, vouchers }
    }

    /// Proves that a transaction stands on the chain.
    ///
    /// # Errors
    ///
    /// [`ProveError`].
    pub async fn receipt(&self, id: TransactionId) -> Result<Receipt, ProveError> {
        let mut attempt = 1;
        loop {
            let receipt = self.try_receipt(id).await?;
            match receipt.verify() {
                Ok(_) => return Ok(receipt),
                Err(error) if attempt == ATTEMPTS_MAX => return Err(ProveError::Damaged(error)),
                Err(_) => attempt += 1,
            }
        }
    }

    async fn try_receipt(&self, id: TransactionId) -> Result<Receipt, ProveError> {
        let stored = self.store.transaction(id).await?.ok_or(ProveError::UnknownTransaction)?;
        let place = stored.place.ok_or(ProveError::Pending)?;
        let end = self.end().await?;
        let block = self.block(place.height, end).await?;
        let anchor = self.anchor(place.height, end).await?;
        let public_key = self.public_key(stored.content.key_id()).await?;
        let history_path = self.block_paths(&anchor, &[place.height]).await?.pop().flatten();
        let block = ProvenBlock::of(&block.block, [place.position], history_path);
        Ok(Receipt { genesis: self.genesis, public_key, block, anchor })
    }

    /// Proves that the block at a height stands in the history of the first `size` blocks, or in as much as there is.
    ///
    /// # Errors
    ///
    /// [`ProveError`].
    pub async fn block_proof(&self, height: Height, size: Option<u64>) -> Result<BlockProof, ProveError> {
        let mut attempt = 1;
        loop {
            let proof = self.try_block_proof(height, size).await?;
            match proof.verify() {
                Ok(_) => return Ok(proof),
                Err(error) if attempt == ATTEMPTS_MAX => return Err(ProveError::Damaged(error)),
                Err(_) => attempt += 1,
            }
        }
    }

    async fn try_block_proof(&self, height: Height, size: Option<u64>) -> Result<BlockProof, ProveError> {
        let end = self.end().await?;
        let anchor = match size {
            Some(size) if size <= height.into() => {
                return Err(ProveError::Order { from: u64::from(height) + 1, to: size });
            }
            Some(size) => {
                self.check_size(size, end)?;
                self.anchor_of(size, end).await?
            }
            None => self.anchor(height.min(end.tip), end).await?,
        };
        let block = self.block(height, end).await?;
        let history_path = self.block_paths(&anchor, &[height]).await?.pop().flatten();
        let block = ProvenBlock::of(&block.block, [], history_path);
        Ok(BlockProof { genesis: self.genesis, block, anchor })
    }

    /// Proves which transactions of a key stand from one height to another, as far as `limit` allows: `to` then is the
    /// height of the last block that is shown.
    ///
    /// # Errors
    ///
    /// [`ProveError`].
    pub async fn key_history(
        &self,
        key_id: KeyId,
        from: Height,
        to: Height,
        limit: u32,
    ) -> Result<KeyHistory, ProveError> {
        let mut attempt = 1;
        loop {
            let history = self.try_key_history(key_id, from, to, limit).await?;
            match history.verify() {
                Ok(_) => return Ok(history),
                Err(error) if attempt == ATTEMPTS_MAX => return Err(ProveError::Damaged(error)),
                Err(_) => attempt += 1,
            }
        }
    }

    async fn try_key_history(
        &self,
        key_id: KeyId,
        from: Height,
        to: Height,
        limit: u32,
    ) -> Result<KeyHistory, ProveError> {
        let end = self.end().await?;
        if from > to || from > end.tip {
            return Err(ProveError::UnknownHeight { height: from.into(), tip: end.tip });
        }
        let mut to = to.min(end.tip);
        let is_of_key = |transaction: &&Transaction| transaction.key_id() == key_id;
        let mut shown: Vec<(StoredBlock, Vec<u32>)> = Vec::new();
        // The index only says where to look: a row too many in it changes no proof.
        let mut below = from;
        while let Some(height) = self.store.key_height_below(key_id, below).await? {
            let (block, positions) = self.of_key(height, end, key_id).await?;
            if let Some(last) = positions.last() {
                shown.push((block, vec![*last]));
                break;
            }
            below = height;
        }
        // Each block holds at least one transaction of the key, and one more tells what comes behind.
        let heights = self.store.key_heights(key_id, from, limit.saturating_add(1)).await?;
        let (mut count, mut bytes) = (0, 0);
        for height in heights {
            let (block, positions) = self.of_key(height, end, key_id).await?;
            if positions.is_empty() {
                continue;
            }
            if height <= to && (count >= limit as usize || bytes >= HISTORY_BYTES_MAX) {
                // What comes from here on is on the next page; its first one proves that this page has all before it.
                to = shown.last().map_or(to, |(block, _)| block.block.header.height);
            }
            if height > to {
                shown.push((block, positions[..1].to_vec()));
                break;
            }
            count += positions.len();
            let statements =
                block.block.transactions.iter().filter(is_of_key).filter_map(Transaction::statement);
            bytes += statements.map(|it| it.payload.len() + it.signature.len()).sum::<usize>();
            shown.push((block, positions));
        }
        let heights: Vec<_> = shown.iter().map(|(block, _)| block.block.header.height).collect();
        let anchor = self.anchor(heights.iter().copied().max().unwrap_or(0), end).await?;
        let paths = self.block_paths(&anchor, &heights).await?;
        let blocks = shown
            .iter()
            .zip(paths)
            .map(|((block, positions), path)| ProvenBlock::of(&block.block, positions.iter().copied(), path));
        let (blocks, public_key) = (blocks.collect(), self.public_key(key_id).await?);
        Ok(KeyHistory { genesis: self.genesis, key_id, public_key, from, to, blocks, anchor })
    }

    /// Proves that the history of the first `to` blocks begins with that of the first `from` ones.
    ///
    /// # Errors
    ///
    /// [`ProveError`].
    pub async fn consistency(&self, from: u64, to: u64) -> Result<Consistency, ProveError> {
        let mut attempt = 1;
        loop {
            let consistency = self.try_consistency(from, to).await?;
            match consistency.verify() {
                Ok(_) => return Ok(consistency),
                Err(error) if attempt == ATTEMPTS_MAX => return Err(ProveError::Damaged(error)),
                Err(_) => attempt += 1,
            }
        }
    }

    async fn try_consistency(&self, from: u64, to: u64) -> Result<Consistency, ProveError> {
        let end = self.end().await?;
        if from > to {
            return Err(ProveError::Order { from, to });
        }
        for size in [from, to] {
            self.check_size(size, end)?;
        }
        let path = if from == 0 { Path::new() } else { self.consistency_path(from, to).await? };
        let (earlier, later) = (self.anchor_of(from, end).await?, self.anchor_of(to, end).await?);
        let header_path = match &earlier.header {
            Some(_) if from < to => self.paths(to, &[from]).await?.pop(),
            _ => None,
        };
        Ok(Consistency { genesis: self.genesis, from: earlier, to: later, path, header_path })
    }

    /// Returns the proof of RFC 9162 that a tree of `to` blocks begins with one of `from`, which must not be empty.
    ///
    /// # Errors
    ///
    /// [`ProveError`].
    pub async fn consistency_path(&self, from: u64, to: u64) -> Result<Path, ProveError> {
        let prove = |node: &mut dyn FnMut(u8, u64) -> Result<[u8; 32], StoreError>| {
            proof::prove_consistency(from, to, node)
        };
        let order = |_| ProveError::Order { from, to };
        let mut places = Vec::new();
        let _ = prove(&mut |level, index| {
            places.push((level, index));
            Ok([0; 32])
        })
        .map_err(order)?;
        let nodes = self.nodes(&places).await?;
        Ok(prove(&mut |level, index| find(&nodes, level, index)).map_err(order)??)
    }

    /// Returns the checkpoint of all blocks there are, signed; none where nobody signs.
    ///
    /// # Errors
    ///
    /// [`ProveError::Store`].
    pub async fn checkpoint(&self) -> Result<Option<Note>, ProveError> {
        let Some(signer) = &self.vouchers.signer else { return Ok(None) };
        let branch = self.store.branch().await?;
        let branch = branch.ok_or_else(|| StoreError::Corrupt("the chain is missing".to_owned()))?;
        let checkpoint = Checkpoint::new(self.genesis, branch.history().size(), branch.history_root());
        Ok(Some(signer.sign(self.genesis, checkpoint)))
    }

    /// Returns the root of the history tree over the first `size` blocks.
    ///
    /// # Errors
    ///
    /// [`ProveError::Store`] where there are not so many.
    pub async fn root(&self, size: u64) -> Result<Root, ProveError> {
        let places: Vec<_> = liotbchain_core::merkle::Frontier::places(size).collect();
        let nodes = self.nodes(&places).await?;
        let frontier =
            liotbchain_core::merkle::Frontier::load(size, |level, index| find(&nodes, level, index))?;
        Ok(frontier.root())
    }

    /// Checks that there is something to end in: the header above so many blocks, or a signature where that is to come.
    fn check_size(&self, size: u64, end: End) -> Result<(), ProveError> {
        let largest = u64::from(end.tip) + u64::from(self.vouchers.signer.is_some());
        if size > largest { Err(ProveError::UnknownHeight { height: size, tip: end.tip }) } else { Ok(()) }
    }

    async fn end(&self) -> Result<End, ProveError> {
        let branch = self.store.branch().await?;
        let branch = branch.ok_or_else(|| StoreError::Corrupt("the chain is missing".to_owned()))?;
        Ok(End { tip: branch.height() })
    }

    async fn public_key(&self, key_id: KeyId) -> Result<Option<PublicKey>, ProveError> {
        if key_id == KeyId::ZERO {
            return Ok(None);
        }
        Ok(self.store.public_keys(&[key_id]).await?.remove(&key_id))
    }

    async fn block(&self, height: Height, end: End) -> Result<StoredBlock, ProveError> {
        let block = self.store.blocks(height, 1, 0).await?.pop();
        let block = block.filter(|block| block.block.header.height == height);
        block.ok_or(ProveError::UnknownHeight { height: height.into(), tip: end.tip })
    }

    async fn of_key(
        &self,
        height: Height,
        end: End,
        key_id: KeyId,
    ) -> Result<(StoredBlock, Vec<u32>), ProveError> {
        let block = self.block(height, end).await?;
        let positions = (0u32..).zip(&block.block.transactions).filter(|(_, it)| it.key_id() == key_id);
        let positions = positions.map(|(position, _)| position).collect();
        Ok((block, positions))
    }

    /// Chooses what a proof of a block ends in: the cosigned checkpoint if it covers the block; else the tip's header, which
    /// covers all below it, with a checkpoint of the same tree; for the tip itself a checkpoint alone, or its own header.
    async fn anchor(&self, height: Height, end: End) -> Result<Anchor, ProveError> {
        if let Some(note) = &self.vouchers.cosigned
            && let Ok(checkpoint) = Checkpoint::of(note)
            && checkpoint.size > height.into()
            && checkpoint.size <= u64::from(end.tip) + 1
        {
            let mut anchor = self.bare_anchor(checkpoint.size, end).await?;
            let root = match &anchor.header {
                Some(header) => header.history_root,
                None => self.root(checkpoint.size).await?,
            };
            // After a reorganisation it is another history's.
            if root == checkpoint.root {
                anchor.checkpoint = Some(note.clone());
                return Ok(anchor);
            }
        }
        let signs = self.vouchers.signer.is_some();
        let size = u64::from(if height == end.tip && signs { end.tip.saturating_add(1) } else { end.tip });
        self.anchor_of(size, end).await
    }

    /// Makes the anchor of a tree, with its header if there is one, and a checkpoint if somebody signs.
    async fn anchor_of(&self, size: u64, end: End) -> Result<Anchor, ProveError> {
        let mut anchor = self.bare_anchor(size, end).await?;
        let cosigned = self.vouchers.cosigned.as_ref();
        let of_size = |note: &&Note| Checkpoint::of(note).is_ok_and(|checkpoint| checkpoint.size == size);
        anchor.checkpoint = match (cosigned.filter(of_size), &self.vouchers.signer) {
            (Some(note), _) => Some(note.clone()),
            // Nobody signs that there is nothing.
            (None, Some(signer)) if size > 0 => {
                let root = match &anchor.header {
                    Some(header) => header.history_root,
                    None => self.root(size).await?,
                };
                Some(signer.sign(self.genesis, Checkpoint::new(self.genesis, size, root)))
            }
            _ => None,
        };
        Ok(anchor)
    }

    async fn bare_anchor(&self, size: u64, end: End) -> Result<Anchor, ProveError> {
        let header: Option<Header> = match Height::try_from(size) {
            Ok(height) if height <= end.tip => self.store.headers(height, 1).await?.pop(),
            _ => None,
        };
        let genesis_path = match size {
            0 => Path::new(),
            _ => self.paths(size, &[0]).await?.pop().unwrap_or_default(),
        };
        Ok(Anchor { size, genesis_path, header, checkpoint: None })
    }

    /// Returns the path of each block to an anchor's root; none of the block whose header is the anchor.
    async fn block_paths(
        &self,
        anchor: &Anchor,
        heights: &[Height],
    ) -> Result<Vec<Option<Path>>, ProveError> {
        let inside: Vec<_> =
            heights.iter().map(|height| u64::from(*height)).filter(|it| *it < anchor.size).collect();
        let mut paths = self.paths(anchor.size, &inside).await?.into_iter();
        Ok(heights
            .iter()
            .map(|height| if u64::from(*height) < anchor.size { paths.next() } else { None })
            .collect())
    }

    /// Returns the path of each leaf of a tree to its root.
    async fn paths(&self, size: u64, indexes: &[u64]) -> Result<Vec<Path>, ProveError> {
        let outside = |error| match error {
            ProofError::OutOfTree { index, size } => {
                StoreError::Corrupt(format!("block {index} of {size} is asked for"))
            }
            error => StoreError::Corrupt(error.to_string()),
        };
        let mut places = Vec::new();
        for index in indexes {
            let collect = |level, index| {
                places.push((level, index));
                Ok::<_, StoreError>([0; 32])
            };
            let _ = proof::prove_inclusion(*index, size, collect).map_err(outside)?;
        }
        places.sort_unstable();
        places.dedup();
        let nodes = self.nodes(&places).await?;
        let path = |index: &u64| {
            Ok(proof::prove_inclusion(*index, size, |level, index| find(&nodes, level, index))
                .map_err(outside)??)
        };
        indexes.iter().map(path).collect()
    }

    async fn nodes(&self, places: &[(u8, u64)]) -> Result<HashMap<(u8, u64), [u8; 32]>, ProveError> {
        let nodes = self.store.history_nodes(places).await?;
        let found = places.iter().zip(nodes).filter_map(|(place, node)| Some((*place, node?)));
        Ok(found.collect())
    }
}

fn find(nodes: &HashMap<(u8, u64), [u8; 32]>, level: u8, index: u64) -> Result<[u8; 32], StoreError> {
    nodes.get(&(level, index)).copied().ok_or_else(|| {
        StoreError::Corrupt(format!("node {index} of level {level} of the history tree is missing"))
    })
}
