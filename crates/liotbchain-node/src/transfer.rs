//! Moves a whole chain: out of a store as an export, and from an export into an empty store, or one that an import was
//! stopped in.

use std::{
    collections::HashSet,
    io::{BufRead, Read as _, Write},
    sync::Arc,
    time::Duration,
};

use liotbchain_core::{
    BlockHash, Branch, CheckedBlock, Height, KeyId, PublicKey,
    export::{self, ExportError, LINE_SIZE_MAX, Read, Totals},
};
use liotbchain_store::{Right, Store, StoreError, StoredBlock};

/// Blocks that one read takes at most.
const PAGE_BLOCKS: u32 = 512;
/// Bytes of transactions that it takes at most, but for its first block.
const PAGE_BYTES: usize = 4 << 20;
const RIGHT_TTL: Duration = Duration::from_secs(60);

/// Why a chain was not moved.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file could not be read or written.
    #[error(transparent)]
    File(#[from] std::io::Error),
    /// The export is not valid.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// A line is longer than any block.
    #[error("line {line} is longer than {LINE_SIZE_MAX} bytes")]
    LineSize {
        /// Counted from 1.
        line: u64,
    },
    /// The store holds a chain already, and not the beginning of this one.
    #[error("the store holds a chain already: an import needs an empty one")]
    NotEmpty,
    /// The store holds no chain.
    #[error("the store holds no chain")]
    Empty,
    /// The chain moved while it was exported.
    #[error("the chain was reorganised while it was exported: export it again")]
    Reorganised,
    /// A pruned transaction is of a key that the export does not give.
    #[error("block {height} holds a pruned transaction of key {key_id}, which the export does not give")]
    KeyMissing {
        /// The block's height.
        height: Height,
        /// The key.
        key_id: KeyId,
    },
    /// Another receiver uses the store.
    #[error("a receiver uses this store: stop it first")]
    InUse,
}

/// How far a transfer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransferProgress {
    /// Height of the last block done.
    pub height: Height,
    /// Height of the last block to do.
    pub of: Height,
}

/// What was moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transferred {
    /// The network.
    pub genesis: BlockHash,
    /// The last block.
    pub tip: BlockHash,
    /// Its height.
    pub height: Height,
    /// Transactions in all blocks.
    pub transactions: u64,
}

/// An export on its way out of a store, page by page, in memory that does not grow with the chain. Nothing is held in
/// the store between two pages.
pub struct Export {
    store: Arc<dyn Store>,
    genesis: BlockHash,
    tip: BlockHash,
    height: Height,
    /// Of the next page; one above `height` once all is written.
    next: Height,
    /// Hash of the last block written.
    below: BlockHash,
    transactions: u64,
}

impl Export {
    /// Begins an export of the best chain as it is now.
    ///
    /// # Errors
    ///
    /// [`TransferError::Store`], or [`TransferError::Empty`].
    pub async fn begin(store: &Arc<dyn Store>) -> Result<Self, TransferError> {
        let branch = store.branch().await?.ok_or(TransferError::Empty)?;
        Ok(Self {
            store: Arc::clone(store),
            genesis: branch.genesis(),
            tip: branch.tip(),
            height: branch.height(),
            next: 0,
            below: BlockHash::ZERO,
            transactions: 0,
        })
    }

    /// Returns the hash of the last block.
    pub fn tip(&self) -> BlockHash {
        self.tip
    }

    /// Returns the height of the next block to write.
    pub fn next_height(&self) -> Height {
        self.next
    }

    /// Returns the next lines, with the first and the last line at their places; none after the last one. A page ends
    /// with the block that brings it to so many bytes of payload.
    ///
    /// # Errors
    ///
    /// [`TransferError::Store`], or [`TransferError::Reorganised`]; what was written until then is no valid export.
    pub async fn page(&mut self, blocks: u32, bytes: usize) -> Result<Option<String>, TransferError> {
        if self.next > self.height {
            return Ok(None);
        }
        let left = self.height - self.next + 1;
        let page = self.store.blocks(self.next, left.min(blocks), bytes).await?;
        let keys = self.store.public_keys(&new_keys(&page)).await?;
        let mut lines = String::new();
        if self.next == 0 {
            lines.push_str(&export::chain_line(self.genesis, self.tip, self.height));
        }
        // A page comes from one snapshot, so the chain can only have moved between two.
        if page.is_empty() {
            return Err(TransferError::Reorganised);
        }
        for stored in page {
            if stored.block.header.prev_block_hash != self.below {
                return Err(TransferError::Reorganised);
            }
            for key in new_keys(std::slice::from_ref(&stored)).iter().filter_map(|key_id| keys.get(key_id)) {
                lines.push_str(&export::key_line(key));
            }
            lines.push_str(&export::block_line(&stored.block));
            self.transactions += stored.block.transactions.len() as u64;
            (self.next, self.below) = (self.next + 1, stored.hash);
        }
        if self.next > self.height {
            if self.below != self.tip {
                return Err(TransferError::Reorganised);
            }
            lines.push_str(&export::end_line(self.totals()));
        }
        Ok(Some(lines))
    }

    fn totals(&self) -> Totals {
        Totals { blocks: u64::from(self.next), transactions: self.transactions, tip: self.below }
    }
}

/// Returns the keys that sign for the first time: what they sign there has the sequence 0.
fn new_keys(page: &[StoredBlock]) -> Vec<KeyId> {
    let transactions = page.iter().flat_map(|stored| &stored.block.transactions);
    let first = transactions.filter(|it| it.sequence == 0 && it.key_id() != KeyId::ZERO);
    first.map(|transaction| transaction.key_id()).collect()
}

/// Writes the best chain as an export, in memory that does not grow with it.
///
/// # Errors
///
/// [`TransferError`]; what was written until then is no valid export.
pub async fn export(
    store: &Arc<dyn Store>,
    out: &mut (dyn Write + Send),
    mut progress: impl FnMut(TransferProgress),
) -> Result<Transferred, TransferError> {
    let mut export = Export::begin(store).await?;
    while let Some(lines) = export.page(PAGE_BLOCKS, PAGE_BYTES).await? {
        out.write_all(lines.as_bytes())?;
        progress(TransferProgress { height: export.next - 1, of: export.height });
    }
    out.flush()?;
    let Export { genesis, tip, height, transactions, .. } = export;
    Ok(Transferred { genesis, tip, height, transactions })
}

/// Checks an export, every rule of it, and writes it into an empty store. A first pass over the file checks all before
/// a second one writes, so that a bad export leaves the store empty. An import that was killed is gone on with: what a
/// store holds of the beginning of this chain is left as it is.
///
/// # Errors
///
/// [`TransferError`]; [`TransferError::Export`] names the first fault.
pub async fn import<R: BufRead>(
    store: &Arc<dyn Store>,
    holder: &str,
    mut open: impl FnMut() -> std::io::Result<R>,
    mut progress: impl FnMut(TransferProgress),
) -> Result<Transferred, TransferError> {
    let kept = store.branch().await?;
    let right = store.acquire_right(holder, RIGHT_TTL).await?.ok_or(TransferError::InUse)?;
    let imported = import_with(store, &right, kept.as_ref(), &mut open, &mut progress).await;
    let released = store.release_right(&right).await;
    let imported = imported?;
    released?;
    Ok(imported)
}

async fn import_with<R: BufRead>(
    store: &Arc<dyn Store>,
    right: &Right,
    kept: Option<&Branch>,
    open: &mut impl FnMut() -> std::io::Result<R>,
    progress: &mut impl FnMut(TransferProgress),
) -> Result<Transferred, TransferError> {
    check_beyond(open()?, kept)?;
    let mut lines = Lines { input: open()?, line: 0 };
    let mut reader = export::Reader::default();
    let tip = kept.map_or(BlockHash::ZERO, Branch::tip);
    let mut pages = Pages { store, right, blocks: Vec::new(), keys: Vec::new(), bytes: 0, tip };
    let mut of = 0;
    while let Some(line) = lines.next()? {
        match reader.push(&line)? {
            Read::Start { height } => of = height,
            Read::Key(key) => pages.keys.push(key),
            Read::Block(block) => {
                let height = block.height();
                match kept {
                    // The keys of a block are stored before it is.
                    Some(kept) if height <= kept.height() => pages.keys.clear(),
                    _ => pages.push(*block, line.len()).await?,
                }
                progress(TransferProgress { height, of });
            }
            Read::End => {}
        }
    }
    pages.flush().await?;
    let validator = reader.finish()?;
    let branch = validator.branch().ok_or(ExportError::Empty)?;
    Ok(Transferred {
        genesis: branch.genesis(),
        tip: branch.tip(),
        height: branch.height(),
        transactions: validator.transactions(),
    })
}

/// Checks an export without a store.
///
/// # Errors
///
/// [`TransferError`] names the first fault.
pub fn check(input: impl BufRead) -> Result<(), TransferError> {
    check_beyond(input, None)
}

/// Checks an export, and that it goes on where a store's chain ends.
fn check_beyond(input: impl BufRead, kept: Option<&Branch>) -> Result<(), TransferError> {
    let mut lines = Lines { input, line: 0 };
    let mut reader = export::Reader::default();
    let mut given = HashSet::from([KeyId::ZERO]);
    while let Some(line) = lines.next()? {
        let block = match reader.push(&line)? {
            Read::Block(block) => block,
            Read::Key(key) => {
                given.insert(key.key_id());
                continue;
            }
            Read::Start { .. } | Read::End => continue,
        };
        // The key of a whole one is given, or its signature would not have been found good.
        let mut pruned = block.transactions().iter().filter(|it| it.statement().is_none());
        if let Some(unknown) = pruned.find(|it| !given.contains(&it.key_id())) {
            return Err(TransferError::KeyMissing { height: block.height(), key_id: unknown.key_id() });
        }
        // A hash stands for all blocks below, so two blocks tell; the first one tells a foreign chain at once.
        let is_other = |kept: &Branch| {
            (block.height() == 0 && block.hash() != kept.genesis())
                || (block.height() == kept.height() && block.hash() != kept.tip())
        };
        if kept.is_some_and(is_other) {
            return Err(TransferError::NotEmpty);
        }
    }
    let validator = reader.finish()?;
    let height = validator.branch().map(Branch::height);
    match kept {
        // It has gone on beyond this export.
        Some(kept) if height < Some(kept.height()) => Err(TransferError::NotEmpty),
        _ => Ok(()),
    }
}

/// Blocks on their way into the store, a commit a page.
struct Pages<'a> {
    store: &'a Arc<dyn Store>,
    right: &'a Right,
    blocks: Vec<CheckedBlock>,
    keys: Vec<PublicKey>,
    bytes: usize,
    tip: BlockHash,
}

impl Pages<'_> {
    async fn push(&mut self, block: CheckedBlock, bytes: usize) -> Result<(), TransferError> {
        if block.height() == 0 {
            self.tip = block.hash();
            return Ok(self.store.create(&block).await?);
        }
        self.blocks.push(block);
        self.bytes += bytes;
        if self.blocks.len() >= PAGE_BLOCKS as usize || self.bytes >= PAGE_BYTES {
            self.flush().await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), TransferError> {
        let Some(last) = self.blocks.last() else { return Ok(()) };
        let tip = last.hash();
        self.store.renew_right(self.right, RIGHT_TTL).await?;
        self.store.add_keys(&std::mem::take(&mut self.keys)).await?;
        self.store.commit(self.right, self.tip, 0, &self.blocks).await?;
        self.tip = tip;
        self.blocks.clear();
        self.bytes = 0;
        Ok(())
    }
}

/// Lines of bounded length.
struct Lines<R> {
    input: R,
    line: u64,
}

impl<R: BufRead> Lines<R> {
    fn next(&mut self) -> Result<Option<String>, TransferError> {
        self.line += 1;
        let mut text = String::new();
        let read = self.input.by_ref().take(LINE_SIZE_MAX as u64 + 1).read_line(&mut text)?;
        if read > LINE_SIZE_MAX {
            return Err(TransferError::LineSize { line: self.line });
        }
        Ok((read > 0).then_some(text))
    }
}
