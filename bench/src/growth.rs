//! What an accepted reading costs when the chain is long, beside what a row costs when its table is.

use std::path::Path;

use liotbchain_sender::signer::KeyKind;

use crate::{Place, bare, chain::long_chain, ingest::accept, median, readings::Readings, verdict};

const TRANSACTIONS: u64 = 5_000_000;
const LIST: usize = 100;
const ROUNDS: usize = 3;
/// For each round.
const READINGS: usize = 50_000;
/// At most so many times the processor time of an empty chain,
const BAR: f64 = 3.0;
/// and at most so many times what the bare insert grows.
const BAR_OVER_BARE: f64 = 1.4;

pub async fn measure(place: &Place) -> anyhow::Result<()> {
    let long = long_chain(&place.data, TRANSACTIONS, LIST as u32).await?;
    // Both go on from there, each in a file of its own.
    let work = tempfile::tempdir_in(&place.data)?;
    let (receiver, bare) = (work.path().join("receiver"), work.path().join("bare.db"));
    std::fs::create_dir(&receiver)?;
    std::fs::copy(long.join("chain.db"), receiver.join("chain.db"))?;
    std::fs::copy(long.join("chain.db"), &bare)?;
    let mut long_table = bare::Table::open(&bare)?;
    let all = Readings::load(&place.data, KeyKind::Ed25519, ROUNDS * READINGS)?;
    let mut columns = [const { Vec::new() }; 6];
    for statements in all.statements.chunks(READINGS) {
        let readings = Readings { key: all.key.clone(), statements: statements.to_vec() };
        let empty = tempfile::tempdir_in(&place.data)?;
        let cpu = async |folder: &Path| {
            accept(&place.program, folder, "sqlite:chain.db", &readings, LIST).await.map(|(cpu, _)| cpu)
        };
        let insert_0 = bare::Table::create(&empty.path().join("bare.db")).await?.insert(statements, LIST)?;
        let insert_n = long_table.insert(statements, LIST)?;
        let accept_0 = cpu(empty.path()).await?;
        let accept_n = cpu(&receiver).await?;
        let values = [accept_0, accept_n, accept_n / accept_0, insert_0, insert_n, insert_n / insert_0];
        columns.iter_mut().zip(values).for_each(|(column, value)| column.push(value));
    }
    let [accept_0, accept_n, growth, insert_0, insert_n, bare_growth] = columns.map(median);
    let over_bare = growth / bare_growth;
    println!(
        "## A long chain: lists of {LIST}, {LIST} a block, Ed25519, SQLite, µs CPU a reading, median of {ROUNDS}\n"
    );
    println!("| | at 0 | at {TRANSACTIONS} | grows | bar | |\n|---|---:|---:|---:|---:|---|");
    println!(
        "| receiver | {accept_0:.1} | {accept_n:.1} | {growth:.2} | ≤ {BAR} | {} |",
        verdict(growth <= BAR)
    );
    println!("| bare insert | {insert_0:.1} | {insert_n:.1} | {bare_growth:.2} | | |");
    println!(
        "| receiver's growth over the bare insert's | | | {over_bare:.2} | ≤ {BAR_OVER_BARE} | {} |\n",
        verdict(over_bare <= BAR_OVER_BARE)
    );
    Ok(())
}
