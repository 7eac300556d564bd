//! From request to sealed answer at half the top rate.

use std::{sync::Arc, time::Duration};

use liotbchain_sender::signer::KeyKind;

use crate::{Place, cluster::Cluster, process::Server, readings::Readings, traffic, verdict};

const READINGS: usize = 150_000;
const SPAN: Duration = Duration::from_secs(5);
const CONNECTIONS: [usize; 5] = [2, 4, 8, 16, 32];
/// Enough that no request waits for a connection at half the top rate.
const OPEN_CONNECTIONS: usize = 64;
const P99_BAR_MS: f64 = 50.0;

pub async fn measure(place: &Place) -> anyhow::Result<()> {
    println!("## From request to sealed answer at half the top rate, difficulty 2, Ed25519\n");
    println!(
        "Open loop over {OPEN_CONNECTIONS} connections; the time counts from when a request was due, so that none is spared by a slow answer before it.\n"
    );
    println!(
        "| store | a list, and a block, of | top rate, readings a second | connections | p50, ms | p99, ms | p99.9, ms | bar | |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|---|");
    let readings = Readings::load(&place.data, KeyKind::Ed25519, READINGS)?;
    let cluster = Cluster::start()?;
    for store in ["SQLite", "PostgreSQL"] {
        for list in [100, 2] {
            let mut trial = 0;
            let mut database = || {
                trial += 1;
                match store {
                    "SQLite" => Ok("sqlite:chain.db".to_owned()),
                    _ => cluster.make_database(&format!("trial_{list}_{trial}")),
                }
            };
            let bodies = readings.bodies(list);
            let mut top = (0.0, 0);
            for connections in CONNECTIONS {
                let (_folder, receiver, requests) = start(place, &database()?, list, &bodies).await?;
                let (answered, elapsed) =
                    traffic::send_all(&receiver.address, &requests, connections, SPAN, |_| true).await?;
                let rate = answered as f64 / elapsed.as_secs_f64();
                if rate > top.0 {
                    top = (rate, connections);
                }
            }
            let (_folder, receiver, requests) = start(place, &database()?, list, &bodies).await?;
            let interval = Duration::from_secs_f64(2.0 / top.0);
            let mut latencies =
                traffic::send_at(&receiver.address, &requests, OPEN_CONNECTIONS, interval, 2 * SPAN).await?;
            latencies.sort_unstable();
            let percentile = |part: f64| {
                let place = (latencies.len() as f64 * part) as usize;
                latencies[place.min(latencies.len() - 1)].as_secs_f64() * 1e3
            };
            let (p50, p99, p999) = (percentile(0.5), percentile(0.99), percentile(0.999));
            println!(
                "| {store} | {list} | {:.0} | {} | {p50:.1} | {p99:.1} | {p999:.1} | < {P99_BAR_MS} | {} |",
                top.0 * list as f64,
                top.1,
                verdict(p99 < P99_BAR_MS),
            );
        }
    }
    println!();
    Ok(())
}

async fn start(
    place: &Place,
    database: &str,
    list: usize,
    bodies: &[String],
) -> anyhow::Result<(tempfile::TempDir, Server, Arc<Vec<Vec<u8>>>)> {
    let folder = tempfile::tempdir()?;
    let per_block = list.to_string();
    let settings = [("TRANSACTIONS_PER_BLOCK", per_block.as_str()), ("DATABASE_URL", database)];
    let receiver = Server::receiver(&place.program, folder.path(), &settings).await?;
    let requests = Arc::new(traffic::requests(&receiver.address, bodies.to_vec()));
    Ok((folder, receiver, requests))
}
