//! The nonce search beside the compression function alone.

use std::{hint::black_box, sync::atomic::AtomicBool};

use liotbchain_core::{
    BlockHash, Difficulty, Header, Root,
    mine::{self, Mined},
};
use sha2::block_api::compress256;

use crate::{median, process::own_cpu_s};

const ATTEMPTS: u64 = 1 << 24;
const ROUNDS: usize = 7;

pub fn measure() -> anyhow::Result<()> {
    let header = Header {
        prev_block_hash: BlockHash::ZERO,
        transactions_root: Root::ZERO,
        history_root: Root::ZERO,
        height: 1,
        timestamp_ms: 0,
        bits: Difficulty::MAX.bits(),
        nonce: 0,
    };
    let mut rates = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        let started = own_cpu_s()?;
        let mut state = [0u32; 8];
        let mut block = [0u8; 64];
        for attempt in 0..ATTEMPTS as u32 {
            block[..4].copy_from_slice(&attempt.to_be_bytes());
            compress256(&mut state, black_box(std::slice::from_ref(&block)));
        }
        black_box(state);
        let bare = own_cpu_s()?;
        let mined = mine::mine(&header, ATTEMPTS, 1, &AtomicBool::new(false))?;
        anyhow::ensure!(mined == Mined::LimitReached { attempts: ATTEMPTS }, "a block of 16 zeros was found");
        let ended = own_cpu_s()?;
        rates[0].push(ATTEMPTS as f64 / (bare - started) / 1e6);
        rates[1].push(ATTEMPTS as f64 / (ended - bare) / 1e6);
    }
    let [bare, ours] = rates.map(median);
    println!("## Mining, one thread, {ATTEMPTS} attempts, median of {ROUNDS}\n");
    println!("| | million a CPU second |\n|---|---:|");
    println!("| bare `compress256` | {bare:.1} |\n| attempts of the nonce search | {ours:.1} |");
    println!("| ratio | {:.2} |\n", ours / bare);
    Ok(())
}
