//! What an accepted reading costs the receiver on SQLite, beside its signature alone and its rows alone.

use std::{path::Path, sync::Arc, time::Duration};

use liotbchain_sender::signer::KeyKind;

use crate::{Place, bare, median, process::Server, readings::Readings, traffic, verdict};

const ROUNDS: usize = 5;
/// At most so many times the bare limits together.
const BAR: f64 = 1.4;

pub async fn measure(place: &Place) -> anyhow::Result<()> {
    println!("## Readings accepted over HTTP, SQLite, difficulty 2, one connection, median of {ROUNDS}\n");
    println!(
        "| key | a list, and a block, of | receiver, µs CPU | bare verify, µs CPU | bare insert, µs CPU | receiver over both | bar | | accepted a second |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---|---:|");
    for kind in [KeyKind::Rsa, KeyKind::Ed25519] {
        for (size, count) in [(100, 50_000), (2, 10_000)] {
            let readings = Readings::load(&place.data, kind, count)?;
            let mut columns = [const { Vec::new() }; 5];
            for _ in 0..ROUNDS {
                let folder = tempfile::tempdir()?;
                let verify = bare::verify(&readings)?;
                let insert = bare::Table::create(&folder.path().join("bare.db"))
                    .await?
                    .insert(&readings.statements, size)?;
                let (cpu, rate) =
                    accept(&place.program, folder.path(), "sqlite:chain.db", &readings, size).await?;
                let ratio = cpu / (verify + insert);
                for (column, value) in columns.iter_mut().zip([cpu, verify, insert, ratio, rate]) {
                    column.push(value);
                }
            }
            let [cpu, verify, insert, ratio, rate] = columns.map(median);
            let (bar, kept) = match size {
                100 => (format!("≤ {BAR}"), verdict(ratio <= BAR)),
                _ => (String::new(), ""),
            };
            println!(
                "| {} | {size} | {cpu:.1} | {verify:.1} | {insert:.1} | {ratio:.2} | {bar} | {kept} | {rate:.0} |",
                readings.key.algorithm(),
            );
        }
    }
    println!();
    Ok(())
}

/// Sends all readings over one connection to a receiver of its own; each list fills a block. Returns microseconds of the
/// receiver's CPU a reading, and readings a second.
pub async fn accept(
    program: &Path,
    folder: &Path,
    database: &str,
    readings: &Readings,
    size: usize,
) -> anyhow::Result<(f64, f64)> {
    let per_block = size.to_string();
    let settings = [("TRANSACTIONS_PER_BLOCK", per_block.as_str()), ("DATABASE_URL", database)];
    let receiver = Server::receiver(program, folder, &settings).await?;
    let requests = Arc::new(traffic::requests(&receiver.address, readings.bodies(size)));
    let is_sealed = match size {
        2 => |answer: &[u8]| traffic::count_sealed(answer) == 2,
        _ => |answer: &[u8]| traffic::count_sealed(answer) == 100,
    };
    let cpu_s = receiver.cpu_s()?;
    let (_, elapsed) = traffic::send_all(&receiver.address, &requests, 1, Duration::MAX, is_sealed).await?;
    let cpu_s = receiver.cpu_s()? - cpu_s;
    let count = readings.statements.len() as f64;
    Ok((cpu_s * 1e6 / count, count / elapsed.as_secs_f64()))
}
