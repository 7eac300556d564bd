//! How long the receiver takes to start on a long chain, and with how much memory.

use crate::{Place, chain::long_chain, median, process::Server, verdict};

const BLOCKS: u64 = 1_000_000;
const ROUNDS: usize = 7;
const TIME_BAR_S: f64 = 0.3;
const MEMORY_BAR_MIB: f64 = 64.0;

pub async fn measure(place: &Place) -> anyhow::Result<()> {
    let long = long_chain(&place.data, BLOCKS, 1).await?;
    let empty = tempfile::tempdir()?;
    let settings = [("DATABASE_URL", "sqlite:chain.db"), ("TRANSACTIONS_PER_BLOCK", "1")];
    let mut columns = [const { Vec::new() }; 4];
    for _ in 0..ROUNDS {
        let on_empty = Server::receiver(&place.program, empty.path(), &settings).await?;
        let on_long = Server::receiver(&place.program, &long, &settings).await?;
        let values = [
            on_empty.ready_after.as_secs_f64(),
            on_long.ready_after.as_secs_f64(),
            on_empty.peak_mib()?,
            on_long.peak_mib()?,
        ];
        columns.iter_mut().zip(values).for_each(|(column, value)| column.push(value));
    }
    let [empty_s, long_s, empty_mib, long_mib] = columns.map(median);
    println!("## Start on {BLOCKS} blocks, SQLite, median of {ROUNDS}\n");
    println!("| | an empty chain | {BLOCKS} blocks | bar | |\n|---|---:|---:|---:|---|");
    println!(
        "| until ready, s | {empty_s:.3} | {long_s:.3} | < {TIME_BAR_S} | {} |",
        verdict(long_s < TIME_BAR_S)
    );
    println!(
        "| peak memory, MiB | {empty_mib:.1} | {long_mib:.1} | < {MEMORY_BAR_MIB} | {} |\n",
        verdict(long_mib < MEMORY_BAR_MIB)
    );
    Ok(())
}
