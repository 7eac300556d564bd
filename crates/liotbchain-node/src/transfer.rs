//! Moves a whole chain: out of a store as an export, and from an export into an empty store.

use std::{
    collections::HashSet,
    io::{BufRead, Read as _, Write},
    sync::Arc,
    time::Duration,
};

use liotbchain_core::{
    BlockHash, CheckedBlock, Height, KeyId, PublicKey,
    export::{self, ExportError, LINE_SIZE_MAX, Read},
};
use liotbchain_store::{Right, Store, StoreError};

use crate::validate::PAGE_BYTES;

const PAGE_BLOCKS: u32 = 512;
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
    /// The store holds a chain already.
    #[error("the store holds a chain already: an import needs an empty one")]
    NotEmpty,
    /// The store holds no chain.
    #[error("the store holds no chain")]
    Empty,
    /// The chain moved while it was exported.
    #[error("the chain was reorganised while it was exported: export it again")]
    Reorganised,
    /// The export holds transactions without their payload, which a store cannot keep yet.
    #[error("block {height} holds a pruned transaction: such an export can be checked, but not imported")]
    Pruned {
        /// The block's height.
        height: Height,
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
    let branch = store.branch().await?.ok_or(TransferError::Empty)?;
    let (genesis, tip, height) = (branch.genesis(), branch.tip(), branch.height());
    out.write_all(export::chain_line(genesis, tip, height).as_bytes())?;
    let mut written: HashSet<KeyId> = HashSet::from([KeyId::ZERO]);
    let mut transactions = 0;
    let mut next = 0;
    let mut last = BlockHash::ZERO;
    while next <= height {
        let page = store.blocks(next, PAGE_BLOCKS.min((height - next).saturating_add(1)), PAGE_BYTES).await?;
        if page.is_empty() {
            return Err(TransferError::Reorganised);
        }
        let used = page.iter().flat_map(|stored| stored.block.transactions.iter().map(|it| it.key_id()));
        let new: HashSet<_> = used.filter(|key_id| !written.contains(key_id)).collect();
        let keys = store.public_keys(&new.into_iter().collect::<Vec<_>>()).await?;
        for stored in page {
            if stored.block.header.prev_block_hash != last {
                return Err(TransferError::Reorganised);
            }
            last = stored.hash;
            for transaction in &stored.block.transactions {
                let key_id = transaction.key_id();
                if let Some(key) = keys.get(&key_id)
                    && written.insert(key_id)
                {
                    out.write_all(export::key_line(key).as_bytes())?;
                }
            }
            transactions += stored.block.transactions.len() as u64;
            out.write_all(export::block_line(&stored.block).as_bytes())?;
            progress(TransferProgress { height: next, of: height });
            if next == height {
                break;
            }
            next += 1;
        }
        if last == tip {
            break;
        }
    }
    if last != tip {
        return Err(TransferError::Reorganised);
    }
    out.flush()?;
    Ok(Transferred { genesis, tip, height, transactions })
}

/// Checks an export, every rule of it, and writes it into an empty store. A first pass over the file checks all before
/// a second one writes, so that a bad export leaves the store empty.
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
    if store.branch().await?.is_some() {
        return Err(TransferError::NotEmpty);
    }
    let right = store.acquire_right(holder, RIGHT_TTL).await?.ok_or(TransferError::InUse)?;
    let imported = import_with(store, &right, &mut open, &mut progress).await;
    let released = store.release_right(&right).await;
    let imported = imported?;
    released?;
    Ok(imported)
}

async fn import_with<R: BufRead>(
    store: &Arc<dyn Store>,
    right: &Right,
    open: &mut impl FnMut() -> std::io::Result<R>,
    progress: &mut impl FnMut(TransferProgress),
) -> Result<Transferred, TransferError> {
    check(open()?)?;
    let mut lines = Lines { input: open()?, line: 0 };
    let mut reader = export::Reader::default();
    let mut pages =
        Pages { store, right, blocks: Vec::new(), keys: Vec::new(), bytes: 0, tip: BlockHash::ZERO };
    let mut of = 0;
    while let Some(line) = lines.next()? {
        match reader.push(&line)? {
            Read::Start { height } => of = height,
            Read::Key(key) => pages.keys.push(key),
            Read::Block(block) => {
                let height = block.height();
                pages.push(*block, line.len()).await?;
                progress(TransferProgress { height, of });
            }
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
    let mut lines = Lines { input, line: 0 };
    let mut reader = export::Reader::default();
    while let Some(line) = lines.next()? {
        if let Read::Block(block) = reader.push(&line)?
            && block.transactions().iter().any(|it| it.statement().is_none())
        {
            return Err(TransferError::Pruned { height: block.height() });
        }
    }
    reader.finish()?;
    Ok(())
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
