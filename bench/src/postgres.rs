//! What an accepted reading costs the receiver's process on PostgreSQL, beside its signature alone.

use liotbchain_sender::signer::KeyKind;

use crate::{Place, bare, cluster::Cluster, ingest::accept, median, readings::Readings, verdict};

const READINGS: usize = 50_000;
const LIST: usize = 100;
const ROUNDS: usize = 5;
/// At most so many times the bare limit.
const BAR: f64 = 1.8;

pub async fn measure(place: &Place) -> anyhow::Result<()> {
    println!(
        "## Readings accepted over HTTP, PostgreSQL, difficulty 2, one connection, median of {ROUNDS}\n"
    );
    println!(
        "| key | a list, and a block, of | receiver, µs CPU | bare verify, µs CPU | receiver over it | bar | | accepted a second |"
    );
    println!("|---|---:|---:|---:|---:|---:|---|---:|");
    let cluster = Cluster::start()?;
    for kind in [KeyKind::Rsa, KeyKind::Ed25519] {
        let readings = Readings::load(&place.data, kind, READINGS)?;
        let mut columns = [const { Vec::new() }; 4];
        for round in 0..ROUNDS {
            let folder = tempfile::tempdir()?;
            let verify = bare::verify(&readings)?;
            let database = cluster.make_database(&format!("{kind}_{round}"))?;
            let (cpu, rate) = accept(&place.program, folder.path(), &database, &readings, LIST).await?;
            for (column, value) in columns.iter_mut().zip([cpu, verify, cpu / verify, rate]) {
                column.push(value);
            }
        }
        let [cpu, verify, ratio, rate] = columns.map(median);
        println!(
            "| {} | {LIST} | {cpu:.1} | {verify:.1} | {ratio:.2} | ≤ {BAR} | {} | {rate:.0} |",
            readings.key.algorithm(),
            verdict(ratio <= BAR),
        );
    }
    println!();
    Ok(())
}
