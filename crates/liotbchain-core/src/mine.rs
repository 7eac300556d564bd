//! The nonce search, and nothing else.
//!
//! A header and SHA-256's padding fill two compression blocks. The first holds no nonce, so its state is computed once
//! a draft, and an attempt costs one compression. How attempts are made is a [`Kernel`]'s: each finds the same nonces.

#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;
#[cfg(target_arch = "x86_64")]
mod sha_ni;
#[cfg(target_arch = "x86_64")]
mod window;

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use sha2::block_api::compress256;

use crate::{
    TimestampMs,
    block::{Block, Header},
    chain::Branch,
    hash::KeyId,
    merkle,
    pow::{Difficulty, Target, TargetError},
    transaction::{Content, Transaction, VerifiedStatement},
};

/// All nonces that a header has room for.
pub const ATTEMPTS_MAX: u64 = 1 << 32;

/// Attempts that a thread makes before it looks whether it should stop: less than a millisecond.
const CHUNK: u64 = 1 << 14;

/// A block without its nonce, of statements that were verified.
#[derive(Debug, Clone)]
pub struct Draft {
    header: Header,
    statements: Vec<VerifiedStatement>,
    sequences: Vec<u64>,
}

impl Draft {
    /// Drafts the block that follows on a branch. `next_sequence` tells how many transactions of a key it holds.
    ///
    /// Its timestamp is `now_ms`, or the median of the last blocks where that clock is behind.
    pub fn new(
        parent: &Branch,
        statements: Vec<VerifiedStatement>,
        mut next_sequence: impl FnMut(&KeyId) -> u64,
        difficulty: Difficulty,
        now_ms: TimestampMs,
    ) -> Self {
        let mut next: HashMap<KeyId, u64> = HashMap::new();
        let sequences = statements.iter().map(|statement| {
            let key_id = statement.statement().key_id;
            let next = next.entry(key_id).or_insert_with(|| next_sequence(&key_id));
            *next += 1;
            *next - 1
        });
        let mut draft = Self {
            sequences: sequences.collect(),
            statements,
            header: Header {
                prev_block_hash: parent.tip(),
                transactions_root: merkle::compute_root([]),
                history_root: parent.history_root(),
                height: parent.next_height(),
                timestamp_ms: now_ms.max(parent.median_timestamp_ms()),
                bits: difficulty.bits(),
                nonce: 0,
            },
        };
        draft.header.transactions_root = merkle::compute_root(draft.transactions().map(|it| it.leaf_hash()));
        draft
    }

    /// Returns the header, whose nonce is not found yet.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Returns the statements, in block order.
    pub fn statements(&self) -> &[VerifiedStatement] {
        &self.statements
    }

    /// Returns the block with this nonce.
    pub fn block(&self, nonce: u32) -> Block {
        Block { header: Header { nonce, ..self.header.clone() }, transactions: self.transactions().collect() }
    }

    fn transactions(&self) -> impl Iterator<Item = Transaction> {
        self.statements.iter().zip(&self.sequences).map(|(statement, sequence)| Transaction {
            sequence: *sequence,
            content: Content::Full(Arc::clone(statement.statement())),
        })
    }
}

/// A way to make attempts that this machine has. They differ in speed alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kernel(Method);

/// What an enum outside would not ensure: that a method exists only where the processor has its instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Portable,
    #[cfg(target_arch = "x86_64")]
    ShaNi(sha_ni::ShaNi),
    #[cfg(target_arch = "x86_64")]
    Avx512(avx512::Avx512),
}

impl Kernel {
    /// The one that every machine has.
    pub const PORTABLE: Self = Self(Method::Portable);

    /// Returns all by name, the slowest first; none in place of one whose instructions this machine lacks.
    pub fn all() -> [(&'static str, Option<Self>); 3] {
        // The standard library asks the processor once and remembers.
        #[cfg(target_arch = "x86_64")]
        let [sha_ni, avx512] = [
            sha_ni::ShaNi::detect().map(|it| Self(Method::ShaNi(it))),
            avx512::Avx512::detect().map(|it| Self(Method::Avx512(it))),
        ];
        #[cfg(not(target_arch = "x86_64"))]
        let [sha_ni, avx512] = [None, None];
        [("portable", Some(Self::PORTABLE)), ("SHA-NI", sha_ni), ("AVX-512", avx512)]
    }

    /// Returns the fastest that this machine has.
    pub fn best() -> Self {
        Self::all().into_iter().rev().find_map(|(_, kernel)| kernel).unwrap_or(Self::PORTABLE)
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            Method::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Method::ShaNi(_) => "SHA-NI",
            #[cfg(target_arch = "x86_64")]
            Method::Avx512(_) => "AVX-512",
        };
        name.fmt(f)
    }
}

/// How a search ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mined {
    /// The lowest nonce that meets the target.
    Found {
        /// The nonce.
        nonce: u32,
    },
    /// No nonce below the limit meets the target.
    LimitReached {
        /// How many were tried.
        attempts: u64,
    },
    /// The search was told to stop.
    Cancelled,
}

/// Searches the nonces from 0 up to `attempts_max`, exclusive, for the lowest that meets the header's target, with the
/// fastest kernel.
///
/// # Errors
///
/// As [`mine_with`].
pub fn mine(
    header: &Header,
    attempts_max: u64,
    threads: usize,
    cancel: &AtomicBool,
) -> Result<Mined, TargetError> {
    mine_with(Kernel::best(), header, attempts_max, threads, cancel)
}

/// Searches as [`mine`] does, with this kernel.
///
/// The answer depends neither on the kernel nor on the number of threads. A short search stays on the caller's thread;
/// a longer one is shared by `threads`, which have ended when this returns.
///
/// # Errors
///
/// [`TargetError`] where the header's bits encode no target.
pub fn mine_with(
    kernel: Kernel,
    header: &Header,
    attempts_max: u64,
    threads: usize,
    cancel: &AtomicBool,
) -> Result<Mined, TargetError> {
    let attempts_max = attempts_max.min(ATTEMPTS_MAX);
    let search = Search::new(kernel, header)?;
    let first = CHUNK.min(attempts_max);
    if let Some(nonce) = search.scan(0, first) {
        return Ok(Mined::Found { nonce });
    }
    let next = AtomicU64::new(first);
    let best = AtomicU64::new(ATTEMPTS_MAX);
    let work = || {
        loop {
            let start = next.fetch_add(CHUNK, Ordering::Relaxed);
            // A chunk that starts above a nonce found cannot hold a lower one.
            if start >= attempts_max || start > best.load(Ordering::Relaxed) || cancel.load(Ordering::Relaxed)
            {
                return;
            }
            if let Some(nonce) = search.scan(start, (start + CHUNK).min(attempts_max)) {
                best.fetch_min(u64::from(nonce), Ordering::Relaxed);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    let best = best.into_inner();
    Ok(match u32::try_from(best) {
        _ if cancel.load(Ordering::Relaxed) => Mined::Cancelled,
        Ok(nonce) => Mined::Found { nonce },
        Err(_) => Mined::LimitReached { attempts: attempts_max },
    })
}

/// A header made ready: the state after its first compression block, the second one, and the target.
struct Search {
    kernel: Kernel,
    state: [u32; 8],
    second: [u8; 64],
    target: [u32; 8],
}

/// Where the nonce stands in the second compression block.
const NONCE_OFFSET: usize = Header::NONCE_OFFSET - 64;

impl Search {
    fn new(kernel: Kernel, header: &Header) -> Result<Self, TargetError> {
        let bytes = header.encode();
        let (first, rest) = bytes.split_first_chunk::<64>().expect("a header is longer than 64 bytes");
        let mut state = INITIAL_STATE;
        compress256(&mut state, std::slice::from_ref(first));
        let mut second = [0; 64];
        second[..rest.len()].copy_from_slice(rest);
        // FIPS 180-4, section 5.1.1: a one bit, zeros, and the message's length in bits.
        second[rest.len()] = 0x80;
        second[56..].copy_from_slice(&(Header::SIZE as u64 * 8).to_be_bytes());
        let target = Target::from_bits(header.bits)?.to_be_bytes();
        let word = |place: usize| u32::from_be_bytes(std::array::from_fn(|byte| target[4 * place + byte]));
        Ok(Self { kernel, state, second, target: std::array::from_fn(word) })
    }

    /// Returns the lowest nonce from `start` up to `end`, exclusive, whose hash is at most the target.
    fn scan(&self, start: u64, end: u64) -> Option<u32> {
        match self.kernel.0 {
            Method::Portable => portable::scan(self, start, end),
            #[cfg(target_arch = "x86_64")]
            Method::ShaNi(it) => window::scan(self, start, end, |window, lower| it.find(window, lower)),
            #[cfg(target_arch = "x86_64")]
            Method::Avx512(it) => window::scan(self, start, end, |window, lower| it.find(window, lower)),
        }
    }
}

/// FIPS 180-4, section 5.3.3.
const INITIAL_STATE: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

#[cfg(test)]
mod tests;
