//! Blocks, and how one reads a long chain of them.

use std::{collections::VecDeque, sync::Mutex};

use liotbchain::{Blockchain, Difficulty, Height, store::StoredBlock};
use pyo3::{
    exceptions::PyIndexError,
    prelude::*,
    types::{PyBytes, PyList},
};

use crate::{chain::Chain, error::raise, runtime::wait, transaction::Transaction};

/// A block of a chain. It does not change.
#[pyclass(frozen, module = "liotbchain")]
pub struct SealedBlock(StoredBlock);

impl SealedBlock {
    pub(crate) fn new(stored: StoredBlock) -> Self {
        Self(stored)
    }

    fn transaction(&self, place: usize) -> Transaction {
        Transaction::new(self.0.block.transactions[place].clone(), self.0.ids[place])
    }
}

#[pymethods]
impl SealedBlock {
    /// Its place on the chain; 0 is the genesis block.
    #[getter]
    fn height(&self) -> Height {
        self.0.block.header.height
    }

    /// SHA-256 of the header, in hexadecimal.
    #[getter]
    fn hash(&self) -> String {
        self.0.hash.to_string()
    }

    /// Hash of the block below, in hexadecimal.
    #[getter]
    fn prev_block_hash(&self) -> String {
        self.0.block.header.prev_block_hash.to_string()
    }

    /// Merkle root over the transactions, in hexadecimal.
    #[getter]
    fn transactions_root(&self) -> String {
        self.0.block.header.transactions_root.to_string()
    }

    /// Merkle root over the hashes of all blocks below, in hexadecimal.
    #[getter]
    fn history_root(&self) -> String {
        self.0.block.header.history_root.to_string()
    }

    /// When it was made, in milliseconds since 1970.
    #[getter]
    fn timestamp_ms(&self) -> u64 {
        self.0.block.header.timestamp_ms
    }

    /// The compact target: 4 bytes, as a number.
    #[getter]
    fn bits(&self) -> u32 {
        self.0.block.header.bits.0
    }

    /// Leading zero hexadecimal digits that the hash must have; None for a target that no difficulty gives.
    #[getter]
    fn difficulty(&self) -> Option<u8> {
        Some(Difficulty::from_bits(self.0.block.header.bits)?.digits())
    }

    /// What mining found.
    #[getter]
    fn nonce(&self) -> u32 {
        self.0.block.header.nonce
    }

    /// The 118 bytes that are hashed.
    #[getter]
    fn header<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.block.header.encode())
    }

    /// All transactions, in block order.
    #[getter]
    fn transactions<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let all: Vec<_> = (0..self.0.block.transactions.len()).map(|place| self.transaction(place)).collect();
        PyList::new(py, all)
    }

    fn __len__(&self) -> usize {
        self.0.block.transactions.len()
    }

    fn __getitem__(&self, place: isize) -> PyResult<Transaction> {
        let length = self.0.block.transactions.len();
        let place = if place < 0 { place + length as isize } else { place };
        match usize::try_from(place) {
            Ok(place) if place < length => Ok(self.transaction(place)),
            _ => Err(PyIndexError::new_err(format!("the block has {length} transactions"))),
        }
    }

    fn __repr__(&self) -> String {
        format!("<SealedBlock {} {}, {} transactions>", self.height(), self.0.hash, self.__len__())
    }
}

/// Blocks that one read takes at most.
const PAGE_BLOCKS: u32 = 256;
/// Bytes after which a read takes no more: what a reader who stands still costs.
const PAGE_BYTES: usize = 1 << 20;

/// Reads a chain upwards, a page at a time, so that memory does not grow with it.
#[pyclass(frozen, module = "liotbchain")]
pub struct BlockIterator {
    /// Stays open as long as this is read.
    _open: Py<Chain>,
    chain: Blockchain,
    place: Mutex<Place>,
}

struct Place {
    next: Height,
    /// Exclusive.
    stop: u64,
    page: VecDeque<StoredBlock>,
}

impl BlockIterator {
    pub(crate) fn new(open: Py<Chain>, chain: Blockchain, start: Height, stop: u64) -> Self {
        Self { _open: open, chain, place: Mutex::new(Place { next: start, stop, page: VecDeque::new() }) }
    }
}

#[pymethods]
impl BlockIterator {
    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<SealedBlock>> {
        let (from, limit) = {
            let mut place = self.lock();
            if let Some(block) = place.page.pop_front() {
                return Ok(Some(SealedBlock(block)));
            }
            let left = place.stop.saturating_sub(u64::from(place.next));
            if left == 0 {
                return Ok(None);
            }
            (place.next, u32::try_from(left).unwrap_or(PAGE_BLOCKS).min(PAGE_BLOCKS))
        };
        // Not locked while Python's lock is given back: two threads that share an iterator may read a page twice, and
        // one of them then throws it away.
        let store = self.chain.ledger().store();
        let page = wait(py, store.blocks(from, limit, PAGE_BYTES))?
            .map_err(|error| raise(liotbchain::Error::from(error)))?;
        let mut place = self.lock();
        if place.next == from {
            match page.last() {
                Some(last) => place.next = last.block.header.height + 1,
                // The chain is shorter than it was.
                None => place.stop = 0,
            }
            place.page = page.into();
        }
        drop(place);
        self.__next__(py)
    }
}

impl BlockIterator {
    fn lock(&self) -> std::sync::MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
