//! The whole of a long chain in one answer: memory, and how soon it starts.

use std::time::Instant;

use anyhow::Context;

use crate::{Place, chain::long_chain, median, process::Server, verdict};

const TRANSACTIONS: u64 = 1_000_000;
const PER_BLOCK: u32 = 100;
const ROUNDS: usize = 5;
const MEMORY_BAR_MIB: f64 = 64.0;
const FIRST_BYTE_BAR_MS: f64 = 50.0;

pub async fn measure(place: &Place) -> anyhow::Result<()> {
    let folder = long_chain(&place.data, TRANSACTIONS, PER_BLOCK).await?;
    let settings = [("DATABASE_URL", "sqlite:chain.db"), ("TRANSACTIONS_PER_BLOCK", "100")];
    let mut columns = [const { Vec::new() }; 4];
    for _ in 0..ROUNDS {
        let receiver = Server::receiver(&place.program, &folder, &settings).await?;
        let (idle_mib, cpu_s, started) = (receiver.resident_mib()?, receiver.cpu_s()?, Instant::now());
        let mut answer = receiver.client.get(format!("{}/get_chain", receiver.url)).send().await?;
        let mut bytes = answer.chunk().await?.context("an empty answer")?.len();
        let first_byte_ms = started.elapsed().as_secs_f64() * 1e3;
        while let Some(chunk) = answer.chunk().await? {
            bytes += chunk.len();
        }
        anyhow::ensure!(bytes as u64 > TRANSACTIONS * 60, "the chain is not whole: {bytes} bytes");
        let values = [
            receiver.peak_mib()? - idle_mib,
            first_byte_ms,
            started.elapsed().as_secs_f64(),
            receiver.cpu_s()? - cpu_s,
        ];
        columns.iter_mut().zip(values).for_each(|(column, value)| column.push(value));
    }
    let [memory_mib, first_byte_ms, all_s, cpu_s] = columns.map(median);
    println!(
        "## `GET /get_chain` of {TRANSACTIONS} transactions, {PER_BLOCK} a block, SQLite, median of {ROUNDS}\n"
    );
    println!("| | | bar | |\n|---|---:|---:|---|");
    println!(
        "| peak memory above idle, MiB | {memory_mib:.1} | < {MEMORY_BAR_MIB} | {} |",
        verdict(memory_mib < MEMORY_BAR_MIB)
    );
    println!(
        "| first byte, ms | {first_byte_ms:.1} | < {FIRST_BYTE_BAR_MS} | {} |",
        verdict(first_byte_ms < FIRST_BYTE_BAR_MS)
    );
    println!("| all of it, s | {all_s:.2} | | |\n| all of it, s CPU of the receiver | {cpu_s:.2} | | |\n");
    Ok(())
}
