//! The kernels of the nonce search beside the compression function alone.

use std::{hint::black_box, sync::atomic::AtomicBool};

use liotbchain_core::{
    BlockHash, Difficulty, Header, Root,
    mine::{self, ATTEMPTS_MAX, Kernel, Mined},
};
use sha2::block_api::compress256;

use crate::{median, process::thread_cpu_s, verdict};

const ATTEMPTS: u64 = 1 << 23;
const BLOCKS: u64 = 20_000;
const DIGITS: u64 = 2;
const ROUNDS: usize = 11;

/// Attempts for one of the bare function in the same time, at least.
const BARS: [(&str, f64); 2] = [("SHA-NI", 1.4), ("AVX-512", 2.6)];

/// What was measured of one kernel, a round each.
struct Measured {
    name: &'static str,
    kernel: Kernel,
    rates: Vec<f64>,
    ratios: Vec<f64>,
    block_us: Vec<f64>,
}

pub fn measure() -> anyhow::Result<()> {
    println!("## Mining, one thread, median of {ROUNDS} rounds of {ATTEMPTS} attempts and {BLOCKS} blocks\n");
    let mut kernels = Vec::new();
    for (name, kernel) in Kernel::all() {
        match kernel {
            Some(kernel) => kernels.push(Measured {
                name,
                kernel,
                rates: Vec::new(),
                ratios: Vec::new(),
                block_us: Vec::new(),
            }),
            None => println!("{name}: not on this machine, not measured.\n"),
        }
    }
    let mut bare_rates = Vec::new();
    for _ in 0..ROUNDS {
        let bare = bare_rate();
        bare_rates.push(bare);
        let mut sums = Vec::new();
        for it in &mut kernels {
            let rate = attempts_rate(it.kernel)?;
            it.rates.push(rate);
            it.ratios.push(rate / bare);
            let (block_us, nonces) = mine_blocks(it.kernel)?;
            it.block_us.push(block_us);
            sums.push(nonces);
        }
        anyhow::ensure!(sums.iter().all(|sum| *sum == sums[0]), "the kernels found different nonces");
    }
    println!(
        "| | million attempts a CPU second | of bare | at least | | a block at difficulty {DIGITS}, µs CPU |"
    );
    println!("|---|---:|---:|---:|---|---:|");
    println!("| bare `compress256` | {:.1} | | | | |", median(bare_rates));
    for it in kernels {
        let (rate, ratio, block_us) = (median(it.rates), median(it.ratios), median(it.block_us));
        let (bar, kept) = match BARS.iter().find(|(name, _)| *name == it.name) {
            Some((_, bar)) => (format!("{bar:.1}"), verdict(ratio >= *bar)),
            None => (String::new(), ""),
        };
        println!("| {} | {rate:.1} | {ratio:.2} | {bar} | {kept} | {block_us:.1} |", it.name);
    }
    println!();
    Ok(())
}

/// Returns how many million compressions the bare function does in a second, each on the last one's state.
fn bare_rate() -> f64 {
    let started = thread_cpu_s();
    let mut state = [0u32; 8];
    let mut block = [0u8; 64];
    for attempt in 0..ATTEMPTS as u32 {
        block[..4].copy_from_slice(&attempt.to_be_bytes());
        compress256(&mut state, black_box(std::slice::from_ref(&block)));
    }
    black_box(state);
    ATTEMPTS as f64 / (thread_cpu_s() - started) / 1e6
}

/// Returns how many million attempts the kernel makes in a second of a search that finds nothing.
fn attempts_rate(kernel: Kernel) -> anyhow::Result<f64> {
    let header = header(Difficulty::MAX, 0);
    let started = thread_cpu_s();
    let mined = mine::mine_with(kernel, &header, ATTEMPTS, 1, &AtomicBool::new(false))?;
    let ended = thread_cpu_s();
    anyhow::ensure!(mined == Mined::LimitReached { attempts: ATTEMPTS }, "a block of 16 zeros was found");
    Ok(ATTEMPTS as f64 / (ended - started) / 1e6)
}

/// Mines blocks that are easy, each with all that a search needs before its first attempt. Returns the microseconds for
/// one, and the sum of the nonces.
fn mine_blocks(kernel: Kernel) -> anyhow::Result<(f64, u64)> {
    let difficulty = Difficulty::new(DIGITS)?;
    let mut nonces = 0;
    let started = thread_cpu_s();
    for timestamp_ms in 0..BLOCKS {
        let header = header(difficulty, timestamp_ms);
        match mine::mine_with(kernel, &header, ATTEMPTS_MAX, 1, &AtomicBool::new(false))? {
            Mined::Found { nonce } => nonces += u64::from(nonce),
            other => anyhow::bail!("no block was found: {other:?}"),
        }
    }
    Ok(((thread_cpu_s() - started) * 1e6 / BLOCKS as f64, nonces))
}

fn header(difficulty: Difficulty, timestamp_ms: u64) -> Header {
    Header {
        prev_block_hash: BlockHash::ZERO,
        transactions_root: Root::ZERO,
        history_root: Root::ZERO,
        height: 1,
        timestamp_ms,
        bits: difficulty.bits(),
        nonce: 0,
    }
}
