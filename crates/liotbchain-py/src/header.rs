//! Proof of work and Merkle roots, for who wants to see them without a chain.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use liotbchain::core::{
    merkle,
    mine::{ATTEMPTS_MAX, Mined, mine as search},
};
use pyo3::{exceptions::PyValueError, prelude::*, types::PyBytes};

use crate::runtime::{runtime, wait};

/// Returns the Merkle root (RFC 6962, section 2.1) over leaves: 32 bytes.
#[pyfunction]
pub fn merkle_root<'py>(py: Python<'py>, leaves: Vec<Vec<u8>>) -> Bound<'py, PyBytes> {
    let root = py.detach(|| merkle::compute_root(leaves.iter().map(|leaf| merkle::leaf_hash(leaf))));
    PyBytes::new(py, &root.0)
}

/// Searches the lowest nonce, from 0 up to attempts_max, exclusive, with which the hash of a header of 118 bytes meets the
/// target that its bits say. Returns None where there is none.
#[pyfunction]
#[pyo3(signature = (header, attempts_max = ATTEMPTS_MAX, threads = 1))]
pub fn mine(py: Python<'_>, header: &[u8], attempts_max: u64, threads: usize) -> PyResult<Option<u32>> {
    let header = liotbchain::core::codec::decode_header_bytes(header).map_err(value_error)?;
    let cancel = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&cancel);
    let threads = threads.clamp(1, 256);
    let work = runtime()?.spawn_blocking(move || search(&header, attempts_max, threads, &told));
    let mined = wait(py, work).inspect_err(|_| cancel.store(true, Ordering::Relaxed))?;
    match mined.map_err(value_error)?.map_err(value_error)? {
        Mined::Found { nonce } => Ok(Some(nonce)),
        Mined::LimitReached { .. } | Mined::Cancelled => Ok(None),
    }
}

fn value_error(error: impl std::fmt::Display) -> PyErr {
    PyValueError::new_err(error.to_string())
}
