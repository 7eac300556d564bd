//! One attempt after the other, with what every machine has. The other kernels must find what this one finds.

use sha2::block_api::compress256;

use super::{NONCE_OFFSET, Search};

/// Returns the lowest nonce from `start` up to `end`, exclusive, whose hash is at most the target.
pub(super) fn scan(search: &Search, start: u64, end: u64) -> Option<u32> {
    let mut second = search.second;
    (start..end).map(|nonce| nonce as u32).find(|nonce| {
        second[NONCE_OFFSET..NONCE_OFFSET + 4].copy_from_slice(&nonce.to_be_bytes());
        let mut state = search.state;
        compress256(&mut state, std::slice::from_ref(&second));
        // Words are compared as the big-endian number that they are, the first first.
        state <= search.target
    })
}
