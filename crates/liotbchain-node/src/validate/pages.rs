//! Reads a stored chain in its order, several pages at once, on all cores and in bounded memory.

use std::{collections::VecDeque, future::Future, ops::Range, sync::Arc, thread};

use liotbchain_core::Height;
use liotbchain_store::{Store, StoreError, StoredBlock};
use tokio::{sync::Semaphore, task::JoinHandle};

/// Blocks that one read takes at most.
const BLOCKS_MAX: u64 = 256;

/// Bytes of transactions that one read takes at most, but for its last block: 450 readings with RSA signatures, or 650 with
/// others.
const BYTES_MAX: usize = 256 << 10;

/// What a store counts for a transaction beside its payload and signature.
const TRANSACTION_BYTES: usize = 256;

/// Pages at once, however many cores there are: each holds memory, and so does each thread.
const PAGES_MAX: usize = 8;

/// Reads at once: less than a store serves, so that a receiver that goes on meanwhile is not kept waiting.
pub(super) const READS_MAX: usize = 3;

/// The pages of a chain, each worked on as soon as it is read.
///
/// Dropped, it stops: nothing more is read, and what is under way ends with its page.
pub(super) struct Pages<W, T> {
    store: Arc<dyn Store>,
    work: Arc<W>,
    /// In the order of the chain.
    parts: VecDeque<Part<T>>,
    /// The first height that no part covers.
    next: u64,
    /// The height to stop below.
    end: u64,
    /// Blocks that a part is given.
    blocks: u64,
    at_once: usize,
    reads: Arc<Semaphore>,
}

/// Heights on their way.
struct Part<T> {
    heights: Range<u64>,
    page: Task<Result<Page<T>, PageError>>,
}

/// What came of the first blocks of a part: all of them, unless they are many bytes, or the chain ends.
struct Page<T> {
    blocks: u64,
    bytes: usize,
    value: Option<T>,
}

/// Why there is no page, or nothing came of it.
#[derive(Debug)]
pub(super) enum PageError {
    /// It could not be read.
    Blocks(StoreError),
    /// The public keys of its transactions could not be read.
    Keys(StoreError),
}

/// A row that says what cannot be.
#[derive(Debug)]
pub(super) struct BadRow {
    pub(super) height: Height,
    pub(super) field: &'static str,
    pub(super) reason: String,
}

impl<W, F, T> Pages<W, T>
where
    W: Fn(Vec<StoredBlock>) -> F + Send + Sync + 'static,
    F: Future<Output = Result<T, PageError>> + Send + 'static,
    T: Send + 'static,
{
    /// Reads from a height up, to stop below another.
    pub(super) fn new(store: &Arc<dyn Store>, heights: Range<u64>, work: W) -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Self {
            store: Arc::clone(store),
            work: Arc::new(work),
            parts: VecDeque::new(),
            next: heights.start,
            end: heights.end,
            // Few at first: nobody knows yet how large they are.
            blocks: 1,
            at_once: (cores + 1).min(PAGES_MAX),
            reads: Arc::new(Semaphore::new(READS_MAX)),
        }
    }

    /// Returns what came of the next page, or the row that ends the readable part of the chain; none at its end.
    pub(super) async fn next(&mut self) -> Result<Option<Result<T, BadRow>>, StoreError> {
        loop {
            while self.parts.len() < self.at_once && self.next < self.end {
                let heights = self.next..self.end.min(self.next + self.blocks);
                self.next = heights.end;
                let part = self.start(heights);
                self.parts.push_back(part);
            }
            let Some(Part { heights, mut page }) = self.parts.pop_front() else { return Ok(None) };
            let (height, is_single) = (heights.start as Height, heights.end - heights.start == 1);
            let page = match page.done().await? {
                Ok(page) => page,
                Err(PageError::Blocks(StoreError::Corrupt(reason))) if is_single => {
                    return Ok(Some(Err(BadRow { height, field: "row", reason })));
                }
                Err(PageError::Keys(StoreError::Corrupt(reason))) if is_single => {
                    return Ok(Some(Err(BadRow { height, field: "public_key", reason })));
                }
                // Half by half, down to the block that is the one.
                Err(PageError::Blocks(StoreError::Corrupt(_)) | PageError::Keys(StoreError::Corrupt(_))) => {
                    let half = heights.start.midpoint(heights.end);
                    self.put_first(half..heights.end);
                    self.put_first(heights.start..half);
                    continue;
                }
                Err(PageError::Blocks(error) | PageError::Keys(error)) => return Err(error),
            };
            let Some(value) = page.value else { return Ok(None) };
            let read = heights.start + page.blocks;
            if read < heights.end {
                self.put_first(read..heights.end);
                self.blocks = page.blocks;
            } else if page.bytes < BYTES_MAX / 2 && page.blocks == self.blocks {
                self.blocks = (self.blocks * 2).min(BLOCKS_MAX);
            }
            return Ok(Some(Ok(value)));
        }
    }

    fn put_first(&mut self, heights: Range<u64>) {
        let part = self.start(heights);
        self.parts.push_front(part);
    }

    fn start(&self, heights: Range<u64>) -> Part<T> {
        let (store, work, reads) = (Arc::clone(&self.store), Arc::clone(&self.work), Arc::clone(&self.reads));
        let Range { start, end } = heights;
        let page = async move {
            let nothing = Page { blocks: 0, bytes: 0, value: None };
            // No block stands higher than a header can say.
            let Ok(from) = Height::try_from(start) else { return Ok(nothing) };
            let turn = reads.acquire().await;
            let read = store.blocks(from, (end - start) as u32, BYTES_MAX).await;
            drop(turn);
            let blocks = read.map_err(PageError::Blocks)?;
            if blocks.is_empty() {
                return Ok(nothing);
            }
            let transactions = blocks.iter().flat_map(|stored| &stored.block.transactions);
            let statements = transactions.filter_map(|transaction| transaction.statement());
            let bytes = statements.map(|it| it.payload.len() + it.signature.len() + TRANSACTION_BYTES).sum();
            let read = blocks.len() as u64;
            Ok(Page { blocks: read, bytes, value: Some(work(blocks).await?) })
        };
        Part { heights, page: Task(tokio::spawn(page)) }
    }
}

/// A task that ends when nobody waits for it any more.
pub(super) struct Task<T>(pub(super) JoinHandle<T>);

impl<T> Task<T> {
    pub(super) async fn done(&mut self) -> Result<T, StoreError> {
        (&mut self.0).await.map_err(|panic| StoreError::Corrupt(format!("validation failed: {panic}")))
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
